//! The steps from what is applied to what is desired.
//!
//! A pure function of two states: it reads no clock, waits for nothing and does nothing. The
//! namespace carries out its steps in their order.

use super::desired::{AppliedState, DesiredState};
use crate::model::Key;
use std::{cmp::Reverse, collections::BTreeMap};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    StartSite,
    /// Apply changed settings to the running site.
    UpdateSite,
    StopSite,
    /// Add or change a resource.
    Set(Key),
    Remove(Key),
}

/// Equal resources are not touched. A site that gets another name, or becomes an edge site, starts
/// anew with all its resources.
pub(super) fn plan(desired: &DesiredState, applied: &AppliedState) -> Vec<Action> {
    let (Some((name, site)), running) = (&desired.site, &applied.site) else {
        return Vec::from_iter(applied.site.is_some().then_some(Action::StopSite));
    };
    match running {
        Some((old_name, old)) if old_name == name && old.edge == site.edge => {
            let update = old != site || applied.site_outdated;
            let update = update.then_some(Action::UpdateSite);
            let steps = diff(&desired.resources, &applied.resources);
            update.into_iter().chain(steps).collect()
        }
        _ => {
            let stop = running.is_some().then_some(Action::StopSite);
            let restart = stop.into_iter().chain([Action::StartSite]);
            let steps = diff(&desired.resources, &BTreeMap::new());
            restart.chain(steps).collect()
        }
    }
}

/// Removals come first, so that an address can move from one listener to another in one plan.
/// Resources are set by rank and removed in the opposite order.
fn diff<T: PartialEq>(desired: &BTreeMap<Key, T>, applied: &BTreeMap<Key, T>) -> Vec<Action> {
    let mut removed: Vec<&Key> = applied
        .keys()
        .filter(|key| !desired.contains_key(key))
        .collect();
    removed.sort_by_key(|key| Reverse(key.kind.rank()));
    let mut set: Vec<&Key> = desired
        .iter()
        .filter(|(key, item)| applied.get(key) != Some(item))
        .map(|(key, _)| key)
        .collect();
    set.sort_by_key(|key| key.kind.rank());
    let removed = removed.into_iter().cloned().map(Action::Remove);
    removed
        .chain(set.into_iter().cloned().map(Action::Set))
        .collect()
}

#[cfg(test)]
mod tests;
