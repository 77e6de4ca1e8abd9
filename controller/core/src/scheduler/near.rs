//! Which of a node's free devices, and which CPUs, does a job get?
//!
//! Several GPUs are taken as near to each other as can be (`NVLinks` first, then the way on PCIe), and
//! among equally near ones those that are furthest from what stays free, so that groups stay whole. Up
//! to [`MOST_TRIED`] sets all are tried, beyond that one grows around each GPU. Slices come from the
//! GPU that has fewest of them left, shards from one GPU alone, the fullest that will do. CPUs come
//! first from those near the chosen GPUs.

use fixedbitset::FixedBitSet;

use super::units::busy;
use crate::model::{GPU, Gpu, GresShare, Inventory, Node, NodeUse, SHARD};

/// Sets of GPUs that are tried one by one: all fours of eight are 70, all eights of sixteen 12,870.
const MOST_TRIED: u64 = 2_000;

/// Free units of a resource that one job can have at once. `at`: its place in the inventory.
pub(super) fn units_free(node: &Node, used: &NodeUse, at: usize) -> u64 {
    let Some(have) = node.inventory.gres.get(at) else { return 0 };
    if have.name.name() == SHARD {
        let free = free_units(node, used, at, &[]);
        return by_gpu(&node.inventory, at, &free)
            .iter()
            .map(|(_, ids)| ids.len() as u64)
            .max()
            .unwrap_or(0);
    }
    have.count.saturating_sub(super::units::busy_count(node, used, at))
}

/// Picks so many units, none of `mine`; fewer where fewer are free. Ascending.
pub(super) fn pick_units(
    node: &Node,
    used: &NodeUse,
    at: usize,
    count: usize,
    mine: &[u32],
) -> Box<[u32]> {
    let inventory = &node.inventory;
    let free = free_units(node, used, at, mine);
    let name = inventory.gres.get(at).map_or("", |have| have.name.name());
    let mut ids = match name {
        SHARD => fullest(inventory, at, &free, count),
        GPU if inventory.gpus.is_empty() || count >= free.len() => lowest(&free, count),
        GPU => pick_gpus(inventory, at, &free, count),
        _ => lowest(&free, count),
    };
    ids.sort_unstable();
    ids.into()
}

fn free_units(node: &Node, used: &NodeUse, at: usize, mine: &[u32]) -> Vec<u32> {
    let busy = busy(node, used, at);
    let count = node.inventory.gres.get(at).map_or(0, |have| have.count);
    let all = 0..u32::try_from(count).unwrap_or(u32::MAX);
    all.filter(|id| !busy.contains(*id as usize) && !mine.contains(id)).collect()
}

fn lowest(free: &[u32], count: usize) -> Vec<u32> {
    free.iter().copied().take(count).collect()
}

/// Units by the GPU that they are on, in its order.
fn by_gpu(inventory: &Inventory, at: usize, units: &[u32]) -> Vec<(usize, Vec<u32>)> {
    let mut groups: Vec<(usize, Vec<u32>)> = Vec::new();
    for id in units {
        let gpu = inventory.gpu_place(at, *id).unwrap_or(0);
        match groups.iter_mut().find(|(place, _)| *place == gpu) {
            Some((_, ids)) => ids.push(*id),
            None => groups.push((gpu, vec![*id])),
        }
    }
    groups
}

/// Shards of one GPU: the one with the fewest left that will do, else as many as one has.
fn fullest(inventory: &Inventory, at: usize, free: &[u32], count: usize) -> Vec<u32> {
    let groups = by_gpu(inventory, at, free);
    let serves = groups.iter().filter(|(_, ids)| ids.len() >= count);
    let best = serves.min_by_key(|(_, ids)| ids.len());
    let best = best.or_else(|| groups.iter().max_by_key(|(_, ids)| ids.len()));
    best.map(|(_, ids)| lowest(ids, count)).unwrap_or_default()
}

