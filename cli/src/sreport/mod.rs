//! `sreport`: who used how much of the cluster, and how much of it was used at all?
//!
//! The controller sums what jobs of each user had in each account within the time; this puts it into
//! Slurm's reports, in time, in per cent, or in money.

mod lines;
mod options;
mod table;
mod units;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::listing::Clock;
use crate::output::{note, print_line, write_bytes};

use self::options::{Choice, Options};

const FAILED: i32 = 1;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sreport; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let now = jiff::ZonedDateTime::now();
    let choice = match options::read(program, &args, &now) {
        Ok(choice) => choice,
        Err(status) => return status,
    };
    match choice {
        Choice::Help => write_bytes(table::HELP.as_bytes()),
        Choice::Usage => write_bytes(table::USAGE.as_bytes()),
        Choice::Version => print_line(crate::dispatch::SLURM_VERSION),
        Choice::Report(options) => return report(program, &options, &now),
    }
    0
}

fn report(program: &str, options: &Options, now: &jiff::ZonedDateTime) -> i32 {
    let request = v1::ReportUsageRequest { start_ms: options.start_ms, end_ms: options.end_ms };
    let answer = Client::open().and_then(|client| {
        let usage = client
            .accounting(Patience::READ, |mut rpc| async move { rpc.report_usage(request).await })?;
        let tree = client.accounting(Patience::READ, |mut rpc| async move {
            rpc.list_accounts(v1::ListAccountsRequest {}).await
        })?;
        Ok((usage, tree))
    });
    let (usage, tree) = match answer {
        Ok(answer) => answer,
        Err(problem) => return failed(program, &problem),
    };
    let clock = Clock::new(now.time_zone().clone(), None, now.timestamp().as_millisecond());
    match lines::text(options, &usage, &tree, &clock) {
        Ok(text) => {
            write_bytes(&text);
            0
        }
        Err(why) => {
            note(&format!("{program}: fatal: {why}"));
            FAILED
        }
    }
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    note(&format!(
        "{program}: fatal: Problem connecting to the database: {}",
        problem.slurm_text()
    ));
    FAILED
}
