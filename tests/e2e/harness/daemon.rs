//! How does a test hold a daemon that it started?

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::clock::WallClock;
use super::wait::{PATIENCE, wait_for};

/// A controller or an agent.
pub(crate) struct Daemon {
    what: String,
    child: Child,
    pidfd: OwnedFd,
    log: PathBuf,
}

impl Daemon {
    /// Starts `penstock WHAT --config FILE`; what it says goes to the end of `log`.
    pub(crate) fn start(
        program: &Path,
        what: &str,
        config: &Path,
        log: &Path,
        uid: Option<u32>,
        clock: Option<&WallClock>,
    ) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new(program);
        command.arg(what).arg("--config").arg(config).current_dir("/").stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("NO_COLOR", "1");
        command.env("RUST_LOG", "info");
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        if let Some(clock) = clock {
            command.envs(clock.environment());
        }
        let child = command.spawn().expect("penstock starts");
        let pidfd = hold(child.id()).expect("our own child can be held");
        Self { what: what.to_owned(), child, pidfd, log: log.to_owned() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its words are.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("our own child");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let what = format!("the {} ends", self.what);
        wait_for(what, PATIENCE, || self.child.try_wait().expect("our own child"))
    }

    /// Lets it stand still: it keeps its connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // It fails only where the process has ended.
        pidfd_send_signal(&self.pidfd, signal).ok();
    }
}

/// Takes hold of a process.
pub(super) fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Sends SIGKILL to a process that is held.
pub(super) fn kill(pidfd: &OwnedFd) {
    pidfd_send_signal(pidfd, Signal::KILL).ok();
}

/// Sends SIGKILL to a process that a test looked up.
pub(crate) fn kill_pid(pid: u32) {
    if let Some(held) = hold(pid) {
        kill(&held);
    }
}
