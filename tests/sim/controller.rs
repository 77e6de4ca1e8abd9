//! The controller: the core and the ledger as they are, and the thinnest glue that stands for the
//! daemon's writer, links, planner and upkeep.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_controller::convert::record;
use penstock_controller::store::{Batch, Store, StoreError, Term};
use penstock_core::cluster::Cluster;
use penstock_core::command::{
    AttemptPhase, MAX_STARTS, MAX_TARGETS, Order, PreemptLine, StartLine, Unit,
};
use penstock_core::ledger::{Answer, Commit, CommitLimits, Ledger, Published};
use penstock_core::model::{
    Config, Inventory, MigConfig, NodeIndex, Partition, Policy, Scheduling,
};
use penstock_core::scheduler::{Limits, plan};
use penstock_core::{Command, Effect, Reply};
use penstock_supervisor::{StoreId, StorePosition, Welcome};
use penstock_vocab::{NodeName, PartitionName, SessionId, Timestamp};

use crate::convert;
use crate::cuts;
use crate::event::{Downward, Event, Life, Stream, Upward};
use crate::shared;
use crate::world::{AGENTS, Plant, Scenario, World};

const NODE_TIMEOUT_SECS: u32 = 12;
/// With wait and margin just below the timeout where leases are held.
const LEASE_SECS: u32 = 24;
const LEASE_TIMEOUT_SECS: u32 = 40;
const PATIENCE_MS: i64 = 15_000;

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub(crate) enum Waiter {
    Client(usize),
    Register(usize, Stream),
    Starts,
    Nobody,
}

/// One agent's stream, as the controller sees it.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    session: SessionId,
    heard: i64,
    /// Registered: messages pass in both directions.
    ready: bool,
    outbox: Vec<Downward>,
    inbox: Vec<Upward>,
}

/// The controller's process, and its clock.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    pub(crate) life: Life,
    pub(crate) offset_ms: i64,
    ledger: Option<Ledger<Waiter>>,
    term: Option<Term>,
    started: Timestamp,
    links: BTreeMap<usize, Link>,
    lost: BTreeMap<usize, Timestamp>,
    last_session: u64,
    commit_due: bool,
    plan_due: bool,
}

pub(crate) fn node_name(agent: usize) -> NodeName {
    NodeName::new(&format!("n{agent}")).expect("a name")
}

fn node_timeout_secs(scenario: Scenario) -> u32 {
    match scenario {
        Scenario::Plain | Scenario::Shared | Scenario::Steps | Scenario::Cuts => NODE_TIMEOUT_SECS,
        Scenario::Leases => LEASE_TIMEOUT_SECS,
    }
}

fn agent_of(name: &NodeName) -> usize {
    name.as_str()[1..].parse().expect("made by node_name")
}

/// The cluster file.
pub(crate) fn config(scenario: Scenario) -> Config {
    let name = |name| PartitionName::new(name).expect("a name");
    let mut main = Partition::new(name("main"));
    main.is_default = true;
    let mut high = Partition::new(name("high"));
    high.priority_tier = 5;
    let leases = scenario == Scenario::Leases;
    (main.fence_self, high.fence_self) = (leases, leases);
    let policy = Policy {
        node_timeout_secs: node_timeout_secs(scenario),
        kill_wait_secs: convert::KILL_WAIT_SECS,
        fence_lease_secs: LEASE_SECS,
        min_job_age_secs: 20,
        requeue_delay_secs: 3,
        ..Policy::default()
    };
    let scheduling = match scenario {
        Scenario::Plain | Scenario::Leases | Scenario::Steps | Scenario::Cuts => {
            Scheduling::default()
        }
        Scenario::Shared => shared::scheduling(),
    };
    let partitions = vec![main, high];
    let mig = if scenario == Scenario::Cuts { cuts::config() } else { MigConfig::default() };
    Config { cluster: "sim".into(), policy, scheduling, partitions, mig, ..Config::default() }
}

impl Controller {
    pub(crate) fn is_up(&self) -> bool {
        self.ledger.is_some()
    }

    /// The newest durable state, while the controller runs.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.ledger.as_ref().map(Ledger::durable)
    }
}

