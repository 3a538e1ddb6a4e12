//! The daemon: the one place where all parts are created, connected and stopped.
//!
//! [`run`] is called by `skupperd` on the main thread and returns after the last connection has ended.
//! It owns the threads (`core`, `worker-0` and so on, and this one for the reconcile loop), the lock of
//! the data directory, the routes of service addresses, and what passes from one process to the next.
//!
//! Its states, in this order:
//! 1. *starting*: threads run, listening sockets and BPF programs of the last process are adopted,
//!    all resources are applied once. Workers accept nothing yet: only when all listeners have their
//!    bindings is it known which connection belongs to which of them.
//! 2. *ready*: workers accept, the service manager is notified. Resources are applied as they change;
//!    SIGHUP and a D-Bus call apply all of them again.
//! 3. *draining*, after SIGTERM, SIGINT or a D-Bus call: new clients are refused or wait for the next
//!    process, no resource is applied, open connections may end until the deadline.
//!
//! It never handles a connection or a resource itself, and what it cannot have beside those (metrics,
//! the bus, steering) is logged and does not stop it.

mod service;
mod steering;
mod threads;

use crate::{
    access::GrantSockets,
    control::{self, Bus, ControlContext},
    core::{self, Core, CoreHandle, CoreRequest},
    flows::FlowLog,
    messages::{Command, CoreSender, STEERED, Senders},
    netlink::local_routes::LocalRoutes,
    observe::{self, LoopHealth},
    proxy::Proxy,
    reconcile::{Reconciler, Reload},
    service::policy::ListenerPolicies,
    steer::{OwnSockets, OwnerTable, accel::Acceleration},
    store::{DaemonState, InstanceLock, Layout, Watcher},
    sys::{self, DescriptorStore, InheritedDescriptors, MemoryPressure},
    telemetry::{self, Logging},
    worker::Worker,
    workload,
};
use anyhow::{Context, Result};
use libsystemd::daemon::NotifyState;
use service::notify_manager;
use std::{net::TcpListener, rc::Rc, sync::Arc, time::Duration};
use steering::{
    handover, start_acceleration, start_steering, wait_for_accelerated_bytes, with_acceleration,
};
use threads::{runtime_builder, spawn_thread};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::{JoinSet, LocalSet},
};

/// Time for open connections to end, unless the options say otherwise.
const DRAIN: Duration = Duration::from_secs(20);
/// Steps of other tasks after which the core is looked at again. Each may be a part of a TLS handshake, of
/// which a stranger can begin hundreds.
const CORE_EVENT_INTERVAL: u32 = 4;

#[derive(Debug)]
pub struct DaemonOptions {
    pub layout: Layout,
    pub descriptors: InheritedDescriptors,
    /// Number of worker threads.
    pub workers: usize,
    /// Time for open connections to end after a request to stop.
    pub drain: Option<Duration>,
    /// Bus to serve D-Bus on.
    pub bus: Option<Bus>,
    /// Addresses for metrics and console, beside the socket in the runtime directory.
    pub observe: observe::ServeAddresses,
    /// Use steering where the kernel supports it.
    pub steering: bool,
    /// Use acceleration where the kernel supports it and a resource asks for it.
    pub acceleration: bool,
    pub logging: Logging,
}

