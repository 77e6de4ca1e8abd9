//! What goes before and after a run, and what comes of it where that fails?

use penstock_core::command::{AttemptPhase, OrderKind, Target};
use penstock_core::model::{Config, Hold, HookPolicy, HookStage, RunResult, StepKey, StepNumber};
use penstock_core::{Command, Refusal};
use penstock_vocab::{Attempt, JobFlag, JobId, JobState, PendingReason};
use std::sync::Arc;

use crate::common::steps::{ended, step, step_says};
use crate::common::{World, job, user, world};

const BOTH: HookPolicy =
    HookPolicy { controller_prolog: false, prolog: true, epilog: true, no_hold: false };

fn hooked(nodes: u32, policy: HookPolicy) -> World {
    let mut w = world().nodes(nodes).build();
    let mut config: Config = (**w.cluster.config()).clone();
    config.hooks = policy;
    w.execute(Command::Configure(Arc::new(config))).unwrap();
    w
}

fn key(w: &World, id: JobId, number: StepNumber) -> StepKey {
    let attempt = w.job(id).active_run().map_or(Attempt(0), |run| run.attempt);
    StepKey { job: id, attempt, number }
}

fn prolog(w: &mut World, id: JobId, node: u32, status: u8) {
    let key = key(w, id, StepNumber::PROLOG);
    w.step_report(key, node, ended(status));
}

fn epilog(w: &mut World, id: JobId, node: u32, status: u8) {
    let key = key(w, id, StepNumber::EPILOG);
    w.step_report(key, node, ended(status));
}

/// What nodes were told of a job: of which part, what.
fn told(w: &mut World, id: JobId) -> Vec<(Option<StepNumber>, OrderKind)> {
    let orders = std::mem::take(&mut w.orders);
    orders.into_iter().filter(|(_, o)| o.job == id).map(|(_, o)| (o.step, o.kind)).collect()
}

fn flags(w: &World, id: JobId) -> Vec<JobFlag> {
    let all = [JobFlag::Configuring, JobFlag::Completing];
    all.into_iter().filter(|flag| w.job(id).flags().contains(*flag)).collect()
}

#[test]
fn a_job_starts_after_the_prolog_of_all_its_nodes_and_is_over_after_their_epilog() {
    let mut w = hooked(2, BOTH);
    let id = w.submit(&job().nodes(2).minutes(10));
    w.run_plan();
    let launch = (Some(StepNumber::PROLOG), OrderKind::Launch);
    assert_eq!(told(&mut w, id), [launch, launch]);
    assert_eq!((w.state(id), flags(&w, id)), (JobState::Running, vec![JobFlag::Configuring]));
    assert_eq!(w.job(id).reason, Some(PendingReason::Prolog));
    w.wait(100);
    prolog(&mut w, id, 1, 0);
    assert_eq!(flags(&w, id), [JobFlag::Configuring]);
    told(&mut w, id);
    prolog(&mut w, id, 2, 0);
    let orders = told(&mut w, id);
    assert!(orders.contains(&(None, OrderKind::Launch)), "{orders:?}");
    assert_eq!((flags(&w, id), w.job(id).reason), (vec![], None));
    // Its time counts from then on.
    assert_eq!(w.job(id).run.as_ref().unwrap().start_time, w.now);
    w.running(id);
    w.wait(50);
    let end = w.now;
    w.exit(id, 0);
    assert_eq!(flags(&w, id), [JobFlag::Completing]);
    let orders = told(&mut w, id);
    let launch = (Some(StepNumber::EPILOG), OrderKind::Launch);
    assert_eq!(orders.iter().filter(|order| **order == launch).count(), 2, "{orders:?}");
    assert!(w.run_plan().is_empty());
    w.wait(7);
    epilog(&mut w, id, 2, 0);
    assert!(w.job(id).active_run().is_some());
    epilog(&mut w, id, 1, 0);
    assert_eq!((w.state(id), w.job(id).end_time), (JobState::Completed, Some(end)));
    assert_eq!(w.job(id).run.as_ref().unwrap().hooks, None);
}

