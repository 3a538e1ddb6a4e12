//! Starts steering and acceleration, and reports whether they are on.

use crate::{
    observe,
    steer::{
        self, ListBindings, Listing, OwnerTable, Steer, SteeringHandover, SteeringUnavailable,
        accel::{Acceleration, AccelerationUnavailable},
    },
    store::Layout,
    sys::{self, DescriptorStore, InheritedDescriptors},
    telemetry,
};
use anyhow::{Context, Result};
use std::{net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

pub(super) fn handover(
    layout: &Layout,
    descriptors: InheritedDescriptors,
) -> Result<SteeringHandover> {
    Ok(SteeringHandover {
        instance: layout.instance(),
        home: bpf_directory(layout),
        descriptor_store: DescriptorStore::of_service(&descriptors)
            .context("cannot start the thread of the descriptor store")?,
        descriptors,
    })
}

/// Where BPF programs are pinned: the BPF file system of the unit, else that of the host.
fn bpf_directory(layout: &Layout) -> PathBuf {
    let of_unit = layout.runtime().join("bpf");
    if sys::is_bpffs(&of_unit) {
        of_unit
    } else {
        steer::HOME.into()
    }
}

/// The parts of steering that the core does not own.
pub(super) struct SteeringParts {
    pub(super) table: Arc<OwnerTable>,
    /// Accept sockets, by worker.
    pub(super) sockets: Vec<Vec<TcpListener>>,
    pub(super) source: observe::SteeringSource,
}

/// Starts steering, and logs whether it is on or why not.
pub(super) fn start_steering(
    wanted: bool,
    workers: usize,
    handover: &SteeringHandover,
) -> (Option<Box<dyn Steer>>, SteeringParts) {
    let started = if wanted {
        steer::start(workers, handover)
    } else {
        Err(SteeringUnavailable::Off)
    };
    match started {
        Ok(steered) => {
            tracing::info!("steering is on: the kernel passes connections to listeners");
            match &steered.not_kept {
                None => tracing::info!("clients will wait during restarts"),
                Some(reason) => {
                    tracing::info!(reason, "clients will be refused during restarts");
                }
            }
            let source = observe::SteeringSource {
                meter: Some(steered.meter),
                listing: steered.listing,
            };
            let (table, sockets) = (steered.table, steered.sockets);
            let parts = SteeringParts {
                table,
                sockets,
                source,
            };
            (Some(steered.steer), parts)
        }
        Err(reason) => {
            steer::discard(handover);
            let reason = telemetry::chain(&reason);
            tracing::info!(reason, "steering is off: listeners use sockets");
            let listing = Listing {
                reason: Some(reason),
                kept: handover.descriptor_store.is_available(),
                ..Listing::default()
            };
            let source = observe::SteeringSource {
                meter: None,
                listing: Arc::new(move || listing.clone()),
            };
            let parts = SteeringParts {
                table: Arc::default(),
                sockets: Vec::new(),
                source,
            };
            (None, parts)
        }
    }
}

/// Adds the status of acceleration to the listing of steering.
pub(super) fn with_acceleration(
    listing: ListBindings,
    acceleration: Arc<Acceleration>,
) -> ListBindings {
    Arc::new(move || Listing {
        acceleration: Some(acceleration.status()),
        ..listing()
    })
}

/// Prepares acceleration, and logs why it is off.
pub(super) fn start_acceleration(wanted: bool) -> Arc<Acceleration> {
    let acceleration = Acceleration::new(wanted);
    if let Err(reason) = acceleration.state()
        && !matches!(reason, AccelerationUnavailable::Unused)
    {
        let reason = telemetry::chain(reason);
        tracing::info!(reason, "acceleration is off");
    }
    acceleration
}

/// Waits until other programs have read all accelerated bytes: the rest would be lost with the daemon.
pub(super) async fn wait_for_accelerated_bytes(acceleration: &Acceleration) {
    // The kernel reports no reads of other programs.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !acceleration.is_settled() {
        ticks.tick().await;
    }
}
