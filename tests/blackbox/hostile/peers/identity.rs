//! Ids, groups and certificates: a peer is who its certificate says, and nobody else.

use super::{Honest, MIB, Scene, edge_scene, named, router_id, with_memory_below};
use skupper_tests::{
    SOON,
    echo::{connect, round_trip},
    free_addr,
    hostile_peer::{CONTROL, HostilePeer, symbol},
    site::Site,
    wait_until,
};
use skupperd::amqp::{
    performative::{Open, Performative, Role},
    value::Value,
};
use std::time::Duration;

/// The id of a linked site: another certificate with it was taken for that site.
#[test]
fn nobody_takes_the_id_of_a_linked_site() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let victim = scene.second_id();
    let honest = Honest::start(scene.service);
    let mut peer = HostilePeer::site(scene.links, &credentials, &victim);
    assert_eq!(peer.wait_end().as_deref(), Some("amqp:not-allowed"));
    wait_until("the refusal in the log", SOON, || {
        scene
            .a
            .log()
            .contains("its router id belongs to another certificate")
    });
    honest.assert_undisturbed();
    scene.assert_linked();
    // With an id of its own it is let in.
    let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
    peer.control_links();
    assert!(peer.is_open(Duration::from_millis(300)));
}

/// With the id of an edge, its clients' answers came to whoever had taken it.
#[test]
fn nobody_takes_the_id_of_an_edge() {
    let scene = edge_scene();
    let victim = router_id(&scene.site, "e-");
    let credentials = named(&scene.site, scene.edges, "mallory");
    let honest = Honest::start(scene.service);
    let mut peer = HostilePeer::site(scene.edges, &credentials, &victim);
    assert_eq!(peer.wait_end().as_deref(), Some("amqp:not-allowed"));
    honest.assert_undisturbed();
    assert!(
        scene
            .site
            .log()
            .contains("its router id belongs to another certificate")
    );
}

#[test]
fn ids_with_other_characters_are_refused() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    for id in ["\u{1b}[2J\u{1b}[31m", "a b", "a\nb  Ready", "../a", ""] {
        let mut peer = HostilePeer::site(scene.links, &credentials, id);
        peer.wait_end();
    }
    assert!(scene.a.log().contains("invalid router id"));
    assert!(
        !scene.a.log().contains('\u{1b}'),
        "escape sequences in the log"
    );
    scene.assert_linked();
}

fn member(id: &str, group: &str, is_data: bool) -> Open {
    let mut properties = vec![
        symbol("qd.annotations-version", Value::Int(2)),
        symbol("qd.group-correlator", Value::from(group)),
    ];
    if is_data {
        properties.push(symbol("qd.inter-router-role", Value::Int(4)));
    }
    Open {
        container_id: id.to_owned(),
        offered_capabilities: vec!["qd.connection_trunking".into()],
        properties,
        ..Open::default()
    }
}

/// A data connection belongs to a group by its name alone: whoever knows it got a share of the streams.
#[test]
fn a_data_connection_has_the_certificate_of_its_control_connection() {
    let scene = Scene::new();
    let [owner, other] = ["owner", "other"].map(|name| named(&scene.a, scene.links, name));
    let mut control = HostilePeer::secured(scene.links, &owner);
    control.open(member("owner", "group-of-owner1", false));
    control.begin(0);
    control.attach(0, 0, Role::Sender, None, Some(CONTROL));
    control.flush().expect("sent");
    let mut good = HostilePeer::secured(scene.links, &owner);
    good.open(member("owner", "group-of-owner1", true));
    let mut bad = HostilePeer::secured(scene.links, &other);
    bad.open(member("owner", "group-of-owner1", true));
    bad.wait_end();
    wait_until("the refusal in the log", SOON, || {
        scene
            .a
            .log()
            .contains("data connection without a link of the same certificate")
    });
    // The one of the same certificate is a part of the link: it gets links for streams.
    good.wait("a link for streams", |frame| {
        matches!(frame.performative, Some(Performative::Attach(_))).then_some(())
    });
    scene.assert_linked();
}

#[test]
fn revocation_ends_control_and_data_connections() {
    let scene = Scene::new();
    let owner = named(&scene.a, scene.links, "owner");
    let mut control = HostilePeer::secured(scene.links, &owner);
    control.open(member("owner", "group-of-owner2", false));
    control.begin(0);
    control.attach(0, 0, Role::Sender, None, Some(CONTROL));
    control.flush().expect("sent");
    let mut data = HostilePeer::secured(scene.links, &owner);
    data.open(member("owner", "group-of-owner2", true));
    data.wait("a link for streams", |frame| {
        matches!(frame.performative, Some(Performative::Attach(_))).then_some(())
    });
    scene.a.ok(&["link", "revoke", "owner"]);
    control.wait_end();
    data.wait_end();
    scene.assert_linked();
}

