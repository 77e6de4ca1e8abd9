//! How does one attempt run, from the claim to the record of its end?
//!
//! A shepherd is a process of its own (`penstock shepherd DIR`), with one thread and little
//! memory, that outlives the agent. It works in the attempt's spool folder:
//!
//! 1. it claims the attempt, or ends if anybody else has;
//! 2. it checks the user, writes the script, makes the group, and forks the job's process, which
//!    opens what the user named only after it has become that user;
//! 3. it waits for the end, the time limit and orders ([`penstock_supervisor::ending`]);
//! 4. it writes the record of the end, tells the agent, and ends.
//!
//! It speaks with its agent over a socket that it is given at its start. When that agent goes, it
//! listens for the next one on a socket in the folder.

mod charge;
mod child;
mod control;
mod hook;
mod hosts;
mod memory;
mod meter;
mod oci;
mod output;
mod process;
mod record;
mod script;
pub(crate) mod step;
mod task_scripts;
mod user;
mod watch;
mod zygote;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use penstock_proto::v1;
use penstock_supervisor::RunResult;
use prost::Message as _;
use rustix::fs::{CWD, FlockOperation, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::cgroup::Limits;
use super::record::{self as files, Intent, Wired as _};
use crate::sys::{Forked, SingleThreaded, wall_clock};
use charge::Ready;
use child::{AfterScript, Plan};
use control::Link;
pub(super) use control::order;
use oci::Oci;
use watch::Watch;

/// Why a job could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaunchError {
    /// For people.
    text: String,
    /// The node is to blame, not the job.
    node_fault: bool,
    /// The lease is over: nobody is to blame, and there is no text.
    fenced: bool,
}

impl LaunchError {
    fn node(text: impl Into<String>) -> Self {
        Self { text: text.into(), node_fault: true, fenced: false }
    }

    fn job(text: impl Into<String>) -> Self {
        Self { text: text.into(), node_fault: false, fenced: false }
    }

    fn fenced() -> Self {
        Self { text: String::new(), node_fault: false, fenced: true }
    }
}

