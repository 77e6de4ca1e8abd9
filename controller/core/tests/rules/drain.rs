//! What is in the way of a drain, and what becomes of it at the deadline?

use penstock_core::Command;
use penstock_core::command::{Effect, NodeAction, NodeUpdate, OrderKind};
use penstock_core::explain::drain_plan;
use penstock_core::model::EndCause;
use penstock_vocab::{JobId, JobState, Timestamp};

use crate::common::{World, admin, job, node_name, world};

fn drain(w: &mut World, gpus: &[u32], secs: u64) -> Vec<String> {
    let update = NodeUpdate {
        action: Some(NodeAction::Drain),
        gpus: gpus.to_vec(),
        deadline: Some(w.now.plus_secs(secs)),
        reason: "fan".into(),
        ..NodeUpdate::default()
    };
    let command = Command::UpdateNode(admin(), vec![node_name(1)], Box::new(update));
    let outcome = w.execute(command).unwrap();
    let told = outcome.effects.into_iter().filter_map(|effect| match effect {
        Effect::Notice { text, .. } => Some(text.to_string()),
        _ => None,
    });
    told.collect()
}

fn orders(w: &World, id: JobId) -> Vec<OrderKind> {
    w.orders.iter().filter(|(_, order)| order.job == id).map(|(_, order)| order.kind).collect()
}

fn start(w: &mut World, minutes: u64, requeue: bool, gres: &str) -> JobId {
    let job = job().minutes(minutes).gres(gres).spec(|spec| spec.requeue = Some(requeue));
    let id = w.submit(&job.on(&[1]));
    assert_eq!(w.run_plan(), [id]);
    w.running(id);
    w.orders.clear();
    id
}

#[test]
fn a_plan_names_what_is_in_the_way_and_changes_nothing() {
    let mut w = world().nodes(2).cpus(4).gpus(4).build();
    let long = start(&mut w, 60, true, "gpu:1");
    let short = start(&mut w, 10, false, "gpu:1");
    let now = w.now;
    let plan = drain_plan(&w.cluster, now, &[(node_name(1), None)], None).unwrap().remove(0);
    let seen: Vec<_> =
        plan.jobs.iter().map(|job| (job.job, job.requeue, job.again.is_some())).collect();
    assert_eq!(seen[1], (short, false, false));
    assert_eq!((seen[0].0, seen[0].1), (long, true));
    let end = |id: JobId| w.job(id).ends_by(now);
    assert_eq!((plan.empty, plan.jobs[1].ends), (end(long), end(short)));
    // By GPU: only who holds it.
    let gpu = drain_plan(&w.cluster, now, &[(node_name(1), Some(1))], None).unwrap().remove(0);
    assert_eq!(gpu.jobs.iter().map(|job| job.job).collect::<Vec<_>>(), [short]);
    let free = drain_plan(&w.cluster, now, &[(node_name(1), Some(3))], None).unwrap().remove(0);
    assert_eq!((free.empty, free.jobs.len()), (Some(now), 0));
    let deadline = Some(now.plus_secs(1_200));
    let due = drain_plan(&w.cluster, now, &[(node_name(1), None)], deadline).unwrap().remove(0);
    let long_ones: Vec<_> = due.jobs.iter().map(|job| job.too_long).collect();
    assert_eq!((due.empty, long_ones), (deadline, vec![true, false]));
    assert!(drain_plan(&w.cluster, now, &[(node_name(9), None)], None).is_err());
    assert!(!w.node(1).admin.drain && w.state(long) == JobState::Running);
}

#[test]
fn at_the_deadline_what_still_runs_is_requeued_or_cancelled() {
    let mut w = world().nodes(1).cpus(4).gpus(4).build();
    let again = start(&mut w, 60, true, "gpu:1");
    let lost = start(&mut w, 60, false, "gpu:1");
    let soon = start(&mut w, 5, false, "gpu:1");
    let told = drain(&mut w, &[], 600);
    assert_eq!(told.len(), 2, "one ends before: {told:?}");
    assert!(told[0].ends_with("node n1 is drained for fan; what still runs in 10m is requeued"));
    assert!(told[1].ends_with("is cancelled"), "{told:?}");
    w.wait(599);
    assert!(orders(&w, again).is_empty());
    w.exit(soon, 0);
    w.wait(1);
    assert_eq!(orders(&w, again), [OrderKind::Terminate(EndCause::Requeue)]);
    assert_eq!(orders(&w, lost), [OrderKind::Terminate(EndCause::Cancelled)]);
    w.orders.clear();
    w.wait(5);
    assert!(orders(&w, again).is_empty(), "told once");
    w.exit(again, 1);
    w.exit(lost, 1);
    assert_eq!((w.state(again), w.state(lost)), (JobState::Pending, JobState::Cancelled));
    let reason = w.job(lost).run.as_ref().unwrap().end_reason.clone();
    assert_eq!(&*reason, "node n1 was drained by its deadline: fan");
}

#[test]
fn a_gpu_has_its_own_deadline_and_a_drain_that_is_taken_back_ends_nothing() {
    let mut w = world().nodes(1).cpus(4).gpus(4).build();
    let first = start(&mut w, 60, true, "gpu:1");
    let second = start(&mut w, 60, true, "gpu:1");
    assert_eq!(drain(&mut w, &[1], 60).len(), 1);
    w.wait(61);
    assert!(orders(&w, first).is_empty());
    assert_eq!(orders(&w, second), [OrderKind::Terminate(EndCause::Requeue)]);
    drain(&mut w, &[], 60);
    w.node_action(1, NodeAction::Undrain);
    w.wait(120);
    assert!(orders(&w, first).is_empty());
    let late = NodeUpdate {
        action: Some(NodeAction::Drain),
        deadline: Some(Timestamp(1)),
        reason: "x".into(),
        ..NodeUpdate::default()
    };
    let command = Command::UpdateNode(admin(), vec![node_name(1)], Box::new(late));
    assert!(w.execute(command).unwrap_err().to_string().contains("has passed"));
}
