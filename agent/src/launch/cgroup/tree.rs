//! Which processes descend from this one?
//!
//! For machines where no cgroup can be written. As a subreaper, the shepherd inherits every
//! orphan among its descendants, so that none leaves the tree while it lives.

use std::fs;
use std::io;

use rustix::process::Pid;

/// All descendants of this process that are no zombies, parents before children.
pub(super) fn descendants() -> io::Result<Vec<Pid>> {
    let mut found = children(rustix::process::getpid())?;
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        // A process that is gone by now has no children: they are ours by now.
        found.extend(children(pid).unwrap_or_default());
        at += 1;
    }
    found.retain(|&pid| !is_zombie(pid));
    Ok(found)
}

/// Children of all threads of `pid`.
fn children(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
        let Ok(text) = fs::read_to_string(task?.path().join("children")) else { continue };
        let pids = text.split_ascii_whitespace().filter_map(|word| word.parse().ok());
        found.extend(pids.filter_map(Pid::from_raw));
    }
    Ok(found)
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state follows the name, which is in parentheses and may hold any letter.
    stat.map_or(true, |text| {
        text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

/// Resident memory of one process, bytes; 0 if it is gone.
pub(super) fn resident_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let kib = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    status.ok().and_then(kib).unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grandchildren_are_found_and_counted() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 1000 & echo started; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let pid = Pid::from_child(&child);
        let grandchildren = children(pid).unwrap();
        assert_eq!(grandchildren.len(), 1);
        let all = descendants().unwrap();
        assert!(all.contains(&pid) && all.contains(&grandchildren[0]));
        assert!(resident_bytes(pid) > 0);
        crate::sys::signal_pid(grandchildren[0], penstock_vocab::Signal::KILL).unwrap();
        crate::sys::signal_pid(pid, penstock_vocab::Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}
