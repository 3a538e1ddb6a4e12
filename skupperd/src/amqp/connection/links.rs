//! Links: attach and detach, by us and by the peer.

use super::{
    Connection,
    config::{AttachArgs, LINK_BYTES},
    event::{ApiError, ConnectionError, Event, LinkId, SessionId},
    state::AmqpLink,
};
use crate::amqp::performative::{Attach, Detach, Error, Performative, Role, Source, Target};
use std::sync::Arc;

impl Connection {
    pub fn attach(&mut self, session: SessionId, args: AttachArgs) -> Result<LinkId, ApiError> {
        let limit = self.limits.links;
        if self.link_count() >= limit {
            return Err(ApiError::Limit("link"));
        }
        let state = self.session_mut(session.0).filter(|s| !s.ending);
        let state = state.ok_or(ApiError::Gone)?;
        let limit = limit.min((state.remote_handle_max as usize).saturating_add(1));
        let handle = state.free_handle(limit).ok_or(ApiError::Limit("handle"))?;
        let link = self.new_link(AmqpLink {
            session: session.0,
            role: args.role,
            handle,
            credit_target: args.credit,
            ..AmqpLink::default()
        })?;
        if let Some(state) = self.session_mut(session.0) {
            state.unanswered.insert(args.name.clone(), link);
        }
        self.put_attach(link, args.name, Some(args.source), Some(args.target));
        Ok(link)
    }

