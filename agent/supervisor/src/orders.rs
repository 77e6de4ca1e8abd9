//! What does an order of the controller do to an attempt?

use penstock_vocab::{Millis, Timestamp};

use crate::held::{Held, Phase, Retry, SpoolEntry};
use crate::io::{Ignored, Output, TimeLimit};
use crate::supervisor::{MAX_HELD, MAX_WAITING, Supervisor};
use crate::words::{AttemptKey, AttemptReport, EndCause, ReportedPhase};

impl<L> Supervisor<L> {
    pub(crate) fn launch(
        &mut self,
        now: Timestamp,
        key: AttemptKey,
        (limit_serial, lease): (u32, Option<Millis>),
        payload: L,
        out: &mut Vec<Output<L>>,
    ) {
        if self.held.contains_key(&key) {
            if self.trust.is_foreign(key) {
                self.withhold(key, out);
            } else {
                self.report(now, key, out);
            }
            return;
        }
        if let Some(spool) = self.retired.get(key) {
            self.answer_retired(key, spool, out);
            return;
        }
        if self.held.len() >= MAX_HELD {
            out.push(Output::Ignored { key: Some(key), why: Ignored::Full });
            return;
        }
        if self.newest_attempt(key.job).is_some_and(|newest| key.attempt < newest) {
            self.never_start(now, key, SpoolEntry::None, out);
            return;
        }
        if let Some(lease) = lease
            && !self.leases.grant(now, lease, out)
        {
            out.push(Output::Ignored { key: Some(key), why: Ignored::NoLease });
            return;
        }
        self.give_up_waiting(now, key, out);
        if self.earlier_may_run(key) {
            let waiting = |held: &&Held<L>| matches!(held.phase, Phase::Waiting { .. });
            if self.held.values().filter(waiting).count() >= MAX_WAITING {
                out.push(Output::Ignored { key: Some(key), why: Ignored::Full });
                return;
            }
            let phase = Phase::Waiting { payload, limit: None };
            self.held.insert(key, Held { phase, limit_serial });
            return;
        }
        self.held.insert(key, Held { phase: Phase::Starting, limit_serial });
        out.push(Output::Start(key, payload));
    }

    pub(crate) fn terminate(
        &mut self,
        now: Timestamp,
        key: AttemptKey,
        request: (EndCause, u32),
        out: &mut Vec<Output<L>>,
    ) {
        let Some(held) = self.held.get_mut(&key) else {
            if let Some(spool) = self.retired.get(key) {
                self.answer_retired(key, spool, out);
            } else if self.held.len() >= MAX_HELD {
                out.push(Output::Ignored { key: Some(key), why: Ignored::Full });
            } else {
                out.push(Output::WriteTombstone(key));
                self.never_start(now, key, SpoolEntry::Tombstone, out);
            }
            return;
        };
        if self.trust.withholds(key).is_some() {
            self.withhold(key, out);
            return;
        }
        match &mut held.phase {
            Phase::Waiting { .. } => {
                out.push(Output::WriteTombstone(key));
                self.never_start(now, key, SpoolEntry::Tombstone, out);
            }
            Phase::Starting | Phase::Running => {
                let (cause, kill_wait_secs) = request;
                out.push(Output::Terminate { key, cause, kill_wait_secs });
            }
            Phase::Refusing { terminate } => *terminate = Some(request),
            Phase::Ended { .. } | Phase::NeverStarted { .. } => self.report(now, key, out),
        }
    }

    /// Passes an order on to a process that may be there; `output` may refuse.
    pub(crate) fn act_on_running(
        &mut self,
        key: AttemptKey,
        out: &mut Vec<Output<L>>,
        output: impl FnOnce(&mut Held<L>) -> Result<Output<L>, Ignored>,
    ) {
        let Some(held) = self.held.get_mut(&key) else {
            out.push(Output::Ignored { key: Some(key), why: Ignored::Unknown });
            return;
        };
        if self.trust.withholds(key).is_some() {
            self.withhold(key, out);
            return;
        }
        let done = match held.phase {
            Phase::Starting | Phase::Running => output(held),
            Phase::Waiting { .. }
            | Phase::Refusing { .. }
            | Phase::Ended { .. }
            | Phase::NeverStarted { .. } => Err(Ignored::WrongPhase),
        };
        out.push(done.unwrap_or_else(|why| Output::Ignored { key: Some(key), why }));
    }