fn pick_gpus(inventory: &Inventory, at: usize, free: &[u32], count: usize) -> Vec<u32> {
    let name = &inventory.gres[at].name;
    let devices: Vec<_> = inventory.devices(name).collect();
    let of = |id: u32| devices.get(id as usize).copied();
    if free.iter().any(|id| of(*id).is_none_or(|device| device.slice.is_some())) {
        let mut groups = by_gpu(inventory, at, free);
        groups.sort_by_key(|(_, ids)| ids.len());
        return groups.into_iter().flat_map(|(_, ids)| ids).take(count).collect();
    }
    let gpus: Vec<&Gpu> = free.iter().filter_map(|id| of(*id)).map(|device| device.gpu).collect();
    if gpus.iter().all(|gpu| gpu.links.is_empty()) {
        return lowest(free, count);
    }
    nearest(&Distances::of(&gpus), count).into_iter().map(|place| free[place]).collect()
}

/// How far each of some GPUs is from each.
struct Distances {
    count: usize,
    between: Vec<u32>,
}

impl Distances {
    fn of(gpus: &[&Gpu]) -> Self {
        let between = gpus.iter().flat_map(|gpu| {
            // A link that only one side knows counts too.
            gpus.iter().map(|peer| gpu.distance(peer.index).min(peer.distance(gpu.index)))
        });
        Self { count: gpus.len(), between: between.collect() }
    }

    fn get(&self, a: usize, b: usize) -> u64 {
        u64::from(self.between[a * self.count + b])
    }

    /// The smaller, the better: how far the chosen are apart, then how near they are to the rest.
    fn cost(&self, chosen: &[usize]) -> (u64, std::cmp::Reverse<u64>) {
        let (mut inside, mut outside) = (0, 0);
        for (nth, a) in chosen.iter().enumerate() {
            inside += chosen[..nth].iter().map(|b| self.get(*a, *b)).sum::<u64>();
            let rest = (0..self.count).filter(|b| !chosen.contains(b));
            outside += rest.map(|b| self.get(*a, b)).sum::<u64>();
        }
        (inside, std::cmp::Reverse(outside))
    }
}

/// The best set of so many places; of equal ones the lowest.
fn nearest(distances: &Distances, count: usize) -> Vec<usize> {
    if choices(distances.count, count) > MOST_TRIED {
        return grown(distances, count);
    }
    let mut set: Vec<usize> = (0..count).collect();
    let mut best = (distances.cost(&set), set.clone());
    while next_set(&mut set, distances.count) {
        let cost = distances.cost(&set);
        if cost < best.0 {
            best = (cost, set.clone());
        }
    }
    best.1
}

/// Grows a set around each GPU by the nearest next one; the best of these.
fn grown(distances: &Distances, count: usize) -> Vec<usize> {
    let around = |first: usize| {
        let mut set = vec![first];
        while set.len() < count {
            let rest = (0..distances.count).filter(|place| !set.contains(place));
            let far = |place: &usize| set.iter().map(|a| distances.get(*a, *place)).sum::<u64>();
            let Some(next) = rest.min_by_key(far) else { break };
            set.push(next);
        }
        set
    };
    let sets = (0..distances.count).map(around);
    sets.min_by_key(|set| distances.cost(set)).unwrap_or_default()
}

/// The next set in order of its places; false after the last.
fn next_set(set: &mut [usize], of: usize) -> bool {
    let count = set.len();
    let Some(at) = (0..count).rev().find(|at| set[*at] < of - count + at) else { return false };
    set[at] += 1;
    for later in at + 1..count {
        set[later] = set[later - 1] + 1;
    }
    true
}

/// How many sets there are; [`u64::MAX`] where that is beyond counting.
fn choices(of: usize, count: usize) -> u64 {
    let mut all = 1u64;
    for step in 0..count.min(of - count.min(of)) as u64 {
        let Some(more) = all.checked_mul(of as u64 - step) else { return u64::MAX };
        all = more / (step + 1);
    }
    all
}

/// Picks so many GPUs on each of so many sockets, none of `mine`: on those with the fewest left.
/// GPUs of which the socket is not known are on one of their own. `None`: too few sockets have them.
pub(super) fn pick_on_sockets(
    node: &Node,
    used: &NodeUse,
    at: usize,
    (each, sockets): (usize, usize),
    mine: &[u32],
) -> Option<Box<[u32]>> {
    let inventory = &node.inventory;
    let mut groups: Vec<(Option<u32>, Vec<u32>)> = Vec::new();
    for id in free_units(node, used, at, mine) {
        let gpu = inventory.gpu_place(at, id).and_then(|place| inventory.gpus.get(place));
        let socket = gpu.and_then(|gpu| gpu.numa);
        match groups.iter_mut().find(|(known, _)| *known == socket) {
            Some((_, ids)) => ids.push(id),
            None => groups.push((socket, vec![id])),
        }
    }
    groups.retain(|(_, ids)| ids.len() >= each);
    groups.sort_by_key(|(socket, ids)| (ids.len(), *socket));
    if groups.len() < sockets {
        return None;
    }
    let chosen = groups.into_iter().take(sockets);
    let mut ids: Vec<u32> = chosen.flat_map(|(_, ids)| ids.into_iter().take(each)).collect();
    ids.sort_unstable();
    Some(ids.into())
}

