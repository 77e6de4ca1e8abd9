//! What do the library's calls change, and by which rules?
//!
//! The state is a file beside the scenario, replaced as a whole, so that readers in other
//! processes see either the old or the new. The rules are those of the hardware: a GPU instance
//! sits at a start that its profile lists and covers slices that no other covers; what holds
//! compute instances or processes is not destroyed; handles of MIG devices keep their index, which
//! leaves holes.

use nvml_wrapper_sys::bindings as sys;
use serde::{Deserialize, Serialize};

use crate::models::{Model, Profile};
use crate::scenario::{Gpu, Process, Scenario, compute_slices, made_uuid};

/// NVML's code of a refusal.
pub(crate) type Code = sys::nvmlReturn_t;

/// What a call answers.
pub(crate) type Answer<T> = Result<T, Code>;

/// No room, or the place is taken.
pub(crate) const NO_ROOM: Code = sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES;
/// Processes or instances hold it.
pub(crate) const IN_USE: Code = sys::nvmlReturn_enum_NVML_ERROR_IN_USE;
/// There is none.
pub(crate) const NOT_FOUND: Code = sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
/// The GPU cannot do so, or not now.
pub(crate) const NOT_SUPPORTED: Code = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
/// The caller's mistake.
pub(crate) const INVALID: Code = sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;

/// Everything that calls change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The scenario's boot that it belongs to.
    pub(crate) boot: u32,
    /// When the scenario's clock began, milliseconds since the epoch.
    pub(crate) started_ms: u64,
    /// Instances made so far, so that each gets a UUID of its own.
    made: u64,
    #[serde(default)]
    pub(crate) gpu: Vec<GpuState>,
}

/// What calls change of one GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuState {
    uuid: String,
    /// Raised by a reset: older handles are refused.
    pub(crate) epoch: u8,
    pub(crate) mig: bool,
    pub(crate) pending: bool,
    #[serde(default)]
    pub(crate) gi: Vec<GiState>,
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GiState {
    pub(crate) id: u32,
    pub(crate) profile: u32,
    pub(crate) start: u32,
    pub(crate) hidden: bool,
    #[serde(default)]
    pub(crate) ci: Vec<CiState>,
}

/// A compute instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CiState {
    pub(crate) id: u32,
    pub(crate) profile: u32,
    /// Index of its MIG device.
    pub(crate) slot: u32,
    pub(crate) uuid: String,
}

impl State {
    /// The state after the scenario's boot: what the scenario says of a first one, the modes that
    /// survive of a later one.
    pub(crate) fn after_boot(scenario: &Scenario, before: Option<&Self>, now_ms: u64) -> Self {
        let Some(before) = before else {
            let gpu = scenario.gpus.iter().map(GpuState::first).collect();
            return Self { boot: scenario.boot, started_ms: now_ms, made: 0, gpu };
        };
        let mut state = Self { boot: scenario.boot, started_ms: now_ms, ..before.clone() };
        state.follow(scenario);
        for (gpu, given) in state.gpu.iter_mut().zip(&scenario.gpus) {
            gpu.gi.clear();
            gpu.epoch = gpu.epoch.wrapping_add(1);
            // The mode is kept in the InfoROM on Ampere only.
            gpu.mig = gpu.pending && !given.model().is_hopper_or_later();
            gpu.pending = gpu.mig;
        }
        state
    }

    /// Takes up a GPU of the scenario that was not there before; true if that changed something.
    pub(crate) fn follow(&mut self, scenario: &Scenario) -> bool {
        if self.gpu.iter().map(|gpu| &gpu.uuid).eq(scenario.gpus.iter().map(|gpu| &gpu.uuid)) {
            return false;
        }
        let known = |gpu: &Gpu| self.gpu.iter().find(|state| state.uuid == gpu.uuid).cloned();
        let all = scenario.gpus.iter();
        self.gpu = all.map(|gpu| known(gpu).unwrap_or_else(|| GpuState::first(gpu))).collect();
        true
    }

