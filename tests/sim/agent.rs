//! The agents: the supervisor as it is, and what stands for the daemon round it and for its machine.
//!
//! A machine keeps a spool and runs processes. Both outlive the agent; a reboot ends the processes,
//! and may lose the spool too.

use std::collections::{BTreeMap, BTreeSet};

use penstock_supervisor::ending::Ending;
use penstock_supervisor::{
    AttemptKey, Found, HostEvent, Ignored, Input, Order, Output, Recovery, RunResult,
    StorePosition, Supervisor, Welcome,
};
use penstock_vocab::{Millis, Timestamp};

use crate::convert;
use crate::cuts::{self, Board};
use crate::event::{Downward, Event, Life, Payload, Stream, Upward};
use crate::world::{Plant, Scenario, Wire, World};

const PATIENCE_MS: i64 = 20_000;

/// An agent's process.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    /// 0: it does not run.
    pub(crate) life: Life,
    lives: Life,
    pub(crate) supervisor: Option<Supervisor<Payload>>,
    pub(crate) stream: Option<Stream>,
    heard: i64,
    /// When this stream's registration was sent, on the machine's clock.
    asked: Timestamp,
    /// It is stopped; what would have happened to it waits.
    pub(crate) stopped: bool,
    pub(crate) held_up: Vec<Event>,
    tick_at: Option<i64>,
}

/// What the spool holds of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Spooled {
    Intent,
    /// Its lock is taken: no shepherd can claim it.
    Locked,
    /// A shepherd claimed it and started the process.
    Claimed,
    Ended(RunResult),
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    name: usize,
    pub(crate) on: bool,
    pub(crate) boot: Life,
    booted_at: i64,
    /// How much faster its clock goes, millionths.
    drift: i64,
    pub(crate) spool: BTreeMap<AttemptKey, Spooled>,
    tombstones: BTreeSet<AttemptKey>,
    store: Option<StorePosition>,
    pub(crate) processes: BTreeSet<AttemptKey>,
    /// Those that stand still; they end only if they are killed.
    still: BTreeSet<AttemptKey>,
    /// To be ended as soon as they start.
    doomed: BTreeSet<AttemptKey>,
    /// What the agent wrote down: leases count from here.
    pub(crate) leases_since: Option<Timestamp>,
    /// Attempts that need a lease, and how long it holds.
    pub(crate) leases: BTreeMap<AttemptKey, Millis>,
    /// Their shepherds' minds.
    pub(crate) endings: BTreeMap<AttemptKey, Ending>,
    /// Its GPUs, and who was given which slices.
    pub(crate) boards: Vec<Board>,
    pub(crate) holds: BTreeMap<AttemptKey, Vec<Box<str>>>,
}

impl Machine {
    pub(crate) fn new(name: usize, drift: i64, scenario: Scenario) -> Self {
        Self {
            name,
            on: false,
            boot: 0,
            booted_at: 0,
            drift,
            spool: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            store: None,
            processes: BTreeSet::new(),
            still: BTreeSet::new(),
            doomed: BTreeSet::new(),
            leases_since: None,
            leases: BTreeMap::new(),
            endings: BTreeMap::new(),
            boards: cuts::boards(scenario),
            holds: BTreeMap::new(),
        }
    }

    /// The clock that counts from the boot, when so much time has passed since the run began.
    pub(crate) fn boottime(&self, now: i64) -> Timestamp {
        let real = now - self.booted_at;
        Timestamp(real + real * self.drift / 1_000_000)
    }

    /// How long until that clock shows `at`.
    pub(crate) fn until(&self, now: i64, at: Timestamp) -> i64 {
        let own = (at.0 - self.boottime(now).0).max(0);
        if self.drift == 0 { own } else { own * 1_000_000 / (1_000_000 + self.drift) + 1 }
    }

    fn boot_id(&self) -> String {
        format!("machine-{}-boot-{}", self.name, self.boot)
    }

    /// Attempts that the spool has not forgotten.
    pub(crate) fn spooled(&self) -> usize {
        self.spool.len()
    }
}

