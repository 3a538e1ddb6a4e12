//! Complete messages that wait for credit, in a line for each link.

use crate::amqp::connection::LinkId;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Bytes that may wait on one link: two of the longest messages.
const MAX_LINE: usize = 8 * 1024 * 1024;
/// Bytes that may wait on all links of a connection.
const MAX_LINES: usize = 32 * 1024 * 1024;
/// What a waiting message costs beside its bytes.
const OVERHEAD: usize = 96;

/// The lines of one connection.
#[derive(Default)]
pub(super) struct MessageLines {
    lines: HashMap<LinkId, Line>,
    cost: usize,
}

#[derive(Default)]
struct Line {
    messages: VecDeque<Bytes>,
    cost: usize,
}

fn cost(message: &Bytes) -> usize {
    message.len() + OVERHEAD
}

impl MessageLines {
    /// Puts a message at the end of a link's line. False: more waits than may, and it was dropped.
    pub(super) fn push(&mut self, link: LinkId, message: Bytes) -> bool {
        let line = self.lines.entry(link).or_default();
        let cost = cost(&message);
        if line.cost + cost > MAX_LINE || self.cost + cost > MAX_LINES {
            return false;
        }
        line.cost += cost;
        self.cost += cost;
        line.messages.push_back(message);
        true
    }

    /// Bytes that wait on all links.
    pub(super) fn held_bytes(&self) -> usize {
        self.cost
    }

    /// The message that goes next on a link.
    pub(super) fn front(&self, link: LinkId) -> Option<&Bytes> {
        self.lines.get(&link)?.messages.front()
    }

    /// The head of a line was sent.
    pub(super) fn pop(&mut self, link: LinkId) {
        let Some(line) = self.lines.get_mut(&link) else {
            return;
        };
        if let Some(message) = line.messages.pop_front() {
            line.cost -= cost(&message);
            self.cost -= cost(&message);
        }
        if line.messages.is_empty() {
            self.lines.remove(&link);
        }
    }

    /// Drops the line of a link that is gone.
    pub(super) fn remove(&mut self, link: LinkId) {
        if let Some(line) = self.lines.remove(&link) {
            self.cost -= line.cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_in_bytes_and_has_room_again_once_it_is_sent() {
        let [link, other] = [0, 1].map(LinkId::of);
        let mut lines = MessageLines::default();
        let message = Bytes::from(vec![0; MAX_LINE / 4]);
        for _ in 0..3 {
            assert!(lines.push(link, message.clone()));
        }
        assert!(!lines.push(link, message.clone()));
        assert!(lines.push(other, message.clone()));
        lines.pop(link);
        assert!(lines.push(link, message));
        lines.remove(link);
        lines.pop(other);
        assert_eq!((lines.cost, lines.lines.len()), (0, 0));
    }

    #[test]
    fn a_connection_is_bounded_however_many_links_it_has() {
        let mut lines = MessageLines::default();
        let message = Bytes::from(vec![0; MAX_LINE / 2]);
        let taken = (0..64)
            .filter(|link| lines.push(LinkId::of(*link), message.clone()))
            .count();
        assert!(taken < 2 * MAX_LINES / MAX_LINE, "{taken}");
        assert!(lines.cost <= MAX_LINES);
    }

    #[test]
    fn messages_without_bytes_are_not_free() {
        let mut lines = MessageLines::default();
        let taken = (0..MAX_LINE).take_while(|_| lines.push(LinkId::of(0), Bytes::new()));
        assert_eq!(taken.count(), MAX_LINE / OVERHEAD);
    }
}
