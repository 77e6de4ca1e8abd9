//! What does time make of reservations?
//!
//! One begins: jobs that wait for it may start. One ends: what runs in it ends too, unless it is
//! FLEX; then it is gone, or moves to its next time. One that nobody uses is purged, if it was to be.
//! Units that wait for one that is gone are held, so that somebody decides where they go.

use std::sync::Arc;

use penstock_vocab::{PendingReason, Timestamp};

use super::Cluster;
use crate::command::{Effect, Unit};
use crate::model::{EndCause, Hold, Reservation, ReservationFlag};

/// Jobs that one `Tick` ends, holds or lets go because of reservations.
const JOBS_PER_TICK: usize = 20;
/// How long one that is to be purged may be unused where nothing else was said, seconds; Slurm's.
const PURGE_SECS: u64 = 300;

impl Cluster {
    pub(super) fn tick_reservations(&mut self) {
        let all: Vec<_> = self.reservations.values().cloned().collect();
        let nodes_changed = std::mem::take(&mut self.nodes_changed);
        let mut left = JOBS_PER_TICK;
        for reservation in &all {
            if reservation.start > self.ticked && reservation.start <= self.now {
                self.effects.push(Effect::Schedule);
            }
            if nodes_changed {
                self.renew_nodes(reservation);
            }
            let Some(reservation) = self.reservations.get(&reservation.name).cloned() else {
                continue;
            };
            if reservation.end <= self.now {
                self.end_reservation(&reservation, &mut left);
            } else if reservation.has(ReservationFlag::PurgeComp) {
                self.purge_unused(&reservation);
            }
        }
        self.hold_orphans(left);
        self.ticked = self.now;
    }

    /// When reservations next have something to do.
    pub(super) fn reservations_wake(&self) -> Option<Timestamp> {
        let orphans = self.missed_reservation().map(|_| self.now);
        let by_clock = self.reservations.values().filter_map(|one| self.wakes(one));
        by_clock.chain(orphans).min()
    }

    fn wakes(&self, one: &Reservation) -> Option<Timestamp> {
        let renews = one.node_count.is_some() || one.has(ReservationFlag::PartNodes);
        if self.nodes_changed && renews {
            return Some(self.now);
        }
        let begins = Some(one.start).filter(|start| *start > self.ticked);
        let ends = Some(one.end).filter(|_| self.has_an_end(one));
        let purged = Some(one).filter(|one| one.has(ReservationFlag::PurgeComp));
        let purged = purged.and_then(|one| self.purge_wakes(one));
        begins.into_iter().chain(ends).chain(purged).min()
    }

    /// Whether its end is still to be carried out: a recurring one that knows no further time waits
    /// for whoever reckons them.
    fn has_an_end(&self, one: &Reservation) -> bool {
        !one.recurs() || !one.upcoming.is_empty() || one.end > self.now || self.has_runs(one)
    }

    /// Whether something runs in it that ends with it.
    fn has_runs(&self, one: &Reservation) -> bool {
        let ends =
            |job: &Arc<crate::model::Job>| job.active_run().is_some_and(|run| !run.is_ending());
        !one.has(ReservationFlag::Flex) && self.jobs_running_in(&one.name).any(ends)
    }

    fn end_reservation(&mut self, one: &Arc<Reservation>, left: &mut usize) {
        self.end_runs_in(one, left);
        if self.has_runs(one) {
            return;
        }
        if one.recurs() {
            if let Some(((start, end), later)) = one.upcoming.split_first() {
                let mut next = (**one).clone();
                (next.start, next.end) = (*start, *end);
                next.upcoming = later.into();
                next.idle_since = None;
                self.put_reservation(next);
            }
            return;
        }
        if one.has(ReservationFlag::NoHoldJobsAfter) {
            let waiting: Vec<_> = self.units_waiting_for(&one.name).take(*left + 1).collect();
            let done = waiting.len() <= *left;
            for unit in waiting.into_iter().take(*left) {
                self.leave_reservation(unit, false);
                *left -= 1;
            }
            if !done {
                return;
            }
        }
        self.remove_reservation(&one.name);
    }

    fn end_runs_in(&mut self, one: &Reservation, left: &mut usize) {
        if one.has(ReservationFlag::Flex) {
            return;
        }
        let running: Vec<_> = self.jobs_running_in(&one.name).cloned().collect();
        for job in running {
            let Some(run) = job.active_run().filter(|run| !run.is_ending()).cloned() else {
                continue;
            };
            if *left == 0 {
                return;
            }
            *left -= 1;
            let mut job = (*job).clone();
            // Slurm calls that a time limit too.
            self.end_run_soon(&mut job, &run, EndCause::TimeLimit);
            self.put_job(job);
        }
    }

    fn is_used(&self, one: &Reservation) -> bool {
        self.jobs_running_in(&one.name).next().is_some()
            || self.units_waiting_for(&one.name).next().is_some()
    }

    fn purge_wakes(&self, one: &Reservation) -> Option<Timestamp> {
        if one.start > self.now {
            return None;
        }
        match (self.is_used(one), one.idle_since) {
            (true, None) => None,
            (true, Some(_)) | (false, None) => Some(self.now),
            (false, Some(since)) => Some(since.plus_secs(purge_secs(one))),
        }
    }

    fn purge_unused(&mut self, one: &Arc<Reservation>) {
        if self.purge_wakes(one).is_none_or(|at| at > self.now) {
            return;
        }
        if one.idle_since.is_some() && !self.is_used(one) {
            self.remove_reservation(&one.name);
            return;
        }
        let mut new = (**one).clone();
        new.idle_since = (!self.is_used(one)).then_some(self.now);
        self.put_reservation(new);
    }

    /// Holds units that wait for reservations that are gone.
    fn hold_orphans(&mut self, mut left: usize) {
        while left > 0 {
            let Some(name) = self.missed_reservation() else { return };
            let unit = self.units_waiting_for(name).next();
            let Some(unit) = unit else { return };
            self.leave_reservation(unit, true);
            left -= 1;
        }
    }

    /// A unit no longer waits for its reservation.
    fn leave_reservation(&mut self, unit: Unit, hold: bool) {
        let reason = hold.then_some(PendingReason::ReservationDeleted);
        match unit {
            Unit::Job(id) => {
                let Some(job) = self.jobs.get(&id) else { return };
                let mut job = (**job).clone();
                Arc::make_mut(&mut job.spec).reservation = "".into();
                if hold {
                    job.hold = Hold::Admin;
                    job.reason = reason;
                }
                self.put_job(job);
            }
            Unit::Array(id) => {
                let Some(array) = self.arrays.get(&id) else { return };
                let mut array = (**array).clone();
                Arc::make_mut(&mut array.spec).reservation = "".into();
                if hold {
                    array.hold = Hold::Admin;
                    array.reason = reason;
                }
                self.put_array(array);
            }
        }
    }
}

fn purge_secs(one: &Reservation) -> u64 {
    one.purge_after.and_then(penstock_vocab::Walltime::as_secs).unwrap_or(PURGE_SECS)
}
