//! A network of a hundred sites with a thousand routing keys: how long until every router knows
//! everything, and what that costs.

use super::network::Network;
use crate::amqp::cpu_time::cpu_time;
use crate::router::{Router, RoutingWork, Treatment};
use std::time::{Duration, Instant};

/// Sites: the first are hubs, which are linked with each other, the others with two hubs.
const SITES: usize = 100;
const HUBS: usize = SITES / 10;
/// Routing keys, ten at each site.
const KEYS: usize = SITES * 10;

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

/// The most that any router has computed since `before`.
fn most(net: &Network, before: &[RoutingWork]) -> RoutingWork {
    let mut most = RoutingWork::default();
    for (router, before) in net.routers.iter().zip(before) {
        let now = router.work();
        most.trees = most.trees.max(now.trees - before.trees);
        most.routes = most.routes.max(now.routes - before.routes);
        most.snapshots = most.snapshots.max(now.snapshots - before.snapshots);
    }
    most
}

fn work(net: &Network) -> Vec<RoutingWork> {
    net.routers.iter().map(Router::work).collect()
}

#[test]
fn a_hundred_interior_sites_with_a_thousand_keys_agree_soon_and_compute_little() {
    let (before, began, rss) = (cpu_time(), Instant::now(), resident());
    let mut net = Network::new(SITES);
    net.counting = false;
    for n in 0..SITES {
        for key in 0..KEYS / SITES {
            let address = format!("service-{n}-{key}");
            net.routers[n].add_consumer(&address, Treatment::Balanced);
        }
    }
    for a in 0..HUBS {
        for b in 0..a {
            net.connect(a, b, 1);
        }
    }
    for n in HUBS..SITES {
        net.connect(n, n % HUBS, 1);
        net.connect(n, (n + 1) % HUBS, 2);
    }
    let knows = |net: &Network| {
        let all = net.routers.iter().map(Router::routes);
        all.filter(|routes| routes.routers.len() == SITES - 1)
            .filter(|routes| routes.addresses.len() == KEYS)
            .count()
    };
    let begin = net.now;
    while knows(&net) < SITES {
        net.run(Duration::from_millis(250));
        let took = net.now - begin;
        let done = knows(&net);
        assert!(
            took < Duration::from_secs(30),
            "{done} know all after {took:?}"
        );
    }
    let formed = net.now - begin;
    net.check().expect("the best ways");
    let (messages, spent) = (net.sent, cpu_time().saturating_sub(before));
    let grown = resident().saturating_sub(rss);
    let forming = most(&net, &vec![RoutingWork::default(); SITES]);

    // One more key: each router recomputes one route, and no tree.
    net.run(Duration::from_secs(10));
    let settled = work(&net);
    net.routers[SITES - 1].add_consumer("new", Treatment::Balanced);
    let begin = net.now;
    while !net
        .routers
        .iter()
        .all(|r| r.routes().addresses.contains_key("new"))
    {
        net.run(Duration::from_millis(5));
        assert!(
            net.now - begin < Duration::from_secs(2),
            "the key is not known"
        );
    }
    let spread = net.now - begin;
    let one = RoutingWork {
        trees: 0,
        routes: 1,
        snapshots: 1,
    };
    assert_eq!(most(&net, &settled), one);
    // Longer than every interval of repeated messages.
    net.run(Duration::from_secs(32));
    assert_eq!(
        most(&net, &settled),
        one,
        "nothing changes, nothing is computed"
    );
    println!(
        "{SITES} sites, {KEYS} keys: {formed:?} of the network's time until all know all, \
         {messages} messages, {spent:?} of a processor for all of them ({:?} elapsed), \
         {grown} KiB more memory; one more key is known to all after {spread:?}; \
         most that a router has computed until all know all: {forming:?}",
        began.elapsed(),
    );
}
