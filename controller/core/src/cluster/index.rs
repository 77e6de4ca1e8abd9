//! How does what is derived from the records stay true?
//!
//! The queue holds every unit that could start now but for resources: pending, not held, its
//! dependency met, its time come. Units that wait for a time are in `deferred`; those that wait for a
//! job are found from that job. Of an array's task records only counts are looked at, since there may
//! be a million of them.

use std::borrow::Cow;
use std::sync::Arc;

use fixedbitset::FixedBitSet;
use imbl::{OrdMap, OrdSet};
use penstock_vocab::{ArrayTaskId, JobId, JobState, PartitionName, Timestamp, UserId, Walltime};

use super::Cluster;
use super::accounts::Rates;
use super::budget::Budgets;
use super::dependency::DependencyState;
use super::due::{due_of_array, due_of_job};
use super::names::{Bearer, Names};
use super::reserved::Reserved;
use crate::command::{Effect, RecordKey, Unit};
use crate::model::{
    Array, AssocId, Dependency, DependencyKind, GPU, Hold, Holder, Inventory, Job, JobSpec, Node,
    NodeIndex, NodeShare, NodeUse, Run, Shape, StepKey, Term,
};
use crate::policy::limits::LimitState;

/// What a plan needs to know of a unit that waits for nothing but resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The request.
    pub spec: Arc<JobSpec>,
    /// Owner.
    pub uid: UserId,
    /// Who is charged.
    pub assoc: AssocId,
    /// When it was submitted.
    pub submit_time: Timestamp,
    /// The limit in force.
    pub time_limit: Walltime,
    /// Priority that an admin set.
    pub fixed_priority: Option<u32>,
    /// The array, where it is a task of one with a record of its own.
    pub base: Option<JobId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) queue: OrdMap<Unit, Queued>,
    pub(super) deferred: OrdSet<(Timestamp, Unit)>,
    /// The same by unit.
    pub(super) deferred_until: OrdMap<Unit, Timestamp>,
    /// Units that name a job or array in their dependency, by that id.
    pub(super) dependents: OrdMap<JobId, OrdSet<Unit>>,
    /// Job records of array tasks.
    pub(super) tasks: OrdMap<(JobId, ArrayTaskId), JobId>,
    /// What those records come to, by base id.
    pub(super) task_counts: OrdMap<JobId, TaskCounts>,
    /// When tasks started: base id, time, own id.
    pub(super) starts: OrdSet<(JobId, Timestamp, JobId)>,
    /// Units that are over, by the end.
    pub(super) over: OrdSet<(Timestamp, Unit)>,
    /// Units to cancel because their dependency can never be met and they asked for that.
    pub(super) doomed: OrdSet<Unit>,
    /// Those of `dependents` that count minutes from the start of the job named: only they need the
    /// records of an array's ended tasks.
    pub(super) timed: OrdSet<(JobId, Unit)>,
    /// When the clock does something to a unit.
    pub(super) due: OrdSet<(Timestamp, Unit)>,
    /// Runs that made room and go on by themselves, longest suspended first.
    pub(super) yielding: OrdSet<(Timestamp, JobId)>,
    /// Licences that runs have taken.
    pub(super) licenses: OrdMap<Box<str>, u64>,
    /// What is reserved, and who uses it.
    pub(super) reserved: Reserved,
    /// Who runs and waits under which name.
    pub(super) names: Names,
    /// What those who are charged use at this moment.
    pub(super) rates: Rates,
    /// What is in use, where limits look at it.
    pub(super) limits: LimitState,
    /// When to look at which budget.
    pub(super) budgets: Budgets,
    /// Steps of which some part may still run.
    pub(super) live_steps: OrdSet<StepKey>,
    /// Jobs without a script that are not over.
    pub(super) allocations: OrdSet<JobId>,
    /// Jobs of crontabs.
    pub(super) crons: OrdSet<JobId>,
    /// What the runs that hold GPUs asked for, in which partition, and how many they are.
    pub(super) running_shapes: OrdMap<(PartitionName, Arc<Shape>), u64>,
}

