//! What keeps a unit back, whatever is free?
//!
//! The gates are asked twice: before nodes are chosen, and after, when it is known what the unit would
//! take. What a plan starts is counted here too, so that the next unit is judged as if it ran.

use std::collections::BTreeMap;

use penstock_vocab::{JobId, PendingReason, Walltime};

use super::queue::Entry;
use crate::cluster::{Applicant, Cluster, Waiting};
use crate::command::Unit;
use crate::model::{Array, Job, JobSpec, NodeShare, Partition, PartitionState};

/// The gates, with what the plan started so far.
pub(super) struct Gates<'a> {
    cluster: &'a Cluster,
    /// Array tasks that this plan starts.
    started_tasks: BTreeMap<JobId, u32>,
}

impl<'a> Gates<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, started_tasks: BTreeMap::new() }
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
        _entry: &Entry,
        _partition: &Partition,
        _shares: &[NodeShare],
    ) -> Result<(), Waiting> {
        Ok(())
    }

    /// Counts a start, or a place reserved.
    pub(super) fn take(&mut self, entry: &Entry, _partition: &Partition, _shares: &[NodeShare]) {
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
    pub(super) fn may_reclaim(&self, _entry: &Entry, _victim: &Job) -> bool {
        false
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
    let over = match (limit, partition.max_time) {
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
    let too_many = partition.max_nodes > 0 && least > partition.max_nodes;
    if too_many || most < partition.min_nodes {
        let detail = format!(
            "it asks for {least} node(s), partition {name} gives {} to {}",
            partition.min_nodes, partition.max_nodes
        );
        return Some(Waiting::new(PendingReason::PartitionNodeLimit, detail));
    }
    None
}
