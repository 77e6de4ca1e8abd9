//! On which of several nodes does a job do the least harm?
//!
//! Fragmentation gradient descent: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing
//! Workloads with Fragmentation Gradient Descent", USENIX ATC 2023, section 4. The fragmentation of a
//! node is the number of its free GPUs that a typical job could not use there, because too few GPUs
//! of its type, CPUs or too little memory is free beside them; a job goes where it grows least.
//! Where we differ: GPUs are whole, a job without GPUs is not counted as typical (the paper counts all
//! GPUs as lost to it, which is the same on every node), memory counts, and numbers are whole: a GPU
//! that no typical job could use counts [`ONE`].
//!
//! CPUs and memory matter only as far as they let a typical job run, so a node's state is the free
//! GPUs of each type and the number of typical jobs' needs that its CPUs and memory reach. Such
//! states repeat from node to node, and what they come to is remembered.

use std::cell::RefCell;
use std::collections::BTreeMap;

use penstock_vocab::{GresName, GresRequest, Mib, gres_matches};

use super::demand::{Asker, Demand};
use super::free::{Free, View, cpus_free};
use crate::cluster::Cluster;
use crate::command::Unit;
use crate::model::{GPU, MemoryRequest, Node, NodeIndex, NodeUse, Packing, Partition, Shape};

/// A GPU that is lost to every typical job.
const ONE: u64 = 1_000_000;

/// Shapes that count as typical, the most frequent ones. What remains changes little and costs time.
const MAX_TYPICAL: usize = 64;

/// GPU types on one node that are told apart.
const MAX_TYPES: usize = 8;

/// Waiting units that are looked at to learn what is typical.
const MAX_LOOKED_AT: usize = 10_000;

/// States of nodes that are remembered; a power of two.
const REMEMBERED: usize = 4_096;

/// What is typical on this cluster, and what it makes of states of nodes.
#[derive(Debug)]
pub(super) struct Packer {
    typical: Vec<Typical>,
    /// What typical jobs need of CPUs and memory, ascending.
    cpu_steps: Vec<u32>,
    memory_steps: Vec<Mib>,
    kinds: Vec<Kind>,
    /// Kind of each node.
    kind_of: Vec<u16>,
    /// What states come to, where the newest of those that share a place stands.
    memo: RefCell<Vec<Option<(State, u64)>>>,
}

/// One node's part of a frequent shape.
#[derive(Debug)]
struct Typical {
    gpus: Vec<GresRequest>,
    cpus: u32,
    memory: Mib,
    /// How frequent, of [`ONE`].
    weight: u64,
}

/// Nodes with the same types of GPUs.
#[derive(Debug)]
struct Kind {
    types: Vec<GresName>,
    /// For each typical shape: CPU and memory steps, GPUs, types that serve as bits.
    needs: Vec<(u8, u8, u8, u8)>,
}

/// What of a node's state matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    kind: u16,
    cpu_step: u8,
    memory_step: u8,
    gpus: [u8; MAX_TYPES],
}

