//! Does `penstock quickstart` keep its promises, as somebody at a shell sees them?
//!
//! Each test has a folder of its own with real daemons, commands and jobs, and leaves nothing
//! behind. What needs root or a second user says "skipped: ..." where that is missing.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod harness;

mod adopt;
mod detach;
mod foreground;
mod gpus;
mod idle;
mod inside;
mod places;
mod users;