impl World {
    /// The process is gone, at whatever point it was.
    pub(crate) fn kill_controller(&mut self) {
        if !self.controller.is_up() {
            return;
        }
        self.stats.controller_kills += 1;
        self.controller.ledger = None;
        self.controller.links.clear();
        self.store.crash();
        let streams: Vec<_> = self.wires.keys().copied().collect();
        for stream in streams {
            self.cut(stream);
        }
        let most = if self.in_chaos() { 20_000 } else { 200 };
        self.soon(100, most, Event::ControllerStart);
    }

    pub(crate) fn start_controller(&mut self) {
        if self.controller.is_up() {
            return;
        }
        // The wall clock may have been set meanwhile.
        if self.in_chaos() && self.controller.life > 0 && self.rng.chance(300) {
            // Ahead only by less than answers are remembered.
            let back = if self.rng.chance(100) { 3_000_000 } else { 20_000 };
            let jump = i64::try_from(self.rng.below(back + 20_000)).expect("small");
            self.controller.offset_ms += jump - i64::try_from(back).expect("small");
        }
        let mut loader = record::Loader::new();
        let loaded = self.store.load(&mut |key, value| {
            loader.take(&key, &value).expect("what was stored can be read");
            Ok(())
        });
        let revision = loaded.expect("the store is open");
        let term = self.store.acquire("simulation").expect("the store is open");
        let now = self.wall();
        let cluster = Cluster::restore(loader.finish(), Arc::clone(&self.config), now);
        self.check_cluster(&cluster, "after a restart");
        let controller = &mut self.controller;
        controller.life += 1;
        controller.term = Some(term);
        controller.started = now;
        controller.links.clear();
        controller.lost.clear();
        controller.last_session = 0;
        controller.commit_due = false;
        controller.plan_due = false;
        controller.ledger = Some(Ledger::new(cluster, revision.0, 10_000));
        let life = controller.life;
        self.after(200, Event::Upkeep(life));
        self.want_plan();
    }

    /// Puts a command into the queue.
    pub(crate) fn push(&mut self, waiter: Waiter, command: Command) {
        let Some(ledger) = &mut self.controller.ledger else { return };
        ledger.push(waiter, command).expect("the queue is long enough");
        if !self.controller.commit_due {
            self.controller.commit_due = true;
            let life = self.controller.life;
            self.soon(0, 8, Event::Commit(life));
        }
    }

    pub(crate) fn commit(&mut self, life: Life) {
        if life != self.controller.life || !self.controller.is_up() {
            return;
        }
        self.controller.commit_due = false;
        let limits = CommitLimits { records: 19_800, commands: 64 };
        let now = self.wall();
        while let Some(ledger) = &mut self.controller.ledger
            && let Some(commit) = ledger.begin(now, limits)
        {
            self.stats.commits += 1;
            if self.plant == Plant::EarlyAnswer {
                let published = ledger.finish();
                self.publish(published);
                if self.make_durable(&commit).is_err() {
                    self.kill_controller();
                }
                continue;
            }
            // Killed before anything was written, or right after.
            let (before, behind) = (self.rng.chance(3), self.rng.chance(3));
            if before && self.in_chaos() {
                self.kill_controller();
                return;
            }
            match self.make_durable(&commit) {
                Ok(()) if behind && self.in_chaos() => {
                    self.kill_controller();
                    return;
                }
                Ok(()) => self.finish(),
                Err(StoreError::Unavailable(_)) => {
                    if let Some(ledger) = &mut self.controller.ledger {
                        // Nobody is answered but with UNAVAILABLE; clients try again.
                        drop(ledger.abort(!commit.changed.is_empty()));
                    }
                    self.links_after_abort();
                }
                Err(_) => self.kill_controller(),
            }
        }
    }

    fn make_durable(&mut self, commit: &Commit) -> Result<(), StoreError> {
        if commit.changed.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for key in &commit.changed {
            match record::value(&commit.cluster, key) {
                Some(value) => batch.put(record::key(key), value),
                None => batch.delete(record::key(key)),
            }
        }
        let term = self.controller.term.expect("a controller that runs has acquired the store");
        let result = self.store.commit(term, &batch);
        match result {
            Ok(revision) if revision.0 == commit.sequence => Ok(()),
            Ok(revision) => {
                self.fail(format!("store at {revision:?}, ledger at {}", commit.sequence));
                Ok(())
            }
            Err(error) => {
                self.stats.store_errors += 1;
                Err(error)
            }
        }
    }

