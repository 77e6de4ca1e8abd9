//! What did the tasks of a step use, and which of them the most and the least?
//!
//! Of each quantity five numbers are kept, however many tasks there are; two such sums, of different
//! tasks, join to a third. What was not measured is absent, and never nothing.

/// A quantity that is measured of each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// CPU time in user mode and in the kernel, microseconds.
    Cpu,
    /// Highest resident memory, bytes.
    Rss,
    /// Highest size of the address space, bytes.
    VmSize,
    /// Page faults that needed the disk.
    Pages,
    /// Bytes read, from whatever kind of file.
    Read,
    /// Bytes written.
    Written,
    /// Energy, millijoules.
    Energy,
    /// Utilisation of GPUs, percent, the sum over those that the task had.
    GpuUtil,
    /// Highest memory in use on GPUs, bytes.
    GpuMemory,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Rss,
        Self::VmSize,
        Self::Pages,
        Self::Read,
        Self::Written,
        Self::Energy,
        Self::GpuUtil,
        Self::GpuMemory,
    ];
}

/// A quantity over some tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// Sum over the tasks.
    pub total: u64,
    /// The highest.
    pub max: u64,
    /// Number of the task that had it; the lowest of several.
    pub max_task: u32,
    /// The lowest.
    pub min: u64,
    /// Number of the task that had it; the lowest of several.
    pub min_task: u32,
}

impl Spread {
    /// Of one task.
    #[must_use]
    pub const fn of(task: u32, value: u64) -> Self {
        Self { total: value, max: value, max_task: task, min: value, min_task: task }
    }

    /// Takes other tasks in.
    pub fn join(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        let higher = other.max > self.max;
        if higher || (other.max == self.max && other.max_task < self.max_task) {
            (self.max, self.max_task) = (other.max, other.max_task);
        }
        let lower = other.min < self.min;
        if lower || (other.min == self.min && other.min_task < self.min_task) {
            (self.min, self.min_task) = (other.min, other.min_task);
        }
    }
}

/// What some tasks used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskUsage {
    /// How many tasks were measured.
    pub tasks: u32,
    spreads: [Option<Spread>; Measure::ALL.len()],
}

impl TaskUsage {
    /// So many tasks of which nothing was measured yet.
    #[must_use]
    pub const fn of(tasks: u32) -> Self {
        Self { tasks, spreads: [None; Measure::ALL.len()] }
    }

    /// A quantity; `None`: it was not measured.
    #[must_use]
    pub const fn get(&self, measure: Measure) -> Option<&Spread> {
        self.spreads[measure as usize].as_ref()
    }

    /// Sets a quantity.
    pub const fn set(&mut self, measure: Measure, spread: Option<Spread>) {
        self.spreads[measure as usize] = spread;
    }

    /// Takes one more value of a quantity in.
    pub fn add(&mut self, measure: Measure, spread: &Spread) {
        match &mut self.spreads[measure as usize] {
            Some(known) => known.join(spread),
            none => *none = Some(*spread),
        }
    }

    /// Takes other tasks in.
    pub fn join(&mut self, other: &Self) {
        self.tasks = self.tasks.saturating_add(other.tasks);
        for measure in Measure::ALL {
            if let Some(spread) = other.get(measure) {
                self.add(measure, spread);
            }
        }
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spreads.iter().all(Option::is_none)
    }

    /// The mean over the tasks, rounded down; `None`: it was not measured.
    #[must_use]
    pub fn mean(&self, measure: Measure) -> Option<u64> {
        self.get(measure).map(|spread| spread.total / u64::from(self.tasks.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(values: &[(u32, u64)]) -> TaskUsage {
        let mut sum = TaskUsage::default();
        for (task, value) in values {
            let mut one = TaskUsage::of(1);
            one.set(Measure::Rss, Some(Spread::of(*task, *value)));
            sum.join(&one);
        }
        sum
    }

    #[test]
    fn the_highest_and_the_lowest_are_known_by_task() {
        let sum = usage(&[(3, 20), (1, 50), (2, 10), (0, 50)]);
        let expect = Spread { total: 130, max: 50, max_task: 0, min: 10, min_task: 2 };
        assert_eq!((sum.tasks, sum.get(Measure::Rss)), (4, Some(&expect)));
        assert_eq!((sum.mean(Measure::Rss), sum.mean(Measure::Cpu)), (Some(32), None));
        assert!(!sum.is_empty() && TaskUsage::default().is_empty());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_order_tasks_are_joined(
            values in prop::collection::vec((0_u32..64, 0_u64..8), 1..12),
            cut in 0_usize..12,
        ) {
            let cut = cut.min(values.len());
            let whole = usage(&values);
            let mut turned = usage(&values[cut..]);
            turned.join(&usage(&values[..cut]));
            prop_assert_eq!(whole, turned);
        }
    }
}
