//! On which nodes does a job fit?
//!
//! One node is chosen by best fit: the fullest that still takes the job, devices that nobody asked
//! for kept free. Several nodes are taken all or nothing, the fewest that serve; tasks fill them in
//! the order of the nodes, each getting at least one, as Slurm's block distribution does.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use penstock_vocab::{GresName, Mib, gres_matches, host_order};

use super::demand::{Demand, plural};
use super::free::{Free, View, cpus_free, gres_free, gres_serves, pick, share_is_free};
use crate::cluster::Cluster;
use crate::model::{JobSpec, MemoryRequest, Node, NodeIndex, NodeShare, NodeUse, Partition, Shape};
use crate::refusal::Refusal;

/// A node that could take part of a job.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: NodeIndex,
    weight: u32,
    /// Most tasks that fit.
    tasks: u32,
    cpus_free: u32,
    gpus_free: u64,
    /// Devices that the job does not ask for.
    spare_devices: u64,
    required: bool,
}

/// Places a job on nodes that `usable` lets through; `None` if it does not fit.
pub(super) fn place(
    free: &impl View,
    nodes: &[NodeIndex],
    demand: &Demand<'_>,
    usable: impl Fn(&Node) -> bool,
) -> Option<Vec<NodeShare>> {
    let mut candidates = Vec::new();
    for index in nodes {
        let found = free.with(*index, |node, used| {
            if usable(node) { candidate(*index, node, used, demand) } else { None }
        });
        candidates.extend(found.flatten());
    }
    if (candidates.iter().filter(|node| node.required).count()) < demand.shape.required.len() {
        return None;
    }
    if demand.nodes_min == 1
        && let Some(shares) = place_on_one(free, &candidates, demand)
    {
        return Some(shares);
    }
    place_on_many(free, candidates, demand)
}

/// Smaller is better.
type Preference = (u32, u64, u64, u32, NodeIndex);

impl Candidate {
    fn preference(&self) -> Preference {
        (self.weight, self.spare_devices, self.gpus_free, self.cpus_free, self.index)
    }

    /// Whether it takes the whole job.
    fn serves_alone(&self, demand: &Demand<'_>) -> bool {
        self.tasks >= demand.tasks
            && self.gpus_free >= demand.gpus().map_or(0, |gpus| gpus.count)
            && (demand.shape.required.is_empty() || self.required)
    }
}

fn candidate(
    index: NodeIndex,
    node: &Node,
    used: &NodeUse,
    demand: &Demand<'_>,
) -> Option<Candidate> {
    let shape = demand.shape;
    let inventory = &node.inventory;
    if !allows(node, used, demand) {
        return None;
    }
    let mut free = cpus_free(node, used, demand.max_cpus_per_node);
    let threads = inventory.threads_per_core.max(1);
    free -= free % threads;
    let memory = inventory.memory.saturating_sub(used.memory);
    let mut tasks = (free / demand.task_cpus)
        .min(demand.tasks_per_node)
        .min(demand.tasks_by_memory(memory, inventory));
    // Rounding up to whole cores may take one task's worth more.
    while tasks > 0 && demand.cpus_for(tasks, inventory) > free {
        tasks -= 1;
    }
    if demand.exact_per_node && tasks < demand.tasks_per_node {
        return None;
    }
    let gpus_free = demand.gpus().map_or(0, |gpus| gres_free(node, used, &gpus.name));
    if tasks == 0 || (demand.gpus().is_some() && gpus_free == 0) {
        return None;
    }
    if !gres_serves(node, used, &shape.gres_per_node) {
        return None;
    }
    let devices: u64 = inventory.gres.iter().map(|gres| gres.count).sum();
    let asks_devices = !shape.gres_per_node.is_empty() || demand.gpus().is_some();
    Some(Candidate {
        index,
        weight: node.effective_weight(),
        tasks,
        cpus_free: free,
        gpus_free,
        spare_devices: if asks_devices { 0 } else { devices },
        required: shape.required.contains(&node.name),
    })
}

fn place_on_one(
    free: &impl View,
    candidates: &[Candidate],
    demand: &Demand<'_>,
) -> Option<Vec<NodeShare>> {
    let serves = candidates.iter().filter(|node| node.serves_alone(demand));
    place_alone(free, serves.min_by_key(|node| node.preference())?, demand)
}

