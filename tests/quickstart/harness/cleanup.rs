//! What does a quickstart leave on the machine, and how does it go?

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::process::{self, Process};

/// How long it is tried; a test that is over is not held up longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that is there of the cluster in `dir`, beside files: in words, for messages.
pub(super) fn left(dir: &Path) -> Vec<String> {
    let of_process = |pid: u32| format!("process {pid}: {}", process::command_line(pid).join(" "));
    let processes = process::of(dir).into_iter().map(of_process);
    let groups = groups(dir).into_iter().map(|path| format!("group {}", path.display()));
    let sockets = sockets(dir).into_iter().map(|path| format!("socket {}", path.display()));
    processes.chain(groups).chain(sockets).collect()
}

/// Kills every process of the cluster in `dir` and removes its groups.
pub(super) fn clean(dir: &Path) {
    let begun = Instant::now();
    loop {
        let groups = groups(dir);
        let pids: Vec<u32> = process::of(dir)
            .into_iter()
            .chain(groups.iter().flat_map(|dir| members(dir)))
            .collect();
        for process in pids.iter().filter_map(|pid| Process::hold(*pid)) {
            // Looked up again after the hold, so that no number that passed to a stranger is hit.
            let still = |group: &PathBuf| members(group).contains(&process.pid);
            if process::of(dir).contains(&process.pid) || groups.iter().any(still) {
                process.signal(rustix::process::Signal::KILL);
            }
        }
        let gone = groups.iter().all(|group| remove_group(group));
        if pids.is_empty() && gone {
            return;
        }
        if begun.elapsed() > PATIENCE {
            println!("left behind: {:?}", left(dir));
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The directories in which the agents of `dir` make their groups: named after the agent and its
/// state folder, in any hierarchy, at its root or in the group of this process.
fn groups(dir: &Path) -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let points: Vec<PathBuf> =
        points.filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect();
    let mut found = Vec::new();
    for leaf in below(dir).iter().filter_map(|dir| leaf(dir)) {
        for point in &points {
            let inside = own.lines().filter_map(|line| line.splitn(3, ':').nth(2));
            let inside = inside.map(|path| point.join(path.trim_start_matches('/')));
            let bases = inside.chain([point.clone()]);
            found.extend(bases.map(|base| base.join("penstock").join(&leaf)));
        }
    }
    found.retain(|dir| dir.is_dir());
    found.sort();
    found.dedup();
    found
}

/// The name of the groups of the agent with this folder.
fn leaf(agent: &Path) -> Option<String> {
    let name = agent.file_name()?.to_str().filter(|name| name.starts_with("node"))?;
    let state = agent.join("state");
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{name}-{hex}"))
}

/// The sockets in `dir` and the folders in it.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let folders = below(dir).into_iter().chain([dir.to_owned()]);
    let entries = folders.flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let is_socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    entries.filter(is_socket).map(|entry| entry.path()).collect()
}

/// The processes in a group and those below it.
fn members(dir: &Path) -> Vec<u32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(below(dir).iter().flat_map(|dir| members(dir)));
    pids
}

/// The folders in `dir`.
fn below(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

/// Removes a group with all below it; false while a process is left.
fn remove_group(dir: &Path) -> bool {
    let empty = below(dir).iter().all(|path| remove_group(path));
    empty && (fs::remove_dir(dir).is_ok() || !dir.exists())
}
