//! Two connections that talk to each other in memory.

use crate::amqp::{
    connection::{
        AttachArgs, Config, Connection, Event, LinkId, MAX_TRANSFER_HEADER, SESSION_WINDOW,
    },
    performative::{DeliveryState, Role, Source, Target},
};
use bytes::{Buf, Bytes};
use proptest::prelude::*;
use std::time::{Duration, Instant};

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) a: Connection,
    pub(super) b: Connection,
}

impl Pair {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let mut pair = Self {
            now,
            a: Connection::new(Config::new("a"), now),
            b: Connection::new(Config::new("b"), now),
        };
        let (to_a, to_b) = pair.exchange();
        assert!(matches!(to_a[..], [Event::Open(_)]) && matches!(to_b[..], [Event::Open(_)]));
        pair
    }

    /// Delivers all output, until both are silent.
    pub(super) fn exchange(&mut self) -> (Vec<Event>, Vec<Event>) {
        let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
        loop {
            let (out_a, out_b) = (
                self.a.output().split().freeze(),
                self.b.output().split().freeze(),
            );
            if out_a.is_empty() && out_b.is_empty() {
                return (to_a, to_b);
            }
            to_b.extend(deliver(&mut self.b, out_a, self.now));
            to_a.extend(deliver(&mut self.a, out_b, self.now));
        }
    }

    /// A link from a to b that b accepts.
    pub(super) fn link(&mut self, credit: u32) -> LinkId {
        let session = self.a.begin().expect("a session");
        let args = AttachArgs {
            name: "l".into(),
            role: Role::Sender,
            ..AttachArgs::default()
        };
        let link = self.a.attach(session, args).expect("a link");
        let (_, to_b) = self.exchange();
        let theirs = to_b
            .iter()
            .find_map(|e| match e {
                Event::Attach {
                    link,
                    remote_initiated: true,
                    ..
                } => Some(*link),
                _ => None,
            })
            .expect("an attach");
        self.b
            .accept_attach(theirs, Source::default(), Target::default(), credit);
        self.exchange();
        link
    }
}

fn deliver(to: &mut Connection, mut bytes: Bytes, now: Instant) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = to.receive(&mut bytes, now).expect("our own frames") {
        events.push(event);
    }
    events
}

/// A transfer frame of the link's delivery with this payload.
fn transfer(from: &mut Connection, link: LinkId, payload: &[u8], more: bool) -> Vec<u8> {
    let mut header = [0; MAX_TRANSFER_HEADER];
    let n = from.transfer_header(link, more, false, &mut header);
    header[..4].copy_from_slice(&((n + payload.len()) as u32).to_be_bytes());
    from.transfer_sent(link, !more);
    [&header[..n], payload].concat()
}

fn payload(events: &[Event]) -> Vec<u8> {
    let part = |e: &Event| match e {
        Event::Transfer { payload, .. } => payload.to_vec(),
        _ => Vec::new(),
    };
    events.iter().flat_map(part).collect()
}

#[test]
fn a_delivery_that_never_completes_is_cut_through() {
    let mut pair = Pair::new();
    let link = pair.link(10);
    pair.a.start_delivery(link, false).expect("credit");
    let frame = transfer(&mut pair.a, link, &[7; 10_000], true);
    // Half a frame is half its payload, at once.
    let first = deliver(
        &mut pair.b,
        Bytes::copy_from_slice(&frame[..5_000]),
        pair.now,
    );
    assert!(payload(&first).len() > 4_900);
    let second = deliver(
        &mut pair.b,
        Bytes::copy_from_slice(&frame[5_000..]),
        pair.now,
    );
    assert_eq!(payload(&first).len() + payload(&second).len(), 10_000);
    assert!(matches!(
        second.last(),
        Some(Event::Transfer {
            more: true,
            first: false,
            ..
        })
    ));
}

#[test]
fn window_closes_and_opens_again() {
    let mut pair = Pair::new();
    let link = pair.link(10);
    pair.a.start_delivery(link, false).expect("credit");
    let mut frames = Vec::new();
    for _ in 0..SESSION_WINDOW {
        assert!(pair.a.window(link) > 0);
        frames.extend(transfer(&mut pair.a, link, b"x", true));
    }
    assert_eq!(pair.a.window(link), 0);
    deliver(&mut pair.b, frames.into(), pair.now);
    let (to_a, _) = pair.exchange();
    assert!(
        to_a.iter().any(|e| matches!(e, Event::Window { .. })),
        "{to_a:?}"
    );
    assert!(pair.a.window(link) > 0);
}

#[test]
fn credit_is_topped_up_and_never_overrun() {
    let mut pair = Pair::new();
    let link = pair.link(4);
    for _ in 0..50 {
        pair.a
            .send_message(link, b"m", true)
            .expect("credit again and again");
        pair.exchange();
    }
    let mut sent = 0;
    while pair.a.send_message(link, b"m", true).is_ok() {
        sent += 1;
    }
    assert!((2..=4).contains(&sent), "{sent} without an answer");
}

