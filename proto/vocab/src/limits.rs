//! How long or large may the words of users become?
//!
//! Everything parsed here comes from outside; each limit keeps one request from costing more
//! memory than a daemon can spare.

/// Most hosts one hostlist may stand for; the largest clusters have a tenth of that.
pub const MAX_HOSTLIST_HOSTS: usize = 100_000;

/// Longest name, in bytes, of a node, partition, gres or licence; DNS allows 253 for a host.
pub const MAX_NAME_LEN: usize = 255;

/// Longest list text, in bytes, that a parser of this crate looks at; sbatch's scripts are capped
/// at 4 MB, and no list in them is a sizeable part of that.
pub const MAX_LIST_TEXT: usize = 1 << 20;

/// Highest index of an array task; Slurm's `MaxArraySize` may be 4,000,001 at most.
pub const MAX_ARRAY_INDEX: u32 = 4_000_000;

/// Most tasks (duplicates counted) that one array specification may name: every index once.
pub const MAX_ARRAY_TASKS: u64 = MAX_ARRAY_INDEX as u64 + 1;

/// Most entries of one gres or TRES list; a node has a handful of kinds.
pub const MAX_GRES_LIST: usize = 256;

/// Longest finite time limit in minutes: Slurm keeps limits in 32 bits, the top three values of
/// which have a meaning of their own.
pub const MAX_WALLTIME_MINUTES: u64 = u32::MAX as u64 - 3;

/// Longest lead, in seconds, of `--signal`; Slurm keeps it in 16 bits.
pub const MAX_SIGNAL_LEAD_SECS: u16 = u16::MAX;
