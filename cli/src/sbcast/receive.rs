//! What does a node do with a file that is sent to it?
//!
//! It runs as a task of the step, as the user: the file is written beside its place and put there
//! when it is whole. The exit status is the error number.

use std::ffi::OsString;
use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The subcommand, which only shepherds start.
pub(crate) const NAME: &str = "receive-file";

/// What is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Of the last access and change, seconds since the epoch, where they are to be kept.
    pub(super) times: Option<(i64, i64)>,
    /// A file that is there is replaced.
    pub(super) force: bool,
    pub(super) dest: String,
}

impl Receipt {
    /// As arguments of the receiver.
    pub(super) fn words(&self) -> Vec<String> {
        let time = |time: Option<i64>| time.map_or_else(|| "-".to_owned(), |secs| secs.to_string());
        vec![
            self.size.to_string(),
            format!("{:o}", self.mode),
            time(self.times.map(|(accessed, _)| accessed)),
            time(self.times.map(|(_, changed)| changed)),
            u8::from(self.force).to_string(),
            self.dest.clone(),
        ]
    }

    fn parse(words: &[String]) -> Option<Self> {
        let [size, mode, accessed, changed, force, dest] = words else { return None };
        let time = |text: &str| text.parse::<i64>().ok();
        Some(Self {
            size: size.parse().ok()?,
            mode: u32::from_str_radix(mode, 8).ok()?,
            times: time(accessed).zip(time(changed)),
            force: force == "1",
            dest: dest.clone(),
        })
    }
}

/// Takes a file from standard input; returns the exit status.
pub(crate) fn run(args: &[OsString]) -> i32 {
    let words: Option<Vec<String>> =
        args.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let Some(receipt) = words.and_then(|words| Receipt::parse(&words)) else {
        crate::errors::error("penstock", "receive-file is started by sbcast's step");
        return libc::EINVAL;
    };
    match receive(&receipt, io::stdin().lock()) {
        Ok(()) => 0,
        Err(failure) => failure.raw_os_error().unwrap_or(libc::EIO),
    }
}

fn receive(receipt: &Receipt, from: impl io::Read) -> io::Result<()> {
    let dest = Path::new(&receipt.dest);
    if !receipt.force && dest.symlink_metadata().is_ok() {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    let beside = beside(dest)?;
    let done = write(receipt, from, &beside).and_then(|()| {
        if receipt.force {
            std::fs::rename(&beside, dest)
        } else {
            // Unlike a rename it replaces nothing that came meanwhile.
            std::fs::hard_link(&beside, dest)
        }
    });
    if done.is_err() || !receipt.force {
        std::fs::remove_file(&beside).ok();
    }
    done
}

/// A name in the same folder that nobody else has.
fn beside(dest: &Path) -> io::Result<PathBuf> {
    let invalid = || io::Error::from_raw_os_error(libc::EISDIR);
    let mut name = OsString::from(".");
    name.push(dest.file_name().ok_or_else(invalid)?);
    name.push(format!(".sbcast-{:016x}", rand::random::<u64>()));
    Ok(dest.with_file_name(name))
}

fn write(receipt: &Receipt, from: impl io::Read, path: &Path) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // One byte more than there should be tells of a file that grew.
    let copied = io::copy(&mut from.take(receipt.size + 1), &mut file)?;
    if copied != receipt.size {
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    file.set_permissions(Permissions::from_mode(receipt.mode))?;
    if let Some((accessed, changed)) = receipt.times {
        let times = FileTimes::new().set_accessed(time(accessed)).set_modified(time(changed));
        file.set_times(times)?;
    }
    Ok(())
}

fn time(secs: i64) -> SystemTime {
    let since = Duration::from_secs(secs.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if secs < 0 { epoch.checked_sub(since) } else { epoch.checked_add(since) };
    time.unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn receipt(dest: &Path, force: bool) -> Receipt {
        Receipt {
            size: 3,
            mode: 0o640,
            times: Some((1_000, 2_000)),
            force,
            dest: dest.to_string_lossy().into_owned(),
        }
    }

    #[test]
    fn words_come_back() {
        for times in [None, Some((1, -2))] {
            let sent = Receipt { times, ..receipt(Path::new("/x y"), true) };
            assert_eq!(Receipt::parse(&sent.words()), Some(sent));
        }
        assert_eq!(Receipt::parse(&[]), None);
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let dest = dir.path().join("f");
        let short = receive(&receipt(&dest, false), &b"ab"[..]).expect_err("too short");
        assert_eq!(short.raw_os_error(), Some(libc::EIO));
        assert!(receive(&receipt(&dest, false), &b"abcd"[..]).is_err(), "too long");
        assert!(!dest.exists());
        receive(&receipt(&dest, false), &b"abc"[..]).expect("received");
        let about = dest.metadata().expect("there");
        assert_eq!((about.mode() & 0o7777, about.mtime(), about.len()), (0o640, 2_000, 3));
        let there = receive(&receipt(&dest, false), &b"xyz"[..]).expect_err("is there");
        assert_eq!(there.raw_os_error(), Some(libc::EEXIST));
        receive(&receipt(&dest, true), &b"xyz"[..]).expect("replaced");
        assert_eq!(std::fs::read(&dest).expect("there"), b"xyz");
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
        let nowhere = receive(&receipt(Path::new("/no/such/f"), true), &b"abc"[..]);
        assert_eq!(nowhere.expect_err("no folder").raw_os_error(), Some(libc::ENOENT));
    }
}
