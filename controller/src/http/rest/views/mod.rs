//! In which words does REST tell of jobs, nodes, accounts and plans?
//!
//! Times are milliseconds since the epoch, sizes MiB, and what is unknown or has no limit is null or absent.
//! Fields are only ever added.

mod accounts;
mod job;
mod node;
mod planning;

pub(in crate::http) use accounts::{QosView, ShareView, Tree, amounts};
pub(in crate::http) use job::{JobDetails, JobView};
pub(in crate::http) use node::{GpuView, NodeView, PartitionView};
pub(in crate::http) use planning::{ExplainView, ReservationView, WhatIfView};

/// A time, unless it is 0.
pub(super) fn time(ms: i64) -> Option<i64> {
    (ms != 0).then_some(ms)
}
