//! What can be done with the group of one part of an attempt?
//!
//! The group is a directory in each hierarchy of [`Hierarchies`] that is used; every operation
//! picks the hierarchy that does it best.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::Counted;
use super::detect::Hierarchies;
use crate::launch::confine::{self, Rule};

/// What the processes of a group are held to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    /// Memory, bytes; 0: no limit.
    pub(crate) memory_bytes: u64,
    /// Real CPU numbers as the kernel lists them (`0-3,8`); empty: all.
    pub(crate) cpus: String,
    /// Processes and threads; 0: no limit.
    pub(crate) processes: u32,
}

/// Where a group is: within the one that all parts of an attempt share on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupName {
    /// The attempt's.
    pub(crate) attempt: String,
    /// The part's own, within it.
    pub(crate) part: String,
}

/// One directory in each hierarchy that is used.
#[derive(Debug)]
struct Dirs {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    cpuset: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    freezer: Option<PathBuf>,
    pids: Option<PathBuf>,
    devices: Option<PathBuf>,
}

impl Dirs {
    fn below(base: &Hierarchies, name: &str) -> Self {
        let dir = |parent: &str| (!parent.is_empty()).then(|| Path::new(parent).join(name));
        Self {
            unified: dir(&base.unified),
            memory: dir(&base.memory),
            cpuset: dir(&base.cpuset),
            cpuacct: dir(&base.cpuacct),
            freezer: dir(&base.freezer),
            pids: dir(&base.pids),
            devices: dir(&base.devices),
        }
    }

    fn inside(&self, name: &str) -> Self {
        let dir = |parent: &Option<PathBuf>| parent.as_ref().map(|parent| parent.join(name));
        Self {
            unified: dir(&self.unified),
            memory: dir(&self.memory),
            cpuset: dir(&self.cpuset),
            cpuacct: dir(&self.cpuacct),
            freezer: dir(&self.freezer),
            pids: dir(&self.pids),
            devices: dir(&self.devices),
        }
    }

    /// Version 2 comes first.
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let one = [&self.unified, &self.memory, &self.cpuset, &self.cpuacct];
        let two = [&self.freezer, &self.pids, &self.devices];
        one.into_iter().chain(two).flatten()
    }

    fn limit(&self, base: &Hierarchies, limits: &Limits) -> io::Result<()> {
        if limits.cpus.is_empty() {
            // Not pinned; then the spool names no cpuset hierarchy of version 1 either.
        } else if let Some(dir) = &self.cpuset {
            write(dir, "cpuset.cpus", &limits.cpus)?;
            write(dir, "cpuset.mems", &base.cpuset_mems)?;
        } else if let Some(dir) = self.unified.as_ref().filter(|_| base.unified_cpuset) {
            write(dir, "cpuset.cpus", &limits.cpus)?;
        }
        if limits.processes > 0 {
            let unified = self.unified.as_ref().filter(|_| base.unified_pids);
            if let Some(dir) = self.pids.as_ref().or(unified) {
                write(dir, "pids.max", &limits.processes.to_string())?;
            }
        }
        if limits.memory_bytes == 0 {
            return Ok(());
        }
        let bytes = limits.memory_bytes.to_string();
        if let Some(dir) = &self.memory {
            write(dir, "memory.limit_in_bytes", &bytes)?;
            if base.memory_swap {
                write(dir, "memory.memsw.limit_in_bytes", &bytes)?;
            }
        } else if let Some(dir) = self.unified.as_ref().filter(|_| base.unified_memory) {
            write(dir, "memory.max", &bytes)?;
            // Absent where the kernel has no swap accounting; then there is nothing to limit.
            let _absent = write(dir, "memory.swap.max", "0");
        }
        Ok(())
    }
}

/// The group of one part of an attempt, in that of the attempt. Processes are in the inner one only,
/// as version 2 asks where the outer one hands controllers on.
#[derive(Debug)]
pub(crate) struct Group {
    attempt: Dirs,
    part: Dirs,
    unified_memory: bool,
}

/// How often the attempt's group is made, which another part that ends may remove.
const TRIES: u32 = 16;

impl Group {
    /// Makes the group `name` anew, and the attempt's if it is not there, and sets their limits;
    /// nothing of the part is left where that fails.
    ///
    /// # Errors
    /// With the file or directory that could not be made or written.
    pub(crate) fn create(
        base: &Hierarchies,
        name: &GroupName,
        of_attempt: &Limits,
        of_part: &Limits,
    ) -> io::Result<Self> {
        let group = Self::named(base, name);
        let mut tries = 1;
        loop {
            let made = group.make(base, of_attempt, of_part);
            match made {
                Ok(()) => return Ok(group),
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {
                    tries += 1;
                }
                Err(error) => {
                    group.remove();
                    return Err(error);
                }
            }
        }
    }

