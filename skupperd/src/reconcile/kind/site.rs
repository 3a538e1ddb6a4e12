//! Site: the router of the namespace, and settings for all of it.

use super::super::{
    desired::{DesiredResource, DesiredState},
    error::ReconcileError,
    observed::{StatusContext, advert, incoming, network, pending},
    runtime::SiteRuntime,
};
use super::router_access;
use crate::{
    core::{CoreEnded, CoreRequest, SiteRequest, SiteSpec},
    flows::SiteName,
    model::{
        AccessRole, ConditionState, ConditionType, Key, Kind, LinkAccess, Name, Role, RouterAccess,
        Site, SiteDetails, SiteId, StatusDraft,
    },
    pki,
    steer::SocketBindings,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

/// In the status of a site that asks for two routers.
const NO_HA: &str = "spec.ha has no effect: a site of a Linux host is one daemon, which its service manager \
                     restarts; a second host with a site of the same routing keys takes over from it";

/// Name of the RouterAccess that a site's `linkAccess` creates.
pub(in crate::reconcile) fn access_name(site: &Name) -> Name {
    site.clone()
}

/// The access that `linkAccess` asks for.
pub(in crate::reconcile) fn desired_access(site: &Site, name: &Name) -> DesiredResource {
    let roles = [Role::InterRouter, Role::Edge].map(|role| AccessRole {
        role,
        port: role.default_port(),
    });
    DesiredResource::RouterAccess(RouterAccess {
        roles: roles.to_vec(),
        tls_credentials: name.clone(),
        supplied_only: false,
        issuer: site.default_issuer.clone(),
        bind_host: None,
        subject_alternative_names: site.settings.link_access_hosts.clone(),
        settings: BTreeMap::new(),
    })
}

/// Starts the site as a whole or not at all: after an error the next attempt is a new site.
pub(in crate::reconcile) async fn start(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
) -> Result<(), ReconcileError> {
    let Some((name, site)) = &desired.site else {
        return Ok(());
    };
    let uid = site.uid.as_ref().map(SiteId::as_str);
    runtime.site_id = runtime.memory.site_id(uid)?;
    let prefix = site.settings.service_addresses;
    runtime.service_addresses.set(prefix, &runtime.rights)?;
    let spec = spec(runtime, name, site);
    let add = |reply| CoreRequest::AddSite(Box::new(spec), reply);
    let added = runtime.core.ask(add).await;
    runtime.site = Some(added.map_err(|CoreEnded| ReconcileError::Stopping)?);
    let applied = apply_settings(runtime, site).await;
    if applied.is_err() {
        stop(runtime).await?;
    }
    applied
}

/// Applies changed settings to the running site.
pub(in crate::reconcile) async fn update(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
) -> Result<(), ReconcileError> {
    let Some((_, site)) = &desired.site else {
        return Ok(());
    };
    apply_settings(runtime, site).await?;
    let prefix = site.settings.service_addresses;
    runtime.service_addresses.set(prefix, &runtime.rights)
}

/// Stops the site with everything on it.
pub(in crate::reconcile) async fn stop(runtime: &mut SiteRuntime) -> Result<(), ReconcileError> {
    runtime.clear();
    if let Some(id) = runtime.site.take() {
        let remove = |reply| CoreRequest::RemoveSite(id, reply);
        let removed = runtime.core.ask(remove).await;
        removed.map_err(|CoreEnded| ReconcileError::Stopping)?;
    }
    runtime.service_addresses.clear()
}

fn spec(runtime: &SiteRuntime, name: &Name, site: &Site) -> SiteSpec {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let router_id = format!("{name}-{}-{}", now.as_secs(), now.subsec_nanos());
    // An edge site is announced by the router it is linked to: its advert names its own router.
    let edge = site.edge.then_some(router_id.as_str());
    let namespace = runtime.namespace.name();
    SiteSpec {
        advert: advert(&runtime.site_id, name, namespace, edge),
        edge: site.edge,
        host: crate::sys::host_name().unwrap_or_default(),
        namespace: namespace.to_string(),
        site: Arc::new(SiteName {
            namespace: namespace.to_string(),
            id: runtime.site_id.clone(),
            name: name.to_string(),
        }),
        router_id,
        instance: i64::try_from(now.as_secs()).unwrap_or(0),
        trunk: site
            .settings
            .data_connections
            .map_or(runtime.workers, usize::from),
    }
}

async fn apply_settings(runtime: &mut SiteRuntime, site: &Site) -> Result<(), ReconcileError> {
    router_access::revoke(runtime, site).await?;
    apply_kernel_settings(runtime, site).await?;
    open_local_amqp(runtime, site).await
}

/// Accepts AMQP clients of this host at the site's port only.
async fn open_local_amqp(runtime: &mut SiteRuntime, site: &Site) -> Result<(), ReconcileError> {
    let port = site.settings.local_amqp_port;
    if port == runtime.local_amqp_port {
        return Ok(());
    }
    let socket = match port {
        None => None,
        Some(port) => {
            let allowed = runtime.rights.ensure_open(None, port);
            allowed.map_err(|reason| ReconcileError::setting("local-amqp-port", reason))?;
            let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            let sockets = SocketBindings.open(addr, 1);
            let sockets = sockets.map_err(|e| ReconcileError::setting("local-amqp-port", e))?;
            sockets.into_iter().next()
        }
    };
    let set = |reply| SiteRequest::SetLocalAmqp(socket, reply);
    runtime.ask_site(set).await?;
    runtime.local_amqp_port = port;
    Ok(())
}

/// Has listeners steered or not, and connections accelerated or not.
async fn apply_kernel_settings(
    runtime: &mut SiteRuntime,
    site: &Site,
) -> Result<(), ReconcileError> {
    let (steering, acceleration) = (site.settings.steering, site.settings.acceleration);
    let set = |reply| SiteRequest::SetKernelFeatures {
        steering,
        acceleration,
        reply,
    };
    runtime.ask_site(set).await?;
    let steers = runtime.core.ask(CoreRequest::IsSteering).await;
    let steers = steering && steers.unwrap_or(false);
    runtime.netns_listeners.set_steered(steers);
    Ok(())
}

pub(in crate::reconcile) fn status(
    ctx: &StatusContext<'_>,
    name: &Name,
    site: &Site,
) -> StatusDraft {
    let configured = match ctx.configured(&Key::new(Kind::Site, name.clone())) {
        ConditionState::True if site.ha => ConditionState::Noted(NO_HA.to_owned()),
        ConditionState::True if !site.settings.log_rules.is_empty() => {
            match ctx.runtime.rights.ensure() {
                Ok(()) => ConditionState::True,
                Err(reason) => {
                    let text = format!("spec.settings[router-logging] has no effect: {reason}");
                    ConditionState::Noted(text)
                }
            }
        }
        state => state,
    };
    let link_access = site.link_access.is_enabled();
    let running = pending(ctx.is_running());
    let mut draft = StatusDraft::new(Kind::Site, link_access)
        .with(ConditionType::Configured, configured)
        .with(ConditionType::Running, running);
    if link_access {
        let key = router_access::key(&access_name(name));
        let state = match ctx.failures.get(&key) {
            Some(error) => ConditionState::Error(error.text()),
            None => pending(ctx.runtime.accesses.contains_key(&key.name)),
        };
        draft = draft.with(ConditionType::Resolved, state);
    }
    let issuer = site.default_issuer.as_deref().unwrap_or(pki::SITE_CA);
    let accesses = ctx.runtime.accesses.iter();
    let network = network(ctx.observed);
    let links = ctx.observed.incoming.iter();
    draft.details(SiteDetails {
        default_issuer: issuer.to_owned(),
        endpoints: accesses
            .flat_map(|(name, access)| router_access::endpoints(name, access))
            .collect(),
        sites_in_network: network.len(),
        network,
        incoming_links: links
            .map(|link| incoming(link, ctx.observed, ctx.runtime))
            .collect(),
    })
}

pub(in crate::reconcile) fn notes(site: &Site) -> Vec<String> {
    let mut notes = Vec::new();
    if let LinkAccess::Enabled(how) = &site.link_access
        && how != "default"
    {
        notes.push(format!(
            "spec.linkAccess {how:?} is for other platforms and means \"default\" here"
        ));
    }
    notes
}
