//! Random graphs: trees equal their definition, and floods reach every router once.

use super::network::Network;
use crate::router::{
    ConnId, Routes, Treatment,
    paths::{Graph, IndexedGraph, PathTree, TransitPaths},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

fn edges(n: usize) -> impl Strategy<Value = Vec<(usize, usize, u32)>> {
    prop::collection::vec((0..n, 0..n, 1u32..4), n..n * 3)
}

fn graph(edges: &[(usize, usize, u32)]) -> Graph {
    let mut graph = Graph::new();
    for (a, b, cost) in edges.iter().filter(|(a, b, _)| a != b) {
        graph
            .entry(format!("n{a}"))
            .or_default()
            .insert(format!("n{b}"), *cost);
        graph
            .entry(format!("n{b}"))
            .or_default()
            .insert(format!("n{a}"), *cost);
    }
    graph
}

/// The tree by its definition, without a queue: the open node of least (cost, id) is settled, and
/// only a strictly lower cost replaces a predecessor.
fn by_definition(graph: &Graph, root: &str) -> Vec<(String, Option<String>, u32)> {
    let mut open = vec![(0u32, root.to_owned(), None::<String>)];
    let mut settled: Vec<(String, Option<String>, u32)> = Vec::new();
    while !open.is_empty() {
        open.sort();
        let (cost, node, previous) = open.remove(0);
        settled.push((node.clone(), previous, cost));
        for (next, step) in graph.get(&node).into_iter().flatten() {
            if settled.iter().any(|(n, ..)| n == next) {
                continue;
            }
            let through = cost + step;
            match open.iter_mut().find(|(_, n, _)| n == next) {
                Some(known) if known.0 <= through => {}
                Some(known) => *known = (through, next.clone(), Some(node.clone())),
                None => open.push((through, next.clone(), Some(node.clone()))),
            }
        }
    }
    settled.sort();
    settled
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn trees_equal_their_definition(edges in edges(8)) {
        let graph = graph(&edges);
        let indexed = IndexedGraph::new(&graph);
        for (n, root) in graph.keys().enumerate() {
            let ours = PathTree::compute(&indexed, n).by_id(&indexed);
            prop_assert_eq!(ours, by_definition(&graph, root));
        }
    }

    #[test]
    fn valid_origins_follow_the_trees(edges in edges(7)) {
        let graph = graph(&edges);
        for own in graph.keys() {
            let mut transit = TransitPaths::default();
            let paths = transit.set_graph(&graph, own, |_| true);
            transit.compute_pending(usize::MAX);
            for (node, path) in &paths {
                let origins = transit.origins(node);
                for origin in graph.keys().filter(|o| *o != own && *o != node) {
                    let tree = by_definition(&graph, origin);
                    let previous = |n: &str| tree.iter().find(|(x, ..)| x == n)?.1.clone();
                    let mut at = Some(node.clone());
                    let mut passes = false;
                    while let Some(n) = at {
                        passes |= n == *own;
                        at = previous(&n);
                    }
                    let reached = tree.iter().any(|(n, ..)| n == node);
                    let valid = passes && reached;
                    prop_assert_eq!(origins.contains(origin), valid);
                    if valid {
                        prop_assert!(transit.neighbours(origin).contains(&path.next_hop));
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_message_reaches_a_router_twice(edges in edges(6)) {
        let mut net = Network::new(6);
        let mut known = std::collections::BTreeSet::new();
        for (a, b, cost) in edges {
            if a != b && known.insert((a.min(b), a.max(b))) {
                net.connect(a, b, cost);
            }
        }
        net.run_until_stable(Duration::from_secs(20));
        // Settled: from here on every flood must reach each router just once.
        net.run(Duration::from_secs(10));
        net.floods.clear();
        let before = net.sent;
        net.run(Duration::from_secs(65));
        prop_assert!(net.sent > before);
        for ((router, message), copies) in &net.floods {
            prop_assert_eq!(*copies, 1, "router {} got {} {} times", router,
                String::from_utf8_lossy(message), copies);
        }
    }
}

/// A change of a network of five routers.
#[derive(Clone, Debug)]
enum Change {
    Add(usize, u8),
    Remove(usize, u8),
    Lower(usize),
    Raise(usize),
    Restart(usize),
    /// The edge of this router connects or reconnects.
    EdgeUp(usize),
    /// The edge receives from an address.
    Edge(usize, u8),
    EdgeGone(usize),
    /// Tenths of a second.
    Wait(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..5usize, 0..6u8).prop_map(|(n, a)| Change::Add(n, a)),
        (0..5usize, 0..6u8).prop_map(|(n, a)| Change::Remove(n, a)),
        (0..6usize).prop_map(Change::Lower),
        (0..6usize).prop_map(Change::Raise),
        (0..5usize).prop_map(Change::Restart),
        (0..5usize).prop_map(Change::EdgeUp),
        (0..5usize, 0..6u8).prop_map(|(n, a)| Change::Edge(n, a)),
        (0..5usize).prop_map(Change::EdgeGone),
        (1..60u64).prop_map(Change::Wait),
    ]
}

/// Routes as text in a fixed order, to compare.
fn described(routes: &Routes) -> String {
    let addresses: BTreeMap<_, _> = routes.addresses.iter().collect();
    let edges: BTreeMap<_, _> = routes.edges.iter().collect();
    format!(
        "{:#?} {addresses:#?} {edges:?} {:?}",
        routes.routers, routes.uplink
    )
}

/// Applies a change. `consumers`: how often each router consumes each service, as the core adds and
/// removes them; what was not added is not removed.
fn apply(net: &mut Network, consumers: &mut BTreeMap<(usize, u8), usize>, change: &Change) {
    let name = |a: &u8| format!("service{a}");
    let edge = |n: &usize| 1000 + *n as ConnId;
    match change {
        Change::Add(n, a) => {
            *consumers.entry((*n, *a)).or_default() += 1;
            net.routers[*n].add_consumer(&name(a), Treatment::Balanced);
        }
        Change::Remove(n, a) => {
            if let Some(count) = consumers.get_mut(&(*n, *a)).filter(|count| **count > 0) {
                *count -= 1;
                net.routers[*n].remove_consumer(&name(a));
            }
        }
        Change::Lower(link) if net.links[*link].is_up => net.lower(*link),
        Change::Raise(link) if !net.links[*link].is_up => net.raise(*link),
        Change::Lower(_) | Change::Raise(_) => {}
        Change::Restart(n) => {
            consumers.retain(|(router, _), _| router != n);
            consumers.insert((*n, 1), 1);
            net.restart(*n, &["service1"]);
        }
        Change::EdgeUp(n) => {
            let router = &mut net.routers[*n];
            router.remove_edge(edge(n));
            router.add_edge(edge(n), &format!("edge{n}"));
            router.set_edge_downlink(edge(n), true);
        }
        Change::Edge(n, a) => {
            let receives = net.routers[*n].add_edge_consumer(edge(n), &name(a));
            receives.expect("room");
        }
        Change::EdgeGone(n) => net.routers[*n].remove_edge(edge(n)),
        Change::Wait(tenths) => net.run(Duration::from_millis(100 * tenths)),
    }
    net.pump();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn routes_updated_in_parts_equal_routes_computed_from_nothing(
        changes in prop::collection::vec(change(), 1..40)
    ) {
        let mut net = Network::new(5);
        net.counting = false;
        for (a, b, cost) in [(0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1), (4, 0, 2), (1, 3, 3)] {
            net.connect(a, b, cost);
        }
        let mut consumers = BTreeMap::new();
        for change in &changes {
            apply(&mut net, &mut consumers, change);
            for router in &mut net.routers {
                prop_assert_eq!(
                    described(&router.routes()),
                    described(&router.recomputed_routes()),
                    "{} after {:?} of {:?}", router.id(), change, &changes
                );
            }
        }
    }
}
