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
use crate::policy::limits::{Check, LimitState, bounds};

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
        partitions: &[&Partition],
    ) -> Result<(), Waiting> {
        let mut first = None;
        for partition in partitions {
            match self.limits_in(entry, partition) {
                Ok(()) => return Ok(()),
                Err(waiting) => first = Some(first.unwrap_or(waiting)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// The limit that keeps a unit from a partition, as far as that is known before nodes are chosen.
    pub(super) fn limits_in(&self, entry: &Entry, partition: &Partition) -> Result<(), Waiting> {
        let Some(claim) = self.cluster.claim(entry.unit, &partition.name) else { return Ok(()) };
        self.check.before(&claim)?;
        let spec = &entry.queued.spec;
        // Whole nodes are more than was asked for, and may be enough where that is too little.
        if spec.shape.exclusive || partition.exclusive {
            return Ok(());
        }
        let least = policy::least_tres(spec, Some(partition));
        self.check.after(&claim, &least, &Tres::default())
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

    /// What keeps a unit from taking this.
    pub(super) fn after(
        &self,
        entry: &Entry,
        partition: &Partition,
        shares: &[NodeShare],
    ) -> Result<(), Waiting> {
        let Some(claim) = self.cluster.claim(entry.unit, &partition.name) else { return Ok(()) };
        let (tres, node) = self.cluster.amounts(&partition.name, shares, &entry.queued.spec);
        self.check.after(&claim, &tres, &node)
    }

    /// Counts a start.
    pub(super) fn take(&mut self, entry: &Entry, partition: &Partition, shares: &[NodeShare]) {
        if let Some(claim) = self.cluster.claim(entry.unit, &partition.name) {
            let (tres, _) = self.cluster.amounts(&partition.name, shares, &entry.queued.spec);
            self.check.take(&claim, &tres);
        }
        let base = match entry.unit {
            Unit::Array(id) => Some(id),
            Unit::Job(_) => entry.queued.base,
        };
        if let Some(base) = base {
            *self.started_tasks.entry(base).or_insert(0) += 1;
        }
    }

    /// Whether a unit may take back from a running job what its account is guaranteed and the job's
    /// account borrowed.
    pub(super) fn may_reclaim(&self, entry: &Entry, victim: &Job) -> bool {
        let (accounts, state) = (self.cluster.accounts(), self.check.state());
        let (own, other) = (entry.queued.assoc, victim.assoc);
        let group = |assoc| LimitState::guaranteed_level(accounts, assoc);
        if group(own).is_none() || group(own) == group(other) {
            return false;
        }
        let need = policy::least_tres(&entry.queued.spec, None);
        state.under_guarantee(accounts, own, &need)
            && !state.over_guarantee(accounts, other, &need).is_zero()
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
