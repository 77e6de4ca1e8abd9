//! When a store must not start it says so, says how to restore, and changes nothing; and the
//! command that it names helps.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use penstock_controller::store::{
    Batch, EmbeddedStore, HistoryEntry, HistoryQuery, Key, OpenError, Options, Revision, Store,
    StoreError, check, export, rebuild,
};

/// Content of files; `None` is a folder.
type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn options(follow: bool) -> Options {
    Options {
        follow,
        segment_bytes: 6 << 10,
        redo_chunk_bytes: 4 << 10,
        pack_bytes: 8 << 10,
        history_bytes: 2 << 10,
        sled_cache_bytes: 1 << 20,
        lock_patience: Duration::ZERO,
        ..Options::default()
    }
}

fn read_dir(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.insert(path.clone(), None);
                folders.push(path);
            } else {
                files.insert(path.clone(), Some(fs::read(&path).unwrap()));
            }
        }
    }
    files
}

/// Puts back what `files` says, and nothing else.
fn restore_dir(dir: &Path, files: &Files) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.unwrap();
    }
    for (path, content) in files {
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::create_dir(path).unwrap(),
        }
    }
}

fn lines(from: u32, to: u32) -> Vec<HistoryEntry> {
    let line = |job| HistoryEntry {
        job,
        attempt: 1,
        uid: 5,
        end_ms: i64::from(job),
        body: Bytes::from(format!("job {job} {}", "x".repeat(100))),
    };
    (from..to).map(line).collect()
}

/// A store with two checkpoints, several redo segments, blobs and 60 history lines, closed.
fn filled(follow: bool) -> (tempfile::TempDir, BTreeMap<Key, Bytes>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = EmbeddedStore::open(dir.path(), &options(follow)).unwrap();
    let term = store.acquire("test").unwrap();
    let mut records = BTreeMap::new();
    for n in 0..90_u32 {
        let mut batch = Batch::default();
        let (key, value) = (Key::of(1, &[n % 40]), Bytes::from(format!("value {n}").repeat(20)));
        records.insert(key.clone(), value.clone());
        batch.put(key, value);
        batch.blob(Bytes::from(format!("script {n}").repeat(20)));
        store.commit(term, &batch).unwrap();
        if n == 30 || n == 60 {
            // Segments go only where sled is past them too.
            assert!(!follow || store.wait_for_sled(Duration::from_secs(60)));
            let at = store.revision();
            store.checkpoints().write(at, records.clone().into_iter()).unwrap();
        }
    }
    for part in lines(0, 60).chunks(5) {
        store.history().append(part).unwrap();
    }
    if follow {
        assert!(store.wait_for_sled(Duration::from_secs(60)));
    }
    (dir, records)
}

fn load(store: &mut EmbeddedStore) -> BTreeMap<Key, Bytes> {
    let mut records = BTreeMap::new();
    store
        .load(&mut |key, value| {
            records.insert(key, value);
            Ok(())
        })
        .unwrap();
    records
}

fn count_lines(store: &EmbeddedStore) -> usize {
    let query = HistoryQuery { from_ms: i64::MIN, to_ms: i64::MAX, ..HistoryQuery::default() };
    let mut count = 0;
    store.history().query(&query, &mut |_| count += 1).unwrap();
    count
}

fn newest(dir: &Path, part: &str, ending: &str) -> PathBuf {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir.join(part)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    paths.pop().unwrap()
}

