//! Which waiting units does what they wait for let go?
//!
//! A dependency is a list of terms of which all must hold, or one. Most terms say the same of every
//! task of an array; `aftercorr` does not, so that an array has a [`Gate`]: which of its tasks may
//! go, and whether some never can.

use std::borrow::Cow;

use penstock_vocab::{ArrayTaskId, IndexSet, JobId, JobState, Run, Timestamp};

use super::Cluster;
use super::index::started;
use crate::command::Unit;
use crate::model::{Array, Dependency, DependencyKind, Hold, Job, Term};

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

/// What the dependency of an array lets go.
pub(super) struct Gate<'a> {
    /// Of the array: the best that any of its tasks has.
    pub(super) state: DependencyState,
    /// Some task can never go.
    pub(super) doomed: bool,
    /// Tasks that may go, where that differs among them. Those of `behind` may not yet after all.
    open: Option<IndexSet>,
    /// Arrays whose tasks of the same index must have ended.
    behind: Vec<&'a Array>,
    /// Tasks that never can go, where that differs among them.
    pub(super) never: IndexSet,
}

impl Gate<'_> {
    /// Whether tasks may differ.
    pub(super) fn is_by_task(&self) -> bool {
        self.open.is_some()
    }
}

impl Cluster {
    /// Whether what a unit waits for lets it go; of an array, any of its tasks. Met where there is no
    /// such unit.
    #[must_use]
    pub fn dependency_state(&self, unit: Unit) -> DependencyState {
        match unit {
            Unit::Job(id) => {
                self.jobs.get(&id).map_or(DependencyState::Met, |job| self.job_dependency(job))
            }
            Unit::Array(id) => self
                .arrays
                .get(&id)
                .map_or(DependencyState::Met, |array| self.array_gate(array).state),
        }
    }

    pub(super) fn job_dependency(&self, job: &Job) -> DependencyState {
        let dependency = &job.spec.dependency;
        if dependency.is_empty() {
            return DependencyState::Met;
        }
        let task = job.array.map(|task| task.index);
        let terms = dependency.terms.iter().map(|term| self.term_state(term, task));
        let singleton = dependency.singleton.then(|| self.singleton_state(Unit::Job(job.id)));
        combine(dependency, terms.chain(singleton))
    }

