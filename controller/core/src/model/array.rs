//! What is left of a job array, in one record however many tasks it has?

use std::borrow::Cow;
use std::sync::Arc;

use penstock_vocab::{GroupId, IndexSet, JobId, PendingReason, Timestamp, UserId, Walltime};

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
    /// Who holds all waiting tasks.
    pub hold: Hold,
    /// Why, where that is more than somebody's wish.
    pub reason: Option<PendingReason>,
    /// Waiting tasks that their owner holds one by one; kept here, and not as records of their own,
    /// so that a range of any size is held at once.
    pub held: IndexSet,
    /// Waiting tasks that an admin holds one by one; none of them is in `held`.
    pub held_by_admin: IndexSet,
    /// Priority that an admin set.
    pub fixed_priority: Option<u32>,
    /// Not before this time.
    pub not_before: Timestamp,
    /// Limit of each task.
    pub time_limit: Walltime,
    /// How many tasks ended with success.
    pub completed: u32,
    /// Tasks that ran and ended without success, as far as they are still listed.
    pub failed: IndexSet,
    /// How many more failed or were cancelled than are listed: the lists are cut where they would
    /// make the record large and nobody waits for single tasks. Such a task counts as done with
    /// success, as one does that was purged.
    pub unlisted: u32,
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
    /// Tasks that may run at once; one where each waits for all others of its name.
    #[must_use]
    pub fn throttle(&self) -> u32 {
        let all = if self.summary.throttle == 0 { u32::MAX } else { self.summary.throttle };
        let dependency = &self.spec.dependency;
        if dependency.singleton && !dependency.any { 1 } else { all }
    }

    /// Who holds one waiting task.
    #[must_use]
    pub fn hold_of(&self, task: u32) -> Hold {
        let own = if self.held_by_admin.contains(task) {
            Hold::Admin
        } else if self.held.contains(task) {
            Hold::User
        } else {
            Hold::None
        };
        own.max(self.hold)
    }

    /// Whether some waiting tasks are held and others may go.
    #[must_use]
    pub fn is_partly_held(&self) -> bool {
        !self.held.is_empty() || !self.held_by_admin.is_empty()
    }

    /// Waiting tasks that nobody holds.
    #[must_use]
    pub fn free_tasks(&self) -> Cow<'_, IndexSet> {
        if self.hold != Hold::None {
            return Cow::Owned(IndexSet::new());
        }
        if !self.is_partly_held() {
            return Cow::Borrowed(&self.pending);
        }
        Cow::Owned(self.pending.difference(&self.held).difference(&self.held_by_admin))
    }

    /// Who holds all waiting tasks, together or one by one; `None`: some may go.
    #[must_use]
    pub fn hold_in_force(&self) -> Hold {
        if self.hold != Hold::None || !self.is_partly_held() || !self.free_tasks().is_empty() {
            return self.hold;
        }
        if self.held.is_empty() { Hold::Admin } else { Hold::User }
    }

    /// Forgets holds of tasks that no longer wait.
    pub(crate) fn drop_stale_holds(&mut self) {
        if self.is_partly_held() {
            self.held = self.held.intersection(&self.pending);
            self.held_by_admin = self.held_by_admin.intersection(&self.pending);
        }
    }
}
