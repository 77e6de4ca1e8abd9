//! What becomes of the tasks of an array?

use penstock_core::Command;
use penstock_core::command::{JobUpdate, Target, Unit};
use penstock_core::model::Hold;
use penstock_vocab::{IndexSet, JobId, JobState};

use crate::common::{World, admin, job, refusal_of, user, world};

fn pending(w: &World, array: JobId) -> Vec<u32> {
    w.cluster.array(array).unwrap().pending.iter().collect()
}

#[test]
fn a_million_tasks_are_one_record_and_one_number() {
    let mut w = world().build();
    // The user is known from an earlier job.
    let first = w.submit(&job());
    w.cancel(user(1000), Target::Id(first));
    let before = w.cluster.record_keys().count();
    let array = w.submit(&job().array(0, 999_999, 0));
    assert_eq!(w.cluster.record_keys().count(), before + 1, "one record more, the array");
    assert_eq!(w.cluster.next_job_id(), array.0 + 1);
    assert_eq!(w.run_plan().len(), 8);
    assert_eq!(w.cancel(user(1000), Target::Id(array)), None);
    assert_eq!(w.cluster.array(array).unwrap().cancelled.len(), 1_000_000 - 8);
}

#[test]
fn a_task_gets_its_number_when_it_starts_and_the_last_keeps_the_base() {
    let mut w = world().nodes(1).cpus(1).build();
    let array = w.submit(&job().array(3, 5, 0));
    let other = w.submit(&job());
    let mut ids = Vec::new();
    for index in [3, 4, 5] {
        let started = w.run_plan()[0];
        let task = w.job(started).array.unwrap();
        assert_eq!((task.base, task.index.0), (array, index));
        ids.push(started);
        w.exit(started, 0);
    }
    assert_eq!(ids, [JobId(other.0 + 1), JobId(other.0 + 2), array]);
    assert_eq!(w.cluster.array(array).unwrap().completed, 3);
}

#[test]
fn the_throttle_counts_every_task_that_holds_resources() {
    let mut w = world().nodes(2).cpus(4).build();
    let array = w.submit(&job().array(0, 9, 2));
    let started = w.run_plan();
    assert_eq!(started.len(), 2);
    let waiting = w.cluster.waiting(Unit::Array(array), &w.plan()).unwrap();
    assert_eq!(waiting.reason.to_string(), "JobArrayTaskLimit");
    // A task that runs again counts too, and waits for its turn.
    w.requeue(user(1000), Target::Job(started[0]), false);
    w.exit(started[0], 1);
    assert_eq!(w.run_plan().len(), 1);
    w.wait(20);
    assert!(w.run_plan().is_empty(), "two run");
    let waiting = w.cluster.waiting(Unit::Job(started[0]), &w.plan()).unwrap();
    assert_eq!(waiting.reason.to_string(), "JobArrayTaskLimit");
    w.exit(started[1], 0);
    assert_eq!(w.run_plan().len(), 1);
    let more = JobUpdate { throttle: Some(4), ..JobUpdate::default() };
    assert_eq!(w.update(user(1000), Target::Id(array), more), None);
    assert_eq!(w.run_plan().len(), 2);
}

#[test]
fn a_plan_made_before_the_throttle_was_lowered_is_refused() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 9, 4));
    let lines = w.plan().starts;
    let less = JobUpdate { throttle: Some(1), ..JobUpdate::default() };
    w.update(user(1000), Target::Id(array), less);
    let reply = w.execute(Command::Start(lines)).unwrap().reply;
    assert_eq!(reply, penstock_core::Reply::Started { started: 1, refused: 3 });
}

#[test]
fn cancelled_tasks_leave_the_rest() {
    let mut w = world().nodes(1).cpus(2).build();
    let array = w.submit(&job().array(0, 5, 0));
    let started = w.run_plan();
    let some = Target::Tasks(array, IndexSet::from_range(1, 3, 1));
    assert_eq!(w.cancel(user(1000), some), None);
    assert_eq!(pending(&w, array), [4, 5]);
    // What started is a job of its own; the target as such is no error while it runs.
    assert_eq!(w.cancel(user(1000), Target::Tasks(array, IndexSet::from_range(0, 0, 1))), None);
    assert_eq!(w.state(started[0]), JobState::Running);
    assert_eq!(w.cancel(user(1000), Target::Job(started[0])), None);
    assert_eq!(w.state(started[0]), JobState::Cancelled);
    assert_eq!(w.cancel(user(7), Target::Id(array)).unwrap().kind(), "AccessDenied");
    assert_eq!(w.cancel(user(1000), Target::Id(array)), None);
    started.iter().for_each(|id| w.exit(*id, 1));
    assert_eq!(w.cancel(user(1000), Target::Id(array)).unwrap().kind(), "AlreadyDone");
    let record = w.cluster.array(array).unwrap();
    assert_eq!((record.failed.len(), record.cancelled.len(), record.completed), (2, 4, 0));
}

