//! Where are scripts and environments, each stored once, however many jobs name it?
//!
//! Blobs are appended to the current pack and fdatasynced before the redo frame of the batch that
//! brings them. Each redo frame carries the pack's number and length, so at a start everything
//! before is known to be answered and everything behind was not, and is cut. The index (hash to
//! place, about 64 bytes a blob) is in memory and rebuilt by reading headers.
//! - A pack that was moved into the current one is deleted only after a redo frame that carries
//!   the new length.
//! - `blobs/files` lists the packs that must be there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::api::{BlobSource, BlobSweep};
use super::error::{Fault, StoreError};
use super::files::{self, FileList};
use super::frames::{self, FILE_HEADER, Kind, StoreId};
use super::key::BlobHash;
use super::pack::{self, BLOB_HEADER};
use super::redo::Failure;

/// A blob's place. Packs stay far below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    pack: u32,
    offset: u32,
    len: u32,
}

#[derive(Debug)]
struct Pack {
    file: Arc<File>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Index {
    places: HashMap<BlobHash, Place>,
    packs: BTreeMap<u32, Pack>,
}

/// Reads blobs on any thread.
#[derive(Debug, Clone)]
pub(crate) struct BlobReader {
    dir: PathBuf,
    seed: u32,
    index: Arc<RwLock<Index>>,
}

/// The packs of one store. One owner writes.
#[derive(Debug)]
pub(crate) struct Blobs {
    id: StoreId,
    reader: BlobReader,
    list: FileList,
    current: u32,
    file: Arc<File>,
    len: u64,
    max_pack: u64,
    /// A write failed and could not be taken back.
    dead: bool,
}

/// Packs that hold nothing any more, until a redo frame says where their blobs went.
#[derive(Debug)]
pub(crate) struct Emptied {
    packs: Vec<u32>,
    moved: Vec<(BlobHash, Place)>,
    sweep: BlobSweep,
}

impl Emptied {
    /// Whether there is nothing to finish.
    pub(crate) fn is_nothing(&self) -> bool {
        self.packs.is_empty()
    }
}

/// Makes the first pack of a new store.
pub(crate) fn create(dir: &Path, id: &StoreId) -> Result<(), Fault> {
    files::ensure_dir(&pack::folder(dir))?;
    pack::create(dir, id, 1)?;
    FileList::create(&pack::folder(dir), vec![1]).map(drop)
}

/// Reads the list of packs and checks that each is there. Nothing is changed.
pub(crate) fn listed(dir: &Path) -> Result<FileList, Fault> {
    let folder = pack::folder(dir);
    let list = FileList::read(&folder)?;
    let present = files::numbered(&folder, pack::ENDING)?;
    if let Some(number) = list.missing(&present).first() {
        let path = pack::path(dir, *number);
        return Err(Fault::Damaged(format!("blob pack {} is missing", path.display())));
    }
    Ok(list)
}

/// Reads the headers of all packs as they count when pack `mark.0` had `mark.1` answered bytes.
/// Nothing is changed. Calls `each` with (pack, offset, hash, length), later places last.
pub(crate) fn survey(
    dir: &Path,
    id: &StoreId,
    mark: (u64, u64),
    each: &mut dyn FnMut(u32, u32, BlobHash, u32),
) -> Result<FileList, Fault> {
    let list = listed(dir)?;
    for number in list.numbers().iter().copied() {
        let short = u32::try_from(number)
            .map_err(|_| Fault::Damaged(format!("blob pack {number} has an impossible number")))?;
        pack::scan(dir, id, number, answered_end(number, mark), &mut |at, header| {
            let at = u32::try_from(at).expect("a pack is shorter than 4 GiB");
            each(short, at, header.hash, header.len);
        })?;
    }
    Ok(list)
}

/// How much of pack `number` counts; `None` means all of it.
fn answered_end(number: u64, (pack, len): (u64, u64)) -> Option<u64> {
    match number.cmp(&pack) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(len.max(FILE_HEADER as u64)),
        std::cmp::Ordering::Greater => Some(FILE_HEADER as u64),
    }
}

