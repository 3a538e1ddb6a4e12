//! Stream ends, and how they communicate with the connections that the stream is on.
//!
//! A connection tells an end what happens, one [`StreamEvent`] at a time, while its own state is
//! borrowed. An end therefore never touches a connection in [`StreamEnd::event`]: it asks for
//! [`StreamEffects`], which the driver of the connection carries out once the end has returned. Other callers
//! of an end carry them out with [`StreamEffects::carry_out`].

use super::{ConnectionState, DeliveryOutcome, InStream, LinkConnection, OutStream};
use bytes::Bytes;
use std::{collections::VecDeque, rc::Rc};

/// What a connection reports to the end of one of its streams.
pub enum StreamEvent<'a> {
    /// Payload of the incoming stream.
    Payload(Bytes),
    /// The incoming stream is complete; `aborted`: its sender gave it up.
    Ended { aborted: bool },
    /// The batch that payload and end were part of is over.
    BatchOver,
    /// The outgoing stream, which was waiting for a link of its connection, has one.
    Opened(OutStream),
    /// The receiver of the outgoing stream has passed on so many bytes in all.
    Acknowledged(u64),
    /// The receiver of the outgoing stream is done with it.
    Settled(DeliveryOutcome),
    /// The end can send on this connection: it has asked with [`StreamEffects::send`] or
    /// [`ConnectionState::wait_writable`].
    Writable(&'a mut ConnectionState),
    /// A connection that the stream was on is gone.
    Lost,
}

/// What a stream ends in: a TCP socket, another link, another worker.
pub trait StreamEnd {
    /// Handles an event. Adds to `effects` what connections have to do.
    fn event(&self, event: StreamEvent<'_>, effects: &mut StreamEffects);
}

/// An end as connections hold it.
pub type End = Rc<dyn StreamEnd>;

/// A message from the receiver of a stream to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamReply {
    /// So many bytes have been passed on in all.
    Ack(u64),
    /// The receiver is done.
    Outcome(DeliveryOutcome),
}

enum StreamEffect {
    Reply(Rc<LinkConnection>, InStream, StreamReply),
    Send(Rc<LinkConnection>, End),
    Abort(Rc<LinkConnection>, OutStream),
}

/// What ends want done on connections, in order.
#[derive(Default)]
pub struct StreamEffects(VecDeque<StreamEffect>);

impl StreamEffects {
    /// Tells the sender of an incoming stream.
    pub fn reply(&mut self, conn: &Rc<LinkConnection>, stream: InStream, reply: StreamReply) {
        self.0
            .push_back(StreamEffect::Reply(conn.clone(), stream, reply));
    }

    /// Lets `end` send on this connection, by a [`StreamEvent::Writable`].
    pub fn send(&mut self, conn: &Rc<LinkConnection>, end: End) {
        self.0.push_back(StreamEffect::Send(conn.clone(), end));
    }

    /// Gives an outgoing stream up.
    pub fn abort(&mut self, conn: &Rc<LinkConnection>, stream: OutStream) {
        self.0.push_back(StreamEffect::Abort(conn.clone(), stream));
    }

    /// Puts older effects before these.
    pub(crate) fn put_before(&mut self, mut older: StreamEffects) {
        older.0.append(&mut self.0);
        *self = older;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does everything that was asked for, and what is asked for meanwhile. `current`: the connection
    /// whose task is running; no other may be borrowed.
    pub(crate) fn carry_out(&mut self, mut current: Option<&mut ConnectionState>) {
        while let Some(effect) = self.0.pop_front() {
            let (StreamEffect::Reply(conn, ..)
            | StreamEffect::Send(conn, _)
            | StreamEffect::Abort(conn, _)) = &effect;
            let conn = conn.clone();
            if !conn.is_open() {
                continue;
            }
            match &mut current {
                Some(state) if state.key == conn.key => self.apply(effect, state),
                _ => self.apply(effect, &mut conn.borrow()),
            }
        }
    }

    fn apply(&mut self, effect: StreamEffect, state: &mut ConnectionState) {
        match effect {
            StreamEffect::Reply(_, stream, StreamReply::Ack(offset)) => state.ack(stream, offset),
            StreamEffect::Reply(_, stream, StreamReply::Outcome(outcome)) => {
                state.settle(stream, outcome);
            }
            StreamEffect::Send(_, end) => end.event(StreamEvent::Writable(state), self),
            StreamEffect::Abort(_, stream) => state.abort(stream),
        }
    }
}

/// Gives an end an event outside of a connection's task.
pub(crate) fn deliver(end: &dyn StreamEnd, event: StreamEvent<'_>) {
    let mut effects = StreamEffects::default();
    end.event(event, &mut effects);
    effects.carry_out(None);
}
