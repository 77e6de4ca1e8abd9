//! On which nodes of its job does a step run, with how many tasks on each?
//!
//! Nodes are taken in the job's order, as few as will do; where those first ones have too little
//! room within the bounds on their number, the roomiest are. Slurm does the same by its bitmaps.

use std::collections::BTreeMap;

use penstock_vocab::{GresName, Mib, NodeName, gres_matches};

use super::layout::layout;
use super::rooms::{Room, asks_memory, count, whole_cores};
use super::spec::MAX_TASKS;
use crate::model::{
    Distribution, GresShare, MemoryRequest, NodeShare, StepPhase, StepShare, StepSpec,
};

/// Of what there is too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// Nodes, or the very nodes that it names.
    Nodes,
    /// CPUs for its tasks.
    Cpus,
    /// Memory.
    Memory,
    /// Generic resources.
    Gres,
}

/// A request, and what is decided about it for every node alike.
struct Request<'a> {
    spec: &'a StepSpec,
    /// Only the CPUs that its tasks need.
    exact: bool,
    /// It minds nobody.
    shares: bool,
    task_cpus: u64,
    /// Tasks over all nodes; `None`: as the number of nodes has it.
    tasks: Option<u32>,
    least_nodes: usize,
    most_nodes: usize,
}

/// Places a step on the nodes of its job, the shares in the order of the nodes. `job_tasks`: tasks
/// that the job asked for. Cost: nodes times their devices, and a sort where nodes are tight.
pub(super) fn place(
    spec: &StepSpec,
    job_tasks: u32,
    rooms: &[Room],
) -> Result<Vec<StepShare>, Lack> {
    let first = usize::try_from(spec.relative.unwrap_or(0)).unwrap_or(usize::MAX);
    let open = |room: &&Room| room.at >= first && !spec.excluded.contains(&room.name);
    let open: Vec<&Room> = rooms.iter().filter(open).collect();
    if spec.required.iter().any(|name| !open.iter().any(|room| room.name == *name)) {
        return Err(Lack::Nodes);
    }
    if spec.distribution == Distribution::Arbitrary {
        return arbitrary(spec, &open);
    }
    let request = Request::new(spec, job_tasks, open.len());
    let chosen = request.choose(&open)?;
    let tasks = request.tasks_on(chosen.len());
    if tasks > MAX_TASKS {
        return Err(Lack::Cpus);
    }
    let room: Vec<u32> = chosen.iter().map(|(_, room)| *room).collect();
    let ranks = layout(spec.distribution, tasks, &room);
    let rooms: Vec<&Room> = chosen.into_iter().map(|(room, _)| room).collect();
    request.shares(&rooms, ranks)
}

/// Every task on the node that the request names for it.
fn arbitrary(spec: &StepSpec, open: &[&Room]) -> Result<Vec<StepShare>, Lack> {
    let tasks = spec.ntasks.map_or(spec.task_nodes.len(), |tasks| tasks as usize);
    if tasks == 0 || spec.task_nodes.len() < tasks {
        return Err(Lack::Nodes);
    }
    let mut named: BTreeMap<&NodeName, Vec<u32>> = BTreeMap::new();
    for (name, rank) in spec.task_nodes.iter().take(tasks).zip(0u32..) {
        named.entry(name).or_default().push(rank);
    }
    let chosen: Vec<&Room> =
        open.iter().copied().filter(|room| named.contains_key(&room.name)).collect();
    if chosen.len() < named.len() {
        return Err(Lack::Nodes);
    }
    let request = Request::new(spec, 1, open.len());
    let mut ranks = Vec::with_capacity(chosen.len());
    for room in &chosen {
        let here = named.remove(&room.name).unwrap_or_default();
        if (request.capacity(room)? as usize) < here.len() {
            return Err(Lack::Cpus);
        }
        ranks.push(here);
    }
    request.shares(&chosen, ranks)
}

