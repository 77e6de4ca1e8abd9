//! When does an attempt that runs get which signal, and when is it over?
//!
//! A state machine for the end of one attempt. Times are milliseconds on a clock that also counts
//! while the machine sleeps (`CLOCK_BOOTTIME`); none is read here. The caller feeds what happens
//! ([`Input`]), does what comes back ([`Action`]), and calls again at [`Ending::deadline`].
//!
//! Invariants: SIGKILL follows the first request to end by the wait it came with, whatever else
//! arrives; an attempt whose processes are gone is over at once; one whose processes outlive
//! SIGKILL is over after [`UNKILLABLE_SECS`], and says so. Time in suspension counts for no limit.
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
        match self.phase {
            Phase::Running if self.suspended_at.is_some() => None,
            Phase::Running => match (self.warning_at(), self.limit_at()) {
                (Some((at, _)), Some(limit)) => Some(at.min(limit)),
                (None, limit) => limit,
                (warning, None) => warning.map(|(at, _)| at),
            },
            Phase::Asked { kill_at } => Some(kill_at),
            Phase::Killing { give_up_at } => Some(give_up_at),
            Phase::Done => None,
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
        match self.phase {
            Phase::Running => {
                self.cause = Some(cause);
                actions.push(Action::Announce(cause));
                if wait_secs == 0 {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONT: Action = Action::Signal(Signal::CONT, Target::Everything);
    const TERM: Action = Action::Signal(Signal::TERM, Target::Everything);

    fn secs(secs: u64) -> Millis {
        Millis::from_secs(secs)
    }

    fn terms(limit_secs: Option<u64>, warning: Option<&str>) -> Terms {
        let warning = warning.map(|text| text.parse().expect("valid"));
        let unkillable_secs = UNKILLABLE_SECS;
        Terms { limit_secs, limit_serial: 1, kill_wait_secs: 30, unkillable_secs, warning }
    }

    /// Starts at second 100 and feeds inputs at later seconds; returns what each gave.
    fn run(terms: Terms, inputs: &[(u64, Input)]) -> (Ending, Vec<Vec<Action>>) {
        let mut ending = Ending::new(secs(100), terms);
        let outputs = inputs.iter().map(|&(at, input)| ending.on(secs(100 + at), input)).collect();
        (ending, outputs)
    }

    #[test]
    fn time_limit_asks_then_kills_then_gives_up() {
        let (ending, out) = run(
            terms(Some(60), None),
            &[
                (59, Input::Tick),
                (60, Input::Tick),
                (89, Input::Tick),
                (90, Input::Tick),
                (90, Input::Exited { empty: false }),
                (149, Input::Tick),
                (150, Input::Tick),
            ],
        );
        let asked = vec![Action::Announce(EndCause::TimeLimit), CONT, TERM];
        let given_up = vec![Action::Unkillable, Action::Done];
        assert_eq!(out, [vec![], asked, vec![], vec![Action::Kill], vec![], vec![], given_up]);
        assert_eq!(ending.cause(), Some(EndCause::TimeLimit));
        assert!(ending.unkillable() && ending.is_done());
        assert_eq!(ending.deadline(), None);
    }

    #[test]
    fn a_normal_exit_kills_what_is_left_and_ends_when_it_is_gone() {
        let (ending, out) = run(
            terms(None, None),
            &[(1, Input::Empty), (5, Input::Exited { empty: false }), (6, Input::Empty)],
        );
        assert_eq!(out, [vec![], vec![Action::Kill], vec![Action::Done]]);
        assert_eq!((ending.cause(), ending.unkillable()), (None, false));
        let (_, out) = run(terms(None, None), &[(5, Input::Exited { empty: true })]);
        assert_eq!(out, [vec![Action::Done]]);
    }

    #[test]
    fn a_wait_of_zero_kills_at_once() {
        let kill = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 0 };
        let (_, out) = run(terms(None, None), &[(1, kill), (1, kill)]);
        assert_eq!(out, [vec![Action::Announce(EndCause::Cancelled), Action::Kill], vec![]]);
    }

    #[test]
    fn a_second_request_only_shortens_the_wait_and_the_first_cause_stays() {
        let ask = |cause, kill_wait_secs| Input::Terminate { cause, kill_wait_secs };
        let (ending, out) = run(
            terms(None, None),
            &[
                (0, ask(EndCause::Requeue, 30)),
                (1, ask(EndCause::Cancelled, 100)),
                (2, ask(EndCause::Cancelled, 5)),
                (7, Input::Tick),
            ],
        );
        assert_eq!(out[1..], [vec![], vec![], vec![Action::Kill]]);
        assert_eq!(ending.cause(), Some(EndCause::Requeue));
    }

    #[test]
    fn children_keep_their_wait_when_the_shell_ends_on_sigterm() {
        let cancel = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 30 };
        let (ending, out) = run(
            terms(None, None),
            &[(0, cancel), (1, Input::Exited { empty: false }), (9, Input::Empty)],
        );
        assert_eq!(out[1..], [vec![], vec![Action::Done]]);
        assert!(ending.is_done());
    }

    #[test]
    fn the_warning_goes_to_whom_it_was_asked_for_and_once() {
        for (text, target) in [("B:USR1@20", Target::Shell), ("USR1@20", Target::Steps)] {
            let (ending, out) = run(
                terms(Some(60), Some(text)),
                &[(39, Input::Tick), (40, Input::Tick), (41, Input::Tick)],
            );
            let usr1 = Signal::new(10).expect("in range");
            assert_eq!(out, [vec![], vec![Action::Signal(usr1, target)], vec![]]);
            assert_eq!(ending.deadline(), Some(secs(160)));
        }
    }

    #[test]
    fn a_new_limit_counts_if_its_serial_is_newer() {
        let set = |secs, serial| Input::SetLimit { limit_secs: secs, serial };
        let (ending, _) = run(terms(Some(60), None), &[(1, set(Some(600), 1))]);
        assert_eq!(ending.deadline(), Some(secs(160)));
        let (ending, _) = run(terms(Some(60), None), &[(1, set(None, 2))]);
        assert_eq!(ending.deadline(), None);
        let (_, out) = run(terms(Some(60), None), &[(30, set(Some(10), 2))]);
        assert_eq!(out, [vec![Action::Announce(EndCause::TimeLimit), CONT, TERM]]);
    }

    #[test]
    fn more_time_brings_a_second_warning() {
        let set = Input::SetLimit { limit_secs: Some(600), serial: 2 };
        let (ending, out) =
            run(terms(Some(60), Some("B:USR1@20")), &[(45, Input::Tick), (50, set)]);
        assert_eq!(out[0].len(), 1);
        assert!(out[1].is_empty());
        assert_eq!(ending.deadline(), Some(secs(680)));
    }

    #[test]
    fn suspension_stops_the_clock() {
        let (ending, out) = run(
            terms(Some(60), None),
            &[(10, Input::Suspend), (500, Input::Tick), (510, Input::Resume), (559, Input::Tick)],
        );
        assert_eq!(out, [vec![Action::Freeze], vec![], vec![Action::Thaw], vec![]]);
        assert_eq!(ending.elapsed(secs(660)), secs(60));
        assert_eq!(ending.deadline(), Some(secs(660)));
    }

    #[test]
    fn a_suspended_attempt_goes_on_before_it_is_asked_to_end() {
        let cancel = Input::Terminate { cause: EndCause::Cancelled, kill_wait_secs: 30 };
        let (_, out) = run(terms(None, None), &[(1, Input::Suspend), (2, cancel)]);
        assert_eq!(out[1], [Action::Announce(EndCause::Cancelled), Action::Thaw, CONT, TERM]);
    }

    #[test]
    fn times_at_the_end_of_the_range_do_not_overflow() {
        let (ending, _) = run(terms(Some(u64::MAX), Some("TERM@65535")), &[(1, Input::Tick)]);
        assert!(ending.deadline().is_some());
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Tick),
            (0_u32..50).prop_map(|kill_wait_secs| Input::Terminate {
                cause: EndCause::Cancelled,
                kill_wait_secs
            }),
            (prop::option::of(0_u64..200), 0_u32..5)
                .prop_map(|(limit_secs, serial)| Input::SetLimit { limit_secs, serial }),
            Just(Input::Suspend),
            Just(Input::Resume),
            any::<bool>().prop_map(|empty| Input::Exited { empty }),
            Just(Input::Empty),
        ]
    }

    proptest! {
        #[test]
        fn whoever_is_asked_to_end_is_over_in_time(
            inputs in prop::collection::vec((0_u64..20, any_input()), 0..40),
        ) {
            let mut now = secs(100);
            let mut ending = Ending::new(now, terms(Some(90), Some("USR1@10")));
            let mut asked_at = None;
            let mut over = 0;
            for (pause, input) in inputs {
                now = now.saturating_add(secs(pause));
                let actions = ending.on(now, input);
                if actions.iter().any(|action| matches!(action, Action::Announce(_))) {
                    prop_assert!(asked_at.is_none(), "announced twice");
                    asked_at = Some(now);
                }
                over += actions.iter().filter(|action| **action == Action::Done).count();
                prop_assert!(ending.deadline().is_none_or(|at| at > now), "a deadline was missed");
                // 50: longest wait; 20: a tick may come as late as the next input.
                if let Some(at) = asked_at
                    && now >= at.saturating_add(secs(50 + 20 + UNKILLABLE_SECS))
                {
                    prop_assert!(ending.is_done());
                }
            }
            prop_assert!(over <= 1);
            prop_assert_eq!(over == 1, ending.is_done());
        }
    }
}
