//! Tasks of a step: what they are told, what they say, and how they end.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use nix::unistd::{Gid, Uid, User};
use penstock_proto::pmi::{FENCE_ANSWER, encode};
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Frame, PmiMessage, Program, Setup};
use penstock_supervisor::{AttemptKey, EndCause};
use penstock_vocab::{Attempt, JobId};

use crate::srun::{Call, SECRET, Srun, shell};
use crate::world::{World, is_alive, job, wait_until};

/// A step of `tasks` tasks on this node alone, by this process's user.
pub(crate) fn step(srun: &Srun, tasks: u32) -> v1::LaunchStep {
    let user = User::from_uid(Uid::effective()).unwrap();
    let share = v1::NodeShare {
        node: "n1".to_owned(),
        cpu_ranges: vec![0, 0],
        tasks,
        ..v1::NodeShare::default()
    };
    let own = v1::StepShare {
        share: Some(share.clone()),
        tasks: (0..tasks).collect(),
        ..v1::StepShare::default()
    };
    let step = v1::Step {
        job_id: 7,
        attempt: 0,
        step: 3,
        uid: Uid::effective().as_raw(),
        spec: Some(v1::StepSpec { name: "probe".to_owned(), ..v1::StepSpec::default() }),
        shares: vec![own],
        ..v1::Step::default()
    };
    v1::LaunchStep {
        step: Some(step),
        step_nodes: vec!["n1".to_owned()],
        step_tasks: vec![tasks],
        gid: Gid::effective().as_raw(),
        user_name: user.map(|user| user.name).unwrap_or_default(),
        kill_wait_secs: 30,
        addresses: vec!["127.0.0.1".to_owned()],
        port: srun.port(),
        secret: SECRET.to_vec().into(),
        job_share: Some(share),
        ..v1::LaunchStep::default()
    }
}

pub(crate) fn key() -> AttemptKey {
    AttemptKey::of_step(JobId(7), Attempt(0), 3)
}

#[test]
fn tasks_run_speak_and_exit() {
    let mut world = World::new();
    let srun = Srun::new();
    world.spool().start(step(&srun, 3)).unwrap();
    let call =
        srun.run(shell("echo $SLURM_PROCID of $SLURM_NTASKS; echo no >&2; exit $SLURM_PROCID"));
    assert_eq!((call.hello.job_id, call.hello.step, call.hello.node.as_str()), (7, 3, "n1"));
    let heard = call.finish();
    assert_eq!(heard.error, "");
    assert_eq!(heard.pids.as_ref().map(Vec::len), Some(3));
    for task in 0..3 {
        assert_eq!(heard.said(task), format!("{task} of 3\n"));
        assert_eq!(heard.complained(task), "no\n");
        assert_eq!(heard.exits[&task], i32::try_from(task).unwrap() << 8);
    }
    assert_eq!(heard.ended, 6, "each stream of each task was ended");
    let result = world.end(key());
    assert_eq!(result.wait_status, 2 << 8, "the highest");
    assert!(result.launch_error.is_empty() && !result.lost);
    assert!(result.usage.peak_memory_bytes > 0);
    let used = result.usage.tasks.expect("tasks are measured, however short they are");
    let cpu = used.get(penstock_vocab::Measure::Cpu).unwrap();
    assert!(used.tasks == 3 && cpu.max <= cpu.total && cpu.max_task < 3, "{used:?}");
    assert!(used.get(penstock_vocab::Measure::Rss).is_none_or(|rss| rss.min > 0), "{used:?}");
}

/// Starts a step of `tasks` tasks that run `setup`.
pub(crate) fn begin(world: &World, tasks: u32, setup: Setup) -> (Srun, Call) {
    let srun = Srun::new();
    world.spool().start(step(&srun, tasks)).unwrap();
    let call = srun.run(setup);
    (srun, call)
}

pub(crate) fn in_work_dir(world: &World, script: &str) -> Setup {
    Setup { work_dir: world.work_dir().display().to_string(), ..shell(script) }
}

/// Lets the next step have the same number.
pub(crate) fn forget(world: &World) {
    world.spool().forget(key()).unwrap();
    wait_until("the step to be forgotten", || !world.attempt_dir(key()).exists());
}

