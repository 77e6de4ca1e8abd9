//! How does the cluster file want jobs ordered, planned, charged and preempted?
//!
//! Everything here can be named by a policy file of a replay as well: the live scheduler and the
//! simulator are one.

use std::collections::BTreeMap;

use penstock_vocab::{NodeName, TresKind};

use super::qos::PreemptMode;

/// How jobs are ordered and planned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scheduling {
    /// Weights of the priority.
    pub weights: Weights,
    /// Ahead of time.
    pub backfill: Backfill,
    /// Fair share and charging.
    pub fairshare: FairShareConfig,
    /// Making room.
    pub preemption: Preemption,
    /// Whether unknown accounts are refused and limits hold.
    pub enforce: Enforcement,
    /// Switches; empty: all nodes are equally near.
    pub topology: Topology,
    /// Licences that the cluster has.
    pub licenses: BTreeMap<Box<str>, u64>,
    /// Choice of nodes for jobs with GPUs.
    pub packing: Packing,
    /// Costs; empty: nothing is said of money.
    pub cost: CostRates,
}

/// Weights of the multifactor priority; each factor is between 0 and 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// Order of submission only: the weights are not looked at.
    pub fcfs: bool,
    /// `PriorityWeightAge`.
    pub age: u32,
    /// `PriorityMaxAge`, seconds: the age at which the factor is 1.
    pub max_age_secs: u32,
    /// `PriorityWeightFairshare`. It counts once somebody has entered users or shares: associations that
    /// were made by themselves are all alike.
    pub fairshare: u32,
    /// `PriorityWeightJobSize`.
    pub job_size: u32,
    /// `PriorityFavorSmall`.
    pub favor_small: bool,
    /// `PriorityWeightPartition`.
    pub partition: u32,
    /// `PriorityWeightQOS`.
    pub qos: u32,
    /// `PriorityWeightAssoc`.
    pub assoc: u32,
    /// `PriorityWeightTRES`.
    pub tres: BTreeMap<TresKind, u32>,
    /// Ours: min((wait + limit) / limit, cap) / cap.
    pub expansion: u32,
    /// The expansion factor at which that is 1.
    pub expansion_cap: u32,
    /// Ours: 1 for a job that asks for one CPU-second, less by a fortieth for each doubling, 0 for 2^40
    /// of them and for a job without a limit (smallest area first: Lelong, Reis and Trystram, 2018, who
    /// also need a bound on the wait, as the expansion is here).
    pub small_area: u32,
    /// Added to every job's priority, so that nice has room below.
    pub base: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            fcfs: false,
            age: 1_000,
            max_age_secs: 7 * 24 * 3_600,
            fairshare: 1_000_000,
            job_size: 0,
            favor_small: false,
            partition: 1_000,
            qos: 1_000_000,
            assoc: 0,
            tres: BTreeMap::new(),
            expansion: 1_000_000,
            expansion_cap: 30,
            small_area: 560_000,
            base: 1_000_000,
        }
    }
}

/// Bounds of planning ahead. Counts are of work and not of time, so that a plan can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    /// How many waiting jobs get a place reserved in time: 0: none, strict order; 1: EASY;
    /// `u32::MAX`: conservative.
    pub depth: u32,
    /// `bf_window`, seconds: nothing is planned further ahead.
    pub window_secs: u32,
    /// `bf_max_job_test`: most classes tried in a full pass.
    pub max_tests: u32,
    /// `bf_max_job_user`: most starts by backfill of one user in a pass; 0: no limit.
    pub max_per_user: u32,
    /// `bf_max_job_part`: the same of a partition.
    pub max_per_partition: u32,
    /// `bf_max_job_start`: most starts by backfill in a pass; 0: no limit.
    pub max_starts: u32,
    /// `bf_min_prio_reserve`: jobs below this priority get no place reserved; 0: all may.
    pub min_priority_reserve: u32,
    /// `bf_min_age_reserve`: nor do jobs that wait for less, seconds.
    pub min_age_reserve_secs: u32,
    /// Ours: a job that is not the first in line gets a place reserved only once its expansion
    /// factor, (wait + limit) / limit, is this (selective reservation, Srinivasan et al., 2002);
    /// 0: at once. Places for all would keep those out who could run beside the few that need one.
    pub reserve_expansion: u32,
    /// Ours: and in any case once it has waited for so long, seconds; 0: at once.
    pub reserve_after_secs: u32,
    /// `bf_max_job_array_resv`: tasks of one array that get a place reserved.
    pub max_array_reserve: u32,
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            depth: 64,
            window_secs: 30 * 24 * 3_600,
            max_tests: 20_000,
            max_per_user: 0,
            max_per_partition: 0,
            max_starts: 0,
            min_priority_reserve: 0,
            min_age_reserve_secs: 0,
            reserve_expansion: 0,
            reserve_after_secs: 24 * 3_600,
            max_array_reserve: 20,
        }
    }
}

