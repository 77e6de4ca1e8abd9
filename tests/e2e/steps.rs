//! Do srun, salloc, sattach and sbcast do what Slurm's do, from the first word to the last process?

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{
    AgentOptions, Cluster, Cmd, Options, PATIENCE, root_and_other_user, wait_until,
};

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn srun(cluster: &Cluster, words: &str, script: &str) -> Cmd {
    cluster.cmd("srun").words(words).arg("sh").arg("-c").arg(script)
}

/// Waits until a task has written this file.
fn await_file(cluster: &Cluster, name: &str) {
    let path = cluster.work().join(name);
    wait_until(format!("{name} is there"), PATIENCE, || path.exists());
}

#[test]
fn tasks_run_on_all_nodes_and_their_end_is_sruns() {
    let cluster = Cluster::start(Options::nodes(3, 2));
    let said = srun(&cluster, "-n 5 -N 3 -l", "echo $SLURM_NTASKS; echo oops >&2").run();
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(lines(&said.out), ["0: 5", "1: 5", "2: 5", "3: 5", "4: 5"]);
    assert_eq!(lines(&said.err), ["0: oops", "1: oops", "2: oops", "3: oops", "4: oops"]);
    let ended = srun(&cluster, "-n 4 -N 2", "exit $((SLURM_PROCID / 2 + 2))").run();
    assert_eq!(ended.code, 3);
    ended.says("srun: error: n1: tasks 0-1: Exited with exit code 2\n");
    ended.says("srun: error: n2: tasks 2-3: Exited with exit code 3\n");
    let killed = srun(&cluster, "", "kill -9 $$").run();
    assert_eq!(killed.code, 137);
    killed.says("srun: error: n1: task 0: Killed\n").says("srun: Force Terminated StepId=");
    let missing = cluster.cmd("srun").arg("no-such-program").run();
    assert_eq!(missing.code, 2);
    missing.says("error: execve(): no-such-program: No such file or directory");
    assert_eq!(cluster.squeue(""), "");
    cluster.await_quiet();
}

#[test]
fn many_tasks_on_many_nodes_start_together() {
    let cluster = Cluster::start(Options::nodes(8, 8));
    let said = srun(&cluster, "-n 64 -N 8", "echo $SLURM_PROCID $SLURM_NODEID").ok();
    let mut lines: Vec<(u32, u32)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(rank, node)| (rank.parse().expect("a rank"), node.parse().expect("a node")))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..64).map(|rank| (rank, rank / 8)).collect::<Vec<_>>());
    cluster.await_quiet();
}

#[test]
fn input_reaches_all_tasks_or_one() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let cat = |words: &str, text: &str| {
        let ran =
            cluster.cmd("srun").words("-n 3 -N 2 -l").words(words).arg("cat").stdin(text).run();
        assert_eq!(ran.code, 0, "{ran}");
        ran.out
    };
    assert_eq!(lines(&cat("", "a\nb\n")), ["0: a", "0: b", "1: a", "1: b", "2: a", "2: b"]);
    assert_eq!(cat("--input=2", "a\nb\n"), "2: a\n2: b\n");
    assert_eq!(cat("--input=none", "a\n"), "");
    fs::write(cluster.work().join("in"), "from a file\n").expect("written");
    assert_eq!(lines(&cat("-i in", "")), ["0: from a file", "1: from a file", "2: from a file"]);
    // More than any buffer on the way holds.
    let text = "0123456789abcdef\n".repeat(60_000);
    let counted = cluster.cmd("srun").words("-n 2 -N 2 wc -c").stdin(text).ok();
    assert_eq!(lines(&counted), ["1020000", "1020000"]);
}

