//! How long does it take to write, load and list many records?
//!
//! `cargo bench -p penstock-controller`. Budgets: a restart with 1,000,000 records in under 3 s,
//! `squeue` over 100,000 jobs in under 0.2 s.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock_controller::convert::record::{Loader, key, value};
use penstock_controller::convert::spec::spec_from_wire;
use penstock_controller::listing::{View, list_jobs};
use penstock_controller::store::{Batch, EmbeddedStore, Key, Options, Store};
use penstock_core::command::{Caller, Submission};
use penstock_core::model::{Config, Inventory, Partition, Policy};
use penstock_core::scheduler::Plan;
use penstock_core::{Cluster, Command};
use penstock_proto::v1;
use penstock_vocab::{GroupId, Mib, NodeName, PartitionName, SessionId, Timestamp, UserId};

const JOBS: u32 = 100_000;
const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn config() -> Arc<Config> {
    let mut main = Partition::new(PartitionName::new("main").expect("a name"));
    main.is_default = true;
    Arc::new(Config {
        cluster: "bench".into(),
        policy: Policy::default(),
        scheduling: penstock_core::model::Scheduling::default(),
        partitions: vec![main],
        nodes: Vec::new(),
        ..Config::default()
    })
}

fn cluster(jobs: u32) -> Cluster {
    let mut cluster = Cluster::new(config(), NOW);
    let node = Command::Register {
        node: NodeName::new("n1").expect("a name"),
        session: SessionId(1),
        inventory: Box::new(Inventory { cpus: 64, memory: Mib(1 << 18), ..Inventory::default() }),
        attempts: Vec::new(),
    };
    cluster.execute(NOW, node).expect("a node registers");
    for number in 0..jobs {
        let spec = v1::JobSpec {
            name: format!("job-{number}"),
            ntasks: Some(1),
            time_limit_secs: Some(600),
            work_dir: "/home/user/project".to_owned(),
            command: "/home/user/project/train.sh".to_owned(),
            submit_line: "sbatch train.sh".to_owned(),
            user_name: "user".to_owned(),
            group_name: "users".to_owned(),
            ..v1::JobSpec::default()
        };
        let spec = spec_from_wire(spec, &mut PartitionName::new).expect("a spec");
        let job = Submission {
            spec: Arc::new(spec),
            array: None,
            groups: Arc::default(),
            user: "".into(),
        };
        let caller = Caller { uid: UserId(1), gid: GroupId(1), admin: false, request: None };
        cluster.execute(NOW, Command::Submit(caller, Box::new(job))).expect("accepted");
    }
    cluster
}

fn encoded(cluster: &Cluster) -> Vec<(Key, Bytes)> {
    cluster.record_keys().filter_map(|k| Some((key(&k), value(cluster, &k)?))).collect()
}

fn records(criterion: &mut Criterion) {
    let filled = cluster(JOBS);
    let bytes = encoded(&filled);
    let mut group = criterion.benchmark_group("100,000 jobs");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(JOBS)));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(encoded(&filled))));
    group.bench_function("load and restore", |bencher| {
        bencher.iter(|| {
            let mut loader = Loader::new();
            for (key, value) in &bytes {
                loader.take(key, value).expect("a record");
            }
            black_box(Cluster::restore(loader.finish(), config(), NOW))
        });
    });
    let plan = Plan::default();
    group.bench_function("list, as squeue does", |bencher| {
        bencher.iter(|| {
            let view = View { cluster: &filled, plan: &plan };
            let request = v1::ListJobsRequest::default();
            black_box(list_jobs(&view, &request).expect("a listing").count())
        });
    });
    group.finish();
}

fn commits(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = EmbeddedStore::open(&dir.path().join("store"), &Options::default())
        .expect("the store opens");
    store.load(&mut |_, _| Ok(())).expect("an empty store loads");
    let term = store.acquire("bench").expect("the store is ours");
    let mut group = criterion.benchmark_group("durable commit, 300 B records");
    let mut number = 0u32;
    for size in [1u32, 64, 1_000] {
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(format!("{size} records"), |bencher| {
            bencher.iter(|| {
                let mut batch = Batch::default();
                for _ in 0..size {
                    number += 1;
                    batch.put(Key::of(9, &[number]), Bytes::from_static(&[7; 300]));
                }
                store.commit(term, &batch).expect("durable")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, records, commits);
criterion_main!(benches);
