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
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            source,
            next_conn,
            state: RefCell::default(),
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
            state.queue.keep();
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

    /// The connection of one side is gone.
    fn lost(&self, state: &mut TransitState, effects: &mut StreamEffects) {
        state.queue.clear();
        if std::mem::replace(&mut state.done, true) {
            return;
        }
        if let Some(stream) = state.stream {
            effects.abort(&self.next_conn, stream);
        }
        let reply = StreamReply::Outcome(DeliveryOutcome::Modified);
        self.source.reply(reply, effects);
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
            StreamEvent::BatchOver if state.asked => state.queue.keep(),
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
            StreamEvent::Lost => self.lost(state, effects),
        }
    }
}
