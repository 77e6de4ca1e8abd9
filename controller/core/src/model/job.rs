//! What is a job, and what became of each of its runs?

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use penstock_vocab::{
    ArrayTaskId, Attempt, ExitCode, GresName, GroupId, JobFlag, JobFlags, JobId, JobState, Mib,
    Millis, PartitionName, PendingReason, TaskUsage, Timestamp, UserId, Walltime,
};

use crate::command::Unit;

use super::account::AssocId;
use super::array::ArraySummary;
use super::cron::CronJob;
use super::gpu_usage::GpuUsage;
use super::hooks::RunHooks;
use super::idle::IdleNote;
use super::node::NodeIndex;
use super::spec::JobSpec;

/// A job: one that stands for itself, or one task of an array that has started or was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Number, unique in this cluster.
    pub id: JobId,
    /// Owner.
    pub uid: UserId,
    /// The owner's group at submission.
    pub gid: GroupId,
    /// Who is charged.
    pub assoc: AssocId,
    /// The request.
    pub spec: Arc<JobSpec>,
    /// Base state; flags are derived, see [`Job::flags`].
    pub state: JobState,
    /// When it was submitted.
    pub submit_time: Timestamp,
    /// When it could first have started; set at the start.
    pub eligible_time: Option<Timestamp>,
    /// Who holds it.
    pub hold: Hold,
    /// How often it was requeued.
    pub restarts: u32,
    /// The current or last run.
    pub run: Option<Arc<Run>>,
    /// Runs before that, oldest first.
    pub earlier_runs: Vec<Arc<Run>>,
    /// The array it is a task of.
    pub array: Option<ArrayTask>,
    /// Priority that an admin set; otherwise it is computed.
    pub fixed_priority: Option<u32>,
    /// When it ended for good.
    pub end_time: Option<Timestamp>,
    /// Who cancelled it.
    pub cancelled_by: Option<UserId>,
    /// Not before this time, whatever the request says.
    pub not_before: Timestamp,
    /// Number of the newest attempt; the next run is one more.
    pub last_attempt: Attempt,
    /// A reason that outlives every plan (ended jobs, failed launches).
    pub reason: Option<PendingReason>,
    /// The limit in force, from the request or the partition.
    pub time_limit: Walltime,
    /// Raised at each change of the limit, so that an agent knows the newest.
    pub limit_serial: u32,
    /// It comes again and again, under the same number; not once it was cancelled, or its owner's crontab
    /// is another.
    pub cron: Option<Arc<CronJob>>,
}

/// Who holds a job back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Hold {
    /// Nobody.
    #[default]
    None,
    /// Its owner, who may release it.
    User,
    /// An admin.
    Admin,
}

/// Which task of which array a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayTask {
    /// The array's base id.
    pub base: JobId,
    /// Index in the array.
    pub index: ArrayTaskId,
    /// The array as it was submitted.
    pub summary: ArraySummary,
}

/// One attempt at running a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Number of the attempt.
    pub attempt: Attempt,
    /// What each node gives; the first is the batch host.
    pub shares: Box<[NodeShare]>,
    /// Partition it was started in.
    pub partition: PartitionName,
    /// When the resources were allocated.
    pub start_time: Timestamp,
    /// When an agent confirmed the launch.
    pub launched: Option<Timestamp>,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// How far it got.
    pub stage: RunStage,
    /// Who asked for the end.
    pub ended_by: Option<UserId>,
    /// State in which it ended.
    pub end_state: Option<JobState>,
    /// Exit code of the batch script.
    pub exit: ExitCode,
    /// What it used.
    pub usage: Usage,
    /// What went wrong, for people.
    pub end_reason: Box<str>,
    /// Billing units that it holds, as the weights were at its start.
    pub billing: u64,
    /// Its use is charged times this, in millionths, as its QOS said at its start.
    pub usage_factor: u64,
    /// Since when it stands still; `None`: it runs.
    pub suspended_since: Option<Timestamp>,
    /// How long it stood still before that, milliseconds.
    pub suspended_ms: u64,
    /// It stands still to make room for this unit, and goes on by itself when its CPUs are free and
    /// the unit no longer waits for them.
    pub yields_to: Option<Unit>,
    /// When it last said that it had saved its state.
    pub checkpoint: Option<Timestamp>,
    /// It was warned, and is ended at this time for this cause.
    pub ends_at: Option<(Timestamp, EndCause)>,
    /// Where its partition fences by lease.
    pub lease: Option<RunLease>,
    /// What is known of the batch script.
    pub batch: BatchPart,
    /// The signal ahead of the time limit was sent to its steps.
    pub steps_warned: bool,
    /// Highest exit status of its steps, or a signal; known once it has ended.
    pub derived_exit: ExitCode,
    /// What was measured of the GPUs that it held; empty until it has ended.
    pub gpus: Arc<[GpuUsage]>,
    /// A fault of a GPU ends it, or did.
    pub gpu_kill: Option<GpuKill>,
    /// Scripts of the site before and after it; `None`: there are none.
    pub hooks: Option<Box<RunHooks>>,
    /// What was said and done about its idle GPUs.
    pub idle: Option<IdleNote>,
}

