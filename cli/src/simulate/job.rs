//! What is replayed: which records of a trace are jobs, how large and how long?
//!
//! The rules of a replay are here and nowhere else. A record without a run time or a size, or larger
//! than the cluster, is dropped and counted. A request that is missing is the run time; a run beyond
//! its request is either believed or cut. Jobs are taken by submit time, then by line.

use std::collections::BTreeMap;

use clap::ValueEnum;

/// Longest run or request that is believed, in seconds: a century.
pub(super) const MAX_LENGTH_SECS: i64 = 100 * 366 * 86_400;

/// Largest distance of a submit time from 1970 that is believed, in seconds.
pub(super) const MAX_SUBMIT_SECS: i64 = 100_000_000_000;

/// One line of a trace, as its reader understood it. Seconds throughout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Line of the file, from 1; of an accounting, the place in its answer.
    pub(super) line: usize,
    /// The job's number or name, as the trace has it.
    pub(super) id: String,
    /// When it was submitted.
    pub(super) submit: i64,
    /// How long it ran.
    pub(super) run: Length,
    /// The time limit it asked for; 0 or less: not known.
    pub(super) request: i64,
    /// What it asked for.
    pub(super) ask: Ask,
    /// Who submitted it; empty: not known.
    pub(super) user: String,
    /// Group, account or virtual cluster; empty: not known.
    pub(super) account: String,
    /// Partition, where the trace names one that a cluster file may have too.
    pub(super) partition: String,
}

/// How long a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So many seconds; 0 or less: it never ran.
    Secs(i64),
    /// The list has no times: it stays for ever.
    Endless,
}

/// What a job takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    /// Processors, wherever they are.
    Processors(i64),
    /// GPUs, wherever they are, with one task.
    Gpus(i64),
    /// A part of one node.
    Pod(Pod),
}

/// A part of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pod {
    /// CPUs, rounded up to whole ones.
    pub(super) cpus: i64,
    /// MiB.
    pub(super) memory: u64,
    /// GPUs, rounded up to whole ones.
    pub(super) gpus: i64,
    /// Part of a GPU that it asks for, thousandths; 0 and 1,000: all of it.
    pub(super) part: u32,
    /// The slice that it gets; empty: none is asked for.
    pub(super) profile: String,
    /// Compute slices of all that it gets; 0: whole GPUs.
    pub(super) slices: i64,
    /// Models that will do; empty: all.
    pub(super) models: Vec<String>,
}

/// What a cluster's size and a job's are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Processors.
    Cpu,
    /// GPUs.
    Gpu,
}

impl Ask {
    /// Size in units; 0 where a job takes none.
    pub(super) fn size(&self, unit: Unit) -> i64 {
        match (self, unit) {
            (Self::Processors(count), Unit::Cpu) | (Self::Gpus(count), Unit::Gpu) => *count,
            (Self::Processors(_), Unit::Gpu) | (Self::Gpus(_), Unit::Cpu) => 0,
            (Self::Pod(pod), Unit::Cpu) => pod.cpus,
            (Self::Pod(pod), Unit::Gpu) if pod.slices > 0 => pod.slices,
            (Self::Pod(pod), Unit::Gpu) => pod.gpus,
        }
    }

    /// Whether there is anything to allocate.
    fn is_something(&self) -> bool {
        match self {
            Self::Processors(count) | Self::Gpus(count) => *count > 0,
            Self::Pod(pod) => pod.cpus > 0 || pod.gpus > 0,
        }
    }
}

/// What becomes of a run that went on past its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Overrun {
    /// Its run time counts as its request
    Extend,
    /// It is cut at its request
    Clip,
}

/// What was read of a trace, before the rules.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// Lines that are understood.
    pub(super) records: Vec<Record>,
    /// Lines that are not: how many, and the first with what is wrong there.
    pub(super) broken: usize,
    pub(super) first_broken: Option<(usize, String)>,
    /// Jobs whose part of a GPU counts as a whole one.
    pub(super) fractions: usize,
}

impl Raw {
    /// Counts a line that is not understood.
    pub(super) fn skip(&mut self, line: usize, why: String) {
        self.broken += 1;
        if self.first_broken.is_none() {
            self.first_broken = Some((line, why));
        }
    }
}

/// A job that is replayed. Times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) submit: i64,
    /// `None`: it stays for ever.
    pub(super) run: Option<i64>,
    /// At least the run time, whatever the rules.
    pub(super) request: Option<i64>,
    pub(super) ask: Ask,
    /// Size in the workload's unit.
    pub(super) size: u64,
    /// Index into the workload's users.
    pub(super) user: usize,
    /// Index into its accounts.
    pub(super) account: usize,
    pub(super) partition: String,
}

/// What was dropped and bent, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Lines that are records, whole or broken.
    pub(super) records: usize,
    pub(super) broken: usize,
    pub(super) first_broken: Option<(usize, String)>,
    /// Dropped: never ran.
    pub(super) no_run: usize,
    /// Dropped: no size.
    pub(super) no_size: usize,
    /// Dropped: larger than the cluster.
    pub(super) too_large: usize,
    /// Usable, beyond `--jobs`.
    pub(super) beyond: usize,
    /// Their run time stands for a request that is missing.
    pub(super) no_request: usize,
    /// They ran past their request.
    pub(super) overrun: usize,
    /// Their part of a GPU counts as a whole one.
    pub(super) fractions: usize,
}

