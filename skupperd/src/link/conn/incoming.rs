//! Incoming streams of this connection: acknowledgement and settlement.

use super::{ConnectionState, DeliveryOutcome, InStream};
use crate::amqp::{connection::LinkId, performative::DeliveryState};

impl ConnectionState {
    /// Tells the sender that `offset` bytes in all have been passed on.
    pub fn ack(&mut self, stream: InStream, offset: u64) {
        self.deliveries.acknowledge(stream, offset);
        let state = DeliveryState::Received {
            section_number: 0,
            section_offset: offset,
        };
        self.amqp.disposition(stream.delivery, Some(state), false);
        self.send_control();
    }

    /// Ends an incoming delivery: settles it, now or when the rest of it has come and been dropped.
    pub fn settle(&mut self, stream: InStream, outcome: DeliveryOutcome) {
        if let Some(complete) = self.deliveries.settle(stream) {
            self.refuse(stream, outcome, complete);
        }
    }

    /// Ends a delivery that is no stream, or no longer one.
    pub(crate) fn refuse(&mut self, stream: InStream, outcome: DeliveryOutcome, complete: bool) {
        if !complete {
            self.deliveries.discard(stream, outcome);
        }
        let state = Some(outcome.state());
        self.amqp.disposition(stream.delivery, state, complete);
        self.send_control();
    }

    /// The last transfer of a discarded delivery was received.
    pub(crate) fn discarded(&mut self, link: LinkId) {
        if let Some((stream, outcome)) = self.deliveries.take_discarded(link) {
            self.refuse(stream, outcome, true);
        }
    }
}
