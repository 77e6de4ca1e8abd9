//! Which jobs ended, by time, by id, by user, years back?
//!
//! The history is append-only files of its own, so that neither sled nor a checkpoint can lose
//! it. An append is one frame and one fdatasync. The index is the history's own as well: of the
//! open file in memory (about 60 bytes a line, at most one file's worth), of each full file in a
//! sorted file beside it, read in blocks when asked. It was weighed against an index in sled: that
//! must be open before the first append can be checked for repetition, takes half a minute to
//! rebuild for a million lines, and can be silently empty after a power cut; this one is checked
//! block by block, needs no memory for old lines, and is made anew from one file in a fraction of
//! a second. A file whose middle is damaged is refused at the start if it is the open one, and
//! named by any query that meets it otherwise.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::error::{Fault, StoreError};
use super::files::{self, FileList};
use super::frames::{self, FILE_HEADER, Kind, StoreId, Tail};
use super::history_file::{self as file, HistoryEntry, IndexFile, LineKey, MAX_BODY, Place};

/// Most bytes of one frame; an append of more is several frames.
const MAX_FRAME_BYTES: usize = 8 << 20;

/// Which lines are wanted; all conditions hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only these jobs; `None` means all.
    pub jobs: Option<Vec<u32>>,
    /// Only this user's.
    pub uid: Option<u32>,
    /// Ended at or after, in milliseconds since 1970.
    pub from_ms: i64,
    /// Ended at or before, in milliseconds since 1970.
    pub to_ms: i64,
}

impl HistoryQuery {
    fn sorted(&self) -> Option<Vec<u32>> {
        self.jobs.clone().map(|mut jobs| {
            jobs.sort_unstable();
            jobs
        })
    }
}

/// The history of one store. Cheap to clone; any thread may use it.
#[derive(Debug, Clone)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
    mark: Arc<Mark>,
    dir: PathBuf,
    /// The store's folder stays locked while somebody may append.
    _lock: Arc<OwnedFd>,
}

/// Number and length of the open file as far as it is durable. Apart from the rest, so that a
/// commit never waits for an append.
type Mark = Mutex<(u64, u64)>;

#[derive(Debug)]
struct Inner {
    mark: Arc<Mark>,
    dir: PathBuf,
    id: StoreId,
    list: FileList,
    full: BTreeMap<u64, Arc<Full>>,
    open: Open,
    max_file: u64,
    /// Why nothing may be appended any more.
    dead: Option<String>,
}

/// A file that takes no more lines.
#[derive(Debug)]
struct Full {
    number: u64,
    file: File,
    index: IndexFile,
}

#[derive(Debug)]
struct Open {
    number: u64,
    file: Arc<File>,
    len: u64,
    next_seq: u64,
    lines: BTreeMap<LineKey, Place>,
}

/// Makes the first file of a new store.
pub(crate) fn create(dir: &Path, id: &StoreId) -> Result<(), Fault> {
    files::ensure_dir(&file::folder(dir))?;
    file::create(dir, id, 1)?;
    FileList::create(&file::folder(dir), vec![1]).map(drop)
}

/// Reads the list of files and checks that each is there. Nothing is changed.
pub(crate) fn listed(dir: &Path) -> Result<FileList, Fault> {
    let folder = file::folder(dir);
    let list = FileList::read(&folder)?;
    let present = files::numbered(&folder, file::ENDING)?;
    if let Some(number) = list.missing(&present).first() {
        let path = file::path(dir, *number);
        return Err(Fault::Damaged(format!("history file {} is missing", path.display())));
    }
    Ok(list)
}

/// Checks that what was answered when file `mark.0` had `mark.1` bytes is still there. Nothing is
/// changed.
pub(crate) fn check_mark(dir: &Path, list: &FileList, mark: (u64, u64)) -> Result<(), Fault> {
    if !list.numbers().contains(&mark.0) {
        return Ok(());
    }
    let path = file::path(dir, mark.0);
    let len = std::fs::metadata(&path).map_err(Fault::io("read", &path))?.len();
    if len < mark.1 {
        return Err(Fault::Damaged(format!(
            "history file {} has {len} bytes, but {} were answered as durable",
            path.display(),
            mark.1
        )));
    }
    Ok(())
}

