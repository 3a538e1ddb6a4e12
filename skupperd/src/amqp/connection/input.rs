//! Receiving: frames cut through, performatives acted on.

use super::{
    Connection, ConnectionError, DeliveryId, Event, LinkId, SESSION_WINDOW, SessionId,
    session::{Current, Link},
};
use crate::amqp::{
    codec::{DecodeError, Reader},
    frame::{self, Header},
    performative::{
        Attach, Begin, Detach, Disposition, Error, Flow, Performative, Role, Transfer, code,
    },
};
use bytes::{Buf, Bytes, BytesMut};
use std::{sync::Arc, time::Instant};

/// Where the parser stands between two calls.
#[derive(Debug, Default)]
pub(super) struct Parser {
    header_seen: bool,
    /// The beginning of a frame whose performative is not complete.
    carry: BytesMut,
    /// Bytes needed before another look at `carry` is worth it.
    need: usize,
    /// The transfer whose payload is being given out.
    transfer: Option<Payload>,
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    left: usize,
    link: LinkId,
    delivery: DeliveryId,
    first: bool,
    settled: bool,
    more: bool,
    aborted: bool,
}

enum Step {
    Event(Event),
    Nothing,
    /// So many bytes of the frame are needed.
    Need(usize),
}

impl Connection {
    /// Takes bytes off the front of `input` until an event results. None: more input is needed.
    ///
    /// # Errors
    /// The peer violates the protocol. The close that says so is in the output.
    pub fn receive(
        &mut self,
        input: &mut Bytes,
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        if !input.is_empty() {
            self.last_received = now;
        }
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(payload) = self.parser.transfer {
                if input.is_empty() {
                    return Ok(None);
                }
                let bytes = input.split_to(payload.left.min(input.len()));
                return Ok(Some(self.payload(payload, bytes)));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let step = if self.parser.carry.is_empty() {
                let step = self.step(input)?;
                if let Step::Need(need) = step {
                    self.parser.need = need;
                    self.parser.carry.extend_from_slice(input);
                    input.clear();
                }
                step
            } else {
                let more = self
                    .parser
                    .need
                    .saturating_sub(self.parser.carry.len())
                    .max(1);
                let part = input.split_to(more.min(input.len()));
                self.parser.carry.extend_from_slice(&part);
                if self.parser.carry.len() < self.parser.need {
                    return Ok(None);
                }
                let mut front = self.parser.carry.split().freeze();
                let step = self.step(&mut front)?;
                if let Step::Need(need) = step {
                    self.parser.need = need;
                    self.parser.carry = BytesMut::from(front);
                    continue;
                }
                // What is left of the carried bytes is payload: they never go past their frame.
                if let (Some(payload), false) = (self.parser.transfer, front.is_empty()) {
                    return Ok(Some(self.payload(payload, front)));
                }
                step
            };
            match step {
                Step::Event(event) => return Ok(Some(event)),
                Step::Nothing => {}
                Step::Need(_) => return Ok(None),
            }
        }
    }

    fn payload(&mut self, mut payload: Payload, bytes: Bytes) -> Event {
        payload.left -= bytes.len();
        let first = std::mem::replace(&mut payload.first, false);
        let done = payload.left == 0;
        self.parser.transfer = (!done).then_some(payload);
        Event::Transfer {
            link: payload.link,
            delivery: payload.delivery,
            first,
            settled: payload.settled && done,
            payload: bytes,
            more: !done || payload.more,
            aborted: done && payload.aborted,
        }
    }

