//! Which attempts does this node hold, and what follows from what it is told?

use std::collections::BTreeMap;

use penstock_vocab::{Attempt, JobId, SessionId, Timestamp};

use crate::held::{Held, Phase, Retry, SpoolEntry};
use crate::io::{Found, Ignored, Input, Order, Output, Recovery};
use crate::lease::Leases;
use crate::retired::Retired;
use crate::trust::Trust;
use crate::words::{AttemptKey, AttemptReport, StorePosition, Welcome};

/// Most attempts held at once: far above what a node runs, and what 15 s of no-op jobs at full
/// speed leave unacknowledged. A launch beyond it is not answered; the controller repeats it.
pub const MAX_HELD: usize = 10_000;

/// Most launches that wait for an earlier attempt of their job; each keeps a script in memory.
pub const MAX_WAITING: usize = 64;

/// Most reports that one tick repeats, so that a long outage's ends do not go out in one burst.
pub const MAX_REPORTS_PER_TICK: usize = 256;

/// Why a node asks to be drained when a process outlived SIGKILL, in Slurm's words.
pub const KILL_TASK_FAILED: &str = "Kill task failed";

/// Why a node asks to be drained whose spool takes no job for want of space.
pub const SPOOL_FULL: &str = "no space left in the agent's spool";

/// The state machine of one node agent; see the crate's documentation.
#[derive(Debug)]
pub struct Supervisor<L> {
    pub(crate) held: BTreeMap<AttemptKey, Held<L>>,
    pub(crate) retired: Retired,
    pub(crate) trust: Trust,
    pub(crate) session: Option<SessionId>,
    newest_session: Option<SessionId>,
    recovered: bool,
    /// No report is due before this; `None`: none waits for an acknowledgement.
    wake: Option<Timestamp>,
    pub(crate) leases: Leases,
}

