//! When will everybody start, if everything that runs takes its whole limit and nobody else comes?
//!
//! The scheduler's own plan, with places reserved in time for more units than a plan of the daemon
//! looks ahead for. With all of them it is conservative backfilling (Mu'alem and Feitelson, IEEE TPDS
//! 12(6), 2001): nobody's start depends on who comes later in the order.

use std::collections::BTreeMap;

use penstock_vocab::{PartitionName, Timestamp};

use crate::cluster::{Cluster, Waiting};
use crate::command::{PreemptLine, Unit};
use crate::model::NodeIndex;
use crate::scheduler::{Limits, Memory, Plan, plan_with};

/// Where a unit starts, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// When; of an array its next task.
    pub start: Timestamp,
    /// Where; the first runs the batch script.
    pub nodes: Vec<NodeIndex>,
    /// Partition in which.
    pub partition: PartitionName,
    /// CPUs on all nodes together.
    pub cpus: u32,
}

/// What is expected of all units that wait for nothing but resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    places: BTreeMap<Unit, Place>,
    plan: Plan,
}

impl Forecast {
    /// When and where a unit starts. `None`: it does not wait for resources, nothing in service could
    /// take it, it would be further ahead than `bf_window`, or the bound on the work was reached.
    #[must_use]
    pub fn place(&self, unit: Unit) -> Option<&Place> {
        self.places.get(&unit)
    }

    /// All places, by unit.
    pub fn places(&self) -> impl Iterator<Item = (Unit, &Place)> {
        self.places.iter().map(|(unit, place)| (*unit, place))
    }

    /// The units that were to be looked at, in the order of the plan.
    pub fn order(&self) -> impl Iterator<Item = Unit> {
        self.plan.order()
    }

    /// Why a unit does not start at once; `None`: it does, or it was not looked at.
    #[must_use]
    pub fn reason(&self, unit: Unit) -> Option<Waiting> {
        self.plan.reason(unit)
    }

    /// The plan that the forecast was read from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Running jobs that would make room now, and for whom.
    #[must_use]
    pub fn preempted(&self) -> &[PreemptLine] {
        &self.plan.preempt
    }

    /// Whether the bound on the work left units unseen.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.plan.cut
    }
}

/// What is expected at `now`, with `depth` units that get a place in time (`u32::MAX`: all), within a
/// bound on the work. Where `bf_min_prio_reserve` and the like give a unit no place, it has none here.
///
/// Cost: one plan from scratch, and for each place in time a look at the nodes of its partitions.
#[must_use]
pub fn forecast(cluster: &Cluster, now: Timestamp, depth: u32, bound: Limits) -> Forecast {
    let view = cluster.seen_at(now).with_depth(depth);
    let mut memory = Memory::new();
    let plan = plan_with(&mut memory, &view, now, bound);
    let mut places = BTreeMap::new();
    for line in &plan.starts {
        places.entry(line.unit).or_insert_with(|| Place {
            start: now,
            nodes: line.shares.iter().map(|share| share.node).collect(),
            partition: line.partition.clone(),
            cpus: line.shares.iter().map(|s| s.cpu_count()).fold(0, u32::saturating_add),
        });
    }
    for (unit, expected) in plan.all_expected() {
        places.entry(unit).or_insert_with(|| Place {
            start: expected.start,
            nodes: expected.nodes.clone(),
            partition: expected.partition.clone(),
            cpus: memory.cpus_kept(unit).unwrap_or(0),
        });
    }
    Forecast { places, plan }
}