/// What the task records of an array come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TaskCounts {
    /// Records.
    pub(super) records: u32,
    /// Those that hold resources.
    pub(super) running: u32,
    /// Those that wait.
    pub(super) pending: u32,
    /// Those that are not over.
    pub(super) unfinished: u32,
}

/// Units that one `Tick` lets join the queue, so that it holds nobody up for long.
const RELEASED_PER_TICK: usize = 4_096;

impl Cluster {
    /// Stores a job and brings everything derived from it up to date.
    pub(super) fn put_job(&mut self, job: Job) {
        let id = job.id;
        let job = Arc::new(job);
        let old = self.jobs.insert(id, Arc::clone(&job));
        self.changed.push(RecordKey::Job(id));
        if job.spec.allocation || self.has_live_steps(id) {
            self.effects.push(Effect::Watched(id));
        }
        self.charge_for_change(old.as_ref(), Some(&job));
        if let Some(old) = &old {
            self.unindex_job(old);
        }
        self.index_job(&job);
        self.recount_job(old.as_ref(), Some(&job));
        let frees = |old: &Arc<Job>| old.active_run().is_some() && job.active_run().is_none();
        if old.as_ref().is_some_and(frees) {
            self.effects.push(Effect::Schedule);
        }
        if old.as_ref().is_none_or(|old| milestones(old) != milestones(&job)) {
            self.reconsider_dependents(&job);
        }
        self.settle_name(old.as_deref().and_then(Bearer::of_job), Bearer::of_job(&job));
    }

    /// Takes a job out.
    pub(super) fn remove_job(&mut self, id: JobId) {
        if let Some(old) = self.jobs.remove(&id) {
            self.changed.push(RecordKey::Job(id));
            self.charge_for_change(Some(&old), None);
            self.unindex_job(&old);
            self.recount_job(Some(&old), None);
            self.reconsider_dependents(&old);
            self.settle_name(Bearer::of_job(&old), None);
        }
    }

    /// Stores an array and brings everything derived from it up to date.
    pub(super) fn put_array(&mut self, array: Array) {
        let id = array.id;
        let array = Arc::new(array);
        let old = self.arrays.insert(id, Arc::clone(&array));
        self.changed.push(RecordKey::Array(id));
        if let Some(old) = &old {
            self.unindex_array(old);
        }
        self.index_array(&array);
        self.recount_array(old.as_ref(), Some(&array));
        self.reconsider(id);
        self.settle_name(old.as_deref().and_then(Bearer::of_array), Bearer::of_array(&array));
    }

    /// Takes an array out.
    pub(super) fn remove_array(&mut self, id: JobId) {
        if let Some(old) = self.arrays.remove(&id) {
            self.changed.push(RecordKey::Array(id));
            self.unindex_array(&old);
            self.recount_array(Some(&old), None);
            self.reconsider(id);
            self.settle_name(Bearer::of_array(&old), None);
        }
    }

    /// Stores a node whose place exists.
    pub(super) fn put_node(&mut self, index: NodeIndex, node: Node) {
        self.changed.push(RecordKey::Node(node.name.clone()));
        self.known_fits.clear();
        self.nodes_changed = true;
        self.set_node(index, node);
    }

    /// Like `put_node`, where only what is not stored changed.
    pub(super) fn set_node(&mut self, index: NodeIndex, node: Node) {
        if let Some(place) = self.nodes.get_mut(index.get()) {
            *place = Arc::new(node);
        }
        self.effects.push(Effect::Schedule);
    }

