//! What is the state of the cluster, and what does a command make of it?
//!
//! A [`Cluster`] is a value: cloning it is O(1), and a clone is the snapshot that readers take.
//! Records are changed through `put_*` alone, which keep what is derived from them (the queue, what
//! is taken on each node, who depends on whom) true; [`Cluster::check`] derives everything anew and
//! compares.

mod accounts;
mod allowance;
mod attempt;
mod blackhole;
mod budget;
mod check;
mod control;
mod counts;
mod crontab;
mod dependency;
mod drain;
mod due;
mod eligible;
mod gpu_cost;
mod gpus;
mod hold;
mod hooks;
mod host;
mod idle;
mod index;
mod lease;
mod licenses;
mod names;
mod node;
mod preempt;
mod query;
mod reservation_nodes;
mod reservations;
mod reservations_by_clock;
mod reserved;
mod reshape;
mod restore;
mod steps;
mod submit;
mod suspend;
mod tasks;
mod update;
mod variant;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use penstock_vocab::{JobId, NodeName, PartitionName, Timestamp, UserId};

use crate::command::{Caller, Command, Effect, Outcome, RecordKey, Reply, Unit};
use crate::model::{
    Answer, Array, Config, Crontab, Host, Job, JobSpec, JoinToken, Node, NodeIndex, NodeUse,
    RequestId, Reservation, Shape, Step, StepKey,
};
use crate::refusal::Refusal;
use crate::scheduler::Site;

pub use accounts::{AccountRecords, Accounts, Standing, Used};
pub use check::Broken;
pub use dependency::DependencyState;
pub use eligible::Waits;
pub use hooks::waits_for_controller;
pub use index::Queued;
pub(crate) use index::held;
pub(crate) use query::held as kept_back;
pub use query::{Waiting, node_status};
pub use reserved::Applicant;
pub(crate) use reserved::lies_over;
pub use restore::Records;
pub(crate) use submit::passes;

/// Answers that one `Tick` forgets at most.
const ANSWERS_FORGOTTEN_PER_TICK: usize = 50;

/// Records after which one `Tick` leaves the rest to the next.
const ROOM_IN_A_TICK: usize = 50;

/// The cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    config: Arc<Config>,
    now: Timestamp,
    next_job: u32,
    jobs: OrdMap<JobId, Arc<Job>>,
    arrays: OrdMap<JobId, Arc<Array>>,
    steps: OrdMap<StepKey, Arc<Step>>,
    nodes: Vector<Arc<Node>>,
    hosts: OrdMap<Box<str>, Arc<Host>>,
    tokens: OrdMap<Box<str>, Arc<JoinToken>>,
    accounts: Accounts,
    /// What was used up to then does not count; the epoch: all counts.
    usage_reset_at: Timestamp,
    reservations: OrdMap<Box<str>, Arc<Reservation>>,
    crontabs: OrdMap<UserId, Arc<Crontab>>,
    answers: OrdMap<(UserId, RequestId), Arc<Answer>>,
    /// The same, oldest first.
    answers_by_age: Vector<(UserId, RequestId)>,
    /// The newest request, to share memory with the next.
    newest_spec: Option<Arc<JobSpec>>,
    node_names: OrdMap<NodeName, NodeIndex>,
    uses: Vector<Arc<NodeUse>>,
    /// Order of the names, switches; derived.
    site: Site,
    index: index::Index,
    /// Where requests belong. Emptied whenever accounts or the configuration change.
    resolved: OrdMap<accounts::ResolvedKey, Arc<accounts::Resolved>>,
    /// Shapes that are known to fit in a partition some day, so that a thousand like jobs are not
    /// tried on every node. Emptied whenever a node or the configuration changes.
    known_fits: OrdSet<(PartitionName, Arc<Shape>)>,
    /// Nodes that get no new job for a while, by the end of it.
    cooling: OrdSet<(Timestamp, NodeIndex)>,
    /// When a reshape on which node is given up, or a GPU may be cut again.
    reshaping: OrdSet<(Timestamp, NodeIndex)>,
    /// When time last took effect.
    ticked: Timestamp,
    /// Nodes came or went since reservations last looked for others.
    nodes_changed: bool,
    /// Jobs of which a part ended, or which shall end: looked at once a command is done.
    settling: Vec<JobId>,
    changed: Vec<RecordKey>,
    effects: Vec<Effect>,
}

impl Cluster {
    /// An empty cluster under `config`.
    #[must_use]
    pub fn new(config: Arc<Config>, now: Timestamp) -> Self {
        let mut cluster = Self {
            config: Arc::new(Config::default()),
            now,
            next_job: 1,
            jobs: OrdMap::new(),
            arrays: OrdMap::new(),
            steps: OrdMap::new(),
            nodes: Vector::new(),
            hosts: OrdMap::new(),
            tokens: OrdMap::new(),
            accounts: Accounts::default(),
            usage_reset_at: Timestamp::EPOCH,
            reservations: OrdMap::new(),
            crontabs: OrdMap::new(),
            answers: OrdMap::new(),
            answers_by_age: Vector::new(),
            newest_spec: None,
            node_names: OrdMap::new(),
            uses: Vector::new(),
            site: Site::default(),
            index: index::Index::default(),
            resolved: OrdMap::new(),
            known_fits: OrdSet::new(),
            cooling: OrdSet::new(),
            reshaping: OrdSet::new(),
            ticked: now,
            nodes_changed: false,
            settling: Vec::new(),
            changed: Vec::new(),
            effects: Vec::new(),
        };
        cluster.configure(config);
        cluster.changed.clear();
        cluster.effects.clear();
        cluster
    }

