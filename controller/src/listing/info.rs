//! What does a listing say of a job beside its record?

use std::collections::HashMap;

use penstock_core::Cluster;
use penstock_core::cluster::DependencyState;
use penstock_core::command::Unit;
use penstock_core::model::{Array, Hold, Job, JobSpec, MemoryRequest, Run, RunStage};
use penstock_core::policy;
use penstock_proto::v1;
use penstock_vocab::{IndexSet, JobState, NodeName, PendingReason, Timestamp, Tres, compress};

use super::history::cancelled_record;
use super::steps::steps_of;
use super::{View, facts};
use crate::convert::array::{indices_to_wire, summary_to_wire};
use crate::convert::codes;
use crate::convert::job::{job_outline, job_to_wire};
use crate::convert::run::NodeNames;
use crate::convert::spec::{spec_to_wire, walltime_secs};

/// How much a listing says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What squeue's default columns need.
    Brief,
    /// Everything of the record.
    Full,
}

/// Priorities of the units that wait for nothing but resources. One pass over the queue costs less
/// than a search in it for each line.
#[derive(Debug, Default)]
pub(super) struct Queued(HashMap<Unit, u32>);

impl Queued {
    pub(super) fn of(view: View<'_>) -> Self {
        Self(view.cluster.queue().map(|(unit, _)| (unit, priority(view, unit))).collect())
    }
}

/// Priority as the newest plan has it; of units that it did not look at, as far as the request tells.
fn priority(view: View<'_>, unit: Unit) -> u32 {
    view.plan.priority(unit).unwrap_or_else(|| view.cluster.priority_of(unit))
}

/// As [`job_info`] in brief, where many are listed. A job in the queue is not held, and neither a
/// dependency nor its time keeps it back, so nobody has to look.
pub(super) fn queued_job_info(view: View<'_>, job: &Job, queued: &Queued) -> v1::JobInfo {
    let unit = Unit::Job(job.id);
    let Some(priority) = queued.0.get(&unit) else { return job_info(view, job, Detail::Brief) };
    let reason = match view.plan.pending_reason(unit) {
        Some(reason) => reason,
        None if job.submit_time > view.plan.made_at => PendingReason::None,
        None => PendingReason::Priority,
    };
    let mut info = v1::JobInfo {
        job: Some(brief_job(job)),
        reason: reason_text(view.cluster, reason, &job.spec),
        priority: *priority,
        ..Default::default()
    };
    add_expected(&mut info, view, unit);
    describe(&mut info, view.cluster, view.cluster, &job.spec, None, Detail::Brief);
    info
}

fn brief_job(job: &Job) -> v1::Job {
    v1::Job {
        spec: Some(brief_spec(&job.spec)),
        run: job.run.as_deref().map(brief_run),
        ..job_outline(job)
    }
}

/// Everything about a job but its steps.
#[must_use]
pub fn job_line(view: &View<'_>, job: &Job) -> v1::JobInfo {
    job_info(*view, job, Detail::Full)
}

/// The same with the steps of its current or last run.
pub(super) fn job_with_steps(view: View<'_>, job: &Job) -> v1::JobInfo {
    let mut info = job_info(view, job, Detail::Full);
    info.steps = job.run.as_deref().map_or_else(Vec::new, |run| steps_of(view.cluster, job, run));
    if let (Some(run), Some(record)) = (job.active_run(), &mut info.job)
        && let Some(record) = &mut record.run
    {
        let exit = view.cluster.derived_exit(job.id, run.attempt);
        record.derived_status = u32::from(exit.status);
        record.derived_signal = u32::from(exit.signal);
    }
    info
}

/// One line about a job.
pub(super) fn job_info(view: View<'_>, job: &Job, detail: Detail) -> v1::JobInfo {
    let unit = Unit::Job(job.id);
    let mut record = match detail {
        Detail::Full => job_to_wire(view.cluster, job),
        Detail::Brief => brief_job(job),
    };
    let pending = job.is_pending();
    if pending && detail == Detail::Full && job.eligible_time.is_none() {
        let since = eligible(view, unit, &job.spec, job.hold, job.submit_time.max(job.not_before));
        record.eligible_ms = codes::moment(since);
    }
    let mut info = v1::JobInfo { job: Some(record), ..Default::default() };
    if pending {
        add_waiting(&mut info, view, unit, &job.spec);
    } else {
        info.reason = job.reason.unwrap_or(PendingReason::None).name().to_owned();
        info.reason_detail =
            job.run.as_ref().map_or_else(String::new, |r| r.end_reason.to_string());
        if let Some(note) = job.active_run().and_then(|run| run.idle.as_ref())
            && !note.dry_run
        {
            // Ours: Slurm has no word for it.
            "IdleGpus".clone_into(&mut info.reason);
            if info.reason_detail.is_empty() {
                info.reason_detail = note.evidence.to_string();
            }
        }
    }
    info.priority = priority(view, unit);
    describe(&mut info, view.cluster, view.cluster, &job.spec, job.run.as_deref(), detail);
    info
}

