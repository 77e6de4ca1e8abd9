//! How much did a job ask for, and how much did it get?

use std::collections::BTreeMap;

use penstock_core::model::{JobSpec, MemoryRequest, NodeShare, Partition, Run};
use penstock_vocab::{GresName, Mib, Tres};

/// What a job asks for, as far as that is known before nodes are chosen.
pub(super) fn requested(spec: &JobSpec, partition: Option<&Partition>) -> Tres {
    let shape = &spec.shape;
    let node = u64::from(shape.least_nodes());
    let cpu = u64::from(shape.least_cpus());
    let defaults = partition.map_or((None, None), |p| (p.def_mem_per_cpu, p.def_mem_per_node));
    let times = |memory: Mib, count: u64| Mib(memory.0.saturating_mul(count));
    let mem = match (shape.memory, defaults) {
        (MemoryRequest::PerNode(memory), _) => times(memory, node),
        (MemoryRequest::PerCpu(memory), _) => times(memory, cpu),
        (MemoryRequest::PerGpu(memory), _) => times(memory, shape.least_gpus()),
        (MemoryRequest::Default, (Some(memory), _)) => times(memory, cpu),
        (MemoryRequest::Default, (None, Some(memory))) => times(memory, node),
        (MemoryRequest::Default | MemoryRequest::WholeNode, _) => Mib(0),
    };
    let mut gres = BTreeMap::new();
    for request in shape.least_gres() {
        count_gres(&mut gres, &request.name, request.count);
    }
    Tres { cpu, mem, node, billing: cpu, gres, ..Tres::default() }
}

/// Memory of a run on all its nodes.
pub(super) fn memory(run: &Run) -> Mib {
    run.shares.iter().fold(Mib(0), |sum, share: &NodeShare| sum.saturating_add(share.memory))
}

/// Adds to a count; what has a type counts for any type as well.
pub(super) fn count_gres(gres: &mut BTreeMap<GresName, u64>, name: &GresName, count: u64) {
    let mut add = |name: GresName| {
        let sum = gres.entry(name).or_insert(0);
        *sum = sum.saturating_add(count);
    };
    if count == 0 {
        return;
    }
    add(name.untyped());
    if name.kind().is_some() {
        add(name.clone());
    }
}
