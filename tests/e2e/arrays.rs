//! Do the tasks of an array run, each once, and no more at a time than was said?

use crate::harness::{Cluster, Options};

/// Most tasks at a time, from lines `+ TASK` and `- TASK` in the order they were written.
fn most_at_once(text: &str) -> usize {
    let mut now = 0_usize;
    let mut most = 0;
    for line in text.lines() {
        if line.starts_with('+') {
            now += 1;
        } else {
            now = now.checked_sub(1).expect("an end follows its start");
        }
        most = most.max(now);
    }
    most
}

const LOGGED: &str =
    "echo + $SLURM_ARRAY_TASK_ID >> log; sleep 0.1; echo - $SLURM_ARRAY_TASK_ID >> log";

#[test]
fn every_task_runs_once_and_the_throttle_holds() {
    let cluster = Cluster::start(Options::one_node(8));
    let id = cluster.wrap("-a 1-19:2%3 -o t-%A_%a.out", LOGGED).id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let log = cluster.read("log");
    let mut ran: Vec<u32> =
        log.lines().filter_map(|line| line.strip_prefix("+ ")?.parse().ok()).collect();
    ran.sort_unstable();
    assert_eq!(ran, (1..=19).step_by(2).collect::<Vec<u32>>());
    let most = most_at_once(&log);
    assert!((2..=3).contains(&most), "{most} at once:\n{log}");
    assert!(cluster.work().join(format!("t-{id}_19.out")).exists());
    let rows = cluster.sacct(&format!("-X -j {id} -o JobID,State"));
    let expect = |task: u32| format!("{id}_{task}|COMPLETED");
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.sort_unstable();
    let mut all: Vec<String> = (1..=19).step_by(2).map(expect).collect();
    all.sort_unstable();
    assert_eq!(rows, all);
}

#[test]
fn tasks_know_their_array_and_can_be_ended_one_by_one() {
    let cluster = Cluster::start(Options::one_node(1));
    let block = cluster.wrap("", "sleep 300").id();
    cluster.await_state(block, "RUNNING");
    let script = "echo $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT \
                  $SLURM_ARRAY_TASK_MIN $SLURM_ARRAY_TASK_MAX $SLURM_ARRAY_TASK_STEP >> seen";
    let id = cluster.wrap("-a 0-8:2%2", script).id();
    assert_eq!(cluster.squeue(&format!("-j {id} -o %i|%t")), format!("{id}_[0,2,4,6,8%2]|PD\n"));
    assert_eq!(cluster.squeue(&format!("-j {id} -r -o %K")).lines().count(), 5);
    cluster.cmd("scancel").arg(format!("{id}_[2,4]")).ok();
    cluster.cmd("scancel").arg(block.to_string()).ok();
    cluster.await_end(block);
    cluster.await_text("seen", &format!("{id} 8 5 0 8 2\n"));
    cluster.await_text("seen", &format!("{id} 0 5 0 8 2\n"));
    cluster.await_text("seen", &format!("{id} 6 5 0 8 2\n"));
    assert_eq!(cluster.read("seen").lines().count(), 3);
    let bad = cluster.wrap("-a 5-1", "true").fails();
    bad.says("Invalid job array specification");
}

#[test]
fn a_held_array_waits_and_its_throttle_can_be_changed() {
    let cluster = Cluster::start(Options::one_node(8));
    let id = cluster.wrap("-H -a 0-11%1", LOGGED).id();
    cluster.await_reason(id, "JobHeld");
    cluster.scontrol(&format!("update JobId={id} ArrayTaskThrottle=4"));
    cluster.scontrol(&format!("release {id}"));
    cluster.await_end(id);
    let most = most_at_once(&cluster.read("log"));
    assert!((2..=4).contains(&most), "{most} at once");
    assert_eq!(cluster.read("log").lines().count(), 24);
}
