//! When is a GPU that somebody holds idle for too long, and what is done then?
//!
//! Rules of the cluster file; the first that covers a job counts for it. Without rules nothing is
//! done. What was said to a job, and what was done, stands in the record of its run.

use penstock_vocab::{PartitionName, Timestamp};

use super::job::Job;
use super::job::Run;

/// Most notices before something is done.
pub const MAX_IDLE_WARNINGS: u32 = 10;

/// One `[[idle_reclaim]]` of the cluster file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleRule {
    /// Name, for people; unique.
    pub name: Box<str>,
    /// Partitions whose runs it covers; empty: all.
    pub partitions: Vec<PartitionName>,
    /// QOS whose jobs it covers; empty: all.
    pub qos: Vec<Box<str>>,
    /// Accounts whose jobs it covers; empty: all.
    pub accounts: Vec<Box<str>>,
    /// Users whose jobs no rule from here on concerns, though this one covers them.
    pub exempt_users: Vec<Box<str>>,
    /// QOS that are exempt in the same way.
    pub exempt_qos: Vec<Box<str>>,
    /// Accounts that are exempt in the same way.
    pub exempt_accounts: Vec<Box<str>>,
    /// Jobs without a script (salloc, srun) are exempt.
    pub exempt_interactive: bool,
    /// Jobs that said why (`--idle-ok`) are exempt.
    pub accept_idle_ok: bool,
    /// A GPU that computes for at most so many percent of the time is idle.
    pub threshold_percent: u32,
    /// One with more than so many percent of its memory in use is not: a loaded model waits for work.
    pub memory_percent: u32,
    /// Nor is one that draws so many watts; 0: not looked at.
    pub busy_watts: u32,
    /// For so long without a break, seconds; at least 1.
    pub window_secs: u32,
    /// So much of that time must have been seen, percent. What was not seen is never idle.
    pub coverage_percent: u32,
    /// A job is idle once so many percent of its GPUs are.
    pub gpus_percent: u32,
    /// A run is let alone for so long after its start, seconds.
    pub start_grace_secs: u32,
    /// Notices before something is done, 1 to [`MAX_IDLE_WARNINGS`].
    pub warnings: u32,
    /// From the first notice until it is done, seconds; the others are spread over it.
    pub grace_secs: u32,
    /// What is done.
    pub action: IdleAction,
    /// It is written down and logged, and nobody is told and nothing done.
    pub dry_run: bool,
}

impl Default for IdleRule {
    fn default() -> Self {
        Self {
            name: "".into(),
            partitions: Vec::new(),
            qos: Vec::new(),
            accounts: Vec::new(),
            exempt_users: Vec::new(),
            exempt_qos: Vec::new(),
            exempt_accounts: Vec::new(),
            exempt_interactive: false,
            accept_idle_ok: true,
            threshold_percent: 0,
            memory_percent: 50,
            busy_watts: 0,
            window_secs: 7_200,
            coverage_percent: 90,
            gpus_percent: 100,
            start_grace_secs: 900,
            warnings: 2,
            grace_secs: 3_600,
            action: IdleAction::Notify,
            dry_run: true,
        }
    }
}

/// What is done with a job whose GPUs are idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum IdleAction {
    /// It is told, and no more.
    #[default]
    Notify,
    /// It ends and waits again; one that may not be requeued goes on.
    Requeue,
    /// It ends.
    Cancel,
    /// It goes on until another job needs its place.
    Preemptible,
}

impl IdleAction {
    /// As the cluster file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Requeue => "requeue",
            Self::Cancel => "cancel",
            Self::Preemptible => "preemptible",
        }
    }

    /// Inverse of [`Self::name`]; `None`: no such word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Notify, Self::Requeue, Self::Cancel, Self::Preemptible];
        all.into_iter().find(|action| action.name() == name)
    }
}

/// What was said to a run about its idle GPUs, and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleNote {
    /// Name of the rule.
    pub rule: Box<str>,
    /// Notices so far.
    pub warned: u32,
    /// When the first was given.
    pub since: Timestamp,
    /// Something is done at this time, if they are still idle.
    pub act_at: Timestamp,
    /// What.
    pub action: IdleAction,
    /// Nobody was told, and nothing is done.
    pub dry_run: bool,
    /// What was seen when the last notice was given, or it was done; for people.
    pub evidence: Box<str>,
    /// GPU time that was seen idle by then, milliseconds times GPUs.
    pub lost_ms: u64,
    /// When it was done.
    pub acted: Option<Timestamp>,
    /// GPU time from then until the run's limit, milliseconds times GPUs; 0: it has no limit, or its GPUs
    /// were not taken from it.
    pub freed_ms: u64,
}

impl IdleRule {
    /// Whether the rule covers a run of a job, exempt or not.
    #[must_use]
    pub fn covers(&self, job: &Job, run: &Run) -> bool {
        let spec = &job.spec;
        (self.partitions.is_empty() || self.partitions.contains(&run.partition))
            && (self.qos.is_empty() || named(&self.qos, spec.qos_name()))
            && (self.accounts.is_empty() || named(&self.accounts, &spec.account))
    }

    /// Whether a job that it covers is exempt.
    #[must_use]
    pub fn exempts(&self, job: &Job) -> bool {
        let spec = &job.spec;
        named(&self.exempt_users, &spec.details.user_name)
            || named(&self.exempt_qos, spec.qos_name())
            || named(&self.exempt_accounts, &spec.account)
            || self.exempt_interactive && spec.allocation
            || self.accept_idle_ok && !spec.details.idle_ok.is_empty()
    }
}

fn named(list: &[Box<str>], name: &str) -> bool {
    list.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// The rule that counts for a run of a job; `None`: none does, or it is exempt.
#[must_use]
pub fn idle_rule<'a>(rules: &'a [IdleRule], job: &Job, run: &Run) -> Option<&'a IdleRule> {
    rules.iter().find(|rule| rule.covers(job, run)).filter(|rule| !rule.exempts(job))
}

impl Run {
    /// Whether anybody who waits may take its place, because its GPUs are idle.
    #[must_use]
    pub fn is_idle_prey(&self) -> bool {
        self.idle.as_ref().is_some_and(|note| {
            note.acted.is_some() && note.action == IdleAction::Preemptible && !note.dry_run
        })
    }

    /// Units of GPUs and slices that it holds; `None`: some are shards, which nobody holds alone.
    #[must_use]
    pub fn whole_gpus(&self) -> Option<u32> {
        let mut count = 0usize;
        for gres in self.shares.iter().flat_map(|share| &share.gres) {
            match gres.name.name() {
                super::gpu::GPU => count += gres.ids.len(),
                super::gpu::SHARD if !gres.ids.is_empty() => return None,
                _ => {}
            }
        }
        u32::try_from(count).ok()
    }
}
