//! What does the cluster file say, and where does it go wrong?
//!
//! One TOML file describes the cluster. [`ClusterFile::read`] gives its values in the words of the
//! other parts, or every mistake at once, each with its line and a fix. [`check`] says more than
//! that: warnings and notes, which keep no daemon from starting. The `[agent]` section belongs to
//! the agent and is kept as it stands; the agent's own parser judges it.
//!
//! Every key but `[[partition]] name` has a default; a file with one partition is a cluster.

mod file;
mod gpu_health;
mod health_check;
mod hooks;
mod http;
mod idle;
mod lease;
mod nodes;
mod partitions;
mod pools;
mod problem;
mod scheduling;
mod section;
#[cfg(test)]
mod tests;
mod topology;

pub use file::{
    ClusterFile, ClusterSection, Comment, ConfigError, ControllerSection, Existing,
    MAX_SOCKET_PATH, PolicySection, Report, check,
};
pub use health_check::{CheckedState, HealthCheck};
pub use hooks::{HooksSection, MailSection};
pub use http::{HttpSection, HttpTls};
pub use nodes::NodeSection;
pub use partitions::{PartitionNodes, PartitionSection, PartitionState};
pub use problem::{Problem, Severity};
pub use scheduling::{policy_from, policy_over};
