//! The links that streams leave on: one for each stream, pooled and used again.
//!
//! Bookkeeping only: what goes to the peer is sent by [`super::outgoing`].

use super::{OutStream, stream_end::End};
use crate::amqp::connection::{DeliveryId, LinkId, SessionId};
use bytes::Bytes;
use std::collections::VecDeque;

/// Free streaming links kept for reuse; as many as Skupper's router keeps.
const MAX_FREE_LINKS: usize = 128;
/// Links attached ahead of need, so that a new stream does not wait a round trip for credit.
const WARM_LINKS: usize = 16;
/// Streaming links of one connection; the protocol engine's own limit is above this.
const MAX_STREAM_LINKS: usize = 32_000;

/// A link that we send on.
#[derive(Default)]
pub(crate) enum OutgoingLink {
    #[default]
    None,
    /// Attached, without a stream.
    Free,
    Busy(BusyLink),
    /// Control, messages, a client's or an edge's link.
    Fixed,
}

/// A link with a stream on it.
pub(crate) struct BusyLink {
    end: End,
    delivery: DeliveryId,
    /// Our last transfer is out.
    ended: bool,
    /// The peer has settled.
    settled: bool,
}

struct WaitingStream {
    head: Bytes,
    end: End,
}

/// The links of a connection that we send on, by kind of use.
pub(crate) struct StreamLinks {
    links: Vec<OutgoingLink>,
    free: Vec<LinkId>,
    /// Attached for streams, without credit yet.
    pending: usize,
    busy: usize,
    waiting: VecDeque<WaitingStream>,
    /// Streams go over this connection.
    enabled: bool,
    /// The session of all streaming links.
    pub(super) session: Option<SessionId>,
}