    /// Creates an instance of the profile with the hardware's number `id`, at `start` or, as the
    /// driver would, at the first that is free.
    pub(crate) fn create(
        &mut self,
        gpu: usize,
        model: &Model,
        id: u32,
        start: Option<u32>,
    ) -> Answer<u32> {
        let state = self.gpu.get_mut(gpu).ok_or(INVALID)?;
        if !state.mig {
            return Err(NOT_SUPPORTED);
        }
        let profile = model.profile(id).ok_or(NOT_SUPPORTED)?;
        let start = match start {
            Some(start) if !profile.starts.contains(&start) => return Err(INVALID),
            Some(start) => start,
            None => *state.free_starts(model, profile).first().ok_or(NO_ROOM)?,
        };
        if !state.free_starts(model, profile).contains(&start) {
            return Err(NO_ROOM);
        }
        let mut ids = profile.instance_ids();
        let id = ids.find(|id| state.gi.iter().all(|gi| gi.id != *id)).ok_or(NO_ROOM)?;
        state.gi.push(GiState { id, profile: profile.id, start, hidden: false, ci: Vec::new() });
        Ok(id)
    }

    /// Destroys an instance that nothing uses.
    pub(crate) fn destroy(&mut self, gpu: usize, gi: u32, processes: &[Process]) -> Answer<()> {
        let state = self.gpu.get_mut(gpu).ok_or(INVALID)?;
        let at = state.gi.iter().position(|other| other.id == gi).ok_or(NOT_FOUND)?;
        if !state.gi[at].ci.is_empty() || processes.iter().any(|p| p.gi == Some(gi)) {
            return Err(IN_USE);
        }
        state.gi.remove(at);
        Ok(())
    }

    /// Creates a compute instance in a GPU instance.
    pub(crate) fn create_compute(
        &mut self,
        (gpu, uuid): (usize, &str),
        model: &Model,
        gi: u32,
        profile: u32,
    ) -> Answer<u32> {
        self.made += 1;
        let made = self.made.to_string();
        let state = self.gpu.get_mut(gpu).ok_or(INVALID)?;
        let slot = state.free_slot();
        let instance = state.gi.iter_mut().find(|other| other.id == gi).ok_or(INVALID)?;
        let room = model.profile(instance.profile).map_or(0, |profile| profile.compute);
        let used: u32 = instance.ci.iter().filter_map(|ci| compute_slices(ci.profile)).sum();
        let wanted = compute_slices(profile).ok_or(INVALID)?;
        if wanted > room {
            return Err(NOT_SUPPORTED);
        }
        if used + wanted > room {
            return Err(NO_ROOM);
        }
        let id = (0..8).find(|id| instance.ci.iter().all(|ci| ci.id != *id)).ok_or(NO_ROOM)?;
        let words = [uuid, &gi.to_string(), &id.to_string(), &made];
        let uuid = format!("MIG-{}", made_uuid(&words));
        instance.ci.push(CiState { id, profile, slot, uuid });
        Ok(id)
    }

    /// Destroys a compute instance that no process uses.
    pub(crate) fn destroy_compute(
        &mut self,
        gpu: usize,
        (gi, ci): (u32, u32),
        processes: &[Process],
    ) -> Answer<()> {
        let state = self.gpu.get_mut(gpu).ok_or(INVALID)?;
        let instance = state.gi.iter_mut().find(|other| other.id == gi).ok_or(NOT_FOUND)?;
        let at = instance.ci.iter().position(|other| other.id == ci).ok_or(NOT_FOUND)?;
        let holds = |p: &Process| p.gi == Some(gi) && p.ci.is_none_or(|held| held == ci);
        // A process that is in no list keeps the GPU instance alone: a half state of real drivers.
        if processes.iter().any(|p| holds(p) && !p.hidden) {
            return Err(IN_USE);
        }
        instance.ci.remove(at);
        Ok(())
    }

    /// Switches MIG; the status of the activation.
    pub(crate) fn set_mode(
        &mut self,
        gpu: usize,
        given: &Gpu,
        on: bool,
        used: bool,
    ) -> Answer<Code> {
        let model = given.model();
        let state = self.gpu.get_mut(gpu).ok_or(INVALID)?;
        if model.profiles.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        state.pending = on;
        if state.mig == on {
            return Ok(0);
        }
        let usual = if used || !state.gi.is_empty() {
            IN_USE
        } else if model.is_hopper_or_later() {
            sys::nvmlReturn_enum_NVML_SUCCESS
        } else {
            sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED
        };
        let status = given.mig.activation.unwrap_or(usual);
        if status == 0 {
            state.mig = on;
            state.gi.clear();
        }
        Ok(status)
    }
}

