//! Which nodes does a job get, where several would do, and where few do?

use std::collections::BTreeSet;

use penstock_core::Command;
use penstock_core::command::{NodeAction, NodeUpdate, Target};
use penstock_core::model::{
    Block, Inventory, MemoryRequest, Packing, Scheduling, Switch, SwitchRequest, Topology,
};
use penstock_core::scheduler::{could_ever_fit, fragmentation};
use penstock_vocab::{JobId, Mib, parse_gres_list};
use proptest::prelude::*;

use crate::common::{JobBuilder, World, admin, job, node_name, partition_name, user, world};

/// Numbers of the nodes that a job runs on.
fn nodes_of(w: &World, id: JobId) -> Vec<u32> {
    let shares = w.job(id).active_run().map(|run| run.shares.to_vec()).unwrap_or_default();
    let number = |name: &str| name[1..].parse().unwrap();
    let node = |index| w.cluster.node(index).unwrap().0.name.as_str().to_owned();
    shares.iter().map(|share| number(&node(share.node))).collect()
}

fn set_features(w: &mut World, number: u32, features: &[&str]) {
    let features = Some(features.iter().map(|feature| (*feature).into()).collect());
    let update = NodeUpdate { features, ..NodeUpdate::default() };
    let names = vec![node_name(number)];
    w.execute(Command::UpdateNode(admin(), names, Box::new(update))).unwrap();
}

fn set_weight(w: &mut World, number: u32, weight: u32) {
    let update = NodeUpdate { weight: Some(weight), ..NodeUpdate::default() };
    let names = vec![node_name(number)];
    w.execute(Command::UpdateNode(admin(), names, Box::new(update))).unwrap();
}

/// Leaves of these nodes below one switch; a block for each of `blocks`.
fn topology(leaves: &[&[u32]], blocks: &[&[u32]]) -> impl FnOnce(&mut Scheduling) {
    let names = |nodes: &[u32]| nodes.iter().map(|number| node_name(*number)).collect();
    let mut switches: Vec<_> = (0..)
        .zip(leaves)
        .map(|(at, nodes)| Switch {
            name: format!("s{at}").into(),
            nodes: names(nodes),
            switches: Box::default(),
        })
        .collect();
    switches.push(Switch {
        name: "top".into(),
        nodes: Box::default(),
        switches: switches.iter().map(|switch| switch.name.clone()).collect(),
    });
    let block =
        |(at, nodes): (u32, &&[u32])| Block { name: format!("b{at}").into(), nodes: names(nodes) };
    let blocks = (0..).zip(blocks).map(block).collect();
    move |s| s.topology = Topology { switches: switches.into(), blocks }
}

fn under(count: u32, max_wait_secs: u32) -> impl FnOnce(&mut penstock_core::model::Shape) {
    move |shape| shape.switches = Some(SwitchRequest { count, max_wait_secs })
}

#[test]
fn so_many_nodes_have_what_was_counted() {
    let cases: [(&str, u32, &[u32]); 7] = [
        ("a*1&b*1", 0, &[1, 2]),
        ("[a*1&b*2]", 0, &[1, 2, 3]),
        ("b*2", 3, &[1, 2, 3]),
        ("a*1", 4, &[1, 2, 3, 4]),
        ("[a|b]", 2, &[2, 3]),
        ("[c|b]", 2, &[2, 3]),
        ("(a|b)&a*1", 2, &[1, 2]),
    ];
    for (constraint, count, expected) in cases {
        let mut w = world().nodes(4).build();
        for (number, features) in [(1, &["a"][..]), (2, &["b"]), (3, &["b"]), (4, &["c"])] {
            set_features(&mut w, number, features);
        }
        let id = w.submit(&job().nodes(count).constraint(constraint));
        w.run_plan();
        assert_eq!(nodes_of(&w, id), expected, "{constraint}");
    }
    let mut w = world().nodes(4).build();
    set_features(&mut w, 1, &["a", "b"]);
    let refused = w.try_submit(&job().constraint("a*1&b*1"));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("a*1&b*1"), "no node is counted twice: {text}");
}

