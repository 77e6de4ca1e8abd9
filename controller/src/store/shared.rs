//! What do the writer's thread and the checkpoint's thread both know?

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::checkpoint::{self, CheckpointError};
use super::error::Fault;
use super::follower::Follower;
use super::frames::StoreId;
use super::guard::Guard;
use super::key::{Key, Revision, Term};
use super::redo::{self, Appended};
use super::survey::{Survey, TailChanges};

/// Files and positions of an open store.
pub(crate) struct Shared {
    dir: PathBuf,
    state: Mutex<State>,
    /// Newest durable batch.
    committed: AtomicU64,
    /// Newest whole checkpoint.
    newest: Arc<AtomicU64>,
    /// Bytes of batches behind the newest checkpoint.
    redo_bytes: AtomicU64,
    /// Held while a checkpoint is written.
    writing: Mutex<()>,
    _lock: Arc<OwnedFd>,
}

struct State {
    guard: Guard,
    /// Whole checkpoints, oldest first, at most two.
    kept: Vec<u64>,
    /// Closed segments: first and last sequence, oldest first.
    closed: VecDeque<(u64, u64)>,
}

impl Shared {
    pub(crate) fn new(dir: &Path, guard: Guard, survey: &Survey, lock: Arc<OwnedFd>) -> Shared {
        let (_, closed) = survey.segments.split_last().expect("at least one segment");
        let closed = closed.iter().map(|segment| (segment.first, segment.last)).collect();
        let base = survey.base();
        let bytes = survey.segments.iter().filter(|segment| segment.last > base);
        Shared {
            dir: dir.to_owned(),
            state: Mutex::new(State { guard, kept: survey.kept.clone(), closed }),
            committed: AtomicU64::new(survey.newest()),
            newest: Arc::new(AtomicU64::new(base)),
            redo_bytes: AtomicU64::new(bytes.map(|segment| segment.end).sum()),
            writing: Mutex::new(()),
            _lock: lock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn newest_checkpoint(&self) -> Arc<AtomicU64> {
        self.newest.clone()
    }

    pub(crate) fn redo_bytes(&self) -> u64 {
        self.redo_bytes.load(Ordering::Relaxed)
    }

    /// Notes a durable batch.
    pub(crate) fn note_commit(&self, appended: &Appended) {
        if let Some(sealed) = appended.sealed {
            self.lock().closed.push_back(sealed);
        }
        self.redo_bytes.fetch_add(appended.bytes, Ordering::Relaxed);
        self.committed.store(appended.seq, Ordering::Release);
    }

    /// Writes the new reign into the guard.
    pub(crate) fn set_term(&self, term: Term, holder: &str) -> Result<(), Fault> {
        let mut state = self.lock();
        let guard = Guard { term: term.0, holder: holder.to_owned(), ..state.guard.clone() };
        guard.write(&self.dir, true)?;
        state.guard = guard;
        Ok(())
    }

    /// Opens the newest checkpoint and reads what lies behind it. The state is held meanwhile, so
    /// that no checkpoint and no segment goes.
    pub(crate) fn reread(
        &self,
        id: &StoreId,
    ) -> Result<(Option<checkpoint::Reader>, TailChanges), Fault> {
        let state = self.lock();
        let base = state.kept.last().copied().unwrap_or(0);
        super::embedded::reread(&self.dir, id, base)
    }

    fn note_checkpoint(&self, seq: u64) -> Result<(), Fault> {
        let mut state = self.lock();
        state.kept.push(seq);
        self.newest.store(seq, Ordering::Release);
        let surplus = state.kept.len().saturating_sub(2);
        state.kept.drain(..surplus);
        let guard = Guard { checkpoint: seq, ..state.guard.clone() };
        guard.write(&self.dir, true)?;
        state.guard = guard;
        for listed in checkpoint::list(&self.dir)? {
            if !state.kept.contains(&listed) {
                checkpoint::remove(&self.dir, listed)?;
            }
        }
        Ok(())
    }

    /// Removes the segments that neither the older checkpoint nor sled needs; returns how many.
    fn prune(&self, sled_floor: u64) -> Result<usize, Fault> {
        let mut state = self.lock();
        let older = if state.kept.len() < 2 { 0 } else { state.kept[0] };
        let floor = older.min(sled_floor);
        let count = state.closed.iter().take_while(|(_, last)| *last <= floor).count();
        if count == 0 {
            return Ok(0);
        }
        let gone: Vec<u64> = state.closed.iter().take(count).map(|(first, _)| *first).collect();
        redo::remove(&self.dir, &gone)?;
        state.closed.drain(..count);
        Ok(count)
    }
}

/// Writes checkpoints, on any thread, while batches go on. One is written at a time.
#[derive(Clone)]
pub struct CheckpointWriter {
    shared: Arc<Shared>,
    follower: Arc<Follower>,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointDone {
    /// Records in it.
    pub records: u64,
    /// Redo segments that could go.
    pub segments_removed: usize,
}

impl CheckpointWriter {
    pub(crate) fn new(shared: Arc<Shared>, follower: Arc<Follower>) -> CheckpointWriter {
        CheckpointWriter { shared, follower }
    }

    /// Writes all live records at revision `at`, in key order. `records` must be exactly the
    /// state after the batch `at`: this can't be checked here. Then removes what is no longer
    /// needed.
    ///
    /// # Errors
    /// [`CheckpointError`]; the store goes on with the older checkpoints and keeps its redo file.
    pub fn write(
        &self,
        at: Revision,
        records: impl Iterator<Item = (Key, Bytes)>,
    ) -> Result<CheckpointDone, CheckpointError> {
        let shared = &self.shared;
        let _one = shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = at.0;
        let (oldest, newest) =
            (shared.newest.load(Ordering::Acquire) + 1, shared.committed.load(Ordering::Acquire));
        if seq < oldest || seq > newest {
            return Err(CheckpointError::Sequence { seq, oldest, newest });
        }
        let before = shared.redo_bytes();
        let id = shared.lock().guard.id;
        let count = checkpoint::write(&shared.dir, &id, seq, records)?;
        let wrap = |fault: Fault| CheckpointError::Write { seq, source: Box::new(fault) };
        shared.note_checkpoint(seq).map_err(wrap)?;
        shared.redo_bytes.fetch_sub(before, Ordering::Relaxed);
        let segments_removed = shared.prune(self.follower.floor()).map_err(wrap)?;
        Ok(CheckpointDone { records: count, segments_removed })
    }
}
