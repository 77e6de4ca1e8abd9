//! Which nodes, GPUs and partitions are there, and how is a node taken out of service?

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use http::{HeaderMap, StatusCode};
use penstock_proto::v1;
use penstock_proto::v1::penstock_server::Penstock as _;
use penstock_proto::v1::planning_server::Planning as _;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Body, Key, Params, tagged};
use super::views::{GpuView, NodeView, PartitionView, WhatIfView};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::web::{Web, aside, asked};

/// Which nodes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct NodesQuery {
    /// A hostlist; empty: all.
    pub nodes: String,
    /// Only nodes in this partition.
    pub partition: String,
}

/// Nodes by the call that sinfo makes.
pub(in crate::http) async fn listed(
    web: &Web,
    who: &Who,
    nodes: &str,
) -> Result<Vec<v1::NodeInfo>, Problem> {
    let request = v1::ListNodesRequest { nodes: nodes.to_owned() };
    let reply = web.service.list_nodes(asked(who, request)).await?.into_inner();
    match reply.unknown.first() {
        Some(name) => Err(unknown(name)),
        None => Ok(reply.nodes),
    }
}

fn unknown(name: &str) -> Problem {
    Problem::refused(&v1::Refusal {
        kind: "InvalidNode".to_owned(),
        slurm_text: "Invalid node name specified".to_owned(),
        detail: format!("there is no node {name:?}"),
    })
}

async fn wanted(web: &Web, who: &Who, query: &NodesQuery) -> Result<Vec<v1::NodeInfo>, Problem> {
    let mut nodes = listed(web, who, &query.nodes).await?;
    if !query.partition.is_empty() {
        nodes.retain(|info| info.partitions.contains(&query.partition));
    }
    Ok(nodes)
}

/// Nodes with their GPUs.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(NodesQuery),
    responses((status = 200, body = [NodeView]), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn list(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<NodesQuery>,
) -> Answer {
    let nodes = wanted(&web, &who, &query).await?;
    aside(move || tagged(&headers, &nodes.iter().map(NodeView::of).collect::<Vec<_>>())).await
}

/// One node.
#[utoipa::path(get, path = "/api/v1/nodes/{name}", tag = "nodes",
    params(("name" = String, Path)),
    responses((status = 200, body = NodeView), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn one(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Answer {
    let nodes = listed(&web, &who, &name).await?;
    let node = nodes.iter().find(|info| info.node.as_ref().is_some_and(|node| node.name == name));
    Ok(tagged(&headers, &NodeView::of(node.ok_or_else(|| unknown(&name))?)))
}

/// GPUs of all nodes, with who has them and what they do.
#[utoipa::path(get, path = "/api/v1/gpus", tag = "nodes", params(NodesQuery),
    responses((status = 200, body = [GpuView]), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn gpus(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<NodesQuery>,
) -> Answer {
    let nodes = wanted(&web, &who, &query).await?;
    aside(move || tagged(&headers, &nodes.iter().flat_map(GpuView::all_of).collect::<Vec<_>>()))
        .await
}

/// Partitions by the call that sinfo makes.
pub(in crate::http) async fn listed_partitions(
    web: &Web,
    who: &Who,
) -> Result<Vec<v1::PartitionInfo>, Problem> {
    let request = v1::ListPartitionsRequest::default();
    Ok(web.service.list_partitions(asked(who, request)).await?.into_inner().partitions)
}

/// Partitions.
#[utoipa::path(get, path = "/api/v1/partitions", tag = "nodes",
    responses((status = 200, body = [PartitionView]), (status = 304),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn partitions(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Answer {
    let partitions = listed_partitions(&web, &who).await?;
    Ok(tagged(&headers, &partitions.iter().map(PartitionView::of).collect::<Vec<_>>()))
}

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeVerb {
    /// It gets no new job.
    Drain,
    /// It gets jobs again.
    Resume,
    /// As resume, and leaves a node down that is down.
    Undrain,
    /// Its jobs end at once.
    Down,
}

/// What changes of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeChange {
    /// What is done.
    pub action: NodeVerb,
    /// Why; with drain and down.
    #[serde(default)]
    pub reason: String,
    /// These GPUs alone: `gpu:3`, `gpu:0,2-5`; empty: the node.
    #[serde(default)]
    pub gres: String,
}

/// Drains a node or its GPUs, puts it down, or lets it go on; for admins.
#[utoipa::path(patch, path = "/api/v1/nodes/{name}", tag = "nodes", request_body = NodeChange,
    params(("name" = String, Path, description = "A hostlist"),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 204), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn change(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(nodes): Path<String>,
    Key(request_id): Key,
    Body(change): Body<NodeChange>,
) -> Answer {
    let action = match change.action {
        NodeVerb::Drain => v1::NodeAction::Drain,
        NodeVerb::Resume => v1::NodeAction::Resume,
        NodeVerb::Undrain => v1::NodeAction::Undrain,
        NodeVerb::Down => v1::NodeAction::Down,
    };
    let request = v1::UpdateNodeRequest {
        request_id,
        nodes,
        action: action.into(),
        reason: change.reason,
        gres: change.gres,
        ..v1::UpdateNodeRequest::default()
    };
    web.service.update_node(asked(&who, request)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What a drain would cost: who would start later, and when the node would be empty.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/drain-plan", tag = "nodes",
    params(("name" = String, Path, description = "A hostlist")),
    responses((status = 200, body = WhatIfView), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn drain_plan(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Path(nodes): Path<String>,
) -> Answer {
    let drain = v1::what_if_request::Drain { nodes };
    let change = Some(v1::what_if_request::Change::Drain(drain));
    let reply = web.service.what_if(asked(&who, v1::WhatIfRequest { change })).await?;
    Ok(tagged(&headers, &WhatIfView::of(reply.into_inner())))
}
