//! What can be asked of the cluster, and what comes of it?

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::{
    Attempt, IndexSet, JobId, Mib, NodeName, PartitionName, SessionId, Timestamp, UserId, Walltime,
};
use penstock_vocab::{ExitCode, GresRequest, GroupId};

use crate::accounts::{AccountChange, AccountEffect};
use crate::model::{
    ArrayRequest, AssocId, Config, Constraint, CronJob, Dependency, EndCause, Gpu, GpuFault, Hold,
    HostRole, Inventory, JobSpec, NewSlice, NodeIndex, NodeShare, PreemptMode, RequestId,
    ReservationFlag, RunResult, StepKey, StepNumber, StepSpec, UsageOwner,
};
use crate::policy::idle::IdleStep;
use crate::refusal::Refusal;

/// Who asks. The edge has already decided whether this caller is an admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: UserId,
    /// The user's group.
    pub gid: GroupId,
    /// May act on everybody's jobs and on nodes.
    pub admin: bool,
    /// The request's id; `None` for what needs no memory.
    pub request: Option<RequestId>,
}

/// One change that is asked for. Bounds on its lines keep it below the 200 records for which every
/// commit keeps room, most to about 100; only what a node reports concerns as many as it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Submit one job or array.
    Submit(Caller, Box<Submission>),
    /// Submit several, each accepted or refused by itself; at most [`MAX_SPECS`].
    SubmitMany(Caller, Vec<Submission>),
    /// End jobs, or take waiting tasks out of arrays; at most [`MAX_TARGETS`].
    Cancel(Caller, Vec<Target>),
    /// Send a signal to running jobs.
    Signal(Caller, Vec<Target>, SignalOrder),
    /// Hold jobs back, or release them.
    SetHold(Caller, Vec<Target>, Hold),
    /// Run jobs again; `hold`: once released.
    Requeue {
        /// Who asks.
        caller: Caller,
        /// Which jobs.
        targets: Vec<Target>,
        /// Only once released.
        hold: bool,
    },
    /// Change jobs.
    UpdateJob(Caller, Vec<Target>, Box<JobUpdate>),
    /// Change nodes; at most [`MAX_TARGETS`].
    UpdateNode(Caller, Vec<NodeName>, Box<NodeUpdate>),
    /// Make a join token.
    CreateToken {
        /// Who asks.
        caller: Caller,
        /// Public part of the token.
        id: Box<str>,
        /// sha256 of its secret part.
        secret_hash: [u8; 32],
        /// Role of hosts that join by it.
        role: HostRole,
        /// How many hosts may join by it.
        uses: u32,
        /// For how long, seconds.
        valid_secs: u64,
    },
    /// Bind a host's name to a key, by a token.
    Join {
        /// Public part of the token.
        token_id: Box<str>,
        /// sha256 of the secret that was presented.
        secret_hash: [u8; 32],
        /// Name the host wants.
        host: Box<str>,
        /// sha256 of its public key.
        key_hash: [u8; 32],
    },
    /// Free a host's name for another key.
    ResetHost(Caller, Box<str>),
    /// Cut a host off.
    RevokeHost(Caller, Box<str>),
    /// Change accounts, users, associations and QOS, all of it or nothing; at most
    /// [`MAX_ACCOUNT_CHANGES`](crate::accounts::MAX_ACCOUNT_CHANGES).
    Accounts(Caller, Vec<AccountChange>),
    /// Take a new configuration.
    Configure(Arc<Config>),
    /// An agent opened a session.
    Register {
        /// Its name.
        node: NodeName,
        /// The stream's session.
        session: SessionId,
        /// What it has.
        inventory: Box<Inventory>,
        /// Every attempt that it holds.
        attempts: Vec<AttemptReport>,
    },
    /// A session's stream ended.
    Disconnected {
        /// Its name.
        node: NodeName,
        /// The session that ended.
        session: SessionId,
    },
    /// A node was silent for longer than the timeout.
    Silent {
        /// Its name.
        node: NodeName,
    },
    /// A node has been silent for so long that the leases of runs there are over; they have ended.
    LeasesOver {
        /// Its name.
        node: NodeName,
        /// Time since the controller last answered it, seconds.
        silent_secs: u64,
    },
    /// It is proven from outside that nothing of before runs on this node (a fence succeeded).
    Fenced {
        /// Its name.
        node: NodeName,
    },
    /// An agent reports on an attempt.
    Report {
        /// Its name.
        node: NodeName,
        /// The session it reports in.
        session: SessionId,
        /// What it says.
        report: AttemptReport,
    },
    /// Events of a node's GPUs; of more than 64 the first.
    GpuFaults {
        /// Its name.
        node: NodeName,
        /// The session it reports in.
        session: SessionId,
        /// What happened.
        faults: Vec<GpuFault>,
    },
    /// An agent asks to be drained.
    DrainRequested {
        /// Its name.
        node: NodeName,
        /// The session it asks in.
        session: SessionId,
        /// Why.
        reason: Box<str>,
    },
    /// Make, change or delete an advance reservation.
    Reservation(Caller, ReservationChange),
    /// Suspend jobs, or let suspended ones go on (`false`); for admins.
    Suspend(Caller, Vec<Target>, bool),
    /// A job says that it has saved its state.
    CheckpointDone(Caller, JobId),
    /// Put another crontab in the place of a user's.
    SetCrontab(Caller, Box<CrontabRequest>),
    /// Like `Cancel`, of jobs of crontabs too: they do not come again, and their lines are disabled.
    CancelCron(Caller, Vec<Target>),
    /// Further times of a job of a crontab, after those that are known. Whoever knows time zones sends it
    /// when `Cluster::crons_to_extend` names the job.
    ExtendCron(JobId, Vec<Timestamp>),
    /// Forget the earlier runs of a job of a crontab up to this one, whose history is durable.
    ForgetRuns(JobId, Attempt),
    /// Start tasks within a running job. The number is [`Step::ticket`](crate::model::Step::ticket).
    CreateStep(Caller, JobId, Arc<StepSpec>, u64),
    /// Whoever held a job without a script lets it go, with this end of what they ran.
    Release(Caller, JobId, ExitCode),
    /// The controller's prolog of a run has ended. The daemon alone sends it.
    ControllerPrologDone {
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// Why it failed; empty: it did not.
        error: Box<str>,
    },
    /// Nobody has held these jobs without a script for long; they are cancelled.
    Abandoned(Vec<JobId>),
    /// Make room as a plan proposes; lines that no longer hold are refused one by one. At most
    /// [`MAX_TARGETS`]. The planner alone sends it, and no message from outside becomes one: where
    /// accounts get back what they are guaranteed, it is believed about who has borrowed
    /// (`Cluster::may_preempt`).
    Preempt(Vec<PreemptLine>),
    /// Notices and deeds about idle GPUs; lines that no longer hold are refused one by one. At most
    /// [`MAX_TARGETS`]. No message from outside becomes one: it is believed about what was seen.
    Idle(Vec<IdleLine>),
    /// Cut GPUs as a plan proposes; lines that no longer hold are left. The planner alone sends it.
    Reshape(Vec<ReshapeLine>),
    /// A node says how one of its GPUs is cut now.
    GpuLayout {
        /// Its name.
        node: NodeName,
        /// The session it reports in.
        session: SessionId,
        /// The GPU.
        gpu: Box<Gpu>,
        /// What the node has by then.
        gres: Box<[GresRequest]>,
        /// Generation of the order that is answered; 0: none is.
        answers: u64,
        /// Why it was not cut as ordered; empty: it was.
        error: Box<str>,
    },
    /// Start what a plan proposes; lines that no longer fit are refused one by one. At most
    /// [`MAX_STARTS`]. The planner alone sends it.
    Start(Vec<StartLine>),
    /// Let time take effect.
    Tick,
    /// Let nothing count that was used up to now, but for QOS that do not decay: a period of
    /// `PriorityUsageResetPeriod` has begun.
    ResetUsage,
    /// Forget jobs and arrays whose history is durable.
    Retire(Vec<Unit>),
    /// Panics. It proves that one bad command is survived; nothing in the daemons sends it.
    #[doc(hidden)]
    Panic,
}

