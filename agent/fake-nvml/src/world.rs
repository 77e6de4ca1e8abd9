//! What is true just now, for every process that loaded the library from one folder?

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nvml_wrapper_sys::bindings as sys;

use crate::SCENARIO_NAME;
use crate::abi::{Sample, Waiting};
use crate::jobs::{self, Holder};
use crate::models::Model;
use crate::scenario::{At, Gpu, Process, Scenario};
use crate::state::{Answer, Code, GpuState, INVALID, State};

/// File with what calls changed.
const STATE_NAME: &str = "state.toml";

/// For so long, what was read of the machine's processes counts.
const JOBS_AGE: Duration = Duration::from_millis(500);

/// The one world of this process.
static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new(folder())));

/// Holds the world; whoever panicked while holding it left it as it was between two calls.
pub(crate) fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder that this library was loaded from.
fn folder() -> PathBuf {
    let path = crate::abi::own_path().unwrap_or_default();
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// A file's identity and last change.
type Signature = Option<(u64, i64, i64, u64)>;

fn signature(path: &Path) -> Signature {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
}

/// See the module's docs.
pub(crate) struct World {
    folder: PathBuf,
    pub(crate) scenario: Arc<Scenario>,
    scenario_seen: Signature,
    state: State,
    state_seen: Signature,
    /// Initialisations that were not shut down again.
    inits: u32,
    /// Why the scenario cannot be used.
    pub(crate) problem: Option<CString>,
    /// Calls that each fault was asked about, by its place in the scenario.
    asked: BTreeMap<usize, u32>,
    jobs: (Option<Instant>, Vec<Holder>),
    /// Percent times milliseconds that jobs did on each GPU, until the moment beside it.
    worked: BTreeMap<usize, (u64, u64)>,
    /// Event sets of this process.
    pub(crate) waiting: BTreeMap<u8, Waiting>,
    /// Samples of this process.
    pub(crate) samples: BTreeMap<u8, Sample>,
    /// Texts are to be garbage for the call that is served.
    pub(crate) garbage: bool,
}

/// What is wrong with a call.
pub(crate) enum Verdict {
    Well,
    Refuse(Code),
    Wait(Duration),
    Hang,
    Abort,
}

/// What the film says of a GPU up to now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    pub(crate) lost: bool,
    pub(crate) recovery: Option<u32>,
    pub(crate) remap_pending: bool,
    pub(crate) remap_failure: bool,
    pub(crate) ecc_uncorrected: u64,
    pub(crate) throttle: u64,
    pub(crate) temperature: Option<u32>,
}

impl World {
    fn new(folder: PathBuf) -> Self {
        let nothing = Scenario::parse("", "").expect("an empty scenario is a node without GPUs");
        Self {
            folder,
            scenario: Arc::new(nothing),
            scenario_seen: None,
            state: State::default(),
            state_seen: None,
            inits: 0,
            problem: None,
            asked: BTreeMap::new(),
            jobs: (None, Vec::new()),
            worked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            samples: BTreeMap::new(),
            garbage: false,
        }
    }

    /// Begins to be used; the scenario's code where it cannot be.
    pub(crate) fn init(&mut self) -> Answer<()> {
        self.look();
        if self.problem.is_some() {
            return Err(sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN);
        }
        if self.scenario.init.code != 0 {
            return Err(self.scenario.init.code);
        }
        self.change(|_, _| Ok(()))?;
        self.inits += 1;
        Ok(())
    }

