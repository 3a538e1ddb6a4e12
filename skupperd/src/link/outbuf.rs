//! The buffer between streams and a link's socket.
//!
//! Plaintext is laid out from the start where its TLS records will be: room for each record's head
//! and tail is left between the pieces, so that a client's bytes are read from its socket to the
//! place they are sealed in and sent from.

use super::{record, send_budget::SendClass};
use std::{collections::VecDeque, io::IoSliceMut};

/// How the transport cuts the byte stream: TLS records, or nothing at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    head: usize,
    tail: usize,
    max: usize,
}

impl Framing {
    pub(super) const TLS: Self = Self {
        head: record::HEAD,
        tail: record::TAIL,
        max: record::MAX_PLAIN,
    };
    pub(super) const PLAIN: Self = Self {
        head: 0,
        tail: 0,
        max: usize::MAX,
    };
}

/// Size of one buffer. Two of these bound what a connection holds on its way out: enough for a
/// loopback or 10 Gb/s link to stay busy, small enough to stay in the second-level cache. On slow paths
/// [`OutBuf::set_limit`] bounds it further.
pub(super) const CAPACITY: usize = 256 * 1024;
/// The limit until the rate of the path is known.
const FIRST_LIMIT: usize = 32 * 1024;
/// A frame is not begun with less room than this left.
pub(super) const MIN_ROOM: usize = 2 * 1024;
/// Room beyond the limit, for heads of new streams and frames of sparse ones.
const SPARSE_ROOM: usize = 16 * 1024;
/// A header and its size field stay within one record.
const HEADER_ROOM: usize = 128;

/// One buffer of outgoing records.
#[derive(Debug)]
pub(crate) struct OutBuf {
    framing: Framing,
    buf: Vec<u8>,
    /// Bytes after which no bulk is added.
    limit: usize,
    /// Closed records: start of head, plaintext length.
    closed: Vec<(usize, usize)>,
    /// The open record: start of its head, plaintext so far.
    start: usize,
    len: usize,
    /// Control frames that found the buffer full; bounded by the protocol engine's own limits.
    overflow: VecDeque<u8>,
}

/// Where a frame began, so that its size can be set once its payload is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameMark {
    at: usize,
    start: usize,
    len: usize,
    closed: usize,
    header: usize,
}

