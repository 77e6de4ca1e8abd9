//! What does a cancel, a requeue or an update do in each stage of a job?

use penstock_core::command::{AttemptPhase, JobUpdate, OrderKind, SignalOrder, Target};
use penstock_core::model::{Details, EndCause, Hold, RunResult, RunStage};
use penstock_core::{Command, Reply};
use penstock_vocab::{ExitCode, GresName, JobId, JobState, Mib, Walltime};

use crate::common::{World, admin, job, refusal_of, user, world};

/// How far a job has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Waits,
    Held,
    Allocated,
    Launched,
    Over,
}

fn at(w: &mut World, stage: Stage) -> JobId {
    let id = w.submit(&job().spec(|s| s.hold = matches!(stage, Stage::Held)));
    if matches!(stage, Stage::Allocated | Stage::Launched | Stage::Over) {
        w.run_plan();
    }
    if matches!(stage, Stage::Launched | Stage::Over) {
        w.running(id);
    }
    if matches!(stage, Stage::Over) {
        w.exit(id, 0);
    }
    w.orders.clear();
    id
}

#[test]
fn a_cancel_in_each_stage() {
    let end = OrderKind::Terminate(EndCause::Cancelled);
    let cases: [(Stage, Option<&str>, Vec<OrderKind>); 5] = [
        (Stage::Waits, None, vec![]),
        (Stage::Held, None, vec![]),
        (Stage::Allocated, None, vec![end]),
        (Stage::Launched, None, vec![end]),
        (Stage::Over, Some("AlreadyDone"), vec![]),
    ];
    for (stage, refusal, orders) in cases {
        let mut w = world().build();
        let id = at(&mut w, stage);
        let why = w.cancel(user(1000), Target::Id(id));
        assert_eq!(why.as_ref().map(|why| why.kind()), refusal, "{stage:?}");
        assert_eq!(w.take_orders(id), orders, "{stage:?}");
        if refusal.is_none() {
            assert_eq!(w.state(id), JobState::Cancelled);
            assert_eq!(w.job(id).is_over(), orders.is_empty(), "what runs holds its node");
        }
    }
}

#[test]
fn a_cancelled_job_is_over_when_its_node_says_so() {
    let phases = [
        AttemptPhase::NeverStarted,
        AttemptPhase::Ended(Box::default()),
        AttemptPhase::Ended(Box::new(RunResult { lost: true, ..RunResult::default() })),
        AttemptPhase::Ended(Box::new(RunResult { time_limit: true, ..RunResult::default() })),
    ];
    for phase in phases {
        let mut w = world().build();
        let id = at(&mut w, Stage::Allocated);
        w.cancel(user(1000), Target::Id(id));
        w.report(id, phase.clone());
        assert!(w.job(id).is_over(), "{phase:?}");
        assert_eq!(w.state(id), JobState::Cancelled);
        assert_eq!(w.job(id).run.as_ref().unwrap().ended_by, Some(user(1000).uid));
        assert!(w.take_orders(id).contains(&OrderKind::Acknowledge));
    }
}

#[test]
fn others_may_not_touch_a_job() {
    let mut w = world().build();
    let id = at(&mut w, Stage::Launched);
    let text = format!("job {id} belongs to uid 1000; you are uid 7");
    let signal = SignalOrder { signal: 10, batch_only: false, full: false };
    let name = JobUpdate { name: Some("x".into()), ..JobUpdate::default() };
    let target = || vec![Target::Id(id)];
    let commands = [
        Command::Cancel(user(7), target()),
        Command::Signal(user(7), target(), signal),
        Command::Requeue { caller: user(7), targets: target(), hold: false },
        Command::UpdateJob(user(7), target(), Box::new(name)),
    ];
    for command in commands {
        let reply = w.execute(command).unwrap().reply;
        assert_eq!(refusal_of(&reply).unwrap().to_string(), text);
    }
}

