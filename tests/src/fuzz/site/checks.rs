//! What holds whatever the hostile peer does. The numbers are those of docs/guide/security.md.

use super::{
    PANICKED, SERVICE, SITE,
    honest::{self, Honest, behind},
    nonsense::Hostile,
};
use crate::fuzz::heap;
use skupperd::simulation::{MessageCounts, Simulation};
use std::{collections::BTreeSet, time::Duration};

/// Memory of a connection that does nothing: buffers of the pipe, for sending and for receiving.
const CONNECTION: usize = 1536 * 1024;
/// Memory for each byte that the peer has sent: a byte can be a value, and a table grows by doubling.
const EACH: usize = 512;
/// The documented sum of what one connection can hold.
const BUDGET: usize = 120 * 1024 * 1024;
/// What is left after the peer is gone and forgotten: tables that held up to the budget do not shrink.
const LEFT: usize = 4 * 1024 * 1024;

/// Messages between core and workers that a step may cause: some, and some for each frame of the
/// peer and for what each frame makes known.
const MESSAGES: u64 = 3000;
const MESSAGES_OF_FRAME: u64 = 40;

/// Simulated time after which links of the peer are gone with their routes.
const GONE: Duration = Duration::from_secs(8);
/// From then on, until the routing keys of other routers are back that it has hidden: a router speaks
/// every 30 s, and its addresses are requested then.
const HEARD: Duration = Duration::from_secs(25);
/// The same for everything else that it has said of others, and for its ids: a minute in all.
const FORGOTTEN: Duration = Duration::from_secs(40);

pub(super) struct Checks<'a> {
    simulation: &'a Simulation,
    honest: &'a Honest,
    /// Memory before the peer came.
    memory: isize,
    counts: MessageCounts,
    frames: usize,
    /// Reasons for which connections of the peer have ended.
    ended: usize,
    most_memory: usize,
    most_messages: u64,
}

impl<'a> Checks<'a> {
    pub(super) fn new(simulation: &'a Simulation, honest: &'a Honest) -> Self {
        Self {
            simulation,
            honest,
            memory: heap::live(),
            counts: simulation.counts(),
            frames: 0,
            ended: 0,
            most_memory: 0,
            most_messages: 0,
        }
    }

