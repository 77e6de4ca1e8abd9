//! Where do all live records stand in one file, so that old redo segments can go?
//!
//! `checkpoint/<sequence>.ckpt`: header, frames of sorted records (about 256 KiB each), and a last
//! frame with the count. The frame's sequence is the block's number. A file without its last
//! frame is no checkpoint. The newest two are kept; when the newest can't be read, the older one
//! and the redo segments behind it give the same state.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::codec;
use super::error::Fault;
use super::files;
use super::frames::{self, FILE_HEADER, FRAME_HEADER, Kind, StoreId};
use super::key::Key;

const ENDING: &str = "ckpt";
/// A block is closed when it holds this many bytes.
const BLOCK: usize = 256 << 10;
const KIND_RECORDS: u8 = 1;
const KIND_END: u8 = 2;

/// The folder of a store in `dir`.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// The file of the checkpoint at `seq`.
pub(crate) fn path(dir: &Path, seq: u64) -> PathBuf {
    files::numbered_path(&folder(dir), seq, ENDING)
}

/// Sequences of the checkpoints that have a name, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, Fault> {
    files::numbered(&folder(dir), ENDING)
}

/// Why a checkpoint was not written. The store itself is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The keys did not come in strictly ascending order.
    #[error("checkpoint at {seq}: key {key:?} came out of order; nothing was written")]
    Order {
        /// The checkpoint's sequence.
        seq: u64,
        /// The key that is not larger than the one before it.
        key: Key,
    },
    /// The sequence is not durable, or older than the newest checkpoint.
    #[error("checkpoint at {seq} is outside {oldest}..={newest}; nothing was written")]
    Sequence {
        /// What was asked for.
        seq: u64,
        /// The newest checkpoint.
        oldest: u64,
        /// The newest durable batch.
        newest: u64,
    },
    /// Writing failed; the older checkpoints and the redo segments stay.
    #[error(
        "can't write the checkpoint at {seq}; free space or check the disk, the redo files stay until one succeeds"
    )]
    Write {
        /// The checkpoint's sequence.
        seq: u64,
        /// What failed.
        #[source]
        source: super::error::BoxError,
    },
}

/// Writes a checkpoint durably under its name; returns how many records it has.
pub(crate) fn write(
    dir: &Path,
    id: &StoreId,
    seq: u64,
    records: impl Iterator<Item = (Key, Bytes)>,
) -> Result<u64, CheckpointError> {
    let target = path(dir, seq);
    let temporary = files::temporary(&target);
    let wrap = |fault: Fault| CheckpointError::Write { seq, source: Box::new(fault) };
    let made = write_temporary(&temporary, id, seq, records);
    let count = made.inspect_err(|_| files::discard(&temporary))?;
    files::rename_durably(&temporary, &target).map_err(wrap)?;
    Ok(count)
}

fn write_temporary(
    temporary: &Path,
    id: &StoreId,
    seq: u64,
    records: impl Iterator<Item = (Key, Bytes)>,
) -> Result<u64, CheckpointError> {
    let wrap = |what| {
        move |error| CheckpointError::Write {
            seq,
            source: Box::new(Fault::io(what, temporary)(error)),
        }
    };
    let file = File::create(temporary).map_err(wrap("create"))?;
    let mut out = BufWriter::with_capacity(BLOCK, file);
    out.write_all(&frames::file_header(Kind::Checkpoint, id, seq)).map_err(wrap("write"))?;
    let mut blocks = Blocks::new(frames::seed(Kind::Checkpoint, id));
    let mut last: Option<Key> = None;
    for (key, value) in records {
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(CheckpointError::Order { seq, key });
        }
        if let Some(frame) = blocks.push(&key, &value) {
            out.write_all(frame).map_err(wrap("write"))?;
        }
        last = Some(key);
    }
    for frame in blocks.finish() {
        out.write_all(&frame).map_err(wrap("write"))?;
    }
    let file = out.into_inner().map_err(|error| wrap("write")(error.into_error()))?;
    file.sync_all().map_err(wrap("fsync"))?;
    Ok(blocks.count)
}

