//! What the daemon does about each kind, a file for each. A new kind is a file here and a line in each
//! match below.

mod access_grant;
pub(super) mod access_token;
pub(super) mod attached_connector;
mod certificate;
mod connector;
mod link;
pub(super) mod listener;
mod multi_key_listener;
pub(super) mod router_access;
pub(super) mod site;

use super::{
    attachments::Attachments,
    desired::{DesiredResource, DesiredState},
    error::ReconcileError,
    observed::StatusContext,
    runtime::SiteRuntime,
};
use crate::{
    access::GrantSockets,
    manifest::{LocatedResource, settings},
    model::{ConditionType, Key, Kind, SettingTexts, SiteSettings, Spec, StatusDraft},
    store::NamespaceDir,
};
use access_grant::Grants;
use access_token::Tokens;
use certificate::Certificates;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;

/// State that the resources of a namespace request.
pub(super) fn desired(
    resources: &[LocatedResource],
    runtime: &SiteRuntime,
    attachments: &Attachments,
) -> DesiredState {
    let mut desired = DesiredState::default();
    for located in resources {
        let name = located.resource.name();
        let item = match &located.resource.spec {
            Spec::Site(site) => {
                desired.site = Some((name.clone(), site.clone()));
                continue;
            }
            Spec::Listener(listener) => DesiredResource::Listener(listener.clone()),
            Spec::MultiKeyListener(listener) => DesiredResource::MultiKeyListener(listener.clone()),
            Spec::Connector(connector) => DesiredResource::Connector(connector.clone()),
            Spec::AttachedConnectorBinding(_) => {
                match attachments.connector(runtime.namespace.name(), name) {
                    Some(connector) => DesiredResource::AttachedConnectorBinding(connector),
                    None => continue,
                }
            }
            Spec::Link(link) => link::desired(runtime, &located.resource.meta, link),
            Spec::RouterAccess(access) => DesiredResource::RouterAccess(access.clone()),
            // They need no running site, see `NamespaceCredentials`.
            Spec::AccessGrant(_)
            | Spec::AccessToken(_)
            | Spec::Secret(_)
            | Spec::Certificate(_)
            | Spec::AttachedConnector(_)
            | Spec::Unserved(_) => continue,
        };
        desired.insert(name.clone(), item);
    }
    if let Some((name, site)) = &desired.site
        && site.link_access.is_enabled()
    {
        let name = site::access_name(name);
        if desired.router_access(&name).is_none() {
            let access = site::desired_access(site, &name);
            desired.insert(name, access);
        }
    }
    desired
}

/// Adds a resource to what runs, or changes it.
pub(super) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    key: &Key,
) -> Result<(), ReconcileError> {
    let name = &key.name;
    let Some(item) = desired.resources.get(key) else {
        return Ok(());
    };
    match item {
        DesiredResource::Listener(l) => listener::set(runtime, desired, name, l).await,
        DesiredResource::MultiKeyListener(l) => {
            multi_key_listener::set(runtime, desired, name, l).await
        }
        DesiredResource::Connector(c) => connector::set(runtime, desired, name, c).await,
        DesiredResource::AttachedConnectorBinding(c) => {
            attached_connector::set(runtime, desired, name, c).await
        }
        DesiredResource::Link(l, secrets) => link::set(runtime, desired, name, l, secrets).await,
        DesiredResource::RouterAccess(a) => router_access::set(runtime, desired, name, a).await,
    }
}

/// Removes a resource from what runs.
pub(super) async fn remove(runtime: &mut SiteRuntime, key: &Key) -> Result<(), ReconcileError> {
    let name = &key.name;
    match key.kind {
        Kind::Listener => listener::remove(runtime, name),
        Kind::MultiKeyListener => multi_key_listener::remove(runtime, name),
        Kind::Connector => return connector::remove(runtime, name).await,
        Kind::AttachedConnectorBinding => return attached_connector::remove(runtime, name).await,
        Kind::Link => return link::remove(runtime, name).await,
        Kind::RouterAccess => return router_access::remove(runtime, name).await,
        // They are not part of a plan.
        Kind::Site
        | Kind::AccessGrant
        | Kind::AccessToken
        | Kind::Secret
        | Kind::SecuredAccess
        | Kind::Certificate
        | Kind::AttachedConnector => {}
    }
    Ok(())
}

pub(super) fn status(
    ctx: &StatusContext<'_>,
    issued: &NamespaceCredentials,
    located: &LocatedResource,
) -> StatusDraft {
    let key = located.key();
    let name = &key.name;
    match &located.resource.spec {
        Spec::Site(site) => site::status(ctx, name, site),
        Spec::Link(link) => link::status(ctx, name, link),
        Spec::Listener(_) => listener::status(ctx, name),
        Spec::MultiKeyListener(listener) => multi_key_listener::status(ctx, name, listener),
        Spec::Connector(connector) => connector::status(ctx, name, connector),
        Spec::RouterAccess(_) => router_access::status(ctx, name),
        Spec::AccessGrant(_) => issued.grants.status(ctx, name),
        Spec::AccessToken(_) => issued.tokens.status(ctx, name),
        Spec::Certificate(_) => issued.certificates.status(name),
        Spec::Secret(_) => {
            StatusDraft::new(key.kind, false).with(ConditionType::Configured, ctx.configured(&key))
        }
        Spec::AttachedConnector(offer) => attached_connector::status(ctx, name, offer),
        Spec::AttachedConnectorBinding(binding) => {
            attached_connector::binding_status(ctx, name, binding)
        }
        Spec::Unserved(_) => StatusDraft::unserved(key.kind),
    }
}

