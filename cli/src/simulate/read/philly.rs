//! How is the list of Microsoft's Philly cluster read?
//!
//! `timestamp,duration,num_gpus,gpu_time,cluster`: the submission in local time without a zone
//! (taken as UTC), seconds, GPUs, and a virtual cluster, which stands for user and account. There are
//! no time limits, so the run time stands for them; lines are in no order.

use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::csv::{Header, field, fields, names};
use super::{ReadError, data_lines, number};
use crate::simulate::job::{Ask, Length, Raw, Record};

/// Whether a line is the header.
pub(super) fn is_header(line: &str) -> bool {
    let names = names(line);
    ["timestamp", "duration", "num_gpus"].iter().all(|name| names.iter().any(|have| have == name))
}

/// Reads the list.
///
/// # Errors
/// If the header lacks a column.
pub(super) fn read(path: &Path, text: &str) -> Result<Raw, ReadError> {
    let mut raw = Raw::default();
    let mut lines = data_lines(text);
    let Some((_, first)) = lines.next() else { return Ok(raw) };
    let header = Header::new(path, "Philly list", first);
    let columns = Columns {
        submit: header.require(&["timestamp"])?,
        run: header.require(&["duration"])?,
        gpus: header.require(&["num_gpus"])?,
        cluster: header.find(&["cluster"]),
    };
    for (line, text) in lines {
        match record(line, &fields(text), &columns) {
            Ok(record) => raw.records.push(record),
            Err(why) => raw.skip(line, why),
        }
    }
    Ok(raw)
}

struct Columns {
    submit: usize,
    run: usize,
    gpus: usize,
    cluster: Option<usize>,
}

fn record(line: usize, row: &[&str], columns: &Columns) -> Result<Record, String> {
    let cluster = field(row, columns.cluster);
    Ok(Record {
        line,
        id: line.to_string(),
        submit: timestamp(field(row, Some(columns.submit)))?,
        run: Length::Secs(number::length("duration", field(row, Some(columns.run)))?),
        request: -1,
        ask: Ask::Gpus(number::size("number of GPUs", field(row, Some(columns.gpus)))?),
        user: cluster.to_owned(),
        account: cluster.to_owned(),
        partition: String::new(),
    })
}

/// Seconds since 1970 of `YYYY-MM-DD HH:MM:SS`.
fn timestamp(text: &str) -> Result<i64, String> {
    let wrong = || format!("timestamp {text:?} is none; wanted is 2017-10-09 07:01:55");
    let time: DateTime = text.parse().map_err(|_| wrong())?;
    let time = TimeZone::UTC.to_timestamp(time).map_err(|_| wrong())?;
    Ok(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_broken_ones_skipped() {
        let text = "timestamp,duration,num_gpus,gpu_time,cluster\n\
                    2017-10-09 07:01:55,66.0,8,528.0,11cb48\n\
                    yesterday,66.0,1,66.0,11cb48\n\
                    2017-10-09 07:01:55,66.0,,66.0,11cb48\n\n";
        let raw = read(Path::new("p.csv"), text).expect("a list");
        assert_eq!((raw.records.len(), raw.broken), (1, 2));
        let job = &raw.records[0];
        assert_eq!((job.submit, job.run), (1_507_532_515, Length::Secs(66)));
        assert_eq!((&job.ask, job.user.as_str()), (&Ask::Gpus(8), "11cb48"));
        let (line, why) = raw.first_broken.expect("there is one");
        assert_eq!(line, 3);
        assert!(why.contains("yesterday"), "{why}");
    }

    #[test]
    fn missing_column_is_named() {
        let error = read(Path::new("p.csv"), "timestamp,num_gpus\n").expect_err("an error");
        assert!(error.to_string().contains("needs the column duration"), "{error}");
    }
}
