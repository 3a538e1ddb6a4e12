//! Where an incoming stream comes from: a connection of this worker, or another worker's.

use super::{
    conn::{Conn, Current, InStream, Outcome},
    worker::{Command, RelayId, Relayed, Senders},
};
use std::rc::Rc;

/// The sending side of an incoming stream, as its receiver sees it.
pub enum Upstream {
    /// A delivery on a connection of this worker.
    Conn(Rc<Conn>, InStream),
    /// A delivery on a connection of another worker.
    Relay {
        /// Channels of all workers.
        senders: Senders,
        /// The worker.
        worker: usize,
        /// Its name for the stream.
        id: RelayId,
    },
}

impl Upstream {
    /// Tells the sender how many bytes have been passed on in all.
    pub fn ack(&self, cur: Current<'_>, offset: u64) {
        match self {
            Self::Conn(conn, stream) if conn.is_open() => {
                conn.with(cur, |inner| inner.ack(*stream, offset));
            }
            Self::Conn(..) => {}
            Self::Relay {
                senders,
                worker,
                id,
            } => {
                senders.send(*worker, Command::RelayBack(*id, Relayed::Ack(offset)));
            }
        }
    }

    /// Settles the delivery.
    pub fn settle(&self, cur: Current<'_>, outcome: Outcome) {
        match self {
            Self::Conn(conn, stream) if conn.is_open() => {
                conn.with(cur, |inner| inner.settle(*stream, outcome));
            }
            Self::Conn(..) => {}
            Self::Relay {
                senders,
                worker,
                id,
            } => {
                senders.send(*worker, Command::RelayBack(*id, Relayed::Outcome(outcome)));
            }
        }
    }
}
