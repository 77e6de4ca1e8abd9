//! Is everything there, and nothing twice, after daemons were killed?

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use penstock_proto::v1;

use crate::harness::{Cluster, Options, PATIENCE, block_on, rpc_at, wait_until};

/// A job that notes that it ran, and how often.
const NOTED: &str = "echo $SLURM_JOB_ID >> ran";

/// How often each job noted that it ran.
fn runs(cluster: &Cluster) -> BTreeMap<u32, u32> {
    let mut runs = BTreeMap::new();
    for line in cluster.read("ran").lines() {
        *runs.entry(line.parse().expect("an id")).or_insert(0) += 1;
    }
    runs
}

/// Submits `count` jobs in one call; returns their ids.
fn submit_many(cluster: &Cluster, count: usize) -> Vec<u32> {
    let spec = v1::JobSpec {
        name: "many".to_owned(),
        work_dir: cluster.work().display().to_string(),
        stdout: "/dev/null".to_owned(),
        mem_per_node_mib: Some(1),
        umask: 0o022,
        ..v1::JobSpec::default()
    };
    let request = v1::SubmitJobsRequest {
        request_id: rand::random::<[u8; 16]>().to_vec().into(),
        specs: vec![spec; count],
        script: format!("#!/bin/sh\n{NOTED}\n").into_bytes().into(),
        environment: b"PATH=/usr/bin:/bin\0".to_vec().into(),
    };
    let reply = block_on(async {
        rpc_at(&cluster.socket()).await.submit_jobs(request).await.expect("taken").into_inner()
    });
    reply.results.iter().map(|result| result.job_id).collect()
}

#[test]
fn a_killed_controller_loses_no_job_and_runs_none_twice() {
    let mut cluster = Cluster::start(Options::one_node(8));
    let go = format!("while [ ! -e go ]; do sleep 0.05; done; {NOTED}");
    let running: Vec<u32> =
        (0..4).map(|_| cluster.wrap("-n 2 --mem 1M -o /dev/null", &go).id()).collect();
    for id in &running {
        cluster.await_state(*id, "RUNNING");
    }
    let mut all = submit_many(&cluster, 1_000);
    assert!(all.iter().all(|id| *id > 0));
    all.extend(running);

    // Commands go on submitting while the controller dies and comes back.
    let done = AtomicBool::new(false);
    let printed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let id = submit_one(&printed_by(&cluster.socket(), &cluster));
                    printed.lock().expect("no panic").push(id);
                }
            });
        }
        let count = || printed.lock().expect("no panic").len();
        for _ in 0..3 {
            let before = count();
            wait_until("some more are in", PATIENCE, || count() >= before + 5);
            cluster_kill_and_restart(&cluster);
        }
        done.store(true, Ordering::Relaxed);
    });
    let _ = &mut cluster;
    all.extend(printed.into_inner().expect("no panic"));
    check_all(&cluster, &all);
}
