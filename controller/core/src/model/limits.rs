//! Which limits may be set on an association or a QOS?
//!
//! Absent means: not limited here, look further up. Zero is a limit. Times are in minutes as in
//! Slurm's own records.

use std::collections::BTreeMap;

use penstock_vocab::TresKind;

/// Amounts by kind; memory in MiB. A kind that is absent is not limited, one at zero is.
pub type TresLimits = BTreeMap<TresKind, u64>;

/// Limits that both associations and QOS know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupLimits {
    /// `GrpTRES`: in use at once by the whole group.
    pub tres: TresLimits,
    /// `GrpTRESMins`: TRES-minutes used, decayed; a budget where the decay is off.
    pub tres_mins: TresLimits,
    /// `GrpTRESRunMins`: TRES-minutes that running jobs may still use up to their limits.
    pub tres_run_mins: TresLimits,
    /// `GrpJobs`: running jobs.
    pub jobs: Option<u32>,
    /// `GrpJobsAccrue`: waiting jobs whose age counts. Not built: it is read where it was stored,
    /// and limits nothing.
    pub jobs_accrue: Option<u32>,
    /// `GrpSubmitJobs`: waiting and running jobs.
    pub submit_jobs: Option<u32>,
    /// `GrpWall`: wall-clock minutes used, decayed.
    pub wall_mins: Option<u32>,
}

/// Limits on each job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobLimits {
    /// `MaxTRESPerJob`.
    pub tres: TresLimits,
    /// `MaxTRESPerNode`.
    pub tres_per_node: TresLimits,
    /// `MaxTRESMinsPerJob`.
    pub tres_mins: TresLimits,
    /// `MinTRESPerJob`; QOS only.
    pub min_tres: TresLimits,
    /// `MaxWallDurationPerJob`, minutes.
    pub wall_mins: Option<u32>,
}

/// Limits on the jobs of one user, or of one account, in a QOS; of an association on itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EachLimits {
    /// `MaxTRESPerUser`, `MaxTRESPerAccount`; QOS only.
    pub tres: TresLimits,
    /// `MaxJobs`: running jobs.
    pub jobs: Option<u32>,
    /// `MaxJobsAccrue`: waiting jobs whose age counts. Not built, as in [`GroupLimits`].
    pub jobs_accrue: Option<u32>,
    /// `MaxSubmitJobs`: waiting and running jobs.
    pub submit_jobs: Option<u32>,
}

impl GroupLimits {
    /// Whether use over time is limited, so that running jobs may have to end for it.
    #[must_use]
    pub fn is_budget(&self) -> bool {
        !self.tres_mins.is_empty() || self.wall_mins.is_some()
    }
}