    pub(crate) fn set_limit(
        &mut self,
        key: AttemptKey,
        limit: TimeLimit,
        out: &mut Vec<Output<L>>,
    ) {
        if let Some(Held { phase: Phase::Waiting { limit: kept, .. }, limit_serial }) =
            self.held.get_mut(&key)
            && *limit_serial < limit.serial
        {
            *limit_serial = limit.serial;
            *kept = Some(limit);
            return;
        }
        self.act_on_running(key, out, |held| {
            if held.limit_serial >= limit.serial {
                return Err(Ignored::OldLimit);
            }
            held.limit_serial = limit.serial;
            Ok(Output::SetLimit(key, limit))
        });
    }

    pub(crate) fn acknowledge(&mut self, key: AttemptKey, out: &mut Vec<Output<L>>) {
        let why = match self.held.get(&key).map(|held| &held.phase) {
            Some(_) if self.trust.is_foreign(key) => {
                self.withhold(key, out);
                return;
            }
            Some(Phase::Ended { .. }) => Ok(SpoolEntry::Intent),
            Some(Phase::NeverStarted { spool, .. }) => Ok(*spool),
            Some(
                Phase::Waiting { .. } | Phase::Starting | Phase::Refusing { .. } | Phase::Running,
            ) => Err(Ignored::WrongPhase),
            None => Err(Ignored::Unknown),
        };
        match why {
            Ok(spool) => {
                self.held.remove(&key);
                if spool == SpoolEntry::Intent {
                    out.push(Output::Forget(key));
                }
                out.extend(self.retired.insert(key, spool).map(Output::RemoveTombstone));
                self.trust.forget(key, out);
            }
            Err(why) => out.push(Output::Ignored { key: Some(key), why }),
        }
    }

    /// Holds `key` as one that never starts, and says so.
    fn never_start(
        &mut self,
        now: Timestamp,
        key: AttemptKey,
        spool: SpoolEntry,
        out: &mut Vec<Output<L>>,
    ) {
        let phase = Phase::NeverStarted { spool, retry: Retry::at(now) };
        self.held.insert(key, Held::new(phase));
        self.report(now, key, out);
    }

    /// The controller acknowledged the end of `key` before: at most it is told again that it
    /// never started, which is true of a tombstone alone.
    fn answer_retired(&self, key: AttemptKey, spool: SpoolEntry, out: &mut Vec<Output<L>>) {
        match (spool, self.session) {
            (SpoolEntry::Tombstone, Some(session)) => {
                let report = AttemptReport { key, phase: ReportedPhase::NeverStarted };
                out.push(Output::Report(session, report));
            }
            (SpoolEntry::Tombstone | SpoolEntry::Intent | SpoolEntry::None, _) => {
                out.push(Output::Ignored { key: Some(key), why: Ignored::WrongPhase });
            }
        }
    }

    fn withhold(&self, key: AttemptKey, out: &mut Vec<Output<L>>) {
        if let Some(why) = self.trust.withholds(key) {
            out.push(Output::Withheld { key: Some(key), why: why.clone() });
        }
    }

    /// A launch of a newer attempt than what waits: all parts of the older one will never be started.
    fn give_up_waiting(&mut self, now: Timestamp, newer: AttemptKey, out: &mut Vec<Output<L>>) {
        let waits = |(key, held): (&AttemptKey, &Held<L>)| {
            matches!(held.phase, Phase::Waiting { .. }).then_some(*key)
        };
        let older: Vec<_> = self.held.range(newer.earlier()).filter_map(waits).collect();
        for older in older {
            self.never_start(now, older, SpoolEntry::None, out);
        }
    }

    /// Whether any part of an attempt before `key`'s of the same job may have a process here.
    pub(crate) fn earlier_may_run(&self, key: AttemptKey) -> bool {
        self.held.range(key.earlier()).any(|(_, held)| held.may_run())
    }
}
