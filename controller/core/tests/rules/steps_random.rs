//! Placement of steps against a slow, obvious reference: every set of nodes is tried, and of each node
//! every number of tasks.

use std::collections::BTreeSet;

use penstock_core::Refusal;
use penstock_core::model::{MemoryRequest, StepSpec};
use penstock_vocab::{GresName, GresRequest, JobId, Mib};
use proptest::prelude::*;

use crate::common::steps::{StepBuilder, ended, step};
use crate::common::{World, job, node_name, world};

const NODES: u32 = 3;
const CPUS: u32 = 6;
const MEMORY: u64 = 600;
const GPUS: u32 = 2;

/// What is free on a node: CPUs, memory, GPUs; and whether nothing of it is held.
#[derive(Debug, Clone, Copy)]
struct Free {
    cpus: u32,
    memory: u64,
    gpus: u32,
    whole: bool,
    no_gpu_held: bool,
}

const EMPTY: Free = Free { cpus: CPUS, memory: MEMORY, gpus: GPUS, whole: true, no_gpu_held: true };

/// What no step that minds others holds, counted from the records.
fn free_of(w: &World, id: JobId) -> Vec<Free> {
    let mut free = vec![EMPTY; NODES as usize];
    for step in w.cluster.live_steps_of(id).filter(|step| !step.spec.overlap) {
        for part in step.live_shares() {
            let here = &mut free[part.share.node.get()];
            here.cpus -= part.share.cpu_count();
            here.whole = false;
            if matches!(step.spec.memory, MemoryRequest::PerNode(_)) {
                here.memory -= part.share.memory.0;
            }
            let gpus: usize = part.share.gres.iter().map(|gres| gres.ids.len()).sum();
            here.gpus -= u32::try_from(gpus).unwrap();
            here.no_gpu_held &= gpus == 0;
        }
    }
    free
}

fn fits(spec: &StepSpec, tasks: u32, free: Free, threads: u32) -> bool {
    let exact = spec.exact || spec.cpus_per_task.is_some();
    let wanted = tasks * spec.cpus_per_task.unwrap_or(1);
    let cores = wanted.div_ceil(threads) * threads;
    let cpus = match (exact, spec.overcommit) {
        (false, over) => free.whole && (over || wanted <= CPUS),
        (true, true) => free.cpus > 0,
        (true, false) => cores <= free.cpus,
    };
    let memory = match spec.memory {
        MemoryRequest::PerNode(memory) => memory.0 <= free.memory,
        _ => true,
    };
    let gpus = match spec.gres_per_node.first() {
        None => free.no_gpu_held,
        Some(asked) => asked.count <= u64::from(free.gpus),
    };
    cpus && memory && gpus && spec.ntasks_per_node.is_none_or(|most| tasks <= most)
}

/// Whether some set of nodes and some split of the tasks does.
fn feasible(spec: &StepSpec, free: &[Free], threads: u32, job_tasks: u32) -> bool {
    let free: Vec<Free> = free.iter().map(|f| if spec.overlap { EMPTY } else { *f }).collect();
    let by_node = spec.ntasks.is_none() && spec.ntasks_per_node.is_some();
    (1u32..1 << NODES).any(|set| {
        let nodes: Vec<u32> = (0..NODES).filter(|node| set & (1 << node) != 0).collect();
        let count = u32::try_from(nodes.len()).unwrap();
        let names: BTreeSet<_> = nodes.iter().map(|node| node_name(node + 1)).collect();
        let named = spec.required.iter().all(|name| names.contains(name))
            && !spec.excluded.iter().any(|name| names.contains(name))
            && nodes.iter().all(|node| *node >= spec.relative.unwrap_or(0));
        let open = (spec.relative.unwrap_or(0)..NODES)
            .filter(|node| !spec.excluded.contains(&node_name(node + 1)))
            .count();
        let all = u32::try_from(open).unwrap();
        let tasks = match (spec.ntasks, spec.ntasks_per_node, spec.nodes_min) {
            (Some(tasks), _, _) => tasks,
            (None, Some(each), _) => each * count,
            (None, None, Some(_)) => count,
            (None, None, None) => job_tasks,
        };
        let default = if by_node { all } else { 1 };
        let most = spec.nodes_max.or(spec.nodes_min).unwrap_or(NODES);
        // Fewer tasks than nodes take fewer nodes.
        let cap = spec.ntasks.unwrap_or(u32::MAX);
        let least = spec.nodes_min.unwrap_or(default).min(cap);
        let counts = least <= count
            && count <= most.max(u32::try_from(spec.required.len()).unwrap())
            && count <= tasks;
        let room: u32 = nodes
            .iter()
            .map(|node| {
                let here = free[*node as usize];
                let tried = (1..=tasks).filter(|tasks| fits(spec, *tasks, here, threads));
                let most = tried.max().unwrap_or(0);
                if by_node && most < spec.ntasks_per_node.unwrap_or(0) { 0 } else { most }
            })
            .map(|room| if room == 0 { None } else { Some(room) })
            .sum::<Option<u32>>()
            .unwrap_or(0);
        named && counts && room >= tasks
    })
}

