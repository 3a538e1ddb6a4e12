//! Status fields of each kind, as in Skupper.

use super::Kind;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Status fields of whatever kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Details {
    /// A kind without any.
    #[default]
    #[serde(serialize_with = "nothing")]
    None,
    Site(SiteDetails),
    Link(LinkDetails),
    Listener(ListenerDetails),
    MultiKeyListener(MultiKeyListenerDetails),
    Connector(ConnectorDetails),
    RouterAccess(AccessDetails),
    AccessGrant(GrantDetails),
    AccessToken(TokenDetails),
    Certificate(CertificateDetails),
    AttachedConnector(AttachedConnectorDetails),
    AttachedConnectorBinding(BindingDetails),
}

fn nothing<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serde::ser::SerializeMap::end(serializer.serialize_map(Some(0))?)
}

impl Details {
    /// Reads the fields of a kind from a status; others in it do not matter.
    pub fn read(kind: Kind, status: &Value) -> Result<Self, serde_json::Error> {
        Self::read_from(kind, status)
    }

    /// The same, from wherever.
    pub fn read_from<'de, D: Deserializer<'de>>(kind: Kind, status: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::Site => Self::Site(SiteDetails::deserialize(status)?),
            Kind::Link => Self::Link(LinkDetails::deserialize(status)?),
            Kind::Listener => Self::Listener(ListenerDetails::deserialize(status)?),
            Kind::MultiKeyListener => {
                Self::MultiKeyListener(MultiKeyListenerDetails::deserialize(status)?)
            }
            Kind::Connector => Self::Connector(ConnectorDetails::deserialize(status)?),
            Kind::RouterAccess => Self::RouterAccess(AccessDetails::deserialize(status)?),
            Kind::AccessGrant => Self::AccessGrant(GrantDetails::deserialize(status)?),
            Kind::AccessToken => Self::AccessToken(TokenDetails::deserialize(status)?),
            Kind::Certificate => Self::Certificate(CertificateDetails::deserialize(status)?),
            Kind::AttachedConnector => {
                Self::AttachedConnector(AttachedConnectorDetails::deserialize(status)?)
            }
            Kind::AttachedConnectorBinding => {
                Self::AttachedConnectorBinding(BindingDetails::deserialize(status)?)
            }
            _ => Self::None,
        })
    }
}

macro_rules! details {
    ($($variant:ident($name:ident)),*) => {$(
        impl From<$name> for Details {
            fn from(details: $name) -> Self {
                Self::$variant(details)
            }
        }
    )*};
}

details! {
    Site(SiteDetails), Link(LinkDetails), Listener(ListenerDetails),
    MultiKeyListener(MultiKeyListenerDetails),
    Connector(ConnectorDetails), RouterAccess(AccessDetails),
    AccessGrant(GrantDetails), AccessToken(TokenDetails), Certificate(CertificateDetails),
    AttachedConnector(AttachedConnectorDetails), AttachedConnectorBinding(BindingDetails)
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SiteDetails {
    /// Issuer of the site's credentials.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_issuer: String,
    /// Where the site accepts links.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,
    /// Number of sites that can be reached, this one included.
    pub sites_in_network: usize,
    /// The network as this site sees it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<SiteRecord>,
    /// Links that came in and are up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incoming_links: Vec<IncomingRecord>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IncomingRecord {
    /// Identity of the site on the other side; empty while it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_site_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_site_name: String,
    /// Where it came from.
    pub address: String,
    /// The certificate that it presented.
    pub certificate: CertificateRecord,
}

/// Identification of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRecord {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Common name.
    pub subject: String,
    /// End of its validity (RFC 3339).
    pub expiration_time: String,
    /// End of the overlap in which the CA that has signed it is still trusted; empty for a CA in use.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trusted_until: String,
}

/// An address that accepts links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointStatus {
    /// `<router access>-<role>`
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Port; a text, as in Skupper.
    pub port: String,
    /// Group, for several routers of one site.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteRecord {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Version of its software.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Links with other sites.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkRecord>,
    /// What is offered or wanted there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceRecord>,
}

