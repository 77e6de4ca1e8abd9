//! How do ended jobs lie in a history file, and how is its index laid out?
//!
//! `history/<n>.hist`: header, then one frame an append; a frame holds lines, each with length,
//! checksum and fields, so that a line can be read alone. The frame's sequence counts the frames
//! of the file from 1.
//!
//! `history/<n>.hidx` is made when a file is full: header, a summary, and the places of its lines
//! sorted by (end, job, attempt) in blocks of 4 KiB with a checksum each. It only repeats what
//! the history file says and is made anew when lost or broken.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::error::Fault;
use super::files;
use super::frames::{self, FILE_HEADER, FRAME_HEADER, Kind, StoreId, Tail, le_u32, le_u64};

pub(crate) const ENDING: &str = "hist";
pub(crate) const INDEX_ENDING: &str = "hidx";
/// Bytes of a line before its body: length, checksum, job, attempt, uid, end.
pub(crate) const LINE_HEADER: usize = 28;
/// Longest body of a line.
pub(crate) const MAX_BODY: usize = 4 << 20;
const BLOCK: usize = 4096;
const PLACE: usize = 32;
const PER_BLOCK: usize = (BLOCK - 4) / PLACE;
/// Offset of the first block: header, summary with checksum, padding.
const FIRST_BLOCK: u64 = 4096;
const SUMMARY: usize = 40;

/// One ended attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The job.
    pub job: u32,
    /// Which run of it.
    pub attempt: u32,
    /// Whose it was.
    pub uid: u32,
    /// When it ended, in milliseconds since 1970.
    pub end_ms: i64,
    /// The record, as the caller encodes it; at most 4 MiB.
    pub body: Bytes,
}

/// What names a line: end, job, attempt. Lines are sorted by it.
pub(crate) type LineKey = (i64, u32, u32);

/// A line's place in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) uid: u32,
    /// Length of the body.
    pub(crate) len: u32,
    /// Offset of the line's header.
    pub(crate) offset: u64,
}

impl HistoryEntry {
    /// The line's name.
    pub(crate) fn key(&self) -> LineKey {
        (self.end_ms, self.job, self.attempt)
    }
}

/// The folder of a store in `dir`.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("history")
}

/// History file `number`.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    files::numbered_path(&folder(dir), number, ENDING)
}

/// Index of history file `number`.
pub(crate) fn index_path(dir: &Path, number: u64) -> PathBuf {
    files::numbered_path(&folder(dir), number, INDEX_ENDING)
}

/// Makes an empty history file, durable.
pub(crate) fn create(dir: &Path, id: &StoreId, number: u64) -> Result<File, Fault> {
    let header = frames::file_header(Kind::History, id, number);
    files::publish(&path(dir, number), |file| file.write_all_at(&header, 0))
}

/// Appends one frame with `lines` to `out`, which begins at byte `base` of the file; returns each
/// line's place.
pub(crate) fn push_lines(
    out: &mut Vec<u8>,
    base: u64,
    seed: u32,
    seq: u64,
    lines: &[&HistoryEntry],
) -> Vec<(LineKey, Place)> {
    let mut places = Vec::with_capacity(lines.len());
    frames::push_frame(out, seed, seq, |out| {
        for line in lines {
            let start = out.len();
            let len = u32::try_from(line.body.len()).expect("body limits are checked before");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&line.job.to_le_bytes());
            out.extend_from_slice(&line.attempt.to_le_bytes());
            out.extend_from_slice(&line.uid.to_le_bytes());
            out.extend_from_slice(&line.end_ms.to_le_bytes());
            out.extend_from_slice(&line.body);
            let crc = crc32fast::hash(&out[start + 8..]);
            out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
            let place = Place { uid: line.uid, len, offset: base + start as u64 };
            places.push((line.key(), place));
        }
    });
    places
}

/// Reads one line and checks it.
pub(crate) fn read_line(
    file: &File,
    path: &Path,
    key: LineKey,
    place: Place,
) -> Result<Bytes, Fault> {
    let mut bytes = vec![0; LINE_HEADER + place.len as usize];
    file.read_exact_at(&mut bytes, place.offset).map_err(Fault::io("read", path))?;
    let mut bytes = Bytes::from(bytes);
    match take_line(&mut bytes) {
        Some(line) if line.key() == key => Ok(line.body),
        _ => Err(Fault::Damaged(format!(
            "{}: the line of job {} at byte {} is damaged",
            path.display(),
            key.1,
            place.offset
        ))),
    }
}

fn take_line(bytes: &mut Bytes) -> Option<HistoryEntry> {
    if bytes.len() < LINE_HEADER {
        return None;
    }
    let len = usize::try_from(le_u32(bytes, 0)).ok()?;
    let crc = le_u32(bytes, 4);
    let whole = LINE_HEADER.checked_add(len).filter(|whole| *whole <= bytes.len())?;
    let mut line = bytes.split_to(whole);
    if crc32fast::hash(&line[8..]) != crc {
        return None;
    }
    line.advance(8);
    Some(HistoryEntry {
        job: line.get_u32_le(),
        attempt: line.get_u32_le(),
        uid: line.get_u32_le(),
        end_ms: line.get_i64_le(),
        body: line,
    })
}

