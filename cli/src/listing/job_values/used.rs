//! What did it use?

use std::borrow::Cow;

use penstock_vocab::elapsed_long;

use super::files::batch_node;
use super::size::cpu_count;
use crate::listing::job_row::JobRow;
use crate::listing::tres::money;
use crate::listing::usage;
use crate::listing::value::Value;

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

pub(crate) fn average_cpu<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_step(row, |used| Some(Value::Elapsed(usage::cpu_secs(used))))
}

pub(crate) fn peak_memory<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_step(row, |used| usage::peak(used).map(Value::Bytes))
}

pub(crate) fn peak_memory_node<'a>(row: &JobRow<'a>) -> Value<'a> {
    let node = batch_node(row);
    usage::of_step(row, |used| usage::peak(used).map(|_| Value::word(node)))
}

pub(crate) fn peak_memory_task<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_step(row, |used| usage::peak(used).map(|_| Value::Number(0)))
}

pub(crate) fn cpu_node<'a>(row: &JobRow<'a>) -> Value<'a> {
    let node = batch_node(row);
    usage::of_step(row, |_| Some(Value::word(node)))
}

pub(crate) fn cpu_task<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_step(row, |_| Some(Value::Number(0)))
}

/// `cpu=00:00:01,energy=0,mem=2976K`, for all of TRESUsageIn*, since a batch step is one task.
pub(crate) fn tres_usage<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_step(row, |used| {
        let mut text = format!("cpu={},energy=0", elapsed_long(usage::cpu_secs(used)));
        if let Some(peak) = usage::peak(used) {
            text.push_str(&format!(",mem={}K", peak / 1024));
        }
        Some(Value::Word(Cow::Owned(text)))
    })
}

pub(crate) fn tres_usage_node<'a>(row: &JobRow<'a>) -> Value<'a> {
    let node = batch_node(row);
    usage::of_step(row, |used| {
        let mem = if usage::peak(used).is_some() { format!(",mem={node}") } else { String::new() };
        Some(Value::Word(Cow::Owned(format!("cpu={node},energy={node}{mem}"))))
    })
}

pub(crate) fn tres_usage_task<'a>(row: &JobRow<'a>) -> Value<'a> {
    usage::of_step(row, |used| {
        let text = if usage::peak(used).is_some() { "cpu=0,mem=0" } else { "cpu=0" };
        Some(Value::word(text))
    })
}
