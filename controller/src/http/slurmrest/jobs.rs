//! `/slurm/v0.0.40/jobs` and `/job/{id}`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use penstock_proto::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, time, whole, with_first};
use super::submit::change_of;
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::rest::answer::{Body, Key, Params};
use crate::http::rest::changes::{Verb, act, single, update as update_job};
use crate::http::rest::jobs::full;
use crate::http::shapes::Moment;
use crate::http::web::{Web, aside};
use crate::listing::After;

/// What slurmrestd takes behind the question mark; jobs of after a time are all there are.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobsQuery {
    update_time: String,
}

fn written(web: &Web, jobs: &[v1::JobInfo]) -> Response {
    let now_ms = web.now().0;
    let snapshot = web.shared.snapshot();
    let moment = Moment { cluster: &snapshot.cluster.config().cluster, now_ms };
    let listing = (web.shapes.queued)(jobs, moment);
    with_first(&[("last_backfill", time(now_ms)), ("last_update", time(now_ms))], &listing)
}

pub(super) async fn list(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Params(query): Params<JobsQuery>,
) -> Answer {
    if !query.update_time.is_empty() && query.update_time.parse::<u64>().is_err() {
        let text = format!("update_time={:?} is no time in seconds", query.update_time);
        return Err(Problem::bad(text).into());
    }
    let request = v1::ListJobsRequest { all_states: true, full: true, ..Default::default() };
    let made = aside(move || {
        let most = usize::MAX;
        let caller = &who.caller;
        let (jobs, _) =
            crate::rpc::page_of_jobs(&web.shared, caller, &request, After::Nothing, most)?;
        Ok::<_, Problem>(written(&web, &jobs))
    });
    Ok(made.await??)
}

pub(super) async fn one(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Answer {
    let jobs = full(&web, &who, &id).await?;
    if jobs.is_empty() {
        return Err(unknown(&id).into());
    }
    Ok(aside(move || written(&web, &jobs)).await?)
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::refused(&v1::Refusal {
        kind: "InvalidJobId".to_owned(),
        slurm_text: "Invalid job id specified".to_owned(),
        detail: format!("there is no job {id:?}"),
    })
}

pub(super) async fn update(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Key(request_id): Key,
    Body(body): Body<Value>,
) -> Answer {
    let change = change_of(&body)?;
    update_job(&web, &who, id, change, request_id).await?;
    Ok(whole(json!({"job_id": "", "step_id": "", "job_submit_user_msg": ""})))
}

/// How slurmrestd ends a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndQuery {
    signal: String,
    flags: String,
}

pub(super) async fn end(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Params(query): Params<EndQuery>,
    Key(request_id): Key,
) -> Answer {
    if !query.flags.is_empty() {
        let text = format!("flags={:?} can't be honoured; leave it out", query.flags);
        return Err(Problem::bad(text).into());
    }
    let verb = match query.signal.as_str() {
        "" | "SIGKILL" | "KILL" | "9" => Verb::Cancel,
        _ => Verb::Signal,
    };
    let results = act(&web, &who, verb, vec![id], &query.signal, request_id).await?;
    single(&results)?;
    Ok(whole(json!({})))
}