impl<L> Default for Supervisor<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> Supervisor<L> {
    /// An agent that knows nothing; [`Input::Recovered`] comes first.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            retired: Retired::new(),
            trust: Trust::new(),
            session: None,
            newest_session: None,
            recovered: false,
            wake: None,
            leases: Leases::new(),
        }
    }

    /// Takes `input` at `now` (any clock that does not go back and counts sleep) and says what
    /// must be done, in order. Never blocks and never fails.
    ///
    /// Logarithmic in the number of attempts held; linear for [`Input::Welcome`] and
    /// [`Input::Tick`].
    pub fn handle(&mut self, now: Timestamp, input: Input<L>) -> Vec<Output<L>> {
        let mut out = Vec::new();
        self.handle_into(now, input, &mut out);
        out
    }

    /// As [`Self::handle`], but appends to `out`, which a busy shell can use again.
    pub fn handle_into(&mut self, now: Timestamp, input: Input<L>, out: &mut Vec<Output<L>>) {
        if !self.recovered && !matches!(input, Input::Recovered(_)) {
            out.push(Output::Ignored { key: None, why: Ignored::NotRecovered });
            return;
        }
        match input {
            Input::Recovered(recovery) => self.recover(now, recovery, out),
            Input::Welcome(welcome) => self.welcome(now, welcome, out),
            Input::Disconnected => self.end_session(),
            Input::StoreSequence { session, sequence } => {
                if self.session == Some(session) {
                    self.trust.advance(sequence, out);
                }
            }
            Input::Renewed { session, sent } => {
                if self.session == Some(session) {
                    self.leases.renew(now, sent, out);
                }
            }
            Input::Order { session, order } => self.order(now, session, order, out),
            Input::Host(event) => self.host_event(now, event, out),
            Input::Confirmed => self.trust.confirm(out),
            Input::Tick => self.tick(now, out),
        }
    }

    /// Everything that a registration must carry: what runs, and what ended or never started
    /// and is not acknowledged. In the order of jobs and attempts.
    #[must_use]
    pub fn reports(&self) -> Vec<AttemptReport> {
        self.held.iter().filter_map(|(key, held)| held.report(*key)).collect()
    }

    /// The store last obeyed, for a registration; `None`: there was no session yet.
    #[must_use]
    pub const fn store(&self) -> Option<&StorePosition> {
        self.trust.store()
    }

    /// Whether a store waits for [`Input::Confirmed`].
    #[must_use]
    pub const fn awaits_confirmation(&self) -> bool {
        self.trust.is_doubted()
    }

    /// The session that goes on, if one does.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// How many attempts are held, in whatever phase.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// When [`Input::Tick`] is next of use; `None`: not before another input. A tick too early
    /// does no harm.
    #[must_use]
    pub const fn next_tick(&self) -> Option<Timestamp> {
        match self.session {
            Some(_) => self.wake,
            None => None,
        }
    }

    fn recover(&mut self, now: Timestamp, recovery: Recovery, out: &mut Vec<Output<L>>) {
        if self.recovered {
            out.push(Output::Ignored { key: None, why: Ignored::NotRecovered });
            return;
        }
        self.recovered = true;
        self.trust.restore(recovery.store);
        if recovery.leases {
            self.leases.expect();
        }
        for found in recovery.found {
            let key = found.key();
            if self.held.contains_key(&key) {
                out.push(Output::Ignored { key: Some(key), why: Ignored::WrongPhase });
                continue;
            }
            let retry = Retry::at(now);
            let phase = match found {
                Found::Unclaimed(_) => {
                    out.push(Output::TakeLock(key));
                    Phase::Refusing { terminate: None }
                }
                Found::NeverStarted(_) => Phase::NeverStarted { spool: SpoolEntry::Intent, retry },
                Found::Running(_) => Phase::Running,
                Found::Ended(_, result) => Phase::Ended { result, retry },
                Found::Tombstone(_) => Phase::NeverStarted { spool: SpoolEntry::Tombstone, retry },
            };
            self.held.insert(key, Held::new(phase));
        }
    }

    fn welcome(&mut self, now: Timestamp, welcome: Welcome, out: &mut Vec<Output<L>>) {
        if !welcome.fresh && self.newest_session.is_some_and(|newest| welcome.session <= newest) {
            out.push(Output::Ignored { key: None, why: Ignored::OtherSession });
            return;
        }
        self.end_session();
        self.session = Some(welcome.session);
        self.newest_session = Some(welcome.session);
        // What was acknowledged in an earlier session can be ordered by no message any more.
        for key in self.retired.clear() {
            out.push(Output::RemoveTombstone(key));
        }
        let at_stake = self.held.iter().filter(|(_, held)| held.is_at_stake()).map(|(key, _)| *key);
        self.trust.meet(welcome.store, at_stake, out);
        self.leases.renew(now, welcome.asked, out);
        for held in self.held.values_mut() {
            if let Some(retry) = held.retry_mut() {
                retry.restart(now);
            }
        }
        let keys: Vec<AttemptKey> = self.held.keys().copied().collect();
        for key in keys {
            self.report(now, key, out);
        }
    }

    /// A launch that waits belongs to its session: the controller repeats it in the next one.
    fn end_session(&mut self) {
        self.session = None;
        self.held.retain(|_, held| !matches!(held.phase, Phase::Waiting { .. }));
    }

    fn order(
        &mut self,
        now: Timestamp,
        session: SessionId,
        order: Order<L>,
        out: &mut Vec<Output<L>>,
    ) {
        if self.session != Some(session) {
            out.push(Output::Ignored { key: Some(order.key()), why: Ignored::OtherSession });
            return;
        }
        match order {
            Order::Launch { key, limit_serial, lease, payload } => {
                self.launch(now, key, (limit_serial, lease), payload, out);
            }
            Order::Terminate { key, cause, kill_wait_secs } => {
                self.terminate(now, key, (cause, kill_wait_secs), out);
            }
            Order::Signal { key, request } => {
                self.act_on_running(key, out, |_| Ok(Output::Signal(key, request)));
            }
            Order::Suspend { key, suspend } => {
                self.act_on_running(key, out, |_| Ok(Output::Suspend(key, suspend)));
            }
            Order::SetLimit { key, limit } => self.set_limit(key, limit, out),
            Order::Acknowledge { key } => self.acknowledge(key, out),
        }
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<Output<L>>) {
        let due: Vec<AttemptKey> = self
            .held
            .iter()
            .filter(|(_, held)| held.retry().is_some_and(|retry| retry.due() <= now))
            .map(|(key, _)| *key)
            .collect();
        let (first, rest) = due.split_at(due.len().min(MAX_REPORTS_PER_TICK));
        if self.session.is_some() {
            for key in first {
                self.report(now, *key, out);
            }
            for key in rest {
                if let Some(retry) = self.held.get_mut(key).and_then(Held::retry_mut) {
                    retry.postpone(now);
                }
            }
        }
        self.wake = self.held.values().filter_map(|held| held.retry().map(Retry::due)).min();
    }

    /// Tells the controller where `key` stands, if there is a session and something to tell.
    pub(crate) fn report(&mut self, now: Timestamp, key: AttemptKey, out: &mut Vec<Output<L>>) {
        let (Some(session), Some(held)) = (self.session, self.held.get_mut(&key)) else { return };
        let Some(report) = held.report(key) else { return };
        out.push(Output::Report(session, report));
        if held.is_unkillable() {
            out.push(Output::Drain(session, KILL_TASK_FAILED));
        }
        if let Some(retry) = held.retry_mut() {
            retry.reported(now);
            let due = retry.due();
            self.wake = Some(self.wake.map_or(due, |wake| wake.min(due)));
        }
    }

    /// The newest attempt of `job` of which any part was ever named, as far as it can still matter.
    pub(crate) fn newest_attempt(&self, job: JobId) -> Option<Attempt> {
        let held = self.held.range(AttemptKey::all_of(job)).next_back().map(|(key, _)| key.attempt);
        held.max(self.retired.newest_attempt(job))
    }
}
