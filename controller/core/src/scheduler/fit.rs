//! On which nodes does a job fit?
//!
//! One node is chosen by preference: light ones first, devices that nobody asked for kept free, then
//! as the cluster packs. Several nodes are taken all or nothing (`choose`); tasks fill them in the
//! order of their names, each getting at least one, as Slurm's block distribution does.

use penstock_vocab::{Mib, UserId};

use super::choose::choose;
use super::demand::Demand;
use super::free::{View, cpus_free, gres_free, gres_serves, pick, pick_sockets};
use super::quota::Quota;
use super::topology::Spot;
use crate::cluster::Cluster;
use crate::model::{
    Holder, Inventory, Marks, MemoryRequest, Node, NodeIndex, NodeShare, NodeUse, Packing,
    Partition,
};

/// More units of a node than this are not counted one by one where each has CPUs or memory of its own.
const MOST_GPUS: u64 = 1_024;

/// A node that could take part of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) index: NodeIndex,
    /// Place in the order of names.
    pub(super) rank: u32,
    pub(super) spot: Spot,
    /// Most tasks that fit.
    pub(super) tasks: u32,
    /// GPUs that count for the whole job.
    pub(super) gpus_free: u64,
    pub(super) required: bool,
    /// What of the constraint it serves.
    pub(super) marks: Marks,
    tenants: Tenants,
    /// Devices that the job does not ask for.
    spare_devices: u64,
    preference: Preference,
}

/// Whose jobs are on a node.
#[derive(Debug, Clone, Copy)]
enum Tenants {
    Nobody,
    /// One user's, who may have the node for himself.
    One(Holder),
    Several,
}

/// Which node is taken where one is enough: the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Preference {
    weight: u32,
    /// Devices that the job does not ask for: how many, or whether there are any.
    spare: u64,
    /// By how much fragmentation grows.
    loss: i64,
    /// Devices that are free.
    devices_free: u64,
    cpus_free: u32,
    rank: u32,
    index: NodeIndex,
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
    if demand.nodes_min == 1 {
        let serves = candidates.iter().filter(|node| node.serves_alone(demand));
        if let Some(best) = serves.min_by_key(|node| node.preference()) {
            return place_alone(free, best, demand);
        }
    }
    place_on_many(free, candidates, demand)
}

impl Candidate {
    /// Its place among the nodes of which one is taken.
    pub(super) fn preference(&self) -> Preference {
        self.preference
    }

    /// Whether it takes the whole job.
    pub(super) fn serves_alone(&self, demand: &Demand<'_>) -> bool {
        self.tasks >= demand.tasks
            && self.gpus_free >= demand.gpu_count()
            && (demand.shape.required.is_empty() || self.required)
            && self.is_open_to(demand)
            && self.counts_alone(demand)
    }

    fn counts_alone(&self, demand: &Demand<'_>) -> bool {
        let mut quota = Quota::new(&demand.shape.constraint);
        quota.is_met() || (quota.offer(self.marks.counts) && quota.is_met())
    }

    /// Whether the users whose jobs are there let this one's in. The candidate is the same for all
    /// users, so that one list of candidates serves them all.
    pub(super) fn is_open_to(&self, demand: &Demand<'_>) -> bool {
        let holder = demand.holder;
        match self.tenants {
            Tenants::Nobody => true,
            Tenants::One(other) => other.uid == holder.uid || (!other.alone && !holder.alone),
            Tenants::Several => !holder.alone,
        }
    }

    /// What keeps it for other jobs: they are used later.
    pub(super) fn tier(&self) -> (u32, u64) {
        (self.preference.weight, self.spare_devices)
    }

    /// Its place among nodes of which several are taken: those that take most first, so that few
    /// are needed.
    pub(super) fn many_order(&self, demand: &Demand<'_>) -> impl Ord + use<> {
        let room = if demand.gpu_count() > 0 { self.gpus_free } else { u64::from(self.tasks) };
        (self.tier(), std::cmp::Reverse(room), self.rank)
    }
}

impl Tenants {
    fn of(used: &NodeUse) -> Self {
        let one = |uid: UserId| used.holders.iter().all(|(holder, _)| holder.uid == uid);
        match used.holders.first() {
            None => Self::Nobody,
            Some((first, _)) if one(first.uid) => {
                let alone = used.holders.iter().any(|(holder, _)| holder.alone);
                Self::One(Holder { uid: first.uid, alone })
            }
            Some(_) => Self::Several,
        }
    }
}

