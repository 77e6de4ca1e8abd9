//! When does a job go that waits for another?

use penstock_core::Command;
use penstock_core::command::{AttemptPhase, JobUpdate, Target, Unit};
use penstock_core::model::Dependency;
use penstock_vocab::{IndexSet, JobId, JobState};

use crate::common::{World, admin, job, user, world};

#[derive(Debug, Clone, Copy)]
enum Step {
    Start,
    Exit(u8),
    Cancel,
    Requeue,
    Wait(u64),
}

fn act(w: &mut World, id: JobId, step: Step) {
    match step {
        Step::Start => assert_eq!(w.run_plan(), [id]),
        Step::Exit(status) => w.exit(id, status),
        Step::Cancel => assert_eq!(w.cancel(user(1000), Target::Id(id)), None),
        Step::Requeue => assert_eq!(w.requeue(user(1000), Target::Id(id), false), None),
        Step::Wait(secs) => w.wait(secs),
    }
}

#[test]
fn each_type_waits_for_what_it_says() {
    use Step::{Cancel, Exit, Requeue, Start, Wait};
    let (waits, goes, never) = ("Dependency", "goes", "DependencyNeverSatisfied");
    let cases: [(&str, &[Step], &str); 17] = [
        ("afterok", &[], waits),
        ("afterok", &[Start], waits),
        ("afterok", &[Start, Exit(0)], goes),
        ("afterok", &[Start, Exit(1)], never),
        ("afterok", &[Cancel], never),
        ("afternotok", &[Start, Exit(0)], never),
        ("afternotok", &[Start, Exit(1)], goes),
        ("afternotok", &[Cancel], goes),
        ("afterany", &[Start], waits),
        ("afterany", &[Start, Exit(1)], goes),
        ("afterany", &[Cancel], goes),
        ("after", &[], waits),
        ("after", &[Start], goes),
        ("after", &[Cancel], goes),
        ("afterok", &[Start, Requeue, Exit(1)], waits),
        ("after", &[Start, Requeue, Exit(1)], waits),
        ("afterok", &[Start, Exit(1), Wait(1), Requeue], waits),
    ];
    for (kind, steps, expected) in cases {
        let mut w = world().nodes(1).build();
        let first = w.submit(&job());
        let second = w.submit(&job().after(&format!("{kind}:{first}")));
        for step in steps {
            act(&mut w, first, *step);
        }
        let waiting = w.cluster.waiting(Unit::Job(second), &w.plan());
        let reason = waiting.unwrap().reason.to_string();
        let found = if w.run_plan().contains(&second) { goes } else { &reason };
        assert_eq!(found, expected, "{kind} after {steps:?}");
    }
}

#[test]
fn after_with_minutes_counts_from_the_start() {
    let mut w = world().build();
    let first = w.submit(&job());
    let second = w.submit(&job().after(&format!("after:{first}+2")));
    assert_eq!(w.run_plan(), [first]);
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(120)));
    w.wait(119);
    assert!(w.run_plan().is_empty());
    w.wait(1);
    assert_eq!(w.run_plan(), [second]);
}

#[test]
fn all_terms_or_any_of_them() {
    let mut w = world().build();
    let (a, b) = (w.submit(&job()), w.submit(&job()));
    let all = w.submit(&job().after(&format!("afterok:{a}:{b}")));
    let any = w.submit(&job().after(&format!("afterok:{a}?afterok:{b}")));
    w.run_plan();
    w.exit(a, 0);
    assert_eq!(w.run_plan(), [any]);
    w.exit(b, 0);
    assert_eq!(w.run_plan(), [all]);
}

#[test]
fn a_whole_array_and_one_task_of_it() {
    let mut w = world().nodes(1).cpus(2).build();
    let array = w.submit(&job().array(0, 2, 0));
    let whole = w.submit(&job().after(&format!("afterok:{array}")));
    let task = w.submit(&job().after(&format!("afterok:{array}_1")));
    let spoilt = w.submit(&job().after(&format!("afternotok:{array}_1")));
    let started = w.run_plan();
    assert_eq!(started.len(), 2);
    w.exit(started[1], 0);
    let next = w.run_plan();
    assert_eq!(next, [array], "the last task has the base id");
    w.exit(started[0], 0);
    assert_eq!(w.run_plan(), [task]);
    w.exit(array, 0);
    assert_eq!(w.run_plan(), [whole]);
    let waiting = w.cluster.waiting(Unit::Job(spoilt), &w.plan()).unwrap();
    assert_eq!(waiting.reason.to_string(), "DependencyNeverSatisfied");
}

