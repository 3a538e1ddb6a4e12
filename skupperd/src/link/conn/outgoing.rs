//! Streams that leave on this connection: links from the pool, transfers, outcomes.

use super::{
    End, Inner, MAX_FREE_LINKS, MAX_STREAMS, OutStream, Outcome, Outgoing, Sent, WARM_LINKS,
};
use crate::amqp::{
    connection::{ApiError, AttachArgs, DeliveryId, LinkId, MAX_TRANSFER_HEADER},
    performative::{DeliveryState, Role, Source, Target},
};
use bytes::Bytes;
use std::io::{self, IoSliceMut};

impl Inner {
    fn attach_stream_link(&mut self) -> Result<(), ApiError> {
        let session = match self.session {
            Some(session) => session,
            None => *self.session.insert(self.amqp.begin()?),
        };
        let name = self.link_name();
        let (mut source, mut target) = (Source::default(), Target::default());
        if self.data_capability {
            source.capabilities = vec!["qd.router-data".into()];
            target.capabilities = vec!["qd.router-data".into()];
        }
        let link = self.amqp.attach(
            session,
            AttachArgs {
                name,
                role: Role::Sender,
                source,
                target,
                ..AttachArgs::default()
            },
        )?;
        *self.out_link(link) = Outgoing::Free;
        self.pending += 1;
        Ok(())
    }

    /// Makes this connection one that streams go over, with links attached ahead of need.
    pub(in crate::link) fn carry_streams(&mut self) {
        self.carries_streams = true;
        self.warm();
        self.drain_control();
        self.kick();
    }

    fn warm(&mut self) {
        while self.carries_streams
            && self.free.len() + self.pending < WARM_LINKS + self.waiting.len()
            && self.streams + self.free.len() + self.pending < MAX_STREAMS
        {
            if let Err(e) = self.attach_stream_link() {
                tracing::debug!(error = %e, "no further streaming link");
                break;
            }
        }
    }

    /// Opens a stream whose delivery begins with `head`. Some: it is open at once. None: it waits
    /// for a link with credit, and `end.opened` is called.
    pub fn open(&mut self, head: Bytes, end: &End) -> Option<OutStream> {
        let opened = if self.wire.out().is_full() {
            None
        } else {
            self.take_link(&head, end)
        };
        if opened.is_none() {
            self.waiting.push_back((head, end.clone()));
        }
        self.warm();
        self.drain_control();
        self.kick();
        opened
    }

    fn take_link(&mut self, head: &Bytes, end: &End) -> Option<OutStream> {
        while let Some(link) = self.free.pop() {
            if self.amqp.window(link) == 0 {
                self.free.push(link);
                return None;
            }
            let Ok(delivery) = self.amqp.start_delivery(link, false) else {
                // Out of credit: the peer's flow puts it back into the pool.
                self.pending += 1;
                continue;
            };
            self.streams += 1;
            *self.out_link(link) = Outgoing::Busy {
                end: end.clone(),
                delivery,
                ended: false,
                settled: false,
            };
            let out = OutStream { link, delivery };
            self.drain_control();
            self.transfer(out, head, true, false);
            return Some(out);
        }
        None
    }

    /// A link of ours got credit: streams that wait for one go first.
    pub(in crate::link) fn link_ready(&mut self, link: LinkId) {
        if !matches!(self.out_link(link), Outgoing::Free) || self.free.contains(&link) {
            return;
        }
        self.pending = self.pending.saturating_sub(1);
        self.free.push(link);
        self.open_waiting();
    }

    pub(in crate::link) fn open_waiting(&mut self) {
        while !self.waiting.is_empty() && !self.free.is_empty() && !self.wire.out().is_full() {
            let Some((head, end)) = self.waiting.pop_front() else {
                break;
            };
            match self.take_link(&head, &end) {
                Some(out) => end.opened(self, out),
                None => {
                    self.waiting.push_front((head, end));
                    break;
                }
            }
        }
        self.warm();
    }

    fn transfer(&mut self, out: OutStream, payload: &[u8], more: bool, aborted: bool) {
        let mut header = [0; MAX_TRANSFER_HEADER];
        let n = self
            .amqp
            .transfer_header(out.link, more, aborted, &mut header);
        let size = (n + payload.len()) as u32;
        header[..4].copy_from_slice(&size.to_be_bytes());
        self.wire.out().put(&header[..n]);
        self.wire.out().put(payload);
        self.amqp.transfer_sent(out.link, !more || aborted);
        self.kick();
    }

