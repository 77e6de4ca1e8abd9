//! Which jobs are there, and what of one?

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use http::{HeaderMap, StatusCode, header};
use penstock_proto::v1;
use penstock_proto::v1::penstock_server::Penstock as _;
use penstock_vocab::JobId;
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt as _;
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Body, Key, Params, json, tagged};
use super::submit::SubmitAsk;
use super::views::{JobDetails, JobView};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::web::{Web, aside, asked};
use crate::listing::After;

/// Jobs on a page that states no number, and most on any.
const PAGE: usize = 100;
const MOST: usize = 1_000;

/// Which jobs, and which page of them. Lists are joined by commas.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// Jobs by number: `12,13_4`.
    pub job: String,
    /// Login names.
    pub user: String,
    /// States: `PENDING,RUNNING`.
    pub state: String,
    /// Partitions.
    pub partition: String,
    /// Accounts.
    pub account: String,
    /// QOS.
    pub qos: String,
    /// Names of jobs.
    pub name: String,
    /// Nodes, a hostlist.
    pub node: String,
    /// Also jobs that ended a short while ago.
    pub all: bool,
    /// A line for each waiting task of an array.
    pub expand: bool,
    /// Jobs on a page, 1 to 1,000.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub after: String,
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct JobsPage {
    /// Jobs by number, then what waits of arrays.
    pub jobs: Vec<JobView>,
    /// For `after`, to get the next page; null: this is the last.
    #[schema(example = "j1200")]
    pub next: Option<String>,
}

pub(in crate::http) fn words(text: &str) -> Vec<String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

impl JobsQuery {
    fn request(&self) -> v1::ListJobsRequest {
        let nodes = if self.node.is_empty() { Vec::new() } else { vec![self.node.clone()] };
        v1::ListJobsRequest {
            filter: Some(v1::JobFilter {
                selectors: words(&self.job),
                users: words(&self.user),
                names: words(&self.name),
                partitions: words(&self.partition),
                accounts: words(&self.account),
                qos: words(&self.qos),
                states: words(&self.state),
                nodes,
                ..v1::JobFilter::default()
            }),
            all_states: self.all,
            full: false,
            expand_arrays: self.expand,
        }
    }

    fn after(&self) -> Result<After, Problem> {
        let number = |text: &str| text.parse().ok().map(JobId);
        let after = match self.after.split_at_checked(1) {
            None => Some(After::Nothing),
            Some(("j", id)) => number(id).map(After::Job),
            Some(("a", id)) => number(id).map(After::Array),
            Some(_) => None,
        };
        after.ok_or_else(|| {
            Problem::bad(format!(
                "after={:?} is no page; give `next` of the page before",
                self.after
            ))
        })
    }
}

/// Where the page behind this one begins.
fn next_of(jobs: &[v1::JobInfo]) -> Option<String> {
    let info = jobs.last()?;
    let id = info.job.as_ref()?.id;
    Some(if info.pending_tasks.is_some() { format!("a{id}") } else { format!("j{id}") })
}

/// The queue, page by page.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, body = JobsPage), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn list(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<JobsQuery>,
) -> Answer {
    let most = query.limit.unwrap_or(PAGE);
    if !(1..=MOST).contains(&most) {
        return Err(Problem::bad(format!("limit={most} is not between 1 and {MOST}")));
    }
    let after = query.after()?;
    let whole = !query.job.is_empty();
    aside(move || {
        let request = query.request();
        let most = if whole { usize::MAX } else { most };
        let (jobs, more) =
            crate::rpc::page_of_jobs(&web.shared, &who.caller, &request, after, most)?;
        let next = if more { next_of(&jobs) } else { None };
        Ok(tagged(&headers, &JobsPage { jobs: jobs.iter().map(JobView::of).collect(), next }))
    })
    .await?
}

/// The jobs that a selector means, in full.
pub(in crate::http) async fn full(
    web: &Arc<Web>,
    who: &Who,
    selector: &str,
) -> Result<Vec<v1::JobInfo>, Problem> {
    let filter = v1::JobFilter { selectors: vec![selector.to_owned()], ..v1::JobFilter::default() };
    let request = v1::ListJobsRequest {
        filter: Some(filter),
        all_states: true,
        full: true,
        expand_arrays: false,
    };
    let (web, who) = (Arc::clone(web), who.clone());
    let (jobs, _) = aside(move || {
        crate::rpc::page_of_jobs(&web.shared, &who.caller, &request, After::Nothing, usize::MAX)
    })
    .await??;
    Ok(jobs)
}

