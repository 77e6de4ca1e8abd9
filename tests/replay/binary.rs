//! How does a test run `penstock simulate` and read what it dumps?

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One line of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) job: String,
    pub(crate) submit: i64,
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) units: u64,
}

/// Runs `penstock simulate ARGS`.
pub(crate) fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_penstock")).arg("simulate").args(args).output().unwrap()
}

/// The same, which must succeed; what it printed.
pub(crate) fn printed(args: &[&str]) -> String {
    let output = simulate(args);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, which must fail; its words.
pub(crate) fn refused(args: &[&str]) -> String {
    let output = simulate(args);
    assert!(!output.status.success(), "{args:?} went well");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    String::from_utf8(output.stderr).unwrap()
}

/// A replay's dump, read.
pub(crate) fn dumped(trace: &Path, args: &[&str]) -> Vec<Line> {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let mut all = vec![trace.to_str().unwrap(), "--dump", dump.path().to_str().unwrap()];
    all.extend(args);
    printed(&all);
    let text = std::fs::read_to_string(dump.path()).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("job,submit,start,end,units"));
    lines.map(line).collect()
}

fn line(text: &str) -> Line {
    let fields: Vec<&str> = text.split(',').collect();
    let [job, submit, start, end, units] = fields[..] else { panic!("{text:?}") };
    let time = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    Line {
        job: job.to_owned(),
        submit: submit.parse().unwrap(),
        start: time(start),
        end: time(end),
        units: units.parse().unwrap(),
    }
}

/// A file with this content, gone when the test ends.
pub(crate) fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

/// The excerpt that lies beside the tests.
pub(crate) fn excerpt() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/replay/wagap-excerpt.swf")
}
