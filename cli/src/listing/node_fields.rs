//! Under which letters, names and headers does sinfo show nodes and partitions?

use std::borrow::Cow;

use super::node_group::NodeGroup;
use super::node_row::NodeRow;
use super::partition_row::PartitionRow;
use super::value::{Render, Value};

/// A field of sinfo.
#[derive(Clone, Copy)]
pub(crate) struct NodeField {
    /// Letter of `-o`.
    pub(crate) letter: Option<char>,
    /// Header.
    pub(crate) header: &'static str,
    /// Names of `-O`, in lower case.
    pub(crate) long: &'static [&'static str],
    /// The value.
    pub(crate) value: NodeValue,
}

/// Where a value comes from, and whether nodes that differ in it share a line.
#[derive(Clone, Copy)]
pub(crate) enum NodeValue {
    /// Of the node; equal in a group.
    Node(for<'a> fn(&NodeRow<'a>) -> Value<'a>),
    /// Of the partition; equal in a group.
    Partition(for<'a> fn(&PartitionRow<'a>) -> Value<'a>),
    /// A size of the node; a group shows the least, and in the given way that there are others.
    Range(fn(&NodeRow<'_>) -> u64, Spread),
    /// The load average.
    Load,
    /// Of all nodes of the group together.
    Group(for<'a> fn(&NodeGroup<'a>) -> Value<'a>),
}

/// How differing sizes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// `4+`.
    Plus,
    /// `4-8`.
    Dash,
}

impl std::fmt::Debug for NodeField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeField").field("header", &self.header).finish_non_exhaustive()
    }
}

const fn field(
    letter: char,
    header: &'static str,
    long: &'static [&'static str],
    value: NodeValue,
) -> NodeField {
    NodeField { letter: Some(letter), header, long, value }
}