#[test]
fn holding_one_task_makes_it_a_record_of_its_own() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 3, 0));
    let one = Target::Tasks(array, IndexSet::from_range(2, 2, 1));
    let hold = |w: &mut World, target: Target, hold| {
        let command = Command::SetHold(user(1000), vec![target], hold);
        refusal_of(&w.execute(command).unwrap().reply)
    };
    assert_eq!(hold(&mut w, one, Hold::User), None);
    assert_eq!(pending(&w, array), [0, 1, 3]);
    assert_eq!(w.run_plan().len(), 3);
    assert_eq!(hold(&mut w, Target::Id(array), Hold::None), None);
    assert_eq!(w.run_plan().len(), 1);
    let none = Target::Tasks(array, IndexSet::from_range(9, 9, 1));
    assert!(hold(&mut w, none, Hold::User).is_some());
}

fn set_hold(
    w: &mut World,
    who: crate::common::Caller,
    target: Target,
    hold: Hold,
) -> Option<String> {
    let outcome = w.execute(Command::SetHold(who, vec![target], hold)).unwrap();
    assert!(outcome.changed.len() < 10, "{:?}", outcome.changed);
    refusal_of(&outcome.reply).map(|why| why.kind().to_owned())
}

#[test]
fn ranges_of_a_million_tasks_are_held_and_released_in_the_one_record() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 999_999, 4));
    let range = |from, to| Target::Tasks(array, IndexSet::from_range(from, to, 1));
    assert_eq!(set_hold(&mut w, user(1000), range(1, 900_000), Hold::User), None);
    assert_eq!(w.cluster.job_count(), 0);
    let next = |w: &World| -> Vec<u32> {
        w.cluster.startable_tasks(w.cluster.array(array).unwrap()).take(3).collect()
    };
    assert_eq!(next(&w), [0, 900_001, 900_002]);
    assert_eq!(set_hold(&mut w, user(1000), range(400, 500), Hold::None), None);
    assert_eq!(next(&w), [0, 400, 401]);
    // An admin's hold is not the owner's to release.
    assert_eq!(set_hold(&mut w, admin(), range(0, 999_998), Hold::Admin), None);
    assert_eq!(next(&w), [999_999]);
    let denied = Some("AccessDenied".to_owned());
    assert_eq!(set_hold(&mut w, user(1000), range(10, 200), Hold::None), denied);
    assert_eq!(set_hold(&mut w, user(1000), range(5, 1_000), Hold::User), denied);
    assert_eq!(set_hold(&mut w, user(1000), Target::Id(array), Hold::User), None);
    assert_eq!(next(&w), [0; 0]);
    assert!(w.run_plan().is_empty());
    assert_eq!(set_hold(&mut w, user(1000), Target::Id(array), Hold::None), None);
    assert_eq!(next(&w), [999_999], "those of the admin stay");
    assert_eq!(set_hold(&mut w, admin(), range(0, 60), Hold::None), None);
    assert_eq!(w.run_plan().len(), 4);
    assert_eq!(w.cancel(user(1000), range(30, 999_999)), None);
    let record = w.cluster.array(array).unwrap();
    assert_eq!((record.pending.len(), record.held_by_admin.len()), (26, 0));
}

#[test]
fn a_range_released_from_an_array_that_is_held_as_a_whole() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 99_999, 0).spec(|spec| spec.hold = true));
    let range = Target::Tasks(array, IndexSet::from_range(50, 49_999, 1));
    assert_eq!(set_hold(&mut w, user(1000), range, Hold::None), None);
    let started = w.run_plan();
    assert_eq!(w.job(started[0]).array.unwrap().index.0, 50);
    let record = w.cluster.array(array).unwrap();
    assert_eq!((record.hold, record.held.len()), (Hold::None, 50_050));
    let waiting = |w: &World| w.cluster.waiting(Unit::Array(array), &w.plan()).unwrap().reason;
    assert_ne!(waiting(&w).to_string(), "JobHeldUser");
    let rest = Target::Tasks(array, IndexSet::from_range(0, 99_999, 1));
    assert_eq!(set_hold(&mut w, user(1000), rest, Hold::User), None);
    assert_eq!(waiting(&w).to_string(), "JobHeldUser");
}