    /// Applies one command at `now`. Never blocks, never fails halfway: on `Err` nothing has changed.
    ///
    /// # Errors
    /// With the reason, if the command is refused.
    pub fn execute(&mut self, now: Timestamp, command: Command) -> Result<Outcome, Refusal> {
        let mut next = self.clone();
        next.now = now.max(next.now);
        let reply = next.apply(command)?;
        let mut changed = std::mem::take(&mut next.changed);
        changed.sort_unstable();
        changed.dedup();
        let effects = once(std::mem::take(&mut next.effects));
        *self = next;
        Ok(Outcome { changed, effects, reply })
    }

    fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        if let Some(answer) = command.caller().and_then(|caller| self.remembered(caller)) {
            return Ok(answer);
        }
        let caller = command.caller().copied();
        let reply = self.dispatch(command)?;
        self.finish_ended_runs();
        self.resume_yielding();
        if let Some(Caller { uid, request: Some(request), .. }) = caller {
            let answer = Answer { at: self.now, reply: reply.clone() };
            self.answers.insert((uid, request), Arc::new(answer));
            self.answers_by_age.push_back((uid, request));
            self.changed.push(RecordKey::Answer(uid, request));
        }
        Ok(reply)
    }

    fn dispatch(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Submit(caller, submission) => self.submit(&caller, *submission),
            Command::SubmitMany(caller, submissions) => self.submit_many(&caller, submissions),
            Command::Cancel(caller, targets) => self.cancel(&caller, targets),
            Command::Signal(caller, targets, order) => self.signal(&caller, targets, order),
            Command::SetHold(caller, targets, hold) => self.set_hold(&caller, targets, hold),
            Command::Requeue { caller, targets, hold } => self.requeue(&caller, targets, hold),
            Command::UpdateJob(caller, targets, update) => {
                self.update_jobs(&caller, targets, &update)
            }
            Command::UpdateNode(caller, nodes, update) => {
                self.update_nodes(&caller, &nodes, &update)
            }
            Command::CreateToken { caller, id, secret_hash, role, uses, valid_secs } => {
                self.create_token(&caller, id, secret_hash, role, uses, valid_secs)
            }
            Command::Join { token_id, secret_hash, host, key_hash } => {
                self.join(&token_id, secret_hash, &host, key_hash)
            }
            Command::ResetHost(caller, host) => self.reset_host(&caller, &host),
            Command::RevokeHost(caller, host) => self.revoke_host(&caller, &host),
            Command::Accounts(caller, changes) => self.change_accounts(&caller, changes),
            Command::Configure(config) => Ok(self.reconfigure(config)),
            Command::Register { node, session, inventory, attempts } => {
                self.register(node, session, *inventory, attempts)
            }
            Command::Disconnected { node, session } => Ok(self.disconnected(&node, session)),
            Command::Silent { node } => self.silent(&node),
            Command::LeasesOver { node, silent_secs } => self.leases_over(&node, silent_secs),
            Command::Fenced { node } => self.fenced(&node),
            Command::Report { node, session, report } => self.report(&node, session, report),
            Command::GpuFaults { node, session, faults } => self.gpu_faults(&node, session, faults),
            Command::DrainRequested { node, session, reason } => {
                self.drain_requested(&node, session, reason)
            }
            Command::Reservation(caller, change) => self.change_reservation(&caller, change),
            Command::Suspend(caller, targets, suspend) => self.suspend(&caller, targets, suspend),
            Command::CheckpointDone(caller, job) => self.checkpoint_done(&caller, job),
            Command::SetCrontab(caller, request) => self.set_crontab(&caller, *request),
            Command::CancelCron(caller, targets) => self.cancel_cron(&caller, targets),
            Command::ExtendCron(job, times) => self.extend_cron(job, times),
            Command::ForgetRuns(job, attempt) => self.forget_runs(job, attempt),
            Command::CreateStep(caller, job, spec, ticket) => {
                self.create_step(&caller, job, spec, ticket)
            }
            Command::Release(caller, job, exit) => self.release_job(&caller, job, exit),
            Command::ControllerPrologDone { job, attempt, error } => {
                Ok(self.controller_prolog_done(job, attempt, &error))
            }
            Command::Abandoned(jobs) => self.abandoned(&jobs),
            Command::Preempt(lines) => self.preempt(lines),
            Command::Idle(lines) => self.idle(lines),
            Command::Reshape(lines) => Ok(self.reshape(lines)),
            Command::GpuLayout { node, session, gpu, gres, answers, error } => {
                self.gpu_layout(&node, session, *gpu, gres, (answers, error))
            }
            Command::Start(lines) => self.start(lines),
            Command::Tick => Ok(self.tick()),
            Command::ResetUsage => Ok(self.reset_all_usage()),
            Command::Retire(units) => Ok(self.retire(units)),
            Command::Panic => panic!("a command asked for a panic"),
        }
    }

    /// The answer that was given to this very request, if it is remembered.
    fn remembered(&self, caller: &Caller) -> Option<Reply> {
        let key = (caller.uid, caller.request?);
        let answer = self.answers.get(&key)?;
        Some(answer.reply.clone())
    }

    /// Lets time take effect: begin times that have come, jobs whose dependency can never be met or
    /// whose time is up, reservations that begin and end, answers that are old enough to forget.
    fn tick(&mut self) -> Reply {
        self.release_deferred();
        self.end_cooling();
        self.end_reshapes();
        self.end_doomed();
        // What does not fit into this commit is due at once again.
        if self.changed.len() < ROOM_IN_A_TICK {
            self.end_due();
        }
        if self.changed.len() < ROOM_IN_A_TICK {
            self.end_drained();
        }
        if self.changed.len() < ROOM_IN_A_TICK {
            self.tick_reservations();
        }
        if self.changed.len() < ROOM_IN_A_TICK {
            self.end_over_budget();
        }
        if self.changed.len() < ROOM_IN_A_TICK {
            self.forget_answers();
        }
        Reply::Done
    }

    fn forget_answers(&mut self) {
        for _ in 0..ANSWERS_FORGOTTEN_PER_TICK {
            if self.oldest_answer_ends().is_none_or(|end| end > self.now) {
                break;
            }
            if let Some(key) = self.answers_by_age.pop_front() {
                self.answers.remove(&key);
                self.changed.push(RecordKey::Answer(key.0, key.1));
            }
        }
    }

    /// When the oldest answer is old enough to be forgotten.
    fn oldest_answer_ends(&self) -> Option<Timestamp> {
        let answer = self.answers.get(self.answers_by_age.front()?)?;
        Some(answer.at.plus_secs(Answer::KEPT_SECS))
    }

    /// Forgets what is over, old enough, and not named by a dependency.
    fn retire(&mut self, units: Vec<Unit>) -> Reply {
        for unit in units {
            if !self.is_retirable(unit, self.now) {
                continue;
            }
            match unit {
                Unit::Job(id) => {
                    // A job with many steps takes several commands.
                    let room = control::MAX_CHANGES.saturating_sub(self.changed.len());
                    if self.forget_steps(id, room) {
                        self.remove_job(id);
                    }
                }
                Unit::Array(id) => self.remove_array(id),
            }
        }
        Reply::Done
    }
}

