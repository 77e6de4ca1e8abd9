//! How is one node used over time?

/// What a share takes of a node, in counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::scheduler) struct Amount {
    /// Logical CPUs.
    pub(in crate::scheduler) cpus: u32,
    /// MiB; of a licence its number.
    pub(in crate::scheduler) memory: u64,
    /// Units of each generic resource, in the order of the inventory.
    pub(in crate::scheduler) gres: Vec<u32>,
    /// For one user, who shares the node with nobody else.
    pub(in crate::scheduler) alone: bool,
}

/// What is in use of a node, but for generic resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::scheduler) struct Counts {
    /// Logical CPUs.
    pub(in crate::scheduler) cpus: u32,
    /// How many jobs.
    pub(in crate::scheduler) holders: u32,
    /// Those of them that share the node with no other user.
    pub(in crate::scheduler) alone: u32,
    /// MiB; of a licence its number.
    pub(in crate::scheduler) memory: u64,
}

/// The highest use within a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::scheduler) struct Peak {
    pub(in crate::scheduler) counts: Counts,
    pub(in crate::scheduler) gres: Vec<u32>,
}

/// Use from an instant until the next level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    at: i64,
    counts: Counts,
}

/// The use of one node over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scheduler) struct Line {
    /// In the order of time; the first is at the beginning of time.
    levels: Vec<Level>,
    /// `stride` counts for each level.
    gres: Vec<u32>,
    stride: usize,
    /// Whether something begins later, so that use does not only fall.
    grows: bool,
}

/// The use of one node over time, to look at.
#[derive(Debug, Clone, Copy)]
pub(in crate::scheduler) struct LineRef<'a> {
    pub(super) levels: &'a [Level],
    pub(super) gres: &'a [u32],
    pub(super) stride: usize,
    pub(super) grows: bool,
}

/// What may be in use at most for a request to fit.
pub(in crate::scheduler) trait Fits {
    /// Whether it fits beside this.
    fn fits(&self, counts: &Counts, gres: &[u32]) -> bool;
}

impl Line {
    /// Nothing is in use; `stride` generic resources are counted.
    pub(in crate::scheduler) fn new(stride: usize) -> Self {
        let first = Level { at: i64::MIN, counts: Counts::default() };
        Self { levels: vec![first], gres: vec![0; stride], stride, grows: false }
    }

    /// Whether so many generic resources are counted.
    pub(super) fn stride_is(&self, stride: usize) -> bool {
        self.stride == stride
    }

    /// Adds something that is in use from `from` until `until`; `i64::MIN`: it already is.
    pub(in crate::scheduler) fn add(&mut self, from: i64, until: i64, amount: &Amount) {
        if from >= until {
            return;
        }
        self.grows |= from > i64::MIN;
        let first = self.cut(from);
        let last = self.cut(until);
        for at in first..last {
            let used = &mut self.levels[at].counts;
            used.cpus = used.cpus.saturating_add(amount.cpus);
            used.memory = used.memory.saturating_add(amount.memory);
            used.holders = used.holders.saturating_add(1);
            used.alone = used.alone.saturating_add(u32::from(amount.alone));
            let counts = &mut self.gres[at * self.stride..(at + 1) * self.stride];
            for (count, more) in counts.iter_mut().zip(&amount.gres) {
                *count = count.saturating_add(*more);
            }
        }
    }

    /// Takes out something that was added for this time.
    pub(in crate::scheduler) fn remove(&mut self, from: i64, until: i64, amount: &Amount) {
        if from >= until {
            return;
        }
        let first = self.cut(from);
        let last = self.cut(until);
        for at in first..last {
            let used = &mut self.levels[at].counts;
            used.cpus = used.cpus.saturating_sub(amount.cpus);
            used.memory = used.memory.saturating_sub(amount.memory);
            used.holders = used.holders.saturating_sub(1);
            used.alone = used.alone.saturating_sub(u32::from(amount.alone));
            let counts = &mut self.gres[at * self.stride..(at + 1) * self.stride];
            for (count, less) in counts.iter_mut().zip(&amount.gres) {
                *count = count.saturating_sub(*less);
            }
        }
        // Where something was taken out, what ends there later may let use rise meanwhile.
        self.grows = true;
    }

    /// Makes a level begin at `at`, and tells which.
    fn cut(&mut self, at: i64) -> usize {
        let next = self.levels.partition_point(|level| level.at < at);
        if self.levels.get(next).is_some_and(|level| level.at == at) {
            return next;
        }
        // The first level begins before all time, so there is one before.
        let before = next - 1;
        let level = Level { at, ..self.levels[before] };
        self.levels.insert(next, level);
        let counts = before * self.stride..(before + 1) * self.stride;
        let counts: Vec<u32> = self.gres[counts].to_vec();
        let place = next * self.stride;
        self.gres.splice(place..place, counts);
        next
    }

    /// To look at.
    pub(in crate::scheduler) fn view(&self) -> LineRef<'_> {
        LineRef { levels: &self.levels, gres: &self.gres, stride: self.stride, grows: self.grows }
    }

    /// A line to add to, as this one is.
    pub(super) fn of(view: LineRef<'_>) -> Self {
        Self {
            levels: view.levels.to_vec(),
            gres: view.gres.to_vec(),
            stride: view.stride,
            grows: view.grows,
        }
    }
}