    /// Accepts the peer's attach. `credit` is for links we receive on, and is topped up.
    pub fn accept_attach(&mut self, link: LinkId, source: Source, target: Target, credit: u32) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        let Some(attach) = state.unanswered.take() else {
            return;
        };
        state.credit_target = credit;
        self.put_attach(link, attach.name, Some(source), Some(target));
        self.top_up(link, true);
    }

    /// Refuses the peer's attach: an attach without terminus, then a detach with the error (part
    /// 2.6.3).
    pub fn refuse_attach(&mut self, link: LinkId, error: Error) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        let Some(attach) = state.unanswered.take() else {
            return;
        };
        let (source, target) = match state.role {
            Role::Sender => (None, attach.target),
            Role::Receiver => (attach.source, None),
        };
        self.put_attach(link, attach.name, source, target);
        self.detach(link, true, Some(error));
    }

    fn put_attach(
        &mut self,
        link: LinkId,
        name: String,
        source: Option<Source>,
        target: Option<Target>,
    ) {
        let Some(state) = self.link(link) else { return };
        let sender = state.role == Role::Sender;
        let channel = state.session;
        let attach = Attach {
            name,
            handle: state.handle,
            role: state.role,
            // mixed, first: what skupper-router's links have.
            snd_settle_mode: Some(2),
            rcv_settle_mode: Some(0),
            source,
            target,
            initial_delivery_count: (sender || state.unanswered.is_none()).then_some(0),
            max_message_size: Some(0),
            ..Attach::default()
        };
        self.put(channel, &Performative::Attach(Box::new(attach)));
    }

    /// Detaches a link. `Event::Detach` follows when the peer answers.
    pub fn detach(&mut self, link: LinkId, closed: bool, error: Option<Error>) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        if std::mem::replace(&mut state.detached, true) {
            return;
        }
        let (channel, handle) = (state.session, state.handle);
        let detach = Detach {
            handle,
            closed,
            error,
        };
        self.put(channel, &Performative::Detach(detach));
    }

    fn new_link(&mut self, link: AmqpLink) -> Result<LinkId, ApiError> {
        // Free handles are kept too: they must not add up, session by session.
        if self.totals.handles >= self.limits.links * 2 {
            return Err(ApiError::Limit("handle"));
        }
        let index = match self.free_links.pop() {
            Some(index) => index,
            None if self.links.len() >= self.limits.links => return Err(ApiError::Limit("link")),
            None => {
                self.links.push(None);
                u32::try_from(self.links.len() - 1).map_err(|_| ApiError::Limit("link"))?
            }
        };
        let id = LinkId(index);
        self.totals.link_bytes += link.bytes;
        if let Some(session) = self.session_mut(link.session)
            && session.set_local_handle(link.handle, id)
        {
            self.totals.handles += 1;
        }
        self.links[index as usize] = Some(link);
        Ok(id)
    }

    /// Takes a link out of the table of links, not out of its session.
    pub(super) fn free_link(&mut self, link: LinkId) -> Option<AmqpLink> {
        let state = self.links.get_mut(link.index())?.take()?;
        self.free_links.push(link.0);
        self.totals.link_bytes -= state.bytes;
        Some(state)
    }

    /// Forgets a link that both sides have detached.
    pub(super) fn drop_link(&mut self, link: LinkId) {
        let Some(state) = self.free_link(link) else {
            return;
        };
        if let Some(session) = self.session_mut(state.session) {
            let removed = session.remove_link(link, &state);
            self.totals.subtract(removed);
        }
    }

    pub(super) fn link_by_handle(
        &mut self,
        channel: u16,
        handle: u32,
    ) -> Result<LinkId, ConnectionError> {
        let session = self.session_mut(channel);
        match session.and_then(|s| s.by_remote_handle(handle)) {
            Some(link) => Ok(link),
            None => {
                let text = format!("no link with handle {handle} on channel {channel}");
                Err(self.violation("amqp:session:unattached-handle", text))
            }
        }
    }

    /// `size`: bytes of the frame.
    pub(super) fn on_attach(
        &mut self,
        remote: u16,
        attach: Box<Attach>,
        size: usize,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.local_channel(remote)?;
        self.check_handle(channel, attach.handle)?;
        let role = match attach.role {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        };
        let session = self.session_mut(channel);
        let ours = session.and_then(|s| s.unanswered.remove(&attach.name));
        let ours = ours.filter(|id| self.link(*id).is_some_and(|l| l.role == role));
        let remote_initiated = ours.is_none();
        let link = match ours {
            Some(link) => link,
            None => match self.new_remote_link(channel, role, &attach, size) {
                Ok(link) => link,
                Err(e) => {
                    return Err(self.violation("amqp:resource-limit-exceeded", e.to_string()));
                }
            },
        };
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        session.set_remote_handle(attach.handle, link);
        if let Some(state) = self.link_mut(link) {
            state.remote_handle = Some(attach.handle);
            if role == Role::Receiver {
                state.delivery_count = attach.initial_delivery_count.unwrap_or(0);
            }
        }
        if !remote_initiated {
            self.top_up(link, true);
        }
        Ok(Some(Event::Attach {
            link,
            remote_initiated,
            attach,
        }))
    }

    /// The peer may use this handle for a new link.
    fn check_handle(&mut self, channel: u16, handle: u32) -> Result<(), ConnectionError> {
        let limit = self.limits.links;
        if handle as usize >= limit {
            let text = format!("handle {handle} is over handle-max {}", limit - 1);
            return Err(self.violation("amqp:connection:framing-error", text));
        }
        let session = self.session_mut(channel);
        if session.is_some_and(|s| s.by_remote_handle(handle).is_some()) {
            let text = format!("handle {handle} is in use");
            return Err(self.violation("amqp:session:handle-in-use", text));
        }
        Ok(())
    }

    fn new_remote_link(
        &mut self,
        channel: u16,
        role: Role,
        attach: &Attach,
        size: usize,
    ) -> Result<LinkId, ApiError> {
        let bytes = LINK_BYTES + size;
        if self.totals.link_bytes + bytes > self.limits.link_bytes {
            return Err(ApiError::Limit("memory for links"));
        }
        let limit = self.limits.links;
        let session = self.session_mut(channel);
        let handle = session.and_then(|s| s.free_handle(limit));
        self.new_link(AmqpLink {
            session: channel,
            role,
            handle: handle.ok_or(ApiError::Limit("handle"))?,
            unanswered: Some(Box::new(attach.clone())),
            bytes,
            ..AmqpLink::default()
        })
    }

    pub(super) fn on_detach(
        &mut self,
        remote: u16,
        detach: Detach,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.local_channel(remote)?;
        let link = self.link_by_handle(channel, detach.handle)?;
        self.detach(link, detach.closed, None);
        self.drop_link(link);
        Ok(Some(Event::Detach {
            link,
            closed: detach.closed,
            error: detach.error.map(Arc::new),
        }))
    }

    pub fn link_count(&self) -> usize {
        self.links.len() - self.free_links.len()
    }
}
