//! Calls that change jobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use penstock_core::cluster::Accounts;
use penstock_core::command::{
    Caller as CoreCaller, MAX_SPECS, MAX_TARGETS, NodeAction, NodeUpdate, SignalOrder, Submission,
    Target, TargetResult,
};
use penstock_core::model::{AdminLevel, BlobId, Hold, Job, JobSpec, User};
use penstock_core::{Command, Refusal, Reply};
use penstock_proto::{MAX_BLOB_BYTES, MAX_SPECS_PER_CALL, v1};
use penstock_vocab::{ArrayTaskId, IndexSet, JobId, Run};
use tonic::{Request, Response, Status};

use super::judged;
use super::shared::Shared;
use super::status::{failed, refused};
use crate::convert::answer::submitted_to_wire;
use crate::convert::spec;
use crate::convert::update::{job_update_from_wire, node_update_from_wire};
use crate::convert::wire::{refusal_to_wire, selectors, target_result_to_wire};
use crate::identity::{Action, Authority, Caller, caller_of};
use crate::listing;
use crate::store::BlobHash;
use crate::writer::ExecuteError;

/// Tasks of one array that a command may change as one target, with room for others beside it.
const FEW: usize = 20;
/// Rounds in which tasks that started meanwhile are cancelled too.
const CANCEL_ROUNDS: u32 = 8;

pub(super) type Blobs = Vec<(BlobHash, Bytes)>;

pub(super) async fn submit_job(
    shared: &Shared,
    request: Request<v1::SubmitJobRequest>,
) -> Result<Response<v1::SubmitJobReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let core = submitter(shared, &caller, &message.request_id)?;
    let blobs = match message.spec.as_ref().is_some_and(|spec| spec.allocation) {
        true => Blobs::new(),
        false => blobs_of(message.script, message.environment)?,
    };
    let spec = message.spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))?;
    let judged = judged::submission(shared, &caller, spec, blobs).await;
    let (spec, blobs, mut said) = judged.map_err(|refusal| refused(&refusal))?;
    let submission =
        submission(shared, &caller, spec, &blobs).map_err(|refusal| refused(&refusal))?;
    let command = Command::Submit(core, Box::new(submission));
    match shared.writer.execute_with(command, blobs).await {
        Ok(Reply::Submitted { job, warnings }) => {
            said.extend(warnings.iter().map(|text| text.to_string()));
            Ok(Response::new(v1::SubmitJobReply { job_id: job.0, warnings: said }))
        }
        Ok(_) => Err(unexpected()),
        Err(error) => Err(failed(&error)),
    }
}

pub(super) async fn submit_jobs(
    shared: &Shared,
    request: Request<v1::SubmitJobsRequest>,
) -> Result<Response<v1::SubmitJobsReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    if message.specs.len() > MAX_SPECS_PER_CALL {
        return Err(Status::invalid_argument(format!(
            "{} specs in one call, at most {MAX_SPECS_PER_CALL} are taken",
            message.specs.len()
        )));
    }
    if message.specs.iter().any(|spec| spec.allocation) {
        let text =
            "jobs without a script are submitted one by one, since somebody has to hold each";
        return Err(Status::invalid_argument(text));
    }
    let core = submitter(shared, &caller, &message.request_id)?;
    let blobs = blobs_of(message.script, message.environment)?;
    // Specs that can't even be read are refused here; the rest keeps its place.
    let (specs, blobs) = judged::submissions(shared, &caller, message.specs, blobs).await;
    let read: Vec<Result<Submission, Refusal>> = specs
        .into_iter()
        .map(|spec| spec.and_then(|spec| submission(shared, &caller, spec, &blobs)))
        .collect();
    let mut results: Vec<v1::submit_jobs_reply::Result> = Vec::with_capacity(read.len());
    let mut good = Vec::new();
    for item in read {
        results.push(v1::submit_jobs_reply::Result::default());
        match item {
            Ok(submission) => good.push((results.len() - 1, submission)),
            Err(refusal) => {
                if let Some(result) = results.last_mut() {
                    result.refusal = Some(refusal_to_wire(&refusal));
                }
            }
        }
    }
    let mut answers = Vec::new();
    let mut places = Vec::new();
    let mut part = 0;
    let mut rest = good.into_iter().peekable();
    while rest.peek().is_some() {
        let (at, chunk): (Vec<_>, Vec<_>) = rest.by_ref().take(MAX_SPECS).unzip();
        let command = Command::SubmitMany(part_of(&core, part), chunk);
        let blobs = if part == 0 { blobs.clone() } else { Vec::new() };
        answers.push(shared.writer.begin(command, blobs).map_err(|error| failed(&error))?);
        places.push(at);
        part += 1;
    }
    for (answer, at) in answers.into_iter().zip(places) {
        let reply = answer.await.unwrap_or(Err(ExecuteError::Closing));
        let reply = reply.map_err(|error| failed(&error))?;
        let Reply::SubmittedMany(outcomes) = reply else { return Err(unexpected()) };
        for (place, outcome) in at.into_iter().zip(&outcomes) {
            results[place] = submitted_to_wire(outcome);
        }
    }
    Ok(Response::new(v1::SubmitJobsReply { results }))
}