#[test]
fn dispositions_reach_the_sender_once() {
    let mut pair = Pair::new();
    let link = pair.link(10);
    let delivery = pair.a.send_message(link, b"m", false).expect("credit");
    let (_, to_b) = pair.exchange();
    let Some(Event::Transfer {
        delivery: theirs, ..
    }) = to_b.last()
    else {
        panic!("{to_b:?}")
    };
    let received = DeliveryState::Received {
        section_number: 0,
        section_offset: 42,
    };
    pair.b.disposition(*theirs, Some(received.clone()), false);
    let (to_a, _) = pair.exchange();
    assert_eq!(
        to_a,
        [Event::Disposition {
            link,
            delivery,
            settled: false,
            state: Some(received.into())
        }]
    );
    pair.b
        .disposition(*theirs, Some(DeliveryState::Accepted), true);
    pair.b
        .disposition(*theirs, Some(DeliveryState::Released), true);
    let (to_a, _) = pair.exchange();
    let accepted = Some(DeliveryState::Accepted.into());
    assert_eq!(
        to_a,
        [Event::Disposition {
            link,
            delivery,
            settled: true,
            state: accepted
        }]
    );
}

#[test]
fn detach_end_and_close_are_answered() {
    let mut pair = Pair::new();
    let link = pair.link(10);
    pair.a.detach(link, true, None);
    let (to_a, to_b) = pair.exchange();
    assert!(matches!(to_b[..], [Event::Detach { closed: true, .. }]));
    assert!(matches!(to_a[..], [Event::Detach { .. }]));
    assert_eq!((pair.a.link_count(), pair.b.link_count()), (0, 0));
    pair.a.close(None);
    let (_, to_b) = pair.exchange();
    assert_eq!(to_b, [Event::Close(None)]);
}

#[test]
fn drain_gives_credit_back() {
    let mut pair = Pair::new();
    let link = pair.link(10);
    assert_eq!(pair.a.credit(link), 10);
    pair.a.drained(link);
    pair.exchange();
    assert_eq!(pair.a.credit(link), 0);
}

#[test]
fn heartbeats_keep_a_silent_connection_and_silence_ends_it() {
    let mut pair = Pair::new();
    for _ in 0..60 {
        pair.now += Duration::from_secs(1);
        pair.a.handle_timeout(pair.now).expect("alive");
        pair.b.handle_timeout(pair.now).expect("alive");
        pair.exchange();
    }
    // Now nothing arrives any more.
    pair.now += Duration::from_secs(15);
    assert!(pair.a.handle_timeout(pair.now).is_ok());
    pair.now += Duration::from_secs(2);
    let error = pair.a.handle_timeout(pair.now).expect_err("a silent peer");
    assert!(
        error.to_string().contains("nothing received for 16 s"),
        "{error}"
    );
}

#[test]
fn larger_frames_are_allowed_in_both_directions() {
    let mut pair = Pair::new();
    let link = pair.link(10);
    let before = pair.a.max_payload();
    pair.a.raise_max_frame_size(131_072);
    pair.b.raise_max_frame_size(131_072);
    assert!(pair.a.max_payload() > before * 7);
    pair.a.start_delivery(link, false).expect("credit");
    let frame = transfer(&mut pair.a, link, &vec![1; 131_000], false);
    assert_eq!(
        payload(&deliver(&mut pair.b, frame.into(), pair.now)).len(),
        131_000
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are split, the same payload arrives in the same order.
    #[test]
    fn payload_does_not_depend_on_how_the_input_is_split(
        sizes in prop::collection::vec(0usize..3000, 1..12),
        cuts in prop::collection::vec(1usize..700, 1..40),
    ) {
        let mut pair = Pair::new();
        let link = pair.link(10);
        pair.a.start_delivery(link, false).expect("credit");
        let mut sent = Vec::new();
        let mut frames = Vec::new();
        for (n, size) in sizes.iter().enumerate() {
            let part: Vec<u8> = (0..*size).map(|i| (i * 31 + n) as u8).collect();
            frames.extend(transfer(&mut pair.a, link, &part, n + 1 < sizes.len()));
            sent.extend(part);
        }
        let mut bytes = Bytes::from(frames);
        let mut events = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while bytes.has_remaining() {
            let n = (*cuts.next().expect("a cut")).min(bytes.len());
            events.extend(deliver(&mut pair.b, bytes.split_to(n), pair.now));
        }
        prop_assert_eq!(payload(&events), sent);
        let last = matches!(events.last(), Some(Event::Transfer { more: false, .. }));
        prop_assert!(last);
    }
}
