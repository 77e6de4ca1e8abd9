//! Which units of a generic resource can't be given out?
//!
//! Those that are taken; those whose GPU is drained; and of a GPU that can be shared, its shards while
//! somebody holds it whole, and itself while somebody holds a shard of it.

use std::borrow::Cow;

use fixedbitset::FixedBitSet;

use crate::model::{GPU, Inventory, Node, NodeUse, SHARD};

/// Units that can't be given out, of the resource at this place of the inventory.
pub(super) fn busy<'a>(node: &Node, used: &'a NodeUse, at: usize) -> Cow<'a, FixedBitSet> {
    let taken = used.gres.get(at).map_or_else(|| Cow::Owned(FixedBitSet::new()), Cow::Borrowed);
    let inventory = &node.inventory;
    let admin = &node.admin;
    if admin.gpus.is_empty() && admin.reshapes.is_empty() && !inventory.has_shards() {
        return taken;
    }
    let mut busy = taken.into_owned();
    union(&mut busy, &node.withheld(at));
    if inventory.has_shards() {
        union(&mut busy, &held_otherwise(inventory, used, at));
    }
    Cow::Owned(busy)
}

/// How many these are.
pub(super) fn busy_count(node: &Node, used: &NodeUse, at: usize) -> u64 {
    busy(node, used, at).count_ones(..) as u64
}

/// Units whose GPU is held in the other way: whole, or by shards.
fn held_otherwise(inventory: &Inventory, used: &NodeUse, at: usize) -> FixedBitSet {
    let mut units = FixedBitSet::new();
    let Some(have) = inventory.gres.get(at) else { return units };
    let other = match have.name.name() {
        GPU => SHARD,
        SHARD => GPU,
        _ => return units,
    };
    let mut gpus = FixedBitSet::new();
    for (place, taken) in used.gres.iter().enumerate() {
        if inventory.gres.get(place).is_some_and(|have| have.name.name() == other) {
            for id in taken.ones().filter_map(|id| u32::try_from(id).ok()) {
                if let Some(gpu) = inventory.gpu_place(place, id) {
                    gpus.grow_and_insert(gpu);
                }
            }
        }
    }
    if gpus.is_clear() {
        return units;
    }
    for id in 0..u32::try_from(have.count).unwrap_or(u32::MAX) {
        if inventory.gpu_place(at, id).is_some_and(|gpu| gpus.contains(gpu)) {
            units.grow_and_insert(id as usize);
        }
    }
    units
}

fn union(all: &mut FixedBitSet, more: &FixedBitSet) {
    all.grow(more.len());
    all.union_with(more);
}
