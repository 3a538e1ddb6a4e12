//! Incoming deliveries of each link: heads, streams, and deliveries that are discarded.
//!
//! Bookkeeping only: acknowledgements and outcomes are sent by [`super::incoming`].

use super::{DeliveryOutcome, InStream, stream_end::End};
use crate::amqp::connection::{DeliveryId, LinkId};
use crate::link::flow_window::ReceiveWindow;
use bytes::{Bytes, BytesMut};

/// The delivery under way on a link that we receive on.
#[derive(Default)]
enum LinkReceiveState {
    /// Between deliveries.
    #[default]
    Idle,
    Head(Head),
    Stream(IncomingStreamState),
    /// The rest of a discarded delivery. Settled when it is complete: Skupper's router never
    /// sends the end of a delivery that was settled before, and its link stays blocked.
    Discard {
        delivery: DeliveryId,
        outcome: DeliveryOutcome,
    },
}

/// A delivery whose head is not complete yet, or a plain message.
pub(crate) struct Head {
    /// Its sender expects no outcome.
    pub(crate) settled: bool,
    /// It is known to be no stream.
    pub(crate) is_message: bool,
    /// The first part, while nothing is behind it: a slice of what was received.
    first: Bytes,
    /// What has come so far, once there is more to come: the slice would keep the whole buffer of a
    /// receive alive.
    copy: BytesMut,
}

struct IncomingStreamState {
    end: End,
    delivery: DeliveryId,
    /// Its last transfer has come.
    complete: bool,
    window: ReceiveWindow,
}

/// Where the payload of a transfer belongs.
pub(crate) enum PayloadTarget {
    End(End),
    /// Discarded: the sender ignored the window of the stream.
    Overrun(End),
    /// The head is completed first.
    Head(Head),
    /// Discarded: the rest of a refused delivery.
    Discard,
}

/// The incoming deliveries of a connection.
#[derive(Default)]
pub(crate) struct IncomingDeliveries {
    links: Vec<LinkReceiveState>,
    streams: usize,
    /// Bytes of heads and messages that are not complete.
    incomplete: usize,
}

impl Head {
    /// Adds the payload of the next transfer. Streams are the rule on data connections, and their head
    /// comes in one piece nearly always: that is not copied.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if self.so_far().is_empty() {
            self.first = payload;
        } else {
            self.keep();
            self.copy.extend_from_slice(&payload);
        }
    }

    /// What has come so far.
    pub(crate) fn so_far(&self) -> &[u8] {
        match self.copy.is_empty() {
            true => &self.first,
            false => &self.copy,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self.copy.is_empty() {
            true => self.first,
            false => self.copy.freeze(),
        }
    }

    fn keep(&mut self) {
        let first = std::mem::take(&mut self.first);
        self.copy.extend_from_slice(&first);
    }

    /// What it holds, with its own size: heads of no bytes are not free.
    fn cost(&self) -> usize {
        self.so_far().len() + size_of::<Self>()
    }
}

impl IncomingDeliveries {
    fn slot(&mut self, link: LinkId) -> &mut LinkReceiveState {
        let index = link.index();
        if self.links.len() <= index {
            self.links.resize_with(index + 1, LinkReceiveState::default);
        }
        &mut self.links[index]
    }

    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    /// No delivery is under way on a link.
    pub(super) fn is_idle(&self, link: LinkId) -> bool {
        let link = self.links.get(link.index());
        matches!(link, None | Some(LinkReceiveState::Idle))
    }

    /// A link that we receive on was attached.
    pub(crate) fn reset(&mut self, link: LinkId) {
        let previous = std::mem::take(self.slot(link));
        self.uncount(&previous);
    }

    pub(crate) fn begin(&mut self, stream: InStream, settled: bool) {
        let head = Head {
            settled,
            is_message: false,
            first: Bytes::new(),
            copy: BytesMut::new(),
        };
        self.incomplete += head.cost();
        let previous = std::mem::replace(self.slot(stream.link), LinkReceiveState::Head(head));
        self.uncount(&previous);
        if matches!(previous, LinkReceiveState::Stream(_)) {
            // The earlier stream is complete and only its settlement is missing, which its end does by
            // delivery and not by link.
            self.stream_over();
        }
    }

