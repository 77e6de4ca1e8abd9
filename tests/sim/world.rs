//! Who is there, and what time is it?
//!
//! One controller, five agents on five machines, some clients, and a list of what happens when. All
//! dice are thrown from one seed, so that a seed is a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_controller::store::{MemFaults, MemStore};
use penstock_core::command::Unit;
use penstock_core::model::{Config, Job};
use penstock_supervisor::AttemptKey;
use penstock_vocab::{JobId, NodeName, Timestamp};

use crate::agent::{Agent, Machine};
use crate::client::Operation;
use crate::controller::Controller;
use crate::event::{Downward, Event, Life, Stream, Upward};
use crate::rng::Rng;
use crate::rules::Seen;

/// Machines, and agents.
pub(crate) const AGENTS: usize = 5;
/// Wall time at which a run begins.
pub(crate) const EPOCH_MS: i64 = 1_700_000_000_000;
/// Longest time after the last fault until every job must be over.
const LONGEST_RECOVERY_MS: i64 = 6_000_000;

/// A bug that the glue is told to have, to prove that the checkers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// Answers go out before the commit is durable.
    EarlyAnswer,
    /// The agent starts whatever it is told to launch.
    UncheckedLaunch,
    /// The jobs of a silent node are taken for ended.
    SilentRequeue,
    /// Leases count from when an answer comes, not from when what it answers was sent.
    LeaseFromReceipt,
    /// A shepherd that was begun late does not look at its lease before it starts the job, and the
    /// agent none before it starts the shepherd.
    UncheckedLease,
    /// Jobs are planned and started as if the capped QOS were not.
    UncheckedLimit,
    /// The same, as if there were no reservation that begins later.
    UncheckedReservation,
    /// What an account was charged is forgotten on the way.
    ForgottenUsage,
    /// A step's part is taken for ended as soon as it runs.
    EndedTooSoon,
    /// An agent cuts a GPU by whatever order comes, of whatever generation.
    UncheckedCut,
}

/// What the cluster file says, and what goes wrong beside the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Nodes keep their jobs however long they are silent.
    Plain,
    /// Nodes that are cut off end their jobs, which then run elsewhere. Agents are stopped for a
    /// while and go on, messages come very late, and clocks go at different rates.
    Leases,
    /// Users share it by accounts, limits, reservations and preemption, and jobs are suspended.
    Shared,
    /// Jobs get steps, and some have no script.
    Steps,
    /// Jobs ask for slices of GPUs, which are cut for them.
    Cuts,
}

/// One end of the wire to an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) agent: usize,
    pub(crate) agent_life: Life,
    pub(crate) controller_life: Life,
    pub(crate) alive: bool,
}

/// The simulated world.
pub(crate) struct World {
    pub(crate) plant: Plant,
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    /// Milliseconds since the run began.
    pub(crate) now: i64,
    queue: BTreeMap<(i64, u64), Event>,
    next_event: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) controller: Controller,
    pub(crate) store: MemStore,
    /// Ended jobs whose history is durable.
    pub(crate) history: BTreeMap<Unit, Option<Arc<Job>>>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) wires: BTreeMap<Stream, Wire>,
    pub(crate) next_wire: Stream,
    pub(crate) partitioned: BTreeSet<usize>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) healed: Option<i64>,
    /// Attempts whose process was ever started, and whether it ended well.
    pub(crate) truth: BTreeMap<AttemptKey, Option<bool>>,
    /// Parts of steps whose process was ever started, by machine.
    pub(crate) parts: BTreeSet<(usize, AttemptKey)>,
    /// Cuts that were ever stored before they were ordered: node, GPU, generation.
    pub(crate) intents: BTreeSet<(NodeName, u32, u64)>,
    /// How many tasks of each array held resources at the last check, and how many might.
    pub(crate) running: BTreeMap<JobId, (u32, u32)>,
    /// What the checks of a shared cluster remember.
    pub(crate) seen: Seen,
    pub(crate) stats: Stats,
    pub(crate) wrong: Option<String>,
    trace: bool,
}

