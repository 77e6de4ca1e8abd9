//! What is told of a job?

use penstock_proto::v1;
use penstock_vocab::{IndexSet, JobFlags, JobState, Run, display_state};
use serde::Serialize;
use utoipa::ToSchema;

use super::time;

/// A job, a task of an array, or what waits of an array.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct JobView {
    /// Its number; for tasks that wait together, the array's.
    pub id: u32,
    /// As commands print it: `12`, `12_3`, `12_[4-9]`.
    #[schema(example = "12_[4-9]")]
    pub shown_id: String,
    /// The array that it is of.
    pub array_job_id: Option<u32>,
    /// Its index in the array.
    pub array_task_id: Option<u32>,
    /// Name.
    pub name: String,
    /// Login name of its owner.
    pub user: String,
    /// Number of its owner.
    pub uid: u32,
    /// Account that is charged.
    pub account: String,
    /// QOS.
    pub qos: String,
    /// The partition it runs in; those it may run in, by commas.
    pub partition: String,
    /// Slurm's word: PENDING, RUNNING, COMPLETED ...
    #[schema(example = "PENDING")]
    pub state: String,
    /// Slurm's reason why it waits, or why it ended so.
    #[schema(example = "Resources")]
    pub reason: String,
    /// The same in a sentence; may be empty.
    pub reason_detail: String,
    /// Priority.
    pub priority: u32,
    /// When it was submitted.
    pub submit_ms: i64,
    /// Since when it might start.
    pub eligible_ms: Option<i64>,
    /// When its run began.
    pub start_ms: Option<i64>,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// When it is expected to start.
    pub expected_start_ms: Option<i64>,
    /// Where it is expected to start, a hostlist.
    pub expected_nodes: String,
    /// Time limit, seconds; null: none.
    pub time_limit_secs: Option<u64>,
    /// Where it runs or ran, a hostlist.
    pub nodes: String,
    /// Nodes that it has or wants.
    pub node_count: u32,
    /// CPUs that it has or wants.
    pub cpus: u32,
    /// Tasks.
    pub tasks: u32,
    /// Memory over all nodes, MiB.
    pub memory_mib: u64,
    /// What it asks for, as sacct prints it: `cpu=4,gres/gpu=1`.
    pub tres_requested: String,
    /// What it has.
    pub tres_allocated: String,
    /// Exit status of its script.
    pub exit_status: Option<u32>,
    /// Signal that ended its script.
    pub exit_signal: Option<u32>,
    /// Who holds it: `user` or `admin`.
    pub held_by: Option<&'static str>,
    /// How often it was started again.
    pub restarts: u32,
    /// What it cost so far, millionths of the currency; null: the cluster has no rates.
    pub cost_millionths: Option<u64>,
    /// The currency.
    pub currency: String,
    /// What is measured of each GPU that it holds.
    pub gpus: Vec<GpuUseView>,
}

/// What a run made of a GPU. What is null is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct GpuUseView {
    /// Node.
    pub node: String,
    /// Index on the node.
    pub gpu: u32,
    /// First memory slice, of a slice.
    pub slice_start: Option<u32>,
    /// `h100`, or a slice's profile.
    pub kind: String,
    /// Percent, over the time that was seen.
    pub utilization_mean: Option<u32>,
    /// Most memory that was used, MiB.
    pub peak_memory_mib: Option<u64>,
    /// Energy, millijoules.
    pub energy_mj: Option<u64>,
    /// How long it has computed nothing, up to the last sample, milliseconds.
    pub idle_now_ms: u64,
    /// How long it computed nothing in all, milliseconds.
    pub idle_ms: Option<u64>,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RunView {
    /// Which, from 1.
    pub attempt: u32,
    /// When it began.
    pub start_ms: i64,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// Partition.
    pub partition: String,
    /// State in which it ended.
    pub state: Option<String>,
    /// Processor time, microseconds.
    pub cpu_usec: u64,
    /// Most memory, bytes; null: never measured.
    pub peak_memory_bytes: Option<u64>,
    /// Since when it stands still.
    pub suspended_since_ms: Option<i64>,
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StepView {
    /// `12.0`.
    pub id: String,
    /// Name.
    pub name: String,
    /// Slurm's word.
    pub state: String,
    /// Nodes.
    pub nodes: Vec<String>,
    /// When it began.
    pub start_ms: i64,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// Highest exit status of its tasks.
    pub exit_status: u32,
}

/// Everything of one job.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct JobDetails {
    /// What listings tell.
    #[serde(flatten)]
    pub job: JobView,
    /// Working directory.
    pub work_dir: String,
    /// Path of standard input, as given.
    pub stdin: String,
    /// Path of standard output, as given; empty: `slurm-%j.out`.
    pub stdout: String,
    /// Path of standard error, as given; empty: where standard output goes.
    pub stderr: String,
    /// Path of the script as submitted.
    pub command: String,
    /// The command line that submitted it.
    pub submit_line: String,
    /// Comment.
    pub comment: String,
    /// Features that it asks for.
    pub constraint: String,
    /// Dependencies that are not fulfilled yet.
    pub dependency: String,
    /// Reservation.
    pub reservation: String,
    /// Nice.
    pub nice: i32,
    /// Its group.
    pub group: String,
    /// Its runs, the newest last.
    pub runs: Vec<RunView>,
    /// Steps of its newest run.
    pub steps: Vec<StepView>,
}

