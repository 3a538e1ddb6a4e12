//! One namespace: what is wanted, what was applied, what came of it.

use super::{
    attached::{Attachments, Bound, attached_name},
    certificates::Certificates,
    execute::Executor,
    grants::Grants,
    settings::{self, PROXY, SERVICE_ADDRESSES, named_hosts},
    tokens::{FROM, Tokens},
};
use crate::{
    access::Doors,
    link::core::CoreSender,
    manifest::{Located, ManifestError},
    model::{AccessRole, Key, Kind, Listener, Name, Role, RouterAccess, Settings, Spec},
    pki,
    plan::{Action, LinkSecrets, Picture, plan},
    steer::routes::Routes,
    store::{Loader, NamespaceDir, StatusDir, StoreError},
    telemetry::{LogLevels, chain},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;

/// The state.
pub struct NamespaceState {
    pub(super) namespace: NamespaceDir,
    loader: Loader,
    pub(super) statuses: StatusDir,
    pub(super) resources: Vec<Located>,
    pub(super) errors: Vec<ManifestError>,
    /// What is refused now and stays as it was.
    pub(super) held: BTreeMap<Key, ManifestError>,
    applied: Picture,
    /// What could not be applied, and why.
    pub(super) failures: BTreeMap<Key, String>,
    pub(super) executor: Executor,
    pub(super) certificates: Certificates,
    pub(super) grants: Grants,
    pub(super) tokens: Tokens,
    /// What the namespaces of this host say of each other.
    pub(super) attachments: Arc<Attachments>,
}

/// Name under which the port of the grant server is remembered.
const GRANT_PORT_OF: &str = "grant-server";

/// Key of the RouterAccess that stands for a site's `linkAccess`.
pub(super) fn access_of_site(site: &Name) -> Name {
    site.clone()
}

impl NamespaceState {
    pub(super) fn new(
        namespace: NamespaceDir,
        trunk: usize,
        poke: Arc<Notify>,
        routes: Arc<Routes>,
        doors: Doors,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            statuses: StatusDir::open(&namespace)?,
            executor: Executor::new(namespace.clone(), trunk, routes),
            certificates: Certificates::new(namespace.clone()),
            grants: Grants::new(namespace.clone(), poke.clone(), doors),
            tokens: Tokens::new(namespace.clone(), poke),
            loader: Loader::new(namespace.clone()),
            namespace,
            resources: Vec::new(),
            errors: Vec::new(),
            held: BTreeMap::new(),
            applied: Picture::default(),
            failures: BTreeMap::new(),
            attachments: Arc::default(),
        })
    }

    /// Something is to be tried again.
    pub(super) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
            || self.certificates.has_failures()
            || self.grants.has_failures()
            || self.tokens.has_failures()
    }

    /// What the site's settings want logged.
    pub(super) fn logging(&self) -> LogLevels {
        let site = self.resources.iter().find_map(|l| match &l.resource.spec {
            Spec::Site(site) => Some(site),
            _ => None,
        });
        // What is wrong in them is in the site's status.
        let levels = site.and_then(|site| settings::logging(&site.settings).ok());
        levels.unwrap_or_default()
    }

    /// There are listeners in other network namespaces.
    pub(super) fn has_placed(&self) -> bool {
        self.executor.placements.any()
    }

    /// Forgets listeners whose network namespaces are gone, and says whether there were any: they
    /// are to be set again.
    pub(super) fn lose_placed(&mut self) -> bool {
        let lost = self.executor.placements.lost();
        for name in &lost {
            self.applied.listeners.remove(name);
        }
        !lost.is_empty()
    }

    /// The running site's id in the core.
    pub(super) fn site(&self) -> Option<u32> {
        self.executor.site
    }

    fn wanted(&self) -> Picture {
        let mut picture = Picture::default();
        let secrets = &self.executor.secrets;
        for located in &self.resources {
            let name = located.resource.name().clone();
            match &located.resource.spec {
                Spec::Site(site) => picture.site = Some((name, site.clone())),
                Spec::Listener(listener) => {
                    picture.listeners.insert(name, listener.clone());
                }
                Spec::MultiKeyListener(listener) => {
                    picture.multikeys.insert(name, listener.clone());
                }
                Spec::Connector(connector) => {
                    picture.connectors.insert(name, connector.clone());
                }
                Spec::AttachedConnectorBinding(_) => {
                    let connector = self.attachments.connector(self.namespace.name(), &name);
                    picture.attached.extend(connector.map(|c| (name, c)));
                }
                Spec::Link(link) => {
                    let secret = |name: &str| {
                        let found = secrets.iter().find(|(known, _)| ***known == *name);
                        found.map(|(_, secret)| secret.clone())
                    };
                    // The user's own go before Secrets.
                    let name_of = &link.tls_credentials;
                    let given = pki::given_certificate(&self.namespace, name_of);
                    let given = given.map_err(|e| chain(&e));
                    let needed = LinkSecrets {
                        credentials: given.map(|given| given.or_else(|| secret(name_of))),
                        proxy: link.settings.get(PROXY).and_then(|name| secret(name)),
                    };
                    picture.links.insert(name, (link.clone(), needed));
                }
                Spec::RouterAccess(access) => {
                    picture.accesses.insert(name, access.clone());
                }
                Spec::AccessGrant(_)
                | Spec::AccessToken(_)
                | Spec::Secret(_)
                | Spec::Certificate(_)
                | Spec::AttachedConnector(_)
                | Spec::Unserved(_) => {}
            }
        }
        if let Some((name, site)) = &picture.site
            && site.link_access.is_enabled()
        {
            let roles = [Role::InterRouter, Role::Edge].map(|role| AccessRole {
                role,
                port: role.default_port(),
            });
            let name = access_of_site(name);
            picture
                .accesses
                .entry(name.clone())
                .or_insert_with(|| RouterAccess {
                    roles: roles.to_vec(),
                    tls_credentials: name,
                    supplied_only: false,
                    issuer: site.default_issuer.clone(),
                    bind_host: None,
                    // Where they make no sense, the site says so.
                    subject_alternative_names: named_hosts(&site.settings).unwrap_or_default(),
                    settings: BTreeMap::new(),
                });
        }
        picture
    }

    /// Reads the manifests.
    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        let loaded = self.loader.load()?;
        for error in loaded.errors.iter().filter(|e| !self.errors.contains(e)) {
            error.log(self.namespace.name());
        }
        self.resources = loaded.resources;
        self.errors = loaded.errors;
        self.held = loaded.held;
        Ok(())
    }

    /// Says what this namespace offers to others, and what it takes of others.
    pub(super) fn attach(&self, attachments: &mut Attachments) {
        let namespace = self.namespace.name();
        for located in &self.resources {
            let name = located.resource.name();
            match &located.resource.spec {
                Spec::AttachedConnector(offer) => attachments.offer(namespace, name, offer),
                Spec::AttachedConnectorBinding(binding) => {
                    attachments.bind(namespace, name, binding);
                }
                _ => {}
            }
        }
    }

    /// Bindings of this site with what there is to say of their servers.
    pub(super) fn bound(&self) -> impl Iterator<Item = (Name, Bound)> {
        let binding = |located: &Located| {
            let key = located.key();
            let bound = || Bound {
                standing: self.executor.workloads.standing(&attached_name(&key.name)),
                failure: self.failures.get(&key).cloned(),
            };
            (key.kind == Kind::AttachedConnectorBinding).then(|| (key.name.clone(), bound()))
        };
        self.resources.iter().filter_map(binding)
    }

    /// Applies what has changed.
    pub(super) async fn sync(
        &mut self,
        core: &CoreSender,
        attachments: Arc<Attachments>,
    ) -> Result<(), StoreError> {
        self.attachments = attachments;
        self.executor.secrets = self
            .resources
            .iter()
            .filter_map(|l| match &l.resource.spec {
                Spec::Secret(secret) => Some((l.resource.name().clone(), secret.clone())),
                _ => None,
            })
            .collect();
        self.sync_certificates();
        let wanted = self.wanted();
        let addresses = |picture: &Picture| {
            let (_, site) = picture.site.as_ref()?;
            site.settings.get(SERVICE_ADDRESSES).cloned()
        };
        if addresses(&wanted) != addresses(&self.applied) {
            // Their names stand for other addresses from now on.
            let listeners = &mut self.applied.listeners;
            let stays = |name: &Name, listener: &Listener| {
                listener.host.ip().is_some() || !wanted.listeners.contains_key(name)
            };
            listeners.retain(|name, listener| stays(name, listener));
        }
        for action in plan(&wanted, &self.applied) {
            self.step(core, &wanted, action).await;
        }
        if let Err(error) = self.executor.finish(core).await {
            tracing::debug!(namespace = %self.namespace.name(), error, "listeners");
        }
        self.executor.publish_names(&wanted);
        self.failures.retain(|key, _| match key.kind {
            Kind::Listener => wanted.listeners.contains_key(&key.name),
            Kind::MultiKeyListener => wanted.multikeys.contains_key(&key.name),
            Kind::Connector => wanted.connectors.contains_key(&key.name),
            Kind::AttachedConnectorBinding => wanted.attached.contains_key(&key.name),
            Kind::Link => wanted.links.contains_key(&key.name),
            Kind::RouterAccess => wanted.accesses.contains_key(&key.name),
            _ => wanted.site.is_some(),
        });
        let failed = self.executor.refresh(&wanted);
        if let Err(error) = self.executor.retire(core).await {
            tracing::debug!(namespace = %self.namespace.name(), error, "retired CAs");
        }
        let (applied, open) = (&self.applied.accesses, &self.executor.accesses);
        self.failures.retain(|key, _| {
            let good = open.contains_key(&key.name) && applied.contains_key(&key.name);
            key.kind != Kind::RouterAccess || !good || failed.contains_key(&key.name)
        });
        for (name, error) in failed {
            self.failed(key(Kind::RouterAccess, &name), error);
        }
        self.refresh_ends(&wanted);
        self.sync_access(&wanted).await;
        Ok(())
    }

    /// Credentials of listeners and connectors that have changed.
    fn refresh_ends(&mut self, wanted: &Picture) {
        let failed = self.executor.refresh_ends(wanted);
        let applied = &self.applied;
        self.failures.retain(|key, _| {
            let good = match key.kind {
                Kind::Listener => applied.listeners.contains_key(&key.name),
                Kind::MultiKeyListener => applied.multikeys.contains_key(&key.name),
                Kind::Connector => applied.connectors.contains_key(&key.name),
                Kind::AttachedConnectorBinding => applied.attached.contains_key(&key.name),
                _ => false,
            };
            !good
        });
        for (key, error) in failed {
            self.failed(key, error);
        }
    }

    /// Credentials by wish, beside those that the user supplies.
    fn sync_certificates(&mut self) {
        let certificates = self
            .resources
            .iter()
            .filter_map(|l| match &l.resource.spec {
                Spec::Certificate(certificate) => Some((l.resource.name().clone(), certificate)),
                _ => None,
            })
            .collect();
        let nothing = Settings::new();
        let settings = self.resources.iter().find_map(|l| match &l.resource.spec {
            Spec::Site(site) => Some(&site.settings),
            _ => None,
        });
        let settings = settings.unwrap_or(&nothing);
        let secrets = &mut self.executor.secrets;
        let made = self.certificates.sync(&certificates, settings, secrets);
        for (name, secret) in made {
            secrets.entry(name).or_insert(secret);
        }
    }

    /// When something is to be renewed.
    pub(super) fn renewal(&self) -> Option<jiff::Timestamp> {
        let due = [self.executor.renewal(), self.certificates.renewal()];
        due.into_iter().flatten().min()
    }

    fn failed(&mut self, key: Key, error: String) {
        if self.failures.get(&key) != Some(&error) {
            tracing::error!(
                namespace = %self.namespace.name(),
                resource = %key,
                error,
                "{error}"
            );
        }
        self.failures.insert(key, error);
    }

    /// Grants and tokens.
    async fn sync_access(&mut self, wanted: &Picture) {
        let (mut grants, mut tokens) = (BTreeMap::new(), BTreeMap::new());
        for located in &self.resources {
            let name = located.resource.name().clone();
            match &located.resource.spec {
                Spec::AccessGrant(grant) => drop(grants.insert(name, grant.clone())),
                Spec::AccessToken(token) => drop(tokens.insert(name, token.clone())),
                _ => {}
            }
        }
        let port = self.executor.port(GRANT_PORT_OF);
        self.grants.port = self.grants.port.or(port);
        self.grants
            .sync(
                grants,
                wanted,
                &self.executor.accesses,
                &self.executor.secrets,
            )
            .await;
        if let Some(port) = self.grants.port
            && let Err(error) = self.executor.keep_port(GRANT_PORT_OF, port)
        {
            tracing::error!(namespace = %self.namespace.name(), error, "grant server");
        }
        let resources = &self.resources;
        let holder = |name: &Name| {
            let kinds = [Kind::Link, Kind::Secret];
            let same =
                |l: &&Located| kinds.contains(&l.resource.kind()) && l.resource.name() == name;
            let annotations = &resources.iter().find(same)?.resource.meta.annotations;
            Some(annotations.get(FROM).cloned().unwrap_or_default())
        };
        let site = wanted.site.as_ref().map(|(name, _)| name);
        self.tokens.sync(&tokens, holder, site);
    }

    async fn step(&mut self, core: &CoreSender, wanted: &Picture, action: Action) {
        let result = self.executor.execute(core, wanted, &action).await;
        let (key, applied) = match &action {
            Action::StartSite | Action::UpdateSite => {
                let Some((name, _)) = &wanted.site else {
                    return;
                };
                (key(Kind::Site, name), true)
            }
            Action::StopSite => {
                self.applied = Picture::default();
                return;
            }
            Action::SetListener(n) => (key(Kind::Listener, n), true),
            Action::RemoveListener(n) => (key(Kind::Listener, n), false),
            Action::SetMultiKey(n) => (key(Kind::MultiKeyListener, n), true),
            Action::RemoveMultiKey(n) => (key(Kind::MultiKeyListener, n), false),
            Action::SetConnector(n) => (key(Kind::Connector, n), true),
            Action::RemoveConnector(n) => (key(Kind::Connector, n), false),
            Action::SetAttached(n) => (key(Kind::AttachedConnectorBinding, n), true),
            Action::RemoveAttached(n) => (key(Kind::AttachedConnectorBinding, n), false),
            Action::SetLink(n) => (key(Kind::Link, n), true),
            Action::RemoveLink(n) => (key(Kind::Link, n), false),
            Action::SetAccess(n) => (key(Kind::RouterAccess, n), true),
            Action::RemoveAccess(n) => (key(Kind::RouterAccess, n), false),
        };
        let name = &key.name;
        match result {
            Ok(()) => {
                self.failures.remove(&key);
                match key.kind {
                    Kind::Site => self.applied.site = wanted.site.clone(),
                    Kind::Listener => {
                        copy(
                            &wanted.listeners,
                            &mut self.applied.listeners,
                            name,
                            applied,
                        );
                    }
                    Kind::MultiKeyListener => {
                        copy(
                            &wanted.multikeys,
                            &mut self.applied.multikeys,
                            name,
                            applied,
                        );
                    }
                    Kind::Connector => {
                        copy(
                            &wanted.connectors,
                            &mut self.applied.connectors,
                            name,
                            applied,
                        );
                    }
                    Kind::AttachedConnectorBinding => {
                        copy(&wanted.attached, &mut self.applied.attached, name, applied);
                    }
                    Kind::Link => copy(&wanted.links, &mut self.applied.links, name, applied),
                    _ => copy(&wanted.accesses, &mut self.applied.accesses, name, applied),
                }
            }
            Err(error) => {
                // It is not what was applied before either: the next look tries again.
                match key.kind {
                    Kind::Listener => drop(self.applied.listeners.remove(name)),
                    Kind::MultiKeyListener => drop(self.applied.multikeys.remove(name)),
                    Kind::Connector => drop(self.applied.connectors.remove(name)),
                    Kind::AttachedConnectorBinding => drop(self.applied.attached.remove(name)),
                    Kind::Link => drop(self.applied.links.remove(name)),
                    Kind::RouterAccess => drop(self.applied.accesses.remove(name)),
                    _ => {}
                }
                self.failed(key, error);
            }
        }
    }

    /// Ends the site; the namespace is gone.
    pub(super) async fn stop(mut self, core: &CoreSender) {
        let wanted = Picture::default();
        if self
            .executor
            .execute(core, &wanted, &Action::StopSite)
            .await
            .is_err()
        {
            tracing::debug!(namespace = %self.namespace.name(), "site had ended");
        }
    }
}

fn key(kind: Kind, name: &Name) -> Key {
    Key {
        kind,
        name: name.clone(),
    }
}

fn copy<T: Clone>(
    from: &BTreeMap<Name, T>,
    to: &mut BTreeMap<Name, T>,
    name: &Name,
    applied: bool,
) {
    match from.get(name).filter(|_| applied) {
        Some(item) => drop(to.insert(name.clone(), item.clone())),
        None => drop(to.remove(name)),
    }
}
