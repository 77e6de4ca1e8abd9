//! Do jobs that are unlike others end as they should, and harm nobody?

use crate::harness::{Cluster, Options, submit, submit_with};

#[test]
fn a_launch_that_fails_for_the_jobs_own_reasons_fails_the_job_only() {
    let cluster = Cluster::start(Options::one_node(2));
    let no_interpreter = cluster.cmd("sbatch").words("--parsable").stdin("#!/no/such\n").id();
    let huge = (0..30).map(|n| format!("V{n}={}\0", "x".repeat(100_000))).collect::<String>();
    let huge = submit_with(&cluster, |_| {}, "true", huge.into_bytes());
    for id in [no_interpreter, huge] {
        assert_eq!(cluster.await_end(id).state(), "FAILED", "job {id}");
    }
    let astray = cluster.wrap("-D /no/such/folder -o /dev/null", "pwd > $OUT");
    let out = cluster.work().join("astray.out");
    let astray = astray.env("OUT", &out).id();
    assert_eq!(cluster.await_end(astray).state(), "COMPLETED");
    assert_eq!(cluster.read("astray.out"), "/tmp\n");
    assert_eq!(cluster.node_state("n1"), "IDLE", "no such job drains a node");
    let good = cluster.wrap("", "true").id();
    assert_eq!(cluster.await_end(good).state(), "COMPLETED");
}

#[test]
fn what_a_script_leaves_behind_ends_with_it() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "sleep 300 & setsid sleep 300 & (setsid sh -c 'trap \"\" TERM HUP; sleep 300' &) ; \
                  exit 0";
    let id = cluster.wrap("", script).id();
    assert_eq!(cluster.await_end(id).end(), "COMPLETED 0:0 None");
    cluster.await_quiet();
}

#[test]
fn odd_names_break_no_listing() {
    let cluster = Cluster::start(Options::one_node(2));
    let odd = ["two\nlines", "tab\tbed", "ünï cödé", "\u{1b}[31mred", "a|b", "%j%x", "x=y z=1"];
    for name in odd {
        let ran = cluster.cmd("sbatch").words("--parsable -H -J").arg(name).words("--wrap true");
        let ran = ran.run();
        assert!([0, 1, 255].contains(&ran.code), "{ran}");
    }
    let raw = submit(&cluster, |spec| spec.hold = true, "true");
    let lines = cluster.squeue("");
    let jobs = cluster.squeue("-o %A");
    assert_eq!(lines.lines().count(), jobs.lines().count(), "one line a job:\n{lines}");
    assert!(!lines.contains('\u{1b}'), "no escape reaches a terminal: {lines:?}");
    let rows = cluster.sacct("-X -o JobID,JobName");
    assert!(!rows.contains('\u{1b}'), "{rows:?}");
    let shown = cluster.scontrol("show job -o");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert_eq!(shown.lines().filter(|line| !line.is_empty()).count(), jobs.lines().count());
    assert!(jobs.contains(&raw.to_string()));
}

#[test]
fn a_million_tasks_are_one_line() {
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("-H -a 0-999999", "true").id();
    assert_eq!(cluster.squeue("-o %i"), format!("{id}_[0-999999]\n"));
    cluster.cmd("scancel").arg(format!("{id}_[10-999999]")).ok();
    assert_eq!(cluster.squeue("-o %i"), format!("{id}_[0-9]\n"));
    cluster.scontrol(&format!("release {id}"));
    cluster.await_end(id);
    let next = cluster.wrap("", "true").id();
    assert!(next <= id + 11, "tasks that never ran used no ids: {next}");
}

#[test]
fn outputs_without_room_or_rights_say_so() {
    let cluster = Cluster::start(Options::one_node(2));
    std::fs::create_dir(cluster.work().join("folder")).expect("new");
    for path in ["folder", "none/there/x", "/proc/none"] {
        let id = cluster.wrap(&format!("-o {path}"), "true").id();
        assert_eq!(cluster.await_end(id).state(), "FAILED", "{path}");
    }
    let id = cluster.wrap("-i none.txt", "true").id();
    assert_eq!(cluster.await_end(id).state(), "FAILED");
    // A pipe that nobody reads holds up its own job, and nothing else.
    let pipe = cluster.work().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("new");
    let stuck = cluster.wrap("-o pipe", "true").id();
    let good = cluster.wrap("", "true").id();
    assert_eq!(cluster.await_end(good).state(), "COMPLETED");
    cluster.cmd("scancel").arg(stuck.to_string()).ok();
    let job = cluster.await_end(stuck);
    assert!(["CANCELLED", "COMPLETED", "FAILED"].contains(&job.state()), "{}", job.end());
    assert_eq!(cluster.node_state("n1"), "IDLE");
}
