//! How do shepherds know until when they may run their jobs?
//!
//! By one file in the agent's folder, which holds the moment (`CLOCK_BOOTTIME`, milliseconds) from
//! which all leases count. The agent overwrites it; a shepherd looks when its lease seems over, so
//! that neither a message nor a wake-up is needed while nothing is wrong. The file outlives the
//! agent. It belongs to one boot, whose id it names: the clock begins anew with the next.
//!
//! The number is written twice, one after the other, and the smaller counts: whoever reads while
//! it is written sees at most the newer one.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use penstock_vocab::Millis;

/// Name of the file in the agent's folder.
const NAME: &str = "lease";
/// Bytes of the number, written twice.
const NUMBERS: usize = 16;
/// Longest file: the numbers and a boot id.
const MAX_BYTES: u64 = 256;

/// Where the file is.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// The agent's side.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    boot_id: String,
    file: Option<File>,
}

impl Ledger {
    /// Takes over what an earlier agent of this boot left, if a shepherd may look at it
    /// (`in_use`); else the file goes, and is made when it is needed.
    ///
    /// # Errors
    /// When it cannot be read, or not be removed.
    pub(super) fn open(state_dir: &Path, boot_id: &str, in_use: bool) -> io::Result<Self> {
        let path = path(state_dir);
        let mut ledger = Self { path, boot_id: boot_id.to_owned(), file: None };
        match fs::OpenOptions::new().read(true).write(true).open(&ledger.path) {
            Ok(file) if in_use && belongs_to(&file, boot_id)? => ledger.file = Some(file),
            Ok(_) => fs::remove_file(&ledger.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(ledger)
    }

    /// Whether a shepherd may look at the file.
    pub(super) const fn is_in_use(&self) -> bool {
        self.file.is_some()
    }

    /// From now on, leases count from `since`.
    ///
    /// # Errors
    /// When the file cannot be made or written; then leases run out.
    pub(super) fn renew(&mut self, since: Millis) -> io::Result<()> {
        let number = since.0.to_le_bytes();
        let twice = [number, number].concat();
        if let Some(file) = &self.file {
            return file.write_all_at(&twice, 0);
        }
        let new = self.path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all_at(&[&twice, self.boot_id.as_bytes()].concat(), 0)?;
        fs::rename(&new, &self.path)?;
        self.file = Some(file);
        Ok(())
    }
}

fn belongs_to(file: &File, boot_id: &str) -> io::Result<bool> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes.get(NUMBERS..) == Some(boot_id.as_bytes()))
}

/// A shepherd's side.
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
    length: Millis,
}

impl Lease {
    /// A lease of `length` by the file at `path`.
    ///
    /// # Errors
    /// When the file is not there, or is of another boot.
    pub(super) fn open(path: &Path, boot_id: &str, length: Millis) -> io::Result<Self> {
        let file = File::open(path)?;
        if belongs_to(&file, boot_id)? {
            return Ok(Self { file, length });
        }
        Err(io::Error::other("it is of another boot of this machine"))
    }

    /// Until when it holds, as the file says at `now`. What cannot be read, or lies ahead, renews
    /// nothing.
    pub(super) fn until(&self, now: Millis) -> Millis {
        let mut bytes = [0; NUMBERS];
        let read = self.file.read_exact_at(&mut bytes, 0);
        let (first, second) = bytes.split_at(NUMBERS / 2);
        let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
        let since = Millis(number(first).min(number(second)));
        if read.is_err() || since > now {
            return Millis::ZERO;
        }
        since.saturating_add(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Millis = Millis(20_000);

    #[test]
    fn a_renewal_reaches_whoever_looks() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), "boot-1", false).unwrap();
        assert!(!ledger.is_in_use());
        assert!(Lease::open(&path(dir.path()), "boot-1", LENGTH).is_err(), "nothing is written");
        ledger.renew(Millis(1_000)).unwrap();
        let lease = Lease::open(&path(dir.path()), "boot-1", LENGTH).unwrap();
        assert_eq!(lease.until(Millis(5_000)), Millis(21_000));
        ledger.renew(Millis(4_000)).unwrap();
        assert_eq!(lease.until(Millis(5_000)), Millis(24_000));
        assert_eq!(lease.until(Millis(3_999)), Millis::ZERO, "nobody sends in the future");
    }

    #[test]
    fn a_later_agent_goes_on_with_the_same_file_while_it_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path(), "boot-1", false).unwrap().renew(Millis(1_000)).unwrap();
        let lease = Lease::open(&path(dir.path()), "boot-1", LENGTH).unwrap();
        let mut ledger = Ledger::open(dir.path(), "boot-1", true).unwrap();
        assert!(ledger.is_in_use());
        ledger.renew(Millis(2_000)).unwrap();
        assert_eq!(lease.until(Millis(2_000)), Millis(22_000));
        let ledger = Ledger::open(dir.path(), "boot-1", false).unwrap();
        assert!(!ledger.is_in_use() && !path(dir.path()).exists());
    }

    #[test]
    fn what_another_boot_left_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path(), "boot-1", false).unwrap().renew(Millis(9_000)).unwrap();
        assert!(Lease::open(&path(dir.path()), "boot-2", LENGTH).is_err());
        let ledger = Ledger::open(dir.path(), "boot-2", true).unwrap();
        assert!(!ledger.is_in_use() && !path(dir.path()).exists());
    }

    #[test]
    fn half_a_number_is_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), [1; NUMBERS]).unwrap();
        let lease = Lease::open(&path(dir.path()), "", LENGTH).unwrap();
        fs::write(path(dir.path()), [1; 3]).unwrap();
        assert_eq!(lease.until(Millis(u64::MAX)), Millis::ZERO);
    }
}
