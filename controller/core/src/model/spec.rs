//! What does a job ask for? The request as it was submitted; it changes by `scontrol update` only.

use std::sync::Arc;

use penstock_vocab::{GresRequest, Mib, NodeName, PartitionName, Timestamp, Walltime};

use super::constraint::Constraint;
use super::dependency::Dependency;
use super::gpu_terms::GpuTerms;
use super::qos::NORMAL_QOS;

/// A job's request. Text that is empty was not given. What many jobs have in common is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// Job name as listings show it.
    pub name: Box<str>,
    /// Account to charge; empty: the user's default.
    pub account: Box<str>,
    /// Quality of service; empty: the default.
    pub qos: Box<str>,
    /// Partitions in order of preference; empty: the cluster's default partition.
    pub partitions: Box<[PartitionName]>,
    /// Resources.
    pub shape: Arc<Shape>,
    /// Limit on elapsed time; `None`: the partition's default.
    pub time_limit: Option<Walltime>,
    /// Not to start before; `Timestamp(0)`: at once.
    pub begin_time: Timestamp,
    /// Submitted held.
    pub hold: bool,
    /// Whether a lost run may be repeated; `None`: yes.
    pub requeue: Option<bool>,
    /// Lowers the priority by this much.
    pub nice: i32,
    /// A fixed priority; for admins.
    pub priority: Option<u32>,
    /// Free text.
    pub comment: Box<str>,
    /// Other jobs that must start or end first.
    pub dependency: Dependency,
    /// Cancel instead of waiting for ever when the dependency can never be met.
    pub kill_on_invalid_dep: bool,
    /// It has no script and lasts as long as somebody holds it.
    pub allocation: bool,
    /// Goes on where a node other than its first fails.
    pub no_kill: bool,
    /// Reservation to run in; empty: none.
    pub reservation: Box<str>,
    /// To be cancelled if it could not end by then.
    pub deadline: Option<Timestamp>,
    /// The limit may be cut down to this, to start sooner.
    pub min_time: Option<Walltime>,
    /// A signal ahead of the time limit.
    pub signal: Option<SignalRequest>,
    /// What only the launch and listings need.
    pub details: Arc<Details>,
}

impl JobSpec {
    /// Name of the QOS that it runs in: `normal` where none was resolved.
    #[must_use]
    pub fn qos_name(&self) -> &str {
        if self.qos.is_empty() { NORMAL_QOS } else { &self.qos }
    }

    /// Shares with `other` what is equal in both: people submit many jobs that are nearly alike.
    pub fn share_with(&mut self, other: &Self) {
        if self.shape == other.shape {
            self.shape = Arc::clone(&other.shape);
        }
        if self.details == other.details {
            self.details = Arc::clone(&other.details);
        }
    }
}

/// `--signal`: sent `seconds_before` the time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalRequest {
    /// Signal number.
    pub signal: u32,
    /// Seconds ahead of the limit, at most 65,535.
    pub seconds_before: u32,
    /// To the batch shell alone.
    pub batch_only: bool,
}

/// What the core carries for the launch and for listings and never looks into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Directory the job starts in.
    pub work_dir: Box<str>,
    /// Path pattern of standard input; empty: `/dev/null`.
    pub stdin: Box<str>,
    /// Path pattern of standard output; empty: `slurm-%j.out`.
    pub stdout: Box<str>,
    /// Path pattern of standard error; empty: where standard output goes.
    pub stderr: Box<str>,
    /// Append to the output files instead of truncating them.
    pub append: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Soft resource limits: (setrlimit's number, value).
    pub rlimits: Box<[(u32, u64)]>,
    /// Path of the script as submitted; empty for standard input and `--wrap`.
    pub command: Box<str>,
    /// Arguments of the script.
    pub arguments: Box<[Box<str>]>,
    /// Host that submitted.
    pub submit_host: Box<str>,
    /// The command line that submitted.
    pub submit_line: Box<str>,
    /// `--export` as typed.
    pub export: Box<str>,
    /// Name of the user.
    pub user_name: Box<str>,
    /// Name of the group.
    pub group_name: Box<str>,
    /// sha256 of the script.
    pub script: BlobId,
    /// sha256 of the environment block.
    pub environment: BlobId,
    /// Session id of the submitting process.
    pub submit_sid: u32,
    /// Of a job without a script: it lasts without a holder (`salloc --no-shell`).
    pub unheld: bool,
    /// `--gpu-bind` as typed, for its steps.
    pub gpu_bind: Box<str>,
    /// Why it may hold idle GPUs; empty: it says nothing.
    pub idle_ok: Box<str>,
    /// `--distribution` as typed, for its steps.
    pub distribution: Box<str>,
    /// A word to account the job by (`--wckey`); empty: none. Stored and shown, no more.
    pub wckey: Box<str>,
}

