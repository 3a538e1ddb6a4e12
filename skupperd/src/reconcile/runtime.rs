//! What runs for one namespace: its site in the core, and what the host holds for it.
//!
//! The files of `kind` change it, one step of a plan at a time; the status of each resource is made of
//! it. It owns no sockets of services and links, which are the core's, except those that listeners have
//! in other network namespaces.

use super::{
    desired::DesiredState,
    error::ReconcileError,
    memory::Memory,
    netns_listeners::NetnsListeners,
    rights::Rights,
    service_addresses::ServiceAddresses,
    service_tls::{CredentialSources, ListenerTlsPolicy, ServiceTlsRegistry},
    workloads::Workloads,
};
use crate::{
    core::{CoreEnded, CoreHandle, ListenerChange, ListenerSpec, Reply, SiteRequest, SiteState},
    link::handshake::RevokedCertificates,
    messages::ServerTls,
    model::{AccessRole, Host, Key, Name, Secret},
    netlink::local_routes::LocalRoutes,
    pki::{Issuer, ServerCredentials},
    service::tls::ListenerTls,
    store::NamespaceDir,
    workload::UnitStateReader,
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) struct SiteRuntime {
    pub(super) core: CoreHandle,
    pub(super) namespace: NamespaceDir,
    /// What its resources may have the daemon do.
    pub(super) rights: Rights,
    /// Worker threads of the daemon.
    pub(super) workers: usize,
    /// The running site in the core.
    pub(super) site: Option<u32>,
    /// Identity in the network; empty before the first start.
    pub(super) site_id: String,
    pub(super) memory: Memory,
    pub(super) accesses: BTreeMap<Name, AppliedAccess>,
    /// Credentials among the resources, without those that came with tokens.
    pub(super) secrets: BTreeMap<Name, Secret>,
    /// Credentials that came with tokens. Other sites have chosen their names, so they are kept apart.
    pub(super) redeemed: BTreeMap<Name, RedeemedSecret>,
    /// The port that AMQP clients of this host are accepted at.
    pub(super) local_amqp_port: Option<u16>,
    /// Certificates and authorities that are refused for links.
    pub(super) refused: RevokedCertificates,
    pub(super) service_addresses: ServiceAddresses,
    pub(super) netns_listeners: NetnsListeners,
    pub(super) service_tls: ServiceTlsRegistry,
    pub(super) workloads: Workloads,
    /// Changes of listeners, which are made together: an address that goes from one to another is
    /// without an owner at no time, and a thousand are one step for the core.
    listener_changes: Vec<ListenerChange>,
    /// Issuers that are newer than the clock and were logged.
    pub(super) ahead_of_clock: BTreeSet<Name>,
    /// Issuers of link access as they were used last, to write them again if their files are lost.
    pub(super) issuers: BTreeMap<Name, Issuer>,
}

/// Credentials that came with a token.
pub(super) struct RedeemedSecret {
    /// Mark of the token.
    pub(super) token: String,
    pub(super) secret: Secret,
}

/// A link access with open sockets.
pub(super) struct AppliedAccess {
    /// What the resource asks for: while it stays the same, so do the sockets.
    pub(super) bind_host: Option<Host>,
    pub(super) roles: Vec<AccessRole>,
    pub(super) ports: Vec<AccessRole>,
    /// Names by which remote sites reach it.
    pub(super) advertised: Vec<String>,
    /// Names in the certificate.
    pub(super) hosts: Vec<String>,
    /// What it shows and trusts; replaced under the open sockets.
    pub(super) server: ServerCredentials,
    pub(super) tls: ServerTls,
}

impl AppliedAccess {
    /// The CA by which others recognise it, when the user supplied its credentials.
    pub(super) fn supplied_authority(&self) -> Option<&str> {
        Some(&*self.server.authority).filter(|_| self.server.is_supplied)
    }
}

impl SiteRuntime {
    pub(super) fn new(
        core: CoreHandle,
        namespace: NamespaceDir,
        workers: usize,
        routes: Arc<LocalRoutes>,
    ) -> Self {
        Self {
            memory: Memory::new(&namespace),
            service_addresses: ServiceAddresses::new(&namespace, routes),
            netns_listeners: NetnsListeners::new(),
            service_tls: ServiceTlsRegistry::new(namespace.clone()),
            workloads: Workloads::default(),
            core,
            namespace,
            rights: Rights::default(),
            workers,
            site: None,
            site_id: String::new(),
            accesses: BTreeMap::new(),
            secrets: BTreeMap::new(),
            redeemed: BTreeMap::new(),
            local_amqp_port: None,
            refused: RevokedCertificates::default(),
            listener_changes: Vec::new(),
            ahead_of_clock: BTreeSet::new(),
            issuers: BTreeMap::new(),
        }
    }

