//! What a connection knows of its sessions and links.

use super::{ApiError, AttachArgs, Connection, DeliveryId, LinkId, SESSION_WINDOW, SessionId};
use crate::amqp::performative::{
    Attach, Begin, Detach, Error, Flow, Performative, Role, Source, Target,
};
use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) remote_channel: Option<u16>,
    pub(super) next_outgoing_id: u32,
    /// Frames the peer still takes.
    pub(super) remote_window: u32,
    pub(super) window_exhausted: bool,
    pub(super) next_incoming_id: u32,
    /// Frames we still take before the peer has to wait for a flow.
    pub(super) incoming_window: u32,
    pub(super) remote_handle_max: u32,
    /// Link + 1 by remote handle.
    pub(super) remote_handles: Vec<u32>,
    /// Which local handles are taken.
    pub(super) local_handles: Vec<bool>,
    pub(super) next_delivery: u32,
    pub(super) unsettled_out: HashMap<u32, LinkId>,
    pub(super) unsettled_in: HashMap<u32, LinkId>,
    pub(super) ending: bool,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            remote_channel: None,
            next_outgoing_id: 0,
            // Transfers need credit, and credit needs the peer's begin: never used before it.
            remote_window: 0,
            window_exhausted: false,
            next_incoming_id: 0,
            incoming_window: SESSION_WINDOW,
            remote_handle_max: u32::MAX,
            remote_handles: Vec::new(),
            local_handles: Vec::new(),
            next_delivery: 0,
            unsettled_out: HashMap::new(),
            unsettled_in: HashMap::new(),
            ending: false,
        }
    }

    fn take_handle(&mut self, limit: usize) -> Option<u32> {
        let free = self.local_handles.iter().position(|taken| !taken);
        let handle = free.unwrap_or(self.local_handles.len());
        if handle >= limit || handle as u64 > u64::from(self.remote_handle_max) {
            return None;
        }
        if handle == self.local_handles.len() {
            self.local_handles.push(true);
        } else {
            self.local_handles[handle] = true;
        }
        u32::try_from(handle).ok()
    }

    /// A flow with the session's state; the caller adds a link's.
    pub(super) fn flow(&mut self) -> Flow {
        self.incoming_window = SESSION_WINDOW;
        Flow {
            next_incoming_id: self.remote_channel.map(|_| self.next_incoming_id),
            incoming_window: SESSION_WINDOW,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: 0x7fff_ffff,
            ..Flow::default()
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) session: u16,
    pub(super) role: Role,
    pub(super) handle: u32,
    pub(super) remote_handle: Option<u32>,
    /// Sender: deliveries we may start. Receiver: deliveries the peer may start.
    pub(super) credit: u32,
    pub(super) delivery_count: u32,
    /// Credit that is topped up.
    pub(super) auto: u32,
    /// Name of a peer's link that has not been answered.
    pub(super) unanswered: Option<Box<Attach>>,
    pub(super) detached: bool,
    /// The delivery in progress.
    pub(super) current: Option<Current>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) delivery: DeliveryId,
    pub(super) tag: u64,
    /// No frame of it has been sent or given out yet.
    pub(super) fresh: bool,
    pub(super) settled: bool,
}

impl Connection {
    /// Begins a session. Links may be attached at once.
    pub fn begin(&mut self) -> Result<SessionId, ApiError> {
        let channel = self.new_session()?;
        self.put_begin(channel);
        Ok(SessionId(channel))
    }

