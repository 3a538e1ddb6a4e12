//! Shortest-path trees and valid origins, as skupper-router's `path.py` computes them: every router of a
//! network must have the same trees, or a multicast loops.

use arc_swap::ArcSwap;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::{Arc, OnceLock},
};

/// Directed costs by node.
pub(super) type Graph = BTreeMap<String, BTreeMap<String, u32>>;

/// A graph whose nodes are numbered in the order of their ids, so that numbers compare as ids do.
#[derive(Debug, Default)]
pub(super) struct IndexedGraph {
    ids: Arc<[String]>,
    /// Neighbours of each node, with costs.
    edges: Vec<Vec<(usize, u32)>>,
}

impl IndexedGraph {
    pub(super) fn new(graph: &Graph) -> Self {
        let peers = graph.values().flat_map(BTreeMap::keys);
        let ids: BTreeSet<&String> = graph.keys().chain(peers).collect();
        let ids: Arc<[String]> = ids.into_iter().cloned().collect();
        let number = |id: &String| ids.binary_search(id).ok();
        let edges = ids.iter().map(|id| {
            let peers = graph.get(id).into_iter().flatten();
            peers
                .filter_map(|(peer, cost)| Some((number(peer)?, *cost)))
                .collect()
        });
        let edges = edges.collect();
        Self { ids, edges }
    }

    /// Nodes and edges: what a tree costs.
    fn size(&self) -> usize {
        self.ids.len() + self.edges.iter().map(Vec::len).sum::<usize>()
    }

    fn number(&self, id: &str) -> Option<usize> {
        self.ids
            .binary_search_by(|known| known.as_str().cmp(id))
            .ok()
    }
}

/// The shortest-path tree of one root.
#[derive(Debug)]
pub(super) struct PathTree {
    /// Predecessor and cost of every node. `None`: it is not reached.
    nodes: Vec<Option<(Option<usize>, u32)>>,
    /// Nodes in the order they were settled: a predecessor is before those that it leads to.
    order: Vec<usize>,
}

impl PathTree {
    /// Nodes are settled in order of (cost, id); only a strictly lower cost replaces a predecessor.
    pub(super) fn compute(graph: &IndexedGraph, root: usize) -> Self {
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
            for (next, step) in &graph.edges[node] {
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
    pub(super) fn by_id(&self, graph: &IndexedGraph) -> Vec<(String, Option<String>, u32)> {
        let id = |n: usize| graph.ids[n].clone();
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter_map(|(n, node)| node.map(|(p, cost)| (id(n), p.map(id), cost)));
        nodes.collect()
    }
}

/// The trees of other routers in one graph, as far as they are computed. Of a tree only this is kept: to
/// which nodes its paths lead over this router.
#[derive(Debug, Default)]
struct Trees {
    graph: IndexedGraph,
    own: usize,
    /// This router has several neighbours: with one it passes nothing on.
    transit: bool,
    /// By origin: a bit for each node.
    behind: Vec<OnceLock<Box<[u64]>>>,
}

impl Trees {
    fn is_behind(bits: &[u64], node: usize) -> bool {
        bits[node / 64] & (1 << (node % 64)) != 0
    }

    /// The nodes that the paths from `origin` lead to over this router.
    fn behind(&self, origin: usize) -> &[u64] {
        self.behind[origin].get_or_init(|| {
            let tree = PathTree::compute(&self.graph, origin);
            let mut bits = vec![0; self.graph.ids.len().div_ceil(64)];
            for node in &tree.order {
                let previous = tree.previous(*node);
                if *node == self.own || previous.is_some_and(|p| Self::is_behind(&bits, p)) {
                    bits[node / 64] |= 1 << (node % 64);
                }
            }
            bits[self.own / 64] &= !(1 << (self.own % 64));
            bits.into()
        })
    }
}

/// Routers whose messages for another one this router passes on.
///
/// All snapshots share the trees of the present network: a change of the network that leaves a route as it
/// is does not make a new one necessary.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    trees: Arc<ArcSwap<Trees>>,
    id: Arc<str>,
}

impl PartialEq for Origins {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && Arc::ptr_eq(&self.trees, &other.trees)
    }
}

