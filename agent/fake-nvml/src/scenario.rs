//! What does a scenario say?
//!
//! One file is one node. Everything has a default but the model of each GPU, so that the shortest
//! scenario is `[[gpu]]` with `model = "h100-80"`. Times are seconds of the scenario's clock, which
//! begins when the library is first used in a folder, or stands at `now` where that is given.

mod check;

pub(crate) use check::{compute_slices, parse_bdf, parse_cpus};

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::curve::Curve;
use crate::models::Model;

/// A scenario that makes sense.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Version of the driver.
    #[serde(default = "driver")]
    pub(crate) driver: String,
    /// Version of CUDA that it serves: 12040 is 12.4.
    #[serde(default = "cuda")]
    pub(crate) cuda: i32,
    /// Raised by one, the machine was booted: instances are gone, and on Hopper MIG modes too.
    #[serde(default)]
    pub(crate) boot: u32,
    /// The scenario's clock stands at this second.
    #[serde(default)]
    pub(crate) now: Option<u64>,
    /// Symbols that the driver lacks.
    #[serde(default)]
    pub(crate) missing: Vec<String>,
    /// How the library's initialisation goes.
    #[serde(default)]
    pub(crate) init: Init,
    /// A GPU is used by the processes of this machine that have its UUID, or that of one of its MIG
    /// devices, in `CUDA_VISIBLE_DEVICES`; it is idle without any, and as busy as the variable
    /// `FAKE_GPU_PERCENT` of one of them says, where that is set. `FAKE_GPU_MIB` is what it has there.
    #[serde(default)]
    pub(crate) jobs: bool,
    /// The GPUs in the order of their index.
    #[serde(default, rename = "gpu")]
    pub(crate) gpus: Vec<Gpu>,
    /// What happens when.
    #[serde(default)]
    pub(crate) at: Vec<At>,
    /// Which calls go wrong.
    #[serde(default, rename = "fault")]
    pub(crate) faults: Vec<Fault>,
}

/// How the library's initialisation goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Init {
    /// NVML's code; 0: success.
    #[serde(default)]
    pub(crate) code: u32,
    #[serde(default)]
    pub(crate) delay_ms: u64,
}

/// One GPU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gpu {
    pub(crate) model: String,
    /// Empty: made from the scenario's folder and the index.
    #[serde(default)]
    pub(crate) uuid: String,
    /// `0000:3b:00.0`; empty: by index.
    #[serde(default)]
    pub(crate) bdf: String,
    /// N of `/dev/nvidiaN`; absent: the index.
    #[serde(default)]
    pub(crate) minor: Option<u32>,
    #[serde(default)]
    pub(crate) serial: String,
    #[serde(default)]
    pub(crate) numa: Option<u32>,
    /// CPUs near it, `0-15,32-47`; empty: unknown.
    #[serde(default)]
    pub(crate) cpus: String,
    /// GPUs at the other ends of its NVLinks, one entry a link.
    #[serde(default)]
    pub(crate) nvlink_to: Vec<u32>,
    /// Links to switches that all GPUs with such links hang on.
    #[serde(default)]
    pub(crate) nvswitch_links: u32,
    /// GPUs of one number hang on one PCIe switch.
    #[serde(default)]
    pub(crate) pcie_switch: Option<u32>,
    /// MIG mode at the beginning.
    #[serde(default)]
    pub(crate) mig: Mig,
    /// GPU instances at the beginning.
    #[serde(default)]
    pub(crate) gi: Vec<Instance>,
    /// Processes that use it.
    #[serde(default, rename = "proc")]
    pub(crate) processes: Vec<Process>,
    #[serde(default)]
    pub(crate) util: Curve,
    /// Celsius without work; work adds up to 45.
    #[serde(default = "idle_temperature")]
    pub(crate) temperature: u32,
    /// Bits of the reasons for throttling.
    #[serde(default)]
    pub(crate) throttle: u64,
    #[serde(default)]
    pub(crate) ecc: Ecc,
    #[serde(default)]
    pub(crate) remap: Remap,
    /// Recovery action: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset; absent: the
    /// driver knows no such field.
    #[serde(default)]
    pub(crate) recovery: Option<u32>,
}

/// MIG mode at the beginning, and how a change of it goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mig {
    #[serde(default)]
    pub(crate) current: bool,
    /// Absent: as `current`.
    #[serde(default)]
    pub(crate) pending: Option<bool>,
    /// Status of a change's activation instead of what follows from the model and the processes.
    #[serde(default)]
    pub(crate) activation: Option<u32>,
}

/// A GPU instance at the beginning.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instance {
    pub(crate) id: u32,
    /// The hardware's number.
    pub(crate) profile: u32,
    pub(crate) start: u32,
    /// Compute instances.
    #[serde(default)]
    pub(crate) ci: Vec<Compute>,
    /// Not told in lists, as an instance of somebody else's is not in some containers.
    #[serde(default)]
    pub(crate) hidden: bool,
}

/// A compute instance at the beginning.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compute {
    pub(crate) id: u32,
    pub(crate) profile: u32,
    /// Empty: made from GPU and ids.
    #[serde(default)]
    pub(crate) uuid: String,
}

/// A process that uses a GPU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) mib: u64,
    #[serde(default)]
    pub(crate) gi: Option<u32>,
    #[serde(default)]
    pub(crate) ci: Option<u32>,
    /// Percent of the multiprocessors.
    #[serde(default)]
    pub(crate) sm: u32,
    /// It holds its instance and is in no list.
    #[serde(default)]
    pub(crate) hidden: bool,
}

