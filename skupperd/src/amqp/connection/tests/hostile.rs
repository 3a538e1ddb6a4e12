//! Hostile peers: the connection closes with the right condition and stays within its limits.

use super::pair::Pair;
use crate::amqp::{
    codec::{Reader, encode},
    connection::{Config, Connection},
    frame,
    performative::{Attach, Disposition, Flow, Performative, Role, Transfer},
    value::Value,
};
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use std::time::Instant;

fn framed(channel: u16, performative: &Performative, payload: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    performative.encode(&mut body);
    body.put_slice(payload);
    let mut out = BytesMut::new();
    frame::put(frame::AMQP, channel, &body, &mut out);
    out.freeze()
}

fn error(pair: &mut Pair, mut bytes: Bytes) -> String {
    loop {
        match pair.b.receive(&mut bytes, pair.now) {
            Ok(Some(_)) => {}
            Ok(None) => return String::from("no error"),
            Err(e) => {
                assert!(!pair.b.output().is_empty(), "an error without a close");
                return e.0.condition.to_string();
            }
        }
    }
}

fn raw(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[test]
fn each_violation_has_its_condition() {
    let attach = |handle: u32| {
        let attach = Attach {
            name: format!("n{handle}"),
            handle,
            ..Attach::default()
        };
        Performative::Attach(Box::new(attach))
    };
    let transfer = |id: Option<u32>| {
        let t = Transfer {
            handle: 0,
            delivery_id: id,
            ..Transfer::default()
        };
        Performative::Transfer(t)
    };
    let cases: Vec<(&str, Bytes)> = vec![
        (
            "amqp:connection:framing-error",
            raw(&[0x80, 0, 0, 0, 2, 0, 0, 0]),
        ),
        (
            "amqp:connection:framing-error",
            raw(&[0, 0, 0, 7, 2, 0, 0, 0]),
        ),
        (
            "amqp:connection:framing-error",
            raw(&[0, 0, 0, 8, 1, 0, 0, 0]),
        ),
        (
            "amqp:connection:framing-error",
            raw(&[0, 0, 0, 8, 2, 9, 0, 0]),
        ),
        (
            "amqp:decode-error",
            raw(&[0, 0, 0, 10, 2, 0, 0, 0, 0xff, 0xff]),
        ),
        (
            "amqp:not-found",
            framed(9, &Performative::Flow(Flow::default()), b""),
        ),
        (
            "amqp:session:unattached-handle",
            framed(0, &transfer(Some(0)).with_handle(7), b"x"),
        ),
        (
            "amqp:connection:framing-error",
            framed(0, &attach(4_000_000_000), b""),
        ),
        ("amqp:session:handle-in-use", framed(0, &attach(0), b"")),
        ("amqp:invalid-field", framed(0, &transfer(None), b"x")),
        (
            "amqp:connection:framing-error",
            framed(0, &Performative::Close(None), b"tail"),
        ),
    ];
    for (condition, bytes) in cases {
        let mut pair = Pair::new();
        pair.link(10);
        assert_eq!(error(&mut pair, bytes.clone()), condition, "{bytes:?}");
    }
}

trait WithHandle {
    fn with_handle(self, handle: u32) -> Self;
}

impl WithHandle for Performative {
    fn with_handle(self, handle: u32) -> Self {
        match self {
            Self::Transfer(t) => Self::Transfer(Transfer { handle, ..t }),
            other => other,
        }
    }
}

#[test]
fn credit_overrun_is_a_violation() {
    let mut pair = Pair::new();
    let link = pair.link(0);
    assert_eq!(pair.a.credit(link), 0);
    let transfer = Transfer {
        handle: 0,
        delivery_id: Some(0),
        ..Transfer::default()
    };
    let bytes = framed(0, &Performative::Transfer(transfer), b"x");
    assert_eq!(error(&mut pair, bytes), "amqp:link:transfer-limit-exceeded");
}

#[test]
fn a_disposition_of_the_whole_id_range_is_cheap() {
    let mut pair = Pair::new();
    pair.link(10);
    let all = Disposition {
        role: Role::Receiver,
        first: 0,
        last: Some(u32::MAX),
        settled: true,
        ..Disposition::default()
    };
    let begin = Instant::now();
    assert_eq!(
        error(&mut pair, framed(0, &Performative::Disposition(all), b"")),
        "no error"
    );
    assert!(begin.elapsed().as_secs() < 1);
}

#[test]
fn huge_counts_and_deep_nesting_are_refused() {
    // An array of 2^32 - 1 empty lists, in fourteen bytes.
    let array = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x45];
    assert!(Reader::new(&array).value().is_err());
    let list = [0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];
    assert!(Reader::new(&list).value().is_err());
    let mut deep = Value::Null;
    for _ in 0..200 {
        deep = Value::List(vec![deep]);
    }
    let mut bytes = Vec::new();
    encode(&deep, &mut bytes);
    assert!(Reader::new(&bytes).value().is_err());
}

#[test]
fn a_protocol_header_of_another_kind_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"AMQP\x00\x00\x09\x01",
        b"AMQP\x03\x01\x00\x00",
    ] {
        let mut conn = Connection::new(Config::new("x"), Instant::now());
        let mut bytes = Bytes::copy_from_slice(bytes);
        assert!(conn.receive(&mut bytes, Instant::now()).is_err());
    }
}

/// Any value, a few levels deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u8>().prop_map(Value::Ubyte),
        any::<u16>().prop_map(Value::Ushort),
        any::<u32>().prop_map(Value::Uint),
        any::<u64>().prop_map(Value::Ulong),
        any::<i32>().prop_map(Value::Int),
        any::<i64>().prop_map(Value::Long),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|b| Value::Binary(b.into())),
        "[a-z]{0,300}".prop_map(Value::String),
        "[a-z:.]{0,20}".prop_map(|s| Value::Symbol(s.into())),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::Map),
            (inner.clone(), inner).prop_map(|(d, v)| Value::Described(Box::new((d, v)))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn values_survive_a_round_trip(value in value()) {
        let mut bytes = Vec::new();
        encode(&value, &mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.value().expect("our own encoding"), value);
        prop_assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn any_bytes_end_in_an_error_or_a_wait(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut pair = Pair::new();
        pair.link(10);
        let mut input = Bytes::from(bytes);
        while let Ok(Some(_)) = pair.b.receive(&mut input, pair.now) {}
        prop_assert!(pair.b.output().len() < 64 * 1024);
    }

    #[test]
    fn a_frame_with_any_byte_changed_does_not_panic(at in 0usize..200, to in any::<u8>()) {
        let attach = Attach { name: "x".into(), handle: 1, ..Attach::default() };
        let mut bytes = framed(0, &Performative::Attach(Box::new(attach)), b"").to_vec();
        let n = bytes.len();
        bytes[at % n] = to;
        let mut pair = Pair::new();
        pair.link(10);
        let mut input = Bytes::from(bytes);
        while let Ok(Some(_)) = pair.b.receive(&mut input, pair.now) {}
    }
}
