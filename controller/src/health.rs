//! When does each node run the program that says whether it is well?
//!
//! Slurm's `HealthCheckProgram`: each node whose state is asked for is told to run it, once an interval,
//! all at once or (CYCLE) spread over the interval. What it finds it tells by `scontrol`; the exit status
//! is logged by the node. A node that has just connected runs it at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use penstock_core::model::{Node, NodeUse};
use penstock_proto::v1;
use penstock_proto::v1::controller_message::Body;
use penstock_vocab::{NodeName, SessionId, Timestamp};

use crate::config::{CheckedState, HealthCheck};
use crate::rpc::Shared;

/// After so many seconds the program is killed, as Slurm does.
const TIMEOUT_SECS: u32 = 60;

/// When each node was last told, and in which session.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    told: Mutex<BTreeMap<NodeName, (SessionId, Timestamp)>>,
}

impl Checks {
    /// Tells those whose turn it is.
    pub(crate) fn run(&self, shared: &Shared) {
        let file = shared.file();
        let Some(check) = file.health_check.as_ref().filter(|check| check.interval_secs > 0) else {
            return;
        };
        let now = shared.clock.now();
        let snapshot = shared.snapshot();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, node, used) in snapshot.cluster.nodes() {
            let Some(session) = node.session.filter(|_| is_meant(check, node, used)) else {
                continue;
            };
            let last = told.get(&node.name).filter(|(of, _)| *of == session).map(|(_, at)| *at);
            if !is_due(check, last, index.get(), now) {
                continue;
            }
            let order = v1::RunHealthCheck {
                program: check.program.to_string_lossy().into_owned(),
                timeout_secs: TIMEOUT_SECS,
            };
            if shared.links.send(&node.name, Body::HealthCheck(order)) {
                told.insert(node.name.clone(), (session, now));
            }
        }
        told.retain(|name, _| snapshot.cluster.node_by_name(name).is_ok());
    }
}

/// Whether the state of a node is one that is asked for. One that is down is not asked.
fn is_meant(check: &HealthCheck, node: &Node, used: &NodeUse) -> bool {
    let taken = used.cpus.count_ones(..);
    let state = if used.jobs.is_empty() {
        CheckedState::Idle
    } else if taken >= node.inventory.cpus as usize {
        CheckedState::Alloc
    } else {
        CheckedState::Mixed
    };
    node.down.is_none() && !node.admin.powered_down && check.states.contains(&state)
}

/// Whether it is a node's turn: an interval after the last time, or where they take turns at its own
/// second of each interval.
fn is_due(check: &HealthCheck, last: Option<Timestamp>, place: usize, now: Timestamp) -> bool {
    let Some(last) = last else { return true };
    let interval = u64::from(check.interval_secs);
    let since = now.since(last).as_secs();
    if !check.cycle {
        return since >= interval;
    }
    let second = u64::try_from(now.0 / 1_000).unwrap_or(0) % interval;
    since >= interval.saturating_mul(2) || since > 0 && second == place as u64 % interval
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cycle: bool) -> HealthCheck {
        HealthCheck { program: "/x".into(), interval_secs: 10, states: Vec::new(), cycle }
    }

    #[test]
    fn all_at_once_or_one_after_the_other() {
        let at = Timestamp::from_secs;
        assert!(is_due(&check(false), None, 3, at(100)));
        assert!(!is_due(&check(false), Some(at(100)), 3, at(109)));
        assert!(is_due(&check(false), Some(at(100)), 3, at(110)));
        let due: Vec<i64> =
            (101..121).filter(|now| is_due(&check(true), Some(at(100)), 13, at(*now))).collect();
        assert_eq!(due, [103, 113, 120], "at its own second, or where that was missed");
    }
}