/// What is known of the batch script of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchPart {
    /// There is none: the run lasts as long as somebody holds it.
    None,
    /// It may run. Of a run that has ended: it has ended too.
    Script,
    /// It ended, or whoever held the job ended it so, and parts of steps may still run.
    Ended(Box<RunResult>),
    /// It was never started and never will be, and parts of steps may still run.
    NeverStarted,
}

/// The fault of a GPU that ends a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuKill {
    /// For people; not empty.
    pub text: Box<str>,
    /// It was not the job's own fault, so that it runs again where it may.
    pub requeue: bool,
}

/// The lease of a run: it may go on for so long from the sending of the newest heartbeat of its node
/// that the controller answered. Fixed when the run starts, whatever the cluster file says later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLease {
    /// How long the lease holds, seconds; not 0.
    pub secs: u32,
    /// From SIGTERM to SIGKILL where it runs out, seconds.
    pub kill_wait_secs: u32,
}

impl RunLease {
    /// What is added for all that takes time beside lease and wait, seconds: a busy node that ends
    /// its processes late, and clocks that go at different rates (a thousandth in the two hours that
    /// lease and wait have at most).
    pub const MARGIN_SECS: u64 = 10;

    /// Silence of the node, in seconds, after which the run has ended.
    #[must_use]
    pub fn over_after_secs(self) -> u64 {
        u64::from(self.secs) + u64::from(self.kill_wait_secs) + Self::MARGIN_SECS
    }
}

/// How far a run got. Resources are held in every stage but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStage {
    /// Allocated; the launch is not confirmed.
    Allocated,
    /// The job's process was started.
    Launched,
    /// It shall end; the node has not yet proven that it did.
    Ending(EndCause),
    /// It has ended.
    Ended,
}

/// Why a run shall end, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// By itself.
    Exited,
    /// Cancelled by a user.
    Cancelled,
    /// The limit on its time.
    TimeLimit,
    /// A node failed, or was set down.
    NodeFail,
    /// To be run again.
    Requeue,
    /// To be run again once released.
    RequeueHold,
    /// It could not be started.
    LaunchFailed,
    /// The kernel killed it for its memory.
    OutOfMemory,
    /// A job of more weight needs its place.
    Preempted,
    /// The same, and it is to be run again.
    PreemptedRequeue,
    /// It could no longer end by its deadline.
    Deadline,
}

/// What one node gives to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeShare {
    /// The node.
    pub node: NodeIndex,
    /// Logical CPUs.
    pub cpus: FixedBitSet,
    /// Most jobs that may hold these CPUs at a time; 1: this one alone.
    pub sharing: u32,
    /// Memory.
    pub memory: Mib,
    /// Tasks planned there.
    pub tasks: u32,
    /// Generic resources.
    pub gres: Box<[GresShare]>,
}

impl NodeShare {
    /// Number of CPUs.
    #[must_use]
    pub fn cpu_count(&self) -> u32 {
        u32::try_from(self.cpus.count_ones(..)).unwrap_or(u32::MAX)
    }
}

/// Units of one generic resource on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GresShare {
    /// Name and type as the node offers it.
    pub name: GresName,
    /// Indices among the node's units of that name and type.
    pub ids: Box<[u32]>,
}

/// What a run used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_cpu_usec: u64,
    /// CPU time in the kernel, microseconds.
    pub system_cpu_usec: u64,
    /// Highest memory, bytes; 0: never measured.
    pub peak_memory_bytes: u64,
    /// Memory limit that was set, bytes; 0: none.
    pub memory_limit_bytes: u64,
    /// What was measured of single tasks; `None`: nothing was.
    pub tasks: Option<Box<TaskUsage>>,
}

