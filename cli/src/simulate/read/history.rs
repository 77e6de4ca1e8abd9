//! How does this cluster's own accounting become a trace?
//!
//! Jobs that ended, as `sacct` lists them: the CPUs that they were given, their time limit and the
//! length of their last run. A job that never started has none and is dropped like any such record.

use penstock_proto::v1;

use super::ReadError;
use crate::connect::{Client, Patience};
use crate::simulate::job::{Ask, Length, MAX_LENGTH_SECS, Raw, Record};

/// Asks the controller for everybody's jobs.
///
/// # Errors
/// If it does not answer, or refuses.
pub(in crate::simulate) fn read_history() -> Result<Raw, ReadError> {
    let request = v1::ListAccountingRequest { all_users: true, ..Default::default() };
    let answer = Client::open().and_then(|client| {
        client.collect(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.list_accounting(request).await }
        })
    });
    let replies = answer.map_err(|problem| {
        let detail = problem.detail().unwrap_or_else(|| problem.slurm_text().to_owned());
        ReadError::Accounting(detail)
    })?;
    let infos = replies.into_iter().flat_map(|reply| reply.jobs);
    Ok(Raw { records: infos.enumerate().filter_map(record).collect(), ..Raw::default() })
}

/// The record of a job; `None` where it has not ended yet.
fn record((at, info): (usize, v1::JobInfo)) -> Option<Record> {
    let job = info.job?;
    let spec = job.spec.unwrap_or_default();
    let run = match &job.run {
        Some(run) if run.end_ms > 0 => secs_up(run.end_ms - run.start_ms),
        Some(_) => return None,
        None => 0,
    };
    let id = match (job.array_job_id, job.array_task_id) {
        (base, Some(task)) if base > 0 => format!("{base}_{task}"),
        _ => job.id.to_string(),
    };
    Some(Record {
        line: at + 1,
        id,
        submit: job.submit_ms.div_euclid(1_000),
        run: Length::Secs(run.min(MAX_LENGTH_SECS)),
        request: i64::try_from(job.time_limit_secs).unwrap_or(0).min(MAX_LENGTH_SECS),
        ask: Ask::Processors(i64::from(info.num_cpus)),
        user: if info.user_name.is_empty() { job.uid.to_string() } else { info.user_name },
        account: spec.account,
        partition: info.partition,
    })
}

fn secs_up(ms: i64) -> i64 {
    ms.saturating_add(999).div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(start_ms: i64, end_ms: i64) -> v1::JobInfo {
        let run = v1::Run { start_ms, end_ms, ..Default::default() };
        let job = v1::Job {
            id: 7,
            uid: 1000,
            submit_ms: 5_900,
            time_limit_secs: 60,
            run: (start_ms > 0).then_some(run),
            ..Default::default()
        };
        v1::JobInfo { job: Some(job), num_cpus: 4, partition: "main".into(), ..Default::default() }
    }

    #[test]
    fn ended_jobs_are_records_and_running_ones_are_not() {
        let job = record((0, info(10_000, 12_001))).expect("it ended");
        assert_eq!((job.submit, job.run, job.request), (5, Length::Secs(3), 60));
        assert_eq!((job.ask, job.user.as_str()), (Ask::Processors(4), "1000"));
        assert!(record((0, info(10_000, 0))).is_none());
        let never = record((0, info(0, 0))).expect("it is a record all the same");
        assert_eq!(never.run, Length::Secs(0));
    }
}
