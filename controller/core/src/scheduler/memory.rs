//! What is kept from one plan to the next?
//!
//! Only what makes a plan cheaper (kinds of nodes, classes, the waiting units, what runs over time),
//! brought up to date from what differs between the snapshots, and the places that were reserved,
//! which a plan keeps where it would otherwise put a unit later.

use std::collections::BTreeMap;

use penstock_vocab::{PartitionName, Timestamp};

use super::classes::ClassTable;
use super::mig::slots::{Place, Slots};
use super::pool::Pool;
use super::profile::{Amount, Lines};
use super::queue::Queue;
use super::releases::Releases;
use crate::cluster::Cluster;
use crate::command::Unit;
use crate::model::NodeIndex;
use crate::policy::Scale;

/// A place in time that a plan reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) start: i64,
    pub(super) length: i64,
    pub(super) partition: PartitionName,
    pub(super) parts: Vec<(NodeIndex, Amount)>,
    /// Slots of GPUs on the first of these.
    pub(super) slots: Vec<Place>,
    /// When this start was first promised.
    pub(super) since: Timestamp,
    /// Why it is later than what was promised before that.
    pub(super) moved_by: Option<Box<str>>,
}

/// What the scheduler keeps between plans. An empty one is always right; it costs the first plan.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(super) pool: Pool,
    pub(super) classes: ClassTable,
    pub(super) queue: Queue,
    /// By which the units of the queue were prepared.
    scale: Option<Scale>,
    pub(super) lines: Lines,
    pub(super) slots: Slots,
    pub(super) releases: Releases,
    /// By unit, and for arrays by how many tasks stand before.
    pub(super) kept: BTreeMap<(Unit, u32), Kept>,
}

impl Memory {
    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next plan put everybody where it would without a plan before it.
    pub fn forget_places(&mut self) {
        self.kept.clear();
    }

    /// CPUs of the place in time that the newest plan reserved for a unit, over all its nodes.
    pub(crate) fn cpus_kept(&self, unit: Unit) -> Option<u32> {
        let kept = self.kept.get(&(unit, 0))?;
        Some(kept.parts.iter().map(|(_, amount)| amount.cpus).fold(0, u32::saturating_add))
    }

    /// Takes what differs in this snapshot.
    pub(super) fn refresh(&mut self, cluster: &Cluster, now: Timestamp, scale: &Scale) {
        self.lines.refresh(cluster, now);
        self.slots.refresh(cluster, now);
        let by_user = self.lines.anybody_alone();
        // Classes of units that are gone are worth nothing.
        let many = self.classes.all().len() > 2 * cluster.waiting_units().len() + 1_024;
        let same_basis = self.scale.as_ref().is_some_and(|last| last.same_basis(scale));
        if !same_basis {
            self.queue.clear();
            self.scale = Some(scale.clone());
        }
        if self.pool.refresh(cluster) || by_user != self.classes.by_user() || many {
            self.classes = ClassTable::new(by_user);
            self.queue.clear();
            self.releases.clear();
        }
        let fresh = self.lines.fresh().iter().chain(self.pool.fresh());
        self.releases.refresh(fresh.copied());
        self.queue.refresh(cluster, &mut self.classes, scale);
    }
}