impl GpuState {
    /// As the scenario says that it is at the beginning.
    fn first(gpu: &Gpu) -> Self {
        let mut state = Self {
            uuid: gpu.uuid.clone(),
            epoch: 1,
            mig: gpu.mig.current,
            pending: gpu.mig.pending.unwrap_or(gpu.mig.current),
            gi: Vec::new(),
        };
        for given in &gpu.gi {
            let (id, profile, start, hidden) = (given.id, given.profile, given.start, given.hidden);
            state.gi.push(GiState { id, profile, start, hidden, ci: Vec::new() });
            for ci in &given.ci {
                let ids = (id.to_string(), ci.id.to_string());
                let made = || format!("MIG-{}", made_uuid(&[&gpu.uuid, &ids.0, &ids.1]));
                let uuid = if ci.uuid.is_empty() { made() } else { ci.uuid.clone() };
                let slot = state.free_slot();
                let ci = CiState { id: ci.id, profile: ci.profile, slot, uuid };
                state.gi.last_mut().expect("it was just pushed").ci.push(ci);
            }
        }
        state
    }

    /// Where an instance of `profile` could be made now.
    pub(crate) fn free_starts(&self, model: &Model, profile: &Profile) -> Vec<u32> {
        let of_it = self.gi.iter().filter(|gi| gi.profile == profile.id).count();
        if of_it >= profile.most as usize {
            return Vec::new();
        }
        let taken = |start: u32| {
            self.gi.iter().any(|gi| {
                let size = model.profile(gi.profile).map_or(0, |profile| profile.size);
                start < gi.start + size && gi.start < start + profile.size
            })
        };
        profile.starts.iter().copied().filter(|start| !taken(*start)).collect()
    }

    /// The lowest index that no MIG device has.
    fn free_slot(&self) -> u32 {
        let taken: Vec<u32> = self.gi.iter().flat_map(|gi| &gi.ci).map(|ci| ci.slot).collect();
        (0..).find(|slot| !taken.contains(slot)).unwrap_or(u32::MAX)
    }

    /// The instance with this id.
    pub(crate) fn instance(&self, gi: u32) -> Option<&GiState> {
        self.gi.iter().find(|other| other.id == gi)
    }

    /// The compute instance with these ids.
    pub(crate) fn compute(&self, gi: u32, ci: u32) -> Option<&CiState> {
        self.instance(gi)?.ci.iter().find(|other| other.id == ci)
    }

