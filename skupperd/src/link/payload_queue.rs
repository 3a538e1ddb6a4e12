//! Payload of a stream that waits for room at the next socket or link.

use super::peer_budget::{Charge, PeerBudget};
use bytes::{Buf, Bytes, BytesMut};
use std::{collections::VecDeque, io::IoSlice, sync::Arc};

/// Payloads below this are copied and joined when they have to wait: a slice keeps the whole buffer
/// of a receive alive, and many small ones cost more than their bytes.
const JOIN_BELOW: usize = 4 * 1024;

/// Change of what waits from which on it is charged to the budget again.
const CHARGE_STEP: usize = 16 * 1024;

/// Payloads in order. The window of the stream bounds their bytes, and the budget of its peer those of
/// all its streams.
#[derive(Debug, Default)]
pub(crate) struct PayloadQueue {
    payloads: VecDeque<Bytes>,
    /// Number of payloads at the head that [`Self::keep`] has seen.
    kept: usize,
    len: usize,
    charge: Option<Charge>,
}

impl PayloadQueue {
    /// What waits counts for this peer.
    pub(crate) fn charge_to(&mut self, budget: &Arc<PeerBudget>) {
        self.charge = Some(budget.charge_stream());
    }

    pub(crate) fn push(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.len += payload.len();
            self.payloads.push_back(payload);
        }
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        *self = Self {
            charge: self.charge.take(),
            ..Self::default()
        };
        self.discharge();
    }

    /// Fills in the first payloads. Returns their number.
    pub(crate) fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (piece, payload) in pieces.iter_mut().zip(&self.payloads) {
            *piece = IoSlice::new(payload);
            count += 1;
        }
        count
    }

    /// Removes this many bytes from the head.
    pub(crate) fn advance(&mut self, mut n: usize) {
        debug_assert!(n <= self.len);
        self.len = self.len.saturating_sub(n);
        while let Some(front) = self.payloads.front_mut() {
            let part = n.min(front.len());
            front.advance(part);
            n -= part;
            if !front.is_empty() {
                break;
            }
            self.pop();
        }
        self.discharge();
    }

    /// Passes payloads to `send`, which consumes what it has room for, until it leaves
    /// something.
    pub(crate) fn send_with(&mut self, mut send: impl FnMut(&mut Bytes)) {
        while let Some(front) = self.payloads.front_mut() {
            let before = front.len();
            send(front);
            let left = front.len();
            self.len -= before - left;
            if left > 0 {
                break;
            }
            self.pop();
        }
        self.discharge();
    }

    /// What is in the queue has to wait for long. Each payload is looked at once. False: too much waits
    /// in the queues of all streams of the peer.
    #[must_use]
    pub(crate) fn keep(&mut self) -> bool {
        self.join();
        let Some(charge) = &mut self.charge else {
            return true;
        };
        let is_within = self.len < charge.bytes() + CHARGE_STEP || charge.set(self.len);
        if !is_within {
            charge.budget().note_overrun();
        }
        is_within
    }

    /// Less waits than is charged.
    fn discharge(&mut self) {
        if let Some(charge) = &mut self.charge
            && (self.len + CHARGE_STEP <= charge.bytes() || self.len == 0)
        {
            // It does not grow.
            let _ = charge.set(self.len.min(charge.bytes()));
        }
    }

    fn join(&mut self) {
        let fresh = self.payloads.range(self.kept..);
        if !fresh.clone().any(|payload| payload.len() < JOIN_BELOW) {
            self.kept = self.payloads.len();
            return;
        }
        let fresh = self.payloads.split_off(self.kept);
        let mut joined = BytesMut::new();
        if let Some(last) = self.payloads.pop_back() {
            if last.len() < JOIN_BELOW {
                joined = last
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            } else {
                self.payloads.push_back(last);
            }
        }
        for payload in fresh {
            let large = payload.len() >= JOIN_BELOW;
            if !joined.is_empty() && (large || joined.len() >= JOIN_BELOW) {
                self.payloads.push_back(joined.split().freeze());
            }
            if large {
                self.payloads.push_back(payload);
            } else {
                joined.extend_from_slice(&payload);
            }
        }
        if !joined.is_empty() {
            self.payloads.push_back(joined.freeze());
        }
        self.kept = self.payloads.len();
    }

    fn pop(&mut self) {
        self.payloads.pop_front();
        self.kept = self.kept.saturating_sub(1);
    }
}

impl IntoIterator for PayloadQueue {
    type Item = Bytes;
    type IntoIter = std::collections::vec_deque::IntoIter<Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.payloads.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(queue: PayloadQueue) -> Vec<u8> {
        queue.into_iter().flatten().collect()
    }

    #[test]
    fn small_payloads_are_joined_in_order_and_large_ones_stay() {
        let mut queue = PayloadQueue::default();
        let mut expected = Vec::new();
        for n in 0..2000_usize {
            let size = if n % 500 == 499 { 5000 } else { 1 + n % 40 };
            let payload = vec![n as u8; size];
            expected.extend_from_slice(&payload);
            queue.push(payload.into());
            if n % 3 == 0 {
                assert!(queue.keep());
            }
        }
        assert!(queue.keep());
        assert_eq!(queue.len, expected.len());
        let pieces = queue.payloads.len();
        assert!(pieces < 30, "{pieces} pieces");
        assert!(queue.payloads.iter().any(|p| p.len() == 5000));
        assert_eq!(text(queue), expected);
    }

    #[test]
    fn what_is_written_leaves_from_the_front_wherever_a_write_ends() {
        let mut queue = PayloadQueue::default();
        for payload in [&b"ab"[..], b"", b"cde", b"f"] {
            queue.push(Bytes::from_static(payload));
        }
        assert!(queue.keep());
        queue.advance(3);
        queue.push(Bytes::from_static(b"gh"));
        assert_eq!(queue.len, 5);
        let mut pieces = [IoSlice::new(&[]); 1];
        assert_eq!(queue.pieces(&mut pieces), 1);
        queue.send_with(|payload| payload.advance(payload.len().min(2)));
        assert_eq!(queue.len, 3);
        assert!(queue.keep());
        assert_eq!(text(queue), b"fgh");
    }

    #[test]
    fn an_empty_queue_has_nothing_to_send() {
        let mut queue = PayloadQueue::default();
        assert!(queue.keep());
        queue.push(Bytes::from_static(b"x"));
        queue.advance(1);
        assert!(queue.is_empty());
        queue.send_with(|_| panic!("nothing to send"));
    }

    #[test]
    fn what_waits_counts_for_the_peer_until_it_leaves() {
        let budget = PeerBudget::with_limits("peer".to_owned(), 0, 100_000);
        let mut queues = [PayloadQueue::default(), PayloadQueue::default()];
        for queue in &mut queues {
            queue.charge_to(&budget);
            queue.push(vec![0; 50_000].into());
            assert!(queue.keep(), "both are within the budget");
        }
        let [first, second] = &mut queues;
        second.push(vec![0; 20_000].into());
        assert!(!second.keep() && budget.take_overrun() && !budget.take_overrun());
        second.clear();
        first.push(vec![0; 50_000].into());
        assert!(first.keep());
        first.advance(60_000);
        second.push(vec![0; 60_000].into());
        assert!(second.keep());
        drop(queues);
        let mut charge = budget.charge_stream();
        assert!(charge.set(100_000), "all of it was given back");
    }
}
