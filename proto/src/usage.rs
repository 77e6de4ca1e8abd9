//! How is it written what tasks used?

use penstock_vocab::{Measure, Spread, TaskUsage};

use crate::v1;

/// Number under which accounting knows the step of a batch script, as Slurm's.
pub const BATCH_STEP: u32 = 4_294_967_291;

/// As messages and records have it; `None` where nothing was measured.
#[must_use]
pub fn task_usage_to_wire(usage: &TaskUsage) -> Option<Box<v1::TaskUsage>> {
    let spread = |measure| {
        usage.get(measure).map(|spread: &Spread| v1::Spread {
            total: spread.total,
            rest: spread.total.saturating_sub(spread.max),
            max_task: spread.max_task,
            range: spread.max.saturating_sub(spread.min),
            min_task: spread.min_task,
        })
    };
    (!usage.is_empty()).then(|| {
        Box::new(v1::TaskUsage {
            tasks: usage.tasks,
            cpu: spread(Measure::Cpu),
            rss: spread(Measure::Rss),
            vm_size: spread(Measure::VmSize),
            pages: spread(Measure::Pages),
            read: spread(Measure::Read),
            written: spread(Measure::Written),
            energy: spread(Measure::Energy),
            gpu_util: spread(Measure::GpuUtil),
            gpu_memory: spread(Measure::GpuMemory),
        })
    })
}

/// Inverse of [`task_usage_to_wire`]; numbers that contradict each other are cut.
#[must_use]
pub fn task_usage_from_wire(wire: &v1::TaskUsage) -> TaskUsage {
    let mut usage = TaskUsage::of(wire.tasks);
    for (measure, spread) in [
        (Measure::Cpu, &wire.cpu),
        (Measure::Rss, &wire.rss),
        (Measure::VmSize, &wire.vm_size),
        (Measure::Pages, &wire.pages),
        (Measure::Read, &wire.read),
        (Measure::Written, &wire.written),
        (Measure::Energy, &wire.energy),
        (Measure::GpuUtil, &wire.gpu_util),
        (Measure::GpuMemory, &wire.gpu_memory),
    ] {
        usage.set(measure, spread.as_ref().map(spread_from_wire));
    }
    usage
}

fn spread_from_wire(wire: &v1::Spread) -> Spread {
    let max = wire.total.saturating_sub(wire.rest);
    Spread {
        total: wire.total,
        max,
        max_task: wire.max_task,
        min: max.saturating_sub(wire.range),
        min_task: wire.min_task,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn it_comes_back_as_it_went_and_one_task_is_short() {
        let mut usage = TaskUsage::of(2);
        usage.add(Measure::Rss, &Spread::of(0, 10 << 20));
        usage.add(Measure::Rss, &Spread::of(3, 30 << 20));
        usage.add(Measure::Cpu, &Spread::of(3, 0));
        let wire = task_usage_to_wire(&usage).unwrap();
        assert_eq!(task_usage_from_wire(&wire), usage);
        assert_eq!(task_usage_to_wire(&TaskUsage::of(1)), None);
        let mut one = TaskUsage::of(1);
        Measure::ALL.iter().for_each(|measure| one.set(*measure, Some(Spread::of(0, 1 << 30))));
        let bytes = task_usage_to_wire(&one).unwrap().encode_to_vec();
        assert!(bytes.len() <= 80, "{} bytes", bytes.len());
    }

    #[test]
    fn nonsense_is_cut() {
        let wire = v1::Spread { total: 5, rest: 9, range: u64::MAX, ..v1::Spread::default() };
        assert_eq!(spread_from_wire(&wire), Spread { total: 5, ..Spread::default() });
    }
}
