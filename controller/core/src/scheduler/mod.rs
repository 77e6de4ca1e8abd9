//! What should start now, what later, and why does the rest wait?
//!
//! [`plan`] is a pure function of a snapshot and the time. It takes the waiting units in order; who
//! does not fit now gets a place reserved in time, and nobody starts who would run into it. A plan is
//! a proposal: each line is checked again when it is carried out.

mod access;
mod choose;
mod classes;
mod demand;
mod ever;
mod fit;
mod free;
mod gates;
mod licences;
mod memory;
pub mod mig;
mod near;
mod needs;
mod now;
mod open;
mod packing;
mod pass;
mod placing;
mod plan;
mod pool;
mod preempt;
mod profile;
mod queue;
mod quota;
mod reasons;
mod recheck;
mod releases;
mod reserve;
mod sharing;
mod slices;
mod stats;
mod topology;
mod units;

pub use demand::Asker;
pub use ever::could_ever_fit;
pub(crate) use ever::could_run_in_service;
pub(crate) use fit::partition_nodes;
pub use free::share_is_free;
pub(crate) use gates::partition_obstacle;
pub use memory::Memory;
pub use packing::fragmentation;
pub use plan::{Expected, Limits, Plan, plan, plan_with};
pub use recheck::shares_serve;
pub use stats::PlanStats;
pub(crate) use topology::Site;