/// The caller as somebody who submits for itself.
fn submitter(shared: &Shared, caller: &Caller, request_id: &[u8]) -> Result<CoreCaller, Status> {
    let authority = shared.allow(caller, Action::SubmitAs { uid: caller.uid })?;
    shared.core_caller(caller, authority, request_id)
}

pub(super) fn part_of(caller: &CoreCaller, part: u32) -> CoreCaller {
    CoreCaller { request: caller.request.map(|id| id.part(part)), ..*caller }
}

/// Script and environment as blobs, in this order.
pub(super) fn blobs_of(script: Bytes, environment: Bytes) -> Result<Blobs, Status> {
    for (what, bytes) in [("script", &script), ("environment", &environment)] {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(Status::invalid_argument(format!(
                "the {what} has {} bytes, at most {MAX_BLOB_BYTES} are taken",
                bytes.len()
            )));
        }
    }
    if !script.starts_with(b"#!") {
        return Err(Status::invalid_argument("the script does not begin with #!"));
    }
    Ok([script, environment].map(|bytes| (BlobHash::of(&bytes), bytes)).into())
}

/// A submission that is only planned: script and environment don't matter.
pub(super) fn submission_to_try(
    shared: &Shared,
    caller: &Caller,
    spec: v1::JobSpec,
) -> Result<Submission, Refusal> {
    submission(shared, caller, spec, &Blobs::default())
}

pub(super) fn submission(
    shared: &Shared,
    caller: &Caller,
    spec: v1::JobSpec,
    blobs: &Blobs,
) -> Result<Submission, Refusal> {
    let (script, environment) = match &blobs[..] {
        [(script, _), (environment, _)] => (BlobId(script.0), BlobId(environment.0)),
        _ => (BlobId::default(), BlobId::default()),
    };
    let (mut spec, array) = spec::submission(spec, script, environment)?;
    complete(shared, caller, &mut spec);
    let groups = groups(shared, caller);
    let user = spec.details.user_name.clone();
    if shared.users.user(caller.uid).is_none() {
        check_stated(shared.snapshot().cluster.accounts(), &user)?;
    }
    Ok(Submission { spec: Arc::new(spec), array, groups, user })
}

/// A name that this host does not know may be made up. By it nobody becomes an operator or a
/// coordinator whose number is not recorded yet.
fn check_stated(accounts: &Accounts, name: &str) -> Result<(), Refusal> {
    let has_rights = |user: &User| {
        user.admin_level != AdminLevel::None
            || accounts.all_accounts().any(|account| account.coordinators.contains(&user.name))
    };
    match accounts.user(&name.to_lowercase()) {
        Some(user) if user.uid.is_none() && has_rights(user) => {
            let text = format!(
                "user {name} may change accounts, and the controller's host does not know that user; \
                 an admin can make it known there"
            );
            Err(Refusal::InvalidAccount(text.into()))
        }
        Some(_) | None => Ok(()),
    }
}