#[test]
fn nodes_for_one_user_take_no_other() {
    let mine = |s: &mut penstock_core::model::Shape| s.exclusive_user = true;
    let mut w = world().nodes(2).build();
    let first = w.submit(&job().shape(mine));
    let again = w.submit(&job().shape(mine));
    let other = w.submit(&job().by(user(7)));
    w.run_plan();
    assert_eq!((nodes_of(&w, first), nodes_of(&w, again)), (vec![1], vec![1]));
    assert_eq!(nodes_of(&w, other), [2], "whatever it asks for itself");
    // Not beside somebody else's job, even one that would not mind.
    let alone = w.submit(&job().tasks(3).shape(mine));
    assert!(w.run_plan().is_empty());
    w.exit(other, 0);
    assert_eq!(w.run_plan(), [alone]);
    assert_eq!(nodes_of(&w, alone), [2]);
    // A partition can say so for all its jobs.
    let mut w = world().nodes(1).main(|p| p.exclusive_user = true).build();
    let first = w.submit(&job());
    let other = w.submit(&job().by(user(7)));
    assert_eq!(w.run_plan(), [first]);
    w.exit(first, 0);
    assert_eq!(w.run_plan(), [other]);
}

#[test]
fn nodes_stand_under_the_lowest_common_switch_that_fits_best() {
    let leaves: [&[u32]; 3] = [&[1, 2, 3, 4], &[5, 6], &[7, 8, 9]];
    let cases: [(u32, &[u32]); 5] = [
        (2, &[5, 6]),
        (3, &[7, 8, 9]),
        (4, &[1, 2, 3, 4]),
        (5, &[1, 2, 3, 4, 5]),
        (7, &[1, 2, 3, 4, 7, 8, 9]),
    ];
    for (count, expected) in cases {
        let mut w = world().nodes(9).scheduling(topology(&leaves, &[])).build();
        let id = w.submit(&job().nodes(count));
        w.run_plan();
        assert_eq!(nodes_of(&w, id), expected);
    }
    // What is free counts, not what is there.
    let mut w = world().nodes(9).scheduling(topology(&leaves, &[])).build();
    w.submit(&job().on(&[7]).tasks(4));
    w.submit(&job().on(&[1]).tasks(4));
    let three = w.submit(&job().nodes(3));
    w.run_plan();
    assert_eq!(nodes_of(&w, three), [2, 3, 4]);
}

#[test]
fn a_block_comes_before_any_switch() {
    let leaves: [&[u32]; 2] = [&[1, 2, 3], &[4, 5, 6, 7]];
    let scheduling = topology(&leaves, &[&[3, 4], &[1, 2, 5]]);
    let mut w = world().nodes(7).scheduling(scheduling).build();
    let pair = w.submit(&job().nodes(2).tasks(8));
    let three = w.submit(&job().nodes(3).tasks(12));
    w.run_plan();
    assert_eq!((nodes_of(&w, pair), nodes_of(&w, three)), (vec![3, 4], vec![1, 2, 5]));
    // Blocks alone: as few of them as can be.
    let blocks: [&[u32]; 3] = [&[1, 2], &[3, 4, 5], &[6, 7]];
    let mut w = world().nodes(7).scheduling(topology(&[], &blocks)).build();
    let wide = w.submit(&job().nodes(5));
    w.run_plan();
    assert_eq!(nodes_of(&w, wide), [1, 2, 3, 4, 5]);
}