fn oldest(dir: &Path, part: &str, ending: &str) -> PathBuf {
    let folder = dir.join(part);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == ending)).min().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn refused(dir: &Path) -> String {
    match EmbeddedStore::open(dir, &options(false)) {
        Ok(_) => panic!("must be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_newer_format_is_refused_and_not_one_byte_is_touched() {
    let (dir, _) = filled(true);
    let guard = dir.path().join("guard");
    let newer =
        fs::read_to_string(&guard).unwrap().replacen("penstock-store 1", "penstock-store 2", 1);
    fs::write(&guard, newer).unwrap();
    let before = read_dir(dir.path());
    let open = EmbeddedStore::open(dir.path(), &options(true));
    assert!(matches!(open, Err(OpenError::NewerFormat { found: 2, known: 1, .. })));
    assert!(matches!(check(dir.path()), Err(OpenError::NewerFormat { .. })));
    assert!(matches!(rebuild(dir.path()), Err(OpenError::NewerFormat { .. })));
    assert_eq!(read_dir(dir.path()), before);
}

#[test]
fn a_store_that_lost_a_part_is_refused_untouched_and_never_starts_empty() {
    let (dir, _) = filled(false);
    let dir = dir.path();
    let whole = read_dir(dir);
    let lose = |path: PathBuf| {
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    };
    let cases: [(&str, &dyn Fn()); 12] = [
        ("guard is missing", &|| lose(dir.join("guard"))),
        ("guard is cut or damaged", &|| fs::write(dir.join("guard"), b"").unwrap()),
        ("redo", &|| lose(dir.join("redo"))),
        ("no redo segment", &|| {
            lose(dir.join("redo"));
            fs::create_dir(dir.join("redo")).unwrap();
        }),
        ("is missing", &|| lose(newest(dir, "redo", "redo"))),
        ("a gap", &|| {
            lose(newest(dir, "checkpoint", "ckpt"));
            lose(newest(dir, "checkpoint", "ckpt"));
        }),
        ("checkpoint", &|| lose(dir.join("checkpoint"))),
        ("blobs", &|| lose(dir.join("blobs"))),
        ("pack is missing", &|| lose(oldest(dir, "blobs", "pack"))),
        ("hist is missing", &|| lose(oldest(dir, "history", "hist"))),
        ("history", &|| lose(dir.join("history"))),
        ("a good frame", &|| flip(&newest(dir, "redo", "redo"), 120)),
    ];
    for (text, lose) in cases {
        restore_dir(dir, &whole);
        lose();
        let before = read_dir(dir);
        let error = refused(dir);
        assert!(error.contains(text), "{text}: {error}");
        assert_eq!(read_dir(dir), before, "{text}");
    }
    restore_dir(dir, &whole);
    assert_eq!(count_lines(&EmbeddedStore::open(dir, &options(false)).unwrap()), 60);
}

#[test]
fn a_directory_without_a_store_is_only_made_one_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let absent = Options { create: false, ..options(false) };
    for path in [dir.path().to_owned(), dir.path().join("absent")] {
        let open = EmbeddedStore::open(&path, &absent);
        assert!(matches!(open, Err(OpenError::Missing { .. })));
    }
    assert_eq!(read_dir(dir.path()), Files::new());
}

#[test]
fn two_processes_never_have_the_store() {
    let (dir, _) = filled(false);
    let store = EmbeddedStore::open(dir.path(), &options(false)).unwrap();
    let history = store.history();
    assert!(matches!(
        EmbeddedStore::open(dir.path(), &options(false)),
        Err(OpenError::InUse { .. })
    ));
    assert!(matches!(check(dir.path()), Err(OpenError::InUse { .. })));
    drop(store);
    assert!(matches!(rebuild(dir.path()), Err(OpenError::InUse { .. })), "history may be appended");
    drop(history);
    assert!(check(dir.path()).unwrap().is_whole());
}

#[test]
fn a_store_older_than_its_sled_is_refused_and_rebuilt_from_it() {
    let (dir, _) = filled(true);
    let dir = dir.path();
    let older: Files =
        read_dir(dir).into_iter().filter(|(path, _)| !path.starts_with(dir.join("sled"))).collect();
    let mut store = EmbeddedStore::open(dir, &options(true)).unwrap();
    let term = store.acquire("test").unwrap();
    let mut batch = Batch::default();
    batch.put(Key::of(7, &[7]), Bytes::from_static(b"newer"));
    store.commit(term, &batch).unwrap();
    assert!(store.wait_for_sled(Duration::from_secs(60)));
    let records = load(&mut store);
    drop(store);
    // Somebody puts older files back and leaves sled.
    for (path, content) in older {
        content.map_or(Ok(()), |content| fs::write(path, content)).unwrap();
    }
    let mut store = EmbeddedStore::open(dir, &options(true)).unwrap();
    let refused = store.acquire("test").unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("penstock store rebuild"), "{refused}");
    drop(store);
    let rebuilt = rebuild(dir).unwrap().to_string();
    assert!(rebuilt.contains("from sled"), "{rebuilt}");
    let mut store = EmbeddedStore::open(dir, &options(true)).unwrap();
    store.acquire("test").unwrap();
    assert_eq!(load(&mut store), records);
}

