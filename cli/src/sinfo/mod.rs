//! `sinfo`: in which states are the nodes of each partition?
//!
//! Nodes that are equal in all printed fields share a line; see `listing::group_nodes`.

mod options;
mod print;
mod reservations;
mod select;
mod table;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::json::{self, Source};
use crate::listing::{Clock, NodeRow, now_ms};
use crate::output::{note, print_line, write_bytes};

use self::options::{Choice, Options};

const FAILED: i32 = 1;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sinfo; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let choice = match options::read(program, &args, &|name| std::env::var(name).ok()) {
        Ok(choice) => choice,
        Err(status) => return status,
    };
    match choice {
        Choice::Help => write_bytes(table::HELP.as_bytes()),
        Choice::Usage => write_bytes(table::USAGE.as_bytes()),
        Choice::Version => print_line(crate::dispatch::SLURM_VERSION),
        Choice::Reservations { header } => return reservations(program, header),
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
    let (nodes, partitions) = match ask(client) {
        Ok(answers) => answers,
        Err(problem) => return failed(program, &problem),
    };
    if let Some(form) = options.form {
        let meant = nodes.iter().filter(|info| print::is_meant(options, &NodeRow::new(info)));
        let records = json::nodes(meant);
        write_bytes(form.answer(Source::Controller, "nodes", records).as_bytes());
        return 0;
    }
    let clock = Clock::from_env(now_ms());
    write_bytes(&print::print(options, &nodes, &partitions, &clock));
    if let Some(wanted) = &options.partitions {
        let names: Vec<&str> = partitions.iter().map(|info| info.name.as_str()).collect();
        crate::suggest::partition_among(program, wanted, &names);
    }
    0
}

fn ask(client: &Client) -> Result<(Vec<v1::NodeInfo>, Vec<v1::PartitionInfo>), RemoteError> {
    let nodes = client.call(Patience::READ, |mut rpc| async move {
        rpc.list_nodes(v1::ListNodesRequest::default()).await
    })?;
    let partitions = client.call(Patience::READ, |mut rpc| async move {
        rpc.list_partitions(v1::ListPartitionsRequest::default()).await
    })?;
    Ok((nodes.nodes, partitions.partitions))
}

fn reservations(program: &str, header: bool) -> i32 {
    let reply = Client::open().and_then(|client| {
        client.planning(Patience::READ, |mut rpc| async move {
            rpc.list_reservations(v1::ListReservationsRequest {}).await
        })
    });
    match reply {
        Ok(reply) if reply.reservations.is_empty() => print_line("No reservations in the system"),
        Ok(reply) => {
            let clock = Clock::from_env(reply.now_ms);
            write_bytes(reservations::table(&reply, header, &clock).as_bytes());
        }
        Err(problem) => return failed(program, &problem),
    }
    0
}

fn failed(program: &str, problem: &RemoteError) -> i32 {
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    note(&format!("slurm_load_partitions: {}", problem.slurm_text()));
    FAILED
}
