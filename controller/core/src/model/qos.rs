//! What does a quality of service give and take?

use std::collections::BTreeSet;

use super::limits::{EachLimits, GroupLimits, JobLimits};

/// Name of the QOS that always exists.
pub const NORMAL_QOS: &str = "normal";

/// Factors of a QOS are in millionths, so that they are whole numbers: 1.0 is this.
pub const ONE_MILLIONTHS: u64 = 1_000_000;

/// A quality of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qos {
    /// Name, lower case.
    pub name: Box<str>,
    /// Number that listings show; never used twice.
    pub id: u32,
    /// Free text.
    pub description: Box<str>,
    /// Weight in the priority.
    pub priority: u32,
    /// Switches.
    pub flags: BTreeSet<QosFlag>,
    /// Warning before the end of a preempted job, seconds.
    pub grace_secs: u32,
    /// QOS whose jobs this one may preempt.
    pub preempt: Box<[Box<str>]>,
    /// How its jobs are preempted; `None`: as the cluster says.
    pub preempt_mode: Option<PreemptMode>,
    /// Its jobs run at least this long before they are preempted, seconds; `None`: as the cluster
    /// says.
    pub preempt_exempt_secs: Option<u32>,
    /// Usage is charged times this, in millionths.
    pub usage_factor: u64,
    /// Jobs whose fair-share factor is below this wait, in millionths; `None`: no such rule.
    pub usage_threshold: Option<u64>,
    /// The associations' Grp TRES limits count times this, in millionths; `None`: unchanged.
    pub limit_factor: Option<u64>,
    /// Limits on all its jobs together.
    pub group: GroupLimits,
    /// Limits on each user.
    pub per_user: EachLimits,
    /// Limits on each account.
    pub per_account: EachLimits,
    /// Limits on each job.
    pub job: JobLimits,
}

/// A switch of a QOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosFlag {
    /// A job beyond a limit on each job is refused at submission instead of waiting.
    DenyOnLimit,
    /// Jobs whose share is below `UsageThreshold` wait.
    EnforceUsageThreshold,
    /// Its jobs get no place reserved in time.
    NoReserve,
    /// Its `GrpTRESMins`, `GrpWall` and usage do not decay: a budget.
    NoDecay,
    /// Goes before the partition's QOS.
    OverPartQos,
    /// Its jobs may go beyond the partition's `MaxNodes`.
    PartitionMaxNodes,
    /// Its jobs may go below the partition's `MinNodes`.
    PartitionMinNodes,
    /// Its jobs may go beyond the partition's `MaxTime`.
    PartitionTimeLimit,
    /// Its jobs must name a reservation.
    RequiresReservation,
    /// A job starts only if it can end within the TRES-minutes with the usage factor counted.
    UsageFactorSafe,
}

impl QosFlag {
    /// All, in the order in which Slurm prints them, with Slurm's names.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::DenyOnLimit, "DenyOnLimit"),
        (Self::EnforceUsageThreshold, "EnforceUsageThreshold"),
        (Self::NoDecay, "NoDecay"),
        (Self::NoReserve, "NoReserve"),
        (Self::OverPartQos, "OverPartQOS"),
        (Self::PartitionMaxNodes, "PartitionMaxNodes"),
        (Self::PartitionMinNodes, "PartitionMinNodes"),
        (Self::PartitionTimeLimit, "PartitionTimeLimit"),
        (Self::RequiresReservation, "RequiresReservation"),
        (Self::UsageFactorSafe, "UsageFactorSafe"),
    ];

    /// Slurm's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(flag, _)| *flag == self).map_or("", |(_, name)| name)
    }

    /// By Slurm's name, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(flag, _)| *flag)
    }
}

/// What becomes of a preempted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PreemptMode {
    /// It is not preempted.
    #[default]
    Off,
    /// It ends.
    Cancel,
    /// It is run again; one that may not be requeued ends.
    Requeue,
    /// It stands still until what preempted it has ended, its memory kept.
    Suspend,
}

impl PreemptMode {
    /// Slurm's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Cancel => "CANCEL",
            Self::Requeue => "REQUEUE",
            Self::Suspend => "SUSPEND",
        }
    }

    /// By Slurm's word, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Off, Self::Cancel, Self::Requeue, Self::Suspend]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
    }
}

impl Qos {
    /// Whether it sets a limit on jobs or on those who submit them.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.group != GroupLimits::default()
            || self.per_user != EachLimits::default()
            || self.per_account != EachLimits::default()
            || self.job != JobLimits::default()
            || self.usage_threshold.is_some()
    }

    /// A QOS that gives and limits nothing.
    #[must_use]
    pub fn new(name: &str, id: u32) -> Self {
        Self {
            name: name.into(),
            id,
            description: "".into(),
            priority: 0,
            flags: BTreeSet::new(),
            grace_secs: 0,
            preempt: Box::default(),
            preempt_mode: None,
            preempt_exempt_secs: None,
            usage_factor: ONE_MILLIONTHS,
            usage_threshold: None,
            limit_factor: None,
            group: GroupLimits::default(),
            per_user: EachLimits::default(),
            per_account: EachLimits::default(),
            job: JobLimits::default(),
        }
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn has(&self, flag: QosFlag) -> bool {
        self.flags.contains(&flag)
    }
}