#[test]
fn rebuild_restores_what_the_other_parts_still_hold() {
    let (dir, records) = filled(true);
    let dir = dir.path();
    let whole = read_dir(dir);
    let cases: [(&str, &dyn Fn(), usize); 6] = [
        ("guard", &|| fs::remove_file(dir.join("guard")).unwrap(), 60),
        ("checkpoint", &|| flip(&newest(dir, "checkpoint", "ckpt"), 500), 60),
        (
            "from sled",
            &|| {
                flip(&newest(dir, "checkpoint", "ckpt"), 500);
                flip(&oldest(dir, "checkpoint", "ckpt"), 500);
            },
            60,
        ),
        ("list", &|| fs::remove_file(dir.join("history/files")).unwrap(), 60),
        ("good lines", &|| flip(&oldest(dir, "history", "hist"), 200), 55),
        ("whole at batch 90", &|| fs::remove_file(oldest(dir, "history", "hidx")).unwrap(), 60),
    ];
    for (text, spoil, lines) in cases {
        restore_dir(dir, &whole);
        spoil();
        let problems = check(dir).map(|report| report.problems);
        assert!(problems.is_err() || problems.is_ok_and(|found| !found.is_empty()), "{text}");
        let rebuilt = rebuild(dir).unwrap().to_string();
        assert!(rebuilt.contains(text), "{text}: {rebuilt}");
        let report = check(dir).unwrap();
        assert!(report.is_whole(), "{text}: {report}");
        let mut store = EmbeddedStore::open(dir, &options(true)).unwrap();
        store.acquire("test").unwrap();
        assert_eq!(load(&mut store), records, "{text}");
        assert_eq!(store.revision(), Revision(90), "{text}");
        assert_eq!(count_lines(&store), lines, "{text}");
    }
}

#[test]
fn rebuild_says_what_it_cannot_restore_and_leaves_it() {
    let (dir, _) = filled(false);
    let dir = dir.path();
    fs::remove_file(oldest(dir, "blobs", "pack")).unwrap();
    let error = rebuild(dir).unwrap_err().to_string();
    assert!(error.contains("pack is missing") && error.contains("backup"), "{error}");
    let report = check(dir).unwrap().to_string();
    assert!(report.contains("pack is missing"), "{report}");
}

#[test]
fn export_writes_one_line_a_record_and_changes_nothing() {
    let (dir, records) = filled(false);
    let before = read_dir(dir.path());
    let mut out = Vec::new();
    let decode = |key: &Key, value: &[u8]| format!("{key:?} {}", value.len());
    assert_eq!(export(dir.path(), &mut out, &decode).unwrap(), records.len() as u64);
    let wanted: String =
        records.iter().map(|(key, value)| format!("{key:?} {}\n", value.len())).collect();
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
    let report = check(dir.path()).unwrap().to_string();
    for fact in ["40 live at batch 90", "blobs: 90", "history: 60 lines", "whole"] {
        assert!(report.contains(fact), "{fact}: {report}");
    }
    assert_eq!(read_dir(dir.path()), before);
}
