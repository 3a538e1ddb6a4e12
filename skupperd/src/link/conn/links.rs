//! Links that are not a stream's: the fixed ones of a control connection, those of clients, and the
//! messages on them.

use super::{CREDIT, Incoming, Inner, Outgoing};
use crate::amqp::{
    connection::{ApiError, AttachArgs, LinkId},
    performative::{Attach, Error as AmqpError, Role, Source, Target},
};
use crate::link::wire::WireError;
use bytes::Bytes;

impl Inner {
    /// Sends one complete message, settled, on a link; waits in line while there is no credit. False:
    /// the line is full.
    pub(in crate::link) fn send_message(&mut self, link: LinkId, message: Bytes) -> bool {
        let line = self.lines.entry(link).or_default();
        if line.len() >= self.max_line {
            return false;
        }
        line.push_back(message);
        self.advance_line(link);
        true
    }

    /// Sends what waits for credit on a link.
    pub(in crate::link) fn advance_line(&mut self, link: LinkId) {
        let Some(line) = self.lines.get_mut(&link) else {
            return;
        };
        while let Some(message) = line.front() {
            match self.amqp.send_message(link, message, true) {
                Ok(_) => drop(line.pop_front()),
                // Credit or window come with a flow, and then it goes on.
                Err(ApiError::NoCredit | ApiError::NoWindow) => break,
                Err(error) => {
                    tracing::debug!(%error, "messages for a link that is gone");
                    line.clear();
                }
            }
        }
        if line.is_empty() {
            self.lines.remove(&link);
        }
        self.drain_control();
        self.kick();
    }

    /// Accepts a link the peer attached, with the usual credit.
    pub(in crate::link) fn accept(&mut self, link: LinkId, attach: &Attach) {
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
    pub(in crate::link) fn client_attached(
        &mut self,
        link: LinkId,
        attach: &Attach,
        router: &str,
    ) -> Attach {
        let mut attach = attach.clone();
        if attach.role == Role::Sender {
            *self.in_link(link) = Incoming::Idle;
        } else {
            *self.out_link(link) = Outgoing::Fixed;
            if let Some(source) = attach.source.as_mut().filter(|s| s.dynamic) {
                let name = format!("{:x}-{:x}", self.key, link.index());
                source.address = Some(format!("amqp:/_topo/0/{router}/temp.c{name}"));
            }
        }
        self.accept(link, &attach);
        self.drain_control();
        self.kick();
        attach
    }

    /// Attaches the fixed links of a control connection that we dialled: control links on the first
    /// session, message links for each priority on ten more.
    pub(in crate::link) fn attach_fixed(&mut self) {
        for priority in 0..=self.fixed.data.len() {
            let Ok(session) = self.amqp.begin() else {
                self.fail(
                    "amqp:resource-limit-exceeded",
                    "peer takes no further session",
                );
                return;
            };
            let capability = if priority == 0 {
                "qd.router"
            } else {
                "qd.router-data"
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
                    self.fail("amqp:resource-limit-exceeded", "peer takes no further link");
                    return;
                };
                if role == Role::Receiver {
                    *self.in_link(link) = Incoming::Idle;
                } else {
                    *self.out_link(link) = Outgoing::Fixed;
                    match priority.checked_sub(1) {
                        None => self.fixed.control = Some(link),
                        Some(priority) => self.fixed.data[priority] = Some(link),
                    }
                }
            }
        }
        self.drain_control();
        self.kick();
    }

    /// Attaches a link that is no stream's, on an edge's connection. None: the connection ends.
    pub(in crate::link) fn attach_own(&mut self, mut args: AttachArgs) -> Option<LinkId> {
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
            self.fail("amqp:resource-limit-exceeded", "peer takes no further link");
            return None;
        };
        match role {
            Role::Receiver => *self.in_link(link) = Incoming::Idle,
            Role::Sender => *self.out_link(link) = Outgoing::Fixed,
        }
        self.drain_control();
        self.kick();
        Some(link)
    }

    /// Detaches a link that is no stream's.
    pub(in crate::link) fn detach_own(&mut self, link: LinkId, error: Option<AmqpError>) {
        // The peer may have detached it meanwhile, and a stream have its place.
        let out = matches!(self.out_link(link), Outgoing::None | Outgoing::Fixed);
        if !out || !matches!(self.in_link(link), Incoming::None | Incoming::Idle) {
            return;
        }
        *self.out_link(link) = Outgoing::None;
        *self.in_link(link) = Incoming::None;
        self.lines.remove(&link);
        self.amqp.detach(link, true, error);
        self.drain_control();
        self.kick();
    }

    pub(in crate::link) fn link_name(&mut self) -> String {
        self.next_name += 1;
        format!("qdlink.{:015x}", (self.key << 32) | self.next_name)
    }

    /// Why the wire failed, for the log.
    pub(in crate::link) fn wire_failed(error: &WireError) -> String {
        crate::telemetry::chain(error)
    }
}
