//! How attempts end, and what is reported of it.

use std::time::{Duration, Instant};

use penstock_proto::v1;
use penstock_supervisor::{EndCause, SignalRequest, TimeLimit};
use penstock_vocab::{Millis, Signal};

use crate::world::{World, is_alive, job, wait_until};

const SLEEP: &str = "sleep 1000";

#[test]
fn exit_codes_arrive_and_forget_leaves_nothing() {
    let mut world = World::new();
    let key = world.start(1, job("exit 3"));
    world.started(key);
    let result = world.end(key);
    assert_eq!(result.wait_status, 3 << 8);
    assert!(!result.out_of_memory && !result.time_limit && !result.lost && !result.unkillable);
    assert!(result.start.as_millis() > 0 && result.end >= result.start);
    world.spool().forget(key).unwrap();
    let (dir, script) = (world.attempt_dir(key), world.config().run_dir.join("1.0"));
    wait_until("the folder's end", || !dir.exists() && !script.exists());
}

#[test]
fn a_signal_that_ends_the_script_is_reported() {
    let mut world = World::new();
    let key = world.start(1, job("kill -9 $$"));
    assert_eq!(world.end(key).wait_status, 9);
}

#[test]
fn the_time_limit_ends_the_job_and_says_so() {
    let mut world = World::new();
    let mut late = job(SLEEP).stdout("out");
    late.launch.time_limit_secs = 1;
    let key = world.start(5, late);
    let result = world.end(key);
    assert_eq!((result.wait_status, result.time_limit), (15, true));
    assert!(result.elapsed >= Millis::from_secs(1) && result.elapsed < Millis::from_secs(20));
    let said = world.read("out");
    assert!(said.starts_with("slurmstepd: error: *** JOB 5 ON n1 CANCELLED AT 2"), "{said}");
    assert!(said.ends_with(" DUE TO TIME LIMIT ***\n"), "{said}");
}

#[test]
fn whoever_ignores_sigterm_is_killed_after_the_wait() {
    let mut world = World::new();
    let mut stubborn = job("trap '' TERM; echo ready; while :; do sleep 1000; done").stdout("out");
    stubborn.launch.kill_wait_secs = 30;
    let key = world.start(1, stubborn);
    world.wait_for("out", "ready");
    world.spool().terminate(key, EndCause::Cancelled, 1).unwrap();
    let result = world.end(key);
    assert_eq!((result.wait_status, result.time_limit), (9, false));
    assert!(world.read("out").trim_end().ends_with("***"));
}

#[test]
fn a_cancelled_job_leaves_no_process_behind() {
    let mut world = World::new();
    // A child in a session of its own, whose parent is gone, is still part of the job.
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > pid; sleep 1000' &\nsleep 1000";
    let key = world.start(1, job(script));
    world.wait_for("pid", "\n");
    let pid = world.read("pid").trim().to_owned();
    world.spool().terminate(key, EndCause::Cancelled, 0).unwrap();
    assert_eq!(world.end(key).wait_status, 9);
    assert!(!is_alive(&pid), "{pid} is alive");
}

#[test]
fn what_a_script_leaves_running_is_killed_when_it_ends() {
    for mut world in [World::new(), World::without_cgroups()] {
        let key = world.start(1, job("setsid sleep 1000 > /dev/null & echo $! > pid; exit 0"));
        assert_eq!(world.end(key).wait_status, 0);
        let pid = world.read("pid").trim().to_owned();
        assert!(!pid.is_empty());
        assert!(!is_alive(&pid), "{pid} is alive");
    }
}

#[test]
fn a_requeued_job_is_told_so() {
    let mut world = World::new();
    let key = world.start(1, job("echo on; sleep 1000").stdout("out"));
    world.wait_for("out", "on");
    world.spool().terminate(key, EndCause::Requeue, 5).unwrap();
    assert_eq!(world.end(key).wait_status, 15);
    assert!(world.read("out").contains("DUE TO JOB REQUEUE ***"));
}

#[test]
fn a_new_limit_counts_from_the_start() {
    let mut world = World::new();
    let mut long = job("echo on; sleep 1000").stdout("out");
    long.launch.time_limit_secs = 1000;
    long.launch.limit_serial = 1;
    let key = world.start(1, long);
    world.wait_for("out", "on");
    world.spool().set_limit(key, TimeLimit { limit_secs: 1, serial: 2 }).unwrap();
    assert!(world.end(key).time_limit);
}

