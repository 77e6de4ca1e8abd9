//! What do commands get to see of the cluster: jobs, nodes, partitions, and what was?
//!
//! Everything here reads one snapshot and changes nothing, so that any number of listings may run
//! beside the writer.

mod accounting;
mod accounts;
mod facts;
mod filter;
mod gpus;
mod history;
mod info;
mod jobs;
mod nodes;
mod partitions;
mod priorities;
mod report;
mod shares;
mod steps;
mod targets;
mod watched;
mod window;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

use penstock_core::Cluster;
use penstock_core::scheduler::Plan;

pub use accounting::{ListError, Scan, accounting};
pub use accounts::{in_tree_order, tres_kinds};
pub use history::{earlier_entries, history_entries};
pub use info::job_line;
pub use jobs::{After, JobList, list_jobs, list_jobs_after};
pub use nodes::{LoadOf, list_nodes};
pub use partitions::list_partitions;
pub use priorities::{list_priorities, priority_row, shown_id};
pub use report::report_usage;
pub use shares::list_shares;
pub use steps::list_steps;
pub use targets::{targets, targets_and_steps};
pub use watched::Watched;

/// What a listing looks at: a snapshot, and the plan that was last made.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The snapshot.
    pub cluster: &'a Cluster,
    /// Why what was tried does not start.
    pub plan: &'a Plan,
}
