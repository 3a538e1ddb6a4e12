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
    #[error("its certificate or CA was revoked")]
    CertificateRevoked,
    #[error("site removed")]
    SiteRemoved,
    #[error("control connection has ended")]
    ControlEnded,
    #[error("neighbour lost: another endpoint is tried")]
    NeighbourLost,
    #[error("HELLO has another id than the open of its connection")]
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