#[test]
fn it_works_without_cgroups_too() {
    let mut world = World::without_cgroups();
    let (_srun, call) = begin(&world, 2, shell("sleep 1000 & echo $!; exit 4"));
    let heard = call.finish();
    assert_eq!(heard.exits.values().copied().collect::<Vec<_>>(), [4 << 8, 4 << 8]);
    assert_eq!(world.end(key()).wait_status, 4 << 8);
    for task in 0..2 {
        assert!(!is_alive(heard.said(task).trim()), "what a task leaves behind is ended");
    }
}

#[test]
fn signals_reach_all_tasks_or_one() {
    let mut world = World::new();
    let script = "trap 'echo hit; exit 5' USR1; echo up; while :; do sleep 0.05; done";
    let (_srun, mut call) = begin(&world, 2, shell(script));
    call.until("both", |heard| heard.said(0) == "up\n" && heard.said(1) == "up\n");
    call.signal(10, Some(1));
    call.until("one to end", |heard| heard.exits.contains_key(&1));
    assert_eq!(call.heard.said(0), "up\n");
    call.signal(10, None);
    let heard = call.finish();
    assert_eq!(heard.exits[&1], 5 << 8);
    assert!(heard.said(0).starts_with("up\nhit\n"), "{}", heard.said(0));
    world.end(key());
}

#[test]
fn a_terminate_ends_all_tasks_and_says_so_once() {
    let mut world = World::new();
    let script = "trap '' TERM; echo up; sleep 1000; sleep 1000";
    let (_srun, mut call) = begin(&world, 2, shell(script));
    call.until("both", |heard| heard.said(0) == "up\n" && heard.said(1) == "up\n");
    world.started(key());
    world.spool().terminate(key(), EndCause::TimeLimit, 1).unwrap();
    let heard = call.finish();
    assert_eq!(heard.exits.values().copied().collect::<Vec<_>>(), [9, 9]);
    let said = heard.complained(0);
    assert!(said.starts_with("slurmstepd: error: *** STEP 7.3 ON n1 CANCELLED AT "), "{said}");
    assert!(said.contains(" DUE TO TIME LIMIT ***\n") && heard.complained(1).is_empty(), "{said}");
    let result = world.end(key());
    assert!(result.time_limit && result.wait_status == 9);
}

#[test]
fn the_steps_own_limit_ends_it() {
    let mut world = World::new();
    let srun = Srun::new();
    let mut launch = step(&srun, 1);
    launch.time_limit_secs = 1000;
    launch.kill_wait_secs = 1;
    launch.step.as_mut().unwrap().spec.as_mut().unwrap().time_limit_secs = Some(1);
    world.spool().start(launch).unwrap();
    let heard = srun.run(shell("exec sleep 1000")).finish();
    assert_eq!(heard.exits[&0], 15);
    assert!(world.end(key()).time_limit);
}

#[test]
fn an_srun_that_vanishes_takes_its_tasks_along() {
    for mut world in [World::new(), World::without_cgroups()] {
        let (srun, mut call) = begin(&world, 2, shell("sleep 1000 & echo $!; echo $$; wait"));
        let lines = |text: &str| text.lines().count() == 2;
        call.until("pids", |heard| lines(&heard.said(0)) && lines(&heard.said(1)));
        let said = [call.heard.said(0), call.heard.said(1)].concat();
        drop((srun, call));
        let result = world.end(key());
        assert_eq!(result.wait_status, 15);
        assert!(said.lines().all(|pid| !is_alive(pid)), "{said}");
    }
}

#[test]
fn a_connection_that_breaks_is_made_again_while_srun_listens() {
    let mut world = World::new();
    let (srun, mut call) = begin(&world, 1, shell("read word; echo $word"));
    call.until("the start", |heard| heard.pids.is_some());
    drop(call);
    let mut call = srun.run(shell("never run"));
    call.until("the start again", |heard| heard.pids.is_some());
    call.input(None, "again\n", true);
    assert_eq!(call.finish().said(0), "again\n");
    assert_eq!(world.end(key()).wait_status, 0);
}

#[test]
fn whoever_does_not_know_the_secret_is_told_nothing() {
    let mut world = World::new();
    let srun = Srun::new();
    let mut launch = step(&srun, 1);
    launch.secret = vec![8; 32].into();
    world.spool().start(launch).unwrap();
    assert!(!srun.is_answered_with_proof());
    let (error, node_fault) = world.failure(key());
    assert!(!node_fault && error.contains("does not know the step's secret"), "{error}");
}

