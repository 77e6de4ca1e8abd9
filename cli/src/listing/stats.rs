//! What did the tasks of a step use, over all its nodes?
//!
//! Each node tells what its own tasks used; here they come together, and it is remembered on which node
//! the highest and the lowest were. What nobody measured is not shown.

use std::borrow::Cow;

use penstock_proto::usage::task_usage_from_wire;
use penstock_proto::v1;
use penstock_vocab::{Measure, Spread, TaskUsage};

use super::job_row::{JobRow, Part};
use super::job_values::files::batch_node;
use super::value::{Amount, Value};

/// Which number of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Sum of all tasks.
    Total,
    /// Mean over the tasks.
    Mean,
    /// The highest of a task.
    Max,
    /// The lowest of a task.
    Min,
}

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extreme<'a> {
    /// The number.
    pub(crate) value: u64,
    /// The node.
    pub(crate) node: &'a str,
    /// The task.
    pub(crate) task: u32,
}

/// What the tasks of a step used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stats<'a> {
    nodes: Vec<(&'a str, TaskUsage)>,
    all: TaskUsage,
}

/// Quantities of TRESUsageIn*, by the names that they have there, in order of these.
const IN: [(&str, Measure); 8] = [
    ("cpu", Measure::Cpu),
    ("energy", Measure::Energy),
    ("fs/disk", Measure::Read),
    ("gres/gpumem", Measure::GpuMemory),
    ("gres/gpuutil", Measure::GpuUtil),
    ("mem", Measure::Rss),
    ("pages", Measure::Pages),
    ("vmem", Measure::VmSize),
];

/// Those of TRESUsageOut*.
const OUT: [(&str, Measure); 1] = [("fs/disk", Measure::Written)];

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// What came in.
    In,
    /// What went out.
    Out,
}

impl Way {
    const fn measures(self) -> &'static [(&'static str, Measure)] {
        match self {
            Self::In => &IN,
            Self::Out => &OUT,
        }
    }
}

impl<'a> Stats<'a> {
    /// Of these nodes' tasks.
    pub(crate) fn of(nodes: impl Iterator<Item = (&'a str, &'a v1::Usage)>) -> Self {
        let mut stats = Self::default();
        for (node, usage) in nodes {
            let tasks = match &usage.tasks {
                Some(tasks) => task_usage_from_wire(tasks),
                None => from_group(usage),
            };
            if !tasks.is_empty() {
                stats.all.join(&tasks);
                stats.nodes.push((node, tasks));
            }
        }
        stats
    }

    /// Of a row of accounting that is about a step that has ended.
    pub(crate) fn of_row(row: &JobRow<'a>) -> Self {
        let Some(run) = row.run.filter(|run| run.end_ms != 0) else { return Self::default() };
        match (row.part, row.step) {
            (Part::Step, Some(step)) => {
                let parts = step.step().shares.iter();
                Self::of(parts.filter_map(|part| {
                    let node = part.share.as_ref().map_or("", |share| &share.node);
                    Some((node, part.result.as_ref()?.usage.as_ref()?))
                }))
            }
            (Part::Batch, _) => Self::of(run.usage.iter().map(|usage| (batch_node(row), usage))),
            (Part::Whole | Part::Task(_) | Part::Step, _) => Self::default(),
        }
    }

    /// A number; `None`: it is not known.
    pub(crate) fn get(&self, which: Which, measure: Measure) -> Option<u64> {
        let spread = self.all.get(measure)?;
        match which {
            Which::Total => Some(spread.total),
            Which::Mean => self.all.mean(measure),
            Which::Max => Some(spread.max),
            Which::Min => Some(spread.min),
        }
    }

