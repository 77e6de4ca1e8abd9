//! What does the cluster do with a command? The cluster as a value: no I/O, no clock, no threads.
//!
//! [`Cluster::execute`] applies one command; [`scheduler::plan`] proposes starts from a snapshot;
//! [`ledger::Ledger`] says what may be answered when. Time comes in as an argument, so that the
//! same inputs give the same bits on every machine and a run can be repeated from a seed.

#![forbid(unsafe_code)]

pub mod accounts;
pub mod cluster;
pub mod command;
pub mod explain;
pub mod ledger;
pub mod model;
pub mod policy;
pub mod refusal;
pub mod scheduler;

pub use cluster::Cluster;
pub use command::{Command, Effect, Outcome, RecordKey, Reply};
pub use refusal::Refusal;
