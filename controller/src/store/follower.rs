//! How does sled follow the redo file, and what if it can't?
//!
//! A thread applies the batches that are already answered. It is at most 20,000 records or one
//! second behind; then commits wait for it. At a start, and after it got stuck, it reads the redo
//! segments from disk until it has caught up, and nobody waits meanwhile. A sled that errs or
//! panics is moved aside as `sled.bad-<time>` and made anew from checkpoint and redo. A sled that
//! is ahead of both shows that they are older than what was answered: that is refused.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::checkpoint;
use super::error::BoxError;
use super::files;
use super::frames::StoreId;
use super::key::Change;
use super::redo;
use super::sled_copy::{self, Position, SledCopy};

/// Records that go into one sled batch.
const GROUP: usize = 2000;
/// How long a batch waits for others that go with it, unless it is a group already: each group costs
/// sled several writes and an fsync, which the redo file's would have to wait for.
const GATHER: Duration = Duration::from_millis(200);
/// Broken copies kept for people to look at.
const BAD_KEPT: usize = 3;
/// How often a broken sled is made anew before it is given up until the next start.
const MAX_REBUILDS: u32 = 3;
/// How long a commit waits for a sled that does not move.
const STUCK: Duration = Duration::from_secs(30);
/// How long closing waits for it.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Opens sled in a process of its own and says whether that went well; see
/// [`probe_sled`](super::probe_sled).
pub type SledProbe = Arc<dyn Fn(&std::path::Path) -> Result<(), BoxError> + Send + Sync>;

/// What the follower needs to know.
pub(crate) struct Setup {
    pub(crate) dir: PathBuf,
    pub(crate) id: StoreId,
    /// Newest answered batch at the start.
    pub(crate) end: u64,
    /// The newest whole checkpoint; 0 for none.
    pub(crate) checkpoint: Arc<AtomicU64>,
    pub(crate) cache_bytes: u64,
    pub(crate) probe: Option<SledProbe>,
    pub(crate) max_records: usize,
    pub(crate) max_age: Duration,
}

/// What is known about the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SledState {
    /// Not opened yet.
    Opening,
    /// Follows, or catches up.
    Following,
    /// Ahead of checkpoint and redo, or of another store: the store must not go on.
    Refused(String),
    /// Given up until the next start; the store goes on without it.
    Lost(String),
    /// Switched off.
    Off,
}

struct State {
    sled: SledState,
    applied: u64,
    published: u64,
    queue: VecDeque<Queued>,
    /// Records queued or being applied.
    records: usize,
    /// When the oldest batch that is being applied was queued.
    oldest: Option<Instant>,
    /// Commits are queued, and wait when the queue is long.
    live: bool,
    /// How many wait for the copy to catch up: then nothing is gathered.
    hurried: u32,
    stop: bool,
    done: bool,
}

struct Queued {
    seq: u64,
    changes: Vec<Change>,
    at: Instant,
}

struct Inner {
    setup: Setup,
    state: Mutex<State>,
    moved: Condvar,
}

/// The thread's handle.
pub(crate) struct Follower {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why one round of following ended.
enum End {
    Stopped,
    Refused(String),
    Broken(BoxError),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for End {
    fn from(error: E) -> End {
        End::Broken(Box::new(error))
    }
}

impl Follower {
    /// Starts the thread; without `follow` nothing is started.
    pub(crate) fn start(setup: Setup, follow: bool) -> std::io::Result<Follower> {
        let state = State {
            sled: if follow { SledState::Opening } else { SledState::Off },
            applied: 0,
            published: setup.end,
            queue: VecDeque::new(),
            records: 0,
            oldest: None,
            live: false,
            hurried: 0,
            stop: false,
            done: !follow,
        };
        let inner = Arc::new(Inner { setup, state: Mutex::new(state), moved: Condvar::new() });
        let mut thread = None;
        if follow {
            let inner = inner.clone();
            let builder = std::thread::Builder::new().name("sled".to_owned());
            thread = Some(builder.spawn(move || inner.run())?);
        }
        Ok(Follower { inner, thread: Mutex::new(thread) })
    }

