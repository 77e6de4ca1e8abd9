//! In which order are the waiting units looked at?
//!
//! Partition tier, then priority, then submission, then number. The priority depends on the time and
//! is reckoned for every unit in every plan; what it is reckoned from is kept from plan to plan.

use std::cmp::Reverse;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use penstock_vocab::{JobId, Timestamp};

use super::classes::ClassTable;
use crate::cluster::{Cluster, Queued};
use crate::command::Unit;
use crate::policy::{PriorityInputs, Scale};

/// A waiting unit with what a plan needs of it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) unit: Unit,
    pub(super) queued: Queued,
    pub(super) class: u32,
    tier: u32,
    /// What its priority is reckoned from; `None`: it no longer waits.
    inputs: Option<PriorityInputs>,
}

/// Place in the order of a plan; smaller is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    tier: Reverse<u32>,
    priority: Reverse<u32>,
    submit_time: Timestamp,
    id: JobId,
    /// Place in [`Queue::entries`].
    pub(super) place: u32,
    /// Beside the order, so that a closed class costs no look at its units.
    pub(super) class: u32,
}

/// The waiting units, sorted by unit.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    entries: Vec<Entry>,
    units: Arc<Vec<Unit>>,
    seen: OrdMap<Unit, Queued>,
}

impl Queue {
    /// Forgets everything, as when classes must be worked out anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes the units as they wait in this snapshot. Cost: what changed since the last, and a copy
    /// of the list if anything did.
    pub(super) fn refresh(&mut self, cluster: &Cluster, classes: &mut ClassTable, scale: &Scale) {
        let waiting = cluster.waiting_units();
        if self.seen.ptr_eq(waiting) {
            return;
        }
        let mut fresh: Vec<(Unit, Option<Entry>)> = Vec::new();
        for item in self.seen.diff(waiting) {
            fresh.push(match item {
                DiffItem::Add(unit, queued) | DiffItem::Update { new: (unit, queued), .. } => {
                    (*unit, Some(Entry::new(cluster, *unit, queued, classes, scale)))
                }
                DiffItem::Remove(unit, _) => (*unit, None),
            });
        }
        self.seen = waiting.clone();
        let mut old = std::mem::take(&mut self.entries).into_iter().peekable();
        let mut entries = Vec::with_capacity(waiting.len());
        for (unit, entry) in fresh {
            while let Some(before) = old.next_if(|old| old.unit < unit) {
                entries.push(before);
            }
            // Where it stood before, it stands no longer.
            let _gone = old.next_if(|old| old.unit == unit);
            entries.extend(entry);
        }
        entries.extend(old);
        self.units = Arc::new(entries.iter().map(|entry| entry.unit).collect());
        self.entries = entries;
    }

    /// All units, in the order of their numbers.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The units alone, in the same order.
    pub(super) fn units(&self) -> &Arc<Vec<Unit>> {
        &self.units
    }

    /// The order at a time, and the priority of each entry.
    pub(super) fn order(&self, cluster: &Cluster, scale: &Scale) -> (Vec<Turn>, Vec<u32>) {
        let fcfs = cluster.config().scheduling.weights.fcfs;
        let priority =
            |entry: &Entry| entry.inputs.as_ref().map_or(0, |inputs| scale.priority(inputs));
        let priorities: Vec<u32> = self.entries.iter().map(priority).collect();
        let turn = |(place, entry): (u32, &Entry)| Turn {
            tier: Reverse(if fcfs { 0 } else { entry.tier }),
            priority: Reverse(priorities[place as usize]),
            submit_time: entry.queued.submit_time,
            id: entry.unit.id(),
            place,
            class: entry.class,
        };
        let mut order: Vec<Turn> = (0u32..).zip(&self.entries).map(turn).collect();
        order.sort_unstable();
        (order, priorities)
    }
}

impl Entry {
    fn new(
        cluster: &Cluster,
        unit: Unit,
        queued: &Queued,
        classes: &mut ClassTable,
        scale: &Scale,
    ) -> Self {
        let tiers = cluster.partitions_of(&queued.spec).map(|partition| partition.priority_tier);
        Self {
            unit,
            queued: queued.clone(),
            class: classes.class_of(cluster, unit, queued),
            tier: tiers.max().unwrap_or(0),
            inputs: scale.prepare(cluster, unit),
        }
    }
}
