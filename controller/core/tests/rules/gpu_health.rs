//! What becomes of broken GPUs and of the jobs on them?

use penstock_core::Command;
use penstock_core::command::{AttemptPhase, NodeAction, NodeUpdate, OrderKind};
use penstock_core::model::{EndCause, Gpu, GpuFault, Inventory, MigMode, MigSlice};
use penstock_vocab::{JobId, JobState, SessionId, parse_gres_list};

use crate::common::{World, admin, job, node_name, says, user, world};

fn inventory(gpus: Vec<Gpu>, gres: &str) -> Inventory {
    Inventory {
        cpus: 64,
        threads_per_core: 1,
        memory: penstock_vocab::Mib(64_000),
        gres: parse_gres_list(gres).unwrap().into(),
        gpus: gpus.into(),
        boot_id: "boot".into(),
        ..Inventory::default()
    }
}

fn four() -> Inventory {
    let gpu = |index: u32| Gpu {
        index,
        uuid: format!("GPU-{index}").into(),
        kind: "h100".into(),
        ..Gpu::default()
    };
    inventory((0..4).map(gpu).collect(), "gpu:h100:4")
}

fn with(inventory: Inventory) -> (World, SessionId) {
    let mut w = world().nodes(0).build();
    let session = w.register_with(1, inventory, Vec::new());
    (w, session)
}

fn update(w: &mut World, gpus: &[u32], action: NodeAction, reason: &str) {
    let update = NodeUpdate {
        action: Some(action),
        gpus: gpus.to_vec(),
        reason: reason.into(),
        ..NodeUpdate::default()
    };
    w.execute(Command::UpdateNode(admin(), vec![node_name(1)], Box::new(update))).unwrap();
}

fn fault(w: &mut World, session: SessionId, gpu: u32, gi: Option<u32>, xid: u32) {
    let faults = vec![GpuFault { gpu, gi, xid, text: "".into() }];
    w.execute(Command::GpuFaults { node: node_name(1), session, faults }).unwrap();
}

fn drained(w: &World) -> Vec<u32> {
    w.node(1).admin.gpus.iter().map(|drain| drain.index).collect()
}

fn ids(w: &World, id: JobId) -> Vec<u32> {
    let job = w.job(id);
    let run = job.active_run().unwrap();
    run.shares[0].gres.iter().flat_map(|gres| gres.ids.to_vec()).collect()
}

#[test]
fn a_drained_gpu_takes_no_job_and_the_others_do() {
    let (mut w, _) = with(four());
    let first = w.submit(&job().gres("gpu:1"));
    w.run_plan();
    update(&mut w, &[0, 2], NodeAction::Drain, "fan");
    assert_eq!(w.state(first), JobState::Running, "what runs goes on");
    let pair = w.submit(&job().gres("gpu:2"));
    assert_eq!(w.run_plan(), [pair]);
    assert_eq!(ids(&w, pair), [1, 3]);
    let next = w.submit(&job().gres("gpu:1"));
    w.exit(first, 0);
    assert!(w.run_plan().is_empty());
    // What a drained GPU keeps back is no reason to refuse: it comes back some day.
    let all = w.submit(&job().gres("gpu:4"));
    update(&mut w, &[0], NodeAction::Resume, "");
    assert_eq!((drained(&w), w.run_plan()), (vec![2], vec![next]));
    assert_eq!(ids(&w, next), [0]);
    assert_eq!(w.state(all), JobState::Pending);
}

#[test]
fn gpus_that_are_not_there_and_states_that_they_have_not_are_refused() {
    let (mut w, _) = with(four());
    for (gpus, action, caller, part) in [
        (vec![4], NodeAction::Drain, admin(), "node n1 has no GPU 4"),
        (vec![1], NodeAction::Down, admin(), "a GPU can be drained and resumed"),
        (vec![1], NodeAction::Drain, user(7), "only admins"),
    ] {
        let (action, reason) = (Some(action), "x".into());
        let update = NodeUpdate { action, gpus, reason, ..NodeUpdate::default() };
        let command = Command::UpdateNode(caller, vec![node_name(1)], Box::new(update));
        let refusal = w.execute(command).unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal}");
    }
}

