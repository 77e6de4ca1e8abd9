//! What does the cluster file say that decisions depend on?

use std::collections::BTreeMap;

use penstock_vocab::{GresRequest, Mib, NodeName, PartitionName, TresKind, Walltime};

use super::gpu_health::GpuHealth;
use super::hooks::HookPolicy;
use super::idle::IdleRule;
use super::mig::MigConfig;
use super::qos::PreemptMode;
use super::scheduling::Scheduling;

/// The configuration as the core needs it. Not stored: it comes from the file at each start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: Box<str>,
    /// Numbers.
    pub policy: Policy,
    /// Order, planning, charging, preemption.
    pub scheduling: Scheduling,
    /// Partitions, in the order of the file.
    pub partitions: Vec<Partition>,
    /// Nodes that the file names.
    pub nodes: Vec<NodeConfig>,
    /// What is done about faults of GPUs.
    pub gpu_health: GpuHealth,
    /// Which GPUs are cut as the queue asks.
    pub mig: MigConfig,
    /// Scripts of the site before and after runs.
    pub hooks: HookPolicy,
    /// What is done about idle GPUs; the first rule that covers a job counts.
    pub idle: Vec<IdleRule>,
}

/// Numbers that decisions depend on; seconds unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// From SIGTERM to SIGKILL.
    pub kill_wait_secs: u32,
    /// How long an ended job stays among the live records.
    pub min_job_age_secs: u32,
    /// Silence after which a node is down.
    pub node_timeout_secs: u32,
    /// From a requeue to the earliest next start.
    pub requeue_delay_secs: u32,
    /// One more than the highest array index.
    pub max_array_size: u32,
    /// Most job and array records, those of ended jobs among them.
    pub max_jobs: u32,
    /// A job that was requeued this often is held instead.
    pub max_requeues: u32,
    /// How long a lease holds in partitions that fence by lease.
    pub fence_lease_secs: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kill_wait_secs: 30,
            min_job_age_secs: 300,
            node_timeout_secs: 300,
            requeue_delay_secs: 10,
            max_array_size: 1_000_001,
            max_jobs: 2_000_000,
            max_requeues: 5,
            fence_lease_secs: 120,
        }
    }
}

/// How many jobs may hold a CPU of a partition at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversubscribe {
    /// So many; 1: each CPU is one job's.
    pub jobs: u32,
    /// All jobs share; else those that ask for it.
    pub forced: bool,
}

impl Default for Oversubscribe {
    fn default() -> Self {
        Self { jobs: 1, forced: false }
    }
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Name.
    pub name: PartitionName,
    /// Used where a job names none.
    pub is_default: bool,
    /// Which nodes; `None`: all.
    pub nodes: Option<Vec<NodeName>>,
    /// What it lets through.
    pub state: PartitionState,
    /// Highest time limit.
    pub max_time: Walltime,
    /// Limit of jobs that state none; `None`: `max_time`.
    pub default_time: Option<Walltime>,
    /// Fewest nodes of a job.
    pub min_nodes: u32,
    /// Most nodes of a job; 0: no limit.
    pub max_nodes: u32,
    /// Most CPUs that jobs may take on one node; 0: all.
    pub max_cpus_per_node: u32,
    /// Jobs of a higher tier are planned first.
    pub priority_tier: u32,
    /// Weight in a job's priority.
    pub priority_job_factor: u32,
    /// Groups that may submit; empty: all.
    pub allow_groups: Vec<Box<str>>,
    /// Accounts that may submit; empty: all.
    pub allow_accounts: Vec<Box<str>>,
    /// Accounts that may not submit.
    pub deny_accounts: Vec<Box<str>>,
    /// QOS that may be used; empty: all.
    pub allow_qos: Vec<Box<str>>,
    /// QOS that may not be used.
    pub deny_qos: Vec<Box<str>>,
    /// QOS whose limits hold for all its jobs beside their own.
    pub qos: Option<Box<str>>,
    /// `TRESBillingWeights`, in millionths a unit; empty: the cluster's.
    pub billing: BTreeMap<TresKind, u64>,
    /// How its jobs are preempted; `None`: as the cluster says.
    pub preempt_mode: Option<PreemptMode>,
    /// Warning before the end of a preempted job, seconds.
    pub grace_secs: u32,
    /// How many jobs may hold a CPU at a time.
    pub oversubscribe: Oversubscribe,
    /// Nodes are shared by the jobs of one user only.
    pub exclusive_user: bool,
    /// Jobs must name a reservation.
    pub require_reservation: bool,
    /// Memory for each CPU where a job states none.
    pub def_mem_per_cpu: Option<Mib>,
    /// Memory on each node where a job states none.
    pub def_mem_per_node: Option<Mib>,
    /// Most memory for each CPU.
    pub max_mem_per_cpu: Option<Mib>,
    /// Most memory on each node.
    pub max_mem_per_node: Option<Mib>,
    /// Jobs get whole nodes.
    pub exclusive: bool,
    /// Not listed without `-a`.
    pub hidden: bool,
    /// Only admins may submit.
    pub root_only: bool,
    /// Runs hold a lease: their nodes end them when they are cut off (`fence = "self"`).
    pub fence_self: bool,
}

impl Partition {
    /// A partition of all nodes without limits.
    #[must_use]
    pub fn new(name: PartitionName) -> Self {
        Self {
            name,
            is_default: false,
            nodes: None,
            state: PartitionState::Up,
            max_time: Walltime::Unlimited,
            default_time: None,
            min_nodes: 0,
            max_nodes: 0,
            max_cpus_per_node: 0,
            priority_tier: 1,
            priority_job_factor: 1,
            allow_groups: Vec::new(),
            allow_accounts: Vec::new(),
            deny_accounts: Vec::new(),
            allow_qos: Vec::new(),
            deny_qos: Vec::new(),
            qos: None,
            billing: BTreeMap::new(),
            preempt_mode: None,
            grace_secs: 0,
            oversubscribe: Oversubscribe::default(),
            exclusive_user: false,
            require_reservation: false,
            def_mem_per_cpu: None,
            def_mem_per_node: None,
            max_mem_per_cpu: None,
            max_mem_per_node: None,
            exclusive: false,
            hidden: false,
            root_only: false,
            fence_self: false,
        }
    }
}

/// What a partition lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartitionState {
    /// Submissions and starts.
    Up,
    /// Submissions only.
    Down,
    /// Starts only.
    Drain,
    /// Neither.
    Inactive,
}

impl PartitionState {
    /// Whether jobs may be submitted.
    #[must_use]
    pub fn accepts_jobs(self) -> bool {
        matches!(self, Self::Up | Self::Down)
    }

    /// Whether jobs may start.
    #[must_use]
    pub fn starts_jobs(self) -> bool {
        matches!(self, Self::Up | Self::Drain)
    }

    /// Slurm's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Drain => "DRAIN",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// What the file says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name.
    pub name: NodeName,
    /// CPUs it must have at least; `None`: whatever it finds.
    pub cpus: Option<u32>,
    /// Memory it must have at least.
    pub memory: Option<Mib>,
    /// Generic resources it must have at least.
    pub gres: Vec<GresRequest>,
    /// Features besides those it finds.
    pub features: Vec<Box<str>>,
    /// The lower, the sooner it is used.
    pub weight: u32,
}
