//! A connection's streams against a peer that speaks the protocol by hand.

mod queueing;

use super::{
    ConnectionKind, ConnectionState, DeliveryOutcome, InStream,
    stream_end::{End, StreamEffects, StreamEnd, StreamEvent},
};
use crate::{
    amqp::{
        connection::{
            AttachArgs, Config, Connection, Event, LinkId, MAX_TRANSFER_HEADER, SessionId,
        },
        performative::{DeliveryState, Role, Source, Target},
    },
    link::{
        peer_budget::PeerBudget,
        wire::{Parts, Wire},
    },
};
use bytes::{Bytes, BytesMut};
use std::{
    future::poll_fn,
    io::Read,
    net::{TcpListener, TcpStream},
    rc::Rc,
    time::Instant,
};

/// One of our connections, and the peer it talks to.
struct Pair {
    state: ConnectionState,
    socket: TcpStream,
    peer: Connection,
}

impl Pair {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let socket = TcpStream::connect(listener.local_addr().expect("an address"));
        let (ours, _) = listener.accept().expect("a connection");
        ours.set_nonblocking(true).expect("a socket");
        let wire = Wire::attach(Parts::new(ours, None, BytesMut::new())).expect("a runtime");
        let now = Instant::now();
        let amqp = Connection::new(Config::new("ours"), now);
        Self {
            state: ConnectionState::new(
                1,
                ConnectionKind::Data,
                amqp,
                wire,
                &PeerBudget::new("peer".to_owned()),
            ),
            socket: socket.expect("a connection"),
            peer: Connection::new(Config::new("peer"), now),
        }
    }

    /// Delivers the peer's output to us.
    fn carry_in(&mut self) -> Vec<Event> {
        let mut bytes = self.peer.output().split().freeze();
        let mut events = Vec::new();
        while let Some(event) = self
            .state
            .amqp
            .receive(&mut bytes, Instant::now())
            .expect("frames")
        {
            events.push(event);
        }
        events
    }

    /// Delivers our output to the peer, until an event is found.
    async fn carry_out<R>(
        &mut self,
        mut find: impl FnMut(&mut Connection, Event) -> Option<R>,
    ) -> R {
        self.state.drain_control();
        poll_fn(|cx| self.state.wire.poll_flush(cx))
            .await
            .expect("a peer that reads");
        let mut buf = [0; 4096];
        loop {
            let n = self.socket.read(&mut buf).expect("bytes");
            assert_ne!(n, 0, "closed without what was looked for");
            let mut bytes = Bytes::copy_from_slice(&buf[..n]);
            while let Some(event) = self
                .peer
                .receive(&mut bytes, Instant::now())
                .expect("frames")
            {
                if let Some(found) = find(&mut self.peer, event) {
                    return found;
                }
            }
        }
    }

    /// A link that the peer sends on, with a delivery begun and not complete.
    async fn delivery(&mut self) -> (LinkId, InStream) {
        self.carry_out(|_, e| matches!(e, Event::Open(_)).then_some(()))
            .await;
        let session: SessionId = self.peer.begin().expect("a session");
        let args = AttachArgs {
            name: "l".into(),
            role: Role::Sender,
            ..AttachArgs::default()
        };
        let link = self.peer.attach(session, args).expect("a link");
        for event in self.carry_in() {
            if let Event::Attach { link, attach, .. } = event {
                self.state.accept(link, &attach);
            }
        }
        self.carry_out(|_, e| matches!(e, Event::Flow { .. }).then_some(()))
            .await;
        self.peer.start_delivery(link, false).expect("credit");
        let stream = self.transfer(link, true);
        (link, stream)
    }

    /// The peer's next frame of its delivery.
    fn transfer(&mut self, link: LinkId, more: bool) -> InStream {
        let mut header = [0; MAX_TRANSFER_HEADER];
        let n = self.peer.transfer_header(link, more, false, &mut header);
        header[..4].copy_from_slice(&(n as u32 + 1).to_be_bytes());
        self.peer.output().extend_from_slice(&header[..n]);
        self.peer.output().extend_from_slice(b"x");
        self.peer.transfer_sent(link, !more);
        let events = self.carry_in();
        let transfer = events.iter().find_map(|e| match e {
            Event::Transfer { link, delivery, .. } => Some(InStream {
                link: *link,
                delivery: *delivery,
            }),
            _ => None,
        });
        transfer.unwrap_or_else(|| panic!("{events:?}"))
    }
}

