//! Do accounts, limits, plans and reservations hold end to end, and do the answers about them come
//! true?

use std::fs;
use std::time::Duration;

use crate::harness::{AgentOptions, Cluster, Options, wait_for, wait_until};

/// What runs until a file is there.
const UNTIL_GO: &str = "until [ -e go ]; do sleep 0.05; done";

/// Longest wait for work that takes half a minute on an idle machine.
const LONG: Duration = Duration::from_secs(180);

/// The name of who runs the tests, as the controller knows it.
fn me() -> String {
    let user = uzers::get_user_by_uid(uzers::get_current_uid()).expect("we are somebody");
    user.name().to_string_lossy().into_owned()
}

/// `sacctmgr -i WORDS`, which must succeed.
#[track_caller]
fn sacctmgr(cluster: &Cluster, words: &str) -> String {
    cluster.penstock(&format!("sacctmgr -i {words}")).ok()
}

/// Accounts below root, with us in each.
#[track_caller]
fn accounts(cluster: &Cluster, given: &[&str]) {
    for words in given {
        sacctmgr(cluster, &format!("add account {words}"));
        let name = words.split(' ').next().expect("a name");
        sacctmgr(cluster, &format!("add user {} account={name}", me()));
    }
}

/// The column `START_TIME` of `squeue --start`.
#[track_caller]
fn start_of(cluster: &Cluster, id: u32) -> String {
    cluster.squeue(&format!("--start -j {id} -o %S")).trim().to_owned()
}

/// Waits until a waiting job has an expected start.
#[track_caller]
fn await_start_of(cluster: &Cluster, id: u32) -> String {
    wait_for(format!("a start of job {id} is expected"), LONG, || {
        Some(start_of(cluster, id)).filter(|start| start.starts_with("20"))
    })
}

/// `penstock explain ID`.
#[track_caller]
fn explain(cluster: &Cluster, id: u32) -> String {
    cluster.penstock(&format!("explain {id}")).ok()
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}

/// `RawUsage` of an account.
#[track_caller]
fn usage(cluster: &Cluster, account: &str) -> u64 {
    let shown = cluster.penstock("sshare -n -P -a -o account,user,rawusage").ok();
    let mut rows = shown.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = rows.find(|row| row[0] == account && row[1].is_empty());
    row.expect("the account has a row")[2].parse().expect("seconds")
}

#[test]
fn two_accounts_with_shares_three_to_one_get_three_to_one() {
    let cluster = Cluster::start(Options::one_node(16));
    accounts(&cluster, &["large fairshare=3", "small fairshare=1"]);
    // Four at once, which end one by one; more than enough of both for all of the test.
    let script = "sleep 0.$((SLURM_ARRAY_TASK_ID % 5 + 1))";
    for account in ["small", "large"] {
        cluster.wrap(&format!("-A {account} -a 0-999 -n 4 -t 10 -o /dev/null"), script).id();
    }
    let (large, small) = wait_for("500 CPU seconds are used", LONG, || {
        let used = (usage(&cluster, "large"), usage(&cluster, "small"));
        (used.0 + used.1 >= 500).then_some(used)
    });
    let waits = cluster.squeue("-t PD -o %a");
    contains(&waits, "large");
    contains(&waits, "small");
    let of_hundred = 100 * large / small;
    assert!((285..=315).contains(&of_hundred), "{large} to {small} CPU seconds");
}

#[test]
fn a_budget_of_gpu_minutes_stops_at_its_end_and_says_so() {
    let node = AgentOptions::node("n1", 4).with("gres = [\"gpu:60\"]");
    let cluster = Cluster::start(Options { agents: vec![node], ..Options::default() });
    accounts(&cluster, &["physics"]);
    sacctmgr(&cluster, "modify account physics set GrpTRESMins=gres/gpu=1");
    // Sixty of them use a minute in a second.
    let id = cluster.wrap("-A physics --gres=gpu:60 -t 10 --mem 64M", "sleep 300").id();
    let job = cluster.await_end(id);
    assert_eq!((job.state(), job.get("Reason")), ("TIMEOUT", "AssocGrpGRESMinutes"));
    contains(&cluster.scontrol(&format!("show job {id}")), "gres/gpu (GrpTRESMins)");
    let next = cluster.wrap("-A physics --gres=gpu:1 -t 1 --mem 64M", "true").id();
    cluster.await_reason(next, "AssocGrpGRESMinutes");
    let told = explain(&cluster, next);
    // How far it went beyond before it was ended depends on the machine.
    contains(&told, "account physics has used ");
    contains(&told, " of 1 minutes of gres/gpu (GrpTRESMins)");
    let without = cluster.wrap("-A physics -t 1 --mem 64M", "true").id();
    assert_eq!(cluster.await_end(without).state(), "COMPLETED");
    sacctmgr(&cluster, "modify account physics set GrpTRESMins=gres/gpu=1000");
    assert_eq!(cluster.await_end(next).state(), "COMPLETED");
}

