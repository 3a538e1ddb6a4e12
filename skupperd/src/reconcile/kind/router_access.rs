//! RouterAccess: where the site accepts links of other sites, and the credentials that it presents.

use super::super::{
    desired::DesiredState,
    error::ReconcileError,
    hosts::{ROUTER_GROUP, host_names, open_port},
    observed::{StatusContext, pending},
    runtime::{AppliedAccess, SiteRuntime},
};
use crate::{
    core::{AccessSpec, SiteRequest},
    messages::ServerTls,
    model::{
        AccessDetails, AccessRole, ConditionState, ConditionType, EndpointStatus, Host, Key, Kind,
        Name, Role, RouterAccess, Site, StatusDraft,
    },
    pki::{self, Issuer, Rotation, ServerCredentials},
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::Arc,
};

pub(super) fn key(name: &Name) -> Key {
    Key::new(Kind::RouterAccess, name.clone())
}

pub(in crate::reconcile) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    access: &RouterAccess,
) -> Result<(), ReconcileError> {
    // It may want the port of a listener that is gone.
    runtime.apply_listener_changes().await?;
    let advertised = advertised_hosts(access);
    let hosts = certificate_hosts(runtime, name, access, &advertised)?;
    let server = credentials(runtime, desired, name, access, &hosts)?;
    if let Some(open) = runtime.accesses.get_mut(name)
        && open.bind_host == access.bind_host
        && open.roles == access.roles
    {
        // Other names or credentials, the same sockets: a port that others know stays open.
        open.hosts = hosts;
        open.advertised = advertised;
        return replace(runtime, name, access, server);
    }
    let tls = pki::server_config(&access.tls_credentials, &server.secret)?;
    let tls = ServerTls::new(ArcSwap::new(tls));
    // The old sockets go first: the new ones may want their ports.
    runtime.accesses.remove(name);
    remove_from_core(runtime, name, false).await?;
    let (ports, sockets) = open_ports(runtime, desired, name, access).await?;
    let spec = AccessSpec {
        name: Arc::from(name.as_str()),
        sockets,
        tls: tls.clone(),
    };
    let set = |reply| SiteRequest::SetAccess(spec, reply);
    runtime.ask_site(set).await?;
    tracing::info!(
        namespace = %runtime.namespace.name(),
        access = %name,
        ports = ?ports.iter().map(|r| r.port).collect::<Vec<_>>(),
        "link access opened"
    );
    let open = AppliedAccess {
        bind_host: access.bind_host.clone(),
        roles: access.roles.clone(),
        ports,
        advertised,
        hosts,
        server,
        tls,
    };
    runtime.accesses.insert(name.clone(), open);
    Ok(())
}

pub(in crate::reconcile) async fn remove(
    runtime: &mut SiteRuntime,
    name: &Name,
) -> Result<(), ReconcileError> {
    runtime.accesses.remove(name);
    remove_from_core(runtime, name, true).await
}

async fn remove_from_core(
    runtime: &SiteRuntime,
    name: &Name,
    cut: bool,
) -> Result<(), ReconcileError> {
    let name = name.to_string();
    let remove = |reply| SiteRequest::RemoveAccess { name, cut, reply };
    runtime.ask_site(remove).await.map(drop)
}

/// Opens the ports of all roles. The access of a site's `linkAccess` takes the next free ports where
/// the usual ones are taken, and keeps them for good: remote sites dial them, so that one that is taken
/// meanwhile is an error, and no reason to move on.
async fn open_ports(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    access: &RouterAccess,
) -> Result<(Vec<AccessRole>, Vec<(Role, TcpListener)>), ReconcileError> {
    let is_own =
        desired.site.as_ref().is_some_and(|(site, _)| site == name) && access.bind_host.is_none();
    let (mut ports, mut sockets) = (Vec::new(), Vec::new());
    let host = access.bind_host.as_ref().and_then(Host::ip);
    for AccessRole { role, port } in &access.roles {
        let allowed = runtime.rights.ensure_open(host, *port);
        allowed.map_err(|reason| ReconcileError::field("roles", reason))?;
        let purpose = format!("{name}/{}", role.as_str());
        let remembered = runtime.memory.port(&purpose)?.filter(|_| is_own);
        let first = remembered.unwrap_or(*port);
        let search = is_own && remembered.is_none();
        let (port, bound) = open_port(access.bind_host.as_ref(), first, search).await?;
        ports.push(AccessRole { role: *role, port });
        sockets.extend(bound.into_iter().map(|socket| (*role, socket)));
        if is_own {
            runtime.memory.keep_port(&purpose, port)?;
        }
    }
    Ok((ports, sockets))
}

