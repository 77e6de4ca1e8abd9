//! What is a step: tasks that are started within the resources of a running job?

use std::fmt;
use std::sync::Arc;

use penstock_vocab::{
    Attempt, ExitCode, GresRequest, JobId, JobState, Millis, NodeName, StepId, Timestamp, UserId,
    Walltime,
};

use super::job::{EndCause, NodeShare, RunResult, Usage};
use super::node::NodeIndex;
use super::spec::MemoryRequest;

/// Number of a step within an attempt of its job: 0, 1, ... in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepNumber(pub u32);

impl StepNumber {
    /// A shell on the first node of an allocation, not counted among the steps.
    pub const INTERACTIVE: Self = Self(4_294_967_290);
    /// The prolog of a run on a node: no step, but started, reported and ended like a step's part.
    pub const PROLOG: Self = Self(4_294_967_280);
    /// The epilog of a run on a node, as above.
    pub const EPILOG: Self = Self(4_294_967_281);
    /// Steps that one attempt of a job may have; Slurm's `MaxStepCount`.
    pub const MOST: u32 = 40_000;

    /// Whether it names a prolog or an epilog.
    #[must_use]
    pub fn is_hook(self) -> bool {
        matches!(self, Self::PROLOG | Self::EPILOG)
    }

    /// The same as people type it.
    #[must_use]
    pub fn id(self) -> StepId {
        if self == Self::INTERACTIVE { StepId::Interactive } else { StepId::Number(self.0) }
    }
}

impl fmt::Display for StepNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

/// What names a step: job, attempt, number. Steps of one run stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The step's number in that attempt.
    pub number: StepNumber,
}

/// `12.0`
impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.number)
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What names it.
    pub key: StepKey,
    /// Owner: the job's.
    pub uid: UserId,
    /// The request.
    pub spec: Arc<StepSpec>,
    /// What each node gives, in the order of the job's nodes.
    pub shares: Box<[StepShare]>,
    /// When it got its resources.
    pub start_time: Timestamp,
    /// How long its run had gone on by then, without the times in which it stood still.
    pub run_elapsed: Millis,
    /// When its last part ended.
    pub end_time: Option<Timestamp>,
    /// `Running` until it has ended.
    pub state: JobState,
    /// Highest exit status of its tasks, or a signal.
    pub exit: ExitCode,
    /// Of all nodes together; the highest memory of one.
    pub usage: Usage,
    /// It shall end by itself for this cause. Where its whole run ends, the run says so.
    pub ending: Option<EndCause>,
    /// Who asked for the end.
    pub ended_by: Option<UserId>,
    /// What the daemon keeps of it apart (a secret) stands under this number; 0: nothing. Not stored,
    /// since what is kept apart is not either.
    pub ticket: u64,
}

/// What one node gives to a step, and how far it got there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepShare {
    /// CPUs, memory and devices; `tasks` is the number of `ranks`.
    pub share: NodeShare,
    /// Global numbers of the tasks there, by their local numbers.
    pub ranks: Box<[u32]>,
    /// How far it got.
    pub phase: StepPhase,
}

/// How far a step got on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepPhase {
    /// Allocated; the launch is not confirmed.
    Allocated,
    /// Its shepherd is there.
    Running,
    /// Nothing of it is left there.
    Ended(Box<RunResult>),
}

/// What srun asks for. Text that is empty was not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepSpec {
    /// Name as listings show it.
    pub name: Box<str>,
    /// Tasks over all nodes.
    pub ntasks: Option<u32>,
    /// Fewest nodes.
    pub nodes_min: Option<u32>,
    /// Most nodes.
    pub nodes_max: Option<u32>,
    /// CPUs for each task.
    pub cpus_per_task: Option<u32>,
    /// Tasks on each node: exact without `ntasks`, else the most.
    pub ntasks_per_node: Option<u32>,
    /// Memory. Not asked for, or all of it: what the job has there, shared with other such steps.
    pub memory: MemoryRequest,
    /// Generic resources on every node; empty: all that the job has there. An entry of count 0, or
    /// named `none`, asks for nothing.
    pub gres_per_node: Box<[GresRequest]>,
    /// GPUs over the whole step.
    pub gpus_total: Option<GresRequest>,
    /// GPUs for each task.
    pub gpus_per_task: Option<GresRequest>,
    /// Only the CPUs that it asks for, instead of all that the job has on its nodes.
    pub exact: bool,
    /// Shares what other steps hold, and holds nothing against them.
    pub overlap: bool,
    /// More tasks than CPUs.
    pub overcommit: bool,
    /// The first node, counted among the job's.
    pub relative: Option<u32>,
    /// Nodes that must be part of it.
    pub required: Box<[NodeName]>,
    /// Nodes that must not be.
    pub excluded: Box<[NodeName]>,
    /// How tasks get their numbers.
    pub distribution: Distribution,
    /// With [`Distribution::Arbitrary`]: the node of each task.
    pub task_nodes: Box<[NodeName]>,
    /// Limit on its time; `None`: as long as the job.
    pub time_limit: Option<Walltime>,
    /// Goes on where a node fails.
    pub no_kill: bool,
    /// A shell on the first node of the allocation.
    pub interactive: bool,
    /// What only the launch and listings need.
    pub details: Arc<StepDetails>,
}