impl World {
    pub(crate) fn boot(&mut self, machine: usize) {
        let place = &mut self.machines[machine];
        if place.on {
            return;
        }
        place.on = true;
        place.boot += 1;
        place.booted_at = self.now;
        self.agents[machine].lives += 1;
        let life = self.agents[machine].lives;
        self.soon(10, 2_000, Event::AgentStart(machine, life));
    }

    /// Every process is gone at once.
    pub(crate) fn power_off(&mut self, machine: usize) {
        self.stop_agent(machine);
        let wipe = self.rng.chance(400);
        let place = &mut self.machines[machine];
        place.on = false;
        place.doomed.clear();
        place.leases_since = None;
        place.endings.clear();
        let ended = std::mem::take(&mut place.processes);
        if wipe {
            place.spool.clear();
            place.tombstones.clear();
            place.store = None;
        }
        self.lose_slices(machine, wipe);
        for key in ended.into_iter().filter(|key| key.step.is_none()) {
            self.truth.insert(key, Some(false));
        }
    }

    pub(crate) fn stop_agent(&mut self, agent: usize) {
        if self.agents[agent].life != 0 {
            self.interrupt_cuts(agent);
        }
        let place = &mut self.agents[agent];
        place.life = 0;
        place.supervisor = None;
        place.stopped = false;
        place.held_up.clear();
        if let Some(stream) = place.stream.take() {
            self.cut(stream);
        }
    }

    /// The agent is killed and comes back; what it started goes on.
    pub(crate) fn restart_agent(&mut self, agent: usize, low: u64, high: u64) {
        if !self.machines[agent].on {
            return;
        }
        self.stop_agent(agent);
        self.agents[agent].lives += 1;
        let life = self.agents[agent].lives;
        self.soon(low, high, Event::AgentStart(agent, life));
    }

    pub(crate) fn start_agent(&mut self, agent: usize, life: Life) {
        if life != self.agents[agent].lives || !self.machines[agent].on {
            return;
        }
        self.find_gpus(agent, life);
        let found = self.read_spool(agent);
        let store = self.machines[agent].store.clone();
        let place = &mut self.agents[agent];
        place.life = life;
        place.supervisor = Some(Supervisor::new());
        place.tick_at = None;
        let leases = self.machines[agent].leases_since.is_some();
        self.input(agent, Input::Recovered(Recovery { found, store, leases }));
        self.soon(1, 500, Event::Connect(agent, life));
        self.after(5_000, Event::Beat(agent, life));
    }

    fn read_spool(&mut self, agent: usize) -> Vec<Found> {
        let lock_at_once = self.rng.chance(500);
        let machine = &mut self.machines[agent];
        let mut found = Vec::new();
        for (key, spooled) in &mut machine.spool {
            found.push(match spooled {
                Spooled::Intent if lock_at_once => {
                    *spooled = Spooled::Locked;
                    Found::NeverStarted(*key)
                }
                Spooled::Intent => Found::Unclaimed(*key),
                Spooled::Locked => Found::NeverStarted(*key),
                Spooled::Claimed if machine.processes.contains(key) => Found::Running(*key),
                Spooled::Claimed => {
                    // Its shepherd went down with the machine.
                    let result = RunResult { lost: true, ..RunResult::default() };
                    *spooled = Spooled::Ended(result.clone());
                    Found::Ended(*key, result)
                }
                Spooled::Ended(result) => Found::Ended(*key, result.clone()),
            });
        }
        found.extend(machine.tombstones.iter().map(|key| Found::Tombstone(*key)));
        found
    }

    pub(crate) fn lives(&self, agent: usize, life: Life) -> bool {
        life != 0 && self.agents[agent].life == life && self.machines[agent].on
    }

    pub(crate) fn connect(&mut self, agent: usize, life: Life) {
        if !self.lives(agent, life) || self.agents[agent].stream.is_some() {
            return;
        }
        if !self.controller.is_up() || self.partitioned.contains(&agent) {
            self.soon(500, 3_000, Event::Connect(agent, life));
            return;
        }
        let stream = self.next_wire;
        self.next_wire += 1;
        let controller_life = self.controller.life;
        let wire = Wire { agent, agent_life: life, controller_life, alive: true };
        self.wires.insert(stream, wire);
        let place = &mut self.agents[agent];
        place.stream = Some(stream);
        place.heard = self.now;
        place.asked = self.machines[agent].boottime(self.now);
        let reports = place.supervisor.as_ref().map(Supervisor::reports).unwrap_or_default();
        let attempts = reports.into_iter().map(convert::report).collect();
        let boot = self.machines[agent].boot_id();
        // A stream's first message is not lost, but the stream may be.
        let gpus = self.gpus_of(agent);
        let message = Upward::Register { boot, attempts, gpus };
        self.soon(1, 30, Event::Up(stream, message));
    }

