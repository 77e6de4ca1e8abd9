//! Calls that read. Long listings are made on a thread of their own from a snapshot, so that they
//! hold nobody up.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::model::Job;
use penstock_core::{Cluster, Refusal};
use penstock_proto::v1;
use penstock_vocab::{Attempt, ExitCode, JobId, JobSelector};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::shared::Shared;
use super::status::refused;
use crate::config::ClusterFile;
use crate::convert::gpu::usage_to_wire;
use crate::identity::{Action, Authority, Caller, caller_of};
use crate::listing::{self, ListError, View};
use crate::store::{BlobHash, HistoryQuery};
use crate::writer::{Snapshot, chain};

/// Jobs in one part of a listing.
const JOBS_PER_PART: usize = 1_000;
/// Parts of a listing that may wait for a slow reader.
const CHUNKS: usize = 4;
/// Longest wait of one `WaitJob` call, in seconds; the client asks again.
const MAX_WAIT_SECS: u32 = 300;

type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Runs `make` on a thread of its own; it hands over parts until it is told that nobody reads.
pub(super) fn stream<T: Send + 'static>(
    make: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<(), Status> + Send + 'static,
) -> Response<Chunks<T>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let result = make(&mut |part| sender.blocking_send(Ok(part)).is_ok());
        if let Err(status) = result {
            // Nobody may be left to hear it.
            drop(sender.blocking_send(Err(status)));
        }
    });
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

pub(super) fn list_jobs(
    shared: &Arc<Shared>,
    request: Request<v1::ListJobsRequest>,
) -> Result<Response<Chunks<v1::ListJobsReply>>, Status> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let (snapshot, plan) = (shared.snapshot(), shared.plan());
    let gpus = Arc::clone(shared);
    Ok(stream(move |give| {
        let view = View { cluster: &snapshot.cluster, plan: &plan };
        let mut list = listing::list_jobs(&view, &message).map_err(|refusal| refused(&refusal))?;
        let unknown = list.unknown().to_vec();
        let mut first = Some(v1::ListJobsReply { jobs: Vec::new(), unknown });
        loop {
            let mut jobs: Vec<_> = list.by_ref().take(JOBS_PER_PART).collect();
            if message.full {
                jobs.iter_mut().for_each(|job| add_gpus(&gpus, job));
            }
            let last = jobs.len() < JOBS_PER_PART;
            let mut part = first.take().unwrap_or_default();
            part.jobs = jobs;
            if !give(part) || last {
                return Ok(());
            }
        }
    }))
}

/// A page of jobs for `caller`, behind `after`: about `most`, and whether there are more. An array's lines
/// are not torn apart. Made on the thread that asks; costs what is looked at.
pub(crate) fn page_of_jobs(
    shared: &Shared,
    caller: &Caller,
    message: &v1::ListJobsRequest,
    after: listing::After,
    most: usize,
) -> Result<(Vec<v1::JobInfo>, bool), Status> {
    shared.allow(caller, Action::ReadListing)?;
    let (snapshot, plan) = (shared.snapshot(), shared.plan());
    let view = View { cluster: &snapshot.cluster, plan: &plan };
    let list = listing::list_jobs_after(&view, message, after);
    let mut list = list.map_err(|refusal| refused(&refusal))?.peekable();
    let mut jobs: Vec<v1::JobInfo> = list.by_ref().take(most).collect();
    let id = |info: &v1::JobInfo| info.job.as_ref().map(|job| job.id);
    let last = jobs.last().and_then(id);
    while let Some(more) = list.next_if(|info| info.pending_tasks.is_some() && id(info) == last) {
        jobs.push(more);
    }
    if message.full {
        jobs.iter_mut().for_each(|job| add_gpus(shared, job));
    }
    Ok((jobs, list.peek().is_some()))
}

/// What is measured of the GPUs that a running job holds.
fn add_gpus(shared: &Shared, info: &mut v1::JobInfo) {
    let run = info.job.as_ref().and_then(|job| Some((job.id, job.run.as_ref()?)));
    let Some((id, run)) = run.filter(|(_, run)| run.end_ms == 0) else { return };
    let usage = shared.gpus.of_run(JobId(id), Attempt(run.attempt));
    info.gpus = usage.iter().map(usage_to_wire).collect();
}

