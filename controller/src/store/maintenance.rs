//! What does `penstock store check`, `export` and `rebuild` do?
//!
//! `check` and `export` only read, with the daemon stopped. `rebuild` restores what can be
//! restored from the parts that are whole: a lost guard, an unreadable newest checkpoint, records
//! from sled when checkpoints and redo no longer suffice, history indexes, history files with a
//! damaged middle, and sled itself. It moves aside and never deletes; what it can't restore it
//! names.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blobs;
use super::checkpoint;
use super::error::{Fault, OpenError};
use super::frames::{self, Kind, StoreId, Tail};
use super::guard::{Guard, Presence, presence};
use super::history;
use super::history_file as file;
use super::key::Key;
use super::pack;
use super::sled_copy;
use super::survey::{self, Survey};

/// What [`check`] found, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The store's directory.
    pub dir: PathBuf,
    /// What is there, a sentence each.
    pub facts: Vec<String>,
    /// What is wrong, a sentence each. Empty: the store is whole.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, fault: &Fault) {
        self.problems.push(fault.to_string());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.dir.display();
        writeln!(f, "store {dir}")?;
        for fact in &self.facts {
            writeln!(f, "  {fact}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  WRONG: {problem}")?;
        }
        match self.problems.len() {
            0 => writeln!(f, "whole: the daemon can start"),
            count => writeln!(
                f,
                "{count} wrong: run `penstock store rebuild {dir}`; it moves aside and deletes \
                 nothing. If it can't help, put {dir} back from a backup."
            ),
        }
    }
}

/// Locks `dir` and reads its guard.
pub(super) fn enter(dir: &Path) -> Result<(std::os::fd::OwnedFd, Guard), OpenError> {
    if !dir.is_dir() {
        return Err(OpenError::Missing { dir: dir.to_owned() });
    }
    let lock = survey::lock_dir(dir, Duration::ZERO)?;
    match presence(dir).map_err(|fault| fault.refuse(dir))? {
        Presence::Store(guard) => Ok((lock, guard)),
        Presence::Empty => Err(OpenError::Missing { dir: dir.to_owned() }),
    }
}

/// Reads everything in the store in `dir` and says what is there and what is wrong. Changes
/// nothing. sled is not opened, since that writes: the daemon makes a broken one anew by itself.
///
/// # Errors
/// Only if the store is in use, of a newer format, has no readable guard, or is none.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let (_lock, guard) = enter(dir)?;
    let mut report = Report { dir: dir.to_owned(), facts: Vec::new(), problems: Vec::new() };
    let holder = if guard.holder.is_empty() { "nobody yet" } else { &guard.holder };
    let term = guard.term;
    report.facts.push(format!("guard: term {term}, last written by {holder}"));
    let marks = check_records(dir, &guard, &mut report);
    check_blobs(dir, &guard.id, marks.map(|marks| marks.0), &mut report);
    check_history(dir, &guard.id, marks.map(|marks| marks.1), &mut report);
    let sled = sled_copy::folder(dir);
    let said = if sled.exists() { "there, not opened" } else { "absent, the daemon makes it" };
    report.facts.push(format!("sled: {said}"));
    Ok(report)
}

type FileMark = (u64, u64);

/// Checks records; returns the marks of blobs and history if the redo file can be read.
fn check_records(dir: &Path, guard: &Guard, report: &mut Report) -> Option<(FileMark, FileMark)> {
    let survey = match survey::survey(dir, guard) {
        Ok(survey) => survey,
        Err(fault) => {
            report.problem(&fault);
            return None;
        }
    };
    report.problems.extend(survey.bad.iter().map(|(_, why)| why.clone()));
    for older in survey.kept.iter().rev().skip(1) {
        let read = checkpoint::Reader::open(dir, &guard.id, *older);
        if let Err(fault) = read.and_then(checkpoint::Reader::verify) {
            report.problem(&fault);
        }
    }
    let (base, end) = (survey.base(), survey.newest());
    let count = survey.records;
    report.facts.push(match base {
        0 => "checkpoint: none yet".to_owned(),
        base => format!("checkpoint: batch {base}, {count} records"),
    });
    let last = survey.last_segment();
    let torn =
        if last.tail == Tail::Torn { ", then a torn one that was never answered" } else { "" };
    let segments = survey.segments.len();
    report.facts.push(format!("redo: {segments} segments, up to batch {end}{torn}"));
    let marks = last.marks;
    let live = count_live(survey);
    match live {
        Ok(live) => report.facts.push(format!("records: {live} live at batch {end}")),
        Err(fault) => report.problem(&fault),
    }
    Some(((marks.pack, marks.pack_len), (marks.history, marks.history_len)))
}

