//! Complete messages on their way to receivers at this router.

use super::effects::Effects;
use crate::{
    amqp::connection::LinkId, amqp::message::Message, link::conn::ConnKey, messages::Command,
};
use bytes::{Bytes, BytesMut};

/// An AMQP link that receives messages of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Receiver {
    pub(in crate::core) key: ConnKey,
    pub(in crate::core) link: LinkId,
    /// An edge's, which has to see where a message comes from.
    pub(in crate::core) is_edge: bool,
}

/// An address that a link receives from.
pub(in crate::core) struct Subscription {
    pub(in crate::core) address: String,
    /// The receiver has given credit. How much is left only the worker knows, where messages wait for
    /// it.
    pub(in crate::core) ready: bool,
}

impl Subscription {
    pub(in crate::core) fn new(address: String) -> Self {
        Self {
            address,
            ready: false,
        }
    }

    pub(in crate::core) fn takes(&self, address: &str) -> bool {
        self.ready && self.address == address
    }
}

/// Delivers a message; an edge gets it with its annotations, a client without.
pub(in crate::core) fn deliver(to: &Receiver, message: &Message, effects: &mut Effects) {
    let bytes = match (to.is_edge, &message.annotations) {
        (false, Some(_)) => encode(&Message {
            annotations: None,
            ..message.clone()
        }),
        _ => encode(message),
    };
    effects.send_command(to.key, Command::ClientMessage(to.key, to.link, bytes));
}

pub(in crate::core) fn encode(message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    message.encode(&mut out);
    out.freeze()
}
