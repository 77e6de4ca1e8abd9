//! What do the parts of running jobs use?
//!
//! Nodes tell it now and then, and when they are asked. It is kept in memory while the run lasts; what
//! a part used in all comes with its end, and only where a part was lost the last that was heard of it
//! is all there is. A node is believed about parts that it runs, and about no others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_core::Cluster;
use penstock_core::model::{NodeIndex, RunResult, StepKey, StepNumber, Usage};
use penstock_proto::v1;
use penstock_vocab::{Attempt, JobId, Measure, NodeName, Spread, Timestamp};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::convert::run::usage_from_wire;
use crate::gpus::Gpus;

/// Parts of one report that are looked at.
const MAX_PARTS: usize = 4_096;
/// Processes of a part whose numbers are kept.
const MAX_PIDS: usize = 512;
/// Most parts that are known at once; beyond it new ones are not.
const MAX_KNOWN: usize = 1_000_000;
/// How often those of runs that are over are forgotten, milliseconds.
const SWEEP_MS: i64 = 60_000;

/// A part of a run: the batch script, or with a number a step.
pub type PartKey = (JobId, Attempt, Option<StepNumber>);

/// What was last heard of one part on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// What it used, resident memory and processes.
    pub part: v1::PartUsage,
    /// When, by our clock.
    pub at: Timestamp,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct UsageDesk {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    parts: BTreeMap<PartKey, BTreeMap<Box<str>, Heard>>,
    known: usize,
    swept: i64,
}

impl UsageDesk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a node's report at `now`.
    pub fn report(
        &self,
        cluster: &Cluster,
        name: &NodeName,
        report: v1::UsageReport,
        now: Timestamp,
    ) {
        let Some(node) = cluster.node_index(name.as_str()) else { return };
        let mut inner = self.lock();
        inner.sweep(cluster, now);
        for mut part in report.parts.into_iter().take(MAX_PARTS) {
            let key = key_of(&part);
            if !runs(cluster, key, node) {
                continue;
            }
            part.pids.truncate(MAX_PIDS);
            inner.put(key, name.as_str(), Heard { part, at: now });
        }
        drop(inner);
        self.news.notify_waiters();
    }

    /// What was last heard of a part on a node.
    #[must_use]
    pub fn of_part(&self, key: PartKey, node: &str) -> Option<Heard> {
        self.lock().parts.get(&key)?.get(node).cloned()
    }

    /// Waits for the next report of whatever node.
    pub fn heard(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Completes what a node says of the end of a part: what was measured of its GPUs there, and of one
    /// that was lost what was heard last. The numbers of GPUs are told of the part's first task there.
    pub fn complete(
        &self,
        cluster: &Cluster,
        gpus: &Gpus,
        end: (PartKey, &NodeName, &mut RunResult),
    ) {
        let (key, name, result) = end;
        if result.lost && result.usage == Usage::default() {
            let heard = self.of_part(key, name.as_str());
            let known = heard.and_then(|heard| heard.part.usage);
            result.usage = known.as_ref().map(usage_from_wire).unwrap_or_default();
        }
        let Some(of_gpus) = gpus.of_part(key, name) else { return };
        let first = cluster.node_index(name.as_str()).and_then(|node| {
            let step = cluster.step(StepKey { job: key.0, attempt: key.1, number: key.2? })?;
            step.share_on(node)?.ranks.first().copied()
        });
        let tasks = result.usage.tasks.get_or_insert_default();
        tasks.tasks = tasks.tasks.max(1);
        for (measure, value) in [
            (Measure::Energy, of_gpus.energy_mj),
            (Measure::GpuUtil, of_gpus.utilization),
            (Measure::GpuMemory, of_gpus.peak_bytes),
        ] {
            tasks.set(measure, value.map(|value| Spread::of(first.unwrap_or(0), value)));
        }
    }
}

impl Inner {
    fn put(&mut self, key: PartKey, node: &str, heard: Heard) {
        if let Some(known) = self.parts.get_mut(&key).and_then(|nodes| nodes.get_mut(node)) {
            *known = heard;
        } else if self.known < MAX_KNOWN {
            self.known += 1;
            self.parts.entry(key).or_default().insert(node.into(), heard);
        }
    }

    fn sweep(&mut self, cluster: &Cluster, now: Timestamp) {
        if now.0 - self.swept < SWEEP_MS {
            return;
        }
        self.swept = now.0;
        self.parts.retain(|(job, attempt, _), _| {
            let run = cluster.job(*job).and_then(|job| job.active_run());
            run.is_some_and(|run| run.attempt == *attempt)
        });
        self.known = self.parts.values().map(BTreeMap::len).sum();
    }
}

fn key_of(part: &v1::PartUsage) -> PartKey {
    (JobId(part.job_id), Attempt(part.attempt), part.step.map(StepNumber))
}

/// Whether the node runs that part.
fn runs(cluster: &Cluster, (job, attempt, step): PartKey, node: NodeIndex) -> bool {
    let run = cluster.job(job).and_then(|job| job.active_run());
    let Some(run) = run.filter(|run| run.attempt == attempt) else { return false };
    match step {
        None => run.script_node() == Some(node),
        Some(number) => {
            let step = cluster.step(StepKey { job, attempt, number });
            step.and_then(|step| step.share_on(node)).is_some_and(|share| share.is_live())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_core::Command;
    use penstock_core::model::{Config, Inventory};
    use penstock_vocab::SessionId;

    use super::*;

    fn part(job_id: u32, step: Option<u32>) -> v1::PartUsage {
        v1::PartUsage { job_id, step, memory_bytes: 7, ..v1::PartUsage::default() }
    }

    #[test]
    fn a_node_is_not_believed_about_what_it_does_not_run() {
        let now = Timestamp(1_000_000);
        let mut cluster = Cluster::new(Arc::new(Config::default()), now);
        let name = NodeName::new("n1").unwrap();
        let command = Command::Register {
            node: name.clone(),
            session: SessionId(1),
            inventory: Box::new(Inventory { cpus: 1, ..Inventory::default() }),
            attempts: Vec::new(),
        };
        cluster.execute(now, command).unwrap();
        let desk = UsageDesk::default();
        let report = v1::UsageReport { parts: vec![part(1, None), part(1, Some(0))] };
        desk.report(&cluster, &name, report.clone(), now);
        desk.report(&cluster, &NodeName::new("unknown").unwrap(), report, now);
        for step in [None, Some(StepNumber(0))] {
            assert_eq!(desk.of_part((JobId(1), Attempt(0), step), "n1"), None);
        }
    }

    #[test]
    fn of_a_part_that_was_lost_the_last_that_was_heard_counts() {
        let cluster = Cluster::new(Arc::new(Config::default()), Timestamp(1));
        let (desk, gpus) = (UsageDesk::default(), Gpus::default());
        let key = (JobId(4), Attempt(1), None);
        let name = NodeName::new("n1").unwrap();
        let usage = v1::Usage { user_cpu_usec: 9, ..v1::Usage::default() };
        let told = v1::PartUsage { usage: Some(usage), ..part(4, None) };
        desk.lock().put(key, "n1", Heard { part: told, at: Timestamp(1) });
        let mut lost = RunResult { lost: true, ..RunResult::default() };
        desk.complete(&cluster, &gpus, (key, &name, &mut lost));
        assert_eq!(lost.usage.user_cpu_usec, 9);
        let mut ended = RunResult::default();
        desk.complete(&cluster, &gpus, (key, &name, &mut ended));
        assert_eq!(ended.usage, Usage::default(), "what ended by itself tells it itself");
    }
}
