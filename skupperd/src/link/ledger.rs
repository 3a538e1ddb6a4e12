//! Who talks with whom: a record of each connection of this host's listeners and connectors, of the
//! requests that were seen on them, and counters of what each service carries.
//!
//! A worker writes its own shelf. Bytes are an addition to cells that nobody else writes; a lock is
//! taken when a connection begins, is served and ends, never for its bytes. Whoever looks takes the
//! lock for as long as it takes to copy pointers.

mod exchange;
mod flow;
mod news;
mod requests;

pub use exchange::{Exchange, Protocol, Unseen};
pub use flow::{Begin, Ending, Entry, Record, Served, Side};
pub use news::{News, Seen};
pub use requests::{RequestKey, RequestRecord};

use flow::Flow;
use news::Item;
use requests::{Request, UnseenCounts};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Ended connections that each worker remembers.
pub const REMEMBERED: usize = 1000;
/// Services that each worker counts apart. What comes after them is counted together, without routing
/// key and remote site: who watches must not run out of memory because of what others call things.
const MAX_SERVICES: usize = 4096;

/// A site by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName {
    /// Namespace on its host; empty where only its owner knows.
    pub namespace: String,
    /// Identity; of an upstream site its router's id.
    pub id: String,
    /// Name.
    pub name: String,
}

impl SiteName {
    /// What is known of the site of a router that says no more: upstream's ids have the form
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

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Which end of it is here.
    pub side: Side,
    /// The site of this host.
    pub here: Arc<SiteName>,
    /// Routing key.
    pub routing_key: Arc<str>,
    /// The site of the other end; without names where it is not known.
    pub there: SiteName,
}

/// Counters of a service. One worker writes them.
#[derive(Debug, Default)]
struct Service {
    opened: AtomicU64,
    closed: AtomicU64,
    read: AtomicU64,
    wrote: AtomicU64,
    /// Taken when a request is over and by whoever looks.
    requests: Mutex<BTreeMap<RequestKey, u64>>,
}

/// What a service has carried since the daemon was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that a server was found for, or that ended without one.
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

/// What one worker has.
#[derive(Debug, Default)]
struct Shelf {
    next: u64,
    live: BTreeMap<u64, Arc<Flow>>,
    ended: VecDeque<Arc<Flow>>,
    requests: VecDeque<Arc<Request>>,
    /// For whoever tells of them, by source.
    news: HashMap<Arc<str>, VecDeque<Item>>,
    services: HashMap<ServiceKey, Arc<Service>>,
}

impl Shelf {
    /// The counters of a service.
    fn service(&mut self, key: ServiceKey) -> Arc<Service> {
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

/// Which connections are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All that are known.
    #[default]
    All,
    /// Those that are open.
    Active,
    /// Those that have ended.
    Terminated,
}

/// What is asked for of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Which connections.
    pub which: Which,
    /// Of this namespace only.
    pub namespace: Option<String>,
    /// So many at most.
    pub limit: usize,
}

/// The records of all workers.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shelves>);

#[derive(Debug)]
struct Shelves {
    shelves: Vec<Mutex<Shelf>>,
    /// Whether anybody waits for news of a worker.
    listened: Vec<AtomicBool>,
    link_errors: Mutex<BTreeMap<(String, &'static str), u64>>,
    unseen: UnseenCounts,
}

impl Ledger {
    /// An empty one for this many workers.
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Shelves {
            shelves: (0..workers).map(|_| Mutex::default()).collect(),
            listened: (0..workers).map(|_| AtomicBool::default()).collect(),
            link_errors: Mutex::default(),
            unseen: UnseenCounts::default(),
        }))
    }

    fn shelf(&self, worker: usize) -> Option<MutexGuard<'_, Shelf>> {
        let shelf = self.0.shelves.get(worker)?;
        Some(shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number unlike those of all other records. Each source counts from 0, which is its router.
    fn number(&self, worker: usize, shelf: &mut Shelf) -> u64 {
        shelf.next += 1;
        shelf.next * self.0.shelves.len() as u64 + worker as u64
    }

    /// A number for a record of something else.
    pub fn new_number(&self) -> u64 {
        self.shelf(0)
            .map_or(0, |mut shelf| self.number(0, &mut shelf))
    }

    /// A connection has begun at a worker.
    pub fn begin(&self, worker: usize, begin: Begin) -> Entry {
        let mut n = 0;
        let flow = match self.shelf(worker) {
            Some(mut shelf) => {
                n = self.number(worker, &mut shelf);
                let flow = Arc::new(Flow::new(n, begin));
                shelf.live.insert(n, flow.clone());
                if flow.side() == Side::Listener {
                    shelf.tell(&flow);
                }
                flow
            }
            // A worker that is not one of ours: what it has is not remembered.
            None => Arc::new(Flow::new(0, begin)),
        };
        Entry::new(self.clone(), worker, n, flow)
    }

    /// What each service has carried.
    pub fn services(&self) -> BTreeMap<ServiceKey, Totals> {
        let mut all: BTreeMap<ServiceKey, Totals> = BTreeMap::new();
        for worker in 0..self.0.shelves.len() {
            let services: Vec<_> = match self.shelf(worker) {
                Some(shelf) => shelf
                    .services
                    .iter()
                    .map(|(key, service)| (key.clone(), service.clone()))
                    .collect(),
                None => continue,
            };
            for (key, service) in services {
                let read = service.read.load(Ordering::Relaxed);
                let wrote = service.wrote.load(Ordering::Relaxed);
                let (sent, received) = key.side.ways(read, wrote);
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
    pub fn records(&self, query: &Query) -> Vec<Record> {
        let Query { which, limit, .. } = *query;
        let wanted = |flow: &&Arc<Flow>| {
            let namespace = query.namespace.as_ref();
            namespace.is_none_or(|namespace| flow.is_of(namespace))
        };
        let mut flows = Vec::new();
        for worker in 0..self.0.shelves.len() {
            let Some(shelf) = self.shelf(worker) else {
                continue;
            };
            if which != Which::Terminated {
                flows.extend(
                    shelf
                        .live
                        .values()
                        .rev()
                        .filter(wanted)
                        .take(limit)
                        .cloned(),
                );
            }
            if which != Which::Active {
                // Not the last that have ended: those that began last.
                flows.extend(shelf.ended.iter().filter(wanted).cloned());
            }
        }
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.began()));
        flows.truncate(limit);
        flows.iter().map(|flow| flow.record()).collect()
    }

    /// A link of a namespace could not be made, or has broken.
    pub fn link_error(&self, namespace: &str, role: &'static str) {
        let errors = self.0.link_errors.lock();
        let mut errors = errors.unwrap_or_else(PoisonError::into_inner);
        *errors.entry((namespace.to_owned(), role)).or_default() += 1;
    }

    /// How often that was, by namespace and role.
    pub fn link_errors(&self) -> BTreeMap<(String, &'static str), u64> {
        let errors = self.0.link_errors.lock();
        errors.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection has a server, or has ended without one: its service counts it.
    fn count(&self, worker: usize, key: ServiceKey) -> Option<Arc<Service>> {
        let service = self.shelf(worker)?.service(key);
        add(&service.opened, 1);
        Some(service)
    }

    /// A connection has ended.
    fn end(&self, worker: usize, n: u64) {
        if let Some(mut shelf) = self.shelf(worker)
            && let Some(flow) = shelf.live.remove(&n)
        {
            shelf.tell(&flow);
            if shelf.ended.len() >= REMEMBERED {
                shelf.ended.pop_front();
            }
            shelf.ended.push_back(flow);
        }
    }
}

#[cfg(test)]
mod tests;
