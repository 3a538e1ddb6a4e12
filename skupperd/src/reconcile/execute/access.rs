//! Steps for link accesses, and the credentials that they show.

use super::{Done, Executor};
use crate::{
    link::core::{AccessSpec, CoreSender, ServerTls},
    model::{AccessRole, Host, Name, RouterAccess},
    pki::{self, Served},
    plan::Picture,
    reconcile::{
        hosts::{host_names, resolve},
        settings,
    },
    steer::Plain,
    telemetry::chain,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
};

/// Ports tried for a site's own link access when the usual one is taken.
const PORT_TRIES: u16 = 200;

/// An open link access.
pub(in crate::reconcile) struct OpenAccess {
    pub(in crate::reconcile) ports: Vec<AccessRole>,
    /// Names in the certificate.
    pub(in crate::reconcile) hosts: Vec<String>,
    /// What it shows and trusts; replaced under the open sockets.
    pub(in crate::reconcile) served: Served,
    tls: ServerTls,
}

impl OpenAccess {
    /// The CA by which others recognise it, when the user supplied its credentials.
    pub(in crate::reconcile) fn given(&self) -> Option<&str> {
        Some(&*self.served.authority).filter(|_| self.served.given)
    }
}

impl Executor {
    pub(super) async fn set_access(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        name: &Name,
        access: &RouterAccess,
    ) -> Done {
        let own = wanted.site.as_ref().is_some_and(|(site, _)| site == name)
            && access.bind_host.is_none();
        let hosts = certificate_hosts(access);
        let served = self.credentials(wanted, name, access, &hosts)?;
        let tls = pki::server_config(&access.tls_credentials, &served.secret);
        let tls = ServerTls::new(ArcSwap::new(tls.map_err(|e| chain(&e))?));
        let removed = name.to_string();
        self.accesses.remove(name);
        // The old sockets go first: the new ones may want their ports.
        self.on_site(core, move |s, c| s.remove_access(c, &removed, false))
            .await?;
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        for AccessRole { role, port } in &access.roles {
            let remembered = format!("{name}/{}", role.as_str());
            let memory = self.remember(None)?;
            let first = memory
                .ports
                .get(&remembered)
                .copied()
                .filter(|_| own)
                .unwrap_or(*port);
            let (port, bound) = bind(access.bind_host.as_ref(), first, own).await?;
            ports.push(AccessRole { role: *role, port });
            sockets.extend(bound.into_iter().map(|socket| (*role, socket)));
            let memory = self.remember(None)?;
            if own && memory.ports.insert(remembered, port) != Some(port) {
                self.save()?;
            }
        }
        let spec = AccessSpec {
            name: Arc::from(name.as_str()),
            sockets,
            tls: tls.clone(),
        };
        self.on_site(core, move |s, c| s.set_access(c, spec))
            .await?;
        tracing::info!(
            namespace = %self.namespace.name(),
            access = %name,
            ports = ?ports.iter().map(|r| r.port).collect::<Vec<_>>(),
            "link access is open"
        );
        let open = OpenAccess {
            ports,
            hosts,
            served,
            tls,
        };
        self.accesses.insert(name.clone(), open);
        Ok(())
    }

    /// What an access shows and trusts by now: the user's, or ours, issued anew when it runs out.
    fn credentials(
        &self,
        wanted: &Picture,
        name: &Name,
        access: &RouterAccess,
        hosts: &[String],
    ) -> Result<Served, String> {
        let site = wanted.site.as_ref().map(|(_, site)| site);
        let issuer = access.issuer.clone();
        let issuer = issuer.or_else(|| site.and_then(|s| s.default_issuer.clone()));
        let issuer = issuer.map_or_else(|| Name::new(pki::SITE_CA), Ok);
        let issuer = issuer.map_err(|e| e.to_string())?;
        let validity = site.map(|s| settings::validity(&s.settings)).transpose()?;
        let validity = validity.flatten();
        let secret = self.secrets.get(&issuer);
        let rotation = site.map(|s| settings::rotation(&s.settings)).transpose()?;
        let issuer = pki::issuer_for(&self.namespace, &issuer, secret, rotation.as_ref());
        let issuer = issuer.map_err(|e| chain(&e))?;
        let credentials = &access.tls_credentials;
        let asked: Vec<String> = access
            .subject_alternative_names
            .iter()
            .map(ToString::to_string)
            .collect();
        let given = (self.secrets.get(credentials), validity);
        pki::server_for(
            &self.namespace,
            &issuer,
            credentials,
            (name, hosts),
            &asked,
            given,
        )
        .map_err(|e| chain(&e))
    }

