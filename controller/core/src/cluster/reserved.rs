//! Who may use reserved nodes, and when may others?
//!
//! A job that names a reservation runs on its nodes, while it is open; everybody else stays off them
//! if the job could still run, by its limit, when the reservation begins.

use std::sync::Arc;

use imbl::OrdSet;
use penstock_vocab::{JobId, Timestamp, UserId, Walltime};

use super::Cluster;
use crate::command::{Effect, RecordKey, Unit};
use crate::model::{
    AssocId, Job, JobSpec, NodeIndex, NodeShare, Partition, Reservation, ReservationFlag,
};
use crate::refusal::{Refusal, ReservationFault};

/// What names or holds what; derived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    /// Reservations by node.
    nodes: OrdSet<(NodeIndex, Box<str>)>,
    /// Units that wait for a reservation, by its name.
    waiting: OrdSet<(Box<str>, Unit)>,
    /// Runs in a reservation, by its name.
    running: OrdSet<(Box<str>, JobId)>,
    /// Names of reservations that units wait for and that are gone.
    gone: OrdSet<Box<str>>,
}

/// Who wants to use a reservation.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// User.
    pub uid: UserId,
    /// Association.
    pub assoc: AssocId,
    /// Account, where there are no associations.
    pub account: &'a str,
}

impl<'a> Applicant<'a> {
    /// The owner of a job.
    #[must_use]
    pub fn of(job: &'a Job) -> Self {
        Self { uid: job.uid, assoc: job.assoc, account: &job.spec.account }
    }
}

impl Cluster {
    /// Whether somebody may use a reservation: one of its users, if it names any, and charged to one
    /// of its accounts or below, if it names any; where it names who may not: neither.
    #[must_use]
    pub fn reservation_admits(&self, reservation: &Reservation, who: Applicant<'_>) -> bool {
        let user = reservation.uids.contains(&who.uid);
        let named = |account: &str| reservation.accounts.iter().any(|name| **name == *account);
        let account =
            named(who.account) || self.accounts.chain(who.assoc).any(|assoc| named(&assoc.account));
        if reservation.deny {
            return !user && !account;
        }
        (user || reservation.uids.is_empty()) && (account || reservation.accounts.is_empty())
    }

    /// Reservations that a node is part of.
    pub fn reservations_on(&self, node: NodeIndex) -> impl Iterator<Item = &Arc<Reservation>> {
        self.index
            .reserved
            .nodes
            .range((node, Box::default())..)
            .take_while(move |(found, _)| *found == node)
            .filter_map(|(_, name)| self.reservations.get(name))
    }

