//! Why does a job wait, or why did it end, in Slurm's words?
//!
//! Codes below 100 are the general reasons, 100..=199 limits of associations, 200..=299 limits of a
//! QOS. A code is never given to another reason. The text that may follow a reason
//! (`ReqNodeNotAvail, UnavailableNodes:n1`) is kept apart from it.

use std::str::FromStr;

use crate::macros::named_enum;

named_enum! {
    /// The reason that squeue shows for a job.
    pub enum PendingReason {
        /// Nothing holds it back, or nobody has looked yet.
        None = 0, "None";
        /// A job of higher priority waits for the same partition.
        Priority = 1, "Priority";
        /// The first in line; waits for nodes, CPUs, memory or GPUs.
        Resources = 2, "Resources";
        /// A job it depends on has not done what it must.
        Dependency = 3, "Dependency";
        /// A job it depends on can no longer do what it must.
        DependencyNeverSatisfied = 4, "DependencyNeverSatisfied";
        /// Its earliest begin time has not come.
        BeginTime = 5, "BeginTime";
        /// Held by its user.
        JobHeldUser = 6, "JobHeldUser";
        /// Held by an administrator, or by the system.
        JobHeldAdmin = 7, "JobHeldAdmin";
        /// As many tasks of its array run as may run at once.
        JobArrayTaskLimit = 8, "JobArrayTaskLimit";
        /// Requeued as often as is allowed, and held.
        JobHoldMaxRequeue = 9, "JobHoldMaxRequeue";
        /// Waits for licences.
        Licenses = 10, "Licenses";
        /// Its reservation has not begun.
        Reservation = 11, "Reservation";
        /// Its reservation is gone; held.
        ReservationDeleted = 12, "ReservationDeleted";
        /// A node it needs is down, drained or reserved.
        ReqNodeNotAvail = 13, "ReqNodeNotAvail";
        /// Its partition starts nothing.
        PartitionDown = 14, "PartitionDown";
        /// Its partition neither takes nor starts jobs.
        PartitionInactive = 15, "PartitionInactive";
        /// Asks for more or fewer nodes than its partition allows.
        PartitionNodeLimit = 16, "PartitionNodeLimit";
        /// Its time limit exceeds that of its partition.
        PartitionTimeLimit = 17, "PartitionTimeLimit";
        /// Asks for more than its partition has.
        PartitionConfig = 18, "PartitionConfig";
        /// A node it needs, or had, is down.
        NodeDown = 19, "NodeDown";
        /// No set of nodes has the features it asks for.
        BadConstraints = 20, "BadConstraints";
        /// Its earlier run is still being cleaned up.
        Cleaning = 21, "Cleaning";
        /// Its prolog is running.
        Prolog = 22, "Prolog";
        /// Waits for room in a burst buffer.
        BurstBufferResources = 23, "BurstBufferResources";
        /// Its data is being moved in.
        BurstBufferStageIn = 24, "BurstBufferStageIn";
        /// Was idle beyond the limit for interactive jobs.
        InactiveLimit = 25, "InactiveLimit";
        /// Its partition refuses its account.
        AccountNotAllowed = 26, "AccountNotAllowed";
        /// Its partition or association refuses its QOS.
        QosNotAllowed = 27, "QOSNotAllowed";
        /// Its account no longer exists.
        InvalidAccount = 28, "InvalidAccount";
        /// Its QOS no longer exists.
        InvalidQos = 29, "InvalidQOS";
        /// A limit that has no reason of its own.
        AccountingPolicy = 30, "AccountingPolicy";
        /// Its association runs as many jobs as it may.
        AssociationJobLimit = 31, "AssociationJobLimit";
        /// Its association uses as much as it may.
        AssociationResourceLimit = 32, "AssociationResourceLimit";
        /// Its association has used its time.
        AssociationTimeLimit = 33, "AssociationTimeLimit";
        /// Its QOS runs as many jobs as it may.
        QosJobLimit = 34, "QOSJobLimit";
        /// Its QOS is used as much as it may be.
        QosResourceLimit = 35, "QOSResourceLimit";
        /// Its QOS has used its time.
        QosTimeLimit = 36, "QOSTimeLimit";
        /// Its fair share is below what its QOS demands.
        QosUsageThreshold = 37, "QOSUsageThreshold";
        /// Asks for more memory than its partition allows.
        MaxMemPerLimit = 38, "MaxMemPerLimit";
        /// Waits for electrical power.
        PowerNotAvail = 39, "PowerNotAvail";
        /// Must start at once, but starts are deferred.
        SchedDefer = 40, "SchedDefer";
        /// Ended with an exit code other than 0.
        NonZeroExitCode = 41, "NonZeroExitCode";
        /// Ended at its time limit.
        TimeLimit = 42, "TimeLimit";
        /// Ended for want of memory.
        OutOfMemory = 43, "OutOfMemory";
        /// Could not be launched.
        JobLaunchFailure = 44, "JobLaunchFailure";
        /// Its prolog failed, so that it was requeued and is held.
        LaunchFailedHeld = 47, "launch failed requeued held";
        /// Ended by a failure of the system.
        SystemFailure = 45, "SystemFailure";
        /// Could no longer end by its deadline.
        DeadLine = 46, "DeadLine";
        /// Limit of the association as a group: running jobs.
        AssocGrpJobsLimit = 100, "AssocGrpJobsLimit";
        /// Limit of the association as a group: wall-clock time used.
        AssocGrpWallLimit = 101, "AssocGrpWallLimit";
        /// Limit of the association as a group: queued and running jobs.
        AssocGrpSubmitJobsLimit = 102, "AssocGrpSubmitJobsLimit";
        /// Limit of the association itself: running jobs.
        AssocMaxJobsLimit = 103, "AssocMaxJobsLimit";
        /// Limit of the association itself: queued and running jobs.
        AssocMaxSubmitJobLimit = 104, "AssocMaxSubmitJobLimit";
        /// Limit of the association for each job: the time limit.
        AssocMaxWallDurationPerJobLimit = 105, "AssocMaxWallDurationPerJobLimit";
        /// Limit of the association as a group: CPUs.
        AssocGrpCpuLimit = 106, "AssocGrpCpuLimit";
        /// Limit of the association as a group: memory.
        AssocGrpMemLimit = 107, "AssocGrpMemLimit";
        /// Limit of the association as a group: nodes.
        AssocGrpNodeLimit = 108, "AssocGrpNodeLimit";
        /// Limit of the association as a group: generic resources.
        AssocGrpGres = 109, "AssocGrpGRES";
        /// Limit of the association as a group: licences.
        AssocGrpLicense = 110, "AssocGrpLicense";
        /// Limit of the association as a group: billing units.
        AssocGrpBilling = 111, "AssocGrpBilling";
        /// Limit of the association as a group: minutes used of CPUs.
        AssocGrpCpuMinutesLimit = 112, "AssocGrpCPUMinutesLimit";
        /// Limit of the association as a group: minutes used of memory.
        AssocGrpMemMinutes = 113, "AssocGrpMemMinutes";
        /// Limit of the association as a group: minutes used of nodes.
        AssocGrpNodeMinutes = 114, "AssocGrpNodeMinutes";
        /// Limit of the association as a group: minutes used of generic resources.
        AssocGrpGresMinutes = 115, "AssocGrpGRESMinutes";
        /// Limit of the association as a group: minutes used of licences.
        AssocGrpLicenseMinutes = 116, "AssocGrpLicenseMinutes";
        /// Limit of the association as a group: minutes used of billing units.
        AssocGrpBillingMinutes = 117, "AssocGrpBillingMinutes";
        /// Limit of the association as a group: minutes that running jobs may still use of CPUs.
        AssocGrpCpuRunMinutesLimit = 118, "AssocGrpCPURunMinutesLimit";
        /// Limit of the association as a group: minutes that running jobs may still use of memory.
        AssocGrpMemRunMinutes = 119, "AssocGrpMemRunMinutes";
        /// Limit of the association as a group: minutes that running jobs may still use of nodes.
        AssocGrpNodeRunMinutes = 120, "AssocGrpNodeRunMinutes";
        /// Limit of the association as a group: minutes that running jobs may still use of generic resources.
        AssocGrpGresRunMinutes = 121, "AssocGrpGRESRunMinutes";
        /// Limit of the association as a group: minutes that running jobs may still use of licences.
        AssocGrpLicenseRunMinutes = 122, "AssocGrpLicenseRunMinutes";
        /// Limit of the association as a group: minutes that running jobs may still use of billing units.
        AssocGrpBillingRunMinutes = 123, "AssocGrpBillingRunMinutes";
        /// Limit of the association for each job: CPUs.
        AssocMaxCpuPerJobLimit = 124, "AssocMaxCpuPerJobLimit";
        /// Limit of the association for each job: memory.
        AssocMaxMemPerJob = 125, "AssocMaxMemPerJob";
        /// Limit of the association for each job: nodes.
        AssocMaxNodePerJobLimit = 126, "AssocMaxNodePerJobLimit";
        /// Limit of the association for each job: generic resources.
        AssocMaxGresPerJob = 127, "AssocMaxGRESPerJob";
        /// Limit of the association for each job: licences.
        AssocMaxLicensePerJob = 128, "AssocMaxLicensePerJob";
        /// Limit of the association for each job: billing units.
        AssocMaxBillingPerJob = 129, "AssocMaxBillingPerJob";
        /// Limit of the association for each job: minutes used of CPUs.
        AssocMaxCpuMinutesPerJobLimit = 130, "AssocMaxCpuMinutesPerJobLimit";
        /// Limit of the association for each job: minutes used of memory.
        AssocMaxMemMinutesPerJob = 131, "AssocMaxMemMinutesPerJob";
        /// Limit of the association for each job: minutes used of nodes.
        AssocMaxNodeMinutesPerJob = 132, "AssocMaxNodeMinutesPerJob";
        /// Limit of the association for each job: minutes used of generic resources.
        AssocMaxGresMinutesPerJob = 133, "AssocMaxGRESMinutesPerJob";
        /// Limit of the association for each job: minutes used of billing units.
        AssocMaxBillingMinutesPerJob = 134, "AssocMaxBillingMinutesPerJob";
        /// Limit of the association for each node: CPUs.
        AssocMaxCpuPerNode = 135, "AssocMaxCpuPerNode";
        /// Limit of the association for each node: memory.
        AssocMaxMemPerNode = 136, "AssocMaxMemPerNode";
        /// Limit of the association for each node: generic resources.
        AssocMaxGresPerNode = 137, "AssocMaxGRESPerNode";
        /// Limit of the QOS as a group: running jobs.
        QosGrpJobsLimit = 200, "QOSGrpJobsLimit";
        /// Limit of the QOS as a group: wall-clock time used.
        QosGrpWallLimit = 201, "QOSGrpWallLimit";
        /// Limit of the QOS as a group: queued and running jobs.
        QosGrpSubmitJobsLimit = 202, "QOSGrpSubmitJobsLimit";
        /// Limit of the QOS for each user: running jobs.
        QosMaxJobsPerUserLimit = 203, "QOSMaxJobsPerUserLimit";
        /// Limit of the QOS for each account: running jobs.
        MaxJobsPerAccount = 204, "MaxJobsPerAccount";
        /// Limit of the QOS for each user: queued and running jobs.
        QosMaxSubmitJobPerUserLimit = 205, "QOSMaxSubmitJobPerUserLimit";
        /// Limit of the QOS for each account: queued and running jobs.
        MaxSubmitJobsPerAccount = 206, "MaxSubmitJobsPerAccount";
        /// Limit of the QOS for each job: the time limit.
        QosMaxWallDurationPerJobLimit = 207, "QOSMaxWallDurationPerJobLimit";
        /// Limit of the QOS as a group: CPUs.
        QosGrpCpuLimit = 208, "QOSGrpCpuLimit";
        /// Limit of the QOS as a group: memory.
        QosGrpMemLimit = 209, "QOSGrpMemLimit";
        /// Limit of the QOS as a group: nodes.
        QosGrpNodeLimit = 210, "QOSGrpNodeLimit";
        /// Limit of the QOS as a group: generic resources.
        QosGrpGres = 211, "QOSGrpGRES";
        /// Limit of the QOS as a group: licences.
        QosGrpLicense = 212, "QOSGrpLicense";
        /// Limit of the QOS as a group: billing units.
        QosGrpBilling = 213, "QOSGrpBilling";
        /// Limit of the QOS as a group: minutes used of CPUs.
        QosGrpCpuMinutesLimit = 214, "QOSGrpCPUMinutesLimit";
        /// Limit of the QOS as a group: minutes used of memory.
        QosGrpMemoryMinutes = 215, "QOSGrpMemoryMinutes";
        /// Limit of the QOS as a group: minutes used of nodes.
        QosGrpNodeMinutes = 216, "QOSGrpNodeMinutes";
        /// Limit of the QOS as a group: minutes used of generic resources.
        QosGrpGresMinutes = 217, "QOSGrpGRESMinutes";
        /// Limit of the QOS as a group: minutes used of licences.
        QosGrpLicenseMinutes = 218, "QOSGrpLicenseMinutes";
        /// Limit of the QOS as a group: minutes used of billing units.
        QosGrpBillingMinutes = 219, "QOSGrpBillingMinutes";
        /// Limit of the QOS as a group: minutes that running jobs may still use of CPUs.
        QosGrpCpuRunMinutesLimit = 220, "QOSGrpCPURunMinutesLimit";
        /// Limit of the QOS as a group: minutes that running jobs may still use of memory.
        QosGrpMemoryRunMinutes = 221, "QOSGrpMemoryRunMinutes";
        /// Limit of the QOS as a group: minutes that running jobs may still use of nodes.
        QosGrpNodeRunMinutes = 222, "QOSGrpNodeRunMinutes";
        /// Limit of the QOS as a group: minutes that running jobs may still use of generic resources.
        QosGrpGresRunMinutes = 223, "QOSGrpGRESRunMinutes";
        /// Limit of the QOS as a group: minutes that running jobs may still use of licences.
        QosGrpLicenseRunMinutes = 224, "QOSGrpLicenseRunMinutes";
        /// Limit of the QOS as a group: minutes that running jobs may still use of billing units.
        QosGrpBillingRunMinutes = 225, "QOSGrpBillingRunMinutes";
        /// Limit of the QOS for each job: CPUs.
        QosMaxCpuPerJobLimit = 226, "QOSMaxCpuPerJobLimit";
        /// Limit of the QOS for each job: memory.
        QosMaxMemoryPerJob = 227, "QOSMaxMemoryPerJob";
        /// Limit of the QOS for each job: nodes.
        QosMaxNodePerJobLimit = 228, "QOSMaxNodePerJobLimit";
        /// Limit of the QOS for each job: generic resources.
        QosMaxGresPerJob = 229, "QOSMaxGRESPerJob";
        /// Limit of the QOS for each job: licences.
        QosMaxLicensePerJob = 230, "QOSMaxLicensePerJob";
        /// Limit of the QOS for each job: billing units.
        QosMaxBillingPerJob = 231, "QOSMaxBillingPerJob";
        /// Limit of the QOS for each node: CPUs.
        QosMaxCpuPerNode = 232, "QOSMaxCpuPerNode";
        /// Limit of the QOS for each node: memory.
        QosMaxMemoryPerNode = 233, "QOSMaxMemoryPerNode";
        /// Limit of the QOS for each node: generic resources.
        QosMaxGresPerNode = 234, "QOSMaxGRESPerNode";
        /// Limit of the QOS for each job: minutes used of CPUs.
        QosMaxCpuMinutesPerJobLimit = 235, "QOSMaxCpuMinutesPerJobLimit";
        /// Limit of the QOS for each job: minutes used of memory.
        QosMaxMemoryMinutesPerJob = 236, "QOSMaxMemoryMinutesPerJob";
        /// Limit of the QOS for each job: minutes used of nodes.
        QosMaxNodeMinutesPerJob = 237, "QOSMaxNodeMinutesPerJob";
        /// Limit of the QOS for each job: minutes used of generic resources.
        QosMaxGresMinutesPerJob = 238, "QOSMaxGRESMinutesPerJob";
        /// Limit of the QOS for each job: minutes used of billing units.
        QosMaxBillingMinutesPerJob = 239, "QOSMaxBillingMinutesPerJob";
        /// Limit of the QOS for each user: CPUs.
        QosMaxCpuPerUserLimit = 240, "QOSMaxCpuPerUserLimit";
        /// Limit of the QOS for each user: memory.
        QosMaxMemoryPerUser = 241, "QOSMaxMemoryPerUser";
        /// Limit of the QOS for each user: nodes.
        QosMaxNodePerUserLimit = 242, "QOSMaxNodePerUserLimit";
        /// Limit of the QOS for each user: generic resources.
        QosMaxGresPerUser = 243, "QOSMaxGRESPerUser";
        /// Limit of the QOS for each user: licences.
        QosMaxLicensePerUser = 244, "QOSMaxLicensePerUser";
        /// Limit of the QOS for each user: billing units.
        QosMaxBillingPerUser = 245, "QOSMaxBillingPerUser";
        /// Limit of the QOS for each account: CPUs.
        MaxCpuPerAccount = 246, "MaxCpuPerAccount";
        /// Limit of the QOS for each account: memory.
        MaxMemoryPerAccount = 247, "MaxMemoryPerAccount";
        /// Limit of the QOS for each account: nodes.
        MaxNodePerAccount = 248, "MaxNodePerAccount";
        /// Limit of the QOS for each account: generic resources.
        MaxGresPerAccount = 249, "MaxGRESPerAccount";
        /// Limit of the QOS for each account: licences.
        MaxLicensePerAccount = 250, "MaxLicensePerAccount";
        /// Limit of the QOS for each account: billing units.
        MaxBillingPerAccount = 251, "MaxBillingPerAccount";
        /// Below the least of the QOS for a job: CPUs.
        QosMinCpuNotSatisfied = 252, "QOSMinCpuNotSatisfied";
        /// Below the least of the QOS for a job: memory.
        QosMinMemory = 253, "QOSMinMemory";
        /// Below the least of the QOS for a job: nodes.
        QosMinNode = 254, "QOSMinNode";
        /// Below the least of the QOS for a job: generic resources.
        QosMinGres = 255, "QOSMinGRES";
        /// Below the least of the QOS for a job: licences.
        QosMinLicense = 256, "QOSMinLicense";
        /// Below the least of the QOS for a job: billing units.
        QosMinBilling = 257, "QOSMinBilling";
    }
}

