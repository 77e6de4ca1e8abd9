//! What do agents and the controller say to each other about attempts, and what do commands get to
//! read?

use std::sync::Arc;

use bytes::Bytes;
use penstock_core::Cluster;
use penstock_core::command::{
    AttemptPhase, AttemptReport, Order, OrderKind, SignalOrder, Target, TargetResult,
};
use penstock_core::model::{GPU, Job, NodeIndex, Run, RunResult, StepKey, StepNumber};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::job_variables::job_environment;
use penstock_proto::v1;
use penstock_vocab::{
    Attempt, ExitCode, GresName, IndexSet, JobId, JobSelector, StepId, StepSelector,
};
use v1::controller_message::Body;

use super::bounds::malformed;
use super::codes;
use super::error::ConvertError;
use super::job::job_with_run;
use super::run::{NodeNames, share_to_wire, usage_from_wire};
use super::spec::{chain, walltime_secs};
use super::step::{part_to_wire, step_to_wire};

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
    Ok(AttemptReport {
        job: JobId(report.job_id),
        attempt: Attempt(report.attempt),
        step: report.step.map(StepNumber),
        phase,
    })
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
        devices_changed: result.devices_changed,
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
    let (job_id, attempt, step) = (order.job.0, order.attempt.0, order.step.map(|n| n.0));
    match order.kind {
        OrderKind::Launch => None,
        OrderKind::Terminate(cause) => {
            let cause = codes::cause(cause) as i32;
            Some(Body::Terminate(v1::Terminate { job_id, attempt, cause, kill_wait_secs, step }))
        }
        OrderKind::Signal(SignalOrder { signal, batch_only, full }) => {
            Some(Body::Signal(v1::SignalAttempt {
                job_id,
                attempt,
                signal,
                batch_only,
                full,
                step,
            }))
        }
        OrderKind::SetLimit => {
            let job = cluster.job(order.job)?;
            let limit = match order.step {
                Some(number) => {
                    let key = StepKey { job: order.job, attempt: order.attempt, number };
                    cluster.step(key)?.limit_within(job.time_limit)
                }
                None => job.time_limit,
            };
            Some(Body::SetLimit(v1::SetLimit {
                job_id,
                attempt,
                time_limit_secs: walltime_secs(limit),
                limit_serial: job.limit_serial,
                step,
            }))
        }
        OrderKind::Suspend | OrderKind::Resume => {
            let suspend = order.kind == OrderKind::Suspend;
            Some(Body::Suspend(v1::Suspend { job_id, attempt, suspend, step }))
        }
        OrderKind::Acknowledge => {
            Some(Body::Acknowledge(v1::Acknowledge { job_id, attempt, step }))
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
    let mut message = job_with_run(cluster, job, Some(run));
    let first = message.run.as_mut().and_then(|run| run.shares.first_mut());
    if let (Some(share), Some(node)) = (first, run.batch_node()) {
        name_slices(cluster, node, share, Generation::This);
    }
    Some(v1::Launch {
        job_id: job.id.0,
        attempt: run.attempt.0,
        job: Some(message),
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
        task_prolog: String::new(),
        task_epilog: String::new(),
        measure_secs: 0,
    })
}

/// Whether a launch names the generation of its slices' layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    This,
    Any,
}

