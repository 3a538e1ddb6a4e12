//! HTTP/2 (RFC 9113): which streams carry requests, and when they end.

use super::{
    PREFACE, Speaker, Told,
    hpack::{Decoder, Field},
};
use crate::link::ledger::{Exchange, Protocol, Unseen};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Longest header block, compressed.
const BLOCK: usize = 64 * 1024;
/// Streams at once.
const STREAMS: usize = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

type Seen<T = ()> = Result<T, Unseen>;

/// A frame whose payload passes.
#[derive(Clone, Copy, Default)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes before its content that are still to come, and those that have been.
    prefix: usize,
    /// Of the content, then of the padding.
    content: usize,
    padding: usize,
}

/// A header block that is not complete.
struct Block {
    stream: u32,
    ends: bool,
    /// It is of a request that the server has promised.
    promised: bool,
}

/// One direction.
#[derive(Default)]
struct Way {
    greeted: usize,
    /// The first frame has been.
    settled: bool,
    head: [u8; 9],
    filled: usize,
    frame: Option<Frame>,
    block: Option<Block>,
    bytes: Vec<u8>,
    decoder: Decoder,
}

struct Stream {
    exchange: Exchange,
    sent: bool,
    answered: bool,
}

/// A connection.
#[derive(Default)]
pub(super) struct Connection {
    client: Way,
    server: Way,
    streams: HashMap<u32, Stream>,
    /// The newest request.
    newest: u32,
}

impl Connection {
    fn way(&mut self, from: Speaker) -> &mut Way {
        match from {
            Speaker::Client => &mut self.client,
            Speaker::Server => &mut self.server,
        }
    }

    pub(super) fn see(
        &mut self,
        from: Speaker,
        mut data: &[u8],
        now: Instant,
        told: Told<'_>,
    ) -> Seen {
        if from == Speaker::Client && self.client.greeted < PREFACE.len() {
            let left = &PREFACE[self.client.greeted..];
            let part = left.len().min(data.len());
            if data[..part] != left[..part] {
                return Err(Unseen::Malformed);
            }
            self.client.greeted += part;
            data = &data[part..];
        }
        while !data.is_empty() {
            let way = self.way(from);
            let Some(frame) = &mut way.frame else {
                let part = (way.head.len() - way.filled).min(data.len());
                way.head[way.filled..way.filled + part].copy_from_slice(&data[..part]);
                way.filled += part;
                data = &data[part..];
                if way.filled == way.head.len() {
                    way.filled = 0;
                    self.begin(from, now, told)?;
                }
                continue;
            };
            if frame.prefix > 0 {
                // Only the first byte says something: how much padding there is.
                if frame.flags & PADDED != 0 {
                    frame.flags &= !PADDED;
                    frame.padding = usize::from(data[0]);
                    let content = frame.content.checked_sub(frame.padding);
                    frame.content = content.ok_or(Unseen::Malformed)?;
                }
                frame.prefix -= 1;
                data = &data[1..];
            } else if frame.content > 0 {
                let part = frame.content.min(data.len());
                frame.content -= part;
                let (frame, content) = (*frame, &data[..part]);
                data = &data[part..];
                self.content(from, frame, content)?;
            } else {
                let part = frame.padding.min(data.len());
                frame.padding -= part;
                data = &data[part..];
            }
            self.end_frame(from, now, told)?;
        }
        Ok(())
    }

