//! `squeue -s`: which steps run?
//!
//! Steps of srun and salloc come from the controller; the step of a batch script is made from its
//! job's run. They are ordered by partition and job unless `-S` says otherwise.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use penstock_proto::v1;
use penstock_vocab::{StepId, StepSelector};

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::listing::{
    Clock, Columns, Dialect, JobRow, Overflow, Part, Render, STEP_ALL_LETTERS, Source, StepField,
    StepRecord, all_letters, cluster_name, has_batch_step, list_steps, now_ms, parse_letters,
    parse_names, push_at_least, push_padded, step_by_letter, step_by_long_name,
};
use crate::output::{note, print_line, write_bytes};

use super::FAILED;

/// Slurm's columns.
const DEFAULT: &str = "%.15i %.8j %.9P %.8u %.9M %N";

/// Slurm's order.
const DEFAULT_SORT: &str = "P,i";

/// What to list, and how.
#[derive(Debug)]
pub(super) struct StepOptions {
    columns: Columns<&'static StepField>,
    sort: Vec<(&'static StepField, bool)>,
    header: bool,
    date: bool,
    filter: v1::JobFilter,
    steps: Vec<StepSelector>,
    /// Only users were given that do not exist.
    matches_nothing: bool,
    iterate: Option<Duration>,
}

/// What of a command line concerns steps.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The format that was given.
    pub(super) format: Option<Source>,
    /// The order that was given.
    pub(super) sort: Option<String>,
    /// `-h`.
    pub(super) no_header: bool,
    /// `-l`.
    pub(super) long: bool,
    /// Which jobs.
    pub(super) filter: v1::JobFilter,
    /// Which steps of them.
    pub(super) steps: Vec<StepSelector>,
    /// Only users were given that do not exist.
    pub(super) matches_nothing: bool,
    /// Pause between listings.
    pub(super) iterate: Option<Duration>,
}

impl StepOptions {
    /// Puts together what was given; what of the format names no field is told.
    pub(super) fn new(program: &str, asked: Asked) -> Self {
        let source = asked.format.unwrap_or_else(|| Source::Letters(DEFAULT.to_owned()));
        let columns = columns(source);
        for name in &columns.unknown {
            error(program, &format!("Invalid job step format specification: {name}"));
        }
        Self {
            columns,
            sort: sort_keys(asked.sort.as_deref().unwrap_or(DEFAULT_SORT)),
            header: !asked.no_header,
            date: asked.long && !asked.no_header,
            filter: asked.filter,
            steps: asked.steps,
            matches_nothing: asked.matches_nothing,
            iterate: asked.iterate,
        }
    }
}

/// Reads `-s 12.0,12.1`.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(super) fn read_steps(program: &str, list: &str) -> Result<Vec<StepSelector>, i32> {
    let read = |word: &str| {
        word.parse::<StepSelector>().map_err(|_| {
            error(program, &format!("Invalid job_step id: {word}.??"));
            FAILED
        })
    };
    list.split(',').filter(|word| !word.is_empty()).map(read).collect()
}

fn columns(source: Source) -> Columns<&'static StepField> {
    match source {
        Source::Letters(format) if format.eq_ignore_ascii_case("%all") => {
            all_letters(STEP_ALL_LETTERS, step_by_letter, |_| "|")
        }
        Source::Letters(format) => parse_letters(&format, step_by_letter),
        Source::Names(format) if format.eq_ignore_ascii_case("all") => {
            all_letters(STEP_ALL_LETTERS, step_by_letter, |_| "|")
        }
        Source::Names(format) => parse_names(&format, step_by_long_name),
    }
}

/// Letters that name no field are passed over, as in Slurm.
fn sort_keys(text: &str) -> Vec<(&'static StepField, bool)> {
    let mut keys = Vec::new();
    let mut reverse = false;
    for letter in text.chars() {
        match letter {
            '-' => reverse = true,
            letter => {
                keys.extend(step_by_letter(letter).map(|field| (field, reverse)));
                reverse = false;
            }
        }
    }
    keys
}

/// Lists once, or every so many seconds; returns the exit status.
pub(super) fn run(program: &str, options: &StepOptions) -> i32 {
    let client = match Client::open() {
        Ok(client) => client,
        Err(problem) => return failed(program, &problem),
    };
    loop {
        if options.iterate.is_some() {
            print_line(&Clock::from_env(now_ms()).date_line());
        }
        if let Err(problem) = list(&client, options) {
            return failed(program, &problem);
        }
        let Some(pause) = options.iterate else { return 0 };
        print_line("");
        std::thread::sleep(pause);
    }
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    note(&format!("slurm_get_job_steps error: {}", problem.slurm_text()));
    FAILED
}

