//! A request that is not over, in either version of HTTP.

use super::{MessageSender, OnExchange};
use crate::flows::{Exchange, Protocol};
use std::time::{Duration, Instant};

/// A request whose answer has not ended.
pub(super) struct OpenRequest {
    pub(super) exchange: Exchange,
    sent: bool,
    answered: bool,
}

impl OpenRequest {
    /// `stream`: 0 for HTTP/1.
    pub(super) fn new(protocol: Protocol, stream: u32, method: &'static str, now: Instant) -> Self {
        Self {
            exchange: Exchange {
                protocol,
                stream,
                method,
                status: None,
                start: now,
                latency: None,
                duration: Duration::ZERO,
                sent: 0,
                received: 0,
            },
            sent: false,
            answered: false,
        }
    }

    /// Counts bytes of the body.
    pub(super) fn count(&mut self, from: MessageSender, n: u64) {
        match from {
            MessageSender::Client => self.exchange.sent += n,
            MessageSender::Server => self.exchange.received += n,
        }
    }

    /// The head of the answer has arrived.
    pub(super) fn responded(&mut self, now: Instant) {
        self.exchange.latency = Some(now.saturating_duration_since(self.exchange.start));
    }

    /// A direction is complete.
    pub(super) fn end(&mut self, from: MessageSender) {
        match from {
            MessageSender::Client => self.sent = true,
            MessageSender::Server => self.answered = true,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Both directions are complete.
    pub(super) fn is_over(&self) -> bool {
        self.sent && self.answered
    }

    pub(super) fn report(mut self, now: Instant, on_exchange: OnExchange<'_>) {
        self.exchange.duration = now.saturating_duration_since(self.exchange.start);
        on_exchange(self.exchange);
    }
}
