//! The daemon's end of an accelerated connection: bounds the unread bytes.
//!
//! The accelerated path has no window like TCP's. The BPF program bounds the bytes to the daemon,
//! from the counts of read bytes that the daemon reports. A [`Hop`] bounds the bytes to the other
//! program, from the unread bytes that the kernel reports. A direction falls back to TCP only when
//! nothing is unread, because a reader may take a short read for the last one while TCP has more.

use super::{AHEAD, Acceleration, STREAK, diag};
use crate::telemetry;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Shortest and longest pause between two checks of a slow reader. The first is about the time of a
/// program that does something between its reads; the last costs next to nothing.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

pub struct Hop {
    acceleration: Arc<Acceleration>,
    local: SocketAddr,
    remote: SocketAddr,
    /// Bytes read, and how many of them were reported to the BPF program.
    read: Cell<u64>,
    reported: Cell<u64>,
    /// Bytes written, and how many of them the other program had read at the last check.
    written: Cell<u64>,
    consumed: Cell<u64>,
    /// Bytes written and read when the other side last sent something.
    written_mark: Cell<u64>,
    read_mark: Cell<u64>,
    /// Fall back to TCP once nothing is unread.
    leaving: Cell<bool>,
    /// TCP carries written bytes.
    on_tcp: Cell<bool>,
    /// The last check allowed no write.
    blocked: Cell<bool>,
    pause: Cell<Duration>,
    /// Time of the next check.
    until: Cell<Option<Instant>>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Hop {
    pub(super) fn new(
        acceleration: Arc<Acceleration>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Self {
        Self {
            acceleration,
            local,
            remote,
            read: Cell::new(0),
            reported: Cell::new(0),
            written: Cell::new(0),
            consumed: Cell::new(0),
            written_mark: Cell::new(0),
            read_mark: Cell::new(0),
            leaving: Cell::new(false),
            on_tcp: Cell::new(false),
            blocked: Cell::new(false),
            pause: Cell::new(PAUSE.0),
            until: Cell::new(None),
            timer: RefCell::new(None),
        }
    }

    /// Records that bytes were read from the socket.
    pub fn has_read(&self, bytes: usize) {
        self.read.set(self.read.get() + bytes as u64);
        // Report every quarter, so that the writer knows before it has to stop.
        if self.read.get() - self.reported.get() < AHEAD / 4 {
            return;
        }
        self.reported.set(self.read.get());
        if let Some(kernel) = self.acceleration.kernel()
            && let Err(error) = kernel.has_read(self.remote, self.local, self.read.get())
        {
            tracing::debug!(
                error = telemetry::chain(&error),
                "cannot report read bytes to BPF program"
            );
        }
    }

    /// Records that bytes were written to the socket.
    pub fn has_written(&self, bytes: usize) {
        self.pause.set(PAUSE.0);
        self.written.set(self.written.get() + bytes as u64);
    }

    /// Whether this many bytes may be written now. If not, wait for [`Self::poll_open`].
    pub fn may_write(&self, bytes: usize) -> bool {
        if self.until.get().is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.until.set(None);
        let open = self.on_tcp.get() || self.is_open(bytes);
        self.blocked.set(!open);
        open
    }

    fn is_open(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.written.get() + bytes > self.written_mark.get() + STREAK {
            let answered = self.read.get() != self.read_mark.get();
            self.written_mark.set(self.written.get());
            self.read_mark.set(self.read.get());
            self.leaving.set(self.leaving.get() || !answered);
        }
        let waits = |consumed: u64| self.written.get() - consumed;
        if !self.leaving.get() && waits(self.consumed.get()) + bytes <= AHEAD {
            return true;
        }
        if waits(self.consumed.get()) > 0 {
            match diag::unread(self.remote, self.local) {
                Ok(unread) => self.consumed.set(self.written.get().saturating_sub(unread)),
                // The socket is closed; the next write fails.
                Err(_) => return true,
            }
        }
        let behind = waits(self.consumed.get());
        if behind > 0 && !self.leaving.get() && behind + bytes <= AHEAD {
            return true;
        }
        if behind == 0 && self.leaving.get() {
            return self.return_to_tcp();
        }
        if behind == 0 {
            return true;
        }
        // The reader is far behind: fall back to TCP.
        self.leaving.set(true);
        let kernel = self.acceleration.kernel();
        if kernel.is_none_or(|kernel| !kernel.is_short(self.local, self.remote)) {
            self.on_tcp.set(true);
            return true;
        }
        false
    }

    fn return_to_tcp(&self) -> bool {
        let result = match self.acceleration.kernel() {
            Some(kernel) => kernel.return_to_tcp(self.local, self.remote),
            None => Ok(()),
        };
        match result {
            Ok(()) => self.on_tcp.set(true),
            // The direction stays accelerated, within its bounds.
            Err(error) => {
                tracing::debug!(
                    error = telemetry::chain(&error),
                    "cannot return connection to TCP"
                );
                self.leaving.set(false);
            }
        }
        true
    }

    /// Whether the last check allowed no write.
    pub fn is_shut(&self) -> bool {
        self.blocked.get()
    }

    /// Ready when a write may be tried; otherwise wakes the task later.
    pub fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.blocked.get() {
            return Poll::Ready(());
        }
        let until = self.until.get().unwrap_or_else(|| {
            let pause = self.pause.get();
            self.pause.set((pause * 2).min(PAUSE.1));
            Instant::now() + pause
        });
        self.until.set(Some(until));
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        let mut sleeping = Box::pin(sleep_until(until));
        let slept = sleeping.as_mut().poll(cx);
        *self.timer.borrow_mut() = Some(sleeping);
        slept
    }
}
