//! Which jobs stand in the queue, and what does each line say?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_core::command::Target;
use penstock_core::model::{Array, Job};
use penstock_core::refusal::Refusal;
use penstock_proto::v1;
use penstock_vocab::{IndexSet, JobFlags, JobId, JobState};

use super::View;
use super::filter::Filter;
use super::info::{
    Detail, Queued, as_single_task, cancelled_info, job_info, job_with_steps, queued_job_info,
    rest_info,
};

/// The lines of a listing, made one by one as they are asked for.
pub struct JobList<'a> {
    unknown: Vec<String>,
    lines: Box<dyn Iterator<Item = v1::JobInfo> + 'a>,
}

impl JobList<'_> {
    /// Selectors that name no known job.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}

impl Iterator for JobList<'_> {
    type Item = v1::JobInfo;

    fn next(&mut self) -> Option<v1::JobInfo> {
        self.lines.next()
    }
}

/// Where a listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// From its beginning.
    Nothing,
    /// Behind this job.
    Job(JobId),
    /// Behind what is told of this array.
    Array(JobId),
}

/// Lists jobs by number, then what waits of arrays and what was cancelled of them before it started.
/// Without states, only what is not over. Costs what is looked at: all jobs, or those selected.
///
/// # Errors
/// If a text of the request can't be read.
pub fn list_jobs<'a>(
    view: &View<'a>,
    request: &v1::ListJobsRequest,
) -> Result<JobList<'a>, Refusal> {
    list_jobs_after(view, request, After::Nothing)
}

/// As [`list_jobs`], without what comes before. Selected jobs are listed as a whole.
///
/// # Errors
/// As [`list_jobs`].
pub fn list_jobs_after<'a>(
    view: &View<'a>,
    request: &v1::ListJobsRequest,
    after: After,
) -> Result<JobList<'a>, Refusal> {
    let view = *view;
    let no_filter = v1::JobFilter::default();
    let wanted = request.filter.as_ref().unwrap_or(&no_filter);
    let filter = Arc::new(Filter::of_jobs(wanted)?);
    let many = filter.targets.is_empty() && !request.full;
    let lister = Lister {
        view,
        filter: Arc::clone(&filter),
        all_states: request.all_states,
        expand: request.expand_arrays,
        detail: if request.full { Detail::Full } else { Detail::Brief },
        queued: many.then(|| Arc::new(Queued::of(view))),
    };
    if filter.targets.is_empty() {
        let arrays = lister.clone();
        let from = match after {
            After::Nothing => Some(JobId(0)),
            After::Job(id) => id.0.checked_add(1).map(JobId),
            After::Array(_) => None,
        };
        let jobs = from.into_iter().flat_map(|from| view.cluster.jobs_from(from));
        let jobs = jobs.filter_map(move |job| lister.job(job));
        let left = move |array: &&Arc<Array>| match after {
            After::Array(id) => array.id > id,
            After::Nothing | After::Job(_) => true,
        };
        let rests = view.cluster.arrays().filter(left).flat_map(move |array| {
            let mut lines = arrays.rest(array, &array.pending, false);
            lines.extend(arrays.gone(array, &array.cancelled, false));
            lines
        });
        return Ok(JobList { unknown: Vec::new(), lines: Box::new(jobs.chain(rests)) });
    }
    let chosen = Chosen::of(view, &filter.targets);
    let unknown = chosen.unknown.iter().map(|at| wanted.selectors[*at].clone()).collect();
    let arrays = lister.clone();
    let jobs = chosen.jobs.into_iter().filter_map(move |id| lister.job(view.cluster.job(id)?));
    let rests = chosen.rests.into_iter().flat_map(move |(id, rest)| {
        let Some(array) = view.cluster.array(id) else { return Vec::new() };
        let mut lines = arrays.rest(array, &rest.waiting, rest.by_task);
        lines.extend(arrays.gone(array, &rest.cancelled, rest.by_task));
        lines
    });
    Ok(JobList { unknown, lines: Box::new(jobs.chain(rests)) })
}

#[derive(Clone)]
struct Lister<'a> {
    view: View<'a>,
    filter: Arc<Filter>,
    all_states: bool,
    expand: bool,
    detail: Detail,
    /// In brief listings of all jobs.
    queued: Option<Arc<Queued>>,
}

