//! Under which numbers are enums sent and stored?

use penstock_core::command::NodeAction;
use penstock_core::model::{AssocId, EndCause, Hold, HostRole, RunStage};
use penstock_proto::v1;
use penstock_vocab::{JobState, PendingReason, Timestamp};

use super::error::ConvertError;

fn unknown(what: &'static str, code: impl Into<i64>) -> ConvertError {
    ConvertError::UnknownCode { what, code: code.into() }
}

/// The moment of a field in which 0 means none.
pub fn moment(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.0)
}

/// Inverse of [`moment`].
pub fn moment_from(ms: i64) -> Option<Timestamp> {
    (ms != 0).then_some(Timestamp(ms))
}

/// The association that is charged; records of before there were any name none.
pub fn association(id: u32) -> AssocId {
    if id == 0 { AssocId::ROOT } else { AssocId(id) }
}

/// Who holds a job.
pub fn hold(hold: Hold) -> v1::HoldKind {
    match hold {
        Hold::None => v1::HoldKind::None,
        Hold::User => v1::HoldKind::User,
        Hold::Admin => v1::HoldKind::Admin,
    }
}

/// Inverse of [`hold`].
///
/// # Errors
/// For a code of a newer version.
pub fn hold_from(code: i32) -> Result<Hold, ConvertError> {
    match v1::HoldKind::try_from(code).map_err(|_| unknown("hold", code))? {
        v1::HoldKind::None => Ok(Hold::None),
        v1::HoldKind::User => Ok(Hold::User),
        v1::HoldKind::Admin => Ok(Hold::Admin),
    }
}

/// Why a run ends.
pub fn cause(cause: EndCause) -> v1::EndCause {
    match cause {
        EndCause::Exited => v1::EndCause::Exited,
        EndCause::Cancelled => v1::EndCause::Cancelled,
        EndCause::TimeLimit => v1::EndCause::TimeLimit,
        EndCause::NodeFail => v1::EndCause::NodeFail,
        EndCause::Requeue => v1::EndCause::Requeue,
        EndCause::RequeueHold => v1::EndCause::RequeueHold,
        EndCause::LaunchFailed => v1::EndCause::LaunchFailed,
        EndCause::OutOfMemory => v1::EndCause::OutOfMemory,
        EndCause::Preempted => v1::EndCause::Preempted,
        EndCause::PreemptedRequeue => v1::EndCause::PreemptedRequeue,
        EndCause::Deadline => v1::EndCause::Deadline,
    }
}

/// Inverse of [`cause`].
///
/// # Errors
/// For a code of a newer version, and for none at all.
pub fn cause_from(code: i32) -> Result<EndCause, ConvertError> {
    match v1::EndCause::try_from(code).map_err(|_| unknown("end_cause", code))? {
        v1::EndCause::Unspecified => Err(unknown("end_cause", code)),
        v1::EndCause::Exited => Ok(EndCause::Exited),
        v1::EndCause::Cancelled => Ok(EndCause::Cancelled),
        v1::EndCause::TimeLimit => Ok(EndCause::TimeLimit),
        v1::EndCause::NodeFail => Ok(EndCause::NodeFail),
        v1::EndCause::Requeue => Ok(EndCause::Requeue),
        v1::EndCause::RequeueHold => Ok(EndCause::RequeueHold),
        v1::EndCause::LaunchFailed => Ok(EndCause::LaunchFailed),
        v1::EndCause::OutOfMemory => Ok(EndCause::OutOfMemory),
        v1::EndCause::Preempted => Ok(EndCause::Preempted),
        v1::EndCause::PreemptedRequeue => Ok(EndCause::PreemptedRequeue),
        v1::EndCause::Deadline => Ok(EndCause::Deadline),
    }
}

/// How far a run got, and why it shall end where it shall.
pub fn stage(stage: RunStage) -> (v1::RunStage, v1::EndCause) {
    match stage {
        RunStage::Allocated => (v1::RunStage::Allocated, v1::EndCause::Unspecified),
        RunStage::Launched => (v1::RunStage::Launched, v1::EndCause::Unspecified),
        RunStage::Ending(why) => (v1::RunStage::Ending, cause(why)),
        RunStage::Ended => (v1::RunStage::Ended, v1::EndCause::Unspecified),
    }
}

