//! How fast do jobs start and end?

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use penstock_proto::v1;

use crate::cluster::{Client, TestCluster};
use crate::figures::{figure, heading, percentiles, rate};
use crate::submit::{SCRIPT, environment, held, request_id};

/// `sbatch` as a process.
pub(crate) fn sbatch_processes(cluster: &TestCluster) -> Result<()> {
    heading("sbatch as a process");
    let script = cluster.dir().join("noop.sh");
    std::fs::write(&script, SCRIPT)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let at = Instant::now();
        sbatch(cluster, &script)?;
        times.push(at.elapsed());
    }
    figure("sbatch -H, start to exit, median / p95 / p99", &percentiles(times), "3 ms");
    let (each, threads) = (100, 16);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| (0..each).try_for_each(|_| sbatch(cluster, &script))))
            .collect();
        handles.into_iter().try_for_each(|handle| handle.join().expect("no panic in a client"))
    })?;
    figure("16 sbatch at once", &rate(each * threads, began.elapsed()), "1,000/s");
    Ok(())
}

fn sbatch(cluster: &TestCluster, script: &Path) -> Result<()> {
    let status = cluster
        .command("sbatch")
        .args(["-H", "--parsable", "-o", "/dev/null"])
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "sbatch failed");
    Ok(())
}

fn runnable(stdout: &str) -> v1::JobSpec {
    v1::JobSpec { hold: false, stdout: stdout.to_owned(), cpus_per_task: Some(1), ..held(0) }
}

async fn submit(client: &mut Client, spec: v1::JobSpec, script: &str) -> Result<u32> {
    let request = v1::SubmitJobRequest {
        request_id: request_id(),
        spec: Some(spec),
        script: script.as_bytes().to_vec().into(),
        environment: environment().into(),
    };
    Ok(client.submit_job(request).await?.into_inner().job_id)
}

async fn wait(client: &mut Client, job_id: u32) -> Result<()> {
    let reply =
        client.wait_job(v1::WaitJobRequest { job_id, timeout_secs: 60 }).await?.into_inner();
    ensure!(reply.ended, "job {job_id} did not end within a minute");
    Ok(())
}

/// Submit to the script's first instruction, and to the recorded end, one job at a time.
pub(crate) async fn latency(cluster: &TestCluster, jobs: u32) -> Result<()> {
    heading("single jobs on an idle cluster");
    let mut client = cluster.client().await?;
    let output = cluster.dir().join("latency.out");
    let script = "#!/bin/bash\nprintf '%s' \"$EPOCHREALTIME\"\n";
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..jobs {
        let at = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let id = submit(&mut client, runnable(&output.to_string_lossy()), script).await?;
        wait(&mut client, id).await?;
        ends.push(at.elapsed());
        let text = std::fs::read_to_string(&output)?;
        let started: f64 =
            text.trim().parse().with_context(|| format!("the script wrote {text:?}"))?;
        starts.push(Duration::from_secs_f64((started - wall.as_secs_f64()).max(0.0)));
    }
    figure("submit to first instruction, median / p95 / p99", &percentiles(starts), "20 ms median");
    figure("submit to recorded end, median / p95 / p99", &percentiles(ends), "-");
    Ok(())
}

/// Many jobs that do nothing.
pub(crate) async fn noop(cluster: &TestCluster, jobs: u32) -> Result<()> {
    heading("no-op jobs, submit to recorded end");
    let script = String::from_utf8_lossy(SCRIPT).into_owned();
    let mut client = cluster.client().await?;
    let began = Instant::now();
    let mut ids = Vec::new();
    let mut left = jobs;
    while left > 0 {
        let count = left.min(500);
        let request = v1::SubmitJobsRequest {
            request_id: request_id(),
            specs: (0..count).map(|_| runnable("/dev/null")).collect(),
            script: script.clone().into_bytes().into(),
            environment: environment().into(),
        };
        let reply = client.submit_jobs(request).await?.into_inner();
        ids.extend(reply.results.iter().map(|result| result.job_id));
        left -= count;
    }
    for id in ids {
        wait(&mut client, id).await?;
    }
    figure(&format!("{jobs} single jobs"), &rate(u64::from(jobs), began.elapsed()), "600/s");
    let began = Instant::now();
    let spec = v1::JobSpec { array: format!("1-{jobs}"), ..runnable("/dev/null") };
    let id = submit(&mut client, spec, &script).await?;
    wait(&mut client, id).await?;
    figure(&format!("an array of {jobs}"), &rate(u64::from(jobs), began.elapsed()), "600/s");
    Ok(())
}