#[test]
fn the_warning_signal_reaches_the_shell_before_the_limit() {
    let mut world = World::new();
    let mut warned = job("trap 'echo warned; exit 7' USR1; while :; do sleep 0.01; done");
    warned.spec.signal =
        Some(v1::SignalRequest { signal: 10, seconds_before: 999, batch_only: true });
    warned.launch.time_limit_secs = 1000;
    let key = world.start(1, warned.stdout("out"));
    assert_eq!(world.end(key).wait_status, 7 << 8);
    assert_eq!(world.read("out"), "warned\n");
}

#[test]
fn a_plain_signal_spares_the_shell_and_reaches_steps() {
    let mut world = World::new();
    let script = "trap 'echo shell >> got' USR1
        SLURM_STEP_ID=0 sh -c 'trap \"echo step >> got; exit\" USR1
            echo ready > on; while :; do sleep 0.01; done' &
        wait";
    let key = world.start(1, job(script));
    world.wait_for("on", "ready");
    let plain = SignalRequest { signal: Signal::new(10).unwrap(), batch_only: false, full: false };
    world.spool().signal(key, plain).unwrap();
    assert_eq!(world.end(key).wait_status, 0);
    assert_eq!(world.read("got"), "step\n");
    let key = world.start(
        2,
        job("trap 'echo shell > got2; exit' USR1; echo on > on2; while :; do sleep 0.01; done"),
    );
    world.wait_for("on2", "on");
    world.spool().signal(key, SignalRequest { batch_only: true, ..plain }).unwrap();
    assert_eq!(world.end(key).wait_status, 0);
    assert_eq!(world.read("got2"), "shell\n");
}

#[test]
fn a_suspended_job_stands_still_and_can_be_cancelled() {
    for mut world in [World::new(), World::without_cgroups()] {
        let script =
            "echo $$ > pid; i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.005; done";
        let key = world.start(1, job(script));
        world.wait_for("count", "\n");
        world.spool().suspend(key, true).unwrap();
        wait_until("the job to stand", || world.stands(key));
        let before = world.read("count");
        world.spool().suspend(key, false).unwrap();
        wait_until("the job to go on", || world.read("count") != before);
        world.spool().suspend(key, true).unwrap();
        world.spool().terminate(key, EndCause::Cancelled, 30).unwrap();
        assert_eq!(world.end(key).wait_status, 15);
    }
}

