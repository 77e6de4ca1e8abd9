//! Steps: where they run, what they hold, how they and their jobs end.

use std::sync::Arc;

use penstock_core::command::{AttemptPhase, NodeAction, OrderKind, SignalOrder, Target, Unit};
use penstock_core::model::{
    Distribution, EndCause, MemoryRequest, RunResult, StepKey, StepNumber, StepPhase,
};
use penstock_core::{Command, Refusal, Reply};
use penstock_vocab::{ExitCode, GresName, GresRequest, JobId, JobState, Mib, Walltime};

use crate::common::steps::{ended, number, step, step_says};
use crate::common::{World, admin, asking, job, refusal_of, user, world};

fn terminated(world: &mut World, id: JobId) -> Vec<(u32, u32, EndCause)> {
    let orders = world.step_orders(id).into_iter();
    let ends = orders.filter_map(|(step, node, kind)| match kind {
        OrderKind::Terminate(cause) => Some((step, node, cause)),
        _ => None,
    });
    ends.collect()
}

fn lost() -> AttemptPhase {
    AttemptPhase::Ended(Box::new(RunResult { lost: true, ..RunResult::default() }))
}

#[test]
fn a_step_has_all_cpus_of_its_nodes_and_the_next_waits() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(8));
    w.orders.clear();
    let first = w.step(id, &step().nodes(1));
    assert_eq!(number(first), 0);
    assert_eq!(w.layout(first), [(1, vec![0])]);
    assert_eq!(w.the_step(first).cpu_count(), 4);
    assert_eq!(w.step_orders(id), [(0, 1, OrderKind::Launch)]);
    let second = w.step(id, &step().nodes(1));
    assert_eq!(w.layout(second), [(2, vec![0])]);
    let refused = w.try_step(id, &step().nodes(1)).unwrap_err();
    assert!(matches!(refused, Refusal::StepBusy(_)), "{refused}");
    assert_eq!(refused.slurm_text(), "Requested nodes are busy");
    w.step_runs(first);
    w.step_exits(first, 0);
    let third = w.step(id, &step().nodes(1));
    assert_eq!((number(third), w.layout(third)), (2, vec![(1, vec![0])]));
}

#[test]
fn without_a_count_there_are_as_many_tasks_as_the_job_has_or_one_a_node() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(8));
    for (asked, expect) in [
        (step(), vec![(1, vec![0, 1, 2, 3]), (2, vec![4, 5, 6, 7])]),
        (step().nodes(2), vec![(1, vec![0]), (2, vec![1])]),
        (step().tasks(2), vec![(1, vec![0, 1])]),
        (step().tasks(2).nodes(2), vec![(1, vec![0]), (2, vec![1])]),
        (step().tasks(4).nodes(2).by(Distribution::Cyclic), vec![(1, vec![0, 2]), (2, vec![1, 3])]),
        (
            step().nodes(2).with(|s| s.ntasks_per_node = Some(2)),
            vec![(1, vec![0, 1]), (2, vec![2, 3])],
        ),
        (step().with(|s| s.ntasks_per_node = Some(1)), vec![(1, vec![0]), (2, vec![1])]),
        (step().tasks(1).with(|s| s.relative = Some(1)), vec![(2, vec![0])]),
        (step().tasks(1).on(&[2]), vec![(2, vec![0])]),
        (step().tasks(3).on(&[2]), vec![(2, vec![0, 1, 2])]),
        (step().tasks(5).on(&[2]), vec![(1, vec![0, 1, 2, 3]), (2, vec![4])]),
        (step().tasks(9).nodes(1).with(|s| s.overcommit = true), vec![(1, (0..9).collect())]),
    ] {
        let key = w.step(id, &asked);
        assert_eq!(w.layout(key), expect, "{:?}", asked.0);
        w.step_exits(key, 0);
    }
}

