//! Which slots of the GPUs are taken, by whom, and from when until when?
//!
//! In the profile a GPU that is cut is eight slots over time. What runs holds its slices' slots until it
//! ends at the latest; places reserved ahead hold theirs. Room is never a count of slices: it is whether
//! there is a legal placement beside all that is taken within a window. Where a GPU may not be cut (the
//! cluster file leaves it alone, or it rests after a cut) the slices that are there have to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_vocab::Timestamp;

use super::geometry::{Board, Placed, Unused, cheapest_on, mask};
use crate::cluster::{Cluster, held};
use crate::model::{GPU, Gpu, MigMode, Node, NodeIndex, NodeShare, NodeUse};
use crate::scheduler::profile::{NEVER, run_end};

/// Looks at GPUs that one placement on a node may cost.
const MAX_LOOKS: u32 = 2_000;

/// Slots that somebody has for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct Taken {
    /// `i64::MIN`: already.
    pub(in crate::scheduler) from: i64,
    pub(in crate::scheduler) until: i64,
    pub(in crate::scheduler) bits: u8,
    /// Place of its profile in the GPU's list.
    pub(in crate::scheduler) profile: usize,
    /// The GPU is cut for it then.
    pub(in crate::scheduler) cut: bool,
}

/// Where a slice is, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct Place {
    /// Place of the GPU in its node's list.
    pub(in crate::scheduler) gpu: usize,
    pub(in crate::scheduler) placed: Placed,
    /// It is to be made.
    pub(in crate::scheduler) cut: bool,
}

/// How good a placement is; the smaller, the better: changes, capacity lost, slots of its GPUs that are
/// free.
pub(in crate::scheduler) type Cost = (usize, u64, u32);

/// One GPU over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scheduler) struct GpuSlots {
    /// What it is cut into, or is just being cut into.
    layout: Vec<Unused>,
    /// It may be cut from then on; [`NEVER`]: not at all.
    cut_from: i64,
    /// It is given out.
    open: bool,
    taken: Vec<Taken>,
}

/// The GPUs of one node, in the order of its list; `None`: one that is not cut.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduler) struct NodeSlots {
    gpus: Vec<Option<GpuSlots>>,
}

#[derive(Debug, Clone)]
struct Base {
    node: Arc<Node>,
    used: Arc<NodeUse>,
    /// To be made anew then at the latest.
    until: i64,
    slots: NodeSlots,
}

/// The GPUs of all nodes: what runs, kept from plan to plan, and what a plan adds.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduler) struct Slots {
    base: BTreeMap<NodeIndex, Base>,
    changed: BTreeMap<NodeIndex, NodeSlots>,
    /// Profiles that some GPU which may be cut can have.
    profiles: BTreeSet<Box<str>>,
    /// Between two cuts of a GPU, milliseconds.
    settle: i64,
}

impl GpuSlots {
    /// A GPU with nothing taken.
    pub(in crate::scheduler) fn new(node: &Node, gpu: &Gpu, may_be_cut: bool) -> Self {
        let reshape = node.reshape_of(gpu);
        let at = |name: &str| gpu.profiles.iter().position(|profile| *profile.name == *name);
        let unused = |name: &str, start, size| {
            let placed = Placed { profile: at(name).unwrap_or(usize::MAX), start };
            Unused { placed, bits: mask(start, size) }
        };
        let goes = |start: &u32| reshape.is_some_and(|reshape| reshape.destroy.contains(start));
        let stays = gpu.slices.iter().filter(|slice| !goes(&slice.start));
        let comes = reshape.map_or(&[][..], |reshape| &reshape.create);
        let rest = node.trouble.rests.iter().find(|rest| rest.gpu == gpu.index);
        let busy = reshape.map_or(i64::MIN, |reshape| reshape.deadline.0);
        Self {
            layout: stays
                .map(|slice| unused(&slice.profile, slice.start, slice.size))
                .chain(comes.iter().map(|new| unused(&new.profile, new.start, new.size)))
                .collect(),
            cut_from: match may_be_cut {
                true => busy.max(rest.map_or(i64::MIN, |rest| rest.until.0)),
                false => NEVER,
            },
            open: node.gpu_drain(gpu).is_none(),
            taken: Vec::new(),
        }
    }

