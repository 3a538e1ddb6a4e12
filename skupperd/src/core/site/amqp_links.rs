//! AMQP links of clients, of edges and of the uplink: which part of the site each belongs to. Those of
//! streams stay at the workers.

use super::Site;
use crate::{
    amqp::{
        connection::LinkId,
        performative::{Attach, Error as AmqpError},
    },
    link::conn::ConnKey,
    messages::Command,
};

impl Site {
    /// A client or an edge has attached an AMQP link.
    pub(in crate::core) fn link_attached(&mut self, key: ConnKey, link: LinkId, attach: &Attach) {
        let effects = &mut self.effects;
        if self.edges.contains(key) {
            self.edges.attached(key, link, attach, effects);
        } else if self.clients.contains(key) {
            self.clients.attached(key, link, attach, effects);
            self.clients_changed();
        } else {
            // The interior router of an edge attaches links for streams and no others.
            let reason = AmqpError::new("amqp:not-allowed", "an edge does not accept this link");
            effects.send_command(key, Command::Detach(key, link, Some(reason)));
        }
    }

    /// An AMQP link of a client, of an edge or of the uplink is gone.
    pub(in crate::core) fn link_detached(&mut self, key: ConnKey, link: LinkId) {
        let effects = &mut self.effects;
        if self.edges.contains(key) {
            self.edges.detached(key, link, effects);
        } else if self.clients.contains(key) {
            self.clients.detached(key, link, effects);
            self.clients_changed();
        } else {
            self.uplink.detached(key, link, effects);
        }
    }

    /// An edge asks its interior router who receives what its clients send.
    fn clients_changed(&mut self) {
        if self.spec.edge {
            self.effects.update_view();
        }
    }

    /// A receiver of a client or of an edge has given credit.
    pub(in crate::core) fn link_credited(&mut self, key: ConnKey, link: LinkId, credit: u32) {
        if credit > 0 {
            self.clients.credited(key, link);
            self.edges.credited(key, link);
        }
    }

    /// A worker has attached a link of the uplink.
    pub(in crate::core) fn uplink_attached(&mut self, key: ConnKey, tag: u64, link: LinkId) {
        let routes = self.router.routes();
        let mesh = routes.mesh.as_deref();
        self.uplink
            .attached(key, tag, link, mesh, &mut self.effects);
    }
}
