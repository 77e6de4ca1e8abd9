//! Which tasks of a job array still wait, when there may be a million of them?
//!
//! The set is kept as runs of a constant step, so that a million tasks cost a few bytes. Runs are
//! sorted and their spans (`start..=end`) are disjoint. One set may be cut into runs in several
//! ways; equality, order and hash look at the members alone.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A set of `u32`, small for ranges and stepped ranges. 12 bytes a run.
#[derive(Debug, Clone, Default)]
pub struct IndexSet {
    runs: Vec<Run>,
}

/// `start`, `start + step`, ... up to and including `end`.
///
/// In a set: `start <= end`, `step >= 1`, and `step` divides `end - start`; a single member has step 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The first member.
    pub start: u32,
    /// The last member.
    pub end: u32,
    /// The distance between neighbours.
    pub step: u32,
}

impl Run {
    const fn single(index: u32) -> Self {
        Self { start: index, end: index, step: 1 }
    }

    /// The run of that step from `start` to the last member at or below `end`; `None` if there is none.
    pub(crate) fn new(start: u32, end: u32, step: u32) -> Option<Self> {
        let span = end.checked_sub(start)?;
        if step == 0 {
            return None;
        }
        let end = end - span % step;
        Some(if end == start { Self::single(start) } else { Self { start, end, step } })
    }

    /// How many members it has, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    #[must_use]
    pub const fn len(self) -> u64 {
        ((self.end - self.start) / self.step) as u64 + 1
    }

    /// Whether `index` is a member.
    #[must_use]
    pub const fn contains(self, index: u32) -> bool {
        self.start <= index && index <= self.end && (index - self.start).is_multiple_of(self.step)
    }

    /// The members, ascending.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        // 64 bits count past a run that ends at the top of the range.
        (u64::from(self.start)..=u64::from(self.end))
            .step_by(usize::try_from(self.step).unwrap_or(usize::MAX))
            .map(|index| u32::try_from(index).expect("a member lies between two u32"))
    }

    /// The members below `index`, and those above it.
    fn split_around(self, index: u32) -> (Option<Self>, Option<Self>) {
        let Self { start, end, step } = self;
        let below = index.checked_sub(1).and_then(|top| Self::new(start, top.min(end), step));
        let above = match index.checked_sub(start) {
            None => Some(self),
            Some(offset) => {
                u32::try_from((u64::from(offset) / u64::from(step) + 1) * u64::from(step))
                    .ok()
                    .and_then(|next| start.checked_add(next))
                    .and_then(|first| Self::new(first, end, step))
            }
        };
        (below, above)
    }

    /// The members of this run that lie in the span of `other`, where all of those are members of
    /// `other` too; `None` where they are not, or it can't be told from the steps.
    fn clipped(self, other: Self) -> Option<Option<Self>> {
        let aligned = other.step == 1
            || (self.step.is_multiple_of(other.step)
                && self.start.abs_diff(other.start).is_multiple_of(other.step));
        if !aligned {
            return None;
        }
        let low = self.start.max(other.start);
        let start = if low == self.start {
            Some(low)
        } else {
            let past = (low - self.start).div_ceil(self.step);
            past.checked_mul(self.step).and_then(|gap| self.start.checked_add(gap))
        };
        Some(start.and_then(|start| Self::new(start, self.end.min(other.end), self.step)))
    }

    /// Appends the members of both, ascending.
    fn shared_with(self, other: Self, shared: &mut Vec<Self>) {
        match self.clipped(other).or_else(|| other.clipped(self)) {
            Some(part) => shared.extend(part),
            None => {
                let (few, many) =
                    if self.len() <= other.len() { (self, other) } else { (other, self) };
                shared.extend(few.iter().filter(|i| many.contains(*i)).map(Self::single));
            }
        }
    }

    /// Appends the members below what `cut` takes away, and between that, ascending; what is left
    /// above it comes back.
    fn without(self, cut: Self, kept: &mut Vec<Self>) -> Option<Self> {
        match self.clipped(cut) {
            Some(None) => Some(self),
            Some(Some(gone)) => {
                kept.extend(self.split_around(gone.start).0);
                self.split_around(gone.end).1
            }
            None => {
                let within = |index: &u32| *index <= cut.end;
                let below = self.iter().take_while(within).filter(|i| !cut.contains(*i));
                kept.extend(below.map(Self::single));
                self.split_around(cut.end).1
            }
        }
    }

    const fn is_single(self) -> bool {
        self.start == self.end
    }

    /// Whether `next`, which lies above, goes on in step with this run.
    fn continues_with(self, next: Self) -> Option<u32> {
        let gap = next.start - self.end;
        let fits = |run: Self| run.is_single() || run.step == gap;
        // Two singles apart are no run yet: it would save nothing and hide neighbours.
        let worth = gap == 1 || !self.is_single() || !next.is_single();
        (worth && fits(self) && fits(next)).then_some(gap)
    }
}

