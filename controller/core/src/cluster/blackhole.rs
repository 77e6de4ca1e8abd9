//! When does a node that starts nothing stop eating the queue?
//!
//! A launch that fails by the node's fault costs a job its turn only, and the node a minute in which
//! it gets no other. When such launches of three different jobs have failed there within ten minutes,
//! the node is drained and its reason names them. One failure alone drains nothing, since a node that
//! knows itself to be unfit says so: its agent asks for the drain.

use penstock_vocab::{JobId, Timestamp, UserId};

use super::Cluster;
use crate::command::Effect;
use crate::model::{Node, NodeIndex};

/// How long a node gets no job after a launch failed there, seconds.
const COOLS_SECS: u64 = 60;
/// How long a failed launch counts, seconds.
const COUNTS_SECS: u64 = 600;
/// Failed launches of so many jobs drain a node.
const DRAINS_AT: usize = 3;

impl Cluster {
    /// A launch failed by the fault of the node that was to start it.
    pub(super) fn note_launch_failure(&mut self, job: JobId, index: NodeIndex, error: &str) {
        let Some(node) = self.nodes.get(index.get()) else { return };
        let mut node = (**node).clone();
        let since = self.now.minus_secs(COUNTS_SECS);
        node.trouble.failures.retain(|(at, failed)| *at > since && *failed != job);
        node.trouble.failures.push((self.now, job));
        if node.trouble.failures.len() < DRAINS_AT || node.admin.drain {
            self.cool(index, node);
            return;
        }
        let jobs: Vec<String> =
            node.trouble.failures.iter().map(|(_, job)| job.to_string()).collect();
        node.trouble.failures.clear();
        node.admin.drain = true;
        let reason = format!("launch failed: {error}; so it was for jobs {}", jobs.join(", "));
        node.admin.reason = reason.into();
        node.admin.reason_by = Some((UserId(0), self.now));
        self.put_node(index, node);
    }

    /// Keeps new jobs off a node for a while.
    fn cool(&mut self, index: NodeIndex, mut node: Node) {
        if let Some(until) = node.trouble.cool_until.take() {
            self.cooling.remove(&(until, index));
        }
        let until = self.now.plus_secs(COOLS_SECS);
        node.trouble.cool_until = Some(until);
        self.cooling.insert((until, index));
        self.set_node(index, node);
    }

    /// Lets nodes have jobs again that cooled long enough.
    pub(super) fn end_cooling(&mut self) {
        while let Some((until, index)) = self.cooling.get_min().copied() {
            if until > self.now {
                return;
            }
            self.cooling.remove(&(until, index));
            if let Some(node) = self.nodes.get(index.get()) {
                let mut node = (**node).clone();
                node.trouble.cool_until = None;
                self.set_node(index, node);
                self.effects.push(Effect::Schedule);
            }
        }
    }

    /// When the first node has cooled long enough.
    pub(super) fn cooling_ends(&self) -> Option<Timestamp> {
        self.cooling.get_min().map(|(until, _)| *until)
    }
}