    /// Derives everything anew, as after a change of the configuration.
    pub(super) fn reindex(&mut self) {
        self.index = Index::default();
        self.reindex_steps();
        for place in &mut self.uses {
            *place = Arc::default();
        }
        let jobs: Vec<_> = self.jobs.values().cloned().collect();
        jobs.iter().for_each(|job| self.index_job(job));
        jobs.iter().for_each(|job| self.recount_job(None, Some(job)));
        let arrays: Vec<_> = self.arrays.values().cloned().collect();
        arrays.iter().for_each(|array| self.index_array(array));
        let reservations: Vec<_> = self.reservations.values().cloned().collect();
        reservations.iter().for_each(|reservation| self.index_reservation(reservation));
        arrays.iter().for_each(|array| self.recount_array(None, Some(array)));
        self.rewake_budgets();
        // Dependencies look at tasks and names, which are all known only now.
        let waiting: Vec<_> = self.index.dependents.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.reconsider(id));
        self.replace_singletons();
    }

    fn index_job(&mut self, job: &Arc<Job>) {
        if let Some(task) = &job.array {
            self.index.tasks.insert((task.base, task.index), job.id);
            self.index.task_counts.entry(task.base).or_default().add(job);
            self.index.starts.extend(started(job).map(|at| (task.base, at, job.id)));
            self.consider_array_over(task.base);
        }
        if let Some(run) = job.active_run() {
            self.take(job, run);
            self.add_rates(job);
        }
        self.index.due.extend(due_of_job(job).map(|at| (at, Unit::Job(job.id))));
        if job.spec.allocation && !job.is_over() {
            self.index.allocations.insert(job.id);
        }
        if job.cron.is_some() {
            self.index.crons.insert(job.id);
        }
        if job.is_over() {
            let end = job.end_time.unwrap_or(job.submit_time);
            self.index.over.insert((end, Unit::Job(job.id)));
        }
        if let Some(bearer) = Bearer::of_job(job) {
            self.index.names.insert(bearer);
        }
        if job.is_pending() {
            self.index_terms(&job.spec.dependency, Unit::Job(job.id));
            self.index_reserved_unit(&job.spec, Unit::Job(job.id));
            self.place_job(job);
        }
    }

    fn unindex_job(&mut self, job: &Arc<Job>) {
        let unit = Unit::Job(job.id);
        if let Some(task) = &job.array {
            self.index.tasks.remove(&(task.base, task.index));
            if let Some(at) = started(job) {
                self.index.starts.remove(&(task.base, at, job.id));
            }
            let mut counts = self.task_counts(task.base);
            counts.remove(job);
            if counts.records == 0 {
                self.index.task_counts.remove(&task.base);
            } else {
                self.index.task_counts.insert(task.base, counts);
            }
        }
        if let Some(run) = job.active_run() {
            self.release(job, run);
            self.remove_rates(job);
        }
        if let Some(at) = due_of_job(job) {
            self.index.due.remove(&(at, unit));
        }
        self.index.allocations.remove(&job.id);
        self.index.crons.remove(&job.id);
        let end = job.end_time.unwrap_or(job.submit_time);
        self.index.over.remove(&(end, unit));
        if let Some(bearer) = Bearer::of_job(job) {
            self.index.names.remove(&bearer);
        }
        if job.is_pending() {
            self.unindex_terms(&job.spec.dependency, unit);
            self.unindex_reserved_unit(&job.spec, unit);
            self.unplace(unit);
        }
    }

    fn index_array(&mut self, array: &Arc<Array>) {
        if array.pending.is_empty() {
            self.consider_array_over(array.id);
            return;
        }
        if let Some(bearer) = Bearer::of_array(array) {
            self.index.names.insert(bearer);
        }
        self.index.due.extend(due_of_array(array).map(|at| (at, Unit::Array(array.id))));
        self.index_terms(&array.spec.dependency, Unit::Array(array.id));
        self.index_reserved_unit(&array.spec, Unit::Array(array.id));
        self.place_array(array);
    }

    fn unindex_array(&mut self, array: &Arc<Array>) {
        let unit = Unit::Array(array.id);
        if let Some(bearer) = Bearer::of_array(array) {
            self.index.names.remove(&bearer);
        }
        if let Some(at) = due_of_array(array) {
            self.index.due.remove(&(at, unit));
        }
        if let Some(end) = array_end(array) {
            self.index.over.remove(&(end, unit));
        }
        self.index.over.remove(&(array.submit_time, unit));
        self.unindex_terms(&array.spec.dependency, unit);
        self.unindex_reserved_unit(&array.spec, unit);
        self.unplace(unit);
    }

    /// An array is over when nothing of it waits and every task record has ended.
    fn consider_array_over(&mut self, base: JobId) {
        let Some(array) = self.arrays.get(&base) else { return };
        let entry = (array_end(array).unwrap_or(array.submit_time), Unit::Array(base));
        if array.pending.is_empty() && self.task_counts(base).unfinished == 0 {
            self.index.over.insert(entry);
        } else {
            self.index.over.remove(&entry);
        }
    }

    pub(super) fn task_counts(&self, base: JobId) -> TaskCounts {
        self.index.task_counts.get(&base).copied().unwrap_or_default()
    }

    /// Job records of an array's tasks.
    pub fn tasks_of(&self, base: JobId) -> impl Iterator<Item = &Arc<Job>> {
        self.index
            .tasks
            .range((base, ArrayTaskId(0))..=(base, ArrayTaskId(u32::MAX)))
            .filter_map(|(_, id)| self.jobs.get(id))
    }

    fn index_terms(&mut self, dependency: &Dependency, unit: Unit) {
        for term in &dependency.terms {
            self.index.dependents.entry(term.job).or_default().insert(unit);
            if counts_minutes(term) {
                self.index.timed.insert((term.job, unit));
            }
        }
    }

    fn unindex_terms(&mut self, dependency: &Dependency, unit: Unit) {
        for term in &dependency.terms {
            self.index.timed.remove(&(term.job, unit));
            if let Some(units) = self.index.dependents.get_mut(&term.job) {
                units.remove(&unit);
                if units.is_empty() {
                    self.index.dependents.remove(&term.job);
                }
            }
        }
    }

    /// A job changed: units that wait for it, or for its array, may go.
    fn reconsider_dependents(&mut self, job: &Job) {
        self.reconsider(job.id);
        if let Some(task) = &job.array {
            self.reconsider(task.base);
        }
    }

    fn reconsider(&mut self, id: JobId) {
        let Some(units) = self.index.dependents.get(&id).cloned() else { return };
        for unit in units {
            self.place(unit);
        }
    }

    pub(super) fn place(&mut self, unit: Unit) {
        match unit {
            Unit::Job(id) => {
                if let Some(job) = self.jobs.get(&id).cloned().filter(|job| job.is_pending()) {
                    self.place_job(&job);
                }
            }
            Unit::Array(id) => {
                if let Some(array) = self.arrays.get(&id).cloned() {
                    self.place_array(&array);
                }
            }
        }
    }

    fn place_job(&mut self, job: &Job) {
        let state = self.job_dependency(job);
        let doomed = state == DependencyState::Never;
        let unit = Unit::Job(job.id);
        self.place_unit(unit, queued_job(job), job.hold, job.not_before, (state, doomed));
    }

    fn place_array(&mut self, array: &Array) {
        if !array.pending.is_empty() {
            let gate = self.array_gate(array);
            let state = (gate.state, gate.doomed);
            let mut hold = array.hold_in_force();
            // What its dependency lets go may be held, and what is not held may have to wait.
            let none = || self.startable_tasks(array).next().is_none();
            if gate.is_by_task() && gate.state == DependencyState::Met && none() {
                hold = hold.max(Hold::User);
            }
            let unit = Unit::Array(array.id);
            self.place_unit(unit, queued_array(array), hold, array.not_before, state);
        }
    }

    /// Puts a unit where it belongs. `state`: what its dependency says, and whether it can never be
    /// met by the unit or a task of it.
    fn place_unit(
        &mut self,
        unit: Unit,
        queued: Queued,
        hold: Hold,
        not_before: Timestamp,
        (state, never): (DependencyState, bool),
    ) {
        self.unplace(unit);
        let spec = &queued.spec;
        if never && spec.kill_on_invalid_dep {
            self.index.doomed.insert(unit);
        }
        if hold != Hold::None {
            return;
        }
        let begin = match state {
            DependencyState::Met => Timestamp(0),
            DependencyState::MetAt(at) => at,
            DependencyState::Waits | DependencyState::Never => return,
        };
        let begin = begin.max(spec.begin_time).max(not_before);
        if begin > self.now {
            self.index.deferred.insert((begin, unit));
            self.index.deferred_until.insert(unit, begin);
        } else {
            self.index.queue.insert(unit, queued);
            self.effects.push(Effect::Schedule);
        }
    }

    fn unplace(&mut self, unit: Unit) {
        self.index.queue.remove(&unit);
        self.index.doomed.remove(&unit);
        if let Some(at) = self.index.deferred_until.remove(&unit) {
            self.index.deferred.remove(&(at, unit));
        }
    }

    /// Units whose time has come join the queue; true if more remain.
    pub(super) fn release_deferred(&mut self) -> bool {
        for _ in 0..RELEASED_PER_TICK {
            match self.index.deferred.get_min().copied() {
                Some((at, unit)) if at <= self.now => self.place(unit),
                Some(_) | None => return false,
            }
        }
        true
    }

    /// When a `Tick` next has something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let begin = self.index.deferred.get_min().map(|(at, _)| *at);
        let doomed = self.index.doomed.get_min().map(|_| self.now);
        let due = self.index.due.get_min().map(|(at, _)| *at);
        begin
            .into_iter()
            .chain(doomed)
            .chain(due)
            .chain(self.cooling_ends())
            .chain(self.reshapes_wake())
            .chain(self.yielding_wakes())
            .chain(self.reservations_wake())
            .chain(self.next_budget())
            .chain(self.oldest_answer_ends())
            .min()
    }

    /// Units that could start but for resources, by number.
    pub fn queue(&self) -> impl Iterator<Item = (Unit, &Queued)> {
        self.index.queue.iter().map(|(unit, queued)| (*unit, queued))
    }

    /// The same as a map, which is cheap to keep and to compare with a later one.
    pub(crate) fn waiting_units(&self) -> &OrdMap<Unit, Queued> {
        &self.index.queue
    }

    /// What the runs that hold GPUs asked for, in which partition, and how many they are.
    pub(crate) fn running_shapes(
        &self,
    ) -> impl Iterator<Item = (&PartitionName, &Arc<Shape>, u64)> {
        self.index
            .running_shapes
            .iter()
            .map(|((partition, shape), count)| (partition, shape, *count))
    }

    /// Whether nothing waits for resources.
    #[must_use]
    pub fn queue_is_empty(&self) -> bool {
        self.index.queue.is_empty()
    }

    /// Whether this unit waits for nothing but resources.
    pub(super) fn is_queued(&self, unit: Unit) -> bool {
        self.index.queue.contains_key(&unit)
    }

    /// Takes what a run holds out of what is free.
    fn take(&mut self, job: &Job, run: &Run) {
        self.index_reserved_run(job);
        if holds_gpus(run) {
            let key = (run.partition.clone(), Arc::clone(&job.spec.shape));
            *self.index.running_shapes.entry(key).or_insert(0) += 1;
        }
        for (name, count) in &job.spec.shape.licenses {
            let taken = self.index.licenses.entry(name.clone()).or_insert(0);
            *taken = taken.saturating_add(*count);
        }
        if let Some(since) =
            run.suspended_since.filter(|_| run.yields_to.is_some() && !run.is_ending())
        {
            self.index.yielding.insert((since, job.id));
        }
        let holder = self.holder(job, run);
        for share in &run.shares {
            self.change_use(share, |used, inventory| {
                used.add(inventory, &held(run, share), holder);
                used.jobs.insert(job.id);
            });
        }
    }

    /// Gives back what a run held.
    fn release(&mut self, job: &Job, run: &Run) {
        self.unindex_reserved_run(job);
        if holds_gpus(run) {
            let key = (run.partition.clone(), Arc::clone(&job.spec.shape));
            match self.index.running_shapes.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) | None => {
                    self.index.running_shapes.remove(&key);
                }
            }
        }
        for (name, count) in &job.spec.shape.licenses {
            let left = self.licenses_in_use(name).saturating_sub(*count);
            if left == 0 {
                self.index.licenses.remove(name);
            } else {
                self.index.licenses.insert(name.clone(), left);
            }
        }
        if let Some(since) = run.suspended_since {
            self.index.yielding.remove(&(since, job.id));
        }
        let holder = self.holder(job, run);
        for share in &run.shares {
            self.change_use(share, |used, inventory| {
                used.remove(inventory, &held(run, share), holder);
                used.jobs.remove(&job.id);
            });
        }
    }

    fn change_use(&mut self, share: &NodeShare, change: impl FnOnce(&mut NodeUse, &Inventory)) {
        if let (Some(node), Some(place)) =
            (self.nodes.get(share.node.get()), self.uses.get_mut(share.node.get()))
        {
            let mut used = (**place).clone();
            change(&mut used, &node.inventory);
            *place = Arc::new(used);
        }
    }

    /// For whom a run holds its shares.
    #[must_use]
    pub(crate) fn holder(&self, job: &Job, run: &Run) -> Holder {
        let partition = self.partition(&run.partition);
        let alone = partition.is_some_and(|partition| partition.exclusive_user);
        Holder { uid: job.uid, alone: alone || job.spec.shape.exclusive_user }
    }
}