impl IndexSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// `start`, `start + step`, ... up to at most `end`; empty if `end` is below `start` or the step
    /// is zero.
    #[must_use]
    pub fn from_range(start: u32, end: u32, step: u32) -> Self {
        Self { runs: Run::new(start, end, step).into_iter().collect() }
    }

    /// Whether there is no member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many members there are. O(runs).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// Whether `index` is a member. O(log runs).
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.runs.get(self.position(index)).is_some_and(|run| run.contains(index))
    }

    /// The lowest member.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.runs.first().map(|run| run.start)
    }

    /// The highest member.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.runs.last().map(|run| run.end)
    }

    /// Takes the lowest member out. O(1), but O(runs) where it ends a run.
    pub fn pop_first(&mut self) -> Option<u32> {
        let run = self.runs.first_mut()?;
        let index = run.start;
        match run.split_around(index).1 {
            Some(rest) => *run = rest,
            None => {
                self.runs.remove(0);
            }
        }
        Some(index)
    }

    /// Puts `index` in; true if it was not a member. O(runs) at worst.
    pub fn insert(&mut self, index: u32) -> bool {
        let at = self.position(index);
        let single = Run::single(index);
        match self.runs.get(at).copied() {
            Some(run) if run.contains(index) => return false,
            Some(run) if run.start < index => {
                let (below, above) = run.split_around(index);
                let parts = below.into_iter().chain([single]).chain(above);
                self.runs.splice(at..=at, parts);
            }
            _ => self.runs.insert(at, single),
        }
        self.tidy(at.saturating_sub(1), at + 3);
        true
    }

    /// Takes `index` out; true if it was a member. O(runs) at worst.
    pub fn remove(&mut self, index: u32) -> bool {
        let at = self.position(index);
        let Some(run) = self.runs.get(at).copied().filter(|run| run.contains(index)) else {
            return false;
        };
        let (below, above) = run.split_around(index);
        self.runs.splice(at..=at, below.into_iter().chain(above));
        true
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().flat_map(|run| run.iter())
    }

    /// The runs that make up the set, ascending, spans disjoint.
    #[must_use]
    pub fn ranges(&self) -> &[Run] {
        &self.runs
    }

    /// Every member of either. O(runs) where no spans overlap, else O(members).
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_runs(self.runs.iter().chain(&other.runs).copied())
    }

    /// The members of this set that are not in `other`. O(runs), but O(members) where runs of
    /// different steps overlap.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut runs = Vec::new();
        let mut from = 0;
        for run in &self.runs {
            from += other.runs.get(from..).map_or(0, |rest| before(rest, run.start));
            let mut left = Some(*run);
            for cut in other.runs.iter().skip(from).take_while(|cut| cut.start <= run.end) {
                let Some(whole) = left else { break };
                left = whole.without(*cut, &mut runs);
            }
            runs.extend(left);
        }
        Self::from_ascending(runs)
    }

    /// The members of both. O(runs), but O(members) where runs of different steps overlap.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut runs = Vec::new();
        let mut from = 0;
        for run in &self.runs {
            from += other.runs.get(from..).map_or(0, |rest| before(rest, run.start));
            for mate in other.runs.iter().skip(from).take_while(|mate| mate.start <= run.end) {
                run.shared_with(*mate, &mut runs);
            }
        }
        Self::from_ascending(runs)
    }

    /// Whether every member of this set is one of `other`. Costs as [`Self::difference`].
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// The set of all members of `runs`, in any order and overlapping as they like. An `end` out of
    /// step is lowered to the last member; a run without members is dropped. Costs as
    /// [`Self::union`], so runs from outside need a bound on their members first.
    #[must_use]
    pub fn from_runs(runs: impl IntoIterator<Item = Run>) -> Self {
        let mended = |run: Run| Run::new(run.start, run.end, run.step);
        let mut runs: Vec<Run> = runs.into_iter().filter_map(mended).collect();
        runs.sort_unstable();
        let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs {
            match merged.last_mut() {
                // A dense run, or one that lies inside another of the same phase, needs no listing.
                Some(last) if covers(*last, run) => {}
                Some(last) if last.step == 1 && run.step == 1 && run.start <= last.end => {
                    last.end = last.end.max(run.end);
                }
                _ => merged.push(run),
            }
        }
        if merged.windows(2).any(|pair| pair[0].end >= pair[1].start) {
            let mut members: Vec<u32> = merged.into_iter().flat_map(Run::iter).collect();
            members.sort_unstable();
            members.dedup();
            return Self::from_sorted(members);
        }
        Self::from_ascending(merged)
    }

    /// From runs with disjoint spans, ascending.
    fn from_ascending(runs: Vec<Run>) -> Self {
        let mut set = Self { runs };
        set.tidy(0, usize::MAX);
        set
    }

    /// From strictly ascending members.
    fn from_sorted(members: impl IntoIterator<Item = u32>) -> Self {
        let mut set = Self::new();
        for index in members {
            set.runs.push(Run::single(index));
            let top = set.runs.len();
            set.tidy(top.saturating_sub(3), top);
        }
        set
    }

    /// The place of the first run that does not end below `index`.
    fn position(&self, index: u32) -> usize {
        self.runs.partition_point(|run| run.end < index)
    }

    /// Joins neighbours among the runs `from..to` where that makes fewer of them.
    fn tidy(&mut self, from: usize, to: usize) {
        let to = to.min(self.runs.len());
        let Some(window) = self.runs.get(from..to) else { return };
        let mut tidied: Vec<Run> = Vec::with_capacity(window.len());
        for run in window {
            push_joined(&mut tidied, *run);
        }
        if tidied.as_slice() != window {
            self.runs.splice(from..to, tidied);
        }
    }
}

