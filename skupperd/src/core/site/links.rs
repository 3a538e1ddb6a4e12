//! Links that this site dials: the specification of each, and why it is down.
//!
//! A task dials each link ([`dial::run`](crate::peering::dial::run)); it has the specification on a
//! channel, and ends when that is dropped here.

use super::{
    effects::{Effect, Effects},
    peers::{Peer, Peers},
};
use crate::{link::conn::ConnKey, messages::LinkFailure, peering::LinkSpec};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};
use tokio::sync::{oneshot, watch};

/// State of a dialled link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The remote router, while the link is operational.
    pub remote: Option<String>,
    /// The last failure since.
    pub failure: Option<String>,
    /// That was that its endpoint is this site's own.
    pub is_own: bool,
    /// Address of the endpoint in use.
    pub endpoint: Option<SocketAddr>,
    /// TLS group of its key exchange.
    pub key_exchange: Option<&'static str>,
    pub since: Option<Timestamp>,
    /// The last failure; kept after the link is up again.
    pub last_failure: Option<String>,
}

struct SiteLink {
    specs: watch::Sender<LinkSpec>,
    failure: Option<String>,
    /// The last failure was that an endpoint is this site's own.
    is_own: bool,
    /// Times that it was up and went down.
    lost: u64,
}

/// Result of [`Links::set`].
#[derive(Debug, PartialEq, Eq)]
pub(in crate::core) enum LinkChange {
    /// Its connections stay, at this cost.
    Kept,
    Dialled,
    /// It is dialled anew: the caller closes the connections that it had.
    Redialled,
}

/// Fields of a link that vanflow records need beside its state.
pub(in crate::core) struct DialledLink<'a> {
    pub(in crate::core) host: &'a str,
    pub(in crate::core) port: Option<u16>,
    pub(in crate::core) cost: u32,
    pub(in crate::core) has_proxy: bool,
    pub(in crate::core) lost: u64,
}

#[derive(Default)]
pub(in crate::core) struct Links {
    by_name: BTreeMap<String, SiteLink>,
    /// Dropped to tell a dialling task that its connection has ended.
    alive: HashMap<ConnKey, oneshot::Sender<()>>,
}

impl Links {
    /// Dials a link, or changes what it dials. A changed cost keeps the connection, and so do new
    /// credentials until a connection with them is up.
    pub(in crate::core) fn set(&mut self, spec: LinkSpec, effects: &mut Effects) -> LinkChange {
        let same = |link: &&SiteLink| link.specs.borrow().targets == spec.targets;
        if let Some(link) = self.by_name.get(&spec.name).filter(same) {
            link.specs.send_replace(spec);
            return LinkChange::Kept;
        }
        let name = spec.name.clone();
        let (specs, receiver) = watch::channel(spec);
        let link = SiteLink {
            specs,
            failure: None,
            is_own: false,
            lost: 0,
        };
        effects.push(Effect::Dial(receiver));
        effects.update_status();
        match self.by_name.insert(name, link) {
            None => LinkChange::Dialled,
            Some(_) => LinkChange::Redialled,
        }
    }

    /// Stops dialling. False: there is no such link.
    pub(in crate::core) fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some()
    }

    pub(in crate::core) fn clear(&mut self) {
        self.by_name.clear();
    }

    /// The cost of a link that is dialled here.
    pub(in crate::core) fn cost(&self, name: &str) -> Option<u32> {
        Some(self.by_name.get(name)?.specs.borrow().cost)
    }

    /// Whether a link has more than one endpoint.
    pub(in crate::core) fn has_alternatives(&self, name: &str) -> bool {
        let link = self.by_name.get(name);
        link.is_some_and(|link| link.specs.borrow().targets.len() > 1)
    }

    /// A connection is accepted: the dialling task learns that, and later that it has ended.
    pub(in crate::core) fn connected(
        &mut self,
        key: ConnKey,
        accepted: oneshot::Sender<oneshot::Receiver<()>>,
    ) {
        let (alive, ended) = oneshot::channel();
        // A task that is gone was replaced by another one, or its link was deleted.
        if accepted.send(ended).is_ok() {
            self.alive.insert(key, alive);
        }
    }

    pub(in crate::core) fn disconnected(&mut self, key: ConnKey) {
        self.alive.remove(&key);
    }

    /// An attempt has failed. True: for another reason than the last one.
    pub(in crate::core) fn failed(
        &mut self,
        name: &str,
        failure: &LinkFailure,
        peers: &Peers,
        effects: &mut Effects,
    ) -> bool {
        let Some(link) = self.by_name.get_mut(name) else {
            return false;
        };
        if peers.of_link(name).next().is_none() {
            effects.push(Effect::CountLinkError);
        }
        let text = failure.to_string();
        if link.failure.as_ref() == Some(&text) {
            return false;
        }
        (link.failure, link.is_own) = (Some(text), failure.is_own);
        effects.update_status();
        true
    }

    /// A connection was dialled and cannot carry the link.
    pub(in crate::core) fn refused(&mut self, name: &str, reason: &str, effects: &mut Effects) {
        if let Some(link) = self.by_name.get_mut(name) {
            (link.failure, link.is_own) = (Some(reason.to_owned()), false);
            effects.update_status();
        }
    }

    /// A connection that carried the link has ended.
    pub(in crate::core) fn lost(&mut self, name: &str, reason: &str, effects: &mut Effects) {
        if let Some(link) = self.by_name.get_mut(name) {
            (link.failure, link.is_own) = (Some(reason.to_owned()), false);
            link.lost += 1;
            effects.push(Effect::CountLinkError);
        }
    }

    pub(in crate::core) fn states(&self, peers: &Peers) -> BTreeMap<String, LinkState> {
        let states = self.by_name.iter().map(|(name, link)| {
            let up = peers.of_link(name).filter(|p| p.is_neighbour);
            let up: Option<&Peer> = up.max_by_key(|p| !p.retired);
            let state = LinkState {
                endpoint: up.map(|p| p.addr),
                key_exchange: up.map(|p| p.key_exchange),
                since: up.and_then(|p| p.up_since),
                last_failure: link.failure.clone(),
                remote: up.map(|p| p.remote.clone()),
                failure: link.failure.clone().filter(|_| up.is_none()),
                is_own: link.is_own && up.is_none(),
            };
            (name.clone(), state)
        });
        states.collect()
    }

    /// What is dialled for a link, for its records.
    pub(in crate::core) fn describe<T>(
        &self,
        name: &str,
        with: impl FnOnce(DialledLink<'_>) -> T,
    ) -> Option<T> {
        let link = self.by_name.get(name)?;
        let spec = link.specs.borrow();
        let first = spec.targets.first();
        Some(with(DialledLink {
            host: first.map_or("", |target| &target.host),
            port: first.map(|target| target.port),
            cost: spec.cost,
            has_proxy: spec.proxy.is_some(),
            lost: link.lost,
        }))
    }
}

#[cfg(test)]
mod tests;
