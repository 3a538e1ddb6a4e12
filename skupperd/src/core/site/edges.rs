//! Edge sites that this site serves: their AMQP links and the messages on them.
//!
//! An edge takes no part in routing. What it consumes counts as consumed here, what it sends enters
//! the network here, and an AMQP link of its own tells it which of its addresses have receivers.

use super::{
    delivery::{Receiver, Subscription, deliver, encode},
    effects::{Effect, Effects, RouterInput},
};
use crate::{
    amqp::{
        connection::LinkId,
        message::{Body, Message, RouterAnnotations, not_durable},
        performative::{Attach, Error as AmqpError, Role},
        value::Value,
    },
    link::{
        conn::ConnKey,
        names::{DOWNLINK, MESH, MESH_ID, TRACKING},
    },
    messages::{CloseReason, Command},
    router::{ParsedAddress, is_address},
};
use std::collections::BTreeMap;

/// First character of a mobile address, as the tracking link has it.
const MOBILE: char = 'M';
/// Longest name of a mesh taken from an edge, in bytes.
const MAX_NAME: usize = 512;
/// Links that one edge may have beside those of its addresses.
const MAX_LINKS: usize = 16_384 + 64;

/// Purpose of an AMQP link that an edge attached.
enum EdgeLinkPurpose {
    Mesh,
    Tracking,
    Downlink,
    Consumer(String),
    Producer(String),
}

fn classify_link(id: &str, attach: &Attach) -> Result<EdgeLinkPurpose, &'static str> {
    let source = attach.source.as_ref();
    let address = match attach.role {
        Role::Sender => attach.target.as_ref().and_then(|t| t.address.as_deref()),
        Role::Receiver => source.and_then(|s| s.address.as_deref()),
    };
    let address = address.ok_or("no such source on this connection")?;
    if !is_address(address) {
        return Err("invalid address: empty, too long, or with control characters");
    }
    let down = source.is_some_and(|s| s.capabilities.iter().any(|c| c.as_str() == DOWNLINK));
    match (attach.role, address) {
        (Role::Sender, MESH) => Ok(EdgeLinkPurpose::Mesh),
        (Role::Receiver, TRACKING) => Ok(EdgeLinkPurpose::Tracking),
        (Role::Receiver, _) if down && address == id => Ok(EdgeLinkPurpose::Downlink),
        (Role::Receiver, _) if down => Err("an edge may receive only for its own id"),
        (role, _) => match ParsedAddress::parse(address) {
            ParsedAddress::Mobile(name) if name.starts_with("_$") || name.starts_with('$') => {
                Err("edges may not use this address")
            }
            ParsedAddress::Mobile(name) if role == Role::Sender => {
                Ok(EdgeLinkPurpose::Producer(name.to_owned()))
            }
            ParsedAddress::Mobile(name) => Ok(EdgeLinkPurpose::Consumer(name.to_owned())),
            _ => Err("edges may not use addresses of other routers"),
        },
    }
}

/// An edge that this site serves.
#[derive(Default)]
struct Edge {
    id: String,
    mesh: Option<String>,
    tracking: Option<LinkId>,
    downlink: Option<LinkId>,
    /// Links the edge sends on, with their target address.
    senders: BTreeMap<LinkId, String>,
    receivers: BTreeMap<LinkId, Subscription>,
}

pub(in crate::core) struct Edges {
    router: String,
    by_key: BTreeMap<ConnKey, Edge>,
}

impl Edges {
    pub(in crate::core) fn new(router: &str) -> Self {
        Self {
            router: router.to_owned(),
            by_key: BTreeMap::new(),
        }
    }

