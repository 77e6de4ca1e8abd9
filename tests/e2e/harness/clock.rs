//! How does a test set the wall clock of one process, while it runs?
//!
//! By a library that is loaded into the process before all others and answers for the wall clock
//! alone: CLOCK_MONOTONIC and CLOCK_BOOTTIME stay the kernel's. It is compiled here, by the compiler
//! that this workspace needs anyway, so that the test is skipped nowhere.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

/// The library: adds the number in a file, seconds, to the wall clock.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("TEST_CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    void *page = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED) abort();
    close(file);
    offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A wall clock that can be set.
#[derive(Debug)]
pub(crate) struct WallClock {
    folder: tempfile::TempDir,
    offset: File,
}

impl WallClock {
    /// One that is right so far.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pst-clock-").tempdir().expect("a folder");
        let source = folder.path().join("clock.c");
        fs::write(&source, SOURCE).expect("written");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(folder.path().join("clock.so"));
        let made = compiler.arg(&source).output().expect("a C compiler, as the build needs one");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut options = fs::OpenOptions::new();
        let offset = options.create(true).truncate(true).write(true);
        let offset = offset.open(folder.path().join("offset")).expect("new");
        let clock = Self { folder, offset };
        clock.set(0);
        clock
    }

    /// Sets it so many seconds ahead of the machine's.
    pub(crate) fn set(&self, ahead_secs: i64) {
        self.offset.write_all_at(&ahead_secs.to_ne_bytes(), 0).expect("written");
    }

    /// What a process must have in its environment to go by this clock.
    pub(super) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        let file = |name| self.folder.path().join(name);
        [("LD_PRELOAD", file("clock.so")), ("TEST_CLOCK_OFFSET", file("offset"))]
    }
}