#[test]
fn a_lost_gpu_drains_alone_and_its_job_runs_again_elsewhere() {
    let (mut w, session) = with(four());
    let jobs: Vec<_> = (0..2).map(|_| w.submit(&job().gres("gpu:1"))).collect();
    w.run_plan();
    jobs.iter().for_each(|id| w.running(*id));
    w.orders.clear();
    fault(&mut w, session, 1, None, 95);
    assert_eq!(drained(&w), [1]);
    assert!(!w.node(1).admin.drain);
    assert_eq!(w.take_orders(jobs[1]), [OrderKind::Terminate(EndCause::NodeFail)]);
    assert!(!w.job(jobs[0]).active_run().unwrap().is_ending());
    w.exit(jobs[1], 1);
    let told = w.job(jobs[1]);
    assert_eq!(told.state, JobState::Pending);
    let run = told.run.as_ref().or_else(|| told.earlier_runs.last()).unwrap();
    assert_eq!(&*run.end_reason, "GPU 1 of n1: XID 95");
    w.wait(60);
    assert_eq!(w.run_plan(), [jobs[1]]);
    assert_eq!(ids(&w, jobs[1]), [2]);
    // Only a hand resumes it, not the next registration.
    let report = |(n, id): (u32, &JobId)| says(*id, n, AttemptPhase::Running);
    let reports = [(1, &jobs[0]), (2, &jobs[1])].map(report).to_vec();
    w.register_with(1, four(), reports);
    assert_eq!(drained(&w), [1]);
}

#[test]
fn a_fault_that_is_the_jobs_own_fails_it_and_three_users_make_the_gpu_suspect() {
    let (mut w, session) = with(four());
    for (uid, expect) in [(1, vec![]), (1, vec![]), (2, vec![]), (3, vec![0])] {
        let id = w.submit(&job().by(user(uid)).gres("gpu:1"));
        w.run_plan();
        w.running(id);
        fault(&mut w, session, 0, None, 13);
        w.exit(id, 1);
        assert_eq!(w.state(id), JobState::Failed);
        assert_eq!(drained(&w), expect, "{uid}");
    }
}

#[test]
fn an_error_that_is_contained_ends_the_job_of_that_slice_alone() {
    let slice = |gi: u32, start: u32| MigSlice {
        profile: "3g.40gb".into(),
        gi,
        start,
        size: 4,
        ..MigSlice::default()
    };
    let gpu = Gpu {
        kind: "h100".into(),
        mig: MigMode::On,
        slices: Box::new([slice(1, 0), slice(5, 4)]),
        ..Gpu::default()
    };
    let (mut w, session) = with(inventory(vec![gpu], "gpu:3g.40gb:2"));
    let jobs: Vec<_> = (0..2).map(|_| w.submit(&job().gres("gpu:3g.40gb:1"))).collect();
    w.run_plan();
    jobs.iter().for_each(|id| w.running(*id));
    w.orders.clear();
    fault(&mut w, session, 0, Some(5), 94);
    assert_eq!(w.take_orders(jobs[1]), [OrderKind::Terminate(EndCause::NodeFail)]);
    assert!(!w.job(jobs[0]).active_run().unwrap().is_ending());
    assert!(drained(&w).is_empty());
}

#[test]
fn what_a_node_reports_clears_when_it_reports_it_gone() {
    let bad = || {
        let mut inventory = four();
        let mut gpus = inventory.gpus.to_vec();
        gpus[3].fault = "fallen off the bus".into();
        inventory.gpus = gpus.into();
        inventory
    };
    let (mut w, _) = with(bad());
    assert_eq!(drained(&w), [3]);
    w.register_with(1, four(), Vec::new());
    assert!(drained(&w).is_empty());
    // A hand's drain stays.
    update(&mut w, &[3], NodeAction::Drain, "to be looked at");
    w.register_with(1, bad(), Vec::new());
    w.register_with(1, four(), Vec::new());
    assert_eq!(drained(&w), [3]);
}

#[test]
fn a_bug_in_a_driver_does_not_drain_the_whole_cluster() {
    let gpu = |index: u32| Gpu { index, kind: "h100".into(), ..Gpu::default() };
    let (mut w, session) = with(inventory((0..8).map(gpu).collect(), "gpu:h100:8"));
    for index in 0..8 {
        fault(&mut w, session, index, None, 119);
    }
    assert_eq!(drained(&w), [0, 1, 2, 3]);
    // An hour later it is no storm any more.
    w.wait(3_601);
    fault(&mut w, session, 7, None, 119);
    assert_eq!(drained(&w), [0, 1, 2, 3, 7]);
}

#[test]
fn a_gpu_off_the_bus_drains_its_node() {
    let (mut w, session) = with(four());
    fault(&mut w, session, 2, None, 79);
    let node = w.node(1);
    assert_eq!((node.admin.drain, &*node.admin.reason), (true, "GPU 2 of n1: XID 79"));
    assert_eq!(drained(&w), [2]);
}
