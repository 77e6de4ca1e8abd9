//! What are the priorities of waiting jobs made of?

use penstock_core::Cluster;
use penstock_core::command::Unit;
use penstock_core::policy::{Factor, FairShare, Scale};
use penstock_proto::v1;
use penstock_vocab::Timestamp;

use crate::convert::limits::tres_to_wire;

/// A row for each of the units, in their order; such as don't wait or are held have none.
#[must_use]
pub fn list_priorities(
    cluster: &Cluster,
    units: impl Iterator<Item = Unit>,
    now: Timestamp,
) -> v1::ListPrioritiesReply {
    let fair = FairShare::new(cluster, now);
    let scale = Scale::new(cluster, &fair, now);
    let weights = &cluster.config().scheduling.weights;
    let tres = weights.tres.iter().map(|(kind, weight)| (kind.clone(), u64::from(*weight)));
    v1::ListPrioritiesReply {
        rows: units
            .filter_map(|unit| row(cluster, &fair, &scale, unit))
            .filter(|row| row.priority > 0)
            .collect(),
        weights: Some(v1::PriorityWeights {
            age: weights.age,
            association: weights.assoc,
            fair_share: weights.fairshare,
            job_size: weights.job_size,
            partition: weights.partition,
            qos: weights.qos,
            expansion: weights.expansion,
            small_area: weights.small_area,
            tres: tres_to_wire(&tres.collect()),
            base: weights.base,
        }),
    }
}

/// The row of one unit; `None` if it does not wait.
#[must_use]
pub fn priority_row(cluster: &Cluster, unit: Unit, now: Timestamp) -> Option<v1::PriorityRow> {
    let fair = FairShare::new(cluster, now);
    let scale = Scale::new(cluster, &fair, now);
    row(cluster, &fair, &scale, unit)
}

fn row(cluster: &Cluster, fair: &FairShare, scale: &Scale, unit: Unit) -> Option<v1::PriorityRow> {
    let factors = scale.factors(cluster, fair, unit)?;
    let (spec, uid) = match unit {
        Unit::Job(id) => cluster.job(id).map(|job| (&job.spec, job.uid))?,
        Unit::Array(id) => cluster.array(id).map(|array| (&array.spec, array.uid))?,
    };
    let partitions: Vec<_> =
        cluster.partitions_of(spec).map(|partition| partition.name.to_string()).collect();
    let tres = factors.tres.iter().map(|(kind, factor)| v1::PriorityFactorOfTres {
        kind: kind.to_string(),
        factor: Some(to_wire(*factor)),
    });
    Some(v1::PriorityRow {
        job_id: unit.id().0,
        shown_id: shown_id(cluster, unit),
        uid: uid.0,
        user: spec.details.user_name.to_string(),
        account: spec.account.to_string(),
        qos: spec.qos.to_string(),
        partition: partitions.join(","),
        priority: factors.priority,
        age: Some(to_wire(factors.age)),
        association: Some(to_wire(factors.assoc)),
        fair_share: Some(to_wire(factors.fairshare)),
        job_size: Some(to_wire(factors.job_size)),
        partition_factor: Some(to_wire(factors.partition)),
        qos_factor: Some(to_wire(factors.qos)),
        expansion: Some(to_wire(factors.expansion)),
        small_area: Some(to_wire(factors.small_area)),
        tres: tres.collect(),
        nice: i64::from(factors.nice),
        site: u32::try_from(factors.site.max(0)).unwrap_or(u32::MAX),
        fixed: factors.fixed.is_some(),
    })
}

/// What people call a unit: its number, `12_3` for a task, `12_[4-7]` for the waiting rest of an array.
#[must_use]
pub fn shown_id(cluster: &Cluster, unit: Unit) -> String {
    match unit {
        Unit::Job(id) => match cluster.job(id).and_then(|job| job.array) {
            Some(task) => format!("{}_{}", task.base, task.index),
            None => id.to_string(),
        },
        Unit::Array(id) => match cluster.array(id) {
            Some(array) => format!("{id}_[{}]", array.pending),
            None => id.to_string(),
        },
    }
}

fn to_wire(factor: Factor) -> v1::PriorityFactor {
    let points = i64::try_from(factor.points()).unwrap_or(i64::MAX);
    v1::PriorityFactor { millionths: factor.millionths, points }
}
