//! What is a user told whose part ran out of memory?
//!
//! How much was asked for, how much there was, who had it, and what to try. The process is the one that
//! the kernel says it has killed; where its log cannot be read, the largest at the last look.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use penstock_vocab::Mib;

use super::meter::Largest;
use crate::launch::cgroup::GroupName;

/// Most messages of the kernel that are gone through.
const MAX_MESSAGES: usize = 65_536;
/// Largest message of the kernel.
const MAX_MESSAGE: usize = 8_192;

/// `asked 32G, peak 32.0G in python (pid 8156); try --mem=48G`.
pub(super) fn advice(asked_bytes: u64, peak_bytes: u64, process: Option<&Largest>) -> String {
    let asked = Mib::from_bytes_rounded_up(asked_bytes);
    let within = process.map_or_else(String::new, |p| format!(" in {} (pid {})", p.name, p.pid));
    let peak = tenths(peak_bytes.max(1));
    let enough = enough(asked_bytes.max(peak_bytes)).to_arg();
    format!("asked {}, peak {peak}{within}; try --mem={enough}", asked.to_arg())
}

/// Half as much again: in whole GiB from four up.
fn enough(bytes: u64) -> Mib {
    let more = Mib::from_bytes_rounded_up(bytes.saturating_add(bytes / 2));
    if more.0 < 4_096 { more } else { Mib(more.0.div_ceil(1_024).saturating_mul(1_024)) }
}

/// `32.0G`.
fn tenths(bytes: u64) -> String {
    let units = [("T", 1_u64 << 40), ("G", 1 << 30), ("M", 1 << 20)];
    let (letter, scale) =
        units.into_iter().find(|(_, scale)| bytes >= *scale).unwrap_or(("K", 1 << 10));
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    format!("{}.{}{letter}", tenths / 10, tenths % 10)
}

/// The process of a group that the kernel says it has killed last.
pub(super) fn victim(group: &GroupName) -> Option<Largest> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut log = File::options().read(true).custom_flags(flags).open("/dev/kmsg").ok()?;
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut found = None;
    for _ in 0..MAX_MESSAGES {
        match log.read(&mut buffer) {
            Ok(length) if length > 0 => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                found = victim_in(&text, group).or(found);
            }
            // Messages that were overwritten while we read; the next ones are there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Ok(_) | Err(_) => break,
        }
    }
    found
}

/// Reads `oom-kill:constraint=...,task_memcg=/.../job_7.0/batch,task=python,pid=8156,uid=0`.
fn victim_in(message: &str, group: &GroupName) -> Option<Largest> {
    let rest = message.split_once("oom-kill:")?.1.lines().next()?;
    let (_, rest) = rest.split_once("task_memcg=")?;
    let (path, rest) = rest.split_once(",task=")?;
    let (name, rest) = rest.rsplit_once(",pid=")?;
    let own = format!("/{}/{}", group.attempt, group.part);
    let (outer, inner) = (path.ends_with(&own), path.contains(&format!("{own}/")));
    let pid = rest.split(',').next()?.parse().ok()?;
    let name = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    (outer || inner).then_some(Largest { name, pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_the_numbers() {
        let python = Largest { name: "python".to_owned(), pid: 8156 };
        for (asked, peak, process, expect) in [
            (
                32 << 30,
                32 << 30,
                Some(&python),
                "asked 32G, peak 32.0G in python (pid 8156); try --mem=48G",
            ),
            (100 << 20, (100 << 20) - 1, None, "asked 100M, peak 99.9M; try --mem=150M"),
            (3 << 30, 3 << 30, None, "asked 3G, peak 3.0G; try --mem=5G"),
            (8 << 20, 1 << 20, None, "asked 8M, peak 1.0M; try --mem=12M"),
        ] {
            assert_eq!(advice(asked, peak, process), expect);
        }
    }

    #[test]
    fn the_kernel_names_whom_it_killed() {
        let group = GroupName { attempt: "job_7.0".to_owned(), part: "step_1".to_owned() };
        let told = |path: &str, task: &str| {
            format!(
                "3,1045,12345,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,\
                 mems_allowed=0,oom_memcg=/penstock/n1/job_7.0,task_memcg={path},task={task},\
                 pid=8156,uid=1000\n SUBSYSTEM=x\n"
            )
        };
        let python = Some(Largest { name: "python".to_owned(), pid: 8156 });
        assert_eq!(victim_in(&told("/penstock/n1/job_7.0/step_1", "python"), &group), python);
        assert_eq!(victim_in(&told("/penstock/n1/job_7.0/step_1/own", "python"), &group), python);
        for path in ["/penstock/n1/job_7.0/step_11", "/penstock/n1/job_7.1/step_1", "/"] {
            assert_eq!(victim_in(&told(path, "python"), &group), None, "{path}");
        }
        let odd = victim_in(&told("/penstock/n1/job_7.0/step_1", "a,pid=3"), &group).unwrap();
        assert_eq!((odd.name.as_str(), odd.pid), ("a,pid=3", 8156));
        for text in ["", "oom-kill:", "oom-kill:task_memcg=/a,task=b", "Killed process 3"] {
            assert_eq!(victim_in(text, &group), None);
        }
    }
}