/// Credentials, grants and tokens: what a namespace issues and redeems, which is not part of a plan
/// because it does not run in the core.
pub(super) struct NamespaceCredentials {
    certificates: Certificates,
    grants: Grants,
    tokens: Tokens,
}

impl NamespaceCredentials {
    /// `redeemed` wakes the loop when a token was redeemed.
    pub(super) fn new(
        namespace: &NamespaceDir,
        redeemed: &Arc<Notify>,
        grant_sockets: GrantSockets,
    ) -> Self {
        Self {
            certificates: Certificates::new(namespace.clone()),
            grants: Grants::new(namespace.clone(), redeemed.clone(), grant_sockets),
            tokens: Tokens::new(namespace.clone(), redeemed.clone()),
        }
    }

    pub(super) fn has_failures(&self) -> bool {
        self.certificates.has_failures() || self.grants.has_failures() || self.tokens.has_failures()
    }

    /// When a certificate is due for renewal.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        self.certificates.renewal()
    }

    /// Issues certificates, and adds them to the credentials that other resources may name. Secrets of
    /// the user go before them.
    pub(super) fn sync_certificates(
        &mut self,
        resources: &[LocatedResource],
        runtime: &mut SiteRuntime,
    ) {
        let (mut certificates, mut settings) = (BTreeMap::new(), None);
        for located in resources {
            match &located.resource.spec {
                Spec::Certificate(certificate) => {
                    certificates.insert(located.resource.name().clone(), certificate);
                }
                Spec::Site(site) => settings = Some(&*site.settings),
                _ => {}
            }
        }
        let defaults = SiteSettings::default();
        let settings = settings.unwrap_or(&defaults);
        let secrets = &runtime.secrets;
        let issued = self.certificates.sync(&certificates, settings, secrets);
        for (name, secret) in issued {
            runtime.secrets.entry(name).or_insert(secret);
        }
    }

    /// Serves grants and redeems tokens.
    pub(super) async fn sync_access(
        &mut self,
        resources: &[LocatedResource],
        desired: &DesiredState,
        runtime: &mut SiteRuntime,
    ) {
        let (mut grants, mut tokens) = (BTreeMap::new(), BTreeMap::new());
        for located in resources {
            let name = located.resource.name().clone();
            match &located.resource.spec {
                Spec::AccessGrant(grant) => drop(grants.insert(name, grant.clone())),
                Spec::AccessToken(token) => drop(tokens.insert(name, token.clone())),
                _ => {}
            }
        }
        self.grants.sync(grants, desired, runtime).await;
        let site = desired.site.as_ref().map(|(name, _)| name);
        self.tokens.sync(&tokens, resources, site);
    }
}

/// Fields of no effect here that mean something on other platforms.
const IDLE_FIELDS: [(&str, &str); 3] = [
    (
        "serviceAccount",
        "on a host: the daemon's user is that of its unit",
    ),
    (
        "accessType",
        "on a host: links are accepted at its own addresses",
    ),
    ("exposePodsByName", "on a host without pods"),
];

/// Fields of a resource that have no effect on a host. They are stored, and noted in the status.
pub(super) fn notes(located: &LocatedResource) -> Vec<String> {
    let spec = &located.resource.spec;
    let (mut notes, tls) = match spec {
        Spec::Site(site) => (site::notes(site), false),
        Spec::Listener(l) => (Vec::new(), l.tls_credentials.is_some()),
        Spec::MultiKeyListener(l) => (multi_key_listener::notes(l), l.tls_credentials.is_some()),
        Spec::Connector(c) => (connector::notes(c), c.tls_credentials.is_some()),
        _ => (Vec::new(), false),
    };
    // Resources keep such a field in their document only.
    let has_value = |field: &str| {
        let value = located.document["spec"].get(field);
        value.is_some_and(|value| *value != false)
    };
    for field in ["cost", "linkCost"] {
        let cost = located.document["spec"].get(field);
        let cost = cost.and_then(serde_json::Value::as_i64);
        if let Some(cost) = cost.filter(|cost| *cost < 1) {
            notes.push(format!(
                "spec.{field} {cost} is below the minimum and counts as 1"
            ));
        }
    }
    for (field, reason) in IDLE_FIELDS {
        if has_value(field) {
            notes.push(format!("spec.{field} has no effect {reason}"));
        }
    }
    if let Some(texts) = setting_texts(spec) {
        notes.extend(settings::notes(located.resource.kind(), texts, tls));
    }
    notes
}

fn setting_texts(spec: &Spec) -> Option<&SettingTexts> {
    Some(match spec {
        Spec::Site(s) => s.settings.texts(),
        Spec::Link(s) => s.settings.texts(),
        Spec::Listener(s) => s.settings.texts(),
        Spec::MultiKeyListener(s) => s.settings.texts(),
        Spec::Connector(s) => s.settings.texts(),
        Spec::RouterAccess(s) => &s.settings,
        Spec::AccessGrant(s) => &s.settings,
        Spec::AccessToken(s) => &s.settings,
        Spec::Certificate(s) => &s.settings,
        Spec::AttachedConnector(s) => s.settings.texts(),
        Spec::AttachedConnectorBinding(s) => s.settings.texts(),
        Spec::Secret(_) | Spec::Unserved(_) => return None,
    })
}

#[cfg(test)]
mod tests;
