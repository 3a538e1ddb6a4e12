//! What listeners of all sites are bound to: steering by the kernel, here and in other network
//! namespaces, sockets of their own, and what an earlier process left.
//!
//! [`ListenerSockets`] is owned by the core, on its thread, and is its one part that calls into the
//! kernel for listeners. `Listeners` of each site decides which listeners are open, and calls it to open
//! and close them; [`ListenerSockets::end_unclaimed`] follows once the daemon has applied all resources.
//!
//! What an earlier process had is adopted: first its clients wait, then for 10 s ([`GRACE`]) its
//! listeners stay open without a connector, then there is nothing left of it.
//!
//! It never accepts a client: workers do, on the sockets that it gives them. It reads no resource, and
//! does not decide which of two listeners has an address.

mod netns;

use crate::{
    messages::{CoreSender, Senders},
    service::policy::ListenerPolicies,
    steer::{
        NetnsSteering, OwnSockets, Owner, Steer, SteerError, accel::Acceleration,
        bind_range::BindRange,
    },
};
use netns::NetnsSteerings;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Time after a restart in which clients of a listener wait for its connectors to be reachable again,
/// as they were before: links are dialled anew and the network has to learn of this router.
const GRACE: Duration = Duration::from_secs(10);

/// Where an earlier process had listeners, by single ports.
enum AdoptedRanges {
    /// Clients wait until the resources are applied.
    Waiting(HashSet<BindRange>),
    /// The resources are applied: ranges without a listener are released now. The caller waits
    /// for the reply.
    Applied(HashSet<BindRange>, oneshot::Sender<()>),
    /// Listeners on them are open until then, whether a connector is reachable or not.
    Grace(HashSet<BindRange>, Instant),
    /// No clients of an earlier process wait.
    Over,
}

pub(crate) struct ListenerSockets {
    /// Steering of this network namespace; `None`: listeners have sockets of their own.
    steer: Option<Box<dyn Steer>>,
    netns_steerings: NetnsSteerings,
    /// Sockets of listeners that have some of their own.
    pub(crate) own: OwnSockets,
    /// Shortens the hops of listeners and connectors that ask for it.
    pub(crate) acceleration: Arc<Acceleration>,
    /// Policies of listeners, as workers look them up.
    pub(crate) policies: ListenerPolicies,
    adopted: AdoptedRanges,
}

impl ListenerSockets {
    pub(crate) fn new(
        steer: Option<Box<dyn Steer>>,
        acceleration: Arc<Acceleration>,
        own: OwnSockets,
        policies: ListenerPolicies,
    ) -> Self {
        let mut adopted: HashSet<BindRange> = own.adopted().map(BindRange::from).collect();
        adopted.extend(steer.iter().flat_map(|steer| steer.adopted()));
        Self {
            steer,
            netns_steerings: NetnsSteerings::default(),
            own,
            acceleration,
            policies,
            adopted: AdoptedRanges::Waiting(adopted),
        }
    }

    /// Whether clients of an earlier process may be waiting.
    pub(crate) fn has_adopted(&self) -> bool {
        match &self.adopted {
            AdoptedRanges::Waiting(held)
            | AdoptedRanges::Applied(held, _)
            | AdoptedRanges::Grace(held, _) => !held.is_empty(),
            AdoptedRanges::Over => false,
        }
    }

    /// Whether such clients may be waiting at one of these bind ranges.
    pub(crate) fn has_waiting_clients(&self, bind_ranges: &[BindRange]) -> bool {
        match &self.adopted {
            AdoptedRanges::Waiting(held)
            | AdoptedRanges::Applied(held, _)
            | AdoptedRanges::Grace(held, _) => {
                let mut parts = bind_ranges.iter().flat_map(|range| range.parts());
                !held.is_empty() && parts.any(|part| held.contains(&part))
            }
            AdoptedRanges::Over => false,
        }
    }

    /// Whether the kernel steers clients of this network namespace.
    pub(crate) fn is_steering(&self) -> bool {
        self.steer.is_some()
    }