#[test]
fn arbitrary_tasks_go_where_they_are_named() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(8));
    let named = |nodes: &[u32]| {
        let nodes = nodes.iter().map(|n| crate::common::node_name(*n)).collect();
        step().by(Distribution::Arbitrary).with(|spec| spec.task_nodes = nodes)
    };
    let key = w.step(id, &named(&[2, 1, 2]));
    assert_eq!(w.layout(key), [(1, vec![1]), (2, vec![0, 2])]);
    w.step_exits(key, 0);
    let refused = w.try_step(id, &named(&[1, 1, 1, 1, 1])).unwrap_err();
    assert!(matches!(refused, Refusal::TooManyProcessors(_)), "{refused}");
    let refused = w.try_step(id, &named(&[1, 3])).unwrap_err();
    assert!(matches!(refused, Refusal::NeverFits(_)), "{refused}");
    let refused = w.try_step(id, &named(&[1]).tasks(2)).unwrap_err();
    assert!(matches!(refused, Refusal::Malformed { .. }), "{refused}");
}

#[test]
fn what_never_fits_is_said_at_once_also_while_the_job_is_full() {
    let mut w = world().nodes(3).build();
    let id = w.started(&job().nodes(2).tasks(8).memory(1_000));
    let full = w.step(id, &step());
    let table = [
        (step().tasks(9), "More processors requested than permitted"),
        (step().tasks(2).cpus(5), "More processors requested than permitted"),
        (step().nodes(3), "Requested node configuration is not available"),
        (step().on(&[3]), "Requested node configuration is not available"),
        (step().with(|s| s.relative = Some(2)), "Requested node configuration is not available"),
        (step().memory(1_001), "Requested node configuration is not available"),
        (step().gres("gpu:1"), "Invalid generic resource (gres) specification"),
        (step().tasks(0), "Node count specification invalid"),
        (step().tasks(8), "Requested nodes are busy"),
    ];
    for (asked, expect) in table {
        let refused = w.try_step(id, &asked).unwrap_err();
        assert_eq!(refused.slurm_text(), expect, "{:?}: {refused}", asked.0);
    }
    w.step_exits(full, 0);
    assert!(w.try_step(id, &step().tasks(8)).is_ok());
}

#[test]
fn exact_steps_share_a_node_and_overlapping_ones_mind_nobody() {
    let mut w = world().nodes(1).build();
    let id = w.started(&job().tasks(4).memory(1_000));
    let cpus =
        |w: &World, key| -> Vec<usize> { w.the_step(key).shares[0].share.cpus.ones().collect() };
    let first = w.step(id, &step().tasks(1).exact().memory(400));
    let second = w.step(id, &step().tasks(1).cpus(2).memory(400));
    assert_eq!((cpus(&w, first), cpus(&w, second)), (vec![0], vec![1, 2]));
    assert_eq!(w.the_step(first).shares[0].share.memory, Mib(400));
    let refused = w.try_step(id, &step().tasks(1).exact().memory(400)).unwrap_err();
    assert!(refused.to_string().contains("memory"), "{refused}");
    assert!(matches!(w.try_step(id, &step()), Err(Refusal::StepBusy(_))));
    // It asks for none and may use what there is.
    let third = w.step(id, &step().tasks(1).exact());
    assert_eq!((cpus(&w, third), w.the_step(third).shares[0].share.memory), (vec![3], Mib(1_000)));
    let beside = w.step(id, &step().tasks(4).overlap());
    assert_eq!(cpus(&w, beside).len(), 4);
    w.step_exits(second, 0);
    let beside = w.step(id, &step().tasks(1).exact().overlap());
    assert_eq!(cpus(&w, beside), [1], "a free CPU first");
    assert!(w.try_step(id, &step().tasks(2).exact()).is_ok(), "who overlaps holds nothing");
}

