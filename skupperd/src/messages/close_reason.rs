//! Why the core closes a connection. The peer and the log get the reason.

use crate::{link::names::LINK_DELETED, router::TooMany};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("link deleted")]
    LinkDeleted,
    #[error("link changed")]
    LinkChanged,
    #[error("link access removed")]
    AccessRemoved,
    #[error("certificate or CA revoked")]
    CertificateRevoked,
    #[error("site removed")]
    SiteRemoved,
    #[error("control connection has ended")]
    ControlEnded,
    #[error("neighbour lost; trying another endpoint")]
    NeighbourLost,
    #[error("router id in HELLO differs from that of the connection")]
    WrongRouterId,
    #[error("link state or addresses over the budget")]
    OverBudget,
    #[error("the other side does not serve edges on this port")]
    NotForEdges,
    #[error("too many links of an edge")]
    TooManyLinks,
    #[error(transparent)]
    TooManyAddresses(#[from] TooMany),
}

impl CloseReason {
    /// The AMQP condition of the close.
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Self::LinkDeleted => LINK_DELETED,
            _ => "amqp:connection:forced",
        }
    }
}
