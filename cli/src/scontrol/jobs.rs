//! `scontrol top`, `wait_job`, `notify` and `completing`: what else is asked about jobs?

use std::time::Duration;

use penstock_proto::v1;
use penstock_vocab::{JobFlag, JobFlags, JobState};

use crate::connect::{Client, Patience, request_id};
use crate::errors::{RemoteError, refusal_text};
use crate::listing::{Clock, now_ms};
use crate::output::{note, write_bytes};

use super::control::selectors;
use super::{FAILED, PROGRAM, Voice};

/// How often a job is looked at that is waited for.
const PAUSE: Duration = Duration::from_millis(250);

const UNKNOWN: &str = "Invalid job id specified";

fn jobs(client: &Client, filter: v1::JobFilter) -> Result<Vec<v1::JobInfo>, RemoteError> {
    let request = v1::ListJobsRequest {
        filter: Some(filter),
        all_states: true,
        full: true,
        expand_arrays: false,
    };
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_jobs(request).await }
    })?;
    Ok(replies.into_iter().flat_map(|reply| reply.jobs).collect())
}

fn one(client: &Client, id: &str) -> Result<Option<v1::JobInfo>, RemoteError> {
    let filter = v1::JobFilter { selectors: vec![id.to_owned()], ..Default::default() };
    Ok(jobs(client, filter)?.into_iter().next())
}

fn state(info: &v1::JobInfo) -> (JobState, JobFlags) {
    let job = info.job.as_ref();
    let code = job.map_or(0, |job| job.state);
    let flags = job.map_or(0, |job| job.flags);
    (JobState::from_code(code).unwrap_or(JobState::Pending), JobFlags::from_bits(flags))
}

/// `wait_job ID`: until the job's nodes are ready, or it cannot have any more.
pub(super) fn wait(words: &[String], voice: Voice) -> i32 {
    let Some(id) = words.first() else {
        voice.say("too few arguments for keyword:wait_job");
        return FAILED;
    };
    let client = match Client::open() {
        Ok(client) => client,
        Err(failure) => {
            voice.report("slurm_wait_job error", &failure);
            return FAILED;
        }
    };
    loop {
        match one(&client, id) {
            Err(failure) => {
                voice.report("slurm_wait_job error", &failure);
                return FAILED;
            }
            Ok(None) => {
                voice.say(&format!("{PROGRAM}: Problem running job {id}"));
                return FAILED;
            }
            Ok(Some(info)) => match state(&info) {
                (JobState::Running | JobState::Suspended, flags)
                    if !flags.contains(JobFlag::Configuring) =>
                {
                    voice.say(&format!("{PROGRAM}: Nodes are ready for job {id}"));
                    return 0;
                }
                // As Slurm does, who never had nodes is told like who has none any more.
                (state, _) if state.is_finished() || state == JobState::Pending => {
                    voice.say(&format!("{PROGRAM}: Job {id} no longer running"));
                    return FAILED;
                }
                _ => std::thread::sleep(PAUSE),
            },
        }
    }
}

/// `notify ID TEXT`: nobody could read it here, since a job's output belongs to its script alone.
pub(super) fn notify(words: &[String], voice: Voice) -> i32 {
    let [id, _, ..] = words else {
        voice.say("too few arguments for keyword:notify");
        return FAILED;
    };
    let found = Client::open().and_then(|client| one(&client, id));
    match found {
        Ok(Some(_)) => voice.say(
            "job notify failure: nothing writes into the output of a job but its own processes",
        ),
        Ok(None) => voice.say(&format!("job notify failure: {UNKNOWN}")),
        Err(failure) => voice.report("job notify failure", &failure),
    }
    FAILED
}

/// `completing`: jobs that end, and on which nodes.
pub(super) fn completing(voice: Voice) -> i32 {
    let filter = v1::JobFilter { states: vec!["COMPLETING".to_owned()], ..Default::default() };
    let infos = match Client::open().and_then(|client| jobs(&client, filter)) {
        Ok(infos) => infos,
        Err(failure) => {
            voice.report("slurm_load_jobs error", &failure);
            return FAILED;
        }
    };
    let clock = Clock::from_env(now_ms());
    let mut out = String::new();
    for info in infos.iter().filter(|info| state(info).1.contains(JobFlag::Completing)) {
        let Some(job) = &info.job else { continue };
        let end = job.run.as_ref().map_or(0, |run| run.end_ms);
        out.push_str(&format!("JobId={} EndTime=", job.id));
        clock.push(&mut out, if end == 0 { clock.now_ms() } else { end });
        let since = u64::try_from(clock.now_ms().saturating_sub(end) / 1000).unwrap_or(0);
        let since = if end == 0 { 0 } else { since };
        out.push_str(&format!(
            " CompletingTime={} Nodes(COMPLETING)={}\n",
            penstock_vocab::elapsed_long(since),
            info.nodelist
        ));
    }
    write_bytes(out.as_bytes());
    0
}

