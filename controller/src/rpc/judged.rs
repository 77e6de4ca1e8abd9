//! Where does the site's script come in between a request and the cluster?

use bytes::Bytes;
use penstock_core::Refusal;
use penstock_core::command::Target;
use penstock_proto::v1;
use penstock_vocab::JobId;

use super::jobs::Blobs;
use super::shared::Shared;
use crate::config::PartitionState;
use crate::convert::job::job_with_run;
use crate::identity::Caller;
use crate::judge::{Judged, PartitionFacts, Question};
use crate::store::BlobHash;

/// Has a submission judged; what is left of it, and lines for the user.
///
/// # Errors
/// With the script's refusal.
pub(super) async fn submission(
    shared: &Shared,
    caller: &Caller,
    spec: v1::JobSpec,
    blobs: Blobs,
) -> Result<(v1::JobSpec, Blobs, Vec<String>), Refusal> {
    let hooks = shared.file().hooks.clone();
    if hooks.job_submit.is_none() {
        return Ok((spec, blobs, Vec::new()));
    }
    let mut contents = blobs.into_iter().map(|(_, bytes)| bytes);
    let (script, environment) = (contents.next(), contents.next());
    let allocation = spec.allocation;
    let mut spec = Box::new(spec);
    // What a client says of its user is not believed, by the script neither.
    spec.user_name = shared.users.user_or(caller.uid, &spec.user_name);
    let question = Question::Submit {
        spec,
        script: script.unwrap_or_default(),
        environment: environment.unwrap_or_default(),
    };
    let Judged { question, said } =
        shared.judge.ask(&hooks, question, caller.uid, || partitions(shared)).await?;
    let Question::Submit { mut spec, script, environment } = question else {
        return Err(Refusal::StalePlan("the script answered another question"));
    };
    spec.allocation = allocation;
    let blobs = match allocation {
        true => Blobs::new(),
        false => rebuilt(script, environment)?,
    };
    Ok((*spec, blobs, said))
}

/// Script and environment as blobs again, within their bounds.
fn rebuilt(script: Bytes, environment: Bytes) -> Result<Blobs, Refusal> {
    let largest = script.len().max(environment.len());
    if largest > penstock_proto::MAX_BLOB_BYTES || !script.starts_with(b"#!") {
        let text = "job_submit: the script made of the batch script what cannot be run";
        return Err(Refusal::NeverFits(text.into()));
    }
    Ok([script, environment].map(|bytes| (BlobHash::of(&bytes), bytes)).into())
}

/// Has several submissions judged that share script and environment; these stay as they are, and a
/// script that changes them refuses that submission.
pub(super) async fn submissions(
    shared: &Shared,
    caller: &Caller,
    specs: Vec<v1::JobSpec>,
    blobs: Blobs,
) -> (Vec<Result<v1::JobSpec, Refusal>>, Blobs) {
    if shared.file().hooks.job_submit.is_none() {
        return (specs.into_iter().map(Ok).collect(), blobs);
    }
    let mut judged = Vec::with_capacity(specs.len());
    for spec in specs {
        let one = submission(shared, caller, spec, blobs.clone()).await;
        judged.push(one.and_then(|(spec, left, _)| {
            if left == blobs {
                return Ok(spec);
            }
            let text = "job_submit: script and environment of jobs that are submitted together \
                        cannot be changed; submit them one by one";
            Err(Refusal::NeverFits(text.into()))
        }));
    }
    (judged, blobs)
}

/// Has a change of jobs judged, seen from the first job that it names.
///
/// # Errors
/// With the script's refusal.
pub(super) async fn change(
    shared: &Shared,
    (caller, admin): (&Caller, bool),
    targets: &[Target],
    update: v1::JobUpdate,
) -> Result<v1::JobUpdate, Refusal> {
    let hooks = shared.file().hooks.clone();
    if hooks.job_submit.is_none() {
        return Ok(update);
    }
    let snapshot = shared.snapshot();
    let job = targets.first().map_or(JobId(0), id_of);
    // A job that is not there is refused by the cluster itself.
    let job = match snapshot.cluster.job(job) {
        Some(job) => job_with_run(&snapshot.cluster, job, job.active_run().map(|run| &**run)),
        None => v1::Job { id: job.0, ..v1::Job::default() },
    };
    // Who may not change it is told so by the cluster, and learns nothing from the script.
    if job.uid != caller.uid && !admin {
        return Ok(update);
    }
    let question = Question::Modify { update: Box::new(update), job: Box::new(job) };
    let judged = shared.judge.ask(&hooks, question, caller.uid, || partitions(shared)).await?;
    match judged.question {
        Question::Modify { update, .. } => Ok(*update),
        Question::Submit { .. } => Err(Refusal::StalePlan("the script answered another question")),
    }
}

fn id_of(target: &Target) -> JobId {
    match target {
        Target::Id(id) | Target::Job(id) | Target::Waiting(id) => *id,
        Target::Tasks(id, _) | Target::Step(id, _) => *id,
    }
}

fn partitions(shared: &Shared) -> Vec<PartitionFacts> {
    let file = shared.file();
    let only_one = file.partitions.len() == 1;
    let minutes = |time: penstock_vocab::Walltime| time.as_secs().map(|secs| secs.div_ceil(60));
    let one = |section: &crate::config::PartitionSection| PartitionFacts {
        name: section.name.to_string(),
        is_default: section.default || only_one,
        max_minutes: minutes(section.max_time),
        default_minutes: section.default_time.and_then(minutes),
        min_nodes: section.min_nodes,
        max_nodes: section.max_nodes.unwrap_or(0),
        tier: section.priority_tier,
        is_up: section.state == PartitionState::Up,
        allow_groups: section.allow_groups.join(","),
        allow_accounts: section.allow_accounts.join(","),
        deny_accounts: section.deny_accounts.join(","),
        allow_qos: section.allow_qos.join(","),
        qos: section.qos.clone().unwrap_or_default(),
    };
    file.partitions.iter().map(one).collect()
}
