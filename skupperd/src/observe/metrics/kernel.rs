//! Metrics of what the kernel does for the daemon: steering and acceleration.

use super::label::Label;
use crate::steer::{Listing, SteeringTotals, accel::HopTotals};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::collections::HashSet;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    namespace: Label,
    listener: Label,
}

/// `totals`: `None` when the kernel does not steer.
pub(super) fn register_steering(
    registry: &mut Registry,
    listing: &Listing,
    totals: Option<SteeringTotals>,
) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::from(listing.enabled));
    registry.register(
        "skupper_steering_enabled",
        "1 when the kernel steers connections to listeners, 0 when listeners use sockets",
        gauge,
    );
    let Some(totals) = totals else { return };
    let lookups = totals.hits + totals.misses + totals.refused;
    for (name, help, value) in [
        ("lookups", "New TCP connections to this host", lookups),
        ("hits", "Connections given to a listener", totals.hits),
        (
            "misses",
            "Connections left to other programs",
            totals.misses,
        ),
        (
            "refused",
            "Connections refused for lack of an accept socket",
            totals.refused,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(format!("skupper_steering_{name}"), help, counter);
    }
    let (steered, refused) = (
        Family::<ListenerLabels, Counter>::default(),
        Family::<ListenerLabels, Counter>::default(),
    );
    let mut counted = HashSet::new();
    for binding in &listing.bindings {
        let of = ListenerLabels {
            namespace: (&binding.namespace).into(),
            listener: (&binding.listener).into(),
        };
        // Each binding of a listener has the totals of the listener.
        if counted.insert(of.clone()) {
            steered.get_or_create(&of).inc_by(binding.steered);
            refused.get_or_create(&of).inc_by(binding.refused);
        }
    }
    registry.register(
        "skupper_listener_steering_hits",
        "Connections given to this listener",
        steered,
    );
    registry.register(
        "skupper_listener_steering_refused",
        "Connections to this listener refused for lack of an accept socket",
        refused,
    );
}

/// `totals`: `None` when acceleration is off.
pub(super) fn register_acceleration(registry: &mut Registry, totals: Option<HopTotals>) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::from(totals.is_some()));
    registry.register(
        "skupper_acceleration_enabled",
        "1 when the kernel accelerates connections of listeners and connectors that ask for it",
        gauge,
    );
    let Some(totals) = totals else { return };
    for (name, help, value) in [
        (
            "messages",
            "Messages passed from socket to socket",
            totals.messages,
        ),
        ("bytes", "Bytes passed from socket to socket", totals.bytes),
        (
            "sockets",
            "Accelerated sockets, two for each connection",
            totals.sockets,
        ),
        (
            "bulk",
            "Directions returned to TCP because of bulk data or a slow reader",
            totals.bulk,
        ),
        (
            "late",
            "Directions that TCP carried from the start",
            totals.late,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(format!("skupper_acceleration_{name}"), help, counter);
    }
}
