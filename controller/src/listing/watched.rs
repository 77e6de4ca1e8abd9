//! Which changes does somebody follow, and what is told of them?

use penstock_core::model::{Array, Job};
use penstock_core::refusal::Refusal;
use penstock_proto::v1;
use penstock_vocab::JobState;

use super::View;
use super::filter::Filter;
use super::info::{Detail, array_outline, job_info, rest_info};
use super::targets::{means, named};

/// A filter for changes.
#[derive(Debug)]
pub struct Watched {
    filter: Filter,
    detail: Detail,
}

impl Watched {
    /// Reads a request.
    ///
    /// # Errors
    /// If a text of the filter can't be read.
    pub fn new(request: &v1::WatchJobsRequest) -> Result<Self, Refusal> {
        let none = v1::JobFilter::default();
        let filter = Filter::of_jobs(request.filter.as_ref().unwrap_or(&none))?;
        Ok(Self { filter, detail: if request.full { Detail::Full } else { Detail::Brief } })
    }

    /// A job as it was at a change, if it is followed.
    #[must_use]
    pub fn job(&self, view: &View<'_>, job: &Job) -> Option<v1::JobInfo> {
        let (filter, cluster) = (&self.filter, view.cluster);
        let targets = &filter.targets;
        let wanted = (targets.is_empty() || targets.iter().any(|target| means(target, job)))
            && filter.accepts_spec(job.uid, &job.spec)
            && filter.accepts_place(cluster, cluster, &job.spec, job.run.as_deref());
        wanted.then(|| job_info(*view, job, self.detail))
    }

    /// What waits of an array, if it is followed; an outline where nothing does.
    #[must_use]
    pub fn array(&self, view: &View<'_>, array: &Array) -> Option<v1::JobInfo> {
        let (filter, cluster) = (&self.filter, view.cluster);
        let targets = &filter.targets;
        let waiting =
            if targets.is_empty() { array.pending.clone() } else { named(targets, array) };
        let meant = targets.is_empty() || targets.iter().any(|target| target.id() == array.id);
        let wanted = meant
            && filter.accepts_spec(array.uid, &array.spec)
            && filter.accepts_place(cluster, cluster, &array.spec, None);
        wanted.then(|| match waiting.is_empty() {
            true => v1::JobInfo {
                job: Some(array_outline(array, JobState::Pending)),
                pending_tasks: Some(v1::IndexRuns::default()),
                ..v1::JobInfo::default()
            },
            false => rest_info(*view, array, &waiting, self.detail),
        })
    }
}