const fn named(header: &'static str, long: &'static [&'static str], value: NodeValue) -> NodeField {
    NodeField { letter: None, header, long, value }
}

/// The letters of sinfo's `%all`, in its order.
pub(crate) const NODE_ALL_LETTERS: &str = "abcdefghlmnoprstuvwzABCDEFGHILMNOPRSTUVXYZ";

/// Every field.
#[rustfmt::skip] // One line a field, so that the table can be read as one.
const FIELDS: &[NodeField] = &[
    field('a', "AVAIL", &["available"], NodeValue::Partition(|partition| partition.available())),
    field('A', "NODES(A/I)", &["nodeai"], NodeValue::Group(nodes_ai)),
    field('b', "ACTIVE_FEATURES", &["features_act"], NodeValue::Node(|node| node.features())),
    field('B', "MAX_CPUS_PER_NODE", &["maxcpuspernode"], NodeValue::Partition(|partition| partition.max_cpus_per_node())),
    field('c', "CPUS", &["cpus"], NodeValue::Range(cpus, Spread::Plus)),
    field('C', "CPUS(A/I/O/T)", &["cpusstate"], NodeValue::Group(cpus_aiot)),
    field('d', "TMP_DISK", &["disk"], NodeValue::Range(tmp_disk, Spread::Plus)),
    field('D', "NODES", &["nodes"], NodeValue::Group(node_count)),
    field('e', "FREE_MEM", &["freemem"], NodeValue::Range(free_memory, Spread::Dash)),
    field('E', "REASON", &["reason"], NodeValue::Node(reason)),
    field('f', "AVAIL_FEATURES", &["features"], NodeValue::Node(|node| node.features())),
    field('F', "NODES(A/I/O/T)", &["nodeaiot"], NodeValue::Group(nodes_aiot)),
    field('g', "GROUPS", &["groups"], NodeValue::Partition(|partition| partition.groups())),
    field('G', "GRES", &["gres"], NodeValue::Node(gres)),
    field('h', "OVERSUBSCRIBE", &["oversubscribe"], NodeValue::Partition(|partition| partition.oversubscribe())),
    field('H', "TIMESTAMP", &["timestamp"], NodeValue::Node(reason_time)),
    field('I', "PRIO_JOB_FACTOR", &["priorityjobfactor"], NodeValue::Partition(job_factor)),
    field('l', "TIMELIMIT", &["time"], NodeValue::Partition(|partition| partition.max_time())),
    field('L', "DEFAULTTIME", &["defaulttime"], NodeValue::Partition(|partition| partition.default_time())),
    field('m', "MEMORY", &["memory"], NodeValue::Range(memory, Spread::Plus)),
    field('M', "PREEMPT_MODE", &["preemptmode"], NodeValue::Partition(preempt_mode)),
    field('n', "HOSTNAMES", &["nodehost"], NodeValue::Node(hostname)),
    field('N', "NODELIST", &["nodelist"], NodeValue::Group(nodelist)),
    field('o', "NODE_ADDR", &["nodeaddr"], NodeValue::Node(address)),
    field('O', "CPU_LOAD", &["cpusload"], NodeValue::Load),
    field('p', "PRIO_TIER", &["prioritytier"], NodeValue::Partition(tier)),
    field('P', "PARTITION", &["partition"], NodeValue::Partition(partition)),
    field('r', "ROOT", &["root"], NodeValue::Partition(root)),
    field('R', "PARTITION", &["partitionname"], NodeValue::Partition(partition_name)),
    field('s', "JOB_SIZE", &["size"], NodeValue::Partition(|partition| partition.job_size())),
    field('S', "ALLOCNODES", &["allocnodes"], NodeValue::Partition(all)),
    field('t', "STATE", &["statecompact"], NodeValue::Node(state_compact)),
    field('T', "STATE", &["statelong"], NodeValue::Node(state_long)),
    field('u', "USER", &["user"], NodeValue::Node(reason_user)),
    field('U', "USER", &["userlong"], NodeValue::Node(reason_user_long)),
    field('v', "VERSION", &["version"], NodeValue::Node(version)),
    field('V', "CLUSTER", &["cluster"], NodeValue::Partition(not_applicable)),
    field('w', "WEIGHT", &["weight"], NodeValue::Range(weight, Spread::Plus)),
    field('X', "SOCKETS", &["sockets"], NodeValue::Range(sockets, Spread::Plus)),
    field('Y', "CORES", &["cores"], NodeValue::Range(cores, Spread::Plus)),
    field('Z', "THREADS", &["threads"], NodeValue::Range(threads, Spread::Plus)),
    field('z', "S:C:T", &["socketcorethread"], NodeValue::Group(geometry)),
    named("ALLOCMEM", &["allocmem"], NodeValue::Node(allocated_memory)),
    named("COMMENT", &["comment"], NodeValue::Node(comment)),
    named("EXTRA", &["extra"], NodeValue::Partition(unset)),
    named("GRES_USED", &["gresused"], NodeValue::Node(gres_used)),
    named("PORT", &["port"], NodeValue::Partition(zero)),
    named("STATECOMPLETE", &["statecomplete"], NodeValue::Node(state_complete)),
];

/// The field of a letter of `-o`.
pub(crate) fn node_by_letter(letter: char) -> Option<&'static NodeField> {
    FIELDS.iter().find(|field| field.letter == Some(letter))
}

/// The field of a name of `-O`, in lower case.
pub(crate) fn node_by_long_name(name: &str) -> Option<&'static NodeField> {
    FIELDS.iter().find(|field| field.long.contains(&name))
}

impl NodeField {
    /// Whether it shows which partition a line is about.
    pub(crate) fn names_partition(&self) -> bool {
        matches!(self.letter, Some('P' | 'R'))
    }

    /// Appends the value for a group; `n/a` where it has no node.
    pub(crate) fn push(&self, out: &mut String, group: &NodeGroup<'_>, render: &Render<'_>) {
        match (self.value, group.nodes.first()) {
            (NodeValue::Partition(value), _) => render.push(out, &value(&group.partition)),
            (NodeValue::Group(value), _) => render.push(out, &value(group)),
            (NodeValue::Node(value), Some(node)) => render.push(out, &value(node)),
            (NodeValue::Range(size, spread), Some(_)) => {
                let sizes = group.nodes.iter().map(size);
                out.push_str(&range_text(sizes, spread, u64::to_string));
            }
            (NodeValue::Load, Some(_)) => push_load(out, group),
            (NodeValue::Node(_), None) => out.push_str("n/a"),
            (NodeValue::Range(..) | NodeValue::Load, None) => out.push('0'),
        }
    }
}

