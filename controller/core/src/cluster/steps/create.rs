//! How does a step come into being?

use std::sync::Arc;

use penstock_vocab::{ExitCode, JobId, JobState};

use super::super::Cluster;
use super::super::control::allowed;
use super::place::{Lack, place};
use super::spec::check;
use crate::command::{Caller, OrderKind, Reply};
use crate::model::{Job, Run, Step, StepKey, StepNumber, StepShare, StepSpec, Usage};
use crate::refusal::{Malformed, Refusal};

impl Cluster {
    /// Gives a step its resources and has it started.
    pub(in super::super) fn create_step(
        &mut self,
        caller: &Caller,
        id: JobId,
        spec: Arc<StepSpec>,
        ticket: u64,
    ) -> Result<Reply, Refusal> {
        let job = self.jobs.get(&id).cloned().ok_or(Refusal::InvalidJobId(id))?;
        allowed(caller, job.uid.0, id)?;
        let shares = self.place_step(&job, &spec)?;
        let run = job.active_run().ok_or(Refusal::NotRunning(id))?;
        let number = self.next_step(&job, run, spec.interactive)?;
        let step = Step {
            key: StepKey { job: id, attempt: run.attempt, number },
            uid: job.uid,
            spec,
            shares: shares.into_boxed_slice(),
            start_time: self.now,
            run_elapsed: run.elapsed(self.now),
            end_time: None,
            state: JobState::Running,
            exit: ExitCode::default(),
            usage: Usage::default(),
            ending: None,
            ended_by: None,
            ticket,
        };
        let key = step.key;
        self.order_step(&step, OrderKind::Launch);
        self.put_step(step);
        Ok(Reply::StepCreated(key))
    }

    /// Where a step of a job would run now. Cost: the job's nodes times its running steps.
    ///
    /// # Errors
    /// [`Refusal::StepBusy`] where waiting may help; other refusals where it does not.
    pub fn place_step(&self, job: &Job, spec: &StepSpec) -> Result<Vec<StepShare>, Refusal> {
        if job.is_over() {
            return Err(Refusal::AlreadyDone(job.id));
        }
        let run = job.active_run().ok_or(Refusal::NotRunning(job.id))?;
        if run.is_ending() {
            return Err(Refusal::AlreadyDone(job.id));
        }
        check(spec)?;
        let tasks = run.shares.iter().map(|share| share.tasks).fold(0, u32::saturating_add);
        let empty = self.empty_rooms(run);
        // What could never be is said at once, whatever runs now.
        place(spec, tasks, &empty).map_err(|lack| never(job, run, spec, lack))?;
        if run.is_configuring() {
            let text =
                format!("the prolog of job {} runs; its steps start when it has ended", job.id);
            return Err(Refusal::StepBusy(text.into()));
        }
        if run.suspended_since.is_some() {
            let text = format!("job {} is suspended; its steps start when it goes on", job.id);
            return Err(Refusal::StepBusy(text.into()));
        }
        place(spec, tasks, &self.rooms(job, empty)).map_err(|lack| busy(job, lack))
    }

    fn next_step(&self, job: &Job, run: &Run, interactive: bool) -> Result<StepNumber, Refusal> {
        let counted = self.steps_of_attempt(job.id, run.attempt).rev();
        let newest = counted.map(|step| step.key.number).find(|n| *n < StepNumber::INTERACTIVE);
        let shell = StepKey { job: job.id, attempt: run.attempt, number: StepNumber::INTERACTIVE };
        if interactive && self.step(shell).is_none() {
            return Ok(shell.number);
        }
        let next = newest.map_or(0, |number| number.0 + 1);
        if next >= StepNumber::MOST {
            return Err(Refusal::StepLimit { job: job.id, limit: StepNumber::MOST });
        }
        Ok(StepNumber(next))
    }
}

fn busy(job: &Job, lack: Lack) -> Refusal {
    let what = match lack {
        Lack::Nodes => "nodes",
        Lack::Cpus => "CPUs",
        Lack::Memory => "memory",
        Lack::Gres => "generic resources",
    };
    let text = format!(
        "other steps of job {} hold the {what} that this one needs; --exact and --overlap let steps \
         run beside each other",
        job.id
    );
    Refusal::StepBusy(text.into())
}

fn never(job: &Job, run: &Run, spec: &StepSpec, lack: Lack) -> Refusal {
    let id = job.id;
    match lack {
        Lack::Nodes => {
            let text = format!(
                "job {id} has {} nodes, and the step asks for others or for more of them",
                run.shares.len()
            );
            Refusal::NeverFits(text.into())
        }
        Lack::Cpus => {
            let tasks = spec.ntasks.map_or_else(String::new, |tasks| format!("{tasks} tasks, "));
            let cpus = spec.cpus_per_task.unwrap_or(1);
            let text = format!(
                "the step asks for {tasks}{cpus} CPUs each; job {id} has {} CPUs on {} nodes",
                run.cpu_count(),
                run.shares.len()
            );
            Refusal::TooManyProcessors(text.into())
        }
        Lack::Memory => {
            let least = run.shares.iter().map(|share| share.memory).min().unwrap_or_default();
            let text =
                format!("the step asks for more memory than job {id} has, {least} on a node");
            Refusal::MemoryNeverFits(text.into())
        }
        Lack::Gres => {
            let detail = format!("job {id} has fewer generic resources than the step asks for");
            Refusal::Malformed { what: Malformed::Gres, detail: detail.into() }
        }
    }
}
