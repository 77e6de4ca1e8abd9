//! Pulls the plug 1,000 times: whatever a disk may have kept, a store opens whole or says how to
//! restore it; it is never silently short.
//!
//! A workload runs on a real store. Around each step the directory is copied; what the step did to
//! the files is known in the order of its fsyncs. An image is the copy from before, a prefix of
//! these operations, and the next one half done: pages of 4 KiB kept or lost at random, lengths
//! cut, files that did not get their name yet. Then sled is replaced by one of another time, torn,
//! missing or garbage, and in some images a checkpoint or redo segment is spoiled on top.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use penstock_controller::store::{
    Batch, BlobHash, Change, EmbeddedStore, HistoryEntry, HistoryQuery, Key, OpenError, Options,
    Revision, Store, StoreError, Term,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const WORKLOADS: u64 = 20;
const STEPS: usize = 25;
const IMAGES_A_STEP: usize = 2;
/// Bytes that a new file has when it gets its name; what follows is appended later.
const NAMED_PACK: usize = 40;
const NAMED_SEGMENT: usize = 93;
const PAGE: usize = 4096;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What must be found.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    records: BTreeMap<Key, Bytes>,
    blobs: BTreeMap<BlobHash, Bytes>,
    history: BTreeMap<(i64, u32, u32), Bytes>,
    revision: u64,
}

/// One durable change of the directory.
#[derive(Debug)]
enum Op {
    /// A name appears or is replaced, with all its content.
    Name(PathBuf, Vec<u8>),
    /// Bytes of a file change in place.
    Write(PathBuf, Vec<u8>),
    Remove(PathBuf),
}

fn options(follow: bool) -> Options {
    Options {
        follow,
        segment_bytes: 6 << 10,
        redo_chunk_bytes: 8 << 10,
        pack_bytes: 3 << 10,
        history_bytes: 2 << 10,
        sled_cache_bytes: 1 << 20,
        lock_patience: Duration::ZERO,
        ..Options::default()
    }
}

struct World {
    rng: ChaCha8Rng,
    store: EmbeddedStore,
    term: Term,
    model: Model,
    next_job: u32,
}

impl World {
    fn bytes(&mut self, most: usize) -> Bytes {
        let len = self.rng.random_range(1..most);
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes[..]);
        bytes.into()
    }

    fn commit(&mut self) {
        let mut batch = Batch::default();
        for _ in 0..self.rng.random_range(1..8) {
            let key = Key::of(self.rng.random_range(1..3), &[self.rng.random_range(0..30)]);
            if self.rng.random_ratio(1, 5) {
                batch.delete(key);
            } else {
                let value = self.bytes(1200);
                batch.put(key, value);
            }
        }
        for _ in 0..self.rng.random_range(0..3) {
            let bytes = self.bytes(1500);
            batch.blob(bytes);
        }
        let at = self.store.commit(self.term, &batch).unwrap();
        self.model.revision = at.0;
        for change in batch.changes {
            match change {
                Change::Put(key, value) => self.model.records.insert(key, value),
                Change::Delete(key) => self.model.records.remove(&key),
            };
        }
        self.model.blobs.extend(batch.blobs);
    }

    fn history(&mut self) {
        let mut lines = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            self.next_job += 1;
            let end_ms = i64::from(self.next_job / 3);
            let body = self.bytes(300);
            lines.push(HistoryEntry { job: self.next_job, attempt: 1, uid: 7, end_ms, body });
        }
        self.store.history().append(&lines).unwrap();
        for line in lines {
            self.model.history.insert((line.end_ms, line.job, line.attempt), line.body);
        }
    }

    fn checkpoint(&mut self) {
        let records = self.model.records.clone().into_iter();
        // Refused when nothing was committed since the last one.
        drop(self.store.checkpoints().write(Revision(self.model.revision), records));
    }

    fn sweep(&mut self) {
        let dead: Vec<BlobHash> =
            self.model.blobs.keys().copied().filter(|_| self.rng.random_ratio(3, 4)).collect();
        let live = |hash: &BlobHash| !dead.contains(hash);
        self.store.retain_blobs(self.term, &live).unwrap();
        self.model.blobs.retain(|hash, _| live(hash));
        self.model.revision = self.store.revision().0;
    }

    fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..11 => self.commit(),
            11..15 => self.history(),
            15..18 => self.checkpoint(),
            _ => self.sweep(),
        }
    }
}

