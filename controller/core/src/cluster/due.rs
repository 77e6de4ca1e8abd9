//! What comes to a job by the clock alone?
//!
//! A waiting job that could no longer end by its deadline is cancelled, a running one ends at the
//! deadline, and one that was warned ends when its grace is over. When that is follows from the
//! record, so that a restart changes nothing.

use std::sync::Arc;

use penstock_vocab::{JobState, Millis, PendingReason, Timestamp, Walltime};

use super::Cluster;
use crate::command::{OrderKind, SignalOrder, Unit};
use crate::model::{Array, EndCause, Job, JobSpec, Run, RunStage};
use crate::refusal::Refusal;

/// Jobs that one `Tick` ends by the clock, so that it stays within one commit.
const ENDED_PER_TICK: usize = 20;

/// When the clock does something to a job, if nobody else does first.
pub(super) fn due_of_job(job: &Job) -> Option<Timestamp> {
    if job.is_pending() {
        return too_late(&job.spec, job.time_limit);
    }
    let run = job.active_run().filter(|run| !matches!(run.stage, RunStage::Ending(_)))?;
    let warned = run.ends_at.map(|(at, _)| at);
    // Its time counts from the end of its prolog.
    let by_limit = limit_ends(job, run).filter(|_| job.spec.allocation && !run.is_configuring());
    let times = warned.into_iter().chain(job.spec.deadline).chain(by_limit);
    times.chain(steps_warning(job, run)).min()
}

/// When the time limit of a run is over. One that stands still does not come nearer to it. Where there
/// is a batch script, its node counts and not the clock here.
fn limit_ends(job: &Job, run: &Run) -> Option<Timestamp> {
    let limit = job.time_limit.as_secs().filter(|_| run.suspended_since.is_none())?;
    Some(run.start_time.plus_secs(limit).plus(Millis(run.suspended_ms)))
}

/// When the steps of a run are to have the signal ahead of its time limit. Its batch script has it from
/// its own node.
fn steps_warning(job: &Job, run: &Run) -> Option<Timestamp> {
    let signal = job.spec.signal.filter(|signal| !signal.batch_only && !run.steps_warned)?;
    if run.is_configuring() {
        return None;
    }
    Some(limit_ends(job, run)?.minus_secs(u64::from(signal.seconds_before)))
}

pub(super) fn due_of_array(array: &Array) -> Option<Timestamp> {
    if array.pending.is_empty() {
        return None;
    }
    too_late(&array.spec, array.time_limit)
}

/// From when on a job that did not start can't end by its deadline.
fn too_late(spec: &JobSpec, limit: Walltime) -> Option<Timestamp> {
    let deadline = spec.deadline?;
    // Without a limit it would be cut to what is left, whatever that is.
    let least = spec.min_time.map_or(limit, |least| least.min(limit)).as_secs().unwrap_or(1);
    Some(Timestamp(deadline.minus_secs(least).0.saturating_add(1)))
}

impl Cluster {
    /// Refuses a deadline that a job can't meet even if it starts as soon as it may.
    pub(super) fn check_deadline(&self, spec: &JobSpec, limit: Walltime) -> Result<(), Refusal> {
        let start = self.now.max(spec.begin_time);
        match (too_late(spec, limit), spec.deadline) {
            (Some(late), Some(deadline)) if start >= late => {
                let left = Walltime::Limited(deadline.since(start).as_secs().max(1));
                let least = spec.min_time.map_or(limit, |least| least.min(limit));
                Err(Refusal::DeadlineTooEarly(
                    if deadline <= start {
                        "the deadline has passed when the job may first start".into()
                    } else {
                        format!(
                            "from the earliest start to the deadline there are {left}, the job asks \
                             for {least}; give less by --time or --time-min"
                        )
                    }
                    .into(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// The limit of a job that starts now: no longer than to its deadline.
    pub(super) fn limit_to_deadline(
        &self,
        spec: &JobSpec,
        limit: Walltime,
    ) -> Result<Walltime, Refusal> {
        let Some(deadline) = spec.deadline else { return Ok(limit) };
        if too_late(spec, limit).is_some_and(|late| self.now >= late) {
            return Err(Refusal::StalePlan("the job can no longer end by its deadline"));
        }
        let left = Walltime::Limited(deadline.since(self.now).as_secs().max(1));
        Ok(limit.min(left))
    }

    /// A job that waits again has the limit that it had before a deadline cut it.
    pub(super) fn uncut_limit(&self, job: &mut Job) {
        if job.spec.deadline.is_some() && job.limit_serial == 0 {
            job.time_limit = self.limit_for(&job.spec);
        }
    }

    /// Ends what the clock ends.
    pub(super) fn end_due(&mut self) {
        let due: Vec<_> = self
            .index
            .due
            .iter()
            .take_while(|(at, _)| *at <= self.now)
            .take(ENDED_PER_TICK)
            .map(|(_, unit)| *unit)
            .collect();
        for unit in due {
            match unit {
                Unit::Job(id) => {
                    if let Some(job) = self.jobs.get(&id).cloned() {
                        self.end_due_job(&job);
                    }
                }
                Unit::Array(id) => {
                    let Some(array) = self.arrays.get(&id) else { continue };
                    let mut array = (**array).clone();
                    let gone = std::mem::take(&mut array.pending);
                    array.reason = Some(PendingReason::DeadLine);
                    self.drop_waiting(array.uid, array, &gone);
                }
            }
        }
    }

    fn end_due_job(&mut self, job: &Arc<Job>) {
        let mut job = (**job).clone();
        if let Some(run) = job.active_run().cloned() {
            let over = |at: Option<Timestamp>| at.is_some_and(|at| at <= self.now);
            let limit =
                limit_ends(&job, &run).filter(|_| job.spec.allocation && !run.is_configuring());
            let cause = match run.ends_at {
                Some((at, cause)) if at <= self.now => Some(cause),
                _ if over(job.spec.deadline) => Some(EndCause::Deadline),
                _ => over(limit).then_some(EndCause::TimeLimit),
            };
            match cause {
                Some(cause) => self.end_run_soon(&mut job, &run, cause),
                None => self.warn_steps(&mut job, &run),
            }
        } else {
            job.state = JobState::Deadline;
            job.end_time = Some(self.now);
            job.reason = Some(PendingReason::DeadLine);
            self.finish_array_task(&job, false);
        }
        self.put_job(job);
    }

    /// The time limit comes near: the steps of a run hear it, as the job asked.
    fn warn_steps(&mut self, job: &mut Job, run: &Run) {
        if let Some(signal) = job.spec.signal {
            let order = SignalOrder { signal: signal.signal, batch_only: false, full: true };
            self.order_steps(job.id, OrderKind::Signal(order));
        }
        job.run = Some(Arc::new(Run { steps_warned: true, ..run.clone() }));
    }
}
