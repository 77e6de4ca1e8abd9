//! On whose CPUs does a job find room that shares its own?
//!
//! In a partition with `OverSubscribe` a CPU may be several jobs' at a time. A job gets CPUs of its
//! own as long as there are any, then such as the fewest others hold. Memory and devices are never
//! shared. Ahead of time each job counts as if it had its CPUs to itself, so that a promised start
//! holds whoever joins whom; a CPU that several hold is in use until the last of them ends.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;
use penstock_vocab::Timestamp;

use super::classes::Class;
use super::fit::place;
use super::free::{Free, View};
use super::pass::{Pass, Prepared};
use super::placing::Exactly;
use super::profile::{Amount, end_of, run_end};
use crate::cluster::{Cluster, held};
use crate::model::{Node, NodeIndex, NodeShare, NodeUse};

/// Placements that are tried with the same CPUs, each without the nodes that were no good before.
const MOST_TRIES: usize = 8;

/// Shares on CPUs that others may join, which a plan gave away.
#[derive(Debug, Default)]
pub(super) struct Sharers {
    by_node: BTreeMap<NodeIndex, Vec<(FixedBitSet, i64)>>,
}

impl Sharers {
    /// Notes a share that is held until then.
    pub(super) fn note(&mut self, share: &NodeShare, until: i64) {
        if share.sharing > 1 {
            let shares = self.by_node.entry(share.node).or_default();
            shares.push((share.cpus.clone(), until));
        }
    }

    fn on(&self, node: NodeIndex) -> impl Iterator<Item = &(FixedBitSet, i64)> {
        self.by_node.get(&node).into_iter().flatten()
    }
}

/// What is free, and CPUs that can be joined and have no more than so many holders.
struct Joined<'a> {
    free: &'a Free<'a>,
    sharing: u32,
    most_holders: usize,
}

impl View for Joined<'_> {
    fn with<T>(&self, index: NodeIndex, look: impl FnOnce(&Node, &NodeUse) -> T) -> Option<T> {
        self.free.with(index, |node, used| {
            if used.shared.is_empty() {
                return look(node, used);
            }
            let mut joined = used.clone();
            for cpu in used.joinable(self.sharing) {
                let holders = used.shared.get(&cpu).map_or(0, Vec::len);
                if holders <= self.most_holders {
                    joined.cpus.set(cpu as usize, false);
                }
            }
            look(node, &joined)
        })
    }
}

impl<'a> Pass<'a> {
    /// Looks for nodes on which a class fits from now on for `length`, if it shares CPUs with others.
    /// `None`: it does not share, or does not fit so either. Cost: at most a look at each node of the
    /// partition for each number of holders.
    pub(super) fn fit_sharing(
        &self,
        class: &'a Class,
        prepared: &Prepared,
        at: usize,
        length: i64,
    ) -> Option<Vec<NodeShare>> {
        let demand = self.demand(class, at).packed_by(self.packer());
        let (sharing, until) = (demand.sharing, end_of(self.now, length));
        if sharing < 2 {
            return None;
        }
        let could = |node: &NodeIndex| {
            let Some(kind) = self.pool.kind_of(*node) else { return false };
            prepared.needs[at][kind as usize].is_some()
                && prepared.access.allows(
                    self.pool,
                    &self.pool.kinds()[kind as usize],
                    self.now,
                    length,
                )
        };
        let nodes = self.pool.partition(class.partitions[at]).iter().copied().filter(could);
        let all: Vec<NodeIndex> = nodes.collect();
        let holders = |node: &NodeIndex| {
            self.free.with(*node, |_, used| used.shared.values().map(Vec::len).max()).flatten()
        };
        let most = all.iter().filter_map(holders).max()?.min(sharing as usize - 1);
        for most_holders in 1..=most {
            let joined = Joined { free: &self.free, sharing, most_holders };
            let mut nodes = all.clone();
            for _ in 0..MOST_TRIES {
                let Some(shares) = place(&joined, &nodes, &demand, Node::accepts_work) else {
                    break;
                };
                let late = |share: &&NodeShare| !self.has_time(share, (until, demand.exclusive));
                let late: Vec<_> = shares.iter().filter(late).map(|share| share.node).collect();
                if late.is_empty() {
                    return Some(shares);
                }
                nodes.retain(|node| !late.contains(node));
            }
        }
        None
    }