    /// Sends what `read` puts into the given pieces, up to `max` bytes, in one transfer frame.
    pub fn send_from(
        &mut self,
        out: OutStream,
        max: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<Sent> {
        if self.wire.out().is_full() || self.amqp.window(out.link) == 0 {
            return Ok(Sent::Full);
        }
        self.drain_control();
        let mut header = [0; MAX_TRANSFER_HEADER];
        let max = max.min(self.amqp.max_payload());
        let n = self
            .amqp
            .transfer_header(out.link, true, false, &mut header);
        let buf = self.wire.out();
        let mark = buf.begin(&header[..n]);
        let got = {
            let mut pieces = Vec::with_capacity(8);
            buf.spaces(max, &mut pieces);
            read(&mut pieces)
        };
        match got {
            Ok(0) => {
                buf.cancel(mark);
                Ok(Sent::Bytes(0))
            }
            Ok(n) => {
                buf.commit(mark, n);
                self.amqp.transfer_sent(out.link, false);
                self.kick();
                Ok(Sent::Bytes(n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                buf.cancel(mark);
                Ok(Sent::Empty)
            }
            Err(e) => {
                buf.cancel(mark);
                Err(e)
            }
        }
    }

    /// Sends as much of `payload` as there is room for, and takes it off its front.
    pub fn send(&mut self, out: OutStream, payload: &mut Bytes) {
        while !payload.is_empty() {
            let max = self.amqp.max_payload().min(payload.len());
            let chunk = payload.clone();
            let sent = self.send_from(out, max, |pieces| {
                let mut n = 0;
                for piece in pieces {
                    let now = piece.len().min(max - n);
                    piece[..now].copy_from_slice(&chunk[n..n + now]);
                    n += now;
                }
                Ok(n)
            });
            match sent {
                Ok(Sent::Bytes(n)) if n > 0 => bytes::Buf::advance(payload, n),
                _ => return,
            }
        }
    }

    /// Completes the outgoing delivery: the half-close of a stream.
    pub fn finish(&mut self, out: OutStream) {
        self.complete(out, false);
    }

    /// Gives the outgoing delivery up: the reset of a stream.
    pub fn abort(&mut self, out: OutStream) {
        self.complete(out, true);
    }

    fn complete(&mut self, out: OutStream, aborted: bool) {
        let Outgoing::Busy {
            delivery,
            ended,
            settled,
            ..
        } = self.out_link(out.link)
        else {
            return;
        };
        if *delivery != out.delivery || std::mem::replace(ended, true) {
            return;
        }
        // An aborted delivery is settled by definition (AMQP 1.0 part 2.6.14).
        let over = *settled || aborted;
        self.drain_control();
        self.transfer(out, &[], false, aborted);
        if over {
            self.free_link(out.link);
        }
    }

    fn free_link(&mut self, link: LinkId) {
        *self.out_link(link) = Outgoing::Free;
        self.streams = self.streams.saturating_sub(1);
        if self.free.len() >= MAX_FREE_LINKS {
            *self.out_link(link) = Outgoing::None;
            self.amqp.detach(link, true, None);
        } else if self.amqp.credit(link) == 0 {
            self.pending += 1;
        } else {
            self.free.push(link);
        }
        self.open_waiting();
        self.drain_control();
        self.kick();
    }

    /// The peer's disposition of an outgoing delivery.
    pub(in crate::link) fn disposed(
        &mut self,
        link: LinkId,
        id: DeliveryId,
        by_peer: bool,
        state: Option<&DeliveryState>,
    ) {
        let Outgoing::Busy {
            end,
            delivery,
            settled: false,
            ..
        } = self.out_link(link)
        else {
            return;
        };
        if *delivery != id {
            return;
        }
        let end = end.clone();
        let outcome = match state {
            Some(DeliveryState::Received { section_offset, .. }) => {
                end.acked(self, *section_offset);
                // The peer may settle with the last offset as its only word.
                if !by_peer {
                    return;
                }
                Outcome::Accepted
            }
            Some(DeliveryState::Accepted) => Outcome::Accepted,
            Some(DeliveryState::Released) => Outcome::Released,
            Some(DeliveryState::Modified { .. }) => Outcome::Modified,
            Some(DeliveryState::Rejected(_)) => Outcome::Rejected,
            None if by_peer => Outcome::Accepted,
            None => return,
        };
        let Outgoing::Busy { ended, settled, .. } = self.out_link(link) else {
            return;
        };
        *settled = true;
        let ended = *ended;
        if !by_peer {
            // An outcome without settlement (rcv-settle-mode second) waits for ours.
            self.amqp.disposition(id, None, true);
        }
        if ended {
            self.free_link(link);
            end.outcome(self, outcome);
        } else {
            end.outcome(self, outcome);
            // The delivery must still be completed before its link is used again.
            self.abort(OutStream { link, delivery: id });
        }
    }
}
