//! Why does a unit not start now?
//!
//! A plan keeps a number for each unit; the sentences are kept once for a class.

use penstock_vocab::{PendingReason, compress, elapsed_long};

use super::demand::{Demand, plural};
use super::open::Open;
use super::pool::Pool;
use crate::cluster::{Cluster, Waiting};
use crate::model::{NodeIndex, Reservation};

/// What a plan found about a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Why {
    /// It was not looked at.
    #[default]
    Unseen,
    /// All of it starts.
    Starts,
    /// Place in the list of sentences.
    Waits(u32),
}

/// Why a class does not start in a partition now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Not enough is free.
    Resources(Waiting),
    /// Enough is free, but it is kept for units ahead.
    Behind(Waiting),
    /// Something that waiting in line does not cure: nodes out of service, the partition's limits.
    Own(Waiting),
}

impl Obstacle {
    pub(super) fn waiting(&self) -> &Waiting {
        match self {
            Self::Resources(waiting) | Self::Behind(waiting) | Self::Own(waiting) => waiting,
        }
    }

    /// Whether a place reserved in time helps.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Resources(_) | Self::Behind(_))
    }
}

/// Not enough is free.
pub(super) fn resources(demand: &Demand<'_>, open: &Open, pool: &Pool, partition: u32) -> Waiting {
    let nodes = pool.partition(partition).iter().filter(|node| pool.kind_of(**node).is_some());
    let (cpus, count) = (open.free_cpus(pool, partition), nodes.count() as u64);
    let has = format!(
        "{cpus} CPU{} free on {count} node{} that accept work",
        plural(cpus),
        plural(count)
    );
    Waiting::new(PendingReason::Resources, format!("needs {}; {has}", demand.describe()))
}

/// The job would fit if nodes that are out of service were not.
pub(super) fn unavailable(cluster: &Cluster, nodes: &[NodeIndex], demand: &Demand<'_>) -> Waiting {
    let away: Vec<_> = nodes
        .iter()
        .filter_map(|index| cluster.node(*index))
        .filter(|(node, _)| !node.accepts_work())
        .map(|(node, _)| node.name.as_str())
        .collect();
    let named = !demand.shape.required.is_empty();
    let reason = if named { PendingReason::ReqNodeNotAvail } else { PendingReason::Resources };
    let detail = format!("needs {}; out of service: {}", demand.describe(), compress(away));
    Waiting::new(reason, detail)
}

/// Enough is free now, but units ahead will need it before this one would end.
pub(super) fn behind(demand: &Demand<'_>) -> Waiting {
    let detail = format!(
        "needs {}, which is free now but kept for jobs of higher priority before it would end; a \
         shorter time limit may let it start",
        demand.describe()
    );
    Waiting::new(PendingReason::Priority, detail)
}

/// Enough is free now, but an advance reservation has some of it before this would end.
pub(super) fn set_aside(demand: &Demand<'_>, reservation: &Reservation, now: i64) -> Waiting {
    let (name, needs) = (&reservation.name, demand.describe());
    let window = reservation.windows().find(|(_, end)| end.0 > now);
    let when = match window {
        Some((start, _)) if start.0 > now => {
            let secs = start.0.saturating_sub(now).unsigned_abs().div_ceil(1_000);
            format!(" in {}; a shorter time limit may let it start", elapsed_long(secs))
        }
        Some((_, end)) => {
            let secs = end.0.saturating_sub(now).unsigned_abs().div_ceil(1_000);
            format!(" for another {}", elapsed_long(secs))
        }
        None => String::new(),
    };
    let detail =
        format!("needs {needs}, which is free now but reservation {name} has nodes of it{when}");
    Waiting::new(PendingReason::ReqNodeNotAvail, detail)
}