/// What a run came to, to see that it was not an idle one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) events: u64,
    pub(crate) commits: u64,
    pub(crate) controller_kills: u64,
    pub(crate) agent_kills: u64,
    pub(crate) reboots: u64,
    pub(crate) partitions: u64,
    pub(crate) processes: u64,
    pub(crate) requeues: u64,
    pub(crate) store_errors: u64,
    pub(crate) completed: u64,
    pub(crate) silenced: u64,
    pub(crate) stops: u64,
    /// Jobs that a node ended by itself, and runs that counted as ended for it.
    pub(crate) fenced: u64,
    pub(crate) leases_over: u64,
    /// Runs that made room for others, or stood still.
    pub(crate) preempted: u64,
    pub(crate) suspended: u64,
    /// How often a limit was reached, and starts in reservations.
    pub(crate) at_limit: u64,
    pub(crate) reserved: u64,
    /// Runs of the simulation at whose end usage was added up.
    pub(crate) added_up: u64,
    /// Parts of steps that ran.
    pub(crate) parts: u64,
    /// GPUs that were cut, cuts that the driver refused, launches whose slices were others by then.
    pub(crate) cuts: u64,
    pub(crate) cuts_refused: u64,
    pub(crate) launches_stale: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.commits += other.commits;
        self.controller_kills += other.controller_kills;
        self.agent_kills += other.agent_kills;
        self.reboots += other.reboots;
        self.partitions += other.partitions;
        self.processes += other.processes;
        self.requeues += other.requeues;
        self.store_errors += other.store_errors;
        self.completed += other.completed;
        self.silenced += other.silenced;
        self.stops += other.stops;
        self.fenced += other.fenced;
        self.leases_over += other.leases_over;
        self.preempted += other.preempted;
        self.suspended += other.suspended;
        self.at_limit += other.at_limit;
        self.reserved += other.reserved;
        self.added_up += other.added_up;
        self.parts += other.parts;
        self.cuts += other.cuts;
        self.cuts_refused += other.cuts_refused;
        self.launches_stale += other.launches_stale;
    }

    /// Whether everything that the simulation is for did happen.
    pub(crate) fn is_eventful(&self, scenario: Scenario) -> bool {
        let of_leases = [self.stops, self.fenced, self.leases_over];
        let leases = scenario == Scenario::Leases;
        let of_sharing =
            [self.preempted, self.suspended, self.at_limit, self.reserved, self.added_up];
        let shared = scenario == Scenario::Shared;
        let steps = scenario == Scenario::Steps;
        let cuts = scenario == Scenario::Cuts;
        let counts = [
            self.controller_kills,
            self.agent_kills,
            self.reboots,
            self.partitions,
            self.processes,
            self.requeues,
            self.store_errors,
            self.completed,
            self.silenced,
        ];
        let fits = of_leases.into_iter().all(|count| (count > 0) == leases)
            && of_sharing.into_iter().all(|count| (count > 0) == shared)
            && (self.parts > 0) == steps
            && [self.cuts, self.cuts_refused].iter().all(|count| (*count > 0) == cuts);
        fits && counts.into_iter().all(|count| count > 0)
    }
}

impl World {
    pub(crate) fn new(seed: u64, plant: Plant, scenario: Scenario) -> Self {
        let mut rng = Rng::new(seed);
        let store_seed = rng.next();
        let mut drift = || match scenario {
            Scenario::Plain | Scenario::Shared | Scenario::Steps | Scenario::Cuts => 0,
            Scenario::Leases => i64::try_from(rng.below(2_000)).expect("small") - 1_000,
        };
        let machines = (0..AGENTS).map(|name| Machine::new(name, drift(), scenario)).collect();
        let mut world = Self {
            plant,
            scenario,
            now: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            config: Arc::new(crate::controller::config(scenario)),
            controller: Controller::default(),
            store: MemStore::faulty(store_seed, MemFaults::default()),
            history: BTreeMap::new(),
            agents: (0..AGENTS).map(|_| Agent::default()).collect(),
            machines,
            wires: BTreeMap::new(),
            next_wire: 1,
            partitioned: BTreeSet::new(),
            operations: Vec::new(),
            healed: None,
            truth: BTreeMap::new(),
            parts: BTreeSet::new(),
            intents: BTreeSet::new(),
            running: BTreeMap::new(),
            seen: Seen::default(),
            stats: Stats::default(),
            wrong: None,
            trace: std::env::var_os("PENSTOCK_TRACE").is_some(),
            rng,
        };
        world.after(0, Event::ControllerStart);
        for machine in 0..AGENTS {
            world.after(50, Event::Boot(machine));
        }
        let (shortest, longest) = match scenario {
            Scenario::Plain | Scenario::Shared | Scenario::Steps | Scenario::Cuts => {
                (40_000, 120_000)
            }
            Scenario::Leases => (120_000, 300_000),
        };
        let chaos = i64::try_from(world.rng.between(shortest, longest)).expect("small");
        world.after(200, Event::NewOperation);
        world.after(2_000, Event::Misfortune);
        world.after(chaos, Event::Heal);
        world
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Stats, String> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.stats.events += 1;
            if self.trace {
                crate::say(&format!("{at:>8} {event:?}"));
            }
            self.happen(event);
            if let Some(wrong) = self.wrong.take() {
                return Err(format!("at {} ms: {wrong}", self.now));
            }
            if let Some(healed) = self.healed {
                if self.is_done() {
                    return self.at_rest().map(|()| self.stats);
                }
                if at - healed > LONGEST_RECOVERY_MS {
                    return Err(format!("not over {at} ms after the start: {}", self.unfinished()));
                }
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.unless_stopped(event) else { return };
        match event {
            Event::Up(stream, message) => self.controller_hears(stream, message),
            Event::Down(stream, message) => self.agent_hears(stream, message),
            Event::ControllerNotices(stream) => self.link_ends(stream),
            Event::AgentNotices(stream) => self.agent_notices(stream),
            Event::Buffered(stream, message) => self.agent_reads(stream, message),
            Event::ControllerStart => self.start_controller(),
            Event::Commit(life) => self.commit(life),
            Event::Plan(life) => self.make_plan(life),
            Event::Starts(life, lines) => self.send_starts(life, lines),
            Event::Preempts(life, lines) => self.send_preempts(life, lines),
            Event::Reshapes(life, lines) => self.send_reshapes(life, lines),
            Event::Cut(agent, life, gpu) => self.cut_happens(agent, life, gpu),
            Event::Upkeep(life) => self.upkeep(life),
            Event::AgentStart(agent, life) => self.start_agent(agent, life),
            Event::Connect(agent, life) => self.connect(agent, life),
            Event::AgentTick(agent, life) => self.agent_tick(agent, life),
            Event::Beat(agent, life) => self.beat(agent, life),
            Event::Fork(agent, life, key) => self.fork(agent, life, key),
            Event::TakeLock(agent, life, key) => self.take_lock(agent, life, key),
            Event::Host(agent, life, event) => self.host_event(agent, life, event),
            Event::Claim(machine, boot, key) => self.claim(machine, boot, key),
            Event::ProcessEnds(machine, boot, key) => self.process_ends(machine, boot, key, false),
            Event::KillLands(machine, boot, key) => self.process_ends(machine, boot, key, true),
            Event::Boot(machine) => self.boot(machine),
            Event::Shepherd(machine, boot, key) => self.shepherd_looks(machine, boot, key),
            Event::Continue(agent, life) => self.continue_agent(agent, life),
            Event::NewOperation => self.new_operation(),
            Event::Send(operation) => self.send_request(operation),
            Event::Arrives(operation) => self.request_arrives(operation),
            Event::Answered(operation, answer) => self.answer_arrives(operation, answer),
            Event::Misfortune => self.misfortune(),
            Event::PartitionEnds(agent) => {
                self.partitioned.remove(&agent);
            }
            Event::StoreMends => self.store.set_faults(MemFaults::default()),
            Event::Heal => self.heal(),
            Event::Nurse => self.nurse(),
        }
    }

    /// Has something happen in so many milliseconds.
    pub(crate) fn after(&mut self, delay: i64, event: Event) {
        self.next_event += 1;
        self.queue.insert((self.now + delay, self.next_event), event);
    }

    /// Has something happen after a random time.
    pub(crate) fn soon(&mut self, low: u64, high: u64, event: Event) {
        let delay = i64::try_from(self.rng.between(low, high)).expect("short");
        self.after(delay, event);
    }

    /// The first thing that was found wrong ends the run.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.wrong.get_or_insert(what);
    }

