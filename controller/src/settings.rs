//! What does the cluster file come to for the core?

use penstock_core::model::{Config, HookPolicy, NodeConfig, Partition, PartitionState, Policy};
use penstock_vocab::NodeName;

use crate::config::{self, ClusterFile, PartitionNodes, PartitionSection};

/// The core's configuration from a cluster file.
#[must_use]
pub fn core_config(file: &ClusterFile) -> Config {
    let defaults = Policy::default();
    let policy = Policy {
        kill_wait_secs: file.policy.kill_wait_secs,
        min_job_age_secs: file.policy.min_job_age_secs,
        node_timeout_secs: file.policy.node_timeout_secs,
        requeue_delay_secs: file.policy.requeue_delay_secs,
        max_array_size: file.policy.max_array_size,
        fence_lease_secs: file.policy.fence_lease_secs,
        ..defaults
    };
    let only_one = file.partitions.len() == 1;
    let partitions = file.partitions.iter().map(|section| partition(section, only_one)).collect();
    let nodes = file
        .nodes
        .iter()
        .flat_map(|section| {
            section.names.iter().map(|name: &NodeName| NodeConfig {
                name: name.clone(),
                cpus: section.cpus,
                memory: section.memory,
                gres: section.gres.clone(),
                features: section.features.iter().map(|text| text.as_str().into()).collect(),
                weight: section.weight,
            })
        })
        .collect();
    Config {
        cluster: file.cluster.name.as_str().into(),
        policy,
        scheduling: file.scheduling.clone(),
        partitions,
        nodes,
        gpu_health: file.gpu_health.clone(),
        mig: file.mig.clone(),
        hooks: HookPolicy {
            controller_prolog: file.hooks.controller_prolog.is_some(),
            prolog: file.hooks.prolog.is_some(),
            epilog: file.hooks.epilog.is_some(),
            no_hold: !file.hooks.hold_on_prolog_fail,
        },
        idle: file.idle.clone(),
    }
}

/// The only partition is the default one, said or not.
fn partition(section: &PartitionSection, only_one: bool) -> Partition {
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    Partition {
        is_default: section.default || only_one,
        nodes: match &section.nodes {
            PartitionNodes::All => None,
            PartitionNodes::Named(names) => Some(names.clone()),
        },
        state: match section.state {
            config::PartitionState::Up => PartitionState::Up,
            config::PartitionState::Down => PartitionState::Down,
            config::PartitionState::Drain => PartitionState::Drain,
            config::PartitionState::Inactive => PartitionState::Inactive,
        },
        max_time: section.max_time,
        default_time: section.default_time,
        min_nodes: section.min_nodes,
        max_nodes: section.max_nodes.unwrap_or(0),
        max_cpus_per_node: section.max_cpus_per_node.unwrap_or(0),
        priority_tier: section.priority_tier,
        priority_job_factor: section.priority_job_factor,
        allow_groups: texts(&section.allow_groups),
        allow_accounts: texts(&section.allow_accounts),
        deny_accounts: texts(&section.deny_accounts),
        allow_qos: texts(&section.allow_qos),
        deny_qos: texts(&section.deny_qos),
        qos: section.qos.as_deref().map(Into::into),
        billing: section.billing.clone(),
        preempt_mode: section.preempt_mode,
        grace_secs: section.grace_secs,
        exclusive_user: section.exclusive_user,
        oversubscribe: section.oversubscribe,
        require_reservation: section.require_reservation,
        def_mem_per_cpu: section.def_mem_per_cpu,
        def_mem_per_node: section.def_mem_per_node,
        max_mem_per_cpu: section.max_mem_per_cpu,
        max_mem_per_node: section.max_mem_per_node,
        exclusive: section.exclusive,
        hidden: section.hidden,
        root_only: section.root_only,
        fence_self: section.fence_self,
        ..Partition::new(section.name.clone())
    }
}

/// Uids of the file's admins; names that this host does not know are left out.
#[must_use]
pub fn admin_uids(file: &ClusterFile) -> Vec<u32> {
    file.controller
        .admins
        .iter()
        .filter_map(|name| uzers::get_user_by_name(name).map(|user| user.uid()))
        .collect()
}