/// What a node could take of a job, whoever asks; `None`: nothing.
pub(super) fn candidate(
    index: NodeIndex,
    node: &Node,
    used: &NodeUse,
    demand: &Demand<'_>,
) -> Option<Candidate> {
    let shape = demand.shape;
    let inventory = &node.inventory;
    let marks = allows(node, used, demand)?;
    let mut free = cpus_free(node, used, demand.max_cpus_per_node);
    let threads = inventory.threads_per_core.max(1);
    free -= free % threads;
    let memory = inventory.memory.saturating_sub(used.memory);
    let mut tasks = (free / demand.task_cpus)
        .min(demand.tasks_per_node)
        .min(demand.tasks_by_memory(memory, inventory));
    if let Some(each) = demand.per_task() {
        let kept = demand.kept_per_node(&each.name);
        let gpus = gres_free(node, used, &each.name).saturating_sub(kept) / each.count;
        tasks = tasks.min(u32::try_from(gpus).unwrap_or(u32::MAX));
    }
    // Rounding up to whole cores may take one task's worth more.
    let least = u64::from(demand.gpus().is_some());
    while tasks > 0 && demand.cpus_for(tasks, least, inventory) > free {
        tasks -= 1;
    }
    if demand.exact_per_node && tasks < demand.tasks_per_node {
        return None;
    }
    let gpus_free = demand.gpus().map_or(0, |gpus| {
        let free_gpus = gres_free(node, used, &gpus.name);
        let most = free_gpus.saturating_sub(demand.kept_per_node(&gpus.name));
        gpus_with_room(most.min(gpus.count), free, memory, inventory, demand)
    });
    if tasks == 0 || (demand.gpus().is_some() && gpus_free == 0) {
        return None;
    }
    if !gres_serves(node, used, &demand.gres_with(tasks.min(1), 0)) {
        return None;
    }
    let devices: u64 = inventory.gres.iter().map(|gres| gres.count).sum();
    pick_sockets(node, used, demand, &mut Vec::new())?;
    let asks_devices = !demand.gres_with(1, 1).is_empty();
    let spare_devices = if asks_devices { 0 } else { devices };
    let mut found = Candidate {
        index,
        rank: demand.site.rank(index),
        spot: demand.site.spot(index),
        tasks,
        gpus_free,
        required: shape.required.contains(&node.name),
        marks,
        tenants: Tenants::of(used),
        spare_devices,
        preference: Preference {
            weight: node.effective_weight(),
            spare: spare_devices,
            loss: 0,
            devices_free: 0,
            cpus_free: 0,
            rank: demand.site.rank(index),
            index,
        },
    };
    score(&mut found, free, node, used, demand);
    Some(found)
}

/// So many GPUs that count for the whole job, or as many as there are CPUs and memory for.
fn gpus_with_room(
    most: u64,
    cpus: u32,
    memory: Mib,
    inventory: &Inventory,
    demand: &Demand<'_>,
) -> u64 {
    let by_gpu = demand.shape.gpus.cpus_per_gpu.is_some()
        || matches!(demand.memory, MemoryRequest::PerGpu(_));
    if !by_gpu {
        return most;
    }
    let fits = |gpus: &u64| {
        demand.cpus_for(1, *gpus, inventory) <= cpus
            && demand.memory_for(1, *gpus, inventory) <= memory
    };
    // Few a node.
    (0..=most.min(MOST_GPUS)).rev().find(fits).unwrap_or(0)
}

/// Fills in what the way of packing looks at.
fn score(found: &mut Candidate, cpus_free: u32, node: &Node, used: &NodeUse, demand: &Demand<'_>) {
    let asked = demand.gres_with(1, 1);
    let devices: u64 = asked.iter().map(|asked| gres_free(node, used, &asked.name)).sum();
    let preference = &mut found.preference;
    match (demand.packing, demand.packer) {
        (Packing::FirstFit, _) => preference.spare = preference.spare.min(1),
        (Packing::Fragmentation, Some(packer)) if demand.nodes_min == 1 => {
            preference.devices_free = devices.max(preference.spare);
            preference.spare = preference.spare.min(1);
            preference.loss = packer.loss(found.index, node, used, demand);
            preference.cpus_free = cpus_free;
        }
        (Packing::BestFit | Packing::Fragmentation, _) => {
            preference.devices_free = devices;
            preference.cpus_free = cpus_free;
        }
    }
}

/// Places the whole job on this node.
pub(super) fn place_alone(
    free: &impl View,
    best: &Candidate,
    demand: &Demand<'_>,
) -> Option<Vec<NodeShare>> {
    let gpus = demand.gpu_count();
    let share = free.with(best.index, |node, used| {
        pick(best.index, node, used, demand, demand.tasks, gpus)
    })??;
    Some(vec![share])
}

/// Places the job on several of these nodes.
pub(super) fn place_on_many(
    free: &impl View,
    candidates: Vec<Candidate>,
    demand: &Demand<'_>,
) -> Option<Vec<NodeShare>> {
    let mut chosen = choose(&candidates, demand)?;
    // The first node runs the batch script, and lists name it first.
    chosen.sort_unstable_by_key(|node| (node.rank, node.index));
    spread(free, &chosen, demand, demand.gpu_count())
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
pub(crate) fn partition_nodes(cluster: &Cluster, partition: &Partition) -> Vec<NodeIndex> {
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

/// Whether a node may be used at all (its name, its features, and for whole nodes its neighbours),
/// and what of the constraint it serves.
pub(super) fn allows(node: &Node, used: &NodeUse, demand: &Demand<'_>) -> Option<Marks> {
    let shape = demand.shape;
    let alone = !demand.exclusive || (used.jobs.is_empty() && used.cpu_count() == 0);
    if !alone || shape.excluded.contains(&node.name) {
        return None;
    }
    if shape.constraint.is_empty() {
        return Some(Marks::default());
    }
    shape.constraint.marks(|name| node.has_feature(name))
}