/// Fills in what the client may not say itself.
fn complete(shared: &Shared, caller: &Caller, spec: &mut JobSpec) {
    let details = Arc::make_mut(&mut spec.details);
    details.user_name = shared.users.user_or(caller.uid, &details.user_name).into();
    details.group_name = shared.users.group_or(caller.gid, &details.group_name).into();
}

/// The caller's groups, where some partition asks for them.
fn groups(shared: &Shared, caller: &Caller) -> Arc<[Box<str>]> {
    let asked = shared.file().partitions.iter().any(|section| !section.allow_groups.is_empty());
    if asked { shared.users.groups_of(caller.uid, caller.gid).into() } else { Arc::default() }
}

pub(super) async fn cancel_jobs(
    shared: &Shared,
    request: Request<v1::CancelJobsRequest>,
) -> Result<Response<v1::CancelJobsReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let core = changer(shared, &caller, &message.request_id)?;
    let filter = message.filter.unwrap_or_default();
    let targets = {
        let snapshot = shared.snapshot();
        let plan = shared.plan();
        let view = listing::View { cluster: &snapshot.cluster, plan: &plan };
        let found = listing::targets_and_steps(&view, &filter);
        let mut targets = found.map_err(|refusal| refused(&refusal))?;
        if filter.selectors.is_empty() && !message.cron && message.signal == 0 {
            targets.retain(|target| !is_cron(&snapshot.cluster, target));
        }
        targets
    };
    // Without ids, jobs of others are not meant unless an admin asks.
    let results = if message.signal == 0 {
        let how = if message.cron { Command::CancelCron } else { Command::Cancel };
        cancel(shared, &core, targets, how).await?
    } else {
        let order = SignalOrder {
            signal: message.signal,
            batch_only: message.batch_only,
            full: message.full,
        };
        each_part(shared, &core, targets, |caller, targets| Command::Signal(caller, targets, order))
            .await?
    };
    Ok(Response::new(v1::CancelJobsReply { results: wire_results(shared, &results) }))
}

/// A job of a crontab: whoever names none by its id does not mean it.
fn is_cron(cluster: &penstock_core::Cluster, target: &Target) -> bool {
    match target {
        Target::Id(id) | Target::Job(id) => cluster.job(*id).is_some_and(|job| job.cron.is_some()),
        Target::Waiting(_) | Target::Tasks(..) | Target::Step(..) => false,
    }
}

/// Cancels targets. Waiting array tasks go first, so that no more of them start; then the tasks that
/// run, as the newest snapshot shows them.
async fn cancel(
    shared: &Shared,
    core: &CoreCaller,
    targets: Vec<Target>,
    how: fn(CoreCaller, Vec<Target>) -> Command,
) -> Result<Vec<TargetResult>, Status> {
    let wanted: Vec<Target> = targets.clone();
    let results = each_part(shared, core, targets, how).await?;
    let mut done = BTreeSet::new();
    for _ in 0..CANCEL_ROUNDS {
        let started = started_tasks(shared, &wanted, &mut done);
        if started.is_empty() {
            break;
        }
        // These are consequences of the request, not requests of their own.
        let caller = CoreCaller { request: None, ..*core };
        each_part(shared, &caller, started, Command::Cancel).await?;
    }
    Ok(results)
}

