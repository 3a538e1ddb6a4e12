//! Documents as they are read: all fields are optional, unknown fields are errors.

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, Visitor},
};
use std::{collections::BTreeMap, fmt, ops::Deref};
use zeroize::Zeroizing;

/// Metadata. Fields that only Kubernetes uses are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "ignored fields are never read")]
pub(super) struct Metadata {
    pub(super) name: Option<Text>,
    pub(super) namespace: Option<Text>,
    pub(super) uid: Option<Text>,
    pub(super) labels: Option<Texts>,
    pub(super) annotations: Option<Texts>,
    pub(super) generation: Option<i64>,
    creation_timestamp: Option<IgnoredAny>,
    deletion_timestamp: Option<IgnoredAny>,
    deletion_grace_period_seconds: Option<IgnoredAny>,
    resource_version: Option<IgnoredAny>,
    generate_name: Option<IgnoredAny>,
    owner_references: Option<IgnoredAny>,
    managed_fields: Option<IgnoredAny>,
    finalizers: Option<IgnoredAny>,
    self_link: Option<IgnoredAny>,
    cluster_name: Option<IgnoredAny>,
}

/// A resource of Skupper.
#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    bound = "S: serde::de::DeserializeOwned"
)]
#[expect(
    dead_code,
    reason = "apiVersion and kind are read before; status is not input"
)]
pub(super) struct Object<S> {
    api_version: String,
    kind: String,
    pub(super) metadata: Option<Metadata>,
    pub(super) spec: Option<S>,
    status: Option<IgnoredAny>,
}

/// Specs of kinds and their parts. All fields are optional: missing ones are reported as required where
/// documents are converted.
macro_rules! specs {
    ($($(#[$attr:meta])* $name:ident {
        $($(#[$field_attr:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        $(#[$attr])*
        pub(super) struct $name {
            $($(#[$field_attr])* pub(super) $field: Option<$type>,)*
        }
    )*};
}

specs! {
    #[expect(dead_code, reason = "serviceAccount has no meaning on a host")]
    Site {
        link_access: Text,
        default_issuer: Text,
        ha: bool,
        edge: bool,
        service_account: Text,
        settings: Texts,
    }

    Endpoint {
        name: Text,
        host: Text,
        port: TextPort,
        group: Text,
    }

    Link {
        endpoints: Vec<Endpoint>,
        tls_credentials: Text,
        cost: i64,
        settings: Texts,
    }

    Listener {
        routing_key: Text,
        host: Text,
        port: i64,
        #[serde(rename = "type")]
        kind: Text,
        tls_credentials: Text,
        observer: Text,
        expose_pods_by_name: bool,
        settings: Texts,
    }

    MultiKeyListener {
        host: Text,
        port: i64,
        strategy: Strategy,
        tls_credentials: Text,
        require_client_cert: bool,
        observer: Text,
        settings: Texts,
    }

    Strategy {
        priority: Priority,
        weighted: WeightedKeys,
    }

    Priority {
        routing_keys: Vec<Text>,
    }

    WeightedKeys {
        routing_keys: BTreeMap<String, i64>,
    }

    Connector {
        routing_key: Text,
        host: Text,
        selector: Text,
        port: i64,
        #[serde(rename = "type")]
        kind: Text,
        tls_credentials: Text,
        use_client_cert: bool,
        verify_hostname: bool,
        include_not_ready_pods: bool,
        expose_pods_by_name: bool,
        settings: Texts,
    }

    AttachedConnector {
        site_namespace: Text,
        selector: Text,
        port: i64,
        #[serde(rename = "type")]
        kind: Text,
        tls_credentials: Text,
        use_client_cert: bool,
        include_not_ready_pods: bool,
        settings: Texts,
    }

    AttachedConnectorBinding {
        connector_namespace: Text,
        routing_key: Text,
        expose_pods_by_name: bool,
        settings: Texts,
    }

    AccessRole {
        name: Text,
        port: i64,
    }

    #[expect(dead_code, reason = "accessType is for other platforms")]
    RouterAccess {
        roles: Vec<AccessRole>,
        tls_credentials: Text,
        generate_tls_credentials: bool,
        issuer: Text,
        access_type: Text,
        bind_host: Text,
        subject_alternative_names: Vec<Text>,
        settings: Texts,
    }

    AccessGrant {
        redemptions_allowed: i64,
        expiration_window: Text,
        code: HiddenText,
        issuer: Text,
        settings: Texts,
    }

    AccessToken {
        url: Text,
        code: HiddenText,
        ca: Text,
        link_cost: i64,
        settings: Texts,
    }

    Certificate {
        ca: Text,
        subject: Text,
        hosts: Vec<Text>,
        client: bool,
        server: bool,
        signing: bool,
        settings: Texts,
    }

    /// Exposes a port on Kubernetes; stored without effect on a host.
    #[expect(dead_code, reason = "the kind has no effect on a host")]
    SecuredAccess {
        ports: Vec<SecuredPort>,
        selector: Texts,
        issuer: Text,
        certificate: Text,
        access_type: Text,
        settings: Texts,
    }

    #[expect(dead_code, reason = "the kind has no effect on a host")]
    SecuredPort {
        name: Text,
        port: i64,
        target_port: i64,
        protocol: Text,
    }
}

/// A core Secret has its data beside the metadata.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "apiVersion and kind are read before")]
pub(super) struct Secret {
    api_version: String,
    kind: String,
    pub(super) metadata: Option<Metadata>,
    #[serde(rename = "type")]
    pub(super) secret_type: Option<Text>,
    immutable: Option<bool>,
    pub(super) data: Option<BTreeMap<String, Option<HiddenText>>>,
    pub(super) string_data: Option<BTreeMap<String, Option<HiddenText>>>,
}

/// A YAML string. [`String`] would take numbers and booleans too.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A mapping of YAML strings.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, Text>::deserialize(deserializer)?;
        Ok(Self(
            texts.into_iter().map(|(key, text)| (key, text.0)).collect(),
        ))
    }
}

/// The port of an endpoint: a string, as in Skupper, or a number.
#[derive(Debug)]
pub(super) enum TextPort {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for TextPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = TextPort;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port as a string")
            }

            fn visit_i64<E: de::Error>(self, port: i64) -> Result<TextPort, E> {
                Ok(TextPort::Number(port))
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<TextPort, E> {
                i64::try_from(port)
                    .map(TextPort::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(port), &self))
            }

            fn visit_str<E: de::Error>(self, port: &str) -> Result<TextPort, E> {
                Ok(TextPort::Text(port.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A YAML string that is never shown, and is wiped when dropped.
pub(super) struct HiddenText(pub(super) Zeroizing<String>);

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl<'de> Deserialize<'de> for HiddenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|text| Self(Zeroizing::new(text.0)))
    }
}