/// Reads the newest file. Nothing is changed.
fn scan_open(
    dir: &Path,
    id: &StoreId,
    number: u64,
    mark: (u64, u64),
) -> Result<(file::Scan, BTreeMap<LineKey, Place>), Fault> {
    let mut lines = BTreeMap::new();
    let scan = file::scan(dir, id, number, &mut |line, place| {
        lines.entry(line.key()).or_insert(place);
    })?;
    let path = file::path(dir, number);
    if let Tail::Damaged { later, .. } = scan.tail {
        return Err(file::damaged_middle(&path, scan.end, later));
    }
    if mark.0 == number && scan.end < mark.1 {
        return Err(Fault::Damaged(format!(
            "history file {} is damaged at byte {}, but {} bytes were answered as durable",
            path.display(),
            scan.end,
            mark.1
        )));
    }
    Ok((scan, lines))
}

impl History {
    /// Checks what can be checked without changing anything: files, answered length, newest file.
    pub(crate) fn survey(dir: &Path, id: &StoreId, mark: (u64, u64)) -> Result<(), Fault> {
        let list = listed(dir)?;
        check_mark(dir, &list, mark)?;
        let newest = list.numbers().last().copied().unwrap_or_default();
        scan_open(dir, id, newest, mark).map(drop)
    }

