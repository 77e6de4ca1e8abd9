//! How does an attempt become processes, and how do they outlive the agent?
//!
//! The [`Spool`] writes what is to be started and spawns one shepherd for it: a process of its
//! own that claims the attempt, starts the job as its user, ends it when time or somebody says
//! so, and leaves a record of the end. An agent that was restarted finds all of them again.
//!
//! Invariants: an attempt is started by whoever made its claim, so at most once; nothing that the
//! user names is opened with the agent's rights; nothing here waits for the disk (after a crash
//! of the machine no job runs any more, and the spool is read as such).

pub mod cgroup;
pub(crate) mod confine;
pub mod environment;
pub mod shepherd;

mod lease;
mod record;
mod spool;

pub use record::{Part, Wired, result_from_wire, result_to_wire};
pub use spool::{Event, Opened, ShepherdCommand, Spool, SpoolConfig, SpoolError};
