//! How does a file become records, whatever its format?
//!
//! A line that is not understood is skipped and counted; a file of which no line is understood is
//! refused. Files may be gzip'd; that is seen from their first bytes, not from their name.

mod alcf;
mod csv;
mod history;
mod nodes;
mod number;
mod philly;
mod pods;
mod swf;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use flate2::read::MultiGzDecoder;

use super::job::Raw;

pub(super) use history::read_history;
pub(super) use nodes::{NodeLine, is_node_list, read_nodes};

/// Largest trace, unpacked: beyond it is a mistake, or a trace to be cut first.
const MAX_BYTES: u64 = 2 << 30;

/// Lines that are looked at to tell a format.
const GUESS_LINES: usize = 200;

/// How a trace is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Standard Workload Format, 18 columns
    Swf,
    /// ALCF's variant of it: 5 is nodes, 6 the requested time
    Alcf,
    /// Philly's CSV: timestamp,duration,num_gpus,gpu_time,cluster
    Philly,
    /// A list of pods as CSV: name, cpu, memory, gpu, gpu_milli, spec
    Pods,
}

impl Format {
    /// The word that `--format` takes.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Swf => "swf",
            Self::Alcf => "alcf",
            Self::Philly => "philly",
            Self::Pods => "pods",
        }
    }
}

/// Why a trace, a node list or an accounting can't be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The file can't be read, or unpacked.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Too large.
    #[error("{} has more than {} MiB when unpacked; cut it, the first lines may do", path.display(), MAX_BYTES >> 20)]
    TooLarge { path: PathBuf },
    /// No format fits.
    #[error(
        "{}: its format is not recognised; name it by --format swf, alcf, philly or pods",
        path.display()
    )]
    Unknown { path: PathBuf },
    /// A CSV without a column that it must have.
    #[error("{}: a {what} needs the column {column}; its header is {header:?}", path.display())]
    Column { path: PathBuf, what: &'static str, column: &'static str, header: String },
    /// Nothing in it is a record.
    #[error("{}: no line is a job; {why}", path.display())]
    Empty { path: PathBuf, why: String },
    /// The controller did not answer.
    #[error("the accounting cannot be read: {0}")]
    Accounting(String),
}

/// A trace that was read.
pub(super) struct Trace {
    pub(super) format: Format,
    /// The format was told from the content.
    pub(super) guessed: bool,
    pub(super) raw: Raw,
}

/// Reads the trace at `path`, in the format that it is said or seen to have.
///
/// # Errors
/// If it can't be read, or no line of it is a record.
pub(super) fn read_trace(path: &Path, format: Option<Format>) -> Result<Trace, ReadError> {
    let text = text_of(path)?;
    let guessed = format.is_none();
    let format = match format.or_else(|| guess(&text)) {
        Some(format) => format,
        None => return Err(ReadError::Unknown { path: path.to_owned() }),
    };
    let raw = match format {
        Format::Swf => columns(&text, swf::record),
        Format::Alcf => columns(&text, alcf::record),
        Format::Philly => philly::read(path, &text)?,
        Format::Pods => pods::read(path, &text)?,
    };
    if raw.records.is_empty() {
        let why = match &raw.first_broken {
            Some((line, why)) => format!("line {line}: {why} (read as {})", format.word()),
            None => "it has only comments".to_owned(),
        };
        return Err(ReadError::Empty { path: path.to_owned(), why });
    }
    Ok(Trace { format, guessed, raw })
}

