//! Clients of a host among each other, and what they and others can make the site write.

use super::{
    Scene,
    floods::small,
    routing::{ALL, neighbour, text},
};
use bytes::Bytes;
use skupper_tests::{
    SOON,
    hostile_peer::{Frame, HostilePeer, control, encoded},
    wait_until,
};
use skupperd::amqp::{
    message::{Body, Message, Properties},
    performative::{Attach, Performative, Role, Source, Target},
    value::Value,
};

/// Attaches a receiver with a source like this, and returns the address that the site gives it, or none.
fn receive_from(peer: &mut HostilePeer, handle: u32, source: Source) -> Option<String> {
    let attach = Attach {
        name: format!("answers-{handle}"),
        handle,
        role: Role::Receiver,
        source: Some(source),
        target: Some(Target::default()),
        ..Attach::default()
    };
    peer.put(0, &Performative::Attach(Box::new(attach)), b"");
    peer.credit(0, handle, 1000);
    peer.flush().expect("sent");
    peer.wait("attach", |frame| match &frame.performative {
        Some(Performative::Attach(attach)) => {
            let source = attach.source.as_ref();
            Some(source.and_then(|source| source.address.clone()))
        }
        _ => None,
    })
}

/// The next messages, until the connection is quiet for a while.
fn messages(peer: &mut HostilePeer) -> Vec<Bytes> {
    let mut found = Vec::new();
    while let Some(Frame {
        performative,
        payload,
        ..
    }) = peer
        .receive(std::time::Duration::from_millis(300))
        .expect("a connection")
    {
        if matches!(performative, Some(Performative::Transfer(_))) {
            found.push(payload);
        }
    }
    found
}

/// The addresses that the site makes for answers can be guessed, and half of the answers came to whoever
/// named one.
#[test]
fn answers_for_a_client_are_received_by_nobody_else() {
    let scene = Scene::new();
    let [mut victim, mut thief, mut server] = [(); 3].map(|()| HostilePeer::client(scene.local_b));
    for peer in [&mut victim, &mut thief, &mut server] {
        peer.begin(0);
    }
    let dynamic = Source {
        dynamic: true,
        ..Source::default()
    };
    let address = receive_from(&mut victim, 0, dynamic).expect("an address");
    let named = Source {
        address: Some(address.clone()),
        ..Source::default()
    };
    receive_from(&mut thief, 0, named);
    let condition = thief.wait("refusal", |frame| match &frame.performative {
        Some(Performative::Detach(detach)) => detach.error.clone(),
        _ => None,
    });
    assert_eq!(condition.condition.as_str(), "amqp:not-allowed");
    server.sender(0, 0, None);
    server.flush().expect("sent");
    server.wait_credit();
    let answer = encoded(&Message {
        properties: Some(Properties {
            to: Some(address),
            ..Properties::default()
        }),
        body: Body::Value(Value::from("the answer")),
        ..Message::default()
    });
    for _ in 0..10 {
        server.transfer(0, 0, &answer, false);
        server.flush().expect("sent");
        server.wait_outcome();
    }
    assert_eq!(messages(&mut victim).len(), 10);
    assert!(messages(&mut thief).is_empty(), "answers of another client");
    scene.assert_linked();
}

/// A line for each message filled the disk as fast as a client could send.
#[test]
fn messages_that_are_malformed_do_not_fill_the_log() {
    let scene = Scene::new();
    let before = scene.b.log().len();
    let mut peer = HostilePeer::client(scene.local_b);
    peer.begin(0);
    peer.sender(0, 0, None);
    peer.flush().expect("sent");
    peer.wait_credit();
    for _ in 0..50 {
        // More than half of the credit, which is given anew then.
        for _ in 0..130 {
            // The properties are a list of nothing that exists.
            peer.message(0, 0, b"\x00\x53\x73\xc0\x02\x01\x3f");
        }
        peer.flush().expect("sent");
        peer.wait_credit();
    }
    peer.transfer(0, 0, &small("nobody"), false);
    peer.flush().expect("sent");
    peer.wait_outcome();
    let log = scene.b.log()[before..].to_owned();
    let lines = log.lines().count();
    assert!(log.contains("undecodable message"), "{log}");
    assert!(lines < 60, "{lines} lines for 6,500 messages");
    scene.assert_linked();
}

/// A message that a router cannot read was a line in the log, as often as a neighbour sent it.
#[test]
fn control_messages_that_are_malformed_do_not_fill_the_log() {
    let scene = Scene::new();
    let (mut peer, _hub) = neighbour(&scene);
    let before = scene.a.log().len();
    let unreadable = control("mallory", ALL, "NONSENSE", vec![("id", text("mallory"))]);
    for _ in 0..50 {
        // More than half of the credit, which is given anew then.
        for _ in 0..130 {
            peer.message(0, 0, &unreadable);
        }
        peer.flush().expect("sent");
        peer.wait_credit();
    }
    wait_until("the log", SOON, || {
        scene.a.log()[before..].contains("unknown opcode")
    });
    scene.assert_linked();
    let log = scene.a.log()[before..].to_owned();
    let lines = log.lines().count();
    assert!(lines < 60, "{lines} lines for 6,500 messages: {log}");
}