/// What the history knows of a job, its newest run last.
pub(in crate::http) async fn past(
    web: &Arc<Web>,
    who: &Who,
    request: v1::ListAccountingRequest,
) -> Result<Vec<v1::JobInfo>, Problem> {
    let mut parts =
        web.service.list_accounting(asked(who, request)).await.map_err(Problem::from)?.into_inner();
    let mut jobs = Vec::new();
    while let Some(part) = parts.next().await {
        jobs.extend(part.map_err(Problem::from)?.jobs);
    }
    Ok(jobs)
}

fn unknown(id: &str) -> Problem {
    Problem::refused(&v1::Refusal {
        kind: "InvalidJobId".to_owned(),
        slurm_text: "Invalid job id specified".to_owned(),
        detail: format!("there is no job {id:?}, and none is remembered"),
    })
}

/// One job, also one that ended long ago; of an array, all its parts.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "`12` or `12_3`")),
    responses((status = 200, body = [JobDetails]), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn one(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let mut jobs = full(&web, &who, &id).await?;
    if jobs.is_empty() {
        let selectors = vec![id.clone()];
        let request =
            v1::ListAccountingRequest { selectors, all_users: true, ..Default::default() };
        jobs = past(&web, &who, request).await?;
    }
    if jobs.is_empty() {
        return Err(unknown(&id));
    }
    let details: Vec<_> = jobs.iter().map(JobDetails::of).collect();
    Ok(tagged(&headers, &details))
}

/// A job that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Submitted {
    /// Its number.
    pub id: u32,
    /// What sbatch would print besides.
    pub warnings: Vec<String>,
}

/// Submits a job. With an `Idempotency-Key` the same request made again answers the same job.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = SubmitAsk,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Submitted), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn submit(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Key(request_id): Key,
    Body(ask): Body<SubmitAsk>,
) -> Answer {
    let by = who.clone();
    let request = aside(move || ask.request(&by, request_id)).await??;
    let reply = web.service.submit_job(asked(&who, request)).await?.into_inner();
    let mut response =
        json(StatusCode::CREATED, &Submitted { id: reply.job_id, warnings: reply.warnings });
    if let Ok(place) = format!("/api/v1/jobs/{}", reply.job_id).parse() {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// The script of a job; for its owner and admins.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/script", tag = "jobs",
    params(("id" = String, Path)),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn script(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(selector): Path<String>,
) -> Answer {
    let request = v1::GetBatchScriptRequest { selector };
    let reply = web.service.get_batch_script(asked(&who, request)).await?.into_inner();
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], reply.script).into_response())
}

/// Which ended and living jobs of the accounting.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Jobs by number.
    pub job: String,
    /// Login names; empty: your own.
    pub user: String,
    /// Everybody's.
    pub all_users: bool,
    /// States.
    pub state: String,
    /// Accounts.
    pub account: String,
    /// Partitions.
    pub partition: String,
    /// Not before, milliseconds since the epoch; absent: a day ago.
    pub from_ms: Option<i64>,
    /// Not after, milliseconds since the epoch; 0: open.
    pub to_ms: i64,
    /// Most jobs, the newest; 1 to 1,000.
    pub limit: Option<usize>,
}

/// Jobs of the accounting, also long ago, the newest first.
#[utoipa::path(get, path = "/api/v1/history", tag = "jobs", params(HistoryQuery),
    responses((status = 200, body = [JobView]), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn history(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<HistoryQuery>,
) -> Answer {
    const DAY_MS: i64 = 86_400_000;
    let most = query.limit.unwrap_or(PAGE);
    if !(1..=MOST).contains(&most) {
        return Err(Problem::bad(format!("limit={most} is not between 1 and {MOST}")));
    }
    let selectors = words(&query.job);
    // Named jobs are meant whenever they were.
    let since = if selectors.is_empty() { web.now().0.saturating_sub(DAY_MS) } else { 0 };
    let request = v1::ListAccountingRequest {
        selectors,
        users: words(&query.user),
        states: words(&query.state),
        from_ms: query.from_ms.unwrap_or(since),
        to_ms: query.to_ms,
        accounts: words(&query.account),
        partitions: words(&query.partition),
        all_users: query.all_users,
        ..v1::ListAccountingRequest::default()
    };
    let mut jobs = past(&web, &who, request).await?;
    jobs.sort_by_key(|info| std::cmp::Reverse(info.job.as_ref().map(|job| job.id)));
    jobs.truncate(most);
    let views: Vec<_> = jobs.iter().map(JobView::of).collect();
    Ok(tagged(&headers, &views))
}
