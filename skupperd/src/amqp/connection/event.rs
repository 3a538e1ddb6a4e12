//! What a connection reports: identifiers, events and errors.

use crate::amqp::performative::{Attach, DeliveryState, Error, Open};
use bytes::Bytes;
use std::sync::Arc;

/// A link of this connection. Ids are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub(super) u32);

impl LinkId {
    /// A link without a connection, for tests of the callers.
    #[cfg(test)]
    pub(crate) fn of(index: u32) -> Self {
        Self(index)
    }

    /// A small number, fit to index a table with.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A session of this connection: its local channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(pub(super) u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    pub(super) session: u16,
    pub(super) outgoing: bool,
    pub(super) id: u32,
}

impl DeliveryId {
    /// A delivery without a connection, for tests of the callers.
    #[cfg(test)]
    pub(crate) fn of(id: u32) -> Self {
        Self {
            session: 0,
            outgoing: false,
            id,
        }
    }
}

/// The peer violated the protocol, or was silent for too long. The `close` that tells it why is in the
/// output already.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectionError(pub Error);

/// A call that cannot be carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// [`Event::Flow`] follows when the receiver gives credit.
    #[error("no credit on the link")]
    NoCredit,
    /// [`Event::Window`] follows when the peer opens its session window.
    #[error("session window is closed")]
    NoWindow,
    /// The session or link does not exist any more.
    #[error("no such session or link")]
    Gone,
    /// Over our own or the peer's limit.
    #[error("{0} limit of the connection is reached")]
    Limit(&'static str),
    /// A link carries one delivery at a time.
    #[error("previous delivery on the link is not complete")]
    Busy,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Open(Box<Open>),
    /// The peer closed; we have not.
    Close(Option<Error>),
    /// A session is established.
    Begin {
        session: SessionId,
        /// The peer began it.
        remote_initiated: bool,
    },
    /// The peer ended a session. Its links have had their `Detach`.
    End {
        session: SessionId,
        error: Option<Error>,
    },
    Attach {
        link: LinkId,
        /// True: to be answered with accept or refuse. False: the peer answers our attach.
        remote_initiated: bool,
        attach: Box<Attach>,
    },
    /// A link has ended; its id may be reused.
    Detach {
        link: LinkId,
        /// The peer does not want to resume it.
        closed: bool,
        /// Reason: one for all links of a session that ends.
        error: Option<Arc<Error>>,
    },
    /// The credit of a sending link changed.
    Flow {
        link: LinkId,
        credit: u32,
        /// The receiver asks for the credit to be used or returned (drain).
        drain: bool,
    },
    /// A session's window is open again.
    Window {
        session: SessionId,
    },
    /// Payload of a delivery.
    Transfer {
        link: LinkId,
        delivery: DeliveryId,
        /// The delivery begins here.
        first: bool,
        /// Settled by the sender.
        settled: bool,
        /// A slice of the input.
        payload: Bytes,
        /// The delivery goes on.
        more: bool,
        /// The sender gave the delivery up.
        aborted: bool,
    },
    /// The peer tells the state of an unsettled delivery.
    Disposition {
        link: LinkId,
        delivery: DeliveryId,
        /// Settled by the peer.
        settled: bool,
        /// State: one for all deliveries of one performative.
        state: Option<Arc<DeliveryState>>,
    },
}