impl Packer {
    /// Learns from shapes and how many jobs have them. Cost: the shapes and the nodes.
    pub(super) fn new<'s>(
        cluster: &Cluster,
        popular: impl IntoIterator<Item = (&'s Shape, &'s Partition, u64)>,
    ) -> Self {
        let mut typical: Vec<_> = popular
            .into_iter()
            .filter_map(|(shape, partition, jobs)| Typical::of(cluster, shape, partition, jobs))
            .collect();
        // Stable: of equally frequent ones those that came first.
        typical.sort_by_key(|typical| std::cmp::Reverse(typical.weight));
        typical.truncate(MAX_TYPICAL);
        let jobs = typical.iter().fold(0u64, |sum, typical| sum.saturating_add(typical.weight));
        for typical in &mut typical {
            let share = u128::from(typical.weight) * u128::from(ONE) / u128::from(jobs.max(1));
            typical.weight = u64::try_from(share).unwrap_or(ONE);
        }
        let mut packer = Self {
            cpu_steps: steps(typical.iter().map(|typical| typical.cpus)),
            memory_steps: steps(typical.iter().map(|typical| typical.memory)),
            typical,
            kinds: Vec::new(),
            kind_of: Vec::new(),
            memo: RefCell::new(vec![None; REMEMBERED]),
        };
        for (_, node, _) in cluster.nodes() {
            let kind = packer.kind(node);
            packer.kind_of.push(kind);
        }
        packer
    }

    /// Learns from the classes of what waits and how many jobs are of each, and from what runs: where
    /// few wait, they alone would make the last one typical. Nothing where that is not asked for, or
    /// there are no GPUs. Cost: the classes, the shapes that run and the nodes.
    pub(super) fn of_plan<'s>(
        cluster: &'s Cluster,
        waiting: impl Iterator<Item = (&'s Shape, &'s Partition, u64)>,
    ) -> Option<Self> {
        let asked = cluster.config().scheduling.packing == Packing::Fragmentation;
        let has = |node: &Node| gpu_types(node).next().is_some();
        if !asked || !cluster.nodes().any(|(_, node, _)| has(node)) {
            return None;
        }
        let mut counts: BTreeMap<(&str, &Shape), (u64, &Partition)> = BTreeMap::new();
        for (shape, partition, jobs) in waiting.chain(running(cluster)) {
            let key = (partition.name.as_str(), shape);
            counts.entry(key).or_insert((0, partition)).0 += jobs;
        }
        let popular = counts.into_iter().map(|((_, shape), (n, partition))| (shape, partition, n));
        Some(Self::new(cluster, popular)).filter(|packer| !packer.typical.is_empty())
    }

    /// Learns from what waits and runs. Cost: the jobs that run, and at most 10,000 that wait.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut counts: BTreeMap<(&str, &Shape), (u64, &Partition)> = BTreeMap::new();
        let mut count = |partition: Option<_>, shape, jobs| {
            let partition: &Partition = partition?;
            let key = (partition.name.as_str(), shape);
            counts.entry(key).or_insert((0, partition)).0 += jobs;
            Some(())
        };
        for key in cluster.queue().take(MAX_LOOKED_AT) {
            let (unit, queued) = key;
            let jobs = match unit {
                Unit::Job(_) => 1,
                Unit::Array(id) => cluster.array(id).map_or(0, |array| array.pending.len()),
            };
            count(cluster.partitions_of(&queued.spec).next(), &*queued.spec.shape, jobs);
        }
        for (shape, partition, jobs) in running(cluster) {
            count(Some(partition), shape, jobs);
        }
        Self::new(cluster, counts.into_iter().map(|((_, shape), (n, part))| (shape, part, n)))
    }

    fn kind(&mut self, node: &Node) -> u16 {
        let types = gpu_types(node).map(|(_, have)| &have.name);
        let known = self.kinds.iter().position(|kind| kind.types.iter().eq(types.clone()));
        let at = known.unwrap_or_else(|| {
            let types: Vec<_> = types.cloned().collect();
            let needs = self.typical.iter().map(|typical| self.needs(typical, &types)).collect();
            self.kinds.push(Kind { types, needs });
            self.kinds.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn needs(&self, typical: &Typical, types: &[GresName]) -> (u8, u8, u8, u8) {
        let serves = |have: &GresName| typical.gpus.iter().any(|g| gres_matches(&g.name, have));
        let bits = types
            .iter()
            .enumerate()
            .fold(0u8, |bits, (at, have)| if serves(have) { bits | 1 << at } else { bits });
        let gpus = typical.gpus.iter().fold(0u64, |sum, gpus| sum.saturating_add(gpus.count));
        (
            step(&self.cpu_steps, &typical.cpus),
            step(&self.memory_steps, &typical.memory),
            u8::try_from(gpus).unwrap_or(u8::MAX),
            bits,
        )
    }

    /// By how much fragmentation grows if a job takes this much of a node; less is better, and it is
    /// below zero where the job takes what typical ones could not use.
    pub(super) fn loss(
        &self,
        index: NodeIndex,
        node: &Node,
        used: &NodeUse,
        demand: &Demand<'_>,
    ) -> i64 {
        if gpu_types(node).next().is_none() || self.typical.is_empty() {
            return 0;
        }
        let inventory = &node.inventory;
        let (cpus, memory) = free_of(node, used);
        let before = self.state(index, cpus, memory, free_gpus(node, used));
        let taken = if demand.exclusive {
            cpus
        } else {
            demand.cpus_for(demand.tasks, demand.gpu_count(), inventory)
        };
        let memory =
            memory.saturating_sub(demand.memory_for(demand.tasks, demand.gpu_count(), inventory));
        let mut gpus = before.gpus;
        for request in &demand.gres_with(demand.tasks, demand.gpu_count()) {
            take_gpus(node, request, &mut gpus);
        }
        let after = self.state(index, cpus.saturating_sub(taken), memory, gpus);
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        signed(self.fragments(after)).saturating_sub(signed(self.fragments(before)))
    }

    /// Of all free GPUs on nodes that accept work, how many typical jobs can't use, in millionths.
    fn share_lost(&self, cluster: &Cluster, view: &impl View) -> u64 {
        let (mut lost, mut free) = (0u64, 0u64);
        for (index, node, _) in cluster.nodes() {
            if !node.accepts_work() || gpu_types(node).next().is_none() {
                continue;
            }
            let state = view.with(index, |node, used| {
                let (cpus, memory) = free_of(node, used);
                self.state(index, cpus, memory, free_gpus(node, used))
            });
            let Some(state) = state else { continue };
            lost = lost.saturating_add(self.fragments(state));
            free += state.gpus.iter().map(|gpus| u64::from(*gpus)).sum::<u64>();
        }
        lost.checked_div(free).unwrap_or(0)
    }

    fn state(&self, index: NodeIndex, cpus: u32, memory: Mib, gpus: [u8; MAX_TYPES]) -> State {
        State {
            kind: self.kind_of.get(index.get()).copied().unwrap_or(u16::MAX),
            cpu_step: step(&self.cpu_steps, &cpus),
            memory_step: step(&self.memory_steps, &memory),
            gpus,
        }
    }

    /// GPUs that are free in this state and lost to typical jobs, in parts of [`ONE`].
    fn fragments(&self, state: State) -> u64 {
        let at = state.place();
        if let Some((known, lost)) = self.memo.borrow()[at]
            && known == state
        {
            return lost;
        }
        let lost = self.count_fragments(state);
        self.memo.borrow_mut()[at] = Some((state, lost));
        lost
    }

    fn count_fragments(&self, state: State) -> u64 {
        let all: u64 = state.gpus.iter().map(|gpus| u64::from(*gpus)).sum();
        let Some(kind) = self.kinds.get(usize::from(state.kind)) else { return 0 };
        let lost = |(typical, need): (&Typical, &(u8, u8, u8, u8))| {
            let (cpu_step, memory_step, gpus, types) = *need;
            let serve: u64 = (0..MAX_TYPES)
                .filter(|at| types & 1 << at != 0)
                .map(|at| u64::from(state.gpus[at]))
                .sum();
            let runs = state.cpu_step >= cpu_step
                && state.memory_step >= memory_step
                && serve >= u64::from(gpus);
            typical.weight * (all - if runs { serve } else { 0 })
        };
        self.typical.iter().zip(&kind.needs).map(lost).sum()
    }
}

impl Typical {
    /// `None` if the shape asks for no GPU.
    fn of(cluster: &Cluster, shape: &Shape, partition: &Partition, jobs: u64) -> Option<Self> {
        let demand = Demand::new(cluster, shape, partition, Asker::PATIENT);
        let nodes = demand.nodes_min;
        let tasks = demand.tasks.div_ceil(nodes);
        let of_total = demand.gpu_count().div_ceil(u64::from(nodes));
        let is_gpu = |asked: &GresRequest| asked.name.name() == GPU && asked.count > 0;
        let gpus: Vec<_> = demand.gres_with(tasks, of_total).into_iter().filter(is_gpu).collect();
        let cpus = tasks.saturating_mul(demand.task_cpus);
        let of_gpus = |each: u64| {
            u32::try_from(each.saturating_mul(demand.gpus_on_node(tasks, of_total)))
                .unwrap_or(u32::MAX)
        };
        let cpus = cpus.max(of_gpus(shape.gpus.cpus_per_gpu.unwrap_or(0).into()));
        let memory = match demand.memory {
            MemoryRequest::PerNode(memory) => memory,
            MemoryRequest::PerCpu(memory) => Mib(memory.0.saturating_mul(u64::from(cpus))),
            MemoryRequest::PerGpu(memory) => {
                Shape::memory_of_gpus(memory, demand.gpus_on_node(tasks, of_total))
            }
            // In proportion to the CPUs, which are looked at already.
            MemoryRequest::WholeNode | MemoryRequest::Default => Mib(0),
        };
        (!gpus.is_empty() && jobs > 0).then_some(Self { gpus, cpus, memory, weight: jobs })
    }
}

impl State {
    /// Where it is remembered.
    fn place(self) -> usize {
        let head = u64::from(self.kind) << 16
            | u64::from(self.cpu_step) << 8
            | u64::from(self.memory_step);
        let mixed = (u64::from_le_bytes(self.gpus) ^ head.rotate_left(40))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed >> 52).unwrap_or(0) % REMEMBERED
    }
}

/// What runs: shapes, partitions and how many.
fn running(cluster: &Cluster) -> impl Iterator<Item = (&Shape, &Partition, u64)> {
    cluster.running_shapes().filter_map(|(name, shape, jobs)| {
        let partition = cluster.partition(name)?;
        Some((&**shape, partition, jobs))
    })
}

/// How much of all free GPUs is lost to typical jobs, in millionths: what waits and runs now is
/// typical. 0 where nothing typical asks for GPUs. Cost: nodes, shapes that run, 10,000 that wait.
#[must_use]
pub fn fragmentation(cluster: &Cluster) -> u64 {
    Packer::of(cluster).share_lost(cluster, &Free::now(cluster))
}

fn steps<T: Ord>(needs: impl Iterator<Item = T>) -> Vec<T> {
    let mut steps: Vec<T> = needs.collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// How many steps are within reach.
fn step<T: Ord>(steps: &[T], value: &T) -> u8 {
    u8::try_from(steps.partition_point(|step| step <= value)).unwrap_or(u8::MAX)
}

/// GPUs of a node by type, with their place among its generic resources.
fn gpu_types(node: &Node) -> impl Iterator<Item = (usize, &GresRequest)> + Clone {
    let gres = node.inventory.gres.iter().enumerate();
    gres.filter(|(_, have)| have.name.name() == GPU).take(MAX_TYPES)
}

fn free_of(node: &Node, used: &NodeUse) -> (u32, Mib) {
    let cpus = cpus_free(node, used, u32::MAX);
    let threads = node.inventory.threads_per_core.max(1);
    (cpus - cpus % threads, node.inventory.memory.saturating_sub(used.memory))
}

fn free_gpus(node: &Node, used: &NodeUse) -> [u8; MAX_TYPES] {
    let mut free = [0; MAX_TYPES];
    for (place, (at, have)) in free.iter_mut().zip(gpu_types(node)) {
        let taken = used.gres.get(at).map_or(0, |units| units.count_ones(..) as u64);
        *place = u8::try_from(have.count.saturating_sub(taken)).unwrap_or(u8::MAX);
    }
    free
}

fn take_gpus(node: &Node, request: &GresRequest, free: &mut [u8; MAX_TYPES]) {
    let mut left = request.count;
    for (place, (_, have)) in free.iter_mut().zip(gpu_types(node)) {
        if gres_matches(&request.name, &have.name) {
            let mine = u8::try_from(left).unwrap_or(u8::MAX).min(*place);
            *place -= mine;
            left -= u64::from(mine);
        }
    }
}