/// The least, and behind it that there are others.
fn range_text(
    sizes: impl Iterator<Item = u64>,
    spread: Spread,
    show: impl Fn(&u64) -> String,
) -> String {
    let (mut least, mut most) = (u64::MAX, 0);
    for size in sizes {
        (least, most) = (least.min(size), most.max(size));
    }
    match spread {
        _ if least >= most => show(&most),
        Spread::Plus => format!("{}+", show(&least)),
        Spread::Dash => format!("{}-{}", show(&least), show(&most)),
    }
}

fn push_load(out: &mut String, group: &NodeGroup<'_>) {
    let loads: Vec<u64> =
        group.nodes.iter().filter_map(|node| node.info.load_centi.map(u64::from)).collect();
    if loads.is_empty() {
        out.push_str("N/A");
        return;
    }
    let show = |centi: &u64| format!("{}.{:02}", centi / 100, centi % 100);
    out.push_str(&range_text(loads.into_iter(), Spread::Dash, show));
}

// Of the node.

fn cpus(node: &NodeRow<'_>) -> u64 {
    node.inventory.cpus.into()
}

fn memory(node: &NodeRow<'_>) -> u64 {
    node.inventory.memory_mib
}

fn tmp_disk(node: &NodeRow<'_>) -> u64 {
    node.inventory.tmp_disk_mib
}

fn free_memory(node: &NodeRow<'_>) -> u64 {
    node.free_memory().unwrap_or(0)
}

fn weight(node: &NodeRow<'_>) -> u64 {
    node.info.weight.into()
}

fn sockets(node: &NodeRow<'_>) -> u64 {
    node.inventory.sockets.into()
}

fn cores(node: &NodeRow<'_>) -> u64 {
    node.inventory.cores_per_socket.into()
}

fn threads(node: &NodeRow<'_>) -> u64 {
    node.inventory.threads_per_core.into()
}

fn allocated_memory<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::number(node.info.memory_allocated_mib)
}

fn reason<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::word(node.reason().map_or("none", |reason| reason.text))
}

fn reason_time<'a>(node: &NodeRow<'a>) -> Value<'a> {
    match node.reason() {
        Some(reason) if reason.since_ms != 0 => Value::Time(reason.since_ms),
        Some(_) | None => Value::word("Unknown"),
    }
}

fn reason_user<'a>(node: &NodeRow<'a>) -> Value<'a> {
    match node.reason() {
        None => Value::word("Unknown"),
        Some(reason) if reason.user.is_empty() => Value::number(reason.uid),
        Some(reason) => Value::word(reason.user),
    }
}

fn reason_user_long<'a>(node: &NodeRow<'a>) -> Value<'a> {
    match node.reason() {
        None => Value::word("Unknown"),
        Some(reason) => Value::Word(Cow::Owned(format!("{}({})", reason.user, reason.uid))),
    }
}

fn gres<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::Text(Cow::Owned(node.gres_text()))
}

fn gres_used<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::Text(Cow::Owned(node.gres_used_text()))
}

fn hostname<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::word(node.hostname())
}

fn address<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::word(node.address())
}

fn version<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::OrNa(Cow::Borrowed(&node.inventory.version))
}

fn comment<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::text(node.comment())
}

fn state_compact<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(node.status().sinfo_compact()))
}

fn state_long<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(node.status().sinfo_long().to_lowercase()))
}

fn state_complete<'a>(node: &NodeRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(node.status().to_string().to_lowercase()))
}

// Of the partition.

fn partition<'a>(partition: &PartitionRow<'a>) -> Value<'a> {
    Value::Word(partition.marked_name())
}

fn partition_name<'a>(partition: &PartitionRow<'a>) -> Value<'a> {
    Value::word(&partition.info.name)
}

