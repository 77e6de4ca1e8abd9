//! What becomes of a job whose node is cut off, where the node ends it by itself?

use crate::harness::{Cluster, Options, PATIENCE, wait_until};

/// Says where it runs, whether the run before it is still there, and does not end when it is asked to.
const SCRIPT: &str = "trap '' TERM
if [ -e pid ] && kill -0 $(cat pid) 2> /dev/null; then echo twice >> ran; fi
echo $$ > pid; echo $SLURMD_NODENAME >> ran
while :; do sleep 0.1; done";

/// Two nodes in partitions that fence by lease, `main`, and that do not, `other`. Of a silence of 15 s,
/// the lease, the wait and the margin take 14.
fn cluster() -> (Cluster, u32) {
    let partition = |name: &str, lines: &str| {
        format!("[[partition]]\nname = \"{name}\"\nnodes = \"ALL\"\n{lines}\n")
    };
    let sections = partition("main", "default = true\nfence = \"self\"") + &partition("other", "");
    let options = Options { sections, ..Options::nodes(2, 2) };
    let options = options.policy("node_timeout_secs = 15").policy("fence_lease_secs = 3");
    let cluster = Cluster::start(options);
    cluster.scontrol("update NodeName=n2 State=DRAIN Reason=later");
    let id = cluster.wrap("", SCRIPT).id();
    cluster.await_text("ran", "n1\n");
    cluster.scontrol("update NodeName=n2 State=RESUME");
    (cluster, id)
}

#[track_caller]
fn runs_on_n2_alone(cluster: &Cluster, id: u32) {
    let patience = 2 * PATIENCE;
    wait_until("the job runs elsewhere", patience, || cluster.read("ran").lines().count() > 1);
    assert_eq!(cluster.read("ran"), "n1\nn2\n", "and nowhere else");
    assert_eq!(cluster.await_state(id, "RUNNING").get("NodeList"), "n2");
}

#[test]
fn a_job_of_an_agent_that_stands_still_is_gone_before_it_runs_elsewhere() {
    let (mut cluster, id) = cluster();
    let stays = cluster.wrap("-p other -w n1", "exec sleep 300").id();
    cluster.await_state(stays, "RUNNING");
    cluster.agent(0).freeze();
    runs_on_n2_alone(&cluster, id);
    assert_eq!(cluster.job(stays).state(), "RUNNING", "nothing is known of it");
    cluster.agent(0).thaw();
    cluster.await_node("n1", &["MIXED"]);
    wait_until("the old record is forgotten", PATIENCE, || {
        !cluster.dir().join(format!("n1/state/spool/{id}.1")).exists()
    });
    let job = cluster.job(id);
    assert_eq!((job.state(), job.get("NodeList")), ("RUNNING", "n2"));
    assert_eq!(cluster.job(stays).get("NodeList"), "n1");
    assert_eq!(cluster.shepherds().len(), 2);
}

#[test]
fn a_job_of_an_agent_that_is_gone_is_ended_by_its_shepherd() {
    let (mut cluster, id) = cluster();
    cluster.kill_agent(0);
    runs_on_n2_alone(&cluster, id);
    cluster.restart_agent(0, None);
    cluster.await_node("n1", &["IDLE"]);
    assert_eq!(cluster.job(id).get("NodeList"), "n2");
}

#[test]
fn a_lease_outlives_restarts_of_agent_and_controller() {
    let (mut cluster, id) = cluster();
    for _ in 0..3 {
        cluster.kill_agent(0);
        cluster.restart_agent(0, None);
        cluster.kill_controller();
        cluster.start_controller();
        cluster.await_node("n1", &["MIXED"]);
    }
    let job = cluster.job(id);
    assert_eq!((job.state(), job.get("NodeList")), ("RUNNING", "n1"));
    assert_eq!(cluster.read("ran"), "n1\n", "it was never ended");
}
