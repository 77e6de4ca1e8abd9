//! What should start now, what later, and why does the rest wait?
//!
//! [`plan`] is a pure function of a snapshot and the time. It takes the waiting units in order; who
//! does not fit now gets a place reserved in time, and nobody starts who would run into it. A plan is
//! a proposal: each line is checked again when it is carried out.

mod access;
mod classes;
mod demand;
mod fit;
mod free;
mod gates;
mod licences;
mod memory;
mod needs;
mod open;
mod pass;
mod placing;
mod plan;
mod pool;
mod preempt;
mod profile;
mod queue;
mod reasons;
mod reserve;
mod stats;

pub use fit::{could_ever_fit, shares_serve};
pub use free::share_is_free;
pub use memory::Memory;
pub use plan::{Expected, Limits, Plan, plan, plan_with};
pub use preempt::PreemptLine;
pub use stats::PlanStats;
