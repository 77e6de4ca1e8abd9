//! In which JSON does Slurm tell of jobs and nodes?
//!
//! The commands know (`squeue --json=v0.0.40` and its like); they hand their writers to the controller when
//! they start it, so that there is one of each.

use penstock_proto::v1;

/// What a listing says beside its records.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// Now, milliseconds since the epoch.
    pub now_ms: i64,
}

/// Writers of Slurm's JSON, data version v0.0.40: each gives the whole answer of the command.
#[derive(Debug, Clone, Copy)]
pub struct Shapes {
    /// As `squeue --json=v0.0.40`.
    pub queued: fn(&[v1::JobInfo], Moment<'_>) -> String,
    /// As `sacct --json=v0.0.40`.
    pub accounted: fn(Vec<v1::JobInfo>, Moment<'_>) -> String,
    /// As `sinfo --json=v0.0.40`.
    pub nodes: fn(&[v1::NodeInfo]) -> String,
}

impl Shapes {
    /// For a controller without commands around it: listings without records.
    #[must_use]
    pub fn none() -> Self {
        Self {
            queued: |_, _| "{\n  \"jobs\": []\n}\n".to_owned(),
            accounted: |_, _| "{\n  \"jobs\": []\n}\n".to_owned(),
            nodes: |_| "{\n  \"nodes\": []\n}\n".to_owned(),
        }
    }
}
