//! How do redo file, checkpoints, blobs, history and sled make one store?
//!
//! A commit writes its new blobs, then its redo frame, and is answered; sled follows behind. A
//! start takes the newest whole checkpoint and the redo segments behind it and answers at once.
//! Anything that does not add up is refused with the command that restores; the store never
//! starts empty or short in place of one that was there.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;

use super::api::{BlobSource, BlobSweep, Store, check_limits};
use super::blobs::{self, Blobs};
use super::checkpoint;
use super::codec::Marks;
use super::error::{Fault, OpenError, StoreError, advice};
use super::files;
use super::follower::{Follower, Setup, SledProbe, SledState};
use super::frames::StoreId;
use super::guard::{Guard, Presence, presence};
use super::history::{self, History};
use super::key::{Batch, BatchLimits, BlobHash, Key, MAX_BLOB_BYTES, Revision, Term};
use super::redo::{self, Failure, Redo, Sizes};
use super::shared::{CheckpointWriter, Shared};
use super::survey::{self, Survey, TailChanges, add_changes};

/// Bounds of one batch. The records are the distance that sled may be behind.
const LIMITS: BatchLimits =
    BatchLimits { records: 20_000, bytes: 16 << 20, blob_bytes: MAX_BLOB_BYTES };

/// Largest pack, so that places in it fit 32 bits.
const MAX_PACK: u64 = 1 << 30;

/// How an [`EmbeddedStore`] is opened. The defaults are those of the daemon.
#[derive(Clone)]
pub struct Options {
    /// Whether a store is created where the directory holds nothing.
    pub create: bool,
    /// Whether sled follows. Without it nothing checks checkpoint and redo against a second copy.
    pub follow: bool,
    /// Opens sled in another process first.
    pub sled_probe: Option<SledProbe>,
    /// sled's cache, in bytes.
    pub sled_cache_bytes: u64,
    /// How long [`Store::acquire`] waits for sled's verdict.
    pub sled_patience: Duration,
    /// Records that sled may be behind.
    pub max_behind_records: usize,
    /// Time that sled may be behind.
    pub max_behind: Duration,
    /// How long to wait for another process that still has the store.
    pub lock_patience: Duration,
    /// A redo segment is closed at this size, in bytes.
    pub segment_bytes: u64,
    /// How far ahead of use the redo file is filled, in bytes.
    pub redo_chunk_bytes: u64,
    /// A pack of blobs is closed at this size, in bytes. At most 1 GiB.
    pub pack_bytes: u64,
    /// A history file is closed at this size, in bytes.
    pub history_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            create: true,
            follow: true,
            sled_probe: None,
            // sled only follows: a small cache costs it time in the background, a large one would
            // cost the controller some 500 bytes of memory a pending job (measured).
            sled_cache_bytes: 2 << 20,
            sled_patience: Duration::from_secs(5),
            max_behind_records: 20_000,
            max_behind: Duration::from_secs(1),
            lock_patience: Duration::from_secs(2),
            segment_bytes: 64 << 20,
            redo_chunk_bytes: 4 << 20,
            pack_bytes: 64 << 20,
            history_bytes: 64 << 20,
        }
    }
}

/// The store on this host's disk. Its directory stays locked until it, its [`History`] handles and
/// its [`CheckpointWriter`]s are dropped.
pub struct EmbeddedStore {
    dir: PathBuf,
    id: StoreId,
    sled_patience: Duration,
    redo: Redo,
    blobs: Blobs,
    history: History,
    follower: Arc<Follower>,
    shared: Arc<Shared>,
    term: Term,
    /// Whether `term` is ours; before that it is the last writer's.
    acquired: bool,
    /// Checkpoint and changes as found at the start, until the first load or commit.
    fresh: Option<(Option<checkpoint::Reader>, TailChanges)>,
    failed: Option<String>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or creates one there.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then, but that a torn, never answered end may have
    /// been cut.
    pub fn open(dir: &Path, options: &Options) -> Result<EmbeddedStore, OpenError> {
        let refuse = |fault: Fault| fault.refuse(dir);
        if !dir.exists() {
            if !options.create {
                return Err(OpenError::Missing { dir: dir.to_owned() });
            }
            files::ensure_dir(dir).map_err(refuse)?;
        }
        let lock = Arc::new(survey::lock_dir(dir, options.lock_patience)?);
        let guard = match presence(dir).map_err(refuse)? {
            Presence::Store(guard) => guard,
            Presence::Empty if options.create => create(dir).map_err(refuse)?,
            Presence::Empty => return Err(OpenError::Missing { dir: dir.to_owned() }),
        };
        let survey = survey::survey(dir, &guard).map_err(refuse)?;
        let parts = open_parts(dir, &guard, &survey, options, &lock).map_err(refuse)?;
        Self::assemble(dir, guard, survey, parts, options, lock)
    }

