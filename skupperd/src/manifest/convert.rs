//! Raw fields to validated resources.

use super::{
    access, attached,
    checks::{
        CheckResult, checked, field, invalid_value, link_cost, observer, optional, port, required,
        settings, tcp,
    },
    fields, multikey,
    node::YamlNode,
    raw, secret,
};
use crate::model::{
    AccessRole, Certificate, Connector, Endpoint, Host, Kind, Link, LinkAccess, Listener, Meta,
    Name, Namespace, Resource, Role, RouterAccess, ServerHost, Site, SiteId, Spec,
};
use serde::de::DeserializeOwned;

/// Longest common name, as X.520 has it (ub-common-name).
const MAX_SUBJECT: usize = 64;

/// Reads a document of a known kind. `namespace`: the one it must be of.
pub(super) fn convert(
    kind: Kind,
    root: &YamlNode,
    namespace: Option<&Namespace>,
) -> CheckResult<Resource> {
    let mut resource = read(kind, root, namespace)?;
    if kind.is_confidential() {
        secret::redact_annotations(&mut resource.meta.annotations);
    }
    Ok(resource)
}

fn read(kind: Kind, root: &YamlNode, namespace: Option<&Namespace>) -> CheckResult<Resource> {
    match kind {
        Kind::Site => with(root, namespace, site),
        Kind::Link => with(root, namespace, |_, spec| link(required(spec, "spec")?)),
        Kind::Listener => with(root, namespace, |_, spec| listener(required(spec, "spec")?)),
        Kind::MultiKeyListener => with(root, namespace, |_, spec| {
            multikey::listener(required(spec, "spec")?)
        }),
        Kind::Connector => with(root, namespace, |_, spec| {
            connector(required(spec, "spec")?)
        }),
        Kind::RouterAccess => with(root, namespace, |meta, spec| {
            router_access(meta, required(spec, "spec")?)
        }),
        Kind::AccessGrant => with(root, namespace, |_, spec| {
            access::grant(spec.unwrap_or_default())
        }),
        Kind::AccessToken => with(root, namespace, |_, spec| {
            access::token(required(spec, "spec")?)
        }),
        Kind::Certificate => with(root, namespace, |meta, spec| {
            certificate(meta, required(spec, "spec")?)
        }),
        Kind::Secret => {
            let raw: raw::Secret = fields::read(root)?;
            let spec = Spec::Secret(secret::convert(&raw)?);
            Ok(Resource {
                meta: meta(required(raw.metadata, "metadata")?, namespace)?,
                spec,
            })
        }
        Kind::AttachedConnector => with(root, namespace, |meta, spec| {
            attached::connector(meta, required(spec, "spec")?)
        }),
        Kind::AttachedConnectorBinding => with(root, namespace, |meta, spec| {
            attached::binding(meta, required(spec, "spec")?)
        }),
        Kind::SecuredAccess => {
            with::<raw::SecuredAccess>(root, namespace, |_, _| Ok(Spec::Unserved(kind)))
        }
    }
}

fn with<S: DeserializeOwned>(
    root: &YamlNode,
    namespace: Option<&Namespace>,
    convert: impl FnOnce(&Meta, Option<S>) -> CheckResult<Spec>,
) -> CheckResult<Resource> {
    let object: raw::Object<S> = fields::read(root)?;
    let meta = meta(required(object.metadata, "metadata")?, namespace)?;
    let spec = convert(&meta, object.spec)?;
    Ok(Resource { meta, spec })
}

fn meta(raw: raw::Metadata, namespace: Option<&Namespace>) -> CheckResult<Meta> {
    let name = checked(raw.name, "metadata.name")?;
    let path = "metadata.namespace";
    let own = raw.namespace.filter(|n| !n.is_empty());
    let own = own.map(|own| Namespace::new(&*own).map_err(|e| invalid_value(path, &own, &e)));
    let namespace = match (own.transpose()?, namespace) {
        (Some(own), Some(wanted)) if own != *wanted => {
            let text = format!(
                "namespace must be {:?}, but the resource is of {:?} (-n {own})",
                wanted.as_str(),
                own.as_str()
            );
            return Err(field(path, text));
        }
        (_, Some(wanted)) => wanted.clone(),
        (Some(own), None) => own,
        (None, None) => Namespace::default_namespace(),
    };
    Ok(Meta {
        name,
        namespace,
        uid: raw.uid.map(|uid| uid.0).filter(|uid| !uid.is_empty()),
        labels: raw.labels.unwrap_or_default().0,
        annotations: raw.annotations.unwrap_or_default().0,
        generation: raw.generation.unwrap_or_default(),
    })
}

