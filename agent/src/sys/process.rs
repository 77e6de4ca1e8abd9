//! How is a process forked, and what of its parent does it shed?

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use penstock_vocab::Signal;
use rustix::process::Pid;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the pid of the new.
    Parent(Pid),
}

/// The knowledge that this process has one thread, without which it cannot be forked: in the copy
/// of a process with several, hardly anything may be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads. Whoever holds the result starts none.
    ///
    /// # Errors
    /// When there are several, or `/proc` is not there.
    pub(crate) fn check() -> io::Result<Self> {
        if std::fs::read_dir("/proc/self/task")?.take(2).count() == 1 {
            Ok(Self(()))
        } else {
            Err(io::Error::other("this process has several threads and cannot be forked"))
        }
    }

    /// Forks the calling process.
    ///
    /// # Errors
    /// When the kernel refuses (limits, memory).
    pub(crate) fn fork(self) -> io::Result<Forked> {
        // SAFETY: the process has one thread (see `check`), so that no lock can be held by a
        // thread that the child does not have.
        let pid = unsafe { libc::fork() };
        match pid {
            0 => Ok(Forked::Child),
            pid => Pid::from_raw(pid)
                .filter(|_| pid > 0)
                .map_or_else(|| Err(io::Error::last_os_error()), |pid| Ok(Forked::Parent(pid))),
        }
    }
}

/// Lets the kernel forget children as they end; [`reset_signals`] undoes it.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition and installs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Gives every signal its default action and unblocks all: what a new program expects, whatever
/// its launcher ignored.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // Fails for KILL, STOP and the two that the C library keeps, which are right as they are.
        // SAFETY: SIG_DFL is a valid disposition for any signal and installs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // Cannot fail: the mask is valid and the operation known.
    let _unblocked = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Sets the soft limit of `resource` (setrlimit's number) to `soft`, at most to the hard limit.
///
/// # Errors
/// When there is no such resource.
pub(crate) fn set_soft_limit(resource: u32, soft: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for the call; an unknown resource gives an error.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: the pointer is valid for the call and is only read.
    if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends any signal, real-time ones too, to the process that `pidfd` holds.
///
/// # Errors
/// When the process is gone or may not be signalled.
pub(crate) fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let (fd, number) = (pidfd.as_raw_fd(), libc::c_int::from(signal.number()));
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the call, a null info is allowed, and no flag is set.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, no_info, 0) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends any signal to a process by its number: for own children that were not waited for, whose
/// number cannot have passed to another, and where the kernel has no pidfd.
///
/// # Errors
/// When the process is gone or may not be signalled.
pub(crate) fn signal_pid(pid: Pid, signal: Signal) -> io::Result<()> {
    let (pid, number) = (pid.as_raw_nonzero().get(), libc::c_int::from(signal.number()));
    // SAFETY: kill touches no memory of ours.
    if unsafe { libc::kill(pid, number) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends any signal to the process group that `leader`, an own child that was not waited for, leads.
///
/// # Errors
/// When nobody of the group is left, or may be signalled.
pub(crate) fn signal_group(leader: Pid, signal: Signal) -> io::Result<()> {
    let (pid, number) = (leader.as_raw_nonzero().get(), libc::c_int::from(signal.number()));
    // SAFETY: kill touches no memory of ours.
    if unsafe { libc::kill(-pid, number) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor above standard error to be closed at exec, so that nothing of whoever
/// started this process reaches a job. Where the kernel has no such call (before 5.11) they stay.
pub(crate) fn seal_inherited() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    let (first, last): (libc::c_uint, libc::c_uint) = (3, libc::c_uint::MAX);
    // SAFETY: the call sets a flag on descriptors of this process and touches no memory.
    let _unknown_to_old_kernels =
        unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC) };
}

/// Closes every descriptor above standard error but `kept`, in a fork that ends by exec or exit: what
/// its parent holds, locks among it, must not outlive the parent while the fork hangs in a file system.
/// Whatever owns one of the others must not be used, nor dropped, in this process any more. Where the
/// kernel has no such call (before 5.9) all stay until exec.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let number = |fd: &BorrowedFd<'_>| libc::c_uint::try_from(fd.as_raw_fd()).unwrap_or(0);
    let mut kept: Vec<libc::c_uint> = kept.iter().map(number).filter(|&fd| fd > 2).collect();
    kept.sort_unstable();
    kept.push(libc::c_uint::MAX);
    let mut first: libc::c_uint = 3;
    for next in kept {
        if first < next {
            // SAFETY: the call touches no memory; that nothing uses these descriptors any more is
            // the caller's promise.
            let _unknown_to_old_kernels =
                unsafe { libc::syscall(libc::SYS_close_range, first, next - 1, 0) };
        }
        first = next.saturating_add(1);
    }
}

/// What a child used that was waited for, and those of its children that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ChildUsage {
    /// CPU time in user mode, microseconds.
    pub(crate) user_usec: u64,
    /// CPU time in the kernel, microseconds.
    pub(crate) system_usec: u64,
    /// Highest resident memory of one of these processes, bytes; 0 where it is not above what a fork of
    /// this process has before it becomes its program, since that counts too.
    pub(crate) peak_bytes: u64,
    /// Page faults that needed the disk.
    pub(crate) pages: u64,
}