/// What a history file holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    /// Offset behind the last good frame.
    pub(crate) end: u64,
    /// Sequence of the next frame.
    pub(crate) next_seq: u64,
    pub(crate) tail: Tail,
}

/// Hands every line of file `number` with its place to `each`. Nothing is changed.
pub(crate) fn scan(
    dir: &Path,
    id: &StoreId,
    number: u64,
    each: &mut dyn FnMut(HistoryEntry, Place),
) -> Result<Scan, Fault> {
    let path = path(dir, number);
    let file = Bytes::from(fs::read(&path).map_err(Fault::io("read", &path))?);
    frames::expect_file_header(&file, Kind::History, &path, id, number)?;
    let seed = frames::seed(Kind::History, id);
    let walk = frames::walk(&file, FILE_HEADER, 1, seed, &mut |seq, at, payload| {
        each_line(payload, at, each).ok_or_else(|| super::codec::senseless(&path, seq))
    })?;
    Ok(Scan { end: walk.end as u64, next_seq: walk.next_seq, tail: walk.tail })
}

/// Hands the lines of one frame's payload to `each`; `at` is the frame's offset.
pub(crate) fn each_line(
    mut payload: Bytes,
    at: usize,
    each: &mut dyn FnMut(HistoryEntry, Place),
) -> Option<()> {
    let end = at + FRAME_HEADER + payload.len();
    while !payload.is_empty() {
        let offset = (end - payload.len()) as u64;
        let line = take_line(&mut payload)?;
        let len = u32::try_from(line.body.len()).ok()?;
        let place = Place { uid: line.uid, len, offset };
        each(line, place);
    }
    Some(())
}

/// The error of a history file whose middle is damaged.
pub(crate) fn damaged_middle(path: &Path, at: u64, later: usize) -> Fault {
    Fault::Damaged(format!(
        "history file {} is damaged at byte {at}, and good lines follow at byte {later}; `rebuild` \
         keeps the damaged file beside and carries over every good line",
        path.display()
    ))
}

/// What an index says of its file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) lines: u64,
    pub(crate) min_end: i64,
    pub(crate) max_end: i64,
    pub(crate) min_job: u32,
    pub(crate) max_job: u32,
    /// Length of the history file when it was indexed.
    pub(crate) bytes: u64,
}

impl Summary {
    /// Of sorted `places`, for a file of `bytes`.
    fn of(places: &[(LineKey, Place)], bytes: u64) -> Summary {
        let jobs = places.iter().map(|(key, _)| key.1);
        Summary {
            lines: places.len() as u64,
            min_end: places.first().map_or(i64::MAX, |(key, _)| key.0),
            max_end: places.last().map_or(i64::MIN, |(key, _)| key.0),
            min_job: jobs.clone().min().unwrap_or(u32::MAX),
            max_job: jobs.max().unwrap_or(0),
            bytes,
        }
    }
}

/// Writes the index of file `number`; `places` are sorted by key.
pub(crate) fn write_index(
    dir: &Path,
    id: &StoreId,
    number: u64,
    places: &[(LineKey, Place)],
    bytes: u64,
) -> Result<Summary, Fault> {
    let summary = Summary::of(places, bytes);
    let mut out = frames::file_header(Kind::HistoryIndex, id, number).to_vec();
    for field in [summary.lines, summary.bytes] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&summary.min_end.to_le_bytes());
    out.extend_from_slice(&summary.max_end.to_le_bytes());
    out.extend_from_slice(&summary.min_job.to_le_bytes());
    out.extend_from_slice(&summary.max_job.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.resize(BLOCK, 0);
    for block in places.chunks(PER_BLOCK) {
        let start = out.len();
        for (key, place) in block {
            out.extend_from_slice(&key.0.to_le_bytes());
            out.extend_from_slice(&key.1.to_le_bytes());
            out.extend_from_slice(&key.2.to_le_bytes());
            out.extend_from_slice(&place.uid.to_le_bytes());
            out.extend_from_slice(&place.len.to_le_bytes());
            out.extend_from_slice(&place.offset.to_le_bytes());
        }
        out.resize(start + BLOCK - 4, 0);
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
    files::publish(&index_path(dir, number), |file| file.write_all_at(&out, 0))?;
    Ok(summary)
}

/// An index opened for reading.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: File,
    path: PathBuf,
    pub(crate) summary: Summary,
}

