//! How are jobs changed, one or many at once?

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use http::StatusCode;
use penstock_proto::v1;
use penstock_proto::v1::penstock_server::Penstock as _;
use penstock_vocab::Signal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Body, Key, Params, json};
use super::submit::{NumberOrText, limit_secs};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::web::{Web, asked};

/// Most jobs that one request names.
const MOST_NAMED: usize = 10_000;

/// What is done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verb {
    /// Ends it.
    Cancel,
    /// Sends its steps a signal.
    Signal,
    /// Keeps it from starting.
    Hold,
    /// Lets it start again.
    Release,
    /// Starts it again from the beginning.
    Requeue,
    /// Starts it again once it is released.
    RequeueHold,
    /// Makes it stand still; for admins.
    Suspend,
    /// Lets it go on; for admins.
    Resume,
}

/// Something that is done to jobs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionsAsk {
    /// What.
    pub action: Verb,
    /// To which: `12`, `12_3`, `12_[4-9]`.
    pub jobs: Vec<String>,
    /// With `signal`: which, `USR1`.
    #[serde(default)]
    pub signal: String,
}

/// What became of one of several jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct JobOutcome {
    /// The job.
    pub job: String,
    /// Why it was refused; null: it was done.
    pub problem: Option<Problem>,
}

fn number_of(signal: &str) -> Result<u32, Problem> {
    let read: Signal = signal.parse().map_err(|error| Problem::bad(format!("signal: {error}")))?;
    Ok(read.number().into())
}

/// Does it, by the calls that commands make.
pub(in crate::http) async fn act(
    web: &Web,
    who: &Who,
    verb: Verb,
    selectors: Vec<String>,
    signal: &str,
    request_id: bytes::Bytes,
) -> Result<Vec<v1::JobResult>, Problem> {
    if selectors.is_empty() || selectors.len() > MOST_NAMED {
        let text = format!("{} jobs are named; name 1 to {MOST_NAMED}", selectors.len());
        return Err(Problem::bad(text));
    }
    let control = match verb {
        Verb::Cancel | Verb::Signal => {
            let signal = if verb == Verb::Cancel { 0 } else { number_of(signal)? };
            let filter = v1::JobFilter { selectors, ..v1::JobFilter::default() };
            let request = v1::CancelJobsRequest {
                request_id,
                filter: Some(filter),
                signal,
                ..v1::CancelJobsRequest::default()
            };
            let reply = web.service.cancel_jobs(asked(who, request)).await?;
            return Ok(reply.into_inner().results);
        }
        Verb::Hold => v1::JobVerb::Hold,
        Verb::Release => v1::JobVerb::Release,
        Verb::Requeue => v1::JobVerb::Requeue,
        Verb::RequeueHold => v1::JobVerb::RequeueHold,
        Verb::Suspend => v1::JobVerb::Suspend,
        Verb::Resume => v1::JobVerb::Resume,
    };
    let name = String::new();
    let request = v1::ControlJobsRequest { request_id, verb: control.into(), selectors, name };
    let reply = web.service.control_jobs(asked(who, request)).await?;
    Ok(reply.into_inner().results)
}

/// The one outcome of a request about one job.
pub(in crate::http) fn single(results: &[v1::JobResult]) -> Result<(), Problem> {
    match results.iter().find_map(|result| result.refusal.as_ref()) {
        Some(refusal) => Err(Problem::refused(refusal)),
        None => Ok(()),
    }
}

fn outcomes(results: Vec<v1::JobResult>) -> Vec<JobOutcome> {
    let outcome = |result: v1::JobResult| JobOutcome {
        job: result.job,
        problem: result.refusal.as_ref().map(Problem::refused),
    };
    results.into_iter().map(outcome).collect()
}

/// Does one thing to many jobs; each is done or refused by itself.
#[utoipa::path(post, path = "/api/v1/jobs/actions", tag = "jobs", request_body = ActionsAsk,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = [JobOutcome]), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn actions(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Key(request_id): Key,
    Body(ask): Body<ActionsAsk>,
) -> Answer {
    let results = act(&web, &who, ask.action, ask.jobs, &ask.signal, request_id).await?;
    Ok(json(StatusCode::OK, &outcomes(results)))
}

