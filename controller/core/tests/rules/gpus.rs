//! How do jobs ask for GPUs, and which do they get?

use penstock_core::model::{
    Gpu, GpuLink, GpuTerms, Inventory, MemoryRequest, NodeShare, SHARD, Shape,
};
use penstock_vocab::{GresRequest, JobId, JobState, Mib, parse_gres_list};

use crate::common::{JobBuilder, World, job, world};

/// Eight GPUs in two halves, 32 CPUs in two halves.
fn eight(kind: &str) -> Inventory {
    let gpu = |index: u32| {
        let link = |peer: u32| GpuLink {
            peer,
            nvlinks: 0,
            ancestor: if index / 4 == peer / 4 { 20 } else { 50 },
        };
        Gpu {
            index,
            uuid: format!("GPU-{kind}-{index}").into(),
            kind: kind.into(),
            numa: Some(index / 4),
            links: (0..8).filter(|peer| *peer != index).map(link).collect(),
            cpus: Box::new([(index / 4 * 16, index / 4 * 16 + 15)]),
            ..Gpu::default()
        }
    };
    Inventory {
        cpus: 32,
        threads_per_core: 1,
        memory: Mib(320_000),
        gres: parse_gres_list(&format!("gpu:{kind}:8")).unwrap().into(),
        gpus: (0..8).map(gpu).collect(),
        boot_id: "boot".into(),
        ..Inventory::default()
    }
}

fn with(nodes: &[Inventory]) -> World {
    let mut w = world().nodes(0).build();
    for (number, inventory) in (1..).zip(nodes) {
        w.register_with(number, inventory.clone(), Vec::new());
    }
    w
}

fn shares(w: &World, id: JobId) -> Vec<NodeShare> {
    w.job(id).active_run().map(|run| run.shares.to_vec()).unwrap_or_default()
}

fn ids(share: &NodeShare) -> Vec<u32> {
    let mut ids: Vec<u32> = share.gres.iter().flat_map(|gres| gres.ids.to_vec()).collect();
    ids.sort_unstable();
    ids
}

fn gpus(text: &str) -> GresRequest {
    format!("gpu:{text}").parse().unwrap()
}

fn asks(change: impl FnOnce(&mut Shape)) -> JobBuilder {
    job().shape(|shape| {
        shape.memory = MemoryRequest::PerNode(Mib(1_000));
        change(shape);
    })
}

#[test]
fn cpus_and_gpus_of_a_job_are_near_each_other() {
    let mut w = with(&[eight("h100")]);
    let first = w.submit(&job().gres("gpu:1"));
    let pair = w.submit(&job().gres("gpu:4"));
    w.run_plan();
    assert_eq!(ids(&shares(&w, first)[0]), [0]);
    let four = &shares(&w, pair)[0];
    assert_eq!(ids(four), [4, 5, 6, 7]);
    assert!(four.cpus.ones().all(|cpu| cpu >= 16), "{:?}", four.cpus);
}

#[test]
fn gpus_of_tasks_sockets_and_the_whole_job_are_counted_on_each_node() {
    type Layout = &'static [(u32, u32, usize)];
    let per_task = |count: &str| GpuTerms { per_task: Some(gpus(count)), ..GpuTerms::default() };
    let cases: [(JobBuilder, Layout); 6] = [
        // Tasks, CPUs and GPUs of each node.
        (asks(|s| (s.ntasks, s.gpus) = (Some(3), per_task("2"))), &[(3, 3, 6)]),
        (asks(|s| (s.ntasks, s.gpus) = (Some(6), per_task("2"))), &[(4, 4, 8), (2, 2, 4)]),
        (asks(|s| (s.gpus_total, s.gpus) = (Some(gpus("6")), per_task("3"))), &[(2, 2, 6)]),
        (
            asks(|s| {
                s.gpus.per_socket = Some(gpus("2"));
                s.gpus.sockets_per_node = 2;
            }),
            &[(1, 1, 4)],
        ),
        (
            asks(|s| {
                s.gres_per_node = Box::new([gpus("h100:2")]);
                s.gpus.cpus_per_gpu = Some(5);
            }),
            &[(1, 10, 2)],
        ),
        (
            asks(|s| {
                (s.gpus_total, s.ntasks, s.nodes_min) = (Some(gpus("10")), Some(2), 2);
                s.gpus.cpus_per_gpu = Some(4);
            }),
            &[(1, 32, 8), (1, 8, 2)],
        ),
    ];
    for (request, expected) in cases {
        let mut w = with(&[eight("h100"), eight("h100")]);
        let id = w.submit(&request);
        w.run_plan();
        let layout: Vec<_> =
            shares(&w, id).iter().map(|s| (s.tasks, s.cpu_count(), ids(s).len())).collect();
        assert_eq!(layout, expected, "{:?}", request.spec.shape);
    }
}

