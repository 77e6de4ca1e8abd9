//! What do nodes say of their parts of steps, and what comes of it?

use std::sync::Arc;

use penstock_vocab::{ExitCode, JobId, JobState};

use super::super::Cluster;
use super::super::control::latest;
use super::standing_step_orders;
use crate::command::{AttemptPhase, OrderKind};
use crate::model::{
    EndCause, Job, NodeIndex, Run, RunResult, Step, StepKey, StepPhase, StepShare, Usage,
};

/// Text of a part that its node never started and never will.
const NEVER_STARTED: &str = "the step was never started on this node: the launch was lost, or the \
                             controller was restarted before it was sent; run it again";

impl Cluster {
    /// Takes what a node says of its part of a step. What is not its business is acknowledged or
    /// ended, so that the node can forget it.
    pub(in super::super) fn take_step_report(
        &mut self,
        node: NodeIndex,
        key: StepKey,
        phase: AttemptPhase,
    ) {
        let step = self.steps.get(&key).cloned();
        let live = step.filter(|step| step.share_on(node).is_some_and(StepShare::is_live));
        match (live, phase) {
            (None, AttemptPhase::Running) => {
                self.order_part(key, node, OrderKind::Terminate(EndCause::NodeFail));
            }
            (None, AttemptPhase::Ended(_) | AttemptPhase::NeverStarted) => {
                self.order_part(key, node, OrderKind::Acknowledge);
            }
            (Some(step), AttemptPhase::Running) => self.part_runs(&step, node),
            (Some(step), AttemptPhase::Ended(result)) => {
                self.part_ended(&step, node, *result);
                self.order_part(key, node, OrderKind::Acknowledge);
            }
            (Some(step), AttemptPhase::NeverStarted) => {
                let wanted =
                    self.step_ending(&step).is_some_and(|cause| cause != EndCause::LaunchFailed);
                let launch_error = if wanted { "" } else { NEVER_STARTED }.into();
                let result = RunResult { launch_error, ..RunResult::default() };
                self.part_ended(&step, node, result);
                self.order_part(key, node, OrderKind::Acknowledge);
            }
        }
    }

    fn part_runs(&mut self, step: &Arc<Step>, node: NodeIndex) {
        let mut changed = (**step).clone();
        let Some(part) = part_mut(&mut changed, node) else { return };
        if part.phase != StepPhase::Allocated {
            return;
        }
        part.phase = StepPhase::Running;
        let run = self.jobs.get(&step.key.job).and_then(|job| job.active_run());
        if run.is_some_and(|run| run.suspended_since.is_some()) {
            self.order_part(step.key, node, OrderKind::Suspend);
        }
        self.put_step(changed);
    }

    /// Nothing is left of a step on a node.
    pub(in super::super) fn part_ended(
        &mut self,
        step: &Arc<Step>,
        node: NodeIndex,
        result: RunResult,
    ) {
        let ending = self.step_ending(step);
        let failed = !result.launch_error.is_empty() && !result.devices_changed;
        if ending.is_none() && result.node_fault && failed {
            self.note_launch_failure(step.key.job, node, &result.launch_error);
        }
        let cause = match &result {
            _ if ending.is_some() => None,
            result if !result.launch_error.is_empty() => Some(EndCause::LaunchFailed),
            result if result.lost || result.fenced => {
                (!step.spec.no_kill).then_some(EndCause::NodeFail)
            }
            _ => None,
        };
        let mut step = (**step).clone();
        if let Some(part) = part_mut(&mut step, node) {
            part.phase = StepPhase::Ended(Box::new(result));
        }
        if step.live_shares().next().is_none() {
            self.finish_step(step, ending);
            return;
        }
        if let Some(cause) = cause {
            step.ending = Some(cause);
            self.order_step(&step, OrderKind::Terminate(cause));
        }
        self.put_step(step);
    }

    /// The last part of a step has ended. `ending`: why it was being ended.
    fn finish_step(&mut self, mut step: Step, ending: Option<EndCause>) {
        let results: Vec<&RunResult> = step
            .shares
            .iter()
            .filter_map(|share| match &share.phase {
                StepPhase::Ended(result) => Some(&**result),
                StepPhase::Allocated | StepPhase::Running => None,
            })
            .collect();
        let (state, exit) = outcome(&step, &results, ending);
        let usage = sum(&results);
        step.state = state;
        step.exit = exit;
        step.usage = usage;
        step.ending = step.ending.or(ending);
        step.end_time = Some(latest(Some(step.start_time), self.now));
        self.put_step(step);
    }

