//! Is a job held to its time and memory?

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Options, limits_memory, submit};

#[test]
fn a_job_over_its_time_limit_gets_term_then_kill() {
    let cluster = Cluster::start(Options::one_node(2));
    let begun = Instant::now();
    let id = submit(
        &cluster,
        |spec| spec.time_limit_secs = Some(1),
        "trap 'echo got term' TERM; while :; do sleep 0.05; done",
    );
    let job = cluster.await_end(id);
    assert!(begun.elapsed() > Duration::from_secs(2), "limit and kill_wait are 1 s each");
    assert_eq!((job.state(), job.get("ExitCode")), ("TIMEOUT", "0:15"));
    let out = cluster.read(&format!("slurm-{id}.out"));
    assert!(out.contains("got term"), "{out}");
    assert!(out.contains(&format!("slurmstepd: error: *** JOB {id} ON n1 CANCELLED AT ")), "{out}");
    assert!(out.contains(" DUE TO TIME LIMIT ***"), "{out}");
    cluster.await_quiet();
    let rows = cluster.sacct(&format!("-X -j {id} -o State"));
    assert_eq!(rows, "TIMEOUT\n");
}

#[test]
fn a_job_is_warned_before_its_time_limit() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "trap 'echo warned; exit 0' USR1; while :; do sleep 0.05; done";
    let id = cluster.wrap("-t 1 --signal=B:USR1@59 -o warned.out", script).id();
    assert_eq!(cluster.await_end(id).end(), "COMPLETED 0:0 None");
    assert_eq!(cluster.read("warned.out"), "warned\n");
}

#[test]
fn the_time_limit_of_a_running_job_can_be_changed() {
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("-t 10", "sleep 300").id();
    cluster.await_state(id, "RUNNING");
    cluster.scontrol(&format!("update JobId={id} TimeLimit=+5"));
    assert_eq!(cluster.job(id).get("TimeLimit"), "00:15:00");
    assert_eq!(cluster.job(id).state(), "RUNNING");
}

#[test]
fn a_job_over_its_memory_is_killed_and_says_why() {
    if !limits_memory() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(2));
    let fill = "head -c 300M /dev/zero | tail -n 1 | wc -c; exit ${PIPESTATUS[1]}";
    let script = cluster.script("fill.sh", &format!("#!/bin/bash\n{fill}\n"));
    let id = cluster.cmd("sbatch").words("--parsable --mem 64M -o oom.out").arg(script).id();
    let job = cluster.await_end(id);
    assert_eq!(job.end(), "OUT_OF_MEMORY 0:125 OutOfMemory");
    let out = cluster.read("oom.out");
    assert!(out.contains("oom_kill event"), "{out}");
    let rows = cluster.sacct(&format!("-X -j {id} -o State,ExitCode"));
    assert_eq!(rows, "OUT_OF_MEMORY|0:125\n");
    let fits = cluster.wrap("--mem 64M", "head -c 20M /dev/zero | tail -n 1 | wc -c").id();
    assert_eq!(cluster.await_end(fits).state(), "COMPLETED");
}

#[test]
fn what_can_never_run_is_refused_with_what_there_is() {
    let cluster = Cluster::start(Options::nodes(2, 4));
    for (words, text, detail) in [
        ("-N 3", "Requested node configuration is not available", "2 nodes"),
        ("-n 9", "Requested node configuration is not available", "8 CPUs"),
        ("-c 5", "Requested node configuration is not available", "4 CPUs"),
        ("--mem 2G", "Memory specification can not be satisfied", "1G"),
        ("--gres=gpu:1", "Invalid generic resource (gres) specification", "gpu"),
        ("-p nope", "Invalid partition name specified", "nope"),
        ("-w n7", "Invalid node name specified", "n7"),
        ("-C ib", "Invalid feature specification", "ib"),
        ("-a 0-2000000", "Invalid job array specification", "1000000"),
    ] {
        let ran = cluster.wrap(words, "true").fails();
        assert_eq!(ran.code, 1, "{ran}");
        ran.says(text).says(detail);
    }
    let listed = cluster.squeue("");
    assert_eq!(listed, "");
}