impl IndexFile {
    /// Opens the index of file `number`; an error means that it must be made anew.
    pub(crate) fn open(dir: &Path, id: &StoreId, number: u64) -> Result<IndexFile, Fault> {
        let path = index_path(dir, number);
        let file = File::open(&path).map_err(Fault::io("open", &path))?;
        let mut bytes = [0; FILE_HEADER + SUMMARY + 4];
        file.read_exact_at(&mut bytes, 0).map_err(Fault::io("read", &path))?;
        frames::expect_file_header(&bytes, Kind::HistoryIndex, &path, id, number)?;
        let damaged = || Fault::Damaged(format!("history index {} is damaged", path.display()));
        if crc32fast::hash(&bytes[..FILE_HEADER + SUMMARY]) != le_u32(&bytes, FILE_HEADER + SUMMARY)
        {
            return Err(damaged());
        }
        let mut fields = &bytes[FILE_HEADER..];
        let summary = Summary {
            lines: fields.get_u64_le(),
            bytes: fields.get_u64_le(),
            min_end: fields.get_i64_le(),
            max_end: fields.get_i64_le(),
            min_job: fields.get_u32_le(),
            max_job: fields.get_u32_le(),
        };
        let len = file.metadata().map_err(Fault::io("read", &path))?.len();
        let blocks = summary.lines.div_ceil(PER_BLOCK as u64);
        if blocks.checked_mul(BLOCK as u64).and_then(|n| n.checked_add(FIRST_BLOCK)) != Some(len) {
            return Err(damaged());
        }
        Ok(IndexFile { file, path, summary })
    }

    fn blocks(&self) -> u64 {
        self.summary.lines.div_ceil(PER_BLOCK as u64)
    }

    /// Hands the lines with an end in `from..=to` to `each`, in order. Reads only the blocks that
    /// can hold such lines.
    pub(crate) fn range(
        &self,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(LineKey, Place),
    ) -> Result<(), Fault> {
        let mut low = 0;
        let mut high = self.blocks();
        while low < high {
            let middle = low.midpoint(high);
            let block = self.block(middle)?;
            if block.last().is_some_and(|(key, _)| key.0 < from) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        for number in low..self.blocks() {
            for (key, place) in self.block(number)? {
                if key.0 > to {
                    return Ok(());
                }
                if key.0 >= from {
                    each(key, place);
                }
            }
        }
        Ok(())
    }

    fn block(&self, number: u64) -> Result<Vec<(LineKey, Place)>, Fault> {
        let mut bytes = [0; BLOCK];
        let offset = FIRST_BLOCK + number * BLOCK as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(Fault::io("read", &self.path))?;
        if crc32fast::hash(&bytes[..BLOCK - 4]) != le_u32(&bytes, BLOCK - 4) {
            let path = self.path.display();
            return Err(Fault::Damaged(format!("history index {path}: block {number} is damaged")));
        }
        let before = number * PER_BLOCK as u64;
        let count = (self.summary.lines - before).min(PER_BLOCK as u64);
        let count = usize::try_from(count).expect("at most a block's places");
        Ok((0..count).map(|at| parse_place(&bytes[at * PLACE..(at + 1) * PLACE])).collect())
    }
}

fn parse_place(mut bytes: &[u8]) -> (LineKey, Place) {
    let offset = le_u64(bytes, 24);
    let key = (bytes.get_i64_le(), bytes.get_u32_le(), bytes.get_u32_le());
    (key, Place { uid: bytes.get_u32_le(), len: bytes.get_u32_le(), offset })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn index_finds_ranges_and_notices_damage() {
        let dir = tempfile::tempdir().unwrap();
        files::ensure_dir(&folder(dir.path())).unwrap();
        let place = |n: u32| Place { uid: n % 7, len: n, offset: u64::from(n) * 100 };
        let places: Vec<(LineKey, Place)> =
            (0..1000).map(|n| ((i64::from(n / 3), n, 1), place(n))).collect();
        write_index(dir.path(), &[1; 16], 4, &places, 5).unwrap();
        let index = IndexFile::open(dir.path(), &[1; 16], 4).unwrap();
        assert_eq!((index.summary.min_job, index.summary.max_job), (0, 999));
        for range in [(0, 0), (-5, 400), (100, 101), (333, 900), (400, 500)] {
            let mut found = Vec::new();
            index.range(range, &mut |key, place| found.push((key, place))).unwrap();
            let wanted: Vec<_> = places
                .iter()
                .copied()
                .filter(|(key, _)| key.0 >= range.0 && key.0 <= range.1)
                .collect();
            assert_eq!(found, wanted, "{range:?}");
        }
        let path = index_path(dir.path(), 4);
        let mut bytes = fs::read(&path).unwrap();
        bytes[BLOCK + 50] ^= 1;
        fs::write(&path, bytes).unwrap();
        let index = IndexFile::open(dir.path(), &[1; 16], 4).unwrap();
        assert!(index.range((0, 0), &mut |_, _| ()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(take_line(&mut Bytes::from(bytes.clone())).is_none());
            let _ = each_line(Bytes::from(bytes), 0, &mut |_, _| ());
        }
    }
}
