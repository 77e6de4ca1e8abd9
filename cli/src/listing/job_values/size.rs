//! How many nodes, CPUs, tasks and other resources does it ask for or have?

use std::borrow::Cow;

use penstock_proto::v1;
use penstock_vocab::{GresName, GresRequest, JobState};

use crate::listing::job_row::{JobRow, Part};
use crate::listing::tres;
use crate::listing::value::Value;

pub(crate) fn num_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    let of_step = row.step.map(|step| step.run.shares.len() as u64);
    match (row.part, of_step) {
        (Part::Batch, _) => Value::Number(1),
        (_, Some(nodes)) => Value::number(nodes),
        (_, None) => Value::number(row.info.num_nodes),
    }
}

/// Nodes of the allocation; 0 where there never was one.
pub(crate) fn allocated_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.run.is_none() { Value::Number(0) } else { num_nodes(row) }
}

pub(crate) fn num_cpus<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(cpu_count(row))
}

/// CPUs of the job, or those of the batch step's node.
pub(crate) fn cpu_count(row: &JobRow<'_>) -> u64 {
    let of_share = |share: &v1::NodeShare| share.cpu_ranges.chunks_exact(2).map(range_len).sum();
    match (batch_share(row), row.step) {
        (_, Some(step)) => step.run.shares.iter().map(of_share).sum::<u64>(),
        (Some(share), None) => of_share(share),
        (None, None) => row.info.num_cpus.into(),
    }
}

fn range_len(range: &[u32]) -> u64 {
    u64::from(range[1]).saturating_sub(u64::from(range[0])).saturating_add(1)
}

/// What the batch step's node gives to the job, on the row of that step.
fn batch_share<'a>(row: &JobRow<'a>) -> Option<&'a v1::NodeShare> {
    let run = row.run.filter(|_| row.part == Part::Batch)?;
    run.shares.first().filter(|share| !share.cpu_ranges.is_empty())
}

/// At most so many leaf switches; 0: any number.
pub(crate) fn switches<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.spec.switches.map_or(0, |switches| switches.count))
}

pub(crate) fn num_tasks<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.info.num_tasks)
}

/// squeue's number of tasks: of a job that was cancelled while it waited Slurm has forgotten it.
pub(crate) fn queued_tasks<'a>(row: &JobRow<'a>) -> Value<'a> {
    if forgot_tasks(row) { Value::number(FORGOTTEN) } else { num_tasks(row) }
}

/// The same as scontrol writes it.
pub(crate) fn record_tasks<'a>(row: &JobRow<'a>) -> Value<'a> {
    if forgot_tasks(row) { Value::word("N/A") } else { num_tasks(row) }
}

/// Slurm's number for what has no value.
const FORGOTTEN: u32 = 0xffff_fffe;

fn forgot_tasks(row: &JobRow<'_>) -> bool {
    row.run.is_none() && row.base_state() == JobState::Cancelled
}

/// Tasks of a step; a batch step has one, and a job row says nothing.
pub(crate) fn step_tasks<'a>(row: &JobRow<'a>) -> Value<'a> {
    match (row.part, row.step) {
        (_, Some(step)) => Value::number(step.tasks()),
        (Part::Batch, None) => Value::Number(1),
        (Part::Whole | Part::Task(_) | Part::Step, None) => Value::Empty,
    }
}

pub(crate) fn cpus_per_task<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.spec.cpus_per_task.unwrap_or(1))
}

/// Least CPUs that a node must have.
pub(crate) fn min_cpus<'a>(row: &JobRow<'a>) -> Value<'a> {
    let tasks = row.spec.ntasks_per_node.unwrap_or(1).max(1);
    Value::number(tasks.saturating_mul(row.spec.cpus_per_task.unwrap_or(1)))
}

pub(crate) fn max_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.spec.nodes_max.max(row.info.num_nodes))
}

pub(crate) fn tasks_per_node<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.spec.ntasks_per_node.unwrap_or(0))
}

