//! `link generate`: a Link with credentials for this site, for another site to apply.

use super::{OperateError, OperateResult, documents, invalid, no_site, resources};
use crate::{
    access::link_documents,
    manifest::LocatedResource,
    model::{AccessRole, Endpoint, Host, Kind, Link, Name, Role, Settings, Site, Spec, check_host},
    pki,
    reconcile::{host_names, reachable},
    store::NamespaceDir,
};
use std::{collections::BTreeMap, net::IpAddr};

/// A place where this site accepts links.
struct Access {
    issuer: Name,
    /// Credentials that its ports show.
    credentials: Name,
    /// Names of its certificate; none stands for all that this host has.
    hosts: Vec<String>,
    /// Of these hosts, the one for other sites.
    preferred: Option<String>,
    /// It listens on one address.
    is_bound: bool,
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
pub fn generate(namespace: &NamespaceDir, options: LinkOptions) -> OperateResult<String> {
    let LinkOptions { host, cost, name } = options;
    if let Some(host) = &host {
        check_host(host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
    }
    let _editor = namespace.edit()?;
    let loaded = namespace.load()?.resources;
    let site = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => Some((l.resource.name().clone(), site.clone())),
        _ => None,
    });
    let (site_name, site) = site.ok_or_else(no_site)?;
    let accesses = accesses(namespace, &loaded, &site_name, &site)?;
    let accesses = with_host(accesses, host.as_deref());
    let Some(issuer) = accesses.first().map(|access| access.issuer.clone()) else {
        let text = "this site is not enabled for link access, there are no links created";
        return Err(OperateError::Invalid(vec![
            text.to_owned(),
            format!("Enable it with: skupper site update {site_name} --enable-link-access"),
        ]));
    };
    // Accesses of another CA would refuse the certificate.
    let accesses = accesses.iter().filter(|access| access.issuer == issuer);
    let accesses: Vec<&Access> = accesses.collect();
    let mut endpoints = Vec::new();
    for access in &accesses {
        endpoints.extend(access_endpoints(access, host.as_deref())?);
    }
    let is_named = name.is_some();
    let name = name.unwrap_or_else(|| format!("link-{site_name}"));
    let name = Name::new(name).map_err(|e| invalid(format!("link name is not valid: {e}")))?;
    let secret_of = |name: &Name| resources::user_secret(&loaded, name);
    let issuer = pki::issuer_for(namespace, &issuer, secret_of(&issuer), None)?;
    let subject = if is_named {
        pki::Subject::Exact(&name)
    } else {
        pki::Subject::Numbered(&name)
    };
    let mut secret = pki::issue_client(&issuer, subject)?;
    // The other site must trust the CAs of the certificates that the ports show.
    let mut trusted: Vec<String> = Vec::new();
    for access in accesses {
        let authority = shown_authority(namespace, &loaded, &access.credentials)?;
        let authority = authority.unwrap_or_else(|| secret.ca.clone());
        if !trusted.contains(&authority) {
            trusted.push(authority);
        }
    }
    secret.ca = trusted.join("\n");
    let link = Link {
        endpoints,
        tls_credentials: name.clone(),
        cost: cost.unwrap_or(1),
        settings: Settings::default(),
    };
    Ok(link_documents(&name, link, secret)?)
}

