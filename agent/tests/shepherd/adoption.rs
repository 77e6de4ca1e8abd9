//! What becomes of attempts while there is no agent, and when there is one again.

use std::fs;

use penstock_supervisor::{AttemptKey, EndCause, Found, HostEvent};
use penstock_vocab::{Attempt, JobId};

use crate::world::{World, is_alive, job, wait_until};

#[test]
fn a_running_job_is_adopted_and_obeys() {
    let mut world = World::new();
    let key = world.start(1, job("echo on; sleep 1000").stdout("out"));
    world.started(key);
    world.wait_for("out", "on");
    world.restart();
    assert_eq!(world.found, [Found::Running(key)]);
    // Told before the shepherd can be reached: it is kept for it.
    world.spool().terminate(key, EndCause::Cancelled, 30).unwrap();
    world.started(key);
    assert_eq!(world.end(key).wait_status, 15);
}

#[test]
fn a_job_that_ended_meanwhile_is_found() {
    let mut world = World::new();
    let key = world
        .start(1, job("echo on; while [ ! -e go ]; do sleep 0.01; done; exit 4").stdout("out"));
    world.wait_for("out", "on");
    world.stop();
    fs::write(world.work_dir().join("go"), "").unwrap();
    let dir = world.attempt_dir(key);
    wait_until("the record", || dir.join("exit").exists());
    world.restart();
    let [Found::Ended(found, result)] = &world.found[..] else { panic!("{:?}", world.found) };
    assert_eq!((*found, result.wait_status, result.lost), (key, 4 << 8, false));
}

#[test]
fn an_agent_that_restarts_often_still_reaches_its_job() {
    let mut world = World::new();
    let key = world.start(1, job("sleep 1000"));
    world.started(key);
    for _ in 0..5 {
        world.restart();
        world.started(key);
    }
    world.spool().terminate(key, EndCause::Cancelled, 0).unwrap();
    assert_eq!(world.end(key).wait_status, 9);
}

#[test]
fn a_shepherd_that_was_killed_is_noticed_and_its_job_ended() {
    let mut world = World::new();
    let key = world.start(1, job("echo $$ > pid; sleep 1000"));
    world.started(key);
    world.wait_for("pid", "\n");
    let shepherd = parent_of(&world.read("pid"));
    kill(&shepherd);
    let result = world.end(key);
    assert!(result.lost);
    if world.has_groups("and its job is not found again") {
        wait_until("the job's end", || !is_alive(world.read("pid").trim()));
    }
    world.restart();
    assert!(matches!(&world.found[..], [Found::Ended(_, result)] if result.lost));
}

#[test]
fn a_shepherd_killed_while_there_was_no_agent_is_noticed_later() {
    let mut world = World::new();
    let key = world.start(1, job("echo $$ > pid; sleep 1000"));
    world.started(key);
    world.wait_for("pid", "\n");
    let shepherd = parent_of(&world.read("pid"));
    world.stop();
    kill(&shepherd);
    wait_until("the shepherd's end", || !is_alive(&shepherd));
    world.restart();
    assert!(matches!(&world.found[..], [Found::Ended(found, result)]
        if *found == key && result.lost && !result.unkillable));
}

#[test]
fn an_intent_without_claim_never_starts() {
    let mut world = World::new();
    // A shepherd that does nothing: as if the agent had died before it was spawned.
    let ours = world.config().shepherd.clone();
    world.config().shepherd =
        penstock_agent::launch::ShepherdCommand::new("/bin/sleep".into(), vec!["1000".to_owned()]);
    world.restart();
    let key = world.start(1, job("touch ran"));
    let dir = world.attempt_dir(key);
    wait_until("the intent", || dir.join("intent").exists());
    wait_until("the spawned command's end or the failure", || dir.join("exit").exists());
    fs::remove_file(dir.join("exit")).unwrap();
    fs::remove_file(dir.join("claim")).unwrap();
    world.config().shepherd = ours;
    world.restart();
    assert_eq!(world.found, [Found::NeverStarted(key)]);
    world.restart();
    assert_eq!(world.found, [Found::NeverStarted(key)]);
    world.spool().take_lock(key).unwrap();
    assert_eq!(world.next(), HostEvent::LockTaken(key));
    // Not even a shepherd that comes late can start it, nor a launch that is repeated.
    let late = std::process::Command::new(std::env::current_exe().unwrap())
        .arg(crate::SHEPHERD)
        .arg(&dir)
        .output()
        .unwrap();
    assert_eq!(late.status.code(), Some(1));
    world.start(1, job("touch ran"));
    world.spool().take_lock(key).unwrap();
    assert_eq!(world.next(), HostEvent::LockTaken(key));
    assert!(!world.work_dir().join("ran").exists());
}

#[test]
fn an_intent_of_an_earlier_boot_is_lost() {
    let mut world = World::new();
    let key = world.start(1, job("exit 0"));
    world.end(key);
    let dir = world.attempt_dir(key);
    world.stop();
    // As after a crash of the machine that took the younger files with it.
    fs::remove_file(dir.join("exit")).unwrap();
    fs::remove_file(dir.join("claim")).unwrap();
    world.config().boot_id = "another".to_owned();
    world.restart();
    assert!(matches!(&world.found[..], [Found::Ended(_, result)] if result.lost));
}

#[test]
fn a_tombstone_outlives_the_agent_and_forbids_the_start() {
    let mut world = World::new();
    let key = AttemptKey::new(JobId(9), Attempt(0));
    world.spool().bury(key).unwrap();
    let dir = world.attempt_dir(key);
    wait_until("the tombstone", || dir.join("claim").exists());
    world.restart();
    assert_eq!(world.found, [Found::Tombstone(key)]);
    world.start(9, job("touch ran"));
    world.spool().forget(key).unwrap();
    wait_until("the end of the tombstone", || !dir.exists());
    assert!(!world.work_dir().join("ran").exists());
}

#[test]
fn strange_folders_are_left_alone() {
    let mut world = World::new();
    let strange = world.config().state_dir.join("spool/lost+found");
    fs::create_dir(&strange).unwrap();
    world.restart();
    assert!(world.found.is_empty() && strange.exists());
}

fn parent_of(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().to_owned()
}

fn kill(pid: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}
