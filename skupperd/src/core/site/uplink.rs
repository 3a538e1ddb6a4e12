//! The uplink of a site that is an edge: how it is attached to one interior router.
//!
//! Of the links that are up, the cheapest is the uplink; of equals the one that has been up the longest.
//! The others stand by: their connections are open and nothing is attached. When another takes over,
//! streams that are on the earlier one stay there until they end.

use super::{
    delivery::encode,
    edges::tracked,
    effects::{Effects, RouterInput},
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
        names::{DOWNLINK, MESH, MESH_ID, SITE_ADVERT, TRACKING},
    },
    messages::{CloseReason, Command},
    sys::clock,
    telemetry::Failures,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Longest name of a site that is taken from an interior router.
const MAX_ADVERT: usize = 512;
/// Credit on the tracking link, as in skupper-router.
const TRACKING_CREDIT: u32 = 32;

/// The site that an interior router names in its `open`.
pub(in crate::core) fn advert_of(open: &Open) -> Option<String> {
    let advert = open.property(SITE_ADVERT)?.as_str()?;
    (advert.len() <= MAX_ADVERT).then(|| advert.to_owned())
}

/// What an edge attaches a link for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::core) enum UplinkPurpose {
    /// Announces the mesh of this edge.
    Mesh,
    Anywhere,
    /// Receives messages for the id of this router.
    Downlink,
    /// Reports which addresses have receivers. Attached before the links of addresses:
    /// skupper-router does not track an address whose link came earlier.
    Tracking,
    /// Receives from an address.
    Consumer(String),
    /// Sends to an address and gets its reachability.
    Producer(String),
}

impl UplinkPurpose {
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
pub(in crate::core) struct Uplink {
    router: String,
    active: Option<ConnKey>,
    /// Sites of the interior routers, by connection.
    adverts: HashMap<ConnKey, String>,
    /// Links by purpose; `Some` once the worker has attached them.
    links: BTreeMap<UplinkPurpose, Option<LinkId>>,
    purposes: HashMap<LinkId, UplinkPurpose>,
    /// Links on their way.
    tags: HashMap<u64, UplinkPurpose>,
    next_tag: u64,
    /// Messages of the interior router that are invalid.
    invalid: Failures,
}

impl Uplink {
    pub(in crate::core) fn new(router: &str) -> Self {
        Self {
            router: router.to_owned(),
            ..Self::default()
        }
    }

    /// An interior router has opened a connection, and may have said which site it is of.
    pub(in crate::core) fn opened(&mut self, key: ConnKey, advert: Option<String>) {
        self.adverts.extend(advert.map(|advert| (key, advert)));
    }

    pub(in crate::core) fn closed(&mut self, key: ConnKey) {
        self.adverts.remove(&key);
    }

    /// Moves to another connection: its key, the id of the interior router, and the cost. False: it
    /// is in use already.
    pub(in crate::core) fn select(
        &mut self,
        next: Option<(ConnKey, &str, u32)>,
        effects: &mut Effects,
    ) -> bool {
        let key = next.map(|(key, ..)| key);
        let earlier = self.active;
        if earlier == key {
            return false;
        }
        self.active = key;
        let links = std::mem::take(&mut self.links);
        self.purposes.clear();
        self.tags.clear();
        // Streams have links of their own, which stay.
        if let Some(earlier) = earlier {
            for link in links.into_values().flatten() {
                effects.send_command(earlier, Command::Detach(earlier, link, None));
            }
        }
        let advert = key.and_then(|key| self.adverts.get(&key).cloned());
        let active = next.map(|(key, id, cost)| (key, id.to_owned(), cost));
        effects.router(RouterInput::SetUplink(active, advert.into_iter().collect()));
        effects.update_view();
        true
    }

    /// Attaches links for what this edge receives from and sends to, and detaches the others.
    pub(in crate::core) fn sync(
        &mut self,
        consumed: impl IntoIterator<Item = String>,
        sent_to: impl IntoIterator<Item = String>,
        effects: &mut Effects,
    ) {
        let Some(key) = self.active else {
            return;
        };
        let mut wanted = BTreeSet::from([
            UplinkPurpose::Mesh,
            UplinkPurpose::Anywhere,
            UplinkPurpose::Downlink,
            UplinkPurpose::Tracking,
        ]);
        wanted.extend(consumed.into_iter().map(UplinkPurpose::Consumer));
        wanted.extend(sent_to.into_iter().map(UplinkPurpose::Producer));
        let gone = self.links.keys().filter(|p| !wanted.contains(p));
        for purpose in gone.cloned().collect::<Vec<_>>() {
            self.detach(key, &purpose, effects);
            if let UplinkPurpose::Producer(address) = purpose {
                effects.router(RouterInput::SetReachable(address, false));
            }
        }
        for purpose in wanted {
            if !self.links.contains_key(&purpose) {
                self.attach(key, purpose, effects);
            }
        }
    }

