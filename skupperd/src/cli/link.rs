//! `skupper link`

mod revoke;

use super::{
    Failure, Outcome, edit, invalid,
    output::{self, Format},
};
use crate::{
    access::link_documents,
    model::{AccessRole, Endpoint, Host, Key, Kind, Link, Name, Role, Settings, Spec, check_host},
    pki,
    reconcile::{host_names, named_hosts, reachable},
    store::NamespaceDir,
};
use clap::Subcommand;
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print a Link and its Secret, to be applied at a remote site
    Generate {
        /// Host by which the remote site reaches this one [default: this host's own address]
        #[arg(long)]
        host: Option<String>,
        /// Cost of the link
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        cost: u32,
        /// Name of the link [default: link-<site>]
        #[arg(long)]
        name: Option<String>,
    },
    /// Show links that this site dials
    Status {
        /// Name [default: all]
        name: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Change a link: connections that are open stay, new ones follow
    Update {
        /// Name
        name: String,
        /// Cost of the link
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        cost: Option<u32>,
        /// Secret with the credentials
        #[arg(long)]
        tls_credentials: Option<String>,
    },
    /// Take back the access of a remote site: its links end, and its certificates are refused
    Revoke {
        /// Name or identity of the site, or subject or serial number of a certificate
        name: String,
    },
    /// Delete a link, and its credentials when nothing else uses them
    Delete {
        /// Name
        name: String,
    },
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Generate { host, cost, name } => generate(namespace, host, cost, name),
        Verb::Update {
            name,
            cost,
            tls_credentials,
        } => update(namespace, &name, cost, tls_credentials),
        Verb::Delete { name } => delete(namespace, &name),
        Verb::Revoke { name } => revoke::run(namespace, &name),
        Verb::Status { name, format } => {
            let none = "There are no link resources in the namespace";
            let missing = format!(
                "There is no link resource in the namespace with the name {:?}",
                name.as_deref().unwrap_or_default()
            );
            let show = edit::Show {
                kind: Kind::Link,
                none,
                missing,
                header: &["NAME", "STATUS", "COST", "MESSAGE", "REMOTE-SITE"],
                row: |v| {
                    let (name, status, message) = edit::status(v);
                    vec![
                        name,
                        status,
                        cost(v),
                        message,
                        edit::text(v, "/status/remoteSiteName"),
                    ]
                },
                details: |v| {
                    let (name, status, message) = edit::status(v);
                    vec![
                        ("Name", name),
                        ("Status", status),
                        ("Cost", cost(v)),
                        ("Message", message),
                        ("Remote Site", edit::text(v, "/status/remoteSiteName")),
                        ("Endpoint", edit::text(v, "/status/endpoint")),
                        ("Up Since", edit::text(v, "/status/upSince")),
                        ("Last Failure", edit::text(v, "/status/lastFailure")),
                        (
                            "Certificate Expires",
                            edit::text(v, "/status/certificateExpirationTime"),
                        ),
                    ]
                },
            };
            edit::show(namespace, name.as_deref(), &format, &show)
        }
    }
}

fn cost(value: &Value) -> String {
    let cost = edit::text(value, "/spec/cost");
    if cost.is_empty() {
        "1".to_owned()
    } else {
        cost
    }
}

fn missing(name: &str) -> Failure {
    invalid(format!(
        "There is no link resource in the namespace with the name {name:?}"
    ))
}

fn update(
    namespace: &NamespaceDir,
    name: &str,
    cost: Option<u32>,
    credentials: Option<String>,
) -> Outcome {
    if cost.is_none() && credentials.is_none() {
        return Err(invalid(
            "nothing to change: name --cost or --tls-credentials",
        ));
    }
    let mut editor = namespace.edit()?;
    let link = edit::find(namespace, Kind::Link, name)?.ok_or_else(|| missing(name))?;
    let mut value = (*link.document).clone();
    if let Some(cost) = cost {
        value["spec"]["cost"] = cost.into();
    }
    if let Some(credentials) = credentials {
        let secret = edit::find(namespace, Kind::Secret, &credentials)?;
        if secret.is_none() {
            return Err(invalid(format!("there is no Secret {credentials:?}")));
        }
        value["spec"]["tlsCredentials"] = credentials.into();
    }
    let path = edit::write(&mut editor, &value)?;
    output::print(&format!("File written to {}", path.display()))
}

fn delete(namespace: &NamespaceDir, name: &str) -> Outcome {
    let mut editor = namespace.edit()?;
    let link = edit::find(namespace, Kind::Link, name)?.ok_or_else(|| missing(name))?;
    editor.remove_resource(&link.key())?;
    output::print(&format!("Link {name:?} is deleted"))?;
    let Spec::Link(link) = &link.resource.spec else {
        return Ok(());
    };
    let credentials = link.tls_credentials.clone();
    let uses = |spec: &Spec| match spec {
        Spec::Link(l) => l.tls_credentials == credentials,
        Spec::Listener(l) => l.tls_credentials.as_ref() == Some(&credentials),
        Spec::Connector(c) => c.tls_credentials.as_ref() == Some(&credentials),
        Spec::RouterAccess(a) => a.tls_credentials == credentials,
        _ => false,
    };
    let used = namespace
        .load()?
        .resources
        .iter()
        .any(|l| uses(&l.resource.spec));
    let key = Key {
        kind: Kind::Secret,
        name: credentials,
    };
    if !used && !editor.remove_resource(&key)?.is_empty() {
        output::print(&format!("Secret {:?} is deleted", key.name))?;
    }
    Ok(())
}