impl TaskCounts {
    fn add(&mut self, job: &Job) {
        self.records += 1;
        self.running += u32::from(job.active_run().is_some());
        self.pending += u32::from(job.is_pending());
        self.unfinished += u32::from(!job.is_over());
    }

    /// Undoes `add` of this very record.
    fn remove(&mut self, job: &Job) {
        self.records = self.records.saturating_sub(1);
        self.running = self.running.saturating_sub(u32::from(job.active_run().is_some()));
        self.pending = self.pending.saturating_sub(u32::from(job.is_pending()));
        self.unfinished = self.unfinished.saturating_sub(u32::from(!job.is_over()));
    }
}

pub(super) fn queued_job(job: &Job) -> Queued {
    Queued {
        spec: Arc::clone(&job.spec),
        uid: job.uid,
        assoc: job.assoc,
        submit_time: job.submit_time,
        time_limit: job.time_limit,
        fixed_priority: job.fixed_priority,
        base: job.array.map(|task| task.base),
    }
}

fn queued_array(array: &Array) -> Queued {
    Queued {
        spec: Arc::clone(&array.spec),
        uid: array.uid,
        assoc: array.assoc,
        submit_time: array.submit_time,
        time_limit: array.time_limit,
        fixed_priority: array.fixed_priority,
        base: None,
    }
}

fn holds_gpus(run: &Run) -> bool {
    run.shares.iter().any(|share| share.gres.iter().any(|gres| gres.name.name() == GPU))
}

pub(super) fn started(job: &Job) -> Option<Timestamp> {
    job.run.as_ref().filter(|_| !job.is_pending()).map(|run| run.start_time)
}

/// What of a job others may wait for.
fn milestones(job: &Job) -> (bool, Option<Timestamp>, bool, JobState, Option<Timestamp>) {
    let start = job.run.as_ref().map(|run| run.start_time);
    (job.is_pending(), start, job.is_over(), job.state, job.end_time)
}

fn counts_minutes(term: &Term) -> bool {
    matches!(term.kind, DependencyKind::After { minutes } if minutes > 0)
}

fn array_end(array: &Array) -> Option<Timestamp> {
    array.last_end.max(array.cancelled_at.map(|(at, _)| at))
}

/// What a share holds of its node by now: a run that stands still has no CPUs.
pub(crate) fn held<'a>(run: &Run, share: &'a NodeShare) -> Cow<'a, NodeShare> {
    if run.suspended_since.is_none() {
        return Cow::Borrowed(share);
    }
    Cow::Owned(NodeShare { cpus: FixedBitSet::new(), ..share.clone() })
}
