//! A raw AMQP peer: it speaks the protocol frame by frame, and can send anything. It plays a linked
//! site, an edge or a client of the host.

mod credentials;
mod links;
mod messages;
mod transport;

use crate::{SOON, echo::connect, tls};
use bytes::{Buf, BufMut, Bytes, BytesMut};
pub use credentials::Credentials;
pub use messages::{control, encoded, stream, stream_head, symbol};
use skupperd::amqp::{
    codec::Reader,
    frame::{self, Header},
    performative::{Open, Performative},
    value::Value,
};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use transport::Transport;

/// The capability of control links between routers.
pub const CONTROL: &str = "qd.router";
/// Bytes that are written before the answers are read.
const PIECE: usize = 64 * 1024;

/// A frame of the daemon. A heartbeat has no performative.
#[derive(Debug)]
pub struct Frame {
    pub channel: u16,
    pub performative: Option<Performative>,
    pub payload: Bytes,
}

/// A connection to a site.
pub struct HostilePeer {
    transport: Transport,
    input: BytesMut,
    output: BytesMut,
    frames: VecDeque<Frame>,
    next_delivery: u32,
    /// The `open` of the site, once it has come.
    pub remote: Option<Open>,
}

impl HostilePeer {
    /// A client of the host on the port for local AMQP clients, opened.
    pub fn client(addr: SocketAddr) -> Self {
        let mut peer = Self::new(Transport::Plain(connect(addr).expect("a connection")));
        peer.sasl("ANONYMOUS");
        peer.open(Open {
            container_id: "client".to_owned(),
            ..Open::default()
        });
        peer
    }

    /// A site or an edge with this id, opened.
    pub fn site(addr: SocketAddr, credentials: &Credentials, id: &str) -> Self {
        let mut peer = Self::secured(addr, credentials);
        peer.open(Open {
            container_id: id.to_owned(),
            properties: vec![symbol("qd.annotations-version", Value::Int(2))],
            ..Open::default()
        });
        peer
    }

    /// A connection after TLS and SASL, before `open`.
    pub fn secured(addr: SocketAddr, credentials: &Credentials) -> Self {
        let mut client = tls::Client::of(&credentials.ca);
        client.own = Some(credentials.own.clone());
        let stream = client.connect(addr).expect("TLS");
        let mut peer = Self::new(Transport::Tls(Box::new(stream)));
        peer.sasl("EXTERNAL");
        peer
    }

    fn new(transport: Transport) -> Self {
        Self {
            transport,
            input: BytesMut::new(),
            output: BytesMut::new(),
            frames: VecDeque::new(),
            next_delivery: 0,
            remote: None,
        }
    }

    fn sasl(&mut self, mechanism: &str) {
        let mut init = vec![0, 0x53, 0x41, 0xc0, 0, 2];
        skupperd::amqp::codec::symbol(mechanism, &mut init);
        init.extend([0xa0, 0]);
        init[4] = u8::try_from(init.len() - 5).expect("a short list");
        self.output.put_slice(&frame::SASL_HEADER);
        frame::put(frame::SASL, 0, &init, &mut self.output);
        self.flush().expect("sent");
        // The header, the mechanisms and the outcome, which is the last frame of type SASL.
        let begin = Instant::now();
        let (mut header, mut answers) = (false, 0);
        while answers < 2 {
            assert!(begin.elapsed() < SOON, "no SASL outcome");
            self.pull(Duration::from_millis(100)).expect("SASL");
            if !header && self.input.len() >= 8 {
                assert_eq!(self.input.split_to(8)[..], frame::SASL_HEADER);
                header = true;
            }
            while let Ok(Some(head)) = Header::parse(&self.input, 4096) {
                if !header || self.input.len() < head.size || answers == 2 {
                    break;
                }
                self.input.advance(head.size);
                answers += 1;
            }
        }
    }

    /// Sends the protocol header and this `open`, and waits for that of the site.
    pub fn open(&mut self, open: Open) {
        self.send_open(open);
        let open = self.wait("open", |frame| match &frame.performative {
            Some(Performative::Open(open)) => Some(open.clone()),
            _ => None,
        });
        self.remote = Some(*open);
    }

    /// Sends the protocol header and this `open`, which the site may not like.
    pub fn send_open(&mut self, open: Open) {
        self.output.put_slice(&frame::AMQP_HEADER);
        self.put(0, &Performative::Open(Box::new(open)), b"");
        // That the connection may be over shows when the next frame is read.
        drop(self.flush());
    }

    /// Appends a frame to what the next [`flush`](Self::flush) sends.
    pub fn put(&mut self, channel: u16, performative: &Performative, payload: &[u8]) {
        let mut body = BytesMut::new();
        performative.encode(&mut body);
        body.put_slice(payload);
        frame::put(frame::AMQP, channel, &body, &mut self.output);
    }

