//! One namespace: what is wanted, what was applied, what came of it.

use super::execute::Executor;
use crate::{
    link::core::CoreSender,
    manifest::{Located, ManifestError},
    model::{Key, Kind, Role, RouterAccess, Secret, Spec},
    plan::{Action, Picture, plan},
    store::{Namespace, StatusDir, StoreError},
};
use std::collections::BTreeMap;

/// The state.
pub struct NamespaceState {
    pub(super) namespace: Namespace,
    pub(super) statuses: StatusDir,
    pub(super) resources: Vec<Located>,
    pub(super) errors: Vec<ManifestError>,
    applied: Picture,
    /// What could not be applied, and why.
    pub(super) failures: BTreeMap<Key, String>,
    pub(super) executor: Executor,
}

/// Key of the RouterAccess that stands for a site's `linkAccess`.
pub(super) fn access_of_site(site: &str) -> String {
    site.to_owned()
}

impl NamespaceState {
    pub(super) fn new(namespace: Namespace, trunk: usize) -> Result<Self, StoreError> {
        Ok(Self {
            statuses: StatusDir::open(&namespace)?,
            executor: Executor::new(namespace.clone(), trunk),
            namespace,
            resources: Vec::new(),
            errors: Vec::new(),
            applied: Picture::default(),
            failures: BTreeMap::new(),
        })
    }

    /// Something is to be tried again.
    pub(super) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// The running site's id in the core.
    pub(super) fn site(&self) -> Option<u32> {
        self.executor.site
    }

    fn wanted(&self) -> Picture {
        let mut picture = Picture::default();
        let secrets: BTreeMap<&str, &Secret> = self
            .resources
            .iter()
            .filter_map(|l| match &l.resource.spec {
                Spec::Secret(secret) => Some((l.key().name.as_str(), secret)),
                _ => None,
            })
            .collect();
        for located in &self.resources {
            let name = located.key().name.clone();
            match &located.resource.spec {
                Spec::Site(site) => picture.site = Some((name, site.clone())),
                Spec::Listener(listener) => {
                    picture.listeners.insert(name, listener.clone());
                }
                Spec::Connector(connector) => {
                    picture.connectors.insert(name, connector.clone());
                }
                Spec::Link(link) => {
                    let secret = secrets.get(link.tls_credentials.as_str());
                    picture
                        .links
                        .insert(name, (link.clone(), secret.map(|s| (*s).clone())));
                }
                Spec::RouterAccess(access) => {
                    picture.accesses.insert(name, access.clone());
                }
                Spec::Secret(_) | Spec::Unserved => {}
            }
        }
        if let Some((name, site)) = &picture.site
            && site.link_access
        {
            let roles = [Role::InterRouter, Role::Edge].map(|r| (r, r.default_port()));
            let name = access_of_site(name);
            picture
                .accesses
                .entry(name.clone())
                .or_insert_with(|| RouterAccess {
                    roles: roles.to_vec(),
                    tls_credentials: name,
                    issuer: site.default_issuer.clone(),
                    bind_host: String::new(),
                    subject_alternative_names: Vec::new(),
                });
        }
        picture
    }

    /// Reads the manifests and applies what has changed.
    pub(super) async fn sync(&mut self, core: &CoreSender) -> Result<(), StoreError> {
        let loaded = self.namespace.load()?;
        for error in loaded.errors.iter().filter(|e| !self.errors.contains(e)) {
            tracing::error!(
                namespace = self.namespace.name,
                file = %error.source.display(),
                line = error.line,
                kind = error.kind,
                name = error.name,
                field = error.field,
                "{error}"
            );
        }
        self.resources = loaded.resources;
        self.errors = loaded.errors;
        let wanted = self.wanted();
        for action in plan(&wanted, &self.applied) {
            self.step(core, &wanted, action).await;
        }
        self.failures.retain(|key, _| match key.kind {
            Kind::Listener => wanted.listeners.contains_key(&key.name),
            Kind::Connector => wanted.connectors.contains_key(&key.name),
            Kind::Link => wanted.links.contains_key(&key.name),
            Kind::RouterAccess => wanted.accesses.contains_key(&key.name),
            _ => wanted.site.is_some(),
        });
        Ok(())
    }

    async fn step(&mut self, core: &CoreSender, wanted: &Picture, action: Action) {
        let result = self.executor.execute(core, wanted, &action).await;
        let (key, applied) = match &action {
            Action::StartSite | Action::UpdateSite => {
                let name = wanted
                    .site
                    .as_ref()
                    .map(|(n, _)| n.clone())
                    .unwrap_or_default();
                (
                    Key {
                        kind: Kind::Site,
                        name,
                    },
                    true,
                )
            }
            Action::StopSite => {
                self.applied = Picture::default();
                return;
            }
            Action::SetListener(n) => (key(Kind::Listener, n), true),
            Action::RemoveListener(n) => (key(Kind::Listener, n), false),
            Action::SetConnector(n) => (key(Kind::Connector, n), true),
            Action::RemoveConnector(n) => (key(Kind::Connector, n), false),
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
                    Kind::Connector => {
                        copy(
                            &wanted.connectors,
                            &mut self.applied.connectors,
                            name,
                            applied,
                        );
                    }
                    Kind::Link => copy(&wanted.links, &mut self.applied.links, name, applied),
                    _ => copy(&wanted.accesses, &mut self.applied.accesses, name, applied),
                }
            }
            Err(error) => {
                if self.failures.get(&key) != Some(&error) {
                    tracing::error!(namespace = self.namespace.name, resource = %key, "{error}");
                }
                // It is not what was applied before either: the next look tries again.
                match key.kind {
                    Kind::Listener => drop(self.applied.listeners.remove(name)),
                    Kind::Connector => drop(self.applied.connectors.remove(name)),
                    Kind::Link => drop(self.applied.links.remove(name)),
                    Kind::RouterAccess => drop(self.applied.accesses.remove(name)),
                    _ => {}
                }
                self.failures.insert(key, error);
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
            tracing::debug!(namespace = self.namespace.name, "site had ended");
        }
    }
}

fn key(kind: Kind, name: &str) -> Key {
    Key {
        kind,
        name: name.to_owned(),
    }
}

fn copy<T: Clone>(
    from: &BTreeMap<String, T>,
    to: &mut BTreeMap<String, T>,
    name: &str,
    applied: bool,
) {
    match from.get(name).filter(|_| applied) {
        Some(item) => drop(to.insert(name.to_owned(), item.clone())),
        None => drop(to.remove(name)),
    }
}
