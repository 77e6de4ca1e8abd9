//! What state is a job in, and what do squeue and sacct call it?
//!
//! A job has one base state and a set of flags; tools show the first set flag, else the base.

use std::str::FromStr;

use crate::macros::{flag_set, named_enum};

named_enum! {
    /// The base state of a job. Codes are Slurm's, by which squeue sorts.
    pub enum JobState {
        /// Queued, without an allocation.
        Pending = 0, "PENDING";
        /// Has an allocation, also while prologs run.
        Running = 1, "RUNNING";
        /// Stopped, allocation kept, CPUs given up.
        Suspended = 2, "SUSPENDED";
        /// All processes ended with exit code 0.
        Completed = 3, "COMPLETED";
        /// Ended by its user or an administrator, before or after its start.
        Cancelled = 4, "CANCELLED";
        /// Ended with an exit code other than 0.
        Failed = 5, "FAILED";
        /// Reached its time limit.
        Timeout = 6, "TIMEOUT";
        /// One of its nodes failed.
        NodeFail = 7, "NODE_FAIL";
        /// Ended in favour of another job.
        Preempted = 8, "PREEMPTED";
        /// Its nodes could not be made ready.
        BootFail = 9, "BOOT_FAIL";
        /// Could no longer end by its deadline.
        Deadline = 10, "DEADLINE";
        /// Ended by the kernel for want of memory.
        OutOfMemory = 11, "OUT_OF_MEMORY";
    }
}

named_enum! {
    /// What goes on with a job besides its base state, in the order of display priority.
    pub enum JobFlag {
        /// Ended, but not every node has reported its epilog done.
        Completing = 0, "COMPLETING";
        /// Moves data out.
        StageOut = 1, "STAGE_OUT";
        /// Has nodes that are being made ready.
        Configuring = 2, "CONFIGURING";
        /// Its allocation is about to change size.
        Resizing = 3, "RESIZING";
        /// Goes back to the queue.
        Requeued = 4, "REQUEUED";
        /// Goes back to the queue of its federation.
        RequeueFed = 5, "REQUEUE_FED";
        /// Goes back to the queue and is held there.
        RequeueHold = 6, "REQUEUE_HOLD";
        /// Held after an exit that the user marked as special.
        SpecialExit = 7, "SPECIAL_EXIT";
        /// Stopped by a signal, CPUs kept.
        Stopped = 8, "STOPPED";
        /// Taken over by another cluster.
        Revoked = 9, "REVOKED";
        /// Held because its reservation was deleted.
        ResvDelHold = 10, "RESV_DEL_HOLD";
        /// A signal is on its way.
        Signaling = 11, "SIGNALING";
    }
}

flag_set! {
    /// The flags of a job.
    pub struct JobFlags of JobFlag;
}

/// Why a text is no job state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("job state {text:?} is unknown; use one of {}", all_job_states())]
pub struct UnknownState {
    /// The text as given.
    pub text: String,
}

/// What a user selects jobs by: a base state or a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateFilter {
    /// Jobs of this base state.
    Base(JobState),
    /// Jobs that have this flag.
    Flag(JobFlag),
}

/// The order in which squeue's error text lists the flags.
const LISTED_FLAGS: [JobFlag; 12] = [
    JobFlag::Completing,
    JobFlag::Configuring,
    JobFlag::Resizing,
    JobFlag::ResvDelHold,
    JobFlag::Requeued,
    JobFlag::RequeueFed,
    JobFlag::RequeueHold,
    JobFlag::Revoked,
    JobFlag::Signaling,
    JobFlag::SpecialExit,
    JobFlag::StageOut,
    JobFlag::Stopped,
];

impl JobState {
    /// The compact name, such as `PD`.
    #[must_use]
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Pending => "PD",
            Self::Running => "R",
            Self::Suspended => "S",
            Self::Completed => "CD",
            Self::Cancelled => "CA",
            Self::Failed => "F",
            Self::Timeout => "TO",
            Self::NodeFail => "NF",
            Self::Preempted => "PR",
            Self::BootFail => "BF",
            Self::Deadline => "DL",
            Self::OutOfMemory => "OOM",
        }
    }

    /// Whether the job has ended for good (its epilogs may still run: flag COMPLETING).
    #[must_use]
    pub const fn is_finished(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Suspended => false,
            Self::Completed
            | Self::Cancelled
            | Self::Failed
            | Self::Timeout
            | Self::NodeFail
            | Self::Preempted
            | Self::BootFail
            | Self::Deadline
            | Self::OutOfMemory => true,
        }
    }
}

impl JobFlag {
    /// The compact name, such as `CG`.
    #[must_use]
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Completing => "CG",
            Self::StageOut => "SO",
            Self::Configuring => "CF",
            Self::Resizing => "RS",
            Self::Requeued => "RQ",
            Self::RequeueFed => "RF",
            Self::RequeueHold => "RH",
            Self::SpecialExit => "SE",
            Self::Stopped => "ST",
            Self::Revoked => "RV",
            Self::ResvDelHold => "RD",
            Self::Signaling => "SI",
        }
    }
}

