//! The control side of links: one task that owns every site and commands the workers.
//!
//! Its inputs are two channels: [`CoreEvent`]s of workers and of the tasks that dial and accept, and
//! [`CoreRequest`]s of other threads. It queues both by [`Site`], serves the sites in turn, each for its
//! share of time, then handles the events of all routers. So neither the events of one site nor all of
//! them together delay the timers of another. Nothing here blocks.
//!
//! Sites never leave the map while they are worked on; what they share is in [`CoreContext`], beside the
//! map.
//!
//! Times: 0.5 ms for a site in its turn ([`SHARE`]), 5 ms for all of them before timers are looked at
//! ([`ROUND`]), a tick each 250 ms ([`TICK`]) for what has no timer of its own. Events are bounded by the
//! permits of the connections that they come from.
//!
//! It never carries a stream, reads no file, and knows no resources: it is given specifications.

mod context;
mod handle;
mod queue;
mod request;
mod site;

pub(crate) use handle::channel;
pub use handle::{CoreEnded, CoreHandle};
pub use request::{CoreRequest, Reply, SiteRequest, SiteState};
pub(crate) use site::open_config;
pub use site::{
    AccessSpec, ConnectorSpec, ConnectorState, IncomingLink, LinkState, ListenerChange,
    ListenerSpec, ListenerState, Probe, ProbeKind, SiteSpec,
};

use crate::{
    flows::FlowLog,
    listen::ListenerSockets,
    messages::{Command, CoreEvent, CoreSender, EventScope, Senders},
    service::policy::ListenerPolicies,
    steer::{OwnSockets, Steer, accel::Acceleration},
    sys::clock,
};
use context::CoreContext;
use handle::Inbox;
use queue::{QueuedWork, SiteQueues};
use request::answer;
use site::Site;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Interval of housekeeping: retries of listeners, connections that wait for their group.
const TICK: Duration = Duration::from_millis(250);

/// Time in which events are handled before timers are looked at.
const ROUND: Duration = Duration::from_millis(5);

/// Share of a site of that time, for each of its turns.
const SHARE: Duration = Duration::from_micros(500);

/// Time in which events are queued before one of them is handled. It is cheap next to handling, and an
/// event of another site may be the last of a backlog.
const QUEUEING: Duration = Duration::from_millis(2);

/// Events that are queued between two looks at the clock.
const CLOCK_EVERY: usize = 64;

/// In place of a site, for what concerns all of them. Ids of sites begin at 1.
const ALL_SITES: u32 = 0;

/// All sites, and what they share.
pub struct Core {
    sites: HashMap<u32, Site>,
    next_site: u32,
    queues: SiteQueues<CoreRequest, CoreEvent>,
    ctx: CoreContext,
}

impl Core {
    /// A core without sites. The receiver is notified whenever a status may have changed.
    pub fn new(
        sender: CoreSender,
        workers: Senders,
        steer: Option<Box<dyn Steer>>,
        acceleration: Arc<Acceleration>,
        own: OwnSockets,
        policies: ListenerPolicies,
        flow_log: FlowLog,
    ) -> (Self, watch::Receiver<u64>) {
        let sockets = ListenerSockets::new(steer, acceleration, own, policies);
        if sockets.has_adopted() {
            workers.broadcast(|| Command::KeepClientsWaiting(true));
        }
        let (ctx, status_changes) = CoreContext::new(sender, workers, sockets, flow_log);
        let core = Self {
            sites: HashMap::new(),
            next_site: 1,
            queues: SiteQueues::new(),
            ctx,
        };
        (core, status_changes)
    }