/// A link access of this site: issuer, host names and ports.
struct Access {
    issuer: Name,
    credentials: Name,
    hosts: Vec<String>,
    ports: Vec<AccessRole>,
}

fn generate(
    namespace: &NamespaceDir,
    mut host: Option<String>,
    cost: u32,
    name: Option<String>,
) -> Outcome {
    let _editor = namespace.edit()?;
    let loaded = namespace.load()?.resources;
    let site = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => Some((l.resource.name().clone(), site.clone())),
        _ => None,
    });
    let (site_name, site) =
        site.ok_or_else(|| invalid("there is no active site in this namespace"))?;
    let site_issuer = site
        .default_issuer
        .clone()
        .map_or_else(|| Name::new(pki::SITE_CA), Ok);
    let site_issuer = site_issuer.map_err(|e| Failure::Failed(e.into()))?;
    let explicit = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::RouterAccess(access) => Some((l.resource.name().clone(), access.clone())),
        _ => None,
    });
    let access = match explicit {
        Some((_, access)) => {
            let hosts = access
                .subject_alternative_names
                .iter()
                .chain(&access.bind_host);
            let hosts = hosts.map(ToString::to_string).collect();
            let issuer = access.issuer.unwrap_or(site_issuer);
            Access {
                issuer,
                credentials: access.tls_credentials,
                hosts,
                ports: access.roles,
            }
        }
        None if site.link_access.is_enabled() => {
            let ports = opened_ports(namespace, &site_name)?;
            let named = named_hosts(&site.settings).map_err(invalid)?;
            // What the site names is what it wants to be dialled by, whatever it is.
            host = host.or_else(|| named.first().map(ToString::to_string));
            Access {
                issuer: site_issuer,
                credentials: site_name.clone(),
                hosts: Vec::new(),
                ports,
            }
        }
        None => {
            let text = "this site is not enabled for link access, there are no links created";
            return Err(invalid(text));
        }
    };
    let host = pick_host(host, &access)?;
    let name = name.unwrap_or_else(|| format!("link-{site_name}"));
    let name = Name::new(name).map_err(|e| invalid(format!("link name is not valid: {e}")))?;
    let failed = |e: pki::PkiError| Failure::Failed(anyhow::Error::new(e));
    let secret_of = |name: &Name| {
        loaded.iter().find_map(|l| match &l.resource.spec {
            Spec::Secret(secret) if l.resource.name() == name => Some(secret),
            _ => None,
        })
    };
    let issuer = pki::issuer_for(namespace, &access.issuer, secret_of(&access.issuer), None);
    let mut secret = pki::issue_client(&issuer.map_err(failed)?, &name).map_err(failed)?;
    // Where the user supplied what the port shows, its CA is what the other site must know.
    let shown = &access.credentials;
    let given = pki::given_server(namespace, shown, secret_of(shown)).map_err(failed)?;
    let wished = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Certificate(certificate) if l.resource.name() == shown => Some(&certificate.ca),
        _ => None,
    });
    if let Some(given) = given {
        secret.ca = given.ca;
    } else if let Some(ca) = wished {
        let issuer = pki::issuer_for(namespace, ca, secret_of(ca), None).map_err(failed)?;
        secret.ca = issuer.certificate().to_owned();
    }
    let host = Host::new(host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
    let endpoint = |r: &AccessRole| Endpoint {
        role: r.role,
        host: host.clone(),
        port: r.port,
        group: String::new(),
    };
    let link = Link {
        endpoints: access.ports.iter().map(endpoint).collect(),
        tls_credentials: name.clone(),
        cost,
        settings: Settings::new(),
    };
    output::print(&link_documents(&name, link, secret).map_err(anyhow::Error::from)?)
}

/// Ports the daemon has opened for the site's own access; the usual ones where it has not run yet.
fn opened_ports(namespace: &NamespaceDir, site: &str) -> Result<Vec<AccessRole>, Failure> {
    let all = edit::with_status(namespace, Kind::RouterAccess)?;
    let access = all.iter().find(|v| v["metadata"]["name"] == site);
    let roles = access.and_then(|v| v["spec"]["roles"].as_array());
    let port_of = |role: Role| {
        let opened = roles.and_then(|r| r.iter().find(|r| r["name"] == role.as_str()));
        let port = opened
            .and_then(|r| r["port"].as_u64())
            .and_then(|p| u16::try_from(p).ok());
        AccessRole {
            role,
            port: port.unwrap_or_else(|| role.default_port()),
        }
    };
    Ok(vec![port_of(Role::InterRouter), port_of(Role::Edge)])
}

/// A host that a remote site can really use.
fn pick_host(asked: Option<String>, access: &Access) -> Result<String, Failure> {
    if let Some(host) = asked {
        check_host(&host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
        return Ok(host);
    }
    reachable(&access.hosts)
        .or_else(|| reachable(&host_names()))
        .ok_or_else(|| {
            invalid("no address of this host can be reached by others: name one with --host")
        })
}
