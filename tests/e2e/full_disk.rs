//! What happens when a disk is full, and when there is room again?

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::harness::{Cluster, Options, PATIENCE, is_root, tmpfs, wait_until};

/// Takes all room of a file system; whoever removes the file gives it back.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_of_the_store_refuses_submissions_and_loses_nothing() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let mut cluster = Cluster::prepare(Options::one_node(2));
    let Some(_mount) = tmpfs(&cluster.state(), 256) else { return };
    cluster.start_controller();
    cluster.start_agents();
    let first = cluster.wrap("-H -J first", "true").id();
    let ballast = cluster.state().join("ballast");
    fill(&ballast);
    let mut taken = vec![first];
    // Room that was set aside before may still take some.
    let mut number = 0;
    let refused = crate::harness::wait_for("a submission is refused", PATIENCE * 2, || {
        number += 1;
        let script = format!("# {}\ntrue", format!("{number:08}").repeat(60_000));
        let text = format!("#!/bin/sh\n{script}\n");
        let ran = cluster.cmd("sbatch").words("--parsable -H").stdin(text).run();
        if ran.code == 0 {
            taken.push(ran.out.trim().parse().expect("an id"));
            return None;
        }
        Some(ran)
    });
    assert!(refused.err.contains("space") || refused.err.contains("full"), "{refused}");
    let listed = cluster.squeue("-o %A");
    assert_eq!(listed.lines().count(), taken.len(), "reading goes on");
    assert!(cluster.controller.as_mut().is_some_and(|daemon| daemon.lives()));
    fs::remove_file(&ballast).expect("there");
    wait_until("submissions are taken again", PATIENCE, || {
        let ran = cluster.serves();
        if ran.code == 0 {
            taken.push(ran.out.trim().parse().expect("an id"));
        }
        ran.code == 0
    });
    cluster.kill_controller();
    cluster.start_controller();
    let mut listed: Vec<u32> =
        cluster.squeue("-o %A").lines().map(|line| line.trim().parse().expect("an id")).collect();
    listed.sort_unstable();
    assert_eq!(listed, taken, "what was taken is there, and nothing else");
    cluster.kill_controller();
}

#[test]
fn a_full_disk_of_the_output_is_the_jobs_own_matter() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let mut cluster = Cluster::start(Options::one_node(2));
    let small = cluster.work().join("small");
    let Some(_mount) = tmpfs(&small, 1) else { return };
    let words = format!("-o {}", small.join("big.out").display());
    let id = cluster.wrap(&words, "head -c 4M /dev/zero || exit 11").id();
    assert_eq!(cluster.await_end(id).get("ExitCode"), "11:0");
    assert!(cluster.agent(0).lives());
    assert_eq!(cluster.node_state("n1"), "IDLE");
    let id = cluster.wrap("", "true").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
}

#[test]
fn a_full_spool_drains_the_node_and_says_so() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let mut cluster = Cluster::prepare(Options::one_node(2));
    let state = cluster.dir().join("n1").join("state");
    let Some(_mount) = tmpfs(&state, 4) else { return };
    cluster.start_controller();
    cluster.start_agents();
    let good = cluster.wrap("", "true").id();
    assert_eq!(cluster.await_end(good).state(), "COMPLETED");
    let ballast = state.join("ballast");
    fill(&ballast);
    let id = cluster.wrap("", "true").id();
    wait_until("the node is drained", PATIENCE, || cluster.node_state("n1").contains("DRAIN"));
    let reason = cluster.cmd("sinfo").words("-h -R -o %E").ok();
    assert!(reason.contains("space") || reason.contains("full"), "{reason}");
    assert!(cluster.agent(0).lives());
    fs::remove_file(&ballast).expect("there");
    cluster.scontrol("update NodeName=n1 State=RESUME");
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
}