#[test]
fn output_goes_where_the_options_say() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let say = "echo out $SLURM_PROCID; echo err $SLURM_PROCID >&2";
    assert_eq!(srun(&cluster, "-n 2 -o both", say).ok(), "");
    assert_eq!(lines(&cluster.read("both")), ["err 0", "err 1", "out 0", "out 1"]);
    assert_eq!(srun(&cluster, "-n 2 -N 2 -o o.%t.%N -e e.%n", say).ok(), "");
    assert_eq!(cluster.read("o.0.n1"), "out 0\n");
    assert_eq!(cluster.read("o.1.n2"), "out 1\n");
    assert_eq!((cluster.read("e.0"), cluster.read("e.1")), ("err 0\n".into(), "err 1\n".into()));
    assert_eq!(srun(&cluster, "-n 2 -o 1", say).ok(), "out 1\n");
    assert_eq!(srun(&cluster, "-n 2 -o none", say).ok(), "");
    srun(&cluster, "--open-mode=append -n 1 -o both", "echo more").ok();
    assert!(cluster.read("both").ends_with("more\n"));
    let refused = srun(&cluster, "-o /no/such/file", "true").run();
    assert_eq!(refused.code, 1);
    refused.says("srun: error: Could not open stdout file: No such file or directory\n");
    let refused = srun(&cluster, "-o /no/such/%t", "true").run();
    assert_eq!(refused.code, 1);
    refused.says("failed on node n1").says("/no/such/0");
    cluster.await_quiet();
}

#[test]
fn steps_share_a_job_one_after_another_and_side_by_side() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let srun = cluster.bin("srun");
    let srun = srun.display();
    let script = format!(
        "{srun} -l sh -c 'echo $SLURM_STEP_ID $SLURM_LOCALID $SLURMD_NODENAME'\n\
         {srun} -n1 -N1 --exact sh -c 'touch a; while [ ! -e b ]; do sleep 0.05; done' &\n\
         {srun} -n1 -N1 --exact sh -c 'touch b; while [ ! -e a ]; do sleep 0.05; done' &\n\
         wait\n{srun} -n9 true; echo $?\n{srun} -n2 sh -c 'exit 4'; echo $?"
    );
    let id = cluster.wrap("-N 2 -n 4 -o out", &script).id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let out = cluster.read("out");
    for line in ["0: 0 0 n1", "1: 0 1 n1", "2: 0 0 n2", "3: 0 1 n2", "1", "4"] {
        assert!(out.lines().any(|found| found == line), "no {line:?} in {out}");
    }
    let refused =
        format!("Unable to create step for job {id}: More processors requested than permitted");
    assert!(out.contains(&refused), "{out}");
    cluster.await_quiet();
}

#[test]
fn a_step_waits_for_room_unless_it_is_wanted_at_once() {
    let cluster = Cluster::start(Options::one_node(2));
    let srun = cluster.bin("srun");
    let srun = srun.display();
    let script = format!(
        "{srun} -n2 sh -c 'touch begun; while [ ! -e go ]; do sleep 0.05; done' &\n\
         while [ ! -e begun ]; do sleep 0.05; done\n\
         {srun} -I -n2 true; echo at once: $?\n\
         (sleep 2; touch go) &\n\
         {srun} -n2 echo second\nwait"
    );
    let ran = cluster.cmd("salloc").words("-n 2 sh -c").arg(script).run();
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(lines(&ran.out), ["at once: 1", "second", "second"]);
    ran.says("Requested nodes are busy\n").says("step creation temporarily disabled, retrying");
    ran.says("srun: Step created for job 1\n").says("salloc: Granted job allocation 1\n");
    cluster.await_quiet();
}

#[test]
fn interrupts_and_signals_do_what_slurms_do() {
    let cluster = Cluster::start(Options::one_node(2));
    let sleeps = |name: &str, words: &str, rest: &str| {
        let running = srun(&cluster, words, &format!("touch {name}; {rest}")).spawn();
        await_file(&cluster, name);
        running
    };
    let once = sleeps("i1", "", "sleep 2; echo done");
    once.signal(Signal::SIGINT);
    let once = once.wait();
    assert_eq!((once.code, once.out.as_str()), (0, "done\n"), "{once}");
    once.says(
        "srun: interrupt (one more within 1 sec to abort)\nsrun: StepId=1.0 task 0: running\n",
    );
    let mut twice = sleeps("i2", "", "exec sleep 300");
    twice.signal(Signal::SIGINT);
    twice.hears("interrupt (one more within 1 sec to abort)");
    twice.signal(Signal::SIGINT);
    let twice = twice.wait();
    assert_eq!(twice.code, 130, "{twice}");
    twice.says("srun: sending Ctrl-C to StepId=2.0\nsrun: forcing job termination\n");
    let ended = sleeps("i3", "", "exec sleep 300");
    ended.signal(Signal::SIGTERM);
    let ended = ended.wait();
    assert_eq!(ended.code, 143, "{ended}");
    ended.says("srun: forcing job termination\nsrun: Job step aborted: Waiting up to 3 seconds");
    ended.says("srun: error: n1: task 0: Terminated\n");
    let usr1 = sleeps("i4", "", "exec sleep 300");
    usr1.signal(Signal::SIGUSR1);
    let usr1 = usr1.wait();
    assert_eq!(usr1.code, 138, "{usr1}");
    usr1.says("srun: error: n1: task 0: User defined signal 1\n");
    cluster.await_quiet();
}

