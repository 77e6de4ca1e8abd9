//! Where do jobs go?

use std::collections::BTreeSet;

use penstock_core::Command;
use penstock_core::command::{NodeAction, NodeUpdate};
use penstock_core::model::{Inventory, MemoryRequest, NodeShare, Packing, Scheduling};
use penstock_core::scheduler::could_ever_fit;
use penstock_vocab::{GresRequest, JobId, JobState, Mib, Walltime, parse_gres_list};
use proptest::prelude::*;

use crate::common::{JobBuilder, World, admin, audit, job, node_name, partition_name, world};

fn shares(w: &World, id: JobId) -> Vec<NodeShare> {
    w.job(id).active_run().map(|run| run.shares.to_vec()).unwrap_or_default()
}

/// (node, CPUs, tasks) of each share.
fn layout(w: &World, id: JobId) -> Vec<(u32, u32, u32)> {
    shares(w, id).iter().map(|s| (s.node.0 + 1, s.cpu_count(), s.tasks)).collect()
}

#[test]
fn tasks_fill_nodes_in_order_and_each_node_gets_one() {
    type Layout = &'static [(u32, u32, u32)];
    let cases: [(JobBuilder, Layout); 8] = [
        (job(), &[(1, 1, 1)]),
        (job().nodes(2).tasks(3), &[(1, 2, 2), (2, 1, 1)]),
        (job().nodes(2), &[(1, 1, 1), (2, 1, 1)]),
        (job().tasks(6), &[(1, 4, 4), (2, 2, 2)]),
        (job().tasks(4), &[(1, 4, 4)]),
        (job().nodes(2).shape(|s| s.ntasks_per_node = Some(2)), &[(1, 2, 2), (2, 2, 2)]),
        (job().tasks(3).shape(|s| s.cpus_per_task = Some(2)), &[(1, 4, 2), (2, 2, 1)]),
        (job().shape(|s| s.exclusive = true), &[(1, 4, 1)]),
    ];
    for (request, expected) in cases {
        let mut w = world().nodes(3).cpus(4).build();
        let id = w.submit(&request);
        w.run_plan();
        assert_eq!(layout(&w, id), expected, "{:?}", request.spec.shape);
    }
}

#[test]
fn the_batch_host_is_the_first_of_the_list_in_whatever_order_nodes_joined() {
    let mut w = world().nodes(0).cpus(4).build();
    for number in [10, 2, 1] {
        w.register(number, Vec::new());
    }
    let id = w.submit(&job().nodes(3).tasks(4));
    w.run_plan();
    let names: Vec<_> = shares(&w, id)
        .iter()
        .filter_map(|share| w.cluster.node(share.node))
        .map(|(node, _)| node.name.to_string())
        .collect();
    assert_eq!(names, ["n1", "n2", "n10"]);
    assert_eq!(shares(&w, id)[0].tasks, 2, "and takes most tasks");
}

#[test]
fn several_nodes_are_taken_together_or_not_at_all() {
    let mut w = world().nodes(2).cpus(4).build();
    let first = w.submit(&job().on(&[1]).tasks(4));
    assert_eq!(w.run_plan(), [first]);
    // One node is free: it would take both tasks, but two nodes were asked for.
    let wide = w.submit(&job().nodes(2).tasks(2));
    assert!(w.run_plan().is_empty());
    w.exit(first, 0);
    assert_eq!(w.run_plan(), [wide]);
    assert_eq!(layout(&w, wide), [(1, 1, 1), (2, 1, 1)]);
}

#[test]
fn a_fixed_count_of_nodes_looks_beyond_the_preferred_ones() {
    let mut w = world().nodes(4).cpus(4).build();
    for (number, cpus) in [(3, 16), (4, 16)] {
        let large = Inventory { cpus, memory: Mib(16_000), ..w.inventory.clone() };
        w.register_with(number, large, Vec::new());
        let heavy = NodeUpdate { weight: Some(9), ..NodeUpdate::default() };
        let names = vec![node_name(number)];
        w.execute(Command::UpdateNode(admin(), names, Box::new(heavy))).unwrap();
    }
    let big = w.submit(&job().nodes(2).tasks(20));
    let small = w.submit(&job().nodes(2).tasks(4));
    w.run_plan();
    assert_eq!(layout(&w, big), [(3, 16, 16), (4, 4, 4)]);
    assert_eq!(layout(&w, small), [(1, 3, 3), (2, 1, 1)], "the light ones where they serve");
}

#[test]
fn whole_cores_are_given_out() {
    let mut w = world().nodes(1).cpus(4).threads(2).build();
    let first = w.submit(&job());
    let second = w.submit(&job().tasks(2));
    let third = w.submit(&job());
    assert_eq!(w.run_plan(), [first, second]);
    let cpus = |id| shares(&w, id)[0].cpus.ones().collect::<Vec<_>>();
    assert_eq!((cpus(first), cpus(second)), (vec![0, 1], vec![2, 3]));
    assert_eq!(w.state(third), JobState::Pending);
}

