//! What does it cost to hold so much, in billing units?
//!
//! Slurm's `TRESBillingWeights`: the sum of weight times amount, or with `MAX_TRES` the dearest of
//! what nodes give and the sum of what the whole cluster has (licences). Without weights each CPU
//! is one.

use std::collections::BTreeMap;

use penstock_vocab::{GresName, Mib, PartitionName, Tres, TresKind};

use crate::model::{Config, JobSpec, MemoryRequest, ONE_MILLIONTHS, Partition};

/// Billing units of what a job holds in a partition: the fraction is dropped, as a TRES is a whole
/// number. A partition that is gone is charged by the cluster's weights.
#[must_use]
pub fn billing(config: &Config, partition: &PartitionName, tres: &Tres) -> u64 {
    billing_with_parts(config, partition, tres, &GpuParts::new())
}

/// What to add to counts of generic resources, in millionths of a unit: a slice of a GPU is counted as
/// one of any type and is a part of one of its model.
pub(crate) type GpuParts = BTreeMap<GresName, i64>;

/// As [`billing`], where parts of GPUs are charged as such.
pub(crate) fn billing_with_parts(
    config: &Config,
    partition: &PartitionName,
    tres: &Tres,
    parts: &GpuParts,
) -> u64 {
    let weights = weights_in(config, partition);
    if weights.is_empty() {
        return tres.cpu;
    }
    let dearest = config.scheduling.fairshare.max_tres;
    let total = weighted(weights, dearest, tres, parts) / u128::from(ONE_MILLIONTHS);
    u64::try_from(total).unwrap_or(u64::MAX)
}

/// The weights of a partition: its own, else the cluster's.
pub(crate) fn weights_in<'a>(
    config: &'a Config,
    partition: &PartitionName,
) -> &'a BTreeMap<TresKind, u64> {
    let own = config.partitions.iter().find(|known| known.name == *partition);
    let own = own.map(|partition| &partition.billing).filter(|weights| !weights.is_empty());
    own.unwrap_or(&config.scheduling.fairshare.billing)
}

/// In millionths of a unit.
fn weighted(
    weights: &BTreeMap<TresKind, u64>,
    dearest: bool,
    tres: &Tres,
    parts: &GpuParts,
) -> u128 {
    let (mut of_nodes, mut of_all) = (0u128, 0u128);
    for (kind, weight) in weights {
        let cost = match kind {
            TresKind::Gres(name) if parts.contains_key(name) => {
                let count = u128::from(tres.get(kind)).saturating_mul(u128::from(ONE_MILLIONTHS));
                let part = parts.get(name).copied().unwrap_or(0);
                let count = if part < 0 {
                    count.saturating_sub(part.unsigned_abs().into())
                } else {
                    count.saturating_add(part.unsigned_abs().into())
                };
                count.saturating_mul(u128::from(*weight)) / u128::from(ONE_MILLIONTHS)
            }
            _ => u128::from(*weight).saturating_mul(u128::from(tres.get(kind))),
        };
        match kind {
            TresKind::Cpu | TresKind::Mem | TresKind::Node | TresKind::Gres(_) if dearest => {
                of_nodes = of_nodes.max(cost);
            }
            TresKind::Cpu
            | TresKind::Mem
            | TresKind::Node
            | TresKind::Gres(_)
            | TresKind::License(_) => of_all = of_all.saturating_add(cost),
            // It would count itself.
            TresKind::Billing => {}
        }
    }
    of_nodes.saturating_add(of_all)
}

/// The least that a request comes to, before any node is chosen: for factors of the priority and
/// first estimates. Memory that follows from the node alone counts as none. Billing is left at 0.
#[must_use]
pub fn least_tres(spec: &JobSpec, partition: Option<&Partition>) -> Tres {
    let shape = &spec.shape;
    let (nodes, cpus) = (u64::from(shape.least_nodes()), u64::from(shape.least_cpus()));
    let mut tres = Tres { cpu: cpus, node: nodes, ..Tres::default() };
    let defaults = partition.map(|partition| {
        (partition.def_mem_per_cpu.map(|mib| mib.0), partition.def_mem_per_node.map(|mib| mib.0))
    });
    let memory = match (shape.memory, defaults) {
        (MemoryRequest::PerNode(mib), _) => nodes.saturating_mul(mib.0),
        (MemoryRequest::PerCpu(mib), _) => cpus.saturating_mul(mib.0),
        (MemoryRequest::PerGpu(mib), _) => shape.least_gpus().saturating_mul(mib.0),
        (MemoryRequest::Default, Some((Some(per_cpu), _))) => cpus.saturating_mul(per_cpu),
        (MemoryRequest::Default, Some((None, Some(per_node)))) => nodes.saturating_mul(per_node),
        (MemoryRequest::Default | MemoryRequest::WholeNode, _) => 0,
    };
    tres.mem = Mib(memory);
    for gres in shape.least_gres() {
        add_gres(&mut tres, &gres.name, gres.count);
    }
    add_licenses(&mut tres, spec);
    tres
}

