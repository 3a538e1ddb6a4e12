//! Making what runs what is on disk: load, plan, execute, say how it stands.

mod addresses;
mod attached;
mod certificates;
mod ends;
mod execute;
mod grants;
mod hosts;
mod names;
mod namespace;
mod notes;
mod placed;
mod places;
mod policy;
mod settings;
mod status;
mod tokens;
mod workloads;

pub(crate) use hosts::{host_names, reachable};
#[cfg(feature = "cli")]
pub(crate) use settings::HOSTS;
pub(crate) use settings::{OVERLAP, REVOKED, ROTATE, named_hosts, revoked};
pub(crate) use tokens::{mark as token_mark, store as store_redeemed};

pub use namespace::NamespaceState;
pub use notes::settings;

use crate::{
    access::Doors,
    link::core::CoreSender,
    model::Namespace,
    steer::routes::Routes,
    store::{Layout, Published, StoreError, Watcher},
    telemetry::{self, LogLevels, Logging},
    workload::{Asking, Finder, Wish},
};
use attached::{Attachments, Standings};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

/// Changes of the network within this time are told of together.
const SETTLE: Duration = Duration::from_millis(50);
/// Interval of a full look at the disk, whatever the watcher said.
const RESYNC: Duration = Duration::from_secs(30);
/// Interval of looks for the servers of selectors.
const LOOK: Duration = Duration::from_millis(250);
/// Interval of attempts at what has failed.
const RETRY: Duration = Duration::from_secs(1);

/// A request to read everything again, which is told when that was done.
pub type Reload = oneshot::Sender<()>;

/// The loop's state.
pub struct Reconciler {
    layout: Layout,
    core: CoreSender,
    trunk: usize,
    routes: Arc<Routes>,
    namespaces: BTreeMap<Namespace, NamespaceState>,
    /// A token was redeemed, here or by others.
    poke: Arc<Notify>,
    /// Ports of grant servers that the service manager has opened.
    doors: Doors,
    /// Looks for the servers of selectors; elsewhere while it does.
    finder: Finder,
    /// Whether their units are ready.
    asking: Asking,
    /// Resources and statuses, for those who show them.
    published: watch::Sender<Arc<Published>>,
    logging: Logging,
}

impl Reconciler {
    /// A reconciler that has applied nothing yet. The local routes outlive it: connections need
    /// them until they have ended.
    pub fn new(
        layout: Layout,
        core: CoreSender,
        trunk: usize,
        routes: Arc<Routes>,
        doors: Doors,
        logging: Logging,
        asking: Asking,
    ) -> Self {
        Self {
            layout,
            core,
            trunk,
            routes,
            namespaces: BTreeMap::new(),
            poke: Arc::default(),
            doors,
            finder: Finder::default(),
            asking,
            published: watch::Sender::default(),
            logging,
        }
    }

