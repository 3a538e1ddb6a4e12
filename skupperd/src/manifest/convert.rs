//! Raw fields to validated resources.

use super::raw;
use crate::model::{self, Key, Kind, Resource, Role, Spec, check_host, check_name, parse_port};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_yaml::Value;
use zeroize::Zeroizing;

pub(super) enum Problem {
    Yaml(serde_yaml::Error),
    /// Path and reason.
    Field(String, String),
}

impl From<serde_yaml::Error> for Problem {
    fn from(e: serde_yaml::Error) -> Self {
        Self::Yaml(e)
    }
}

fn field(path: &str, reason: impl Into<String>) -> Problem {
    Problem::Field(path.to_owned(), reason.into())
}

fn required<T>(value: Option<T>, path: &str) -> Result<T, Problem> {
    value.ok_or_else(|| field(path, "is required"))
}

fn named(value: Option<String>, path: &str) -> Result<String, Problem> {
    let value = required(value.filter(|v| !v.is_empty()), path)?;
    check_name(&value).map_err(|e| field(path, format!("{value:?}: {e}")))?;
    Ok(value)
}

fn named_opt(value: Option<String>, path: &str) -> Result<Option<String>, Problem> {
    value
        .filter(|v| !v.is_empty())
        .map(|v| named(Some(v), path))
        .transpose()
}

fn host(value: Option<String>, path: &str) -> Result<String, Problem> {
    let value = required(value.filter(|v| !v.is_empty()), path)?;
    check_host(&value).map_err(|e| field(path, format!("{value:?}: {e}")))?;
    Ok(value)
}

fn port(value: Option<i64>, path: &str) -> Result<u16, Problem> {
    parse_port(required(value, path)?).map_err(|e| field(path, e))
}

fn tcp(kind: Option<String>) -> Result<(), Problem> {
    match kind.as_deref() {
        None | Some("" | "tcp") => Ok(()),
        Some(other) => {
            let text =
                format!("value {other} not allowed. It should be one of this options: [tcp]");
            Err(field("spec.type", text))
        }
    }
}

pub(super) fn convert(kind: Kind, text: &str, namespace: &str) -> Result<Resource, Problem> {
    let (metadata, spec) = match kind {
        Kind::Site => with(text, site)?,
        Kind::Link => with(text, |_, s| link(s))?,
        Kind::Listener => with(text, |_, s| listener(s))?,
        Kind::Connector => with(text, |_, s| connector(s))?,
        Kind::RouterAccess => with(text, router_access)?,
        Kind::Secret => {
            let raw: raw::Secret = serde_yaml::from_str(text)?;
            let spec = secret(
                raw.data.unwrap_or_default(),
                raw.string_data.unwrap_or_default(),
            )?;
            (required(raw.metadata, "metadata")?, spec)
        }
        _ => with::<Value>(text, |_, _| Ok(Spec::Unserved))?,
    };
    let name = named(metadata.name, "metadata.name")?;
    if let Some(other) = metadata
        .namespace
        .filter(|n| !n.is_empty() && n != namespace)
    {
        let text = format!("namespace must be {namespace:?}, but the resource is of {other:?}");
        return Err(field("metadata.namespace", text));
    }
    Ok(Resource {
        key: Key { kind, name },
        spec,
    })
}

fn with<S: serde::de::DeserializeOwned>(
    text: &str,
    convert: impl FnOnce(&raw::Metadata, Option<S>) -> Result<Spec, Problem>,
) -> Result<(raw::Metadata, Spec), Problem> {
    let object: raw::Object<S> = serde_yaml::from_str(text)?;
    let metadata = required(object.metadata, "metadata")?;
    let spec = convert(&metadata, object.spec)?;
    Ok((metadata, spec))
}

fn site(metadata: &raw::Metadata, spec: Option<raw::Site>) -> Result<Spec, Problem> {
    let spec = spec.unwrap_or_default();
    let edge = spec.edge.unwrap_or(false);
    if edge && spec.ha.unwrap_or(false) {
        return Err(field("spec.ha", "edge sites cannot have HA enabled"));
    }
    let link_access = spec
        .link_access
        .is_some_and(|a| !a.is_empty() && a != "none");
    if edge && link_access {
        let text = "Edge sites cannot accept incoming links from remote sites";
        return Err(field("spec.linkAccess", text));
    }
    Ok(Spec::Site(model::Site {
        uid: metadata.uid.clone().filter(|u| !u.is_empty()),
        link_access,
        default_issuer: named_opt(spec.default_issuer, "spec.defaultIssuer")?,
        edge,
        settings: spec.settings.unwrap_or_default(),
    }))
}

fn role(name: Option<String>, path: &str) -> Result<Role, Problem> {
    match required(name, path)?.as_str() {
        "inter-router" => Ok(Role::InterRouter),
        "edge" => Ok(Role::Edge),
        other => {
            let text = format!("invalid role: {other} (valid roles: [edge inter-router])");
            Err(field(path, text))
        }
    }
}

