//! When the next HELLO and RA are due.

use super::config::RouterConfig;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Timers {
    hello_interval: Duration,
    ra_interval: Duration,
    ra_interval_flux: Duration,
    next_hello: Instant,
    next_ra: Instant,
    /// Until when RAs are sent more often.
    flux_until: Instant,
}

impl Timers {
    pub(super) fn new(cfg: &RouterConfig, now: Instant) -> Self {
        Self {
            hello_interval: cfg.hello_interval,
            ra_interval: cfg.ra_interval,
            ra_interval_flux: cfg.ra_interval_flux,
            next_hello: now,
            next_ra: now + cfg.ra_interval_flux,
            flux_until: now,
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next_hello.min(self.next_ra)
    }

    /// True once for each interval between HELLOs.
    pub(super) fn take_hello(&mut self, now: Instant) -> bool {
        let due = now >= self.next_hello;
        if due {
            self.next_hello = now + self.hello_interval;
        }
        due
    }

    pub(super) fn is_ra_due(&self, now: Instant) -> bool {
        now >= self.next_ra
    }

    pub(super) fn ra_sent(&mut self, now: Instant) {
        let flux = now < self.flux_until;
        let interval = if flux {
            self.ra_interval_flux
        } else {
            self.ra_interval
        };
        self.next_ra = now + interval;
    }

    /// The topology changes: RAs are sent more often for a while.
    pub(super) fn enter_flux(&mut self, now: Instant) {
        self.flux_until = now + self.ra_interval_flux * 2;
    }
}