/// Jobs of array tasks that targets mean and that were not yet seen.
fn started_tasks(shared: &Shared, wanted: &[Target], done: &mut BTreeSet<JobId>) -> Vec<Target> {
    let snapshot = shared.snapshot();
    let cluster = &snapshot.cluster;
    let mut jobs = Vec::new();
    for target in wanted {
        match target {
            Target::Id(id) => jobs.extend(cluster.tasks_of(*id).map(|job| (job.id, job.is_over()))),
            Target::Tasks(base, tasks) => jobs.extend(
                cluster
                    .tasks_of(*base)
                    .filter(|job| job.array.is_some_and(|task| tasks.contains(task.index.0)))
                    .map(|job| (job.id, job.is_over())),
            ),
            Target::Job(_) | Target::Waiting(_) | Target::Step(..) => {}
        }
    }
    jobs.into_iter()
        .filter(|(id, over)| !over && done.insert(*id))
        .map(|(id, _)| Target::Job(id))
        .collect()
}

/// Sends a command for every `MAX_TARGETS` targets, all at once, and gathers what became of them.
pub(super) async fn each_part(
    shared: &Shared,
    core: &CoreCaller,
    targets: Vec<Target>,
    command: impl Fn(CoreCaller, Vec<Target>) -> Command,
) -> Result<Vec<TargetResult>, Status> {
    let mut answers = Vec::new();
    for (part, chunk) in (0u32..).zip(chunks(&targets)) {
        let command = command(part_of(core, part), chunk.to_vec());
        answers.push(shared.writer.begin(command, Vec::new()).map_err(|error| failed(&error))?);
    }
    let mut results = Vec::with_capacity(targets.len());
    for answer in answers {
        match answer.await.unwrap_or(Err(ExecuteError::Closing)) {
            Ok(Reply::Targets(part)) => results.extend(part),
            Ok(_) => return Err(unexpected()),
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(results)
}

/// Targets in portions that one command takes, each counted by the records it may stand for.
fn chunks(targets: &[Target]) -> Vec<&[Target]> {
    let weight = |target: &Target| match target {
        Target::Job(_) | Target::Waiting(_) | Target::Step(..) => 1,
        Target::Id(_) => 2,
        Target::Tasks(_, tasks) => usize::try_from(tasks.len()).unwrap_or(MAX_TARGETS).max(1),
    };
    let (mut portions, mut from, mut sum) = (Vec::new(), 0, 0);
    for (at, target) in targets.iter().enumerate() {
        let more = weight(target).min(MAX_TARGETS);
        if sum + more > MAX_TARGETS {
            portions.push(&targets[from..at]);
            (from, sum) = (at, 0);
        }
        sum += more;
    }
    if from < targets.len() {
        portions.push(&targets[from..]);
    }
    portions
}

/// Cuts targets that may stand for more records than one command takes: a whole array becomes what
/// waits of it and each task that `wanted` lets through, a long list of tasks several short ones.
fn cut(shared: &Shared, targets: Vec<Target>, wanted: impl Fn(&Job) -> bool) -> Vec<Target> {
    let snapshot = shared.snapshot();
    let cluster = &snapshot.cluster;
    let mut parts = Vec::with_capacity(targets.len());
    for target in targets {
        match &target {
            Target::Id(id) if cluster.array(*id).is_some() => {
                let tasks: Vec<_> = cluster.tasks_of(*id).filter(|job| wanted(job)).collect();
                if cluster.array(*id).is_some_and(|array| !array.pending.is_empty()) {
                    parts.push(Target::Waiting(*id));
                }
                parts.extend(tasks.iter().map(|job| Target::Job(job.id)));
            }
            Target::Tasks(base, tasks) if tasks.len() > FEW as u64 => {
                let known = tasks.iter().filter(|index| {
                    let index = ArrayTaskId(*index);
                    let waits = cluster.array(*base).is_some_and(|a| a.pending.contains(index.0));
                    waits || cluster.task(*base, index).is_some_and(|job| wanted(job))
                });
                let known: Vec<u32> = known.collect();
                for few in known.chunks(FEW) {
                    let runs = few.iter().map(|i| Run { start: *i, end: *i, step: 1 });
                    parts.push(Target::Tasks(*base, IndexSet::from_runs(runs)));
                }
            }
            Target::Id(_)
            | Target::Job(_)
            | Target::Waiting(_)
            | Target::Tasks(..)
            | Target::Step(..) => parts.push(target),
        }
    }
    parts
}

/// The caller as somebody who changes jobs; whose they are is checked one by one.
pub(super) fn changer(
    shared: &Shared,
    caller: &Caller,
    request_id: &[u8],
) -> Result<CoreCaller, Status> {
    let authority = shared.allow(caller, Action::WriteJob { owner_uid: caller.uid })?;
    shared.core_caller(caller, authority, request_id)
}

pub(super) fn wire_results(shared: &Shared, results: &[TargetResult]) -> Vec<v1::JobResult> {
    let snapshot = shared.snapshot();
    results.iter().map(|result| target_result_to_wire(&snapshot.cluster, result)).collect()
}

pub(super) async fn control_jobs(
    shared: &Shared,
    request: Request<v1::ControlJobsRequest>,
) -> Result<Response<v1::ControlJobsReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let core = changer(shared, &caller, &message.request_id)?;
    let verb = message.verb();
    let targets = if message.name.is_empty() {
        selectors(&message.selectors).map_err(|refusal| refused(&refusal))?
    } else {
        let filter = v1::JobFilter {
            names: vec![message.name],
            uids: if core.admin { Vec::new() } else { vec![caller.uid] },
            ..v1::JobFilter::default()
        };
        let snapshot = shared.snapshot();
        let plan = shared.plan();
        let view = listing::View { cluster: &snapshot.cluster, plan: &plan };
        listing::targets(&view, &filter).map_err(|refusal| refused(&refusal))?
    };
    let hold = match verb {
        v1::JobVerb::Hold => Some(if core.admin { Hold::Admin } else { Hold::User }),
        v1::JobVerb::UserHold => Some(Hold::User),
        v1::JobVerb::Release => Some(Hold::None),
        _ => None,
    };
    let results = match verb {
        v1::JobVerb::Hold | v1::JobVerb::UserHold | v1::JobVerb::Release => {
            let hold = hold.unwrap_or_default();
            let targets = cut(shared, targets, Job::is_pending);
            each_part(shared, &core, targets, |caller, targets| {
                Command::SetHold(caller, targets, hold)
            })
            .await?
        }
        v1::JobVerb::Requeue | v1::JobVerb::RequeueHold => {
            let hold = verb == v1::JobVerb::RequeueHold;
            let targets = cut(shared, targets, |job| job.active_run().is_some());
            each_part(shared, &core, targets, |caller, targets| Command::Requeue {
                caller,
                targets,
                hold,
            })
            .await?
        }
        v1::JobVerb::Suspend | v1::JobVerb::Resume => {
            shared.allow(&caller, Action::AdminAct { what: "suspend and resume jobs" })?;
            let suspend = verb == v1::JobVerb::Suspend;
            let targets = cut(shared, targets, |job| job.active_run().is_some());
            each_part(shared, &core, targets, |caller, targets| {
                Command::Suspend(caller, targets, suspend)
            })
            .await?
        }
        v1::JobVerb::Unspecified => return Err(Status::invalid_argument("no verb was given")),
    };
    Ok(Response::new(v1::ControlJobsReply { results: wire_results(shared, &results) }))
}

pub(super) async fn update_job(
    shared: &Shared,
    request: Request<v1::UpdateJobRequest>,
) -> Result<Response<v1::UpdateJobReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let core = changer(shared, &caller, &message.request_id)?;
    let targets = selectors(&message.selectors).map_err(|refusal| refused(&refusal))?;
    let update = message.update.unwrap_or_default();
    let update = judged::change(shared, (&caller, core.admin), &targets, update)
        .await
        .and_then(job_update_from_wire)
        .map_err(|refusal| refused(&refusal))?;
    let targets = cut(shared, targets, |job| !job.is_over());
    let results = each_part(shared, &core, targets, |caller, targets| {
        Command::UpdateJob(caller, targets, Box::new(update.clone()))
    })
    .await?;
    Ok(Response::new(v1::UpdateJobReply { results: wire_results(shared, &results) }))
}

