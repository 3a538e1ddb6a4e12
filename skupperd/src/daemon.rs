//! The daemon: builds everything, runs it, and takes it down again.

mod service;

use crate::{
    access::Doors,
    control::{self, Bus, Control},
    link::{
        core::{self, Core, CoreSender},
        ends::Fronts,
        ledger::Ledger,
        worker::{Command, STEERED, Senders, Worker},
    },
    observe::{self, Health},
    proxy::Proxy,
    reconcile::{Reconciler, Reload},
    steer::{
        self, Kept, Lister, Listing, NotSteered, OwnSockets, Steer, Table,
        accel::{Acceleration, NotAccelerated},
        routes::Routes,
    },
    store::{Layout, Watcher},
    sys::{self, Descriptors, Keeper, Pressure},
    telemetry::{self, Logging},
    workload,
};
use anyhow::{Context, Result};
use libsystemd::daemon::NotifyState;
use service::tell;
use std::{net::TcpListener, path::PathBuf, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::{JoinSet, LocalSet},
};

/// Time that open connections have to end after a request to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// How to run.
#[derive(Debug)]
pub struct Options {
    /// Directories.
    pub layout: Layout,
    /// What the service manager has passed.
    pub descriptors: Descriptors,
    /// Worker threads.
    pub workers: usize,
    /// Time that open connections have to end after a request to stop.
    pub drain: Option<Duration>,
    /// Bus to serve on.
    pub bus: Option<Bus>,
    /// Addresses to be watched on, beside the socket in the runtime directory.
    pub watched: observe::Doors,
    /// Have the kernel steer connections to listeners where it can.
    pub steering: bool,
    /// Have the kernel accelerate connections of listeners and connectors that ask for it.
    pub acceleration: bool,
    /// Changes what is logged.
    pub logging: Logging,
}

/// Workers for this machine: one for each core.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs until SIGTERM or SIGINT.
#[expect(
    clippy::too_many_lines,
    reason = "everything is built here, in the one order in which it can be"
)]
pub fn run(options: Options) -> Result<()> {
    let Options {
        layout,
        descriptors,
        workers,
        drain,
        bus,
        watched,
        steering,
        acceleration,
        logging,
    } = options;
    raise_descriptors();
    // Held until the process ends, however it ends.
    let _single = layout.claim()?;
    let (events, core_events) = core::channel();
    let acceleration = accelerate(acceleration);
    let (pressure, fronts) = (Pressure::default(), Fronts::default());
    let ledger = Ledger::new(workers);
    let proxy = {
        let (pressure, fronts) = (pressure.clone(), fronts.clone());
        let (acceleration, ledger) = (acceleration.clone(), ledger.clone());
        move || {
            let (acceleration, ledger) = (acceleration.clone(), ledger.clone());
            Proxy::new(pressure.clone(), fronts.clone(), acceleration, ledger)
        }
    };
    let senders = start_workers(workers, &events, &proxy)?;
    let kept = kept(&layout, descriptors)?;
    let (steer, mut steered) = steer(steering, workers, &kept);
    steered.watch.listing = with_acceleration(steered.watch.listing, acceleration.clone());
    let own = OwnSockets::new(&kept).context("taking up listening sockets")?;
    let (core, changed) = Core::new(
        events.clone(),
        senders.clone(),
        steer,
        acceleration.clone(),
        own,
        fronts,
        ledger.clone(),
    );
    spawn("core".to_owned(), move |runtime| {
        runtime.block_on(core.run(core_events));
    })?;

    // Dropped last: connections that are drained need their routes.
    let routes = Arc::new(Routes::default());
    let control = build().context("starting the control runtime")?;
    control.block_on(async {
        let disk = Watcher::new(&layout)?;
        let (reload, reloads) = mpsc::channel::<Reload>(1);
        let (stop, stops) = mpsc::channel::<()>(1);
        let health = Health::new(senders.clone(), events.clone());
        let listing = steered.watch.listing.clone();
        let doors = Doors::new(&kept.descriptors);
        let (asking, answering) = units(bus);
        let mut reconciler = Reconciler::new(
            layout.clone(),
            events.clone(),
            workers,
            routes.clone(),
            doors.clone(),
            logging,
            asking,
        );
        // Who can not be watched can still work.
        let _metrics = observe::serve(
            layout.runtime(),
            watched,
            reconciler.published(),
            health.clone(),
            steered.watch,
            acceleration.clone(),
            ledger,
        )
        .await
        .inspect_err(|error| tracing::error!(error = telemetry::chain(error), "metrics"));
        reconciler.sync().await?;
        let_in(&events, &senders, steered.table, steered.sockets).await;
        service::throw_away(&kept);
        doors.attend();
        let published = reconciler.published();
        // Aborted when this block ends.
        let mut told = JoinSet::new();
        told.spawn(service::status(published.clone()));
        told.spawn(service::watchdog(health));
        told.spawn(service::memory(pressure));
        told.spawn(control::units(bus, answering));
        let reconcile = tokio::spawn(reconciler.run(disk, changed, reloads, stops));
        let (end, mut ends) = mpsc::channel(1);
        let control = Control {
            layout: layout.clone(),
            published,
            steering: listing,
            acceleration: acceleration.clone(),
            reload: reload.clone(),
            stop: end.clone(),
        };
        let (bus_ready, bus_tried) = oneshot::channel();
        if let Some(bus) = bus {
            control::serve(bus, control, bus_ready);
            // Whoever waits for the daemon may call it next.
            drop(bus_tried.await);
        }
        tracing::info!(workers, namespaces = %layout.input_namespaces().display(), "ready");
        tell(&[NotifyState::Ready]);
        tokio::select! {
            ended = signals(&reload) => ended?,
            _ = ends.recv() => {}
        }
        tell(&[NotifyState::Stopping]);
        refuse_or_leave(&events, &kept.keeper, bus).await;
        // Nothing is applied any more.
        drop(stop);
        reconcile.await.context("reconcile loop")?;
        let_end(&senders, &acceleration, drain.unwrap_or(DRAIN)).await
    })?;
    kept.keeper.flush();
    tracing::info!("stopped");
    Ok(())
}

