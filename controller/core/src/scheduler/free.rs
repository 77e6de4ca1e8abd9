//! What is free on each node while a plan is being made?
//!
//! A working copy of the snapshot's use, changed by what the plan already gave away. CPUs are given
//! out by whole cores: logical CPUs `k * threads ..` of one core stand side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use fixedbitset::{Block, FixedBitSet};
use penstock_vocab::{GresName, GresRequest, Mib, gres_matches};

use super::demand::Demand;
use super::near::{near_cpus, pick_on_sockets, pick_units, units_free};
use super::units::busy;
use crate::cluster::Cluster;
use crate::model::{GPU, GresShare, Holder, Inventory, Node, NodeIndex, NodeShare, NodeUse};

/// What is taken on each node at some time: now, or in a window of a plan ahead.
pub(super) trait View {
    /// Calls `look` with a node and what is taken there then; `None` if there is no such node.
    fn with<T>(&self, index: NodeIndex, look: impl FnOnce(&Node, &NodeUse) -> T) -> Option<T>;
}

/// What is free, and what the plan took from it.
pub(super) struct Free<'a> {
    cluster: &'a Cluster,
    taken: BTreeMap<NodeIndex, NodeUse>,
    /// Nothing is taken: what could ever be.
    empty: bool,
    /// No GPU is drained: one that is comes back some day.
    whole: bool,
}

impl<'a> Free<'a> {
    pub(super) fn now(cluster: &'a Cluster) -> Self {
        Self { cluster, taken: BTreeMap::new(), empty: false, whole: false }
    }

    /// As if every node were idle.
    pub(super) fn idle(cluster: &'a Cluster) -> Self {
        Self { cluster, taken: BTreeMap::new(), empty: true, whole: false }
    }

    /// As if every node were idle and none of its GPUs were drained.
    pub(super) fn whole(cluster: &'a Cluster) -> Self {
        Self { whole: true, ..Self::idle(cluster) }
    }

    /// Whether a node could give more than its inventory says now.
    fn could_be_more(&self, node: &Node) -> bool {
        !node.admin.gpus.is_empty() || self.cluster.config().mig.is_dynamic(&node.name)
    }

    /// Gives a share to a job.
    pub(super) fn take(&mut self, share: &NodeShare, holder: Holder) {
        let Some((node, used)) = self.cluster.node(share.node) else { return };
        let used = self.taken.entry(share.node).or_insert_with(|| (**used).clone());
        used.add(&node.inventory, share, holder);
    }
}

/// A node with nothing drained, and as many slices of each profile as its GPUs could be cut into.
fn mended(cluster: &Cluster, node: &Node) -> Node {
    let mut mended = node.clone();
    mended.admin.gpus = Box::default();
    mended.admin.reshapes = Box::default();
    if !cluster.config().mig.is_dynamic(&node.name) {
        return mended;
    }
    let mut gres = mended.inventory.gres.to_vec();
    for profile in node.inventory.gpus.iter().flat_map(|gpu| &gpu.profiles) {
        let most = node.most_slices(&profile.name);
        let Ok(name) = GresName::new(GPU, Some(&profile.name)) else { continue };
        match gres.iter_mut().find(|have| have.name == name) {
            Some(have) => have.count = have.count.max(most),
            None if most > 0 => gres.push(GresRequest { name, count: most }),
            None => {}
        }
    }
    mended.inventory.gres = gres.into();
    mended.inventory.gpus = Arc::default();
    mended
}

impl View for Free<'_> {
    fn with<T>(&self, index: NodeIndex, look: impl FnOnce(&Node, &NodeUse) -> T) -> Option<T> {
        let (node, used) = self.cluster.node(index)?;
        Some(match self.taken.get(&index) {
            Some(used) => look(node, used),
            None if self.whole && self.could_be_more(node) => {
                look(&mended(self.cluster, node), &NodeUse::default())
            }
            None if self.empty => look(node, &NodeUse::default()),
            None => look(node, used),
        })
    }
}

