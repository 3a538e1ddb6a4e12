//! Heads of streams that are short where they come in and long where they go out.

use super::{Honest, Scene, named};
use bytes::BufMut;
use skupper_tests::hostile_peer::{HostilePeer, encoded, stream, stream_head};
use skupperd::amqp::{
    codec::encode,
    message::{Body, Message, Properties, RouterAnnotations},
    value::Value,
};

/// A head with an application property that is written by hand, then the marker of a stream.
fn head_with(to: &str, property: &[u8]) -> Vec<u8> {
    let head = stream(to, Vec::new());
    // Without the application properties, which are empty, and the marker.
    let marker = [0, 0x53, 0x77, 0x40];
    let empty = [0, 0x53, 0x74, 0xd1, 0, 0, 0, 4, 0, 0, 0, 0];
    let mut out = head[..head.len() - marker.len() - empty.len()].to_vec();
    let mut body = Vec::new();
    encode(&Value::from("k"), &mut body);
    body.put_slice(property);
    out.put_slice(&[0, 0x53, 0x74, 0xd1]);
    out.put_u32(body.len() as u32 + 4);
    out.put_u32(2);
    out.put_slice(&body);
    out.put_slice(&marker);
    out
}

/// An array of so many one-byte numbers.
fn numbers(count: u32) -> Vec<u8> {
    let mut array = vec![0xf0];
    array.put_u32(4 + 1 + count);
    array.put_u32(count);
    array.put_u8(0x53);
    array.extend(vec![7; count as usize]);
    array
}

/// Heads for a routing key: an array that was written eight times as long as it was read, properties of all
/// sizes around a frame, and many small sections' worth of trace.
fn heads(key: &str) -> Vec<Vec<u8>> {
    let text = |n: usize| vec![("k".into(), Value::String("x".repeat(n)))];
    let mut traced = stream_head(key, Vec::new());
    traced.annotations = RouterAnnotations {
        flags: 5,
        trace: (0..500).map(|n| format!("0/router-{n}")).collect(),
        ..RouterAnnotations::default()
    };
    let mut trace = bytes::BytesMut::new();
    skupperd::amqp::message::encode_stream_head(&traced, &mut trace);
    vec![
        head_with(key, &numbers(15_000)),
        stream(key, text(100)),
        stream(key, text(15_000)),
        stream(key, text(17_000)),
        head_with(key, &numbers(1_900)),
        trace.to_vec(),
    ]
}

/// Sends each head on a link of its own, in frames of at most `piece` bytes.
pub(super) fn send_heads(peer: &mut HostilePeer, channel: u16, key: &str, piece: usize) {
    peer.begin(channel);
    for (handle, head) in (0..).zip(heads(key)) {
        peer.sender(channel, handle, None);
        peer.flush().expect("sent");
        peer.wait_credit();
        peer.parts(channel, handle, &head, piece);
    }
    peer.flush().expect("sent");
}

#[test]
fn heads_of_a_client_do_not_cut_the_link_between_others() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let mut peer = HostilePeer::client(scene.local_b);
    for (channel, piece) in [(0, 100_000), (1, 1_000), (2, 100)] {
        // A client's frames may have 16 KiB.
        send_heads(&mut peer, channel, "echo", piece.min(16_000));
    }
    assert!(peer.is_open(std::time::Duration::from_millis(500)));
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn heads_of_a_linked_site_do_not_cut_the_link_between_others() {
    let scene = Scene::new();
    let _far = scene.serve_at_second("far");
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
    peer.control_links();
    for (channel, piece) in [(1, 16_000), (2, 1_000)] {
        send_heads(&mut peer, channel, "far", piece);
    }
    assert!(peer.is_open(std::time::Duration::from_millis(500)));
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// A message of just the size that one site takes was too long for the next, with the annotations that it
/// gets on its way.
#[test]
fn a_message_of_any_size_does_not_cut_the_link_between_others() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let mut receiver = HostilePeer::client(scene.local_a);
    receiver.begin(0);
    receiver.receiver(0, 0, "inbox");
    receiver.flush().expect("sent");
    let mut peer = HostilePeer::client(scene.local_b);
    peer.begin(0);
    peer.sender(0, 0, Some("inbox"));
    peer.flush().expect("sent");
    peer.wait_credit();
    let message = |size: usize| {
        encoded(&Message {
            properties: Some(Properties {
                to: Some("inbox".to_owned()),
                ..Properties::default()
            }),
            body: Body::Data(vec![vec![1; size].into()]),
            ..Message::default()
        })
    };
    let limit = 4 << 20;
    for size in [limit + 1000, limit - 30, limit - 60, limit - 100, 10] {
        peer.parts(0, 0, &message(size), 16_000);
        peer.finish(0, 0);
        peer.flush().expect("sent");
    }
    honest.assert_undisturbed();
    scene.assert_linked();
    assert!(peer.is_open(std::time::Duration::from_millis(500)));
}
