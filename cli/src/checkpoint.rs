//! `penstock checkpoint-done`: a job tells that it has saved its state.
//!
//! What it has computed until then is not lost if it is preempted; jobs that would lose least are
//! preempted first.

use penstock_proto::v1;

use crate::connect::{Client, Patience, request_id};
use crate::errors::error;

const PROGRAM: &str = "penstock checkpoint-done";

const FAILED: i32 = 1;

/// What `penstock checkpoint-done` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckpointDone {
    /// The job; without it, the one of SLURM_JOB_ID, inside which this is run
    job: Option<u32>,
}

impl CheckpointDone {
    /// Tells the controller; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        let here = || std::env::var("SLURM_JOB_ID").ok().and_then(|text| text.trim().parse().ok());
        let Some(job_id) = self.job.or_else(here) else {
            error(PROGRAM, "SLURM_JOB_ID is not set; give the job, as this is not run inside one");
            return FAILED;
        };
        let request = v1::CheckpointDoneRequest { request_id: request_id(), job_id };
        let answer = Client::open().and_then(|client| {
            client.planning(Patience::CHANGE, |mut rpc| {
                let request = request.clone();
                async move { rpc.checkpoint_done(request).await }
            })
        });
        match answer {
            Ok(_) => 0,
            Err(problem) => {
                problem.report(PROGRAM, &format!("job {job_id}"));
                FAILED
            }
        }
    }
}
