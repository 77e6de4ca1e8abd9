//! Does a replay give what the textbooks say, job by job, whatever the trace?
//!
//! The reference schedulers here are written apart from the engine: counts of free units and lists,
//! nothing clever. The binary is run as people run it, and its dump is compared with theirs.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]
#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

mod binary;
mod command;
mod goal;
mod pods;
mod reference;
mod textbook;
mod traces;
