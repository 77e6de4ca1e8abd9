//! Do commands end well where a terminal, a pipe, a disk or the other end of a step fails them?

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use crate::harness::{Cluster, Cmd, Options, PATIENCE, wait_until};

/// A shell that finds the cluster and its commands.
fn shell(cluster: &Cluster, line: &str) -> Cmd {
    let path = format!("{}:/usr/bin:/bin", cluster.dir().join("bin").display());
    Cmd::new(std::path::Path::new("/bin/bash"))
        .arg("-c")
        .arg(line)
        .env("PATH", path)
        .env("PENSTOCK_SOCKET", cluster.socket())
        .dir(&cluster.work())
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let cluster = Cluster::start(Options::one_node(2));
    cluster.wrap("-H -a 0-2999", "true").id();
    for line in ["squeue -r", "sacct", "sinfo --help", "scontrol show config", "sbatch --help"] {
        let ran = shell(&cluster, &format!("{line} | head -n 1; echo ${{PIPESTATUS[0]}}")).run();
        assert!(ran.out.ends_with("\n0\n"), "{line}: {ran}");
        assert_eq!(ran.err, "", "{line}: {ran}");
    }
    let ran = shell(&cluster, "squeue -r >&-; echo $?").run();
    assert!(ran.out == "0\n" || ran.out == "1\n", "{ran}");
}

#[test]
fn a_listing_that_finds_no_room_says_so() {
    let cluster = Cluster::start(Options::one_node(2));
    cluster.wrap("-H", "true").id();
    for name in ["squeue", "sinfo", "sacct"] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let output = Command::new(cluster.bin(name))
            .env("PENSTOCK_SOCKET", cluster.socket())
            .stdout(Stdio::from(full))
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cannot write to standard output"), "{name}: {said}");
    }
}

#[test]
fn a_narrow_terminal_changes_no_line() {
    let cluster = Cluster::start(Options::one_node(2));
    cluster.wrap("-H -J a-name-that-is-longer-than-the-terminal-is-wide", "true").id();
    for line in ["squeue", "squeue -l", "sinfo", "sinfo -N -l", "sacct", "scontrol show job"] {
        let wide = shell(&cluster, line).env("COLUMNS", "200").ok();
        // A terminal of 20 columns and 5 rows, from script(1).
        let inside = format!("stty cols 20 rows 5; {line}");
        let narrow = shell(&cluster, &format!("script -qec '{inside}' /dev/null")).run();
        if narrow.err.contains("not found") {
            println!("skipped: no script(1) here");
            return;
        }
        assert_eq!(narrow.code, 0, "{narrow}");
        let first = |text: &str| text.lines().next().unwrap_or_default().trim_end().to_owned();
        assert_eq!(first(&narrow.out), first(&wide), "{line}");
    }
    let watch = "stty cols 20 rows 5; timeout -s TERM 3 squeue --watch -o %i";
    let ran = shell(&cluster, &format!("script -qec '{watch}' /dev/null")).run();
    assert!(ran.out.contains("\u{1b}[H") && ran.out.contains("JOBID"), "{ran}");
}

#[test]
fn control_characters_reach_no_terminal() {
    let cluster = Cluster::start(Options::one_node(2));
    let bad = "a\u{1b}]0;x\u{7}b\r\u{9b}2Jc";
    let id = cluster.cmd("sbatch").words("--parsable -H -J").arg(bad).words("--comment").arg(bad);
    let id = id.words("--wckey").arg(bad).words("--wrap true").id();
    let lines = [
        "squeue".to_owned(),
        "squeue -o %all".to_owned(),
        "squeue -O name,comment,wckey".to_owned(),
        "scontrol show job".to_owned(),
        "scontrol -o show job".to_owned(),
        "sprio".to_owned(),
        "sacct -X -P -o ALL".to_owned(),
        "sacct -X -o JobName,Comment,WCKey".to_owned(),
        format!("penstock explain {id}"),
        "squeue --json".to_owned(),
        "squeue --yaml".to_owned(),
    ];
    for line in &lines {
        let ran = shell(&cluster, line).run();
        let raw = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
        assert!(!raw(&ran.out) && !raw(&ran.err), "{line}: {ran:?}");
    }
    let refused = cluster.cmd("scancel").arg(format!("{bad}9")).fails();
    assert!(!refused.err.contains('\u{7}') || refused.code == 1, "{refused:?}");
}

#[test]
fn large_scripts_and_environments_reach_their_job_whole() {
    let cluster = Cluster::start(Options::one_node(2));
    let filler = "# fourteen byte\n".repeat((4 << 20) / 16 - 8);
    let script = format!("#!/bin/sh\n{filler}echo whole > script\n");
    assert!(script.len() < 4 << 20 && script.len() > 4_000_000);
    let id = cluster.cmd("sbatch").words("--parsable").stdin(script.clone()).id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    assert_eq!(cluster.read("script"), "whole\n");
    let kept = cluster.scontrol(&format!("write batch_script {id} -"));
    assert!(kept == script, "it is kept as it was");
    let value = "v".repeat(100_000);
    let sized = cluster.wrap("", "printf %s \"$LARGE\" | wc -c > size").env("LARGE", &value);
    let id = sized.id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    assert_eq!(cluster.read("size").trim(), "100000");
}

#[test]
fn a_step_whose_agent_dies_goes_on_and_one_whose_node_is_lost_ends() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let line = "touch begun; while [ ! -e go ]; do sleep 0.05; done; echo done";
    let srun = cluster.cmd("srun").words("-n 1 /bin/sh -c").arg(line).spawn();
    wait_until("the task runs", PATIENCE, || cluster.work().join("begun").exists());
    cluster.kill_agent(0);
    std::fs::write(cluster.work().join("go"), "").expect("written");
    cluster.restart_agent(0, None);
    let ran = srun.wait();
    assert_eq!((ran.code, ran.out.as_str()), (0, "done\n"), "{ran}");
    cluster.await_quiet();
    // The agent stays away, and an admin says that the node is down.
    let srun = cluster.cmd("srun").words("-n 1 sleep 300").spawn();
    wait_until("the task runs", PATIENCE, || !cluster.shepherds().is_empty());
    cluster.kill_agent(0);
    cluster.scontrol("update NodeName=n1 State=POWER_DOWN Reason=gone");
    let ran = srun.wait();
    assert_ne!(ran.code, 0, "{ran}");
    cluster.restart_agent(0, None);
    cluster.scontrol("update NodeName=n1 State=POWER_UP");
    cluster.await_quiet();
}

#[test]
fn the_same_key_is_the_same_submission() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let first = cluster.wrap("--idempotency-key=nightly-1 -H", "true").id();
    assert_eq!(cluster.wrap("--idempotency-key=nightly-1 -H", "true").id(), first);
    let other = cluster.wrap("--idempotency-key=nightly-2 -H", "true").id();
    assert_ne!(other, first);
    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(cluster.wrap("--idempotency-key=nightly-1 -H", "true").id(), first);
    assert_eq!(cluster.squeue("-o %i").lines().count(), 2);
}