    fn make(&self, base: &Hierarchies, of_attempt: &Limits, of_part: &Limits) -> io::Result<()> {
        self.attempt.all().try_for_each(|dir| match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(|error| with_path(dir, error)),
        })?;
        self.attempt.limit(base, of_attempt)?;
        if let Some(dir) = &self.attempt.unified {
            let wanted = [("+memory", base.unified_memory), ("+cpuset", base.unified_cpuset)];
            let wanted: Vec<&str> = wanted.iter().filter(|(_, on)| *on).map(|(c, _)| *c).collect();
            if !wanted.is_empty() {
                write(dir, "cgroup.subtree_control", &wanted.join(" "))?;
            }
        }
        self.part.all().try_for_each(make_fresh)?;
        self.part.limit(base, of_part)?;
        if self.part.memory.is_none()
            && let Some(dir) = self.part.unified.as_ref().filter(|_| base.unified_memory)
        {
            // Half a job is worth nothing: if one process must go, all go (Linux 4.19).
            let _absent = write(dir, "memory.oom.group", "1");
        }
        Ok(())
    }

    /// The group `name` as an earlier agent or shepherd made it, whether or not it still exists.
    pub(crate) fn named(base: &Hierarchies, name: &GroupName) -> Self {
        let attempt = Dirs::below(base, &name.attempt);
        let part = attempt.inside(&name.part);
        Self { attempt, part, unified_memory: base.unified_memory }
    }

    /// Keeps the processes of this part from device files as `rules` say; false where neither
    /// hierarchy can.
    ///
    /// # Errors
    /// With what the kernel refused.
    pub(crate) fn confine(&self, base: &Hierarchies, rules: &[Rule]) -> io::Result<bool> {
        if let Some(dir) = self.part.unified.as_ref().filter(|_| base.unified_devices) {
            return confine::confine_unified(dir, rules).map(|()| true);
        }
        match &self.part.devices {
            Some(dir) => confine::confine_version1(dir, rules).map(|()| true),
            None => Ok(false),
        }
    }

    /// Moves the calling process into the group.
    ///
    /// # Errors
    /// With the file that could not be written.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.dirs().try_for_each(|dir| write(dir, "cgroup.procs", "0"))
    }

    pub(super) fn pids(&self) -> io::Result<Vec<Pid>> {
        let Some(dir) = self.any_dir() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect_pids(dir, &mut pids)?;
        Ok(pids)
    }

    /// Kills the group as one, frozen or not; false where the kernel cannot (before Linux 5.14,
    /// and in version 1).
    pub(super) fn kill_at_once(&self) -> bool {
        self.part.unified.as_ref().is_some_and(|dir| write(dir, "cgroup.kill", "1").is_ok())
    }

    /// Freezes or thaws; `None` where no hierarchy can.
    pub(super) fn set_frozen(&self, frozen: bool) -> Option<io::Result<()>> {
        if let Some(dir) = &self.part.unified {
            return Some(write(dir, "cgroup.freeze", if frozen { "1" } else { "0" }));
        }
        let dir = self.part.freezer.as_ref()?;
        Some(write(dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" }))
    }

    pub(super) fn is_empty(&self) -> bool {
        if let Some(path) = self.events_path() {
            // A group that is gone holds nobody.
            return fs::read_to_string(path).map_or(true, |text| text.contains("populated 0"));
        }
        self.pids().map_or(true, |pids| pids.is_empty())
    }

    pub(super) fn events_path(&self) -> Option<PathBuf> {
        self.part.unified.as_ref().map(|dir| dir.join("cgroup.events"))
    }

    pub(super) fn oom_kills(&self) -> u64 {
        if let Some(dir) = &self.part.memory {
            return keyed(dir, "memory.oom_control", "oom_kill").unwrap_or(0);
        }
        let unified = self.part.unified.as_ref().filter(|_| self.unified_memory);
        unified.and_then(|dir| keyed(dir, "memory.events", "oom_kill")).unwrap_or(0)
    }

    pub(super) fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        if let Some(dir) = &self.part.unified {
            if let Ok(text) = fs::read_to_string(dir.join("cpu.stat")) {
                counted.user_usec = keyed_in(&text, "user_usec").unwrap_or(0);
                counted.system_usec = keyed_in(&text, "system_usec").unwrap_or(0);
            }
        } else if let Some(dir) = &self.part.cpuacct {
            counted.user_usec = number(dir, "cpuacct.usage_user").unwrap_or(0) / 1000;
            counted.system_usec = number(dir, "cpuacct.usage_sys").unwrap_or(0) / 1000;
        }
        let peak = if let Some(dir) = &self.part.memory {
            number(dir, "memory.max_usage_in_bytes")
        } else {
            let unified = self.part.unified.as_ref().filter(|_| self.unified_memory);
            unified.and_then(|dir| number(dir, "memory.peak"))
        };
        counted.peak_bytes = peak.unwrap_or(0);
        counted
    }

    pub(crate) fn remove(&self) -> bool {
        // Version 2 first: while it is populated, nothing else is worth trying.
        let removed = self.dirs().all(remove_tree);
        if removed {
            for dir in self.attempt.all() {
                // Whichever part is the last to end removes it.
                let _another_part_is_left = fs::remove_dir(dir);
            }
        }
        removed
    }

    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        self.part.all()
    }

    fn any_dir(&self) -> Option<&PathBuf> {
        self.dirs().next()
    }
}