/// What a node last said of each of its GPUs.
pub(crate) fn add_samples(shared: &Shared, info: &mut v1::NodeInfo) {
    let name = info.node.as_ref().map_or("", |node| &node.name);
    let Some((heard, samples)) = shared.gpus.of_node(name).filter(|_| !info.gpus.is_empty()) else {
        return;
    };
    for gpu in &mut info.gpus {
        gpu.sampled_ms = heard.0;
        gpu.samples = samples.iter().filter(|sample| sample.gpu == gpu.index).copied().collect();
    }
}

pub(super) fn list_accounting(
    shared: &Arc<Shared>,
    request: Request<v1::ListAccountingRequest>,
) -> Result<Response<Chunks<v1::ListAccountingReply>>, Status> {
    let caller = caller_of(&request)?.clone();
    shared.allow(&caller, Action::ReadListing)?;
    let mut message = request.into_inner();
    // As sacct(1): root sees everybody's jobs, others their own unless they ask for more.
    let unasked = message.uids.is_empty() && message.users.is_empty() && !message.all_users;
    if unasked && caller.uid != 0 {
        message.uids.push(caller.uid);
    }
    let (snapshot, plan) = (shared.snapshot(), shared.plan());
    let shared = Arc::clone(shared);
    Ok(stream(move |give| {
        let view = View { cluster: &snapshot.cluster, plan: &plan };
        let mut past = |query: &HistoryQuery, each: &mut dyn FnMut(bytes::Bytes)| {
            shared.history.query(query, each)
        };
        let jobs =
            listing::accounting(&view, &message, &mut past).map_err(|error| match &error {
                ListError::Refused(refusal) => refused(refusal),
                other => Status::internal(chain(other)),
            })?;
        for part in jobs.chunks(JOBS_PER_PART) {
            let mut part = part.to_vec();
            part.iter_mut().for_each(|job| add_gpus(&shared, job));
            if !give(v1::ListAccountingReply { jobs: part }) {
                break;
            }
        }
        Ok(())
    }))
}

pub(super) async fn list_nodes(
    shared: &Arc<Shared>,
    request: Request<v1::ListNodesRequest>,
) -> Result<Response<v1::ListNodesReply>, Status> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let snapshot = shared.snapshot();
    let shared = Arc::clone(shared);
    let made = tokio::task::spawn_blocking(move || {
        let cluster = &snapshot.cluster;
        let load = |index| {
            let (node, _) = cluster.node(index)?;
            shared.links.vitals(node.name.as_str())
        };
        let mut reply = listing::list_nodes(cluster, &message, &load)?;
        reply.nodes.iter_mut().for_each(|node| add_samples(&shared, node));
        Ok(reply)
    });
    match made.await {
        Ok(reply) => reply.map(Response::new).map_err(|refusal| refused(&refusal)),
        Err(_) => Err(Status::internal("the listing broke off; this is a bug")),
    }
}

pub(super) fn list_partitions(
    shared: &Shared,
    request: Request<v1::ListPartitionsRequest>,
) -> Result<Response<v1::ListPartitionsReply>, Status> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let snapshot = shared.snapshot();
    Ok(Response::new(listing::list_partitions(&snapshot.cluster, &request.into_inner())))
}

pub(super) fn ping(
    shared: &Shared,
    request: Request<v1::PingRequest>,
) -> Result<Response<v1::PingReply>, Status> {
    let caller = caller_of(&request)?;
    let authority = shared.allow(caller, Action::AdminAct { what: "ping" });
    Ok(Response::new(v1::PingReply {
        controller_host: host_name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: shared.file().cluster.name.clone(),
        now_ms: shared.clock.now().0,
        uid: caller.uid,
        admin: matches!(authority, Ok(Authority::Admin)),
    }))
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}

