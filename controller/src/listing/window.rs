//! Was a run, or a job that never ran, in a certain state within a window of time?

use penstock_vocab::{JobFlags, JobState, StateFilter, Timestamp};

/// A span of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// When what happened to one line of accounting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) state: JobState,
    pub(super) flags: JobFlags,
    /// Since when it could have started.
    pub(super) eligible: Timestamp,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
}

impl Window {
    /// A window whose ends are open where they are 0.
    pub(super) fn new(from_ms: i64, to_ms: i64) -> Self {
        let to = if to_ms == 0 { Timestamp::MAX } else { Timestamp(to_ms) };
        let from = if from_ms == 0 { Timestamp(i64::MIN) } else { Timestamp(from_ms) };
        Self { from, to }
    }

    fn meets(self, begin: Timestamp, end: Option<Timestamp>) -> bool {
        begin <= self.to && end.is_none_or(|end| end >= self.from)
    }

    fn holds(self, at: Timestamp) -> bool {
        self.from <= at && at <= self.to
    }

    /// Whether a line was in any of `states` within the window, or in any state at all if there are
    /// none.
    pub(super) fn accepts(self, span: Span, states: &[StateFilter]) -> bool {
        if states.is_empty() {
            return self.meets(span.eligible, span.end);
        }
        states.iter().any(|state| self.accepts_one(span, *state))
    }

    fn accepts_one(self, span: Span, state: StateFilter) -> bool {
        match state {
            StateFilter::Base(JobState::Pending) => {
                self.meets(span.eligible, span.start.or(span.end))
            }
            StateFilter::Base(JobState::Running) => {
                span.start.is_some_and(|start| self.meets(start, span.end))
            }
            // A run that went back to the queue has no base state of an ended job.
            StateFilter::Base(ended) if ended.is_finished() => {
                let since = span.end.is_none_or(|end| self.holds(end));
                ended == span.state && since
            }
            StateFilter::Base(now) => now == span.state && self.meets(span.eligible, span.end),
            StateFilter::Flag(flag) => {
                span.flags.contains(flag) && self.meets(span.eligible, span.end)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_vocab::{JobFlag, parse_job_state};

    use super::*;

    fn ended(state: JobState) -> Span {
        Span {
            state,
            flags: JobFlags::EMPTY,
            eligible: Timestamp(100),
            start: Some(Timestamp(200)),
            end: Some(Timestamp(300)),
        }
    }

    #[test]
    fn a_line_counts_where_it_was_in_the_state_within_the_window() {
        let failed = ended(JobState::Failed);
        let waits = Span { state: JobState::Pending, start: None, end: None, ..failed };
        let runs = Span { state: JobState::Running, end: None, ..failed };
        let back = Span {
            flags: JobFlags::EMPTY.with(JobFlag::Requeued),
            state: JobState::Pending,
            ..failed
        };
        for (span, state, from, to, selected) in [
            (failed, "", 1, 99, false),
            (failed, "", 1, 100, true),
            (failed, "", 300, 400, true),
            (failed, "", 301, 400, false),
            (failed, "", 0, 0, true),
            (failed, "PD", 1, 150, true),
            (failed, "PD", 201, 400, false),
            (failed, "R", 1, 199, false),
            (failed, "R", 250, 260, true),
            (failed, "F", 250, 260, false),
            (failed, "F", 250, 300, true),
            (failed, "CD", 1, 400, false),
            (waits, "PD", 1, 99, false),
            (waits, "PD", 900, 999, true),
            (waits, "R", 1, 999, false),
            (runs, "R", 900, 999, true),
            (runs, "F", 1, 999, false),
            (back, "RQ", 250, 260, true),
            (back, "RQ", 301, 400, false),
            (failed, "RQ", 1, 999, false),
        ] {
            let states: Vec<_> = match state {
                "" => Vec::new(),
                state => vec![parse_job_state(state).unwrap()],
            };
            let window = Window::new(from, to);
            assert_eq!(window.accepts(span, &states), selected, "{state} {from} {to} {span:?}");
        }
    }
}
