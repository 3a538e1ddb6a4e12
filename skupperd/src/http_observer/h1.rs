//! HTTP/1.0 and 1.1 (RFC 9112): where messages begin and end, and nothing else of them.

use super::{MessageSender, ObserveResult, OnExchange, request::OpenRequest};
use crate::flows::{Protocol, StopReason};
use std::{collections::VecDeque, time::Instant};

/// Stored bytes of a line. Longer lines are paths or cookies, which are not reported.
const MAX_LINE: usize = 1024;
/// Longest head, trailers included.
const MAX_HEAD: usize = 256 * 1024;
/// Requests that wait for their answers.
const MAX_PIPELINED: usize = 256;

/// Where in a message a direction is.
#[derive(Clone, Copy, Debug, Default)]
enum ParseState {
    #[default]
    First,
    Fields,
    /// Bytes of the body that are to come.
    Fixed(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// The body ends with the connection.
    Rest,
    /// After CONNECT, until its answer.
    Hold,
}

/// Header fields that frame the body.
#[derive(Default)]
struct BodyFraming {
    length: Option<u64>,
    coded: bool,
    chunked: bool,
}

impl BodyFraming {
    fn field(&mut self, line: &[u8]) -> ObserveResult {
        // A continuation of the field before.
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Ok(());
        }
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = line.split_at(colon.ok_or(StopReason::Malformed)?);
        let value = value[1..].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            // The same one may be there twice, also as a list.
            for part in value.split(|b| *b == b',') {
                let text = std::str::from_utf8(part.trim_ascii()).ok();
                let text = text.filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                let length = text.and_then(|t| t.parse().ok());
                let length: u64 = length.ok_or(StopReason::Malformed)?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(StopReason::Malformed);
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

#[derive(Default)]
struct Http1Direction {
    state: ParseState,
    line: Vec<u8>,
    /// Bytes of the head so far.
    head: usize,
    framing: BodyFraming,
}

impl Http1Direction {
    /// Takes bytes up to the end of a line. True: the line is complete, without its end.
    fn line(&mut self, data: &mut &[u8]) -> ObserveResult<bool> {
        let end = data.iter().position(|b| *b == b'\n');
        let part = end.map_or(data.len(), |at| at + 1);
        let (line, rest) = data.split_at(part);
        *data = rest;
        self.head += line.len();
        if self.head > MAX_HEAD {
            return Err(StopReason::Limit);
        }
        let room = MAX_LINE - self.line.len().min(MAX_LINE);
        self.line.extend_from_slice(&line[..line.len().min(room)]);
        // The end of a longer line is not stored.
        if self.line.pop_if(|b| *b == b'\n').is_some() {
            self.line.pop_if(|b| *b == b'\r');
        }
        Ok(end.is_some())
    }

    /// What comes after a head, or after the chunk before.
    fn body(&mut self, state: ParseState) {
        self.state = state;
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

#[derive(Default)]
pub(super) struct Http1Connection {
    client: Http1Direction,
    server: Http1Direction,
    requests: VecDeque<OpenRequest>,
}

/// What a line or the end of a body means.
enum Http1Event {
    None,
    Ended,
}

impl Http1Connection {
    pub(super) fn observe(
        &mut self,
        from: MessageSender,
        mut data: &[u8],
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> ObserveResult {
        while !data.is_empty() {
            let event = self.step(from, &mut data, now)?;
            if matches!(event, Http1Event::Ended) {
                self.ended(from, now, on_exchange)?;
            }
        }
        Ok(())
    }

    fn direction(&mut self, from: MessageSender) -> &mut Http1Direction {
        match from {
            MessageSender::Client => &mut self.client,
            MessageSender::Server => &mut self.server,
        }
    }

    /// The request or the answer that bytes belong to.
    fn current(&mut self, from: MessageSender) -> Option<&mut OpenRequest> {
        match from {
            MessageSender::Client => self.requests.back_mut(),
            MessageSender::Server => self.requests.front_mut(),
        }
    }

    fn count(&mut self, from: MessageSender, n: u64) {
        if let Some(request) = self.current(from) {
            request.count(from, n);
        }
    }

    fn step(
        &mut self,
        from: MessageSender,
        data: &mut &[u8],
        now: Instant,
    ) -> ObserveResult<Http1Event> {
        let direction = self.direction(from);
        match direction.state {
            ParseState::Fixed(left) | ParseState::Chunk(left) => {
                let part = left.min(data.len() as u64);
                *data = &data[part as usize..];
                let left = left - part;
                let chunk = matches!(direction.state, ParseState::Chunk(_));
                direction.state = match (chunk, left) {
                    (true, 0) => ParseState::ChunkEnd,
                    (true, left) => ParseState::Chunk(left),
                    (false, left) => ParseState::Fixed(left),
                };
                self.count(from, part);
                return Ok(match (chunk, left) {
                    (false, 0) => Http1Event::Ended,
                    _ => Http1Event::None,
                });
            }
            ParseState::Rest => {
                let n = data.len() as u64;
                *data = &[];
                self.count(from, n);
                return Ok(Http1Event::None);
            }
            ParseState::Hold => return Err(StopReason::Upgraded),
            _ => {}
        }
        if !direction.line(data)? {
            return Ok(Http1Event::None);
        }
        match direction.state {
            ParseState::First => self.first(from, now)?,
            ParseState::Fields if direction.line.is_empty() => return self.end_head(from),
            ParseState::Fields => {
                let line = std::mem::take(&mut direction.line);
                direction.framing.field(&line)?;
                direction.line = line;
                direction.line.clear();
            }
            ParseState::ChunkSize => {
                let size = chunk_size(&direction.line)?;
                direction.body(match size {
                    0 => ParseState::Trailers,
                    size => ParseState::Chunk(size),
                });
                // Of a body with chunks there is no end; of its head there is.
                direction.head = 0;
            }
            ParseState::ChunkEnd if direction.line.is_empty() => {
                direction.body(ParseState::ChunkSize);
            }
            ParseState::ChunkEnd => return Err(StopReason::Malformed),
            ParseState::Trailers if direction.line.is_empty() => return Ok(Http1Event::Ended),
            ParseState::Trailers => direction.line.clear(),
            ParseState::Fixed(_) | ParseState::Chunk(_) | ParseState::Rest | ParseState::Hold => {}
        }
        Ok(Http1Event::None)
    }

    /// The first line of a message.
    fn first(&mut self, from: MessageSender, now: Instant) -> ObserveResult {
        let direction = self.direction(from);
        let line = std::mem::take(&mut direction.line);
        // Some clients send an empty line after a body.
        if line.is_empty() && from == MessageSender::Client {
            return Ok(());
        }
        direction.state = ParseState::Fields;
        match from {
            MessageSender::Client => self.request(&line, now)?,
            MessageSender::Server => self.answer(&line, now)?,
        }
        let direction = self.direction(from);
        direction.line = line;
        direction.line.clear();
        Ok(())
    }

    fn request(&mut self, line: &[u8], now: Instant) -> ObserveResult {
        let blank = line.iter().position(|b| *b == b' ');
        let method = blank.and_then(|at| super::method(&line[..at]));
        let protocol = match line {
            _ if line.ends_with(b" HTTP/1.0") => Protocol::Http10,
            // One that is longer than what is kept has its end elsewhere.
            _ if line.ends_with(b" HTTP/1.1") || line.len() == MAX_LINE => Protocol::Http11,
            _ => return Err(StopReason::Malformed),
        };
        if self.requests.len() >= MAX_PIPELINED {
            return Err(StopReason::Limit);
        }
        let method = method.ok_or(StopReason::Malformed)?;
        let request = OpenRequest::new(protocol, 0, method, now);
        self.requests.push_back(request);
        Ok(())
    }

    fn answer(&mut self, line: &[u8], now: Instant) -> ObserveResult {
        let text = line.strip_prefix(b"HTTP/1.");
        let text = text.and_then(|t| t.split_first_chunk::<2>());
        let status = match text {
            Some(([minor, b' '], rest)) if minor.is_ascii_digit() => {
                let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
                super::status(&rest[..end])
            }
            _ => None,
        };
        let status = status.ok_or(StopReason::Malformed)?;
        let request = self.requests.front_mut().filter(|r| !r.is_answered());
        let request = request.ok_or(StopReason::Malformed)?;
        request.exchange.status = Some(status);
        // An interim answer (1xx) is followed by the final one.
        if status == 101 || status >= 200 {
            request.responded(now);
        }
        Ok(())
    }

    /// Chooses the state after a head.
    fn end_head(&mut self, from: MessageSender) -> ObserveResult<Http1Event> {
        let direction = self.direction(from);
        let framing = std::mem::take(&mut direction.framing);
        let (method, status) = match self.current(from) {
            Some(OpenRequest { exchange, .. }) => (exchange.method, exchange.status.unwrap_or(0)),
            None => return Err(StopReason::Malformed),
        };
        let at = match from {
            MessageSender::Server if status == 101 => return Err(StopReason::Upgraded),
            MessageSender::Server if status < 200 => {
                if let Some(OpenRequest { exchange, .. }) = self.current(from) {
                    exchange.status = None;
                }
                self.server.next();
                return Ok(Http1Event::None);
            }
            MessageSender::Server if method == "CONNECT" && status < 300 => {
                return Err(StopReason::Upgraded);
            }
            MessageSender::Server if method == "HEAD" || status == 204 || status == 304 => None,
            _ if framing.chunked => Some(ParseState::ChunkSize),
            MessageSender::Client if framing.coded => return Err(StopReason::Malformed),
            MessageSender::Server if framing.coded => Some(ParseState::Rest),
            MessageSender::Server if framing.length.is_none() => Some(ParseState::Rest),
            _ => framing.length.filter(|n| *n > 0).map(ParseState::Fixed),
        };
        match at {
            Some(at) => {
                self.direction(from).body(at);
                Ok(Http1Event::None)
            }
            None => Ok(Http1Event::Ended),
        }
    }

    /// A message is over.
    fn ended(
        &mut self,
        from: MessageSender,
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> ObserveResult {
        self.direction(from).next();
        let Some(request) = self.current(from) else {
            return Err(StopReason::Malformed);
        };
        request.end(from);
        if request.exchange.method == "CONNECT" {
            self.client.state = match from {
                MessageSender::Client => ParseState::Hold,
                MessageSender::Server => ParseState::First,
            };
        }
        if let Some(request) = self.requests.pop_front_if(|r| r.is_over()) {
            request.report(now, on_exchange);
        }
        Ok(())
    }

    /// A direction has ended: of a body without a length that is the end.
    pub(super) fn end(&mut self, from: MessageSender, now: Instant, on_exchange: OnExchange<'_>) {
        if matches!(self.direction(from).state, ParseState::Rest) {
            // `finish` reports a request that is not over.
            let _ = self.ended(from, now, on_exchange);
        }
    }

    pub(super) fn finish(&mut self, now: Instant, on_exchange: OnExchange<'_>) {
        for request in self.requests.drain(..) {
            request.report(now, on_exchange);
        }
    }
}

/// Length of a chunk, without its extensions.
fn chunk_size(line: &[u8]) -> ObserveResult<u64> {
    let end = line.iter().position(|b| *b == b';').unwrap_or(line.len());
    let text = std::str::from_utf8(line[..end].trim_ascii()).ok();
    let text = text.filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
    let size = text.and_then(|t| u64::from_str_radix(t, 16).ok());
    size.ok_or(StopReason::Malformed)
}
