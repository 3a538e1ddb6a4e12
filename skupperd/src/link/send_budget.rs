//! How many bytes of a connection wait ahead of a new frame.
//!
//! What a buffer or the kernel has taken can not be overtaken. Half a megabyte is nothing at 10 Gb/s; at
//! 3 Mbit/s it is 1.4 s in which no other stream of the connection sends anything. So the budget is a
//! time: what the output buffers and the kernel hold unsent is what the path takes in some milliseconds,
//! at the rate that the kernel measures. When the kernel runs out of bytes in between, because this
//! thread does not run often enough, the time grows until it does not.
//!
//! Nothing here reads a clock or a socket.

use std::time::{Duration, Instant};

/// How a stream uses its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendClass {
    /// It has sent all it had: messages, requests, the beginning of a stream. It may exceed the budget
    /// a little, so that it waits for no turn.
    Sparse,
    /// It has more to send than it was given room for.
    Bulk,
}

/// Time that the path takes for one of the two output buffers, and half of that for what the kernel
/// holds unsent.
const TIME: Duration = Duration::from_millis(10);
/// The longest that it grows to.
const MAX_TIME: Duration = Duration::from_millis(640);
/// Interval of measurements.
const INTERVAL: Duration = Duration::from_millis(10);
/// Least unsent bytes: the kernel asks for more at half of it, and a path takes some packets at once.
const MIN_UNSENT: u32 = 8 * 1024;
/// Unsent bytes above which the kernel's own limits decide.
const MAX_UNSENT: u32 = 4 * 1024 * 1024;

/// What a connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendLimits {
    /// Bytes of one output buffer, which has bounds of its own.
    pub(super) buffer: usize,
    /// Unsent bytes in the kernel, when that is to change; 0: no limit of ours.
    pub(super) unsent: Option<u32>,
}

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct SendBudget {
    next_measurement: Option<Instant>,
    time: Duration,
    /// As last set.
    unsent: u32,
}

impl SendBudget {
    pub(super) fn new() -> Self {
        Self {
            next_measurement: None,
            time: TIME,
            unsent: 0,
        }
    }

    /// Whether it is time to measure again.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.next_measurement.is_some_and(|next| now < next) {
            return false;
        }
        self.next_measurement = Some(now + INTERVAL);
        true
    }

    /// The limits at this rate, in bytes per second. `ran_dry`: the kernel had sent everything while
    /// there was more to send.
    pub(super) fn limits(&mut self, rate: u64, ran_dry: bool) -> SendLimits {
        self.time = match ran_dry {
            true => (self.time * 2).min(MAX_TIME),
            false => (self.time * 7 / 8).max(TIME),
        };
        let bytes = (rate as f64 * self.time.as_secs_f64()) as usize;
        let unsent = u32::try_from(bytes.saturating_mul(2)).unwrap_or(u32::MAX);
        let unsent = match unsent.max(MIN_UNSENT) {
            MAX_UNSENT.. => 0,
            unsent => unsent,
        };
        // A system call only for a change that matters.
        let is_close = unsent.abs_diff(self.unsent) <= self.unsent / 4;
        let is_same = is_close && (unsent == 0) == (self.unsent == 0);
        if !is_same {
            self.unsent = unsent;
        }
        SendLimits {
            buffer: bytes,
            unsent: (!is_same).then_some(unsent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_takes_the_path_some_milliseconds() {
        let mut budget = SendBudget::new();
        // 50 Mbit/s.
        let limits = budget.limits(6_250_000, false);
        assert_eq!(limits.buffer, 62_500);
        assert_eq!(limits.unsent, Some(125_000));
        // About the same rate: no system call.
        assert_eq!(budget.limits(6_500_000, false).unsent, None);
        // A slow path still has room for some packets.
        assert_eq!(budget.limits(10_000, false).unsent, Some(MIN_UNSENT));
        // A fast one is not limited.
        let limits = budget.limits(1_000_000_000, false);
        assert_eq!((limits.buffer, limits.unsent), (10_000_000, Some(0)));
        assert_eq!(budget.limits(900_000_000, false).unsent, None);
    }

    #[test]
    fn a_thread_that_comes_late_gets_more_time() {
        let mut budget = SendBudget::new();
        let rate = 1_000_000;
        let usual = budget.limits(rate, false).buffer;
        assert_eq!(budget.limits(rate, true).buffer, 2 * usual);
        for _ in 0..20 {
            budget.limits(rate, true);
        }
        assert_eq!(budget.time, MAX_TIME);
        for _ in 0..50 {
            budget.limits(rate, false);
        }
        assert_eq!(budget.limits(rate, false).buffer, usual);
    }

    #[test]
    fn a_connection_is_measured_now_and_then() {
        let (mut budget, now) = (SendBudget::new(), Instant::now());
        assert!(budget.is_due(now) && !budget.is_due(now));
        assert!(!budget.is_due(now + INTERVAL / 2) && budget.is_due(now + INTERVAL));
    }
}
