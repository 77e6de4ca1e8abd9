//! GPUs that are cut as the queue asks: what stands for the agent's part of it and for the driver, and
//! what must hold.
//!
//! Slices vanish with the power; what the agent wrote of them, and the order that it carries out, lie on
//! its disk. Orders get lost and come twice, agents are killed amid a cut, which then is half done, and
//! the driver refuses. No slot is ever two jobs', none is destroyed that somebody runs on, no agent cuts
//! but by an intent that the controller had stored, and every job ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::Command;
use penstock_core::command::ReshapeLine;
use penstock_core::model::{
    DynamicNodes, Gpu, Inventory, MigConfig, MigMode, MigProfile, MigSlice, NewSlice, Reshape,
};
use penstock_core::scheduler::mig::mask;
use penstock_supervisor::{AttemptKey, HostEvent, RunResult};
use penstock_vocab::{GresRequest, Mib, SessionId, Walltime};

use crate::agent::Spooled;
use crate::controller::{Waiter, node_name};
use crate::event::{Downward, Event, Life, SliceOf, Upward};
use crate::world::{AGENTS, Plant, Scenario, World};

/// GPUs of each machine.
const GPUS: u32 = 2;

/// What the cluster file says.
pub(crate) fn config() -> MigConfig {
    MigConfig { dynamic: DynamicNodes::All, deadline_secs: 20, settle_secs: 4 }
}

/// A GPU of a machine.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// What the driver has.
    slices: Vec<MigSlice>,
    /// What the agent wrote down.
    record: Option<Record>,
    index: u32,
    made: u64,
}

#[derive(Debug)]
struct Record {
    boot: Life,
    gpu: Gpu,
    intent: Option<Intent>,
    answered: u64,
    error: String,
}

/// An order that is carried out.
#[derive(Debug, Clone)]
struct Intent {
    generation: u64,
    /// Starts and UUIDs.
    destroy: Vec<(u32, Box<str>)>,
    create: Vec<NewSlice>,
}

/// The boards of a machine, or none.
pub(crate) fn boards(scenario: Scenario) -> Vec<Board> {
    let count = if scenario == Scenario::Cuts { GPUS } else { 0 };
    (0..count).map(|index| Board { index, ..Board::default() }).collect()
}

fn profiles() -> Box<[MigProfile]> {
    let profile = |id, name: &str, compute, size, starts: &[u32], most| MigProfile {
        id,
        name: name.into(),
        compute,
        size,
        starts: starts.into(),
        most,
        ..MigProfile::default()
    };
    Box::new([
        profile(19, "1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6], 7),
        profile(14, "2g.20gb", 2, 2, &[0, 2, 4], 3),
        profile(9, "3g.40gb", 3, 4, &[0, 4], 2),
        profile(0, "7g.80gb", 7, 8, &[0], 1),
    ])
}

fn gpu(machine: usize, index: u32, generation: u64, slices: &[MigSlice]) -> Gpu {
    Gpu {
        index,
        uuid: format!("GPU-{machine}-{index}").into(),
        kind: "h100".into(),
        mig: MigMode::On,
        slices: slices.into(),
        profiles: profiles(),
        generation,
        ..Gpu::default()
    }
}

/// The counts that go with these.
fn counts(gpus: &[Gpu]) -> Box<[GresRequest]> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for slice in gpus.iter().flat_map(|gpu| &gpu.slices) {
        *counts.entry(&slice.profile).or_insert(0) += 1;
    }
    let text = counts.iter().map(|(name, count)| format!("gpu:{name}:{count}"));
    text.map(|text| text.parse().expect("a count")).collect()
}

/// What a machine has, with these.
pub(crate) fn inventory(boot: &str, gpus: Vec<Gpu>) -> Inventory {
    let bare = Inventory {
        cpus: 4,
        sockets: 1,
        cores_per_socket: 4,
        threads_per_core: 1,
        memory: Mib(4_000),
        boot_id: boot.into(),
        ..Inventory::default()
    };
    let gres = counts(&gpus);
    Inventory { gres, gpus: gpus.into(), ..bare }
}

/// Which slices a launch names, and how many its job asked for.
pub(crate) fn slices_of(cluster: &Cluster, job: &penstock_core::model::Job) -> Vec<SliceOf> {
    let Some(share) = job.active_run().and_then(|run| run.shares.first()) else {
        return Vec::new();
    };
    let Some((node, _)) = cluster.node(share.node) else { return Vec::new() };
    let of = |gres: &penstock_core::model::GresShare| -> Vec<SliceOf> {
        let devices = gres.ids.iter().filter_map(|id| node.inventory.device(&gres.name, *id));
        let named = devices.filter_map(|device| {
            let (gpu, generation) = (device.gpu.index, device.gpu.generation);
            Some(SliceOf { gpu, generation, uuid: device.slice?.uuid.clone() })
        });
        named.collect()
    };
    share.gres.iter().flat_map(of).collect()
}

