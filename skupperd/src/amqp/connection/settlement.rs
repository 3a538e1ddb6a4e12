//! Dispositions: the states of deliveries, sent and received.

use super::{
    Connection,
    event::{ApiError, ConnectionError, DeliveryId, Event, LinkId},
};
use crate::amqp::performative::{DeliveryState, Disposition, Performative, Role};
use std::sync::Arc;

/// Deliveries of one disposition that an offset is taken for. An offset belongs to one delivery: no
/// peer sends it for many.
const MAX_RECEIVED: usize = 32;

impl Connection {
    /// Keeps a delivery until it is settled.
    pub(super) fn keep_delivery(
        &mut self,
        delivery: DeliveryId,
        link: LinkId,
    ) -> Result<(), ApiError> {
        let total = *self.totals.unsettled(delivery.outgoing);
        if total >= self.limits.unsettled {
            return Err(ApiError::Limit("delivery"));
        }
        let session = self.session_mut(delivery.session);
        let unsettled = session.ok_or(ApiError::Gone)?.unsettled(delivery.outgoing);
        let before = unsettled.len();
        unsettled.insert(delivery.id, link);
        let added = unsettled.len() - before;
        *self.totals.unsettled(delivery.outgoing) += added;
        Ok(())
    }

    /// A delivery is settled. False: it was not known.
    pub(super) fn forget_delivery(&mut self, delivery: DeliveryId) -> bool {
        let session = self.session_mut(delivery.session);
        let known = session.is_some_and(|s| s.unsettled(delivery.outgoing).remove(delivery.id));
        *self.totals.unsettled(delivery.outgoing) -= usize::from(known);
        known
    }

    /// Tells the peer the state of a delivery. Unknown and settled deliveries are ignored.
    pub fn disposition(
        &mut self,
        delivery: DeliveryId,
        state: Option<DeliveryState>,
        settled: bool,
    ) {
        let known = if settled {
            self.forget_delivery(delivery)
        } else {
            self.session_mut(delivery.session)
                .is_some_and(|s| s.unsettled(delivery.outgoing).contains(delivery.id))
        };
        if !known {
            return;
        }
        let disposition = Disposition {
            role: if delivery.outgoing {
                Role::Sender
            } else {
                Role::Receiver
            },
            first: delivery.id,
            settled,
            state,
            ..Disposition::default()
        };
        self.put(delivery.session, &Performative::Disposition(disposition));
    }

    pub(super) fn on_disposition(
        &mut self,
        remote: u16,
        disposition: Disposition,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.local_channel(remote)?;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        let outgoing = disposition.role == Role::Receiver;
        let unsettled = session.unsettled(outgoing);
        let first = disposition.first;
        let last = disposition.last.unwrap_or(first);
        let ids = match &disposition.state {
            _ if disposition.settled => {
                let settled = unsettled.settle(first, last);
                *self.totals.unsettled(outgoing) -= settled.len();
                settled
            }
            None => Vec::new(),
            Some(DeliveryState::Received { .. }) => unsettled.open(first, last, MAX_RECEIVED),
            Some(_) => unsettled.decide(first, last),
        };
        let state = disposition.state.map(Arc::new);
        for (id, link) in ids {
            self.events.push_back(Event::Disposition {
                link,
                delivery: DeliveryId {
                    session: channel,
                    outgoing,
                    id,
                },
                settled: disposition.settled,
                state: state.clone(),
            });
        }
        Ok(None)
    }
}