    /// The reservation that keeps a run from `from` to before `until` off a node, if the run is not in
    /// it; `own`: the reservation that it is in. One with MAINT or OVERLAP may lie over others.
    #[must_use]
    pub fn reservation_in_the_way(
        &self,
        node: NodeIndex,
        own: Option<&Reservation>,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<&Arc<Reservation>> {
        if own.is_some_and(lies_over) {
            return None;
        }
        self.reservations_on(node).find(|other| {
            own.is_none_or(|own| own.name != other.name) && other.overlaps(from, until)
        })
    }

    /// Jobs that run in a reservation.
    pub fn jobs_running_in(&self, name: &str) -> impl Iterator<Item = &Arc<Job>> {
        let name: Box<str> = name.into();
        self.index
            .reserved
            .running
            .range((name.clone(), JobId(0))..)
            .take_while(move |(found, _)| *found == name)
            .filter_map(|(_, id)| self.jobs.get(id))
    }

    /// Units that wait for a reservation.
    pub fn units_waiting_for(&self, name: &str) -> impl Iterator<Item = Unit> {
        let name: Box<str> = name.into();
        self.index
            .reserved
            .waiting
            .range((name.clone(), Unit::Job(JobId(0)))..)
            .take_while(move |(found, _)| *found == name)
            .map(|(_, unit)| *unit)
    }

    /// When a job's run ends at the latest, as [`Job::ends_by`] has it, and with its reservation.
    #[must_use]
    pub fn ends_by(&self, job: &Job) -> Option<Timestamp> {
        let own = self.reservations.get(&job.spec.reservation);
        let own = own.filter(|own| !own.has(ReservationFlag::Flex) && own.end > self.now);
        let with_it = own.filter(|_| job.active_run().is_some()).map(|own| own.end);
        job.ends_by(self.now).into_iter().chain(with_it).min()
    }

    /// Refuses a request for a reservation that does not exist or is for others, and one for a
    /// partition that is for reservations only.
    pub(super) fn check_reservation(
        &self,
        spec: &JobSpec,
        who: Applicant<'_>,
    ) -> Result<(), Refusal> {
        let name = &spec.reservation;
        if name.is_empty() {
            return match self.partitions_of(spec).find(|p| p.require_reservation) {
                Some(partition) => {
                    let name = &partition.name;
                    let text = format!("partition {name} is for jobs with --reservation only");
                    Err(Refusal::AccessDenied(text.into()))
                }
                None => Ok(()),
            };
        }
        let refuse =
            |fault, detail: String| Err(Refusal::Reservation { fault, detail: detail.into() });
        let Some(reservation) = self.reservations.get(name) else {
            let detail =
                format!("there is no reservation {name:?}; `scontrol show res` lists them");
            return refuse(ReservationFault::Invalid, detail);
        };
        if !self.reservation_admits(reservation, who) {
            let detail = format!("reservation {name} is not for you or your account");
            return refuse(ReservationFault::Denied, detail);
        }
        Ok(())
    }

    /// Whether a start now would break no reservation; for the recheck of a plan.
    pub(super) fn check_reserved(
        &self,
        job: (&JobSpec, Applicant<'_>),
        partition: &Partition,
        shares: &[NodeShare],
        limit: Walltime,
    ) -> Result<(), Refusal> {
        let (spec, who) = job;
        let mut until = match limit {
            Walltime::Limited(secs) => self.now.plus_secs(secs),
            Walltime::Unlimited => Timestamp(i64::MAX),
        };
        let own = if spec.reservation.is_empty() {
            None
        } else {
            let own = self.reservations.get(&spec.reservation);
            let own = own.ok_or(Refusal::StalePlan("the job's reservation is gone"))?;
            if !self.reservation_admits(own, who) {
                return Err(Refusal::StalePlan("the job's reservation is for others"));
            }
            let flex = own.has(ReservationFlag::Flex);
            let open = own.is_active(self.now) || (flex && self.now < own.end);
            if !open {
                return Err(Refusal::StalePlan("the job's reservation is not open"));
            }
            let inside = |share: &NodeShare| {
                self.reservations_on(share.node).any(|found| found.name == own.name)
            };
            let bound = !flex && !own.nodes.is_empty();
            if bound && !shares.iter().all(inside) {
                return Err(Refusal::StalePlan("a node is not of the job's reservation"));
            }
            if !flex {
                // It ends with its reservation.
                until = until.min(own.end);
            }
            Some(&**own)
        };
        if own.is_none() && partition.require_reservation {
            return Err(Refusal::StalePlan("the partition is for jobs with a reservation"));
        }
        let in_the_way =
            |share: &NodeShare| self.reservation_in_the_way(share.node, own, self.now, until);
        if shares.iter().any(|share| in_the_way(share).is_some()) {
            return Err(Refusal::StalePlan("a node is reserved for others before the job ends"));
        }
        if !self.licenses_suffice(&spec.shape, until, own) {
            return Err(Refusal::StalePlan("its licences are in use"));
        }
        Ok(())
    }

    /// Stores a reservation and brings everything derived from it up to date.
    pub(super) fn put_reservation(&mut self, reservation: Reservation) {
        let name = reservation.name.clone();
        self.changed.push(RecordKey::Reservation(name.clone()));
        if let Some(old) = self.reservations.get(&name).cloned() {
            self.unindex_reservation(&old);
        }
        let reservation = Arc::new(reservation);
        self.index_reservation(&reservation);
        self.reservations.insert(name.clone(), reservation);
        self.index.reserved.gone.remove(&name);
        self.effects.push(Effect::Schedule);
    }

    /// Takes a reservation out; units that wait for it are held by the next `Tick`s.
    pub(super) fn remove_reservation(&mut self, name: &str) {
        let Some(old) = self.reservations.remove(name) else { return };
        self.changed.push(RecordKey::Reservation(name.into()));
        self.unindex_reservation(&old);
        if self.units_waiting_for(name).next().is_some() {
            self.index.reserved.gone.insert(name.into());
        }
        self.effects.push(Effect::Schedule);
    }

    pub(super) fn index_reservation(&mut self, reservation: &Reservation) {
        for node in &reservation.nodes {
            if let Some(index) = self.node_names.get(node) {
                self.index.reserved.nodes.insert((*index, reservation.name.clone()));
            }
        }
    }

    fn unindex_reservation(&mut self, reservation: &Reservation) {
        for node in &reservation.nodes {
            if let Some(index) = self.node_names.get(node) {
                self.index.reserved.nodes.remove(&(*index, reservation.name.clone()));
            }
        }
    }

    pub(super) fn index_reserved_unit(&mut self, spec: &JobSpec, unit: Unit) {
        let name = &spec.reservation;
        if name.is_empty() {
            return;
        }
        self.index.reserved.waiting.insert((name.clone(), unit));
        if !self.reservations.contains_key(name) {
            self.index.reserved.gone.insert(name.clone());
        }
    }

    pub(super) fn unindex_reserved_unit(&mut self, spec: &JobSpec, unit: Unit) {
        let name = &spec.reservation;
        if name.is_empty() {
            return;
        }
        self.index.reserved.waiting.remove(&(name.clone(), unit));
        if self.units_waiting_for(name).next().is_none() {
            self.index.reserved.gone.remove(name);
        }
    }

    pub(super) fn index_reserved_run(&mut self, job: &Job) {
        if !job.spec.reservation.is_empty() {
            self.index.reserved.running.insert((job.spec.reservation.clone(), job.id));
        }
    }

    pub(super) fn unindex_reserved_run(&mut self, job: &Job) {
        if !job.spec.reservation.is_empty() {
            self.index.reserved.running.remove(&(job.spec.reservation.clone(), job.id));
        }
    }

    /// A reservation that is gone and that units still wait for.
    pub(super) fn missed_reservation(&self) -> Option<&str> {
        self.index.reserved.gone.get_min().map(|name| &**name)
    }
}

/// Whether it may lie over others.
pub(crate) fn lies_over(reservation: &Reservation) -> bool {
    reservation.has(ReservationFlag::Maint) || reservation.has(ReservationFlag::Overlap)
}
