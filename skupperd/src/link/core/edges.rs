//! Edges that this site serves: their links, and what those say.
//!
//! An edge takes no part in routing. What it consumes counts as consumed here, what it sends enters
//! the network here, and a link of its own tells it which of its addresses anybody receives from.

use super::{
    Core, Site,
    clients::{Client, Clients, Receiver, encode},
};
use crate::{
    amqp::{
        connection::LinkId,
        message::{Body, Message, RouterAnnotations, not_durable},
        performative::{Attach, Error as AmqpError, Role},
        value::Value,
    },
    link::{conn::ConnKey, worker::Command},
    router::Target,
};
use jiff::Timestamp;

/// Where an edge says which mesh it belongs to.
pub(super) const MESH: &str = "_$qd.mesh_discovery";
/// Where an edge hears which of its addresses anybody receives from.
pub(super) const TRACKING: &str = "_$qd.edge_addr_tracking";
/// Capability of the link for what goes to an edge by its id.
pub(super) const DOWNLINK: &str = "qd.router-edge-downlink";
/// Name of the property that says the mesh.
pub(super) const MESH_ID: &str = "meshid";
/// First character of a mobile address, as the tracking link has it.
const MOBILE: char = 'M';
/// Longest address or id taken from an edge.
const MAX_NAME: usize = 512;
/// Links that one edge may have beside those of its addresses.
const MAX_LINKS: usize = 16_384 + 64;

/// What is special about a client that is an edge.
#[derive(Default)]
pub(super) struct Served {
    id: String,
    pub(super) mesh: Option<String>,
    tracking: Option<LinkId>,
    pub(super) downlink: Option<LinkId>,
}

/// What an edge attached a link for.
enum Purpose {
    Mesh,
    Tracking,
    Downlink,
    Consumer(String),
    Producer(String),
}

fn purpose(id: &str, attach: &Attach) -> Result<Purpose, &'static str> {
    let source = attach.source.as_ref();
    let address = match attach.role {
        Role::Sender => attach.target.as_ref().and_then(|t| t.address.as_deref()),
        Role::Receiver => source.and_then(|s| s.address.as_deref()),
    };
    let address = address.ok_or("no such source on this connection")?;
    if address.is_empty() || address.len() > MAX_NAME {
        return Err("an address of no or too many characters");
    }
    let down = source.is_some_and(|s| s.capabilities.iter().any(|c| c.as_str() == DOWNLINK));
    match (attach.role, address) {
        (Role::Sender, MESH) => Ok(Purpose::Mesh),
        (Role::Receiver, TRACKING) => Ok(Purpose::Tracking),
        (Role::Receiver, _) if down && address == id => Ok(Purpose::Downlink),
        (Role::Receiver, _) if down => Err("an edge receives what is for itself, not for others"),
        (role, _) => match Target::parse(address) {
            Target::Mobile(name) if name.starts_with("_$") || name.starts_with('$') => {
                Err("no such address for edges")
            }
            Target::Mobile(name) if role == Role::Sender => Ok(Purpose::Producer(name.to_owned())),
            Target::Mobile(name) => Ok(Purpose::Consumer(name.to_owned())),
            _ => Err("an edge has no addresses of other routers"),
        },
    }
}

impl Clients {
    /// Tells an edge whether anybody receives what it sends to an address.
    pub(super) fn tell_edge(&self, core: &Core, key: ConnKey, address: &str, reachable: bool) {
        let edge = self.get(key).and_then(|client| client.edge.as_ref());
        let Some(link) = edge.and_then(|edge| edge.tracking) else {
            return;
        };
        let own = format!("0/{}", self.router);
        let message = Message {
            annotations: Some(RouterAnnotations {
                ingress: Some(own.clone()),
                trace: vec![own],
                ..RouterAnnotations::default()
            }),
            header: Some(not_durable()),
            body: Body::Value(Value::List(vec![
                Value::String(format!("{MOBILE}{address}")),
                Value::Bool(reachable),
            ])),
            ..Message::default()
        };
        core.tell(key, Command::ClientMessage(key, link, encode(&message)));
    }
}