/// The accesses of a site in order of name: those that are resources, and that of `linkAccess`.
fn accesses(
    namespace: &NamespaceDir,
    loaded: &[LocatedResource],
    site_name: &Name,
    site: &Site,
) -> OperateResult<Vec<Access>> {
    let default_issuer = site.default_issuer.clone();
    let default_issuer = default_issuer.map_or_else(|| Name::new(pki::SITE_CA), Ok)?;
    let mut found = BTreeMap::new();
    for located in loaded {
        let Spec::RouterAccess(access) = &located.resource.spec else {
            continue;
        };
        let bind_host = access.bind_host.iter().map(ToString::to_string);
        let bind_host: Vec<String> = bind_host.filter(|host| !is_unspecified(host)).collect();
        let names = access.subject_alternative_names.iter();
        let hosts = names.map(ToString::to_string).chain(bind_host.clone());
        let hosts: Vec<String> = hosts.collect();
        found.insert(
            located.resource.name().clone(),
            Access {
                issuer: access
                    .issuer
                    .clone()
                    .unwrap_or_else(|| default_issuer.clone()),
                credentials: access.tls_credentials.clone(),
                preferred: reachable(&hosts).or_else(|| hosts.first().cloned()),
                hosts,
                is_bound: !bind_host.is_empty(),
                ports: access.roles.clone(),
            },
        );
    }
    if site.link_access.is_enabled() && !found.contains_key(site_name) {
        let hosts = site.settings.link_access_hosts.iter();
        let hosts: Vec<String> = hosts.map(ToString::to_string).collect();
        let own = Access {
            issuer: default_issuer,
            credentials: site_name.clone(),
            // The user's order counts.
            preferred: hosts.first().cloned(),
            hosts,
            is_bound: false,
            ports: opened_ports(namespace, site_name)?,
        };
        found.insert(site_name.clone(), own);
    }
    Ok(found.into_values().collect())
}

fn is_unspecified(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// The accesses that a host leads to: those that have its name, or else those that listen on all
/// addresses of this host.
fn with_host(accesses: Vec<Access>, host: Option<&str>) -> Vec<Access> {
    let Some(host) = host else {
        return accesses;
    };
    let has_name = |access: &Access| access.hosts.iter().any(|h| h == host);
    let (named, others): (Vec<_>, Vec<_>) = accesses.into_iter().partition(has_name);
    if !named.is_empty() {
        return named;
    }
    let (bound, unbound): (Vec<_>, Vec<_>) = others.into_iter().partition(|a| a.is_bound);
    if unbound.is_empty() { bound } else { unbound }
}

/// Endpoints of an access for the other site.
fn access_endpoints(access: &Access, host: Option<&str>) -> OperateResult<Vec<Endpoint>> {
    let host = host.map(str::to_owned).or_else(|| access.preferred.clone());
    let host = host.or_else(|| reachable(&host_names())).ok_or_else(|| {
        invalid("no address of this host is reachable from other hosts: give one with --host")
    })?;
    let host = Host::new(host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
    let endpoint = |r: &AccessRole| Endpoint {
        role: r.role,
        host: host.clone(),
        port: r.port,
        group: String::new(),
    };
    Ok(access.ports.iter().map(endpoint).collect())
}

/// The CA of credentials that a port shows, if they are not of the CA that signs links.
fn shown_authority(
    namespace: &NamespaceDir,
    loaded: &[LocatedResource],
    credentials: &Name,
) -> OperateResult<Option<String>> {
    let secret_of = |name: &Name| resources::user_secret(loaded, name);
    let supplied = pki::supplied_server(namespace, credentials, secret_of(credentials))?;
    if let Some(supplied) = supplied {
        return Ok(Some(supplied.ca));
    }
    let requested = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Certificate(certificate) if l.resource.name() == credentials => Some(&certificate.ca),
        _ => None,
    });
    let Some(ca) = requested else {
        return Ok(None);
    };
    let issuer = pki::issuer_for(namespace, ca, secret_of(ca), None)?;
    Ok(Some(issuer.certificate().to_owned()))
}