/// Inverse of [`stage`].
///
/// # Errors
/// For a code of a newer version, and for none at all.
pub fn stage_from(code: i32, end_cause: i32) -> Result<RunStage, ConvertError> {
    match v1::RunStage::try_from(code).map_err(|_| unknown("run stage", code))? {
        v1::RunStage::Unspecified => Err(unknown("run stage", code)),
        v1::RunStage::Allocated => Ok(RunStage::Allocated),
        v1::RunStage::Launched => Ok(RunStage::Launched),
        v1::RunStage::Ending => Ok(RunStage::Ending(cause_from(end_cause)?)),
        v1::RunStage::Ended => Ok(RunStage::Ended),
    }
}

/// A host's role.
pub fn role(role: HostRole) -> v1::HostRole {
    match role {
        HostRole::Compute => v1::HostRole::Compute,
        HostRole::Login => v1::HostRole::Login,
        HostRole::Admin => v1::HostRole::Admin,
    }
}

/// Inverse of [`role`].
///
/// # Errors
/// For a code of a newer version, and for none at all.
pub fn role_from(code: i32) -> Result<HostRole, ConvertError> {
    match v1::HostRole::try_from(code).map_err(|_| unknown("host role", code))? {
        v1::HostRole::Unspecified => Err(unknown("host role", code)),
        v1::HostRole::Compute => Ok(HostRole::Compute),
        v1::HostRole::Login => Ok(HostRole::Login),
        v1::HostRole::Admin => Ok(HostRole::Admin),
    }
}

/// A job's state, by its stable code.
///
/// # Errors
/// For a code of a newer version.
pub fn state_from(code: u32) -> Result<JobState, ConvertError> {
    JobState::from_code(code).ok_or_else(|| unknown("job state", code))
}

/// A reason that is kept with a job; 0 is none.
pub fn reason(reason: Option<PendingReason>) -> u32 {
    reason.map_or(0, PendingReason::code)
}

/// Inverse of [`reason`].
///
/// # Errors
/// For a code of a newer version.
pub fn reason_from(code: u32) -> Result<Option<PendingReason>, ConvertError> {
    if code == 0 {
        return Ok(None);
    }
    PendingReason::from_code(code).map(Some).ok_or_else(|| unknown("reason", code))
}

/// What is asked of a node; unspecified is no change of state.
///
/// # Errors
/// For a code of a newer version.
pub fn node_action_from(code: i32) -> Result<Option<NodeAction>, ConvertError> {
    let action = match v1::NodeAction::try_from(code).map_err(|_| unknown("action", code))? {
        v1::NodeAction::Unspecified => return Ok(None),
        v1::NodeAction::Drain => NodeAction::Drain,
        v1::NodeAction::Down => NodeAction::Down,
        v1::NodeAction::Fail => NodeAction::Fail,
        v1::NodeAction::Resume => NodeAction::Resume,
        v1::NodeAction::Undrain => NodeAction::Undrain,
        v1::NodeAction::PowerDown => NodeAction::PowerDown,
        v1::NodeAction::PowerUp => NodeAction::PowerUp,
    };
    Ok(Some(action))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_values_are_inverse() {
        for value in [Hold::None, Hold::User, Hold::Admin] {
            assert_eq!(hold_from(hold(value) as i32), Ok(value));
        }
        for value in [HostRole::Compute, HostRole::Login, HostRole::Admin] {
            assert_eq!(role_from(role(value) as i32), Ok(value));
        }
        let causes = (1..=11).map(|code| cause_from(code).unwrap());
        for value in causes.map(RunStage::Ending).chain([RunStage::Allocated, RunStage::Ended]) {
            let (code, why) = stage(value);
            assert_eq!(stage_from(code as i32, why as i32), Ok(value));
        }
    }

    #[test]
    fn codes_of_newer_versions_are_refused_and_named() {
        let errors = [
            hold_from(99).unwrap_err(),
            cause_from(0).unwrap_err(),
            stage_from(99, 0).unwrap_err(),
            stage_from(v1::RunStage::Ending as i32, 99).unwrap_err(),
            role_from(0).unwrap_err(),
            state_from(99).unwrap_err(),
            reason_from(99_999).unwrap_err(),
            node_action_from(99).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, ConvertError::UnknownCode { .. }), "{error}");
        }
    }
}
