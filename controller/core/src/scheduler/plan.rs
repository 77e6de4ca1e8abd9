//! What should start now, what later and when, and why does the rest wait?

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_vocab::{PartitionName, PendingReason, Timestamp, elapsed_long};

use super::gates::Gates;
use super::memory::Memory;
use super::mig::reshapes;
use super::pass::Pass;
use super::reasons::Why;
use super::stats::PlanStats;
use crate::cluster::{Cluster, Waiting};
use crate::command::{PreemptLine, ReshapeLine, StartLine, Unit};
use crate::model::NodeIndex;
use crate::policy::limits::{Check, UsageCache};
use crate::policy::{FairShare, Scale};

/// Bounds of one plan, in work and not in time, so that a plan can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most units that are tried.
    pub tried: usize,
    /// Most starts.
    pub starts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tried: 20_000, starts: 2_000 }
    }
}

/// When and where a unit that waits will start, if everything that runs takes its whole limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// When; of an array its next task.
    pub start: Timestamp,
    /// Partition in which.
    pub partition: PartitionName,
    /// Where; the first runs the batch script.
    pub nodes: Vec<NodeIndex>,
    /// Since when this is what is expected.
    pub since: Timestamp,
    /// What made it later than was expected before.
    pub moved_by: Option<Box<str>>,
}

/// What should start now, what is reserved in time, and why what was looked at does not start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// When it was made.
    pub made_at: Timestamp,
    /// Starts, in order.
    pub starts: Vec<StartLine>,
    /// Running jobs that should make room, in the order in which they were chosen. What they free is
    /// kept for whom they are preempted for.
    pub preempt: Vec<PreemptLine>,
    /// GPUs that should be cut, for whom it lets start; their slots are kept for them.
    pub reshapes: Vec<ReshapeLine>,
    /// Whether a bound on its work cut it short.
    pub cut: bool,
    /// How much work it was.
    pub stats: PlanStats,
    units: Arc<Vec<Unit>>,
    /// Places in `units`.
    order: Vec<u32>,
    pub(super) priorities: Vec<u32>,
    pub(super) why: Vec<Why>,
    sentences: Vec<Waiting>,
    pub(super) expected: BTreeMap<Unit, Expected>,
}

impl Plan {
    /// Why a unit does not start now; `None`: it does, or it was not looked at. Cost: a sentence.
    #[must_use]
    pub fn reason(&self, unit: Unit) -> Option<Waiting> {
        let mut waiting = self.waiting(unit)?.clone();
        if let Some(expected) = self.expected.get(&unit) {
            let wait = elapsed_long(expected.start.since(self.made_at).0.div_ceil(1_000));
            waiting.detail.push_str(&format!("; expected to start within {wait}"));
        }
        Some(waiting)
    }

    /// As [`Self::reason`], Slurm's word alone: listings of a whole queue need no sentence.
    #[must_use]
    pub fn pending_reason(&self, unit: Unit) -> Option<PendingReason> {
        self.waiting(unit).map(|waiting| waiting.reason)
    }

    fn waiting(&self, unit: Unit) -> Option<&Waiting> {
        let Why::Waits(sentence) = self.why.get(self.place(unit)?)? else { return None };
        self.sentences.get(*sentence as usize)
    }

    /// When and where a unit is expected to start; `None`: nothing is reserved for it.
    #[must_use]
    pub fn expected(&self, unit: Unit) -> Option<&Expected> {
        self.expected.get(&unit)
    }

    /// All that is expected, by unit.
    pub fn all_expected(&self) -> impl Iterator<Item = (Unit, &Expected)> {
        self.expected.iter().map(|(unit, expected)| (*unit, expected))
    }

    /// Priority of a unit when the plan was made; `None`: it did not wait for resources then.
    #[must_use]
    pub fn priority(&self, unit: Unit) -> Option<u32> {
        self.priorities.get(self.place(unit)?).copied()
    }

    /// The waiting units in the order in which they were to be looked at.
    pub fn order(&self) -> impl Iterator<Item = Unit> {
        self.order.iter().filter_map(|place| self.units.get(*place as usize).copied())
    }

    fn place(&self, unit: Unit) -> Option<usize> {
        self.units.binary_search(&unit).ok()
    }

    /// Keeps a sentence; its number.
    pub(super) fn say(&mut self, waiting: Waiting) -> u32 {
        self.sentences.push(waiting);
        u32::try_from(self.sentences.len() - 1).unwrap_or(u32::MAX)
    }
}

/// Makes a plan from a snapshot. As [`plan_with`], with nothing kept.
#[must_use]
pub fn plan(cluster: &Cluster, now: Timestamp, limits: Limits) -> Plan {
    plan_with(&mut Memory::new(), cluster, now, limits)
}

/// Makes a plan from a snapshot, with what is kept from the plan before. The result is the same as
/// without, except that a place reserved in time is kept where it would else be put later.
///
/// Cost: what changed since the plan before, a look at every node and every waiting unit, and for
/// each class that is tried the nodes with something free; for each place reserved in time a look at
/// the nodes of its partitions.
#[must_use]
pub fn plan_with(memory: &mut Memory, cluster: &Cluster, now: Timestamp, limits: Limits) -> Plan {
    let shares = FairShare::new(cluster, now);
    let scale = Scale::new(cluster, &shares, now);
    memory.refresh(cluster, now, &scale);
    let (order, priorities) = memory.queue.order(cluster, &scale);
    let plan = Plan {
        made_at: now,
        units: Arc::clone(memory.queue.units()),
        order: order.iter().map(|turn| turn.place).collect(),
        why: vec![Why::Unseen; order.len()],
        priorities,
        stats: PlanStats {
            waiting: u32::try_from(order.len()).unwrap_or(u32::MAX),
            ..PlanStats::default()
        },
        ..Plan::default()
    };
    let packer = OnceCell::new();
    let used = UsageCache::default();
    let check = Check::new(cluster, now, &used).with_shares(&shares);
    let mut pass = Pass::new(memory, Gates::new(cluster, check), plan, limits, &packer);
    pass.run(&order);
    let (mut plan, kept, cuts) = (pass.plan, pass.searches.kept, pass.cuts);
    plan.reshapes = reshapes(cluster, &cuts, &plan.starts);
    memory.kept = kept;
    plan
}
