//! Skupper v2alpha1 resources after validation, and their statuses.
//!
//! Nothing here reads or writes: [`crate::manifest`] makes these types from documents, and a value
//! of one of them is valid by construction. What the planner compares ([`Spec`]) is apart from what
//! only describes ([`Meta`]), so that an edited annotation never disturbs a connection. One annotation
//! counts: [`REDEEMED_TOKEN`] keeps what came with a token apart from what the user wrote.

mod access;
mod attached;
mod details;
mod duration;
mod kind;
mod netns;
mod prefix;
mod resource;
mod secret;
mod selector;
mod serial;
mod server;
mod settings;
mod status;
mod syntax;

pub use access::{AccessGrant, AccessToken, Code};
pub use attached::{AttachedConnector, AttachedConnectorBinding};
pub use details::{
    AccessDetails, AttachedConnectorDetails, BindingDetails, CertificateDetails, CertificateRecord,
    ConnectorDetails, Details, EndpointStatus, GrantDetails, HealthRecord, IncomingRecord,
    LinkDetails, LinkRecord, ListenerDetails, MultiKeyListenerDetails, PriorityReachable,
    SelectedPod, ServiceRecord, SiteDetails, SiteRecord, StrategyReachable, TokenDetails,
    WeightedReachable,
};
pub use duration::parse_duration;
pub use kind::{Key, Kind};
pub use netns::Netns;
pub use prefix::ServicePrefix;
pub use resource::{
    AccessRole, Certificate, Connector, Endpoint, Link, LinkAccess, Listener, Meta,
    MultiKeyListener, ObserverMode, REDEEMED_TOKEN, Resource, Role, RouterAccess, Site, Spec,
    Strategy,
};
pub use secret::{HttpProxy, Secret};
pub use selector::{Selector, matches};
pub use serial::SerialNumber;
pub use server::ServerHost;
pub use settings::{
    ClientCertificate, ConnectorSettings, ExtraPorts, GrantServerSettings, HealthCheck,
    LinkSettings, ListenerSettings, LogLevel, LogModule, LogRule, ProxyProtocol, SettingTexts,
    Settings, SiteSettings, UserRef,
};
pub use status::{
    Condition, ConditionState, ConditionStatus, ConditionType, Phase, Status, StatusDraft,
};
pub use syntax::{
    Host, Name, Namespace, RoutingKey, SiteId, SyntaxError, check_host, check_name,
    check_namespace, parse_port,
};

/// Highest cost of a link, as in Skupper's router; the lowest is 1.
pub const MAX_LINK_COST: u32 = i32::MAX as u32;
/// API version of Skupper's kinds.
pub const API_VERSION: &str = "skupper.io/v2alpha1";
/// Namespace when none is named.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Default port of the role inter-router.
pub const INTER_ROUTER_PORT: u16 = 55_671;
/// Default port where tokens are redeemed.
pub const GRANT_PORT: u16 = 9090;
/// Default port of the role edge.
pub const EDGE_PORT: u16 = 45_671;
