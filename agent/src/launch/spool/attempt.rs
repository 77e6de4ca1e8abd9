//! What lies in the folder of one attempt, and who may start it?

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, RunResult};
use prost::Message as _;
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::config::SpoolConfig;
use crate::gpu::Grant;
use crate::launch::cgroup::{Container, Group};
use crate::launch::lease;
use crate::launch::record::{self as files, Intent, Part};
use crate::launch::shepherd;
use crate::sys::wall_clock;

/// Who holds the claim of an attempt.
#[derive(Debug)]
pub(super) enum Claim {
    /// Nobody had it; this call took it for the agent, so that the attempt never starts.
    Taken,
    /// An agent had taken it before.
    Never,
    /// It was forbidden before its launch was seen.
    Tombstone,
    /// A shepherd that lives.
    Shepherd,
    /// A shepherd that is gone.
    Gone,
}

/// The folder of one attempt.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) key: AttemptKey,
    pub(super) path: PathBuf,
    script_dir: PathBuf,
}

impl Folder {
    pub(super) fn new(config: &SpoolConfig, key: AttemptKey) -> Self {
        let name = key.to_string();
        let path = config.spool_dir().join(&name);
        Self { key, path, script_dir: config.run_dir.join(name) }
    }

    /// Makes the folder; false if there is one already, and so perhaps a shepherd.
    pub(super) fn create(&self) -> io::Result<bool> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Writes down what is to be started.
    pub(super) fn write_intent(
        &self,
        config: &SpoolConfig,
        part: Part,
        devices: Grant,
    ) -> io::Result<()> {
        let ranges = part.job_share().map_or(&[][..], |share| &share.cpu_ranges);
        let cpus = config.cpus.as_ref().map(|map| map.list(ranges)).unwrap_or_default();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut hierarchies = config.hierarchies.clone();
        if cpus.is_empty() {
            hierarchies.cpuset.clear();
        }
        if config.max_processes.is_none() {
            hierarchies.pids.clear();
        }
        if devices.rules().is_empty() {
            hierarchies.devices.clear();
        }
        let (launch, step, hook) = match part {
            Part::Batch(launch) => (Some(launch), None, None),
            Part::Step(launch) => (None, Some(launch), None),
            Part::Hook(launch) => (None, None, Some(launch)),
        };
        let share = step.as_ref().and_then(|launch| launch.step.as_ref()?.shares.first());
        let ranges = share.and_then(|share| share.share.as_ref()).map(|share| &share.cpu_ranges);
        let step_cpus = config.cpus.as_ref().zip(ranges).map(|(map, ranges)| map.real(ranges));
        let intent = Intent {
            launch,
            step,
            hook,
            step_cpus: step_cpus.unwrap_or_default(),
            boot_id: config.boot_id.clone(),
            hierarchies: Some(hierarchies),
            script_dir: text(&self.script_dir),
            node: config.node.clone(),
            socket: text(&config.socket),
            commands_dir: config.commands_dir.as_deref().map(text).unwrap_or_default(),
            cpus,
            max_processes: config.max_processes.unwrap_or(0),
            lease_file: text(&lease::path(&config.state_dir)),
            devices: Some(devices),
        };
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(self.path.join(files::INTENT))?;
        file.write_all(&intent.encode_to_vec())
    }

