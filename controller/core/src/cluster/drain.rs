//! What becomes of the jobs on a node, or on one of its GPUs, when its drain has a deadline?
//!
//! They are told when it is set. At that time those that still run end: a job that may be requeued
//! waits again, and any other one is cancelled. A drain that is taken back takes its deadline along.

use std::sync::Arc;

use penstock_vocab::{JobId, Timestamp};

use super::Cluster;
use super::gpus::holds_gpu;
use crate::command::Effect;
use crate::model::{EndCause, Job, Node, NodeIndex, Run, RunResult};

/// Jobs that one `Tick` ends for deadlines, so that it stays within one commit.
const ENDED_PER_TICK: usize = 20;

impl Cluster {
    /// Jobs that a drain waits for: those on the node, or on one of its GPUs.
    #[must_use]
    pub fn in_the_way(&self, index: NodeIndex, gpu: Option<u32>) -> Vec<Arc<Job>> {
        let Some((node, used)) = self.node(index) else { return Vec::new() };
        let mut jobs: Vec<Arc<Job>> =
            used.jobs.iter().filter_map(|id| self.jobs.get(id)).cloned().collect();
        if let Some(gpu) = gpu {
            jobs.retain(|job| {
                job.active_run()
                    .is_some_and(|run| holds_gpu(&node.inventory, run, index, gpu, None))
            });
        }
        jobs
    }

    /// Tells the jobs that will not have ended by a deadline what becomes of them.
    pub(super) fn tell_of_deadline(
        &mut self,
        index: NodeIndex,
        gpu: Option<u32>,
        deadline: Timestamp,
        reason: &str,
    ) {
        let Some((node, _)) = self.node(index) else { return };
        let what = place(node, gpu);
        for job in self.in_the_way(index, gpu) {
            let Some(run) = job.active_run().filter(|run| !run.is_ending()) else { continue };
            if job.ends_by(self.now).is_some_and(|end| end <= deadline) {
                continue;
            }
            let becomes = if job.may_requeue() { "requeued" } else { "cancelled" };
            let left = crate::policy::idle::length(deadline.since(self.now).0);
            let text = format!(
                "job {}: {what} is drained for {reason}; what still runs in {left} is {becomes}",
                job.id
            );
            self.notice(&job, run, text.into());
        }
    }

    /// Has whoever runs a job told something.
    pub(super) fn notice(&mut self, job: &Job, run: &Run, text: Box<str>) {
        if let Some(node) = run.batch_node() {
            let (job, attempt) = (job.id, run.attempt);
            self.effects.push(Effect::Notice { node, job, attempt, text });
        }
    }

    /// Ends the runs of these jobs as if their nodes had proven that they ended. For copies on which
    /// something is tried.
    pub(crate) fn end_at_once(&mut self, jobs: &[JobId]) {
        for id in jobs {
            if let Some(job) = self.jobs.get(id).filter(|job| job.active_run().is_some()).cloned() {
                self.end_run((*job).clone(), &RunResult::default());
            }
        }
    }

    /// Ends what still runs where a drain's deadline has come.
    pub(super) fn end_drained(&mut self) {
        let mut due: Vec<(NodeIndex, Option<u32>, Box<str>)> = Vec::new();
        for (index, node, used) in self.nodes() {
            if used.jobs.is_empty() {
                continue;
            }
            if node.admin.drain_by.is_some_and(|at| at <= self.now) && node.admin.drain {
                due.push((index, None, node.admin.reason.clone()));
            }
            let drains = node.admin.gpus.iter();
            let over = drains.filter(|drain| drain.deadline.is_some_and(|at| at <= self.now));
            due.extend(over.map(|drain| (index, Some(drain.index), drain.reason.clone())));
        }
        let mut left = ENDED_PER_TICK;
        for (index, gpu, reason) in due {
            let Some((node, _)) = self.node(index) else { continue };
            let told = format!("{} was drained by its deadline: {reason}", place(node, gpu));
            for job in self.in_the_way(index, gpu) {
                let Some(run) = job.active_run().filter(|run| !run.is_ending()).cloned() else {
                    continue;
                };
                if left == 0 {
                    return;
                }
                left -= 1;
                let requeue = job.may_requeue();
                let run = Arc::new(Run { end_reason: told.as_str().into(), ..(*run).clone() });
                let mut job = (*job).clone();
                let cause = if requeue { EndCause::Requeue } else { EndCause::Cancelled };
                self.end_run_soon(&mut job, &run, cause);
                self.put_job(job);
            }
        }
    }
}

/// `node n1`, `GPU 3 of n1`.
fn place(node: &Node, gpu: Option<u32>) -> String {
    gpu.map_or_else(|| format!("node {}", node.name), |gpu| format!("GPU {gpu} of {}", node.name))
}
