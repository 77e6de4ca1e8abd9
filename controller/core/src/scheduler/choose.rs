//! Which of many nodes does a job take together?
//!
//! The fewest that serve, light ones first. Where the cluster has switches or blocks, those under the
//! lowest common one: of all blocks and subtrees in which the job fits, the one with the fewest
//! usable nodes (best fit, as Slurm's topology/tree and Kueue's topology-aware scheduling choose),
//! and within it the fewest leaves. A constraint's counts and matching set hold for the whole choice.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::demand::Demand;
use super::fit::Candidate;
use super::quota::Quota;
use super::topology::NOWHERE;

/// Sets of nodes by weight that are tried apart; beyond it the rest is one set.
const MAX_TIERS: usize = 8;

/// Chooses from nodes that all may take part; `None` if no choice serves. Cost: a few sorts.
pub(super) fn choose(candidates: &[Candidate], demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    let open = |node: &&Candidate| node.is_open_to(demand);
    let candidates: Vec<_> = candidates.iter().filter(open).copied().collect();
    let constraint = &demand.shape.constraint;
    if constraint.options() == 0 {
        return choose_near(candidates, demand);
    }
    (0..constraint.options()).find_map(|option| {
        let has = |node: &&Candidate| node.marks.options & 1 << option != 0;
        choose_near(candidates.iter().filter(has).copied().collect(), demand)
    })
}

fn choose_near(candidates: Vec<Candidate>, demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    if !Sum::of(&candidates).serves(demand) {
        return None;
    }
    if demand.site.tree().is_empty() {
        return select(candidates, demand);
    }
    let mut tiers: Vec<_> = candidates.iter().map(Candidate::tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let last = tiers.last().copied()?;
    tiers.truncate(MAX_TIERS);
    tiers.push(last);
    tiers.dedup();
    tiers.into_iter().find_map(|tier| {
        let light = |node: &&Candidate| node.required || node.tier() <= tier;
        let nodes: Vec<_> = candidates.iter().filter(light).copied().collect();
        if Sum::of(&nodes).serves(demand) { nearest(&nodes, demand) } else { None }
    })
}

/// What nodes come to.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    nodes: u64,
    tasks: u64,
    gpus: u64,
    required: u64,
}

impl Sum {
    fn of<'a>(nodes: impl IntoIterator<Item = &'a Candidate>) -> Self {
        let mut sum = Self::default();
        nodes.into_iter().for_each(|node| sum.add(node));
        sum
    }

    fn add(&mut self, node: &Candidate) {
        self.nodes += 1;
        self.tasks += u64::from(node.tasks);
        self.gpus = self.gpus.saturating_add(node.gpus_free);
        self.required += u64::from(node.required);
    }

    fn join(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.tasks += other.tasks;
        self.gpus = self.gpus.saturating_add(other.gpus);
        self.required += other.required;
    }

    /// Whether so much could serve. Not more than that: most nodes and counts are not looked at.
    fn serves(&self, demand: &Demand<'_>) -> bool {
        self.nodes >= u64::from(demand.nodes_min)
            && self.tasks >= u64::from(demand.tasks)
            && self.gpus >= demand.gpu_count()
            && self.required >= demand.shape.required.len() as u64
    }

    /// How much of what is scarce for this job.
    fn room(&self, demand: &Demand<'_>) -> u64 {
        if demand.nodes_min == demand.nodes_max {
            self.nodes
        } else if demand.gpu_count() > 0 {
            self.gpus
        } else {
            self.tasks
        }
    }
}

/// A part of the cluster whose nodes are near to each other.
#[derive(Debug, Clone, Copy)]
enum Domain {
    Block(u32),
    /// Leaves from the first to before the last.
    Leaves(u32, u32),
    Whole,
}

impl Domain {
    fn holds(self, node: &Candidate) -> bool {
        match self {
            Self::Block(block) => node.spot.block == block,
            Self::Leaves(first, end) => (first..end).contains(&node.spot.leaf),
            Self::Whole => true,
        }
    }
}

