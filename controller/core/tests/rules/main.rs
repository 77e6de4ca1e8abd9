//! Does the cluster keep its rules? One module for each kind of rule.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "../common/mod.rs"]
mod common;

mod accounts;
mod array;
mod backfill;
mod bounds;
mod choice;
mod control;
mod crontab;
mod dependency;
mod drain;
mod explain;
mod fairshare;
mod foresight;
mod gpu_cuts;
mod gpu_health;
mod gpus;
mod hooks;
mod idle;
mod lease;
mod ledger;
mod limits;
mod limits_random;
mod node;
mod placement;
mod preempt;
mod priority;
mod random;
mod reservation;
mod reserved_times;
mod sharing;
mod steps;
mod steps_random;
mod submit;
mod usage;
mod what_if;
