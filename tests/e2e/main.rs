//! Does the whole of it work: real daemons, commands, stores, signals and cgroups on loopback?
//!
//! Each test starts a cluster of its own and leaves nothing behind. What needs root, cgroups or a
//! second user says "skipped: ..." where that is missing.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod harness;

mod admin;
mod arrays;
mod away;
mod bad_input;
mod bad_terms;
mod clock;
mod containers;
mod crash;
mod crontab;
mod fencing;
mod full_disk;
mod hooks;
mod http;
mod identity;
mod jobs;
mod limits;
mod mpi;
mod nodes;
mod odd_jobs;
mod relay;
mod scheduling;
mod steps;
mod usage;
mod users;
mod waiting;
mod watching;
