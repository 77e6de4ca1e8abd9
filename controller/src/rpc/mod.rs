//! What can be asked over gRPC? Thin: who asks and may they, convert, ask the core, convert.

mod accounting;
mod admin;
mod agents;
mod cron;
mod drain;
mod events;
mod explained;
mod forecasts;
mod jobs;
mod judged;
mod local;
mod planning;
mod reads;
mod remote;
mod serve;
mod service;
mod shared;
mod status;
mod steps;
mod timing;
mod users;
mod web;

pub(crate) use reads::{add_samples, page_of_jobs};
pub use serve::{ServeError, serve};
pub(crate) use service::Service;
pub(crate) use shared::role_of;
pub use shared::{Shared, SharedParts};

/// Reads the cluster file again at SIGHUP; a mistake in it is logged and the old one stays in force.
pub async fn reread_on_hangup(shared: &Shared) {
    if let Err(status) = admin::reread(shared).await {
        tracing::error!(error = status.message(), "the cluster file was not taken");
    }
}
