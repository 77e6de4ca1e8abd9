//! What becomes of a GPU that is broken, and of the jobs on it?
//!
//! It alone is drained: it takes no new job while the node's others go on. An admin drains and resumes
//! one by hand; the controller drains one when its node says that it has a fault, or reports an event
//! for which the table of [`GpuHealth`](crate::model::GpuHealth) says so. What an admin drained, an
//! admin resumes.

use std::sync::Arc;

use penstock_vocab::{NodeName, SessionId, UserId};

use super::Cluster;
use crate::command::{Caller, Effect, NodeAction, NodeUpdate, Reply};
use crate::model::{
    DrainAction, EndCause, GPU, GpuDrain, GpuDrainEnd, GpuFault, GpuFaultSeen, GpuKill, Inventory,
    Job, JobAction, Node, NodeIndex, Run, SHARD, XidRule,
};
use crate::refusal::{Malformed, Refusal};

/// How long an event counts towards a repeated one, seconds.
const COUNTS_SECS: u64 = 86_400;
/// Events of one node that are remembered.
const MAX_SEEN: usize = 256;
/// Events that one command takes.
const MAX_GPU_FAULTS: usize = 64;

impl Cluster {
    /// Takes events of a node's GPUs.
    pub(super) fn gpu_faults(
        &mut self,
        name: &NodeName,
        session: SessionId,
        mut faults: Vec<GpuFault>,
    ) -> Result<Reply, Refusal> {
        let index = self.session_of(name, session)?;
        faults.truncate(MAX_GPU_FAULTS);
        for fault in &faults {
            let rule = self.config.gpu_health.rule(fault);
            if !rule.ignore {
                self.gpu_fault(index, fault, rule);
            }
        }
        Ok(Reply::Done)
    }

    fn gpu_fault(&mut self, index: NodeIndex, fault: &GpuFault, rule: XidRule) {
        let Some(node) = self.nodes.get(index.get()).cloned() else { return };
        let holders = self.gpu_holders(index, &node, fault.gpu, fault.gi);
        let repeated = self.note_gpu_fault(index, fault, rule, &holders);
        let text = describe(&node, fault);
        if rule.job != JobAction::Leave {
            for job in &holders {
                self.end_for_gpu(job, &text, rule.job == JobAction::Requeue);
            }
        }
        let drain = if repeated { rule.drain.max(rule.then) } else { rule.drain };
        if drain == DrainAction::None {
            return;
        }
        if self.gpu_breaker_is_open() {
            let most = self.most_gpu_drains();
            let told = format!(
                "{text}; it is not drained: {most} GPUs of the cluster were within {} s, resume or \
                 drain by hand",
                self.config.gpu_health.breaker_secs
            );
            self.effects.push(Effect::Warn(told.into()));
            return;
        }
        let Some(node) = self.nodes.get(index.get()).cloned() else { return };
        let mut node = (*node).clone();
        self.drain_one(&mut node, fault.gpu, text.as_str().into(), None, fault.xid, rule.end);
        if drain == DrainAction::Node && !node.admin.drain {
            node.admin.drain = true;
            node.admin.reason = text.into();
            node.admin.reason_by = Some((UserId(0), self.now));
        }
        self.put_node(index, node);
    }

    /// Remembers an event; whether it is a repeated one by its rule.
    fn note_gpu_fault(
        &mut self,
        index: NodeIndex,
        fault: &GpuFault,
        rule: XidRule,
        holders: &[Arc<Job>],
    ) -> bool {
        let Some(node) = self.nodes.get(index.get()) else { return false };
        let mut node = (**node).clone();
        let since = self.now.minus_secs(COUNTS_SECS);
        let seen = &mut node.trouble.gpu_faults;
        seen.retain(|one| one.at > since);
        let by = holders.first().map(|job| job.uid);
        seen.push(GpuFaultSeen { gpu: fault.gpu, xid: fault.xid, at: self.now, by });
        if seen.len() > MAX_SEEN {
            seen.remove(0);
        }
        let same = seen.iter().filter(|one| (one.gpu, one.xid) == (fault.gpu, fault.xid));
        let mut users: Vec<_> = same.clone().filter_map(|one| one.by).collect();
        users.sort_unstable();
        users.dedup();
        let free = same.filter(|one| one.by.is_none()).count();
        let count = u32::try_from(users.len() + free).unwrap_or(u32::MAX);
        // What is not the job's own fault counts each time.
        let count = if rule.job == JobAction::Fail { count } else { self.times(&node, fault) };
        self.set_node(index, node);
        rule.repeat > 0 && count >= rule.repeat
    }

