//! One connection of the hostile peer: frames out, and what the site has said so far.
//!
//! A polite connection answers what the site begins and attaches, gives credit, and keeps itself alive,
//! so that a program gets far without saying all that. Everything else is up to the program.

use super::words::{self, Hello};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use skupperd::amqp::{
    codec::Reader,
    frame::{self, Header},
    performative::{Attach, Begin, Detach, Flow, Performative, Role, Transfer},
};
use std::{
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Bytes that may wait for the site to read them. More are dropped, as frames of a program that
/// nobody reads say nothing.
const UNSENT: usize = 256 * 1024;
/// A polite connection has its own channel for each of the site's, from here on.
pub(super) const ANSWERS: u16 = 100;
/// Credit that a polite connection gives.
const CREDIT: u32 = 1000;
/// Frames of the site that are longer are not looked at.
const LONGEST: usize = 1 << 24;

pub(super) struct Peer {
    pipe: DuplexStream,
    unsent: BytesMut,
    input: BytesMut,
    /// Id with which it was opened.
    pub(super) id: String,
    pub(super) polite: bool,
    pub(super) reads: bool,
    /// The control links are there: it says HELLO when time passes.
    pub(super) says_hello: bool,
    pub(super) ended: bool,
    pub(super) next_delivery: u32,
    /// Channels and handles here of the site's sessions and links.
    channels: BTreeMap<u16, u16>,
    handles: BTreeMap<(u16, u32), u32>,
    /// The last delivery of the site, with its channel here.
    pub(super) site_delivery: Option<(u16, u32)>,
    /// Bytes and frames that were given to the pipe.
    pub(super) sent: usize,
    pub(super) frames: usize,
}

impl Peer {
    pub(super) fn new(pipe: DuplexStream, id: String) -> Self {
        Self {
            pipe,
            unsent: BytesMut::new(),
            input: BytesMut::new(),
            id,
            polite: true,
            reads: true,
            says_hello: false,
            ended: false,
            next_delivery: 0,
            channels: BTreeMap::new(),
            handles: BTreeMap::new(),
            site_delivery: None,
            sent: 0,
            frames: 0,
        }
    }

    // ---- out ----

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if self.unsent.len() + bytes.len() <= UNSENT {
            self.unsent.put_slice(bytes);
            self.frames += 1;
        }
    }

    /// A frame with this body, which may be none.
    pub(super) fn frame(&mut self, channel: u16, body: &[u8]) {
        let mut whole = BytesMut::with_capacity(frame::HEADER + body.len());
        frame::put(frame::AMQP, channel, body, &mut whole);
        self.bytes(&whole);
    }

    pub(super) fn put(&mut self, channel: u16, performative: &Performative, payload: &[u8]) {
        let mut body = BytesMut::new();
        performative.encode(&mut body);
        body.put_slice(payload);
        self.frame(channel, &body);
    }

    /// A whole delivery, settled, in frames of at most this many bytes.
    pub(super) fn message(&mut self, channel: u16, handle: u32, message: &[u8], piece: usize) {
        let id = self.delivery();
        let mut pieces = message.chunks(piece.max(1)).peekable();
        let mut first = true;
        while let Some(part) = pieces.next() {
            let transfer = Transfer {
                handle,
                delivery_id: first.then_some(id),
                delivery_tag: first.then(|| Bytes::copy_from_slice(&id.to_be_bytes())),
                settled: true,
                more: pieces.peek().is_some(),
                ..Transfer::default()
            };
            first = false;
            self.put(channel, &Performative::Transfer(transfer), part);
        }
    }

    /// A fresh id for a delivery.
    pub(super) fn delivery(&mut self) -> u32 {
        self.next_delivery = self.next_delivery.wrapping_add(1);
        self.next_delivery - 1
    }

    pub(super) fn attach(&mut self, channel: u16, attach: Attach) {
        self.put(channel, &Performative::Attach(Box::new(attach)), b"");
    }

    /// Detaches a link; the site's answer needs none.
    pub(super) fn detach(&mut self, channel: u16, detach: Detach) {
        let channels = &self.channels;
        let is_link = |(at, own): (&(u16, u32), &mut u32)| {
            channels.get(&at.0) == Some(&channel) && *own == detach.handle
        };
        self.handles.retain(|at, own| !is_link((at, own)));
        self.put(channel, &Performative::Detach(detach), b"");
    }

    pub(super) fn credit(&mut self, channel: u16, handle: u32, credit: u32) {
        let flow = Flow {
            next_incoming_id: Some(0),
            incoming_window: 1 << 20,
            outgoing_window: 1 << 20,
            handle: Some(handle),
            delivery_count: Some(0),
            link_credit: Some(credit),
            ..Flow::default()
        };
        self.put(channel, &Performative::Flow(flow), b"");
    }

    /// Attaches control links on channel 0 as an interior router does: handle 0 to the site, handle 1
    /// from it.
    pub(super) fn control_links(&mut self) {
        self.put(0, &Performative::Begin(words::begin(None)), b"");
        for (handle, role) in [(0, Role::Sender), (1, Role::Receiver)] {
            self.attach(0, words::attach(handle, role, None, Some("qd.router")));
        }
        self.credit(0, 1, CREDIT * 100);
        self.says_hello = true;
        self.hello();
    }

    /// Says HELLO, as the router that the connection was opened for.
    pub(super) fn hello(&mut self) {
        let hello = Hello {
            id: &self.id,
            instance: 7,
            seen: &[super::SITE],
        };
        let message = hello.encoded();
        self.message(0, 0, &message, usize::MAX);
    }

    /// Before a part of the time that passes.
    pub(super) fn keep_alive(&mut self) {
        if self.polite && self.says_hello {
            self.hello();
        } else if self.polite {
            self.frame(0, b"");
        }
    }

    /// Changes a byte that is on its way.
    pub(super) fn corrupt(&mut self, at: usize, by: u8) {
        let length = self.unsent.len();
        if let Some(byte) = self.unsent.get_mut(at % length.max(1)) {
            *byte ^= by;
        }
    }

    /// Gives the site what it takes. True: all of it.
    pub(super) fn flush(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.unsent.is_empty() && !self.ended {
            match Pin::new(&mut self.pipe).poll_write(&mut cx, &self.unsent) {
                Poll::Ready(Ok(n)) => {
                    self.sent += n;
                    self.unsent.advance(n);
                }
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Bytes that this side holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.unsent.capacity() + self.input.capacity()
    }

    // ---- in ----

    /// Reads what is there, unless the program has stopped that.
    pub(super) fn read(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut chunk = vec![0; 16 * 1024];
        while self.reads && !self.ended {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.pipe).poll_read(&mut cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => {
                    let filled = buf.filled();
                    self.input.extend_from_slice(filled);
                }
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => break,
            }
            self.parse();
        }
    }

    fn parse(&mut self) {
        loop {
            if self.input.starts_with(b"AMQP") && self.input.len() >= 8 {
                self.input.advance(8);
            }
            let Ok(Some(head)) = Header::parse(&self.input, LONGEST) else {
                return;
            };
            if self.input.len() < head.size {
                return;
            }
            let whole = self.input.split_to(head.size).freeze();
            let body = &whole[head.body..];
            if head.kind == frame::AMQP && !body.is_empty() {
                let performative = Performative::decode(&mut Reader::new(body));
                self.react(head.channel, performative.expect("a frame of the site"));
            }
        }
    }

    /// Answers what the site begins, if the connection is polite.
    fn react(&mut self, channel: u16, performative: Performative) {
        if let Performative::Begin(begin) = &performative {
            let own = channel.saturating_add(ANSWERS);
            self.channels
                .insert(channel, begin.remote_channel.unwrap_or(own));
        }
        let own = self.channels.get(&channel).copied().unwrap_or(channel);
        match performative {
            Performative::Close(_) if self.polite => {
                self.put(0, &Performative::Close(None), b"");
            }
            Performative::Begin(Begin {
                remote_channel: None,
                ..
            }) if self.polite => {
                let answer = words::begin(Some(channel));
                self.put(own, &Performative::Begin(answer), b"");
            }
            Performative::Attach(attach) if !attach.name.starts_with("qdlink") => {
                // An answer: the name of the link has its handle.
                let handle = attach.name.split('.').nth(1).and_then(|h| h.parse().ok());
                self.handles
                    .extend(handle.map(|h| ((channel, attach.handle), h)));
            }
            Performative::Attach(attach) if self.polite => {
                let (role, handle) = (attach.role, attach.handle);
                self.handles.insert((channel, handle), handle);
                let answer = Attach {
                    role: match role {
                        Role::Sender => Role::Receiver,
                        Role::Receiver => Role::Sender,
                    },
                    initial_delivery_count: (role == Role::Receiver).then_some(0),
                    ..*attach
                };
                self.attach(own, answer);
                if role == Role::Sender {
                    self.credit(own, handle, CREDIT);
                }
            }
            Performative::Detach(detach) => {
                let handle = self.handles.remove(&(channel, detach.handle));
                if let Some(handle) = handle.filter(|_| self.polite) {
                    let answer = Detach {
                        handle,
                        closed: detach.closed,
                        error: None,
                    };
                    self.put(own, &Performative::Detach(answer), b"");
                }
            }
            Performative::Transfer(Transfer {
                delivery_id: Some(id),
                ..
            }) => self.site_delivery = Some((own, id)),
            _ => {}
        }
    }
}
