//! Which GPUs are to be cut anew, for whom?
//!
//! For GPUs whose geometry the cluster file leaves to the scheduler. A waiting job that asks for slices
//! gets a place on the slots of a node's GPUs as others get theirs in the counts of the profile: now or
//! later, whatever slices there are, with the cheapest change of those. Where it could begin now, the
//! change is made: free slices alone are destroyed, those that somebody holds or starts on keep running.
//! Nothing is cut without somebody who waits for it, and a GPU not more often than its rest lets.

mod geometry;
#[cfg(test)]
mod slot_tests;
pub(super) mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use geometry::{Board, Cut, Placed, Unused, capacity, cheapest, cheapest_on, mask};

use crate::cluster::Cluster;
use crate::command::{ReshapeLine, StartLine, Unit};
use crate::model::{Gpu, NewSlice, Node, NodeIndex, NodeUse};
use slots::Place;

/// Reshapes that one plan proposes.
const MAX_RESHAPES: usize = 64;

/// Slices that a unit could begin with now, some of which are not there.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) unit: Unit,
    pub(super) node: NodeIndex,
    pub(super) places: Vec<Place>,
}

/// The changes of GPUs that make what is wanted, beside what a plan starts.
pub(super) fn reshapes(
    cluster: &Cluster,
    wanted: &[Wanted],
    starts: &[StartLine],
) -> Vec<ReshapeLine> {
    let mut gpus: BTreeMap<(NodeIndex, usize), (Unit, Vec<Placed>)> = BTreeMap::new();
    for one in wanted {
        for place in &one.places {
            let entry = gpus.entry((one.node, place.gpu)).or_insert((one.unit, Vec::new()));
            entry.1.push(place.placed);
        }
    }
    let mut lines = Vec::new();
    for ((index, at), (unit, placed)) in gpus {
        let Some((node, used)) = cluster.node(index) else { continue };
        let Some(gpu) = node.inventory.gpus.get(at) else { continue };
        let mut held = held(node, used, gpu);
        held.extend(started(node, index, gpu, starts));
        let line = line((index, gpu), &held, &placed, unit);
        if line.destroy.len() + line.create.len() > 0 && lines.len() < MAX_RESHAPES {
            lines.push(line);
        }
    }
    lines
}

/// Starts of the slices of a GPU that a plan gives out.
fn started(node: &Node, index: NodeIndex, gpu: &Gpu, starts: &[StartLine]) -> Vec<u32> {
    let shares = starts.iter().flat_map(|line| line.shares.iter());
    let gres = shares.filter(|share| share.node == index).flat_map(|share| share.gres.iter());
    let devices = gres
        .flat_map(|gres| gres.ids.iter().filter_map(|id| node.inventory.device(&gres.name, *id)));
    let here = devices.filter(|device| device.gpu.index == gpu.index);
    here.filter_map(|device| device.slice).map(|slice| slice.start).collect()
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

/// What to do to a GPU so that slices are at these places: what is free and in the way goes, also where
/// there would be too many of one profile.
fn line(
    (node, gpu): (NodeIndex, &Gpu),
    held: &[u32],
    placed: &[Placed],
    unit: Unit,
) -> ReshapeLine {
    let size = |one: &Placed| gpu.profiles.get(one.profile).map_or(0, |profile| profile.size);
    let bits = placed.iter().fold(0, |bits, one| bits | mask(one.start, size(one)));
    let profile = |name: &str| gpu.profiles.iter().position(|profile| *profile.name == *name);
    let is =
        |one: &Placed, start, name: &str| one.start == start && profile(name) == Some(one.profile);
    let there = |one: &&Placed| !gpu.slices.iter().any(|s| is(one, s.start, &s.profile));
    let create: Vec<&Placed> = placed.iter().filter(there).collect();
    let mut destroy = Vec::new();
    let mut counts = vec![0u32; gpu.profiles.len()];
    create.iter().for_each(|one| counts[one.profile] += 1);
    // What has to stay counts first.
    let stays = |slice: &&crate::model::MigSlice| {
        held.contains(&slice.start) || placed.iter().any(|one| is(one, slice.start, &slice.profile))
    };
    for slice in gpu.slices.iter().filter(stays) {
        if let Some(at) = profile(&slice.profile) {
            counts[at] += 1;
        }
    }
    for slice in gpu.slices.iter().filter(|slice| !stays(slice)) {
        let at = profile(&slice.profile);
        let most = at.map_or(0, |at| gpu.profiles[at].most);
        let full = at.is_some_and(|at| most > 0 && counts[at] >= most);
        if bits & mask(slice.start, slice.size) != 0 || full {
            destroy.push(slice.start);
        } else if let Some(at) = at {
            counts[at] += 1;
        }
    }
    let new = |one: &Placed| {
        let profile = &gpu.profiles[one.profile];
        let (name, id, size) = (profile.name.clone(), profile.id, profile.size);
        NewSlice { profile: name, id, start: one.start, size }
    };
    ReshapeLine {
        node,
        gpu: gpu.index,
        generation: gpu.generation,
        destroy: destroy.into(),
        create: create.into_iter().map(new).collect(),
        for_unit: unit,
    }
}