fn list(client: &Client, options: &StepOptions) -> Result<(), RemoteError> {
    let clock = Clock::from_env(now_ms());
    let shows_cluster = options
        .columns
        .columns
        .iter()
        .filter_map(|column| column.field)
        .any(|field| field.long.contains(&"cluster"));
    let cluster = if shows_cluster { cluster_name(client) } else { String::new() };
    let (infos, steps) = if options.matches_nothing {
        (Vec::new(), Vec::new())
    } else {
        ask(client, &options.filter)?
    };
    write_bytes(&text(options, &infos, &steps, &cluster, &clock));
    Ok(())
}

fn ask(
    client: &Client,
    filter: &v1::JobFilter,
) -> Result<(Vec<v1::JobInfo>, Vec<StepRecord>), RemoteError> {
    let request = v1::ListJobsRequest {
        filter: Some(filter.clone()),
        all_states: false,
        full: true,
        expand_arrays: false,
    };
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_jobs(request).await }
    })?;
    let infos = replies.into_iter().flat_map(|reply| reply.jobs).collect();
    Ok((infos, list_steps(client, filter.clone(), false)?))
}

/// The whole listing.
fn text(
    options: &StepOptions,
    infos: &[v1::JobInfo],
    steps: &[StepRecord],
    cluster: &str,
    clock: &Clock,
) -> Vec<u8> {
    let mut rows = rows(infos, steps, clock);
    rows.retain(|row| {
        options.steps.is_empty() || options.steps.iter().any(|step| is_that(step, row))
    });
    rows.iter_mut().for_each(|row| row.cluster = cluster);
    let render = Render::new(Dialect::Queue, clock);
    rows.sort_by(|left, right| compare(&options.sort, left, right, &render));
    let mut out = Vec::new();
    if options.date {
        out.extend_from_slice(clock.date_line().as_bytes());
        out.push(b'\n');
    }
    if options.header {
        push_line(&mut out, options, |field, text| text.push_str(field.header));
    }
    for row in &rows {
        push_line(&mut out, options, |field, text| render.push(text, &(field.value)(row)));
    }
    out
}

/// A row for each step that runs, of jobs whose record came along.
fn rows<'a>(infos: &'a [v1::JobInfo], steps: &'a [StepRecord], clock: &Clock) -> Vec<JobRow<'a>> {
    let mut rows = Vec::new();
    let mut by_job = HashMap::new();
    for info in infos {
        let row = JobRow::live(info, clock.now_ms());
        if row.run.is_some_and(|run| run.end_ms == 0) {
            by_job.insert(row.job.id, row);
            if has_batch_step(&row) {
                rows.push(row.with_part(Part::Batch));
            }
        }
    }
    let of_job = |step: &'a StepRecord| Some(by_job.get(&step.step().job_id)?.with_step(step));
    rows.extend(steps.iter().filter(|step| step.step().end_ms == 0).filter_map(of_job));
    rows
}

fn is_that(wanted: &StepSelector, row: &JobRow<'_>) -> bool {
    let step = row.step.map_or(StepId::Batch, StepRecord::id);
    let job = match wanted.task {
        None => wanted.job.0 == row.job.id,
        Some(task) => wanted.job.0 == row.array_job_id() && row.task_id() == Some(task.0),
    };
    job && step == wanted.step
}

fn compare(
    keys: &[(&'static StepField, bool)],
    left: &JobRow<'_>,
    right: &JobRow<'_>,
    render: &Render<'_>,
) -> Ordering {
    let number = |row: &JobRow<'_>| {
        // Numbered steps come before the batch script's, as their numbers are smaller.
        (row.job.id, row.step.map_or(u32::MAX, |step| step.step().step))
    };
    keys.iter().fold(Ordering::Equal, |order, (field, reverse)| {
        order.then_with(|| {
            let text = |row: &JobRow<'_>| render.text(&(field.value)(row));
            let order = match field.letter {
                Some('i') => number(left).cmp(&number(right)),
                Some('M') => left.used_secs().cmp(&right.used_secs()),
                Some('S') => left.start_ms().cmp(&right.start_ms()),
                _ => text(left).cmp(&text(right)),
            };
            if *reverse { order.reverse() } else { order }
        })
    })
}

fn push_line(out: &mut Vec<u8>, options: &StepOptions, show: impl Fn(&StepField, &mut String)) {
    out.extend_from_slice(options.columns.prefix.as_bytes());
    let mut text = String::new();
    for column in &options.columns.columns {
        if let Some(field) = column.field {
            text.clear();
            show(field, &mut text);
            if field.overflow == Overflow::GrowsRight && column.right {
                push_at_least(out, &text, column.width, true);
            } else {
                push_padded(out, &text, column.width, column.right);
            }
        }
        out.extend_from_slice(column.suffix.as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
