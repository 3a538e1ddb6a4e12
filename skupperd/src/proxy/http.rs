//! What HTTP requests pass through a connection, told from copies of its bytes.
//!
//! Sans-I/O: an [`Observer`] is shown slices as they pass, in any pieces, and tells of each request
//! when it is over. It owns no payload, changes nothing and keeps a bounded amount of state; what it
//! does not understand ends the observation and not the connection.

mod h1;
mod h2;
mod hpack;

use crate::link::ledger::{Exchange, Unseen};
use std::time::Instant;

/// What HTTP/2 begins with (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods that are told by their names: RFC 9110, 5789 and those of WebDAV (4918, 3253, 5323).
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

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Whatever the client's first bytes look like.
    Auto,
    /// HTTP/1
    Http1,
    /// HTTP/2
    Http2,
}

/// Who has sent what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Client,
    Server,
}

/// Where requests are told that are over.
pub(crate) type Told<'a> = &'a mut dyn FnMut(Exchange);

enum State {
    /// The client's first bytes.
    First(Look, Vec<u8>),
    H1(h1::Connection),
    H2(Box<h2::Connection>),
}

/// What the first bytes say.
enum Guess {
    More,
    H1,
    H2,
    Neither,
}

/// Nothing more is to be seen: with a reason when it began as something that is observed.
pub(crate) type Over = Option<Unseen>;

/// Observes one connection.
pub(crate) struct Observer(State);

fn guess(look: Look, first: &[u8]) -> Guess {
    let begins = |whole: &[u8]| whole.starts_with(first) || first.starts_with(whole);
    if look != Look::Http1 && begins(PREFACE) {
        return match first.len() < PREFACE.len() {
            true => Guess::More,
            false => Guess::H2,
        };
    }
    match look {
        // A parser says better what is wrong.
        Look::Http1 => Guess::H1,
        Look::Http2 => Guess::H2,
        Look::Auto => {
            let word = first.iter().position(|b| *b == b' ');
            let word = &first[..word.unwrap_or(first.len())];
            let whole = word.len() < first.len();
            let fits = |m: &&str| match whole {
                true => m.as_bytes() == word,
                false => m.as_bytes().starts_with(word),
            };
            match (METHODS.iter().any(fits), whole) {
                (false, _) => Guess::Neither,
                (true, true) => Guess::H1,
                (true, false) => Guess::More,
            }
        }
    }
}

impl Observer {
    pub(crate) fn new(look: Look) -> Self {
        Self(State::First(look, Vec::new()))
    }

    /// Shows bytes that have passed. An error: nothing more is seen here.
    pub(crate) fn see(
        &mut self,
        from: Speaker,
        mut data: &[u8],
        now: Instant,
        told: Told<'_>,
    ) -> Result<(), Over> {
        if let State::First(look, first) = &mut self.0 {
            // HTTP's servers wait for their clients.
            if from == Speaker::Server {
                return match (data.is_empty(), *look) {
                    (true, _) => Ok(()),
                    // HTTP/2's may send their settings at once.
                    (false, Look::Http2) => self.begin(Guess::H2, now, told, (from, data)),
                    (false, Look::Auto) => Err(None),
                    (false, Look::Http1) => Err(Some(Unseen::Malformed)),
                };
            }
            let part = data.len().min(PREFACE.len() - first.len());
            let (begin, rest) = data.split_at(part);
            first.extend_from_slice(begin);
            data = rest;
            if first.is_empty() {
                return Ok(());
            }
            let guess = guess(*look, first);
            return self.begin(guess, now, told, (from, data));
        }
        match &mut self.0 {
            State::First(..) => Ok(()),
            State::H1(h1) => h1.see(from, data, now, told),
            State::H2(h2) => h2.see(from, data, now, told),
        }
        .map_err(Some)
    }

    fn begin(
        &mut self,
        guess: Guess,
        now: Instant,
        told: Told<'_>,
        (from, rest): (Speaker, &[u8]),
    ) -> Result<(), Over> {
        let next = match guess {
            Guess::More => return Ok(()),
            Guess::Neither => return Err(None),
            Guess::H1 => State::H1(h1::Connection::default()),
            Guess::H2 => State::H2(Box::default()),
        };
        if let State::First(_, first) = std::mem::replace(&mut self.0, next) {
            self.see(Speaker::Client, &first, now, told)?;
        }
        self.see(from, rest, now, told)
    }

    /// One way has ended in order.
    pub(crate) fn end(&mut self, from: Speaker, now: Instant, told: Told<'_>) {
        if let State::H1(h1) = &mut self.0 {
            h1.end(from, now, told);
        }
    }

    /// The connection is over, or its observation is: what has begun is told as far as it came.
    pub(crate) fn finish(&mut self, now: Instant, told: Told<'_>) {
        match &mut self.0 {
            State::First(..) => {}
            State::H1(h1) => h1.finish(now, told),
            State::H2(h2) => h2.finish(now, told),
        }
    }
}

/// A method as it is told; none: it can not be one.
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
