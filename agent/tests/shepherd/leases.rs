//! A job that needs a lease ends when that is over, whoever else lives.

use std::time::Duration;

use penstock_vocab::Millis;
use rustix::time::{ClockId, clock_gettime};

use crate::world::{Job, World, is_alive, job, wait_until};

fn boottime() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    let millis = now.tv_sec * 1_000 + now.tv_nsec / 1_000_000;
    Millis(u64::try_from(millis).unwrap())
}

/// Says its pid, and ignores SIGTERM.
fn stubborn(lease_secs: u32) -> Job {
    let mut job = job("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done");
    job.launch.lease_secs = lease_secs;
    job.launch.kill_wait_secs = 1;
    job
}

#[test]
fn a_lease_that_is_not_renewed_ends_the_job_without_any_agent() {
    for mut world in [World::new(), World::without_cgroups()] {
        let since = boottime();
        world.spool().renew(since).unwrap();
        let key = world.start(1, stubborn(2));
        world.started(key);
        world.wait_for("pid", "\n");
        world.stop();
        let pid = world.read("pid").trim().to_owned();
        wait_until("the job's end", || !is_alive(&pid));
        let lived = boottime().0 - since.0;
        assert!((3_000..8_000).contains(&lived), "lease and wait are 3 s, it lived {lived} ms");
        wait_until("the record", || world.attempt_dir(key).join("exit").exists());
        world.restart();
        let found = format!("{:?}", world.found);
        assert!(found.contains("Ended") && found.contains("fenced: true"), "{found}");
    }
}

#[test]
fn a_lease_that_is_renewed_by_a_later_agent_goes_on() {
    let mut world = World::new();
    world.spool().renew(boottime()).unwrap();
    let key = world.start(1, stubborn(3));
    world.started(key);
    world.wait_for("pid", "\n");
    world.restart();
    assert!(world.leases, "the agent knows that it must go on to renew");
    let pid = world.read("pid").trim().to_owned();
    // Watches that nothing happens, for twice as long as one lease holds.
    let until = boottime().0 + 6_000;
    while boottime().0 < until {
        world.spool().renew(boottime()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(is_alive(&pid), "it was renewed all the time");
    }
    // From here on, nobody does.
    world.started(key);
    let result = world.end(key);
    assert!(result.fenced && result.wait_status == 9, "{result:?}");
}

#[test]
fn what_comes_too_late_is_not_begun() {
    let mut world = World::new();
    world.spool().renew(Millis(boottime().0 - 5_000)).unwrap();
    let key = world.start(1, stubborn(5));
    let result = world.end(key);
    assert!(result.fenced, "{result:?}");
    assert!(!world.work_dir().join("pid").exists());
}

#[test]
fn without_any_renewal_there_is_no_lease() {
    let mut world = World::new();
    let key = world.start(1, stubborn(5));
    let (error, node_fault) = world.failure(key);
    assert!(error.contains("lease") && node_fault, "{error}");
}

#[test]
fn a_suspended_job_is_ended_with_its_lease() {
    for mut world in [World::new(), World::without_cgroups()] {
        world.spool().renew(boottime()).unwrap();
        let key = world.start(1, stubborn(2));
        world.started(key);
        world.wait_for("pid", "\n");
        world.spool().suspend(key, true).unwrap();
        let result = world.end(key);
        assert!(result.fenced, "{result:?}");
        assert!(!is_alive(world.read("pid").trim()));
    }
}
