//! How is a job stored and sent?

use std::sync::Arc;

use penstock_core::cluster::Records;
use penstock_core::model::{ArrayTask, Job, JobSpec, Run};
use penstock_proto::v1;
use penstock_vocab::{ArrayTaskId, Attempt, GroupId, JobId, PartitionName, Timestamp, UserId};

use super::array::{summary_from_wire, summary_to_wire};
use super::codes;
use super::cron::{cron_from_wire, cron_to_wire};
use super::error::ConvertError;
use super::run::{NodeNames, NodePlaces, run_from_wire, run_to_wire};
use super::spec;

/// Reads requests so that equal ones may share their memory.
pub trait SpecSharing {
    /// Reads a request, or finds one that is equal to it.
    ///
    /// # Errors
    /// If it is missing or a text in it can't be read.
    fn shared_spec(&mut self, spec: Option<v1::JobSpec>) -> Result<Arc<JobSpec>, ConvertError>;
}

impl SpecSharing for Records {
    fn shared_spec(&mut self, spec: Option<v1::JobSpec>) -> Result<Arc<JobSpec>, ConvertError> {
        read_spec(spec, &mut PartitionName::new).map(Arc::new)
    }
}

pub(super) fn read_spec(
    spec: Option<v1::JobSpec>,
    partition: &mut dyn FnMut(&str) -> Result<PartitionName, penstock_vocab::NameError>,
) -> Result<JobSpec, ConvertError> {
    let spec = spec.ok_or(ConvertError::Missing { what: "the job's request" })?;
    spec::spec_from_wire(spec, partition)
        .map_err(|refusal| ConvertError::invalid("the job's request", refusal))
}

/// A job as the wire and the store have it, with all its runs.
#[must_use]
pub fn job_to_wire(nodes: &impl NodeNames, job: &Job) -> v1::Job {
    let mut wire = job_without_runs(job);
    wire.run = job.run.as_ref().map(|run| run_to_wire(nodes, run));
    wire.earlier_runs = job.earlier_runs.iter().map(|run| run_to_wire(nodes, run)).collect();
    wire
}

/// A job with one run in the place of all.
#[must_use]
pub fn job_with_run(nodes: &impl NodeNames, job: &Job, run: Option<&Run>) -> v1::Job {
    let mut wire = job_without_runs(job);
    wire.run = run.map(|run| run_to_wire(nodes, run));
    wire
}

fn job_without_runs(job: &Job) -> v1::Job {
    v1::Job { spec: Some(spec::spec_to_wire(&job.spec)), ..job_outline(job) }
}

/// A job without its request and its runs.
pub(crate) fn job_outline(job: &Job) -> v1::Job {
    v1::Job {
        id: job.id.0,
        uid: job.uid.0,
        gid: job.gid.0,
        spec: None,
        state: job.state.code(),
        flags: job.flags().bits(),
        submit_ms: job.submit_time.0,
        eligible_ms: codes::moment(job.eligible_time),
        hold: codes::hold(job.hold) as i32,
        restarts: job.restarts,
        run: None,
        earlier_runs: Vec::new(),
        array_job_id: job.array.map_or(0, |task| task.base.0),
        array_task_id: job.array.map(|task| task.index.0),
        fixed_priority: job.fixed_priority,
        end_ms: codes::moment(job.end_time),
        cancelled_by_uid: job.cancelled_by.map_or(0, |uid| uid.0),
        not_before_ms: job.not_before.0,
        last_attempt: job.last_attempt.0,
        reason: codes::reason(job.reason),
        time_limit_secs: spec::walltime_secs(job.time_limit),
        limit_serial: job.limit_serial,
        array: job.array.map(|task| summary_to_wire(&task.summary)),
        cancelled_by_user: job.cancelled_by.is_some(),
        association: job.assoc.0,
        cron: job.cron.as_deref().map(cron_to_wire),
    }
}

/// Inverse of [`job_to_wire`]. Flags follow from the runs and are not read.
///
/// # Errors
/// If a part is missing, a code unknown, or a text can't be read.
pub fn job_from_record<P>(job: v1::Job, places: &mut P) -> Result<Job, ConvertError>
where
    P: NodePlaces + SpecSharing,
{
    let mut earlier_runs = Vec::with_capacity(job.earlier_runs.len());
    for run in job.earlier_runs {
        earlier_runs.push(Arc::new(run_from_wire(run, places)?));
    }
    let run = match job.run {
        Some(run) => Some(Arc::new(run_from_wire(run, places)?)),
        None => None,
    };
    let array = match (job.array_task_id, &job.array) {
        (Some(index), Some(summary)) => Some(ArrayTask {
            base: JobId(job.array_job_id),
            index: ArrayTaskId(index),
            summary: summary_from_wire(summary),
        }),
        (Some(_), None) => return Err(ConvertError::Missing { what: "the task's array" }),
        (None, _) => None,
    };
    Ok(Job {
        id: JobId(job.id),
        uid: UserId(job.uid),
        gid: GroupId(job.gid),
        assoc: codes::association(job.association),
        spec: places.shared_spec(job.spec)?,
        state: codes::state_from(job.state)?,
        submit_time: Timestamp(job.submit_ms),
        eligible_time: codes::moment_from(job.eligible_ms),
        hold: codes::hold_from(job.hold)?,
        restarts: job.restarts,
        run,
        earlier_runs,
        array,
        fixed_priority: job.fixed_priority,
        end_time: codes::moment_from(job.end_ms),
        cancelled_by: job.cancelled_by_user.then_some(UserId(job.cancelled_by_uid)),
        not_before: Timestamp(job.not_before_ms),
        last_attempt: Attempt(job.last_attempt),
        reason: codes::reason_from(job.reason)?,
        time_limit: spec::walltime(job.time_limit_secs),
        limit_serial: job.limit_serial,
        cron: job.cron.map(cron_from_wire).transpose()?.map(Arc::new),
    })
}