#[test]
fn a_script_and_its_step_share_what_the_job_has_and_end_on_their_own() {
    let mut world = World::new();
    let batch = world.start(7, job("echo up > up; exec sleep 1000"));
    world.started(batch);
    world.wait_for("up", "up");
    let (_srun, call) = begin(&world, 1, shell("sleep 1000 & exit 1"));
    assert_eq!(call.finish().exits[&0], 1 << 8);
    assert_eq!(world.end(key()).wait_status, 1 << 8);
    let groups = world.config().hierarchies.clone();
    let parents = [groups.unified, groups.memory, groups.cpuset, groups.cpuacct, groups.freezer];
    let outer = parents.iter().filter(|parent| !parent.is_empty());
    let outer: Vec<PathBuf> = outer.map(|parent| Path::new(parent).join("job_7.0")).collect();
    if world.has_groups("they are not looked at") {
        assert!(outer[0].join("batch").exists() && !outer[0].join("step_3").exists());
    }
    world.spool().terminate(batch, EndCause::Cancelled, 30).unwrap();
    assert_eq!(world.end(batch).wait_status, 15);
    assert!(!outer.iter().any(|group| group.exists()), "the last part removes what both were in");
}

#[test]
fn somebody_else_at_one_of_the_addresses_does_not_matter() {
    let mut world = World::new();
    let srun = Srun::new();
    let port = u16::try_from(srun.port()).unwrap();
    let other = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    let mut launch = step(&srun, 1);
    launch.addresses.insert(0, "127.0.0.2".to_owned());
    world.spool().start(launch).unwrap();
    let (mut stranger, _) = other.accept().unwrap();
    stranger.write_all(b"220 mail is welcome here\r\n").unwrap();
    assert_eq!(srun.run(shell("echo here")).finish().said(0), "here\n");
    assert_eq!(world.end(key()).wait_status, 0);
}