#[test]
fn a_prolog_that_fails_drains_its_node_and_sends_the_job_back_held() {
    let mut w = hooked(2, BOTH);
    let id = w.submit(&job().nodes(2));
    w.run_plan();
    prolog(&mut w, id, 2, 7);
    let node = w.node(2);
    assert_eq!((node.admin.drain, &*node.admin.reason), (true, "Prolog error"));
    assert!(!w.node(1).admin.drain);
    // The other node may be at it; what it did, the epilog undoes.
    assert_eq!(flags(&w, id), [JobFlag::Completing]);
    prolog(&mut w, id, 1, 0);
    let orders = told(&mut w, id);
    assert!(!orders.contains(&(None, OrderKind::Launch)), "{orders:?}");
    epilog(&mut w, id, 1, 0);
    epilog(&mut w, id, 2, 0);
    let job = w.job(id);
    assert_eq!((job.state, job.hold), (JobState::Pending, Hold::User));
    assert_eq!(job.reason, Some(PendingReason::LaunchFailedHeld));
    assert_eq!(job.reason.unwrap().name(), "launch failed requeued held");
    let said = &job.earlier_runs[0].end_reason;
    assert_eq!(&**said, "Prolog error on node n2: it ended with exit status 7");
    let release = Command::SetHold(user(1000), vec![Target::Id(id)], Hold::None);
    w.execute(release).unwrap();
    assert_eq!((w.job(id).hold, w.job(id).reason), (Hold::None, None));
}

#[test]
fn a_job_that_may_not_run_again_fails_with_its_prolog_and_without_hold_it_waits() {
    let mut w = hooked(1, HookPolicy { epilog: false, ..BOTH });
    let id = w.submit(&job().spec(|spec| spec.requeue = Some(false)));
    w.run_plan();
    prolog(&mut w, id, 1, 1);
    assert_eq!(w.state(id), JobState::Failed);
    assert_eq!(w.job(id).reason, Some(PendingReason::JobLaunchFailure));
    let mut w = hooked(1, HookPolicy { no_hold: true, epilog: false, ..BOTH });
    let id = w.submit(&job());
    w.run_plan();
    prolog(&mut w, id, 1, 1);
    assert_eq!((w.state(id), w.job(id).hold), (JobState::Pending, Hold::None));
}

#[test]
fn an_epilog_that_fails_drains_its_node_and_the_job_ends_as_it_did() {
    let mut w = hooked(1, HookPolicy { prolog: false, ..BOTH });
    let id = w.submit(&job());
    w.run_plan();
    w.running(id);
    w.exit(id, 3);
    epilog(&mut w, id, 1, 1);
    assert_eq!(w.state(id), JobState::Failed);
    assert_eq!(w.job(id).run.as_ref().unwrap().exit.status, 3);
    assert_eq!((w.node(1).admin.drain, &*w.node(1).admin.reason), (true, "Epilog error"));
}

#[test]
fn a_job_that_is_cancelled_during_its_prolog_waits_for_it_and_runs_its_epilog() {
    let mut w = hooked(2, BOTH);
    let id = w.submit(&job().nodes(2));
    w.run_plan();
    let key = key(&w, id, StepNumber::PROLOG);
    w.step_report(key, 1, AttemptPhase::Running);
    told(&mut w, id);
    assert_eq!(w.cancel(user(1000), Target::Id(id)), None);
    let orders = told(&mut w, id);
    assert!(!orders.iter().any(|(part, _)| part.is_none()), "no node knows the script: {orders:?}");
    assert!(orders.iter().any(|(part, kind)| {
        *part == Some(StepNumber::PROLOG) && matches!(kind, OrderKind::Terminate(_))
    }));
    w.step_report(key, 2, AttemptPhase::NeverStarted);
    assert!(!w.node(2).admin.drain, "it was not to be begun");
    prolog(&mut w, id, 1, 0);
    epilog(&mut w, id, 1, 0);
    epilog(&mut w, id, 2, 0);
    assert_eq!(w.state(id), JobState::Cancelled);
}

#[test]
fn what_a_node_missed_is_told_again_and_what_was_lost_counts_as_failed() {
    let mut w = hooked(1, BOTH);
    let id = w.submit(&job());
    w.run_plan();
    told(&mut w, id);
    w.register(1, vec![]);
    assert_eq!(told(&mut w, id), [(Some(StepNumber::PROLOG), OrderKind::Launch)]);
    let again = w.cluster.overdue_orders(w.now.plus_secs(60), 30);
    assert_eq!(again.len(), 1, "{again:?}");
    let key = key(&w, id, StepNumber::PROLOG);
    w.step_report(key, 1, AttemptPhase::Running);
    w.register(1, vec![step_says(key, AttemptPhase::Running)]);
    assert_eq!(told(&mut w, id), []);
    assert_eq!(w.restored().check(), []);
    w.register(1, vec![]);
    assert_eq!(&*w.node(1).admin.reason, "Prolog error");
}

