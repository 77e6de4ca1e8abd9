//! What does a spool have to know of its agent?

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::{SpoolError, ensure_folder};
use crate::gpu::Devices;
use crate::inventory::CpuMap;
use crate::launch::cgroup::Hierarchies;
use crate::launch::shepherd::SERVE;

/// Where the spool is, and what every job on this node is told.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The agent's own folder; the spool is `spool/` in it, mode 0700.
    pub state_dir: PathBuf,
    /// Folder for scripts, mode 0711. On a file system that holds programs, or scripts are run by
    /// their interpreter.
    pub run_dir: PathBuf,
    /// What is run to get shepherds.
    pub shepherd: ShepherdCommand,
    /// This node's name.
    pub node: String,
    /// The socket that the job's commands use.
    pub socket: PathBuf,
    /// Folder with commands of Slurm's names, put into jobs' `PATH`.
    pub commands_dir: Option<PathBuf>,
    /// Which real CPU each logical one is; `None`: jobs are not pinned.
    pub cpus: Option<CpuMap>,
    /// Most processes and threads of a job; `None`: no limit.
    pub max_processes: Option<u32>,
    /// Where groups are made; see [`crate::launch::cgroup::detect`].
    pub hierarchies: Hierarchies,
    /// Boot id of the machine.
    pub boot_id: String,
    /// Devices that jobs may be given.
    pub devices: Devices,
}

impl SpoolConfig {
    /// The spool below an agent's own folder.
    pub(crate) fn folder(state_dir: &Path) -> PathBuf {
        state_dir.join("spool")
    }

    pub(super) fn spool_dir(&self) -> PathBuf {
        Self::folder(&self.state_dir)
    }

    pub(super) fn make_folders(&self) -> Result<(), SpoolError> {
        ensure_folder(&self.state_dir, 0o700)?;
        ensure_folder(&self.spool_dir(), 0o700)?;
        ensure_folder(&self.run_dir, 0o711)
    }
}

/// The program that forks shepherds; `-` is added as last argument.
#[derive(Debug, Clone)]
pub struct ShepherdCommand {
    program: PathBuf,
    arguments: Vec<String>,
    /// Keeps the program's file, even if it is replaced or removed.
    _kept: Option<Arc<File>>,
}

impl ShepherdCommand {
    /// Another program, for tests.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<String>) -> Self {
        Self { program, arguments, _kept: None }
    }

    /// The program that this process runs, as `penstock shepherd -`. The file is held open: an
    /// agent whose binary was replaced goes on to start shepherds of its own version.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn own() -> io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        // The spawned process still has the descriptor when it looks the path up.
        let program = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let arguments = vec!["shepherd".to_owned()];
        Ok(Self { program, arguments, _kept: Some(Arc::new(file)) })
    }

    /// The command. Its environment is empty but for the time zone: what an agent was started
    /// with is none of a job's business.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0("penstock").args(&self.arguments).arg(SERVE).env_clear();
        if let Some(zone) = std::env::var_os("TZ") {
            command.env("TZ", zone);
        }
        command
    }
}