pub(super) async fn update_node(
    shared: &Shared,
    request: Request<v1::UpdateNodeRequest>,
) -> Result<Response<v1::UpdateNodeReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let request_id = message.request_id.clone();
    let (names, update) = node_update_from_wire(&shared.snapshot().cluster, message)
        .map_err(|refusal| refused(&refusal))?;
    let authority = node_authority(shared, &caller, &update, &names)?;
    let core = shared.core_caller(&caller, authority, &request_id)?;
    let mut answers = Vec::new();
    for (part, chunk) in (0u32..).zip(names.chunks(MAX_TARGETS)) {
        let command =
            Command::UpdateNode(part_of(&core, part), chunk.to_vec(), Box::new(update.clone()));
        answers.push(shared.writer.begin(command, Vec::new()).map_err(|error| failed(&error))?);
    }
    for answer in answers {
        answer.await.unwrap_or(Err(ExecuteError::Closing)).map_err(|error| failed(&error))?;
    }
    Ok(Response::new(v1::UpdateNodeReply {}))
}

/// Root of a compute host may drain and resume its own node, and do nothing else to it.
fn node_authority(
    shared: &Shared,
    caller: &Caller,
    update: &NodeUpdate,
    names: &[penstock_vocab::NodeName],
) -> Result<Authority, Status> {
    let own_affair =
        matches!(update.action, Some(NodeAction::Drain | NodeAction::Resume | NodeAction::Undrain))
            && update.weight.is_none()
            && update.features.is_none()
            && update.comment.is_none();
    match names {
        [one] if own_affair => {
            shared.allow(caller, Action::DrainOrResumeNode { node: one.as_str() })
        }
        _ => shared.allow(caller, Action::AdminAct { what: "change nodes" }),
    }
}