#[test]
fn a_node_that_booted_has_no_hook_to_run_and_the_job_goes_back() {
    let mut w = hooked(2, BOTH);
    let id = w.submit(&job().nodes(2));
    w.run_plan();
    prolog(&mut w, id, 1, 0);
    let key = key(&w, id, StepNumber::PROLOG);
    w.step_report(key, 2, AttemptPhase::Running);
    w.reboot(2, vec![]);
    assert!(!w.node(2).admin.drain);
    assert_eq!(flags(&w, id), [JobFlag::Completing]);
    epilog(&mut w, id, 1, 0);
    epilog(&mut w, id, 2, 0);
    assert_eq!(w.state(id), JobState::Pending);
}

#[test]
fn no_epilog_is_waited_for_on_a_silent_node() {
    let mut w = hooked(2, BOTH);
    let id = w.submit(&job().nodes(2));
    w.run_plan();
    prolog(&mut w, id, 1, 0);
    prolog(&mut w, id, 2, 0);
    w.running(id);
    w.exit(id, 0);
    w.silence(2);
    epilog(&mut w, id, 1, 0);
    assert_eq!(w.state(id), JobState::Completed);
}

#[test]
fn the_controllers_prolog_comes_first_and_its_failure_requeues() {
    let mut w = hooked(1, HookPolicy { controller_prolog: true, ..BOTH });
    let id = w.submit(&job());
    w.run_plan();
    assert_eq!(told(&mut w, id), []);
    assert_eq!(w.cluster.runs_before_controller_prolog().count(), 1);
    let attempt = w.job(id).active_run().unwrap().attempt;
    let done =
        |error: &str| Command::ControllerPrologDone { job: id, attempt, error: error.into() };
    w.execute(done("")).unwrap();
    assert_eq!(told(&mut w, id), [(Some(StepNumber::PROLOG), OrderKind::Launch)]);
    // Said twice, it changes nothing.
    assert!(w.execute(done("late")).unwrap().changed.is_empty());
    prolog(&mut w, id, 1, 0);
    assert_eq!(w.job(id).run.as_ref().unwrap().hooks.as_ref().unwrap().stage, HookStage::Job);
    let mut w = hooked(1, HookPolicy { controller_prolog: true, ..HookPolicy::default() });
    let id = w.submit(&job());
    w.run_plan();
    let attempt = w.job(id).active_run().unwrap().attempt;
    let error = "exit status 1".into();
    w.execute(Command::ControllerPrologDone { job: id, attempt, error }).unwrap();
    assert_eq!((w.state(id), w.job(id).restarts), (JobState::Pending, 1));
    assert!(w.job(id).earlier_runs[0].end_reason.contains("PrologSlurmctld"));
}

#[test]
fn an_allocation_starts_its_steps_after_its_prolog() {
    let mut w = hooked(1, BOTH);
    let id = w.submit(&job().allocation().minutes(1));
    w.run_plan();
    let busy = w.try_step(id, &step()).unwrap_err();
    assert!(matches!(&busy, Refusal::StepBusy(text) if text.contains("prolog")), "{busy:?}");
    // Its time limit does not count its prolog.
    w.wait(3_600);
    assert_eq!(flags(&w, id), [JobFlag::Configuring]);
    prolog(&mut w, id, 1, 0);
    let key = w.step(id, &step());
    w.step_exits(key, 0);
    let exit = penstock_vocab::ExitCode::default();
    w.execute(Command::Release(user(1000), id, exit)).unwrap();
    assert_eq!(flags(&w, id), [JobFlag::Completing]);
    epilog(&mut w, id, 1, 0);
    assert_eq!(w.state(id), JobState::Completed);
}

#[test]
fn a_hook_that_could_not_run_says_why() {
    let mut w = hooked(1, BOTH);
    let id = w.submit(&job());
    w.run_plan();
    let key = key(&w, id, StepNumber::PROLOG);
    let launch_error = "/etc/prolog: No such file".into();
    let result = RunResult { launch_error, node_fault: true, ..RunResult::default() };
    w.step_report(key, 1, AttemptPhase::Ended(Box::new(result)));
    epilog(&mut w, id, 1, 0);
    let said = w.job(id).earlier_runs[0].end_reason.clone();
    assert_eq!(&*said, "Prolog error on node n1: /etc/prolog: No such file");
}
