//! The loop: when to read, apply and report.
//!
//! The [`Reconciler`] owns the state of every namespace, the finder of servers that selectors match, and
//! the published snapshot of resources and statuses. The daemon makes one, calls [`Reconciler::sync`]
//! for what is there at the start, and runs it on the main thread until it stops.
//!
//! It syncs when files or addresses of the host change, a token was redeemed, a reload is requested, a
//! certificate is due, a failed step is due again (1 s), and at least every [`RESYNC`]. It reports
//! statuses after each sync, and at most 50 ms after the network or a server has changed.
//!
//! Files are read and written, and servers looked for, on threads for blocking work: a disk that stalls
//! never stops the main thread. A sync waits for the answers of the core and for what it needs on disk,
//! such as a certificate; statuses and grants are written beside it. The loop decides nothing about a
//! resource: that is `namespace` and `kind`.

mod statuses;
mod timers;

use super::{attachments::Attachments, namespace::NamespaceState};
use crate::{
    access::GrantSockets,
    core::CoreHandle,
    model::Namespace,
    netlink::local_routes::LocalRoutes,
    store::{BatchResult, Layout, ResourceSnapshot, StoreError, Watcher},
    sys::AddressWatcher,
    telemetry::{self, Failures, LogLevels, Logging},
    workload::{UnitStateReader, WorkloadFinder, WorkloadQuery},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    sync::Arc,
    time::Duration,
};
use timers::{LoopTimers, RESYNC, RETRY, WORKLOAD_INTERVAL};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

/// Interval of syncs while changes of files are not noticed.
const UNWATCHED: Duration = Duration::from_secs(5);
/// Changes of addresses within this time are followed together.
const ADDRESSES_DELAY: Duration = Duration::from_millis(200);

/// A request to read everything again. It is answered when that is done.
pub type Reload = oneshot::Sender<()>;

/// Keeps what runs in every namespace in step with its resources.
pub struct Reconciler {
    context: NamespaceContext,
    /// Moved to a thread during a sync.
    namespaces: Namespaces,
    /// Statuses that are being written.
    status_writers: JoinSet<(Namespace, BatchResult)>,
    /// Moved to a thread while it looks.
    finder: WorkloadFinder,
    /// Whether the units of servers are ready.
    unit_states: UnitStateReader,
    /// Resources and statuses, for D-Bus and metrics.
    published: watch::Sender<Arc<ResourceSnapshot>>,
    /// The same before its files are written, for lists.
    latest: watch::Sender<Arc<ResourceSnapshot>>,
    logging: Logging,
    sync_failures: Failures,
    scan_failures: Failures,
}

type Namespaces = BTreeMap<Namespace, NamespaceState>;

/// What every namespace uses.
#[derive(Clone)]
struct NamespaceContext {
    layout: Layout,
    core: CoreHandle,
    workers: usize,
    routes: Arc<LocalRoutes>,
    /// A token was redeemed (one of ours elsewhere, or one of a grant here), or grants were written.
    redeemed: Arc<Notify>,
    /// Ports of grant servers that the service manager has opened.
    grant_sockets: GrantSockets,
}

impl Reconciler {
    /// A reconciler that has applied nothing yet. The local routes outlive it: connections need
    /// them until they have ended.
    pub fn new(
        layout: Layout,
        core: CoreHandle,
        workers: usize,
        routes: Arc<LocalRoutes>,
        grant_sockets: GrantSockets,
        logging: Logging,
        unit_states: UnitStateReader,
    ) -> Self {
        Self {
            context: NamespaceContext {
                layout,
                core,
                workers,
                routes,
                redeemed: Arc::default(),
                grant_sockets,
            },
            namespaces: BTreeMap::new(),
            status_writers: JoinSet::new(),
            finder: WorkloadFinder::default(),
            unit_states,
            published: watch::Sender::default(),
            latest: watch::Sender::default(),
            logging,
            sync_failures: Failures::new(),
            scan_failures: Failures::new(),
        }
    }

    /// Resources and statuses, as they change.
    pub fn published(&self) -> watch::Receiver<Arc<ResourceSnapshot>> {
        self.published.subscribe()
    }

    /// Resources and statuses, never older than a file. They are published when they are on disk.
    pub fn latest(&self) -> watch::Receiver<Arc<ResourceSnapshot>> {
        self.latest.subscribe()
    }

