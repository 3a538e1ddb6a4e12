//! Frames of real routers: all decode, canonical ones encode to the same bytes, and either side of
//! each conversation can be replayed against us without an error.

use crate::amqp::{
    codec::Reader,
    connection::{AttachArgs, Config, Connection, Event, LinkId, SessionId},
    frame::{self, Header},
    message::{Message, StreamParse, encode_stream_head, parse_stream_head},
    performative::{Attach, Performative, Role, Transfer},
    sasl::{ANONYMOUS, Sasl},
};
use bytes::{Bytes, BytesMut};
use std::{collections::HashMap, path::Path, time::Instant};

const FILES: [&str; 4] = [
    "interior-control.txt",
    "interior-data-1.txt",
    "interior-data-2.txt",
    "edge.txt",
];

struct Captured {
    file: &'static str,
    number: String,
    by_connector: bool,
    /// Whole, or the first bytes of a longer one.
    bytes: Vec<u8>,
    size: usize,
}

impl Captured {
    fn whole(&self) -> bool {
        self.bytes.len() == self.size
    }

    /// The frame with zeros for what was not kept.
    fn padded(&self) -> Bytes {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.size, 0);
        bytes.into()
    }

    fn place(&self) -> String {
        format!("{} frame {}", self.file, self.number)
    }
}

fn load(file: &'static str) -> Vec<Captured> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let text = std::fs::read_to_string(&path).expect("captured frames");
    let mut all = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((head, hex)) = line.rsplit_once(" | ") else {
            continue;
        };
        let words: Vec<&str> = head.split_whitespace().collect();
        let (true, Some(side)) = (words.len() > 3, words.get(1)) else {
            continue;
        };
        let hex = hex.trim().trim_end_matches("...");
        let digits: Vec<u8> = hex
            .as_bytes()
            .chunks_exact(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let size: usize = words[3].parse().expect("a size");
        all.push(Captured {
            file,
            number: words[0].to_owned(),
            by_connector: *side == "C",
            bytes: digits,
            size,
        });
    }
    assert!(all.len() > 20, "{file} has only {} frames", all.len());
    all
}

fn performative(captured: &Captured) -> Option<(Header, Performative, usize)> {
    let padded = captured.padded();
    let head = Header::parse(&padded, 1 << 20)
        .expect("a header")
        .expect("a whole header");
    if head.kind != frame::AMQP || head.body == head.size {
        return None;
    }
    let mut reader = Reader::new(&padded[head.body..]);
    let performative =
        Performative::decode(&mut reader).unwrap_or_else(|e| panic!("{}: {e}", captured.place()));
    Some((head, performative, padded.len() - reader.remaining()))
}

fn is_header(captured: &Captured) -> bool {
    captured.bytes.starts_with(b"AMQP")
}

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
        // Upstream writes arrays and maps of open in their wide form: the same values, other bytes.
        if matches!(performative, Performative::Open(_)) {
            let back = Performative::decode(&mut Reader::new(&again)).expect("our own encoding");
            assert_eq!(back, performative, "{}", captured.place());
            continue;
        }
        assert_eq!(
            again[..],
            captured.padded()[head.body..payload],
            "{}: {performative:?}",
            captured.place()
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
        match parse_stream_head(payload).unwrap_or_else(|e| panic!("{}: {e}", captured.place())) {
            StreamParse::Stream { head, raw_offset } => {
                let mut again = BytesMut::new();
                encode_stream_head(&head, &mut again);
                assert_eq!(again[..], payload[..raw_offset], "{}", captured.place());
                streams += 1;
                // Byte by byte: never an error, and complete only at the end.
                for n in 0..raw_offset {
                    let part = parse_stream_head(&payload[..n]).expect("a part of a head");
                    assert_eq!(part, StreamParse::NeedMore, "{n} of {raw_offset}");
                }
            }
            StreamParse::NotStream | StreamParse::NeedMore if !t.more => {
                let message = Message::decode(payload)
                    .unwrap_or_else(|e| panic!("{}: {e}", captured.place()));
                let mut again = BytesMut::new();
                message.encode(&mut again);
                assert_eq!(Message::decode(&again).expect("our own encoding"), message);
            }
            other => assert!(t.more, "{}: {other:?}", captured.place()),
        }
    }
    assert!(streams >= 12, "{streams} streams");
}

/// Does what one side of a conversation did, as far as that decides what the other may do.
struct Replay {
    conn: Connection,
    sessions: u16,
    links: HashMap<String, LinkId>,
    theirs: HashMap<String, (LinkId, Box<Attach>)>,
    /// Deliveries in progress by channel and handle.
    open: HashMap<(u16, u32), u32>,
}

impl Replay {
    /// Runs of data frames are not listed in the files, and with them the ends of some deliveries:
    /// these are ended here, as the router did.
    fn mend(&mut self, captured: &Captured) {
        let Some((head, Performative::Transfer(t), _)) = performative(captured) else {
            return;
        };
        let place = (head.channel, t.handle);
        let missing = self
            .open
            .get(&place)
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
            Some(id) => self.open.insert(place, id),
            None => self.open.remove(&place),
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

    fn receive(&mut self, captured: &Captured) -> usize {
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
                Err(e) => panic!("{}: {e}", captured.place()),
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
                        .unwrap_or_else(|e| panic!("{}: {e}", captured.place()));
                    if bytes.is_empty() {
                        continue;
                    }
                }
                if !ours {
                    if !is_header(captured) {
                        replay.mend(captured);
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
