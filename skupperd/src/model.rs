//! Skupper v2alpha1 resources after validation, and their statuses.

mod status;
mod syntax;

pub use status::{Condition, Conditions, State, Status};
pub use syntax::{DEFAULT_NAMESPACE, check_host, check_name, check_namespace, parse_port};

use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// API version of Skupper's kinds.
pub const API_VERSION: &str = "skupper.io/v2alpha1";
/// Default port of the role inter-router.
pub const INTER_ROUTER_PORT: u16 = 55_671;
/// Default port of the role edge.
pub const EDGE_PORT: u16 = 45_671;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the kind of that name")]
pub enum Kind {
    Site,
    Connector,
    Listener,
    Link,
    RouterAccess,
    Secret,
    MultiKeyListener,
    AccessGrant,
    AccessToken,
    Certificate,
    SecuredAccess,
    AttachedConnector,
    AttachedConnectorBinding,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Site,
        Self::Connector,
        Self::Listener,
        Self::Link,
        Self::RouterAccess,
        Self::Secret,
        Self::MultiKeyListener,
        Self::AccessGrant,
        Self::AccessToken,
        Self::Certificate,
        Self::SecuredAccess,
        Self::AttachedConnector,
        Self::AttachedConnectorBinding,
    ];

    /// As a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "Site",
            Self::Connector => "Connector",
            Self::Listener => "Listener",
            Self::Link => "Link",
            Self::RouterAccess => "RouterAccess",
            Self::Secret => "Secret",
            Self::MultiKeyListener => "MultiKeyListener",
            Self::AccessGrant => "AccessGrant",
            Self::AccessToken => "AccessToken",
            Self::Certificate => "Certificate",
            Self::SecuredAccess => "SecuredAccess",
            Self::AttachedConnector => "AttachedConnector",
            Self::AttachedConnectorBinding => "AttachedConnectorBinding",
        }
    }

    /// Reads what a manifest writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// API version its manifests have.
    pub fn api_version(self) -> &'static str {
        if self == Self::Secret {
            "v1"
        } else {
            API_VERSION
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind and name: what identifies a resource in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Identity given by the user.
    pub uid: Option<String>,
    /// Links may come in.
    pub link_access: bool,
    /// Issuer of the site's credentials.
    pub default_issuer: Option<String>,
    /// Edge: dials only.
    pub edge: bool,
    /// Advanced options.
    pub settings: BTreeMap<String, String>,
}

/// Which listener of a remote router an endpoint is, or what a RouterAccess accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Interior routers.
    InterRouter,
    /// Edge routers.
    Edge,
}

impl Role {
    /// As a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InterRouter => "inter-router",
            Self::Edge => "edge",
        }
    }

    /// Its default port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::InterRouter => INTER_ROUTER_PORT,
            Self::Edge => EDGE_PORT,
        }
    }
}

/// Where a link can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Role.
    pub role: Role,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Group, for several routers of one site.
    pub group: String,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where to dial, in order of preference.
    pub endpoints: Vec<Endpoint>,
    /// Secret with the client certificate.
    pub tls_credentials: String,
    /// Cost, at least 1.
    pub cost: u32,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Routing key.
    pub routing_key: String,
    /// Address or host name to listen on.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Server credentials.
    pub tls_credentials: Option<String>,
}

/// A connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connector {
    /// Routing key.
    pub routing_key: String,
    /// Host of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// Client credentials.
    pub tls_credentials: Option<String>,
}

/// A port for links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterAccess {
    /// Roles with their ports.
    pub roles: Vec<(Role, u16)>,
    /// Name of the server credentials.
    pub tls_credentials: String,
    /// Issuer that signs them.
    pub issuer: Option<String>,
    /// Address to listen on; all when empty.
    pub bind_host: String,
    /// Further names in the server certificate.
    pub subject_alternative_names: Vec<String>,
}

/// Credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// PEM of the trusted CAs.
    pub ca: String,
    /// PEM of the certificate chain.
    pub certificate: String,
    /// PEM of the private key.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// Site
    Site(Site),
    /// Link
    Link(Link),
    /// Listener
    Listener(Listener),
    /// Connector
    Connector(Connector),
    /// RouterAccess
    RouterAccess(RouterAccess),
    /// Secret
    Secret(Secret),
    /// A kind of Skupper's that this version does not serve.
    Unserved,
}

/// A validated resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Kind and name.
    pub key: Key,
    /// What it says.
    pub spec: Spec,
}
