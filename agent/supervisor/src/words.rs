//! What does the supervisor say about attempts?
//!
//! Plain values, free of any wire format: the daemon converts them at its edge, and the
//! simulation uses them as they are.

use std::fmt;
use std::ops::RangeInclusive;

use penstock_vocab::{Attempt, JobId, Millis, SessionId, TaskUsage, Timestamp};

/// One part of one attempt at running one job, its batch script or a step's tasks on this node:
/// the name under which everything here is filed. In order of jobs, then attempts; the batch
/// script comes before the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The job.
    pub job: JobId,
    /// Which of its runs.
    pub attempt: Attempt,
    /// Number of the step; `None`: the batch script.
    pub step: Option<u32>,
}

impl AttemptKey {
    /// The batch script of the run `attempt` of `job`.
    #[must_use]
    pub const fn new(job: JobId, attempt: Attempt) -> Self {
        Self { job, attempt, step: None }
    }

    /// This node's part of the step `step` in the run `attempt` of `job`.
    #[must_use]
    pub const fn of_step(job: JobId, attempt: Attempt, step: u32) -> Self {
        Self { job, attempt, step: Some(step) }
    }

    /// All keys that `job` can have.
    pub(crate) const fn all_of(job: JobId) -> RangeInclusive<Self> {
        let last = Self::of_step(job, Attempt(u32::MAX), u32::MAX);
        Self::new(job, Attempt(0))..=last
    }

    /// All keys of attempts of the same job before this one's; the other parts of the same attempt
    /// are not among them.
    pub(crate) const fn earlier(self) -> std::ops::Range<Self> {
        Self::new(self.job, Attempt(0))..Self::new(self.job, self.attempt)
    }
}

/// `12.0`: job, dot, attempt; a step's part is `12.0.3`.
impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.attempt)?;
        self.step.map_or(Ok(()), |step| write!(f, ".{step}"))
    }
}

/// What a run used, as its cgroup counted it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_cpu_usec: u64,
    /// CPU time in the kernel, microseconds.
    pub system_cpu_usec: u64,
    /// Peak of memory, bytes; 0: never measured.
    pub peak_memory_bytes: u64,
    /// The memory limit that was set, bytes; 0: none.
    pub memory_limit_bytes: u64,
    /// What was measured of single tasks; `None`: nothing was.
    pub tasks: Option<Box<TaskUsage>>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunResult {
    /// When the batch script was started; [`Timestamp::EPOCH`]: it was not.
    pub start: Timestamp,
    /// When the last of it was gone.
    pub end: Timestamp,
    /// Raw wait status of the batch script.
    pub wait_status: i32,
    /// The kernel killed something of it for memory.
    pub out_of_memory: bool,
    /// It was ended for its time limit.
    pub time_limit: bool,
    /// A process of it outlived SIGKILL.
    pub unkillable: bool,
    /// Why it could not be started, for people; empty: it ran.
    pub launch_error: String,
    /// The launch failed because of the node, not because of the job.
    pub node_fault: bool,
    /// What it used.
    pub usage: Usage,
    /// Time it ran on the clock that counts sleep too (CLOCK_BOOTTIME).
    pub elapsed: Millis,
    /// Its shepherd vanished without a record: the exit status is unknown.
    pub lost: bool,
    /// Its lease ran out, so that its own shepherd ended it, or never began.
    pub fenced: bool,
    /// Nothing was begun: the slices that the launch names are others by now.
    pub devices_changed: bool,
}

/// What the controller is told of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportedPhase {
    /// A shepherd claimed it and the job's process was started.
    Running,
    /// It ended, or could not be started for the reason in the result.
    Ended(RunResult),
    /// It was not started, and never will be.
    NeverStarted,
}

/// One attempt as it is reported to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// Which attempt.
    pub key: AttemptKey,
    /// What holds of it.
    pub phase: ReportedPhase,
}

/// Why the controller ends an attempt; passed through to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndCause {
    /// A person cancelled it.
    Cancelled,
    /// Its time is over.
    TimeLimit,
    /// Another of its nodes failed.
    NodeFail,
    /// It goes back to the queue.
    Requeue,
    /// It goes back to the queue and is held there.
    RequeueHold,
    /// Anything else, also what a newer controller may name.
    Other,
}

/// Identity of a controller's store, as it was made: opaque bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(Vec<u8>);

/// Longest identity of a store, in bytes: room for a hash; what is longer is cut off, since the
/// agent keeps it in memory and on disk.
pub const MAX_STORE_ID_BYTES: usize = 64;

impl StoreId {
    /// Takes `bytes` as an identity; only the first [`MAX_STORE_ID_BYTES`] count.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().take(MAX_STORE_ID_BYTES).collect())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Lower-case hexadecimal digits.
impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The store that this agent obeys, and how far it has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePosition {
    /// Which store.
    pub id: StoreId,
    /// Newest sequence number that was heard of.
    pub sequence: u64,
}

/// The controller's answer to a registration: a session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The new session; every order of it carries this number.
    pub session: SessionId,
    /// The store that the controller runs on, and its sequence now.
    pub store: StorePosition,
    /// When the registration that it answers was sent, on the supervisor's clock.
    pub asked: Timestamp,
    /// The transport vouches that this came over a connection opened after the last one ended.
    /// Without that, only a session number above all earlier ones is believed, so that a
    /// delayed welcome does not revive an old session.
    pub fresh: bool,
}

/// Why the orders of a controller are not trusted with running jobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Another store than the one that launched what runs here.
    #[error(
        "the controller's store is {found}, the jobs here were launched by {expected}; an admin \
         must confirm before it may end them"
    )]
    OtherStore {
        /// The store known so far.
        expected: StoreId,
        /// The one the controller now has.
        found: StoreId,
    },
    /// The same store, but from before something that was seen already.
    #[error(
        "the controller's store is at {found}, this node has seen it at {seen}; an admin must \
         confirm before it may end jobs here"
    )]
    OlderStore {
        /// Newest sequence seen.
        seen: u64,
        /// The one the controller now has.
        found: u64,
    },
}