    /// Appends bytes that are no frame of the library.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.output.put_slice(bytes);
    }

    /// Sends what was put and reads nothing. An error: the site takes no more, or the connection is over.
    pub fn push(&mut self) -> io::Result<()> {
        let output = self.output.split();
        self.transport.both().write_all(&output)?;
        self.transport.both().flush()
    }

    /// Drops what has come and was not looked at. No frame can be read afterwards.
    pub fn discard(&mut self) {
        self.input.clear();
        self.frames.clear();
    }

    /// The TCP connection below TLS and AMQP.
    pub fn socket(&self) -> &TcpStream {
        self.transport.socket()
    }

    /// Asks for new keys of the TLS connection, with the next bytes that are sent.
    pub fn update_keys(&mut self) {
        if let Transport::Tls(stream) = &mut self.transport {
            let asked = stream.conn.refresh_traffic_keys();
            asked.expect("TLS 1.3");
        }
    }

    /// Sends what was put, and reads what comes meanwhile.
    pub fn flush(&mut self) -> io::Result<()> {
        let output = self.output.split();
        for piece in output.chunks(PIECE) {
            self.transport.both().write_all(piece)?;
            self.transport.both().flush()?;
            self.pull(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Reads what comes within this time. An error: the connection is over.
    pub fn pull(&mut self, within: Duration) -> io::Result<()> {
        let begin = Instant::now();
        let mut buf = vec![0; PIECE];
        loop {
            let left = within.saturating_sub(begin.elapsed());
            let socket = self.transport.socket();
            socket.set_nonblocking(left.is_zero())?;
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let read = self.transport.both().read(&mut buf);
            self.transport.socket().set_nonblocking(false)?;
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.input.extend_from_slice(&buf[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
            if !left.is_zero() {
                return Ok(());
            }
        }
    }

    fn parse(&mut self) {
        // No frame begins like the protocol header, which comes before them.
        if self.input.starts_with(&frame::AMQP_HEADER) {
            self.input.advance(frame::AMQP_HEADER.len());
        }
        while let Ok(Some(head)) = Header::parse(&self.input, 1 << 24) {
            if self.input.len() < head.size {
                return;
            }
            let frame = self.input.split_to(head.size).freeze();
            let body = frame.slice(head.body..);
            let mut reader = Reader::new(&body);
            let performative = (!body.is_empty())
                .then(|| Performative::decode(&mut reader).expect("a frame of the site"));
            let payload = body.slice(body.len() - reader.remaining()..);
            self.frames.push_back(Frame {
                channel: head.channel,
                performative,
                payload,
            });
        }
    }

    /// The next frame that comes within this time.
    pub fn receive(&mut self, within: Duration) -> io::Result<Option<Frame>> {
        let begin = Instant::now();
        loop {
            self.parse();
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            let left = within.saturating_sub(begin.elapsed());
            self.pull(left)?;
            if left.is_zero() {
                self.parse();
                return Ok(self.frames.pop_front());
            }
        }
    }

    /// Waits for a frame that `f` finds something in; drops those before it.
    pub fn wait<T>(&mut self, what: &str, f: impl Fn(&Frame) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < SOON, "no {what}");
            self.heartbeat();
            let frame = self.receive(Duration::from_millis(100));
            if let Some(found) = frame.expect("a connection").as_ref().and_then(&f) {
                return found;
            }
        }
    }

    /// Waits until the site ends the connection. Returns the condition of its `close`, if that arrives
    /// before the end.
    pub fn wait_end(&mut self) -> Option<String> {
        let begin = Instant::now();
        let mut condition = None;
        while begin.elapsed() < SOON {
            self.heartbeat();
            match self.receive(Duration::from_millis(100)) {
                Err(_) => return condition,
                Ok(Some(Frame {
                    performative: Some(Performative::Close(error)),
                    ..
                })) => condition = error.map(|e| e.condition.to_string()),
                Ok(_) => {}
            }
        }
        panic!("the connection is still there");
    }

    /// Sends an empty frame: a silent peer is lost after 16 seconds. That the connection may be over shows
    /// when the next frame is read.
    fn heartbeat(&mut self) {
        frame::put(frame::AMQP, 0, &[], &mut self.output);
        drop(self.flush());
    }

    /// Whether the connection is still there after this time. Sends a heartbeat.
    pub fn is_open(&mut self, within: Duration) -> bool {
        frame::put(frame::AMQP, 0, &[], &mut self.output);
        let end = Instant::now() + within;
        let mut alive = self.flush().is_ok();
        while alive && Instant::now() < end {
            alive = match self.receive(Duration::from_millis(20)) {
                Ok(Some(frame)) => !matches!(frame.performative, Some(Performative::Close(_))),
                Ok(None) => true,
                Err(_) => false,
            };
        }
        alive
    }
}