    fn finish(&mut self) {
        let Some(ledger) = &mut self.controller.ledger else { return };
        let published = ledger.finish();
        self.publish(published);
    }

    fn publish(&mut self, published: Published<Waiter>) {
        let Published { snapshot, sequence: _, effects, answers } = published;
        self.check_cluster(&snapshot, "after a commit");
        for effect in effects {
            match effect {
                Effect::Order(node, order) => self.send_order(&snapshot, node, &order),
                Effect::CutHost(host) => {
                    let agent = agent_of(&NodeName::new(&host).expect("a node's name"));
                    if let Some(link) = self.controller.links.get(&agent) {
                        self.cut(link.stream);
                    }
                }
                Effect::Reshape(node, gpu) => {
                    let name = snapshot.node(node).map(|(node, _)| agent_of(&node.name));
                    name.into_iter().for_each(|agent| self.send_cut(&snapshot, agent, gpu));
                }
                Effect::Watched(_) | Effect::Warn(_) | Effect::Notice { .. } => {}
                Effect::Schedule => self.want_plan(),
            }
        }
        for (waiter, answer) in answers {
            self.give_answer(waiter, answer);
        }
    }

    fn send_order(&mut self, cluster: &Cluster, node: NodeIndex, order: &Order) {
        let Some((node, _)) = cluster.node(node) else { return };
        let agent = agent_of(&node.name);
        if let Some(order) = convert::order(cluster, order) {
            self.pass_on(agent, |session| Downward::Order(session, order));
        }
    }

    fn give_answer(&mut self, waiter: Waiter, answer: Answer) {
        if let Answer::Panicked(message) = &answer {
            self.fail(format!("a command panicked: {message}"));
        }
        match waiter {
            Waiter::Client(operation) => {
                if !(self.in_chaos() && self.rng.chance(80)) {
                    self.soon(1, 30, Event::Answered(operation, answer));
                }
            }
            Waiter::Register(agent, stream) => self.registered(agent, stream, &answer),
            Waiter::Starts => {
                if matches!(answer, Answer::Done(Reply::Started { refused: 1.., .. })) {
                    self.want_plan();
                }
            }
            Waiter::Nobody => {}
        }
    }

    pub(crate) fn pass_on(&mut self, agent: usize, message: impl FnOnce(SessionId) -> Downward) {
        let Some(link) = self.controller.links.get_mut(&agent) else { return };
        let message = message(link.session);
        if link.ready {
            let stream = link.stream;
            self.send_down(stream, message);
        } else {
            link.outbox.push(message);
        }
    }

    pub(crate) fn controller_hears(&mut self, stream: Stream, message: Upward) {
        let Some(wire) = self.wire(stream) else { return };
        let now = self.now;
        match self.controller.links.get_mut(&wire.agent).filter(|link| link.stream == stream) {
            Some(link) => {
                link.heard = now;
                if link.ready {
                    self.take_in(wire.agent, message);
                } else {
                    link.inbox.push(message);
                }
            }
            None => {
                if let Upward::Register { boot, attempts, gpus } = message {
                    self.open_link(wire.agent, stream, cuts::inventory(&boot, gpus), attempts);
                }
            }
        }
    }

    fn open_link(
        &mut self,
        agent: usize,
        stream: Stream,
        inventory: Inventory,
        attempts: Vec<penstock_core::command::AttemptReport>,
    ) {
        let least = u64::try_from(self.wall().0).expect("after 1970") * 1000;
        let controller = &mut self.controller;
        controller.last_session = (controller.last_session + 1).max(least);
        let session = SessionId(controller.last_session);
        let sequence = controller.ledger.as_ref().map_or(0, Ledger::sequence);
        let link = Link {
            stream,
            session,
            heard: self.now,
            ready: false,
            outbox: Vec::new(),
            inbox: Vec::new(),
        };
        let older = controller.links.insert(agent, link);
        controller.lost.remove(&agent);
        if let Some(older) = older {
            self.cut(older.stream);
            let (node, session) = (node_name(agent), older.session);
            self.push(Waiter::Nobody, Command::Disconnected { node, session });
        }
        // Of a commit in flight nothing is promised yet.
        let store = StorePosition { id: StoreId::new(b"sim"), sequence };
        // The agent knows by itself when it asked.
        let asked = Timestamp::EPOCH;
        let welcome = Welcome { session, store, asked, fresh: true };
        self.send_down(stream, Downward::Welcome(welcome));
        let inventory = Box::new(inventory);
        let command = Command::Register { node: node_name(agent), session, inventory, attempts };
        self.push(Waiter::Register(agent, stream), command);
    }