/// Does something to a job: hold, release, requeue, requeue-hold, suspend, resume.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/{action}", tag = "jobs",
    params(("id" = String, Path), ("action" = Verb, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 204), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn action(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path((id, action)): Path<(String, String)>,
    Key(request_id): Key,
) -> Answer {
    let verb: Verb = serde_json::from_value(action.clone().into()).map_err(|_| {
        Problem::new(StatusCode::NOT_FOUND, format!("{action:?} is nothing that is done to a job"))
    })?;
    if verb == Verb::Signal {
        return Err(Problem::bad("a signal is sent by DELETE /api/v1/jobs/{id}?signal=NAME"));
    }
    let results = act(&web, &who, verb, vec![id], "", request_id).await?;
    single(&results)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// How a job is ended.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EndQuery {
    /// Instead of ending it: the signal to send its steps.
    pub signal: String,
}

/// Ends a job, or sends it a signal.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path), EndQuery, ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 204), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn end(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Params(query): Params<EndQuery>,
    Key(request_id): Key,
) -> Answer {
    let verb = if query.signal.is_empty() { Verb::Cancel } else { Verb::Signal };
    let results = act(&web, &who, verb, vec![id], &query.signal, request_id).await?;
    single(&results)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What changes of a job; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobChange {
    /// Time limit: minutes, or `1:30:00`.
    pub time_limit: Option<NumberOrText>,
    /// Partitions, by commas.
    pub partition: Option<String>,
    /// QOS.
    pub qos: Option<String>,
    /// Account.
    pub account: Option<String>,
    /// Priority; for admins.
    pub priority: Option<u32>,
    /// Nice.
    pub nice: Option<i32>,
    /// Dependency; empty: none.
    pub dependency: Option<String>,
    /// Not before, milliseconds since the epoch.
    pub begin_ms: Option<i64>,
    /// Tasks.
    pub ntasks: Option<u32>,
    /// CPUs of each task.
    pub cpus_per_task: Option<u32>,
    /// Features.
    pub constraint: Option<String>,
    /// Resources on each node.
    pub gres: Option<String>,
    /// Nodes that it must have, a hostlist.
    pub nodelist: Option<String>,
    /// Nodes that it must not have, a hostlist.
    pub exclude: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Comment.
    pub comment: Option<String>,
    /// May be started again.
    pub requeue: Option<bool>,
    /// Tasks of the array that run at once; 0: any number.
    pub array_throttle: Option<u32>,
    /// Reservation; empty: none.
    pub reservation: Option<String>,
}

impl JobChange {
    /// As the call has it.
    pub(in crate::http) fn update(self) -> Result<v1::JobUpdate, Problem> {
        let limit = self.time_limit.as_ref().map(|limit| limit_secs("time_limit", limit));
        Ok(v1::JobUpdate {
            time_limit_secs: limit.transpose()?,
            partition: self.partition,
            qos: self.qos,
            account: self.account,
            priority: self.priority,
            nice: self.nice,
            dependency: self.dependency,
            begin_time_ms: self.begin_ms,
            ntasks: self.ntasks,
            cpus_per_task: self.cpus_per_task,
            constraint: self.constraint,
            gres: self.gres,
            required_nodes: self.nodelist,
            excluded_nodes: self.exclude,
            name: self.name,
            comment: self.comment,
            requeue: self.requeue,
            array_throttle: self.array_throttle,
            reservation: self.reservation,
            ..v1::JobUpdate::default()
        })
    }
}

/// Changes jobs by a call of `scontrol update`.
pub(in crate::http) async fn update(
    web: &Web,
    who: &Who,
    id: String,
    change: JobChange,
    request_id: bytes::Bytes,
) -> Result<(), Problem> {
    let update = Some(change.update()?);
    let request = v1::UpdateJobRequest { request_id, selectors: vec![id], update };
    let reply = web.service.update_job(asked(who, request)).await?;
    single(&reply.into_inner().results)
}

/// Changes a job.
#[utoipa::path(patch, path = "/api/v1/jobs/{id}", tag = "jobs", request_body = JobChange,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 204), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn change(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Key(request_id): Key,
    Body(change): Body<JobChange>,
) -> Answer {
    update(&web, &who, id, change, request_id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