    /// Adds what somebody has.
    pub(in crate::scheduler) fn take(&mut self, taken: Taken) {
        self.taken.push(taken);
    }

    /// Whether it may be cut at an instant, `settle` being the time between two cuts.
    fn may_be_cut(&self, at: i64, settle: i64) -> bool {
        let apart = |other: &Taken| {
            !other.cut || other.from == at || other.from.abs_diff(at) >= settle.unsigned_abs()
        };
        at >= self.cut_from && self.taken.iter().all(apart)
    }

    /// What is taken from `from` until `until`, and what is there beside it.
    pub(in crate::scheduler) fn board<'g>(
        &self,
        gpu: &'g Gpu,
        (from, until): (i64, i64),
        settle: i64,
    ) -> Board<'g> {
        let within = || self.taken.iter().filter(move |t| t.from < until && from < t.until);
        let bits = within().fold(0, |bits, taken| bits | taken.bits);
        let mut counts = vec![0u32; gpu.profiles.len()];
        // The most at once: that changes only where something begins.
        for begin in within().map(|taken| taken.from.max(from)) {
            let mut now = vec![0u32; gpu.profiles.len()];
            for taken in within().filter(|taken| taken.from <= begin && begin < taken.until) {
                if let Some(count) = now.get_mut(taken.profile) {
                    *count += 1;
                }
            }
            counts.iter_mut().zip(now).for_each(|(most, count)| *most = (*most).max(count));
        }
        Board {
            profiles: &gpu.profiles,
            taken: bits,
            counts,
            free: self
                .layout
                .iter()
                .filter(|slice| slice.bits & bits == 0 && !self.goes_before(slice, from))
                .copied()
                .collect(),
            fixed: !self.may_be_cut(from, settle),
        }
    }

    /// Whether a slice is cut away for somebody before an instant.
    fn goes_before(&self, slice: &Unused, at: i64) -> bool {
        self.taken.iter().any(|taken| taken.cut && taken.from < at && taken.bits & slice.bits != 0)
    }

    /// The next instant after `from` at which more may be possible.
    fn next(&self, from: i64, settle: i64) -> Option<i64> {
        let ends = self.taken.iter().map(|taken| taken.until);
        let cuts = self.taken.iter().filter(|taken| taken.cut);
        let cuts = cuts.map(|taken| taken.from.saturating_add(settle));
        let all = ends.chain(cuts).chain([self.cut_from]);
        all.filter(|at| *at > from && *at < NEVER).min()
    }
}

impl NodeSlots {
    /// A node whose GPUs are all cut.
    #[cfg(test)]
    pub(in crate::scheduler) fn of(gpus: impl IntoIterator<Item = GpuSlots>) -> Self {
        Self { gpus: gpus.into_iter().map(Some).collect() }
    }

    /// A node's GPUs with nobody there and none of them drained.
    pub(in crate::scheduler) fn empty(node: &Node, may_be_cut: bool) -> Self {
        let of = |gpu: &Gpu| {
            let slots = GpuSlots::new(node, gpu, may_be_cut);
            (gpu.mig == MigMode::On).then_some(GpuSlots { open: true, ..slots })
        };
        Self { gpus: node.inventory.gpus.iter().map(of).collect() }
    }

