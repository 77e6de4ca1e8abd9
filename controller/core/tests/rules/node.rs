//! How do nodes come, go, and come back, and what becomes of what runs there?

use penstock_core::command::{AttemptPhase, NodeAction, NodeUpdate, OrderKind, Target};
use penstock_core::model::{EndCause, Inventory, NodeConfig, RunResult, RunStage};
use penstock_core::{Command, Effect, Refusal, Reply};
use penstock_vocab::{ExitCode, JobId, JobState, Mib, SessionId};

use crate::common::{World, admin, job, node_name, says, user, world};

fn running_on(w: &mut World, number: u32) -> JobId {
    let id = w.submit(&job().on(&[number]));
    w.run_plan();
    w.running(id);
    w.orders.clear();
    id
}

fn ended(status: u8) -> AttemptPhase {
    let exit = ExitCode::exited(status);
    AttemptPhase::Ended(Box::new(RunResult { exit, ..RunResult::default() }))
}

#[test]
fn a_silent_node_is_down_and_its_jobs_stay() {
    let mut w = world().build();
    let id = running_on(&mut w, 1);
    let before = w.job(id);
    w.silence(1);
    let down = w.node(1).down.clone().unwrap();
    assert_eq!((&*down.reason, down.by_silence), ("Not responding", true));
    assert_eq!(w.job(id), before);
    assert_eq!(w.take_orders(id), []);
    assert!(w.run_plan().is_empty());
    // It answers: it is back, and so is its job.
    w.register(1, vec![says(id, 1, AttemptPhase::Running)]);
    assert!(w.node(1).down.is_none());
    assert_eq!(w.job(id), before);
}

#[test]
fn a_connected_or_unknown_node_is_not_silenced() {
    let mut w = world().build();
    w.execute(Command::Silent { node: node_name(1) }).unwrap();
    assert!(w.node(1).down.is_none());
    let refusal = w.execute(Command::Silent { node: node_name(9) }).unwrap_err();
    assert_eq!(refusal.to_string(), "there is no node n9");
}

