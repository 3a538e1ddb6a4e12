//! Static links: credentials and ports of this site, for another one to apply.

use super::{Outcome, edit, invalid};
use crate::{
    access::link_documents,
    model::{AccessRole, Endpoint, Host, Kind, Link, Name, Role, Settings, Spec, check_host},
    pki,
    reconcile::{host_names, named_hosts, reachable},
    store::NamespaceDir,
};

/// A link access of this site: issuer, host names and ports.
struct Access {
    issuer: Name,
    credentials: Name,
    hosts: Vec<String>,
    ports: Vec<AccessRole>,
}

/// What a link for another site is to be like.
#[derive(Clone, Debug, Default)]
pub struct LinkWish {
    /// Host by which the other site reaches this one; this host's own address without.
    pub host: Option<String>,
    /// Cost; 1 without.
    pub cost: Option<u32>,
    /// Name of the link; `link-<site>` without.
    pub name: Option<String>,
}

/// A Link and its Secret, to be applied at another site. Each call makes credentials of their own.
pub fn generate(namespace: &NamespaceDir, wish: LinkWish) -> Outcome<String> {
    let LinkWish {
        mut host,
        cost,
        name,
    } = wish;
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
    let site_issuer = site_issuer?;
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
    let secret_of = |name: &Name| {
        loaded.iter().find_map(|l| match &l.resource.spec {
            Spec::Secret(secret) if l.resource.name() == name => Some(secret),
            _ => None,
        })
    };
    let issuer = pki::issuer_for(namespace, &access.issuer, secret_of(&access.issuer), None);
    let mut secret = pki::issue_client(&issuer?, &name)?;
    // Where the user supplied what the port shows, its CA is what the other site must know.
    let shown = &access.credentials;
    let given = pki::given_server(namespace, shown, secret_of(shown))?;
    let wished = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Certificate(certificate) if l.resource.name() == shown => Some(&certificate.ca),
        _ => None,
    });
    if let Some(given) = given {
        secret.ca = given.ca;
    } else if let Some(ca) = wished {
        let issuer = pki::issuer_for(namespace, ca, secret_of(ca), None)?;
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
        cost: cost.unwrap_or(1),
        settings: Settings::new(),
    };
    Ok(link_documents(&name, link, secret)?)
}

/// Ports the daemon has opened for the site's own access; the usual ones where it has not run yet.
fn opened_ports(namespace: &NamespaceDir, site: &str) -> Outcome<Vec<AccessRole>> {
    let all = edit::documents(namespace, Kind::RouterAccess)?;
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
fn pick_host(asked: Option<String>, access: &Access) -> Outcome<String> {
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
