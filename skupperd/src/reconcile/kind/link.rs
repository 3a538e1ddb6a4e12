//! Link: a connection to another site that this one dials.

use super::super::{
    desired::{DesiredResource, DesiredState, LinkSecrets},
    error::ReconcileError,
    observed::{RemoteSite, StatusContext},
    runtime::SiteRuntime,
};
use crate::{
    core::{LinkState, SiteRequest},
    model::{
        ConditionState, ConditionType, Endpoint, HttpProxy, Key, Kind, Link, LinkDetails, Meta,
        Name, Role, Secret, Spec, StatusDraft,
    },
    peering::{DialTarget, LinkSpec},
    pki,
};
use std::fmt::Display;

/// The link with the secrets that it names.
pub(in crate::reconcile) fn desired(
    runtime: &SiteRuntime,
    meta: &Meta,
    link: &Link,
) -> DesiredResource {
    let proxy = link.settings.proxy_configuration.as_ref();
    let secrets = LinkSecrets {
        credentials: credentials(runtime, meta, &link.tls_credentials),
        proxy: proxy.and_then(|name| runtime.secrets.get(name).cloned()),
    };
    DesiredResource::Link(link.clone(), Box::new(secrets))
}

fn credentials(
    runtime: &SiteRuntime,
    meta: &Meta,
    name: &Name,
) -> Result<Option<Secret>, ReconcileError> {
    // The user's own files go before Secrets.
    if let Some(supplied) = pki::supplied_certificate(&runtime.namespace, name)? {
        return Ok(Some(supplied));
    }
    match runtime.redeemed.get(name) {
        Some(redeemed) if meta.redeemed_token() == Some(&redeemed.token) => {
            Ok(Some(redeemed.secret.clone()))
        }
        Some(_) => Err(ReconcileError::Missing(format!(
            "secret {name:?} came with an access token and is for the link of that token only"
        ))),
        None => Ok(runtime.secrets.get(name).cloned()),
    }
}

pub(in crate::reconcile) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    link: &Link,
    secrets: &LinkSecrets,
) -> Result<(), ReconcileError> {
    match spec(desired, name, link, secrets) {
        Ok(spec) => {
            let set = |reply| SiteRequest::SetLink(Box::new(spec), reply);
            runtime.ask_site(set).await.map(drop)
        }
        Err(error) => {
            remove(runtime, name).await?;
            Err(error)
        }
    }
}

pub(in crate::reconcile) async fn remove(
    runtime: &mut SiteRuntime,
    name: &Name,
) -> Result<(), ReconcileError> {
    let name = name.to_string();
    let remove = |reply| SiteRequest::RemoveLink(name, reply);
    runtime.ask_site(remove).await.map(drop)
}

fn spec(
    desired: &DesiredState,
    name: &Name,
    link: &Link,
    secrets: &LinkSecrets,
) -> Result<LinkSpec, ReconcileError> {
    let name_of = &link.tls_credentials;
    let secret = secrets.credentials.as_ref().map_err(Clone::clone)?;
    let missing = || ReconcileError::Missing(format!("secret {name_of:?} not found"));
    let secret = secret.as_ref().ok_or_else(missing)?;
    let role = if desired.is_edge() {
        Role::Edge
    } else {
        Role::InterRouter
    };
    let target = |endpoint: &Endpoint| DialTarget {
        host: endpoint.host.to_string(),
        port: endpoint.port,
    };
    let usable = link.endpoints.iter().filter(|e| e.role == role);
    let targets: Vec<DialTarget> = usable.map(target).collect();
    if targets.is_empty() {
        let text = format!("no endpoint for the role of this site, {}", role.as_str());
        return Err(ReconcileError::field("endpoints", text));
    }
    Ok(LinkSpec {
        name: name.to_string(),
        targets,
        cost: link.cost,
        credentials: secret.clone(),
        proxy: proxy(link, secrets.proxy.as_ref())?,
        tls: pki::client_config(name_of, secret)?,
    })
}

/// The HTTP proxy to dial through.
fn proxy(link: &Link, secret: Option<&Secret>) -> Result<Option<HttpProxy>, ReconcileError> {
    let Some(name) = &link.settings.proxy_configuration else {
        return Ok(None);
    };
    let invalid = |reason: &str| {
        let text = format!("secret {name:?} {reason}");
        ReconcileError::setting("proxy-configuration", text)
    };
    let secret = secret.ok_or_else(|| invalid("not found"))?;
    let proxy = secret.proxy.clone();
    proxy
        .map(Some)
        .ok_or_else(|| invalid("has no host and port"))
}

pub(in crate::reconcile) fn status(
    ctx: &StatusContext<'_>,
    name: &Name,
    link: &Link,
) -> StatusDraft {
    let state = ctx.observed.links.get(name.as_str());
    let remote = state.and_then(|s| s.remote.as_deref());
    let site = remote.and_then(|id| RemoteSite::find(id, ctx.observed));
    let missing = match state.and_then(|s| s.failure.as_ref()) {
        Some(reason) => format!("Not operational: {reason}"),
        None => "Not operational".to_owned(),
    };
    let key = Key::new(Kind::Link, name.clone());
    let operational = match state {
        Some(LinkState {
            is_own: true,
            failure: Some(reason),
            ..
        }) => ConditionState::Error(reason.clone()),
        _ => ctx.pending_until(remote.is_some(), &missing),
    };
    StatusDraft::new(key.kind, false)
        .with(ConditionType::Configured, ctx.configured(&key))
        .with(ConditionType::Operational, operational)
        .details(LinkDetails {
            remote_site_id: site.as_ref().map(|s| s.id.clone()).unwrap_or_default(),
            remote_site_name: site.map(|s| s.name).unwrap_or_default(),
            certificate_expiration_time: expiry(ctx, &link.tls_credentials),
            endpoint: text(state.and_then(|s| s.endpoint)),
            up_since: text(state.and_then(|s| s.since)),
            key_exchange: text(state.and_then(|s| s.key_exchange)),
            last_failure: state.and_then(last_failure).unwrap_or_default(),
        })
}

fn last_failure(state: &LinkState) -> Option<String> {
    state.last_failure.clone()
}

fn text(value: Option<impl Display>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// End of the validity of the certificate in a Secret; empty when there is none.
fn expiry(ctx: &StatusContext<'_>, credentials: &Name) -> String {
    let secret = ctx.resources.iter().find_map(|l| match &l.resource.spec {
        Spec::Secret(secret) if l.resource.name() == credentials => Some(secret),
        _ => None,
    });
    let identity = secret.and_then(|s| pki::identify_pem(&s.certificate));
    text(identity.map(|i| i.expires))
}
