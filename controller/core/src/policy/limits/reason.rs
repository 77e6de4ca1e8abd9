//! Which of Slurm's reasons is it?

use penstock_vocab::{PendingReason, TresKind};

/// A limit on amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    AssocGroup,
    AssocGroupMins,
    AssocGroupRunMins,
    AssocJob,
    AssocJobMins,
    AssocNode,
    QosGroup,
    QosGroupMins,
    QosGroupRunMins,
    QosJob,
    QosJobMins,
    QosNode,
    QosUser,
    QosAccount,
    QosMin,
}

/// Reason and name of a limit on use over time; `None`: on wall-clock time.
pub(crate) fn budget_reason(
    of_assoc: bool,
    kind: Option<&TresKind>,
) -> (PendingReason, &'static str) {
    match (of_assoc, kind) {
        (true, Some(kind)) => (Rule::AssocGroupMins.reason(kind), Rule::AssocGroupMins.name()),
        (false, Some(kind)) => (Rule::QosGroupMins.reason(kind), Rule::QosGroupMins.name()),
        (true, None) => (PendingReason::AssocGrpWallLimit, "GrpWall"),
        (false, None) => (PendingReason::QosGrpWallLimit, "GrpWall"),
    }
}

impl Rule {
    /// Slurm's name of the limit.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AssocGroup | Self::QosGroup => "GrpTRES",
            Self::AssocGroupMins | Self::QosGroupMins => "GrpTRESMins",
            Self::AssocGroupRunMins | Self::QosGroupRunMins => "GrpTRESRunMins",
            Self::AssocJob | Self::QosJob => "MaxTRESPerJob",
            Self::AssocJobMins | Self::QosJobMins => "MaxTRESMinsPerJob",
            Self::AssocNode | Self::QosNode => "MaxTRESPerNode",
            Self::QosUser => "MaxTRESPerUser",
            Self::QosAccount => "MaxTRESPerAccount",
            Self::QosMin => "MinTRESPerJob",
        }
    }

    /// Slurm's reason where the limit on a kind is in the way. Slurm has none for minutes of
    /// licences of one job and for nodes and licences on one node.
    pub(super) fn reason(self, kind: &TresKind) -> PendingReason {
        let column = match kind {
            TresKind::Cpu => 0,
            TresKind::Mem => 1,
            TresKind::Node => 2,
            TresKind::Gres(_) => 3,
            TresKind::License(_) => 4,
            TresKind::Billing => 5,
        };
        self.row()[column]
    }

    /// CPUs, memory, nodes, generic resources, licences, billing.
    fn row(self) -> [PendingReason; 6] {
        use PendingReason as R;
        let none = R::AccountingPolicy;
        match self {
            Self::AssocGroup => [
                R::AssocGrpCpuLimit,
                R::AssocGrpMemLimit,
                R::AssocGrpNodeLimit,
                R::AssocGrpGres,
                R::AssocGrpLicense,
                R::AssocGrpBilling,
            ],
            Self::AssocGroupMins => [
                R::AssocGrpCpuMinutesLimit,
                R::AssocGrpMemMinutes,
                R::AssocGrpNodeMinutes,
                R::AssocGrpGresMinutes,
                R::AssocGrpLicenseMinutes,
                R::AssocGrpBillingMinutes,
            ],
            Self::AssocGroupRunMins => [
                R::AssocGrpCpuRunMinutesLimit,
                R::AssocGrpMemRunMinutes,
                R::AssocGrpNodeRunMinutes,
                R::AssocGrpGresRunMinutes,
                R::AssocGrpLicenseRunMinutes,
                R::AssocGrpBillingRunMinutes,
            ],
            Self::AssocJob => [
                R::AssocMaxCpuPerJobLimit,
                R::AssocMaxMemPerJob,
                R::AssocMaxNodePerJobLimit,
                R::AssocMaxGresPerJob,
                R::AssocMaxLicensePerJob,
                R::AssocMaxBillingPerJob,
            ],
            Self::AssocJobMins => [
                R::AssocMaxCpuMinutesPerJobLimit,
                R::AssocMaxMemMinutesPerJob,
                R::AssocMaxNodeMinutesPerJob,
                R::AssocMaxGresMinutesPerJob,
                none,
                R::AssocMaxBillingMinutesPerJob,
            ],
            Self::AssocNode => {
                let gres = R::AssocMaxGresPerNode;
                [R::AssocMaxCpuPerNode, R::AssocMaxMemPerNode, none, gres, none, none]
            }
            _ => self.qos_row(),
        }
    }

    fn qos_row(self) -> [PendingReason; 6] {
        use PendingReason as R;
        let none = R::AccountingPolicy;
        match self {
            Self::QosGroup => [
                R::QosGrpCpuLimit,
                R::QosGrpMemLimit,
                R::QosGrpNodeLimit,
                R::QosGrpGres,
                R::QosGrpLicense,
                R::QosGrpBilling,
            ],
            Self::QosGroupMins => [
                R::QosGrpCpuMinutesLimit,
                R::QosGrpMemoryMinutes,
                R::QosGrpNodeMinutes,
                R::QosGrpGresMinutes,
                R::QosGrpLicenseMinutes,
                R::QosGrpBillingMinutes,
            ],
            Self::QosGroupRunMins => [
                R::QosGrpCpuRunMinutesLimit,
                R::QosGrpMemoryRunMinutes,
                R::QosGrpNodeRunMinutes,
                R::QosGrpGresRunMinutes,
                R::QosGrpLicenseRunMinutes,
                R::QosGrpBillingRunMinutes,
            ],
            Self::QosJob => [
                R::QosMaxCpuPerJobLimit,
                R::QosMaxMemoryPerJob,
                R::QosMaxNodePerJobLimit,
                R::QosMaxGresPerJob,
                R::QosMaxLicensePerJob,
                R::QosMaxBillingPerJob,
            ],
            Self::QosJobMins => [
                R::QosMaxCpuMinutesPerJobLimit,
                R::QosMaxMemoryMinutesPerJob,
                R::QosMaxNodeMinutesPerJob,
                R::QosMaxGresMinutesPerJob,
                none,
                R::QosMaxBillingMinutesPerJob,
            ],
            Self::QosNode => {
                let gres = R::QosMaxGresPerNode;
                [R::QosMaxCpuPerNode, R::QosMaxMemoryPerNode, none, gres, none, none]
            }
            _ => self.share_row(),
        }
    }

    /// Limits of a QOS on its users and accounts, and on the least of a job.
    fn share_row(self) -> [PendingReason; 6] {
        use PendingReason as R;
        match self {
            Self::QosUser => [
                R::QosMaxCpuPerUserLimit,
                R::QosMaxMemoryPerUser,
                R::QosMaxNodePerUserLimit,
                R::QosMaxGresPerUser,
                R::QosMaxLicensePerUser,
                R::QosMaxBillingPerUser,
            ],
            Self::QosAccount => [
                R::MaxCpuPerAccount,
                R::MaxMemoryPerAccount,
                R::MaxNodePerAccount,
                R::MaxGresPerAccount,
                R::MaxLicensePerAccount,
                R::MaxBillingPerAccount,
            ],
            Self::QosMin => [
                R::QosMinCpuNotSatisfied,
                R::QosMinMemory,
                R::QosMinNode,
                R::QosMinGres,
                R::QosMinLicense,
                R::QosMinBilling,
            ],
            _ => [R::AccountingPolicy; 6],
        }
    }
}
