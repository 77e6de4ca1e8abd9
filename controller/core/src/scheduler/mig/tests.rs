use proptest::prelude::*;

use super::geometry::{Cut, capacity, cheapest, mask};
use crate::model::{Gpu, MigMode, MigProfile, MigSlice};

/// The profiles of the parts with seven compute slices, and their double-memory 1g.
pub(super) fn profiles() -> Box<[MigProfile]> {
    let profile = |name: &str, compute, size, starts: &[u32], most| MigProfile {
        name: name.into(),
        compute,
        size,
        starts: starts.into(),
        most,
        ..MigProfile::default()
    };
    Box::new([
        profile("1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6], 7),
        profile("1g.10gb+me", 1, 1, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile("1g.20gb", 1, 2, &[0, 2, 4, 6], 4),
        profile("2g.20gb", 2, 2, &[0, 2, 4], 3),
        profile("3g.40gb", 3, 4, &[0, 4], 2),
        profile("4g.40gb", 4, 4, &[0], 1),
        profile("7g.80gb", 7, 8, &[0], 1),
    ])
}

pub(super) fn gpu(slices: &[(usize, u32)]) -> Gpu {
    let profiles = profiles();
    let slice = |(at, start): &(usize, u32)| MigSlice {
        profile: profiles[*at].name.clone(),
        start: *start,
        size: profiles[*at].size,
        ..MigSlice::default()
    };
    Gpu { mig: MigMode::On, slices: slices.iter().map(slice).collect(), profiles, ..Gpu::default() }
}

/// Layouts that can be reached: random places tried in turn.
pub(super) fn layout(tries: &[(usize, usize)]) -> Vec<(usize, u32)> {
    let profiles = profiles();
    let (mut taken, mut slices) = (0u8, Vec::new());
    for (at, start) in tries {
        let profile = &profiles[at % profiles.len()];
        let start = profile.starts[start % profile.starts.len()];
        let bits = mask(start, profile.size);
        let at = at % profiles.len();
        let same = slices.iter().filter(|(other, _)| *other == at).count();
        if taken & bits == 0 && same < profile.most as usize {
            taken |= bits;
            slices.push((at, start));
        }
    }
    slices
}

/// The layout after a cut.
fn after(gpu: &Gpu, cut: &Cut) -> Vec<(usize, u32)> {
    let at = |name: &str| gpu.profiles.iter().position(|profile| *profile.name == *name).unwrap();
    let kept = gpu.slices.iter().filter(|slice| !cut.destroy.contains(&slice.start));
    let kept = kept.map(|slice| (at(&slice.profile), slice.start));
    kept.chain(cut.create.iter().map(|placed| (placed.profile, placed.start))).collect()
}

/// Whether all of `wanted` can be placed beside these bits, by trying everything.
fn exists(profiles: &[MigProfile], wanted: &[usize], taken: u8, counts: &mut [u32]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    let profile = &profiles[*first];
    if counts[*first] >= profile.most {
        return false;
    }
    counts[*first] += 1;
    let found = profile.starts.iter().any(|start| {
        let bits = mask(*start, profile.size);
        taken & bits == 0 && exists(profiles, rest, taken | bits, counts)
    });
    counts[*first] -= 1;
    found
}

proptest! {
    #[test]
    fn cuts_are_legal_keep_what_is_held_and_are_found_where_there_is_one(
        tries in proptest::collection::vec((0usize..7, 0usize..7), 0..8),
        holds in proptest::collection::vec(any::<bool>(), 8),
        wanted in proptest::collection::vec(0usize..7, 0..4),
    ) {
        let slices = layout(&tries);
        let gpu = gpu(&slices);
        let held: Vec<u32> =
            slices.iter().zip(&holds).filter(|(_, held)| **held).map(|((_, s), _)| *s).collect();
        let (mut taken, mut counts) = (0u8, vec![0u32; gpu.profiles.len()]);
        for (at, start) in slices.iter().filter(|(_, start)| held.contains(start)) {
            taken |= mask(*start, gpu.profiles[*at].size);
            counts[*at] += 1;
        }
        let possible = exists(&gpu.profiles, &wanted, taken, &mut counts);
        let found = cheapest(&gpu, &held, &wanted);
        prop_assert_eq!(found.is_some(), possible);
        let Some(cut) = found else { return Ok(()) };
        for start in &held {
            prop_assert!(!cut.destroy.contains(start), "a slice that is held would go");
        }
        let layout = after(&gpu, &cut);
        let mut taken = 0u8;
        for (at, start) in &layout {
            let profile = &gpu.profiles[*at];
            prop_assert!(profile.starts.contains(start));
            let bits = mask(*start, profile.size);
            prop_assert!(bits != 0 && taken & bits == 0, "{layout:?} overlaps");
            taken |= bits;
            let same = layout.iter().filter(|(other, _)| other == at).count();
            prop_assert!(same <= profile.most as usize, "{layout:?} has too many of one");
        }
        // All that is wanted is there, free.
        for at in 0..gpu.profiles.len() {
            let asked = wanted.iter().filter(|one| **one == at).count();
            let free = layout.iter().filter(|(one, start)| *one == at && !held.contains(start));
            prop_assert!(free.count() >= asked);
        }
    }
}

#[test]
fn what_is_there_is_used_before_anything_is_cut() {
    // 3g at 4 is held, 2g at 2 and 1g at 0 are free.
    let gpu = gpu(&[(4, 4), (3, 2), (0, 0)]);
    let cut = |wanted: &[usize]| cheapest(&gpu, &[4], wanted).unwrap();
    assert!(cut(&[3]).is_nothing());
    assert!(cut(&[0, 3]).is_nothing());
    // One more 1g goes to the free bit beside the first; nothing is destroyed.
    let more = cut(&[0, 0]);
    assert_eq!((more.destroy.as_slice(), more.create[0].start), (&[][..], 1));
    // A 3g needs the whole lower half.
    assert_eq!(cut(&[4]).destroy, [0, 2]);
    assert_eq!(cheapest(&gpu, &[4], &[6]), None);
    assert_eq!(cheapest(&gpu, &[0, 2, 4], &[3]), None);
}

#[test]
fn a_lone_3g_goes_where_less_is_lost() {
    let cut = cheapest(&gpu(&[]), &[], &[4]).unwrap();
    assert_eq!(cut.create[0].start, 4);
    assert!(capacity(&profiles(), mask(4, 4)) > capacity(&profiles(), mask(0, 4)));
    // Asked for in this order, all fit: 1g, 1g, 2g, 3g.
    assert!(cheapest(&gpu(&[]), &[], &[0, 0, 3, 4]).is_some());
}

#[test]
fn an_a100_has_its_nineteen_layouts() {
    // 1g, 2g, 3g, 4g and 7g alone, as NVIDIA draws them.
    let profiles: Vec<MigProfile> =
        [0, 3, 4, 5, 6].iter().map(|at| profiles()[*at].clone()).collect();
    let all: Vec<(u32, u8)> = (0..)
        .zip(&profiles)
        .flat_map(|(at, p)| p.starts.iter().map(move |s| (at, mask(*s, p.size))))
        .collect();
    let mut maximal = std::collections::BTreeSet::new();
    fn grow(
        all: &[(u32, u8)],
        set: &mut Vec<(u32, u8)>,
        taken: u8,
        found: &mut std::collections::BTreeSet<Vec<(u32, u8)>>,
    ) {
        let mut full = true;
        for one in all.iter().filter(|(_, bits)| taken & bits == 0) {
            full = false;
            set.push(*one);
            grow(all, set, taken | one.1, found);
            set.pop();
        }
        if full {
            let mut set = set.clone();
            set.sort_unstable();
            found.insert(set);
        }
    }
    grow(&all, &mut Vec::new(), 0, &mut maximal);
    assert_eq!(maximal.len(), 19);
}