/// A link of a site of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkRecord {
    pub name: String,
    /// Identity of the site on the other side.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_site_id: String,
    /// Name of the site on the other side.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_site_name: String,
    pub operational: bool,
}

/// A routing key at a site of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceRecord {
    pub routing_key: String,
    /// Names of connectors there.
    pub connectors: Vec<String>,
    /// Names of listeners there.
    pub listeners: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkDetails {
    /// Identity of the site on the other side; empty while it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_site_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_site_name: String,
    /// End of the validity of our certificate there (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_expiration_time: String,
    /// Address of the endpoint in use.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Since when it is up (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub up_since: String,
    /// TLS group of the key exchange, such as `X25519MLKEM768` (post-quantum) or `X25519`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_exchange: String,
    /// The last failure; kept after the link is up again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_failure: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerDetails {
    /// A connector of its routing key can be reached.
    pub has_matching_connector: bool,
    /// How clients come to it: `steering` or `socket`; empty when it is closed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reached_by: String,
    /// Whether its connections are accelerated: `on`, or `off` and after a colon why; empty if
    /// no setting requests it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub acceleration: String,
    /// End of the validity of the certificate that it shows (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_expiration_time: String,
    /// TLS handshakes with clients that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub tls_handshake_failures: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MultiKeyListenerDetails {
    /// A connector of one of its routing keys can be reached.
    pub has_destination: bool,
    /// Which of its routing keys can be reached.
    pub strategy: StrategyReachable,
    /// End of the validity of the certificate that it shows (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_expiration_time: String,
    /// TLS handshakes with clients that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub tls_handshake_failures: u64,
}

/// Routing keys that can be reached; of the two the one that is the listener's strategy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StrategyReachable {
    /// In order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityReachable>,
    /// With their weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted: Option<WeightedReachable>,
}

/// Of the strategy priority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityReachable {
    /// In order.
    pub routing_keys_reachable: Vec<String>,
}

/// Of the strategy weighted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightedReachable {
    /// With their weights.
    pub routing_keys_reachable: BTreeMap<String, u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it like this"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectorDetails {
    /// A listener of its routing key can be reached.
    pub has_matching_listener: bool,
    /// Servers that its selector has found and that connections go to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selected_pods: Vec<SelectedPod>,
    /// Result of the health check; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthRecord>,
    /// Why the last connection to its server failed; empty after one that did not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_failure: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachedConnectorDetails {
    /// Servers that its selector has found and that connections go to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selected_pods: Vec<SelectedPod>,
}

/// Of an AttachedConnectorBinding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BindingDetails {
    /// A listener of its routing key can be reached.
    pub has_matching_listener: bool,
    /// Why the last connection to a server failed; empty after one that did not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_failure: String,
}

/// A server that a selector has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelectedPod {
    /// What it is: a unit, a control group, an executable or a user.
    pub name: String,
    pub ip: String,
    pub port: u16,
}

/// Result of a health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthRecord {
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Of a RouterAccess.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessDetails {
    /// Where the site accepts links.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,
    /// End of the validity of the certificate that is shown there (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_expiration_time: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateDetails {
    /// End of its validity (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expiration: String,
}

/// Of an AccessGrant. Everyone who may read the file can use the code.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantDetails {
    /// Where it is redeemed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Code that a token needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// CA of the server there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// Successful redemptions so far.
    pub redemptions: u32,
    /// End of its validity (RFC 3339).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expiration_time: String,
}

impl std::fmt::Debug for GrantDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrantDetails")
            .field("url", &self.url)
            .field("redemptions", &self.redemptions)
            .field("expiration_time", &self.expiration_time)
            .finish_non_exhaustive()
    }
}

/// Of an AccessToken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenDetails {
    /// It has become a link.
    pub redeemed: bool,
}
