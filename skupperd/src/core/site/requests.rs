//! Requests to a site: one method for each.

use super::{Site, links::LinkChange};
use crate::{
    core::{
        context::CoreContext,
        request::{SiteRequest, SiteState, answer},
    },
    link::handshake::RevokedCertificates,
    messages::CloseReason,
    peering::LinkSpec,
};

impl Site {
    pub(in crate::core) fn request(&mut self, request: SiteRequest, ctx: &mut CoreContext) {
        let effects = &mut self.effects;
        match request {
            SiteRequest::SetLink(spec, reply) => {
                self.set_link(*spec);
                answer(reply, ());
            }
            SiteRequest::RemoveLink(name, reply) => {
                self.remove_link(&name);
                answer(reply, ());
            }
            SiteRequest::SetAccess(spec, reply) => {
                self.accesses.set(spec, &mut self.vanflow_emitter);
                answer(reply, ());
            }
            SiteRequest::RemoveAccess { name, cut, reply } => {
                self.remove_access(&name, cut);
                answer(reply, ());
            }
            SiteRequest::SetLocalAmqp(socket, reply) => {
                self.accesses.set_local_amqp(socket);
                answer(reply, ());
            }
            SiteRequest::SetRevoked(refused, reply) => {
                self.refuse(refused);
                answer(reply, ());
            }
            SiteRequest::SetKernelFeatures {
                steering,
                acceleration,
                reply,
            } => {
                self.services
                    .set_acceleration(acceleration, &ctx.sockets, effects);
                self.services
                    .set_steering(steering, &mut ctx.sockets, effects);
                answer(reply, ());
            }
            SiteRequest::ChangeListeners(changes, reply) => {
                self.services.change_listeners(changes, ctx, effects);
                answer(reply, ());
            }
            SiteRequest::SetConnector(spec, reply) => {
                self.services.set_connector(*spec, ctx, effects);
                answer(reply, ());
            }
            SiteRequest::SetServers {
                name,
                servers,
                reply,
            } => answer(
                reply,
                self.services.set_servers(&name, servers, ctx, effects),
            ),
            SiteRequest::RemoveConnector(name, reply) => {
                self.services.remove_connector(&name, effects);
                answer(reply, ());
            }
            SiteRequest::Describe(reply) => answer(reply, self.describe()),
        }
    }

    fn set_link(&mut self, spec: LinkSpec) {
        let (name, cost) = (spec.name.clone(), spec.cost);
        let effects = &mut self.effects;
        match self.links.set(spec, effects) {
            LinkChange::Kept => {
                self.peers.set_cost(&name, cost, effects);
                self.choose_uplink();
            }
            LinkChange::Dialled => {}
            LinkChange::Redialled => {
                let reason = CloseReason::LinkChanged;
                self.peers.close_link(&name, reason, effects);
            }
        }
    }

    fn remove_link(&mut self, name: &str) {
        if self.links.remove(name) {
            let reason = CloseReason::LinkDeleted;
            self.peers.close_link(name, reason, &mut self.effects);
            self.effects.update_status();
        }
    }

    fn remove_access(&mut self, name: &str, cut: bool) {
        if self.accesses.remove(name) && cut {
            let reason = CloseReason::AccessRemoved;
            self.peers.close_access(name, reason, &mut self.effects);
        }
    }

    /// Accepts these certificates no more, and ends the links that came in with one.
    fn refuse(&mut self, refused: RevokedCertificates) {
        self.peers.refuse(&refused, &mut self.effects);
        self.accesses.refuse(refused);
    }

    fn describe(&self) -> SiteState {
        SiteState {
            links: self.links.states(&self.peers),
            listeners: self.services.listener_states(),
            connectors: self.services.connector_states(),
            network: self.router.network(),
            incoming: self.peers.incoming_links(),
        }
    }
}
