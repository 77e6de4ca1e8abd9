//! Which rows does a job have in sacct, and in which order do they come?
//!
//! Rows are ordered by the job's own id; the waiting rest of an array follows its tasks, and earlier
//! runs come before later ones.

use std::collections::HashMap;

use penstock_proto::v1;
use penstock_vocab::{JobSelector, StepId, StepSelector};

use crate::listing::{
    Clock, Dialect, JobRow, Part, Render, StepRecord, Table, TableColumn, has_batch_step,
    list_limit_from_env, steps_of_jobs,
};

use crate::json::{Form, Source, accounted_jobs};
use crate::listing::job_values::times::eligible_ms;

use super::BUFFER;
use super::options::{Checks, Options};

/// `least..=most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Range {
    fn holds(self, number: u64) -> bool {
        (self.least..=self.most).contains(&number)
    }
}

/// The whole answer for programs.
pub(super) fn form(
    options: &Options,
    form: Form,
    mut infos: Vec<v1::JobInfo>,
    steps: &[StepRecord],
    cluster: &str,
    clock: &Clock,
) -> String {
    sort(&mut infos);
    let by_run = by_run(steps);
    let mut jobs = Vec::new();
    for info in &infos {
        let mut row = JobRow::accounted(info, clock.now_ms());
        row.cluster = cluster;
        if passes(&options.checks, &row) && in_window(options, &row) {
            let rows = parts(options, &row, own_steps(&by_run, &row));
            let steps = rows.into_iter().filter(JobRow::is_step).collect();
            jobs.push((row, steps));
        }
    }
    jobs.sort_by_key(|(row, _)| row.job.id);
    form.answer(Source::Accounting, "jobs", accounted_jobs(jobs, clock))
}

/// All of these jobs with their steps for programs, data version v0.0.40.
pub(crate) fn whole_form(mut infos: Vec<v1::JobInfo>, cluster: &str, clock: &Clock) -> String {
    let records = steps_of_jobs(&infos);
    sort(&mut infos);
    let by_run = by_run(&records);
    let mut jobs = Vec::with_capacity(infos.len());
    for info in &infos {
        let mut row = JobRow::accounted(info, clock.now_ms());
        row.cluster = cluster;
        let batch = has_batch_step(&row).then(|| row.with_part(Part::Batch));
        let steps = own_steps(&by_run, &row).iter().map(|step| row.with_step(step));
        jobs.push((row, batch.into_iter().chain(steps).collect()));
    }
    jobs.sort_by_key(|(row, _)| row.job.id);
    Form::NEWER.answer(Source::Accounting, "jobs", accounted_jobs(jobs, clock))
}

/// Steps by job and run.
type ByRun<'a> = HashMap<(u32, u32), Vec<&'a StepRecord>>;

fn by_run(steps: &[StepRecord]) -> ByRun<'_> {
    let mut found: ByRun<'_> = HashMap::new();
    for step in steps {
        found.entry((step.step().job_id, step.step().attempt)).or_default().push(step);
    }
    found
}

