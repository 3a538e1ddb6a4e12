//! A connection's task against peers that take more than they are given.

use super::*;
use crate::{
    amqp::{
        connection::{AttachArgs, Config, Connection, DeliveryId, MAX_TRANSFER_HEADER, SessionId},
        message::{MessageHead, Properties, STREAM_CONTENT_TYPE, encode_stream_head},
        performative::DeliveryState,
        value::Value,
    },
    link::{
        conn::{
            DeliveryOutcome,
            stream_end::{StreamEffects, StreamEnd, StreamReply},
        },
        flow_window::{ACK_EVERY, WINDOW},
        intake::IntakePermit,
        peer_budget::PeerBudget,
        wire::{Parts, Wire},
    },
};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Longest time for anything that a test waits for.
const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1024 * 1024;

/// A worker that takes every stream.
#[derive(Default)]
struct Recorder {
    streams: RefCell<Vec<Rc<Receiver>>>,
    exceeded: Cell<usize>,
    over_budget: Cell<usize>,
    streams_over_budget: Cell<usize>,
    messages: Cell<usize>,
    attached: RefCell<Vec<LinkId>>,
    /// Streams are acknowledged as they come.
    acknowledges: Cell<bool>,
}

/// The end of a stream that keeps what comes.
struct Receiver {
    conn: Rc<LinkConnection>,
    stream: InStream,
    acknowledges: bool,
    received: Cell<usize>,
    acknowledged: Cell<usize>,
    aborted: Cell<Option<bool>>,
}

impl StreamEnd for Receiver {
    fn event(&self, event: StreamEvent<'_>, effects: &mut StreamEffects) {
        match event {
            StreamEvent::Payload(payload) => {
                self.received.set(self.received.get() + payload.len());
                let due = self.received.get() - self.acknowledged.get() >= ACK_EVERY as usize;
                if self.acknowledges && due {
                    self.acknowledged.set(self.received.get());
                    let ack = StreamReply::Ack(self.received.get() as u64);
                    effects.reply(&self.conn, self.stream, ack);
                }
            }
            StreamEvent::Ended { aborted } => self.aborted.set(Some(aborted)),
            _ => {}
        }
    }
}

impl ConnectionEvents for Recorder {
    fn stream(
        self: &Rc<Self>,
        conn: &Rc<LinkConnection>,
        stream: InStream,
        _head: Box<MessageHead>,
    ) -> Result<End, DeliveryOutcome> {
        let end = Rc::new(Receiver {
            conn: conn.clone(),
            stream,
            acknowledges: self.acknowledges.get(),
            received: Cell::new(0),
            acknowledged: Cell::new(0),
            aborted: Cell::new(None),
        });
        self.streams.borrow_mut().push(end.clone());
        Ok(end)
    }
    fn window_exceeded(&self, _: &Rc<LinkConnection>) {
        self.exceeded.set(self.exceeded.get() + 1);
    }
    fn over_budget(&self, _: &Rc<LinkConnection>, _: &str) {
        self.over_budget.set(self.over_budget.get() + 1);
    }
    fn streams_over_budget(&self, _: &Rc<LinkConnection>, _: &PeerBudget) {
        self.streams_over_budget
            .set(self.streams_over_budget.get() + 1);
    }
    fn message(
        &self,
        _: &Rc<LinkConnection>,
        _: InStream,
        _: bool,
        _: MessageOrigin,
        _: Bytes,
        _: IntakePermit,
    ) {
        self.messages.set(self.messages.get() + 1);
    }
    fn message_settled(
        &self,
        _: &Rc<LinkConnection>,
        _: LinkId,
        _: DeliveryId,
        _: bool,
        _: Option<&DeliveryState>,
    ) {
    }
    fn control_ready(&self, _: &Rc<LinkConnection>) {}
    fn link_attached(
        &self,
        _: &Rc<LinkConnection>,
        state: &mut ConnectionState,
        link: LinkId,
        attach: &Attach,
    ) {
        state.client_attached(link, attach, "here");
        self.attached.borrow_mut().push(link);
    }
    fn link_detached(&self, _: &Rc<LinkConnection>, _: LinkId, _: IntakePermit) {}
    fn link_credit(
        &self,
        _: &Rc<LinkConnection>,
        _: &mut ConnectionState,
        _: LinkId,
        _: u32,
        _: bool,
    ) {
    }
    fn ended(&self, _: &Rc<LinkConnection>) {}
}

/// A connection's task and the peer that it talks to.
struct Pair {
    worker: Rc<Recorder>,
    driver: Driver<Recorder>,
    peer: Connection,
    socket: TcpStream,
    unsent: BytesMut,
    session: Option<SessionId>,
    /// Streams that the peer has started.
    started: usize,
    /// Outcomes sent to the peer, by link.
    outcomes: Vec<(LinkId, DeliveryState)>,
    end_reason: Option<ConnectionEnd>,
}

impl Pair {
    fn new(kind: ConnectionKind) -> Self {
        Self::of_peer(kind, &PeerBudget::new("peer".to_owned()))
    }

