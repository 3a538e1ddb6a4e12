//! Which listeners are open: bound through the kernel's steering where there is such a thing, else
//! by sockets of their own.

use super::listener::{ClosingListener, RunningListener};
use crate::{
    core::{ListenerSpec, context::CoreContext, site::effects::Effects},
    listen::ListenerSockets,
    model::ObserverMode,
    service::view::SiteView,
    steer::{
        NetnsSteering, Owner, SteerError, accel::Acceleration, bind_range::BindRange,
        netns::NetnsListener,
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Time between attempts to open a listener whose address was taken.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Listeners {
    site: u32,
    namespace: String,
    by_name: BTreeMap<String, RunningListener>,
    /// They are closed together with those that are opened next, so that an address changes hands
    /// without a gap.
    closing: Vec<ClosingListener>,
    /// They have sockets of their own, whatever the kernel can.
    plain: bool,
    /// Acceleration of listeners without that setting.
    accelerated: bool,
}

impl Listeners {
    pub(super) fn new(site: u32, namespace: &str) -> Self {
        Self {
            site,
            namespace: namespace.to_owned(),
            by_name: BTreeMap::new(),
            closing: Vec::new(),
            plain: false,
            accelerated: false,
        }
    }

    /// Whether listeners are open for clients of an earlier process alone.
    pub(super) fn any_waits_for_connector(&self) -> bool {
        self.by_name
            .values()
            .any(|listener| listener.waits_for_connector)
    }

    pub(super) fn get(&self, name: &str) -> Option<&RunningListener> {
        self.by_name.get(name)
    }

    /// Changes what is looked for in a listener's traffic. True: it was something else.
    pub(super) fn observe(&mut self, name: &str, observer: ObserverMode) -> bool {
        let listener = self.by_name.get_mut(name);
        listener.is_some_and(|l| std::mem::replace(&mut l.spec.observer, observer) != observer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &RunningListener)> {
        self.by_name.iter()
    }

    /// Adds a listener, closed at first.
    pub(super) fn add(&mut self, id: u64, spec: ListenerSpec) {
        let listener = RunningListener::new(id, spec);
        self.by_name.insert(listener.spec.name.clone(), listener);
    }

    /// Gives listeners sockets of their own or not. True: [`Self::reconsider`] has to follow.
    pub(super) fn set_plain(
        &mut self,
        plain: bool,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) -> bool {
        if self.plain == plain {
            return false;
        }
        self.plain = plain;
        for listener in self.by_name.values_mut().filter(|l| l.state.open) {
            self.closing
                .extend(listener.close(false, &self.namespace, sockets, effects));
        }
        true
    }

    /// Default acceleration for clients of listeners without that setting.
    pub(super) fn set_accelerated(&mut self, accelerated: bool, acceleration: &Acceleration) {
        self.accelerated = accelerated;
        for listener in self.by_name.values_mut().filter(|l| l.state.open) {
            let on = listener.spec.settings.acceleration.unwrap_or(accelerated);
            listener.accelerate(acceleration, on);
            listener.state.accelerated = on.then(|| listener.is_accelerated(acceleration));
        }
    }

    /// Removes a listener; its connections end. [`Self::reconsider`] has to follow.
    pub(super) fn remove(
        &mut self,
        name: &str,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) -> Option<ListenerSpec> {
        let mut listener = self.by_name.remove(name)?;
        self.closing
            .extend(listener.close(true, &self.namespace, sockets, effects));
        Some(listener.spec)
    }

    /// Opens listeners whose routing key is reachable and closes those whose is not.
    pub(super) fn reconsider(
        &mut self,
        view: &SiteView,
        ctx: &mut CoreContext,
        effects: &mut Effects,
    ) {
        let sockets = &mut ctx.sockets;
        for listener in self.by_name.values_mut() {
            let mut keys = listener.spec.keys();
            keys.retain(|key| view.reaches(key));
            listener.state.matched = !keys.is_empty();
            listener.state.reachable = keys;
            listener.waits_for_connector =
                !listener.state.matched && sockets.has_waiting_clients(&listener.spec.bind_ranges);
            if !listener.state.matched && !listener.waits_for_connector {
                listener.state.error = None;
                if listener.state.open {
                    self.closing
                        .extend(listener.close(false, &self.namespace, sockets, effects));
                }
            }
        }
        self.open(ctx, effects, |_| true);
    }

    /// Opens listeners that could not be opened a while ago.
    pub(super) fn retry(&mut self, ctx: &mut CoreContext, effects: &mut Effects) {
        // `reconsider` decides later which of the new listeners get these addresses: closing the old
        // ones now would refuse clients in between.
        if !self.closing.is_empty() {
            return;
        }
        self.open(ctx, effects, |listener| {
            listener.tried.is_none_or(|at| at.elapsed() >= RETRY)
        });
    }

    /// Closes all and ends their connections.
    pub(super) fn clear(&mut self, ctx: &mut CoreContext, effects: &mut Effects) {
        let sockets = &mut ctx.sockets;
        for listener in self.by_name.values_mut() {
            self.closing
                .extend(listener.close(true, &self.namespace, sockets, effects));
        }
        self.by_name.clear();
        self.open(ctx, effects, |_| false);
    }

    /// Opens the listeners that must be open and are not, and closes those in `closing`.
    fn open(
        &mut self,
        ctx: &mut CoreContext,
        effects: &mut Effects,
        due: impl Fn(&RunningListener) -> bool,
    ) {
        let opening = self.by_name.values_mut();
        let mut opening: Vec<&mut RunningListener> = opening
            .filter(|l| (l.state.matched || l.waits_for_connector) && !l.state.open && due(l))
            .collect();
        let mut closing = std::mem::take(&mut self.closing);
        let plain = self.plain || !ctx.sockets.is_steering();
        let acceleration = ctx.sockets.acceleration.clone();
        let own = opening.extract_if(.., |l| match &l.spec.netns_listener {
            None => plain,
            Some(netns_listener) => matches!(netns_listener, NetnsListener::Own(_)),
        });
        let mut own: Vec<&mut RunningListener> = own.collect();
        for listener in opening.iter().chain(&own) {
            // One that is accelerated may be around it.
            listener.accelerate(&acceleration, false);
        }
        let of = (self.site, &*self.namespace);
        while let Some(netns) = next_netns(&closing, &opening) {
            let there =
                |other: Option<&Arc<NetnsSteering>>| other.is_some_and(|o| Arc::ptr_eq(o, &netns));
            let closing = closing.extract_if(.., |c| there(c.netns.as_ref()));
            let opening = opening.extract_if(.., |l| there(l.netns_steering()));
            let (closing, mut opening) = (closing.collect(), opening.collect::<Vec<_>>());
            apply_batch(of, ctx, Some(&netns), closing, &mut opening, effects);
            own.append(&mut opening);
        }
        apply_batch(of, ctx, None, closing, &mut opening, effects);
        for listener in own.iter_mut().filter(|l| l.netns_steering().is_none()) {
            let workers = ctx.workers.count();
            let opened = listener.open_plain(self.site, workers, &mut ctx.sockets, effects);
            listener.opened(opened, &self.namespace, effects);
        }
        for listener in opening.iter_mut().chain(&mut own) {
            let on = listener
                .spec
                .settings
                .acceleration
                .unwrap_or(self.accelerated);
            if !listener.state.open {
                listener.forget(&acceleration);
            } else if on {
                listener.accelerate(&acceleration, true);
            }
            let is_reported = on && listener.state.open;
            listener.state.accelerated =
                is_reported.then(|| listener.is_accelerated(&acceleration));
        }
    }
}

/// Another network namespace that is steered in and where one of these listeners is.
fn next_netns(
    closing: &[ClosingListener],
    opening: &[&mut RunningListener],
) -> Option<Arc<NetnsSteering>> {
    let closing = closing.iter().filter_map(|c| c.netns.as_ref());
    let opening = opening.iter().filter_map(|l| l.netns_steering());
    closing.chain(opening).next().cloned()
}

/// Closes listeners and opens others by way of the kernel, as one batch, in this network namespace or
/// in another.
fn apply_batch(
    (site, namespace): (u32, &str),
    ctx: &mut CoreContext,
    netns: Option<&Arc<NetnsSteering>>,
    closing: Vec<ClosingListener>,
    opening: &mut [&mut RunningListener],
    effects: &mut Effects,
) {
    if opening.is_empty() && closing.is_empty() {
        return;
    }
    let begin = opening.iter().flat_map(|listener| {
        let owner = Owner {
            site,
            listener: listener.id,
            routing_key: listener.spec.routing_key.as_str().into(),
            name: Arc::new((namespace.to_owned(), listener.spec.name.clone())),
            slot: 0,
        };
        let bind_ranges = listener.spec.bind_ranges.iter();
        bind_ranges.map(move |range| (*range, owner.clone()))
    });
    let begin = begin.collect();
    let end: Vec<BindRange> = closing.iter().flat_map(|c| c.bind_ranges.clone()).collect();
    let channels = (&ctx.sender, &ctx.workers);
    let results = ctx.sockets.steer(netns, channels, &end, begin);
    let mut results = results.into_iter();
    // After the addresses are gone: what is accepted until then is found and cut.
    for ClosingListener { id, cut, .. } in closing {
        effects.unlisten(id, cut);
        if cut {
            ctx.sockets.policies.remove(id);
        }
    }
    let mut half_open = Vec::new();
    for listener in opening {
        let bind_ranges = &listener.spec.bind_ranges;
        let results: Vec<_> = results.by_ref().take(bind_ranges.len()).collect();
        let bound = bind_ranges.iter().zip(&results).filter(|(_, r)| r.is_ok());
        let bound: Vec<BindRange> = bound.map(|(range, _)| *range).collect();
        let outcome: Result<Vec<()>, SteerError> = results.into_iter().collect();
        if outcome.is_err() {
            half_open.extend(bound);
        }
        listener.steered = outcome.is_ok();
        listener.opened(outcome.map(drop), namespace, effects);
    }
    if !half_open.is_empty() {
        ctx.sockets.steer(netns, channels, &half_open, Vec::new());
    }
}

#[cfg(test)]
mod tests;