    pub(super) fn new_session(&mut self) -> Result<u16, ApiError> {
        let peer = self
            .remote
            .as_ref()
            .and_then(|o| o.channel_max)
            .unwrap_or(u16::MAX);
        let free = self
            .sessions
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.sessions.len());
        let channel = u16::try_from(free).map_err(|_| ApiError::Limit("session"))?;
        if free >= self.limits.sessions || channel > peer {
            return Err(ApiError::Limit("session"));
        }
        if free == self.sessions.len() {
            self.sessions.push(None);
        }
        self.sessions[free] = Some(Session::new());
        Ok(channel)
    }

    pub(super) fn put_begin(&mut self, channel: u16) {
        let Some(session) = self.session_mut(channel) else {
            return;
        };
        let begin = Begin {
            remote_channel: session.remote_channel,
            next_outgoing_id: session.next_outgoing_id,
            incoming_window: SESSION_WINDOW,
            outgoing_window: 0x7fff_ffff,
            handle_max: Some(u32::try_from(self.limits.links).unwrap_or(u32::MAX) - 1),
            rest: Vec::new(),
        };
        self.put(channel, &Performative::Begin(begin));
    }

    pub(super) fn new_link(&mut self, link: Link) -> Result<LinkId, ApiError> {
        let index = match self.free_links.pop() {
            Some(index) => index,
            None if self.links.len() >= self.limits.links => return Err(ApiError::Limit("link")),
            None => {
                self.links.push(None);
                u32::try_from(self.links.len() - 1).map_err(|_| ApiError::Limit("link"))?
            }
        };
        self.links[index as usize] = Some(link);
        Ok(LinkId(index))
    }

    /// Attaches a link.
    pub fn attach(&mut self, session: SessionId, args: AttachArgs) -> Result<LinkId, ApiError> {
        let limit = self.limits.links;
        if self.link_count() >= limit {
            return Err(ApiError::Limit("link"));
        }
        let state = self
            .session_mut(session.0)
            .filter(|s| !s.ending)
            .ok_or(ApiError::Gone)?;
        let handle = state.take_handle(limit).ok_or(ApiError::Limit("handle"))?;
        let link = self.new_link(Link {
            session: session.0,
            role: args.role,
            handle,
            auto: args.credit,
            ..Link::default()
        })?;
        self.unanswered
            .insert((session.0, args.name.clone()), link.0);
        self.put_attach(link, args.name, Some(args.source), Some(args.target));
        Ok(link)
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

    /// Answers a peer's attach. `credit` is for links we receive on, and is topped up.
    pub fn accept_attach(&mut self, link: LinkId, source: Source, target: Target, credit: u32) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        let Some(attach) = state.unanswered.take() else {
            return;
        };
        state.auto = credit;
        self.put_attach(link, attach.name, Some(source), Some(target));
        self.top_up(link, true);
    }

    /// Refuses a peer's attach: an attach without terminus, then a detach that says why.
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

    /// Gives credit on a receiving link, once; 0 takes back what was not used.
    pub fn flow(&mut self, link: LinkId, credit: u32) {
        if let Some(state) = self.link_mut(link).filter(|l| l.role == Role::Receiver) {
            state.credit = credit;
            self.put_link_flow(link, false);
        }
    }

    /// Answers a drain: what credit is left is given back.
    pub fn drained(&mut self, link: LinkId) {
        if let Some(state) = self.link_mut(link).filter(|l| l.role == Role::Sender) {
            state.delivery_count = state.delivery_count.wrapping_add(state.credit);
            state.credit = 0;
            self.put_link_flow(link, true);
        }
    }

    pub(super) fn top_up(&mut self, link: LinkId, force: bool) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        if state.role == Role::Receiver
            && state.auto > 0
            && !state.detached
            && (force || state.credit <= state.auto / 2)
        {
            state.credit = state.auto;
            self.put_link_flow(link, false);
        }
    }

    pub(super) fn put_link_flow(&mut self, link: LinkId, drain: bool) {
        let Some(state) = self.link(link) else { return };
        let (channel, handle) = (state.session, state.handle);
        let (count, credit) = (state.delivery_count, state.credit);
        let Some(session) = self.session_mut(channel) else {
            return;
        };
        let flow = Flow {
            handle: Some(handle),
            delivery_count: Some(count),
            link_credit: Some(credit),
            drain,
            ..session.flow()
        };
        self.put(channel, &Performative::Flow(flow));
    }

    /// Detaches a link. The event that it is gone comes with the peer's answer.
    pub fn detach(&mut self, link: LinkId, closed: bool, error: Option<Error>) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        if std::mem::replace(&mut state.detached, true) {
            return;
        }
        let (channel, handle) = (state.session, state.handle);
        self.put(
            channel,
            &Performative::Detach(Detach {
                handle,
                closed,
                error,
            }),
        );
    }

    /// Forgets a link that both sides have detached.
    pub(super) fn drop_link(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(link.index()).and_then(Option::take) else {
            return;
        };
        self.free_links.push(link.0);
        let Some(session) = self.session_mut(state.session) else {
            return;
        };
        if let Some(taken) = session.local_handles.get_mut(state.handle as usize) {
            *taken = false;
        }
        if let Some(place) = state
            .remote_handle
            .and_then(|h| session.remote_handles.get_mut(h as usize))
        {
            *place = 0;
        }
        while session.remote_handles.last() == Some(&0) {
            session.remote_handles.pop();
        }
        session.unsettled_out.retain(|_, l| *l != link);
        session.unsettled_in.retain(|_, l| *l != link);
    }

    /// Ends a session with its links.
    pub fn end(&mut self, session: SessionId, error: Option<Error>) {
        let Some(state) = self.session_mut(session.0) else {
            return;
        };
        if !std::mem::replace(&mut state.ending, true) {
            self.put(session.0, &Performative::End(error));
        }
    }

    /// Closes the connection.
    pub fn close(&mut self, error: Option<Error>) {
        if !std::mem::replace(&mut self.closed, true) {
            self.put(0, &Performative::Close(error));
        }
    }
}
