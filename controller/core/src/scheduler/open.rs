//! Which nodes have anything free now?
//!
//! Nodes of one kind with the same counts in use are one group, of which a class needs to look at no
//! more than the nodes it could take. Nodes on which something begins later stand alone, since what
//! they can take depends on the limit of who asks.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::Pool;
use super::profile::{Lines, Peak};
use crate::model::NodeIndex;

/// What nodes of one group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    kind: u32,
    cpus: u32,
    memory: u64,
    busy: bool,
    gres: Vec<u32>,
}

/// Nodes with something free now.
#[derive(Debug, Clone, Default)]
pub(super) struct Open {
    groups: BTreeMap<Likeness, BTreeSet<NodeIndex>>,
    alone: BTreeSet<NodeIndex>,
    /// Free CPUs of the open nodes, by kind.
    cpus: Vec<u64>,
    place_of: Vec<Option<Likeness>>,
}

impl Open {
    /// Looks at every node.
    pub(super) fn new(pool: &Pool, lines: &Lines, nodes: usize, now: i64) -> Self {
        let mut open = Self {
            cpus: vec![0; pool.kinds().len()],
            place_of: vec![None; nodes],
            ..Self::default()
        };
        for index in (0u32..).map(NodeIndex).take(nodes) {
            open.enter(index, pool, lines, now);
        }
        open
    }

    /// Takes into account that the use of a node changed.
    pub(super) fn update(&mut self, index: NodeIndex, pool: &Pool, lines: &Lines, now: i64) {
        self.alone.remove(&index);
        if let Some(old) = self.place_of[index.get()].take() {
            let free = free_cpus(pool, &old);
            self.cpus[old.kind as usize] = self.cpus[old.kind as usize].saturating_sub(free);
            if let Some(group) = self.groups.get_mut(&old) {
                group.remove(&index);
                if group.is_empty() {
                    self.groups.remove(&old);
                }
            }
        }
        self.enter(index, pool, lines, now);
    }

    fn enter(&mut self, index: NodeIndex, pool: &Pool, lines: &Lines, now: i64) {
        let Some(kind) = pool.kind_of(index) else { return };
        let line = lines.line(index);
        let Peak { cpus, memory, holders, gres } = line.peak(now, now.saturating_add(1));
        let likeness = Likeness { kind, cpus, memory, busy: holders > 0, gres };
        let free = free_cpus(pool, &likeness);
        if free == 0 {
            return;
        }
        self.cpus[kind as usize] += free;
        if line.grows() || !pool.kinds()[kind as usize].reservations.is_empty() {
            self.alone.insert(index);
        } else {
            self.groups.entry(likeness.clone()).or_default().insert(index);
        }
        self.place_of[index.get()] = Some(likeness);
    }

    /// The groups: their kind, what is in use on each of their nodes, and these.
    pub(super) fn groups(&self) -> impl Iterator<Item = (u32, Peak, &BTreeSet<NodeIndex>)> {
        self.groups.iter().map(|(like, nodes)| {
            let peak = Peak {
                cpus: like.cpus,
                memory: like.memory,
                holders: u32::from(like.busy),
                gres: like.gres.clone(),
            };
            (like.kind, peak, nodes)
        })
    }

    /// Nodes on which something begins later, or that a reservation holds.
    pub(super) fn alone(&self) -> impl Iterator<Item = NodeIndex> {
        self.alone.iter().copied()
    }

    /// Free CPUs on the nodes of a partition.
    pub(super) fn free_cpus(&self, pool: &Pool, partition: u32) -> u64 {
        let kinds = pool.kinds().iter().zip(&self.cpus);
        kinds.filter(|(kind, _)| kind.partitions.contains(&partition)).map(|(_, cpus)| cpus).sum()
    }
}

fn free_cpus(pool: &Pool, like: &Likeness) -> u64 {
    u64::from(pool.kinds()[like.kind as usize].inventory.cpus.saturating_sub(like.cpus))
}
