//! What every store promises, whatever keeps the bytes: one suite over all of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use penstock_controller::store::{
    Batch, BlobHash, CheckpointError, EmbeddedStore, HistoryEntry, HistoryQuery, Key,
    MAX_BLOB_BYTES, MemStore, Options, Revision, Store, StoreError, probe_sled,
};
use proptest::prelude::*;

type Records = BTreeMap<Key, Bytes>;

/// A store that can be closed and opened again.
trait Bench {
    fn reopen(self: Box<Self>) -> Box<dyn Bench>;
    fn store(&mut self) -> &mut dyn Store;
}

struct Memory(MemStore);

impl Bench for Memory {
    fn reopen(mut self: Box<Self>) -> Box<dyn Bench> {
        self.0.crash();
        self
    }
    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }
}

struct Disk {
    store: Option<EmbeddedStore>,
    dir: Arc<tempfile::TempDir>,
    options: Options,
}

impl Bench for Disk {
    fn reopen(mut self: Box<Self>) -> Box<dyn Bench> {
        drop(self.store.take());
        let store = EmbeddedStore::open(self.dir.path(), &self.options).unwrap();
        self.store = Some(store);
        self
    }
    fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut().unwrap()
    }
}

/// Small files, so that every kind of rotation happens.
fn small(follow: bool) -> Options {
    Options {
        follow,
        segment_bytes: 8 << 10,
        redo_chunk_bytes: 4 << 10,
        pack_bytes: 8 << 10,
        history_bytes: 4 << 10,
        sled_cache_bytes: 1 << 20,
        ..Options::default()
    }
}

fn disk(options: Options) -> Disk {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let store = EmbeddedStore::open(dir.path(), &options).unwrap();
    Disk { store: Some(store), dir, options }
}

fn all() -> Vec<(&'static str, Box<dyn Bench>)> {
    vec![
        ("memory", Box::new(Memory(MemStore::new()))),
        ("embedded", Box::new(disk(small(false)))),
        ("embedded with sled", Box::new(disk(small(true)))),
    ]
}

fn load(store: &mut dyn Store) -> (Revision, Vec<(Key, Bytes)>) {
    let mut records = Vec::new();
    let revision = store
        .load(&mut |key, value| {
            records.push((key, value));
            Ok(())
        })
        .unwrap();
    (revision, records)
}

fn batch(n: u32, records: u32) -> Batch {
    let mut batch = Batch::default();
    for id in 0..records {
        batch.put(Key::of(1, &[n, id]), Bytes::from(format!("value {n} {id}").repeat(5)));
    }
    batch
}

#[test]
fn what_was_committed_is_loaded_in_key_order_and_survives() {
    for (name, mut bench) in all() {
        let store = bench.store();
        let term = store.acquire("test").unwrap();
        let mut wanted = Records::new();
        for n in 0..60 {
            let mut batch = batch(n % 20, n % 5 + 1);
            if n % 3 == 0 {
                batch.delete(Key::of(1, &[(n + 7) % 20, 0]));
            }
            for change in &batch.changes {
                match change {
                    penstock_controller::store::Change::Put(key, value) => {
                        wanted.insert(key.clone(), value.clone());
                    }
                    penstock_controller::store::Change::Delete(key) => {
                        wanted.remove(key);
                    }
                }
            }
            assert_eq!(store.commit(term, &batch).unwrap(), Revision(u64::from(n) + 1), "{name}");
        }
        let wanted: Vec<(Key, Bytes)> = wanted.into_iter().collect();
        assert_eq!(load(store), (Revision(60), wanted.clone()), "{name}");
        let mut bench = bench.reopen();
        assert_eq!(load(bench.store()), (Revision(60), wanted.clone()), "{name}, again");
        assert_eq!(load(bench.store()), (Revision(60), wanted), "{name}, twice");
    }
}