    fn assemble(
        dir: &Path,
        guard: Guard,
        survey: Survey,
        (redo, blobs, history): (Redo, Blobs, History),
        options: &Options,
        lock: Arc<OwnedFd>,
    ) -> Result<EmbeddedStore, OpenError> {
        for (seq, why) in &survey.bad {
            tracing::error!(checkpoint = seq, %why, used = survey.base(), "a checkpoint can't be read; an older one and the redo file give the same state");
        }
        let (id, term) = (guard.id, Term(guard.term));
        let shared = Shared::new(dir, guard, &survey, lock);
        let setup = Setup {
            dir: dir.to_owned(),
            id,
            end: survey.newest(),
            checkpoint: shared.newest_checkpoint(),
            cache_bytes: options.sled_cache_bytes,
            probe: options.sled_probe.clone(),
            max_records: options.max_behind_records,
            max_age: options.max_behind,
        };
        let started = Follower::start(setup, options.follow);
        let follower = Arc::new(started.map_err(|source| OpenError::Io {
            what: "start the sled thread for",
            path: dir.to_owned(),
            source,
        })?);
        Ok(EmbeddedStore {
            dir: dir.to_owned(),
            id,
            sled_patience: options.sled_patience,
            redo,
            blobs,
            history,
            follower,
            shared: Arc::new(shared),
            term,
            acquired: false,
            fresh: Some((survey.checkpoint, survey.tail)),
            failed: None,
        })
    }

    /// The store's name, as hex: agents remember it.
    pub fn id(&self) -> String {
        let mut text = String::with_capacity(32);
        super::key::write_hex(&mut text, &self.id).expect("a string takes everything");
        text
    }

    /// The newest durable batch.
    pub fn revision(&self) -> Revision {
        Revision(self.redo.next_seq() - 1)
    }

    /// The history of ended jobs.
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// A handle to write checkpoints on another thread.
    pub fn checkpoints(&self) -> CheckpointWriter {
        CheckpointWriter::new(self.shared.clone(), self.follower.clone())
    }

    /// Bytes that a start has to read behind the newest checkpoint: when these are many, it is
    /// time for a checkpoint.
    pub fn redo_bytes_since_checkpoint(&self) -> u64 {
        self.shared.redo_bytes()
    }

    /// What is known about sled, and the batch up to which it is durable there.
    pub fn sled_status(&self) -> (SledState, Revision) {
        let (state, applied) = self.follower.status();
        (state, Revision(applied))
    }

    /// Waits until sled holds everything that was answered; false if it does not in time.
    pub fn wait_for_sled(&self, patience: Duration) -> bool {
        self.follower.wait_caught_up(patience)
    }

    fn usable(&self, term: Term) -> Result<(), StoreError> {
        if !self.acquired || term != self.term {
            return Err(StoreError::Deposed { term });
        }
        self.healthy()
    }

    fn healthy(&self) -> Result<(), StoreError> {
        if let Some(why) = &self.failed {
            return Err(StoreError::Failed(why.clone().into()));
        }
        match self.follower.status().0 {
            SledState::Refused(what) => {
                Err(StoreError::Corrupt { what, how_to_restore: advice(&self.dir) })
            }
            SledState::Opening | SledState::Following | SledState::Lost(_) | SledState::Off => {
                Ok(())
            }
        }
    }

