//! What is in use, and from when until when: on each node, and of each licence?
//!
//! A [`Line`] is the use of one node over time, as a staircase of counts. Counts are enough: whoever
//! starts at an instant may take any units that are free by then and keeps them, so a request fits in
//! a window exactly if the highest count of the window leaves room for it.
//!
//! Two instants lie beyond every clock: [`FAR`] is when what has no known end counts as ended, and
//! [`NEVER`] is after that. A job that waits for one without a known end gets its place at `FAR`,
//! which keeps others without a known end off its nodes and promises nothing.

mod ends;
mod line;
mod lines;

pub(super) use ends::run_end;
pub(super) use line::{Amount, Counts, Fits, Line, LineRef, Peak};
pub(super) use lines::Lines;

/// When what has no known end counts as ended; milliseconds like every time of the profile.
pub(super) const FAR: i64 = i64::MAX / 2;

/// The end of what is planned and has no limit: after [`FAR`], so that the two collide.
pub(super) const NEVER: i64 = i64::MAX;

/// The end of what was given `length` from `start` on: what has no limit counts as ended at [`FAR`],
/// so that others can wait for it.
pub(super) fn held_until(start: i64, length: i64) -> i64 {
    if length == NEVER && start < FAR { FAR } else { end_of(start, length) }
}

/// The end of what asks for `length` from `start` on.
pub(super) fn end_of(start: i64, length: i64) -> i64 {
    start.saturating_add(length)
}
