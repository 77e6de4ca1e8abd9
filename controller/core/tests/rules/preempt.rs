//! How does a job make room, and stand still?

use penstock_core::Command;
use penstock_core::command::{AttemptPhase, JobUpdate, OrderKind, PreemptLine, Target, Unit};
use penstock_core::model::{EndCause, Hold, PreemptBy, PreemptMode, RunResult, RunStage};
use penstock_vocab::{ExitCode, JobId, JobState, Millis, Walltime};

use crate::common::{Caller, World, admin, job, refusal_of, user, world};

/// A node of four CPUs, jobs of `low` on it, and a job in `high` that waits for all of it.
fn contest(mode: PreemptMode, grace: u32) -> (World, Vec<JobId>, JobId) {
    let mut w = world()
        .nodes(1)
        .scheduling(|s| {
            s.preemption.by = PreemptBy::PartitionPriority;
            s.preemption.mode = mode;
        })
        .partition("high", |p| p.priority_tier = 9)
        .main(|p| p.grace_secs = grace)
        .build();
    let small = job().tasks(2).memory(500);
    let low = vec![w.submit(&small), w.submit(&small)];
    assert_eq!(w.run_plan(), low);
    low.iter().for_each(|id| w.running(*id));
    let high = w.submit(&job().tasks(4).memory(500).partition(&["high"]));
    w.orders.clear();
    (w, low, high)
}

fn preempt(w: &mut World, victim: JobId, unit: JobId, mode: PreemptMode) -> Option<String> {
    let line = PreemptLine { victim, for_unit: Unit::Job(unit), mode, grace_secs: 0 };
    let reply = w.execute(Command::Preempt(vec![line])).unwrap().reply;
    refusal_of(&reply).map(|why| why.to_string())
}

#[test]
fn a_victim_is_warned_and_ends_after_its_grace() {
    let (mut w, low, high) = contest(PreemptMode::Requeue, 30);
    assert_eq!(preempt(&mut w, low[0], high, PreemptMode::Requeue), None);
    let signals: Vec<_> = w
        .take_orders(low[0])
        .into_iter()
        .map(|kind| match kind {
            OrderKind::Signal(order) if order.full => order.signal,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(signals, [18, 15]);
    assert_eq!(w.state(low[0]), JobState::Running);
    assert_eq!(w.job(low[0]).ends_by(w.now), Some(w.now.plus_secs(30)));
    let again = preempt(&mut w, low[0], high, PreemptMode::Requeue).unwrap();
    assert!(again.contains("makes room already"), "{again}");
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(30)));
    // The controller dies meanwhile.
    w.wait(29);
    w.cluster = w.restored();
    w.register(
        1,
        low.iter().map(|id| crate::common::says(*id, 1, AttemptPhase::Running)).collect(),
    );
    w.take_orders(low[0]);
    w.wait(1);
    let cause = EndCause::PreemptedRequeue;
    assert_eq!(w.take_orders(low[0]), [OrderKind::Terminate(cause)]);
    w.exit(low[0], 1);
    let job = w.job(low[0]);
    assert_eq!((job.state, job.restarts), (JobState::Pending, 1));
    assert_eq!(job.earlier_runs[0].end_state, Some(JobState::Preempted));
}

#[test]
fn what_becomes_of_a_victim() {
    let may_not = |w: &mut World, id: JobId| {
        let update = JobUpdate { requeue: Some(false), ..JobUpdate::default() };
        assert_eq!(w.update(user(1000), Target::Id(id), update), None);
    };
    for (mode, asked, requeues, ends) in [
        (PreemptMode::Requeue, PreemptMode::Requeue, true, JobState::Pending),
        (PreemptMode::Requeue, PreemptMode::Cancel, true, JobState::Pending),
        (PreemptMode::Requeue, PreemptMode::Requeue, false, JobState::Preempted),
        (PreemptMode::Cancel, PreemptMode::Cancel, true, JobState::Preempted),
        (PreemptMode::Cancel, PreemptMode::Requeue, true, JobState::Running),
        (PreemptMode::Cancel, PreemptMode::Suspend, true, JobState::Running),
        (PreemptMode::Off, PreemptMode::Cancel, true, JobState::Running),
        (PreemptMode::Suspend, PreemptMode::Suspend, true, JobState::Suspended),
    ] {
        let (mut w, low, high) = contest(mode, 0);
        if !requeues {
            may_not(&mut w, low[1]);
        }
        let refused = preempt(&mut w, low[1], high, asked).is_some();
        assert_eq!(refused, ends == JobState::Running, "{mode:?} {asked:?}");
        if matches!(w.job(low[1]).active_run().unwrap().stage, RunStage::Ending(_)) {
            w.exit(low[1], 1);
        }
        assert_eq!(w.state(low[1]), ends, "{mode:?} {asked:?} {requeues}");
    }
}

