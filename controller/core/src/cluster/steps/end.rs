//! How do steps end, and runs with them?

use std::sync::Arc;

use penstock_vocab::{ExitCode, JobId, JobState};

use super::super::Cluster;
use super::super::attempt::verdict;
use super::super::control::{allowed, within_one_command};
use crate::command::{Caller, Effect, OrderKind, Reply, SignalOrder};
use crate::model::{
    BatchPart, EndCause, Job, NodeIndex, Run, RunResult, RunStage, Step, StepKey, StepNumber,
};
use crate::refusal::Refusal;

impl Cluster {
    /// The step that a person means by its number: of the run that goes on.
    fn running_step(
        &self,
        caller: &Caller,
        id: JobId,
        number: StepNumber,
    ) -> Result<Arc<Step>, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::InvalidJobId(id))?;
        allowed(caller, job.uid.0, id)?;
        let attempt = job.last_attempt;
        let step = self.step(StepKey { job: id, attempt, number });
        let step = step.ok_or(Refusal::InvalidStep(id, number))?;
        if !step.is_live() {
            return Err(Refusal::AlreadyDone(id));
        }
        Ok(Arc::clone(step))
    }

    /// Ends a step by somebody's wish.
    pub(in super::super) fn cancel_step(
        &mut self,
        caller: &Caller,
        id: JobId,
        number: StepNumber,
    ) -> Result<(), Refusal> {
        let step = self.running_step(caller, id, number)?;
        if step.ending.is_some() {
            // Said once more: the node may not have heard it.
            self.order_step(&step, OrderKind::Terminate(EndCause::Cancelled));
            return Ok(());
        }
        let mut step = (*step).clone();
        step.ended_by = Some(caller.uid);
        self.end_step_soon(step, EndCause::Cancelled);
        Ok(())
    }

    /// Sends a signal to the tasks of a step.
    pub(in super::super) fn signal_step(
        &mut self,
        caller: &Caller,
        id: JobId,
        number: StepNumber,
        signal: SignalOrder,
    ) -> Result<(), Refusal> {
        let step = self.running_step(caller, id, number)?;
        self.order_step(&step, OrderKind::Signal(signal));
        Ok(())
    }

    /// Marks a step as ending and tells its nodes so.
    fn end_step_soon(&mut self, mut step: Step, cause: EndCause) {
        step.ending = Some(cause);
        self.order_step(&step, OrderKind::Terminate(cause));
        self.put_step(step);
    }

    /// Ends the steps with a part on a node that failed, but for those that go on without it.
    pub(in super::super) fn end_steps_of_node(&mut self, job: JobId, node: NodeIndex) {
        for step in self.steps_on(job, node) {
            if !step.spec.no_kill && step.ending.is_none() {
                self.end_step_soon((*step).clone(), EndCause::NodeFail);
            }
        }
    }

    /// The batch script of a run is proven to have ended. Where steps still run they are ended first. One
    /// that was refused because its slices are others by now did not begin, and is nobody's fault.
    pub(in super::super) fn script_ended(&mut self, job: &Arc<Job>, result: &RunResult) {
        let Some(run) = job.active_run() else { return };
        if result.devices_changed {
            let text = format!("job {} is planned anew: {}", job.id, result.launch_error);
            self.effects.push(Effect::Warn(text.into()));
            self.script_never_started(job);
            return;
        }
        if !self.has_live_steps(job.id) && run.hooks.is_none() {
            self.end_run((**job).clone(), result);
            return;
        }
        let cause = verdict(job, run, result, self.now);
        self.script_is_over(job, run, BatchPart::Ended(Box::new(result.clone())), cause);
    }

    /// The batch script of a run never started and never will. As above.
    pub(in super::super) fn script_never_started(&mut self, job: &Arc<Job>) {
        let Some(run) = job.active_run() else { return };
        if !self.has_live_steps(job.id) && run.hooks.is_none() {
            self.never_started((**job).clone());
            return;
        }
        self.script_is_over(job, run, BatchPart::NeverStarted, EndCause::Requeue);
    }

    /// Steps of a run go the way of its batch script.
    pub(in super::super) fn script_is_over(
        &mut self,
        job: &Job,
        run: &Run,
        batch: BatchPart,
        cause: EndCause,
    ) {
        let mut job = job.clone();
        let mut run = run.clone();
        run.batch = batch;
        if !run.is_ending() {
            run.stage = RunStage::Ending(cause);
            self.stop_prolog(job.id, &mut run);
            self.order_steps(job.id, OrderKind::Terminate(cause));
        }
        job.run = Some(Arc::new(run));
        self.settling.push(job.id);
        self.put_job(job);
    }

    /// Whoever held a job without a script lets it go. One that waits is cancelled by that.
    pub(in super::super) fn release_job(
        &mut self,
        caller: &Caller,
        id: JobId,
        exit: ExitCode,
    ) -> Result<Reply, Refusal> {
        let job = self.jobs.get(&id).cloned().ok_or(Refusal::InvalidJobId(id))?;
        allowed(caller, job.uid.0, id)?;
        if !job.spec.allocation {
            return Err(Refusal::NotAnAllocation(id));
        }
        let Some(run) = job.active_run() else {
            return self.cancel_job(caller, &job).map(|()| Reply::Done);
        };
        let held = !run.is_ending() && run.batch == BatchPart::None;
        if held {
            let result = RunResult { exit, ..RunResult::default() };
            let batch = BatchPart::Ended(Box::new(result));
            self.script_is_over(&job, run, batch, EndCause::Exited);
        }
        Ok(Reply::Done)
    }

    /// Cancels jobs without a script that nobody holds.
    pub(in super::super) fn abandoned(&mut self, jobs: &[JobId]) -> Result<Reply, Refusal> {
        within_one_command(jobs.len() as u64)?;
        for id in jobs {
            let Some(job) = self.jobs.get(id).cloned() else { continue };
            if job.is_over() || !job.spec.allocation {
                continue;
            }
            let mut job = (*job).clone();
            match job.active_run().cloned() {
                Some(run) if run.is_ending() => continue,
                Some(run) => {
                    job.state = JobState::Cancelled;
                    self.end_run_soon(&mut job, &run, EndCause::Cancelled);
                }
                None => {
                    job.state = JobState::Cancelled;
                    job.end_time = Some(self.now);
                    job.reason = None;
                }
            }
            self.put_job(job);
        }
        Ok(Reply::Done)
    }

    /// Ends the runs that shall end and of which nothing is left on any node.
    pub(in super::super) fn finish_ended_runs(&mut self) {
        for id in std::mem::take(&mut self.settling) {
            let Some(job) = self.jobs.get(&id).cloned() else { continue };
            self.leave_prolog(&job);
            let Some(run) = job.active_run().filter(|run| run.is_ending()) else { continue };
            if self.has_live_steps(id) || run.has_busy_hooks() {
                continue;
            }
            if run.batch != BatchPart::Script && self.begin_epilog(&job) {
                continue;
            }
            // What the epilog changed of the record stays behind: it says when the job ended.
            let Some(job) = self.jobs.get(&id).cloned() else { continue };
            let Some(run) = job.active_run() else { continue };
            match &run.batch {
                BatchPart::Script => {}
                BatchPart::None => self.end_run((*job).clone(), &RunResult::default()),
                BatchPart::Ended(result) => self.end_run((*job).clone(), result),
                BatchPart::NeverStarted => self.never_started((*job).clone()),
            }
        }
    }
}
