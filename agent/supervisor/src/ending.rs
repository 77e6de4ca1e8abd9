//! When does an attempt that runs get which signal, and when is it over?
//!
//! A state machine for the end of one attempt. Times are milliseconds on a clock that also counts
//! while the machine sleeps (`CLOCK_BOOTTIME`); none is read here. The caller feeds what happens
//! ([`Input`]), does what comes back ([`Action`]), and calls again at [`Ending::deadline`].
//!
//! Invariants: SIGKILL follows the first request to end by the wait it came with, whatever else
//! arrives; an attempt whose processes are gone is over at once; one whose processes outlive
//! SIGKILL is over after [`UNKILLABLE_SECS`], and says so. Time in suspension counts for no limit.
//! Where a lease is held, SIGKILL follows its end by the attempt's own wait, suspended or not; a
//! lease that is over is never renewed.
//!
//! Where a batch shell ends on SIGTERM before its children do, the children keep the rest of the
//! wait: a program that saves its state on SIGTERM is not cut short by its shell. (Slurm kills
//! what the shell leaves behind at once, but its steps are not below the shell.)

use penstock_vocab::{Millis, Signal, SignalSpec};

use crate::words::EndCause;

/// Seconds after SIGKILL until processes that still exist are given up; Slurm's
/// `UnkillableStepTimeout`.
pub const UNKILLABLE_SECS: u64 = 60;

/// Which of an attempt's processes a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Every process.
    Everything,
    /// The batch shell alone.
    Shell,
    /// The tasks of steps, not the batch shell.
    Steps,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// Somebody wants the attempt to end.
    Terminate {
        /// Why; the first cause stays.
        cause: EndCause,
        /// Seconds between SIGTERM and SIGKILL; 0 kills at once.
        kill_wait_secs: u32,
    },
    /// The time limit changed; a serial that is not newer than the last one is ignored.
    SetLimit {
        /// Seconds from the start; `None` for no limit.
        limit_secs: Option<u64>,
        /// Number of the change.
        serial: u32,
    },
    /// The lease as it stands, looked up since the last deadline: it is over at that time.
    Lease {
        /// The end; one before that known is ignored.
        until: Millis,
    },
    /// All processes are to stand still.
    Suspend,
    /// They are to go on.
    Resume,
    /// The batch shell ended.
    Exited {
        /// No other process of the attempt is left.
        empty: bool,
    },
    /// No process is left. Ignored before the batch shell ended.
    Empty,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell the user, in the job's output, that it is being ended.
    Announce(EndCause),
    /// Send a signal.
    Signal(Signal, Target),
    /// Let all processes stand still.
    Freeze,
    /// Let them go on.
    Thaw,
    /// Kill every process, frozen or not.
    Kill,
    /// Processes outlived SIGKILL; the attempt is over without them.
    Unkillable,
    /// The attempt is over; nothing follows.
    Done,
}

/// What a new attempt is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Seconds from the start; `None` for no limit.
    pub limit_secs: Option<u64>,
    /// Number of the change that set the limit.
    pub limit_serial: u32,
    /// Seconds between SIGTERM and SIGKILL at the time limit.
    pub kill_wait_secs: u32,
    /// Seconds after SIGKILL until what is still there is given up.
    pub unkillable_secs: u64,
    /// A signal that the job asked for before its limit (`--signal`).
    pub warning: Option<SignalSpec>,
    /// Until when it may run unless [`Input::Lease`] says more; `None`: it needs no lease. When
    /// this time has come, the caller says [`Input::Lease`] before anything else.
    pub lease_until: Option<Millis>,
}

/// The end of one attempt; see the module's documentation.
#[derive(Debug, Clone)]
pub struct Ending {
    terms: Terms,
    started: Millis,
    warned: bool,
    suspended_at: Option<Millis>,
    suspended: Millis,
    exited: bool,
    cause: Option<EndCause>,
    fenced: bool,
    unkillable: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// SIGTERM was sent; SIGKILL follows.
    Asked {
        kill_at: Millis,
    },
    /// SIGKILL was sent.
    Killing {
        give_up_at: Millis,
    },
    Done,
}

