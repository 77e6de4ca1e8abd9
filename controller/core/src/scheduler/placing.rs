//! How does a placement look at a window of time, and how does it become one of now?

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;
use penstock_vocab::{JobId, Mib, UserId};

use super::demand::Demand;
use super::free::{Free, View, pick_cpus, pick_sockets};
use super::near::{near_cpus, pick_units};
use super::profile::{Amount, Counts, Fits, Peak};
use crate::cluster::Cluster;
use crate::model::{GresShare, Holder, Node, NodeIndex, NodeShare, NodeUse};

/// Someone who is not the user who asks: no user has this number.
pub(super) const STRANGER: UserId = UserId(u32::MAX);

/// What is taken within a window: of some nodes the highest use of the window, of others what is
/// taken now.
pub(super) struct Window<'a> {
    now: &'a Free<'a>,
    cluster: &'a Cluster,
    over: BTreeMap<NodeIndex, NodeUse>,
    /// Units that are kept for somebody, by resource and number.
    blocked: BTreeMap<NodeIndex, Vec<(usize, usize)>>,
}

impl<'a> Window<'a> {
    /// What is taken now.
    pub(super) fn now(now: &'a Free<'a>, cluster: &'a Cluster) -> Self {
        Self { now, cluster, over: BTreeMap::new(), blocked: BTreeMap::new() }
    }

    /// On this node, so much is in use at most.
    pub(super) fn set(&mut self, index: NodeIndex, peak: &Peak) {
        if let Some((node, used)) = self.cluster.node(index) {
            self.over.insert(index, stand_in(node, used, peak));
        }
    }

    /// Nobody gets these units of a node: resources and numbers.
    pub(super) fn block(&mut self, index: NodeIndex, units: Vec<(usize, usize)>) {
        if !units.is_empty() {
            self.blocked.insert(index, units);
        }
    }

    /// Calls `look` with what is taken, and what is blocked as if it were.
    fn beside<T>(
        &self,
        index: NodeIndex,
        (node, used): (&Node, &NodeUse),
        look: impl FnOnce(&Node, &NodeUse) -> T,
    ) -> T {
        let Some(units) = self.blocked.get(&index) else { return look(node, used) };
        let mut used = used.clone();
        for (at, id) in units {
            if used.gres.len() <= *at {
                used.gres.resize(*at + 1, FixedBitSet::new());
            }
            used.gres[*at].grow_and_insert(*id);
        }
        look(node, &used)
    }

    /// Turns shares, which may stand for counts alone, into such as are free now. `None`: something
    /// is not, which cannot be where the window began now.
    pub(super) fn make_real(
        &self,
        shares: Vec<NodeShare>,
        demand: &Demand<'_>,
    ) -> Option<Vec<NodeShare>> {
        let real = |share: NodeShare| {
            if self.over.contains_key(&share.node) {
                self.now.with(share.node, |node, used| {
                    let now = (node, used);
                    self.beside(share.node, now, |node, used| real(node, used, &share, demand))
                })?
            } else {
                Some(share)
            }
        };
        shares.into_iter().map(real).collect()
    }
}

impl View for Window<'_> {
    fn with<T>(&self, index: NodeIndex, look: impl FnOnce(&Node, &NodeUse) -> T) -> Option<T> {
        match self.over.get(&index) {
            Some(used) => Some(self.beside(index, (self.cluster.node(index)?.0, used), look)),
            None => self.now.with(index, |node, used| self.beside(index, (node, used), look)),
        }
    }
}

