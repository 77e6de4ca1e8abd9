//! What can a monitoring system read of the cluster?
//!
//! Every scrape reads one snapshot and the counters that are kept anyway; nothing is counted twice. Labels
//! are bounded: states, partitions, types of GPUs, the largest accounts; never a job, a user or a node.

mod family;
mod gather;
mod jobs;
mod machine;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, header};

use super::problem::Problem;
use super::web::{Web, aside};

/// The path, which may be open.
pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, Problem> {
    let open = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let text = aside(move || family::text(gather::all(&web), open)).await?;
    let kind = match open {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
