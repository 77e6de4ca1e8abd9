//! How is a job sent, and what is printed when it is in?

use std::time::Duration;

use penstock_proto::{MAX_BLOB_BYTES, v1};

use crate::connect::{Client, Patience};
use crate::errors::{RemoteError, error};
use crate::output::{note, print_line};
use crate::sbatch::request::Request;
use crate::sbatch::{FAILED, PROGRAM};

/// Seconds for which the controller may hold one question about the end of a job.
const WAIT_SECS: u32 = 50;

/// What comes before the text of a refused submission.
const REFUSED: &str = "Batch job submission failed";

/// What Slurm says before that when no node has the memory.
const MEMORY: &str = "Memory specification can not be satisfied";

/// How a submission went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It is in; with `--wait`, the job's own exit status, otherwise 0.
    Ended(i32),
    /// It is not, or its end could not be learned; the reason is printed.
    Failed,
}

/// Sends the job and prints its id; with `--wait`, waits for its end.
pub(crate) fn submit(request: &Request, message: &v1::SubmitJobRequest) -> Submitted {
    if message.environment.len() > MAX_BLOB_BYTES {
        let size = message.environment.len();
        error(
            PROGRAM,
            &format!(
                "the environment is {size} bytes long, {MAX_BLOB_BYTES} are allowed; choose with --export"
            ),
        );
        return Submitted::Failed;
    }
    let client = match Client::open() {
        Ok(client) => client,
        Err(failure) => {
            report(&failure);
            return Submitted::Failed;
        }
    };
    let reply = client.call(Patience::CHANGE, |mut rpc| {
        let message = message.clone();
        async move { rpc.submit_job(message).await }
    });
    let reply = match reply {
        Ok(reply) => reply,
        Err(failure) => {
            report(&failure);
            let unknown = matches!(&failure, RemoteError::Refused(refusal) if refusal.kind == "InvalidPartition");
            if let Some(spec) = message.spec.as_ref().filter(|_| unknown) {
                crate::suggest::partition(&client, PROGRAM, &spec.partitions);
            }
            return Submitted::Failed;
        }
    };
    if !request.quiet {
        for warning in &reply.warnings {
            note(&format!("{PROGRAM}: {warning}"));
        }
        print_line(&accepted(reply.job_id, request.parsable));
    }
    if request.wait { wait(&client, reply.job_id) } else { Submitted::Ended(0) }
}

/// The line on standard output that tools read.
fn accepted(job_id: u32, parsable: bool) -> String {
    if parsable { job_id.to_string() } else { format!("Submitted batch job {job_id}") }
}

/// Asks when the job would start, and tells; returns the exit status.
pub(crate) fn test_only(program: &str, spec: v1::JobSpec) -> i32 {
    let answer = crate::whatif::ask(v1::what_if_request::Change::Submit(spec));
    let told = answer.map_err(|failure| {
        let detail = failure.detail().into_iter();
        let lines: Vec<String> = detail.map(|line| format!("{program}: error: {line}")).collect();
        (lines, failure.slurm_text().to_owned())
    });
    let clock = crate::listing::Clock::from_env(crate::listing::now_ms());
    match told
        .and_then(|reply| would_start(program, &reply, &clock).map_err(|why| (Vec::new(), why)))
    {
        Ok(line) => {
            note(&line);
            0
        }
        Err((lines, why)) => {
            lines.iter().for_each(|line| note(line));
            note(&format!("allocation failure: {why}"));
            FAILED
        }
    }
}

/// Slurm's line for a job that is only tried; the error is why there is no start to tell.
fn would_start(
    program: &str,
    reply: &v1::WhatIfReply,
    clock: &crate::listing::Clock,
) -> Result<String, String> {
    let Some(row) = reply.rows.first() else {
        return Err("the controller tells nothing about the job".to_owned());
    };
    if row.after_ms == 0 {
        let reason = row.reason_after.as_str();
        return Err(if reason.is_empty() { "no start can be foreseen" } else { reason }.to_owned());
    }
    let mut start = String::new();
    clock.push(&mut start, row.after_ms);
    Ok(format!(
        "{program}: Job {} to start at {start} using {} processors on nodes {} in partition {}",
        row.job, reply.cpus, row.nodes_after, row.partition
    ))
}

fn report(failure: &RemoteError) {
    for line in refusal_lines(REFUSED, failure) {
        error(PROGRAM, &line);
    }
}

