//! Resources: metadata and specifications.

use super::{
    AccessGrant, AccessToken, AttachedConnector, AttachedConnectorBinding, ConnectorSettings,
    EDGE_PORT, Host, INTER_ROUTER_PORT, Key, Kind, LinkSettings, ListenerSettings, Name, Namespace,
    RoutingKey, Secret, ServerHost, SettingTexts, Settings, SiteId, SiteSettings,
};
use std::{collections::BTreeMap, fmt};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub meta: Meta,
    pub spec: Spec,
}

impl Resource {
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    pub fn name(&self) -> &Name {
        &self.meta.name
    }

    pub fn key(&self) -> Key {
        Key {
            kind: self.kind(),
            name: self.meta.name.clone(),
        }
    }

    /// Credentials that the user wrote, for any use. `None` for those of a redeemed
    /// token: its issuer has chosen their name, so they are no issuer, server or trust store.
    pub fn user_secret(&self) -> Option<&Secret> {
        match &self.spec {
            Spec::Secret(secret) if self.meta.redeemed_token().is_none() => Some(secret),
            _ => None,
        }
    }

    /// Credentials that came with a token, for the links of that token alone, and the token's mark.
    pub fn redeemed_secret(&self) -> Option<(&str, &Secret)> {
        match &self.spec {
            Spec::Secret(secret) => Some((self.meta.redeemed_token()?, secret)),
            _ => None,
        }
    }
}

/// Annotation of a Link and its Secret that came with an access token: the mark of that token.
pub const REDEEMED_TOKEN: &str = "skupper.io/redeemed-token";

/// What describes a resource. Only the annotation [`REDEEMED_TOKEN`] has an effect on what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub name: Name,
    pub namespace: Namespace,
    /// Identity given by its author.
    pub uid: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Count of changes, if the author counts them.
    pub generation: i64,
}

impl Meta {
    /// Nothing but what is required.
    pub fn new(name: Name, namespace: Namespace) -> Self {
        Self {
            name,
            namespace,
            uid: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Mark of the access token that it came with.
    pub fn redeemed_token(&self) -> Option<&str> {
        self.annotations.get(REDEEMED_TOKEN).map(String::as_str)
    }
}

/// The specification of a resource, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    Site(Site),
    Link(Link),
    Listener(Listener),
    MultiKeyListener(MultiKeyListener),
    Connector(Connector),
    RouterAccess(RouterAccess),
    AccessGrant(AccessGrant),
    AccessToken(AccessToken),
    Secret(Secret),
    Certificate(Certificate),
    AttachedConnector(AttachedConnector),
    AttachedConnectorBinding(AttachedConnectorBinding),
    /// A kind of Skupper's that this version does not act on.
    Unserved(Kind),
}

impl Spec {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Site(_) => Kind::Site,
            Self::Link(_) => Kind::Link,
            Self::Listener(_) => Kind::Listener,
            Self::MultiKeyListener(_) => Kind::MultiKeyListener,
            Self::Connector(_) => Kind::Connector,
            Self::RouterAccess(_) => Kind::RouterAccess,
            Self::AccessGrant(_) => Kind::AccessGrant,
            Self::AccessToken(_) => Kind::AccessToken,
            Self::Secret(_) => Kind::Secret,
            Self::Certificate(_) => Kind::Certificate,
            Self::AttachedConnector(_) => Kind::AttachedConnector,
            Self::AttachedConnectorBinding(_) => Kind::AttachedConnectorBinding,
            Self::Unserved(kind) => *kind,
        }
    }
}

/// Credentials to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Issuer that signs them; unused if they are an issuer themselves.
    pub ca: Name,
    /// Common name.
    pub subject: String,
    /// Host names and addresses it is good for.
    pub hosts: Vec<Host>,
    /// Good for clients.
    pub client: bool,
    /// Good for servers.
    pub server: bool,
    /// An issuer: its result is the CA of its name.
    pub signing: bool,
    /// Advanced options.
    pub settings: SettingTexts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Identity given by the user (`metadata.uid`).
    pub uid: Option<SiteId>,
    /// Whether the site accepts links.
    pub link_access: LinkAccess,
    /// Issuer of the site's credentials.
    pub default_issuer: Option<Name>,
    /// Edge: dials only.
    pub edge: bool,
    /// Two routers, on platforms that can.
    pub ha: bool,
    /// Advanced options.
    pub settings: Settings<SiteSettings>,
}

/// Whether the site accepts links, and the word that the resource uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkAccess {
    #[default]
    None,
    /// They may. The text is `default`, or a way of other platforms, which means the same here.
    Enabled(String),
}

