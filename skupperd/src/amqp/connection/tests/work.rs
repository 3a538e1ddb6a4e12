//! What a peer can make a connection do: work is near linear in the bytes that it sends.
//!
//! The bound is far above what this takes and far below what a search through all links or deliveries
//! for each frame takes.

use super::pair::Pair;
use crate::amqp::{
    connection::{Event, Limits, SESSION_WINDOW},
    cpu_time::{cpu_time, cpu_time_since},
    frame,
    performative::{
        Attach, Begin, DeliveryState, Detach, Disposition, Flow, Performative, Role, Source,
        Target, Transfer,
    },
};
use bytes::{BufMut, BytesMut};
use std::time::Duration;

const LINKS: u32 = 40_000;
/// Processor time.
const MOST: Duration = Duration::from_secs(5);

fn assert_cheap(begin: Duration) {
    let took = cpu_time_since(begin);
    assert!(took < MOST, "{took:?}");
}

fn put(channel: u16, performative: &Performative, payload: &[u8], out: &mut BytesMut) {
    let mut body = BytesMut::new();
    performative.encode(&mut body);
    body.put_slice(payload);
    frame::put(frame::AMQP, channel, &body, out);
}

fn attach(handle: u32) -> Performative {
    let attach = Attach {
        name: format!("n{handle}"),
        handle,
        role: Role::Sender,
        initial_delivery_count: Some(0),
        ..Attach::default()
    };
    Performative::Attach(Box::new(attach))
}

fn delivery(handle: u32, id: u32) -> Performative {
    Performative::Transfer(Transfer {
        handle,
        delivery_id: Some(id),
        more: true,
        ..Transfer::default()
    })
}

/// Feeds the bytes to `b`, which accepts links. Returns the number of events, or the condition of the
/// error.
fn feed(pair: &mut Pair, bytes: BytesMut) -> Result<usize, String> {
    let (mut bytes, mut events) = (bytes.freeze(), 0);
    loop {
        let event = pair.b.receive(&mut bytes, pair.now);
        pair.b.output().clear();
        match event.map_err(|e| e.0.condition.to_string())? {
            None => return Ok(events),
            Some(Event::Attach { link, .. }) => {
                let (source, target) = (Source::default(), Target::default());
                pair.b.accept_attach(link, source, target, 10);
            }
            Some(_) => {}
        }
        events += 1;
    }
}

fn begun(sessions: u16) -> Pair {
    let mut pair = Pair::new();
    let mut input = BytesMut::new();
    for channel in 0..sessions {
        put(
            channel,
            &Performative::Begin(Begin::default()),
            b"",
            &mut input,
        );
    }
    feed(&mut pair, input).expect("sessions");
    pair
}

/// Links, each with a delivery under way.
fn busy(pair: &mut Pair, channel: u16, links: u32) {
    let mut input = BytesMut::new();
    for handle in 0..links {
        put(channel, &attach(handle), b"", &mut input);
    }
    for handle in 0..links {
        put(channel, &delivery(handle, handle), b"x", &mut input);
        if handle % (SESSION_WINDOW / 4) == 0 {
            // Our flows open the window; nothing of the peer's is needed for that.
            feed(pair, std::mem::take(&mut input)).expect("links");
        }
    }
    feed(pair, input).expect("links");
}

#[test]
fn a_session_ends_in_time_however_many_links_and_deliveries_it_has() {
    let mut pair = begun(1);
    let begin = cpu_time();
    busy(&mut pair, 0, LINKS);
    let mut input = BytesMut::new();
    put(0, &Performative::End(None), b"", &mut input);
    assert_eq!(feed(&mut pair, input), Ok(LINKS as usize + 1));
    assert_cheap(begin);
    assert_eq!(pair.b.link_count(), 0);
}

#[test]
fn links_detach_and_attach_in_time() {
    let mut pair = begun(1);
    busy(&mut pair, 0, LINKS);
    let begin = cpu_time();
    let mut input = BytesMut::new();
    for handle in 0..LINKS {
        let detach = Detach {
            handle,
            closed: true,
            error: None,
        };
        put(0, &Performative::Detach(detach), b"", &mut input);
        put(0, &attach(handle), b"", &mut input);
    }
    assert_eq!(feed(&mut pair, input), Ok(2 * LINKS as usize));
    assert_cheap(begin);
}

#[test]
fn sessions_begin_and_end_in_time_beside_one_with_many_links() {
    let mut pair = begun(1000);
    busy(&mut pair, 0, LINKS);
    let begin = cpu_time();
    let mut input = BytesMut::new();
    for _ in 0..20_000 {
        put(999, &Performative::End(None), b"", &mut input);
        put(999, &Performative::Begin(Begin::default()), b"", &mut input);
        put(999, &attach(LINKS), b"", &mut input);
    }
    feed(&mut pair, input).expect("sessions");
    assert_cheap(begin);
}

