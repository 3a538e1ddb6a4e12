//! Who talks with whom: a record of each connection of this host's listeners and connectors, and
//! counters of what each service carries.
//!
//! A worker writes its own shelf. Bytes are an addition to cells that nobody else writes; a lock is
//! taken when a connection begins, is served and ends, never for its bytes. Whoever looks takes the
//! lock for as long as it takes to copy pointers.

mod flow;

pub use flow::{Begin, Ending, Entry, Record, Served, Side};

use flow::Flow;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
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
}

/// What a service has carried since the daemon was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that a server was found for, or that ended without one.
    pub opened: u64,
    /// Those of them that have ended.
    pub closed: u64,
    /// Bytes from clients to servers.
    pub sent: u64,
    /// Bytes from servers to clients.
    pub received: u64,
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
    /// Begins the identities of this life's records.
    prefix: String,
    shelves: Vec<Mutex<Shelf>>,
    link_errors: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl Ledger {
    /// An empty one for this many workers.
    pub fn new(workers: usize) -> Self {
        let mut prefix = super::dial::name();
        // As long as upstream's.
        let prefix = prefix.split_off(prefix.len().saturating_sub(5));
        Self(Arc::new(Shelves {
            prefix,
            shelves: (0..workers).map(|_| Mutex::default()).collect(),
            link_errors: Mutex::default(),
        }))
    }

    fn shelf(&self, worker: usize) -> Option<MutexGuard<'_, Shelf>> {
        let shelf = self.0.shelves.get(worker)?;
        Some(shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection has begun at a worker.
    pub fn begin(&self, worker: usize, begin: Begin) -> Entry {
        let mut n = 0;
        let flow = match self.shelf(worker) {
            Some(mut shelf) => {
                // Unlike those of all other workers.
                n = shelf.next * self.0.shelves.len() as u64 + worker as u64;
                shelf.next += 1;
                let flow = Arc::new(Flow::new(format!("{}:{n}", self.0.prefix), begin));
                shelf.live.insert(n, flow.clone());
                flow
            }
            // A worker that is not one of ours: what it has is not remembered.
            None => Arc::new(Flow::new(String::new(), begin)),
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
                flows.extend(shelf.ended.iter().rev().filter(wanted).take(limit).cloned());
            }
        }
        let mut records: Vec<Record> = flows.iter().map(|flow| flow.record()).collect();
        records.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| b.id.cmp(&a.id)));
        records.truncate(limit);
        records
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
            if shelf.ended.len() >= REMEMBERED {
                shelf.ended.pop_front();
            }
            shelf.ended.push_back(flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(side: Side) -> Begin {
        Begin {
            side,
            site: Arc::new(SiteName {
                namespace: "default".to_owned(),
                id: "1".to_owned(),
                name: "east".to_owned(),
            }),
            entity: "web".into(),
            routing_key: "web".into(),
            client: None,
            peer_id: String::new(),
        }
    }

    fn served(site: &str) -> Served {
        Served {
            site: SiteName {
                name: site.to_owned(),
                ..SiteName::default()
            },
            ..Served::default()
        }
    }

    fn records(ledger: &Ledger, which: Which, limit: usize) -> Vec<Record> {
        ledger.records(&Query {
            which,
            limit,
            namespace: None,
        })
    }

    fn total(ledger: &Ledger) -> Totals {
        let services = ledger.services();
        let mut sum = Totals::default();
        for totals in services.values() {
            sum.opened += totals.opened;
            sum.closed += totals.closed;
            sum.sent += totals.sent;
            sum.received += totals.received;
        }
        sum
    }

    #[test]
    fn bytes_before_a_server_is_known_are_counted_with_it() {
        let ledger = Ledger::new(2);
        let entry = ledger.begin(1, begin(Side::Listener));
        entry.read(3);
        assert_eq!(total(&ledger), Totals::default());
        entry.served(served("west"));
        entry.read(4);
        entry.wrote(5);
        let counted = Totals {
            opened: 1,
            closed: 0,
            sent: 7,
            received: 5,
        };
        assert_eq!(total(&ledger), counted);
        let key = ledger.services().into_keys().next().unwrap();
        assert_eq!(key.there.name, "west");
        entry.end(Ending::Closed);
        entry.finish();
        entry.finish();
        drop(entry);
        assert_eq!(
            total(&ledger),
            Totals {
                closed: 1,
                ..counted
            }
        );
    }

    #[test]
    fn o10_a_record_says_what_became_of_a_connection() {
        let ledger = Ledger::new(1);
        let first = ledger.begin(0, begin(Side::Listener));
        drop(ledger.begin(0, begin(Side::Listener)));
        let of_connector = ledger.begin(0, begin(Side::Connector));
        of_connector.read(10);
        of_connector.wrote(1);
        let all = records(&ledger, Which::All, 10);
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].sent, all[0].received), (1, 10));
        assert_eq!(all[0].ending, None);
        assert_eq!(all[1].ending, Some(Ending::Refused));
        let elsewhere = Query {
            namespace: Some("east".to_owned()),
            limit: 10,
            which: Which::All,
        };
        assert!(ledger.records(&elsewhere).is_empty());
        first.here();
        first.there();
        assert_eq!(records(&ledger, Which::Active, 10).len(), 2);
        first.finish();
        let ended = records(&ledger, Which::Terminated, 1);
        assert_eq!(ended[0].ending, Some(Ending::ResetByClient));
        assert!(ended[0].end.is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_counted_is_not_lost() {
        let ledger = Ledger::new(1);
        let n = REMEMBERED as u64 + MAX_SERVICES as u64 + 10;
        for i in 0..n {
            let entry = ledger.begin(0, begin(Side::Listener));
            entry.tries(&format!("key{i}").into());
            entry.served(served("west"));
            entry.read(1);
        }
        assert_eq!(records(&ledger, Which::All, usize::MAX).len(), REMEMBERED);
        let services = ledger.services();
        assert_eq!(services.len(), MAX_SERVICES + 1);
        let all = total(&ledger);
        assert_eq!((all.opened, all.closed, all.sent), (n, n, n));
    }
}