#[test]
fn a_job_waits_for_few_switches_as_long_as_it_says() {
    let leaves: [&[u32]; 2] = [&[1, 2], &[3, 4]];
    let mut w = world().nodes(4).scheduling(topology(&leaves, &[])).build();
    let small = w.submit(&job().on(&[1]).tasks(4));
    let other = w.submit(&job().on(&[3]).tasks(4));
    let pair = w.submit(&job().nodes(2).shape(under(1, 600)));
    assert_eq!(w.run_plan(), [small, other]);
    w.wait(599);
    assert!(w.run_plan().is_empty(), "one node is free below each switch");
    w.wait(1);
    assert_eq!(w.run_plan(), [pair]);
    assert_eq!(nodes_of(&w, pair), [2, 4]);
    // The other way: room comes before the time is over.
    let mut w = world().nodes(4).scheduling(topology(&leaves, &[])).build();
    w.submit(&job().on(&[1]).tasks(4));
    let other = w.submit(&job().on(&[3]).tasks(4));
    let pair = w.submit(&job().nodes(2).shape(under(1, 600)));
    w.run_plan();
    w.exit(other, 0);
    assert_eq!(w.run_plan(), [pair]);
    assert_eq!(nodes_of(&w, pair), [3, 4]);
}

#[test]
fn of_equal_nodes_the_first_by_name_is_taken() {
    let mut w = world().nodes(0).build();
    for number in [10, 9, 2] {
        w.register(number, Vec::new());
    }
    let id = w.submit(&job());
    w.run_plan();
    assert_eq!(nodes_of(&w, id), [2]);
}

#[test]
fn weight_decides_before_devices_and_devices_before_fullness() {
    let mut w = world().nodes(3).build();
    let gres = parse_gres_list("gpu:2").unwrap();
    for number in [1, 2] {
        let inventory = Inventory { gres: gres.clone().into(), ..w.inventory.clone() };
        w.register_with(number, inventory, Vec::new());
    }
    let plain = w.submit(&job());
    let gpu = w.submit(&job().gres("gpu:1"));
    w.run_plan();
    assert_eq!((nodes_of(&w, plain), nodes_of(&w, gpu)), (vec![3], vec![1]));
    // A light node with devices comes before a heavy one without.
    set_weight(&mut w, 3, 9);
    let light = w.submit(&job());
    // And where the plain one is full, the others are used.
    w.run_plan();
    assert_eq!(nodes_of(&w, light), [1]);
    set_weight(&mut w, 3, 1);
    let wide = w.submit(&job().tasks(4));
    w.run_plan();
    assert_eq!(nodes_of(&w, wide), [2], "none else has four CPUs");
}

#[test]
fn memory_counts_the_cores_that_are_given_out() {
    let cases = [
        (MemoryRequest::Default, 1, 2_000),
        (MemoryRequest::Default, 2, 2_000),
        (MemoryRequest::Default, 3, 4_000),
        (MemoryRequest::PerCpu(Mib(100)), 1, 200),
        (MemoryRequest::PerCpu(Mib(100)), 3, 400),
        (MemoryRequest::PerNode(Mib(100)), 3, 100),
    ];
    for (memory, tasks, expected) in cases {
        let mut w = world().nodes(1).cpus(4).threads(2).memory(4_000).build();
        let id = w.submit(&job().tasks(tasks).shape(|s| s.memory = memory));
        w.run_plan();
        let run = w.job(id).active_run().cloned().unwrap();
        assert_eq!(run.shares[0].memory, Mib(expected), "{memory:?} {tasks}");
    }
    // Two tasks that take a core each need the memory of four CPUs.
    let mut w = world().nodes(1).cpus(4).threads(2).memory(4_000).build();
    let asks = job().memory(0).shape(|s| s.memory = MemoryRequest::PerCpu(Mib(1_001)));
    let partition = w.cluster.partition(&partition_name("main")).unwrap();
    assert!(could_ever_fit(&w.cluster, partition, &asks.clone().tasks(4).spec.shape).is_err());
    let ids = [w.submit(&asks), w.submit(&asks)];
    assert_eq!(w.run_plan(), ids[..1]);
}

