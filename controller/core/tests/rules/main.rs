//! Does the cluster keep its rules? One module for each kind of rule.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "../common/mod.rs"]
mod common;

mod array;
mod backfill;
mod choice;
mod control;
mod dependency;
mod explain;
mod foresight;
mod ledger;
mod node;
mod placement;
mod random;
mod submit;
mod what_if;
