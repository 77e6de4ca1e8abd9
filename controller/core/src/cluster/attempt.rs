//! How does a job start, and what does its end on a node make of it?

use std::sync::Arc;

use penstock_vocab::{
    Attempt, ExitCode, JobId, JobState, Mib, NodeName, PartitionName, PendingReason, SessionId,
    Timestamp, Walltime,
};

use super::Cluster;
use super::control::latest;
use super::reserved::Applicant;
use crate::command::{
    AttemptPhase, AttemptReport, Effect, MAX_STARTS, Order, OrderKind, Reply, StartLine, Unit,
};
use crate::model::{
    BatchPart, EndCause, Hold, Job, JobSpec, NodeIndex, NodeShare, Run, RunResult, RunStage,
    StepKey, Usage,
};
use crate::policy::limits::{Check, UsageCache};
use crate::refusal::Refusal;
use crate::scheduler::{self, Asker};

/// From a launch that never started to the next try, in seconds: long enough for a node that can't
/// start anything not to be hammered.
const RELAUNCH_DELAY_SECS: u64 = 2;

impl Cluster {
    /// Starts what a plan proposes, each line checked against the newest state. A refused line takes
    /// along the later backfill lines that touch the same nodes.
    pub(super) fn start(&mut self, lines: Vec<StartLine>) -> Result<Reply, Refusal> {
        if lines.len() > MAX_STARTS {
            return Err(Refusal::TooManyItems { got: lines.len(), limit: MAX_STARTS });
        }
        let used = UsageCache::default();
        let (mut started, mut refused) = (0, 0);
        let mut spoiled: Vec<NodeIndex> = Vec::new();
        for line in lines {
            let touched = line.shares.iter().any(|share| spoiled.contains(&share.node));
            let nodes: Vec<_> = line.shares.iter().map(|share| share.node).collect();
            if (line.backfill && touched) || self.start_one(line, &used).is_err() {
                refused += 1;
                spoiled.extend(nodes);
            } else {
                started += 1;
            }
        }
        Ok(Reply::Started { started, refused })
    }

    fn start_one(&mut self, line: StartLine, used: &UsageCache) -> Result<(), Refusal> {
        if !self.is_queued(line.unit) {
            return Err(Refusal::StalePlan("the job no longer waits for resources"));
        }
        let id = match (line.unit, line.task) {
            (Unit::Job(id), _) => {
                let base = self.jobs.get(&id).and_then(|job| job.array).map(|task| task.base);
                let array = base.and_then(|base| self.arrays.get(&base));
                if array.is_some_and(|array| self.running_tasks(array.id) >= array.throttle()) {
                    return Err(Refusal::StalePlan("the array's throttle is reached"));
                }
                let job = self.jobs.get(&id).ok_or(Refusal::StalePlan("no such job"))?;
                let limit = self.limit_to_deadline(&job.spec, job.time_limit)?;
                let asker = Asker::new(job.uid, job.submit_time, self.now);
                self.check_line(&line, (&job.spec, Applicant::of(job), asker), limit, used)?;
                id
            }
            (Unit::Array(base), Some(task)) => {
                let array = self.arrays.get(&base).ok_or(Refusal::StalePlan("no such array"))?;
                if self.running_tasks(base) >= array.throttle() {
                    return Err(Refusal::StalePlan("the array's throttle is reached"));
                }
                if !self.task_is_startable(array, task) {
                    return Err(Refusal::StalePlan("the task does not wait for resources"));
                }
                let limit = self.limit_to_deadline(&array.spec, array.time_limit)?;
                let account = &array.spec.account;
                let who = Applicant { uid: array.uid, assoc: array.assoc, account };
                let asker = Asker::new(array.uid, array.submit_time, self.now);
                self.check_line(&line, (&array.spec, who, asker), limit, used)?;
                self.split_task(base, task).ok_or(Refusal::StalePlan("no such task"))?
            }
            (Unit::Array(_), None) => return Err(Refusal::StalePlan("no task named")),
        };
        let job = self.jobs.get(&id).ok_or(Refusal::StalePlan("no such job"))?;
        let eligible = self.eligible_time(Unit::Job(id)).map(|at| at.min(self.now));
        let mut job = (**job).clone();
        let limit = cut(&job.spec, self.limit_to_deadline(&job.spec, job.time_limit)?, line.limit);
        let attempt = job.last_attempt.next();
        let run = self.new_run(line.shares, line.partition, attempt, &job.spec);
        job.last_attempt = attempt;
        job.time_limit = limit;
        job.state = JobState::Running;
        job.reason = None;
        job.eligible_time = eligible;
        self.begin_run(&mut job, run);
        self.put_job(job);
        Ok(())
    }