#[test]
fn a_registration_settles_what_became_of_a_launch() {
    type Say = fn(JobId) -> Vec<penstock_core::command::AttemptReport>;
    type Case = (&'static str, bool, Say, bool, JobState, Vec<OrderKind>);
    let nothing: Say = |_| Vec::new();
    let runs: Say = |id| vec![says(id, 1, AttemptPhase::Running)];
    let over: Say = |id| vec![says(id, 1, ended(0))];
    let never: Say = |id| vec![says(id, 1, AttemptPhase::NeverStarted)];
    let (launched, allocated) = (true, false);
    let launch = OrderKind::Launch;
    let ack = OrderKind::Acknowledge;
    let cases: [Case; 10] = [
        ("runs on", launched, runs, false, JobState::Running, vec![]),
        ("ended meanwhile", launched, over, false, JobState::Completed, vec![ack]),
        ("vanished", launched, nothing, false, JobState::Pending, vec![]),
        ("was rebooted", launched, nothing, true, JobState::Pending, vec![]),
        ("launch got lost", allocated, nothing, false, JobState::Running, vec![launch]),
        ("runs after all", allocated, runs, false, JobState::Running, vec![]),
        ("ran already", allocated, over, false, JobState::Completed, vec![ack]),
        ("never started", allocated, never, false, JobState::Pending, vec![ack]),
        ("rebooted before", allocated, nothing, true, JobState::Pending, vec![]),
        ("ended, rebooted", launched, over, true, JobState::Completed, vec![ack]),
    ];
    for (name, was_launched, say, reboot, state, orders) in cases {
        let mut w = world().build();
        let id = w.submit(&job().on(&[1]));
        w.run_plan();
        if was_launched {
            w.running(id);
        }
        w.disconnect(1);
        w.orders.clear();
        if reboot {
            w.reboot(1, say(id));
        } else {
            w.register(1, say(id));
        }
        assert_eq!(w.state(id), state, "{name}");
        assert_eq!(w.take_orders(id), orders, "{name}");
    }
}

#[test]
fn what_was_wanted_meanwhile_is_told_at_the_registration() {
    let mut w = world().build();
    let id = running_on(&mut w, 1);
    w.disconnect(1);
    w.cancel(user(1000), Target::Id(id));
    w.orders.clear();
    w.register(1, vec![says(id, 1, AttemptPhase::Running)]);
    assert_eq!(w.take_orders(id), [OrderKind::Terminate(EndCause::Cancelled)]);
    // One that the node does not know must not start any more either.
    let other = w.submit(&job().on(&[2]));
    w.run_plan();
    w.disconnect(2);
    w.cancel(user(1000), Target::Id(other));
    w.orders.clear();
    w.register(2, Vec::new());
    assert_eq!(w.take_orders(other), [OrderKind::Terminate(EndCause::Cancelled)]);
}

#[test]
fn strangers_are_ended_and_old_ends_acknowledged() {
    let mut w = world().build();
    let id = running_on(&mut w, 1);
    for (report, order) in [
        (says(JobId(77), 1, AttemptPhase::Running), OrderKind::Terminate(EndCause::NodeFail)),
        (says(id, 7, AttemptPhase::Running), OrderKind::Terminate(EndCause::NodeFail)),
        (says(JobId(77), 1, ended(0)), OrderKind::Acknowledge),
        (says(id, 0, AttemptPhase::NeverStarted), OrderKind::Acknowledge),
    ] {
        w.orders.clear();
        let (node, session) = (node_name(1), w.node(1).session.unwrap());
        let command = Command::Report { node, session, report: report.clone() };
        assert!(w.execute(command).unwrap().changed.is_empty());
        assert_eq!(w.take_orders(report.job), [order]);
    }
    assert_eq!(w.state(id), JobState::Running);
}

#[test]
fn an_old_session_is_not_believed() {
    let mut w = world().build();
    let id = running_on(&mut w, 1);
    let old = w.node(1).session.unwrap();
    w.register(1, vec![says(id, 1, AttemptPhase::Running)]);
    let report = says(id, 1, ended(0));
    let node = node_name(1);
    let refusal =
        w.execute(Command::Report { node: node.clone(), session: old, report }).unwrap_err();
    assert_eq!(refusal, Refusal::OldSession(node.clone()));
    w.execute(Command::Disconnected { node: node.clone(), session: old }).unwrap();
    assert!(w.node(1).session.is_some());
    let (inventory, attempts) = (Box::new(w.inventory.clone()), Vec::new());
    let session = SessionId(0);
    let late = Command::Register { node: node.clone(), session, inventory, attempts };
    assert_eq!(w.execute(late).unwrap_err(), Refusal::OldSession(node));
}

#[test]
fn each_proof_frees_what_a_silent_node_held() {
    type Proof = (&'static str, fn(&mut World));
    let proofs: [Proof; 3] = [
        ("fence", |w| {
            w.execute(Command::Fenced { node: node_name(1) }).unwrap();
        }),
        ("power down", |w| w.node_action(1, NodeAction::PowerDown)),
        ("reboot", |w| {
            w.reboot(1, Vec::new());
        }),
    ];
    for (name, proof) in proofs {
        let mut w = world().build();
        let id = running_on(&mut w, 1);
        w.silence(1);
        proof(&mut w);
        let record = w.job(id);
        assert_eq!(record.state, JobState::Pending, "{name}");
        assert_eq!(record.earlier_runs[0].end_state, Some(JobState::NodeFail), "{name}");
    }
}

#[test]
fn a_node_taken_down_ends_its_jobs_and_a_drained_one_does_not() {
    for (action, ends) in
        [(NodeAction::Drain, false), (NodeAction::Fail, false), (NodeAction::Down, true)]
    {
        let mut w = world().build();
        let id = running_on(&mut w, 1);
        w.node_action(1, action);
        assert!(!w.node(1).accepts_work());
        let stage = w.job(id).active_run().unwrap().stage;
        let ending = RunStage::Ending(EndCause::NodeFail);
        assert_eq!(stage, if ends { ending } else { RunStage::Launched }, "{action:?}");
        w.exit(id, 0);
        assert_eq!(w.state(id), if ends { JobState::Pending } else { JobState::Completed });
        w.register(1, Vec::new());
        assert!(!w.node(1).accepts_work(), "what an admin set stays");
        w.node_action(1, NodeAction::Resume);
        assert!(w.node(1).accepts_work());
        assert_eq!(*w.node(1).admin.reason, *"");
    }
}

#[test]
fn a_node_that_is_powered_down_must_register_anew() {
    let mut w = world().build();
    let names = vec![node_name(1)];
    let action = Some(NodeAction::PowerDown);
    let update = Box::new(NodeUpdate { action, ..NodeUpdate::default() });
    let outcome = w.execute(Command::UpdateNode(admin(), names, update)).unwrap();
    assert!(outcome.effects.contains(&Effect::CutHost("n1".into())));
    w.node_action(1, NodeAction::PowerUp);
    assert!(!w.node(1).accepts_work());
    w.register(1, Vec::new());
    assert!(w.node(1).accepts_work());
}

#[test]
fn changes_of_nodes_are_for_admins_and_need_reasons() {
    let mut w = world().build();
    let change = |w: &mut World, caller, name, update| {
        w.execute(Command::UpdateNode(caller, vec![node_name(name)], Box::new(update)))
            .unwrap_err()
            .to_string()
    };
    let drain = NodeUpdate { action: Some(NodeAction::Drain), ..NodeUpdate::default() };
    let with = NodeUpdate { reason: "x".into(), ..drain.clone() };
    assert_eq!(change(&mut w, user(1), 1, with.clone()), "only admins may change nodes");
    assert!(change(&mut w, admin(), 1, drain).starts_with("a reason is needed"));
    assert_eq!(change(&mut w, admin(), 9, with), "there is no node n9");
}

#[test]
fn a_node_with_less_than_promised_is_drained_with_slurms_words() {
    let promise = NodeConfig {
        name: node_name(3),
        cpus: Some(8),
        memory: None,
        gres: Vec::new(),
        features: vec!["ib".into()],
        weight: 3,
    };
    let mut w = world().build();
    let mut config = (**w.cluster.config()).clone();
    config.nodes.push(promise);
    w.execute(Command::Configure(config.into())).unwrap();
    let big = w.submit(&job().tasks(8).constraint("ib"));
    w.register(3, Vec::new());
    assert!(w.node(3).admin.drain);
    let reason = &w.node(3).admin.reason;
    assert_eq!(**reason, *"Low socket*core*thread count, Low CPUs (4 found, 8 configured)");
    let enough = Inventory { cpus: 8, memory: Mib(8_000), ..w.inventory.clone() };
    w.register_with(3, enough, Vec::new());
    w.node_action(3, NodeAction::Resume);
    assert_eq!(w.run_plan(), [big]);
}

#[test]
fn a_launch_that_fails_by_the_nodes_fault_cools_it_and_the_job_runs_elsewhere() {
    let mut w = world().build();
    let id = w.submit(&job());
    w.run_plan();
    let first = w.job(id).active_run().unwrap().batch_node();
    fail_to_launch(&mut w, id);
    assert_eq!(w.state(id), JobState::Pending);
    assert!(!w.node(1).admin.drain);
    w.wait(10);
    assert_eq!(w.run_plan(), [id]);
    assert_ne!(w.job(id).active_run().unwrap().batch_node(), first);
    assert!(!w.node(1).accepts_work());
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(50)));
    w.wait(50);
    assert!(w.node(1).accepts_work(), "a minute later it may have another");
}