    fn times(&self, node: &Node, fault: &GpuFault) -> u32 {
        let seen = &node.trouble.gpu_faults;
        let same = seen.iter().filter(|one| (one.gpu, one.xid) == (fault.gpu, fault.xid));
        u32::try_from(same.count()).unwrap_or(u32::MAX)
    }

    /// Jobs that hold a GPU, or the slice of it that is concerned.
    fn gpu_holders(
        &self,
        index: NodeIndex,
        node: &Node,
        gpu: u32,
        gi: Option<u32>,
    ) -> Vec<Arc<Job>> {
        let mut jobs = self.jobs_on(index);
        jobs.retain(|job| {
            job.active_run().is_some_and(|run| holds_gpu(&node.inventory, run, index, gpu, gi))
        });
        jobs
    }

    /// Ends a job's run because of its GPU.
    fn end_for_gpu(&mut self, job: &Arc<Job>, text: &str, requeue: bool) {
        let Some(run) = job.active_run().filter(|run| !run.is_ending()) else { return };
        let mut run = (**run).clone();
        run.gpu_kill = Some(GpuKill { text: text.into(), requeue });
        run.end_reason = text.into();
        let run = Arc::new(run);
        let mut job = (**job).clone();
        self.end_run_soon(&mut job, &run, EndCause::NodeFail);
        self.put_job(job);
    }

    /// GPUs that the controller drained within the breaker's time are as many as may be.
    fn gpu_breaker_is_open(&self) -> bool {
        let since = self.now.minus_secs(self.config.gpu_health.breaker_secs.into());
        let of = |node: &Arc<Node>| {
            let own = |drain: &&GpuDrain| drain.by.is_none() && drain.since > since;
            node.admin.gpus.iter().filter(own).count()
        };
        self.nodes.iter().map(of).sum::<usize>() >= self.most_gpu_drains()
    }

    fn most_gpu_drains(&self) -> usize {
        let health = &self.config.gpu_health;
        let all: usize = self.nodes.iter().map(|node| node.inventory.gpus.len()).sum();
        (all.saturating_mul(health.breaker_percent as usize) / 100)
            .max(health.breaker_least as usize)
    }

    /// Drains one GPU; what drained it before stays.
    fn drain_one(
        &self,
        node: &mut Node,
        gpu: u32,
        reason: Box<str>,
        by: Option<UserId>,
        xid: u32,
        end: GpuDrainEnd,
    ) {
        let known = node.inventory.gpus.iter().find(|known| known.index == gpu);
        if known.is_some_and(|known| {
            node.gpu_drain(known).is_some_and(|old| old.by.is_some() || by.is_none())
        }) {
            return;
        }
        let uuid = known.map(|known| known.uuid.clone()).unwrap_or_default();
        let mut drains = node.admin.gpus.to_vec();
        drains.retain(|drain| drain.index != gpu);
        let (since, deadline) = (self.now, None);
        drains.push(GpuDrain { index: gpu, uuid, reason, by, since, xid, end, deadline });
        drains.sort_by_key(|drain| drain.index);
        node.admin.gpus = drains.into();
    }

    /// Brings the drains of a node's GPUs into line with what it says of itself when it registers.
    pub(super) fn settle_gpus(&self, node: &mut Node, rebooted: bool) {
        let gpus = Arc::clone(&node.inventory.gpus);
        let stays = |drain: &GpuDrain| match drain.end {
            GpuDrainEnd::ByHand => true,
            GpuDrainEnd::Boot => !rebooted,
            // A board that is gone is not known to be whole.
            GpuDrainEnd::Reported => {
                !gpus.iter().any(|gpu| drain.concerns(gpu) && gpu.fault.is_empty())
            }
        };
        if !node.admin.gpus.iter().all(stays) {
            node.admin.gpus =
                node.admin.gpus.iter().filter(|drain| stays(drain)).cloned().collect();
        }
        for gpu in gpus.iter().filter(|gpu| !gpu.fault.is_empty()) {
            let end = GpuDrainEnd::Reported;
            self.drain_one(node, gpu.index, gpu.fault.clone(), None, 0, end);
        }
    }

