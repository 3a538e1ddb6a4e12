//! Streams that come in on this connection: acknowledgement and settlement.

use super::{InStream, Incoming, Inner, Outcome};
use crate::amqp::{connection::LinkId, performative::DeliveryState};

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

    /// Ends an incoming delivery: settles it, now or when the rest of it has come and been dropped.
    pub fn settle(&mut self, stream: InStream, outcome: Outcome) {
        let complete = match self.in_link(stream.link) {
            Incoming::Stream { delivery, done, .. } if *delivery == stream.delivery => {
                let complete = *done;
                *self.in_link(stream.link) = Incoming::Idle;
                self.stream_over();
                complete
            }
            Incoming::Discard { delivery, .. } if *delivery == stream.delivery => return,
            // By delivery, not by link: the peer has begun the next one on the link already.
            _ => true,
        };
        self.refuse(stream, outcome, complete);
    }

    pub(in crate::link) fn stream_over(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    pub(in crate::link) fn stream_started(&mut self) {
        self.streams += 1;
    }

    /// Ends a delivery that is no stream, or no longer one.
    pub(in crate::link) fn refuse(&mut self, stream: InStream, outcome: Outcome, complete: bool) {
        let InStream { link, delivery } = stream;
        if !complete {
            *self.in_link(link) = Incoming::Discard { delivery, outcome };
        }
        self.amqp
            .disposition(delivery, Some(outcome.state()), complete);
        self.drain_control();
        self.kick();
    }

    /// The rest of a delivery that nobody wanted has come.
    pub(in crate::link) fn discarded(&mut self, link: LinkId) {
        if let Incoming::Discard { delivery, outcome } = self.in_link(link) {
            let stream = InStream {
                link,
                delivery: *delivery,
            };
            let outcome = *outcome;
            *self.in_link(link) = Incoming::Idle;
            self.refuse(stream, outcome, true);
        }
    }
}
