//! Streams that pass through this router on one worker, frame by frame.

use crate::{
    link::{
        conn::{
            ConnectionState, DeliveryOutcome, LinkConnection, OutStream, Waiter,
            stream_end::{End, StreamEffects, StreamEnd, StreamEvent, StreamReply},
        },
        payload_queue::PayloadQueue,
        send_budget::SendClass,
    },
    worker::stream_source::StreamSource,
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

/// Queued bytes below which a stream does not wait behind bulk.
const SPARSE: usize = 4 * 1024;

/// One direction of a stream on its way to the next router.
pub(crate) struct Transit {
    this: Weak<Transit>,
    source: StreamSource,
    next_conn: Rc<LinkConnection>,
    state: RefCell<TransitState>,
}

#[derive(Default)]
struct TransitState {
    /// None while it waits for a link of the next connection.
    stream: Option<OutStream>,
    /// Payload that the next connection has no room for.
    queue: PayloadQueue,
    /// How the incoming stream has ended, to be passed on; true: aborted.
    end: Option<bool>,
    /// A [`StreamEvent::Writable`] is requested.
    asked: bool,
    done: bool,
}

impl Transit {
    /// A stream that goes on over `next_conn`, where it is not open yet.
    pub(crate) fn new(source: StreamSource, next_conn: Rc<LinkConnection>) -> Rc<Self> {
        let mut state = TransitState::default();
        state.queue.charge_to(&source.budget());
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            source,
            next_conn,
            state: state.into(),
        })
    }

    pub(super) fn open(
        source: StreamSource,
        next_conn: Rc<LinkConnection>,
        head: Bytes,
    ) -> Rc<Self> {
        let this = Self::new(source, next_conn);
        this.open_next(head);
        this
    }

    fn open_next(self: &Rc<Self>, head: Bytes) {
        let end: End = self.clone();
        let stream = self.next_conn.borrow().open(head, &end);
        self.state.borrow_mut().stream = stream;
    }

    /// Opens the stream on the next connection, outside of an event. Some of it may have come.
    pub(crate) fn open_late(self: &Rc<Self>, head: Bytes) {
        if self.state.borrow().done {
            return;
        }
        self.open_next(head);
        let mut effects = StreamEffects::default();
        self.request_writable(&mut self.state.borrow_mut(), &mut effects);
        effects.carry_out(None);
    }

    /// Requests a [`StreamEvent::Writable`], once.
    fn request_writable(&self, state: &mut TransitState, effects: &mut StreamEffects) {
        if !state.asked
            && !state.done
            && state.stream.is_some()
            && let Some(this) = self.this.upgrade()
        {
            state.asked = true;
            effects.send(&self.next_conn, this);
        }
    }

    /// Sends as much as the next connection has room for.
    fn pump(&self, state: &mut TransitState, conn: &mut ConnectionState) {
        let Some(stream) = state.stream.filter(|_| !state.done) else {
            return;
        };
        // A bulk stream fills the room that there is: all others that wait have theirs first.
        let class = match state.queue.len() {
            0..SPARSE => SendClass::Sparse,
            _ => SendClass::Bulk,
        };
        let queue = &mut state.queue;
        queue.send_with(|payload| conn.send(stream, class, payload));
        if !state.queue.is_empty() {
            // Once more waits than may, the next payload ends the stream.
            let _ = state.queue.keep();
            if let Some(this) = self.this.upgrade() {
                state.asked = true;
                conn.wait_writable(Waiter::End(this));
            }
            return;
        }
        match state.end.take() {
            Some(true) => {
                state.done = true;
                conn.abort(stream);
            }
            Some(false) => conn.finish(stream),
            None => {}
        }
    }

    /// Gives the stream up on both sides.
    fn give_up(
        &self,
        outcome: DeliveryOutcome,
        state: &mut TransitState,
        effects: &mut StreamEffects,
    ) {
        state.queue.clear();
        if std::mem::replace(&mut state.done, true) {
            return;
        }
        if let Some(stream) = state.stream {
            effects.abort(&self.next_conn, stream);
        }
        self.source.reply(StreamReply::Outcome(outcome), effects);
    }
}

