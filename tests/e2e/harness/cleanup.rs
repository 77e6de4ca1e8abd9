//! What of a cluster is still there, and how does it go?
//!
//! Shepherds outlive their agents and jobs may outlive their shepherds, so both are looked for: by
//! the folder in their command line or environment or that they work in, and in the agents' cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::daemon::{hold, kill};

/// How long it is tried; a test that is over is not held up longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends every process that belongs to the cluster in `dir` and removes the groups of its agents,
/// given as name and state folder.
pub(super) fn clean(dir: &Path, agents: &[(String, PathBuf)]) {
    let groups: Vec<PathBuf> =
        agents.iter().flat_map(|(name, state)| groups_of(name, state)).collect();
    let begun = Instant::now();
    loop {
        let pids: BTreeSet<u32> = processes_of(dir)
            .into_iter()
            .chain(groups.iter().flat_map(|dir| members(dir)))
            .collect();
        for pid in &pids {
            if let Some(held) = hold(*pid)
                && (belongs(*pid, dir) || groups.iter().any(|group| members(group).contains(pid)))
            {
                kill(&held);
            }
        }
        let gone = groups.iter().all(|group| remove_group(group));
        if pids.is_empty() && gone {
            return;
        }
        if begun.elapsed() > PATIENCE {
            println!("left behind: processes {pids:?}, groups {groups:?}");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes, apart from this one, that the cluster in `dir` started.
pub(super) fn processes_of(dir: &Path) -> Vec<u32> {
    let own = std::process::id();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own && belongs(*pid, dir)).collect()
}

/// Whether command line or environment name something below `dir`, or the process works there.
/// Zombies have none of these.
fn belongs(pid: u32, dir: &Path) -> bool {
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
        return true;
    }
    let mut prefix = dir.as_os_str().as_encoded_bytes().to_vec();
    prefix.push(b'/');
    ["cmdline", "environ"].iter().any(|name| {
        fs::read(format!("/proc/{pid}/{name}"))
            .is_ok_and(|bytes| bytes.windows(prefix.len()).any(|window| window == prefix))
    })
}

/// The directories in which the agent `name` makes its groups.
pub(super) fn groups_of(name: &str, state: &Path) -> Vec<PathBuf> {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let leaf = format!("{name}-{hex}");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
    let bases = points.flat_map(|point| {
        let inside = own.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let inside = inside.map(|path| point.join(path.trim_start_matches('/')));
        let mut bases: Vec<PathBuf> = inside.collect();
        bases.push(point.clone());
        bases
    });
    let found: BTreeSet<PathBuf> =
        bases.map(|base| base.join("penstock").join(&leaf)).filter(|dir| dir.is_dir()).collect();
    found.into_iter().collect()
}

/// The processes in a group and those below it.
fn members(dir: &Path) -> Vec<u32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for below in subgroups(dir) {
        pids.extend(members(&below));
    }
    pids
}

fn subgroups(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.is_dir()).collect()
}

/// Removes a group with all below it; false while a process is left.
fn remove_group(dir: &Path) -> bool {
    let below = subgroups(dir).iter().all(|path| remove_group(path));
    below && (fs::remove_dir(dir).is_ok() || !dir.exists())
}
