//! How do the tasks of an array live in its one record, and how do they leave it?

use std::sync::Arc;

use penstock_vocab::{ArrayTaskId, Attempt, IndexSet, JobId, JobState};

use super::Cluster;
use crate::model::{Array, ArrayTask, Job};

/// Runs of the sets of failed and cancelled tasks beyond which the oldest are no longer listed, so
/// that a record that is written at every end of a task stays within some KiB.
const MAX_LISTED_RUNS: usize = 512;
/// The same while somebody waits for the array: its tasks may be asked for one by one.
const MAX_NAMED_RUNS: usize = 8_192;

impl Cluster {
    /// Makes a waiting array task a job of its own; the last one keeps the base id.
    pub(super) fn split_task(&mut self, base: JobId, index: u32) -> Option<JobId> {
        let array = self.arrays.get(&base)?;
        if !array.pending.contains(index) {
            return None;
        }
        let mut array = (**array).clone();
        let hold = array.hold_of(index);
        array.pending.remove(index);
        array.held.remove(index);
        array.held_by_admin.remove(index);
        let id = if array.pending.is_empty() && !self.jobs.contains_key(&base) {
            base
        } else {
            self.next_id()
        };
        let job = Job {
            id,
            uid: array.uid,
            gid: array.gid,
            assoc: array.assoc,
            spec: Arc::clone(&array.spec),
            state: JobState::Pending,
            submit_time: array.submit_time,
            eligible_time: None,
            hold,
            restarts: 0,
            run: None,
            earlier_runs: Vec::new(),
            array: Some(ArrayTask { base, index: ArrayTaskId(index), summary: array.summary }),
            fixed_priority: array.fixed_priority,
            end_time: None,
            cancelled_by: None,
            not_before: array.not_before,
            last_attempt: Attempt(0),
            reason: array.reason,
            time_limit: array.time_limit,
            limit_serial: 0,
            cron: None,
        };
        // The job first: an array without waiting tasks is over when no job of it is left.
        self.put_job(job);
        self.put_array(array);
        Some(id)
    }

    /// Counts a task's end in its array's record.
    pub(super) fn finish_array_task(&mut self, job: &Job, ok: bool) {
        let Some(task) = job.array.filter(|_| job.is_over()) else { return };
        let Some(array) = self.arrays.get(&task.base) else { return };
        let mut array = (**array).clone();
        if ok {
            array.completed = array.completed.saturating_add(1);
        } else if job.run.is_none() && job.earlier_runs.is_empty() {
            array.cancelled.insert(task.index.0);
        } else {
            array.failed.insert(task.index.0);
        }
        array.last_end = array.last_end.max(job.end_time);
        self.shorten_outcomes(&mut array);
        self.put_array(array);
    }

    /// A task that had ended waits again.
    pub(super) fn unfinish_array_task(&mut self, job: &Job) {
        let Some(task) = job.array else { return };
        let Some(array) = self.arrays.get(&task.base) else { return };
        let mut array = (**array).clone();
        if job.state == JobState::Completed {
            array.completed = array.completed.saturating_sub(1);
        } else if !array.failed.remove(task.index.0) && !array.cancelled.remove(task.index.0) {
            array.unlisted = array.unlisted.saturating_sub(1);
        }
        self.put_array(array);
    }

    /// Cuts the lists of failed and cancelled tasks where they are scattered over too many runs.
    fn shorten_outcomes(&self, array: &mut Array) {
        let named = self.index.dependents.contains_key(&array.id);
        let most = if named { MAX_NAMED_RUNS } else { MAX_LISTED_RUNS };
        for list in [&mut array.failed, &mut array.cancelled] {
            let runs = list.ranges();
            if runs.len() > most {
                let kept = IndexSet::from_runs(runs.iter().skip(most / 2).copied());
                let gone = list.len().saturating_sub(kept.len());
                let gone = u32::try_from(gone).unwrap_or(u32::MAX);
                array.unlisted = array.unlisted.saturating_add(gone);
                *list = kept;
            }
        }
    }
}