/// Says in a launch which slices of its node the numbers of a share are.
fn name_slices(
    cluster: &Cluster,
    node: NodeIndex,
    share: &mut v1::NodeShare,
    generation: Generation,
) {
    let Some((node, _)) = cluster.node(node) else { return };
    for gres in share.gres.iter_mut().filter(|gres| gres.name == GPU) {
        let kind = (!gres.r#type.is_empty()).then_some(gres.r#type.as_str());
        let Ok(name) = GresName::new(&gres.name, kind) else { continue };
        let known = |id: &u32| {
            let device = node.inventory.device(&name, *id)?;
            let Some(slice) = device.slice else { return Some(v1::GresSlice::default()) };
            let generation = match generation {
                Generation::This => device.gpu.generation,
                Generation::Any => 0,
            };
            Some(v1::GresSlice { uuid: slice.uuid.to_string(), generation })
        };
        let slices: Option<Vec<_>> = gres.ids.iter().map(known).collect();
        gres.slices = slices
            .filter(|slices| slices.iter().any(|slice| !slice.uuid.is_empty()))
            .unwrap_or_default();
    }
}

/// Everything that one node needs to start its part of a step, but for what the daemon keeps apart:
/// srun's addresses and the secret. `None` if that part is no longer wanted.
#[must_use]
pub fn launch_step(
    cluster: &Cluster,
    key: StepKey,
    node: NodeIndex,
    kill_wait_secs: u32,
    hosts: Vec<v1::HostAddress>,
) -> Option<v1::LaunchStep> {
    let step = cluster.step(key)?;
    let job = cluster.job(key.job)?;
    let run = job.active_run().filter(|run| run.attempt == key.attempt)?;
    let at = step.shares.iter().position(|part| part.share.node == node)?;
    let part = step.shares.get(at).filter(|part| part.is_live())?;
    let job_share = run.shares.iter().find(|share| share.node == node)?;
    let names = |index| cluster.node_name(index).to_owned();
    let address = |index| {
        let node = cluster.node(index).map(|(node, _)| node.inventory.address.to_string());
        node.unwrap_or_default()
    };
    let mut message = step_to_wire(cluster, step);
    let mut own = part_to_wire(cluster, part);
    if let Some(share) = &mut own.share {
        // The job holds them: they stay while others of their GPU are cut.
        name_slices(cluster, node, share, Generation::Any);
    }
    message.shares = vec![own];
    let nodes = || step.shares.iter().map(|part| part.share.node);
    let details = &job.spec.details;
    Some(v1::LaunchStep {
        step: Some(message),
        node_index: u32::try_from(at).unwrap_or(u32::MAX),
        step_nodes: nodes().map(names).collect(),
        step_tasks: step.shares.iter().map(|part| part.share.tasks).collect(),
        gid: job.gid.0,
        user_name: details.user_name.to_string(),
        group_name: details.group_name.to_string(),
        cluster: cluster.config().cluster.to_string(),
        time_limit_secs: walltime_secs(step.limit_within(job.time_limit)),
        kill_wait_secs: run.lease.map_or(kill_wait_secs, |lease| lease.kill_wait_secs),
        unkillable_secs: 0,
        measure_secs: 0,
        hosts,
        variables: variables(cluster, job, run),
        addresses: Vec::new(),
        port: 0,
        secret: Bytes::new(),
        lease_secs: run.lease.map_or(0, |lease| lease.secs),
        job_share: Some(share_to_wire(cluster, job_share)),
        limit_serial: job.limit_serial,
        node_addresses: nodes().map(address).collect(),
        task_prolog: String::new(),
        task_epilog: String::new(),
        step_ranks: if step.spec.details.mpi.starts_with("pmix") {
            step.shares.iter().map(|part| ranks_text(&part.ranks)).collect()
        } else {
            Vec::new()
        },
    })
}

/// Ranks as ranges: `0-3,8`.
fn ranks_text(ranks: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(rank) => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let text = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// What a job's own processes find in their environment of a run of it, `NAME=VALUE`.
#[must_use]
pub fn variables(cluster: &Cluster, job: &Job, run: &Run) -> Vec<String> {
    job_environment(&job_with_run(cluster, job, Some(run)), &cluster.config().cluster)
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
        Target::Step(id, number) => format!("{}.{number}", target_name(cluster, &Target::Job(*id))),
    }
}

/// Reads selectors of jobs as people type them: `12`, `12_3`, `12_[1-3]`, `12_*`.
///
/// # Errors
/// If a text is no selector.
pub fn selectors(texts: &[String]) -> Result<Vec<Target>, Refusal> {
    texts.iter().map(|text| selector(text)).collect()
}

/// Reads one selector of jobs, or of a step: `12.0`, `12_3.0`, `12.interactive`. The step named `batch`
/// is the job itself.
///
/// # Errors
/// If the text is no selector, or names a step of an array task that has not started.
pub fn target(cluster: &Cluster, text: &str) -> Result<Target, Refusal> {
    if !text.contains('.') {
        return selector(text);
    }
    let parsed = text.trim().parse::<StepSelector>();
    let parsed = parsed.map_err(|error| malformed(Malformed::Other, chain(&error)))?;
    let id = match parsed.task {
        None => parsed.job,
        Some(task) => {
            let job = cluster.task(parsed.job, task);
            job.map(|job| job.id).ok_or(Refusal::InvalidJobId(parsed.job))?
        }
    };
    match parsed.step {
        StepId::Number(number) => Ok(Target::Step(id, StepNumber(number))),
        StepId::Interactive => Ok(Target::Step(id, StepNumber::INTERACTIVE)),
        StepId::Batch => Ok(Target::Job(id)),
        StepId::Extern => {
            let detail = format!("job {id} has no extern step; name a step by its number");
            Err(malformed(Malformed::Other, detail))
        }
    }
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
