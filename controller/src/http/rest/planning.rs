//! Why does a job wait, and what would be if something were otherwise?

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use penstock_proto::v1;
use penstock_proto::v1::penstock_server::Penstock as _;
use penstock_proto::v1::planning_server::Planning as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Body, Params, json, tagged};
use super::submit::JobAsk;
use super::views::{ExplainView, ReservationView, WhatIfView};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::web::{Web, aside, asked};

/// How much is explained.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainQuery {
    /// Also look for changes that would start it sooner, which takes longer.
    pub suggest: bool,
}

/// Why a job waits, until when, and what would start it sooner.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/explain", tag = "planning",
    params(("id" = String, Path), ExplainQuery),
    responses((status = 200, body = ExplainView), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn explain(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Path(selector): Path<String>,
    Params(query): Params<ExplainQuery>,
) -> Answer {
    let request = v1::ExplainRequest { selector, suggest: query.suggest };
    let reply = web.service.explain(asked(&who, request)).await?.into_inner();
    Ok(tagged(&headers, &ExplainView::of(reply)))
}

/// What would be otherwise: one of these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum WhatIfAsk {
    /// This job were submitted.
    Submit(Box<JobAsk>),
    /// These nodes were drained, a hostlist.
    Drain(String),
    /// A policy were in force: sections as the cluster file has them.
    Policy(String),
}

/// Who would start when if something were otherwise. Nothing changes.
#[utoipa::path(post, path = "/api/v1/what-if", tag = "planning", request_body = WhatIfAsk,
    responses((status = 200, body = WhatIfView), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn what_if(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Body(ask): Body<WhatIfAsk>,
) -> Answer {
    use v1::what_if_request::{Change, Drain, Weights};
    let by = who.clone();
    let change = match ask {
        WhatIfAsk::Submit(job) => Change::Submit(aside(move || job.spec(&by)).await??),
        WhatIfAsk::Drain(nodes) => Change::Drain(Drain { nodes }),
        WhatIfAsk::Policy(toml) => Change::Weights(Weights { toml }),
    };
    let request = v1::WhatIfRequest { change: Some(change) };
    let reply = web.service.what_if(asked(&who, request)).await?.into_inner();
    Ok(json(StatusCode::OK, &WhatIfView::of(reply)))
}

/// Reservations.
#[utoipa::path(get, path = "/api/v1/reservations", tag = "planning",
    responses((status = 200, body = [ReservationView]), (status = 304),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn reservations(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Answer {
    let request = v1::ListReservationsRequest {};
    let reply = web.service.list_reservations(asked(&who, request)).await?.into_inner();
    let views: Vec<_> = reply.reservations.into_iter().map(ReservationView::of).collect();
    Ok(tagged(&headers, &views))
}

/// Who answers, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PingView {
    /// The cluster's name.
    pub cluster: String,
    /// The controller's host.
    pub host: String,
    /// Version of Penstock.
    pub version: String,
    /// The controller's time.
    pub now_ms: i64,
    /// Login name of who asks.
    pub user: String,
    /// Number of who asks.
    pub uid: u32,
    /// May do admin acts.
    pub admin: bool,
    /// May change nothing.
    pub read_only: bool,
}

/// Who answers, and as whom you are known.
#[utoipa::path(get, path = "/api/v1/ping", tag = "controller",
    responses((status = 200, body = PingView), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn ping(State(web): State<Arc<Web>>, Extension(who): Extension<Who>) -> Answer {
    let reply = web.service.ping(asked(&who, v1::PingRequest {})).await?.into_inner();
    let view = PingView {
        cluster: reply.cluster,
        host: reply.controller_host,
        version: reply.version,
        now_ms: reply.now_ms,
        user: who.user.to_string(),
        uid: reply.uid,
        admin: reply.admin,
        read_only: who.read_only,
    };
    Ok(json(StatusCode::OK, &view))
}
