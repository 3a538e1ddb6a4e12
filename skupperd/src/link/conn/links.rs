//! Links that are not a stream's: the fixed ones of a control connection, those of clients, and the
//! messages on them.

use super::{CREDIT, ConnectionState, RESOURCE_LIMIT};
use crate::amqp::{
    connection::{ApiError, AttachArgs, LinkId},
    performative::{Attach, Error as AmqpError, Role, Source, Target},
};
use crate::link::names::{ROUTER_CONTROL, ROUTER_DATA};
use bytes::Bytes;

impl ConnectionState {
    /// Sends one complete message, settled, on a link; it waits in line while there is no credit. The
    /// peer that lets too much wait loses the connection.
    pub(crate) fn send_message(&mut self, link: LinkId, message: Bytes) {
        if self.message_lines.push(link, message) {
            self.advance_line(link);
        } else {
            self.over_budget("messages for which the peer gives no credit");
        }
    }

    /// Sends what waits for credit on a link.
    pub(crate) fn advance_line(&mut self, link: LinkId) {
        if self.message_lines.front(link).is_none() {
            return;
        }
        while let Some(message) = self.message_lines.front(link) {
            match self.amqp.send_message(link, message, true) {
                Ok(_) => self.message_lines.pop(link),
                // Continues when a flow brings credit or window.
                Err(ApiError::NoCredit | ApiError::NoWindow) => break,
                Err(error) => {
                    tracing::debug!(%error, "dropping messages for closed link");
                    self.message_lines.remove(link);
                }
            }
        }
        self.send_control();
    }

    /// Accepts a link the peer attached, with the usual credit.
    pub(crate) fn accept(&mut self, link: LinkId, attach: &Attach) {
        let source = attach.source.clone().unwrap_or_default();
        let target = attach.target.clone().unwrap_or_default();
        let credit = if attach.role == Role::Sender {
            CREDIT
        } else {
            0
        };
        self.amqp.accept_attach(link, source, target, credit);
    }

    /// Accepts a client's link; the answer is what it was attached to.
    pub(crate) fn client_attached(
        &mut self,
        link: LinkId,
        attach: &Attach,
        router: &str,
    ) -> Attach {
        let mut attach = attach.clone();
        if attach.role == Role::Sender {
            self.deliveries.reset(link);
        } else {
            self.stream_links.set_fixed(link);
            if let Some(source) = attach.source.as_mut().filter(|s| s.dynamic) {
                let name = format!("{:x}-{:x}", self.key, link.index());
                source.address = Some(format!("amqp:/_topo/0/{router}/temp.c{name}"));
            }
        }
        self.accept(link, &attach);
        self.send_control();
        attach
    }

    /// Attaches the fixed links of a control connection that we dialled: control links on the first
    /// session, message links for each priority on ten more.
    pub(crate) fn attach_fixed(&mut self) {
        for priority in 0..=self.fixed.data.len() {
            let Ok(session) = self.amqp.begin() else {
                self.fail(RESOURCE_LIMIT, "peer accepts no further session");
                return;
            };
            let capability = if priority == 0 {
                ROUTER_CONTROL
            } else {
                ROUTER_DATA
            };
            for role in [Role::Receiver, Role::Sender] {
                let (mut source, mut target) = (Source::default(), Target::default());
                for (capabilities, expiry) in [
                    (&mut source.capabilities, &mut source.expiry_policy),
                    (&mut target.capabilities, &mut target.expiry_policy),
                ] {
                    capabilities.push(capability.into());
                    *expiry = Some("link-detach".into());
                }
                let name = self.link_name();
                let credit = if role == Role::Receiver { CREDIT } else { 0 };
                let args = AttachArgs {
                    name,
                    role,
                    source,
                    target,
                    credit,
                };
                let Ok(link) = self.amqp.attach(session, args) else {
                    self.fail(RESOURCE_LIMIT, "peer accepts no further link");
                    return;
                };
                if role == Role::Receiver {
                    self.deliveries.reset(link);
                    if priority == 0 {
                        self.fixed.control_in = Some(link);
                    }
                } else {
                    self.stream_links.set_fixed(link);
                    match priority.checked_sub(1) {
                        None => self.fixed.control = Some(link),
                        Some(priority) => self.fixed.data[priority] = Some(link),
                    }
                }
            }
        }
        self.send_control();
    }

    /// Attaches a link that is no stream's, on an edge's connection. None: the connection ends.
    pub(crate) fn attach_own(&mut self, mut args: AttachArgs) -> Option<LinkId> {
        let session = match self.own_session {
            Some(session) => Ok(session),
            None => self.amqp.begin(),
        };
        args.name = self.link_name();
        let role = args.role;
        let attached = session.and_then(|session| {
            self.own_session = Some(session);
            self.amqp.attach(session, args)
        });
        let Ok(link) = attached else {
            self.fail(RESOURCE_LIMIT, "peer accepts no further link");
            return None;
        };
        match role {
            Role::Receiver => self.deliveries.reset(link),
            Role::Sender => self.stream_links.set_fixed(link),
        }
        self.send_control();
        Some(link)
    }

    /// Detaches a link that is no stream's.
    pub(crate) fn detach_own(&mut self, link: LinkId, error: Option<AmqpError>) {
        // The peer may have detached it meanwhile, and a stream have its place.
        if !self.stream_links.is_idle(link) || !self.deliveries.is_idle(link) {
            return;
        }
        self.stream_links.forget(link);
        self.message_lines.remove(link);
        self.amqp.detach(link, true, error);
        self.send_control();
    }

    pub(crate) fn link_name(&mut self) -> String {
        self.next_name += 1;
        format!("qdlink.{:015x}", (self.key << 32) | self.next_name)
    }
}