#[test]
fn earlier_terms_are_refused_also_after_a_restart() {
    for (name, mut bench) in all() {
        let first = bench.store().acquire("one").unwrap();
        let second = bench.store().acquire("two").unwrap();
        assert!(second > first, "{name}");
        let refused = bench.store().commit(first, &batch(1, 1));
        assert!(matches!(refused, Err(StoreError::Deposed { term }) if term == first), "{name}");
        bench.store().commit(second, &batch(1, 1)).unwrap();
        let mut bench = bench.reopen();
        let refused = bench.store().commit(second, &batch(1, 1));
        assert!(matches!(refused, Err(StoreError::Deposed { .. })), "{name}, before the next");
        let third = bench.store().acquire("three").unwrap();
        assert!(third > second, "{name}");
        let refused = bench.store().commit(second, &batch(1, 1));
        assert!(matches!(refused, Err(StoreError::Deposed { .. })), "{name}");
        assert_eq!(load(bench.store()).0, Revision(1), "{name}");
    }
}

#[test]
fn a_batch_beyond_the_limits_is_refused_and_changes_nothing() {
    for (name, mut bench) in all() {
        let store = bench.store();
        let term = store.acquire("test").unwrap();
        let limits = store.limits();
        let mut many = Batch::default();
        for id in 0..=u32::try_from(limits.records).unwrap() {
            many.delete(Key::of(1, &[id]));
        }
        let mut long = Batch::default();
        let _ = long.blob(Bytes::from(vec![0; MAX_BLOB_BYTES + 1]));
        for refused in [many, long] {
            let refused = store.commit(term, &refused);
            assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{name}: {refused:?}");
        }
        assert_eq!(load(store), (Revision(0), Vec::new()), "{name}");
    }
}

#[test]
fn blobs_are_found_from_other_threads_and_swept_when_dead() {
    for (name, mut bench) in all() {
        let store = bench.store();
        let term = store.acquire("test").unwrap();
        let script = |n: u32| Bytes::from(format!("#!/bin/sh\necho {n}\n").repeat(30));
        let mut hashes = Vec::new();
        for n in 0..60 {
            let mut batch = batch(n, 1);
            hashes.push(batch.blob(script(n)));
            store.commit(term, &batch).unwrap();
        }
        let source = store.blobs();
        let hash = hashes[7];
        let read = std::thread::spawn(move || source.blob(&hash)).join().unwrap();
        assert_eq!(read.unwrap(), Some(script(7)), "{name}");
        let live: Vec<BlobHash> = hashes.iter().copied().step_by(10).collect();
        let mut freed = 0;
        loop {
            let sweep = store.retain_blobs(term, &|hash| live.contains(hash)).unwrap();
            freed += sweep.freed_bytes;
            if !sweep.more {
                break;
            }
        }
        assert!(freed > 10_000, "{name}: {freed}");
        let mut bench = bench.reopen();
        for (n, hash) in hashes.iter().enumerate().step_by(10) {
            let found = bench.store().blobs().blob(hash).unwrap();
            assert_eq!(found, Some(script(u32::try_from(n).unwrap())), "{name} {n}");
        }
        assert_eq!(bench.store().blobs().blob(&BlobHash::of(b"never")).unwrap(), None, "{name}");
    }
}

