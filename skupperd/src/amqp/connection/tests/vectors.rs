//! Frames of skupper-routers: all decode, canonical ones encode to the same bytes, and either side of
//! each conversation can be replayed against a connection without an error.

use crate::amqp::{
    captured::{CapturedFrame, FILES, is_header, load, performative},
    codec::Reader,
    connection::{AttachArgs, Config, Connection, Event, LinkId, SessionId},
    frame,
    message::{Message, StreamParse, encode_stream_head, parse_stream_head},
    performative::{Attach, Performative, Role, Transfer},
    sasl::{ANONYMOUS, Sasl},
};
use bytes::BytesMut;
use std::{collections::HashMap, time::Instant};

#[test]
fn every_frame_decodes_and_canonical_ones_encode_to_the_same_bytes() {
    let (mut decoded, mut same) = (0, 0);
    for captured in FILES.into_iter().flat_map(load).filter(|c| !is_header(c)) {
        let Some((head, performative, payload)) = performative(&captured) else {
            continue;
        };
        decoded += 1;
        let mut again = BytesMut::new();
        performative.encode(&mut again);
        // skupper-router writes arrays and maps of open in their wide form: the same values, other bytes.
        if matches!(performative, Performative::Open(_)) {
            let back = Performative::decode(&mut Reader::new(&again)).expect("our own encoding");
            assert_eq!(back, performative, "{}", captured.location());
            continue;
        }
        assert_eq!(
            again[..],
            captured.padded()[head.body..payload],
            "{}: {performative:?}",
            captured.location()
        );
        same += 1;
    }
    assert!(
        decoded > 300 && same > 290,
        "{decoded} decoded, {same} the same"
    );
}

#[test]
fn heads_of_streams_encode_to_the_same_bytes() {
    let mut streams = 0;
    for captured in FILES
        .into_iter()
        .flat_map(load)
        .filter(|c| !is_header(c) && c.whole())
    {
        let Some((_, Performative::Transfer(t), payload)) = performative(&captured) else {
            continue;
        };
        let payload = &captured.bytes[payload..];
        if t.delivery_tag.is_none() || !payload.starts_with(&[0, 0x80, 0x53, 0x4b]) {
            continue;
        }
        match parse_stream_head(payload).unwrap_or_else(|e| panic!("{}: {e}", captured.location()))
        {
            StreamParse::Stream { head, raw_offset } => {
                let mut again = BytesMut::new();
                encode_stream_head(&head, &mut again);
                assert_eq!(again[..], payload[..raw_offset], "{}", captured.location());
                streams += 1;
                // Byte by byte: never an error, and complete only at the end.
                for n in 0..raw_offset {
                    let part = parse_stream_head(&payload[..n]).expect("a part of a head");
                    assert_eq!(part, StreamParse::NeedMore, "{n} of {raw_offset}");
                }
            }
            StreamParse::NotStream | StreamParse::NeedMore if !t.more => {
                let message = Message::decode(payload)
                    .unwrap_or_else(|e| panic!("{}: {e}", captured.location()));
                let mut again = BytesMut::new();
                message.encode(&mut again);
                assert_eq!(Message::decode(&again).expect("our own encoding"), message);
            }
            other => assert!(t.more, "{}: {other:?}", captured.location()),
        }
    }
    assert!(streams >= 12, "{streams} streams");
}

/// A connection that takes one side of a conversation, as far as that decides what the other may do.
struct Replay {
    conn: Connection,
    sessions: u16,
    links: HashMap<String, LinkId>,
    theirs: HashMap<String, (LinkId, Box<Attach>)>,
    /// Deliveries in progress by channel and handle.
    open: HashMap<(u16, u32), u32>,
}

