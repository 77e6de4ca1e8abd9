//! Which of two waiting jobs comes first?
//!
//! Slurm's scale: an unsigned 32-bit number, higher first, at least 1. Until weights for age, size
//! and fair share are set, a job has the base priority, plus what its partition adds, less its nice
//! value; equal ones go in the order of submission.

use crate::model::{Config, JobSpec};

/// Priority of a job of which nothing special is known.
pub const BASE_PRIORITY: u32 = 1_000_000;

/// Priority of a job: what an admin fixed, else the computed one.
#[must_use]
pub fn priority(config: &Config, spec: &JobSpec, fixed: Option<u32>) -> u32 {
    if let Some(fixed) = fixed {
        return fixed;
    }
    let factor = config
        .partitions
        .iter()
        .filter(|partition| names(spec, partition.name.as_str(), partition.is_default))
        .map(|partition| partition.priority_job_factor)
        .max()
        .unwrap_or(1);
    // The usual factor, 1, adds nothing.
    let base =
        i64::from(BASE_PRIORITY) + i64::from(factor.saturating_sub(1)) - i64::from(spec.nice);
    u32::try_from(base.clamp(1, i64::from(u32::MAX))).unwrap_or(u32::MAX)
}

fn names(spec: &JobSpec, partition: &str, is_default: bool) -> bool {
    if spec.partitions.is_empty() {
        is_default
    } else {
        spec.partitions.iter().any(|name| *name == *partition)
    }
}