#[test]
fn sockets_give_the_same_number_each() {
    let mut w = with(&[eight("h100")]);
    let three = w.submit(&job().gres("gpu:3").minutes(60));
    w.run_plan();
    assert_eq!(ids(&shares(&w, three)[0]), [0, 1, 2]);
    let both = |each: &str| {
        let each = gpus(each);
        asks(move |s| {
            s.gpus.per_socket = Some(each);
            s.gpus.sockets_per_node = 2;
        })
    };
    let two = w.submit(&both("2").minutes(10));
    let one = w.submit(&both("1").minutes(10));
    assert_eq!(w.run_plan(), [one]);
    assert_eq!(ids(&shares(&w, one)[0]), [3, 4]);
    w.exit(three, 0);
    w.exit(one, 0);
    assert_eq!(w.run_plan(), [two]);
}

#[test]
fn memory_of_gpus_is_what_a_job_gets_and_what_bounds_it() {
    let mut w = with(&[eight("h100")]);
    let asked = |count: u64, mib: u64| {
        job().shape(move |s| {
            s.gres_per_node = Box::new([gpus(&count.to_string())]);
            s.memory = MemoryRequest::PerGpu(Mib(mib));
        })
    };
    let id = w.submit(&asked(3, 40_000));
    w.run_plan();
    assert_eq!(shares(&w, id)[0].memory, Mib(120_000));
    let large = w.submit(&asked(5, 60_000));
    assert!(w.run_plan().is_empty());
    let refusal = w.try_submit(&asked(8, 60_000)).unwrap_err();
    assert!(refusal.to_string().contains("of memory a GPU"), "{refusal}");
    w.exit(id, 0);
    assert_eq!(w.run_plan(), [large]);
}

#[test]
fn of_a_choice_the_first_that_fits_is_taken() {
    let either = |texts: &[&str]| {
        let choices = texts.iter().map(|text| parse_gres_list(text).unwrap().into()).collect();
        asks(|s| s.gpus.choices = choices)
    };
    let kind = |w: &World, id| shares(w, id)[0].gres[0].name.to_string();
    let mut w = with(&[eight("h100"), eight("a100")]);
    let first = w.submit(&either(&["gpu:h100:6", "gpu:a100:8"]));
    let second = w.submit(&either(&["gpu:h100:6", "gpu:a100:8"]));
    let third = w.submit(&either(&["gpu:h100:6", "gpu:a100:8"]));
    assert_eq!(w.run_plan(), [first, second]);
    assert_eq!((kind(&w, first).as_str(), kind(&w, second).as_str()), ("gpu:h100", "gpu:a100"));
    assert_eq!(ids(&shares(&w, second)[0]).len(), 8);
    // The third has a place kept for it and takes whichever comes first.
    w.exit(second, 0);
    assert_eq!(w.run_plan(), [third]);
    // One choice that there is will do; else what there is is told.
    w.submit(&either(&["gpu:b200:1", "gpu:a100:1"]));
    let refusal = w.try_submit(&either(&["gpu:b200:1", "gpu:2g.20gb:1"])).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "no node has the generic resource gpu:b200; there are gpu:a100, gpu:h100"
    );
}

