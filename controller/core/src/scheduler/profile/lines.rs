//! How are all nodes used over time, with what a plan adds?

use std::sync::Arc;

use penstock_vocab::Timestamp;

use super::super::sharing::last_holders;
use super::line::Level;
use super::{Amount, Line, LineRef, run_end};
use crate::cluster::{Cluster, held};
use crate::model::{Node, NodeIndex, NodeShare, NodeUse};

/// Use of one node by what runs there, and what it was made from.
#[derive(Debug, Clone)]
struct Base {
    line: Line,
    used: Arc<NodeUse>,
    /// It depends on the time: to be made anew for each plan.
    volatile: bool,
    /// Whether one user has the node to himself.
    alone: bool,
    /// The first end, after which it has to be made anew.
    until: i64,
}

/// Lines side by side.
#[derive(Debug, Clone, Default)]
struct Packed {
    levels: Vec<Level>,
    gres: Vec<u32>,
    /// Where each begins, in `levels` and in `gres`, and how many resources it counts; one more
    /// stands for the end.
    at: Vec<(u32, u32, u32)>,
}

/// Use of all nodes over time: by what runs, kept from plan to plan, and by what this plan adds.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduler) struct Lines {
    base: Vec<Base>,
    /// The lines of `base` side by side, since every search reads them all.
    packed: Packed,
    /// One more than the place in `changed`; 0: as `base`.
    at: Vec<u32>,
    changed: Vec<Line>,
    /// Nodes that this plan added something to, in order, with repetitions.
    touched: Vec<NodeIndex>,
    /// Nodes on which something else runs than at the plan before.
    fresh: Vec<NodeIndex>,
}

impl Lines {
    /// Takes what runs in this snapshot, and forgets what the last plan added. Cost: a look at every
    /// node, and the runs of those on which something changed.
    pub(in crate::scheduler) fn refresh(&mut self, cluster: &Cluster, now: Timestamp) {
        self.changed.clear();
        self.touched.clear();
        self.fresh.clear();
        self.at.clear();
        self.at.resize(cluster.node_count(), 0);
        let mut same = self.base.len() == cluster.node_count();
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
                Some(base) => {
                    *base = Base::new(cluster, index, node, used, now);
                    same = false;
                    self.fresh.push(index);
                }
                None => {
                    self.base.push(Base::new(cluster, index, node, used, now));
                    self.fresh.push(index);
                }
            }
        }
        if !same {
            self.packed = Packed::of(&self.base);
        }
    }

    /// Nodes on which something else runs than at the plan before.
    pub(in crate::scheduler) fn fresh(&self) -> &[NodeIndex] {
        &self.fresh
    }

    /// The use of a node by what runs.
    pub(in crate::scheduler) fn base(&self, node: NodeIndex) -> LineRef<'_> {
        self.packed.line(node.get())
    }

    /// The use of a node.
    pub(in crate::scheduler) fn line(&self, node: NodeIndex) -> LineRef<'_> {
        match self.at[node.get()] {
            0 => self.packed.line(node.get()),
            place => self.changed[place as usize - 1].view(),
        }
    }

    /// Whether some user who runs has a node to himself.
    pub(in crate::scheduler) fn anybody_alone(&self) -> bool {
        self.base.iter().any(|base| base.alone)
    }

    /// A copy of the use of a node, to try things on.
    pub(in crate::scheduler) fn copy(&self, node: NodeIndex) -> Line {
        Line::of(self.line(node))
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

impl Packed {
    fn of(lines: &[Base]) -> Self {
        let mut packed = Self::default();
        let place = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        for base in lines {
            let LineRef { levels, gres, stride, .. } = base.line.view();
            packed.at.push((place(packed.levels.len()), place(packed.gres.len()), place(stride)));
            packed.levels.extend_from_slice(levels);
            packed.gres.extend_from_slice(gres);
        }
        packed.at.push((place(packed.levels.len()), place(packed.gres.len()), 0));
        packed
    }

    fn line(&self, at: usize) -> LineRef<'_> {
        let (level, gres, stride) = self.at[at];
        let (level_end, gres_end, _) = self.at[at + 1];
        LineRef {
            levels: &self.levels[level as usize..level_end as usize],
            gres: &self.gres[gres as usize..gres_end as usize],
            stride: stride as usize,
            // What runs has begun.
            grows: false,
        }
    }
}

impl Base {
    fn new(
        cluster: &Cluster,
        index: NodeIndex,
        node: &Node,
        used: &Arc<NodeUse>,
        now: Timestamp,
    ) -> Self {
        let kill_wait = cluster.config().policy.kill_wait_secs;
        let mut base = Self {
            line: Line::new(node.inventory.gres.len()),
            used: Arc::clone(used),
            volatile: false,
            alone: false,
            until: i64::MAX,
        };
        let mut shares = Vec::new();
        for id in &used.jobs {
            let Some(job) = cluster.job(*id) else { continue };
            let Some(run) = job.active_run() else { continue };
            let (end, volatile) = run_end(job, run, now, kill_wait);
            base.volatile |= volatile;
            base.until = base.until.min(end);
            for share in run.shares.iter().filter(|share| share.node == index) {
                let alone = cluster.holder(job, run).alone;
                base.alone |= alone;
                shares.push((end, held(run, share), alone));
            }
        }
        let mut amounts: Vec<Amount> =
            shares.iter().map(|(_, share, alone)| Amount::of(node, share, *alone)).collect();
        if !used.shared.is_empty() {
            let cpus: Vec<_> = shares.iter().map(|(end, share, _)| (*end, &share.cpus)).collect();
            for (amount, cpus) in amounts.iter_mut().zip(last_holders(&cpus)) {
                amount.cpus = cpus;
            }
        }
        for ((end, _, _), amount) in shares.iter().zip(&amounts) {
            base.line.add(i64::MIN, *end, amount);
        }
        base
    }
}

impl Amount {
    /// What a share takes.
    pub(in crate::scheduler) fn of(node: &Node, share: &NodeShare, alone: bool) -> Self {
        let have = &node.inventory.gres;
        let mut gres = vec![0u32; have.len()];
        for taken in &share.gres {
            let at = have.iter().position(|have| have.name == taken.name);
            if let Some(count) = at.and_then(|at| gres.get_mut(at)) {
                *count = count.saturating_add(u32::try_from(taken.ids.len()).unwrap_or(u32::MAX));
            }
        }
        Self { cpus: share.cpu_count(), memory: share.memory.0, gres, alone }
    }
}