    /// What a share adds to its node, and from when on, until `until`: at once all but the CPUs that
    /// others hold, and of these each when the last of the others ends.
    pub(super) fn pieces(
        &self,
        node: &Node,
        share: &NodeShare,
        (until, alone): (i64, bool),
    ) -> Vec<(i64, Amount)> {
        let whole = Amount::of(node, share, alone);
        if share.sharing < 2 {
            return vec![(i64::MIN, whole)];
        }
        let mut later: BTreeMap<i64, u32> = BTreeMap::new();
        for (cpu, end) in self.held_by_others(share) {
            if share.cpus.contains(cpu) {
                *later.entry(end).or_insert(0) += 1;
            }
        }
        let held: u32 = later.values().sum();
        let first = Amount { cpus: whole.cpus.saturating_sub(held), ..whole };
        let more = later.into_iter().filter(|(end, _)| *end < until);
        let more = more.map(|(end, cpus)| (end, Amount { cpus, ..Amount::default() }));
        std::iter::once((i64::MIN, first)).chain(more).collect()
    }

    /// CPUs of a share's node that others hold, and when the last of these ends.
    fn held_by_others(&self, share: &NodeShare) -> BTreeMap<usize, i64> {
        let mut ends: BTreeMap<usize, i64> = BTreeMap::new();
        let mut add = |cpus: &FixedBitSet, end: i64| {
            for cpu in cpus.ones() {
                let last = ends.entry(cpu).or_insert(end);
                *last = end.max(*last);
            }
        };
        for (end, share) in running(self.cluster, share.node, Timestamp(self.now)) {
            add(&share.cpus, end);
        }
        for (cpus, end) in self.sharers.on(share.node) {
            add(cpus, *end);
        }
        ends
    }

    /// Whether what a share adds to its node fits beside everything that is planned there until then.
    fn has_time(&self, share: &NodeShare, (until, alone): (i64, bool)) -> bool {
        let Some((node, _)) = self.cluster.node(share.node) else { return false };
        let line = self.lines.line(share.node);
        let mut pieces = self.pieces(node, share, (until, alone)).into_iter().peekable();
        let Some((_, mut held)) = pieces.next() else { return false };
        let mut from = self.now;
        loop {
            let next = pieces.peek().map_or(until, |(from, _)| *from).max(from);
            let fits = Exactly::new(node, &held, alone);
            if next > from && !line.fits(&fits, from, next) {
                return false;
            }
            let Some((_, more)) = pieces.next() else { return true };
            held.cpus = held.cpus.saturating_add(more.cpus);
            from = next;
        }
    }
}

/// What runs on a node holds there now, and when it ends at the latest.
fn running(cluster: &Cluster, index: NodeIndex, now: Timestamp) -> Vec<(i64, NodeShare)> {
    let kill_wait = cluster.config().policy.kill_wait_secs;
    let Some((_, used)) = cluster.node(index) else { return Vec::new() };
    let mut running = Vec::new();
    for job in used.jobs.iter().filter_map(|id| cluster.job(*id)) {
        let Some(run) = job.active_run() else { continue };
        let (end, _) = run_end(job, run, now, kill_wait);
        let here = run.shares.iter().filter(|share| share.node == index);
        running.extend(here.map(|share| (end, held(run, share).into_owned())));
    }
    running
}

/// How many CPUs of each share count as in use until its end, where CPUs are shared: those that none
/// of the shares holds that end later. `shares`: with their ends.
pub(super) fn last_holders(shares: &[(i64, &FixedBitSet)]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse((shares[*at].0, *at)));
    let mut counts = vec![0; shares.len()];
    let mut counted = FixedBitSet::new();
    for at in order {
        let cpus = shares[at].1;
        counted.grow(cpus.len());
        counts[at] = u32::try_from(cpus.difference(&counted).count()).unwrap_or(u32::MAX);
        counted.union_with(cpus);
    }
    counts
}
