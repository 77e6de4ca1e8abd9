//! Which jobs come again and again, and what did their owner write?

use penstock_vocab::{CronSpec, Timestamp, UserId};

/// Most lines with jobs in one crontab: all of them are made, and the jobs of the one before ended, in one
/// command.
pub const MAX_CRON_JOBS: usize = 40;
/// Longest crontab, bytes.
pub const MAX_CRONTAB_BYTES: usize = 128 << 10;
/// Most times that are kept ahead of one job.
pub const MAX_CRON_TIMES: usize = 64;

/// What a crontab, as its owner wrote it, came to. There is one for each user at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crontab {
    /// Whose.
    pub uid: UserId,
    /// As written; not empty, at most [`MAX_CRONTAB_BYTES`].
    pub text: Box<str>,
    /// First and last line, counted from 1, of each entry whose job was cancelled.
    pub disabled: Box<[(u32, u32)]>,
}

/// When a job of a crontab comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronJob {
    /// The times by their fields.
    pub spec: CronSpec,
    /// Name of the time zone in which they are meant; empty: the controller's.
    pub zone: Box<str>,
    /// First and last line in the crontab, counted from 1, directives included.
    pub lines: (u32, u32),
    /// The times that are known ahead, the nearest first; at most [`MAX_CRON_TIMES`]. Who knows time zones
    /// adds to them when `Cluster::crons_to_extend` names the job.
    pub upcoming: Box<[Timestamp]>,
}
