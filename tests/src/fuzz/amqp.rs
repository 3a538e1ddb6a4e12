//! A neighbour, or a client on this host, that sends hostile AMQP.

use super::heap;
use bytes::{Buf, Bytes};
use skupperd::amqp::{
    codec::{self, Reader},
    connection::{AttachArgs, Config, Connection, Event, LinkId, SessionId},
    frame::{self, Header},
    message::{Message, StreamParse, encode_stream_head, parse_stream_head},
    performative::{DeliveryState, Error, Performative, Role, Source, Target},
};
use std::time::{Duration, Instant};

/// Memory of a connection with its first tables.
const BASE: usize = 512 * 1024;
/// Per input byte: a byte can be a value in a list, and a list grows by doubling while the old half
/// still exists.
const EACH: usize = 256;

/// Behaviour of the tested side: bits of the first byte of an input.
struct Plan(u8);

impl Plan {
    /// Bytes per read.
    fn piece(&self) -> usize {
        [1, 7, 64, usize::MAX][usize::from(self.0 & 3)]
    }

    /// The tested side begins sessions with a link in each direction, as a dialling router does.
    fn dials(&self) -> bool {
        self.0 & 4 != 0
    }

    /// Links of the peer are refused.
    fn refuses(&self) -> bool {
        self.0 & 8 != 0
    }

    /// Links of the peer get no answer.
    fn ignores(&self) -> bool {
        self.0 & 16 != 0
    }

    /// Deliveries are settled when they are complete.
    fn settles(&self) -> bool {
        self.0 & 32 != 0
    }

    /// Own deliveries are sent settled.
    fn sends_settled(&self) -> bool {
        self.0 & 64 != 0
    }
}

struct Talk {
    plan: Plan,
    conn: Connection,
    now: Instant,
    events: usize,
}

/// A connection whose peer sends everything after the first byte. Returns the number of events, and
/// the error at its end.
pub fn connection(data: &[u8]) -> String {
    let Some((plan, stream)) = data.split_first() else {
        return String::new();
    };
    heap::bounded(data.len(), BASE, EACH, || {
        let now = Instant::now();
        let mut talk = Talk {
            plan: Plan(*plan),
            conn: Connection::new(Config::new("us"), now),
            now,
            events: 0,
        };
        let error = talk.all(stream);
        let error = error.map(|e| format!(" {}", e.condition));
        format!("{} events{}", talk.events, error.unwrap_or_default())
    })
}

impl Talk {
    fn all(&mut self, stream: &[u8]) -> Option<Error> {
        let mut header = self.take();
        assert_eq!(header.split_to(8)[..], frame::AMQP_HEADER);
        self.check(header);
        for piece in stream.chunks(self.plan.piece().min(stream.len().max(1))) {
            let mut input = Bytes::copy_from_slice(piece);
            loop {
                match self.conn.receive(&mut input, self.now) {
                    Ok(Some(event)) => self.react(event),
                    Ok(None) => break,
                    Err(e) => {
                        let closed = self.check_output();
                        assert!(closed, "an error without a close: {e}");
                        return Some(e.0);
                    }
                }
                self.check_output();
            }
            assert!(input.is_empty(), "input was left");
        }
        // Bounded, so that the body ends.
        let due = self.conn.poll_timeout().expect("a time-out");
        assert!(due <= self.now + Duration::from_secs(60));
        let late = self.now + Duration::from_secs(3600);
        assert!(self.conn.handle_timeout(late).is_err());
        None
    }

    fn react(&mut self, event: Event) {
        self.events += 1;
        match event {
            Event::Open(_) if self.plan.dials() => self.dial(),
            Event::Attach {
                link,
                remote_initiated: true,
                attach,
            } => {
                if self.plan.refuses() {
                    let error = Error::new("amqp:not-allowed", "no");
                    self.conn.refuse_attach(link, error);
                } else if !self.plan.ignores() {
                    let source = attach.source.unwrap_or_default();
                    let target = attach.target.unwrap_or_default();
                    self.conn.accept_attach(link, source, target, 10);
                }
            }
            Event::Flow { link, drain, .. } => {
                self.send(link);
                if drain {
                    self.conn.drained(link);
                }
            }
            Event::Transfer {
                delivery,
                settled: false,
                more: false,
                ..
            } if self.plan.settles() => {
                let state = Some(DeliveryState::Accepted);
                self.conn.disposition(delivery, state, true);
            }
            _ => {}
        }
    }