#[test]
fn memory_is_taken_as_it_was_asked_for() {
    let per_cpu = |mib| job().tasks(2).shape(|s| s.memory = MemoryRequest::PerCpu(Mib(mib)));
    let exclusive = |job: JobBuilder| job.shape(|s| s.exclusive = true);
    for (request, memory) in [
        (job(), 1_000),
        (job().tasks(3), 3_000),
        (job().memory(700), 700),
        (per_cpu(300), 600),
        (job().shape(|s| s.memory = MemoryRequest::WholeNode), 4_000),
        (exclusive(job()), 4_000),
        (exclusive(job().memory(700)), 700),
    ] {
        let mut w = world().nodes(1).cpus(4).memory(4_000).build();
        let id = w.submit(&request);
        w.run_plan();
        assert_eq!(shares(&w, id)[0].memory, Mib(memory), "{:?}", request.spec.shape.memory);
    }
    // The partition's default, its cap, and CPUs raised for memory.
    let mut w = world()
        .main(|p| p.def_mem_per_cpu = Some(Mib(100)))
        .partition("capped", |p| p.max_mem_per_node = Some(Mib(500)))
        .partition("raised", |p| p.max_mem_per_cpu = Some(Mib(400)))
        .build();
    let default = w.submit(&job().tasks(2));
    let capped = w.submit(&job().partition(&["capped"]));
    let raised = job().shape(|s| s.memory = MemoryRequest::PerCpu(Mib(800)));
    let raised = w.submit(&raised.partition(&["raised"]));
    w.run_plan();
    assert_eq!(shares(&w, default)[0].memory, Mib(200));
    assert_eq!(shares(&w, capped)[0].memory, Mib(500));
    assert_eq!((shares(&w, raised)[0].memory, layout(&w, raised)[0].1), (Mib(800), 2));
}

#[test]
fn memory_keeps_jobs_apart() {
    let mut w = world().nodes(1).cpus(4).memory(1_000).build();
    let first = w.submit(&job().memory(600));
    let second = w.submit(&job().memory(400));
    let third = w.submit(&job().memory(1));
    assert_eq!(w.run_plan(), [first, second]);
    w.exit(second, 0);
    assert_eq!(w.run_plan(), [third]);
}

#[test]
fn devices_are_given_out_by_their_numbers() {
    let best_fit = |s: &mut Scheduling| s.packing = Packing::BestFit;
    let mut w = world().nodes(2).gpus(4).scheduling(best_fit).build();
    let first = w.submit(&job().gres("gpu:1"));
    let second = w.submit(&job().gres("gpu:2"));
    let total = GresRequest { count: 5, ..parse_gres_list("gpu:1").unwrap()[0].clone() };
    let many = w.submit(&job().tasks(2).shape(|s| s.gpus_total = Some(total)));
    w.run_plan();
    let ids = |id| shares(&w, id)[0].gres.iter().flat_map(|g| g.ids.to_vec()).collect::<Vec<_>>();
    assert_eq!((ids(first), ids(second)), (vec![0], vec![1, 2]));
    let spread: Vec<_> = shares(&w, many).iter().map(|s| s.gres[0].ids.len()).collect();
    assert_eq!(spread.iter().sum::<usize>(), 5);
    w.exit(first, 0);
    let third = w.submit(&job().gres("gpu:1"));
    w.run_plan();
    let ids = |id| shares(&w, id)[0].gres.iter().flat_map(|g| g.ids.to_vec()).collect::<Vec<_>>();
    assert_eq!(ids(third), [0]);
}

