//! Topologies of 2 to 50 routers, and how they recover from failures.

use super::network::{Network, id};
use crate::router::{Choice, Exclusions, LocalCandidate, Treatment};
use std::time::Duration;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn line(n: usize) -> Network {
    let mut net = Network::new(n);
    for i in 1..n {
        net.connect(i - 1, i, 1);
    }
    net
}

fn ring(n: usize) -> Network {
    let mut net = line(n);
    net.connect(n - 1, 0, 1);
    net
}

fn mesh(n: usize) -> Network {
    let mut net = Network::new(n);
    for a in 0..n {
        for b in 0..a {
            net.connect(a, b, 1);
        }
    }
    net
}

#[test]
fn two_routers_are_neighbours_within_two_seconds() {
    let mut net = line(2);
    let took = net.run_until_stable(secs(2));
    assert!(took <= secs(2), "{took:?}");
}

#[test]
fn lines_rings_and_meshes_find_shortest_paths() {
    for n in [3, 8, 20] {
        line(n).run_until_stable(secs(20));
        ring(n).run_until_stable(secs(20));
    }
    ring(50).run_until_stable(secs(20));
    for n in [3, 8, 16] {
        mesh(n).run_until_stable(secs(15));
    }
}

#[test]
fn addresses_reach_the_far_end_and_go_again() {
    let mut net = line(5);
    net.run_until_stable(secs(10));
    net.routers[4].add_consumer("backend", Treatment::Balanced);
    net.run(secs(1));
    let route = net.routers[0]
        .routes()
        .addresses
        .get("backend")
        .cloned()
        .expect("known");
    assert_eq!(route.remotes.len(), 1);
    assert_eq!(
        (&*route.remotes[0].router, route.remotes[0].cost),
        ("r04", 4)
    );
    net.routers[4].remove_consumer("backend");
    net.run(secs(1));
    assert!(!net.routers[0].routes().addresses.contains_key("backend"));
}

#[test]
fn lost_updates_are_asked_for_again() {
    let mut net = line(2);
    net.run_until_stable(secs(5));
    net.links[0].cut = true;
    net.routers[1].add_consumer("one", Treatment::Balanced);
    net.run(Duration::from_millis(100));
    net.links[0].cut = false;
    // The next update does not follow on what the other knows.
    net.routers[1].add_consumer("two", Treatment::Balanced);
    net.run(secs(1));
    let routes = net.routers[0].routes();
    assert!(routes.addresses.contains_key("one") && routes.addresses.contains_key("two"));
}

#[test]
fn partition_is_noticed_and_heals() {
    let mut net = ring(6);
    net.run_until_stable(secs(10));
    net.routers[3].add_consumer("x", Treatment::Balanced);
    net.run(secs(1));
    // Two cuts split a ring; silence, not a closed connection.
    net.links[0].cut = true;
    net.links[3].cut = true;
    net.run(secs(6));
    net.check().expect("both halves know their own");
    assert!(net.routers[0].routes().routers.contains_key("r05"));
    assert!(!net.routers[0].routes().routers.contains_key("r03"));
    net.run(secs(3));
    assert!(!net.routers[0].routes().addresses.contains_key("x"));
    net.links[0].cut = false;
    net.links[3].cut = false;
    net.run_until_stable(secs(15));
    net.run(secs(5));
    assert!(net.routers[0].routes().addresses.contains_key("x"));
}

#[test]
fn restart_with_a_new_instance_forgets_old_addresses() {
    let mut net = line(3);
    net.run_until_stable(secs(10));
    net.routers[2].add_consumer("old", Treatment::Balanced);
    net.run(secs(1));
    net.restart(2, &["new"]);
    net.run_until_stable(secs(10));
    net.run(secs(2));
    let routes = net.routers[0].routes();
    assert!(
        routes.addresses.contains_key("new"),
        "{:?}",
        routes.addresses.keys()
    );
    assert!(!routes.addresses.contains_key("old"));
}

#[test]
fn middle_router_restarts_and_the_line_is_whole_again() {
    let mut net = line(3);
    net.run_until_stable(secs(10));
    net.routers[2].add_consumer("x", Treatment::Balanced);
    net.run(secs(1));
    net.restart(1, &[]);
    let took = net.run_until_stable(secs(5));
    net.run(secs(3));
    assert!(
        net.routers[0].routes().addresses.contains_key("x"),
        "after {took:?}"
    );
}

