//! Streams that come in on this connection: acknowledgement and settlement.

use super::{InStream, Incoming, Inner, Outcome};
use crate::amqp::performative::DeliveryState;

impl Inner {
    /// Tells the sender that `offset` bytes in all have been passed on.
    pub fn ack(&mut self, stream: InStream, offset: u64) {
        let state = DeliveryState::Received {
            section_number: 0,
            section_offset: offset,
        };
        self.amqp.disposition(stream.delivery, Some(state), false);
        self.drain_control();
        self.kick();
    }

    /// Settles an incoming delivery. What is left of it is dropped.
    pub fn settle(&mut self, stream: InStream, outcome: Outcome) {
        if let Incoming::Stream { delivery, done, .. } = self.in_link(stream.link)
            && *delivery == stream.delivery
        {
            let done = *done;
            *self.in_link(stream.link) = if done {
                Incoming::Idle
            } else {
                Incoming::Discard
            };
            self.stream_over();
        }
        // By delivery, not by link: the peer may have begun the next one on the link already.
        self.amqp
            .disposition(stream.delivery, Some(outcome.state()), true);
        self.drain_control();
        self.kick();
    }

    pub(in crate::link) fn stream_over(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    pub(in crate::link) fn stream_started(&mut self) {
        self.streams += 1;
    }

    /// Settles a delivery that never became a stream.
    pub(in crate::link) fn refuse(&mut self, stream: InStream, outcome: Outcome) {
        self.amqp
            .disposition(stream.delivery, Some(outcome.state()), true);
        self.drain_control();
        self.kick();
    }
}