    /// Lets the thread apply what is queued and end; waits for it, but not for ever.
    pub(crate) fn close(&self) {
        let mut state = self.inner.lock();
        state.stop = true;
        self.inner.moved.notify_all();
        drop(state);
        let done = self.wait_until(CLOSE_WAIT, |state| state.done).done;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|_| done)
            && thread.join().is_err()
        {
            tracing::error!("the sled thread ended in a panic");
        }
    }

    /// Waits until the queue has room; a copy that does not move is left behind.
    pub(crate) fn wait_for_room(&self) {
        let inner = &self.inner;
        let mut state = inner.lock();
        let deadline = Instant::now() + STUCK;
        while state.live && inner.is_full(&state) {
            let now = Instant::now();
            if now >= deadline {
                tracing::error!(applied = state.applied, "sled does not move; going on without it");
                state.leave_behind();
                return;
            }
            state = inner.wait(state, deadline - now);
        }
    }

    /// Tells of an answered batch.
    pub(crate) fn publish(&self, seq: u64, changes: &[Change]) {
        let mut state = self.inner.lock();
        state.published = seq;
        if !state.live {
            return;
        }
        let was_waiting = state.queue.is_empty() || state.hurried > 0;
        state.records += changes.len().max(1);
        let at = Instant::now();
        state.queue.push_back(Queued { seq, changes: changes.to_vec(), at });
        // While it gathers, only a whole group is news.
        if was_waiting || state.records >= GROUP {
            self.inner.moved.notify_all();
        }
    }

    /// Waits until it is known whether the copy fits, at most `patience`.
    pub(crate) fn wait_opened(&self, patience: Duration) -> SledState {
        self.wait_until(patience, |state| state.sled != SledState::Opening).sled.clone()
    }

    /// Waits until every answered batch is applied and durable, at most `patience`. False if it
    /// is not, or there is no copy.
    pub(crate) fn wait_caught_up(&self, patience: Duration) -> bool {
        self.inner.lock().hurried += 1;
        self.inner.moved.notify_all();
        let mut state = self.wait_until(patience, |state| {
            state.done || (state.live && state.applied == state.published)
        });
        state.hurried -= 1;
        state.sled == SledState::Following && state.applied == state.published
    }

    fn wait_until(
        &self,
        patience: Duration,
        reached: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + patience;
        let mut state = self.inner.lock();
        loop {
            let now = Instant::now();
            if reached(&state) || now >= deadline {
                return state;
            }
            state = self.inner.wait(state, deadline - now);
        }
    }

    /// State and the last batch that is durable in the copy.
    pub(crate) fn status(&self) -> (SledState, u64) {
        let state = self.inner.lock();
        (state.sled.clone(), state.applied)
    }

    /// Up to where the copy no longer needs the redo file.
    pub(crate) fn floor(&self) -> u64 {
        let state = self.inner.lock();
        match state.sled {
            SledState::Opening | SledState::Following | SledState::Refused(_) => state.applied,
            SledState::Lost(_) | SledState::Off => u64::MAX,
        }
    }
}

impl State {
    /// How long to wait for more before the queue is applied; `None`: it is empty.
    fn left_to_gather(&self) -> Option<Duration> {
        let oldest = self.queue.front()?.at;
        let is_due = self.records >= GROUP || self.hurried > 0;
        Some(if is_due { Duration::ZERO } else { GATHER.saturating_sub(oldest.elapsed()) })
    }

