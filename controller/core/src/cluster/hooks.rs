//! How do scripts of the site go before and after a run?
//!
//! A run with hooks gets its resources first. Then the controller's prolog runs, then the prolog of
//! every node, and only then is anything of the job started. When all of the job has ended, every node
//! runs its epilog; what the run held is free when those have ended. Nodes know a prolog or epilog as
//! a part under a number of its own, so that it is started once, found again and acknowledged like any
//! other.
//!
//! A prolog that fails drains its node (`Prolog error`) and sends the job back, held; an epilog that
//! fails drains its node (`Epilog error`) (slurm.conf(5), "PROLOG AND EPILOG SCRIPTS"). A prolog that
//! runs is not killed when its job is cancelled: what it changed is for the epilog to undo.

use std::sync::Arc;

use penstock_vocab::{Attempt, JobId, JobState, PendingReason, Timestamp, UserId};

use super::Cluster;
use super::control::latest;
use super::steps::{ending_of, part_order};
use crate::command::{AttemptPhase, Effect, Order, OrderKind, Reply};
use crate::model::{
    BatchPart, EndCause, HookPhase, HookStage, Job, NodeIndex, Run, RunHooks, RunResult, RunStage,
    StepKey,
};

/// Why a node is drained whose prolog failed, in Slurm's words.
const PROLOG_ERROR: &str = "Prolog error";
/// The same of an epilog.
const EPILOG_ERROR: &str = "Epilog error";

impl Cluster {
    /// Begins a new run: with its first hook, or at once with the job.
    pub(super) fn begin_run(&mut self, job: &mut Job, mut run: Run) {
        match run.hooks.as_deref_mut() {
            Some(hooks) if hooks.policy.controller_prolog => {
                hooks.stage = HookStage::Controller;
                job.reason = Some(PendingReason::Prolog);
            }
            Some(hooks) if hooks.policy.prolog => {
                job.reason = Some(PendingReason::Prolog);
                self.begin_hook(job.id, &mut run, HookStage::Prolog);
            }
            _ => self.order(job.id, &run, OrderKind::Launch),
        }
        job.run = Some(Arc::new(run));
    }

    /// Lets the hook of `stage` be started on every node of the run that is not known to be away.
    fn begin_hook(&mut self, id: JobId, run: &mut Run, stage: HookStage) {
        let away = |node: NodeIndex| {
            self.node(node).is_none_or(|(node, _)| {
                node.admin.powered_down || node.down.as_ref().is_some_and(|down| down.by_silence)
            })
        };
        // A prolog is for a node that was just chosen; an epilog may find it gone.
        let phase = |node| match stage == HookStage::Epilog && away(node) {
            true => HookPhase::Ended,
            false => HookPhase::Allocated,
        };
        let nodes: Box<[HookPhase]> = run.shares.iter().map(|share| phase(share.node)).collect();
        if let Some(hooks) = run.hooks.as_deref_mut() {
            hooks.stage = stage;
            hooks.nodes = nodes;
        }
        for (node, order) in hook_orders(id, run, |_| false) {
            self.effects.push(Effect::Order(node, order));
        }
    }

    /// The controller's prolog of a run has ended; `error`: why it failed, empty if it did not.
    pub(super) fn controller_prolog_done(
        &mut self,
        id: JobId,
        attempt: Attempt,
        error: &str,
    ) -> Reply {
        let Some(job) = self.jobs.get(&id).cloned() else { return Reply::Done };
        let run = job.active_run().filter(|run| run.attempt == attempt && !run.is_ending());
        let hooks = run.and_then(|run| Some((run, run.hooks.as_deref()?)));
        let Some((run, hooks)) = hooks.filter(|(_, it)| it.stage == HookStage::Controller) else {
            return Reply::Done;
        };
        if !error.is_empty() {
            self.controller_prolog_failed((*job).clone(), run, error);
            return Reply::Done;
        }
        let mut job = (*job).clone();
        let mut run = (**run).clone();
        if hooks.policy.prolog {
            self.begin_hook(id, &mut run, HookStage::Prolog);
        } else {
            self.begin_hook_free_part(&mut job, &mut run);
        }
        job.run = Some(Arc::new(run));
        self.put_job(job);
        Reply::Done
    }

