//! When do runs with a lease count as ended, whose node is silent?

use penstock_core::Command;
use penstock_core::command::AttemptPhase;
use penstock_core::model::{Config, EndCause, RunLease, RunResult, RunStage};
use penstock_vocab::{JobId, JobState};

use crate::common::{World, job, node_name, says, world};

const LEASE: RunLease = RunLease { secs: 60, kill_wait_secs: 30 };

/// Two nodes in a partition that fences by lease, and in one that does not.
fn fencing() -> World {
    world()
        .nodes(2)
        .policy(|policy| policy.fence_lease_secs = LEASE.secs)
        .main(|main| main.fence_self = true)
        .partition("other", |_| ())
        .build()
}

fn running(w: &mut World, nodes: &[u32], partition: &str) -> JobId {
    let id = w.submit(&job().on(nodes).partition(&[partition]));
    w.run_plan();
    w.running(id);
    id
}

fn silent_for(w: &mut World, secs: u64) {
    let over = w.cluster.has_lease_over(w.index(1), secs);
    let outcome = w.execute(Command::LeasesOver { node: node_name(1), silent_secs: secs }).unwrap();
    assert_eq!(over, !outcome.changed.is_empty(), "{secs} s: the one says what the other does");
}

#[test]
fn only_runs_with_a_lease_end_and_only_after_lease_wait_margin_and_timeout() {
    let mut w = fencing();
    let (leased, free) = (running(&mut w, &[1], "main"), running(&mut w, &[1], "other"));
    assert_eq!(w.job(leased).active_run().unwrap().lease, Some(LEASE));
    assert_eq!(w.job(free).active_run().unwrap().lease, None);
    silent_for(&mut w, 1_000_000);
    assert_eq!(w.state(leased), JobState::Running, "the node is connected");
    w.silence(1);
    silent_for(&mut w, 299);
    assert_eq!(w.state(leased), JobState::Running);
    silent_for(&mut w, 300);
    assert_eq!((w.state(leased), w.state(free)), (JobState::Pending, JobState::Running));
    let old = w.job(leased).earlier_runs[0].clone();
    assert_eq!(old.end_state, Some(JobState::NodeFail));
    assert!(old.end_reason.contains("lease was over"), "{}", old.end_reason);
}

#[test]
fn a_lease_that_was_given_holds_whatever_the_file_says_later() {
    let mut w = fencing();
    let id = running(&mut w, &[1], "main");
    let mut config: Config = (**w.cluster.config()).clone();
    config.policy.node_timeout_secs = 15;
    config.policy.kill_wait_secs = 1;
    config.policy.fence_lease_secs = 3;
    config.partitions[0].fence_self = false;
    w.execute(Command::Configure(config.into())).unwrap();
    w.silence(1);
    silent_for(&mut w, 99);
    assert_eq!(w.state(id), JobState::Running);
    silent_for(&mut w, 100);
    assert_eq!(w.state(id), JobState::Pending);
}

#[test]
fn without_a_lease_silence_proves_nothing_also_when_leases_come_later() {
    let mut w = fencing();
    let id = running(&mut w, &[1], "other");
    let mut config: Config = (**w.cluster.config()).clone();
    config.partitions[1].fence_self = true;
    w.execute(Command::Configure(config.into())).unwrap();
    w.silence(1);
    silent_for(&mut w, 1_000_000);
    assert_eq!(w.state(id), JobState::Running);
}

#[test]
fn a_launch_that_nobody_confirmed_is_over_too() {
    let mut w = fencing();
    let id = w.submit(&job().on(&[1]));
    w.run_plan();
    w.silence(1);
    silent_for(&mut w, 300);
    assert_eq!(w.state(id), JobState::Pending);
}

#[test]
fn what_a_node_reports_of_a_lease_that_ran_out_is_a_node_failure() {
    let mut w = fencing();
    let id = running(&mut w, &[1], "main");
    let result = RunResult { fenced: true, ..RunResult::default() };
    w.report(id, AttemptPhase::Ended(Box::new(result)));
    assert_eq!(w.state(id), JobState::Pending);
    assert_eq!(w.job(id).earlier_runs[0].end_state, Some(JobState::NodeFail));
    // But a job that had reached its own end is over.
    let late = running(&mut w, &[2], "main");
    let result = RunResult { fenced: true, time_limit: true, ..RunResult::default() };
    w.report(late, AttemptPhase::Ended(Box::new(result)));
    assert_eq!(w.state(late), JobState::Timeout);
}

#[test]
fn the_end_that_a_node_reports_later_changes_nothing_more() {
    let mut w = fencing();
    let id = running(&mut w, &[1], "main");
    w.silence(1);
    silent_for(&mut w, 300);
    let before = w.job(id);
    let result = RunResult { fenced: true, ..RunResult::default() };
    w.register(1, vec![says(id, 1, AttemptPhase::Ended(Box::new(result)))]);
    assert_eq!(w.job(id), before);
    silent_for(&mut w, 1_000_000);
    assert_eq!(w.job(id), before);
}

#[test]
fn a_part_of_a_job_that_is_lost_ends_it_where_it_goes_on() {
    let mut w = fencing();
    let id = w.submit(&job().nodes(2).on(&[1, 2]));
    w.run_plan();
    w.running(id);
    let batch = w.job(id).active_run().unwrap().batch_node().unwrap();
    let other = if batch == w.index(1) { 2 } else { 1 };
    w.silence(other);
    w.execute(Command::LeasesOver { node: node_name(other), silent_secs: 300 }).unwrap();
    let stage = w.job(id).active_run().unwrap().stage;
    assert_eq!(stage, RunStage::Ending(EndCause::NodeFail));
}
