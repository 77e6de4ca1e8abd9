//! What should start now, and why does the rest wait?
//!
//! [`plan`] is a pure function of a snapshot and the time. It takes the queue in order; within a
//! partition nobody starts ahead of a job that waits for resources. A plan is a proposal: each line
//! is checked again when it is carried out.

mod choose;
mod demand;
mod ever;
mod fit;
mod free;
mod packing;
mod plan;
mod quota;
mod recheck;
mod topology;

pub use demand::Asker;
pub use ever::could_ever_fit;
pub(crate) use fit::partition_nodes;
pub use free::share_is_free;
pub use packing::fragmentation;
pub use plan::{Limits, Plan, plan};
pub use recheck::shares_serve;
pub(crate) use topology::Site;
