//! Under which letters, names and headers does `squeue -s` show the fields of a step?
//!
//! Where a job has the same field, the value is the job's function on the step's row.

use std::borrow::Cow;

use super::job_fields::{JobValue, Overflow};
use super::job_row::{JobRow, Part};
use super::job_values::{files, identity, size, times};
use super::usage::row_state;
use super::value::Value;

/// A field of a step.
#[derive(Clone, Copy)]
pub(crate) struct StepField {
    /// Letter of `-o`.
    pub(crate) letter: Option<char>,
    /// Header.
    pub(crate) header: &'static str,
    /// Names of `-O`, in lower case.
    pub(crate) long: &'static [&'static str],
    /// What becomes of a text that is too long.
    pub(crate) overflow: Overflow,
    /// The value.
    pub(crate) value: JobValue,
}

impl std::fmt::Debug for StepField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepField").field("header", &self.header).finish_non_exhaustive()
    }
}

const fn field(
    letter: Option<char>,
    header: &'static str,
    long: &'static [&'static str],
    value: JobValue,
) -> StepField {
    StepField { letter, header, long, overflow: Overflow::Cut, value }
}

const fn time(
    letter: char,
    header: &'static str,
    long: &'static [&'static str],
    value: JobValue,
) -> StepField {
    StepField { letter: Some(letter), header, long, overflow: Overflow::GrowsRight, value }
}

/// The letters of `%all`, in Slurm's order.
pub(crate) const STEP_ALL_LETTERS: &str = "bijluAMNPSU";

/// Every field.
#[rustfmt::skip] // One line a field, so that the table can be read as one.
const FIELDS: &[StepField] = &[
    field(Some('A'), "TASKS", &["numtasks"], size::step_tasks),
    field(Some('b'), "TRES_PER_JOB", &["tres-per-node", "gres"], null),
    field(Some('i'), "STEPID", &["stepid"], identity::array_id),
    field(Some('j'), "NAME", &["stepname"], identity::name),
    time('l', "TIME_LIMIT", &["timelimit"], time_limit),
    time('M', "TIME", &["timeused"], times::time_used),
    field(Some('N'), "NODELIST", &["nodes"], files::accounted_nodes),
    field(Some('P'), "PARTITION", &["partition"], partition),
    field(Some('S'), "START_TIME", &["starttime"], times::start_time),
    field(Some('u'), "USER", &["username"], user),
    field(Some('U'), "UID", &["userid"], uid),
    field(None, "ARRAY_JOB_ID", &["arrayjobid"], array_job_id),
    field(None, "ARRAY_TASK_ID", &["arraytaskid"], identity::array_task),
    field(None, "CLUSTER", &["cluster"], identity::cluster),
    field(None, "CONTAINER", &["container"], files::container),
    field(None, "CPUS_PER_TRES", &["cpus-per-tres"], null),
    field(None, "JOB_ID", &["jobid"], identity::job_id),
    field(None, "MEM_PER_TRES", &["mem-per-tres"], null),
    field(None, "NUM_CPUS", &["numcpus"], cpus),
    field(None, "RESERVED_PORTS", &["resvports"], null),
    field(None, "STATE", &["stepstate"], state),
    field(None, "TRES_BIND", &["tres-bind"], null),
    field(None, "TRES_FREQ", &["tres-freq"], null),
    field(None, "TRES_PER_SOCKET", &["tres-per-socket"], null),
    field(None, "TRES_PER_STEP", &["tres-per-job", "tres-per-step"], null),
    field(None, "TRES_PER_TASK", &["tres-per-task"], null),
];

/// The field of a letter of `-o`.
pub(crate) fn step_by_letter(letter: char) -> Option<&'static StepField> {
    FIELDS.iter().find(|field| field.letter == Some(letter))
}

/// The field of a name of `-O`, in lower case.
pub(crate) fn step_by_long_name(name: &str) -> Option<&'static StepField> {
    FIELDS.iter().find(|field| field.long.contains(&name))
}

fn null<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::word("(null)")
}

fn partition<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::word(&row.info.partition)
}

fn user<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::word(&row.info.user_name)
}

fn uid<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.job.uid)
}

/// A step that srun gave no limit has the job's.
fn time_limit<'a>(row: &JobRow<'a>) -> Value<'a> {
    let own = row.step.map_or(0, |step| step.step().time_limit_secs);
    Value::Limit(Some(own).filter(|secs| *secs != 0))
}

/// Slurm counts none for the batch script.
fn cpus<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.part == Part::Batch { Value::Number(0) } else { size::num_cpus(row) }
}

fn array_job_id<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(if row.is_array() { row.array_job_id() } else { 0 })
}

fn state<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Borrowed(row_state(row).name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_of_all_is_a_field_and_no_name_means_two() {
        assert!(STEP_ALL_LETTERS.chars().all(|letter| step_by_letter(letter).is_some()));
        let mut names: Vec<&str> = FIELDS.iter().flat_map(|field| field.long).copied().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
