//! `penstock token`, `host` and `store`: how does an administrator let hosts in, put them out, and
//! look after what is stored?

mod host;
mod store;
mod token;

use clap::Subcommand;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;

const PROGRAM: &str = "penstock";

/// Exit status of everything that fails.
const FAILED: i32 = 1;

/// What an administrator can do besides Slurm's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Make tokens with which hosts join
    #[command(subcommand)]
    Token(token::Token),
    /// List the hosts of the cluster, put one out, or let one in anew
    #[command(subcommand)]
    Host(host::Host),
    /// Check, export or restore a store; the controller must be stopped
    #[command(subcommand)]
    Store(store::Store),
}

/// Carries out one of the commands; returns its exit status.
pub(crate) fn run(command: Admin) -> i32 {
    match command {
        Admin::Token(command) => command.run(),
        Admin::Host(command) => command.run(),
        Admin::Store(command) => command.run(),
    }
}

/// Makes one call and prints why it failed, if it did.
fn call<T, F, Fut>(patience: Patience, attempt: F) -> Result<T, i32>
where
    F: FnMut(crate::connect::Rpc) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let answer = Client::open().and_then(|client| client.call(patience, attempt));
    answer.map_err(|failure: RemoteError| {
        failure.report(PROGRAM, "");
        FAILED
    })
}
