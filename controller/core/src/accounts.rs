//! What can be changed in the tree of accounts, the users and the QOS, and what came of it?
//!
//! `sacctmgr` finds out which records a `where` means and asks for a list of changes, which is
//! carried out as a whole or not at all. Plain values: they are stored and sent as they are.

use penstock_vocab::{PartitionName, TresKind, UserId};

use crate::model::{AdminLevel, PreemptMode, QosFlag, Shares};

/// Most changes of one command, so that it stays within what one commit takes.
pub const MAX_ACCOUNT_CHANGES: usize = 90;
/// Most records that one command may change or delete; deleting an account takes along what stands
/// below it.
pub const MAX_ACCOUNT_RECORDS: usize = 180;

/// One change. Names are lower-cased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// Adds an account; nothing happens if there is one of that name.
    AddAccount {
        /// Name.
        name: Box<str>,
        /// The account above; empty: `root`.
        parent: Box<str>,
        /// Free text; empty: the name.
        description: Box<str>,
        /// Free text; empty: the name of the account above.
        organization: Box<str>,
        /// Shares and limits.
        settings: AssocSettings,
    },
    /// Changes an account.
    ModifyAccount {
        /// Name.
        name: Box<str>,
        /// Moves it, with all below it, under another account.
        parent: Option<Box<str>>,
        /// Free text.
        description: Option<Box<str>>,
        /// Free text.
        organization: Option<Box<str>>,
        /// Shares and limits.
        settings: AssocSettings,
    },
    /// Deletes an account and everything below it.
    DeleteAccount(Box<str>),
    /// Adds a user without any association; nothing happens if there is one of that name.
    AddUser {
        /// Login name.
        name: Box<str>,
        /// Number; `None`: learnt at the first job.
        uid: Option<UserId>,
        /// Account of jobs that name none; empty: the first that the user is added to.
        default_account: Box<str>,
        /// What the user may administer.
        admin_level: AdminLevel,
    },
    /// Changes a user.
    ModifyUser {
        /// Login name.
        name: Box<str>,
        /// Number.
        uid: Option<UserId>,
        /// Account of jobs that name none; the user must be in it.
        default_account: Option<Box<str>>,
        /// What the user may administer.
        admin_level: Option<AdminLevel>,
    },
    /// Deletes a user and all associations of it.
    DeleteUser(Box<str>),
    /// Puts a user into an account; nothing happens if it is in it.
    AddAssoc(Place, AssocSettings),
    /// Changes a user's association.
    ModifyAssoc(Place, AssocSettings),
    /// Takes a user out of an account.
    DeleteAssoc(Place),
    /// Adds a QOS; nothing happens if there is one of that name.
    AddQos(Box<str>, Box<QosSettings>),
    /// Changes a QOS.
    ModifyQos(Box<str>, Box<QosSettings>),
    /// Deletes a QOS, and takes it out of every list.
    DeleteQos(Box<str>),
    /// Makes users coordinators of an account.
    AddCoordinators(Box<str>, Vec<Box<str>>),
    /// Makes them coordinators no longer.
    RemoveCoordinators(Box<str>, Vec<Box<str>>),
    /// Sets what an account, with all below it, was charged to nothing.
    ResetAccountUsage(Box<str>),
    /// Sets what a user's association was charged to nothing.
    ResetAssocUsage(Place),
    /// Sets what a QOS was charged to nothing.
    ResetQosUsage(Box<str>),
}

/// Where a user stands in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Account.
    pub account: Box<str>,
    /// User.
    pub user: Box<str>,
    /// For jobs in this partition only.
    pub partition: Option<PartitionName>,
}

/// Settings of an association; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AssocSettings {
    /// Fair share.
    pub shares: Option<Shares>,
    /// Weight in the priority.
    pub priority: Option<u32>,
    /// Limits, set or cleared.
    pub limits: Vec<LimitEdit>,
    /// QOS that may be used.
    pub qos: Option<ListEdit>,
    /// QOS of jobs that name none; empty: as above.
    pub default_qos: Option<Box<str>>,
}

/// Settings of a QOS; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QosSettings {
    /// Free text.
    pub description: Option<Box<str>>,
    /// Weight in the priority.
    pub priority: Option<u32>,
    /// Switches.
    pub flags: Option<FlagEdit>,
    /// Warning before the end of a preempted job, seconds.
    pub grace_secs: Option<u32>,
    /// QOS whose jobs it may preempt.
    pub preempt: Option<ListEdit>,
    /// How its jobs are preempted; inner `None`: as the cluster says.
    pub preempt_mode: Option<Option<PreemptMode>>,
    /// Its jobs run so long before they are preempted, seconds; inner `None`: as the cluster says.
    pub preempt_exempt_secs: Option<Option<u32>>,
    /// Usage is charged times this, in millionths.
    pub usage_factor: Option<u64>,
    /// Jobs whose fair-share factor is below this wait, in millionths; inner `None`: no such rule.
    pub usage_threshold: Option<Option<u64>>,
    /// The associations' limits on TRES count times this, in millionths; inner `None`: unchanged.
    pub limit_factor: Option<Option<u64>>,
    /// Limits, set or cleared.
    pub limits: Vec<LimitEdit>,
}

/// How a list changes: `=`, `+=`, `-=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EditMode {
    /// These and no others; an empty list: as above, where something is above.
    Set,
    /// These too.
    Add,
    /// These no longer.
    Remove,
}