/// Units of a generic resource that are free on a node.
pub(super) fn gres_free(node: &Node, used: &NodeUse, name: &GresName) -> u64 {
    (0..)
        .zip(&node.inventory.gres)
        .filter(|(_, have)| gres_matches(name, &have.name))
        .map(|(at, _)| units_free(node, used, at))
        .sum()
}

/// Whether a node has all of these at once.
pub(super) fn gres_serves(node: &Node, used: &NodeUse, asked: &[GresRequest]) -> bool {
    match asked {
        [] => true,
        [one] => gres_free(node, used, &one.name) >= one.count,
        many => {
            let mut shares = Vec::new();
            typed_first(many).all(|request| pick_gres(node, used, request, &mut shares).is_some())
        }
    }
}

/// Requests for a type take what others could not do without before those for any type.
fn typed_first(asked: &[GresRequest]) -> impl Iterator<Item = &GresRequest> {
    let typed = asked.iter().filter(|request| request.name.kind().is_some());
    typed.chain(asked.iter().filter(|request| request.name.kind().is_none()))
}

/// CPUs that are free on a node, in whole cores.
pub(super) fn cpus_free(node: &Node, used: &NodeUse, max_per_node: u32) -> u32 {
    node.inventory.cpus.min(max_per_node).saturating_sub(used.cpu_count())
}

/// Picks the CPUs, memory and devices of a share: the lowest free ones.
pub(super) fn pick(
    index: NodeIndex,
    node: &Node,
    used: &NodeUse,
    demand: &Demand<'_>,
    tasks: u32,
    gpus: u64,
) -> Option<NodeShare> {
    let inventory = &node.inventory;
    let count =
        if demand.exclusive { inventory.cpus } else { demand.cpus_for(tasks, gpus, inventory) };
    let mut gres = Vec::new();
    let asked = demand.gres_beside_sockets(tasks, gpus);
    pick_sockets(node, used, demand, &mut gres)?;
    for request in typed_first(&asked) {
        pick_gres(node, used, request, &mut gres)?;
    }
    let cpus = pick_cpus(inventory, used, count, &near_cpus(inventory, &gres))?;
    let memory = demand.memory_for(tasks, gpus, inventory);
    let (gres, sharing) = (gres.into_boxed_slice(), demand.sharing);
    Some(NodeShare { node: index, cpus, sharing, memory, tasks, gres })
}

/// Free CPUs: those of `near` first, and else the lowest. `near` has whole cores.
pub(super) fn pick_cpus(
    inventory: &Inventory,
    used: &NodeUse,
    count: u32,
    near: &FixedBitSet,
) -> Option<FixedBitSet> {
    let mut cpus = FixedBitSet::with_capacity(inventory.cpus as usize);
    let mut left = count;
    if !near.is_clear() {
        let words = near.as_slice().iter().copied().chain(std::iter::repeat(0));
        left = add_lowest(&mut cpus, inventory, used, left, words);
    }
    left = add_lowest(&mut cpus, inventory, used, left, std::iter::repeat(Block::MAX));
    (left == 0).then_some(cpus)
}

/// Adds the lowest free CPUs of `among`, a word of the set at a time; how many are missing yet.
fn add_lowest(
    cpus: &mut FixedBitSet,
    inventory: &Inventory,
    used: &NodeUse,
    mut left: u32,
    among: impl Iterator<Item = Block>,
) -> u32 {
    let (total, word) = (inventory.cpus as usize, Block::BITS as usize);
    let taken = used.cpus.as_slice().iter().copied().chain(std::iter::repeat(0));
    let words = cpus.as_mut_slice().iter_mut().zip(taken).zip(among);
    for (at, ((block, taken), among)) in words.enumerate() {
        if left == 0 {
            break;
        }
        let bits = total - at * word;
        let there = if bits < word { (1 << bits) - 1 } else { Block::MAX };
        let more = lowest(there & among & !taken & !*block, left);
        *block |= more;
        left -= more.count_ones();
    }
    left
}

/// The `count` lowest ones of a word, or all if it has fewer.
fn lowest(word: Block, count: u32) -> Block {
    let mut rest = word;
    for _ in 0..count.min(word.count_ones()) {
        rest &= rest.wrapping_sub(1);
    }
    word & !rest
}