    /// Ends and begins to steer these bind ranges, as one batch: in the network namespace of `netns`, or
    /// in this one. One result for each that begins.
    pub(crate) fn steer(
        &mut self,
        netns: Option<&Arc<NetnsSteering>>,
        (sender, workers): (&CoreSender, &Senders),
        end: &[BindRange],
        begin: Vec<(BindRange, Owner)>,
    ) -> Vec<Result<(), SteerError>> {
        if let Some(netns) = netns {
            self.netns_steerings.admit(netns, sender, workers);
            return netns.apply(end, begin);
        }
        let steer = self.steer.as_mut();
        steer.map_or_else(Vec::new, |steer| steer.apply(end, begin))
    }

    /// Follows what others listen on by now.
    pub(crate) fn rescan(&mut self, workers: &Senders) {
        self.steer.iter_mut().for_each(|steer| steer.rescan());
        self.netns_steerings.rescan(workers);
    }

    /// The resources are applied: what an earlier process left and no listener claims can end.
    /// `done` is answered when it has.
    pub(crate) fn release_unclaimed(&mut self, done: oneshot::Sender<()>) {
        if let AdoptedRanges::Waiting(bind_ranges) = &mut self.adopted {
            self.adopted = AdoptedRanges::Applied(std::mem::take(bind_ranges), done);
        }
    }

    /// Ends what no listener has claimed, once the resources are applied.
    pub(crate) fn end_unclaimed(&mut self, now: Instant) {
        if !matches!(self.adopted, AdoptedRanges::Applied(..)) {
            return;
        }
        if let AdoptedRanges::Applied(bind_ranges, done) =
            std::mem::replace(&mut self.adopted, AdoptedRanges::Over)
        {
            if let Some(steer) = &mut self.steer {
                steer.end_adopted();
            }
            self.own.close_unclaimed();
            if !bind_ranges.is_empty() {
                self.adopted = AdoptedRanges::Grace(bind_ranges, now + GRACE);
            }
            // The daemon may be ending.
            let _ = done.send(());
        }
    }

    /// Ends the time in which clients wait, when it is over or `any_client_waits` is false.
    pub(crate) fn end_grace(
        &mut self,
        now: Instant,
        any_client_waits: impl FnOnce() -> bool,
    ) -> bool {
        let AdoptedRanges::Grace(_, until) = self.adopted else {
            return false;
        };
        if now < until && any_client_waits() {
            return false;
        }
        self.adopted = AdoptedRanges::Over;
        true
    }

    /// Refuses new clients, and leaves no socket to another process.
    pub(crate) fn refuse_clients(&mut self) {
        if let Some(steer) = &mut self.steer {
            steer.end();
        }
        self.netns_steerings.end();
        self.own.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn sockets(held: &[BindRange]) -> ListenerSockets {
        let acceleration = Acceleration::new(false);
        let policies = ListenerPolicies::default();
        let own = OwnSockets::default();
        let mut sockets = ListenerSockets::new(None, acceleration, own, policies);
        sockets.adopted = AdoptedRanges::Waiting(held.iter().copied().collect());
        sockets
    }

    fn bind_range(port: u16) -> BindRange {
        BindRange::from(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn clients_of_an_earlier_process_wait_until_the_grace_is_over() {
        let (held, now) = (bind_range(8080), Instant::now());
        let mut sockets = sockets(&[held]);
        let (done, mut answer) = oneshot::channel();
        sockets.release_unclaimed(done);
        assert!(
            sockets.has_waiting_clients(&[held])
                && !sockets.has_waiting_clients(&[bind_range(8081)])
        );
        assert!(answer.try_recv().is_err());
        sockets.end_unclaimed(now);
        assert!(answer.try_recv().is_ok() && sockets.has_waiting_clients(&[held]));
        assert!(!sockets.end_grace(now, || true));
        assert!(sockets.end_grace(now + GRACE, || true));
        assert!(!sockets.has_waiting_clients(&[held]) && !sockets.has_adopted());
        assert!(!sockets.end_grace(now + GRACE, || true));
    }

    #[test]
    fn the_grace_is_over_when_no_listener_holds_clients() {
        let (held, now) = (bind_range(8080), Instant::now());
        let mut sockets = sockets(&[held]);
        let (done, _answer) = oneshot::channel();
        sockets.release_unclaimed(done);
        sockets.end_unclaimed(now);
        assert!(sockets.end_grace(now, || false));
        assert!(!sockets.has_adopted());
    }
}
