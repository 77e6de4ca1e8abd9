//! What of a run's nodes is left for one more step?

use fixedbitset::FixedBitSet;
use penstock_vocab::{Mib, NodeName};

use super::Cluster;
use crate::model::{Job, MemoryRequest, NodeIndex, NodeShare, Run, Step};

/// What a run has on one of its nodes, and what no step holds of it.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// Its place among the run's nodes.
    pub(super) at: usize,
    /// The node.
    pub(super) node: NodeIndex,
    /// Its name.
    pub(super) name: NodeName,
    /// All that the run has there.
    pub(super) all: NodeShare,
    /// Hardware threads in a core; steps get whole cores.
    pub(super) threads: u32,
    /// CPUs that no step holds.
    pub(super) cpus: FixedBitSet,
    /// Memory that no step asked for.
    pub(super) memory: Mib,
    /// Units that no step holds, in the order of `all.gres`.
    pub(super) units: Vec<Vec<u32>>,
}

impl Room {
    /// A node where no step holds anything.
    pub(super) fn empty(at: usize, name: NodeName, all: &NodeShare, threads: u32) -> Self {
        Self {
            at,
            node: all.node,
            name,
            threads: threads.max(1),
            cpus: all.cpus.clone(),
            memory: all.memory,
            units: all.gres.iter().map(|gres| gres.ids.to_vec()).collect(),
            all: all.clone(),
        }
    }

    /// Takes what a step holds here out of what is free.
    pub(super) fn take(&mut self, step: &Step) {
        let Some(part) = step.share_on(self.node).filter(|part| part.is_live() && step.holds())
        else {
            return;
        };
        let share = &part.share;
        self.cpus.difference_with(&share.cpus);
        if asks_memory(step.spec.memory) {
            self.memory = self.memory.saturating_sub(share.memory);
        }
        for (gres, free) in self.all.gres.iter().zip(&mut self.units) {
            let held = share.gres.iter().filter(|held| held.name == gres.name);
            for held in held {
                free.retain(|id| !held.ids.contains(id));
            }
        }
    }

    /// Nothing that the run has here is held.
    pub(super) fn is_whole(&self) -> bool {
        self.all.cpus.is_subset(&self.cpus)
    }

    /// Free CPUs.
    pub(super) fn cpu_count(&self) -> u32 {
        count(&self.cpus)
    }
}

/// So many CPUs in whole cores.
pub(super) fn whole_cores(cpus: u64, threads: u32) -> u64 {
    cpus.div_ceil(u64::from(threads.max(1))).saturating_mul(u64::from(threads.max(1)))
}

pub(super) fn count(cpus: &FixedBitSet) -> u32 {
    u32::try_from(cpus.count_ones(..)).unwrap_or(u32::MAX)
}

/// Whether a step has memory of its own: the others share what their job has.
pub(super) fn asks_memory(memory: MemoryRequest) -> bool {
    matches!(memory, MemoryRequest::PerNode(_) | MemoryRequest::PerCpu(_))
}

impl Cluster {
    /// The nodes of a run that are in service, with nothing held there.
    pub(super) fn empty_rooms(&self, run: &Run) -> Vec<Room> {
        let shares = run.shares.iter().enumerate().filter_map(|(at, share)| {
            let (node, _) = self.node(share.node)?;
            let serves = node.down.is_none() && !node.admin.powered_down;
            let threads = node.inventory.threads_per_core;
            serves.then(|| Room::empty(at, node.name.clone(), share, threads))
        });
        shares.collect()
    }

    /// The same, with what the steps of a job hold taken out.
    pub(super) fn rooms(&self, job: &Job, mut empty: Vec<Room>) -> Vec<Room> {
        for step in self.live_steps_of(job.id) {
            empty.iter_mut().for_each(|room| room.take(step));
        }
        empty
    }
}
