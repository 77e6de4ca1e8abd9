//! How is a GPU cut anew while its other slices run?
//!
//! A plan proposes; here each line is checked against the newest state: the GPU is one that may be cut,
//! of that generation, nobody holds what goes, and what comes is legal beside what stays. The intent is
//! stored before it is ordered. What its node then says of the GPU is the truth, whatever was ordered;
//! runs keep the devices they hold, whose numbers among the slices of their profile may change.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::{GresName, GresRequest, NodeName, SessionId};

use super::Cluster;
use crate::command::{Effect, Reply, ReshapeLine};
use crate::model::{
    BatchPart, EndCause, GPU, Gpu, GresShare, Inventory, Job, MigMode, Node, NodeIndex, NodeShare,
    Reshape, ReshapeRest, Run, RunStage, Step, StepShare,
};
use crate::refusal::{Malformed, Refusal};
use crate::scheduler::mig;

/// Longest rest of a GPU after reshapes that failed, seconds.
const MAX_REST_SECS: u64 = 3_600;

impl Cluster {
    /// Whether some GPU that may be cut could have slices of this profile.
    #[must_use]
    pub fn is_dynamic_profile(&self, profile: &str) -> bool {
        let mig = &self.config.mig;
        mig.any()
            && self
                .nodes
                .iter()
                .any(|node| mig.is_dynamic(&node.name) && node.most_slices(profile) > 0)
    }

    /// The types of slices into which GPUs that may be cut could be cut.
    pub(super) fn dynamic_profiles(&self) -> BTreeSet<GresName> {
        let mig = &self.config.mig;
        let nodes = self.nodes.iter().filter(|node| mig.is_dynamic(&node.name));
        let gpus = nodes.flat_map(|node| node.inventory.gpus.iter());
        let cut = gpus.filter(|gpu| gpu.mig == MigMode::On);
        let profiles = cut.flat_map(|gpu| &gpu.profiles);
        profiles.filter_map(|profile| GresName::new(GPU, Some(&profile.name)).ok()).collect()
    }

    /// Carries out what a plan proposes; what no longer holds is left.
    pub(super) fn reshape(&mut self, lines: Vec<ReshapeLine>) -> Reply {
        let (mut started, mut refused) = (0, 0);
        for line in lines {
            match self.reshape_one(&line) {
                Some(()) => started += 1,
                None => refused += 1,
            }
        }
        Reply::Started { started, refused }
    }

    fn reshape_one(&mut self, line: &ReshapeLine) -> Option<()> {
        let node = self.nodes.get(line.node.get())?;
        let used = self.uses.get(line.node.get())?;
        let gpu = node.inventory.gpus.iter().find(|gpu| gpu.index == line.gpu)?;
        let dynamic = self.config.mig.is_dynamic(&node.name) && node.session.is_some();
        let same = gpu.mig == MigMode::On && gpu.generation == line.generation;
        let busy = node.reshape_of(gpu).is_some() || node.gpu_drain(gpu).is_some();
        let rests = node.trouble.rests.iter().any(|r| r.gpu == gpu.index && r.until > self.now);
        if !dynamic || !same || busy || rests || !is_legal(gpu, &mig::held(node, used, gpu), line) {
            return None;
        }
        let deadline = self.now.plus_secs(self.config.mig.deadline_secs.into());
        let reshape = Reshape {
            gpu: gpu.index,
            uuid: gpu.uuid.clone(),
            generation: gpu.generation,
            destroy: line.destroy.clone(),
            create: line.create.clone(),
            deadline,
        };
        let mut node = (**node).clone();
        node.admin.reshapes = node.admin.reshapes.iter().cloned().chain([reshape]).collect();
        self.reshaping.insert((deadline, line.node));
        self.put_node(line.node, node);
        self.effects.push(Effect::Reshape(line.node, line.gpu));
        Some(())
    }

    /// A node says how one of its GPUs is cut now.
    pub(super) fn gpu_layout(
        &mut self,
        name: &NodeName,
        session: SessionId,
        gpu: Gpu,
        gres: Box<[GresRequest]>,
        (answers, error): (u64, Box<str>),
    ) -> Result<Reply, Refusal> {
        let index = self.session_of(name, session)?;
        let (_, old) = self.node_by_name(name)?;
        let Some(place) = old.inventory.gpus.iter().position(|known| known.index == gpu.index)
        else {
            let detail = format!("node {name} has no GPU {}", gpu.index);
            return Err(Refusal::Malformed { what: Malformed::Gres, detail: detail.into() });
        };
        let known = &old.inventory.gpus[place];
        if known.uuid == gpu.uuid && known.generation > gpu.generation {
            // It came late, and what it says is not so any more.
            return Ok(Reply::Done);
        }
        let mut node = (*old).clone();
        let number = gpu.index;
        let mut gpus = node.inventory.gpus.to_vec();
        gpus[place] = gpu;
        node.inventory.gpus = gpus.into();
        node.inventory.gres = counted(&node.inventory, &gres);
        let answered = |reshape: &&Reshape| reshape.gpu == number && reshape.generation == answers;
        if node.admin.reshapes.iter().any(|reshape| answered(&reshape)) {
            let others = node.admin.reshapes.iter().filter(|reshape| !answered(reshape));
            node.admin.reshapes = others.cloned().collect();
            self.rest(index, &mut node, number, !error.is_empty());
        }
        if !error.is_empty() {
            let text = format!("GPU {number} of {name} was not cut as ordered: {error}");
            self.effects.push(Effect::Warn(text.into()));
        }
        self.settle_gpus(&mut node, false);
        self.replace_node(index, &old, node);
        Ok(Reply::Done)
    }

