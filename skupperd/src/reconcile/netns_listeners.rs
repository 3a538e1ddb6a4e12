//! Listeners in other network namespaces: their sockets, and whether the namespaces still exist.

use super::{error::ReconcileError, rights::Rights};
use crate::{
    model::{Name, Netns},
    steer::{
        bind_range::BindRange,
        netns::{self, NetnsListener, Watch},
    },
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Time between attempts at a namespace that exists: each may start a process.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const SETTING: &str = "network-namespace";

/// What a listener asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NetnsRequest {
    target: Netns,
    ranges: Vec<BindRange>,
    steered: bool,
}

struct OpenListener {
    request: NetnsRequest,
    watch: Watch,
    placed: NetnsListener,
}

struct FailedRequest {
    request: NetnsRequest,
    when: Instant,
    error: ReconcileError,
}

/// The listeners of one namespace of resources that are in other network namespaces.
pub(super) struct NetnsListeners {
    open: BTreeMap<Name, OpenListener>,
    failed: BTreeMap<Name, FailedRequest>,
    /// The kernel is to steer where it can.
    steered: bool,
    rights: Rights,
}

impl NetnsListeners {
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
            steered: false,
            rights: Rights::default(),
        }
    }

    pub(super) fn set_rights(&mut self, rights: Rights) {
        self.rights = rights;
    }

    /// Has listeners steered from now on, or not. Open ones change with [`Self::take_lost`].
    pub(super) fn set_steered(&mut self, steered: bool) {
        self.steered = steered;
    }

    pub(super) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// Forgets a listener. Its sockets are closed with its specification.
    pub(super) fn remove(&mut self, name: &Name) {
        self.open.remove(name);
        self.failed.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.failed.clear();
    }

    /// Takes out the listeners whose namespaces are gone, or for which steering was switched on or off.
    pub(super) fn take_lost(&mut self) -> Vec<Name> {
        let steered = self.steered;
        let is_lost = |open: &OpenListener| open.request.steered != steered || !open.watch.holds();
        let lost = self.open.extract_if(.., |_, open| is_lost(open));
        lost.map(|(name, _)| name).collect()
    }

    /// How a listener is reached, if nothing has to be opened for it: it is open already, or others are
    /// steered to where it is to be. Otherwise it is forgotten.
    pub(super) fn reuse(
        &mut self,
        name: &Name,
        target: &Netns,
        ranges: &[BindRange],
    ) -> Option<NetnsListener> {
        let request = self.request(target, ranges);
        let allowed = self.rights.ensure().is_ok();
        let open = self.open.get(name).filter(|_| allowed);
        let same = open.filter(|open| open.request == request && open.watch.holds());
        if let Some(open) = same {
            return Some(open.placed.clone());
        }
        self.open.remove(name);
        if !allowed {
            return None;
        }
        let beside = self.open.values().find(|open| {
            let steered = request.steered && matches!(open.placed, NetnsListener::Steered(_));
            steered && open.request.target == request.target && open.watch.holds()
        });
        let placed = beside?.placed.clone();
        let watch = target.watch().ok()?;
        let listener = OpenListener {
            request,
            watch,
            placed: placed.clone(),
        };
        self.open.insert(name.clone(), listener);
        Some(placed)
    }

    fn request(&self, target: &Netns, ranges: &[BindRange]) -> NetnsRequest {
        NetnsRequest {
            target: target.clone(),
            ranges: ranges.to_vec(),
            steered: self.steered,
        }
    }

    /// Opens sockets for a listener, one for each worker.
    pub(super) async fn open(
        &mut self,
        name: &Name,
        target: Netns,
        ranges: Vec<BindRange>,
        workers: usize,
    ) -> Result<NetnsListener, ReconcileError> {
        let failed = |reason: String| ReconcileError::setting(SETTING, reason);
        // Other network namespaces are for administrators of the host: an author of resources
        // could listen anywhere.
        self.rights.ensure().map_err(failed)?;
        let watch = target.watch().map_err(failed)?;
        let request = self.request(&target, &ranges);
        if let Some(before) = self.failed.get(name)
            && before.request == request
            && before.when.elapsed() < RETRY_INTERVAL
        {
            return Err(before.error.clone());
        }
        let wanted = request.clone();
        let open =
            move || netns::open_listener(&wanted.target, &wanted.ranges, workers, wanted.steered);
        let opened = tokio::task::spawn_blocking(open).await;
        match opened.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(placed) => {
                self.failed.remove(name);
                let listener = OpenListener {
                    request,
                    watch,
                    placed: placed.clone(),
                };
                self.open.insert(name.clone(), listener);
                Ok(placed)
            }
            Err(error) => {
                let error = failed(error);
                let failed = FailedRequest {
                    request,
                    when: Instant::now(),
                    error: error.clone(),
                };
                self.failed.insert(name.clone(), failed);
                Err(error)
            }
        }
    }
}
