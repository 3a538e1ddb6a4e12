//! Edges: what the interior router that serves one tells it and the network, and what an edge makes
//! of what it is told.

use super::network::{Network, id};
use crate::router::{Choice, Config, Exclude, LocalCandidate, Output, Router, Treatment};
use std::time::{Duration, Instant};

const EDGE: u64 = 100;
const OTHER: u64 = 101;

/// Two linked interior routers; the first serves an edge.
fn served() -> Network {
    let mut net = Network::new(2);
    net.connect(0, 1, 1);
    net.settle(Duration::from_secs(5));
    let a = &mut net.routers[0];
    a.edge_connected(EDGE, "e");
    a.edge_tracks(EDGE, true);
    a.edge_named(EDGE, true);
    net
}

/// What a router tells its edges.
fn told(router: &mut Router) -> Vec<(u64, String, bool)> {
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
fn what_an_edge_consumes_is_announced_and_withdrawn_at_once_when_it_goes() {
    let mut net = served();
    net.routers[0].edge_consumes(EDGE, "x").expect("room");
    net.run(Duration::from_millis(50));
    let far = net.routers[1].routes();
    assert_eq!(far.addresses["x"].remotes[0].router, id(0).into());
    assert_eq!(far.towards_edge("e"), far.towards(&id(0)));
    let network = net.routers[1].network();
    let edge = network.iter().find(|r| r.id == "e").expect("the edge");
    assert_eq!((edge.cost, &edge.next_hop), (Some(2), &Some(id(0))));
    net.routers[0].edge_gone(EDGE);
    // One message on its way, no interval and no silence.
    net.run(Duration::from_millis(10));
    let far = net.routers[1].routes();
    assert!(!far.addresses.contains_key("x"));
    assert_eq!(far.towards_edge("e"), None);
}

#[test]
fn an_absolute_update_names_edges_too() {
    let mut net = served();
    net.routers[0].edge_consumes(EDGE, "x").expect("room");
    net.run(Duration::from_secs(1));
    net.restart(1, &[]);
    net.settle(Duration::from_secs(10));
    net.run(Duration::from_secs(2));
    let far = net.routers[1].routes();
    assert!(far.addresses.contains_key("x") && far.towards_edge("e").is_some());
}

#[test]
fn an_edge_is_told_of_others_consumers_and_not_of_its_own() {
    let mut net = served();
    let a = &mut net.routers[0];
    a.edge_sends(EDGE, "x").expect("room");
    a.edge_consumes(EDGE, "x").expect("room");
    assert_eq!(told(a), []);
    // Another edge, this router, another router: each is somebody.
    a.edge_connected(OTHER, "f");
    a.edge_consumes(OTHER, "x").expect("room");
    assert_eq!(told(a), [(EDGE, "x".to_owned(), true)]);
    a.edge_consumed(OTHER, "x");
    assert_eq!(told(a), [(EDGE, "x".to_owned(), false)]);
    a.consumer_added("x", Treatment::Balanced);
    assert_eq!(told(a), [(EDGE, "x".to_owned(), true)]);
    a.consumer_removed("x");
    assert_eq!(told(a), [(EDGE, "x".to_owned(), false)]);
    // A second connection of the same edge is not somebody else.
    a.edge_connected(OTHER, "e");
    a.edge_consumes(OTHER, "x").expect("room");
    assert_eq!(told(a), []);
}

#[test]
fn edges_share_with_connectors_by_load_and_are_never_sent_their_own() {
    let mut net = served();
    let a = &mut net.routers[0];
    a.consumer_added("x", Treatment::Balanced);
    a.edge_consumes(EDGE, "x").expect("room");
    told(a);
    let route = a.routes().addresses["x"].clone();
    let local = [LocalCandidate { id: 7, in_use: 2 }];
    let exclude = Exclude::default();
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
    let own = Exclude {
        links: vec![EDGE],
        ..Exclude::default()
    };
    assert!(matches!(route.choose(&[], None, &own), Choice::None));
    // Wherever a delivery entered the network, an edge is the end of its way.
    let far = route.choose(&[], Some("r77"), &exclude);
    assert!(matches!(far, Choice::Remote { link: EDGE, .. }));
    assert!(
        route
            .spread(
                None,
                &Exclude {
                    edges: true,
                    ..Exclude::default()
                }
            )
            .is_empty()
    );
}

#[test]
fn addresses_of_one_edge_are_bounded() {
    let mut net = served();
    let a = &mut net.routers[0];
    let many = (0..20_000).filter(|n| a.edge_consumes(EDGE, &format!("x{n}")).is_ok());
    assert_eq!(many.count(), 8192);
    let many = (0..20_000).filter(|n| a.edge_sends(EDGE, &format!("y{n}")).is_ok());
    assert_eq!(many.count(), 8192);
    a.edge_gone(EDGE);
    assert!(a.own_addresses().is_empty());
    told(a);
    assert!(a.routes().addresses.is_empty());
}

/// An edge's own router.
fn edge(now: Instant) -> Router {
    let mut config = Config::new("e", 1);
    config.mesh = Some("mesh".to_owned());
    Router::new(config, now)
}

#[test]
fn an_edge_reaches_what_its_interior_router_says_and_moves_without_a_gap() {
    let now = Instant::now();
    let mut e = edge(now);
    let reaches = |e: &mut Router, address: &str| {
        while e.poll_output().is_some() {}
        e.routes().addresses.contains_key(address)
    };
    e.set_uplink(Some((EDGE, "a", 1)), Vec::new(), now);
    e.reached("x", true);
    e.reached("y", true);
    assert!(reaches(&mut e, "x") && reaches(&mut e, "y"));
    let routes = e.routes();
    assert_eq!(
        (routes.towards("anything"), routes.uplink),
        (Some(EDGE), Some(EDGE))
    );
    assert_eq!(routes.own_prefix(), "amqp:/_edge/e/");
    // Another interior router: what it does not say in time is over.
    e.set_uplink(Some((OTHER, "b", 1)), Vec::new(), now);
    assert!(reaches(&mut e, "x") && reaches(&mut e, "y"));
    assert_eq!(e.routes().addresses["x"].remotes[0].next_hop, OTHER);
    e.reached("x", true);
    let later = now + Duration::from_secs(2);
    assert!(e.poll_timeout() <= later);
    e.handle_timeout(later);
    assert!(reaches(&mut e, "x") && !reaches(&mut e, "y"));
    // None: at once.
    e.set_uplink(None, Vec::new(), later);
    assert!(!reaches(&mut e, "x"));
    assert_eq!(e.routes().towards("anything"), None);
}

#[test]
fn an_edge_says_nothing_of_routing() {
    let now = Instant::now();
    let mut e = edge(now);
    e.set_uplink(Some((EDGE, "a", 1)), Vec::new(), now);
    e.consumer_added("x", Treatment::Balanced);
    for second in 1..100 {
        e.handle_timeout(now + Duration::from_secs(second));
        while let Some(output) = e.poll_output() {
            assert_eq!(output, Output::RoutesChanged);
        }
    }
    assert_eq!(e.network().len(), 2);
}
