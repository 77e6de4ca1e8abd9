//! Prologs and epilogs of the site: on a node, and of tasks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, EndCause, Found};
use penstock_vocab::{Attempt, JobId};

use crate::world::{World, is_alive, job};

const PROLOG: u32 = 4_294_967_280;

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.work_dir().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn hook(world: &World, path: &str, timeout_secs: u32) -> AttemptKey {
    let launch = v1::LaunchHook {
        job_id: 7,
        attempt: 1,
        step: PROLOG,
        path: path.to_owned(),
        timeout_secs,
        variables: vec!["SLURM_JOB_ID=7".to_owned(), "SLURM_JOB_USER=me".to_owned()],
        share: None,
    };
    world.spool().start(launch).unwrap();
    AttemptKey { step: Some(PROLOG), ..AttemptKey::new(JobId(7), Attempt(1)) }
}

#[test]
fn scripts_of_a_pattern_run_in_order_until_one_fails() {
    let mut world = World::new();
    let out = world.work_dir().join("out").display().to_string();
    script(&world, "20-second", &format!("echo second >> {out}; echo oh dear >&2; exit 7"));
    let first = "echo first $SLURM_JOB_ID $SLURM_JOB_USER $SLURMD_NODENAME";
    script(&world, "10-first", &format!("{first} >> {out}"));
    script(&world, "30-third", &format!("echo third >> {out}"));
    let pattern = world.work_dir().join("[0-9]0-*").display().to_string();
    let key = hook(&world, &pattern, 0);
    let result = world.end(key);
    assert_eq!(result.wait_status, 7 << 8);
    assert_eq!(world.read("out"), "first 7 me n1\nsecond\n");
    let said = world.notices.join("\n");
    assert!(
        said.contains("20-second of job 7 ended with exit status 7; it wrote: oh dear"),
        "{said}"
    );
}

#[test]
fn a_hook_is_killed_with_its_children_when_its_time_is_over() {
    let mut world = World::new();
    let pid = world.work_dir().join("pid").display().to_string();
    let slow = script(&world, "slow", &format!("sleep 1000 & echo $! > {pid}; wait"));
    let begun = Instant::now();
    let key = hook(&world, &slow, 1);
    assert_eq!(world.end(key).wait_status, 9);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(!is_alive(world.read("pid").trim()));
    assert!(world.notices.join("").contains("was killed after 1 s"), "{:?}", world.notices);
}

#[test]
fn a_daemon_of_a_prolog_in_a_session_of_its_own_stays() {
    let mut world = World::new();
    let pid = world.work_dir().join("pid").display().to_string();
    let text = format!(
        "setsid sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60' &\n\
                        while [ ! -e {pid} ]; do sleep 0.01; done"
    );
    let starts = script(&world, "starts", &text);
    let key = hook(&world, &starts, 0);
    assert_eq!(world.end(key).wait_status, 0);
    let pid = world.read("pid").trim().to_owned();
    assert!(is_alive(&pid), "{pid} is gone");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

#[test]
fn an_agent_that_is_killed_during_a_prolog_finds_it_and_starts_none_again() {
    let mut world = World::new();
    let dir = world.work_dir().display().to_string();
    let text =
        format!("echo ran >> {dir}/out; while [ ! -e {dir}/go ]; do sleep 0.01; done; exit 4");
    let waits = script(&world, "waits", &text);
    let key = hook(&world, &waits, 0);
    world.wait_for("out", "ran");
    world.restart();
    assert_eq!(world.found, [Found::Running(key)]);
    // It is not ended by order, and not started by another launch.
    world.spool().terminate(key, EndCause::Cancelled, 0).unwrap();
    hook(&world, &waits, 0);
    fs::write(format!("{dir}/go"), "").unwrap();
    assert_eq!(world.end(key).wait_status, 4 << 8);
    assert_eq!(world.read("out"), "ran\n");
}

#[test]
fn a_script_that_is_not_there_or_not_roots_is_the_nodes_fault() {
    let mut world = World::new();
    let key = hook(&world, "/nowhere/prolog", 0);
    loop {
        match world.next() {
            penstock_supervisor::HostEvent::Started(_) => {}
            penstock_supervisor::HostEvent::StartFailed { key: failed, error, node_fault } => {
                assert_eq!((failed, node_fault), (key, true));
                assert!(error.starts_with("/nowhere/prolog: No such file"), "{error}");
                break;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn the_sites_scripts_go_round_a_batch_script() {
    let mut world = World::new();
    let text = "echo export ADDED=yes; echo unset FOO; echo print hello; exit ${FAIL:-0}";
    let before = script(&world, "before", text);
    let after =
        script(&world, "after", "echo after $SLURM_JOB_ID $SLURM_SCRIPT_CONTEXT; sleep 0.1");
    let mut wrapped = job("echo $ADDED:$FOO:; exit 3").stdout("out");
    wrapped.launch.environment = b"FOO=bar\0PATH=/usr/bin:/bin\0".as_slice().into();
    (wrapped.launch.task_prolog, wrapped.launch.task_epilog) = (before.clone(), after);
    let key = world.start(1, wrapped);
    assert_eq!(world.end(key).wait_status, 3 << 8);
    assert_eq!(world.read("out"), "hello\nyes::\nafter 1 epilog_task\n");
    let mut failing = job("echo never").stdout("failed");
    failing.launch.environment = b"FAIL=5\0".as_slice().into();
    failing.launch.task_prolog = before;
    let key = world.start(2, failing);
    assert_eq!(world.end(key).wait_status, 5 << 8);
    let said = world.read("failed");
    assert!(said.ends_with("slurmstepd: error: TaskProlog failed status=5\n"), "{said}");
}
