//! `sstat`: what do the steps of running jobs use at this moment?
//!
//! A job without a step named means its lowest numbered step, with `-a` all of them and its batch
//! script. Every node is asked for what its tasks use just now; the numbers count from their start.

mod fields;
mod options;
mod table;

use penstock_proto::usage::BATCH_STEP;
use penstock_proto::v1;
use penstock_vocab::{INTERACTIVE_STEP, StepId};

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::listing::{Clock, Dialect, Render, Stats, Table, TableColumn, now_ms};
use crate::output::{note, print_line, write_bytes};

use self::fields::Row;
use self::options::{Asked, Choice, Options};

const FAILED: i32 = 1;

/// Slurm's word for who may not ask.
const INVALID_USER: &str = "Invalid user id";

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sstat; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let choice = match options::read(program, &args) {
        Ok(choice) => choice,
        Err(status) => return status,
    };
    match choice {
        Choice::Help => write_bytes(table::HELP.as_bytes()),
        Choice::Usage => write_bytes(table::USAGE.as_bytes()),
        Choice::Version => print_line(crate::dispatch::SLURM_VERSION),
        Choice::HelpFormat => write_bytes(fields::help().as_bytes()),
        Choice::Stat(options) => return stat(program, &options),
    }
    0
}

fn stat(program: &str, options: &Options) -> i32 {
    let client = match Client::open() {
        Ok(client) => client,
        Err(problem) => return failed(program, &problem),
    };
    let clock = Clock::from_env(now_ms());
    let columns: Vec<TableColumn> =
        options.fields.iter().map(|field| field.column.clone()).collect();
    let table = Table::new(columns, options.style.clone());
    let render = Render { dialect: Dialect::Accounting, clock: &clock, units: options.units };
    if options.header {
        let mut out = Vec::new();
        table.push_header(&mut out);
        write_bytes(&out);
    }
    for asked in &options.asked {
        match ask(&client, asked) {
            Ok(parts) => {
                let chosen = choose(options, asked, parts);
                match chosen {
                    Ok(parts) => {
                        let mut out = Vec::new();
                        parts
                            .iter()
                            .for_each(|part| push(&mut out, options, &table, &render, part));
                        write_bytes(&out);
                    }
                    Err(text) => error(program, &text),
                }
            }
            Err(problem) => {
                if let Some(status) = refused(program, asked, &problem) {
                    return status;
                }
            }
        }
    }
    0
}

/// The parts of a job that run.
fn ask(client: &Client, asked: &Asked) -> Result<Vec<v1::StatPart>, RemoteError> {
    let selector = match asked.task {
        Some(task) => format!("{}_{task}", asked.job),
        None => asked.job.to_string(),
    };
    let request = v1::StatJobsRequest { selectors: vec![selector], known: false };
    let replies = client.collect_steps(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.stat_jobs(request).await }
    })?;
    let parts = replies.into_iter().flat_map(|reply| reply.parts).collect::<Vec<_>>();
    // The id of an array names its last task too; then that one is meant.
    let own: Vec<_> = parts.iter().filter(|part| part.job_id == asked.job.0).cloned().collect();
    let all = asked.task.is_some() || own.is_empty();
    Ok(if all { parts } else { own })
}

/// Which of the parts are meant.
///
/// # Errors
/// With Slurm's sentence where none is.
fn choose(
    options: &Options,
    asked: &Asked,
    parts: Vec<v1::StatPart>,
) -> Result<Vec<v1::StatPart>, String> {
    let mut parts = parts;
    parts.sort_by_key(|part| (part.job_id, part.step != BATCH_STEP, part.step));
    if let Some(step) = asked.step {
        let found: Vec<_> = parts.into_iter().filter(|part| step_id(part) == step).collect();
        return if found.is_empty() {
            Err(format!("StepId={}.{step} not found running.", asked.job))
        } else {
            Ok(found)
        };
    }
    if parts.is_empty() {
        return Err(format!("No steps running for job {}", asked.job));
    }
    if options.all_steps {
        return Ok(parts);
    }
    let mut last = None;
    parts.retain(|part| {
        let numbered = matches!(step_id(part), StepId::Number(_));
        numbered && last.replace(part.job_id) != Some(part.job_id)
    });
    Ok(parts)
}