#[test]
fn gpus_are_kept_together_for_those_who_will_ask() {
    // Two jobs of one GPU run, one on each node; what is typical asks for three or for one.
    let start = |packing| {
        let mut w = world().nodes(2).cpus(16).gpus(4).scheduling(|s| s.packing = packing).build();
        let ids =
            [w.submit(&job().on(&[1]).gres("gpu:1")), w.submit(&job().on(&[2]).gres("gpu:1"))];
        let third = w.submit(&job().gres("gpu:1"));
        let large = w.submit(&job().gres("gpu:3"));
        let started = w.run_plan();
        (w, ids, third, large, started)
    };
    for packing in [Packing::FirstFit, Packing::BestFit, Packing::Fragmentation] {
        let (w, _, third, large, started) = start(packing);
        assert_eq!(started.len(), 4, "{packing:?}");
        assert_eq!((nodes_of(&w, third), nodes_of(&w, large)), (vec![1], vec![2]), "{packing:?}");
    }
    // Fragmentation sees what is next to the GPUs: CPUs that would strand them.
    let strand = |packing| {
        let mut w = world().nodes(0).scheduling(|s| s.packing = packing).build();
        for (number, cpus, gpus) in [(1, 8, 4), (2, 12, 0), (3, 10, 1)] {
            let gres = parse_gres_list(&format!("gpu:{gpus}")).unwrap().into();
            let inventory = Inventory { cpus, gres, memory: Mib(99_000), ..w.inventory.clone() };
            let inventory =
                if gpus == 0 { Inventory { gres: Box::default(), ..inventory } } else { inventory };
            w.register_with(number, inventory, Vec::new());
        }
        let full = w.submit(&job().on(&[2]).tasks(12));
        let plain = w.submit(&job().tasks(5));
        // A GPU goes with four CPUs here.
        let gpu = job().gres("gpu:1").shape(|s| s.cpus_per_task = Some(4));
        let waiting: Vec<_> = (0..3).map(|_| w.submit(&gpu)).collect();
        w.run_plan();
        assert_eq!(nodes_of(&w, full), [2]);
        (nodes_of(&w, plain), waiting.iter().filter(|id| !nodes_of(&w, **id).is_empty()).count())
    };
    assert_eq!(strand(Packing::Fragmentation), (vec![3], 3));
    assert_eq!(strand(Packing::FirstFit).0, [1]);
}

#[test]
fn fragmentation_is_the_share_of_free_gpus_that_typical_jobs_cannot_use() {
    let mut w = world().nodes(2).cpus(8).gpus(4).build();
    assert_eq!(fragmentation(&w.cluster), 0, "nobody asks for GPUs");
    let first = w.submit(&job().on(&[1]).gres("gpu:3"));
    let second = w.submit(&job().on(&[2]).gres("gpu:3"));
    w.run_plan();
    // One GPU is free on each node, and what is typical asks for three.
    assert_eq!(fragmentation(&w.cluster), 1_000_000);
    w.exit(first, 0);
    assert_eq!(fragmentation(&w.cluster), 200_000, "one of five");
    w.exit(second, 0);
    assert_eq!(fragmentation(&w.cluster), 0);
}

/// What a random job asks for: the same on each of its nodes.
#[derive(Debug, Clone)]
struct Asked {
    nodes: u32,
    cpus: u32,
    memory: u64,
    per_cpu: bool,
    gpus: u64,
    constraint: Wish,
    uid: u32,
    alone: bool,
    switches: u32,
}

#[derive(Debug, Clone)]
enum Wish {
    Nothing,
    Every(usize),
    Either(usize, usize),
    Same(usize, usize),
    Counts((usize, u32), (usize, u32)),
}

const FEATURES: [&str; 3] = ["a", "b", "c"];

