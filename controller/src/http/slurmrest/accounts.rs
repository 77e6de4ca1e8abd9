//! `/slurmdb/v0.0.40/`: jobs of the accounting, associations, accounts, users and QOS.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use penstock_proto::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, limit, number, whole};
use super::jobs::unknown;
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::rest::answer::{Params, text};
use crate::http::rest::jobs::{past, words};
use crate::http::rest::listed_accounts;
use crate::http::shapes::Moment;
use crate::http::web::{Web, aside};

/// Which jobs, in slurmrestd's words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobsQuery {
    users: String,
    account: String,
    partition: String,
    state: String,
    step: String,
    job_name: String,
    node: String,
    start_time: String,
    end_time: String,
}

/// Seconds since the epoch, or a time as Slurm writes one, to milliseconds; empty: open.
fn instant(key: &str, text: &str) -> Result<i64, Problem> {
    if text.is_empty() {
        return Ok(0);
    }
    let secs = text.parse::<i64>().ok().and_then(|secs| secs.checked_mul(1_000));
    let civil = || {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        let zoned = civil.to_zoned_datetime(jiff::tz::TimeZone::system()).ok()?;
        Some(zoned.timestamp().as_millisecond())
    };
    secs.or_else(civil).ok_or_else(|| {
        Problem::bad(format!("{key}={text:?} is no time; give 2026-01-31T14:05:00 or seconds"))
    })
}

async fn written(web: Arc<Web>, jobs: Vec<v1::JobInfo>) -> Result<Response, Problem> {
    aside(move || {
        let snapshot = web.shared.snapshot();
        let cluster = &snapshot.cluster.config().cluster;
        let body = (web.shapes.accounted)(jobs, Moment { cluster, now_ms: web.now().0 });
        text(http::StatusCode::OK, body)
    })
    .await
}

pub(super) async fn jobs(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Params(query): Params<JobsQuery>,
) -> Answer {
    let users = words(&query.users);
    let request = v1::ListAccountingRequest {
        selectors: words(&query.step),
        all_users: users.is_empty(),
        users,
        states: words(&query.state),
        from_ms: instant("start_time", &query.start_time)?,
        to_ms: instant("end_time", &query.end_time)?,
        accounts: words(&query.account),
        partitions: words(&query.partition),
        names: words(&query.job_name),
        nodes: if query.node.is_empty() { Vec::new() } else { vec![query.node] },
        ..v1::ListAccountingRequest::default()
    };
    let jobs = past(&web, &who, request).await?;
    Ok(written(web, jobs).await?)
}