/// CPUs near the GPUs of these shares, in whole cores; empty: unknown, or no GPU.
pub(super) fn near_cpus(inventory: &Inventory, shares: &[GresShare]) -> FixedBitSet {
    let mut near = FixedBitSet::new();
    if inventory.gpus.is_empty() {
        return near;
    }
    let ids = shares.iter().flat_map(|share| share.ids.iter().map(move |id| (&share.name, *id)));
    let devices = ids.filter_map(|(name, id)| inventory.device(name, id));
    for (first, last) in devices.flat_map(|device| &device.gpu.cpus) {
        let end = last.saturating_add(1).min(inventory.cpus);
        if *first < end {
            near.grow(end as usize);
            near.insert_range(*first as usize..end as usize);
        }
    }
    let threads = inventory.threads_per_core.max(1) as usize;
    let whole = |core: usize| (core * threads..(core + 1) * threads).all(|cpu| near.contains(cpu));
    let cores: Vec<usize> = (0..near.len().div_ceil(threads)).filter(|core| whole(*core)).collect();
    near.clear();
    for core in cores {
        near.insert_range(core * threads..(core + 1) * threads);
    }
    near
}

#[cfg(test)]
mod tests {
    use penstock_vocab::GresRequest;

    use super::*;
    use crate::model::{GpuLink, MigMode, MigSlice};

    /// Eight GPUs in two halves; `pairs` of them with `NVLink` between.
    fn node(pairs: &[(u32, u32)]) -> Node {
        let gpu = |index: u32| {
            let link = |peer: u32| {
                let wired = pairs.iter().any(|p| *p == (index, peer) || *p == (peer, index));
                let ancestor = if index / 4 == peer / 4 { 30 } else { 50 };
                GpuLink { peer, nvlinks: if wired { 4 } else { 0 }, ancestor }
            };
            Gpu {
                index,
                kind: "h100".into(),
                links: (0..8).filter(|peer| *peer != index).map(link).collect(),
                cpus: Box::new([if index < 4 { (0, 15) } else { (16, 31) }]),
                ..Gpu::default()
            }
        };
        with_gpus((0..8).map(gpu).collect(), &["gpu:h100:8"])
    }

    fn with_gpus(gpus: Vec<Gpu>, gres: &[&str]) -> Node {
        let gres: Vec<GresRequest> = gres.iter().map(|text| text.parse().unwrap()).collect();
        let mut node = crate::model::Node::named(penstock_vocab::NodeName::new("n1").unwrap());
        node.inventory.cpus = 32;
        node.inventory.threads_per_core = 2;
        node.inventory.gres = gres.into();
        node.inventory.gpus = gpus.into();
        node
    }

    fn used(at: usize, ids: &[usize]) -> NodeUse {
        let mut used = NodeUse::default();
        used.gres.resize_with(at + 1, FixedBitSet::new);
        ids.iter().for_each(|id| used.gres[at].grow_and_insert(*id));
        used
    }

    #[test]
    fn gpus_of_one_job_are_near_each_other_and_leave_groups_whole() {
        let halves = node(&[]);
        let pairs = node(&[(0, 5), (1, 4), (2, 3), (6, 7)]);
        for (node, taken, count, expect) in [
            (&halves, &[][..], 4, &[0, 1, 2, 3][..]),
            // The half that is broken already is used up first.
            (&halves, &[0], 1, &[1]),
            (&halves, &[0], 3, &[1, 2, 3]),
            (&halves, &[0], 4, &[4, 5, 6, 7]),
            (&halves, &[0, 1, 4], 2, &[2, 3]),
            (&pairs, &[], 2, &[2, 3]),
            (&pairs, &[2, 6], 2, &[0, 5]),
            // Whose partner is taken goes first.
            (&pairs, &[7], 1, &[6]),
            (&pairs, &[], 8, &[0, 1, 2, 3, 4, 5, 6, 7]),
        ] {
            let ids = pick_units(node, &used(0, taken), 0, count, &[]);
            assert_eq!(&*ids, expect, "{taken:?} {count}");
        }
    }