    /// The highest or the lowest, with where that was.
    pub(crate) fn extreme(&self, which: Which, measure: Measure) -> Option<Extreme<'a>> {
        let pick = |spread: &Spread| match which {
            Which::Total | Which::Mean | Which::Max => (spread.max, spread.max_task),
            Which::Min => (spread.min, spread.min_task),
        };
        let wanted = pick(self.all.get(measure)?);
        let mut own =
            self.nodes.iter().filter_map(|(node, tasks)| Some((node, tasks.get(measure)?)));
        let (node, _) = own.find(|(_, spread)| pick(spread) == wanted)?;
        Some(Extreme { value: wanted.0, node, task: wanted.1 })
    }

    /// `cpu=00:00:01,mem=2976K`; empty: nothing is known.
    pub(crate) fn amounts(&self, way: Way, which: Which) -> Value<'a> {
        let known = way.measures().iter().filter_map(|(name, measure)| {
            let number = self.get(which, *measure)?;
            Some((
                *name,
                match measure {
                    Measure::Cpu => Amount::Secs(number / 1_000_000),
                    Measure::Energy => Amount::Plain(number / 1_000),
                    Measure::Rss | Measure::VmSize | Measure::GpuMemory => Amount::Memory(number),
                    Measure::Read | Measure::Written => Amount::Bytes(number),
                    Measure::Pages | Measure::GpuUtil => Amount::Plain(number),
                },
            ))
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() { Value::Empty } else { Value::Amounts(known) }
    }

    /// `cpu=n1,mem=n2`.
    pub(crate) fn nodes(&self, way: Way, which: Which) -> Value<'a> {
        self.joined(way, which, |extreme| extreme.node.to_owned())
    }

    /// `cpu=0,mem=3`.
    pub(crate) fn tasks(&self, way: Way, which: Which) -> Value<'a> {
        self.joined(way, which, |extreme| extreme.task.to_string())
    }

    fn joined(&self, way: Way, which: Which, show: impl Fn(Extreme<'a>) -> String) -> Value<'a> {
        let words = way.measures().iter().filter_map(|(name, measure)| {
            Some(format!("{name}={}", show(self.extreme(which, *measure)?)))
        });
        let text = words.collect::<Vec<_>>().join(",");
        if text.is_empty() { Value::Empty } else { Value::Word(Cow::Owned(text)) }
    }
}

/// What a record says that knows of no tasks: its group is taken for one.
fn from_group(usage: &v1::Usage) -> TaskUsage {
    let mut tasks = TaskUsage::of(1);
    let cpu = usage.user_cpu_usec.saturating_add(usage.system_cpu_usec);
    if cpu > 0 || usage.peak_memory_bytes > 0 {
        tasks.set(Measure::Cpu, Some(Spread::of(0, cpu)));
    }
    if usage.peak_memory_bytes > 0 {
        tasks.set(Measure::Rss, Some(Spread::of(0, usage.peak_memory_bytes)));
    }
    tasks
}

#[cfg(test)]
mod tests {
    use penstock_proto::usage::task_usage_to_wire;

    use super::*;

    fn usage(values: &[(u32, u64)]) -> v1::Usage {
        let mut all = TaskUsage::of(0);
        for (task, value) in values {
            let mut one = TaskUsage::of(1);
            one.set(Measure::Rss, Some(Spread::of(*task, *value)));
            one.set(Measure::Written, Some(Spread::of(*task, value / 2)));
            all.join(&one);
        }
        v1::Usage { tasks: task_usage_to_wire(&all), ..v1::Usage::default() }
    }

    #[test]
    fn nodes_come_together_and_keep_their_names() {
        let (one, two) = (usage(&[(0, 10), (1, 40)]), usage(&[(2, 60), (3, 6)]));
        let stats = Stats::of([("n1", &one), ("n2", &two)].into_iter());
        assert_eq!(stats.get(Which::Total, Measure::Rss), Some(116));
        assert_eq!(stats.get(Which::Mean, Measure::Rss), Some(29));
        let max = stats.extreme(Which::Max, Measure::Rss);
        assert_eq!(max, Some(Extreme { value: 60, node: "n2", task: 2 }));
        let min = stats.extreme(Which::Min, Measure::Rss);
        assert_eq!(min, Some(Extreme { value: 6, node: "n2", task: 3 }));
        assert_eq!(stats.extreme(Which::Max, Measure::Cpu), None);
        assert_eq!(stats.nodes(Way::In, Which::Max), Value::word("mem=n2"));
        assert_eq!(stats.tasks(Way::Out, Which::Min), Value::word("fs/disk=3"));
        assert_eq!(
            stats.amounts(Way::Out, Which::Max),
            Value::Amounts(vec![("fs/disk", Amount::Bytes(30))])
        );
    }

    #[test]
    fn what_nobody_measured_is_not_shown() {
        let none = v1::Usage::default();
        let stats = Stats::of([("n1", &none)].into_iter());
        assert_eq!(stats.amounts(Way::In, Which::Total), Value::Empty);
        assert_eq!(stats.nodes(Way::In, Which::Max), Value::Empty);
        // A record of before tasks were measured.
        let old = v1::Usage { user_cpu_usec: 7, peak_memory_bytes: 4096, ..v1::Usage::default() };
        let stats = Stats::of([("n1", &old)].into_iter());
        assert_eq!(stats.get(Which::Max, Measure::Cpu), Some(7));
        assert_eq!(stats.extreme(Which::Max, Measure::Rss).map(|max| max.node), Some("n1"));
    }
}
