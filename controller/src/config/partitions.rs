//! Which partitions does the file describe?

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::model::{Oversubscribe, PreemptMode};
use toml::de::DeTable;

use penstock_vocab::{Mib, NodeName, PartitionName, TresKind, Walltime, parse_memory};

use super::file::Existing;
use super::lease;
use super::nodes::NodeSection;
use super::pools;
use super::problem::Problems;
use super::scheduling;
use super::section::{Placed, Section};

/// Which nodes a partition has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionNodes {
    /// Every node that there is or will be.
    All,
    /// These, in the file's order, each once; they may join later.
    Named(Vec<NodeName>),
}

/// Whether a partition takes jobs and starts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartitionState {
    /// Takes and starts jobs.
    Up,
    /// Takes jobs and starts none.
    Down,
    /// Takes no job, and starts those that it has.
    Drain,
    /// Neither takes nor starts jobs.
    Inactive,
}

impl PartitionState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Drain, Self::Inactive];

    /// As Slurm spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Drain => "DRAIN",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// One `[[partition]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSection {
    /// Its name; unique. Required.
    pub name: PartitionName,
    /// Whether jobs that name no partition go here. Default: true for the only partition of a file,
    /// else false; at most one.
    pub default: bool,
    /// Its nodes: a hostlist or `ALL`. Default: `ALL`.
    pub nodes: PartitionNodes,
    /// Longest time limit a job may have. Default: `UNLIMITED`.
    pub max_time: Walltime,
    /// Time limit of a job that names none; at most `max_time`. Default: none, `max_time` counts.
    pub default_time: Option<Walltime>,
    /// Fewest nodes of a job. Default: 0.
    pub min_nodes: u32,
    /// Most nodes of a job. Default: none, no limit.
    pub max_nodes: Option<u32>,
    /// Most CPUs that jobs of this partition may use on one node. Default: none, no limit.
    pub max_cpus_per_node: Option<u32>,
    /// Jobs of a higher tier are considered first, whatever their priority. 0..=65533, default 1.
    pub priority_tier: u32,
    /// What the partition adds to a job's priority, by the policy's weight. 0..=65533, default 1.
    pub priority_job_factor: u32,
    /// Unix groups whose members may use it. Default: none, everybody may.
    pub allow_groups: Vec<String>,
    /// Accounts that may use it. Default: none, every account may.
    pub allow_accounts: Vec<String>,
    /// Accounts that may not use it. Excludes `allow_accounts`.
    pub deny_accounts: Vec<String>,
    /// QOS whose jobs it takes. Default: none, all.
    pub allow_qos: Vec<String>,
    /// QOS whose jobs it does not take. Excludes `allow_qos`.
    pub deny_qos: Vec<String>,
    /// QOS whose limits hold for all its jobs, beside those of their own QOS. Default: none.
    pub qos: Option<String>,
    /// What is charged for a job, by kind, in millionths. Default: as `[fairshare] billing` says.
    pub billing: BTreeMap<TresKind, u64>,
    /// What becomes of its jobs when others need their place. Default: as `[preemption]` says.
    pub preempt_mode: Option<PreemptMode>,
    /// Warning before the end of a preempted job, seconds. 0..=one day, default 0.
    pub grace_secs: u32,
    /// Whether a node is shared by the jobs of one user only. Default: false.
    pub exclusive_user: bool,
    /// How many jobs may hold a CPU at a time, 1..=64, and whether all of them share or those that ask
    /// for it. Default: one.
    pub oversubscribe: Oversubscribe,
    /// Whether jobs must name a reservation. Default: false.
    pub require_reservation: bool,
    /// Memory of a job that asks for none, for each CPU. Excludes `def_mem_per_node`.
    pub def_mem_per_cpu: Option<Mib>,
    /// Memory of a job that asks for none, on each node. Excludes `def_mem_per_cpu`.
    pub def_mem_per_node: Option<Mib>,
    /// Most memory for each CPU. Excludes `max_mem_per_node`.
    pub max_mem_per_cpu: Option<Mib>,
    /// Most memory on each node. Excludes `max_mem_per_cpu`.
    pub max_mem_per_node: Option<Mib>,
    /// Whether a job gets whole nodes. Default: false.
    pub exclusive: bool,
    /// Whether listings leave it out unless asked. Default: false.
    pub hidden: bool,
    /// Whether only root may submit to it. Default: false.
    pub root_only: bool,
    /// Whether its runs hold a lease: a node that is cut off ends them by itself, so that they may run
    /// elsewhere once it has been silent for long (`fence = "self"`). Default: false (`"none"`).
    pub fence_self: bool,
    /// Default: `UP`.
    pub state: PartitionState,
}

