//! Which nodes does the file describe, and what must they have?
//!
//! Nodes describe themselves when they join. A `[[node]]` is what the admin promises of some of
//! them: they are listed before they join, and one that joins with less is drained.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use penstock_vocab::{
    GresRequest, MAX_NAME_LEN, Mib, NodeName, expand, parse_gres_list, parse_memory,
};

use super::problem::Problems;
use super::section::{Placed, Section};

/// One `[[node]]`: nodes that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSection {
    /// The nodes, a hostlist in the file. Required; each name in one `[[node]]` only.
    pub names: Vec<NodeName>,
    /// CPUs that each has. Default: what it says when it joins.
    pub cpus: Option<u32>,
    /// Memory that each has. Default: what it says when it joins.
    pub memory: Option<Mib>,
    /// Generic resources that each has, e.g. `gpu:h100:8`. Default: what it says when it joins.
    pub gres: Vec<GresRequest>,
    /// Features that jobs can ask for with `-C`, beside those that the node names itself.
    pub features: Vec<String>,
    /// Nodes of less weight are taken first. Default: 1.
    pub weight: u32,
}

/// Reads one `[[node]]`; `None` when it names no node.
pub(super) fn read(
    table: &DeTable<'_>,
    at: Range<usize>,
    problems: &mut Problems<'_>,
) -> Option<Placed<NodeSection>> {
    let mut section = Section::new("[[node]]", table, at, problems);
    let names = section.parsed("name", "\"gpu[001-128]\"", parse_names);
    match &names {
        Some(names) => {
            let list = penstock_vocab::compress(names.value.iter().map(NodeName::as_str));
            section.title = format!("[[node]] {list:?}");
        }
        None if !table.contains_key("name") => {
            let at = section.at();
            let message = "[[node]] has no name; write name = \"node[1-4]\" in it";
            section.problems.error(&at, message);
        }
        None => {}
    }
    let cpus = section.number("cpus", 1..=u32::MAX).map(|cpus| cpus.value);
    let memory = section.parsed_or_number("memory", "\"512G\"", parse_memory);
    if let Some(memory) = memory.as_ref().filter(|memory| memory.value == Mib(0)) {
        let message = format!("{} memory is 0; give what the node has, e.g. 512G", section.title);
        section.problems.error(&memory.at, message);
    }
    let gres = read_gres(&mut section);
    let features = read_features(&mut section);
    let weight = section.number("weight", 1..=u32::MAX - 1).map_or(1, |weight| weight.value);
    section.finish();
    let names = names?;
    let memory = memory.map(|memory| memory.value);
    let node = NodeSection { names: names.value, cpus, memory, gres, features, weight };
    Some(Placed { value: node, at: names.at })
}

fn parse_names(text: &str) -> Result<Vec<NodeName>, String> {
    let names = expand(text).map_err(|error| error.to_string())?;
    if names.is_empty() {
        return Err("names no node; give a hostlist (node[1-4])".to_owned());
    }
    names.iter().map(|name| NodeName::new(name).map_err(|error| error.to_string())).collect()
}

fn read_gres(section: &mut Section<'_, '_, '_>) -> Vec<GresRequest> {
    let mut all = Vec::new();
    let Some(items) = section.strings("gres", "[\"gpu:h100:8\"]") else { return all };
    for item in items.value {
        match parse_gres_list(&item.value) {
            Ok(list) => all.extend(list),
            Err(error) => {
                section.problems.error(&item.at, format!("{} gres: {error}", section.title));
            }
        }
    }
    all
}

fn read_features(section: &mut Section<'_, '_, '_>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let Some(items) = section.strings("features", "[\"h100\", \"ib\"]") else { return all };
    for Placed { value: feature, at } in items.value {
        let letter =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=' | ':');
        if feature.is_empty() || feature.len() > MAX_NAME_LEN || !feature.chars().all(letter) {
            let message = format!(
                "{} features: {feature:?} is no name of a feature; use letters, digits, '_', '-', \
                 '.', '=' and ':', at most {MAX_NAME_LEN}",
                section.title
            );
            section.problems.error(&at, message);
        } else if !all.contains(&feature) {
            all.push(feature);
        }
    }
    all
}

/// Names that two `[[node]]` share, or one has twice.
pub(super) fn check_together(nodes: &[Placed<NodeSection>], problems: &mut Problems<'_>) {
    let mut seen: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for Placed { value: node, at } in nodes {
        let line = problems.line(at.start);
        let mut twice = Vec::new();
        let mut first_line = line;
        for name in &node.names {
            if let Some(first) = seen.insert(name, line) {
                first_line = first_line.min(first);
                twice.push(name.as_str());
            }
        }
        if !twice.is_empty() {
            let names = penstock_vocab::compress(twice);
            let message = format!(
                "[[node]] {names} is described twice, first on line {first_line}; name each node in \
                 one [[node]]"
            );
            problems.error(at, message);
        }
    }
}