/// Over which nodes tasks go one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distribution {
    /// Cyclic where there are no more tasks than nodes, else by block.
    #[default]
    Default,
    /// Neighbours share a node.
    Block,
    /// To each node in turn.
    Cyclic,
    /// Blocks of this size to each node in turn; not 0.
    Plane(u32),
    /// As `StepSpec::task_nodes` says.
    Arbitrary,
}

/// What the core carries for the launch and for listings and never looks into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepDetails {
    /// `--distribution` as typed, with its parts for sockets and cores.
    pub distribution: Box<str>,
    /// `--cpu-bind`.
    pub cpu_bind: Box<str>,
    /// `--gpu-bind`.
    pub gpu_bind: Box<str>,
    /// `none`, `pmi2` or `pmix`.
    pub mpi: Box<str>,
    /// Where srun runs.
    pub srun_host: Box<str>,
    /// Its process.
    pub srun_pid: u32,
    /// The command line.
    pub submit_line: Box<str>,
    /// Path of an OCI bundle; empty: none.
    pub container: Box<str>,
    /// An image of a container; empty: none.
    pub container_image: Box<str>,
    /// The folder to begin in within a container; empty: the container's own.
    pub container_dir: Box<str>,
    /// Free text.
    pub comment: Box<str>,
    /// `--threads-per-core`; 0: not given.
    pub threads_per_core: u32,
    /// `--ntasks-per-core`; 0: not given.
    pub ntasks_per_core: u32,
    /// `--ntasks-per-socket`; 0: not given.
    pub ntasks_per_socket: u32,
    /// Task 0 has a terminal.
    pub pty: bool,
    /// Seconds between two measurements of what it uses; 0: at its start and its end only.
    pub measure_secs: Option<u32>,
}

impl Step {
    /// Some part of it may still run.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.end_time.is_none()
    }

    /// Parts that may still run.
    pub fn live_shares(&self) -> impl Iterator<Item = &StepShare> {
        self.shares.iter().filter(|share| share.is_live())
    }

    /// Its part on a node.
    #[must_use]
    pub fn share_on(&self, node: NodeIndex) -> Option<&StepShare> {
        self.shares.iter().find(|share| share.share.node == node)
    }

    /// Tasks on all nodes.
    #[must_use]
    pub fn task_count(&self) -> u32 {
        self.shares.iter().map(|share| share.share.tasks).fold(0, u32::saturating_add)
    }

    /// CPUs on all nodes.
    #[must_use]
    pub fn cpu_count(&self) -> u32 {
        self.shares.iter().map(|share| share.share.cpu_count()).fold(0, u32::saturating_add)
    }

    /// Holds what it has against other steps.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.spec.overlap && !self.spec.interactive
    }

    /// Seconds from its start to its end at the latest, where its job may run for `job_limit` in all.
    #[must_use]
    pub fn limit_within(&self, job_limit: Walltime) -> Walltime {
        let left = |secs: u64| {
            let gone = self.run_elapsed.as_secs();
            Walltime::Limited(secs.saturating_sub(gone).max(1))
        };
        let by_job = job_limit.as_secs().map_or(Walltime::Unlimited, left);
        self.spec.time_limit.map_or(by_job, |own| own.min(by_job))
    }
}

impl StepShare {
    /// It may still run there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.phase, StepPhase::Ended(_))
    }
}
