//! The picture that workers choose by, made anew where it is stale and nowhere else.

use super::{ConnId, Other, Output, Router};
use crate::router::routes::{AddressRoute, Remote, Treatment};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize},
    },
};

/// What a router has computed since it was made: a measure of its work that no clock disturbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Shortest-path trees.
    pub trees: u64,
    /// Routes of addresses.
    pub routes: u64,
    /// Pictures ([`super::Output::RoutesChanged`]).
    pub pictures: u64,
}

/// What of the picture is to be made anew.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Everything.
    pub(super) all: bool,
    /// Ways to other routers, and everything if they are others.
    pub(super) ways: bool,
    /// Links towards edges.
    pub(super) edges: bool,
    addresses: BTreeSet<String>,
}

impl Stale {
    pub(super) fn address(&mut self, address: &str) {
        if !self.all && !self.addresses.contains(address) {
            self.addresses.insert(address.to_owned());
        }
    }

    /// What a router has said does not hold any more.
    pub(super) fn without(&mut self, other: &Other) {
        self.differs(other, &Other::default());
    }

    /// A router says something else than before.
    pub(super) fn differs(&mut self, before: &Other, after: &Other) {
        for (one, another) in [(before, after), (after, before)] {
            let differing = one
                .mobile
                .iter()
                .filter(|(address, treatment)| another.mobile.get(*address) != Some(treatment));
            differing.for_each(|(address, _)| self.address(address));
        }
        self.edges |= before.edges != after.edges;
    }

    fn is_none(&self) -> bool {
        !self.all && !self.ways && !self.edges && self.addresses.is_empty()
    }
}

/// What the routes of an address share with those that come after them.
#[derive(Debug, Default)]
struct Share {
    turn: Arc<AtomicUsize>,
    /// Deliveries that are under way, by link.
    outstanding: BTreeMap<ConnId, Arc<AtomicU32>>,
}

/// That of all addresses.
#[derive(Debug, Default)]
pub(super) struct Shares {
    by_address: HashMap<Arc<str>, Share>,
    /// Those with something that is to be forgotten when nobody counts with it any more.
    leaving: BTreeSet<Arc<str>>,
}

/// Routes as they are made, with the name that the picture has for each.
type Fresh = HashMap<Arc<str>, AddressRoute>;

/// Those of a set, or all.
fn among<'a, T>(
    held: &'a BTreeMap<String, T>,
    only: Option<&'a BTreeSet<String>>,
) -> Box<dyn Iterator<Item = (&'a String, &'a T)> + 'a> {
    match only {
        None => Box::new(held.iter()),
        Some(only) => Box::new(only.iter().filter_map(|name| held.get_key_value(name))),
    }
}

impl Shares {
    /// The route of an address, made when there is none yet.
    fn route<'a>(
        &mut self,
        fresh: &'a mut Fresh,
        address: &str,
        treatment: Treatment,
    ) -> &'a mut AddressRoute {
        let name = match self.by_address.get_key_value(address) {
            Some((name, _)) => name.clone(),
            None => address.into(),
        };
        let share = self.by_address.entry(name.clone()).or_default();
        let turn = &share.turn;
        let new = || AddressRoute::new(treatment, turn.clone());
        fresh.entry(name).or_insert_with(new)
    }

    fn outstanding(&mut self, address: &str, link: ConnId) -> Arc<AtomicU32> {
        let share = self.by_address.get_mut(address);
        share.map_or_else(Arc::default, |share| {
            share.outstanding.entry(link).or_default().clone()
        })
    }

    /// An address or a link that is gone leaves no counter behind.
    fn forget(
        &mut self,
        address: &Arc<str>,
        is_address: impl Fn(&str) -> bool,
        is_link: impl Fn(ConnId) -> bool,
    ) {
        let Some(share) = self.by_address.get_mut(address) else {
            self.leaving.remove(address);
            return;
        };
        let lives = is_address(address);
        let wanted = |link: ConnId| lives && is_link(link);
        share
            .outstanding
            .retain(|link, count| wanted(*link) || Arc::strong_count(count) > 1);
        if share.outstanding.keys().all(|link| wanted(*link)) {
            self.leaving.remove(address);
            if !lives {
                self.by_address.remove(address);
            }
        } else {
            self.leaving.insert(address.clone());
        }
    }
}

