//! Random graphs: trees equal to their definition, floods that reach everybody once.

use super::network::Network;
use crate::router::paths::{Graph, Tree, compute};
use proptest::prelude::*;
use std::time::Duration;

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
        for root in graph.keys() {
            let tree = Tree::compute(&graph, root);
            let ours: Vec<(String, Option<String>, u32)> = tree
                .nodes
                .iter()
                .map(|(n, (p, c))| (n.to_string(), p.map(str::to_owned), *c))
                .collect();
            prop_assert_eq!(ours, by_definition(&graph, root));
        }
    }

    #[test]
    fn valid_origins_follow_the_trees(edges in edges(7)) {
        let graph = graph(&edges);
        for own in graph.keys() {
            for (node, path) in compute(&graph, own) {
                for origin in graph.keys().filter(|o| *o != own && **o != node) {
                    let tree = by_definition(&graph, origin);
                    let previous = |n: &str| tree.iter().find(|(x, ..)| x == n)?.1.clone();
                    let mut at = Some(node.clone());
                    let mut passes = false;
                    while let Some(n) = at {
                        passes |= n == *own;
                        at = previous(&n);
                    }
                    let reached = tree.iter().any(|(n, ..)| *n == node);
                    prop_assert_eq!(path.valid_origins.contains(origin), passes && reached);
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
        net.settle(Duration::from_secs(20));
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
