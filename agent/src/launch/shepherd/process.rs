//! What does one process use, as `/proc` tells it?

use std::fs;

use rustix::process::Pid;

use crate::sys::page_bytes;

/// Microseconds of a tick in `/proc`: the kernel counts a hundred a second for every program.
const TICK_USEC: u64 = 10_000;

/// A process at one moment. What it and those of its children that ended have used counts from their
/// start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Process {
    /// The parent's number.
    pub(super) parent: i32,
    /// CPU time, microseconds.
    pub(super) cpu_usec: u64,
    /// Page faults that needed the disk.
    pub(super) pages: u64,
    /// Size of the address space, bytes.
    pub(super) vm_bytes: u64,
    /// Resident memory, bytes.
    pub(super) rss_bytes: u64,
}

impl Process {
    /// Looks at a process; `None` if it is gone.
    pub(super) fn look(pid: Pid) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::parse(&text, page_bytes())
    }

    /// Reads the line, as proc(5) has it.
    fn parse(text: &str, page_bytes: u64) -> Option<Self> {
        // The name is in parentheses and may hold any letter.
        let rest = text.rsplit_once(") ")?.1;
        let numbers: Vec<&str> = rest.split_ascii_whitespace().take(22).collect();
        let number = |at: usize| numbers.get(at)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Some(Self {
            parent: numbers.get(1)?.parse().ok()?,
            cpu_usec: ticks.saturating_mul(TICK_USEC),
            pages: number(9)?.saturating_add(number(10)?),
            vm_bytes: number(20)?,
            rss_bytes: number(21)?.saturating_mul(page_bytes),
        })
    }
}

/// Bytes that a process and its children that ended have read and written, from and to whatever kind
/// of file; `None` where the kernel does not tell.
pub(super) fn bytes_moved(pid: Pid) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some((number("rchar:")?, number("wchar:")?))
}

/// Name of a process as the kernel has it, without what steers a terminal.
pub(super) fn name_of(pid: Pid) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
    Some(name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// Number of the task that a process was started by, as its environment says; for processes whose
/// parents have ended.
pub(super) fn rank_of(pid: Pid) -> Option<u32> {
    let block = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    let mut entries = block.split(|&byte| byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(b"SLURM_PROCID="))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let tail = "S 7 1 1 0 -1 4194560 100 0 3 4 50 20 10 5 20 0 1 0 99 2990080 413 184467";
        let expect = Process {
            parent: 7,
            cpu_usec: 850_000,
            pages: 7,
            vm_bytes: 2_990_080,
            rss_bytes: 413 * 4096,
        };
        for name in ["(sleep)", "(a) S 1 (b)", "()"] {
            assert_eq!(Process::parse(&format!("12 {name} {tail}"), 4096), Some(expect), "{name}");
        }
        for text in ["", "12 (sleep", "12 (sleep) S 7 1", "12 (sleep) S x"] {
            assert_eq!(Process::parse(text, 4096), None, "{text}");
        }
    }

    #[test]
    fn this_process_uses_something() {
        let own = rustix::process::getpid();
        let process = Process::look(own).unwrap();
        assert!(process.rss_bytes > 0 && process.vm_bytes >= process.rss_bytes);
        assert!(bytes_moved(own).is_none_or(|(read, _)| read > 0));
        assert!(name_of(own).is_some());
    }
}