#[test]
fn steps_get_whole_cores() {
    let mut w = world().nodes(1).cpus(8).threads(2).build();
    let id = w.started(&job().tasks(8));
    let key = w.step(id, &step().tasks(1).exact());
    assert_eq!(w.the_step(key).cpu_count(), 2);
    let key = w.step(id, &step().tasks(3).cpus(1));
    assert_eq!(w.the_step(key).cpu_count(), 4);
    assert!(w.try_step(id, &step().tasks(3).exact()).is_err(), "one core is left");
}

#[test]
fn devices_go_to_steps_by_name_and_by_default_all_of_them() {
    let mut w = world().nodes(2).gpus(4).build();
    let id = w.started(&job().nodes(2).tasks(8).gres("gpu:4"));
    let gpus = |w: &World, key: StepKey| -> Vec<Vec<u32>> {
        let step = w.the_step(key);
        let of = |part: &penstock_core::model::StepShare| {
            part.share.gres.iter().flat_map(|gres| gres.ids.to_vec()).collect()
        };
        step.shares.iter().map(of).collect()
    };
    let one = w.step(id, &step().tasks(1).exact().gres("gpu:1"));
    assert_eq!(gpus(&w, one), [[0]]);
    let rest = w.step(id, &step().tasks(1).exact().on(&[1]).gres("gpu:3"));
    assert_eq!(gpus(&w, rest), [[1, 2, 3]]);
    let none = w.step(id, &step().tasks(1).exact().on(&[1]).gres("none"));
    assert_eq!(gpus(&w, none), [[0; 0]]);
    let refused = w.try_step(id, &step().tasks(1).exact().on(&[1])).unwrap_err();
    assert!(refused.to_string().contains("generic resources"), "{refused}");
    let gpu = |count| GresRequest { name: GresName::gpu(), count };
    let each = step().tasks(2).exact().with(|spec| spec.gpus_per_task = Some(gpu(2)));
    let each = w.step(id, &each);
    assert_eq!((w.layout(each)[0].0, gpus(&w, each)), (2, vec![vec![0, 1, 2, 3]]));
    for key in [one, rest, none, each] {
        w.step_exits(key, 0);
    }
    let total = step().tasks(2).exact().with(|spec| spec.gpus_total = Some(gpu(6)));
    let total = w.step(id, &total);
    assert_eq!(gpus(&w, total), [vec![0, 1, 2], vec![0, 1, 2]]);
    let never = step().tasks(1).with(|spec| spec.gpus_total = Some(gpu(9)));
    assert!(matches!(w.try_step(id, &never), Err(Refusal::Malformed { .. })));
}

#[test]
fn a_step_ends_by_what_its_nodes_say() {
    let signaled = |signal| {
        let exit = ExitCode::signaled(signal);
        AttemptPhase::Ended(Box::new(RunResult { exit, ..RunResult::default() }))
    };
    let oom = RunResult { out_of_memory: true, ..RunResult::default() };
    let limit =
        RunResult { time_limit: true, exit: ExitCode::signaled(15), ..RunResult::default() };
    let table = [
        (ended(0), ended(0), JobState::Completed, ExitCode::SUCCESS),
        (ended(0), ended(3), JobState::Failed, ExitCode::exited(3)),
        (ended(3), signaled(9), JobState::Failed, ExitCode::exited(3)),
        (signaled(9), ended(0), JobState::Cancelled, ExitCode::signaled(9)),
        (
            AttemptPhase::Ended(Box::new(oom)),
            ended(1),
            JobState::OutOfMemory,
            ExitCode::OUT_OF_MEMORY,
        ),
        (AttemptPhase::Ended(Box::new(limit)), ended(0), JobState::Timeout, ExitCode::signaled(15)),
        (lost(), ended(0), JobState::NodeFail, ExitCode::SUCCESS),
        (AttemptPhase::NeverStarted, ended(0), JobState::Failed, ExitCode::signaled(53)),
    ];
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2));
    for (first, second, state, exit) in table {
        let asked = step().nodes(2).with(|spec| spec.time_limit = Some(Walltime::from_minutes(1)));
        let key = w.step(id, &asked);
        w.step_runs(key);
        let text = format!("{first:?}");
        w.step_report(key, 1, first);
        assert!(w.the_step(key).is_live());
        w.step_report(key, 2, second);
        let step = w.the_step(key);
        assert_eq!((step.state, step.exit), (state, exit), "{text}");
        assert_eq!(step.end_time, Some(w.now));
    }
    w.exit(id, 0);
    let run = w.job(id).run.clone().unwrap();
    assert_eq!((run.exit, run.derived_exit), (ExitCode::SUCCESS, ExitCode::exited(3)));
}