fn fail_to_launch(w: &mut World, id: JobId) {
    let result =
        RunResult { launch_error: "no cgroup".into(), node_fault: true, ..RunResult::default() };
    w.report(id, AttemptPhase::Ended(Box::new(result)));
}

#[test]
fn a_node_that_starts_nothing_is_drained_with_the_jobs_named() {
    for (same, pause, drained) in [(false, 60, true), (true, 60, false), (false, 310, false)] {
        let mut w = world().nodes(1).policy(|p| p.max_requeues = 9).build();
        let mut failed = Vec::new();
        for round in 0..3 {
            if round == 0 || !same {
                failed.push(w.submit(&job()));
            }
            let id = *failed.last().unwrap();
            assert_eq!(w.run_plan(), [id], "{same} {pause} {round}");
            fail_to_launch(&mut w, id);
            if !same {
                assert_eq!(w.cancel(user(1000), Target::Id(id)), None);
            }
            w.wait(pause);
        }
        assert_eq!(w.node(1).admin.drain, drained, "{same} {pause}");
        if drained {
            let reason = "launch failed: no cgroup; so it was for jobs 1, 2, 3";
            assert_eq!(*w.node(1).admin.reason, *reason);
            w.node_action(1, NodeAction::Resume);
            assert!(w.node(1).trouble.failures.is_empty());
        }
    }
}

