//! AMQP clients of a site and complete messages: to them, from them, and passing through.
//!
//! Complete messages are few (vanflow, management, clients' own); they go through the core, one at a
//! time, and streams never do.

use super::{
    Core, Owner, Site,
    edges::{MESH, Served},
};
use crate::{
    amqp::{
        connection::{DeliveryId, LinkId},
        message::{Message, RouterAnnotations},
        performative::{Attach, Error as AmqpError, Role},
    },
    link::{
        conn::{ConnKey, Kind},
        handshake::Established,
        worker::Command,
    },
    router::{Choice, Exclude, Router, Target, Treatment},
};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Priority of messages that say nothing about it.
const PRIORITY: u8 = 4;

#[derive(Default)]
pub(super) struct Client {
    /// It is an edge that this site serves.
    pub(super) edge: Option<Served>,
    /// Links the client sends on, with their target address; anonymous ones have none.
    pub(super) senders: BTreeMap<LinkId, Option<String>>,
    /// Links the client receives on.
    pub(super) receivers: BTreeMap<LinkId, Receiver>,
}

pub(super) struct Receiver {
    pub(super) address: String,
    /// It has given credit. How much there is now only the worker knows, where messages wait for it.
    pub(super) ready: bool,
}

/// The clients of a site, and the edges that it serves.
#[derive(Default)]
pub(super) struct Clients {
    /// Id of this router.
    pub(super) router: String,
    clients: BTreeMap<ConnKey, Client>,
    turn: usize,
}

/// A link that takes messages of an address.
struct Taker {
    key: ConnKey,
    link: LinkId,
    /// An edge's, which is to see where a message comes from.
    edge: bool,
}

impl Clients {
    pub(super) fn new(router: &str) -> Self {
        Self {
            router: router.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, key: ConnKey, client: Client) {
        self.clients.insert(key, client);
    }

    pub(super) fn get(&self, key: ConnKey) -> Option<&Client> {
        self.clients.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: ConnKey) -> Option<&mut Client> {
        self.clients.get_mut(&key)
    }

    /// Mobile addresses that clients of this host send to.
    pub(super) fn sent_to(&self) -> impl Iterator<Item = String> {
        let own = self.clients.values().filter(|c| c.edge.is_none());
        let addresses = own.flat_map(|c| c.senders.values().flatten());
        addresses.filter_map(|address| match Target::parse(address) {
            Target::Mobile(mobile) if !mobile.starts_with('$') => Some(mobile.to_owned()),
            _ => None,
        })
    }

    /// A client's connection has ended. False: it was not a client's.
    pub(super) fn ended(&mut self, router: &mut Router, key: ConnKey) -> bool {
        let Some(client) = self.clients.remove(&key) else {
            return false;
        };
        if client.edge.is_some() {
            router.edge_gone(key);
            return true;
        }
        client
            .receivers
            .values()
            .for_each(|r| withdraw(router, &r.address));
        true
    }

    pub(super) fn clear(&mut self, core: &Core) {
        for key in self.clients.keys() {
            core.tell(*key, Command::Close(*key, "site removed".to_owned()));
        }
    }

    /// Somebody receives from an address.
    pub(super) fn receives(&self, address: &str) -> bool {
        let receivers = self.clients.values().flat_map(|c| c.receivers.values());
        receivers
            .into_iter()
            .any(|r| r.ready && r.address == address)
    }

    /// Receivers of an address that are not on the connection that a message came in on, nor of the
    /// mesh of edges that it comes from.
    fn takers(&self, address: &str, from: ConnKey, mesh: Option<&str>) -> Vec<Taker> {
        let own =
            |edge: &Served, key| key == from || (mesh.is_some() && edge.mesh.as_deref() == mesh);
        let clients = self.clients.iter();
        let clients = clients.filter(|(key, c)| !c.edge.as_ref().is_some_and(|e| own(e, **key)));
        let links = clients.flat_map(|(key, client)| {
            let ready = client
                .receivers
                .iter()
                .filter(|(_, r)| r.ready && r.address == address);
            ready.map(|(link, _)| Taker {
                key: *key,
                link: *link,
                edge: client.edge.is_some(),
            })
        });
        links.collect()
    }

    /// Delivers a message; an edge gets it with its annotations, a client without.
    fn deliver(core: &Core, to: &Taker, message: &Message) {
        let bytes = match (to.edge, &message.annotations) {
            (false, Some(_)) => encode(&Message {
                annotations: None,
                ..message.clone()
            }),
            _ => encode(message),
        };
        let Taker { key, link, .. } = to;
        core.tell(*key, Command::ClientMessage(*key, *link, bytes));
    }

    /// Sends a message to an edge by its id.
    fn to_edge(&self, core: &Core, key: ConnKey, message: &Message) -> bool {
        let edge = self.get(key).and_then(|client| client.edge.as_ref());
        let link = edge.and_then(|edge| edge.downlink);
        if let Some(link) = link {
            let edge = true;
            Self::deliver(core, &Taker { key, link, edge }, message);
        }
        link.is_some()
    }
}

fn withdraw(router: &mut Router, address: &str) {
    if let Target::Mobile(address) = Target::parse(address) {
        router.consumer_removed(address);
    }
}

impl Site {
    pub(super) fn client(&mut self, core: &mut Core, established: Established) {
        let key = core.sender.next_key();
        let worker = usize::try_from(key).unwrap_or(0) % core.workers.count();
        core.conns.insert(
            key,
            Owner {
                site: self.id,
                worker,
            },
        );
        self.clients.clients.insert(key, Client::default());
        self.give(core, key, key, Kind::Normal, false, worker, established);
    }

