//! What becomes of runs whose GPUs are idle, and is it believed to anybody who says so?

use std::sync::Arc;

use penstock_core::Command;
use penstock_core::command::{Effect, IdleLine, OrderKind, Reply};
use penstock_core::model::{Config, EndCause, IdleAction, IdleRule};
use penstock_core::policy::idle::IdleStep;
use penstock_core::refusal::Refusal;
use penstock_vocab::{Attempt, JobId, JobState};

use crate::common::{World, job, world};

fn with(rule: IdleRule) -> World {
    let mut w = world().nodes(1).gpus(4).build();
    let mut config = Config::clone(w.cluster.config());
    config.idle = vec![rule];
    w.execute(Command::Configure(Arc::new(config))).unwrap();
    w
}

fn rule(action: IdleAction) -> IdleRule {
    IdleRule {
        name: "r".into(),
        exempt_users: vec!["root".into()],
        grace_secs: 600,
        action,
        dry_run: false,
        ..IdleRule::default()
    }
}

fn line(id: JobId, step: IdleStep) -> IdleLine {
    IdleLine {
        job: id,
        attempt: Attempt(1),
        rule: "r".into(),
        step,
        evidence: "2 of 2 GPUs idle for 2h00m".into(),
        lost_ms: 14_400_000,
    }
}

/// Sends it; what was refused, and what was told.
fn send(w: &mut World, line: IdleLine) -> (Option<Refusal>, Vec<String>) {
    let outcome = w.execute(Command::Idle(vec![line])).unwrap();
    let told = outcome.effects.iter().filter_map(|effect| match effect {
        Effect::Notice { text, .. } | Effect::Warn(text) => Some(text.to_string()),
        _ => None,
    });
    let told = told.collect();
    let Reply::Targets(mut results) = outcome.reply else { panic!("other answer") };
    (results.remove(0).refusal, told)
}

fn started(w: &mut World) -> JobId {
    let id = w.submit(&job().gres("gpu:2").minutes(300));
    w.run_plan();
    w.running(id);
    w.orders.clear();
    id
}

#[test]
fn nothing_is_done_before_every_notice_was_given_and_its_time_has_come() {
    let mut w = with(rule(IdleAction::Cancel));
    let id = started(&mut w);
    let attempt = w.job(id).run.as_ref().unwrap().attempt;
    let of = |step| IdleLine { attempt, ..line(id, step) };
    assert!(send(&mut w, of(IdleStep::Act)).0.is_some());
    assert!(send(&mut w, of(IdleStep::Warn(2))).0.is_some());
    let (refused, told) = send(&mut w, of(IdleStep::Warn(1)));
    assert_eq!(refused, None);
    assert!(told[0].contains("(notice 1 of 2); the job is cancelled in 10m"), "{told:?}");
    assert!(send(&mut w, of(IdleStep::Warn(1))).0.is_some(), "said already");
    w.wait(300);
    assert_eq!(send(&mut w, of(IdleStep::Warn(2))).0, None);
    assert!(send(&mut w, of(IdleStep::Act)).0.is_some(), "not yet");
    w.wait(300);
    assert_eq!(send(&mut w, of(IdleStep::Act)).0, None);
    assert_eq!(w.take_orders(id), [OrderKind::Terminate(EndCause::Cancelled)]);
    w.exit(id, 0);
    let job = w.job(id);
    let run = job.run.as_ref().unwrap();
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(&*run.end_reason, "2 of 2 GPUs idle for 2h00m (idle_reclaim r)");
    let note = run.idle.as_ref().unwrap();
    // Two GPUs for the four hours and fifty minutes that were left of five.
    assert_eq!((note.lost_ms, note.freed_ms), (14_400_000, 2 * 290 * 60_000));
    assert_eq!(w.restored().check(), []);
}

#[test]
fn work_takes_notices_back_and_an_exempt_job_gets_none() {
    let mut w = with(rule(IdleAction::Requeue));
    let id = started(&mut w);
    let attempt = w.job(id).run.as_ref().unwrap().attempt;
    let of = |id, step| IdleLine { attempt, ..line(id, step) };
    assert_eq!(send(&mut w, of(id, IdleStep::Warn(1))).0, None);
    assert_eq!(send(&mut w, of(id, IdleStep::Clear)).0, None);
    assert_eq!(w.job(id).run.as_ref().unwrap().idle, None);
    assert!(send(&mut w, of(id, IdleStep::Clear)).0.is_some());
    let other = IdleLine { rule: "x".into(), ..of(id, IdleStep::Warn(1)) };
    assert!(send(&mut w, other).0.is_some(), "another rule");
    let old = IdleLine { attempt: Attempt(attempt.0 + 1), ..of(id, IdleStep::Warn(1)) };
    assert!(send(&mut w, old).0.is_some(), "another run");
    let said = job().gres("gpu:1").spec(|spec| {
        Arc::make_mut(&mut spec.details).idle_ok = "debugger".into();
    });
    let said = w.submit(&said);
    w.run_plan();
    w.running(said);
    assert!(send(&mut w, of(said, IdleStep::Warn(1))).0.is_some());
}

#[test]
fn a_rule_that_is_tried_out_ends_nothing_and_tells_only_the_log() {
    let dry = IdleRule { dry_run: true, warnings: 1, grace_secs: 0, ..rule(IdleAction::Cancel) };
    let mut w = with(dry);
    let id = started(&mut w);
    let attempt = w.job(id).run.as_ref().unwrap().attempt;
    for step in [IdleStep::Warn(1), IdleStep::Act] {
        let (refused, told) = send(&mut w, IdleLine { attempt, ..line(id, step) });
        assert_eq!(refused, None);
        assert!(told[0].starts_with("idle_reclaim r (dry run, nobody is told): job "), "{told:?}");
    }
    assert_eq!((w.state(id), w.take_orders(id)), (JobState::Running, vec![]));
    assert!(w.job(id).run.as_ref().unwrap().idle.as_ref().unwrap().acted.is_some());
}

#[test]
fn one_that_may_be_preempted_makes_room_for_whoever_waits() {
    let prey = IdleRule { warnings: 1, grace_secs: 0, ..rule(IdleAction::Preemptible) };
    let mut w = with(prey);
    let id = started(&mut w);
    let attempt = w.job(id).run.as_ref().unwrap().attempt;
    let waits = w.submit(&job().gres("gpu:4").minutes(5));
    assert!(w.run_plan().is_empty());
    assert!(w.plan().preempt.is_empty(), "nobody is preempted here");
    for step in [IdleStep::Warn(1), IdleStep::Act] {
        assert_eq!(send(&mut w, IdleLine { attempt, ..line(id, step) }).0, None);
    }
    let plan = w.plan();
    assert_eq!(plan.preempt.iter().map(|line| line.victim).collect::<Vec<_>>(), [id]);
    w.execute(Command::Preempt(plan.preempt)).unwrap();
    assert_eq!(w.take_orders(id), [OrderKind::Terminate(EndCause::PreemptedRequeue)]);
    w.exit(id, 0);
    assert_eq!(w.run_plan(), [waits]);
}