#[test]
fn starting_and_ending_in_order_keeps_the_record_small() {
    let mut w = world().nodes(1).cpus(60).build();
    // Holes, and every third task fails.
    let tasks = IndexSet::from_range(0, 999_998, 2);
    let mut all = job();
    all.array = Some(penstock_core::model::ArrayRequest { tasks, throttle: 0 });
    let array = w.submit(&all);
    let hole = Target::Tasks(array, IndexSet::from_range(1_000, 300_000, 1));
    assert_eq!(w.cancel(user(1000), hole), None);
    let mut ended = 0u32;
    // Without the checks of the world, which look at every record.
    while ended < 6_000 {
        let lines = w.plan().starts;
        assert!(!lines.is_empty());
        for lines in lines.chunks(penstock_core::command::MAX_STARTS) {
            w.cluster.execute(w.now, Command::Start(lines.to_vec())).unwrap();
        }
        for id in w.active() {
            ended += 1;
            let task = w.job(id);
            let run = task.active_run().unwrap();
            let (node, _) = w.cluster.node(run.batch_node().unwrap()).unwrap();
            let (node, session) = (node.name.clone(), node.session.unwrap());
            let exit = penstock_vocab::ExitCode::exited(u8::from(ended.is_multiple_of(3)));
            let result = penstock_core::model::RunResult { exit, ..Default::default() };
            let phase = penstock_core::command::AttemptPhase::Ended(Box::new(result));
            let report = crate::common::says(id, run.attempt.0, phase);
            w.cluster.execute(w.now, Command::Report { node, session, report }).unwrap();
        }
        let record = w.cluster.array(array).unwrap();
        let runs = [&record.pending, &record.failed, &record.cancelled];
        let runs: usize = runs.iter().map(|set| set.ranges().len()).sum();
        assert!(runs < 600, "{runs} runs after {ended} ends");
        w.now = w.now.plus_secs(301);
        let old: Vec<_> = w.cluster.retirable(w.now).collect();
        w.cluster.execute(w.now, Command::Retire(old)).unwrap();
    }
    let record = w.cluster.array(array).unwrap();
    let listed = record.failed.len() + record.cancelled.len() + u64::from(record.unlisted);
    assert_eq!(listed + u64::from(record.completed) + record.pending.len(), 500_000);
    assert!(w.cluster.check().is_empty());
}

#[test]
fn a_change_of_more_tasks_than_one_command_takes_is_refused_whole() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 99, 0));
    let nice = JobUpdate { nice: Some(3), ..JobUpdate::default() };
    let many = Target::Tasks(array, IndexSet::from_range(0, 60, 1));
    assert_eq!(w.update(user(1000), many, nice.clone()).unwrap().kind(), "TooManyItems");
    assert_eq!(w.cluster.job_count(), 0);
    // Several targets that are too many together: the later ones are refused.
    let part = |first| Target::Tasks(array, IndexSet::from_range(first, first + 39, 1));
    let command = Command::UpdateJob(user(1000), vec![part(0), part(40)], Box::new(nice));
    let outcome = w.execute(command).unwrap();
    assert!(outcome.changed.len() < 100, "{}", outcome.changed.len());
    assert!(refusal_of(&outcome.reply).is_some());
    assert_eq!(w.cluster.job_count(), 40);
}

#[test]
fn an_array_goes_to_the_history_after_its_tasks() {
    let mut w = world().nodes(1).cpus(4).build();
    let array = w.submit(&job().array(0, 1, 0));
    for id in w.run_plan() {
        w.exit(id, 0);
    }
    w.wait(299);
    assert_eq!(w.cluster.retirable(w.now).count(), 0);
    w.wait(1);
    let units: Vec<_> = w.cluster.retirable(w.now).collect();
    assert_eq!(units.len(), 2, "its tasks first: {units:?}");
    w.execute(Command::Retire(units)).unwrap();
    let units: Vec<_> = w.cluster.retirable(w.now).collect();
    assert_eq!(units, [Unit::Array(array)]);
    w.execute(Command::Retire(units)).unwrap();
    assert!(w.cluster.array(array).is_none());
}

#[test]
fn an_array_whose_tasks_run_is_not_over_after_a_restart() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 1, 0));
    w.run_plan();
    w.cluster = w.restored();
    for number in [1, 2] {
        let node = w.index(number);
        let running = |job: &std::sync::Arc<penstock_core::model::Job>| {
            crate::common::says(job.id, 1, penstock_core::command::AttemptPhase::Running)
        };
        let attempts = w.cluster.jobs_on(node).iter().map(running).collect();
        w.register(number, attempts);
    }
    for id in w.active() {
        w.exit(id, 0);
    }
    assert_eq!(w.cluster.array(array).unwrap().completed, 2);
    w.wait(300);
    assert_eq!(w.cluster.retirable(w.now).count(), 2);
}

#[test]
fn a_refused_retire_changes_nothing() {
    let mut w = world().build();
    let array = w.submit(&job().array(0, 1, 0));
    let running = w.run_plan()[0];
    for unit in [Unit::Array(array), Unit::Job(running), Unit::Job(JobId(99))] {
        assert!(w.execute(Command::Retire(vec![unit])).unwrap().changed.is_empty());
    }
    assert_eq!(w.cancel(admin(), Target::Id(array)), None);
}
