//! When did each job start and end?

use std::fmt::Write as _;

use crate::simulate::drive::{Fate, Outcome};
use crate::simulate::job::Workload;

/// A line a job as CSV, in the order of submission: job, submit, start, end, units. Seconds of the
/// trace; empty where a job never started, or has no end.
pub(in crate::simulate) fn dump(workload: &Workload, outcome: &Outcome) -> String {
    let mut text = String::from("job,submit,start,end,units\n");
    for (job, fate) in workload.jobs.iter().zip(&outcome.fates) {
        let (start, end) = match *fate {
            Fate::Ran { start, end } => (start.to_string(), end.map(|end| end.to_string())),
            Fate::Waits | Fate::Refused => (String::new(), None),
        };
        let end = end.unwrap_or_default();
        writeln!(text, "{},{},{start},{end},{}", quoted(&job.id), job.submit, job.size)
            .expect("a String takes all text");
    }
    text
}

/// A field as CSV wants it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