    /// Replaces what the open accesses show and trust where that has changed. Links that are up stay
    /// as they are. Gives what could not be replaced, and why.
    pub(in crate::reconcile) fn refresh(&mut self, wanted: &Picture) -> BTreeMap<Name, String> {
        let mut failed = BTreeMap::new();
        for name in self.accesses.keys().cloned().collect::<Vec<_>>() {
            let (Some(access), Some(open)) = (wanted.accesses.get(&name), self.accesses.get(&name))
            else {
                continue;
            };
            let fresh = self
                .credentials(wanted, &name, access, &open.hosts)
                .and_then(|served| {
                    let tls = pki::server_config(&access.tls_credentials, &served.secret);
                    Ok((tls.map_err(|e| chain(&e))?, served))
                });
            match fresh {
                Ok((_, served)) if served == open.served => {}
                Ok((tls, served)) => {
                    tracing::info!(
                        namespace = %self.namespace.name(),
                        access = %name,
                        expires = served.identity.as_ref().map(|i| i.expires.to_string()),
                        "credentials of link access are replaced"
                    );
                    open.tls.store(tls);
                    if let Some(open) = self.accesses.get_mut(&name) {
                        open.served = served;
                    }
                }
                Err(error) => drop(failed.insert(name, error)),
            }
        }
        failed
    }

    /// When the first of our credentials is to be renewed, or stops being trusted.
    pub(in crate::reconcile) fn renewal(&self) -> Option<Timestamp> {
        let due = self.accesses.values().filter_map(|a| a.served.changes);
        due.chain(self.ends.renewal()).min()
    }

    /// Until when a retired CA, known by its key identifier, is trusted; empty for one that is not.
    pub(in crate::reconcile) fn trusted_until(&self, authority: &str) -> String {
        let mut retired = self.accesses.values().flat_map(|a| &a.served.retired);
        let found = retired.find(|(key, _)| key == authority);
        found
            .map(|(_, until)| until.to_string())
            .unwrap_or_default()
    }

    /// Takes the certificates that the site names no more.
    pub(super) async fn revoke(&mut self, core: &CoreSender, wanted: &Picture) -> Done {
        let Some((_, site)) = &wanted.site else {
            return Ok(());
        };
        self.refused.serials = settings::revoked(&site.settings)?;
        settings::named_hosts(&site.settings)?;
        self.refuse(core).await
    }

    /// Ends the links that came in by a CA whose overlap is over.
    pub(in crate::reconcile) async fn retire(&mut self, core: &CoreSender) -> Done {
        let now = Timestamp::now();
        let retired = self.accesses.values().flat_map(|a| &a.served.retired);
        let over = retired.filter(|(_, until)| *until <= now);
        let over: BTreeSet<String> = over.map(|(key, _)| key.clone()).collect();
        if over == self.refused.authorities {
            return Ok(());
        }
        self.refused.authorities = over;
        self.refuse(core).await
    }

    async fn refuse(&self, core: &CoreSender) -> Done {
        let refused = self.refused.clone();
        self.on_site(core, move |s, c| s.set_refused(c, refused))
            .await
    }
}

/// Binds a port for links; with `search` the next free one when it is taken.
pub(in crate::reconcile) async fn bind(
    host: Option<&Host>,
    port: u16,
    search: bool,
) -> Result<(u16, Vec<TcpListener>), String> {
    let tries = if search { PORT_TRIES } else { 1 };
    let mut last = String::new();
    for port in (0..tries).filter_map(|n| port.checked_add(n)) {
        let addrs = match host {
            None => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            ],
            Some(host) => {
                let found = resolve(host, port).await;
                found.map_err(|e| format!("spec.bindHost: looking up {host}: {e}"))?
            }
        };
        let mut sockets = Vec::new();
        let mut failed = None;
        for addr in addrs {
            match Plain.open(addr, 1) {
                Ok(bound) => sockets.extend(bound),
                // A host without IPv6 serves IPv4.
                Err(_) if addr.is_ipv6() && host.is_none() && !has_ipv6() => {}
                Err(e) => failed = Some(chain(&e)),
            }
        }
        match failed {
            None => return Ok((port, sockets)),
            Some(error) => last = error,
        }
    }
    Err(last)
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Names that remote sites may dial: those that are asked for, or everything this host is known by.
fn certificate_hosts(access: &RouterAccess) -> Vec<String> {
    let names = access
        .subject_alternative_names
        .iter()
        .chain(&access.bind_host);
    let mut hosts: Vec<String> = names.map(ToString::to_string).collect();
    if hosts.is_empty() {
        hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        hosts.extend(host_names());
    }
    hosts.sort();
    hosts.dedup();
    hosts
}
