//! Why was something not done, in Slurm's words and in a sentence that helps?

use penstock_vocab::{JobId, NodeName, PendingReason};

use crate::model::StepNumber;

/// A refusal: the user's fault or the policy's, never ours. `Display` is the sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such partition.
    #[error("invalid partition specified: {0}")]
    InvalidPartition(Box<str>),
    /// The job names none and there is no default.
    #[error("no partition was named and the cluster has no default partition")]
    NoDefaultPartition,
    /// The partition takes no jobs.
    #[error("partition {name} is {state} and takes no jobs")]
    PartitionClosed {
        /// Which.
        name: Box<str>,
        /// Its state.
        state: &'static str,
    },
    /// The partition is for others.
    #[error("partition {name} is not open to you: {why}")]
    PartitionNotAllowed {
        /// Which.
        name: Box<str>,
        /// Who may.
        why: Box<str>,
    },
    /// No such job.
    #[error("there is no job {0}")]
    InvalidJobId(JobId),
    /// Somebody else's, or for admins.
    #[error("{0}")]
    AccessDenied(Box<str>),
    /// The request can never be met.
    #[error("{0}")]
    NeverFits(Box<str>),
    /// Memory that no node has.
    #[error("{0}")]
    MemoryNeverFits(Box<str>),
    /// No such node.
    #[error("there is no node {0}")]
    InvalidNode(Box<str>),
    /// A feature no node has.
    #[error("no node has the feature {0:?}")]
    InvalidFeature(Box<str>),
    /// A generic resource no node has.
    #[error("no node has the generic resource {0}")]
    InvalidGres(Box<str>),
    /// Dependencies in a circle, or on itself.
    #[error("the dependency on job {0} leads back to the job itself")]
    CircularDependency(JobId),
    /// Array indices beyond the limit.
    #[error("array index {index} is too large; the highest is {max} (max_array_size - 1)")]
    ArrayTooLarge {
        /// Highest index asked for.
        index: u32,
        /// Highest allowed.
        max: u32,
    },
    /// Too many jobs.
    #[error(
        "the cluster holds {0} jobs, ended ones among them, its limit; try again in some minutes"
    )]
    TooManyJobs(u32),
    /// It has ended.
    #[error("job {0} has already ended")]
    AlreadyDone(JobId),
    /// It runs.
    #[error("job {0} is no longer pending")]
    NotPending(JobId),
    /// It does not run.
    #[error("job {0} is not running")]
    NotRunning(JobId),
    /// It stands still already.
    #[error("job {0} is suspended already")]
    AlreadySuspended(JobId),
    /// It does not stand still.
    #[error("job {0} is not suspended")]
    NotSuspended(JobId),
    /// What it needs is in use.
    #[error("{0}")]
    NodesBusy(Box<str>),
    /// What a step asks for is held by other steps of its job, or the job stands still.
    #[error("{0}")]
    StepBusy(Box<str>),
    /// More tasks or CPUs than the job has.
    #[error("{0}")]
    TooManyProcessors(Box<str>),
    /// An attempt of a job has as many steps as it may.
    #[error("job {job} has had {limit} steps, the most that one job may have")]
    StepLimit {
        /// The job.
        job: JobId,
        /// How many there may be.
        limit: u32,
    },
    /// No such step.
    #[error("job {0} has no step {1} that runs")]
    InvalidStep(JobId, StepNumber),
    /// A job with a script, where one without is meant.
    #[error("job {0} has a batch script and ends with it; `scancel {0}` ends it sooner")]
    NotAnAllocation(JobId),
    /// It could not end by its deadline.
    #[error("{0}")]
    DeadlineTooEarly(Box<str>),
    /// Licences that the cluster does not have.
    #[error("{0}")]
    InvalidLicense(Box<str>),
    /// A reservation that can't be made, changed or used.
    #[error("{detail}")]
    Reservation {
        /// What is wrong.
        fault: ReservationFault,
        /// The sentence for people.
        detail: Box<str>,
    },
    /// Only admins may raise a limit.
    #[error("the time limit of job {0} may be lowered by its owner and raised by an admin only")]
    TimeLimitRaise(JobId),
    /// Nothing that could change.
    #[error("no changes specified")]
    NoChange,
    /// Requeueing is switched off for this job.
    #[error("job {0} was submitted with --no-requeue")]
    RequeueDisabled(JobId),
    /// A drain, down or fail without a reason.
    #[error("a reason is needed to drain, fail or take down a node; say Reason=...")]
    ReasonMissing,
    /// A plan's line that no longer fits.
    #[error("the plan is out of date: {0}")]
    StalePlan(&'static str),
    /// More than one command takes.
    #[error("{got} items in one command, at most {limit} are taken")]
    TooManyItems {
        /// How many.
        got: usize,
        /// How many are taken.
        limit: usize,
    },
    /// A token that is not good.
    #[error("the join token is not valid: {0}")]
    InvalidToken(&'static str),
    /// A host's name that another key holds.
    #[error("the host name {0} belongs to another key; `penstock host reset {0}` frees it")]
    HostNameTaken(Box<str>),
    /// Cut off.
    #[error("host {0} was revoked; `penstock host reset {0}` lets it join again")]
    HostRevoked(Box<str>),
    /// No such host.
    #[error("there is no host {0}")]
    InvalidHost(Box<str>),
    /// A name that can't be one.
    #[error("{0}")]
    InvalidName(Box<str>),
    /// An account outside the partition's list.
    #[error("account {account:?} may not use partition {partition}")]
    AccountNotAllowed {
        /// The account.
        account: Box<str>,
        /// The partition.
        partition: Box<str>,
    },
    /// An account that does not exist, or that the user is not in.
    #[error("{0}")]
    InvalidAccount(Box<str>),
    /// A QOS that does not exist, or that may not be used here.
    #[error("{0}")]
    InvalidQos(Box<str>),
    /// A limit that no waiting would help against, or on what may wait; the sentence begins with
    /// the limit's name.
    #[error("{reason}: {detail}")]
    PolicyLimit {
        /// Which limit.
        reason: PendingReason,
        /// With numbers.
        detail: Box<str>,
    },
    /// No such account, user, association or QOS.
    #[error("{0}")]
    UnknownRecord(Box<str>),
    /// A change of accounts, users or QOS that makes no sense.
    #[error("{0}")]
    InvalidChange(Box<str>),
    /// Jobs are charged to what shall be deleted.
    #[error("{0}")]
    JobsActive(Box<str>),
    /// The account that a user's jobs go to by default.
    #[error("{0}")]
    DefaultAccount(Box<str>),
    /// The QOS that jobs get by default.
    #[error("{0}")]
    DefaultQos(Box<str>),
    /// A job of a crontab that shall end for good, without a word that this is meant.
    #[error(
        "job {0} belongs to a crontab and comes again; `scancel --cron {0}` ends it and disables its line"
    )]
    CronWithoutWord(JobId),
    /// A job of a crontab, which only its crontab changes.
    #[error("job {0} belongs to a crontab; `scrontab -e` changes it")]
    CronUnchangeable(JobId),
    /// A job of a crontab that is not taken.
    #[error("{cause}")]
    CrontabLine {
        /// First and last line, counted from 1.
        lines: (u32, u32),
        /// Why.
        cause: Box<Refusal>,
    },
    /// A session that is over.
    #[error("session of node {0} is over; a newer one took its place")]
    OldSession(NodeName),
    /// A text in the request that can't be read.
    #[error("{detail}")]
    Malformed {
        /// Which of Slurm's texts fits.
        what: Malformed,
        /// What is wrong with it.
        detail: Box<str>,
    },
    /// One that was given and remembered before a restart, in its own words.
    #[error("{detail}")]
    Remembered {
        /// As [`Refusal::kind`] gave it.
        kind: Box<str>,
        /// As [`Refusal::slurm_text`] gave it.
        slurm_text: Box<str>,
        /// The sentence for people.
        detail: Box<str>,
    },
}

