//! Serves on the bus: connects, follows what the daemon publishes, and reconnects.

use super::{
    Bus, NAME, PATH,
    authority::Authority,
    publish::Objects,
    requests::{DaemonRequests, ManagerObject},
};
use crate::{
    reconcile::Reload,
    steer::{ListBindings, accel::Acceleration},
    store::{Layout, ResourceSnapshot},
    telemetry::chain,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use zbus::{
    Connection,
    connection::Builder,
    fdo::{ObjectManager, PeerProxy},
};

/// Pause before connecting to the bus again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Time for the answers to the last calls when the service stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the D-Bus service needs from the daemon.
#[derive(Clone)]
pub struct ControlContext {
    pub layout: Layout,
    /// Resources with their statuses.
    pub published: watch::Receiver<Arc<ResourceSnapshot>>,
    /// The same before its files are written.
    pub latest: watch::Receiver<Arc<ResourceSnapshot>>,
    pub steering: ListBindings,
    pub acceleration: Arc<Acceleration>,
    /// Makes the daemon read all resources again.
    pub reload: mpsc::Sender<Reload>,
    /// Stops the daemon.
    pub stop: mpsc::Sender<()>,
}

pub struct BusService {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl BusService {
    /// Gives the name up, answers the calls that came before, and closes the connection. Without this,
    /// callers in the last moments of the process would get no answer, though the bus starts the service
    /// for a caller who comes later.
    pub async fn stop(self) {
        // The task has ended only if it panicked, which the join reports.
        let _ = self.stop.send(());
        match timeout(CLOSE_TIMEOUT, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the D-Bus service panicked"),
            Err(_) => tracing::warn!("abandoning D-Bus calls that are still running at stop"),
        }
    }
}

/// Serves on a bus until stopped, and reconnects when the bus is missing or goes away: sites run without
/// it. `ready` gets true when the service owns its name, or false when the first attempt fails.
pub fn serve(bus: Bus, control: ControlContext, ready: oneshot::Sender<bool>) -> BusService {
    let (stop, mut stopped) = oneshot::channel();
    let task = async move {
        let mut ready = Some(ready);
        let since = Timestamp::now();
        let mut reported = false;
        loop {
            match serve_until_closed(bus, &control, &mut ready, since, &mut stopped).await {
                Ok(ServeEnd::Stopped) => return,
                Ok(ServeEnd::Closed) => {
                    tracing::warn!(?bus, "D-Bus connection closed; reconnecting");
                }
                Err(error) if !reported => {
                    reported = true;
                    let error = chain(&error);
                    tracing::warn!(?bus, error, "cannot serve on D-Bus; retrying");
                }
                Err(_) => {}
            }
            // The receiver may have stopped waiting.
            let _ = ready.take().map(|ready| ready.send(false));
            tokio::select! {
                () = sleep(RETRY_INTERVAL) => {}
                _ = &mut stopped => return,
            }
        }
    };
    BusService {
        stop,
        task: tokio::spawn(task),
    }
}

/// Why the service on one connection ended.
enum ServeEnd {
    /// The bus closed the connection.
    Closed,
    /// The daemon is stopping.
    Stopped,
}

async fn serve_until_closed(
    bus: Bus,
    control: &ControlContext,
    ready: &mut Option<oneshot::Sender<bool>>,
    since: Timestamp,
    stopped: &mut oneshot::Receiver<()>,
) -> zbus::Result<ServeEnd> {
    let authority = Authority {
        layout: control.layout.clone(),
        polkit: bus == Bus::System,
    };
    let requests = DaemonRequests {
        reload: control.reload.clone(),
        stop: control.stop.clone(),
    };
    let mut published = control.published.clone();
    let services = (control.steering.clone(), control.acceleration.clone());
    let snapshots = (published.clone(), control.latest.clone());
    let manager = ManagerObject::new(authority, snapshots, requests, since, services);
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
    // The name last: clients that find it find all objects.
    connection.request_name(NAME).await?;
    tracing::info!(?bus, name = NAME, "serving on D-Bus");
    let _ = ready.take().map(|ready| ready.send(true));
    loop {
        // Both are cancel-safe: the next iteration sees a change that this one missed.
        tokio::select! {
            () = connection.closed() => return Ok(ServeEnd::Closed),
            _ = &mut *stopped => {
                if let Err(error) = close(connection).await {
                    let error = chain(&error);
                    tracing::warn!(?bus, error, "cannot answer the last calls on D-Bus");
                }
                return Ok(ServeEnd::Stopped);
            }
            // Fails while the daemon is stopping.
            Ok(()) = published.changed() => {
                let all = published.borrow_and_update().clone();
                // The bus may close the connection at any time.
                if let Err(error) = objects.follow(&connection, &all).await {
                    let error = chain(&error);
                    tracing::info!(?bus, error, "cannot publish changes on D-Bus");
                    return Ok(ServeEnd::Closed);
                }
            }
        }
    }
}

/// Gives the name up and answers the calls that came before.
async fn close(connection: Connection) -> zbus::Result<()> {
    connection.release_name(NAME).await?;
    // The bus keeps the order: when it has passed this call on, the service has begun all earlier ones.
    if let Some(own) = connection.unique_name() {
        let peer = PeerProxy::builder(&connection)
            .destination(own)
            .path(PATH)
            .build()
            .await?;
        // The policy of the system bus lets nobody call a service but by its name. The refusal comes
        // back in the same order.
        if let Err(error) = peer.ping().await {
            tracing::debug!(
                error = chain(&error),
                "cannot ping the own connection on D-Bus"
            );
        }
    }
    connection.graceful_shutdown().await;
    Ok(())
}
