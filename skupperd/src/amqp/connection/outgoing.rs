//! Outgoing deliveries: transfers around payload that the caller sends.

use super::{
    Connection,
    config::MAX_TRANSFER_HEADER,
    event::{ApiError, DeliveryId, LinkId},
    state::CurrentDelivery,
};
use crate::amqp::{codec, frame, performative::Role};
use bytes::BufMut;

impl Connection {
    /// Starts a delivery; takes one credit.
    pub fn start_delivery(&mut self, link: LinkId, settled: bool) -> Result<DeliveryId, ApiError> {
        let tag = self.next_tag;
        let state = self.link_mut(link).ok_or(ApiError::Gone)?;
        if state.role != Role::Sender || state.detached {
            return Err(ApiError::Gone);
        }
        if state.current.is_some() {
            return Err(ApiError::Busy);
        }
        let credit = state.credit.checked_sub(1).ok_or(ApiError::NoCredit)?;
        let channel = state.session;
        let session = self.session_mut(channel).ok_or(ApiError::Gone)?;
        let delivery = DeliveryId {
            session: channel,
            outgoing: true,
            id: session.next_delivery,
        };
        if !settled {
            self.keep_delivery(delivery, link)?;
        }
        if let Some(session) = self.session_mut(channel) {
            session.next_delivery = delivery.id.wrapping_add(1);
        }
        self.next_tag += 1;
        if let Some(state) = self.link_mut(link) {
            state.credit = credit;
            state.delivery_count = state.delivery_count.wrapping_add(1);
            state.current = Some(CurrentDelivery {
                delivery,
                tag,
                unsent: true,
                settled,
            });
        }
        Ok(delivery)
    }

    /// Writes the header of a transfer frame of the link's delivery, without payload, into `buf`;
    /// returns its length. The caller adds the payload and sets the size in the first four bytes.
    /// Nothing changes until [`transfer_sent`](Self::transfer_sent).
    pub fn transfer_header(
        &self,
        link: LinkId,
        more: bool,
        aborted: bool,
        buf: &mut [u8; MAX_TRANSFER_HEADER],
    ) -> usize {
        let Some(state) = self.link(link) else {
            return 0;
        };
        let Some(current) = state.current else {
            return 0;
        };
        let mut out = &mut buf[..];
        out.put_slice(&[0, 0, 0, 0, 2, frame::AMQP]);
        out.put_u16(state.session);
        // Descriptor of transfer, then a short list whose size is set below.
        out.put_slice(&[0, 0x53, 0x14, 0xc0, 0, 0]);
        codec::uint(state.handle, &mut out);
        if current.unsent {
            codec::uint(current.delivery.id, &mut out);
            out.put_slice(&[0xa0, 8]);
            out.put_u64_le(current.tag);
            out.put_u8(0x43);
        } else {
            // The same delivery: neither id, tag nor format need be repeated (part 2.7.5).
            out.put_slice(&[0x40; 3]);
        }
        out.put_u8(if current.settled { 0x41 } else { 0x40 });
        out.put_u8(if more { 0x41 } else { 0x42 });
        let mut count = 6;
        if aborted {
            // rcv-settle-mode, state, resume are absent.
            out.put_slice(&[0x40, 0x40, 0x40, 0x41]);
            count = 10;
        }
        let length = MAX_TRANSFER_HEADER - out.len();
        buf[..4].copy_from_slice(&(length as u32).to_be_bytes());
        // Size of the list: everything behind its size byte.
        buf[12] = (length - 13) as u8;
        buf[13] = count;
        length
    }

    /// Counts a transfer frame whose header was written; `last` when it had `more` unset or
    /// `aborted` set.
    pub fn transfer_sent(&mut self, link: LinkId, last: bool) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        let channel = state.session;
        if last {
            state.current = None;
        } else if let Some(current) = &mut state.current {
            current.unsent = false;
        }
        if let Some(session) = self.session_mut(channel) {
            session.send_transfer();
        }
    }

    /// Puts a complete message into the output, in as many frames as it needs.
    pub fn send_message(
        &mut self,
        link: LinkId,
        message: &[u8],
        settled: bool,
    ) -> Result<DeliveryId, ApiError> {
        let max = self.max_payload();
        let frames = message.len().div_ceil(max).max(1);
        if (self.window(link) as usize) < frames {
            return Err(ApiError::NoWindow);
        }
        let delivery = self.start_delivery(link, settled)?;
        let mut header = [0; MAX_TRANSFER_HEADER];
        for i in 0..frames {
            let part = &message[i * max..message.len().min((i + 1) * max)];
            let last = i + 1 == frames;
            let n = self.transfer_header(link, !last, false, &mut header);
            header[..4].copy_from_slice(&((n + part.len()) as u32).to_be_bytes());
            self.output.put_slice(&header[..n]);
            self.output.put_slice(part);
            self.transfer_sent(link, last);
        }
        Ok(delivery)
    }
}