#[test]
fn where_one_part_fails_to_start_or_is_lost_the_others_are_ended() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2));
    w.orders.clear();
    for (phase, cause) in
        [(AttemptPhase::NeverStarted, EndCause::LaunchFailed), (lost(), EndCause::NodeFail)]
    {
        let key = w.step(id, &step().nodes(2));
        w.step_report(key, 2, AttemptPhase::Running);
        w.step_report(key, 1, phase);
        assert_eq!(terminated(&mut w, id), [(number(key), 2, cause)]);
        w.step_exit(key, 2, 0);
        assert!(w.the_step(key).state.is_finished());
    }
    let key = w.step(id, &step().nodes(2).with(|spec| spec.no_kill = true));
    w.step_runs(key);
    w.step_report(key, 1, lost());
    assert_eq!(terminated(&mut w, id), [], "it goes on without that node");
}

#[test]
fn a_job_ends_when_its_script_and_all_parts_of_its_steps_have() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2));
    w.running(id);
    let key = w.step(id, &step().nodes(2));
    w.step_runs(key);
    w.orders.clear();
    w.exit(id, 3);
    let run = w.job(id).active_run().cloned().expect("its step still runs");
    assert!(run.is_ending());
    assert_eq!(terminated(&mut w, id), [(0, 1, EndCause::Exited), (0, 2, EndCause::Exited)]);
    assert!(matches!(w.try_step(id, &step()), Err(Refusal::AlreadyDone(_))));
    let refusal = w.cancel(user(1000), Target::Id(id));
    assert!(matches!(refusal, Some(Refusal::AlreadyDone(_))), "{refusal:?}");
    // The same report again changes nothing.
    let report = crate::common::says(id, 1, ended(0));
    let node = w.node(1);
    let (node, session) = (node.name.clone(), node.session.unwrap());
    w.execute(Command::Report { node, session, report }).unwrap();
    w.step_exit(key, 1, 0);
    assert!(!w.job(id).is_over());
    let restored = w.restored();
    assert!(restored.check().is_empty());
    assert!(!restored.job(id).unwrap().is_over());
    w.step_report(key, 2, {
        let exit = ExitCode::signaled(15);
        AttemptPhase::Ended(Box::new(RunResult { exit, ..RunResult::default() }))
    });
    let job = w.job(id);
    assert!(job.is_over());
    assert_eq!(
        (job.state, job.run.as_ref().unwrap().exit),
        (JobState::Failed, ExitCode::exited(3))
    );
    assert_eq!(w.the_step(key).state, JobState::Cancelled);
}