/// How many of the runs end below `index`.
fn before(runs: &[Run], index: u32) -> usize {
    runs.partition_point(|run| run.end < index)
}

/// Whether every member of `run` is one of `outer`, as far as is cheap to tell.
fn covers(outer: Run, run: Run) -> bool {
    let inside = outer.contains(run.start) && run.end <= outer.end;
    inside && (run.is_single() || run.step.is_multiple_of(outer.step))
}

/// Appends `run` to ascending runs, joined with the last where they go on in step.
fn push_joined(runs: &mut Vec<Run>, run: Run) {
    let Some(last) = runs.last_mut() else {
        runs.push(run);
        return;
    };
    if let Some(step) = last.continues_with(run) {
        *last = Run { start: last.start, end: run.end, step };
        return;
    }
    let touching = last.end.checked_add(1) == Some(run.start);
    if touching && last.step == 1 {
        // The first member of a stepped run continues a dense one.
        last.end = run.start;
        runs.extend(run.split_around(run.start).1);
    } else if touching && run.step == 1 {
        // The last member of a stepped run begins a dense one.
        let end = last.end;
        let rest = last.split_around(end).0;
        runs.pop();
        runs.extend(rest);
        runs.push(Run { start: end, end: run.end, step: 1 });
    } else {
        runs.push(run);
    }
}

