//! Applies changes of ranges in the order that keeps connections from reaching the wrong listener.

use super::{BindOutcome, KernelSteer, LOCK, range_of};
use crate::{
    steer::{
        Steer, SteerError,
        bind_range::BindRange,
        reserve::Reservations,
        table::{Owner, Owners},
    },
    telemetry,
};
use std::collections::{HashMap, HashSet};

impl Steer for KernelSteer {
    fn apply(
        &mut self,
        end: &[BindRange],
        begin: Vec<(BindRange, Owner)>,
    ) -> Vec<Result<(), SteerError>> {
        let mut ending: HashSet<BindRange> = end.iter().copied().collect();
        let before = ending.iter();
        let before = before.filter_map(|range| Some((*range, self.owners.remove(*range)?)));
        let before: HashMap<BindRange, Owner> = before.collect();
        let others = self.list_foreign_sockets(begin.iter().any(|(range, _)| self.is_open(range)));
        let mut results = Vec::with_capacity(begin.len());
        let mut beginning = Vec::new();
        let mut unnamed = Vec::new();
        for (n, (range, mut owner)) in begin.into_iter().enumerate() {
            let name = owner.name.clone();
            owner.slot = self.take_slot(&owner, range);
            let moved = before.get(&range).filter(|_| ending.contains(&range));
            let begun = self.begin_binding(range, owner, moved, &others);
            match &begun {
                Ok(BindOutcome::Unchanged) => drop(ending.remove(&range)),
                Ok(BindOutcome::Changed) => {
                    ending.remove(&range);
                    beginning.push((n, range, name));
                }
                Err(_) => unnamed.push(name),
            }
            results.push(begun.map(drop));
        }
        // Before workers forget the owners: from now on the kernel refuses these connections or
        // gives them to the next owner.
        for range in &ending {
            if let Err(error) = self.sync_bindings(*range) {
                tracing::error!(error = telemetry::chain(&error), "cannot end binding");
            }
        }
        self.table.store(self.owners.clone());
        if beginning.iter().any(|(_, range, _)| self.is_open(range)) {
            self.yield_to(&others);
        }
        let mut failed = Vec::new();
        for (n, range, name) in beginning {
            if let Err(error) = self.sync_bindings(range) {
                results[n] = Err(error);
                failed.push(range);
                unnamed.push(name);
            }
        }
        for range in &failed {
            self.owners.remove(*range);
            if let Err(error) = self.sync_bindings(*range) {
                tracing::error!(error = telemetry::chain(&error), "cannot undo binding");
            }
        }
        if !failed.is_empty() {
            self.table.store(self.owners.clone());
        }
        for range in ending.into_iter().chain(failed) {
            self.release(range);
        }
        // Last, so that a changed listener keeps its slot.
        let names = before.values().map(|owner| &owner.name);
        names
            .chain(&unnamed)
            .for_each(|name| self.slots.release(name));
        results
    }

    fn rescan(&mut self) {
        if !self.open.is_empty() || !self.yielded.is_empty() {
            let others = self.list_foreign_sockets(true);
            self.yield_to(&others);
        }
    }

    fn adopted(&self) -> Vec<BindRange> {
        let bound = self.adopted.keys().copied().map(range_of);
        let reserved = self.reservations.iter();
        let reserved = reserved.flat_map(|ours| ours.adopted().map(BindRange::from));
        let mut all: Vec<_> = bound.chain(reserved).collect();
        all.sort();
        all.dedup();
        all
    }

    fn end_adopted(&mut self) {
        for (network, port) in std::mem::take(&mut self.adopted).into_keys() {
            let range = range_of((network, port));
            if let Err(error) = self.sync_binding(network, port) {
                let error = telemetry::chain(&error);
                tracing::error!(%range, error, "cannot end binding");
            } else if !self.bound.contains(&(network, port)) {
                tracing::info!(%range, "ended binding of previous process");
            }
        }
        self.yielded_before.clear();
        self.rescan();
        self.slots.free_unclaimed();
        self.reservations
            .iter_mut()
            .for_each(Reservations::release_unclaimed);
        if let Err(error) = self.steering.detach_replaced() {
            tracing::warn!(
                error = telemetry::chain(&error),
                "cannot remove replaced programs"
            );
        }
    }

    fn end(&mut self) {
        if let Err(error) = self.steering.end() {
            tracing::warn!(
                error = telemetry::chain(&error),
                "cannot remove pinned programs"
            );
        }
        self.owners = Owners::default();
        self.adopted.clear();
        self.yielded.clear();
        self.yielded_before.clear();
        self.open.clear();
        self.reserved.clear();
        // An unpinned program stays attached until this process ends, so remove its bindings.
        for (network, port) in std::mem::take(&mut self.bound) {
            let unbound = self
                .steering
                .unbind(network.address(), network.bits(), port);
            if let Err(error) = unbound {
                tracing::error!(error = telemetry::chain(&error), "cannot end binding");
            }
        }
        self.table.store(Owners::default());
        self.reservations.iter_mut().for_each(Reservations::clear);
        self.accept_sockets.forget();
        self.descriptor_store.remove(LOCK);
    }
}
