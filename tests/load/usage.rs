//! What do samples of what jobs use cost the controller?
//!
//! Nodes are made up in this process and hold real runs in a real cluster; their reports are encoded as
//! agents send them, and are decoded and taken by the very code that the controller's streams end in.
//! TLS and the streams themselves are not in the figures.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use nix::time::{ClockId, clock_gettime};
use penstock_controller::convert::spec::submission;
use penstock_controller::gpus::Gpus;
use penstock_controller::usage::UsageDesk;
use penstock_core::command::{Caller, MAX_STARTS, Submission};
use penstock_core::model::{BlobId, Config, Gpu, Inventory, Partition, Policy};
use penstock_core::scheduler::{Limits, Memory, plan_with};
use penstock_core::{Cluster, Command};
use penstock_proto::usage::task_usage_to_wire;
use penstock_proto::v1;
use penstock_vocab::{
    GroupId, Measure, Mib, NodeName, PartitionName, SessionId, Spread, TaskUsage, Timestamp,
    UserId, parse_gres_list,
};
use prost::Message as _;

use crate::figures::{figure, heading};

/// GPUs of a node.
const GPUS: u32 = 8;
/// Time between two samples of a GPU, and between two of what a part uses, milliseconds.
const GPU_EVERY_MS: u32 = 10_000;
const PART_EVERY_MS: u32 = 30_000;
/// Rounds of samples that are measured.
const ROUNDS: u32 = 6;
/// When it begins, milliseconds since 1970.
const START: i64 = 1_700_000_000_000;

/// Measures `nodes` nodes, each with a job that holds all its GPUs.
pub(crate) fn measure(nodes: u32) -> Result<()> {
    heading(&format!("samples of {nodes} nodes with {GPUS} GPUs"));
    let cluster = cluster(nodes)?;
    let desk = (Gpus::default(), UsageDesk::default());
    let running = cluster.jobs().filter(|job| job.active_run().is_some()).count();
    ensure!(running == nodes as usize, "{running} jobs run on {nodes} nodes");
    let mut bytes = 0;
    let mut of_gpus = Duration::ZERO;
    let mut of_parts = Duration::ZERO;
    for round in 1..=ROUNDS {
        let now = Timestamp(START + i64::from(round) * i64::from(GPU_EVERY_MS));
        let reports = reports(&cluster, |job, attempt| gpu_report(job, attempt, round, now))?;
        bytes = reports.iter().map(|(_, report)| report.len()).sum::<usize>();
        of_gpus += take(&cluster, &desk, &reports, now)?;
        let reports = reports_of_parts(&cluster, round)?;
        of_parts += take(&cluster, &desk, &reports, now)?;
    }
    let samples = (nodes * GPUS) as usize;
    figure("bytes a GPU and sample", &format!("{} B", bytes / samples), "200 B");
    let share = |time: Duration, every_ms: u32| {
        let a_round = time.as_secs_f64() / f64::from(ROUNDS);
        format!("{:.2} % of a core", a_round * 100_000.0 / f64::from(every_ms))
    };
    figure("GPUs sampled every 10 s", &share(of_gpus, GPU_EVERY_MS), "100 %");
    figure("a job a node measured every 30 s", &share(of_parts, PART_EVERY_MS), "100 %");
    Ok(())
}

/// A cluster whose nodes are all taken.
fn cluster(nodes: u32) -> Result<Cluster> {
    let partition = PartitionName::new("main")?;
    let partitions = vec![Partition { is_default: true, ..Partition::new(partition) }];
    let policy = Policy { max_jobs: u32::MAX, ..Policy::default() };
    let config = Config { cluster: "load".into(), policy, partitions, ..Config::default() };
    let now = Timestamp(START);
    let mut cluster = Cluster::new(Arc::new(config), now);
    let refused = |error: penstock_core::Refusal| anyhow!(error.to_string());
    for index in 0..nodes {
        let node = NodeName::new(&format!("n{index}"))?;
        let inventory = Box::new(inventory()?);
        let session = SessionId(1);
        let command = Command::Register { node, session, inventory, attempts: Vec::new() };
        cluster.execute(now, command).map_err(refused)?;
    }
    let caller = Caller { uid: UserId(1000), gid: GroupId(1000), admin: false, request: None };
    for index in 0..nodes {
        let request = v1::JobSpec {
            name: format!("train-{index}"),
            ntasks: Some(1),
            time_limit_secs: Some(86_400),
            work_dir: "/tmp".to_owned(),
            gres_per_node: vec![v1::GresCount {
                name: "gpu".to_owned(),
                count: GPUS.into(),
                ..v1::GresCount::default()
            }],
            ..v1::JobSpec::default()
        };
        let (spec, _) =
            submission(request, BlobId::default(), BlobId::default()).map_err(refused)?;
        let spec = Arc::new(spec);
        let submission =
            Submission { spec, array: None, groups: Arc::default(), user: "ada".into() };
        let command = Command::Submit(caller, Box::new(submission));
        cluster.execute(now, command).map_err(refused)?;
    }
    let mut memory = Memory::new();
    while !cluster.queue_is_empty() {
        let plan = plan_with(&mut memory, &cluster, now, Limits::default());
        ensure!(!plan.starts.is_empty(), "the scheduler starts nothing");
        for lines in plan.starts.chunks(MAX_STARTS) {
            cluster.execute(now, Command::Start(lines.to_vec())).map_err(refused)?;
        }
    }
    Ok(cluster)
}

