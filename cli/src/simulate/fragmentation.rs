//! How many idle GPUs can the jobs of this trace not use where they are?
//!
//! Weng et al., ATC 2023, define the fragmentation of a node as the expectation, over the jobs of the
//! workload, of its idle GPUs that the job can't use. Here: over the jobs that ask for GPUs, the idle
//! GPUs of a node count where the job does not fit on it (GPUs, CPUs, memory, model). A job larger
//! than any node counts as one that wants a whole node's GPUs. CPU jobs, which can use no GPU
//! anywhere, are left out. Whole numbers; nodes are looked at again only when something changed there.

use std::collections::BTreeMap;

use penstock_core::Cluster;
use penstock_core::model::{Node, NodeIndex, NodeUse};

use super::job::{Ask, Workload};
use super::machine::Machine;

/// Shapes that are told apart, the most frequent ones.
const MAX_SHAPES: usize = 256;

/// What part of the idle GPUs is lost, over time.
#[derive(Debug, Clone)]
pub(super) struct Fragmentation {
    shapes: Vec<Want>,
    /// Jobs that the shapes stand for.
    jobs: u64,
    nodes: BTreeMap<NodeIndex, State>,
    now: State,
    since: i64,
    /// Integrals over time: GPU-seconds, and GPU-seconds times jobs.
    idle_secs: u128,
    lost_secs: u128,
}

/// Idle GPUs, and those lost times the jobs that can't use them.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    idle: u64,
    lost: u128,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Want {
    gpus: u64,
    cpus: u64,
    memory: u64,
    models: Vec<String>,
    /// How many jobs want this.
    jobs: u64,
}

impl Fragmentation {
    /// For a cluster with GPUs on nodes and a workload that asks for some.
    pub(super) fn new(machine: &Machine, workload: &Workload) -> Option<Self> {
        let most = machine.most_gpus();
        if machine.units || most == 0 {
            return None;
        }
        let mut counts: BTreeMap<(u64, u64, u64, &[String]), u64> = BTreeMap::new();
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        for job in &workload.jobs {
            let want = match &job.ask {
                Ask::Processors(_) => continue,
                Ask::Gpus(gpus) => (count(*gpus).min(most), 1, 0, [].as_slice()),
                Ask::Pod(pod) => {
                    (count(pod.gpus).min(most), count(pod.cpus), pod.memory, pod.models.as_slice())
                }
            };
            if want.0 > 0 {
                *counts.entry(want).or_insert(0) += 1;
            }
        }
        let mut shapes: Vec<Want> = counts
            .into_iter()
            .map(|((gpus, cpus, memory, models), jobs)| Want {
                gpus,
                cpus,
                memory,
                models: models.to_vec(),
                jobs,
            })
            .collect();
        shapes.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.cmp(b)));
        shapes.truncate(MAX_SHAPES);
        let jobs: u64 = shapes.iter().map(|want| want.jobs).sum();
        let mut fragmentation = Self {
            shapes,
            jobs,
            nodes: BTreeMap::new(),
            now: State::default(),
            since: workload.jobs.first().map_or(0, |job| job.submit),
            idle_secs: 0,
            lost_secs: 0,
        };
        fragmentation.start(machine);
        (jobs > 0).then_some(fragmentation)
    }

    /// All nodes are idle.
    fn start(&mut self, machine: &Machine) {
        for (index, (name, inventory)) in (0..).zip(&machine.nodes) {
            let node = Node {
                name: name.clone(),
                inventory: inventory.clone(),
                admin: Default::default(),
                down: None,
                registered: None,
                last_busy: None,
                trouble: Default::default(),
                session: None,
                weight: 1,
                configured_features: Box::default(),
            };
            let state = self.state(&node, &NodeUse::default());
            self.put(NodeIndex(index), state);
        }
    }

    /// Something changed on a node.
    pub(super) fn look_at(&mut self, cluster: &Cluster, index: NodeIndex) {
        if let Some((node, used)) = cluster.node(index) {
            let state = self.state(node, used);
            self.put(index, state);
        }
    }

    fn put(&mut self, index: NodeIndex, state: State) {
        let old = self.nodes.insert(index, state).unwrap_or_default();
        self.now.idle = self.now.idle - old.idle + state.idle;
        self.now.lost = self.now.lost - old.lost + state.lost;
    }

    fn state(&self, node: &Node, used: &NodeUse) -> State {
        let have = &node.inventory;
        let taken = |at: usize| used.gres.get(at).map_or(0, |units| units.count_ones(..) as u64);
        let gpus = have.gres.iter().enumerate().filter(|(_, gres)| gres.name.name() == "gpu");
        let idle = gpus.map(|(at, gres)| gres.count.saturating_sub(taken(at))).sum();
        if idle == 0 {
            return State::default();
        }
        let cpus = u64::from(have.cpus.saturating_sub(used.cpu_count()));
        let memory = have.memory.saturating_sub(used.memory).0;
        let features = node.features();
        let fits = |want: &Want| {
            want.gpus <= idle
                && want.cpus <= cpus
                && want.memory <= memory
                && (want.models.is_empty()
                    || want.models.iter().any(|model| features.iter().any(|f| **f == **model)))
        };
        let jobs: u64 = self.shapes.iter().filter(|want| !fits(want)).map(|want| want.jobs).sum();
        State { idle, lost: u128::from(idle) * u128::from(jobs) }
    }

    /// The state so far held until `at`.
    pub(super) fn note(&mut self, at: i64) {
        let secs = u128::try_from(at - self.since).unwrap_or(0);
        self.since = at;
        self.idle_secs += secs * u128::from(self.now.idle);
        self.lost_secs += secs * self.now.lost;
    }

    /// Share of the idle GPUs that was lost, over time; 0 where none was ever idle.
    pub(super) fn mean(&self) -> f64 {
        ratio(self.lost_secs, self.idle_secs * u128::from(self.jobs))
    }

    /// The same at the end.
    pub(super) fn last(&self) -> f64 {
        ratio(self.now.lost, u128::from(self.now.idle) * u128::from(self.jobs))
    }

    /// Idle GPUs at the end.
    pub(super) fn idle(&self) -> u64 {
        self.now.idle
    }
}

fn ratio(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
