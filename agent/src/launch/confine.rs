//! Which device files may the processes of a group open?
//!
//! Of the node's GPUs and accelerators those that the job was given, and everything that is none of
//! these: a rule names one device, or all of a major number, and the first that fits counts. Version
//! 2 of cgroups takes a program for it, version 1 a list in a file.

mod program;
mod version1;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

pub(crate) use program::{can_load, confine as confine_unified};
pub(super) use version1::confine as confine_version1;

/// Major number of `/dev/nvidiaN` and `/dev/nvidiactl`.
const NVIDIA_MAJOR: u32 = 195;

/// Name under which the kernel lists the major number of the nodes of MIG's capabilities.
const CAPS: &str = "nvidia-caps";

/// One rule.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Rule {
    /// A block device; else one of characters.
    #[prost(bool, tag = "1")]
    pub(crate) block: bool,
    #[prost(uint32, tag = "2")]
    pub(crate) major: u32,
    /// Absent: all of this major number.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) minor: Option<u32>,
    #[prost(bool, tag = "4")]
    pub(crate) allow: bool,
}

/// The rules for a job that may open `own`, on a node with the devices `all`. `real`: the folder of
/// the device files of real NVIDIA GPUs, of which no other number is to be reached either, also of
/// slices that are made later.
pub(crate) fn rules(
    own: &BTreeSet<PathBuf>,
    all: &BTreeSet<PathBuf>,
    real: Option<&Path>,
) -> Vec<Rule> {
    let numbers = |paths: &BTreeSet<PathBuf>, allow| {
        let found = paths.iter().filter_map(|path| number(path));
        found
            .map(|(block, major, minor)| Rule { block, major, minor: Some(minor), allow })
            .collect::<Vec<_>>()
    };
    let mut rules = numbers(own, true);
    let denied = numbers(all, false);
    let covered = |rule: &Rule, rules: &[Rule]| {
        rules
            .iter()
            .any(|own| (own.block, own.major, own.minor) == (rule.block, rule.major, rule.minor))
    };
    let denied: Vec<Rule> = denied.into_iter().filter(|rule| !covered(rule, &rules)).collect();
    rules.extend(denied);
    if let Some(dir) = real {
        // The control node, without which no GPU can be used, and which gives none by itself.
        if let Some((block, major, minor)) = number(&dir.join("nvidiactl")) {
            rules.push(Rule { block, major, minor: Some(minor), allow: true });
        }
        let majors = [Some(NVIDIA_MAJOR), caps_major()].into_iter().flatten();
        rules.extend(majors.map(|major| Rule { block: false, major, minor: None, allow: false }));
    }
    rules
}

/// Kind and numbers of a device file; `None` where there is none.
fn number(path: &Path) -> Option<(bool, u32, u32)> {
    let meta = std::fs::metadata(path).ok()?;
    let kind = meta.file_type();
    let device = meta.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (kind.is_block_device() || kind.is_char_device()).then_some((
        kind.is_block_device(),
        major,
        minor,
    ))
}

/// The major number of the nodes of MIG's capabilities, where the driver has them.
pub(crate) fn caps_major() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/devices").ok()?;
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines.find(|(_, name)| *name == CAPS)?.0.parse().ok()
}

/// Why a group's devices cannot be limited.
pub(super) fn with_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_devices_come_before_the_others_and_are_not_denied() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let own = paths(&["/dev/zero"]);
        let all = paths(&["/dev/zero", "/dev/full", "/dev/no-such-device", "/tmp"]);
        let rules = rules(&own, &all, None);
        let seen: Vec<_> = rules.iter().map(|r| (r.major, r.minor, r.allow)).collect();
        assert_eq!(seen, [(1, Some(5), true), (1, Some(7), false)]);
        let closed = super::rules(&own, &all, Some(Path::new("/dev")));
        let last = closed.iter().find(|rule| rule.minor.is_none()).unwrap();
        assert_eq!((last.major, last.allow), (NVIDIA_MAJOR, false));
    }
}
