//! How is a damaged store put together again from the parts that are whole?

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::blobs;
use super::checkpoint;
use super::codec::Marks;
use super::embedded::{EmbeddedStore, Options};
use super::error::{Fault, OpenError};
use super::files::{self, FileList};
use super::follower::SledState;
use super::frames::{self, FILE_HEADER, Kind, StoreId, Tail};
use super::guard::{Guard, Presence, presence};
use super::history;
use super::history_file::{self as file, HistoryEntry};
use super::key::Key;
use super::pack;
use super::redo;
use super::sled_copy::{self, Position, SledCopy};
use super::survey::{self, TailChanges, add_changes};

/// How long sled may take to be made anew.
const SLED_WAIT: Duration = Duration::from_secs(3600);

/// What [`rebuild`] did, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was done, a sentence each.
    pub done: Vec<String>,
}

impl fmt::Display for Rebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.done.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Restores the store in `dir` from the parts that are whole, and makes sled and the history
/// indexes anew. Moves aside, never deletes. The daemon must be stopped.
///
/// # Errors
/// [`OpenError::Corrupt`] says what can't be restored; nothing is lost then that was there.
pub fn rebuild(dir: &Path) -> Result<Rebuilt, OpenError> {
    if !dir.is_dir() {
        return Err(OpenError::Missing { dir: dir.to_owned() });
    }
    let lock = survey::lock_dir(dir, Duration::ZERO)?;
    let mut work = Work { dir, done: Vec::new() };
    let entries = work.restore().map_err(|fault| hopeless(fault, dir))?;
    drop(lock);
    work.reopen(&entries)?;
    Ok(Rebuilt { done: work.done })
}

fn hopeless(fault: Fault, dir: &Path) -> OpenError {
    match fault {
        Fault::Damaged(what) => OpenError::Corrupt {
            what,
            how_to_restore: format!(
                "rebuild can't restore that without losing what was answered; put {dir} back from \
                 a backup, then run `penstock store check {dir}` and, if it says so, `penstock \
                 store rebuild {dir}` again",
                dir = dir.display()
            ),
        },
        other => other.refuse(dir),
    }
}

struct Work<'a> {
    dir: &'a Path,
    done: Vec<String>,
}