/// One worker for each core.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs until SIGTERM or SIGINT.
#[expect(
    clippy::too_many_lines,
    reason = "all parts are created here, in the one order in which it is possible"
)]
pub fn run(options: DaemonOptions) -> Result<()> {
    let DaemonOptions {
        layout,
        descriptors,
        workers,
        drain,
        bus,
        observe: addresses,
        steering,
        acceleration,
        logging,
    } = options;
    raise_descriptor_limit();
    // Held until the process ends.
    let lock = layout.claim()?;
    let (events, inbox) = core::channel();
    let acceleration = start_acceleration(acceleration);
    let (pressure, listener_policies) = (MemoryPressure::default(), ListenerPolicies::default());
    let flow_log = FlowLog::new(workers);
    let proxy = {
        let (pressure, listener_policies) = (pressure.clone(), listener_policies.clone());
        let (acceleration, flow_log) = (acceleration.clone(), flow_log.clone());
        move || {
            let (acceleration, flow_log) = (acceleration.clone(), flow_log.clone());
            Proxy::new(
                pressure.clone(),
                listener_policies.clone(),
                acceleration,
                flow_log,
            )
        }
    };
    let senders = start_workers(workers, events.events(), &proxy)?;
    let handover = handover(&layout, descriptors)?;
    let (steer, mut steering) = start_steering(steering, workers, &handover);
    steering.source.listing = with_acceleration(steering.source.listing, acceleration.clone());
    let own = OwnSockets::new(&handover).context("cannot adopt listening sockets")?;
    let (core, changed) = Core::new(
        events.events().clone(),
        senders.clone(),
        steer,
        acceleration.clone(),
        own,
        listener_policies,
        flow_log.clone(),
    );
    let mut core_runtime = runtime_builder();
    core_runtime.event_interval(CORE_EVENT_INTERVAL);
    spawn_thread("core".to_owned(), core_runtime, move |runtime| {
        runtime.block_on(core.run(inbox));
    })?;

    // Dropped last: connections need their routes while they drain.
    let routes = Arc::new(LocalRoutes::default());
    let control = runtime_builder()
        .build()
        .context("cannot start the runtime of the main thread")?;
    control.block_on(async {
        let watcher = Watcher::new(&layout);
        let (reload, reloads) = mpsc::channel::<Reload>(1);
        let (stop, stops) = mpsc::channel::<()>(1);
        let health = LoopHealth::new(senders.clone(), events.clone());
        let listing = steering.source.listing.clone();
        let grant_sockets = GrantSockets::new(&handover.descriptors);
        let (unit_states, unit_states_writer) = unit_states(bus);
        let mut reconciler = Reconciler::new(
            layout.clone(),
            events.clone(),
            workers,
            routes.clone(),
            grant_sockets.clone(),
            logging,
            unit_states,
        );
        let memory = service::return_memory_of_ended(flow_log.clone());
        // The daemon works without it.
        let _observe = observe::serve(
            layout.runtime(),
            addresses,
            reconciler.published(),
            health.clone(),
            steering.source,
            acceleration.clone(),
            flow_log,
        )
        .await
        .inspect_err(|error| tracing::error!(error = telemetry::chain(error), "cannot serve metrics"));
        reconciler.sync().await?;
        start_accepting(&events, &senders, steering.table, steering.sockets).await;
        record_state(&lock, DaemonState::Running);
        service::discard_unclaimed(&handover);
        grant_sockets.start_refusing();
        let (published, latest) = (reconciler.published(), reconciler.latest());
        // Aborted when this block ends.
        let mut tasks = JoinSet::new();
        tasks.spawn(service::publish_status(published.clone()));
        tasks.spawn(service::feed_watchdog(health));
        tasks.spawn(service::watch_memory(pressure));
        tasks.spawn(memory);
        tasks.spawn(control::units(bus, unit_states_writer));
        let reconcile = tokio::spawn(reconciler.run(watcher, changed, reloads, stops));
        let (end, mut end_requests) = mpsc::channel(1);
        let control = ControlContext {
            layout: layout.clone(),
            published,
            latest,
            steering: listing,
            acceleration: acceleration.clone(),
            reload: reload.clone(),
            stop: end.clone(),
        };
        let (bus_ready, bus_tried) = oneshot::channel();
        let bus_service = bus.map(|bus| control::serve(bus, control, bus_ready));
        if bus_service.is_some() {
            // Clients that wait for readiness may call it at once.
            drop(bus_tried.await);
        }
        tracing::info!(workers, namespaces = %layout.input_namespaces().display(), "skupperd is ready");
        notify_manager(&[NotifyState::Ready]);
        tokio::select! {
            ended = wait_for_stop(&reload) => ended?,
            _ = end_requests.recv() => {}
        }
        notify_manager(&[NotifyState::Stopping]);
        record_state(&lock, DaemonState::Stopping);
        stop_accepting(&events, &handover.descriptor_store, bus).await;
        // Ends the reconcile loop.
        drop(stop);
        reconcile.await.context("the reconcile loop panicked")?;
        let drained = drain_connections(&senders, &acceleration, drain.unwrap_or(DRAIN)).await;
        // Last: callers see the state of sites while connections drain.
        if let Some(service) = bus_service {
            service.stop().await;
        }
        drained
    })?;
    handover.descriptor_store.flush();
    tracing::info!("skupperd stopped");
    Ok(())
}

