//! Which nodes are alike?
//!
//! Nodes of one *kind* differ in name and use alone: same inventory, features and weight, in the same
//! partitions, held by the same reservations. What a class needs is worked out once for a kind, and
//! of idle nodes of one kind it is enough to look at a few.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_vocab::{GresRequest, Timestamp};

use super::fit::partition_nodes;
use crate::cluster::Cluster;
use crate::model::{Config, Inventory, Node, NodeIndex, Reservation};

/// What nodes of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Traits {
    cpus: u32,
    threads: u32,
    memory: u64,
    gres: Box<[GresRequest]>,
    features: Vec<Box<str>>,
    weight: u32,
    partitions: Vec<u32>,
    reservations: Vec<u32>,
}

/// A kind of nodes.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    /// What they have, in so far as a placement depends on it.
    pub(super) inventory: Inventory,
    /// Features.
    pub(super) features: Vec<Box<str>>,
    /// Partitions that they are in, by their places in the configuration.
    pub(super) partitions: Vec<u32>,
    /// Reservations that hold them, by their places in [`Pool::reservations`].
    pub(super) reservations: Vec<u32>,
}

/// A time during which a reservation holds its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) from: i64,
    pub(super) until: i64,
    /// Place in [`Pool::reservations`].
    pub(super) reservation: u32,
}

/// The nodes, sorted into kinds.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    config: Option<Arc<Config>>,
    kinds: Vec<Kind>,
    by_traits: BTreeMap<Traits, u32>,
    /// Kind of each node; `None`: it accepts no work.
    kind_of: Vec<Option<u32>>,
    nodes: Vec<Arc<Node>>,
    /// Nodes of another kind than at the plan before.
    fresh: Vec<NodeIndex>,
    /// Nodes of each partition.
    partitions: Vec<Vec<NodeIndex>>,
    partitions_of: Vec<Vec<u32>>,
    reservations: Vec<Arc<Reservation>>,
    reservations_of: Vec<Vec<u32>>,
    /// When each reservation holds its nodes.
    calendar: Vec<Vec<Held>>,
}

impl Pool {
    /// Takes the nodes as they are in this snapshot. True if classes must be worked out anew.
    /// Cost: a look at every node.
    pub(super) fn refresh(&mut self, cluster: &Cluster) -> bool {
        let config = cluster.config();
        let same_config = self.config.as_ref().is_some_and(|old| Arc::ptr_eq(old, config));
        let reservations: Vec<_> = cluster.reservations().cloned().collect();
        let same_reservations = self.reservations.len() == reservations.len()
            && self.reservations.iter().zip(&reservations).all(|(a, b)| Arc::ptr_eq(a, b));
        let anew = !same_config || !same_reservations || self.nodes.len() != cluster.node_count();
        if anew {
            *self = Self { config: Some(Arc::clone(config)), reservations, ..Self::default() };
            self.sort_out(cluster);
            let places = self.reservations.iter().zip(0..);
            self.calendar = places.map(|(reservation, at)| held(reservation, at)).collect();
        }
        self.fresh.clear();
        for (index, node, _) in cluster.nodes() {
            match self.nodes.get(index.get()) {
                Some(old) if Arc::ptr_eq(old, node) => continue,
                Some(_) => self.nodes[index.get()] = Arc::clone(node),
                None => {
                    self.nodes.push(Arc::clone(node));
                    self.kind_of.push(None);
                }
            }
            let kind = self.kind_for(index, node);
            if std::mem::replace(&mut self.kind_of[index.get()], kind) != kind {
                self.fresh.push(index);
            }
        }
        anew
    }

    /// Who is in which partition, and held by which reservation.
    fn sort_out(&mut self, cluster: &Cluster) {
        self.partitions_of = vec![Vec::new(); cluster.node_count()];
        self.reservations_of = vec![Vec::new(); cluster.node_count()];
        for (place, partition) in (0u32..).zip(&cluster.config().partitions) {
            let nodes = partition_nodes(cluster, partition);
            for node in &nodes {
                self.partitions_of[node.get()].push(place);
            }
            self.partitions.push(nodes);
        }
        for (place, reservation) in (0u32..).zip(&self.reservations) {
            for name in &reservation.nodes {
                if let Some(node) = cluster.node_index(name.as_str())
                    && self.reservations_of[node.get()].last() != Some(&place)
                {
                    self.reservations_of[node.get()].push(place);
                }
            }
        }
    }

    fn kind_for(&mut self, index: NodeIndex, node: &Node) -> Option<u32> {
        if !node.accepts_work() {
            return None;
        }
        let inventory = &node.inventory;
        let traits = Traits {
            cpus: inventory.cpus,
            threads: inventory.threads_per_core,
            memory: inventory.memory.0,
            gres: inventory.gres.clone(),
            features: node.features(),
            weight: node.effective_weight(),
            partitions: self.partitions_of[index.get()].clone(),
            reservations: self.reservations_of[index.get()].clone(),
        };
        if let Some(kind) = self.by_traits.get(&traits) {
            return Some(*kind);
        }
        let place = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        self.kinds.push(Kind {
            inventory: Inventory {
                cpus: inventory.cpus,
                threads_per_core: inventory.threads_per_core,
                memory: inventory.memory,
                gres: inventory.gres.clone(),
                ..Inventory::default()
            },
            features: traits.features.clone(),
            partitions: traits.partitions.clone(),
            reservations: traits.reservations.clone(),
        });
        self.by_traits.insert(traits, place);
        Some(place)
    }

    /// Kind of a node; `None`: it accepts no work.
    pub(super) fn kind_of(&self, node: NodeIndex) -> Option<u32> {
        self.kind_of.get(node.get()).copied().flatten()
    }

    /// Nodes of another kind than at the plan before.
    pub(super) fn fresh(&self) -> &[NodeIndex] {
        &self.fresh
    }

    /// How many nodes there are.
    pub(super) fn node_count(&self) -> usize {
        self.kind_of.len()
    }

    /// All kinds, also such as no node is of any more.
    pub(super) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Nodes of a partition, by its place in the configuration.
    pub(super) fn partition(&self, place: u32) -> &[NodeIndex] {
        &self.partitions[place as usize]
    }

    /// The reservations, by name.
    pub(super) fn reservations(&self) -> &[Arc<Reservation>] {
        &self.reservations
    }

    /// When a reservation holds its nodes.
    pub(super) fn calendar(&self, reservation: u32) -> &[Held] {
        &self.calendar[reservation as usize]
    }
}

/// When a reservation holds its nodes.
fn held(reservation: &Reservation, place: u32) -> Vec<Held> {
    let held = |(from, until): (Timestamp, Timestamp)| Held {
        from: from.0,
        until: until.0,
        reservation: place,
    };
    reservation.windows().map(held).collect()
}