/// Most targets of one command, so that it stays within 100 records.
pub const MAX_TARGETS: usize = 45;
/// Most specs of one `SubmitMany`: each makes a job, and may make an account and two associations.
pub const MAX_SPECS: usize = 45;
/// Most lines of one `Start`: each may change its job, its array, and what an association and two QOS
/// have used, and all of them the counters.
pub const MAX_STARTS: usize = 20;

/// A job as submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The request.
    pub spec: Arc<JobSpec>,
    /// Present: an array.
    pub array: Option<ArrayRequest>,
    /// Names of the groups that the owner is in; for partitions that allow some groups only.
    pub groups: Arc<[Box<str>]>,
    /// The owner's login name; empty: unknown, the number stands for it.
    pub user: Box<str>,
}

/// A crontab as it is handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrontabRequest {
    /// Whose it is; the edge has decided that the caller may set it.
    pub owner: UserId,
    /// The owner's group.
    pub gid: GroupId,
    /// As written; empty: there shall be none.
    pub text: Box<str>,
    /// Its jobs, at most [`MAX_CRON_JOBS`](crate::model::MAX_CRON_JOBS); no arrays.
    pub jobs: Vec<(Submission, CronJob)>,
}

/// A job or the waiting rest of an array: what stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// A job.
    Job(JobId),
    /// The waiting tasks of an array, by base id.
    Array(JobId),
}