impl Work<'_> {
    fn restore(&mut self) -> Result<Vec<HistoryEntry>, Fault> {
        let guard = self.restore_guard()?;
        self.restore_list(&pack::folder(self.dir), pack::ENDING)?;
        self.restore_list(&file::folder(self.dir), file::ENDING)?;
        blobs::listed(self.dir)?;
        history::listed(self.dir)?;
        self.restore_records(&guard)?;
        let entries = self.restore_history(&guard.id)?;
        for part in [sled_copy::folder(self.dir), sled_copy::building(self.dir)] {
            self.set_aside(&part)?;
        }
        Ok(entries)
    }

    fn set_aside(&mut self, path: &Path) -> Result<(), Fault> {
        if path.exists() {
            let aside = files::set_aside(path)?;
            self.done.push(format!("moved {} to {}", path.display(), aside.display()));
        }
        Ok(())
    }

    /// The guard, made anew from the files' headers if it is lost.
    fn restore_guard(&mut self) -> Result<Guard, Fault> {
        let why = match presence(self.dir) {
            Ok(Presence::Store(guard)) => return Ok(guard),
            Ok(Presence::Empty) => {
                let dir = self.dir.display();
                return Err(Fault::Damaged(format!("there is no store in {dir}")));
            }
            Err(Fault::Damaged(why)) => why,
            Err(other) => return Err(other),
        };
        let id = self.id_from_files()?.ok_or_else(|| Fault::Damaged(why.clone()))?;
        self.set_aside(&Guard::path(self.dir))?;
        // Terms only have to grow: no store had as many reigns as seconds have passed.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let term = now.map_or(0, |since| since.as_secs());
        let guard = Guard { id, checkpoint: 0, term, holder: "penstock store rebuild".to_owned() };
        guard.write(self.dir, true)?;
        self.done.push(format!("made the guard anew ({why})"));
        Ok(guard)
    }

    fn id_from_files(&self) -> Result<Option<StoreId>, Fault> {
        let folder = redo::folder(self.dir);
        let mut found = None;
        for number in files::numbered(&folder, "redo")? {
            let path = files::numbered_path(&folder, number, "redo");
            let bytes = std::fs::read(&path).map_err(Fault::io("read", &path))?;
            match frames::parse_file_header(&bytes, Kind::Redo, &path) {
                Ok((id, _)) => found = Some(id),
                Err(newer @ Fault::Newer { .. }) => return Err(newer),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// A list of files, made anew from what is there if it can't be read.
    fn restore_list(&mut self, folder: &Path, ending: &str) -> Result<(), Fault> {
        let Err(why) = FileList::read(folder) else { return Ok(()) };
        let present = files::numbered(folder, ending)?;
        if present.is_empty() {
            let text = format!("{} holds no file ({why})", folder.display());
            return Err(Fault::Damaged(text));
        }
        self.set_aside(&folder.join("files"))?;
        FileList::create(folder, present)?;
        self.done.push(format!("made the list of {} anew ({why})", folder.display()));
        Ok(())
    }

    fn restore_records(&mut self, guard: &Guard) -> Result<(), Fault> {
        let survey = survey::survey(self.dir, guard);
        let end = match &survey {
            Ok(survey) => survey.newest(),
            Err(Fault::Damaged(_)) => 0,
            Err(_) => return survey.map(drop),
        };
        let copy = self.open_sled(&guard.id);
        match (survey, copy) {
            (Ok(survey), Some((at, copy))) if at > survey.newest() => {
                let why = format!("checkpoint and redo end with batch {end}, sled with {at}");
                drop(survey);
                self.restore_from_sled(guard, at, copy, &why)
            }
            (Ok(survey), _) => {
                for (seq, why) in &survey.bad {
                    self.set_aside(&checkpoint::path(self.dir, *seq))?;
                    self.done.push(format!("batch {end} is whole without that checkpoint ({why})"));
                }
                Ok(())
            }
            (Err(fault), Some((at, copy))) => {
                self.restore_from_sled(guard, at, copy, &fault.to_string())
            }
            (Err(Fault::Damaged(why)), None) => {
                Err(Fault::Damaged(format!("{why}; sled can't fill in, it is lost or broken")))
            }
            (Err(fault), None) => Err(fault),
        }
    }

    /// Opens sled if it says that it is a copy of this store.
    fn open_sled(&self, id: &StoreId) -> Option<(u64, SledCopy)> {
        if !sled_copy::folder(self.dir).exists() || sled_copy::building(self.dir).exists() {
            return None;
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let copy = SledCopy::open(self.dir, 32 << 20).ok()?;
            match copy.position(id) {
                Ok(Position::At(at)) => Some((at, copy)),
                _ => None,
            }
        }));
        opened.ok().flatten()
    }

    /// Makes a checkpoint of what sled and the redo segments behind it hold, and begins a new redo
    /// file.
    fn restore_from_sled(
        &mut self,
        guard: &Guard,
        at: u64,
        copy: SledCopy,
        why: &str,
    ) -> Result<(), Fault> {
        let dir = self.dir;
        let mut tail = TailChanges::new();
        let read =
            redo::survey(dir, &guard.id, at, &mut |_, changes| add_changes(&mut tail, changes));
        let (end, marks) = match read {
            Ok(segments) => {
                let last = segments.last().expect("a survey has at least one segment");
                (last.last.max(at), Some(last.marks).filter(|_| last.last >= at))
            }
            Err(fault) => {
                let text = format!("{why}; sled holds batch {at}, but behind it: {fault}");
                return Err(Fault::Damaged(text));
            }
        };
        if end < guard.checkpoint {
            let needed = guard.checkpoint;
            let text = format!("{why}; sled only reaches batch {end}, {needed} was answered");
            return Err(Fault::Damaged(text));
        }
        let mut records: BTreeMap<Key, Bytes> = BTreeMap::new();
        for record in copy.records() {
            let (key, value) = record.map_err(|error| {
                Fault::Damaged(format!("{why}; sled can't be read to its end: {error}"))
            })?;
            records.insert(key, value);
        }
        for (key, value) in tail {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        drop(copy);
        let marks = match marks {
            Some(marks) => marks,
            None => self.marks_of_files(&guard.id)?,
        };
        self.begin_anew(guard, end, records, &marks)?;
        self.done.push(format!("restored batch {end} from sled ({why})"));
        Ok(())
    }

    fn begin_anew(
        &mut self,
        guard: &Guard,
        end: u64,
        records: BTreeMap<Key, Bytes>,
        marks: &Marks,
    ) -> Result<(), Fault> {
        let dir = self.dir;
        for part in [checkpoint::folder(dir), redo::folder(dir)] {
            self.set_aside(&part)?;
        }
        files::ensure_dir(&checkpoint::folder(dir))?;
        checkpoint::write(dir, &guard.id, end, records.into_iter())
            .map_err(|error| Fault::Damaged(error.to_string()))?;
        redo::create(dir, &guard.id, end + 1, marks)?;
        Guard { checkpoint: end, ..guard.clone() }.write(dir, true)
    }

    /// Marks that take everything that is in the newest files.
    fn marks_of_files(&self, id: &StoreId) -> Result<Marks, Fault> {
        let newest = |folder: &Path| {
            FileList::read(folder).map(|list| list.numbers().last().copied().unwrap_or_default())
        };
        let pack = newest(&pack::folder(self.dir))?;
        let history = newest(&file::folder(self.dir))?;
        let pack_len = pack::scan(self.dir, id, pack, None, &mut |_, _| ())?;
        Ok(Marks { pack, pack_len, history, history_len: FILE_HEADER as u64 })
    }

    /// Takes damaged history files off the list and returns their good lines; removes indexes, so
    /// that they are made anew.
    fn restore_history(&mut self, id: &StoreId) -> Result<Vec<HistoryEntry>, Fault> {
        let mut list = history::listed(self.dir)?;
        let newest = list.numbers().last().copied().unwrap_or_default();
        let mut damaged = Vec::new();
        let mut entries = Vec::new();
        for number in list.numbers().iter().copied() {
            let scan = file::scan(self.dir, id, number, &mut |_, _| ());
            let whole = match &scan {
                Ok(scan) if number == newest => !matches!(scan.tail, Tail::Damaged { .. }),
                Ok(scan) => scan.tail == Tail::Clean,
                Err(Fault::Damaged(_)) => false,
                Err(_) => return scan.map(|_| Vec::new()),
            };
            if !whole {
                let before = entries.len();
                salvage(self.dir, id, number, &mut entries)?;
                let (path, lines) = (file::path(self.dir, number), entries.len() - before);
                self.done.push(format!("{lines} good lines carried over from {}", path.display()));
                damaged.push(number);
            }
            if number != newest {
                files::discard(&file::index_path(self.dir, number));
            }
        }
        if damaged.contains(&newest) {
            file::create(self.dir, id, newest + 1)?;
            list.add(newest + 1)?;
        }
        for number in &damaged {
            self.set_aside(&file::path(self.dir, *number))?;
        }
        if !damaged.is_empty() {
            list.remove(&damaged)?;
        }
        Ok(entries)
    }

    fn reopen(&mut self, entries: &[HistoryEntry]) -> Result<(), OpenError> {
        let dir: PathBuf = self.dir.to_owned();
        let options = Options { create: false, ..Options::default() };
        let store = EmbeddedStore::open(&dir, &options).map_err(|error| match error {
            OpenError::Corrupt { what, .. } => hopeless(Fault::Damaged(what), self.dir),
            other => other,
        })?;
        let failed = |what: String| OpenError::Corrupt {
            what,
            how_to_restore: format!("run `penstock store check {}`", dir.display()),
        };
        if let Err(error) = store.history().append(entries) {
            return Err(failed(format!("can't write the history lines: {error}")));
        }
        if !store.wait_for_sled(SLED_WAIT) {
            let state = store.sled_status().0;
            let why = match state {
                SledState::Lost(why) | SledState::Refused(why) => why,
                SledState::Opening | SledState::Following | SledState::Off => "too slow".to_owned(),
            };
            return Err(failed(format!("sled could not be made anew: {why}")));
        }
        self.done
            .push(format!("whole at batch {}, sled and indexes made anew", store.revision().0));
        Ok(())
    }
}

/// Collects every line of history file `number` that is whole, whatever lies between.
fn salvage(
    dir: &Path,
    id: &StoreId,
    number: u64,
    entries: &mut Vec<HistoryEntry>,
) -> Result<(), Fault> {
    let path = file::path(dir, number);
    let bytes = Bytes::from(std::fs::read(&path).map_err(Fault::io("read", &path))?);
    let seed = frames::seed(Kind::History, id);
    let (mut at, mut seq) = (FILE_HEADER.min(bytes.len()), 1);
    loop {
        let walk = frames::walk(&bytes, at, seq, seed, &mut |seq, at, payload| {
            file::each_line(payload, at, &mut |line, _| entries.push(line))
                .ok_or_else(|| super::codec::senseless(&path, seq))
        })?;
        match walk.tail {
            Tail::Damaged { later, later_seq } => (at, seq) = (later, later_seq),
            Tail::Clean | Tail::Torn => return Ok(()),
        }
    }
}