#[test]
fn cost_change_moves_the_route() {
    let mut net = ring(4);
    net.run_until_stable(secs(10));
    let before = net.routers[0].routes().routers["r01"].next_hop;
    assert_eq!(before, 0);
    net.links[0].cost = 10;
    let now = net.now;
    net.routers[0].set_link_cost(0, 10, now);
    net.routers[1].set_link_cost(0, 10, now);
    net.run_until_stable(secs(10));
    let routes = net.routers[0].routes();
    assert_eq!(
        (routes.routers["r01"].next_hop, routes.routers["r01"].cost),
        (3, 3)
    );
}

#[test]
fn parallel_links_take_over_at_once() {
    let mut net = Network::new(2);
    net.connect(0, 1, 1);
    net.connect(0, 1, 5);
    net.run_until_stable(secs(5));
    assert_eq!(net.routers[0].routes().routers["r01"].next_hop, 0);
    net.lower(0);
    // No time passes.
    let routes = net.routers[0].routes();
    assert_eq!(
        (routes.routers["r01"].next_hop, routes.routers["r01"].cost),
        (1, 5)
    );
}

#[test]
fn balanced_treats_cost_as_connections() {
    let mut net = Network::new(2);
    net.connect(0, 1, 10);
    net.run_until_stable(secs(5));
    net.routers[1].add_consumer("x", Treatment::Balanced);
    net.routers[0].add_consumer("x", Treatment::Balanced);
    net.run(secs(1));
    let routes = net.routers[0].routes();
    let route = &routes.addresses["x"];
    let (mut local, mut remote, mut held) = (0, 0, Vec::new());
    for _ in 0..1000 {
        let here = [LocalCandidate {
            id: 7,
            in_use: local,
        }];
        match route.choose(&here, None, &Exclusions::default()) {
            Choice::Local(7) => local += 1,
            Choice::Remote { outstanding, .. } => {
                remote += 1;
                held.push(outstanding);
            }
            other => panic!("{other:?}"),
        }
        if local + remote == 11 {
            assert_eq!(local, 11, "a cost of 10 keeps the first ones here");
        }
    }
    // Beyond the threshold they share, and no count makes it drift.
    assert!(local.abs_diff(remote) <= 11, "{local} here, {remote} there");
}

#[test]
fn equal_remotes_share() {
    let mut net = Network::new(3);
    net.connect(0, 1, 1);
    net.connect(0, 2, 1);
    net.run_until_stable(secs(5));
    net.routers[1].add_consumer("x", Treatment::Balanced);
    net.routers[2].add_consumer("x", Treatment::Balanced);
    net.run(secs(1));
    let routes = net.routers[0].routes();
    let mut counts = std::collections::BTreeMap::new();
    let mut held = Vec::new();
    for _ in 0..600 {
        match routes.addresses["x"].choose(&[], None, &Exclusions::default()) {
            Choice::Remote {
                router,
                outstanding,
                ..
            } => {
                *counts.entry(router.to_string()).or_insert(0) += 1;
                held.push(outstanding);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts.into_values().collect::<Vec<i32>>(), [300, 300]);
}

#[test]
fn refused_link_is_not_chosen_again() {
    let mut net = Network::new(2);
    net.connect(0, 1, 1);
    net.run_until_stable(secs(5));
    net.routers[1].add_consumer("x", Treatment::Balanced);
    net.run(secs(1));
    let routes = net.routers[0].routes();
    let exclude = Exclusions {
        links: vec![0],
        ..Exclusions::default()
    };
    assert!(matches!(
        routes.addresses["x"].choose(&[], None, &exclude),
        Choice::None
    ));
}

#[test]
fn liars_cost_bounded_memory() {
    use crate::router::control::Control;
    let mut net = line(2);
    net.run_until_stable(secs(5));
    let now = net.now;
    for n in 0..20_000 {
        let lie = Control::Ra {
            id: format!("liar{n}"),
            instance: n,
            ls_seq: 9,
            mobile_seq: 9,
        };
        let message = lie.encode("r01", "amqp:/_topo/0/all/qdrouter".to_owned());
        net.routers[0]
            .receive_control(0, &message, now)
            .expect("well formed");
    }
    assert!(net.routers[0].network().len() < 8_192);
    // Garbage is an error with a reason, and changes nothing.
    let error = net.routers[0]
        .receive_control(0, b"\x00\x53\x99\x40", now)
        .expect_err("no section");
    assert!(error.to_string().contains("control message"), "{error}");
    assert!(net.routers[0].routes().routers.contains_key(&id(1)));
}