impl Unit {
    /// The number.
    #[must_use]
    pub fn id(self) -> JobId {
        match self {
            Self::Job(id) | Self::Array(id) => id,
        }
    }
}

/// What a command on jobs is aimed at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A job, or an array with all its tasks: the id as people type it.
    Id(JobId),
    /// Exactly this job record.
    Job(JobId),
    /// What waits of an array, in its one record; by its base id.
    Waiting(JobId),
    /// Tasks of an array, waiting or started.
    Tasks(JobId, IndexSet),
    /// A step of the job's current run.
    Step(JobId, StepNumber),
}

/// A signal to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalOrder {
    /// Signal number.
    pub signal: u32,
    /// To the batch shell alone.
    pub batch_only: bool,
    /// To shell and steps.
    pub full: bool,
}

/// A change to jobs; only what is present changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobUpdate {
    /// New limit.
    pub time_limit: Option<Walltime>,
    /// Or so many seconds more (less).
    pub time_limit_delta: Option<i64>,
    /// Partitions.
    pub partitions: Option<Vec<PartitionName>>,
    /// QOS.
    pub qos: Option<Box<str>>,
    /// Account.
    pub account: Option<Box<str>>,
    /// Fixed priority.
    pub priority: Option<u32>,
    /// Nice value.
    pub nice: Option<i32>,
    /// Dependency.
    pub dependency: Option<Dependency>,
    /// Earliest start; also ends a requeue's delay.
    pub begin_time: Option<Timestamp>,
    /// Nodes.
    pub nodes: Option<(u32, u32)>,
    /// Tasks.
    pub ntasks: Option<u32>,
    /// CPUs a task.
    pub cpus_per_task: Option<u32>,
    /// Memory on each node.
    pub mem_per_node: Option<Mib>,
    /// Memory for each CPU.
    pub mem_per_cpu: Option<Mib>,
    /// Features.
    pub constraint: Option<Constraint>,
    /// Generic resources on each node.
    pub gres: Option<Vec<GresRequest>>,
    /// Required nodes.
    pub required: Option<Vec<NodeName>>,
    /// Excluded nodes.
    pub excluded: Option<Vec<NodeName>>,
    /// Name.
    pub name: Option<Box<str>>,
    /// Comment.
    pub comment: Option<Box<str>>,
    /// Whether it may be requeued.
    pub requeue: Option<bool>,
    /// Most tasks of an array at once; 0: no limit.
    pub throttle: Option<u32>,
    /// Reservation; empty: none.
    pub reservation: Option<Box<str>>,
    /// Licences.
    pub licenses: Option<Vec<(Box<str>, u64)>>,
    /// Deadline; `Timestamp(0)`: none.
    pub deadline: Option<Timestamp>,
    /// Least time that it can do with.
    pub min_time: Option<Walltime>,
    /// Working directory.
    pub work_dir: Option<Box<str>>,
    /// Standard output.
    pub stdout: Option<Box<str>>,
    /// Standard error.
    pub stderr: Option<Box<str>>,
    /// Standard input.
    pub stdin: Option<Box<str>>,
}

