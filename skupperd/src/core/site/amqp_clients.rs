//! AMQP clients of this host: what they send to and receive from.

use super::{
    delivery::{Receiver, Subscription},
    effects::{Effect, Effects, RouterInput},
};
use crate::{
    amqp::{
        connection::LinkId,
        performative::{Attach, Error as AmqpError, Role},
    },
    link::conn::ConnKey,
    messages::{CloseReason, Command},
    router::{ParsedAddress, Treatment, is_address},
};
use std::collections::BTreeMap;

/// Addresses for answers begin with this, behind that of their router.
const TEMPORARY: &str = "temp.";

#[derive(Default)]
struct AmqpClient {
    /// Links the client sends on, with their target address; anonymous ones have none.
    senders: BTreeMap<LinkId, Option<String>>,
    receivers: BTreeMap<LinkId, Subscription>,
}

#[derive(Default)]
pub(in crate::core) struct AmqpClients {
    by_key: BTreeMap<ConnKey, AmqpClient>,
}

impl AmqpClients {
    pub(in crate::core) fn connected(&mut self, key: ConnKey) {
        self.by_key.insert(key, AmqpClient::default());
    }

    pub(in crate::core) fn contains(&self, key: ConnKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// A client's connection has ended. False: it was not a client's.
    pub(in crate::core) fn disconnected(&mut self, key: ConnKey, effects: &mut Effects) -> bool {
        let Some(client) = self.by_key.remove(&key) else {
            return false;
        };
        for receiver in client.receivers.values() {
            withdraw(&receiver.address, effects);
        }
        true
    }

    pub(in crate::core) fn attached(
        &mut self,
        key: ConnKey,
        link: LinkId,
        attach: &Attach,
        effects: &mut Effects,
    ) {
        let Some(client) = self.by_key.get_mut(&key) else {
            return;
        };
        let address = match attach.role {
            Role::Sender => attach.target.as_ref().and_then(|t| t.address.clone()),
            Role::Receiver => attach.source.as_ref().and_then(|s| s.address.clone()),
        };
        if address.as_deref().is_some_and(|a| !is_address(a)) {
            let reason = "invalid address: empty, too long, or with control characters";
            let reason = AmqpError::new("amqp:invalid-field", reason);
            return effects.send_command(key, Command::Detach(key, link, Some(reason)));
        }
        if is_reply_address_of_another(attach) {
            let reason = "addresses for answers belong to the client that asked for them";
            let reason = AmqpError::new("amqp:not-allowed", reason);
            return effects.push(Effect::ToConnection(
                key,
                Command::Detach(key, link, Some(reason)),
            ));
        }
        match attach.role {
            Role::Sender => {
                client.senders.insert(link, address);
            }
            Role::Receiver => {
                let Some(address) = address else { return };
                if let ParsedAddress::Mobile(mobile) = ParsedAddress::parse(&address) {
                    let treatment = Treatment::of(mobile);
                    effects.router(RouterInput::AddConsumer(mobile.to_owned(), treatment));
                }
                client.receivers.insert(link, Subscription::new(address));
            }
        }
    }

    pub(in crate::core) fn detached(&mut self, key: ConnKey, link: LinkId, effects: &mut Effects) {
        let Some(client) = self.by_key.get_mut(&key) else {
            return;
        };
        client.senders.remove(&link);
        if let Some(receiver) = client.receivers.remove(&link) {
            withdraw(&receiver.address, effects);
        }
    }

    /// A receiver has given credit.
    pub(in crate::core) fn credited(&mut self, key: ConnKey, link: LinkId) {
        let client = self.by_key.get_mut(&key);
        if let Some(receiver) = client.and_then(|c| c.receivers.get_mut(&link)) {
            receiver.ready = true;
        }
    }

    /// The address that a link sends to, if it names one.
    pub(in crate::core) fn address(&self, key: ConnKey, link: LinkId) -> Option<&str> {
        self.by_key.get(&key)?.senders.get(&link)?.as_deref()
    }

    /// Mobile addresses that clients send to.
    pub(in crate::core) fn sent_to(&self) -> impl Iterator<Item = String> {
        let addresses = self.by_key.values().flat_map(|c| c.senders.values());
        addresses
            .flatten()
            .filter_map(|address| match ParsedAddress::parse(address) {
                ParsedAddress::Mobile(mobile) if !mobile.starts_with('$') => {
                    Some(mobile.to_owned())
                }
                _ => None,
            })
    }

    /// Receivers of an address that are not on the connection that a message came in on.
    pub(in crate::core) fn receivers(
        &self,
        address: &str,
        from: ConnKey,
    ) -> impl Iterator<Item = Receiver> {
        let clients = self.by_key.iter().filter(move |(key, _)| **key != from);
        clients.flat_map(move |(key, client)| {
            let receivers = client.receivers.iter();
            let ready = receivers.filter(move |(_, receiver)| receiver.takes(address));
            ready.map(|(link, _)| Receiver {
                key: *key,
                link: *link,
                is_edge: false,
            })
        })
    }

    pub(in crate::core) fn close_all(&self, reason: CloseReason, effects: &mut Effects) {
        self.by_key
            .keys()
            .for_each(|key| effects.close(*key, reason));
    }
}

/// A receiver names an address that only this router makes, for receivers that name none. They can be
/// guessed, and answers would go to an attacker who guesses one.
fn is_reply_address_of_another(attach: &Attach) -> bool {
    let source = attach.source.as_ref().filter(|source| !source.dynamic);
    let address = source.and_then(|source| source.address.as_deref());
    attach.role == Role::Receiver
        && address.is_some_and(|address| match ParsedAddress::parse(address) {
            ParsedAddress::Router { rest, .. } => rest.starts_with(TEMPORARY),
            _ => false,
        })
}

fn withdraw(address: &str, effects: &mut Effects) {
    if let ParsedAddress::Mobile(address) = ParsedAddress::parse(address) {
        effects.router(RouterInput::RemoveConsumer(address.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::performative::{Source, Target as AttachTarget};

    fn attach(role: Role, address: &str) -> Attach {
        let address = Some(address.to_owned());
        let source = Source {
            address: address.clone(),
            ..Source::default()
        };
        let target = AttachTarget {
            address,
            ..AttachTarget::default()
        };
        Attach {
            role,
            source: Some(source),
            target: Some(target),
            ..Attach::default()
        }
    }

    #[test]
    fn a_receiver_is_announced_and_gets_messages_once_it_gives_credit() {
        let (mut clients, mut effects) = (AmqpClients::default(), Effects::default());
        clients.connected(1);
        let link = LinkId::of(0);
        clients.attached(1, link, &attach(Role::Receiver, "web"), &mut effects);
        let consumer = RouterInput::AddConsumer("web".to_owned(), Treatment::of("web"));
        assert_eq!(effects.router_inputs(), [consumer]);
        assert_eq!(clients.receivers("web", 0).count(), 0);
        clients.credited(1, link);
        assert_eq!(clients.receivers("web", 0).count(), 1);
        // A sender never receives its own message.
        assert_eq!(clients.receivers("web", 1).count(), 0);
        assert!(clients.disconnected(1, &mut effects));
        let withdrawn = RouterInput::RemoveConsumer("web".to_owned());
        assert_eq!(effects.router_inputs(), [withdrawn]);
    }

    #[test]
    fn a_link_to_an_invalid_address_is_detached() {
        let (mut clients, mut effects) = (AmqpClients::default(), Effects::default());
        clients.connected(1);
        for (n, role) in (0..).zip([Role::Sender, Role::Receiver]) {
            for address in ["", "web\n", &"x".repeat(600)] {
                let link = LinkId::of(n);
                clients.attached(1, link, &attach(role, address), &mut effects);
                let commands = effects.drain();
                assert!(
                    matches!(
                        commands[..],
                        [Effect::ToConnection(1, Command::Detach(1, _, Some(_)))]
                    ),
                    "{role:?} {address:?}"
                );
                clients.credited(1, link);
                assert_eq!(clients.address(1, link), None);
                assert_eq!(clients.receivers(address, 0).count(), 0);
            }
        }
    }

    #[test]
    fn nobody_receives_from_an_address_for_the_answers_of_another() {
        let (mut clients, mut effects) = (AmqpClients::default(), Effects::default());
        for key in [1, 2] {
            clients.connected(key);
        }
        let address = "amqp:/_topo/0/A/temp.c1-0";
        let mut own = attach(Role::Receiver, address);
        own.source.iter_mut().for_each(|s| s.dynamic = true);
        let link = LinkId::of(0);
        clients.attached(1, link, &own, &mut effects);
        assert!(effects.drain().is_empty());
        clients.attached(2, link, &attach(Role::Receiver, address), &mut effects);
        let commands = effects.drain();
        assert!(matches!(
            commands[..],
            [Effect::ToConnection(2, Command::Detach(2, _, Some(_)))]
        ));
        for key in [1, 2] {
            clients.credited(key, link);
        }
        let receivers = clients.receivers(address, 0).map(|r| r.key);
        assert_eq!(receivers.collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn addresses_of_this_router_are_not_announced() {
        let (mut clients, mut effects) = (AmqpClients::default(), Effects::default());
        clients.connected(1);
        let mut local = attach(Role::Receiver, "amqp:/_topo/0/A/temp.1");
        local.source.iter_mut().for_each(|s| s.dynamic = true);
        clients.attached(1, LinkId::of(0), &local, &mut effects);
        clients.attached(
            1,
            LinkId::of(1),
            &attach(Role::Sender, "$management"),
            &mut effects,
        );
        clients.attached(1, LinkId::of(2), &attach(Role::Sender, "web"), &mut effects);
        assert_eq!(effects.router_inputs(), []);
        assert_eq!(clients.sent_to().collect::<Vec<_>>(), ["web"]);
        assert_eq!(clients.address(1, LinkId::of(2)), Some("web"));
        clients.detached(1, LinkId::of(2), &mut effects);
        assert_eq!(clients.address(1, LinkId::of(2)), None);
    }
}
