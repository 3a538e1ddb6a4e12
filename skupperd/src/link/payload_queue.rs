//! Payload of a stream that waits for room at the next socket or link.

use bytes::{Buf, Bytes, BytesMut};
use std::{collections::VecDeque, io::IoSlice};

/// Payloads below this are copied and joined when they have to wait: a slice keeps the whole buffer
/// of a receive alive, and many small ones cost more than their bytes.
const JOIN_BELOW: usize = 4 * 1024;

/// Payloads in order. The window of the stream bounds their bytes.
#[derive(Debug, Default)]
pub(crate) struct PayloadQueue {
    payloads: VecDeque<Bytes>,
    /// Number of payloads at the head that [`Self::keep`] has seen.
    kept: usize,
    len: usize,
}

impl PayloadQueue {
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
        *self = Self::default();
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
                return;
            }
            self.pop();
        }
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
                return;
            }
            self.pop();
        }
    }

    /// What is in the queue has to wait for long. Each payload is looked at once.
    pub(crate) fn keep(&mut self) {
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
                queue.keep();
            }
        }
        queue.keep();
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
        queue.keep();
        queue.advance(3);
        queue.push(Bytes::from_static(b"gh"));
        assert_eq!(queue.len, 5);
        let mut pieces = [IoSlice::new(&[]); 1];
        assert_eq!(queue.pieces(&mut pieces), 1);
        queue.send_with(|payload| payload.advance(payload.len().min(2)));
        assert_eq!(queue.len, 3);
        queue.keep();
        assert_eq!(text(queue), b"fgh");
    }

    #[test]
    fn an_empty_queue_has_nothing_to_send() {
        let mut queue = PayloadQueue::default();
        queue.keep();
        queue.push(Bytes::from_static(b"x"));
        queue.advance(1);
        assert!(queue.is_empty());
        queue.send_with(|_| panic!("nothing to send"));
    }
}
