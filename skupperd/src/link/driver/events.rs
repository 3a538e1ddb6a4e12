//! Events of a connection for its worker.

use crate::amqp::{
    connection::{DeliveryId, LinkId},
    message::MessageHead,
    performative::{Attach, DeliveryState, Error as AmqpError},
};
use crate::link::conn::{
    ConnectionState, DeliveryOutcome, InStream, LinkConnection, stream_end::End,
};
use crate::link::{intake::IntakePermit, names::LINK_DELETED, peer_budget::PeerBudget};
use bytes::Bytes;
use std::rc::Rc;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConnectionEnd {
    /// The peer closed it in order, or with an error.
    ByPeer(Option<AmqpError>),
    /// We closed it.
    ByUs(AmqpError),
    /// Another connection has taken over.
    Retired,
    /// The socket, TLS or the protocol failed.
    Failed(String),
}

impl ConnectionEnd {
    /// Whether the link that the connection belongs to was deleted, here or at the peer.
    pub(crate) fn is_link_deleted(&self) -> bool {
        match self {
            Self::ByPeer(Some(error)) | Self::ByUs(error) => {
                error.condition.as_str() == LINK_DELETED
            }
            Self::ByPeer(None) | Self::Retired | Self::Failed(_) => false,
        }
    }
}

impl std::fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ByPeer(None) => f.write_str("closed by the peer"),
            Self::ByPeer(Some(error)) => write!(f, "closed by the peer: {error}"),
            Self::ByUs(error) => error.fmt(f),
            Self::Retired => f.write_str("another connection has taken over"),
            Self::Failed(error) => f.write_str(error),
        }
    }
}

/// Which kind of link a message came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageOrigin {
    /// The control link of an interior router, the only one on which routers say what they know of the
    /// network.
    Control,
    /// Any other link.
    Other,
}

/// Events of a connection, which its worker handles. A connection knows nothing else of its worker.
/// Each call comes from the connection's task, which has the connection
/// borrowed where it hands over `state`.
pub(crate) trait ConnectionEvents: 'static {
    /// A stream arrives. `Err`: refused.
    fn stream(
        self: &Rc<Self>,
        conn: &Rc<LinkConnection>,
        stream: InStream,
        head: Box<MessageHead>,
    ) -> Result<End, DeliveryOutcome>;
    /// The sender of a stream ignores its window; the stream was aborted.
    fn window_exceeded(&self, conn: &Rc<LinkConnection>);
    /// The connection is closed because of what its peer makes it hold.
    fn over_budget(&self, conn: &Rc<LinkConnection>, reason: &str);
    /// A stream of this peer was aborted: too much waits for the readers of its streams.
    fn streams_over_budget(&self, conn: &Rc<LinkConnection>, budget: &PeerBudget);
    /// A complete message was received; `settled`: its sender expects no outcome.
    fn message(
        &self,
        conn: &Rc<LinkConnection>,
        stream: InStream,
        settled: bool,
        origin: MessageOrigin,
        message: Bytes,
        permit: IntakePermit,
    );
    /// The peer settled a message of ours or sent its outcome.
    fn message_settled(
        &self,
        conn: &Rc<LinkConnection>,
        link: LinkId,
        delivery: DeliveryId,
        settled: bool,
        state: Option<&DeliveryState>,
    );
    /// Control messages can be sent.
    fn control_ready(&self, conn: &Rc<LinkConnection>);
    /// The peer attaches a link that is not a stream's.
    fn link_attached(
        &self,
        conn: &Rc<LinkConnection>,
        state: &mut ConnectionState,
        link: LinkId,
        attach: &Attach,
    );
    /// Such a link is gone.
    fn link_detached(&self, conn: &Rc<LinkConnection>, link: LinkId, permit: IntakePermit);
    /// The peer gives credit on such a link; `drain`: it takes back what is not used at once.
    fn link_credit(
        &self,
        conn: &Rc<LinkConnection>,
        state: &mut ConnectionState,
        link: LinkId,
        credit: u32,
        drain: bool,
    );
    /// The connection is over; nothing comes from it any more.
    fn ended(&self, conn: &Rc<LinkConnection>);
}