#[test]
fn cancel_requeue_and_limits_reach_every_part() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2).minutes(10));
    w.running(id);
    let key = w.step(id, &step().nodes(2));
    w.step_report(key, 1, AttemptPhase::Running);
    w.orders.clear();
    let longer = penstock_core::command::JobUpdate {
        time_limit: Some(Walltime::from_minutes(20)),
        ..Default::default()
    };
    w.update(admin(), Target::Id(id), longer);
    assert_eq!(w.step_orders(id), [(0, 1, OrderKind::SetLimit), (0, 2, OrderKind::SetLimit)]);
    w.execute(Command::Suspend(admin(), vec![Target::Id(id)], true)).unwrap();
    assert_eq!(w.step_orders(id), [(0, 1, OrderKind::Suspend), (0, 2, OrderKind::Suspend)]);
    let busy = w.try_step(id, &step()).unwrap_err();
    assert!(busy.to_string().contains("suspended"), "{busy}");
    w.step_report(key, 2, AttemptPhase::Running);
    assert_eq!(w.step_orders(id), [(0, 2, OrderKind::Suspend)], "it was not there before");
    w.execute(Command::Suspend(admin(), vec![Target::Id(id)], false)).unwrap();
    assert_eq!(w.step_orders(id), [(0, 1, OrderKind::Resume), (0, 2, OrderKind::Resume)]);
    let signal = SignalOrder { signal: 10, batch_only: false, full: false };
    w.execute(Command::Signal(user(1000), vec![Target::Id(id)], signal)).unwrap();
    assert_eq!(w.step_orders(id).len(), 2);
    let batch = SignalOrder { batch_only: true, ..signal };
    w.execute(Command::Signal(user(1000), vec![Target::Id(id)], batch)).unwrap();
    assert_eq!(w.step_orders(id), []);
    assert_eq!(w.requeue(user(1000), Target::Id(id), false), None);
    assert_eq!(terminated(&mut w, id), [(0, 1, EndCause::Requeue), (0, 2, EndCause::Requeue)]);
    w.exit(id, 1);
    w.step_exits(key, 1);
    assert_eq!(w.state(id), JobState::Pending);
    // Numbers begin anew with the next attempt.
    w.wait(60);
    w.run_plan();
    let again = w.step(id, &step());
    assert_eq!((number(again), again.attempt.0), (0, 2));
    assert_eq!(w.cancel(user(1000), Target::Id(id)), None);
    w.exit(id, 0);
    w.step_exits(again, 0);
    assert_eq!(w.state(id), JobState::Cancelled);
    assert_eq!(w.the_step(key).state, JobState::Cancelled);
}

#[test]
fn one_step_is_cancelled_and_signalled_by_its_number() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2));
    let key = w.step(id, &step().nodes(1));
    let other = w.step(id, &step().nodes(1));
    w.orders.clear();
    let target = |number| vec![Target::Step(id, StepNumber(number))];
    let signal = SignalOrder { signal: 10, batch_only: false, full: true };
    w.execute(Command::Signal(user(1000), target(0), signal)).unwrap();
    assert_eq!(w.step_orders(id), [(0, 1, OrderKind::Signal(signal))]);
    let reply = w.execute(Command::Cancel(user(7), target(0))).unwrap().reply;
    assert!(matches!(refusal_of(&reply), Some(Refusal::AccessDenied(_))));
    let reply = w.execute(Command::Cancel(user(1000), target(9))).unwrap().reply;
    assert!(matches!(refusal_of(&reply), Some(Refusal::InvalidStep(..))));
    let reply = w.execute(Command::Cancel(admin(), target(0))).unwrap().reply;
    assert_eq!(refusal_of(&reply), None);
    assert_eq!(w.step_orders(id), [(0, 1, OrderKind::Terminate(EndCause::Cancelled))]);
    w.step_report(key, 1, AttemptPhase::NeverStarted);
    let step = w.the_step(key);
    assert_eq!((step.state, step.ended_by), (JobState::Cancelled, Some(admin().uid)));
    assert!(w.the_step(other).is_live());
    assert_eq!(w.state(id), JobState::Running);
    let reply = w.execute(Command::Cancel(user(1000), target(0))).unwrap().reply;
    assert!(matches!(refusal_of(&reply), Some(Refusal::AlreadyDone(_))));
    let reply = w.execute(Command::SetHold(user(1000), target(1), Default::default())).unwrap();
    assert!(matches!(refusal_of(&reply.reply), Some(Refusal::Malformed { .. })));
}