/// Gathers records into frames.
struct Blocks {
    seed: u32,
    number: u64,
    count: u64,
    in_block: u32,
    records: Vec<u8>,
    frame: Vec<u8>,
}

impl Blocks {
    fn new(seed: u32) -> Blocks {
        Blocks { seed, number: 0, count: 0, in_block: 0, records: Vec::new(), frame: Vec::new() }
    }

    /// Adds a record; returns a frame when one is full.
    fn push(&mut self, key: &Key, value: &[u8]) -> Option<&[u8]> {
        codec::push_record(&mut self.records, key, value);
        self.in_block += 1;
        self.count += 1;
        (self.records.len() >= BLOCK).then(|| self.close())
    }

    fn close(&mut self) -> &[u8] {
        let (records, in_block) = (&self.records, self.in_block);
        self.frame.clear();
        frames::push_frame(&mut self.frame, self.seed, self.number, |out| {
            out.push(KIND_RECORDS);
            out.extend_from_slice(&in_block.to_le_bytes());
            out.extend_from_slice(records);
        });
        self.records.clear();
        self.in_block = 0;
        self.number += 1;
        &self.frame
    }

    /// The frames that are left: the last records, if any, and the end.
    fn finish(&mut self) -> Vec<Vec<u8>> {
        let mut left = Vec::new();
        if self.in_block > 0 {
            left.push(self.close().to_vec());
        }
        let mut end = Vec::new();
        frames::push_frame(&mut end, self.seed, self.number, |out| {
            out.push(KIND_END);
            out.extend_from_slice(&self.count.to_le_bytes());
        });
        left.push(end);
        left
    }
}

/// Streams the records of one checkpoint in key order, and checks all of it on the way.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    left: u64,
    seed: u32,
    number: u64,
    count: u64,
    block: Bytes,
    in_block: u32,
    last: Option<Key>,
    ended: bool,
}

impl Reader {
    /// Opens the checkpoint at `seq` and checks its header.
    pub(crate) fn open(dir: &Path, id: &StoreId, seq: u64) -> Result<Reader, Fault> {
        let path = path(dir, seq);
        let mut file = File::open(&path).map_err(Fault::io("open", &path))?;
        let len = file.metadata().map_err(Fault::io("read", &path))?.len();
        let mut header = Vec::new();
        (&mut file)
            .take(FILE_HEADER as u64)
            .read_to_end(&mut header)
            .map_err(Fault::io("read", &path))?;
        frames::expect_file_header(&header, Kind::Checkpoint, &path, id, seq)?;
        Ok(Reader {
            file: BufReader::with_capacity(BLOCK, file),
            left: len - FILE_HEADER as u64,
            seed: frames::seed(Kind::Checkpoint, id),
            number: 0,
            count: 0,
            block: Bytes::new(),
            in_block: 0,
            last: None,
            ended: false,
            path,
        })
    }

    /// Reads to the end and begins anew; returns the count. An error means: no checkpoint.
    pub(crate) fn verify(mut self) -> Result<(Reader, u64), Fault> {
        while self.next_record()?.is_some() {}
        let count = self.count;
        let len = self.file.get_ref().metadata().map_err(Fault::io("read", &self.path))?.len();
        self.file
            .seek(SeekFrom::Start(FILE_HEADER as u64))
            .map_err(Fault::io("read", &self.path))?;
        self.left = len - FILE_HEADER as u64;
        self.number = 0;
        self.count = 0;
        self.last = None;
        self.ended = false;
        Ok((self, count))
    }

    /// The next record, `None` behind the last.
    pub(crate) fn next_record(&mut self) -> Result<Option<(Key, Bytes)>, Fault> {
        while self.in_block == 0 {
            if self.ended {
                return Ok(None);
            }
            self.read_block()?;
        }
        let record = codec::take_record(&mut self.block).ok_or_else(|| self.damaged("a record"))?;
        self.in_block -= 1;
        self.count += 1;
        if self.in_block == 0 && !self.block.is_empty() {
            return Err(self.damaged("a block's length"));
        }
        if self.last.as_ref().is_some_and(|last| *last >= record.0) {
            return Err(self.damaged("the order of keys"));
        }
        self.last = Some(record.0.clone());
        Ok(Some(record))
    }

