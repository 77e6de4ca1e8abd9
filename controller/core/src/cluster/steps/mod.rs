//! What becomes of the steps of a job?
//!
//! A step lives within one run of its job and holds a part of what the run holds; other jobs never
//! notice. It has a part on each of its nodes, each of which starts, runs and ends by itself, and is
//! treated by its node like a batch script. A run has ended when its batch script and every part of
//! its steps have. Ended steps keep their records until their job goes to the history.

mod check;
mod create;
mod end;
mod layout;
mod place;
mod report;
mod rooms;
mod spec;

use std::sync::Arc;

use penstock_vocab::{Attempt, ExitCode, JobId};

use super::Cluster;
use crate::command::{Effect, Order, OrderKind, RecordKey, SignalOrder};
use crate::model::{EndCause, Job, NodeIndex, Run, RunStage, Step, StepKey, StepNumber, StepPhase};

pub(super) use check::check_steps;

impl Cluster {
    /// A step.
    #[must_use]
    pub fn step(&self, key: StepKey) -> Option<&Arc<Step>> {
        self.steps.get(&key)
    }

    /// All steps, by job, attempt and number.
    pub fn steps(&self) -> impl Iterator<Item = &Arc<Step>> {
        self.steps.values()
    }

    /// Steps of all attempts of a job, ended ones too.
    pub fn steps_of(&self, job: JobId) -> impl Iterator<Item = &Arc<Step>> {
        self.steps.range(first_key(job)..=last_key(job)).map(|(_, step)| step)
    }

    /// Steps of one attempt of a job, ended ones too.
    pub fn steps_of_attempt(
        &self,
        job: JobId,
        attempt: Attempt,
    ) -> impl DoubleEndedIterator<Item = &Arc<Step>> {
        let key = |number| StepKey { job, attempt, number: StepNumber(number) };
        self.steps.range(key(0)..=key(u32::MAX)).map(|(_, step)| step)
    }

    /// Steps of a job of which some part may still run.
    pub fn live_steps_of(&self, job: JobId) -> impl Iterator<Item = &Arc<Step>> {
        let keys = self.index.live_steps.range(first_key(job)..=last_key(job));
        keys.filter_map(|key| self.steps.get(key))
    }

    /// Steps of all jobs of which some part may still run.
    pub fn live_steps(&self) -> impl Iterator<Item = &Arc<Step>> {
        self.index.live_steps.iter().filter_map(|key| self.steps.get(key))
    }

    /// Jobs without a script that are not over.
    pub fn allocations(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.index.allocations.iter().filter_map(|id| self.jobs.get(id))
    }

    /// Whether some part of a step of this job may still run.
    #[must_use]
    pub fn has_live_steps(&self, job: JobId) -> bool {
        self.index.live_steps.range(first_key(job)..=last_key(job)).next().is_some()
    }

    /// The step of that number in the job's newest attempt that had one, whether it runs or has ended.
    #[must_use]
    pub fn newest_step(&self, job: JobId, number: StepNumber) -> Option<&Arc<Step>> {
        let attempt = self.jobs.get(&job)?.last_attempt;
        self.step(StepKey { job, attempt, number })
            .or_else(|| self.steps_of(job).filter(|step| step.key.number == number).last())
    }

    /// Why a step is being ended; `None`: it is not, or it has ended.
    #[must_use]
    pub fn step_ending(&self, step: &Step) -> Option<EndCause> {
        if !step.is_live() {
            return None;
        }
        let run = self.jobs.get(&step.key.job).and_then(|job| job.active_run());
        step.ending.or_else(|| run.and_then(|run| ending_of(run)))
    }

    /// Highest exit status of the steps of an attempt that have ended, or a signal.
    #[must_use]
    pub fn derived_exit(&self, job: JobId, attempt: Attempt) -> ExitCode {
        let steps = self.steps_of_attempt(job, attempt);
        let exits = steps.filter(|step| !step.is_live()).map(|step| step.exit);
        exits.max_by_key(|exit| exit.to_wait_status()).unwrap_or_default()
    }

