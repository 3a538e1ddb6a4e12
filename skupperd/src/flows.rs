//! Records of connections and requests of this host's listeners and connectors, and counters of each
//! service.
//!
//! Each worker writes its own [`WorkerFlows`]. Bytes are added to cells that have one writer; a lock is
//! taken when a connection begins, gets a server and ends, never for its bytes. Readers hold the lock
//! while they copy pointers.
//!
//! The proxy writes, on the threads of workers: [`FlowLog::begin`] for each connection. Readers are
//! metrics, API and console on the main thread, and the core, which sends vanflow records (`vanflow`)
//! while a receiver is attached.
//!
//! Bounded: all open connections, the last 1000 ended ones ([`REMEMBERED`]) and the last 1000 requests of
//! each worker, counters of 4096 services. Counters only grow; records that are dropped stay counted.
//!
//! It never reads payload, and writes nothing to disk.

mod connection;
mod exchange;
mod requests;
#[cfg(test)]
mod tests;
mod updates;
pub(crate) mod vanflow;

pub use connection::{ConnectionRecord, ConnectionSide, Ending, FlowStart, FlowWriter, ServerInfo};
pub use exchange::{Exchange, Protocol, StopReason};
pub use requests::{RequestKey, RequestRecord};
pub use updates::{FlowUpdate, ObservedFlow};

use connection::FlowState;
use parking_lot::{Mutex, MutexGuard};
use requests::{ObservedRequest, UnobservedCounts};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use updates::QueuedUpdate;

/// Ended connections that each worker remembers.
pub const REMEMBERED: usize = 1000;
/// Services that each worker counts separately. Further ones are counted together, without routing key
/// and remote site: names that others choose must not exhaust the memory.
const MAX_SERVICES: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName {
    /// Namespace on its host; empty for sites of other hosts.
    pub namespace: String,
    /// ID of the site, or of its router if the site does not announce one.
    pub id: String,
    pub name: String,
}

impl SiteName {
    /// The site of a router that announces nothing else: router IDs of Skupper have the form
    /// `<site>-<seconds>-<nanoseconds>`.
    pub fn of_router(id: &str) -> Self {
        Self {
            namespace: String::new(),
            id: id.to_owned(),
            name: site_name(id).to_owned(),
        }
    }
}

/// The site's name in a router id of the form `<site>-<seconds>-<nanoseconds>`.
pub fn site_name(id: &str) -> &str {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit());
    let cut = id
        .rsplit_once('-')
        .filter(|(_, n)| number(n))
        .map(|(rest, _)| rest);
    let cut = cut
        .and_then(|rest| rest.rsplit_once('-'))
        .filter(|(_, n)| number(n));
    cut.map_or(id, |(name, _)| name)
}

/// A service with counters of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub side: ConnectionSide,
    /// The site of this host.
    pub here: Arc<SiteName>,
    pub routing_key: Arc<str>,
    /// The site of the other end; without names where it is not known.
    pub there: SiteName,
}

/// Counters of a service. One worker writes them.
#[derive(Debug, Default)]
struct ServiceCounters {
    opened: AtomicU64,
    closed: AtomicU64,
    read: AtomicU64,
    wrote: AtomicU64,
    /// Locked when a request is over and by readers.
    requests: Mutex<BTreeMap<RequestKey, u64>>,
}

/// Totals of a service since the daemon was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTotals {
    /// Connections that have got a server, or ended without one.
    pub opened: u64,
    /// Those of them that have ended.
    pub closed: u64,
    /// Bytes from clients to servers.
    pub sent: u64,
    /// Bytes from servers to clients.
    pub received: u64,
    /// Requests that are over, where they are observed.
    pub requests: BTreeMap<RequestKey, u64>,
}

