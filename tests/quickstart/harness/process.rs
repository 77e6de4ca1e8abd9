//! Which processes belong to a folder, and how are they held?

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that is held, so that its pid can't become another's.
pub(crate) struct Process {
    pub(crate) pid: u32,
    fd: OwnedFd,
}

impl Process {
    /// Takes hold of whoever has this pid now; `None` where nobody has.
    pub(crate) fn hold(pid: u32) -> Option<Self> {
        let id = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Self { pid, fd: pidfd_open(id, PidfdFlags::empty()).ok()? })
    }

    /// Sends a signal; it fails only where the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.fd, signal).ok();
    }

    /// Whether it has not ended.
    pub(crate) fn lives(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&zero)).expect("a pidfd can be polled") == 0
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        super::wait_until(format!("process {} ends", self.pid), || !self.lives());
    }
}

/// The processes, apart from this one, of the cluster in `dir`: those that name it in command line or
/// environment or work in it, and the shepherds' parents that an agent there has.
pub(super) fn of(dir: &Path) -> Vec<u32> {
    let own = std::process::id();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<u32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut found: Vec<u32> =
        all.iter().copied().filter(|pid| *pid != own && belongs(*pid, dir)).collect();
    let is_child = |pid: &u32| {
        !found.contains(pid)
            && parent(*pid).is_some_and(|parent| found.contains(&parent))
            && command_line(*pid).get(1).is_some_and(|word| word == "shepherd")
    };
    let children: Vec<u32> = all.iter().copied().filter(is_child).collect();
    found.extend(children);
    found
}

/// The words that a process was started with; none for one that has ended.
pub(crate) fn command_line(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether a process that has not ended names `dir` or something below it, or works there.
fn belongs(pid: u32, dir: &Path) -> bool {
    let dir_bytes = dir.as_os_str().as_encoded_bytes();
    let names = |bytes: Vec<u8>| {
        let ends = |rest: &[u8]| matches!(rest.first(), None | Some(b'/' | b':' | 0));
        let mut windows = bytes.windows(dir_bytes.len()).enumerate();
        windows.any(|(at, window)| window == dir_bytes && ends(&bytes[at + dir_bytes.len()..]))
    };
    let named = ["cmdline", "environ"]
        .iter()
        .any(|name| fs::read(format!("/proc/{pid}/{name}")).is_ok_and(names));
    named || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}