pub(super) async fn job(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Answer {
    let selectors = vec![id.clone()];
    let request = v1::ListAccountingRequest { selectors, all_users: true, ..Default::default() };
    let jobs = past(&web, &who, request).await?;
    if jobs.is_empty() {
        return Err(unknown(&id).into());
    }
    Ok(written(web, jobs).await?)
}

fn tres(list: &[v1::TresAmount]) -> Value {
    let one = |amount: &v1::TresAmount| {
        let (kind, name) = amount.kind.split_once('/').unwrap_or((&amount.kind, ""));
        json!({"type": kind, "name": name, "id": 0, "count": amount.count})
    };
    list.iter().map(one).collect()
}

fn limit32(value: Option<u32>) -> Value {
    limit(value.map(u64::from))
}

/// An association as slurmrestd tells of it.
fn association(assoc: &v1::Association, cluster: &str, parent: &str) -> Value {
    let group = assoc.group.clone().unwrap_or_default();
    let job = assoc.job.clone().unwrap_or_default();
    let each = assoc.each.clone().unwrap_or_default();
    let qos = assoc.qos.as_ref().map(|list| list.names.clone()).unwrap_or_default();
    json!({
        "accounting": [],
        "account": assoc.account,
        "cluster": cluster,
        "comment": "",
        "default": {"qos": assoc.default_qos},
        "flags": [],
        "id": {
            "account": assoc.account, "cluster": cluster, "partition": assoc.partition,
            "user": assoc.user, "id": assoc.id,
        },
        "is_default": false,
        "lineage": "",
        "max": {
            "jobs": {
                "per": {
                    "count": number(None), "accruing": limit32(group.jobs_accrue),
                    "submitted": limit32(group.submit_jobs), "wall_clock": limit32(job.wall_mins),
                },
                "active": limit32(each.jobs),
                "accruing": limit32(each.jobs_accrue),
                "total": limit32(each.submit_jobs),
            },
            "tres": {
                "total": tres(&group.tres),
                "group": {"minutes": tres(&group.tres_mins), "active": tres(&group.tres_run_mins)},
                "minutes": {"total": tres(&group.tres_mins), "per": {"job": tres(&job.tres_mins)}},
                "per": {"job": tres(&job.tres), "node": tres(&job.tres_per_node)},
            },
            "per": {"account": {"wall_clock": limit32(group.wall_mins)}},
        },
        "min": {"priority_threshold": number(None)},
        "parent_account": parent,
        "partition": assoc.partition,
        "priority": number(Some(assoc.priority.into())),
        "qos": qos,
        "shares_raw": assoc.shares.map_or_else(|| i64::from(i32::MAX), i64::from),
        "user": assoc.user,
    })
}

pub(super) async fn associations(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
) -> Answer {
    let reply = listed_accounts(&web, &who).await?;
    let parent_of = |assoc: &v1::Association| {
        // A user's place is told without one.
        let above = reply.associations.iter().find(|one| one.id == assoc.parent);
        match above {
            Some(above) if assoc.user.is_empty() && assoc.parent != 0 => above.account.clone(),
            _ => String::new(),
        }
    };
    let shapes: Vec<Value> = reply
        .associations
        .iter()
        .map(|assoc| association(assoc, &reply.cluster, &parent_of(assoc)))
        .collect();
    Ok(whole(json!({"associations": shapes})))
}

pub(super) async fn accounts(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
) -> Answer {
    let reply = listed_accounts(&web, &who).await?;
    let shape = |account: &v1::Account| {
        let coordinators: Vec<Value> =
            account.coordinators.iter().map(|name| json!({"name": name, "direct": true})).collect();
        json!({
            "associations": [],
            "coordinators": coordinators,
            "description": account.description,
            "name": account.name,
            "organization": account.organization,
            "flags": [],
        })
    };
    let accounts: Vec<Value> = reply.accounts.iter().map(shape).collect();
    Ok(whole(json!({"accounts": accounts})))
}

pub(super) async fn users(State(web): State<Arc<Web>>, Extension(who): Extension<Who>) -> Answer {
    let reply = listed_accounts(&web, &who).await?;
    let shape = |user: &v1::User| {
        let level = match user.admin_level() {
            v1::AdminLevel::None => "None",
            v1::AdminLevel::Operator => "Operator",
            v1::AdminLevel::Administrator => "Administrator",
        };
        json!({
            "administrator_level": [level],
            "associations": [],
            "coordinators": [],
            "default": {"account": user.default_account, "wckey": ""},
            "flags": [],
            "name": user.name,
            "old_name": "",
            "wckeys": [],
        })
    };
    let users: Vec<Value> = reply.users.iter().map(shape).collect();
    Ok(whole(json!({"users": users})))
}

/// A QOS as slurmrestd tells of it.
fn qos_shape(qos: &v1::Qos) -> Value {
    let group = qos.group.clone().unwrap_or_default();
    let user = qos.per_user.clone().unwrap_or_default();
    let account = qos.per_account.clone().unwrap_or_default();
    let job = qos.job.clone().unwrap_or_default();
    let mode = match qos.preempt_mode.map(v1::PreemptMode::try_from) {
        Some(Ok(v1::PreemptMode::Cancel)) => "CANCEL",
        Some(Ok(v1::PreemptMode::Requeue)) => "REQUEUE",
        Some(Ok(v1::PreemptMode::Suspend)) => "SUSPEND",
        Some(Ok(v1::PreemptMode::Off)) | Some(Err(_)) | None => "DISABLED",
    };
    #[expect(clippy::cast_precision_loss, reason = "Slurm keeps the factor as a double")]
    let factor = qos.usage_factor as f64 / 1e6;
    json!({
        "description": qos.description,
        "flags": qos.flags,
        "id": qos.id,
        "limits": {
            "grace_time": qos.grace_secs,
            "max": {
                "active_jobs": {
                    "accruing": limit32(group.jobs_accrue), "count": limit32(group.jobs),
                },
                "tres": {
                    "total": tres(&group.tres),
                    "minutes": {"per": {
                        "qos": tres(&group.tres_mins), "job": tres(&job.tres_mins),
                        "account": [], "user": [],
                    }},
                    "per": {
                        "account": tres(&account.tres), "job": tres(&job.tres),
                        "node": tres(&job.tres_per_node), "user": tres(&user.tres),
                    },
                },
                "wall_clock": {
                    "per": {"qos": limit32(group.wall_mins), "job": limit32(job.wall_mins)},
                },
                "jobs": {
                    "active_jobs": {"per": {
                        "account": limit32(account.jobs), "user": limit32(user.jobs),
                    }},
                    "per": {
                        "account": limit32(account.submit_jobs), "user": limit32(user.submit_jobs),
                    },
                },
                "accruing": {"per": {
                    "account": limit32(account.jobs_accrue), "user": limit32(user.jobs_accrue),
                }},
            },
            "factor": number(None),
            "min": {"priority_threshold": number(None), "tres": {"per": {"job": tres(&job.min_tres)}}},
        },
        "name": qos.name,
        "preempt": {
            "list": qos.preempt, "mode": [mode],
            "exempt_time": number(qos.preempt_exempt_secs.map(u64::from)),
        },
        "priority": number(Some(qos.priority.into())),
        "usage_factor": {"set": true, "infinite": false, "number": factor},
        "usage_threshold": number(None),
    })
}

pub(super) async fn qos(State(web): State<Arc<Web>>, Extension(who): Extension<Who>) -> Answer {
    let reply = listed_accounts(&web, &who).await?;
    let list: Vec<Value> = reply.qos.iter().map(qos_shape).collect();
    Ok(whole(json!({"qos": list})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_seconds_and_in_words() {
        assert_eq!(instant("t", ""), Ok(0));
        assert_eq!(instant("t", "12"), Ok(12_000));
        assert!(instant("t", "2026-01-31T14:05:00").is_ok_and(|ms| ms > 1_700_000_000_000));
        assert!(instant("t", "soon").unwrap_err().detail().contains("soon"));
    }
}