impl Board {
    fn make(&mut self, machine: usize, new: &NewSlice) {
        self.made += 1;
        let uuid = format!("MIG-{machine}-{}-{}", self.index, self.made).into();
        let (profile, start, size) = (new.profile.clone(), new.start, new.size);
        self.slices.push(MigSlice { uuid, profile, start, size, ..MigSlice::default() });
    }

    fn bits(&self) -> u8 {
        self.slices.iter().fold(0, |bits, slice| bits | mask(slice.start, slice.size))
    }
}

impl World {
    /// What an agent finds when it begins: GPUs whose layout a boot took away get it back, and orders that
    /// were interrupted go on.
    pub(crate) fn find_gpus(&mut self, agent: usize, life: Life) {
        for at in 0..self.machines[agent].boards.len() {
            let refused = self.in_chaos() && self.rng.chance(200);
            let index = u32::try_from(at).expect("few");
            let first = u64::try_from(self.now).expect("positive") + 1;
            let boot = self.machines[agent].boot;
            let board = &mut self.machines[agent].boards[at];
            let Some(record) = &mut board.record else {
                let gpu = gpu(agent, index, first, &board.slices);
                let (answered, error) = (0, String::new());
                board.record = Some(Record { boot, gpu, intent: None, answered, error });
                continue;
            };
            let lost = record.boot != boot && record.intent.is_none() && board.slices.is_empty();
            record.boot = boot;
            if lost && !refused {
                let old = record.gpu.slices.to_vec();
                for slice in &old {
                    let (profile, start, size) = (slice.profile.clone(), slice.start, slice.size);
                    board.make(agent, &NewSlice { profile, id: 0, start, size });
                }
            }
            self.see(agent, at);
            let board = &self.machines[agent].boards[at];
            if board.record.as_ref().is_some_and(|record| record.intent.is_some()) {
                self.soon(10, 3_000, Event::Cut(agent, life, at));
            }
        }
    }

    /// The agent looks at a GPU; its generation goes up where the layout is another.
    fn see(&mut self, agent: usize, at: usize) {
        let board = &mut self.machines[agent].boards[at];
        let Some(record) = &mut board.record else { return };
        let shape = |slices: &[MigSlice]| -> Vec<(Box<str>, u32)> {
            let mut shape: Vec<_> = slices.iter().map(|s| (s.uuid.clone(), s.start)).collect();
            shape.sort();
            shape
        };
        let changed = shape(&record.gpu.slices) != shape(&board.slices);
        let generation = record.gpu.generation + u64::from(changed);
        record.gpu = gpu(agent, record.gpu.index, generation, &board.slices);
    }

    pub(crate) fn gpus_of(&self, agent: usize) -> Vec<Gpu> {
        let records = self.machines[agent].boards.iter().filter_map(|board| board.record.as_ref());
        records.map(|record| record.gpu.clone()).collect()
    }

    /// The power goes: slices with it, and with the disk what was written.
    pub(crate) fn lose_slices(&mut self, machine: usize, wipe: bool) {
        for board in &mut self.machines[machine].boards {
            board.slices.clear();
            if wipe {
                board.record = None;
            }
        }
    }

    /// An agent that is killed amid a cut leaves it half done.
    pub(crate) fn interrupt_cuts(&mut self, agent: usize) {
        for at in 0..self.machines[agent].boards.len() {
            let board = &self.machines[agent].boards[at];
            let intent = board.record.as_ref().and_then(|record| record.intent.clone());
            if let Some(intent) = intent.filter(|_| self.rng.chance(500)) {
                self.destroy(agent, at, &intent);
            }
        }
    }

