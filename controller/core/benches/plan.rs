//! How long does the core take: a plan over many jobs and nodes, a submit, a snapshot?
//!
//! `cargo bench -p penstock-core`. Budgets: a plan for 100,000 pending jobs on 10,000 nodes x 8 GPUs
//! under 250 ms cold and 25 ms after one change.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints times")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use penstock_core::command::{AttemptPhase, AttemptReport, Caller, MAX_STARTS, Submission};
use penstock_core::model::{
    Config, Details, Inventory, JobSpec, MemoryRequest, Partition, Policy, Shape,
};
use penstock_core::scheduler::{Limits, Memory, plan, plan_with};
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
        ..Config::default()
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
        for lines in made.starts.chunks(MAX_STARTS) {
            cluster.execute(NOW, Command::Start(lines.to_vec())).expect("starts are carried out");
        }
        if !made.cut {
            return;
        }
    }
}

/// A job of one of 500 shapes: GPUs, CPUs, memory, nodes and limit vary.
fn varied(number: u32) -> Submission {
    let shape = number.wrapping_mul(2_654_435_761) % 500;
    let gpu_count = 1 + u64::from(shape % 8);
    let nodes = [1, 1, 1, 1, 2, 4, 8, 64][shape as usize / 8 % 8];
    let mut job = submission(number, gpu_count, nodes);
    let mut spec = (*job.spec).clone();
    let mut asked = (*spec.shape).clone();
    asked.memory = MemoryRequest::PerNode(Mib(gpu_count * 8_192 * u64::from(1 + shape / 64 % 4)));
    spec.shape = Arc::new(asked);
    spec.time_limit = Some(Walltime::Limited(3_600 * u64::from(1 + shape / 256) + 600));
    job.spec = Arc::new(spec);
    job
}

/// 99 of 100 nodes busy with jobs of different ends, and so many units that wait.
fn busy(nodes: u32, pending: u32) -> Cluster {
    let mut full = cluster(nodes);
    for number in 0..nodes - nodes / 100 {
        let mut job = submission(number, 8, 1);
        let mut spec = (*job.spec).clone();
        spec.time_limit = Some(Walltime::Limited(600 + u64::from(number * 7_919 % 86_400)));
        job.spec = Arc::new(spec);
        full.execute(NOW, Command::Submit(user(number), Box::new(job))).expect("accepted");
    }
    start_all(&mut full);
    for number in 0..pending {
        full.execute(NOW, Command::Submit(user(number), Box::new(varied(number))))
            .expect("accepted");
    }
    // What fits into the rest is gone when the measuring begins.
    start_all(&mut full);
    full
}

/// The same cluster after the first running job has ended.
fn one_ended(cluster: &Cluster) -> Cluster {
    let mut after = cluster.clone();
    let running = after.jobs().find(|job| job.active_run().is_some()).expect("a job runs");
    let run = running.active_run().expect("it runs");
    let node = after.node(run.shares[0].node).expect("a node").0;
    let command = Command::Report {
        node: node.name.clone(),
        session: SessionId(1),
        report: AttemptReport {
            job: running.id,
            attempt: run.attempt,
            phase: AttemptPhase::Ended(Box::default()),
        },
    };
    after.execute(NOW, command).expect("a job ends");
    after
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan, 10,000 nodes x 8 GPUs");
    group.sample_size(10);
    let full = busy(NODES, PENDING);
    let ended = one_ended(&full);
    group.bench_function("100,000 pending of 500 shapes, 99 % busy, cold", |bencher| {
        bencher.iter(|| black_box(plan(&full, NOW, Limits::default())));
    });
    let mut memory = Memory::new();
    let first = plan_with(&mut memory, &full, NOW, Limits::default());
    println!("{:?}", first.stats);
    group.bench_function("the same, after one job ended", |bencher| {
        bencher.iter_batched(
            || memory.clone(),
            |mut memory| black_box(plan_with(&mut memory, &ended, NOW, Limits::default())),
            BatchSize::LargeInput,
        );
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

/// How the cost grows; printed and not sampled, since the largest take long to set up.
fn growth(_criterion: &mut Criterion) {
    if std::env::args().all(|argument| argument != "--bench") {
        return;
    }
    println!("nodes, pending: cold ms, after one ended ms");
    for (nodes, pending) in [
        (100, 1_000),
        (1_000, 1_000),
        (10_000, 1_000),
        (10_000, 10_000),
        (100, 100_000),
        (1_000, 100_000),
        (10_000, 100_000),
        (10_000, 1_000_000),
    ] {
        let full = busy(nodes, pending);
        let ended = one_ended(&full);
        let best = |run: &mut dyn FnMut()| {
            let times = (0..5).map(|_| {
                let start = std::time::Instant::now();
                run();
                start.elapsed().as_micros()
            });
            times.min().unwrap_or(0)
        };
        let cold = best(&mut || {
            black_box(plan(&full, NOW, Limits::default()));
        });
        let mut memory = Memory::new();
        black_box(plan_with(&mut memory, &full, NOW, Limits::default()));
        let mut toggle = false;
        let change = best(&mut || {
            toggle = !toggle;
            let cluster = if toggle { &ended } else { &full };
            black_box(plan_with(&mut memory, cluster, NOW, Limits::default()));
        });
        println!(
            "{nodes}, {pending}: {}.{:03}, {}.{:03}",
            cold / 1_000,
            cold % 1_000,
            change / 1_000,
            change % 1_000
        );
    }
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

criterion_group!(benches, plans, growth, commands);
criterion_main!(benches);
