//! Incoming control messages: passed on if they are for others, else acted on.

use super::{
    Router,
    addresses::Update,
    config::Output,
    send::{MOBILE_ADDRESSES, ROUTER},
    topology::RouterInstance,
};
use crate::{
    amqp::message::Message,
    router::{
        control::{Control, ControlError},
        routes::{ConnId, ParsedAddress},
    },
};
use std::time::Instant;

/// What an address has in an answer, at least.
const ADDRESS_BYTES: usize = 32;

impl Router {
    /// Takes a control message from a link. Messages for other routers are passed on.
    pub fn receive_control(
        &mut self,
        link: ConnId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), ControlError> {
        self.now = now;
        let message = Message::decode(bytes)?;
        match ParsedAddress::parse(message.to().unwrap_or_default()) {
            ParsedAddress::Local(_) => {}
            ParsedAddress::All(_) => {
                // A router that there is no room for is not made known to others either.
                let control = Control::decode(&message);
                let via = self.neighbours.via(link);
                let id = control.as_ref().ok().map(Control::id);
                if id.is_none_or(|id| id != self.cfg.id && self.topology.has_room(id, via)) {
                    self.forward_flood(link, &message);
                }
                return self.take_control(link, control?);
            }
            ParsedAddress::Router { id, .. } if id == self.cfg.id => {}
            ParsedAddress::Router { id, .. } => {
                // Nobody speaks to others in the name of this router.
                if Control::decode(&message).is_ok_and(|control| control.id() == self.cfg.id) {
                    return Ok(());
                }
                self.forward(link, id, &message);
                return Ok(());
            }
            ParsedAddress::Edge { .. } | ParsedAddress::Mobile(_) => return Ok(()),
        }
        let control = Control::decode(&message)?;
        self.take_control(link, control)
    }

    fn take_control(&mut self, link: ConnId, control: Control) -> Result<(), ControlError> {
        if control.id() == self.cfg.id {
            if matches!(control, Control::Hello { .. }) {
                self.outputs.push_back(Output::DuplicateId { link });
            }
            return Ok(());
        }
        self.on_control(link, control);
        Ok(())
    }

    fn on_control(&mut self, link: ConnId, control: Control) {
        let (now, via) = (self.now, self.neighbours.via(link));
        match control {
            Control::Hello { id, instance, seen } => self.on_hello(link, id, instance, &seen),
            Control::Ra {
                id,
                instance,
                ls_seq,
                mobile_seq,
            } => {
                if self.identify(link, &id, instance) {
                    let newer = self.topology.on_ra(&id, ls_seq, now);
                    if self.addresses.on_ra(&id, mobile_seq) || newer {
                        // Asks at once, even if a request is under way.
                        self.topology.request_at_once(&id);
                        self.addresses.request_at_once(&id);
                        self.requests_due = true;
                    }
                }
            }
            Control::Lsr { id } => {
                let lsu = Control::Lsu {
                    id: self.cfg.id.clone(),
                    instance: self.cfg.instance,
                    ls_seq: self.neighbours.seq(),
                    peers: self.neighbours.peers().clone(),
                };
                self.answer(link, &id, &lsu, ROUTER);
            }
            Control::Lsu {
                id,
                instance,
                ls_seq,
                peers,
            } => {
                if self.identify(link, &id, instance)
                    && !self.topology.on_lsu(&id, ls_seq, peers, via, now)
                {
                    self.over_budget(link, id);
                }
            }
            Control::Mar { id, have_seq } => self.on_mar(link, &id, have_seq),
            Control::MauDelta { id, seq, add, del } if self.topology.knows(&id) => {
                let changes = &mut self.changes;
                let update = self.addresses.on_delta((&id, seq), add, &del, via, changes);
                self.updated(link, id, update);
            }
            Control::MauFull { id, seq, exist } if self.topology.knows(&id) => {
                let changes = &mut self.changes;
                let update = self.addresses.on_full((&id, seq), exist, via, changes);
                self.updated(link, id, update);
            }
            // From a router without an RA so far: its RA will name this update.
            Control::MauDelta { .. } | Control::MauFull { .. } => {}
        }
    }

    fn updated(&mut self, link: ConnId, id: String, update: Update) {
        match update {
            Update::Taken => {}
            Update::Missing => self.requests_due = true,
            Update::OverBudget => self.over_budget(link, id),
        }
    }

    fn over_budget(&mut self, link: ConnId, id: String) {
        self.outputs.push_back(Output::OverBudget { link, id });
    }

    /// Makes sure that a router is known. False: its message is dropped.
    fn identify(&mut self, link: ConnId, id: &str, instance: i64) -> bool {
        let known = self.topology.instance(id);
        if known.is_some_and(|known| known != instance) && self.neighbours.is_elsewhere(link, id) {
            // Only a neighbour itself may report its restart.
            let id = id.to_owned();
            self.outputs.push_back(Output::WrongInstance { link, id });
            return false;
        }
        let via = self.neighbours.via(link);
        match self.topology.identify(id, instance, via, self.now) {
            RouterInstance::Known => true,
            RouterInstance::New => {
                self.addresses.remove(id, &mut self.changes);
                true
            }
            RouterInstance::Restarted => {
                let id = id.to_owned();
                self.addresses.remove(&id, &mut self.changes);
                self.outputs.push_back(Output::Restarted { link, id });
                true
            }
            RouterInstance::Refused => {
                self.over_budget(link, id.to_owned());
                false
            }
        }
    }

    fn on_hello(&mut self, link: ConnId, id: String, instance: i64, seen: &[String]) {
        if !self.neighbours.is_bound_to(link, &id) {
            self.outputs.push_back(Output::WrongId { link, id });
            return;
        }
        if !self.identify(link, &id, instance) {
            return;
        }
        let two_way = seen.contains(&self.cfg.id);
        let effects = self.neighbours.on_hello(link, &id, two_way, self.now);
        if let Some(lost) = effects.lost_neighbour {
            self.neighbour_lost(lost);
        }
        if effects.needs_answer {
            // The neighbour waits for a HELLO that names it: the next tick may be a second away.
            self.send_hello(link);
        }
        if effects.contact_began {
            self.outputs.push_back(Output::NeighbourUp { link, id });
            self.neighbours_changed();
            self.send_ra();
        }
    }

    fn on_mar(&mut self, link: ConnId, id: &str, have_seq: i64) {
        let bytes = self.addresses.local().len() * ADDRESS_BYTES;
        if !self.neighbours.may_answer(link, bytes, self.now) {
            return;
        }
        // The answer has the number of the last update: pending changes go out first.
        self.announce_addresses();
        let edges: Vec<String> = self
            .edges
            .attached()
            .into_keys()
            .map(str::to_owned)
            .collect();
        let update = self.addresses.full_update(&self.cfg.id, have_seq, edges);
        if let Some(update) = update {
            self.answer(link, id, &update, MOBILE_ADDRESSES);
        }
    }
}
