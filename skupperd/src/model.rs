//! Skupper v2alpha1 resources after validation, and their statuses.
//!
//! Nothing here reads or writes: [`crate::manifest`] makes these types from documents, and a value
//! of one of them is valid by construction. What the planner compares ([`Spec`]) is apart from what
//! only describes ([`Meta`]), so that an edited annotation never disturbs a connection.

mod details;
mod kind;
mod resource;
mod secret;
mod status;
mod syntax;

pub use details::{
    AccessDetails, ConnectorDetails, Details, EndpointStatus, LinkDetails, LinkRecord,
    ListenerDetails, ServiceRecord, SiteDetails, SiteRecord,
};
pub use kind::{Key, Kind};
pub use resource::{
    AccessRole, Connector, Endpoint, Link, LinkAccess, Listener, Meta, Observer, Resource, Role,
    RouterAccess, Settings, Site, Spec,
};
pub use secret::Secret;
pub use status::{Condition, ConditionStatus, ConditionType, Draft, Phase, State, Status};
pub use syntax::{
    Host, Name, Namespace, RoutingKey, SiteId, SyntaxError, check_host, check_name,
    check_namespace, parse_port,
};

/// API version of Skupper's kinds.
pub const API_VERSION: &str = "skupper.io/v2alpha1";
/// Namespace when none is named.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Default port of the role inter-router.
pub const INTER_ROUTER_PORT: u16 = 55_671;
/// Default port of the role edge.
pub const EDGE_PORT: u16 = 45_671;