/// What an access shows and trusts by now: the user's credentials, or ours, issued anew before they
/// expire.
fn credentials(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    access: &RouterAccess,
    hosts: &[String],
) -> Result<ServerCredentials, ReconcileError> {
    let site = desired.site.as_ref().map(|(_, site)| site);
    let issuer = access.issuer.clone();
    let issuer_name = issuer.map_or_else(|| desired.default_issuer(), Ok)?;
    let validity = site.and_then(|s| s.settings.server_certificate_validity);
    let secret = runtime.secrets.get(&issuer_name);
    let rotation = site.map(|s| Rotation::of(&s.settings));
    restore_issuer(runtime, &issuer_name)?;
    let issuer = pki::issuer_for(&runtime.namespace, &issuer_name, secret, rotation.as_ref())?;
    runtime.issuers.insert(issuer_name.clone(), issuer.clone());
    report_clock(runtime, &issuer_name, &issuer);
    let credentials = &access.tls_credentials;
    let requested: Vec<String> = access
        .subject_alternative_names
        .iter()
        .map(ToString::to_string)
        .collect();
    let supplied = (runtime.secrets.get(credentials), validity);
    let server = pki::server_for(
        &runtime.namespace,
        &issuer,
        credentials,
        (name, hosts),
        &requested,
        supplied,
    )?;
    if access.supplied_only && !server.is_supplied {
        return Err(ReconcileError::Missing(format!(
            "spec.generateTlsCredentials is false, and there are no credentials {credentials}"
        )));
    }
    Ok(server)
}

/// Writes the files of a CA again that are gone: another CA would cut the links of all remote sites.
fn restore_issuer(runtime: &SiteRuntime, name: &Name) -> Result<(), ReconcileError> {
    let known = runtime.issuers.get(name);
    if let Some(issuer) = known
        && issuer.restore_if_lost()?
    {
        tracing::error!(
            namespace = %runtime.namespace.name(),
            issuer = %name,
            "files of the CA were missing and are written again; restore the directory from a backup \
             to know again what it has issued"
        );
    }
    Ok(())
}

/// Logs that the clock is behind the CA, which then stays as it is, and that it no longer is.
fn report_clock(runtime: &mut SiteRuntime, name: &Name, issuer: &Issuer) {
    let namespace = runtime.namespace.name();
    if !issuer.is_ahead_of_clock() {
        if runtime.ahead_of_clock.remove(name) {
            tracing::info!(%namespace, issuer = %name, "clock is no longer behind CA");
        }
    } else if runtime.ahead_of_clock.insert(name.clone()) {
        tracing::warn!(
            %namespace,
            issuer = %name,
            "clock is behind CA; keeping the CA: set the clock"
        );
    }
}

/// Replaces what the open accesses show and trust where that has changed. Links that are up stay up.
pub(in crate::reconcile) fn refresh(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
) -> BTreeMap<Key, Result<(), ReconcileError>> {
    let mut refreshed = BTreeMap::new();
    for name in runtime.accesses.keys().cloned().collect::<Vec<_>>() {
        let Some(access) = desired.router_access(&name) else {
            continue;
        };
        let result = refresh_one(runtime, desired, &name, access);
        refreshed.insert(key(&name), result);
    }
    refreshed
}

/// Names and addresses of this host may have changed too.
fn refresh_one(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    access: &RouterAccess,
) -> Result<(), ReconcileError> {
    let advertised = advertised_hosts(access);
    let hosts = certificate_hosts(runtime, name, access, &advertised)?;
    let server = credentials(runtime, desired, name, access, &hosts)?;
    let Some(open) = runtime.accesses.get_mut(name) else {
        return Ok(());
    };
    (open.advertised, open.hosts) = (advertised, hosts);
    if open.server == server {
        return Ok(());
    }
    replace(runtime, name, access, server)
}

/// Replaces what an open access shows and trusts, under its open sockets.
fn replace(
    runtime: &mut SiteRuntime,
    name: &Name,
    access: &RouterAccess,
    server: ServerCredentials,
) -> Result<(), ReconcileError> {
    let tls = pki::server_config(&access.tls_credentials, &server.secret)?;
    tracing::info!(
        namespace = %runtime.namespace.name(),
        access = %name,
        expires = server.identity.as_ref().map(|i| i.expires.to_string()),
        "credentials of link access replaced"
    );
    if let Some(open) = runtime.accesses.get_mut(name) {
        open.tls.store(tls);
        open.server = server;
    }
    Ok(())
}

/// Refuses the certificates that the site revokes, and no others.
pub(super) async fn revoke(runtime: &mut SiteRuntime, site: &Site) -> Result<(), ReconcileError> {
    let revoked = site.settings.revoked_certificates.iter();
    runtime.refused.serials = revoked.map(ToString::to_string).collect();
    refuse(runtime).await
}

