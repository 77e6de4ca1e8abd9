use proptest::prelude::*;

use super::geometry::mask;
use super::slots::{GpuSlots, NodeSlots, Taken};
use super::tests::{gpu, layout, profiles};
use crate::model::{Gpu, Inventory, Node};

fn named() -> Node {
    Node::named(penstock_vocab::NodeName::new("n1").unwrap())
}

/// What somebody has, in whole instants.
type Had = (i64, i64, usize, u32);

/// Whether a GPU's slots can be had, by looking at every instant.
fn is_free(had: &[Had], (profile, start): (usize, u32), (from, until): (i64, i64)) -> bool {
    let all = profiles();
    let bits = mask(start, all[profile].size);
    bits != 0
        && (from..until).all(|at| {
            let now = || had.iter().filter(move |had| had.0 <= at && at < had.1);
            let same = now().filter(|had| had.2 == profile).count();
            now().all(|had| mask(had.3, all[had.2].size) & bits == 0)
                && same < all[profile].most as usize
        })
}

/// Whether all of `wanted` can be placed, by trying every GPU and place for each.
fn exists(
    gpus: &[(Vec<(usize, u32)>, bool)],
    had: &mut [Vec<Had>],
    wanted: &[usize],
    window: (i64, i64),
) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    let all = profiles();
    for (at, (layout, fixed)) in gpus.iter().enumerate() {
        for start in all[*first].starts.iter().copied() {
            let there = !fixed || layout.contains(&(*first, start));
            if there && is_free(&had[at], (*first, start), window) {
                had[at].push((window.0, window.1, *first, start));
                let found = exists(gpus, had, rest, window);
                had[at].pop();
                if found {
                    return true;
                }
            }
        }
    }
    false
}

/// Places that can be had one after the other, as plans would give them.
fn holds(tries: &[(i64, i64, usize, usize)], layout: &[(usize, u32)], fixed: bool) -> Vec<Had> {
    let (all, mut had) = (profiles(), Vec::new());
    for (from, length, profile, start) in tries {
        let profile = profile % all.len();
        let start = all[profile].starts[start % all[profile].starts.len()];
        let window = (*from, from + length);
        let there = !fixed || layout.contains(&(profile, start));
        if there && is_free(&had, (profile, start), window) {
            had.push((window.0, window.1, profile, start));
        }
    }
    had
}

fn slots(node: &Node, gpu: &Gpu, fixed: bool, had: &[Had]) -> GpuSlots {
    let mut slots = GpuSlots::new(node, gpu, !fixed);
    for (from, until, profile, start) in had {
        let bits = mask(*start, profiles()[*profile].size);
        let (from, until, profile) = (*from, *until, *profile);
        slots.take(Taken { from, until, bits, profile, cut: false });
    }
    slots
}

proptest! {
    #[test]
    fn there_is_room_exactly_where_trying_everything_finds_it(
        shapes in prop::collection::vec(
            (
                prop::collection::vec((0usize..7, 0usize..7), 0..6),
                prop::collection::vec((0i64..12, 1i64..8, 0usize..7, 0usize..7), 0..6),
                any::<bool>(),
            ),
            1..3,
        ),
        wanted in prop::collection::vec(0usize..7, 1..4),
        from in 0i64..14,
        length in 1i64..9,
    ) {
        let mut gpus = Vec::new();
        let (mut had, mut all) = (Vec::new(), Vec::new());
        for (tries, times, fixed) in &shapes {
            let layout = layout(tries);
            had.push(holds(times, &layout, *fixed));
            all.push(gpu(&layout));
            gpus.push((layout, *fixed));
        }
        let inventory = Inventory { gpus: all.into(), ..Inventory::default() };
        let node = Node { inventory, ..named() };
        let of = |at: usize| slots(&node, &node.inventory.gpus[at], gpus[at].1, &had[at]);
        let slots = NodeSlots::of((0..gpus.len()).map(of));
        let names: Vec<Box<str>> = wanted.iter().map(|at| profiles()[*at].name.clone()).collect();
        let window = |from| (from, from + length);
        let found = slots.place(&node, &names, window(from), 0);
        prop_assert_eq!(found.is_some(), exists(&gpus, &mut had.clone(), &wanted, window(from)));
        if let Some((places, _)) = found {
            let mut had = had.clone();
            prop_assert_eq!(places.len(), wanted.len());
            for place in places {
                let (profile, start) = (place.placed.profile, place.placed.start);
                let (layout, fixed) = &gpus[place.gpu];
                prop_assert!(is_free(&had[place.gpu], (profile, start), window(from)));
                prop_assert_eq!(place.cut, !layout.contains(&(profile, start)));
                prop_assert!(!fixed || !place.cut);
                had[place.gpu].push((from, from + length, profile, start));
            }
        }
        // The earliest time is among the instants at which something ends.
        let mut at = Some(from);
        let earliest = loop {
            match at {
                Some(time) if slots.place(&node, &names, window(time), 0).is_some() => break at,
                Some(time) => at = slots.next(time, 0),
                None => break None,
            }
        };
        let first = (from..40).find(|at| exists(&gpus, &mut had.clone(), &wanted, window(*at)));
        prop_assert_eq!(earliest, first);
    }
}

#[test]
fn two_cuts_of_a_gpu_are_apart() {
    let node = named();
    let gpu = gpu(&[]);
    let mut slots = GpuSlots::new(&node, &gpu, true);
    slots.take(Taken { from: 100, until: 900, bits: 0x0f, profile: 4, cut: true });
    let node = Node { inventory: Inventory { gpus: [gpu].into(), ..Inventory::default() }, ..node };
    let slots = NodeSlots::of([slots]);
    let place = |from| slots.place(&node, &["3g.40gb".into()], (from, from + 50), 60).is_some();
    for (from, expect) in [(30, true), (41, false), (100, true), (159, false), (160, true)] {
        assert_eq!(place(from), expect, "{from}");
    }
    assert_eq!(slots.next(101, 60), Some(160));
}
