//! The source of an incoming stream: a connection of this worker, or another worker.

use crate::{
    link::{
        conn::{
            InStream, LinkConnection,
            stream_end::{StreamEffects, StreamReply},
        },
        peer_budget::PeerBudget,
    },
    messages::{Command, RelayId, Senders},
};
use std::{rc::Rc, sync::Arc};

/// The sending side of an incoming stream, as its receiver sees it.
#[derive(Clone)]
pub enum StreamSource {
    /// A delivery on a connection of this worker.
    Connection(Rc<LinkConnection>, InStream),
    /// A delivery on a connection of another worker.
    Relay {
        senders: Senders,
        worker: usize,
        /// ID of the stream at that worker.
        id: RelayId,
        budget: Arc<PeerBudget>,
    },
}

impl StreamSource {
    /// Sends an acknowledgement or the outcome to the sender.
    pub fn reply(&self, reply: StreamReply, effects: &mut StreamEffects) {
        match self {
            Self::Connection(conn, stream) => effects.reply(conn, *stream, reply),
            Self::Relay {
                senders,
                worker,
                id,
                ..
            } => senders.send(*worker, Command::RelayBack(*id, reply)),
        }
    }

    /// The same, outside of [`crate::link::conn::stream_end::StreamEnd::event`].
    pub fn reply_now(&self, reply: StreamReply) {
        let mut effects = StreamEffects::default();
        self.reply(reply, &mut effects);
        effects.carry_out(None);
    }

    /// The budget of the peer that it comes from.
    pub(crate) fn budget(&self) -> Arc<PeerBudget> {
        match self {
            Self::Connection(conn, _) => conn.budget.clone(),
            Self::Relay { budget, .. } => budget.clone(),
        }
    }
}
