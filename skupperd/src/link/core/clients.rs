//! AMQP clients of a site and complete messages: to them, from them, and passing through.
//!
//! Complete messages are few (vanflow, management, clients' own); they go through the core, one at a
//! time, and streams never do.

use super::{Core, Owner, Site};
use crate::{
    amqp::{
        connection::{DeliveryId, LinkId},
        message::{Message, RouterAnnotations},
        performative::{Attach, Role},
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
struct Client {
    /// Links the client sends on, with their target address; anonymous ones have none.
    senders: BTreeMap<LinkId, Option<String>>,
    /// Links the client receives on.
    receivers: BTreeMap<LinkId, Receiver>,
}

struct Receiver {
    address: String,
    /// It has given credit. How much there is now only the worker knows, where messages wait for it.
    ready: bool,
}

/// The clients of a site.
#[derive(Default)]
pub(super) struct Clients {
    clients: BTreeMap<ConnKey, Client>,
    turn: usize,
}

impl Clients {
    /// A client's connection has ended. False: it was not a client's.
    pub(super) fn ended(&mut self, router: &mut Router, key: ConnKey) -> bool {
        let Some(client) = self.clients.remove(&key) else {
            return false;
        };
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

    /// Receivers of an address.
    fn receivers(&self, address: &str) -> Vec<(ConnKey, LinkId)> {
        let links = self.clients.iter().flat_map(|(key, client)| {
            let ready = client
                .receivers
                .iter()
                .filter(|(_, r)| r.ready && r.address == address);
            ready.map(|(link, _)| (*key, *link))
        });
        links.collect()
    }

    fn deliver(core: &Core, (key, link): (ConnKey, LinkId), message: &Bytes) {
        core.tell(key, Command::ClientMessage(key, link, message.clone()));
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
        _core: &Core,
        key: ConnKey,
        link: LinkId,
        attach: &Attach,
    ) {
        let Some(client) = self.clients.clients.get_mut(&key) else {
            return;
        };
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

    pub(super) fn client_detached(&mut self, key: ConnKey, link: LinkId) {
        let Some(client) = self.clients.clients.get_mut(&key) else {
            return;
        };
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
        let peer = self.is_peer(group).then_some(group);
        let address = match self
            .clients
            .clients
            .get(&key)
            .and_then(|c| c.senders.get(&link))
        {
            Some(Some(address)) => Some(address.clone()),
            _ => message.to().map(str::to_owned),
        };
        let own = self.router.id().to_owned();
        let taken = match address.as_deref().map(Target::parse) {
            None => false,
            Some(Target::Local(_) | Target::All(_)) if peer.is_some() => {
                self.control_message(group, &bytes);
                true
            }
            Some(Target::Router { id, rest })
                if peer.is_some() && (id != own || rest.starts_with("qdrouter")) =>
            {
                self.control_message(group, &bytes);
                true
            }
            Some(Target::Mobile(mobile)) => {
                let mobile = mobile.to_owned();
                self.annotate(&mut message, &own, &mobile)
                    && self.spread(core, peer, &mobile, &message)
            }
            Some(Target::Router { id, .. }) if id != own => {
                let towards = self.router.routes().towards(id);
                let annotated = self.annotate(&mut message, &own, address.as_deref().unwrap_or(""));
                if let (Some(link), true) = (towards, annotated) {
                    core.tell(link, Command::Message(link, PRIORITY, encode(&message)));
                    true
                } else {
                    false
                }
            }
            Some(_) => {
                let address = address.as_deref().unwrap_or_default();
                let to = self.clients.receivers(address).first().copied();
                if let Some(to) = to {
                    message.annotations = None;
                    Clients::deliver(core, to, &encode(&message));
                }
                to.is_some()
            }
        };
        if let Some(delivery) = delivery {
            core.tell(key, Command::ClientSettle(key, delivery, taken));
        }
    }

    /// Puts this router into the message's trace. False: it has been here before.
    fn annotate(&self, message: &mut Message, own: &str, address: &str) -> bool {
        let id = format!("0/{own}");
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
                a.trace.push(id);
                true
            }
            _ => false,
        }
    }

    /// Delivers a message to consumers of its address, here and elsewhere. False: there are none.
    fn spread(
        &mut self,
        core: &Core,
        from: Option<ConnKey>,
        address: &str,
        message: &Message,
    ) -> bool {
        let routes = self.router.routes();
        let treatment = Treatment::of(address);
        let own = format!("0/{}", self.router.id());
        let ingress = message
            .annotations
            .as_ref()
            .and_then(|a| a.ingress.as_deref());
        let origin = ingress
            .filter(|i| *i != own)
            .map(|i| i.trim_start_matches("0/"));
        let exclude = Exclude {
            links: from.into_iter().collect(),
            locals: Vec::new(),
        };
        let local = self.clients.receivers(address);
        let plain = {
            let mut plain = message.clone();
            plain.annotations = None;
            encode(&plain)
        };
        let route = routes.addresses.get(address);
        if treatment == Treatment::Multicast {
            local
                .iter()
                .for_each(|to| Clients::deliver(core, *to, &plain));
            let links = route
                .map(|r| r.spread(origin, &exclude))
                .unwrap_or_default();
            let bytes = encode(message);
            for link in &links {
                core.tell(*link, Command::Message(*link, PRIORITY, bytes.clone()));
            }
            return !local.is_empty() || !links.is_empty();
        }
        if !local.is_empty() {
            self.clients.turn += 1;
            let to = local[self.clients.turn % local.len()];
            Clients::deliver(core, to, &plain);
            return true;
        }
        match route.map(|r| r.choose(&[], origin, &exclude)) {
            Some(Choice::Remote { link, .. }) => {
                core.tell(link, Command::Message(link, PRIORITY, encode(message)));
                true
            }
            _ => false,
        }
    }
}

fn encode(message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    message.encode(&mut out);
    out.freeze()
}