    fn read_block(&mut self) -> Result<(), Fault> {
        let mut frame = vec![0; FRAME_HEADER];
        self.read_exactly(&mut frame, 0)?;
        let peeked = frames::peek_frame(&frame).filter(|(_, len)| *len as u64 <= self.left);
        let (_, len) = peeked.ok_or_else(|| self.damaged("a frame's header"))?;
        frame.resize(FRAME_HEADER + len, 0);
        self.read_exactly(&mut frame, FRAME_HEADER)?;
        match frames::parse_frame(&frame, self.seed) {
            Some((number, _)) if number == self.number => self.number += 1,
            _ => return Err(self.damaged("a checksum")),
        }
        let mut payload = Bytes::from(frame).split_off(FRAME_HEADER);
        match payload.try_get_u8() {
            Ok(KIND_RECORDS) => {
                let count = payload.try_get_u32_le().ok().filter(|count| *count > 0);
                self.in_block = count.ok_or_else(|| self.damaged("a block's count"))?;
                self.block = payload;
            }
            Ok(KIND_END) if payload.try_get_u64_le().ok() == Some(self.count) && self.left == 0 => {
                self.ended = true;
            }
            _ => return Err(self.damaged("the last frame")),
        }
        Ok(())
    }

    fn read_exactly(&mut self, frame: &mut [u8], from: usize) -> Result<(), Fault> {
        let wanted = (frame.len() - from) as u64;
        if wanted > self.left {
            return Err(self.damaged("the end (it is cut)"));
        }
        self.file.read_exact(&mut frame[from..]).map_err(Fault::io("read", &self.path))?;
        self.left -= wanted;
        Ok(())
    }

    fn damaged(&self, what: &str) -> Fault {
        let (path, number) = (self.path.display(), self.number);
        Fault::Damaged(format!("{path} is no whole checkpoint: {what} is wrong in block {number}"))
    }
}

/// Removes the checkpoint at `seq`.
pub(crate) fn remove(dir: &Path, seq: u64) -> Result<(), Fault> {
    let path = path(dir, seq);
    fs::remove_file(&path).map_err(Fault::io("remove", &path))?;
    files::sync_dir(&folder(dir))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: StoreId = [7; 16];

    fn records(count: u32) -> Vec<(Key, Bytes)> {
        (0..count).map(|n| (Key::of(1, &[n]), Bytes::from(format!("{n:300}")))).collect()
    }

    fn write_one(count: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files::ensure_dir(&folder(dir.path())).unwrap();
        assert_eq!(
            write(dir.path(), &ID, 9, records(count).into_iter()).unwrap(),
            u64::from(count)
        );
        dir
    }

    fn read_all(dir: &Path) -> Result<Vec<(Key, Bytes)>, Fault> {
        let (mut reader, _) = Reader::open(dir, &ID, 9)?.verify()?;
        let mut all = Vec::new();
        while let Some(record) = reader.next_record()? {
            all.push(record);
        }
        Ok(all)
    }

    #[test]
    fn what_was_written_is_read_in_order() {
        for count in [0, 1, 5000] {
            let dir = write_one(count);
            assert_eq!(read_all(dir.path()).unwrap(), records(count));
        }
    }

    #[test]
    fn records_out_of_order_are_refused_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        files::ensure_dir(&folder(dir.path())).unwrap();
        let wrong = records(3).into_iter().rev();
        let refused = write(dir.path(), &ID, 9, wrong);
        assert!(matches!(refused, Err(CheckpointError::Order { .. })));
        assert_eq!(fs::read_dir(folder(dir.path())).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn a_cut_or_flipped_checkpoint_is_never_whole(
            at in any::<prop::sample::Index>(),
            flip in prop::option::of(1u8..),
        ) {
            let dir = write_one(1200);
            let path = path(dir.path(), 9);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            match flip {
                Some(bits) => bytes[at] ^= bits,
                None => bytes.truncate(at),
            }
            fs::write(&path, &bytes).unwrap();
            prop_assert!(read_all(dir.path()).is_err());
        }
    }
}
