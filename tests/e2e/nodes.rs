//! Are nodes used as admins and jobs ask?

use std::collections::BTreeMap;

use crate::harness::{AgentOptions, Cluster, Options, is_root};

#[test]
fn a_drained_node_says_why_and_takes_nothing_until_it_is_resumed() {
    let cluster = Cluster::start(Options::one_node(2));
    let running = cluster.wrap("", "sleep 300").id();
    cluster.await_state(running, "RUNNING");
    let refused = cluster.cmd("scontrol").words("update NodeName=n1 State=DRAIN").fails();
    let said = format!("{}{}", refused.out, refused.err);
    assert!(said.contains("You must specify a reason when DOWNING or DRAINING a node"), "{said}");
    cluster.scontrol("update NodeName=n1 State=DRAIN Reason=bad_fan");
    let listed = cluster.cmd("sinfo").words("-h -R").ok();
    assert!(listed.starts_with("bad_fan") && listed.trim_end().ends_with("n1"), "{listed}");
    assert_eq!(cluster.cmd("sinfo").words("-h -N -o %t").ok(), "drng\n");
    assert_eq!(cluster.job(running).state(), "RUNNING");
    let waits = cluster.wrap("", "true").id();
    cluster.await_reason(waits, "Resources");
    cluster.cmd("scancel").arg(running.to_string()).ok();
    cluster.await_end(running);
    assert_eq!(cluster.cmd("sinfo").words("-h -N -o %t").ok(), "drain\n");
    cluster.scontrol("update NodeName=n1 State=RESUME");
    assert_eq!(cluster.await_end(waits).state(), "COMPLETED");
    assert_eq!(cluster.cmd("sinfo").words("-h -R").ok(), "");
}

#[test]
fn a_job_that_needs_a_drained_node_names_it() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    cluster.scontrol("update NodeName=n1 State=DRAIN Reason=fan");
    let id = cluster.wrap("-w n1", "true").id();
    let job = cluster.await_reason(id, "ReqNodeNotAvail");
    assert_eq!(job.get("Reason"), "ReqNodeNotAvail,_UnavailableNodes:n1");
    assert_eq!(cluster.squeue("-h -o %r").trim(), "ReqNodeNotAvail, UnavailableNodes:n1");
    let other = cluster.wrap("-w n2", "true").id();
    assert_eq!(cluster.await_end(other).state(), "COMPLETED", "nobody waits behind it");
    cluster.scontrol("update NodeName=n1 State=RESUME");
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
}

#[test]
fn a_node_taken_down_ends_its_jobs() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "[ -n \"$SLURM_RESTART_COUNT\" ] || sleep 300";
    let again = cluster.wrap("", script).id();
    let once = cluster.wrap("--no-requeue", "sleep 300").id();
    cluster.await_state(again, "RUNNING");
    cluster.await_state(once, "RUNNING");
    cluster.scontrol("update NodeName=n1 State=DOWN Reason=gone");
    assert_eq!(cluster.await_end(once).state(), "NODE_FAIL");
    cluster.await_state(again, "PENDING");
    cluster.scontrol("update NodeName=n1 State=RESUME");
    let job = cluster.await_end(again);
    assert_eq!((job.state(), job.get("Restarts")), ("COMPLETED", "1"));
}

#[test]
fn a_job_on_several_nodes_knows_them() {
    let mut options = Options::nodes(3, 2);
    options.resolve_nodes = true;
    let cluster = Cluster::start(options);
    let script = "env | grep ^SLURM; for n in $(scontrol show hostnames); do getent hosts $n; done";
    let id = cluster.wrap("-N 3 --ntasks-per-node=2 -o many.out", script).id();
    assert_eq!(cluster.await_end(id).get("NodeList"), "n[1-3]");
    let out = cluster.read("many.out");
    for line in [
        "SLURM_JOB_NODELIST=n[1-3]",
        "SLURM_JOB_NUM_NODES=3",
        "SLURM_NNODES=3",
        "SLURM_NTASKS_PER_NODE=2",
        "SLURM_TASKS_PER_NODE=2(x3)",
        "SLURM_JOB_CPUS_PER_NODE=2(x3)",
        "SLURM_CPUS_ON_NODE=2",
        "SLURM_NTASKS=6",
        "SLURMD_NODENAME=n1",
    ] {
        assert!(out.lines().any(|found| found == line), "no {line} in\n{out}");
    }
    if is_root() {
        for (name, address) in [("n1", "127.0.0.2"), ("n2", "127.0.0.3"), ("n3", "127.0.0.4")] {
            let words = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            assert!(words.into_iter().any(|line| line == [address, name]), "no {name} in\n{out}");
        }
    } else {
        println!("skipped: names inside jobs, not root");
    }
}

