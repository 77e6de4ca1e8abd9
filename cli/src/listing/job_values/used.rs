//! What did it use?

use std::borrow::Cow;

use penstock_vocab::Measure;

use super::size::cpu_count;
use crate::listing::job_row::{JobRow, Part};
use crate::listing::stats::{Extreme, Stats, Way, Which};
use crate::listing::tres::money;
use crate::listing::usage;
use crate::listing::value::{Amount, Value};

pub(crate) fn cpu_time<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Elapsed(cpu_time_of(row))
}

pub(crate) fn cpu_time_secs<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(cpu_time_of(row))
}

fn cpu_time_of(row: &JobRow<'_>) -> u64 {
    row.used_secs().saturating_mul(cpu_count(row))
}

/// `12.34 EUR`; nothing where the cluster has no rates.
pub(crate) fn cost<'a>(row: &JobRow<'a>) -> Value<'a> {
    let text = row.info.cost_millionths.map(|cost| money(cost, &row.info.currency));
    row.of_job(text.map_or(Value::Empty, |text| Value::Text(Cow::Owned(text))))
}

pub(crate) fn total_cpu<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_run(row, |used| used.user_cpu_usec.saturating_add(used.system_cpu_usec))
}

pub(crate) fn user_cpu<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_run(row, |used| used.user_cpu_usec)
}

pub(crate) fn system_cpu<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_run(row, |used| used.system_cpu_usec)
}

fn secs(usec: u64) -> Value<'static> {
    Value::Elapsed(usec / 1_000_000)
}

/// A number of the tasks of a step that has ended; empty elsewhere, and where it is not known.
fn number<'a>(
    row: &JobRow<'a>,
    which: Which,
    measure: Measure,
    show: fn(u64) -> Value<'a>,
) -> Value<'a> {
    Stats::of_row(row).get(which, measure).map_or(Value::Empty, show)
}

fn place<'a>(
    row: &JobRow<'a>,
    which: Which,
    measure: Measure,
    show: fn(Extreme<'a>) -> Value<'a>,
) -> Value<'a> {
    Stats::of_row(row).extreme(which, measure).map_or(Value::Empty, show)
}

fn node_of(extreme: Extreme<'_>) -> Value<'_> {
    Value::word(extreme.node)
}

fn task_of(extreme: Extreme<'_>) -> Value<'_> {
    Value::number(extreme.task)
}

/// Functions of fields, each of which shows one number of one quantity.
macro_rules! fields {
    ($($name:ident: $how:ident($which:ident, $measure:ident, $show:expr);)+) => { $(
        pub(crate) fn $name<'a>(row: &JobRow<'a>) -> Value<'a> {
            $how(row, Which::$which, Measure::$measure, $show)
        }
    )+ };
}

fields! {
    average_cpu: number(Mean, Cpu, secs);
    least_cpu: number(Min, Cpu, secs);
    least_cpu_node: place(Min, Cpu, node_of);
    least_cpu_task: place(Min, Cpu, task_of);
    average_memory: number(Mean, Rss, Value::Bytes);
    peak_memory: number(Max, Rss, Value::Bytes);
    peak_memory_node: place(Max, Rss, node_of);
    peak_memory_task: place(Max, Rss, task_of);
    average_vm: number(Mean, VmSize, Value::Bytes);
    peak_vm: number(Max, VmSize, Value::Bytes);
    peak_vm_node: place(Max, VmSize, node_of);
    peak_vm_task: place(Max, VmSize, task_of);
    average_pages: number(Mean, Pages, Value::Count);
    most_pages: number(Max, Pages, Value::Count);
    most_pages_node: place(Max, Pages, node_of);
    most_pages_task: place(Max, Pages, task_of);
    average_read: number(Mean, Read, Value::Disk);
    most_read: number(Max, Read, Value::Disk);
    most_read_node: place(Max, Read, node_of);
    most_read_task: place(Max, Read, task_of);
    average_written: number(Mean, Written, Value::Disk);
    most_written: number(Max, Written, Value::Disk);
    most_written_node: place(Max, Written, node_of);
    most_written_task: place(Max, Written, task_of);
}

/// Joules, as Slurm shortens them.
pub(crate) fn energy<'a>(row: &JobRow<'a>) -> Value<'a> {
    energy_of(row).map_or(Value::Empty, Value::Joules)
}

pub(crate) fn energy_raw<'a>(row: &JobRow<'a>) -> Value<'a> {
    energy_of(row).map_or(Value::Empty, Value::number)
}

fn energy_of(row: &JobRow<'_>) -> Option<u64> {
    let millijoules = match row.part {
        Part::Whole | Part::Task(_) => of_gpus(row, |gpu| gpu.energy_mj),
        Part::Batch | Part::Step => Stats::of_row(row).get(Which::Total, Measure::Energy),
    };
    millijoules.map(|energy| energy / 1_000)
}

/// Sum over the GPUs of a run that has ended; `None`: it is known of none.
fn of_gpus(
    row: &JobRow<'_>,
    pick: impl Fn(&penstock_proto::v1::GpuUsage) -> Option<u64>,
) -> Option<u64> {
    let run = row.run.filter(|run| run.end_ms != 0)?;
    run.gpus.iter().filter_map(pick).reduce(u64::saturating_add)
}

/// What a job made of its GPUs, all of them together; what else its steps used stands with them.
fn job_amounts<'a>(row: &JobRow<'a>) -> Value<'a> {
    let numbers = [
        ("energy", of_gpus(row, |gpu| gpu.energy_mj).map(|energy| Amount::Plain(energy / 1_000))),
        ("gres/gpumem", of_gpus(row, |gpu| Some(gpu.peak_memory_mib? << 20)).map(Amount::Memory)),
        (
            "gres/gpuutil",
            of_gpus(row, |gpu| gpu.utilization_mean.map(u64::from)).map(Amount::Plain),
        ),
    ];
    let known: Vec<_> =
        numbers.into_iter().filter_map(|(name, amount)| Some((name, amount?))).collect();
    if known.is_empty() { Value::Empty } else { Value::Amounts(known) }
}

/// Functions of the fields TRESUsage*.
macro_rules! tres {
    ($($name:ident: $how:ident($way:ident, $which:ident);)+) => { $(
        pub(crate) fn $name<'a>(row: &JobRow<'a>) -> Value<'a> {
            Stats::of_row(row).$how(Way::$way, Which::$which)
        }
    )+ };
}

tres! {
    tres_in_mean: amounts(In, Mean);
    tres_in_max: amounts(In, Max);
    tres_in_max_node: nodes(In, Max);
    tres_in_max_task: tasks(In, Max);
    tres_in_min: amounts(In, Min);
    tres_in_min_node: nodes(In, Min);
    tres_in_min_task: tasks(In, Min);
    tres_out_mean: amounts(Out, Mean);
    tres_out_max: amounts(Out, Max);
    tres_out_max_node: nodes(Out, Max);
    tres_out_max_task: tasks(Out, Max);
    tres_out_min: amounts(Out, Min);
    tres_out_min_node: nodes(Out, Min);
    tres_out_min_task: tasks(Out, Min);
    tres_out_total: amounts(Out, Total);
}

/// Of steps the sum of all tasks; of jobs what GPUs did.
pub(crate) fn tres_in_total<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.part {
        Part::Whole | Part::Task(_) => job_amounts(row),
        Part::Batch | Part::Step => Stats::of_row(row).amounts(Way::In, Which::Total),
    }
}
