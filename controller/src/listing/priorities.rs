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
    user: &dyn Fn(u32) -> Option<String>,
) -> v1::ListPrioritiesReply {
    let fair = FairShare::new(cluster, now);
    let scale = Scale::new(cluster, &fair, now);
    let weights = &cluster.config().scheduling.weights;
    let tres = weights.tres.iter().map(|(kind, weight)| (kind.clone(), u64::from(*weight)));
    v1::ListPrioritiesReply {
        rows: units
            .filter_map(|unit| row(cluster, &fair, &scale, unit, user))
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
    row(cluster, &fair, &scale, unit, &|_| None)
}

fn row(
    cluster: &Cluster,
    fair: &FairShare,
    scale: &Scale,
    unit: Unit,
    user: &dyn Fn(u32) -> Option<String>,
) -> Option<v1::PriorityRow> {
    let factors = scale.factors(cluster, fair, unit)?;
    let (spec, uid, shown_id) = match unit {
        Unit::Job(id) => {
            let job = cluster.job(id)?;
            let shown = match job.array {
                Some(task) => format!("{}_{}", task.base, task.index),
                None => id.to_string(),
            };
            (&job.spec, job.uid, shown)
        }
        Unit::Array(id) => {
            let array = cluster.array(id)?;
            (&array.spec, array.uid, format!("{id}_[{}]", array.pending))
        }
    };
    let partitions: Vec<_> =
        cluster.partitions_of(spec).map(|partition| partition.name.to_string()).collect();
    let tres = factors.tres.iter().map(|(kind, factor)| v1::PriorityFactorOfTres {
        kind: kind.to_string(),
        factor: Some(to_wire(*factor)),
    });
    Some(v1::PriorityRow {
        job_id: unit.id().0,
        shown_id,
        uid: uid.0,
        user: user(uid.0).unwrap_or_else(|| spec.details.user_name.to_string()),
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
        tres: tres.collect(),
        nice: i64::from(factors.nice),
        site: u32::try_from(factors.site.max(0)).unwrap_or(u32::MAX),
        fixed: factors.fixed.is_some(),
    })
}

fn to_wire(factor: Factor) -> v1::PriorityFactor {
    let points = i64::try_from(factor.points()).unwrap_or(i64::MAX);
    v1::PriorityFactor { millionths: factor.millionths, points }
}
