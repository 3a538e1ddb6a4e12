//! `link generate`: a Link with credentials for this site, for another site to apply.

use super::{OperateError, Outcome, documents, invalid, no_site, resources};
use crate::{
    access::link_documents,
    model::{AccessRole, Endpoint, Host, Kind, Link, Name, Role, Settings, Spec, check_host},
    pki,
    reconcile::{host_names, reachable},
    store::NamespaceDir,
};

/// Where this site accepts links: CA, host names and ports.
struct Access {
    issuer: Name,
    credentials: Name,
    hosts: Vec<String>,
    ports: Vec<AccessRole>,
}

#[derive(Clone, Debug, Default)]
pub struct LinkOptions {
    /// Host at which the other site reaches this one [default: an address of this host].
    pub host: Option<String>,
    /// Cost [default: 1].
    pub cost: Option<u32>,
    /// Name of the link [default: `link-<site>`].
    pub name: Option<String>,
}

/// A Link and its Secret for another site to apply. Each call issues new credentials.
pub fn generate(namespace: &NamespaceDir, options: LinkOptions) -> Outcome<String> {
    let LinkOptions {
        mut host,
        cost,
        name,
    } = options;
    let _editor = namespace.edit()?;
    let loaded = namespace.load()?.resources;
    let site = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => Some((l.resource.name().clone(), site.clone())),
        _ => None,
    });
    let (site_name, site) = site.ok_or_else(no_site)?;
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
            let named = &site.settings.link_access_hosts;
            // The names of the site go before addresses that are found here.
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
            return Err(OperateError::Invalid(vec![
                text.to_owned(),
                format!("Enable it with: skupper site update {site_name} --enable-link-access"),
            ]));
        }
    };
    let host = pick_host(host, &access)?;
    let is_named = name.is_some();
    let name = name.unwrap_or_else(|| format!("link-{site_name}"));
    let name = Name::new(name).map_err(|e| invalid(format!("link name is not valid: {e}")))?;
    let secret_of = |name: &Name| resources::user_secret(&loaded, name);
    let issuer = pki::issuer_for(namespace, &access.issuer, secret_of(&access.issuer), None);
    let subject = if is_named {
        pki::Subject::Exact(&name)
    } else {
        pki::Subject::Numbered(&name)
    };
    let mut secret = pki::issue_client(&issuer?, subject)?;
    // The other site must trust the CA of the certificate that the port presents.
    let shown = &access.credentials;
    let supplied = pki::supplied_server(namespace, shown, secret_of(shown))?;
    let requested_ca = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Certificate(certificate) if l.resource.name() == shown => Some(&certificate.ca),
        _ => None,
    });
    if let Some(supplied) = supplied {
        secret.ca = supplied.ca;
    } else if let Some(ca) = requested_ca {
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
        settings: Settings::default(),
    };
    Ok(link_documents(&name, link, secret)?)
}

/// Ports that the daemon opened for the site's own access; the default ports before its first run.
fn opened_ports(namespace: &NamespaceDir, site: &str) -> Outcome<Vec<AccessRole>> {
    let all = documents::reported(namespace, Kind::RouterAccess)?;
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

/// A host at which a remote site can reach this one.
fn pick_host(asked: Option<String>, access: &Access) -> Outcome<String> {
    if let Some(host) = asked {
        check_host(&host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
        return Ok(host);
    }
    reachable(&access.hosts)
        .or_else(|| reachable(&host_names()))
        .ok_or_else(|| {
            invalid("no address of this host is reachable from other hosts: give one with --host")
        })
}