impl PartialEq for IndexSet {
    fn eq(&self, other: &Self) -> bool {
        self.runs == other.runs || (self.len() == other.len() && self.iter().eq(other.iter()))
    }
}

impl Eq for IndexSet {}

impl PartialOrd for IndexSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By members, as a sorted list of them would.
impl Ord for IndexSet {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.runs == other.runs { Ordering::Equal } else { self.iter().cmp(other.iter()) }
    }
}

impl Hash for IndexSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Equal sets agree on these whatever runs they are cut into.
        (self.len(), self.first(), self.last()).hash(state);
    }
}

impl FromIterator<u32> for IndexSet {
    fn from_iter<I: IntoIterator<Item = u32>>(members: I) -> Self {
        let mut members: Vec<u32> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        Self::from_sorted(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;
    use std::hash::DefaultHasher;

    use proptest::prelude::*;

    fn hash(set: &IndexSet) -> u64 {
        let mut hasher = DefaultHasher::new();
        set.hash(&mut hasher);
        hasher.finish()
    }

    /// What every set holds, whatever was done to it.
    fn check(set: &IndexSet) {
        for run in set.ranges() {
            assert!(run.start <= run.end && run.step >= 1, "{set:?}");
            assert_eq!((run.end - run.start) % run.step, 0, "{set:?}");
            assert!(run.start < run.end || run.step == 1, "{set:?}");
        }
        assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start), "{set:?}");
    }

    #[test]
    fn a_million_stepped_tasks_are_one_run() {
        let mut set = IndexSet::from_range(0, 1_000_000, 2);
        assert_eq!((set.ranges().len(), set.len()), (1, 500_001));
        assert_eq!((set.pop_first(), set.first(), set.last()), (Some(0), Some(2), Some(1_000_000)));
        assert!(set.remove(500_000) && !set.remove(500_001));
        assert_eq!(set.ranges().len(), 2);
        assert!(set.insert(500_000));
        assert_eq!(set.ranges().len(), 1);
    }

    #[test]
    fn filling_the_gaps_of_a_stepped_set_ends_in_one_run() {
        for ascending in [true, false] {
            let mut set = IndexSet::from_range(0, 100, 2);
            for step in 0..50 {
                let index = if ascending { 2 * step + 1 } else { 99 - 2 * step };
                assert!(set.insert(index));
                check(&set);
                assert!(set.ranges().len() <= 3, "{set:?}");
            }
            assert_eq!(set.ranges(), [Run { start: 0, end: 100, step: 1 }]);
        }
    }

    #[test]
    fn taking_ranges_out_of_millions_looks_at_runs_alone() {
        // Four thousand million members: whoever lists them does not come back.
        let all = IndexSet::from_range(0, u32::MAX, 1);
        let even = IndexSet::from_range(0, u32::MAX, 2);
        let some = IndexSet::from_range(10, u32::MAX - 10, 1);
        assert_eq!(all.difference(&some).len(), 20);
        assert_eq!(even.intersection(&some).ranges().len(), 1);
        assert_eq!(some.intersection(&even).ranges().len(), 1);
        assert_eq!(even.difference(&some).len(), 10);
        assert!(even.difference(&all).is_empty() && even.is_subset(&all));
    }

