//! `penstock explain JOB`: why does a job wait, until when, and what would start it sooner?
//!
//! The controller asks its own engine; this puts the answer into lines.

mod text;

pub(crate) use text::{TimeWords, aligned};

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::listing::Clock;
use crate::output::write_bytes;

const PROGRAM: &str = "penstock explain";

const FAILED: i32 = 1;

/// What `penstock explain` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The job: 12, or a task of an array, 12_3
    job: String,
    /// Do not try which changes would start it sooner
    #[arg(long)]
    no_suggestions: bool,
}

impl Explain {
    /// Asks and prints; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        let request = v1::ExplainRequest { selector: self.job, suggest: !self.no_suggestions };
        let answer = Client::open().and_then(|client| {
            client.planning(Patience::READ, |mut rpc| {
                let request = request.clone();
                async move { rpc.explain(request).await }
            })
        });
        match answer {
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