impl Eq for Origins {}

impl Origins {
    /// While the tree of the origin is not computed yet, it counts as valid: the trace of a message keeps
    /// it from a loop, and workers must not compute trees.
    pub fn contains(&self, origin: &str) -> bool {
        let trees = self.trees.load();
        let numbers = (trees.graph.number(origin), trees.graph.number(&self.id));
        match numbers {
            (Some(origin), Some(node)) if trees.transit => {
                let bits = trees.behind[origin].get();
                bits.is_none_or(|bits| Trees::is_behind(bits, node))
            }
            _ => false,
        }
    }

    /// Computes the tree of an origin, where an answer must be exact.
    pub(super) fn compute(&self, origin: &str) {
        let trees = self.trees.load();
        if let Some(origin) = trees.graph.number(origin).filter(|_| trees.transit) {
            trees.behind(origin);
        }
    }
}

/// The shortest path to another router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The neighbour that it begins with.
    pub(super) next_hop: String,
    pub(super) cost: u32,
}

/// What this router passes on for others, from their trees. A tree is computed when a message of its
/// origin is to be flooded; those of all routers that have spoken are computed in slices.
#[derive(Debug, Default)]
pub(super) struct TransitPaths {
    trees: Arc<ArcSwap<Trees>>,
    /// Neighbour that the path to each node begins with.
    hops: Vec<usize>,
    /// Results of [`TransitPaths::neighbours`], by origin.
    neighbours: BTreeMap<String, Vec<String>>,
    /// Origins whose trees are not computed yet.
    pending: Vec<usize>,
    /// Trees computed so far.
    pub(super) computed: u64,
}

impl TransitPaths {
    /// Takes a new graph. Returns the paths from `own` to every router that it reaches.
    pub(super) fn set_graph(
        &mut self,
        graph: &Graph,
        own: &str,
        has_spoken: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Path> {
        let graph = IndexedGraph::new(graph);
        let Some(own) = graph.number(own) else {
            return BTreeMap::new();
        };
        let tree = PathTree::compute(&graph, own);
        self.computed += 1;
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
        let transit = graph.edges[own].len() > 1;
        let nodes = (0..graph.ids.len()).rev();
        let pending = nodes.filter(|n| transit && *n != own && has_spoken(&graph.ids[*n]));
        self.pending = pending.collect();
        self.hops = hops;
        self.neighbours.clear();
        self.trees.store(Arc::new(Trees {
            own,
            transit,
            behind: graph.ids.iter().map(|_| OnceLock::new()).collect(),
            graph,
        }));
        paths
    }

    /// Computes trees until about `most` nodes and edges have been visited.
    pub(super) fn compute_pending(&mut self, most: usize) {
        let trees = self.trees.load_full();
        let mut visited = 0;
        while visited < most
            && let Some(origin) = self.pending.pop()
        {
            if trees.behind[origin].get().is_none() {
                trees.behind(origin);
                self.computed += 1;
                visited += trees.graph.size();
            }
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The neighbours to which flooded messages of a router are passed on.
    pub(super) fn neighbours(&mut self, origin: &str) -> &[String] {
        let trees = self.trees.load_full();
        let known = trees.graph.number(origin);
        let Some(known) = known.filter(|n| trees.transit && *n != trees.own) else {
            return &[];
        };
        if !self.neighbours.contains_key(origin) {
            self.computed += u64::from(trees.behind[known].get().is_none());
            let bits = trees.behind(known);
            let behind = (0..self.hops.len()).filter(|n| Trees::is_behind(bits, *n));
            let hops: BTreeSet<usize> = behind.map(|n| self.hops[n]).collect();
            let names = hops.into_iter().map(|n| trees.graph.ids[n].clone());
            self.neighbours.insert(origin.to_owned(), names.collect());
        }
        self.neighbours.get(origin).map_or(&[], Vec::as_slice)
    }

    /// The routers whose messages this router passes on to that one.
    pub(super) fn origins(&self, id: &str) -> Origins {
        Origins {
            trees: self.trees.clone(),
            id: id.into(),
        }
    }
}
