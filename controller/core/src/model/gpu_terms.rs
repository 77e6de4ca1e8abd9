//! What may a job say of its GPUs beside how many each node gives?

use std::sync::Arc;

use penstock_vocab::{GresRequest, Mib};

use super::gpu::GPU;
use super::spec::Shape;

/// The less frequent ways to ask for GPUs. Empty: none was used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GpuTerms {
    /// GPUs of each task.
    pub per_task: Option<GresRequest>,
    /// GPUs on each of `sockets_per_node` sockets.
    pub per_socket: Option<GresRequest>,
    /// Sockets of each node that give GPUs; 0: not given, one.
    pub sockets_per_node: u32,
    /// CPUs for each GPU.
    pub cpus_per_gpu: Option<u32>,
    /// Instead of what each node gives any one of these, in order of preference.
    pub choices: Box<[Box<[GresRequest]>]>,
}

impl GpuTerms {
    /// Sockets of each node that give GPUs.
    #[must_use]
    pub fn sockets(&self) -> u32 {
        self.sockets_per_node.max(1)
    }
}

impl Shape {
    /// What each node gives, whatever tasks run there: `gres_per_node`, and what its sockets give.
    #[must_use]
    pub fn node_gres(&self) -> Box<[GresRequest]> {
        let Some(each) = &self.gpus.per_socket else { return self.gres_per_node.clone() };
        let count = each.count.saturating_mul(u64::from(self.gpus.sockets()));
        let of_sockets = GresRequest { name: each.name.clone(), count };
        self.gres_per_node.iter().cloned().chain([of_sockets]).collect()
    }

    /// What all nodes together give at least, of each resource.
    pub fn least_gres(&self) -> impl Iterator<Item = GresRequest> {
        let nodes = u64::from(self.least_nodes());
        let tasks = u64::from(self.total_tasks());
        let times = |gres: &GresRequest, by: u64| GresRequest {
            name: gres.name.clone(),
            count: gres.count.saturating_mul(by),
        };
        let of_nodes: Vec<_> = self.node_gres().iter().map(|gres| times(gres, nodes)).collect();
        let of_tasks = self.gpus.per_task.as_ref().map(|gres| times(gres, tasks));
        of_nodes.into_iter().chain(of_tasks).chain(self.total_gpus().cloned())
    }

    /// GPUs over the whole job, where tasks do not say how many each has.
    #[must_use]
    pub fn total_gpus(&self) -> Option<&GresRequest> {
        let total = self.gpus_total.as_ref().filter(|gpus| gpus.count > 0);
        total.filter(|_| self.gpus.per_task.is_none())
    }

    /// How many tasks there are, where the GPUs of the whole job and of each task say so.
    #[must_use]
    pub fn tasks_by_gpus(&self) -> Option<u32> {
        let each = self.gpus.per_task.as_ref().filter(|each| each.count > 0)?;
        let tasks = self.gpus_total.as_ref()?.count.div_ceil(each.count);
        u32::try_from(tasks).ok()
    }

    /// GPUs that the job has at least.
    #[must_use]
    pub fn least_gpus(&self) -> u64 {
        let gpus = self.least_gres().filter(|gres| gres.name.name() == GPU);
        gpus.fold(0, |sum, gres| sum.saturating_add(gres.count))
    }

    /// Memory for so many GPUs.
    #[must_use]
    pub fn memory_of_gpus(each: Mib, gpus: u64) -> Mib {
        Mib(each.0.saturating_mul(gpus))
    }

    /// The shapes any of which will do, in order of preference: the shape itself, where nothing is left
    /// to choose.
    #[must_use]
    pub fn ways(shape: &Arc<Self>) -> Box<[Arc<Self>]> {
        if shape.gpus.choices.is_empty() {
            return Box::new([Arc::clone(shape)]);
        }
        let way = |choice: &[GresRequest]| {
            let mut way = Self::clone(shape);
            way.gres_per_node = choice.into();
            way.gpus.choices = Box::default();
            Arc::new(way)
        };
        shape.gpus.choices.iter().map(|choice| way(choice)).collect()
    }
}