    /// A run that begins now.
    fn new_run(
        &self,
        shares: Box<[NodeShare]>,
        partition: PartitionName,
        attempt: Attempt,
        spec: &JobSpec,
    ) -> Run {
        let mut run = Run {
            attempt,
            shares,
            lease: self.lease_in(&partition),
            partition,
            start_time: self.now,
            // Where nothing is launched, it runs at once.
            launched: spec.allocation.then_some(self.now),
            end_time: None,
            stage: if spec.allocation { RunStage::Launched } else { RunStage::Allocated },
            ended_by: None,
            end_state: None,
            exit: ExitCode::default(),
            usage: Usage::default(),
            end_reason: "".into(),
            billing: 0,
            usage_factor: self.usage_factor(spec),
            suspended_since: None,
            suspended_ms: 0,
            yields_to: None,
            checkpoint: None,
            ends_at: None,
            batch: if spec.allocation { BatchPart::None } else { BatchPart::Script },
            steps_warned: false,
            derived_exit: ExitCode::default(),
            gpus: Arc::default(),
            gpu_kill: None,
            hooks: self.config.hooks.for_run(),
            idle: None,
        };
        let held = Self::run_tres(&run, spec);
        run.billing = self.billing_of(&run.partition, &run.shares, &held);
        run
    }

