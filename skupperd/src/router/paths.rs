//! Shortest-path trees and valid origins (section 7 of the protocol notes): every router of a network
//! must compute the same trees, or a multicast loops.

use std::collections::{BTreeMap, BTreeSet};

/// Directed costs by node.
pub(super) type Graph = BTreeMap<String, BTreeMap<String, u32>>;

/// The shortest-path tree of one root: predecessor and cost of every node that it reaches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree<'a> {
    pub(super) nodes: BTreeMap<&'a str, (Option<&'a str>, u32)>,
    /// Nodes in the order they were settled: a predecessor is before those that it leads to.
    order: Vec<&'a str>,
}

impl<'a> Tree<'a> {
    /// Nodes are settled in order of (cost, id); only a strictly lower cost replaces a predecessor.
    pub(super) fn compute(graph: &'a Graph, root: &'a str) -> Self {
        let mut nodes: BTreeMap<&str, (Option<&str>, u32)> = BTreeMap::from([(root, (None, 0))]);
        let mut open = BTreeSet::from([(0u32, root)]);
        let mut order = Vec::new();
        while let Some((cost, node)) = open.pop_first() {
            order.push(node);
            for (next, step) in graph.get(node).into_iter().flatten() {
                let through = cost.saturating_add(*step);
                match nodes.get(next.as_str()) {
                    Some((_, known)) if *known <= through => continue,
                    Some((_, known)) => drop(open.remove(&(*known, next.as_str()))),
                    None => {}
                }
                nodes.insert(next, (Some(node), through));
                open.insert((through, next));
            }
        }
        Self { nodes, order }
    }

    /// Nodes on the path from the root to `node`, from its end, without the root.
    fn path(&self, node: &'a str) -> impl Iterator<Item = &'a str> {
        let mut at = Some(node);
        std::iter::from_fn(move || {
            let node = at?;
            let (previous, _) = self.nodes.get(node)?;
            at = *previous;
            previous.map(|_| node)
        })
    }

    /// First node on the way from the root to `node`.
    pub(super) fn first_hop(&self, node: &'a str) -> Option<&'a str> {
        self.path(node).last()
    }

    /// Nodes whose way passes through `via`.
    pub(super) fn behind(&self, via: &str) -> BTreeSet<&'a str> {
        let mut behind = BTreeSet::new();
        for node in &self.order {
            let previous = self.nodes.get(node).and_then(|(previous, _)| *previous);
            if *node == via || previous.is_some_and(|p| behind.contains(p)) {
                behind.insert(*node);
            }
        }
        behind
    }
}

/// What is known of one other router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) next_hop: String,
    pub(super) cost: u32,
    /// Routers whose messages for this one are ours to pass on.
    pub(super) valid_origins: BTreeSet<String>,
}

/// Ways from `own` to every router it reaches.
pub(super) fn compute(graph: &Graph, own: &str) -> BTreeMap<String, Path> {
    let tree = Tree::compute(graph, own);
    let mut paths: BTreeMap<String, Path> = tree
        .nodes
        .iter()
        .filter(|(node, _)| **node != own)
        .filter_map(|(node, (_, cost))| {
            let next_hop = tree.first_hop(node)?.to_owned();
            Some((
                (*node).to_owned(),
                Path {
                    next_hop,
                    cost: *cost,
                    valid_origins: BTreeSet::new(),
                },
            ))
        })
        .collect();
    let others: Vec<String> = paths.keys().cloned().collect();
    for origin in &others {
        let tree = Tree::compute(graph, origin);
        for node in tree.behind(own) {
            if let Some(path) = paths.get_mut(node) {
                path.valid_origins.insert(origin.clone());
            }
        }
    }
    paths
}
