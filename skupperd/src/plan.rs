//! What has to be done so that what runs is what is wanted: a pure function of two pictures.

use crate::model::{Connector, Link, Listener, MultiKeyListener, Name, RouterAccess, Secret, Site};
use std::collections::BTreeMap;

/// A namespace, as wanted or as applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// The site with its name; without one nothing runs.
    pub site: Option<(Name, Site)>,
    /// Listeners by name.
    pub listeners: BTreeMap<Name, Listener>,
    /// Listeners with several routing keys by name.
    pub multikeys: BTreeMap<Name, MultiKeyListener>,
    /// Connectors by name.
    pub connectors: BTreeMap<Name, Connector>,
    /// Connectors with servers of other namespaces, by the names of their bindings.
    pub attached: BTreeMap<Name, Connector>,
    /// Links by name, each with its credentials.
    pub links: BTreeMap<Name, (Link, LinkSecrets)>,
    /// Link accesses by name.
    pub accesses: BTreeMap<Name, RouterAccess>,
}

/// Secrets that a link names, where they are there.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSecrets {
    /// Credentials, or why there are none that are of use; neither when nobody has supplied any.
    pub credentials: Result<Option<Secret>, String>,
    /// What `proxy-configuration` in its settings names.
    pub proxy: Option<Secret>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the site.
    StartSite,
    /// End the site with everything on it.
    StopSite,
    /// Apply changed settings of the running site.
    UpdateSite,
    /// Add or change.
    SetAccess(Name),
    /// Remove.
    RemoveAccess(Name),
    /// Add or change.
    SetLink(Name),
    /// Remove.
    RemoveLink(Name),
    /// Add or change.
    SetConnector(Name),
    /// Remove.
    RemoveConnector(Name),
    /// Add or change.
    SetAttached(Name),
    /// Remove.
    RemoveAttached(Name),
    /// Add or change.
    SetListener(Name),
    /// Remove.
    RemoveListener(Name),
    /// Add or change.
    SetMultiKey(Name),
    /// Remove.
    RemoveMultiKey(Name),
}

/// Steps from `applied` to `wanted`. What is equal in both is not touched; removals come first, so
/// that an address moves from one listener to another in one go.
pub fn plan(wanted: &Picture, applied: &Picture) -> Vec<Action> {
    let identity = |p: &Picture| p.site.as_ref().map(|(name, s)| (name.clone(), s.edge));
    let mut actions = Vec::new();
    let mut from = applied;
    let nothing = Picture::default();
    if identity(wanted) != identity(applied) {
        if applied.site.is_some() {
            actions.push(Action::StopSite);
        }
        from = &nothing;
        if wanted.site.is_none() {
            return actions;
        }
        actions.push(Action::StartSite);
    } else if wanted.site.is_none() {
        return actions;
    } else if wanted.site != applied.site {
        actions.push(Action::UpdateSite);
    }
    let removed = |actions: &mut Vec<Action>, names: Vec<&Name>, make: fn(Name) -> Action| {
        actions.extend(names.into_iter().cloned().map(make));
    };
    removed(
        &mut actions,
        gone(&wanted.listeners, &from.listeners),
        Action::RemoveListener,
    );
    removed(
        &mut actions,
        gone(&wanted.multikeys, &from.multikeys),
        Action::RemoveMultiKey,
    );
    removed(
        &mut actions,
        gone(&wanted.connectors, &from.connectors),
        Action::RemoveConnector,
    );
    removed(
        &mut actions,
        gone(&wanted.attached, &from.attached),
        Action::RemoveAttached,
    );
    removed(
        &mut actions,
        gone(&wanted.links, &from.links),
        Action::RemoveLink,
    );
    removed(
        &mut actions,
        gone(&wanted.accesses, &from.accesses),
        Action::RemoveAccess,
    );
    removed(
        &mut actions,
        changed(&wanted.accesses, &from.accesses),
        Action::SetAccess,
    );
    removed(
        &mut actions,
        changed(&wanted.links, &from.links),
        Action::SetLink,
    );
    removed(
        &mut actions,
        changed(&wanted.connectors, &from.connectors),
        Action::SetConnector,
    );
    removed(
        &mut actions,
        changed(&wanted.attached, &from.attached),
        Action::SetAttached,
    );
    removed(
        &mut actions,
        changed(&wanted.listeners, &from.listeners),
        Action::SetListener,
    );
    removed(
        &mut actions,
        changed(&wanted.multikeys, &from.multikeys),
        Action::SetMultiKey,
    );
    actions
}

fn gone<'a, T>(wanted: &BTreeMap<Name, T>, applied: &'a BTreeMap<Name, T>) -> Vec<&'a Name> {
    applied
        .keys()
        .filter(|name| !wanted.contains_key(*name))
        .collect()
}

fn changed<'a, T: PartialEq>(
    wanted: &'a BTreeMap<Name, T>,
    applied: &BTreeMap<Name, T>,
) -> Vec<&'a Name> {
    let differs = |(name, item): &(&Name, &T)| applied.get(*name) != Some(item);
    wanted
        .iter()
        .filter(differs)
        .map(|(name, _)| name)
        .collect()
}
