//! What does a job's shape come to on the nodes of a partition?

use penstock_vocab::{GresName, GresRequest, Mib, Timestamp, UserId};

use super::packing::Packer;
use super::topology::Site;
use crate::cluster::Cluster;
use crate::model::{
    GPU, Holder, Inventory, MemoryRequest, Oversubscribe, Packing, Partition, Shape,
};

/// Who asks, and for how long by then: what a placement depends on beside shape and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// User that the job runs as.
    pub uid: UserId,
    /// Seconds from the submission to the time of the placement.
    pub waited_secs: u64,
}

impl Asker {
    /// Somebody who has waited for ever: what could be had at all.
    pub(super) const PATIENT: Self = Self { uid: UserId(0), waited_secs: u64::MAX };

    /// Asks at `now` for what was submitted at `submitted`.
    #[must_use]
    pub fn new(uid: UserId, submitted: Timestamp, now: Timestamp) -> Self {
        Self { uid, waited_secs: now.since(submitted).0 / 1_000 }
    }
}

/// A shape with every default filled in.
#[derive(Debug, Clone)]
pub(super) struct Demand<'a> {
    pub(super) shape: &'a Shape,
    pub(super) task_cpus: u32,
    pub(super) tasks: u32,
    pub(super) nodes_min: u32,
    pub(super) nodes_max: u32,
    /// Most tasks on a node; exact where the number of tasks follows from it.
    pub(super) tasks_per_node: u32,
    pub(super) exact_per_node: bool,
    pub(super) memory: MemoryRequest,
    /// What each node gives, whatever tasks run there.
    pub(super) node_gres: Box<[GresRequest]>,
    pub(super) exclusive: bool,
    /// Most jobs that may hold its CPUs at a time; 1: itself alone.
    pub(super) sharing: u32,
    /// For whom.
    pub(super) holder: Holder,
    /// Most leaf switches, as long as the job waits for few.
    pub(super) switch_limit: Option<u32>,
    /// Where the nodes stand.
    pub(super) site: &'a Site,
    /// Which of several nodes is taken.
    pub(super) packing: Packing,
    /// What is typical, where fragmentation decides.
    pub(super) packer: Option<&'a Packer>,
    pub(super) max_cpus_per_node: u32,
    /// Most memory on a node.
    pub(super) max_memory: Mib,
}