impl Ending {
    /// An attempt whose process was started at `now`.
    #[must_use]
    pub const fn new(now: Millis, terms: Terms) -> Self {
        Self {
            terms,
            started: now,
            warned: false,
            suspended_at: None,
            suspended: Millis::ZERO,
            exited: false,
            cause: None,
            fenced: false,
            unkillable: false,
            phase: Phase::Running,
        }
    }

    /// Takes in what happened at `now`, which never goes back.
    pub fn on(&mut self, now: Millis, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Tick => {}
            Input::Terminate { cause, kill_wait_secs } => {
                self.terminate(now, cause, kill_wait_secs, &mut actions);
            }
            Input::SetLimit { limit_secs, serial } => self.set_limit(now, limit_secs, serial),
            Input::Lease { until } => self.lease(now, until, &mut actions),
            Input::Suspend => self.suspend(now, &mut actions),
            Input::Resume => self.resume(now, &mut actions),
            Input::Exited { empty } => self.exited(now, empty, &mut actions),
            Input::Empty => {
                if self.exited {
                    self.finish(&mut actions);
                }
            }
        }
        self.tick(now, &mut actions);
        actions
    }

    /// When [`Input::Tick`] is due at the latest; `None` if time alone changes nothing.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let due = match self.phase {
            Phase::Running if self.suspended_at.is_some() => None,
            Phase::Running => {
                let warning = self.warning_at().map(|(at, _)| at);
                warning.into_iter().chain(self.limit_at()).min()
            }
            Phase::Asked { kill_at } => Some(kill_at),
            Phase::Killing { give_up_at } => Some(give_up_at),
            Phase::Done => None,
        };
        due.into_iter().chain(self.lease_until()).min()
    }

    /// When the lease is over that is held; `None` where none is, or where what follows from its
    /// end has begun.
    #[must_use]
    pub const fn lease_until(&self) -> Option<Millis> {
        match self.phase {
            Phase::Running | Phase::Asked { .. } if !self.fenced => self.terms.lease_until,
            Phase::Running | Phase::Asked { .. } | Phase::Killing { .. } | Phase::Done => None,
        }
    }

    /// Whether the caller should find out when the last process is gone.
    #[must_use]
    pub const fn wants_empty(&self) -> bool {
        self.exited && !self.is_done()
    }

    /// Whether the attempt is over.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Why the attempt was ended from outside, if it was.
    #[must_use]
    pub const fn cause(&self) -> Option<EndCause> {
        self.cause
    }

    /// Whether the lease ran out while the attempt was there.
    #[must_use]
    pub const fn fenced(&self) -> bool {
        self.fenced
    }

    /// Whether processes outlived SIGKILL.
    #[must_use]
    pub const fn unkillable(&self) -> bool {
        self.unkillable
    }

    /// Time since the start, without suspensions.
    #[must_use]
    pub fn elapsed(&self, now: Millis) -> Millis {
        let until = self.suspended_at.unwrap_or(now);
        until.saturating_sub(self.started).saturating_sub(self.suspended)
    }

    fn limit_at(&self) -> Option<Millis> {
        let limit = Millis::from_secs(self.terms.limit_secs?);
        Some(self.started.saturating_add(self.suspended).saturating_add(limit))
    }

    /// When the warning is due and what it is; `None` once it was sent.
    fn warning_at(&self) -> Option<(Millis, SignalSpec)> {
        let warning = self.terms.warning.filter(|_| !self.warned)?;
        let lead = Millis::from_secs(u64::from(warning.lead_secs));
        Some((self.limit_at()?.saturating_sub(lead), warning))
    }

    fn terminate(
        &mut self,
        now: Millis,
        cause: EndCause,
        wait_secs: u32,
        actions: &mut Vec<Action>,
    ) {
        let kill_at = now.saturating_add(Millis::from_secs(u64::from(wait_secs)));
        self.end_by(now, cause, kill_at, actions);
    }

    /// Asks for the end, which comes by force at `kill_at`, or at once where that has passed.
    fn end_by(&mut self, now: Millis, cause: EndCause, kill_at: Millis, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Running => {
                self.cause = Some(cause);
                actions.push(Action::Announce(cause));
                if kill_at <= now {
                    return self.kill(now, actions);
                }
                self.thaw(now, actions);
                actions.push(Action::Signal(Signal::CONT, Target::Everything));
                actions.push(Action::Signal(Signal::TERM, Target::Everything));
                self.phase = Phase::Asked { kill_at };
            }
            Phase::Asked { kill_at: earlier } => {
                self.phase = Phase::Asked { kill_at: earlier.min(kill_at) };
            }
            Phase::Killing { .. } | Phase::Done => {}
        }
    }

    fn set_limit(&mut self, now: Millis, limit_secs: Option<u64>, serial: u32) {
        if serial <= self.terms.limit_serial {
            return;
        }
        self.terms.limit_serial = serial;
        self.terms.limit_secs = limit_secs;
        // A job that got more time is warned again before its new end.
        let was_warned = std::mem::replace(&mut self.warned, false);
        if was_warned && self.warning_at().is_some_and(|(at, _)| at <= now) {
            self.warned = true;
        }
    }

    fn lease(&mut self, now: Millis, until: Millis, actions: &mut Vec<Action>) {
        let Some(known) = self.lease_until() else { return };
        let until = known.max(until);
        self.terms.lease_until = Some(until);
        if until <= now {
            self.fenced = true;
            // Counted from the end of the lease, not from when that was noticed.
            let wait = Millis::from_secs(u64::from(self.terms.kill_wait_secs));
            self.end_by(now, EndCause::NodeFail, until.saturating_add(wait), actions);
        }
    }

    fn suspend(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.phase == Phase::Running && self.suspended_at.is_none() {
            self.suspended_at = Some(now);
            actions.push(Action::Freeze);
        }
    }

    fn resume(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.phase == Phase::Running {
            self.thaw(now, actions);
        }
    }

    fn thaw(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if let Some(since) = self.suspended_at.take() {
            self.suspended = self.suspended.saturating_add(now.saturating_sub(since));
            actions.push(Action::Thaw);
        }
    }

    fn exited(&mut self, now: Millis, empty: bool, actions: &mut Vec<Action>) {
        self.exited = true;
        match self.phase {
            _ if empty => self.finish(actions),
            Phase::Running => self.kill(now, actions),
            Phase::Asked { .. } | Phase::Killing { .. } | Phase::Done => {}
        }
    }

    fn kill(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if let Some(since) = self.suspended_at.take() {
            self.suspended = self.suspended.saturating_add(now.saturating_sub(since));
        }
        actions.push(Action::Kill);
        let give_up_at = now.saturating_add(Millis::from_secs(self.terms.unkillable_secs));
        self.phase = Phase::Killing { give_up_at };
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        if !self.is_done() {
            self.phase = Phase::Done;
            actions.push(Action::Done);
        }
    }

    /// Does what is due at `now`; also after a jump past several deadlines.
    fn tick(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.phase == Phase::Running && self.suspended_at.is_none() {
            if let Some((at, warning)) = self.warning_at()
                && at <= now
            {
                self.warned = true;
                let target = if warning.batch_only { Target::Shell } else { Target::Steps };
                actions.push(Action::Signal(warning.signal, target));
            }
            if self.limit_at().is_some_and(|at| at <= now) {
                self.terminate(now, EndCause::TimeLimit, self.terms.kill_wait_secs, actions);
            }
        }
        if let Phase::Asked { kill_at } = self.phase
            && kill_at <= now
        {
            self.kill(now, actions);
        }
        if let Phase::Killing { give_up_at } = self.phase
            && give_up_at <= now
        {
            self.unkillable = true;
            actions.push(Action::Unkillable);
            self.finish(actions);
        }
    }
}

#[cfg(test)]
mod tests;