/// A change to nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeUpdate {
    /// A change of state.
    pub action: Option<NodeAction>,
    /// It concerns these GPUs alone, by index; empty: the node.
    pub gpus: Vec<u32>,
    /// With a drain: what still runs then is requeued or cancelled.
    pub deadline: Option<Timestamp>,
    /// Why; obligatory for drain, down and fail.
    pub reason: Box<str>,
    /// Weight.
    pub weight: Option<u32>,
    /// Features.
    pub features: Option<Vec<Box<str>>>,
    /// Comment.
    pub comment: Option<Box<str>>,
}

/// A change of a node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeAction {
    /// Nothing new; what runs goes on.
    Drain,
    /// Out of service; what runs is ended.
    Down,
    /// Nothing new, expected to fail.
    Fail,
    /// Back into service.
    Resume,
    /// Ends a drain alone.
    Undrain,
    /// Powered down: proof that nothing runs there.
    PowerDown,
    /// Powered up again.
    PowerUp,
}

/// What an agent says of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// A step's part on this node; `None`: the batch script.
    pub step: Option<StepNumber>,
    /// How far it got.
    pub phase: AttemptPhase,
}

/// How far an attempt got on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptPhase {
    /// The job's process was started.
    Running,
    /// It ended.
    Ended(Box<RunResult>),
    /// It was intended and never started, and never will be.
    NeverStarted,
}

/// One start that a plan proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartLine {
    /// The job, or the array whose first waiting task is started.
    pub unit: Unit,
    /// The task, where the unit is an array.
    pub task: Option<u32>,
    /// Partition it starts in.
    pub partition: PartitionName,
    /// What each node gives.
    pub shares: Box<[NodeShare]>,
    /// It jumps ahead of a job that waits; such a line falls with a refused one on the same nodes.
    pub backfill: bool,
    /// Its limit is cut down to so many seconds, as `JobSpec::min_time` lets.
    pub limit: Option<u64>,
}

/// A change of the advance reservations; for admins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReservationChange {
    /// Make one.
    Create(Box<ReservationRequest>),
    /// Change what is present.
    Update(Box<str>, Box<ReservationRequest>),
    /// Delete one that no job runs in.
    Delete(Box<str>),
    /// Further times of a recurring one, after those that are known. Whoever knows the cluster's time
    /// zone sends it when `Cluster::reservations_to_extend` names the reservation.
    Extend(Box<str>, Vec<(Timestamp, Timestamp)>),
}

/// An advance reservation as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservationRequest {
    /// Name; empty: one is made up. Not looked at in a change.
    pub name: Box<str>,
    /// When it begins; obligatory for a new one.
    pub start: Option<Timestamp>,
    /// When it ends; a year after the start if neither this nor `duration_secs` is given.
    pub end: Option<Timestamp>,
    /// Or how long it is, seconds.
    pub duration_secs: Option<u64>,
    /// Of a recurring one: the times after the first, at most [`MAX_UPCOMING`].
    pub upcoming: Option<Vec<(Timestamp, Timestamp)>>,
    /// Which nodes.
    pub nodes: Option<NodeChoice>,
    /// Partition that the nodes are of.
    pub partition: Option<PartitionName>,
    /// Features of nodes that are chosen.
    pub features: Option<Constraint>,
    /// Users, by name and number.
    pub users: Option<Vec<(Box<str>, UserId)>>,
    /// Accounts.
    pub accounts: Option<Vec<Box<str>>>,
    /// They may not use it, and everybody else may.
    pub deny: Option<bool>,
    /// Licences that it sets aside.
    pub licenses: Option<Vec<(Box<str>, u64)>>,
    /// Switches, all of them.
    pub flags: Option<BTreeSet<ReservationFlag>>,
    /// Time of `PURGE_COMP`.
    pub purge_after: Option<Walltime>,
    /// Free text.
    pub comment: Option<Box<str>>,
}

/// Nodes of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChoice {
    /// All of its partition, else of the cluster.
    All,
    /// These.
    Named(Vec<NodeName>),
    /// So many.
    Count(u32),
}

/// Most times of a recurring reservation that are kept ahead.
pub const MAX_UPCOMING: usize = 64;

/// One run that a plan proposes to end, or to suspend, in favour of a waiting unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreemptLine {
    /// The job that makes room.
    pub victim: JobId,
    /// The unit that gets it.
    pub for_unit: Unit,
    /// How.
    pub mode: PreemptMode,
    /// From the warning to the end, seconds; no less than its QOS and partition give.
    pub grace_secs: u32,
}

