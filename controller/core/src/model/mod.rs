//! What is there in a cluster? Jobs, arrays, nodes, partitions and hosts, as plain values.
//!
//! Records (job, array, node, host, token, answer, counter) are what the store keeps; everything
//! else is derived from them and from the configuration.

mod answer;
mod array;
mod config;
mod constraint;
mod dependency;
mod host;
mod job;
mod node;
mod spec;

pub use answer::{Answer, RequestId};
pub use array::{Array, ArrayRequest, ArraySummary};
pub use config::{Config, NodeConfig, Partition, PartitionState, Policy};
pub use constraint::{Constraint, ConstraintError};
pub use dependency::{Dependency, DependencyError, DependencyKind, Term};
pub use host::{Host, HostRole, JoinToken};
pub use job::{
    ArrayTask, EndCause, GresShare, Hold, Job, NodeShare, Run, RunResult, RunStage, Usage,
};
pub use node::{Down, Inventory, Node, NodeAdmin, NodeIndex, NodeUse};
pub use spec::{BlobId, Details, JobSpec, MemoryRequest, Shape, SignalRequest};