#[test]
fn who_may_not_be_preempted() {
    let (mut w, low, high) = contest(PreemptMode::Cancel, 0);
    let other = w.submit(&job().tasks(3));
    let why = preempt(&mut w, low[0], other, PreemptMode::Cancel).unwrap();
    assert!(why.contains("by that job"), "{why}");
    let mut config = (**w.cluster.config()).clone();
    config.scheduling.preemption.exempt_secs = 100;
    w.execute(Command::Configure(config.into())).unwrap();
    assert!(preempt(&mut w, low[0], high, PreemptMode::Cancel).is_some(), "it is exempt");
    w.wait(100);
    w.execute(Command::SetHold(admin(), vec![Target::Id(high)], Hold::Admin)).unwrap();
    let why = preempt(&mut w, low[0], high, PreemptMode::Cancel).unwrap();
    assert!(why.contains("nobody waits"), "{why}");
    w.execute(Command::SetHold(admin(), vec![Target::Id(high)], Hold::None)).unwrap();
    assert_eq!(preempt(&mut w, low[0], high, PreemptMode::Cancel), None);
    assert_eq!(
        preempt(&mut w, JobId(99), high, PreemptMode::Cancel).unwrap(),
        "there is no job 99"
    );
}

#[test]
fn a_victim_that_takes_the_warning_for_its_end_was_preempted_all_the_same() {
    for (status, state) in [(143, JobState::Pending), (0, JobState::Completed)] {
        let (mut w, low, high) = contest(PreemptMode::Requeue, 30);
        preempt(&mut w, low[0], high, PreemptMode::Requeue);
        w.exit(low[0], status);
        assert_eq!(w.state(low[0]), state);
    }
}

#[test]
fn who_stood_aside_goes_on_when_the_place_is_free() {
    let (mut w, low, high) = contest(PreemptMode::Suspend, 0);
    for id in &low {
        assert_eq!(preempt(&mut w, *id, high, PreemptMode::Suspend), None);
        assert_eq!(w.state(*id), JobState::Suspended);
    }
    // One command later it has not taken its own place back: the other one needs all of it.
    assert_eq!(w.run_plan(), [high]);
    w.wait(50);
    assert_eq!(w.state(low[0]), JobState::Suspended);
    w.exit(high, 0);
    for id in &low {
        assert_eq!(w.state(*id), JobState::Running, "{id}");
        assert!(w.job(*id).active_run().unwrap().suspended_ms >= 50_000);
    }
}

#[test]
fn a_place_that_nobody_takes_goes_back() {
    let (mut w, low, high) = contest(PreemptMode::Suspend, 0);
    assert_eq!(preempt(&mut w, low[0], high, PreemptMode::Suspend), None);
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(60)));
    w.wait(59);
    assert_eq!(w.state(low[0]), JobState::Suspended);
    w.wait(1);
    assert_eq!(w.state(low[0]), JobState::Running);
    // Nor does one stand aside for whom no longer waits.
    assert_eq!(preempt(&mut w, low[0], high, PreemptMode::Suspend), None);
    w.cancel(user(1000), Target::Id(high));
    assert_eq!(w.state(low[0]), JobState::Running);
}

fn suspend(w: &mut World, who: Caller, id: JobId, suspend: bool) -> Option<String> {
    let reply = w.execute(Command::Suspend(who, vec![Target::Id(id)], suspend)).unwrap().reply;
    refusal_of(&reply).map(|why| why.slurm_text().to_owned())
}

