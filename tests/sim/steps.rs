//! Steps: jobs that get some, and what must hold of them.

use std::sync::Arc;

use penstock_core::command::{SignalOrder, Target};
use penstock_core::model::{JobSpec, StepKey, StepNumber, StepSpec};
use penstock_core::{Cluster, Command};
use penstock_vocab::{ExitCode, JobId, Walltime};

use crate::common::{admin, asking};
use crate::controller::{Waiter, node_name};
use crate::world::{Scenario, World};

impl World {
    /// What a client of steps wants next.
    pub(crate) fn step_command(&mut self, number: usize) -> Command {
        let caller = asking(admin(), self.request(number));
        match self.rng.below(100) {
            0..35 => self.job_for_steps(number),
            35..78 => {
                let spec = Arc::new(self.step_spec());
                Command::CreateStep(caller, self.running_job(), spec, 1)
            }
            78..86 => Command::Cancel(caller, vec![self.step_target()]),
            86..90 => {
                let order = SignalOrder { signal: 10, batch_only: false, full: true };
                Command::Signal(caller, vec![self.step_target()], order)
            }
            90..94 => {
                let suspend = self.rng.chance(500);
                Command::Suspend(caller, vec![Target::Job(self.running_job())], suspend)
            }
            94..97 => Command::Release(caller, self.running_job(), ExitCode::exited(0)),
            _ => self.change(number),
        }
    }

    fn job_for_steps(&mut self, number: usize) -> Command {
        let command = self.submission(number);
        let Command::Submit(caller, mut submission) = command else { return command };
        if submission.array.is_none() && self.rng.chance(600) {
            let spec: &mut JobSpec = Arc::make_mut(&mut submission.spec);
            spec.allocation = true;
            spec.no_kill = self.rng.chance(300);
            spec.time_limit = Some(Walltime::from_minutes(1));
        }
        Command::Submit(caller, submission)
    }

    fn step_spec(&mut self) -> StepSpec {
        let small = |world: &mut Self, bound| u32::try_from(world.rng.below(bound)).expect("small");
        StepSpec {
            ntasks: self.rng.chance(700).then(|| 1 + small(self, 3)),
            nodes_min: self.rng.chance(300).then(|| 1 + small(self, 2)),
            exact: self.rng.chance(500),
            overlap: self.rng.chance(150),
            no_kill: self.rng.chance(300),
            ..StepSpec::default()
        }
    }

    /// A job with a run, if there is one.
    fn running_job(&mut self) -> JobId {
        let jobs = self.controller.cluster().map(|cluster| {
            let runs = cluster.jobs().filter(|job| job.active_run().is_some());
            runs.map(|job| job.id).collect::<Vec<_>>()
        });
        let jobs = jobs.unwrap_or_default();
        if jobs.is_empty() { JobId(1) } else { jobs[self.rng.index(jobs.len())] }
    }

    fn step_target(&mut self) -> Target {
        let steps = self
            .controller
            .cluster()
            .map(|cluster| cluster.live_steps().map(|step| step.key).collect::<Vec<_>>());
        let steps = steps.unwrap_or_default();
        if steps.is_empty() {
            return Target::Step(JobId(1), StepNumber(0));
        }
        let key = steps[self.rng.index(steps.len())];
        Target::Step(key.job, key.number)
    }

    /// Nobody holds the jobs without a script any more.
    pub(crate) fn nurse_steps(&mut self, cluster: &Cluster) {
        let held: Vec<JobId> = cluster.allocations().map(|job| job.id).collect();
        if !held.is_empty() {
            self.push(Waiter::Nobody, Command::Abandoned(held));
        }
        for job in cluster.jobs() {
            if job.active_run().is_some_and(|run| run.suspended_since.is_some()) {
                let target = vec![Target::Job(job.id)];
                self.push(Waiter::Nobody, Command::Suspend(admin(), target, false));
            }
        }
    }

    /// What a process uses is not free: the run that it is a part of holds its node, and the part of
    /// a step has not ended.
    pub(crate) fn check_parts(&mut self, cluster: &Cluster) {
        if self.scenario != Scenario::Steps {
            return;
        }
        let mut wrong = None;
        for (at, machine) in self.machines.iter().enumerate() {
            let Ok((node, _)) = cluster.node_by_name(&node_name(at)) else { continue };
            for key in &machine.processes {
                let run = cluster.job(key.job).and_then(|job| job.active_run());
                let holds = run.is_some_and(|run| {
                    run.attempt == key.attempt && run.shares.iter().any(|s| s.node == node)
                });
                let lives = key.step.is_none_or(|number| {
                    let number = StepNumber(number);
                    let key = StepKey { job: key.job, attempt: key.attempt, number };
                    let part = cluster.step(key).and_then(|step| step.share_on(node));
                    part.is_some_and(|part| part.is_live())
                });
                if !holds || !lives {
                    let text = || Some(format!("{key} runs on machine {at}, and holds nothing"));
                    wrong = wrong.or_else(text);
                }
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }
}
