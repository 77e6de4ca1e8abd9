//! How is a line of ALCF's variant of SWF read?
//!
//! Published logs of Theta have the eighteen columns, but 5 is nodes, 6 the requested time, 12 a
//! hash of the user, and 7 to 11 are never known. Lines are ordered by the jobs' ends.

use super::number;
use super::swf::{COLUMNS, known};
use crate::simulate::job::{Ask, Length, Record};

/// Whether a line, cut into columns, can be of this variant: its requested time is where SWF has the
/// average of CPU seconds, and what SWF has in 7 to 11 is not known.
pub(super) fn looks_like(row: &[&str]) -> bool {
    row.len() == COLUMNS
        && row[6..11].iter().all(|text| *text == "-1")
        && number::whole(row[5]).is_ok_and(|secs| secs > 0)
}

/// Reads one line, cut into columns.
///
/// # Errors
/// What is wrong with it.
pub(super) fn record(line: usize, row: &[&str]) -> Result<Record, String> {
    if row.len() < COLUMNS {
        return Err(format!("has {} columns of {COLUMNS}", row.len()));
    }
    Ok(Record {
        line,
        id: row[0].to_owned(),
        submit: number::submit(row[1])?,
        run: Length::Secs(number::length("run time", row[3])?),
        request: number::length("requested time", row[5])?,
        ask: Ask::Processors(number::size("nodes", row[4])?),
        user: known(row[11]),
        account: known(row[12]),
        partition: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_where_alcf_has_them() {
        let line = "638720\t1671905072\t632522\t3648\t4096\t3600\t-1\t-1\t-1\t-1\t-1\t702\t-1\t-1\t-1\t-1\t-1\t-1";
        let row: Vec<_> = line.split_ascii_whitespace().collect();
        assert!(looks_like(&row));
        let job = record(4, &row).expect("a record");
        assert_eq!((job.submit, job.run), (1_671_905_072, Length::Secs(3_648)));
        assert_eq!((job.request, job.ask), (3_600, Ask::Processors(4_096)));
        assert_eq!(job.user, "702");
    }

    #[test]
    fn ordinary_swf_does_not_look_like_it() {
        let row: Vec<_> =
            "1 0 5 10 4 9.5 -1 4 60 -1 1 3 7 1 1 -1 -1 -1".split_ascii_whitespace().collect();
        assert!(!looks_like(&row));
    }
}