impl Wish {
    fn text(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Every(one) => FEATURES[*one].to_owned(),
            Self::Either(one, two) => format!("{}|{}", FEATURES[*one], FEATURES[*two]),
            Self::Same(one, two) => format!("[{}|{}]", FEATURES[*one], FEATURES[*two]),
            Self::Counts((one, m), (two, n)) => {
                format!("[{}*{m}&{}*{n}]", FEATURES[*one], FEATURES[*two])
            }
        }
    }

    fn least(&self) -> u32 {
        if let Self::Counts((_, m), (_, n)) = self { m + n } else { 0 }
    }

    /// Features of each chosen node as bits.
    fn holds(&self, nodes: &[u32]) -> bool {
        let all = |one: usize| nodes.iter().all(|node| node & 1 << one != 0);
        match self {
            Self::Nothing => true,
            Self::Every(one) => all(*one),
            Self::Either(one, two) => nodes.iter().all(|n| n & (1 << one | 1 << two) != 0),
            Self::Same(one, two) => all(*one) || all(*two),
            // Some set of nodes is counted for the one, and enough others for the two.
            Self::Counts((one, m), (two, n)) => (0u32..1 << nodes.len()).any(|set| {
                let has = |at: &usize, feature: usize| nodes[*at] & 1 << feature != 0;
                let (first, rest): (Vec<_>, Vec<_>) =
                    (0..nodes.len()).partition(|at| set & 1 << at != 0);
                let count = |of: &[usize], feature| of.iter().filter(|at| has(at, feature)).count();
                count(&first, *one) >= *m as usize && count(&rest, *two) >= *n as usize
            }),
        }
    }
}

/// A node of a random world.
#[derive(Debug, Clone)]
struct Made {
    cores: u32,
    gpus: u64,
    features: u32,
    weight: u32,
    leaf: usize,
}

impl Asked {
    fn builder(&self) -> JobBuilder {
        let memory = if self.per_cpu {
            MemoryRequest::PerCpu(Mib(self.memory))
        } else {
            MemoryRequest::PerNode(Mib(self.memory))
        };
        let mut asks = job().by(user(self.uid)).constraint(&self.constraint.text()).shape(|s| {
            s.nodes_min = self.nodes;
            s.ntasks_per_node = Some(1);
            s.cpus_per_task = Some(self.cpus);
            s.memory = memory;
            s.exclusive_user = self.alone;
        });
        if self.gpus > 0 {
            asks = asks.gres(&format!("gpu:{}", self.gpus));
        }
        if self.switches > 0 {
            asks = asks.shape(under(self.switches, 1_000_000));
        }
        asks
    }

    /// The slow, obvious answer: some set of nodes has it all.
    fn fits(&self, w: &World, made: &[Made], threads: u32) -> bool {
        let count = self.nodes.max(self.constraint.least()).max(1);
        let cpus = self.cpus.div_ceil(threads) * threads;
        let memory = self.memory * if self.per_cpu { u64::from(cpus) } else { 1 };
        let serves = w.cluster.nodes().map(|(_, node, used)| {
            let others: Vec<_> = used.jobs.iter().map(|id| w.job(*id)).collect();
            let others = others.iter().filter(|other| other.uid.0 != self.uid);
            let mut others = others.map(|other| other.spec.shape.exclusive_user);
            let gpus: u64 = node.inventory.gres.iter().map(|gres| gres.count).sum();
            let busy = used.gres.first().map_or(0, |units| units.count_ones(..) as u64);
            node.inventory.cpus - used.cpu_count() >= cpus
                && node.inventory.memory.0 - used.memory.0 >= memory
                && gpus - busy >= self.gpus
                && others.all(|alone| !alone && !self.alone)
        });
        let serves: Vec<bool> = serves.collect();
        (0u32..1 << made.len()).any(|set| {
            let chosen: Vec<_> = (0..made.len()).filter(|at| set & 1 << at != 0).collect();
            let features: Vec<_> = chosen.iter().map(|at| made[*at].features).collect();
            let leaves: BTreeSet<_> = chosen.iter().map(|at| made[*at].leaf).collect();
            chosen.len() == count as usize
                && chosen.iter().all(|at| serves[*at])
                && self.constraint.holds(&features)
                && (self.switches == 0 || leaves.len() <= self.switches as usize)
        })
    }
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let two = || (0usize..3, 0usize..3);
    prop_oneof![
        3 => Just(Wish::Nothing),
        1 => (0usize..3).prop_map(Wish::Every),
        1 => two().prop_map(|(one, two)| Wish::Either(one, two)),
        2 => two().prop_map(|(one, two)| Wish::Same(one, two)),
        2 => (two(), 1u32..3, 1u32..3)
            .prop_map(|((one, two), m, n)| Wish::Counts((one, m), (two, n))),
    ]
}