    /// slurm.conf(5): a batch job is requeued if it may be, any other is cancelled.
    fn controller_prolog_failed(&mut self, mut job: Job, run: &Arc<Run>, error: &str) {
        let mut run = (**run).clone();
        run.end_reason = format!("PrologSlurmctld failed: {error}").into();
        let run = Arc::new(run);
        if job.may_requeue() {
            let result = RunResult::default();
            self.script_is_over(&job, &run, BatchPart::Ended(Box::new(result)), EndCause::Requeue);
            return;
        }
        job.state = JobState::Cancelled;
        job.cancelled_by = Some(UserId(0));
        self.end_run_soon(&mut job, &run, EndCause::Cancelled);
        self.finish_array_task(&job, false);
        self.put_job(job);
    }

    /// Every prolog has ended well: the job itself may run, and its time counts from now.
    fn begin_hook_free_part(&mut self, job: &mut Job, run: &mut Run) {
        if let Some(hooks) = run.hooks.as_deref_mut() {
            hooks.stage = HookStage::Job;
            hooks.nodes = Box::default();
        }
        run.start_time = latest(Some(run.start_time), self.now);
        if job.spec.allocation {
            run.launched = Some(self.now);
        }
        job.reason = None;
        self.order(job.id, run, OrderKind::Launch);
        self.effects.push(Effect::Watched(job.id));
    }

    /// Where the prologs of a run have ended, the run goes on.
    pub(super) fn leave_prolog(&mut self, job: &Arc<Job>) {
        let Some(run) = job.active_run() else { return };
        let stage = run.hooks.as_ref().map(|hooks| hooks.stage);
        if stage != Some(HookStage::Prolog) || run.has_busy_hooks() || run.is_ending() {
            return;
        }
        let mut job = (**job).clone();
        let mut run = (**run).clone();
        self.begin_hook_free_part(&mut job, &mut run);
        job.run = Some(Arc::new(run));
        self.put_job(job);
    }

    /// Of a run that ends and of which nothing is left on any node: begins the epilogs if there are
    /// any. False if none has to be waited for.
    pub(super) fn begin_epilog(&mut self, job: &Arc<Job>) -> bool {
        let Some(run) = job.active_run() else { return false };
        let Some(hooks) = run.hooks.as_deref() else { return false };
        if !hooks.policy.epilog || hooks.stage == HookStage::Epilog {
            return false;
        }
        let mut changed = (**run).clone();
        if let Some(hooks) = changed.hooks.as_deref_mut() {
            hooks.job_ended = Some(latest(Some(run.start_time), self.now));
        }
        self.begin_hook(job.id, &mut changed, HookStage::Epilog);
        let waits = changed.has_busy_hooks();
        let mut job = (**job).clone();
        job.run = Some(Arc::new(changed));
        self.put_job(job);
        waits
    }

    /// A run shall end: prologs that no node has begun are not begun.
    pub(super) fn stop_prolog(&mut self, id: JobId, run: &mut Run) {
        if !run.is_configuring() {
            return;
        }
        if run.batch == BatchPart::Script {
            // No node was told of it.
            run.batch = BatchPart::NeverStarted;
        }
        for (node, order) in hook_orders(id, run, |_| false) {
            self.effects.push(Effect::Order(node, order));
        }
    }

    /// Takes what a node says of a prolog or epilog. What is not its business is acknowledged.
    pub(super) fn take_hook_report(&mut self, node: NodeIndex, key: StepKey, phase: AttemptPhase) {
        let job = self.jobs.get(&key.job).cloned();
        let live = job.filter(|job| {
            job.active_run()
                .is_some_and(|run| run.attempt == key.attempt && part_of(run, node, key).is_some())
        });
        let ended = !matches!(phase, AttemptPhase::Running);
        match (live, phase) {
            (None, _) => {}
            (Some(job), AttemptPhase::Running) => self.set_hook(&job, node, HookPhase::Running),
            (Some(job), AttemptPhase::Ended(result)) => {
                let failed = failure(&result);
                self.hook_ended(&job, node, failed.as_deref());
            }
            (Some(job), AttemptPhase::NeverStarted) => {
                self.hook_ended(&job, node, Some(NEVER));
            }
        }
        if ended {
            self.effects.push(Effect::Order(node, part_order(key, OrderKind::Acknowledge)));
        }
    }