    /// The head of a frame is there.
    fn begin(&mut self, from: Speaker, now: Instant, told: Told<'_>) -> Seen {
        let way = self.way(from);
        // Three bytes of length, type, flags, four bytes of stream without the first bit (4.1).
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b));
        let (length, kind, flags) = (number(&way.head[..3]) as usize, way.head[3], way.head[4]);
        let stream = number(&way.head[5..]) & 0x7fff_ffff;
        let padded = matches!(kind, DATA | HEADERS | PUSH_PROMISE);
        let flags = if padded { flags } else { flags & !PADDED };
        let mut prefix = usize::from(flags & PADDED != 0);
        prefix += match kind {
            HEADERS if flags & PRIORITY != 0 => 5,
            PUSH_PROMISE => 4,
            _ => 0,
        };
        let content = length.checked_sub(prefix).ok_or(Unseen::Malformed)?;
        // Each side begins with its settings (3.4).
        if !std::mem::replace(&mut way.settled, true) && kind != SETTINGS {
            return Err(Unseen::Malformed);
        }
        // Nothing may come between the parts of a block.
        let goes_on = way.block.as_ref().map(|block| block.stream);
        if goes_on != (kind == CONTINUATION).then_some(stream) {
            return Err(Unseen::Malformed);
        }
        if kind == HEADERS || kind == PUSH_PROMISE {
            way.block = Some(Block {
                stream,
                ends: kind == HEADERS && flags & END_STREAM != 0,
                promised: kind == PUSH_PROMISE,
            });
        }
        way.frame = Some(Frame {
            kind,
            flags,
            stream,
            prefix,
            content,
            padding: 0,
        });
        self.end_frame(from, now, told)
    }

    fn content(&mut self, from: Speaker, frame: Frame, content: &[u8]) -> Seen {
        match frame.kind {
            DATA => {
                if let Some(Stream { exchange, .. }) = self.streams.get_mut(&frame.stream) {
                    match from {
                        Speaker::Client => exchange.sent += content.len() as u64,
                        Speaker::Server => exchange.received += content.len() as u64,
                    }
                }
            }
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                let bytes = &mut self.way(from).bytes;
                if bytes.len() + content.len() > BLOCK {
                    return Err(Unseen::Limit);
                }
                bytes.extend_from_slice(content);
            }
            _ => {}
        }
        Ok(())
    }

    /// Does what a frame says, once all of it has passed.
    fn end_frame(&mut self, from: Speaker, now: Instant, told: Told<'_>) -> Seen {
        let way = self.way(from);
        let over = |f: &mut Frame| f.prefix == 0 && f.content == 0 && f.padding == 0;
        let Some(frame) = way.frame.take_if(over) else {
            return Ok(());
        };
        match frame.kind {
            DATA if frame.flags & END_STREAM != 0 => self.ended(from, frame.stream, now, told),
            HEADERS | PUSH_PROMISE | CONTINUATION if frame.flags & END_HEADERS != 0 => {
                self.headers(from, now, told)?;
            }
            RST_STREAM => {
                if let Some(stream) = self.streams.remove(&frame.stream) {
                    tell(stream, now, told);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A header block is complete.
    fn headers(&mut self, from: Speaker, now: Instant, told: Told<'_>) -> Seen {
        let way = self.way(from);
        let Some(block) = way.block.take() else {
            return Err(Unseen::Malformed);
        };
        let (mut method, mut status) = (None, None);
        let read = way.decoder.block(&way.bytes, |field| match field {
            Field::Method(name) => method = Some(name),
            Field::Status(code) => status = Some(code),
            Field::Other => {}
        });
        way.bytes.clear();
        way.bytes.shrink_to(4096);
        read?;
        if block.promised {
            return Ok(());
        }
        let id = block.stream;
        match from {
            // Trailers and what comes after a reset have no method, or an id that was there before.
            Speaker::Client if id > self.newest && id % 2 == 1 => {
                self.newest = id;
                self.request(id, method.ok_or(Unseen::Malformed)?, now)?;
            }
            Speaker::Client => {}
            Speaker::Server => {
                let stream = self.streams.get_mut(&id);
                // Those that say that there is another to come are not what was asked for.
                if let (Some(stream), Some(status)) = (stream, status.filter(|s| *s >= 200))
                    && stream.exchange.status.is_none()
                {
                    let exchange = &mut stream.exchange;
                    exchange.status = Some(status);
                    exchange.latency = Some(now.saturating_duration_since(exchange.start));
                }
            }
        }
        if block.ends {
            self.ended(from, id, now, told);
        }
        Ok(())
    }

    fn request(&mut self, stream: u32, method: &'static str, now: Instant) -> Seen {
        if self.streams.len() >= STREAMS {
            return Err(Unseen::Limit);
        }
        let exchange = Exchange {
            protocol: Protocol::Http2,
            stream,
            method,
            status: None,
            start: now,
            latency: None,
            duration: Duration::ZERO,
            sent: 0,
            received: 0,
        };
        let stream = Stream {
            exchange,
            sent: false,
            answered: false,
        };
        self.streams.insert(stream.exchange.stream, stream);
        Ok(())
    }

    /// One way of a stream has ended.
    fn ended(&mut self, from: Speaker, id: u32, now: Instant, told: Told<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match from {
            Speaker::Client => stream.sent = true,
            Speaker::Server => stream.answered = true,
        }
        if stream.sent
            && stream.answered
            && let Some(stream) = self.streams.remove(&id)
        {
            tell(stream, now, told);
        }
    }

    pub(super) fn finish(&mut self, now: Instant, told: Told<'_>) {
        let mut left: Vec<Stream> = self.streams.drain().map(|(_, stream)| stream).collect();
        left.sort_by_key(|stream| stream.exchange.stream);
        for stream in left {
            tell(stream, now, told);
        }
    }
}

fn tell(stream: Stream, now: Instant, told: Told<'_>) {
    let mut exchange = stream.exchange;
    exchange.duration = now.saturating_duration_since(exchange.start);
    told(exchange);
}
