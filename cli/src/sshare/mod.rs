//! `sshare`: who has which share, who used how much of it, and whose turn is it?
//!
//! The controller reckons; this chooses rows and columns. `--explain USER` puts the numbers of one
//! user into sentences.

mod explain;
mod fields;
mod options;
mod rows;
mod table;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::listing::cluster_name;
use crate::output::{note, print_line, write_bytes};

use self::options::{Choice, Options};

const FAILED: i32 = 1;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sshare; returns its exit status.
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
        Choice::List(options) => return list(program, &options),
        Choice::Explain(user, accounts) => return explain(program, &user, &accounts),
    }
    0
}

fn ask() -> Result<(Client, v1::ListSharesReply), RemoteError> {
    let client = Client::open()?;
    let reply = client.accounting(Patience::READ, |mut rpc| async move {
        rpc.list_shares(v1::ListSharesRequest {}).await
    })?;
    Ok((client, reply))
}

fn list(program: &str, options: &Options) -> i32 {
    match ask() {
        Ok((client, reply)) => {
            let cluster = if options.needs_cluster { cluster_name(&client) } else { String::new() };
            let rows = rows::choose(options, &reply.rows, &cluster);
            write_bytes(&options.report.text(&rows));
            0
        }
        Err(problem) => failed(program, &problem),
    }
}

fn explain(program: &str, user: &str, accounts: &[String]) -> i32 {
    match ask() {
        Ok((_, reply)) => match explain::text(&reply, user, accounts) {
            Some(text) => {
                write_bytes(text.as_bytes());
                0
            }
            None => {
                let (place, name) = match accounts {
                    [] => (String::new(), "NAME".to_owned()),
                    named => (format!(" in {}", named.join(", ")), named.join(",")),
                };
                let how = format!("sacctmgr add user {user} account={name} gives one");
                error(program, &format!("user {user} has no association{place}; {how}"));
                FAILED
            }
        },
        Err(problem) => failed(program, &problem),
    }
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    note(&format!("slurm_associations_get_shares error: {}", problem.slurm_text()));
    FAILED
}