    /// Ends one use.
    pub(crate) fn shut_down(&mut self) -> Answer<()> {
        self.inits =
            self.inits.checked_sub(1).ok_or(sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
        if self.inits == 0 {
            self.waiting.clear();
            self.samples.clear();
        }
        Ok(())
    }

    pub(crate) const fn is_initialised(&self) -> bool {
        self.inits > 0
    }

    /// Reads what changed on disk. A scenario that makes no sense leaves the one before in force.
    pub(crate) fn look(&mut self) {
        let path = self.folder.join(SCENARIO_NAME);
        let seen = signature(&path);
        if seen.is_none() || seen != self.scenario_seen {
            match Scenario::load(&path) {
                Ok(scenario) => {
                    if scenario.faults.len() != self.scenario.faults.len() {
                        self.asked.clear();
                    }
                    self.scenario = Arc::new(scenario);
                    self.problem = None;
                }
                Err(error) => {
                    let source = std::error::Error::source(&error);
                    let source = source.map_or_else(String::new, |source| format!(": {source}"));
                    self.problem = CString::new(format!("{error}{source}")).ok();
                }
            }
            self.scenario_seen = seen;
        }
        self.look_at_state();
    }

    fn look_at_state(&mut self) {
        let path = self.folder.join(STATE_NAME);
        let seen = signature(&path);
        if seen.is_some() && seen != self.state_seen {
            if let Some(state) = fs::read_to_string(path).ok().and_then(|t| toml::from_str(&t).ok())
            {
                self.state = state;
            }
            self.state_seen = seen;
        }
    }

    /// Changes the state as the only process that does; a refusal changes nothing.
    pub(crate) fn change<T>(
        &mut self,
        how: impl FnOnce(&mut State, &Scenario) -> Answer<T>,
    ) -> Answer<T> {
        let system = |_| sys::nvmlReturn_enum_NVML_ERROR_OPERATING_SYSTEM;
        let lock = File::create(self.folder.join("state.lock")).map_err(system)?;
        lock.lock().map_err(system)?;
        self.look_at_state();
        let scenario = Arc::clone(&self.scenario);
        let mut next = self.state.clone();
        let old = self.state_seen.is_some().then_some(&self.state);
        if old.is_none_or(|old| old.boot != scenario.boot) {
            next = State::after_boot(&scenario, old, wall_ms());
        } else {
            next.follow(&scenario);
        }
        let done = how(&mut next, &scenario)?;
        if next != self.state || self.state_seen.is_none() {
            let text = toml::to_string(&next).map_err(|_| INVALID)?;
            let (path, new) = (self.folder.join(STATE_NAME), self.folder.join("state.new"));
            fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(system)?;
            self.state_seen = signature(&path);
            self.state = next;
        }
        Ok(done)
    }

    /// Milliseconds on the scenario's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        match self.scenario.now {
            Some(seconds) => seconds * 1000,
            None => wall_ms().saturating_sub(self.state.started_ms),
        }
    }

    /// What is to go wrong with `call` on `gpu`; `*` stands for calls on GPUs only.
    pub(crate) fn judge(&mut self, call: &str, gpu: Option<usize>) -> Verdict {
        self.garbage = false;
        let scenario = Arc::clone(&self.scenario);
        if scenario.missing.iter().any(|name| name == call) {
            return Verdict::Refuse(sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND);
        }
        for (at, fault) in scenario.faults.iter().enumerate() {
            let hits = fault.call == call || fault.call == "*" && gpu.is_some();
            if !hits || fault.gpu.is_some_and(|which| Some(which as usize) != gpu) {
                continue;
            }
            let asked = self.asked.entry(at).or_default();
            let number = *asked;
            *asked = asked.saturating_add(1);
            let end = fault.times.map(|times| fault.after.saturating_add(times));
            if number < fault.after || end.is_some_and(|end| number >= end) {
                continue;
            }
            self.garbage |= fault.garbage;
            if fault.abort {
                return Verdict::Abort;
            }
            if fault.hang {
                return Verdict::Hang;
            }
            if let Some(code) = fault.code.filter(|_| fault.delay_ms == 0) {
                return Verdict::Refuse(code);
            }
            if fault.delay_ms > 0 {
                return Verdict::Wait(Duration::from_millis(fault.delay_ms));
            }
        }
        match gpu {
            Some(gpu) if self.now(gpu).lost => {
                Verdict::Refuse(sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST)
            }
            _ => Verdict::Well,
        }
    }

    /// The GPU with this index: the scenario's and the state's half of it.
    pub(crate) fn gpu(&self, index: usize) -> Answer<(&Gpu, &'static Model, &GpuState)> {
        let given = self.scenario.gpus.get(index).ok_or(INVALID)?;
        let state = self.state.gpu.get(index).ok_or(INVALID)?;
        Ok((given, given.model(), state))
    }

    /// What has happened by now, in the order of the film.
    pub(crate) fn happened(&self) -> impl Iterator<Item = (usize, &At)> {
        let now = self.now_ms();
        self.scenario.at.iter().enumerate().filter(move |(_, at)| at.t * 1000 <= now)
    }

    /// What the film says of a GPU.
    pub(crate) fn now(&self, gpu: usize) -> Now {
        let Some(given) = self.scenario.gpus.get(gpu) else { return Now::default() };
        let mut now = Now {
            recovery: given.recovery,
            remap_pending: given.remap.pending,
            remap_failure: given.remap.failure,
            ecc_uncorrected: given.ecc.uncorrected,
            throttle: given.throttle,
            ..Now::default()
        };
        for (_, at) in self.happened().filter(|(_, at)| at.gpu as usize == gpu) {
            now.lost = at.lost.unwrap_or(now.lost);
            now.recovery = at.recovery.or(now.recovery);
            now.remap_pending = at.remap_pending.unwrap_or(now.remap_pending);
            now.remap_failure = at.remap_failure.unwrap_or(now.remap_failure);
            now.ecc_uncorrected = at.ecc_uncorrected.unwrap_or(now.ecc_uncorrected);
            now.throttle = at.throttle.unwrap_or(now.throttle);
            now.temperature = at.temperature.or(now.temperature);
        }
        now
    }

    fn holders(&mut self) -> &[Holder] {
        if self.jobs.0.is_none_or(|read| read.elapsed() > JOBS_AGE) {
            self.jobs = (Some(Instant::now()), jobs::holders());
        }
        &self.jobs.1
    }

    /// Processes that use a GPU, with how busy each keeps it; those in no list too.
    pub(crate) fn processes(&mut self, gpu: usize) -> Vec<Process> {
        let Ok((given, _, state)) = self.gpu(gpu) else { return Vec::new() };
        let mut all = given.processes.clone();
        if !self.scenario.jobs {
            return all;
        }
        let curve = given.util.at(self.now_ms());
        let mut names = vec![(given.uuid.clone(), None)];
        let devices = state.devices().map(|(gi, ci)| (ci.uuid.clone(), Some((gi.id, ci.id))));
        names.extend(devices);
        for holder in self.holders() {
            for (_, ids) in names.iter().filter(|(uuid, _)| holder.uuids.contains(uuid)) {
                let (gi, ci) = ids.unzip();
                let sm = holder.percent.unwrap_or(curve);
                let (pid, mib) = (holder.pid, holder.mib);
                all.push(Process { pid, mib, gi, ci, sm, hidden: false });
            }
        }
        all
    }

    /// How busy a GPU, or one of its instances, is: percent.
    pub(crate) fn percent(&mut self, gpu: usize, gi: Option<u32>) -> u32 {
        let processes = self.processes(gpu);
        let now = self.now_ms();
        let Ok((given, model, state)) = self.gpu(gpu) else { return 0 };
        let of = |gi: u32| {
            let busy = processes.iter().filter(|process| process.gi == Some(gi));
            busy.map(|process| process.sm).max().unwrap_or(0).min(100)
        };
        match gi {
            Some(gi) => of(gi),
            None if state.mig => {
                let share = |instance: &crate::state::GiState| {
                    let compute = model.profile(instance.profile).map_or(0, |p| p.compute);
                    of(instance.id) * compute
                };
                let whole = if model.slices == 8 { 7 } else { model.slices.max(1) };
                state.gi.iter().map(share).sum::<u32>() / whole
            }
            None if self.scenario.jobs => {
                processes.iter().map(|process| process.sm).max().unwrap_or(0).min(100)
            }
            None => given.util.at(now),
        }
    }

    /// Percent times milliseconds that a GPU worked so far.
    pub(crate) fn work(&mut self, gpu: usize) -> u64 {
        let now = self.now_ms();
        let by_film = match self.gpu(gpu) {
            Ok((given, _, state)) if !state.mig && !self.scenario.jobs => {
                Some(given.util.work(now))
            }
            _ => None,
        };
        if let Some(work) = by_film {
            return work;
        }
        let percent = u64::from(self.percent(gpu, None));
        let (done, until) = self.worked.entry(gpu).or_insert((0, now));
        *done += percent * now.saturating_sub(*until);
        *until = now;
        *done
    }

    /// Milliwatts that a GPU draws.
    pub(crate) fn power_mw(&mut self, gpu: usize) -> u32 {
        let percent = self.percent(gpu, None);
        let Ok((_, model, _)) = self.gpu(gpu) else { return 0 };
        let (idle, most) = model.power_mw;
        idle + (most - idle) / 100 * percent
    }

    /// Millijoules that a GPU used so far.
    pub(crate) fn energy_mj(&mut self, gpu: usize) -> u64 {
        let (work, now) = (self.work(gpu), self.now_ms());
        let Ok((_, model, _)) = self.gpu(gpu) else { return 0 };
        let (idle, most) = model.power_mw;
        (u64::from(idle) * now + u64::from(most - idle) * work / 100) / 1000
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