/// Starts the threads that carry connections; each has a proxy of its own.
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
        spawn(format!("worker-{index}"), move |runtime| {
            let worker = Worker::run(index, senders, events, proxy(), commands);
            LocalSet::new().block_on(&runtime, worker);
        })?;
    }
    Ok(senders)
}

/// Has workers accept, once the listeners of all sites have their places: only then who owns which is
/// known, and nobody is taken for another's client.
async fn let_in(
    events: &CoreSender,
    senders: &Senders,
    table: Arc<Table>,
    sockets: Vec<Vec<TcpListener>>,
) {
    let (settled, all) = oneshot::channel();
    events.call(move |core| core.applied(settled)).await;
    drop(all.await);
    for (worker, sockets) in sockets.into_iter().enumerate() {
        let (key, table) = (STEERED, table.clone());
        let steered = Command::Steered {
            key,
            table,
            sockets,
        };
        senders.send(worker, steered);
    }
}

/// Has new clients refused, or leaves them to the next process where there is to be one.
async fn refuse_or_leave(events: &CoreSender, keeper: &Keeper, bus: Option<Bus>) {
    let restarting = keeper.keeps()
        && match bus {
            Some(bus) => control::restarting(bus).await,
            None => false,
        };
    if restarting {
        tracing::info!("new clients wait for the next process");
    } else {
        events.call(Core::close).await;
    }
}

/// Whether units are ready: those of the user whose bus it is, or the system's.
fn units(bus: Option<Bus>) -> (workload::Asking, workload::Answering) {
    let session = bus.filter(|bus| *bus == Bus::Session);
    workload::states(session.map(|_| sys::user()))
}

/// Gives connections time to end. They are cut at the deadline, or at a second signal.
async fn let_end(senders: &Senders, acceleration: &Acceleration, deadline: Duration) -> Result<()> {
    tracing::info!(seconds = deadline.as_secs(), "draining");
    let done = (0..senders.count()).map(|worker| {
        let (done, wait) = oneshot::channel();
        senders.send(worker, Command::Drain(done));
        wait
    });
    let all = async {
        for wait in done.collect::<Vec<_>>() {
            drop(wait.await);
        }
        settled(acceleration).await;
    };
    let drained = tokio::time::timeout(deadline, all);
    let mut term = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        result = drained => match result {
            Ok(()) => tracing::info!("all connections have ended"),
            Err(_) => tracing::warn!("connections are cut at the deadline"),
        },
        _ = term.recv() => tracing::warn!("connections are cut at a second signal"),
    }
    Ok(())
}