#[test]
fn one_bad_exit_or_a_first_end_may_end_the_others() {
    let cluster = Cluster::start(Options::one_node(2));
    let first = "if [ $SLURM_PROCID = 0 ]; then exit 5; fi; exec sleep 300";
    let ended = srun(&cluster, "-n 2 --kill-on-bad-exit", first).run();
    assert_eq!(ended.code, 143, "{ended}");
    ended.says("n1: task 0: Exited with exit code 5\n").says("Terminating StepId=1.0\n");
    let waited = srun(&cluster, "-n 2 --wait=1", &first.replace("exit 5", "exit 0")).run();
    assert_eq!(waited.code, 143, "{waited}");
    waited.says("srun: First task exited 1s ago\nsrun: StepId=2.0 task 1: running\n");
    cluster.await_quiet();
}

#[test]
fn an_srun_that_is_killed_leaves_nothing_running() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let running = srun(&cluster, "-n 4 -N 2", "touch k.$SLURM_PROCID; exec sleep 300").spawn();
    for task in 0..4 {
        await_file(&cluster, &format!("k.{task}"));
    }
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code, 137);
    wait_until("no shepherd is left", PATIENCE, || cluster.shepherds().is_empty());
    cluster.cmd("scancel").arg("1").ok();
    assert_eq!(cluster.await_end(1).state(), "CANCELLED");
    cluster.await_quiet();
}

#[test]
fn scancel_ends_a_step_or_the_job_with_it() {
    let cluster = Cluster::start(Options::one_node(2));
    let running = srun(&cluster, "", "touch s1; exec sleep 300").spawn();
    await_file(&cluster, "s1");
    cluster.cmd("scancel").arg("1.0").ok();
    let ended = running.wait();
    assert_eq!(ended.code, 143, "{ended}");
    // Which of the two depends on what srun hears first: that it shall end, or that it has.
    let told = ["Force Terminated StepId=1.0\n", "Job step aborted: Waiting up to 3 seconds"];
    assert!(told.iter().any(|text| ended.err.contains(text)), "{ended}");
    let running = srun(&cluster, "", "touch s2; exec sleep 300").spawn();
    await_file(&cluster, "s2");
    cluster.cmd("scancel").arg("2").ok();
    let ended = running.wait();
    assert_eq!(ended.code, 143, "{ended}");
    assert_eq!(cluster.await_end(2).state(), "CANCELLED");
    let pending = cluster.cmd("srun").words("-n 2 -H true").spawn();
    cluster.await_state_soon(3, "PENDING");
    cluster.cmd("scancel").arg("3").ok();
    let ended = pending.wait();
    assert_eq!(ended.code, 1, "{ended}");
    ended.says(
        "srun: error: Unable to allocate resources: Job/step already completing or completed",
    );
    cluster.await_quiet();
}

#[test]
fn a_controller_that_restarts_is_not_noticed_by_a_step() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let script = "touch r1; while [ ! -e r2 ]; do sleep 0.05; done; echo through";
    let running = srun(&cluster, "", script).spawn();
    await_file(&cluster, "r1");
    cluster.kill_controller();
    cluster.start_controller();
    cluster.await_node("n1", &["ALLOCATED", "MIXED"]);
    fs::write(cluster.work().join("r2"), "").expect("written");
    let ended = running.wait();
    assert_eq!((ended.code, ended.out.as_str()), (0, "through\n"), "{ended}");
    assert_eq!(cluster.await_end(1).state(), "COMPLETED");
    cluster.await_quiet();
}