    /// Runs until all senders are gone.
    pub(crate) async fn run(mut self, mut inbox: Inbox) {
        let mut next_tick = clock::now() + TICK;
        loop {
            let timer = self.sites.values().map(Site::poll_timeout).min();
            let wake = timer.map_or(next_tick, |at| at.min(next_tick));
            if self.queues.is_empty() {
                // All arms are cancel-safe: a receive that did not complete has taken nothing, and the
                // time to sleep until is computed anew each time.
                tokio::select! {
                    event = inbox.events.recv() => match event {
                        // With nothing else to do it needs no turn.
                        Some(event) if inbox.is_empty() => self.event(event),
                        Some(event) => self.queue_event(event),
                        None => return,
                    },
                    Some(request) = inbox.requests.recv() => self.queue_request(request),
                    () = tokio::time::sleep_until(wake.into()) => {}
                }
            } else {
                // The tasks that dial and accept are on this thread too.
                tokio::task::yield_now().await;
            }
            // Whatever else has come is handled before routes are computed again, but timers do not wait
            // for long: neighbours that hear nothing for three seconds are lost.
            self.serve(&mut inbox);
            let now = clock::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
            }
            for site in self.sites.values_mut() {
                site.pump(&mut self.ctx, now);
            }
            self.ctx.sockets.end_unclaimed(now);
        }
    }

    /// Serves the sites in turn, until nothing is left to do or the round is over.
    fn serve(&mut self, inbox: &mut Inbox) {
        let round_end = clock::now() + ROUND;
        self.take(inbox);
        let mut now = clock::now();
        while now < round_end
            && let Some(site) = self.queues.begin_turn()
        {
            let turn_end = now + SHARE;
            while now < turn_end
                && let Some(work) = self.queues.pop(site)
            {
                match work {
                    QueuedWork::Request(request) => self.request(request),
                    QueuedWork::Event(event) => self.site_event(site, event),
                }
                now = clock::now();
            }
            // Others that have got something to do meanwhile are served before this one again.
            self.take(inbox);
            self.queues.end_turn(site);
            now = clock::now();
        }
    }

    /// Queues what has come by now, and not what comes meanwhile. When more has come than can be
    /// queued in [`QUEUEING`], some of it is handled before the rest is queued.
    fn take(&mut self, inbox: &mut Inbox) {
        let end = clock::now() + QUEUEING;
        for n in 1..=inbox.events.len() {
            if let Ok(event) = inbox.events.try_recv() {
                self.queue_event(event);
            }
            if n % CLOCK_EVERY == 0 && clock::now() >= end {
                break;
            }
        }
        for _ in 0..inbox.requests.len() {
            if let Ok(request) = inbox.requests.try_recv() {
                self.queue_request(request);
            }
        }
    }

    fn queue_event(&mut self, event: CoreEvent) {
        if let Some(site) = self.recipient(&event) {
            self.queues.push(site, QueuedWork::Event(event));
        }
    }

    /// Queues a request to a site. Others are answered at once.
    fn queue_request(&mut self, request: CoreRequest) {
        match request {
            CoreRequest::Site(site, _) | CoreRequest::RemoveSite(site, _) => {
                self.queues.push(site, QueuedWork::Request(request));
            }
            _ => self.request(request),
        }
    }

    fn tick(&mut self, now: Instant) {
        for site in self.sites.values_mut() {
            site.tick(&mut self.ctx, now);
        }
        self.end_grace(now);
        self.ctx.sockets.rescan(&self.ctx.workers);
    }

    /// Ends the time after a restart in which clients wait.
    fn end_grace(&mut self, now: Instant) {
        let has_waiting_clients = || self.sites.values().any(Site::has_held_listeners);
        if self.ctx.sockets.end_grace(now, has_waiting_clients) {
            self.sites.values_mut().for_each(Site::release_listeners);
            self.ctx
                .workers
                .broadcast(|| Command::KeepClientsWaiting(false));
        }
    }

    // ---- requests ----

    fn request(&mut self, request: CoreRequest) {
        match request {
            CoreRequest::Ping(reply) => answer(reply, ()),
            CoreRequest::IsSteering(reply) => answer(reply, self.ctx.sockets.is_steering()),
            CoreRequest::ReleaseUnclaimed(reply) => self.ctx.sockets.release_unclaimed(reply),
            CoreRequest::RefuseClients(reply) => {
                self.ctx.sockets.refuse_clients();
                answer(reply, ());
            }
            CoreRequest::AddSite(spec, reply) => answer(reply, self.add_site(*spec)),
            CoreRequest::RemoveSite(id, reply) => {
                self.remove_site(id);
                answer(reply, ());
            }
            CoreRequest::Site(id, request) => {
                if let Some(site) = self.sites.get_mut(&id) {
                    site.request(request, &mut self.ctx);
                    site.apply(&mut self.ctx);
                }
            }
        }
    }

    fn add_site(&mut self, spec: SiteSpec) -> u32 {
        let id = self.next_site;
        self.next_site += 1;
        self.sites.insert(id, Site::new(id, spec, &self.ctx));
        self.ctx.update_status();
        id
    }

    fn remove_site(&mut self, id: u32) {
        if let Some(site) = self.sites.remove(&id) {
            site.shut_down(&mut self.ctx);
            self.ctx.workers.broadcast(|| Command::SiteGone(id));
            self.ctx.update_status();
        }
    }

    // ---- events ----

    fn event(&mut self, event: CoreEvent) {
        if let Some(site) = self.recipient(&event) {
            self.site_event(site, event);
        }
    }

    /// The site that an event is for. `None`: its connection has ended.
    fn recipient(&self, event: &CoreEvent) -> Option<u32> {
        match event.recipient() {
            EventScope::Site(site) => Some(site),
            EventScope::Connection(key) => Some(self.ctx.connections.get(&key)?.site),
            EventScope::AllSites => Some(ALL_SITES),
        }
    }

    fn site_event(&mut self, site: u32, event: CoreEvent) {
        match &event {
            CoreEvent::Ended { key, .. } => drop(self.ctx.connections.remove(key)),
            CoreEvent::Changed => self.ctx.update_status(),
            _ => {}
        }
        if let Some(site) = self.sites.get_mut(&site) {
            let permit = site.event(event);
            site.apply(&mut self.ctx);
            self.ctx.release(permit);
        }
    }
}

#[cfg(test)]
mod tests;
