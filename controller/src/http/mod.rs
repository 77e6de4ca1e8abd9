//! What does the controller answer to browsers, scripts and monitoring over HTTP?
//!
//! One port: sign-in ([`auth`]), our REST under `/api/v1` ([`rest`]), slurmrestd's shapes under `/slurm`
//! and `/slurmdb` ([`slurmrest`]), metrics. Everything that is asked or changed here goes through the very
//! functions that gRPC calls go through, with the caller that the guard made out; there is no second
//! opinion of who may do what. It runs on a thread of its own, so that browsers do not hold up commands.

pub mod auth;
mod body;
pub mod feed;
mod guard;
mod metrics;
mod names;
mod page;
mod problem;
pub mod rest;
mod serve;
mod shapes;
mod slurmrest;
mod steady;
mod traffic;
mod web;

pub use names::Names;
pub use serve::{HttpError, Listening, bind, spawn};
pub use shapes::{Moment, Shapes};
