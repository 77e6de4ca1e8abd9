//! Which running jobs make room for a unit that may preempt them?
//!
//! For each node the cheapest of its jobs, by what would be lost, until a share of the unit fits; then
//! the cheapest nodes, until the unit fits on them; then those jobs are let off that the shares chosen
//! do not need. What is lost of a job is the time since its start, or since it last said that it had
//! saved its state, times what it is billed for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_vocab::{JobId, Timestamp};

use super::demand::Demand;
use super::fit::place;
use super::free::Free;
use super::gates::ClaimBack;
use super::pass::{Pass, Prepared};
use super::placing::{Exactly, Window};
use super::profile::{Amount, Fits, Line, end_of, run_end};
use super::queue::{Entry, Turn};
use super::reserve::Found;
use crate::command::PreemptLine;
use crate::model::{
    IdleAction, IdleRule, Job, NodeIndex, NodeShare, Partition, PreemptBy, PreemptMode, Run,
    RunStage,
};

/// Most units for which one plan looks for victims.
const MAX_SEARCHES: u32 = 64;

/// What a plan knows of those who may be preempted.
#[derive(Debug, Default)]
pub(super) struct Victims {
    /// By node, those with a share there; filled at the first search.
    on: Option<Vec<Vec<Arc<Victim>>>>,
    chosen: BTreeSet<JobId>,
    searches: u32,
    /// When the last of those that were told to end is gone.
    ending_until: i64,
}

/// A running job that somebody may preempt.
#[derive(Debug)]
struct Victim {
    job: Arc<Job>,
    run: Arc<Run>,
    mode: PreemptMode,
    grace_secs: u32,
    tier: u32,
    /// What is lost with it.
    loss: u64,
    end: i64,
}