fn wish() -> impl Strategy<Value = StepSpec> {
    let small = |most: u32| prop::option::of(1..=most);
    let nodes = prop_oneof![
        3 => Just((None, None)),
        2 => (1..=NODES).prop_map(|least| (Some(least), None)),
        1 => (1..=2u32, 0..=1u32).prop_map(|(least, more)| (Some(least), Some(least + more))),
    ];
    let one = || prop::option::weighted(0.2, 1..=NODES);
    let counts = (small(14), nodes, prop::option::weighted(0.3, 1..=3u32), small(3));
    let flags = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let amounts = (prop::option::of(50..=700u64), prop::option::of(0..=3u64));
    let places = (one(), one(), prop::option::weighted(0.2, 0..NODES));
    (counts, flags, amounts, places).prop_map(|(counts, flags, amounts, places)| {
        let (ntasks, (nodes_min, nodes_max), cpus_per_task, ntasks_per_node) = counts;
        let gpus = |count| GresRequest { name: GresName::gpu(), count };
        StepSpec {
            ntasks,
            nodes_min,
            nodes_max,
            cpus_per_task,
            ntasks_per_node: ntasks_per_node.filter(|_| nodes_max.is_none()),
            exact: flags.0,
            overlap: flags.1,
            overcommit: flags.2,
            memory: amounts.0.map_or(MemoryRequest::Default, |m| MemoryRequest::PerNode(Mib(m))),
            gres_per_node: amounts.1.map(gpus).into_iter().collect(),
            required: places.0.map(node_name).into_iter().collect(),
            excluded: places.1.map(node_name).into_iter().collect(),
            relative: places.2,
            ..step().0
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_step_gets_a_place_exactly_where_the_reference_finds_one(
        threads in 1..=2u32,
        wishes in prop::collection::vec((wish(), any::<bool>()), 1..10),
    ) {
        let threads = if threads == 2 { 2 } else { 1 };
        let mut w =
            world().nodes(NODES).cpus(CPUS).threads(threads).memory(MEMORY).gpus(2).build();
        let asked = job().nodes(NODES).tasks(NODES * CPUS).memory(MEMORY).gres("gpu:2");
        let id = w.started(&asked.allocation());
        let job_tasks = NODES * CPUS;
        for (spec, ends) in wishes {
            let free = free_of(&w, id);
            let now = feasible(&spec, &free, threads, job_tasks);
            let ever = feasible(&spec, &[EMPTY; NODES as usize], threads, job_tasks);
            let got = w.try_step(id, &StepBuilder(spec.clone()));
            let text = format!("{spec:?} with {free:?}: {got:?}");
            match got {
                Ok(key) => {
                    prop_assert!(now, "{}", text);
                    let step = w.the_step(key);
                    let mut ranks: Vec<u32> =
                        step.shares.iter().flat_map(|part| part.ranks.to_vec()).collect();
                    ranks.sort_unstable();
                    let all: Vec<u32> = (0..step.task_count()).collect();
                    prop_assert_eq!(ranks, all, "{}", text);
                    prop_assert!(step.shares.iter().all(|part| !part.ranks.is_empty()));
                    for part in &step.shares {
                        let wanted = part.share.tasks * spec.cpus_per_task.unwrap_or(1);
                        let enough = part.share.cpu_count() >= wanted || spec.overcommit;
                        prop_assert!(enough, "{}", text);
                    }
                    if ends {
                        for part in step.shares.iter() {
                            w.step_report(key, part.share.node.0 + 1, ended(0));
                        }
                    }
                }
                Err(Refusal::StepBusy(_)) => prop_assert!(!now && ever, "{}", text),
                Err(_) => prop_assert!(!ever, "{}", text),
            }
        }
    }
}
