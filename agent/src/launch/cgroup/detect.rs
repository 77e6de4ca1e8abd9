//! Which cgroup hierarchies can hold jobs on this machine?
//!
//! Found out once, when the agent starts, and handed to every shepherd. In each hierarchy the
//! root is tried first, so that jobs are not counted against the agent's own limits and survive
//! whoever cleans up its group; where that is not writable, the agent's own group is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::group::write;
use crate::launch::confine;

/// Directory below which all of Penstock's groups are.
const TOP: &str = "penstock";

/// Group that the agent moves itself into where version 2 asks that its own group be empty.
const AGENT_LEAF: &str = "penstock-agent";

/// The directories in which groups of jobs are made; empty where there is none.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hierarchies {
    /// Version 2.
    #[prost(string, tag = "1")]
    pub unified: String,
    /// The memory controller is in version 2.
    #[prost(bool, tag = "2")]
    pub unified_memory: bool,
    /// The cpuset controller is in version 2.
    #[prost(bool, tag = "3")]
    pub unified_cpuset: bool,
    /// Version 1, memory.
    #[prost(string, tag = "4")]
    pub memory: String,
    /// Version 1 limits memory and swap together.
    #[prost(bool, tag = "5")]
    pub memory_swap: bool,
    /// Version 1, cpuset; used where CPUs are pinned.
    #[prost(string, tag = "6")]
    pub cpuset: String,
    /// Memory nodes of the directory in `cpuset`, as the kernel lists them.
    #[prost(string, tag = "7")]
    pub cpuset_mems: String,
    /// Version 1, CPU time; only without version 2.
    #[prost(string, tag = "8")]
    pub cpuacct: String,
    /// Version 1, freezer; only without version 2.
    #[prost(string, tag = "9")]
    pub freezer: String,
    /// Version 1, pids; used where the number of processes is limited.
    #[prost(string, tag = "10")]
    pub pids: String,
    /// The pids controller is in version 2.
    #[prost(bool, tag = "11")]
    pub unified_pids: bool,
    /// Version 1, devices; used where version 2 cannot keep jobs from device files.
    #[prost(string, tag = "20")]
    pub devices: String,
    /// Version 2 can: this process may load the programs that it takes.
    #[prost(bool, tag = "21")]
    pub unified_devices: bool,
}

impl Hierarchies {
    /// Whether there is any hierarchy at all.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.parents().next().is_some()
    }

    /// Whether memory limits are kept by the kernel.
    #[must_use]
    pub fn limits_memory(&self) -> bool {
        self.unified_memory || !self.memory.is_empty()
    }

    /// Whether jobs can be pinned to CPUs.
    #[must_use]
    pub fn pins_cpus(&self) -> bool {
        self.unified_cpuset || !self.cpuset.is_empty()
    }

    /// Whether the number of a job's processes can be limited.
    #[must_use]
    pub fn limits_processes(&self) -> bool {
        self.unified_pids || !self.pids.is_empty()
    }

    /// Whether jobs can be kept from device files that are not theirs.
    #[must_use]
    pub fn confines_devices(&self) -> bool {
        self.unified_devices || !self.devices.is_empty()
    }

    /// Removes the directories, where no group is left in them.
    pub fn remove(&self) {
        for parent in self.parents() {
            // Best effort: a group that still holds a job keeps its parents.
            let _kept = fs::remove_dir(parent);
        }
    }

    fn parents(&self) -> impl Iterator<Item = &str> {
        let one = [&self.unified, &self.memory, &self.cpuset, &self.cpuacct];
        let two = [&self.freezer, &self.pids, &self.devices];
        one.into_iter().chain(two).map(String::as_str).filter(|parent| !parent.is_empty())
    }
}

/// What [`detect`] found.
#[derive(Debug, Clone, Default)]
pub struct Detected {
    /// Where groups can be made.
    pub hierarchies: Hierarchies,
    /// What cannot be done here, one line each, for the agent's log.
    pub notes: Vec<String>,
}

/// Finds the hierarchies that this process can make groups in, and makes `penstock/<name>` in
/// each. `name` tells several agents on one machine apart; letters that a directory name cannot
/// hold are replaced.
#[must_use]
pub fn detect(name: &str) -> Detected {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    detect_among(name, &mounts)
}

/// Removes `penstock/<name>` from each hierarchy, where no group is left in it.
pub fn remove(name: &str) {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = dir_name(name);
    for base in places(&own, &mounts).iter().flat_map(|place| &place.bases) {
        // Not there, or a group that still holds a job keeps it.
        let _kept = fs::remove_dir(base.join(TOP).join(&name));
    }
}