    fn attach(&mut self, key: ConnKey, purpose: UplinkPurpose, effects: &mut Effects) {
        self.next_tag += 1;
        let args = Box::new(purpose.args(&self.router));
        effects.send_command(key, Command::Attach(key, self.next_tag, args));
        self.tags.insert(self.next_tag, purpose.clone());
        self.links.insert(purpose, None);
    }

    fn detach(&mut self, key: ConnKey, purpose: &UplinkPurpose, effects: &mut Effects) {
        if let Some(Some(link)) = self.links.remove(purpose) {
            self.purposes.remove(&link);
            effects.send_command(key, Command::Detach(key, link, None));
        }
    }

    /// The worker has attached a link of ours. `mesh`: the mesh of this edge.
    pub(in crate::core) fn attached(
        &mut self,
        key: ConnKey,
        tag: u64,
        link: LinkId,
        mesh: Option<&str>,
        effects: &mut Effects,
    ) {
        let purpose = match self.tags.remove(&tag) {
            Some(purpose) if self.links.get(&purpose) == Some(&None) => purpose,
            // It is not wanted any more.
            _ => return effects.send_command(key, Command::Detach(key, link, None)),
        };
        if purpose == UplinkPurpose::Mesh {
            let message = encode(&mesh_message(mesh));
            effects.send_command(key, Command::ClientMessage(key, link, message));
        }
        self.links.insert(purpose.clone(), Some(link));
        self.purposes.insert(link, purpose);
    }

    /// The interior router has detached a link of ours, or does not take it.
    pub(in crate::core) fn detached(&mut self, key: ConnKey, link: LinkId, effects: &mut Effects) {
        if self.active != Some(key) {
            return;
        }
        let Some(purpose) = self.purposes.remove(&link) else {
            return;
        };
        match purpose {
            UplinkPurpose::Tracking | UplinkPurpose::Downlink => {
                effects.close(key, CloseReason::NotForEdges);
            }
            purpose => {
                // It stays known, so that it is not asked for again and again.
                tracing::warn!(
                    ?purpose,
                    "interior router refused an AMQP link of this edge"
                );
                if let UplinkPurpose::Producer(address) = &purpose {
                    effects.router(RouterInput::SetReachable(address.clone(), false));
                }
                self.links.insert(purpose, None);
            }
        }
    }

    /// Takes a message that is for this router itself: the one on the tracking link. False: it is for
    /// others.
    pub(in crate::core) fn take(
        &self,
        key: ConnKey,
        link: LinkId,
        message: &Message,
        effects: &mut Effects,
    ) -> bool {
        let tracking =
            self.active == Some(key) && self.purposes.get(&link) == Some(&UplinkPurpose::Tracking);
        if !tracking {
            return false;
        }
        match tracked(message) {
            // Only what was asked for.
            Some((address, reachable)) => {
                let asked = UplinkPurpose::Producer(address.to_owned());
                if self.links.contains_key(&asked) {
                    effects.router(RouterInput::SetReachable(address.to_owned(), reachable));
                }
            }
            None => {
                if let Some(suppressed) = self.invalid.count_and_report(clock::now()) {
                    tracing::warn!(
                        suppressed,
                        "dropping an invalid message of the interior router on the tracking link"
                    );
                }
            }
        }
        true
    }

    /// Sends a message to an address through the interior router. False: this link is not the uplink.
    pub(in crate::core) fn send(
        &self,
        link: ConnKey,
        address: &str,
        message: Bytes,
        effects: &mut Effects,
    ) -> bool {
        if self.active != Some(link) {
            return false;
        }
        let own = UplinkPurpose::Producer(address.to_owned());
        let by = self.links.get(&own).copied().flatten();
        let by = by.or_else(|| self.links.get(&UplinkPurpose::Anywhere).copied().flatten());
        if let Some(by) = by {
            effects.send_command(link, Command::ClientMessage(link, by, message));
        }
        true
    }

    /// The address that a link of the uplink receives from; `None`: it is not one of those.
    pub(in crate::core) fn address(&self, key: ConnKey, link: LinkId) -> Option<&str> {
        if self.active != Some(key) {
            return None;
        }
        match self.purposes.get(&link)? {
            UplinkPurpose::Consumer(address) => Some(address),
            _ => None,
        }
    }
}

/// The first message of an edge: its mesh.
fn mesh_message(mesh: Option<&str>) -> Message {
    let properties = mesh.map(|mesh| {
        let name = Value::Symbol(Symbol::from(MESH_ID));
        (name, Value::from(mesh))
    });
    Message {
        application_properties: properties.into_iter().collect(),
        annotations: Some(RouterAnnotations {
            ingress_mesh: mesh.map(str::to_owned),
            ..RouterAnnotations::default()
        }),
        ..Message::default()
    }
}

#[cfg(test)]
mod tests;
