//! The other side of it: how an edge hangs on one interior router.
//!
//! Of the links that are up, the cheapest has everything; among equals the one that has been up the
//! longest. The others stand by: their connections are open and nothing is attached. When another
//! takes over, streams that are on the earlier one stay there until they end.

use super::{
    Core, Site,
    clients::encode,
    edges::{DOWNLINK, MESH, MESH_ID, TRACKING, tracked},
    services::LISTENER_ADVERT,
};
use crate::{
    amqp::{
        connection::{AttachArgs, LinkId},
        message::{Message, RouterAnnotations},
        performative::{Open, Role, Source, Target},
        value::{Symbol, Value},
    },
    link::{
        conn::{CREDIT, ConnKey},
        worker::Command,
    },
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

/// Property of `open` by which an interior router of our own kind tells an edge its site.
pub(super) const ADVERT: &str = "io.skupper.site";
/// Longest such text.
const MAX_ADVERT: usize = 512;
/// Credit on the tracking link; upstream's.
const TRACKING_CREDIT: u32 = 32;

/// The site that an interior router says it is of.
pub(super) fn advert_of(open: &Open) -> Option<String> {
    let advert = open.property(ADVERT)?.as_str()?;
    (advert.len() <= MAX_ADVERT).then(|| advert.to_owned())
}

/// What an edge attaches a link for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Purpose {
    /// To say which mesh this is.
    Mesh,
    /// For messages to anywhere.
    Anywhere,
    /// For what is for this router by its id.
    Downlink,
    /// To hear which addresses somebody receives from. Before those: upstream tracks no address
    /// whose link came earlier.
    Tracking,
    /// To receive what is sent to an address.
    Consumer(String),
    /// To send to an address, and to be told of it.
    Producer(String),
}

impl Purpose {
    fn args(&self, router: &str) -> AttachArgs {
        let expiry_policy = Some(Symbol::from("link-detach"));
        let (mut source, mut target) = (
            Source {
                expiry_policy: expiry_policy.clone(),
                ..Source::default()
            },
            Target {
                expiry_policy,
                ..Target::default()
            },
        );
        let mut credit = 0;
        match self {
            Self::Mesh => target.address = Some(MESH.to_owned()),
            Self::Anywhere => {}
            Self::Downlink => {
                credit = CREDIT;
                source.address = Some(router.to_owned());
                source.capabilities.push(DOWNLINK.into());
                target.capabilities.push(DOWNLINK.into());
            }
            Self::Tracking => {
                credit = TRACKING_CREDIT;
                source.address = Some(TRACKING.to_owned());
            }
            Self::Consumer(address) => {
                credit = CREDIT;
                source.address = Some(address.clone());
            }
            Self::Producer(address) => target.address = Some(address.clone()),
        }
        let role = match credit {
            0 => Role::Sender,
            _ => Role::Receiver,
        };
        AttachArgs {
            role,
            source,
            target,
            credit,
            ..AttachArgs::default()
        }
    }
}

/// The uplink of a site that is an edge.
#[derive(Default)]
pub(super) struct Uplink {
    active: Option<ConnKey>,
    /// What interior routers say of themselves, by connection.
    adverts: HashMap<ConnKey, String>,
    /// Links, once the worker has said which they are.
    links: BTreeMap<Purpose, Option<LinkId>>,
    purposes: HashMap<LinkId, Purpose>,
    /// Links on their way.
    tags: HashMap<u64, Purpose>,
    next_tag: u64,
}

impl Uplink {
    fn attach(&mut self, core: &Core, key: ConnKey, purpose: Purpose, router: &str) {
        self.next_tag += 1;
        let args = Box::new(purpose.args(router));
        core.tell(key, Command::Attach(key, self.next_tag, args));
        self.tags.insert(self.next_tag, purpose.clone());
        self.links.insert(purpose, None);
    }

    fn detach(&mut self, core: &Core, key: ConnKey, purpose: &Purpose) {
        if let Some(Some(link)) = self.links.remove(purpose) {
            self.purposes.remove(&link);
            core.tell(key, Command::Detach(key, link, None));
        }
    }

    /// Sends a message to an address by way of the interior router, if this link is that.
    pub(super) fn send(&self, core: &Core, link: ConnKey, address: &str, message: Bytes) -> bool {
        if self.active != Some(link) {
            return false;
        }
        let own = Purpose::Producer(address.to_owned());
        let by = self.links.get(&own).copied().flatten();
        let by = by.or_else(|| self.links.get(&Purpose::Anywhere).copied().flatten());
        if let Some(by) = by {
            core.tell(link, Command::ClientMessage(link, by, message));
        }
        true
    }

    /// The address that a link of the uplink receives from; None: it is not one of those.
    pub(super) fn address(&self, key: ConnKey, link: LinkId) -> Option<&str> {
        if self.active != Some(key) {
            return None;
        }
        match self.purposes.get(&link)? {
            Purpose::Consumer(address) => Some(address),
            _ => None,
        }
    }
}

impl Site {
    /// A link of this edge has opened.
    pub(super) fn uplink_opened(&mut self, core: &Core, key: ConnKey, advert: Option<String>) {
        if let Some(advert) = advert {
            self.uplink.adverts.insert(key, advert);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.neighbour = true;
            peer.up_since = Some(Timestamp::now());
            let (namespace, remote) = (&self.spec.namespace, &peer.remote);
            tracing::info!(namespace, remote, peer = %peer.addr, "link is up");
        }
        self.view_dirty = true;
        self.choose_uplink(core);
        core.changed();
    }

