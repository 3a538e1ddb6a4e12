//! A network of a hundred sites with a thousand routing keys: how long until all know all.

use super::network::Network;
use crate::router::{Router, Treatment};
use std::time::{Duration, Instant};

/// Sites: the first are hubs, which are linked with each other, the others with two hubs. A build that
/// is not optimised takes minutes for all of them, and a quarter shows the same.
const SITES: usize = if cfg!(debug_assertions) { 25 } else { 100 };
const HUBS: usize = SITES / 10;
/// Routing keys, ten at each site.
const KEYS: usize = SITES * 10;

/// Processor time of this thread so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

#[test]
fn many_sites_with_many_keys_agree_soon() {
    let (before, began, rss) = (cpu(), Instant::now(), resident());
    let mut net = Network::new(SITES);
    for n in 0..SITES {
        for key in 0..KEYS / SITES {
            let address = format!("service-{n}-{key}");
            net.routers[n].consumer_added(&address, Treatment::Balanced);
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
    let (messages, spent) = (net.sent, cpu().saturating_sub(before));

    // One more key, and one site that goes.
    net.routers[SITES - 1].consumer_added("new", Treatment::Balanced);
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
    println!(
        "{SITES} sites, {KEYS} keys: {formed:?} of the network's time until all know all, \
         {messages} messages, {spent:?} of a processor for all of them ({:?} elapsed), \
         {} KiB more memory; one more key is known to all after {spread:?}",
        began.elapsed(),
        resident().saturating_sub(rss),
    );
}
