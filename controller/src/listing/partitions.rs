//! Which partitions are there, and what do they have?

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::model::{Node, NodeIndex, Oversubscribe, Partition, PreemptMode};
use penstock_proto::v1;
use penstock_vocab::{GresName, Mib, Tres};

use super::facts::count_gres;
use crate::convert::spec::walltime_secs;

/// Lists the partitions that the request names, in the order of the cluster file; without names,
/// all, hidden ones too. Names that are unknown are left out.
#[must_use]
pub fn list_partitions(
    cluster: &Cluster,
    request: &v1::ListPartitionsRequest,
) -> v1::ListPartitionsReply {
    let wanted = |partition: &&Partition| {
        request.partitions.is_empty()
            || request.partitions.iter().any(|name| partition.name == **name)
    };
    let partitions = cluster.config().partitions.iter().filter(wanted);
    let partitions = partitions.map(|partition| partition_info(cluster, partition)).collect();
    v1::ListPartitionsReply { partitions }
}

/// The nodes of a partition, in the order of their places.
pub(super) fn nodes_of<'a>(
    cluster: &'a Cluster,
    partition: &'a Partition,
) -> Vec<(NodeIndex, &'a Arc<Node>)> {
    match &partition.nodes {
        None => cluster.nodes().map(|(index, node, _)| (index, node)).collect(),
        Some(names) => {
            let known = names.iter().filter_map(|name| cluster.node_index(name.as_str()));
            let mut places: Vec<_> = known.collect();
            places.sort_unstable();
            places.dedup();
            let node = |index: NodeIndex| Some((index, cluster.node(index)?.0));
            places.into_iter().filter_map(node).collect()
        }
    }
}

/// What nodes have together, as scontrol prints it.
pub(super) fn total<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) -> Tres {
    let mut sum = Tres::default();
    let mut gres: BTreeMap<GresName, u64> = BTreeMap::new();
    for node in nodes {
        let inventory = &node.inventory;
        sum.cpu = sum.cpu.saturating_add(u64::from(inventory.cpus));
        sum.mem = sum.mem.saturating_add(inventory.memory);
        sum.node += 1;
        for have in &inventory.gres {
            count_gres(&mut gres, &have.name, have.count);
        }
    }
    sum.billing = sum.cpu;
    sum.gres = gres;
    sum
}

fn partition_info(cluster: &Cluster, partition: &Partition) -> v1::PartitionInfo {
    let nodes = nodes_of(cluster, partition);
    let tres = total(nodes.iter().map(|(_, node)| *node));
    let mib = |memory: Option<Mib>| memory.map(|memory| memory.0);
    let strings = |texts: &[Box<str>]| texts.iter().map(ToString::to_string).collect();
    v1::PartitionInfo {
        name: partition.name.to_string(),
        is_default: partition.is_default,
        state: partition.state.name().to_owned(),
        nodes: nodes.iter().map(|(_, node)| node.name.to_string()).collect(),
        max_time_secs: walltime_secs(partition.max_time),
        default_time_secs: partition.default_time.map(walltime_secs),
        min_nodes: partition.min_nodes,
        max_nodes: partition.max_nodes,
        priority_tier: partition.priority_tier,
        priority_job_factor: partition.priority_job_factor,
        allow_groups: strings(&partition.allow_groups),
        allow_accounts: strings(&partition.allow_accounts),
        def_mem_per_cpu_mib: mib(partition.def_mem_per_cpu),
        def_mem_per_node_mib: mib(partition.def_mem_per_node),
        max_mem_per_cpu_mib: mib(partition.max_mem_per_cpu),
        max_mem_per_node_mib: mib(partition.max_mem_per_node),
        total_cpus: u32::try_from(tres.cpu).unwrap_or(u32::MAX),
        total_nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        exclusive: partition.exclusive,
        hidden: partition.hidden,
        root_only: partition.root_only,
        tres: tres.to_scontrol(),
        max_cpus_per_node: partition.max_cpus_per_node,
        allow_qos: strings(&partition.allow_qos),
        deny_accounts: strings(&partition.deny_accounts),
        deny_qos: strings(&partition.deny_qos),
        qos: partition.qos.as_deref().unwrap_or_default().to_owned(),
        grace_secs: partition.grace_secs,
        preempt_mode: partition.preempt_mode.map_or("", PreemptMode::name).to_owned(),
        oversubscribe: match partition.oversubscribe {
            Oversubscribe { jobs: 0 | 1, .. } => String::new(),
            Oversubscribe { jobs, forced: true } => format!("FORCE:{jobs}"),
            Oversubscribe { jobs, forced: false } => format!("YES:{jobs}"),
        },
        exclusive_user: partition.exclusive_user,
        require_reservation: partition.require_reservation,
    }
}