impl Replay {
    /// The captures leave out runs of data frames, and with them the ends of some deliveries: ends
    /// these deliveries, as the router did.
    fn end_open_delivery(&mut self, captured: &CapturedFrame) {
        let Some((head, Performative::Transfer(t), _)) = performative(captured) else {
            return;
        };
        let link = (head.channel, t.handle);
        let missing = self
            .open
            .get(&link)
            .copied()
            .filter(|id| t.delivery_id.is_some_and(|n| n != *id));
        if let Some(id) = missing {
            let end = Transfer {
                handle: t.handle,
                delivery_id: Some(id),
                ..Transfer::default()
            };
            let mut body = BytesMut::new();
            Performative::Transfer(end).encode(&mut body);
            let mut out = BytesMut::new();
            frame::put(frame::AMQP, head.channel, &body, &mut out);
            let mut out = out.freeze();
            while self
                .conn
                .receive(&mut out, Instant::now())
                .expect("an end")
                .is_some()
            {}
        }
        let _previous = match t.delivery_id.filter(|_| t.more) {
            Some(id) => self.open.insert(link, id),
            None => self.open.remove(&link),
        };
    }

    fn act(&mut self, performative: Performative, channel: u16) {
        match performative {
            Performative::Begin(b) if b.remote_channel.is_none() => {
                self.conn.begin().expect("a session");
                self.sessions += 1;
            }
            Performative::Attach(a) => {
                if let Some((link, attach)) = self.theirs.remove(&a.name) {
                    let (source, target) = (attach.source, attach.target);
                    let (source, target) = (source.unwrap_or_default(), target.unwrap_or_default());
                    self.conn.accept_attach(link, source, target, 250);
                    return;
                }
                let credit = if a.role == Role::Receiver { 250 } else { 0 };
                let args = AttachArgs {
                    name: a.name.clone(),
                    role: a.role,
                    source: a.source.unwrap_or_default(),
                    target: a.target.unwrap_or_default(),
                    credit,
                };
                let link = self.conn.attach(SessionId(channel), args).expect("a link");
                self.links.insert(a.name, link);
            }
            _ => {}
        }
    }

    fn receive(&mut self, captured: &CapturedFrame) -> usize {
        let mut bytes = captured.padded();
        let mut events = 0;
        loop {
            match self.conn.receive(&mut bytes, Instant::now()) {
                Ok(Some(Event::Attach {
                    link,
                    remote_initiated: true,
                    attach,
                })) => {
                    self.theirs.insert(attach.name.clone(), (link, attach));
                    events += 1;
                }
                Ok(Some(_)) => events += 1,
                Ok(None) => return events,
                Err(e) => panic!("{}: {e}", captured.location()),
            }
        }
    }
}

#[test]
fn both_sides_of_every_conversation_can_be_replayed() {
    for file in FILES {
        for we_connect in [true, false] {
            let frames = load(file);
            let mut sasl = if we_connect {
                Sasl::client(&[ANONYMOUS])
            } else {
                Sasl::server(&[ANONYMOUS])
            };
            let mut replay = Replay {
                conn: Connection::new(Config::new("us"), Instant::now()),
                sessions: 0,
                links: HashMap::new(),
                theirs: HashMap::new(),
                open: HashMap::new(),
            };
            let mut events = 0;
            for captured in &frames {
                let ours = captured.by_connector == we_connect;
                if !ours && !sasl.is_done() {
                    let mut bytes = BytesMut::from(&captured.bytes[..]);
                    sasl.feed(&mut bytes)
                        .unwrap_or_else(|e| panic!("{}: {e}", captured.location()));
                    if bytes.is_empty() {
                        continue;
                    }
                }
                if !ours {
                    if !is_header(captured) {
                        replay.end_open_delivery(captured);
                    }
                    events += replay.receive(captured);
                } else if sasl.is_done()
                    && !is_header(captured)
                    && let Some((head, performative, _)) = performative(captured)
                {
                    replay.act(performative, head.channel);
                }
            }
            assert!(sasl.is_done() && events > 5, "{file}: {events} events");
        }
    }
}
