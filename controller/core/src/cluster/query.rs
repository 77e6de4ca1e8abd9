//! What do readers ask of a snapshot?

use std::fmt::Write as _;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use penstock_vocab::{
    ArrayTaskId, JobId, NodeFlag, NodeState, NodeStatus, PendingReason, Timestamp, UserId,
};

use super::{Accounts, Cluster, DependencyState};
use crate::command::{RecordKey, Unit};
use crate::model::{
    Answer, Array, Config, Hold, Host, Job, JobSpec, JoinToken, Node, NodeIndex, NodeUse,
    RequestId, Reservation, ReservationFlag, RunStage,
};
use crate::policy;
use crate::scheduler::{Plan, Site};

/// Why a unit waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Slurm's word.
    pub reason: PendingReason,
    /// A sentence for people; may be empty.
    pub detail: String,
}

impl Waiting {
    pub(crate) fn new(reason: PendingReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl Cluster {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Time of the newest command.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The number that the next job gets.
    #[must_use]
    pub fn next_job_id(&self) -> u32 {
        self.next_job
    }

    /// A job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    /// All job records, by number.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    /// Job records from this number on.
    pub fn jobs_from(&self, id: JobId) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.range(id..).map(|(_, job)| job)
    }

    /// What differs between the job records of `before` and these: the old one, and the new one. Costs what
    /// differs, where one is a successor of the other.
    pub fn jobs_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Job>>, Option<&'a Arc<Job>>)> {
        before.jobs.diff(&self.jobs).map(differing)
    }