    /// A legal placement of all of `wanted` (profiles) from `from` until `until`: GPU by GPU the cheapest,
    /// the largest slice first, with other choices where that leads nowhere. `None`: there is none, or
    /// it was not found within [`MAX_LOOKS`] looks.
    pub(in crate::scheduler) fn place(
        &self,
        node: &Node,
        wanted: &[Box<str>],
        window: (i64, i64),
        settle: i64,
    ) -> Option<(Vec<Place>, Cost)> {
        let gpus = node.inventory.gpus.iter().zip(&self.gpus).enumerate();
        let open = gpus.filter_map(|(at, (gpu, slots))| {
            let slots = slots.as_ref().filter(|slots| slots.open)?;
            Some((at, slots.board(gpu, window, settle)))
        });
        let boards: Vec<_> = open.collect();
        let size = |name: &str| {
            let mut all = boards.iter().flat_map(|(_, board)| board.profiles);
            all.find(|profile| *profile.name == *name).map_or(0, |profile| profile.size)
        };
        let mut order: Vec<&str> = wanted.iter().map(|name| &**name).collect();
        order.sort_by_key(|name| std::cmp::Reverse(size(name)));
        let mut search =
            Joint { boards: &boards, chosen: vec![Vec::new(); boards.len()], looks: 0 };
        search.place(&order).then(|| search.result())
    }

    /// Whether there would be a placement if nobody was there.
    pub(in crate::scheduler) fn could_place(&self, node: &Node, wanted: &[Box<str>]) -> bool {
        let bare = |gpu: &GpuSlots| {
            let cut_from = if gpu.cut_from == NEVER { NEVER } else { i64::MIN };
            GpuSlots { taken: Vec::new(), cut_from, ..gpu.clone() }
        };
        let gpus = self.gpus.iter().map(|gpu| gpu.as_ref().map(bare)).collect();
        Self { gpus }.place(node, wanted, (0, NEVER), 0).is_some()
    }

    /// The next instant after `from` at which more may be possible.
    pub(in crate::scheduler) fn next(&self, from: i64, settle: i64) -> Option<i64> {
        self.gpus.iter().flatten().filter_map(|gpu| gpu.next(from, settle)).min()
    }
}

/// A search for places on several GPUs.
struct Joint<'a> {
    boards: &'a [(usize, Board<'a>)],
    /// What was chosen on each.
    chosen: Vec<Vec<usize>>,
    looks: u32,
}

impl Joint<'_> {
    fn place(&mut self, rest: &[&str]) -> bool {
        let Some((first, later)) = rest.split_first() else { return true };
        let mut ways = Vec::new();
        for (at, (_, board)) in self.boards.iter().enumerate() {
            let profile = board.profiles.iter().position(|profile| *profile.name == **first);
            let Some(profile) = profile else { continue };
            self.looks += 1;
            let old = cheapest_on(board, &self.chosen[at]).unwrap_or_default();
            let all: Vec<usize> = self.chosen[at].iter().copied().chain([profile]).collect();
            let Some(new) = cheapest_on(board, &all) else { continue };
            let more = new.changes().saturating_sub(old.changes());
            let lost = new.lost.saturating_sub(old.lost);
            ways.push(((more, lost, board.taken.count_zeros(), at), profile));
        }
        ways.sort_unstable();
        for ((.., at), profile) in ways {
            if self.looks > MAX_LOOKS {
                return false;
            }
            self.chosen[at].push(profile);
            if self.place(later) {
                return true;
            }
            self.chosen[at].pop();
        }
        false
    }

    fn result(&self) -> (Vec<Place>, Cost) {
        let (mut places, mut cost) = (Vec::new(), Cost::default());
        for ((gpu, board), chosen) in self.boards.iter().zip(&self.chosen) {
            if chosen.is_empty() {
                continue;
            }
            // It was found when the last one was chosen.
            let cut = cheapest_on(board, chosen).unwrap_or_default();
            cost.0 += cut.changes();
            cost.1 += cut.lost;
            cost.2 += board.taken.count_zeros();
            let place =
                |placed: &Placed| Place { gpu: *gpu, placed: *placed, cut: !board.has(*placed) };
            places.extend(cut.chosen.iter().map(place));
        }
        (places, cost)
    }
}