/// One line about tasks of an array that wait.
pub(super) fn rest_info(
    view: View<'_>,
    array: &Array,
    tasks: &IndexSet,
    detail: Detail,
) -> v1::JobInfo {
    let unit = Unit::Array(array.id);
    let mut record = array_outline(array, JobState::Pending);
    record.hold = codes::hold(array.hold) as i32;
    record.spec = Some(match detail {
        Detail::Full => spec_to_wire(&array.spec),
        Detail::Brief => brief_spec(&array.spec),
    });
    if detail == Detail::Full {
        let since =
            eligible(view, unit, &array.spec, array.hold, array.submit_time.max(array.not_before));
        record.eligible_ms = codes::moment(since);
    }
    let mut info = v1::JobInfo {
        job: Some(record),
        pending_tasks: Some(indices_to_wire(tasks)),
        priority: priority(view, unit),
        ..Default::default()
    };
    add_waiting(&mut info, view, unit, &array.spec);
    describe(&mut info, view.cluster, view.cluster, &array.spec, None, detail);
    info
}

/// One line about tasks of an array that were cancelled before they started; `None` if there are
/// none.
pub(super) fn cancelled_info(
    view: View<'_>,
    array: &Array,
    tasks: &IndexSet,
    detail: Detail,
) -> Option<v1::JobInfo> {
    let (record, _) = cancelled_record(array)?;
    let mut info = v1::JobInfo {
        job: Some(record),
        pending_tasks: Some(indices_to_wire(tasks)),
        reason: PendingReason::None.name().to_owned(),
        ..Default::default()
    };
    describe(&mut info, view.cluster, view.cluster, &array.spec, None, detail);
    Some(info)
}

/// Makes a line about waiting tasks one about a single task.
pub(super) fn as_single_task(info: &mut v1::JobInfo, index: u32) {
    info.pending_tasks = None;
    if let Some(job) = &mut info.job {
        job.array_task_id = Some(index);
    }
}

/// The record of an array as that of a job, in this state.
pub(super) fn array_outline(array: &Array, state: JobState) -> v1::Job {
    v1::Job {
        id: array.id.0,
        uid: array.uid.0,
        gid: array.gid.0,
        state: state.code(),
        submit_ms: array.submit_time.0,
        array_job_id: array.id.0,
        fixed_priority: array.fixed_priority,
        not_before_ms: array.not_before.0,
        time_limit_secs: walltime_secs(array.time_limit),
        array: Some(summary_to_wire(&array.summary)),
        ..Default::default()
    }
}

/// Since when nothing but resources keeps a job back, or from when on its begin time allows it;
/// `None` while it is held or waits for another job.
fn eligible(
    view: View<'_>,
    unit: Unit,
    spec: &JobSpec,
    hold: Hold,
    from: Timestamp,
) -> Option<Timestamp> {
    let from = from.max(spec.begin_time);
    if hold != Hold::None {
        return None;
    }
    match view.cluster.dependency_state(unit) {
        DependencyState::Met => Some(from),
        DependencyState::MetAt(at) => Some(from.max(at)),
        DependencyState::Waits | DependencyState::Never => None,
    }
}

/// A reason as Slurm prints it: one of them goes on to name the nodes.
fn reason_text(cluster: &Cluster, reason: PendingReason, spec: &JobSpec) -> String {
    if reason != PendingReason::ReqNodeNotAvail {
        return reason.name().to_owned();
    }
    let away = spec
        .shape
        .required
        .iter()
        .filter(|name| cluster.node_by_name(name).is_ok_and(|(_, node)| !node.accepts_work()));
    let away = compress(away.map(NodeName::as_str));
    if away.is_empty() {
        reason.name().to_owned()
    } else {
        format!("{reason}, UnavailableNodes:{away}")
    }
}

fn add_waiting(info: &mut v1::JobInfo, view: View<'_>, unit: Unit, spec: &JobSpec) {
    if let Some(waiting) = view.cluster.waiting(unit, view.plan) {
        info.reason = reason_text(view.cluster, waiting.reason, spec);
        info.reason_detail = waiting.detail;
    }
    add_expected(info, view, unit);
    if !spec.dependency.is_empty() {
        info.dependency = view.cluster.unmet(unit);
    }
}

