//! What comes to a job by the clock alone?
//!
//! A waiting job that could no longer end by its deadline is cancelled, a running one ends at the
//! deadline, and one that was warned ends when its grace is over. When that is follows from the
//! record, so that a restart changes nothing.

use std::sync::Arc;

use penstock_vocab::{JobState, PendingReason, Timestamp, Walltime};

use super::Cluster;
use crate::command::Unit;
use crate::model::{Array, EndCause, Job, JobSpec, RunStage};
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
    warned.into_iter().chain(job.spec.deadline).min()
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
            let warned = run.ends_at.filter(|(at, _)| *at <= self.now);
            let cause = warned.map_or(EndCause::Deadline, |(_, cause)| cause);
            self.end_run_soon(&mut job, &run, cause);
        } else {
            job.state = JobState::Deadline;
            job.end_time = Some(self.now);
            job.reason = Some(PendingReason::DeadLine);
            self.finish_array_task(&job, false);
        }
        self.put_job(job);
    }
}
