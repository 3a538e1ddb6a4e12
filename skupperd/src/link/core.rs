//! The control side of links: one task that owns every site's router and tells workers what to do.
//!
//! Everything that happens reaches it as an event; nothing here waits.

mod accesses;
mod clients;
mod edges;
mod insides;
mod services;
mod site;
mod telling;
mod uplink;

pub use accesses::{AccessSpec, IncomingLink, ServerTls};
pub use services::{ConnectorSpec, ConnectorState, LISTENER_ADVERT, ListenerSpec, ListenerState};
pub use site::{LinkState, Site, SiteSpec};

use super::{
    accept::Port,
    conn::ConnKey,
    dial::Dialled,
    ends::Fronts,
    handshake::Established,
    ledger::Ledger,
    worker::{Command, Senders},
};
use crate::{
    amqp::{
        connection::{DeliveryId, LinkId},
        performative::Attach,
    },
    steer::{OwnSockets, Steer, accel::Acceleration, place::Place},
};
use bytes::Bytes;
use insides::Insides;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Interval of housekeeping: retries of listeners, connections that wait for their group.
const TICK: Duration = Duration::from_millis(250);

/// Time after a restart in which clients of a listener wait for its connectors to be reachable again,
/// as they were before: links are dialled anew and the network has to learn of this router.
const GRACE: Duration = Duration::from_secs(10);

/// Where an earlier process has had clients; each port is a place of its own.
enum Adopted {
    /// They wait until the resources are applied.
    Waiting(HashSet<Place>),
    /// The resources are applied: what of it has no listener ends now. Somebody waits for that.
    Applied(HashSet<Place>, oneshot::Sender<()>),
    /// Listeners on them are open until then, whether a connector is reachable or not.
    Grace(HashSet<Place>, Instant),
    /// Nothing is special any more.
    Over,
}

/// Why a link could not be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFailure {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What was being done.
    pub stage: &'static str,
    /// Why it failed.
    pub error: String,
}

impl std::fmt::Display for LinkFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}:{}: {}",
            self.stage, self.host, self.port, self.error
        )
    }
}

/// A call into the core from outside.
type Call = Box<dyn FnOnce(&mut Core) + Send>;

/// What reaches the core.
pub(crate) enum CoreEvent {
    /// A connection was accepted.
    Accepted {
        site: u32,
        port: Port,
        established: Box<Established>,
    },
    /// A connection was dialled.
    Dialled { site: u32, dialled: Box<Dialled> },
    /// Dialling a link failed.
    DialFailed {
        site: u32,
        link: String,
        failure: LinkFailure,
    },
    /// Another connection has taken over from this one, which ends when its streams have.
    Retire { site: u32, key: ConnKey },
    /// A connection has ended.
    Ended {
        key: ConnKey,
        group: ConnKey,
        why: String,
    },
    /// Control messages can be sent.
    ControlReady { key: ConnKey },
    /// A complete message was received.
    Message {
        key: ConnKey,
        group: ConnKey,
        link: LinkId,
        delivery: Option<DeliveryId>,
        message: Bytes,
    },
    /// An AMQP client attached a link.
    ClientAttached {
        key: ConnKey,
        link: LinkId,
        attach: Box<Attach>,
    },
    /// An AMQP client's link is gone.
    ClientDetached { key: ConnKey, link: LinkId },
    /// An AMQP client gave credit.
    ClientCredit {
        key: ConnKey,
        link: LinkId,
        credit: u32,
    },
    /// A link that the core wanted is attached.
    LinkAttached {
        key: ConnKey,
        tag: u64,
        link: LinkId,
    },
    /// Something to do.
    Call(Call),
}

/// Way to the core, from any thread.
#[derive(Clone)]
pub struct CoreSender {
    events: mpsc::UnboundedSender<CoreEvent>,
    keys: Arc<AtomicU64>,
}

impl CoreSender {
    pub(crate) fn send(&self, event: CoreEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("the core has ended");
        }
    }

    /// A key no other connection or service of this process has.
    pub fn next_key(&self) -> ConnKey {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `f` in the core and gives its result. None: the core has ended.
    pub async fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Core) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, result) = oneshot::channel();
        self.send(CoreEvent::Call(Box::new(move |core| {
            drop(answer.send(f(core)));
        })));
        result.await.ok()
    }
}

