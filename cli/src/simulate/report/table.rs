//! How does a person read the figures of a replay?

use std::fmt::Write as _;

use penstock_vocab::elapsed_long;

use super::figures::{Fairness, Figures};
use super::{Report, Run};
use crate::simulate::job::{Counts, Unit};

/// One line of the table: a name, and the value of each replay.
struct Row {
    name: &'static str,
    value: fn(&Figures) -> Value,
}

/// A figure as it is printed.
enum Value {
    /// Seconds.
    Time(f64),
    Percent(f64),
    Number(f64),
    Count(u64),
    /// Not known here.
    None,
}

const ROWS: &[Row] = &[
    Row { name: "makespan", value: |f| Value::Time(whole(f.makespan_secs)) },
    Row { name: "utilisation", value: |f| Value::Percent(f.utilisation) },
    Row { name: "wait, mean", value: |f| Value::Time(f.wait.mean) },
    Row { name: "wait, median", value: |f| Value::Time(f.wait.median) },
    Row { name: "wait, p95", value: |f| Value::Time(f.wait.p95) },
    Row { name: "wait, p99", value: |f| Value::Time(f.wait.p99) },
    Row { name: "wait, longest", value: |f| Value::Time(f.wait.max) },
    Row { name: "bounded slowdown, mean", value: |f| Value::Number(f.slowdown.mean) },
    Row { name: "bounded slowdown, median", value: |f| Value::Number(f.slowdown.median) },
    Row { name: "bounded slowdown, p95", value: |f| Value::Number(f.slowdown.p95) },
    Row { name: "users: Jain's index", value: |f| of(&f.users, |users| users.jain) },
    Row { name: "users: lowest slowdown", value: |f| of(&f.users, |users| users.lowest) },
    Row { name: "users: highest slowdown", value: |f| of(&f.users, |users| users.highest) },
    Row { name: "accounts: Jain's index", value: |f| of(&f.accounts, |groups| groups.jain) },
    Row { name: "accounts: highest slowdown", value: |f| of(&f.accounts, |groups| groups.highest) },
    Row {
        name: "idle GPUs of no use, mean",
        value: |f| f.gpus.map_or(Value::None, |gpus| Value::Percent(gpus.fragmented)),
    },
    Row { name: "started ahead of others", value: |f| Value::Count(f.backfilled as u64) },
];

/// Rows of jobs that have no end.
const LAST_ROWS: &[Row] = &[
    Row { name: "in use at the end", value: |f| Value::Percent(f.allocated) },
    Row {
        name: "idle GPUs of no use at the end",
        value: |f| f.gpus.map_or(Value::None, |gpus| Value::Percent(gpus.fragmented_last)),
    },
    Row {
        name: "idle GPUs at the end",
        value: |f| f.gpus.map_or(Value::None, |gpus| Value::Count(gpus.idle_last)),
    },
    Row { name: "never started", value: |f| Value::Count(f.waiting as u64) },
];

fn whole(number: i64) -> f64 {
    number as f64
}

/// A figure of groups; where all jobs are of one group it says nothing.
fn of(groups: &Fairness, figure: impl Fn(&Fairness) -> f64) -> Value {
    if groups.groups < 2 { Value::None } else { Value::Number(figure(groups)) }
}

/// The table.
pub(in crate::simulate) fn table(report: &Report<'_>) -> String {
    let mut text = head(report);
    let runs = report.runs;
    let ended = runs.iter().any(|run| run.figures.ended > 0);
    let lasting = runs.iter().any(|run| run.figures.endless + run.figures.waiting > 0);
    let rows = ROWS.iter().filter(|_| ended).chain(LAST_ROWS.iter().filter(|_| lasting));
    let mut lines = vec![titles(runs)];
    for row in rows {
        let values: Vec<Value> = runs.iter().map(|run| (row.value)(&run.figures)).collect();
        if values.iter().all(|value| matches!(value, Value::None)) {
            continue;
        }
        let mut cells = vec![row.name.to_owned()];
        cells.extend(values.iter().map(shown));
        if let [first, second] = values.as_slice() {
            cells.push(ratio(first, second));
        }
        lines.push(cells);
    }
    lay_out(&lines, &mut text);
    text
}

