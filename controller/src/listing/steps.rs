//! Which steps does a listing show, and what does it say of each?

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::Cluster;
use penstock_core::command::Target;
use penstock_core::model::{Job, NodeShare, Run, Step, StepNumber};
use penstock_core::refusal::Refusal;
use penstock_proto::v1;
use penstock_vocab::{JobId, compress};

use super::View;
use super::filter::Filter;
use crate::convert::run::NodeNames;
use crate::convert::step::step_to_wire;
use crate::convert::wire::target;

/// Steps that run of the jobs that a filter accepts, or with `all` those that ended too, by job and
/// number. Selectors may name single steps. Cost: the steps that run; with `all` every step, or those of
/// the jobs that are named.
///
/// # Errors
/// If a text of the request can't be read.
pub fn list_steps(
    view: &View<'_>,
    request: &v1::ListStepsRequest,
) -> Result<Vec<v1::StepInfo>, Refusal> {
    let cluster = view.cluster;
    let wanted = request.filter.clone().unwrap_or_default();
    let rest = v1::JobFilter { selectors: Vec::new(), ..wanted.clone() };
    let filter = Filter::of_jobs(&rest)?;
    let named = named(cluster, &wanted.selectors)?;
    let accepts = |step: &Step| {
        cluster.job(step.key.job).filter(|job| {
            filter.accepts_state(job.state, job.flags())
                && filter.accepts_spec(job.uid, &job.spec)
                && filter.accepts_place(cluster, cluster, &job.spec, job.run.as_deref())
        })
    };
    let chosen: Vec<_> = match (&named, request.all) {
        (None, false) => cluster.live_steps().collect(),
        (None, true) => cluster.steps().collect(),
        (Some(jobs), all) => {
            let of_job = |(id, steps): (&JobId, &Option<BTreeSet<StepNumber>>)| {
                let meant = cluster.steps_of(*id).filter(|step| all || step.is_live());
                let one = |step: &&std::sync::Arc<Step>| {
                    steps.as_ref().is_none_or(|steps| steps.contains(&step.key.number))
                };
                meant.filter(one).collect::<Vec<_>>()
            };
            jobs.iter().flat_map(of_job).collect()
        }
    };
    let lines = chosen.into_iter().filter_map(|step| Some(info(cluster, accepts(step)?, step)));
    Ok(lines.collect())
}

/// Jobs, and of each the steps that are meant; `None`: all of them.
type Named = BTreeMap<JobId, Option<BTreeSet<StepNumber>>>;

/// Jobs that selectors name, and of each the steps; `None` for all of a job. Nothing is said: `None`.
fn named(cluster: &Cluster, selectors: &[String]) -> Result<Option<Named>, Refusal> {
    if selectors.is_empty() {
        return Ok(None);
    }
    let mut jobs = BTreeMap::new();
    for text in selectors {
        match target(cluster, text)? {
            Target::Step(id, number) => {
                if let Some(steps) = jobs.entry(id).or_insert_with(|| Some(BTreeSet::new())) {
                    steps.insert(number);
                }
            }
            Target::Id(id) | Target::Job(id) | Target::Waiting(id) => {
                jobs.insert(id, None);
                jobs.extend(cluster.tasks_of(id).map(|job| (job.id, None)));
            }
            Target::Tasks(base, tasks) => {
                let meant = cluster
                    .tasks_of(base)
                    .filter(|job| job.array.is_some_and(|task| tasks.contains(task.index.0)));
                jobs.extend(meant.map(|job| (job.id, None)));
            }
        }
    }
    Ok(Some(jobs))
}

fn info(cluster: &Cluster, job: &Job, step: &Step) -> v1::StepInfo {
    let shares: Vec<NodeShare> = step.shares.iter().map(|part| part.share.clone()).collect();
    let run = job.run.as_ref().filter(|run| run.attempt == step.key.attempt);
    v1::StepInfo {
        step: Some(step_to_wire(cluster, step)),
        user_name: job.spec.details.user_name.to_string(),
        partition: run.map(|run| run.partition.to_string()).unwrap_or_default(),
        nodelist: compress(shares.iter().map(|share| cluster.node_name(share.node))),
        tres_allocated: Cluster::step_tres(&shares).to_string(),
    }
}

/// Steps of one run of a job, as its line carries them.
pub(super) fn steps_of(cluster: &Cluster, job: &Job, run: &Run) -> Vec<v1::Step> {
    let steps = cluster.steps_of_attempt(job.id, run.attempt);
    steps.map(|step| step_to_wire(cluster, step)).collect()
}
