//! Could a request be met at all, and what is there for it?

use std::borrow::Cow;
use std::sync::Arc;

use penstock_vocab::Mib;

use super::demand::{Asker, Demand, plural};
use super::fit::{candidate, partition_nodes, place};
use super::free::{Free, gres_free};
use super::mig::slots::NodeSlots;
use crate::cluster::Cluster;
use crate::model::{MemoryRequest, Node, NodeIndex, NodeUse, Partition, Shape};
use crate::refusal::Refusal;

/// Refuses a request that the partition could not meet with all its nodes idle and in service.
///
/// # Errors
/// [`Refusal::NeverFits`] or [`Refusal::MemoryNeverFits`], telling what there is.
pub fn could_ever_fit(
    cluster: &Cluster,
    partition: &Partition,
    shape: &Shape,
) -> Result<(), Refusal> {
    let ways = ways(shape);
    let mut refusal = None;
    for shape in &*ways {
        match way_could_fit(cluster, partition, shape) {
            Ok(()) => return Ok(()),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

fn ways(shape: &Shape) -> Cow<'_, [Shape]> {
    if shape.gpus.choices.is_empty() {
        return Cow::Borrowed(std::slice::from_ref(shape));
    }
    let ways = Shape::ways(&Arc::new(shape.clone()));
    ways.iter().map(|way| Shape::clone(way)).collect()
}

fn way_could_fit(cluster: &Cluster, partition: &Partition, shape: &Shape) -> Result<(), Refusal> {
    let demand = Demand::new(cluster, shape, partition, Asker::PATIENT);
    if fits_first_node(cluster, partition, &demand) {
        return Ok(());
    }
    let nodes = partition_nodes(cluster, partition);
    let free = Free::whole(cluster);
    if place(&free, &nodes, &demand, |node| node.inventory.cpus > 0).is_some() {
        if could_be_cut(cluster, &nodes, &demand) {
            return Ok(());
        }
        let text = format!(
            "needs {}; no node's GPUs can be cut into all of that at once",
            demand.describe()
        );
        return Err(Refusal::NeverFits(text.into()));
    }
    // A node count that the partition's own limits forbid waits, as in Slurm; it is not refused.
    Err(explain(cluster, partition, &nodes, &demand))
}

/// Whether the slices that a job on one node asks for can be there together, on GPUs that are cut as the
/// queue asks or are cut so. True where it asks for none, or spreads over several nodes.
fn could_be_cut(cluster: &Cluster, nodes: &[NodeIndex], demand: &Demand<'_>) -> bool {
    let all = demand.gres_with(demand.tasks, demand.gpu_count());
    let mut wanted: Vec<Box<str>> = Vec::new();
    for gres in all {
        let kind = gres.name.kind().filter(|kind| cluster.is_dynamic_profile(kind));
        // More than any node has slots for is never met.
        let count = usize::try_from(gres.count.min(512)).unwrap_or(512);
        wanted
            .extend(kind.into_iter().flat_map(|kind| std::iter::repeat_n(Box::from(kind), count)));
    }
    wanted.is_empty()
        || demand.nodes_max.min(demand.tasks) > 1
        || place(&Free::idle(cluster), nodes, demand, |node| node.inventory.cpus > 0).is_some()
        || nodes.iter().any(|index| {
            let Some((node, _)) = cluster.node(*index) else { return false };
            let dynamic = cluster.config().mig.is_dynamic(&node.name);
            NodeSlots::empty(node, dynamic).could_place(node, &wanted)
        })
}

/// Whether the nodes that accept work now could take a request if they were idle.
pub(crate) fn could_run_in_service(
    cluster: &Cluster,
    partition: &Partition,
    shape: &Shape,
) -> bool {
    let nodes = partition_nodes(cluster, partition);
    ways(shape).iter().any(|shape| {
        let demand = Demand::new(cluster, shape, partition, Asker::PATIENT);
        // Slices that are not there can be made.
        let cut = shape
            .least_gres()
            .any(|gres| gres.name.kind().is_some_and(|kind| cluster.is_dynamic_profile(kind)));
        let free = if cut { Free::whole(cluster) } else { Free::idle(cluster) };
        place(&free, &nodes, &demand, |node| node.accepts_work()).is_some()
    })
}

/// Most jobs fit on the first node at hand; then nothing else need be looked at.
fn fits_first_node(cluster: &Cluster, partition: &Partition, demand: &Demand<'_>) -> bool {
    if demand.nodes_min > 1 || !demand.shape.required.is_empty() || demand.gpus().is_some() {
        return false;
    }
    let first = match &partition.nodes {
        None => Some(NodeIndex(0)),
        Some(names) => names.first().and_then(|name| cluster.node_index(name.as_str())),
    };
    first.and_then(|index| Some((index, cluster.node(index)?))).is_some_and(|(index, (node, _))| {
        candidate(index, node, &NodeUse::default(), demand)
            .is_some_and(|found| found.serves_alone(demand))
    })
}

fn explain(
    cluster: &Cluster,
    partition: &Partition,
    nodes: &[NodeIndex],
    demand: &Demand<'_>,
) -> Refusal {
    let known: Vec<_> = nodes
        .iter()
        .filter_map(|index| cluster.node(*index))
        .map(|(node, _)| node)
        .filter(|node| node.inventory.cpus > 0)
        .collect();
    let name = &partition.name;
    if known.is_empty() {
        let text = format!("partition {name} has no nodes yet; none has joined");
        return Refusal::NeverFits(text.into());
    }
    let cpus: u64 = known.iter().map(|node| u64::from(node.inventory.cpus)).sum();
    let most_cpus = known.iter().map(|node| node.inventory.cpus).max().unwrap_or(0);
    let most_memory = known.iter().map(|node| node.inventory.memory).max().unwrap_or(Mib(0));
    let mut has = format!(
        "partition {name} has {} node{} with {cpus} CPU{}; its largest node has {most_cpus} CPU{} \
         and {most_memory}",
        known.len(),
        plural(known.len() as u64),
        plural(cpus),
        plural(u64::from(most_cpus)),
    );
    for request in &demand.gres_with(demand.tasks, demand.gpu_count()) {
        let counts = known.iter().map(|node| gres_free(node, &NodeUse::default(), &request.name));
        let (all, most) = counts.fold((0, 0), |(all, most), n| (all + n, n.max(most)));
        has.push_str(&format!("; {all} {} in all, {most} on one node", request.name));
    }
    if let Some(max) = partition.max_mem_per_node {
        has.push_str(&format!("; at most {max} of memory a node may be asked for"));
    }
    let text = format!("needs {}; {has}", demand.describe()).into();
    if memory_is_the_matter(demand, &known) {
        Refusal::MemoryNeverFits(text)
    } else {
        Refusal::NeverFits(text)
    }
}

fn memory_is_the_matter(demand: &Demand<'_>, known: &[&Arc<Node>]) -> bool {
    match demand.memory {
        MemoryRequest::Default | MemoryRequest::WholeNode => false,
        MemoryRequest::PerNode(memory) => known.iter().all(|node| node.inventory.memory < memory),
        MemoryRequest::PerCpu(_) => known
            .iter()
            .all(|node| node.inventory.memory < demand.memory_for(1, 0, &node.inventory)),
        MemoryRequest::PerGpu(_) => {
            let least = u64::from(demand.gpus().is_some());
            known
                .iter()
                .all(|node| node.inventory.memory < demand.memory_for(1, least, &node.inventory))
        }
    }
}