fn place_alone(free: &impl View, best: &Candidate, demand: &Demand<'_>) -> Option<Vec<NodeShare>> {
    let gpus = demand.gpus().map_or(0, |gpus| gpus.count);
    let share = free.with(best.index, |node, used| {
        pick(best.index, node, used, demand, demand.tasks, gpus)
    })??;
    Some(vec![share])
}

fn place_on_many(
    free: &impl View,
    mut candidates: Vec<Candidate>,
    demand: &Demand<'_>,
) -> Option<Vec<NodeShare>> {
    let gpus = demand.gpus().map_or(0, |gpus| gpus.count);
    // Required nodes first, then the light ones, then those that take most.
    candidates.sort_by_key(|node| {
        let room = if gpus > 0 { node.gpus_free } else { u64::from(node.tasks) };
        (!node.required, node.weight, node.spare_devices, Reverse(room), node.index)
    });
    if let Some(count) = how_many(&candidates, demand, gpus) {
        return place_on(free, &candidates, count, demand, gpus);
    }
    // A count of nodes that the preferred ones are too small for: then the largest.
    candidates.sort_by_key(|node| {
        (!node.required, Reverse(node.gpus_free), Reverse(node.tasks), node.index)
    });
    if let Some(count) = how_many(&candidates, demand, gpus) {
        return place_on(free, &candidates, count, demand, gpus);
    }
    candidates.sort_by_key(|node| {
        (!node.required, Reverse(node.tasks), Reverse(node.gpus_free), node.index)
    });
    let count = how_many(&candidates, demand, gpus)?;
    place_on(free, &candidates, count, demand, gpus)
}

/// How many of the candidates, in their order, serve.
fn how_many(candidates: &[Candidate], demand: &Demand<'_>, gpus: u64) -> Option<usize> {
    let least = demand.nodes_min as usize;
    let most = (demand.nodes_max.min(demand.tasks) as usize).min(candidates.len());
    let (mut tasks, mut devices, mut count) = (0u64, 0u64, 0usize);
    for node in candidates.iter().take(most) {
        tasks += u64::from(node.tasks);
        devices = devices.saturating_add(node.gpus_free);
        count += 1;
        if count >= least.max(demand.shape.required.len())
            && tasks >= u64::from(demand.tasks)
            && devices >= gpus
        {
            return Some(count);
        }
    }
    None
}

fn place_on(
    free: &impl View,
    candidates: &[Candidate],
    count: usize,
    demand: &Demand<'_>,
    gpus: u64,
) -> Option<Vec<NodeShare>> {
    let mut chosen: Vec<_> = candidates.iter().take(count).copied().collect();
    // The first node runs the batch script, and lists name it first.
    let name = |node: &Candidate| free.with(node.index, |place, _| place.name.clone());
    chosen.sort_by(|a, b| match (name(a), name(b)) {
        (Some(a), Some(b)) => host_order(a.as_str(), b.as_str()),
        _ => a.index.cmp(&b.index),
    });
    spread(free, &chosen, demand, gpus)
}

/// Fills the chosen nodes in order, leaving at least one task, and one GPU, for each later one.
fn spread(
    free: &impl View,
    chosen: &[Candidate],
    demand: &Demand<'_>,
    gpus: u64,
) -> Option<Vec<NodeShare>> {
    let mut tasks_left = demand.tasks;
    let mut gpus_left = gpus;
    let mut shares = Vec::with_capacity(chosen.len());
    for (at, node) in chosen.iter().enumerate() {
        let later = u32::try_from(chosen.len() - at - 1).unwrap_or(u32::MAX);
        let tasks = node.tasks.min(tasks_left.saturating_sub(later));
        let keep = u64::from(later).min(gpus_left);
        let mine = node.gpus_free.min(gpus_left - keep);
        tasks_left -= tasks;
        gpus_left -= mine;
        let share = free
            .with(node.index, |place, used| pick(node.index, place, used, demand, tasks, mine))??;
        shares.push(share);
    }
    (tasks_left == 0 && gpus_left == 0).then_some(shares)
}

/// The nodes of a partition.
pub(super) fn partition_nodes(cluster: &Cluster, partition: &Partition) -> Vec<NodeIndex> {
    match &partition.nodes {
        None => cluster.nodes().map(|(index, _, _)| index).collect(),
        Some(names) => {
            let mut nodes: Vec<_> =
                names.iter().filter_map(|name| cluster.node_index(name.as_str())).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        }
    }
}