/// The jobs of a trace, by submit time, then by line.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) jobs: Vec<Job>,
    pub(super) users: Vec<String>,
    pub(super) accounts: Vec<String>,
    pub(super) unit: Unit,
    pub(super) counts: Counts,
}

/// Applies the rules of a replay on a cluster of `capacity` units; at most the first `most` jobs.
pub(super) fn workload(
    raw: Raw,
    unit: Unit,
    capacity: u64,
    overrun: Overrun,
    most: Option<usize>,
) -> Workload {
    let mut counts = Counts {
        records: raw.records.len() + raw.broken,
        broken: raw.broken,
        first_broken: raw.first_broken,
        fractions: raw.fractions,
        ..Counts::default()
    };
    let mut records: Vec<Record> = Vec::with_capacity(raw.records.len());
    for record in raw.records {
        let size = u64::try_from(record.ask.size(unit)).unwrap_or(0);
        if record.run == Length::Secs(0) || matches!(record.run, Length::Secs(..0)) {
            counts.no_run += 1;
        } else if !record.ask.is_something() {
            counts.no_size += 1;
        } else if size > capacity {
            counts.too_large += 1;
        } else {
            records.push(record);
        }
    }
    records.sort_by_key(|record| (record.submit, record.line));
    if let Some(most) = most {
        counts.beyond = records.len().saturating_sub(most);
        records.truncate(most);
    }
    let (mut users, mut accounts) = (Names::default(), Names::default());
    let jobs = records
        .into_iter()
        .map(|record| {
            let (run, request) = lengths(&record, overrun, &mut counts);
            Job {
                size: u64::try_from(record.ask.size(unit)).unwrap_or(0),
                id: record.id,
                submit: record.submit,
                run,
                request,
                ask: record.ask,
                user: users.index(record.user),
                account: accounts.index(record.account),
                partition: record.partition,
            }
        })
        .collect();
    Workload { jobs, users: users.list, accounts: accounts.list, unit, counts }
}

/// Run time and request of a record.
fn lengths(record: &Record, overrun: Overrun, counts: &mut Counts) -> (Option<i64>, Option<i64>) {
    let Length::Secs(run) = record.run else {
        return (None, (record.request > 0).then_some(record.request));
    };
    if record.request <= 0 {
        counts.no_request += 1;
        return (Some(run), Some(run));
    }
    if run <= record.request {
        return (Some(run), Some(record.request));
    }
    counts.overrun += 1;
    match overrun {
        Overrun::Extend => (Some(run), Some(run)),
        Overrun::Clip => (Some(record.request), Some(record.request)),
    }
}

/// Names in the order in which they were first met.
#[derive(Default)]
struct Names {
    places: BTreeMap<String, usize>,
    list: Vec<String>,
}

impl Names {
    fn index(&mut self, name: String) -> usize {
        let next = self.list.len();
        let list = &mut self.list;
        *self.places.entry(name).or_insert_with_key(|name| {
            list.push(name.clone());
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: usize, submit: i64, run: i64, request: i64, size: i64) -> Record {
        Record {
            line,
            id: line.to_string(),
            submit,
            run: Length::Secs(run),
            request,
            ask: Ask::Processors(size),
            user: format!("u{}", line % 2),
            account: String::new(),
            partition: String::new(),
        }
    }

    fn taken(records: Vec<Record>, overrun: Overrun, most: Option<usize>) -> Workload {
        let raw = Raw { records, ..Raw::default() };
        workload(raw, Unit::Cpu, 8, overrun, most)
    }

    #[test]
    fn records_that_cannot_be_replayed_are_dropped_and_counted() {
        let all = taken(
            vec![
                record(1, 0, 0, 10, 1),
                record(2, 0, -1, 10, 1),
                record(3, 0, 5, 10, 0),
                record(4, 0, 5, 10, -1),
                record(5, 0, 5, 10, 9),
                record(6, 0, 5, 10, 8),
            ],
            Overrun::Extend,
            None,
        );
        assert_eq!(all.jobs.len(), 1);
        assert_eq!((all.counts.no_run, all.counts.no_size, all.counts.too_large), (2, 2, 1));
        assert_eq!(all.counts.records, 6);
    }

    #[test]
    fn jobs_are_taken_by_submit_time_then_line() {
        let all = taken(
            vec![record(3, 7, 5, 9, 1), record(4, 2, 5, 9, 1), record(5, 7, 5, 9, 1)],
            Overrun::Extend,
            Some(2),
        );
        let ids: Vec<_> = all.jobs.iter().map(|job| job.id.as_str()).collect();
        assert_eq!(ids, ["4", "3"]);
        assert_eq!(all.counts.beyond, 1);
        assert_eq!(all.users, ["u0", "u1"]);
    }

    #[test]
    fn a_missing_request_is_the_run_time_and_an_overrun_is_believed_or_cut() {
        for (overrun, request, expect) in [
            (Overrun::Extend, -1, (5, 5)),
            (Overrun::Clip, 0, (5, 5)),
            (Overrun::Extend, 9, (5, 9)),
            (Overrun::Extend, 3, (5, 5)),
            (Overrun::Clip, 3, (3, 3)),
        ] {
            let all = taken(vec![record(1, 0, 5, request, 1)], overrun, None);
            let job = &all.jobs[0];
            assert_eq!((job.run, job.request), (Some(expect.0), Some(expect.1)));
        }
    }
}
