//! Connectors whose servers are another namespace's: one side offers them, the other takes them.

use super::{ConnectorSettings, Name, Namespace, RoutingKey, Selector, Settings};

/// The side of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedConnector {
    /// Namespace whose site may have them.
    pub site_namespace: Namespace,
    pub selector: Selector,
    /// Port that they listen on; 0 for whatever they listen on.
    pub port: u16,
    /// Credentials of the site's namespace; with them the connector uses TLS.
    pub tls_credentials: Option<Name>,
    /// Show the client certificate of the credentials.
    pub use_client_cert: bool,
    /// Offered even while they are not known to be well, or their unit is not ready.
    pub include_not_ready: bool,
    /// Advanced options, those of a connector.
    pub settings: Settings<ConnectorSettings>,
}

/// The side of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedConnectorBinding {
    /// Namespace that may offer servers.
    pub connector_namespace: Namespace,
    pub routing_key: RoutingKey,
    /// An address for each pod, on platforms that have some.
    pub expose_pods_by_name: bool,
    /// Advanced options.
    pub settings: Settings<ConnectorSettings>,
}
