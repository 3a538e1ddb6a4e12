//! The D-Bus objects of resources: properties that follow the status of the resource.

use crate::model::{Key, Kind, Namespace};
use serde_json::Value;
use std::sync::Arc;

/// A resource as the daemon published it last.
#[derive(Clone, Debug)]
pub(super) struct PublishedResource {
    pub(super) namespace: Namespace,
    pub(super) key: Key,
    pub(super) document: Arc<Value>,
}

impl PublishedResource {
    fn text(&self, path: &str) -> String {
        match self.document.pointer(path) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        }
    }

    fn number(&self, path: &str) -> u32 {
        let value = self.document.pointer(path).and_then(Value::as_u64);
        value
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_default()
    }

    fn flag(&self, path: &str) -> bool {
        self.document
            .pointer(path)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }
}

/// The interface of every kind.
pub(super) struct ResourceObject(pub(super) PublishedResource);

/// A Skupper resource.
#[zbus::interface(name = "io.skupper.Skupper1.Resource")]
impl ResourceObject {
    /// Namespace of the resource.
    #[zbus(property(emits_changed_signal = "const"))]
    fn namespace(&self) -> String {
        self.0.namespace.to_string()
    }

    /// Kind, for example Listener.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        self.0.key.kind.to_string()
    }

    /// Name of the resource.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.0.key.name.to_string()
    }

    /// State: Ready, Pending or Error.
    #[zbus(property)]
    fn status(&self) -> String {
        self.0.text("/status/status")
    }

    /// Reason for the state; OK if it is Ready.
    #[zbus(property)]
    fn message(&self) -> String {
        self.0.text("/status/message")
    }

    /// Conditions: type, status (True, False, Unknown), reason, message.
    #[zbus(property)]
    fn conditions(&self) -> Vec<(String, String, String, String)> {
        let list = self.0.document.pointer("/status/conditions");
        let list = list.and_then(Value::as_array).into_iter().flatten();
        let field = |c: &Value, name: &str| c[name].as_str().unwrap_or_default().to_owned();
        list.map(|c| {
            let [kind, status, reason, message] =
                ["type", "status", "reason", "message"].map(|name| field(c, name));
            (kind, status, reason, message)
        })
        .collect()
    }

    /// The whole resource with its status, as JSON. Contains no secrets.
    #[zbus(property)]
    fn document(&self) -> String {
        self.0.document.to_string()
    }
}

pub(super) struct SiteObject(pub(super) PublishedResource);

/// A site of this host.
#[zbus::interface(name = "io.skupper.Skupper1.Site")]
impl SiteObject {
    /// ID of the site.
    #[zbus(property)]
    fn site_id(&self) -> String {
        self.0.text("/metadata/uid")
    }

    /// Number of reachable sites, including this one.
    #[zbus(property)]
    fn sites_in_network(&self) -> u32 {
        self.0.number("/status/sitesInNetwork")
    }

    /// Links from other sites that are up: site name, address, subject and expiration time of the
    /// certificate.
    #[zbus(property)]
    fn incoming_links(&self) -> Vec<(String, String, String, String)> {
        let list = self.0.document.pointer("/status/incomingLinks");
        let list = list.and_then(Value::as_array).into_iter().flatten();
        let text = |l: &Value, path: &str| {
            let value = l.pointer(path).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let paths = [
            "/remoteSiteName",
            "/address",
            "/certificate/subject",
            "/certificate/expirationTime",
        ];
        list.map(|l| {
            let [name, address, subject, end] = paths.map(|path| text(l, path));
            (name, address, subject, end)
        })
        .collect()
    }
}

pub(super) struct LinkObject(pub(super) PublishedResource);

/// A link that this site dials.
#[zbus::interface(name = "io.skupper.Skupper1.Link")]
impl LinkObject {
    /// Name of the remote site; empty until it is known.
    #[zbus(property)]
    fn remote_site_name(&self) -> String {
        self.0.text("/status/remoteSiteName")
    }

    /// ID of the remote site; empty until it is known.
    #[zbus(property)]
    fn remote_site_id(&self) -> String {
        self.0.text("/status/remoteSiteId")
    }

    /// Cost of the link.
    #[zbus(property)]
    fn cost(&self) -> u32 {
        self.0.number("/spec/cost").max(1)
    }

    /// Address of the connected endpoint; empty while the link is down.
    #[zbus(property)]
    fn endpoint(&self) -> String {
        self.0.text("/status/endpoint")
    }

    /// Time at which the link came up (RFC 3339); empty while it is down.
    #[zbus(property)]
    fn up_since(&self) -> String {
        self.0.text("/status/upSince")
    }

    /// TLS key exchange group, such as `X25519MLKEM768`; empty while the link is down.
    #[zbus(property)]
    fn key_exchange(&self) -> String {
        self.0.text("/status/keyExchange")
    }

    /// The last failure, even if the link is up again.
    #[zbus(property)]
    fn last_failure(&self) -> String {
        self.0.text("/status/lastFailure")
    }

    /// Expiration time of the certificate (RFC 3339).
    #[zbus(property)]
    fn certificate_expiration_time(&self) -> String {
        self.0.text("/status/certificateExpirationTime")
    }
}

pub(super) struct ServiceObject(pub(super) PublishedResource);

/// A listener or a connector.
#[zbus::interface(name = "io.skupper.Skupper1.Service")]
impl ServiceObject {
    /// Routing key; empty for a listener with several.
    #[zbus(property)]
    fn routing_key(&self) -> String {
        self.0.text("/spec/routingKey")
    }

    /// Address that a listener listens on, or host of a connector's server.
    #[zbus(property)]
    fn host(&self) -> String {
        self.0.text("/spec/host")
    }

    /// Port of the listener, or of the connector's server.
    #[zbus(property)]
    fn port(&self) -> u16 {
        u16::try_from(self.0.number("/spec/port")).unwrap_or_default()
    }

    /// Whether the routing key has a connector (of a listener) or a listener (of a connector).
    #[zbus(property)]
    fn has_match(&self) -> bool {
        let matches = [
            "/status/hasMatchingConnector",
            "/status/hasMatchingListener",
            "/status/hasDestination",
        ];
        matches.iter().any(|path| self.0.flag(path))
    }
}

pub(super) struct GrantObject(pub(super) PublishedResource);

/// An access grant, without its code, which only tokens contain.
#[zbus::interface(name = "io.skupper.Skupper1.AccessGrant")]
impl GrantObject {
    /// URL at which tokens of the grant are redeemed.
    #[zbus(property)]
    fn url(&self) -> String {
        self.0.text("/status/url")
    }

    /// Number of redemptions so far.
    #[zbus(property)]
    fn redemptions(&self) -> u32 {
        self.0.number("/status/redemptions")
    }

    /// Time at which the grant expires (RFC 3339).
    #[zbus(property)]
    fn expiration_time(&self) -> String {
        self.0.text("/status/expirationTime")
    }
}

/// The interface that some kinds have beside [`ResourceObject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindInterface {
    Site,
    Link,
    Service,
    Grant,
}

impl KindInterface {
    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Site => Some(Self::Site),
            Kind::Link => Some(Self::Link),
            Kind::Listener | Kind::MultiKeyListener | Kind::Connector => Some(Self::Service),
            Kind::AccessGrant => Some(Self::Grant),
            _ => None,
        }
    }
}