    /// An order of the controller, as the agent takes it.
    pub(crate) fn cut_ordered(&mut self, agent: usize, session: SessionId, order: Reshape) {
        let known = self.agents[agent].supervisor.as_ref().and_then(|known| known.session());
        if known != Some(session) {
            return;
        }
        let stored = (node_name(agent), order.gpu, order.generation);
        if !self.intents.contains(&stored) {
            self.fail(format!("an order to cut for {stored:?} came before its intent was stored"));
        }
        let unchecked = self.plant == Plant::UncheckedCut;
        let at = order.gpu as usize;
        let Some(record) = &mut self.machines[agent].boards[at].record else { return };
        let error = match &record.intent {
            Some(intent) if intent.generation == order.generation => return,
            Some(_) => Some("it is being cut".to_owned()),
            None if unchecked => None,
            None if record.answered == order.generation
                && record.gpu.generation > order.generation =>
            {
                Some(record.error.clone())
            }
            None if record.gpu.generation != order.generation => {
                Some("its layout is of another generation".to_owned())
            }
            None => None,
        };
        if let Some(error) = error {
            let gpu = Box::new(record.gpu.clone());
            self.tell(agent, Upward::Layout(session, gpu, order.generation, error));
            return;
        }
        let uuid = |start: &u32| {
            let slice = record.gpu.slices.iter().find(|slice| slice.start == *start);
            slice.map(|slice| (*start, slice.uuid.clone()))
        };
        let destroy = order.destroy.iter().filter_map(uuid).collect();
        let create = order.create.to_vec();
        record.intent = Some(Intent { generation: order.generation, destroy, create });
        let life = self.agents[agent].life;
        self.soon(200, 8_000, Event::Cut(agent, life, at));
    }

    fn destroy(&mut self, agent: usize, at: usize, intent: &Intent) {
        let machine = &mut self.machines[agent];
        for (start, uuid) in &intent.destroy {
            let running = machine.holds.iter().find(|(key, held)| {
                let live = machine.processes.contains(key)
                    || machine.spool.get(key) == Some(&Spooled::Intent);
                live && held.contains(uuid)
            });
            if let Some((key, _)) = running {
                let text = format!("slice {uuid} at {start} is destroyed while {key} has it");
                self.wrong.get_or_insert(text);
            }
            machine.boards[at].slices.retain(|slice| slice.uuid != *uuid);
        }
    }

    /// A cut is carried out, or refused by the driver.
    pub(crate) fn cut_happens(&mut self, agent: usize, life: Life, at: usize) {
        if !self.lives(agent, life) {
            return;
        }
        let refused = self.in_chaos() && self.rng.chance(150);
        let half = refused && self.rng.chance(300);
        let Some(record) = &mut self.machines[agent].boards[at].record else { return };
        let Some(intent) = record.intent.clone() else { return };
        let mut error = String::new();
        if !refused || half {
            self.destroy(agent, at, &intent);
        }
        let board = &mut self.machines[agent].boards[at];
        if refused {
            error = "the driver refuses".to_owned();
            self.stats.cuts_refused += 1;
        } else {
            for new in &intent.create {
                let there = |s: &MigSlice| s.start == new.start && s.profile == new.profile;
                if board.slices.iter().any(there) {
                    continue;
                }
                if board.bits() & mask(new.start, new.size) != 0 {
                    error = "there is no room".to_owned();
                    break;
                }
                board.make(agent, new);
            }
            self.stats.cuts += 1;
        }
        let record = self.machines[agent].boards[at].record.as_mut();
        let before = record.map_or(0, |record| record.gpu.generation);
        self.see(agent, at);
        let Some(record) = &mut self.machines[agent].boards[at].record else { return };
        record.intent = None;
        record.answered = intent.generation;
        record.error.clone_from(&error);
        record.gpu.generation = record.gpu.generation.max(before + 1);
        let gpu = Box::new(record.gpu.clone());
        let session = self.agents[agent].supervisor.as_ref().and_then(|known| known.session());
        if let Some(session) = session {
            self.tell(agent, Upward::Layout(session, gpu, intent.generation, error));
        }
    }

    /// Whether a launch may begin: its slices are the ones that it names. They are the attempt's then.
    pub(crate) fn grant(
        &mut self,
        agent: usize,
        life: Life,
        key: AttemptKey,
        slices: &[SliceOf],
    ) -> bool {
        let machine = &mut self.machines[agent];
        let is_there = |slice: &SliceOf| {
            let record = machine.boards.get(slice.gpu as usize).and_then(|b| b.record.as_ref());
            record.is_some_and(|record| {
                record.gpu.generation == slice.generation
                    && record.gpu.slices.iter().any(|known| known.uuid == slice.uuid)
            })
        };
        if !slices.iter().all(is_there) {
            self.stats.launches_stale += 1;
            let result = RunResult {
                launch_error: "its slices are others".to_owned(),
                node_fault: true,
                devices_changed: true,
                ..RunResult::default()
            };
            machine.spool.insert(key, Spooled::Ended(result.clone()));
            self.soon(1, 30, Event::Host(agent, life, HostEvent::Ended(key, result)));
            return false;
        }
        machine.holds.insert(key, slices.iter().map(|slice| slice.uuid.clone()).collect());
        true
    }