    /// Runs until `stop` is dropped.
    pub async fn run(
        mut self,
        mut disk: Watcher,
        mut network: watch::Receiver<u64>,
        mut reload: mpsc::Receiver<Reload>,
        mut stop: mpsc::Receiver<()>,
    ) {
        let mut timers = LoopTimers::new(Instant::now());
        let mut reloads: Vec<Reload> = Vec::new();
        let redeemed = self.context.redeemed.clone();
        // Without it a sync in any case follows within RESYNC.
        let addresses = AddressWatcher::new();
        let mut addresses = addresses.inspect_err(log_watch_error).ok();
        loop {
            self.schedule_sync(&mut timers);
            if !disk.is_watching() {
                timers.sync_within(UNWATCHED);
            }
            let in_netns = self
                .namespaces
                .values()
                .any(NamespaceState::has_netns_listeners);
            let selects = self.has_workloads();
            let report_at = timers.report.unwrap_or(timers.sync);
            // All arms are cancel-safe: channels keep what was not received, times are kept here.
            tokio::select! {
                _ = stop.recv() => {
                    self.publish_stopping();
                    return;
                }
                () = disk.changed() => timers.sync = Instant::now(),
                () = sleep_until(timers.netns_scan), if in_netns => {
                    timers.netns_scan = Instant::now() + RETRY;
                    for state in self.namespaces.values_mut() {
                        if state.forget_lost_netns_listeners() {
                            timers.sync = Instant::now();
                        }
                    }
                }
                () = sleep_until(timers.workload_scan), if selects => {
                    if self.rescan_workloads().await {
                        timers.report_soon();
                    }
                    timers.workload_scan = Instant::now() + WORKLOAD_INTERVAL;
                }
                () = self.unit_states.changed(), if selects => {
                    timers.workload_scan = Instant::now();
                    timers.report_soon();
                }
                changed = next_change(addresses.as_ref()) => {
                    if let Err(error) = changed {
                        log_watch_error(&error);
                        addresses = None;
                    }
                    // An interface gets its addresses one after the other.
                    timers.sync_within(ADDRESSES_DELAY);
                }
                () = redeemed.notified() => timers.sync = Instant::now(),
                Some(done) = reload.recv() => {
                    reloads.push(done);
                    timers.sync = Instant::now();
                }
                changed = network.changed() => match changed {
                    Ok(()) => timers.report_soon(),
                    Err(_) => return,
                },
                () = sleep_until(timers.sync) => {
                    timers.sync = Instant::now() + RESYNC;
                    // Before the sync: a directory that is new then is watched or read.
                    disk.rewatch();
                    if let Err(error) = self.sync().await
                        && let Some(suppressed) = self.sync_failures.count_and_report(std::time::Instant::now())
                    {
                        let error = telemetry::chain(&error);
                        tracing::error!(error, suppressed, "cannot read namespaces");
                    }
                    for done in reloads.drain(..) {
                        // The requester may no longer wait.
                        let _ = done.send(());
                    }
                    timers.report = Some(Instant::now());
                }
                () = sleep_until(report_at), if timers.report.is_some() => {
                    timers.report = None;
                    network.mark_unchanged();
                    if !self.report().await {
                        timers.report.get_or_insert(Instant::now() + RETRY);
                    }
                }
                Some(written) = self.status_writers.join_next() => {
                    if !self.statuses_written(written) {
                        timers.report.get_or_insert(Instant::now() + RETRY);
                    }
                }
            }
        }
    }

    /// Brings the next sync forward for failed steps, files that are being written, and certificates.
    fn schedule_sync(&self, timers: &mut LoopTimers) {
        let mut namespaces = self.namespaces.values();
        if namespaces.any(|state| state.has_failures() || state.awaits_writers()) {
            timers.sync_within(RETRY);
        }
        let namespaces = self.namespaces.values();
        if let Some(due) = namespaces.filter_map(NamespaceState::renewal).min() {
            let left = due.duration_since(jiff::Timestamp::now());
            let left = Duration::try_from(left).unwrap_or_default();
            timers.sync_within(left.clamp(RETRY, RESYNC));
        }
    }

    /// Reads everything that is on disk, and applies it.
    pub async fn sync(&mut self) -> Result<(), StoreError> {
        let (context, mut namespaces) =
            (self.context.clone(), std::mem::take(&mut self.namespaces));
        let runtime = Handle::current();
        let sync = tokio::task::spawn_blocking(move || {
            let result = runtime.block_on(context.sync(&mut namespaces));
            (namespaces, result)
        });
        let (namespaces, result) = match sync.await {
            Ok(done) => done,
            Err(error) => resume_panic(error),
        };
        self.namespaces = namespaces;
        result?;
        self.set_log_levels();
        self.rescan_workloads().await;
        Ok(())
    }