/// Which part of a request can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// `--array`.
    Array,
    /// `--dependency`.
    Dependency,
    /// `--constraint`.
    Constraint,
    /// `--gres`, `--gpus`.
    Gres,
    /// A node list.
    NodeList,
    /// Node, task or CPU counts.
    Count,
    /// Anything else.
    Other,
}

impl Refusal {
    /// Stable name of the kind, for programs.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::InvalidPartition(_) => "InvalidPartition",
            Self::NoDefaultPartition => "NoDefaultPartition",
            Self::PartitionClosed { .. } => "PartitionClosed",
            Self::PartitionNotAllowed { .. } => "PartitionNotAllowed",
            Self::InvalidJobId(_) => "InvalidJobId",
            Self::AccessDenied(_) => "AccessDenied",
            Self::NeverFits(_) => "NeverFits",
            Self::MemoryNeverFits(_) => "MemoryNeverFits",
            Self::InvalidNode(_) => "InvalidNode",
            Self::InvalidFeature(_) => "InvalidFeature",
            Self::InvalidGres(_) => "InvalidGres",
            Self::CircularDependency(_) => "CircularDependency",
            Self::ArrayTooLarge { .. } => "ArrayTooLarge",
            Self::TooManyJobs(_) => "TooManyJobs",
            Self::AlreadyDone(_) => "AlreadyDone",
            Self::NotPending(_) => "NotPending",
            Self::NotRunning(_) => "NotRunning",
            Self::AlreadySuspended(_) => "AlreadySuspended",
            Self::NotSuspended(_) => "NotSuspended",
            Self::NodesBusy(_) => "NodesBusy",
            Self::StepBusy(_) => "StepBusy",
            Self::TooManyProcessors(_) => "TooManyProcessors",
            Self::StepLimit { .. } => "StepLimit",
            Self::InvalidStep(..) => "InvalidStep",
            Self::NotAnAllocation(_) => "NotAnAllocation",
            Self::DeadlineTooEarly(_) => "DeadlineTooEarly",
            Self::InvalidLicense(_) => "InvalidLicense",
            Self::Reservation { fault, .. } => fault.kind(),
            Self::TimeLimitRaise(_) => "TimeLimitRaise",
            Self::NoChange => "NoChange",
            Self::RequeueDisabled(_) => "RequeueDisabled",
            Self::ReasonMissing => "ReasonMissing",
            Self::StalePlan(_) => "StalePlan",
            Self::TooManyItems { .. } => "TooManyItems",
            Self::InvalidToken(_) => "InvalidToken",
            Self::HostNameTaken(_) => "HostNameTaken",
            Self::HostRevoked(_) => "HostRevoked",
            Self::InvalidHost(_) => "InvalidHost",
            Self::InvalidName(_) => "InvalidName",
            Self::AccountNotAllowed { .. } => "AccountNotAllowed",
            Self::InvalidAccount(_) => "InvalidAccount",
            Self::InvalidQos(_) => "InvalidQos",
            Self::PolicyLimit { .. } => "PolicyLimit",
            Self::UnknownRecord(_) => "UnknownRecord",
            Self::InvalidChange(_) => "InvalidChange",
            Self::JobsActive(_) => "JobsActive",
            Self::DefaultAccount(_) => "DefaultAccount",
            Self::DefaultQos(_) => "DefaultQos",
            Self::CronWithoutWord(_) => "CronWithoutWord",
            Self::CronUnchangeable(_) => "CronUnchangeable",
            Self::CrontabLine { cause, .. } => cause.kind(),
            Self::OldSession(_) => "OldSession",
            Self::Malformed { .. } => "Malformed",
            Self::Remembered { kind, .. } => kind,
        }
    }

    /// Slurm's text for it, as its commands print it.
    #[must_use]
    pub fn slurm_text(&self) -> &str {
        match self {
            Self::InvalidPartition(_) => "Invalid partition name specified",
            Self::NoDefaultPartition => "No partition specified or system default partition",
            Self::PartitionClosed { .. } => "Required partition not available (inactive or drain)",
            Self::PartitionNotAllowed { .. } => "User's group not permitted to use this partition",
            Self::InvalidJobId(_) => "Invalid job id specified",
            Self::AccessDenied(_) => "Access/permission denied",
            Self::NeverFits(_) | Self::MemoryNeverFits(_) => {
                "Requested node configuration is not available"
            }
            Self::InvalidNode(_) => "Invalid node name specified",
            Self::InvalidFeature(_) => "Invalid feature specification",
            Self::InvalidGres(_) => "Invalid generic resource (gres) specification",
            Self::CircularDependency(_) => "Circular job dependency",
            Self::ArrayTooLarge { .. } => "Invalid job array specification",
            Self::TooManyJobs(_) => "Slurm temporarily unable to accept job, sleeping and retrying",
            Self::AlreadyDone(_) => "Job/step already completing or completed",
            Self::NotPending(_) => "Job is no longer pending execution",
            Self::NotRunning(_) => "Job is not running",
            Self::AlreadySuspended(_) => "Job is current suspended, requested operation disabled",
            Self::NotSuspended(_) => "Job is not suspended",
            Self::NodesBusy(_) | Self::StepBusy(_) => "Requested nodes are busy",
            Self::TooManyProcessors(_) => "More processors requested than permitted",
            Self::StepLimit { .. } => "Step limit reached for this job",
            Self::InvalidStep(..) => "Invalid job id specified",
            Self::NotAnAllocation(_) => "Requested operation is presently disabled",
            Self::DeadlineTooEarly(_) => {
                "Requested time limit is invalid (missing or exceeds some limit)"
            }
            Self::InvalidLicense(_) => "Invalid license specification",
            Self::Reservation { fault, .. } => fault.slurm_text(),
            Self::TimeLimitRaise(_) => "Access/permission denied",
            Self::NoChange => "No changes specified",
            Self::RequeueDisabled(_) | Self::StalePlan(_) | Self::TooManyItems { .. } => {
                "Requested operation is presently disabled"
            }
            Self::ReasonMissing => {
                "You must specify a reason when DOWNING or DRAINING a node. Request denied"
            }
            Self::InvalidToken(_)
            | Self::HostNameTaken(_)
            | Self::HostRevoked(_)
            | Self::InvalidHost(_)
            | Self::OldSession(_) => "Access/permission denied",
            Self::InvalidName(_) => "Invalid node name specified",
            Self::AccountNotAllowed { .. } | Self::InvalidAccount(_) => {
                "Invalid account or account/partition combination specified"
            }
            Self::InvalidQos(_) => "Invalid qos specification",
            Self::PolicyLimit { .. } => {
                "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
            }
            Self::UnknownRecord(_) => "No association, user, account or QOS of that name",
            Self::InvalidChange(_) => "Invalid change of accounts",
            Self::JobsActive(_) => "Job(s) active, cancel job(s) before remove",
            Self::DefaultAccount(_) => "You can not remove the default account of a user",
            Self::DefaultQos(_) => "You can not remove the default qos of a user",
            Self::CronWithoutWord(_) => "Cannot cancel scrontab jobs without --cron flag.",
            Self::CronUnchangeable(_) => "Cannot modify scrontab jobs through scontrol",
            Self::CrontabLine { cause, .. } => cause.slurm_text(),
            Self::Malformed { what, .. } => what.slurm_text(),
            Self::Remembered { slurm_text, .. } => slurm_text,
        }
    }
}