/// Reads one `[[partition]]`; `None` when it has no usable name.
pub(super) fn read(
    table: &DeTable<'_>,
    at: std::ops::Range<usize>,
    problems: &mut Problems<'_>,
    existing: &Existing<'_>,
) -> Option<(Placed<PartitionSection>, bool)> {
    let mut section = Section::new("[[partition]]", table, at, problems);
    let name = section.parsed("name", "\"main\"", PartitionName::new);
    match &name {
        Some(name) => section.title = format!("[[partition]] {:?}", name.value.as_str()),
        None if !table.contains_key("name") => {
            let at = section.at();
            section.problems.error(&at, "[[partition]] has no name; write name = \"main\" in it");
        }
        None => {}
    }
    let default = section.boolean("default");
    let nodes = section.parsed("nodes", "\"node[1-4]\" or \"ALL\"", parse_nodes);
    let state = section.parsed("state", "\"UP\"", parse_state);
    let oversubscribe = section.parsed("oversubscribe", "\"FORCE:4\"", parse_oversubscribe);
    let fence = section.parsed("fence", "\"self\"", lease::parse_fence);
    let mem = |section: &mut Section<'_, '_, '_>, key| {
        section.parsed_or_number(key, "\"4G\"", parse_memory).map(|size| size.value)
    };
    let (allow_groups, allow_accounts) = read_allowed(&mut section, existing);
    let max_tier = 65_533;
    let partition = PartitionSection {
        // The name is checked below; until then this one stands in, so that all keys are read.
        name: name.as_ref().map_or_else(placeholder, |name| name.value.clone()),
        default: default.as_ref().is_some_and(|flag| flag.value),
        nodes: nodes.map_or(PartitionNodes::All, |nodes| nodes.value),
        max_time: read_time(&mut section, "max_time").unwrap_or(Walltime::Unlimited),
        default_time: read_time(&mut section, "default_time"),
        min_nodes: section.number("min_nodes", 0..=u32::MAX).map_or(0, |n| n.value),
        max_nodes: section.number("max_nodes", 1..=u32::MAX).map(|n| n.value),
        max_cpus_per_node: section.number("max_cpus_per_node", 1..=u32::MAX).map(|n| n.value),
        priority_tier: section.number("priority_tier", 0..=max_tier).map_or(1, |n| n.value),
        priority_job_factor: section
            .number("priority_job_factor", 0..=max_tier)
            .map_or(1, |n| n.value),
        allow_groups,
        allow_accounts,
        deny_accounts: texts(&mut section, "deny_accounts"),
        allow_qos: texts(&mut section, "allow_qos"),
        deny_qos: texts(&mut section, "deny_qos"),
        qos: section.string("qos", "\"normal\"").map(|qos| qos.value),
        billing: scheduling::billing(&mut section, "billing"),
        preempt_mode: scheduling::preempt_mode(&mut section, "preempt_mode"),
        grace_secs: section.number("grace_secs", 0..=86_400).map_or(0, |n| n.value),
        exclusive_user: section.boolean("exclusive_user").is_some_and(|flag| flag.value),
        oversubscribe: oversubscribe.map_or_else(Oversubscribe::default, |found| found.value),
        require_reservation: section.boolean("require_reservation").is_some_and(|flag| flag.value),
        def_mem_per_cpu: mem(&mut section, "def_mem_per_cpu"),
        def_mem_per_node: mem(&mut section, "def_mem_per_node"),
        max_mem_per_cpu: mem(&mut section, "max_mem_per_cpu"),
        max_mem_per_node: mem(&mut section, "max_mem_per_node"),
        exclusive: section.boolean("exclusive").is_some_and(|flag| flag.value),
        hidden: section.boolean("hidden").is_some_and(|flag| flag.value),
        root_only: section.boolean("root_only").is_some_and(|flag| flag.value),
        fence_self: fence.is_some_and(|fence| fence.value),
        state: state.map_or(PartitionState::Up, |state| state.value),
    };
    check_alone(&partition, &mut section);
    section.finish();
    let name = name?;
    Some((Placed { value: partition, at: name.at }, default.is_some()))
}

