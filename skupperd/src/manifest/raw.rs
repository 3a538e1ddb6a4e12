//! Resources as they are written: every field optional, none unknown.

use serde::Deserialize;
use serde_yaml::Value;
use std::collections::BTreeMap;

/// Metadata. What Kubernetes adds to it is accepted and means nothing here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "fields that are accepted and mean nothing are read by nobody"
)]
pub(super) struct Metadata {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Value>,
    deletion_timestamp: Option<Value>,
    resource_version: Option<Value>,
    generation: Option<Value>,
    generate_name: Option<Value>,
    owner_references: Option<Value>,
    managed_fields: Option<Value>,
    finalizers: Option<Value>,
    self_link: Option<Value>,
}

/// The outer form of every kind.
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
    status: Option<Value>,
}

pub(super) type Settings = Option<BTreeMap<String, String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "serviceAccount has no meaning on a host")]
pub(super) struct Site {
    pub(super) link_access: Option<String>,
    pub(super) default_issuer: Option<String>,
    pub(super) ha: Option<bool>,
    pub(super) edge: Option<bool>,
    service_account: Option<String>,
    pub(super) settings: Settings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) name: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<Value>,
    pub(super) group: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "no setting of a link has a meaning yet")]
pub(super) struct Link {
    pub(super) endpoints: Option<Vec<Endpoint>>,
    pub(super) tls_credentials: Option<String>,
    pub(super) cost: Option<i64>,
    settings: Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "exposePodsByName and settings have no meaning yet"
)]
pub(super) struct Listener {
    pub(super) routing_key: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<i64>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) tls_credentials: Option<String>,
    pub(super) observer: Option<String>,
    expose_pods_by_name: Option<bool>,
    settings: Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "fields about pods and TLS to the server have no meaning yet"
)]
pub(super) struct Connector {
    pub(super) routing_key: Option<String>,
    pub(super) host: Option<String>,
    pub(super) selector: Option<String>,
    pub(super) port: Option<i64>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) tls_credentials: Option<String>,
    use_client_cert: Option<bool>,
    verify_hostname: Option<bool>,
    include_not_ready_pods: Option<bool>,
    expose_pods_by_name: Option<bool>,
    settings: Settings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AccessRole {
    pub(super) name: Option<String>,
    pub(super) port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "accessType and settings are for Kubernetes; credentials are always made"
)]
pub(super) struct RouterAccess {
    pub(super) roles: Option<Vec<AccessRole>>,
    pub(super) tls_credentials: Option<String>,
    generate_tls_credentials: Option<bool>,
    pub(super) issuer: Option<String>,
    access_type: Option<String>,
    pub(super) bind_host: Option<String>,
    pub(super) subject_alternative_names: Option<Vec<String>>,
    settings: Settings,
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
    secret_type: Option<String>,
    immutable: Option<bool>,
    pub(super) data: Option<BTreeMap<String, Option<String>>>,
    pub(super) string_data: Option<BTreeMap<String, String>>,
}
