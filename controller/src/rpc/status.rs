//! How does a refusal travel?
//!
//! As a gRPC status whose code tells a program what to do, whose message tells a person, and whose
//! details are the encoded `Refusal`.

use penstock_core::Refusal;
use prost::Message;
use tonic::{Code, Status};

use crate::convert::wire::refusal_to_wire;
use crate::writer::ExecuteError;

/// The status of a refusal.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let details = refusal_to_wire(refusal).encode_to_vec();
    Status::with_details(code(refusal), refusal.to_string(), details.into())
}

/// The status of a command that was not carried out.
pub(super) fn failed(error: &ExecuteError) -> Status {
    match error {
        ExecuteError::Refused(refusal) => refused(refusal),
        ExecuteError::Panicked => Status::internal(error.to_string()),
        ExecuteError::Full => Status::resource_exhausted(error.to_string()),
        ExecuteError::Store(_) => Status::resource_exhausted(error.to_string()),
        ExecuteError::Closing => Status::unavailable(error.to_string()),
    }
}

fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::AccessDenied(_)
        | Refusal::TimeLimitRaise(_)
        | Refusal::PartitionNotAllowed { .. }
        | Refusal::AccountNotAllowed { .. }
        | Refusal::InvalidToken(_)
        | Refusal::HostNameTaken(_)
        | Refusal::HostRevoked(_) => Code::PermissionDenied,
        Refusal::InvalidJobId(_)
        | Refusal::InvalidStep(..)
        | Refusal::InvalidNode(_)
        | Refusal::InvalidHost(_)
        | Refusal::UnknownRecord(_) => Code::NotFound,
        Refusal::TooManyJobs(_) => Code::ResourceExhausted,
        Refusal::InvalidPartition(_)
        | Refusal::InvalidFeature(_)
        | Refusal::InvalidGres(_)
        | Refusal::InvalidName(_)
        | Refusal::InvalidLicense(_)
        | Refusal::InvalidAccount(_)
        | Refusal::InvalidQos(_)
        | Refusal::InvalidChange(_)
        | Refusal::DeadlineTooEarly(_)
        | Refusal::ArrayTooLarge { .. }
        | Refusal::TooManyItems { .. }
        | Refusal::TooManyProcessors(_)
        | Refusal::Malformed { .. } => Code::InvalidArgument,
        Refusal::CrontabLine { cause, .. } => code(cause),
        Refusal::Remembered { .. } | Refusal::CronWithoutWord(_) | Refusal::CronUnchangeable(_) => {
            Code::FailedPrecondition
        }
        Refusal::NoDefaultPartition
        | Refusal::AlreadySuspended(_)
        | Refusal::NotSuspended(_)
        | Refusal::NodesBusy(_)
        | Refusal::StepBusy(_)
        | Refusal::StepLimit { .. }
        | Refusal::NotAnAllocation(_)
        | Refusal::Reservation { .. }
        | Refusal::PolicyLimit { .. }
        | Refusal::JobsActive(_)
        | Refusal::DefaultAccount(_)
        | Refusal::DefaultQos(_)
        | Refusal::PartitionClosed { .. }
        | Refusal::NeverFits(_)
        | Refusal::MemoryNeverFits(_)
        | Refusal::CircularDependency(_)
        | Refusal::AlreadyDone(_)
        | Refusal::NotPending(_)
        | Refusal::NotRunning(_)
        | Refusal::NoChange
        | Refusal::RequeueDisabled(_)
        | Refusal::ReasonMissing
        | Refusal::StalePlan(_)
        | Refusal::OldSession(_) => Code::FailedPrecondition,
    }
}
