//! A full disk is a clear answer, costs nothing that was answered, and is over when there is space.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use penstock_controller::store::{
    Batch, EmbeddedStore, HistoryEntry, Key, Options, Store, StoreError,
};

const CHILD: &str = "PENSTOCK_TEST_FULL_DISK";

fn options() -> Options {
    Options {
        follow: false,
        segment_bytes: 4 << 20,
        redo_chunk_bytes: 64 << 10,
        pack_bytes: 4 << 20,
        history_bytes: 4 << 20,
        ..Options::default()
    }
}

fn batch(n: u32, with_blob: bool) -> Batch {
    let mut batch = Batch::default();
    batch.put(Key::of(1, &[n]), Bytes::from(vec![7; 3000]));
    if with_blob {
        batch.blob(Bytes::from(format!("script {n}").repeat(800)));
    }
    batch
}

fn count(store: &mut EmbeddedStore) -> u32 {
    let mut count = 0;
    store
        .load(&mut |_, _| {
            count += 1;
            Ok(())
        })
        .unwrap();
    count
}

/// Commits until the disk is full; returns how many were answered.
fn fill(dir: &Path, with_blob: bool) -> u32 {
    let mut store = EmbeddedStore::open(dir, &options()).unwrap();
    let term = store.acquire("full").unwrap();
    let mut answered = count(&mut store);
    let error = loop {
        match store.commit(term, &batch(answered, with_blob)) {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(&dir.display().to_string()), "names the file: {source}");
    let again = store.commit(term, &batch(answered, with_blob));
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "still full: {again:?}");
    assert_eq!(count(&mut store), answered);
    drop(store);
    let mut store = EmbeddedStore::open(dir, &options()).unwrap();
    assert_eq!(count(&mut store), answered, "after a restart on the full disk");
    answered
}

/// Appends to the history until the disk is full; returns how many lines were answered.
fn fill_history(dir: &Path) -> u32 {
    let store = EmbeddedStore::open(dir, &options()).unwrap();
    let line = |job| HistoryEntry {
        job,
        attempt: 1,
        uid: 1,
        end_ms: i64::from(job),
        body: Bytes::from(vec![1; 5000]),
    };
    let mut answered = 0;
    let error = loop {
        match store.history().append(&[line(answered)]) {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(store.history().len(), u64::from(answered));
    answered
}

/// Runs when the test below starts this program again with a limit on the size of files.
#[test]
fn in_a_child_with_small_files() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let records = fill(&dir.join("records"), false);
    let blobs = fill(&dir.join("blobs"), true);
    let lines = fill_history(&dir.join("history"));
    std::fs::write(dir.join("answered"), format!("{records} {blobs} {lines}")).unwrap();
}

#[test]
fn nothing_is_lost_when_files_may_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    // An ignored SIGXFSZ makes the write fail instead of ending the process.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" --exact in_a_child_with_small_files";
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new("sh");
    child.args(["-c", script]).arg(program).env(CHILD, dir.path());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let answered = std::fs::read_to_string(dir.path().join("answered")).unwrap();
    let answered: Vec<u32> = answered.split(' ').map(|part| part.parse().unwrap()).collect();
    assert!(answered.iter().all(|count| *count > 20), "{answered:?}");
    for (name, answered) in ["records", "blobs"].iter().zip(&answered) {
        let mut store = EmbeddedStore::open(&dir.path().join(name), &options()).unwrap();
        assert_eq!(count(&mut store), *answered);
        let term = store.acquire("space again").unwrap();
        store.commit(term, &batch(*answered, true)).unwrap();
    }
    let store = EmbeddedStore::open(&dir.path().join("history"), &options()).unwrap();
    assert_eq!(store.history().len(), u64::from(answered[2]));
}

/// Mounts 2 MiB on `place`, seen by this thread only.
fn mount_small(place: &Path) -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("size=2m"))
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn nothing_is_lost_on_a_full_disk_and_space_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path();
    if let Err(error) = mount_small(place) {
        println!("skipped: can't mount a small tmpfs: {error}");
        return;
    }
    let ballast = place.join("ballast");
    std::fs::write(&ballast, vec![0; 200 << 10]).unwrap();
    let ran = std::panic::catch_unwind(|| {
        let store = place.join("store");
        let answered = fill(&store, true);
        assert!(answered > 20, "{answered}");
        let mut open = EmbeddedStore::open(&store, &options()).unwrap();
        let term = open.acquire("full");
        assert!(term.is_ok() || matches!(term, Err(StoreError::Unavailable(_))), "{term:?}");
        let records = (0..answered).map(|n| (Key::of(1, &[n]), Bytes::from(vec![7; 3000])));
        let checkpoint = open.checkpoints().write(open.revision(), records);
        assert!(checkpoint.is_err(), "no space for a checkpoint");
        std::fs::remove_file(&ballast).unwrap();
        let term = open.acquire("space again").unwrap();
        open.commit(term, &batch(answered, true)).unwrap();
        drop(open);
        let mut open = EmbeddedStore::open(&store, &options()).unwrap();
        assert_eq!(count(&mut open), answered + 1);
    });
    umount2(place, MntFlags::MNT_DETACH).unwrap();
    ran.unwrap();
}