fn step_id(part: &v1::StatPart) -> StepId {
    match part.step {
        BATCH_STEP => StepId::Batch,
        INTERACTIVE_STEP => StepId::Interactive,
        number => StepId::Number(number),
    }
}

fn push(
    out: &mut Vec<u8>,
    options: &Options,
    table: &Table,
    render: &Render<'_>,
    part: &v1::StatPart,
) {
    let id = step_id(part);
    if options.by_node {
        for node in &part.nodes {
            let stats = Stats::default();
            let row =
                Row { part, id, nodes: std::slice::from_ref(node), nodelist: &node.node, stats };
            push_row(out, options, table, render, &row);
        }
        return;
    }
    let usage = part.nodes.iter().filter_map(|node| Some((&*node.node, node.usage.as_ref()?)));
    let stats = Stats::of(usage);
    let row = Row { part, id, nodes: &part.nodes, nodelist: &part.nodelist, stats };
    push_row(out, options, table, render, &row);
}

fn push_row(
    out: &mut Vec<u8>,
    options: &Options,
    table: &Table,
    render: &Render<'_>,
    row: &Row<'_>,
) {
    let mut text = String::new();
    for (at, field) in options.fields.iter().enumerate() {
        let value = (field.value)(row);
        text.clear();
        render.push(&mut text, &value);
        table.push_cell(out, at, &text, true);
    }
    out.push(b'\n');
}

/// Tells of a job that could not be asked about; the exit status where nothing can be.
fn refused(program: &str, asked: &Asked, problem: &RemoteError) -> Option<i32> {
    let RemoteError::Refused(refusal) = problem else { return Some(failed(program, problem)) };
    let job = asked.job;
    if refusal.kind == "AccessDenied" {
        let step = asked.step.map_or_else(String::new, |step| format!(".{step}"));
        let what = format!("problem getting step_layout for StepId={job}{step}");
        error(program, &format!("{what}: {INVALID_USER}"));
        if !refusal.detail.is_empty() {
            note(&format!("{program}: {}", refusal.detail));
        }
    } else {
        error(program, &format!("couldn't get steps for job {job}"));
    }
    None
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    error(program, problem.slurm_text());
    FAILED
}

#[cfg(test)]
mod tests {
    use penstock_vocab::JobId;

    use super::*;

    fn part(job_id: u32, step: u32) -> v1::StatPart {
        v1::StatPart { job_id, step, ..v1::StatPart::default() }
    }

    #[test]
    fn a_job_means_its_lowest_step_and_with_a_all() {
        let parts = || vec![part(1, 3), part(1, BATCH_STEP), part(1, 0), part(1, INTERACTIVE_STEP)];
        let ids = |all_steps: bool, step: Option<StepId>, parts: Vec<v1::StatPart>| {
            let options = Options { all_steps, ..options::tests::options(&["-j", "1"]) };
            let asked = Asked { job: JobId(1), task: None, step };
            let chosen = choose(&options, &asked, parts)?;
            Ok(chosen.iter().map(|part| step_id(part).to_string()).collect::<Vec<_>>().join(" "))
        };
        for (all, step, expect) in [
            (false, None, Ok("0")),
            (true, None, Ok("batch 0 3 interactive")),
            (false, Some(StepId::Batch), Ok("batch")),
            (true, Some(StepId::Number(3)), Ok("3")),
            (false, Some(StepId::Number(7)), Err("StepId=1.7 not found running.")),
        ] {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(ids(all, step, parts()), expect, "{all} {step:?}");
        }
        let nothing: Result<String, String> = Err("No steps running for job 1".into());
        assert_eq!(ids(true, None, Vec::new()), nothing);
        assert_eq!(ids(false, None, vec![part(1, BATCH_STEP)]), Ok(String::new()));
    }
}
