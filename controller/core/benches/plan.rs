//! How long does the core take: a plan over many jobs and nodes, a submit, a snapshot?
//!
//! `cargo bench -p penstock-core`. Budgets: a plan for 100,000 pending jobs on 10,000 nodes x 8 GPUs
//! under 250 ms cold and 25 ms after one change.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use penstock_core::command::{Caller, Submission};
use penstock_core::model::{
    Config, Details, Inventory, JobSpec, MemoryRequest, Partition, Policy, Shape,
};
use penstock_core::scheduler::{Limits, plan};
use penstock_core::{Cluster, Command};
use penstock_vocab::{
    GresName, GresRequest, GroupId, Mib, NodeName, PartitionName, SessionId, Timestamp, UserId,
    Walltime,
};

const NODES: u32 = 10_000;
const PENDING: u32 = 100_000;
const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn gpus(count: u64) -> GresRequest {
    GresRequest { name: GresName::new("gpu", Some("h100")).expect("a name"), count }
}

fn cluster(nodes: u32) -> Cluster {
    let mut main = Partition::new(PartitionName::new("main").expect("a name"));
    main.is_default = true;
    let config = Config {
        cluster: "bench".into(),
        policy: Policy { max_jobs: u32::MAX, ..Policy::default() },
        scheduling: penstock_core::model::Scheduling::default(),
        partitions: vec![main],
        nodes: Vec::new(),
    };
    let mut cluster = Cluster::new(Arc::new(config), NOW);
    for number in 0..nodes {
        let command = Command::Register {
            node: NodeName::new(&format!("n{number}")).expect("a name"),
            session: SessionId(1),
            inventory: Box::new(Inventory {
                cpus: 64,
                sockets: 2,
                cores_per_socket: 32,
                threads_per_core: 1,
                memory: Mib(512 << 10),
                gres: Box::new([gpus(8)]),
                ..Inventory::default()
            }),
            attempts: Vec::new(),
        };
        cluster.execute(NOW, command).expect("a node registers");
    }
    cluster
}

fn submission(number: u32, gpu_count: u64, nodes: u32) -> Submission {
    let shape = Shape {
        nodes_min: nodes,
        nodes_max: nodes,
        cpus_per_task: Some(u32::try_from(gpu_count).unwrap_or(1) * 4),
        memory: MemoryRequest::PerNode(Mib(gpu_count * 16_384)),
        gres_per_node: Box::new([gpus(gpu_count)]),
        ..Shape::default()
    };
    let spec = JobSpec {
        name: format!("job{number}").into(),
        account: "".into(),
        qos: "".into(),
        partitions: Box::default(),
        shape: Arc::new(shape),
        time_limit: Some(Walltime::Limited(3600)),
        begin_time: Timestamp(0),
        hold: false,
        requeue: None,
        nice: 0,
        priority: None,
        comment: "".into(),
        dependency: penstock_core::model::Dependency::default(),
        kill_on_invalid_dep: false,
        reservation: "".into(),
        deadline: None,
        min_time: None,
        signal: None,
        details: Arc::new(Details::default()),
    };
    Submission { spec: Arc::new(spec), array: None, groups: Arc::default(), user: "".into() }
}

fn user(number: u32) -> Caller {
    Caller { uid: UserId(number % 800), gid: GroupId(1), admin: false, request: None }
}

fn submit(cluster: &mut Cluster, number: u32, gpu_count: u64, nodes: u32) {
    let job = Box::new(submission(number, gpu_count, nodes));
    cluster.execute(NOW, Command::Submit(user(number), job)).expect("a job is accepted");
}

fn start_all(cluster: &mut Cluster) {
    loop {
        let made = plan(cluster, NOW, Limits::default());
        if made.starts.is_empty() {
            return;
        }
        for lines in made.starts.chunks(45) {
            cluster.execute(NOW, Command::Start(lines.to_vec())).expect("starts are carried out");
        }
    }
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan, 10,000 nodes x 8 GPUs");
    group.sample_size(10);
    let mut full = cluster(NODES);
    for number in 0..NODES {
        submit(&mut full, number, 8, 1);
    }
    start_all(&mut full);
    for number in 0..PENDING {
        let nodes = [1, 1, 1, 1, 2, 4, 8, 64][number as usize % 8];
        submit(&mut full, number, 1 + u64::from(number % 8), nodes);
    }
    group.bench_function("100,000 pending, all busy", |bencher| {
        bencher.iter(|| black_box(plan(&full, NOW, Limits::default())));
    });
    let mut idle = cluster(NODES);
    for number in 0..PENDING {
        submit(&mut idle, number, 1 + u64::from(number % 8), 1);
    }
    group.bench_function("100,000 pending, all idle: 2,000 starts", |bencher| {
        bencher.iter(|| black_box(plan(&idle, NOW, Limits::default())));
    });
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let mut filled = cluster(100);
    for number in 0..PENDING {
        submit(&mut filled, number, 8, 1);
    }
    criterion.bench_function("snapshot of 100,000 jobs", |bencher| {
        bencher.iter(|| black_box(filled.clone()));
    });
    criterion.bench_function("one submit among 100,000", |bencher| {
        bencher.iter_batched(
            || (filled.clone(), Box::new(submission(7, 1, 1))),
            |(mut cluster, job)| {
                cluster.execute(NOW, Command::Submit(user(7), job)).expect("accepted");
                cluster
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, plans, commands);
criterion_main!(benches);