    /// Checks a line against the request and the nodes as they are now.
    fn check_line(
        &self,
        line: &StartLine,
        (spec, who, asker): (&JobSpec, Applicant<'_>, Asker),
        limit: Walltime,
        used: &UsageCache,
    ) -> Result<(), Refusal> {
        let partition = self.partitions_of(spec).find(|partition| partition.name == line.partition);
        let partition =
            partition.ok_or(Refusal::StalePlan("the job does not ask for that partition"))?;
        if !partition.state.starts_jobs() {
            return Err(Refusal::StalePlan("the partition starts no jobs"));
        }
        if line.shares.is_empty() {
            return Err(Refusal::StalePlan("no node named"));
        }
        if !scheduler::shares_serve(self, partition, spec, asker, &line.shares) {
            return Err(Refusal::StalePlan("it no longer fits there"));
        }
        self.check_reserved((spec, who), partition, &line.shares, limit)?;
        let claim = self.claim(line.unit, &line.partition);
        let claim = claim.ok_or(Refusal::StalePlan("the job no longer waits"))?;
        let check = Check::new(self, self.now, used);
        let (tres, node) = self.amounts(&line.partition, &line.shares, spec);
        if check.before(&claim).and_then(|()| check.after(&claim, &tres, &node)).is_err() {
            return Err(Refusal::StalePlan("a limit is reached"));
        }
        Ok(())
    }

    /// How many tasks of an array hold resources.
    #[must_use]
    pub fn running_tasks(&self, base: JobId) -> u32 {
        self.task_counts(base).running
    }

    pub(super) fn report(
        &mut self,
        node: &NodeName,
        session: SessionId,
        report: AttemptReport,
    ) -> Result<Reply, Refusal> {
        let index = self.session_of(node, session)?;
        self.take_report(index, report);
        Ok(Reply::Done)
    }

    /// Takes what a node says of an attempt. What is not its business is acknowledged or ended, so
    /// that the node can forget it.
    pub(super) fn take_report(&mut self, node: NodeIndex, report: AttemptReport) {
        let AttemptReport { job: id, attempt, step, phase } = report;
        if let Some(number) = step.filter(|number| number.is_hook()) {
            self.take_hook_report(node, StepKey { job: id, attempt, number }, phase);
            return;
        }
        if let Some(number) = step {
            self.take_step_report(node, StepKey { job: id, attempt, number }, phase);
            return;
        }
        let answer = |kind| Effect::Order(node, Order { job: id, attempt, step: None, kind });
        let held = self.jobs.get(&id).filter(|job| {
            job.active_run()
                .is_some_and(|run| run.attempt == attempt && run.script_node() == Some(node))
        });
        let Some(job) = held.cloned() else {
            self.effects.push(answer(match phase {
                AttemptPhase::Running => OrderKind::Terminate(EndCause::NodeFail),
                AttemptPhase::Ended(_) | AttemptPhase::NeverStarted => OrderKind::Acknowledge,
            }));
            return;
        };
        match phase {
            AttemptPhase::Running => self.launched(&job),
            AttemptPhase::Ended(result) => {
                self.script_ended(&job, &result);
                self.effects.push(answer(OrderKind::Acknowledge));
            }
            AttemptPhase::NeverStarted => {
                self.script_never_started(&job);
                self.effects.push(answer(OrderKind::Acknowledge));
            }
        }
    }

    fn launched(&mut self, job: &Arc<Job>) {
        let Some(run) = job.active_run() else { return };
        if run.stage != RunStage::Allocated {
            return;
        }
        let mut job = (**job).clone();
        let mut run = (**run).clone();
        run.stage = RunStage::Launched;
        run.launched = Some(self.now);
        if run.suspended_since.is_some() {
            self.order(job.id, &run, OrderKind::Suspend);
        }
        job.run = Some(Arc::new(run));
        self.put_job(job);
    }

    /// The attempt never ran: the job waits again, or is over if that was wanted.
    pub(super) fn never_started(&mut self, mut job: Job) {
        let Some(run) = job.run.clone() else { return };
        match run.stage {
            RunStage::Ending(
                EndCause::Cancelled
                | EndCause::Preempted
                | EndCause::Deadline
                | EndCause::TimeLimit,
            ) => {
                self.end_run(job, &RunResult::default());
            }
            RunStage::Ending(EndCause::RequeueHold) => {
                job.hold = Hold::User;
                self.wait_again(job);
            }
            _ => self.wait_again(job),
        }
    }

    fn wait_again(&mut self, mut job: Job) {
        self.uncut_limit(&mut job);
        job.run = None;
        job.reason = None;
        job.state = JobState::Pending;
        job.eligible_time = None;
        job.not_before = self.now.plus_secs(RELAUNCH_DELAY_SECS);
        self.put_job(job);
    }

    /// A run is proven to have ended: what it held is free, and the job is over or waits again.
    pub(super) fn end_run(&mut self, mut job: Job, result: &RunResult) {
        let Some(run) = job.run.clone().filter(|run| run.holds_resources()) else { return };
        let cause = verdict(&job, &run, result, self.now);
        let mut run = (*run).clone();
        run.close_suspension(self.now);
        run.stage = RunStage::Ended;
        let hooks = run.hooks.take();
        let job_ended = hooks.as_ref().and_then(|hooks| hooks.job_ended).unwrap_or(self.now);
        run.end_time = Some(latest(Some(run.start_time), job_ended));
        run.usage = result.usage.clone();
        run.gpus = Arc::clone(&result.gpus);
        run.exit = result.exit;
        run.derived_exit = self.derived_exit(job.id, run.attempt);
        run.batch = if job.spec.allocation { BatchPart::None } else { BatchPart::Script };
        let told = end_reason(cause, result);
        if !told.is_empty() {
            run.end_reason = told;
        }
        self.note_busy(&run);
        let node_fault = cause == EndCause::LaunchFailed && result.node_fault;
        if let Some(node) = run.batch_node().filter(|_| node_fault) {
            self.note_launch_failure(job.id, node, &result.launch_error);
        }
        let own_fault = run.gpu_kill.as_ref().is_some_and(|kill| !kill.requeue);
        let requeue = match cause {
            EndCause::Requeue | EndCause::RequeueHold => Some(JobState::Pending),
            EndCause::PreemptedRequeue => Some(JobState::Preempted),
            EndCause::NodeFail if job.may_requeue() && !own_fault => Some(JobState::NodeFail),
            EndCause::LaunchFailed if node_fault && job.may_requeue() => Some(JobState::NodeFail),
            _ => None,
        };
        if let Some(state) = requeue {
            run.end_state = Some(state);
            job.run = Some(Arc::new(run));
            let id = job.id;
            self.back_to_pending(job, cause == EndCause::RequeueHold, Some(state));
            if cause == EndCause::RequeueHold && hooks.is_some_and(|hooks| hooks.failed) {
                self.held_after_prolog(id);
            }
            return;
        }
        let (mut state, exit, reason) = ending(cause, result);
        if own_fault && cause == EndCause::NodeFail {
            state = JobState::Failed;
        }
        run.end_state = Some(state);
        run.exit = exit;
        if job.cron.is_some() {
            job.run = Some(Arc::new(run));
            self.come_again(job);
            return;
        }
        job.state = state;
        // A budget that was used up is noted already.
        let limit = job.reason.filter(|known| known.is_limit() && cause == EndCause::TimeLimit);
        job.reason = limit.or(reason);
        job.end_time = run.end_time;
        job.run = Some(Arc::new(run));
        self.finish_array_task(&job, state == JobState::Completed);
        self.put_job(job);
    }

    fn note_busy(&mut self, run: &Run) {
        for share in &run.shares {
            if let Some(node) = self.nodes.get(share.node.get()) {
                let mut node = (**node).clone();
                node.last_busy = Some(self.now);
                self.set_node(share.node, node);
            }
        }
    }
}

/// The limit of a job that a plan starts with fewer seconds, as far as it agreed to that.
fn cut(spec: &JobSpec, limit: Walltime, planned: Option<u64>) -> Walltime {
    let planned = planned.map(Walltime::Limited);
    let agreed = planned.filter(|planned| spec.min_time.is_some_and(|least| least <= *planned));
    agreed.map_or(limit, |agreed| agreed.min(limit))
}

/// Why a run ended, from what was wanted and what the node saw.
pub(super) fn verdict(job: &Job, run: &Run, result: &RunResult, now: Timestamp) -> EndCause {
    if !result.launch_error.is_empty() && !matches!(run.stage, RunStage::Ending(_)) {
        return EndCause::LaunchFailed;
    }
    match run.stage {
        RunStage::Ending(cause) => cause,
        _ if result.lost => EndCause::NodeFail,
        _ if result.out_of_memory => EndCause::OutOfMemory,
        // Its limit was cut to its deadline.
        _ if result.time_limit && job.spec.deadline.is_some_and(|at| at <= now) => {
            EndCause::Deadline
        }
        _ if result.time_limit => EndCause::TimeLimit,
        _ if result.fenced => EndCause::NodeFail,
        // It was warned and took the warning for its end.
        _ if !result.exit.is_success() && run.ends_at.is_some() => {
            run.ends_at.map_or(EndCause::Exited, |(_, cause)| cause)
        }
        _ => EndCause::Exited,
    }
}

/// What went wrong, for people.
fn end_reason(cause: EndCause, result: &RunResult) -> Box<str> {
    let usage = &result.usage;
    match cause {
        EndCause::OutOfMemory if usage.memory_limit_bytes > 0 => {
            let peak = Mib::from_bytes_rounded_up(usage.peak_memory_bytes);
            let limit = Mib::from_bytes_rounded_up(usage.memory_limit_bytes);
            format!("used {peak} of memory, its limit is {limit}; ask for more by --mem").into()
        }
        EndCause::NodeFail if result.lost => {
            "its process was lost: the node restarted, or what watched the job was killed".into()
        }
        EndCause::NodeFail if result.fenced => {
            "its node was cut off from the controller until the job's lease was over".into()
        }
        _ => result.launch_error.clone(),
    }
}

/// State, exit code and reason of a job that ended for good.
fn ending(cause: EndCause, result: &RunResult) -> (JobState, ExitCode, Option<PendingReason>) {
    let none = ExitCode::default();
    match cause {
        EndCause::Cancelled => (JobState::Cancelled, none, None),
        EndCause::Preempted | EndCause::PreemptedRequeue => (JobState::Preempted, none, None),
        EndCause::Deadline => (JobState::Deadline, none, Some(PendingReason::DeadLine)),
        EndCause::TimeLimit => (JobState::Timeout, none, Some(PendingReason::TimeLimit)),
        EndCause::OutOfMemory => {
            (JobState::OutOfMemory, ExitCode::OUT_OF_MEMORY, Some(PendingReason::OutOfMemory))
        }
        EndCause::NodeFail | EndCause::Requeue | EndCause::RequeueHold => {
            (JobState::NodeFail, none, Some(PendingReason::NodeDown))
        }
        // Slurm's code for a job whose output could not be set up.
        EndCause::LaunchFailed => {
            (JobState::Failed, ExitCode::signaled(53), Some(PendingReason::JobLaunchFailure))
        }
        EndCause::Exited if result.exit.is_success() => (JobState::Completed, result.exit, None),
        EndCause::Exited => (JobState::Failed, result.exit, Some(PendingReason::NonZeroExitCode)),
    }
}