#[test]
fn a_completed_task_whose_record_is_gone_still_counts_as_completed() {
    let mut w = world().nodes(1).cpus(1).build();
    let array = w.submit(&job().array(0, 1, 1));
    let first = w.run_plan()[0];
    w.exit(first, 0);
    w.wait(400);
    w.execute(Command::Retire(vec![Unit::Job(first)])).unwrap();
    assert!(w.cluster.job(first).is_none());
    let ok = w.submit(&job().after(&format!("afterok:{array}_0")));
    let not_ok = w.submit(&job().after(&format!("afternotok:{array}_0")));
    let reason = |id| w.cluster.waiting(Unit::Job(id), &w.plan()).unwrap().reason.to_string();
    assert_eq!(reason(not_ok), "DependencyNeverSatisfied");
    assert_ne!(reason(ok), "DependencyNeverSatisfied");
}

#[test]
fn a_job_that_is_named_stays_and_a_purged_one_counts_as_met() {
    let mut w = world().build();
    let first = w.submit(&job());
    let second = w.submit(&job().after(&format!("afterok:{first}")).spec(|s| s.hold = true));
    w.run_plan();
    w.exit(first, 0);
    w.wait(400);
    assert_eq!(w.cluster.retirable(w.now).count(), 0);
    w.execute(Command::Retire(vec![Unit::Job(first)])).unwrap();
    assert!(w.cluster.job(first).is_some(), "a dependency names it");
    w.cancel(user(1000), Target::Id(second));
    w.execute(Command::Retire(vec![Unit::Job(first)])).unwrap();
    assert!(w.cluster.job(first).is_none());
    let third = w.submit(&job().after(&format!("afternotok:{first}")));
    assert_eq!(w.run_plan(), [third]);
}

#[test]
fn what_can_never_come_is_cancelled_where_that_was_asked() {
    let mut w = world().build();
    let first = w.submit(&job());
    let after = job().after(&format!("afterok:{first}"));
    let waits = w.submit(&after);
    let killed = w.submit(&after.clone().spec(|s| s.kill_on_invalid_dep = true));
    let array = w.submit(&after.spec(|s| s.kill_on_invalid_dep = true).array(0, 9, 0));
    w.cancel(user(1000), Target::Id(first));
    assert_eq!(w.cluster.next_wake(), Some(w.now));
    w.wait(0);
    assert_eq!(w.state(waits), JobState::Pending);
    assert_eq!(w.state(killed), JobState::Cancelled);
    assert_eq!(w.job(killed).reason.unwrap().to_string(), "DependencyNeverSatisfied");
    assert!(w.cluster.array(array).unwrap().pending.is_empty());
    assert_eq!(w.cluster.array(array).unwrap().cancelled.len(), 10);
}

#[test]
fn a_circle_is_refused() {
    let mut w = world().build();
    let a = w.submit(&job());
    let b = w.submit(&job().after(&format!("afterok:{a}")));
    let array = w.submit(&job().array(0, 3, 0).after(&format!("afterok:{b}")));
    let on = |id: JobId| JobUpdate {
        dependency: Some(Dependency::parse(&format!("afterany:{id}")).unwrap()),
        ..JobUpdate::default()
    };
    for (job, other) in [(a, a), (a, b), (a, array), (array, array), (b, array)] {
        let why = w.update(admin(), Target::Id(job), on(other)).expect("it is a circle");
        assert_eq!(why.kind(), "CircularDependency", "{job} on {other}");
    }
    let task = Target::Tasks(array, IndexSet::from_range(1, 1, 1));
    assert!(w.update(admin(), task, on(array)).is_some());
    assert_eq!(w.cluster.job_count(), 2, "the refused task is no record of its own");
    let future = JobId(w.cluster.next_job_id());
    assert_eq!(w.update(admin(), Target::Id(a), on(future)).unwrap().kind(), "Malformed");
    assert_eq!(w.update(admin(), Target::Id(b), on(a)), None);
}

#[test]
fn a_launch_that_never_happened_was_no_start() {
    let mut w = world().build();
    let first = w.submit(&job());
    let second = w.submit(&job().after(&format!("after:{first}")).spec(|s| s.hold = true));
    w.run_plan();
    w.report(first, AttemptPhase::NeverStarted);
    let waiting = w.cluster.dependency_state(&w.job(second).spec.dependency);
    assert_eq!(waiting, penstock_core::cluster::DependencyState::Waits);
}
