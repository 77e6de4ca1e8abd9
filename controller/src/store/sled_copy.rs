//! How is sled 0.34.7 used so that what it says it has, it has?
//!
//! One tree, one writer, everything in one batch: records under `r<key>` and the position under
//! `meta/seq`. Its `flush` calls `sync_file_range`, which is no fsync, so each flush is followed
//! by an fsync of its file through a descriptor of our own; folders are synced at creation, which
//! sled does not do. Its own flusher is off, as it would widen what a power cut can take.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::{BoxError, Fault};
use super::files;
use super::frames::{StoreId, le_u32, le_u64};
use super::key::{Change, Key};

const META: &[u8] = b"meta/seq";
const RECORD: u8 = b'r';
/// How long to wait for the lock of a handle that is still being dropped.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The folder of the copy of a store in `dir`.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("sled")
}

/// There while a copy is being made from nothing; such a copy is thrown away at the next start.
pub(crate) fn building(dir: &Path) -> PathBuf {
    dir.join("sled.building")
}

/// An open sled.
pub(crate) struct SledCopy {
    db: sled::Db,
    file: File,
}

/// What a copy says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Holds all batches up to this one.
    At(u64),
    /// Belongs to another store.
    Foreign,
    /// Says nothing sensible: empty or broken.
    Unknown,
}

impl SledCopy {
    /// Opens or creates the copy of the store in `dir`. May panic, since sled does.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<SledCopy, BoxError> {
        let folder = folder(dir);
        let deadline = Instant::now() + LOCK_WAIT;
        let config = sled::Config::new()
            .path(&folder)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None)
            .cache_capacity(cache_bytes);
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let path = folder.join("db");
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(Fault::io("open", &path))?;
        file.sync_all().map_err(Fault::io("fsync", &path))?;
        files::sync_dir(&folder)?;
        files::sync_dir(dir)?;
        Ok(SledCopy { db, file })
    }

    /// Reads the position.
    pub(crate) fn position(&self, id: &StoreId) -> Result<Position, sled::Error> {
        let Some(meta) = self.db.get(META)? else { return Ok(Position::Unknown) };
        if meta.len() != 28 || crc32fast::hash(&meta[..24]) != le_u32(&meta, 24) {
            return Ok(Position::Unknown);
        }
        if meta[..16] != *id {
            return Ok(Position::Foreign);
        }
        Ok(Position::At(le_u64(&meta, 16)))
    }

    /// Applies `changes`, which bring the copy to batch `seq`, all or nothing. Not durable yet.
    pub(crate) fn apply<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
        position: Option<(&StoreId, u64)>,
    ) -> Result<(), sled::Error> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put(key, value) => batch.insert(stored(key), value.as_ref()),
                Change::Delete(key) => batch.remove(stored(key)),
            }
        }
        if let Some((id, seq)) = position {
            let mut meta = id.to_vec();
            meta.extend_from_slice(&seq.to_le_bytes());
            meta.extend_from_slice(&crc32fast::hash(&meta).to_le_bytes());
            batch.insert(META, meta);
        }
        self.db.apply_batch(batch)
    }

    /// Makes what was applied durable.
    pub(crate) fn sync(&self) -> Result<(), BoxError> {
        self.db.flush()?;
        self.file.sync_all()?;
        Ok(())
    }

    /// Every record in key order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(Key, Bytes), BoxError>> {
        self.db.scan_prefix([RECORD]).map(|found| {
            let (key, value) = found?;
            let key = Key::from_bytes(Bytes::copy_from_slice(&key[1..])).ok_or("an empty key")?;
            Ok((key, Bytes::copy_from_slice(&value)))
        })
    }
}

fn stored(key: &Key) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.as_bytes().len());
    stored.push(RECORD);
    stored.extend_from_slice(key.as_bytes());
    stored
}

/// sled reports a held lock as text only.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("lock"))
}

/// Opens the copy of the store in `dir` and reads its position, to be run in a process of its
/// own: a broken sled may panic, hang or take all memory.
///
/// # Errors
/// What sled says about itself.
pub fn probe_sled(dir: &Path) -> Result<(), BoxError> {
    if !folder(dir).exists() {
        return Ok(());
    }
    let copy = SledCopy::open(dir, 16 << 20)?;
    copy.position(&StoreId::default())?;
    Ok(())
}