/// A use of so many units. Which ones they are matters little ahead of time: the lowest ones.
fn stand_in(node: &Node, now: &NodeUse, peak: &Peak) -> NodeUse {
    let first = |all: usize, count: u32| {
        let mut units = FixedBitSet::with_capacity(all.max(count as usize));
        units.insert_range(..count as usize);
        units
    };
    let (inventory, counts) = (&node.inventory, &peak.counts);
    let all = |at: usize| {
        let count = inventory.gres.get(at).map_or(0, |gres| gres.count);
        usize::try_from(count).unwrap_or(usize::MAX)
    };
    // Devices differ where some are withheld, shared or near to others: then first those that are taken
    // now.
    let units = |at: usize, count: u32| {
        if inventory.gpus.is_empty() && !inventory.has_shards() && node.admin.gpus.is_empty() {
            return first(all(at), count);
        }
        let (withheld, mut units) = (node.withheld(at), FixedBitSet::with_capacity(all(at)));
        let taken = now.gres.get(at).into_iter().flat_map(FixedBitSet::ones);
        let free = |id: &usize| now.gres.get(at).is_none_or(|taken| !taken.contains(*id));
        let others = (0..all(at)).filter(|id| !withheld.contains(*id)).filter(free);
        units.extend(taken.chain(others).take(count as usize));
        units
    };
    let mut used = NodeUse {
        cpus: first(inventory.cpus as usize, counts.cpus),
        memory: Mib(counts.memory),
        gres: peak.gres.iter().enumerate().map(|(at, count)| units(at, *count)).collect(),
        ..NodeUse::default()
    };
    if counts.holders > 0 {
        // Somebody is there, of whom it is not known who.
        used.jobs.insert(JobId(0));
        let holder = Holder { uid: STRANGER, alone: counts.alone > 0 };
        used.holders.push((holder, counts.holders));
    }
    used
}

/// The same counts in units that are free.
fn real(node: &Node, used: &NodeUse, share: &NodeShare, demand: &Demand<'_>) -> Option<NodeShare> {
    let mut gres = Vec::with_capacity(share.gres.len());
    pick_sockets(node, used, demand, &mut gres)?;
    // The parts stand in the order in which they were picked: what sockets give first.
    for part in &share.gres[gres.len()..] {
        let at = node.inventory.gres.iter().position(|have| have.name == part.name)?;
        let same = gres.iter().filter(|share: &&GresShare| share.name == part.name);
        let mine: Vec<u32> = same.flat_map(|share| share.ids.to_vec()).collect();
        let ids = pick_units(node, used, at, part.ids.len(), &mine);
        if ids.len() < part.ids.len() {
            return None;
        }
        gres.push(GresShare { name: part.name.clone(), ids });
    }
    let near = near_cpus(&node.inventory, &gres);
    let wanted = u32::try_from(share.cpus.count_ones(..)).unwrap_or(u32::MAX);
    let cpus = pick_cpus(&node.inventory, used, wanted, &near)?;
    Some(NodeShare { cpus, gres: gres.into(), ..share.clone() })
}

/// Whether exactly this amount is free on a node.
pub(super) struct Exactly {
    cpus: Option<u32>,
    memory: Option<u64>,
    alone: bool,
    gres: Vec<Option<u32>>,
}

impl Exactly {
    /// For a share of a node.
    pub(super) fn new(node: &Node, amount: &Amount, alone: bool) -> Self {
        let inventory = &node.inventory;
        let of = |(have, count): (&penstock_vocab::GresRequest, &u32)| {
            u32::try_from(have.count).unwrap_or(u32::MAX).checked_sub(*count)
        };
        Self {
            cpus: inventory.cpus.checked_sub(amount.cpus),
            memory: inventory.memory.0.checked_sub(amount.memory),
            alone,
            gres: inventory.gres.iter().zip(&amount.gres).map(of).collect(),
        }
    }
}

impl Fits for Exactly {
    fn fits(&self, counts: &Counts, gres: &[u32]) -> bool {
        self.cpus.is_some_and(|most| counts.cpus <= most)
            && self.memory.is_some_and(|most| counts.memory <= most)
            && (!self.alone || counts.holders == 0)
            && counts.alone == 0
            && self.gres.iter().zip(gres).all(|(most, used)| most.is_some_and(|most| *used <= most))
    }
}