    pub(in crate::core) fn contains(&self, key: ConnKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(in crate::core) fn connected(&mut self, key: ConnKey, id: &str, effects: &mut Effects) {
        effects.router(RouterInput::AddEdge(key, id.to_owned()));
        effects.update_view();
        let edge = Edge {
            id: id.to_owned(),
            ..Edge::default()
        };
        self.by_key.insert(key, edge);
    }

    pub(in crate::core) fn disconnected(&mut self, key: ConnKey, effects: &mut Effects) {
        if self.by_key.remove(&key).is_some() {
            effects.router(RouterInput::RemoveEdge(key));
        }
    }

    pub(in crate::core) fn attached(
        &mut self,
        key: ConnKey,
        link: LinkId,
        attach: &Attach,
        effects: &mut Effects,
    ) {
        let Some(edge) = self.by_key.get_mut(&key) else {
            return;
        };
        if edge.senders.len() + edge.receivers.len() >= MAX_LINKS {
            return effects.close(key, CloseReason::TooManyLinks);
        }
        match classify_link(&edge.id, attach) {
            Err(reason) => {
                let reason = AmqpError::new("amqp:not-allowed", reason);
                effects.send_command(key, Command::Detach(key, link, Some(reason)));
            }
            Ok(EdgeLinkPurpose::Mesh) => {
                edge.senders.insert(link, MESH.to_owned());
            }
            Ok(EdgeLinkPurpose::Tracking) => {
                edge.tracking = Some(link);
                effects.router(RouterInput::SetEdgeTracking(key, true));
            }
            Ok(EdgeLinkPurpose::Downlink) => {
                edge.downlink = Some(link);
                effects.router(RouterInput::SetEdgeDownlink(key, true));
                effects.push(Effect::EdgeReachable(key, true));
            }
            Ok(EdgeLinkPurpose::Consumer(address)) => {
                effects.router(RouterInput::AddEdgeConsumer(key, address.clone()));
                edge.receivers.insert(link, Subscription::new(address));
            }
            Ok(EdgeLinkPurpose::Producer(address)) => {
                effects.router(RouterInput::AddEdgeProducer(key, address.clone()));
                edge.senders.insert(link, address);
            }
        }
    }

    pub(in crate::core) fn detached(&mut self, key: ConnKey, link: LinkId, effects: &mut Effects) {
        let Some(edge) = self.by_key.get_mut(&key) else {
            return;
        };
        if let Some(receiver) = edge.receivers.remove(&link) {
            effects.router(RouterInput::RemoveEdgeConsumer(key, receiver.address));
        }
        if let Some(address) = edge.senders.remove(&link) {
            effects.router(RouterInput::RemoveEdgeProducer(key, address));
        }
        if edge
            .tracking
            .take_if(|tracking| *tracking == link)
            .is_some()
        {
            effects.router(RouterInput::SetEdgeTracking(key, false));
        }
        if edge
            .downlink
            .take_if(|downlink| *downlink == link)
            .is_some()
        {
            effects.router(RouterInput::SetEdgeDownlink(key, false));
            effects.push(Effect::EdgeReachable(key, false));
        }
    }

    /// A receiver has given credit.
    pub(in crate::core) fn credited(&mut self, key: ConnKey, link: LinkId) {
        let edge = self.by_key.get_mut(&key);
        if let Some(receiver) = edge.and_then(|edge| edge.receivers.get_mut(&link)) {
            receiver.ready = true;
        }
    }

    pub(in crate::core) fn address(&self, key: ConnKey, link: LinkId) -> Option<&str> {
        self.by_key
            .get(&key)?
            .senders
            .get(&link)
            .map(String::as_str)
    }

    /// Receivers of an address that are not on the connection that a message came in on, nor of the
    /// mesh of edges that it comes from.
    pub(in crate::core) fn receivers(
        &self,
        address: &str,
        from: ConnKey,
        mesh: Option<&str>,
    ) -> impl Iterator<Item = Receiver> {
        let is_source = move |key: ConnKey, edge: &Edge| {
            key == from || (mesh.is_some() && edge.mesh.as_deref() == mesh)
        };
        let others = self
            .by_key
            .iter()
            .filter(move |(key, edge)| !is_source(**key, edge));
        others.flat_map(move |(key, edge)| {
            let receivers = edge.receivers.iter();
            let ready = receivers.filter(move |(_, receiver)| receiver.takes(address));
            ready.map(|(link, _)| Receiver {
                key: *key,
                link: *link,
                is_edge: true,
            })
        })
    }

    /// Sends a message to an edge by its id. False: it has no link for that.
    pub(in crate::core) fn send(
        &self,
        key: ConnKey,
        message: &Message,
        effects: &mut Effects,
    ) -> bool {
        let Some(link) = self.by_key.get(&key).and_then(|edge| edge.downlink) else {
            return false;
        };
        let is_edge = true;
        deliver(&Receiver { key, link, is_edge }, message, effects);
        true
    }

    /// Stores the mesh that an edge announced. Returns false if the connection is not an edge.
    pub(in crate::core) fn set_mesh(&mut self, key: ConnKey, message: &Message) -> bool {
        let Some(edge) = self.by_key.get_mut(&key) else {
            return false;
        };
        edge.mesh = mesh(message);
        true
    }

    /// Tells an edge whether an address that it sends to has receivers.
    pub(in crate::core) fn notify_reachable(
        &self,
        key: ConnKey,
        address: &str,
        reachable: bool,
        effects: &mut Effects,
    ) {
        let Some(link) = self.by_key.get(&key).and_then(|edge| edge.tracking) else {
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
        effects.send_command(key, Command::ClientMessage(key, link, encode(&message)));
    }
}

/// Parses a message on the tracking link: an address, and whether it has receivers.
pub(in crate::core) fn tracked(message: &Message) -> Option<(&str, bool)> {
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

/// The mesh that a message on the discovery link names.
fn mesh(message: &Message) -> Option<String> {
    let mut properties = message.application_properties.iter();
    let (_, mesh) = properties.find(|(name, _)| name.as_str() == Some(MESH_ID))?;
    let mesh = mesh.as_str().filter(|mesh| mesh.len() <= MAX_NAME)?;
    Some(mesh.to_owned())
}

#[cfg(test)]
mod tests;
