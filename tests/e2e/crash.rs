//! Is everything there, and nothing twice, after daemons were killed?

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
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
        mem_per_node_mib: Some(20),
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

/// Waits until all of these jobs are over, and checks that each ran once.
fn check_all(cluster: &Cluster, ids: &[u32], patience: Duration) {
    wait_until("the queue is empty", patience, || cluster.squeue("").is_empty());
    let runs = runs(cluster);
    for id in ids {
        let told = || cluster.sacct(&format!("-D -j {id} -o JobID,State,ExitCode,Start,End"));
        assert_eq!(runs.get(id), Some(&1), "runs of job {id}:\n{}", told());
    }
    let listed = cluster.squeue("-t all -o %A|%T");
    let ends: BTreeMap<&str, &str> =
        listed.lines().filter_map(|line| line.split_once('|')).collect();
    for id in ids {
        assert_eq!(ends.get(id.to_string().as_str()), Some(&"COMPLETED"), "job {id}");
    }
}

#[test]
fn a_killed_controller_loses_no_job_and_runs_none_twice() {
    let mut cluster = Cluster::start(Options::one_node(8));
    let go = format!("while [ ! -e go ]; do sleep 0.05; done; {NOTED}");
    let running: Vec<u32> =
        (0..4).map(|_| cluster.wrap("-n 2 --mem 20M -o /dev/null", &go).id()).collect();
    for id in &running {
        cluster.await_state(*id, "RUNNING");
    }
    let mut all = submit_many(&cluster, 1_000);
    all.extend(&running);

    // Commands go on submitting while the controller dies and comes back.
    let done = AtomicBool::new(false);
    let printed = Mutex::new(Vec::new());
    let sbatch = cluster.detached("sbatch");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let words = "--parsable --mem 20M -o /dev/null --wrap";
                    let id = sbatch().words(words).arg(NOTED).id();
                    printed.lock().expect("no panic").push(id);
                }
            });
        }
        let count = || printed.lock().expect("no panic").len();
        for _ in 0..3 {
            let before = count();
            wait_until("some more are in", PATIENCE, || count() >= before + 5);
            cluster.kill_controller();
            cluster.start_controller();
        }
        done.store(true, Ordering::Relaxed);
    });
    all.extend(printed.into_inner().expect("no panic"));
    for id in &running {
        assert_eq!(cluster.job(*id).state(), "RUNNING");
    }
    let distinct: std::collections::BTreeSet<u32> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "no id is given twice");
    // Whatever is in the queue has an id that was told to somebody: nothing was taken twice.
    assert_eq!(cluster.squeue("-o %A").lines().count(), all.len());
    fs::write(cluster.work().join("go"), "").expect("written");
    check_all(&cluster, &all, Duration::from_secs(90));
    assert_eq!(runs(&cluster).len(), all.len(), "nobody else ran");
}

#[test]
fn daemons_killed_amid_many_starts_start_nothing_twice() {
    let mut cluster = Cluster::start(Options::one_node(8));
    let all = submit_many(&cluster, 600);
    for round in 1..=12 {
        let enough = round * 40;
        wait_until(format!("{enough} jobs ran"), PATIENCE * 2, || runs(&cluster).len() >= enough);
        if round % 3 != 1 {
            cluster.kill_controller();
        }
        if round % 3 != 2 {
            cluster.kill_agent(0);
            cluster.agents[0] = Some(cluster.spawn_agent(&cluster.bin("penstock"), "n1"));
        }
        if cluster.controller.is_none() {
            cluster.start_controller();
        }
    }
    check_all(&cluster, &all, Duration::from_secs(60));
    assert_eq!(runs(&cluster).len(), all.len(), "nobody else ran");
    cluster.await_node("n1", &["IDLE"]);
}

