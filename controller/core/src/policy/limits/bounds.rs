//! What does a partition demand of a job, given the job's QOS?

use penstock_vocab::Walltime;

use crate::model::{Partition, Qos, QosFlag};

/// Bounds of a partition on each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Highest time limit.
    pub max_time: Walltime,
    /// Fewest nodes.
    pub min_nodes: u32,
    /// Most nodes; 0: no limit.
    pub max_nodes: u32,
}

/// A partition's bounds, but for those that the QOS sets aside.
#[must_use]
pub fn bounds(partition: &Partition, qos: Option<&Qos>) -> Bounds {
    let aside = |flag| qos.is_some_and(|qos| qos.has(flag));
    let max_time =
        if aside(QosFlag::PartitionTimeLimit) { Walltime::Unlimited } else { partition.max_time };
    Bounds {
        max_time,
        min_nodes: if aside(QosFlag::PartitionMinNodes) { 0 } else { partition.min_nodes },
        max_nodes: if aside(QosFlag::PartitionMaxNodes) { 0 } else { partition.max_nodes },
    }
}
