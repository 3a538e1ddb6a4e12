//! Resources to documents, in the form of Skupper.

use crate::model::{Code, ObserverMode, Resource, Secret, Spec, Strategy};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The document of a resource. Of a Secret it holds the key, of a grant or token the code.
pub fn document_of(resource: &Resource) -> Value {
    let meta = &resource.meta;
    let mut metadata = Map::from_iter([("name".to_owned(), json!(meta.name))]);
    if let Some(uid) = &meta.uid {
        metadata.insert("uid".to_owned(), json!(uid));
    }
    for (name, texts) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        if !texts.is_empty() {
            metadata.insert(name.to_owned(), json!(texts));
        }
    }
    let mut document = json!({
        "apiVersion": resource.kind().api_version(),
        "kind": resource.kind().as_str(),
        "metadata": metadata,
    });
    match &resource.spec {
        Spec::Secret(secret) => {
            // This type requires a certificate and a key; a CA or a proxy alone has no standard type.
            if secret.has_certificate() {
                document["type"] = json!("kubernetes.io/tls");
            }
            document["data"] = data(secret);
        }
        Spec::Unserved(_) => {}
        spec => document["spec"] = fields(spec),
    }
    document
}

/// A document as YAML, fields in alphabetical order as in Skupper.
pub fn to_yaml(document: &impl Serialize) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(document)
}

/// Parts of a Secret's data that mean something.
pub(super) const PARTS: [&str; 7] = [
    "ca.crt", "tls.crt", "tls.key", "host", "port", "username", "password",
];

fn data(secret: &Secret) -> Value {
    let proxy = secret.proxy.as_ref();
    let port = proxy.map(|proxy| proxy.port.to_string());
    let login = proxy.and_then(|proxy| proxy.login.as_ref());
    let parts = [
        secret.ca.as_str(),
        secret.certificate.as_str(),
        secret.key.as_str(),
        proxy.map_or("", |proxy| proxy.host.as_str()),
        port.as_deref().unwrap_or_default(),
        login.map_or("", |(user, _)| user.as_str()),
        login.map_or("", |(_, word)| word.as_str()),
    ];
    let parts = PARTS.into_iter().zip(parts);
    parts
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name.to_owned(), json!(STANDARD.encode(text))))
        .collect()
}

/// Of what two namespaces agree on.
fn attached(spec: &Spec) -> Value {
    match spec {
        Spec::AttachedConnector(connector) => json!({
            "siteNamespace": connector.site_namespace,
            "selector": connector.selector,
            "port": Some(connector.port).filter(|port| *port != 0),
            "tlsCredentials": connector.tls_credentials,
            "useClientCert": connector.use_client_cert,
            "includeNotReadyPods": connector.include_not_ready,
            "settings": connector.settings.texts(),
        }),
        Spec::AttachedConnectorBinding(binding) => json!({
            "connectorNamespace": binding.connector_namespace,
            "routingKey": binding.routing_key,
            "exposePodsByName": binding.expose_pods_by_name,
            "settings": binding.settings.texts(),
        }),
        _ => Value::Null,
    }
}

/// Of what lets others in.
fn access(spec: &Spec) -> Value {
    match spec {
        Spec::AccessGrant(grant) => json!({
            "redemptionsAllowed": grant.redemptions_allowed,
            "expirationWindow": format!("{}s", grant.expiration_window.as_secs_f64()),
            "code": grant.code.as_ref().map(Code::reveal),
            "issuer": grant.issuer,
            "settings": grant.settings,
        }),
        Spec::AccessToken(token) => json!({
            "url": token.url,
            "code": token.code.reveal(),
            "ca": token.ca,
            "linkCost": Some(token.link_cost).filter(|cost| *cost != 1),
            "settings": token.settings,
        }),
        _ => Value::Null,
    }
}

fn fields(spec: &Spec) -> Value {
    let mut fields = match spec {
        Spec::Site(site) => json!({
            "linkAccess": match &site.link_access {
                crate::model::LinkAccess::None => None,
                crate::model::LinkAccess::Enabled(how) => Some(how),
            },
            "defaultIssuer": site.default_issuer,
            "edge": site.edge,
            "ha": site.ha,
            "settings": site.settings.texts(),
        }),
        Spec::Link(link) => json!({
            "endpoints": link.endpoints.iter().map(|e| {
                let mut endpoint = json!({
                    "name": e.role.as_str(), "host": e.host, "port": e.port.to_string(),
                    "group": e.group,
                });
                shorten(&mut endpoint);
                endpoint
            }).collect::<Vec<_>>(),
            "tlsCredentials": link.tls_credentials,
            "cost": Some(link.cost).filter(|cost| *cost != 1),
            "settings": link.settings.texts(),
        }),
        Spec::Listener(listener) => json!({
            "routingKey": listener.routing_key,
            "host": listener.host,
            "port": listener.port,
            "tlsCredentials": listener.tls_credentials,
            "observer": Some(listener.observer)
                .filter(|o| *o != ObserverMode::default())
                .map(ObserverMode::as_str),
            "exposePodsByName": listener.expose_pods_by_name,
            "settings": listener.settings.texts(),
        }),
        Spec::MultiKeyListener(listener) => json!({
            "host": listener.host,
            "port": listener.port,
            "strategy": match &listener.strategy {
                Strategy::Priority(keys) => json!({"priority": {"routingKeys": keys}}),
                Strategy::Weighted(keys) => json!({"weighted": {"routingKeys": keys}}),
            },
            "tlsCredentials": listener.tls_credentials,
            "requireClientCert": listener.require_client_cert,
            "observer": Some(listener.observer)
                .filter(|o| *o != ObserverMode::default())
                .map(ObserverMode::as_str),
            "settings": listener.settings.texts(),
        }),
        Spec::Connector(connector) => json!({
            "routingKey": connector.routing_key,
            "host": Some(&connector.host).filter(|host| host.selector().is_none()),
            "selector": connector.host.selector(),
            "port": Some(connector.port).filter(|port| *port != 0),
            "tlsCredentials": connector.tls_credentials,
            "useClientCert": connector.use_client_cert,
            "verifyHostname": connector.verify_hostname,
            "includeNotReadyPods": connector.include_not_ready,
            "exposePodsByName": connector.expose_pods_by_name,
            "settings": connector.settings.texts(),
        }),
        Spec::RouterAccess(access) => json!({
            "roles": access.roles.iter()
                .map(|r| json!({"name": r.role.as_str(), "port": r.port}))
                .collect::<Vec<_>>(),
            "tlsCredentials": access.tls_credentials,
            "issuer": access.issuer,
            "bindHost": access.bind_host,
            "subjectAlternativeNames": access.subject_alternative_names,
            "settings": access.settings,
        }),
        Spec::AccessGrant(_) | Spec::AccessToken(_) => access(spec),
        Spec::Certificate(certificate) => json!({
            "ca": certificate.ca,
            "subject": certificate.subject,
            "hosts": certificate.hosts,
            "client": certificate.client,
            "server": certificate.server,
            "signing": certificate.signing,
            "settings": certificate.settings,
        }),
        Spec::AttachedConnector(_) | Spec::AttachedConnectorBinding(_) => attached(spec),
        Spec::Secret(_) | Spec::Unserved(_) => Value::Null,
    };
    shorten(&mut fields);
    // Absent means true, so `false` is written, which `shorten` removes.
    if let Spec::RouterAccess(access) = spec
        && access.supplied_only
    {
        fields["generateTlsCredentials"] = false.into();
    }
    fields
}

/// Removes empty members.
fn shorten(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
    }
}