fn set_of(runs: &v1::IndexRuns) -> IndexSet {
    IndexSet::from_runs(runs.runs.chunks_exact(3).map(|run| Run {
        start: run[0],
        end: run[1],
        step: run[2],
    }))
}

/// The number as commands print it.
fn shown_id(info: &v1::JobInfo) -> String {
    let Some(job) = &info.job else { return String::new() };
    if let Some(tasks) = info.pending_tasks.as_ref().filter(|tasks| !tasks.runs.is_empty()) {
        let base = if job.array_job_id == 0 { job.id } else { job.array_job_id };
        return format!("{base}_[{}]", set_of(tasks));
    }
    match job.array_task_id {
        Some(task) => format!("{}_{task}", job.array_job_id),
        None => job.id.to_string(),
    }
}

fn state_word(code: u32, flags: u32) -> String {
    let state = JobState::from_code(code).unwrap_or(JobState::Pending);
    display_state(state, JobFlags::from_bits(flags)).to_owned()
}

impl JobView {
    /// What a listing's line says.
    pub(in crate::http) fn of(info: &v1::JobInfo) -> Self {
        let no_job = v1::Job::default();
        let no_spec = v1::JobSpec::default();
        let job = info.job.as_ref().unwrap_or(&no_job);
        let spec = job.spec.as_ref().unwrap_or(&no_spec);
        let run = job.run.as_ref();
        let ended = run.filter(|run| run.end_ms != 0);
        Self {
            id: job.id,
            shown_id: shown_id(info),
            array_job_id: (job.array_job_id != 0).then_some(job.array_job_id),
            array_task_id: job.array_task_id,
            name: spec.name.clone(),
            user: info.user_name.clone(),
            uid: job.uid,
            account: spec.account.clone(),
            qos: spec.qos.clone(),
            partition: info.partition.clone(),
            state: state_word(job.state, job.flags),
            reason: info.reason.clone(),
            reason_detail: info.reason_detail.clone(),
            priority: info.priority,
            submit_ms: job.submit_ms,
            eligible_ms: time(job.eligible_ms),
            start_ms: run.and_then(|run| time(run.start_ms)),
            end_ms: ended.map(|run| run.end_ms).or_else(|| time(job.end_ms)),
            expected_start_ms: time(info.expected_start_ms),
            expected_nodes: info.expected_nodes.clone(),
            time_limit_secs: (job.time_limit_secs != 0).then_some(job.time_limit_secs),
            nodes: info.nodelist.clone(),
            node_count: info.num_nodes,
            cpus: info.num_cpus,
            tasks: info.num_tasks,
            memory_mib: info.memory_mib,
            tres_requested: info.tres_requested.clone(),
            tres_allocated: info.tres_allocated.clone(),
            exit_status: ended.map(|run| run.exit_status),
            exit_signal: ended.map(|run| run.exit_signal).filter(|signal| *signal != 0),
            held_by: match job.hold() {
                v1::HoldKind::None => None,
                v1::HoldKind::User => Some("user"),
                v1::HoldKind::Admin => Some("admin"),
            },
            restarts: job.restarts,
            cost_millionths: info.cost_millionths,
            currency: info.currency.clone(),
            gpus: info.gpus.iter().map(GpuUseView::of).collect(),
        }
    }
}

