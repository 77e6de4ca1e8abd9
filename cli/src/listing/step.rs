//! How does a step become a row of a listing?
//!
//! A row tells of a run; a step is shown as the run that it is: its own times, nodes, end and use, in
//! the job's row. The batch script's step has no record of its own and is the job's run.

use penstock_proto::v1;
use penstock_vocab::{GresName, INTERACTIVE_STEP, JobState, Mib, StepId, Tres, compress};

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;

/// A step and the run that its rows tell of.
#[derive(Debug, Clone)]
pub(crate) struct StepRecord {
    /// As the controller describes it.
    pub(crate) info: v1::StepInfo,
    /// The same as a run.
    pub(crate) run: v1::Run,
}

static NO_STEP: std::sync::LazyLock<v1::Step> = std::sync::LazyLock::new(v1::Step::default);

impl StepRecord {
    /// Takes a step of a listing.
    pub(crate) fn new(info: v1::StepInfo) -> Self {
        let step = info.step.clone().unwrap_or_default();
        let shares = step.shares.into_iter().filter_map(|share| share.share).collect();
        let run = v1::Run {
            attempt: step.attempt,
            shares,
            start_ms: step.start_ms,
            end_ms: step.end_ms,
            end_cause: step.ending,
            ended_by_uid: step.ended_by_uid,
            ended_by_user: step.ended_by_user,
            exit_status: step.exit_status,
            exit_signal: step.exit_signal,
            usage: step.usage,
            end_state: step.state,
            partition: info.partition.clone(),
            ..v1::Run::default()
        };
        Self { info, run }
    }

    /// The record.
    pub(crate) fn step(&self) -> &v1::Step {
        self.info.step.as_ref().unwrap_or(&NO_STEP)
    }

    /// What the step is called behind the job's id.
    pub(crate) fn id(&self) -> StepId {
        match self.step().step {
            INTERACTIVE_STEP => StepId::Interactive,
            number => StepId::Number(number),
        }
    }

    /// Its state.
    pub(crate) fn state(&self) -> JobState {
        JobState::from_code(self.step().state).unwrap_or(JobState::Running)
    }

    /// How many tasks it has.
    pub(crate) fn tasks(&self) -> u32 {
        let of_shares =
            self.step().shares.iter().map(|share| share.tasks.len() as u64).sum::<u64>();
        let asked = self.step().spec.as_ref().and_then(|spec| spec.ntasks);
        match of_shares {
            0 => asked.unwrap_or(1),
            tasks => u32::try_from(tasks).unwrap_or(u32::MAX),
        }
    }
}

/// Steps that came with jobs, those of history too, by job and number.
pub(crate) fn steps_of_jobs(jobs: &[v1::JobInfo]) -> Vec<StepRecord> {
    let of = |info: &v1::JobInfo, step: &v1::Step| {
        let shares = || step.shares.iter().filter_map(|part| part.share.as_ref());
        StepRecord::new(v1::StepInfo {
            step: Some(step.clone()),
            user_name: info.user_name.clone(),
            partition: info.partition.clone(),
            nodelist: compress(shares().map(|share| share.node.as_str())),
            tres_allocated: allocated(shares()).to_string(),
        })
    };
    let steps = jobs.iter().flat_map(|job| job.steps.iter().map(move |step| of(job, step)));
    let mut steps: Vec<StepRecord> = steps.collect();
    steps.sort_by_key(|step| (step.step().job_id, step.step().attempt, step.step().step));
    steps
}

/// What shares come to.
fn allocated<'a>(shares: impl Iterator<Item = &'a v1::NodeShare>) -> Tres {
    let mut tres = Tres::default();
    for share in shares {
        tres.node += 1;
        tres.mem = Mib(tres.mem.0.saturating_add(share.memory_mib));
        let ranges = share.cpu_ranges.chunks_exact(2);
        tres.cpu += ranges.map(|r| u64::from(r[1].saturating_sub(r[0])) + 1).sum::<u64>();
        for gres in &share.gres {
            let count = if gres.ids.is_empty() { gres.count } else { gres.ids.len() as u64 };
            let kind = Some(gres.r#type.as_str()).filter(|kind| !kind.is_empty());
            // As accounting does: counted under its type and under the bare name.
            let names = [GresName::new(&gres.name, None), GresName::new(&gres.name, kind)];
            let mut names: Vec<_> = names.into_iter().flatten().collect();
            names.dedup();
            for name in names {
                *tres.gres.entry(name).or_insert(0) += count;
            }
        }
    }
    tres
}

/// Steps of the jobs that match, by job and number; `all`: also those that have ended.
///
/// # Errors
/// As any call; a controller that knows no steps has none.
pub(crate) fn list_steps(
    client: &Client,
    filter: v1::JobFilter,
    all: bool,
) -> Result<Vec<StepRecord>, RemoteError> {
    let request = v1::ListStepsRequest { filter: Some(filter), all };
    let replies = client.collect_steps(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_steps(request).await }
    })?;
    let infos = replies.into_iter().flat_map(|reply| reply.steps);
    let mut steps: Vec<StepRecord> = infos.map(StepRecord::new).collect();
    steps.sort_by_key(|step| (step.step().job_id, step.step().attempt, step.step().step));
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_as_a_run() {
        let share = |node: &str, tasks: &[u32]| v1::StepShare {
            share: Some(v1::NodeShare { node: node.into(), ..v1::NodeShare::default() }),
            tasks: tasks.to_vec(),
            ..v1::StepShare::default()
        };
        let step = v1::Step {
            job_id: 7,
            step: 2,
            start_ms: 1000,
            end_ms: 3000,
            state: JobState::Failed.code(),
            exit_status: 3,
            shares: vec![share("n1", &[0, 1]), share("n2", &[2])],
            ..v1::Step::default()
        };
        let record = StepRecord::new(v1::StepInfo { step: Some(step), ..v1::StepInfo::default() });
        assert_eq!(
            (record.run.start_ms, record.run.end_ms, record.run.exit_status),
            (1000, 3000, 3)
        );
        assert_eq!(record.run.shares.len(), 2);
        assert_eq!((record.tasks(), record.state()), (3, JobState::Failed));
        assert_eq!(record.id().to_string(), "2");
    }
}