impl<'a> LineRef<'a> {
    /// Whether something begins later, so that use does not only fall.
    pub(in crate::scheduler) fn grows(self) -> bool {
        self.grows
    }

    fn gres_at(self, level: usize) -> &'a [u32] {
        &self.gres[level * self.stride..(level + 1) * self.stride]
    }

    fn level_at(self, at: i64) -> usize {
        self.levels.partition_point(|level| level.at <= at) - 1
    }

    /// What is in use at an instant.
    pub(in crate::scheduler) fn at(self, at: i64) -> (Counts, &'a [u32]) {
        let first = self.level_at(at);
        (self.levels[first].counts, self.gres_at(first))
    }

    /// The highest use from `from` until `until`.
    pub(in crate::scheduler) fn peak(self, from: i64, until: i64) -> Peak {
        let first = self.level_at(from);
        let (counts, gres) = (self.levels[first].counts, self.gres_at(first).to_vec());
        let mut peak = Peak { counts, gres };
        if self.grows {
            for at in first + 1..self.levels.len() {
                let level = self.levels[at];
                if level.at >= until {
                    break;
                }
                let (most, used) = (&mut peak.counts, &level.counts);
                most.cpus = most.cpus.max(used.cpus);
                most.memory = most.memory.max(used.memory);
                most.holders = most.holders.max(used.holders);
                most.alone = most.alone.max(used.alone);
                for (count, other) in peak.gres.iter_mut().zip(self.gres_at(at)) {
                    *count = (*count).max(*other);
                }
            }
        }
        peak
    }

    /// Whether a request fits from `from` until `until`.
    pub(in crate::scheduler) fn fits(self, need: &impl Fits, from: i64, until: i64) -> bool {
        let first = self.level_at(from);
        let last = if self.grows { self.levels.len() } else { first + 1 };
        (first..last).take_while(|at| *at == first || self.levels[*at].at < until).all(|at| {
            let level = self.levels[at];
            need.fits(&level.counts, self.gres_at(at))
        })
    }

    /// The earliest instant from `from` on at which a request fits for `length`; `None`: never.
    pub(in crate::scheduler) fn first_fit(
        self,
        need: &impl Fits,
        from: i64,
        length: i64,
    ) -> Option<i64> {
        let mut start = from;
        for at in self.level_at(from)..self.levels.len() {
            let level = self.levels[at];
            if level.at > start && level.at >= start.saturating_add(length) {
                return Some(start);
            }
            if !need.fits(&level.counts, self.gres_at(at)) {
                start = self.levels.get(at + 1)?.at;
            } else if !self.grows {
                return Some(start);
            }
        }
        Some(start)
    }

    /// Instants after `from` at which use changes.
    pub(in crate::scheduler) fn changes(self, from: i64) -> impl Iterator<Item = i64> + use<'a> {
        let first = self.levels.partition_point(|level| level.at <= from);
        self.levels[first..].iter().map(|level| level.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Most(u32);

    impl Fits for Most {
        fn fits(&self, counts: &Counts, gres: &[u32]) -> bool {
            counts.cpus <= self.0 && gres[0] <= self.0
        }
    }

    fn amount(cpus: u32, gres: u32) -> Amount {
        Amount { cpus, memory: u64::from(cpus), gres: vec![gres], alone: false }
    }

    proptest! {
        #[test]
        fn a_line_knows_what_counting_every_instant_knows(
            held in prop::collection::vec((0i64..30, 1i64..20, 0u32..5, 0u32..5), 0..8),
            running in prop::collection::vec((1i64..30, 0u32..5, 0u32..5), 0..4),
            most in 0u32..12,
            from in 0i64..40,
            length in 1i64..20,
        ) {
            let mut line = Line::new(1);
            let mut all = Vec::new();
            for (until, cpus, gres) in running {
                line.add(i64::MIN, until, &amount(cpus, gres));
                all.push((i64::MIN, until, cpus, gres));
            }
            for (start, length, cpus, gres) in held {
                line.add(start, start + length, &amount(cpus, gres));
                all.push((start, start + length, cpus, gres));
            }
            let at = |time: i64| {
                let here = all.iter().filter(|held| held.0 <= time && time < held.1);
                here.fold((0, 0), |sum, held| (sum.0 + held.2, sum.1 + held.3))
            };
            let window = |start: i64| (start..start + length).map(at);
            let line = line.view();
            let peak = line.peak(from, from + length);
            prop_assert_eq!(Some(peak.counts.cpus), window(from).map(|sum| sum.0).max());
            prop_assert_eq!(Some(peak.gres[0]), window(from).map(|sum| sum.1).max());
            let fits = |start: i64| window(start).all(|sum| sum.0 <= most && sum.1 <= most);
            prop_assert_eq!(line.fits(&Most(most), from, from + length), fits(from));
            let first = (from..200).find(|start| fits(*start));
            prop_assert_eq!(line.first_fit(&Most(most), from, length), first);
        }
    }
}