/// Content hash of a blob; all zero: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BlobId(pub [u8; 32]);

/// Resources that a job asks for. Equal shapes are placed alike, which makes a shape the core of a
/// scheduling class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Shape {
    /// Fewest nodes; 0: not given.
    pub nodes_min: u32,
    /// Most nodes; 0: not given.
    pub nodes_max: u32,
    /// Tasks over all nodes.
    pub ntasks: Option<u32>,
    /// CPUs for each task.
    pub cpus_per_task: Option<u32>,
    /// Tasks on each node: exact without `ntasks`, else the most.
    pub ntasks_per_node: Option<u32>,
    /// Memory.
    pub memory: MemoryRequest,
    /// Generic resources on every node.
    pub gres_per_node: Box<[GresRequest]>,
    /// GPUs over the whole job.
    pub gpus_total: Option<GresRequest>,
    /// What else it says of its GPUs.
    pub gpus: GpuTerms,
    /// Features that nodes must have.
    pub constraint: Constraint,
    /// Nodes that must all be part of the allocation.
    pub required: Box<[NodeName]>,
    /// Nodes that must not be.
    pub excluded: Box<[NodeName]>,
    /// Whole nodes, shared with nobody.
    pub exclusive: bool,
    /// Nodes shared with jobs of the same user only.
    pub exclusive_user: bool,
    /// CPUs shared with other jobs, where the partition lets those share that ask for it.
    pub oversubscribe: bool,
    /// Licences, over the whole job.
    pub licenses: Box<[(Box<str>, u64)]>,
    /// Nodes under few switches.
    pub switches: Option<SwitchRequest>,
}

/// `--switches`: at most so many leaf switches, for which the job waits so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchRequest {
    /// Most leaf switches.
    pub count: u32,
    /// After so many seconds of waiting any switches will do.
    pub max_wait_secs: u32,
}

/// How a job states its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MemoryRequest {
    /// Not at all: the partition's default, else the node's memory in proportion to its CPUs.
    #[default]
    Default,
    /// This much on every node.
    PerNode(Mib),
    /// This much for every allocated CPU.
    PerCpu(Mib),
    /// This much for every GPU.
    PerGpu(Mib),
    /// All memory of every node (`--mem=0`).
    WholeNode,
}

impl Shape {
    /// CPUs for each task, at least one.
    #[must_use]
    pub fn task_cpus(&self) -> u32 {
        self.cpus_per_task.unwrap_or(1).max(1)
    }

    /// Fewest nodes that can serve: what was asked, every required node, all that are counted by
    /// the constraint.
    #[must_use]
    pub fn least_nodes(&self) -> u32 {
        let required = u32::try_from(self.required.len()).unwrap_or(u32::MAX);
        self.nodes_min.max(required).max(self.constraint.least_nodes()).max(1)
    }

    /// Most nodes that may serve. A count of nodes without a range is exact.
    #[must_use]
    pub fn most_nodes(&self) -> u32 {
        match (self.nodes_min, self.nodes_max) {
            (0, 0) => u32::MAX,
            (min, 0) => min.max(self.least_nodes()),
            (_, max) => max,
        }
    }

    /// Tasks over all nodes; one a node where nothing was said.
    #[must_use]
    pub fn total_tasks(&self) -> u32 {
        match (self.ntasks.or_else(|| self.tasks_by_gpus()), self.ntasks_per_node) {
            (Some(tasks), _) => tasks.max(1),
            (None, Some(per_node)) => per_node.max(1).saturating_mul(self.least_nodes()),
            (None, None) => self.least_nodes(),
        }
    }

    /// Least number of CPUs that the job takes.
    #[must_use]
    pub fn least_cpus(&self) -> u32 {
        let of_gpus = self.gpus.cpus_per_gpu.map_or(0, |each| {
            let cpus = u64::from(each).saturating_mul(self.least_gpus());
            u32::try_from(cpus).unwrap_or(u32::MAX)
        });
        self.total_tasks().saturating_mul(self.task_cpus()).max(of_gpus)
    }
}
