//! Who holds which jobs back?
//!
//! A whole array is held in its record, and so are ranges of its tasks: a few tasks become records
//! of their own, as Slurm has it, more of them a set in the array's record.

use std::sync::Arc;

use penstock_vocab::{IndexSet, JobId, Timestamp};

use super::Cluster;
use super::control::{allowed, within_one_command};
use crate::command::{Caller, MAX_TARGETS, Reply, Target};
use crate::model::{Array, Hold, Job};
use crate::refusal::Refusal;

impl Cluster {
    pub(super) fn set_hold(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
        hold: Hold,
    ) -> Result<Reply, Refusal> {
        let now = self.now;
        self.each(targets, |cluster, target| match target {
            Target::Tasks(base, tasks) => cluster.hold_tasks(caller, *base, tasks, hold),
            Target::Id(_) | Target::Job(_) | Target::Waiting(_) | Target::Step(..) => cluster
                .change(
                    caller,
                    target,
                    true,
                    |job| hold_job(caller, job, hold, now),
                    |array| hold_array(caller, array, hold, now),
                ),
        })
    }

    fn hold_tasks(
        &mut self,
        caller: &Caller,
        base: JobId,
        tasks: &IndexSet,
        hold: Hold,
    ) -> Result<(), Refusal> {
        let array = self.arrays.get(&base).ok_or(Refusal::InvalidJobId(base))?;
        allowed(caller, array.uid.0, base)?;
        let waiting = array.pending.intersection(tasks);
        let mut records = self.waiting_records(base, tasks);
        let few = waiting.len() <= MAX_TARGETS as u64;
        let makes_records = few && (hold != Hold::None || array.hold != Hold::None);
        within_one_command(records.len() as u64)?;
        if waiting.is_empty() && records.is_empty() {
            return Err(self.not_waiting(base, tasks));
        }
        if makes_records {
            within_one_command(waiting.len().saturating_add(records.len() as u64))?;
            for index in waiting.iter() {
                let id = self.split_task(base, index);
                records.extend(id.and_then(|id| self.jobs.get(&id)).cloned());
            }
        } else if !waiting.is_empty() {
            let mut array = (**array).clone();
            hold_within(caller, &mut array, &waiting, hold)?;
            self.put_array(array);
        }
        for job in records {
            let mut job = (*job).clone();
            hold_job(caller, &mut job, hold, self.now)?;
            self.put_job(job);
        }
        Ok(())
    }

    /// Records of some tasks of an array that wait.
    fn waiting_records(&self, base: JobId, tasks: &IndexSet) -> Vec<Arc<Job>> {
        if self.task_counts(base).pending == 0 {
            return Vec::new();
        }
        let mut records = self.records_of(base, tasks);
        records.retain(|job| job.is_pending());
        records
    }

    /// Why none of some tasks could be held or released.
    fn not_waiting(&self, base: JobId, tasks: &IndexSet) -> Refusal {
        let records = self.records_of(base, tasks);
        match records.iter().find(|job| !job.is_over()).or_else(|| records.first()) {
            Some(job) if job.is_over() => Refusal::AlreadyDone(job.id),
            Some(job) => Refusal::NotPending(job.id),
            None => Refusal::InvalidJobId(base),
        }
    }
}

fn hold_job(caller: &Caller, job: &mut Job, hold: Hold, now: Timestamp) -> Result<(), Refusal> {
    if !job.is_pending() {
        return Err(if job.is_over() {
            Refusal::AlreadyDone(job.id)
        } else {
            Refusal::NotPending(job.id)
        });
    }
    if job.cron.is_some() {
        return Err(Refusal::CronUnchangeable(job.id));
    }
    let was = job.hold;
    job.hold = next_hold(caller, job.id, job.hold, hold)?;
    if job.hold == Hold::None {
        job.reason = None;
    }
    if was != Hold::None && job.hold == Hold::None {
        // Age does not count while it is held.
        job.not_before = job.not_before.max(now);
    }
    Ok(())
}

fn hold_array(
    caller: &Caller,
    array: &mut Array,
    hold: Hold,
    now: Timestamp,
) -> Result<(), Refusal> {
    let was = array.hold_in_force();
    array.hold = next_hold(caller, array.id, array.hold_in_force(), hold)?;
    array.held = IndexSet::new();
    if caller.admin {
        array.held_by_admin = IndexSet::new();
    }
    if array.hold == Hold::None {
        array.reason = None;
    }
    if was != Hold::None && array.hold == Hold::None {
        array.not_before = array.not_before.max(now);
    }
    Ok(())
}

/// Holds or releases waiting tasks within their array's record.
fn hold_within(
    caller: &Caller,
    array: &mut Array,
    tasks: &IndexSet,
    hold: Hold,
) -> Result<(), Refusal> {
    match std::mem::take(&mut array.hold) {
        Hold::None => {}
        Hold::User => array.held = array.pending.difference(&array.held_by_admin),
        Hold::Admin => {
            array.held_by_admin = array.pending.clone();
            array.held = IndexSet::new();
        }
    }
    let mut tasks = tasks.clone();
    if !caller.admin {
        tasks = tasks.difference(&array.held_by_admin);
    }
    if tasks.is_empty() {
        next_hold(caller, array.id, Hold::Admin, hold)?;
    }
    array.held = array.held.difference(&tasks);
    array.held_by_admin = array.held_by_admin.difference(&tasks);
    match hold {
        Hold::None => {}
        Hold::Admin if caller.admin => array.held_by_admin = array.held_by_admin.union(&tasks),
        Hold::User | Hold::Admin => array.held = array.held.union(&tasks),
    }
    if !array.is_partly_held() {
        array.reason = None;
    }
    Ok(())
}

fn next_hold(caller: &Caller, job: JobId, now: Hold, wanted: Hold) -> Result<Hold, Refusal> {
    if now == Hold::Admin && !caller.admin {
        let text = format!("job {job} is held by an admin, who alone can release it");
        return Err(Refusal::AccessDenied(text.into()));
    }
    // A hold by an admin is an admin's hold, unless a user's was asked for by name.
    Ok(match wanted {
        Hold::Admin if !caller.admin => Hold::User,
        other => other,
    })
}
