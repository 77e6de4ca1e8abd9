//! The agents: the supervisor as it is, and what stands for the daemon round it and for its machine.
//!
//! A machine keeps a spool and runs processes. Both outlive the agent; a reboot ends the processes,
//! and may lose the spool too.

use std::collections::{BTreeMap, BTreeSet};

use penstock_supervisor::{
    AttemptKey, Found, HostEvent, Ignored, Input, Order, Output, Recovery, RunResult,
    StorePosition, Supervisor,
};
use penstock_vocab::Timestamp;

use crate::convert;
use crate::event::{Downward, Event, Life, Payload, Stream, Upward};
use crate::world::{Plant, Wire, World};

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
    tick_at: Option<i64>,
}

/// What the spool holds of an attempt.
#[derive(Debug, Clone, PartialEq)]
enum Spooled {
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
    spool: BTreeMap<AttemptKey, Spooled>,
    tombstones: BTreeSet<AttemptKey>,
    store: Option<StorePosition>,
    pub(crate) processes: BTreeSet<AttemptKey>,
    /// To be ended as soon as they start.
    doomed: BTreeSet<AttemptKey>,
}

impl Machine {
    pub(crate) fn new(name: usize) -> Self {
        Self {
            name,
            on: false,
            boot: 0,
            booted_at: 0,
            spool: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            store: None,
            processes: BTreeSet::new(),
            doomed: BTreeSet::new(),
        }
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
        let ended = std::mem::take(&mut place.processes);
        if wipe {
            place.spool.clear();
            place.tombstones.clear();
            place.store = None;
        }
        for key in ended {
            self.truth.insert(key, Some(false));
        }
    }

    pub(crate) fn stop_agent(&mut self, agent: usize) {
        let place = &mut self.agents[agent];
        place.life = 0;
        place.supervisor = None;
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
        let found = self.read_spool(agent);
        let store = self.machines[agent].store.clone();
        let place = &mut self.agents[agent];
        place.life = life;
        place.supervisor = Some(Supervisor::new());
        place.tick_at = None;
        self.input(agent, Input::Recovered(Recovery { found, store }));
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

    fn lives(&self, agent: usize, life: Life) -> bool {
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
        let reports = place.supervisor.as_ref().map(Supervisor::reports).unwrap_or_default();
        let attempts = reports.into_iter().map(convert::report).collect();
        let boot = self.machines[agent].boot_id();
        // A stream's first message is not lost, but the stream may be.
        let message = Upward::Register { boot, attempts };
        self.soon(1, 30, Event::Up(stream, message));
    }

    pub(crate) fn agent_hears(&mut self, stream: Stream, message: Downward) {
        let Some(wire) = self.wire(stream) else { return };
        let agent = wire.agent;
        self.agents[agent].heard = self.now;
        match message {
            Downward::Welcome(welcome) => {
                let known = self.agents[agent].supervisor.as_ref().and_then(Supervisor::session);
                // A repeated welcome is dropped by the link, which takes one a stream.
                if known != Some(welcome.session) {
                    self.input(agent, Input::Welcome(welcome));
                }
            }
            Downward::Order(session, order) => {
                if let (Plant::UncheckedLaunch, Order::Launch { key, .. }) = (self.plant, &order) {
                    let boot = self.machines[agent].boot;
                    self.machines[agent].spool.insert(*key, Spooled::Intent);
                    self.soon(1, 20, Event::Claim(agent, boot, *key));
                }
                self.input(agent, Input::Order { session, order });
            }
            Downward::Heartbeat { session, sequence } => {
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
            self.send_up(stream, Upward::Heartbeat);
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
        let booted_at = self.machines[agent].booted_at;
        let now = Timestamp(self.now - booted_at);
        let place = &mut self.agents[agent];
        let Some(supervisor) = &mut place.supervisor else { return };
        let outputs = supervisor.handle(now, input);
        let tick = supervisor.next_tick().map(|at| (at.0 + booted_at).max(self.now));
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
            Output::Start(key, Payload) => {
                if self.plant == Plant::UncheckedLaunch {
                    return;
                }
                if machine.spool.insert(key, Spooled::Intent).is_some() {
                    self.fail(format!("attempt {key} is started twice on one machine"));
                }
                self.soon(1, 10, Event::Fork(agent, life, key));
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
            Output::Ignored { .. }
            | Output::Signal(..)
            | Output::SetLimit(..)
            | Output::Suspend(..) => {}
        }
    }

    fn tell(&mut self, agent: usize, message: Upward) {
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
        machine.spool.insert(key, Spooled::Claimed);
        let doomed = machine.doomed.remove(&key);
        self.process_starts(at, key);
        let most = if self.rng.chance(200) { 60_000 } else { 4_000 };
        self.soon(5, most, Event::ProcessEnds(at, boot, key));
        if doomed {
            self.soon(1, 5_000, Event::KillLands(at, boot, key));
        }
        let life = self.agents[at].life;
        self.soon(0, 5, Event::Host(at, life, HostEvent::Started(key)));
    }

    fn process_starts(&mut self, at: usize, key: AttemptKey) {
        self.stats.processes += 1;
        if self.truth.insert(key, None).is_some() {
            self.fail(format!("attempt {key} was started twice"));
        }
        let elsewhere = self
            .machines
            .iter()
            .find_map(|other| other.processes.iter().find(|running| running.job == key.job));
        if let Some(running) = elsewhere {
            self.fail(format!("job {} runs twice at once: {running} and {key}", key.job));
        }
        self.machines[at].processes.insert(key);
    }

    pub(crate) fn process_ends(&mut self, at: usize, boot: Life, key: AttemptKey, killed: bool) {
        let machine = &mut self.machines[at];
        if !machine.on || machine.boot != boot || !machine.processes.remove(&key) {
            return;
        }
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
        self.truth.insert(key, Some(result.wait_status == 0 && dice >= 28));
        self.machines[at].spool.insert(key, Spooled::Ended(result.clone()));
        let life = self.agents[at].life;
        self.soon(0, 20, Event::Host(at, life, HostEvent::Ended(key, result)));
    }
}