/// The same, as if version 2 were not there.
#[cfg(test)]
pub(super) fn detect_version1(name: &str) -> Detected {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let old: Vec<&str> = mounts.lines().filter(|line| !line.contains(" - cgroup2 ")).collect();
    detect_among(name, &old.join("\n"))
}

fn dir_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .collect()
}

fn detect_among(name: &str, mounts: &str) -> Detected {
    let name = dir_name(name);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let places = places(&own, mounts);
    let mut found = Hierarchies::default();
    for place in &places {
        if place.controllers.is_empty() && found.unified.is_empty() {
            use_unified(place, &name, &mut found);
        }
    }
    let v1 = |controller: &str, unified_has_it: bool| {
        let place = places.iter().find(|p| p.controllers.iter().any(|c| c == controller))?;
        if unified_has_it { None } else { prepare_v1(place, controller, &name) }
    };
    let text = |dir: Option<PathBuf>| dir.map_or_else(String::new, |d| d.display().to_string());
    found.memory = text(v1("memory", found.unified_memory));
    found.memory_swap = !found.memory.is_empty()
        && Path::new(&found.memory).join("memory.memsw.limit_in_bytes").exists();
    found.cpuset = text(v1("cpuset", found.unified_cpuset));
    if !found.cpuset.is_empty() {
        let mems = fs::read_to_string(Path::new(&found.cpuset).join("cpuset.mems"));
        mems.unwrap_or_default().trim().clone_into(&mut found.cpuset_mems);
    }
    found.pids = text(v1("pids", found.unified_pids));
    let has_unified = !found.unified.is_empty();
    found.unified_devices = has_unified && confine::can_load();
    found.devices = text(v1("devices", found.unified_devices));
    found.cpuacct = text(v1("cpuacct", has_unified));
    found.freezer = text(v1("freezer", has_unified));
    Detected { notes: notes(&found), hierarchies: found }
}

fn notes(found: &Hierarchies) -> Vec<String> {
    let mut notes = Vec::new();
    if !found.is_usable() {
        notes.push(
            "no cgroup can be written here: jobs are held together as descendants of their \
             shepherd, and what was killed while the agent was away may leave processes behind"
                .to_owned(),
        );
    }
    if !found.limits_memory() {
        notes.push(
            "the memory controller cannot be used here: memory is sampled each second, and jobs \
             over their limit are killed then"
                .to_owned(),
        );
    }
    if !found.pins_cpus() {
        notes.push("the cpuset controller cannot be used here: jobs are not pinned".to_owned());
    }
    notes
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Controllers of version 1; none for version 2.
    controllers: Vec<String>,
    /// Directories to try, in order.
    bases: Vec<PathBuf>,
}

/// Joins `/proc/self/cgroup` (where this process is) and `mountinfo` (where that is mounted).
fn places(own: &str, mounts: &str) -> Vec<Place> {
    mounts.lines().filter_map(|line| place(own, line)).collect()
}

fn place(own: &str, mount: &str) -> Option<Place> {
    let (front, back) = mount.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, point) = (front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (kind, options) = (back.next()?, back.nth(1)?);
    let version2 = kind == "cgroup2";
    if !version2 && kind != "cgroup" {
        return None;
    }
    // Lines of /proc/self/cgroup: `4:memory:/path`, in version 2 `0::/path`.
    let mut lines = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let mounted = |controllers: &str| {
        controllers.split(',').all(|c| options.split(',').any(|option| option == c))
    };
    let (controllers, path) = lines.find(|(controllers, _)| {
        if version2 {
            controllers.is_empty()
        } else {
            !controllers.is_empty() && mounted(controllers)
        }
    })?;
    let point = PathBuf::from(unescape(point));
    // A mount may show a part of the hierarchy only.
    let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
    let inside = inside.trim_matches('/');
    let inside = inside.strip_suffix(AGENT_LEAF).map_or(inside, |rest| rest.trim_end_matches('/'));
    let mut bases = vec![point.clone()];
    if !inside.is_empty() && !inside.split('/').any(|part| part == "..") {
        bases.push(point.join(inside));
    }
    let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
    Some(Place { controllers, bases })
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Makes `penstock/<name>` in the first base of a version 1 hierarchy that takes it.
fn prepare_v1(place: &Place, controller: &str, name: &str) -> Option<PathBuf> {
    place.bases.iter().find_map(|base| {
        let mut dir = base.clone();
        for part in [TOP, name] {
            let parent = dir.clone();
            dir.push(part);
            ensure_dir(&dir).ok()?;
            match controller {
                // A new cpuset has neither CPUs nor memory, and takes no process until it has.
                "cpuset" => ["cpuset.cpus", "cpuset.mems"].iter().try_for_each(|file| {
                    let inherited = fs::read_to_string(parent.join(file)).ok()?;
                    write(&dir, file, inherited.trim()).ok()
                })?,
                // Old kernels account below only if told so; newer ones always do.
                "memory" => drop(write(&dir, "memory.use_hierarchy", "1")),
                _ => {}
            }
        }
        takes_groups(&dir).then_some(dir)
    })
}

/// Makes `penstock/<name>` in version 2, with the controllers that can be had there.
fn use_unified(place: &Place, name: &str, found: &mut Hierarchies) {
    for base in &place.bases {
        let dir = base.join(TOP).join(name);
        if ensure_dir(&base.join(TOP)).is_err() || ensure_dir(&dir).is_err() || !takes_groups(&dir)
        {
            continue;
        }
        let own = place.bases.first() != Some(base);
        let enabled = |controller: &str| {
            enable(base, controller, own)
                && enable(&base.join(TOP), controller, false)
                && enable(&dir, controller, false)
        };
        found.unified_memory = enabled("memory");
        found.unified_cpuset = enabled("cpuset");
        found.unified_pids = enabled("pids");
        found.unified = dir.display().to_string();
        return;
    }
}

/// Whether children of `dir` have `controller` now. With `own`, the processes in `dir` (the agent
/// and its shepherds) may be moved into a child: only empty groups pass controllers on.
fn enable(dir: &Path, controller: &str, own: bool) -> bool {
    let listed = |file| {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|word| word == controller)
    };
    if listed("cgroup.subtree_control") {
        return true;
    }
    if !listed("cgroup.controllers") {
        return false;
    }
    let ask = || write(dir, "cgroup.subtree_control", &format!("+{controller}")).is_ok();
    ask() || (own && move_into_leaf(dir).is_ok() && ask())
}

