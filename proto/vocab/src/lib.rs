//! Which words do all parts of Penstock share, and how are they written?
//!
//! Every text form that Slurm's tools accept or print lives here once: a parser and a `Display`
//! that are inverse to each other. Nothing in this crate reads a clock, a file or the environment.
//!
//! ```
//! use penstock_vocab::{Walltime, expand, parse_memory, parse_walltime};
//!
//! assert_eq!(expand("n[1-2]").expect("valid"), ["n1", "n2"]);
//! assert_eq!(parse_walltime("1:30:00"), Ok(Walltime::Limited(5400)));
//! assert_eq!(parse_memory("4G").expect("valid").to_string(), "4G");
//! ```

#![forbid(unsafe_code)]

mod macros;

mod array_spec;
mod cron;
mod exit;
mod filename;
mod gres;
mod hostlist;
mod ids;
mod indexset;
mod limits;
mod mail;
mod memory;
mod node_state;
mod reason;
mod selector;
mod signal;
mod state;
mod time;
mod tres;
mod usage;
mod walltime;

pub use array_spec::{ArraySpecError, parse_array_spec};
pub use cron::{CronError, CronSpec};
pub use exit::{ExitCode, ExitCodeError};
pub use filename::{NO_ARRAY_TASK, PatternFields, expand_pattern};
pub use gres::{
    GresError, GresName, GresRequest, gres_matches, parse_count, parse_gpus, parse_gres_list,
};
pub use hostlist::{
    HostlistError, compress, compress_keep_order, expand, expand_unique, host_order,
};
pub use ids::{
    ArrayTaskId, Attempt, GroupId, IdError, JobId, NameError, NodeName, PartitionName, SessionId,
    UserId,
};
pub use indexset::{IndexSet, Run};
pub use limits::{
    MAX_ARRAY_INDEX, MAX_ARRAY_TASKS, MAX_GRES_LIST, MAX_HOSTLIST_HOSTS, MAX_LIST_TEXT,
    MAX_NAME_LEN, MAX_SIGNAL_LEAD_SECS, MAX_WALLTIME_MINUTES,
};
pub use mail::{MailTypeError, MailTypes, is_mail_address};
pub use memory::{MemoryError, Mib, parse_memory};
pub use node_state::{NodeFlag, NodeFlags, NodeState, NodeStatus, NodeStatusError};
pub use reason::{PendingReason, UnknownReason};
pub use selector::{INTERACTIVE_STEP, JobSelector, SelectorError, StepId, StepSelector};
pub use signal::{DEFAULT_SIGNAL_LEAD_SECS, Signal, SignalError, SignalSpec};
pub use state::{
    JobFlag, JobFlags, JobState, StateFilter, UnknownState, all_job_states, display_state,
    display_state_code, parse_job_state,
};
pub use time::{Millis, Timestamp};
pub use tres::{Tres, TresError, TresKind, parse_tres_list};
pub use usage::{Measure, Spread, TaskUsage};
pub use walltime::{Walltime, WalltimeError, elapsed_long, elapsed_short, parse_walltime};
