//! Peers before their connection is open, and bytes below AMQP.

use super::{Honest, MIB, Scene, named, with_memory_below};
use bytes::{BufMut, BytesMut};
use skupper_tests::{
    SOON,
    echo::{connect, works},
    hostile_peer::{Credentials, HostilePeer},
    tls, wait_until,
};
use skupperd::amqp::{
    frame,
    performative::{Open, Performative},
};
use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

/// Within this a site ends what is no SASL: long before the time for a whole handshake is over.
const AT_ONCE: Duration = Duration::from_secs(6);

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Connections to both kinds of ports, before SASL.
fn before_sasl(scene: &Scene, credentials: &Credentials) -> [Box<dyn ReadWrite>; 2] {
    let mut client = tls::Client::of(&credentials.ca);
    client.own = Some(credentials.own.clone());
    [
        Box::new(connect(scene.local_a).expect("a connection")),
        Box::new(client.connect(scene.links).expect("TLS")),
    ]
}

#[test]
fn a_peer_without_sasl_is_refused_at_once() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    let mut plain = b"AMQP\x03\x01\x00\x00".to_vec();
    // The mechanism PLAIN, which no port offers.
    plain.put_slice(b"\0\0\0\x19\x02\x01\0\0\0\x53\x41\xc0\x0c\x02\xa3\x05PLAIN\xa0\x03a\0b");
    let header = |rest: &[u8]| [b"AMQP\x03\x01\x00\x00", rest].concat();
    let attacks = [
        plain,
        // Frames of two GiB and of one byte more than a SASL frame may have.
        header(&[0x80, 0, 0, 0, 2, 1, 0, 0]),
        header(&[0, 0, 2, 1, 2, 1, 0, 0]),
        // An AMQP frame, and an outcome that the client itself decides.
        header(&[0, 0, 0, 8, 2, 0, 0, 0]),
        header(b"\0\0\0\x10\x02\x01\0\0\0\x53\x44\xc0\x03\x01\x50\x00"),
        // No SASL at all.
        b"AMQP\x00\x01\x00\x00".to_vec(),
        vec![0; 100_000],
    ];
    with_memory_below(&scene.a, 32 * MIB, || {
        for (n, attack) in attacks.iter().enumerate() {
            for mut stream in before_sasl(&scene, &credentials) {
                let begin = Instant::now();
                // The site may be gone before all of it is sent.
                let sent = stream.write_all(attack).and_then(|()| stream.flush());
                let mut rest = Vec::new();
                let ended = stream.read_to_end(&mut rest);
                println!("attack {n}: {sent:?} {ended:?}, {} bytes", rest.len());
                assert!(
                    begin.elapsed() < AT_ONCE,
                    "attack {n}: {:?}",
                    begin.elapsed()
                );
                assert!(
                    !rest.windows(4).any(|w| w == b"\x53\x10\xd0\0"),
                    "attack {n}: opened"
                );
            }
        }
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// A byte now and then keeps a connection in its handshake, but not for ever, and keeps nobody out.
#[test]
fn an_open_that_trickles_in_ends_in_time() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let begin = Instant::now();
    let mut peers: Vec<HostilePeer> = (0..20)
        .map(|_| HostilePeer::secured(scene.links, &credentials))
        .collect();
    let mut open = BytesMut::from(&frame::AMQP_HEADER[..]);
    let mut body = BytesMut::new();
    let performative = Performative::Open(Box::new(Open {
        container_id: "mallory".repeat(20),
        ..Open::default()
    }));
    performative.encode(&mut body);
    frame::put(frame::AMQP, 0, &body, &mut open);
    let mut bytes = open.iter();
    wait_until("all of them to end", SOON, || {
        let byte = bytes.next().expect("an open that is long enough");
        peers.retain_mut(|peer| {
            peer.put_bytes(&[*byte]);
            peer.flush().is_ok() && peer.pull(Duration::from_millis(10)).is_ok()
        });
        assert!(works(scene.service), "the service");
        peers.is_empty()
    });
    let ended = begin.elapsed();
    assert!(ended < Duration::from_secs(16), "after {ended:?}");
    scene.assert_linked();
}

#[test]
fn an_open_that_is_too_long_is_refused() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    with_memory_below(&scene.a, 32 * MIB, || {
        for _ in 0..5 {
            let mut peer = HostilePeer::secured(scene.links, &credentials);
            peer.send_open(Open {
                container_id: "m".repeat(200_000),
                ..Open::default()
            });
            // A reset, because of what was not read, can overtake the condition.
            peer.wait_end();
        }
        // Heartbeats are small, and before the open they do not count for ever.
        let mut peer = HostilePeer::secured(scene.links, &credentials);
        peer.put_bytes(&frame::AMQP_HEADER);
        for _ in 0..20_000 {
            peer.put_bytes(&[0, 0, 0, 8, 2, 0, 0, 0]);
        }
        drop(peer.flush());
        peer.wait_end();
    });
    // The log has the first of many refusals, whichever that was.
    assert!(
        scene
            .a
            .log()
            .contains("cannot accept link: handshake failed")
    );
    scene.assert_linked();
}

/// Whoever is on the path can send what it likes, and reads and changes nothing.
#[test]
fn bytes_that_are_no_records_end_their_connection() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    let records: [&[u8]; 5] = [
        &[0x9f; 5_000],
        // Application data that nobody sealed, and a record that is longer than one may be.
        &[
            0x17, 3, 3, 0, 32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
            20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
        ],
        &[0x17, 3, 3, 0xff, 0xff],
        // A handshake in plain text: renegotiation, which TLS 1.3 does not have.
        &[0x16, 3, 3, 0, 4, 0, 0, 0, 0],
        // An alert that everybody could have sent.
        &[0x15, 3, 3, 0, 2, 2, 40],
    ];
    with_memory_below(&scene.a, 32 * MIB, || {
        for (n, record) in records.iter().enumerate() {
            let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
            peer.control_links();
            assert!(peer.is_open(Duration::from_millis(50)), "record {n}");
            let mut socket = peer.socket();
            socket.write_all(record).expect("sent");
            peer.wait_end();
        }
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Asks for new keys for some time. Returns how many times.
pub(super) fn flood_with_key_updates(peer: &mut HostilePeer, until: Instant) -> usize {
    let mut updates = 0;
    while Instant::now() < until {
        for _ in 0..50 {
            peer.update_keys();
        }
        updates += 50;
        peer.put_bytes(&[0, 0, 0, 8, 2, 0, 0, 0]);
        if peer.flush().is_err() {
            break;
        }
        peer.discard();
    }
    updates
}

/// Each new key costs the site a derivation and an answer.
#[test]
fn a_flood_of_key_updates_disturbs_nobody() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 32 * MIB, || {
        let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
        peer.control_links();
        let until = Instant::now() + Duration::from_secs(3);
        let updates = flood_with_key_updates(&mut peer, until);
        println!("{updates} key updates");
        assert!(updates >= 1_000, "{updates} key updates");
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}