#[test]
fn ends_are_told_as_slurm_tells_them() {
    let ended = |result: RunResult| AttemptPhase::Ended(Box::new(result));
    let of = RunResult::default;
    let cases = [
        (of(), JobState::Completed, "0:0", None),
        (
            RunResult { exit: ExitCode::exited(3), ..of() },
            JobState::Failed,
            "3:0",
            Some("NonZeroExitCode"),
        ),
        (
            RunResult { out_of_memory: true, ..of() },
            JobState::OutOfMemory,
            "0:125",
            Some("OutOfMemory"),
        ),
        (RunResult { time_limit: true, ..of() }, JobState::Timeout, "0:0", Some("TimeLimit")),
        (
            RunResult { launch_error: "no such directory".into(), ..of() },
            JobState::Failed,
            "0:53",
            Some("JobLaunchFailure"),
        ),
        (RunResult { lost: true, ..of() }, JobState::NodeFail, "0:0", Some("NodeDown")),
    ];
    for (result, state, exit, reason) in cases {
        let mut w = world().build();
        let id = w.submit(&job().spec(|s| s.requeue = Some(false)));
        w.run_plan();
        w.running(id);
        w.report(id, ended(result.clone()));
        let job = w.job(id);
        assert_eq!(job.state, state, "{result:?}");
        assert_eq!(job.run.as_ref().unwrap().exit.to_string(), exit, "{result:?}");
        assert_eq!(job.reason.map(|reason| reason.to_string()).as_deref(), reason);
        assert!(w.active().is_empty());
    }
}

#[test]
fn a_requeue_in_each_stage() {
    for (stage, refusal) in [
        (Stage::Waits, Some("NotRunning")),
        (Stage::Held, Some("NotRunning")),
        (Stage::Allocated, None),
        (Stage::Launched, None),
        (Stage::Over, None),
    ] {
        let mut w = world().build();
        let id = at(&mut w, stage);
        let why = w.requeue(user(1000), Target::Id(id), false);
        assert_eq!(why.as_ref().map(|why| why.kind()), refusal, "{stage:?}");
        if refusal.is_some() {
            continue;
        }
        if !matches!(stage, Stage::Over) {
            assert_eq!(w.take_orders(id), [OrderKind::Terminate(EndCause::Requeue)]);
            assert!(w.job(id).active_run().is_some(), "it holds its node until that is proven");
            w.exit(id, 1);
        }
        let record = w.job(id);
        assert_eq!((record.state, record.restarts), (JobState::Pending, 1));
        assert_eq!(record.earlier_runs.len(), 1);
        assert!(w.run_plan().is_empty(), "not before the delay is over");
        w.wait(10);
        assert_eq!(w.run_plan(), [id]);
        assert_eq!(w.job(id).active_run().unwrap().attempt.0, 2);
    }
}

#[test]
fn a_requeue_takes_a_cancel_back_and_may_hold() {
    let mut w = world().build();
    let id = at(&mut w, Stage::Launched);
    w.cancel(user(1000), Target::Id(id));
    assert_eq!(w.requeue(user(1000), Target::Id(id), true), None);
    w.exit(id, 0);
    let record = w.job(id);
    assert_eq!((record.state, record.hold), (JobState::Pending, Hold::User));
    assert_eq!(record.cancelled_by, None);
}

#[test]
fn no_requeue_is_kept() {
    let mut w = world().build();
    let id = w.submit(&job().spec(|s| s.requeue = Some(false)));
    w.run_plan();
    let why = w.requeue(admin(), Target::Id(id), false).unwrap();
    assert_eq!(why.to_string(), format!("job {id} was submitted with --no-requeue"));
    w.running(id);
    w.report(id, AttemptPhase::Ended(Box::new(RunResult { lost: true, ..RunResult::default() })));
    assert_eq!(w.state(id), JobState::NodeFail);
}

