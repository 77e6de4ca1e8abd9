//! Which nodes does a `[[node_set]]` stand for?
//!
//! A node set is a name for nodes, which partitions may write among their nodes: a pool that several
//! of them share.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use penstock_vocab::{NodeName, expand_unique};
use toml::de::DeTable;

use super::nodes::NodeSection;
use super::partitions::{PartitionNodes, PartitionSection};
use super::problem::Problems;
use super::section::{Placed, Section};

/// Node sets by name.
pub(super) type NodeSets = BTreeMap<String, Vec<NodeName>>;

/// Reads every `[[node_set]]`.
pub(super) fn read(
    tables: Vec<(&DeTable<'_>, Range<usize>)>,
    nodes: &[Placed<NodeSection>],
    problems: &mut Problems<'_>,
) -> NodeSets {
    let mut sets = NodeSets::new();
    for (table, at) in tables {
        let mut section = Section::new("[[node_set]]", table, at, problems);
        let name = section.string("name", "\"fast\"");
        let listed = section.parsed("nodes", "\"node[1-16]\"", parse_list);
        let feature = section.string("feature", "\"h100\"");
        let mut members = listed.map(|list| list.value).unwrap_or_default();
        if let Some(feature) = &feature {
            let has = |node: &&Placed<NodeSection>| node.value.features.contains(&feature.value);
            members.extend(nodes.iter().filter(has).flat_map(|node| node.value.names.clone()));
        }
        let at = section.at();
        if members.is_empty() {
            let message = match &feature {
                Some(feature) => format!(
                    "[[node_set]]: no [[node]] has the feature {:?}, and it lists no nodes",
                    feature.value
                ),
                None => "[[node_set]] has neither nodes nor a feature".to_owned(),
            };
            section.problems.error(&at, message);
        }
        section.finish();
        let Some(name) = name else {
            problems.error(&at, "[[node_set]] has no name");
            continue;
        };
        if sets.insert(name.value.clone(), members).is_some() {
            problems.error(&name.at, format!("node set {:?} is described twice", name.value));
        }
    }
    sets
}

/// Nodes of a host list.
pub(super) fn parse_list(text: &str) -> Result<Vec<NodeName>, String> {
    let names = expand_unique(text).map_err(|error| error.to_string())?;
    names.iter().map(|name| NodeName::new(name).map_err(|error| error.to_string())).collect()
}

/// Puts the members of node sets in the place of the sets' names.
pub(super) fn expand(partition: &mut PartitionSection, sets: &NodeSets) {
    let PartitionNodes::Named(names) = &mut partition.nodes else { return };
    if !names.iter().any(|name| sets.contains_key(name.as_str())) {
        return;
    }
    let members = |name: NodeName| sets.get(name.as_str()).cloned().unwrap_or_else(|| vec![name]);
    let mut seen = BTreeSet::new();
    *names = std::mem::take(names)
        .into_iter()
        .flat_map(members)
        .filter(|member| seen.insert(member.clone()))
        .collect();
}