/// What a failed submission prints, each line behind `sbatch: error: `; `refused` begins the last.
pub(crate) fn refusal_lines(refused: &str, failure: &RemoteError) -> Vec<String> {
    let memory = match failure {
        RemoteError::Refused(refusal) if refusal.kind == "MemoryNeverFits" => {
            Some(MEMORY.to_owned())
        }
        _ => None,
    };
    let last = format!("{refused}: {}", failure.slurm_text());
    failure.detail().into_iter().chain(memory).chain([last]).collect()
}

/// Waits until the job has ended; the controller may come and go meanwhile.
fn wait(client: &Client, job_id: u32) -> Submitted {
    let patience = Patience {
        deadline: Duration::from_secs(u64::from(WAIT_SECS) + 10),
        retry_for: Duration::from_secs(60),
    };
    loop {
        let question = v1::WaitJobRequest { job_id, timeout_secs: WAIT_SECS };
        let answer = client.call(patience, |mut rpc| async move { rpc.wait_job(question).await });
        match answer {
            Ok(reply) if reply.ended => return Submitted::Ended(exit_status(&reply)),
            Ok(_) | Err(RemoteError::Unreachable(_)) => {}
            Err(failure) => {
                failure.report(PROGRAM, &format!("cannot wait for job {job_id}"));
                return Submitted::Failed;
            }
        }
    }
}

/// The job's highest exit status; 1 where only a signal tells of its failure.
fn exit_status(reply: &v1::WaitJobReply) -> i32 {
    match (reply.exit_status, reply.exit_signal) {
        (0, 0) => 0,
        (0, _) => FAILED,
        (status, _) => i32::try_from(status).unwrap_or(FAILED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_told_as_tools_read_it() {
        assert_eq!(accepted(12, false), "Submitted batch job 12");
        assert_eq!(accepted(12, true), "12");
    }

    #[test]
    fn a_job_that_is_only_tried_is_told_as_slurm_tells_it() {
        let clock = crate::listing::Clock::new(jiff::tz::TimeZone::UTC, None, 0);
        let mut reply = v1::WhatIfReply {
            rows: vec![v1::WhatIfRow {
                job: "7".into(),
                after_ms: crate::listing::testing::SUBMIT,
                nodes_after: "n[1-3]".into(),
                partition: "main".into(),
                ..v1::WhatIfRow::default()
            }],
            cpus: 9,
            ..v1::WhatIfReply::default()
        };
        assert_eq!(
            would_start(PROGRAM, &reply, &clock).as_deref(),
            Ok("sbatch: Job 7 to start at 2026-11-24T08:05:47 using 9 processors on nodes n[1-3] \
                in partition main")
        );
        reply.rows[0].after_ms = 0;
        reply.rows[0].reason_after = "AssocGrpCpuLimit".into();
        assert_eq!(would_start(PROGRAM, &reply, &clock), Err("AssocGrpCpuLimit".into()));
    }

    #[test]
    fn the_exit_status_is_the_jobs() {
        for (status, signal, expect) in [(0, 0, 0), (3, 0, 3), (0, 9, 1), (3, 9, 3)] {
            let reply = v1::WaitJobReply { ended: true, exit_status: status, exit_signal: signal };
            assert_eq!(exit_status(&reply), expect);
        }
    }

    #[test]
    fn a_refusal_is_told_before_slurms_line() {
        let refusal = v1::Refusal {
            kind: "InvalidPartition".into(),
            slurm_text: "Invalid partition name specified".into(),
            detail: "invalid partition specified: nope".into(),
        };
        let lines = refusal_lines(REFUSED, &RemoteError::Refused(refusal));
        assert_eq!(
            lines,
            [
                "invalid partition specified: nope",
                "Batch job submission failed: Invalid partition name specified",
            ]
        );
    }

    #[test]
    fn memory_that_no_node_has_is_told_in_slurms_words() {
        let refusal = v1::Refusal {
            kind: "MemoryNeverFits".into(),
            slurm_text: "Requested node configuration is not available".into(),
            detail: "no node has 9T".into(),
        };
        let lines = refusal_lines(REFUSED, &RemoteError::Refused(refusal));
        assert_eq!(lines[..2], ["no node has 9T", "Memory specification can not be satisfied"]);
    }
}