fn count_live(survey: Survey) -> Result<u64, Fault> {
    let mut live = 0;
    survey::merge(survey.checkpoint, survey.tail, |fault| fault, &mut |_, _| {
        live += 1;
        Ok(())
    })?;
    Ok(live)
}

fn check_blobs(dir: &Path, id: &StoreId, mark: Option<FileMark>, report: &mut Report) {
    let mark = mark.unwrap_or((u64::MAX, 0));
    let seed = frames::seed(Kind::Pack, id);
    let mut count = 0_u64;
    let mut damaged = Vec::new();
    let mut open: Option<(u32, std::fs::File)> = None;
    let read = blobs::survey(dir, id, mark, &mut |number, offset, hash, _| {
        count += 1;
        let path = pack::path(dir, u64::from(number));
        if open.as_ref().is_none_or(|(current, _)| *current != number) {
            open = std::fs::File::open(&path).ok().map(|file| (number, file));
        }
        if let Some((_, file)) = &open
            && let Err(fault) = pack::read_blob(file, &path, seed, u64::from(offset), &hash)
        {
            damaged.push(fault.to_string());
        }
    });
    if let Err(fault) = read {
        report.problem(&fault);
    }
    report.problems.append(&mut damaged);
    report.facts.push(format!("blobs: {count}"));
}

fn check_history(dir: &Path, id: &StoreId, mark: Option<FileMark>, report: &mut Report) {
    let list = match history::listed(dir) {
        Ok(list) => list,
        Err(fault) => return report.problem(&fault),
    };
    if let Some(mark) = mark
        && let Err(fault) = history::check_mark(dir, &list, mark)
    {
        report.problem(&fault);
    }
    let mut lines = 0_u64;
    let newest = list.numbers().last().copied();
    for number in list.numbers().iter().copied() {
        let path = file::path(dir, number);
        match file::scan(dir, id, number, &mut |_, _| lines += 1) {
            Err(fault) => report.problem(&fault),
            Ok(scan) => match scan.tail {
                Tail::Damaged { later, .. } => {
                    report.problem(&file::damaged_middle(&path, scan.end, later));
                }
                Tail::Torn if Some(number) != newest => {
                    let (path, at) = (path.display(), scan.end);
                    report.problems.push(format!("history file {path} is damaged at byte {at}"));
                }
                Tail::Torn | Tail::Clean => {}
            },
        }
        if Some(number) != newest
            && let Err(fault) = file::IndexFile::open(dir, id, number)
        {
            report.problem(&fault);
        }
    }
    report.facts.push(format!("history: {lines} lines in {} files", list.numbers().len()));
}

/// Writes one line a live record to `out`, in key order; `decode` gives the line's text. Changes
/// nothing. Returns how many records there are.
///
/// # Errors
/// [`OpenError`] as for opening the store; [`OpenError::Io`] if `out` takes no more.
pub fn export(
    dir: &Path,
    out: &mut dyn Write,
    decode: &dyn Fn(&Key, &[u8]) -> String,
) -> Result<u64, OpenError> {
    let (_lock, guard) = enter(dir)?;
    let refuse = |fault: Fault| fault.refuse(dir);
    let survey = survey::survey(dir, &guard).map_err(refuse)?;
    let mut count = 0;
    survey::merge(survey.checkpoint, survey.tail, refuse, &mut |key, value| {
        count += 1;
        writeln!(out, "{}", decode(&key, &value)).map_err(|source| OpenError::Io {
            what: "write the export of",
            path: dir.to_owned(),
            source,
        })
    })?;
    Ok(count)
}
