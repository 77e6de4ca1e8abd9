//! `penstock what-if CHANGE`: who would start when, if something were otherwise?
//!
//! The controller plans twice on the same snapshot, without and with the change; nothing is changed.

mod text;

use penstock_proto::v1;
use penstock_proto::v1::what_if_request::{Change, Drain, Limit, Weights};
use prost::Message as _;

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::listing::Clock;
use crate::output::write_bytes;
use crate::text_file::read_text;

const PROGRAM: &str = "penstock what-if";

const FAILED: i32 = 1;

/// Longest file of weights.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What would be otherwise.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WhatIf {
    /// A job were submitted; takes what sbatch takes
    #[command(disable_help_flag = true)]
    Submit {
        /// Options, script and arguments, as for sbatch
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Nodes were drained
    Drain {
        /// Hostlist, e.g. n[1-3]
        nodes: String,
    },
    /// Accounts, shares or limits were changed; takes what sacctmgr takes
    #[command(disable_help_flag = true)]
    Limit {
        /// As for sacctmgr, e.g. modify account physics set fairshare=10
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// The order of jobs were reckoned in another way
    Weights {
        /// File with the sections [priority] and [backfill] of a cluster file
        file: std::path::PathBuf,
    },
}

impl WhatIf {
    /// Asks and prints; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        let change = match self {
            Self::Submit { args } => match crate::sbatch::spec_of(&args) {
                Ok(spec) => Change::Submit(spec),
                Err(status) => return status,
            },
            Self::Drain { nodes } => Change::Drain(Drain { nodes }),
            Self::Limit { args } => match crate::sacctmgr::changes_of(&args) {
                Ok(changes) => {
                    let request =
                        v1::ChangeAccountsRequest { request_id: Default::default(), changes };
                    Change::Limit(Limit { account_change: request.encode_to_vec().into() })
                }
                Err(status) => return status,
            },
            Self::Weights { file } => match read_text(&file, MAX_FILE_BYTES) {
                Ok(toml) => Change::Weights(Weights { toml }),
                Err(why) => {
                    error(PROGRAM, &format!("cannot read {}: {why}", file.display()));
                    return FAILED;
                }
            },
        };
        match ask(change) {
            Ok(reply) => {
                let clock = Clock::from_env(reply.now_ms);
                write_bytes(text::text(&reply, &clock).as_bytes());
                0
            }
            Err(problem) => {
                problem.report(PROGRAM, "");
                FAILED
            }
        }
    }
}

/// What the controller's engine says about a change.
///
/// # Errors
/// When it refuses the change, or does not answer.
pub(crate) fn ask(change: Change) -> Result<v1::WhatIfReply, RemoteError> {
    let request = v1::WhatIfRequest { change: Some(change) };
    Client::open()?.planning(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.what_if(request).await }
    })
}
