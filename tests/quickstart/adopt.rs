//! Does a start on the same folder start only what is missing, and do jobs outlive it?

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use crate::harness::{Home, wait_until};

/// Says when it begins, and ends when the file `go` is there.
const WAITS: &str = "echo begun $SLURM_JOB_ID >>begun
until [ -e go ]; do sleep 0.05; done; echo ended $SLURM_JOB_ID >>ended";

#[test]
fn only_what_was_killed_is_new_and_the_job_goes_on() {
    let home = Home::new();
    home.quickstart("--nodes 3 --cpus 2 --detach").ok();
    let before = home.running();
    let jobs = [home.submit("-w node1", WAITS), home.submit("-w node2", WAITS)];
    for job in jobs {
        home.await_state(job, "RUNNING");
        wait_until("it has begun", || home.read("begun").contains(&format!("begun {job}\n")));
    }
    home.process("node1").kill();
    home.process("controller").kill();
    assert_eq!(home.quickstart("--status").run().code, 3);

    let ran = home.quickstart("--detach").ok();
    ran.says("controller started, pid ");
    ran.says("node1 started, pid ");
    ran.says("2 agent(s) found running: node[2-3]");
    let after = home.running();
    assert_eq!(after.len(), 4);
    for ((name, old), (same, new)) in before.iter().zip(&after) {
        assert_eq!(name, same);
        assert_eq!(old != new, matches!(name.as_str(), "node1" | "controller"), "{name}");
    }
    for job in jobs {
        home.await_state(job, "RUNNING");
    }
    let next = home.submit("-w node1", "true");
    fs::write(home.work().join("go"), "").expect("ours");
    for job in [jobs[0], jobs[1], next] {
        home.await_state(job, "COMPLETED");
        assert_eq!(home.end(job), "COMPLETED|0:0");
    }
    for file in ["begun", "ended"] {
        assert_eq!(home.read(file).lines().count(), 2, "{file}: {}", home.read(file));
    }
    // What was claimed first is still claimed.
    let cpus = home.tool("sinfo").words("-h -N -o %N/%c").ok().out;
    assert_eq!(cpus, "node1/2\nnode2/2\nnode3/2\n");
    home.quickstart("--stop").ok();
    home.assert_nothing_left();
}

#[test]
fn more_nodes_join_a_running_cluster() {
    let home = Home::new();
    home.quickstart("--nodes 1 --detach").ok();
    let before = home.running();
    home.quickstart("--nodes 3 --detach").ok();
    let after = home.running();
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|one| after.contains(one)), "{before:?} in {after:?}");
    home.quickstart("--stop").ok();
    // As many as the folder has.
    home.quickstart("--detach").ok();
    assert_eq!(home.running().len(), 4);
}

#[test]
fn a_port_that_was_taken_is_given_up_and_agents_follow() {
    let home = Home::new();
    home.quickstart("--nodes 2 --detach").ok();
    let job = home.submit("-w node2", WAITS);
    home.await_state(job, "RUNNING");
    home.process("controller").kill();
    let file = home.dir().join("cluster.toml");
    let text = fs::read_to_string(&file).expect("there");
    let line = text.lines().find(|line| line.starts_with("listen = ")).expect("a port").to_owned();
    let port = line.rsplit(':').next().expect("digits").trim_end_matches('"');
    let port: u16 = port.parse().expect("a port");
    fs::write(&file, text.replace("kill_wait_secs = 5", "kill_wait_secs = 4")).expect("ours");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free now");

    home.quickstart("--detach").ok();
    drop(taken);
    let text = fs::read_to_string(&file).expect("there");
    assert!(!text.contains(&line), "{text}");
    assert!(text.contains("kill_wait_secs = 4"), "{text}");
    assert_eq!(home.running().len(), 3);
    home.await_state(job, "RUNNING");
    fs::write(home.work().join("go"), "").expect("ours");
    home.await_state(job, "COMPLETED");
    assert_eq!(home.read("begun").lines().count(), 1);
    let ready = home.tool("sinfo").words("-h -o %D/%T").ok().out;
    assert_eq!(ready, "2/idle\n");
}
