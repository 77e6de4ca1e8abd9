//! What is left of a job array, in one record however many tasks it has?

use std::sync::Arc;

use penstock_vocab::{GroupId, IndexSet, JobId, Timestamp, UserId, Walltime};

use super::account::AssocId;
use super::job::Hold;
use super::spec::JobSpec;

/// A job array. Tasks that started or were changed are jobs of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Base id.
    pub id: JobId,
    /// Owner.
    pub uid: UserId,
    /// The owner's group.
    pub gid: GroupId,
    /// Who is charged.
    pub assoc: AssocId,
    /// The request of every task.
    pub spec: Arc<JobSpec>,
    /// When it was submitted.
    pub submit_time: Timestamp,
    /// Tasks that wait.
    pub pending: IndexSet,
    /// As it was submitted, and the throttle.
    pub summary: ArraySummary,
    /// Who holds the waiting tasks.
    pub hold: Hold,
    /// Priority that an admin set.
    pub fixed_priority: Option<u32>,
    /// Not before this time.
    pub not_before: Timestamp,
    /// Limit of each task.
    pub time_limit: Walltime,
    /// How many tasks ended with success.
    pub completed: u32,
    /// Tasks that ran and ended without success.
    pub failed: IndexSet,
    /// Tasks that were cancelled before they started.
    pub cancelled: IndexSet,
    /// When and by whom; of the last such cancel.
    pub cancelled_at: Option<(Timestamp, UserId)>,
    /// When the last task ended.
    pub last_end: Option<Timestamp>,
}

/// An array as it was submitted, and its throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArraySummary {
    /// Number of tasks.
    pub count: u32,
    /// Lowest index.
    pub min: u32,
    /// Highest index.
    pub max: u32,
    /// Step, 1 where the indices have none.
    pub step: u32,
    /// Most tasks at once; 0: no limit.
    pub throttle: u32,
}

/// `--array`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayRequest {
    /// Indices.
    pub tasks: IndexSet,
    /// Most tasks at once; 0: no limit.
    pub throttle: u32,
}

impl Array {
    /// Tasks that may run at once.
    #[must_use]
    pub fn throttle(&self) -> u32 {
        if self.summary.throttle == 0 { u32::MAX } else { self.summary.throttle }
    }
}