impl Slots {
    /// Takes what runs in this snapshot, and forgets what the last plan added. Cost: a look at every
    /// node, and the runs of those with GPUs that are cut on which something changed; nothing where no
    /// GPU may be cut.
    pub(in crate::scheduler) fn refresh(&mut self, cluster: &Cluster, now: Timestamp) {
        self.changed.clear();
        let config = &cluster.config().mig;
        self.settle = i64::from(config.settle_secs).saturating_mul(1_000);
        if !config.any() {
            self.base.clear();
            self.profiles.clear();
            return;
        }
        let mut old = std::mem::take(&mut self.base);
        self.profiles.clear();
        for (index, node, used) in cluster.nodes() {
            let mut cut = node.inventory.gpus.iter().filter(|gpu| gpu.mig == MigMode::On);
            if cut.next().is_none() {
                continue;
            }
            let dynamic = config.is_dynamic(&node.name);
            let same = |base: &Base| {
                Arc::ptr_eq(&base.node, node) && Arc::ptr_eq(&base.used, used) && base.until > now.0
            };
            let base = match old.remove(&index).filter(same) {
                Some(base) => base,
                None => Base::new(cluster, index, (node, used), now, dynamic),
            };
            self.base.insert(index, base);
            if dynamic {
                let gpus = node.inventory.gpus.iter().filter(|gpu| gpu.mig == MigMode::On);
                for profile in gpus.flat_map(|gpu| &gpu.profiles) {
                    if !self.profiles.contains(&profile.name) {
                        self.profiles.insert(profile.name.clone());
                    }
                }
            }
        }
    }

    /// Whether some GPU that may be cut can have slices of this profile.
    pub(in crate::scheduler) fn knows(&self, profile: &str) -> bool {
        self.profiles.contains(profile)
    }

    /// Milliseconds between two cuts of a GPU.
    pub(in crate::scheduler) fn settle(&self) -> i64 {
        self.settle
    }

    /// The GPUs of a node; `None`: it has none that are cut.
    pub(in crate::scheduler) fn of(&self, node: NodeIndex) -> Option<&NodeSlots> {
        self.changed.get(&node).or_else(|| self.base.get(&node).map(|base| &base.slots))
    }

    fn change(&mut self, node: NodeIndex) -> Option<&mut NodeSlots> {
        let base = self.base.get(&node)?;
        Some(self.changed.entry(node).or_insert_with(|| base.slots.clone()))
    }

    /// Keeps places for a time.
    pub(in crate::scheduler) fn hold(
        &mut self,
        cluster: &Cluster,
        index: NodeIndex,
        places: &[Place],
        (from, until): (i64, i64),
    ) {
        let Some((node, _)) = cluster.node(index) else { return };
        for place in places {
            let Some(gpu) = node.inventory.gpus.get(place.gpu) else { continue };
            let Some(profile) = gpu.profiles.get(place.placed.profile) else { continue };
            let bits = mask(place.placed.start, profile.size);
            let (profile, cut) = (place.placed.profile, place.cut);
            let slots = self.change(index).and_then(|slots| slots.gpus.get_mut(place.gpu));
            if let Some(Some(slots)) = slots {
                slots.take(Taken { from, until, bits, profile, cut });
            }
        }
    }

    /// Adds the slices of a share that starts now.
    pub(in crate::scheduler) fn start(&mut self, cluster: &Cluster, share: &NodeShare, until: i64) {
        let Some((node, _)) = cluster.node(share.node) else { return };
        if self.base.contains_key(&share.node)
            && let Some(slots) = self.change(share.node)
        {
            slots.add_share(node, share, until);
        }
    }