prop_compose! {
    fn any_asked()(
        (nodes, cpus, memory, per_cpu) in (1u32..4, 1u32..4, 1u64..1_500, any::<bool>()),
        (gpus, constraint) in (0u64..3, any_wish()),
        (uid, alone, switches) in (1_000u32..1_003, prop::bool::weighted(0.3), 0u32..3),
    ) -> Asked {
        Asked { nodes, cpus, memory, per_cpu, gpus, constraint, uid, alone, switches }
    }
}

prop_compose! {
    fn any_made()(
        (cores, gpus, features) in (1u32..5, 0u64..4, 0u32..8),
        (weight, leaf) in (0u32..3, 0usize..3),
    ) -> Made {
        Made { cores, gpus, features, weight, leaf }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever is placed is accepted by the check at the start: `run_plan` insists on it.
    #[test]
    fn a_job_is_placed_exactly_if_some_set_of_nodes_has_it_all(
        made in prop::collection::vec(any_made(), 1..6),
        threads in 1u32..3,
        packing in prop_oneof![
            Just(Packing::FirstFit), Just(Packing::BestFit), Just(Packing::Fragmentation)
        ],
        asked in prop::collection::vec(any_asked(), 1..8),
    ) {
        let mut leaves: Vec<Vec<u32>> = vec![Vec::new(); 3];
        for (number, node) in (1..).zip(&made) {
            leaves[node.leaf].push(number);
        }
        let leaves: Vec<&[u32]> = leaves.iter().map(|leaf| &**leaf).collect();
        let with = topology(&leaves, &[]);
        let mut w = world().nodes(0).threads(threads).scheduling(|s| {
            with(s);
            s.packing = packing;
        }).build();
        for (number, node) in (1..).zip(&made) {
            let gres = parse_gres_list(&format!("gpu:{}", node.gpus)).unwrap().into();
            let gres = if node.gpus == 0 { Box::default() } else { gres };
            let cpus = node.cores * threads;
            w.register_with(number, Inventory { cpus, gres, ..w.inventory.clone() }, Vec::new());
            let has = |at: &usize| node.features & 1 << at != 0;
            let features: Vec<_> = (0..3).filter(has).map(|at| FEATURES[at]).collect();
            set_features(&mut w, number, &features);
            set_weight(&mut w, number, node.weight);
        }
        // Words that no node knows are refused; this one knows all and takes nothing.
        let extra = parse_gres_list("gpu:1").unwrap().into();
        w.register_with(99, Inventory { gres: extra, ..w.inventory.clone() }, Vec::new());
        set_features(&mut w, 99, &FEATURES);
        w.node_action(99, NodeAction::Drain);
        for asked in asked {
            let idle = w.active().is_empty() && asked.switches == 0;
            let Ok(id) = w.try_submit(&asked.builder()) else {
                prop_assert!(!idle || !asked.fits(&w, &made, threads), "{asked:?} was refused");
                continue;
            };
            let fits = asked.fits(&w, &made, threads);
            let started = w.run_plan().contains(&id);
            prop_assert_eq!(started, fits, "{:?} on {:?}", asked, made);
            if started {
                let features: Vec<_> =
                    nodes_of(&w, id).iter().map(|n| made[*n as usize - 1].features).collect();
                prop_assert!(asked.constraint.holds(&features));
            } else {
                // It would close the queue to the rest.
                w.cancel(admin(), Target::Id(id));
            }
        }
    }
}
