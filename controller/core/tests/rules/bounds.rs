//! How many records may one command change?

use penstock_core::command::{MAX_SPECS, MAX_STARTS, PreemptLine, Unit};
use penstock_core::model::PreemptMode;
use penstock_core::{Command, RecordKey, Refusal, Reply};

use crate::common::accounts::qos;
use crate::common::{World, job, user, world};

/// Arrays that have nothing in common: each of another user, in a QOS and a partition of its own,
/// which has a QOS too.
fn strangers(count: u32) -> World {
    let mut builder = world().nodes(8).cpus(8).scheduling(|s| {
        s.preemption.reclaim = true;
        s.preemption.mode = PreemptMode::Suspend;
    });
    for n in 0..count {
        let name = format!("of_place{n}");
        builder = builder.partition(&format!("place{n}"), |p| p.qos = Some(name.into()));
    }
    let mut w = builder.build();
    for n in 0..count {
        w.change(vec![qos(&format!("own{n}"), []), qos(&format!("of_place{n}"), [])]).unwrap();
        let own = format!("own{n}");
        let array = job().by(user(2_000 + n)).array(0, 1, 1).partition(&[&format!("place{n}")]);
        w.submit(&array.spec(|spec| spec.qos = own.into()));
    }
    w
}

#[test]
fn a_start_of_as_many_strangers_as_it_takes_changes_about_100_records() {
    let count = u32::try_from(MAX_STARTS).unwrap();
    let mut w = strangers(count);
    let starts = w.plan().starts;
    assert_eq!(starts.len(), MAX_STARTS);
    let outcome = w.execute(Command::Start(starts)).unwrap();
    assert_eq!(outcome.reply, Reply::Started { started: count, refused: 0 });
    let used = outcome.changed.iter().filter(|key| matches!(key, RecordKey::Usage(_))).count();
    assert_eq!((outcome.changed.len(), used), (5 * MAX_STARTS + 1, 3 * MAX_STARTS));
    assert!(outcome.changed.len() <= 101, "{}", outcome.changed.len());
}

#[test]
fn jobs_for_as_many_new_accounts_as_it_takes_stay_within_a_commit() {
    let mut w = world().build();
    let spec = |n| job().spec(|spec| spec.account = format!("new{n}").into()).submission();
    let specs = (0..MAX_SPECS).map(spec).collect();
    let outcome = w.execute(Command::SubmitMany(user(1000), specs)).unwrap();
    let Reply::SubmittedMany(results) = outcome.reply else { panic!("{:?}", outcome.reply) };
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(outcome.changed.len() > 4 * MAX_SPECS, "the worst case");
    assert!(outcome.changed.len() < 200, "{}", outcome.changed.len());
}

#[test]
fn room_is_made_by_so_many_as_one_command_may_change() {
    let mut w = strangers(40);
    let victims = w.run_plan();
    assert_eq!(victims.len(), 40);
    w.advance(60);
    let waiting = Unit::Job(w.submit(&job().tasks(64)));
    let line = |victim| PreemptLine {
        victim,
        for_unit: waiting,
        mode: PreemptMode::Suspend,
        grace_secs: 0,
    };
    let lines = victims.into_iter().map(line).collect();
    let outcome = w.execute(Command::Preempt(lines)).unwrap();
    // Each changes its job and what three have used.
    assert_eq!(outcome.changed.len(), 26 * 4);
    let Reply::Targets(results) = outcome.reply else { panic!("{:?}", outcome.reply) };
    let over = |refusal: &Refusal| matches!(refusal, Refusal::TooManyItems { .. });
    assert_eq!(results.iter().filter(|one| one.refusal.as_ref().is_some_and(over)).count(), 14);
}
