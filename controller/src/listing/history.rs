//! Which lines does an ended job leave behind in the history, and how are they read?

use std::collections::HashMap;

use bytes::Bytes;
use penstock_core::Cluster;
use penstock_core::command::Unit;
use penstock_core::model::{Array, Job, JobSpec, NodeIndex, Run};
use penstock_proto::{RECORD_FORMAT, v1};
use penstock_vocab::{
    JobFlag, JobFlags, JobState, NameError, NodeName, PartitionName, Timestamp, UserId,
};
use prost::Message;
use std::sync::Arc;

use super::info::{array_outline, requeued};
use super::steps::steps_of;
use crate::convert::ConvertError;
use crate::convert::array::indices_to_wire;
use crate::convert::job::{SpecSharing, job_with_run};
use crate::convert::run::{NodeNames, NodePlaces};
use crate::convert::spec::{spec_from_wire, spec_to_wire};
use crate::store::HistoryEntry;

/// Attempt under which the line about an array's cancelled tasks stands; runs count from 1.
pub(super) const REST_ATTEMPT: u32 = 0;

/// What a unit leaves in the history when it retires: a line for each run, the oldest first, or one
/// for a job that never ran; and one for the tasks of an array that were cancelled before they
/// started. Doing it twice gives the same lines.
#[must_use]
pub fn history_entries(cluster: &Cluster, unit: Unit) -> Vec<HistoryEntry> {
    match unit {
        Unit::Job(id) => match cluster.job(id) {
            Some(job) => JobLine::of(job).iter().flat_map(|line| line.entries(cluster)).collect(),
            None => Vec::new(),
        },
        Unit::Array(id) => match cluster.array(id) {
            Some(array) => cancelled_rest(array).into_iter().collect(),
            None => Vec::new(),
        },
    }
}

/// What the earlier runs of a job leave in the history, which goes on itself. Doing it twice gives the
/// same lines.
#[must_use]
pub fn earlier_entries(cluster: &Cluster, job: &Job) -> Vec<HistoryEntry> {
    let lines = JobLine::of(job);
    lines.iter().filter(|line| line.earlier).flat_map(|line| line.entries(cluster)).collect()
}

/// One line of accounting about a job: one of its runs, or that it has not run (again).
#[derive(Debug, Clone, Copy)]
pub(super) struct JobLine<'a> {
    pub(super) job: &'a Job,
    pub(super) run: Option<&'a Run>,
    /// The run is not the last: the job went back to the queue after it.
    pub(super) earlier: bool,
}

impl<'a> JobLine<'a> {
    /// All lines of a job, the oldest first. The last one tells how it stands, or how it ended.
    pub(super) fn of(job: &'a Job) -> Vec<Self> {
        let earlier = job.earlier_runs.iter();
        let earlier = earlier.map(|run| Self { job, run: Some(run.as_ref()), earlier: true });
        let last = Self { job, run: job.run.as_deref(), earlier: false };
        earlier.chain([last]).collect()
    }

    /// The line's number among those of its job. A wait that led to no run counts as one.
    pub(super) fn attempt(&self) -> u32 {
        self.run.map_or_else(|| self.job.last_attempt.next().0, |run| run.attempt.0)
    }

    pub(super) fn state(&self) -> JobState {
        match self.run.filter(|_| self.earlier) {
            Some(run) => run.end_state.unwrap_or(JobState::Pending),
            None => self.job.state,
        }
    }

    pub(super) fn flags(&self) -> JobFlags {
        match self.run.filter(|_| self.earlier) {
            Some(run) if requeued(run) => JobFlags::EMPTY.with(JobFlag::Requeued),
            Some(_) => JobFlags::EMPTY,
            None => self.job.flags(),
        }
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        match self.run {
            Some(run) => run.end_time,
            None => self.job.end_time,
        }
    }

    /// Since when it could have started: of an earlier run only the bounds are known.
    pub(super) fn eligible(&self) -> Timestamp {
        let known = self
            .job
            .eligible_time
            .filter(|eligible| self.run.is_none_or(|run| *eligible <= run.start_time));
        known.unwrap_or(self.job.submit_time)
    }

    /// The job's record with this line's run alone, in the state of the line.
    pub(super) fn record(&self, nodes: &impl NodeNames) -> v1::Job {
        let mut record = job_with_run(nodes, self.job, self.run);
        record.state = self.state().code();
        record.flags = self.flags().bits();
        if self.earlier {
            record.end_ms = self.end().map_or(0, |end| end.0);
            record.eligible_ms = self.eligible().0;
            record.reason = 0;
        }
        record
    }