impl Pass<'_> {
    /// Chooses victims for a unit that does not fit now, and keeps their nodes for it; false if it
    /// may preempt nobody, will start soon anyway, or would not fit even so.
    pub(super) fn preempt_for(&mut self, turn: Turn, entry: &Entry) -> bool {
        let preemption = &self.cluster.config().scheduling.preemption;
        if preemption.by == PreemptBy::None && !preemption.reclaim && !self.has_idle_prey()
            || self.victims.searches >= MAX_SEARCHES
        {
            return false;
        }
        self.victims.searches += 1;
        let prepared = self.prepare(turn.class, entry);
        let kill_wait = self.cluster.config().policy.kill_wait_secs;
        let soon = Timestamp(self.now).plus_secs(u64::from(kill_wait.max(1)));
        let class = &self.classes[turn.class as usize];
        let on = self.victims_by_node();
        self.victims.on = Some(on);
        let ending_until = self.victims.ending_until;
        for at in 0..class.partitions.len() {
            // Who waits for what is ending needs no more victims.
            let found = self.earliest(turn.class, &prepared, at);
            let starts_soon = found.is_some_and(|found| found.0 <= ending_until);
            if starts_soon {
                return false;
            }
        }
        for (at, partition) in class.partitions.iter().enumerate() {
            if !prepared.may_run(at) {
                continue;
            }
            let Some((shares, victims)) = self.make_room(turn.class, &prepared, at, entry) else {
                continue;
            };
            let grace = victims.iter().map(|victim| victim.grace_secs).max().unwrap_or(0);
            let start = soon.plus_secs(u64::from(grace)).0;
            for victim in victims {
                self.victims.chosen.insert(victim.job.id);
                self.plan.preempt.push(PreemptLine {
                    victim: victim.job.id,
                    for_unit: entry.unit,
                    mode: victim.mode,
                    grace_secs: victim.grace_secs,
                });
            }
            let alone = self.demand(class, at).holder.alone;
            let parts = self.amounts(&shares, alone);
            let found = Found { start, partition: *partition, parts, slots: Vec::new() };
            self.hold(turn, entry, 0, found, self.plan.made_at, None);
            return true;
        }
        false
    }

    fn make_room(
        &mut self,
        number: u32,
        prepared: &Prepared,
        at: usize,
        entry: &Entry,
    ) -> Option<(Vec<NodeShare>, Vec<Arc<Victim>>)> {
        let class = &self.classes[number as usize];
        let partition = class.partitions[at];
        let demand = self.demand(class, at);
        let until = end_of(self.now, class.length);
        let free =
            self.licences.next(&class.shape, prepared.access, self.pool, self.now, class.length);
        if free != Some(self.now) {
            return None;
        }
        let tier = self.partition(partition).priority_tier;
        let claimed = self.gates.claim_back(entry);
        let on = self.victims_by_node();
        let (mut offers, mut whole) = (Vec::new(), Vec::new());
        for node in self.pool.partition(partition) {
            let Some(kind) = self.pool.kind_of(*node) else { continue };
            let Some(need) = &prepared.needs[at][kind as usize] else { continue };
            let kind = &self.pool.kinds()[kind as usize];
            if !prepared.access.allows(self.pool, kind, self.now, class.length) {
                continue;
            }
            let may =
                |victim: &&Arc<Victim>| self.may_preempt(entry, tier, claimed.as_ref(), victim);
            let candidates: Vec<_> = on[node.get()].iter().filter(may).cloned().collect();
            if let Some(offer) = self.offer(*node, need, candidates.clone(), until) {
                whole.push(Offer::of(*node, candidates));
                offers.push(offer);
            }
        }
        // Where one task on each of the nodes is not enough, all that a node may give counts.
        let found = [offers, whole].into_iter().find_map(|mut offers| {
            offers.sort_unstable_by_key(|offer| (offer.loss, offer.node));
            self.fewest(&demand, &offers, until)
        });
        self.victims.on = Some(on);
        found
    }

    /// Whether a unit that would start in a partition of this tier may preempt a job.
    fn may_preempt(
        &self,
        entry: &Entry,
        tier: u32,
        claimed: Option<&ClaimBack>,
        victim: &Victim,
    ) -> bool {
        if self.victims.chosen.contains(&victim.job.id) {
            return false;
        }
        let preemption = &self.cluster.config().scheduling.preemption;
        let by_rank = match preemption.by {
            PreemptBy::None => false,
            PreemptBy::PartitionPriority => victim.tier < tier,
            PreemptBy::Qos => {
                let qos = self.cluster.accounts().qos(&entry.queued.spec.qos);
                qos.is_some_and(|qos| qos.preempt.contains(&victim.job.spec.qos))
            }
        };
        by_rank
            || victim.run.is_idle_prey()
            || claimed.is_some_and(|claimed| self.gates.borrowed(claimed, &victim.job))
    }

    /// Whether idle GPUs can make a running job one that anybody may preempt.
    fn has_idle_prey(&self) -> bool {
        let prey = |rule: &IdleRule| rule.action == IdleAction::Preemptible && !rule.dry_run;
        self.cluster.config().idle.iter().any(prey)
    }

    /// All that may be preempted at all, by node, the least loss first. Cost: all that runs, once.
    fn victims_by_node(&mut self) -> Vec<Vec<Arc<Victim>>> {
        if let Some(on) = self.victims.on.take() {
            return on;
        }
        let kill_wait = self.cluster.config().policy.kill_wait_secs;
        let mut on = vec![Vec::new(); self.cluster.node_count()];
        for (index, _, used) in self.cluster.nodes() {
            for job in used.jobs.iter().filter_map(|id| self.cluster.job(*id)) {
                let Some(run) = job.active_run().filter(|run| run.batch_node() == Some(index))
                else {
                    continue;
                };
                if run.is_ending() || run.ends_at.is_some() {
                    let end = run_end(job, run, Timestamp(self.now), kill_wait).0;
                    self.victims.ending_until = self.victims.ending_until.max(end);
                }
                let Some(victim) = self.victim(job, run) else { continue };
                let victim = Arc::new(victim);
                for share in &run.shares {
                    if let Some(here) = on.get_mut(share.node.get()) {
                        here.push(Arc::clone(&victim));
                    }
                }
            }
        }
        for here in &mut on {
            here.sort_unstable_by_key(|victim: &Arc<Victim>| (victim.loss, victim.job.id));
        }
        on
    }

    fn victim(&self, job: &Arc<Job>, run: &Arc<Run>) -> Option<Victim> {
        let config = self.cluster.config();
        let preemption = &config.scheduling.preemption;
        let qos = self.cluster.accounts().qos(&job.spec.qos);
        let partition: Option<&Partition> =
            config.partitions.iter().find(|partition| partition.name == run.partition);
        let mode = self.cluster.preempt_mode_of(job);
        let exempt = qos.and_then(|qos| qos.preempt_exempt_secs).unwrap_or(preemption.exempt_secs);
        let now = Timestamp(self.now);
        let ending = run.stage == RunStage::Ended || run.is_ending() || run.ends_at.is_some();
        if mode == PreemptMode::Off
            || ending
            || run.suspended_since.is_some()
            || now.since(run.start_time).0 < u64::from(exempt) * 1_000
        {
            return None;
        }
        let saved = run.checkpoint.map_or(run.start_time, |saved| saved.max(run.start_time));
        let weight = if run.billing > 0 { run.billing } else { u64::from(run.cpu_count()) };
        Some(Victim {
            job: Arc::clone(job),
            run: Arc::clone(run),
            mode,
            grace_secs: self.cluster.preempt_grace_of(job),
            tier: partition.map_or(0, |partition| partition.priority_tier),
            loss: now.since(saved).0.saturating_mul(weight),
            end: run_end(job, run, now, config.policy.kill_wait_secs).0,
        })
    }

    /// What a node would cost: the cheapest of its jobs until a share fits, less those that turn out
    /// not to be needed. `None`: it would not fit even so.
    fn offer(
        &self,
        node: NodeIndex,
        need: &impl Fits,
        candidates: Vec<Arc<Victim>>,
        until: i64,
    ) -> Option<Offer> {
        let mut line = self.lines.copy(node);
        let mut victims = Vec::new();
        let mut candidates = candidates.into_iter();
        while !line.view().fits(need, self.now, until) {
            let victim = candidates.next()?;
            self.change(&mut line, node, &victim, false);
            victims.push(victim);
        }
        self.let_off(&mut line, node, need, &mut victims, until);
        Some(Offer::of(node, victims))
    }

    /// Puts back those without whom it still fits, the dearest first.
    fn let_off(
        &self,
        line: &mut Line,
        node: NodeIndex,
        need: &impl Fits,
        victims: &mut Vec<Arc<Victim>>,
        until: i64,
    ) {
        for at in (0..victims.len()).rev() {
            self.change(line, node, &victims[at], true);
            if line.view().fits(need, self.now, until) {
                victims.remove(at);
            } else {
                self.change(line, node, &victims[at], false);
            }
        }
    }

    /// Takes a job out of the use of a node, or puts it back.
    fn change(&self, line: &mut Line, node: NodeIndex, victim: &Victim, back: bool) {
        let Some((place, _)) = self.cluster.node(node) else { return };
        for share in victim.run.shares.iter().filter(|share| share.node == node) {
            let amount =
                Amount::of(place, share, self.cluster.holder(&victim.job, &victim.run).alone);
            if back {
                line.add(i64::MIN, victim.end, &amount);
            } else {
                line.remove(i64::MIN, victim.end, &amount);
            }
        }
    }

    /// The cheapest nodes on which the unit fits, and whom it costs.
    fn fewest(
        &self,
        demand: &Demand<'_>,
        offers: &[Offer],
        until: i64,
    ) -> Option<(Vec<NodeShare>, Vec<Arc<Victim>>)> {
        let mut count = (demand.nodes_min as usize).max(1);
        loop {
            let cheapest = &offers[..count.min(offers.len())];
            if let Some(shares) = self.place_on(demand, cheapest, until) {
                let victims = self.needed(demand, cheapest, &shares, until);
                return Some((shares, victims));
            }
            if count >= offers.len() {
                return None;
            }
            count = count.saturating_mul(2);
        }
    }

    fn place_on(
        &self,
        demand: &Demand<'_>,
        offers: &[Offer],
        until: i64,
    ) -> Option<Vec<NodeShare>> {
        let idle = Free::idle(self.cluster);
        let mut window = Window::now(&idle, self.cluster);
        let mut nodes: Vec<_> = offers.iter().map(|offer| offer.node).collect();
        nodes.sort_unstable();
        for offer in offers {
            let mut line = self.lines.copy(offer.node);
            offer.victims.iter().for_each(|v| self.change(&mut line, offer.node, v, false));
            window.set(offer.node, &line.view().peak(self.now, until));
        }
        place(&window, &nodes, demand, |node| node.accepts_work())
    }

    /// Of the victims on the nodes chosen, those without whom the shares would not fit.
    fn needed(
        &self,
        demand: &Demand<'_>,
        offers: &[Offer],
        shares: &[NodeShare],
        until: i64,
    ) -> Vec<Arc<Victim>> {
        let mut needed: BTreeMap<JobId, Arc<Victim>> = BTreeMap::new();
        for share in shares {
            let offer = offers.iter().find(|offer| offer.node == share.node);
            let (Some(offer), Some((node, _))) = (offer, self.cluster.node(share.node)) else {
                continue;
            };
            let amount = Amount::of(node, share, demand.holder.alone);
            let need = Exactly::new(node, &amount, demand.exclusive);
            let mut line = self.lines.copy(share.node);
            let mut victims = offer.victims.clone();
            victims.iter().for_each(|v| self.change(&mut line, share.node, v, false));
            self.let_off(&mut line, share.node, &need, &mut victims, until);
            needed.extend(victims.into_iter().map(|victim| (victim.job.id, victim)));
        }
        needed.into_values().collect()
    }
}

/// A node and whom it would cost.
struct Offer {
    node: NodeIndex,
    loss: u64,
    victims: Vec<Arc<Victim>>,
}

impl Offer {
    fn of(node: NodeIndex, victims: Vec<Arc<Victim>>) -> Self {
        let loss = victims.iter().fold(0u64, |sum, victim| sum.saturating_add(victim.loss));
        Self { node, loss, victims }
    }
}
