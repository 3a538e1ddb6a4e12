//! One namespace: its resources, what was applied of them, and what failed.
//!
//! A [`NamespaceState`] owns the loader of the manifests, the applied state, what runs for the namespace
//! ([`SiteRuntime`]), the credentials that it issues, and the failures. Only the reconcile loop calls it:
//! for a sync on a thread for blocking work, for everything else on the main thread.
//!
//! A sync has three parts. [`NamespaceState::load`] reads the resources. [`NamespaceState::attach`] adds
//! the offers and bindings that cross namespaces. [`NamespaceState::sync`] carries out the plan and
//! issues and redeems what is not part of it.
//!
//! A resource is applied, failed or stale. A failed step is kept with its error until it succeeds or the
//! resource is gone; the next sync tries it again. A resource whose document became invalid is stale: its
//! last valid version stays. When users who can write to the namespace come or go, its rights change, and
//! everything is set again.
//!
//! It never decides the order of the steps (`plan`), and writes no status files (`run`).

use super::{
    attachments::{Attachments, BindingStatus},
    desired::{AppliedState, DesiredState},
    error::ReconcileError,
    kind::{self, NamespaceCredentials, attached_connector, listener, router_access, site},
    plan::{Action, plan},
    rights::Rights,
    runtime::{RedeemedSecret, SiteRuntime},
};
use crate::{
    access::GrantSockets,
    core::CoreHandle,
    manifest::{LocatedResource, ManifestError},
    model::{Key, Kind, Name, Secret, ServicePrefix, Site, Spec},
    netlink::local_routes::LocalRoutes,
    store::{BatchResult, ForeignPath, Loader, NamespaceDir, StatusDir, StoreError},
    telemetry::{self, Failures, LogLevels},
};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use tokio::sync::Notify;

pub(super) struct NamespaceState {
    pub(super) namespace: NamespaceDir,
    loader: Loader,
    pub(super) statuses: StatusDir,
    /// Whether the last statuses are not on disk.
    pub(super) statuses_failed: bool,
    /// Failures to write them.
    status_failures: Failures,
    /// Failures to read the resources.
    load_failures: Failures,
    pub(super) resources: Vec<LocatedResource>,
    pub(super) errors: Vec<ManifestError>,
    /// Documents that are invalid now, whose last valid version stays.
    pub(super) stale: BTreeMap<Key, ManifestError>,
    /// Set when others than root and the daemon run the namespace.
    foreign: Option<ForeignPath>,
    applied: AppliedState,
    /// What could not be applied.
    pub(super) failures: BTreeMap<Key, ReconcileError>,
    pub(super) runtime: SiteRuntime,
    pub(super) issued: NamespaceCredentials,
    /// Of all namespaces of this host.
    pub(super) attachments: Arc<Attachments>,
}

