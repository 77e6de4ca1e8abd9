//! `sprio`: of which factors is the priority of each waiting job made?

mod fields;
mod options;
mod print;
mod table;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::output::{note, print_line, write_bytes};

use self::options::{Choice, Options};

const FAILED: i32 = 1;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sprio; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let choice = match options::read(program, &args, &|name| std::env::var(name).ok()) {
        Ok(choice) => choice,
        Err(status) => return status,
    };
    match choice {
        Choice::Help => write_bytes(table::HELP.as_bytes()),
        Choice::Usage => write_bytes(table::USAGE.as_bytes()),
        Choice::Version => print_line(crate::dispatch::SLURM_VERSION),
        Choice::List(options) => return list(program, &options),
    }
    0
}

fn list(program: &str, options: &Options) -> i32 {
    let request = v1::ListPrioritiesRequest { selectors: options.selectors.clone() };
    let answer = Client::open().and_then(|client| {
        client.planning(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.list_priorities(request).await }
        })
    });
    match answer {
        Ok(reply) => {
            write_bytes(&print::text(program, options, &reply));
            0
        }
        Err(problem) => failed(program, &problem),
    }
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    note(&format!("slurm_load_job_prio error: {}", problem.slurm_text()));
    FAILED
}
