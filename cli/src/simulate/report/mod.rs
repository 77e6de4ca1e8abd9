//! What is said of a replay, and in which form?
//!
//! [`Figures`] are computed once; a table for people, JSON for programs, a line a job as CSV and a
//! drawing all show the same. Every form is the same to the byte for the same replay.

mod dump;
mod figures;
mod json;
mod plot;
mod table;

use super::drive::Outcome;
use super::job::Workload;
use super::machine::Machine;
use super::read::Format;

pub(super) use dump::dump;
pub(super) use figures::Figures;
pub(super) use json::json;
pub(super) use plot::plot;
pub(super) use table::table;

/// Where the jobs came from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The trace, as it was named.
    pub(super) name: String,
    /// Its format; `None`: the cluster's own accounting.
    pub(super) format: Option<Format>,
    pub(super) guessed: bool,
}

/// A replay, or two on the same jobs.
pub(super) struct Report<'a> {
    pub(super) source: &'a Source,
    pub(super) machine: &'a Machine,
    pub(super) workload: &'a Workload,
    /// By policy; the second is what the first is compared with.
    pub(super) runs: &'a [Run],
}

/// One replay.
pub(super) struct Run {
    pub(super) policy: String,
    /// The policy has preemption, which is left out.
    pub(super) preempts: bool,
    pub(super) outcome: Outcome,
    pub(super) figures: Figures,
}