#[test]
fn a_repeated_request_makes_no_second_step() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2));
    let spec = Arc::new(step().nodes(1).0);
    let command = || Command::CreateStep(asking(user(1000), 5), id, Arc::clone(&spec), 1);
    let first = w.execute(command()).unwrap().reply;
    let again = w.execute(command()).unwrap().reply;
    assert_eq!(first, again);
    assert!(matches!(first, Reply::StepCreated(_)));
    assert_eq!(w.cluster.steps_of(id).count(), 1);
    let refused = w.execute(Command::CreateStep(user(7), id, spec, 2)).unwrap_err();
    assert!(matches!(refused, Refusal::AccessDenied(_)));
}

#[test]
fn a_node_that_comes_back_and_its_steps_are_brought_together() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(8));
    w.running(id);
    let asked = || step().tasks(1).exact().on(&[2]);
    let (runs, known, unlaunched) =
        (w.step(id, &asked()), w.step(id, &asked()), w.step(id, &asked()));
    w.step_report(runs, 2, AttemptPhase::Running);
    w.step_report(known, 2, AttemptPhase::Running);
    w.disconnect(2);
    w.orders.clear();
    w.register(2, vec![step_says(known, AttemptPhase::Running)]);
    assert_eq!(w.step_orders(id), [(2, 2, OrderKind::Launch)], "that launch may be lost");
    assert_eq!(w.the_step(runs).state, JobState::NodeFail, "nothing is left of it there");
    assert!(w.the_step(known).is_live() && w.the_step(unlaunched).is_live());
    assert_eq!(w.state(id), JobState::Running);
    let stray = StepKey { number: StepNumber(77), ..known };
    w.disconnect(2);
    w.register(
        2,
        vec![
            step_says(known, AttemptPhase::Running),
            step_says(unlaunched, AttemptPhase::Running),
            step_says(runs, ended(0)),
            step_says(stray, AttemptPhase::Running),
        ],
    );
    let orders = w.step_orders(id);
    assert!(orders.contains(&(0, 2, OrderKind::Acknowledge)), "{orders:?}");
    assert!(orders.contains(&(77, 2, OrderKind::Terminate(EndCause::NodeFail))), "{orders:?}");
    assert_eq!(orders.len(), 2);
    // A reboot ends all of it, and with a node the job.
    w.disconnect(2);
    w.reboot(2, Vec::new());
    assert!(!w.cluster.has_live_steps(id));
    assert!(w.job(id).active_run().unwrap().is_ending());
    w.exit(id, 0);
    assert_eq!(w.state(id), JobState::Pending, "it may be run again");
}

#[test]
fn a_silent_node_keeps_a_job_until_its_parts_are_proven_to_have_ended() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2).spec(|spec| spec.requeue = Some(false)));
    w.running(id);
    let key = w.step(id, &step().nodes(2));
    w.step_runs(key);
    w.silence(2);
    w.node_action(2, NodeAction::Down);
    w.exit(id, 0);
    w.step_exit(key, 1, 0);
    assert!(!w.job(id).is_over(), "nobody knows what runs on the second node");
    w.execute(Command::Fenced { node: crate::common::node_name(2) }).unwrap();
    assert_eq!(w.state(id), JobState::NodeFail);
    assert_eq!(w.the_step(key).state, JobState::NodeFail);
}

#[test]
fn a_job_that_goes_on_without_a_node_loses_the_steps_there_alone() {
    let mut w = world().nodes(3).build();
    let id = w.started(&job().nodes(3).tasks(3).allocation().no_kill());
    let (here, there) = (w.step(id, &step().tasks(1).on(&[1])), w.step(id, &step().nodes(2)));
    w.step_runs(here);
    w.step_runs(there);
    w.disconnect(3);
    w.orders.clear();
    w.reboot(3, Vec::new());
    assert_eq!(terminated(&mut w, id), [(1, 2, EndCause::NodeFail)]);
    w.step_exit(there, 2, 0);
    assert_eq!(w.the_step(there).state, JobState::NodeFail);
    assert!(w.the_step(here).is_live());
    assert_eq!(w.state(id), JobState::Running);
    w.node_action(3, NodeAction::Down);
    assert_eq!(w.state(id), JobState::Running);
    let refused = w.try_step(id, &step().tasks(1).on(&[3])).unwrap_err();
    assert!(matches!(refused, Refusal::NeverFits(_)), "{refused}");
}