#[test]
fn an_outcome_is_reported_once_however_often_a_peer_repeats_it() {
    let mut pair = begun(1);
    busy(&mut pair, 0, LINKS);
    let all = |state| {
        Performative::Disposition(Disposition {
            role: Role::Sender,
            first: 0,
            last: Some(LINKS - 1),
            state,
            ..Disposition::default()
        })
    };
    let received = DeliveryState::Received {
        section_number: 0,
        section_offset: 1,
    };
    let begin = cpu_time();
    let mut input = BytesMut::new();
    for _ in 0..500 {
        put(0, &all(Some(DeliveryState::Accepted)), b"", &mut input);
        put(0, &all(None), b"", &mut input);
        put(0, &all(Some(received.clone())), b"", &mut input);
    }
    assert_eq!(feed(&mut pair, input), Ok(LINKS as usize));
    assert_cheap(begin);
}

#[test]
fn an_offset_for_many_deliveries_is_taken_for_a_few() {
    let mut pair = begun(1);
    busy(&mut pair, 0, 1000);
    let offset = Performative::Disposition(Disposition {
        role: Role::Sender,
        first: 10,
        last: Some(999),
        state: Some(DeliveryState::Received {
            section_number: 0,
            section_offset: 1,
        }),
        ..Disposition::default()
    });
    let mut input = BytesMut::new();
    put(0, &offset, b"", &mut input);
    assert_eq!(feed(&mut pair, input), Ok(32));
}

#[test]
fn unsettled_deliveries_of_all_sessions_count_together() {
    let sessions = 5;
    let mut pair = begun(sessions);
    pair.b.limits.unsettled = 100;
    for channel in 0..sessions {
        let mut input = BytesMut::new();
        for handle in 0..30 {
            put(channel, &attach(handle), b"", &mut input);
            put(channel, &delivery(handle, handle), b"x", &mut input);
        }
        let fed = feed(&mut pair, input);
        match channel {
            0..3 => assert_eq!(fed, Ok(60)),
            _ => {
                assert_eq!(fed, Err("amqp:resource-limit-exceeded".to_owned()));
                return;
            }
        }
    }
}

#[test]
fn deliveries_of_ended_sessions_and_links_count_no_more() {
    let mut pair = begun(1);
    pair.b.limits.unsettled = 100;
    for _ in 0..20 {
        busy(&mut pair, 0, 30);
        let mut input = BytesMut::new();
        for handle in 0..15 {
            let detach = Detach {
                handle,
                closed: true,
                error: None,
            };
            put(0, &Performative::Detach(detach), b"", &mut input);
        }
        put(0, &Performative::End(None), b"", &mut input);
        put(0, &Performative::Begin(Begin::default()), b"", &mut input);
        feed(&mut pair, input).expect("within the limit");
    }
}

#[test]
fn links_are_bounded_by_the_bytes_of_their_attaches() {
    let mut pair = begun(1);
    pair.b.limits.link_bytes = 1024 * 1024;
    let attach = |handle: u32| {
        let attach = Attach {
            name: format!("{handle:01000}"),
            handle,
            role: Role::Sender,
            ..Attach::default()
        };
        Performative::Attach(Box::new(attach))
    };
    let mut attached = 0;
    let error = (0..LINKS).find_map(|handle| {
        let mut input = BytesMut::new();
        put(0, &attach(handle), b"", &mut input);
        attached += 1;
        feed(&mut pair, input).err()
    });
    assert_eq!(error.as_deref(), Some("amqp:resource-limit-exceeded"));
    assert!((700..900).contains(&attached), "{attached} links");
}

#[test]
fn a_peer_that_flows_on_a_handle_of_another_session_finds_no_link() {
    let mut pair = begun(2);
    busy(&mut pair, 0, 3);
    let flow = Flow {
        handle: Some(1),
        ..Flow::default()
    };
    let mut input = BytesMut::new();
    put(1, &Performative::Flow(flow), b"", &mut input);
    let condition = "amqp:session:unattached-handle";
    assert_eq!(feed(&mut pair, input), Err(condition.to_owned()));
}

#[test]
fn the_default_limits_leave_room_for_all_streams_of_a_link() {
    // `MAX_STREAMS` of a connection, in each direction; attaches of routers have less than 200 bytes.
    let streams = 2 * 32_000;
    let limits = Limits::default();
    assert!(limits.link_bytes / streams > 256 + 200);
    assert!(limits.links > streams);
}
