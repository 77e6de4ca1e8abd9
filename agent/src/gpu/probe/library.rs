//! Which library is it, and why can it not be used?

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::gpu::wire::Unusable;
use crate::sys::nvml::fake_problem;

/// The system's library, as the loader finds it.
const SYSTEM: &str = "libnvidia-ml.so.1";

/// A library that answers. Never unloaded: a call may hang in it.
pub(super) struct Library {
    pub(super) nvml: &'static Nvml,
    pub(super) fake: bool,
    pub(super) driver: String,
    notes: Mutex<BTreeSet<String>>,
}

impl Library {
    /// Loads and initialises the library at `path`; the system's where that is empty.
    pub(super) fn load(path: &Path) -> Result<Self, Unusable> {
        let path = if path.as_os_str().is_empty() { Path::new(SYSTEM) } else { path };
        let problem = fake_problem(path);
        let nvml = Nvml::builder()
            .lib_path(path.as_os_str())
            .init()
            .map_err(|error| unusable(path, &error))?;
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let nvml = Box::leak(Box::new(nvml));
        Ok(Self { nvml, fake: problem.is_some(), driver, notes: Mutex::default() })
    }

    /// The value of a call that a driver may lack or a GPU not support; what it lacks is noted.
    pub(super) fn known<T>(&self, answer: Result<T, NvmlError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(NvmlError::FailedToLoadSymbol(text)) => {
                let symbol = text.split(&[' ', ':', ',']).find(|word| word.starts_with("nvml"));
                let what = symbol.unwrap_or(&text);
                let note = format!("driver {} has no {what}: done without", self.driver);
                self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(note);
                None
            }
            Err(_) => None,
        }
    }

    /// What this driver cannot do, one line each.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn unusable(path: &Path, error: &NvmlError) -> Unusable {
    // Only now: a fake explains itself when it has been asked to start.
    let of_a_fake = fake_problem(path).filter(|problem| !problem.is_empty());
    let (word, text) = match error {
        NvmlError::LibloadingError(error) => {
            ("library_missing", format!("cannot load {}: {error}", path.display()))
        }
        NvmlError::DriverNotLoaded => {
            let text = "the NVIDIA driver is not loaded; try modprobe nvidia";
            ("driver_not_loaded", text.to_owned())
        }
        NvmlError::LibRmVersionMismatch => {
            let text = "driver mismatch: the driver's library was updated under the running kernel \
                        module; reload the module or reboot";
            ("driver_mismatch", text.to_owned())
        }
        NvmlError::NoPermission => {
            let text = "no permission for NVML; the agent needs /dev/nvidiactl";
            ("no_permission", text.to_owned())
        }
        error => ("nvml_failed", of_a_fake.unwrap_or_else(|| format!("NVML: {error}"))),
    };
    Unusable { word: word.to_owned(), text }
}

/// What a refusal of a GPU means, for people.
pub(super) fn words(error: &NvmlError) -> String {
    match error {
        NvmlError::GpuLost => "lost: it has fallen off the bus".to_owned(),
        NvmlError::ResetRequired => "needs a reset".to_owned(),
        NvmlError::InUse => "in use".to_owned(),
        NvmlError::UnexpectedVariant(23) => "no room there".to_owned(),
        NvmlError::NoPermission => "no permission; cutting a GPU takes root".to_owned(),
        error => error.to_string(),
    }
}
