//! Resources as they are written: every field optional, none unknown.

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, Visitor},
};
use std::{collections::BTreeMap, fmt};
use zeroize::Zeroizing;

pub(super) type Texts = BTreeMap<String, String>;

/// Metadata. What Kubernetes adds to it is accepted and means nothing here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "fields that are accepted and mean nothing are read by nobody"
)]
pub(super) struct Metadata {
    #[serde(default, deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) namespace: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) uid: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) labels: Option<Texts>,
    #[serde(default, deserialize_with = "texts")]
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

/// The outer form of every kind of Skupper's.
#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    bound = "S: serde::de::DeserializeOwned"
)]
#[expect(
    dead_code,
    reason = "apiVersion and kind were looked at before; status is not input"
)]
pub(super) struct Object<S> {
    api_version: String,
    kind: String,
    pub(super) metadata: Option<Metadata>,
    pub(super) spec: Option<S>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "serviceAccount has no meaning on a host")]
pub(super) struct Site {
    #[serde(default, deserialize_with = "text")]
    pub(super) link_access: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) default_issuer: Option<String>,
    pub(super) ha: Option<bool>,
    pub(super) edge: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    service_account: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Endpoint {
    #[serde(default, deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) host: Option<String>,
    pub(super) port: Option<TextPort>,
    #[serde(default, deserialize_with = "text")]
    pub(super) group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Link {
    pub(super) endpoints: Option<Vec<Endpoint>>,
    #[serde(default, deserialize_with = "text")]
    pub(super) tls_credentials: Option<String>,
    pub(super) cost: Option<i64>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listener {
    #[serde(default, deserialize_with = "text")]
    pub(super) routing_key: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) host: Option<String>,
    pub(super) port: Option<i64>,
    #[serde(rename = "type")]
    #[serde(default, deserialize_with = "text")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) tls_credentials: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) observer: Option<String>,
    pub(super) expose_pods_by_name: Option<bool>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MultiKeyListener {
    #[serde(default, deserialize_with = "text")]
    pub(super) host: Option<String>,
    pub(super) port: Option<i64>,
    pub(super) strategy: Option<Strategy>,
    #[serde(default, deserialize_with = "text")]
    pub(super) tls_credentials: Option<String>,
    pub(super) require_client_cert: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    pub(super) observer: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Strategy {
    pub(super) priority: Option<Priority>,
    pub(super) weighted: Option<Weighted>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Priority {
    #[serde(default, deserialize_with = "list")]
    pub(super) routing_keys: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Weighted {
    pub(super) routing_keys: Option<BTreeMap<String, i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Connector {
    #[serde(default, deserialize_with = "text")]
    pub(super) routing_key: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) host: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) selector: Option<String>,
    pub(super) port: Option<i64>,
    #[serde(rename = "type")]
    #[serde(default, deserialize_with = "text")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) tls_credentials: Option<String>,
    pub(super) use_client_cert: Option<bool>,
    pub(super) verify_hostname: Option<bool>,
    pub(super) include_not_ready_pods: Option<bool>,
    pub(super) expose_pods_by_name: Option<bool>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AttachedConnector {
    #[serde(default, deserialize_with = "text")]
    pub(super) site_namespace: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) selector: Option<String>,
    pub(super) port: Option<i64>,
    #[serde(rename = "type")]
    #[serde(default, deserialize_with = "text")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) tls_credentials: Option<String>,
    pub(super) use_client_cert: Option<bool>,
    pub(super) include_not_ready_pods: Option<bool>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AttachedConnectorBinding {
    #[serde(default, deserialize_with = "text")]
    pub(super) connector_namespace: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) routing_key: Option<String>,
    pub(super) expose_pods_by_name: Option<bool>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AccessRole {
    #[serde(default, deserialize_with = "text")]
    pub(super) name: Option<String>,
    pub(super) port: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "accessType is for other platforms")]
pub(super) struct RouterAccess {
    pub(super) roles: Option<Vec<AccessRole>>,
    #[serde(default, deserialize_with = "text")]
    pub(super) tls_credentials: Option<String>,
    pub(super) generate_tls_credentials: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    pub(super) issuer: Option<String>,
    #[serde(default, deserialize_with = "text")]
    access_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) bind_host: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub(super) subject_alternative_names: Option<Vec<String>>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AccessGrant {
    pub(super) redemptions_allowed: Option<i64>,
    #[serde(default, deserialize_with = "text")]
    pub(super) expiration_window: Option<String>,
    pub(super) code: Option<Hidden>,
    #[serde(default, deserialize_with = "text")]
    pub(super) issuer: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AccessToken {
    #[serde(default, deserialize_with = "text")]
    pub(super) url: Option<String>,
    pub(super) code: Option<Hidden>,
    #[serde(default, deserialize_with = "text")]
    pub(super) ca: Option<String>,
    pub(super) link_cost: Option<i64>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Certificate {
    #[serde(default, deserialize_with = "text")]
    pub(super) ca: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) subject: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub(super) hosts: Option<Vec<String>>,
    pub(super) client: Option<bool>,
    pub(super) server: Option<bool>,
    pub(super) signing: Option<bool>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) settings: Option<Texts>,
}

/// Another platform's way of exposing a port: kept, and of no use on a host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "nothing is done with it")]
pub(super) struct SecuredAccess {
    ports: Option<Vec<SecuredPort>>,
    #[serde(default, deserialize_with = "texts")]
    selector: Option<Texts>,
    #[serde(default, deserialize_with = "text")]
    issuer: Option<String>,
    #[serde(default, deserialize_with = "text")]
    certificate: Option<String>,
    #[serde(default, deserialize_with = "text")]
    access_type: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    settings: Option<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "nothing is done with it")]
pub(super) struct SecuredPort {
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    port: Option<i64>,
    target_port: Option<i64>,
    #[serde(default, deserialize_with = "text")]
    protocol: Option<String>,
}

/// A core Secret has its data beside the metadata.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "what the kind is was looked at before")]
pub(super) struct Secret {
    api_version: String,
    kind: String,
    pub(super) metadata: Option<Metadata>,
    #[serde(rename = "type")]
    #[serde(default, deserialize_with = "text")]
    pub(super) secret_type: Option<String>,
    immutable: Option<bool>,
    pub(super) data: Option<BTreeMap<String, Option<Hidden>>>,
    pub(super) string_data: Option<BTreeMap<String, Option<Hidden>>>,
}

/// A text and nothing else: the parser would make texts of numbers.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Texts>, D::Error> {
    let texts = Option::<BTreeMap<String, Text>>::deserialize(deserializer)?;
    Ok(texts.map(|texts| texts.into_iter().map(|(key, text)| (key, text.0)).collect()))
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let list = Option::<Vec<Text>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.into_iter().map(|text| text.0).collect()))
}

struct Text(String);

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

/// The port of an endpoint: a text, as upstream has it, or a number, as everybody else would.
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

/// A text that is shown to nobody and wiped when dropped.
pub(super) struct Hidden(pub(super) Zeroizing<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|text| Self(Zeroizing::new(text.0)))
    }
}
