//! `seff`: how well did a job use what it asked for?
//!
//! The lines of Slurm's seff, then ours about GPUs, then what to ask for next time. What was not
//! measured is said to be unknown; it is never shown as nothing.

mod gpus;
mod text;
mod used;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::error;
use crate::listing::{cluster_name, now_ms};
use crate::output::{print_line, write_bytes};

const PROGRAM: &str = "seff";

const FAILED: i32 = 1;

const HELP: &str = "\
Usage: seff [-h] [-v] JOBID...
  How well jobs used their CPUs, memory and GPUs, and what to ask for next time.

  -h, --help     this text
  -V, --version  the version
";

/// Runs seff; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    let mut jobs = Vec::new();
    for arg in args {
        match arg.as_str() {
            "-h" | "--help" => {
                write_bytes(HELP.as_bytes());
                return 0;
            }
            "-V" | "--version" => {
                print_line(crate::dispatch::SLURM_VERSION);
                return 0;
            }
            // Slurm's seff takes a mode for debugging, which has nothing to tell here.
            "-v" => {}
            word if word.starts_with('-') => {
                error(PROGRAM, &format!("unknown option {word}; seff --help lists what there is"));
                return FAILED;
            }
            _ => jobs.push(arg),
        }
    }
    if jobs.is_empty() {
        error(PROGRAM, "give the id of a job, as seff 12 or seff 12_3");
        return FAILED;
    }
    match ask(&jobs) {
        Ok(answer) => tell(&jobs, &answer),
        Err(failure) => {
            if let Some(detail) = failure.detail() {
                error(PROGRAM, &detail);
            }
            error(PROGRAM, failure.slurm_text());
            FAILED
        }
    }
}

/// What is known of the jobs.
struct Known {
    jobs: Vec<v1::JobInfo>,
    /// What parts of those use that run.
    live: Vec<v1::StatPart>,
    cluster: String,
}

fn ask(jobs: &[String]) -> Result<Known, crate::errors::RemoteError> {
    let client = Client::open()?;
    let request = v1::ListAccountingRequest {
        selectors: jobs.to_vec(),
        all_users: true,
        ..v1::ListAccountingRequest::default()
    };
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_accounting(request).await }
    })?;
    let infos: Vec<_> = replies.into_iter().flat_map(|reply| reply.jobs).collect();
    let live = infos.iter().flat_map(|info| stat(&client, info)).collect();
    Ok(Known { jobs: infos, live, cluster: cluster_name(&client) })
}

/// What a running job uses now; nothing where it does not run, or is not ours to know.
fn stat(client: &Client, info: &v1::JobInfo) -> Vec<v1::StatPart> {
    let job = info.job.as_ref();
    let running = job.filter(|job| job.run.as_ref().is_some_and(|run| run.end_ms == 0));
    let Some(job) = running else { return Vec::new() };
    let request = v1::StatJobsRequest { selectors: vec![job.id.to_string()], known: false };
    let replies = client.collect_steps(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.stat_jobs(request).await }
    });
    replies.unwrap_or_default().into_iter().flat_map(|reply| reply.parts).collect()
}

fn tell(jobs: &[String], known: &Known) -> i32 {
    if known.jobs.is_empty() {
        error(PROGRAM, &format!("Job not found: {}", jobs.join(", ")));
        return FAILED;
    }
    let now = now_ms();
    let report = |info| text::report(info, &known.live, &known.cluster, now);
    let reports: Vec<String> = known.jobs.iter().map(report).collect();
    write_bytes(reports.join("\n").as_bytes());
    0
}