impl StreamLinks {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            links: Vec::new(),
            free: Vec::new(),
            pending: 0,
            busy: 0,
            waiting: VecDeque::new(),
            enabled,
            session: None,
        }
    }

    fn slot(&mut self, link: LinkId) -> &mut OutgoingLink {
        let index = link.index();
        if self.links.len() <= index {
            self.links.resize_with(index + 1, OutgoingLink::default);
        }
        &mut self.links[index]
    }

    pub(super) fn streams(&self) -> usize {
        self.busy
    }

    pub(super) fn enable(&mut self) {
        self.enabled = true;
    }

    /// The link is not for streams.
    pub(crate) fn set_fixed(&mut self, link: LinkId) {
        *self.slot(link) = OutgoingLink::Fixed;
    }

    pub(crate) fn is_fixed(&self, link: LinkId) -> bool {
        matches!(self.links.get(link.index()), Some(OutgoingLink::Fixed))
    }

    /// A link that has or had no stream on it: it may be detached.
    pub(super) fn is_idle(&self, link: LinkId) -> bool {
        let link = self.links.get(link.index());
        matches!(link, None | Some(OutgoingLink::None | OutgoingLink::Fixed))
    }

    pub(super) fn forget(&mut self, link: LinkId) {
        *self.slot(link) = OutgoingLink::None;
    }

    /// A further link would be of use.
    pub(super) fn wants_link(&self) -> bool {
        let idle = self.free.len() + self.pending;
        self.enabled
            && idle < WARM_LINKS + self.waiting.len()
            && self.busy + idle < MAX_STREAM_LINKS
    }

    /// A link for streams was attached. It has no credit yet.
    pub(super) fn attached(&mut self, link: LinkId) {
        *self.slot(link) = OutgoingLink::Free;
        self.pending += 1;
    }

    /// A link has credit. False: it was free before, or is not for streams.
    pub(super) fn credited(&mut self, link: LinkId) -> bool {
        if !matches!(self.slot(link), OutgoingLink::Free) || self.free.contains(&link) {
            return false;
        }
        self.pending = self.pending.saturating_sub(1);
        self.free.push(link);
        true
    }

    pub(super) fn take_free(&mut self) -> Option<LinkId> {
        self.free.pop()
    }

    pub(super) fn put_back(&mut self, link: LinkId) {
        self.free.push(link);
    }

    /// A link that was taken has no credit: the peer's flow puts it back.
    pub(super) fn lacks_credit(&mut self) {
        self.pending += 1;
    }

    /// A stream begins on a link that was taken.
    pub(super) fn begin(&mut self, stream: OutStream, end: End) {
        self.busy += 1;
        *self.slot(stream.link) = OutgoingLink::Busy(BusyLink {
            end,
            delivery: stream.delivery,
            ended: false,
            settled: false,
        });
    }

    fn busy(&mut self, stream: OutStream) -> Option<&mut BusyLink> {
        match self.slot(stream.link) {
            OutgoingLink::Busy(busy) if busy.delivery == stream.delivery => Some(busy),
            _ => None,
        }
    }

    /// Our last transfer of a stream goes out. None: it has gone before. True: the peer has settled.
    pub(super) fn end(&mut self, stream: OutStream) -> Option<bool> {
        let busy = self.busy(stream)?;
        (!std::mem::replace(&mut busy.ended, true)).then_some(busy.settled)
    }

    /// The end of a stream that the peer has not settled.
    pub(super) fn unsettled(&mut self, stream: OutStream) -> Option<End> {
        let busy = self.busy(stream).filter(|busy| !busy.settled)?;
        Some(busy.end.clone())
    }

    /// The peer has settled a stream. True: our last transfer is out.
    pub(super) fn settle(&mut self, stream: OutStream) -> bool {
        self.busy(stream).is_none_or(|busy| {
            busy.settled = true;
            busy.ended
        })
    }

    /// A stream has left its link, which has credit or not. False: the link is one too many.
    pub(super) fn release(&mut self, link: LinkId, has_credit: bool) -> bool {
        self.busy = self.busy.saturating_sub(1);
        if self.free.len() >= MAX_FREE_LINKS {
            *self.slot(link) = OutgoingLink::None;
            return false;
        }
        *self.slot(link) = OutgoingLink::Free;
        if has_credit {
            self.free.push(link);
        } else {
            self.pending += 1;
        }
        true
    }

    /// The peer has detached a link. Returns the end of the stream on it.
    pub(super) fn detached(&mut self, link: LinkId) -> Option<End> {
        match std::mem::take(self.slot(link)) {
            OutgoingLink::Busy(busy) => {
                self.busy = self.busy.saturating_sub(1);
                Some(busy.end)
            }
            OutgoingLink::Free => {
                let before = self.free.len();
                self.free.retain(|free| *free != link);
                if self.free.len() == before {
                    self.pending = self.pending.saturating_sub(1);
                }
                None
            }
            OutgoingLink::None | OutgoingLink::Fixed => None,
        }
    }

    /// A stream waits for a link.
    pub(super) fn wait(&mut self, head: Bytes, end: End) {
        self.waiting.push_back(WaitingStream { head, end });
    }

    /// The first stream that waits, if there is a link for it.
    pub(super) fn take_waiting(&mut self) -> Option<(Bytes, End)> {
        if self.free.is_empty() {
            return None;
        }
        let WaitingStream { head, end } = self.waiting.pop_front()?;
        Some((head, end))
    }

    /// Puts a stream back at the head of the queue.
    pub(super) fn wait_on(&mut self, head: Bytes, end: End) {
        self.waiting.push_front(WaitingStream { head, end });
    }

    /// Ends of all streams, when the connection is gone.
    pub(super) fn take_ends(&mut self) -> Vec<End> {
        let mut ends: Vec<End> = self.waiting.drain(..).map(|waiting| waiting.end).collect();
        for link in &mut self.links {
            if let OutgoingLink::Busy(busy) = std::mem::take(link) {
                ends.push(busy.end);
            }
        }
        self.free.clear();
        self.busy = 0;
        ends
    }
}
