//! Control messages that this router sends and passes on.

use super::{Router, config::Output};
use crate::{
    amqp::message::Message,
    router::{
        control::{AREA, Control},
        routes::ConnId,
    },
};
use bytes::BytesMut;

/// Where skupper-router's Python part expects HELLOs.
const HELLO: &str = "amqp:/_local/qdhello";
/// Last segment of its address for RA, LSR and LSU.
pub(super) const ROUTER: &str = "qdrouter";
/// The same of its C part, for MAR and MAU.
pub(super) const MOBILE_ADDRESSES: &str = "qdrouter.ma";

impl Router {
    fn send(&mut self, link: ConnId, control: &Control, to: String) {
        let message = control.encode(&self.cfg.id, to);
        self.outputs.push_back(Output::Control { link, message });
    }

    pub(super) fn send_hello(&mut self, link: ConnId) {
        let hello = Control::Hello {
            id: self.cfg.id.clone(),
            instance: self.cfg.instance,
            seen: self.neighbours.recent_neighbours().cloned().collect(),
        };
        self.send(link, &hello, HELLO.to_owned());
    }

    pub(super) fn send_ra(&mut self) {
        let ra = Control::Ra {
            id: self.cfg.id.clone(),
            instance: self.cfg.instance,
            ls_seq: self.neighbours.seq(),
            mobile_seq: self.addresses.seq(),
        };
        self.flood(&ra, ROUTER);
        self.timers.ra_sent(self.now);
    }

    /// Tells the network of changed local addresses, all in one message.
    pub(super) fn announce_addresses(&mut self) {
        if let Some(update) = self.addresses.take_update(&self.cfg.id) {
            self.flood(&update, MOBILE_ADDRESSES);
        }
    }

    /// Requests newer link states and addresses from reachable routers. Requests without an answer are
    /// repeated after two HELLO intervals.
    pub(super) fn send_requests(&mut self) {
        let (now, patience) = (self.now, self.cfg.hello_interval * 2);
        for id in self.topology.take_requests(now, patience) {
            let lsr = Control::Lsr {
                id: self.cfg.id.clone(),
            };
            self.send_to(&id, &lsr, ROUTER);
        }
        let topology = &self.topology;
        let is_reachable = |id: &str| topology.path(id).is_some();
        for id in self.addresses.take_requests(is_reachable, now, patience) {
            // 0: the answer is to have all addresses, not what has changed.
            let mar = Control::Mar {
                id: self.cfg.id.clone(),
                have_seq: 0,
            };
            self.send_to(&id, &mar, MOBILE_ADDRESSES);
        }
    }

    fn link_towards(&mut self, id: &str) -> Option<ConnId> {
        self.recompute();
        self.topology.next_hop(id).or(self.uplink.link())
    }

    /// To a router, over the next hop.
    fn send_to(&mut self, id: &str, control: &Control, endpoint: &str) {
        if let Some(link) = self.link_towards(id) {
            self.send(link, control, format!("amqp:/_topo/{AREA}/{id}/{endpoint}"));
        }
    }

    /// An answer, over the next hop. While there is none yet, over the link that the request came from:
    /// the routers in between have passed it on and know the path.
    pub(super) fn answer(&mut self, from: ConnId, id: &str, control: &Control, endpoint: &str) {
        let link = self.link_towards(id).unwrap_or(from);
        self.send(link, control, format!("amqp:/_topo/{AREA}/{id}/{endpoint}"));
    }

    /// To every router, over each next hop once.
    fn flood(&mut self, control: &Control, endpoint: &str) {
        self.recompute();
        for link in self.topology.flood_links() {
            self.send(link, control, format!("amqp:/_topo/{AREA}/all/{endpoint}"));
        }
    }

    // ---- messages of other routers ----

    /// Passes on a message for another router.
    pub(super) fn forward(&mut self, from: ConnId, id: &str, message: &Message) {
        let Some(link) = self.link_towards(id).filter(|link| *link != from) else {
            return;
        };
        if let Some(traced) = self.traced(message) {
            self.put(link, &traced);
        }
    }

    /// Passes on a message for all routers: to the neighbours that are behind this router in the tree
    /// of the router that it is from.
    pub(super) fn forward_flood(&mut self, from: ConnId, message: &Message) {
        self.recompute();
        let Some(annotations) = &message.annotations else {
            return;
        };
        let Some(origin) = &annotations.ingress else {
            return;
        };
        let Some(traced) = self.traced(message) else {
            return;
        };
        let passed: Vec<&str> = annotations.trace.iter().map(|id| bare(id)).collect();
        for link in self.topology.transit_links(bare(origin), &passed) {
            if link != from {
                self.put(link, &traced);
            }
        }
    }

    /// The message with this router in its trace. `None`: it is there already, the message loops.
    fn traced(&self, message: &Message) -> Option<Message> {
        let own = format!("{AREA}/{}", self.cfg.id);
        let trace = message.annotations.as_ref().map(|a| &a.trace);
        if trace.is_some_and(|trace| trace.contains(&own)) {
            return None;
        }
        let mut message = message.clone();
        let annotations = message.annotations.get_or_insert_default();
        annotations.trace.push(own);
        Some(message)
    }

    fn put(&mut self, link: ConnId, message: &Message) {
        let mut out = BytesMut::with_capacity(256);
        message.encode(&mut out);
        let message = out.freeze();
        self.outputs.push_back(Output::Control { link, message });
    }
}

/// An id without its area.
fn bare(id: &str) -> &str {
    id.strip_prefix(AREA)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(id)
}
