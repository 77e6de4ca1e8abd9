//! What is kept in memory of one attempt?

use penstock_vocab::{Millis, Timestamp};

use crate::io::TimeLimit;
use crate::words::{AttemptKey, AttemptReport, EndCause, ReportedPhase, RunResult};

/// First wait before an end that nobody acknowledged is reported again: longer than a commit of
/// a busy controller takes.
pub(crate) const FIRST_RETRY: Millis = Millis(2_000);

/// Longest such wait: each doubles the one before, so that a controller that cannot store ends
/// is not flooded with them.
pub(crate) const LAST_RETRY: Millis = Millis(60_000);

/// Where an attempt stands.
#[derive(Debug)]
pub(crate) enum Phase<L> {
    /// An earlier attempt of the job is not over here; starts when it is.
    Waiting { payload: L, limit: Option<TimeLimit> },
    /// The host was told to start it and has not answered.
    Starting,
    /// Found unclaimed after a restart; the host was told to take its lock. A terminate that
    /// comes meanwhile is kept, in case a shepherd is faster.
    Refusing { terminate: Option<(EndCause, u32)> },
    /// It runs.
    Running,
    /// It ended, and the controller has not acknowledged that.
    Ended { result: RunResult, retry: Retry },
    /// It never starts, and the controller has not acknowledged that.
    NeverStarted { spool: SpoolEntry, retry: Retry },
}

/// What of a never started attempt lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpoolEntry {
    /// An intent that was locked.
    Intent,
    /// A tombstone.
    Tombstone,
    /// Nothing.
    None,
}

/// When a report that must be acknowledged is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    due: Timestamp,
    wait: Millis,
}

impl Retry {
    /// Due at once, e.g. because there is no session to report in.
    pub(crate) const fn at(now: Timestamp) -> Self {
        Self { due: now, wait: FIRST_RETRY }
    }

    pub(crate) const fn due(&self) -> Timestamp {
        self.due
    }

    /// It was reported at `now`: the next time is later than the last was.
    pub(crate) fn reported(&mut self, now: Timestamp) {
        self.due = now.plus(self.wait);
        self.wait = self.wait.saturating_add(self.wait).min(LAST_RETRY);
    }

    /// There was no room for it at `now`.
    pub(crate) const fn postpone(&mut self, now: Timestamp) {
        self.due = now.plus(FIRST_RETRY);
    }

    /// A new session began: waits count from the start again.
    pub(crate) const fn restart(&mut self, now: Timestamp) {
        *self = Self::at(now);
    }
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Held<L> {
    pub(crate) phase: Phase<L>,
    /// Serial of the newest time limit seen.
    pub(crate) limit_serial: u32,
}

impl<L> Held<L> {
    pub(crate) const fn new(phase: Phase<L>) -> Self {
        Self { phase, limit_serial: 0 }
    }

    /// Whether a process of it may exist or come into being without another order.
    pub(crate) const fn may_run(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Refusing { .. } | Phase::Running => true,
            Phase::Waiting { .. } | Phase::Ended { .. } | Phase::NeverStarted { .. } => false,
        }
    }

    /// The schedule of the report that must be acknowledged, if there is one.
    pub(crate) const fn retry(&self) -> Option<&Retry> {
        match &self.phase {
            Phase::Ended { retry, .. } | Phase::NeverStarted { retry, .. } => Some(retry),
            Phase::Waiting { .. } | Phase::Starting | Phase::Refusing { .. } | Phase::Running => {
                None
            }
        }
    }

    /// As [`Self::retry`], to change it.
    pub(crate) const fn retry_mut(&mut self) -> Option<&mut Retry> {
        match &mut self.phase {
            Phase::Ended { retry, .. } | Phase::NeverStarted { retry, .. } => Some(retry),
            Phase::Waiting { .. } | Phase::Starting | Phase::Refusing { .. } | Phase::Running => {
                None
            }
        }
    }

    /// What the controller is told; `None` while nothing is decided.
    pub(crate) fn report(&self, key: AttemptKey) -> Option<AttemptReport> {
        let phase = match &self.phase {
            Phase::Waiting { .. } | Phase::Starting | Phase::Refusing { .. } => return None,
            Phase::Running => ReportedPhase::Running,
            Phase::Ended { result, .. } => ReportedPhase::Ended(result.clone()),
            Phase::NeverStarted { .. } => ReportedPhase::NeverStarted,
        };
        Some(AttemptReport { key, phase })
    }

    /// Whether a stranger's order could harm it: it may run, or its result could get lost.
    pub(crate) const fn is_at_stake(&self) -> bool {
        self.may_run() || matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether the node must be drained because of how this ended.
    pub(crate) const fn is_unkillable(&self) -> bool {
        matches!(self.phase, Phase::Ended { result: RunResult { unkillable: true, .. }, .. })
    }
}
