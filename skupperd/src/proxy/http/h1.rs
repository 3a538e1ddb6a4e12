//! HTTP/1.0 and 1.1 (RFC 9112): where messages begin and end, and nothing else of them.

use super::{Speaker, Told};
use crate::link::ledger::{Exchange, Protocol, Unseen};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// As much of a line is kept. What is longer is a path or a cookie, and of no interest.
const KEPT: usize = 1024;
/// Longest head, trailers included.
const HEAD: usize = 256 * 1024;
/// Requests that wait for their answers.
const PIPELINED: usize = 256;

type Seen<T = ()> = Result<T, Unseen>;

/// Where in a message a direction is.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    First,
    Fields,
    /// So many bytes of the body are to come.
    Fixed(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// The body goes on until the connection ends.
    Rest,
    /// After CONNECT, until the answer says what follows.
    Hold,
}

/// What fields say of the body.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    coded: bool,
    chunked: bool,
}

impl Framing {
    fn field(&mut self, line: &[u8]) -> Seen {
        // The field before goes on.
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Ok(());
        }
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = line.split_at(colon.ok_or(Unseen::Malformed)?);
        let value = value[1..].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            // The same one may be there twice, also as a list.
            for part in value.split(|b| *b == b',') {
                let text = std::str::from_utf8(part.trim_ascii()).ok();
                let text = text.filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                let length = text.and_then(|t| t.parse().ok());
                let length: u64 = length.ok_or(Unseen::Malformed)?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(Unseen::Malformed);
                }
                self.length = Some(length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|b| *b == b',').next().unwrap_or_default();
            self.coded = true;
            self.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
        Ok(())
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    at: At,
    line: Vec<u8>,
    /// Bytes of the head so far.
    head: usize,
    framing: Framing,
}

impl Way {
    /// Takes bytes up to the end of a line. True: it is there, without its end.
    fn line(&mut self, data: &mut &[u8]) -> Seen<bool> {
        let end = data.iter().position(|b| *b == b'\n');
        let part = end.map_or(data.len(), |at| at + 1);
        let (line, rest) = data.split_at(part);
        *data = rest;
        self.head += line.len();
        if self.head > HEAD {
            return Err(Unseen::Limit);
        }
        let room = KEPT - self.line.len().min(KEPT);
        self.line.extend_from_slice(&line[..line.len().min(room)]);
        // The end of a longer line is not kept.
        if self.line.pop_if(|b| *b == b'\n').is_some() {
            self.line.pop_if(|b| *b == b'\r');
        }
        Ok(end.is_some())
    }

    /// What comes after a head, or after the chunk before.
    fn body(&mut self, at: At) {
        self.at = at;
        self.line.clear();
    }

    /// The next message begins.
    fn next(&mut self) {
        *self = Self {
            line: std::mem::take(&mut self.line),
            ..Self::default()
        };
        self.line.clear();
    }
}

/// A request whose answer has not ended.
struct Request {
    exchange: Exchange,
    sent: bool,
    answered: bool,
}

/// A connection.
#[derive(Default)]
pub(super) struct Connection {
    client: Way,
    server: Way,
    requests: VecDeque<Request>,
}

/// What a line or the end of a body means.
enum Event {
    None,
    Ended,
}

impl Connection {
    pub(super) fn see(
        &mut self,
        from: Speaker,
        mut data: &[u8],
        now: Instant,
        told: Told<'_>,
    ) -> Seen {
        while !data.is_empty() {
            let event = self.step(from, &mut data, now)?;
            if matches!(event, Event::Ended) {
                self.ended(from, now, told)?;
            }
        }
        Ok(())
    }

    fn way(&mut self, from: Speaker) -> &mut Way {
        match from {
            Speaker::Client => &mut self.client,
            Speaker::Server => &mut self.server,
        }
    }

    /// The request or the answer that bytes belong to.
    fn current(&mut self, from: Speaker) -> Option<&mut Request> {
        match from {
            Speaker::Client => self.requests.back_mut(),
            Speaker::Server => self.requests.front_mut(),
        }
    }

