//! Which process is exactly the one that was started, and how does it begin and end?
//!
//! A pid may be given to another process later. So a process is remembered by pid, start time and
//! boot, and is held by a pidfd that is opened before these are compared.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::AS_DAEMON;
use super::failure::Failure;
use super::interrupt::{Interrupt, Woke};
use crate::output::note;

/// From SIGTERM until SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(10);

/// From SIGKILL until we give up: only a process that the kernel holds is there so long.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Largest log that is written on; a larger one is put aside as `log.old`.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// How much of the end of a log is looked at, and how many lines of that are shown.
const TAIL_BYTES: u64 = 8 << 10;
const TAIL_LINES: usize = 15;

/// One process of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub(super) start: u64,
    /// The kernel's boot id.
    pub(super) boot: String,
}

/// A process that is held, so that its pid can't become another's.
#[derive(Debug)]
pub(super) struct Held {
    /// As messages name it.
    pub(super) name: String,
    pub(super) pid: i32,
    fd: OwnedFd,
}

impl Identity {
    /// Who has this pid now; `None` when nobody has, or only a process that has ended.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let start = start_of_living(&stat)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, start, boot: boot.trim().to_owned() })
    }

    /// Whether this very process lives.
    pub(super) fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Takes hold of this very process; `None` when it has ended.
    pub(super) fn hold(&self, name: &str) -> Option<Held> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Compared after the open: whoever has the pid now is the one that is held.
        self.lives().then(|| Held { name: name.to_owned(), pid: self.pid, fd })
    }
}

/// The start time in a line of `/proc/PID/stat`, unless the process is a zombie or dead.
fn start_of_living(stat: &str) -> Option<u64> {
    // The name, field 2, may hold blanks and brackets; fields are counted behind its last bracket.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Held {
    /// What `poll` waits on: ready when the process has ended.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn signal(&self, signal: Signal) {
        // It fails only where the process has ended, which is what we want of it.
        pidfd_send_signal(&self.fd, signal).ok();
    }
}

/// Ends all of `processes`: SIGTERM, and SIGKILL for whoever is there after ten seconds. A signal to
/// us shortens the wait.
pub(super) fn end(mut processes: Vec<Held>, interrupt: &Interrupt) -> Result<(), Failure> {
    for (signal, patience) in [(Signal::TERM, TERM_PATIENCE), (Signal::KILL, KILL_PATIENCE)] {
        for process in &processes {
            process.signal(signal);
        }
        await_ends(&mut processes, patience, interrupt)?;
        if processes.is_empty() {
            return Ok(());
        }
    }
    let names = processes.iter().map(|process| format!("{} (pid {})", process.name, process.pid));
    Err(Failure::Stuck { names: names.collect::<Vec<_>>().join(", ") })
}

/// Sends SIGTERM and waits for the end, without force: the process may have much to tidy up.
pub(super) fn ask_to_end(
    process: Held,
    patience: Duration,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    process.signal(Signal::TERM);
    await_ends(&mut vec![process], patience, interrupt)
}

/// Waits until all have ended, `patience` is over or a signal comes; leaves those that live.
fn await_ends(
    processes: &mut Vec<Held>,
    patience: Duration,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    while !processes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let fds: Vec<BorrowedFd<'_>> = processes.iter().map(Held::fd).collect();
        match interrupt.wait(&fds, Some(left))? {
            Woke::Descriptor(place) => drop(processes.swap_remove(place)),
            Woke::Signal | Woke::Timeout => return Ok(()),
        }
    }
    Ok(())
}

/// Starts `exe ARGS` as a daemon that outlives us and our terminal, with `log` for all it says.
pub(super) fn spawn(exe: &Path, args: &[&str], log: &Path) -> Result<Identity, Failure> {
    let log_file = open_log(log).map_err(Failure::system(format!("write {}", log.display())))?;
    let log_twice = log_file.try_clone().map_err(Failure::system("share a log"))?;
    let mut command = Command::new(exe);
    command.arg("quickstart").arg(AS_DAEMON).arg(exe).args(args);
    command.stdin(Stdio::null()).stdout(log_file).stderr(log_twice);
    // What the caller's shell says of some cluster is not meant for the daemons of this one.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "PENSTOCK_SOCKET" || text == "PENSTOCK_CONFIG" || text.starts_with("SLURM_") {
            command.env_remove(&name);
        }
    }
    // A log is no terminal.
    command.env("NO_COLOR", "1");
    let what = format!("start {}", exe.display());
    let child = command.current_dir("/").spawn().map_err(Failure::system(what))?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    // One that has ended already has a tail to show; the caller finds it dead.
    Ok(Identity::of(pid).unwrap_or(Identity { pid, start: 0, boot: String::new() }))
}

/// In the new process: leaves the terminal's session and becomes `EXE ARGS`, with the same pid.
pub(super) fn become_daemon(words: &[String]) -> i32 {
    let Some((exe, args)) = words.split_first() else {
        note("quickstart: error: --as-daemon is for quickstart's own use");
        return 2;
    };
    if let Err(error) = nix::unistd::setsid() {
        note(&format!("quickstart: cannot leave the session: {error}"));
        return 1;
    }
    let error = Command::new(exe).args(args).exec();
    note(&format!("quickstart: cannot start {exe}: {error}"));
    127
}

fn open_log(log: &Path) -> std::io::Result<File> {
    if fs::metadata(log).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
        fs::rename(log, log.with_extension("old"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(log)
}

/// Where the log ends now; what a daemon says from here on is its own.
pub(super) fn log_end(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |meta| meta.len())
}

/// The last lines that were written to the log since it had `from` bytes.
pub(super) fn log_tail(log: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        // A shorter file is a new one.
        let from = if from > len { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(len.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if shown.is_empty() {
        "  (it said nothing)".to_owned()
    } else {
        format!("  {}", shown.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let tail = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 99 88";
        for name in ["(sh)", "(a b) Z 9 (c))", "(x) R )"] {
            assert_eq!(start_of_living(&format!("12 {name} {tail}")), Some(4711), "{name}");
        }
        assert_eq!(start_of_living(&format!("12 (sh) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(start_of_living("12 (sh"), None);
    }

    #[test]
    fn we_live_and_another_start_time_is_another_process() {
        let me = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.lives() && me.hold("me").is_some());
        let other = Identity { start: me.start + 1, ..me };
        assert!(!other.lives() && other.hold("other").is_none());
    }

    #[test]
    fn process_that_hears_sigterm_ends_by_it() {
        let interrupt = Interrupt::install().unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = Identity::of(child.id().cast_signed()).unwrap();
        end(vec![identity.hold("sleep").unwrap()], &interrupt).unwrap();
        assert!(!identity.lives());
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn tail_has_only_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "old\n").unwrap();
        let from = log_end(&log);
        assert_eq!(log_tail(&log, from), "  (it said nothing)");
        fs::write(&log, "old\nnew\n").unwrap();
        assert_eq!(log_tail(&log, from), "  new");
        let many: String = (0..100).map(|line| format!("{line}\n")).collect();
        fs::write(&log, many).unwrap();
        assert_eq!(log_tail(&log, 0).lines().count(), TAIL_LINES);
    }
}