#[test]
fn checkpoints_free_the_redo_file_once_sled_is_past_too() {
    let mut disk = disk(small(true));
    let dir = disk.dir.clone();
    let store = disk.store.as_mut().unwrap();
    let term = store.acquire("test").unwrap();
    let segments = || std::fs::read_dir(dir.path().join("redo")).unwrap().count();
    let writer = store.checkpoints();
    let mut removed = 0;
    for round in 0..4 {
        for n in 0..100 {
            store.commit(term, &batch(n, 3)).unwrap();
        }
        assert!(store.redo_bytes_since_checkpoint() > 20_000);
        assert!(store.wait_for_sled(std::time::Duration::from_secs(60)), "sled follows");
        let before = segments();
        let (at, records) = load(store);
        let writer = writer.clone();
        let done = std::thread::spawn(move || writer.write(at, records.into_iter()));
        let done = done.join().unwrap().unwrap();
        assert_eq!(done.records, 300);
        assert_eq!(segments(), before - done.segments_removed);
        assert_eq!(done.segments_removed > 0, round > 0, "the older checkpoint keeps its redo");
        removed += done.segments_removed;
        assert_eq!(store.redo_bytes_since_checkpoint(), 0);
    }
    assert!(removed >= 4);
    assert_eq!(std::fs::read_dir(dir.path().join("checkpoint")).unwrap().count(), 2);
    let (at, records) = load(store);
    let early = writer.write(Revision(at.0 + 1), records.into_iter());
    assert!(matches!(early, Err(CheckpointError::Sequence { .. })));
    drop(writer);
    let mut bench: Box<dyn Bench> = Box::new(disk).reopen();
    assert_eq!(load(bench.store()).1.len(), 300);
}

#[test]
fn sled_is_made_anew_when_lost_stale_or_garbage() {
    let mut disk = disk(small(true));
    let dir: PathBuf = disk.dir.path().to_owned();
    let patience = std::time::Duration::from_secs(60);
    let store = disk.store.as_mut().unwrap();
    let term = store.acquire("test").unwrap();
    for n in 0..50 {
        store.commit(term, &batch(n, 3)).unwrap();
    }
    let (at, records) = load(store);
    store.checkpoints().write(at, records.clone().into_iter()).unwrap();
    for n in 0..5 {
        store.commit(term, &batch(n, 3)).unwrap();
    }
    drop(disk.store.take());
    let garbage = |name: &str| {
        std::fs::write(dir.join("sled").join(name), vec![0x5a; 600_000]).unwrap();
    };
    let spoil: [&dyn Fn(); 3] =
        [&|| std::fs::remove_dir_all(dir.join("sled")).unwrap(), &|| garbage("db"), &|| {
            garbage("conf")
        }];
    for spoil in spoil {
        spoil();
        let mut store = EmbeddedStore::open(&dir, &disk.options).unwrap();
        assert_eq!(load(&mut store).1, records);
        store.acquire("test").unwrap();
        assert!(store.wait_for_sled(patience), "{:?}", store.sled_status());
        assert_eq!(store.sled_status().1, Revision(55));
    }
}

#[test]
fn sled_is_never_further_behind_than_allowed() {
    let mut disk = disk(Options { max_behind_records: 50, ..small(true) });
    let store = disk.store.as_mut().unwrap();
    let term = store.acquire("test").unwrap();
    assert!(store.wait_for_sled(std::time::Duration::from_secs(60)));
    for n in 0..300 {
        let at = store.commit(term, &batch(n, 5)).unwrap();
        let behind = at.0 - store.sled_status().1.0;
        assert!(behind <= 50 / 5 + 1, "{behind} batches behind");
    }
}

#[test]
fn a_sled_that_fails_in_its_probe_is_set_aside() {
    let mut disk = disk(small(true));
    let dir: PathBuf = disk.dir.path().to_owned();
    let term = disk.store().acquire("test").unwrap();
    disk.store().commit(term, &batch(1, 5)).unwrap();
    drop(disk.store.take());
    probe_sled(&dir).unwrap();
    let fail = |_: &std::path::Path| Err("the process was killed".into());
    let options = Options { sled_probe: Some(Arc::new(fail)), ..small(true) };
    let store = EmbeddedStore::open(&dir, &options).unwrap();
    assert!(store.wait_for_sled(std::time::Duration::from_secs(60)));
    let mut names = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.any(|name| name.to_string_lossy().starts_with("sled.bad-")));
}

fn entry(n: u32) -> HistoryEntry {
    HistoryEntry {
        job: n,
        attempt: n % 3,
        uid: 1000 + n % 4,
        end_ms: i64::from(n / 2) * 1000,
        body: Bytes::from(format!("job {n} ended")),
    }
}