#[test]
fn a_wide_job_starts_no_later_than_was_said_while_small_ones_fill_the_gaps() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let first = cluster.wrap("-w n1 -n 2 -t 10", UNTIL_GO).id();
    cluster.await_state(first, "RUNNING");
    let wide = cluster.wrap("-N 2 --exclusive -t 10", "true").id();
    cluster.await_reason(wide, "Resources");
    let said = await_start_of(&cluster, wide);
    contains(&explain(&cluster, wide), &format!("Expected start: {said}"));
    let small: Vec<u32> = (0..4).map(|_| cluster.wrap("-n 1 -t 5", "true").id()).collect();
    let long = cluster.wrap("-n 1 -t 60", "true").id();
    for id in small {
        assert_eq!(cluster.await_end(id).state(), "COMPLETED", "it fits before the wide one");
    }
    cluster.await_reason(long, "Priority");
    contains(&explain(&cluster, long), "kept for jobs of higher priority");
    assert_eq!(start_of(&cluster, wide), said, "nothing ahead of it changed");
    fs::write(cluster.work().join("go"), "").expect("written");
    let job = cluster.await_end(wide);
    assert_eq!(job.state(), "COMPLETED");
    assert!(*job.get("StartTime") <= *said, "{} after {said}", job.get("StartTime"));
    assert_eq!(cluster.await_end(long).state(), "COMPLETED");
}

#[test]
fn explain_answers_for_each_reason() {
    let sections = "[licenses]\nmatlab = 1\n".to_owned();
    let cluster = Cluster::start(Options { sections, ..Options::nodes(2, 2) });
    accounts(&cluster, &["main", "small"]);
    sacctmgr(&cluster, "modify account small set MaxJobs=0");
    let runs = cluster.wrap("-A main -n 1 -t 10 -L matlab --mem 64M", UNTIL_GO).id();
    cluster.await_state(runs, "RUNNING");
    // The wide one is first in line and has its place; the last one would be in its way.
    let waits = [
        ("-A main -N 2 --exclusive -t 10", "Resources", "resources"),
        ("-A main -H", "JobHeldUser", "held"),
        ("-A main --begin=now+1hour", "BeginTime", "begin"),
        (&format!("-A main -d afterok:{runs}"), "Dependency", "dependency"),
        ("-A main -L matlab -t 5", "Licenses", "licenses"),
        ("-A small", "AssocMaxJobsLimit", "limits"),
        ("-A main -n 1 -t 30 --mem 64M", "Priority", "priority"),
    ];
    for (words, reason, gate) in waits {
        let id = cluster.wrap(words, "true").id();
        cluster.await_reason(id, reason);
        let told = explain(&cluster, id);
        contains(&told, &format!("Job {id} (PENDING): {reason}"));
        contains(&told, &format!("[blocked] {gate} "));
    }
    contains(&explain(&cluster, runs), "(RUNNING)");
    cluster.penstock("explain 99").fails().says("Invalid job id specified");
}

#[test]
fn what_a_drained_node_would_do_is_what_it_does() {
    let cluster = Cluster::start(Options::nodes(3, 2));
    for (node, minutes) in [("n1", 5), ("n2", 10), ("n3", 15)] {
        let id = cluster.wrap(&format!("-w {node} -n 2 -t {minutes}"), UNTIL_GO).id();
        cluster.await_state(id, "RUNNING");
    }
    let next = cluster.wrap("-n 2 -t 20", "true").id();
    let before = await_start_of(&cluster, next);
    let told = cluster.penstock("what-if drain n1").ok();
    let row = told.lines().find(|line| line.trim_start().starts_with(&format!("{next} ")));
    let row: Vec<&str> = row.unwrap_or_else(|| panic!("{told}")).split_whitespace().collect();
    assert_eq!(row[3], before, "{told}");
    assert_eq!(start_of(&cluster, next), before, "asking changes nothing");
    cluster.scontrol("update NodeName=n1 State=DRAIN Reason=test");
    wait_until("its start moves as foretold", LONG, || start_of(&cluster, next) == row[4]);
    assert_eq!(cluster.squeue(&format!("--start -j {next} -o %Y")).trim(), "n2");
    contains(&told, "n1 -> n2");
    cluster.penstock("what-if drain n9").fails().says("n9");
}