    /// The same of arrays.
    pub fn arrays_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Array>>, Option<&'a Arc<Array>>)> {
        before.arrays.diff(&self.arrays).map(differing)
    }

    /// How many job records there are.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// An array.
    #[must_use]
    pub fn array(&self, id: JobId) -> Option<&Arc<Array>> {
        self.arrays.get(&id)
    }

    /// All arrays, by base id.
    pub fn arrays(&self) -> impl Iterator<Item = &Arc<Array>> {
        self.arrays.values()
    }

    /// The job record of an array task that started or was changed.
    #[must_use]
    pub fn task(&self, base: JobId, index: ArrayTaskId) -> Option<&Arc<Job>> {
        self.index.tasks.get(&(base, index)).and_then(|id| self.jobs.get(id))
    }

    /// All nodes with what is taken on them.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &Arc<Node>, &Arc<NodeUse>)> {
        (0u32..)
            .zip(self.nodes.iter().zip(self.uses.iter()))
            .map(|(index, (node, used))| (NodeIndex(index), node, used))
    }

    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// A node with what is taken on it.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<(&Arc<Node>, &Arc<NodeUse>)> {
        Some((self.nodes.get(index.get())?, self.uses.get(index.get())?))
    }

    /// Where the nodes stand.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// The place of a node.
    #[must_use]
    pub fn node_index(&self, name: &str) -> Option<NodeIndex> {
        self.node_names.get(name).copied()
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// A host.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.get(name)
    }

    /// Accounts, users, QOS and usage.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// All reservations, by name.
    pub fn reservations(&self) -> impl Iterator<Item = &Arc<Reservation>> {
        self.reservations.values()
    }

    /// A reservation.
    #[must_use]
    pub fn reservation(&self, name: &str) -> Option<&Arc<Reservation>> {
        self.reservations.get(name)
    }

    /// All join tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<JoinToken>> {
        self.tokens.values()
    }

    /// A join token.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<&Arc<JoinToken>> {
        self.tokens.get(id)
    }

    /// A remembered answer.
    #[must_use]
    pub fn answer(&self, uid: UserId, request: RequestId) -> Option<&Arc<Answer>> {
        self.answers.get(&(uid, request))
    }

    /// Every record there is, for a checkpoint: tables in a fixed order, sorted within each.
    pub fn record_keys(&self) -> impl Iterator<Item = RecordKey> {
        std::iter::once(RecordKey::Counters)
            .chain(self.node_names.keys().cloned().map(RecordKey::Node))
            .chain(self.hosts.keys().cloned().map(RecordKey::Host))
            .chain(self.tokens.keys().cloned().map(RecordKey::Token))
            .chain(self.accounts.record_keys())
            .chain(self.reservations.keys().cloned().map(RecordKey::Reservation))
            .chain(self.crontabs.keys().copied().map(RecordKey::Crontab))
            .chain(self.jobs.keys().copied().map(RecordKey::Job))
            .chain(self.arrays.keys().copied().map(RecordKey::Array))
            .chain(self.steps.keys().copied().map(RecordKey::Step))
            .chain(self.answers.keys().map(|(uid, request)| RecordKey::Answer(*uid, *request)))
    }

    /// Units that may go to the history at `now`, oldest first.
    pub fn retirable(&self, now: Timestamp) -> impl Iterator<Item = Unit> {
        let before = now.minus_secs(u64::from(self.config.policy.min_job_age_secs));
        self.index
            .over
            .iter()
            .take_while(move |(end, _)| *end <= before)
            .map(|(_, unit)| *unit)
            .filter(move |unit| self.is_retirable(*unit, now))
    }

    pub(super) fn is_retirable(&self, unit: Unit, now: Timestamp) -> bool {
        let before = now.minus_secs(u64::from(self.config.policy.min_job_age_secs));
        let (over, base) = match unit {
            Unit::Job(id) => match self.jobs.get(&id) {
                Some(job) if job.is_over() => (job.end_time, job.array.map(|task| task.base)),
                Some(_) | None => return false,
            },
            Unit::Array(id) => match self.arrays.get(&id) {
                Some(array) if array.pending.is_empty() => {
                    if self.tasks_of(id).next().is_some() {
                        return false;
                    }
                    (array.last_end.max(array.cancelled_at.map(|(at, _)| at)), None)
                }
                Some(_) | None => return false,
            },
        };
        let named = |id: JobId| self.index.dependents.contains_key(&id);
        // The record of an array answers for its ended tasks, but for when they started.
        over.is_none_or(|end| end <= before)
            && !named(unit.id())
            && !base.is_some_and(|base| self.is_timed(base))
    }

    /// Why a unit waits: what the records say, then what the plan found.
    #[must_use]
    pub fn waiting(&self, unit: Unit, plan: &Plan) -> Option<Waiting> {
        let (spec, hold, not_before, lasting) = match unit {
            Unit::Job(id) => {
                let job = self.jobs.get(&id).filter(|job| job.is_pending())?;
                (&job.spec, job.hold, job.not_before, job.reason)
            }
            Unit::Array(id) => {
                let array = self.arrays.get(&id).filter(|array| !array.pending.is_empty())?;
                (&array.spec, array.hold_in_force(), array.not_before, array.reason)
            }
        };
        Some(
            held(hold, lasting)
                .or_else(|| self.waits_for_job(unit))
                .or_else(|| self.waits_for_time(spec, not_before))
                .or_else(|| plan.reason(unit))
                .unwrap_or_else(|| self.waits_for_turn(unit, plan)),
        )
    }

    pub(crate) fn waits_for_job(&self, unit: Unit) -> Option<Waiting> {
        match self.dependency_state(unit) {
            DependencyState::Met => None,
            DependencyState::MetAt(at) if at <= self.now => None,
            DependencyState::MetAt(_) | DependencyState::Waits => {
                let detail = format!("waits for {}", self.unmet(unit));
                Some(Waiting::new(PendingReason::Dependency, detail))
            }
            DependencyState::Never => Some(Waiting::new(
                PendingReason::DependencyNeverSatisfied,
                format!(
                    "{} can never be met; cancel it, or change it by scontrol update",
                    self.unmet(unit)
                ),
            )),
        }
    }

    /// The terms of a unit's dependency that are not met, as Slurm prints them.
    #[must_use]
    pub fn unmet(&self, unit: Unit) -> String {
        let (spec, task) = match unit {
            Unit::Job(id) => match self.jobs.get(&id) {
                Some(job) => (&job.spec, job.array.map(|task| task.index)),
                None => return String::new(),
            },
            Unit::Array(id) => match self.arrays.get(&id) {
                Some(array) => (&array.spec, None),
                None => return String::new(),
            },
        };
        let dependency = &spec.dependency;
        let mut text = String::new();
        for term in &dependency.terms {
            let state = match self.term_state(term, task) {
                DependencyState::Met => continue,
                DependencyState::MetAt(at) if at <= self.now => continue,
                DependencyState::MetAt(_) | DependencyState::Waits => "unfulfilled",
                DependencyState::Never => "failed",
            };
            if !text.is_empty() {
                text.push(if dependency.any { '?' } else { ',' });
            }
            let whole = term.task.is_none() && self.arrays.contains_key(&term.job);
            let star = if whole { "_*" } else { "" };
            // A String never fails to take text.
            let _infallible = write!(text, "{term}{star}({state})");
        }
        if dependency.singleton && self.ahead_by_name(unit).is_some() {
            if !text.is_empty() {
                text.push(if dependency.any { '?' } else { ',' });
            }
            text.push_str("singleton(unfulfilled)");
        }
        text
    }

    fn waits_for_time(&self, spec: &JobSpec, not_before: Timestamp) -> Option<Waiting> {
        let begin = spec.begin_time.max(not_before);
        (begin > self.now).then(|| Waiting::new(PendingReason::BeginTime, ""))
    }

    /// No plan said more: it waits for its turn, or for the next plan.
    fn waits_for_turn(&self, unit: Unit, plan: &Plan) -> Waiting {
        let submitted = match unit {
            Unit::Job(id) => self.jobs.get(&id).map(|job| job.submit_time),
            Unit::Array(id) => self.arrays.get(&id).map(|array| array.submit_time),
        };
        if submitted.is_some_and(|at| at > plan.made_at) || !self.is_queued(unit) {
            return Waiting::new(PendingReason::None, "");
        }
        Waiting::new(PendingReason::Priority, "waits behind a job of higher priority")
    }

    /// Priority of a unit by its own records alone; a plan knows it by all there is.
    #[must_use]
    pub fn priority_of(&self, unit: Unit) -> u32 {
        let found = match unit {
            Unit::Job(id) => {
                self.jobs.get(&id).map(|job| (job.hold, &job.spec, job.fixed_priority))
            }
            Unit::Array(id) => {
                self.arrays.get(&id).map(|array| (array.hold, &array.spec, array.fixed_priority))
            }
        };
        match found {
            Some((Hold::None, spec, fixed)) => policy::priority(&self.config, spec, fixed),
            Some((Hold::User | Hold::Admin, ..)) | None => 0,
        }
    }
}