#[test]
fn a_job_on_several_nodes_ends_when_one_of_them_is_lost() {
    let mut w = world().nodes(2).build();
    let id = w.submit(&job().nodes(2).tasks(3));
    w.run_plan();
    w.running(id);
    w.orders.clear();
    w.reboot(2, Vec::new());
    assert_eq!(w.take_orders(id), [OrderKind::Terminate(EndCause::NodeFail)]);
    assert!(w.run_plan().is_empty(), "both nodes are held until the batch node has ended it");
    w.exit(id, 0);
    assert_eq!(w.state(id), JobState::Pending);
    assert!(w.active().is_empty());
}

#[test]
fn a_launch_that_never_happened_is_tried_again_with_another_number() {
    let mut w = world().build();
    let id = w.submit(&job());
    w.run_plan();
    w.report(id, AttemptPhase::NeverStarted);
    assert_eq!(w.job(id).restarts, 0, "it is no requeue");
    assert!(w.run_plan().is_empty());
    w.wait(2);
    assert_eq!(w.run_plan(), [id]);
    assert_eq!(w.job(id).active_run().unwrap().attempt.0, 2);
}

#[test]
fn what_nobody_answered_is_said_again() {
    let mut w = world().build();
    let id = w.submit(&job());
    w.run_plan();
    assert!(w.cluster.overdue_orders(w.now, 15).is_empty());
    w.advance(15);
    let kinds = |w: &World| -> Vec<_> {
        w.cluster.overdue_orders(w.now, 15).iter().map(|(_, order)| order.kind).collect()
    };
    assert_eq!(kinds(&w), [OrderKind::Launch]);
    w.running(id);
    assert_eq!(kinds(&w), []);
    w.cancel(user(1000), Target::Id(id));
    assert_eq!(kinds(&w), [OrderKind::Terminate(EndCause::Cancelled)]);
    w.disconnect(1);
    assert_eq!(kinds(&w), [], "the registration will say it");
}

#[test]
fn an_agent_may_ask_for_a_drain() {
    let mut w = world().build();
    let (node, session) = (node_name(1), w.node(1).session.unwrap());
    let reason: Box<str> = "Kill task failed".into();
    let command = Command::DrainRequested { node, session, reason: reason.clone() };
    w.execute(command.clone()).unwrap();
    assert_eq!(w.node(1).admin.reason, reason);
    assert_eq!(w.execute(command).unwrap().reply, Reply::Done);
}