/// Whether these shares serve the request as it is now, on nodes that accept work, and are free.
#[must_use]
pub fn shares_serve(
    cluster: &Cluster,
    partition: &Partition,
    spec: &JobSpec,
    shares: &[NodeShare],
) -> bool {
    let demand = Demand::new(&spec.shape, partition);
    let count = u32::try_from(shares.len()).unwrap_or(u32::MAX);
    let nodes: BTreeSet<_> = shares.iter().map(|share| share.node).collect();
    if nodes.len() != shares.len() || count < demand.nodes_min || count > demand.nodes_max {
        return false;
    }
    let mut required = 0;
    let mut gpus = 0;
    for share in shares {
        let Some((node, used)) = cluster.node(share.node) else { return false };
        if !node.accepts_work() || !share_is_free(node, used, share) {
            return false;
        }
        if partition.nodes.as_ref().is_some_and(|names| !names.contains(&node.name)) {
            return false;
        }
        if !allows(node, used, &demand) || !share_is_enough(node, share, &demand) {
            return false;
        }
        required += usize::from(spec.shape.required.contains(&node.name));
        gpus += demand.gpus().map_or(0, |asked| units_of(share, &asked.name));
    }
    let tasks: u64 = shares.iter().map(|share| u64::from(share.tasks)).sum();
    tasks == u64::from(demand.tasks)
        && required == spec.shape.required.len()
        && demand.gpus().is_none_or(|asked| gpus >= asked.count)
}

/// Whether a node may be used at all: its name, features, and for whole nodes its neighbours.
fn allows(node: &Node, used: &NodeUse, demand: &Demand<'_>) -> bool {
    let shape = demand.shape;
    !shape.excluded.contains(&node.name)
        && (shape.constraint.is_empty() || shape.constraint.accepts(&node.features()))
        && (!demand.exclusive || (used.jobs.is_empty() && used.cpu_count() == 0))
}

fn share_is_enough(node: &Node, share: &NodeShare, demand: &Demand<'_>) -> bool {
    let inventory = &node.inventory;
    let cpus =
        if demand.exclusive { inventory.cpus } else { demand.cpus_for(share.tasks, inventory) };
    share.tasks > 0
        && share.cpu_count() >= cpus
        && share.memory >= demand.memory_for(share.tasks, inventory)
        && demand
            .shape
            .gres_per_node
            .iter()
            .all(|asked| units_of(share, &asked.name) >= asked.count)
}

fn units_of(share: &NodeShare, name: &GresName) -> u64 {
    share
        .gres
        .iter()
        .filter(|gres| gres_matches(name, &gres.name))
        .map(|g| g.ids.len() as u64)
        .sum()
}

/// Refuses a request that the partition could not meet with all its nodes idle and in service.
///
/// # Errors
/// [`Refusal::NeverFits`] or [`Refusal::MemoryNeverFits`], telling what there is.
pub fn could_ever_fit(
    cluster: &Cluster,
    partition: &Partition,
    shape: &Shape,
) -> Result<(), Refusal> {
    let demand = Demand::new(shape, partition);
    if fits_first_node(cluster, partition, &demand) {
        return Ok(());
    }
    let nodes = partition_nodes(cluster, partition);
    let free = Free::idle(cluster);
    if place(&free, &nodes, &demand, |node| node.inventory.cpus > 0).is_some() {
        return Ok(());
    }
    // A node count that the partition's own limits forbid waits, as in Slurm; it is not refused.
    Err(explain(cluster, partition, &nodes, &demand))
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
            .is_some_and(|found| found.tasks >= demand.tasks)
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
    for request in demand.shape.gres_per_node.iter().chain(demand.gpus()) {
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

fn memory_is_the_matter(demand: &Demand<'_>, known: &[&std::sync::Arc<Node>]) -> bool {
    match demand.memory {
        MemoryRequest::Default | MemoryRequest::WholeNode => false,
        MemoryRequest::PerNode(memory) => known.iter().all(|node| node.inventory.memory < memory),
        MemoryRequest::PerCpu(_) => {
            known.iter().all(|node| node.inventory.memory < demand.memory_for(1, &node.inventory))
        }
    }
}
