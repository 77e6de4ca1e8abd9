//! Which attempts may this node start, which does it hold, and what does the controller still
//! have to learn?
//!
//! [`Supervisor`] is the agent as a value: inputs in, outputs out, the time an argument. It does
//! no I/O, so that the daemon and the deterministic simulation run the very same code.
//!
//! Invariants:
//! - An attempt has parts, each with its own key: the batch script and the steps. What is said here
//!   of an attempt holds for each part on its own, but for what counts the attempts of a job.
//! - [`Output::Start`] is said at most once for a part, whatever is repeated, reordered or
//!   restarted; never after a terminate of it, never while any part of an earlier attempt of the
//!   same job may run here, never for an attempt older than one of which a part was seen.
//! - What ended, or never starts, is reported until the controller acknowledged it: at each
//!   [`Input::Welcome`] and on a timer.
//! - An order counts only within the session that goes on.
//! - A controller whose store is another, or older than was seen, ends nothing that ran here
//!   before; an admin must confirm first.
//!
//! The newest attempt of each job is not kept on its own: it follows from what is held, from the
//! spool after a restart, and, for attempts that were acknowledged, from memory until the next
//! session, after which no message can name them.

#![forbid(unsafe_code)]

pub mod ending;
mod held;
mod host;
mod io;
mod lease;
mod orders;
mod retired;
mod supervisor;
mod trust;
mod words;

pub use host::MAX_ERROR_BYTES;
pub use io::{Found, HostEvent, Ignored, Input, Order, Output, Recovery, SignalRequest, TimeLimit};
pub use retired::MAX_RETIRED;
pub use supervisor::{
    KILL_TASK_FAILED, MAX_HELD, MAX_REPORTS_PER_TICK, MAX_WAITING, SPOOL_FULL, Supervisor,
};
pub use words::{
    AttemptKey, AttemptReport, Distrust, EndCause, MAX_STORE_ID_BYTES, ReportedPhase, RunResult,
    StoreId, StorePosition, Usage, Welcome,
};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
