//! Frames against the protocol: each ends the connection that it came over, with a condition, at once,
//! and no other.

use super::{Honest, MIB, Scene, floods::small, named, with_memory_below};
use bytes::{BufMut, BytesMut};
use skupper_tests::{hostile_peer::HostilePeer, site::Site};
use skupperd::amqp::performative::{
    Attach, Begin, Detach, Disposition, Flow, Open, Performative, Role, Source, Target, Transfer,
};

type Violation = (&'static str, fn(&mut HostilePeer));

/// Each with the condition that the site closes the connection with. Before it, the peer has a session
/// on channel 0, and there a link to send on with handle 0 and one to receive on with handle 1.
const OF_STATE: [Violation; 15] = [
    ("amqp:session:unattached-handle", |peer| {
        peer.transfer(0, 7, b"to nobody", false);
    }),
    ("amqp:not-allowed", |peer| {
        peer.transfer(0, 1, b"on a link to receive on", false);
    }),
    ("amqp:not-found", |peer| {
        peer.transfer(9, 0, b"without a session", false);
    }),
    ("amqp:invalid-field", |peer| {
        // The second frame says that it is of another delivery.
        peer.transfer(0, 0, b"x", true);
        peer.transfer(0, 0, b"x", true);
    }),
    ("amqp:invalid-field", |peer| {
        peer.put(0, &Performative::Transfer(Transfer::default()), b"no id");
    }),
    ("amqp:not-allowed", |peer| peer.begin(0)),
    ("amqp:not-allowed", |peer| peer.begin(40_000)),
    ("amqp:not-found", |peer| {
        let begin = Begin {
            remote_channel: Some(5),
            ..Begin::default()
        };
        peer.put(5, &Performative::Begin(begin), b"");
    }),
    ("amqp:session:handle-in-use", |peer| {
        peer.sender(0, 0, None);
    }),
    ("amqp:connection:framing-error", |peer| {
        peer.sender(0, u32::MAX, None);
    }),
    ("amqp:not-allowed", |peer| {
        peer.put(0, &Performative::Open(Box::default()), b"");
    }),
    ("amqp:not-found", |peer| {
        peer.put(3, &Performative::Disposition(Disposition::default()), b"");
    }),
    ("amqp:session:unattached-handle", |peer| {
        peer.credit(0, 12_345, u32::MAX);
    }),
    ("amqp:session:unattached-handle", |peer| {
        let detach = Detach {
            handle: 12_345,
            closed: true,
            error: None,
        };
        peer.put(0, &Performative::Detach(detach), b"");
    }),
    ("amqp:not-found", |peer| {
        peer.put(40_000, &Performative::End(None), b"");
    }),
];

/// The same, of bytes that are no frame or no performative.
const OF_BYTES: [Violation; 9] = [
    // Two GiB, of which nothing has to come.
    ("amqp:connection:framing-error", |peer| {
        peer.put_bytes(&[0x80, 0, 0, 0, 2, 0, 0, 0]);
    }),
    // Shorter than its own header.
    ("amqp:connection:framing-error", |peer| {
        peer.put_bytes(&[0, 0, 0, 7, 2, 0, 0, 0]);
    }),
    // A body that begins behind the end.
    ("amqp:connection:framing-error", |peer| {
        peer.put_bytes(&[0, 0, 0, 8, 200, 0, 0, 0]);
    }),
    // SASL, after SASL.
    ("amqp:connection:framing-error", |peer| {
        peer.put_bytes(&[0, 0, 0, 8, 2, 1, 0, 0]);
    }),
    ("amqp:connection:framing-error", |peer| {
        let flow = Performative::Flow(Flow::default());
        peer.put(0, &flow, b"payload of a flow");
    }),
    ("amqp:decode-error", |peer| {
        // A performative that does not exist.
        peer.put_bytes(&[0, 0, 0, 12, 2, 0, 0, 0, 0, 0x53, 0x7f, 0x45]);
    }),
    ("amqp:decode-error", |peer| {
        // An array of four thousand million nulls.
        let array = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
        peer.put_bytes(&begin_with(&array));
    }),
    ("amqp:decode-error", |peer| {
        // Lists in lists, as deep as a frame allows.
        let nested = (0..1_500).fold(vec![0x45], |inner, _| {
            let mut list = vec![0xd0];
            list.put_u32(inner.len() as u32 + 4);
            list.put_u32(1);
            list.extend(inner);
            list
        });
        peer.put_bytes(&begin_with(&nested));
    }),
    ("amqp:decode-error", |peer| {
        // A list that says it has more entries than bytes.
        peer.put_bytes(&begin_with(&[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]));
    }),
];

/// A frame with a begin whose properties are this value.
fn begin_with(value: &[u8]) -> Vec<u8> {
    let mut fields = BytesMut::new();
    // The fields of a begin before its properties: null, and 0 for those that have to be there.
    fields.put_slice(&[0x40, 0x43, 0x43, 0x43, 0x40, 0x40, 0x40]);
    fields.put_slice(value);
    let mut frame = Vec::new();
    frame.put_u32(8 + 3 + 9 + fields.len() as u32);
    frame.put_slice(&[2, 0, 0, 1, 0, 0x53, 0x11, 0xd0]);
    frame.put_u32(fields.len() as u32 + 4);
    frame.put_u32(8);
    frame.put_slice(&fields);
    frame
}

fn each_ends_its_connection(
    scene: &Scene,
    site: &Site,
    violations: &[Violation],
    connect: impl Fn() -> HostilePeer,
) {
    let honest = Honest::start(scene.service);
    with_memory_below(site, 32 * MIB, || {
        for (n, (condition, violate)) in violations.iter().enumerate() {
            let mut peer = connect();
            peer.begin(0);
            peer.sender(0, 0, None);
            peer.attach(0, 1, Role::Receiver, Some("inbox"), None);
            peer.flush().expect("sent");
            peer.wait_credit();
            violate(&mut peer);
            // The site may have closed the connection already.
            drop(peer.flush());
            assert_eq!(
                peer.wait_end().as_deref(),
                Some(*condition),
                "violation {n}"
            );
        }
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn a_client_that_breaks_the_rules_of_sessions_and_links_is_closed() {
    let scene = Scene::new();
    let connect = || HostilePeer::client(scene.local_b);
    each_ends_its_connection(&scene, &scene.b, &OF_STATE, connect);
}

#[test]
fn a_client_that_sends_malformed_frames_is_closed() {
    let scene = Scene::new();
    let connect = || HostilePeer::client(scene.local_b);
    each_ends_its_connection(&scene, &scene.b, &OF_BYTES, connect);
}

#[test]
fn a_linked_site_that_breaks_the_protocol_is_closed() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let connect = || HostilePeer::site(scene.links, &credentials, "mallory");
    // A linked site has no link to receive from an address.
    let all: Vec<Violation> = OF_STATE.into_iter().chain(OF_BYTES).collect();
    each_ends_its_connection(&scene, &scene.a, &all, connect);
}

/// One connection cannot have sessions without end: each has tables.
#[test]
fn a_client_with_too_many_sessions_is_closed() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 32 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        for channel in 0..5_000 {
            peer.begin(channel);
        }
        // The site ends the connection while this is sent, or after it.
        drop(peer.flush());
        let condition = peer.wait_end();
        assert_eq!(condition.as_deref(), Some("amqp:resource-limit-exceeded"));
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Names of links are the peer's: two links of one name are two links, and neither is another's.
#[test]
fn links_of_one_name_are_not_confused() {
    let scene = Scene::new();
    let mut peers = [(); 2].map(|()| HostilePeer::client(scene.local_b));
    for peer in &mut peers {
        peer.begin(0);
        for handle in 0..20 {
            let attach = Attach {
                name: "the same".to_owned(),
                handle,
                role: Role::Sender,
                source: Some(Source::default()),
                target: Some(Target::default()),
                initial_delivery_count: Some(0),
                ..Attach::default()
            };
            peer.put(0, &Performative::Attach(Box::new(attach)), b"");
        }
        peer.flush().expect("sent");
        peer.wait_credit();
    }
    let [first, second] = &mut peers;
    for handle in 0..20 {
        let detach = Detach {
            handle,
            closed: true,
            error: None,
        };
        first.put(0, &Performative::Detach(detach), b"");
    }
    first.flush().expect("sent");
    // The links of the second are still there.
    second.transfer(0, 19, &small("nobody"), false);
    second.flush().expect("sent");
    second.wait_outcome();
    scene.assert_linked();
}

/// An `open` of the peer's own wishes: its limits are those of what it receives, and raise none of the
/// site's.
#[test]
fn limits_that_a_peer_claims_are_not_those_of_the_site() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let mut peer = HostilePeer::secured(scene.links, &credentials);
    peer.open(Open {
        container_id: "mallory".to_owned(),
        max_frame_size: Some(u32::MAX),
        channel_max: Some(u16::MAX),
        idle_time_out: Some(u32::MAX),
        ..Open::default()
    });
    peer.put_bytes(&[0x00, 0x20, 0, 0, 2, 0, 0, 0]);
    drop(peer.flush());
    let condition = peer.wait_end();
    assert_eq!(condition.as_deref(), Some("amqp:connection:framing-error"));
    // Too small to say anything in.
    let mut peer = HostilePeer::secured(scene.links, &credentials);
    peer.send_open(Open {
        container_id: "mallory".to_owned(),
        max_frame_size: Some(1),
        ..Open::default()
    });
    let condition = peer.wait_end();
    assert_eq!(condition.as_deref(), Some("amqp:invalid-field"));
    scene.assert_linked();
}