/// The state.
pub struct Core {
    pub(super) sender: CoreSender,
    pub(super) workers: Senders,
    pub(super) sites: HashMap<u32, Site>,
    /// Site and worker of every connection.
    pub(super) conns: HashMap<ConnKey, Owner>,
    /// Where listeners are bound; none for sockets of their own.
    pub(super) steer: Option<Box<dyn Steer>>,
    /// Other network namespaces that listeners are in.
    insides: Insides,
    /// Shortens the hops of listeners and connectors that ask for it.
    pub(super) acceleration: Arc<Acceleration>,
    /// Sockets of listeners that have some of their own.
    pub(super) own: OwnSockets,
    adopted: Adopted,
    /// Those of all sites' listeners.
    pub(super) fronts: Fronts,
    /// Where broken links are counted.
    pub(super) ledger: Ledger,
    changed: watch::Sender<u64>,
    next_site: u32,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) site: u32,
    pub(super) worker: usize,
}

/// The channel a core listens on, made before the workers that send to it.
pub(crate) fn channel() -> (CoreSender, mpsc::UnboundedReceiver<CoreEvent>) {
    let (events, receiver) = mpsc::unbounded_channel();
    (
        CoreSender {
            events,
            keys: Arc::new(AtomicU64::new(1)),
        },
        receiver,
    )
}

impl Core {
    /// A core without sites.
    pub fn new(
        sender: CoreSender,
        workers: Senders,
        steer: Option<Box<dyn Steer>>,
        acceleration: Arc<Acceleration>,
        own: OwnSockets,
        fronts: Fronts,
        ledger: Ledger,
    ) -> (Self, watch::Receiver<u64>) {
        let (changed, watcher) = watch::channel(0);
        let mut adopted: HashSet<Place> = own.adopted().map(Place::from).collect();
        adopted.extend(steer.iter().flat_map(|steer| steer.adopted()));
        if !adopted.is_empty() {
            for worker in 0..workers.count() {
                workers.send(worker, Command::Hold(true));
            }
        }
        let core = Self {
            sender,
            workers,
            sites: HashMap::new(),
            conns: HashMap::new(),
            steer,
            insides: Insides::default(),
            acceleration,
            own,
            adopted: Adopted::Waiting(adopted),
            fronts,
            ledger,
            changed,
            next_site: 1,
        };
        (core, watcher)
    }

