//! What all connections of one peer may hold together: a peer can open as many as it likes.
//!
//! A peer is whoever shows certificates of one subject, or a user of this host. Each connection charges
//! what it holds ([`PeerBudget::charge`]), each stream what waits in its queue
//! ([`PeerBudget::charge_stream`]), and each event for the core what it carries ([`super::intake`]). The
//! charge that goes beyond the budget ends its connection or its stream. Those of other peers are not
//! affected.

use super::intake::Intake;
use crate::sys;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Bytes that all connections of a peer may hold, without those of its streams: two that hold all that
/// one may, three hundred busy or four thousand idle ones.
const CONNECTIONS: usize = 256 * 1024 * 1024;
/// The least that may wait in the queues of all streams of a peer: a thousand whole windows.
const MIN_STREAMS: usize = 1024 * 1024 * 1024;

/// Bytes that may wait in the queues of all streams of a peer: a quarter of the memory that this process
/// may use.
fn stream_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let memory = usize::try_from(sys::memory_size()).unwrap_or(usize::MAX);
        MIN_STREAMS.max(memory / 4)
    })
}

/// What one peer holds.
#[derive(Debug)]
pub struct PeerBudget {
    /// Name of the peer for the log.
    name: String,
    connections: Account,
    streams: Account,
    /// What is not handled by the core yet.
    messages: Arc<Intake>,
    /// The same of data connections, on which an honest peer sends streams only: they do not wait for its
    /// control connection.
    data: Arc<Intake>,
    /// A stream was aborted, which is not in the log yet.
    has_overrun: AtomicBool,
}

impl PeerBudget {
    pub(crate) fn new(name: String) -> Arc<Self> {
        Self::with_limits(name, CONNECTIONS, stream_limit())
    }

    pub(crate) fn with_limits(name: String, connections: usize, streams: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            connections: Account::new(connections),
            streams: Account::new(streams),
            messages: Arc::default(),
            data: Arc::default(),
            has_overrun: AtomicBool::new(false),
        })
    }

    /// What its connections have given to the core.
    pub(crate) fn messages(&self) -> &Arc<Intake> {
        &self.messages
    }

    /// The same of its data connections.
    pub(crate) fn data(&self) -> &Arc<Intake> {
        &self.data
    }

    /// The part of one more connection.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        self.part_of(|budget| &budget.connections)
    }

    /// The part of one more stream.
    pub(crate) fn charge_stream(self: &Arc<Self>) -> Charge {
        self.part_of(|budget| &budget.streams)
    }

    fn part_of(self: &Arc<Self>, account: fn(&Self) -> &Account) -> Charge {
        Charge {
            budget: self.clone(),
            account,
            bytes: 0,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A stream is aborted because too much waits. The next connection of the peer reports it.
    pub(crate) fn note_overrun(&self) {
        self.has_overrun.store(true, Ordering::Relaxed);
    }

    /// Whether an overrun has not been reported yet; from now on it counts as reported.
    pub(crate) fn take_overrun(&self) -> bool {
        self.has_overrun.load(Ordering::Relaxed) && self.has_overrun.swap(false, Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Account {
    bytes: AtomicUsize,
    limit: usize,
}

impl Account {
    fn new(limit: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            limit,
        }
    }

    /// Changes a part of the sum. False: the part has grown and the sum is over the limit.
    fn set(&self, part: &mut usize, bytes: usize) -> bool {
        let before = std::mem::replace(part, bytes);
        if bytes == before {
            return true;
        }
        if bytes < before {
            self.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let grown = bytes - before;
        self.bytes.fetch_add(grown, Ordering::Relaxed) + grown <= self.limit
    }
}

/// What one connection holds, or what waits in the queue of one stream, until dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<PeerBudget>,
    account: fn(&PeerBudget) -> &Account,
    bytes: usize,
}

impl Charge {
    /// It is so much now. False: it has grown and the peer is over its budget.
    #[must_use]
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        (self.account)(&self.budget).set(&mut self.bytes, bytes)
    }

    /// What is charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn budget(&self) -> &Arc<PeerBudget> {
        &self.budget
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // It does not grow.
        let _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_peer_have_one_budget_and_give_it_back() {
        let budget = PeerBudget::with_limits("mallory".into(), 100, 100);
        let (mut first, mut second) = (budget.charge(), budget.charge());
        assert!(first.set(60) && second.set(40));
        assert!(!second.set(41), "one byte more than the budget");
        // One that shrinks is never the one that is over it.
        assert!(second.set(41) && first.set(59));
        drop(second);
        assert!(first.set(100));
        drop(first);
        assert_eq!(budget.connections.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn streams_and_connections_are_counted_apart() {
        let budget = PeerBudget::with_limits("mallory".into(), 100, 50);
        let (mut connection, mut stream) = (budget.charge(), budget.charge_stream());
        assert!(connection.set(100) && stream.set(50) && !stream.set(51));
        assert!(stream_limit() >= MIN_STREAMS);
    }
}