    /// Resources and statuses, as they change.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Applies everything that is on disk.
    pub async fn sync(&mut self) -> Result<(), StoreError> {
        let found = self.layout.namespaces()?;
        let gone: Vec<Namespace> = self
            .namespaces
            .keys()
            .filter(|name| !found.iter().any(|n| n.name() == *name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(state) = self.namespaces.remove(&name) {
                state.stop(&self.core).await;
            }
        }
        for namespace in found {
            let name = namespace.name().clone();
            if !self.namespaces.contains_key(&name) {
                let state = NamespaceState::new(
                    namespace,
                    self.trunk,
                    self.poke.clone(),
                    self.routes.clone(),
                    self.doors.clone(),
                )?;
                self.namespaces.insert(name.clone(), state);
            }
        }
        // All of them first: they may have to do with each other.
        let mut unread = BTreeSet::new();
        let mut attachments = Attachments::default();
        for (name, state) in &mut self.namespaces {
            // One namespace's trouble is its own.
            if let Err(error) = state.load() {
                tracing::error!(namespace = %name, error = telemetry::chain(&error), "sync");
                unread.insert(name.clone());
            }
            state.attach(&mut attachments);
        }
        let attachments = Arc::new(attachments);
        for (name, state) in &mut self.namespaces {
            if unread.contains(name) {
                continue;
            }
            if let Err(error) = state.sync(&self.core, attachments.clone()).await {
                tracing::error!(namespace = %name, error = telemetry::chain(&error), "sync");
            }
        }
        // One program has one log: what one site wants to see of it is there for all.
        let mut levels = LogLevels::new();
        for (module, level) in self.namespaces.values().flat_map(NamespaceState::logging) {
            let wanted = levels.entry(module).or_insert(level);
            *wanted = level.max(*wanted);
        }
        self.logging.set(levels);
        self.follow().await;
        Ok(())
    }

    fn has_workloads(&self) -> bool {
        let mut namespaces = self.namespaces.values();
        namespaces.any(|state| state.executor.workloads.wishes().next().is_some())
    }

    /// Looks for the servers of selectors. True: they are not those that they were.
    async fn follow(&mut self) -> bool {
        let states = self.namespaces.values();
        let wishes = states.flat_map(|state| state.executor.workloads.wishes());
        let wishes: Vec<Wish> = wishes.cloned().collect();
        if wishes.is_empty() {
            self.asking.ask(std::iter::empty());
            return false;
        }
        let mut finder = std::mem::take(&mut self.finder);
        let looked = tokio::task::spawn_blocking(move || {
            let found = finder.look(&wishes);
            (finder, found)
        });
        let found = match looked.await {
            Ok((finder, found)) => {
                self.finder = finder;
                found
            }
            Err(error) => {
                tracing::error!(%error, "looking for the servers of selectors");
                return false;
            }
        };
        let (mut found, mut changed) = (found.into_iter(), false);
        for state in self.namespaces.values_mut() {
            changed |= state.executor.workloads.found(&mut found);
        }
        let states = self.namespaces.values();
        let units = states.flat_map(|state| state.executor.workloads.units());
        self.asking.ask(units.cloned());
        for (name, state) in &mut self.namespaces {
            if let Err(error) = state.executor.follow(&self.core, &self.asking).await {
                tracing::debug!(namespace = %name, error, "servers");
            }
        }
        changed
    }

    async fn report(&mut self) {
        let mut standings = Standings::new();
        for (namespace, state) in &self.namespaces {
            let of_site = |(name, bound)| ((namespace.clone(), name), bound);
            standings.extend(state.bound().map(of_site));
        }
        for (name, state) in &mut self.namespaces {
            if let Err(error) = state.report(&self.core, &standings).await {
                tracing::error!(namespace = %name, error = telemetry::chain(&error), "status");
            }
        }
        let namespaces = self.namespaces.iter();
        let all: Published = namespaces
            .map(|(name, state)| (name.clone(), state.statuses.documents().clone()))
            .collect();
        self.published.send_if_modified(|known| {
            let changed = **known != all;
            if changed {
                *known = Arc::new(all);
            }
            changed
        });
    }

    /// Runs until `stop` is dropped.
    pub async fn run(
        mut self,
        mut disk: Watcher,
        mut network: watch::Receiver<u64>,
        mut reload: mpsc::Receiver<Reload>,
        mut stop: mpsc::Receiver<()>,
    ) {
        let mut next_sync = Instant::now() + RESYNC;
        let mut next_report = None;
        let mut next_look = Instant::now() + RETRY;
        let mut next_follow = Instant::now() + LOOK;
        let mut reloads: Vec<Reload> = Vec::new();
        let poke = self.poke.clone();
        loop {
            let failed = self.namespaces.values().any(NamespaceState::has_failures);
            if failed {
                next_sync = next_sync.min(Instant::now() + RETRY);
            }
            let now = jiff::Timestamp::now();
            let due = self
                .namespaces
                .values()
                .filter_map(NamespaceState::renewal)
                .min();
            if let Some(due) = due {
                let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
                next_sync = next_sync.min(Instant::now() + left.clamp(RETRY, RESYNC));
            }
            let placed = self.namespaces.values().any(NamespaceState::has_placed);
            let selects = self.has_workloads();
            let report_at = next_report.unwrap_or(next_sync);
            // All arms are cancel-safe: channels keep what was not received, times are kept here.
            tokio::select! {
                _ = stop.recv() => return,
                changed = disk.next() => {
                    if let Err(error) = changed {
                        tracing::error!(error = telemetry::chain(&error), "watching manifests");
                        return;
                    }
                    next_sync = Instant::now();
                }
                () = sleep_until(next_look), if placed => {
                    next_look = Instant::now() + RETRY;
                    for state in self.namespaces.values_mut() {
                        if state.lose_placed() {
                            next_sync = Instant::now();
                        }
                    }
                }
                () = sleep_until(next_follow), if selects => {
                    if self.follow().await {
                        next_report.get_or_insert(Instant::now() + SETTLE);
                    }
                    next_follow = Instant::now() + LOOK;
                }
                () = self.asking.changed(), if selects => {
                    next_follow = Instant::now();
                    next_report.get_or_insert(Instant::now() + SETTLE);
                }
                () = poke.notified() => next_sync = Instant::now(),
                Some(done) = reload.recv() => {
                    reloads.push(done);
                    next_sync = Instant::now();
                }
                changed = network.changed() => match changed {
                    Ok(()) => { next_report.get_or_insert(Instant::now() + SETTLE); }
                    Err(_) => return,
                },
                () = sleep_until(next_sync) => {
                    next_sync = Instant::now() + RESYNC;
                    if let Err(error) = self.sync().await {
                        tracing::error!(error = telemetry::chain(&error), "reading namespaces");
                    }
                    for done in reloads.drain(..) {
                        // Whoever asked may not wait any more.
                        let _ = done.send(());
                    }
                    next_report = Some(Instant::now());
                }
                () = sleep_until(report_at), if next_report.is_some() => {
                    next_report = None;
                    network.mark_unchanged();
                    self.report().await;
                }
            }
        }
    }
}