    pub(crate) fn in_chaos(&self) -> bool {
        self.healed.is_none()
    }

    /// The controller's time.
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now + self.controller.offset_ms)
    }

    /// What the network does with a message: nothing, or brings it once or twice, sooner or later.
    fn carry(&mut self, stream: Stream, event: &Event) {
        let Some(wire) = self.wires.get(&stream).copied().filter(|wire| wire.alive) else { return };
        if self.partitioned.contains(&wire.agent) || (self.in_chaos() && self.rng.chance(15)) {
            return;
        }
        if !self.in_chaos() {
            // A stream that lives keeps its order.
            self.after(5, event.clone());
            return;
        }
        let copies = if self.rng.chance(20) { 2 } else { 1 };
        for _ in 0..copies {
            if self.scenario == Scenario::Leases && self.rng.chance(120) {
                self.soon(1, 40_000, event.clone());
            } else if self.rng.chance(20) {
                self.soon(1, 4_000, event.clone());
            } else {
                self.soon(1, 20, event.clone());
            }
        }
    }

    pub(crate) fn send_up(&mut self, stream: Stream, message: Upward) {
        self.carry(stream, &Event::Up(stream, message));
    }

    pub(crate) fn send_down(&mut self, stream: Stream, message: Downward) {
        self.carry(stream, &Event::Down(stream, message));
    }

    /// The agent at the far end of a live wire.
    pub(crate) fn wire(&self, stream: Stream) -> Option<Wire> {
        let wire = self.wires.get(&stream).copied().filter(|wire| wire.alive)?;
        let agent = &self.agents[wire.agent];
        let whole = self.controller.is_up()
            && self.controller.life == wire.controller_life
            && agent.life == wire.agent_life
            && agent.stream == Some(stream);
        whole.then_some(wire)
    }

    /// Breaks a wire; each end notices by itself.
    pub(crate) fn cut(&mut self, stream: Stream) {
        let Some(wire) = self.wires.get_mut(&stream).filter(|wire| wire.alive) else { return };
        wire.alive = false;
        let slow = self.in_chaos() && self.rng.chance(300);
        let most = if slow { 40_000 } else { 100 };
        self.soon(1, most, Event::ControllerNotices(stream));
        let slow = self.scenario == Scenario::Leases && self.in_chaos() && self.rng.chance(300);
        self.soon(1, if slow { 40_000 } else { 2_000 }, Event::AgentNotices(stream));
    }
}
