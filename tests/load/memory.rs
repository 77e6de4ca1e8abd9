//! What do many pending jobs cost: memory, `squeue`, `scancel`, a restart?

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use penstock_proto::v1;

use crate::cluster::TestCluster;
use crate::figures::{figure, heading, percentiles};
use crate::submit::{SCRIPT, environment, held, request_id};

/// Measures with a tenth of `jobs` and with all of them.
pub(crate) async fn queue(cluster: TestCluster, jobs: u32) -> Result<()> {
    heading(&format!("{jobs} pending jobs"));
    let few = jobs / 10;
    fill(&cluster, few).await?;
    let pid = cluster.controller_pid()?;
    let before = settled_bytes(pid).await?;
    fill(&cluster, jobs - few).await?;
    let after = settled_bytes(pid).await?;
    let slope = (after.saturating_sub(before)) / u64::from(jobs - few);
    figure("private memory, slope a pending job", &format!("{slope} B"), "1,024 B");
    listing(&cluster, jobs)?;
    restart(&cluster, pid, jobs).await?;
    cancel(&cluster)?;
    Ok(())
}

async fn fill(cluster: &TestCluster, jobs: u32) -> Result<()> {
    let mut client = cluster.client().await?;
    let mut left = u64::from(jobs);
    while left > 0 {
        let count = left.min(1000);
        let request = v1::SubmitJobsRequest {
            request_id: request_id(),
            specs: (0..count).map(held).collect(),
            script: SCRIPT.into(),
            environment: environment().into(),
        };
        let reply = client.submit_jobs(request).await?.into_inner();
        ensure!(reply.results.iter().all(|result| result.refusal.is_none()), "a spec was refused");
        left -= count;
    }
    Ok(())
}

/// Private memory once it no longer changes: the store's copy follows a few seconds behind.
async fn settled_bytes(pid: u32) -> Result<u64> {
    let mut last = private_bytes(pid)?;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = private_bytes(pid)?;
        if now.abs_diff(last) < now / 200 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn private_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    Ok(kib * 1024)
}

fn listing(cluster: &TestCluster, jobs: u32) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let at = Instant::now();
        let output = cluster.command("squeue").arg("-h").stdin(Stdio::null()).output()?;
        times.push(at.elapsed());
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        ensure!(lines >= jobs as usize, "squeue printed {lines} lines");
    }
    figure("squeue, median / p95 / p99", &percentiles(times), "200 ms");
    Ok(())
}

async fn restart(cluster: &TestCluster, pid: u32, jobs: u32) -> Result<()> {
    for (how, signal) in [("SIGTERM", "-TERM"), ("SIGKILL", "-KILL")] {
        let pid = if how == "SIGTERM" { pid } else { cluster.controller_pid()? };
        let killed =
            std::process::Command::new("kill").args([signal, &pid.to_string()]).status()?;
        ensure!(killed.success(), "kill failed");
        while std::path::Path::new(&format!("/proc/{pid}/exe")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut child = cluster
            .controller()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the controller did not start")?;
        let time = cluster.wait_for_answer(Duration::from_secs(60)).await?;
        figure(
            &format!("restart with {jobs} jobs after {how}"),
            &format!("{:.2} s", time.as_secs_f64()),
            "3 s with 1,000,000",
        );
        let stopped = std::process::Command::new("kill").arg(child.id().to_string()).status()?;
        ensure!(stopped.success(), "kill failed");
        child.wait()?;
        cluster.start_missing()?;
    }
    Ok(())
}

fn cancel(cluster: &TestCluster) -> Result<()> {
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let at = Instant::now();
    let status = cluster.command("scancel").args(["-u", &user]).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "scancel failed");
    let time = at.elapsed();
    figure(
        "scancel -u of all of them",
        &format!("{:.2} s", time.as_secs_f64()),
        "0.2 s for 10,000",
    );
    Ok(())
}
