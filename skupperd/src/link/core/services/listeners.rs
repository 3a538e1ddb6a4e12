//! Which listeners are open: bound through the kernel's steering where there is such a thing, else
//! by sockets of their own.

use crate::{
    link::{
        core::{Core, ListenerSpec, ListenerState},
        view::SiteView,
        worker::Command,
    },
    model::Observer,
    steer::{Inside, Owner, SteerError, accel::fits, netns::Placed, place::Place},
    telemetry,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Time between attempts to open a listener whose address was taken.
const RETRY: Duration = Duration::from_secs(1);

/// A listener of a site.
pub(super) struct Listener {
    pub(super) id: u64,
    pub(super) spec: ListenerSpec,
    pub(super) state: ListenerState,
    /// It is open by way of the kernel.
    steered: bool,
    /// Addresses that it has sockets of its own on.
    own: Vec<SocketAddr>,
    /// An earlier process had it open, and its clients wait.
    held: bool,
    tried: Option<Instant>,
}

/// A steered listener that is to be closed.
struct Closing {
    id: u64,
    places: Vec<Place>,
    cut: bool,
    /// The other network namespace that it is in.
    inside: Option<Arc<Inside>>,
}

/// The listeners of a site.
pub(super) struct Listeners {
    namespace: String,
    by_name: BTreeMap<String, Listener>,
    /// They are closed together with those that are opened next, so that an address changes hands
    /// without a gap.
    closing: Vec<Closing>,
    /// They have sockets of their own, whatever the kernel can.
    plain: bool,
    /// Connections are accelerated where nothing else is said.
    accelerated: bool,
}

impl Listeners {
    /// None yet, of this namespace.
    pub(super) fn of(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            by_name: BTreeMap::new(),
            closing: Vec::new(),
            plain: false,
            accelerated: false,
        }
    }

    /// Whether listeners are open for clients of an earlier process alone.
    pub(super) fn any_held(&self) -> bool {
        self.by_name.values().any(|listener| listener.held)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Listener> {
        self.by_name.get(name)
    }

    /// Changes what is looked for in a listener's traffic. True: it was something else.
    pub(super) fn observe(&mut self, name: &str, observer: Observer) -> bool {
        let listener = self.by_name.get_mut(name);
        listener.is_some_and(|l| std::mem::replace(&mut l.spec.observer, observer) != observer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Listener)> {
        self.by_name.iter()
    }

    /// Adds a listener, closed at first.
    pub(super) fn add(&mut self, id: u64, spec: ListenerSpec) {
        let listener = Listener {
            id,
            state: ListenerState::default(),
            steered: false,
            own: Vec::new(),
            held: false,
            tried: None,
            spec,
        };
        self.by_name.insert(listener.spec.name.clone(), listener);
    }

    /// Gives listeners sockets of their own or not. True: [`Self::reconsider`] has to follow.
    pub(super) fn set_plain(&mut self, core: &mut Core, plain: bool) -> bool {
        if self.plain == plain {
            return false;
        }
        self.plain = plain;
        for listener in self.by_name.values_mut().filter(|l| l.state.open) {
            self.closing.extend(listener.close(core, false));
        }
        true
    }

    /// Has clients accelerated, of the listeners that do not say it themselves.
    pub(super) fn set_accelerated(&mut self, core: &Core, accelerated: bool) {
        self.accelerated = accelerated;
        for listener in self.by_name.values_mut().filter(|l| l.state.open) {
            let on = listener.spec.acceleration.unwrap_or(accelerated);
            listener.accelerate(core, on);
            listener.state.accelerated = on.then(|| listener.is_accelerated(core));
        }
    }

    /// Removes a listener; its connections end. [`Self::reconsider`] has to follow.
    pub(super) fn remove(&mut self, core: &mut Core, name: &str) -> Option<ListenerSpec> {
        let mut listener = self.by_name.remove(name)?;
        self.closing.extend(listener.close(core, true));
        Some(listener.spec)
    }

    /// Opens listeners whose routing key is reachable and closes those whose is not.
    pub(super) fn reconsider(&mut self, site: u32, core: &mut Core, view: &SiteView) {
        for listener in self.by_name.values_mut() {
            let mut keys = listener.spec.keys();
            keys.retain(|key| view.reaches(key));
            listener.state.matched = !keys.is_empty();
            listener.state.reachable = keys;
            listener.held = !listener.state.matched && core.holds(&listener.spec.places);
            if !listener.state.matched && !listener.held {
                listener.state.error = None;
                if listener.state.open {
                    self.closing.extend(listener.close(core, false));
                }
            }
        }
        self.open(site, core, |_| true);
    }

    /// Opens listeners that could not be opened a while ago.
    pub(super) fn retry(&mut self, site: u32, core: &mut Core) {
        // Before `reconsider` nobody knows which of the new listeners are to have these addresses:
        // closing the old ones alone would refuse clients in between.
        if !self.closing.is_empty() {
            return;
        }
        self.open(site, core, |listener| {
            listener.tried.is_none_or(|at| at.elapsed() >= RETRY)
        });
    }

    /// Closes all and ends their connections.
    pub(super) fn clear(&mut self, site: u32, core: &mut Core) {
        for listener in self.by_name.values_mut() {
            self.closing.extend(listener.close(core, true));
        }
        self.by_name.clear();
        self.open(site, core, |_| false);
    }

    /// Opens what is to be open and is not, and closes what waits to be closed.
    fn open(&mut self, site: u32, core: &mut Core, due: impl Fn(&Listener) -> bool) {
        let opening = self.by_name.values_mut();
        let mut opening: Vec<&mut Listener> = opening
            .filter(|l| (l.state.matched || l.held) && !l.state.open && due(l))
            .collect();
        let mut closing = std::mem::take(&mut self.closing);
        let plain = self.plain || core.steer.is_none();
        let own = opening.extract_if(.., |l| match &l.spec.placed {
            None => plain,
            Some(placed) => matches!(placed, Placed::Own(_)),
        });
        let mut own: Vec<&mut Listener> = own.collect();
        for listener in opening.iter().chain(&own) {
            // One that is accelerated may be around it.
            listener.accelerate(core, false);
        }
        let of = (site, &*self.namespace);
        while let Some(inside) = elsewhere(&closing, &opening) {
            let there =
                |other: Option<&Arc<Inside>>| other.is_some_and(|o| Arc::ptr_eq(o, &inside));
            let closing = closing.extract_if(.., |c| there(c.inside.as_ref()));
            let opening = opening.extract_if(.., |l| there(l.inside()));
            let (closing, mut opening) = (closing.collect(), opening.collect::<Vec<_>>());
            turn(of, core, Some(&inside), closing, &mut opening);
            own.append(&mut opening);
        }
        turn(of, core, None, closing, &mut opening);
        for listener in own.iter_mut().filter(|l| l.inside().is_none()) {
            let opened = listener.open_plain(site, core);
            listener.opened(core, opened);
        }
        for listener in opening.iter_mut().chain(&mut own) {
            let on = listener.spec.acceleration.unwrap_or(self.accelerated);
            if !listener.state.open {
                listener.forget(core);
            } else if on {
                listener.accelerate(core, true);
            }
            let said = on && listener.state.open;
            listener.state.accelerated = said.then(|| listener.is_accelerated(core));
        }
    }
}

/// Another network namespace that is steered in and where one of these listeners is.
fn elsewhere(closing: &[Closing], opening: &[&mut Listener]) -> Option<Arc<Inside>> {
    let closing = closing.iter().filter_map(|c| c.inside.as_ref());
    let opening = opening.iter().filter_map(|l| l.inside());
    closing.chain(opening).next().cloned()
}

/// Closes listeners and opens others by way of the kernel, as one batch, in this network namespace or
/// in another.
fn turn(
    (site, namespace): (u32, &str),
    core: &mut Core,
    inside: Option<&Arc<Inside>>,
    closing: Vec<Closing>,
    opening: &mut [&mut Listener],
) {
    if opening.is_empty() && closing.is_empty() {
        return;
    }
    let begin = opening.iter().flat_map(|listener| {
        let owner = Owner {
            site,
            listener: listener.id,
            routing_key: listener.spec.routing_key.as_str().into(),
            name: Arc::new((namespace.to_owned(), listener.spec.name.clone())),
            slot: 0,
        };
        let places = listener.spec.places.iter();
        places.map(move |place| (*place, owner.clone()))
    });
    let begin = begin.collect();
    let end: Vec<Place> = closing.iter().flat_map(|c| c.places.clone()).collect();
    let mut results = apply(core, inside, &end, begin).into_iter();
    // After the addresses are gone: what is accepted until then is found and cut.
    for Closing { id, cut, .. } in closing {
        unlisten(core, id, cut);
        if cut {
            core.fronts.remove(id);
        }
    }
    let mut half_open = Vec::new();
    for listener in opening {
        let places = &listener.spec.places;
        let results: Vec<_> = results.by_ref().take(places.len()).collect();
        let bound = places.iter().zip(&results).filter(|(_, r)| r.is_ok());
        let bound: Vec<Place> = bound.map(|(place, _)| *place).collect();
        let outcome: Result<Vec<()>, SteerError> = results.into_iter().collect();
        if outcome.is_err() {
            half_open.extend(bound);
        }
        listener.steered = outcome.is_ok();
        listener.opened(core, outcome.map(drop));
    }
    if !half_open.is_empty() {
        apply(core, inside, &half_open, Vec::new());
    }
}

fn apply(
    core: &mut Core,
    inside: Option<&Arc<Inside>>,
    end: &[Place],
    begin: Vec<(Place, Owner)>,
) -> Vec<Result<(), SteerError>> {
    if let Some(inside) = inside {
        core.insides.admit(inside, &core.sender, &core.workers);
        return inside.apply(end, begin);
    }
    let steer = core.steer.as_mut();
    steer.map_or_else(Vec::new, |steer| steer.apply(end, begin))
}

/// Where sockets are bound for these places.
fn addresses(places: &[Place]) -> Result<Vec<SocketAddr>, SteerError> {
    let of = |place: &Place| {
        place
            .sockets()
            .ok_or_else(|| SteerError::only_steered(*place))
    };
    let all: Vec<_> = places.iter().map(of).collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

fn unlisten(core: &Core, listener: u64, cut: bool) {
    for worker in 0..core.workers.count() {
        core.workers
            .send(worker, Command::Unlisten { listener, cut });
    }
}

impl Listener {
    pub(super) fn state(&self) -> ListenerState {
        let tls = self.spec.front.as_ref().and_then(|f| f.tls.as_ref());
        ListenerState {
            tls_failures: tls.map_or(0, |tls| tls.failures.count()),
            ..self.state.clone()
        }
    }

    fn open_plain(&mut self, site: u32, core: &mut Core) -> Result<(), SteerError> {
        let workers = core.workers.count();
        let sockets = if let Some(Placed::Own(bound)) = &self.spec.placed {
            let open = bound.listen(workers);
            match self.spec.places.first() {
                Some(place) => open.map_err(SteerError::at(*place, "listening"))?,
                None => Vec::new(),
            }
        } else {
            let addrs = addresses(&self.spec.places)?;
            let mut sockets = Vec::new();
            for (n, addr) in addrs.iter().enumerate() {
                match core.own.open(*addr, workers) {
                    Ok(opened) => sockets.extend(opened.into_iter().enumerate()),
                    Err(error) => {
                        addrs.iter().take(n).for_each(|addr| core.own.close(*addr));
                        return Err(error);
                    }
                }
            }
            self.own = addrs;
            sockets
        };
        let routing_key: Arc<str> = self.spec.routing_key.as_str().into();
        for (worker, socket) in sockets {
            let (listener, routing_key) = (self.id, routing_key.clone());
            let listen = Command::Listen {
                site,
                listener,
                routing_key,
                socket,
            };
            core.workers.send(worker % workers, listen);
        }
        Ok(())
    }

    fn has_tls(&self) -> bool {
        let front = self.spec.front.as_ref();
        front.is_some_and(|front| front.tls.is_some())
    }

    /// Whether clients are accelerated where that is asked for, or why not all of them.
    fn is_accelerated(&self, core: &Core) -> Result<(), String> {
        core.acceleration
            .state()
            .map_err(|why| telemetry::chain(why))?;
        if self.has_tls() {
            return Err("its clients speak TLS".to_owned());
        }
        if self.spec.placed.is_some() {
            return Err("it is in another network namespace".to_owned());
        }
        let mut places = self.spec.places.iter();
        Ok(places.try_for_each(|place| fits(*place, self.steered))?)
    }

    /// Says of the next clients whether they are accelerated: those of this network namespace that
    /// do not speak TLS.
    fn accelerate(&self, core: &Core, wanted: bool) {
        for place in self.places_here() {
            let on = wanted && !self.has_tls();
            core.acceleration.listen(self.id, *place, self.steered, on);
        }
    }

    /// Nothing is said of its clients any more.
    fn forget(&self, core: &Core) {
        for place in self.places_here() {
            core.acceleration.unlisten(self.id, *place);
        }
    }

    /// Another network namespace that it is in and that is steered in.
    fn inside(&self) -> Option<&Arc<Inside>> {
        match &self.spec.placed {
            Some(Placed::Steered(inside)) => Some(inside),
            _ => None,
        }
    }

    /// Its places, if they are in this network namespace.
    fn places_here(&self) -> impl Iterator<Item = &Place> {
        let here = self.spec.placed.is_none();
        self.spec.places.iter().filter(move |_| here)
    }

    fn opened(&mut self, core: &Core, outcome: Result<(), SteerError>) {
        self.tried = Some(Instant::now());
        let name = &self.spec.name;
        self.state.open = outcome.is_ok();
        self.state.steered = self.steered;
        let error = outcome.err().map(|error| error.to_string());
        match &error {
            None => {
                let routing_key = self.spec.keys().join(",");
                tracing::info!(listener = name, routing_key, "listener is open");
            }
            // It is tried again and again, and said once.
            Some(error) if self.state.error.as_ref() == Some(error) => return,
            Some(error) => tracing::warn!(listener = name, error, "listener is closed"),
        }
        self.state.error = error;
        core.changed();
    }

    /// Closes it; one that is steered stays open until the result is dealt with.
    fn close(&mut self, core: &mut Core, cut: bool) -> Option<Closing> {
        self.forget(core);
        if std::mem::take(&mut self.state.open) {
            self.state.accelerated = None;
            tracing::info!(listener = self.spec.name, "listener is closed");
            core.changed();
        }
        if std::mem::take(&mut self.steered) {
            let places = self.spec.places.clone();
            return Some(Closing {
                id: self.id,
                places,
                cut,
                inside: self.inside().cloned(),
            });
        }
        for addr in std::mem::take(&mut self.own) {
            core.own.close(addr);
        }
        if let Some(Placed::Own(bound)) = &self.spec.placed {
            bound.refuse();
        }
        unlisten(core, self.id, cut);
        if cut {
            // Without it nothing is served to those who were accepted and are not dealt with yet.
            core.fronts.remove(self.id);
        }
        None
    }
}