/// Fair share and charging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FairShareConfig {
    /// `PriorityDecayHalfLife`, seconds; 0: usage never decays.
    pub half_life_secs: u32,
    /// `PriorityUsageResetPeriod`.
    pub reset: ResetPeriod,
    /// `TRESBillingWeights`, in millionths a unit (memory: a MiB); a partition may have its own.
    /// Empty: each CPU is one.
    pub billing: BTreeMap<TresKind, u64>,
    /// The dearest of a node's resources counts instead of their sum.
    pub max_tres: bool,
}

impl Default for FairShareConfig {
    fn default() -> Self {
        Self {
            half_life_secs: 7 * 24 * 3_600,
            reset: ResetPeriod::None,
            billing: BTreeMap::new(),
            max_tres: false,
        }
    }
}

/// When all usage is set to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ResetPeriod {
    /// Never.
    #[default]
    None,
    /// At midnight.
    Daily,
    /// At midnight before Sunday.
    Weekly,
    /// On the first of each month.
    Monthly,
    /// On the first of January, April, July and October.
    Quarterly,
    /// On the first of January.
    Yearly,
}

/// Making room for jobs that may preempt others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preemption {
    /// Who may preempt whom.
    pub by: PreemptBy,
    /// What becomes of a preempted job, where neither its partition nor its QOS says.
    pub mode: PreemptMode,
    /// Jobs run at least this long before they are preempted, seconds.
    pub exempt_secs: u32,
    /// Accounts get back what they are guaranteed from those who borrowed it.
    pub reclaim: bool,
}

/// Who may preempt whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PreemptBy {
    /// Nobody.
    #[default]
    None,
    /// Jobs of a partition those of partitions of a lower `priority_tier`.
    PartitionPriority,
    /// Jobs of a QOS those of the QOS in its list.
    Qos,
}

/// Whether unknown accounts are refused and limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Enforcement {
    /// Limits hold where somebody set them; unknown users get an association by themselves.
    #[default]
    None,
    /// As `Strict`, and a job starts only if it can end within its TRES-minutes.
    Safe,
    /// Users without an association are refused, limits hold.
    Strict,
}

/// A tree of switches, as `topology.conf` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Switches: leaves hold nodes, others hold switches.
    pub switches: Box<[Switch]>,
    /// Blocks: nodes that jobs should not straddle, as in NVLink domains.
    pub blocks: Box<[Block]>,
}

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Name, unique.
    pub name: Box<str>,
    /// Nodes of a leaf.
    pub nodes: Box<[NodeName]>,
    /// Names of the switches below.
    pub switches: Box<[Box<str>]>,
}

/// A block of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Name, unique.
    pub name: Box<str>,
    /// Its nodes.
    pub nodes: Box<[NodeName]>,
}

/// Which node a job with GPUs gets, among those that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Packing {
    /// The first that fits.
    FirstFit,
    /// The fullest.
    BestFit,
    /// The one where least of what the waiting jobs could use is lost (fragmentation gradient
    /// descent, Weng et al., ATC 2023).
    #[default]
    Fragmentation,
}

/// What a TRES costs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CostRates {
    /// Currency as it is printed, `EUR`.
    pub currency: Box<str>,
    /// Millionths of a unit of the currency for an hour of one unit (memory: a GiB).
    pub per_hour: BTreeMap<TresKind, u64>,
}
