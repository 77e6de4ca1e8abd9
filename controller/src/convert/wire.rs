//! What do agents and the controller say to each other about attempts, and what do commands get to
//! read?

use std::sync::Arc;

use bytes::Bytes;
use penstock_core::Cluster;
use penstock_core::command::{
    AttemptPhase, AttemptReport, Order, OrderKind, SignalOrder, Target, TargetResult,
};
use penstock_core::model::{Job, RunResult};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{Attempt, ExitCode, IndexSet, JobId, JobSelector};
use v1::controller_message::Body;

use super::bounds::malformed;
use super::codes;
use super::error::ConvertError;
use super::job::job_with_run;
use super::run::usage_from_wire;
use super::spec::{chain, walltime_secs};

pub use super::node::{inventory_from_wire, inventory_to_wire};
pub use super::update::{job_update_from_wire, node_update_from_wire};

/// Longest text of a launch error that is kept, in bytes.
const MAX_LAUNCH_ERROR: usize = 4 << 10;

/// What an agent says of an attempt.
///
/// # Errors
/// If the phase is unknown, or an ended attempt comes without its result.
pub fn report_from_wire(report: v1::AttemptReport) -> Result<AttemptReport, ConvertError> {
    let unknown =
        || ConvertError::UnknownCode { what: "attempt phase", code: i64::from(report.phase) };
    let phase = match v1::AttemptPhase::try_from(report.phase).map_err(|_| unknown())? {
        v1::AttemptPhase::Unspecified => return Err(unknown()),
        v1::AttemptPhase::Running => AttemptPhase::Running,
        v1::AttemptPhase::NeverStarted => AttemptPhase::NeverStarted,
        v1::AttemptPhase::Ended => {
            let what = "the result of an attempt that ended";
            let result = report.result.ok_or(ConvertError::Missing { what })?;
            AttemptPhase::Ended(Box::new(run_result(result)))
        }
    };
    Ok(AttemptReport { job: JobId(report.job_id), attempt: Attempt(report.attempt), phase })
}

/// How an attempt ended.
#[must_use]
pub fn run_result(result: v1::RunResult) -> RunResult {
    RunResult {
        exit: ExitCode::from_wait_status(result.wait_status),
        out_of_memory: result.out_of_memory,
        time_limit: result.time_limit,
        unkillable: result.unkillable,
        launch_error: cut(result.launch_error, MAX_LAUNCH_ERROR).into(),
        node_fault: result.node_fault,
        lost: result.lost,
        fenced: result.fenced,
        usage: result.usage.as_ref().map(usage_from_wire).unwrap_or_default(),
        elapsed_ms: result.elapsed_ms,
        // Measured by the controller, from samples.
        gpus: Arc::default(),
    }
}

fn cut(mut text: String, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What a node is told about an attempt; `None` for a launch, which needs more than the order (see
/// [`launch`]), and for a new limit of a job that is gone.
#[must_use]
pub fn order_to_wire(cluster: &Cluster, order: &Order, kill_wait_secs: u32) -> Option<Body> {
    let (job_id, attempt) = (order.job.0, order.attempt.0);
    match order.kind {
        OrderKind::Launch => None,
        OrderKind::Terminate(cause) => {
            let cause = codes::cause(cause) as i32;
            Some(Body::Terminate(v1::Terminate {
                job_id,
                attempt,
                cause,
                kill_wait_secs,
                step: None,
            }))
        }
        OrderKind::Signal(SignalOrder { signal, batch_only, full }) => {
            Some(Body::Signal(v1::SignalAttempt {
                job_id,
                attempt,
                signal,
                batch_only,
                full,
                step: None,
            }))
        }
        OrderKind::SetLimit => cluster.job(order.job).map(|job| {
            Body::SetLimit(v1::SetLimit {
                job_id,
                attempt,
                time_limit_secs: walltime_secs(job.time_limit),
                limit_serial: job.limit_serial,
                step: None,
            })
        }),
        OrderKind::Suspend | OrderKind::Resume => {
            let suspend = order.kind == OrderKind::Suspend;
            Some(Body::Suspend(v1::Suspend { job_id, attempt, suspend, step: None }))
        }
        OrderKind::Acknowledge => {
            Some(Body::Acknowledge(v1::Acknowledge { job_id, attempt, step: None }))
        }
    }
}

/// Everything needed to start a job's current run, but for the variables. `None` if it has no run.
#[must_use]
pub fn launch(
    cluster: &Cluster,
    job: &Job,
    script: Bytes,
    environment: Bytes,
    kill_wait_secs: u32,
    hosts: Vec<v1::HostAddress>,
) -> Option<v1::Launch> {
    let run = job.run.as_ref()?;
    Some(v1::Launch {
        job_id: job.id.0,
        attempt: run.attempt.0,
        job: Some(job_with_run(cluster, job, Some(run))),
        script,
        environment,
        cluster: cluster.config().cluster.to_string(),
        time_limit_secs: walltime_secs(job.time_limit),
        // What was promised of a lease holds, whatever the cluster file says by now.
        kill_wait_secs: run.lease.map_or(kill_wait_secs, |lease| lease.kill_wait_secs),
        limit_serial: job.limit_serial,
        hosts,
        variables: Vec::new(),
        unkillable_secs: 0,
        lease_secs: run.lease.map_or(0, |lease| lease.secs),
    })
}

/// A refusal as programs and people read it.
#[must_use]
pub fn refusal_to_wire(refusal: &Refusal) -> v1::Refusal {
    v1::Refusal {
        kind: refusal.kind().to_owned(),
        slurm_text: refusal.slurm_text().to_owned(),
        detail: refusal.to_string(),
    }
}

/// What became of one target, named as Slurm prints it.
#[must_use]
pub fn target_result_to_wire(cluster: &Cluster, result: &TargetResult) -> v1::JobResult {
    v1::JobResult {
        job: target_name(cluster, &result.target),
        refusal: result.refusal.as_ref().map(refusal_to_wire),
    }
}

/// A target as Slurm prints it: `12`, `12_3`, `12_[1-3]`.
#[must_use]
pub fn target_name(cluster: &Cluster, target: &Target) -> String {
    match target {
        Target::Id(id) | Target::Waiting(id) => id.to_string(),
        Target::Job(id) => match cluster.job(*id).and_then(|job| job.array) {
            Some(task) => format!("{}_{}", task.base, task.index),
            None => id.to_string(),
        },
        Target::Tasks(base, tasks) => match (tasks.first(), tasks.len()) {
            (Some(only), 1) => format!("{base}_{only}"),
            _ => format!("{base}_[{tasks}]"),
        },
    }
}

/// Reads selectors as people type them: `12`, `12_3`, `12_[1-3]`, `12_*`.
///
/// # Errors
/// If a text is no selector.
pub fn selectors(texts: &[String]) -> Result<Vec<Target>, Refusal> {
    texts.iter().map(|text| selector(text)).collect()
}

/// Reads one selector, as [`selectors`].
///
/// # Errors
/// If the text is no selector.
pub fn selector(text: &str) -> Result<Target, Refusal> {
    let parsed = text.trim().parse::<JobSelector>();
    let parsed = parsed.map_err(|error| malformed(Malformed::Other, chain(&error)))?;
    Ok(match parsed {
        JobSelector::Job(id) | JobSelector::AllTasks(id) => Target::Id(id),
        JobSelector::Task(id, task) => Target::Tasks(id, IndexSet::from_range(task.0, task.0, 1)),
        JobSelector::Tasks(id, tasks) => Target::Tasks(id, tasks),
    })
}
