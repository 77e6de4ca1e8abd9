//! Which jobs does a change mean that names them by filters, as `scancel -u` does?

use penstock_core::command::Target;
use penstock_core::refusal::Refusal;
use penstock_proto::v1;
use penstock_vocab::{JobFlags, JobState};

use super::View;
use super::filter::Filter;
use crate::convert::wire::target;

/// What a filter comes to: its selectors as they are where it has nothing else, otherwise every job
/// and every waiting rest of an array that it accepts and that is not over. Cost: all jobs.
///
/// # Errors
/// If a text of the filter can't be read.
pub fn targets(view: &View<'_>, wanted: &v1::JobFilter) -> Result<Vec<Target>, Refusal> {
    let filter = Filter::of_jobs(wanted)?;
    let bare = v1::JobFilter { selectors: wanted.selectors.clone(), ..v1::JobFilter::default() };
    if *wanted == bare {
        return Ok(filter.targets);
    }
    let cluster = view.cluster;
    let mut targets = Vec::new();
    for job in cluster.jobs().filter(|job| !job.is_over()) {
        let run = job.run.as_deref();
        let accepted = filter.accepts_state(job.state, job.flags())
            && filter.accepts_spec(job.uid, &job.spec)
            && filter.accepts_place(cluster, cluster, &job.spec, run)
            && (filter.targets.is_empty()
                || filter.targets.iter().any(|target| means(target, job)));
        if accepted {
            targets.push(Target::Job(job.id));
        }
    }
    for array in cluster.arrays().filter(|array| !array.pending.is_empty()) {
        let pending = match filter.targets.is_empty() {
            true => array.pending.clone(),
            false => named(&filter.targets, array),
        };
        let accepted = !pending.is_empty()
            && filter.accepts_state(JobState::Pending, JobFlags::EMPTY)
            && filter.accepts_spec(array.uid, &array.spec)
            && filter.accepts_place(cluster, cluster, &array.spec, None);
        if accepted {
            targets.push(Target::Tasks(array.id, pending));
        }
    }
    Ok(targets)
}

/// As [`targets`], where selectors may name steps too: of a job that the rest of the filter accepts.
///
/// # Errors
/// As there, or if a step of an array task is named that has not started.
pub fn targets_and_steps(view: &View<'_>, wanted: &v1::JobFilter) -> Result<Vec<Target>, Refusal> {
    let (steps, jobs): (Vec<String>, Vec<String>) =
        wanted.selectors.iter().cloned().partition(|text| text.contains('.'));
    if steps.is_empty() {
        return targets(view, wanted);
    }
    let with = |selectors| v1::JobFilter { selectors, ..wanted.clone() };
    let mut found = if jobs.is_empty() { Vec::new() } else { targets(view, &with(jobs))? };
    for text in &steps {
        let step = target(view.cluster, text)?;
        if !targets(view, &with(vec![step.id().to_string()]))?.is_empty() {
            found.push(step);
        }
    }
    Ok(found)
}

/// Whether a selector means this job.
pub(super) fn means(target: &Target, job: &penstock_core::model::Job) -> bool {
    match target {
        Target::Id(id) => job.id == *id || job.array.is_some_and(|task| task.base == *id),
        Target::Job(id) | Target::Step(id, _) => job.id == *id,
        Target::Waiting(_) => false,
        Target::Tasks(base, tasks) => {
            job.array.is_some_and(|task| task.base == *base && tasks.contains(task.index.0))
        }
    }
}

/// The waiting tasks of an array that selectors mean.
pub(super) fn named(
    targets: &[Target],
    array: &penstock_core::model::Array,
) -> penstock_vocab::IndexSet {
    let mut found = penstock_vocab::IndexSet::new();
    for target in targets {
        match target {
            Target::Id(id) if *id == array.id => return array.pending.clone(),
            Target::Tasks(base, tasks) if *base == array.id => {
                found = found.union(&array.pending.intersection(tasks));
            }
            Target::Id(_)
            | Target::Job(_)
            | Target::Waiting(_)
            | Target::Tasks(..)
            | Target::Step(..) => {}
        }
    }
    found
}
