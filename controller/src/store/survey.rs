//! What state does a directory hold, and is it whole? Read only.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

use super::checkpoint;
use super::error::{Fault, OpenError};
use super::frames::StoreId;
use super::guard::Guard;
use super::key::{Change, Key};
use super::redo::{self, Segment};

/// Changes behind a checkpoint: the newest value of each record, `None` if deleted.
pub(crate) type TailChanges = BTreeMap<Key, Option<Bytes>>;

/// The state in a directory.
pub(crate) struct Survey {
    /// Checkpoints that can be relied on, oldest first: the newest whole one, and the one before.
    pub(crate) kept: Vec<u64>,
    /// The newest whole checkpoint, ready to be read; `None` when the redo file begins at the
    /// beginning.
    pub(crate) checkpoint: Option<checkpoint::Reader>,
    /// How many records that has.
    pub(crate) records: u64,
    /// Newer checkpoints that can't be read, and why.
    pub(crate) bad: Vec<(u64, String)>,
    /// Redo segments, oldest first; at least one.
    pub(crate) segments: Vec<Segment>,
    /// What the segments change behind the checkpoint.
    pub(crate) tail: TailChanges,
}

impl Survey {
    /// Sequence of the checkpoint used.
    pub(crate) fn base(&self) -> u64 {
        self.kept.last().copied().unwrap_or(0)
    }

    /// The open segment.
    pub(crate) fn last_segment(&self) -> &Segment {
        self.segments.last().expect("a survey has at least one segment")
    }

    /// Sequence of the newest answered batch.
    pub(crate) fn newest(&self) -> u64 {
        self.last_segment().last
    }
}

/// Reads checkpoints and redo of the store in `dir` and checks that together they are whole.
pub(crate) fn survey(dir: &Path, guard: &Guard) -> Result<Survey, Fault> {
    let (mut kept, checkpoint, records, bad) = newest_whole(dir, &guard.id)?;
    let base = kept.last().copied().unwrap_or(0);
    let mut tail = TailChanges::new();
    let read =
        redo::survey(dir, &guard.id, base, &mut |_, changes| add_changes(&mut tail, changes));
    let segments = read.map_err(|fault| with_bad(fault, &bad))?;
    let oldest = segments.first().map_or(0, |segment| segment.first);
    // An older checkpoint is of use only if the redo file reaches back to it.
    kept.retain(|seq| *seq == base || oldest <= seq + 1);
    let survey = Survey { kept, checkpoint, records, bad, segments, tail };
    let end = survey.newest();
    let needed = guard.checkpoint.max(base);
    if end < needed {
        let path = survey.last_segment().path.display();
        return Err(Fault::Damaged(format!(
            "{path} ends with batch {end}, but a checkpoint was made at batch {needed}: the redo \
             file or the whole folder is older than what was answered"
        )));
    }
    Ok(survey)
}

type Newest = (Vec<u64>, Option<checkpoint::Reader>, u64, Vec<(u64, String)>);

fn newest_whole(dir: &Path, id: &StoreId) -> Result<Newest, Fault> {
    let listed = checkpoint::list(dir)?;
    let mut bad = Vec::new();
    for (at, seq) in listed.iter().copied().enumerate().rev() {
        match checkpoint::Reader::open(dir, id, seq).and_then(checkpoint::Reader::verify) {
            Ok((reader, count)) => {
                let from = at.saturating_sub(1);
                return Ok((listed[from..=at].to_vec(), Some(reader), count, bad));
            }
            Err(newer @ Fault::Newer { .. }) => return Err(newer),
            Err(fault) => bad.push((seq, fault.to_string())),
        }
    }
    Ok((Vec::new(), None, 0, bad))
}

fn with_bad(fault: Fault, bad: &[(u64, String)]) -> Fault {
    match fault {
        Fault::Damaged(text) if !bad.is_empty() => {
            let why: Vec<&str> = bad.iter().map(|(_, why)| why.as_str()).collect();
            Fault::Damaged(format!("{text}; newer checkpoints can't be used: {}", why.join("; ")))
        }
        other => other,
    }
}

/// Notes `changes` as the newest of their records.
pub(crate) fn add_changes(tail: &mut TailChanges, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(key, value) => tail.insert(key, Some(value)),
            Change::Delete(key) => tail.insert(key, None),
        };
    }
}

/// Streams `checkpoint` with `tail` laid over it, in key order.
pub(crate) fn merge<E>(
    checkpoint: Option<checkpoint::Reader>,
    tail: TailChanges,
    wrap: impl Fn(Fault) -> E,
    each: &mut dyn FnMut(Key, Bytes) -> Result<(), E>,
) -> Result<(), E> {
    let mut changes = tail.into_iter().peekable();
    if let Some(mut reader) = checkpoint {
        while let Some((key, value)) = reader.next_record().map_err(&wrap)? {
            while let Some((changed, new)) = changes.next_if(|(changed, _)| *changed < key) {
                new.map_or(Ok(()), |new| each(changed, new))?;
            }
            match changes.next_if(|(changed, _)| *changed == key) {
                Some((_, new)) => new.map_or(Ok(()), |new| each(key, new))?,
                None => each(key, value)?,
            }
        }
    }
    for (key, new) in changes {
        new.map_or(Ok(()), |new| each(key, new))?;
    }
    Ok(())
}

/// Holds `dir` for this process; the kernel lets go when the process ends, however it ends.
///
/// The lock is on the folder itself, so that looking at a store changes not one byte of it.
pub(crate) fn lock_dir(dir: &Path, patience: Duration) -> Result<OwnedFd, OpenError> {
    let io = |what| {
        let path: PathBuf = dir.to_owned();
        move |source: std::io::Error| OpenError::Io { what, path, source }
    };
    let file = File::open(dir).map_err(io("open"))?;
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file.into()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse { dir: dir.to_owned() });
            }
            Err(error) => return Err(io("lock")(error.into())),
        }
    }
}