impl Blobs {
    /// Opens the packs; cuts what was never answered.
    pub(crate) fn open(
        dir: &Path,
        id: &StoreId,
        mark: (u64, u64),
        max_pack: u64,
    ) -> Result<Blobs, Fault> {
        let mut index = Index::default();
        let list = survey(dir, id, mark, &mut |pack, offset, hash, len| {
            index.places.insert(hash, Place { pack, offset, len });
        })?;
        for number in list.numbers().iter().copied() {
            let end = answered_end(number, mark);
            let pack = open_pack(dir, number, end)?;
            index.packs.insert(u32::try_from(number).expect("checked by survey"), pack);
        }
        let folder = pack::folder(dir);
        let newest = list.numbers().last().copied().unwrap_or_default();
        for number in files::numbered(&folder, pack::ENDING)? {
            if !list.numbers().contains(&number) {
                files::discard(&pack::path(dir, number));
            }
        }
        let current = u32::try_from(newest).expect("checked by survey");
        let pack = index.packs.get(&current).expect("every listed pack was opened");
        let (file, len) = (pack.file.clone(), pack.bytes);
        let reader = BlobReader {
            dir: dir.to_owned(),
            seed: frames::seed(Kind::Pack, id),
            index: Arc::new(RwLock::new(index)),
        };
        Ok(Blobs { id: *id, reader, list, current, file, len, max_pack, dead: false })
    }

    /// A handle for other threads.
    pub(crate) fn reader(&self) -> BlobReader {
        self.reader.clone()
    }

    /// Number and length of the current pack, for the next redo frame.
    pub(crate) fn mark(&self) -> (u64, u64) {
        (u64::from(self.current), self.len)
    }

