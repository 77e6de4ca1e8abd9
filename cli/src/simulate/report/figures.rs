//! Which figures tell how well a schedule served its jobs?
//!
//! - *makespan*: from the first submission to the last end, seconds;
//! - *utilisation*: unit-seconds that jobs ran, over capacity times makespan;
//! - *wait*: from submission to start. A percentile is the smallest wait that is not below so many of
//!   a hundred (nearest rank), so it is the wait of a real job;
//! - *bounded slowdown*: max(1, (wait + run) / max(run, 10 s)) (Feitelson and Rudolph, 1998);
//! - *fairness*, over users or accounts: each one's mean bounded slowdown, of which the lowest, the
//!   highest, and Jain's index (sum x)^2 / (n sum x^2): 1 where all are served alike, 1/n where one
//!   bears everything.
//!
//! Only jobs that ended count. These are the only fractions of a replay.

use crate::simulate::drive::{Fate, Outcome};
use crate::simulate::job::Workload;

/// Runs shorter than this count as so long, or one of a second would outweigh a day's.
const TAU_SECS: i64 = 10;

/// The figures of one replay.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::simulate) struct Figures {
    /// Jobs that ended.
    pub(in crate::simulate) ended: usize,
    /// Jobs that run to the end of the trace, having no end.
    pub(in crate::simulate) endless: usize,
    /// Jobs that never started.
    pub(in crate::simulate) waiting: usize,
    pub(in crate::simulate) refused: usize,
    pub(in crate::simulate) backfilled: usize,
    pub(in crate::simulate) plans: u64,
    pub(in crate::simulate) makespan_secs: i64,
    pub(in crate::simulate) utilisation: f64,
    pub(in crate::simulate) wait: Spread,
    pub(in crate::simulate) slowdown: Spread,
    pub(in crate::simulate) users: Fairness,
    pub(in crate::simulate) accounts: Fairness,
    pub(in crate::simulate) gpus: Option<Gpus>,
    /// Units in use at the end, over the capacity.
    pub(in crate::simulate) allocated: f64,
}

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::simulate) struct Spread {
    pub(in crate::simulate) mean: f64,
    pub(in crate::simulate) median: f64,
    pub(in crate::simulate) p95: f64,
    pub(in crate::simulate) p99: f64,
    pub(in crate::simulate) max: f64,
}

/// How alike groups of jobs are served.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::simulate) struct Fairness {
    /// Groups with a job that ended.
    pub(in crate::simulate) groups: usize,
    /// Jain's index of their mean bounded slowdowns.
    pub(in crate::simulate) jain: f64,
    /// Lowest and highest mean bounded slowdown.
    pub(in crate::simulate) lowest: f64,
    pub(in crate::simulate) highest: f64,
    /// Who has the highest.
    pub(in crate::simulate) worst: String,
}

/// Idle GPUs that are of no use where they are; see [`crate::simulate::fragmentation`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct Gpus {
    /// Part of the idle GPUs, over time.
    pub(in crate::simulate) fragmented: f64,
    /// The same at the end.
    pub(in crate::simulate) fragmented_last: f64,
    /// Idle ones at the end.
    pub(in crate::simulate) idle_last: u64,
}

