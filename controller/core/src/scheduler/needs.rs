//! What must be free on a node for a class to use it at all?
//!
//! Compared in counts, without looking at the node's record: a filter that lets every node through
//! that could take part of a job, so that the placement itself looks at few.

use penstock_vocab::{GresName, Mib, gres_matches};

use super::demand::Demand;
use super::pool::{Kind, Pool};
use super::profile::{Counts, Fits, Peak};

/// What may be in use at most on a node of one kind for it to take a share.
#[derive(Debug, Clone)]
pub(super) struct Need {
    cpus: u32,
    memory: u64,
    /// Nobody else may be there.
    alone: bool,
    /// Nobody but the same user may.
    one_user: bool,
    /// For each request the resources that serve it, and their most.
    gres: Box<[(Box<[u16]>, u64)]>,
    /// Resources that count as the job's GPUs, and how many there are.
    gpus: Option<(Box<[u16]>, u64)>,
    all_cpus: u32,
    task_cpus: u32,
    most_tasks: u32,
    all_memory: u64,
}

/// What the nodes found so far could take together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) nodes: u64,
    tasks: u64,
    gpus: u64,
}

impl Need {
    /// `None`: a node of this kind never takes a share.
    pub(super) fn new(demand: &Demand<'_>, kind: &Kind) -> Option<Self> {
        Self::beside(demand, kind, &|_| false)
    }

    /// The same without the generic resources that `apart` names.
    pub(super) fn beside(
        demand: &Demand<'_>,
        kind: &Kind,
        apart: &dyn Fn(&GresName) -> bool,
    ) -> Option<Self> {
        let inventory = &kind.inventory;
        let has = |name: &str| kind.features.iter().any(|feature| **feature == *name);
        if !demand.shape.constraint.is_empty() {
            demand.shape.constraint.marks(has)?;
        }
        let tasks = if demand.exact_per_node {
            demand.tasks_per_node
        } else if demand.nodes_max == 1 {
            demand.tasks
        } else {
            1
        };
        let all_cpus = inventory.cpus.min(demand.max_cpus_per_node);
        let least = match demand.gpus() {
            Some(request) if demand.nodes_max == 1 => request.count,
            Some(_) => 1,
            None => 0,
        };
        let memory = demand.memory_for(tasks, least, inventory);
        if memory > demand.max_memory {
            return None;
        }
        let mut gres = Vec::new();
        for request in demand.gres_with(tasks, 0).iter().filter(|one| !apart(&one.name)) {
            let (places, all) = matching(kind, &request.name);
            gres.push((places, all.checked_sub(request.count)?));
        }
        let gpus = match demand.gpus().filter(|request| !apart(&request.name)) {
            None => None,
            Some(request) => {
                let (places, all) = matching(kind, &request.name);
                gres.push((places.clone(), all.checked_sub(least)?));
                Some((places, all))
            }
        };
        Some(Self {
            cpus: all_cpus.checked_sub(demand.cpus_for(tasks, least, inventory))?,
            memory: inventory.memory.0.checked_sub(memory.0)?,
            alone: demand.exclusive,
            one_user: demand.holder.alone,
            gres: gres.into(),
            gpus,
            all_cpus,
            task_cpus: demand.task_cpus.max(1),
            most_tasks: demand.tasks_per_node,
            all_memory: inventory.memory.0,
        })
    }

    /// Adds what a node with so much in use could take at most.
    pub(super) fn add_to(&self, sum: &mut Sum, demand: &Demand<'_>, kind: &Kind, peak: &Peak) {
        let cpus = self.all_cpus.saturating_sub(peak.counts.cpus) / self.task_cpus;
        let mut tasks = cpus.min(self.most_tasks).min(demand.tasks);
        if tasks > 1 && !demand.exact_per_node {
            let free = Mib(self.all_memory.saturating_sub(peak.counts.memory));
            tasks = tasks.min(demand.tasks_by_memory(free, &kind.inventory));
        }
        sum.nodes += 1;
        sum.tasks += u64::from(tasks);
        if let Some((places, all)) = &self.gpus {
            sum.gpus = sum.gpus.saturating_add(all.saturating_sub(in_use(places, &peak.gres)));
        }
    }
}

impl Fits for Need {
    fn fits(&self, counts: &Counts, gres: &[u32]) -> bool {
        counts.cpus <= self.cpus
            && counts.memory <= self.memory
            && (!self.alone || counts.holders == 0)
            && self.gres.iter().all(|(places, most)| in_use(places, gres) <= *most)
    }
}

/// The same ahead of time, where it is not known whose jobs are on a node: one that somebody has to
/// himself, or would have, is taken to be a stranger's.
pub(super) struct Ahead<'a>(pub(super) &'a Need);

impl Fits for Ahead<'_> {
    fn fits(&self, counts: &Counts, gres: &[u32]) -> bool {
        counts.alone == 0 && (!self.0.one_user || counts.holders == 0) && self.0.fits(counts, gres)
    }
}

impl Sum {
    /// Whether it could be enough.
    pub(super) fn serves(&self, demand: &Demand<'_>) -> bool {
        self.nodes >= u64::from(demand.nodes_min)
            && self.tasks >= u64::from(demand.tasks)
            && demand.gpus().is_none_or(|gpus| self.gpus >= gpus.count)
    }
}

fn in_use(places: &[u16], gres: &[u32]) -> u64 {
    match places {
        [one] => u64::from(gres.get(usize::from(*one)).copied().unwrap_or(0)),
        many => {
            let counts = many.iter().filter_map(|at| gres.get(usize::from(*at)));
            counts.map(|count| u64::from(*count)).sum()
        }
    }
}

fn matching(kind: &Kind, name: &GresName) -> (Box<[u16]>, u64) {
    let matching =
        (0u16..).zip(&kind.inventory.gres).filter(|(_, have)| gres_matches(name, &have.name));
    let (places, counts): (Vec<u16>, Vec<u64>) =
        matching.map(|(place, have)| (place, have.count)).unzip();
    (places.into(), counts.iter().fold(0, |sum, count| sum.saturating_add(*count)))
}

/// What a class needs on each kind of nodes of one partition; `None`: nothing helps.
pub(super) fn needs(demand: &Demand<'_>, pool: &Pool, partition: u32) -> Vec<Option<Need>> {
    let of = |kind: &Kind| {
        if kind.partitions.contains(&partition) { Need::new(demand, kind) } else { None }
    };
    pool.kinds().iter().map(of).collect()
}