#[test]
fn a_job_that_is_requeued_too_often_is_held() {
    let mut w = world().policy(|policy| policy.max_requeues = 1).build();
    let id = w.submit(&job());
    for _ in 0..2 {
        w.wait(10);
        assert_eq!(w.run_plan(), [id]);
        w.requeue(admin(), Target::Id(id), false);
        w.exit(id, 0);
    }
    assert_eq!(w.job(id).hold, Hold::Admin);
    assert_eq!(w.job(id).reason.unwrap().to_string(), "JobHoldMaxRequeue");
}

#[test]
fn a_requeued_task_is_no_longer_counted_as_ended() {
    for status in [0, 1] {
        let mut w = world().nodes(1).build();
        let array = w.submit(&job().array(0, 1, 0));
        let first = w.run_plan()[0];
        w.exit(first, status);
        w.requeue(user(1000), Target::Job(first), false);
        let record = w.cluster.array(array).unwrap();
        assert_eq!((record.completed, record.failed.len()), (0, 0));
    }
    // Of a whole array, what runs.
    let mut w = world().nodes(2).build();
    let array = w.submit(&job().array(0, 20, 0));
    let nothing = w.requeue(user(1000), Target::Id(array), false).unwrap();
    assert_eq!(nothing.kind(), "NotRunning");
    assert_eq!(w.run_plan().len(), 8);
    assert_eq!(w.requeue(user(1000), Target::Id(array), false), None);
    assert_eq!(w.take_orders(array).len(), 0);
    let ending = |stage| matches!(stage, RunStage::Ending(EndCause::Requeue));
    assert!(w.cluster.jobs().all(|job| ending(job.active_run().unwrap().stage)));
}

#[test]
fn what_may_be_changed_depends_on_the_stage_and_on_who_asks() {
    let of = JobUpdate::default;
    let limit = |minutes| Some(Walltime::from_minutes(minutes));
    let cases = [
        ("lower", JobUpdate { time_limit: limit(5), ..of() }, None, None),
        ("raise", JobUpdate { time_limit: limit(50), ..of() }, Some("TimeLimitRaise"), None),
        ("name", JobUpdate { name: Some("x".into()), ..of() }, None, None),
        ("nothing", of(), Some("NoChange"), Some("NoChange")),
        ("tasks", JobUpdate { ntasks: Some(2), ..of() }, Some("NotPending"), Some("NotPending")),
        (
            "priority",
            JobUpdate { priority: Some(9), ..of() },
            Some("NotPending"),
            Some("NotPending"),
        ),
    ];
    for (name, update, by_user, by_admin) in cases {
        for (caller, expected) in [(user(1000), by_user), (admin(), by_admin)] {
            let mut w = world().build();
            let id = w.submit(&job().minutes(10));
            w.run_plan();
            w.running(id);
            let command =
                Command::UpdateJob(caller, vec![Target::Id(id)], Box::new(update.clone()));
            let kind = match w.execute(command) {
                Ok(outcome) => refusal_of(&outcome.reply).map(|why| why.kind().to_owned()),
                Err(refusal) => Some(refusal.kind().to_owned()),
            };
            assert_eq!(kind.as_deref(), expected, "{name}");
        }
    }
}

#[test]
fn a_new_limit_reaches_the_node_with_its_number() {
    let mut w = world().build();
    let id = w.submit(&job().minutes(10));
    w.run_plan();
    w.running(id);
    w.orders.clear();
    let less = JobUpdate { time_limit_delta: Some(-120), ..JobUpdate::default() };
    assert_eq!(w.update(user(1000), Target::Id(id), less), None);
    assert_eq!(w.take_orders(id), [OrderKind::SetLimit]);
    assert_eq!((w.job(id).time_limit, w.job(id).limit_serial), (Walltime::Limited(480), 1));
}

