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

/// Deepest tree, so that no file can exhaust the stack; real ones have two to four levels.
const MAX_DEPTH: u32 = 32;

/// Neither a leaf nor a block.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Why a topology can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two of one name.
    #[error("topology: {0} is there twice; give each switch and block a name of its own")]
    Twice(Box<str>),
    /// A switch that is not described.
    #[error("topology: switch {switch} names a switch {below}, which is not described")]
    Unknown {
        /// Who names it.
        switch: Box<str>,
        /// What is named.
        below: Box<str>,
    },
    /// A switch below two others.
    #[error("topology: switch {0} is below two switches; a tree has one way up")]
    TwoParents(Box<str>),
    /// A switch below itself.
    #[error("topology: switch {0} is below itself, or deeper than {MAX_DEPTH} levels")]
    Cycle(Box<str>),
    /// A switch with nothing below it.
    #[error("topology: switch {0} has neither nodes nor switches")]
    Empty(Box<str>),
    /// A node of two leaf switches or two blocks.
    #[error("topology: node {node} is in {first} and in {second}; a node has one place")]
    TwoPlaces {
        /// Which.
        node: NodeName,
        /// Where it is named first.
        first: Box<str>,
        /// And then.
        second: Box<str>,
    },
}

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
    /// Reads what can be read; what [`check_topology`] refuses is left out.
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

/// Whether switches and blocks are what they should be: a tree, each node in one place.
///
/// # Errors
/// With the first thing that is wrong.
pub fn check_topology(topology: &Topology) -> Result<(), TopologyError> {
    let mut by_name: BTreeMap<&str, &Switch> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for switch in &topology.switches {
        by_name.insert(&switch.name, switch);
    }
    let switches = topology.switches.iter().map(|switch| &*switch.name);
    for name in switches.chain(topology.blocks.iter().map(|block| &*block.name)) {
        if !names.insert(name) {
            return Err(TopologyError::Twice(name.into()));
        }
    }
    let mut above = BTreeMap::new();
    for switch in &topology.switches {
        if switch.nodes.is_empty() && switch.switches.is_empty() {
            return Err(TopologyError::Empty(switch.name.clone()));
        }
        for below in &switch.switches {
            if !by_name.contains_key(&**below) {
                let (switch, below) = (switch.name.clone(), below.clone());
                return Err(TopologyError::Unknown { switch, below });
            }
            if above.insert(&**below, &*switch.name).is_some() {
                return Err(TopologyError::TwoParents(below.clone()));
            }
        }
    }
    for switch in &topology.switches {
        let up = std::iter::successors(Some(&*switch.name), |name| above.get(name).copied());
        if up.take(MAX_DEPTH as usize + 1).count() > MAX_DEPTH as usize {
            return Err(TopologyError::Cycle(switch.name.clone()));
        }
    }
    one_place(topology.switches.iter().map(|switch| (&switch.name, &switch.nodes)))?;
    one_place(topology.blocks.iter().map(|block| (&block.name, &block.nodes)))
}

fn one_place<'t>(
    places: impl Iterator<Item = (&'t Box<str>, &'t Box<[NodeName]>)>,
) -> Result<(), TopologyError> {
    let mut place_of: BTreeMap<&NodeName, &str> = BTreeMap::new();
    for (place, nodes) in places {
        for node in nodes {
            if let Some(first) = place_of.insert(node, place) {
                let (first, second) = (first.into(), place.clone());
                return Err(TopologyError::TwoPlaces { node: node.clone(), first, second });
            }
        }
    }
    Ok(())
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
        assert_eq!(check_topology(&topology), Ok(()));
        let names = [name("a"), name("b"), name("c"), name("d"), name("e")];
        let site = Site::new(&topology, names.iter());
        assert_eq!(site.tree().switches, [0..1, 0..2, 0..3, 1..2, 2..3]);
        let leaves: Vec<_> = (0..5).map(|index| site.spot(NodeIndex(index)).leaf).collect();
        assert_eq!(leaves, [1, 0, 2, 2, NOWHERE]);
        let blocks: Vec<_> = (0..5).map(|index| site.spot(NodeIndex(index)).block).collect();
        assert_eq!(blocks, [0, NOWHERE, 0, NOWHERE, NOWHERE]);
    }

    #[test]
    fn what_is_no_tree_is_refused_and_does_no_harm() {
        let cases = [
            (vec![switch("s", &["a"], &[]), switch("s", &["b"], &[])], "twice"),
            (vec![switch("s", &[], &["t"])], "not described"),
            (vec![switch("s", &[], &["t"]), switch("t", &[], &["s"])], "below itself"),
            (vec![switch("s", &[], &["s"])], "below itself"),
            (vec![switch("s", &[], &[])], "neither"),
            (
                vec![switch("s", &[], &["u"]), switch("t", &[], &["u"]), switch("u", &["a"], &[])],
                "two switches",
            ),
            (vec![switch("s", &["a"], &[]), switch("t", &["a"], &[])], "one place"),
        ];
        for (switches, why) in cases {
            let topology = topology(switches, &[]);
            let error = check_topology(&topology).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
            Site::new(&topology, [name("a")].iter());
        }
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
