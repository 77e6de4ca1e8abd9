//! Which processes of this machine use a GPU that does not exist?
//!
//! Those that were given it: its UUID, or that of one of its MIG devices, is in their
//! `CUDA_VISIBLE_DEVICES`. Only processes whose environment this one may read are seen, as with
//! the real library in a container.

use std::fs;

/// A process that was given GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    /// UUIDs of GPUs and MIG devices.
    pub(crate) uuids: Vec<String>,
    /// How busy it says that it keeps them.
    pub(crate) percent: Option<u32>,
    /// What it says that it has on each, MiB; else its resident memory.
    pub(crate) mib: u64,
}

/// Most processes that are looked at.
const MAX_PROCESSES: usize = 65_536;

/// All processes that were given GPUs. Reads a file of each process of this machine.
pub(crate) fn holders() -> Vec<Holder> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().take(MAX_PROCESSES);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(holder).collect()
}

fn holder(pid: u32) -> Option<Holder> {
    let block = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let (uuids, percent, mib) = read(&block)?;
    let resident = || {
        let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
        Some((pages / 256).max(1))
    };
    let mib = mib.or_else(resident)?;
    Some(Holder { pid, uuids, percent, mib })
}

/// UUIDs, percentage and MiB in an environment; `None` where it names no GPU.
fn read(block: &[u8]) -> Option<(Vec<String>, Option<u32>, Option<u64>)> {
    let value = |name: &[u8]| {
        let entries = &mut block.split(|byte| *byte == 0);
        let found = entries.find_map(|entry| entry.strip_prefix(name))?;
        std::str::from_utf8(found).ok()
    };
    let list = value(b"CUDA_VISIBLE_DEVICES=")?;
    let is_uuid = |word: &&str| word.starts_with("GPU-") || word.starts_with("MIG-");
    let uuids: Vec<String> = list.split(',').filter(is_uuid).map(str::to_owned).collect();
    let percent = value(b"FAKE_GPU_PERCENT=").and_then(|text| text.parse().ok());
    let mib = value(b"FAKE_GPU_MIB=").and_then(|text| text.parse().ok());
    (!uuids.is_empty()).then(|| (uuids, percent.map(|percent: u32| percent.min(100)), mib))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_names_gpus_by_uuid() {
        let block =
            b"A=1\0CUDA_VISIBLE_DEVICES=GPU-1,MIG-2\0FAKE_GPU_PERCENT=250\0FAKE_GPU_MIB=9\0";
        let uuids = vec!["GPU-1".to_owned(), "MIG-2".to_owned()];
        assert_eq!(read(block), Some((uuids, Some(100), Some(9))));
        for none in [b"A=1".as_slice(), b"CUDA_VISIBLE_DEVICES=0,1\0", b""] {
            assert_eq!(read(none), None);
        }
    }
}
