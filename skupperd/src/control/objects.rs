//! Objects of resources: properties that follow a resource's status.

use crate::model::{Key, Kind, Namespace};
use serde_json::Value;
use std::sync::Arc;

/// A resource as it was published last.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) namespace: Namespace,
    pub(super) key: Key,
    pub(super) document: Arc<Value>,
}

impl Seen {
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

/// What is the same for every kind.
pub(super) struct Resource(pub(super) Seen);

/// A Skupper resource.
#[zbus::interface(name = "io.skupper.Skupper1.Resource")]
impl Resource {
    /// Namespace it is in.
    #[zbus(property(emits_changed_signal = "const"))]
    fn namespace(&self) -> String {
        self.0.namespace.to_string()
    }

    /// Kind, for example Listener.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        self.0.key.kind.to_string()
    }

    /// Name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.0.key.name.to_string()
    }

    /// State: Ready, Pending or Error.
    #[zbus(property)]
    fn status(&self) -> String {
        self.0.text("/status/status")
    }

    /// What is missing or wrong; OK when nothing is.
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

    /// The whole resource with its status, as JSON. Nothing secret is in it.
    #[zbus(property)]
    fn document(&self) -> String {
        self.0.document.to_string()
    }
}

/// What only sites have.
pub(super) struct Site(pub(super) Seen);

/// A site of this host.
#[zbus::interface(name = "io.skupper.Skupper1.Site")]
impl Site {
    /// Identity.
    #[zbus(property)]
    fn site_id(&self) -> String {
        self.0.text("/metadata/uid")
    }

    /// Sites that can be reached, this one included.
    #[zbus(property)]
    fn sites_in_network(&self) -> u32 {
        self.0.number("/status/sitesInNetwork")
    }

    /// Links that other sites have made and that are up: site name, address, subject and end of
    /// validity of the certificate.
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

/// What only links have.
pub(super) struct Link(pub(super) Seen);

/// A link that this site dials.
#[zbus::interface(name = "io.skupper.Skupper1.Link")]
impl Link {
    /// Name of the site on the other side; empty while it is not known.
    #[zbus(property)]
    fn remote_site_name(&self) -> String {
        self.0.text("/status/remoteSiteName")
    }

    /// Its identity.
    #[zbus(property)]
    fn remote_site_id(&self) -> String {
        self.0.text("/status/remoteSiteId")
    }

    /// Cost.
    #[zbus(property)]
    fn cost(&self) -> u32 {
        self.0.number("/spec/cost").max(1)
    }

    /// Address of the endpoint in use; empty while the link is down.
    #[zbus(property)]
    fn endpoint(&self) -> String {
        self.0.text("/status/endpoint")
    }

    /// Since when the link is up (RFC 3339); empty while it is down.
    #[zbus(property)]
    fn up_since(&self) -> String {
        self.0.text("/status/upSince")
    }

    /// The last failure, be it over or not.
    #[zbus(property)]
    fn last_failure(&self) -> String {
        self.0.text("/status/lastFailure")
    }

    /// End of the certificate's validity (RFC 3339).
    #[zbus(property)]
    fn certificate_expiration_time(&self) -> String {
        self.0.text("/status/certificateExpirationTime")
    }
}

/// What listeners and connectors have.
pub(super) struct Service(pub(super) Seen);

/// A listener or a connector.
#[zbus::interface(name = "io.skupper.Skupper1.Service")]
impl Service {
    /// Routing key by which listeners and connectors meet; empty for a listener with several.
    #[zbus(property)]
    fn routing_key(&self) -> String {
        self.0.text("/spec/routingKey")
    }

    /// Host: of a listener, where it listens; of a connector, where the server is.
    #[zbus(property)]
    fn host(&self) -> String {
        self.0.text("/spec/host")
    }

    /// Port.
    #[zbus(property)]
    fn port(&self) -> u16 {
        u16::try_from(self.0.number("/spec/port")).unwrap_or_default()
    }

    /// The other side of the routing key is there.
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

/// What only grants have.
pub(super) struct Grant(pub(super) Seen);

/// A grant; its code is only given with a token.
#[zbus::interface(name = "io.skupper.Skupper1.AccessGrant")]
impl Grant {
    /// Where it is redeemed.
    #[zbus(property)]
    fn url(&self) -> String {
        self.0.text("/status/url")
    }

    /// How often it was redeemed.
    #[zbus(property)]
    fn redemptions(&self) -> u32 {
        self.0.number("/status/redemptions")
    }

    /// End of its validity (RFC 3339).
    #[zbus(property)]
    fn expiration_time(&self) -> String {
        self.0.text("/status/expirationTime")
    }
}

/// The interface of its kind that a resource has beside [`Resource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    Site,
    Link,
    Service,
    Grant,
}

impl Extra {
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
