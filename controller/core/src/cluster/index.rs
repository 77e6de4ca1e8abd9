//! How does what is derived from the records stay true?
//!
//! The queue holds every unit that could start now but for resources: pending, not held, its
//! dependency met, its time come. Units that wait for a time are in `deferred`; those that wait for a
//! job are found from that job. Of an array's task records only counts are looked at, since there may
//! be a million of them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use penstock_vocab::{ArrayTaskId, JobId, JobState, Timestamp, UserId, Walltime};

use super::Cluster;
use crate::command::{Effect, RecordKey, Unit};
use crate::model::{
    Array, AssocId, Dependency, DependencyKind, Hold, Inventory, Job, JobSpec, Node, NodeIndex,
    NodeShare, NodeUse, Run, Term,
};

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

/// Whether a dependency lets a job go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyState {
    /// Met, since then where it is known.
    Met,
    /// It will be met at this time.
    MetAt(Timestamp),
    /// Not yet.
    Waits,
    /// It can never be met.
    Never,
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
        if let Some(old) = &old {
            self.unindex_job(old);
        }
        self.index_job(&job);
        let frees = |old: &Arc<Job>| old.active_run().is_some() && job.active_run().is_none();
        if old.as_ref().is_some_and(frees) {
            self.effects.push(Effect::Schedule);
        }
        if old.is_none_or(|old| milestones(&old) != milestones(&job)) {
            self.reconsider_dependents(&job);
        }
    }

    /// Takes a job out.
    pub(super) fn remove_job(&mut self, id: JobId) {
        if let Some(old) = self.jobs.remove(&id) {
            self.changed.push(RecordKey::Job(id));
            self.unindex_job(&old);
            self.reconsider_dependents(&old);
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
        self.reconsider(id);
    }

    /// Takes an array out.
    pub(super) fn remove_array(&mut self, id: JobId) {
        if let Some(old) = self.arrays.remove(&id) {
            self.changed.push(RecordKey::Array(id));
            self.unindex_array(&old);
            self.reconsider(id);
        }
    }

    /// Stores a node whose place exists.
    pub(super) fn put_node(&mut self, index: NodeIndex, node: Node) {
        self.changed.push(RecordKey::Node(node.name.clone()));
        self.known_fits.clear();
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
        for place in &mut self.uses {
            *place = Arc::default();
        }
        let jobs: Vec<_> = self.jobs.values().cloned().collect();
        jobs.iter().for_each(|job| self.index_job(job));
        let arrays: Vec<_> = self.arrays.values().cloned().collect();
        arrays.iter().for_each(|array| self.index_array(array));
        // Dependencies look at tasks, which are all known only now.
        let waiting: Vec<_> = self.index.dependents.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.reconsider(id));
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
        }
        if job.is_over() {
            let end = job.end_time.unwrap_or(job.submit_time);
            self.index.over.insert((end, Unit::Job(job.id)));
        }
        if job.is_pending() {
            self.index_terms(&job.spec.dependency, Unit::Job(job.id));
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
        }
        let end = job.end_time.unwrap_or(job.submit_time);
        self.index.over.remove(&(end, unit));
        if job.is_pending() {
            self.unindex_terms(&job.spec.dependency, unit);
            self.unplace(unit);
        }
    }

    fn index_array(&mut self, array: &Arc<Array>) {
        if array.pending.is_empty() {
            self.consider_array_over(array.id);
            return;
        }
        self.index_terms(&array.spec.dependency, Unit::Array(array.id));
        self.place_array(array);
    }

    fn unindex_array(&mut self, array: &Arc<Array>) {
        let unit = Unit::Array(array.id);
        if let Some(end) = array_end(array) {
            self.index.over.remove(&(end, unit));
        }
        self.index.over.remove(&(array.submit_time, unit));
        self.unindex_terms(&array.spec.dependency, unit);
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
        }
    }

    fn unindex_terms(&mut self, dependency: &Dependency, unit: Unit) {
        for term in &dependency.terms {
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

    fn place(&mut self, unit: Unit) {
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
        self.place_unit(Unit::Job(job.id), queued_job(job), job.hold, job.not_before);
    }

    fn place_array(&mut self, array: &Array) {
        if !array.pending.is_empty() {
            let unit = Unit::Array(array.id);
            self.place_unit(unit, queued_array(array), array.hold, array.not_before);
        }
    }

    fn place_unit(&mut self, unit: Unit, queued: Queued, hold: Hold, not_before: Timestamp) {
        self.unplace(unit);
        let spec = &queued.spec;
        let state = self.dependency_state(&spec.dependency);
        if state == DependencyState::Never && spec.kill_on_invalid_dep {
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
        begin.into_iter().chain(doomed).chain(self.oldest_answer_ends()).min()
    }

    /// Units that could start but for resources, by number.
    pub fn queue(&self) -> impl Iterator<Item = (Unit, &Queued)> {
        self.index.queue.iter().map(|(unit, queued)| (*unit, queued))
    }

    /// The same as a map, which is cheap to keep and to compare with a later one.
    pub(crate) fn waiting_units(&self) -> &OrdMap<Unit, Queued> {
        &self.index.queue
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

    /// Whether a dependency is met.
    #[must_use]
    pub fn dependency_state(&self, dependency: &Dependency) -> DependencyState {
        let states = dependency.terms.iter().map(|term| self.term_state(term));
        if dependency.is_empty() {
            DependencyState::Met
        } else if dependency.any {
            // The most hopeful one decides.
            states.min_by_key(|state| rank(*state)).unwrap_or(DependencyState::Met)
        } else {
            states.max_by_key(|state| rank(*state)).unwrap_or(DependencyState::Met)
        }
    }

    /// Whether one term is met. A job that is not known counts as met, as in Slurm.
    #[must_use]
    pub fn term_state(&self, term: &Term) -> DependencyState {
        if let Some(task) = term.task {
            return match self.index.tasks.get(&(term.job, task)).and_then(|id| self.jobs.get(id)) {
                Some(job) => job_term(term.kind, job),
                None => match self.arrays.get(&term.job) {
                    Some(array) if array.pending.contains(task.0) => DependencyState::Waits,
                    Some(array) if array.cancelled.contains(task.0) => ended_term(term.kind, false),
                    Some(array) if array.failed.contains(task.0) => ended_term(term.kind, false),
                    Some(_) => ended_term(term.kind, true),
                    None => DependencyState::Met,
                },
            };
        }
        match self.arrays.get(&term.job) {
            Some(array) => self.array_term(term.kind, array),
            None => self
                .jobs
                .get(&term.job)
                .map_or(DependencyState::Met, |job| job_term(term.kind, job)),
        }
    }

    fn array_term(&self, kind: DependencyKind, array: &Array) -> DependencyState {
        let spoiled = !array.failed.is_empty() || !array.cancelled.is_empty();
        let counts = self.task_counts(array.id);
        let not_started = !array.pending.is_empty() || counts.pending > 0;
        let unfinished = !array.pending.is_empty() || counts.unfinished > 0;
        match kind {
            DependencyKind::After { .. } if not_started => DependencyState::Waits,
            DependencyKind::After { minutes } => {
                let first = (array.id, Timestamp(i64::MIN), JobId(0));
                let last = (array.id, Timestamp(i64::MAX), JobId(u32::MAX));
                let newest = self.index.starts.range(first..=last).next_back().map(|start| start.1);
                after(newest.unwrap_or(array.submit_time), minutes)
            }
            DependencyKind::AfterOk if spoiled => DependencyState::Never,
            DependencyKind::AfterNotOk if spoiled && !unfinished => DependencyState::Met,
            _ if unfinished => DependencyState::Waits,
            DependencyKind::AfterNotOk => DependencyState::Never,
            DependencyKind::AfterAny | DependencyKind::AfterOk => DependencyState::Met,
        }
    }

    /// Takes what a run holds out of what is free.
    fn take(&mut self, job: &Job, run: &Run) {
        for share in &run.shares {
            let (Some(node), Some(place)) =
                (self.nodes.get(share.node.get()), self.uses.get_mut(share.node.get()))
            else {
                continue;
            };
            let mut used = (**place).clone();
            add_share(&mut used, &node.inventory, job, share);
            *place = Arc::new(used);
        }
    }

    /// Gives back what a run held.
    fn release(&mut self, job: &Job, run: &Run) {
        for share in &run.shares {
            let (Some(node), Some(place)) =
                (self.nodes.get(share.node.get()), self.uses.get_mut(share.node.get()))
            else {
                continue;
            };
            let mut used = (**place).clone();
            used.cpus.difference_with(&share.cpus);
            used.memory = used.memory.saturating_sub(share.memory);
            for gres in &share.gres {
                let at = node.inventory.gres.iter().position(|have| have.name == gres.name);
                let Some(units) = at.and_then(|at| used.gres.get_mut(at)) else { continue };
                for id in &gres.ids {
                    if (*id as usize) < units.len() {
                        units.set(*id as usize, false);
                    }
                }
            }
            used.jobs.remove(&job.id);
            *place = Arc::new(used);
        }
    }
}

/// Adds one share of a run to what is taken on its node.
pub(super) fn add_share(used: &mut NodeUse, inventory: &Inventory, job: &Job, share: &NodeShare) {
    used.cpus.grow(share.cpus.len());
    used.cpus.union_with(&share.cpus);
    used.memory = used.memory.saturating_add(share.memory);
    used.gres.resize_with(inventory.gres.len(), Default::default);
    for gres in &share.gres {
        let at = inventory.gres.iter().position(|have| have.name == gres.name);
        let Some(units) = at.and_then(|at| used.gres.get_mut(at)) else { continue };
        for id in &gres.ids {
            units.grow(*id as usize + 1);
            units.insert(*id as usize);
        }
    }
    used.jobs.insert(job.id);
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

fn queued_job(job: &Job) -> Queued {
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

fn started(job: &Job) -> Option<Timestamp> {
    job.run.as_ref().filter(|_| !job.is_pending()).map(|run| run.start_time)
}

/// What of a job others may wait for.
fn milestones(job: &Job) -> (bool, Option<Timestamp>, bool, JobState, Option<Timestamp>) {
    let start = job.run.as_ref().map(|run| run.start_time);
    (job.is_pending(), start, job.is_over(), job.state, job.end_time)
}

fn array_end(array: &Array) -> Option<Timestamp> {
    array.last_end.max(array.cancelled_at.map(|(at, _)| at))
}

fn rank(state: DependencyState) -> (u8, Timestamp) {
    match state {
        DependencyState::Met => (0, Timestamp(0)),
        DependencyState::MetAt(at) => (1, at),
        DependencyState::Waits => (2, Timestamp(0)),
        DependencyState::Never => (3, Timestamp(0)),
    }
}

fn after(start: Timestamp, minutes: u32) -> DependencyState {
    if minutes == 0 {
        DependencyState::Met
    } else {
        DependencyState::MetAt(start.plus_secs(u64::from(minutes) * 60))
    }
}

fn job_term(kind: DependencyKind, job: &Job) -> DependencyState {
    match kind {
        DependencyKind::After { minutes } => {
            match started(job).or_else(|| job.end_time.filter(|_| job.is_over())) {
                Some(start) => after(start, minutes),
                None => DependencyState::Waits,
            }
        }
        _ if !job.is_over() => DependencyState::Waits,
        _ => ended_term(kind, job.state == JobState::Completed),
    }
}

fn ended_term(kind: DependencyKind, ok: bool) -> DependencyState {
    let met = match kind {
        DependencyKind::After { .. } | DependencyKind::AfterAny => true,
        DependencyKind::AfterOk => ok,
        DependencyKind::AfterNotOk => !ok,
    };
    if met { DependencyState::Met } else { DependencyState::Never }
}
