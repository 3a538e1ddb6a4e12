//! An AMQP connection as a state machine: bytes and time in, events and bytes out.
//!
//! A [`Connection`] owns everything that the two peers of one connection agree on: their `open`s, the
//! sessions with their windows, the links with their credit, the unsettled deliveries, and the control
//! frames that wait to be sent. It begins where TLS and SASL end.
//!
//! The handshake and the driver of a link call it: they pass received bytes to
//! [`receive`](Connection::receive) until it returns `None`, send what is in
//! [`output`](Connection::output), and call [`handle_timeout`](Connection::handle_timeout) when
//! [`poll_timeout`](Connection::poll_timeout) is due.
//!
//! States: until the peer's protocol header and `open` have come nothing else is accepted; then it is
//! open; after `close`, ours or the peer's, or after a [`ConnectionError`], the caller sends the output
//! and drops it. A session is begun by one side and established when the other has answered, a link
//! likewise; both end when both sides have ended them.
//!
//! Deliveries are cut through: the payload of a transfer is passed on as it arrives, in slices of the
//! input, and a delivery need never complete. For outgoing deliveries the caller sends the frames:
//! [`transfer_header`](Connection::transfer_header) writes the header of a payload.
//!
//! It never reads a clock or a socket, never keeps a delivery, and never holds more for a peer than
//! [`Limits`] allows. Addresses and the contents of messages mean nothing to it.

mod config;
mod credit;
mod event;
mod incoming;
mod links;
mod outgoing;
mod parser;
mod receive;
mod sessions;
mod settlement;
mod state;
#[cfg(test)]
mod tests;
mod unsettled;

use super::{
    frame,
    performative::{Error, Open, Performative},
};
use bytes::{BufMut, BytesMut};
pub use config::{AttachArgs, Config, LINK_BYTES, Limits, MAX_TRANSFER_HEADER};
pub use event::{ApiError, ConnectionError, DeliveryId, Event, LinkId, SessionId};
use parser::Parser;
pub use state::SESSION_WINDOW;
use state::{AmqpLink, MemoryTotals, Session};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What an unsettled delivery counts for: its entries in two tables.
const UNSETTLED_BYTES: usize = 64;

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    channel_max: u16,
    idle_timeout: Duration,
    remote: Option<Box<Open>>,
    output: BytesMut,
    sessions: Vec<Option<Session>>,
    free_sessions: Vec<u16>,
    /// Local channel + 1 by remote channel.
    channels: Vec<u16>,
    links: Vec<Option<AmqpLink>>,
    free_links: Vec<u32>,
    totals: MemoryTotals,
    parser: Parser,
    events: VecDeque<Event>,
    /// Largest frame in bytes, each direction.
    max_in: usize,
    max_out: usize,
    last_received: Instant,
    last_sent: Instant,
    next_tag: u64,
    closed: bool,
}

impl Connection {
    /// A connection whose protocol header and open are in the output.
    pub fn new(cfg: Config, now: Instant) -> Self {
        let open = Open {
            container_id: cfg.container_id,
            hostname: cfg.hostname,
            max_frame_size: Some(cfg.max_frame_size),
            channel_max: Some(cfg.channel_max),
            idle_time_out: u32::try_from(cfg.idle_timeout.as_millis()).ok(),
            offered_capabilities: cfg.capabilities.clone(),
            desired_capabilities: cfg.capabilities,
            properties: cfg.properties,
            ..Open::default()
        };
        let mut this = Self {
            limits: cfg.limits,
            channel_max: cfg.channel_max,
            idle_timeout: cfg.idle_timeout,
            remote: None,
            output: BytesMut::from(&frame::AMQP_HEADER[..]),
            sessions: Vec::new(),
            free_sessions: Vec::new(),
            channels: Vec::new(),
            links: Vec::new(),
            free_links: Vec::new(),
            totals: MemoryTotals::default(),
            parser: Parser::default(),
            events: VecDeque::new(),
            max_in: cfg.max_frame_size as usize,
            max_out: frame::MIN_MAX_FRAME,
            last_received: now,
            last_sent: now,
            next_tag: 0,
            closed: false,
        };
        this.put(0, &Performative::Open(Box::new(open)));
        this
    }

    /// The peer's open, once it has come.
    pub fn remote(&self) -> Option<&Open> {
        self.remote.as_deref()
    }

    /// Allows frames of this size in both directions, whatever the two `open`s say.
    pub fn raise_max_frame_size(&mut self, max_frame: u32) {
        self.max_in = self.max_in.max(max_frame as usize);
        self.max_out = self.max_out.max(max_frame as usize);
    }

    /// Control frames to be sent before any further transfer.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Bytes that the peer makes this engine keep: its links, and deliveries that are not settled.
    pub fn held_bytes(&self) -> usize {
        let unsettled = self.totals.outgoing + self.totals.incoming;
        self.totals.link_bytes + unsettled * UNSETTLED_BYTES + self.output.capacity()
    }

    /// Most payload in one transfer frame.
    pub fn max_payload(&self) -> usize {
        self.max_out - MAX_TRANSFER_HEADER
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.last_received + self.idle_timeout * 2;
        Some(self.heartbeat().map_or(silent, |at| silent.min(at)))
    }

    fn heartbeat(&self) -> Option<Instant> {
        let millis = self.remote.as_ref()?.idle_time_out.filter(|t| *t > 0)?;
        Some(self.last_sent + Duration::from_millis(u64::from(millis)) / 2)
    }

    /// Sends a heartbeat when one is due, or ends a connection whose peer is silent.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if now >= self.last_received + self.idle_timeout * 2 {
            let silent = self.idle_timeout * 2;
            return Err(self.violation(
                "amqp:resource-limit-exceeded",
                format!("nothing received for {} s", silent.as_secs()),
            ));
        }
        if self.heartbeat().is_some_and(|at| now >= at) {
            frame::put(frame::AMQP, 0, &[], &mut self.output);
            self.last_sent = now;
        }
        Ok(())
    }

    /// The caller has sent something: the next heartbeat is due later.
    pub fn note_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub fn close(&mut self, error: Option<Error>) {
        if !std::mem::replace(&mut self.closed, true) {
            self.put(0, &Performative::Close(error));
        }
    }

    /// Appends a frame with this performative to the output.
    fn put(&mut self, channel: u16, performative: &Performative) {
        let at = self.output.len();
        self.output.put_slice(&[0, 0, 0, 0, 2, frame::AMQP]);
        self.output.put_u16(channel);
        performative.encode(&mut self.output);
        let size = (self.output.len() - at) as u32;
        self.output[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }

    fn violation(&mut self, condition: &'static str, text: impl Into<String>) -> ConnectionError {
        let error = Error::new(condition, text);
        self.close(Some(error.clone()));
        ConnectionError(error)
    }

    fn link(&self, link: LinkId) -> Option<&AmqpLink> {
        self.links.get(link.index())?.as_ref()
    }

    fn link_mut(&mut self, link: LinkId) -> Option<&mut AmqpLink> {
        self.links.get_mut(link.index())?.as_mut()
    }

    fn session_mut(&mut self, channel: u16) -> Option<&mut Session> {
        self.sessions.get_mut(usize::from(channel))?.as_mut()
    }
}