#[test]
fn shards_share_a_gpu_that_nobody_holds_whole() {
    let mut inventory = eight("h100");
    inventory.gres = parse_gres_list("gpu:h100:8,shard:32").unwrap().into();
    let mut w = with(&[inventory]);
    let shared: Vec<_> = (0..2).map(|_| w.submit(&job().gres("shard:2"))).collect();
    let whole = w.submit(&job().gres("gpu:7"));
    let late = w.submit(&job().gres("gpu:1"));
    let more = w.submit(&job().gres("shard:1"));
    assert_eq!(w.run_plan(), [shared[0], shared[1], whole]);
    assert_eq!(ids(&shares(&w, shared[1])[0]), [2, 3], "of the same GPU");
    assert_eq!(ids(&shares(&w, whole)[0]), [1, 2, 3, 4, 5, 6, 7]);
    assert!(shares(&w, shared[0])[0].gres.iter().all(|gres| gres.name.name() == SHARD));
    w.exit(shared[0], 0);
    assert!(w.state(late) == JobState::Pending);
    assert_eq!(w.run_plan(), [more]);
    // No GPU has five.
    assert!(w.try_submit(&job().gres("shard:5")).is_err());
}

#[test]
fn slices_and_shards_cost_their_part_of_the_model() {
    use penstock_core::model::{MigMode, MigProfile, MigSlice};
    let profile = |name: &str, size, compute| MigProfile {
        name: name.into(),
        size,
        compute,
        ..MigProfile::default()
    };
    let slice = |name: &str, start, size| MigSlice {
        profile: name.into(),
        start,
        size,
        ..MigSlice::default()
    };
    let mut inventory = eight("h100");
    let mut gpus = inventory.gpus.to_vec();
    gpus[7].mig = MigMode::On;
    gpus[7].profiles =
        Box::new([profile("1g.10gb", 1, 1), profile("3g.40gb", 4, 3), profile("7g.80gb", 8, 7)]);
    gpus[7].slices = Box::new([slice("1g.10gb", 0, 1), slice("3g.40gb", 4, 4)]);
    inventory.gpus = gpus.into();
    let gres = "gpu:h100:7,gpu:1g.10gb:1,gpu:3g.40gb:1,shard:28";
    inventory.gres = parse_gres_list(gres).unwrap().into();
    let cost = |weights: &[(&str, u64)], asked: &str| {
        let weights = weights.iter().map(|(kind, w)| (kind.parse().unwrap(), w * 1_000_000));
        let weights: std::collections::BTreeMap<_, _> = weights.collect();
        let mut w = world().nodes(0).scheduling(|s| s.fairshare.billing = weights).build();
        w.register_with(1, inventory.clone(), Vec::new());
        let id = w.submit(&job().gres(asked));
        w.run_plan();
        w.job(id).active_run().unwrap().billing
    };
    let model = [("gres/gpu:h100", 700)];
    for (weights, asked, expect) in [
        (&model[..], "gpu:h100:2", 1_400),
        // A seventh of the compute, an eighth of the memory; three sevenths, and half.
        (&model, "gpu:1g.10gb:1", 99),
        (&model, "gpu:3g.40gb:1", 350),
        (&model, "shard:2", 350),
        (&[("gres/gpu", 100)], "gpu:h100:2", 200),
        (&[("gres/gpu", 100)], "gpu:3g.40gb:1", 50),
        (&[("gres/gpu:h100", 700), ("gres/gpu:3g.40gb", 5)], "gpu:3g.40gb:1", 5),
        (&[("gres/gpu:h100", 700), ("gres/shard", 3)], "shard:2", 6),
    ] {
        assert_eq!(cost(weights, asked), expect, "{weights:?} {asked}");
    }
}