    fn leave_behind(&mut self) {
        self.live = false;
        self.queue.clear();
        self.records = 0;
        self.oldest = None;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        let waited = self.moved.wait_timeout(state, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_full(&self, state: &State) -> bool {
        let oldest = state.oldest.or_else(|| state.queue.front().map(|queued| queued.at));
        state.records > self.setup.max_records
            || oldest.is_some_and(|at| at.elapsed() > self.setup.max_age)
    }

    fn run(&self) {
        let mut rebuilds = 0;
        let end = loop {
            let mut copy = None;
            let round = catch_unwind(AssertUnwindSafe(|| self.follow(&mut copy)));
            let why: BoxError = match round {
                Ok(End::Stopped) => {
                    if catch_unwind(AssertUnwindSafe(|| drop(copy))).is_err() {
                        tracing::error!("sled panicked while it was closed");
                    }
                    break None;
                }
                Ok(End::Refused(why)) => break Some(SledState::Refused(why)),
                Ok(End::Broken(why)) => why,
                Err(_) => "sled panicked".into(),
            };
            if is_no_space(&why) {
                // What is on disk stays and catches up, or is made anew, at the next start.
                std::mem::forget(copy);
                break Some(SledState::Lost(why.to_string()));
            }
            // Dropping a broken sled may panic again or block; its memory is the lesser loss.
            std::mem::forget(copy);
            rebuilds += 1;
            match self.set_aside(&why) {
                Ok(()) if rebuilds <= MAX_REBUILDS => {}
                Ok(()) => break Some(SledState::Lost(why.to_string())),
                Err(error) => break Some(SledState::Lost(format!("{why}; {error}"))),
            }
        };
        let mut state = self.lock();
        state.leave_behind();
        if let Some(end) = end {
            tracing::error!(state = ?end, "sled no longer follows");
            state.sled = end;
        }
        state.done = true;
        self.moved.notify_all();
    }

    fn set_aside(&self, why: &BoxError) -> Result<(), super::error::Fault> {
        let folder = sled_copy::folder(&self.setup.dir);
        let mut state = self.lock();
        state.leave_behind();
        state.applied = 0;
        drop(state);
        if folder.exists() {
            let aside = files::set_aside(&folder)?;
            drop_old_copies(&self.setup.dir);
            tracing::error!(%why, aside = %aside.display(), "sled is broken; making it anew");
        }
        Ok(())
    }

    fn follow(&self, slot: &mut Option<SledCopy>) -> End {
        match self.open_and_follow(slot) {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    fn open_and_follow(&self, slot: &mut Option<SledCopy>) -> Result<(), End> {
        let (dir, id) = (&self.setup.dir, &self.setup.id);
        let folder = sled_copy::folder(dir);
        let half_made = sled_copy::building(dir).exists();
        if half_made && folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let fresh = !folder.exists();
        if let Some(probe) = self.setup.probe.as_ref().filter(|_| !fresh) {
            probe(dir).map_err(End::Broken)?;
        }
        if fresh {
            std::fs::write(sled_copy::building(dir), b"")?;
            files::sync_dir(dir)?;
        }
        let copy = slot.insert(SledCopy::open(dir, self.setup.cache_bytes).map_err(End::Broken)?);
        let at = if fresh {
            self.lock().sled = SledState::Following;
            self.moved.notify_all();
            self.build(copy)?
        } else {
            self.judge(copy.position(id)?)?
        };
        let mut state = self.lock();
        state.sled = SledState::Following;
        state.applied = at;
        self.moved.notify_all();
        drop(state);
        loop {
            if !self.catch_up(copy)? || !self.follow_live(copy)? {
                return Ok(());
            }
        }
    }

    /// Whether a copy at `position` can follow.
    fn judge(&self, position: Position) -> Result<u64, End> {
        let folder = sled_copy::folder(&self.setup.dir);
        let folder = folder.display();
        match position {
            Position::At(at) if at > self.setup.end => Err(End::Refused(format!(
                "{folder} holds batch {at}, but checkpoint and redo files end with batch {}: they \
                 are older than what was answered",
                self.setup.end
            ))),
            Position::At(at) => Ok(at),
            Position::Foreign => Err(End::Refused(format!("{folder} belongs to another store"))),
            Position::Unknown => {
                Err(End::Broken(format!("{folder} does not say where it is").into()))
            }
        }
    }

    /// Fills an empty copy from the checkpoint; returns where it then is.
    fn build(&self, copy: &SledCopy) -> Result<u64, End> {
        let Setup { dir, id, .. } = &self.setup;
        let at = self.setup.checkpoint.load(Ordering::Acquire);
        if at > 0 {
            let mut reader = checkpoint::Reader::open(dir, id, at)?;
            let mut group = Vec::with_capacity(GROUP);
            loop {
                let record = reader.next_record()?;
                let ended = record.is_none();
                group.extend(record.map(|(key, value)| Change::Put(key, value)));
                if ended || group.len() >= GROUP {
                    copy.apply(group.iter(), None)?;
                    copy.sync().map_err(End::Broken)?;
                    group.clear();
                }
                if ended || self.lock().stop {
                    break;
                }
            }
            if self.lock().stop {
                return Ok(0);
            }
        }
        copy.apply([].iter(), Some((id, at)))?;
        copy.sync().map_err(End::Broken)?;
        files::discard(&sled_copy::building(dir));
        files::sync_dir(dir)?;
        Ok(at)
    }

    /// Reads the redo segments until nothing is missing, then lets commits queue. False: stop.
    fn catch_up(&self, copy: &SledCopy) -> Result<bool, End> {
        loop {
            let mut state = self.lock();
            if state.stop {
                return Ok(false);
            }
            let (from, upto) = (state.applied + 1, state.published);
            if from > upto {
                state.live = true;
                self.moved.notify_all();
                return Ok(true);
            }
            drop(state);
            self.apply_from_disk(copy, from, upto)?;
        }
    }

    fn apply_from_disk(&self, copy: &SledCopy, from: u64, upto: u64) -> Result<(), End> {
        let Setup { dir, id, .. } = &self.setup;
        let mut group: Vec<Change> = Vec::with_capacity(GROUP);
        let mut result: Result<(), BoxError> = Ok(());
        let mut stopped = false;
        redo::read_range(dir, id, (from, upto), &mut |seq, mut changes| {
            if result.is_err() || stopped {
                return;
            }
            group.append(&mut changes);
            if group.len() >= GROUP || seq == upto {
                result = self.apply(copy, group.iter(), seq);
                group.clear();
                stopped = self.lock().stop;
            }
        })?;
        result.map_err(End::Broken)
    }

    fn apply<'a>(
        &self,
        copy: &SledCopy,
        changes: impl Iterator<Item = &'a Change>,
        seq: u64,
    ) -> Result<(), BoxError> {
        copy.apply(changes, Some((&self.setup.id, seq)))?;
        copy.sync()?;
        self.lock().applied = seq;
        self.moved.notify_all();
        Ok(())
    }

    /// Applies what commits queue. True: it was left behind and must catch up; false: stop.
    fn follow_live(&self, copy: &SledCopy) -> Result<bool, End> {
        loop {
            let mut state = self.lock();
            while state.live && !state.stop {
                state = match state.left_to_gather() {
                    None => {
                        let waited = self.moved.wait(state);
                        waited.unwrap_or_else(PoisonError::into_inner)
                    }
                    Some(Duration::ZERO) => break,
                    Some(left) => self.wait(state, left),
                };
            }
            if !state.live {
                return Ok(true);
            }
            let group = take_group(&mut state);
            let Some(last) = group.last() else { return Ok(false) };
            let (seq, records) = (last.seq, group.iter().map(Queued::weight).sum::<usize>());
            drop(state);
            let changes = group.iter().flat_map(|queued| queued.changes.iter());
            self.apply(copy, changes, seq).map_err(End::Broken)?;
            let mut state = self.lock();
            state.oldest = None;
            state.records = state.records.saturating_sub(records);
            self.moved.notify_all();
        }
    }
}

fn take_group(state: &mut State) -> Vec<Queued> {
    let mut group = Vec::new();
    let mut records = 0;
    state.oldest = state.queue.front().map(|queued| queued.at);
    while records < GROUP
        && let Some(queued) = state.queue.pop_front()
    {
        records += queued.weight();
        group.push(queued);
    }
    group
}

impl Queued {
    fn weight(&self) -> usize {
        self.changes.len().max(1)
    }
}

/// Whether sled failed because the disk is full.
fn is_no_space(why: &BoxError) -> bool {
    let io = match why.downcast_ref::<sled::Error>() {
        Some(sled::Error::Io(io)) => Some(io),
        _ => why.downcast_ref::<std::io::Error>(),
    };
    io.is_some_and(|io| {
        matches!(
            io.kind(),
            std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::FileTooLarge
        )
    })
}

/// Removes all but the newest broken copies, so that they never fill the disk.
fn drop_old_copies(dir: &std::path::Path) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bad = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("sled.bad-"))
    };
    let mut copies: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(bad).collect();
    copies.sort();
    let surplus = copies.len().saturating_sub(BAD_KEPT);
    for copy in &copies[..surplus] {
        if let Err(error) = std::fs::remove_dir_all(copy) {
            tracing::warn!(path = %copy.display(), %error, "can't remove an old broken sled");
        }
    }
}