#[test]
fn the_time_limit_stands_still_with_the_job_also_while_there_is_no_agent() {
    for mut world in [World::new(), World::without_cgroups()] {
        let mut limited = job("echo $$ > pid; while :; do echo on >> out; sleep 0.05; done");
        limited.launch.time_limit_secs = 2;
        let key = world.start(1, limited);
        world.started(key);
        world.wait_for("out", "on");
        world.spool().suspend(key, true).unwrap();
        wait_until("the job to stand", || world.stands(key));
        let written = world.read("out").len();
        world.restart();
        world.started(key);
        let stood = Instant::now();
        // Watches that nothing happens, for longer than the whole limit: were the clock running, the
        // job would end by itself.
        while stood.elapsed() < Duration::from_secs(3) {
            assert!(is_alive(world.read("pid").trim()), "it stands still and has not ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(world.read("out").len(), written, "it did nothing while it stood");
        world.spool().suspend(key, false).unwrap();
        let result = world.end(key);
        assert!(result.time_limit, "{result:?}");
        let elapsed = result.elapsed;
        assert!(elapsed >= Millis::from_secs(2) && elapsed < Millis::from_secs(5), "{elapsed:?}");
    }
}

#[test]
fn a_suspended_job_can_be_killed_at_once() {
    for mut world in [World::new(), World::without_cgroups()] {
        let key = world.start(1, job("echo $$ > pid; sleep 1000"));
        world.started(key);
        world.wait_for("pid", "\n");
        world.spool().suspend(key, true).unwrap();
        world.spool().terminate(key, EndCause::Cancelled, 0).unwrap();
        assert_eq!(world.end(key).wait_status, 9);
        assert!(!is_alive(world.read("pid").trim()));
    }
}

/// Doubles a string until it is too long.
const EAT: &str = "x=0123456789abcdef; while :; do x=$x$x; done";

#[test]
fn too_much_memory_is_seen_and_told() {
    let mut world = World::new();
    if !world.has_groups("the kernel limits no memory")
        || !world.config().hierarchies.limits_memory()
    {
        eprintln!("skipped: no memory controller");
        return;
    }
    let mut hungry = job(EAT).stdout("out");
    hungry.memory_mib = 24;
    let key = world.start(5, hungry);
    let result = world.end(key);
    assert!(result.out_of_memory, "{result:?}");
    assert_eq!(result.usage.memory_limit_bytes, 24 << 20);
    assert!(result.usage.peak_memory_bytes > 12 << 20);
    let said = world.read("out");
    assert!(said.contains(" in StepId=5.batch. Some of the step tasks have been OOM Killed."));
    assert!(said.contains("job 5 on n1: asked 24M, peak 2"), "{said}");
    assert!(said.contains("; try --mem=36M"), "{said}");
}

#[test]
fn without_a_controller_memory_is_sampled() {
    let mut world = World::without_cgroups();
    let eat_and_keep = "x=0123456789abcdef; n=0
        while [ $n -lt 22 ]; do x=$x$x; n=$((n+1)); done; sleep 1000";
    let mut hungry = job(eat_and_keep).stdout("out");
    hungry.memory_mib = 16;
    let key = world.start(5, hungry);
    let result = world.end(key);
    assert!(result.out_of_memory && result.usage.peak_memory_bytes > 16 << 20, "{result:?}");
    assert_eq!(result.wait_status, 9);
}

#[test]
fn no_more_processes_than_allowed_are_made() {
    let mut world = World::new();
    if !world.has_groups("processes are not limited")
        || !world.config().hierarchies.limits_processes()
    {
        eprintln!("skipped: no pids controller");
        return;
    }
    world.config().max_processes = Some(6);
    world.restart();
    // Each sleeper is one process beside the shell; what the shell says of the failure is kept.
    let key = world.start(1, job("for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done").stdout("out"));
    let result = world.end(key);
    assert_ne!(result.wait_status, 0, "{result:?}");
    assert!(world.read("out").contains("fork"), "{}", world.read("out"));
}

#[test]
fn cpu_time_and_peak_memory_are_counted() {
    for mut world in [World::new(), World::without_cgroups()] {
        let key = world.start(1, job("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"));
        let usage = world.end(key).usage;
        assert!(usage.user_cpu_usec > 10_000, "{usage:?}");
        assert!(usage.peak_memory_bytes > 100_000, "{usage:?}");
    }
}

#[test]
fn what_a_job_uses_is_told_while_it_runs_and_when_it_ended() {
    let mut world = World::new();
    let mut hungry = job("head -c 3000000 /dev/zero > big; echo go > said; read x < gate");
    hungry.launch.measure_secs = 1;
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        world.work_dir().join("gate"),
        rustix::fs::Mode::from_raw_mode(0o666),
    )
    .unwrap();
    let key = world.start(6, hungry);
    world.started(key);
    let tasks = |part: &v1::PartUsage| {
        let usage = part.usage.clone().unwrap_or_default();
        usage.tasks.unwrap_or_default()
    };
    let written = |part: &v1::PartUsage| tasks(part).written.map_or(0, |spread| spread.total);
    let part = world.used(|part| tasks(part).written.is_none() || written(part) >= 3_000_000);
    assert_eq!((part.job_id, part.step, part.pids.len()), (6, None, 1), "{part:?}");
    assert!(part.memory_bytes > 0 && tasks(&part).vm_size.is_some());
    // Asked, it answers at once and once more.
    world.usage.clear();
    world.spool().measure(v1::MeasurePart { job_id: 6, attempt: 0, step: None }).unwrap();
    let asked = world.used(|_| true);
    assert_eq!(asked.pids, part.pids);
    std::fs::write(world.work_dir().join("gate"), "go\n").unwrap();
    let used = world.end(key).usage.tasks.expect("something was measured");
    let rss = used.get(penstock_vocab::Measure::Rss).unwrap();
    assert!(used.tasks == 1 && rss.max >= 100_000, "{used:?}");
    if let Some(written) = used.get(penstock_vocab::Measure::Written) {
        assert!(written.total >= 3_000_000, "{used:?}");
    }
}

#[test]
fn a_job_sees_the_cpus_it_was_given() {
    let mut world = World::new();
    if !world.has_groups("jobs are not pinned") || !world.config().hierarchies.pins_cpus() {
        eprintln!("skipped: no cpuset controller");
        return;
    }
    let key = world.start(1, job("grep Cpus_allowed_list /proc/self/status").stdout("out"));
    world.end(key);
    let cpu = world.config().cpus.as_ref().unwrap().list(&[0, 0]);
    assert_eq!(world.read("out").split_whitespace().last(), Some(cpu.as_str()));
}
