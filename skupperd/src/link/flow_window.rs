//! The byte window of a stream, from end to end: how much may be sent before the receiver says that
//! it has passed it on. AMQP's credit counts deliveries and its session window frames of all streams
//! of a connection; neither holds back one stream whose receiver is slow.
//!
//! The sender keeps a [`FlowWindow`]; a router that receives a stream holds its sender to it with a
//! [`ReceiveWindow`], so that what waits for a slow receiver is bounded for any sender.
//!
//! Offsets count bytes of one direction from its beginning. Nothing here reads a clock or a socket.

use std::time::{Duration, Instant};

/// Unacknowledged bytes at which a sender stops, as routers of Skupper do.
pub(crate) const WINDOW: u64 = 1_042_432;
/// Bytes passed on after which a receiver acknowledges, as routers of Skupper do: half the window.
pub(crate) const ACK_EVERY: u64 = 521_216;
/// First window between ends of our own kind: what is not in flight waits in the sender's socket
/// instead of the receiver's memory, and in the cache instead of out of it.
pub(crate) const NATIVE_WINDOW: u64 = 256 * 1024;
/// Bytes after which ends of our own kind acknowledge.
pub(crate) const NATIVE_ACK_EVERY: u64 = 64 * 1024;
/// Largest window between ends of our own kind: 16 MiB carry 1 Gb/s over 130 ms.
pub(crate) const MAX_WINDOW: u64 = 16 * 1024 * 1024;
/// Bytes sent before the stream of the answers is there. The sender keeps them until then, for
/// another connector if the first refuses.
pub(crate) const EARLY: u64 = 64 * 1024;
/// What an honest sender may be above its window: routers of Skupper look at it before each read of
/// up to 16 buffers of 4 KiB; then a frame.
const OVERSHOOT: u64 = 128 * 1024;
/// Shortest time a rate is measured over: acknowledgements come in bursts.
const MEASURE: Duration = Duration::from_millis(2);

/// How far a stream has come, for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendPhase {
    /// Nothing is sent until the stream of the answers is there.
    Held,
    /// Up to [`EARLY`] bytes.
    Early,
    /// As the window allows.
    Open,
}

/// The window as the sender of a stream keeps it.
#[derive(Debug)]
pub(crate) struct FlowWindow {
    phase: SendPhase,
    sent: u64,
    confirmed: u64,
    size: u64,
    /// Between ends of our own kind.
    path: Option<PathMeter>,
}

/// Measures what is on its way: round trip and rate.
#[derive(Debug)]
struct PathMeter {
    /// When the byte at this offset was sent.
    probe: Option<(u64, Instant)>,
    /// Shortest time that an acknowledgement took.
    rtt: Option<Duration>,
    /// Where the current measurement of the rate began.
    since: Option<(Instant, u64)>,
}

impl FlowWindow {
    pub(crate) fn new() -> Self {
        Self {
            phase: SendPhase::Held,
            sent: 0,
            confirmed: 0,
            size: WINDOW,
            path: None,
        }
    }

    /// The other end is of our own kind: the window begins small and follows the path.
    pub(crate) fn follow_path(&mut self) {
        self.size = NATIVE_WINDOW;
        self.path = Some(PathMeter {
            probe: None,
            rtt: None,
            since: None,
        });
    }

    pub(crate) fn phase(&self) -> SendPhase {
        self.phase
    }

    pub(crate) fn set_phase(&mut self, phase: SendPhase) {
        self.phase = phase;
    }

    /// Bytes that may be sent now.
    pub(crate) fn room(&self) -> u64 {
        let limit = match self.phase {
            SendPhase::Held => 0,
            SendPhase::Early => EARLY,
            SendPhase::Open => self.confirmed.saturating_add(self.size),
        };
        limit.saturating_sub(self.sent)
    }

    /// So many bytes were sent. The clock is asked only when a measurement begins.
    pub(crate) fn sent(&mut self, n: usize, now: impl FnOnce() -> Instant) {
        self.sent = self.sent.saturating_add(n as u64);
        if let Some(path) = &mut self.path
            && path.probe.is_none()
        {
            let now = now();
            path.probe = Some((self.sent, now));
            path.since.get_or_insert((now, self.confirmed));
        }
    }

    /// The receiver has passed on so many bytes in all. False: nothing new, or more than was sent.
    pub(crate) fn acknowledged(&mut self, offset: u64, now: impl FnOnce() -> Instant) -> bool {
        if offset <= self.confirmed || offset > self.sent {
            return false;
        }
        self.confirmed = offset;
        if let Some(path) = &mut self.path
            && let Some(product) = path.measure(offset, now())
        {
            self.size = self.size.max(product.min(MAX_WINDOW));
        }
        true
    }
}

impl PathMeter {
    /// Twice what is acknowledged in one round trip, when enough time has passed to tell. A slow
    /// reader acknowledges little and so keeps a small window; a long path gets a large one.
    fn measure(&mut self, offset: u64, now: Instant) -> Option<u64> {
        if let Some((at, sent)) = self.probe
            && offset >= at
        {
            let took = now.saturating_duration_since(sent);
            self.rtt = Some(self.rtt.map_or(took, |rtt| rtt.min(took)));
            self.probe = None;
        }
        let (since, from) = self.since?;
        let (rtt, time) = (self.rtt?, now.saturating_duration_since(since));
        if time < rtt.max(MEASURE) {
            return None;
        }
        self.since = Some((now, offset));
        let rate = (offset - from) as f64 / time.as_secs_f64();
        Some((rate * rtt.as_secs_f64() * 2.0) as u64)
    }
}

/// The window as a receiver of a stream knows it.
#[derive(Debug, Default)]
pub(crate) struct ReceiveWindow {
    received: u64,
    acknowledged: u64,
}

impl ReceiveWindow {
    /// So many bytes have come. False: more than any honest sender has on its way.
    pub(crate) fn receive(&mut self, n: usize) -> bool {
        self.received = self.received.saturating_add(n as u64);
        self.received - self.acknowledged <= self.limit()
    }

    /// Acknowledges this many bytes in total to the sender.
    pub(crate) fn acknowledge(&mut self, offset: u64) {
        let offset = offset.min(self.received);
        self.acknowledged = self.acknowledged.max(offset);
    }

    /// Any sender has [`WINDOW`]. The window of one of our own kind grows, up to [`MAX_WINDOW`], and
    /// never above twice what was acknowledged: only a fast receiver makes it large.
    fn limit(&self) -> u64 {
        let grown = self.acknowledged.saturating_mul(2).min(MAX_WINDOW);
        WINDOW.max(grown) + OVERSHOOT
    }
}

#[cfg(test)]
mod tests;
