//! What do GPUs cost, where a job holds parts of them?
//!
//! A weight for `gres/gpu:h100` charges slices of an H100 by their part, unless the profile has a weight
//! of its own; one for `gres/gpu` charges parts of any GPU. A shard costs its part of the GPU it is on.

use penstock_vocab::{GresName, PartitionName, Tres, TresKind};

use super::Cluster;
use crate::model::{GPU, Gpu, Inventory, NodeShare, ONE_MILLIONTHS, SHARD};
use crate::policy::{GpuParts, billing_with_parts, weights_in};

impl Cluster {
    /// Billing units of shares in a partition; `tres` is what they come to.
    pub(super) fn billing_of(
        &self,
        partition: &PartitionName,
        shares: &[NodeShare],
        tres: &Tres,
    ) -> u64 {
        let parts = self.gpu_parts(partition, shares);
        billing_with_parts(&self.config, partition, tres, &parts)
    }

    fn gpu_parts(&self, partition: &PartitionName, shares: &[NodeShare]) -> GpuParts {
        let mut parts = GpuParts::new();
        let weights = weights_in(&self.config, partition);
        for share in shares {
            let Some(node) = self.nodes.get(share.node.get()) else { continue };
            let inventory = &node.inventory;
            if inventory.gpus.is_empty() {
                continue;
            }
            for gres in &share.gres {
                let weighed = weights.contains_key(&TresKind::Gres(gres.name.clone()));
                for id in &gres.ids {
                    add_part(&mut parts, inventory, &gres.name, *id, weighed);
                }
            }
        }
        parts
    }
}

/// Adds what one unit is a part of. `weighed`: its own type has a weight.
fn add_part(parts: &mut GpuParts, inventory: &Inventory, name: &GresName, id: u32, weighed: bool) {
    let Some(device) = inventory.device(name, id) else { return };
    let part = match (name.name(), device.slice) {
        (GPU, Some(slice)) => device.gpu.part(slice),
        (SHARD, _) => shard_part(inventory, name, device.gpu),
        _ => return,
    };
    let part = i64::try_from(part).unwrap_or(0);
    let counted = i64::try_from(ONE_MILLIONTHS).unwrap_or(0);
    // A slice is among the GPUs of any type already, as one; a shard is not.
    let more = if name.name() == GPU { part - counted } else { part };
    if name.name() == GPU || !weighed {
        *parts.entry(GresName::gpu()).or_insert(0) += more;
    }
    if !weighed && let Ok(model) = GresName::new(GPU, Some(&device.gpu.kind)) {
        *parts.entry(model).or_insert(0) += part;
    }
}

/// One shard's part of the GPU that it is on, millionths.
fn shard_part(inventory: &Inventory, name: &GresName, gpu: &Gpu) -> u64 {
    let all = inventory.gres.iter().find(|have| have.name == *name).map_or(0, |have| have.count);
    let all = u32::try_from(all).unwrap_or(u32::MAX);
    let here = (0..all)
        .filter(|id| inventory.device(name, *id).is_some_and(|d| d.gpu.index == gpu.index))
        .count();
    ONE_MILLIONTHS / (here as u64).max(1)
}
