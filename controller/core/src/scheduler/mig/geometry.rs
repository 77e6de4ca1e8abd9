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
    /// Where all that is wanted is then, made or there before.
    pub chosen: Vec<Placed>,
    /// Capacity that is lost by what is made.
    pub lost: u64,
}

impl Cut {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.destroy.is_empty() && self.create.is_empty()
    }

    /// How many slices go and come.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.destroy.len() + self.create.len()
    }

    /// The smaller, the better: changes first, then what is lost.
    fn cost(&self) -> (usize, u64, usize) {
        (self.destroy.len(), self.lost, self.create.len())
    }
}

/// A slice that is there and nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unused {
    /// What it is; of a profile that the GPU does not list it serves nobody.
    pub placed: Placed,
    /// Its slots.
    pub bits: u8,
}

/// What of a GPU is taken at some time, and what it is cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board<'a> {
    /// What its slices can be.
    pub profiles: &'a [MigProfile],
    /// Bits that somebody has.
    pub taken: u8,
    /// Slices of each profile that somebody has.
    pub counts: Vec<u32>,
    /// Slices that are there and nobody's.
    pub free: Vec<Unused>,
    /// Nothing may be cut: what is there has to do.
    pub fixed: bool,
}

impl<'a> Board<'a> {
    /// A GPU as it is, of whose slices those at the starts `held` are somebody's.
    fn now(gpu: &'a Gpu, held: &[u32]) -> Self {
        let profiles = &gpu.profiles;
        let mut board = Self {
            profiles,
            taken: 0,
            counts: vec![0; profiles.len()],
            free: Vec::new(),
            fixed: false,
        };
        for slice in &gpu.slices {
            let at = profiles.iter().position(|profile| profile.name == slice.profile);
            if held.contains(&slice.start) {
                board.taken |= mask(slice.start, slice.size);
                if let Some(count) = at.and_then(|at| board.counts.get_mut(at)) {
                    *count += 1;
                }
            } else {
                let placed = Placed { profile: at.unwrap_or(usize::MAX), start: slice.start };
                board.free.push(Unused { placed, bits: mask(slice.start, slice.size) });
            }
        }
        board
    }

    /// Whether a slice is there already.
    pub(super) fn has(&self, placed: Placed) -> bool {
        self.free.iter().any(|slice| slice.placed == placed)
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
/// starts `held` must stay. As [`cheapest_on`].
#[must_use]
pub fn cheapest(gpu: &Gpu, held: &[u32], wanted: &[usize]) -> Option<Cut> {
    cheapest_on(&Board::now(gpu, held), wanted)
}

/// The cheapest way to have all of `wanted` (places of profiles) beside what is taken. Free slices that
/// serve are kept, others only go where they are in the way. `None`: there is no legal way. Cost: all ways
/// to place at most eight slices.
#[must_use]
pub fn cheapest_on(board: &Board<'_>, wanted: &[usize]) -> Option<Cut> {
    let profiles = board.profiles;
    if wanted.len() > MOST_WANTED || wanted.iter().any(|at| *at >= profiles.len()) {
        return None;
    }
    let mut order = wanted.to_vec();
    // The largest first: it has the fewest places.
    order.sort_by_key(|at| (std::cmp::Reverse(profiles[*at].size), *at));
    let mut search = Search { board, best: None, chosen: Vec::new() };
    search.place(&order, board.taken, &mut board.counts.clone());
    search.best
}

struct Search<'a> {
    board: &'a Board<'a>,
    best: Option<Cut>,
    chosen: Vec<Placed>,
}

impl Search<'_> {
    fn place(&mut self, rest: &[usize], taken: u8, counts: &mut [u32]) {
        let Some((first, later)) = rest.split_first() else {
            return self.consider(taken, counts);
        };
        let profile = &self.board.profiles[*first];
        if profile.most > 0 && counts[*first] >= profile.most {
            return;
        }
        // Equal ones in the order of their starts, so that no set is tried twice.
        let from = self.chosen.last().filter(|last| last.profile == *first);
        let from = from.map_or(0, |last| last.start + 1);
        for start in profile.starts.iter().copied().filter(|start| *start >= from) {
            let placed = Placed { profile: *first, start };
            let there = !self.board.fixed || self.board.has(placed);
            if !there || !fits(profile, start, taken) {
                continue;
            }
            counts[*first] += 1;
            self.chosen.push(placed);
            self.place(later, taken | mask(start, profile.size), counts);
            self.chosen.pop();
            counts[*first] -= 1;
        }
    }

    /// What the chosen places come to, beside the free slices that are there.
    fn consider(&mut self, taken: u8, counts: &[u32]) {
        let board = self.board;
        let mut cut = Cut {
            create: self.chosen.iter().copied().filter(|one| !board.has(*one)).collect(),
            chosen: self.chosen.clone(),
            ..Cut::default()
        };
        let mut counts = counts.to_vec();
        for slice in board.free.iter().filter(|slice| !self.chosen.contains(&slice.placed)) {
            let most = board.profiles.get(slice.placed.profile).map_or(0, |profile| profile.most);
            let count = counts.get_mut(slice.placed.profile);
            let full = count.as_ref().is_some_and(|count| most > 0 && **count >= most);
            if taken & slice.bits != 0 || full {
                cut.destroy.push(slice.placed.start);
            } else if let Some(count) = count {
                *count += 1;
            }
        }
        cut.destroy.sort_unstable();
        let left = |taken| capacity(board.profiles, taken);
        cut.lost = left(board.taken).saturating_sub(left(taken));
        if self.best.as_ref().is_none_or(|best| cut.cost() < best.cost()) {
            self.best = Some(cut);
        }
    }
}