pub(super) fn show_config(
    shared: &Shared,
    request: Request<v1::ShowConfigRequest>,
) -> Result<Response<v1::ShowConfigReply>, Status> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let file = shared.file();
    let policy = &file.policy;
    let secs = |secs: u32| format!("{secs} sec");
    let pairs = [
        ("AccountingStorageType", "accounting_storage/penstock".to_owned()),
        ("ClusterName", file.cluster.name.clone()),
        ("ControllerListen", file.controller.listen.to_string()),
        ("FenceLease", secs(policy.fence_lease_secs)),
        ("HistoryDays", policy.history_days.to_string()),
        ("JobAcctGatherFrequency", policy.measure_secs.to_string()),
        ("JobRequeue", "1".to_owned()),
        ("KillWait", secs(policy.kill_wait_secs)),
        ("MaxArraySize", policy.max_array_size.to_string()),
        ("MinJobAge", secs(policy.min_job_age_secs)),
        ("PriorityType", "priority/basic".to_owned()),
        ("RequeueDelay", secs(policy.requeue_delay_secs)),
        ("ResolveNodes", if file.cluster.resolve_nodes { "Yes" } else { "No" }.to_owned()),
        ("SchedulerType", "sched/penstock".to_owned()),
        ("SlurmctldHost[0]", host_name()),
        ("SlurmdTimeout", secs(policy.node_timeout_secs)),
        ("SLURM_CONF", shared.file_path.display().to_string()),
        ("SLURM_VERSION", "22.05.8".to_owned()),
        ("StateSaveLocation", file.controller.state_dir.display().to_string()),
        ("UnkillableStepTimeout", secs(policy.unkillable_secs)),
        ("PenstockVersion", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let entries = pairs
        .into_iter()
        .chain(of_the_site(&file))
        .map(|(key, value)| v1::ConfigEntry { key: key.to_owned(), value })
        .collect();
    Ok(Response::new(v1::ShowConfigReply { entries, controller_host: host_name() }))
}

/// Scripts of the site and mail, under Slurm's names.
fn of_the_site(file: &ClusterFile) -> [(&'static str, String); 14] {
    let (hooks, mail) = (&file.hooks, &file.mail);
    let path = |path: &Option<PathBuf>| {
        path.as_ref().map_or_else(|| "(null)".to_owned(), |path| path.display().to_string())
    };
    let given = |text: &str| if text.is_empty() { "(null)".to_owned() } else { text.to_owned() };
    let timeout = match hooks.timeout_secs {
        0 => "65534".to_owned(),
        secs => secs.to_string(),
    };
    let lua = if hooks.job_submit.is_some() { "lua" } else { "" };
    [
        ("Epilog", path(&hooks.epilog)),
        ("EpilogSlurmctld", path(&hooks.controller_epilog)),
        ("JobSubmitPlugins", given(lua)),
        ("JobSubmitScript", path(&hooks.job_submit)),
        ("MailDomain", given(&mail.domain)),
        ("MailProg", mail.program.display().to_string()),
        ("Prolog", path(&hooks.prolog)),
        ("PrologEpilogTimeout", timeout),
        ("PrologFlags", if hooks.prolog.is_some() { "Alloc" } else { "(null)" }.to_owned()),
        ("PrologSlurmctld", path(&hooks.controller_prolog)),
        ("SrunEpilog", given("")),
        ("SrunProlog", given("")),
        ("TaskEpilog", path(&hooks.task_epilog)),
        ("TaskProlog", path(&hooks.task_prolog)),
    ]
}

pub(super) async fn get_batch_script(
    shared: &Shared,
    request: Request<v1::GetBatchScriptRequest>,
) -> Result<Response<v1::GetBatchScriptReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let text = request.into_inner().selector;
    let selector: JobSelector =
        text.parse().map_err(|_| refused(&Refusal::InvalidJobId(JobId(0))))?;
    let id = selector.job();
    let snapshot = shared.snapshot();
    let cluster = &snapshot.cluster;
    let (owner, spec) = match (cluster.job(id), cluster.array(id)) {
        (Some(job), _) => (job.uid, Arc::clone(&job.spec)),
        (None, Some(array)) => (array.uid, Arc::clone(&array.spec)),
        (None, None) => return Err(refused(&Refusal::InvalidJobId(id))),
    };
    let authority = shared.allow(&caller, Action::ReadOwn { owner_uid: owner.0 })?;
    if authority != Authority::Admin && owner.0 != caller.uid {
        let text = format!("job {id} belongs to another user");
        return Err(refused(&Refusal::AccessDenied(text.into())));
    }
    let blobs = Arc::clone(&shared.blobs);
    let hash = BlobHash(spec.details.script.0);
    match tokio::task::spawn_blocking(move || blobs.blob(&hash)).await {
        Ok(Ok(Some(script))) => Ok(Response::new(v1::GetBatchScriptReply { script })),
        Ok(Ok(None)) => Err(Status::not_found(format!("the script of job {id} is not kept"))),
        Ok(Err(error)) => Err(Status::internal(chain(&error))),
        Err(_) => Err(Status::internal("reading the script broke off; this is a bug")),
    }
}

pub(super) async fn wait_job(
    shared: &Shared,
    request: Request<v1::WaitJobRequest>,
) -> Result<Response<v1::WaitJobReply>, Status> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let id = JobId(message.job_id);
    let wait = Duration::from_secs(u64::from(message.timeout_secs.clamp(1, MAX_WAIT_SECS)));
    let mut snapshots = shared.writer.watch();
    let ended = async {
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            if let Some(exit) = ended_exit(shared, &snapshot, id) {
                return exit;
            }
            if snapshots.changed().await.is_err() {
                return Err(Status::unavailable("the controller goes down"));
            }
        }
    };
    match tokio::time::timeout(wait, ended).await {
        Ok(Ok(exit)) => Ok(Response::new(v1::WaitJobReply {
            ended: true,
            exit_status: u32::from(exit.status),
            exit_signal: u32::from(exit.signal),
        })),
        Ok(Err(status)) => Err(status),
        Err(_) => Ok(Response::new(v1::WaitJobReply::default())),
    }
}

