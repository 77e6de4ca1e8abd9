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
    let waiting = w.cluster.dependency_state(Unit::Job(second));
    assert_eq!(waiting, penstock_core::cluster::DependencyState::Waits);
}

fn named(name: &str) -> crate::common::JobBuilder {
    let name = name.into();
    job().spec(|spec| spec.name = name)
}

#[test]
fn a_singleton_starts_once_all_earlier_ones_of_its_name_have_ended() {
    let mut w = world().build();
    let plain = w.submit(&named("a"));
    let first = w.submit(&named("a").after("singleton"));
    let second = w.submit(&named("a").after("singleton"));
    let other = w.submit(&named("b").after("singleton"));
    let stranger = w.submit(&named("a").after("singleton").by(user(2000)));
    assert_eq!(w.run_plan(), [plain, other, stranger], "another name, another user");
    assert_eq!(w.cluster.unmet(Unit::Job(first)), "singleton(unfulfilled)");
    let reason = w.cluster.waiting(Unit::Job(first), &w.plan()).unwrap();
    assert_eq!(reason.reason.to_string(), "Dependency");
    w.exit(plain, 1);
    assert_eq!(w.run_plan(), [first], "however it ended");
    // One that is submitted without the word runs beside it, and is waited for.
    let free = w.submit(&named("a"));
    assert_eq!(w.run_plan(), [free]);
    w.exit(first, 0);
    assert!(w.run_plan().is_empty(), "the one without the word still runs");
    w.exit(free, 0);
    assert_eq!(w.run_plan(), [second]);
}

#[test]
fn an_earlier_one_that_waits_again_goes_first() {
    let mut w = world().build();
    let first = w.submit(&named("a").after("singleton"));
    let second = w.submit(&named("a").after("singleton"));
    assert_eq!(w.run_plan(), [first]);
    w.requeue(user(1000), Target::Id(first), false);
    w.exit(first, 1);
    assert!(w.run_plan().is_empty(), "the first waits for its delay, the second for the first");
    w.wait(20);
    assert_eq!(w.run_plan(), [first]);
    w.cancel(user(1000), Target::Id(first));
    assert!(w.run_plan().is_empty());
    w.exit(first, 1);
    assert_eq!(w.run_plan(), [second]);
}

#[test]
fn tasks_of_a_singleton_array_run_one_after_another() {
    let mut w = world().build();
    let array = w.submit(&named("a").after("singleton").array(0, 2, 0));
    let later = w.submit(&named("a").after("singleton"));
    for _ in 0..3 {
        let started = w.run_plan();
        assert_eq!(started.len(), 1, "{started:?}");
        assert_eq!(w.job(started[0]).array.unwrap().base, array);
        w.exit(started[0], 0);
    }
    assert_eq!(w.run_plan(), [later]);
}

#[test]
fn a_new_name_is_a_new_place_in_line() {
    let mut w = world().build();
    let first = w.submit(&named("a").spec(|spec| spec.hold = true));
    let second = w.submit(&named("a").after("singleton"));
    assert!(w.run_plan().is_empty(), "an earlier one that is held is an earlier one");
    let name = JobUpdate { name: Some("b".into()), ..JobUpdate::default() };
    assert_eq!(w.update(user(1000), Target::Id(first), name), None);
    assert_eq!(w.run_plan(), [second]);
}

#[test]
fn a_singleton_that_an_earlier_one_waits_for_is_a_circle() {
    let mut w = world().build();
    let first = w.submit(&named("a"));
    let second = w.submit(&named("a").after("singleton"));
    let on = |text: &str| JobUpdate {
        dependency: Some(Dependency::parse(text).unwrap()),
        ..JobUpdate::default()
    };
    let why = w.update(user(1000), Target::Id(first), on(&format!("afterany:{second}")));
    assert_eq!(why.unwrap().kind(), "CircularDependency");
    let third = w.submit(&named("a").after(&format!("after:{second}")));
    assert_eq!(w.update(user(1000), Target::Id(third), on("singleton")), None);
}

