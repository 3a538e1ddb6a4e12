//! One listener: its sockets or steered addresses, and its state.

use crate::{
    core::{
        ListenerSpec, ListenerState,
        site::effects::{Effect, Effects},
    },
    listen::ListenerSockets,
    messages::Command,
    steer::{
        NetnsSteering, SteerError,
        accel::{Acceleration, check_range},
        bind_range::BindRange,
        netns::NetnsListener,
    },
    telemetry,
};
use std::{net::SocketAddr, sync::Arc, time::Instant};

pub(super) struct RunningListener {
    pub(super) id: u64,
    pub(super) spec: ListenerSpec,
    pub(super) state: ListenerState,
    /// Whether the kernel steers clients to it.
    pub(super) steered: bool,
    /// Addresses that it has sockets of its own on.
    own: Vec<SocketAddr>,
    /// An earlier process had it open, and its clients wait.
    pub(super) waits_for_connector: bool,
    pub(super) tried: Option<Instant>,
}

/// A steered listener that waits to be closed, see [`super::listeners`].
pub(super) struct ClosingListener {
    pub(super) id: u64,
    pub(super) bind_ranges: Vec<BindRange>,
    pub(super) cut: bool,
    /// The other network namespace that it is in.
    pub(super) netns: Option<Arc<NetnsSteering>>,
}

/// Where sockets are bound for these bind ranges.
fn addresses(bind_ranges: &[BindRange]) -> Result<Vec<SocketAddr>, SteerError> {
    let of = |range: &BindRange| {
        range
            .sockets()
            .ok_or_else(|| SteerError::only_steered(*range))
    };
    let all: Vec<_> = bind_ranges.iter().map(of).collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

impl RunningListener {
    /// A new listener is closed.
    pub(super) fn new(id: u64, spec: ListenerSpec) -> Self {
        Self {
            id,
            state: ListenerState::default(),
            steered: false,
            own: Vec::new(),
            waits_for_connector: false,
            tried: None,
            spec,
        }
    }

    pub(super) fn state(&self) -> ListenerState {
        let tls = self.spec.policy.as_ref().and_then(|f| f.tls.as_ref());
        ListenerState {
            tls_failures: tls.map_or(0, |tls| tls.failures.count()),
            ..self.state.clone()
        }
    }

    pub(super) fn open_plain(
        &mut self,
        site: u32,
        workers: usize,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) -> Result<(), SteerError> {
        let opened = if let Some(NetnsListener::Own(bound)) = &self.spec.netns_listener {
            let open = bound.listen(workers);
            match self.spec.bind_ranges.first() {
                Some(range) => open.map_err(SteerError::at(*range, "listening"))?,
                None => Vec::new(),
            }
        } else {
            let addrs = addresses(&self.spec.bind_ranges)?;
            let mut all = Vec::new();
            for (n, addr) in addrs.iter().enumerate() {
                match sockets.own.open(*addr, workers) {
                    Ok(opened) => all.extend(opened.into_iter().enumerate()),
                    Err(error) => {
                        let before = addrs.iter().take(n);
                        before.for_each(|addr| sockets.own.close(*addr));
                        return Err(error);
                    }
                }
            }
            self.own = addrs;
            all
        };
        let routing_key: Arc<str> = self.spec.routing_key.as_str().into();
        for (worker, socket) in opened {
            let (listener, routing_key) = (self.id, routing_key.clone());
            let listen = Command::Listen {
                site,
                listener,
                routing_key,
                socket,
            };
            effects.push(Effect::ToWorker(worker % workers, listen));
        }
        Ok(())
    }

    fn has_tls(&self) -> bool {
        let policy = self.spec.policy.as_ref();
        policy.is_some_and(|policy| policy.tls.is_some())
    }

    /// Whether clients are accelerated where that is asked for, or why not all of them.
    pub(super) fn is_accelerated(&self, acceleration: &Acceleration) -> Result<(), String> {
        acceleration
            .state()
            .map_err(|reason| telemetry::chain(reason))?;
        if self.has_tls() {
            return Err("TLS listeners are not accelerated".to_owned());
        }
        if self.spec.netns_listener.is_some() {
            return Err("it is in another network namespace".to_owned());
        }
        let mut bind_ranges = self.spec.bind_ranges.iter();
        Ok(bind_ranges.try_for_each(|range| check_range(*range, self.steered))?)
    }

    /// Sets whether new clients are accelerated: those of this network namespace that do not use
    /// TLS.
    pub(super) fn accelerate(&self, acceleration: &Acceleration, wanted: bool) {
        for range in self.local_ranges() {
            let on = wanted && !self.has_tls();
            acceleration.listen(self.id, *range, self.steered, on);
        }
    }

    /// Its clients are no longer reported.
    pub(super) fn forget(&self, acceleration: &Acceleration) {
        for range in self.local_ranges() {
            acceleration.unlisten(self.id, *range);
        }
    }

    /// Another network namespace that it is in and that is steered in.
    pub(super) fn netns_steering(&self) -> Option<&Arc<NetnsSteering>> {
        match &self.spec.netns_listener {
            Some(NetnsListener::Steered(netns)) => Some(netns),
            _ => None,
        }
    }

    /// Its bind ranges, if they are in this network namespace.
    fn local_ranges(&self) -> impl Iterator<Item = &BindRange> {
        let here = self.spec.netns_listener.is_none();
        self.spec.bind_ranges.iter().filter(move |_| here)
    }

    pub(super) fn opened(
        &mut self,
        outcome: Result<(), SteerError>,
        namespace: &str,
        effects: &mut Effects,
    ) {
        self.tried = Some(Instant::now());
        let name = &self.spec.name;
        self.state.open = outcome.is_ok();
        self.state.steered = self.steered;
        let error = outcome.err().map(|error| error.to_string());
        match &error {
            None => {
                let routing_key = self.spec.keys().join(",");
                tracing::info!(namespace, listener = name, routing_key, "listener is open");
            }
            // Each retry would log the same error: log it once.
            Some(error) if self.state.error.as_ref() == Some(error) => return,
            Some(error) => {
                tracing::warn!(namespace, listener = name, error, "cannot open listener");
            }
        }
        self.state.error = error;
        effects.update_status();
    }

    /// Closes it; one that is steered stays open until the result is dealt with.
    pub(super) fn close(
        &mut self,
        cut: bool,
        namespace: &str,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) -> Option<ClosingListener> {
        self.forget(&sockets.acceleration);
        if std::mem::take(&mut self.state.open) {
            self.state.accelerated = None;
            tracing::info!(namespace, listener = self.spec.name, "listener is closed");
            effects.update_status();
        }
        if std::mem::take(&mut self.steered) {
            let bind_ranges = self.spec.bind_ranges.clone();
            return Some(ClosingListener {
                id: self.id,
                bind_ranges,
                cut,
                netns: self.netns_steering().cloned(),
            });
        }
        for addr in std::mem::take(&mut self.own) {
            sockets.own.close(addr);
        }
        if let Some(NetnsListener::Own(bound)) = &self.spec.netns_listener {
            bound.refuse();
        }
        effects.unlisten(self.id, cut);
        if cut {
            // Workers refuse clients that were accepted and are not served yet.
            sockets.policies.remove(self.id);
        }
        None
    }
}