    fn set_hook(&mut self, job: &Arc<Job>, node: NodeIndex, phase: HookPhase) {
        let Some(run) = job.active_run() else { return };
        let Some(at) = run.shares.iter().position(|share| share.node == node) else { return };
        let mut run = (**run).clone();
        let place = run.hooks.as_deref_mut().and_then(|hooks| hooks.nodes.get_mut(at));
        let Some(place) = place.filter(|known| **known != phase) else { return };
        *place = phase;
        let mut job = (**job).clone();
        self.settling.push(job.id);
        job.run = Some(Arc::new(run));
        self.put_job(job);
    }

    /// A hook has ended on a node; `failed`: why it did not do what it should.
    fn hook_ended(&mut self, job: &Arc<Job>, node: NodeIndex, failed: Option<&str>) {
        self.set_hook(job, node, HookPhase::Ended);
        let Some(why) = failed else { return };
        let Some(job) = self.jobs.get(&job.id).cloned() else { return };
        let Some(run) = job.active_run().cloned() else { return };
        let prolog = run.hooks.as_ref().is_some_and(|hooks| hooks.stage == HookStage::Prolog);
        // One that was not to be begun any more has not failed.
        if prolog && run.is_ending() && why == NEVER {
            return;
        }
        self.drain_for(node, if prolog { PROLOG_ERROR } else { EPILOG_ERROR });
        if !prolog || run.is_ending() {
            return;
        }
        let name = self.node(node).map(|(node, _)| node.name.to_string()).unwrap_or_default();
        let mut run = (*run).clone();
        run.end_reason = format!("{PROLOG_ERROR} on node {name}: {why}").into();
        if let Some(hooks) = run.hooks.as_deref_mut() {
            hooks.failed = true;
        }
        let no_hold = run.hooks.as_ref().is_some_and(|hooks| hooks.policy.no_hold);
        let cause = match (job.may_requeue(), no_hold) {
            (false, _) => EndCause::LaunchFailed,
            (true, true) => EndCause::Requeue,
            (true, false) => EndCause::RequeueHold,
        };
        let batch = BatchPart::Ended(Box::default());
        self.script_is_over(&job, &run, batch, cause);
    }

    /// A job waits again and is held since its prolog failed.
    pub(super) fn held_after_prolog(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut job = (**job).clone();
        job.reason = Some(PendingReason::LaunchFailedHeld);
        self.put_job(job);
    }

    fn drain_for(&mut self, index: NodeIndex, reason: &str) {
        let Some((node, _)) = self.node(index) else { return };
        if node.admin.drain {
            return;
        }
        let mut node = (**node).clone();
        node.admin.drain = true;
        node.admin.reason = reason.into();
        node.admin.reason_by = Some((UserId(0), self.now));
        self.put_node(index, node);
    }

    /// Nothing of a job is left on a node that is gone: its hook there neither.
    pub(super) fn lose_hook(&mut self, id: JobId, node: NodeIndex) {
        if let Some(job) = self.jobs.get(&id).cloned() {
            self.set_hook(&job, node, HookPhase::Ended);
        }
    }

    /// A node has gone silent: no epilog is waited for there, since nobody gets the node before it
    /// is back.
    pub(super) fn lose_epilogs(&mut self, node: NodeIndex) {
        for job in self.jobs_on(node) {
            let stage = job.active_run().and_then(|run| run.hooks.as_ref()).map(|it| it.stage);
            if stage == Some(HookStage::Epilog) {
                self.set_hook(&job, node, HookPhase::Ended);
            }
        }
    }

    /// Brings the hook that a node should run and the one that it says it has together.
    pub(super) fn settle_hook(
        &mut self,
        node: NodeIndex,
        job: &Arc<Job>,
        (rebooted, told): (bool, &dyn Fn(StepKey) -> bool),
    ) {
        let Some(run) = job.active_run() else { return };
        let hooks = run.hooks.as_deref();
        let Some(number) = hooks.and_then(RunHooks::number) else { return };
        let key = StepKey { job: job.id, attempt: run.attempt, number };
        let Some(phase) = part_of(run, node, key) else { return };
        let known = told(key);
        if rebooted && !known {
            self.set_hook(job, node, HookPhase::Ended);
        } else if !known && phase == HookPhase::Running {
            self.hook_ended(job, node, Some("what ran it is gone"));
        } else {
            let orders = hook_orders(job.id, run, |_| known);
            let own: Vec<_> = orders.into_iter().filter(|(at, _)| *at == node).collect();
            self.effects.extend(own.into_iter().map(|(at, order)| Effect::Order(at, order)));
        }
    }

