//! What a linked site says of the network.

use super::{Honest, MIB, Scene, named, with_memory_below};
use skupper_tests::{
    SOON,
    hostile_peer::{HostilePeer, control},
    wait_until,
};
use skupperd::amqp::value::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

pub(super) const ALL: &str = "amqp:/_topo/0/all/qdrouter";
/// Where routers say which addresses they serve.
const ADDRESSES: &str = "amqp:/_topo/0/all/qdrouter.ma";

pub(super) fn text(text: &str) -> Value {
    Value::from(text)
}

pub(super) fn hello(id: &str, instance: i64, seen: &str) -> Vec<u8> {
    let body = vec![
        ("id", text(id)),
        ("pv", Value::Int(1)),
        ("area", text("0")),
        ("instance", Value::Long(instance)),
        ("seen", Value::List(vec![text(seen)])),
    ];
    control(id, "amqp:/_local/qdhello", "HELLO", body)
}

pub(super) fn ra(id: &str, instance: i64, ls_seq: i64, mobile_seq: i64) -> Vec<u8> {
    let body = vec![
        ("id", text(id)),
        ("pv", Value::Int(1)),
        ("area", text("0")),
        ("instance", Value::Long(instance)),
        ("ls_seq", Value::Long(ls_seq)),
        ("mobile_seq", Value::Long(mobile_seq)),
    ];
    control(id, ALL, "RA", body)
}

/// The neighbours of a router, at a cost of 1 each.
pub(super) fn lsu(id: &str, instance: i64, seq: i64, peers: &[&str]) -> Vec<u8> {
    let peers = peers.iter().map(|peer| (text(peer), Value::Int(1)));
    let state = vec![
        (text("id"), text(id)),
        (text("area"), text("0")),
        (text("ls_seq"), Value::Long(seq)),
        (text("peers"), Value::Map(peers.collect())),
    ];
    let body = vec![
        ("id", text(id)),
        ("pv", Value::Int(1)),
        ("area", text("0")),
        ("instance", Value::Long(instance)),
        ("ls_seq", Value::Long(seq)),
        ("ls", Value::Map(state)),
    ];
    control(id, ALL, "LSU", body)
}

fn keys_list<'a>(keys: impl Iterator<Item = &'a str>) -> Value {
    let key = |key| Value::List(vec![text(key), Value::Int(2)]);
    Value::List(keys.map(key).collect())
}

/// All keys that a router serves.
pub(super) fn mau(id: &str, seq: i64, keys: &[&str]) -> Vec<u8> {
    let body = vec![
        ("id", text(id)),
        ("pv", Value::Int(2)),
        ("area", text("0")),
        ("mobile_seq", Value::Long(seq)),
        ("exist", keys_list(keys.iter().copied())),
    ];
    control(id, ADDRESSES, "MAU", body)
}

/// A neighbour of the first site, with its id.
pub(super) fn neighbour(scene: &Scene) -> (HostilePeer, String) {
    let credentials = named(&scene.a, scene.links, "mallory");
    let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
    let hub = peer.remote.as_ref().expect("an open").container_id.clone();
    peer.control_links();
    wait_until("the neighbour", SOON, || {
        peer.message(0, 0, &hello("mallory", 7, &hub));
        peer.flush().expect("sent");
        peer.pull(Duration::from_millis(100)).expect("still linked");
        let log = scene.a.log();
        log.lines()
            .any(|l| l.contains("link is up") && l.contains("remote=\"mallory\""))
    });
    (peer, hub)
}

#[test]
fn a_hello_with_the_id_of_another_ends_the_connection() {
    let scene = Scene::new();
    let (mut peer, hub) = neighbour(&scene);
    peer.message(0, 0, &hello("b-somebody", 7, &hub));
    peer.flush().expect("sent");
    peer.wait_end();
    wait_until("the log", SOON, || {
        scene.a.log().contains("HELLO has another router id")
    });
    scene.assert_linked();
}

