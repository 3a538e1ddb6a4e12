//! Streams that leave on this connection: links from the pool, transfers, outcomes.

use super::{
    ConnectionState, DeliveryOutcome, OutStream, SendOutcome,
    stream_end::{End, StreamEvent},
};
use crate::amqp::{
    connection::{ApiError, AttachArgs, LinkId, MAX_TRANSFER_HEADER},
    performative::{DeliveryState, Role, Source, Target},
};
use crate::link::{names::ROUTER_DATA, send_budget::SendClass};
use bytes::Bytes;
use std::io::{self, IoSliceMut};

impl ConnectionState {
    fn attach_stream_link(&mut self) -> Result<(), ApiError> {
        let session = match self.stream_links.session {
            Some(session) => session,
            None => *self.stream_links.session.insert(self.amqp.begin()?),
        };
        let name = self.link_name();
        let (mut source, mut target) = (Source::default(), Target::default());
        if self.data_capability {
            source.capabilities = vec![ROUTER_DATA.into()];
            target.capabilities = vec![ROUTER_DATA.into()];
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
        self.stream_links.attached(link);
        Ok(())
    }

    /// Makes this connection one that streams go over, with links attached ahead of need.
    pub(crate) fn carry_streams(&mut self) {
        self.stream_links.enable();
        self.attach_ahead();
        self.send_control();
    }

    fn attach_ahead(&mut self) {
        while self.stream_links.wants_link() {
            if let Err(e) = self.attach_stream_link() {
                tracing::debug!(error = %e, "cannot attach another streaming link");
                break;
            }
        }
    }

    /// Opens a stream whose delivery begins with `head`. Some: it is open at once. None: it waits
    /// for a link with credit, and the end gets a [`StreamEvent::Opened`].
    pub fn open(&mut self, head: Bytes, end: &End) -> Option<OutStream> {
        let opened = if self.wire.out().is_full(SendClass::Sparse) {
            None
        } else {
            self.take_link(&head, end)
        };
        if opened.is_none() {
            self.stream_links.wait(head, end.clone());
        }
        self.attach_ahead();
        self.send_control();
        opened
    }

    fn take_link(&mut self, head: &Bytes, end: &End) -> Option<OutStream> {
        let max = self.amqp.max_payload();
        while let Some(link) = self.stream_links.take_free() {
            if (self.amqp.window(link) as usize) < head.len().div_ceil(max) {
                self.stream_links.put_back(link);
                return None;
            }
            let Ok(delivery) = self.amqp.start_delivery(link, false) else {
                self.stream_links.lacks_credit();
                continue;
            };
            let stream = OutStream { link, delivery };
            self.stream_links.begin(stream, end.clone());
            self.drain_control();
            for part in head.chunks(max) {
                self.transfer(stream, part, true, false);
            }
            return Some(stream);
        }
        None
    }

    /// A link of ours got credit: streams that wait for one go first.
    pub(crate) fn link_ready(&mut self, link: LinkId) {
        if self.stream_links.credited(link) {
            self.open_waiting();
        }
    }

    pub(crate) fn open_waiting(&mut self) {
        while !self.wire.out().is_full(SendClass::Sparse)
            && let Some((head, end)) = self.stream_links.take_waiting()
        {
            match self.take_link(&head, &end) {
                Some(stream) => end.event(StreamEvent::Opened(stream), &mut self.effects),
                None => {
                    self.stream_links.wait_on(head, end);
                    break;
                }
            }
        }
        self.attach_ahead();
    }

    fn transfer(&mut self, stream: OutStream, payload: &[u8], more: bool, aborted: bool) {
        let mut header = [0; MAX_TRANSFER_HEADER];
        let n = self
            .amqp
            .transfer_header(stream.link, more, aborted, &mut header);
        let size = (n + payload.len()) as u32;
        header[..4].copy_from_slice(&size.to_be_bytes());
        self.wire.out().put(&header[..n]);
        self.wire.out().put(payload);
        self.amqp.transfer_sent(stream.link, !more || aborted);
        self.wake_driver();
    }

    /// Sends what `read` puts into the given pieces, up to `max` bytes and as many as streams of this
    /// class have room for, in one transfer frame.
    pub fn send_from(
        &mut self,
        stream: OutStream,
        class: SendClass,
        max: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<SendOutcome> {
        // First: control frames may take the last room, and a read of no bytes looks like the end.
        self.drain_control();
        if self.wire.out().is_full(class) || self.amqp.window(stream.link) == 0 {
            return Ok(SendOutcome::Full);
        }
        let mut header = [0; MAX_TRANSFER_HEADER];
        let room = self.wire.out().room(class);
        let max = max.min(self.amqp.max_payload()).min(room);
        let n = self
            .amqp
            .transfer_header(stream.link, true, false, &mut header);
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
                Ok(SendOutcome::Bytes(0))
            }
            Ok(n) => {
                buf.commit(mark, n);
                self.amqp.transfer_sent(stream.link, false);
                self.wake_driver();
                Ok(SendOutcome::Bytes(n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                buf.cancel(mark);
                Ok(SendOutcome::Empty)
            }
            Err(e) => {
                buf.cancel(mark);
                Err(e)
            }
        }
    }

    /// Sends as much of `payload` as there is room for, and consumes it.
    pub fn send(&mut self, stream: OutStream, class: SendClass, payload: &mut Bytes) {
        while !payload.is_empty() {
            let max = self.amqp.max_payload().min(payload.len());
            let chunk = payload.clone();
            let sent = self.send_from(stream, class, max, |pieces| {
                let mut n = 0;
                for piece in pieces {
                    let now = piece.len().min(max - n);
                    piece[..now].copy_from_slice(&chunk[n..n + now]);
                    n += now;
                }
                Ok(n)
            });
            match sent {
                Ok(SendOutcome::Bytes(n)) if n > 0 => bytes::Buf::advance(payload, n),
                _ => return,
            }
        }
    }

    /// Completes the outgoing delivery: the half-close of a stream.
    pub fn finish(&mut self, stream: OutStream) {
        self.complete(stream, false);
    }

    /// Gives the outgoing delivery up: the reset of a stream.
    pub fn abort(&mut self, stream: OutStream) {
        self.complete(stream, true);
    }

    fn complete(&mut self, stream: OutStream, aborted: bool) {
        let Some(settled) = self.stream_links.end(stream) else {
            return;
        };
        self.drain_control();
        self.transfer(stream, &[], false, aborted);
        // An aborted delivery is settled by definition (AMQP 1.0 part 2.6.14).
        if settled || aborted {
            self.release_link(stream.link);
        }
    }

    fn release_link(&mut self, link: LinkId) {
        let has_credit = self.amqp.credit(link) > 0;
        if !self.stream_links.release(link, has_credit) {
            self.amqp.detach(link, true, None);
        }
        self.open_waiting();
        self.send_control();
    }

    /// The peer's disposition of an outgoing delivery.
    pub(crate) fn disposed(
        &mut self,
        stream: OutStream,
        settled: bool,
        state: Option<&DeliveryState>,
    ) {
        let Some(end) = self.stream_links.unsettled(stream) else {
            return;
        };
        let outcome = match state {
            Some(DeliveryState::Received { section_offset, .. }) => {
                let acknowledged = StreamEvent::Acknowledged(*section_offset);
                end.event(acknowledged, &mut self.effects);
                // The peer may settle with the last offset as its only word.
                if !settled {
                    return;
                }
                DeliveryOutcome::Accepted
            }
            Some(DeliveryState::Accepted) => DeliveryOutcome::Accepted,
            Some(DeliveryState::Released) => DeliveryOutcome::Released,
            Some(DeliveryState::Modified { .. }) => DeliveryOutcome::Modified,
            Some(DeliveryState::Rejected(_)) => DeliveryOutcome::Rejected,
            None if settled => DeliveryOutcome::Accepted,
            None => return,
        };
        let ended = self.stream_links.settle(stream);
        if !settled {
            // An outcome without settlement (rcv-settle-mode second) waits for ours.
            self.amqp.disposition(stream.delivery, None, true);
        }
        if ended {
            self.release_link(stream.link);
        }
        end.event(StreamEvent::Settled(outcome), &mut self.effects);
        if !ended {
            // The delivery must still be completed before its link is used again.
            self.abort(stream);
        }
    }
}