/// What comes next for a run whose GPUs are idle, or work again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleLine {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Name of the rule.
    pub rule: Box<str>,
    /// What.
    pub step: IdleStep,
    /// What was seen, for people.
    pub evidence: Box<str>,
    /// GPU time that was seen idle, milliseconds times GPUs.
    pub lost_ms: u64,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Records that changed or went; to be made durable before anything else.
    pub changed: Vec<RecordKey>,
    /// What to do once they are durable.
    pub effects: Vec<Effect>,
    /// The answer.
    pub reply: Reply,
}

/// A record of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// A job.
    Job(JobId),
    /// An array.
    Array(JobId),
    /// A step.
    Step(StepKey),
    /// A node.
    Node(NodeName),
    /// A host.
    Host(Box<str>),
    /// A token.
    Token(Box<str>),
    /// An answer.
    Answer(UserId, RequestId),
    /// An account, by name.
    Account(Box<str>),
    /// A user of accounts, by name.
    User(Box<str>),
    /// An association.
    Assoc(AssocId),
    /// A QOS, by name.
    Qos(Box<str>),
    /// Usage.
    Usage(UsageOwner),
    /// A reservation, by name.
    Reservation(Box<str>),
    /// A user's crontab.
    Crontab(UserId),
    /// The cluster's counters.
    Counters,
}

/// What the shell does once the change is durable. Doing it twice is harmless, and what gets lost
/// is derived again when the node registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell a node something about an attempt.
    Order(NodeIndex, Order),
    /// Something became of this job's steps, or of a job that somebody holds.
    Watched(JobId),
    /// Cut a host's connections.
    CutHost(Box<str>),
    /// Tell a node to cut a GPU, as its record says.
    Reshape(NodeIndex, u32),
    /// Tell whoever runs the job: in the stderr of its script, or of its steps where it has none.
    /// Whatever else reaches users (mail) starts here.
    Notice {
        /// Its first node.
        node: NodeIndex,
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: Attempt,
        /// What, in one line.
        text: Box<str>,
    },
    /// Tell the admins.
    Warn(Box<str>),
    /// Something may start now.
    Schedule,
}

/// A GPU to cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReshapeLine {
    /// Its node.
    pub node: NodeIndex,
    /// Index on the node.
    pub gpu: u32,
    /// Generation that it is made for.
    pub generation: u64,
    /// Free slices to destroy, by first memory slice.
    pub destroy: Box<[u32]>,
    /// Slices to make.
    pub create: Box<[NewSlice]>,
    /// Who waits for it.
    pub for_unit: Unit,
}

/// What a node is told about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// A step's part on the node; `None`: the batch script.
    pub step: Option<StepNumber>,
    /// What to do.
    pub kind: OrderKind,
}

/// What to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKind {
    /// Start it.
    Launch,
    /// End it, and never start it.
    Terminate(EndCause),
    /// Send it a signal.
    Signal(SignalOrder),
    /// Its time limit is another.
    SetLimit,
    /// Stop all its processes; its time limit stands still. Once more does nothing.
    Suspend,
    /// Let them go on. Once more does nothing.
    Resume,
    /// Its end is durable: forget it.
    Acknowledge,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Done,
    /// Submitted under this id.
    Submitted {
        /// The job's or array's id.
        job: JobId,
        /// Lines for the submitter.
        warnings: Vec<Box<str>>,
    },
    /// What became of each spec.
    SubmittedMany(Vec<Result<JobId, Box<Refusal>>>),
    /// What became of each target.
    Targets(Vec<TargetResult>),
    /// Lines of a plan: how many started, and how many were refused as stale.
    Started {
        /// Started.
        started: u32,
        /// Refused.
        refused: u32,
    },
    /// A step has its resources.
    StepCreated(StepKey),
    /// A host joined in this role.
    Joined(HostRole),
    /// A reservation of this name was made.
    Reserved(Box<str>),
    /// What was added, changed and deleted, in order; empty: everything was so already.
    AccountsChanged(Vec<AccountEffect>),
}

/// What became of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetResult {
    /// The target.
    pub target: Target,
    /// Why not, if not.
    pub refusal: Option<Refusal>,
}