impl LinkAccess {
    /// The site accepts links.
    pub fn is_enabled(&self) -> bool {
        matches!(self, Self::Enabled(_))
    }
}

/// Which listener of a remote router an endpoint is, or what a RouterAccess accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// Reads what a manifest writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::InterRouter, Self::Edge]
            .into_iter()
            .find(|role| role.as_str() == text)
    }

    pub fn default_port(self) -> u16 {
        match self {
            Self::InterRouter => INTER_ROUTER_PORT,
            Self::Edge => EDGE_PORT,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a link can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub role: Role,
    pub host: Host,
    pub port: u16,
    /// Group, for several routers of one site; empty when there is one.
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where to dial, in order of preference; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Secret with client certificate, key and CA.
    pub tls_credentials: Name,
    /// Cost, from 1 to [`MAX_LINK_COST`](super::MAX_LINK_COST).
    pub cost: u32,
    /// Advanced options.
    pub settings: Settings<LinkSettings>,
}

/// HTTP version that a listener observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObserverMode {
    #[default]
    Auto,
    None,
    Http1,
    Http2,
}

impl ObserverMode {
    pub const ALL: [Self; 4] = [Self::Auto, Self::None, Self::Http1, Self::Http2];

    /// As a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// A listener of TCP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub routing_key: RoutingKey,
    /// Address or host name to listen on.
    pub host: Host,
    pub port: u16,
    /// Server credentials; with them the listener uses TLS.
    pub tls_credentials: Option<Name>,
    pub observer: ObserverMode,
    /// A listener for each pod, on platforms that have some.
    pub expose_pods_by_name: bool,
    /// Advanced options.
    pub settings: Settings<ListenerSettings>,
}

/// A listener with several routing keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiKeyListener {
    /// Address or host name to listen on.
    pub host: Host,
    pub port: u16,
    /// How a connection gets its routing key.
    pub strategy: Strategy,
    /// Server credentials; with them the listener uses TLS.
    pub tls_credentials: Option<Name>,
    /// Clients must show a certificate of the credentials' CA.
    pub require_client_cert: bool,
    pub observer: ObserverMode,
    /// Advanced options.
    pub settings: Settings<ListenerSettings>,
}

/// How a connection of a listener with several routing keys gets one: at least one, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The first that is reachable.
    Priority(Vec<RoutingKey>),
    /// One of those that are reachable, in proportion to the weights, which are at least 1.
    Weighted(BTreeMap<RoutingKey, u32>),
}

impl Strategy {
    /// Most routing keys of a listener.
    pub const MAX_KEYS: usize = 256;

    /// As a manifest names the kind of it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Priority(_) => "priority",
            Self::Weighted(_) => "weighted",
        }
    }

    /// Its routing keys, in its order.
    pub fn keys(&self) -> impl Iterator<Item = &RoutingKey> {
        let (ordered, weighted) = match self {
            Self::Priority(keys) => (Some(keys), None),
            Self::Weighted(keys) => (None, Some(keys)),
        };
        let weighted = weighted.into_iter().flat_map(BTreeMap::keys);
        ordered.into_iter().flatten().chain(weighted)
    }
}

/// A connector of TCP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connector {
    pub routing_key: RoutingKey,
    pub host: ServerHost,
    /// Port of the server; 0 where none is needed, at a Unix socket, and for any of a workload's.
    pub port: u16,
    /// Client credentials; with them the connector uses TLS.
    pub tls_credentials: Option<Name>,
    /// Show the client certificate of the credentials.
    pub use_client_cert: bool,
    /// Check the name in the server's certificate.
    pub verify_hostname: bool,
    /// Offered even while it is not known to be well, or its unit is not ready.
    pub include_not_ready: bool,
    /// An address for each pod, on platforms that have some.
    pub expose_pods_by_name: bool,
    /// Advanced options.
    pub settings: Settings<ConnectorSettings>,
}

/// A role that a RouterAccess accepts, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRole {
    pub role: Role,
    pub port: u16,
}

/// Where the site accepts links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterAccess {
    /// Roles with their ports: at least one, none twice.
    pub roles: Vec<AccessRole>,
    /// Name of the server credentials; the resource's own when it names none.
    pub tls_credentials: Name,
    /// Use only credentials that the user supplies; issue none.
    pub supplied_only: bool,
    /// Issuer that signs them; the site's when it names none.
    pub issuer: Option<Name>,
    /// Address to listen on; all of the host's when it names none.
    pub bind_host: Option<Host>,
    /// Further names in the server certificate.
    pub subject_alternative_names: Vec<Host>,
    /// Advanced options.
    pub settings: SettingTexts,
}
