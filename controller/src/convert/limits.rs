//! How are limits stored and sent?

use penstock_core::model::{EachLimits, GroupLimits, JobLimits, TresLimits};
use penstock_proto::v1;
use penstock_vocab::TresKind;

use super::error::ConvertError;

/// Amounts by kind.
#[must_use]
pub fn tres_to_wire(limits: &TresLimits) -> Vec<v1::TresAmount> {
    let amount =
        |(kind, count): (&TresKind, &u64)| v1::TresAmount { kind: kind.to_string(), count: *count };
    limits.iter().map(amount).collect()
}

/// Inverse of [`tres_to_wire`].
///
/// # Errors
/// If a kind can't be one.
pub fn tres_from_wire(amounts: &[v1::TresAmount]) -> Result<TresLimits, ConvertError> {
    amounts.iter().map(|amount| Ok((kind_from_wire(&amount.kind)?, amount.count))).collect()
}

/// A kind of resource by its name.
///
/// # Errors
/// If it is none.
pub fn kind_from_wire(text: &str) -> Result<TresKind, ConvertError> {
    text.parse().map_err(|error| ConvertError::invalid("a kind of resource", error))
}

/// Limits of a group.
#[must_use]
pub fn group_to_wire(limits: &GroupLimits) -> v1::GroupLimits {
    v1::GroupLimits {
        tres: tres_to_wire(&limits.tres),
        tres_mins: tres_to_wire(&limits.tres_mins),
        tres_run_mins: tres_to_wire(&limits.tres_run_mins),
        jobs: limits.jobs,
        jobs_accrue: limits.jobs_accrue,
        submit_jobs: limits.submit_jobs,
        wall_mins: limits.wall_mins,
    }
}

/// Inverse of [`group_to_wire`]; absent: none.
///
/// # Errors
/// If a kind of resource can't be one.
pub fn group_from_wire(limits: Option<v1::GroupLimits>) -> Result<GroupLimits, ConvertError> {
    let limits = limits.unwrap_or_default();
    Ok(GroupLimits {
        tres: tres_from_wire(&limits.tres)?,
        tres_mins: tres_from_wire(&limits.tres_mins)?,
        tres_run_mins: tres_from_wire(&limits.tres_run_mins)?,
        jobs: limits.jobs,
        jobs_accrue: limits.jobs_accrue,
        submit_jobs: limits.submit_jobs,
        wall_mins: limits.wall_mins,
    })
}

/// Limits on each job.
#[must_use]
pub fn per_job_to_wire(limits: &JobLimits) -> v1::JobLimits {
    v1::JobLimits {
        tres: tres_to_wire(&limits.tres),
        tres_per_node: tres_to_wire(&limits.tres_per_node),
        tres_mins: tres_to_wire(&limits.tres_mins),
        min_tres: tres_to_wire(&limits.min_tres),
        wall_mins: limits.wall_mins,
    }
}

/// Inverse of [`per_job_to_wire`]; absent: none.
///
/// # Errors
/// If a kind of resource can't be one.
pub fn per_job_from_wire(limits: Option<v1::JobLimits>) -> Result<JobLimits, ConvertError> {
    let limits = limits.unwrap_or_default();
    Ok(JobLimits {
        tres: tres_from_wire(&limits.tres)?,
        tres_per_node: tres_from_wire(&limits.tres_per_node)?,
        tres_mins: tres_from_wire(&limits.tres_mins)?,
        min_tres: tres_from_wire(&limits.min_tres)?,
        wall_mins: limits.wall_mins,
    })
}

/// Limits on each user, account or association.
#[must_use]
pub fn each_to_wire(limits: &EachLimits) -> v1::EachLimits {
    v1::EachLimits {
        tres: tres_to_wire(&limits.tres),
        jobs: limits.jobs,
        jobs_accrue: limits.jobs_accrue,
        submit_jobs: limits.submit_jobs,
    }
}

/// Inverse of [`each_to_wire`]; absent: none.
///
/// # Errors
/// If a kind of resource can't be one.
pub fn each_from_wire(limits: Option<v1::EachLimits>) -> Result<EachLimits, ConvertError> {
    let limits = limits.unwrap_or_default();
    Ok(EachLimits {
        tres: tres_from_wire(&limits.tres)?,
        jobs: limits.jobs,
        jobs_accrue: limits.jobs_accrue,
        submit_jobs: limits.submit_jobs,
    })
}
