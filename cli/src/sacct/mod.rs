//! `sacct`: what did jobs use, and how did they end?
//!
//! A job has a row, and another for its batch step once that began. Which jobs are meant by default
//! depends on what is asked: all of today's, those of the given ids whenever they were, or those in
//! the given states at this moment.

mod fields;
mod options;
mod rows;
mod table;

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::listing::{Clock, cluster_name, now_ms, steps_of_jobs};
use crate::output::{print_line, write_bytes};

pub(crate) use self::rows::whole_form;

use self::options::{Choice, Options};

const FAILED: i32 = 1;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sacct; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let now = jiff::ZonedDateTime::now();
    let choice = match options::read(program, &args, &|name| std::env::var(name).ok(), &now) {
        Ok(choice) => choice,
        Err(status) => return status,
    };
    match choice {
        Choice::Help => write_bytes(table::HELP.as_bytes()),
        Choice::Usage => write_bytes(table::USAGE.as_bytes()),
        Choice::Version => print_line(crate::dispatch::SLURM_VERSION),
        Choice::HelpFormat => write_bytes(fields::help().as_bytes()),
        Choice::List(options) => return list(program, &options),
    }
    0
}

fn list(program: &str, options: &Options) -> i32 {
    let answer = Client::open().and_then(|client| {
        let replies = client.collect(Patience::READ, |mut rpc| {
            let request = options.request.clone();
            async move { rpc.list_accounting(request).await }
        })?;
        let cluster = if options.needs_cluster() { cluster_name(&client) } else { String::new() };
        Ok((replies, cluster))
    });
    let (replies, cluster) = match answer {
        Ok(answer) => answer,
        Err(problem) => return failed(program, &problem),
    };
    let clock = Clock::from_env(now_ms());
    let infos: Vec<_> = replies.into_iter().flat_map(|reply| reply.jobs).collect();
    let steps = if options.jobs_only { Vec::new() } else { steps_of_jobs(&infos) };
    if let Some(form) = options.form {
        let text = rows::form(options, form, infos, &steps, &cluster, &clock);
        write_bytes(text.as_bytes());
        return 0;
    }
    rows::print(options, infos, &steps, &cluster, &clock, &mut |bytes| write_bytes(bytes));
    0
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    error(program, &format!("Problem talking to the database: {}", problem.slurm_text()));
    FAILED
}
