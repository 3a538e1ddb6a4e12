//! The daemon's end of an accelerated connection: keeps what waits unread within bounds.
//!
//! The short way has no window as TCP has. What comes to the daemon is bounded by the program, which
//! is told what was read. What goes to the other program is bounded here, by asking the kernel how
//! much of it waits; and it is left for TCP only when nothing does, because a reader may take a short
//! read for the last one while there is more from TCP.

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

/// Pauses between two looks at a reader that is behind: the first is about what a program takes that
/// does anything else between its reads, the last costs next to nothing.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// The daemon's end.
pub struct Hop {
    acceleration: Arc<Acceleration>,
    ours: SocketAddr,
    theirs: SocketAddr,
    /// Bytes read, and how many of them the program knows of.
    read: Cell<u64>,
    told: Cell<u64>,
    /// Bytes written, and how many of them were read when it was last looked at.
    written: Cell<u64>,
    taken: Cell<u64>,
    /// Bytes written and read when there was last more to read than before.
    mark: Cell<u64>,
    heard: Cell<u64>,
    /// TCP takes over as soon as nothing waits.
    leaving: Cell<bool>,
    /// TCP has taken over what is written.
    left: Cell<bool>,
    /// The gate was shut when it was last looked at.
    shut: Cell<bool>,
    pause: Cell<Duration>,
    /// When it is looked at again.
    until: Cell<Option<Instant>>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Hop {
    pub(super) fn new(
        acceleration: Arc<Acceleration>,
        ours: SocketAddr,
        theirs: SocketAddr,
    ) -> Self {
        Self {
            acceleration,
            ours,
            theirs,
            read: Cell::new(0),
            told: Cell::new(0),
            written: Cell::new(0),
            taken: Cell::new(0),
            mark: Cell::new(0),
            heard: Cell::new(0),
            leaving: Cell::new(false),
            left: Cell::new(false),
            shut: Cell::new(false),
            pause: Cell::new(PAUSE.0),
            until: Cell::new(None),
            timer: RefCell::new(None),
        }
    }

    /// Bytes were read from the socket.
    pub fn has_read(&self, bytes: usize) {
        self.read.set(self.read.get() + bytes as u64);
        // In quarters, so that the writer hears of it before it has to stop.
        if self.read.get() - self.told.get() < AHEAD / 4 {
            return;
        }
        self.told.set(self.read.get());
        if let Some(kernel) = self.acceleration.kernel()
            && let Err(error) = kernel.has_read(self.theirs, self.ours, self.read.get())
        {
            tracing::debug!(error = telemetry::chain(&error), "accelerated connection");
        }
    }

    /// Bytes were written to the socket.
    pub fn has_written(&self, bytes: usize) {
        self.pause.set(PAUSE.0);
        self.written.set(self.written.get() + bytes as u64);
    }

    /// Whether so many bytes may be written now. If not, [`Self::poll_open`] says when to try again.
    pub fn may_write(&self, bytes: usize) -> bool {
        if self.until.get().is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.until.set(None);
        let open = self.left.get() || self.is_open(bytes);
        self.shut.set(!open);
        open
    }

    fn is_open(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.written.get() + bytes > self.mark.get() + STREAK {
            let answered = self.read.get() != self.heard.get();
            self.mark.set(self.written.get());
            self.heard.set(self.read.get());
            self.leaving.set(self.leaving.get() || !answered);
        }
        let waits = |taken: u64| self.written.get() - taken;
        if !self.leaving.get() && waits(self.taken.get()) + bytes <= AHEAD {
            return true;
        }
        if waits(self.taken.get()) > 0 {
            match diag::unread(self.theirs, self.ours) {
                Ok(unread) => self.taken.set(self.written.get().saturating_sub(unread)),
                // It is closed there, as the next write will tell.
                Err(_) => return true,
            }
        }
        let behind = waits(self.taken.get());
        if behind > 0 && !self.leaving.get() && behind + bytes <= AHEAD {
            return true;
        }
        if behind == 0 && self.leaving.get() {
            return self.leave();
        }
        if behind == 0 {
            return true;
        }
        // Whoever is so far behind is not waited for by turns.
        self.leaving.set(true);
        let kernel = self.acceleration.kernel();
        if kernel.is_none_or(|kernel| !kernel.is_short(self.ours, self.theirs)) {
            self.left.set(true);
            return true;
        }
        false
    }

    fn leave(&self) -> bool {
        let left = match self.acceleration.kernel() {
            Some(kernel) => kernel.leave(self.ours, self.theirs),
            None => Ok(()),
        };
        match left {
            Ok(()) => self.left.set(true),
            // It goes on the short way, within its bounds.
            Err(error) => {
                tracing::debug!(error = telemetry::chain(&error), "accelerated connection");
                self.leaving.set(false);
            }
        }
        true
    }

    /// Nothing could be written when it was last tried.
    pub fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// Whether writing is worth a try; if not, the task of `cx` is woken after a while.
    pub fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shut.get() {
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