impl<'a> Request<'a> {
    fn new(spec: &'a StepSpec, job_tasks: u32, nodes: usize) -> Self {
        let required = spec.required.len();
        let as_nodes = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let by_node = spec.ntasks_per_node.filter(|_| spec.ntasks.is_none());
        let tasks = match spec.ntasks {
            _ if spec.interactive => Some(1),
            Some(tasks) => Some(tasks.max(1)),
            None if by_node.is_some() || spec.nodes_min.is_some() => None,
            None => Some(job_tasks.max(1)),
        };
        let default = if by_node.is_some() { nodes } else { 1 };
        let mut least = spec.nodes_min.map_or(default, as_nodes).max(required).max(1);
        let mut most = spec.nodes_max.or(spec.nodes_min).map_or(usize::MAX, as_nodes).max(least);
        if spec.interactive {
            (least, most) = (1, 1);
        }
        if let Some(tasks) = tasks {
            // No node without a task.
            most = most.min(as_nodes(tasks));
            least = least.min(most);
        }
        Self {
            spec,
            exact: spec.exact || spec.cpus_per_task.is_some(),
            shares: spec.overlap || spec.interactive,
            task_cpus: u64::from(spec.cpus_per_task.unwrap_or(1).max(1)),
            tasks,
            least_nodes: least,
            most_nodes: most,
        }
    }

    fn tasks_on(&self, nodes: usize) -> u32 {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let per_node = self.spec.ntasks_per_node.unwrap_or(1).max(1);
        self.tasks.unwrap_or_else(|| nodes.saturating_mul(per_node))
    }

