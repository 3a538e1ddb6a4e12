//! A connection's streams against a peer that speaks the protocol by hand.

use super::{Current, End, InStream, Incoming, Inner, Kind, OutStream, Outcome, StreamEnd};
use crate::{
    amqp::{
        connection::{
            AttachArgs, Config, Connection, Event, LinkId, MAX_TRANSFER_HEADER, SessionId,
        },
        performative::{DeliveryState, Role},
    },
    link::wire::{Parts, Wire},
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
    inner: Inner,
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
            inner: Inner::new(1, Kind::Data, amqp, wire),
            socket: socket.expect("a connection"),
            peer: Connection::new(Config::new("peer"), now),
        }
    }

    /// Carries over what the peer has to say.
    fn carry_in(&mut self) -> Vec<Event> {
        let mut bytes = self.peer.output().split().freeze();
        let mut events = Vec::new();
        while let Some(event) = self
            .inner
            .amqp
            .receive(&mut bytes, Instant::now())
            .expect("frames")
        {
            events.push(event);
        }
        events
    }

    /// Carries over what we have to say, until the peer has seen what it looks for.
    async fn carry_out<R>(
        &mut self,
        mut look: impl FnMut(&mut Connection, Event) -> Option<R>,
    ) -> R {
        self.inner.drain_control();
        poll_fn(|cx| self.inner.wire.poll_flush(cx))
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
                if let Some(found) = look(&mut self.peer, event) {
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
                self.inner.accept(link, &attach);
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

struct Nothing;

impl StreamEnd for Nothing {
    fn data(&self, _: Current<'_>, _: Bytes) {}
    fn end(&self, _: Current<'_>, _: bool) {}
    fn flush(&self, _: Current<'_>) {}
    fn opened(&self, _: &mut Inner, _: OutStream) {}
    fn acked(&self, _: &mut Inner, _: u64) {}
    fn outcome(&self, _: &mut Inner, _: Outcome) {}
    fn writable(&self, _: &mut Inner) {}
    fn lost(&self) {}
}

fn modified(state: Option<&DeliveryState>) -> bool {
    matches!(state, Some(DeliveryState::Modified { .. }))
}

/// Upstream's router does not send the end of a delivery that was settled before it, and whatever it
/// puts on the same link afterwards never leaves it.
#[tokio::test]
async fn an_incomplete_delivery_is_settled_when_its_end_has_come() {
    let mut pair = Pair::new();
    let (link, stream) = pair.delivery().await;
    let end: End = Rc::new(Nothing);
    *pair.inner.in_link(stream.link) = Incoming::Stream {
        end,
        delivery: stream.delivery,
        done: false,
    };
    pair.inner.stream_started();
    pair.inner.settle(stream, Outcome::Modified);
    pair.inner.settle(stream, Outcome::Released);
    let (settled, state) = pair.carry_out(disposition).await;
    assert!(!settled && modified(state.as_ref()), "{settled} {state:?}");
    assert_eq!(pair.inner.streams(), 0);

    pair.transfer(link, false);
    pair.inner.discarded(stream.link);
    let (settled, state) = pair.carry_out(disposition).await;
    assert!(settled && modified(state.as_ref()), "{settled} {state:?}");
    assert!(matches!(pair.inner.in_link(stream.link), Incoming::Idle));
}

#[tokio::test]
async fn a_refused_delivery_is_settled_at_once_only_when_it_is_complete() {
    let mut pair = Pair::new();
    let (link, stream) = pair.delivery().await;
    pair.inner.refuse(stream, Outcome::Released, false);
    let (settled, _) = pair.carry_out(disposition).await;
    assert!(!settled);
    pair.transfer(link, false);
    pair.inner.discarded(stream.link);
    assert!(pair.carry_out(disposition).await.0);
}