/// Ways of other platforms to let links in, which Skupper knows.
const PLATFORM_LINK_ACCESS: [&str; 8] = [
    "route",
    "loadbalancer",
    "nodeport",
    "local",
    "ingress",
    "ingress-nginx",
    "contour-http-proxy",
    "gateway",
];

/// Ports are opened for a known word only: `no` and `off` are meant to open none, and YAML readers differ
/// in whether they are words.
fn link_access(word: Option<raw::Text>) -> CheckResult<LinkAccess> {
    let word = word.map(|word| word.0).unwrap_or_default();
    if word.is_empty() || word.eq_ignore_ascii_case("none") {
        return Ok(LinkAccess::None);
    }
    if word == "default" || PLATFORM_LINK_ACCESS.contains(&word.as_str()) {
        return Ok(LinkAccess::Enabled(word));
    }
    let platforms = PLATFORM_LINK_ACCESS.join(", ");
    Err(field(
        "spec.linkAccess",
        format!(
            "is {word:?}, but must be none or default (or, with the meaning of default, {platforms})"
        ),
    ))
}

fn site(meta: &Meta, spec: Option<raw::Site>) -> CheckResult<Spec> {
    let spec = spec.unwrap_or_default();
    let (edge, ha) = (spec.edge.unwrap_or_default(), spec.ha.unwrap_or_default());
    if edge && ha {
        return Err(field("spec.ha", "edge sites cannot have HA enabled"));
    }
    let link_access = link_access(spec.link_access)?;
    if edge && link_access.is_enabled() {
        let text = "Edge sites cannot accept incoming links from remote sites";
        return Err(field("spec.linkAccess", text));
    }
    let uid = meta
        .uid
        .clone()
        .map(|uid| SiteId::new(uid.clone()).map_err(|e| invalid_value("metadata.uid", &uid, &e)));
    Ok(Spec::Site(Site {
        uid: uid.transpose()?,
        link_access,
        default_issuer: optional(spec.default_issuer, "spec.defaultIssuer")?,
        edge,
        ha,
        settings: settings(Kind::Site, spec.settings)?,
    }))
}

fn role(name: Option<raw::Text>, path: &str) -> CheckResult<Role> {
    let name = required(name.filter(|n| !n.is_empty()), path)?;
    Role::parse(&name).ok_or_else(|| {
        field(
            path,
            format!(
                "invalid role: {} (valid roles: [edge inter-router])",
                &*name
            ),
        )
    })
}

fn link(spec: raw::Link) -> CheckResult<Spec> {
    let list = required(spec.endpoints, "spec.endpoints")?;
    if list.is_empty() {
        return Err(field("spec.endpoints", "at least one endpoint is required"));
    }
    let mut endpoints = Vec::with_capacity(list.len());
    for (n, raw) in list.into_iter().enumerate() {
        let at = |name: &str| format!("spec.endpoints[{n}].{name}");
        let number = match required(raw.port, &at("port"))? {
            raw::TextPort::Number(number) => number,
            raw::TextPort::Text(text) => text
                .parse()
                .map_err(|_| field(&at("port"), format!("{text:?} is not a port (1..65535)")))?,
        };
        endpoints.push(Endpoint {
            role: role(raw.name, &at("name"))?,
            host: checked(raw.host, &at("host"))?,
            port: port(Some(number), &at("port"))?,
            group: raw.group.map(|group| group.0).unwrap_or_default(),
        });
    }
    let cost = link_cost(spec.cost).map_err(|text| field("spec.cost", text))?;
    Ok(Spec::Link(Link {
        endpoints,
        tls_credentials: checked(spec.tls_credentials, "spec.tlsCredentials")?,
        cost,
        settings: settings(Kind::Link, spec.settings)?,
    }))
}

fn listener(spec: raw::Listener) -> CheckResult<Spec> {
    tcp(spec.kind.as_deref())?;
    let observer = observer(spec.observer.as_deref())?;
    Ok(Spec::Listener(Listener {
        routing_key: checked(spec.routing_key, "spec.routingKey")?,
        host: checked(spec.host, "spec.host")?,
        port: port(spec.port, "spec.port")?,
        tls_credentials: optional(spec.tls_credentials, "spec.tlsCredentials")?,
        observer,
        expose_pods_by_name: spec.expose_pods_by_name.unwrap_or_default(),
        settings: settings(Kind::Listener, spec.settings)?,
    }))
}

