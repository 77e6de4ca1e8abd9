//! What does this node have to do with a step?

use std::path::Path;

use penstock_proto::v1;
use penstock_supervisor::AttemptKey;
use penstock_supervisor::ending::Terms;
use penstock_vocab::{Attempt, JobId};

use crate::gpu::GrantUnit;
use crate::launch::record::Intent;
use crate::launch::shepherd::{LaunchError, charge};

/// Number of the step that a shell on the allocation's node is.
pub(crate) const INTERACTIVE_STEP: u32 = 4_294_967_290;

/// Most tasks of one node; Slurm's limit (`MAX_TASKS_PER_NODE`) is 512, and descriptors are needed
/// for each.
pub(super) const MAX_TASKS: usize = 4_096;

/// A launch, checked: one share, this node's, with at least one task.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The whole of it, for what is only passed on.
    pub(crate) launch: v1::LaunchStep,
    pub(crate) job_id: u32,
    attempt: u32,
    pub(crate) number: u32,
    pub(crate) uid: u32,
    pub(crate) spec: v1::StepSpec,
    pub(crate) share: v1::NodeShare,
    /// Ranks of this node's tasks, in local order.
    pub(crate) tasks: Vec<u32>,
    /// This node.
    pub(crate) node: String,
    /// Which of the step's nodes this is.
    pub(crate) node_index: u32,
    /// Its GPUs and slices, where this node knows them one by one.
    pub(super) gpus: Option<Vec<GrantUnit>>,
}

impl Facts {
    pub(super) fn of(intent: &Intent) -> Result<Self, LaunchError> {
        let nothing = |what: &str| LaunchError::node(format!("the launch of a step has no {what}"));
        let mut launch = intent.step.clone().ok_or_else(|| nothing("content"))?;
        let mut step = launch.step.take().ok_or_else(|| nothing("step"))?;
        let shares = std::mem::take(&mut step.shares);
        let own = shares.into_iter().next().ok_or_else(|| nothing("share of this node"))?;
        if own.tasks.is_empty() || own.tasks.len() > MAX_TASKS {
            return Err(LaunchError::job(format!(
                "a step has 1 to {MAX_TASKS} tasks on one node, not {}",
                own.tasks.len()
            )));
        }
        Ok(Self {
            job_id: step.job_id,
            attempt: step.attempt,
            number: step.step,
            uid: step.uid,
            spec: step.spec.unwrap_or_default(),
            share: own.share.unwrap_or_default(),
            tasks: own.tasks,
            node: intent.node.clone(),
            node_index: launch.node_index,
            gpus: intent.devices.as_ref().and_then(|devices| devices.gpus()).map(<[_]>::to_vec),
            launch,
        })
    }

    /// The part of step 7.3 that has `tasks` on the first node.
    #[cfg(test)]
    pub(crate) fn for_tests(launch: v1::LaunchStep, tasks: Vec<u32>) -> Self {
        Self {
            launch,
            job_id: 7,
            attempt: 0,
            number: 3,
            uid: 0,
            spec: v1::StepSpec::default(),
            share: v1::NodeShare::default(),
            tasks,
            node: "n1".to_owned(),
            node_index: 0,
            gpus: None,
        }
    }

    /// Which run of the job the step is in.
    pub(super) const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tasks of the step on all its nodes.
    pub(crate) fn task_count(&self) -> u32 {
        let all: u32 =
            self.launch.step_tasks.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let here = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        all.max(here)
    }

    pub(super) const fn key(&self) -> AttemptKey {
        AttemptKey::of_step(JobId(self.job_id), Attempt(self.attempt), self.number)
    }

    /// `7.0`, as Slurm names steps.
    pub(super) fn step_id(&self) -> String {
        match self.number {
            INTERACTIVE_STEP => format!("{}.interactive", self.job_id),
            number => format!("{}.{number}", self.job_id),
        }
    }

    /// What the end is held to. The step's own limit and what is left of the job's count both.
    pub(super) fn terms(&self) -> Terms {
        let limits = [self.launch.time_limit_secs, self.spec.time_limit_secs.unwrap_or(0)];
        Terms {
            limit_secs: limits.into_iter().filter(|&secs| secs > 0).min(),
            limit_serial: self.launch.limit_serial,
            kill_wait_secs: self.launch.kill_wait_secs,
            unkillable_secs: charge::unkillable_secs(self.launch.unkillable_secs),
            warning: None,
            lease_until: None,
        }
    }

    /// Folder with commands of Slurm's names.
    pub(super) fn commands_dir(intent: &Intent) -> Option<&Path> {
        Some(intent.commands_dir.as_str()).filter(|dir| !dir.is_empty()).map(Path::new)
    }
}
