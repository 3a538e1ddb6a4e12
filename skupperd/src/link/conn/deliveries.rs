//! Incoming deliveries of each link: heads, streams, and deliveries that are discarded.
//!
//! Bookkeeping only: acknowledgements and outcomes are sent by [`super::incoming`].

use super::{InStream, Outcome, stream_end::End};
use crate::amqp::connection::{DeliveryId, LinkId};
use crate::link::flow_window::ReceiveWindow;
use bytes::{Bytes, BytesMut};

/// The delivery under way on a link that we receive on.
#[derive(Default)]
enum IncomingLink {
    /// Between deliveries.
    #[default]
    Idle,
    Head(Head),
    Stream(Stream),
    /// The rest of a discarded delivery. Settled when it is complete: Skupper's router never
    /// sends the end of a delivery that was settled before, and its link stays blocked.
    Discard {
        delivery: DeliveryId,
        outcome: Outcome,
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

struct Stream {
    end: End,
    delivery: DeliveryId,
    /// Its last transfer has come.
    complete: bool,
    window: ReceiveWindow,
}

/// Where the payload of a transfer belongs.
pub(crate) enum Recipient {
    End(End),
    /// Discarded: the sender ignored the window of the stream.
    Overrun(End),
    /// The head is completed first.
    Head(Head),
    /// Discarded: the rest of a refused delivery.
    Nobody,
}

/// The incoming deliveries of a connection.
#[derive(Default)]
pub(crate) struct IncomingDeliveries {
    links: Vec<IncomingLink>,
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
    fn slot(&mut self, link: LinkId) -> &mut IncomingLink {
        let index = link.index();
        if self.links.len() <= index {
            self.links.resize_with(index + 1, IncomingLink::default);
        }
        &mut self.links[index]
    }

    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    /// No delivery is under way on a link.
    pub(super) fn is_idle(&self, link: LinkId) -> bool {
        let link = self.links.get(link.index());
        matches!(link, None | Some(IncomingLink::Idle))
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
        let previous = std::mem::replace(self.slot(stream.link), IncomingLink::Head(head));
        self.uncount(&previous);
        if matches!(previous, IncomingLink::Stream(_)) {
            // The earlier stream is complete and only its settlement is missing, which its end does by
            // delivery and not by link.
            self.stream_over();
        }
    }

    /// Who gets the payload of a transfer, of so many bytes, which may be the last of its delivery.
    pub(crate) fn recipient(&mut self, link: LinkId, len: usize, last: bool) -> Recipient {
        let slot = self.slot(link);
        match slot {
            IncomingLink::Stream(stream) => {
                stream.complete |= last;
                let end = stream.end.clone();
                if stream.window.receive(len) {
                    Recipient::End(end)
                } else {
                    Recipient::Overrun(end)
                }
            }
            IncomingLink::Head(_) => {
                let taken = std::mem::take(slot);
                self.uncount(&taken);
                match taken {
                    IncomingLink::Head(head) => Recipient::Head(head),
                    _ => Recipient::Nobody,
                }
            }
            IncomingLink::Discard { .. } | IncomingLink::Idle => Recipient::Nobody,
        }
    }

    /// The head goes on with the next transfer.
    pub(crate) fn await_more(&mut self, link: LinkId, mut head: Head) {
        head.keep();
        self.incomplete += head.cost();
        *self.slot(link) = IncomingLink::Head(head);
    }

    /// Bytes of heads and messages that are not complete.
    pub(crate) fn incomplete(&self) -> usize {
        self.incomplete
    }

    /// Tells the sender of a stream how many bytes were passed on in total.
    pub(super) fn acknowledge(&mut self, stream: InStream, offset: u64) {
        if let IncomingLink::Stream(s) = self.slot(stream.link)
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
        *self.slot(stream.link) = IncomingLink::Stream(Stream {
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
            IncomingLink::Stream(s) if s.delivery == stream.delivery => {
                let complete = s.complete;
                *slot = IncomingLink::Idle;
                self.stream_over();
                Some(complete)
            }
            IncomingLink::Discard { delivery, .. } if *delivery == stream.delivery => None,
            // By delivery, not by link: the peer has begun the next one on the link already.
            _ => Some(true),
        }
    }

    /// Discards the rest of a delivery.
    pub(super) fn discard(&mut self, stream: InStream, outcome: Outcome) {
        *self.slot(stream.link) = IncomingLink::Discard {
            delivery: stream.delivery,
            outcome,
        };
    }

    /// A discarded delivery is complete: it can be settled.
    pub(super) fn take_discarded(&mut self, link: LinkId) -> Option<(InStream, Outcome)> {
        let slot = self.slot(link);
        let IncomingLink::Discard { delivery, outcome } = *slot else {
            return None;
        };
        *slot = IncomingLink::Idle;
        Some((InStream { link, delivery }, outcome))
    }

    /// A link is gone; gives the end of the stream on it.
    pub(super) fn detached(&mut self, link: LinkId) -> Option<End> {
        let previous = std::mem::take(self.slot(link));
        self.uncount(&previous);
        match previous {
            IncomingLink::Stream(stream) => {
                self.stream_over();
                Some(stream.end)
            }
            _ => None,
        }
    }

    fn uncount(&mut self, previous: &IncomingLink) {
        if let IncomingLink::Head(head) = previous {
            self.incomplete -= head.cost();
        }
    }

    /// Ends of all streams, when the connection is gone.
    pub(super) fn take_ends(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        for link in std::mem::take(&mut self.links) {
            if let IncomingLink::Stream(stream) = link {
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
