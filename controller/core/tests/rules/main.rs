//! Does the cluster keep its rules? One module for each kind of rule.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "../common/mod.rs"]
mod common;

mod array;
mod control;
mod dependency;
mod ledger;
mod node;
mod placement;
mod preempt;
mod random;
mod reservation;
mod submit;
