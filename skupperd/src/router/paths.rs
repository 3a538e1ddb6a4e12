//! Shortest-path trees and valid origins (section 7 of the protocol notes): every router of a network
//! must compute the same trees, or a multicast loops.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

/// Directed costs by node.
pub(super) type Graph = BTreeMap<String, BTreeMap<String, u32>>;

/// A graph whose nodes are numbered in the order of their ids, so that numbers compare as ids do.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    ids: Arc<[String]>,
    /// Where one can go from each node, and at what cost.
    steps: Vec<Vec<(usize, u32)>>,
}

impl Numbered {
    pub(super) fn new(graph: &Graph) -> Self {
        let peers = graph.values().flat_map(BTreeMap::keys);
        let ids: BTreeSet<&String> = graph.keys().chain(peers).collect();
        let ids: Arc<[String]> = ids.into_iter().cloned().collect();
        let number = |id: &String| ids.binary_search(id).ok();
        let steps = ids.iter().map(|id| {
            let peers = graph.get(id).into_iter().flatten();
            peers
                .filter_map(|(peer, cost)| Some((number(peer)?, *cost)))
                .collect()
        });
        let steps = steps.collect();
        Self { ids, steps }
    }

    fn number(&self, id: &str) -> Option<usize> {
        self.ids
            .binary_search_by(|known| known.as_str().cmp(id))
            .ok()
    }
}

/// The shortest-path tree of one root.
#[derive(Debug)]
pub(super) struct Tree {
    /// Predecessor and cost of every node; none: it is not reached.
    nodes: Vec<Option<(Option<usize>, u32)>>,
    /// Nodes in the order they were settled: a predecessor is before those that it leads to.
    order: Vec<usize>,
}

impl Tree {
    /// Nodes are settled in order of (cost, id); only a strictly lower cost replaces a predecessor.
    pub(super) fn compute(graph: &Numbered, root: usize) -> Self {
        let mut nodes = vec![None; graph.ids.len()];
        nodes[root] = Some((None, 0));
        let mut open = BinaryHeap::from([Reverse((0u32, root))]);
        let mut order = Vec::with_capacity(graph.ids.len());
        while let Some(Reverse((cost, node))) = open.pop() {
            // Found again at a lower cost since.
            if nodes[node].is_some_and(|(_, known)| known < cost) {
                continue;
            }
            order.push(node);
            for (next, step) in &graph.steps[node] {
                let through = cost.saturating_add(*step);
                if nodes[*next].is_none_or(|(_, known)| through < known) {
                    nodes[*next] = Some((Some(node), through));
                    open.push(Reverse((through, *next)));
                }
            }
        }
        Self { nodes, order }
    }

    fn previous(&self, node: usize) -> Option<usize> {
        self.nodes[node].and_then(|(previous, _)| previous)
    }

    /// Predecessors and costs by id.
    #[cfg(test)]
    pub(super) fn by_id(&self, graph: &Numbered) -> Vec<(String, Option<String>, u32)> {
        let id = |n: usize| graph.ids[n].clone();
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter_map(|(n, node)| node.map(|(p, cost)| (id(n), p.map(id), cost)));
        nodes.collect()
    }
}

/// Routers whose messages for another one are ours to pass on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// All routers by id, in order.
    ids: Arc<[String]>,
    /// A bit for each of them.
    bits: Box<[u64]>,
}

impl Origins {
    fn none(ids: &Arc<[String]>) -> Self {
        Self {
            ids: ids.clone(),
            bits: vec![0; ids.len().div_ceil(64)].into(),
        }
    }

    fn insert(&mut self, n: usize) {
        self.bits[n / 64] |= 1 << (n % 64);
    }

    /// This router is one of them.
    pub fn contains(&self, id: &str) -> bool {
        let n = self.ids.binary_search_by(|known| known.as_str().cmp(id));
        n.is_ok_and(|n| self.bits[n / 64] & (1 << (n % 64)) != 0)
    }
}

/// What is known of one other router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) next_hop: String,
    pub(super) cost: u32,
}

/// What of other routers' trees concerns this one. Each tree is computed when it is asked for first:
/// while a network forms, most are of no use to anybody.
#[derive(Debug, Default)]
pub(super) struct Passing {
    graph: Numbered,
    own: usize,
    /// Neighbour on the way from here, by node.
    hops: Vec<usize>,
    neighbours: BTreeMap<String, Vec<String>>,
    /// Trees that were computed.
    pub(super) trees: u64,
}

impl Passing {
    /// Whether nodes are behind this one, as seen from another.
    fn behind(&mut self, origin: usize) -> Vec<bool> {
        self.trees += 1;
        let tree = Tree::compute(&self.graph, origin);
        let mut behind = vec![false; self.graph.ids.len()];
        for node in &tree.order {
            let previous = tree.previous(*node);
            behind[*node] = *node == self.own || previous.is_some_and(|p| behind[p]);
        }
        behind[self.own] = false;
        behind
    }

    /// The neighbours that messages of this router are to be passed on to.
    pub(super) fn neighbours(&mut self, origin: &str) -> &[String] {
        if !self.neighbours.contains_key(origin) {
            let known = self.graph.number(origin).filter(|n| *n != self.own);
            let behind = known.map(|n| self.behind(n)).unwrap_or_default();
            let nodes = behind.iter().enumerate().filter(|(_, behind)| **behind);
            let hops: BTreeSet<usize> = nodes.map(|(n, _)| self.hops[n]).collect();
            let names = hops.into_iter().map(|n| self.graph.ids[n].clone());
            self.neighbours.insert(origin.to_owned(), names.collect());
        }
        self.neighbours.get(origin).map_or(&[], Vec::as_slice)
    }

    /// Of every other router, whose messages for it are ours to pass on.
    pub(super) fn origins(&mut self) -> BTreeMap<String, Origins> {
        let ids = self.graph.ids.clone();
        let mut origins = vec![Origins::none(&ids); ids.len()];
        let own = self.own;
        for origin in (0..ids.len()).filter(|n| *n != own) {
            let behind = self.behind(origin);
            let nodes = origins.iter_mut().zip(&behind);
            let nodes = nodes.filter(|(_, behind)| **behind);
            nodes.for_each(|(origins, _)| origins.insert(origin));
        }
        ids.iter().cloned().zip(origins).collect()
    }
}

/// Ways from `own` to every router it reaches.
pub(super) fn compute(graph: &Graph, own: &str) -> (BTreeMap<String, Path>, Passing) {
    let graph = Numbered::new(graph);
    let Some(own) = graph.number(own) else {
        return Default::default();
    };
    let tree = Tree::compute(&graph, own);
    let mut hops = vec![own; graph.ids.len()];
    let mut paths = BTreeMap::new();
    for node in tree.order.iter().copied() {
        if let (Some((Some(previous), cost)), true) = (tree.nodes[node], node != own) {
            hops[node] = if previous == own {
                node
            } else {
                hops[previous]
            };
            let next_hop = graph.ids[hops[node]].clone();
            paths.insert(graph.ids[node].clone(), Path { next_hop, cost });
        }
    }
    let passing = Passing {
        graph,
        own,
        hops,
        neighbours: BTreeMap::new(),
        trees: 1,
    };
    (paths, passing)
}