/// What passes from an earlier process to this one, and from this one to the next.
fn kept(layout: &Layout, descriptors: Descriptors) -> Result<Kept> {
    Ok(Kept {
        instance: layout.instance(),
        home: home(layout),
        keeper: Keeper::of_service(&descriptors)
            .context("starting the thread that keeps sockets")?,
        descriptors,
    })
}

/// Where BPF programs outlive the daemon: what its unit gives it, or the place for all of this host.
fn home(layout: &Layout) -> PathBuf {
    let given = layout.runtime().join("bpf");
    if sys::is_bpffs(&given) {
        given
    } else {
        steer::HOME.into()
    }
}

/// What of steering is not the core's.
struct Steering {
    table: Arc<Table>,
    /// Accept sockets, by worker.
    sockets: Vec<Vec<TcpListener>>,
    watch: observe::Steering,
}

/// Has the kernel steer connections to the workers, and says whether it does or why not.
fn steer(wanted: bool, workers: usize, kept: &Kept) -> (Option<Box<dyn Steer>>, Steering) {
    let started = if wanted {
        steer::start(workers, kept)
    } else {
        Err(NotSteered::Off)
    };
    match started {
        Ok(steered) => {
            tracing::info!("steering is on: the kernel gives connections to listeners");
            match &steered.not_kept {
                None => tracing::info!("clients wait while this daemon is restarted"),
                Some(why) => tracing::info!(why, "clients are refused in a restart"),
            }
            let watch = observe::Steering {
                meter: Some(steered.meter),
                listing: steered.listing,
            };
            let (table, sockets) = (steered.table, steered.sockets);
            let rest = Steering {
                table,
                sockets,
                watch,
            };
            (Some(steered.steer), rest)
        }
        Err(why) => {
            steer::discard(kept);
            let why = telemetry::chain(&why);
            tracing::info!(why, "steering is off: listeners have sockets of their own");
            let listing = Listing {
                reason: Some(why),
                kept: kept.keeper.keeps(),
                ..Listing::default()
            };
            let watch = observe::Steering {
                meter: None,
                listing: Arc::new(move || listing.clone()),
            };
            let rest = Steering {
                table: Arc::default(),
                sockets: Vec::new(),
                watch,
            };
            (None, rest)
        }
    }
}

/// What is steered where, with how acceleration stands.
fn with_acceleration(listing: Lister, acceleration: Arc<Acceleration>) -> Lister {
    Arc::new(move || Listing {
        acceleration: Some(acceleration.standing()),
        ..listing()
    })
}

/// Acceleration, of which it is said now if it can not be had.
fn accelerate(wanted: bool) -> Arc<Acceleration> {
    let acceleration = Acceleration::new(wanted);
    if let Err(why) = acceleration.state()
        && !matches!(why, NotAccelerated::Unused)
    {
        let why = telemetry::chain(why);
        tracing::info!(why, "acceleration is off");
    }
    acceleration
}

/// Waits until other programs have read what came to them by acceleration: it ends with the daemon.
async fn settled(acceleration: &Acceleration) {
    // Nobody tells when a program reads.
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    while !acceleration.is_settled() {
        looks.tick().await;
    }
}

/// Waits for a signal to stop; SIGHUP reads everything again.
async fn signals(reload: &mpsc::Sender<Reload>) -> Result<()> {
    let mut hup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let mut term = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    loop {
        // All arms are cancel-safe: a signal that is not taken now is taken at the next turn.
        tokio::select! {
            _ = hup.recv() => {
                tracing::info!("reloading");
                service::reloading();
                let (done, reloaded) = oneshot::channel();
                if reload.send(done).await.is_ok() {
                    drop(reloaded.await);
                }
                tell(&[NotifyState::Ready]);
            }
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        }
    }
}

fn build() -> std::io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

fn spawn(name: String, run: impl FnOnce(runtime::Runtime) + Send + 'static) -> Result<()> {
    let runtime = build().with_context(|| format!("starting the runtime of {name}"))?;
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            run(runtime);
        })
        .with_context(|| format!("starting thread {name}"))?;
    Ok(())
}

/// Every connection is a descriptor: takes as many as the system lets us have.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "limit of open files stays as it is");
    }
}
