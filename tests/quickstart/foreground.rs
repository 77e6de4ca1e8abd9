//! What does somebody see who starts quickstart, and what stays when it ends?

use std::fs;

use crate::harness::{Home, Ran, wait_for};

#[test]
fn exit_shows_the_job_and_passes_its_status_on() {
    let home = Home::new();
    let ran = home.quickstart("--exit").ok();
    ran.shows(&[
        "cluster \"quickstart\" in ",
        "controller started, pid ",
        "node1 started, pid ",
        "$ sbatch hello.sh\nSubmitted batch job 1\n",
        "$ squeue\n             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(",
        "main    hello",
        "$ sinfo\nPARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\nmain*        up   infinite ",
        "$ cat slurm-1.out\nHello from job 1 on node1, started by ",
        "$ sacct -j 1\nJobID           JobName  Partition    Account  AllocCPUS      State ",
        "hello       main",
        "COMPLETED      0:0",
        "1.batch",
        "stopped 2 process(es); state stays in ",
    ]);
    assert_eq!(ran.err, "");
    home.assert_nothing_left();
    let status = home.quickstart("--status").run();
    assert_eq!(status.code, 3, "{status}");

    // The first job may be edited, and the folder knows what was before.
    fs::write(home.dir().join("hello.sh"), "#!/bin/sh\nexit 7\n").expect("ours");
    let ran = home.quickstart("--exit").run();
    assert_eq!(ran.code, 7, "{ran}");
    ran.shows(&["Submitted batch job 2\n", "$ sacct -j 2\n", "FAILED      7:0"]);
    fs::write(home.dir().join("hello.sh"), "#!/bin/sh\nkill -TERM $$\n").expect("ours");
    let ran = home.quickstart("--exit").run();
    assert_eq!(ran.code, 128 + 15, "{ran}");
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_cancels_the_jobs_and_leaves_nothing() {
    let home = Home::new();
    let serving = home.serve("");
    for line in ["  export PENSTOCK_CONFIG=", "  export PATH=", "  sbatch --array=1-5 ", "hello.sh"]
    {
        assert!(serving.said.contains(line), "{line:?} in {}", serving.said);
    }
    let status = home.quickstart("--status").ok();
    status.shows(&["\nin the foreground, agents dial 127.0.0.1:"]);

    let second = home.quickstart("--exit").run();
    assert_eq!(second.code, 1, "{second}");
    second.says(&format!("another quickstart (pid {}) works on ", serving.pid()));
    second.says(&format!("quickstart --stop --dir {}", home.dir().display()));

    let job = home.submit("", "trap '' TERM; echo begun; sleep 1000 & wait; sleep 1000");
    home.await_state(job, "RUNNING");
    let before = home.processes();
    serving.interrupt();
    let ran: Ran = serving.ended();
    assert_eq!(ran.code, 0, "{ran}");
    ran.shows(&["cancelling 1 job(s)", "stopped 2 process(es)"]);
    assert!(before.iter().all(|process| !process.lives()));
    home.assert_nothing_left();
}

#[test]
fn stop_ends_a_foreground_from_outside() {
    let home = Home::new();
    let serving = home.serve("--nodes 2");
    let stop = home.quickstart("--stop").ok();
    stop.shows(&[
        &format!("asking the quickstart with pid {} to end", serving.pid()),
        "it has stopped the cluster in ",
    ]);
    let ran = serving.ended();
    assert_eq!(ran.code, 0, "{ran}");
    home.assert_nothing_left();
    home.quickstart("--stop").ok().shows(&["nothing runs in "]);
}

#[test]
fn a_daemon_that_dies_ends_the_foreground_with_its_log() {
    let home = Home::new();
    let serving = home.serve("--nodes 2");
    let job = home.submit("-w node2", "sleep 1000");
    home.await_state(job, "RUNNING");
    home.process("node2").kill();
    let ran = serving.ended();
    assert_eq!(ran.code, 1, "{ran}");
    // Its jobs are ended all the same, which takes an agent.
    ran.shows(&["starting what is missing", "cancelling 1 job(s)", "stopped 3 process(es)"]);
    ran.says("quickstart: error: node2 has ended; the end of its log, ");
    home.assert_nothing_left();
}

#[test]
fn a_visitor_leaves_a_detached_cluster_running() {
    let home = Home::new();
    home.quickstart("--detach").ok();
    let before = home.running();
    let ran = home.quickstart("--exit").ok();
    ran.shows(&[
        "controller found running, pid ",
        "1 agent(s) found running: node1",
        "COMPLETED",
        "the cluster goes on; to stop it: penstock quickstart --stop --dir ",
    ]);
    assert_eq!(home.running(), before);
    home.quickstart("--stop").ok();
    wait_for("nothing runs", || home.running().is_empty().then_some(()));
    home.assert_nothing_left();
}
