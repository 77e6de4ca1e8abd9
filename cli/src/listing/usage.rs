//! What does accounting say about a run and its batch step?
//!
//! A job that was cancelled, ran into its limit or lost a node has no exit code of its own (`0:0`);
//! its batch step shows the signal instead.

use penstock_proto::v1;
use penstock_vocab::{ExitCode, JobFlag, JobState};

use super::job_row::{JobRow, Part};
use super::value::Value;

/// SIGTERM, by which Slurm ends a batch step first.
const TERM: u8 = 15;

/// State of a row in sacct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    /// A base state.
    Base(JobState),
    /// A run that ended for the job to go back to the queue.
    Requeued,
}

impl RowState {
    /// The word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base(state) => state.name(),
            Self::Requeued => "REQUEUED",
        }
    }
}

/// What the line's state is: that of the run where it has ended, else that of the job.
pub(crate) fn row_state(row: &JobRow<'_>) -> RowState {
    if let Some(step) = row.step {
        return RowState::Base(step.state());
    }
    let Some(run) = row.run else { return RowState::Base(row.base_state()) };
    if row.part == Part::Batch {
        return RowState::Base(batch_state(run));
    }
    let requeued = row.flags().contains(JobFlag::Requeued);
    match run.end_cause() {
        _ if run.end_ms == 0 => RowState::Base(live_state(row)),
        // What made the job go back to the queue is told where it was not a wish.
        v1::EndCause::NodeFail => RowState::Base(JobState::NodeFail),
        v1::EndCause::PreemptedRequeue => RowState::Base(JobState::Preempted),
        v1::EndCause::Requeue | v1::EndCause::RequeueHold => RowState::Requeued,
        _ if requeued => RowState::Requeued,
        _ => RowState::Base(JobState::from_code(run.end_state).unwrap_or_else(|| row.base_state())),
    }
}

/// A run that goes on is RUNNING or SUSPENDED, whatever an older copy of the record says.
fn live_state(row: &JobRow<'_>) -> JobState {
    match row.base_state() {
        JobState::Pending => JobState::Running,
        state => state,
    }
}

fn batch_state(run: &v1::Run) -> JobState {
    if run.end_ms == 0 {
        return JobState::Running;
    }
    match run.end_cause() {
        v1::EndCause::OutOfMemory => JobState::OutOfMemory,
        v1::EndCause::LaunchFailed => JobState::Failed,
        v1::EndCause::Cancelled
        | v1::EndCause::TimeLimit
        | v1::EndCause::NodeFail
        | v1::EndCause::Requeue
        | v1::EndCause::RequeueHold
        | v1::EndCause::Preempted
        | v1::EndCause::PreemptedRequeue
        | v1::EndCause::Deadline => JobState::Cancelled,
        v1::EndCause::Exited | v1::EndCause::Unspecified => {
            match (run.exit_status, run.exit_signal) {
                (0, 0) => JobState::Completed,
                (_, 0) => JobState::Failed,
                (_, _) => JobState::Cancelled,
            }
        }
    }
}

/// Whether the run came to have a batch step.
pub(crate) fn has_batch_step(row: &JobRow<'_>) -> bool {
    !row.spec.allocation && row.run.is_some_and(|run| run.end_cause() != v1::EndCause::LaunchFailed)
}

/// The exit code as accounting shows it.
pub(crate) fn row_exit_code(row: &JobRow<'_>) -> ExitCode {
    let raw = row.exit_code();
    let cause = row.run.map_or(v1::EndCause::Unspecified, v1::Run::end_cause);
    let ended_from_outside = match cause {
        v1::EndCause::Cancelled
        | v1::EndCause::TimeLimit
        | v1::EndCause::NodeFail
        | v1::EndCause::Requeue
        | v1::EndCause::RequeueHold
        | v1::EndCause::Preempted
        | v1::EndCause::PreemptedRequeue
        | v1::EndCause::Deadline => true,
        v1::EndCause::Unspecified
        | v1::EndCause::Exited
        | v1::EndCause::LaunchFailed
        | v1::EndCause::OutOfMemory => false,
    };
    match (ended_from_outside, row.part) {
        (_, Part::Step) => raw,
        _ if cause == v1::EndCause::OutOfMemory => ExitCode::OUT_OF_MEMORY,
        (false, _) => raw,
        (true, Part::Batch) if raw.is_success() && row.ended_ms() != 0 => ExitCode::signaled(TERM),
        (true, Part::Batch) => raw,
        (true, Part::Whole | Part::Task(_)) => ExitCode::SUCCESS,
    }
}

/// The exit code as squeue and scontrol show it: that of the batch script, which the signal ended where
/// the job was ended from outside.
pub(crate) fn live_exit_code(row: &JobRow<'_>) -> ExitCode {
    match row.run {
        Some(_) if !row.spec.allocation => row_exit_code(&row.with_part(Part::Batch)),
        Some(_) | None => row.exit_code(),
    }
}

/// The highest exit code of the run's steps.
pub(crate) fn derived_exit(row: &JobRow<'_>) -> ExitCode {
    let narrow = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    row.run.map_or(ExitCode::SUCCESS, |run| ExitCode {
        status: narrow(run.derived_status),
        signal: narrow(run.derived_signal),
    })
}

/// Who cancelled the job, where that is its state.
pub(crate) fn cancelled_by(row: &JobRow<'_>) -> Option<u32> {
    let cancelled = row_state(row) == RowState::Base(JobState::Cancelled);
    let uid = row.run.map_or(row.job.cancelled_by_uid, |run| run.ended_by_uid);
    // A step of srun says who ended it, the batch step never does.
    (cancelled && row.part != Part::Batch).then_some(uid)
}

/// CPU time that the run used: of a job the sum of its batch step and all others.
pub(crate) fn of_run<'a>(row: &JobRow<'_>, pick: impl Fn(&v1::Usage) -> u64) -> Value<'a> {
    let own = row.run.and_then(|run| run.usage.as_ref()).map_or(0, &pick);
    let whole = matches!(row.part, Part::Whole | Part::Task(_));
    let attempt = row.run.filter(|_| whole).map(|run| run.attempt);
    let steps = row.info.steps.iter().filter(|step| Some(step.attempt) == attempt);
    let of_steps = steps.filter_map(|step| step.usage.as_ref()).map(&pick);
    Value::Cpu(of_steps.fold(own, u64::saturating_add))
}