#[test]
fn a_waiting_job_is_checked_again_when_it_is_changed() {
    let mut w = world().nodes(2).cpus(4).build();
    let id = w.submit(&job());
    let of = JobUpdate::default;
    let gres = penstock_vocab::GresRequest { name: GresName::gpu(), count: 1 };
    for (update, kind) in [
        (JobUpdate { ntasks: Some(9), ..of() }, "NeverFits"),
        (JobUpdate { mem_per_node: Some(Mib(9_999)), ..of() }, "MemoryNeverFits"),
        (JobUpdate { nodes: Some((3, 2)), ..of() }, "Malformed"),
        (JobUpdate { gres: Some(vec![gres]), ..of() }, "InvalidGres"),
        (JobUpdate { priority: Some(1), ..of() }, "AccessDenied"),
        (JobUpdate { nice: Some(-1), ..of() }, "AccessDenied"),
    ] {
        assert_eq!(w.update(user(1000), Target::Id(id), update).unwrap().kind(), kind);
    }
    assert_eq!(w.update(user(1000), Target::Id(id), JobUpdate { ntasks: Some(8), ..of() }), None);
    assert_eq!(w.run_plan(), [id]);
    assert_eq!(w.job(id).active_run().unwrap().cpu_count(), 8);
}

#[test]
fn what_an_admin_once_gave_does_not_bar_the_owner_from_other_changes() {
    let closed = |p: &mut penstock_core::model::Partition| p.allow_groups = vec!["staff".into()];
    let mut w = world().partition("staff", closed).build();
    let mut request = job().partition(&["staff"]);
    request.groups = vec!["staff".into()];
    let id = w.submit(&request);
    let nice = JobUpdate { nice: Some(-5), ..JobUpdate::default() };
    assert_eq!(w.update(admin(), Target::Id(id), nice), None);
    let tasks = JobUpdate { ntasks: Some(2), ..JobUpdate::default() };
    assert_eq!(w.update(user(1000), Target::Id(id), tasks), None);
}

#[test]
fn a_plan_made_before_a_change_is_refused() {
    let mut w = world().nodes(1).cpus(4).build();
    let id = w.submit(&job());
    let lines = w.plan().starts;
    let stale = Reply::Started { started: 0, refused: 1 };
    let more = JobUpdate { ntasks: Some(3), ..JobUpdate::default() };
    w.update(user(1000), Target::Id(id), more);
    assert_eq!(w.execute(Command::Start(lines)).unwrap().reply, stale);
    let lines = w.plan().starts;
    w.node_action(1, penstock_core::command::NodeAction::Drain);
    assert_eq!(w.execute(Command::Start(lines)).unwrap().reply, stale);
    // A line that names a node twice would give its CPUs out twice.
    w.node_action(1, penstock_core::command::NodeAction::Resume);
    let mut lines = w.plan().starts;
    lines[0].shares = [&lines[0].shares[..], &lines[0].shares[..]].concat().into();
    assert_eq!(w.execute(Command::Start(lines)).unwrap().reply, stale);
}

#[test]
fn a_signal_goes_to_what_runs() {
    let mut w = world().build();
    let id = at(&mut w, Stage::Launched);
    let order = SignalOrder { signal: 12, batch_only: true, full: false };
    w.execute(Command::Signal(user(1000), vec![Target::Id(id)], order)).unwrap();
    assert_eq!(w.take_orders(id), [OrderKind::Signal(order)]);
    let waits = w.submit(&job().spec(|s| s.hold = true));
    let reply =
        w.execute(Command::Signal(user(1000), vec![Target::Id(waits)], order)).unwrap().reply;
    assert_eq!(refusal_of(&reply).unwrap().kind(), "NotRunning");
}

#[test]
fn details_travel_with_the_job() {
    let mut w = world().build();
    let details = Details { work_dir: "/home/a".into(), ..Details::default() };
    let id = w.submit(&job().spec(|s| s.details = details.clone().into()));
    let out = JobUpdate { stdout: Some("log".into()), ..JobUpdate::default() };
    assert_eq!(w.update(user(1000), Target::Id(id), out), None);
    let job = w.job(id);
    assert_eq!((&*job.spec.details.work_dir, &*job.spec.details.stdout), ("/home/a", "log"));
}