/// `top JOBS`: each goes ahead of the other waiting jobs of its user in its partition. Its nice value
/// falls by what is missing, and those of the others rise by as much together, so that nobody else
/// is overtaken by more.
pub(super) fn top(words: &[String], voice: Voice) -> i32 {
    let mut ids = Vec::new();
    for word in words {
        match selectors(word) {
            Ok(found) => ids.extend(found),
            Err(line) => {
                voice.say(&line);
                return FAILED;
            }
        }
    }
    if ids.is_empty() {
        voice.say("too few arguments for keyword:top");
        return FAILED;
    }
    let client = match Client::open() {
        Ok(client) => client,
        Err(failure) => {
            voice.report("slurm_top_job error", &failure);
            return FAILED;
        }
    };
    let mut status = 0;
    // The first of the list is to be the first of all, so it comes last.
    for id in ids.iter().rev() {
        let text = match lift(&client, id) {
            Ok(None) => continue,
            Ok(Some(text)) => text,
            Err(failure) => failure.slurm_text().to_owned(),
        };
        note_unless(voice, &format!("{text} for job {id}"));
        status = FAILED;
    }
    status
}

fn note_unless(voice: Voice, line: &str) {
    if !voice.quiet {
        note(line);
    }
}

/// Puts one job first; the text is why not.
fn lift(client: &Client, id: &str) -> Result<Option<String>, RemoteError> {
    let Some(info) = one(client, id)? else { return Ok(Some(UNKNOWN.to_owned())) };
    let (job, Some(spec)) =
        (info.job.clone().unwrap_or_default(), info.job.as_ref().and_then(|job| job.spec.clone()))
    else {
        return Ok(Some(UNKNOWN.to_owned()));
    };
    match state(&info).0 {
        JobState::Pending if info.partition.contains(',') => {
            return Ok(Some("Requested partition configuration not available now".to_owned()));
        }
        JobState::Pending => {}
        state if state.is_finished() => return Ok(Some("Job has already finished".to_owned())),
        _ => return Ok(Some("Job is no longer pending execution".to_owned())),
    }
    let filter = v1::JobFilter {
        uids: vec![job.uid],
        partitions: vec![info.partition.clone()],
        states: vec!["PENDING".to_owned()],
        ..Default::default()
    };
    let others: Vec<v1::JobInfo> = jobs(client, filter)?
        .into_iter()
        .filter(|other| other.partition == info.partition && other.priority > info.priority)
        .filter(|other| other.job.as_ref().is_some_and(|other| other.id != job.id))
        .collect();
    let Some(highest) = others.iter().map(|other| other.priority).max() else { return Ok(None) };
    let missing = i64::from(highest) - i64::from(info.priority) + 1;
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let (down, up) = shifts(missing, count);
    if let Some(text) = set_nice(client, id, spec.nice, -down)? {
        return Ok(Some(text));
    }
    for other in &others {
        let Some(record) = &other.job else { continue };
        let nice = record.spec.as_ref().map_or(0, |spec| spec.nice);
        set_nice(client, &record.id.to_string(), nice, up)?;
    }
    Ok(None)
}

/// By how much the job's nice value falls and that of each other rises, so that together they close
/// a gap of `missing` and the sum stays about the same.
fn shifts(missing: i64, others: i64) -> (i64, i64) {
    let up = missing / (others + 1);
    (missing - up, up)
}

fn set_nice(client: &Client, id: &str, nice: i32, by: i64) -> Result<Option<String>, RemoteError> {
    let value = i64::from(nice).saturating_add(by);
    let value = i32::try_from(value).unwrap_or(if by < 0 { i32::MIN } else { i32::MAX });
    let request = v1::UpdateJobRequest {
        request_id: request_id(),
        selectors: vec![id.to_owned()],
        update: Some(v1::JobUpdate { nice: Some(value), ..Default::default() }),
    };
    let reply = client.call(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.update_job(request).await }
    })?;
    let refusal = reply.results.iter().find_map(|result| result.refusal.as_ref());
    Ok(refusal.map(|refusal| refusal_text(refusal).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_closed_from_both_sides() {
        for (missing, others) in [(1, 1), (10, 1), (101, 3), (7, 100)] {
            let (down, up) = shifts(missing, others);
            assert_eq!(down + up, missing);
            assert!(
                up * others <= down,
                "nobody else's jobs fall behind by more than this one rises"
            );
        }
    }

    #[test]
    fn words_that_are_missing_are_asked_for() {
        let voice = Voice { quiet: true };
        assert_eq!(wait(&[], voice), 1);
        assert_eq!(notify(&["1".into()], voice), 1);
        assert_eq!(top(&[], voice), 1);
        assert_eq!(top(&["x".into()], voice), 1);
    }
}