/// The text of a file, unpacked if it is gzip'd. Letters that are no UTF-8 are replaced: they stand
/// in comments.
fn text_of(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let mut packed = Vec::new();
    let mut open = File::open(path).map_err(failed)?.take(MAX_BYTES + 1);
    open.read_to_end(&mut packed).map_err(failed)?;
    let bytes = if packed.starts_with(&[0x1f, 0x8b]) {
        let mut bytes = Vec::new();
        let mut decoder = MultiGzDecoder::new(packed.as_slice()).take(MAX_BYTES + 1);
        decoder.read_to_end(&mut bytes).map_err(failed)?;
        bytes
    } else {
        packed
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// The format that the content has.
fn guess(text: &str) -> Option<Format> {
    let mut lines = data_lines(text).map(|(_, line)| line).take(GUESS_LINES).peekable();
    let first = *lines.peek()?;
    if philly::is_header(first) {
        return Some(Format::Philly);
    }
    if pods::is_header(first) {
        return Some(Format::Pods);
    }
    let rows: Vec<Vec<&str>> = lines
        .map(|line| line.split_ascii_whitespace().collect())
        .filter(|row: &Vec<&str>| row.len() >= swf::COLUMNS)
        .collect();
    if rows.is_empty() || !rows.iter().any(|row| number::whole(row[1]).is_ok()) {
        return None;
    }
    let alcf = rows.iter().all(|row| alcf::looks_like(row));
    Some(if alcf { Format::Alcf } else { Format::Swf })
}

/// Lines that are neither empty nor comments, with their numbers from 1.
fn data_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with([';', '#']))
}

/// Reads a text of columns, one record a line.
fn columns(
    text: &str,
    record: impl Fn(usize, &[&str]) -> Result<super::job::Record, String>,
) -> Raw {
    let mut raw = Raw::default();
    for (line, text) in data_lines(text) {
        let row: Vec<&str> = text.split_ascii_whitespace().collect();
        match record(line, &row) {
            Ok(record) => raw.records.push(record),
            Err(why) => raw.skip(line, why),
        }
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWF: &str = "; Version: 2.2\n1 0 5 10 4 9.5 -1 4 60 -1 1 3 7 1 1 -1 -1 -1\n";
    const LISTS: &str = "1 0 5 10 2 1 1024 2 60 -1 1 3 7 1 -1 1 1 1 {4,4} q_1d 1:ppn=2\n";
    const ALCF: &str =
        "9\t1672529301\t71\t3632\t8\t3600\t-1\t-1\t-1\t-1\t-1\t0\t-1\t-1\t-1\t-1\t-1\t-1\n";
    const PHILLY: &str =
        "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,66.0,1,66.0,11cb48\n";
    const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np1,1000,2,1,500,\n";

    #[test]
    fn formats_are_told_from_their_content() {
        for (text, expect) in [
            (SWF, Some(Format::Swf)),
            (LISTS, Some(Format::Swf)),
            (ALCF, Some(Format::Alcf)),
            (PHILLY, Some(Format::Philly)),
            (PODS, Some(Format::Pods)),
            ("", None),
            ("; only\n; comments\n", None),
            ("a,b,c\n1,2,3\n", None),
            ("dear diary\n", None),
        ] {
            assert_eq!(guess(text), expect, "{text:?}");
        }
    }

    #[test]
    fn gzip_is_seen_from_the_content_and_a_broken_one_is_an_error() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("trace");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(SWF.as_bytes()).expect("in memory");
        let packed = packed.finish().expect("in memory");
        std::fs::write(&path, &packed).expect("written");
        let trace = read_trace(&path, None).expect("a trace");
        assert_eq!((trace.format, trace.guessed), (Format::Swf, true));
        assert_eq!(trace.raw.records.len(), 1);
        std::fs::write(&path, &packed[..packed.len() / 2]).expect("written");
        assert!(matches!(read_trace(&path, None), Err(ReadError::Read { .. })));
    }

    #[test]
    fn file_without_a_record_is_refused_and_says_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("trace");
        std::fs::write(&path, "1 2 3\n").expect("written");
        let Err(error) = read_trace(&path, Some(Format::Swf)) else { panic!("it was read") };
        let error = error.to_string();
        assert!(error.contains("line 1: has 3 columns of 18 (read as swf)"), "{error}");
        assert!(matches!(read_trace(&path, None), Err(ReadError::Unknown { .. })));
    }
}
