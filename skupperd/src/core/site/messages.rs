//! Complete messages: to clients and edges, from them, and passing through.
//!
//! Complete messages are few (vanflow, management, clients' own); they go through the core, one at a
//! time, and streams never do.

use super::{
    Site,
    delivery::{Receiver, deliver, encode},
};
use crate::{
    amqp::{
        connection::{DeliveryId, LinkId},
        message::{Message, RouterAnnotations},
    },
    link::{conn::ConnKey, driver::MessageOrigin, names::MESH},
    messages::Command,
    router::{Choice, Exclusions, ParsedAddress, Treatment},
    sys::clock,
};
use bytes::Bytes;

/// Priority of messages that do not name one.
const PRIORITY: u8 = 4;

/// Where a message came in: connection, control connection of its peer, and AMQP link.
#[derive(Clone, Copy)]
pub(in crate::core) struct Arrival {
    pub(in crate::core) key: ConnKey,
    pub(in crate::core) group: ConnKey,
    pub(in crate::core) link: LinkId,
    pub(in crate::core) origin: MessageOrigin,
}

/// Removes router annotations that a client or an edge sent: this site sets where its messages come from
/// and where they go. An edge sets its mesh.
fn drop_claims(is_edge: bool, address: Option<&str>, message: &mut Message) {
    let claims = message.annotations.take();
    let ingress_mesh = claims
        .filter(|_| is_edge)
        .and_then(|annotations| annotations.ingress_mesh);
    message.annotations = address.map(|address| RouterAnnotations {
        to_override: Some(address.to_owned()),
        ingress_mesh,
        ..RouterAnnotations::default()
    });
}