    /// One line of results.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} ended, at most {} KiB and {} messages a step",
            self.ended,
            self.most_memory / 1024,
            self.most_messages
        )
    }

    /// After each step.
    pub(super) async fn now(&mut self, hostile: &Hostile) {
        assert!(!PANICKED.get(), "a task has panicked");
        self.neighbour();
        self.work(hostile);
        self.memory(hostile);
        self.routes().await;
    }

    /// The honest neighbour notices nothing.
    fn neighbour(&mut self) {
        let mut reasons = Vec::new();
        for ended in self.simulation.take_ended() {
            self.ended += 1;
            reasons.push(format!("{}: {}", ended.remote, ended.reason));
        }
        let report = self.honest.report.borrow();
        if let Some(reason) = &report.ended {
            panic!("the honest link has ended: {reason}; at the site: {reasons:?}");
        }
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        assert!(
            report.is_up && report.losses == 0,
            "the honest neighbour was lost {} times",
            report.losses
        );
        assert!(
            self.honest.reaches(SERVICE),
            "the honest neighbour has no way to the service"
        );
    }

    /// The peer causes work in proportion to what it sends.
    fn work(&mut self, hostile: &Hostile) {
        let (counts, frames) = (self.simulation.counts(), hostile.sent().1);
        let of_frames = MESSAGES_OF_FRAME * (frames - self.frames) as u64;
        let most = MESSAGES + of_frames;
        let commands = counts.commands - self.counts.commands;
        let events = counts.events - self.counts.events;
        assert!(
            commands <= most && events <= most,
            "{commands} commands and {events} events for {} frames",
            frames - self.frames
        );
        self.most_messages = self.most_messages.max(commands).max(events);
        (self.counts, self.frames) = (counts, frames);
    }

    /// The memory that is held for the peer.
    fn memory(&mut self, hostile: &Hostile) {
        let live = heap::live() - self.memory - hostile.held_bytes() as isize;
        let live = usize::try_from(live).unwrap_or(0);
        self.most_memory = self.most_memory.max(live);
        let connections = hostile.opened.max(1);
        let of_bytes = EACH * hostile.sent().0;
        let most = CONNECTION * (connections + 1) + of_bytes.min(BUDGET * connections);
        assert!(
            live <= most,
            "{live} bytes for {connections} connections and {} bytes",
            hostile.sent().0
        );
    }

    /// The way to the honest neighbour is its link, whatever others say.
    async fn routes(&self) {
        let state = self.simulation.describe().await.expect("a core");
        let network = &state.network;
        let neighbour = network.iter().find(|router| router.id == honest::ID);
        let neighbour = neighbour.expect("the honest neighbour is known");
        assert_eq!(neighbour.cost, Some(1));
        assert_eq!(neighbour.next_hop.as_deref(), Some(honest::ID));
        let is_incoming = state.incoming.iter().any(|link| link.remote == honest::ID);
        assert!(is_incoming, "the honest link is not up");
    }

    /// When the peer is gone: so are its links and what it has said.
    pub(super) async fn after(&mut self, hostile: &Hostile, is_long: bool) {
        self.simulation.advance(GONE).await;
        self.now(hostile).await;
        assert_eq!(self.simulation.connections(), [honest::ID]);
        let state = self.simulation.describe().await.expect("a core");
        let incoming: Vec<&str> = state.incoming.iter().map(|l| l.remote.as_str()).collect();
        assert_eq!(incoming, [honest::ID]);
        let view = self.simulation.view();
        for (id, route) in view.routes.routers.iter() {
            assert_eq!(route.next_hop_id, honest::ID, "the way to {id}");
        }
        if is_long {
            self.simulation.advance(HEARD).await;
            self.now(hostile).await;
            let view = self.simulation.view();
            for key in [honest::SERVICE, behind::SERVICE] {
                assert!(view.reaches(key), "{key} is hidden");
            }
            self.simulation.advance(FORGOTTEN).await;
            self.now(hostile).await;
            self.forgotten().await;
        }
        self.simulation.stop().await.expect("a core");
        self.simulation.advance(Duration::from_secs(2)).await;
        assert_eq!(self.simulation.connections(), Vec::<String>::new());
        let report = self.honest.report.borrow();
        let reason = report.ended.as_deref().unwrap_or_default();
        assert!(reason.contains("site removed"), "{reason:?}");
        assert!(!PANICKED.get(), "a task has panicked");
    }

    /// Nothing of the peer is kept.
    async fn forgotten(&self) {
        let state = self.simulation.describe().await.expect("a core");
        let ids: BTreeSet<&str> = state.network.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, BTreeSet::from([SITE, honest::ID, behind::ROUTER]));
        assert_eq!(self.honest.routers(), [behind::ROUTER, SITE]);
        let view = self.simulation.view();
        assert!(view.routes.edges.is_empty(), "{:?}", view.routes.edges);
        let source = &view.source;
        let own = [
            SERVICE.to_owned(),
            format!("skupper-site/{SITE}"),
            format!("sfe.{source}:0"),
            format!("vfcr.{source}:0"),
            honest::SERVICE.to_owned(),
            behind::SERVICE.to_owned(),
        ];
        let addresses: BTreeSet<&str> = view.routes.addresses.keys().map(|a| &**a).collect();
        assert_eq!(addresses, own.iter().map(String::as_str).collect());
        let live = usize::try_from(heap::live() - self.memory).unwrap_or(0);
        assert!(live <= LEFT, "{live} bytes are left of the peer");
    }
}
