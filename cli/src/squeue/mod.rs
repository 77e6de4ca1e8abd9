//! `squeue`: which jobs wait or run, and in which columns?
//!
//! A listing that needs only squeue's default columns asks for no more.

mod options;
mod print;
mod sort;
mod steps;
mod table;
mod watch;

use penstock_proto::v1;

use crate::connect::{Client, Patience, Rpc};
use crate::errors::{RemoteError, error};
use crate::json::{Form, Source, queued_jobs};
use crate::listing::{Clock, JobRow, cluster_name, list_limit_from_env, now_ms};
use crate::output::{note, print_line, write_bytes};

use self::options::{Choice, Options};
use self::print::{Lines, Page};

const FAILED: i32 = 1;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs squeue; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let choice = match options::read(program, &args, &|name| std::env::var(name).ok()) {
        Ok(choice) => choice,
        Err(status) => return status,
    };
    match choice {
        Choice::Help => write_bytes(table::HELP.as_bytes()),
        Choice::Usage => write_bytes(table::USAGE.as_bytes()),
        Choice::Version => print_line(crate::dispatch::SLURM_VERSION),
        Choice::Steps(options) => return steps::run(program, &options),
        Choice::List(options) => return list_again(program, &options),
    }
    0
}

/// Lists once, or every so many seconds.
fn list_again(program: &str, options: &Options) -> i32 {
    let client = match Client::open() {
        Ok(client) => client,
        Err(problem) => return failed(program, &problem),
    };
    if options.watch {
        return watch::watch(program, &client, options);
    }
    let Some(pause) = options.iterate else { return list(program, &client, options) };
    loop {
        print_line(&Clock::from_env(now_ms()).date_line());
        let status = list(program, &client, options);
        if status != 0 {
            return status;
        }
        print_line("");
        std::thread::sleep(pause);
    }
}

fn list(program: &str, client: &Client, options: &Options) -> i32 {
    if let Err(status) = check_nodes(program, client, options) {
        return status;
    }
    let cluster = if options.needs_cluster() { cluster_name(client) } else { String::new() };
    let clock = Clock::from_env(now_ms());
    let list_limit = list_limit_from_env();
    let limit_given = std::env::var_os("SLURM_BITSTR_LEN").is_some();
    let page = Page { options, clock: &clock, cluster: &cluster, list_limit, limit_given };
    if let Some(letter) = options.bad_sort {
        let mut head = Vec::new();
        page.push_head(&mut head);
        write_bytes(&head);
        error(program, &format!("Invalid sort specification: {letter}"));
        return FAILED;
    }
    if let Some(form) = options.form {
        return print_form(program, client, options, form);
    }
    let request = options.request();
    let answer = if options.matches_nothing {
        Ok(page.lines())
    } else {
        let ask = |mut rpc: Rpc| {
            let request = request.clone();
            async move { rpc.list_jobs(request).await }
        };
        let take = |lines: &mut Lines, reply: v1::ListJobsReply| page.take(lines, &reply);
        client.fold(Patience::READ, ask, || page.lines(), take)
    };
    let lines = match answer {
        Ok(lines) => lines,
        Err(problem) => return failed(program, &problem),
    };
    // As Slurm does, several ids are a filter; one is a question about that job.
    if lines.unknown && options.selectors.len() == 1 {
        note("slurm_load_jobs error: Invalid job id specified");
        return FAILED;
    }
    let empty = lines.is_empty();
    page.print(lines, &mut |bytes| write_bytes(bytes));
    if empty && !options.filter.partitions.is_empty() {
        crate::suggest::partition(client, program, &options.filter.partitions);
    }
    0
}

/// Lists for programs.
fn print_form(program: &str, client: &Client, options: &Options, form: Form) -> i32 {
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = options.request();
        async move { rpc.list_jobs(request).await }
    });
    let replies = match replies {
        Ok(replies) => replies,
        Err(problem) => return failed(program, &problem),
    };
    let (clock, cluster) = (Clock::from_env(now_ms()), cluster_name(client));
    let mut rows = Vec::new();
    let infos = replies.iter().flat_map(|reply| &reply.jobs);
    for info in infos.filter(|_| !options.matches_nothing) {
        let mut row = JobRow::live(info, clock.now_ms());
        row.cluster = &cluster;
        options.each_row(row, &mut |row| rows.push(row));
    }
    // As the controller's table has them.
    rows.sort_by_key(|row| (row.array_job_id(), row.task_id().is_none(), row.task_id()));
    let records = queued_jobs(rows, &clock);
    write_bytes(form.answer(Source::Controller, "jobs", records).as_bytes());
    0
}

/// Slurm refuses a `-w` list that holds a name of no node.
fn check_nodes(program: &str, client: &Client, options: &Options) -> Result<(), i32> {
    if options.filter.nodes.is_empty() {
        return Ok(());
    }
    let request = v1::ListNodesRequest { nodes: options.filter.nodes.join(",") };
    let answer = client.call(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_nodes(request).await }
    });
    match answer.map_err(|problem| failed(program, &problem))?.unknown.first() {
        None => Ok(()),
        Some(name) => {
            error(program, &format!("Invalid node name {name}"));
            Err(FAILED)
        }
    }
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    note(&format!("slurm_load_jobs error: {}", problem.slurm_text()));
    FAILED
}