    fn count(&mut self, from: Speaker, n: u64) {
        if let Some(Request { exchange, .. }) = self.current(from) {
            match from {
                Speaker::Client => exchange.sent += n,
                Speaker::Server => exchange.received += n,
            }
        }
    }

    fn step(&mut self, from: Speaker, data: &mut &[u8], now: Instant) -> Seen<Event> {
        let way = self.way(from);
        match way.at {
            At::Fixed(left) | At::Chunk(left) => {
                let part = left.min(data.len() as u64);
                *data = &data[part as usize..];
                let left = left - part;
                let chunk = matches!(way.at, At::Chunk(_));
                way.at = match (chunk, left) {
                    (true, 0) => At::ChunkEnd,
                    (true, left) => At::Chunk(left),
                    (false, left) => At::Fixed(left),
                };
                self.count(from, part);
                return Ok(match (chunk, left) {
                    (false, 0) => Event::Ended,
                    _ => Event::None,
                });
            }
            At::Rest => {
                let n = data.len() as u64;
                *data = &[];
                self.count(from, n);
                return Ok(Event::None);
            }
            At::Hold => return Err(Unseen::Upgraded),
            _ => {}
        }
        if !way.line(data)? {
            return Ok(Event::None);
        }
        match way.at {
            At::First => self.first(from, now)?,
            At::Fields if way.line.is_empty() => return self.headed(from),
            At::Fields => {
                let line = std::mem::take(&mut way.line);
                way.framing.field(&line)?;
                way.line = line;
                way.line.clear();
            }
            At::ChunkSize => {
                let size = chunk_size(&way.line)?;
                way.body(match size {
                    0 => At::Trailers,
                    size => At::Chunk(size),
                });
                // Of a body with chunks there is no end; of its head there is.
                way.head = 0;
            }
            At::ChunkEnd if way.line.is_empty() => way.body(At::ChunkSize),
            At::ChunkEnd => return Err(Unseen::Malformed),
            At::Trailers if way.line.is_empty() => return Ok(Event::Ended),
            At::Trailers => way.line.clear(),
            At::Fixed(_) | At::Chunk(_) | At::Rest | At::Hold => {}
        }
        Ok(Event::None)
    }

    /// The first line of a message.
    fn first(&mut self, from: Speaker, now: Instant) -> Seen {
        let way = self.way(from);
        let line = std::mem::take(&mut way.line);
        // Some clients send an empty line after a body.
        if line.is_empty() && from == Speaker::Client {
            return Ok(());
        }
        way.at = At::Fields;
        match from {
            Speaker::Client => self.request(&line, now)?,
            Speaker::Server => self.answer(&line, now)?,
        }
        let way = self.way(from);
        way.line = line;
        way.line.clear();
        Ok(())
    }

    fn request(&mut self, line: &[u8], now: Instant) -> Seen {
        let blank = line.iter().position(|b| *b == b' ');
        let method = blank.and_then(|at| super::method(&line[..at]));
        let protocol = match line {
            _ if line.ends_with(b" HTTP/1.0") => Protocol::Http10,
            // One that is longer than what is kept has its end elsewhere.
            _ if line.ends_with(b" HTTP/1.1") || line.len() == KEPT => Protocol::Http11,
            _ => return Err(Unseen::Malformed),
        };
        if self.requests.len() >= PIPELINED {
            return Err(Unseen::Limit);
        }
        self.requests.push_back(Request {
            exchange: Exchange {
                protocol,
                stream: 0,
                method: method.ok_or(Unseen::Malformed)?,
                status: None,
                start: now,
                latency: None,
                duration: Duration::ZERO,
                sent: 0,
                received: 0,
            },
            sent: false,
            answered: false,
        });
        Ok(())
    }