    /// A GPU is left alone for a while.
    fn rest(&mut self, index: NodeIndex, node: &mut Node, gpu: u32, failed: bool) {
        let before = node.trouble.rests.iter().find(|rest| rest.gpu == gpu);
        let failed = if failed { before.map_or(0, |rest| rest.failed) + 1 } else { 0 };
        let settle = u64::from(self.config.mig.settle_secs);
        let secs = settle.saturating_mul(1 << failed.min(12)).min(MAX_REST_SECS.max(settle));
        let until = self.now.plus_secs(secs);
        node.trouble.rests.retain(|rest| rest.gpu != gpu);
        node.trouble.rests.push(ReshapeRest { gpu, until, failed });
        self.reshaping.insert((until, index));
    }

    /// Gives up what took too long, and lets GPUs be cut again that rested long enough.
    pub(super) fn end_reshapes(&mut self) {
        while let Some((at, index)) = self.reshaping.get_min().copied() {
            if at > self.now {
                return;
            }
            self.reshaping.remove(&(at, index));
            let Some(old) = self.nodes.get(index.get()).cloned() else { continue };
            let late = |reshape: &&Reshape| reshape.deadline <= self.now;
            let gpus: Vec<u32> = old.admin.reshapes.iter().filter(late).map(|r| r.gpu).collect();
            self.effects.push(Effect::Schedule);
            if gpus.is_empty() {
                continue;
            }
            let mut node = (*old).clone();
            let kept = old.admin.reshapes.iter().filter(|reshape| !late(reshape));
            node.admin.reshapes = kept.cloned().collect();
            for gpu in gpus {
                self.rest(index, &mut node, gpu, true);
                let text = format!("GPU {gpu} of {} was not cut in time", node.name);
                self.effects.push(Effect::Warn(text.into()));
            }
            self.put_node(index, node);
        }
    }

    /// When the next reshape is given up, or the next GPU may be cut again.
    pub(super) fn reshapes_wake(&self) -> Option<penstock_vocab::Timestamp> {
        self.reshaping.get_min().map(|(at, _)| *at)
    }

    /// Reshapes that a node is to be told of again, as when it registers.
    pub(super) fn tell_reshapes(&mut self, index: NodeIndex, node: &Node) {
        for reshape in &node.admin.reshapes {
            self.reshaping.insert((reshape.deadline, index));
            self.effects.push(Effect::Reshape(index, reshape.gpu));
        }
    }

    /// Stores a node whose inventory may be another: runs and their steps keep the devices that they hold, whatever
    /// their numbers are now.
    pub(super) fn replace_node(&mut self, index: NodeIndex, old: &Node, node: Node) {
        let (before, after) = (&old.inventory, node.inventory.clone());
        let changed =
            (&before.gpus, &before.gres) != (&after.gpus, &after.gres) && !before.gpus.is_empty();
        let jobs = if changed { self.jobs_on(index) } else { Vec::new() };
        let of_here = |share: &NodeShare| {
            let share = Some(share).filter(|share| share.node == index)?;
            renumbered(share, before, &after)
        };
        let moved: Vec<Job> = jobs.iter().filter_map(|job| job_moved(job, of_here)).collect();
        let steps = jobs.iter().flat_map(|job| self.live_steps_of(job.id));
        let steps: Vec<Step> = steps.filter_map(|step| step_moved(step, of_here)).collect();
        self.put_node(index, node);
        for mut job in moved {
            self.take_back_unbegun(&mut job, index);
            self.put_job(job);
        }
        for step in steps {
            self.put_step(step);
        }
        self.recount(index);
    }
}

impl Cluster {
    /// A batch script that was not begun and whose slices are gone is not to begin without them: it is
    /// taken back, and planned anew once its node has said that it never began.
    fn take_back_unbegun(&mut self, job: &mut Job, index: NodeIndex) {
        let Some(run) = job.active_run().cloned() else { return };
        let waits = run.stage == RunStage::Allocated && run.batch == BatchPart::Script;
        let before = self.jobs.get(&job.id).and_then(|job| job.active_run());
        let units = |run: &Run| -> usize {
            let here = run.shares.iter().filter(|share| share.node == index);
            here.flat_map(|share| share.gres.iter()).map(|gres| gres.ids.len()).sum()
        };
        if waits && before.is_some_and(|before| units(before) > units(&run)) {
            self.end_run_soon(job, &run, EndCause::Requeue);
        }
    }
}