/// Errors of memory counted so far.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ecc {
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) corrected: u64,
    #[serde(default)]
    pub(crate) uncorrected: u64,
}

impl Default for Ecc {
    fn default() -> Self {
        Self { enabled: true, corrected: 0, uncorrected: 0 }
    }
}

/// Rows of memory that were replaced.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remap {
    #[serde(default)]
    pub(crate) corrected: u32,
    #[serde(default)]
    pub(crate) uncorrected: u32,
    #[serde(default)]
    pub(crate) pending: bool,
    #[serde(default)]
    pub(crate) failure: bool,
}

/// Something that happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct At {
    pub(crate) t: u64,
    pub(crate) gpu: u32,
    #[serde(default)]
    pub(crate) xid: Option<u32>,
    #[serde(default)]
    pub(crate) gi: Option<u32>,
    #[serde(default)]
    pub(crate) ci: Option<u32>,
    /// From now on, it does not answer (`true`), or answers again.
    #[serde(default)]
    pub(crate) lost: Option<bool>,
    #[serde(default)]
    pub(crate) recovery: Option<u32>,
    #[serde(default)]
    pub(crate) remap_pending: Option<bool>,
    #[serde(default)]
    pub(crate) remap_failure: Option<bool>,
    #[serde(default)]
    pub(crate) ecc_uncorrected: Option<u64>,
    #[serde(default)]
    pub(crate) throttle: Option<u64>,
    #[serde(default)]
    pub(crate) temperature: Option<u32>,
}

/// A call that goes wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// The symbol; `*`: every one but those of the whole library.
    pub(crate) call: String,
    /// Absent: on every GPU.
    #[serde(default)]
    pub(crate) gpu: Option<u32>,
    /// So many calls go well before.
    #[serde(default)]
    pub(crate) after: u32,
    /// So many calls go wrong; absent: all.
    #[serde(default)]
    pub(crate) times: Option<u32>,
    #[serde(default)]
    pub(crate) code: Option<u32>,
    #[serde(default)]
    pub(crate) delay_ms: u64,
    /// It does not return while the scenario says so.
    #[serde(default)]
    pub(crate) hang: bool,
    /// It ends the process.
    #[serde(default)]
    pub(crate) abort: bool,
    /// Texts are bytes that no text has.
    #[serde(default)]
    pub(crate) garbage: bool,
}

fn driver() -> String {
    "570.124.06".to_owned()
}

const fn cuda() -> i32 {
    12_080
}

const fn idle_temperature() -> u32 {
    31
}

const fn yes() -> bool {
    true
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {file}")]
    Read {
        /// Its name.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or has other keys or kinds of values than a scenario has.
    #[error("scenario {file}, line {line}: {problem}")]
    Syntax {
        /// Its name.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// It says something that cannot be.
    #[error("scenario {file}: {place}: {problem}")]
    Content {
        /// Its name.
        file: String,
        /// Which part, e.g. `gpu 2`.
        place: String,
        /// What is wrong, and the way out.
        problem: String,
    },
}

impl Scenario {
    /// Reads the scenario at `path`.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(source) => Err(ScenarioError::Read { file, source }),
        }
    }

    /// Reads `text`, which came from `file`.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn parse(text: &str, file: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            let problem = error.message().trim_end().replace('\n', "; ");
            ScenarioError::Syntax { file: file.to_owned(), line, problem }
        })?;
        scenario.fill_in(file);
        check::check(&scenario).map_err(|(place, problem)| ScenarioError::Content {
            file: file.to_owned(),
            place,
            problem,
        })?;
        Ok(scenario)
    }

    /// Gives every GPU an identity.
    fn fill_in(&mut self, file: &str) {
        for (gpu, index) in self.gpus.iter_mut().zip(0_u32..) {
            if gpu.uuid.is_empty() {
                gpu.uuid = format!("GPU-{}", made_uuid(&[file, &index.to_string()]));
            }
            if gpu.bdf.is_empty() {
                gpu.bdf = format!("0000:{:02x}:00.0", 0x1b + (index % 32) * 4);
            }
            gpu.minor.get_or_insert(index);
        }
    }

    /// The models of the GPUs, in order.
    pub fn models(&self) -> impl Iterator<Item = &'static Model> {
        self.gpus.iter().map(Gpu::model)
    }

    /// Major version of the driver.
    pub(crate) fn driver_major(&self) -> u32 {
        self.driver.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

impl Gpu {
    /// Its model.
    pub(crate) fn model(&self) -> &'static Model {
        Model::find(&self.model).expect("the model was looked up when the scenario was checked")
    }
}

/// A UUID (its 36 letters) that is always the same for the same words.
pub(crate) fn made_uuid(words: &[&str]) -> String {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0xff])) {
        state = crate::curve::mix(state ^ u64::from(byte));
    }
    let (high, low) = (crate::curve::mix(state), crate::curve::mix(state ^ 1));
    struct Groups(u64, u64);
    impl fmt::Display for Groups {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let (a, b, c) = (self.0 >> 32, self.0 >> 16 & 0xffff, self.0 & 0xffff);
            let (d, e) = (self.1 >> 48, self.1 & 0xffff_ffff_ffff);
            write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
        }
    }
    Groups(high, low).to_string()
}

#[cfg(test)]
mod tests;