    fn registered(&mut self, agent: usize, stream: Stream, answer: &Answer) {
        let Some(link) = self.controller.links.get_mut(&agent).filter(|link| link.stream == stream)
        else {
            return;
        };
        if matches!(answer, Answer::Refused(_)) {
            self.controller.links.remove(&agent);
            self.cut(stream);
            return;
        }
        link.ready = true;
        let (outbox, inbox) = (std::mem::take(&mut link.outbox), std::mem::take(&mut link.inbox));
        for message in outbox {
            self.send_down(stream, message);
        }
        for message in inbox {
            self.take_in(agent, message);
        }
    }

    /// A registration that was not stored is an error to the agent, which comes again.
    fn links_after_abort(&mut self) {
        let waiting: Vec<_> =
            self.controller.links.iter().filter(|(_, link)| !link.ready).collect();
        let waiting: Vec<_> =
            waiting.into_iter().map(|(agent, link)| (*agent, link.stream)).collect();
        let now = self.wall();
        for (agent, stream) in waiting {
            self.controller.links.remove(&agent);
            self.controller.lost.insert(agent, now);
            self.cut(stream);
        }
        self.want_plan();
    }

    fn take_in(&mut self, agent: usize, message: Upward) {
        let Some(link) = self.controller.links.get(&agent) else { return };
        let (node, session, stream) = (node_name(agent), link.session, link.stream);
        match message {
            Upward::Report(said, report) if said == session => {
                let mut report = convert::report(report);
                if self.plant == Plant::EndedTooSoon && report.step.is_some() {
                    report.phase = AttemptPhase::Ended(Box::default());
                }
                self.push(Waiter::Nobody, Command::Report { node, session, report });
            }
            Upward::Drain(said, reason) if said == session => {
                let reason = reason.into();
                self.push(Waiter::Nobody, Command::DrainRequested { node, session, reason });
            }
            Upward::Layout(said, gpu, answers, error) if said == session => {
                let error = error.into();
                let gres = self.counts_with(agent, &gpu);
                self.push(
                    Waiter::Nobody,
                    Command::GpuLayout { node, session, gpu, gres, answers, error },
                );
            }
            Upward::Heartbeat(sent) => {
                let sequence = self.controller.ledger.as_ref().map_or(0, Ledger::sequence);
                self.send_down(stream, Downward::Heartbeat { session, sent, sequence });
            }
            Upward::Report(..)
            | Upward::Drain(..)
            | Upward::Layout(..)
            | Upward::Register { .. } => {}
        }
    }

    pub(crate) fn link_ends(&mut self, stream: Stream) {
        let Some(wire) = self.wires.get(&stream).copied() else { return };
        if wire.controller_life != self.controller.life || !self.controller.is_up() {
            return;
        }
        let now = self.wall();
        let links = &mut self.controller.links;
        let Some(link) = links.get(&wire.agent).filter(|link| link.stream == stream) else {
            return;
        };
        let (node, session) = (node_name(wire.agent), link.session);
        links.remove(&wire.agent);
        self.controller.lost.insert(wire.agent, now);
        self.push(Waiter::Nobody, Command::Disconnected { node, session });
    }

    fn want_plan(&mut self) {
        if !self.controller.plan_due {
            self.controller.plan_due = true;
            let life = self.controller.life;
            self.soon(0, 15, Event::Plan(life));
        }
    }