fn link(spec: Option<raw::Link>) -> Result<Spec, Problem> {
    let spec = required(spec, "spec")?;
    let list = required(spec.endpoints, "spec.endpoints")?;
    if list.is_empty() {
        return Err(field("spec.endpoints", "at least one endpoint is required"));
    }
    let mut endpoints = Vec::with_capacity(list.len());
    for (n, raw) in list.into_iter().enumerate() {
        let at = |name: &str| format!("spec.endpoints[{n}].{name}");
        let number = match required(raw.port, &at("port"))? {
            Value::Number(n) => n.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| field(&at("port"), "is not a number"))?;
        endpoints.push(model::Endpoint {
            role: role(raw.name, &at("name"))?,
            host: host(raw.host, &at("host"))?,
            port: port(Some(number), &at("port"))?,
            group: raw.group.unwrap_or_default(),
        });
    }
    let cost = spec.cost.unwrap_or(1);
    let cost = u32::try_from(cost.max(1)).map_err(|_| {
        field(
            "spec.cost",
            format!("{cost} is too large (at most {})", u32::MAX),
        )
    })?;
    Ok(Spec::Link(model::Link {
        endpoints,
        tls_credentials: named(spec.tls_credentials, "spec.tlsCredentials")?,
        cost,
    }))
}

fn listener(spec: Option<raw::Listener>) -> Result<Spec, Problem> {
    let spec = required(spec, "spec")?;
    tcp(spec.kind)?;
    if let Some(observer) = spec.observer
        && !matches!(observer.as_str(), "auto" | "none" | "http1" | "http2")
    {
        let text = format!(
            "value {observer} not allowed. It should be one of this options: \
                 [auto none http1 http2]"
        );
        return Err(field("spec.observer", text));
    }
    Ok(Spec::Listener(model::Listener {
        routing_key: named(spec.routing_key, "spec.routingKey")?,
        host: host(spec.host, "spec.host")?,
        port: port(spec.port, "spec.port")?,
        tls_credentials: named_opt(spec.tls_credentials, "spec.tlsCredentials")?,
    }))
}

fn connector(spec: Option<raw::Connector>) -> Result<Spec, Problem> {
    let spec = required(spec, "spec")?;
    tcp(spec.kind)?;
    if spec.selector.is_some_and(|s| !s.is_empty()) {
        let text = "selectors are not supported on this platform; use spec.host";
        return Err(field("spec.selector", text));
    }
    Ok(Spec::Connector(model::Connector {
        routing_key: named(spec.routing_key, "spec.routingKey")?,
        host: host(spec.host, "spec.host")?,
        port: port(spec.port, "spec.port")?,
        tls_credentials: named_opt(spec.tls_credentials, "spec.tlsCredentials")?,
    }))
}

fn router_access(
    metadata: &raw::Metadata,
    spec: Option<raw::RouterAccess>,
) -> Result<Spec, Problem> {
    let spec = required(spec, "spec")?;
    let list = spec.roles.unwrap_or_default();
    if list.is_empty() {
        return Err(field("spec.roles", "roles are required"));
    }
    let mut roles = Vec::with_capacity(list.len());
    for (n, raw) in list.into_iter().enumerate() {
        let role = role(raw.name, &format!("spec.roles[{n}].name"))?;
        let path = format!("spec.roles[{n}].port");
        // 0 is what upstream's tools write for "default".
        let port = match raw.port {
            None | Some(0) => role.default_port(),
            given => port(given, &path)?,
        };
        if roles
            .iter()
            .any(|(known, taken)| *known == role || *taken == port)
        {
            return Err(field(&path, "role or port is there twice"));
        }
        roles.push((role, port));
    }
    let names = spec.subject_alternative_names.unwrap_or_default();
    for (n, name) in names.iter().enumerate() {
        let path = format!("spec.subjectAlternativeNames[{n}]");
        check_host(name).map_err(|e| field(&path, format!("{name:?}: {e}")))?;
    }
    let bind_host = spec.bind_host.unwrap_or_default();
    if !bind_host.is_empty() {
        check_host(&bind_host)
            .map_err(|e| field("spec.bindHost", format!("{bind_host:?}: {e}")))?;
    }
    let own = metadata.name.clone();
    let credentials = spec.tls_credentials.filter(|c| !c.is_empty()).or(own);
    Ok(Spec::RouterAccess(model::RouterAccess {
        roles,
        tls_credentials: named(credentials, "spec.tlsCredentials")?,
        issuer: named_opt(spec.issuer, "spec.issuer")?,
        bind_host,
        subject_alternative_names: names,
    }))
}

type Data = std::collections::BTreeMap<String, Option<String>>;

fn secret(data: Data, plain: std::collections::BTreeMap<String, String>) -> Result<Spec, Problem> {
    let get = |key: &str| -> Result<Option<Zeroizing<String>>, Problem> {
        if let Some(text) = plain.get(key) {
            return Ok(Some(Zeroizing::new(text.clone())));
        }
        let Some(Some(encoded)) = data.get(key) else {
            return Ok(None);
        };
        let path = format!("data.{key}");
        let compact: Zeroizing<String> =
            Zeroizing::new(encoded.chars().filter(|c| !c.is_whitespace()).collect());
        let bytes = Zeroizing::new(
            STANDARD
                .decode(compact.as_bytes())
                .map_err(|_| field(&path, "is not base64"))?,
        );
        let text = std::str::from_utf8(&bytes).map_err(|_| field(&path, "is not PEM"))?;
        if !text.contains("-----BEGIN ") {
            return Err(field(&path, "is not PEM"));
        }
        Ok(Some(Zeroizing::new(text.to_owned())))
    };
    let text = |v: Option<Zeroizing<String>>| v.map(|v| v.to_string()).unwrap_or_default();
    Ok(Spec::Secret(model::Secret {
        ca: text(get("ca.crt")?),
        certificate: text(get("tls.crt")?),
        key: get("tls.key")?.unwrap_or_default(),
    }))
}
