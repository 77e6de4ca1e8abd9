//! When was it submitted, when did it run, and for how long may it?

use crate::listing::job_row::JobRow;
use crate::listing::value::Value;

fn secs_between(from_ms: i64, to_ms: i64) -> u64 {
    u64::try_from(to_ms.div_euclid(1000) - from_ms.div_euclid(1000)).unwrap_or(0)
}

pub(crate) fn submit_time<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.is_step() { start_time(row) } else { Value::Time(row.job.submit_ms) }
}

pub(crate) fn eligible_time<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.is_step() { start_time(row) } else { Value::Time(eligible_ms(row)) }
}

/// Since when nothing but resources keeps the job back; 0: something does. Tasks that only their
/// array's throttle holds are not eligible to Slurm.
pub(crate) fn eligible_ms(row: &JobRow<'_>) -> i64 {
    let throttled = row.run.is_none() && row.info.reason == "JobArrayTaskLimit";
    if throttled { 0 } else { row.job.eligible_ms }
}

/// Since when its wait counts for its priority.
pub(crate) fn accrue_time<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Time(row.job.eligible_ms)
}

/// When the scheduler looked at the job last: when it let it start, or when it was cancelled; plans are
/// kept up to date, so that a job that waits is looked at all the time.
pub(crate) fn last_evaluation<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Time(match row.run {
        Some(run) => run.start_ms,
        None if row.base_state().is_finished() => row.job.end_ms,
        None => row.now_ms,
    })
}

pub(crate) fn start_time<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Time(row.start_ms())
}

/// The end, or the end that the limit sets.
pub(crate) fn end_time<'a>(row: &JobRow<'a>) -> Value<'a> {
    let (start, ended) = (row.start_ms(), row.ended_ms());
    let Some(limit) = row.limit_secs() else {
        return if ended == 0 { Value::NoEnd } else { Value::Time(ended) };
    };
    let limit_ms = i64::try_from(limit.saturating_mul(1000)).unwrap_or(i64::MAX);
    match (ended, start) {
        (0, 0) => Value::Time(0),
        (0, start) => {
            let stood = i64::try_from(row.suspended_ms()).unwrap_or(i64::MAX);
            Value::Time(start.saturating_add(limit_ms).saturating_add(stood))
        }
        (ended, _) => Value::Time(ended),
    }
}

/// When a run began or a waiting job was cancelled; never an expectation.
pub(crate) fn accounted_start<'a>(row: &JobRow<'a>) -> Value<'a> {
    let known = row.run.is_some() || row.base_state().is_finished();
    Value::Time(if known { row.start_ms() } else { 0 })
}

pub(crate) fn accounted_end<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Time(row.ended_ms())
}

pub(crate) fn time_used<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Elapsed(row.used_secs())
}

pub(crate) fn time_used_secs<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.used_secs())
}

pub(crate) fn time_limit<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::Limit(row.limit_secs()))
}

pub(crate) fn time_limit_minutes<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.limit_secs() {
        _ if row.is_step() => Value::Empty,
        None => Value::word("UNLIMITED"),
        Some(secs) => Value::number(secs.div_ceil(60)),
    }
}

pub(crate) fn deadline<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Time(row.spec.deadline_ms)
}

/// What the limit may be cut down to.
pub(crate) fn time_min<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Elapsed(row.spec.min_time_secs.unwrap_or(0))
}

/// How long the run stood still.
pub(crate) fn suspended<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Elapsed(row.suspended_ms() / 1000)
}

/// How long the job waits for few switches.
pub(crate) fn switch_wait<'a>(row: &JobRow<'a>) -> Value<'a> {
    let secs = row.spec.switches.map_or(0, |switches| switches.max_wait_secs);
    Value::Elapsed(secs.into())
}

pub(crate) fn time_left<'a>(row: &JobRow<'a>) -> Value<'a> {
    match row.limit_secs() {
        None => Value::Limit(None),
        Some(limit) => match limit.checked_sub(row.used_secs()) {
            Some(left) => Value::Elapsed(left),
            None => Value::word("INVALID"),
        },
    }
}

/// From the submission until the start, or until now.
pub(crate) fn pending_secs<'a>(row: &JobRow<'a>) -> Value<'a> {
    let until = row.run.map_or(row.now_ms, |run| run.start_ms);
    Value::number(secs_between(row.job.submit_ms, until))
}

/// From becoming eligible until the start, or until now.
fn reserved_secs(row: &JobRow<'_>) -> Option<u64> {
    let until = match row.run {
        Some(run) => run.start_ms,
        None if row.base_state().is_finished() => row.job.end_ms,
        None => row.now_ms,
    };
    match eligible_ms(row) {
        _ if row.is_step() => None,
        0 if row.base_state().is_finished() => Some(0),
        0 => None,
        since => Some(secs_between(since, until)),
    }
}

pub(crate) fn reserved<'a>(row: &JobRow<'a>) -> Value<'a> {
    reserved_secs(row).map_or(Value::Empty, Value::Elapsed)
}

pub(crate) fn reserved_cpu<'a>(row: &JobRow<'a>) -> Value<'a> {
    let cpus = u64::from(row.info.num_cpus);
    reserved_secs(row).map_or(Value::Empty, |secs| Value::Elapsed(secs.saturating_mul(cpus)))
}

pub(crate) fn reserved_cpu_secs<'a>(row: &JobRow<'a>) -> Value<'a> {
    let cpus = u64::from(row.info.num_cpus);
    reserved_secs(row).map_or(Value::Empty, |secs| Value::number(secs.saturating_mul(cpus)))
}
