//! Since when could a unit have started, had there been room?
//!
//! Age counts from there, as Slurm's accrual does: not while a job is held, waits for another or for
//! its begin time. The answer is derived from the records alone.

use std::sync::Arc;

use penstock_vocab::{Timestamp, Tres, Walltime};

use super::{Cluster, DependencyState};
use crate::command::Unit;
use crate::model::{AssocId, Dependency, DependencyKind, Hold, JobSpec, Partition, Term};
use crate::policy::{add_gres, billing};

/// What a waiting unit is, job or array alike.
#[derive(Debug, Clone, Copy)]
pub struct Waits<'a> {
    /// The request.
    pub spec: &'a Arc<JobSpec>,
    /// Who is charged.
    pub assoc: AssocId,
    /// Who holds it.
    pub hold: Hold,
    /// Priority that an admin set.
    pub fixed_priority: Option<u32>,
    /// When it was submitted.
    pub submit_time: Timestamp,
    /// Not before this time, whatever the request says.
    pub not_before: Timestamp,
    /// The limit in force.
    pub time_limit: Walltime,
}

impl Cluster {
    /// A unit that waits, or waits in part; `None` for all others.
    #[must_use]
    pub fn waits(&self, unit: Unit) -> Option<Waits<'_>> {
        match unit {
            Unit::Job(id) => self.jobs.get(&id).filter(|job| job.is_pending()).map(|job| Waits {
                spec: &job.spec,
                assoc: job.assoc,
                hold: job.hold,
                fixed_priority: job.fixed_priority,
                submit_time: job.submit_time,
                not_before: job.not_before,
                time_limit: job.time_limit,
            }),
            Unit::Array(id) => {
                let array = self.arrays.get(&id).filter(|array| !array.pending.is_empty());
                array.map(|array| Waits {
                    spec: &array.spec,
                    assoc: array.assoc,
                    hold: array.hold,
                    fixed_priority: array.fixed_priority,
                    submit_time: array.submit_time,
                    not_before: array.not_before,
                    time_limit: array.time_limit,
                })
            }
        }
    }

    /// When a waiting unit became eligible: the latest of submission, begin time, the end of a delay
    /// or hold, and the instant at which its dependency was met. May lie ahead where one of them
    /// does; a unit whose dependency is not met is eligible from now on.
    #[must_use]
    pub fn eligible_time(&self, unit: Unit) -> Option<Timestamp> {
        let waits = self.waits(unit)?;
        let times = waits.submit_time.max(waits.spec.begin_time).max(waits.not_before);
        Some(times.max(self.dependency_met(&waits.spec.dependency)))
    }

    /// When a dependency was, or will be, met: the epoch where there is none or the other jobs are
    /// forgotten, now where it is not met.
    pub(super) fn dependency_met(&self, dependency: &Dependency) -> Timestamp {
        if dependency.is_empty() {
            return Timestamp::EPOCH;
        }
        let times = dependency.terms.iter().map(|term| match self.term_state(term) {
            DependencyState::Met => self.term_met(term),
            DependencyState::MetAt(at) => at,
            DependencyState::Waits | DependencyState::Never => self.now,
        });
        let time = if dependency.any { times.min() } else { times.max() };
        time.unwrap_or(Timestamp::EPOCH)
    }

    /// When a term that is met came to be so.
    fn term_met(&self, term: &Term) -> Timestamp {
        let job = match term.task {
            Some(task) => self.task(term.job, task),
            None => self.jobs.get(&term.job).filter(|_| !self.arrays.contains_key(&term.job)),
        };
        let array = self.arrays.get(&term.job);
        let of_array =
            || array.and_then(|array| array.last_end.max(array.cancelled_at.map(|c| c.0)));
        let start = || job.and_then(|job| job.run.as_ref()).map(|run| run.start_time);
        let time = if matches!(term.kind, DependencyKind::After { .. }) {
            start().or_else(|| job.and_then(|job| job.end_time))
        } else {
            job.and_then(|job| job.end_time)
        };
        time.or_else(of_array).unwrap_or(Timestamp::EPOCH)
    }

    /// What the nodes of a partition have together; its billing is what all of it would cost.
    #[must_use]
    pub fn partition_tres(&self, partition: &Partition) -> Tres {
        let mut total = Tres::default();
        let named = partition.nodes.as_ref();
        let places = named.map(|names| names.iter().filter_map(|name| self.node_names.get(name)));
        let mut add = |node: &crate::model::Node| {
            let has = &node.inventory;
            total.node += 1;
            total.cpu = total.cpu.saturating_add(u64::from(has.cpus));
            total.mem = total.mem.saturating_add(has.memory);
            for gres in &has.gres {
                add_gres(&mut total, &gres.name, gres.count);
            }
        };
        match places {
            Some(places) => {
                places.filter_map(|at| self.nodes.get(at.get())).for_each(|node| add(node));
            }
            None => self.nodes.iter().for_each(|node| add(node)),
        }
        for (name, count) in &self.config.scheduling.licenses {
            total.licenses.insert(name.clone(), *count);
        }
        total.billing = billing(&self.config, &partition.name, &total);
        total
    }
}