/// Starts the worker threads, each with a proxy of its own.
fn start_workers(
    count: usize,
    events: &CoreSender,
    proxy: &(impl Fn() -> Rc<Proxy> + Clone + Send + 'static),
) -> Result<Senders> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::unbounded_channel()).unzip();
    let senders = Senders::new(senders);
    for (index, commands) in receivers.into_iter().enumerate() {
        let (senders, events, proxy) = (senders.clone(), events.clone(), proxy.clone());
        spawn_thread(
            format!("worker-{index}"),
            runtime_builder(),
            move |runtime| {
                let worker = Worker::new(index, senders, events, proxy());
                LocalSet::new().block_on(&runtime, worker.run(commands));
            },
        )?;
    }
    Ok(senders)
}

/// Tells commands without a bus what the daemon does. Sites run without it.
fn record_state(lock: &InstanceLock, state: DaemonState) {
    if let Err(error) = lock.set_state(state) {
        let error = telemetry::chain(&error);
        tracing::error!(error, "cannot record the state of skupperd");
    }
}

/// Lets workers accept steered connections once the listeners of all sites have their bindings: before,
/// a connection could go to the wrong listener.
async fn start_accepting(
    events: &CoreHandle,
    senders: &Senders,
    table: Arc<OwnerTable>,
    sockets: Vec<Vec<TcpListener>>,
) {
    if events.ask(CoreRequest::ReleaseUnclaimed).await.is_err() {
        tracing::error!("core stopped; refusing steered connections");
        return;
    }
    senders.send_each(sockets, |sockets| Command::AcceptSteered {
        key: STEERED,
        table: table.clone(),
        sockets,
    });
}

/// Refuses new clients, or in a restart leaves them to the next process.
async fn stop_accepting(events: &CoreHandle, descriptor_store: &DescriptorStore, bus: Option<Bus>) {
    let restarting = descriptor_store.is_available()
        && match bus {
            Some(bus) => control::is_restarting(bus).await,
            None => false,
        };
    if restarting {
        tracing::info!("restarting: new clients wait for the next process");
    } else if events.ask(CoreRequest::RefuseClients).await.is_err() {
        tracing::error!("core stopped; closing listening sockets");
    }
}

/// The states of units: of the user's manager on the session bus, else of the system's.
fn unit_states(bus: Option<Bus>) -> (workload::UnitStateReader, workload::UnitStateWriter) {
    let session = bus.filter(|bus| *bus == Bus::Session);
    workload::unit_state_channel(session.map(|_| sys::user()))
}

/// Waits for connections to end, until the deadline or a second SIGTERM. What is left is closed.
async fn drain_connections(
    senders: &Senders,
    acceleration: &Acceleration,
    deadline: Duration,
) -> Result<()> {
    tracing::info!(seconds = deadline.as_secs(), "draining connections");
    let done = senders.ask_all(Command::Drain);
    let all = async {
        for wait in done {
            drop(wait.await);
        }
        wait_for_accelerated_bytes(acceleration).await;
    };
    let drained = tokio::time::timeout(deadline, all);
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        result = drained => match result {
            Ok(()) => tracing::info!("all connections have ended"),
            Err(_) => tracing::warn!("drain deadline passed; closing connections"),
        },
        _ = term.recv() => tracing::warn!("second SIGTERM received; closing connections"),
    }
    Ok(())
}

/// Waits for SIGTERM or SIGINT. SIGHUP applies all resources again.
async fn wait_for_stop(reload: &mpsc::Sender<Reload>) -> Result<()> {
    let mut hup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    loop {
        // All arms are cancel-safe: a signal that is not received now is received in the next turn.
        tokio::select! {
            _ = hup.recv() => {
                tracing::info!("reloading resources");
                service::notify_reloading();
                let (done, reloaded) = oneshot::channel();
                if reload.send(done).await.is_ok() {
                    drop(reloaded.await);
                }
                notify_manager(&[NotifyState::Ready]);
            }
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        }
    }
}

/// Raises the limit of open files to the maximum: every connection is a descriptor.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise limit of open files");
    }
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        sys::reserve_descriptors(limit);
    }
}
