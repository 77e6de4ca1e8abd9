//! How are nodes, lengths of time and states put for people?

use penstock_vocab::{Timestamp, compress, elapsed_long};

use crate::cluster::Cluster;
use crate::model::NodeIndex;

/// Names of nodes as a host list.
pub(super) fn hostlist(cluster: &Cluster, nodes: impl IntoIterator<Item = NodeIndex>) -> String {
    let names: Vec<_> = nodes
        .into_iter()
        .filter_map(|index| cluster.node(index))
        .map(|(node, _)| node.name.as_str())
        .collect();
    compress(names)
}

/// From one time to a later one, seconds rounded up: `01:30:00`.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    elapsed_long(to.since(from).as_secs_rounded_up())
}

/// `1 job`, `2 jobs`.
pub(super) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
