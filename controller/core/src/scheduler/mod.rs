//! What should start now, and why does the rest wait?
//!
//! [`plan`] is a pure function of a snapshot and the time. It takes the queue in order; within a
//! partition nobody starts ahead of a job that waits for resources. A plan is a proposal: each line
//! is checked again when it is carried out.

mod demand;
mod fit;
mod free;
mod plan;

pub(crate) use fit::partition_nodes;
pub use fit::{could_ever_fit, shares_serve};
pub use free::share_is_free;
pub use plan::{Limits, Plan, plan};
