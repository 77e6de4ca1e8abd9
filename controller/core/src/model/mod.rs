//! What is there in a cluster? Jobs, arrays, nodes, partitions and hosts, as plain values.
//!
//! Records (job, array, node, host, token, answer, counter) are what the store keeps; everything
//! else is derived from them and from the configuration.

mod account;
mod answer;
mod array;
mod config;
mod constraint;
mod cron;
mod dependency;
mod gpu;
mod gpu_health;
mod gpu_terms;
mod gpu_usage;
mod hooks;
mod host;
mod idle;
mod job;
mod limits;
mod mig;
mod node;
mod qos;
mod reservation;
mod scheduling;
mod spec;
mod step;
mod usage;

pub use account::{Account, AdminLevel, AssocId, Association, ROOT_ACCOUNT, Shares, User};
pub use answer::{Answer, RequestId};
pub use array::{Array, ArrayRequest, ArraySummary};
pub use config::{Config, NodeConfig, Oversubscribe, Partition, PartitionState, Policy};
pub use constraint::{Constraint, ConstraintError, Marks};
pub use cron::{CronJob, Crontab, MAX_CRON_JOBS, MAX_CRON_TIMES, MAX_CRONTAB_BYTES};
pub use dependency::{Dependency, DependencyError, DependencyKind, Term};
pub use gpu::{
    Device, GPU, Gpu, GpuDrain, GpuDrainEnd, GpuLink, Gpus, MigMode, MigProfile, MigSlice, SHARD,
};
pub use gpu_health::{CONDITIONS, DrainAction, GpuFault, GpuHealth, JobAction, XidRule};
pub use gpu_terms::GpuTerms;
pub use gpu_usage::GpuUsage;
pub use hooks::{HookPhase, HookPolicy, HookStage, RunHooks};
pub use host::{Host, HostRole, JoinToken};
pub use idle::{IdleAction, IdleNote, IdleRule, MAX_IDLE_WARNINGS, idle_rule};
pub use job::{
    ArrayTask, BatchPart, EndCause, GpuKill, GresShare, Hold, Job, NodeShare, Run, RunLease,
    RunResult, RunStage, Usage,
};
pub use limits::{EachLimits, GroupLimits, JobLimits, TresLimits};
pub use mig::{DynamicNodes, MigConfig, NewSlice, Reshape, ReshapeRest};
pub use node::{
    Down, GpuFaultSeen, Holder, Inventory, LaunchTrouble, Node, NodeAdmin, NodeIndex, NodeUse,
};
pub use qos::{NORMAL_QOS, ONE_MILLIONTHS, PreemptMode, Qos, QosFlag};
pub(crate) use reservation::RECURRING;
pub use reservation::{Reservation, ReservationFlag};
pub use scheduling::{
    Backfill, Block, CostRates, Enforcement, FairShareConfig, Packing, PreemptBy, Preemption,
    ResetPeriod, Scheduling, Switch, Topology, Weights,
};
pub use spec::{BlobId, Details, JobSpec, MemoryRequest, Shape, SignalRequest, SwitchRequest};
pub use step::{
    Distribution, Step, StepDetails, StepKey, StepNumber, StepPhase, StepShare, StepSpec,
};
pub use usage::{DecayedUsage, UsageOwner};