fn read_dir(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn write_dir(dir: &Path, files: &Files) {
    for part in ["redo", "checkpoint", "blobs", "history"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    for (path, content) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Takes the files below `sled` out of `files`.
fn split_sled(files: Files) -> (Files, Files) {
    files.into_iter().partition(|(path, _)| !path.starts_with("sled"))
}

/// What a step did, in the order in which it became durable.
fn operations(before: &Files, after: &Files) -> Vec<Op> {
    let mut ranked: Vec<(u32, Op)> = Vec::new();
    let rotated = after.keys().any(|path| path.starts_with("redo") && !before.contains_key(path));
    for (path, content) in after {
        let old = before.get(path);
        if old == Some(content) {
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("");
        let named = match ending {
            "pack" | "hist" => NAMED_PACK,
            "redo" => NAMED_SEGMENT,
            _ => content.len(),
        };
        let (name, write) = match (path.parent().unwrap().to_str().unwrap(), ending, old.is_some())
        {
            ("blobs", "pack", true) => (0, 0),
            ("blobs", "pack", false) => (1, 3),
            ("history", "hidx", _) => (4, 4),
            ("history", "hist", false) => (5, 7),
            ("history", "hist", true) => (7, 7),
            ("redo", _, false) => (10, 12),
            ("redo", _, true) if rotated => (11, 11),
            ("redo", _, true) => (12, 12),
            ("checkpoint", ..) => (13, 13),
            (folder, ..) => (if folder == "history" { 6 } else { 14 }, 14),
        };
        if path == Path::new("blobs/files") {
            ranked.push((2, Op::Name(path.clone(), both_lists(&before[path], content))));
        }
        if old.is_none() || named == content.len() {
            ranked.push((name, Op::Name(path.clone(), content[..named].to_vec())));
        }
        if named < content.len() {
            ranked.push((write, Op::Write(path.clone(), content.clone())));
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        let rank = if path.starts_with("checkpoint") { 15 } else { 16 };
        ranked.push((rank, Op::Remove(path.clone())));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, op)| op).collect()
}

/// The list while new packs are on it and old ones are still.
fn both_lists(before: &[u8], after: &[u8]) -> Vec<u8> {
    let numbers = |list: &[u8]| -> Vec<u64> {
        let text = String::from_utf8(list.to_vec()).unwrap();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let mut all = numbers(before);
    all.extend(numbers(after));
    all.sort_unstable();
    all.dedup();
    let body: String = all.iter().map(|number| format!("{number}\n")).collect();
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes())).into_bytes()
}

fn apply(files: &mut Files, op: &Op) {
    match op {
        Op::Name(path, content) | Op::Write(path, content) => {
            files.insert(path.clone(), content.clone());
        }
        Op::Remove(path) => {
            files.remove(path);
        }
    }
}

/// Does `op` by half.
fn tear(files: &mut Files, op: &Op, rng: &mut ChaCha8Rng) {
    match op {
        Op::Name(path, content) => {
            if rng.random() {
                let mut name = path.clone().into_os_string();
                name.push(".tmp");
                let cut = rng.random_range(0..=content.len());
                files.insert(name.into(), content[..cut].to_vec());
            }
        }
        Op::Write(path, content) => {
            let old = files.get(path).cloned().unwrap_or_default();
            files.insert(path.clone(), mix(&old, content, rng));
        }
        Op::Remove(_) => {}
    }
}

/// `new` with some pages as in `old`, or cut anywhere that `old` did not reach.
fn mix(old: &[u8], new: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut mixed = new.to_vec();
    let kept = rng.random_range(0..=4);
    for (at, page) in mixed.chunks_mut(PAGE).enumerate() {
        if rng.random_range(0..4) >= kept {
            for (offset, byte) in page.iter_mut().enumerate() {
                *byte = old.get(at * PAGE + offset).copied().unwrap_or(0);
            }
        }
    }
    if new.len() > old.len() && rng.random() {
        mixed.truncate(rng.random_range(old.len()..=new.len()));
    }
    mixed
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Spoiled {
    Nothing,
    CheckpointMissing,
    CheckpointCut,
    SegmentMissing,
    SegmentFlipped,
}

fn spoil(files: &mut Files, rng: &mut ChaCha8Rng) -> Spoiled {
    let of = |files: &Files, part: &str, ending: &str| -> Vec<PathBuf> {
        let fits = |path: &&PathBuf| {
            path.starts_with(part) && path.extension().is_some_and(|found| found == ending)
        };
        files.keys().filter(fits).cloned().collect()
    };
    let checkpoint = of(files, "checkpoint", "ckpt").pop();
    let segments = of(files, "redo", "redo");
    match (rng.random_range(0..12), checkpoint) {
        (0, Some(path)) => {
            files.remove(&path);
            Spoiled::CheckpointMissing
        }
        (1, Some(path)) => {
            let content = files.get_mut(&path).unwrap();
            content.truncate(rng.random_range(0..content.len()));
            Spoiled::CheckpointCut
        }
        (2, _) => {
            files.remove(&segments[rng.random_range(0..segments.len())]);
            Spoiled::SegmentMissing
        }
        (3, _) => {
            let content = files.get_mut(&segments[rng.random_range(0..segments.len())]).unwrap();
            let at = rng.random_range(0..content.len());
            content[at] ^= 1 << rng.random_range(0..8);
            Spoiled::SegmentFlipped
        }
        _ => Spoiled::Nothing,
    }
}

/// Puts a sled of some time into the image.
fn add_sled(
    files: &mut Files,
    sleds: &[Files],
    complete: bool,
    rng: &mut ChaCha8Rng,
) -> &'static str {
    let (newest, earlier) = sleds.split_last().unwrap();
    let before = earlier.last().unwrap_or(newest);
    let (sled, name) = match rng.random_range(0..6) {
        0 => return "missing",
        1 => (earlier.first().unwrap_or(newest).clone(), "stale"),
        2 => {
            let mut garbage = before.clone();
            let content = garbage.values_mut().max_by_key(|content| content.len());
            for byte in content.into_iter().flatten().step_by(97) {
                *byte = rng.random();
            }
            (garbage, "garbage")
        }
        3 if complete => (newest.clone(), "newest"),
        4 if complete => {
            let mix_one = |(path, new): (&PathBuf, &Vec<u8>)| {
                let old = before.get(path).map_or(&[][..], Vec::as_slice);
                (path.clone(), mix(old, new, rng))
            };
            (newest.iter().map(mix_one).collect(), "torn")
        }
        _ => (before.clone(), "of before"),
    };
    files.extend(sled);
    name
}

/// What a store holds.
fn found_in(store: &mut EmbeddedStore, wanted: &Model) -> Result<Model, StoreError> {
    let mut found = Model::default();
    let at = store.load(&mut |key, value| {
        found.records.insert(key, value);
        Ok(())
    })?;
    found.revision = at.0;
    for hash in wanted.blobs.keys() {
        if let Some(bytes) = store.blobs().blob(hash)? {
            found.blobs.insert(*hash, bytes);
        }
    }
    let everything = HistoryQuery { from_ms: i64::MIN, to_ms: i64::MAX, ..HistoryQuery::default() };
    let mut bodies = Vec::new();
    store.history().query(&everything, &mut |body| bodies.push(body))?;
    for (key, body) in &wanted.history {
        if bodies.contains(body) {
            found.history.insert(*key, body.clone());
        }
    }
    Ok(found)
}

/// Checks that `found` is the state before or after the step, whole.
fn check(found: &Model, before: &Model, after: &Model, complete: bool, what: &str) {
    let is = |model: &Model| found.records == model.records && found.revision == model.revision;
    assert!(is(after) || (!complete && is(before)), "{what}: neither before nor after");
    let answered = if complete { after } else { before };
    for (hash, bytes) in answered.blobs.iter().filter(|(hash, _)| after.blobs.contains_key(*hash)) {
        assert_eq!(found.blobs.get(hash), Some(bytes), "{what}: blob {hash}");
    }
    for (key, body) in &answered.history {
        assert_eq!(found.history.get(key), Some(body), "{what}: line {key:?}");
    }
}

#[derive(Default, Debug)]
struct Tally {
    images: usize,
    whole: usize,
    refused: usize,
    with_sled: usize,
}

struct Around<'a> {
    before: &'a Model,
    after: &'a Model,
    complete: bool,
    follow: bool,
}

fn open_and_check(dir: &Path, around: &Around<'_>, spoiled: Spoiled, what: &str) -> bool {
    let opened = EmbeddedStore::open(dir, &options(around.follow));
    let refused = |text: String| {
        assert_ne!(spoiled, Spoiled::Nothing, "{what}: refused without a reason: {text}");
        assert!(text.contains("penstock store rebuild"), "{what}: no way out in: {text}");
        false
    };
    let mut store = match opened {
        Ok(store) => store,
        Err(error @ OpenError::Corrupt { .. }) => return refused(error.to_string()),
        Err(error) => panic!("{what}: {error}"),
    };
    let term = match store.acquire("image") {
        Ok(term) => term,
        Err(error @ StoreError::Corrupt { .. }) => return refused(error.to_string()),
        Err(error) => panic!("{what}: {error}"),
    };
    let found = found_in(&mut store, around.after).unwrap();
    // A flipped bit in the last frame can't be told from a torn write.
    if spoiled != Spoiled::SegmentFlipped {
        check(&found, around.before, around.after, around.complete, what);
    }
    let mut batch = Batch::default();
    batch.put(Key::of(9, &[9]), Bytes::from_static(b"after"));
    batch.blob(Bytes::from_static(b"a blob of after"));
    store.commit(term, &batch).unwrap();
    if around.follow {
        assert!(store.wait_for_sled(Duration::from_secs(60)), "{what}: {:?}", store.sled_status());
    }
    drop(store);
    let mut store = EmbeddedStore::open(dir, &options(false)).unwrap();
    let again = found_in(&mut store, around.after).unwrap();
    assert_eq!(again.records.len(), found.records.len() + 1, "{what}, again");
    assert_eq!(again.history, found.history, "{what}, again");
    true
}

fn run(seed: u64, tally: &mut Tally) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(dir.path(), &options(true)).unwrap();
    let term = store.acquire("workload").unwrap();
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World { rng, store, term, model: Model::default(), next_job: 0 };
    let look = |world: &World| {
        assert!(world.store.wait_for_sled(Duration::from_secs(60)), "sled follows");
        split_sled(read_dir(dir.path()))
    };
    let (mut files, sled) = look(&world);
    let mut sleds = vec![sled];
    for step in 0..STEPS {
        let before = world.model.clone();
        world.step();
        let (after_files, sled) = look(&world);
        sleds.push(sled);
        let ops = operations(&files, &after_files);
        for image in 0..IMAGES_A_STEP {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ ((step * 7 + image) as u64) << 32);
            let done = rng.random_range(0..=ops.len());
            let mut torn = files.clone();
            ops[..done].iter().for_each(|op| apply(&mut torn, op));
            if let Some(op) = ops.get(done) {
                tear(&mut torn, op, &mut rng);
            }
            let spoiled = spoil(&mut torn, &mut rng);
            let follow = image == 0;
            let complete = done == ops.len();
            let sled = add_sled(&mut torn, &sleds, complete, &mut rng);
            let what = format!(
                "PENSTOCK_SEED={seed} step {step} image {image}: {done} of {} operations, sled \
                 {sled}, spoiled {spoiled:?}, next {:?}",
                ops.len(),
                ops.get(done).map(|op| match op {
                    Op::Name(path, _) | Op::Write(path, _) | Op::Remove(path) => path,
                })
            );
            let place = tempfile::tempdir().unwrap();
            write_dir(place.path(), &torn);
            let around = Around { before: &before, after: &world.model, complete, follow };
            let whole = open_and_check(place.path(), &around, spoiled, &what);
            tally.images += 1;
            tally.with_sled += usize::from(follow);
            *(if whole { &mut tally.whole } else { &mut tally.refused }) += 1;
        }
        files = after_files;
    }
}

#[test]
fn every_torn_image_is_whole_or_says_how_to_restore_it() {
    let mut tally = Tally::default();
    match std::env::var("PENSTOCK_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => run(seed, &mut tally),
        None => {
            (0..WORKLOADS).for_each(|seed| run(seed, &mut tally));
            assert_eq!(tally.images, 1000);
            assert!(tally.refused > 30, "spoiled images are refused: {tally:?}");
            assert!(tally.whole > 750, "torn ones are not: {tally:?}");
        }
    }
}