fn inventory() -> Result<Inventory> {
    let gpus = (0..GPUS).map(|index| Gpu {
        index,
        uuid: format!("GPU-{index}").into(),
        kind: "h100".into(),
        memory: Mib(81_559),
        ..Gpu::default()
    });
    Ok(Inventory {
        cpus: 64,
        sockets: 2,
        cores_per_socket: 32,
        threads_per_core: 1,
        memory: Mib(1 << 20),
        gres: parse_gres_list(&format!("gpu:h100:{GPUS}"))?.into(),
        gpus: gpus.collect(),
        boot_id: "load".into(),
        ..Inventory::default()
    })
}

/// A message of every node, encoded.
fn reports(
    cluster: &Cluster,
    body: impl Fn(u32, u32) -> v1::agent_message::Body,
) -> Result<Vec<(NodeName, Vec<u8>)>> {
    let running = cluster.jobs().filter_map(|job| Some((job.id.0, job.active_run()?)));
    running
        .map(|(job, run)| {
            let node = run.batch_node().and_then(|node| cluster.node(node));
            let (node, _) = node.ok_or_else(|| anyhow!("job {job} has no node"))?;
            let body = Some(body(job, run.attempt.0));
            let message = v1::AgentMessage { session: 1, body };
            Ok((node.name.clone(), message.encode_to_vec()))
        })
        .collect()
}

fn gpu_report(job_id: u32, attempt: u32, round: u32, now: Timestamp) -> v1::agent_message::Body {
    let samples = (0..GPUS).map(|gpu| v1::GpuSample {
        gpu,
        utilization: Some((job_id * 7 + gpu * 13 + round * 29) % 101),
        memory_used_mib: Some(60_000 + u64::from(gpu)),
        power_mw: Some(550_000),
        energy_mj: Some(5_500_000),
        processes: Some(1),
        temperature: Some(61),
        job_id,
        attempt,
        ..v1::GpuSample::default()
    });
    let report = v1::GpuReport { time_ms: now.0, samples: samples.collect(), events: Vec::new() };
    v1::agent_message::Body::Gpus(report)
}

fn reports_of_parts(cluster: &Cluster, round: u32) -> Result<Vec<(NodeName, Vec<u8>)>> {
    reports(cluster, |job_id, attempt| {
        let mut tasks = TaskUsage::of(1);
        for measure in Measure::ALL {
            tasks.set(measure, Some(Spread::of(0, u64::from(round) << 30)));
        }
        let usage = v1::Usage {
            user_cpu_usec: u64::from(round) * 30_000_000,
            system_cpu_usec: u64::from(round) * 1_000_000,
            peak_memory_bytes: 32 << 30,
            memory_limit_bytes: 64 << 30,
            tasks: task_usage_to_wire(&tasks),
        };
        let part = v1::PartUsage {
            job_id,
            attempt,
            usage: Some(usage),
            memory_bytes: 30 << 30,
            pids: (1..=16).map(|pid| 20_000 + pid).collect(),
            ..v1::PartUsage::default()
        };
        v1::agent_message::Body::Usage(v1::UsageReport { parts: vec![part] })
    })
}

/// Decodes and takes every report; the processor time that it took.
fn take(
    cluster: &Cluster,
    (gpus, usage): &(Gpus, UsageDesk),
    reports: &[(NodeName, Vec<u8>)],
    now: Timestamp,
) -> Result<Duration> {
    let began = processor_time()?;
    for (node, bytes) in reports {
        let message = v1::AgentMessage::decode(&bytes[..])?;
        match message.body {
            Some(v1::agent_message::Body::Gpus(report)) => gpus.report(cluster, node, report, now),
            Some(v1::agent_message::Body::Usage(report)) => {
                usage.report(cluster, node, report, now)
            }
            other => return Err(anyhow!("not a report: {other:?}")),
        }
    }
    Ok(processor_time()?.saturating_sub(began))
}

fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
