//! Our own REST, `/api/v1`: what can be asked and changed, and in which words?
//!
//! Handlers are thin: read, one call of the services that commands call, write.

mod accounts;
pub(in crate::http) mod answer;
pub(in crate::http) mod changes;
pub(in crate::http) mod events;
pub(in crate::http) mod jobs;
pub(in crate::http) mod nodes;
mod openapi;
mod planning;
pub(in crate::http) mod submit;
pub(in crate::http) mod views;

pub use openapi::description;

pub(in crate::http) use accounts::listed as listed_accounts;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use super::web::Web;

/// Makes the handlers of a path.
type Handlers = fn() -> MethodRouter<Arc<Web>>;

/// Every path with its handlers.
const ROUTES: &[(&str, Handlers)] = &[
    ("/api/v1/ping", || get(planning::ping)),
    ("/api/v1/jobs", || get(jobs::list).post(jobs::submit)),
    ("/api/v1/jobs/actions", || post(changes::actions)),
    ("/api/v1/jobs/{id}", || get(jobs::one).patch(changes::change).delete(changes::end)),
    ("/api/v1/jobs/{id}/script", || get(jobs::script)),
    ("/api/v1/jobs/{id}/explain", || get(planning::explain)),
    ("/api/v1/jobs/{id}/{action}", || post(changes::action)),
    ("/api/v1/history", || get(jobs::history)),
    ("/api/v1/nodes", || get(nodes::list)),
    ("/api/v1/nodes/{name}", || get(nodes::one).patch(nodes::change)),
    ("/api/v1/nodes/{name}/drain-plan", || get(nodes::drain_plan)),
    ("/api/v1/gpus", || get(nodes::gpus)),
    ("/api/v1/partitions", || get(nodes::partitions)),
    ("/api/v1/accounts", || get(accounts::tree)),
    ("/api/v1/qos", || get(accounts::qos)),
    ("/api/v1/shares", || get(accounts::shares)),
    ("/api/v1/usage", || get(accounts::usage)),
    ("/api/v1/cost", || get(accounts::costs)),
    ("/api/v1/idle", || get(accounts::idle)),
    ("/api/v1/reservations", || get(planning::reservations)),
    ("/api/v1/what-if", || post(planning::what_if)),
    ("/api/v1/events", || get(events::events)),
];

/// All routes.
pub(super) fn routes() -> Router<Arc<Web>> {
    let router = Router::new().route("/api/v1/openapi.json", get(openapi_json));
    ROUTES.iter().fold(router, |router, (path, handlers)| router.route(path, handlers()))
}

async fn openapi_json() -> axum::response::Response {
    answer::text(http::StatusCode::OK, description())
}