    /// Brings the steps that a node should hold and those that it does hold together. `told`: what it
    /// said it holds.
    pub(in super::super) fn settle_steps(
        &mut self,
        node: NodeIndex,
        job: &Arc<Job>,
        run: &Arc<Run>,
        (rebooted, told): (bool, &dyn Fn(StepKey) -> bool),
    ) {
        for step in self.steps_on(job.id, node) {
            let Some(part) = step.share_on(node) else { continue };
            let known = told(step.key);
            if !known && (rebooted || part.phase == StepPhase::Running) {
                let result = RunResult { lost: true, ..RunResult::default() };
                self.part_ended(&step, node, result);
                continue;
            }
            for kind in standing_step_orders(job, run, &step, &part.phase, known) {
                self.order_part(step.key, node, kind);
            }
        }
    }

    /// Every part of a job's steps on a node is proven to have ended so.
    pub(in super::super) fn lose_step_parts(
        &mut self,
        job: JobId,
        node: NodeIndex,
        result: &RunResult,
    ) {
        for step in self.steps_on(job, node) {
            self.part_ended(&step, node, result.clone());
        }
    }

    /// Steps of a job with a part on a node that may run.
    pub(in super::super) fn steps_on(&self, job: JobId, node: NodeIndex) -> Vec<Arc<Step>> {
        let here = |step: &&Arc<Step>| step.share_on(node).is_some_and(StepShare::is_live);
        self.live_steps_of(job).filter(here).cloned().collect()
    }
}

fn part_mut(step: &mut Step, node: NodeIndex) -> Option<&mut StepShare> {
    step.shares.iter_mut().find(|share| share.share.node == node)
}

/// State and exit code of a step whose parts have all ended, as sacct(1) shows them.
fn outcome(step: &Step, results: &[&RunResult], ending: Option<EndCause>) -> (JobState, ExitCode) {
    let exits = results.iter().map(|result| result.exit);
    let exit = exits.max_by_key(|exit| exit.to_wait_status()).unwrap_or_default();
    let any = |of: fn(&RunResult) -> bool| results.iter().any(|result| of(result));
    if any(|result| result.out_of_memory) {
        return (JobState::OutOfMemory, ExitCode::OUT_OF_MEMORY);
    }
    match ending.or(step.ending) {
        Some(EndCause::NodeFail) => return (JobState::NodeFail, exit),
        Some(EndCause::LaunchFailed) => return (JobState::Failed, ExitCode::signaled(53)),
        // What ended well before it could be told to has ended well.
        Some(_) if exit.is_success() && !any(|r| r.time_limit) && ran(results) => {
            return (JobState::Completed, exit);
        }
        Some(_) => return (JobState::Cancelled, exit),
        None => {}
    }
    if any(|result| !result.launch_error.is_empty()) {
        return (JobState::Failed, ExitCode::signaled(53));
    }
    if any(|result| result.lost || result.fenced) {
        return (JobState::NodeFail, exit);
    }
    if any(|result| result.time_limit) {
        // Its own limit, or that of its job.
        let own = step.spec.time_limit.is_some();
        return (if own { JobState::Timeout } else { JobState::Cancelled }, exit);
    }
    match exit {
        exit if exit.is_success() => (JobState::Completed, exit),
        exit if exit.signal != 0 => (JobState::Cancelled, exit),
        exit => (JobState::Failed, exit),
    }
}

/// Whether tasks ran on every node until they ended.
fn ran(results: &[&RunResult]) -> bool {
    results.iter().all(|result| {
        !result.lost && !result.fenced && result.launch_error.is_empty() && result.elapsed_ms > 0
    })
}

/// What all nodes used together; of memory the highest of one.
fn sum(results: &[&RunResult]) -> Usage {
    results.iter().fold(Usage::default(), |sum, result| Usage {
        user_cpu_usec: sum.user_cpu_usec.saturating_add(result.usage.user_cpu_usec),
        system_cpu_usec: sum.system_cpu_usec.saturating_add(result.usage.system_cpu_usec),
        peak_memory_bytes: sum.peak_memory_bytes.max(result.usage.peak_memory_bytes),
        memory_limit_bytes: sum.memory_limit_bytes.max(result.usage.memory_limit_bytes),
        // Which node has the most stands with the nodes.
        tasks: None,
    })
}