/// What was replayed, and what was left out.
fn head(report: &Report<'_>) -> String {
    let source = report.source;
    let kind = match source.format {
        Some(format) if source.guessed => format!(" ({}, told from its content)", format.word()),
        Some(format) => format!(" ({})", format.word()),
        None => String::new(),
    };
    let workload = report.workload;
    let unit = match workload.unit {
        Unit::Gpu if !report.machine.profiles.is_empty() => ", counted in compute slices of GPUs",
        Unit::Gpu if !report.machine.units => ", counted in GPUs",
        Unit::Cpu | Unit::Gpu => "",
    };
    let lost = match report.machine.broken {
        0 => String::new(),
        broken => format!("; {broken} lines not understood"),
    };
    let (jobs, counts) = (workload.jobs.len(), &workload.counts);
    let mut text = format!(
        "trace    {}{kind}\ncluster  {}{unit}{lost}\njobs     {jobs} of {} records",
        source.name, report.machine.title, counts.records
    );
    for note in notes(counts) {
        write!(text, "; {note}").expect("a String takes all text");
    }
    text.push('\n');
    if let Some((line, why)) = &counts.first_broken {
        writeln!(text, "         line {line} {why}").expect("a String takes all text");
    }
    let refusal = report.runs.iter().find_map(|run| run.outcome.first_refusal.as_ref());
    if let Some((job, why)) = refusal {
        let refused = report.runs.iter().map(|run| run.figures.refused).max().unwrap_or(0);
        writeln!(text, "refused  {refused} jobs, the first is {job}: {why}")
            .expect("a String takes all text");
    }
    for run in report.runs.iter().filter(|run| run.preempts) {
        writeln!(text, "policy   {}: its preemption is left out; nobody makes room", run.policy)
            .expect("a String takes all text");
    }
    text.push('\n');
    text
}

/// What was dropped or bent.
fn notes(counts: &Counts) -> Vec<String> {
    [
        (counts.broken, "lines not understood"),
        (counts.no_run, "that never ran"),
        (counts.no_size, "without a size"),
        (counts.too_large, "larger than the cluster"),
        (counts.beyond, "beyond --jobs"),
        (counts.overrun, "ran past their request"),
        (counts.no_request, "without a request"),
        (counts.fractions, "with part of a GPU, counted as a whole one"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

fn titles(runs: &[Run]) -> Vec<String> {
    let mut cells = vec![String::new()];
    cells.extend(runs.iter().map(|run| run.policy.clone()));
    if let [first, second] = runs {
        cells.push(format!("{} / {}", first.policy, second.policy));
    }
    cells
}

fn shown(value: &Value) -> String {
    match value {
        Value::Time(secs) => elapsed_long(rounded(*secs)),
        Value::Percent(part) => format!("{:.2} %", part * 100.0),
        Value::Number(number) => format!("{number:.2}"),
        Value::Count(count) => count.to_string(),
        Value::None => "-".to_owned(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a length of time, which is never negative nor near the limits"
)]
fn rounded(secs: f64) -> u64 {
    secs.round().max(0.0) as u64
}

/// How the first value relates to the second.
fn ratio(first: &Value, second: &Value) -> String {
    match (first, second) {
        (Value::Percent(a), Value::Percent(b)) => format!("{:+.2} points", (a - b) * 100.0),
        (Value::Time(a), Value::Time(b)) | (Value::Number(a), Value::Number(b)) if *b > 0.0 => {
            format!("{:.3}", a / b)
        }
        _ => String::new(),
    }
}

/// Names to the left, values to the right.
fn lay_out(lines: &[Vec<String>], text: &mut String) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = lines.iter().filter_map(|line| line.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let mut out = String::new();
        for (at, cell) in line.iter().enumerate() {
            let width = widths[at];
            if at == 0 {
                write!(out, "{cell:<width$}").expect("a String takes all text");
            } else {
                write!(out, "  {cell:>width$}").expect("a String takes all text");
            }
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
}
