//! How does a job make room for another?
//!
//! A plan names victims; each is checked again here. One that ends is warned by SIGCONT and SIGTERM at
//! once and ended when its grace is over, which its record holds. One that may not be requeued ends
//! where the mode is to requeue.

use std::sync::Arc;

use super::Cluster;
use super::control::MAX_CHANGES;
use crate::command::{
    MAX_TARGETS, OrderKind, PreemptLine, Reply, SignalOrder, Target, TargetResult, Unit,
};
use crate::model::{EndCause, Job, JobSpec, Partition, PreemptBy, PreemptMode, Qos, Run, RunStage};
use crate::refusal::Refusal;

/// SIGCONT and SIGTERM of Linux, on every architecture that we run on.
const WARNING: [u32; 2] = [18, 15];

impl Cluster {
    /// Makes victims give their place; lines that no longer hold are refused one by one.
    pub(super) fn preempt(&mut self, lines: Vec<PreemptLine>) -> Result<Reply, Refusal> {
        if lines.len() > MAX_TARGETS {
            return Err(Refusal::TooManyItems { got: lines.len(), limit: MAX_TARGETS });
        }
        let got = lines.len();
        let results = lines.into_iter().enumerate().map(|(done, line)| TargetResult {
            target: Target::Job(line.victim),
            refusal: if self.changed.len() > MAX_CHANGES {
                Some(Refusal::TooManyItems { got, limit: done })
            } else {
                self.preempt_one(&line).err()
            },
        });
        Ok(Reply::Targets(results.collect()))
    }

    fn preempt_one(&mut self, line: &PreemptLine) -> Result<(), Refusal> {
        let job = self.jobs.get(&line.victim).cloned();
        let job = job.ok_or(Refusal::InvalidJobId(line.victim))?;
        let run = job.active_run().cloned().ok_or(Refusal::NotRunning(job.id))?;
        if matches!(run.stage, RunStage::Ending(_)) || run.ends_at.is_some() {
            return Err(Refusal::StalePlan("the victim makes room already"));
        }
        if !self.is_queued(line.for_unit) {
            return Err(Refusal::StalePlan("nobody waits for the victim's place any more"));
        }
        if !self.may_preempt(line.for_unit, &job) {
            return Err(Refusal::StalePlan("the victim may not be preempted by that job"));
        }
        let mode = match (self.preempt_mode_of(&job), line.mode) {
            (PreemptMode::Off, _) | (_, PreemptMode::Off) => {
                return Err(Refusal::StalePlan("the victim may not be preempted"));
            }
            (PreemptMode::Suspend, PreemptMode::Suspend) => PreemptMode::Suspend,
            (_, PreemptMode::Suspend) | (PreemptMode::Cancel, PreemptMode::Requeue) => {
                return Err(Refusal::StalePlan("the victim may not be preempted in that way"));
            }
            (PreemptMode::Requeue, _) | (_, PreemptMode::Requeue) if job.may_requeue() => {
                PreemptMode::Requeue
            }
            _ => PreemptMode::Cancel,
        };
        match mode {
            PreemptMode::Suspend if run.suspended_since.is_some() => {
                return Err(Refusal::AlreadySuspended(job.id));
            }
            PreemptMode::Suspend => self.stand_still(&job, &run, Some(line.for_unit)),
            PreemptMode::Requeue => self.warn(&job, &run, EndCause::PreemptedRequeue, line),
            PreemptMode::Cancel | PreemptMode::Off => {
                self.warn(&job, &run, EndCause::Preempted, line);
            }
        }
        Ok(())
    }

    /// Ends a run after its grace, warned at once.
    fn warn(&mut self, job: &Arc<Job>, run: &Arc<Run>, cause: EndCause, line: &PreemptLine) {
        let grace = line.grace_secs.max(self.preempt_grace_of(job));
        let mut job = (**job).clone();
        if grace == 0 {
            self.end_run_soon(&mut job, run, cause);
            self.put_job(job);
            return;
        }
        for signal in WARNING {
            let kind = OrderKind::Signal(SignalOrder { signal, batch_only: false, full: true });
            self.order_all(job.id, run, kind);
        }
        let mut run = (**run).clone();
        run.ends_at = Some((self.now.plus_secs(u64::from(grace)), cause));
        job.run = Some(Arc::new(run));
        self.put_job(job);
    }

    /// Whether a waiting unit may preempt a running job by the rules of the cluster file: who may
    /// preempt whom, and not before the victim ran as long as it is exempt. Where accounts get back
    /// what they are guaranteed, whoever planned it says who has borrowed.
    #[must_use]
    pub fn may_preempt(&self, unit: Unit, victim: &Job) -> bool {
        let Some(run) = victim.active_run() else { return false };
        let rules = &self.config.scheduling.preemption;
        let exempt = self.qos_named(&victim.spec).and_then(|qos| qos.preempt_exempt_secs);
        let exempt = u64::from(exempt.unwrap_or(rules.exempt_secs));
        if self.now < run.start_time.plus_secs(exempt) {
            return false;
        }
        if rules.reclaim || run.is_idle_prey() {
            return true;
        }
        let Some(spec) = self.spec_of(unit) else { return false };
        match rules.by {
            PreemptBy::None => false,
            PreemptBy::PartitionPriority => {
                let theirs = self.partition(&run.partition).map_or(0, |p| p.priority_tier);
                self.partitions_of(spec).any(|partition| partition.priority_tier > theirs)
            }
            PreemptBy::Qos => self.qos_named(spec).is_some_and(|qos| {
                let theirs = self.qos_named(&victim.spec);
                theirs.is_some_and(|theirs| qos.preempt.contains(&theirs.name))
            }),
        }
    }

    /// What becomes of a job when it is preempted: what its QOS says, else the partition it runs in,
    /// else the cluster. Where only guaranteed shares are taken back, `Requeue` if nothing is said.
    #[must_use]
    pub fn preempt_mode_of(&self, victim: &Job) -> PreemptMode {
        let rules = &self.config.scheduling.preemption;
        let own = self
            .qos_named(&victim.spec)
            .and_then(|qos| qos.preempt_mode)
            .or_else(|| self.partition_of_run(victim).and_then(|partition| partition.preempt_mode));
        let prey = victim.active_run().is_some_and(|run| run.is_idle_prey());
        match own.unwrap_or(rules.mode) {
            PreemptMode::Off if prey || rules.reclaim && own.is_none() => PreemptMode::Requeue,
            mode => mode,
        }
    }

    /// Seconds from the warning of a preempted job to its end: the longer of its QOS's and of its
    /// partition's.
    #[must_use]
    pub fn preempt_grace_of(&self, victim: &Job) -> u32 {
        let qos = self.qos_named(&victim.spec).map_or(0, |qos| qos.grace_secs);
        self.partition_of_run(victim).map_or(0, |partition| partition.grace_secs).max(qos)
    }

    fn partition_of_run(&self, job: &Job) -> Option<&Partition> {
        self.partition(&job.active_run()?.partition)
    }

    fn qos_named(&self, spec: &JobSpec) -> Option<&Qos> {
        self.accounts.qos(spec.qos_name()).map(|qos| &**qos)
    }

    /// The request of a waiting unit.
    pub(super) fn spec_of(&self, unit: Unit) -> Option<&JobSpec> {
        match unit {
            Unit::Job(id) => self.jobs.get(&id).map(|job| &*job.spec),
            Unit::Array(id) => self.arrays.get(&id).map(|array| &*array.spec),
        }
    }
}