impl Router {
    /// Makes the picture anew where something changed.
    pub(super) fn refresh(&mut self) {
        self.recompute();
        let mut stale = std::mem::take(&mut self.stale);
        if stale.is_none() {
            return;
        }
        // The network is another, even where ways and addresses are not.
        self.out.push_back(Output::RoutesChanged);
        if std::mem::take(&mut stale.ways) {
            let ways = self.new_ways();
            if *self.ways != ways {
                self.ways = Arc::new(ways);
                stale.all = true;
            }
        }
        if stale.is_none() {
            return;
        }
        let only = (!stale.all).then_some(&stale.addresses);
        let mut shares = std::mem::take(&mut self.shares);
        let fresh = self.fresh(only, &mut shares);
        self.work.routes += fresh.len() as u64;
        self.work.pictures += 1;
        let edges = (stale.all || stale.edges).then(|| Arc::new(self.towards_edges()));
        let uplink = self.uplink.link();
        let routes = Arc::make_mut(&mut self.routes);
        routes.routers = self.ways.clone();
        routes.uplink = uplink;
        if let Some(edges) = edges {
            routes.edges = edges;
        }
        let fresh = fresh
            .into_iter()
            .map(|(name, route)| (name, Arc::new(route)));
        let mut touched: BTreeSet<Arc<str>> = shares.leaving.clone();
        if stale.all {
            touched.extend(shares.by_address.keys().cloned());
            routes.addresses = fresh.collect();
        } else {
            let names = stale.addresses.iter();
            for (name, _) in names.filter_map(|a| shares.by_address.get_key_value(a.as_str())) {
                touched.insert(name.clone());
                routes.addresses.remove(name);
            }
            routes.addresses.extend(fresh);
        }
        for address in &touched {
            let is_address = |address: &str| self.routes.addresses.contains_key(address);
            shares.forget(address, is_address, |link| self.is_link(link));
        }
        self.shares = shares;
        self.telling = true;
    }

    /// The picture as it is when all of it is made from nothing.
    #[cfg(test)]
    pub(in crate::router) fn made_anew(&mut self) -> crate::router::Routes {
        self.ways = Arc::new(self.new_ways());
        let addresses = self.fresh(None, &mut Shares::default()).into_iter();
        crate::router::Routes {
            self_id: self.cfg.id.clone(),
            routers: self.ways.clone(),
            addresses: addresses
                .map(|(name, route)| (name, Arc::new(route)))
                .collect(),
            edges: Arc::new(self.towards_edges()),
            mesh: self.routes.mesh.clone(),
            uplink: self.uplink.link(),
        }
    }

    /// Routes of these addresses, or of all.
    fn fresh(&self, only: Option<&BTreeSet<String>>, shares: &mut Shares) -> Fresh {
        let mut fresh = Fresh::new();
        for (address, (treatment, _)) in among(&self.local, only) {
            shares.route(&mut fresh, address, *treatment).local = true;
        }
        for (id, other) in &self.remotes {
            let way = self.ways.get(id);
            let mut name: Option<Arc<str>> = None;
            for (address, treatment) in among(&other.mobile, only) {
                let route = shares.route(&mut fresh, address, *treatment);
                if let Some(way) = way {
                    let name = name.get_or_insert_with(|| id.as_str().into()).clone();
                    let outstanding = shares.outstanding(address, way.next_hop);
                    route.remotes.push(Remote::new(name, way, outstanding));
                }
            }
        }
        for (conn, edge) in &self.edges {
            for (address, _) in among(edge.consumers(), only) {
                if let Some(route) = fresh.get_mut(address.as_str()) {
                    let outstanding = shares.outstanding(address, *conn);
                    let remote = Remote::edge(edge.id().into(), *conn, outstanding);
                    route.remotes.push(remote);
                }
            }
        }
        if let Some((link, id, cost)) = self.uplink.way() {
            for (address, _) in among(self.uplink.reached(), only) {
                let outstanding = |shares: &mut Shares| shares.outstanding(address, link);
                let route = shares.route(&mut fresh, address, Treatment::of(address));
                let remote = Remote::uplink(id.into(), cost, link, outstanding(shares));
                route.remotes.push(remote);
            }
        }
        for route in fresh.values_mut() {
            route
                .remotes
                .sort_by(|a, b| (a.cost, &a.router).cmp(&(b.cost, &b.router)));
        }
        fresh
    }

    /// Links towards edges, by id: the nearest of those who serve it.
    fn towards_edges(&self) -> HashMap<String, ConnId> {
        let mut edges: HashMap<&String, (u32, ConnId)> = HashMap::new();
        for (id, other) in &self.remotes {
            let Some(route) = self.ways.get(id) else {
                continue;
            };
            for edge in &other.edges {
                let way = (route.cost, route.next_hop);
                let best = edges.entry(edge).or_insert(way);
                *best = way.min(*best);
            }
        }
        let served = self.edge_conns().map(|(id, conn)| (id, (0, conn)));
        edges.extend(served);
        let edges = edges.into_iter();
        edges.map(|(id, (_, link))| (id.clone(), link)).collect()
    }

    fn is_link(&self, link: ConnId) -> bool {
        let known = self.links.contains_key(&link) || self.edges.contains_key(&link);
        known || self.uplink.link() == Some(link)
    }
}
