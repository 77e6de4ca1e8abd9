//! How does a machine become a node of a cluster?
//!
//! The daemon of each node, and of each login host: it dials out to the controller, starts what
//! it is told to, reports how that ended, and passes the commands of its users on. The decisions
//! are those of `penstock-supervisor`; here is the I/O around it. Jobs belong to their shepherds,
//! so that the agent may end, crash or be replaced at any time.

mod config;
mod convert;
mod daemon;
mod enrol;
mod gate;
pub mod gpu;
mod health;
mod host;
mod identity;
pub mod inventory;
pub mod launch;
mod link;
mod owner;
mod position;
mod report;
mod sys;

pub use config::{
    AgentConfig, ConfigError, DEFAULT_CONTROLLER_PORT, DEFAULT_RUN_DIR, DEFAULT_SOCKET,
    DEFAULT_STATE_DIR, TokenSource,
};
pub use daemon::{AgentError, holds_attempts, remove_groups, run, run_blocking};
pub use launch::shepherd::step::pmix_version;
pub use position::PositionError;
pub use report::Vitals;
