//! Which device files does a GPU, or a slice of one, have?
//!
//! A slice has its parent's file too: alone that gives nothing, the two files of capabilities are
//! the isolation. Their numbers follow a fixed table, which the driver tells in a file; where it
//! does not, the table is computed (`nvidia-cap` minors: GPU instance at 3 + 135 gpu + 9 gi, its
//! compute instances behind it).

use std::path::Path;

use penstock_proto::v1;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Where a driver lists the minors of capabilities.
const MIG_MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";

/// Files that every job with a GPU needs, below the folder of device files.
const COMMON: &[&str] = &["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// The files of a whole GPU: its own first, then those common to all that are there.
pub(super) fn of_gpu(dir: &Path, minor: u32) -> Vec<String> {
    let own = dir.join(format!("nvidia{minor}"));
    let common = COMMON.iter().map(|name| dir.join(name)).filter(|path| path.exists());
    std::iter::once(own).chain(common).map(|path| path.display().to_string()).collect()
}

/// The files of a slice that its parent does not have: the capabilities of its instances.
pub(super) fn of_slice(dir: &Path, minor: u32, gi: u32, ci: u32) -> Vec<String> {
    let table = std::fs::read_to_string(MIG_MINORS).unwrap_or_default();
    let numbers = [instance_minor(&table, minor, gi), compute_minor(&table, minor, gi, ci)];
    let file = |number| dir.join(format!("nvidia-caps/nvidia-cap{number}"));
    numbers.map(|number| file(number).display().to_string()).to_vec()
}

/// Makes the files of slices that the driver's own tools have not made: where nothing runs
/// nvidia-modprobe for a new slice, its job could not use it. What keeps jobs from them is their group.
pub(super) fn ensure(slices: &[v1::MigSlice]) {
    let Some(major) = crate::launch::confine::caps_major() else { return };
    for file in slices.iter().flat_map(|slice| &slice.device_files).map(Path::new) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let minor = name.strip_prefix("nvidia-cap").and_then(|minor| minor.parse().ok());
        let Some(minor) = minor.filter(|_| !file.exists()) else { continue };
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o444));
            Ok(mknodat(CWD, file, kind, mode, makedev(major, minor))?)
        });
        if let Err(error) = made {
            tracing::warn!(%error, file = %file.display(), "a slice's device file cannot be made");
        }
    }
}

fn instance_minor(table: &str, gpu: u32, gi: u32) -> u32 {
    listed(table, &format!("gpu{gpu}/gi{gi}/access")).unwrap_or(3 + 135 * gpu + 9 * gi)
}

fn compute_minor(table: &str, gpu: u32, gi: u32, ci: u32) -> u32 {
    let computed = instance_minor("", gpu, gi) + 1 + ci;
    listed(table, &format!("gpu{gpu}/gi{gi}/ci{ci}/access")).unwrap_or(computed)
}

fn listed(table: &str, name: &str) -> Option<u32> {
    let mut lines = table.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(known, _)| *known == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_numbered_by_the_fixed_table() {
        assert_eq!((instance_minor("", 0, 0), compute_minor("", 0, 0, 0)), (3, 4));
        assert_eq!((instance_minor("", 0, 2), compute_minor("", 0, 2, 0)), (21, 22));
        assert_eq!(compute_minor("", 31, 14, 7), 4322);
        let table = "config 1\nmonitor 2\ngpu0/gi2/access 40\ngpu0/gi2/ci0/access 41\n";
        assert_eq!((instance_minor(table, 0, 2), compute_minor(table, 0, 2, 0)), (40, 41));
        assert_eq!(instance_minor(table, 0, 3), 30);
    }

    #[test]
    fn files_are_below_the_folder() {
        let dir = Path::new("/nowhere/dev");
        assert_eq!(of_gpu(dir, 4), ["/nowhere/dev/nvidia4"]);
        let expect =
            ["/nowhere/dev/nvidia-caps/nvidia-cap3", "/nowhere/dev/nvidia-caps/nvidia-cap4"];
        assert_eq!(of_slice(dir, 0, 0, 0), expect);
    }
}