/// What has to be done is done once; whoever waits is told at the end.
fn once(effects: Vec<Effect>) -> Vec<Effect> {
    let mut last = Vec::new();
    let mut once = Vec::with_capacity(effects.len());
    for effect in effects {
        match effect {
            Effect::Schedule | Effect::Watched(_) if last.contains(&effect) => {}
            Effect::Schedule | Effect::Watched(_) => last.push(effect),
            Effect::Order(..)
            | Effect::CutHost(_)
            | Effect::Warn(_)
            | Effect::Notice { .. }
            | Effect::Reshape(..) => once.push(effect),
        }
    }
    once.extend(last);
    once
}

impl Command {
    /// Who asks, where somebody does.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Submit(caller, _)
            | Self::SubmitMany(caller, _)
            | Self::Cancel(caller, _)
            | Self::Signal(caller, _, _)
            | Self::SetHold(caller, _, _)
            | Self::Requeue { caller, .. }
            | Self::UpdateJob(caller, _, _)
            | Self::UpdateNode(caller, _, _)
            | Self::CreateToken { caller, .. }
            | Self::ResetHost(caller, _)
            | Self::RevokeHost(caller, _)
            | Self::Suspend(caller, _, _)
            | Self::Reservation(caller, _)
            | Self::CheckpointDone(caller, _)
            | Self::SetCrontab(caller, _)
            | Self::CancelCron(caller, _)
            | Self::CreateStep(caller, ..)
            | Self::Release(caller, ..)
            | Self::Accounts(caller, _) => Some(caller),
            Self::Join { .. }
            | Self::Configure(_)
            | Self::Register { .. }
            | Self::Disconnected { .. }
            | Self::Silent { .. }
            | Self::LeasesOver { .. }
            | Self::Fenced { .. }
            | Self::Report { .. }
            | Self::DrainRequested { .. }
            | Self::GpuFaults { .. }
            | Self::ExtendCron(..)
            | Self::ForgetRuns(..)
            | Self::Reshape(_)
            | Self::Idle(_)
            | Self::GpuLayout { .. }
            | Self::Start(_)
            | Self::Preempt(_)
            | Self::Abandoned(_)
            | Self::Tick
            | Self::ResetUsage
            | Self::Retire(_)
            | Self::ControllerPrologDone { .. }
            | Self::Panic => None,
        }
    }
}