/// Why a text is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reason {text:?} is unknown")]
pub struct UnknownReason {
    /// The text as given.
    pub text: String,
}

impl FromStr for PendingReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_name(text).ok_or_else(|| UnknownReason { text: text.to_owned() })
    }
}

impl PendingReason {
    /// Whether the reason is a limit of an association or a QOS (section "limits" of the codes).
    #[must_use]
    pub const fn is_limit(self) -> bool {
        self.code() >= 100
    }

    /// Whether the job waits for somebody to release it.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(
            self,
            Self::JobHeldUser
                | Self::JobHeldAdmin
                | Self::JobHoldMaxRequeue
                | Self::LaunchFailedHeld
                | Self::ReservationDeleted
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    #[test]
    fn names_and_codes_read_back_and_are_unique() {
        for reason in PendingReason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(*reason));
            assert_eq!(PendingReason::from_code(reason.code()), Some(*reason));
        }
        let names: BTreeSet<_> = PendingReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), PendingReason::ALL.len());
        assert_eq!(PendingReason::from_code(99), None);
        assert!("Nope".parse::<PendingReason>().is_err());
    }

    #[test]
    fn stored_codes_do_not_move() {
        for (reason, code, text) in [
            (PendingReason::None, 0, "None"),
            (PendingReason::Resources, 2, "Resources"),
            (PendingReason::JobHeldUser, 6, "JobHeldUser"),
            (PendingReason::QosNotAllowed, 27, "QOSNotAllowed"),
            (PendingReason::DeadLine, 46, "DeadLine"),
            (PendingReason::AssocGrpJobsLimit, 100, "AssocGrpJobsLimit"),
            (PendingReason::QosGrpJobsLimit, 200, "QOSGrpJobsLimit"),
        ] {
            assert_eq!((reason.code(), reason.name()), (code, text));
        }
    }

    #[test]
    fn limits_are_told_from_the_rest() {
        assert!(PendingReason::AssocGrpCpuLimit.is_limit());
        assert!(!PendingReason::Priority.is_limit());
        assert!(PendingReason::JobHeldUser.is_held() && !PendingReason::BeginTime.is_held());
    }
}