/// What the tracking link says: an address, and whether anybody receives from it.
pub(super) fn tracked(message: &Message) -> Option<(&str, bool)> {
    let Body::Value(Value::List(parts)) = &message.body else {
        return None;
    };
    match &parts[..] {
        [address, Value::Bool(reachable)] => {
            Some((address.as_str()?.strip_prefix(MOBILE)?, *reachable))
        }
        _ => None,
    }
}

/// The mesh that a message on the discovery link says.
pub(super) fn mesh(message: &Message) -> Option<String> {
    let mut properties = message.application_properties.iter();
    let (_, mesh) = properties.find(|(name, _)| name.as_str() == Some(MESH_ID))?;
    let mesh = mesh.as_str().filter(|mesh| mesh.len() <= MAX_NAME)?;
    Some(mesh.to_owned())
}

impl Site {
    /// An edge has connected.
    pub(super) fn edge_opened(&mut self, core: &Core, key: ConnKey) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let id = peer.remote.clone();
        if id.is_empty() || id.len() > MAX_NAME || id.contains('/') {
            let why = "an edge must have an id without slashes".to_owned();
            core.tell(key, Command::Close(key, why));
            return;
        }
        self.router.edge_connected(key, &id);
        let edge = Served {
            id,
            ..Served::default()
        };
        self.clients.insert(
            key,
            Client {
                edge: Some(edge),
                ..Client::default()
            },
        );
        self.view_dirty = true;
    }

    /// An edge has attached a link.
    pub(super) fn edge_attached(
        &mut self,
        core: &Core,
        key: ConnKey,
        link: LinkId,
        attach: &Attach,
    ) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Some(edge) = client.edge.as_mut() else {
            return;
        };
        if client.senders.len() + client.receivers.len() >= MAX_LINKS {
            core.tell(key, Command::Close(key, "too many links of an edge".into()));
            return;
        }
        let done = match purpose(&edge.id, attach) {
            Err(why) => {
                let why = AmqpError::new("amqp:not-allowed", why);
                return core.tell(key, Command::Detach(key, link, Some(why)));
            }
            Ok(Purpose::Mesh) => {
                client.senders.insert(link, Some(MESH.to_owned()));
                Ok(())
            }
            Ok(Purpose::Tracking) => {
                edge.tracking = Some(link);
                self.router.edge_tracks(key, true);
                Ok(())
            }
            Ok(Purpose::Downlink) => {
                edge.downlink = Some(link);
                self.edge_named(core, key);
                Ok(())
            }
            Ok(Purpose::Consumer(address)) => {
                let taken = self.router.edge_consumes(key, &address);
                let ready = false;
                client.receivers.insert(link, Receiver { address, ready });
                taken
            }
            Ok(Purpose::Producer(address)) => {
                let taken = self.router.edge_sends(key, &address);
                client.senders.insert(link, Some(address));
                taken
            }
        };
        if let Err(error) = done {
            core.tell(key, Command::Close(key, error.to_string()));
        }
    }

    /// The edge is where others find it.
    fn edge_named(&mut self, core: &Core, key: ConnKey) {
        self.router.edge_named(key, true);
        if let Some(peer) = self.peers.get_mut(&key)
            && !std::mem::replace(&mut peer.neighbour, true)
        {
            peer.up_since = Some(Timestamp::now());
            let (namespace, remote) = (&self.spec.namespace, &peer.remote);
            tracing::info!(namespace, remote, peer = %peer.addr, "edge is up");
        }
        core.changed();
    }

    /// A link of an edge is gone.
    pub(super) fn edge_detached(&mut self, core: &Core, key: ConnKey, link: LinkId) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if let Some(receiver) = client.receivers.remove(&link) {
            self.router.edge_consumed(key, &receiver.address);
        }
        if let Some(Some(address)) = client.senders.remove(&link) {
            self.router.edge_sent(key, &address);
        }
        let Some(edge) = client.edge.as_mut() else {
            return;
        };
        if edge.tracking == Some(link) {
            edge.tracking = None;
            self.router.edge_tracks(key, false);
        }
        if edge.downlink == Some(link) {
            edge.downlink = None;
            self.router.edge_named(key, false);
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.neighbour = false;
            }
            core.changed();
        }
    }
}

#[cfg(test)]
mod tests;