fn connector(spec: raw::Connector) -> CheckResult<Spec> {
    tcp(spec.kind.as_deref())?;
    let selector = optional(spec.selector, "spec.selector")?;
    let host = spec.host.filter(|host| !host.is_empty());
    let host: ServerHost = match (host, selector) {
        (Some(_), Some(_)) => {
            let text = "a connector has a host or a selector, not both";
            return Err(field("spec.selector", text));
        }
        (None, Some(selector)) => ServerHost::Workload(selector),
        (None, None) => {
            let text = "Connector must define a non-empty spec.host or spec.selector";
            return Err(field("spec.host", text));
        }
        (host, None) => checked(host, "spec.host")?,
    };
    let port = match spec.port {
        // A socket has no port, and may be given one; a workload has those that it listens on.
        None if host.unix().is_some() => 0,
        None | Some(0) if host.selector().is_some() => 0,
        given => port(given, "spec.port")?,
    };
    Ok(Spec::Connector(Connector {
        routing_key: checked(spec.routing_key, "spec.routingKey")?,
        host,
        port,
        tls_credentials: optional(spec.tls_credentials, "spec.tlsCredentials")?,
        use_client_cert: spec.use_client_cert.unwrap_or_default(),
        verify_hostname: spec.verify_hostname.unwrap_or_default(),
        include_not_ready: spec.include_not_ready_pods.unwrap_or_default(),
        expose_pods_by_name: spec.expose_pods_by_name.unwrap_or_default(),
        settings: settings(Kind::Connector, spec.settings)?,
    }))
}

fn hosts(list: Option<Vec<raw::Text>>, path: &str) -> CheckResult<Vec<Host>> {
    let list = list.unwrap_or_default().into_iter().enumerate();
    list.map(|(n, host)| checked(Some(host), &format!("{path}[{n}]")))
        .collect()
}

fn certificate(meta: &Meta, spec: raw::Certificate) -> CheckResult<Spec> {
    let flag = |flag: Option<bool>| flag.unwrap_or_default();
    let (client, server, signing) = (flag(spec.client), flag(spec.server), flag(spec.signing));
    if !(client || server || signing) {
        let text = "is for nothing: one of client, server and signing has to be true";
        return Err(field("spec", text));
    }
    let ca = match optional(spec.ca, "spec.ca")? {
        Some(ca) => ca,
        // An issuer is signed by itself.
        None if signing => meta.name.clone(),
        None => return Err(field("spec.ca", "is required")),
    };
    let subject = spec.subject.map(|subject| subject.0).unwrap_or_default();
    if subject.len() > MAX_SUBJECT {
        let text = format!("is longer than {MAX_SUBJECT} characters");
        return Err(field("spec.subject", text));
    }
    Ok(Spec::Certificate(Certificate {
        ca,
        subject: if subject.is_empty() {
            meta.name.to_string()
        } else {
            subject
        },
        hosts: hosts(spec.hosts, "spec.hosts")?,
        client,
        server,
        signing,
        settings: spec.settings.unwrap_or_default().0,
    }))
}

fn router_access(meta: &Meta, spec: raw::RouterAccess) -> CheckResult<Spec> {
    let list = spec.roles.unwrap_or_default();
    if list.is_empty() {
        return Err(field("spec.roles", "roles are required"));
    }
    let mut roles: Vec<AccessRole> = Vec::with_capacity(list.len());
    for (n, raw) in list.into_iter().enumerate() {
        let (name_path, port_path) = (
            format!("spec.roles[{n}].name"),
            format!("spec.roles[{n}].port"),
        );
        let role = role(raw.name, &name_path)?;
        let port = match raw.port {
            None => role.default_port(),
            given => port(given, &port_path)?,
        };
        if roles.iter().any(|other| other.role == role) {
            return Err(field(&name_path, format!("role {role} is there twice")));
        }
        if roles.iter().any(|other| other.port == port) {
            return Err(field(&port_path, format!("port {port} is there twice")));
        }
        roles.push(AccessRole { role, port });
    }
    let names = hosts(
        spec.subject_alternative_names,
        "spec.subjectAlternativeNames",
    )?;
    let credentials: Option<Name> = optional(spec.tls_credentials, "spec.tlsCredentials")?;
    Ok(Spec::RouterAccess(RouterAccess {
        roles,
        tls_credentials: credentials.unwrap_or_else(|| meta.name.clone()),
        supplied_only: spec.generate_tls_credentials == Some(false),
        issuer: optional(spec.issuer, "spec.issuer")?,
        bind_host: optional(spec.bind_host, "spec.bindHost")?,
        subject_alternative_names: names,
        settings: spec.settings.unwrap_or_default().0,
    }))
}