    /// One of several connections of a peer.
    fn of_peer(kind: ConnectionKind, budget: &Arc<PeerBudget>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let socket = TcpStream::connect(listener.local_addr().expect("an address"));
        let socket = socket.expect("a connection");
        let (ours, _) = listener.accept().expect("a connection");
        for socket in [&socket, &ours] {
            socket.set_nonblocking(true).expect("a socket");
        }
        let wire = Wire::attach(Parts::new(ours, None, BytesMut::new())).expect("a runtime");
        let now = Instant::now();
        let amqp = Connection::new(Config::new("ours"), now);
        let state = ConnectionState::new(1, kind, amqp, wire, budget);
        let worker = Rc::new(Recorder::default());
        Self {
            driver: Driver::new(
                worker.clone(),
                LinkConnection::new(1, 1, kind, 0, false, state),
            ),
            worker,
            peer: Connection::new(Config::new("peer"), now),
            socket,
            unsent: BytesMut::new(),
            session: None,
            started: 0,
            outcomes: Vec::new(),
            end_reason: None,
        }
    }

    /// Moves bytes both ways until something holds, or the connection has ended.
    async fn until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while self.end_reason.is_none() && !holds(self) {
            assert!(Instant::now() < deadline, "nothing happens");
            let output = self.peer.output().split();
            self.unsent.extend_from_slice(&output);
            match self.socket.write(&self.unsent) {
                Ok(n) => self.unsent.advance(n),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            let driver = &mut self.driver;
            self.end_reason = poll_fn(|cx| match driver.poll_once(cx) {
                Poll::Ready(reason) => Poll::Ready(Some(reason)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
            self.read();
            tokio::task::yield_now().await;
        }
    }

    fn read(&mut self) {
        let mut buf = vec![0; 64 * 1024];
        let n = match self.socket.read(&mut buf) {
            Ok(n) => n,
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                return;
            }
        };
        let mut bytes = Bytes::copy_from_slice(&buf[..n]);
        while let Some(event) = self
            .peer
            .receive(&mut bytes, Instant::now())
            .expect("frames")
        {
            if let Event::Disposition { link, state, .. } = event
                && let Some(state) = state.as_deref()
            {
                self.outcomes.push((link, state.clone()));
            }
        }
    }

    /// A link of the peer's, ready to be used.
    async fn attach(&mut self, role: Role, credit: u32) -> LinkId {
        self.until(|pair| pair.peer.remote().is_some()).await;
        let session = match self.session {
            Some(session) => session,
            None => self.peer.begin().expect("a session"),
        };
        self.session = Some(session);
        let args = AttachArgs {
            name: format!("link-{}", self.peer.link_count()),
            role,
            credit,
            ..AttachArgs::default()
        };
        let link = self.peer.attach(session, args).expect("a link");
        if role == Role::Sender {
            self.until(|pair| pair.peer.credit(link) > 0).await;
        }
        link
    }

    /// Sends payload in frames of a delivery that goes on, whatever was acknowledged.
    async fn send(&mut self, link: LinkId, mut payload: &[u8]) {
        while !payload.is_empty() && self.end_reason.is_none() {
            self.until(|pair| pair.peer.window(link) > 0 && pair.unsent.len() < MIB)
                .await;
            let (now, later) = payload.split_at(payload.len().min(self.peer.max_payload()));
            let mut header = [0; MAX_TRANSFER_HEADER];
            let n = self.peer.transfer_header(link, true, false, &mut header);
            header[..4].copy_from_slice(&((n + now.len()) as u32).to_be_bytes());
            self.peer.output().extend_from_slice(&header[..n]);
            self.peer.output().extend_from_slice(now);
            self.peer.transfer_sent(link, false);
            payload = later;
        }
    }

    /// Begins a message that is never complete, on a link of its own.
    async fn begin_message(&mut self, part: &[u8]) {
        if self.end_reason.is_some() {
            return;
        }
        let link = self.attach(Role::Sender, 0).await;
        if self.end_reason.is_some() {
            return;
        }
        self.peer.start_delivery(link, false).expect("credit");
        // A section that no stream begins with: a message, from its first byte.
        self.send(link, b"\x00\x53\x75\xb0\x00\x40\x00\x00").await;
        self.send(link, part).await;
    }

    async fn start_stream(&mut self) -> LinkId {
        let link = self.attach(Role::Sender, 0).await;
        self.peer.start_delivery(link, false).expect("credit");
        let head = MessageHead {
            properties: Properties {
                to: Some("service".into()),
                reply_to: Some("answers".into()),
                content_type: Some(Value::from(STREAM_CONTENT_TYPE)),
                ..Properties::default()
            },
            ..MessageHead::default()
        };
        let mut bytes = BytesMut::new();
        encode_stream_head(&head, &mut bytes);
        self.send(link, &bytes).await;
        self.started += 1;
        self.until(|pair| pair.worker.streams.borrow().len() == pair.started)
            .await;
        link
    }

    fn stream(&self, n: usize) -> Rc<Receiver> {
        self.worker.streams.borrow()[n].clone()
    }

    /// The connection has ended for what the peer uses.
    fn is_over_budget(&self) -> bool {
        let is_limit = |e: &AmqpError| e.condition.as_str() == RESOURCE_LIMIT;
        let ended = matches!(&self.end_reason, Some(ConnectionEnd::ByUs(error)) if is_limit(error));
        ended && self.worker.over_budget.get() == 1
    }
}

#[tokio::test]
async fn a_peer_that_ignores_the_window_loses_that_stream_and_no_other() {
    let mut pair = Pair::new(ConnectionKind::Data);
    let hostile = pair.start_stream().await;
    let honest = pair.start_stream().await;
    pair.send(hostile, &vec![0; 4 * MIB]).await;
    pair.send(honest, &[0; 1000]).await;
    pair.until(|pair| pair.stream(1).received.get() == 1000)
        .await;
    assert!(pair.end_reason.is_none(), "{:?}", pair.end_reason);
    let first = pair.stream(0);
    let held = first.received.get();
    assert!(held < WINDOW as usize + MIB / 4, "{held} bytes are held");
    assert_eq!(first.aborted.get(), Some(true));
    assert_eq!(pair.stream(1).aborted.get(), None);
    assert_eq!(pair.worker.exceeded.get(), 1, "told once");
    let rejected = |(link, state): &(LinkId, DeliveryState)| {
        *link == hostile && matches!(state, DeliveryState::Rejected(_))
    };
    assert!(pair.outcomes.iter().any(rejected), "{:?}", pair.outcomes);
}

#[tokio::test]
async fn a_stream_that_is_acknowledged_goes_on_beyond_its_first_window() {
    let mut pair = Pair::new(ConnectionKind::Data);
    pair.worker.acknowledges.set(true);
    let link = pair.start_stream().await;
    pair.send(link, &vec![0; 8 * MIB]).await;
    pair.until(|pair| pair.stream(0).received.get() == 8 * MIB)
        .await;
    assert_eq!(pair.stream(0).aborted.get(), None);
    assert_eq!(pair.worker.exceeded.get(), 0);
}

#[tokio::test]
async fn incomplete_messages_of_many_links_end_the_connection() {
    let mut pair = Pair::new(ConnectionKind::Control);
    let part = vec![0x41; 3 * MIB];
    let mut begun = 0;
    while pair.end_reason.is_none() && begun < 24 {
        pair.begin_message(&part).await;
        begun += 1;
    }
    assert!(pair.is_over_budget(), "{:?}", pair.end_reason);
    assert!((14..=19).contains(&begun), "{begun} messages of 3 MiB");
}

/// Each connection had a budget of its own, and a peer as many connections as it liked.
#[tokio::test]
async fn a_connection_that_makes_its_peer_hold_too_much_over_all_connections_ends() {
    const PART: usize = 7 * MIB / 2;
    let budget = PeerBudget::with_limits("peer".to_owned(), 20 * MIB, MIB);
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let mut pair = Pair::of_peer(ConnectionKind::Control, &budget);
        pair.begin_message(&vec![0x41; PART]).await;
        pair.until(|pair| pair.driver.conn.borrow().deliveries.incomplete() > PART)
            .await;
        pairs.push(pair);
    }
    // None of these three has ended; a fourth takes more than is left.
    let mut last = Pair::of_peer(ConnectionKind::Control, &budget);
    for _ in 0..4 {
        last.begin_message(&vec![0x41; PART]).await;
    }
    last.until(|_| false).await;
    assert!(last.is_over_budget(), "{:?}", last.end_reason);
    for pair in &mut pairs {
        pair.attach(Role::Sender, 0).await;
        assert!(pair.end_reason.is_none(), "{:?}", pair.end_reason);
    }
    // What it held is given back.
    drop(last);
    let mut next = Pair::of_peer(ConnectionKind::Control, &budget);
    next.begin_message(&vec![0x41; PART]).await;
    next.until(|pair| pair.driver.conn.borrow().deliveries.incomplete() > PART)
        .await;
    assert!(next.end_reason.is_none(), "{:?}", next.end_reason);
}

#[tokio::test]
async fn a_receiver_that_gives_credit_once_and_reads_nothing_is_cut_off() {
    let mut pair = Pair::new(ConnectionKind::Normal);
    pair.attach(Role::Receiver, 1).await;
    let worker = pair.worker.clone();
    pair.until(|_| !worker.attached.borrow().is_empty()).await;
    let link = worker.attached.borrow()[0];
    let message = Bytes::from(vec![0; MIB]);
    let conn = pair.driver.conn.clone();
    for _ in 0..5 {
        conn.borrow().send_message(link, message.clone());
    }
    // What a slow client may have waiting is no reason.
    assert!(conn.borrow().failed.is_none());
    for _ in 0..10 {
        conn.borrow().send_message(link, message.clone());
    }
    pair.until(|_| false).await;
    assert!(pair.is_over_budget(), "{:?}", pair.end_reason);
}
