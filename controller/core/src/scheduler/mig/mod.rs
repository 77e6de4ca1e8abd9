//! Which GPUs are to be cut anew, for whom?
//!
//! For GPUs whose geometry the cluster file leaves to the scheduler. The waiting units are looked at in
//! order; one that asks for slices which no node has free gets the cheapest change of one node's GPUs
//! that makes them: free slices alone are destroyed, those that somebody holds keep running. Nothing is
//! cut without somebody who waits for it, a GPU not more often than its back-off lets, and what was
//! planned for one unit is not taken from it for the next.

mod geometry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use penstock_vocab::{GresRequest, Timestamp};

pub use geometry::{Cut, Placed, capacity, cheapest, mask};

use super::free::cpus_free;
use crate::cluster::Cluster;
use crate::command::{ReshapeLine, Unit};
use crate::model::{GPU, Gpu, MigMode, NewSlice, Node, NodeIndex, NodeUse};

/// Waiting units that are looked at.
const MAX_UNITS: usize = 256;
/// Reshapes that one plan proposes.
const MAX_RESHAPES: usize = 64;

/// What was wanted of a GPU so far, by places of profiles.
type Wanted = BTreeMap<(NodeIndex, usize), Vec<usize>>;

/// Reshapes for the units of `waiting`, the first first. Cost: units that ask for slices times GPUs.
#[must_use]
pub fn reshapes(
    cluster: &Cluster,
    waiting: impl Iterator<Item = Unit>,
    now: Timestamp,
) -> Vec<ReshapeLine> {
    let nodes: Vec<_> = cluster
        .nodes()
        .filter(|(_, node, _)| node.accepts_work() && cluster.config().mig.is_dynamic(&node.name))
        .collect();
    let mut lines: BTreeMap<(NodeIndex, usize), ReshapeLine> = BTreeMap::new();
    if nodes.is_empty() {
        return Vec::new();
    }
    let mut wanted = Wanted::new();
    for unit in waiting.take(MAX_UNITS) {
        let Some(asked) = slices_of(cluster, unit) else { continue };
        if lines.len() >= MAX_RESHAPES {
            break;
        }
        let mut best: Option<(usize, NodeIndex, Wanted)> = None;
        for (index, node, used) in &nodes {
            if let Some((changes, would)) = serve((node, used), *index, &asked, &wanted, now)
                && best.as_ref().is_none_or(|(least, ..)| changes < *least)
                && cpus_free(node, used, u32::MAX) > 0
            {
                best = Some((changes, *index, would));
            }
        }
        let Some((changes, index, would)) = best else { continue };
        if changes > 0
            && let Some((node, used)) = cluster.node(index)
        {
            for ((_, at), profiles) in would.iter().filter(|((on, _), _)| *on == index) {
                let gpu = &node.inventory.gpus[*at];
                let cut = cheapest(gpu, &held(node, used, gpu), profiles);
                if let Some(cut) = cut.filter(|cut| !cut.is_nothing()) {
                    lines.insert((index, *at), line(index, gpu, &cut, unit));
                }
            }
        }
        wanted = would;
    }
    lines.into_values().collect()
}

/// The slices that a unit on one node asks for; `None`: none, or not in a way that is planned for.
fn slices_of(cluster: &Cluster, unit: Unit) -> Option<Vec<GresRequest>> {
    let queued = cluster.waiting_units().get(&unit)?;
    let shape = &queued.spec.shape;
    let is_slice = |gres: &GresRequest| {
        gres.count > 0
            && gres.name.name() == GPU
            && gres.name.kind().is_some_and(|kind| cluster.is_dynamic_profile(kind))
    };
    let gres = shape.node_gres();
    let slices: Vec<_> = gres.iter().filter(|gres| is_slice(gres)).cloned().collect();
    (!slices.is_empty() && shape.least_nodes() == 1).then_some(slices)
}

/// How many changes a node needs to serve, and what is wanted of its GPUs then.
fn serve(
    (node, used): (&Node, &NodeUse),
    index: NodeIndex,
    asked: &[GresRequest],
    wanted: &Wanted,
    now: Timestamp,
) -> Option<(usize, Wanted)> {
    let mut would = wanted.clone();
    let mut changes = 0;
    for request in asked {
        for _ in 0..request.count.min(64) {
            let (more, at, profile) = cheapest_gpu((node, used), index, request, &would, now)?;
            changes += more;
            would.entry((index, at)).or_default().push(profile);
        }
    }
    Some((changes, would))
}

/// The GPU of a node that gives one more slice of this profile with the least change: then where the
/// least capacity is lost, then the fullest.
fn cheapest_gpu(
    (node, used): (&Node, &NodeUse),
    index: NodeIndex,
    request: &GresRequest,
    wanted: &Wanted,
    now: Timestamp,
) -> Option<(usize, usize, usize)> {
    let mut best = None;
    for (at, gpu) in node.inventory.gpus.iter().enumerate() {
        if node.gpu_drain(gpu).is_some() || gpu.mig != MigMode::On {
            continue;
        }
        let kind = request.name.kind().unwrap_or_default();
        let Some(profile) = gpu.profiles.iter().position(|profile| *profile.name == *kind) else {
            continue;
        };
        let held = held(node, used, gpu);
        let before = wanted.get(&(index, at)).cloned().unwrap_or_default();
        let old = cheapest(gpu, &held, &before).unwrap_or_default();
        let all: Vec<usize> = before.into_iter().chain([profile]).collect();
        let Some(new) = cheapest(gpu, &held, &all) else { continue };
        // What is there already serves while it is left alone too.
        if !new.is_nothing() && !may_change(node, gpu, now) {
            continue;
        }
        let changes = |cut: &Cut| cut.destroy.len() + cut.create.len();
        let more = changes(&new).saturating_sub(changes(&old));
        let free = 8 - held.len();
        let key = (more, new.lost.saturating_sub(old.lost), free, at);
        if best.is_none_or(|(known, _)| key < known) {
            best = Some((key, profile));
        }
    }
    best.map(|((more, _, _, at), profile)| (more, at, profile))
}

/// Whether a GPU's slices may be changed now.
fn may_change(node: &Node, gpu: &Gpu, now: Timestamp) -> bool {
    let mut rests = node.trouble.rests.iter();
    let waits = rests.any(|rest| rest.gpu == gpu.index && rest.until > now);
    node.reshape_of(gpu).is_none() && !waits
}

/// Starts of the slices of a GPU that somebody holds.
pub(crate) fn held(node: &Node, used: &NodeUse, gpu: &Gpu) -> Vec<u32> {
    let inventory = &node.inventory;
    let mut starts = Vec::new();
    for (at, have) in inventory.gres.iter().enumerate() {
        let Some(taken) = used.gres.get(at) else { continue };
        for (device, id) in inventory.devices(&have.name).zip(0usize..) {
            if device.gpu.index == gpu.index
                && taken.contains(id)
                && let Some(slice) = device.slice
            {
                starts.push(slice.start);
            }
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

fn line(node: NodeIndex, gpu: &Gpu, cut: &Cut, unit: Unit) -> ReshapeLine {
    let new = |placed: &Placed| {
        let profile = &gpu.profiles[placed.profile];
        NewSlice {
            profile: profile.name.clone(),
            id: profile.id,
            start: placed.start,
            size: profile.size,
        }
    };
    ReshapeLine {
        node,
        gpu: gpu.index,
        generation: gpu.generation,
        destroy: cut.destroy.as_slice().into(),
        create: cut.create.iter().map(new).collect(),
        for_unit: unit,
    }
}