    fn marks(&self) -> Marks {
        let (pack, pack_len) = self.blobs.mark();
        let (history, history_len) = self.history.mark();
        Marks { pack, pack_len, history, history_len }
    }

    fn write(&mut self, batch: &Batch) -> Result<Revision, Failure> {
        self.blobs.append(&batch.blobs)?;
        self.write_frame(batch)
    }

    fn write_frame(&mut self, batch: &Batch) -> Result<Revision, Failure> {
        let appended = self.redo.append(&self.marks(), &batch.changes)?;
        self.fresh = None;
        self.shared.note_commit(&appended);
        self.follower.publish(appended.seq, &batch.changes);
        Ok(Revision(appended.seq))
    }

    fn fail(&mut self, failure: Failure) -> StoreError {
        match failure {
            Failure::Nothing(fault) => StoreError::Unavailable(Box::new(fault)),
            Failure::Dead(fault) => {
                tracing::error!(%fault, "the store failed");
                self.failed = Some(fault.to_string());
                StoreError::Failed(Box::new(fault))
            }
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dir, revision) = (&self.dir, self.revision());
        f.debug_struct("EmbeddedStore").field("dir", dir).field("revision", &revision).finish()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.follower.close();
    }
}

/// Makes an empty store in `dir`; the guard gets its name last.
fn create(dir: &Path) -> Result<Guard, Fault> {
    let folder = redo::folder(dir);
    if folder.exists() && !files::numbered(&folder, "redo")?.is_empty() {
        ensure_never_used(dir)?;
    }
    let id: StoreId = rand::rng().random();
    let guard = Guard { id, checkpoint: 0, term: 0, holder: String::new() };
    guard.write(dir, false)?;
    files::ensure_dir(&checkpoint::folder(dir))?;
    blobs::create(dir, &id)?;
    history::create(dir, &id)?;
    redo::create(dir, &id, 1, &Marks::default())?;
    Guard::finish_creation(dir)?;
    Ok(guard)
}

/// A store whose creation did not finish holds no batch; anything else is not ours to replace.
fn ensure_never_used(dir: &Path) -> Result<(), Fault> {
    let path = files::numbered_path(&redo::folder(dir), 1, "redo");
    let only = files::numbered(&redo::folder(dir), "redo")? == [1];
    // The first segment is published whole, with its header and first frame and nothing else.
    let small = std::fs::metadata(&path).is_ok_and(|meta| meta.len() < 256);
    if only && small {
        return Ok(());
    }
    Err(Fault::Damaged(format!(
        "{} is missing although {} holds batches",
        Guard::path(dir).display(),
        redo::folder(dir).display()
    )))
}

fn open_parts(
    dir: &Path,
    guard: &Guard,
    survey: &Survey,
    options: &Options,
    lock: &Arc<OwnedFd>,
) -> Result<(Redo, Blobs, History), Fault> {
    let last = survey.last_segment();
    let (marks, id) = (last.marks, &guard.id);
    let history_mark = (marks.history, marks.history_len);
    History::survey(dir, id, history_mark)?;
    let blobs =
        Blobs::open(dir, id, (marks.pack, marks.pack_len), options.pack_bytes.min(MAX_PACK))?;
    let history = History::open(dir, id, history_mark, options.history_bytes, lock.clone())?;
    let chunk = options.redo_chunk_bytes.max(4096);
    let sizes = Sizes { segment: options.segment_bytes, chunk };
    let redo = Redo::open(dir, id, last, sizes)?;
    for part in [redo::folder(dir), checkpoint::folder(dir), super::pack::folder(dir)] {
        files::remove_temporary(&part)?;
    }
    files::remove_temporary(&super::history_file::folder(dir))?;
    files::remove_temporary(dir)?;
    Ok((redo, blobs, history))
}

impl Store for EmbeddedStore {
    fn limits(&self) -> BatchLimits {
        LIMITS
    }

    fn acquire(&mut self, holder: &str) -> Result<Term, StoreError> {
        self.follower.wait_opened(self.sled_patience);
        self.healthy()?;
        let next = Term(self.term.0 + 1);
        self.shared.set_term(next, holder).map_err(|fault| self.fail(fault.into()))?;
        self.term = next;
        self.acquired = true;
        Ok(next)
    }