fn job_factor<'a>(partition: &PartitionRow<'a>) -> Value<'a> {
    Value::number(partition.info.priority_job_factor)
}

fn tier<'a>(partition: &PartitionRow<'a>) -> Value<'a> {
    Value::number(partition.info.priority_tier)
}

fn root<'a>(partition: &PartitionRow<'a>) -> Value<'a> {
    Value::word(if partition.info.root_only { "yes" } else { "no" })
}

fn preempt_mode<'a>(row: &PartitionRow<'a>) -> Value<'a> {
    let mode = row.info.preempt_mode.as_str();
    Value::word(if mode.is_empty() { "OFF" } else { mode })
}

fn all<'a>(_: &PartitionRow<'a>) -> Value<'a> {
    Value::word("all")
}

fn not_applicable<'a>(_: &PartitionRow<'a>) -> Value<'a> {
    Value::word("N/A")
}

fn unset<'a>(_: &PartitionRow<'a>) -> Value<'a> {
    Value::word("(null)")
}

fn zero<'a>(_: &PartitionRow<'a>) -> Value<'a> {
    Value::Number(0)
}

// Of the group.

/// Allocated, idle, other.
fn count_nodes(group: &NodeGroup<'_>) -> (usize, usize, usize) {
    let used = group.nodes.iter().filter(|node| node.is_in_use()).count();
    let idle = group.nodes.iter().filter(|node| !node.is_in_use() && node.is_usable()).count();
    (used, idle, group.nodes.len() - used - idle)
}

fn node_count<'a>(group: &NodeGroup<'a>) -> Value<'a> {
    Value::number(group.nodes.len() as u64)
}

fn nodes_ai<'a>(group: &NodeGroup<'a>) -> Value<'a> {
    let (used, idle, _) = count_nodes(group);
    Value::Word(Cow::Owned(format!("{used}/{idle}")))
}

fn nodes_aiot<'a>(group: &NodeGroup<'a>) -> Value<'a> {
    let (used, idle, other) = count_nodes(group);
    Value::Word(Cow::Owned(format!("{used}/{idle}/{other}/{}", group.nodes.len())))
}

fn cpus_aiot<'a>(group: &NodeGroup<'a>) -> Value<'a> {
    let (mut used, mut idle, mut other, mut total) = (0_u64, 0_u64, 0_u64, 0_u64);
    for node in &group.nodes {
        let all = cpus(node);
        let taken = u64::from(node.info.cpus_allocated).min(all);
        total += all;
        used += taken;
        if node.is_usable() {
            idle += all - taken;
        } else {
            other += all - taken;
        }
    }
    Value::Word(Cow::Owned(format!("{used}/{idle}/{other}/{total}")))
}

fn nodelist<'a>(group: &NodeGroup<'a>) -> Value<'a> {
    let names = group.nodes.iter().map(|node| node.node.name.as_str());
    Value::Word(Cow::Owned(penstock_vocab::compress(names)))
}

/// `2:8:1`, each with `+` where the nodes differ.
fn geometry<'a>(group: &NodeGroup<'a>) -> Value<'a> {
    let part = |size: fn(&NodeRow<'_>) -> u64| {
        range_text(group.nodes.iter().map(size), Spread::Plus, u64::to_string)
    };
    Value::Word(Cow::Owned(format!("{}:{}:{}", part(sockets), part(cores), part(threads))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_of_all_is_a_field() {
        for letter in NODE_ALL_LETTERS.chars() {
            assert!(node_by_letter(letter).is_some(), "{letter}");
        }
        assert!(node_by_letter('i').is_none());
    }

    #[test]
    fn sizes_that_differ_are_told() {
        let text =
            |sizes: &[u64], spread| range_text(sizes.iter().copied(), spread, u64::to_string);
        assert_eq!(text(&[4, 4], Spread::Plus), "4");
        assert_eq!(text(&[8, 4], Spread::Plus), "4+");
        assert_eq!(text(&[8, 4], Spread::Dash), "4-8");
        assert_eq!(text(&[], Spread::Dash), "0");
    }
}