/// The highest exit code of a job or of an array's tasks, once all have ended.
fn ended_exit(shared: &Shared, snapshot: &Snapshot, id: JobId) -> Option<Result<ExitCode, Status>> {
    let cluster: &Cluster = &snapshot.cluster;
    let mut highest = ExitCode::default();
    let mut note = |job: &Arc<Job>| {
        let exit = job.run.as_ref().map_or_else(ExitCode::default, |run| run.exit);
        let failed = penstock_vocab::JobState::Completed != job.state;
        let exit = if failed && exit.is_success() { ExitCode::exited(1) } else { exit };
        if (exit.signal, exit.status) > (highest.signal, highest.status) {
            highest = exit;
        }
    };
    if let Some(array) = cluster.array(id) {
        if !array.pending.is_empty() || cluster.tasks_of(id).any(|job| !job.is_over()) {
            return None;
        }
        cluster.tasks_of(id).for_each(&mut note);
        if !array.failed.is_empty() && highest.is_success() {
            highest = ExitCode::exited(1);
        }
        return Some(Ok(highest));
    }
    match cluster.job(id) {
        Some(job) if job.is_over() => {
            note(job);
            Some(Ok(highest))
        }
        Some(_) => None,
        None => Some(past_exit(shared, id)),
    }
}

fn past_exit(shared: &Shared, id: JobId) -> Result<ExitCode, Status> {
    let mut found = None;
    let query = HistoryQuery { jobs: Some(vec![id.0]), uid: None, from_ms: 0, to_ms: i64::MAX };
    shared
        .history
        .query(&query, &mut |body| {
            if let Ok(record) = v1::HistoryRecord::decode(body)
                && let Some(run) = record.job.and_then(|job| job.run)
            {
                let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
                found =
                    Some(ExitCode { status: byte(run.exit_status), signal: byte(run.exit_signal) });
            }
        })
        .map_err(|error| Status::internal(chain(&error)))?;
    found.ok_or_else(|| refused(&Refusal::InvalidJobId(id)))
}
