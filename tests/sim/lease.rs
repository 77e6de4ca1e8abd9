//! What do shepherds do that hold a lease, and what becomes of an agent that is stopped?
//!
//! A shepherd here is the very state machine of the real one, on its machine's clock. It lives on
//! while the agent is stopped or gone; what it knows, it reads from what the agent wrote down.

use penstock_supervisor::ending::{Action, Ending, Input, Terms, UNKILLABLE_SECS};
use penstock_supervisor::{AttemptKey, HostEvent, RunResult};
use penstock_vocab::{Millis, Timestamp};

use crate::agent::Spooled;
use crate::convert::KILL_WAIT_SECS;
use crate::event::{Event, Life};
use crate::world::{Plant, World};

fn millis(at: Timestamp) -> Millis {
    Millis(u64::try_from(at.0).unwrap_or(0))
}

impl World {
    fn lease_until(&self, machine: usize, key: AttemptKey) -> Option<Millis> {
        let place = &self.machines[machine];
        let length = *place.leases.get(&key)?;
        let since = place.leases_since.map_or(Millis::ZERO, millis);
        Some(since.saturating_add(length))
    }

    /// A shepherd that comes too late begins nothing, and says so.
    pub(crate) fn lease_is_over(&mut self, machine: usize, key: AttemptKey) -> bool {
        let now = millis(self.machines[machine].boottime(self.now));
        let over = self.lease_until(machine, key).is_some_and(|until| until <= now);
        if !over || self.plant == Plant::UncheckedLease {
            return false;
        }
        self.stats.fenced += 1;
        let result = RunResult { fenced: true, wait_status: 9, ..RunResult::default() };
        self.machines[machine].spool.insert(key, Spooled::Ended(result.clone()));
        let life = self.agents[machine].life;
        self.soon(0, 5, Event::Host(machine, life, HostEvent::Ended(key, result)));
        true
    }

    /// The job of an attempt with a lease was started.
    pub(crate) fn shepherd_begins(&mut self, machine: usize, key: AttemptKey) {
        let Some(until) = self.lease_until(machine, key) else { return };
        let terms = Terms {
            limit_secs: None,
            limit_serial: 0,
            kill_wait_secs: KILL_WAIT_SECS,
            unkillable_secs: UNKILLABLE_SECS,
            warning: None,
            lease_until: Some(until),
        };
        let place = &mut self.machines[machine];
        let now = millis(place.boottime(self.now));
        place.endings.insert(key, Ending::new(now, terms));
        self.shepherd_waits(machine, key);
    }

    fn shepherd_waits(&mut self, machine: usize, key: AttemptKey) {
        let place = &self.machines[machine];
        let Some(deadline) = place.endings.get(&key).and_then(Ending::deadline) else { return };
        let at = Timestamp(i64::try_from(deadline.0).unwrap_or(i64::MAX));
        let (delay, boot) = (place.until(self.now, at), place.boot);
        // A busy machine.
        let late = i64::try_from(self.rng.below(1_000)).expect("small");
        self.after(delay + late, Event::Shepherd(machine, boot, key));
    }

    pub(crate) fn shepherd_looks(&mut self, machine: usize, boot: Life, key: AttemptKey) {
        let until = self.lease_until(machine, key).unwrap_or(Millis::ZERO);
        let place = &mut self.machines[machine];
        if !place.on || place.boot != boot {
            return;
        }
        let now = millis(place.boottime(self.now));
        let Some(ending) = place.endings.get_mut(&key) else { return };
        let mut actions = Vec::new();
        if ending.lease_until().is_some_and(|until| until <= now) {
            actions = ending.on(now, Input::Lease { until });
        }
        actions.extend(ending.on(now, Input::Tick));
        for action in actions {
            match action {
                // Some jobs end when they are asked to, some do not.
                Action::Signal(..) => self.soon(1, 10_000, Event::KillLands(machine, boot, key)),
                Action::Kill => self.soon(1, 500, Event::KillLands(machine, boot, key)),
                Action::Announce(_)
                | Action::Freeze
                | Action::Thaw
                | Action::Unkillable
                | Action::Done => {}
            }
        }
        self.shepherd_waits(machine, key);
    }

    /// Somebody stops an agent, and lets it go on later.
    pub(crate) fn suspend_agent(&mut self, agent: usize) {
        let place = &mut self.agents[agent];
        if place.life == 0 || place.stopped {
            return;
        }
        place.stopped = true;
        let life = place.life;
        self.stats.stops += 1;
        self.soon(1_000, 120_000, Event::Continue(agent, life));
    }

    pub(crate) fn continue_agent(&mut self, agent: usize, life: Life) {
        let place = &mut self.agents[agent];
        if place.life != life || !place.stopped {
            return;
        }
        place.stopped = false;
        for event in std::mem::take(&mut place.held_up) {
            self.after(0, event);
        }
    }

    /// The event, unless it is one for an agent that is stopped: then it waits.
    pub(crate) fn unless_stopped(&mut self, event: Event) -> Option<Event> {
        let on_stream = |stream| self.wires.get(stream).map(|wire| (wire.agent, wire.agent_life));
        let (agent, life) = match &event {
            Event::Down(stream, _) | Event::Buffered(stream, _) | Event::AgentNotices(stream) => {
                on_stream(stream)?
            }
            Event::Connect(agent, life)
            | Event::AgentTick(agent, life)
            | Event::Beat(agent, life)
            | Event::Fork(agent, life, _)
            | Event::TakeLock(agent, life, _)
            | Event::Host(agent, life, _) => (*agent, *life),
            _ => return Some(event),
        };
        let place = &self.agents[agent];
        if !place.stopped || place.life != life {
            return Some(event);
        }
        let event = match event {
            Event::Down(stream, message) => Event::Buffered(stream, message),
            other => other,
        };
        self.agents[agent].held_up.push(event);
        None
    }
}
