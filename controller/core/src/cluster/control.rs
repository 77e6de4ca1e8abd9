//! What becomes of jobs that people cancel, hold, release or requeue?

use std::sync::Arc;

use penstock_vocab::{ArrayTaskId, IndexSet, JobId, JobState, PendingReason, Timestamp, UserId};

use super::Cluster;
use super::dependency::DependencyState;
use crate::command::{
    Caller, MAX_TARGETS, OrderKind, Reply, SignalOrder, Target, TargetResult, Unit,
};
use crate::model::{Array, BatchPart, EndCause, Hold, Job, Run, RunStage};
use crate::refusal::{Malformed, Refusal};

/// Changes of records after which a command takes no further target; a store's bound on one commit
/// leaves room for twice as many.
pub(super) const MAX_CHANGES: usize = 100;
/// Units without hope that one `Tick` cancels.
const DOOMED_PER_TICK: usize = 20;

impl Cluster {
    pub(super) fn cancel(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
    ) -> Result<Reply, Refusal> {
        self.each(targets, |cluster, target| cluster.cancel_one(caller, target))
    }

    pub(super) fn cancel_one(&mut self, caller: &Caller, target: &Target) -> Result<(), Refusal> {
        match target {
            Target::Id(id) => self.cancel_id(caller, *id),
            Target::Job(id) => {
                let job = self.jobs.get(id).cloned().ok_or(Refusal::InvalidJobId(*id))?;
                self.cancel_job(caller, &job)
            }
            Target::Waiting(base) => {
                let array = self.arrays.get(base).ok_or(Refusal::InvalidJobId(*base))?;
                let pending = array.pending.clone();
                self.cancel_tasks(caller, *base, &pending)
            }
            Target::Tasks(base, tasks) => self.cancel_tasks(caller, *base, tasks),
            Target::Step(id, number) => self.cancel_step(caller, *id, *number),
        }
    }