    /// Units of a node, by resource and number, that nobody may have until `until` who starts now:
    /// their slots are kept for somebody from some time before that.
    pub(in crate::scheduler) fn blocked(
        &self,
        node: &Node,
        index: NodeIndex,
        (now, until): (i64, i64),
    ) -> Vec<(usize, usize)> {
        let Some(slots) = self.changed.get(&index) else { return Vec::new() };
        let mut blocked = Vec::new();
        for (at, have) in node.inventory.gres.iter().enumerate() {
            for (id, device) in node.inventory.devices(&have.name).enumerate() {
                let place =
                    node.inventory.gpus.iter().position(|gpu| gpu.index == device.gpu.index);
                let Some(slice) = device.slice else { continue };
                let gpu = place.and_then(|place| slots.gpus.get(place)?.as_ref());
                let Some(gpu) = gpu else { continue };
                let bits = mask(slice.start, slice.size);
                let ahead = |taken: &&Taken| taken.from > i64::MIN && taken.from < until;
                let clash = gpu.taken.iter().filter(ahead).any(|taken| taken.bits & bits != 0);
                let board = gpu.board(device.gpu, (now, until), self.settle);
                let profile = device.gpu.profiles.iter().position(|p| p.name == slice.profile);
                let full = profile.is_some_and(|profile| {
                    let most = board.profiles[profile].most;
                    most > 0 && board.counts[profile] >= most
                });
                if clash || full {
                    blocked.push((at, id));
                }
            }
        }
        blocked
    }

    /// Whether somebody who starts now may have a share's slices until `until`.
    pub(in crate::scheduler) fn admits(
        &self,
        node: &Node,
        share: &NodeShare,
        window: (i64, i64),
    ) -> bool {
        let blocked = self.blocked(node, share.node, window);
        blocked.iter().all(|(at, id)| {
            let name = &node.inventory.gres[*at].name;
            let same = share.gres.iter().filter(|gres| gres.name == *name);
            same.flat_map(|gres| gres.ids.iter()).all(|taken| *taken as usize != *id)
        })
    }
}

impl NodeSlots {
    fn add_share(&mut self, node: &Node, share: &NodeShare, until: i64) {
        for gres in share.gres.iter().filter(|gres| gres.name.name() == GPU) {
            let devices: Vec<_> = node.inventory.devices(&gres.name).collect();
            for id in &gres.ids {
                let Some(device) = devices.get(*id as usize) else { continue };
                let Some(slice) = device.slice else { continue };
                let all = &node.inventory.gpus;
                let place = all.iter().position(|gpu| gpu.index == device.gpu.index);
                let profile = device.gpu.profiles.iter().position(|p| p.name == slice.profile);
                let bits = mask(slice.start, slice.size);
                let slots = place.and_then(|place| self.gpus.get_mut(place)?.as_mut());
                if let Some(slots) = slots {
                    let profile = profile.unwrap_or(usize::MAX);
                    slots.take(Taken { from: i64::MIN, until, bits, profile, cut: false });
                }
            }
        }
    }
}

impl Base {
    fn new(
        cluster: &Cluster,
        index: NodeIndex,
        (node, used): (&Arc<Node>, &Arc<NodeUse>),
        now: Timestamp,
        dynamic: bool,
    ) -> Self {
        let of = |gpu: &Gpu| (gpu.mig == MigMode::On).then(|| GpuSlots::new(node, gpu, dynamic));
        let mut slots = NodeSlots { gpus: node.inventory.gpus.iter().map(of).collect() };
        let mut until = NEVER;
        let kill_wait = cluster.config().policy.kill_wait_secs;
        for id in &used.jobs {
            let Some(job) = cluster.job(*id) else { continue };
            let Some(run) = job.active_run() else { continue };
            let (end, volatile) = run_end(job, run, now, kill_wait);
            until = until.min(if volatile { i64::MIN } else { end });
            for share in run.shares.iter().filter(|share| share.node == index) {
                slots.add_share(node, &held(run, share), end);
            }
        }
        Self { node: Arc::clone(node), used: Arc::clone(used), until, slots }
    }
}