    pub(crate) fn agent_hears(&mut self, stream: Stream, message: Downward) {
        // What was sent before a stream broke may come before the agent notices that it did.
        if self.scenario == Scenario::Leases || self.wire(stream).is_some() {
            self.agent_reads(stream, message);
        }
    }

    pub(crate) fn agent_reads(&mut self, stream: Stream, message: Downward) {
        let Some(wire) = self.wires.get(&stream).copied() else { return };
        let agent = wire.agent;
        if self.agents[agent].stream != Some(stream) || self.agents[agent].life != wire.agent_life {
            return;
        }
        self.agents[agent].heard = self.now;
        match message {
            Downward::Welcome(welcome) => {
                let known = self.agents[agent].supervisor.as_ref().and_then(Supervisor::session);
                // A repeated welcome is dropped by the link, which takes one a stream.
                if known != Some(welcome.session) {
                    let asked = match self.plant {
                        Plant::LeaseFromReceipt => self.machines[agent].boottime(self.now),
                        _ => self.agents[agent].asked,
                    };
                    self.input(agent, Input::Welcome(Welcome { asked, ..welcome }));
                }
            }
            Downward::Order(session, order) => {
                if let (Plant::UncheckedLaunch, Order::Launch { key, .. }) = (self.plant, &order) {
                    let boot = self.machines[agent].boot;
                    self.machines[agent].spool.insert(*key, Spooled::Intent);
                    self.soon(1, 20, Event::Claim(agent, boot, *key));
                }
                let order = match order {
                    Order::Launch { key, limit_serial, lease: Some(_), payload }
                        if self.plant == Plant::UncheckedLease =>
                    {
                        let lease = Some(Millis(u64::MAX / 4));
                        Order::Launch { key, limit_serial, lease, payload }
                    }
                    order => order,
                };
                self.input(agent, Input::Order { session, order });
            }
            Downward::Reshape(session, order) => self.cut_ordered(agent, session, order),
            Downward::Heartbeat { session, sent, sequence } => {
                let sent = match self.plant {
                    Plant::LeaseFromReceipt => self.machines[agent].boottime(self.now),
                    _ => sent,
                };
                self.input(agent, Input::Renewed { session, sent });
                self.input(agent, Input::StoreSequence { session, sequence });
            }
        }
    }

    pub(crate) fn agent_notices(&mut self, stream: Stream) {
        let Some(wire) = self.wires.get(&stream).copied() else { return };
        let agent = wire.agent;
        if self.agents[agent].stream != Some(stream) || self.agents[agent].life != wire.agent_life {
            return;
        }
        self.agents[agent].stream = None;
        self.input(agent, Input::Disconnected);
        self.soon(50, 2_000, Event::Connect(agent, wire.agent_life));
    }

    pub(crate) fn beat(&mut self, agent: usize, life: Life) {
        if !self.lives(agent, life) {
            return;
        }
        self.after(5_000, Event::Beat(agent, life));
        let Some(stream) = self.agents[agent].stream else { return };
        if self.now - self.agents[agent].heard > PATIENCE_MS {
            self.cut(stream);
            self.agent_notices(stream);
        } else {
            let sent = self.machines[agent].boottime(self.now);
            self.send_up(stream, Upward::Heartbeat(sent));
        }
    }

    pub(crate) fn agent_tick(&mut self, agent: usize, life: Life) {
        if self.lives(agent, life) {
            self.agents[agent].tick_at = None;
            self.input(agent, Input::Tick);
        }
    }

    pub(crate) fn host_event(&mut self, agent: usize, life: Life, event: HostEvent) {
        if self.lives(agent, life) {
            self.input(agent, Input::Host(event));
        }
    }