    /// Who gets the payload of a transfer, of so many bytes, which may be the last of its delivery.
    pub(crate) fn recipient(&mut self, link: LinkId, len: usize, last: bool) -> PayloadTarget {
        let slot = self.slot(link);
        match slot {
            LinkReceiveState::Stream(stream) => {
                stream.complete |= last;
                let end = stream.end.clone();
                if stream.window.receive(len) {
                    PayloadTarget::End(end)
                } else {
                    PayloadTarget::Overrun(end)
                }
            }
            LinkReceiveState::Head(_) => {
                let taken = std::mem::take(slot);
                self.uncount(&taken);
                match taken {
                    LinkReceiveState::Head(head) => PayloadTarget::Head(head),
                    _ => PayloadTarget::Discard,
                }
            }
            LinkReceiveState::Discard { .. } | LinkReceiveState::Idle => PayloadTarget::Discard,
        }
    }

    /// The head goes on with the next transfer.
    pub(crate) fn await_more(&mut self, link: LinkId, mut head: Head) {
        head.keep();
        self.incomplete += head.cost();
        *self.slot(link) = LinkReceiveState::Head(head);
    }

    /// Bytes of heads and messages that are not complete.
    pub(crate) fn incomplete(&self) -> usize {
        self.incomplete
    }

    /// Tells the sender of a stream how many bytes were passed on in total.
    pub(super) fn acknowledge(&mut self, stream: InStream, offset: u64) {
        if let LinkReceiveState::Stream(s) = self.slot(stream.link)
            && s.delivery == stream.delivery
        {
            s.window.acknowledge(offset);
        }
    }

    /// A delivery is a stream, with this end. So many bytes have come with its head.
    pub(crate) fn start_stream(&mut self, stream: InStream, end: End, len: usize, complete: bool) {
        self.streams += 1;
        let mut window = ReceiveWindow::default();
        // A frame is below any window.
        window.receive(len);
        *self.slot(stream.link) = LinkReceiveState::Stream(IncomingStreamState {
            end,
            delivery: stream.delivery,
            complete,
            window,
        });
    }

    /// The receiver of a delivery is done with it. None: it was settled before. Else: it is complete.
    pub(super) fn settle(&mut self, stream: InStream) -> Option<bool> {
        let slot = self.slot(stream.link);
        match slot {
            LinkReceiveState::Stream(s) if s.delivery == stream.delivery => {
                let complete = s.complete;
                *slot = LinkReceiveState::Idle;
                self.stream_over();
                Some(complete)
            }
            LinkReceiveState::Discard { delivery, .. } if *delivery == stream.delivery => None,
            // By delivery, not by link: the peer has begun the next one on the link already.
            _ => Some(true),
        }
    }

    /// Discards the rest of a delivery.
    pub(super) fn discard(&mut self, stream: InStream, outcome: DeliveryOutcome) {
        *self.slot(stream.link) = LinkReceiveState::Discard {
            delivery: stream.delivery,
            outcome,
        };
    }

    /// A discarded delivery is complete: it can be settled.
    pub(super) fn take_discarded(&mut self, link: LinkId) -> Option<(InStream, DeliveryOutcome)> {
        let slot = self.slot(link);
        let LinkReceiveState::Discard { delivery, outcome } = *slot else {
            return None;
        };
        *slot = LinkReceiveState::Idle;
        Some((InStream { link, delivery }, outcome))
    }

    /// A link is gone; gives the end of the stream on it.
    pub(super) fn detached(&mut self, link: LinkId) -> Option<End> {
        let previous = std::mem::take(self.slot(link));
        self.uncount(&previous);
        match previous {
            LinkReceiveState::Stream(stream) => {
                self.stream_over();
                Some(stream.end)
            }
            _ => None,
        }
    }

    fn uncount(&mut self, previous: &LinkReceiveState) {
        if let LinkReceiveState::Head(head) = previous {
            self.incomplete -= head.cost();
        }
    }

    /// Ends of all streams, when the connection is gone.
    pub(super) fn take_ends(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        for link in std::mem::take(&mut self.links) {
            if let LinkReceiveState::Stream(stream) = link {
                ends.push(stream.end);
            }
        }
        self.streams = 0;
        self.incomplete = 0;
        ends
    }

    fn stream_over(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }
}
