//! Where are the traces that stay outside the repository, and what do they hold?

use std::path::PathBuf;
use std::process::Command;

use crate::reference::Job;

/// A trace of the folder that `PENSTOCK_TRACES` names; where it is not set, that is said and the test
/// has nothing to do.
pub(crate) fn trace(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("PENSTOCK_TRACES") else {
        println!("skipped: PENSTOCK_TRACES names no folder of traces, {name} is not replayed");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    assert!(path.is_file(), "PENSTOCK_TRACES is set and has no {name}");
    Some(path)
}

/// Lines of a trace; gzip is a program of every Linux.
pub(crate) fn text(path: &std::path::Path) -> String {
    if path.extension().is_none_or(|ending| ending != "gz") {
        return std::fs::read_to_string(path).unwrap();
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where a format has what a reference needs: run time, request, sizes in the order of preference.
pub(crate) struct Columns {
    pub(crate) run: usize,
    pub(crate) request: usize,
    pub(crate) sizes: &'static [usize],
}

pub(crate) const SWF: Columns = Columns { run: 4, request: 9, sizes: &[8, 5] };
pub(crate) const ALCF: Columns = Columns { run: 4, request: 6, sizes: &[5] };

/// The first `most` jobs of a trace on so many units, by the rules of a replay, read apart from the
/// binary: names and jobs, in the order of submission.
pub(crate) fn jobs(
    text: &str,
    columns: &Columns,
    units: u64,
    most: usize,
) -> (Vec<String>, Vec<Job>) {
    let mut all = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with(';')) {
        let row: Vec<&str> = line.split_whitespace().collect();
        if row.len() < 18 {
            continue;
        }
        let number = |column: usize| row[column - 1].parse::<i64>().unwrap();
        let sizes = columns.sizes.iter().map(|column| number(*column));
        let size = sizes.clone().find(|size| *size > 0).unwrap_or(0);
        let (run, request) = (number(columns.run), number(columns.request));
        if run <= 0 || size <= 0 || u64::try_from(size).unwrap() > units {
            continue;
        }
        let job = Job {
            submit: number(2),
            run,
            request: request.max(run),
            size: u64::try_from(size).unwrap(),
        };
        all.push((job.submit, all.len(), row[0].to_owned(), job));
    }
    all.sort_by_key(|(submit, line, ..)| (*submit, *line));
    all.truncate(most);
    all.into_iter().map(|(_, _, name, job)| (name, job)).unzip()
}