impl Site {
    /// A complete message has arrived.
    pub(in crate::core) fn message(
        &mut self,
        from: Arrival,
        delivery: Option<DeliveryId>,
        bytes: &Bytes,
    ) {
        let mut message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                if let Some(suppressed) = self
                    .router_reports
                    .undecodable
                    .count_and_report(clock::now())
                {
                    let namespace = &self.spec.namespace;
                    tracing::warn!(namespace, %error, suppressed, "dropping undecodable message");
                }
                return;
            }
        };
        let taken = self
            .uplink
            .take(from.key, from.link, &message, &mut self.effects)
            || self.take(from, &mut message, bytes);
        if let Some(delivery) = delivery {
            let settle = Command::ClientSettle(from.key, delivery, taken);
            self.effects.send_command(from.key, settle);
        }
    }

    fn take(&mut self, from: Arrival, message: &mut Message, bytes: &Bytes) -> bool {
        let Arrival { key, group, .. } = from;
        // Only the link makes a message a control message, not its contents.
        let control = from.origin == MessageOrigin::Control && self.peers.is_interior(group);
        let address = self
            .address_of(from)
            .or_else(|| message.to())
            .map(str::to_owned);
        if address.as_deref() == Some(MESH) {
            return self.edges.set_mesh(key, message);
        }
        let is_edge = self.edges.contains(key);
        if is_edge || self.clients.contains(key) {
            drop_claims(is_edge, address.as_deref(), message);
        }
        let own = self.router.id().to_owned();
        match address.as_deref().map(ParsedAddress::parse) {
            None => false,
            Some(ParsedAddress::Local(_) | ParsedAddress::All(_)) if control => {
                self.control_message(group, bytes);
                true
            }
            Some(ParsedAddress::Router { id, rest })
                if control && (id != own || rest.starts_with("qdrouter")) =>
            {
                self.control_message(group, bytes);
                true
            }
            // Only routers take part in routing.
            Some(ParsedAddress::All(_)) => false,
            Some(ParsedAddress::Router { rest, .. }) if rest.starts_with("qdrouter") => false,
            Some(ParsedAddress::Mobile(mobile)) if self.vanflow_emitter.take(mobile, message) => {
                true
            }
            Some(ParsedAddress::Mobile(mobile)) => {
                self.annotate(message, mobile) && self.spread((key, group), mobile, message)
            }
            Some(ParsedAddress::Router { id, .. }) if id != own => {
                let towards = self.router.routes().link_towards(id);
                self.send_on(group, towards, address.as_deref(), message)
            }
            Some(ParsedAddress::Edge { id, .. }) if id != own => {
                let towards = self.router.routes().link_towards_edge(id);
                self.send_on(group, towards, address.as_deref(), message)
            }
            Some(_) => self.deliver_here(key, address.as_deref().unwrap_or_default(), message),
        }
    }

    /// The address that the AMQP link of a message is for, if it is for one.
    fn address_of(&self, from: Arrival) -> Option<&str> {
        let Arrival { key, link, .. } = from;
        let own = self.clients.address(key, link);
        let own = own.or_else(|| self.edges.address(key, link));
        own.or_else(|| self.uplink.address(key, link))
    }

    fn control_message(&mut self, key: ConnKey, message: &Bytes) {
        if let Err(error) = self.router.receive_control(key, message, clock::now())
            && let Some(suppressed) = self.router_reports.invalid.count_and_report(clock::now())
        {
            let remote = self.peers.get(key).map(|p| &p.remote);
            let error = crate::telemetry::chain(&error);
            tracing::warn!(
                ?remote,
                error,
                suppressed,
                "dropping an invalid control message"
            );
        }
    }

    /// Delivers a message to a client that receives from an address of this router.
    fn deliver_here(&mut self, from: ConnKey, address: &str, message: &Message) -> bool {
        let receiver = self.clients.receivers(address, from).next();
        if let Some(receiver) = &receiver {
            deliver(receiver, message, &mut self.effects);
        }
        receiver.is_some()
    }

    /// Sends a message on a link towards a router or an edge.
    fn send_on(
        &mut self,
        from: ConnKey,
        link: Option<ConnKey>,
        address: Option<&str>,
        message: &mut Message,
    ) -> bool {
        let address = address.unwrap_or_default();
        let Some(link) = link.filter(|link| *link != from) else {
            return false;
        };
        if !self.annotate(message, address) {
            return false;
        }
        if self.edges.contains(link) {
            return self.edges.send(link, message, &mut self.effects);
        }
        self.send(link, address, encode(message));
        true
    }

    fn send(&mut self, link: ConnKey, address: &str, message: Bytes) {
        let effects = &mut self.effects;
        if !self.uplink.send(link, address, message.clone(), effects) {
            effects.send_command(link, Command::Message(link, PRIORITY, message));
        }
    }

    /// Puts this router into the message's trace. False: it has been here before.
    pub(in crate::core) fn annotate(&self, message: &mut Message, address: &str) -> bool {
        let id = format!("0/{}", self.router.id());
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

    /// Delivers a message to receivers of its address, here and elsewhere. False: there are none.
    pub(in crate::core) fn spread(
        &mut self,
        (key, group): (ConnKey, ConnKey),
        address: &str,
        message: &Message,
    ) -> bool {
        let routes = self.router.routes();
        let own = format!("0/{}", self.router.id());
        let annotations = message.annotations.as_ref();
        let ingress = annotations.and_then(|a| a.ingress.as_deref());
        let origin = ingress
            .filter(|i| *i != own)
            .map(|i| i.trim_start_matches("0/"));
        let exclude = Exclusions {
            links: vec![group],
            // Edges are among the receivers here.
            edges: true,
            ..Exclusions::default()
        };
        let mesh = annotations.and_then(|a| a.ingress_mesh.as_deref());
        let receivers = self.clients.receivers(address, key);
        let receivers: Vec<Receiver> = receivers
            .chain(self.edges.receivers(address, key, mesh))
            .collect();
        let route = routes.addresses.get(address);
        if Treatment::of(address) == Treatment::Multicast {
            for receiver in &receivers {
                deliver(receiver, message, &mut self.effects);
            }
            let links = route.map(|r| r.multicast_links(origin, &exclude));
            let links = links.unwrap_or_default();
            let bytes = encode(message);
            for link in &links {
                self.send(*link, address, bytes.clone());
            }
            return !receivers.is_empty() || !links.is_empty();
        }
        if !receivers.is_empty() {
            self.rotation = self.rotation.wrapping_add(1);
            let receiver = &receivers[self.rotation % receivers.len()];
            deliver(receiver, message, &mut self.effects);
            return true;
        }
        match route.map(|r| r.choose(&[], origin, &exclude)) {
            Some(Choice::Remote { link, .. }) => {
                self.send(link, address, encode(message));
                true
            }
            _ => false,
        }
    }

    /// Whether an address has receivers, here or elsewhere.
    pub(in crate::core) fn has_receivers(&self, address: &str) -> bool {
        let routes = self.router.routes();
        let route = routes.addresses.get(address);
        // No connection has the key 0.
        route.is_some_and(|r| !r.multicast_links(None, &Exclusions::default()).is_empty())
            || self.clients.receivers(address, 0).next().is_some()
            || self.edges.receivers(address, 0, None).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged_annotations() -> Message {
        Message {
            annotations: Some(RouterAnnotations {
                to_override: Some("_topo/0/all/qdrouter".to_owned()),
                ingress: Some("0/east-1-1".to_owned()),
                trace: vec!["0/east-1-1".to_owned()],
                ingress_mesh: Some("mesh".to_owned()),
                ..RouterAnnotations::default()
            }),
            ..Message::default()
        }
    }

    #[test]
    fn a_client_says_neither_where_a_message_comes_from_nor_that_it_goes_elsewhere() {
        let mut message = forged_annotations();
        drop_claims(false, Some("web"), &mut message);
        assert_eq!(message.to(), Some("web"));
        let annotations = message.annotations.expect("the address of the link");
        assert_eq!(annotations.ingress, None);
        assert_eq!(annotations.ingress_mesh, None);
        assert!(annotations.trace.is_empty());
    }

    #[test]
    fn an_edge_says_its_mesh_and_nothing_else() {
        let mut message = forged_annotations();
        drop_claims(true, Some("web"), &mut message);
        assert_eq!(message.to(), Some("web"));
        let annotations = message.annotations.expect("the address of the link");
        assert_eq!(annotations.ingress_mesh.as_deref(), Some("mesh"));
        assert_eq!(annotations.ingress, None);
        assert!(annotations.trace.is_empty());
    }
}
