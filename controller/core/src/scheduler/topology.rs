//! Where does each node stand: in the order of names, under which switch, in which block?
//!
//! Leaf switches are numbered in the order of a walk through the tree, so that all leaves below a
//! switch are a range of numbers and what is free below it is a difference of two prefix sums.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use imbl::Vector;
use penstock_vocab::{NodeName, host_order};

use crate::model::{NodeIndex, Switch, Topology};

/// Deepest tree, so that no file can exhaust the stack; real ones have two to four levels. Nodes
/// below stand nowhere.
const MAX_DEPTH: u32 = 256;

/// Neither a leaf nor a block.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Where each node stands. Derived from names and configuration; a clone is O(1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Site {
    /// In the order of [`host_order`].
    by_name: Vector<NodeIndex>,
    /// Place in that order, by node.
    ranks: Arc<Vec<u32>>,
    /// By node.
    spots: Arc<Vec<Spot>>,
    tree: Arc<Tree>,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Number of its leaf switch, or [`NOWHERE`].
    pub(crate) leaf: u32,
    /// Number of its block, or [`NOWHERE`].
    pub(crate) block: u32,
}

impl Spot {
    pub(crate) const NOWHERE: Self = Self { leaf: NOWHERE, block: NOWHERE };
}

/// The switches and blocks of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    spots: BTreeMap<NodeName, Spot>,
    /// How many leaf switches.
    pub(crate) leaves: u32,
    /// How many blocks.
    pub(crate) blocks: u32,
    /// The leaves below each switch, each range once.
    pub(crate) switches: Vec<Range<u32>>,
}