#[test]
fn salloc_runs_a_command_and_gives_the_job_back() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let ran =
        cluster.cmd("salloc").words("-N 2 sh -c").arg("echo $SLURM_JOB_NODELIST; exit 4").run();
    assert_eq!((ran.code, ran.out.as_str()), (4, "n[1-2]\n"), "{ran}");
    assert_eq!(
        ran.err,
        "salloc: Granted job allocation 1\nsalloc: Relinquishing job allocation 1\n"
    );
    assert_eq!(cluster.await_end(1).get("ExitCode"), "4:0");
    let missing = cluster.cmd("salloc").arg("no-such-program").run();
    assert_eq!(missing.code, 1);
    missing.says("salloc: error: _fork_command: Unable to find command \"no-such-program\"\n");
    let alone = cluster.cmd("salloc").words("--no-shell -n 1").run();
    assert_eq!((alone.code, alone.err.as_str()), (0, "salloc: Granted job allocation 3\n"));
    let said = cluster.cmd("srun").words("--jobid=3 echo in it").ok();
    assert_eq!(said, "in it\n");
    cluster.cmd("scancel").arg("3").ok();
    let killed = cluster.cmd("salloc").words("-K sh -c").arg("touch a1; exec sleep 300").spawn();
    await_file(&cluster, "a1");
    cluster.cmd("scancel").arg("4").ok();
    let killed = killed.wait();
    assert_eq!(killed.code, 1, "{killed}");
    killed.says("salloc: Job allocation 4 has been revoked.\n");
    cluster.await_quiet();
}

#[test]
fn sattach_sees_what_tasks_write_from_then_on() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "touch t.$SLURM_PROCID; while [ ! -e seen ]; do echo tick; sleep 0.1; done";
    let running = srun(&cluster, "-n 2 -o none", script).spawn();
    await_file(&cluster, "t.0");
    await_file(&cluster, "t.1");
    let layout = cluster.cmd("sattach").words("--layout 1.0").ok();
    assert_eq!(
        layout,
        "Job step layout:\n\t2 tasks, 1 nodes (n1)\n\n\tNode 0 (n1), 2 task(s): 0 1 \n"
    );
    let unknown = cluster.cmd("sattach").arg("9.0").run();
    assert_eq!(unknown.code, 1);
    unknown.says("sattach: error: Could not get job step info: Invalid job id specified\n");
    fs::write(cluster.work().join("seen"), "").expect("written");
    assert_eq!(running.wait().code, 0);
    cluster.await_quiet();
}

#[test]
fn sbcast_brings_a_file_to_the_nodes_of_a_job() {
    let cluster = Cluster::start(Options::one_node(2));
    let text = "line of a file\n".repeat(100_000);
    fs::write(cluster.work().join("source"), &text).expect("written");
    let sbcast = cluster.bin("sbcast");
    let sbcast = sbcast.display();
    let script = format!(
        "{sbcast} source copy; echo $?\n{sbcast} source copy; echo $?\n\
         {sbcast} -f source copy; echo $?\n{sbcast} source /no/such/copy; echo $?"
    );
    let ran = cluster.cmd("salloc").words("-Q -n 1 sh -c").arg(script).run();
    assert_eq!(ran.out, "0\n17\n0\n2\n", "{ran}");
    ran.says("sbcast: error: REQUEST_FILE_BCAST(n1): File exists\n");
    ran.says("sbcast: error: REQUEST_FILE_BCAST(n1): No such file or directory\n");
    assert_eq!(cluster.read("copy"), text);
    let outside = cluster.cmd("sbcast").words("source copy").run();
    assert_eq!(outside.code, 1);
    outside.says("Need a job id to run this command.");
    cluster.await_quiet();
}

#[test]
fn a_users_steps_are_that_users() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::nodes(2, 2).and(AgentOptions::login("l1")));
    let said = cluster.cmd("srun").words("-n 2 -N 2 id -un").by_nobody().ok();
    assert_eq!(said, "nobody\nnobody\n");
    let running = srun(&cluster, "", "touch mine; exec sleep 300").spawn();
    await_file(&cluster, "mine");
    for (command, words) in
        [("srun", "--jobid=2 --overlap true"), ("sattach", "2.0"), ("scancel", "2.0")]
    {
        let ran = cluster.cmd(command).words(words).by_nobody().fails();
        ran.says("Access/permission denied");
    }
    let via = cluster.via("l1", "srun").words("-n 1 id -un").by_nobody().ok();
    assert_eq!(via, "nobody\n");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 143);
    cluster.await_quiet();
}
