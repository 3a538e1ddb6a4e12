//! Reports the HTTP requests of a connection from its bytes, sans-I/O.
//!
//! The proxy makes an [`HttpObserver`] for each connection of a listener that observes, and calls it in
//! the worker's thread with the bytes that it has just moved: [`HttpObserver::observe`] with slices of
//! any length, [`HttpObserver::end`] for the end of a direction, [`HttpObserver::finish`] once for the
//! rest. Each request is reported as an [`Exchange`] when it and its response are over.
//!
//! States: the first bytes decide about the protocol, up to 24 of them; then it is HTTP/1 (`h1`) or
//! HTTP/2 (`h2`, with `hpack`) until the end. An error ends the observation. The connection goes on:
//! after an error the caller drops the observer.
//!
//! The parser is our own because libraries of HTTP own the socket, copy bodies or keep headers. This one
//! skips bodies by their length and keeps of a header only method, status and length. A connection
//! takes at most 1 MiB (1024 streams of HTTP/2 with full tables), whatever is sent; the fuzz target
//! `observer` checks that.
//!
//! It never changes, delays or keeps payload, never reads a clock or a socket, and never logs.

mod h1;
mod h2;
mod hpack;
mod request;

use crate::flows::{Exchange, StopReason};
use std::time::Instant;

/// What HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods that are reported by their names: RFC 9110, 5789 and those of WebDAV (4918, 3253, 5323).
const METHODS: [&str; 18] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];
/// Any other method.
const OTHER: &str = "OTHER";

/// Protocol to observe, from the `observer` of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedProtocol {
    /// The protocol of the client's first bytes.
    Auto,
    Http1,
    Http2,
}

/// Sender of observed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSender {
    Client,
    Server,
}

/// Called with each request that is over.
pub type OnExchange<'a> = &'a mut dyn FnMut(Exchange);

enum ObserverState {
    /// The client's first bytes.
    First(ExpectedProtocol, Vec<u8>),
    H1(h1::Http1Connection),
    H2(Box<h2::Http2Connection>),
}

/// Protocol that the first bytes belong to.
enum DetectedProtocol {
    More,
    H1,
    H2,
    Neither,
}

type ObserveResult<T = ()> = Result<T, StopReason>;

/// Why observation ended; `None` for connections without HTTP.
pub type ObservedEnd = Option<StopReason>;

/// Observes one connection.
pub struct HttpObserver(ObserverState);

fn detect_protocol(expected: ExpectedProtocol, first: &[u8]) -> DetectedProtocol {
    let begins = |whole: &[u8]| whole.starts_with(first) || first.starts_with(whole);
    if expected != ExpectedProtocol::Http1 && begins(PREFACE) {
        return match first.len() < PREFACE.len() {
            true => DetectedProtocol::More,
            false => DetectedProtocol::H2,
        };
    }
    match expected {
        // The parser reports what is malformed.
        ExpectedProtocol::Http1 => DetectedProtocol::H1,
        ExpectedProtocol::Http2 => DetectedProtocol::H2,
        ExpectedProtocol::Auto => {
            let word = first.iter().position(|b| *b == b' ');
            let word = &first[..word.unwrap_or(first.len())];
            let whole = word.len() < first.len();
            let fits = |m: &&str| match whole {
                true => m.as_bytes() == word,
                false => m.as_bytes().starts_with(word),
            };
            match (METHODS.iter().any(fits), whole) {
                (false, _) => DetectedProtocol::Neither,
                (true, true) => DetectedProtocol::H1,
                (true, false) => DetectedProtocol::More,
            }
        }
    }
}

impl HttpObserver {
    pub fn new(expected: ExpectedProtocol) -> Self {
        Self(ObserverState::First(expected, Vec::new()))
    }

    /// Reads bytes that have passed. An error ends the observation.
    pub fn observe(
        &mut self,
        from: MessageSender,
        mut data: &[u8],
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> Result<(), ObservedEnd> {
        if let ObserverState::First(expected, first) = &mut self.0 {
            // HTTP's servers wait for their clients.
            if from == MessageSender::Server {
                return match (data.is_empty(), *expected) {
                    (true, _) => Ok(()),
                    // HTTP/2's may send their settings at once.
                    (false, ExpectedProtocol::Http2) => {
                        self.begin(DetectedProtocol::H2, now, on_exchange, (from, data))
                    }
                    (false, ExpectedProtocol::Auto) => Err(None),
                    (false, ExpectedProtocol::Http1) => Err(Some(StopReason::Malformed)),
                };
            }
            let part = data.len().min(PREFACE.len() - first.len());
            let (begin, rest) = data.split_at(part);
            first.extend_from_slice(begin);
            data = rest;
            if first.is_empty() {
                return Ok(());
            }
            let detected = detect_protocol(*expected, first);
            return self.begin(detected, now, on_exchange, (from, data));
        }
        match &mut self.0 {
            ObserverState::First(..) => Ok(()),
            ObserverState::H1(h1) => h1.observe(from, data, now, on_exchange),
            ObserverState::H2(h2) => h2.observe(from, data, now, on_exchange),
        }
        .map_err(Some)
    }

    fn begin(
        &mut self,
        guess: DetectedProtocol,
        now: Instant,
        on_exchange: OnExchange<'_>,
        (from, rest): (MessageSender, &[u8]),
    ) -> Result<(), ObservedEnd> {
        let next = match guess {
            DetectedProtocol::More => return Ok(()),
            DetectedProtocol::Neither => return Err(None),
            DetectedProtocol::H1 => ObserverState::H1(h1::Http1Connection::default()),
            DetectedProtocol::H2 => ObserverState::H2(Box::default()),
        };
        if let ObserverState::First(_, first) = std::mem::replace(&mut self.0, next) {
            self.observe(MessageSender::Client, &first, now, on_exchange)?;
        }
        self.observe(from, rest, now, on_exchange)
    }

    /// A direction has ended without an error.
    pub fn end(&mut self, from: MessageSender, now: Instant, on_exchange: OnExchange<'_>) {
        if let ObserverState::H1(h1) = &mut self.0 {
            h1.end(from, now, on_exchange);
        }
    }

    /// Reports the requests that are not over when the connection or its observation ends.
    pub fn finish(&mut self, now: Instant, on_exchange: OnExchange<'_>) {
        match &mut self.0 {
            ObserverState::First(..) => {}
            ObserverState::H1(h1) => h1.finish(now, on_exchange),
            ObserverState::H2(h2) => h2.finish(now, on_exchange),
        }
    }
}

/// The name that a method is reported by; `None` if it is not a method.
fn method(name: &[u8]) -> Option<&'static str> {
    if let Some(known) = METHODS.iter().find(|m| m.as_bytes() == name) {
        return Some(known);
    }
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    (!name.is_empty() && name.iter().all(token)).then_some(OTHER)
}

/// A status of three digits.
fn status(text: &[u8]) -> Option<u16> {
    let digits: &[u8; 3] = text.try_into().ok()?;
    let number = digits.iter().try_fold(0u16, |n, d| {
        d.is_ascii_digit().then(|| n * 10 + u16::from(d - b'0'))
    });
    number.filter(|n| *n >= 100)
}

#[cfg(test)]
mod tests;