#[test]
fn a_killed_agent_finds_its_jobs_again() {
    let mut cluster = Cluster::start(Options::one_node(8));
    let goes = |name: &str, code: u32| {
        let script = format!("while [ ! -e {name} ]; do sleep 0.05; done; {NOTED}; exit {code}");
        cluster.wrap("", &script).id()
    };
    let (stays, ends, both) = (goes("never", 0), goes("one", 3), goes("two", 4));
    for id in [stays, ends, both] {
        cluster.await_state(id, "RUNNING");
    }
    cluster.kill_agent(0);
    fs::write(cluster.work().join("one"), "").expect("written");
    wait_until("the job ended behind the agent's back", PATIENCE, || {
        cluster.read("ran").contains(&format!("{ends}\n"))
    });
    cluster.restart_agent(0, None);
    assert_eq!(cluster.await_end(ends).end(), "FAILED 3:0 NonZeroExitCode");
    assert_eq!(cluster.job(stays).state(), "RUNNING");

    // Now both daemons die, and a job ends while neither is there.
    cluster.kill_agent(0);
    cluster.kill_controller();
    fs::write(cluster.work().join("two"), "").expect("written");
    wait_until("the job ended while nobody was there", PATIENCE, || {
        cluster.read("ran").contains(&format!("{both}\n"))
    });
    cluster.start_controller();
    cluster.restart_agent(0, None);
    assert_eq!(cluster.await_end(both).end(), "FAILED 4:0 NonZeroExitCode");
    assert_eq!(cluster.job(stays).state(), "RUNNING");
    cluster.cmd("scancel").arg(stays.to_string()).ok();
    assert_eq!(cluster.await_end(stays).state(), "CANCELLED");
    let rows = cluster.sacct(&format!("-X -D -j {ends},{both} -o JobID,State,ExitCode"));
    assert_eq!(rows, format!("{ends}|FAILED|3:0\n{both}|FAILED|4:0\n"), "each end once");
    assert!(runs(&cluster).values().all(|count| *count == 1));
    cluster.await_node("n1", &["IDLE"]);
}

#[test]
fn a_new_program_takes_over_the_jobs_of_the_old_one() {
    let mut cluster = Cluster::start(Options::one_node(4));
    let script = format!("while [ ! -e go ]; do sleep 0.05; done; {NOTED}; exit 6");
    let id = cluster.wrap("", &script).id();
    cluster.await_state(id, "RUNNING");
    let new = cluster.dir().join("bin").join("penstock-new");
    fs::copy(env!("CARGO_BIN_EXE_penstock"), &new).expect("room for a copy");
    let status = cluster.agents[0].take().expect("the agent is up").terminate();
    assert!(status.success(), "SIGTERM is a good end: {status}");
    assert_eq!(cluster.job(id).state(), "RUNNING", "jobs go on without their agent");
    cluster.restart_agent(0, Some(&new));
    let text = fs::read_link(format!("/proc/{}/exe", cluster.agent(0).pid())).expect("it lives");
    assert_eq!(text, new.canonicalize().expect("there"));
    let after = cluster.wrap("", "exit 8").id();
    assert_eq!(cluster.await_end(after).get("ExitCode"), "8:0");
    assert_eq!(cluster.job(id).state(), "RUNNING");
    fs::write(cluster.work().join("go"), "").expect("written");
    assert_eq!(cluster.await_end(id).end(), "FAILED 6:0 NonZeroExitCode");
    assert_eq!(runs(&cluster), BTreeMap::from([(id, 1)]));
}

#[test]
fn a_shepherd_that_is_killed_takes_its_job_along() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "[ -n \"$SLURM_RESTART_COUNT\" ] && exit 0; echo $$ > pid; exec sleep 300";
    let id = cluster.wrap("", script).id();
    cluster.await_text("pid", "\n");
    let shepherd = cluster.shepherds();
    assert_eq!(shepherd.len(), 1);
    crate::harness::kill_pid(shepherd[0]);
    let job = cluster.await_end(id);
    assert_eq!(job.end(), "COMPLETED 0:0 None");
    assert_eq!(job.get("Restarts"), "1", "its end was a fault of the node");
    cluster.await_quiet();
}

#[test]
fn a_controller_told_to_end_ends_and_comes_back_with_everything() {
    let mut cluster = Cluster::start(Options::one_node(2).policy("min_job_age_secs = 2"));
    let done = cluster.wrap("-J done", "exit 9").id();
    cluster.await_end(done);
    let held = cluster.wrap("-H -J held --comment kept", "true").id();
    let array = cluster.wrap("-H -a 0-99%7", "true").id();
    cluster.scontrol("update NodeName=n1 State=DRAIN Reason=kept");
    wait_until("the ended job is history", PATIENCE, || {
        cluster.cmd("scontrol").words(&format!("show job {done}")).run().code != 0
    });
    let status = cluster.controller.take().expect("it is up").terminate();
    assert!(status.success(), "{status}");
    let check = cluster.penstock("store check").arg(cluster.state().join("store")).run();
    cluster.start_controller();
    assert_eq!(check.code, 0, "{check}");
    assert_eq!(cluster.job(held).get("Comment"), "kept");
    assert_eq!(cluster.squeue(&format!("-j {array} -o %i")), format!("{array}_[0-99%7]\n"));
    assert_eq!(cluster.sacct(&format!("-X -j {done} -o State,ExitCode")), "FAILED|9:0\n");
    assert!(cluster.cmd("sinfo").words("-h -R").ok().starts_with("kept"));
    let next = cluster.wrap("-H", "true").id();
    assert!(next > array, "ids go on");
}
