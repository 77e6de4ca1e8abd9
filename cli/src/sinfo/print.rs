//! How do partitions and nodes become the lines of sinfo?

use std::cmp::Ordering;
use std::collections::HashMap;

use penstock_proto::v1;
use penstock_vocab::{NodeFlag, NodeState};

use crate::listing::{
    Clock, Column, Dialect, Grouping, NodeField, NodeGroup, NodeRow, PartitionRow, Render,
    group_nodes, push_padded,
};

use super::options::{Options, SortKey};

/// The whole output.
pub(super) fn print(
    options: &Options,
    nodes: &[v1::NodeInfo],
    partitions: &[v1::PartitionInfo],
    clock: &Clock,
) -> Vec<u8> {
    let render = Render::new(Dialect::Queue, clock);
    let chosen = choose(options, nodes, partitions);
    let fields: Vec<&'static NodeField> =
        options.columns.columns.iter().filter_map(|column| column.field).collect();
    let grouping = Grouping { fields: &fields, by_node: options.by_node, exact: options.exact };
    let mut groups = group_nodes(&chosen, grouping, &render);
    if options.reasons {
        groups.retain(|group| !group.nodes.is_empty());
    }
    groups.sort_by(|left, right| compare(&options.sort, left, right, &render));
    let columns = widened(options, &groups);
    let mut out = Vec::new();
    if options.date {
        out.extend_from_slice(clock.date_line().as_bytes());
        out.push(b'\n');
    }
    if options.header {
        push_line(&mut out, options, &columns, |field, text| text.push_str(field.header));
    }
    for group in &groups {
        push_line(&mut out, options, &columns, |field, text| field.push(text, group, &render));
    }
    out
}

fn push_line(
    out: &mut Vec<u8>,
    options: &Options,
    columns: &[Column<&'static NodeField>],
    show: impl Fn(&NodeField, &mut String),
) {
    out.extend_from_slice(options.columns.prefix.as_bytes());
    let mut text = String::new();
    for column in columns {
        if let Some(field) = column.field {
            text.clear();
            show(field, &mut text);
            push_padded(out, &text, column.width, column.right);
        }
        out.extend_from_slice(column.suffix.as_bytes());
    }
    out.push(b'\n');
}

/// The partitions that are meant, each with its nodes that are meant.
fn choose<'a>(
    options: &Options,
    nodes: &'a [v1::NodeInfo],
    partitions: &'a [v1::PartitionInfo],
) -> Vec<(PartitionRow<'a>, Vec<NodeRow<'a>>)> {
    let rows: HashMap<&str, NodeRow<'a>> = nodes
        .iter()
        .map(NodeRow::new)
        .filter(|row| is_meant(options, row))
        .map(|row| (row.node.name.as_str(), row))
        .collect();
    let wanted = |partition: &v1::PartitionInfo| match &options.partitions {
        Some(names) => names.contains(&partition.name),
        None => options.hidden || !partition.hidden,
    };
    let numbered = partitions.iter().enumerate().filter(|(_, partition)| wanted(partition));
    numbered
        .map(|(place, info)| {
            let found = info.nodes.iter().filter_map(|name| rows.get(name.as_str()).copied());
            (PartitionRow { info, place }, found.collect())
        })
        .collect()
}

/// Whether a node is asked for.
pub(super) fn is_meant(options: &Options, row: &NodeRow<'_>) -> bool {
    let status = row.status();
    let silent = status.flags.contains(NodeFlag::NotResponding);
    let broken = status.base == NodeState::Down
        || status.flags.contains(NodeFlag::Drain)
        || status.flags.contains(NodeFlag::Fail);
    options.nodes.as_ref().is_none_or(|names| names.contains(&row.node.name))
        && options.states.as_ref().is_none_or(|states| states.matches(status))
        && options.responding.is_none_or(|responding| responding != silent)
        && (!options.reasons || (broken && row.reason().is_some()))
}

/// sinfo's own columns grow to the longest name that they show.
fn widened(options: &Options, groups: &[NodeGroup<'_>]) -> Vec<Column<&'static NodeField>> {
    let mut columns = options.columns.columns.clone();
    let longest = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0);
    for column in columns.iter_mut().filter(|column| options.may_widen && column.width > 0) {
        let least = match column.field.and_then(|field| field.letter) {
            Some('P') => longest(
                &mut groups.iter().map(|group| group.partition.marked_name().chars().count()),
            ),
            Some('N') if options.by_node => longest(
                &mut groups
                    .iter()
                    .flat_map(|group| &group.nodes)
                    .map(|row| row.node.name.chars().count()),
            ),
            Some(_) | None => 0,
        };
        column.width = column.width.max(least);
    }
    columns
}

fn compare(
    keys: &[SortKey],
    left: &NodeGroup<'_>,
    right: &NodeGroup<'_>,
    render: &Render<'_>,
) -> Ordering {
    keys.iter().fold(Ordering::Equal, |order, key| {
        order.then_with(|| {
            let order = compare_by(key, left, right, render);
            if key.reverse { order.reverse() } else { order }
        })
    })
}

fn compare_by(
    key: &SortKey,
    left: &NodeGroup<'_>,
    right: &NodeGroup<'_>,
    render: &Render<'_>,
) -> Ordering {
    let state = |group: &NodeGroup<'_>| group.nodes.first().map(NodeRow::sort_number);
    let count = |group: &NodeGroup<'_>| group.nodes.len();
    match key.field.letter {
        Some('P' | 'R') if key.configured => left.partition.place.cmp(&right.partition.place),
        Some('P' | 'R') => left.partition.info.name.cmp(&right.partition.info.name),
        Some('t' | 'T') => state(left).cmp(&state(right)),
        Some('D') => count(left).cmp(&count(right)),
        Some('N') => {
            let name =
                |group: &NodeGroup<'_>| group.nodes.first().map(|row| natural(&row.node.name));
            name(left).cmp(&name(right))
        }
        _ => {
            let text = |group: &NodeGroup<'_>| {
                let mut text = String::new();
                key.field.push(&mut text, group, render);
                natural(&text)
            };
            text(left).cmp(&text(right))
        }
    }
}

/// A text with the number that ends it apart, so that n2 comes before n10.
fn natural(text: &str) -> (String, u64, usize) {
    let digits = text.bytes().rev().take(18).take_while(u8::is_ascii_digit).count();
    let (head, number) = text.split_at(text.len() - digits);
    (head.to_owned(), number.parse().unwrap_or(0), digits)
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;