/// A socket that has a port of the loopback address and does not listen.
fn unlistened_port() -> (OwnedFd, u32) {
    let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let taken = socket::socket(AddressFamily::Inet, kind, flags, None).unwrap();
    socket::bind(taken.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let at: SockaddrIn = socket::getsockname(taken.as_raw_fd()).unwrap();
    (taken, at.port().into())
}

#[test]
fn a_step_whose_srun_is_gone_does_not_start() {
    let mut world = World::new();
    let mut launch = step(&Srun::new(), 1);
    // A port that is somebody's, so that nobody else takes it, and on which nobody listens.
    let (taken, port) = unlistened_port();
    launch.port = port;
    world.spool().start(launch).unwrap();
    let (error, node_fault) = world.failure(key());
    assert!(!node_fault && error.contains("nor does it answer through the controller"), "{error}");
    drop(taken);
}

#[test]
fn a_step_can_be_ended_before_it_began() {
    let mut world = World::new();
    let srun = Srun::new();
    world.spool().start(step(&srun, 1)).unwrap();
    let call = srun.answer();
    world.spool().terminate(key(), EndCause::Cancelled, 30).unwrap();
    assert_eq!(world.end(key()).wait_status, 15);
    assert!(call.finish().pids.is_none());
}

#[test]
fn two_hundred_tasks_start_on_one_node() {
    let mut world = World::new();
    let (_srun, call) = begin(&world, 200, shell("echo $SLURM_LOCALID"));
    let heard = call.finish();
    assert_eq!(heard.exits.len(), 200);
    assert!(heard.exits.values().all(|status| *status == 0));
    assert!((0..200).all(|task| heard.said(task) == format!("{task}\n")));
    assert_eq!(world.end(key()).wait_status, 0);
}

#[test]
fn programs_of_their_own_and_programs_that_are_not_there() {
    let mut world = World::new();
    let program = |task, argv: &[&str]| Program {
        task,
        argv: argv.iter().map(|word| word.as_bytes().to_vec().into()).collect(),
    };
    let programs =
        vec![program(1, &["no-such-program"]), program(0, &["echo", "a b"]), program(2, &["/etc"])];
    let (_srun, call) = begin(&world, 3, Setup { programs, argv: Vec::new(), ..shell("") });
    let heard = call.finish();
    assert_eq!(heard.said(0), "a b\n");
    assert_eq!(heard.exits.values().copied().collect::<Vec<_>>(), [0, 2 << 8, 13 << 8]);
    let missing = "slurmstepd: error: execve(): no-such-program: No such file or directory\n";
    assert_eq!(heard.complained(1), missing);
    assert_eq!(world.end(key()).wait_status, 13 << 8);
}

#[test]
fn a_prolog_changes_what_the_task_sees_and_an_epilog_runs_after_it() {
    let mut world = World::new();
    let dir = world.work_dir();
    for (name, text) in [
        ("prolog", "echo export ADDED=yes; echo unset FOO; echo print hello; exit ${FAIL:-0}"),
        ("epilog", "echo $SLURM_PROCID $FOO >> after; sleep 0.2; echo late >&2; echo lost"),
    ] {
        fs::write(dir.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut setup = in_work_dir(&world, "echo $ADDED:$FOO:");
    setup.task_prolog = dir.join("prolog").display().to_string();
    setup.task_epilog = dir.join("epilog").display().to_string();
    let (_srun, call) = begin(&world, 1, setup.clone());
    let heard = call.finish();
    let said = (heard.said(0), heard.complained(0));
    assert_eq!(said, ("hello\nyes::\n".to_owned(), "late\n".to_owned()));
    world.end(key());
    assert_eq!(world.read("after"), "0 bar\n");
    forget(&world);
    setup.environment = b"FAIL=3\0PATH=/usr/bin:/bin\0".as_slice().into();
    let (_srun, call) = begin(&world, 1, setup);
    let heard = call.finish();
    assert_eq!((heard.exits[&0], heard.said(0).as_str()), (3 << 8, "hello\n"));
    let said = heard.complained(0);
    assert!(said.starts_with("slurmstepd: error: --task-prolog failed status=3\n"), "{said}");
    world.end(key());
}

#[test]
fn a_later_agent_finds_the_step_and_can_end_it() {
    let mut world = World::new();
    let (_srun, mut call) = begin(&world, 1, shell("echo up; exec sleep 1000"));
    call.until("the task", |heard| heard.said(0) == "up\n");
    world.started(key());
    world.restart();
    assert_eq!(world.found, [penstock_supervisor::Found::Running(key())]);
    world.spool().terminate(key(), EndCause::Cancelled, 30).unwrap();
    assert_eq!(call.finish().exits[&0], 15);
    assert_eq!(world.end(key()).wait_status, 15);
}

#[test]
fn a_suspended_step_goes_on_when_it_is_resumed() {
    let mut world = World::new();
    let (_srun, mut call) = begin(&world, 1, shell("read word; echo $word"));
    call.until("the start", |heard| heard.pids.is_some());
    world.spool().suspend(key(), true).unwrap();
    call.input(None, "word\n", true);
    world.spool().suspend(key(), false).unwrap();
    assert_eq!(call.finish().said(0), "word\n");
    assert_eq!(world.end(key()).wait_status, 0);
}

#[test]
fn too_much_memory_ends_the_step_and_says_how_much_there_was() {
    let mut world = World::new();
    if !world.has_groups("memory limits of steps are not tried") {
        return;
    }
    let srun = Srun::new();
    let mut launch = step(&srun, 1);
    let share = launch.step.as_mut().unwrap().shares[0].share.as_mut().unwrap();
    share.memory_mib = 32;
    launch.job_share.as_mut().unwrap().memory_mib = 512;
    world.spool().start(launch).unwrap();
    let script = "exec python3 -c 'x = bytearray(200 << 20); import time; time.sleep(5)'";
    let heard = srun.run(shell(script)).finish();
    let result = world.end(key());
    assert!(result.out_of_memory, "{heard:?}");
    assert_eq!(result.usage.memory_limit_bytes, 32 << 20);
    assert!(heard.out_of_memory && heard.exits[&0] == 9);
    let said = heard.complained(0);
    assert!(said.contains("on n1: asked 32M, peak ") && said.contains("; try --mem=48M"), "{said}");
}

#[test]
fn tasks_of_a_pmi_program_speak_with_the_shepherd_and_srun_joins_the_nodes() {
    let mut world = World::new();
    let srun = Srun::new();
    let mut launch = step(&srun, 1);
    launch.step_nodes.push("n2".to_owned());
    launch.step_tasks.push(1);
    launch.step.as_mut().unwrap().spec.as_mut().unwrap().mpi = "pmi2".to_owned();
    world.spool().start(launch).unwrap();
    let script = "import os, socket
s = socket.socket(fileno=int(os.environ['PMI_FD']))
f = s.makefile('rb')
s.sendall(b'cmd=init pmi_version=1 pmi_subversion=1\\n'); f.readline()
s.sendall(b'cmd=put kvsname=x key=a value=1\\n'); f.readline()
s.sendall(b'cmd=barrier_in\\n'); print(f.readline().decode(), end='')
s.sendall(b'cmd=get kvsname=x key=b\\n'); print(f.readline().decode(), end='')
print(os.environ['PMI_RANK'], os.environ['PMI_SIZE'])";
    let argv = ["python3", "-c", script].map(|word| word.as_bytes().to_vec().into()).to_vec();
    let mut call = srun.run(Setup { argv, ..shell("") });
    call.until("the fence", |heard| heard.fence.is_some());
    let body = [call.heard.fence.take().unwrap(), encode([("b", "2")])].concat();
    call.say(Frame::Pmi(PmiMessage { kind: FENCE_ANSWER, body: body.into() }));
    let said = call.finish().said(0);
    let expect = "cmd=barrier_out rc=0\ncmd=get_result rc=0 msg=success value=2\n0 2\n";
    assert_eq!(said, expect);
    assert_eq!(world.end(key()).wait_status, 0);
}

/// A program of MPI that adds up ranks.
const MPI_PROGRAM: &str = "#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
  int rank, size, sum;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  printf(\"%d of %d: %d\\n\", rank, size, sum);
  MPI_Finalize();
  return 0;
}
";

#[test]
fn an_mpi_program_runs_on_two_nodes() {
    let worlds = [World::new(), World::new()];
    let dir = worlds[0].work_dir();
    fs::write(dir.join("sum.c"), MPI_PROGRAM).unwrap();
    let made = std::process::Command::new("mpicc.mpich")
        .args(["-o", "sum", "sum.c"])
        .current_dir(&dir)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mpicc.mpich (apt-get install mpich)");
        return;
    }
    let srun = Srun::new();
    let [mut first, mut second] = worlds;
    second.config().node = "n2".to_owned();
    second.restart();
    for (index, world) in [&first, &second].into_iter().enumerate() {
        let mut launch = step(&srun, 2);
        launch.step_nodes = vec!["n1".to_owned(), "n2".to_owned()];
        launch.step_tasks = vec![2, 2];
        launch.node_index = u32::try_from(index).unwrap();
        let step = launch.step.as_mut().unwrap();
        step.spec.as_mut().unwrap().mpi = "pmi2".to_owned();
        step.shares[0].tasks = vec![launch.node_index * 2, launch.node_index * 2 + 1];
        world.spool().start(launch).unwrap();
    }
    let argv = vec![dir.join("sum").display().to_string().into_bytes().into()];
    let mut calls = [0, 1].map(|_| srun.run(Setup { argv: argv.clone(), ..shell("") }));
    loop {
        for call in &mut calls {
            call.until("a fence or the end", |heard| heard.fence.is_some() || heard.finished);
        }
        let parts: Vec<_> = calls.iter_mut().filter_map(|call| call.heard.fence.take()).collect();
        if parts.is_empty() {
            break;
        }
        for call in calls.iter_mut().filter(|call| !call.heard.finished) {
            let message = PmiMessage { kind: FENCE_ANSWER, body: parts.concat().into() };
            call.say(Frame::Pmi(message));
        }
    }
    let mut said: Vec<String> = calls
        .iter()
        .flat_map(|call| call.heard.stdout.keys().map(|task| call.heard.said(*task)))
        .collect();
    said.sort();
    assert_eq!(said, ["0 of 4: 6\n", "1 of 4: 6\n", "2 of 4: 6\n", "3 of 4: 6\n"]);
    assert_eq!((first.end(key()).wait_status, second.end(key()).wait_status), (0, 0));
}

#[test]
fn another_user_has_only_their_own_rights_in_a_step() {
    let nobody = User::from_name("nobody").ok().flatten();
    let Some(user) = nobody.filter(|_| Uid::effective().is_root()) else {
        eprintln!("skipped: another user needs root");
        return;
    };
    let mut world = World::new();
    let srun = Srun::new();
    let mut launch = step(&srun, 1);
    launch.step.as_mut().unwrap().uid = user.uid.as_raw();
    (launch.gid, launch.user_name) = (user.gid.as_raw(), user.name);
    let secret = world.work_dir().join("secret");
    fs::File::create(&secret).unwrap().write_all(b"root's\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut setup = in_work_dir(&world, "id -u; cat secret; ls -l /proc/self/fd | grep -c socket");
    setup.stderr = "err-%t".to_owned();
    world.spool().start(launch).unwrap();
    let heard = srun.run(setup).finish();
    assert_eq!(heard.said(0), format!("{}\n0\n", user.uid));
    assert!(world.read("err-0").contains("Permission denied"));
    world.end(key());
}