fn disposition(_: &mut Connection, event: Event) -> Option<(bool, Option<DeliveryState>)> {
    match event {
        Event::Disposition { settled, state, .. } => Some((settled, state.as_deref().cloned())),
        _ => None,
    }
}

struct NullEnd;

impl StreamEnd for NullEnd {
    fn event(&self, _: StreamEvent<'_>, _: &mut StreamEffects) {}
}

fn modified(state: Option<&DeliveryState>) -> bool {
    matches!(state, Some(DeliveryState::Modified { .. }))
}

/// skupper-router does not send the end of a delivery that was settled before it, and whatever it
/// puts on the same link afterwards never leaves it.
#[tokio::test]
async fn an_incomplete_delivery_is_settled_when_its_end_has_come() {
    let mut pair = Pair::new();
    let (link, stream) = pair.delivery().await;
    let end: End = Rc::new(NullEnd);
    pair.state.deliveries.start_stream(stream, end, 0, false);
    assert_eq!(pair.state.streams(), 1);
    pair.state.settle(stream, DeliveryOutcome::Modified);
    pair.state.settle(stream, DeliveryOutcome::Released);
    let (settled, state) = pair.carry_out(disposition).await;
    assert!(!settled && modified(state.as_ref()), "{settled} {state:?}");
    assert_eq!(pair.state.streams(), 0);

    pair.transfer(link, false);
    pair.state.discarded(stream.link);
    let (settled, state) = pair.carry_out(disposition).await;
    assert!(settled && modified(state.as_ref()), "{settled} {state:?}");
    assert!(pair.state.deliveries.is_idle(stream.link));
}

#[tokio::test]
async fn a_refused_delivery_is_settled_at_once_only_when_it_is_complete() {
    let mut pair = Pair::new();
    let (link, stream) = pair.delivery().await;
    pair.state.refuse(stream, DeliveryOutcome::Released, false);
    let (settled, _) = pair.carry_out(disposition).await;
    assert!(!settled);
    pair.transfer(link, false);
    pair.state.discarded(stream.link);
    assert!(pair.carry_out(disposition).await.0);
}

/// A router that takes frames of 16 KiB ends the connection, with the streams of others on it, when one
/// is longer.
#[tokio::test]
async fn a_head_that_is_longer_than_a_frame_is_sent_in_several() {
    let mut pair = Pair::new();
    pair.carry_out(|_, e| matches!(e, Event::Open(_)).then_some(()))
        .await;
    pair.carry_in();
    pair.state.carry_streams();
    let accept = |peer: &mut Connection, event| match event {
        Event::Attach { link, .. } => {
            peer.accept_attach(link, Source::default(), Target::default(), 10);
            Some(())
        }
        _ => None,
    };
    pair.carry_out(accept).await;
    for event in pair.carry_in() {
        if let Event::Flow { link, .. } = event {
            pair.state.link_ready(link);
        }
    }
    let end: End = Rc::new(NullEnd);
    let head: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    pair.state
        .open(head.clone().into(), &end)
        .expect("a link with credit");
    let mut got = Vec::new();
    pair.carry_out(|_, event| match event {
        Event::Transfer { payload, more, .. } => {
            got.extend_from_slice(&payload);
            assert!(more, "a stream goes on");
            (got.len() >= head.len()).then_some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(got, head);
}
