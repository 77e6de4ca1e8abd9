//! How many jobs are in which state, and how long do they wait?

use std::collections::BTreeMap;

use penstock_core::command::Unit;
use penstock_core::model::AssocId;
use penstock_vocab::{JobId, JobState, Timestamp, display_state};

use super::family::{Family, float};
use crate::listing::View;

/// Accounts that are told apart; the others together are `other`.
const MOST_ACCOUNTS: usize = 100;
/// Partitions that are told apart.
const MOST_PARTITIONS: usize = 200;
/// What is told together.
const OTHER: &str = "other";

#[derive(Debug, Default)]
struct Counts {
    by_partition: BTreeMap<(String, &'static str), u64>,
    by_account: BTreeMap<AssocId, [u64; 2]>,
    by_reason: BTreeMap<&'static str, u64>,
    waits: Waits,
}

/// How long what waits has waited, milliseconds.
#[derive(Debug, Default)]
struct Waits {
    count: u64,
    sum: u64,
    longest: u64,
}

impl Waits {
    fn add(&mut self, waited: u64, jobs: u64) {
        self.count += jobs;
        self.sum = self.sum.saturating_add(waited.saturating_mul(jobs));
        self.longest = self.longest.max(waited);
    }
}

/// What is measured of jobs at `now`.
pub(super) fn families(view: &View<'_>, now: Timestamp) -> Vec<Family> {
    let counts = count(view, now);
    let waits = &counts.waits;
    let mean = if waits.count == 0 { 0.0 } else { float(waits.sum) / float(waits.count) / 1e3 };
    let reasons = counts.by_reason.iter();
    vec![
        Family::gauges(
            "penstock_jobs",
            "Jobs by state and partition, each waiting task of an array counted.",
            by_partition(&counts),
        ),
        Family::gauges(
            "penstock_account_jobs",
            "Jobs that wait or run, by account; small accounts together are `other`.",
            by_account(view, &counts),
        ),
        Family::gauges(
            "penstock_jobs_pending_reason",
            "Jobs that wait, by Slurm's reason.",
            reasons.map(|(r, n)| (vec![("reason", (*r).to_owned())], float(*n))).collect(),
        ),
        Family::gauge(
            "penstock_queue_wait_mean_seconds",
            "How long the jobs that wait now have waited, on average.",
            mean,
        ),
        Family::gauge(
            "penstock_queue_wait_longest_seconds",
            "How long the job that has waited longest has waited.",
            float(waits.longest) / 1e3,
        ),
    ]
}

fn count(view: &View<'_>, now: Timestamp) -> Counts {
    let mut counts = Counts::default();
    let first = |names: &[penstock_vocab::PartitionName]| {
        names.first().map(|name| name.as_str().to_owned()).unwrap_or_default()
    };
    for job in view.cluster.jobs() {
        let state = display_state(job.state, job.flags());
        let partition = match job.run.as_deref() {
            Some(run) if !job.is_pending() => run.partition.as_str().to_owned(),
            Some(_) | None => first(&job.spec.partitions),
        };
        *counts.by_partition.entry((partition, state)).or_default() += 1;
        let running = u64::from(job.active_run().is_some());
        let pending = u64::from(job.is_pending());
        let sums = counts.by_account.entry(job.assoc).or_default();
        sums[0] += pending;
        sums[1] += running;
        if job.is_pending() {
            counts.waits.add(now.since(job.submit_time).0, 1);
            let reason = view.plan.pending_reason(Unit::Job(job.id));
            *counts.by_reason.entry(word(reason)).or_default() += 1;
        }
    }
    for array in view.cluster.arrays().filter(|array| !array.pending.is_empty()) {
        let tasks = array.pending.len();
        let key = (first(&array.spec.partitions), JobState::Pending.name());
        *counts.by_partition.entry(key).or_default() += tasks;
        counts.by_account.entry(array.assoc).or_default()[0] += tasks;
        counts.waits.add(now.since(array.submit_time).0, tasks);
        let reason = view.plan.pending_reason(Unit::Array(JobId(array.id.0)));
        *counts.by_reason.entry(word(reason)).or_default() += tasks;
    }
    counts
}

fn word(reason: Option<penstock_vocab::PendingReason>) -> &'static str {
    reason.map_or("None", penstock_vocab::PendingReason::name)
}

type Values = Vec<(Vec<(&'static str, String)>, f64)>;

fn by_partition(counts: &Counts) -> Values {
    let mut names: Vec<&str> = counts.by_partition.keys().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names.truncate(MOST_PARTITIONS);
    let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for ((partition, state), count) in &counts.by_partition {
        let name = if names.contains(&partition.as_str()) { partition } else { OTHER };
        *sums.entry((name, state)).or_default() += count;
    }
    let value = |((partition, state), count): ((&str, &str), u64)| {
        let labels = vec![("partition", partition.to_owned()), ("state", state.to_lowercase())];
        (labels, float(count))
    };
    sums.into_iter().map(value).collect()
}

fn by_account(view: &View<'_>, counts: &Counts) -> Values {
    let mut sums: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for (assoc, [pending, running]) in &counts.by_account {
        let found = view.cluster.accounts().assoc(*assoc);
        let name = found.map_or("", |assoc| &*assoc.account);
        let sum = sums.entry(name).or_default();
        sum[0] += pending;
        sum[1] += running;
    }
    let mut ranked: Vec<(&str, [u64; 2])> = sums.into_iter().collect();
    ranked.sort_by_key(|(name, [pending, running])| (std::cmp::Reverse(pending + running), *name));
    let rest = ranked.split_off(ranked.len().min(MOST_ACCOUNTS));
    if !rest.is_empty() {
        let sum = |at: usize| rest.iter().map(|(_, sums)| sums[at]).sum();
        ranked.push((OTHER, [sum(0), sum(1)]));
    }
    let mut values = Vec::new();
    for (account, sums) in ranked {
        for (state, count) in ["pending", "running"].into_iter().zip(sums) {
            let labels = vec![("account", account.to_owned()), ("state", state.to_owned())];
            values.push((labels, float(count)));
        }
    }
    values
}
