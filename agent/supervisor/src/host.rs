//! What does an event on this host do to an attempt?

use penstock_vocab::{JobId, Timestamp};

use crate::held::{Held, Phase, Retry, SpoolEntry};
use crate::io::{HostEvent, Ignored, Output};
use crate::supervisor::{SPOOL_FULL, Supervisor};
use crate::words::{AttemptKey, EndCause, RunResult};

/// Most bytes of an error text that are kept and reported.
pub const MAX_ERROR_BYTES: usize = 1_024;

impl<L> Supervisor<L> {
    pub(crate) fn host_event(
        &mut self,
        now: Timestamp,
        event: HostEvent,
        out: &mut Vec<Output<L>>,
    ) {
        match event {
            HostEvent::Started(key) => self.started(now, key, out),
            HostEvent::StartFailed { key, error, node_fault } => {
                let launch_error = shortened(error);
                let result = RunResult { launch_error, node_fault, ..RunResult::default() };
                self.ended(now, key, result, out);
            }
            HostEvent::Ended(key, result) => self.ended(now, key, result, out),
            HostEvent::LockTaken(key) => self.lock_taken(now, key, out),
            HostEvent::SpoolFull => {
                out.extend(self.session.map(|session| Output::Drain(session, SPOOL_FULL)));
            }
        }
    }

    fn started(&mut self, now: Timestamp, key: AttemptKey, out: &mut Vec<Output<L>>) {
        if self.retired.get(key).is_some() {
            started_too_late(key, out);
            return;
        }
        // An attempt nobody here knows of is a shepherd that was found late: it is adopted.
        let held = self.held.entry(key).or_insert_with(|| Held::new(Phase::Starting));
        match held.phase {
            Phase::Starting => held.phase = Phase::Running,
            Phase::Refusing { terminate } => {
                held.phase = Phase::Running;
                if let Some((cause, kill_wait_secs)) = terminate {
                    out.push(Output::Terminate { key, cause, kill_wait_secs });
                }
            }
            Phase::Running | Phase::Ended { .. } => {
                out.push(Output::Ignored { key: Some(key), why: Ignored::WrongPhase });
                return;
            }
            Phase::Waiting { .. } | Phase::NeverStarted { .. } => {
                started_too_late(key, out);
                return;
            }
        }
        self.report(now, key, out);
    }

    fn ended(
        &mut self,
        now: Timestamp,
        key: AttemptKey,
        result: RunResult,
        out: &mut Vec<Output<L>>,
    ) {
        if self.retired.get(key).is_some() {
            forget_quietly(key, out);
            return;
        }
        let held = self.held.entry(key).or_insert_with(|| Held::new(Phase::Running));
        match held.phase {
            Phase::Starting | Phase::Refusing { .. } | Phase::Running => {
                held.phase = Phase::Ended { result, retry: Retry::at(now) };
                self.report(now, key, out);
                self.start_waiting(key.job, out);
            }
            Phase::Ended { .. } => {
                out.push(Output::Ignored { key: Some(key), why: Ignored::WrongPhase });
            }
            Phase::Waiting { .. } | Phase::NeverStarted { .. } => forget_quietly(key, out),
        }
    }

    fn lock_taken(&mut self, now: Timestamp, key: AttemptKey, out: &mut Vec<Output<L>>) {
        let Some(held) = self.held.get_mut(&key) else {
            out.push(Output::Ignored { key: Some(key), why: Ignored::Unknown });
            return;
        };
        if !matches!(held.phase, Phase::Refusing { .. }) {
            out.push(Output::Ignored { key: Some(key), why: Ignored::WrongPhase });
            return;
        }
        held.phase = Phase::NeverStarted { spool: SpoolEntry::Intent, retry: Retry::at(now) };
        self.report(now, key, out);
        self.start_waiting(key.job, out);
    }

    /// Starts what waited for an earlier attempt of `job`, if nothing of one may run any more.
    fn start_waiting(&mut self, job: JobId, out: &mut Vec<Output<L>>) {
        let waits = |(key, held): (&AttemptKey, &Held<L>)| {
            matches!(held.phase, Phase::Waiting { .. }).then_some(*key)
        };
        let waiting: Vec<_> = self.held.range(AttemptKey::all_of(job)).filter_map(waits).collect();
        for key in waiting {
            if self.earlier_may_run(key) {
                return;
            }
            let Some(held) = self.held.get_mut(&key) else { continue };
            if let Phase::Waiting { payload, limit } =
                std::mem::replace(&mut held.phase, Phase::Starting)
            {
                out.push(Output::Start(key, payload));
                out.extend(limit.map(|limit| Output::SetLimit(key, limit)));
            }
        }
    }
}

fn started_too_late<L>(key: AttemptKey, out: &mut Vec<Output<L>>) {
    out.push(Output::Ignored { key: Some(key), why: Ignored::StartedTooLate });
    out.push(Output::Terminate { key, cause: EndCause::Other, kill_wait_secs: 0 });
}

/// The controller was told that it never started, or has its end: nobody waits for this one.
fn forget_quietly<L>(key: AttemptKey, out: &mut Vec<Output<L>>) {
    out.push(Output::Ignored { key: Some(key), why: Ignored::WrongPhase });
    out.push(Output::Forget(key));
}

fn shortened(mut text: String) -> String {
    let end = (0..=MAX_ERROR_BYTES.min(text.len())).rev().find(|i| text.is_char_boundary(*i));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_are_cut_between_letters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = "ä".repeat(MAX_ERROR_BYTES);
        let cut = shortened(format!("x{long}"));
        assert!(cut.len() <= MAX_ERROR_BYTES && cut.len() > MAX_ERROR_BYTES - 2, "{}", cut.len());
    }
}
