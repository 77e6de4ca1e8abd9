//! Where on a GPU can slices be?
//!
//! A GPU has up to eight memory slices, bits of a mask. A set of slices is legal where each is at a
//! start that its profile lists, no two cover the same bit, and no profile has more than its most
//! (NVIDIA's MIG user guide; that this rule alone gives the nineteen layouts of an A100 was counted
//! for the A100's table below). What a slice costs is the capacity that is lost: over all profiles
//! their compute slices times the legal starts that are left, before and after; the least is taken.

use crate::model::{Gpu, MigProfile};

/// Most slices that are looked for on one GPU at once.
const MOST_WANTED: usize = 8;

/// A slice to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// Place of its profile in the GPU's list.
    pub profile: usize,
    /// First memory slice.
    pub start: u32,
}

/// What to do to a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut {
    /// Free slices to destroy, by start.
    pub destroy: Vec<u32>,
    /// Slices to make.
    pub create: Vec<Placed>,
    /// Capacity that is lost by what is made.
    pub lost: u64,
}

impl Cut {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.destroy.is_empty() && self.create.is_empty()
    }

    /// The smaller, the better: changes first, then what is lost.
    fn cost(&self) -> (usize, u64, usize) {
        (self.destroy.len(), self.lost, self.create.len())
    }
}

/// The bits of a slice; 0 where it does not fit into eight.
#[must_use]
pub fn mask(start: u32, size: u32) -> u8 {
    if size == 0 || start.saturating_add(size) > 8 {
        return 0;
    }
    let bits = ((1u32 << size) - 1) << start;
    u8::try_from(bits).unwrap_or(0)
}

/// Compute slices times legal starts that a GPU with these bits taken still has.
#[must_use]
pub fn capacity(profiles: &[MigProfile], taken: u8) -> u64 {
    let of = |profile: &MigProfile| {
        let free = profile.starts.iter().filter(|start| fits(profile, **start, taken)).count();
        u64::from(profile.compute.max(1)) * free as u64
    };
    profiles.iter().map(of).sum()
}

fn fits(profile: &MigProfile, start: u32, taken: u8) -> bool {
    let bits = mask(start, profile.size);
    bits != 0 && taken & bits == 0
}

/// The cheapest way to have all of `wanted` (places of profiles) free on a GPU whose slices at the
/// starts `held` must stay. Free slices that serve are kept, others only go where they are in the
/// way. `None`: there is no legal way. Cost: all ways to place at most eight slices.
#[must_use]
pub fn cheapest(gpu: &Gpu, held: &[u32], wanted: &[usize]) -> Option<Cut> {
    if wanted.len() > MOST_WANTED || wanted.iter().any(|at| *at >= gpu.profiles.len()) {
        return None;
    }
    let stays = |start: &u32| gpu.slices.iter().find(|slice| slice.start == *start);
    let mut taken = 0u8;
    let mut counts = vec![0u32; gpu.profiles.len()];
    for slice in held.iter().filter_map(stays) {
        taken |= mask(slice.start, slice.size);
        if let Some(at) = gpu.profiles.iter().position(|profile| profile.name == slice.profile) {
            counts[at] += 1;
        }
    }
    let mut order = wanted.to_vec();
    // The largest first: it has the fewest places.
    order.sort_by_key(|at| (std::cmp::Reverse(gpu.profiles[*at].size), *at));
    let mut search = Search { gpu, held, best: None, chosen: Vec::new(), before: taken };
    search.place(&order, taken, &mut counts);
    search.best
}

struct Search<'a> {
    gpu: &'a Gpu,
    held: &'a [u32],
    best: Option<Cut>,
    chosen: Vec<Placed>,
    before: u8,
}

impl Search<'_> {
    fn place(&mut self, rest: &[usize], taken: u8, counts: &mut [u32]) {
        let Some((first, later)) = rest.split_first() else {
            return self.consider(taken, counts);
        };
        let profile = &self.gpu.profiles[*first];
        if profile.most > 0 && counts[*first] >= profile.most {
            return;
        }
        // Equal ones in the order of their starts, so that no set is tried twice.
        let from = self.chosen.last().filter(|last| last.profile == *first);
        let from = from.map_or(0, |last| last.start + 1);
        for start in profile.starts.iter().copied().filter(|start| *start >= from) {
            if !fits(profile, start, taken) {
                continue;
            }
            counts[*first] += 1;
            self.chosen.push(Placed { profile: *first, start });
            self.place(later, taken | mask(start, profile.size), counts);
            self.chosen.pop();
            counts[*first] -= 1;
        }
    }

    /// What the chosen places come to, beside the free slices that are there.
    fn consider(&mut self, taken: u8, counts: &[u32]) {
        let profiles = &self.gpu.profiles;
        let mut cut = Cut::default();
        let is_there = |placed: &Placed| {
            self.gpu.slices.iter().any(|slice| {
                slice.start == placed.start
                    && slice.profile == profiles[placed.profile].name
                    && !self.held.contains(&slice.start)
            })
        };
        cut.create = self.chosen.iter().filter(|placed| !is_there(placed)).copied().collect();
        let mut counts = counts.to_vec();
        for slice in self.gpu.slices.iter().filter(|slice| !self.held.contains(&slice.start)) {
            let kept = self.chosen.iter().any(|placed| {
                placed.start == slice.start && profiles[placed.profile].name == slice.profile
            });
            if kept {
                continue;
            }
            let at = profiles.iter().position(|profile| profile.name == slice.profile);
            let full = at.is_some_and(|at| {
                let most = profiles[at].most;
                most > 0 && counts[at] >= most
            });
            if taken & mask(slice.start, slice.size) != 0 || full {
                cut.destroy.push(slice.start);
            } else if let Some(at) = at {
                counts[at] += 1;
            }
        }
        cut.destroy.sort_unstable();
        cut.lost = capacity(profiles, self.before).saturating_sub(capacity(profiles, taken));
        if self.best.as_ref().is_none_or(|best| cut.cost() < best.cost()) {
            self.best = Some(cut);
        }
    }
}