impl StateFilter {
    /// Whether a job in that state is selected: by its base state, or by a flag it has.
    #[must_use]
    pub const fn matches(self, base: JobState, flags: JobFlags) -> bool {
        match self {
            Self::Base(wanted) => wanted as u32 == base as u32,
            Self::Flag(wanted) => flags.contains(wanted),
        }
    }

    /// The long name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base(state) => state.name(),
            Self::Flag(flag) => flag.name(),
        }
    }
}

impl std::fmt::Display for StateFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for StateFilter {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_job_state(text)
    }
}

/// The long name that tools show: that of the first flag set, else of the base state.
#[must_use]
pub fn display_state(base: JobState, flags: JobFlags) -> &'static str {
    flags.iter().next().map_or_else(|| base.name(), JobFlag::name)
}

/// As [`display_state`], with the compact name.
#[must_use]
pub fn display_state_code(base: JobState, flags: JobFlags) -> &'static str {
    flags.iter().next().map_or_else(|| base.short_name(), JobFlag::short_name)
}

/// Reads a long or compact name in any case of letters.
///
/// # Errors
/// When no state or flag has that name.
pub fn parse_job_state(text: &str) -> Result<StateFilter, UnknownState> {
    let word = text.trim();
    let same = |long: &str, short: &str| {
        long.eq_ignore_ascii_case(word) || short.eq_ignore_ascii_case(word)
    };
    let base = JobState::ALL.iter().find(|state| same(state.name(), state.short_name()));
    let flag = || JobFlag::ALL.iter().find(|flag| same(flag.name(), flag.short_name()));
    match base {
        Some(state) => Ok(StateFilter::Base(*state)),
        None => match flag() {
            Some(flag) => Ok(StateFilter::Flag(*flag)),
            None => Err(UnknownState { text: text.to_owned() }),
        },
    }
}

/// All long names joined by commas, in the order of squeue's error text.
#[must_use]
pub fn all_job_states() -> String {
    let bases = JobState::ALL.iter().map(|state| state.name());
    let flags = LISTED_FLAGS.iter().map(|flag| flag.name());
    bases.chain(flags).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_flag_hides_the_base_state() {
        let both = JobFlags::EMPTY.with(JobFlag::Requeued).with(JobFlag::Completing);
        assert_eq!(display_state(JobState::Failed, both), "COMPLETING");
        assert_eq!(display_state_code(JobState::Failed, both), "CG");
        assert_eq!(display_state(JobState::Pending, both.without(JobFlag::Completing)), "REQUEUED");
        assert_eq!(display_state_code(JobState::OutOfMemory, JobFlags::EMPTY), "OOM");
    }

    #[test]
    fn every_name_reads_back_in_any_case() {
        for state in JobState::ALL {
            for name in [state.name(), state.short_name(), &state.name().to_lowercase()] {
                assert_eq!(parse_job_state(name), Ok(StateFilter::Base(*state)));
            }
            assert_eq!(JobState::from_code(state.code()), Some(*state));
        }
        for flag in JobFlag::ALL {
            for name in [flag.name(), flag.short_name()] {
                assert_eq!(parse_job_state(name), Ok(StateFilter::Flag(*flag)));
            }
            assert_eq!(JobFlag::from_code(flag.code()), Some(*flag));
        }
        assert_eq!(JobState::from_code(12), None);
        assert!(parse_job_state("xx").is_err());
    }

    #[test]
    fn the_list_names_each_state_once() {
        let list = all_job_states();
        assert!(list.starts_with("PENDING,RUNNING,SUSPENDED,"));
        assert_eq!(list.split(',').count(), JobState::ALL.len() + JobFlag::ALL.len());
        assert!(list.split(',').all(|name| parse_job_state(name).is_ok()));
    }

    #[test]
    fn flags_keep_their_bits() {
        let set: JobFlags = [JobFlag::Signaling, JobFlag::StageOut].into_iter().collect();
        assert_eq!(set.bits(), 1 << 11 | 1 << 1);
        assert_eq!(JobFlags::from_bits(set.bits() | 1 << 31), set);
        assert_eq!(set.iter().collect::<Vec<_>>(), [JobFlag::StageOut, JobFlag::Signaling]);
    }

    #[test]
    fn filters_look_at_base_and_flags() {
        let flags = JobFlags::EMPTY.with(JobFlag::Completing);
        assert!(StateFilter::Base(JobState::Failed).matches(JobState::Failed, flags));
        assert!(StateFilter::Flag(JobFlag::Completing).matches(JobState::Failed, flags));
        assert!(!StateFilter::Flag(JobFlag::Stopped).matches(JobState::Failed, flags));
    }

    #[test]
    fn only_ended_jobs_are_finished() {
        let unfinished = JobState::ALL.iter().filter(|state| !state.is_finished());
        let expect = [JobState::Pending, JobState::Running, JobState::Suspended];
        assert!(unfinished.eq(expect.iter()));
    }
}