fn own_steps<'a, 's>(by_run: &'s ByRun<'a>, row: &JobRow<'_>) -> &'s [&'a StepRecord] {
    let attempt = row.run.map_or(u32::MAX, |run| run.attempt);
    by_run.get(&(row.job.id, attempt)).map_or(&[][..], Vec::as_slice)
}

/// Writes the whole table through `write`.
pub(super) fn print(
    options: &Options,
    mut infos: Vec<v1::JobInfo>,
    steps: &[StepRecord],
    cluster: &str,
    clock: &Clock,
    write: &mut dyn FnMut(&[u8]),
) {
    if options.truncate {
        let (from, to) = (options.request.from_ms, options.request.to_ms);
        infos.iter_mut().for_each(|info| truncate(info, from, to));
    }
    sort(&mut infos);
    let by_run = by_run(steps);
    let columns: Vec<TableColumn> =
        options.fields.iter().map(|field| field.column.clone()).collect();
    let table = Table::new(columns, options.style.clone());
    let render = Render { dialect: Dialect::Accounting, clock, units: options.units };
    let mut out = Vec::with_capacity(BUFFER + 4096);
    if options.header {
        table.push_header(&mut out);
    }
    let limit = list_limit_from_env();
    let mut text = String::new();
    for info in &infos {
        let mut row = JobRow::accounted(info, clock.now_ms());
        row.cluster = cluster;
        row.list_limit = limit;
        if !passes(&options.checks, &row) || !in_window(options, &row) {
            continue;
        }
        for row in parts(options, &row, own_steps(&by_run, &row)) {
            for (at, field) in options.fields.iter().enumerate() {
                let value = (field.field.value)(&row);
                text.clear();
                render.push(&mut text, &value);
                table.push_cell(&mut out, at, &text, value.may_be_cut());
            }
            out.push(b'\n');
        }
        if out.len() >= BUFFER {
            write(&out);
            out.clear();
        }
    }
    if !out.is_empty() {
        write(&out);
    }
}

/// The job's own row and those of its steps, as far as they are meant.
fn parts<'a>(options: &Options, row: &JobRow<'a>, steps: &[&'a StepRecord]) -> Vec<JobRow<'a>> {
    let asked_alone = options.steps.iter().any(|step| is_of(step, row));
    let whole = !asked_alone || options.jobs.iter().any(|job| names(job, row));
    let batch_asked =
        options.steps.iter().any(|step| is_of(step, row) && step.step == StepId::Batch);
    let batch = has_batch_step(row) && !options.jobs_only && (whole || batch_asked);
    let mut parts = Vec::with_capacity(2 + steps.len());
    if whole {
        parts.push(*row);
    }
    if batch {
        parts.push(row.with_part(Part::Batch));
    }
    let asked = |record: &&&'a StepRecord| {
        options.steps.iter().any(|step| is_of(step, row) && step.step == record.id())
    };
    let shown = steps.iter().filter(|step| !options.jobs_only && (whole || asked(step)));
    parts.extend(shown.map(|step| row.with_step(step)));
    parts
}

fn is_of(step: &StepSelector, row: &JobRow<'_>) -> bool {
    match step.task {
        None => step.job.0 == row.job.id || step.job.0 == row.array_job_id(),
        Some(task) => step.job.0 == row.array_job_id() && row.task_id() == Some(task.0),
    }
}

fn names(selector: &JobSelector, row: &JobRow<'_>) -> bool {
    let of_array = selector.job().0 == row.array_job_id();
    match selector {
        JobSelector::Job(job) => of_array || job.0 == row.job.id,
        JobSelector::AllTasks(_) => of_array,
        JobSelector::Task(_, task) => of_array && row.task_id() == Some(task.0),
        JobSelector::Tasks(_, tasks) => {
            of_array && row.task_id().is_some_and(|task| tasks.contains(task))
        }
    }
}

/// Slurm's accounting hears of a job once nothing but resources keeps it back; before that it is
/// shown only to who asks for its id.
fn in_window(options: &Options, row: &JobRow<'_>) -> bool {
    let eligible = eligible_ms(row);
    let asked = !options.request.selectors.is_empty();
    let to = options.request.to_ms;
    asked || row.run.is_some() || (eligible != 0 && (to == 0 || eligible <= to))
}

fn passes(checks: &Checks, row: &JobRow<'_>) -> bool {
    let among =
        |list: &[String], text: &str| list.is_empty() || list.iter().any(|wanted| wanted == text);
    among(&checks.qos, &row.spec.qos)
        && among(&checks.clusters, row.cluster)
        && (checks.gids.is_empty() || checks.gids.contains(&row.job.gid))
        && (checks.associations.is_empty() || checks.associations.contains(&row.job.association))
        && checks.nodes.is_none_or(|range| range.holds(row.info.num_nodes.into()))
        && checks.cpus.is_none_or(|range| range.holds(row.info.num_cpus.into()))
        && checks.time_limit.is_none_or(|range| range.holds(row.limit_secs().unwrap_or(u64::MAX)))
}

/// Cuts the times of the run to the window.
fn truncate(info: &mut v1::JobInfo, from: i64, to: i64) {
    let Some(run) = info.job.as_mut().and_then(|job| job.run.as_mut()) else { return };
    if run.start_ms != 0 {
        run.start_ms = run.start_ms.max(from);
    }
    if to != 0 && run.end_ms > to {
        run.end_ms = to;
    }
}

fn sort(infos: &mut [v1::JobInfo]) {
    let mut last_of_array: HashMap<u32, u32> = HashMap::new();
    for job in infos.iter().filter_map(|info| info.job.as_ref()) {
        let last = last_of_array.entry(job.array_job_id).or_insert(job.id);
        *last = (*last).max(job.id);
    }
    infos.sort_by_key(|info| {
        let row = JobRow::accounted(info, 0);
        let attempt = row.run.map_or(u32::MAX, |run| run.attempt);
        match row.pending_tasks() {
            None => (row.job.id, false, attempt),
            Some(_) => {
                let last = last_of_array.get(&row.job.array_job_id).copied();
                (last.unwrap_or(row.job.id), true, attempt)
            }
        }
    });
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
