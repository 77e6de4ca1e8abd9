//! How is a job array stored, whose tasks may be a million?

use penstock_core::model::{Array, ArraySummary};
use penstock_proto::v1;
use penstock_vocab::{
    GroupId, IndexSet, JobId, MAX_ARRAY_INDEX, Run as IndexRun, Timestamp, UserId,
};

use super::codes;
use super::error::ConvertError;
use super::job::SpecSharing;
use super::spec;

/// Indices as runs of start, end and step.
#[must_use]
pub fn indices_to_wire(set: &IndexSet) -> v1::IndexRuns {
    let runs = set.ranges().iter().flat_map(|run| [run.start, run.end, run.step]);
    v1::IndexRuns { runs: runs.collect() }
}

/// As [`indices_to_wire`]; absent where the set is empty.
pub(super) fn some_indices(set: &IndexSet) -> Option<v1::IndexRuns> {
    (!set.is_empty()).then(|| indices_to_wire(set))
}

/// Inverse of [`indices_to_wire`].
///
/// # Errors
/// If the runs are not triples, or go beyond the highest index of an array.
pub fn indices_from_wire(runs: &v1::IndexRuns) -> Result<IndexSet, ConvertError> {
    let wrong = |detail: String| ConvertError::Invalid { what: "array indices", detail };
    let triples = runs.runs.chunks_exact(3);
    if !triples.remainder().is_empty() {
        return Err(wrong(format!("{} numbers are no triples", runs.runs.len())));
    }
    let mut list = Vec::with_capacity(triples.len());
    // Ascending and disjoint, as sets are written: so the cost stays that of the runs.
    let mut above = 0;
    for triple in triples {
        let run = IndexRun { start: triple[0], end: triple[1], step: triple[2] };
        let ordered = run.start >= above && run.start <= run.end && run.step > 0;
        if !ordered || run.end > MAX_ARRAY_INDEX {
            return Err(wrong(format!("run {}-{}:{}", run.start, run.end, run.step)));
        }
        above = run.end + 1;
        list.push(run);
    }
    Ok(IndexSet::from_runs(list))
}

fn optional_indices(runs: Option<&v1::IndexRuns>) -> Result<IndexSet, ConvertError> {
    runs.map_or_else(|| Ok(IndexSet::new()), indices_from_wire)
}

/// An array as it was submitted.
#[must_use]
pub fn summary_to_wire(summary: &ArraySummary) -> v1::ArraySummary {
    v1::ArraySummary {
        task_count: summary.count,
        task_min: summary.min,
        task_max: summary.max,
        task_step: summary.step,
        throttle: summary.throttle,
    }
}

/// Inverse of [`summary_to_wire`].
#[must_use]
pub fn summary_from_wire(summary: &v1::ArraySummary) -> ArraySummary {
    ArraySummary {
        count: summary.task_count,
        min: summary.task_min,
        max: summary.task_max,
        step: summary.task_step,
        throttle: summary.throttle,
    }
}

/// An array as the store has it.
#[must_use]
pub fn array_to_wire(array: &Array) -> v1::ArrayJob {
    v1::ArrayJob {
        id: array.id.0,
        uid: array.uid.0,
        gid: array.gid.0,
        spec: Some(spec::spec_to_wire(&array.spec)),
        submit_ms: array.submit_time.0,
        pending: some_indices(&array.pending),
        summary: Some(summary_to_wire(&array.summary)),
        hold: codes::hold(array.hold) as i32,
        fixed_priority: array.fixed_priority,
        not_before_ms: array.not_before.0,
        time_limit_secs: spec::walltime_secs(array.time_limit),
        completed: array.completed,
        failed: some_indices(&array.failed),
        cancelled: some_indices(&array.cancelled),
        cancelled_ms: codes::moment(array.cancelled_at.map(|(at, _)| at)),
        cancelled_by_uid: array.cancelled_at.map_or(0, |(_, uid)| uid.0),
        last_end_ms: codes::moment(array.last_end),
        association: array.assoc.0,
        reason: codes::reason(array.reason),
        held: some_indices(&array.held),
        held_by_admin: some_indices(&array.held_by_admin),
        unlisted: array.unlisted,
    }
}

/// Inverse of [`array_to_wire`].
///
/// # Errors
/// If a part is missing, a code unknown, or a text can't be read.
pub fn array_from_wire(
    array: v1::ArrayJob,
    specs: &mut impl SpecSharing,
) -> Result<Array, ConvertError> {
    let summary = array.summary.ok_or(ConvertError::Missing { what: "the array's summary" })?;
    let cancelled_at = codes::moment_from(array.cancelled_ms);
    Ok(Array {
        id: JobId(array.id),
        uid: UserId(array.uid),
        gid: GroupId(array.gid),
        assoc: codes::association(array.association),
        spec: specs.shared_spec(array.spec)?,
        submit_time: Timestamp(array.submit_ms),
        pending: optional_indices(array.pending.as_ref())?,
        summary: summary_from_wire(&summary),
        hold: codes::hold_from(array.hold)?,
        fixed_priority: array.fixed_priority,
        not_before: Timestamp(array.not_before_ms),
        time_limit: spec::walltime(array.time_limit_secs),
        completed: array.completed,
        failed: optional_indices(array.failed.as_ref())?,
        cancelled: optional_indices(array.cancelled.as_ref())?,
        cancelled_at: cancelled_at.map(|at| (at, UserId(array.cancelled_by_uid))),
        last_end: codes::moment_from(array.last_end_ms),
        reason: codes::reason_from(array.reason)?,
        held: optional_indices(array.held.as_ref())?,
        held_by_admin: optional_indices(array.held_by_admin.as_ref())?,
        unlisted: array.unlisted,
    })
}