    /// Stores a step.
    pub(super) fn put_step(&mut self, step: Step) {
        let key = step.key;
        if step.is_live() {
            self.index.live_steps.insert(key);
        } else {
            self.index.live_steps.remove(&key);
            self.settling.push(key.job);
        }
        self.steps.insert(key, Arc::new(step));
        self.changed.push(RecordKey::Step(key));
        self.effects.push(Effect::Watched(key.job));
    }

    /// Takes out at most `most` steps of a job that is over; true if none is left.
    pub(super) fn forget_steps(&mut self, job: JobId, most: usize) -> bool {
        let keys: Vec<_> = self.steps_of(job).map(|step| step.key).take(most + 1).collect();
        for key in keys.iter().take(most) {
            self.steps.remove(key);
            self.changed.push(RecordKey::Step(*key));
        }
        keys.len() <= most
    }

    /// Tells the batch script of a run something, if there is one that may run.
    pub(super) fn order(&mut self, job: JobId, run: &Run, kind: OrderKind) {
        if let Some(node) = run.script_node() {
            let order = Order { job, attempt: run.attempt, step: None, kind };
            self.effects.push(Effect::Order(node, order));
        }
    }

    /// Tells the batch script and every step of a run something.
    pub(super) fn order_all(&mut self, job: JobId, run: &Run, kind: OrderKind) {
        self.order(job, run, kind);
        if !matches!(kind, OrderKind::Signal(SignalOrder { batch_only: true, .. })) {
            self.order_steps(job, kind);
        }
    }

    /// Tells every step of a job something that may still run.
    pub(super) fn order_steps(&mut self, job: JobId, kind: OrderKind) {
        let steps: Vec<_> = self.live_steps_of(job).cloned().collect();
        steps.iter().for_each(|step| self.order_step(step, kind));
    }

    /// Tells every part of a step something that may still run.
    pub(super) fn order_step(&mut self, step: &Step, kind: OrderKind) {
        for share in step.live_shares() {
            self.order_part(step.key, share.share.node, kind);
        }
    }

    /// Tells one part of a step something.
    fn order_part(&mut self, key: StepKey, node: NodeIndex, kind: OrderKind) {
        let order = part_order(key, kind);
        self.effects.push(Effect::Order(node, order));
    }

    /// Derives anew which steps live.
    pub(super) fn reindex_steps(&mut self) {
        let live = self.steps.values().filter(|step| step.is_live()).map(|step| step.key);
        self.index.live_steps = live.collect();
    }
}

pub(super) fn part_order(key: StepKey, kind: OrderKind) -> Order {
    Order { job: key.job, attempt: key.attempt, step: Some(key.number), kind }
}

/// Why a whole run is being ended.
pub(super) fn ending_of(run: &Run) -> Option<EndCause> {
    match run.stage {
        RunStage::Ending(cause) => Some(cause),
        RunStage::Allocated | RunStage::Launched | RunStage::Ended => None,
    }
}

/// What a node must hear about its part of a step, derived from the records alone, in order. `known`:
/// the node holds the part.
pub(super) fn standing_step_orders(
    job: &Job,
    run: &Run,
    step: &Step,
    phase: &StepPhase,
    known: bool,
) -> impl Iterator<Item = OrderKind> + use<> {
    let ending = step.ending.or_else(|| ending_of(run));
    let first = match (phase, ending) {
        (StepPhase::Ended(_), _) => None,
        (_, Some(cause)) => Some(OrderKind::Terminate(cause)),
        (StepPhase::Allocated, None) => (!known).then_some(OrderKind::Launch),
        (StepPhase::Running, None) => (job.limit_serial > 0).then_some(OrderKind::SetLimit),
    };
    let lives = ending.is_none() && !matches!(phase, StepPhase::Ended(_));
    let still = match run.suspended_since {
        Some(_) => Some(OrderKind::Suspend),
        // The node may not have heard that it goes on.
        None => (run.suspended_ms > 0).then_some(OrderKind::Resume),
    };
    first.into_iter().chain(still.filter(|_| lives))
}

fn first_key(job: JobId) -> StepKey {
    StepKey { job, attempt: Attempt(0), number: StepNumber(0) }
}

fn last_key(job: JobId) -> StepKey {
    StepKey { job, attempt: Attempt(u32::MAX), number: StepNumber(u32::MAX) }
}