impl Site {
    /// Derives it for nodes in the order of their indexes.
    pub(crate) fn new<'n>(
        topology: &Topology,
        names: impl Iterator<Item = &'n NodeName> + Clone,
    ) -> Self {
        let tree = Tree::new(topology);
        let mut order: Vec<_> = (0u32..).zip(names.clone()).collect();
        order.sort_by(|(_, a), (_, b)| host_order(a.as_str(), b.as_str()));
        let mut ranks = vec![0; order.len()];
        for (rank, (index, _)) in (0u32..).zip(&order) {
            ranks[*index as usize] = rank;
        }
        Self {
            by_name: order.iter().map(|(index, _)| NodeIndex(*index)).collect(),
            ranks: Arc::new(ranks),
            spots: Arc::new(names.map(|name| tree.spot_of(name)).collect()),
            tree: Arc::new(tree),
        }
    }

    /// Takes in a node that has just got the next index. Cost: a number for each node.
    pub(crate) fn add<'n>(
        &mut self,
        name: &NodeName,
        name_of: impl Fn(NodeIndex) -> Option<&'n NodeName>,
    ) {
        let index = NodeIndex(u32::try_from(self.ranks.len()).unwrap_or(u32::MAX));
        let found = self.by_name.binary_search_by(|other| match name_of(*other) {
            Some(other) => host_order(other.as_str(), name.as_str()),
            None => other.cmp(&index),
        });
        let at = found.unwrap_or_else(|at| at);
        let rank = u32::try_from(at).unwrap_or(u32::MAX);
        self.by_name.insert(at, index);
        let ranks = Arc::make_mut(&mut self.ranks);
        ranks.iter_mut().filter(|other| **other >= rank).for_each(|other| *other += 1);
        ranks.push(rank);
        Arc::make_mut(&mut self.spots).push(self.tree.spot_of(name));
    }

    /// Place of a node in the order of names: the first of those that are otherwise equal is used.
    pub(crate) fn rank(&self, index: NodeIndex) -> u32 {
        self.ranks.get(index.get()).copied().unwrap_or(index.0)
    }

    /// Where a node stands.
    pub(crate) fn spot(&self, index: NodeIndex) -> Spot {
        self.spots.get(index.get()).copied().unwrap_or(Spot::NOWHERE)
    }

    /// Switches and blocks.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Tree {
    /// Reads what can be read. The configuration refuses what is no tree; here it does no harm: a node
    /// stands where it is named first, or nowhere.
    fn new(topology: &Topology) -> Self {
        let mut tree = Self::default();
        let by_name: BTreeMap<&str, &Switch> =
            topology.switches.iter().rev().map(|switch| (&*switch.name, switch)).collect();
        let below: BTreeSet<&str> =
            topology.switches.iter().flat_map(|switch| &switch.switches).map(|s| &**s).collect();
        let mut seen = BTreeSet::new();
        for root in topology.switches.iter().filter(|switch| !below.contains(&*switch.name)) {
            tree.walk(root, &by_name, &mut seen, 0);
        }
        tree.switches.sort_unstable_by_key(|range| (range.start, range.end));
        tree.switches.dedup();
        for block in &topology.blocks {
            for name in &block.nodes {
                let spot = tree.spots.entry(name.clone()).or_insert(Spot::NOWHERE);
                if spot.block == NOWHERE {
                    spot.block = tree.blocks;
                }
            }
            tree.blocks += 1;
        }
        tree
    }

    fn walk<'t>(
        &mut self,
        switch: &'t Switch,
        by_name: &BTreeMap<&str, &'t Switch>,
        seen: &mut BTreeSet<&'t str>,
        depth: u32,
    ) {
        if depth >= MAX_DEPTH || !seen.insert(&switch.name) {
            return;
        }
        let first = self.leaves;
        if !switch.nodes.is_empty() {
            for name in &switch.nodes {
                let spot = self.spots.entry(name.clone()).or_insert(Spot::NOWHERE);
                if spot.leaf == NOWHERE {
                    spot.leaf = first;
                }
            }
            self.leaves += 1;
        }
        for below in &switch.switches {
            if let Some(below) = by_name.get(&**below) {
                self.walk(below, by_name, seen, depth + 1);
            }
        }
        if self.leaves > first {
            self.switches.push(first..self.leaves);
        }
    }

    fn spot_of(&self, name: &NodeName) -> Spot {
        self.spots.get(name).copied().unwrap_or(Spot::NOWHERE)
    }

    /// Whether all nodes are equally near.
    pub(crate) fn is_empty(&self) -> bool {
        self.leaves == 0 && self.blocks == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Block;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn switch(title: &str, nodes: &[&str], below: &[&str]) -> Switch {
        Switch {
            name: title.into(),
            nodes: nodes.iter().map(|node| name(node)).collect(),
            switches: below.iter().map(|switch| (*switch).into()).collect(),
        }
    }

    fn topology(switches: Vec<Switch>, blocks: &[(&str, &[&str])]) -> Topology {
        let block = |(title, nodes): &(&str, &[&str])| Block {
            name: (*title).into(),
            nodes: nodes.iter().map(|node| name(node)).collect(),
        };
        Topology { switches: switches.into(), blocks: blocks.iter().map(block).collect() }
    }

    #[test]
    fn leaves_below_a_switch_are_a_range() {
        let switches = vec![
            switch("s0", &["a"], &[]),
            switch("top", &[], &["left", "s2"]),
            switch("s1", &["b"], &[]),
            switch("left", &[], &["s1", "s0"]),
            switch("s2", &["c", "d"], &[]),
        ];
        let topology = topology(switches, &[("b1", &["a", "c"])]);
        let names = [name("a"), name("b"), name("c"), name("d"), name("e")];
        let site = Site::new(&topology, names.iter());
        assert_eq!(site.tree().switches, [0..1, 0..2, 0..3, 1..2, 2..3]);
        let leaves: Vec<_> = (0..5).map(|index| site.spot(NodeIndex(index)).leaf).collect();
        assert_eq!(leaves, [1, 0, 2, 2, NOWHERE]);
        let blocks: Vec<_> = (0..5).map(|index| site.spot(NodeIndex(index)).block).collect();
        assert_eq!(blocks, [0, NOWHERE, 0, NOWHERE, NOWHERE]);
    }

    #[test]
    fn what_is_no_tree_does_no_harm() {
        let both = ["a", "b"];
        let cases = [
            vec![switch("s", &["a"], &[]), switch("s", &["b"], &[])],
            vec![switch("s", &["a"], &["unknown"])],
            vec![switch("s", &[], &["t"]), switch("t", &["a"], &["s"])],
            vec![switch("s", &["a"], &["s"])],
            vec![switch("s", &[], &[])],
            vec![switch("s", &[], &["u"]), switch("t", &[], &["u"]), switch("u", &both, &[])],
            vec![switch("s", &both, &[]), switch("t", &both, &[])],
        ];
        for switches in cases {
            let site = Site::new(&topology(switches, &[]), [name("a"), name("b")].iter());
            let leaves = site.tree().leaves;
            for index in [NodeIndex(0), NodeIndex(1)] {
                let leaf = site.spot(index).leaf;
                assert!(leaf == NOWHERE || leaf < leaves);
            }
            assert!(site.tree().switches.iter().all(|s| s.start < s.end && s.end <= leaves));
        }
        let deep: Vec<_> = (0..100_000)
            .map(|at| switch(&format!("s{at}"), &["a"], &[&format!("s{}", at + 1)]))
            .collect();
        Site::new(&topology(deep, &[]), [name("a")].iter());
    }

    proptest! {
        #[test]
        fn nodes_that_come_one_by_one_stand_where_all_at_once_would(
            texts in prop::collection::btree_set("[ab]{1,2}[0-9]{0,3}", 0..12),
            seed in any::<u64>(),
        ) {
            let mut names: Vec<_> = texts.iter().map(|text| name(text)).collect();
            if !names.is_empty() {
                let middle = usize::try_from(seed % names.len() as u64).unwrap();
                names.rotate_left(middle);
            }
            let mut site = Site::new(&Topology::default(), std::iter::empty());
            for at in 0..names.len() {
                site.add(&names[at], |index| names.get(index.get()));
            }
            prop_assert_eq!(&site, &Site::new(&Topology::default(), names.iter()));
        }
    }
}