#[test]
fn a_job_without_a_script_runs_from_its_start_until_it_is_released() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2).allocation());
    assert_eq!(w.take_orders(id), [], "there is nothing to launch");
    assert_eq!(w.state(id), JobState::Running);
    assert!(w.cluster.allocations().map(|job| job.id).eq([id]));
    let key = w.step(id, &step().nodes(2));
    w.step_runs(key);
    w.orders.clear();
    let release = |by, status| Command::Release(by, id, ExitCode::exited(status));
    assert!(matches!(w.execute(release(user(7), 0)), Err(Refusal::AccessDenied(_))));
    w.execute(release(user(1000), 2)).unwrap();
    assert_eq!(terminated(&mut w, id).len(), 2);
    assert!(!w.job(id).is_over());
    w.execute(release(user(1000), 0)).unwrap();
    w.step_exits(key, 0);
    let job = w.job(id);
    assert_eq!(
        (job.state, job.run.as_ref().unwrap().exit),
        (JobState::Failed, ExitCode::exited(2))
    );
    assert!(w.cluster.allocations().next().is_none());
    let scripted = w.started(&crate::common::job());
    let command = Command::Release(user(1000), scripted, ExitCode::SUCCESS);
    assert!(matches!(w.execute(command), Err(Refusal::NotAnAllocation(_))));
}

#[test]
fn a_job_without_a_script_and_without_steps_ends_at_once_however_it_ends() {
    let mut w = world().build();
    let ask = || job().allocation().minutes(10);
    let id = w.started(&ask());
    assert_eq!(w.cancel(user(1000), Target::Id(id)), None);
    assert_eq!((w.state(id), w.job(id).cancelled_by), (JobState::Cancelled, Some(user(1000).uid)));
    let id = w.started(&ask());
    w.wait(10 * 60);
    assert_eq!(w.state(id), JobState::Timeout);
    let id = w.started(&ask());
    w.execute(Command::Abandoned(vec![id])).unwrap();
    assert_eq!((w.state(id), w.job(id).cancelled_by), (JobState::Cancelled, None));
    let id = w.started(&ask());
    w.node_action(1, NodeAction::Down);
    assert_eq!(w.state(id), JobState::NodeFail, "nobody would hold it if it were run again");
    w.node_action(1, NodeAction::Resume);
    let id = w.started(&ask());
    assert!(matches!(
        w.requeue(user(1000), Target::Id(id), false),
        Some(Refusal::RequeueDisabled(_))
    ));
    let waits = w.submit(&ask());
    w.execute(Command::Release(user(1000), waits, ExitCode::SUCCESS)).unwrap();
    assert_eq!(w.state(waits), JobState::Cancelled);
    let waits = w.submit(&ask());
    w.execute(Command::Abandoned(vec![waits, id])).unwrap();
    assert_eq!((w.state(waits), w.state(id)), (JobState::Cancelled, JobState::Cancelled));
    let array = ask().array(0, 3, 0);
    assert!(matches!(w.try_submit(&array), Err(Refusal::Malformed { .. })));
}

#[test]
fn the_limit_of_a_job_without_a_script_stands_still_with_it() {
    let mut w = world().build();
    let id = w.started(&job().allocation().minutes(10));
    w.wait(5 * 60);
    w.execute(Command::Suspend(admin(), vec![Target::Id(id)], true)).unwrap();
    w.wait(60 * 60);
    assert_eq!(w.state(id), JobState::Suspended);
    w.execute(Command::Suspend(admin(), vec![Target::Id(id)], false)).unwrap();
    w.wait(5 * 60 - 1);
    assert_eq!(w.state(id), JobState::Running);
    w.wait(1);
    assert_eq!(w.state(id), JobState::Timeout);
}

