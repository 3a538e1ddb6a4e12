//! Regression tests of the decoders, most of them found by fuzzing. They measure the memory that a
//! peer can make the decoder allocate.

use bytes::{BufMut, Bytes, BytesMut};
use skupper_tests::fuzz::{self, heap};
use skupperd::{
    amqp::{
        codec::{self, Reader},
        connection::{Config, Connection, Event},
        frame,
        performative::{
            Attach, Begin, DeliveryState, Disposition, Error, Open, Performative, Role, Source,
            Target, Transfer,
        },
        value::Value,
    },
    manifest,
};
use std::{path::Path, time::Instant};

const MIB: usize = 1024 * 1024;

fn framed(channel: u16, performative: &Performative) -> Bytes {
    let (mut body, mut out) = (BytesMut::new(), BytesMut::new());
    performative.encode(&mut body);
    frame::put(frame::AMQP, channel, &body, &mut out);
    out.freeze()
}

/// A connection whose peer has sent its open frame.
fn open() -> Connection {
    let mut conn = Connection::new(Config::new("us"), Instant::now());
    let mut input = BytesMut::from(&frame::AMQP_HEADER[..]);
    input.extend_from_slice(&framed(0, &Performative::Open(Box::default())));
    feed(&mut conn, input.freeze()).expect("an open");
    conn
}

/// Feeds bytes to the connection and discards its events and its output.
fn feed(conn: &mut Connection, mut input: Bytes) -> Result<usize, String> {
    let mut events = 0;
    loop {
        let event = conn.receive(&mut input, Instant::now());
        conn.output().clear();
        match event.map_err(|e| e.to_string())? {
            None => return Ok(events),
            Some(Event::Attach { link, .. }) => {
                conn.accept_attach(link, Source::default(), Target::default(), 100);
            }
            Some(_) => {}
        }
        events += 1;
    }
}

fn attach(handle: u32) -> Performative {
    let attach = Attach {
        name: format!("n{handle}"),
        handle,
        role: Role::Sender,
        ..Attach::default()
    };
    Performative::Attach(Box::new(attach))
}

fn error(text: usize) -> Error {
    Error::new("amqp:internal-error", "x".repeat(text))
}

#[test]
fn the_descriptor_of_an_array_is_not_copied_without_bound() {
    let mut body = vec![0];
    codec::string(&"x".repeat(10_000), &mut body);
    body.put_u8(0x40);
    let mut array = vec![0xf0];
    array.put_u32(body.len() as u32 + 4);
    array.put_u32(100_000);
    array.extend_from_slice(&body);
    let (value, peak) = heap::peak(|| Reader::new(&array).value());
    assert!(value.is_err());
    assert!(peak < MIB, "{peak} octets");
}

#[test]
fn an_array_of_nulls_is_bounded() {
    let array = |count: u8| [0xe0, 2, count, 0x45];
    assert!(Reader::new(&array(16)).value().is_ok());
    assert!(Reader::new(&array(17)).value().is_err());
}

#[test]
fn an_array_of_described_values_is_written_as_it_was_read() {
    let item = |n| Value::Described(Box::new((Value::Ulong(0x24), Value::Ubyte(n))));
    let array = Value::Array(vec![item(1), item(2)]);
    for value in [array.clone(), Value::Array(vec![array.clone(), array])] {
        let mut written = Vec::new();
        codec::encode(&value, &mut written);
        assert_eq!(Reader::new(&written).value(), Ok(value));
    }
}

#[test]
fn high_handles_in_many_sessions_do_not_add_up() {
    let mut input = BytesMut::new();
    for channel in 0..500 {
        input.extend_from_slice(&framed(channel, &Performative::Begin(Begin::default())));
        input.extend_from_slice(&framed(channel, &attach(69_000)));
    }
    let ((mut conn, fed), peak) = heap::peak(|| {
        let mut conn = open();
        let fed = feed(&mut conn, input.freeze());
        (conn, fed)
    });
    assert_eq!(fed, Ok(1000));
    assert!(peak < 2 * MIB, "{peak} octets");
    drop(conn.output().split());
}