    /// Asks the site in the core. Without a site there is nothing to do.
    pub(super) async fn ask_site<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> SiteRequest,
    ) -> Result<Option<T>, ReconcileError> {
        let Some(id) = self.site else {
            return Ok(None);
        };
        let answer = self.core.ask_site(id, request).await;
        answer.map_err(|CoreEnded| ReconcileError::Stopping)
    }

    /// The state of the running site in the core; empty without one.
    pub(super) async fn describe_site(&self) -> SiteState {
        let state = self.ask_site(SiteRequest::Describe).await;
        // Without a core the daemon is stopping: nothing is reachable.
        state.ok().flatten().unwrap_or_default()
    }

    /// Forgets everything that belongs to the site.
    pub(super) fn clear(&mut self) {
        self.listener_changes.clear();
        self.netns_listeners.clear();
        self.service_tls.clear();
        self.workloads.clear();
        self.accesses.clear();
        self.local_amqp_port = None;
    }

    /// Takes effect with [`Self::apply_listener_changes`].
    /// A listener whose spec could not be made is removed: it must not go on as it was.
    pub(super) fn set_or_remove_listener(
        &mut self,
        core_name: &str,
        spec: Result<ListenerSpec, ReconcileError>,
    ) -> Result<(), ReconcileError> {
        match spec {
            Ok(spec) => {
                self.listener_changes
                    .push(ListenerChange::Set(Box::new(spec)));
                Ok(())
            }
            Err(error) => {
                self.remove_listener(core_name);
                Err(error)
            }
        }
    }

    /// Takes effect with [`Self::apply_listener_changes`].
    pub(super) fn remove_listener(&mut self, name: &str) {
        let change = ListenerChange::Remove(name.to_owned());
        self.listener_changes.push(change);
    }

    pub(super) async fn apply_listener_changes(&mut self) -> Result<(), ReconcileError> {
        let changes = std::mem::take(&mut self.listener_changes);
        if changes.is_empty() {
            return Ok(());
        }
        let change = |reply| SiteRequest::ChangeListeners(changes, reply);
        self.ask_site(change).await.map(drop)
    }

    /// Gives connectors with selectors the servers that were found.
    pub(super) async fn set_servers(
        &mut self,
        unit_states: &UnitStateReader,
    ) -> Result<(), ReconcileError> {
        if self.site.is_none() {
            return Ok(());
        }
        for (name, servers) in self.workloads.due(unit_states) {
            let set = |reply| SiteRequest::SetServers {
                name: name.clone(),
                servers,
                reply,
            };
            let busy = self.ask_site(set).await?;
            self.workloads.was_set(&name, busy.unwrap_or_default());
        }
        Ok(())
    }

    /// Replaces the credentials of listeners and connectors that have changed.
    pub(super) fn refresh_service_tls(
        &mut self,
        desired: &DesiredState,
    ) -> BTreeMap<Key, Result<(), ReconcileError>> {
        let sources = CredentialSources {
            desired,
            secrets: &self.secrets,
        };
        self.service_tls.refresh(sources)
    }

    /// Sets the TLS of a listener; `None` if it has none.
    pub(super) fn set_listener_tls(
        &mut self,
        desired: &DesiredState,
        key: Key,
        policy: Option<ListenerTlsPolicy>,
    ) -> Result<Option<Arc<ListenerTls>>, ReconcileError> {
        let sources = CredentialSources {
            desired,
            secrets: &self.secrets,
        };
        self.service_tls.set_listener(sources, key, policy)
    }

    /// Tells the host the names of the site's service addresses.
    pub(super) fn publish_service_names(&mut self, desired: &DesiredState) {
        if let Err(error) = self.service_addresses.publish(desired) {
            let namespace = self.namespace.name();
            tracing::error!(%namespace, %error, "cannot publish names of service addresses");
        }
    }

    /// When the first of the credentials is due for renewal, or stops being trusted.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        let due = self.accesses.values().filter_map(|a| a.server.next_change);
        due.chain(self.service_tls.renewal()).min()
    }

    /// Until when a retired CA, known by its key identifier, is trusted; empty for one that is not.
    pub(super) fn trusted_until(&self, authority: &str) -> String {
        let mut retired = self.accesses.values().flat_map(|a| &a.server.retired);
        let found = retired.find(|(key, _)| key == authority);
        found
            .map(|(_, until)| until.to_string())
            .unwrap_or_default()
    }
}