/// How an agent says that an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunResult {
    /// Exit code of the batch script.
    pub exit: ExitCode,
    /// The kernel killed a process for its memory.
    pub out_of_memory: bool,
    /// The time limit ended it.
    pub time_limit: bool,
    /// A process outlived SIGKILL: the node asks for a drain.
    pub unkillable: bool,
    /// Why it could not be started; empty: it ran.
    pub launch_error: Box<str>,
    /// That was the node's fault and not the job's.
    pub node_fault: bool,
    /// The shepherd vanished without a record.
    pub lost: bool,
    /// Its lease ran out, and its shepherd ended it.
    pub fenced: bool,
    /// Nothing was begun: the slices that its launch names are others by now.
    pub devices_changed: bool,
    /// What it used.
    pub usage: Usage,
    /// Elapsed where it ran, milliseconds; 0: unknown.
    pub elapsed_ms: u64,
    /// What was measured of the GPUs that it held.
    pub gpus: Arc<[GpuUsage]>,
}

impl Run {
    /// Whether its resources are still taken.
    #[must_use]
    pub fn holds_resources(&self) -> bool {
        self.stage != RunStage::Ended
    }

    /// Whether it was told to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.stage, RunStage::Ending(_))
    }

    /// The node that runs the batch script; of a job without one its first node.
    #[must_use]
    pub fn batch_node(&self) -> Option<NodeIndex> {
        self.shares.first().map(|share| share.node)
    }

    /// The node where a batch script may run.
    #[must_use]
    pub fn script_node(&self) -> Option<NodeIndex> {
        self.batch_node().filter(|_| self.batch == BatchPart::Script)
    }

    /// Hooks go before it that have not ended.
    #[must_use]
    pub fn is_configuring(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.is_configuring())
    }

    /// A hook of it may run on some node, or is to.
    #[must_use]
    pub fn has_busy_hooks(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.is_busy())
    }

    /// How long it ran by `now`, without the times in which it stood still.
    #[must_use]
    pub fn elapsed(&self, now: Timestamp) -> Millis {
        let job_ended = self.hooks.as_ref().and_then(|hooks| hooks.job_ended);
        let until = self.end_time.or(job_ended).or(self.suspended_since).unwrap_or(now);
        until.since(self.start_time).saturating_sub(Millis(self.suspended_ms))
    }

    /// CPUs on all nodes.
    #[must_use]
    pub fn cpu_count(&self) -> u32 {
        self.shares.iter().map(NodeShare::cpu_count).fold(0, u32::saturating_add)
    }
}

impl Job {
    /// The run that holds resources, if there is one.
    #[must_use]
    pub fn active_run(&self) -> Option<&Arc<Run>> {
        self.run.as_ref().filter(|run| run.holds_resources())
    }

    /// When its run ends at the latest, seen at `now`: by its limit, its deadline or the end of its
    /// grace. For one that stands still as if it went on now. `None`: it has no limit, or no run.
    #[must_use]
    pub fn ends_by(&self, now: Timestamp) -> Option<Timestamp> {
        let run = self.active_run()?;
        let by_limit = self.time_limit.as_secs().map(|limit| {
            let left = Millis::from_secs(limit).saturating_sub(run.elapsed(now));
            now.plus(left)
        });
        let warned = run.ends_at.map(|(at, _)| at);
        by_limit.into_iter().chain(self.spec.deadline).chain(warned).min()
    }

    /// Flags to show beside the base state.
    #[must_use]
    pub fn flags(&self) -> JobFlags {
        let flag = self.active_run().and_then(|run| match run.stage {
            RunStage::Ending(_) => Some(JobFlag::Completing),
            RunStage::Allocated | RunStage::Launched => {
                run.is_configuring().then_some(JobFlag::Configuring)
            }
            RunStage::Ended => None,
        });
        flag.into_iter().collect()
    }

    /// Ended for good and nothing of it is left on any node.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.is_finished() && self.active_run().is_none()
    }

    /// Waits to be started.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state == JobState::Pending
    }

    /// Whether a lost run may be repeated.
    #[must_use]
    pub fn may_requeue(&self) -> bool {
        !self.spec.allocation && self.spec.requeue.unwrap_or(true)
    }
}