pub(super) fn unexpected() -> Status {
    Status::internal("the cluster gave an answer of another kind; this is a bug")
}

#[cfg(test)]
mod tests {
    use penstock_core::Cluster;
    use penstock_core::accounts::AccountChange;
    use penstock_core::model::Config;
    use penstock_vocab::{GroupId, Timestamp, UserId};

    use super::*;

    #[test]
    fn portions_hold_no_more_than_one_command_takes() {
        let tasks = Target::Tasks(JobId(9), IndexSet::from_range(0, 39, 1));
        let targets: Vec<_> = (0..100)
            .map(|n| Target::Job(JobId(n)))
            .chain([tasks.clone(), tasks.clone(), tasks])
            .collect();
        let portions = chunks(&targets);
        assert_eq!(portions.concat(), targets);
        let sizes: Vec<_> = portions.iter().map(|portion| portion.len()).collect();
        assert_eq!(sizes, [45, 45, 10, 1, 1, 1]);
    }

    #[test]
    fn nobody_becomes_an_operator_or_a_coordinator_by_a_name_that_is_made_up() {
        let now = Timestamp(1);
        let mut cluster = Cluster::new(Arc::new(Config::default()), now);
        let add_user = |name: &str, uid, admin_level| AccountChange::AddUser {
            name: name.into(),
            uid,
            default_account: "".into(),
            admin_level,
        };
        let changes = vec![
            add_user("op", None, AdminLevel::Operator),
            add_user("known", Some(UserId(7)), AdminLevel::Operator),
            add_user("chief", None, AdminLevel::None),
            add_user("plain", None, AdminLevel::None),
            AccountChange::AddCoordinators("root".into(), vec!["chief".into()]),
        ];
        let core = CoreCaller { uid: UserId(0), gid: GroupId(0), admin: true, request: None };
        cluster.execute(now, Command::Accounts(core, changes)).unwrap();
        // The core itself refuses a name whose number is another.
        let table =
            [("op", false), ("OP", false), ("chief", false), ("known", true), ("plain", true)];
        for (name, good) in table.into_iter().chain([("stranger", true)]) {
            assert_eq!(check_stated(cluster.accounts(), name).is_ok(), good, "{name}");
        }
    }
}