impl Figures {
    /// The figures of a replay on a cluster of `capacity` units.
    pub(in crate::simulate) fn new(workload: &Workload, outcome: &Outcome, capacity: u64) -> Self {
        let mut waits = Vec::new();
        let mut slowdowns = Vec::new();
        let mut users = vec![Group::default(); workload.users.len()];
        let mut accounts = vec![Group::default(); workload.accounts.len()];
        let (mut endless, mut waiting, mut last_end, mut busy) = (0, 0, None, 0u128);
        for (job, fate) in workload.jobs.iter().zip(&outcome.fates) {
            let (start, end) = match *fate {
                Fate::Ran { start, end: Some(end) } => (start, end),
                Fate::Ran { end: None, .. } => {
                    endless += 1;
                    continue;
                }
                Fate::Waits => {
                    waiting += 1;
                    continue;
                }
                Fate::Refused => continue,
            };
            last_end = last_end.max(Some(end));
            let (wait, run) = (start - job.submit, end - start);
            busy += u128::try_from(run).unwrap_or(0) * u128::from(job.size);
            let slowdown = bounded_slowdown(wait, run);
            waits.push(wait as f64);
            slowdowns.push(slowdown);
            users[job.user].add(slowdown);
            accounts[job.account].add(slowdown);
        }
        let first = workload.jobs.first().map_or(0, |job| job.submit);
        let makespan_secs = last_end.map_or(0, |end| end - first);
        let whole = capacity as f64 * makespan_secs as f64;
        let used_last = outcome.samples.last().map_or(0, |sample| sample.used);
        Self {
            ended: waits.len(),
            endless,
            waiting,
            refused: outcome.refused,
            backfilled: outcome.backfilled,
            plans: outcome.plans,
            makespan_secs,
            utilisation: if whole > 0.0 { busy as f64 / whole } else { 0.0 },
            wait: Spread::of(waits),
            slowdown: Spread::of(slowdowns),
            users: Fairness::of(&users, &workload.users),
            accounts: Fairness::of(&accounts, &workload.accounts),
            gpus: outcome.fragmentation.as_ref().map(|fragmentation| Gpus {
                fragmented: fragmentation.mean(),
                fragmented_last: fragmentation.last(),
                idle_last: fragmentation.idle(),
            }),
            allocated: if capacity > 0 { used_last as f64 / capacity as f64 } else { 0.0 },
        }
    }
}

fn bounded_slowdown(wait: i64, run: i64) -> f64 {
    let flow = (wait + run) as f64;
    (flow / run.max(TAU_SECS) as f64).max(1.0)
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        // In the order of the jobs, so that rounding is the same each time.
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            values[rank.max(1) - 1]
        };
        Self { mean, median: rank(50), p95: rank(95), p99: rank(99), max: rank(100) }
    }
}

/// Jobs of one user or account.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    sum: f64,
    jobs: u32,
}

impl Group {
    fn add(&mut self, slowdown: f64) {
        self.sum += slowdown;
        self.jobs += 1;
    }
}

impl Fairness {
    fn of(groups: &[Group], names: &[String]) -> Self {
        let means: Vec<(f64, &String)> = groups
            .iter()
            .zip(names)
            .filter(|(group, _)| group.jobs > 0)
            .map(|(group, name)| (group.sum / f64::from(group.jobs), name))
            .collect();
        let Some((highest, worst)) =
            means.iter().copied().reduce(|a, b| if b.0 > a.0 { b } else { a })
        else {
            return Self::default();
        };
        let sum: f64 = means.iter().map(|(mean, _)| mean).sum();
        let squares: f64 = means.iter().map(|(mean, _)| mean * mean).sum();
        Self {
            groups: means.len(),
            jain: sum * sum / (means.len() as f64 * squares),
            lowest: means.iter().map(|(mean, _)| *mean).fold(f64::INFINITY, f64::min),
            highest,
            worst: worst.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowdown_is_bounded_below_and_for_short_jobs() {
        for (wait, run, expect) in
            [(0, 100, 1.0), (100, 100, 2.0), (0, 1, 1.0), (99, 1, 10.0), (5, 5, 1.0)]
        {
            assert!((bounded_slowdown(wait, run) - expect).abs() < 1e-12, "{wait} {run}");
        }
    }

    #[test]
    fn percentiles_are_values_of_real_jobs() {
        let spread = Spread::of((1..=200).map(f64::from).collect());
        assert_eq!(
            (spread.median, spread.p95, spread.p99, spread.max),
            (100.0, 190.0, 198.0, 200.0)
        );
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn fairness_is_one_for_equals_and_a_share_where_one_bears_all() {
        let names: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let group = |sum, jobs| Group { sum, jobs };
        let equal =
            Fairness::of(&[group(2.0, 1), group(4.0, 2), group(0.0, 0), group(6.0, 3)], &names);
        assert_eq!(equal.groups, 3);
        assert!((equal.jain - 1.0).abs() < 1e-12);
        let unequal =
            Fairness::of(&[group(0.0, 1), group(8.0, 1), group(0.0, 1), group(0.0, 1)], &names);
        assert!((unequal.jain - 0.25).abs() < 1e-12);
        assert_eq!((unequal.worst.as_str(), unequal.highest), ("b", 8.0));
    }
}