impl Lister<'_> {
    fn job(&self, job: &Job) -> Option<v1::JobInfo> {
        let filter = &self.filter;
        let state = if filter.states.is_empty() {
            self.all_states || !job.is_over()
        } else {
            filter.accepts_state(job.state, job.flags())
        };
        let cluster = self.view.cluster;
        let wanted = state
            && filter.accepts_spec(job.uid, &job.spec)
            && filter.accepts_place(cluster, cluster, &job.spec, job.run.as_deref());
        wanted.then(|| match &self.queued {
            Some(queued) => queued_job_info(self.view, job, queued),
            None if self.detail == Detail::Full => job_with_steps(self.view, job),
            None => job_info(self.view, job, self.detail),
        })
    }

    /// Lines about tasks that wait; `by_task`: somebody named them one by one.
    fn rest(&self, array: &Array, tasks: &IndexSet, by_task: bool) -> Vec<v1::JobInfo> {
        let filter = &self.filter;
        let cluster = self.view.cluster;
        let wanted = !tasks.is_empty()
            && filter.accepts_state(JobState::Pending, JobFlags::EMPTY)
            && filter.accepts_spec(array.uid, &array.spec)
            && filter.accepts_place(cluster, cluster, &array.spec, None);
        if !wanted {
            return Vec::new();
        }
        self.split(rest_info(self.view, array, tasks, self.detail), tasks, by_task)
    }

    /// Lines about tasks that were cancelled before they started.
    fn gone(&self, array: &Array, tasks: &IndexSet, by_task: bool) -> Vec<v1::JobInfo> {
        let filter = &self.filter;
        let cluster = self.view.cluster;
        let state = if filter.states.is_empty() {
            self.all_states
        } else {
            filter.accepts_state(JobState::Cancelled, JobFlags::EMPTY)
        };
        let wanted = state
            && !tasks.is_empty()
            && filter.accepts_spec(array.uid, &array.spec)
            && filter.accepts_place(cluster, cluster, &array.spec, None);
        if !wanted {
            return Vec::new();
        }
        let info = cancelled_info(self.view, array, tasks, self.detail);
        info.map_or_else(Vec::new, |info| self.split(info, tasks, by_task))
    }

    /// A line about tasks as it is, or one for each of them.
    fn split(&self, info: v1::JobInfo, tasks: &IndexSet, by_task: bool) -> Vec<v1::JobInfo> {
        let one_by_one = self.expand || (by_task && tasks.len() == 1);
        if !one_by_one {
            return vec![info];
        }
        let single = |index| {
            let mut line = info.clone();
            as_single_task(&mut line, index);
            line
        };
        tasks.iter().map(single).collect()
    }
}

/// What selectors select.
#[derive(Default)]
struct Chosen {
    jobs: BTreeSet<JobId>,
    rests: BTreeMap<JobId, Rest>,
    /// Places of selectors that select nothing.
    unknown: Vec<usize>,
}

/// Tasks of an array that have no records of their own.
struct Rest {
    waiting: IndexSet,
    cancelled: IndexSet,
    /// Somebody named them one by one.
    by_task: bool,
}

impl Chosen {
    fn of(view: View<'_>, targets: &[Target]) -> Self {
        let mut chosen = Self::default();
        for (at, target) in targets.iter().enumerate() {
            if !chosen.add(view, target) {
                chosen.unknown.push(at);
            }
        }
        chosen
    }

    fn add(&mut self, view: View<'_>, target: &Target) -> bool {
        let cluster = view.cluster;
        match target {
            Target::Job(id) | Target::Step(id, _) => {
                self.jobs.insert(*id);
                cluster.job(*id).is_some()
            }
            // No selector reads so; a listing shows the whole array.
            Target::Id(id) | Target::Waiting(id) => {
                let before = self.jobs.len();
                self.jobs.extend(cluster.job(*id).map(|job| job.id));
                self.jobs.extend(cluster.tasks_of(*id).map(|job| job.id));
                let array = cluster.array(*id);
                if let Some(array) = array {
                    self.add_rest(*id, array.pending.clone(), array.cancelled.clone(), false);
                }
                array.is_some() || self.jobs.len() > before || cluster.job(*id).is_some()
            }
            Target::Tasks(base, tasks) => {
                let mut known = false;
                for job in cluster.tasks_of(*base) {
                    if job.array.is_some_and(|task| tasks.contains(task.index.0)) {
                        known = true;
                        self.jobs.insert(job.id);
                    }
                }
                let Some(array) = cluster.array(*base) else { return known };
                let waiting = array.pending.intersection(tasks);
                let cancelled = array.cancelled.intersection(tasks);
                // Of tasks that ended the array keeps no list, so any index it had will do.
                known |= tasks.first().is_some_and(|first| first <= array.summary.max);
                self.add_rest(*base, waiting, cancelled, true);
                known
            }
        }
    }

    fn add_rest(&mut self, base: JobId, waiting: IndexSet, cancelled: IndexSet, by_task: bool) {
        match self.rests.get_mut(&base) {
            Some(rest) => {
                rest.waiting = rest.waiting.union(&waiting);
                rest.cancelled = rest.cancelled.union(&cancelled);
                rest.by_task &= by_task;
            }
            None => {
                self.rests.insert(base, Rest { waiting, cancelled, by_task });
            }
        }
    }
}