#[test]
fn restarts_of_others_are_not_believed() {
    let scene = Scene::new();
    let (mut peer, _hub) = neighbour(&scene);
    let victim = scene.second_id();
    let honest = Honest::start(scene.service);
    let log = scene.b.log().matches("listener").count();
    for n in 0..200 {
        peer.message(0, 0, &ra(&victim, 1000 + n, 0, 0));
    }
    peer.flush().expect("sent");
    wait_until("the log", SOON, || {
        scene
            .a
            .log()
            .contains("ignoring restart of a neighbour that it does not report itself")
    });
    honest.assert_undisturbed();
    assert_eq!(
        scene.b.log().matches("listener").count(),
        log,
        "listeners closed"
    );
    scene.assert_linked();
}

/// Link states of routers that do not exist, each with neighbours of its own, for some time.
pub(super) fn flood_with_link_states(peer: &mut HostilePeer, hub: &str, until: Instant) -> usize {
    let mut sent = 0;
    while Instant::now() < until {
        for _ in 0..20 {
            let id = format!("ghost-{}", sent % 5_000);
            let peers: Vec<String> = (0..100).map(|n| format!("of-{sent}-{n}")).collect();
            let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
            peer.message(0, 0, &lsu(&id, 1, sent as i64 + 1, &peers));
            peer.message(0, 0, &mau(&id, sent as i64 + 1, &peers));
            sent += 1;
        }
        peer.message(0, 0, &hello("mallory", 7, hub));
        if peer.flush().is_err() {
            break;
        }
        peer.discard();
    }
    sent
}

/// The core computed for minutes, and the watchdog ended the daemon of all namespaces.
#[test]
fn a_flood_of_link_states_leaves_the_site_healthy() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let (mut peer, hub) = neighbour(&scene);
    with_memory_below(&scene.a, 96 * MIB, || {
        std::thread::scope(|scope| {
            let until = Instant::now() + Duration::from_secs(8);
            let flood = scope.spawn(move || flood_with_link_states(&mut peer, &hub, until));
            let mut longest = Duration::ZERO;
            while !flood.is_finished() {
                let begin = Instant::now();
                let health = scene.a.http("GET /healthz");
                longest = longest.max(begin.elapsed());
                assert!(health.starts_with("HTTP/1.1 200"), "{health}");
                thread::sleep(Duration::from_millis(50));
            }
            let sent = flood.join().expect("no panic");
            println!("{sent} link states; /healthz took {longest:?} at most");
            assert!(longest < Duration::from_secs(3), "{longest:?}");
            assert!(sent > 100, "{sent} link states");
        });
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Addresses that a neighbour serves itself, beyond its budget.
#[test]
fn a_site_with_addresses_without_end_is_closed() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let (mut peer, hub) = neighbour(&scene);
    with_memory_below(&scene.a, 96 * MIB, || {
        peer.message(0, 0, &lsu("mallory", 7, 1, &[&hub]));
        // Each update adds addresses of 500 bytes.
        for seq in 1..100_i64 {
            let keys: Vec<String> = (0..1_000)
                .map(|n| format!("M{seq:04}{n:04}{}", "x".repeat(490)))
                .collect();
            let body = vec![
                ("id", text("mallory")),
                ("pv", Value::Int(2)),
                ("area", text("0")),
                ("mobile_seq", Value::Long(seq)),
                ("add", keys_list(keys.iter().map(String::as_str))),
                ("del", Value::List(Vec::new())),
            ];
            let message = control("mallory", ADDRESSES, "MAU", body);
            peer.split_message(0, 0, &message, 16_000);
            peer.message(0, 0, &hello("mallory", 7, &hub));
            if peer.flush().is_err() {
                break;
            }
        }
        peer.wait_end();
    });
    assert!(
        scene
            .a
            .log()
            .contains("ignoring link state or addresses over the budget of a link")
    );
    honest.assert_undisturbed();
    scene.assert_linked();
}
