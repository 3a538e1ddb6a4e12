//! HTTP/2 (RFC 9113): which streams carry requests, and when they end.

use super::{
    MessageSender, ObserveResult, OnExchange, PREFACE,
    hpack::{Decoder, HeaderField},
    request::OpenRequest,
};
use crate::flows::{Protocol, StopReason};
use std::{collections::HashMap, time::Instant};

/// Longest header block, compressed.
const MAX_BLOCK: usize = 64 * 1024;
/// Streams at once.
const MAX_STREAMS: usize = 1024;

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

#[derive(Default)]
struct Http2Direction {
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

#[derive(Default)]
pub(super) struct Http2Connection {
    client: Http2Direction,
    server: Http2Direction,
    streams: HashMap<u32, OpenRequest>,
    /// The newest request.
    newest: u32,
}

impl Http2Connection {
    fn direction(&mut self, from: MessageSender) -> &mut Http2Direction {
        match from {
            MessageSender::Client => &mut self.client,
            MessageSender::Server => &mut self.server,
        }
    }

    pub(super) fn observe(
        &mut self,
        from: MessageSender,
        mut data: &[u8],
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> ObserveResult {
        if from == MessageSender::Client && self.client.greeted < PREFACE.len() {
            let left = &PREFACE[self.client.greeted..];
            let part = left.len().min(data.len());
            if data[..part] != left[..part] {
                return Err(StopReason::Malformed);
            }
            self.client.greeted += part;
            data = &data[part..];
        }
        while !data.is_empty() {
            let direction = self.direction(from);
            let Some(frame) = &mut direction.frame else {
                let part = (direction.head.len() - direction.filled).min(data.len());
                direction.head[direction.filled..direction.filled + part]
                    .copy_from_slice(&data[..part]);
                direction.filled += part;
                data = &data[part..];
                if direction.filled == direction.head.len() {
                    direction.filled = 0;
                    self.begin(from, now, on_exchange)?;
                }
                continue;
            };
            if frame.prefix > 0 {
                // Only the first byte is used: the length of the padding.
                if frame.flags & PADDED != 0 {
                    frame.flags &= !PADDED;
                    frame.padding = usize::from(data[0]);
                    let content = frame.content.checked_sub(frame.padding);
                    frame.content = content.ok_or(StopReason::Malformed)?;
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
            self.end_frame(from, now, on_exchange)?;
        }
        Ok(())
    }

    /// The head of a frame is complete.
    fn begin(
        &mut self,
        from: MessageSender,
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> ObserveResult {
        let direction = self.direction(from);
        // Three bytes of length, type, flags, four bytes of stream without the first bit (4.1).
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b));
        let (length, kind, flags) = (
            number(&direction.head[..3]) as usize,
            direction.head[3],
            direction.head[4],
        );
        let stream = number(&direction.head[5..]) & 0x7fff_ffff;
        let padded = matches!(kind, DATA | HEADERS | PUSH_PROMISE);
        let flags = if padded { flags } else { flags & !PADDED };
        let mut prefix = usize::from(flags & PADDED != 0);
        prefix += match kind {
            HEADERS if flags & PRIORITY != 0 => 5,
            PUSH_PROMISE => 4,
            _ => 0,
        };
        let content = length.checked_sub(prefix).ok_or(StopReason::Malformed)?;
        // Each side begins with its settings (3.4).
        if !std::mem::replace(&mut direction.settled, true) && kind != SETTINGS {
            return Err(StopReason::Malformed);
        }
        // Nothing may come between the parts of a block.
        let goes_on = direction.block.as_ref().map(|block| block.stream);
        if goes_on != (kind == CONTINUATION).then_some(stream) {
            return Err(StopReason::Malformed);
        }
        if kind == HEADERS || kind == PUSH_PROMISE {
            direction.block = Some(Block {
                stream,
                ends: kind == HEADERS && flags & END_STREAM != 0,
                promised: kind == PUSH_PROMISE,
            });
        }
        direction.frame = Some(Frame {
            kind,
            flags,
            stream,
            prefix,
            content,
            padding: 0,
        });
        self.end_frame(from, now, on_exchange)
    }

    fn content(&mut self, from: MessageSender, frame: Frame, content: &[u8]) -> ObserveResult {
        match frame.kind {
            DATA => {
                if let Some(request) = self.streams.get_mut(&frame.stream) {
                    request.count(from, content.len() as u64);
                }
            }
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                let bytes = &mut self.direction(from).bytes;
                if bytes.len() + content.len() > MAX_BLOCK {
                    return Err(StopReason::Limit);
                }
                bytes.extend_from_slice(content);
            }
            _ => {}
        }
        Ok(())
    }

    /// Handles a frame when all of it has passed.
    fn end_frame(
        &mut self,
        from: MessageSender,
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> ObserveResult {
        let direction = self.direction(from);
        let over = |f: &mut Frame| f.prefix == 0 && f.content == 0 && f.padding == 0;
        let Some(frame) = direction.frame.take_if(over) else {
            return Ok(());
        };
        match frame.kind {
            DATA if frame.flags & END_STREAM != 0 => {
                self.ended(from, frame.stream, now, on_exchange);
            }
            HEADERS | PUSH_PROMISE | CONTINUATION if frame.flags & END_HEADERS != 0 => {
                self.headers(from, now, on_exchange)?;
            }
            RST_STREAM => {
                if let Some(stream) = self.streams.remove(&frame.stream) {
                    stream.report(now, on_exchange);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A header block is complete.
    fn headers(
        &mut self,
        from: MessageSender,
        now: Instant,
        on_exchange: OnExchange<'_>,
    ) -> ObserveResult {
        let direction = self.direction(from);
        let Some(block) = direction.block.take() else {
            return Err(StopReason::Malformed);
        };
        let (mut method, mut status) = (None, None);
        let read = direction
            .decoder
            .block(&direction.bytes, |field| match field {
                HeaderField::Method(name) => method = Some(name),
                HeaderField::Status(code) => status = Some(code),
                HeaderField::Other => {}
            });
        direction.bytes.clear();
        direction.bytes.shrink_to(4096);
        read?;
        if block.promised {
            return Ok(());
        }
        let id = block.stream;
        match from {
            // Trailers and what comes after a reset have no method, or an id that was there before.
            MessageSender::Client if id > self.newest && id % 2 == 1 => {
                self.newest = id;
                self.request(id, method.ok_or(StopReason::Malformed)?, now)?;
            }
            MessageSender::Client => {}
            MessageSender::Server => {
                let stream = self.streams.get_mut(&id);
                // An interim answer (1xx) is followed by the final one.
                if let (Some(stream), Some(status)) = (stream, status.filter(|s| *s >= 200))
                    && stream.exchange.status.is_none()
                {
                    stream.exchange.status = Some(status);
                    stream.responded(now);
                }
            }
        }
        if block.ends {
            self.ended(from, id, now, on_exchange);
        }
        Ok(())
    }

    fn request(&mut self, stream: u32, method: &'static str, now: Instant) -> ObserveResult {
        if self.streams.len() >= MAX_STREAMS {
            return Err(StopReason::Limit);
        }
        let request = OpenRequest::new(Protocol::Http2, stream, method, now);
        self.streams.insert(stream, request);
        Ok(())
    }

    /// A direction of a stream has ended.
    fn ended(&mut self, from: MessageSender, id: u32, now: Instant, on_exchange: OnExchange<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.end(from);
        if stream.is_over()
            && let Some(stream) = self.streams.remove(&id)
        {
            stream.report(now, on_exchange);
        }
    }

    pub(super) fn finish(&mut self, now: Instant, on_exchange: OnExchange<'_>) {
        let mut left: Vec<OpenRequest> = self.streams.drain().map(|(_, stream)| stream).collect();
        left.sort_by_key(|stream| stream.exchange.stream);
        for stream in left {
            stream.report(now, on_exchange);
        }
    }
}
