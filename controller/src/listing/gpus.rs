//! In which state is each GPU of a node, and who holds it?

use penstock_core::Cluster;
use penstock_core::model::{Gpu, Job, MigMode, Node, NodeIndex, NodeUse, SHARD};
use penstock_proto::v1;
use penstock_vocab::UserId;

use crate::convert::gpu::drain_to_wire;

/// Each GPU that the node's inventory describes, in its order. `user` gives a user's name.
pub(super) fn gpu_infos(
    cluster: &Cluster,
    index: NodeIndex,
    node: &Node,
    used: &NodeUse,
    mut user: impl FnMut(UserId) -> String,
) -> Vec<v1::GpuInfo> {
    if node.inventory.gpus.is_empty() {
        return Vec::new();
    }
    let jobs = used.jobs.iter().filter_map(|id| cluster.job(*id));
    let mut holders = vec![Vec::new(); node.inventory.gpus.len()];
    for job in jobs {
        for (gpu, holder) in holds(job, index, node) {
            let user_name = user(job.uid);
            holders[gpu].push(v1::GpuHolder { user_name, ..holder });
        }
    }
    let gpus = node.inventory.gpus.iter().zip(holders);
    gpus.map(|(gpu, holders)| {
        let drain = node.gpu_drain(gpu);
        v1::GpuInfo {
            index: gpu.index,
            state: state(gpu, &holders, drain.is_some()).to_owned(),
            drained_by: drain.and_then(|drain| drain.by).map_or_else(String::new, &mut user),
            drain: drain.map(drain_to_wire),
            holders,
            samples: Vec::new(),
            sampled_ms: 0,
        }
    })
    .collect()
}

/// What a job holds of a node's GPUs, by their places in the list; the user's name is left out.
fn holds(job: &Job, index: NodeIndex, node: &Node) -> Vec<(usize, v1::GpuHolder)> {
    let Some(run) = job.active_run() else { return Vec::new() };
    let inventory = &node.inventory;
    let mut found: Vec<(usize, v1::GpuHolder)> = Vec::new();
    let shares = run.shares.iter().filter(|share| share.node == index);
    for (name, id) in shares
        .flat_map(|share| &share.gres)
        .flat_map(|gres| gres.ids.iter().map(|id| (&gres.name, *id)))
    {
        let Some(at) = inventory.gres.iter().position(|have| have.name == *name) else { continue };
        let Some(place) = inventory.gpu_place(at, id).filter(|at| *at < inventory.gpus.len())
        else {
            continue;
        };
        let slice = inventory.device(name, id).and_then(|device| device.slice);
        let is_shard = name.name() == SHARD;
        let same = |(gpu, holder): &&mut (usize, v1::GpuHolder)| *gpu == place && holder.shards > 0;
        if is_shard && let Some((_, holder)) = found.iter_mut().find(same) {
            holder.shards += 1;
            continue;
        }
        found.push((
            place,
            v1::GpuHolder {
                job_id: job.id.0,
                attempt: run.attempt.0,
                uid: job.uid.0,
                user_name: String::new(),
                start: slice.map(|slice| slice.start),
                profile: slice.map_or_else(String::new, |slice| slice.profile.to_string()),
                shards: u32::from(is_shard),
            },
        ));
    }
    found
}

fn state(gpu: &Gpu, holders: &[v1::GpuHolder], drained: bool) -> &'static str {
    let whole = holders.iter().any(|holder| holder.start.is_none() && holder.shards == 0);
    let slices = gpu.mig == MigMode::On
        && !gpu.slices.is_empty()
        && gpu.slices.iter().all(|s| holders.iter().any(|holder| holder.start == Some(s.start)));
    match (drained, holders.is_empty()) {
        (true, true) => "DRAINED",
        (true, false) => "DRAINING",
        (false, true) => "IDLE",
        (false, false) if whole || slices => "ALLOCATED",
        (false, false) => "MIXED",
    }
}
