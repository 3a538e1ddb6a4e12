//! Incoming payload: completes heads, begins streams, and passes messages to the worker.

use super::{ConnectionEvents, Driver, MessageOrigin};
use crate::amqp::message::{self, StreamParse};
use crate::link::conn::{
    ConnectionState, DeliveryOutcome, Head, InStream, PayloadTarget,
    stream_end::{End, StreamEvent},
};
use bytes::Bytes;
use std::rc::Rc;

/// Longest head of a stream: annotations, properties and application properties. Those of skupper-router are
/// below 400 bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// Longest complete message: a mobile-address update for tens of thousands of addresses.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Bytes of heads and messages of one connection that are not complete: routers have at most one under
/// way on each of eleven links.
const MAX_INCOMPLETE: usize = 12 * MAX_MESSAGE;

impl<W: ConnectionEvents> Driver<W> {
    pub(super) fn transfer(
        &mut self,
        state: &mut ConnectionState,
        stream: InStream,
        payload: Bytes,
        last: bool,
        aborted: bool,
    ) {
        let recipient = state.deliveries.recipient(stream.link, payload.len(), last);
        match recipient {
            PayloadTarget::End(end) => self.give(state, end, payload, last, aborted),
            PayloadTarget::Overrun(end) => {
                self.worker.window_exceeded(&self.conn);
                state.settle(stream, DeliveryOutcome::Rejected);
                self.give(state, end, Bytes::new(), true, true);
            }
            // Aborted before its head was complete.
            PayloadTarget::Head(_) if aborted => {}
            PayloadTarget::Head(head) => self.head(state, stream, head, payload, last),
            PayloadTarget::Discard if last => state.discarded(stream.link),
            PayloadTarget::Discard => {}
        }
    }

    /// Gives a stream's end what has come of it.
    fn give(
        &mut self,
        state: &mut ConnectionState,
        end: End,
        payload: Bytes,
        last: bool,
        aborted: bool,
    ) {
        if !payload.is_empty() {
            end.event(StreamEvent::Payload(payload), &mut state.effects);
        }
        if last {
            end.event(StreamEvent::Ended { aborted }, &mut state.effects);
        }
        if !self.batch.last().is_some_and(|e| Rc::ptr_eq(e, &end)) {
            self.batch.push(end);
        }
    }

    fn head(
        &mut self,
        state: &mut ConnectionState,
        stream: InStream,
        mut head: Head,
        payload: Bytes,
        last: bool,
    ) {
        head.push(payload);
        let parsed = if head.is_message {
            Ok(StreamParse::NotStream)
        } else {
            message::parse_stream_head(head.so_far())
        };
        match parsed {
            Ok(StreamParse::Stream {
                head: parsed,
                raw_offset,
            }) if !head.settled && raw_offset <= MAX_HEAD => {
                match self.worker.stream(&self.conn, stream, parsed) {
                    Ok(end) => {
                        let payload = head.into_bytes().slice(raw_offset..);
                        let deliveries = &mut state.deliveries;
                        deliveries.start_stream(stream, end.clone(), payload.len(), last);
                        self.give(state, end, payload, last, false);
                    }
                    Err(outcome) => state.refuse(stream, outcome, last),
                }
            }
            Ok(StreamParse::Stream { .. }) => state.refuse(stream, DeliveryOutcome::Rejected, last),
            // A complete delivery that is no stream is a message, with or without a body.
            Ok(StreamParse::NotStream | StreamParse::NeedMore) if last => {
                let origin = if state.fixed.control_in == Some(stream.link) {
                    MessageOrigin::Control
                } else {
                    MessageOrigin::Other
                };
                let settled = head.settled;
                let message = head.into_bytes();
                let permit = state.intake.permit(message.len());
                self.worker
                    .message(&self.conn, stream, settled, origin, message, permit);
            }
            Ok(parsed) if !last => {
                head.is_message = !matches!(parsed, StreamParse::NeedMore);
                let limit = if head.is_message {
                    MAX_MESSAGE
                } else {
                    MAX_HEAD
                };
                if head.so_far().len() > limit {
                    // Not the connection: a router passes on what its clients send, and the streams
                    // of others are on it.
                    let conn = self.conn.key;
                    tracing::debug!(conn, limit, "delivery over the size limit refused");
                    return state.refuse(stream, DeliveryOutcome::Rejected, false);
                }
                state.deliveries.await_more(stream.link, head);
                if state.deliveries.incomplete() > MAX_INCOMPLETE {
                    state.over_budget("incomplete messages");
                }
            }
            _ => state.refuse(stream, DeliveryOutcome::Rejected, last),
        }
    }
}