/// Counts units of a generic resource: typed ones under their type and under the bare name.
pub(crate) fn add_gres(tres: &mut Tres, name: &penstock_vocab::GresName, count: u64) {
    if count == 0 {
        return;
    }
    let mut add = |name: penstock_vocab::GresName| {
        let have = tres.gres.entry(name).or_insert(0);
        *have = have.saturating_add(count);
    };
    if name.kind().is_some() {
        add(name.untyped());
    }
    add(name.clone());
}

/// Counts the licences of a request.
pub(crate) fn add_licenses(tres: &mut Tres, spec: &JobSpec) {
    for (name, count) in spec.shape.licenses.iter().filter(|(_, count)| *count > 0) {
        let have = tres.licenses.entry(name.clone()).or_insert(0);
        *have = have.saturating_add(*count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Weights<'a> = &'a [(&'a str, u64)];

    fn config(weights: &[(&str, u64)], max_tres: bool) -> (Config, PartitionName) {
        let name = PartitionName::new("main").unwrap();
        let mut config = Config::default();
        config.partitions.push(Partition::new(name.clone()));
        let weights = weights.iter().map(|(kind, weight)| (kind.parse().unwrap(), *weight));
        config.scheduling.fairshare.billing = weights.collect();
        config.scheduling.fairshare.max_tres = max_tres;
        (config, name)
    }

    /// 4 CPUs, 8 GiB, one node, 2 GPUs of a type, 3 licences.
    fn held() -> Tres {
        let mut tres = Tres { cpu: 4, mem: Mib(8 << 10), node: 1, ..Tres::default() };
        let gpu = penstock_vocab::GresName::new("gpu", Some("h100")).unwrap();
        add_gres(&mut tres, &gpu, 2);
        tres.licenses.insert("matlab".into(), 3);
        tres
    }

    #[test]
    fn weights_are_summed_or_the_dearest_counts() {
        // CPU=1.0,Mem=0.25G,GRES/gpu=2.0,License/matlab=0.5: memory weighs 0.25 / 1024 a MiB.
        let all = [("cpu", 1_000_000), ("mem", 244), ("gres/gpu", 2_000_000)];
        let table: [(Weights<'_>, bool, u64); 7] = [
            (&[], false, 4),
            (&[], true, 4),
            (&all, false, 4 + 1 + 4),
            (&all, true, 4),
            (&[("gres/gpu:h100", 10_000_000)], false, 20),
            (&[("cpu", 1_000_000), ("license/matlab", 500_000)], true, 5),
            (&[("billing", 1_000_000), ("node", 7_900_000)], false, 7),
        ];
        for (weights, dearest, want) in table {
            let (config, partition) = config(weights, dearest);
            assert_eq!(billing(&config, &partition, &held()), want, "{weights:?} {dearest}");
        }
    }

    #[test]
    fn a_partition_may_have_its_own_weights() {
        let (mut config, main) = config(&[("cpu", 1_000_000)], false);
        config.partitions[0].billing.insert(TresKind::Cpu, 3_000_000);
        assert_eq!(billing(&config, &main, &held()), 12);
        let gone = PartitionName::new("gone").unwrap();
        assert_eq!(billing(&config, &gone, &held()), 4);
    }

    #[test]
    fn absurd_weights_are_capped() {
        let (config, main) = config(&[("mem", u64::MAX), ("cpu", u64::MAX)], false);
        let held = Tres { cpu: u64::MAX, mem: Mib(u64::MAX), ..Tres::default() };
        assert_eq!(billing(&config, &main, &held), u64::MAX);
    }
}