    /// The process has one log for all sites: a module logs what the most verbose site asks for.
    fn set_log_levels(&mut self) {
        let mut levels = LogLevels::new();
        for (module, level) in self.namespaces.values().flat_map(NamespaceState::logging) {
            let wanted = levels.entry(module).or_insert(level);
            *wanted = level.max(*wanted);
        }
        self.logging.set_levels(levels);
    }

    fn has_workloads(&self) -> bool {
        let mut namespaces = self.namespaces.values();
        namespaces.any(|state| state.runtime.workloads.queries().next().is_some())
    }

    /// Looks for the servers of selectors. Returns whether they have changed.
    async fn rescan_workloads(&mut self) -> bool {
        let states = self.namespaces.values();
        let queries = states.flat_map(|state| state.runtime.workloads.queries());
        let queries: Vec<WorkloadQuery> = queries.cloned().collect();
        if queries.is_empty() {
            self.unit_states.request(std::iter::empty());
            return false;
        }
        let mut finder = std::mem::take(&mut self.finder);
        let scan = tokio::task::spawn_blocking(move || {
            let found = finder.find(&queries);
            (finder, found)
        });
        let found = match scan.await {
            Ok((finder, found)) => {
                self.finder = finder;
                found
            }
            Err(error) => {
                let now = std::time::Instant::now();
                if let Some(suppressed) = self.scan_failures.count_and_report(now) {
                    tracing::error!(%error, suppressed, "cannot list servers of selectors");
                }
                return false;
            }
        };
        let (mut found, mut changed) = (found.into_iter(), false);
        for state in self.namespaces.values_mut() {
            changed |= state.runtime.workloads.set_matches(&mut found);
        }
        let states = self.namespaces.values();
        let units = states.flat_map(|state| state.runtime.workloads.units());
        self.unit_states.request(units.cloned());
        for (name, state) in &mut self.namespaces {
            if let Err(error) = state.runtime.set_servers(&self.unit_states).await {
                let error = error.text();
                tracing::debug!(namespace = %name, error, "cannot set servers of selectors");
            }
        }
        changed
    }
}

impl NamespaceContext {
    async fn sync(&self, states: &mut Namespaces) -> Result<(), StoreError> {
        self.update_namespaces(states).await?;
        // All of them are read before one is applied: offers and bindings cross namespaces.
        let mut unread = BTreeSet::new();
        let mut attachments = Attachments::default();
        for (name, state) in states.iter_mut() {
            if let Err(error) = state.load() {
                state.log_unread(&error);
                unread.insert(name.clone());
            }
            state.attach(&mut attachments);
        }
        let attachments = Arc::new(attachments);
        for (name, state) in states {
            if !unread.contains(name) {
                state.sync(attachments.clone()).await;
            }
        }
        Ok(())
    }

    /// Adds namespaces that have come, and stops those that are gone.
    async fn update_namespaces(&self, states: &mut Namespaces) -> Result<(), StoreError> {
        let found = self.layout.namespaces()?;
        let is_gone = |name: &Namespace| !found.iter().any(|n| n.name() == name);
        let gone = states.extract_if(.., |name, _| is_gone(name));
        for (_, state) in gone.collect::<Vec<_>>() {
            state.stop().await;
        }
        for namespace in found {
            if let Entry::Vacant(new) = states.entry(namespace.name().clone()) {
                new.insert(NamespaceState::new(
                    namespace,
                    self.core.clone(),
                    self.workers,
                    &self.redeemed,
                    self.routes.clone(),
                    self.grant_sockets.clone(),
                )?);
            }
        }
        Ok(())
    }
}

/// The task was not cancelled, so it panicked.
fn resume_panic(error: JoinError) -> ! {
    std::panic::resume_unwind(error.into_panic())
}

/// Waits for a change of the host's addresses; for ever if they cannot be watched.
async fn next_change(addresses: Option<&AddressWatcher>) -> io::Result<()> {
    match addresses {
        Some(addresses) => addresses.changed().await,
        None => std::future::pending().await,
    }
}

fn log_watch_error(error: &io::Error) {
    tracing::warn!(%error, "cannot watch addresses of this host; looking every 30 s");
}