    /// Opens the history; cuts a torn end, makes lost indexes anew.
    pub(crate) fn open(
        dir: &Path,
        id: &StoreId,
        mark: (u64, u64),
        max_file: u64,
        lock: Arc<OwnedFd>,
    ) -> Result<History, Fault> {
        let list = listed(dir)?;
        check_mark(dir, &list, mark)?;
        let newest = list.numbers().last().copied().unwrap_or_default();
        let open = open_newest(dir, id, newest, mark)?;
        for number in files::numbered(&file::folder(dir), file::ENDING)? {
            if !list.numbers().contains(&number) {
                files::discard(&file::index_path(dir, number));
                files::discard(&file::path(dir, number));
            }
        }
        let mut full = BTreeMap::new();
        for number in list.numbers().iter().copied().filter(|number| *number != newest) {
            full.insert(number, Arc::new(open_full(dir, id, number)?));
        }
        let dir = dir.to_owned();
        let mark = Arc::new(Mutex::new((open.number, open.len)));
        let (id, dead) = (*id, None);
        let inner =
            Inner { mark: mark.clone(), dir: dir.clone(), id, list, full, open, max_file, dead };
        Ok(History { inner: Arc::new(Mutex::new(inner)), mark, dir, _lock: lock })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number and length of the open file, for the next redo frame.
    pub(crate) fn mark(&self) -> (u64, u64) {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the lines that are not there yet, by (job, attempt, end); on `Ok` all are durable.
    /// Returns how many were new.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk is full: nothing of the failing part was
    /// written, appending the same again is safe. [`StoreError::Failed`] when a write or fsync
    /// failed.
    pub fn append(&self, entries: &[HistoryEntry]) -> Result<usize, StoreError> {
        if let Some(entry) = entries.iter().find(|entry| entry.body.len() > MAX_BODY) {
            let (limit, got) = (MAX_BODY as u64, entry.body.len() as u64);
            return Err(StoreError::TooLarge { limit, got, unit: "bytes of one history line" });
        }
        self.lock().append(entries)
    }

    /// Hands the bodies of the lines that `query` wants to `each`, by end, job, attempt. Takes
    /// time in proportion to the lines in the time range (and, for `jobs`, in the files that may
    /// hold them), not to the whole history. Appends go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the damaged file; never a silently short answer.
    pub fn query(
        &self,
        query: &HistoryQuery,
        each: &mut dyn FnMut(Bytes),
    ) -> Result<(), StoreError> {
        self.find(query, each).map_err(|fault| fault.unreadable(&self.dir))
    }

    fn find(&self, query: &HistoryQuery, each: &mut dyn FnMut(Bytes)) -> Result<(), Fault> {
        let range = (query.from_ms, query.to_ms);
        if range.0 > range.1 {
            return Ok(());
        }
        let jobs = query.sorted();
        let wanted = |key: &LineKey, place: &Place| {
            query.uid.is_none_or(|uid| uid == place.uid)
                && jobs.as_ref().is_none_or(|jobs| jobs.binary_search(&key.1).is_ok())
        };
        let inner = self.lock();
        let open = (inner.open.number, inner.open.file.clone());
        let span = (range.0, 0, 0)..=(range.1, u32::MAX, u32::MAX);
        let mut found: Vec<(LineKey, u64, Place)> = inner
            .open
            .lines
            .range(span)
            .filter(|(key, place)| wanted(key, place))
            .map(|(key, place)| (*key, open.0, *place))
            .collect();
        let full: BTreeMap<u64, Arc<Full>> = inner.full.clone();
        drop(inner);
        for part in full.values().filter(|part| part.may_hold(range, jobs.as_deref())) {
            part.index.range(range, &mut |key, place| {
                if wanted(&key, &place) {
                    found.push((key, part.number, place));
                }
            })?;
        }
        found.sort_unstable_by_key(|(key, number, place)| (*key, *number, place.offset));
        found.dedup_by_key(|(key, ..)| *key);
        for (key, number, place) in found {
            let file = full.get(&number).map_or(&*open.1, |full| &full.file);
            each(file::read_line(file, &file::path(&self.dir, number), key, place)?);
        }
        Ok(())
    }

    /// Removes the full files whose every line ended before `before_ms`; returns how many lines
    /// that were. Lines in other files stay until all beside them are as old.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the list of files can't be written; nothing is lost then.
    pub fn forget_before(&self, before_ms: i64) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        let old: Vec<(u64, u64)> = inner
            .full
            .values()
            .filter(|part| part.index.summary.max_end < before_ms)
            .map(|part| (part.number, part.index.summary.lines))
            .collect();
        if old.is_empty() {
            return Ok(0);
        }
        let gone: Vec<u64> = old.iter().map(|(number, _)| *number).collect();
        inner.list.remove(&gone).map_err(|fault| fault.unreadable(&self.dir))?;
        for number in gone {
            inner.full.remove(&number);
            files::discard(&file::index_path(&self.dir, number));
            files::discard(&file::path(&self.dir, number));
        }
        Ok(old.iter().map(|(_, lines)| lines).sum())
    }

    /// How many lines there are.
    pub fn len(&self) -> u64 {
        let inner = self.lock();
        let full: u64 = inner.full.values().map(|part| part.index.summary.lines).sum();
        full + inner.open.lines.len() as u64
    }

    /// Whether no job ever ended here, or all were forgotten.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn append(&mut self, entries: &[HistoryEntry]) -> Result<usize, StoreError> {
        if let Some(why) = &self.dead {
            return Err(StoreError::Failed(why.clone().into()));
        }
        let new = self.unknown(entries).map_err(|fault| fault.unreadable(&self.dir))?;
        let mut rest = &new[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|line| {
                bytes += line.body.len() + file::LINE_HEADER;
                bytes <= MAX_FRAME_BYTES
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.write(now).map_err(|fault| self.fail(fault))?;
            rest = later;
        }
        Ok(new.len())
    }

    /// The entries that are not there yet, each once.
    fn unknown<'a>(&self, entries: &'a [HistoryEntry]) -> Result<Vec<&'a HistoryEntry>, Fault> {
        let mut seen = std::collections::HashSet::new();
        let mut new = Vec::with_capacity(entries.len());
        for entry in entries {
            if seen.insert(entry.key()) && !self.knows(entry.key())? {
                new.push(entry);
            }
        }
        Ok(new)
    }

    fn knows(&self, key: LineKey) -> Result<bool, Fault> {
        if self.open.lines.contains_key(&key) {
            return Ok(true);
        }
        let range = (key.0, key.0);
        for part in self.full.values().filter(|part| part.may_hold(range, Some(&[key.1]))) {
            let mut known = false;
            part.index.range(range, &mut |found, _| known |= found == key)?;
            if known {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write(&mut self, lines: &[&HistoryEntry]) -> Result<(), Fault> {
        if self.open.len >= self.max_file {
            self.rotate()?;
        }
        let mut frame = Vec::new();
        let seed = frames::seed(Kind::History, &self.id);
        let open = &mut self.open;
        let places = file::push_lines(&mut frame, open.len, seed, open.next_seq, lines);
        let path = file::path(&self.dir, open.number);
        if let Err(error) = open.file.write_all_at(&frame, open.len) {
            let fault = Fault::io("write", &path)(error);
            if open.file.set_len(open.len).is_err() {
                self.dead = Some(fault.to_string());
            }
            return Err(fault);
        }
        open.file.sync_data().map_err(|error| {
            self.dead = Some(format!("can't fsync {}: {error}", path.display()));
            Fault::Damaged(format!("can't fsync {}: {error}", path.display()))
        })?;
        open.len += frame.len() as u64;
        open.next_seq += 1;
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = (open.number, open.len);
        open.lines.extend(places);
        Ok(())
    }

    fn fail(&mut self, fault: Fault) -> StoreError {
        if fault.is_no_space() && self.dead.is_none() {
            return StoreError::Unavailable(Box::new(fault));
        }
        self.dead.get_or_insert_with(|| fault.to_string());
        StoreError::Failed(Box::new(fault))
    }

    fn rotate(&mut self) -> Result<(), Fault> {
        let number = self.open.number;
        let places: Vec<(LineKey, Place)> =
            self.open.lines.iter().map(|(key, place)| (*key, *place)).collect();
        file::write_index(&self.dir, &self.id, number, &places, self.open.len)?;
        let full = Arc::new(open_full(&self.dir, &self.id, number)?);
        let next = Open {
            number: number + 1,
            file: Arc::new(file::create(&self.dir, &self.id, number + 1)?),
            len: FILE_HEADER as u64,
            next_seq: 1,
            lines: BTreeMap::new(),
        };
        self.list.add(number + 1)?;
        self.full.insert(number, full);
        self.open = next;
        Ok(())
    }
}

impl Full {
    fn may_hold(&self, (from, to): (i64, i64), jobs: Option<&[u32]>) -> bool {
        let summary = &self.index.summary;
        let in_jobs = jobs.is_none_or(|jobs| {
            jobs.iter().any(|job| (summary.min_job..=summary.max_job).contains(job))
        });
        in_jobs && summary.min_end <= to && summary.max_end >= from
    }
}

fn open_newest(dir: &Path, id: &StoreId, number: u64, mark: (u64, u64)) -> Result<Open, Fault> {
    let (scan, lines) = scan_open(dir, id, number, mark)?;
    let path = file::path(dir, number);
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(Fault::io("open", &path))?;
    if file.metadata().map_err(Fault::io("read", &path))?.len() > scan.end {
        tracing::warn!(path = %path.display(), at = scan.end, "cut a history line that was never answered");
        file.set_len(scan.end).and_then(|()| file.sync_all()).map_err(Fault::io("cut", &path))?;
    }
    Ok(Open { number, file: Arc::new(file), len: scan.end, next_seq: scan.next_seq, lines })
}

/// Opens a full file with its index, which is made anew if it is lost or broken.
fn open_full(dir: &Path, id: &StoreId, number: u64) -> Result<Full, Fault> {
    let path = file::path(dir, number);
    let handle = File::open(&path).map_err(Fault::io("open", &path))?;
    let len = handle.metadata().map_err(Fault::io("read", &path))?.len();
    match IndexFile::open(dir, id, number) {
        Ok(index) if index.summary.bytes == len => Ok(Full { number, file: handle, index }),
        Err(newer @ Fault::Newer { .. }) => Err(newer),
        _ => {
            tracing::info!(path = %path.display(), "making a lost history index anew");
            rebuild_index(dir, id, number)?;
            let index = IndexFile::open(dir, id, number)?;
            Ok(Full { number, file: handle, index })
        }
    }
}

/// Makes the index of a full file from the file.
pub(crate) fn rebuild_index(dir: &Path, id: &StoreId, number: u64) -> Result<u64, Fault> {
    let mut places = BTreeMap::new();
    let scan = file::scan(dir, id, number, &mut |line, place| {
        places.entry(line.key()).or_insert(place);
    })?;
    let path = file::path(dir, number);
    match scan.tail {
        Tail::Clean => {}
        Tail::Damaged { later, .. } => return Err(file::damaged_middle(&path, scan.end, later)),
        Tail::Torn => {
            let text = format!("history file {} is damaged at byte {}", path.display(), scan.end);
            return Err(Fault::Damaged(text));
        }
    }
    let places: Vec<(LineKey, Place)> = places.into_iter().collect();
    let len = std::fs::metadata(&path).map_err(Fault::io("read", &path))?.len();
    Ok(file::write_index(dir, id, number, &places, len)?.lines)
}
