//! Are there enough nodes of each kind that a constraint counts, no node counted twice?
//!
//! Sets of nodes that can be counted for different places form a transversal matroid (Edmonds and
//! Fulkerson 1965), so that nodes may be offered one by one in any order of preference: one that
//! finds a place, if need be by moving others, is part of the best choice. Nodes that serve the same
//! counts are kept together; a node costs at most the kinds times the counts.

use crate::model::Constraint;

/// Places of a constraint's counts that are being filled.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    /// Places of each count that are not filled.
    open: Vec<u32>,
    /// Nodes that serve the same counts, by these as bits: how many are counted for each.
    kinds: Vec<(u32, Vec<u32>)>,
    left: u32,
}

impl Quota {
    pub(super) fn new(constraint: &Constraint) -> Self {
        let open: Vec<_> = constraint.counts().collect();
        Self { open, kinds: Vec::new(), left: constraint.least_nodes() }
    }

    /// Whether all places are filled.
    pub(super) fn is_met(&self) -> bool {
        self.left == 0
    }

    /// Offers a node that serves these counts; false if it fills no place that would else be open.
    pub(super) fn offer(&mut self, counts: u32) -> bool {
        if self.left == 0 || counts == 0 {
            return false;
        }
        // Breadth first from the node over counts that could take it, each by moving one node on.
        let mut from: Vec<Option<(usize, Option<usize>)>> = vec![None; self.open.len()];
        let mut waiting: Vec<usize> = Vec::new();
        for at in (0..self.open.len()).filter(|at| counts & 1 << at != 0) {
            from[at] = Some((usize::MAX, None));
            waiting.push(at);
        }
        let mut next = 0;
        while let Some(at) = waiting.get(next).copied() {
            next += 1;
            if self.open[at] > 0 {
                self.fill(counts, at, &from);
                return true;
            }
            for (kind, (serves, counted)) in self.kinds.iter().enumerate() {
                if counted[at] == 0 {
                    continue;
                }
                for to in (0..self.open.len()).filter(|to| serves & 1 << to != 0) {
                    if from[to].is_none() {
                        from[to] = Some((kind, Some(at)));
                        waiting.push(to);
                    }
                }
            }
        }
        false
    }

    /// Moves one node along each step that led to `at`, and counts the new one for the first.
    fn fill(&mut self, counts: u32, at: usize, from: &[Option<(usize, Option<usize>)>]) {
        self.open[at] -= 1;
        self.left -= 1;
        let mut to = at;
        while let Some((kind, Some(before))) = from[to] {
            self.kinds[kind].1[to] += 1;
            self.kinds[kind].1[before] -= 1;
            to = before;
        }
        let known = self.kinds.iter().position(|(serves, _)| *serves == counts);
        let kind = known.unwrap_or_else(|| {
            self.kinds.push((counts, vec![0; self.open.len()]));
            self.kinds.len() - 1
        });
        self.kinds[kind].1[to] += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow, obvious answer: some way to count the nodes fills all places.
    fn fills(open: &mut [u32], nodes: &[u32]) -> bool {
        if open.iter().all(|places| *places == 0) {
            return true;
        }
        let Some((node, rest)) = nodes.split_first() else { return false };
        (0..open.len()).any(|at| {
            if node & 1 << at == 0 || open[at] == 0 {
                return false;
            }
            open[at] -= 1;
            let found = fills(open, rest);
            open[at] += 1;
            found
        }) || fills(open, rest)
    }

    proptest! {
        #[test]
        fn places_are_filled_exactly_if_some_way_fills_them(
            counts in prop::collection::vec(1u32..4, 1..4),
            nodes in prop::collection::vec(0u32..8, 0..8),
        ) {
            let text: Vec<_> = (0..).zip(&counts).map(|(at, n)| format!("f{at}*{n}")).collect();
            let constraint = Constraint::parse(&text.join("&")).unwrap();
            let mut quota = Quota::new(&constraint);
            let useful = nodes.iter().filter(|node| quota.offer(**node)).count();
            prop_assert_eq!(quota.is_met(), fills(&mut counts.clone(), &nodes));
            prop_assert!(useful <= counts.iter().sum::<u32>() as usize);
        }
    }
}