/// The counts that a node told, with those of GPUs and slices as its devices are: what it told with one GPU
/// may be older than what is known of another.
fn counted(inventory: &Inventory, told: &[GresRequest]) -> Box<[GresRequest]> {
    let mut counts = told.to_vec();
    let slices = inventory.gpus.iter().filter(|gpu| !gpu.is_whole()).flat_map(|gpu| &gpu.slices);
    for slice in slices {
        let Ok(name) = GresName::new(GPU, Some(&slice.profile)) else { continue };
        if counts.iter().all(|have| have.name != name) {
            counts.push(GresRequest { name, count: 0 });
        }
    }
    for have in &mut counts {
        if have.name.name() == GPU && have.name.kind().is_some() {
            have.count = inventory.devices(&have.name).count() as u64;
        }
    }
    counts.retain(|have| have.count > 0 || have.name.name() != GPU);
    counts.into()
}

/// Whether what goes is free and there, and what comes is legal beside what stays.
fn is_legal(gpu: &Gpu, held: &[u32], line: &ReshapeLine) -> bool {
    let goes = |start: &u32| line.destroy.contains(start);
    let known = line.destroy.iter().all(|start| gpu.slices.iter().any(|s| s.start == *start));
    if !known || held.iter().any(goes) {
        return false;
    }
    let mut taken = 0u8;
    let mut counts = vec![0u32; gpu.profiles.len()];
    let stays = gpu.slices.iter().filter(|slice| !goes(&slice.start));
    for slice in stays {
        taken |= mig::mask(slice.start, slice.size);
        if let Some(at) = gpu.profiles.iter().position(|profile| profile.name == slice.profile) {
            counts[at] += 1;
        }
    }
    line.create.iter().all(|new| {
        let Some(at) = gpu.profiles.iter().position(|profile| profile.name == new.profile) else {
            return false;
        };
        let profile = &gpu.profiles[at];
        let bits = mig::mask(new.start, new.size);
        let fits = bits != 0 && taken & bits == 0;
        taken |= bits;
        counts[at] += 1;
        fits && (profile.id, profile.size) == (new.id, new.size)
            && profile.starts.contains(&new.start)
            && (profile.most == 0 || counts[at] <= profile.most)
    })
}

/// The job with the numbers that its devices have now; `None`: they are as they were.
fn job_moved(job: &Job, of: impl Fn(&NodeShare) -> Option<NodeShare>) -> Option<Job> {
    let run = job.active_run()?;
    if run.shares.iter().all(|share| of(share).is_none()) {
        return None;
    }
    let share = |share: &NodeShare| of(share).unwrap_or_else(|| share.clone());
    let shares = run.shares.iter().map(share).collect();
    let run = Some(Arc::new(Run { shares, ..(**run).clone() }));
    Some(Job { run, ..job.clone() })
}

/// The step likewise.
fn step_moved(step: &Step, of: impl Fn(&NodeShare) -> Option<NodeShare>) -> Option<Step> {
    if step.shares.iter().all(|part| of(&part.share).is_none()) {
        return None;
    }
    let part = |part: &StepShare| {
        let share = of(&part.share).unwrap_or_else(|| part.share.clone());
        StepShare { share, ..part.clone() }
    };
    Some(Step { shares: step.shares.iter().map(part).collect(), ..step.clone() })
}

/// A share with the numbers that its devices have now; `None`: they are as they were. A device that is
/// gone is left out.
fn renumbered(share: &NodeShare, old: &Inventory, new: &Inventory) -> Option<NodeShare> {
    let gres: Box<[GresShare]> = share.gres.iter().map(|gres| renumber(gres, old, new)).collect();
    (gres != share.gres).then(|| NodeShare { gres, ..share.clone() })
}

fn renumber(gres: &GresShare, old: &Inventory, new: &Inventory) -> GresShare {
    let known = gres.ids.first().is_some_and(|id| old.device(&gres.name, *id).is_some());
    if !known {
        return gres.clone();
    }
    let now = |id: &u32| {
        let had = old.device(&gres.name, *id)?;
        let start = had.slice.map(|slice| slice.start);
        let mut has = new.devices(&gres.name);
        let at = has.position(|device| {
            device.gpu.index == had.gpu.index && device.slice.map(|slice| slice.start) == start
        })?;
        u32::try_from(at).ok()
    };
    // A shard's number follows from counts alone.
    let ids = if gres.name.name() == crate::model::SHARD {
        gres.ids.clone()
    } else {
        gres.ids.iter().filter_map(now).collect()
    };
    GresShare { name: gres.name.clone(), ids }
}
