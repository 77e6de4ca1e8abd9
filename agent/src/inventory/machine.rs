//! What does the kernel say about the machine as a whole?

use std::fs;

use penstock_vocab::{Mib, Timestamp};

use super::InventoryError;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Names of system and machine.
pub(super) struct System {
    /// System, release and version, as Slurm's `OS`.
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) host: String,
}

pub(super) fn system() -> System {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    System {
        os: format!("{} {} {}", read("ostype"), read("osrelease"), read("version")),
        architecture: std::env::consts::ARCH.to_owned(),
        host: read("hostname"),
    }
}

/// The id of this boot.
pub(super) fn boot_id() -> Result<String, InventoryError> {
    let text = fs::read_to_string(BOOT_ID)
        .map_err(|source| InventoryError::Unreadable { path: BOOT_ID, source })?;
    Ok(text.trim().to_owned())
}

/// When the machine was booted; the epoch if the kernel does not say.
pub(super) fn boot_time() -> Timestamp {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let secs = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    Timestamp::from_secs(secs.unwrap_or(0))
}

/// All memory of the machine, rounded down.
pub(super) fn memory() -> Mib {
    nix::sys::sysinfo::sysinfo().map_or(Mib(0), |info| Mib(info.ram_total() >> 20))
}

/// Size of the file system with `/tmp`, rounded down; 0 if there is none.
pub(super) fn tmp_disk() -> Mib {
    let size = |stat: rustix::fs::StatVfs| stat.f_blocks.saturating_mul(stat.f_frsize) >> 20;
    rustix::fs::statvfs("/tmp").map_or(Mib(0), |stat| Mib(size(stat)))
}
