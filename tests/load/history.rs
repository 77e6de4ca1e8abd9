//! How long does `sacct` take for one user's day in years of jobs?
//!
//! The history is filled with copies of a job that really ran, while the controller is down: other ids,
//! other users, other days. Then `sacct` is started as anybody would, process start to exit.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use penstock_controller::store::{EmbeddedStore, HistoryEntry, Options};
use penstock_proto::{RECORD_FORMAT, v1};
use prost::Message as _;

use crate::cluster::TestCluster;
use crate::figures::{figure, heading, percentiles};

/// Users among whom the jobs are dealt out, by number.
const FIRST_UID: u32 = 20_000;
const USERS: u32 = 200;
/// Days over which they ended, the last one yesterday: within the time that a history is kept.
const DAYS: u32 = 300;
const DAY_MS: i64 = 86_400_000;
/// Lines that are appended at once.
const CHUNK: u32 = 10_000;
/// Calls of sacct that are timed.
const CALLS: u32 = 20;

/// Fills the history with `jobs` jobs and asks for single days of single users.
pub(crate) async fn measure(cluster: TestCluster, jobs: u32) -> Result<()> {
    heading(&format!("a history of {jobs} jobs"));
    let template = template(&cluster).await?;
    let store = cluster.state_dir()?.join("store");
    cluster.stop()?;
    let began = Instant::now();
    let today = template.run.as_ref().map_or(0, |run| run.end_ms) / DAY_MS;
    fill(&store, &template, jobs, today)?;
    let time = began.elapsed().as_secs_f64();
    figure("filled", &format!("{time:.0} s"), "none");
    let began = Instant::now();
    cluster.start_missing()?;
    cluster.wait_for_answer(Duration::from_secs(120)).await?;
    figure("start with it", &format!("{:.2} s", began.elapsed().as_secs_f64()), "3 s");
    let mut times = Vec::new();
    let mut lines = 0;
    for call in 0..CALLS {
        let day = today - 1 - i64::from(call * 13 % DAYS);
        let uid = FIRST_UID + call * 37 % USERS;
        let (from, to) = (date(day)?, date(day + 1)?);
        let began = Instant::now();
        let output = cluster
            .command("sacct")
            .args(["-X", "-n", "-P", "-o", "jobid,state,elapsed,totalcpu,end"])
            .args(["-u", &uid.to_string(), "-S", &from, "-E", &to])
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()?;
        times.push(began.elapsed());
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines += String::from_utf8_lossy(&output.stdout).lines().count();
    }
    ensure!(lines > 0, "no job was found, so that nothing was measured");
    let what = format!("sacct -u -S -E, {} lines on average", lines / CALLS as usize);
    figure(&what, &percentiles(times), "200 ms");
    Ok(())
}

fn date(day: i64) -> Result<String> {
    let at = jiff::Timestamp::from_millisecond(day * DAY_MS)?;
    Ok(at.strftime("%Y-%m-%d").to_string())
}

/// A job that ran and ended, as the records have it.
async fn template(cluster: &TestCluster) -> Result<v1::Job> {
    let submitted =
        cluster.command("sbatch").args(["-o", "/dev/null", "--wrap", "true"]).output()?;
    ensure!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    let mut client = cluster.client().await?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let request = v1::ListAccountingRequest {
            selectors: vec!["1".to_owned()],
            all_users: true,
            ..v1::ListAccountingRequest::default()
        };
        let mut answer = client.list_accounting(request).await?.into_inner();
        while let Some(reply) = answer.message().await? {
            let jobs = reply.jobs.into_iter().filter_map(|info| info.job);
            let ended = |job: &v1::Job| job.run.as_ref().is_some_and(|run| run.end_ms != 0);
            if let Some(job) = jobs.into_iter().find(ended) {
                return Ok(job);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("job 1 did not end within a minute")
}

fn fill(store: &Path, template: &v1::Job, jobs: u32, today: i64) -> Result<()> {
    let options = Options { follow: false, ..Options::default() };
    let store = EmbeddedStore::open(store, &options).context("the store can't be opened")?;
    let history = store.history();
    // From the oldest on, as they would have ended.
    let at = |number: u32| {
        let all = i64::from(DAYS) * DAY_MS;
        (today - i64::from(DAYS)) * DAY_MS + all * i64::from(number) / i64::from(jobs)
    };
    for first in (0..jobs).step_by(CHUNK as usize) {
        let last = first.saturating_add(CHUNK).min(jobs);
        let lines: Vec<HistoryEntry> =
            (first..last).map(|number| line(template, number, at(number))).collect();
        let appended = history.append(&lines)?;
        ensure!(appended == lines.len(), "{appended} of {} lines were new", lines.len());
    }
    Ok(())
}

fn line(template: &v1::Job, number: u32, end_ms: i64) -> HistoryEntry {
    let mut job = template.clone();
    job.id = 10_000 + number;
    job.uid = FIRST_UID + number.wrapping_mul(2_654_435_761) / 65_536 % USERS;
    let start_ms = end_ms - 60_000;
    (job.submit_ms, job.eligible_ms, job.end_ms) = (start_ms, start_ms, end_ms);
    if let Some(run) = &mut job.run {
        (run.start_ms, run.launched_ms, run.end_ms) = (start_ms, start_ms, end_ms);
    }
    let (id, uid) = (job.id, job.uid);
    let attempt = job.run.as_ref().map_or(0, |run| run.attempt);
    let record =
        v1::HistoryRecord { format: RECORD_FORMAT, job: Some(job), ..v1::HistoryRecord::default() };
    HistoryEntry { job: id, attempt, uid, end_ms, body: record.encode_to_vec().into() }
}

impl TestCluster {
    /// Where the controller keeps its state.
    fn state_dir(&self) -> Result<PathBuf> {
        Ok(self.controller_key("state_dir")?.into())
    }
}
