//! What workers know of a site: an immutable snapshot, replaced as a whole.

use crate::{
    flows::SiteName,
    link::conn::ConnKey,
    model::{ConnectorSettings, ObserverMode},
    router::{LocalCandidate, Routes},
    service::{allowed::AllowedSites, failures::LastFailure, tls::ConnectorTls},
    telemetry::Failures,
};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

/// Connections that a server counts for which is avoided, beside those that it has. Above the cost of any
/// path but those of links that are the last resort by their cost.
const AVOIDED_LOAD: u32 = 1 << 30;

/// Where a connector's server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHost {
    Ip(IpAddr),
    /// A name, looked up for each connection.
    Name(String),
    Unix(PathBuf),
}

impl std::fmt::Display for TargetHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connector's server, with what is in use of it.
#[derive(Debug)]
pub struct ConnectorTarget {
    /// Name within this process.
    pub id: u64,
    /// Name of the resource.
    pub name: String,
    pub host: TargetHost,
    pub port: u16,
    pub accelerated: AtomicBool,
    /// How to use TLS with it.
    pub tls: Option<Arc<ConnectorTls>>,
    /// Settings of the resource.
    pub settings: ConnectorSettings,
    /// Sites whose clients it serves; `None` serves all.
    pub sites: Option<Arc<AllowedSites>>,
    /// Why the last connection to it failed.
    pub last_failure: LastFailure,
    /// Connections to it that failed.
    pub failures: Failures,
    /// Open connections.
    pub in_use: AtomicU32,
    /// Connections so far.
    pub connections: AtomicU64,
}

/// A listener, as workers see it.
#[derive(Clone, Debug)]
pub struct ListenerView {
    pub name: Arc<str>,
    pub observer: ObserverMode,
}

#[derive(Debug, Default)]
pub struct SiteView {
    pub site: Arc<SiteName>,
    /// Its vanflow source.
    pub source: Arc<str>,
    pub listeners: HashMap<u64, ListenerView>,
    pub routes: Arc<Routes>,
    /// Connectors by routing key.
    pub connectors: HashMap<String, Vec<Arc<ConnectorTarget>>>,
    /// Connectors that are not offered: they keep their connections and get no new ones.
    pub withheld: Vec<Arc<ConnectorTarget>>,
    /// Routing keys with a connector that needs the origin of clients.
    pub origins: HashSet<String>,
    /// Workers that have a connection for streams on a link.
    pub workers: HashMap<ConnKey, Vec<usize>>,
}

impl SiteView {
    /// Connectors of a routing key on this host.
    pub fn targets_of(&self, key: &str) -> &[Arc<ConnectorTarget>] {
        self.connectors.get(key).map_or(&[], Vec::as_slice)
    }

    /// The same, as candidates of the router's choice. One that has just failed counts as busier than any
    /// other, here or elsewhere.
    pub fn local_candidates(&self, key: &str) -> Vec<LocalCandidate> {
        let now = Instant::now();
        let candidate = |target: &Arc<ConnectorTarget>| {
            let in_use = target.in_use.load(Ordering::Relaxed);
            LocalCandidate {
                id: target.id,
                in_use: match target.last_failure.is_avoided(now) {
                    true => in_use.saturating_add(AVOIDED_LOAD),
                    false => in_use,
                },
            }
        };
        self.targets_of(key).iter().map(candidate).collect()
    }

    /// All connectors.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<ConnectorTarget>> {
        self.connectors.values().flatten().chain(&self.withheld)
    }

    /// Ids of connectors that the next view does not have. With thousands of connectors each change
    /// brings a view, and no worker carries anything meanwhile.
    pub fn gone_in(&self, next: &Self) -> Vec<u64> {
        let there: HashSet<u64> = next.targets().map(|target| target.id).collect();
        let ids = self.targets().map(|target| target.id);
        ids.filter(|id| !there.contains(id)).collect()
    }

    /// A routing key has a connector, here or elsewhere.
    pub fn reaches(&self, key: &str) -> bool {
        let route = self.routes.addresses.get(key);
        route.is_some_and(|r| !r.remotes.is_empty()) || self.connectors.contains_key(key)
    }

    /// A worker that carries streams on this link.
    pub fn worker_of(&self, link: ConnKey) -> Option<usize> {
        self.workers.get(&link)?.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn target(id: u64) -> Arc<ConnectorTarget> {
        Arc::new(ConnectorTarget {
            id,
            name: String::new(),
            host: TargetHost::Name(String::new()),
            port: 0,
            accelerated: AtomicBool::new(false),
            tls: None,
            settings: ConnectorSettings::default(),
            sites: None,
            last_failure: LastFailure::default(),
            failures: Failures::default(),
            in_use: AtomicU32::new(0),
            connections: AtomicU64::new(0),
        })
    }

    fn view(targets: &[Arc<ConnectorTarget>]) -> SiteView {
        let connectors = targets.iter().map(|t| (t.id.to_string(), vec![t.clone()]));
        SiteView {
            connectors: connectors.collect(),
            ..SiteView::default()
        }
    }

    #[test]
    fn a_server_that_has_just_failed_is_the_last_choice() {
        let targets = [target(1), target(2)];
        let mut view = view(&targets);
        view.connectors = [("key".to_owned(), targets.to_vec())].into();
        let load = |view: &SiteView| {
            let candidates = view.local_candidates("key");
            candidates.iter().map(|c| c.in_use).collect::<Vec<_>>()
        };
        targets[1].in_use.store(7, Ordering::Relaxed);
        assert_eq!(load(&view), [0, 7]);
        targets[0].last_failure.set("no answer", Instant::now());
        assert_eq!(load(&view), [AVOIDED_LOAD, 7]);
        targets[0].last_failure.clear();
        assert_eq!(load(&view), [0, 7]);
    }

    /// Each pair of connectors was compared: 1.5 s of a worker's time for 8,000.
    #[test]
    fn what_is_gone_is_found_in_a_time_linear_in_the_number_of_connectors() {
        let targets: Vec<_> = (0..50_000).map(target).collect();
        let (before, mut after) = (view(&targets), view(&targets[1..]));
        // Unwell ones are still there.
        let key = targets[1].id.to_string();
        after.withheld = after.connectors.remove(&key).unwrap_or_default();
        let begin = Instant::now();
        assert_eq!(before.gone_in(&after), [0]);
        assert!(after.gone_in(&before).is_empty());
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}
