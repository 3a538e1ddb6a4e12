//! An AMQP connection as a state machine: bytes and time in, events and bytes out.
//!
//! Deliveries are cut through: the payload of a transfer is given out as it arrives, in slices of
//! the input, and a delivery need never complete. Frames of transfers are composed by the caller
//! around payload that never passes through here.

mod input;
mod output;
mod session;
#[cfg(test)]
mod tests;

use super::{
    frame,
    performative::{Attach, DeliveryState, Error, Open, Role, Source, Target},
    value::{Symbol, Value},
};
use bytes::{Bytes, BytesMut};
use input::Parser;
use session::{Link, Session};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest frame header with its transfer performative that [`Connection::transfer_header`] writes:
/// 8 (frame) + 3 (descriptor) + 3 (list) + 5 (handle) + 5 (id) + 10 (tag) + 1 (format) + flags.
pub const MAX_TRANSFER_HEADER: usize = 48;

/// Frames of a session's incoming window. Upstream: 128 MiB / 16 KiB.
pub const SESSION_WINDOW: u32 = 8192;

/// Bounds on what a peer can make us keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions.
    pub sessions: usize,
    /// Links of all sessions; also one more than the highest handle.
    pub links: usize,
    /// Deliveries that are not settled, each direction.
    pub unsettled: usize,
    /// Longest performative other than transfer.
    pub performative: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1024,
            links: 70_000,
            unsettled: 200_000,
            performative: 64 * 1024,
        }
    }
}

/// Our side of `open`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Router id.
    pub container_id: String,
    /// Host that was dialled.
    pub hostname: Option<String>,
    /// Largest frame we take. Upstream: 16384.
    pub max_frame_size: u32,
    /// Highest channel. Upstream: 32767.
    pub channel_max: u16,
    /// Advertised idle time-out; we give up after twice that. Upstream: 8 s.
    pub idle_timeout: Duration,
    /// Offered and desired capabilities.
    pub capabilities: Vec<Symbol>,
    /// Properties.
    pub properties: Vec<(Value, Value)>,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// What a router says, without properties.
    pub fn new(container_id: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            hostname: None,
            max_frame_size: 16_384,
            channel_max: 32_767,
            idle_timeout: Duration::from_secs(8),
            capabilities: Vec::new(),
            properties: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A link of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(u32);

impl LinkId {
    /// Any link, for tests of those who are only told of links.
    #[cfg(test)]
    pub(crate) fn of(index: u32) -> Self {
        Self(index)
    }

    /// A small number, fit to index a table with.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A session of this connection: its local channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(u16);

/// A delivery of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    session: u16,
    outgoing: bool,
    id: u32,
}

/// A violation of the protocol by the peer; the close that says so is in the output already.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectionError(pub Error);

/// A call that can not be carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The receiver has given no credit.
    #[error("no credit on the link")]
    NoCredit,
    /// The peer's session window is used up.
    #[error("session window is closed")]
    NoWindow,
    /// No such session or link (any more).
    #[error("no such session or link")]
    Gone,
    /// Over our own or the peer's limit.
    #[error("{0} limit of the connection is reached")]
    Limit(&'static str),
    /// The previous delivery of the link is not complete.
    #[error("previous delivery on the link is not complete")]
    Busy,
}

/// What to attach.
#[derive(Clone, Debug, Default)]
pub struct AttachArgs {
    /// Name; unique between the two containers.
    pub name: String,
    /// Our role.
    pub role: Role,
    /// Source.
    pub source: Source,
    /// Target.
    pub target: Target,
    /// Receivers: credit that is topped up.
    pub credit: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The peer opened.
    Open(Box<Open>),
    /// The peer closed; we have not.
    Close(Option<Error>),
    /// A session is established.
    Begin {
        /// The session.
        session: SessionId,
        /// The peer began it.
        remote_initiated: bool,
    },
    /// The peer ended a session. Its links have had their `Detach`.
    End {
        /// The session.
        session: SessionId,
        /// Reason.
        error: Option<Error>,
    },
    /// The peer attached.
    Attach {
        /// The link.
        link: LinkId,
        /// To be answered with accept or refuse; else it answers ours.
        remote_initiated: bool,
        /// The performative.
        attach: Box<Attach>,
    },
    /// A link is gone; its id is free.
    Detach {
        /// The link.
        link: LinkId,
        /// For good.
        closed: bool,
        /// Reason: one for all links of a session that ends.
        error: Option<Arc<Error>>,
    },
    /// A sending link's credit changed.
    Flow {
        /// The link.
        link: LinkId,
        /// Credit now.
        credit: u32,
        /// To be used up or given back.
        drain: bool,
    },
    /// A session's window is open again.
    Window {
        /// The session.
        session: SessionId,
    },
    /// Payload of a delivery.
    Transfer {
        /// The link.
        link: LinkId,
        /// The delivery.
        delivery: DeliveryId,
        /// Its first bytes.
        first: bool,
        /// Settled by the sender.
        settled: bool,
        /// Payload.
        payload: Bytes,
        /// The delivery goes on.
        more: bool,
        /// The sender gave it up.
        aborted: bool,
    },
    /// The peer's word on a delivery that is not settled.
    Disposition {
        /// Its link.
        link: LinkId,
        /// The delivery.
        delivery: DeliveryId,
        /// Settled by the peer.
        settled: bool,
        /// State: one for all deliveries that the peer spoke of at once.
        state: Option<Arc<DeliveryState>>,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    channel_max: u16,
    idle_timeout: Duration,
    remote: Option<Box<Open>>,
    output: BytesMut,
    sessions: Vec<Option<Session>>,
    /// Local channel + 1 by remote channel.
    channels: Vec<u16>,
    links: Vec<Option<Link>>,
    free_links: Vec<u32>,
    /// Our attaches that have no answer yet.
    unanswered: HashMap<(u16, String), u32>,
    parser: Parser,
    events: VecDeque<Event>,
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
            channels: Vec::new(),
            links: Vec::new(),
            free_links: Vec::new(),
            unanswered: HashMap::new(),
            parser: Parser::default(),
            events: VecDeque::new(),
            max_in: cfg.max_frame_size as usize,
            max_out: frame::MIN_MAX_FRAME,
            last_received: now,
            last_sent: now,
            next_tag: 0,
            closed: false,
        };
        this.put(0, &super::performative::Performative::Open(Box::new(open)));
        this
    }

    /// The peer's open, once it has come.
    pub fn remote(&self) -> Option<&Open> {
        self.remote.as_deref()
    }

    /// Both sides use frames of this size from now on, whatever they said in open.
    pub fn set_native(&mut self, max_frame: u32) {
        self.max_in = self.max_in.max(max_frame as usize);
        self.max_out = self.max_out.max(max_frame as usize);
    }

    /// Control frames to be sent before any further transfer.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
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

    /// Sends a heartbeat, or gives up a silent peer.
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

    /// Something was sent.
    pub fn note_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    fn violation(&mut self, condition: &'static str, text: impl Into<String>) -> ConnectionError {
        let error = Error::new(condition, text);
        self.close(Some(error.clone()));
        ConnectionError(error)
    }

    fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.get(link.index())?.as_ref()
    }

    fn link_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.links.get_mut(link.index())?.as_mut()
    }

    fn session_mut(&mut self, channel: u16) -> Option<&mut Session> {
        self.sessions.get_mut(usize::from(channel))?.as_mut()
    }

    /// Number of links that exist.
    pub fn link_count(&self) -> usize {
        self.links.len() - self.free_links.len()
    }
}