#[test]
fn a_hundred_thousand_of_one_name_are_cheap() {
    let mut w = world().build();
    let one = named("a").after("singleton");
    let command = |many| Command::SubmitMany(user(1000), vec![one.submission(); many]);
    // Without the checks of the world, which look at everything.
    for _ in 0..2_200 {
        w.cluster.execute(w.now, command(penstock_core::command::MAX_SPECS)).unwrap();
    }
    assert_eq!(w.cluster.queue().count(), 1);
    let lines = w.plan().starts;
    assert_eq!(lines.len(), 1);
    w.cluster.execute(w.now, Command::Start(lines)).unwrap();
    assert_eq!(w.cluster.queue().count(), 0);
}

#[test]
fn each_task_goes_after_its_twin() {
    let mut w = world().nodes(1).cpus(3).build();
    let first = w.submit(&job().array(0, 3, 3));
    let second = w.submit(&job().array(0, 3, 0).after(&format!("aftercorr:{first}")));
    let ids = w.run_plan();
    assert_eq!(ids.len(), 3);
    assert_eq!(
        w.cluster.waiting(Unit::Array(second), &w.plan()).unwrap().reason.to_string(),
        "Dependency"
    );
    w.exit(ids[1], 0);
    // The first array goes on with its last task, the second begins with task 1.
    w.exit(ids[2], 1);
    let started = w.run_plan();
    let tasks: Vec<_> = started.iter().map(|id| w.job(*id).array.unwrap()).collect();
    let found: Vec<_> = tasks.iter().map(|task| (task.base, task.index.0)).collect();
    assert!(found.contains(&(first, 3)) && found.contains(&(second, 1)), "{found:?}");
    let mine = started.iter().find(|id| w.job(**id).array.unwrap().base == second).unwrap();
    w.exit(*mine, 0);
    assert!(w.run_plan().is_empty(), "task 2 never can, tasks 0 and 3 wait");
    w.exit(ids[0], 0);
    let started = w.run_plan();
    assert_eq!(w.job(started[0]).array.unwrap().index.0, 0);
    let last = *w.active().iter().find(|id| w.job(**id).array.unwrap().base == first).unwrap();
    w.exit(last, 1);
    assert_eq!(
        w.cluster.waiting(Unit::Array(second), &w.plan()).unwrap().reason.to_string(),
        "DependencyNeverSatisfied"
    );
}

#[test]
fn tasks_whose_twin_failed_are_cancelled_where_that_was_asked() {
    let mut w = world().nodes(1).cpus(2).build();
    let first = w.submit(&job().array(0, 9, 1));
    let after = job().array(0, 9, 0).after(&format!("aftercorr:{first}"));
    let second = w.submit(&after.spec(|spec| spec.kill_on_invalid_dep = true));
    let started = w.run_plan();
    w.exit(started[0], 1);
    w.wait(0);
    let array = w.cluster.array(second).unwrap();
    assert_eq!(array.cancelled.iter().collect::<Vec<_>>(), [0]);
    assert_eq!(array.pending.len(), 9);
}

#[test]
fn a_twin_that_runs_again_or_is_gone() {
    let mut w = world().nodes(1).cpus(1).build();
    let first = w.submit(&job().array(0, 1, 1));
    let task = w.run_plan()[0];
    w.exit(task, 0);
    let after = |text: &str| job().after(text).array(0, 1, 0);
    let second = w.submit(&after(&format!("aftercorr:{first}")).spec(|s| s.priority = None));
    assert_eq!(
        w.cluster.startable_tasks(w.cluster.array(second).unwrap()).collect::<Vec<_>>(),
        [0]
    );
    w.requeue(user(1000), Target::Job(task), false);
    assert_eq!(w.cluster.startable_tasks(w.cluster.array(second).unwrap()).count(), 0);
    // A task that the other array does not have waits for nothing, and neither does any if the other
    // is no longer known.
    let more = w.submit(&job().array(0, 5, 0).after(&format!("aftercorr:{first}")));
    let open: Vec<_> = w.cluster.startable_tasks(w.cluster.array(more).unwrap()).collect();
    assert_eq!(open, [2, 3, 4, 5]);
    let either = w.submit(&after(&format!("aftercorr:{first}?afterany:{task}")));
    assert_eq!(w.cluster.startable_tasks(w.cluster.array(either).unwrap()).count(), 0);
}