impl NamespaceState {
    pub(super) fn new(
        namespace: NamespaceDir,
        core: CoreHandle,
        workers: usize,
        redeemed: &Arc<Notify>,
        routes: Arc<LocalRoutes>,
        grant_sockets: GrantSockets,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            statuses: StatusDir::open(&namespace)?,
            statuses_failed: false,
            status_failures: Failures::new(),
            load_failures: Failures::new(),
            runtime: SiteRuntime::new(core, namespace.clone(), workers, routes),
            issued: NamespaceCredentials::new(&namespace, redeemed, grant_sockets),
            loader: Loader::new(namespace.clone()),
            namespace,
            resources: Vec::new(),
            errors: Vec::new(),
            stale: BTreeMap::new(),
            foreign: None,
            applied: AppliedState::default(),
            failures: BTreeMap::new(),
            attachments: Arc::default(),
        })
    }

    /// Whether the next sync has something to try again.
    pub(super) fn has_failures(&self) -> bool {
        !self.failures.is_empty() || self.issued.has_failures()
    }

    /// When a certificate is due for renewal.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        let due = [self.runtime.renewal(), self.issued.renewal()];
        due.into_iter().flatten().min()
    }

    /// What the site's settings ask to be logged.
    pub(super) fn logging(&self) -> LogLevels {
        // The log is that of all namespaces.
        if self.runtime.rights.ensure().is_err() {
            return LogLevels::new();
        }
        let site = self.resources.iter().find_map(|l| match &l.resource.spec {
            Spec::Site(site) => Some(site),
            _ => None,
        });
        site.map(|site| telemetry::levels_of(&site.settings.log_rules))
            .unwrap_or_default()
    }

    pub(super) fn has_netns_listeners(&self) -> bool {
        self.runtime.netns_listeners.any()
    }

    /// Forgets listeners whose network namespaces are gone, so that the next sync sets them again.
    /// Returns whether there were any.
    pub(super) fn forget_lost_netns_listeners(&mut self) -> bool {
        let lost = listener::take_lost(&mut self.runtime);
        lost.iter().for_each(|key| self.applied.forget(key));
        !lost.is_empty()
    }

    /// Whether a file may still be being written.
    pub(super) fn awaits_writers(&self) -> bool {
        self.loader.awaits_writers()
    }

    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        let loaded = self.loader.load()?;
        for error in loaded.errors.iter().filter(|e| !self.errors.contains(e)) {
            error.log(self.namespace.name());
        }
        self.resources = loaded.resources;
        self.errors = loaded.errors;
        self.stale = loaded.stale;
        self.foreign = loaded.foreign;
        Ok(())
    }

    pub(super) fn log_unread(&self, error: &StoreError) {
        if let Some(suppressed) = self.load_failures.count_and_report(Instant::now()) {
            let (namespace, error) = (self.namespace.name(), telemetry::chain(error));
            tracing::error!(%namespace, error, suppressed, "cannot read resources");
        }
    }

    /// Adds this namespace's offers, bindings and service addresses.
    pub(super) fn attach(&self, attachments: &mut Attachments) {
        let site = self.resources.iter().find_map(|l| match &l.resource.spec {
            Spec::Site(site) => Some(site),
            _ => None,
        });
        let prefix = site.and_then(|site| site.settings.service_addresses);
        if let Some(prefix) = prefix.filter(|_| self.foreign.is_none()) {
            attachments.take_prefix(self.namespace.name(), prefix);
        }
        attached_connector::attach(self.namespace.name(), &self.resources, attachments);
    }

    /// State of this site's bindings, for the namespaces of the offers.
    pub(super) fn binding_statuses(&self) -> impl Iterator<Item = (Name, BindingStatus)> {
        attached_connector::binding_states(&self.resources, &self.runtime, &self.failures)
    }

    pub(super) async fn sync(&mut self, attachments: Arc<Attachments>) {
        self.attachments = attachments;
        self.set_rights();
        self.runtime.secrets = user_secrets(&self.resources);
        self.runtime.redeemed = redeemed_secrets(&self.resources);
        self.issued
            .sync_certificates(&self.resources, &mut self.runtime);
        let desired = kind::desired(&self.resources, &self.runtime, &self.attachments);
        if service_addresses(desired.site.as_ref()) != service_addresses(self.applied.site.as_ref())
        {
            self.forget_named_listeners(&desired);
        }
        for action in plan(&desired, &self.applied) {
            self.step(&desired, action).await;
        }
        if let Err(error) = self.runtime.apply_listener_changes().await {
            self.log_stopping(&error);
        }
        self.runtime.publish_service_names(&desired);
        self.failures.retain(|key, _| match key.kind {
            Kind::Site => desired.site.is_some(),
            _ => desired.resources.contains_key(key),
        });
        self.refresh_credentials(&desired).await;
        let (resources, runtime) = (&self.resources, &mut self.runtime);
        self.issued.sync_access(resources, &desired, runtime).await;
    }

    /// Who can write to the namespace decides what its resources may use. Where that changes,
    /// everything is set again.
    fn set_rights(&mut self) {
        let taken = self.attachments.prefixes_of_others(self.namespace.name());
        let rights = Rights::new(self.foreign.clone(), taken);
        if rights == self.runtime.rights {
            return;
        }
        if let Err(reason) = rights.ensure() {
            let namespace = self.namespace.name();
            tracing::info!(%namespace, reason, "namespace is writable by others; withholding privileges of the daemon");
        }
        self.applied.outdate();
        self.runtime.netns_listeners.set_rights(rights.clone());
        self.runtime.rights = rights;
    }

    /// Carries out one step. A failed step leaves the old state undefined: it is forgotten, so that the
    /// next sync retries.
    async fn step(&mut self, desired: &DesiredState, action: Action) {
        let runtime = &mut self.runtime;
        let result = match &action {
            Action::StartSite => site::start(runtime, desired).await,
            Action::UpdateSite => site::update(runtime, desired).await,
            Action::StopSite => site::stop(runtime).await,
            Action::Set(key) => kind::set(runtime, desired, key).await,
            Action::Remove(key) => kind::remove(runtime, key).await,
        };
        match (action, result) {
            (Action::StopSite, result) => {
                self.applied = AppliedState::default();
                if let Err(error) = result {
                    self.log_stop(&error);
                }
            }
            (Action::StartSite | Action::UpdateSite, result) => {
                let Some((name, _)) = &desired.site else {
                    return;
                };
                let key = Key::new(Kind::Site, name.clone());
                match result {
                    Ok(()) => {
                        self.failures.remove(&key);
                        self.applied.site.clone_from(&desired.site);
                        self.applied.site_outdated = false;
                    }
                    Err(error) => self.fail(key, error),
                }
            }
            (Action::Set(key) | Action::Remove(key), Ok(())) => {
                self.failures.remove(&key);
                self.applied.record(&key, desired);
            }
            (Action::Set(key) | Action::Remove(key), Err(error)) => {
                self.applied.forget(&key);
                self.fail(key, error);
            }
        }
    }

    /// Listeners whose host is a name get another address when the service addresses change.
    fn forget_named_listeners(&mut self, desired: &DesiredState) {
        let resources = &mut self.applied.resources;
        resources.retain(|key, item| {
            !listener::has_named_host(item) || !desired.resources.contains_key(key)
        });
    }

    /// Replaces credentials that were renewed or changed on disk. What cannot be replaced stays in use
    /// and is reported.
    async fn refresh_credentials(&mut self, desired: &DesiredState) {
        let mut refreshed = router_access::refresh(&mut self.runtime, desired);
        if let Err(error) = router_access::retire_authorities(&mut self.runtime).await {
            self.log_stopping(&error);
        }
        refreshed.extend(self.runtime.refresh_service_tls(desired));
        for (key, result) in refreshed {
            match result {
                Err(error) => self.fail(key, error),
                Ok(()) if self.applied.resources.contains_key(&key) => {
                    self.failures.remove(&key);
                }
                Ok(()) => {}
            }
        }
    }

    fn fail(&mut self, key: Key, error: ReconcileError) {
        if self.failures.get(&key) != Some(&error) {
            let (namespace, error) = (self.namespace.name(), error.text());
            tracing::error!(%namespace, resource = %key, error, "cannot apply resource");
        }
        self.failures.insert(key, error);
    }

    fn log_stop(&self, error: &ReconcileError) {
        let (namespace, error) = (self.namespace.name(), error.text());
        tracing::warn!(%namespace, error, "cannot stop site cleanly");
    }

    fn log_stopping(&self, error: &ReconcileError) {
        let (namespace, error) = (self.namespace.name(), error.text());
        tracing::debug!(%namespace, error, "cannot reach the core");
    }

    /// Statuses are on disk, or not.
    pub(super) fn statuses_written(&mut self, result: &BatchResult) {
        self.statuses.finish_batch(result);
        let failed = result.error.is_some();
        if let Some(error) = &result.error
            && let Some(suppressed) = self.status_failures.count_and_report(Instant::now())
        {
            let (namespace, error) = (self.namespace.name(), telemetry::chain(error));
            tracing::error!(%namespace, error, suppressed, "cannot write statuses; trying again");
        } else if self.statuses_failed && !failed {
            let namespace = self.namespace.name();
            tracing::info!(%namespace, "statuses are written again");
        }
        self.statuses_failed = failed;
    }

    /// Stops the site of a namespace that is gone.
    pub(super) async fn stop(mut self) {
        if let Err(error) = site::stop(&mut self.runtime).await {
            self.log_stop(&error);
        }
    }
}

fn user_secrets(resources: &[LocatedResource]) -> BTreeMap<Name, Secret> {
    let secret = |l: &LocatedResource| {
        let secret = l.resource.user_secret()?;
        Some((l.resource.name().clone(), secret.clone()))
    };
    resources.iter().filter_map(secret).collect()
}

fn redeemed_secrets(resources: &[LocatedResource]) -> BTreeMap<Name, RedeemedSecret> {
    let secret = |l: &LocatedResource| {
        let (token, secret) = l.resource.redeemed_secret()?;
        let redeemed = RedeemedSecret {
            token: token.to_owned(),
            secret: secret.clone(),
        };
        Some((l.resource.name().clone(), redeemed))
    };
    resources.iter().filter_map(secret).collect()
}

fn service_addresses(site: Option<&(Name, Site)>) -> Option<ServicePrefix> {
    let (_, site) = site?;
    site.settings.service_addresses
}
