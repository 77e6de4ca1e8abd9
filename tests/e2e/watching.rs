//! Is what happens told as it happens, to the end, over a restart too?

use nix::sys::signal::Signal;

use crate::harness::{Cluster, Cmd, Options, wait_until};

/// `squeue --watch`, its output in a file of the work folder.
fn watch_into(cluster: &Cluster, file: &str, words: &str) -> crate::harness::Running {
    let line = format!("exec {} --watch {words} > {file}", cluster.bin("squeue").display());
    Cmd::new(std::path::Path::new("/bin/sh"))
        .arg("-c")
        .arg(line)
        .env("PENSTOCK_SOCKET", cluster.socket())
        .dir(&cluster.work())
        .spawn()
}

#[test]
fn one_job_is_followed_to_its_end_and_its_exit_status_is_the_commands() {
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("-H -J train", "exit 7").id();
    let watch = cluster.penstock(&format!("watch {id}")).spawn();
    let json = cluster.penstock(&format!("watch --json {id}")).spawn();
    cluster.await_reason(id, "JobHeldUser");
    cluster.scontrol(&format!("release {id}"));
    let ran = watch.wait();
    assert_eq!(ran.code, 7, "{ran}");
    let last = ran.out.lines().last().unwrap_or_default();
    assert!(last.contains(&format!(" {id} train FAILED on n1 exit 7:0")), "{ran}");
    let ran = json.wait();
    assert_eq!(ran.code, 7, "{ran}");
    assert!(ran.out.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{ran}");
    assert!(ran.out.contains("\"state\":\"FAILED\",\"over\":true"), "{ran}");
    // Known still, and not to be waited for.
    assert_eq!(cluster.penstock(&format!("watch {id}")).run().code, 7);
    cluster.penstock("watch 9999").fails().says("Invalid job id specified: 9999");
    cluster.penstock("watch x").fails().says("Invalid job id x");
}

#[test]
fn an_array_is_followed_to_the_end_of_its_last_task() {
    let cluster = Cluster::start(Options::one_node(4));
    let id = cluster.wrap("-a 1-5", "exit $((SLURM_ARRAY_TASK_ID == 3))").id();
    let ran = cluster.penstock(&format!("watch {id}")).run();
    assert_eq!(ran.code, 1, "{ran}");
    let ended = |word: &str| ran.out.lines().filter(|line| line.contains(word)).count();
    assert_eq!((ended(" COMPLETED "), ended(" FAILED ")), (4, 1), "{ran}");
}

#[test]
fn following_goes_on_after_a_restart_of_the_controller() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("", "while [ ! -e go ]; do sleep 0.05; done").id();
    cluster.await_state(id, "RUNNING");
    let mut watch = cluster.penstock(&format!("watch {id}")).spawn();
    let table = watch_into(&cluster, "table", "-o %i:%T");
    wait_until("it is shown", crate::harness::PATIENCE, || {
        cluster.read("table").contains("RUNNING")
    });
    cluster.kill_controller();
    watch.hears("the controller does not answer; waiting for it");
    cluster.start_controller();
    std::fs::write(cluster.work().join("go"), "").expect("written");
    let ran = watch.wait();
    assert_eq!(ran.code, 0, "{ran}");
    let running = ran.out.matches(" RUNNING ").count();
    assert_eq!(running, 1, "what still holds is told once: {ran}");
    assert!(ran.out.contains(" COMPLETED "), "{ran}");
    wait_until("the table is empty again", crate::harness::PATIENCE, || {
        cluster.read("table").trim_end().ends_with("JOBID:STATE")
    });
    table.signal(Signal::SIGTERM);
    table.wait();
}

#[test]
fn a_table_follows_the_queue() {
    let cluster = Cluster::start(Options::one_node(2));
    let table = watch_into(&cluster, "table", "-h -o %i:%t:%r");
    let lines = watch_into(&cluster, "lines", "--json");
    wait_until("it is there", crate::harness::PATIENCE, || !cluster.read("table").is_empty());
    let id = cluster.wrap("-H", "true").id();
    let shows = |what: String| {
        wait_until(&what, crate::harness::PATIENCE, || cluster.read("table").contains(&what));
    };
    shows(format!("{id}:PD:JobHeldUser"));
    let block = cluster.wrap("-n 2", "sleep 300").id();
    shows(format!("{block}:R:None"));
    // A reason is the plan's, and no change of any record.
    cluster.scontrol(&format!("release {id}"));
    shows(format!("{id}:PD:Resources"));
    cluster.cmd("scancel").arg(block.to_string()).ok();
    wait_until("the line of the end is there", crate::harness::PATIENCE, || {
        cluster.read("lines").contains("\"state\":\"COMPLETED\"")
    });
    for running in [table, lines] {
        running.signal(Signal::SIGTERM);
        running.wait();
    }
    cluster.cmd("squeue").words("--watch -i 5").fails().says("mutually exclusive");
}
