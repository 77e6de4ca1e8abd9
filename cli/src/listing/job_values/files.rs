//! On which nodes does it run, in which directory, with which files and words?

use std::borrow::Cow;

use penstock_proto::v1;

use crate::listing::job_row::{JobRow, Part};
use crate::listing::value::Value;

pub(crate) fn nodelist<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::word(if row.run.is_some() { &row.info.nodelist } else { "" })
}

pub(crate) fn accounted_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    match (row.run, row.part) {
        (None, _) => Value::word("None assigned"),
        (Some(_), Part::Batch) => Value::word(batch_node(row)),
        (Some(_), Part::Step) => Value::word(row.step.map_or("", |step| &step.info.nodelist)),
        (Some(_), Part::Whole | Part::Task(_)) => Value::word(&row.info.nodelist),
    }
}

/// The node of the batch script.
pub(crate) fn batch_node<'a>(row: &JobRow<'a>) -> &'a str {
    let first = row.run.and_then(|run| run.shares.first());
    match first {
        _ if !row.info.batch_host.is_empty() => &row.info.batch_host,
        Some(share) => &share.node,
        None => "",
    }
}

pub(crate) fn exec_host<'a>(row: &JobRow<'a>) -> Value<'a> {
    let host = if row.run.is_some() { batch_node(row) } else { "" };
    Value::word(if host.is_empty() { "n/a" } else { host })
}

pub(crate) fn required_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(node_names(&row.spec.required_nodes)))
}

pub(crate) fn excluded_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(node_names(&row.spec.excluded_nodes)))
}

/// Names compressed to a hostlist.
pub(crate) fn node_names(names: &[String]) -> String {
    penstock_vocab::compress(names.iter().map(String::as_str))
}

pub(crate) fn features<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::text(&row.spec.constraint))
}

pub(crate) fn over_subscribe<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::word(match (row.spec.exclusive, row.spec.exclusive_user) {
        (true, _) => "NO",
        (false, true) => "USER",
        (false, false) if row.spec.oversubscribe => "YES",
        (false, false) => "OK",
    })
}

/// `matlab:3,ansys:1`.
pub(crate) fn licenses<'a>(row: &JobRow<'a>) -> Value<'a> {
    let entry = |license: &v1::LicenseCount| format!("{}:{}", license.name, license.count);
    let entries: Vec<String> = row.spec.licenses.iter().map(entry).collect();
    Value::Text(Cow::Owned(entries.join(",")))
}

pub(crate) fn reservation<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::text(&row.spec.reservation))
}

/// The nodes on which a waiting job is expected to start.
pub(crate) fn expected_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    let known = if row.run.is_some() { "" } else { row.info.expected_nodes.as_str() };
    Value::text(known)
}

pub(crate) fn work_dir<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::text(&row.spec.work_dir))
}

/// The script and its arguments.
pub(crate) fn command<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.spec.script_arguments.is_empty() || row.spec.command.is_empty() {
        return Value::text(&row.spec.command);
    }
    let arguments = row.spec.script_arguments.join(" ");
    Value::Text(Cow::Owned(format!("{} {arguments}", row.spec.command)))
}

pub(crate) fn comment<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::text(&row.spec.comment))
}

/// The bundle of the step, or of the job.
pub(crate) fn container<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.step.and_then(|step| step.step().spec.as_ref()) {
        Some(spec) => Value::text(&spec.container),
        None => Value::text(&row.spec.container),
    }
}

pub(crate) fn wckey<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::text(&row.spec.wckey)
}

pub(crate) fn submit_line<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.step.and_then(|step| step.step().spec.as_ref()) {
        Some(spec) => Value::text(&spec.submit_line),
        None => row.of_job(Value::text(&row.spec.submit_line)),
    }
}

pub(crate) fn stdout<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(stdout_path(row)))
}

fn stdout_path(row: &JobRow<'_>) -> String {
    match row.spec.stdout.as_str() {
        "" if row.is_array() => row.path("slurm-%A_%a.out"),
        "" => row.path("slurm-%j.out"),
        pattern => row.path(pattern),
    }
}

pub(crate) fn stderr<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(match row.spec.stderr.as_str() {
        "" => stdout_path(row),
        pattern => row.path(pattern),
    }))
}

/// As squeue shows a file that was asked for: below the working directory, its pattern as typed.
fn typed(row: &JobRow<'_>, pattern: &str) -> String {
    if pattern.starts_with('/') {
        pattern.to_owned()
    } else {
        format!("{}/{pattern}", row.spec.work_dir.trim_end_matches('/'))
    }
}

pub(crate) fn queued_stdout<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.spec.stdout.as_str() {
        "" => stdout(row),
        pattern => Value::Word(Cow::Owned(typed(row, pattern))),
    }
}

pub(crate) fn queued_stderr<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.spec.stderr.as_str() {
        "" => queued_stdout(row),
        pattern => Value::Word(Cow::Owned(typed(row, pattern))),
    }
}

pub(crate) fn stdin<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(match row.spec.stdin.as_str() {
        "" => Cow::Borrowed("/dev/null"),
        pattern => Cow::Owned(row.path(pattern)),
    })
}

pub(crate) fn submit_host<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::text(&row.spec.submit_host)
}

pub(crate) fn submit_sid<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.spec.submit_sid)
}

/// Which parts of Slurm's scheduling touched the job.
pub(crate) fn flags<'a>(row: &JobRow<'a>) -> Value<'a> {
    let started = if row.run.is_some() { "SchedMain,StartRecieved" } else { "StartRecieved" };
    row.of_job(Value::word(started))
}