impl StreamEnd for Transit {
    fn event(&self, event: StreamEvent<'_>, effects: &mut StreamEffects) {
        let state = &mut *self.state.borrow_mut();
        match event {
            StreamEvent::Payload(payload) => {
                if !state.done {
                    state.queue.push(payload);
                }
            }
            StreamEvent::Ended { aborted } => {
                state.end = Some(aborted);
                if aborted {
                    state.queue.clear();
                }
            }
            StreamEvent::BatchOver if state.asked || state.stream.is_none() => {
                if !state.queue.keep() {
                    self.give_up(DeliveryOutcome::Rejected, state, effects);
                }
            }
            StreamEvent::BatchOver => self.request_writable(state, effects),
            // It was aborted while it waited for a link.
            StreamEvent::Opened(stream) if state.done => effects.abort(&self.next_conn, stream),
            StreamEvent::Opened(stream) => {
                state.stream = Some(stream);
                self.request_writable(state, effects);
            }
            StreamEvent::Writable(conn) => {
                state.asked = false;
                self.pump(state, conn);
            }
            StreamEvent::Acknowledged(offset) => {
                self.source.reply(StreamReply::Ack(offset), effects);
            }
            StreamEvent::Settled(outcome) => {
                state.done = true;
                state.queue.clear();
                let reply = StreamReply::Outcome(outcome);
                self.source.reply(reply, effects);
            }
            // The connection of one side is gone.
            StreamEvent::Lost => self.give_up(DeliveryOutcome::Modified, state, effects),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        amqp::connection::{DeliveryId, LinkId},
        link::{
            conn::{ConnectionKind, InStream},
            peer_budget::PeerBudget,
            wire::Wire,
        },
        peering::fixtures::established,
    };
    use std::sync::Arc;

    fn connection(key: u64, budget: &Arc<PeerBudget>) -> Rc<LinkConnection> {
        let (kind, established) = (ConnectionKind::Data, established("peer", None));
        let wire = Wire::attach(established.parts).expect("a runtime");
        let state = ConnectionState::new(key, kind, established.amqp, wire, budget);
        LinkConnection::new(key, key, kind, 0, false, state)
    }

    #[tokio::test]
    async fn a_stream_is_given_up_when_those_of_its_peer_are_over_their_budget() {
        let budget = |streams| PeerBudget::with_limits("peer".to_owned(), 1 << 20, streams);
        let (mallory, honest) = (budget(200_000), budget(200_000));
        let next = connection(9, &honest);
        let transit = |from: &Rc<LinkConnection>, n| {
            let (link, delivery) = (LinkId::of(n), DeliveryId::of(n));
            let source = StreamSource::Connection(from.clone(), InStream { link, delivery });
            Transit::new(source, next.clone())
        };
        let receive = |transit: &Transit| {
            let mut effects = StreamEffects::default();
            transit.event(StreamEvent::Payload(vec![0; 90_000].into()), &mut effects);
            transit.event(StreamEvent::BatchOver, &mut effects);
            (transit.state.borrow().done, effects.is_empty())
        };
        // Two connections of one peer, and one of another.
        let connections = [1, 2].map(|key| connection(key, &mallory));
        let mut streams: Vec<_> = connections.iter().map(|c| transit(c, 0)).collect();
        for stream in &streams {
            assert_eq!(receive(stream), (false, true));
        }
        let last = transit(&connections[0], 1);
        assert_eq!(receive(&last), (true, false), "the sender is told");
        assert!(mallory.take_overrun());
        assert_eq!(receive(&transit(&connection(3, &honest), 0)), (false, true));
        // What the end of a stream gives back is there for others.
        streams.pop();
        assert_eq!(receive(&transit(&connections[1], 1)), (false, true));
    }
}
