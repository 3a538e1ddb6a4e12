//! The desired and the applied state of a namespace.

use super::error::ReconcileError;
use crate::{
    model::{
        Connector, Key, Kind, Link, Listener, MultiKeyListener, Name, RouterAccess, Secret, Site,
    },
    pki,
};
use std::collections::BTreeMap;

/// State that the resources of a namespace request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DesiredState {
    /// Nothing runs without a site.
    pub(super) site: Option<(Name, Site)>,
    pub(super) resources: BTreeMap<Key, DesiredResource>,
}

/// A resource with everything that decides how it runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DesiredResource {
    Listener(Listener),
    MultiKeyListener(MultiKeyListener),
    Connector(Connector),
    /// The connector that a binding and the offer of another namespace make together.
    AttachedConnectorBinding(Connector),
    Link(Link, Box<LinkSecrets>),
    RouterAccess(RouterAccess),
}

/// Secrets that a link names, where they exist.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LinkSecrets {
    /// `None` if none are supplied; an error if the supplied ones are invalid.
    pub(super) credentials: Result<Option<Secret>, ReconcileError>,
    /// Secret that the link's setting `proxy-configuration` names.
    pub(super) proxy: Option<Secret>,
}

impl DesiredState {
    pub(super) fn insert(&mut self, name: Name, item: DesiredResource) {
        let key = Key::new(item.kind(), name);
        self.resources.insert(key, item);
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = (&Name, &Listener)> {
        self.resources.iter().filter_map(|(key, item)| match item {
            DesiredResource::Listener(listener) => Some((&key.name, listener)),
            _ => None,
        })
    }

    pub(super) fn multi_key_listeners(&self) -> impl Iterator<Item = &MultiKeyListener> {
        self.resources.values().filter_map(|item| match item {
            DesiredResource::MultiKeyListener(listener) => Some(listener),
            _ => None,
        })
    }

    pub(super) fn router_accesses(&self) -> impl Iterator<Item = (&Name, &RouterAccess)> {
        self.resources.iter().filter_map(|(key, item)| match item {
            DesiredResource::RouterAccess(access) => Some((&key.name, access)),
            _ => None,
        })
    }

    pub(super) fn router_access(&self, name: &Name) -> Option<&RouterAccess> {
        match self
            .resources
            .get(&Key::new(Kind::RouterAccess, name.clone()))
        {
            Some(DesiredResource::RouterAccess(access)) => Some(access),
            _ => None,
        }
    }

    /// Issuer of credentials that name none.
    pub(super) fn default_issuer(&self) -> Result<Name, ReconcileError> {
        let site = self.site.as_ref();
        match site.and_then(|(_, site)| site.default_issuer.clone()) {
            Some(issuer) => Ok(issuer),
            None => name_of(pki::SITE_CA),
        }
    }

    pub(super) fn is_edge(&self) -> bool {
        self.site.as_ref().is_some_and(|(_, site)| site.edge)
    }
}

impl DesiredResource {
    fn kind(&self) -> Kind {
        match self {
            Self::Listener(_) => Kind::Listener,
            Self::MultiKeyListener(_) => Kind::MultiKeyListener,
            Self::Connector(_) => Kind::Connector,
            Self::AttachedConnectorBinding(_) => Kind::AttachedConnectorBinding,
            Self::Link(..) => Kind::Link,
            Self::RouterAccess(_) => Kind::RouterAccess,
        }
    }
}

/// The name of something that is always there.
pub(super) fn name_of(text: &'static str) -> Result<Name, ReconcileError> {
    Name::new(text).map_err(|e| ReconcileError::failed("name", text, e))
}

/// What runs by now: whatever was applied without an error.
#[derive(Clone, Debug, Default)]
pub(super) struct AppliedState {
    pub(super) site: Option<(Name, Site)>,
    /// The next plan applies the settings of the site again although they are the same.
    pub(super) site_outdated: bool,
    pub(super) resources: BTreeMap<Key, DesiredResource>,
}

impl AppliedState {
    #[cfg(test)]
    pub(super) fn of(state: DesiredState) -> Self {
        Self {
            site: state.site,
            site_outdated: false,
            resources: state.resources,
        }
    }

    /// The next plan applies the site and sets every resource again that may use the host. Links stay.
    pub(super) fn outdate(&mut self) {
        self.site_outdated = self.site.is_some();
        self.resources
            .retain(|_, item| matches!(item, DesiredResource::Link(..)));
    }

    /// Takes note that a resource was set.
    pub(super) fn record(&mut self, key: &Key, desired: &DesiredState) {
        match desired.resources.get(key) {
            Some(item) => drop(self.resources.insert(key.clone(), item.clone())),
            None => self.forget(key),
        }
    }

    /// The next plan sets the resource again, if it is still desired.
    pub(super) fn forget(&mut self, key: &Key) {
        self.resources.remove(key);
    }
}