#[test]
fn a_try_is_what_a_submission_does() {
    let cluster = Cluster::start(Options::one_node(2));
    let runs = cluster.wrap("-n 2 -t 10", UNTIL_GO).id();
    cluster.await_state(runs, "RUNNING");
    let tried = cluster.cmd("sbatch").words("--test-only -n 2 -t 5 --wrap true").run();
    assert_eq!(tried.code, 0, "{tried}");
    let supposed = cluster.penstock("what-if submit -n 2 -t 5 --wrap true").ok();
    assert_eq!(cluster.squeue("-t PD"), "", "neither submits");
    let id = cluster.wrap("-n 2 -t 5", "true").id();
    let start = await_start_of(&cluster, id);
    tried.says(&format!("to start at {start} using 2 processors on nodes n1"));
    contains(&supposed, &start);
    contains(&supposed, &me());
}

#[test]
fn limits_keep_jobs_waiting_with_slurms_reasons() {
    let cluster = Cluster::start(Options::one_node(8));
    accounts(&cluster, &["a", "b", "c"]);
    sacctmgr(&cluster, "modify account a set GrpTRES=cpu=2");
    sacctmgr(&cluster, "modify account b set MaxJobs=1 MaxSubmitJobs=2");
    sacctmgr(&cluster, "modify account c set MaxWall=5");
    sacctmgr(&cluster, "add qos few MaxJobsPerUser=1");
    let wrap = |words: &str| cluster.wrap(&format!("{words} --mem 64M"), UNTIL_GO).id();
    let first = ["-A a -n 2 -t 5", "-A b -t 5", "-A c -q few -t 5"].map(wrap);
    for id in first {
        cluster.await_state(id, "RUNNING");
    }
    let waits = [
        ("-A a -t 5", "AssocGrpCpuLimit"),
        ("-A b -t 5", "AssocMaxJobsLimit"),
        ("-A c -q few -t 5", "QOSMaxJobsPerUserLimit"),
    ];
    let waits = waits.map(|(words, reason)| (wrap(words), reason));
    for (id, reason) in waits {
        cluster.await_reason(id, reason);
        assert_eq!(cluster.squeue(&format!("-j {id} -o %R")).trim(), format!("({reason})"));
    }
    let over = wrap("-A c -t 10");
    cluster.await_reason(over, "AssocMaxWallDurationPerJobLimit");
    let refused = cluster.wrap("-A b -t 5", "true").fails();
    refused.says("Job violates accounting/QOS policy");
    refused.says("MaxSubmitJobs");
    fs::write(cluster.work().join("go"), "").expect("written");
    for (id, _) in waits {
        assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    }
    assert_eq!(cluster.job(over).state(), "PENDING");
}

#[test]
fn a_reservation_keeps_others_out() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let words = "create reservation ReservationName=r1 StartTime=now Duration=60 Users=nobody \
                 Nodes=n1";
    assert_eq!(cluster.scontrol(words).trim(), "Reservation created: r1");
    contains(&cluster.cmd("sinfo").arg("-T").ok(), "r1           ACTIVE");
    let out = cluster.wrap("-w n1 -t 5", "true").id();
    cluster.await_reason(out, "ReqNodeNotAvail");
    contains(&explain(&cluster, out), "reservation r1 has nodes of it");
    let beside = cluster.wrap("-t 5", "hostname").id();
    assert_eq!(cluster.await_end(beside).get("NodeList"), "n2");
    let refused = cluster.wrap("--reservation=r1 -t 5", "true").fails();
    refused.says("Access denied to requested reservation").says("r1");
    cluster.scontrol(&format!("update ReservationName=r1 Users+={}", me()));
    let inside = cluster.wrap("--reservation=r1 -t 5", UNTIL_GO).id();
    assert_eq!(cluster.await_state(inside, "RUNNING").get("NodeList"), "n1");
    let refused = cluster.penstock("scontrol delete ReservationName=r1").fails();
    contains(&format!("{refused}"), "Requested reservation is in use");
    assert_eq!(cluster.job(out).state(), "PENDING");
    fs::write(cluster.work().join("go"), "").expect("written");
    cluster.await_end(inside);
    cluster.scontrol("delete ReservationName=r1");
    assert_eq!(cluster.await_end(out).state(), "COMPLETED");
    contains(&cluster.cmd("sinfo").arg("-T").ok(), "No reservations in the system");
}