    fn commit(&mut self, term: Term, batch: &Batch) -> Result<Revision, StoreError> {
        self.usable(term)?;
        check_limits(batch, LIMITS)?;
        self.follower.wait_for_room();
        self.write(batch).map_err(|failure| self.fail(failure))
    }

    fn load(
        &mut self,
        each: &mut dyn FnMut(Key, Bytes) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        let dir = self.dir.clone();
        let wrap = |fault: Fault| fault.unreadable(&dir);
        let (reader, tail) = match self.fresh.take() {
            Some(found) => found,
            None => self.shared.reread(&self.id).map_err(wrap)?,
        };
        survey::merge(reader, tail, wrap, each)?;
        Ok(self.revision())
    }

    fn blobs(&self) -> Arc<dyn BlobSource> {
        Arc::new(self.blobs.reader())
    }

    fn retain_blobs(
        &mut self,
        term: Term,
        live: &dyn Fn(&BlobHash) -> bool,
    ) -> Result<BlobSweep, StoreError> {
        self.usable(term)?;
        let emptied = self.blobs.begin_sweep(live).map_err(|failure| self.fail(failure))?;
        if !emptied.is_nothing() {
            let marked = self.write_frame(&Batch::default());
            marked.map_err(|failure| self.fail(failure))?;
        }
        self.blobs.finish_sweep(emptied).map_err(|failure| self.fail(failure))
    }
}

/// Reads everything behind the newest of `kept` again.
pub(super) fn reread(
    dir: &Path,
    id: &StoreId,
    base: u64,
) -> Result<(Option<checkpoint::Reader>, TailChanges), Fault> {
    let reader = if base > 0 { Some(checkpoint::Reader::open(dir, id, base)?) } else { None };
    let mut tail = TailChanges::new();
    redo::survey(dir, id, base, &mut |_, changes| add_changes(&mut tail, changes))?;
    Ok((reader, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_write_nothing_is_taken_and_what_was_answered_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { follow: false, redo_chunk_bytes: 64 << 10, ..Options::default() };
        let mut store = EmbeddedStore::open(dir.path(), &options).unwrap();
        let term = store.acquire("test").unwrap();
        let mut batch = Batch::default();
        batch.put(Key::of(1, &[1]), Bytes::from_static(b"answered"));
        store.commit(term, &batch).unwrap();
        store.redo.break_file();
        for _ in 0..2 {
            let failed = store.commit(term, &batch);
            assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
        }
        assert!(matches!(store.acquire("again"), Err(StoreError::Failed(_))));
        drop(store);
        let mut store = EmbeddedStore::open(dir.path(), &options).unwrap();
        let mut count = 0;
        let at = store.load(&mut |_, _| {
            count += 1;
            Ok(())
        });
        assert_eq!((at.unwrap(), count), (Revision(1), 1));
    }

    #[test]
    fn the_folder_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let options = Options { follow: false, ..Options::default() };
        drop(EmbeddedStore::open(&dir, &options).unwrap());
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_creation_that_did_not_finish_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { follow: false, ..Options::default() };
        let id = EmbeddedStore::open(dir.path(), &options).unwrap().id();
        let guard = Guard::path(dir.path());
        std::fs::rename(&guard, dir.path().join("guard.creating")).unwrap();
        let mut store = EmbeddedStore::open(dir.path(), &options).unwrap();
        assert_ne!(store.id(), id);
        let term = store.acquire("test").unwrap();
        let mut batch = Batch::default();
        batch.put(Key::of(1, &[1]), Bytes::from(vec![0; 500]));
        store.commit(term, &batch).unwrap();
        drop(store);
        // With batches in it, it is not ours to replace.
        std::fs::rename(&guard, dir.path().join("guard.creating")).unwrap();
        assert!(matches!(
            EmbeddedStore::open(dir.path(), &options),
            Err(OpenError::Corrupt { .. })
        ));
    }
}