#[test]
fn an_admin_suspends_and_resumes() {
    let mut w = world().nodes(1).build();
    let id = w.submit(&job().tasks(4).memory(3_000).minutes(10));
    assert_eq!(suspend(&mut w, admin(), id, true).unwrap(), "Job is not running");
    w.run_plan();
    w.running(id);
    w.wait(60);
    w.take_orders(id);
    let owner = Command::Suspend(user(1000), vec![Target::Id(id)], true);
    assert!(w.execute(owner).is_err(), "its owner may not");
    assert_eq!(suspend(&mut w, admin(), id, false).unwrap(), "Job is not suspended");
    assert_eq!(suspend(&mut w, admin(), id, true), None);
    assert_eq!(w.take_orders(id), [OrderKind::Suspend]);
    let twice = "Job is current suspended, requested operation disabled";
    assert_eq!(suspend(&mut w, admin(), id, true).unwrap(), twice);
    // Its CPUs are free, its memory is not.
    let used = w.cluster.node(w.index(1)).unwrap().1.clone();
    assert_eq!((used.cpu_count(), used.memory.0), (0, 3_000));
    let big = w.submit(&job().memory(2_000));
    let small = w.submit(&job().tasks(1).memory(500).spec(|s| s.priority = None));
    w.wait(600);
    assert_eq!(w.state(id), JobState::Suspended, "its limit stands still");
    assert_eq!(w.job(id).active_run().unwrap().elapsed(w.now), Millis(60_000));
    assert_eq!(w.job(id).ends_by(w.now), Some(w.now.plus_secs(540)));
    w.cancel(user(1000), Target::Id(big));
    assert_eq!(w.run_plan(), [small]);
    assert_eq!(suspend(&mut w, admin(), id, false).unwrap(), "Requested nodes are busy");
    w.exit(small, 0);
    assert_eq!(w.state(id), JobState::Suspended, "nobody said that it goes on");
    assert_eq!(suspend(&mut w, admin(), id, false), None);
    assert_eq!(w.take_orders(id), [OrderKind::Resume]);
    assert_eq!(w.job(id).active_run().unwrap().suspended_ms, 600_000);
    assert_eq!(w.job(id).ends_by(w.now), Some(w.now.plus_secs(540)));
}

#[test]
fn a_node_hears_again_who_stands_still() {
    let mut w = world().nodes(1).build();
    let id = w.submit(&job());
    w.run_plan();
    suspend(&mut w, admin(), id, true);
    w.take_orders(id);
    w.running(id);
    assert_eq!(w.take_orders(id), [OrderKind::Suspend], "it was launched after that was said");
    let says = vec![crate::common::says(id, 1, AttemptPhase::Running)];
    w.cluster = w.restored();
    w.register(1, says.clone());
    assert_eq!(w.take_orders(id), [OrderKind::Suspend]);
    w.wait(5);
    suspend(&mut w, admin(), id, false);
    w.register(1, says);
    assert!(w.take_orders(id).contains(&OrderKind::Resume));
}

#[test]
fn a_suspended_job_may_end_in_any_way() {
    for what in 0..4 {
        let mut w = world().nodes(1).build();
        let id = w.submit(&job().tasks(4).memory(1_000));
        w.run_plan();
        w.running(id);
        suspend(&mut w, admin(), id, true);
        let other = w.submit(&job().tasks(4).memory(1_000));
        assert_eq!(w.run_plan(), [other]);
        let state = match what {
            0 => {
                w.cancel(user(1000), Target::Id(id));
                w.exit(id, 1);
                JobState::Cancelled
            }
            1 => {
                w.requeue(user(1000), Target::Id(id), false);
                w.exit(id, 1);
                JobState::Pending
            }
            2 => {
                w.exit(id, 0);
                JobState::Completed
            }
            _ => {
                let result = RunResult { lost: true, ..RunResult::default() };
                w.report(id, AttemptPhase::Ended(Box::new(result)));
                JobState::Pending
            }
        };
        assert_eq!(w.state(id), state);
        let used = w.cluster.node(w.index(1)).unwrap().1.clone();
        assert_eq!(used.cpu_count(), 4, "those of the other one");
    }
}

#[test]
fn a_job_says_that_it_saved_its_state() {
    let mut w = world().build();
    let id = w.submit(&job());
    assert!(w.execute(Command::CheckpointDone(user(1000), id)).is_err());
    w.run_plan();
    w.wait(60);
    assert!(w.execute(Command::CheckpointDone(user(7), id)).is_err());
    w.execute(Command::CheckpointDone(user(1000), id)).unwrap();
    assert_eq!(w.job(id).active_run().unwrap().checkpoint, Some(w.now));
}