    /// Nodes that will do with how many tasks each takes, in the job's order.
    fn choose<'r>(&self, open: &[&'r Room]) -> Result<Vec<(&'r Room, u32)>, Lack> {
        let mut lack = None;
        let mut usable: Vec<(&Room, u32)> = Vec::with_capacity(open.len());
        for room in open {
            match self.capacity(room) {
                Ok(tasks) => usable.push((room, tasks)),
                Err(missing) if self.spec.required.contains(&room.name) => return Err(missing),
                Err(missing) => lack = lack.or(Some(missing)),
            }
        }
        let named = |room: &Room| self.spec.required.contains(&room.name);
        usable.sort_by_key(|(room, _)| (!named(room), room.at));
        if self.spec.interactive {
            usable.retain(|(room, _)| open.first().is_some_and(|first| first.at == room.at));
        }
        let mut found = self.enough(&usable);
        if found.is_none() {
            usable.sort_by_key(|(room, tasks)| (!named(room), std::cmp::Reverse(*tasks), room.at));
            found = self.enough(&usable);
        }
        if found.is_none() && self.spec.gpus_total.is_some() {
            usable.sort_by_key(|(room, _)| {
                (!named(room), std::cmp::Reverse(self.gpus(room)), room.at)
            });
            found = self.enough(&usable);
        }
        let Some(count) = found else {
            let few = usable.len() < self.least_nodes;
            let short = match (few, self.spec.gpus_total.is_some()) {
                (true, _) => Lack::Nodes,
                (false, true) if self.roomy(&usable) => Lack::Gres,
                (false, _) => Lack::Cpus,
            };
            return Err(lack.unwrap_or(short));
        };
        usable.truncate(count);
        usable.sort_by_key(|(room, _)| room.at);
        Ok(usable)
    }

    /// How many of these nodes, from the first, are enough; `None`: not even as many as it may have.
    fn enough(&self, nodes: &[(&Room, u32)]) -> Option<usize> {
        let (mut tasks, mut gpus) = (0u32, 0u64);
        for (at, (room, more)) in nodes.iter().take(self.most_nodes).enumerate() {
            tasks = tasks.saturating_add(*more);
            gpus = gpus.saturating_add(self.gpus(room));
            let served = match self.tasks {
                Some(wanted) => tasks >= wanted,
                // As many nodes as it may have and there are.
                None => at + 1 == self.most_nodes.min(nodes.len()),
            };
            let served = served && self.spec.gpus_total.as_ref().is_none_or(|g| gpus >= g.count);
            if served && at + 1 >= self.least_nodes {
                return Some(at + 1);
            }
        }
        None
    }

    /// All of these nodes together have room for its tasks.
    fn roomy(&self, nodes: &[(&Room, u32)]) -> bool {
        let room = nodes.iter().take(self.most_nodes).fold(0u32, |sum, n| sum.saturating_add(n.1));
        self.tasks.is_none_or(|tasks| room >= tasks)
    }

    /// GPUs that it could have here.
    fn gpus(&self, room: &Room) -> u64 {
        let Some(gpus) = &self.spec.gpus_total else { return 0 };
        self.units(room, &gpus.name).map(|(_, ids)| ids.len() as u64).sum()
    }

    /// Units that it could have here of all kinds that serve a name.
    fn units<'r>(
        &self,
        room: &'r Room,
        name: &'r GresName,
    ) -> impl Iterator<Item = (&'r GresName, &'r [u32])> {
        let shares = self.shares;
        room.all
            .gres
            .iter()
            .zip(&room.units)
            .filter(|(have, _)| gres_matches(name, &have.name))
            .map(move |(have, free)| (&have.name, if shares { &have.ids[..] } else { &free[..] }))
    }

    /// How many tasks a node takes; never 0.
    fn capacity(&self, room: &Room) -> Result<u32, Lack> {
        let cpus = self.by_cpus(room);
        let memory = self.by_memory(room);
        let gres = self.by_gres(room);
        let most = u64::from(self.spec.ntasks_per_node.unwrap_or(u32::MAX));
        let tasks = cpus.min(memory).min(gres).min(most);
        // With a count for each node and none for all, every node has that many.
        let least = match (self.tasks, self.spec.ntasks_per_node) {
            (None, Some(per_node)) => u64::from(per_node.max(1)),
            (Some(_), _) | (None, None) => 1,
        };
        if tasks >= least {
            return Ok(u32::try_from(tasks).unwrap_or(u32::MAX));
        }
        Err(match (cpus < least, memory < least) {
            (true, _) => Lack::Cpus,
            (false, true) => Lack::Memory,
            (false, false) => Lack::Gres,
        })
    }

    fn free_cpus(&self, room: &Room) -> u64 {
        u64::from(if self.shares { count(&room.all.cpus) } else { room.cpu_count() })
    }

    fn by_cpus(&self, room: &Room) -> u64 {
        let free = self.free_cpus(room);
        match (self.exact, self.spec.overcommit) {
            (false, _) if !self.shares && !room.is_whole() => 0,
            (_, true) => {
                if free == 0 {
                    0
                } else {
                    u64::MAX
                }
            }
            (false, false) => free / self.task_cpus,
            (true, false) => {
                let mut tasks = free / self.task_cpus;
                // Rounding up to whole cores may take one task's worth more.
                while tasks > 0 && whole_cores(tasks * self.task_cpus, room.threads) > free {
                    tasks -= 1;
                }
                tasks
            }
        }
    }

    fn by_memory(&self, room: &Room) -> u64 {
        let free = if self.shares { room.all.memory } else { room.memory };
        let all_or_none = |fits: bool| if fits { u64::MAX } else { 0 };
        match self.spec.memory {
            // Steps ask for none by the GPU: nothing of theirs says so.
            MemoryRequest::Default | MemoryRequest::WholeNode | MemoryRequest::PerGpu(_) => {
                u64::MAX
            }
            MemoryRequest::PerNode(memory) => all_or_none(memory <= free),
            MemoryRequest::PerCpu(memory) if !self.exact => {
                let all = u64::from(count(&room.all.cpus));
                all_or_none(memory.0.saturating_mul(all) <= free.0)
            }
            MemoryRequest::PerCpu(memory) => {
                let cpus = free.0.checked_div(memory.0).unwrap_or(u64::MAX);
                if self.spec.overcommit {
                    return all_or_none(cpus >= self.free_cpus(room));
                }
                // CPUs are had by whole cores.
                (cpus - cpus % u64::from(room.threads)) / self.task_cpus
            }
        }
    }

    fn by_gres(&self, room: &Room) -> u64 {
        let free = |name| self.units(room, name).map(|(_, ids)| ids.len() as u64).sum::<u64>();
        if self.takes_all_gres() {
            let held = room.all.gres.iter().zip(&room.units);
            let mut held = held.filter(|(all, free)| free.len() < all.ids.len());
            return if self.shares || held.next().is_none() { u64::MAX } else { 0 };
        }
        let mut asked = self.spec.gres_per_node.iter().filter(|gres| !asks_nothing(gres));
        if asked.any(|gres| free(&gres.name) < gres.count) {
            return 0;
        }
        if self.spec.gpus_total.as_ref().is_some_and(|g| g.count > 0 && free(&g.name) == 0) {
            return 0;
        }
        match &self.spec.gpus_per_task {
            Some(gpus) => free(&gpus.name).checked_div(gpus.count).unwrap_or(u64::MAX),
            None => u64::MAX,
        }
    }

    /// It says nothing of generic resources, and so has what the job has.
    fn takes_all_gres(&self) -> bool {
        self.spec.gres_per_node.is_empty()
            && self.spec.gpus_total.is_none()
            && self.spec.gpus_per_task.is_none()
    }

    fn shares(&self, rooms: &[&Room], ranks: Vec<Vec<u32>>) -> Result<Vec<StepShare>, Lack> {
        let gpus = self.spread_gpus(rooms, &ranks)?;
        let parts = rooms.iter().zip(ranks).zip(gpus);
        Ok(parts.map(|((room, ranks), gpus)| self.share(room, ranks, gpus)).collect())
    }

    /// GPUs of the whole step, over its nodes in proportion to their tasks as far as they have them.
    fn spread_gpus(&self, rooms: &[&Room], ranks: &[Vec<u32>]) -> Result<Vec<u64>, Lack> {
        let total = self.spec.gpus_total.as_ref().map_or(0, |gpus| gpus.count);
        let tasks = ranks.iter().map(|ranks| ranks.len() as u64).sum::<u64>().max(1);
        let part = |(room, ranks): (&&Room, &Vec<u32>)| {
            (total.saturating_mul(ranks.len() as u64) / tasks).min(self.gpus(room))
        };
        let mut counts: Vec<u64> = rooms.iter().zip(ranks).map(part).collect();
        let mut left = total.saturating_sub(counts.iter().sum());
        for (count, room) in counts.iter_mut().zip(rooms) {
            let more = left.min(self.gpus(room).saturating_sub(*count));
            *count += more;
            left -= more;
        }
        if left > 0 { Err(Lack::Gres) } else { Ok(counts) }
    }

    fn share(&self, room: &Room, ranks: Vec<u32>, gpus: u64) -> StepShare {
        let tasks = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let mut cpus = room.all.cpus.clone();
        if self.exact {
            let wanted = whole_cores(u64::from(tasks) * self.task_cpus, room.threads);
            let wanted = usize::try_from(wanted.min(self.free_cpus(room))).unwrap_or(usize::MAX);
            // Free ones first, also where it may share.
            let held: Vec<usize> = cpus.difference(&room.cpus).collect();
            let order: Vec<usize> = room.cpus.ones().chain(held).take(wanted).collect();
            cpus.clear();
            cpus.extend(order);
        }
        let memory = match self.spec.memory {
            MemoryRequest::PerNode(memory) => memory,
            MemoryRequest::PerCpu(memory) => Mib(memory.0.saturating_mul(u64::from(count(&cpus)))),
            MemoryRequest::Default | MemoryRequest::WholeNode | MemoryRequest::PerGpu(_) => {
                room.all.memory
            }
        };
        debug_assert!(!asks_memory(self.spec.memory) || memory <= room.all.memory);
        let gres = self.gres(room, u64::from(tasks), gpus).into_boxed_slice();
        let share = NodeShare { node: room.node, cpus, sharing: 1, memory, tasks, gres };
        StepShare { share, ranks: ranks.into_boxed_slice(), phase: StepPhase::Allocated }
    }

    fn gres(&self, room: &Room, tasks: u64, gpus: u64) -> Vec<GresShare> {
        if self.takes_all_gres() {
            return room.all.gres.to_vec();
        }
        let mut wanted: Vec<(&GresName, u64)> = Vec::new();
        let asked = self.spec.gres_per_node.iter().filter(|gres| !asks_nothing(gres));
        wanted.extend(asked.map(|gres| (&gres.name, gres.count)));
        wanted.extend(self.spec.gpus_total.as_ref().map(|total| (&total.name, gpus)));
        wanted.extend(
            self.spec
                .gpus_per_task
                .as_ref()
                .map(|gpus| (&gpus.name, gpus.count.saturating_mul(tasks))),
        );
        let mut taken: Vec<GresShare> = Vec::new();
        for (name, mut count) in wanted {
            for (kind, ids) in self.units(room, name) {
                let at = taken.iter().position(|share| share.name == *kind);
                let had = at.map_or_else(Vec::new, |at| taken[at].ids.to_vec());
                let free = ids.iter().copied().filter(|id| !had.contains(id));
                let most = usize::try_from(count).unwrap_or(usize::MAX);
                let more: Vec<u32> = free.take(most).collect();
                count -= more.len() as u64;
                if more.is_empty() {
                    continue;
                }
                let ids = had.into_iter().chain(more).collect();
                match at {
                    Some(at) => taken[at].ids = ids,
                    None => taken.push(GresShare { name: kind.clone(), ids }),
                }
            }
        }
        taken
    }
}

/// `--gres=none`, or a count of 0.
fn asks_nothing(gres: &penstock_vocab::GresRequest) -> bool {
    gres.count == 0 || gres.name.name() == "none"
}
