//! What a peer makes a site keep: streams that nobody reads, messages that never end, answers that are
//! not fetched.

use super::{Honest, MIB, Scene, named, with_memory_below};
use skupper_tests::{
    SOON,
    echo::Server,
    free_addr,
    hostile_peer::{HostilePeer, encoded, stream},
    wait_until,
};
use skupperd::amqp::{
    message::{Body, Message, Properties},
    performative::{DeliveryState, Flow, Performative},
};
use std::{
    io::ErrorKind,
    net::TcpStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A server that accepts and reads nothing, and its connections.
pub(super) fn deaf_server() -> (Server, Arc<Mutex<Vec<TcpStream>>>) {
    let open = Arc::new(Mutex::new(Vec::new()));
    let held = open.clone();
    let server = Server::start(free_addr(), move |socket| {
        held.lock().expect("no panic").push(socket);
    });
    (server, open)
}

/// Sends so many bytes on one stream, as fast as they are taken, whatever its window. Returns an error
/// where the connection ends.
pub(super) fn overrun(peer: &mut HostilePeer, key: &str, bytes: usize) -> std::io::Result<()> {
    peer.begin(1);
    peer.sender(1, 0, None);
    peer.flush()?;
    peer.wait_credit();
    peer.parts(1, 0, &stream(key, Vec::new()), 16_000);
    let piece = vec![7; 16_000];
    for _ in 0..bytes / piece.len() {
        peer.more(1, 0, &piece);
        peer.flush()?;
    }
    Ok(())
}

/// Waits until the site refuses the stream: rejected for its window, or modified where the receiver learns
/// first that its way back leads nowhere. What it takes first is acknowledged.
fn wait_refusal(peer: &mut HostilePeer) {
    peer.wait("refusal", |frame| match &frame.performative {
        Some(Performative::Disposition(disposition)) => {
            let state = disposition.state.as_ref();
            let refused = |state: &DeliveryState| {
                matches!(
                    state,
                    DeliveryState::Rejected(_) | DeliveryState::Modified { .. }
                )
            };
            state.is_some_and(refused).then_some(())
        }
        _ => None,
    });
}

/// The window was the sender's courtesy: 900 MiB in half a minute.
#[test]
fn a_stream_beyond_its_window_is_aborted_and_not_kept() {
    let scene = Scene::new();
    let (server, _held) = deaf_server();
    scene.a.connector("deaf", "deaf", server.addr);
    scene.a.wait_message("Connector", "deaf", "Pending", "");
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 24 * MIB, || {
        let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
        peer.control_links();
        overrun(&mut peer, "deaf", 64 * MIB).expect("the connection goes on");
        wait_refusal(&mut peer);
    });
    wait_until("the log", SOON, || {
        scene.a.log().contains("stream aborted: window exceeded")
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// The same through a site on the way, where no server is: it kept what the next link did not take.
#[test]
fn a_stream_beyond_its_window_is_not_kept_on_its_way() {
    let scene = Scene::new();
    let (server, _held) = deaf_server();
    scene.b.connector("deaf", "deaf", server.addr);
    let addr = free_addr();
    scene.a.listener("deaf", "deaf", addr);
    scene.a.wait_status("Listener", "deaf", "Ready");
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 24 * MIB, || {
        with_memory_below(&scene.b, 24 * MIB, || {
            let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
            peer.control_links();
            overrun(&mut peer, "deaf", 64 * MIB).expect("the connection goes on");
            wait_refusal(&mut peer);
        });
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Begins a message of four MiB on each of so many links, and completes none.
pub(super) fn begin_messages(peer: &mut HostilePeer, links: u32) -> std::io::Result<()> {
    peer.begin(2);
    let part = vec![0x41; 3 * MIB];
    for handle in 0..links {
        peer.sender(2, handle, None);
        peer.flush()?;
        // A section that no stream begins with: a message, from its first byte.
        let mut payload = b"\x00\x53\x75\xb0\x00\x40\x00\x00".to_vec();
        payload.extend_from_slice(&part);
        peer.parts(2, handle, &payload, 16_000);
        peer.flush()?;
    }
    Ok(())
}

/// Each frame copied what had come before it: a message of four MiB in frames of a few bytes took minutes.
#[test]
fn a_message_in_small_frames_disturbs_nobody() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let mut peer = HostilePeer::client(scene.local_b);
    peer.begin(0);
    peer.sender(0, 0, None);
    peer.flush().expect("sent");
    peer.wait_credit();
    let message = encoded(&Message {
        body: Body::Data(vec![vec![1; 3 * MIB].into()]),
        ..Message::default()
    });
    let begin = Instant::now();
    peer.split_message(0, 0, &message, 100);
    peer.flush().expect("sent");
    peer.wait_outcome();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn messages_that_are_never_complete_end_their_connection() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 96 * MIB, || {
        for _ in 0..3 {
            let mut peer = HostilePeer::client(scene.local_b);
            // The site ends the connection while this is sent, or after it.
            drop(begin_messages(&mut peer, 100));
            peer.wait_end();
        }
    });
    wait_until("the log", SOON, || {
        scene.b.log().contains("incomplete messages")
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Each connection had a budget of its own, and a peer as many connections as it liked, each with an id of
/// its own.
#[test]
fn a_certificate_has_one_budget_for_all_its_connections() {
    let scene = Scene::new();
    let credentials = ["mallory", "other"].map(|name| named(&scene.a, scene.links, name));
    let honest = Honest::start(scene.service);
    let mut cut_off = 0;
    with_memory_below(&scene.a, 400 * MIB, || {
        let mut peers = Vec::new();
        for n in 0..12 {
            let id = format!("mallory-{n}");
            let mut peer = HostilePeer::site(scene.links, &credentials[0], &id);
            // Less than one connection may hold.
            if begin_messages(&mut peer, 12).is_err() || !peer.is_open(Duration::from_millis(500)) {
                cut_off += 1;
            }
            peers.push(peer);
            // The others are idle meanwhile.
            for peer in &mut peers {
                peer.is_open(Duration::ZERO);
            }
        }
        // Another peer has a budget of its own.
        let mut other = HostilePeer::site(scene.links, &credentials[1], "mallory-other");
        begin_messages(&mut other, 12).expect("within its budget");
        assert!(other.is_open(Duration::from_millis(500)));
    });
    // Two thirds of what they have sent is the budget.
    assert!((3..=8).contains(&cut_off), "{cut_off} of 12 ended");
    let log = scene.a.log();
    let line = log
        .lines()
        .find(|line| line.contains("over the memory budget of all connections of a peer"));
    let line = line.expect("a line in the log");
    assert!(line.contains("certificate mallory"), "{line}");
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Clients of this host are told apart by their user.
#[test]
fn clients_of_a_user_have_one_budget_for_all_their_connections() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let mut cut_off = 0;
    with_memory_below(&scene.b, 400 * MIB, || {
        let mut peers = Vec::new();
        for _ in 0..10 {
            let mut peer = HostilePeer::client(scene.local_b);
            if begin_messages(&mut peer, 12).is_err() || !peer.is_open(Duration::from_millis(500)) {
                cut_off += 1;
            }
            peers.push(peer);
            // The others are idle meanwhile.
            for peer in &mut peers {
                peer.is_open(Duration::ZERO);
            }
        }
    });
    assert!((2..=6).contains(&cut_off), "{cut_off} of 10 ended");
    wait_until("the log", SOON, || {
        let log = scene.b.log();
        log.contains("over the memory budget of all connections of a peer")
            && log.contains("peer=\"user ")
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// A receiver gave credit once and read nothing, and what came for it was kept: 350 MiB.
#[test]
fn messages_for_a_client_that_reads_nothing_are_not_kept() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let mut receiver = HostilePeer::client(scene.local_b);
    receiver.begin(0);
    receiver.receiver(0, 0, "inbox");
    receiver.flush().expect("sent");
    let mut sender = HostilePeer::client(scene.local_b);
    sender.begin(0);
    sender.sender(0, 0, Some("inbox"));
    sender.flush().expect("sent");
    sender.wait_credit();
    let message = encoded(&Message {
        properties: Some(Properties {
            to: Some("inbox".to_owned()),
            ..Properties::default()
        }),
        body: Body::Data(vec![vec![1; MIB].into()]),
        ..Message::default()
    });
    with_memory_below(&scene.b, 64 * MIB, || {
        for _ in 0..100 {
            sender.split_message(0, 0, &message, 16_000);
            sender.flush().expect("the sender goes on");
            sender.wait_outcome();
        }
    });
    receiver.wait_end();
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Asks for the state of a session without reading the answers, until the site gives up. Returns how
/// many times it has asked.
pub(super) fn ask_and_not_read(peer: &mut HostilePeer) -> (usize, Option<ErrorKind>) {
    let flow = Performative::Flow(Flow {
        next_incoming_id: Some(0),
        incoming_window: 1 << 20,
        outgoing_window: 1 << 20,
        echo: true,
        ..Flow::default()
    });
    for asked in 0..2_000 {
        for _ in 0..1_000 {
            peer.put(0, &flow, b"");
        }
        if let Err(error) = peer.push() {
            return (asked * 1_000, Some(error.kind()));
        }
    }
    (2_000_000, None)
}

#[test]
fn answers_that_a_client_does_not_read_end_its_connection() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 48 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        peer.begin(0);
        peer.flush().expect("sent");
        let (asked, error) = ask_and_not_read(&mut peer);
        println!("{asked} flows, {error:?}");
        assert!(error.is_some(), "{asked} flows and no end");
    });
    wait_until("the log", SOON, || {
        scene.b.log().contains("closing connection over its budget")
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}
