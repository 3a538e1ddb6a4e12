//! Incoming deliveries: the transfers of the peer.

use super::{
    Connection,
    event::{ConnectionError, DeliveryId, Event, LinkId},
    parser::TransferPayload,
    state::{CurrentDelivery, SESSION_WINDOW},
};
use crate::amqp::performative::{Performative, Role, Transfer};

impl Connection {
    /// `payload`: bytes of payload in the frame.
    pub(super) fn on_transfer(
        &mut self,
        remote: u16,
        transfer: &Transfer,
        payload: usize,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.local_channel(remote)?;
        let link = self.link_by_handle(channel, transfer.handle)?;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        let Some(window) = session.receive_transfer() else {
            let text = "transfer exceeds the session window";
            return Err(self.violation("amqp:session:window-violation", text));
        };
        if window < SESSION_WINDOW / 2 {
            let flow = session.flow();
            self.put(channel, &Performative::Flow(flow));
        }
        let Some(state) = self.link_mut(link) else {
            return Ok(None);
        };
        if state.role != Role::Receiver {
            return Err(self.violation("amqp:not-allowed", "transfer on a sending link"));
        }
        let (delivery, first, settled) = match &mut state.current {
            Some(current) => {
                if transfer
                    .delivery_id
                    .is_some_and(|id| id != current.delivery.id)
                {
                    let text = "delivery-id differs from that of the delivery in progress";
                    return Err(self.violation("amqp:invalid-field", text));
                }
                current.settled |= transfer.settled;
                (current.delivery, false, current.settled)
            }
            None => {
                let delivery = self.begin_incoming(channel, link, transfer)?;
                (delivery, true, transfer.settled)
            }
        };
        let last = !transfer.more || transfer.aborted;
        if last {
            if let Some(state) = self.link_mut(link) {
                state.current = None;
            }
            if settled || transfer.aborted {
                self.forget_delivery(delivery);
            }
        }
        if first {
            self.top_up(link, false);
        }
        Ok(self.start_payload(TransferPayload {
            left: payload,
            link,
            delivery,
            first,
            settled,
            more: !last,
            aborted: transfer.aborted,
        }))
    }

    /// A delivery begins: it takes a credit, and is kept until it is settled.
    fn begin_incoming(
        &mut self,
        channel: u16,
        link: LinkId,
        transfer: &Transfer,
    ) -> Result<DeliveryId, ConnectionError> {
        let Some(id) = transfer.delivery_id else {
            let text = "first transfer of a delivery has no delivery-id";
            return Err(self.violation("amqp:invalid-field", text));
        };
        let delivery = DeliveryId {
            session: channel,
            outgoing: false,
            id,
        };
        let Some(state) = self.link_mut(link) else {
            return Ok(delivery);
        };
        let Some(credit) = state.credit.checked_sub(1) else {
            let text = "delivery exceeds the link credit";
            return Err(self.violation("amqp:link:transfer-limit-exceeded", text));
        };
        state.credit = credit;
        state.delivery_count = state.delivery_count.wrapping_add(1);
        state.current = Some(CurrentDelivery {
            delivery,
            tag: 0,
            unsent: false,
            settled: transfer.settled,
        });
        if !transfer.settled && self.keep_delivery(delivery, link).is_err() {
            let text = format!("more than {} unsettled deliveries", self.limits.unsettled);
            return Err(self.violation("amqp:resource-limit-exceeded", text));
        }
        Ok(delivery)
    }
}