#[test]
fn a_job_that_can_no_longer_end_by_its_deadline_is_cancelled() {
    let mut w = world().nodes(1).build();
    let deadline = w.now.plus_secs(3_600);
    let by = |minutes| job().minutes(minutes).spec(|spec| spec.deadline = Some(deadline));
    let why = w.try_submit(&by(61)).unwrap_err();
    assert_eq!(why.kind(), "DeadlineTooEarly", "{why}");
    let blocker = w.submit(&job().tasks(4));
    assert_eq!(w.run_plan(), [blocker]);
    let long = w.submit(&by(30));
    let short = w.submit(&by(30).spec(|spec| spec.min_time = Some(Walltime::from_minutes(10))));
    let array = w.submit(&by(50).array(0, 9, 0));
    assert_eq!(w.cluster.next_wake().map(|at| at.0), Some(w.now.plus_secs(600).0 + 1));
    w.wait(601);
    let record = w.cluster.array(array).unwrap();
    assert!(record.pending.is_empty());
    assert_eq!(record.reason.unwrap().to_string(), "DeadLine");
    w.wait(1_200);
    assert_eq!(w.state(long), JobState::Deadline);
    assert_eq!(w.state(short), JobState::Pending);
    w.exit(blocker, 0);
    assert_eq!(w.run_plan(), [short]);
    let left = w.job(short).time_limit.as_secs().unwrap();
    assert_eq!(left, 3_600 - 1_801, "what is left of the hour");
    w.running(short);
    w.take_orders(short);
    w.wait(left - 1);
    assert_eq!(w.take_orders(short), []);
    w.wait(1);
    assert_eq!(w.take_orders(short), [OrderKind::Terminate(EndCause::Deadline)]);
    w.exit(short, 1);
    assert_eq!(w.state(short), JobState::Deadline);
}

#[test]
fn a_limit_that_a_deadline_cut_grows_back_when_the_job_waits_again() {
    let mut w = world().nodes(1).build();
    let deadline = w.now.plus_secs(3_600);
    let id = w.submit(&job().spec(|spec| spec.deadline = Some(deadline)));
    w.wait(600);
    w.run_plan();
    assert_eq!(w.job(id).time_limit, Walltime::Limited(3_000));
    w.requeue(user(1000), Target::Id(id), false);
    w.exit(id, 1);
    assert_eq!(w.job(id).time_limit, Walltime::Unlimited);
    w.wait(1_000);
    assert_eq!(w.run_plan(), [id]);
    let exit = ExitCode::exited(1);
    let result = RunResult { exit, time_limit: true, ..RunResult::default() };
    w.advance(2_000);
    w.report(id, AttemptPhase::Ended(Box::new(result)));
    assert_eq!(w.state(id), JobState::Deadline, "its limit was the deadline");
    // A new deadline, and one that is too early.
    let id = w.submit(&job().minutes(10).spec(|spec| spec.hold = true));
    let at = |secs| JobUpdate { deadline: Some(w.now.plus_secs(secs)), ..JobUpdate::default() };
    let (early, fine) = (at(599), at(600));
    assert_eq!(w.update(user(1000), Target::Id(id), early).unwrap().kind(), "DeadlineTooEarly");
    assert_eq!(w.update(user(1000), Target::Id(id), fine), None);
}

#[test]
fn licences_are_known_and_not_given_out_twice() {
    let licensed = |count| job().shape(|shape| shape.licenses = [("matlab".into(), count)].into());
    let mut w = world().scheduling(|s| s.licenses = [("matlab".into(), 3)].into()).build();
    for count in [0, 4] {
        let why = w.try_submit(&licensed(count)).unwrap_err();
        assert_eq!(why.slurm_text(), "Invalid license specification");
    }
    let other = job().shape(|shape| shape.licenses = [("ansys".into(), 1)].into());
    let why = w.try_submit(&other).unwrap_err().to_string();
    assert_eq!(why, "there is no licence ansys; there are matlab");
    let ids: Vec<_> = (0..3).map(|_| w.submit(&licensed(1))).collect();
    let lines = w.plan().starts;
    let more = w.submit(&licensed(2));
    w.execute(Command::Start(lines)).unwrap();
    assert_eq!(w.cluster.licenses_in_use("matlab"), 3);
    let shares = w.job(ids[0]).active_run().unwrap().shares.clone();
    w.exit(ids[0], 0);
    let line = penstock_core::command::StartLine {
        unit: Unit::Job(more),
        task: None,
        partition: crate::common::partition_name("main"),
        shares,
        backfill: false,
        limit: None,
    };
    let start = |w: &mut World| w.execute(Command::Start(vec![line.clone()])).unwrap().reply;
    let refused = penstock_core::Reply::Started { started: 0, refused: 1 };
    assert_eq!(start(&mut w), refused);
    w.exit(ids[1], 0);
    assert_eq!(start(&mut w), penstock_core::Reply::Started { started: 1, refused: 0 });
    suspend(&mut w, admin(), more, true);
    assert_eq!(w.cluster.licenses_in_use("matlab"), 3, "one that stands still keeps them");
    let update = JobUpdate { licenses: Some(vec![("matlab".into(), 9)]), ..JobUpdate::default() };
    let waits = w.submit(&licensed(1));
    assert_eq!(w.update(user(1000), Target::Id(waits), update).unwrap().kind(), "InvalidLicense");
}