/// Jobs that may share a CPU where no number is given, as in Slurm.
const SHARING: u32 = 4;
/// Most of them.
const MOST_SHARING: u32 = 64;

/// `NO`, `YES[:count]` or `FORCE[:count]`.
fn parse_oversubscribe(text: &str) -> Result<Oversubscribe, String> {
    let upper = text.to_ascii_uppercase();
    let (word, count) = match upper.split_once(':') {
        Some((word, count)) => (word, Some(count)),
        None => (upper.as_str(), None),
    };
    let jobs = match count.map(str::parse::<u32>) {
        None => SHARING,
        Some(Ok(jobs)) if (1..=MOST_SHARING).contains(&jobs) => jobs,
        Some(_) => return Err(format!("{text:?}: 1 to {MOST_SHARING} jobs may share a CPU")),
    };
    match (word, count) {
        ("NO", None) => Ok(Oversubscribe::default()),
        ("YES", _) => Ok(Oversubscribe { jobs, forced: false }),
        ("FORCE", _) => Ok(Oversubscribe { jobs, forced: true }),
        ("EXCLUSIVE", None) => Err("for whole nodes write exclusive = true".to_owned()),
        _ => Err(format!("{text:?} is none of NO, YES, YES:count, FORCE and FORCE:count")),
    }
}

fn texts(section: &mut Section<'_, '_, '_>, key: &'static str) -> Vec<String> {
    let list = section.strings(key, "[\"physics\"]").map(|list| list.value);
    list.unwrap_or_default().into_iter().map(|text| text.value).collect()
}

fn placeholder() -> PartitionName {
    PartitionName::new("unnamed").expect("plain letters are a name")
}