    /// A process begins: its slices are there, and nobody else's.
    pub(crate) fn check_slices(&mut self, at: usize, key: AttemptKey) {
        let machine = &self.machines[at];
        let Some(own) = machine.holds.get(&key) else { return };
        let there = |uuid: &str| {
            machine.boards.iter().flat_map(|board| &board.slices).any(|s| *s.uuid == *uuid)
        };
        let twice = machine.holds.iter().find(|(other, held)| {
            **other != key
                && machine.processes.contains(other)
                && held.iter().any(|uuid| own.contains(uuid))
        });
        if let Some((other, _)) = twice {
            self.fail(format!("{key} and {other} run on one slice"));
        } else if !own.iter().all(|uuid| there(uuid)) {
            self.fail(format!("{key} begins on a slice that is gone"));
        }
    }

    /// What the controller tells a node to do to a GPU.
    pub(crate) fn send_cut(&mut self, cluster: &Cluster, node: usize, gpu: u32) {
        let Ok((_, record)) = cluster.node_by_name(&node_name(node)) else { return };
        let order = record.admin.reshapes.iter().find(|reshape| reshape.gpu == gpu).cloned();
        if let Some(order) = order {
            self.pass_on(node, |session| Downward::Reshape(session, order));
        }
    }

    pub(crate) fn send_reshapes(&mut self, life: Life, lines: Vec<ReshapeLine>) {
        if life == self.controller.life {
            self.push(Waiter::Nobody, Command::Reshape(lines));
        }
    }

    /// The request of a client.
    pub(crate) fn cut_command(&mut self, number: usize) -> Command {
        if !self.rng.chance(700) {
            return self.change(number);
        }
        let mut command = self.submission(number);
        let sizes = ["1g.10gb:1", "1g.10gb:1", "1g.10gb:2", "2g.20gb:1", "3g.40gb:1", "7g.80gb:1"];
        let (size, asks) = (sizes[self.rng.index(sizes.len())], self.rng.chance(850));
        let minutes = self.rng.chance(500).then(|| self.rng.between(1, 5));
        if let Command::Submit(_, submission) = &mut command {
            let spec = Arc::make_mut(&mut submission.spec);
            let shape = Arc::make_mut(&mut spec.shape);
            if asks && shape.least_nodes() == 1 {
                shape.gres_per_node = [format!("gpu:{size}").parse().expect("a count")].into();
            }
            spec.time_limit = minutes.map(Walltime::from_minutes).or(spec.time_limit);
        }
        command
    }

    /// What is checked of a durable cluster, and what is remembered of it.
    pub(crate) fn check_cuts(&mut self, cluster: &Cluster) {
        if self.scenario != Scenario::Cuts {
            return;
        }
        for agent in 0..AGENTS {
            let Ok((index, node)) = cluster.node_by_name(&node_name(agent)) else { continue };
            for gpu in node.inventory.gpus.iter() {
                let mut held: BTreeMap<u32, penstock_vocab::JobId> = BTreeMap::new();
                let jobs = cluster.jobs().filter_map(|job| Some((job.id, job.active_run()?)));
                for (id, run) in jobs {
                    let shares = run.shares.iter().filter(|share| share.node == index);
                    let devices = shares.flat_map(|share| share.gres.iter()).flat_map(|gres| {
                        gres.ids.iter().filter_map(|id| node.inventory.device(&gres.name, *id))
                    });
                    let here = devices.filter(|device| device.gpu.index == gpu.index);
                    let starts: Vec<u32> =
                        here.filter_map(|device| Some(device.slice?.start)).collect();
                    for start in starts {
                        if let Some(other) = held.insert(start, id) {
                            self.fail(format!("jobs {id} and {other} both own slot {start}"));
                        }
                    }
                }
                let Some(reshape) = node.reshape_of(gpu) else { continue };
                let name = (node.name.clone(), gpu.index, reshape.generation);
                self.intents.insert(name);
                let same = gpu.generation == reshape.generation;
                if same && reshape.destroy.iter().any(|start| held.contains_key(start)) {
                    self.fail(format!("a slice that a job holds is to go: {reshape:?}"));
                }
            }
        }
    }
}

impl World {
    /// The counts of a node with one of its GPUs as it is now.
    pub(crate) fn counts_with(&self, agent: usize, gpu: &Gpu) -> Box<[GresRequest]> {
        let cluster = self.controller.cluster();
        let node = cluster.and_then(|cluster| cluster.node_by_name(&node_name(agent)).ok());
        let known = node.map(|(_, node)| node.inventory.gpus.to_vec()).unwrap_or_default();
        let now = |known: Gpu| if known.index == gpu.index { gpu.clone() } else { known };
        counts(&known.into_iter().map(now).collect::<Vec<_>>())
    }
}