    /// Cancels a job, or what waits of an array. Tasks that started are jobs of their own, for which
    /// the caller names them: there may be more than one command takes.
    fn cancel_id(&mut self, caller: &Caller, id: JobId) -> Result<(), Refusal> {
        let mut found = false;
        let array = self.arrays.get(&id).cloned();
        if let Some(array) = &array {
            allowed(caller, array.uid.0, id)?;
            found = !array.pending.is_empty() || self.task_counts(id).unfinished > 0;
            if !array.pending.is_empty() {
                let mut array = (**array).clone();
                let gone = std::mem::take(&mut array.pending);
                self.drop_waiting(caller.uid, array, &gone);
            }
        }
        match self.jobs.get(&id).cloned().map(|job| self.cancel_job(caller, &job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None if found => Ok(()),
            Some(Err(refusal)) => Err(refusal),
            None if array.is_some() => Err(Refusal::AlreadyDone(id)),
            None => Err(Refusal::InvalidJobId(id)),
        }
    }

    /// Takes waiting tasks out of an array. Those that started are left to the caller, as above.
    fn cancel_tasks(
        &mut self,
        caller: &Caller,
        base: JobId,
        tasks: &IndexSet,
    ) -> Result<(), Refusal> {
        let array = self.arrays.get(&base).cloned().ok_or(Refusal::InvalidJobId(base))?;
        allowed(caller, array.uid.0, base)?;
        let gone = array.pending.intersection(tasks);
        if gone.is_empty() {
            let started = self.records_of(base, tasks);
            let live = started.iter().any(|job| !job.is_over());
            return if live { Ok(()) } else { Err(Refusal::AlreadyDone(base)) };
        }
        let mut array = (*array).clone();
        array.pending = array.pending.difference(&gone);
        self.drop_waiting(caller.uid, array, &gone);
        Ok(())
    }

    /// Stores an array whose tasks `gone` no longer wait, taken out by this user.
    pub(super) fn drop_waiting(&mut self, by: UserId, mut array: Array, gone: &IndexSet) {
        array.drop_stale_holds();
        array.cancelled = array.cancelled.union(gone);
        array.cancelled_at = Some((self.now, by));
        self.put_array(array);
    }

    pub(super) fn cancel_job(&mut self, caller: &Caller, job: &Arc<Job>) -> Result<(), Refusal> {
        allowed(caller, job.uid.0, job.id)?;
        // What has ended and still completes is over for whoever would cancel it.
        let ended = |run: &Arc<Run>| matches!(run.batch, BatchPart::Ended(_)) && run.is_ending();
        if job.is_over() || job.active_run().is_some_and(ended) {
            return Err(Refusal::AlreadyDone(job.id));
        }
        if job.cron.is_some() {
            return Err(Refusal::CronWithoutWord(job.id));
        }
        let mut job = (**job).clone();
        job.state = JobState::Cancelled;
        job.cancelled_by = Some(caller.uid);
        match job.active_run().cloned() {
            Some(run) => self.end_run_soon(&mut job, &run, EndCause::Cancelled),
            None => {
                job.end_time = Some(self.now);
                job.reason = None;
            }
        }
        self.finish_array_task(&job, false);
        self.put_job(job);
        Ok(())
    }

    /// Marks a run as ending and tells its nodes so.
    pub(super) fn end_run_soon(&mut self, job: &mut Job, run: &Arc<Run>, cause: EndCause) {
        let mut run = (**run).clone();
        run.stage = RunStage::Ending(cause);
        run.ended_by = job.cancelled_by;
        self.stop_prolog(job.id, &mut run);
        self.order_all(job.id, &run, OrderKind::Terminate(cause));
        job.run = Some(Arc::new(run));
        self.settling.push(job.id);
    }

    pub(super) fn signal(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
        signal: SignalOrder,
    ) -> Result<Reply, Refusal> {
        self.each(targets, |cluster, target| {
            if let Target::Step(id, number) = target {
                return cluster.signal_step(caller, *id, *number, signal);
            }
            for job in cluster.jobs_of(target)? {
                allowed(caller, job.uid.0, job.id)?;
                let run = job.active_run().ok_or(Refusal::NotRunning(job.id))?;
                cluster.order_all(job.id, run, OrderKind::Signal(signal));
            }
            Ok(())
        })
    }

    pub(super) fn requeue(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
        hold: bool,
    ) -> Result<Reply, Refusal> {
        self.each(targets, |cluster, target| {
            let jobs = cluster.jobs_of(target)?;
            if jobs.len() > MAX_TARGETS {
                return Err(Refusal::TooManyItems { got: jobs.len(), limit: MAX_TARGETS });
            }
            for job in jobs {
                allowed(caller, job.uid.0, job.id)?;
                cluster.requeue_job(&job, hold)?;
            }
            Ok(())
        })
    }

    fn requeue_job(&mut self, job: &Arc<Job>, hold: bool) -> Result<(), Refusal> {
        if job.is_pending() {
            return Err(Refusal::NotRunning(job.id));
        }
        if !job.may_requeue() {
            return Err(Refusal::RequeueDisabled(job.id));
        }
        let mut job = (**job).clone();
        match job.active_run().cloned() {
            Some(run) => {
                let cause = if hold { EndCause::RequeueHold } else { EndCause::Requeue };
                // A cancel that is under way is taken back by this.
                job.state = JobState::Running;
                job.cancelled_by = None;
                self.end_run_soon(&mut job, &run, cause);
                self.put_job(job);
            }
            None => {
                self.unfinish_array_task(&job);
                self.back_to_pending(job, hold, None);
            }
        }
        Ok(())
    }

    /// Makes a job wait again; its run becomes one of the earlier ones.
    pub(super) fn back_to_pending(&mut self, mut job: Job, hold: bool, state: Option<JobState>) {
        if let Some(run) = job.run.take() {
            let mut run = (*run).clone();
            run.end_state = state.or(run.end_state);
            job.earlier_runs.push(Arc::new(run));
        }
        job.state = JobState::Pending;
        job.restarts = job.restarts.saturating_add(1);
        job.end_time = None;
        job.cancelled_by = None;
        job.eligible_time = None;
        job.reason = None;
        self.uncut_limit(&mut job);
        job.not_before = self.now.plus_secs(u64::from(self.config.policy.requeue_delay_secs));
        if hold {
            job.hold = Hold::User;
        } else if job.restarts > self.config.policy.max_requeues {
            job.hold = Hold::Admin;
            job.reason = Some(PendingReason::JobHoldMaxRequeue);
        }
        self.put_job(job);
    }

    /// Runs `act` on each target; a refusal concerns its target alone, of which nothing is changed.
    pub(super) fn each(
        &mut self,
        targets: Vec<Target>,
        mut act: impl FnMut(&mut Self, &Target) -> Result<(), Refusal>,
    ) -> Result<Reply, Refusal> {
        if targets.len() > MAX_TARGETS {
            return Err(Refusal::TooManyItems { got: targets.len(), limit: MAX_TARGETS });
        }
        let got = targets.len();
        let mut results = Vec::with_capacity(got);
        for target in targets {
            let mut next = self.clone();
            let mut refusal = act(&mut next, &target).err();
            if next.changed.len() > MAX_CHANGES && !self.changed.is_empty() {
                refusal = Some(Refusal::TooManyItems { got, limit: results.len() });
            }
            if refusal.is_none() {
                *self = next;
            }
            results.push(TargetResult { target, refusal });
        }
        Ok(Reply::Targets(results))
    }

    /// Jobs that a target stands for: of a whole array the tasks that run.
    pub(super) fn jobs_of(&self, target: &Target) -> Result<Vec<Arc<Job>>, Refusal> {
        let jobs: Vec<_> = match target {
            Target::Id(id) if self.arrays.contains_key(id) => {
                self.tasks_of(*id).filter(|job| job.active_run().is_some()).cloned().collect()
            }
            Target::Id(id) | Target::Job(id) => {
                vec![self.jobs.get(id).cloned().ok_or(Refusal::InvalidJobId(*id))?]
            }
            Target::Waiting(_) => Vec::new(),
            Target::Tasks(base, tasks) => self.records_of(*base, tasks),
            Target::Step(id, _) => return Err(only_jobs(*id)),
        };
        match target {
            _ if !jobs.is_empty() => Ok(jobs),
            Target::Id(id) | Target::Job(id) | Target::Waiting(id) | Target::Step(id, _) => {
                Err(Refusal::NotRunning(*id))
            }
            Target::Tasks(base, tasks) => {
                let array = self.arrays.get(base).ok_or(Refusal::InvalidJobId(*base))?;
                let waits = !array.pending.intersection(tasks).is_empty();
                Err(if waits { Refusal::NotRunning(*base) } else { Refusal::InvalidJobId(*base) })
            }
        }
    }

    /// Job records of some tasks of an array.
    pub(super) fn records_of(&self, base: JobId, tasks: &IndexSet) -> Vec<Arc<Job>> {
        if tasks.len() <= u64::from(self.task_counts(base).records) {
            let id = |index| self.index.tasks.get(&(base, ArrayTaskId(index)));
            tasks.iter().filter_map(id).filter_map(|id| self.jobs.get(id)).cloned().collect()
        } else {
            let named = |job: &&Arc<Job>| job.array.is_some_and(|t| tasks.contains(t.index.0));
            self.tasks_of(base).filter(named).cloned().collect()
        }
    }

    /// Changes every record that a target names: whole arrays in their one record, single waiting
    /// tasks as jobs of their own. `pending_only`: what does not wait can't be changed so.
    pub(super) fn change(
        &mut self,
        caller: &Caller,
        target: &Target,
        pending_only: bool,
        mut job_change: impl FnMut(&mut Job) -> Result<(), Refusal>,
        mut array_change: impl FnMut(&mut Array) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut found = false;
        if let Target::Id(id) | Target::Waiting(id) = target
            && let Some(array) = self.arrays.get(id).filter(|array| !array.pending.is_empty())
        {
            allowed(caller, array.uid.0, *id)?;
            let mut array = (**array).clone();
            array_change(&mut array)?;
            self.put_array(array);
            found = true;
        }
        let mut refused = None;
        for job in self.split_for(caller, target, pending_only)? {
            allowed(caller, job.uid.0, job.id)?;
            let mut job = (*job).clone();
            match job_change(&mut job) {
                Ok(()) => {
                    self.put_job(job);
                    found = true;
                }
                // Tasks that run or ended are no obstacle to changing the rest.
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        if found {
            Ok(())
        } else {
            Err(refused.unwrap_or_else(|| Refusal::InvalidJobId(target.id())))
        }
    }

    /// The job records that a change of `target` concerns; waiting tasks that it names are made jobs.
    fn split_for(
        &mut self,
        caller: &Caller,
        target: &Target,
        pending_only: bool,
    ) -> Result<Vec<Arc<Job>>, Refusal> {
        let jobs = match target {
            Target::Waiting(_) => return Ok(Vec::new()),
            Target::Step(id, _) => return Err(only_jobs(*id)),
            Target::Tasks(base, tasks) => {
                let array = self.arrays.get(base).ok_or(Refusal::InvalidJobId(*base))?;
                allowed(caller, array.uid.0, *base)?;
                let split = array.pending.intersection(tasks);
                within_one_command(split.len())?;
                for index in split.iter() {
                    self.split_task(*base, index);
                }
                self.records_of(*base, tasks)
            }
            Target::Id(id) if self.arrays.contains_key(id) => {
                let counts = self.task_counts(*id);
                let wanted = if pending_only { counts.pending } else { counts.unfinished };
                if wanted == 0 {
                    return Ok(Vec::new());
                }
                let fits = |job: &&Arc<Job>| !job.is_over() && (!pending_only || job.is_pending());
                self.tasks_of(*id).filter(fits).cloned().collect()
            }
            Target::Id(id) | Target::Job(id) => {
                vec![self.jobs.get(id).cloned().ok_or(Refusal::InvalidJobId(*id))?]
            }
        };
        within_one_command(jobs.len() as u64)?;
        Ok(jobs)
    }

    /// Cancels what waits for something that can never come, where it asked for that.
    pub(super) fn end_doomed(&mut self) {
        let doomed: Vec<_> = self.index.doomed.iter().copied().take(DOOMED_PER_TICK).collect();
        for unit in doomed {
            match unit {
                Unit::Job(id) => {
                    let Some(job) = self.jobs.get(&id) else { continue };
                    let mut job = (**job).clone();
                    job.state = JobState::Cancelled;
                    job.end_time = Some(self.now);
                    job.reason = Some(PendingReason::DependencyNeverSatisfied);
                    self.finish_array_task(&job, false);
                    self.put_job(job);
                }
                Unit::Array(id) => {
                    let Some(array) = self.arrays.get(&id) else { continue };
                    let mut array = (**array).clone();
                    let gate = self.array_gate(&array);
                    let gone = match gate.state {
                        DependencyState::Never => std::mem::take(&mut array.pending),
                        _ => gate.never.intersection(&array.pending),
                    };
                    array.pending = array.pending.difference(&gone);
                    self.drop_waiting(array.uid, array, &gone);
                }
            }
        }
    }
}

impl Target {
    /// The number in it.
    #[must_use]
    pub fn id(&self) -> JobId {
        match self {
            Self::Id(id)
            | Self::Job(id)
            | Self::Waiting(id)
            | Self::Tasks(id, _)
            | Self::Step(id, _) => *id,
        }
    }
}

/// A step was named where only whole jobs can be changed.
fn only_jobs(job: JobId) -> Refusal {
    let detail = format!("this can be done to whole jobs only; name job {job} without a step");
    Refusal::Malformed { what: Malformed::Other, detail: detail.into() }
}

pub(super) fn within_one_command(got: u64) -> Result<(), Refusal> {
    let got = usize::try_from(got).unwrap_or(usize::MAX);
    if got > MAX_TARGETS {
        return Err(Refusal::TooManyItems { got, limit: MAX_TARGETS });
    }
    Ok(())
}

/// Whether the caller may change this job.
pub(super) fn allowed(caller: &Caller, owner: u32, job: JobId) -> Result<(), Refusal> {
    if caller.admin || caller.uid.0 == owner {
        return Ok(());
    }
    let text = format!("job {job} belongs to uid {owner}; you are uid {}", caller.uid);
    Err(Refusal::AccessDenied(text.into()))
}

/// The later of two times.
pub(super) fn latest(a: Option<Timestamp>, b: Timestamp) -> Timestamp {
    a.map_or(b, |a| a.max(b))
}