    pub(super) fn client_attached(
        &mut self,
        core: &Core,
        key: ConnKey,
        link: LinkId,
        attach: &Attach,
    ) {
        let Some(client) = self.clients.clients.get_mut(&key) else {
            // The interior router of an edge attaches links for streams and no others.
            let why = AmqpError::new("amqp:not-allowed", "an edge serves no such link");
            return core.tell(key, Command::Detach(key, link, Some(why)));
        };
        if client.edge.is_some() {
            return self.edge_attached(core, key, link, attach);
        }
        // An edge asks who receives what its clients send.
        self.view_dirty |= self.spec.edge;
        match attach.role {
            Role::Sender => {
                let address = attach.target.as_ref().and_then(|t| t.address.clone());
                client.senders.insert(link, address);
            }
            Role::Receiver => {
                let address = attach.source.as_ref().and_then(|s| s.address.clone());
                let Some(address) = address else { return };
                if let Target::Mobile(mobile) = Target::parse(&address) {
                    self.router.consumer_added(mobile, Treatment::of(mobile));
                }
                client.receivers.insert(
                    link,
                    Receiver {
                        address,
                        ready: false,
                    },
                );
            }
        }
    }

    pub(super) fn client_detached(&mut self, core: &Core, key: ConnKey, link: LinkId) {
        let Some(client) = self.clients.clients.get_mut(&key) else {
            return self.uplink_detached(core, key, link);
        };
        if client.edge.is_some() {
            return self.edge_detached(core, key, link);
        }
        self.view_dirty |= self.spec.edge;
        client.senders.remove(&link);
        if let Some(receiver) = client.receivers.remove(&link) {
            withdraw(&mut self.router, &receiver.address);
        }
    }

    pub(super) fn client_credit(&mut self, _core: &Core, key: ConnKey, link: LinkId, credit: u32) {
        let client = self.clients.clients.get_mut(&key);
        if let Some(receiver) = client.and_then(|c| c.receivers.get_mut(&link)) {
            receiver.ready |= credit > 0;
        }
    }

    /// A complete message has come in.
    pub(super) fn message(
        &mut self,
        core: &mut Core,
        key: ConnKey,
        group: ConnKey,
        link: LinkId,
        delivery: Option<DeliveryId>,
        bytes: Bytes,
    ) {
        let mut message = match Message::decode(&bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(namespace = self.spec.namespace, %error, "message does not decode");
                return;
            }
        };
        let taken = self.uplink_message(key, link, &message)
            || self.take(core, (key, group, link), &mut message, &bytes);
        if let Some(delivery) = delivery {
            core.tell(key, Command::ClientSettle(key, delivery, taken));
        }
    }

    fn take(
        &mut self,
        core: &mut Core,
        (key, group, link): (ConnKey, ConnKey, LinkId),
        message: &mut Message,
        bytes: &Bytes,
    ) -> bool {
        let peer = self.is_peer(group).then_some(group);
        let of_link = self.clients.get(key).and_then(|c| c.senders.get(&link));
        let of_link = of_link.and_then(|address| address.as_deref());
        let of_link = of_link.or_else(|| self.uplink.address(key, link));
        let address = of_link.or_else(|| message.to()).map(str::to_owned);
        if address.as_deref() == Some(MESH) {
            return self.edge_mesh(key, message);
        }
        let own = self.router.id().to_owned();
        match address.as_deref().map(Target::parse) {
            None => false,
            Some(Target::Local(_) | Target::All(_)) if peer.is_some() => {
                self.control_message(group, bytes);
                true
            }
            Some(Target::Router { id, rest })
                if peer.is_some() && (id != own || rest.starts_with("qdrouter")) =>
            {
                self.control_message(group, bytes);
                true
            }
            // Only routers take part in routing.
            Some(Target::Router { rest, .. }) if rest.starts_with("qdrouter") => false,
            Some(Target::Mobile(mobile)) if self.telling.take(mobile, message) => true,
            Some(Target::Mobile(mobile)) => {
                self.annotate(message, &own, mobile)
                    && self.spread(core, (key, group), mobile, message)
            }
            Some(Target::Router { id, .. }) if id != own => {
                let towards = self.router.routes().towards(id);
                self.send_on(core, group, towards, address.as_deref(), message)
            }
            Some(Target::Edge { id, .. }) if id != own => {
                let towards = self.router.routes().towards_edge(id);
                self.send_on(core, group, towards, address.as_deref(), message)
            }
            Some(_) => {
                let address = address.as_deref().unwrap_or_default();
                let takers = self.clients.takers(address, key, None);
                let to = takers.into_iter().find(|taker| !taker.edge);
                if let Some(to) = &to {
                    Clients::deliver(core, to, message);
                }
                to.is_some()
            }
        }
    }