    /// What the dependency of an array lets go. Cost: the runs of the sets of tasks.
    pub(super) fn array_gate(&self, array: &Array) -> Gate<'_> {
        let dependency = &array.spec.dependency;
        let mut gate = Gate {
            state: DependencyState::Met,
            doomed: false,
            open: None,
            behind: Vec::new(),
            never: IndexSet::new(),
        };
        if dependency.is_empty() {
            return gate;
        }
        let others: Vec<_> = dependency.terms.iter().filter_map(|term| self.twin(term)).collect();
        let alike = dependency.terms.iter().filter(|term| self.twin(term).is_none());
        let alike: Vec<_> = alike.map(|term| self.term_state(term, None)).collect();
        let singleton = dependency.singleton.then(|| self.singleton_state(Unit::Array(array.id)));
        gate.state = combine(dependency, alike.iter().copied().chain(singleton));
        if others.is_empty() {
            gate.doomed = gate.state == DependencyState::Never;
            return gate;
        }
        if dependency.any {
            self.gate_by_any(array, &others, alike.len() + usize::from(singleton.is_some()), gate)
        } else {
            self.gate_by_all(array, others, gate)
        }
    }

    /// Every array's task of the same index must have ended well, besides what `gate` says.
    fn gate_by_all<'a>(
        &'a self,
        array: &Array,
        others: Vec<&'a Array>,
        mut gate: Gate<'a>,
    ) -> Gate<'a> {
        let mut open = array.pending.clone();
        for other in &others {
            let spoilt = array.pending.intersection(&other.failed.union(&other.cancelled));
            gate.never = gate.never.union(&spoilt);
            open = open.difference(&other.pending);
        }
        open = open.difference(&gate.never);
        gate.behind = others;
        if gate.state == DependencyState::Met && self.ready(&open, &gate.behind).next().is_none() {
            let all = array.pending.is_subset(&gate.never);
            gate.state = if all { DependencyState::Never } else { DependencyState::Waits };
        }
        gate.doomed = gate.state == DependencyState::Never || !gate.never.is_empty();
        gate.open = Some(open);
        gate
    }

    /// One array's task of the same index must have ended well, unless what `gate` says of `alike`
    /// other terms holds.
    fn gate_by_any<'a>(
        &'a self,
        array: &Array,
        others: &[&'a Array],
        alike: usize,
        mut gate: Gate<'a>,
    ) -> Gate<'a> {
        if alike > 0 && gate.state == DependencyState::Met {
            return gate;
        }
        let hopeless = alike == 0 || gate.state == DependencyState::Never;
        let (mut open, mut never) = (IndexSet::new(), array.pending.clone());
        for other in others {
            let spoilt = other.failed.union(&other.cancelled);
            let ready = array.pending.difference(&other.pending).difference(&spoilt);
            // Those whose twin runs are left out here, where another array may let them go.
            let ready: IndexSet = self.ready(&ready, &[*other]).collect();
            open = open.union(&ready);
            never = never.intersection(&spoilt);
        }
        gate.never = if hopeless { never } else { IndexSet::new() };
        let all = hopeless && array.pending.is_subset(&gate.never);
        gate.state = match gate.state {
            _ if !open.is_empty() => DependencyState::Met,
            DependencyState::MetAt(at) => DependencyState::MetAt(at),
            _ if all => DependencyState::Never,
            _ => DependencyState::Waits,
        };
        gate.doomed = !gate.never.is_empty();
        gate.open = Some(open);
        gate
    }

    /// The array whose tasks are waited for one by one, where a term is of that kind.
    fn twin(&self, term: &Term) -> Option<&Array> {
        let by_task = term.kind == DependencyKind::AfterCorr && term.task.is_none();
        self.arrays.get(&term.job).filter(|_| by_task).map(|array| &**array)
    }

    /// Those of `tasks` whose twins in `behind` are not under way.
    fn ready<'a>(
        &'a self,
        tasks: &IndexSet,
        behind: &[&'a Array],
    ) -> impl Iterator<Item = u32> + use<'a> {
        let runs = tasks.ranges().to_vec();
        let bases: Vec<JobId> = behind.iter().map(|array| array.id).collect();
        let under_way = move |index: u32| {
            bases.iter().any(|base| {
                self.task(*base, ArrayTaskId(index)).is_some_and(|twin| !twin.is_over())
            })
        };
        runs.into_iter().flat_map(Run::iter).filter(move |index| !under_way(*index))
    }

    /// Waiting tasks of an array that its dependency and its holds let go, in order. The times that
    /// hold the whole array back are not looked at: ask the queue.
    pub fn startable_tasks(&self, array: &Array) -> impl Iterator<Item = u32> + use<'_> {
        let free = array.free_tasks();
        let gate = self.array_gate(array);
        let tasks = match (&gate.open, gate.state) {
            (_, DependencyState::Waits | DependencyState::Never) => Cow::Owned(IndexSet::new()),
            (Some(open), _) => Cow::Owned(open.intersection(&free)),
            (None, _) => free,
        };
        // Where being the only one is all that lets it go, the first task keeps the others back.
        let dependency = &array.spec.dependency;
        let alone = dependency.any && dependency.singleton && gate.open.is_none() && {
            let terms = dependency.terms.iter().map(|term| self.term_state(term, None));
            terms.min_by_key(|state| rank(*state)) != Some(DependencyState::Met)
        };
        self.ready(&tasks, &gate.behind).take(if alone { 1 } else { usize::MAX })
    }

    /// Whether one waiting task of an array is among [`Self::startable_tasks`].
    pub(super) fn task_is_startable(&self, array: &Array, task: u32) -> bool {
        if !array.pending.contains(task) || array.hold_of(task) != Hold::None {
            return false;
        }
        let gate = self.array_gate(array);
        match (&gate.open, gate.state) {
            (_, DependencyState::Waits | DependencyState::Never) => false,
            (None, _) => true,
            (Some(open), _) => {
                let one: IndexSet = [task].into_iter().collect();
                open.contains(task) && self.ready(&one, &gate.behind).next().is_some()
            }
        }
    }

    /// Whether one term is met for a job, which is `task` of its array. A job that is not known counts
    /// as met, as in Slurm.
    #[must_use]
    pub fn term_state(&self, term: &Term, task: Option<ArrayTaskId>) -> DependencyState {
        let by_task = term.kind == DependencyKind::AfterCorr && self.arrays.contains_key(&term.job);
        if let Some(task) = term.task.or(task.filter(|_| by_task)) {
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
        let spoiled = !array.failed.is_empty() || !array.cancelled.is_empty() || array.unlisted > 0;
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
            DependencyKind::AfterOk | DependencyKind::AfterCorr if spoiled => {
                DependencyState::Never
            }
            DependencyKind::AfterNotOk if spoiled && !unfinished => DependencyState::Met,
            _ if unfinished => DependencyState::Waits,
            DependencyKind::AfterNotOk => DependencyState::Never,
            DependencyKind::AfterAny | DependencyKind::AfterOk | DependencyKind::AfterCorr => {
                DependencyState::Met
            }
        }
    }

    /// Whether terms of a dependency on this job count minutes from its start.
    pub(super) fn is_timed(&self, job: JobId) -> bool {
        let first = (job, Unit::Job(JobId(0)));
        self.index.timed.range(first..).next().is_some_and(|(named, _)| *named == job)
    }
}

/// What the terms of a dependency come to together.
fn combine(
    dependency: &Dependency,
    states: impl Iterator<Item = DependencyState>,
) -> DependencyState {
    let found = if dependency.any {
        // The most hopeful one decides.
        states.min_by_key(|state| rank(*state))
    } else {
        states.max_by_key(|state| rank(*state))
    };
    found.unwrap_or(DependencyState::Met)
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
        DependencyKind::AfterOk | DependencyKind::AfterCorr => ok,
        DependencyKind::AfterNotOk => !ok,
    };
    if met { DependencyState::Met } else { DependencyState::Never }
}