    fn input(&mut self, agent: usize, input: Input<Payload>) {
        let machine = &self.machines[agent];
        let now = machine.boottime(self.now);
        let place = &mut self.agents[agent];
        let Some(supervisor) = &mut place.supervisor else { return };
        let outputs = supervisor.handle(now, input);
        let tick = supervisor.next_tick().map(|at| self.now + machine.until(self.now, at));
        let (life, earlier) = (place.life, place.tick_at.is_none_or(|set| Some(set) > tick));
        if let Some(at) = tick.filter(|_| earlier) {
            place.tick_at = Some(at);
            self.after(at - self.now, Event::AgentTick(agent, life));
        }
        for output in outputs {
            self.output(agent, life, output);
        }
    }

    fn output(&mut self, agent: usize, life: Life, output: Output<Payload>) {
        let machine = &mut self.machines[agent];
        match output {
            Output::Renew(since) => machine.leases_since = Some(since),
            Output::Start(key, Payload { lease, slices }) => {
                machine.leases.extend(lease.map(|lease| (key, lease)));
                if self.plant == Plant::UncheckedLaunch {
                    return;
                }
                if machine.spool.insert(key, Spooled::Intent).is_some() {
                    self.fail(format!("attempt {key} is started twice on one machine"));
                }
                if self.grant(agent, life, key, &slices) {
                    self.soon(1, 10, Event::Fork(agent, life, key));
                }
            }
            Output::TakeLock(key) => self.soon(1, 10, Event::TakeLock(agent, life, key)),
            Output::Terminate { key, kill_wait_secs, .. } => {
                if machine.processes.contains(&key) {
                    let boot = machine.boot;
                    let most = u64::from(kill_wait_secs) * 1_000 + 50;
                    self.soon(1, most, Event::KillLands(agent, boot, key));
                } else if machine.spool.get(&key) == Some(&Spooled::Intent) {
                    machine.doomed.insert(key);
                }
            }
            Output::Forget(key) => {
                machine.spool.remove(&key);
                machine.leases.remove(&key);
                if machine.processes.contains(&key) {
                    self.fail(format!("attempt {key} is forgotten while it runs"));
                }
            }
            Output::WriteTombstone(key) => {
                machine.tombstones.insert(key);
            }
            Output::RemoveTombstone(key) => {
                machine.tombstones.remove(&key);
            }
            Output::PersistStore(store) => machine.store = Some(store),
            Output::Report(session, report) => self.tell(agent, Upward::Report(session, report)),
            Output::Drain(session, reason) => self.tell(agent, Upward::Drain(session, reason)),
            Output::Withheld { why, .. } => self.fail(format!("the store is not trusted: {why}")),
            Output::Ignored { why: Ignored::StartedTooLate, key } => {
                self.fail(format!("{key:?} was started after it had been given up"));
            }
            Output::Suspend(key, true) => {
                machine.still.insert(key);
            }
            Output::Suspend(key, false) => {
                machine.still.remove(&key);
            }
            Output::Ignored { .. } | Output::Signal(..) | Output::SetLimit(..) => {}
        }
    }

    pub(crate) fn tell(&mut self, agent: usize, message: Upward) {
        if let Some(stream) = self.agents[agent].stream {
            self.send_up(stream, message);
        }
    }

    /// The agent forks a shepherd, which outlives it.
    pub(crate) fn fork(&mut self, agent: usize, life: Life, key: AttemptKey) {
        if !self.lives(agent, life) {
            return;
        }
        if self.rng.chance(15) {
            let node_fault = self.rng.chance(300);
            let error = "no such directory".to_owned();
            let launch_error = error.clone();
            let result = RunResult { launch_error, node_fault, ..RunResult::default() };
            self.machines[agent].spool.insert(key, Spooled::Ended(result));
            let event = HostEvent::StartFailed { key, error, node_fault };
            self.soon(1, 30, Event::Host(agent, life, event));
            return;
        }
        let boot = self.machines[agent].boot;
        self.soon(1, 30, Event::Claim(agent, boot, key));
    }