impl<'a> Demand<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        shape: &'a Shape,
        partition: &Partition,
        asker: Asker,
    ) -> Self {
        let memory = match shape.memory {
            MemoryRequest::Default => match (partition.def_mem_per_cpu, partition.def_mem_per_node)
            {
                (Some(per_cpu), _) => MemoryRequest::PerCpu(per_cpu),
                (None, Some(per_node)) => MemoryRequest::PerNode(per_node),
                (None, None) => MemoryRequest::Default,
            },
            stated => stated,
        };
        let limit = |max: u32| if max == 0 { u32::MAX } else { max };
        let nodes_min = shape.least_nodes();
        Self {
            shape,
            task_cpus: raise_for_memory(shape.task_cpus(), memory, partition),
            tasks: shape.total_tasks(),
            nodes_min,
            // A job that asks for more than the partition gives waits; see `partition_obstacle`.
            nodes_max: shape.most_nodes().min(limit(partition.max_nodes)).max(nodes_min),
            tasks_per_node: limit(shape.ntasks_per_node.unwrap_or(0)),
            exact_per_node: shape.ntasks.is_none() && shape.ntasks_per_node.is_some(),
            memory: cap_memory(memory, partition),
            node_gres: shape.node_gres(),
            exclusive: shape.exclusive || partition.exclusive,
            sharing: sharing(shape, partition),
            holder: Holder {
                uid: asker.uid,
                alone: shape.exclusive_user || partition.exclusive_user,
            },
            switch_limit: switch_limit(shape, asker, cluster.site()),
            site: cluster.site(),
            packing: cluster.config().scheduling.packing,
            packer: None,
            max_cpus_per_node: limit(partition.max_cpus_per_node),
            max_memory: partition.max_mem_per_node.unwrap_or(Mib(u64::MAX)),
        }
    }

    /// Lets what is typical decide between nodes.
    #[must_use]
    pub(super) fn packed_by(self, packer: Option<&'a Packer>) -> Self {
        Self { packer, ..self }
    }

    /// Whether one of several nodes that are alike, all idle, may serve where another does not: it
    /// matters which switch or block it stands under.
    pub(super) fn asks_where(&self) -> bool {
        self.nodes_max > 1 && self.tasks > 1 && !self.site.tree().is_empty()
    }

    /// GPUs of a node on which so many tasks run and which gives so many of those that count for the
    /// whole job.
    pub(super) fn gpus_on_node(&self, tasks: u32, of_total: u64) -> u64 {
        let of_node = self.node_gres.iter().filter(|gres| gres.name.name() == GPU);
        let of_node = of_node.fold(0u64, |sum, gres| sum.saturating_add(gres.count));
        let of_tasks = self.per_task().map_or(0, |gres| gres.count.saturating_mul(tasks.into()));
        of_node.saturating_add(of_tasks).saturating_add(of_total)
    }

    /// GPUs of each task.
    pub(super) fn per_task(&self) -> Option<&GresRequest> {
        self.shape.gpus.per_task.as_ref().filter(|gres| gres.count > 0)
    }

    /// What a node gives with so many tasks and so many of the GPUs that count for the whole job.
    pub(super) fn gres_with(&self, tasks: u32, of_total: u64) -> Vec<GresRequest> {
        let mut asked = self.node_gres.to_vec();
        if let Some(each) = self.per_task() {
            let count = each.count.saturating_mul(u64::from(tasks));
            asked.push(GresRequest { name: each.name.clone(), count });
        }
        if let Some(total) = self.gpus().filter(|_| of_total > 0) {
            asked.push(GresRequest { name: total.name.clone(), count: of_total });
        }
        asked
    }

    /// The same without what sockets give, which is picked apart.
    pub(super) fn gres_beside_sockets(&self, tasks: u32, of_total: u64) -> Vec<GresRequest> {
        let mut asked = self.gres_with(tasks, of_total);
        if self.shape.gpus.per_socket.is_some() {
            asked.remove(self.shape.gres_per_node.len());
        }
        asked
    }

    /// CPUs that so many tasks take, and with them so many of the GPUs that count for the whole job:
    /// whole cores.
    pub(super) fn cpus_for(&self, tasks: u32, of_total: u64, inventory: &Inventory) -> u32 {
        let threads = inventory.threads_per_core.max(1);
        let of_gpus = self.shape.gpus.cpus_per_gpu.map_or(0, |each| {
            let cpus = u64::from(each).saturating_mul(self.gpus_on_node(tasks, of_total));
            u32::try_from(cpus).unwrap_or(u32::MAX)
        });
        let cpus = tasks.saturating_mul(self.task_cpus).max(of_gpus);
        cpus.div_ceil(threads).saturating_mul(threads)
    }

    /// Memory for so many tasks and GPUs on a node. As in Slurm, what is counted are the CPUs that are
    /// given out, both threads of a core that one task has to itself.
    pub(super) fn memory_for(&self, tasks: u32, of_total: u64, inventory: &Inventory) -> Mib {
        let cpus = u64::from(self.cpus_for(tasks, of_total, inventory));
        match self.memory {
            MemoryRequest::PerNode(memory) => memory,
            MemoryRequest::PerCpu(memory) => Mib(memory.0.saturating_mul(cpus)),
            MemoryRequest::PerGpu(memory) => {
                Shape::memory_of_gpus(memory, self.gpus_on_node(tasks, of_total))
            }
            MemoryRequest::WholeNode => inventory.memory.min(self.max_memory),
            MemoryRequest::Default if self.exclusive => inventory.memory.min(self.max_memory),
            // Nothing was said: in proportion to the CPUs, and to how many jobs share them.
            MemoryRequest::Default => {
                let all = u64::from(inventory.cpus.max(1));
                let memory = inventory.memory.0.saturating_mul(cpus.min(all)) / all;
                Mib(memory / u64::from(self.sharing)).min(self.max_memory)
            }
        }
    }

    /// Most tasks for which a node with so much free memory has enough.
    pub(super) fn tasks_by_memory(&self, free: Mib, inventory: &Inventory) -> u32 {
        let all = |fits: bool| if fits { u32::MAX } else { 0 };
        let threads = u64::from(inventory.threads_per_core.max(1));
        // Tasks on so many CPUs, of whole cores.
        let tasks_on = |cpus: u64| {
            let tasks = (cpus - cpus % threads) / u64::from(self.task_cpus);
            u32::try_from(tasks).unwrap_or(u32::MAX)
        };
        match self.memory {
            MemoryRequest::PerNode(memory) => all(memory <= free && memory <= self.max_memory),
            MemoryRequest::WholeNode => all(self.memory_for(1, 0, inventory) <= free),
            MemoryRequest::Default if self.exclusive => {
                all(self.memory_for(1, 0, inventory) <= free)
            }
            // Of GPUs that count for the whole job at least one.
            MemoryRequest::PerGpu(memory) => {
                let least = u64::from(self.gpus().is_some());
                let room = free.min(self.max_memory).0.checked_div(memory.0);
                let Some(gpus) = room else { return u32::MAX };
                let Some(left) = gpus.checked_sub(self.gpus_on_node(0, least)) else { return 0 };
                let tasks = self.per_task().map_or(u64::MAX, |each| left / each.count);
                u32::try_from(tasks).unwrap_or(u32::MAX)
            }
            MemoryRequest::PerCpu(memory) => {
                let room = free.min(self.max_memory).0.checked_div(memory.0);
                room.map_or(u32::MAX, tasks_on)
            }
            MemoryRequest::Default if inventory.memory.min(self.max_memory) <= free => u32::MAX,
            // The most CPUs whose share of the memory, rounded down, is free.
            MemoryRequest::Default => {
                let all = u64::from(inventory.cpus.max(1));
                let free = (free.0 + 1).saturating_mul(u64::from(self.sharing));
                let cpus = free.saturating_mul(all).saturating_sub(1) / inventory.memory.0;
                tasks_on(cpus)
            }
        }
    }

    /// GPUs over the whole job.
    pub(super) fn gpus(&self) -> Option<&GresRequest> {
        self.shape.total_gpus()
    }

    /// How many these are.
    pub(super) fn gpu_count(&self) -> u64 {
        self.gpus().map_or(0, |gpus| gpus.count)
    }

    /// Of these GPUs, how many each node gives anyway.
    pub(super) fn kept_per_node(&self, gpus: &GresName) -> u64 {
        let same = self.node_gres.iter().filter(|one| one.name.name() == gpus.name());
        same.fold(0, |sum, one| sum.saturating_add(one.count))
    }

    /// What the job asks for, for people.
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        let cpus = self.shape.least_cpus().max(self.tasks.saturating_mul(self.task_cpus));
        parts.push(format!("{cpus} CPU{}", plural(u64::from(cpus))));
        match self.memory {
            MemoryRequest::PerNode(memory) => parts.push(format!("{memory} of memory a node")),
            MemoryRequest::PerCpu(memory) => parts.push(format!("{memory} of memory a CPU")),
            MemoryRequest::PerGpu(memory) => parts.push(format!("{memory} of memory a GPU")),
            MemoryRequest::WholeNode => parts.push("all memory of each node".to_owned()),
            MemoryRequest::Default => {}
        }
        for gres in &self.node_gres {
            parts.push(format!("{} {} a node", gres.count, gres.name));
        }
        if let Some(each) = self.per_task() {
            parts.push(format!("{} {} a task", each.count, each.name));
        }
        if let Some(each) = self.shape.gpus.cpus_per_gpu {
            parts.push(format!("{each} CPU{} a GPU", plural(u64::from(each))));
        }
        if let Some(gpus) = self.gpus() {
            parts.push(format!("{} {} in all", gpus.count, gpus.name));
        }
        if self.nodes_min > 1 {
            parts.push(format!("{} nodes", self.nodes_min));
        }
        if self.exclusive {
            parts.push("whole nodes".to_owned());
        }
        if self.holder.alone {
            parts.push("nodes for one user alone".to_owned());
        }
        if !self.shape.constraint.is_empty() {
            parts.push(format!("feature {}", self.shape.constraint));
        }
        if let Some(most) = self.switch_limit {
            parts.push(format!("nodes under {most} switch{}", if most == 1 { "" } else { "es" }));
        }
        for (name, count) in &self.shape.licenses {
            parts.push(format!("{count} licence{} {name}", plural(*count)));
        }
        parts.join(", ")
    }
}