/// A change of a list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEdit {
    /// How.
    pub mode: EditMode,
    /// Names.
    pub names: Vec<Box<str>>,
}

/// A change of a QOS's switches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagEdit {
    /// How.
    pub mode: EditMode,
    /// Switches.
    pub flags: Vec<QosFlag>,
}

/// Sets a limit, or clears it (Slurm's -1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitEdit {
    /// Which.
    pub limit: Limit,
    /// To what; `None`: none here. Memory in MiB, times in minutes.
    pub value: Option<u64>,
}

/// A limit by Slurm's name. Associations know those without `PerUser`, `PerAccount` and
/// [`Limit::MinTres`]; QOS those without [`Limit::MaxJobs`], [`Limit::MaxJobsAccrue`],
/// [`Limit::MaxSubmitJobs`] and [`Limit::Guaranteed`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// `GrpTRES`.
    GrpTres(TresKind),
    /// `GrpTRESMins`.
    GrpTresMins(TresKind),
    /// `GrpTRESRunMins`.
    GrpTresRunMins(TresKind),
    /// `GrpJobs`.
    GrpJobs,
    /// `GrpJobsAccrue`; not built, like the other `Accrue` limits: it can be cleared only.
    GrpJobsAccrue,
    /// `GrpSubmitJobs`.
    GrpSubmitJobs,
    /// `GrpWall`, minutes.
    GrpWall,
    /// `MaxTRESPerJob`.
    MaxTres(TresKind),
    /// `MaxTRESPerNode`.
    MaxTresPerNode(TresKind),
    /// `MaxTRESMinsPerJob`.
    MaxTresMins(TresKind),
    /// `MinTRESPerJob`.
    MinTres(TresKind),
    /// `MaxWallDurationPerJob`, minutes.
    MaxWall,
    /// `MaxJobs`.
    MaxJobs,
    /// `MaxJobsAccrue`; not built.
    MaxJobsAccrue,
    /// `MaxSubmitJobs`.
    MaxSubmitJobs,
    /// `MaxTRESPerUser`.
    MaxTresPerUser(TresKind),
    /// `MaxJobsPerUser`.
    MaxJobsPerUser,
    /// `MaxJobsAccruePerUser`; not built.
    MaxJobsAccruePerUser,
    /// `MaxSubmitJobsPerUser`.
    MaxSubmitJobsPerUser,
    /// `MaxTRESPerAccount`.
    MaxTresPerAccount(TresKind),
    /// `MaxJobsPerAccount`.
    MaxJobsPerAccount,
    /// `MaxJobsAccruePerAccount`; not built.
    MaxJobsAccruePerAccount,
    /// `MaxSubmitJobsPerAccount`.
    MaxSubmitJobsPerAccount,
    /// Ours: what an account may have back on demand.
    Guaranteed(TresKind),
}

impl Limit {
    /// Slurm's name, without the resource.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::GrpTres(_) => "GrpTRES",
            Self::GrpTresMins(_) => "GrpTRESMins",
            Self::GrpTresRunMins(_) => "GrpTRESRunMins",
            Self::GrpJobs => "GrpJobs",
            Self::GrpJobsAccrue => "GrpJobsAccrue",
            Self::GrpSubmitJobs => "GrpSubmitJobs",
            Self::GrpWall => "GrpWall",
            Self::MaxTres(_) => "MaxTRES",
            Self::MaxTresPerNode(_) => "MaxTRESPerNode",
            Self::MaxTresMins(_) => "MaxTRESMins",
            Self::MinTres(_) => "MinTRES",
            Self::MaxWall => "MaxWall",
            Self::MaxJobs => "MaxJobs",
            Self::MaxJobsAccrue => "MaxJobsAccrue",
            Self::MaxSubmitJobs => "MaxSubmitJobs",
            Self::MaxTresPerUser(_) => "MaxTRESPerUser",
            Self::MaxJobsPerUser => "MaxJobsPerUser",
            Self::MaxJobsAccruePerUser => "MaxJobsAccruePerUser",
            Self::MaxSubmitJobsPerUser => "MaxSubmitJobsPerUser",
            Self::MaxTresPerAccount(_) => "MaxTRESPerAccount",
            Self::MaxJobsPerAccount => "MaxJobsPerAccount",
            Self::MaxJobsAccruePerAccount => "MaxJobsAccruePerAccount",
            Self::MaxSubmitJobsPerAccount => "MaxSubmitJobsPerAccount",
            Self::Guaranteed(_) => "Guaranteed",
        }
    }
}

impl AssocSettings {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happened to one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEffect {
    /// What was done.
    pub done: AccountDone,
    /// To what.
    pub subject: Subject,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountDone {
    /// It is new.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// What an effect concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An account.
    Account(Box<str>),
    /// A user.
    User(Box<str>),
    /// A user's place in an account.
    Assoc(Place),
    /// A QOS.
    Qos(Box<str>),
    /// A coordinator of an account.
    Coordinator {
        /// The account.
        account: Box<str>,
        /// The user.
        user: Box<str>,
    },
    /// What was charged to an account.
    AccountUsage(Box<str>),
    /// What was charged to a user's association.
    AssocUsage(Place),
    /// What was charged to a QOS.
    QosUsage(Box<str>),
}