    pub(crate) fn take_lock(&mut self, agent: usize, life: Life, key: AttemptKey) {
        if !self.lives(agent, life) {
            return;
        }
        let event = match self.machines[agent].spool.get_mut(&key) {
            Some(intent @ Spooled::Intent) => {
                *intent = Spooled::Locked;
                HostEvent::LockTaken(key)
            }
            Some(Spooled::Locked) => HostEvent::LockTaken(key),
            Some(Spooled::Claimed) => HostEvent::Started(key),
            Some(Spooled::Ended(result)) => HostEvent::Ended(key, result.clone()),
            None => return,
        };
        self.soon(0, 5, Event::Host(agent, life, event));
    }

    /// A shepherd claims its attempt and starts the process.
    pub(crate) fn claim(&mut self, at: usize, boot: Life, key: AttemptKey) {
        let machine = &mut self.machines[at];
        if !machine.on || machine.boot != boot || machine.spool.get(&key) != Some(&Spooled::Intent)
        {
            return;
        }
        if self.lease_is_over(at, key) {
            return;
        }
        let machine = &mut self.machines[at];
        machine.spool.insert(key, Spooled::Claimed);
        let doomed = machine.doomed.remove(&key);
        self.process_starts(at, key);
        self.shepherd_begins(at, key);
        let long = match self.scenario {
            Scenario::Plain | Scenario::Shared | Scenario::Steps | Scenario::Cuts => 200,
            Scenario::Leases => 700,
        };
        let most = if self.rng.chance(long) { 60_000 } else { 4_000 };
        self.soon(5, most, Event::ProcessEnds(at, boot, key));
        if doomed {
            self.soon(1, 5_000, Event::KillLands(at, boot, key));
        }
        let life = self.agents[at].life;
        self.soon(0, 5, Event::Host(at, life, HostEvent::Started(key)));
    }

    fn process_starts(&mut self, at: usize, key: AttemptKey) {
        self.stats.processes += 1;
        self.stats.parts += u64::from(key.step.is_some());
        let again = match key.step {
            None => self.truth.insert(key, None).is_some(),
            Some(_) => !self.parts.insert((at, key)),
        };
        if again {
            self.fail(format!("attempt {key} was started twice"));
        }
        let elsewhere = self
            .machines
            .iter()
            .find_map(|other| other.processes.iter().find(|running| clash(**running, key)));
        if let Some(running) = elsewhere {
            self.fail(format!("job {} runs twice at once: {running} and {key}", key.job));
        }
        self.check_slices(at, key);
        self.machines[at].processes.insert(key);
    }

    pub(crate) fn process_ends(&mut self, at: usize, boot: Life, key: AttemptKey, killed: bool) {
        let machine = &mut self.machines[at];
        if !machine.on || machine.boot != boot || !machine.processes.contains(&key) {
            return;
        }
        if !killed && machine.still.contains(&key) {
            self.after(2_000, Event::ProcessEnds(at, boot, key));
            return;
        }
        machine.processes.remove(&key);
        machine.still.remove(&key);
        let dice = if killed { 0 } else { self.rng.below(100) };
        let mut result = RunResult::default();
        match dice {
            0 if killed => result.wait_status = 15,
            0..15 => result.wait_status = 1 << 8,
            15..20 => result.out_of_memory = true,
            20..25 => result.time_limit = true,
            25..28 => result.lost = true,
            28 => result.unkillable = true,
            _ => {}
        }
        if let Some(ending) = self.machines[at].endings.remove(&key) {
            result.fenced = ending.fenced();
            self.stats.fenced += u64::from(ending.fenced());
        }
        if key.step.is_none() {
            self.truth.insert(key, Some(result.wait_status == 0 && dice >= 28));
        }
        self.machines[at].spool.insert(key, Spooled::Ended(result.clone()));
        let life = self.agents[at].life;
        self.soon(0, 20, Event::Host(at, life, HostEvent::Ended(key, result)));
    }
}

/// Whether two processes may not run at once: of one job, and not parts of one attempt.
fn clash(one: AttemptKey, other: AttemptKey) -> bool {
    let scripts = one.step.is_none() && other.step.is_none();
    one.job == other.job && (one.attempt != other.attempt || scripts)
}