fn read_time(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Walltime> {
    section.parsed_or_number(key, "\"1-00:00:00\"", str::parse).map(|time| time.value)
}

fn parse_nodes(text: &str) -> Result<PartitionNodes, String> {
    if text.eq_ignore_ascii_case("ALL") {
        return Ok(PartitionNodes::All);
    }
    let names = pools::parse_list(text)?;
    if names.is_empty() {
        return Err("names no node; give a hostlist (node[1-4]) or ALL".to_owned());
    }
    Ok(PartitionNodes::Named(names))
}

fn parse_state(text: &str) -> Result<PartitionState, String> {
    let known = PartitionState::ALL.iter().find(|state| state.name().eq_ignore_ascii_case(text));
    known.copied().ok_or_else(|| format!("{text:?} is no state; give UP, DOWN, DRAIN or INACTIVE"))
}

fn read_allowed(
    section: &mut Section<'_, '_, '_>,
    existing: &Existing<'_>,
) -> (Vec<String>, Vec<String>) {
    let mut lists = [Vec::new(), Vec::new()];
    for (list, key) in lists.iter_mut().zip(["allow_groups", "allow_accounts"]) {
        let Some(items) = section.strings(key, "[\"physics\"]") else { continue };
        if items.value.is_empty() {
            let message = format!(
                "{} {key} is an empty list, which nobody is on; leave the key out to let \
                 everybody in",
                section.title
            );
            section.problems.error(&items.at, message);
        }
        for item in items.value {
            if key == "allow_groups" && !(existing.group)(&item.value) {
                let message = format!(
                    "{} allow_groups: this machine has no group {:?}",
                    section.title, item.value
                );
                section.problems.warning(&item.at, message);
            }
            list.push(item.value);
        }
    }
    let [groups, accounts] = lists;
    (groups, accounts)
}

/// What one partition says against itself.
fn check_alone(partition: &PartitionSection, section: &mut Section<'_, '_, '_>) {
    let mut wrong = |message: String| {
        let at = section.at();
        let message = format!("{} {message}", section.title);
        section.problems.error(&at, message);
    };
    if let Some(default) = partition.default_time.filter(|time| *time > partition.max_time) {
        let max = partition.max_time;
        wrong(format!("default_time {default} is longer than max_time {max}; lower it to {max}"));
    }
    if let Some(max) = partition.max_nodes.filter(|max| *max < partition.min_nodes) {
        let min = partition.min_nodes;
        wrong(format!("min_nodes {min} is more than max_nodes {max}, so no job fits; swap them"));
    }
    if partition.def_mem_per_cpu.is_some() && partition.def_mem_per_node.is_some() {
        wrong("has def_mem_per_cpu and def_mem_per_node; keep one of them".to_owned());
    }
    if partition.max_mem_per_cpu.is_some() && partition.max_mem_per_node.is_some() {
        wrong("has max_mem_per_cpu and max_mem_per_node; keep one of them".to_owned());
    }
    if !partition.allow_accounts.is_empty() && !partition.deny_accounts.is_empty() {
        wrong("has allow_accounts and deny_accounts; keep one of them".to_owned());
    }
    if !partition.allow_qos.is_empty() && !partition.deny_qos.is_empty() {
        wrong("has allow_qos and deny_qos; keep one of them".to_owned());
    }
    let pairs = [
        ("per_cpu", partition.def_mem_per_cpu, partition.max_mem_per_cpu),
        ("per_node", partition.def_mem_per_node, partition.max_mem_per_node),
    ];
    for (per, default, max) in pairs {
        if let (Some(default), Some(max)) = (default, max)
            && default > max
        {
            let (default, max) = (default.to_arg(), max.to_arg());
            wrong(format!(
                "def_mem_{per} {default} is more than max_mem_{per} {max}; lower it to {max}"
            ));
        }
    }
}

/// What the partitions say against each other and the nodes; makes the only one the default.
pub(super) fn check_together(
    partitions: &mut [(Placed<PartitionSection>, bool)],
    nodes: &[Placed<NodeSection>],
    problems: &mut Problems<'_>,
) {
    if let [(only, false)] = partitions {
        only.value.default = true;
    }
    let mut seen: BTreeMap<PartitionName, usize> = BTreeMap::new();
    let mut default: Option<(&PartitionName, usize)> = None;
    let described: BTreeSet<&NodeName> = nodes.iter().flat_map(|node| &node.value.names).collect();
    for (Placed { value: partition, at }, _) in partitions.iter() {
        let name = &partition.name;
        let line = problems.line(at.start);
        if let Some(first) = seen.insert(name.clone(), line) {
            let message = format!(
                "partition {:?} is described twice, first on line {first}; rename or remove one",
                name.as_str()
            );
            problems.error(at, message);
        }
        if partition.default {
            if let Some((first, first_line)) = default {
                let message = format!(
                    "partition {:?} is a second default; {:?} on line {first_line} is one already: \
                     keep default = true in one of them",
                    name.as_str(),
                    first.as_str()
                );
                problems.error(at, message);
            } else {
                default = Some((name, line));
            }
        }
        note_unknown_nodes(partition, at, &described, problems);
    }
    if let (None, Some((first, _))) = (default, partitions.first()) {
        let message = "no partition is the default, so every job must name one with -p; write \
                       default = true in one of them";
        problems.warning(&first.at, message);
    }
}

fn note_unknown_nodes(
    partition: &PartitionSection,
    at: &std::ops::Range<usize>,
    described: &BTreeSet<&NodeName>,
    problems: &mut Problems<'_>,
) {
    let PartitionNodes::Named(names) = &partition.nodes else { return };
    // Where no node is described, all describe themselves when they join.
    if described.is_empty() {
        return;
    }
    let unknown = names.iter().filter(|name| !described.contains(name)).map(NodeName::as_str);
    let unknown = penstock_vocab::compress(unknown);
    if !unknown.is_empty() {
        let message = format!(
            "partition {:?} has {unknown}, which no [[node]] describes; fine if they join later",
            partition.name.as_str()
        );
        problems.note(at, message);
    }
}