    #[test]
    fn the_ends_of_the_range_are_members_like_others() {
        let mut set = IndexSet::new();
        for index in [u32::MAX, 0, u32::MAX - 1] {
            assert!(set.insert(index) && !set.insert(index));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, u32::MAX - 1, u32::MAX]);
        assert_eq!(IndexSet::from_range(0, u32::MAX, 1).len(), 1 << 32);
        assert!(set.remove(u32::MAX) && set.remove(0) && !set.contains(u32::MAX));
    }

    #[test]
    fn equal_members_are_equal_sets_whatever_the_runs() {
        let one = IndexSet::from_runs([Run { start: 0, end: 4, step: 2 }, Run::single(6)]);
        let mut other = IndexSet::from_range(0, 8, 2);
        other.remove(8);
        other.remove(2);
        other.insert(2);
        assert_eq!((&one, hash(&one)), (&other, hash(&other)));
        assert!(one < IndexSet::from_range(0, 8, 2));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u32),
        Remove(u32),
        Pop,
        Union(u32, u32, u32),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0_u32..60).prop_map(Op::Insert),
            4 => (0_u32..60).prop_map(Op::Remove),
            1 => Just(Op::Pop),
            1 => (0_u32..60, 0_u32..60, 1_u32..7).prop_map(|(a, b, step)| Op::Union(a, b, step)),
        ]
    }

    proptest! {
        #[test]
        fn a_set_does_what_a_btree_set_does(ops in prop::collection::vec(any_op(), 0..60)) {
            let mut set = IndexSet::new();
            let mut model = BTreeSet::new();
            for op in ops {
                match op {
                    Op::Insert(index) => prop_assert_eq!(set.insert(index), model.insert(index)),
                    Op::Remove(index) => prop_assert_eq!(set.remove(index), model.remove(&index)),
                    Op::Pop => prop_assert_eq!(set.pop_first(), model.pop_first()),
                    Op::Union(start, end, step) => {
                        set = set.union(&IndexSet::from_range(start, end, step));
                        model.extend((start..=end).step_by(step as usize));
                    }
                }
                check(&set);
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.len(), model.len() as u64);
                let rebuilt: IndexSet = model.iter().copied().collect();
                prop_assert_eq!(hash(&set), hash(&rebuilt));
                prop_assert_eq!(&set, &rebuilt);
            }
        }

        #[test]
        fn sets_of_runs_meet_as_sets_of_members_do(
            runs in prop::collection::vec((0_u32..60, 0_u32..60, 1_u32..5), 1..5),
            others in prop::collection::vec((0_u32..60, 0_u32..60, 1_u32..5), 1..5),
        ) {
            let of = |runs: Vec<(u32, u32, u32)>| -> (IndexSet, BTreeSet<u32>) {
                let runs = runs.into_iter().map(|(start, end, step)| Run { start, end, step });
                let set = IndexSet::from_runs(runs);
                let members = set.iter().collect();
                (set, members)
            };
            let ((a, a_members), (b, b_members)) = (of(runs), of(others));
            let (less, both) = (a.difference(&b), a.intersection(&b));
            check(&less);
            check(&both);
            prop_assert!(less.iter().eq(a_members.difference(&b_members).copied()));
            prop_assert!(both.iter().eq(a_members.intersection(&b_members).copied()));
        }

        #[test]
        fn runs_in_any_order_make_the_set_of_their_members(
            runs in prop::collection::vec((0_u32..40, 0_u32..40, 1_u32..6), 0..6),
            others in prop::collection::btree_set(0_u32..40, 0..20),
        ) {
            let runs: Vec<Run> = runs.into_iter().map(|(start, end, step)| Run { start, end, step }).collect();
            let model: BTreeSet<u32> = runs.iter().flat_map(|r| (r.start..=r.end).step_by(r.step as usize)).collect();
            let set = IndexSet::from_runs(runs);
            check(&set);
            prop_assert!(set.iter().eq(model.iter().copied()));
            let other: IndexSet = others.iter().copied().collect();
            check(&set.difference(&other));
            check(&set.intersection(&other));
            prop_assert_eq!(set.is_subset(&other), model.is_subset(&others));
            prop_assert!(set.difference(&other).iter().eq(model.difference(&others).copied()));
            prop_assert!(set.intersection(&other).iter().eq(model.intersection(&others).copied()));
        }
    }
}
