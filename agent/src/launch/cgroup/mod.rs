//! How are the processes of one attempt held together, limited and counted?
//!
//! In cgroups where a hierarchy can be written: version 2, version 1, or both at once, as
//! [`detect()`] found. An attempt's group is a directory `job_<id>.<attempt>` below
//! `penstock/<agent>/` in each hierarchy used, which holds what the job was given on this node; in
//! it is one for each part, `batch` or `step_<number>`, whose shepherd makes it anew, and the
//! attempt's if it is not there. Whichever part ends last removes both. Without any, the
//! descendants of the shepherd (a subreaper) are the attempt.
//!
//! Version 2 is preferred for what each of its groups has without any controller: killing,
//! freezing, emptiness and CPU time. Memory and CPU pinning come from wherever their
//! controllers are.

mod detect;
mod group;
mod tree;

pub use detect::{Detected, Hierarchies, detect, remove};
pub(crate) use group::{Group, GroupName, Limits};

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use penstock_vocab::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys::signal_pidfd;

/// CPU time and peak memory of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    /// CPU time in user mode, microseconds.
    pub(crate) user_usec: u64,
    /// CPU time in the kernel, microseconds.
    pub(crate) system_usec: u64,
    /// Peak of memory, bytes; 0: not measured.
    pub(crate) peak_bytes: u64,
}

/// The processes of one attempt.
#[derive(Debug)]
pub(crate) enum Container {
    /// In a group.
    Group(Box<Group>),
    /// All descendants of this process.
    Tree,
}

impl Container {
    /// The pids of all processes; some may be gone when this returns.
    pub(crate) fn pids(&self) -> io::Result<Vec<Pid>> {
        match self {
            Self::Group(group) => group.pids(),
            Self::Tree => tree::descendants(),
        }
    }

    /// Sends `signal` to the processes there are now of which `wanted` says so. Each is held by
    /// a pidfd and then looked up again, so that no number that passed to a stranger is hit.
    pub(crate) fn signal(&self, signal: Signal, wanted: impl Fn(Pid) -> bool) -> io::Result<()> {
        let hold = |pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?));
        let held: Vec<_> = self.pids()?.into_iter().filter_map(hold).collect();
        let still = self.pids()?;
        for (pid, pidfd) in held {
            if still.contains(&pid) && wanted(pid) {
                // A process that ended meanwhile needs no signal.
                let _gone = signal_pidfd(pidfd.as_fd(), signal);
            }
        }
        Ok(())
    }

    /// Sends SIGKILL to every process there is now. Call again until [`Self::is_empty`]: where
    /// the kernel cannot kill a group as one, a process may have forked meanwhile.
    pub(crate) fn kill(&self) -> io::Result<()> {
        if let Self::Group(group) = self
            && group.kill_at_once()
        {
            return Ok(());
        }
        // Frozen processes fork nothing while they are listed; the signals reach them when they
        // are thawed. Where freezing fails, the caller's next round finds what was missed.
        let frozen = self.set_frozen(true);
        let killed = self.signal(Signal::KILL, |_| true);
        if frozen.is_ok() {
            self.set_frozen(false)?;
        }
        killed
    }

    /// Lets all processes stand still, or go on.
    pub(crate) fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        if let Self::Group(group) = self
            && let Some(done) = group.set_frozen(frozen)
        {
            return done;
        }
        self.signal(if frozen { Signal::STOP } else { Signal::CONT }, |_| true)
    }

    /// Whether no process is left. Zombies that wait for their parent do not count.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Group(group) => group.is_empty(),
            Self::Tree => tree::descendants().is_ok_and(|pids| pids.is_empty()),
        }
    }

    /// A file that becomes ready (`POLLPRI`) when emptiness changes, where the kernel has one.
    pub(crate) fn events_path(&self) -> Option<PathBuf> {
        match self {
            Self::Group(group) => group.events_path(),
            Self::Tree => None,
        }
    }

    /// How often the kernel killed a process for memory; 0 where it does not count.
    pub(crate) fn oom_kills(&self) -> u64 {
        match self {
            Self::Group(group) => group.oom_kills(),
            Self::Tree => 0,
        }
    }

    /// CPU time and peak memory so far; zeros where nothing counts them.
    pub(crate) fn counted(&self) -> Counted {
        match self {
            Self::Group(group) => group.counted(),
            Self::Tree => Counted::default(),
        }
    }

    /// Resident memory of all processes now, bytes: the sum over processes, so that shared pages
    /// count more than once.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.pids().map_or(0, |pids| pids.into_iter().map(tree::resident_bytes).sum())
    }

    /// Removes the group; false while a process is left.
    pub(crate) fn remove(&self) -> bool {
        match self {
            Self::Group(group) => group.remove(),
            Self::Tree => self.is_empty(),
        }
    }
}
