//! What keeps a unit back, whatever is free?
//!
//! The gates are asked twice: before nodes are chosen, and after, when it is known what the unit would
//! take. What a plan starts is counted here too, so that the next unit is judged as if it ran.

use std::collections::BTreeMap;

use penstock_vocab::{JobId, PendingReason, Tres, UserId, Walltime};

use super::queue::Entry;
use crate::cluster::{Applicant, Cluster, Waiting};
use crate::command::Unit;
use crate::model::{Array, AssocId, Job, JobSpec, NodeShare, Partition, PartitionState, Qos};
use crate::policy;
use crate::policy::limits::{Check, Claim, LimitState, bounds};

/// The gates, with what the plan started so far.
pub(super) struct Gates<'a> {
    cluster: &'a Cluster,
    /// Array tasks that this plan starts.
    started_tasks: BTreeMap<JobId, u32>,
    /// Limits, with what this plan starts.
    check: Check<'a>,
    /// Who is over a limit, by class: within a pass, what is in use only grows. The sentence.
    closed: BTreeMap<(u32, AssocId, UserId), u32>,
}

/// What a start counts as where limits ask for it.
pub(super) struct Charge<'a> {
    claim: Claim<'a>,
    tres: Tres,
}

/// What a unit may take back that its account is guaranteed.
pub(super) struct ClaimBack {
    /// The level that is guaranteed it.
    group: AssocId,
    /// The least that the unit takes.
    need: Tres,
}

impl<'a> Gates<'a> {
    pub(super) fn new(cluster: &'a Cluster, check: Check<'a>) -> Self {
        Self { cluster, started_tasks: BTreeMap::new(), check, closed: BTreeMap::new() }
    }

    pub(super) fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// The sentence about a limit that was found for somebody charged alike.
    pub(super) fn known_limit(&self, class: u32, entry: &Entry) -> Option<u32> {
        if self.closed.is_empty() {
            return None;
        }
        self.closed.get(&(class, entry.queued.assoc, entry.queued.uid)).copied()
    }

    /// Remembers that a limit keeps back this unit and all of its class that are charged alike.
    pub(super) fn close(&mut self, class: u32, entry: &Entry, why: u32) {
        self.closed.insert((class, entry.queued.assoc, entry.queued.uid), why);
    }

    /// The limit that keeps a unit from each of the partitions, if there is one for all.
    pub(super) fn limits_of(
        &self,
        entry: &Entry,
        partitions: impl Iterator<Item = &'a Partition>,
    ) -> Result<(), Waiting> {
        self.check.in_all(entry.unit, &entry.queued.spec, partitions)
    }