    /// Moves to the link that should be the active one.
    pub(super) fn choose_uplink(&mut self, core: &Core) {
        if !self.spec.edge {
            return;
        }
        let peers = &self.peers;
        self.uplink.adverts.retain(|key, _| peers.contains_key(key));
        let up = peers.iter().filter(|(_, p)| p.neighbour && !p.retired);
        let best = up.min_by_key(|(key, p)| (p.cost, **key));
        let (earlier, next) = (self.uplink.active, best.map(|(key, _)| *key));
        if earlier == next {
            return;
        }
        self.uplink.active = next;
        let links = std::mem::take(&mut self.uplink.links);
        self.uplink.purposes.clear();
        self.uplink.tags.clear();
        // Streams have links of their own, which stay.
        if let Some(earlier) = earlier {
            for link in links.into_values().flatten() {
                core.tell(earlier, Command::Detach(earlier, link, None));
            }
        }
        let adverts = next.and_then(|key| self.uplink.adverts.get(&key).cloned());
        let active = best.map(|(key, peer)| (*key, peer.remote.as_str(), peer.cost));
        let namespace = &self.spec.namespace;
        match &active {
            Some((_, remote, _)) => tracing::info!(namespace, remote, "the uplink of this edge"),
            None => tracing::warn!(namespace, "this edge has no uplink"),
        }
        let adverts = adverts.into_iter().collect();
        self.router.set_uplink(active, adverts, Instant::now());
        self.view_dirty = true;
    }

    /// Attaches what this edge has come to have and detaches what it has no more.
    pub(super) fn sync_uplink(&mut self, core: &Core) {
        let Some(key) = self.uplink.active else {
            return;
        };
        let mut wanted = BTreeSet::from([
            Purpose::Mesh,
            Purpose::Anywhere,
            Purpose::Downlink,
            Purpose::Tracking,
        ]);
        let consumed = self.router.own_addresses();
        wanted.extend(consumed.into_iter().map(Purpose::Consumer));
        let (listened, connected) = self.services.routing_keys();
        let adverts = connected.map(|key| format!("{LISTENER_ADVERT}{key}"));
        let sent = listened.chain(adverts).chain(self.clients.sent_to());
        let sent = sent.chain(self.telling.sends_to());
        wanted.extend(sent.map(Purpose::Producer));
        let gone = self.uplink.links.keys().filter(|p| !wanted.contains(p));
        let gone: Vec<Purpose> = gone.cloned().collect();
        for purpose in gone {
            self.uplink.detach(core, key, &purpose);
            if let Purpose::Producer(address) = &purpose {
                self.router.reached(address, false);
            }
        }
        for purpose in wanted {
            if !self.uplink.links.contains_key(&purpose) {
                let router = &self.spec.router_id;
                self.uplink.attach(core, key, purpose, router);
            }
        }
    }

    /// The worker has attached a link of ours.
    pub(super) fn uplink_attached(&mut self, core: &Core, key: ConnKey, tag: u64, link: LinkId) {
        let purpose = match self.uplink.tags.remove(&tag) {
            Some(purpose) if self.uplink.links.get(&purpose) == Some(&None) => purpose,
            // It is not wanted any more.
            _ => return core.tell(key, Command::Detach(key, link, None)),
        };
        if purpose == Purpose::Mesh {
            let mesh = encode(&self.mesh_message());
            core.tell(key, Command::ClientMessage(key, link, mesh));
        }
        self.uplink.links.insert(purpose.clone(), Some(link));
        self.uplink.purposes.insert(link, purpose);
    }

    /// What an edge says first of all: which mesh it belongs to.
    fn mesh_message(&self) -> Message {
        let mesh = self.router.routes().mesh.as_deref().map(str::to_owned);
        let properties = mesh.iter().map(|mesh| {
            let name = Value::Symbol(Symbol::from(MESH_ID));
            (name, Value::from(&**mesh))
        });
        Message {
            application_properties: properties.collect(),
            annotations: Some(RouterAnnotations {
                ingress_mesh: mesh.clone(),
                ..RouterAnnotations::default()
            }),
            ..Message::default()
        }
    }

    /// The interior router has detached a link of ours, or does not take it.
    pub(super) fn uplink_detached(&mut self, core: &Core, key: ConnKey, link: LinkId) {
        if self.uplink.active != Some(key) {
            return;
        }
        let Some(purpose) = self.uplink.purposes.remove(&link) else {
            return;
        };
        match purpose {
            Purpose::Tracking | Purpose::Downlink => {
                let why = "the other side does not serve edges on this port".to_owned();
                core.tell(key, Command::Close(key, why));
            }
            purpose => {
                // It stays known, so that it is not asked for again and again.
                tracing::warn!(?purpose, "the interior router does not take a link");
                if let Purpose::Producer(address) = &purpose {
                    self.router.reached(address, false);
                }
                self.uplink.links.insert(purpose, None);
            }
        }
    }

    /// A message has come on a link of the uplink that is for this router itself. False: it has not.
    pub(super) fn uplink_message(&mut self, key: ConnKey, link: LinkId, message: &Message) -> bool {
        let tracking = self.uplink.active == Some(key)
            && self.uplink.purposes.get(&link) == Some(&Purpose::Tracking);
        if !tracking {
            return false;
        }
        match tracked(message) {
            // Only what was asked for.
            Some((address, reachable)) => {
                let asked = Purpose::Producer(address.to_owned());
                if self.uplink.links.contains_key(&asked) {
                    self.router.reached(address, reachable);
                }
            }
            None => tracing::warn!("the interior router tracks no address"),
        }
        true
    }
}