fn ask(store: &EmbeddedStore, query: &HistoryQuery) -> Vec<String> {
    let mut lines = Vec::new();
    let mut each = |body: Bytes| lines.push(String::from_utf8(body.to_vec()).unwrap());
    store.history().query(query, &mut each).unwrap();
    lines
}

#[test]
fn history_answers_by_time_id_and_user_and_takes_repeats() {
    let mut disk = disk(small(false));
    let dir = disk.dir.clone();
    let history = disk.store.as_ref().unwrap().history();
    let entries: Vec<HistoryEntry> = (0..500).map(entry).collect();
    for part in entries.chunks(7) {
        assert_eq!(history.append(part).unwrap(), part.len());
    }
    assert_eq!(history.append(&entries[100..200]).unwrap(), 0, "all are known");
    assert_eq!(history.append(&[entry(7), entry(501), entry(501)]).unwrap(), 1);
    drop(history);
    let check = |store: &EmbeddedStore| {
        assert_eq!(store.history().len(), 501);
        let wanted = |keep: &dyn Fn(&HistoryEntry) -> bool| -> Vec<String> {
            let all = (0..500).chain([501]).map(entry).filter(|entry| keep(entry));
            all.map(|entry| format!("job {} ended", entry.job)).collect()
        };
        let everything =
            HistoryQuery { from_ms: i64::MIN, to_ms: i64::MAX, ..HistoryQuery::default() };
        assert_eq!(ask(store, &everything), wanted(&|_| true));
        let day = HistoryQuery { uid: Some(1002), from_ms: 50_000, to_ms: 150_000, jobs: None };
        let in_day = |entry: &HistoryEntry| (50_000..=150_000).contains(&entry.end_ms);
        assert_eq!(ask(store, &day), wanted(&|entry| entry.uid == 1002 && in_day(entry)));
        let jobs = HistoryQuery { jobs: Some(vec![501, 3, 250]), ..everything };
        assert_eq!(ask(store, &jobs), ["job 3 ended", "job 250 ended", "job 501 ended"]);
    };
    check(disk.store.as_ref().unwrap());
    drop(disk.store.take());
    for entry in std::fs::read_dir(dir.path().join("history")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "hidx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let store = EmbeddedStore::open(dir.path(), &disk.options).unwrap();
    check(&store);
    let forgotten = store.history().forget_before(100_000).unwrap();
    assert!((100..=200).contains(&forgotten), "{forgotten}");
    drop(store);
    let store = EmbeddedStore::open(dir.path(), &disk.options).unwrap();
    assert_eq!(store.history().len(), 501 - forgotten);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_run_of_commits_checkpoints_and_restarts_equals_a_map(
        steps in prop::collection::vec((0u8..10, 0u32..12, 0u32..40), 1..60),
    ) {
        let mut bench = disk(small(false));
        let mut wanted = Records::new();
        let mut term = bench.store().acquire("test").unwrap();
        for (what, id, len) in steps {
            match what {
                0 => {
                    drop(bench.store.take());
                    bench.store = Some(EmbeddedStore::open(bench.dir.path(), &bench.options).unwrap());
                    term = bench.store().acquire("test").unwrap();
                }
                1 => {
                    let store = bench.store.as_mut().unwrap();
                    let (at, records) = load(store);
                    // Refused when nothing was committed since the last one.
                    drop(store.checkpoints().write(at, records.into_iter()));
                }
                2..4 => {
                    let mut batch = Batch::default();
                    batch.delete(Key::of(1, &[id]));
                    wanted.remove(&Key::of(1, &[id]));
                    bench.store().commit(term, &batch).unwrap();
                }
                _ => {
                    let mut batch = Batch::default();
                    let value = Bytes::from(vec![what; 20 * len as usize]);
                    batch.put(Key::of(1, &[id]), value.clone());
                    wanted.insert(Key::of(1, &[id]), value);
                    bench.store().commit(term, &batch).unwrap();
                }
            }
        }
        let found: Records = load(bench.store()).1.into_iter().collect();
        prop_assert_eq!(found, wanted);
    }
}
