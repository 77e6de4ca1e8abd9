//! When does what runs on a node leave room for a class?
//!
//! What runs only ends, so that the answer for a node holds until something changes there. It is kept
//! from plan to plan, and what plans add is looked at apart.

use std::collections::BTreeMap;

use super::needs::{Ahead, Need};
use super::pool::Pool;
use super::profile::{Lines, NEVER};
use crate::model::NodeIndex;

/// Most changes of nodes that are remembered before all answers are forgotten.
const MAX_LOG: usize = 100_000;

/// An answer that so many plans did not ask for is forgotten.
const UNUSED_PLANS: u32 = 4;

/// By class and place in its list of partitions, when each node of the partition has room, if nothing begins there.
#[derive(Debug, Clone, Default)]
pub(super) struct Releases {
    known: BTreeMap<(u32, u32), Known>,
    /// Nodes that changed, in order.
    log: Vec<NodeIndex>,
    plan: u32,
}

#[derive(Debug, Clone)]
struct Known {
    /// [`NEVER`]: never; `i64::MIN`: always.
    times: Vec<i64>,
    /// How much of the log was taken into account.
    seen: usize,
    plan: u32,
}

impl Releases {
    /// Forgets everything, as when classes have new numbers.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.log.clear();
    }

    /// Begins a plan: these nodes changed since the one before.
    pub(super) fn refresh(&mut self, changed: impl IntoIterator<Item = NodeIndex>) {
        self.plan += 1;
        self.log.extend(changed);
        if self.log.len() > MAX_LOG {
            self.clear();
        }
        let plan = self.plan;
        self.known.retain(|_, known| known.plan + UNUSED_PLANS >= plan);
    }

    /// The times of one class in one of its partitions. Cost: the nodes that changed, or all at first.
    pub(super) fn of(
        &mut self,
        key: (u32, u32),
        partition: u32,
        needs: &[Option<Need>],
        length: i64,
        pool: &Pool,
        lines: &Lines,
    ) -> &[i64] {
        let nodes = pool.partition(partition);
        let time = |node: NodeIndex| {
            let need = needs[pool.kind_of(node)? as usize].as_ref()?;
            lines.base(node).first_fit(&Ahead(need), i64::MIN, length)
        };
        let known = self.known.entry(key).or_insert_with(|| Known {
            times: nodes.iter().map(|node| time(*node).unwrap_or(NEVER)).collect(),
            seen: self.log.len(),
            plan: self.plan,
        });
        for node in &self.log[known.seen..] {
            if let Ok(place) = nodes.binary_search(node) {
                known.times[place] = time(*node).unwrap_or(NEVER);
            }
        }
        known.seen = self.log.len();
        known.plan = self.plan;
        &known.times
    }
}
