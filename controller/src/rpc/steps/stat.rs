//! What do the parts of running jobs use at this moment?
//!
//! The nodes are asked, and whoever does not answer soon is told of with what it said last.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::Refusal;
use penstock_core::command::Target;
use penstock_core::model::{Job, NodeIndex, Run, Step, StepNumber, StepPhase};
use penstock_proto::usage::BATCH_STEP;
use penstock_proto::v1;
use penstock_proto::v1::controller_message::Body;
use penstock_vocab::{JobId, Timestamp, compress};
use tonic::{Request, Response, Status};

use super::super::shared::Shared;
use super::super::status::refused;
use super::{Answer, Chunks};
use crate::convert::run::NodeNames as _;
use crate::convert::wire;
use crate::identity::{Action, Caller, caller_of};
use crate::usage::PartKey;
use crate::writer::Snapshot;

/// Most jobs of one call.
const MAX_JOBS: usize = 1_000;
/// Most steps of one call: more than a job may have.
const MAX_PARTS: usize = 50_000;
/// Most nodes of one call that are asked; of others is told what they said last.
const MAX_ASKED: usize = 1_000;
/// How long to wait for the nodes.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// Parts in one message of the answer.
const PARTS_PER_MESSAGE: usize = 100;

/// One part of a run, with the nodes that it runs on and its tasks there.
struct Part {
    key: PartKey,
    nodes: Vec<(NodeIndex, u32)>,
    /// Whether a shepherd is known to be there to answer.
    runs: bool,
}

pub(super) async fn stat_jobs(
    shared: &Arc<Shared>,
    request: Request<v1::StatJobsRequest>,
) -> Answer<Chunks<v1::StatJobsReply>> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    if message.selectors.len() > MAX_JOBS {
        let count = message.selectors.len();
        let text = format!("{count} jobs in one call, at most {MAX_JOBS} are taken");
        return Err(Status::invalid_argument(text));
    }
    let snapshot = shared.snapshot();
    let mut parts = Vec::new();
    for text in &message.selectors {
        for job in jobs_meant(&snapshot, text)? {
            check(shared, &caller, &job)?;
            parts.extend(parts_of(&snapshot, &job));
        }
        if parts.len() > MAX_PARTS {
            let text = format!("more than {MAX_PARTS} steps run; ask for fewer jobs at once");
            return Err(Status::invalid_argument(text));
        }
    }
    if !message.known {
        let since = shared.clock.now();
        ask(shared, &snapshot, &parts);
        let answered = wait(shared, &snapshot, &parts, since);
        // Who did not answer is told of as far as is known.
        let _late = tokio::time::timeout(PATIENCE, answered).await;
    }
    let told: Vec<_> = parts.iter().map(|part| tell(shared, &snapshot, part)).collect();
    let messages: Vec<_> = told
        .chunks(PARTS_PER_MESSAGE)
        .map(|parts| Ok(v1::StatJobsReply { parts: parts.to_vec() }))
        .collect();
    Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
}

/// Slurm tells owner and operators, and nobody else.
fn check(shared: &Shared, caller: &Caller, job: &Job) -> Result<(), Status> {
    let allowed = shared.allow(caller, Action::ReadOwn { owner_uid: job.uid.0 });
    allowed.map(drop).map_err(|_| {
        let text = format!(
            "what job {} uses is told to its owner, uid {}, and to operators; you are uid {}",
            job.id, job.uid, caller.uid
        );
        refused(&Refusal::AccessDenied(text.into()))
    })
}

/// The running jobs that a selector means.
fn jobs_meant(snapshot: &Snapshot, text: &str) -> Result<Vec<Arc<Job>>, Status> {
    let cluster = &snapshot.cluster;
    let target = wire::target(cluster, text).map_err(|refusal| refused(&refusal))?;
    let mut jobs: Vec<Arc<Job>> = match &target {
        Target::Step(id, _) | Target::Id(id) | Target::Job(id) | Target::Waiting(id) => {
            let tasks = cluster.tasks_of(*id).map(Arc::clone);
            tasks.chain(cluster.job(*id).map(Arc::clone)).collect()
        }
        Target::Tasks(base, tasks) => cluster
            .tasks_of(*base)
            .filter(|job| job.array.is_some_and(|task| tasks.contains(task.index.0)))
            .map(Arc::clone)
            .collect(),
    };
    if jobs.is_empty() && cluster.array(target.id()).is_none() {
        return Err(refused(&Refusal::InvalidJobId(target.id())));
    }
    jobs.sort_by_key(|job| job.id);
    jobs.dedup_by_key(|job| job.id);
    jobs.truncate(MAX_JOBS);
    Ok(jobs)
}