/// Adds to a counter that no other thread writes.
fn add(cell: &AtomicU64, n: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

#[derive(Debug, Default)]
struct WorkerFlows {
    last_number: u64,
    live: BTreeMap<u64, Arc<FlowState>>,
    ended: VecDeque<Arc<FlowState>>,
    requests: VecDeque<Arc<ObservedRequest>>,
    /// Queued for vanflow emitters, by source.
    news: HashMap<Arc<str>, VecDeque<QueuedUpdate>>,
    services: HashMap<ServiceKey, Arc<ServiceCounters>>,
}

impl WorkerFlows {
    fn service(&mut self, key: ServiceKey) -> Arc<ServiceCounters> {
        if let Some(service) = self.services.get(&key) {
            return service.clone();
        }
        let key = match self.services.len() < MAX_SERVICES {
            true => key,
            false => ServiceKey {
                routing_key: "".into(),
                there: SiteName::default(),
                ..key
            },
        };
        self.services.entry(key).or_default().clone()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowFilter {
    #[default]
    All,
    Active,
    Terminated,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub filter: FlowFilter,
    /// Of this namespace only.
    pub namespace: Option<String>,
    pub limit: usize,
}

/// The records of all workers.
#[derive(Clone, Debug)]
pub struct FlowLog(Arc<AllFlows>);

#[derive(Debug)]
struct AllFlows {
    by_worker: Vec<Mutex<WorkerFlows>>,
    /// Whether a vanflow emitter waits for news of a worker.
    listened: Vec<AtomicBool>,
    link_errors: Mutex<BTreeMap<(String, &'static str), u64>>,
    unobserved: UnobservedCounts,
}

impl FlowLog {
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(AllFlows {
            by_worker: (0..workers).map(|_| Mutex::default()).collect(),
            listened: (0..workers).map(|_| AtomicBool::default()).collect(),
            link_errors: Mutex::default(),
            unobserved: UnobservedCounts::default(),
        }))
    }

    fn worker_flows(&self, worker: usize) -> Option<MutexGuard<'_, WorkerFlows>> {
        let worker_flows = self.0.by_worker.get(worker)?;
        Some(worker_flows.lock())
    }

    /// A number that no other record has. 0 is the router of a source.
    fn number(&self, worker: usize, worker_flows: &mut WorkerFlows) -> u64 {
        worker_flows.last_number += 1;
        worker_flows.last_number * self.0.by_worker.len() as u64 + worker as u64
    }

    /// A number for a record that is not a connection.
    pub fn new_number(&self) -> u64 {
        self.worker_flows(0)
            .map_or(0, |mut worker_flows| self.number(0, &mut worker_flows))
    }

    /// A connection has begun at a worker.
    pub fn begin(&self, worker: usize, begin: FlowStart) -> FlowWriter {
        let mut n = 0;
        let flow = match self.worker_flows(worker) {
            Some(mut worker_flows) => {
                n = self.number(worker, &mut worker_flows);
                let flow = Arc::new(FlowState::new(n, begin));
                worker_flows.live.insert(n, flow.clone());
                if flow.side() == ConnectionSide::Listener {
                    worker_flows.notify(&flow);
                }
                flow
            }
            // An unknown worker: its connections are not stored.
            None => Arc::new(FlowState::new(0, begin)),
        };
        FlowWriter::new(self.clone(), worker, n, flow)
    }

    /// Number of open connections, of all workers.
    pub fn open(&self) -> usize {
        let workers = 0..self.0.by_worker.len();
        let open = workers.filter_map(|worker| Some(self.worker_flows(worker)?.live.len()));
        open.sum()
    }

    /// What each service has carried.
    pub fn services(&self) -> BTreeMap<ServiceKey, ServiceTotals> {
        let mut all: BTreeMap<ServiceKey, ServiceTotals> = BTreeMap::new();
        for worker in 0..self.0.by_worker.len() {
            let services: Vec<_> = match self.worker_flows(worker) {
                Some(worker_flows) => worker_flows
                    .services
                    .iter()
                    .map(|(key, service)| (key.clone(), service.clone()))
                    .collect(),
                None => continue,
            };
            for (key, service) in services {
                let read = service.read.load(Ordering::Relaxed);
                let wrote = service.wrote.load(Ordering::Relaxed);
                let (sent, received) = key.side.client_and_server_bytes(read, wrote);
                let closed = service.closed.load(Ordering::Relaxed);
                let totals = all.entry(key).or_default();
                totals.closed += closed;
                totals.opened += service.opened.load(Ordering::Relaxed);
                totals.sent += sent;
                totals.received += received;
                service.add_requests(&mut totals.requests);
            }
        }
        all
    }

    /// The newest connections, newest first.
    pub fn records(&self, query: &Query) -> Vec<ConnectionRecord> {
        let Query { filter, limit, .. } = *query;
        let wanted = |flow: &&Arc<FlowState>| {
            let namespace = query.namespace.as_ref();
            namespace.is_none_or(|namespace| flow.is_of(namespace))
        };
        let mut flows = Vec::new();
        for worker in 0..self.0.by_worker.len() {
            let Some(worker_flows) = self.worker_flows(worker) else {
                continue;
            };
            if filter != FlowFilter::Terminated {
                flows.extend(
                    worker_flows
                        .live
                        .values()
                        .rev()
                        .filter(wanted)
                        .take(limit)
                        .cloned(),
                );
            }
            if filter != FlowFilter::Active {
                // Sorted by the begin of connections, not by their end.
                flows.extend(worker_flows.ended.iter().filter(wanted).cloned());
            }
        }
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.started_at()));
        flows.truncate(limit);
        flows.iter().map(|flow| flow.record()).collect()
    }

    /// Counts a failure of a link of a namespace.
    pub fn link_error(&self, namespace: &str, role: &'static str) {
        let mut errors = self.0.link_errors.lock();
        *errors.entry((namespace.to_owned(), role)).or_default() += 1;
    }

    /// Failures of links by namespace and role.
    pub fn link_errors(&self) -> BTreeMap<(String, &'static str), u64> {
        self.0.link_errors.lock().clone()
    }

    /// Counts a connection that was connected to a server, or ended without one.
    fn count(&self, worker: usize, key: ServiceKey) -> Option<Arc<ServiceCounters>> {
        let service = self.worker_flows(worker)?.service(key);
        add(&service.opened, 1);
        Some(service)
    }

    fn end(&self, worker: usize, n: u64) {
        if let Some(mut worker_flows) = self.worker_flows(worker)
            && let Some(flow) = worker_flows.live.remove(&n)
        {
            worker_flows.notify(&flow);
            if worker_flows.ended.len() >= REMEMBERED {
                worker_flows.ended.pop_front();
            }
            worker_flows.ended.push_back(flow);
        }
    }
}
