//! Where does the controller's time go, and what did it do? Counters and durations since the start,
//! or since an admin began to count anew.
//!
//! Counting is a few additions and makes no memory but for a name that was never counted, so that it
//! may be done on every commit and every call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_core::Cluster;
use penstock_core::command::RecordKey;
use penstock_core::model::Job;
use penstock_proto::v1;
use penstock_vocab::{JobState, Timestamp};

/// Buckets of a histogram: the last holds everything from 2^30 microseconds, 18 minutes, on.
const BUCKETS: usize = 32;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Jobs and arrays that were submitted.
    Submitted,
    /// Runs that began.
    Started,
    /// Jobs that ended with success.
    Completed,
    /// Jobs that were cancelled.
    Cancelled,
    /// Jobs that ended otherwise.
    Failed,
    /// Plans that were made.
    Plans,
    /// Plans that looked at everything.
    FullPlans,
    /// Plans that a bound cut short.
    PlansCut,
    /// Jobs that started ahead of one that waits.
    Backfilled,
    /// Lines of plans that were out of date.
    RefusedLines,
    /// Runs that had to make room.
    Preempted,
}

const COUNTERS: usize = 11;
/// Methods that are told apart.
const MAX_METHODS: usize = 96;
/// What all others are counted as.
pub(crate) const OTHER_METHODS: &str = "other";

/// Counters and durations.
#[derive(Debug, Default)]
pub struct Statistics {
    counters: [AtomicU64; COUNTERS],
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    since: Timestamp,
    phases: BTreeMap<&'static str, Durations>,
    calls: BTreeMap<String, (u64, u64)>,
}

/// Durations of one phase, in microseconds.
#[derive(Debug, Default, Clone)]
struct Durations {
    count: u64,
    last: u64,
    max: u64,
    total: u64,
    histogram: [u64; BUCKETS],
}

impl Statistics {
    /// Counters at zero.
    #[must_use]
    pub fn start(now: Timestamp) -> Arc<Self> {
        let statistics = Self::default();
        statistics.reset(now);
        Arc::new(statistics)
    }

    /// Begins to count anew.
    pub fn reset(&self, now: Timestamp) {
        for counter in &self.counters {
            counter.store(0, Ordering::Relaxed);
        }
        *self.tables() = Tables { since: now, ..Tables::default() };
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a counter.
    pub fn count(&self, counter: Counter, amount: u64) {
        self.counters[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// A counter's value.
    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Notes how long a phase took.
    pub fn time(&self, phase: &'static str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.tables().phases.entry(phase).or_default().add(micros);
    }

    /// Notes how long a call took to be answered.
    pub fn call(&self, method: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let calls = &mut self.tables().calls;
        // A stranger can make up names; those beyond the bound are counted together.
        let told = calls.len() < MAX_METHODS || calls.contains_key(method);
        let name = if told { method } else { OTHER_METHODS };
        let add = |(count, total): &mut (u64, u64)| {
            *count += 1;
            *total = total.saturating_add(micros);
        };
        match calls.get_mut(name) {
            Some(entry) => add(entry),
            None => add(calls.entry(name.to_owned()).or_default()),
        }
    }

    /// Counts what a commit did to jobs.
    pub fn commit(&self, before: &Cluster, after: &Cluster, changed: &[RecordKey]) {
        for key in changed {
            let (old, new) = match key {
                RecordKey::Job(id) => (before.job(*id), after.job(*id)),
                RecordKey::Array(id) => {
                    let new = before.array(*id).is_none() && after.array(*id).is_some();
                    self.count(Counter::Submitted, u64::from(new));
                    continue;
                }
                _ => continue,
            };
            let Some(new) = new else { continue };
            let runs = |job: Option<&Arc<Job>>| job.map_or(0, |job| job.last_attempt.0);
            self.count(Counter::Submitted, u64::from(old.is_none() && new.array.is_none()));
            self.count(Counter::Started, u64::from(runs(Some(new)).saturating_sub(runs(old))));
            if new.state.is_finished() && !old.is_some_and(|old| old.state.is_finished()) {
                self.count(ended_as(new.state), 1);
            }
        }
    }

    /// What there is to say to `sdiag`, without what is derived for the moment.
    #[must_use]
    pub fn report(&self) -> v1::DiagnoseReply {
        let tables = self.tables();
        let phase = |(name, durations): (&&'static str, &Durations)| v1::Phase {
            name: (*name).to_owned(),
            count: durations.count,
            last_us: durations.last,
            max_us: durations.max,
            total_us: durations.total,
            histogram: durations.histogram.to_vec(),
        };
        let call = |(method, (count, total)): (&String, &(u64, u64))| v1::RpcStatistics {
            method: method.clone(),
            count: *count,
            total_us: *total,
        };
        v1::DiagnoseReply {
            since_ms: tables.since.0,
            jobs_submitted: self.value(Counter::Submitted),
            jobs_started: self.value(Counter::Started),
            jobs_completed: self.value(Counter::Completed),
            jobs_cancelled: self.value(Counter::Cancelled),
            jobs_failed: self.value(Counter::Failed),
            plans: self.value(Counter::Plans),
            full_plans: self.value(Counter::FullPlans),
            plans_cut: self.value(Counter::PlansCut),
            backfilled: self.value(Counter::Backfilled),
            refused_lines: self.value(Counter::RefusedLines),
            preempted: self.value(Counter::Preempted),
            phases: tables.phases.iter().map(phase).collect(),
            rpcs: tables.calls.iter().map(call).collect(),
            ..v1::DiagnoseReply::default()
        }
    }
}

fn ended_as(state: JobState) -> Counter {
    match state {
        JobState::Completed => Counter::Completed,
        JobState::Cancelled => Counter::Cancelled,
        _ => Counter::Failed,
    }
}

impl Durations {
    fn add(&mut self, micros: u64) {
        self.count += 1;
        self.last = micros;
        self.max = self.max.max(micros);
        self.total = self.total.saturating_add(micros);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.histogram[bucket.min(BUCKETS - 1)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_are_counted_together() {
        let statistics = Statistics::start(Timestamp(5));
        for number in 0..300 {
            statistics.call(&format!("Made{number}"), Duration::from_micros(1));
            statistics.call("Made0", Duration::from_micros(1));
        }
        let calls = statistics.report().rpcs;
        assert_eq!(calls.len(), MAX_METHODS + 1);
        let count = |name: &str| calls.iter().find(|call| call.method == name).unwrap().count;
        assert_eq!((count("Made0"), count("other")), (301, 300 - MAX_METHODS as u64));
    }

    #[test]
    fn durations_fall_into_powers_of_two() {
        let statistics = Statistics::start(Timestamp(5));
        for micros in [0, 1, 2, 3, 4, 1_000, u64::MAX] {
            statistics.time("plan", Duration::from_micros(micros));
        }
        let report = statistics.report();
        let phase = &report.phases[0];
        assert_eq!((report.since_ms, phase.count, phase.max_us), (5, 7, u64::MAX));
        assert_eq!(phase.histogram[..4], [1, 1, 2, 1]);
        assert_eq!((phase.histogram[10], phase.histogram[31]), (1, 1));
        statistics.count(Counter::Started, 3);
        assert_eq!(statistics.report().jobs_started, 3);
        statistics.reset(Timestamp(9));
        assert_eq!(statistics.report(), v1::DiagnoseReply { since_ms: 9, ..Default::default() });
    }
}