    /// Makes `blobs` durable. Known ones are skipped.
    pub(crate) fn append(&mut self, blobs: &[(BlobHash, Bytes)]) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        let mut new = Vec::new();
        for (hash, bytes) in blobs {
            if seen.insert(*hash) && !self.reader.read().places.contains_key(hash) {
                new.push((*hash, bytes.clone()));
            }
        }
        let places = self.write(&new)?;
        self.reader.write().places.extend(places);
        Ok(())
    }

    fn write(&mut self, blobs: &[(BlobHash, Bytes)]) -> Result<Vec<(BlobHash, Place)>, Failure> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        if self.dead {
            return Err(Failure::Dead(Fault::Damaged("a blob pack failed before".to_owned())));
        }
        let mut places = Vec::with_capacity(blobs.len());
        let mut at = 0;
        while at < blobs.len() {
            if self.len >= self.max_pack {
                self.rotate()?;
            }
            let (taken, mut more) = self.write_some(&blobs[at..])?;
            places.append(&mut more);
            at += taken;
        }
        Ok(places)
    }

    /// Writes as many of `blobs` as fit the current pack, at least one, with one fsync.
    fn write_some(
        &mut self,
        blobs: &[(BlobHash, Bytes)],
    ) -> Result<(usize, Vec<(BlobHash, Place)>), Failure> {
        let mut out = Vec::new();
        let mut places = Vec::new();
        for (hash, bytes) in blobs {
            let offset = self.len + out.len() as u64;
            if offset >= self.max_pack && !places.is_empty() {
                break;
            }
            let offset = u32::try_from(offset).expect("a pack is shorter than 4 GiB");
            let len = u32::try_from(bytes.len()).expect("blob limits are checked before");
            places.push((*hash, Place { pack: self.current, offset, len }));
            pack::push_blob(&mut out, self.reader.seed, hash, bytes);
        }
        let path = pack::path(&self.reader.dir, u64::from(self.current));
        if let Err(error) = self.file.write_all_at(&out, self.len) {
            // What was written has no name; without it the pack ends where it did.
            self.dead = self.file.set_len(self.len).is_err();
            return Err(Fault::io("write", &path)(error).into());
        }
        if let Err(error) = self.file.sync_data() {
            self.dead = true;
            return Err(Failure::Dead(Fault::io("fsync", &path)(error)));
        }
        self.len += out.len() as u64;
        let mut index = self.reader.write();
        index.packs.get_mut(&self.current).expect("the current pack is open").bytes = self.len;
        Ok((places.len(), places))
    }

    fn rotate(&mut self) -> Result<(), Failure> {
        let next = self.current + 1;
        let file = Arc::new(pack::create(&self.reader.dir, &self.id, u64::from(next))?);
        self.list.add(u64::from(next))?;
        let bytes = FILE_HEADER as u64;
        self.reader.write().packs.insert(next, Pack { file: file.clone(), bytes });
        self.current = next;
        self.file = file;
        self.len = bytes;
        Ok(())
    }

    /// First half of a sweep: finds packs without a live blob, and empties at most one that is
    /// mostly dead into the current pack. The caller then writes a redo frame with the new
    /// [`mark`](Blobs::mark) and calls [`finish_sweep`](Blobs::finish_sweep).
    pub(crate) fn begin_sweep(
        &mut self,
        live: &dyn Fn(&BlobHash) -> bool,
    ) -> Result<Emptied, Failure> {
        let mut usage = self.usage(live);
        let current = usage.get(&self.current).copied().unwrap_or_default();
        if current.dead() > current.live && current.bytes > self.max_pack / 4 {
            self.rotate()?;
        }
        usage.remove(&self.current);
        let mut packs: Vec<u32> =
            usage.iter().filter(|(_, use_)| use_.live == 0).map(|(pack, _)| *pack).collect();
        let mut sparse: Vec<(u64, u32)> = usage
            .iter()
            .filter(|(_, use_)| use_.live > 0 && use_.live < use_.dead())
            .map(|(pack, use_)| (use_.live, *pack))
            .collect();
        sparse.sort_unstable();
        let mut moved = Vec::new();
        if let Some((_, pack)) = sparse.first() {
            moved = self.move_live(*pack, live)?;
            packs.push(*pack);
        }
        let freed: u64 = packs.iter().filter_map(|pack| usage.get(pack)).map(|u| u.dead()).sum();
        let sweep = BlobSweep { freed_bytes: freed, moved: moved.len(), more: sparse.len() > 1 };
        Ok(Emptied { packs, moved, sweep })
    }

    fn move_live(
        &mut self,
        pack: u32,
        live: &dyn Fn(&BlobHash) -> bool,
    ) -> Result<Vec<(BlobHash, Place)>, Failure> {
        let index = self.reader.read();
        let mut wanted: Vec<(u32, BlobHash)> = index
            .places
            .iter()
            .filter(|(hash, place)| place.pack == pack && live(hash))
            .map(|(hash, place)| (place.offset, *hash))
            .collect();
        drop(index);
        wanted.sort_unstable();
        let mut moved = Vec::with_capacity(wanted.len());
        for group in wanted.chunks(64) {
            let mut blobs = Vec::with_capacity(group.len());
            for (_, hash) in group {
                let found = self.reader.find(hash).map_err(Failure::Nothing)?;
                blobs.extend(found.map(|bytes| (*hash, bytes)));
            }
            moved.append(&mut self.write(&blobs)?);
        }
        Ok(moved)
    }

    /// Second half of a sweep: the blobs are at their new places, the packs go.
    pub(crate) fn finish_sweep(&mut self, emptied: Emptied) -> Result<BlobSweep, Failure> {
        let gone: Vec<u64> = emptied.packs.iter().copied().map(u64::from).collect();
        if gone.is_empty() {
            return Ok(emptied.sweep);
        }
        let mut index = self.reader.write();
        index.places.extend(emptied.moved);
        index.places.retain(|_, place| !emptied.packs.contains(&place.pack));
        index.packs.retain(|pack, _| !emptied.packs.contains(pack));
        index.places.shrink_to_fit();
        drop(index);
        self.list.remove(&gone)?;
        for pack in gone {
            files::discard(&pack::path(&self.reader.dir, pack));
        }
        Ok(emptied.sweep)
    }

    fn usage(&self, live: &dyn Fn(&BlobHash) -> bool) -> BTreeMap<u32, Usage> {
        let index = self.reader.read();
        let packs = index.packs.iter();
        let mut usage: BTreeMap<u32, Usage> = packs
            .map(|(pack, held)| (*pack, Usage { bytes: held.bytes - FILE_HEADER as u64, live: 0 }))
            .collect();
        for (hash, place) in &index.places {
            if live(hash)
                && let Some(held) = usage.get_mut(&place.pack)
            {
                held.live += BLOB_HEADER as u64 + u64::from(place.len);
            }
        }
        usage
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    bytes: u64,
    live: u64,
}

impl Usage {
    fn dead(self) -> u64 {
        self.bytes.saturating_sub(self.live)
    }
}

fn open_pack(dir: &Path, number: u64, end: Option<u64>) -> Result<Pack, Fault> {
    let path = pack::path(dir, number);
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(Fault::io("open", &path))?;
    let len = pack::file_len(dir, number)?;
    let bytes = end.unwrap_or(len);
    if bytes < len {
        tracing::info!(path = %path.display(), from = len, to = bytes, "cut blobs that were never answered");
        file.set_len(bytes).and_then(|()| file.sync_all()).map_err(Fault::io("cut", &path))?;
    }
    Ok(Pack { file: Arc::new(file), bytes })
}

