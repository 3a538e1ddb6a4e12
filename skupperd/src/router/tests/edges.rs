//! Edges: what an interior router tells its edges and the network about them, and how the router of an
//! edge follows its interior router.

use super::network::{Network, id};
use crate::router::{Choice, Exclusions, LocalCandidate, Output, Router, RouterConfig, Treatment};
use std::time::{Duration, Instant};

const EDGE: u64 = 100;
const OTHER: u64 = 101;

/// Two linked interior routers; the first serves an edge.
fn network_with_edge() -> Network {
    let mut net = Network::new(2);
    net.connect(0, 1, 1);
    net.run_until_stable(Duration::from_secs(5));
    let a = &mut net.routers[0];
    a.add_edge(EDGE, "e");
    a.set_edge_tracking(EDGE, true);
    a.set_edge_downlink(EDGE, true);
    net
}

/// What a router tells its edges.
fn notifications(router: &mut Router) -> Vec<(u64, String, bool)> {
    let outputs = std::iter::from_fn(|| router.poll_output());
    let reachable = outputs.filter_map(|output| match output {
        Output::Reachable {
            edge,
            address,
            reachable,
        } => Some((edge, address, reachable)),
        _ => None,
    });
    reachable.collect()
}

#[test]
fn addresses_of_an_edge_are_announced_and_withdrawn_at_once_when_it_disconnects() {
    let mut net = network_with_edge();
    net.routers[0].add_edge_consumer(EDGE, "x").expect("room");
    net.run(Duration::from_millis(50));
    let far = net.routers[1].routes();
    assert_eq!(far.addresses["x"].remotes[0].router, id(0).into());
    assert_eq!(far.link_towards_edge("e"), far.link_towards(&id(0)));
    let network = net.routers[1].network();
    let edge = network.iter().find(|r| r.id == "e").expect("the edge");
    assert_eq!((edge.cost, &edge.next_hop), (Some(2), &Some(id(0))));
    net.routers[0].remove_edge(EDGE);
    // One message on its way, no interval and no silence.
    net.run(Duration::from_millis(10));
    let far = net.routers[1].routes();
    assert!(!far.addresses.contains_key("x"));
    assert_eq!(far.link_towards_edge("e"), None);
}

#[test]
fn a_full_update_names_edges() {
    let mut net = network_with_edge();
    net.routers[0].add_edge_consumer(EDGE, "x").expect("room");
    net.run(Duration::from_secs(1));
    net.restart(1, &[]);
    net.run_until_stable(Duration::from_secs(10));
    net.run(Duration::from_secs(2));
    let far = net.routers[1].routes();
    assert!(far.addresses.contains_key("x") && far.link_towards_edge("e").is_some());
}

#[test]
fn an_edge_is_notified_of_consumers_other_than_its_own() {
    let mut net = network_with_edge();
    let a = &mut net.routers[0];
    a.add_edge_producer(EDGE, "x").expect("room");
    a.add_edge_consumer(EDGE, "x").expect("room");
    assert_eq!(notifications(a), []);
    // Another edge and this router are consumers to announce.
    a.add_edge(OTHER, "f");
    a.add_edge_consumer(OTHER, "x").expect("room");
    assert_eq!(notifications(a), [(EDGE, "x".to_owned(), true)]);
    a.remove_edge_consumer(OTHER, "x");
    assert_eq!(notifications(a), [(EDGE, "x".to_owned(), false)]);
    a.add_consumer("x", Treatment::Balanced);
    assert_eq!(notifications(a), [(EDGE, "x".to_owned(), true)]);
    a.remove_consumer("x");
    assert_eq!(notifications(a), [(EDGE, "x".to_owned(), false)]);
    // A second connection of the same edge is not.
    a.add_edge(OTHER, "e");
    a.add_edge_consumer(OTHER, "x").expect("room");
    assert_eq!(notifications(a), []);
}