/// Ends the links that came in by a CA whose overlap is over.
pub(in crate::reconcile) async fn retire_authorities(
    runtime: &mut SiteRuntime,
) -> Result<(), ReconcileError> {
    let now = Timestamp::now();
    let retired = runtime.accesses.values().flat_map(|a| &a.server.retired);
    let over = retired.filter(|(_, until)| *until <= now);
    let over: BTreeSet<String> = over.map(|(key, _)| key.clone()).collect();
    if over == runtime.refused.authorities {
        return Ok(());
    }
    runtime.refused.authorities = over;
    refuse(runtime).await
}

async fn refuse(runtime: &SiteRuntime) -> Result<(), ReconcileError> {
    let refused = runtime.refused.clone();
    let set = |reply| SiteRequest::SetRevoked(refused, reply);
    runtime.ask_site(set).await.map(drop)
}

/// Names by which remote sites reach an access: those of the resource, or else all of this host.
fn advertised_hosts(access: &RouterAccess) -> Vec<String> {
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

/// Names for the certificate of an access: those that are advertised now, and those that once were,
/// since links that were given out still dial them.
fn certificate_hosts(
    runtime: &mut SiteRuntime,
    name: &Name,
    access: &RouterAccess,
    advertised: &[String],
) -> Result<Vec<String>, ReconcileError> {
    let is_named = !access.subject_alternative_names.is_empty() || access.bind_host.is_some();
    let mut kept: BTreeSet<String> = BTreeSet::new();
    if is_named {
        let dir = runtime.namespace.runtime_certs(&access.tls_credentials);
        kept.extend(advertised.iter().cloned());
        kept.extend(pki::certificate_hosts(&dir)?);
    }
    // Those of the host itself are not kept: no site dials an address that the host no longer has.
    let mut hosts = runtime.memory.keep_names(name, kept)?;
    hosts.extend(advertised.iter().cloned());
    Ok(hosts.into_iter().collect())
}

pub(in crate::reconcile) fn status(ctx: &StatusContext<'_>, name: &Name) -> StatusDraft {
    let configured = ctx.configured(&key(name));
    draft(name, ctx.runtime.accesses.get(name), configured)
}

/// Statuses of the accesses that have no document, open or failed: those that a site's `linkAccess` asks
/// for.
pub(in crate::reconcile) fn site_accesses<'a>(
    ctx: &'a StatusContext<'a>,
) -> impl Iterator<Item = (Key, Value, StatusDraft)> + 'a {
    let accesses = &ctx.runtime.accesses;
    let is_closed =
        |key: &&Key| key.kind == Kind::RouterAccess && !accesses.contains_key(&key.name);
    let failed = ctx.failures.keys().filter(is_closed);
    let failed = failed.map(|key| {
        let draft = draft(&key.name, None, ctx.configured(key));
        (key.clone(), json!({}), draft)
    });
    let open = accesses.iter().map(|(name, access)| {
        let role = |r: &AccessRole| json!({"name": r.role.as_str(), "port": r.port});
        let spec = json!({
            "roles": access.ports.iter().map(role).collect::<Vec<_>>(),
            "tlsCredentials": name,
            "subjectAlternativeNames": access.hosts,
        });
        (
            key(name),
            spec,
            draft(name, Some(access), ConditionState::True),
        )
    });
    open.chain(failed)
}

fn draft(name: &Name, open: Option<&AppliedAccess>, configured: ConditionState) -> StatusDraft {
    let identity = open.and_then(|access| access.server.identity.as_ref());
    StatusDraft::new(Kind::RouterAccess, false)
        .with(ConditionType::Configured, configured)
        .with(ConditionType::Resolved, pending(open.is_some()))
        .details(AccessDetails {
            endpoints: open
                .map(|access| endpoints(name, access))
                .unwrap_or_default(),
            certificate_expiration_time: identity
                .map(|i| i.expires.to_string())
                .unwrap_or_default(),
        })
}

pub(super) fn endpoints(name: &Name, access: &AppliedAccess) -> Vec<EndpointStatus> {
    let is_loopback = |h: &&String| matches!(h.as_str(), "localhost" | "127.0.0.1" | "::1");
    let host = access.advertised.iter().find(|h| !is_loopback(h));
    let host = host.or(access.advertised.first());
    let endpoint = |role: &AccessRole| EndpointStatus {
        name: format!("{name}-{}", role.role),
        host: host.cloned().unwrap_or_default(),
        port: role.port.to_string(),
        group: ROUTER_GROUP.to_owned(),
    };
    access.ports.iter().map(endpoint).collect()
}