/// Removes `dir` and the groups below it, which the job may have made; true if it is gone.
fn remove_tree(dir: &PathBuf) -> bool {
    let gone = |result: io::Result<()>| match result {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if gone(fs::remove_dir(dir)) {
        return true;
    }
    for child in subgroups(dir) {
        remove_tree(&child);
    }
    gone(fs::remove_dir(dir))
}

fn subgroups(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path())
}

fn collect_pids(dir: &Path, pids: &mut Vec<Pid>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    pids.extend(numbers.filter_map(Pid::from_raw));
    // What the job put into groups of its own is part of it.
    subgroups(dir).try_for_each(|child| collect_pids(&child, pids))
}

/// Makes `dir` anew: a group of that name left by an earlier failure is removed first.
fn make_fresh(dir: &PathBuf) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !remove_tree(dir) {
                return Err(with_path(dir, io::Error::from(io::ErrorKind::ResourceBusy)));
            }
            fs::create_dir(dir).map_err(|error| with_path(dir, error))
        }
        made => made.map_err(|error| with_path(dir, error)),
    }
}

pub(super) fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let path = dir.join(file);
    // Never created: a file that the kernel does not offer is an error.
    let opened = fs::OpenOptions::new().write(true).open(&path);
    opened
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| with_path(&path, error))
}

fn with_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    keyed_in(&fs::read_to_string(dir.join(file)).ok()?, key)
}

/// The number behind `key` in lines of the form `key number`.
fn keyed_in(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(attempt: &str, part: &str) -> GroupName {
        GroupName { attempt: attempt.to_owned(), part: part.to_owned() }
    }

    #[test]
    fn keyed_files_are_read_by_whole_keys() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed_in(text, "oom_kill"), Some(2));
        assert_eq!(keyed_in(text, "oom"), Some(3));
        assert_eq!(keyed_in(text, "kill"), None);
    }

    #[test]
    fn a_group_that_is_gone_is_empty_and_removed() {
        let base = Hierarchies { unified: "/nonexistent".to_owned(), ..Hierarchies::default() };
        let group = Group::named(&base, &name("job_1.0", "batch"));
        assert!(group.is_empty() && group.remove());
        assert!(group.pids().unwrap().is_empty());
    }

    #[test]
    fn a_group_holds_limits_and_ends_its_processes() {
        let name = format!("unit-{}", std::process::id());
        let both = super::super::detect(&name);
        try_group(&both);
        let old = super::super::detect::detect_version1(&format!("{name}-v1"));
        assert!(old.hierarchies.unified.is_empty());
        try_group(&old);
    }

    #[expect(clippy::print_stderr, reason = "what a machine lacks is said")]
    fn try_group(detected: &super::super::Detected) {
        let base = &detected.hierarchies;
        if !base.is_usable() {
            eprintln!("skipped: {}", detected.notes.join("; "));
            return;
        }
        let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
        let base = Hierarchies { cpuset: String::new(), ..base.clone() };
        let none = Limits::default();
        let group = Group::create(&base, &name("job_7.0", "batch"), &limits, &none).unwrap();
        let step = Group::create(&base, &name("job_7.0", "step_0"), &limits, &limits).unwrap();
        assert!(group.is_empty() && step.is_empty());
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read go; sleep 1000 & wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for dir in group.dirs() {
            write(dir, "cgroup.procs", &child.id().to_string()).unwrap();
        }
        io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
        assert!(!group.is_empty() && !group.remove());
        let group = super::super::Container::Group(Box::new(group));
        group.set_frozen(true).unwrap();
        group.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        while !group.is_empty() {
            std::thread::yield_now();
            group.kill().unwrap();
        }
        assert_eq!(group.oom_kills(), 0);
        while !group.remove() {
            std::thread::yield_now();
        }
        let outer: Vec<PathBuf> = step.attempt.all().cloned().collect();
        assert!(outer.iter().all(|dir| dir.exists()), "the step's group is left in it");
        assert!(step.remove() && !outer.iter().any(|dir| dir.exists()));
        detected.hierarchies.remove();
    }
}