impl OutBuf {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            buf: Vec::new(),
            limit: FIRST_LIMIT,
            closed: Vec::new(),
            start: 0,
            len: 0,
            overflow: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.closed.is_empty()
    }

    /// Bounds what streams add before the buffer is sent.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.clamp(2 * MIN_ROOM, CAPACITY - SPARSE_ROOM);
    }

    /// No room for another transfer frame of this class until something has been flushed.
    pub(super) fn is_full(&self, class: SendClass) -> bool {
        self.room(class) < MIN_ROOM
    }

    /// Bytes that streams of this class may add.
    pub(super) fn room(&self, class: SendClass) -> usize {
        if !self.overflow.is_empty() {
            return 0;
        }
        let limit = match class {
            SendClass::Bulk => self.limit,
            SendClass::Sparse => self.limit + SPARSE_ROOM,
        };
        limit.saturating_sub(self.end() + self.framing.tail)
    }

    fn end(&self) -> usize {
        self.start + self.framing.head + self.len
    }

    fn free(&self) -> usize {
        CAPACITY.saturating_sub(self.end() + self.framing.tail)
    }

    fn allocate(&mut self) {
        if self.buf.is_empty() {
            self.buf = vec![0; CAPACITY];
        }
    }

    fn close_record(&mut self) {
        if self.len > 0 {
            self.closed.push((self.start, self.len));
            self.start = self.end() + self.framing.tail;
            self.len = 0;
        }
    }

    /// Appends bytes of control frames.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if !self.overflow.is_empty() {
            self.overflow.extend(bytes);
            return;
        }
        let rest = self.put_some(bytes);
        self.overflow.extend(rest);
    }

    fn put_some<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        self.allocate();
        while !bytes.is_empty() {
            if self.len == self.framing.max {
                self.close_record();
            }
            let room = self.free().min(self.framing.max - self.len);
            if room == 0 {
                break;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let end = self.end();
            self.buf[end..end + now.len()].copy_from_slice(now);
            self.len += now.len();
            bytes = later;
        }
        bytes
    }

    /// Begins a frame with this header, whose first four bytes are its size. Only when not full.
    pub(super) fn begin(&mut self, header: &[u8]) -> FrameMark {
        debug_assert!(!self.is_full(SendClass::Sparse) && header.len() <= HEADER_ROOM);
        self.allocate();
        if self.framing.max - self.len < HEADER_ROOM {
            self.close_record();
        }
        let mark = FrameMark {
            at: self.end(),
            start: self.start,
            len: self.len,
            closed: self.closed.len(),
            header: header.len(),
        };
        self.put_some(header);
        mark
    }

    /// Room for up to `max` payload bytes behind a begun frame, as the pieces between records.
    pub(super) fn spaces<'a>(&'a mut self, max: usize, out: &mut Vec<IoSliceMut<'a>>) {
        let Framing {
            head,
            tail,
            max: record,
        } = self.framing;
        let mut left = max.min(CAPACITY);
        let (mut at, mut room) = (self.end(), record - self.len);
        let mut base = 0;
        let mut rest = self.buf.as_mut_slice();
        while left > 0 {
            let take = room.min(left).min(CAPACITY.saturating_sub(at + tail));
            if take == 0 && room > 0 {
                break;
            }
            let (_, tail_of) = rest.split_at_mut(at - base);
            let (piece, after) = tail_of.split_at_mut(take);
            if take > 0 {
                out.push(IoSliceMut::new(piece));
            }
            base = at + take;
            rest = after;
            left -= take;
            at = base.saturating_add(tail + head);
            room = record;
            if at + tail >= CAPACITY {
                break;
            }
        }
    }

    /// Ends the frame with `n` payload bytes, which are in the spaces.
    pub(super) fn commit(&mut self, mark: FrameMark, mut n: usize) {
        let size = mark.header + n;
        self.buf[mark.at..mark.at + 4].copy_from_slice(&(size as u32).to_be_bytes());
        while n > 0 {
            if self.len == self.framing.max {
                self.close_record();
            }
            let now = n.min(self.framing.max - self.len);
            self.len += now;
            n -= now;
        }
    }

    /// Takes a begun frame back, as if it had never been.
    pub(super) fn cancel(&mut self, mark: FrameMark) {
        self.closed.truncate(mark.closed);
        self.start = mark.start;
        self.len = mark.len;
    }

    /// Seals every record and returns the bytes to send; `seal` gets each record with its head and tail.
    pub(super) fn seal<E>(
        &mut self,
        mut seal: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.close_record();
        let Framing { head, tail, .. } = self.framing;
        for &(start, len) in &self.closed {
            seal(&mut self.buf[start..start + head + len + tail])?;
        }
        Ok(self.start)
    }

    pub(super) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        self.buf.get(from..to).unwrap_or_default()
    }

    /// Everything was sent: starts over, keeping the memory of a busy connection only.
    pub(super) fn reset(&mut self, keep: bool) {
        self.closed.clear();
        self.start = 0;
        self.len = 0;
        if !keep {
            self.buf = Vec::new();
        }
    }

    /// Moves control frames that found no room into the buffer, now that there is some.
    pub(super) fn settle_overflow(&mut self) {
        while !self.overflow.is_empty() && self.free() > 0 {
            let (front, _) = self.overflow.as_slices();
            let chunk = front[..front.len().min(16 * 1024)].to_vec();
            let left = self.put_some(&chunk).len();
            self.overflow.drain(..chunk.len() - left);
            if left > 0 {
                break;
            }
        }
    }
}

impl OutBuf {
    /// Takes over what found no room in `other`, which was swapped out to be sent.
    pub(super) fn take_overflow(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.overflow, &mut other.overflow);
        self.settle_overflow();
    }
}

impl OutBuf {
    /// Bytes of control frames that wait for room.
    pub(super) fn backlog(&self) -> usize {
        self.overflow.len()
    }

    /// Bytes of the buffer and the backlog.
    pub(super) fn held_bytes(&self) -> usize {
        self.buf.capacity() + self.overflow.capacity()
    }
}
