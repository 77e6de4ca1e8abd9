//! What do clients that were generated for slurmrestd, data version v0.0.40, get?
//!
//! The same answers as from Slurm 23.11 where it has something we have: listings are those of the commands'
//! `--json=v0.0.40`, and what is said of errors is said in Slurm's list of them, with its numbers.

mod accounts;
mod answer;
mod jobs;
mod nodes;
mod submit;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::web::Web;

/// All routes.
pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/slurm/v0.0.40/ping", get(nodes::ping))
        .route("/slurm/v0.0.40/ping/", get(nodes::ping))
        .route("/slurm/v0.0.40/diag", get(nodes::diag))
        .route("/slurm/v0.0.40/diag/", get(nodes::diag))
        .route("/slurm/v0.0.40/jobs", get(jobs::list))
        .route("/slurm/v0.0.40/jobs/", get(jobs::list))
        .route("/slurm/v0.0.40/job/submit", post(submit::submit))
        .route("/slurm/v0.0.40/job/{id}", get(jobs::one).post(jobs::update).delete(jobs::end))
        .route("/slurm/v0.0.40/nodes", get(nodes::list))
        .route("/slurm/v0.0.40/nodes/", get(nodes::list))
        .route("/slurm/v0.0.40/node/{name}", get(nodes::one))
        .route("/slurm/v0.0.40/partitions", get(nodes::partitions))
        .route("/slurm/v0.0.40/partitions/", get(nodes::partitions))
        .route("/slurm/v0.0.40/partition/{name}", get(nodes::partition))
        .route("/slurmdb/v0.0.40/jobs", get(accounts::jobs))
        .route("/slurmdb/v0.0.40/jobs/", get(accounts::jobs))
        .route("/slurmdb/v0.0.40/job/{id}", get(accounts::job))
        .route("/slurmdb/v0.0.40/associations", get(accounts::associations))
        .route("/slurmdb/v0.0.40/associations/", get(accounts::associations))
        .route("/slurmdb/v0.0.40/accounts", get(accounts::accounts))
        .route("/slurmdb/v0.0.40/accounts/", get(accounts::accounts))
        .route("/slurmdb/v0.0.40/users", get(accounts::users))
        .route("/slurmdb/v0.0.40/users/", get(accounts::users))
        .route("/slurmdb/v0.0.40/qos", get(accounts::qos))
        .route("/slurmdb/v0.0.40/qos/", get(accounts::qos))
}