    #[test]
    fn growing_finds_groups_too() {
        let halves = node(&[]);
        let gpus: Vec<&Gpu> = halves.inventory.gpus.iter().collect();
        let distances = Distances::of(&gpus);
        let mut set = grown(&distances, 4);
        set.sort_unstable();
        assert_eq!(set, [0, 1, 2, 3]);
        assert_eq!(choices(16, 8), 12_870);
        assert_eq!(choices(8, 0), 1);
    }

    #[test]
    fn slices_come_from_the_gpu_with_fewest_left() {
        let slice = |start| MigSlice { profile: "1g.10gb".into(), start, ..MigSlice::default() };
        let cut = |index| Gpu {
            index,
            mig: MigMode::On,
            slices: (0..3).map(slice).collect(),
            ..Gpu::default()
        };
        let node = with_gpus(vec![cut(0), cut(1)], &["gpu:1g.10gb:6"]);
        assert_eq!(&*pick_units(&node, &used(0, &[3]), 0, 1, &[]), [4]);
        assert_eq!(&*pick_units(&node, &used(0, &[3]), 0, 3, &[]), [0, 4, 5]);
    }

    #[test]
    fn shards_come_from_one_gpu_and_never_from_one_that_is_held() {
        let whole = |index| Gpu { index, kind: "h100".into(), ..Gpu::default() };
        let node = with_gpus(vec![whole(0), whole(1)], &["gpu:h100:2", "shard:8"]);
        let idle = NodeUse::default();
        assert_eq!(units_free(&node, &idle, 1), 4);
        assert_eq!(&*pick_units(&node, &idle, 1, 2, &[]), [0, 1]);
        // GPU 0 is held whole.
        let held = used(0, &[0]);
        assert_eq!(&*pick_units(&node, &held, 1, 2, &[]), [4, 5]);
        // A shard of GPU 0 is taken: it can't be had whole, and is shared further.
        let shared = used(1, &[1]);
        assert_eq!(units_free(&node, &shared, 0), 1);
        assert_eq!(&*pick_units(&node, &shared, 1, 2, &[]), [0, 2]);
        assert_eq!(&*pick_units(&node, &shared, 1, 4, &[]), [4, 5, 6, 7]);
        assert_eq!(&*pick_units(&node, &shared, 0, 1, &[]), [1]);
    }

    #[test]
    fn sockets_give_as_many_as_each_is_asked_for() {
        let gpu = |index: u32| Gpu { index, numa: Some(index / 4), ..Gpu::default() };
        let node = with_gpus((0..8).map(gpu).collect(), &["gpu:8"]);
        let pick = |taken: &[usize], each, sockets| {
            pick_on_sockets(&node, &used(0, taken), 0, (each, sockets), &[])
        };
        assert_eq!(pick(&[0], 2, 2).as_deref(), Some(&[1, 2, 4, 5][..]));
        assert_eq!(pick(&[4, 5], 1, 1).as_deref(), Some(&[6][..]));
        assert_eq!(pick(&[0, 1, 2], 2, 2), None);
        assert_eq!(pick(&[], 1, 3), None);
    }

    #[test]
    fn cpus_near_the_gpus_are_known_in_whole_cores() {
        let mut node = node(&[]);
        let share = |ids: &[u32]| GresShare { name: "gpu:h100".parse().unwrap(), ids: ids.into() };
        let near = near_cpus(&node.inventory, &[share(&[5])]);
        assert_eq!((near.minimum(), near.maximum()), (Some(16), Some(31)));
        let mut gpus = node.inventory.gpus.to_vec();
        gpus[5].cpus = Box::new([(17, 19)]);
        node.inventory.gpus = gpus.into();
        let near = near_cpus(&node.inventory, &[share(&[5])]);
        assert_eq!(near.ones().collect::<Vec<_>>(), [18, 19]);
    }
}