    /// What a unit brings along for a start in a partition; `None`: no limit asks for it.
    pub(super) fn claim(&self, entry: &Entry, partition: &Partition) -> Option<Claim<'a>> {
        let cluster: &'a Cluster = self.cluster;
        cluster.claim(entry.unit, &partition.name).filter(|claim| self.check.counts(claim))
    }

    /// The limit that keeps a unit from a partition, as far as that is known before nodes are chosen.
    pub(super) fn limits_in(
        &self,
        entry: &Entry,
        claim: Option<&Claim<'a>>,
        partition: &Partition,
    ) -> Result<(), Waiting> {
        claim.map_or(Ok(()), |claim| self.check.in_one(claim, &entry.queued.spec, partition))
    }

    /// What keeps a unit back before anything is known of its place.
    pub(super) fn before(&self, entry: &Entry) -> Result<(), Waiting> {
        let base = match entry.unit {
            Unit::Array(id) => Some(id),
            Unit::Job(_) => entry.queued.base,
        };
        self.may_use_reservation(entry)?;
        let array = base.and_then(|base| self.cluster.array(base));
        match array {
            Some(array) if self.room(array) == 0 => Err(throttled(array)),
            Some(_) | None => Ok(()),
        }
    }

    fn may_use_reservation(&self, entry: &Entry) -> Result<(), Waiting> {
        let spec = &entry.queued.spec;
        let who =
            Applicant { uid: entry.queued.uid, assoc: entry.queued.assoc, account: &spec.account };
        match self.cluster.reservation(&spec.reservation) {
            Some(own) if !self.cluster.reservation_admits(own, who) => {
                let detail = format!("reservation {} is for others", own.name);
                Err(Waiting::new(PendingReason::Reservation, detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What keeps a unit from taking this; else what it comes to, where a limit asks for it.
    pub(super) fn after(
        &self,
        entry: &Entry,
        claim: Option<Claim<'a>>,
        partition: &Partition,
        shares: &[NodeShare],
    ) -> Result<Option<Charge<'a>>, Waiting> {
        let Some(claim) = claim else { return Ok(None) };
        let (tres, node) = self.cluster.amounts(&partition.name, shares, &entry.queued.spec);
        self.check.after(&claim, &tres, &node)?;
        Ok(Some(Charge { claim, tres }))
    }

    /// Counts a start.
    pub(super) fn take(&mut self, entry: &Entry, charge: Option<&Charge<'a>>) {
        if let Some(Charge { claim, tres }) = charge {
            self.check.take(claim, tres);
        }
        let base = match entry.unit {
            Unit::Array(id) => Some(id),
            Unit::Job(_) => entry.queued.base,
        };
        if let Some(base) = base {
            *self.started_tasks.entry(base).or_insert(0) += 1;
        }
    }

    /// What a unit may take back of what its account is guaranteed and others borrowed; `None`:
    /// nothing.
    pub(super) fn claim_back(&self, entry: &Entry) -> Option<ClaimBack> {
        if !self.cluster.config().scheduling.preemption.reclaim {
            return None;
        }
        let (accounts, own) = (self.cluster.accounts(), entry.queued.assoc);
        let group = LimitState::guaranteed_level(accounts, own)?;
        let need = policy::least_tres(&entry.queued.spec, None);
        let due = self.check.state().under_guarantee(accounts, own, &need);
        due.then_some(ClaimBack { group, need })
    }

    /// Whether the account of a running job borrowed some of what is claimed back.
    pub(super) fn borrowed(&self, claimed: &ClaimBack, victim: &Job) -> bool {
        let accounts = self.cluster.accounts();
        let group = LimitState::guaranteed_level(accounts, victim.assoc);
        let state = self.check.state();
        group != Some(claimed.group)
            && !state.over_guarantee(accounts, victim.assoc, &claimed.need).is_zero()
    }

    /// How many more tasks of an array may start.
    fn room(&self, array: &Array) -> u32 {
        let started = self.started_tasks.get(&array.id).copied().unwrap_or(0);
        let running = self.cluster.running_tasks(array.id).saturating_add(started);
        array.throttle().saturating_sub(running)
    }
}

fn throttled(array: &Array) -> Waiting {
    let detail = format!("{} of its tasks run, its throttle", array.throttle());
    Waiting::new(PendingReason::JobArrayTaskLimit, detail)
}

/// What the partition itself has against the job.
pub(crate) fn partition_obstacle(
    partition: &Partition,
    qos: Option<&Qos>,
    spec: &JobSpec,
    limit: Walltime,
) -> Option<Waiting> {
    let name = &partition.name;
    if !partition.state.starts_jobs() {
        let reason = match partition.state {
            PartitionState::Inactive => PendingReason::PartitionInactive,
            PartitionState::Up | PartitionState::Down | PartitionState::Drain => {
                PendingReason::PartitionDown
            }
        };
        return Some(Waiting::new(
            reason,
            format!("partition {name} is {}", partition.state.name()),
        ));
    }
    if partition.require_reservation && spec.reservation.is_empty() {
        let detail =
            format!("partition {name} is for jobs with a reservation; name one by --reservation");
        return Some(Waiting::new(PendingReason::Reservation, detail));
    }
    let bounds = bounds(partition, qos);
    let over = match (limit, bounds.max_time) {
        (_, Walltime::Unlimited) => false,
        (Walltime::Unlimited, Walltime::Limited(_)) => true,
        (Walltime::Limited(limit), Walltime::Limited(max)) => limit > max,
    };
    if over {
        let detail =
            format!("its limit is {limit}, partition {name} allows {}", partition.max_time);
        return Some(Waiting::new(PendingReason::PartitionTimeLimit, detail));
    }
    let (least, most) = (spec.shape.least_nodes(), spec.shape.most_nodes());
    let too_many = bounds.max_nodes > 0 && least > bounds.max_nodes;
    if too_many || most < bounds.min_nodes {
        let detail = format!(
            "it asks for {least} node(s), partition {name} gives {} to {}",
            partition.min_nodes, partition.max_nodes
        );
        return Some(Waiting::new(PendingReason::PartitionNodeLimit, detail));
    }
    None
}
