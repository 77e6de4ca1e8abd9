//! `penstock web`: how does a person get into the controller's page?
//!
//! By a link that is asked for through this host's socket, so that nobody types a password. Here too are the
//! writers of Slurm's JSON that the controller's REST answers with: those of the commands.

mod shapes;

pub(crate) use shapes::shapes;

use std::path::PathBuf;

use clap::Args;
use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::output::{note, print_line};

const PROGRAM: &str = "penstock";

/// Prints a link.
#[derive(Debug, Args)]
pub(crate) struct Web {
    /// Whoever follows it may look and change nothing
    #[arg(long)]
    read_only: bool,
}

impl Web {
    /// Prints the link; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        match Client::open().and_then(|client| link(&client, self.read_only)) {
            Ok(reply) => {
                print_line(&reply.url);
                note("opens in one browser, once, within five minutes");
                0
            }
            Err(failure) => {
                failure.report(PROGRAM, "");
                1
            }
        }
    }
}

fn link(client: &Client, read_only: bool) -> Result<v1::CreateWebLinkReply, RemoteError> {
    client.web(Patience::CHANGE, |mut rpc| async move {
        rpc.create_web_link(v1::CreateWebLinkRequest { read_only }).await
    })
}

/// The link that the controller behind a socket gives to this user, if it serves HTTP.
pub(crate) fn link_at(socket: PathBuf) -> Option<String> {
    let client = Client::at(socket).ok()?;
    link(&client, false).ok().map(|reply| reply.url)
}