    /// What a node was told about the hook of a run at or before `old`, and has not answered.
    pub(super) fn overdue_hook(
        job: &Job,
        run: &Run,
        node: NodeIndex,
        old: impl Fn(Timestamp) -> bool,
    ) -> Vec<(NodeIndex, Order)> {
        let since = run.hooks.as_ref().and_then(|hooks| hooks.job_ended).unwrap_or(run.start_time);
        if !old(since) {
            return Vec::new();
        }
        let orders = hook_orders(job.id, run, |_| false);
        orders.into_iter().filter(|(at, _)| *at == node).collect()
    }

    /// Runs that wait for the controller's prolog. Cost: all jobs.
    pub fn runs_before_controller_prolog(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().filter(|job| waits_for_controller(job))
    }
}

/// What a report says of a part that was never started.
const NEVER: &str = "it was never started";

/// Whether the job's run waits for the controller's prolog.
#[must_use]
pub fn waits_for_controller(job: &Job) -> bool {
    job.active_run().is_some_and(|run| {
        let hooks = run.hooks.as_ref();
        !run.is_ending() && hooks.is_some_and(|hooks| hooks.stage == HookStage::Controller)
    })
}

/// Why a hook failed; `None`: it did what it should.
fn failure(result: &RunResult) -> Option<Box<str>> {
    if !result.launch_error.is_empty() {
        return Some(result.launch_error.clone());
    }
    if result.lost {
        return Some("what ran it was killed".into());
    }
    let exit = result.exit;
    match (exit.is_success(), exit.signal) {
        (true, _) => None,
        (false, 0) => Some(format!("it ended with exit status {}", exit.status).into()),
        (false, signal) => Some(format!("it was ended by signal {signal}").into()),
    }
}

/// How far the hook `key` of a run got on a node, while it has not ended there.
fn part_of(run: &Run, node: NodeIndex, key: StepKey) -> Option<HookPhase> {
    let hooks = run.hooks.as_deref().filter(|hooks| hooks.number() == Some(key.number))?;
    let at = run.shares.iter().position(|share| share.node == node)?;
    hooks.nodes.get(at).copied().filter(|phase| *phase != HookPhase::Ended)
}

/// What nodes must hear about the hook of a run, derived from the record alone. `known`: the node
/// holds the part.
fn hook_orders(
    job: JobId,
    run: &Run,
    known: impl Fn(NodeIndex) -> bool,
) -> Vec<(NodeIndex, Order)> {
    let Some(hooks) = run.hooks.as_deref() else { return Vec::new() };
    let Some(number) = hooks.number() else { return Vec::new() };
    let ending = ending_of(run).filter(|_| hooks.stage == HookStage::Prolog);
    let kind = |node, phase: &HookPhase| match (phase, ending) {
        (HookPhase::Ended, _) => None,
        (HookPhase::Allocated, Some(cause)) => Some(OrderKind::Terminate(cause)),
        (HookPhase::Allocated, None) => (!known(node)).then_some(OrderKind::Launch),
        (HookPhase::Running, _) => None,
    };
    let parts = run.shares.iter().zip(&hooks.nodes);
    let order = |kind| Order { job, attempt: run.attempt, step: Some(number), kind };
    parts.filter_map(|(share, phase)| Some((share.node, order(kind(share.node, phase)?)))).collect()
}

/// Whether the hooks of a run contradict it.
pub(super) fn contradiction(run: &Run) -> Option<&'static str> {
    let hooks = run.hooks.as_deref()?;
    let on_nodes = matches!(hooks.stage, HookStage::Prolog | HookStage::Epilog);
    if on_nodes != (hooks.nodes.len() == run.shares.len()) {
        return Some("has hooks on other nodes than its own");
    }
    if hooks.stage == HookStage::Epilog && !run.is_ending() {
        return Some("runs its epilog and does not end");
    }
    let launched = run.stage == RunStage::Launched && run.batch == BatchPart::Script;
    (hooks.is_configuring() && launched).then_some("runs before its prolog has ended")
}