    /// An edge says which mesh it belongs to.
    fn edge_mesh(&mut self, key: ConnKey, message: &Message) -> bool {
        let client = self.clients.get_mut(key);
        let Some(edge) = client.and_then(|client| client.edge.as_mut()) else {
            return false;
        };
        edge.mesh = super::edges::mesh(message);
        true
    }

    /// Sends a message on a link towards a router or an edge.
    fn send_on(
        &self,
        core: &Core,
        from: ConnKey,
        link: Option<ConnKey>,
        address: Option<&str>,
        message: &mut Message,
    ) -> bool {
        let address = address.unwrap_or_default();
        let Some(link) = link.filter(|link| *link != from) else {
            return false;
        };
        if !self.annotate(message, self.router.id(), address) {
            return false;
        }
        if self.clients.get(link).is_some() {
            return self.clients.to_edge(core, link, message);
        }
        let bytes = encode(message);
        if !self.uplink.send(core, link, address, bytes.clone()) {
            core.tell(link, Command::Message(link, PRIORITY, bytes));
        }
        true
    }

    /// Puts this router into the message's trace. False: it has been here before.
    pub(super) fn annotate(&self, message: &mut Message, own: &str, address: &str) -> bool {
        let id = format!("0/{own}");
        if let Some(mesh) = self.router.routes().mesh.as_deref() {
            // What an edge sends enters the network at its interior router.
            message
                .annotations
                .get_or_insert_with(|| RouterAnnotations {
                    ingress_mesh: Some(mesh.to_owned()),
                    ..RouterAnnotations::default()
                });
            return true;
        }
        if message.annotations.is_none() {
            let to_override = message.to().is_none().then(|| address.to_owned());
            let ingress = Some(id.clone());
            message.annotations = Some(RouterAnnotations {
                to_override,
                ingress,
                ..RouterAnnotations::default()
            });
        }
        match &mut message.annotations {
            Some(a) if !a.trace.contains(&id) => {
                a.ingress.get_or_insert_with(|| id.clone());
                a.trace.push(id);
                true
            }
            _ => false,
        }
    }

    /// Delivers a message to consumers of its address, here and elsewhere. False: there are none.
    pub(super) fn spread(
        &mut self,
        core: &Core,
        (key, group): (ConnKey, ConnKey),
        address: &str,
        message: &Message,
    ) -> bool {
        let routes = self.router.routes();
        let treatment = Treatment::of(address);
        let own = format!("0/{}", self.router.id());
        let annotations = message.annotations.as_ref();
        let ingress = annotations.and_then(|a| a.ingress.as_deref());
        let origin = ingress
            .filter(|i| *i != own)
            .map(|i| i.trim_start_matches("0/"));
        let exclude = Exclude {
            links: vec![group],
            // Edges are among those that take messages here.
            edges: true,
            ..Exclude::default()
        };
        let mesh = annotations.and_then(|a| a.ingress_mesh.as_deref());
        let takers = self.clients.takers(address, key, mesh);
        let route = routes.addresses.get(address);
        let send = |link: ConnKey, bytes: Bytes| {
            if !self.uplink.send(core, link, address, bytes.clone()) {
                core.tell(link, Command::Message(link, PRIORITY, bytes));
            }
        };
        if treatment == Treatment::Multicast {
            takers
                .iter()
                .for_each(|to| Clients::deliver(core, to, message));
            let links = route
                .map(|r| r.spread(origin, &exclude))
                .unwrap_or_default();
            let bytes = encode(message);
            for link in &links {
                send(*link, bytes.clone());
            }
            return !takers.is_empty() || !links.is_empty();
        }
        if !takers.is_empty() {
            self.clients.turn += 1;
            let to = &takers[self.clients.turn % takers.len()];
            Clients::deliver(core, to, message);
            return true;
        }
        match route.map(|r| r.choose(&[], origin, &exclude)) {
            Some(Choice::Remote { link, .. }) => {
                send(link, encode(message));
                true
            }
            _ => false,
        }
    }
}

pub(super) fn encode(message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    message.encode(&mut out);
    out.freeze()
}
