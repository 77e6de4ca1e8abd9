//! Which nodes share a line of sinfo?
//!
//! Those of one partition whose printed fields are equal. Sizes (CPUs, memory and the like) are not
//! compared unless `-e` asks for it; a group that differs in one shows the least with `+` behind it.
//! Where no field of the partition is printed, a node of two partitions counts once.

use std::collections::{HashMap, HashSet};

use super::node_fields::{NodeField, NodeValue};
use super::node_row::NodeRow;
use super::partition_row::PartitionRow;
use super::value::Render;

/// The nodes of one line.
#[derive(Debug, Clone)]
pub(crate) struct NodeGroup<'a> {
    /// The partition, that of the first node where several are merged.
    pub(crate) partition: PartitionRow<'a>,
    /// The nodes; none: a partition without a node that was asked for.
    pub(crate) nodes: Vec<NodeRow<'a>>,
}

/// How to group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping<'f> {
    /// The fields that are printed.
    pub(crate) fields: &'f [&'static NodeField],
    /// One line for each node and partition (`-N`).
    pub(crate) by_node: bool,
    /// Sizes must be equal too (`-e`).
    pub(crate) exact: bool,
}

/// Groups the nodes of each partition, in the order of partitions and nodes.
pub(crate) fn group_nodes<'a>(
    partitions: &[(PartitionRow<'a>, Vec<NodeRow<'a>>)],
    grouping: Grouping<'_>,
    render: &Render<'_>,
) -> Vec<NodeGroup<'a>> {
    let shows_partition = grouping.fields.iter().any(|field| field.names_partition());
    let mut groups: Vec<NodeGroup<'a>> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    let mut seen: HashSet<(usize, &str)> = HashSet::new();
    for (partition, nodes) in partitions {
        if nodes.is_empty() && shows_partition && !grouping.by_node {
            groups.push(NodeGroup { partition: *partition, nodes: Vec::new() });
        }
        for node in nodes {
            if grouping.by_node {
                groups.push(NodeGroup { partition: *partition, nodes: vec![*node] });
                continue;
            }
            let key = group_key(grouping, *partition, *node, render);
            let at = *by_key.entry(key).or_insert_with(|| {
                groups.push(NodeGroup { partition: *partition, nodes: Vec::new() });
                groups.len() - 1
            });
            if seen.insert((at, node.node.name.as_str())) {
                groups[at].nodes.push(*node);
            }
        }
    }
    groups
}

/// What must be equal, as one text.
fn group_key(
    grouping: Grouping<'_>,
    partition: PartitionRow<'_>,
    node: NodeRow<'_>,
    render: &Render<'_>,
) -> String {
    let mut key = String::new();
    for field in grouping.fields {
        match field.value {
            NodeValue::Node(value) => render.push(&mut key, &value(&node)),
            NodeValue::Partition(value) => render.push(&mut key, &value(&partition)),
            NodeValue::Range(size, _) if grouping.exact => key.push_str(&size(&node).to_string()),
            NodeValue::Range(..) | NodeValue::Load | NodeValue::Group(_) => {}
        }
        key.push('\0');
    }
    key
}
