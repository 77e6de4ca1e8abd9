//! What goes wrong, and how does it end?
//!
//! Misfortunes come one after the other until the world is healed; then nothing new goes wrong, a
//! nurse releases what is held, and every job must come to its end.

use penstock_controller::store::MemFaults;
use penstock_core::Command;
use penstock_core::accounts::AccountChange;
use penstock_core::cluster::DependencyState;
use penstock_core::command::{NodeAction, NodeUpdate, Target, Unit};
use penstock_core::model::Hold;

use crate::common::admin;
use crate::controller::{Waiter, node_name};
use crate::event::Event;
use crate::world::{AGENTS, Plant, Scenario, World};

impl World {
    pub(crate) fn misfortune(&mut self) {
        if !self.in_chaos() {
            return;
        }
        let plain = self.scenario != Scenario::Leases;
        self.soon(200, if plain { 5_000 } else { 10_000 }, Event::Misfortune);
        let agent = self.rng.index(AGENTS);
        let kind = if plain {
            self.rng.below(14)
        } else {
            // Mostly what makes nodes silent, and seldom what begins their silence anew.
            match self.rng.below(40) {
                low @ 0..14 if low > 1 || self.rng.chance(300) => low,
                0..24 => 8,
                _ => 14,
            }
        };
        let longest = if plain { 70_000 } else { 120_000 };
        match kind {
            0 | 1 => self.kill_controller(),
            2..5 => {
                self.stats.agent_kills += 1;
                self.restart_agent(agent, 50, 30_000);
            }
            5 => {
                self.stats.reboots += 1;
                self.power_off(agent);
                self.soon(1_000, 50_000, Event::Boot(agent));
            }
            6..8 => {
                if let Some(stream) = self.agents[agent].stream {
                    self.cut(stream);
                }
            }
            8..11 => {
                self.stats.partitions += 1;
                self.partitioned.insert(agent);
                self.soon(1_000, longest, Event::PartitionEnds(agent));
            }
            11 => {
                let faults = MemFaults {
                    unavailable: 150,
                    unknown_applied: 10,
                    unknown_lost: 10,
                    failed_before: 10,
                    failed_after: 10,
                };
                self.store.set_faults(faults);
                self.soon(100, 4_000, Event::StoreMends);
            }
            12 => self.fence(agent),
            13 => self.power_cycle(agent),
            _ => self.suspend_agent(agent),
        }
    }

    /// A fence program cuts the power, and says so when it is cut.
    fn fence(&mut self, agent: usize) {
        if !self.controller.is_up() {
            return;
        }
        self.power_off(agent);
        self.push(Waiter::Nobody, Command::Fenced { node: node_name(agent) });
        self.soon(1_000, 30_000, Event::Boot(agent));
    }

    /// An admin pulls the plug, says so, and later plugs it in again.
    fn power_cycle(&mut self, agent: usize) {
        if !self.controller.is_up() {
            return;
        }
        self.power_off(agent);
        self.set_node(agent, NodeAction::PowerDown);
        self.soon(1_000, 20_000, Event::Boot(agent));
    }

    fn set_node(&mut self, agent: usize, action: NodeAction) {
        let reason = "simulated".into();
        let update = NodeUpdate { action: Some(action), reason, ..NodeUpdate::default() };
        let names = vec![node_name(agent)];
        self.push(Waiter::Nobody, Command::UpdateNode(admin(), names, Box::new(update)));
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.healed = Some(self.now);
        self.store.set_faults(MemFaults::default());
        self.partitioned.clear();
        if self.plant == Plant::ForgottenUsage {
            let change = AccountChange::ResetAccountUsage("users".into());
            self.push(Waiter::Nobody, Command::Accounts(admin(), vec![change]));
        }
        for agent in 0..AGENTS {
            self.continue_agent(agent, self.agents[agent].life);
        }
        let streams: Vec<_> = self.wires.keys().copied().collect();
        for stream in streams {
            self.cut(stream);
        }
        for machine in 0..AGENTS {
            self.boot(machine);
            if self.agents[machine].life == 0 {
                self.restart_agent(machine, 10, 500);
            }
        }
        if !self.controller.is_up() {
            self.after(100, Event::ControllerStart);
        }
        self.after(3_000, Event::Nurse);
    }

    /// Does what an admin would: nodes back into service, held jobs released, jobs that wait for
    /// what can't come cancelled.
    pub(crate) fn nurse(&mut self) {
        self.after(10_000, Event::Nurse);
        let Some(cluster) = self.controller.cluster().cloned() else { return };
        for agent in 0..AGENTS {
            if cluster.node_by_name(&node_name(agent)).is_ok_and(|(_, node)| !node.in_service()) {
                self.set_node(agent, NodeAction::Resume);
            }
        }
        if self.scenario == Scenario::Shared {
            self.nurse_shared();
        }
        if self.scenario == Scenario::Steps {
            self.nurse_steps(&cluster);
        }
        let jobs = cluster.jobs().filter(|job| job.is_pending());
        let jobs = jobs.map(|job| (Unit::Job(job.id), job.hold));
        let arrays = cluster.arrays().filter(|array| !array.pending.is_empty());
        let arrays = arrays.map(|array| (Unit::Array(array.id), array.hold));
        for (unit, hold) in jobs.chain(arrays) {
            let target = match unit {
                Unit::Job(id) => Target::Job(id),
                Unit::Array(id) => Target::Id(id),
            };
            if cluster.dependency_state(unit) == DependencyState::Never {
                self.push(Waiter::Nobody, Command::Cancel(admin(), vec![target]));
            } else if hold != Hold::None {
                self.push(Waiter::Nobody, Command::SetHold(admin(), vec![target], Hold::None));
            }
        }
    }
}