#[test]
fn a_suspended_job_stands_still_and_lends_its_cpus() {
    let cluster = Cluster::start(Options::one_node(1));
    let count = "while :; do printf . >> count; sleep 0.02; done";
    let id = cluster.wrap("-t 10 --mem 64M", count).id();
    cluster.await_text("count", "...");
    cluster.scontrol(&format!("suspend {id}"));
    assert_eq!(cluster.job(id).state(), "SUSPENDED");
    // Ends only once the other counts no more.
    let script = "until a=$(wc -c < count); sleep 0.3; [ $a = $(wc -c < count) ]; do :; done";
    let other = cluster.wrap("-t 10 --mem 64M", script).id();
    assert_eq!(cluster.await_end(other).state(), "COMPLETED");
    let again = cluster.penstock(&format!("scontrol suspend {id}")).fails();
    contains(&format!("{again}"), "suspended already");
    let counted = cluster.read("count").len();
    cluster.scontrol(&format!("resume {id}"));
    assert_eq!(cluster.await_state(id, "RUNNING").get("SuspendTime"), "None");
    wait_until("it counts on", LONG, || cluster.read("count").len() > counted);
    cluster.cmd("scancel").arg(id.to_string()).ok();
    cluster.await_end(id);
    cluster.await_quiet();
}

#[test]
fn preemption_by_qos_requeues_the_victim() {
    let sections = "[preemption]\nby = \"qos\"\nmode = \"requeue\"\n".to_owned();
    let cluster = Cluster::start(Options { sections, ..Options::one_node(2) });
    sacctmgr(&cluster, "add qos high Priority=100 Preempt=normal");
    let script = "echo run $SLURM_RESTART_COUNT >> runs; until [ -e go ]; do sleep 0.05; done";
    let victim = cluster.wrap("-n 2 -t 10", script).id();
    cluster.await_text("runs", "run");
    let equal = cluster.wrap("-n 2 -t 10", "true").id();
    cluster.await_reason(equal, "Resources");
    let high = cluster.wrap("-q high -n 2 -t 10", "cat runs > seen").id();
    assert_eq!(cluster.await_end(high).state(), "COMPLETED");
    assert_eq!(cluster.read("seen"), "run\n", "the victim ran once, and then the high one");
    fs::write(cluster.work().join("go"), "").expect("written");
    let job = cluster.await_end(victim);
    assert_eq!((job.state(), job.get("Restarts")), ("COMPLETED", "1"));
    assert_eq!(cluster.read("runs"), "run\nrun 1\n");
    let rows = cluster.sacct(&format!("-X -D -j {victim} -o State"));
    assert_eq!(rows, "PREEMPTED\nCOMPLETED\n");
    assert_eq!(cluster.await_end(equal).state(), "COMPLETED");
}

#[test]
fn a_tree_of_accounts_survives_a_dump_and_a_restart() {
    let mut cluster = Cluster::start(Options::one_node(2));
    accounts(&cluster, &["physics fairshare=3", "theory parent=physics GrpTRES=cpu=4", "chem"]);
    sacctmgr(&cluster, "add qos high Priority=100 Flags=DenyOnLimit MaxTRESPerJob=cpu=1");
    let shown = sacctmgr(&cluster, "-n -P show assoc");
    sacctmgr(&cluster, "dump test file=tree.cfg");
    let loaded = cluster.penstock("sacctmgr -i load file=tree.cfg").run();
    contains(&format!("{loaded}"), "Nothing new added.");
    cluster.wrap("-q high -n 2", "true").fails().says("Job violates accounting/QOS policy");
    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(sacctmgr(&cluster, "-n -P show assoc"), shown);
    let me = me();
    let refused = cluster.penstock("sacctmgr -i delete account physics").fails();
    contains(&format!("{refused}"), "physics");
    sacctmgr(&cluster, &format!("delete user {me} account=theory"));
    sacctmgr(&cluster, "delete account theory");
    assert!(!sacctmgr(&cluster, "-n -P show account").contains("theory"));
    let told = cluster.penstock(&format!("sshare --explain {me} -A physics")).ok();
    contains(&told, &format!("User {me} in account physics"));
}