#[test]
fn handles_are_free_again_when_their_links_are_gone() {
    let mut conn = open();
    for channel in 0..5 {
        let mut input = BytesMut::new();
        input.extend_from_slice(&framed(channel, &Performative::Begin(Begin::default())));
        input.extend_from_slice(&framed(channel, &attach(69_000)));
        let detach = skupperd::amqp::performative::Detach {
            handle: 69_000,
            closed: true,
            error: None,
        };
        input.extend_from_slice(&framed(channel, &Performative::Detach(detach)));
        assert_eq!(feed(&mut conn, input.freeze()), Ok(3), "{channel}");
    }
}

#[test]
fn one_disposition_of_many_deliveries_is_stored_once() {
    let mut conn = open();
    let mut input = BytesMut::new();
    input.extend_from_slice(&framed(0, &Performative::Begin(Begin::default())));
    input.extend_from_slice(&framed(0, &attach(0)));
    for id in 0..5000 {
        let transfer = Transfer {
            handle: 0,
            delivery_id: Some(id),
            ..Transfer::default()
        };
        input.extend_from_slice(&framed(0, &Performative::Transfer(transfer)));
    }
    feed(&mut conn, input.freeze()).expect("deliveries");
    let all = Disposition {
        role: Role::Sender,
        first: 0,
        last: Some(5000),
        state: Some(DeliveryState::Rejected(Some(error(10_000)))),
        ..Disposition::default()
    };
    let input = framed(0, &Performative::Disposition(all));
    let (fed, peak) = heap::peak(|| feed(&mut conn, input));
    assert_eq!(fed, Ok(5000));
    assert!(peak < 2 * MIB, "{peak} octets");
}

#[test]
fn the_reason_of_a_session_that_ends_is_kept_once_for_all_its_links() {
    let mut conn = open();
    let mut input = BytesMut::new();
    input.extend_from_slice(&framed(0, &Performative::Begin(Begin::default())));
    for handle in 0..2000 {
        input.extend_from_slice(&framed(0, &attach(handle)));
    }
    feed(&mut conn, input.freeze()).expect("links");
    let input = framed(0, &Performative::End(Some(error(10_000))));
    let (fed, peak) = heap::peak(|| feed(&mut conn, input));
    assert_eq!(fed, Ok(2001));
    assert!(peak < 2 * MIB, "{peak} octets");
}

#[test]
fn a_close_about_octets_too_many_does_not_repeat_them() {
    let mut conn = open();
    let open = Open {
        container_id: "\u{1}".repeat(15_000),
        ..Open::default()
    };
    let mut body = BytesMut::new();
    Performative::Open(Box::new(open)).encode(&mut body);
    body.put_slice(b"behind");
    let mut input = BytesMut::new();
    frame::put(frame::AMQP, 0, &body, &mut input);
    let mut input = input.freeze();
    assert!(conn.receive(&mut input, Instant::now()).is_err());
    assert!(conn.output().len() < frame::MIN_MAX_FRAME);
}

#[test]
fn the_highest_sequence_of_addresses_has_no_next() {
    let seeds = fuzz::seeds("router");
    let (_, seed) = seeds
        .iter()
        .find(|(name, _)| name == "highest")
        .expect("it");
    assert_eq!(fuzz::router(seed), "4 good 0 bad");
}

#[test]
fn a_secret_without_a_certificate_is_written_as_what_it_is() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: p}\nstringData: {host: h, port: '1', \
                username: me, password: 'x: y'}\n";
    let read = |text: &str| {
        let mut all = manifest::parse(Path::new("-"), text.as_bytes(), None);
        all.remove(0).expect("a Secret").resource
    };
    let proxy = read(text);
    let written = manifest::to_yaml(&manifest::document_of(&proxy)).expect("YAML");
    assert_eq!(read(&written), proxy);
}
