//! Which nodes have anything free now?
//!
//! Nodes of one kind with the same counts in use are one group, of which a class needs to look at no
//! more than the nodes it could take. Nodes on which something begins later stand alone, since what
//! they can take depends on the limit of who asks.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::Pool;
use super::profile::{Counts, Lines, Peak};
use super::topology::Site;
use crate::model::NodeIndex;

/// What nodes of one group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    kind: u32,
    /// With whether anybody is there instead of how many.
    counts: Counts,
    gres: Vec<u32>,
}

/// Nodes with something free now.
#[derive(Debug, Clone, Default)]
pub(super) struct Open {
    /// By likeness, in the order of their names.
    groups: Vec<(Likeness, BTreeSet<(u32, NodeIndex)>)>,
    numbers: BTreeMap<Likeness, u32>,
    alone: BTreeSet<NodeIndex>,
    /// Free CPUs of the open nodes, by kind.
    cpus: Vec<u64>,
    /// Group by node, whether it stands there or alone; [`NONE`]: nothing is free.
    group_of: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Open {
    /// Looks at every node.
    pub(super) fn new(pool: &Pool, lines: &Lines, site: &Site, now: i64) -> Self {
        let nodes = pool.node_count();
        let mut open = Self {
            cpus: vec![0; pool.kinds().len()],
            group_of: vec![NONE; nodes],
            ..Self::default()
        };
        let mut last = NONE;
        for index in (0u32..).map(NodeIndex).take(nodes) {
            open.enter((index, site.rank(index)), pool, lines, now, last);
            if open.group_of[index.get()] != NONE {
                last = open.group_of[index.get()];
            }
        }
        open
    }

    /// Takes into account that the use of a node changed.
    pub(super) fn update(
        &mut self,
        index: NodeIndex,
        pool: &Pool,
        lines: &Lines,
        site: &Site,
        now: i64,
    ) {
        self.alone.remove(&index);
        let old = std::mem::replace(&mut self.group_of[index.get()], NONE);
        if let Some((like, group)) = self.groups.get_mut(old as usize) {
            group.remove(&(site.rank(index), index));
            let cpus = &mut self.cpus[like.kind as usize];
            *cpus = cpus.saturating_sub(free_cpus(pool, like.kind, like.counts.cpus));
        }
        self.enter((index, site.rank(index)), pool, lines, now, old);
    }

    /// `guess`: the group that it is probably in.
    fn enter(
        &mut self,
        (index, rank): (NodeIndex, u32),
        pool: &Pool,
        lines: &Lines,
        now: i64,
        guess: u32,
    ) {
        let Some(kind) = pool.kind_of(index) else { return };
        let line = lines.line(index);
        let (mut counts, gres) = line.at(now);
        let one_user = counts.alone > 0;
        counts.holders = counts.holders.min(1);
        counts.alone = counts.alone.min(1);
        let free = free_cpus(pool, kind, counts.cpus);
        if free == 0 {
            return;
        }
        self.cpus[kind as usize] += free;
        let like =
            |like: &Likeness| like.kind == kind && like.counts == counts && like.gres == gres;
        let number = match self.groups.get(guess as usize) {
            Some((guessed, _)) if like(guessed) => guess,
            Some(_) | None => self.number(Likeness { kind, counts, gres: gres.to_vec() }),
        };
        self.group_of[index.get()] = number;
        if line.grows() || one_user || !pool.kinds()[kind as usize].reservations.is_empty() {
            self.alone.insert(index);
        } else {
            self.groups[number as usize].1.insert((rank, index));
        }
    }

    fn number(&mut self, likeness: Likeness) -> u32 {
        if let Some(number) = self.numbers.get(&likeness) {
            return *number;
        }
        let number = u32::try_from(self.groups.len()).unwrap_or(NONE);
        self.groups.push((likeness.clone(), BTreeSet::new()));
        self.numbers.insert(likeness, number);
        number
    }

    /// The groups: their kind, what is in use on each of their nodes, and these.
    pub(super) fn groups(&self) -> impl Iterator<Item = (u32, Peak, &BTreeSet<(u32, NodeIndex)>)> {
        let some = self.groups.iter().filter(|(_, nodes)| !nodes.is_empty());
        some.map(|(like, nodes)| {
            let peak = Peak { counts: like.counts, gres: like.gres.clone() };
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

fn free_cpus(pool: &Pool, kind: u32, used: u32) -> u64 {
    u64::from(pool.kinds()[kind as usize].inventory.cpus.saturating_sub(used))
}