    /// Finds out who has the claim, and takes it if nobody has.
    pub(super) fn claim(&self) -> io::Result<Claim> {
        let path = self.path.join(files::CLAIM);
        match self.claim_with(files::CLAIMED_BY_AGENT) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| Claim::Taken),
        }
        let text = fs::read(&path)?;
        if text == files::CLAIMED_BY_AGENT {
            return Ok(Claim::Never);
        }
        if text == files::TOMBSTONE {
            return Ok(Claim::Tombstone);
        }
        match rustix::fs::flock(File::open(&path)?, FlockOperation::NonBlockingLockExclusive) {
            // A shepherd locks its claim before it names it: this one's is gone.
            Ok(()) => Ok(Claim::Gone),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Claim::Shepherd),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the claim with `text` as the reason.
    ///
    /// # Errors
    /// `AlreadyExists` if somebody has it.
    pub(super) fn claim_with(&self, text: &[u8]) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let path = self.path.join(files::CLAIM);
        options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text)
    }

    /// The record of the end; `None` if there is none yet.
    pub(super) fn read_end(&self) -> Option<RunResult> {
        let bytes = fs::read(self.path.join(files::EXIT)).ok()?;
        let wire = v1::RunResult::decode(Bytes::from(bytes)).ok()?;
        Some(files::result_from_wire(wire))
    }

    /// Keeps `result` as the end of an attempt that no shepherd will write about.
    pub(super) fn write_end(&self, result: &RunResult) -> io::Result<()> {
        let new = self.path.join(files::EXIT_NEW);
        fs::write(&new, files::result_to_wire(result).encode_to_vec())?;
        fs::rename(new, self.path.join(files::EXIT))
    }

    /// The boot that the intent was written in; `None` if it cannot be read.
    pub(super) fn boot_id(&self) -> Option<String> {
        self.intent().map(|intent| intent.boot_id)
    }

    /// UUIDs of the GPUs and slices that it was given.
    pub(super) fn devices(&self) -> Vec<String> {
        let devices = self.intent().and_then(|intent| intent.devices);
        devices.map(|devices| devices.uuids()).unwrap_or_default()
    }

    fn intent(&self) -> Option<Intent> {
        let bytes = fs::read(self.path.join(files::INTENT)).ok()?;
        Intent::decode(Bytes::from(bytes)).ok()
    }

    /// Connects to a shepherd that waits for an agent.
    pub(super) fn connect(&self) -> io::Result<OwnedFd> {
        // Through the descriptor, since the path may be longer than a socket's name can be.
        let dir = File::open(&self.path)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
        let name = SocketAddrUnix::new(format!("/proc/self/fd/{fd}/{}", files::CONTROL))?;
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &name)?;
        Ok(socket)
    }

    /// Ends what a shepherd that is gone left behind, and says how the attempt ended.
    pub(super) fn clean_up_lost(&self, config: &SpoolConfig) -> RunResult {
        let hierarchies = &config.hierarchies;
        let name = files::group_name(self.key);
        let mut unkillable = false;
        if hierarchies.is_usable() {
            let group = Container::Group(Box::new(Group::named(hierarchies, &name)));
            unkillable = !kill_and_remove(&group);
        }
        shepherd::remove_script(&self.script_dir);
        let said = fs::read_to_string(self.path.join(files::PANIC)).unwrap_or_default();
        if !said.is_empty() {
            tracing::error!(attempt = %self.key, panic = said, "a shepherd panicked");
        }
        RunResult { end: wall_clock(), lost: true, unkillable, ..RunResult::default() }
    }

    /// Removes the folder and the script.
    pub(super) fn remove(&self) -> io::Result<()> {
        for name in [files::INTENT, files::CLAIM, files::EXIT] {
            let _absent = fs::remove_file(self.path.join(name));
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Rarer files: a socket, what a panic left, a private list of hosts.
            Err(_) => {
                shepherd::remove_script(&self.script_dir);
                fs::remove_dir_all(&self.path)
            }
            Ok(()) => Ok(()),
        }
    }
}

/// How often a group is killed before it is left to the admin, and the pause between.
const KILL_TRIES: u32 = 100;
const KILL_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Kills what is in a group; true if it is gone.
fn kill_and_remove(group: &Container) -> bool {
    for _ in 0..KILL_TRIES {
        if group.remove() {
            return true;
        }
        // What fails now is tried again; what never works is reported by the caller.
        let _again = group.kill();
        std::thread::sleep(KILL_PAUSE);
    }
    group.remove()
}