fn differing<'a, V>(item: DiffItem<'a, 'a, JobId, V>) -> (Option<&'a V>, Option<&'a V>) {
    match item {
        DiffItem::Add(_, new) => (None, Some(new)),
        DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
        DiffItem::Remove(_, old) => (Some(old), None),
    }
}

/// What a hold says of why a unit waits.
pub(crate) fn held(hold: Hold, lasting: Option<PendingReason>) -> Option<Waiting> {
    let (reason, detail) = match hold {
        Hold::None => return None,
        Hold::User => (PendingReason::JobHeldUser, "held; `scontrol release` lets it go"),
        Hold::Admin => (PendingReason::JobHeldAdmin, "held by an admin, who alone can release it"),
    };
    Some(Waiting::new(lasting.unwrap_or(reason), detail))
}

/// A node's state as listings show it.
#[must_use]
pub fn node_status(cluster: &Cluster, node: &Node, used: &NodeUse) -> NodeStatus {
    let cpus = used.cpu_count();
    let base = match &node.down {
        Some(_) => NodeState::Down,
        None if node.registered.is_none() => NodeState::Unknown,
        None if cpus == 0 => NodeState::Idle,
        None if cpus >= node.inventory.cpus => NodeState::Allocated,
        None => NodeState::Mixed,
    };
    let completing =
        used.jobs.iter().filter_map(|id| cluster.job(*id)).any(|job| {
            job.active_run().is_some_and(|run| matches!(run.stage, RunStage::Ending(_)))
        });
    let reserved = |maint: bool| {
        cluster.node_index(node.name.as_str()).is_some_and(|index| {
            let mut open =
                cluster.reservations_on(index).filter(|one| one.is_active(cluster.now()));
            open.any(|one| one.has(ReservationFlag::Maint) == maint)
        })
    };
    let flags = [
        (reserved(true), NodeFlag::Maintenance),
        (reserved(false), NodeFlag::Reserved),
        (node.admin.drain, NodeFlag::Drain),
        (completing, NodeFlag::Completing),
        (node.session.is_none() && !node.admin.powered_down, NodeFlag::NotResponding),
        (node.admin.fail, NodeFlag::Fail),
        (node.admin.powered_down, NodeFlag::PoweredDown),
    ];
    flags
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(NodeStatus::new(base), |status, (_, flag)| status.with(flag))
}