/// Ports that the daemon opened for the site's own access; the default ports before its first run.
fn opened_ports(namespace: &NamespaceDir, site: &str) -> OperateResult<Vec<AccessRole>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, store::Layout};
    use std::fs;

    /// The endpoints of a generated link, as `role host:port`.
    fn endpoints(input: &str, host: Option<&str>) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let namespace = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        fs::create_dir_all(namespace.input_resources()).unwrap();
        fs::write(namespace.input_resources().join("all.yaml"), input).unwrap();
        let options = LinkOptions {
            host: host.map(str::to_owned),
            ..LinkOptions::default()
        };
        let text = generate(&namespace, options).unwrap();
        let parsed = crate::manifest::parse("-".as_ref(), text.as_bytes(), None);
        let link = parsed
            .into_iter()
            .find_map(|l| match l.unwrap().resource.spec {
                Spec::Link(link) => Some(link),
                _ => None,
            });
        let endpoints = link.unwrap().endpoints;
        let line = |e: &Endpoint| format!("{} {}:{}", e.role, e.host, e.port);
        endpoints.iter().map(line).collect()
    }

    fn site(spec: &str) -> String {
        format!(
            "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {{name: s}}\nspec: {spec}\n"
        )
    }

    fn access(name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: skupper.io/v2alpha1\nkind: RouterAccess\nmetadata: {{name: {name}}}\n\
             spec: {spec}\n"
        )
    }

    #[test]
    fn a_link_has_the_endpoints_of_all_accesses() {
        let aa = "{bindHost: 192.0.2.1, roles: [{name: edge, port: 7100}]}";
        let bb = "{bindHost: 192.0.2.1, roles: [{name: inter-router, port: 7200}]}";
        let two = site("{}") + &access("bb", bb) + &access("aa", aa);
        let expected = ["edge 192.0.2.1:7100", "inter-router 192.0.2.1:7200"];
        assert_eq!(endpoints(&two, None), expected);
        // That of linkAccess is one of them.
        let open = r#"{linkAccess: default, settings: {link-access-hosts: "h.example"}}"#;
        let three = site(open) + &access("aa", aa);
        let expected = [
            "edge 192.0.2.1:7100",
            "inter-router h.example:55671",
            "edge h.example:45671",
        ];
        assert_eq!(endpoints(&three, None), expected);
    }

    #[test]
    fn a_host_chooses_the_accesses_that_have_it() {
        let ra1 = "{bindHost: 127.0.0.1, subjectAlternativeNames: [foo], roles: [{name: inter-router, port: 7000}]}";
        let ra2 = "{bindHost: 192.0.2.1, roles: [{name: inter-router, port: 7001}]}";
        let two = site("{}") + &access("ra1", ra1) + &access("ra2", ra2);
        assert_eq!(
            endpoints(&two, Some("192.0.2.1")),
            ["inter-router 192.0.2.1:7001"]
        );
        assert_eq!(endpoints(&two, Some("foo")), ["inter-router foo:7000"]);
        // A host that no certificate has leads to what listens on all addresses.
        let all = "{roles: [{name: inter-router, port: 7002}]}";
        let three = two + &access("ra3", all);
        assert_eq!(
            endpoints(&three, Some("nat.example")),
            ["inter-router nat.example:7002"]
        );
    }

    #[test]
    fn an_access_of_loopback_is_named_as_its_status_names_it() {
        let local = "{bindHost: 127.0.0.1, roles: [{name: inter-router, port: 7000}]}";
        let input = site("{}") + &access("go-west", local);
        assert_eq!(endpoints(&input, None), ["inter-router 127.0.0.1:7000"]);
        // All addresses are none that others can dial.
        let any = "{bindHost: 0.0.0.0, roles: [{name: inter-router, port: 7000}]}";
        let input = site("{}") + &access("go-west", any);
        let found = endpoints(&input, Some("192.0.2.9"));
        assert_eq!(found, ["inter-router 192.0.2.9:7000"]);
    }

    #[test]
    fn accesses_of_another_ca_are_left_out() {
        let own = "{bindHost: 192.0.2.1, roles: [{name: inter-router, port: 7000}]}";
        let other = "{bindHost: 192.0.2.1, issuer: other-ca, roles: [{name: edge, port: 7001}]}";
        let input = site("{}") + &access("a", own) + &access("b", other);
        assert_eq!(endpoints(&input, None), ["inter-router 192.0.2.1:7000"]);
    }
}