    /// Runs until all senders are gone.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<CoreEvent>) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let timer = self.sites.values().map(|s| s.router.poll_timeout()).min();
            let wake = timer.map_or(next_tick, |at| at.min(next_tick));
            // Both arms are cancel-safe: a receive that did not complete has taken nothing, and the
            // time to sleep until is computed anew each time.
            let event = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => Some(event),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            if let Some(event) = event {
                self.event(event);
                // Whatever else has come is handled before routes are computed again.
                while let Ok(event) = events.try_recv() {
                    self.event(event);
                }
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.each_site(|site, core| site.tick(core, now));
                self.end_grace(now);
                self.steer.iter_mut().for_each(|steer| steer.look());
                self.insides.look(&self.workers);
            }
            self.each_site(|site, core| site.pump(core, now));
            self.settle(now);
        }
    }

    /// The resources are applied: what an earlier process has left and no listener wants can end.
    /// `done` is told when it has, and all others have their listeners.
    pub fn applied(&mut self, done: oneshot::Sender<()>) {
        if let Adopted::Waiting(addrs) = &mut self.adopted {
            self.adopted = Adopted::Applied(std::mem::take(addrs), done);
        }
    }

    /// Whether the kernel steers clients.
    pub fn steers(&self) -> bool {
        self.steer.is_some()
    }

    /// Refuses new clients, and leaves no socket to another process.
    pub fn close(&mut self) {
        if let Some(steer) = &mut self.steer {
            steer.end();
        }
        self.insides.end();
        self.own.clear();
    }

    /// Whether clients may be waiting at one of these places.
    pub(super) fn holds(&self, places: &[Place]) -> bool {
        match &self.adopted {
            Adopted::Waiting(held) | Adopted::Applied(held, _) | Adopted::Grace(held, _) => {
                let mut parts = places.iter().flat_map(|place| place.parts());
                !held.is_empty() && parts.any(|part| held.contains(&part))
            }
            Adopted::Over => false,
        }
    }

    fn settle(&mut self, now: Instant) {
        if !matches!(self.adopted, Adopted::Applied(..)) {
            return;
        }
        if let Adopted::Applied(addrs, done) = std::mem::replace(&mut self.adopted, Adopted::Over) {
            if let Some(steer) = &mut self.steer {
                steer.end_adopted();
            }
            self.own.settle();
            if !addrs.is_empty() {
                self.adopted = Adopted::Grace(addrs, now + GRACE);
            }
            // The daemon may be ending.
            let _ = done.send(());
        }
    }

    /// Ends the time in which clients wait, when it is over or nobody has to wait any more.
    fn end_grace(&mut self, now: Instant) {
        let Adopted::Grace(_, until) = self.adopted else {
            return;
        };
        if now < until && self.sites.values().any(Site::has_held_listeners) {
            return;
        }
        self.adopted = Adopted::Over;
        self.each_site(|site, _| site.release_listeners());
        for worker in 0..self.workers.count() {
            self.workers.send(worker, Command::Hold(false));
        }
    }

    /// Runs `f` on every site, with the rest of the core at hand.
    fn each_site(&mut self, mut f: impl FnMut(&mut Site, &mut Core)) {
        let mut sites = std::mem::take(&mut self.sites);
        for site in sites.values_mut() {
            f(site, self);
        }
        self.sites = sites;
    }

    /// Runs `f` on a site, with the rest of the core at hand.
    pub fn site<R>(&mut self, id: u32, f: impl FnOnce(&mut Site, &mut Core) -> R) -> Option<R> {
        let mut site = self.sites.remove(&id)?;
        let result = f(&mut site, self);
        self.sites.insert(id, site);
        Some(result)
    }

    /// Something that status shows has changed.
    pub(super) fn changed(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    pub(super) fn tell(&self, key: ConnKey, command: Command) {
        if let Some(owner) = self.conns.get(&key) {
            self.workers.send(owner.worker, command);
        }
    }

    fn event(&mut self, event: CoreEvent) {
        match event {
            CoreEvent::Call(call) => call(self),
            CoreEvent::Accepted {
                site,
                port,
                established,
            } => {
                self.site(site, |s, core| match port {
                    Port::Links { access, role, .. } => {
                        s.accepted(core, &access, role, *established);
                    }
                    Port::Local => s.client(core, *established),
                });
            }
            CoreEvent::Dialled { site, dialled } => {
                self.site(site, |s, core| s.dialled(core, *dialled));
            }
            CoreEvent::DialFailed {
                site,
                link,
                failure,
            } => {
                self.site(site, |s, core| s.dial_failed(core, &link, failure));
            }
            CoreEvent::Retire { site, key } => {
                self.site(site, |s, core| s.retire(core, key));
            }
            CoreEvent::Ended { key, group, why } => {
                if let Some(owner) = self.conns.remove(&key) {
                    self.site(owner.site, |s, core| s.ended(core, key, group, &why));
                }
            }
            CoreEvent::ControlReady { key } => {
                self.on(key, |s, core| s.control_ready(core, key));
            }
            CoreEvent::Message {
                key,
                group,
                link,
                delivery,
                message,
            } => {
                self.on(key, |s, core| {
                    s.message(core, key, group, link, delivery, message);
                });
            }
            CoreEvent::ClientAttached { key, link, attach } => {
                self.on(key, |s, core| s.client_attached(core, key, link, &attach));
            }
            CoreEvent::ClientDetached { key, link } => {
                self.on(key, |s, core| s.client_detached(core, key, link));
            }
            CoreEvent::LinkAttached { key, tag, link } => {
                self.on(key, |s, core| s.uplink_attached(core, key, tag, link));
            }
            CoreEvent::ClientCredit { key, link, credit } => {
                self.on(key, |s, core| s.client_credit(core, key, link, credit));
            }
        }
    }

    fn on(&mut self, key: ConnKey, f: impl FnOnce(&mut Site, &mut Core)) {
        if let Some(owner) = self.conns.get(&key).copied() {
            self.site(owner.site, f);
        }
    }

    /// Starts a site; its id within this process.
    pub fn add_site(&mut self, spec: SiteSpec) -> u32 {
        let id = self.next_site;
        self.next_site += 1;
        self.sites.insert(id, Site::new(id, spec));
        self.changed();
        id
    }

    /// Ends a site with everything that is on it.
    pub fn remove_site(&mut self, id: u32) {
        if let Some(site) = self.sites.remove(&id) {
            site.shut_down(self);
            for worker in 0..self.workers.count() {
                self.workers.send(worker, Command::SiteGone(id));
            }
            self.changed();
        }
    }
}