/// What is wrong with a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationFault {
    /// There is none of that name, or the request contradicts itself.
    Invalid,
    /// It is for others.
    Denied,
    /// Jobs run in it.
    InUse,
    /// Another holds the same nodes or licences at the same time.
    Overlap,
    /// The name is taken.
    Duplicate,
    /// A time in the past, or an end before the start.
    Time,
    /// It names nobody who may use it.
    Nobody,
    /// Running jobs are in its way.
    Busy,
    /// There are not so many nodes.
    Nodes,
}

impl ReservationFault {
    fn kind(self) -> &'static str {
        match self {
            Self::Invalid => "ReservationInvalid",
            Self::Denied => "ReservationDenied",
            Self::InUse => "ReservationInUse",
            Self::Overlap => "ReservationOverlap",
            Self::Duplicate => "ReservationDuplicate",
            Self::Time => "ReservationTime",
            Self::Nobody => "ReservationNobody",
            Self::Busy => "ReservationBusy",
            Self::Nodes => "ReservationNodes",
        }
    }

    fn slurm_text(self) -> &'static str {
        match self {
            Self::Invalid => "Requested reservation is invalid",
            Self::Denied => "Access denied to requested reservation",
            Self::InUse => "Requested reservation is in use",
            Self::Overlap => "Requested reservation overlaps with another reservation",
            Self::Duplicate => "Duplicate reservation name",
            Self::Time => "Invalid time specified",
            Self::Nobody => "Reservation request lacks users, groups or accounts",
            Self::Busy => "Requested nodes are busy",
            Self::Nodes => "Requested node configuration is not available",
        }
    }
}

impl Malformed {
    fn slurm_text(self) -> &'static str {
        match self {
            Self::Array => "Invalid job array specification",
            Self::Dependency => "Job dependency problem",
            Self::Constraint => "Invalid feature specification",
            Self::Gres => "Invalid generic resource (gres) specification",
            Self::NodeList => "Invalid node name specified",
            Self::Count => "Node count specification invalid",
            Self::Other => "Invalid job request",
        }
    }
}