impl BlobReader {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, hash: &BlobHash) -> Result<Option<Bytes>, Fault> {
        let index = self.read();
        let Some(place) = index.places.get(hash).copied() else { return Ok(None) };
        let Some(file) = index.packs.get(&place.pack).map(|pack| pack.file.clone()) else {
            return Ok(None);
        };
        drop(index);
        let path = pack::path(&self.dir, u64::from(place.pack));
        pack::read_blob(&file, &path, self.seed, u64::from(place.offset), hash).map(Some)
    }
}

impl BlobSource for BlobReader {
    fn blob(&self, hash: &BlobHash) -> Result<Option<Bytes>, StoreError> {
        self.find(hash).map_err(|fault| fault.unreadable(&self.dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StoreId = [3; 16];

    fn blob(n: u32) -> (BlobHash, Bytes) {
        let bytes = Bytes::from(format!("#!/bin/sh\n# {n}\n").repeat(20));
        (BlobHash::of(&bytes), bytes)
    }

    fn open(dir: &Path, mark: (u64, u64)) -> Blobs {
        Blobs::open(dir, &ID, mark, 4096).unwrap()
    }

    fn filled(dir: &Path, count: u32) -> (Blobs, (u64, u64)) {
        create(dir, &ID).unwrap();
        let mut blobs = open(dir, (1, 0));
        for n in 0..count {
            blobs.append(&[blob(n), blob(n)]).unwrap();
        }
        let mark = blobs.mark();
        (blobs, mark)
    }

    #[test]
    fn blobs_are_stored_once_and_found_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (mut blobs, mark) = filled(dir.path(), 50);
        blobs.append(&[blob(3)]).unwrap();
        assert_eq!(blobs.mark(), mark);
        assert!(mark.0 > 2, "several packs");
        drop(blobs);
        let blobs = open(dir.path(), mark);
        for n in 0..50 {
            assert_eq!(blobs.reader().blob(&blob(n).0).unwrap(), Some(blob(n).1));
        }
        assert_eq!(blobs.reader().blob(&blob(99).0).unwrap(), None);
    }

    #[test]
    fn what_was_never_answered_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (mut blobs, mark) = filled(dir.path(), 2);
        for n in 2..30 {
            blobs.append(&[blob(n)]).unwrap();
        }
        drop(blobs);
        let blobs = open(dir.path(), mark);
        assert!(blobs.reader().blob(&blob(1).0).unwrap().is_some());
        assert!(blobs.reader().blob(&blob(2).0).unwrap().is_none());
        assert!(blobs.reader().blob(&blob(29).0).unwrap().is_none());
    }

    #[test]
    fn short_or_missing_pack_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, mark) = filled(dir.path(), 50);
        drop(blobs);
        assert!(Blobs::open(dir.path(), &ID, (mark.0, mark.1 + 1), 4096).is_err());
        std::fs::remove_file(pack::path(dir.path(), 2)).unwrap();
        let text = Blobs::open(dir.path(), &ID, mark, 4096).unwrap_err().to_string();
        assert!(text.contains("2.pack is missing"), "{text}");
    }

    #[test]
    fn sweep_drops_dead_packs_and_moves_the_few_that_live() {
        let dir = tempfile::tempdir().unwrap();
        let (mut blobs, _) = filled(dir.path(), 100);
        let keep: Vec<BlobHash> = (0..100).step_by(25).map(|n| blob(n).0).collect();
        let live = |hash: &BlobHash| keep.contains(hash);
        let mut freed = 0;
        loop {
            let emptied = blobs.begin_sweep(&live).unwrap();
            let sweep = blobs.finish_sweep(emptied).unwrap();
            freed += sweep.freed_bytes;
            if !sweep.more {
                break;
            }
        }
        assert!(freed > 20_000, "{freed}");
        let mark = blobs.mark();
        drop(blobs);
        let blobs = open(dir.path(), mark);
        for n in (0..100).step_by(25) {
            assert_eq!(blobs.reader().blob(&blob(n).0).unwrap(), Some(blob(n).1));
        }
        let packs = files::numbered(&pack::folder(dir.path()), pack::ENDING).unwrap();
        assert!(packs.len() <= 4, "{packs:?}");
    }
}