impl GpuUseView {
    fn of(usage: &v1::GpuUsage) -> Self {
        Self {
            node: usage.node.clone(),
            gpu: usage.gpu,
            slice_start: usage.start,
            kind: usage.r#type.clone(),
            utilization_mean: usage.utilization_mean,
            peak_memory_mib: usage.peak_memory_mib,
            energy_mj: usage.energy_mj,
            idle_now_ms: usage.idle_now_ms,
            idle_ms: usage.idle_ms,
        }
    }
}

impl RunView {
    fn of(run: &v1::Run) -> Self {
        let usage = run.usage.clone().unwrap_or_default();
        Self {
            attempt: run.attempt,
            start_ms: run.start_ms,
            end_ms: time(run.end_ms),
            partition: run.partition.clone(),
            state: (run.end_ms != 0).then(|| state_word(run.end_state, 0)),
            cpu_usec: usage.user_cpu_usec.saturating_add(usage.system_cpu_usec),
            peak_memory_bytes: (usage.peak_memory_bytes != 0).then_some(usage.peak_memory_bytes),
            suspended_since_ms: time(run.suspended_since_ms),
        }
    }
}

impl StepView {
    fn of(step: &v1::Step) -> Self {
        let share = |share: &v1::StepShare| share.share.as_ref().map(|share| share.node.clone());
        let number = match step.step {
            4_294_967_290 => "interactive".to_owned(),
            number => number.to_string(),
        };
        Self {
            id: format!("{}.{number}", step.job_id),
            name: step.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default(),
            state: state_word(step.state, 0),
            nodes: step.shares.iter().filter_map(share).collect(),
            start_ms: step.start_ms,
            end_ms: time(step.end_ms),
            exit_status: step.exit_status,
        }
    }
}

impl JobDetails {
    /// Everything of a job that was listed in full.
    pub(in crate::http) fn of(info: &v1::JobInfo) -> Self {
        let no_job = v1::Job::default();
        let no_spec = v1::JobSpec::default();
        let job = info.job.as_ref().unwrap_or(&no_job);
        let spec = job.spec.as_ref().unwrap_or(&no_spec);
        Self {
            job: JobView::of(info),
            work_dir: spec.work_dir.clone(),
            stdin: spec.stdin.clone(),
            stdout: spec.stdout.clone(),
            stderr: spec.stderr.clone(),
            command: spec.command.clone(),
            submit_line: spec.submit_line.clone(),
            comment: spec.comment.clone(),
            constraint: spec.constraint.clone(),
            dependency: info.dependency.clone(),
            reservation: spec.reservation.clone(),
            nice: spec.nice,
            group: info.group_name.clone(),
            runs: job.earlier_runs.iter().chain(&job.run).map(RunView::of).collect(),
            steps: info.steps.iter().map(StepView::of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_commands_show_them() {
        let info = |job: v1::Job, tasks: Option<Vec<u32>>| v1::JobInfo {
            job: Some(job),
            pending_tasks: tasks.map(|runs| v1::IndexRuns { runs }),
            ..v1::JobInfo::default()
        };
        let single = v1::Job { id: 7, ..v1::Job::default() };
        assert_eq!(shown_id(&info(single.clone(), None)), "7");
        assert_eq!(shown_id(&info(single, Some(vec![1, 5, 1]))), "7_[1-5]");
        let task = v1::Job { id: 9, array_job_id: 7, array_task_id: Some(3), ..Default::default() };
        assert_eq!(shown_id(&info(task, None)), "7_3");
    }

    #[test]
    fn what_has_not_happened_is_null() {
        let view = JobView::of(&v1::JobInfo::default());
        assert_eq!((view.start_ms, view.end_ms, view.exit_status), (None, None, None));
        assert_eq!((view.time_limit_secs, view.held_by), (None, None));
        assert_eq!(view.state, "PENDING");
    }
}