    fn answer(&mut self, line: &[u8], now: Instant) -> Seen {
        let text = line.strip_prefix(b"HTTP/1.");
        let text = text.and_then(|t| t.split_first_chunk::<2>());
        let status = match text {
            Some(([minor, b' '], rest)) if minor.is_ascii_digit() => {
                let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
                super::status(&rest[..end])
            }
            _ => None,
        };
        let status = status.ok_or(Unseen::Malformed)?;
        let request = self.requests.front_mut().filter(|r| !r.answered);
        let exchange = &mut request.ok_or(Unseen::Malformed)?.exchange;
        exchange.status = Some(status);
        // Those that say that there is another to come are not what was asked for.
        if status == 101 || status >= 200 {
            exchange.latency = Some(now.saturating_duration_since(exchange.start));
        }
        Ok(())
    }

    /// A head is over: what follows?
    fn headed(&mut self, from: Speaker) -> Seen<Event> {
        let way = self.way(from);
        let framing = std::mem::take(&mut way.framing);
        let (method, status) = match self.current(from) {
            Some(Request { exchange, .. }) => (exchange.method, exchange.status.unwrap_or(0)),
            None => return Err(Unseen::Malformed),
        };
        let at = match from {
            Speaker::Server if status == 101 => return Err(Unseen::Upgraded),
            Speaker::Server if status < 200 => {
                if let Some(Request { exchange, .. }) = self.current(from) {
                    exchange.status = None;
                }
                self.server.next();
                return Ok(Event::None);
            }
            Speaker::Server if method == "CONNECT" && status < 300 => return Err(Unseen::Upgraded),
            Speaker::Server if method == "HEAD" || status == 204 || status == 304 => None,
            _ if framing.chunked => Some(At::ChunkSize),
            Speaker::Client if framing.coded => return Err(Unseen::Malformed),
            Speaker::Server if framing.coded => Some(At::Rest),
            Speaker::Server if framing.length.is_none() => Some(At::Rest),
            _ => framing.length.filter(|n| *n > 0).map(At::Fixed),
        };
        match at {
            Some(at) => {
                self.way(from).body(at);
                Ok(Event::None)
            }
            None => Ok(Event::Ended),
        }
    }

    /// A message is over.
    fn ended(&mut self, from: Speaker, now: Instant, told: Told<'_>) -> Seen {
        self.way(from).next();
        let Some(request) = self.current(from) else {
            return Err(Unseen::Malformed);
        };
        match from {
            Speaker::Client => {
                request.sent = true;
                if request.exchange.method == "CONNECT" {
                    self.client.at = At::Hold;
                }
            }
            Speaker::Server => {
                request.answered = true;
                if request.exchange.method == "CONNECT" {
                    self.client.at = At::First;
                }
            }
        }
        if let Some(request) = self.requests.pop_front_if(|r| r.sent && r.answered) {
            tell(request, now, told);
        }
        Ok(())
    }

    /// A direction has ended: of a body without a length that is the end.
    pub(super) fn end(&mut self, from: Speaker, now: Instant, told: Told<'_>) {
        if matches!(self.way(from).at, At::Rest) {
            // A request that is still under way is told of at the end of everything.
            let _ = self.ended(from, now, told);
        }
    }

    pub(super) fn finish(&mut self, now: Instant, told: Told<'_>) {
        for request in self.requests.drain(..) {
            tell(request, now, told);
        }
    }
}

fn tell(request: Request, now: Instant, told: Told<'_>) {
    let mut exchange = request.exchange;
    exchange.duration = now.saturating_duration_since(exchange.start);
    told(exchange);
}

/// Length of a chunk, without its extensions.
fn chunk_size(line: &[u8]) -> Seen<u64> {
    let end = line.iter().position(|b| *b == b';').unwrap_or(line.len());
    let text = std::str::from_utf8(line[..end].trim_ascii()).ok();
    let text = text.filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
    let size = text.and_then(|t| u64::from_str_radix(t, 16).ok());
    size.ok_or(Unseen::Malformed)
}
