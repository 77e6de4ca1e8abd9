//! How are the parts of the agent put together, started and ended?
//!
//! First the spool: what the last agent left must be known before the first word to the
//! controller, which takes what is absent from a registration for lost. Then the link, the gate
//! and the owner of the supervisor run side by side on one thread, and the spool on another. The
//! end of the agent is no end for jobs: nothing is ordered of them.

use std::error::Error as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use penstock_proto::v1;
use penstock_supervisor::{Recovery, StorePosition};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::AgentConfig;
use crate::enrol::Member;
use crate::gate::{Gate, GateError};
use crate::gpu::{self, Devices, Monitor, ProbeCommand};
use crate::health::HealthChecks;
use crate::identity::{Identity, IdentityError};
use crate::inventory::{self, Claims, CpuMap, InventoryError};
use crate::launch::{Opened, ShepherdCommand, Spool, SpoolConfig, SpoolError, cgroup};
use crate::link::Link;
use crate::owner::{Ears, OfGpus, Owner};
use crate::position::{PositionError, PositionFile};

/// Name of the file in the agent's folder by which an admin confirms a controller's store.
const CONFIRM_FILE: &str = "confirm-store";

/// Messages of the controller that wait for the owner; each may be a launch with its script.
const LINK_EVENTS: usize = 64;

/// News of GPUs that wait for the owner, and orders that wait for the monitor.
const GPU_NEWS: usize = 64;

/// Name of the file whose lock keeps a second agent out.
const LOCK_FILE: &str = "lock";

/// Why an agent cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A folder of the agent cannot be made or used.
    #[error("cannot {what} {}", path.display())]
    Folder {
        /// `create`, `open` and the like.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two agents in one folder would take each other's jobs for lost.
    #[error(
        "another agent runs with state_dir {}; end it first, or give this one a state_dir of its \
         own",
        state_dir.display()
    )]
    Running {
        /// The folder of both.
        state_dir: PathBuf,
    },
    /// The host's identity is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The position of the controller's store cannot be read.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// What the last agent left cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What the machine has cannot be found out, or is less than the file claims.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The socket for commands cannot be made.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The system gives no runtime, thread or signal.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A part of the agent ended by a fault of ours; a restart finds all jobs again.
    #[error("the agent's {part} ended unexpectedly")]
    PartEnded {
        /// Which.
        part: &'static str,
    },
}

/// Runs the agent on a runtime of its own, one thread wide, until SIGTERM or SIGINT.
///
/// # Errors
/// See [`AgentError`]; jobs go on in any case.
pub fn run_blocking(config: AgentConfig) -> Result<(), AgentError> {
    crate::sys::seal_inherited();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { what: "make a runtime", source })?;
    runtime.block_on(run(config))
}

/// Runs the agent until SIGTERM or SIGINT. Needs a tokio runtime; blocks it while it starts.
///
/// # Errors
/// See [`AgentError`]; jobs go on in any case.
pub async fn run(config: AgentConfig) -> Result<(), AgentError> {
    let cancel = CancellationToken::new();
    let mut signals = Signals::new()?;
    let _lock = prepare_folders(&config)?;
    let mut parts = start(config.clone(), &cancel).await?;
    let ended = tokio::select! {
        name = signals.next() => {
            info!(signal = name, "ending; jobs go on");
            None
        }
        part = parts.join_next() => part,
    };
    cancel.cancel();
    while parts.join_next().await.is_some() {}
    remove_groups(&config);
    match ended {
        None => Ok(()),
        Some(Ok(part)) => Err(AgentError::PartEnded { part }),
        Some(Err(error)) => {
            error!(%error, "a part of the agent failed by a fault of ours");
            Err(AgentError::PartEnded { part: "task" })
        }
    }
}

/// Whether the agent of this file has attempts in its spool: jobs that run, or whose end the
/// controller has not confirmed.
#[must_use]
pub fn holds_attempts(config: &AgentConfig) -> bool {
    let spool = SpoolConfig::folder(&config.state_dir);
    fs::read_dir(spool).is_ok_and(|mut entries| entries.next().is_some())
}

/// Removes the directories of this agent's cgroups, unless it [`holds_attempts`]; its next start
/// makes them again. For an agent that ends or has ended.
pub fn remove_groups(config: &AgentConfig) {
    if !holds_attempts(config) {
        cgroup::remove(&group_name(config));
    }
}

