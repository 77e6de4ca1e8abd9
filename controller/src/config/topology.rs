//! Which switches and blocks does the file name?

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::model::{Block, Switch, Topology};
use penstock_vocab::NodeName;
use toml::de::DeTable;

use super::file::tables;
use super::pools;
use super::problem::Problems;
use super::section::{Placed, Section};

/// `[[switch]]` and `[[block]]`.
pub(super) fn read(document: &DeTable<'_>, problems: &mut Problems<'_>) -> Topology {
    let switches: Vec<_> = tables(document, "switch", problems)
        .into_iter()
        .filter_map(|(table, at)| read_switch(Section::new("[[switch]]", table, at, problems)))
        .collect();
    let blocks: Vec<_> = tables(document, "block", problems)
        .into_iter()
        .filter_map(|(table, at)| read_block(Section::new("[[block]]", table, at, problems)))
        .collect();
    check_switches(&switches, problems);
    check_blocks(&blocks, problems);
    Topology {
        switches: switches.into_iter().map(|placed| placed.value).collect(),
        blocks: blocks.into_iter().map(|placed| placed.value).collect(),
    }
}

fn read_name(section: &mut Section<'_, '_, '_>) -> Option<Placed<String>> {
    let name = section.string("name", "\"leaf1\"");
    if name.is_none() {
        let at = section.at();
        let message = format!("{} has no name", section.title);
        section.problems.error(&at, message);
    }
    name
}

fn read_nodes(section: &mut Section<'_, '_, '_>) -> Box<[NodeName]> {
    let nodes = section.parsed("nodes", "\"node[1-16]\"", pools::parse_list);
    nodes.map(|nodes| nodes.value.into()).unwrap_or_default()
}

fn read_switch(mut section: Section<'_, '_, '_>) -> Option<Placed<Switch>> {
    let name = read_name(&mut section);
    let nodes = read_nodes(&mut section);
    let below = section.strings("switches", "[\"leaf1\", \"leaf2\"]");
    let switches: Box<[Box<str>]> = below
        .map(|list| list.value.into_iter().map(|name| name.value.into()).collect())
        .unwrap_or_default();
    if nodes.is_empty() == switches.is_empty() {
        let at = section.at();
        let message = "[[switch]] has either nodes (a leaf) or switches (what is below it)";
        section.problems.error(&at, message);
    }
    section.finish();
    let name = name?;
    Some(Placed { value: Switch { name: name.value.into(), nodes, switches }, at: name.at })
}

fn read_block(mut section: Section<'_, '_, '_>) -> Option<Placed<Block>> {
    let name = read_name(&mut section);
    let nodes = read_nodes(&mut section);
    section.finish();
    let name = name?;
    Some(Placed { value: Block { name: name.value.into(), nodes }, at: name.at })
}

/// A forest: names unique, each switch below one other at most, no node on two leaves, no ring.
fn check_switches(switches: &[Placed<Switch>], problems: &mut Problems<'_>) {
    let mut above: BTreeMap<&str, &str> = BTreeMap::new();
    let mut leaves: BTreeMap<&NodeName, &str> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for Placed { value, at } in switches {
        if !names.insert(&*value.name) {
            problems.error(at, format!("switch {:?} is described twice", value.name));
        }
        for node in &value.nodes {
            if let Some(other) = leaves.insert(node, &value.name) {
                let message = format!("node {node} hangs on switch {other} and {}", value.name);
                problems.error(at, message);
            }
        }
    }
    for Placed { value, at } in switches {
        for below in &value.switches {
            if !names.contains(&**below) {
                let message = format!(
                    "switch {:?} names {below:?}, which no [[switch]] describes",
                    value.name
                );
                problems.error(at, message);
            }
            if let Some(other) = above.insert(below, &value.name) {
                let message = format!("switch {below:?} is below {other} and {}", value.name);
                problems.error(at, message);
            }
        }
    }
    for Placed { value, at } in switches {
        let mut name = &*value.name;
        for _ in 0..=switches.len() {
            match above.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        if above.contains_key(name) {
            problems.error(at, format!("switch {:?} is below itself", value.name));
        }
    }
}

fn check_blocks(blocks: &[Placed<Block>], problems: &mut Problems<'_>) {
    let mut names = BTreeSet::new();
    let mut nodes: BTreeMap<&NodeName, &str> = BTreeMap::new();
    for Placed { value, at } in blocks {
        if !names.insert(&*value.name) {
            problems.error(at, format!("block {:?} is described twice", value.name));
        }
        for node in &value.nodes {
            if let Some(other) = nodes.insert(node, &value.name) {
                problems.error(at, format!("node {node} is in block {other} and {}", value.name));
            }
        }
    }
}
