//! What does the agent's file say about GPUs and other accelerators?

use std::path::PathBuf;

use penstock_vocab::GresName;

/// The section `[agent.gpu]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSettings {
    /// Whether GPUs are looked for at all.
    pub detect: bool,
    /// NVML's library; `None`: the system's, where this machine has an NVIDIA GPU.
    pub library: Option<PathBuf>,
    /// The kernel's log, in which the driver tells of faults; `None`: the system's, where the library is
    /// the system's too.
    pub kernel_log: Option<PathBuf>,
    /// GPUs that processes of nobody use are given out all the same.
    pub shares_foreign: bool,
    /// Folder of the GPUs' device files.
    pub device_dir: PathBuf,
    /// Seconds between samples of what GPUs do; 0: none are taken.
    pub sample_secs: u32,
    /// What `CUDA_VISIBLE_DEVICES` names whole GPUs by.
    pub numbering: Numbering,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self {
            detect: true,
            library: None,
            kernel_log: None,
            shares_foreign: false,
            device_dir: PathBuf::from(super::probe::DEVICE_DIR),
            sample_secs: DEFAULT_SAMPLE_SECS,
            numbering: Numbering::Uuid,
        }
    }
}

/// Seconds between samples if the file does not say.
const DEFAULT_SAMPLE_SECS: u32 = 10;

/// What a job is told of its whole GPUs. Slices are always named by UUID: an index cannot choose
/// among those of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numbering {
    /// `GPU-...`: the same wherever the job looks.
    #[default]
    Uuid,
    /// Slurm's way: the node's indices, or from 0 where the job sees no others.
    Index,
}

/// An entry of `[[agent.accelerator]]`: devices that need no code of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accelerator {
    /// As jobs ask for it, e.g. `npu:910b`.
    pub name: GresName,
    /// The device file of each unit, in order.
    pub files: Vec<PathBuf>,
    /// Files that every job with a unit needs.
    pub common: Vec<PathBuf>,
    /// Variable that lists a job's units by number, e.g. `ASCEND_VISIBLE_DEVICES`; empty: none.
    pub variable: String,
}