    pub(crate) fn make_plan(&mut self, life: Life) {
        if life != self.controller.life {
            return;
        }
        self.controller.plan_due = false;
        let now = self.wall();
        let Some(cluster) = self.controller.cluster() else { return };
        let seen = self.lifted(cluster).seen(cluster, now);
        let made = plan(&seen, now, Limits { tried: 100, starts: 20 });
        if made.cut && !made.starts.is_empty() {
            self.want_plan();
        }
        for lines in made.starts.chunks(MAX_STARTS.min(8)) {
            self.soon(0, 60, Event::Starts(life, lines.to_vec()));
        }
        for lines in made.reshapes.chunks(MAX_TARGETS) {
            self.soon(0, 60, Event::Reshapes(life, lines.to_vec()));
        }
        for lines in made.preempt.chunks(MAX_TARGETS) {
            self.soon(0, 60, Event::Preempts(life, lines.to_vec()));
        }
    }

    pub(crate) fn send_starts(&mut self, life: Life, lines: Vec<StartLine>) {
        if life != self.controller.life {
            return;
        }
        let lifted = self.controller.cluster().map(|cluster| self.lifted(cluster));
        for command in lifted.unwrap_or_default().around(Command::Start(lines)) {
            let starts = matches!(command, Command::Start(_));
            self.push(if starts { Waiter::Starts } else { Waiter::Nobody }, command);
        }
    }

    pub(crate) fn send_preempts(&mut self, life: Life, lines: Vec<PreemptLine>) {
        if life == self.controller.life {
            self.push(Waiter::Nobody, Command::Preempt(lines));
        }
    }

    pub(crate) fn upkeep(&mut self, life: Life) {
        if life != self.controller.life || !self.controller.is_up() {
            return;
        }
        self.after(if self.in_chaos() { 700 } else { 2_000 }, Event::Upkeep(life));
        self.push(Waiter::Nobody, Command::Tick);
        let now = self.wall();
        let silent: Vec<_> = self
            .controller
            .links
            .values()
            .filter(|link| self.now - link.heard > PATIENCE_MS)
            .map(|link| link.stream)
            .collect();
        for stream in silent {
            self.cut(stream);
            self.link_ends(stream);
        }
        self.silence_nodes(now);
        self.repeat_orders(now);
        self.retire(now);
    }

    fn silence_nodes(&mut self, now: Timestamp) {
        let Some(cluster) = self.controller.cluster().cloned() else { return };
        for agent in 0..AGENTS {
            let Ok((index, node)) = cluster.node_by_name(&node_name(agent)) else { continue };
            let gone = node.registered.is_some()
                && node.down.is_none()
                && node.session.is_none()
                && !node.admin.powered_down
                && !self.controller.links.contains_key(&agent);
            let since =
                self.controller.lost.get(&agent).copied().unwrap_or(self.controller.started);
            let silent_secs = now.since(since).as_secs();
            if !self.controller.links.contains_key(&agent)
                && cluster.has_lease_over(index, silent_secs)
            {
                self.stats.leases_over += 1;
                let node = node_name(agent);
                self.push(Waiter::Nobody, Command::LeasesOver { node, silent_secs });
            }
            if !gone || silent_secs < u64::from(node_timeout_secs(self.scenario)) {
                continue;
            }
            self.stats.silenced += 1;
            self.push(Waiter::Nobody, Command::Silent { node: node_name(agent) });
            if self.plant == Plant::SilentRequeue {
                self.push(Waiter::Nobody, Command::Fenced { node: node_name(agent) });
            }
        }
    }

    /// Says again what nobody answered.
    fn repeat_orders(&mut self, now: Timestamp) {
        let Some(cluster) = self.controller.cluster().cloned() else { return };
        for (node, order) in cluster.overdue_orders(now, 15) {
            self.send_order(&cluster, node, &order);
        }
    }

    /// Ended jobs go to the history, then from the live records.
    fn retire(&mut self, now: Timestamp) {
        let Some(cluster) = self.controller.cluster().cloned() else { return };
        let units: Vec<Unit> = cluster.retirable(now).take(MAX_TARGETS).collect();
        if units.is_empty() {
            return;
        }
        for unit in &units {
            let job = match unit {
                Unit::Job(id) => cluster.job(*id).cloned(),
                Unit::Array(_) => None,
            };
            if let Some(job) = &job {
                self.check_ended(job);
            }
            self.history.insert(*unit, job);
        }
        self.push(Waiter::Nobody, Command::Retire(units));
    }
}