#[test]
fn jobs_run_on_the_nodes_they_ask_for() {
    let node = |name: &str, feature: &str| {
        AgentOptions::node(name, 2).with(&format!("features = [{feature:?}, \"all\"]"))
    };
    let options = Options::controller_only().and(node("n1", "a")).and(node("n2", "b"));
    let cluster = Cluster::start(options.and(node("n3", "c")));
    let nodes_of = |words: &str| {
        let id = cluster.wrap(words, "true").id();
        let job = cluster.await_end(id);
        assert_eq!(job.state(), "COMPLETED", "{words}");
        job.get("NodeList").to_owned()
    };
    assert_eq!(nodes_of("-w n2"), "n2");
    assert_eq!(nodes_of("-x n[1-2]"), "n3");
    assert_eq!(nodes_of("-C b"), "n2");
    assert_eq!(nodes_of("-N 2 -C a|c"), "n[1,3]");
    assert_eq!(nodes_of("-C all&c"), "n3");
    assert!(["n[1,3]", "n[2-3]"].contains(&nodes_of("-N 2 -w n3").as_str()));
    let whole = cluster.wrap("--exclusive -w n1", "sleep 300").id();
    cluster.await_state(whole, "RUNNING");
    assert_eq!(cluster.node_state("n1"), "ALLOCATED");
    let beside = cluster.wrap("-w n1", "true").id();
    cluster.await_reason(beside, "Resources");
    cluster.cmd("scancel").arg(beside.to_string()).ok();
    assert!(["n2", "n3"].contains(&nodes_of("").as_str()));
}

#[test]
fn devices_are_never_given_twice() {
    let gpus = AgentOptions::node("n1", 8).with("gres = [\"gpu:h100:4\"]");
    let cluster = Cluster::start(Options::controller_only().and(gpus));
    let script =
        "echo + $CUDA_VISIBLE_DEVICES >> log; sleep 0.2; echo - $CUDA_VISIBLE_DEVICES >> log";
    let one = cluster.wrap("-a 0-5 --gres=gpu:1", script).id();
    let two = cluster.wrap("-a 0-3 --gres=gpu:h100:2", script).id();
    for id in [one, two] {
        assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    }
    let log = cluster.read("log");
    let mut held: BTreeMap<&str, bool> = BTreeMap::new();
    let mut given = 0;
    for line in log.lines() {
        let (sign, devices) = line.split_once(' ').expect("a sign and devices");
        for device in devices.split(',') {
            let before = held.insert(device, sign == "+").unwrap_or(false);
            assert_eq!(before, sign == "-", "device {device} is given twice:\n{log}");
            given += usize::from(sign == "+");
        }
    }
    assert_eq!(given, 6 + 2 * 4);
    assert!(held.keys().all(|device| ["0", "1", "2", "3"].contains(device)), "{log}");
    let none = cluster.wrap("-o none.out", "echo ${CUDA_VISIBLE_DEVICES-unset}").id();
    cluster.await_end(none);
    let out = cluster.read("none.out");
    assert!(["unset\n", "\n", "NoDevFiles\n"].contains(&out.as_str()), "{out}");
    let refused = cluster.wrap("--gres=gpu:5", "true").fails();
    refused.says("4");
}

#[test]
fn a_silent_node_is_down_and_its_job_goes_on() {
    let options = Options::one_node(2).policy("node_timeout_secs = 5");
    let mut cluster = Cluster::start(options);
    let id = cluster.wrap("", "while [ ! -e go ]; do sleep 0.05; done; exit 4").id();
    cluster.await_state(id, "RUNNING");
    cluster.kill_agent(0);
    cluster.await_node("n1", &["DOWN+NOT_RESPONDING", "DOWN*"]);
    assert_eq!(cluster.job(id).state(), "RUNNING", "nobody has proven its end");
    std::fs::write(cluster.work().join("go"), "").expect("written");
    cluster.restart_agent(0, None);
    assert_eq!(cluster.await_end(id).end(), "FAILED 4:0 NonZeroExitCode");
    cluster.await_node("n1", &["IDLE"]);
}