/// Picks what a job asks of sockets; `None`: they do not have it. Nothing where it does not.
pub(super) fn pick_sockets(
    node: &Node,
    used: &NodeUse,
    demand: &Demand<'_>,
    shares: &mut Vec<GresShare>,
) -> Option<()> {
    let terms = &demand.shape.gpus;
    let Some(each) = terms.per_socket.as_ref().filter(|each| each.count > 0) else {
        return Some(());
    };
    let count = (usize::try_from(each.count).ok()?, terms.sockets() as usize);
    let gres = node.inventory.gres.iter().enumerate();
    let serving = gres.filter(|(_, have)| gres_matches(&each.name, &have.name));
    let mut found = serving.filter_map(|(at, have)| {
        let ids = pick_on_sockets(node, used, at, count, &[])?;
        Some(GresShare { name: have.name.clone(), ids })
    });
    shares.push(found.next()?);
    Some(())
}

fn pick_gres(
    node: &Node,
    used: &NodeUse,
    request: &GresRequest,
    shares: &mut Vec<GresShare>,
) -> Option<()> {
    let mut left = request.count;
    for (at, have) in node.inventory.gres.iter().enumerate() {
        if left == 0 {
            break;
        }
        if !gres_matches(&request.name, &have.name) {
            continue;
        }
        let mine: Vec<u32> =
            shares.iter().filter(|s| s.name == have.name).flat_map(|s| s.ids.to_vec()).collect();
        let wanted = usize::try_from(left).unwrap_or(usize::MAX);
        let ids = pick_units(node, used, at, wanted, &mine);
        left -= ids.len() as u64;
        if !ids.is_empty() {
            shares.push(GresShare { name: have.name.clone(), ids });
        }
    }
    (left == 0).then_some(())
}

/// Whether a share could be given out now.
#[must_use]
pub fn share_is_free(node: &Node, used: &NodeUse, share: &NodeShare) -> bool {
    let inventory = &node.inventory;
    let cpus_fit = share.cpus.ones().all(|cpu| cpu < inventory.cpus as usize)
        && used.admits_cpus(share)
        && share.cpus.count_ones(..) > 0;
    let memory = Mib(used.memory.0.saturating_add(share.memory.0));
    let gres_fit = share.gres.iter().all(|gres| {
        let at = inventory.gres.iter().position(|have| have.name == gres.name);
        at.is_some_and(|at| {
            let count = inventory.gres[at].count;
            let busy = busy(node, used, at);
            let free = |id: &u32| u64::from(*id) < count && !busy.contains(*id as usize);
            gres.ids.iter().all(free)
        })
    });
    cpus_fit && memory <= inventory.memory && gres_fit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inventory(cpus: u32) -> Inventory {
        Inventory { cpus, ..Inventory::default() }
    }

    /// CPU by CPU.
    fn one_by_one(total: u32, used: &FixedBitSet, count: u32) -> Option<Vec<usize>> {
        let free = (0..total as usize).filter(|cpu| !used.contains(*cpu));
        let cpus: Vec<usize> = free.take(count as usize).collect();
        (cpus.len() == count as usize).then_some(cpus)
    }

    proptest! {
        #[test]
        fn words_give_the_cpus_that_a_walk_gives(
            total in 1u32..300,
            // What is taken may be known of fewer CPUs than the node has, and of more.
            taken in proptest::collection::vec(any::<bool>(), 0..320),
            count in 0u32..310,
        ) {
            let mut used = NodeUse::default();
            used.cpus.grow(taken.len());
            let ones = taken.iter().enumerate().filter(|(_, taken)| **taken);
            ones.for_each(|(cpu, _)| used.cpus.insert(cpu));
            let ours = pick_cpus(&inventory(total), &used, count, &FixedBitSet::new());
            let ours = ours.map(|cpus| cpus.ones().collect::<Vec<_>>());
            prop_assert_eq!(ours, one_by_one(total, &used.cpus, count));
        }
    }
}