    /// Drains or resumes GPUs by hand.
    pub(super) fn update_gpus(
        &self,
        caller: &Caller,
        node: &mut Node,
        update: &NodeUpdate,
    ) -> Result<(), Refusal> {
        for gpu in &update.gpus {
            if !has_gpu(&node.inventory, *gpu) {
                return Err(malformed(format!("node {} has no GPU {gpu}", node.name)));
            }
        }
        match update.action {
            Some(NodeAction::Drain) => {
                for gpu in &update.gpus {
                    let (reason, end) = (update.reason.clone(), GpuDrainEnd::ByHand);
                    self.drain_one(node, *gpu, reason, Some(caller.uid), 0, end);
                    let drain = node.admin.gpus.iter_mut().find(|drain| drain.index == *gpu);
                    if let Some(drain) = drain {
                        drain.deadline = update.deadline;
                    }
                }
            }
            Some(NodeAction::Resume | NodeAction::Undrain) => {
                let kept = node.admin.gpus.iter().filter(|d| !update.gpus.contains(&d.index));
                node.admin.gpus = kept.cloned().collect();
                node.trouble.gpu_faults.retain(|one| !update.gpus.contains(&one.gpu));
            }
            Some(
                NodeAction::Down | NodeAction::Fail | NodeAction::PowerDown | NodeAction::PowerUp,
            )
            | None => {
                return Err(malformed(
                    "a GPU can be drained and resumed; give state=drain or state=resume".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

fn malformed(detail: String) -> Refusal {
    Refusal::Malformed { what: Malformed::Gres, detail: detail.into() }
}

fn has_gpu(inventory: &Inventory, gpu: u32) -> bool {
    if inventory.gpus.is_empty() {
        let gpus = inventory.gres.iter().filter(|have| have.name.name() == GPU);
        return u64::from(gpu) < gpus.map(|have| have.count).sum::<u64>();
    }
    inventory.gpus.iter().any(|known| known.index == gpu)
}

/// Whether a run holds a GPU of a node, a part of it, or the slice of it that is meant.
pub(super) fn holds_gpu(
    inventory: &Inventory,
    run: &Run,
    index: NodeIndex,
    gpu: u32,
    gi: Option<u32>,
) -> bool {
    let shares = run.shares.iter().filter(|share| share.node == index);
    let mut units = shares
        .flat_map(|share| &share.gres)
        .flat_map(|gres| gres.ids.iter().map(move |id| (&gres.name, *id)));
    units.any(|(name, id)| unit_is_on(inventory, name, id, gpu, gi))
}

/// Whether a unit is that GPU, on it, or the slice that is meant.
fn unit_is_on(
    inventory: &Inventory,
    name: &penstock_vocab::GresName,
    id: u32,
    gpu: u32,
    gi: Option<u32>,
) -> bool {
    if !matches!(name.name(), GPU | SHARD) {
        return false;
    }
    if let Some(device) = inventory.device(name, id) {
        let slice = device.slice.is_none_or(|slice| gi.is_none_or(|gi| slice.gi == gi));
        return device.gpu.index == gpu && slice;
    }
    let at = inventory.gres.iter().position(|have| have.name == *name);
    at.and_then(|at| inventory.gpu_place(at, id)) == Some(gpu as usize)
}

/// `GPU 3 of n1: XID 79, ...`
fn describe(node: &Node, fault: &GpuFault) -> String {
    let slice = fault.gi.map_or_else(String::new, |gi| format!(" (GPU instance {gi})"));
    let mut text = format!("GPU {} of {}{slice}", fault.gpu, node.name);
    if fault.xid > 0 && fault.condition().is_none() {
        text.push_str(&format!(": XID {}", fault.xid));
    }
    if !fault.text.is_empty() {
        text.push_str(": ");
        text.push_str(&fault.text);
    }
    text
}
