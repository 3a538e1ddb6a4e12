//! Sessions: begin and end, by us and by the peer.

use super::{
    Connection,
    event::{ApiError, ConnectionError, Event, SessionId},
    state::{OUTGOING_WINDOW, SESSION_WINDOW, Session},
};
use crate::amqp::performative::{Begin, Error, Performative};
use std::sync::Arc;

impl Connection {
    /// Begins a session. Links may be attached at once.
    pub fn begin(&mut self) -> Result<SessionId, ApiError> {
        let channel = self.new_session()?;
        self.put_begin(channel);
        Ok(SessionId(channel))
    }

    fn new_session(&mut self) -> Result<u16, ApiError> {
        let peer = self.remote.as_ref().and_then(|open| open.channel_max);
        let limit = ApiError::Limit("session");
        let channel = match self.free_sessions.last() {
            Some(free) => *free,
            None => u16::try_from(self.sessions.len()).map_err(|_| limit)?,
        };
        if usize::from(channel) >= self.limits.sessions || channel > peer.unwrap_or(u16::MAX) {
            return Err(limit);
        }
        match self.free_sessions.pop() {
            Some(_) => self.sessions[usize::from(channel)] = Some(Session::new()),
            None => self.sessions.push(Some(Session::new())),
        }
        Ok(channel)
    }

    fn put_begin(&mut self, channel: u16) {
        let Some(session) = self.session_mut(channel) else {
            return;
        };
        let begin = Begin {
            remote_channel: session.remote_channel,
            next_outgoing_id: session.next_outgoing_id,
            incoming_window: SESSION_WINDOW,
            outgoing_window: OUTGOING_WINDOW,
            handle_max: Some(u32::try_from(self.limits.links).unwrap_or(u32::MAX) - 1),
            rest: Vec::new(),
        };
        self.put(channel, &Performative::Begin(begin));
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

    /// The local channel of the session that the peer has on this channel.
    pub(super) fn local_channel(&mut self, remote: u16) -> Result<u16, ConnectionError> {
        let entry = self.channels.get(usize::from(remote)).copied();
        match entry.unwrap_or(0).checked_sub(1) {
            Some(local) => Ok(local),
            None => {
                Err(self.violation("amqp:not-found", format!("no session on channel {remote}")))
            }
        }
    }

    pub(super) fn on_begin(
        &mut self,
        remote: u16,
        begin: &Begin,
    ) -> Result<Option<Event>, ConnectionError> {
        let entry = self.channels.get(usize::from(remote));
        if entry.is_some_and(|c| *c != 0) || remote > self.channel_max {
            let text = format!("begin on channel {remote}, which is in use or over channel-max");
            return Err(self.violation("amqp:not-allowed", text));
        }
        let (channel, remote_initiated) = match begin.remote_channel {
            Some(local) => (local, false),
            None => match self.new_session() {
                Ok(local) => (local, true),
                Err(e) => {
                    return Err(self.violation("amqp:resource-limit-exceeded", e.to_string()));
                }
            },
        };
        let session = self.session_mut(channel);
        let Some(session) = session.filter(|s| s.remote_channel.is_none()) else {
            let text = format!("begin answers channel {channel}, which waits for no answer");
            return Err(self.violation("amqp:not-found", text));
        };
        session.remote_channel = Some(remote);
        session.next_incoming_id = begin.next_outgoing_id;
        session.remote_window = begin.incoming_window;
        session.remote_handle_max = begin.handle_max.unwrap_or(u32::MAX);
        if self.channels.len() <= usize::from(remote) {
            self.channels.resize(usize::from(remote) + 1, 0);
        }
        self.channels[usize::from(remote)] = channel + 1;
        if remote_initiated {
            self.put_begin(channel);
        }
        Ok(Some(Event::Begin {
            session: SessionId(channel),
            remote_initiated,
        }))
    }

    pub(super) fn on_end(
        &mut self,
        remote: u16,
        error: Option<Error>,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.local_channel(remote)?;
        self.end(SessionId(channel), None);
        let session = self.sessions.get_mut(usize::from(channel));
        if let Some(session) = session.and_then(Option::take) {
            self.free_sessions.push(channel);
            self.totals.subtract(session.removed());
            let shared = error.clone().map(Arc::new);
            for link in session.links() {
                self.free_link(link);
                self.events.push_back(Event::Detach {
                    link,
                    closed: true,
                    error: shared.clone(),
                });
            }
        }
        self.channels[usize::from(remote)] = 0;
        self.events.push_back(Event::End {
            session: SessionId(channel),
            error,
        });
        Ok(None)
    }
}
