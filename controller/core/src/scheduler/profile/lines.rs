//! How are all nodes used over time, with what a plan adds?

use std::sync::Arc;

use penstock_vocab::Timestamp;

use super::{Amount, Line, run_end};
use crate::cluster::Cluster;
use crate::model::{Node, NodeIndex, NodeShare, NodeUse};

/// Use of one node by what runs there, and what it was made from.
#[derive(Debug, Clone)]
struct Base {
    line: Line,
    used: Arc<NodeUse>,
    /// It depends on the time: to be made anew for each plan.
    volatile: bool,
    /// The first end, after which it has to be made anew.
    until: i64,
}

/// Use of all nodes over time: by what runs, kept from plan to plan, and by what this plan adds.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduler) struct Lines {
    base: Vec<Base>,
    /// One more than the place in `changed`; 0: as `base`.
    at: Vec<u32>,
    changed: Vec<Line>,
    /// Nodes that this plan added something to, in order, with repetitions.
    touched: Vec<NodeIndex>,
}

impl Lines {
    /// Takes what runs in this snapshot, and forgets what the last plan added. Cost: a look at every
    /// node, and the runs of those on which something changed.
    pub(in crate::scheduler) fn refresh(&mut self, cluster: &Cluster, now: Timestamp) {
        self.changed.clear();
        self.touched.clear();
        self.at.clear();
        self.at.resize(cluster.node_count(), 0);
        self.base.truncate(cluster.node_count());
        for (index, node, used) in cluster.nodes() {
            let fresh = |base: &Base| {
                !base.volatile
                    && base.until > now.0
                    && Arc::ptr_eq(&base.used, used)
                    && base.line.stride_is(node.inventory.gres.len())
            };
            match self.base.get_mut(index.get()) {
                Some(base) if fresh(base) => {}
                Some(base) => *base = Base::new(cluster, node, used, now),
                None => self.base.push(Base::new(cluster, node, used, now)),
            }
        }
    }

    /// The use of a node.
    pub(in crate::scheduler) fn line(&self, node: NodeIndex) -> &Line {
        match self.at[node.get()] {
            0 => &self.base[node.get()].line,
            place => &self.changed[place as usize - 1],
        }
    }

    /// Adds what this plan gives away.
    pub(in crate::scheduler) fn add(
        &mut self,
        node: NodeIndex,
        from: i64,
        until: i64,
        amount: &Amount,
    ) {
        if self.at[node.get()] == 0 {
            self.changed.push(self.base[node.get()].line.clone());
            self.at[node.get()] = u32::try_from(self.changed.len()).unwrap_or(u32::MAX);
        }
        let place = self.at[node.get()] as usize - 1;
        self.changed[place].add(from, until, amount);
        self.touched.push(node);
    }

    /// Nodes that this plan added something to, in order, with repetitions.
    pub(in crate::scheduler) fn touched(&self) -> &[NodeIndex] {
        &self.touched
    }
}

impl Base {
    fn new(cluster: &Cluster, node: &Node, used: &Arc<NodeUse>, now: Timestamp) -> Self {
        let kill_wait = cluster.config().policy.kill_wait_secs;
        let mut base = Self {
            line: Line::new(node.inventory.gres.len()),
            used: Arc::clone(used),
            volatile: false,
            until: i64::MAX,
        };
        for id in &used.jobs {
            let Some(job) = cluster.job(*id) else { continue };
            let Some(run) = job.active_run() else { continue };
            let (end, volatile) = run_end(job, run, now, kill_wait);
            base.volatile |= volatile;
            base.until = base.until.min(end);
            let index = cluster.node_index(node.name.as_str());
            for share in run.shares.iter().filter(|share| Some(share.node) == index) {
                base.line.add(i64::MIN, end, &Amount::of(node, share));
            }
        }
        base
    }
}

impl Amount {
    /// What a share takes.
    pub(in crate::scheduler) fn of(node: &Node, share: &NodeShare) -> Self {
        let have = &node.inventory.gres;
        let mut gres = vec![0u32; have.len()];
        for taken in &share.gres {
            let at = have.iter().position(|have| have.name == taken.name);
            if let Some(count) = at.and_then(|at| gres.get_mut(at)) {
                *count = count.saturating_add(u32::try_from(taken.ids.len()).unwrap_or(u32::MAX));
            }
        }
        Self { cpus: share.cpu_count(), memory: share.memory.0, gres }
    }
}
