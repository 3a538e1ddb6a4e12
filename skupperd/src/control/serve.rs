//! The connection to the bus: made, kept, and made again.

use super::{
    Bus, NAME, PATH,
    authority::Authority,
    calls::{Manager, Requests},
    publish::Objects,
};
use crate::{
    reconcile::Reload,
    steer::{Lister, accel::Acceleration},
    store::{Layout, Published},
    telemetry::chain,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::sleep,
};
use zbus::{Connection, connection::Builder, fdo::ObjectManager};

/// Pause before the bus is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the service needs of the daemon.
#[derive(Clone)]
pub struct Control {
    /// Directories.
    pub layout: Layout,
    /// Resources and statuses.
    pub published: watch::Receiver<Arc<Published>>,
    /// What is steered where.
    pub steering: Lister,
    /// Whether connections are accelerated.
    pub acceleration: Arc<Acceleration>,
    /// To have all resources read again.
    pub reload: mpsc::Sender<Reload>,
    /// To have the daemon end.
    pub stop: mpsc::Sender<()>,
}

/// Serves on a bus until aborted. A bus that is not there, or goes away, is tried again: the network
/// does not depend on it. `ready` is told when the name is ours for the first time, or that it can not
/// be had now.
pub fn serve(bus: Bus, control: Control, ready: tokio::sync::oneshot::Sender<bool>) -> AbortHandle {
    let task = async move {
        let mut ready = Some(ready);
        let since = Timestamp::now();
        let mut told = false;
        loop {
            match once(bus, &control, &mut ready, since).await {
                Ok(()) => tracing::warn!(?bus, "the bus has gone; trying again"),
                Err(error) if !told => {
                    told = true;
                    let error = chain(&error);
                    tracing::warn!(?bus, error, "no D-Bus; trying again");
                }
                Err(_) => {}
            }
            // Dropped by whoever does not wait any more.
            let _ = ready.take().map(|ready| ready.send(false));
            sleep(AGAIN).await;
        }
    };
    tokio::spawn(task).abort_handle()
}

async fn once(
    bus: Bus,
    control: &Control,
    ready: &mut Option<tokio::sync::oneshot::Sender<bool>>,
    since: Timestamp,
) -> zbus::Result<()> {
    let authority = Authority {
        layout: control.layout.clone(),
        polkit: bus == Bus::System,
    };
    let requests = Requests {
        reload: control.reload.clone(),
        stop: control.stop.clone(),
    };
    let mut published = control.published.clone();
    let watched = (control.steering.clone(), control.acceleration.clone());
    let manager = Manager::new(authority, published.clone(), requests, since, watched);
    let builder = match bus {
        Bus::System => Builder::system(),
        Bus::Session => Builder::session(),
    };
    let connection: Connection = builder
        .serve_at(PATH, ObjectManager)
        .serve_at(PATH, manager)
        .build()
        .await?;
    let mut objects = Objects::default();
    let all = published.borrow_and_update().clone();
    objects.follow(&connection, &all).await?;
    // The name last: who finds it finds everything.
    connection.request_name(NAME).await?;
    tracing::info!(?bus, name = NAME, "serving on D-Bus");
    let _ = ready.take().map(|ready| ready.send(true));
    loop {
        // Both are cancel-safe: a change that is not seen now is seen at the next turn.
        tokio::select! {
            () = connection.closed() => return Ok(()),
            changed = published.changed() => {
                if changed.is_err() {
                    // The daemon is ending, and aborts this.
                    return std::future::pending().await;
                }
                let all = published.borrow_and_update().clone();
                // A bus that goes just now is told of by what it does to this.
                if let Err(error) = objects.follow(&connection, &all).await {
                    let error = chain(&error);
                    tracing::info!(?bus, error, "telling the bus of changes");
                    return Ok(());
                }
            }
        }
    }
}