/// Reads what there is, then starts every part; each says its name when it ends.
async fn start(
    config: AgentConfig,
    cancel: &CancellationToken,
) -> Result<JoinSet<&'static str>, AgentError> {
    let gate = Gate::bind(&config.socket)?;
    let identity = Identity::open(&config.state_dir)?;
    let position_file = PositionFile::in_folder(&config.state_dir);
    let store = position_file.read()?;
    let (mut inventory, spool) = machine(&config)?;
    let monitor = monitor(&config, &spool)?;
    let (picture, gpus) = gpu::first_look(monitor).await;
    picture.apply(&mut inventory);
    if !spool.hierarchies.confines_devices() && spool.devices.any() {
        warn!("no device controller can be used here: jobs can open the GPUs of others");
    }
    let Opened { spool, found, leases, events: host } = Spool::open(spool)?;
    let (node, controller) = (config.name.to_string(), config.controller.clone());
    info!(node, attempts = found.len(), "starting");

    let (events, link) = mpsc::channel(LINK_EVENTS);
    let again = Arc::new(Notify::new());
    let (position, positions) = watch::channel(None);
    let (gate_channel, gate_channels) = watch::channel(None);
    let (news, gpu_news) = mpsc::channel(GPU_NEWS);
    let (orders, gpu_orders) = mpsc::channel(GPU_NEWS);
    let owner = Owner {
        node,
        inventory,
        host: spool,
        position,
        again: Arc::clone(&again),
        confirm_file: config.state_dir.join(CONFIRM_FILE),
        gpus: OfGpus::new(orders, picture.complaint),
        health: HealthChecks::new(
            config.name.as_str(),
            &config.socket,
            commands_dir(&config).as_deref(),
        ),
    };
    let dial = Member::new(config, identity, gate_channel)?;
    let link_end = Link { dial, events, again, controller: controller.clone() };

    let mut parts = JoinSet::new();
    let (ears, recovery) = (Ears { link, host, gpus: gpu_news }, Recovery { found, store, leases });
    parts.spawn(named("supervisor", owner.run(recovery, ears, cancel.clone())));
    parts.spawn(named("link", link_end.run(cancel.clone())));
    parts.spawn(named("gpus", gpus.run(news, gpu_orders, cancel.clone())));
    parts.spawn(named("position", keep_position(position_file, positions)));
    let cancel = cancel.clone();
    parts.spawn(named("gate", async move {
        gate.serve(gate_channels, &controller, cancel).await;
    }));
    Ok(parts)
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

/// Writes each new position; where several come while one is written, the last is enough. Ends
/// when the owner is gone and the last position is written.
async fn keep_position(file: PositionFile, mut positions: watch::Receiver<Option<StorePosition>>) {
    while positions.changed().await.is_ok() {
        let Some(position) = positions.borrow_and_update().clone() else { continue };
        let file = file.clone();
        match tokio::task::spawn_blocking(move || file.write(&position)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let source = error.source().map(ToString::to_string);
                warn!(%error, source, "the position of the controller's store is not kept");
            }
            Err(error) => warn!(%error, "the position of the controller's store is not kept"),
        }
    }
}