#[test]
fn steps_hear_the_signal_ahead_of_the_limit_once() {
    let mut w = world().build();
    let signal =
        penstock_core::model::SignalRequest { signal: 10, seconds_before: 60, batch_only: false };
    let id = w.started(&job().minutes(10).spec(|spec| spec.signal = Some(signal)));
    w.running(id);
    let key = w.step(id, &step());
    w.step_runs(key);
    w.orders.clear();
    w.wait(9 * 60 - 1);
    assert_eq!(w.step_orders(id), []);
    w.wait(1);
    let sent = w.step_orders(id);
    assert!(matches!(sent[..], [(0, 1, OrderKind::Signal(SignalOrder { signal: 10, .. }))]));
    w.wait(30);
    assert_eq!(w.step_orders(id), []);
}

#[test]
fn a_step_ends_no_later_than_its_job() {
    let mut w = world().build();
    let id = w.started(&job().minutes(10));
    w.advance(4 * 60);
    let short = step().with(|spec| spec.time_limit = Some(Walltime::from_minutes(2)));
    let short = w.step(id, &short.exact());
    let limit = w.job(id).time_limit;
    assert_eq!(w.the_step(short).limit_within(limit), Walltime::from_minutes(2));
    w.step_exits(short, 0);
    let long = w.step(id, &step());
    assert_eq!(w.the_step(long).limit_within(limit), Walltime::from_minutes(6));
    assert_eq!(w.the_step(long).limit_within(Walltime::Unlimited), Walltime::Unlimited);
}

#[test]
fn a_shell_holds_nothing_and_is_not_counted() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(8).allocation());
    let shell = || step().with(|spec| spec.interactive = true);
    let key = w.step(id, &shell());
    assert_eq!(key.number, StepNumber::INTERACTIVE);
    assert_eq!(w.layout(key), [(1, vec![0])]);
    let next = w.step(id, &step());
    assert_eq!(number(next), 0);
    assert_eq!(number(w.step(id, &shell())), 1, "a second one has a number like any step");
}

#[test]
fn a_retired_job_takes_its_steps_along_in_several_commands_if_they_are_many() {
    let mut w = world().build();
    let id = w.started(&job().tasks(1));
    for _ in 0..150 {
        let key = w.step(id, &step());
        w.step_exits(key, 0);
    }
    w.exit(id, 0);
    w.wait(1_000);
    let retire = || Command::Retire(vec![Unit::Job(id)]);
    let outcome = w.execute(retire()).unwrap();
    assert_eq!(outcome.changed.len(), 100);
    assert!(w.cluster.job(id).is_some());
    w.execute(retire()).unwrap();
    assert!(w.cluster.job(id).is_none());
    assert_eq!(w.cluster.steps().count(), 0);
}

#[test]
fn unanswered_orders_of_steps_are_said_again() {
    let mut w = world().build();
    let id = w.started(&job().nodes(2).tasks(2));
    w.running(id);
    let key = w.step(id, &step().nodes(2));
    w.step_report(key, 1, AttemptPhase::Running);
    assert!(w.cluster.overdue_orders(w.now, 30).is_empty());
    w.advance(30);
    let kinds = |w: &World| -> Vec<(u32, Option<u32>, OrderKind)> {
        let orders = w.cluster.overdue_orders(w.now, 30).into_iter();
        orders.map(|(node, order)| (node.0 + 1, order.step.map(|n| n.0), order.kind)).collect()
    };
    assert_eq!(kinds(&w), [(2, Some(0), OrderKind::Launch)]);
    w.cancel(user(1000), Target::Id(id));
    let end = OrderKind::Terminate(EndCause::Cancelled);
    assert_eq!(kinds(&w), [(1, None, end), (1, Some(0), end), (2, Some(0), end)]);
    assert_eq!(w.the_step(key).shares[1].phase, StepPhase::Allocated);
    assert_eq!(w.the_step(key).spec.memory, MemoryRequest::Default);
}