/// Waits for a child that has ended, if there is one: its pid, raw wait status, and what it used.
pub(crate) fn reap_child() -> Option<(Pid, i32, ChildUsage)> {
    let mut status = 0;
    // SAFETY: all numbers, for which zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    // -1: there is no child.
    let pid = Pid::from_raw(pid.max(0))?;
    let usec = |time: libc::timeval| {
        let usec = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec);
        u64::try_from(usec).unwrap_or(0)
    };
    let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
    let used = ChildUsage {
        user_usec: usec(usage.ru_utime),
        system_usec: usec(usage.ru_stime),
        peak_bytes: if peak_bytes > own_peak_bytes() { peak_bytes } else { 0 },
        pages: u64::try_from(usage.ru_majflt).unwrap_or(0),
    };
    Some((pid, status, used))
}

/// Highest resident memory of this process until now, bytes.
fn own_peak_bytes() -> u64 {
    let own = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    own.map_or(0, |own| u64::try_from(own.max_rss()).unwrap_or(0).saturating_mul(1024))
}

/// A child that has ended and is not waited for yet.
pub(crate) fn ended_child() -> Option<Pid> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let pid = waitid(Id::All, flags).ok()?.pid()?;
    Pid::from_raw(pid.as_raw())
}

/// Size of a page of memory, bytes.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: the call touches no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).ok().filter(|&bytes| bytes > 0).unwrap_or(4_096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        std::thread::scope(|scope| {
            let (tell, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert!(SingleThreaded::check().is_err());
            drop(tell);
        });
    }

    #[test]
    fn a_child_is_seen_before_it_is_waited_for() {
        // In a process of its own: other tests wait for children of theirs.
        if std::env::var_os("PENSTOCK_TEST_REAP").is_none() {
            let own = std::env::current_exe().unwrap();
            let name = "sys::process::tests::a_child_is_seen_before_it_is_waited_for";
            let mut command = std::process::Command::new(own);
            command.args(["--exact", name, "--test-threads=1"]).env("PENSTOCK_TEST_REAP", "1");
            assert!(command.status().unwrap().success());
            return;
        }
        assert_eq!(ended_child(), None);
        let mut command = std::process::Command::new("sh");
        let mut child = command.args(["-c", "exit 3"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        while ended_child() != Some(pid) {
            std::thread::yield_now();
        }
        assert_eq!(ended_child(), Some(pid));
        let (reaped, status, used) = reap_child().unwrap();
        assert_eq!((reaped, status), (pid, 3 << 8));
        // A shell has less than this test, whose fork it was: what it had is not known.
        assert!(used.peak_bytes == 0 && own_peak_bytes() > 0 && page_bytes() >= 4_096);
        assert!(reap_child().is_none() && child.wait().is_err());
    }

    #[test]
    fn an_unknown_resource_is_an_error() {
        assert!(set_soft_limit(9_999, 1).is_err());
    }
}