#[test]
fn typed_devices_go_to_who_names_the_type() {
    let mut w = world().nodes(1).build();
    let gres = parse_gres_list("gpu:a100:1,gpu:h100:1").unwrap();
    let inventory = Inventory { gres: gres.into(), ..w.inventory.clone() };
    w.register_with(1, inventory, Vec::new());
    let both = w.submit(&job().gres("gpu:1,gpu:a100:1"));
    w.run_plan();
    let names: BTreeSet<_> =
        shares(&w, both)[0].gres.iter().map(|gres| gres.name.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn jobs_without_devices_leave_nodes_with_devices_free() {
    let mut w = world().nodes(2).cpus(4).build();
    let gres = parse_gres_list("gpu:2").unwrap();
    w.register_with(1, Inventory { gres: gres.into(), ..w.inventory.clone() }, Vec::new());
    let plain = w.submit(&job());
    w.run_plan();
    assert_eq!(layout(&w, plain)[0].0, 2);
}

#[test]
fn whole_nodes_are_shared_with_nobody() {
    let mut w = world().nodes(1).build();
    let small = w.submit(&job());
    let whole = w.submit(&job().shape(|s| s.exclusive = true));
    assert_eq!(w.run_plan(), [small]);
    w.exit(small, 0);
    let other = w.submit(&job());
    assert_eq!(w.run_plan(), [whole]);
    w.exit(whole, 0);
    assert_eq!(w.run_plan(), [other]);
}

#[test]
fn limits_of_a_partition_keep_jobs_back_with_their_reason() {
    let mut w = world()
        .nodes(3)
        .main(|p| {
            p.max_time = Walltime::from_minutes(60);
            p.max_nodes = 2;
        })
        .build();
    let long = w.submit(&job().minutes(61));
    let wide = w.submit(&job().nodes(3));
    let fits = w.submit(&job().minutes(60).tasks(7));
    assert_eq!(w.run_plan(), [fits]);
    assert_eq!(layout(&w, fits).len(), 2);
    let plan = w.plan();
    let reason = |id| {
        let unit = penstock_core::command::Unit::Job(id);
        w.cluster.waiting(unit, &plan).unwrap().reason.to_string()
    };
    assert_eq!(reason(long), "PartitionTimeLimit");
    assert_eq!(reason(wide), "PartitionNodeLimit");
    assert_eq!(w.job(fits).time_limit, Walltime::from_minutes(60));
}

#[test]
fn constraints_and_exclusions_hold() {
    let mut w = world().nodes(3).build();
    let features = vec!["ib".into()];
    let update = NodeUpdate { features: Some(features), ..NodeUpdate::default() };
    let names = vec![node_name(2), node_name(3)];
    w.execute(Command::UpdateNode(admin(), names, Box::new(update))).unwrap();
    let not_two = |s: &mut penstock_core::model::Shape| s.excluded = [node_name(2)].into();
    let id = w.submit(&job().constraint("ib").shape(not_two));
    w.run_plan();
    assert_eq!(layout(&w, id)[0].0, 3);
}

/// The slow, obvious answer to whether tasks fit on free CPUs: some set of nodes takes them.
fn fits_somewhere(free: &[u32], request: (u32, u32, u32)) -> bool {
    let (tasks, per_task, nodes) = request;
    (1u32..1 << free.len()).any(|set| {
        let chosen = (0..free.len()).filter(|at| set & (1 << at) != 0);
        let room: Vec<u32> = chosen.map(|at| free[at] / per_task).collect();
        let count = u32::try_from(room.len()).unwrap();
        let count_is_right = if nodes == 0 { count <= tasks } else { count == nodes };
        count_is_right && room.iter().all(|room| *room > 0) && room.iter().sum::<u32>() >= tasks
    })
}

proptest! {
    #[test]
    fn a_job_starts_exactly_if_some_set_of_nodes_takes_it(
        sizes in prop::collection::vec((1u32..7, 0u32..3), 1..5),
        requests in prop::collection::vec((1u32..10, 1u32..4, 0u32..4), 1..12),
    ) {
        let mut w = world().nodes(0).build();
        for (number, (cpus, weight)) in (1..).zip(&sizes) {
            let inventory = Inventory { cpus: *cpus, ..w.inventory.clone() };
            w.register_with(number, inventory, Vec::new());
            let update = NodeUpdate { weight: Some(*weight), ..NodeUpdate::default() };
            w.execute(Command::UpdateNode(admin(), vec![node_name(number)], Box::new(update))).unwrap();
        }
        let idle: Vec<u32> = sizes.iter().map(|(cpus, _)| *cpus).collect();
        for (tasks, per_task, nodes) in requests {
            let nodes = nodes.min(tasks);
            let mut request = job().tasks(tasks).nodes(nodes).memory(0).shape(|s| {
                s.cpus_per_task = Some(per_task);
            });
            request = request.shape(|s| s.memory = MemoryRequest::PerNode(Mib(1)));
            let shape = &request.spec.shape;
            let partition = w.cluster.partition(&partition_name("main")).unwrap();
            let ever = could_ever_fit(&w.cluster, partition, shape).is_ok();
            prop_assert_eq!(ever, fits_somewhere(&idle, (tasks, per_task, nodes)));
            if !ever {
                continue;
            }
            let free: Vec<u32> = w
                .cluster
                .nodes()
                .map(|(_, node, used)| node.inventory.cpus - used.cpu_count())
                .collect();
            let id = w.submit(&request);
            let started = w.run_plan().contains(&id);
            prop_assert_eq!(started, fits_somewhere(&free, (tasks, per_task, nodes)));
            audit::nothing_twice(&w.cluster);
            if started {
                let total: u32 = layout(&w, id).iter().map(|share| share.2).sum();
                prop_assert_eq!(total, tasks);
            } else {
                // It would close the queue to the rest.
                w.cancel(admin(), penstock_core::command::Target::Id(id));
            }
        }
    }
}

#[test]
fn nothing_is_planned_where_nothing_waits() {
    let mut w = world().build();
    assert!(w.cluster.queue_is_empty());
    w.node_action(1, NodeAction::Drain);
    assert!(w.plan().starts.is_empty());
    assert!(!w.plan().cut);
}