/// TLS and SASL before the revocation, `open` after it.
#[test]
fn revocation_is_not_outwaited_with_a_half_open_connection() {
    let scene = Scene::new();
    let owner = named(&scene.a, scene.links, "owner");
    let mut peer = HostilePeer::secured(scene.links, &owner);
    scene.a.ok(&["link", "revoke", "owner"]);
    wait_until("new connections to be refused", SOON, || {
        let mut client = skupper_tests::tls::Client::of(&owner.ca);
        client.own = Some(owner.own.clone());
        let Ok(mut stream) = client.connect(scene.links) else {
            return true;
        };
        let mut buf = [0; 64];
        let header = std::io::Write::write_all(&mut stream, b"AMQP\x03\x01\x00\x00");
        header.is_err() || !matches!(std::io::Read::read(&mut stream, &mut buf), Ok(1..))
    });
    peer.open(Open {
        container_id: "owner".to_owned(),
        ..Open::default()
    });
    peer.wait_end();
    assert!(scene.a.log().contains("was revoked during the handshake"));
}

/// Answers were taken from anybody who named the number of a client's connection, and numbers were counted.
#[test]
fn answers_to_guessed_addresses_reach_no_client() {
    let scene = Scene::new();
    let mut held = connect(scene.service).expect("a connection");
    round_trip(&mut held, b"before").expect("a service that works");
    let owner = scene.second_id();
    let mut peer = HostilePeer::client(scene.local_a);
    peer.begin(0);
    for number in 0..50u32 {
        peer.sender(0, number, None);
    }
    peer.flush().expect("sent");
    peer.wait_credit();
    for number in 0..50u32 {
        let to = format!(
            "amqp:/_topo/0/{owner}/temp.{:02x}{:015x}",
            number % 2,
            number / 2
        );
        let mut head = skupper_tests::hostile_peer::stream(&to, Vec::new());
        head.extend_from_slice(b"INJECTED");
        peer.transfer(0, number, &head, true);
    }
    peer.flush().expect("sent");
    peer.wait_outcome();
    for _ in 0..20 {
        let back = round_trip(&mut held, b"undisturbed").expect("an undisturbed connection");
        assert_eq!(back, b"undisturbed");
    }
    let mut new = connect(scene.service).expect("a connection");
    assert_eq!(round_trip(&mut new, b"hello").expect("an answer"), b"hello");
    scene.assert_linked();
}

/// `allow-sites` names sites, and neither an edge nor an account of another site is one of them.
#[test]
fn a_client_of_the_host_is_no_site() {
    let scene = Scene::new();
    let server = skupper_tests::echo::Server::says(free_addr(), "SECRET");
    let spec = format!(
        "{{routingKey: closed, host: 127.0.0.1, port: {}, settings: {{allow-sites: east}}}}",
        server.addr.port()
    );
    scene.a.resource("Connector", "closed", &spec);
    scene.a.wait_message("Connector", "closed", "Pending", "");
    let mut head = skupper_tests::hostile_peer::stream_head("closed", Vec::new());
    head.annotations.ingress = Some("0/east-1-1".to_owned());
    head.annotations.trace = vec!["0/east-1-1".to_owned()];
    let mut bytes = bytes::BytesMut::new();
    skupperd::amqp::message::encode_stream_head(&head, &mut bytes);
    let mut peer = HostilePeer::client(scene.local_a);
    peer.begin(0);
    peer.sender(0, 0, None);
    peer.flush().expect("sent");
    peer.wait_credit();
    peer.transfer(0, 0, &bytes, true);
    peer.flush().expect("sent");
    peer.wait_outcome();
    let accepted = server.accepted.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(accepted, 0, "the server has been connected to");
}

/// Data connections wait for the control connection of their group, and memory for them was shared by all.
#[test]
fn data_connections_without_a_link_keep_no_link_out() {
    let scene = Scene::new();
    let owner = named(&scene.a, scene.links, "owner");
    let mut other = Site::new("c");
    other.link_to(&scene.a, scene.links, 1);
    with_memory_below(&scene.a, 32 * MIB, || {
        let peers: Vec<_> = (0..150)
            .map(|n| {
                let mut peer = HostilePeer::secured(scene.links, &owner);
                peer.open(member("owner", &format!("group-{n}"), true));
                peer
            })
            .collect();
        wait_until("the limit", SOON, || {
            scene.a.log().contains("too many connections wait")
        });
        other.start();
        other.wait_status("Link", "to-a", "Ready");
        drop(peers);
    });
    scene.assert_linked();
}

/// A site that comes and goes with ids of its own leaves none of them behind.
#[test]
fn ids_that_a_peer_uses_up_are_not_kept() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 32 * MIB, || {
        for n in 0..150 {
            let id = format!("mallory-{n}-{}", "x".repeat(200));
            let mut peer = HostilePeer::site(scene.links, &credentials, &id);
            peer.control_links();
        }
    });
    // None of them is a part of the network.
    wait_until("them to be forgotten", SOON, || {
        !scene.a.ok(&["network", "status"]).contains("mallory-")
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}