/// Chooses in the smallest domain that serves.
fn nearest(candidates: &[Candidate], demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    for domain in domains(candidates, demand) {
        let inside = candidates.iter().filter(|node| domain.holds(node)).copied();
        if let Some(found) = select_within(inside.collect(), demand) {
            return Some(found);
        }
    }
    few_leaves(candidates, demand)
}

/// Blocks, then switches, then all: those where enough is free, the smallest first.
fn domains(candidates: &[Candidate], demand: &Demand<'_>) -> Vec<Domain> {
    let tree = demand.site.tree();
    let mut found = Vec::new();
    let mut blocks = vec![Sum::default(); tree.blocks as usize];
    // What the leaves before each come to.
    let mut leaves = vec![Sum::default(); tree.leaves as usize + 1];
    for node in candidates {
        if let Some(sum) = blocks.get_mut(node.spot.block as usize) {
            sum.add(node);
        }
        if node.spot.leaf < tree.leaves {
            leaves[node.spot.leaf as usize + 1].add(node);
        }
    }
    for at in 1..leaves.len() {
        let before = leaves[at - 1];
        leaves[at].join(before);
    }
    for (block, sum) in (0..).zip(&blocks) {
        if sum.serves(demand) {
            found.push((0, sum.nodes, Domain::Block(block)));
        }
    }
    for range in &tree.switches {
        let (before, end) = (leaves[range.start as usize], leaves[range.end as usize]);
        let sum = Sum {
            nodes: end.nodes - before.nodes,
            tasks: end.tasks - before.tasks,
            gpus: end.gpus.saturating_sub(before.gpus),
            required: end.required - before.required,
        };
        if sum.serves(demand) {
            found.push((1, sum.nodes, Domain::Leaves(range.start, range.end)));
        }
    }
    // Stable: of equally large ones the first of the configuration, the lower before the higher.
    found.sort_by_key(|(kind, nodes, _)| (*kind, *nodes));
    let all = std::iter::once(Domain::Whole);
    found.into_iter().map(|(_, _, domain)| domain).chain(all).collect()
}

/// Chooses by the fewest leaves and blocks, or as if there were none; within the switches allowed.
fn select_within(mut nodes: Vec<Candidate>, demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    let leaves = fullest_first(&nodes, demand, |node| node.spot.leaf);
    let blocks = fullest_first(&nodes, demand, |node| node.spot.block);
    let place = |order: &BTreeMap<u32, usize>, at: u32| order.get(&at).copied().unwrap_or(0);
    nodes.sort_by_cached_key(|node| {
        let near = (place(&leaves, node.spot.leaf), place(&blocks, node.spot.block));
        (!node.required, near, node.many_order(demand))
    });
    let near = take_first(&nodes, demand).filter(|found| within_switches(found, demand));
    near.or_else(|| select(nodes, demand).filter(|found| within_switches(found, demand)))
}

/// In which order leaves (or blocks) are used: what takes all that is left goes to the smallest that
/// can, else to the largest, so that few are used and large holes are kept.
fn fullest_first(
    nodes: &[Candidate],
    demand: &Demand<'_>,
    group: impl Fn(&Candidate) -> u32,
) -> BTreeMap<u32, usize> {
    let mut sums: BTreeMap<u32, Sum> = BTreeMap::new();
    for node in nodes {
        sums.entry(group(node)).or_default().add(node);
    }
    let needed = Sum {
        nodes: u64::from(demand.nodes_min),
        tasks: u64::from(demand.tasks),
        gpus: demand.gpu_count(),
        required: 0,
    };
    let mut left = needed.room(demand);
    // Nodes that stand nowhere are as far from each other as can be.
    let mut groups: Vec<_> = sums
        .iter()
        .map(|(at, sum)| (*at == NOWHERE, sum.required == 0, sum.room(demand), *at))
        .collect();
    groups.sort_unstable_by_key(|(nowhere, free, room, at)| (*nowhere, *free, *room, *at));
    let mut order = BTreeMap::new();
    while !groups.is_empty() {
        let (nowhere, free, ..) = groups[0];
        // Those of equal rank stand side by side, the smallest first.
        let equal = groups.partition_point(|group| (group.0, group.1) <= (nowhere, free));
        let enough = groups[..equal].partition_point(|group| group.2 < left);
        let next = if left == 0 { 0 } else { enough.min(equal - 1) };
        let (_, _, room, at) = groups.remove(next);
        left = left.saturating_sub(room);
        order.insert(at, order.len());
    }
    order
}

