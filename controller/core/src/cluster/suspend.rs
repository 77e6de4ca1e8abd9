//! How does a run stand still, and go on?
//!
//! A suspended run keeps its memory, its generic resources (what a GPU's memory holds stays there)
//! and its licences, and gives its CPUs to others. Its time limit stands still. It goes on when the
//! very CPUs it was given are free: for who suspended it on purpose when they say so, for who made
//! room for another job as soon as the CPUs are.

use std::sync::Arc;

use penstock_vocab::{JobId, JobState, Millis, Timestamp};

use super::Cluster;
use super::control::{allowed, within_one_command};
use crate::command::{Caller, Effect, OrderKind, Reply, Target, Unit};
use crate::model::{Job, Run, RunStage};
use crate::refusal::Refusal;

/// Runs that go on by themselves after one command.
const RESUMED_AT_ONCE: usize = 20;
/// A place that was made and that nobody took for so long goes back, seconds.
const UNUSED_SECS: u64 = 60;

impl Cluster {
    /// Suspends or resumes jobs; for admins.
    pub(super) fn suspend(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
        suspend: bool,
    ) -> Result<Reply, Refusal> {
        if !caller.admin {
            let text = "only admins may suspend and resume jobs; `scancel -s STOP` stops your own";
            return Err(Refusal::AccessDenied(text.into()));
        }
        self.each(targets, |cluster, target| {
            let mut done = false;
            let mut refused = None;
            let jobs = cluster.jobs_of(target)?;
            within_one_command(jobs.len() as u64)?;
            for job in jobs {
                match cluster.suspend_one(&job, suspend) {
                    Ok(()) => done = true,
                    Err(refusal) => refused = refused.or(Some(refusal)),
                }
            }
            // Of several tasks some may stand still already.
            refused.filter(|_| !done).map_or(Ok(()), Err)
        })
    }

    fn suspend_one(&mut self, job: &Arc<Job>, suspend: bool) -> Result<(), Refusal> {
        if job.is_over() {
            return Err(Refusal::AlreadyDone(job.id));
        }
        let run = job.active_run().cloned().ok_or(Refusal::NotRunning(job.id))?;
        if matches!(run.stage, RunStage::Ending(_)) {
            return Err(Refusal::AlreadyDone(job.id));
        }
        if suspend {
            if run.suspended_since.is_some() {
                return Err(Refusal::AlreadySuspended(job.id));
            }
            self.stand_still(job, &run, None);
            return Ok(());
        }
        if run.suspended_since.is_none() {
            return Err(Refusal::NotSuspended(job.id));
        }
        if !self.could_go_on(&run) {
            let text = format!(
                "the CPUs of job {} are in use, or a node of it is out of service; try again when \
                 they are free",
                job.id
            );
            return Err(Refusal::NodesBusy(text.into()));
        }
        self.go_on(job, &run);
        Ok(())
    }

    /// Makes a run stand still; `yields_to`: until its CPUs are free again, for a waiting unit.
    pub(super) fn stand_still(&mut self, job: &Arc<Job>, run: &Arc<Run>, yields_to: Option<Unit>) {
        let mut job = (**job).clone();
        let mut run = (**run).clone();
        run.suspended_since = Some(self.now);
        run.yields_to = yields_to;
        job.state = JobState::Suspended;
        self.order_all(job.id, &run, OrderKind::Suspend);
        job.run = Some(Arc::new(run));
        self.put_job(job);
        self.effects.push(Effect::Schedule);
    }

    fn go_on(&mut self, job: &Arc<Job>, run: &Arc<Run>) {
        let mut job = (**job).clone();
        let mut run = (**run).clone();
        run.close_suspension(self.now);
        job.state = JobState::Running;
        self.order_all(job.id, &run, OrderKind::Resume);
        job.run = Some(Arc::new(run));
        self.put_job(job);
    }

    /// Whether the CPUs of a suspended run are free, on nodes that are there.
    fn could_go_on(&self, run: &Run) -> bool {
        run.shares.iter().all(|share| {
            self.node(share.node).is_some_and(|(node, used)| {
                node.down.is_none() && !node.admin.powered_down && used.admits_cpus(share)
            })
        })
    }

    /// Lets go on what made room and could have its CPUs back, the longest suspended first.
    pub(super) fn resume_yielding(&mut self) {
        let waiting: Vec<_> = self.index.yielding.iter().copied().collect();
        let mut resumed = 0;
        for (since, id) in waiting {
            if resumed == RESUMED_AT_ONCE {
                return;
            }
            let Some(job) = self.jobs.get(&id).cloned() else { continue };
            let Some(run) = job.active_run().cloned() else { continue };
            let unused = self.now >= since.plus_secs(UNUSED_SECS);
            let given = !unused && run.yields_to.is_some_and(|unit| self.is_queued(unit));
            if !given && self.could_go_on(&run) {
                self.go_on(&job, &run);
                resumed += 1;
            }
        }
    }

    /// When the next run that made room in vain goes on.
    pub(super) fn yielding_wakes(&self) -> Option<Timestamp> {
        let ends = self.index.yielding.iter().map(|(since, _)| since.plus_secs(UNUSED_SECS));
        ends.into_iter().find(|end| *end > self.ticked)
    }

    /// The job says that it saved its state: what it computed until now would not be lost.
    pub(super) fn checkpoint_done(&mut self, caller: &Caller, id: JobId) -> Result<Reply, Refusal> {
        let job = self.jobs.get(&id).cloned().ok_or(Refusal::InvalidJobId(id))?;
        allowed(caller, job.uid.0, id)?;
        let run = job.active_run().ok_or(Refusal::NotRunning(id))?;
        let mut run = (**run).clone();
        run.checkpoint = Some(self.now);
        let mut job = (*job).clone();
        job.run = Some(Arc::new(run));
        self.put_job(job);
        Ok(Reply::Done)
    }
}

impl Run {
    /// Ends a time in which it stood still, if it does.
    pub(crate) fn close_suspension(&mut self, now: Timestamp) {
        if let Some(since) = self.suspended_since.take() {
            let Millis(stood) = now.since(since);
            // Never nothing: by it a node that registers hears again that the run goes on, also where
            // the clock was set back meanwhile.
            self.suspended_ms = self.suspended_ms.saturating_add(stood.max(1));
        }
        self.yields_to = None;
    }
}
