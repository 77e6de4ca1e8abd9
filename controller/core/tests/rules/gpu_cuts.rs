//! Are GPUs cut as the queue asks, beside slices that run?

use penstock_core::Command;
use penstock_core::command::{AttemptPhase, Effect, ReshapeLine, Unit};
use penstock_core::model::{
    DynamicNodes, Gpu, GresShare, Inventory, MigMode, MigProfile, MigSlice, Reshape, RunResult,
};
use penstock_core::scheduler::{Limits, plan};
use penstock_vocab::{GresRequest, JobId, JobState, PendingReason, SessionId};

use crate::common::steps::step;
use crate::common::{World, job, node_name, world};

fn profiles() -> Box<[MigProfile]> {
    let profile = |id, name: &str, compute, size, starts: &[u32], most| MigProfile {
        id,
        name: name.into(),
        compute,
        size,
        starts: starts.into(),
        most,
        ..MigProfile::default()
    };
    Box::new([
        profile(19, "1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6], 7),
        profile(14, "2g.20gb", 2, 2, &[0, 2, 4], 3),
        profile(9, "3g.40gb", 3, 4, &[0, 4], 2),
        profile(0, "7g.80gb", 7, 8, &[0], 1),
    ])
}

fn gpu(generation: u64, slices: &[(&str, u32)]) -> Gpu {
    let profiles = profiles();
    let slice = |(name, start): &(&str, u32)| MigSlice {
        profile: (*name).into(),
        start: *start,
        size: profiles.iter().find(|profile| *profile.name == **name).unwrap().size,
        ..MigSlice::default()
    };
    let slices = slices.iter().map(slice).collect();
    Gpu { kind: "h100".into(), mig: MigMode::On, generation, slices, profiles, ..Gpu::default() }
}

fn gres(gpus: &[Gpu]) -> Box<[GresRequest]> {
    let mut counts = std::collections::BTreeMap::new();
    let slices = gpus.iter().flat_map(|gpu| &gpu.slices);
    slices.for_each(|slice| *counts.entry(slice.profile.clone()).or_insert(0) += 1);
    counts.iter().map(|(name, n)| format!("gpu:{name}:{n}").parse().unwrap()).collect()
}

fn with(gpu: Gpu) -> (World, SessionId) {
    with_all(vec![gpu])
}

fn with_all(gpus: Vec<Gpu>) -> (World, SessionId) {
    let mut w = world().nodes(0).build();
    let mut config = (**w.cluster.config()).clone();
    config.mig.dynamic = DynamicNodes::All;
    w.execute(Command::Configure(config.into())).unwrap();
    let inventory = Inventory { gres: gres(&gpus), gpus: gpus.into(), ..w.inventory.clone() };
    let session = w.register_with(1, inventory, Vec::new());
    (w, session)
}

/// What the scheduler proposes for these.
fn lines(w: &World, ids: &[JobId]) -> Vec<ReshapeLine> {
    let lines = plan(&w.cluster, w.now, Limits::default()).reshapes;
    let of = |line: &ReshapeLine| ids.iter().any(|id| line.for_unit == Unit::Job(*id));
    lines.into_iter().filter(of).collect()
}

fn layout(w: &mut World, session: SessionId, gpu: Gpu, answers: u64, error: &str) {
    let (node, gres) = (node_name(1), gres(std::slice::from_ref(&gpu)));
    let (gpu, error) = (Box::new(gpu), error.into());
    w.execute(Command::GpuLayout { node, session, gpu, gres, answers, error }).unwrap();
}

fn pending(w: &World) -> Vec<Reshape> {
    w.node(1).admin.reshapes.to_vec()
}

#[test]
fn a_slice_is_made_beside_one_that_runs() {
    let (mut w, session) = with(gpu(5, &[("3g.40gb", 4), ("2g.20gb", 0), ("1g.10gb", 3)]));
    let runs = w.submit(&job().gres("gpu:1g.10gb:1"));
    assert_eq!(w.run_plan(), [runs]);
    let inside = w.step(runs, &step());
    let big = w.submit(&job().gres("gpu:1g.10gb:1"));
    assert!(w.run_plan().is_empty());
    let made = lines(&w, &[big]);
    // A bit is free beside it: nothing has to go.
    assert_eq!((made.len(), made[0].destroy.len(), made[0].create[0].start), (1, 0, 2));
    let outcome = w.execute(Command::Reshape(made.clone())).unwrap();
    assert!(outcome.effects.contains(&Effect::Reshape(w.index(1), 0)));
    assert_eq!(pending(&w)[0].generation, 5);
    // While it is being cut nothing else is, and once more changes nothing.
    assert!(lines(&w, &[big]).is_empty());
    w.execute(Command::Reshape(made)).unwrap();
    assert_eq!(pending(&w).len(), 1);
    // The new slice comes before the one that runs: that keeps its device.
    let new = gpu(6, &[("3g.40gb", 4), ("2g.20gb", 0), ("1g.10gb", 2), ("1g.10gb", 3)]);
    layout(&mut w, session, new, 5, "");
    assert!(pending(&w).is_empty());
    assert_eq!(w.run_plan(), [big]);
    let start = |w: &World, gres: &GresShare| {
        w.node(1).inventory.device(&gres.name, gres.ids[0]).unwrap().slice.unwrap().start
    };
    let of = |w: &World, id| start(w, &w.job(id).active_run().unwrap().shares[0].gres[0]);
    assert_eq!((of(&w, runs), of(&w, big)), (3, 2));
    assert_eq!(start(&w, &w.the_step(inside).shares[0].share.gres[0]), 3);
}

#[test]
fn what_is_about_to_go_is_given_to_nobody_and_what_runs_never_goes() {
    let (mut w, _) = with(gpu(1, &[("3g.40gb", 4), ("2g.20gb", 0), ("2g.20gb", 2)]));
    let runs = w.submit(&job().gres("gpu:3g.40gb:1"));
    assert_eq!(w.run_plan(), [runs]);
    let wide = w.submit(&job().gres("gpu:3g.40gb:1"));
    let made = lines(&w, &[wide]);
    assert_eq!((&*made[0].destroy, made[0].create[0].start), (&[0, 2][..], 0));
    w.execute(Command::Reshape(made)).unwrap();
    let small = w.submit(&job().gres("gpu:2g.20gb:1"));
    assert!(w.run_plan().is_empty());
    assert_eq!(w.state(small), JobState::Pending);
    // Nobody may order what somebody holds to go.
    let (mut w, _) = with(gpu(1, &[("2g.20gb", 0)]));
    let holds = w.submit(&job().gres("gpu:2g.20gb:1"));
    assert_eq!(w.run_plan(), [holds]);
    let line = ReshapeLine {
        node: w.index(1),
        gpu: 0,
        generation: 1,
        destroy: Box::new([0]),
        create: Box::default(),
        for_unit: Unit::Job(holds),
    };
    w.execute(Command::Reshape(vec![line])).unwrap();
    assert!(pending(&w).is_empty());
}

#[test]
fn a_reshape_that_fails_or_is_late_is_tried_again_later() {
    let (mut w, session) = with(gpu(1, &[]));
    let asks = w.submit(&job().gres("gpu:2g.20gb:2"));
    let order = |w: &mut World| {
        let made = lines(w, &[asks]);
        w.execute(Command::Reshape(made)).unwrap();
        !pending(w).is_empty()
    };
    assert!(order(&mut w));
    layout(&mut w, session, gpu(1, &[]), 1, "no room for it");
    assert!(pending(&w).is_empty() && !order(&mut w), "it rests");
    w.wait(119);
    assert!(!order(&mut w));
    w.wait(2);
    assert!(order(&mut w));
    // No answer: given up after the deadline, and longer left alone.
    w.wait(61);
    assert!(pending(&w).is_empty() && !order(&mut w));
    w.wait(241);
    assert!(order(&mut w));
    layout(&mut w, session, gpu(2, &[("2g.20gb", 0), ("2g.20gb", 2)]), 1, "");
    assert_eq!(w.run_plan(), [asks]);
}

#[test]
fn profiles_that_a_gpu_can_have_are_accepted_and_others_are_not() {
    let (mut w, _) = with(gpu(1, &[("1g.10gb", 0)]));
    w.submit(&job().gres("gpu:7g.80gb:1"));
    w.submit(&job().gres("gpu:2g.20gb:3"));
    for (never, expect) in [
        ("gpu:2g.20gb:4", "needs"),
        ("gpu:5g.60gb:1", "there are gpu:1g.10gb, gpu:2g.20gb, gpu:3g.40gb, gpu:7g.80gb"),
        ("gpu:3g.40gb:1,gpu:2g.20gb:3", "no node's GPUs can be cut into all of that at once"),
    ] {
        let refusal = w.try_submit(&job().gres(never)).unwrap_err().to_string();
        assert!(refusal.contains(expect), "{never}: {refusal}");
    }
}

#[test]
fn a_launch_that_is_refused_for_its_slice_is_planned_anew_and_its_node_is_not_to_blame() {
    let (mut w, session) = with(gpu(1, &[("2g.20gb", 0)]));
    let asks = w.submit(&job().gres("gpu:2g.20gb:1"));
    assert_eq!(w.run_plan(), [asks]);
    // The slice went meanwhile, and another came.
    layout(&mut w, session, gpu(3, &[("2g.20gb", 2)]), 0, "");
    let refused = RunResult {
        launch_error: "it is another slice".into(),
        node_fault: true,
        devices_changed: true,
        ..RunResult::default()
    };
    w.report(asks, AttemptPhase::Ended(Box::new(refused)));
    assert_eq!(w.state(asks), JobState::Pending);
    assert!(w.node(1).accepts_work(), "the node is not to blame");
    w.wait(3);
    assert_eq!(w.run_plan(), [asks]);
    let share = w.job(asks).active_run().unwrap().shares[0].gres[0].clone();
    let node = w.node(1);
    let device = node.inventory.device(&share.name, share.ids[0]);
    assert_eq!(device.unwrap().slice.unwrap().start, 2);
}

#[test]
fn a_job_for_a_whole_gpu_has_its_place_and_no_cut_delays_it() {
    let (mut w, _) = with(gpu(1, &[("3g.40gb", 4), ("2g.20gb", 0)]));
    let runs = w.submit(&job().gres("gpu:3g.40gb:1").minutes(60));
    assert_eq!(w.run_plan(), [runs]);
    let wide = w.submit(&job().gres("gpu:7g.80gb:1").minutes(30));
    let long = w.submit(&job().gres("gpu:1g.10gb:1").minutes(61));
    let kept = w.submit(&job().gres("gpu:2g.20gb:1").minutes(61));
    let short = w.submit(&job().gres("gpu:1g.10gb:2").minutes(20));
    let made = plan(&w.cluster, w.now, Limits::default());
    let expected =
        |id| made.expected(Unit::Job(id)).map(|expected| expected.start.since(w.now).as_secs());
    let minutes = |id| expected(id).map(|secs| secs / 60);
    // The cut itself may take its minute.
    assert_eq!(minutes(wide), Some(61));
    // A slice that is there is kept for it as one that would be cut: it is the same slots.
    assert_eq!((minutes(long), minutes(kept)), (Some(91), Some(91)), "{made:?}");
    assert!(made.starts.is_empty(), "{made:?}");
    // Who has ended by then may go first.
    assert_eq!(made.reshapes.len(), 1);
    assert_eq!(made.reshapes[0].for_unit, Unit::Job(short));
    assert!(made.reshapes[0].destroy.is_empty());
    assert_eq!(made.pending_reason(Unit::Job(wide)), Some(PendingReason::Resources));
}

#[test]
fn a_slice_that_is_being_made_is_waited_for_and_not_made_twice() {
    let mut two = vec![gpu(1, &[]), gpu(1, &[])];
    two[1].index = 1;
    two[1].uuid = "GPU-1".into();
    let (mut w, _) = with_all(two);
    let asks = w.submit(&job().gres("gpu:3g.40gb:1"));
    let made = lines(&w, &[asks]);
    assert_eq!((made.len(), made[0].gpu, made[0].create[0].start), (1, 0, 4));
    w.execute(Command::Reshape(made)).unwrap();
    assert!(lines(&w, &[asks]).is_empty(), "the other GPU is left alone");
    let also = w.submit(&job().gres("gpu:3g.40gb:1"));
    let made = lines(&w, &[asks, also]);
    assert_eq!((made.len(), made[0].gpu, made[0].for_unit), (1, 1, Unit::Job(also)));
}

#[test]
fn arrays_get_a_slice_for_each_task_in_one_cut() {
    let (mut w, _) = with(gpu(1, &[]));
    w.submit(&job().gres("gpu:1g.10gb:1").array(0, 9, 0));
    let made = plan(&w.cluster, w.now, Limits::default()).reshapes;
    // As many as the node has CPUs for.
    assert_eq!((made.len(), made[0].create.len()), (1, 4));
}