/// The parts of a job that run: the batch script first.
fn parts_of(snapshot: &Snapshot, job: &Arc<Job>) -> Vec<Part> {
    let Some(run) = job.active_run() else { return Vec::new() };
    let batch = run.script_node().map(|node| Part {
        key: (job.id, run.attempt, None),
        nodes: vec![(node, 1)],
        runs: run.launched.is_some(),
    });
    let steps = snapshot.cluster.live_steps_of(job.id).filter_map(|step| step_part(run, step));
    batch.into_iter().chain(steps).collect()
}

fn step_part(run: &Run, step: &Arc<Step>) -> Option<Part> {
    (step.key.attempt == run.attempt).then(|| Part {
        key: (step.key.job, step.key.attempt, Some(step.key.number)),
        nodes: step.live_shares().map(|share| (share.share.node, share.share.tasks)).collect(),
        runs: step.live_shares().all(|share| share.phase == StepPhase::Running),
    })
}

/// Has every part measured.
fn ask(shared: &Shared, snapshot: &Snapshot, parts: &[Part]) {
    for (part, node) in asked(parts) {
        let (JobId(job_id), attempt, step) = part.key;
        let measure = v1::MeasurePart { job_id, attempt: attempt.0, step: step.map(number) };
        if let Some((node, _)) = snapshot.cluster.node(node) {
            // A node that is away is told of with what it said last.
            let _away = shared.links.send(&node.name, Body::Measure(measure));
        }
    }
}

const fn number(step: StepNumber) -> u32 {
    step.0
}

/// The parts on nodes that are asked.
fn asked(parts: &[Part]) -> impl Iterator<Item = (&Part, NodeIndex)> {
    let running = parts.iter().filter(|part| part.runs);
    let nodes = running.flat_map(|part| part.nodes.iter().map(move |(node, _)| (part, *node)));
    nodes.take(MAX_ASKED)
}

/// Waits until every part that was asked has answered.
async fn wait(shared: &Shared, snapshot: &Snapshot, parts: &[Part], since: Timestamp) {
    let mut missing: Vec<(PartKey, String)> = asked(parts)
        .map(|(part, node)| (part.key, snapshot.cluster.node_name(node).to_owned()))
        .collect();
    loop {
        let heard = shared.usage.heard();
        tokio::pin!(heard);
        // From here on no report is missed.
        heard.as_mut().enable();
        let is_missing = |(key, node): &(PartKey, String)| {
            shared.usage.of_part(*key, node).is_none_or(|heard| heard.at < since)
        };
        missing.retain(is_missing);
        if missing.is_empty() {
            return;
        }
        heard.await;
    }
}

fn tell(shared: &Shared, snapshot: &Snapshot, part: &Part) -> v1::StatPart {
    let (JobId(job_id), attempt, step) = part.key;
    let name = |node: NodeIndex| snapshot.cluster.node_name(node).to_owned();
    let nodes = part.nodes.iter().map(|&(node, tasks)| {
        let node = name(node);
        let heard = shared.usage.of_part(part.key, &node);
        let at_ms = heard.as_ref().map_or(0, |heard| heard.at.0);
        let known = heard.map(|heard| heard.part).unwrap_or_default();
        let (memory_bytes, pids) = (known.memory_bytes, known.pids);
        v1::StatNode { node, tasks, usage: known.usage, memory_bytes, pids, at_ms }
    });
    let nodes: Vec<v1::StatNode> = nodes.collect();
    v1::StatPart {
        job_id,
        attempt: attempt.0,
        step: step.map_or(BATCH_STEP, number),
        tasks: part.nodes.iter().map(|(_, tasks)| tasks).sum(),
        nodelist: compress(nodes.iter().map(|node| node.node.as_str())),
        nodes,
    }
}