/// Runs the attempt whose spool folder is `dir`, as a fresh process with a single thread. With
/// `-` for a folder, becomes a shepherd for each folder that comes over standard input, in a fork:
/// that saves each job the start of a program.
///
/// Success means that the record of the end is written; failure, that the attempt was not this
/// process's to run, or that its folder is gone.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    crate::sys::seal_inherited();
    let done = SingleThreaded::check().and_then(|alone| {
        let agent = io::stdin().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        if dir.as_os_str() == SERVE {
            zygote::serve(alone, agent)
        } else {
            shepherd(alone, dir, agent)
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What stands for all folders that will come.
pub(super) const SERVE: &str = "-";

/// Removes what a shepherd that is gone left of the script.
pub(super) fn remove_script(dir: &Path) {
    script::remove(dir);
}

fn shepherd(alone: SingleThreaded, dir: &Path, agent: OwnedFd) -> io::Result<()> {
    std::env::set_current_dir(dir)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let claim = claim()?;
    leave_the_agent()?;
    let mut link = Link::new(agent);
    let (result, claim_until_delivered, rest) = match read_intent() {
        Ok(intent) if intent.hook.is_some() => {
            let (result, claim) = hook::attempt(&intent, claim, &mut link);
            (result, claim, None)
        }
        Ok(intent) if intent.step.is_some() => step::attempt(alone, intent, claim, &mut link),
        Ok(intent) => {
            let (result, claim) = attempt(alone, intent, claim, &mut link);
            (result, claim, None)
        }
        Err(error) => {
            let broken = format!("the agent's spool is broken: {error}");
            (failed(LaunchError::node(broken)), claim, None)
        }
    };
    record::deliver(&result, &mut link)?;
    drop(claim_until_delivered);
    if let Some(rest) = rest {
        // For the agent this is over; only srun may still wait for output.
        link.close();
        rest.deliver();
    }
    Ok(())
}

/// Takes the attempt for this process, for as long as it lives. The claim is locked before it gets
/// its name, so that one without a lock is always one whose shepherd is gone.
fn claim() -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    let claim =
        options.write(true).create(true).truncate(false).mode(0o600).open(files::CLAIM_NEW)?;
    rustix::fs::flock(&claim, FlockOperation::NonBlockingLockExclusive)?;
    match renameat_with(CWD, files::CLAIM_NEW, CWD, files::CLAIM, RenameFlags::NOREPLACE) {
        // A file system that cannot rename so can link.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(files::CLAIM_NEW, files::CLAIM)?,
        renamed => renamed?,
    }
    Ok(claim)
}

/// Cuts the ties by which the agent's end could become the job's.
fn leave_the_agent() -> io::Result<()> {
    // Fails only where this process leads a group already, started by hand.
    let _leader = nix::unistd::setsid();
    nix::sys::prctl::set_name(c"penstock-job")?;
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::signal::SigSet::all().thread_block()?;
    std::panic::set_hook(Box::new(|panic| {
        // Nobody reads this process's output; the agent looks here.
        let _unwritable = fs::write(files::PANIC, panic.to_string());
    }));
    Ok(())
}

fn read_intent() -> io::Result<Intent> {
    let bytes = Bytes::from(fs::read(files::INTENT)?);
    Intent::decode(bytes).map_err(io::Error::other)
}

/// Starts the job and sees it to its end.
fn attempt(
    alone: SingleThreaded,
    intent: Intent,
    claim: File,
    link: &mut Link,
) -> (RunResult, File) {
    let script_dir = PathBuf::from(&intent.script_dir);
    let ended = match prepare(&intent) {
        Ok(prepared) => {
            let contained = prepared.oci.is_some().then(|| prepared.identity.clone());
            let ended = start(alone, intent, prepared, claim, link).map(|watch| watch.run(link));
            if let Some(owner) = contained {
                script::remove(&script_dir);
                oci::tidy(alone, &script_dir, &owner);
            }
            ended
        }
        Err(error) => {
            script::remove(&script_dir);
            return (failed(error), claim);
        }
    };
    script::remove(&script_dir);
    match ended {
        Ok((result, claim)) => (result, claim),
        Err((error, claim)) => (failed(error), claim),
    }
}

fn failed(error: LaunchError) -> RunResult {
    let now = wall_clock();
    RunResult {
        start: now,
        end: now,
        launch_error: files::cut(&error.text).to_owned(),
        node_fault: error.node_fault,
        fenced: error.fenced,
        wait_status: if error.fenced { libc::SIGKILL } else { 0 },
        ..RunResult::default()
    }
}

/// What is ready before the fork.
struct Prepared {
    identity: user::Identity,
    script: PathBuf,
    ready: Ready,
    /// The container that the script runs in.
    oci: Option<Oci>,
}

fn prepare(intent: &Intent) -> Result<Prepared, LaunchError> {
    let launch = intent.launch.as_ref().ok_or_else(|| LaunchError::node("the launch is empty"))?;
    let job = launch.job.as_ref().ok_or_else(|| LaunchError::node("the launch names no job"))?;
    let lease = charge::hold_lease(intent, launch.lease_secs)?;
    let claimed = job.spec.as_ref().map_or("", |spec| spec.user_name.as_str());
    let identity = user::identify(job.uid, job.gid, claimed)?;
    let script_dir = Path::new(&intent.script_dir);
    let script = script::write(script_dir, &identity, &launch.script)?;
    let spec = job.spec.clone().unwrap_or_default();
    let oci = Oci::of(&spec.container, &spec.container_image, job.uid == 0)?;
    if oci.is_some() {
        Oci::make_dir(script_dir, &identity)?;
    }
    let share = job.run.as_ref().and_then(|run| run.shares.first());
    let limits = limits(intent, share);
    let cpus = limits.cpus.clone();
    // The same CPUs: a cpuset of version 1 must be told them.
    let own = Limits { cpus, ..Limits::default() };
    let ready = Ready::make(intent, launch.key(), lease, &limits, &own)?;
    Ok(Prepared { identity, script, ready, oci })
}

/// What the whole attempt is held to on this node.
fn limits(intent: &Intent, share: Option<&v1::NodeShare>) -> Limits {
    let memory_bytes = share.map_or(0, |share| share.memory_mib).saturating_mul(1 << 20);
    Limits { memory_bytes, cpus: intent.cpus.clone(), processes: intent.max_processes }
}

fn start(
    alone: SingleThreaded,
    intent: Intent,
    prepared: Prepared,
    claim: File,
    link: &mut Link,
) -> Result<Watch, (LaunchError, File)> {
    let no_fork = |error: io::Error| LaunchError::node(format!("no process can be made: {error}"));
    let (report, child_report) = match control::pair() {
        Ok(ends) => ends,
        Err(error) => return Err((no_fork(error), claim)),
    };
    match alone.fork() {
        Ok(Forked::Child) => {
            // What the agent watches must end with the shepherd, also while this process hangs
            // in a file system.
            link.close();
            drop((claim, report));
            Plan { intent, prepared, report: child_report }.exec()
        }
        Ok(Forked::Parent(pid)) => {
            drop(child_report);
            let launch = intent.launch.clone().unwrap_or_default();
            let after = (!launch.task_epilog.is_empty()).then(|| AfterScript {
                alone,
                intent: intent.clone(),
                identity: prepared.identity.clone(),
            });
            let names = Names { job_id: launch.job_id, node: intent.node };
            Ok(Watch::new(pid, &launch, (names, after), prepared, (claim, report)))
        }
        Err(error) => {
            prepared.ready.container.remove();
            Err((no_fork(error), claim))
        }
    }
}

/// Writes `line` and a line feed in one go; a file that takes nothing any more is not an error.
fn write_line(mut file: &File, line: &str) {
    let _full = file.write_all(format!("{line}\n").as_bytes());
}

/// The pieces of a launch that outlive the fork.
struct Names {
    job_id: u32,
    node: String,
}

/// The two ends of a packet socket.
type Ends = (OwnedFd, OwnedFd);

/// What the user asked for.
fn spec_of(launch: &v1::Launch) -> v1::JobSpec {
    launch.job.as_ref().and_then(|job| job.spec.clone()).unwrap_or_default()
}