    /// Every MIG device: its instance and its compute instance.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&GiState, &CiState)> {
        self.gi.iter().flat_map(|gi| gi.ci.iter().map(move |ci| (gi, ci)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn world(model: &str) -> (State, &'static Model) {
        let text = format!("[[gpu]]\nmodel = '{model}'\nmig = {{ current = true }}");
        let scenario = Scenario::parse(&text, "s").unwrap();
        (State::after_boot(&scenario, None, 0), scenario.models().next().unwrap())
    }

    /// Every set of places that can be reached by creating instances.
    fn layouts(model: &str, of: &[u32]) -> BTreeSet<Vec<(u32, u32)>> {
        let (empty, model) = world(model);
        let (mut seen, mut open) = (BTreeSet::new(), vec![empty]);
        while let Some(state) = open.pop() {
            let mut key: Vec<_> = state.gpu[0].gi.iter().map(|gi| (gi.profile, gi.start)).collect();
            key.sort_unstable();
            if !seen.insert(key) {
                continue;
            }
            for profile in model.profiles.iter().filter(|profile| of.contains(&profile.id)) {
                for start in state.gpu[0].free_starts(model, profile) {
                    let mut next = state.clone();
                    next.create(0, model, profile.id, Some(start)).unwrap();
                    open.push(next);
                }
            }
        }
        seen
    }

    #[test]
    fn as_many_layouts_are_possible_as_on_the_hardware() {
        assert_eq!(layouts("a100-40", &[19, 14, 9, 5, 0]).len(), 298);
        assert_eq!(layouts("a100-40", &[19, 15, 14, 9, 5, 0]).len(), 723);
        assert_eq!(layouts("a30", &[14, 5, 0]).len(), 26);
    }

    #[test]
    fn what_is_taken_or_used_is_refused_with_the_librarys_codes() {
        let (mut state, model) = world("h100-80");
        assert_eq!(state.create(0, model, 3, None), Err(NOT_SUPPORTED));
        assert_eq!(state.create(0, model, 9, Some(2)), Err(INVALID));
        let gi = state.create(0, model, 9, Some(4)).unwrap();
        assert_eq!(state.create(0, model, 14, Some(4)), Err(NO_ROOM));
        assert_eq!(state.create(0, model, 0, None), Err(NO_ROOM));
        assert_eq!(state.create_compute((0, "g"), model, gi, 4), Err(NOT_SUPPORTED));
        assert_eq!(state.create_compute((0, "g"), model, 13, 0), Err(INVALID));
        let ci = state.create_compute((0, "g"), model, gi, 2).unwrap();
        assert_eq!(state.create_compute((0, "g"), model, gi, 0), Err(NO_ROOM));
        assert_eq!(state.destroy(0, gi, &[]), Err(IN_USE));
        let mut process = Process { pid: 1, mib: 1, gi: Some(gi), ci: None, sm: 0, hidden: false };
        assert_eq!(state.destroy_compute(0, (gi, ci), &[process.clone()]), Err(IN_USE));
        process.hidden = true;
        state.destroy_compute(0, (gi, ci), &[process.clone()]).unwrap();
        assert_eq!(state.destroy_compute(0, (gi, ci), &[]), Err(NOT_FOUND));
        assert_eq!(state.destroy(0, gi, &[process]), Err(IN_USE));
        state.destroy(0, gi, &[]).unwrap();
        assert_eq!(state.destroy(0, gi, &[]), Err(NOT_FOUND));
    }

    #[test]
    fn handles_keep_their_index_and_instances_never_share_a_uuid() {
        let (mut state, model) = world("a100-40");
        let make = |state: &mut State, profile| {
            let gi = state.create(0, model, profile, None).unwrap();
            state.create_compute((0, "g"), model, gi, 0).unwrap();
            gi
        };
        let ids: Vec<u32> = (0..3).map(|_| make(&mut state, 19)).collect();
        assert_eq!(ids, [7, 8, 9]);
        state.destroy_compute(0, (8, 0), &[]).unwrap();
        state.destroy(0, 8, &[]).unwrap();
        let slots: Vec<u32> = state.gpu[0].devices().map(|(_, ci)| ci.slot).collect();
        assert_eq!(slots, [0, 2]);
        let before: Vec<String> = state.gpu[0].devices().map(|(_, ci)| ci.uuid.clone()).collect();
        assert_eq!(make(&mut state, 19), 8);
        let again = &state.gpu[0].compute(8, 0).unwrap();
        assert_eq!(again.slot, 1);
        assert!(!before.contains(&again.uuid));
    }

    #[test]
    fn modes_change_as_the_parts_do() {
        for (model, used, status, after) in [
            ("a100-40", false, 16, false),
            ("a100-40", true, 19, false),
            ("h100-80", false, 0, true),
        ] {
            let scenario =
                Scenario::parse(&format!("gpu = [{{ model = '{model}' }}]"), "s").unwrap();
            let mut state = State::after_boot(&scenario, None, 0);
            assert_eq!(state.set_mode(0, &scenario.gpus[0], true, used), Ok(status));
            assert_eq!((state.gpu[0].mig, state.gpu[0].pending), (after, true), "{model}");
            let later = Scenario { boot: 1, ..scenario };
            let booted = State::after_boot(&later, Some(&state), 5);
            assert_eq!(booted.gpu[0].mig, model == "a100-40", "{model} after a boot");
            assert_ne!(booted.gpu[0].epoch, state.gpu[0].epoch);
        }
    }
}
