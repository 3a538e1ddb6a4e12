//! A router behind the honest neighbour, linked to it in memory.

use super::{BEHIND, ID};
use bytes::Bytes;
use skupperd::router::{Output, Router, RouterConfig, Treatment};
use std::time::Instant;

/// Routing key of its connector.
pub(in crate::fuzz::site) const SERVICE: &str = "behind-service";
/// Its id.
pub(in crate::fuzz::site) const ROUTER: &str = "behind";

pub(super) struct Behind(Router);

impl Behind {
    pub(super) fn new(now: Instant) -> Self {
        let mut router = Router::new(RouterConfig::new(ROUTER, 9), now);
        router.add_consumer(SERVICE, Treatment::Balanced);
        router.add_link(BEHIND, 1, now);
        router.bind_link(BEHIND, ID, BEHIND);
        Self(router)
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.0.poll_timeout()
    }

    /// Takes a message of the neighbour. What others have it pass on may be none.
    pub(super) fn receive(&mut self, message: &[u8], now: Instant) {
        drop(self.0.receive_control(BEHIND, message, now));
    }

    /// The next message to the neighbour.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Bytes> {
        if self.0.poll_timeout() <= now {
            self.0.handle_timeout(now);
        }
        loop {
            if let Output::Control { message, .. } = self.0.poll_output()? {
                return Some(message);
            }
        }
    }
}
