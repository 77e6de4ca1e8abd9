//! What is kept for whom, and when?

use std::collections::BTreeSet;

use penstock_vocab::{NodeName, PartitionName, Timestamp, UserId, Walltime};

use super::constraint::Constraint;
use super::limits::TresLimits;

/// An advance reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Name, unique.
    pub name: Box<str>,
    /// When it begins; of a recurring one the next or current time.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
    /// Of a recurring one the times after that, in order: from and to. Whoever knows the cluster's
    /// time zone reckons them, and adds more before they run out.
    pub upcoming: Box<[(Timestamp, Timestamp)]>,
    /// The nodes that it holds. Chosen when it was made, where a count was asked for.
    pub nodes: Box<[NodeName]>,
    /// How many nodes were asked for, where they were not named: a node that fails is replaced.
    pub node_count: Option<u32>,
    /// Nodes must be of this partition; jobs run in it.
    pub partition: Option<PartitionName>,
    /// Features that chosen nodes must have.
    pub features: Constraint,
    /// Users that may use it, by name.
    pub users: Box<[Box<str>]>,
    /// Their numbers, as known when it was made.
    pub uids: Box<[UserId]>,
    /// Accounts that may use it.
    pub accounts: Box<[Box<str>]>,
    /// `users` and `accounts` name who may not use it.
    pub deny: bool,
    /// Licences that it holds.
    pub licenses: TresLimits,
    /// Switches.
    pub flags: BTreeSet<ReservationFlag>,
    /// Gone once unused for so long; with [`ReservationFlag::PurgeComp`].
    pub purge_after: Option<Walltime>,
    /// Since when no job has used it.
    pub idle_since: Option<Timestamp>,
    /// Who made it.
    pub created_by: UserId,
    /// Free text.
    pub comment: Box<str>,
}

impl Reservation {
    /// Whether a switch is on.
    #[must_use]
    pub fn has(&self, flag: ReservationFlag) -> bool {
        self.flags.contains(&flag)
    }

    /// When it holds its nodes: now or next, and after that; each from a time to before another.
    pub fn windows(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        std::iter::once((self.start, self.end)).chain(self.upcoming.iter().copied())
    }

    /// Whether it holds its nodes at some time from `from` to before `until`.
    #[must_use]
    pub fn overlaps(&self, from: Timestamp, until: Timestamp) -> bool {
        self.windows().any(|(start, end)| start < until && from < end)
    }

    /// Whether it holds its nodes now.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.start <= now && now < self.end
    }

    /// Whether it comes again.
    #[must_use]
    pub fn recurs(&self) -> bool {
        RECURRING.iter().any(|flag| self.has(*flag))
    }
}

/// Switches by which a reservation comes again.
pub(crate) const RECURRING: [ReservationFlag; 4] = [
    ReservationFlag::Daily,
    ReservationFlag::Weekly,
    ReservationFlag::Weekday,
    ReservationFlag::Weekend,
];

/// A switch of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservationFlag {
    /// System maintenance: may overlap others, and shows as MAINT on nodes.
    Maint,
    /// Jobs that run on its nodes when it is made are not in its way.
    IgnoreJobs,
    /// Every day at the same civil time.
    Daily,
    /// Every week.
    Weekly,
    /// Monday to Friday.
    Weekday,
    /// Saturday and Sunday.
    Weekend,
    /// Its jobs may begin before and end after it, and use nodes beyond it.
    Flex,
    /// May overlap other reservations.
    Overlap,
    /// Takes whatever nodes its partition has.
    PartNodes,
    /// Slurm's flag for reservations of licences that let jobs use any nodes. Not built: it is read
    /// where it was stored, and does nothing.
    AnyNodes,
    /// Removed when unused; see `purge_after`.
    PurgeComp,
    /// Failed nodes are not replaced.
    StaticAlloc,
    /// Jobs that wait for it when it ends are not held, and may run anywhere.
    NoHoldJobsAfter,
}

impl ReservationFlag {
    /// All, with Slurm's names.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Maint, "MAINT"),
        (Self::Overlap, "OVERLAP"),
        (Self::Flex, "FLEX"),
        (Self::IgnoreJobs, "IGNORE_JOBS"),
        (Self::Daily, "DAILY"),
        (Self::Weekday, "WEEKDAY"),
        (Self::Weekend, "WEEKEND"),
        (Self::Weekly, "WEEKLY"),
        (Self::AnyNodes, "ANY_NODES"),
        (Self::StaticAlloc, "STATIC"),
        (Self::PartNodes, "PART_NODES"),
        (Self::PurgeComp, "PURGE_COMP"),
        (Self::NoHoldJobsAfter, "NO_HOLD_JOBS_AFTER_END"),
    ];
}
