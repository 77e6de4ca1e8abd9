//! How is a line of the Standard Workload Format read?
//!
//! Eighteen columns, -1 for what is not known (Feitelson et al., the Parallel Workloads Archive):
//! 1 job, 2 submit, 4 run time, 5 allocated and 8 requested processors, 9 requested time, 12 user,
//! 13 group. Further columns, which some archives add, are not looked at.

use super::number;
use crate::simulate::job::{Ask, Length, Record};

/// Columns that a line has at least.
pub(super) const COLUMNS: usize = 18;

/// Reads one line, cut into columns.
///
/// # Errors
/// What is wrong with it.
pub(super) fn record(line: usize, row: &[&str]) -> Result<Record, String> {
    if row.len() < COLUMNS {
        return Err(format!("has {} columns of {COLUMNS}", row.len()));
    }
    let allocated = number::size("allocated processors", row[4])?;
    let requested = number::size("requested processors", row[7])?;
    Ok(Record {
        line,
        id: row[0].to_owned(),
        submit: number::submit(row[1])?,
        run: Length::Secs(number::length("run time", row[3])?),
        request: number::length("requested time", row[8])?,
        ask: Ask::Processors(if requested > 0 { requested } else { allocated }),
        user: known(row[11]),
        account: known(row[12]),
        partition: String::new(),
    })
}

/// A name; -1 is none.
pub(super) fn known(text: &str) -> String {
    if text == "-1" { String::new() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Record, String> {
        record(7, &text.split_ascii_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn size_is_what_was_requested_else_what_was_allocated() {
        for (allocated, requested, expect) in [(4, 8, 8), (4, -1, 4), (4, 0, 4), (-1, -1, -1)] {
            let line = format!("1 5 0 10 {allocated} -1 -1 {requested} 60 -1 1 3 4 1 1 -1 -1 -1");
            assert_eq!(read(&line).map(|job| job.ask), Ok(Ask::Processors(expect)), "{line}");
        }
    }

    #[test]
    fn columns_are_where_the_format_has_them() {
        let job = read("1 5 2 10 4 9.25 77 8 60 88 1 3 4 6 2 9 -1 -1 {1,2} q_1d 1:ppn=2");
        let job = job.expect("a record");
        assert_eq!((job.submit, job.run, job.request), (5, Length::Secs(10), 60));
        assert_eq!((job.user.as_str(), job.account.as_str()), ("3", "4"));
        let unknown = read("1 5 2 -1 4 -1 -1 8 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1").expect("a record");
        assert_eq!((unknown.run, unknown.request), (Length::Secs(-1), -1));
        assert_eq!((unknown.user.as_str(), unknown.account.as_str()), ("", ""));
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, expect) in [
            ("1 2 3", "has 3 columns of 18"),
            ("1 x 2 10 4 9 7 8 60 8 1 3 4 6 2 9 -1 -1", "submit time \"x\" is no number"),
            ("1 -1 2 10 4 9 7 8 60 8 1 3 4 6 2 9 -1 -1", "submit time -1 is not believed"),
            ("1 5 2 1o 4 9 7 8 60 8 1 3 4 6 2 9 -1 -1", "run time \"1o\" is no number"),
        ] {
            assert_eq!(read(line), Err(expect.to_owned()));
        }
    }
}