#[test]
fn edges_share_load_with_connectors_and_never_get_their_own_deliveries() {
    let mut net = network_with_edge();
    let a = &mut net.routers[0];
    a.add_consumer("x", Treatment::Balanced);
    a.add_edge_consumer(EDGE, "x").expect("room");
    notifications(a);
    let route = a.routes().addresses["x"].clone();
    let local = [LocalCandidate { id: 7, in_use: 2 }];
    let exclude = Exclusions::default();
    let mut held = Vec::new();
    for _ in 0..2 {
        match route.choose(&local, None, &exclude) {
            Choice::Remote {
                link, outstanding, ..
            } => {
                assert_eq!(link, EDGE);
                held.push(outstanding);
            }
            other => panic!("{other:?}"),
        }
    }
    // Both have two now, and the nearer keeps a tie.
    assert!(matches!(
        route.choose(&local, None, &exclude),
        Choice::Local(7)
    ));
    let own = Exclusions {
        links: vec![EDGE],
        ..Exclusions::default()
    };
    assert!(matches!(route.choose(&[], None, &own), Choice::None));
    // An edge passes nothing on: wherever a delivery entered the network, it may go there.
    let far = route.choose(&[], Some("r77"), &exclude);
    assert!(matches!(far, Choice::Remote { link: EDGE, .. }));
    assert!(
        route
            .multicast_links(
                None,
                &Exclusions {
                    edges: true,
                    ..Exclusions::default()
                }
            )
            .is_empty()
    );
}

#[test]
fn the_number_of_addresses_of_an_edge_is_bounded() {
    let mut net = network_with_edge();
    let a = &mut net.routers[0];
    let many = (0..20_000).filter(|n| a.add_edge_consumer(EDGE, &format!("x{n}")).is_ok());
    assert_eq!(many.count(), 8192);
    let many = (0..20_000).filter(|n| a.add_edge_producer(EDGE, &format!("y{n}")).is_ok());
    assert_eq!(many.count(), 8192);
    a.remove_edge(EDGE);
    assert!(a.own_addresses().is_empty());
    notifications(a);
    assert!(a.routes().addresses.is_empty());
}

/// An edge's own router.
fn edge(now: Instant) -> Router {
    let mut config = RouterConfig::new("e", 1);
    config.mesh = Some("mesh".to_owned());
    Router::new(config, now)
}

#[test]
fn an_edge_keeps_its_addresses_while_it_moves_to_another_interior_router() {
    let now = Instant::now();
    let mut e = edge(now);
    let reaches = |e: &mut Router, address: &str| {
        while e.poll_output().is_some() {}
        e.routes().addresses.contains_key(address)
    };
    e.set_uplink(Some((EDGE, "a", 1)), Vec::new(), now);
    e.set_reachable("x", true);
    e.set_reachable("y", true);
    assert!(reaches(&mut e, "x") && reaches(&mut e, "y"));
    let routes = e.routes();
    assert_eq!(
        (routes.link_towards("anything"), routes.uplink),
        (Some(EDGE), Some(EDGE))
    );
    assert_eq!(routes.own_prefix(), "amqp:/_edge/e/");
    // Another interior router: what it does not confirm in time is gone.
    e.set_uplink(Some((OTHER, "b", 1)), Vec::new(), now);
    assert!(reaches(&mut e, "x") && reaches(&mut e, "y"));
    assert_eq!(e.routes().addresses["x"].remotes[0].next_hop, OTHER);
    e.set_reachable("x", true);
    let later = now + Duration::from_secs(2);
    assert!(e.poll_timeout() <= later);
    e.handle_timeout(later);
    assert!(reaches(&mut e, "x") && !reaches(&mut e, "y"));
    // No interior router: gone at once.
    e.set_uplink(None, Vec::new(), later);
    assert!(!reaches(&mut e, "x"));
    assert_eq!(e.routes().link_towards("anything"), None);
}

#[test]
fn an_edge_sends_no_control_messages() {
    let now = Instant::now();
    let mut e = edge(now);
    e.set_uplink(Some((EDGE, "a", 1)), Vec::new(), now);
    e.add_consumer("x", Treatment::Balanced);
    for second in 1..100 {
        e.handle_timeout(now + Duration::from_secs(second));
        while let Some(output) = e.poll_output() {
            assert_eq!(output, Output::RoutesChanged);
        }
    }
    assert_eq!(e.network().len(), 2);
}