/// Makes the agent's folders and takes the lock that keeps a second agent out; it is held as long
/// as the file is.
fn prepare_folders(config: &AgentConfig) -> Result<File, AgentError> {
    for (path, mode) in [(&config.state_dir, 0o700), (&config.run_dir, 0o711)] {
        let failed = |what| move |source| AgentError::Folder { what, path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed("create"))?;
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set mode of"))?;
    }
    let path = config.state_dir.join(LOCK_FILE);
    let failed = |what| {
        let path = path.clone();
        move |source| AgentError::Folder { what, path, source }
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(failed("open"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(AgentError::Running { state_dir: config.state_dir.clone() }),
        Err(error) => Err(failed("lock")(error.into())),
    }
}

/// What this machine offers, and how the spool is to use it.
fn machine(config: &AgentConfig) -> Result<(v1::Inventory, SpoolConfig), AgentError> {
    let stock = inventory::take(&Claims {
        cpus: config.cpus,
        memory: config.memory,
        gres: config.gres.clone(),
        features: config.features.clone(),
        address: config.address.map_or_else(String::new, |address| address.to_string()),
        unpinned: !config.pin_cpus,
    })?;
    let groups = cgroup::detect(&group_name(config));
    for note in &groups.notes {
        warn!("{note}");
    }
    if config.max_processes.is_some() && !groups.hierarchies.limits_processes() {
        warn!("the pids controller cannot be used here: max_processes is not kept");
    }
    let shepherd = ShepherdCommand::own()
        .map_err(|source| AgentError::System { what: "open this program's file", source })?;
    let spool = SpoolConfig {
        state_dir: config.state_dir.clone(),
        run_dir: config.run_dir.clone(),
        shepherd,
        node: config.name.to_string(),
        socket: config.socket.clone(),
        commands_dir: commands_dir(config),
        cpus: stock.cpus,
        max_processes: config.max_processes,
        hierarchies: groups.hierarchies,
        boot_id: stock.inventory.boot_id.clone(),
        devices: Devices::new(config.gpu.clone(), config.accelerators.clone()),
    };
    Ok((stock.inventory, spool))
}

/// Who looks after the GPUs.
fn monitor(config: &AgentConfig, spool: &SpoolConfig) -> Result<Monitor, AgentError> {
    let command = ProbeCommand::own()
        .map_err(|source| AgentError::System { what: "open this program's file", source })?;
    Ok(Monitor {
        settings: config.gpu.clone(),
        claims: config.gres.clone(),
        declared: config.accelerators.clone(),
        command,
        devices: spool.devices.clone(),
        state_dir: config.state_dir.clone(),
        boot_id: spool.boot_id.clone(),
        cpus: spool.cpus.as_ref().map(CpuMap::logical).unwrap_or_default(),
    })
}

/// Names this agent's groups: by its folder too, since nodes of two clusters may share name and
/// machine.
fn group_name(config: &AgentConfig) -> String {
    let folder = Sha256::digest(config.state_dir.as_os_str().as_encoded_bytes());
    let hex: String = folder.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hex}", config.name)
}

/// The folder with Slurm's commands: as configured, or where this program is.
fn commands_dir(config: &AgentConfig) -> Option<PathBuf> {
    config.commands_dir.clone().or_else(|| {
        let program = std::env::current_exe().ok()?;
        let folder = program.parent()?;
        folder.join("sbatch").exists().then(|| folder.to_owned())
    })
}

/// The signals that end the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, AgentError> {
        let listen = |kind| {
            signal(kind).map_err(|source| AgentError::System { what: "listen for signals", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use penstock_supervisor::StoreId;

    use super::*;

    fn config(folder: &Path) -> AgentConfig {
        let text = format!(
            "[agent]\ncontroller = '127.0.0.1:1'\nname = 'n1'\nstate_dir = 'state/a'\n\
             run_dir = 'run'\nsocket = '{}'",
            folder.join("sock").display()
        );
        AgentConfig::parse(&text, &folder.join("c.toml")).expect("valid")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_serves_one_agent_at_a_time() {
        let folder = tempfile::tempdir().expect("folder");
        let config = config(folder.path());
        let lock = prepare_folders(&config).expect("free");
        assert_eq!((mode(&config.state_dir), mode(&config.run_dir)), (0o700, 0o711));
        let error = prepare_folders(&config).expect_err("taken");
        assert!(matches!(error, AgentError::Running { .. }), "{error}");
        assert!(error.to_string().contains("state/a"), "{error}");
        drop(lock);
        prepare_folders(&config).expect("free again");
    }

    #[test]
    fn agents_of_one_name_have_groups_of_their_own() {
        let (one, two) = (config(Path::new("/one")), config(Path::new("/two")));
        assert_eq!(group_name(&one), group_name(&one));
        assert_ne!(group_name(&one), group_name(&two));
        assert!(group_name(&one).starts_with("n1-"));
    }

    #[test]
    fn groups_stay_while_the_spool_holds_an_attempt() {
        let folder = tempfile::tempdir().expect("folder");
        let config = config(folder.path());
        assert!(!holds_attempts(&config));
        let attempt = SpoolConfig::folder(&config.state_dir).join("1.1");
        fs::create_dir_all(&attempt).expect("made");
        assert!(holds_attempts(&config));
        let groups = cgroup::detect(&group_name(&config)).hierarchies;
        let parents = [&groups.unified, &groups.memory, &groups.cpuset, &groups.freezer];
        let there = || parents.iter().filter(|dir| !dir.is_empty() && Path::new(dir).exists());
        let made = there().count();
        remove_groups(&config);
        assert_eq!(there().count(), made);
        fs::remove_dir(&attempt).expect("empty");
        remove_groups(&config);
        assert_eq!(there().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("state"), "").expect("written");
        let error = prepare_folders(&config(folder.path())).expect_err("a file is in the way");
        assert!(error.to_string().starts_with("cannot create"), "{error}");
    }

    #[tokio::test]
    async fn the_last_position_is_on_disk_when_the_owner_is_gone() {
        let folder = tempfile::tempdir().expect("folder");
        let file = PositionFile::in_folder(folder.path());
        let (sender, receiver) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_position(file.clone(), receiver));
        for sequence in 1..=50 {
            sender.send_replace(Some(StorePosition { id: StoreId::new(b"s"), sequence }));
        }
        drop(sender);
        tasks.join_all().await;
        assert_eq!(file.read().expect("readable").map(|it| it.sequence), Some(50));
    }
}