pub(super) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `--switches`: the job waits for few switches until it has waited long enough.
fn switch_limit(shape: &Shape, asker: Asker, site: &Site) -> Option<u32> {
    let asked = shape.switches.filter(|asked| asked.count > 0 && site.tree().leaves > 0)?;
    (asker.waited_secs < u64::from(asked.max_wait_secs)).then_some(asked.count)
}

/// Over `max_mem_per_cpu` the CPUs are raised instead, as Slurm does.
fn raise_for_memory(task_cpus: u32, memory: MemoryRequest, partition: &Partition) -> u32 {
    match (memory, partition.max_mem_per_cpu) {
        (MemoryRequest::PerCpu(asked), Some(max)) if asked > max && max.0 > 0 => {
            let factor = u32::try_from(asked.0.div_ceil(max.0)).unwrap_or(u32::MAX);
            task_cpus.saturating_mul(factor)
        }
        _ => task_cpus,
    }
}

/// How many jobs may hold the CPUs of this one at a time.
fn sharing(shape: &Shape, partition: &Partition) -> u32 {
    let Oversubscribe { jobs, forced } = partition.oversubscribe;
    let shares = !shape.exclusive && !partition.exclusive && (forced || shape.oversubscribe);
    if shares { jobs.max(1) } else { 1 }
}

fn cap_memory(memory: MemoryRequest, partition: &Partition) -> MemoryRequest {
    match (memory, partition.max_mem_per_cpu) {
        (MemoryRequest::PerCpu(asked), Some(max)) if max.0 > 0 => {
            MemoryRequest::PerCpu(asked.min(max))
        }
        (stated, _) => stated,
    }
}