    /// One frame, or the part of a transfer frame in front of its payload.
    fn step(&mut self, input: &mut Bytes) -> Result<Step, ConnectionError> {
        if !self.parser.header_seen {
            let known = input.len().min(8);
            if input[..known] != frame::AMQP_HEADER[..known] {
                return Err(self.violation("amqp:connection:framing-error", "not an AMQP 1.0 peer"));
            }
            if known < 8 {
                return Ok(Step::Need(8));
            }
            input.advance(8);
            self.parser.header_seen = true;
            return Ok(Step::Nothing);
        }
        let head = match Header::parse(input, self.max_in) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Step::Need(frame::HEADER)),
            Err(e) => return Err(self.violation("amqp:connection:framing-error", e.to_string())),
        };
        if head.kind != frame::AMQP {
            return Err(self.violation("amqp:connection:framing-error", "SASL frame after SASL"));
        }
        let have = input.len().min(head.size);
        // An empty frame is a heartbeat.
        if head.body == head.size {
            if have < head.size {
                return Ok(Step::Need(head.size));
            }
            input.advance(head.size);
            return Ok(Step::Nothing);
        }
        let Some(body) = input.get(head.body..have) else {
            return Ok(Step::Need(head.body + 3));
        };
        // `00 53 14` is how every peer writes the descriptor of a transfer.
        let transfer = match body {
            [0, 0x53, code, ..] => u64::from(*code) == code::TRANSFER,
            _ if body.len() < 3 && have < head.size => return Ok(Step::Need(head.body + 3)),
            _ => false,
        };
        if !transfer {
            if head.size > self.limits.performative {
                return Err(self.violation("amqp:resource-limit-exceeded", "performative too long"));
            }
            if have < head.size {
                return Ok(Step::Need(head.size));
            }
        }
        let mut reader = Reader::new(body);
        let performative = match Performative::decode(&mut reader) {
            Err(DecodeError::Truncated) if have < head.size => {
                return Ok(Step::Need(head.size.min(have.max(32) * 2)));
            }
            Err(e) => return Err(self.violation("amqp:decode-error", e.to_string())),
            Ok(performative) => performative,
        };
        let payload = head.size - have + reader.remaining();
        let used = have - reader.remaining();
        input.advance(used);
        if self.remote.is_none() && !matches!(performative, Performative::Open(_)) {
            return Err(self.violation("amqp:not-allowed", "frame before open"));
        }
        let event = match performative {
            Performative::Transfer(t) => Some(self.on_transfer(head.channel, t, payload)?),
            _ if payload > 0 => {
                // Not what they are behind: as text that could be longer than a frame.
                let text = format!("{payload} bytes behind a performative other than transfer");
                return Err(self.violation("amqp:connection:framing-error", text));
            }
            Performative::Open(open) => {
                if self.remote.is_some() {
                    return Err(self.violation("amqp:not-allowed", "second open"));
                }
                let max = open.max_frame_size.unwrap_or(u32::MAX) as usize;
                if max < frame::MIN_MAX_FRAME {
                    return Err(self.violation("amqp:invalid-field", "max-frame-size below 512"));
                }
                // Without the extension a frame larger than ours serves nobody.
                self.max_out = max.min(self.max_in).max(self.max_out);
                self.remote = Some(open.clone());
                Some(Some(Event::Open(open)))
            }
            Performative::Begin(b) => Some(self.on_begin(head.channel, &b)?),
            Performative::Attach(a) => Some(self.on_attach(head.channel, a)?),
            Performative::Flow(f) => Some(self.on_flow(head.channel, &f)?),
            Performative::Disposition(d) => Some(self.on_disposition(head.channel, d)?),
            Performative::Detach(d) => Some(self.on_detach(head.channel, d)?),
            Performative::End(e) => Some(self.on_end(head.channel, e)?),
            Performative::Close(e) => Some((!self.closed).then_some(Event::Close(e))),
        };
        Ok(event.flatten().map_or(Step::Nothing, Step::Event))
    }

    fn channel(&mut self, remote: u16) -> Result<u16, ConnectionError> {
        match self
            .channels
            .get(usize::from(remote))
            .copied()
            .unwrap_or(0)
            .checked_sub(1)
        {
            Some(local) => Ok(local),
            None => {
                Err(self.violation("amqp:not-found", format!("no session on channel {remote}")))
            }
        }
    }

    fn handle(&mut self, channel: u16, handle: u32) -> Result<LinkId, ConnectionError> {
        let found = self
            .session_mut(channel)
            .and_then(|s| s.remote_handles.get(handle as usize).copied())
            .and_then(|n| n.checked_sub(1));
        match found {
            Some(index) => Ok(LinkId(index)),
            None => {
                let text = format!("no link with handle {handle} on channel {channel}");
                Err(self.violation("amqp:session:unattached-handle", text))
            }
        }
    }

    fn on_transfer(
        &mut self,
        remote: u16,
        t: Transfer,
        payload: usize,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.channel(remote)?;
        let link = self.handle(channel, t.handle)?;
        let limit = self.limits.unsettled;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        session.next_incoming_id = session.next_incoming_id.wrapping_add(1);
        let Some(window) = session.incoming_window.checked_sub(1) else {
            return Err(self.violation("amqp:session:window-violation", "transfer without window"));
        };
        session.incoming_window = window;
        let unsettled = session.unsettled_in.len();
        if window < SESSION_WINDOW / 2 {
            let flow = session.flow();
            self.put(channel, &Performative::Flow(flow));
        }
        let Some(state) = self.link_mut(link) else {
            return Ok(None);
        };
        if state.role != Role::Receiver {
            return Err(self.violation("amqp:not-allowed", "transfer to a sending link"));
        }
        let last = !t.more || t.aborted;
        let (delivery, first, settled) = match &mut state.current {
            Some(current) => {
                if t.delivery_id.is_some_and(|id| id != current.delivery.id) {
                    return Err(self.violation("amqp:invalid-field", "another delivery's id"));
                }
                current.settled |= t.settled;
                (current.delivery, false, current.settled)
            }
            None => {
                let Some(id) = t.delivery_id else {
                    return Err(self.violation("amqp:invalid-field", "delivery without an id"));
                };
                let Some(credit) = state.credit.checked_sub(1) else {
                    let text = "delivery without credit";
                    return Err(self.violation("amqp:link:transfer-limit-exceeded", text));
                };
                state.credit = credit;
                state.delivery_count = state.delivery_count.wrapping_add(1);
                let delivery = DeliveryId {
                    session: channel,
                    outgoing: false,
                    id,
                };
                state.current = Some(Current {
                    delivery,
                    tag: 0,
                    fresh: false,
                    settled: t.settled,
                });
                if !t.settled {
                    if unsettled >= limit {
                        return Err(self.violation(
                            "amqp:resource-limit-exceeded",
                            "too many deliveries that are not settled",
                        ));
                    }
                    if let Some(session) = self.session_mut(channel) {
                        session.unsettled_in.insert(id, link);
                    }
                }
                (delivery, true, t.settled)
            }
        };
        if last {
            if let Some(state) = self.link_mut(link) {
                state.current = None;
            }
            if (settled || t.aborted)
                && let Some(session) = self.session_mut(channel)
            {
                session.unsettled_in.remove(&delivery.id);
            }
        }
        if first {
            self.top_up(link, false);
        }
        let payload = Payload {
            left: payload,
            link,
            delivery,
            first,
            // A delivery that began unsettled may be settled by its last frame.
            settled,
            more: !last,
            aborted: t.aborted,
        };
        Ok(if payload.left == 0 {
            Some(self.payload(payload, Bytes::new()))
        } else {
            self.parser.transfer = Some(payload);
            None
        })
    }

    fn on_begin(&mut self, remote: u16, b: &Begin) -> Result<Option<Event>, ConnectionError> {
        let taken = self
            .channels
            .get(usize::from(remote))
            .is_some_and(|c| *c != 0);
        if taken || remote > self.channel_max {
            let text = format!("begin on channel {remote}");
            return Err(self.violation("amqp:not-allowed", text));
        }
        let (channel, remote_initiated) = match b.remote_channel {
            Some(local) => (local, false),
            None => match self.new_session() {
                Ok(local) => (local, true),
                Err(e) => {
                    return Err(self.violation("amqp:resource-limit-exceeded", e.to_string()));
                }
            },
        };
        let Some(session) = self
            .session_mut(channel)
            .filter(|s| s.remote_channel.is_none())
        else {
            let text = format!("begin answers unknown channel {channel}");
            return Err(self.violation("amqp:not-found", text));
        };
        session.remote_channel = Some(remote);
        session.next_incoming_id = b.next_outgoing_id;
        session.remote_window = b.incoming_window;
        session.remote_handle_max = b.handle_max.unwrap_or(u32::MAX);
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

    fn on_attach(
        &mut self,
        remote: u16,
        attach: Box<Attach>,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.channel(remote)?;
        let limit = self.limits.links;
        let index = attach.handle as usize;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        if index >= limit {
            let text = format!("handle {index} over handle-max");
            return Err(self.violation("amqp:connection:framing-error", text));
        }
        if session.remote_handles.get(index).is_some_and(|n| *n != 0) {
            let text = format!("handle {index} is in use");
            return Err(self.violation("amqp:session:handle-in-use", text));
        }
        // A link costs the peer a few bytes, whatever its handle: tables with little in them must not
        // add up, session by session.
        let more = (index + 1).saturating_sub(session.remote_handles.len());
        let tables = self.sessions.iter().flatten();
        let all: usize = tables.map(|s| s.remote_handles.len()).sum();
        if more > 0 && all + more > limit * 2 {
            let text = "handles of links lie too far apart";
            return Err(self.violation("amqp:resource-limit-exceeded", text));
        }
        let role = match attach.role {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        };
        let ours = self.unanswered.remove(&(channel, attach.name.clone()));
        let (link, remote_initiated) = match ours {
            Some(n) if self.link(LinkId(n)).is_some_and(|l| l.role == role) => (LinkId(n), false),
            _ => {
                let handle = self.session_mut(channel).and_then(|s| {
                    let free = s.local_handles.iter().position(|taken| !taken);
                    let free = free.unwrap_or(s.local_handles.len());
                    if free >= limit {
                        return None;
                    }
                    if free == s.local_handles.len() {
                        s.local_handles.push(true);
                    } else {
                        s.local_handles[free] = true;
                    }
                    u32::try_from(free).ok()
                });
                let link = handle
                    .ok_or(super::ApiError::Limit("handle"))
                    .and_then(|handle| {
                        self.new_link(Link {
                            session: channel,
                            role,
                            handle,
                            unanswered: Some(attach.clone()),
                            ..Link::default()
                        })
                    });
                match link {
                    Ok(link) => (link, true),
                    Err(e) => {
                        return Err(self.violation("amqp:resource-limit-exceeded", e.to_string()));
                    }
                }
            }
        };
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        if session.remote_handles.len() <= index {
            session.remote_handles.resize(index + 1, 0);
        }
        session.remote_handles[index] = link.0 + 1;
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

    fn on_flow(&mut self, remote: u16, f: &Flow) -> Result<Option<Event>, ConnectionError> {
        let channel = self.channel(remote)?;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        // Initially the peer may not know our first transfer id, which is 0.
        let expected = f.next_incoming_id.unwrap_or(0);
        let edge = expected.wrapping_add(f.incoming_window);
        // Serial numbers: behind us means that nothing may be sent.
        let ahead = edge.wrapping_sub(session.next_outgoing_id);
        session.remote_window = if ahead > i32::MAX as u32 { 0 } else { ahead };
        let opened = session.window_exhausted && session.remote_window > 0;
        if opened {
            session.window_exhausted = false;
            self.events.push_back(Event::Window {
                session: SessionId(channel),
            });
        }
        let Some(handle) = f.handle else {
            if f.echo {
                let flow = self.session_mut(channel).map(super::session::Session::flow);
                if let Some(flow) = flow {
                    self.put(channel, &Performative::Flow(flow));
                }
            }
            return Ok(None);
        };
        let link = self.handle(channel, handle)?;
        let mut event = None;
        if let Some(state) = self.link_mut(link) {
            match (state.role, f.link_credit) {
                (Role::Sender, Some(credit)) => {
                    let count = f.delivery_count.unwrap_or(0);
                    let used = state.delivery_count.wrapping_sub(count);
                    state.credit = credit.saturating_sub(used);
                    let credit = state.credit;
                    event = Some(Event::Flow {
                        link,
                        credit,
                        drain: f.drain,
                    });
                }
                (Role::Receiver, _) => {
                    // The sender has given credit back after a drain.
                    if let Some(count) = f.delivery_count {
                        let given_back = count.wrapping_sub(state.delivery_count);
                        if given_back > 0 && given_back <= state.credit {
                            state.delivery_count = count;
                            state.credit -= given_back;
                        }
                    }
                }
                _ => {}
            }
        }
        if f.echo {
            self.put_link_flow(link, false);
        }
        Ok(event)
    }

    fn on_disposition(
        &mut self,
        remote: u16,
        d: Disposition,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.channel(remote)?;
        let outgoing = d.role == Role::Receiver;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        let table = if outgoing {
            &mut session.unsettled_out
        } else {
            &mut session.unsettled_in
        };
        let last = d.last.unwrap_or(d.first);
        let span = last.wrapping_sub(d.first);
        // A range may be any 32-bit span: look through whichever is smaller.
        let mut ids: Vec<(u32, LinkId)> = if (span as usize) < table.len() {
            (0..=span)
                .map(|n| d.first.wrapping_add(n))
                .filter_map(|id| table.get(&id).map(|link| (id, *link)))
                .collect()
        } else {
            let within = |id: &u32| id.wrapping_sub(d.first) <= span;
            table
                .iter()
                .filter(|(id, _)| within(id))
                .map(|(id, link)| (*id, *link))
                .collect()
        };
        ids.sort_unstable_by_key(|(id, _)| id.wrapping_sub(d.first));
        if d.settled {
            for (id, _) in &ids {
                table.remove(id);
            }
        }
        let state = d.state.map(Arc::new);
        for (id, link) in ids {
            self.events.push_back(Event::Disposition {
                link,
                delivery: DeliveryId {
                    session: channel,
                    outgoing,
                    id,
                },
                settled: d.settled,
                state: state.clone(),
            });
        }
        Ok(None)
    }

    fn on_detach(&mut self, remote: u16, d: Detach) -> Result<Option<Event>, ConnectionError> {
        let channel = self.channel(remote)?;
        let link = self.handle(channel, d.handle)?;
        self.detach(link, d.closed, None);
        self.drop_link(link);
        Ok(Some(Event::Detach {
            link,
            closed: d.closed,
            error: d.error.map(Arc::new),
        }))
    }

    fn on_end(
        &mut self,
        remote: u16,
        error: Option<Error>,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.channel(remote)?;
        self.end(SessionId(channel), None);
        let ids = (0u32..).zip(&self.links);
        let links: Vec<LinkId> = ids
            .filter(|(_, l)| l.as_ref().is_some_and(|l| l.session == channel))
            .map(|(n, _)| LinkId(n))
            .collect();
        let shared = error.clone().map(Arc::new);
        for link in links {
            self.drop_link(link);
            self.events.push_back(Event::Detach {
                link,
                closed: true,
                error: shared.clone(),
            });
        }
        self.unanswered
            .retain(|(session, _), _| *session != channel);
        self.channels[usize::from(remote)] = 0;
        if let Some(session) = self.sessions.get_mut(usize::from(channel)) {
            *session = None;
        }
        self.events.push_back(Event::End {
            session: SessionId(channel),
            error,
        });
        Ok(None)
    }
}
