//! What happens to a job while its agent or its controller is away?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{
    Cluster, Options, PATIENCE, block_on, held_request, rpc_at, submit, wait_until,
};

#[test]
fn a_time_limit_holds_while_the_agent_is_away() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let id = submit(&cluster, |spec| spec.time_limit_secs = Some(2), "exec sleep 300");
    cluster.await_state(id, "RUNNING");
    cluster.kill_agent(0);
    wait_until("the shepherd ended the job and itself", PATIENCE, || {
        cluster.shepherds().is_empty()
    });
    assert_eq!(cluster.job(id).state(), "RUNNING", "nobody could tell");
    cluster.restart_agent(0, None);
    assert_eq!(cluster.await_end(id).end(), "TIMEOUT 0:15 TimeLimit");
}

#[test]
fn a_job_cancelled_while_its_agent_is_away_ends_when_the_agent_is_back() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("", "exec sleep 300").id();
    cluster.await_state(id, "RUNNING");
    // It runs for the controller before its processes are there.
    wait_until("the job has a shepherd", PATIENCE, || cluster.shepherds().len() == 1);
    cluster.kill_agent(0);
    cluster.cmd("scancel").arg(id.to_string()).ok();
    cluster.await_state(id, "COMPLETING");
    let next = cluster.wrap("-n 2", "true").id();
    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(cluster.job(id).state(), "COMPLETING", "its end is not proven");
    assert_eq!(cluster.job(next).state(), "PENDING", "so what it holds is not free");
    assert_eq!(cluster.shepherds().len(), 1);
    cluster.restart_agent(0, None);
    assert_eq!(cluster.await_end(id).state(), "CANCELLED");
    assert_eq!(cluster.await_end(next).state(), "COMPLETED");
}

#[test]
fn a_job_runs_elsewhere_once_an_admin_proves_its_end_and_the_old_run_is_ended() {
    let mut cluster = Cluster::start(Options::nodes(2, 2));
    let script = "echo $SLURMD_NODENAME ${SLURM_RESTART_COUNT-0} >> ran; exec sleep 300";
    cluster.scontrol("update NodeName=n2 State=DRAIN Reason=later");
    let id = cluster.wrap("", script).id();
    cluster.await_text("ran", "n1 0\n");
    cluster.scontrol("update NodeName=n2 State=RESUME");
    cluster.kill_agent(0);
    cluster.await_node("n1", &["MIXED+NOT_RESPONDING"]);
    cluster.scontrol("update NodeName=n1 State=POWER_DOWN Reason=pulled");
    cluster.await_text("ran", "n2 1\n");
    assert_eq!(cluster.job(id).get("NodeList"), "n2");
    assert_eq!(cluster.shepherds().len(), 2, "the admin was wrong: the old run goes on");
    cluster.restart_agent(0, None);
    wait_until("the old run is ended", PATIENCE, || cluster.shepherds().len() == 1);
    let job = cluster.job(id);
    assert_eq!((job.state(), job.get("NodeList")), ("RUNNING", "n2"));
    assert_eq!(cluster.read("ran"), "n1 0\nn2 1\n");
}

#[test]
fn a_request_is_carried_out_once_however_often_it_is_sent() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let request = held_request(&cluster);
    let send = |cluster: &Cluster| {
        let request = request.clone();
        block_on(async {
            let mut rpc = rpc_at(&cluster.socket()).await;
            rpc.submit_job(request).await.expect("taken").into_inner().job_id
        })
    };
    let id = send(&cluster);
    assert_eq!(send(&cluster), id);
    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(send(&cluster), id, "it is remembered durably");
    assert_eq!(cluster.squeue("").lines().count(), 1);
}

#[test]
fn sbatch_waits_over_a_restart_of_the_controller() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let script = "while [ ! -e go ]; do sleep 0.05; done; exit 21";
    let waiting = cluster.wrap("-W", script).spawn();
    cluster.await_state_soon(1, "RUNNING");
    cluster.kill_controller();
    cluster.start_controller();
    fs::write(cluster.work().join("go"), "").expect("written");
    let ran = waiting.wait();
    assert_eq!(ran.code, 21, "{ran}");
}

#[test]
fn an_agent_that_hangs_is_missed_and_taken_back() {
    let mut cluster = Cluster::start(Options::one_node(2).policy("node_timeout_secs = 5"));
    let id = cluster.wrap("", "while [ ! -e go ]; do sleep 0.05; done; exit 5").id();
    cluster.await_state(id, "RUNNING");
    cluster.agent(0).freeze();
    cluster.await_node("n1", &["MIXED+NOT_RESPONDING", "DOWN+NOT_RESPONDING"]);
    let waits = cluster.wrap("", "true").id();
    fs::write(cluster.work().join("go"), "").expect("written");
    wait_until("the job ended", PATIENCE, || cluster.shepherds().is_empty());
    assert_eq!(cluster.job(waits).state(), "PENDING", "nothing is given to a silent node");
    cluster.agent(0).thaw();
    assert_eq!(cluster.await_end(id).end(), "FAILED 5:0 NonZeroExitCode");
    assert_eq!(cluster.await_end(waits).state(), "COMPLETED");
    cluster.await_node("n1", &["IDLE"]);
}

#[test]
fn a_controller_that_hangs_keeps_commands_waiting_and_takes_each_once() {
    let cluster = Cluster::start(Options::one_node(2));
    let controller = cluster.controller.as_ref().expect("it is up");
    controller.freeze();
    let sent: Vec<_> = (0..4).map(|_| cluster.wrap("-H", "true").spawn()).collect();
    let pinged = cluster.cmd("scontrol").arg("ping").spawn();
    controller.thaw();
    let mut ids: Vec<String> = sent.into_iter().map(|command| command.wait().out).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["1\n", "2\n", "3\n", "4\n"]);
    assert_eq!(pinged.wait().code, 0);
}

#[test]
fn a_second_controller_on_the_same_state_is_refused() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let mut second = cluster.spawn_controller();
    assert!(!second.ended().success());
    assert!(cluster.controller.as_mut().is_some_and(|daemon| daemon.lives()));
    let id = cluster.wrap("-W", "true").id();
    assert_eq!(cluster.job(id).state(), "COMPLETED");
}

#[test]
fn a_silent_nodes_jobs_run_elsewhere_once_the_fence_program_succeeds() {
    let tools = tempfile::tempdir().expect("a folder");
    let (program, ready) = (tools.path().join("fence"), tools.path().join("ready"));
    let text =
        format!("#!/bin/sh\necho \"$1\" >> {0}/asked\n[ -e {0}/ready ]\n", tools.path().display());
    fs::write(&program, text).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let options = Options::nodes(2, 2)
        .policy("node_timeout_secs = 5")
        .policy(&format!("fence_program = {program:?}"));
    let mut cluster = Cluster::start(options);
    cluster.scontrol("update NodeName=n2 State=DRAIN Reason=later");
    let id = cluster.wrap("", "echo $SLURMD_NODENAME >> ran; exec sleep 300").id();
    cluster.await_text("ran", "n1\n");
    cluster.scontrol("update NodeName=n2 State=RESUME");
    fs::write(&ready, "").expect("written");
    cluster.kill_agent(0);
    cluster.await_text("ran", "n2\n");
    assert_eq!(cluster.job(id).get("NodeList"), "n2");
    let asked = fs::read_to_string(tools.path().join("asked")).expect("it was called");
    assert_eq!(asked, "n1\n", "once, for the silent node");
}
