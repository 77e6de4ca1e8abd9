//! Which job of a user and name comes first?
//!
//! `--dependency=singleton` lets a job go once no other of its user and name runs and none that was
//! submitted before it waits. Of all that wait under one name only the first can go, so a change
//! touches two of them at most, however many there are.

use imbl::OrdSet;
use penstock_vocab::{JobId, UserId};

use super::Cluster;
use super::dependency::DependencyState;
use crate::command::Unit;
use crate::model::{Array, Job, JobSpec};

/// Who runs and who waits under which name. Names are kept as their hash: whoever looks compares the
/// names themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    waiting: OrdSet<(Name, JobId, Unit)>,
    running: OrdSet<(Name, JobId)>,
}

/// A user and the hash of a job's name.
type Name = (UserId, u64);

/// A unit under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bearer {
    name: Name,
    unit: Unit,
    /// Place in the order of submission; `None`: it runs.
    order: Option<JobId>,
}

impl Bearer {
    /// A job that is not over; one that is over is in nobody's way.
    pub(super) fn of_job(job: &Job) -> Option<Self> {
        let name = (job.uid, hash(&job.spec.name));
        let unit = Unit::Job(job.id);
        if job.active_run().is_some() {
            return Some(Self { name, unit, order: None });
        }
        let order = job.array.map_or(job.id, |task| task.base);
        job.is_pending().then_some(Self { name, unit, order: Some(order) })
    }

    /// The waiting tasks of an array.
    pub(super) fn of_array(array: &Array) -> Option<Self> {
        let name = (array.uid, hash(&array.spec.name));
        let unit = Unit::Array(array.id);
        (!array.pending.is_empty()).then_some(Self { name, unit, order: Some(array.id) })
    }
}

impl Names {
    pub(super) fn insert(&mut self, bearer: Bearer) {
        match bearer.order {
            Some(order) => drop(self.waiting.insert((bearer.name, order, bearer.unit))),
            None => drop(self.running.insert((bearer.name, bearer.unit.id()))),
        }
    }

    pub(super) fn remove(&mut self, bearer: &Bearer) {
        match bearer.order {
            Some(order) => drop(self.waiting.remove(&(bearer.name, order, bearer.unit))),
            None => drop(self.running.remove(&(bearer.name, bearer.unit.id()))),
        }
    }

    fn waiting_under(&self, name: Name) -> impl Iterator<Item = (JobId, Unit)> {
        self.waiting
            .range((name, JobId(0), Unit::Job(JobId(0)))..)
            .take_while(move |(found, _, _)| *found == name)
            .map(|(_, order, unit)| (*order, *unit))
    }

    fn running_under(&self, name: Name) -> impl Iterator<Item = JobId> {
        self.running
            .range((name, JobId(0))..)
            .take_while(move |(found, _)| *found == name)
            .map(|(_, job)| *job)
    }
}

impl Cluster {
    pub(super) fn singleton_state(&self, unit: Unit) -> DependencyState {
        match self.ahead_by_name(unit) {
            Some(_) => DependencyState::Waits,
            None => DependencyState::Met,
        }
    }

    /// Another job of the same user and name that runs, or waits and was submitted earlier.
    #[must_use]
    pub fn ahead_by_name(&self, unit: Unit) -> Option<JobId> {
        let (bearer, spec) = self.bearer(unit)?;
        let order = (bearer.order?, unit);
        let same = |other: Unit| other != unit && self.bears(other, &spec.name);
        let running = self.index.names.running_under(bearer.name).map(Unit::Job).find(|o| same(*o));
        let waiting = || {
            let earlier = self.index.names.waiting_under(bearer.name).take_while(|at| *at < order);
            earlier.map(|(_, other)| other).find(|other| same(*other))
        };
        running.or_else(waiting).map(Unit::id)
    }

    /// Units of the same user and name that wait and were submitted earlier.
    pub(super) fn earlier_by_name(&self, unit: Unit) -> impl Iterator<Item = Unit> {
        let at = self.bearer(unit).and_then(|(bearer, _)| Some((bearer.name, bearer.order?)));
        at.into_iter().flat_map(move |(name, order)| {
            let waiting = self.index.names.waiting_under(name);
            waiting.take_while(move |place| *place < (order, unit)).map(|(_, other)| other)
        })
    }

    fn bearer(&self, unit: Unit) -> Option<(Bearer, &JobSpec)> {
        match unit {
            Unit::Job(id) => {
                self.jobs.get(&id).and_then(|job| Some((Bearer::of_job(job)?, &*job.spec)))
            }
            Unit::Array(id) => self
                .arrays
                .get(&id)
                .and_then(|array| Some((Bearer::of_array(array)?, &*array.spec))),
        }
    }

    fn bears(&self, unit: Unit, name: &str) -> bool {
        self.bearer(unit).is_some_and(|(_, spec)| *spec.name == *name)
    }

    /// A unit changed what it is under its name: the first that wait there are placed anew.
    pub(super) fn settle_name(&mut self, old: Option<Bearer>, new: Option<Bearer>) {
        if old == new {
            return;
        }
        let (old, new) = (old.map(|bearer| bearer.name), new.map(|bearer| bearer.name));
        for name in old.into_iter().chain(new.filter(|new| Some(*new) != old)) {
            self.place_first(name);
        }
    }

    /// The first under a name may go now; the second is the one that might have until now. A user who
    /// makes two names of one hash only makes the own jobs wait for the next change among them.
    fn place_first(&mut self, name: Name) {
        let first = self.index.names.waiting_under(name).take(2).map(|(_, unit)| unit);
        for unit in first.collect::<Vec<_>>() {
            if self.bearer(unit).is_some_and(|(_, spec)| spec.dependency.singleton) {
                self.place(unit);
            }
        }
    }

    /// Places all that wait for their turn under a name.
    pub(super) fn replace_singletons(&mut self) {
        let waiting: Vec<Unit> = self.index.names.waiting.iter().map(|entry| entry.2).collect();
        for unit in waiting {
            if self.bearer(unit).is_some_and(|(_, spec)| spec.dependency.singleton) {
                self.place(unit);
            }
        }
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): small, and the same on every machine.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