fn move_into_leaf(dir: &Path) -> io::Result<()> {
    let leaf = dir.join(AGENT_LEAF);
    ensure_dir(&leaf)?;
    let pids = fs::read_to_string(dir.join("cgroup.procs"))?;
    pids.lines().try_for_each(|pid| write(&leaf, "cgroup.procs", pid))
}

fn ensure_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Whether a group can be made below `dir` and would take processes.
fn takes_groups(dir: &Path) -> bool {
    let probe = dir.join("probe");
    let made = ensure_dir(&probe).is_ok();
    let writable =
        made && fs::OpenOptions::new().write(true).open(probe.join("cgroup.procs")).is_ok();
    // It held nobody, so that it goes; if not, the next agent uses it again.
    let _kept = fs::remove_dir(&probe);
    writable
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "9:name=systemd:/\n4:memory:/process_api/70\n2:cpu,cpuacct:/\n0::/\n";

    fn bases(own: &str, mount: &str) -> Option<(Vec<String>, Vec<String>)> {
        let place = place(own, mount)?;
        let bases = place.bases.iter().map(|base| base.display().to_string()).collect();
        Some((place.controllers, bases))
    }

    #[test]
    fn a_hierarchy_is_tried_at_its_root_and_then_at_the_agents_own_group() {
        let memory = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
        let (controllers, found) = bases(HYBRID, memory).unwrap();
        assert_eq!(controllers, ["memory"]);
        assert_eq!(found, ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/process_api/70"]);
    }

    #[test]
    fn joined_controllers_and_version_2_are_told_apart() {
        let joined = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(bases(HYBRID, joined).unwrap().0, ["cpu", "cpuacct"]);
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let (controllers, found) = bases(HYBRID, unified).unwrap();
        assert!(controllers.is_empty());
        assert_eq!(found, ["/sys/fs/cgroup/unified"]);
        let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(bases(HYBRID, named).unwrap().0, ["name=systemd"]);
        assert_eq!(bases(HYBRID, "30 31 0:9 / /tmp rw - tmpfs tmpfs rw"), None);
        assert_eq!(bases(HYBRID, "nonsense"), None);
    }

    #[test]
    fn a_mount_of_a_part_shows_paths_below_that_part() {
        let own = "0::/system.slice/penstock.service/penstock-agent\n";
        let mount = "41 31 0:38 /system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let (_, found) = bases(own, mount).unwrap();
        assert_eq!(found, ["/sys/fs/cgroup", "/sys/fs/cgroup/penstock.service"]);
        let escaped = "41 31 0:38 / /sys/fs/a\\040b rw - cgroup2 cgroup2 rw";
        assert_eq!(bases("0::/../x\n", escaped).unwrap().1, ["/sys/fs/a b"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(notes(&Hierarchies::default()).len(), 3);
        let all = Hierarchies {
            unified: "/x".to_owned(),
            unified_memory: true,
            unified_cpuset: true,
            ..Hierarchies::default()
        };
        assert!(notes(&all).is_empty());
    }
}