    /// The line with the steps of its run, and further lines where these are too many for one.
    fn entries(&self, cluster: &Cluster) -> Vec<HistoryEntry> {
        let steps = self.run.map_or_else(Vec::new, |run| steps_of(cluster, self.job, run));
        let mut parts = portions(steps).into_iter();
        let first = v1::HistoryRecord {
            job: Some(self.record(cluster)),
            steps: parts.next().unwrap_or_default(),
            ..empty_line()
        };
        let more = parts.take(MOST_PORTIONS as usize).map(|steps| v1::HistoryRecord {
            job: Some(v1::Job { id: self.job.id.0, uid: self.job.uid.0, ..v1::Job::default() }),
            steps,
            steps_of_attempt: self.attempt(),
            ..empty_line()
        });
        let more =
            more.zip(0u32..).map(|(line, at)| (line, more_steps_attempt(self.attempt(), at)));
        std::iter::once((first, self.attempt()))
            .chain(more)
            .map(|(line, attempt)| HistoryEntry {
                job: self.job.id.0,
                attempt,
                uid: self.job.uid.0,
                end_ms: self.end().unwrap_or(self.job.submit_time).0,
                body: Bytes::from(line.encode_to_vec()),
            })
            .collect()
    }
}

/// Bytes of the steps in one line.
const STEP_BYTES: usize = 1 << 20;
/// Further lines about the steps of one run.
const MOST_PORTIONS: u32 = 1 << 12;

/// Steps in portions of some bytes.
fn portions(steps: Vec<v1::Step>) -> Vec<Vec<v1::Step>> {
    let mut portions: Vec<Vec<v1::Step>> = Vec::new();
    let mut bytes = 0;
    for step in steps {
        let more = step.encoded_len();
        match portions.last_mut().filter(|_| bytes + more <= STEP_BYTES) {
            Some(portion) => {
                portion.push(step);
                bytes += more;
            }
            None => {
                portions.push(vec![step]);
                bytes = more;
            }
        }
    }
    portions
}

/// The number under which a further line stands; no attempt of a job has it.
fn more_steps_attempt(attempt: u32, portion: u32) -> u32 {
    1 << 31 | (attempt & 0x7_ffff) << 12 | portion
}

fn empty_line() -> v1::HistoryRecord {
    v1::HistoryRecord { format: RECORD_FORMAT, ..v1::HistoryRecord::default() }
}

fn cancelled_rest(array: &Array) -> Option<HistoryEntry> {
    let (record, at) = cancelled_record(array)?;
    let cancelled_tasks = Some(indices_to_wire(&array.cancelled));
    let line = v1::HistoryRecord { job: Some(record), cancelled_tasks, ..empty_line() };
    Some(HistoryEntry {
        job: array.id.0,
        attempt: REST_ATTEMPT,
        uid: array.uid.0,
        end_ms: at.0,
        body: Bytes::from(line.encode_to_vec()),
    })
}

/// The tasks of an array that were cancelled before they started, as a job, and when that was.
pub(super) fn cancelled_record(array: &Array) -> Option<(v1::Job, Timestamp)> {
    if array.cancelled.is_empty() {
        return None;
    }
    let (at, by) = array.cancelled_at.unwrap_or((array.submit_time, UserId(0)));
    let record = v1::Job {
        spec: Some(spec_to_wire(&array.spec)),
        eligible_ms: array.submit_time.0,
        end_ms: at.0,
        cancelled_by_uid: by.0,
        cancelled_by_user: true,
        ..array_outline(array, JobState::Cancelled)
    };
    Some((record, at))
}

/// Nodes of lines of the history, which may be gone from the cluster.
#[derive(Debug, Default)]
pub(super) struct OldNodes {
    names: Vec<NodeName>,
    places: HashMap<NodeName, NodeIndex>,
}

impl NodeNames for OldNodes {
    fn node_name(&self, index: NodeIndex) -> &str {
        self.names.get(index.get()).map_or("", NodeName::as_str)
    }
}

impl NodePlaces for OldNodes {
    fn place(&mut self, name: &str) -> Result<NodeIndex, NameError> {
        if let Some(index) = self.places.get(name) {
            return Ok(*index);
        }
        let name = NodeName::new(name)?;
        let index = NodeIndex(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.clone());
        self.places.insert(name, index);
        Ok(index)
    }
}

impl SpecSharing for OldNodes {
    fn shared_spec(&mut self, spec: Option<v1::JobSpec>) -> Result<Arc<JobSpec>, ConvertError> {
        let spec = spec.ok_or(ConvertError::Missing { what: "the job's request" })?;
        spec_from_wire(spec, &mut PartitionName::new)
            .map(Arc::new)
            .map_err(|refusal| ConvertError::invalid("the job's request", refusal))
    }
}
