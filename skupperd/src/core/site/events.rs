//! Events of a site: which of its methods each calls.

use super::{Arrival, Site};
use crate::{
    link::intake::IntakePermit,
    messages::{AcceptPort, CoreEvent},
};

impl Site {
    /// Handles an event. If a peer has caused it, its permit is given back.
    pub(in crate::core) fn event(&mut self, event: CoreEvent) -> Option<IntakePermit> {
        match event {
            CoreEvent::Accepted {
                port, established, ..
            } => match port {
                AcceptPort::Links { access, role, .. } => {
                    self.accepted(&access, role, *established);
                }
                AcceptPort::Local => self.accepted_client(*established),
            },
            CoreEvent::Dialled { dialled, .. } => self.dialled(*dialled),
            CoreEvent::DialFailed { link, failure, .. } => self.dial_failed(&link, &failure),
            CoreEvent::Superseded { key, .. } => self.superseded(key),
            CoreEvent::Ended { key, group, reason } => self.ended(key, group, &reason),
            CoreEvent::ControlReady { key } => self.control_ready(key),
            CoreEvent::LinkAttached { key, tag, link } => self.uplink_attached(key, tag, link),
            CoreEvent::Probed {
                connector, result, ..
            } => self.probed(connector, result),
            // It concerns no site alone.
            CoreEvent::Changed => {}
            CoreEvent::Message {
                key,
                group,
                link,
                delivery,
                origin,
                message,
                permit,
            } => {
                let from = Arrival {
                    key,
                    group,
                    link,
                    origin,
                };
                self.message(from, delivery, &message);
                return Some(permit);
            }
            CoreEvent::ClientAttached {
                key,
                link,
                attach,
                permit,
            } => {
                self.link_attached(key, link, &attach);
                return Some(permit);
            }
            CoreEvent::ClientDetached { key, link, permit } => {
                self.link_detached(key, link);
                return Some(permit);
            }
            CoreEvent::ClientCredit {
                key,
                link,
                credit,
                permit,
            } => {
                self.link_credited(key, link, credit);
                return Some(permit);
            }
        }
        None
    }
}
