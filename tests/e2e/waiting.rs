//! Does a job wait for what it was told to wait for, and no longer?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{Cluster, Options};

#[test]
fn dependencies_are_kept() {
    let cluster = Cluster::start(Options::one_node(8));
    let go = "while [ ! -e go ]; do sleep 0.05; done";
    let good = cluster.wrap("", go).id();
    let bad = cluster.wrap("", &format!("{go}; exit 1")).id();
    let after = |what: &str| cluster.wrap(&format!("-d {what}"), "echo $SLURM_JOB_ID >> ran").id();
    let ok_good = after(&format!("afterok:{good}"));
    let ok_bad = after(&format!("afterok:{bad}"));
    let not_bad = after(&format!("afternotok:{bad}"));
    let not_good = after(&format!("afternotok:{good} --kill-on-invalid-dep=yes"));
    let any = after(&format!("afterany:{good}:{bad}"));
    let started = after(&format!("after:{good}"));
    let later = after(&format!("after:{good}+1"));
    let one_of = after(&format!("afterok:{bad}?afterok:{good}"));
    for id in [ok_good, ok_bad, not_bad, not_good, any, later, one_of] {
        assert_eq!(cluster.await_reason(id, "Dependency").state(), "PENDING");
    }
    let shown = cluster.job(ok_good);
    assert_eq!(shown.get("Dependency"), format!("afterok:{good}(unfulfilled)"));
    assert_eq!(cluster.await_end(started).state(), "COMPLETED");
    assert_eq!(cluster.read("ran"), format!("{started}\n"), "nobody else ran yet");
    std::fs::write(cluster.work().join("go"), "").expect("written");
    for id in [ok_good, not_bad, any, one_of] {
        assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    }
    cluster.await_reason(ok_bad, "DependencyNeverSatisfied");
    assert_eq!(cluster.await_end(not_good).state(), "CANCELLED");
    assert_eq!(cluster.job(later).state(), "PENDING", "a minute is not over");
    cluster.cmd("scancel").arg(later.to_string()).ok();
    let refused = cluster.wrap("-d afterok:9999", "true").fails();
    refused.says("Job dependency problem");
}

#[test]
fn a_kind_of_dependency_that_is_not_known_is_refused_by_name() {
    let cluster = Cluster::start(Options::one_node(2));
    let other = cluster.wrap("-H", "true").id();
    cluster.wrap(&format!("-d until:{other}"), "true").fails().says("until");
}

#[test]
fn an_array_can_be_waited_for() {
    let cluster = Cluster::start(Options::one_node(4));
    let go = "while [ ! -e go ]; do sleep 0.05; done; exit $((SLURM_ARRAY_TASK_ID == 3))";
    let array = cluster.wrap("-a 0-3", go).id();
    let ok = cluster.wrap(&format!("-d afterok:{array}"), "true").id();
    let any = cluster.wrap(&format!("-d afterany:{array}"), "true").id();
    cluster.await_reason(any, "Dependency");
    std::fs::write(cluster.work().join("go"), "").expect("written");
    assert_eq!(cluster.await_end(any).state(), "COMPLETED");
    cluster.await_reason(ok, "DependencyNeverSatisfied");
}

#[test]
fn a_job_begins_no_earlier_than_it_says() {
    let cluster = Cluster::start(Options::one_node(2));
    let before = now();
    let id = cluster.wrap("--begin=now+2", "date +%s%N > begun").id();
    cluster.await_reason(id, "BeginTime");
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let begun: u64 = cluster.read("begun").trim().parse().expect("nanoseconds");
    let waited = Duration::from_nanos(begun).saturating_sub(before);
    // --begin has whole seconds: now is cut to one.
    assert!(waited >= Duration::from_secs(1), "after {waited:?}");
    assert!(waited < Duration::from_secs(20), "after {waited:?}");
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

#[test]
fn a_held_job_waits_until_it_is_released() {
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("-H", "true").id();
    let job = cluster.await_reason(id, "JobHeldUser");
    assert_eq!(job.get("Priority"), "0");
    cluster.scontrol(&format!("release {id}"));
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let block = cluster.wrap("-n 2", "sleep 300").id();
    let next = cluster.wrap("", "true").id();
    cluster.await_reason(next, "Resources");
    cluster.scontrol(&format!("hold {next}"));
    cluster.await_reason(next, "JobHeld");
    cluster.cmd("scancel").arg(block.to_string()).ok();
    cluster.await_end(block);
    assert_eq!(cluster.job(next).state(), "PENDING");
    cluster.scontrol(&format!("release {next}"));
    assert_eq!(cluster.await_end(next).state(), "COMPLETED");
    let refused = cluster.cmd("scontrol").words(&format!("hold {next}")).fails();
    assert!(refused.err.contains("finished") || refused.err.contains("ended"), "{refused}");
}

#[test]
fn a_requeued_job_runs_again_and_says_so() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "echo run ${SLURM_RESTART_COUNT-none} >> runs; \
                  [ -n \"$SLURM_RESTART_COUNT\" ] || sleep 300";
    let id = cluster.wrap("", script).id();
    cluster.await_text("runs", "run none\n");
    cluster.scontrol(&format!("requeue {id}"));
    let job = cluster.await_end(id);
    assert_eq!((job.state(), job.get("Restarts")), ("COMPLETED", "1"));
    assert_eq!(cluster.read("runs"), "run none\nrun 1\n");
    assert_eq!(cluster.sacct(&format!("-X -j {id} -o State")), "COMPLETED\n");
    let rows = cluster.sacct(&format!("-X -D -j {id} -o State"));
    assert_eq!(rows.lines().count(), 2, "{rows}");
    assert!(rows.contains("REQUEUED"), "{rows}");
    let never = cluster.wrap("--no-requeue", "sleep 300").id();
    cluster.await_state(never, "RUNNING");
    cluster.cmd("scontrol").words(&format!("requeue {never}")).fails();
    assert_eq!(cluster.job(never).state(), "RUNNING");
}

#[test]
fn a_waiting_job_can_be_changed() {
    let cluster = Cluster::start(Options::one_node(4));
    let id = cluster.wrap("-H -n 1 -t 60", "echo $SLURM_NTASKS > n").id();
    let words = format!("update JobId={id} TimeLimit=5 Name=other NumTasks=2");
    let ran = cluster.cmd("scontrol").words(&words).run();
    assert_eq!(ran.code, 0, "{ran}");
    cluster.scontrol(&format!("release {id}"));
    let job = cluster.await_end(id);
    assert_eq!((job.get("JobName"), job.get("TimeLimit")), ("other", "00:05:00"));
    assert_eq!(cluster.read("n"), "2\n");
    let ran = cluster.cmd("scontrol").words(&format!("update JobId={id} Foo=2")).fails();
    assert!(format!("{}{}", ran.out, ran.err).contains("Foo"), "{ran}");
}