    fn dial(&mut self) {
        // As many as a router uses.
        for _ in 0..11 {
            if let Ok(session) = self.conn.begin() {
                self.attach(session);
            }
        }
    }

    fn attach(&mut self, session: SessionId) {
        for (name, role) in [("to", Role::Sender), ("from", Role::Receiver)] {
            let args = AttachArgs {
                name: name.to_owned(),
                role,
                source: Source::default(),
                target: Target::default(),
                credit: 10,
            };
            // The peer may accept no links.
            let _ = self.conn.attach(session, args);
        }
    }

    /// A few deliveries: a peer may grant credit for millions.
    fn send(&mut self, link: LinkId) {
        for _ in 0..self.conn.credit(link).min(3) {
            let settled = self.plan.sends_settled();
            if self.conn.send_message(link, b"payload", settled).is_err() {
                return;
            }
        }
    }

    fn take(&mut self) -> Bytes {
        self.conn.output().split().freeze()
    }

    /// Checks that a peer can decode the output. Returns whether it contains a close.
    fn check_output(&mut self) -> bool {
        let output = self.take();
        self.check(output)
    }

    fn check(&mut self, mut output: Bytes) -> bool {
        let mut closed = false;
        while !output.is_empty() {
            let head = Header::parse(&output, usize::MAX).expect("a frame of ours");
            let head = head.expect("a whole header");
            assert!(head.size <= output.len(), "half a frame");
            let body = &output[head.body..head.size];
            if !body.is_empty() {
                let ours = Performative::decode(&mut Reader::new(body));
                closed |= matches!(ours.expect("ours"), Performative::Close(_));
            }
            output.advance(head.size);
        }
        closed
    }
}

/// Decodes the bytes of a delivery as a message, as the head of a stream and as a value. A decoded
/// value must encode to bytes that decode to the same value.
pub fn message(data: &[u8]) -> String {
    heap::bounded(data.len(), BASE, EACH, || {
        let mut told = Vec::new();
        if let Ok(value) = Reader::new(data).value() {
            let mut written = Vec::new();
            codec::encode(&value, &mut written);
            let mut reader = Reader::new(&written);
            let again = reader.value().expect("a value of ours");
            // Compared as text, because NaN differs from itself.
            assert_eq!(format!("{again:?}"), format!("{value:?}"));
            assert_eq!(reader.remaining(), 0);
            told.push("value");
        }
        if let Ok(message) = Message::decode(data) {
            let write = |message: &Message| {
                let mut out = bytes::BytesMut::new();
                message.encode(&mut out);
                out
            };
            let written = write(&message);
            let again = Message::decode(&written).expect("a message of ours");
            // Trailing null fields may be omitted once; then the encoding is stable.
            assert_eq!(write(&again), written);
            assert_eq!(format!("{:?}", again.body), format!("{:?}", message.body));
            assert_eq!(again.to(), message.to());
            told.push("message");
        }
        match parse_stream_head(data) {
            Ok(StreamParse::Stream { head, raw_offset }) => {
                assert!(raw_offset <= data.len());
                let mut written = Vec::new();
                encode_stream_head(&head, &mut written);
                match parse_stream_head(&written) {
                    Ok(StreamParse::Stream { head: again, .. }) => {
                        assert_eq!(again.to(), head.to());
                    }
                    other => panic!("{other:?} of {head:?}"),
                }
                told.push("stream");
            }
            Ok(StreamParse::NeedMore) => told.push("more"),
            Ok(StreamParse::NotStream) | Err(_) => {}
        }
        told.join(" ")
    })
}