/// As many leaves as are allowed, by whatever they have most of.
fn few_leaves(candidates: &[Candidate], demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    let most = demand.switch_limit? as usize;
    let mut sums: BTreeMap<u32, Sum> = BTreeMap::new();
    for node in candidates.iter().filter(|node| node.spot.leaf != NOWHERE) {
        sums.entry(node.spot.leaf).or_default().add(node);
    }
    let measures: [fn(&Sum) -> u64; 3] = [|sum| sum.tasks, |sum| sum.nodes, |sum| sum.gpus];
    measures.into_iter().find_map(|measure| {
        let mut leaves: Vec<_> = sums.iter().collect();
        leaves.sort_by_key(|(_, sum)| (Reverse(sum.required), Reverse(measure(sum))));
        leaves.truncate(most);
        let among = |node: &&Candidate| leaves.iter().any(|(leaf, _)| **leaf == node.spot.leaf);
        select(candidates.iter().filter(among).copied().collect(), demand)
    })
}

fn within_switches(chosen: &[Candidate], demand: &Demand<'_>) -> bool {
    demand.switch_limit.is_none_or(|most| {
        // One node is one switch, wherever it stands.
        let leaves = leaves_of(chosen.iter().map(|node| node.spot.leaf));
        chosen.len() == 1 || leaves.is_some_and(|leaves| leaves <= most)
    })
}

/// How many leaf switches these are; `None` if a node is under none.
pub(super) fn leaves_of(leaves: impl Iterator<Item = u32>) -> Option<u32> {
    let mut leaves: Vec<_> = leaves.collect();
    leaves.sort_unstable();
    leaves.dedup();
    (!leaves.contains(&NOWHERE)).then(|| u32::try_from(leaves.len()).unwrap_or(u32::MAX))
}

/// Chooses whatever stands where.
fn select(mut nodes: Vec<Candidate>, demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    // Required nodes first, then the light ones, then those that take most.
    nodes.sort_unstable_by_key(|node| (!node.required, node.many_order(demand)));
    if let Some(found) = take_first(&nodes, demand) {
        return Some(found);
    }
    // A count of nodes that the preferred ones are too small for: then the largest.
    nodes.sort_unstable_by_key(|node| {
        (!node.required, Reverse(node.gpus_free), Reverse(node.tasks), node.rank)
    });
    if let Some(found) = take_first(&nodes, demand) {
        return Some(found);
    }
    nodes.sort_unstable_by_key(|node| {
        (!node.required, Reverse(node.tasks), Reverse(node.gpus_free), node.rank)
    });
    take_first(&nodes, demand)
}

/// Takes nodes in their order until they serve: those that a constraint counts, and then others.
fn take_first(nodes: &[Candidate], demand: &Demand<'_>) -> Option<Vec<Candidate>> {
    let least = (demand.nodes_min as usize).max(demand.shape.required.len());
    let most = demand.nodes_max.min(demand.tasks) as usize;
    let mut quota = Quota::new(&demand.shape.constraint);
    let counted: Vec<bool> =
        nodes.iter().map(|node| !quota.is_met() && quota.offer(node.marks.counts)).collect();
    if !quota.is_met() {
        return None;
    }
    let with = |wanted: bool| {
        let both = nodes.iter().zip(&counted);
        both.filter(move |(_, counted)| **counted == wanted).map(|(node, _)| node)
    };
    let mut chosen: Vec<Candidate> = with(true).copied().collect();
    let mut sum = Sum::of(&chosen);
    let full = |chosen: &[Candidate], sum: &Sum| chosen.len() >= least && sum.serves(demand);
    for node in with(false) {
        if full(&chosen, &sum) || chosen.len() >= most {
            break;
        }
        chosen.push(*node);
        sum.add(node);
    }
    (chosen.len() <= most && full(&chosen, &sum)).then_some(chosen)
}