/// When and where the newest plan expects a unit to start.
fn add_expected(info: &mut v1::JobInfo, view: View<'_>, unit: Unit) {
    let Some(expected) = view.plan.expected(unit) else { return };
    info.expected_start_ms = expected.start.0;
    let nodes = expected.nodes.iter().map(|node| view.cluster.node_name(*node));
    info.expected_nodes = compress(nodes);
}

/// Fills in what follows from the request and the run that the line tells of.
pub(super) fn describe(
    info: &mut v1::JobInfo,
    cluster: &Cluster,
    nodes: &impl NodeNames,
    spec: &JobSpec,
    run: Option<&Run>,
    detail: Detail,
) {
    info.user_name = spec.details.user_name.to_string();
    info.group_name = spec.details.group_name.to_string();
    match run {
        Some(run) => {
            info.partition = run.partition.to_string();
            info.nodelist = node_list(nodes, run);
            info.num_nodes = u32::try_from(run.shares.len()).unwrap_or(u32::MAX);
            info.num_cpus = run.cpu_count();
            info.num_tasks =
                run.shares.iter().map(|share| share.tasks).fold(0, u32::saturating_add);
        }
        None => {
            info.partition = partition_list(cluster, spec);
            info.num_nodes = spec.shape.least_nodes();
            info.num_cpus = spec.shape.least_cpus();
            info.num_tasks = spec.shape.total_tasks();
        }
    }
    if detail == Detail::Brief {
        return;
    }
    let partition = match run {
        Some(run) => cluster.partition(&run.partition),
        None => cluster.partitions_of(spec).next(),
    };
    if spec.shape.memory == MemoryRequest::Default
        && let Some(partition) = partition
    {
        info.default_mem_per_cpu_mib = partition.def_mem_per_cpu.map(|mib| mib.0);
        info.default_mem_per_node_mib = partition.def_mem_per_node.map(|mib| mib.0);
    }
    let requested = facts::requested(spec, partition);
    info.tres_requested = requested.to_string();
    info.memory_mib = requested.mem.0;
    if let Some(run) = run {
        let held = Cluster::run_tres(run, spec);
        add_cost(info, cluster, run, &held);
        info.tres_allocated = held.to_string();
        info.memory_mib = facts::memory(run).0;
        let batch = run.batch_node().map(|index| nodes.node_name(index));
        info.batch_host = batch.unwrap_or_default().to_owned();
    }
}

/// What a run has cost so far, where the cluster file says what things cost.
fn add_cost(info: &mut v1::JobInfo, cluster: &Cluster, run: &Run, held: &Tres) {
    let rates = &cluster.config().scheduling.cost;
    if rates.per_hour.is_empty() {
        return;
    }
    let secs = run.end_time.unwrap_or_else(|| cluster.now()).since(run.start_time).as_secs();
    let secs = secs.saturating_sub(run.suspended_ms / 1_000);
    info.cost_millionths = Some(policy::cost(rates, held, secs));
    info.currency = rates.currency.to_string();
}

fn node_list(nodes: &impl NodeNames, run: &Run) -> String {
    match &*run.shares {
        [] => String::new(),
        [only] => nodes.node_name(only.node).to_owned(),
        shares => compress(shares.iter().map(|share| nodes.node_name(share.node))),
    }
}

fn partition_list(cluster: &Cluster, spec: &JobSpec) -> String {
    match &*spec.partitions {
        [] => cluster.partitions_of(spec).next().map_or_else(String::new, |p| p.name.to_string()),
        [only] => only.to_string(),
        several => several.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(","),
    }
}

fn brief_spec(spec: &JobSpec) -> v1::JobSpec {
    v1::JobSpec {
        name: spec.name.to_string(),
        account: spec.account.to_string(),
        qos: spec.qos.to_string(),
        begin_time_ms: spec.begin_time.0,
        nice: spec.nice,
        ..Default::default()
    }
}

fn brief_run(run: &Run) -> v1::Run {
    let (stage, end_cause) = codes::stage(run.stage);
    v1::Run {
        attempt: run.attempt.0,
        start_ms: run.start_time.0,
        end_ms: codes::moment(run.end_time),
        stage: stage as i32,
        end_cause: end_cause as i32,
        exit_status: u32::from(run.exit.status),
        exit_signal: u32::from(run.exit.signal),
        end_state: run.end_state.map_or(0, JobState::code),
        ..Default::default()
    }
}

/// State and flags of an earlier run, or of the last one once it has ended.
pub(super) fn requeued(run: &Run) -> bool {
    run.stage == RunStage::Ended && run.end_state == Some(JobState::Pending)
}