/// MiB of each CPU, as asked for or as the partition gives to who asks for none.
pub(crate) fn memory_per_cpu(row: &JobRow<'_>) -> Option<u64> {
    row.spec.mem_per_cpu_mib.or(row.info.default_mem_per_cpu_mib)
}

/// MiB of each node, in the same way.
pub(crate) fn memory_per_node(row: &JobRow<'_>) -> Option<u64> {
    row.spec.mem_per_node_mib.or(row.info.default_mem_per_node_mib)
}

/// Memory asked for, of a CPU or of a node.
pub(crate) fn min_memory<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Memory(memory_per_cpu(row).or_else(|| memory_per_node(row)).unwrap_or(0))
}

pub(crate) fn total_memory<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::Memory(row.info.memory_mib))
}

pub(crate) fn tres_requested<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::text(&row.info.tres_requested))
}

/// As sacct writes it; of the batch step what its node gives.
pub(crate) fn accounted_tres<'a>(row: &JobRow<'a>) -> Value<'a> {
    if let Some(step) = row.step {
        return Value::Text(Cow::Owned(without_billing(&step.info.tres_allocated)));
    }
    let Some(share) = batch_share(row) else {
        let allocated = if row.run.is_some() { row.info.tres_allocated.as_str() } else { "" };
        return if row.is_step() {
            Value::Text(Cow::Owned(without_billing(allocated)))
        } else {
            Value::text(allocated)
        };
    };
    let mut entries = vec![format!("cpu={}", cpu_count(row))];
    let mut gres: Vec<String> = share.gres.iter().map(gres_entry).collect();
    gres.sort_unstable();
    entries.append(&mut gres);
    if share.memory_mib > 0 {
        entries.push(format!("mem={}", penstock_vocab::Mib(share.memory_mib).to_arg()));
    }
    entries.push("node=1".to_owned());
    Value::Text(Cow::Owned(entries.join(",")))
}

fn gres_entry(gres: &v1::GresShare) -> String {
    let count = gres_count(gres);
    match gres.r#type.as_str() {
        "" => format!("gres/{}={count}", gres.name),
        kind => format!("gres/{}:{kind}={count}", gres.name),
    }
}

/// How many of a resource a share holds.
pub(crate) fn gres_count(gres: &v1::GresShare) -> u64 {
    if gres.ids.is_empty() { gres.count } else { gres.ids.len() as u64 }
}

fn without_billing(list: &str) -> String {
    let kept: Vec<&str> = list.split(',').filter(|entry| !entry.starts_with("billing=")).collect();
    kept.join(",")
}

/// In Slurm's order of ids; what is asked for while there is no allocation.
pub(crate) fn tres_allocated<'a>(row: &JobRow<'a>) -> Value<'a> {
    let list = match row.info.tres_allocated.as_str() {
        "" => &row.info.tres_requested,
        allocated => allocated,
    };
    Value::Text(Cow::Owned(tres::in_id_order(list)))
}

/// `gres:gpu:h100:4`, joined by commas.
pub(crate) fn tres_per_node<'a>(row: &JobRow<'a>) -> Value<'a> {
    let entries: Vec<String> = row.spec.gres_per_node.iter().map(gres_request).collect();
    Value::OrNa(Cow::Owned(entries.join(",")))
}

pub(crate) fn tres_per_job<'a>(row: &JobRow<'a>) -> Value<'a> {
    let total = row.spec.gpus_total.as_ref().map(gres_request);
    Value::OrNa(Cow::Owned(total.unwrap_or_default()))
}

fn gres_request(gres: &v1::GresCount) -> String {
    let kind = Some(gres.r#type.as_str()).filter(|kind| !kind.is_empty());
    match GresName::new(&gres.name, kind) {
        Ok(name) => format!("gres:{}", GresRequest { name, count: gres.count }),
        // A name that this version would not accept is still shown.
        Err(_) => format!("gres:{}:{}:{}", gres.name, gres.r#type, gres.count),
    }
}
