//! How many jobs a second are taken in, durably?

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_proto::v1;

use crate::cluster::TestCluster;
use crate::figures::{figure, heading, percentiles, rate};

/// A held job, so that nothing of it runs.
pub(crate) fn held(number: u64) -> v1::JobSpec {
    v1::JobSpec {
        name: format!("load-{number}"),
        ntasks: Some(1),
        time_limit_secs: Some(600),
        hold: true,
        work_dir: "/tmp".to_owned(),
        stdout: "/dev/null".to_owned(),
        export: "ALL".to_owned(),
        ..v1::JobSpec::default()
    }
}

/// A script that does nothing.
pub(crate) const SCRIPT: &[u8] = b"#!/bin/sh\nexit 0\n";
/// An environment of the usual size.
pub(crate) fn environment() -> Vec<u8> {
    (0..40)
        .flat_map(|i| format!("VARIABLE_{i}=a value of the usual length\0").into_bytes())
        .collect()
}

/// Measures single and batched submissions.
pub(crate) async fn measure(cluster: &TestCluster, secs: u64) -> Result<()> {
    heading("durable submissions");
    for (batch, budget) in [(1, "10,000/s with 64 clients"), (100, "50,000/s")] {
        for clients in [1, 8, 64] {
            let (count, time, times) = run(cluster, clients, batch, secs).await?;
            let what =
                if batch == 1 { "SubmitJob".to_owned() } else { format!("SubmitJobs of {batch}") };
            figure(&format!("{what}, {clients} client(s)"), &rate(count, time), budget);
            figure("  call, median / p95 / p99", &percentiles(times), "-");
        }
    }
    Ok(())
}

async fn run(
    cluster: &TestCluster,
    clients: u64,
    batch: u64,
    secs: u64,
) -> Result<(u64, Duration, Vec<Duration>)> {
    let mut tasks = tokio::task::JoinSet::new();
    let began = Instant::now();
    let until = began + Duration::from_secs(secs);
    for number in 0..clients {
        let mut client = cluster.client().await?;
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut count = 0;
            while Instant::now() < until {
                let at = Instant::now();
                if batch == 1 {
                    let request = v1::SubmitJobRequest {
                        request_id: request_id(),
                        spec: Some(held(number)),
                        script: SCRIPT.into(),
                        environment: environment().into(),
                    };
                    client.submit_job(request).await?;
                } else {
                    let request = v1::SubmitJobsRequest {
                        request_id: request_id(),
                        specs: (0..batch).map(held).collect(),
                        script: SCRIPT.into(),
                        environment: environment().into(),
                    };
                    let reply = client.submit_jobs(request).await?.into_inner();
                    ensure!(
                        reply.results.iter().all(|r| r.refusal.is_none()),
                        "a spec was refused"
                    );
                }
                times.push(at.elapsed());
                count += batch;
            }
            Ok::<_, anyhow::Error>((count, times))
        });
    }
    let (mut count, mut times) = (0, Vec::new());
    while let Some(result) = tasks.join_next().await {
        let (more, mut taken) = result??;
        count += more;
        times.append(&mut taken);
    }
    Ok((count, began.elapsed(), times))
}

/// A fresh request id.
pub(crate) fn request_id() -> bytes::Bytes {
    rand::random::<[u8; 16]>().to_vec().into()
}
