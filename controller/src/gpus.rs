//! What is each GPU doing, and what did each run make of its GPUs?
//!
//! Agents send samples; here they become a few numbers a GPU and run: time by utilisation (a percent
//! each, so at most 101 entries), peaks, sums. The cluster hears of them once, when the run ends.
//! Time counts only where a sample says something: what was not seen is unknown, and never 0.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::Cluster;
use penstock_core::model::{
    GPU, GpuUsage, IdleRule, Node, NodeIndex, NodeUse, Run, Step, StepNumber, idle_rule,
};
use penstock_core::policy::idle::{GpuSight, Measured, RunSight, Sight, Streak, sight};
use penstock_proto::v1;
use penstock_vocab::{Attempt, GresName, JobId, Mib, NodeName, Timestamp};

use crate::usage::PartKey;

/// Longest time for which one sample speaks, milliseconds: where the next comes later, what was between
/// is unknown.
const MAX_GAP_MS: i64 = 60_000;
/// Samples of one report that are looked at.
const MAX_SAMPLES: usize = 2_048;
/// How long the numbers of a run are kept after its last sample, milliseconds: its end may be told
/// several times.
const KEPT_MS: i64 = 900_000;
/// How often what is too old is forgotten, milliseconds.
const SWEEP_MS: i64 = 60_000;
/// Most GPUs of runs that are measured at once; beyond it new ones are not.
const MAX_METERS: usize = 400_000;

/// All that is measured.
#[derive(Debug, Default)]
pub struct Gpus {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<Box<str>, Seen>,
    /// Of whole runs, and of their steps.
    runs: BTreeMap<PartKey, Vec<Meter>>,
    meters: usize,
    swept: i64,
}

/// What a node last said.
#[derive(Debug, Default)]
struct Seen {
    /// By the node's clock.
    at_ms: i64,
    /// By ours.
    heard: Timestamp,
    samples: Vec<v1::GpuSample>,
}

/// One GPU or slice that a run holds.
#[derive(Debug)]
struct Meter {
    node: NodeName,
    gpu: u32,
    gi: Option<u32>,
    start: Option<u32>,
    kind: Box<str>,
    memory: Mib,
    /// Milliseconds by utilisation in percent, ascending.
    times: Vec<(u8, u64)>,
    seen_ms: u64,
    idle_now_ms: u64,
    /// Known time with a count of processes, and of it without any.
    processes_ms: u64,
    empty_ms: u64,
    peak_memory: Option<u64>,
    energy_mj: Option<u64>,
    last: Timestamp,
    /// By the node's clock; 0: never.
    last_ms: i64,
    streak: Streak,
    /// It had no process when it was last seen.
    is_empty: bool,
}

impl Gpus {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a node's report at `now`. Samples of runs that the node does not hold are not believed.
    pub fn report(
        &self,
        cluster: &Cluster,
        name: &NodeName,
        report: v1::GpuReport,
        now: Timestamp,
    ) {
        let Ok((index, node)) = cluster.node_by_name(name) else { return };
        let used = cluster.node(index).map(|(_, used)| used);
        let rules = &cluster.config().idle;
        let mut inner = self.lock();
        inner.sweep(now);
        let before = inner.nodes.get(name.as_str()).map(|seen| seen.at_ms);
        let gap = before.map(|before| report.time_ms.saturating_sub(before));
        let gap = gap.filter(|gap| (1..=MAX_GAP_MS).contains(gap));
        let mut samples = report.samples;
        samples.truncate(MAX_SAMPLES);
        // Of a job that has no process there its node knows nothing.
        if let Some(used) = used.filter(|used| !used.jobs.is_empty()) {
            for sample in samples.iter_mut().filter(|sample| sample.job_id == 0) {
                attribute(cluster, index, &node, used, sample);
            }
        }
        for sample in samples.iter().filter(|sample| sample.job_id != 0) {
            let (id, attempt) = (JobId(sample.job_id), Attempt(sample.attempt));
            let job = cluster.job(id);
            let run = job.and_then(|job| job.active_run());
            let holds = job.zip(run).filter(|(_, run)| {
                run.attempt == attempt && run.shares.iter().any(|share| share.node == index)
            });
            let Some((job, run)) = holds else { continue };
            // A run that began since the last report was seen since its start.
            let began = i64::try_from(now.since(run.start_time).0).unwrap_or(i64::MAX);
            let ms = gap.map_or(0, |gap| gap.min(began));
            let ms = u64::try_from(ms).unwrap_or(0);
            if let Some(meter) = inner.meter((id, attempt, None), &node, sample) {
                match idle_rule(rules, job, run) {
                    Some(rule) => meter.look(rule, run, sample, (ms, report.time_ms, now)),
                    None => meter.streak = Streak::default(),
                }
                meter.last_ms = report.time_ms;
                meter.take(sample, ms, now);
            }
            for (number, start) in steps_with(cluster, (id, run), (index, &node), sample) {
                let began = now.since(start).0;
                if let Some(meter) = inner.meter((id, attempt, Some(number)), &node, sample) {
                    meter.take(sample, ms.min(began), now);
                }
            }
        }
        let seen = Seen { at_ms: report.time_ms, heard: now, samples };
        inner.nodes.insert(name.as_str().into(), seen);
    }

    /// What is known of the GPUs of a run; empty: nothing.
    #[must_use]
    pub fn of_run(&self, job: JobId, attempt: Attempt) -> Arc<[GpuUsage]> {
        let inner = self.lock();
        let Some(meters) = inner.runs.get(&(job, attempt, None)) else { return Arc::default() };
        let mut usage: Vec<GpuUsage> = meters.iter().map(Meter::usage).collect();
        usage.sort_by(|a, b| (&a.node, a.gpu, a.start).cmp(&(&b.node, b.gpu, b.start)));
        usage.into()
    }

    /// What is known of the GPUs of a part of a run on one node; `None`: nothing.
    #[must_use]
    pub fn of_part(&self, key: PartKey, node: &NodeName) -> Option<PartGpus> {
        let inner = self.lock();
        let meters = inner.runs.get(&key)?;
        let mut usage = meters.iter().filter(|meter| meter.node == *node).map(Meter::usage);
        let first = usage.next()?;
        Some(usage.fold(PartGpus::of(&first), |sum, one| sum.and(PartGpus::of(&one))))
    }

    /// What is known of the GPUs of a run, as far as the rule asks; those that were not seen lately
    /// are left out.
    #[must_use]
    pub fn idle_sight(
        &self,
        rule: &IdleRule,
        key: (JobId, Attempt),
        held: u32,
        now: Timestamp,
    ) -> RunSight {
        let inner = self.lock();
        let meters = inner.runs.get(&(key.0, key.1, None)).map_or(&[][..], Vec::as_slice);
        let fresh = meters.iter().filter(|meter| now.0 - meter.last.0 <= MAX_GAP_MS);
        RunSight { held, gpus: fresh.map(|meter| meter.sight(rule)).collect() }
    }

    /// What a node last said of its GPUs, and when it was heard.
    #[must_use]
    pub fn of_node(&self, name: &str) -> Option<(Timestamp, Vec<v1::GpuSample>)> {
        self.lock().nodes.get(name).map(|seen| (seen.heard, seen.samples.clone()))
    }
}

/// What some GPUs come to. What is `None` is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartGpus {
    /// Sum of the mean utilisations, percent.
    pub utilization: Option<u64>,
    /// Sum of the peaks of memory, bytes.
    pub peak_bytes: Option<u64>,
    /// Energy, millijoules.
    pub energy_mj: Option<u64>,
}

impl PartGpus {
    fn of(usage: &GpuUsage) -> Self {
        Self {
            utilization: usage.mean.map(u64::from),
            peak_bytes: usage.peak_memory.map(Mib::bytes),
            energy_mj: usage.energy_mj,
        }
    }

    fn and(self, other: Self) -> Self {
        let sum = |one: Option<u64>, two: Option<u64>| match (one, two) {
            (Some(one), Some(two)) => Some(one.saturating_add(two)),
            (one, two) => one.or(two),
        };
        Self {
            utilization: sum(self.utilization, other.utilization),
            peak_bytes: sum(self.peak_bytes, other.peak_bytes),
            energy_mj: sum(self.energy_mj, other.energy_mj),
        }
    }
}

/// The live steps of a run that have the GPU of a sample, with when they started.
fn steps_with(
    cluster: &Cluster,
    (job, run): (JobId, &Run),
    (index, node): (NodeIndex, &Node),
    sample: &v1::GpuSample,
) -> Vec<(StepNumber, Timestamp)> {
    let is_meant = |name: &GresName, id: u32| {
        node.inventory.device(name, id).is_some_and(|device| {
            device.gpu.index == sample.gpu && device.slice.map(|slice| slice.gi) == sample.gi
        })
    };
    let has = |step: &&Arc<Step>| {
        step.key.attempt == run.attempt
            && step.share_on(index).is_some_and(|share| {
                let mut held = share.share.gres.iter();
                held.any(|gres| gres.ids.iter().any(|id| is_meant(&gres.name, *id)))
            })
    };
    let steps = cluster.live_steps_of(job).filter(has);
    steps.map(|step| (step.key.number, step.start_time)).collect()
}

/// Says whose GPU or slice a sample is about, where a job alone holds it.
fn attribute(
    cluster: &Cluster,
    index: NodeIndex,
    node: &Node,
    used: &NodeUse,
    sample: &mut v1::GpuSample,
) {
    for (job, run) in used.jobs.iter().filter_map(|id| {
        let job = cluster.job(*id)?;
        Some((job, job.active_run()?))
    }) {
        let shares = run.shares.iter().filter(|share| share.node == index);
        let gpus = shares.flat_map(|share| &share.gres).filter(|gres| gres.name.name() == GPU);
        let mut units = gpus.flat_map(|gres| gres.ids.iter().map(move |id| (&gres.name, *id)));
        let holds = units.any(|(name, id)| {
            node.inventory.device(name, id).is_some_and(|device| {
                device.gpu.index == sample.gpu && device.slice.map(|slice| slice.gi) == sample.gi
            })
        });
        if holds {
            (sample.job_id, sample.attempt) = (job.id.0, run.attempt.0);
            return;
        }
    }
}

impl Inner {
    /// The meter of a GPU; `None`: there are too many.
    fn meter(&mut self, key: PartKey, node: &Node, sample: &v1::GpuSample) -> Option<&mut Meter> {
        let of_run = self.runs.entry(key).or_default();
        let same = |meter: &Meter| {
            meter.node == node.name && meter.gpu == sample.gpu && meter.gi == sample.gi
        };
        if let Some(at) = of_run.iter().position(same) {
            return of_run.get_mut(at);
        }
        if self.meters >= MAX_METERS {
            return None;
        }
        self.meters += 1;
        of_run.push(Meter::new(node, sample));
        of_run.last_mut()
    }

    fn sweep(&mut self, now: Timestamp) {
        if now.0 - self.swept < SWEEP_MS {
            return;
        }
        self.swept = now.0;
        let fresh = |meter: &Meter| now.0 - meter.last.0 < KEPT_MS;
        self.runs.retain(|_, meters| meters.iter().any(fresh));
        self.nodes.retain(|_, seen| now.0 - seen.heard.0 < KEPT_MS);
        self.meters = self.runs.values().map(Vec::len).sum();
    }
}

impl Meter {
    fn new(node: &Node, sample: &v1::GpuSample) -> Self {
        let gpu = node.inventory.gpus.iter().find(|gpu| gpu.index == sample.gpu);
        let slice = gpu.and_then(|gpu| gpu.slices.iter().find(|s| Some(s.gi) == sample.gi));
        let (kind, memory) = match (gpu, slice) {
            (_, Some(slice)) => (slice.profile.clone(), slice.memory),
            (Some(gpu), None) => (gpu.kind.clone(), gpu.memory),
            (None, None) => (Box::default(), Mib(0)),
        };
        Self {
            node: node.name.clone(),
            gpu: sample.gpu,
            gi: sample.gi,
            start: slice.map(|slice| slice.start),
            kind,
            memory,
            times: Vec::new(),
            seen_ms: 0,
            idle_now_ms: 0,
            processes_ms: 0,
            empty_ms: 0,
            peak_memory: None,
            energy_mj: None,
            last: Timestamp(0),
            last_ms: 0,
            streak: Streak::default(),
            is_empty: false,
        }
    }

    /// Looks whether it is idle: the sample, of the node's time `at`, speaks for `ms`, and what lies
    /// between that and the one before is unknown.
    fn look(
        &mut self,
        rule: &IdleRule,
        run: &Run,
        sample: &v1::GpuSample,
        (ms, at, now): (u64, i64, Timestamp),
    ) {
        let keep = u64::from(rule.window_secs) * 1_000;
        let young = run.elapsed(now).0 < u64::from(rule.start_grace_secs) * 1_000;
        if young || run.suspended_since.is_some() {
            self.streak = Streak::default();
            return;
        }
        let between = u64::try_from(at - self.last_ms).unwrap_or(0).saturating_sub(ms);
        if self.last_ms > 0 && between > 0 {
            self.streak.take(Sight::Unknown, between, keep);
        }
        let seen = Measured {
            utilization: sample.utilization,
            memory: sample.memory_used_mib.map(|used| (used, self.memory.0)),
            power_mw: sample.power_mw,
            processes: sample.processes,
        };
        self.is_empty = sample.processes == Some(0);
        self.streak.take(sight(rule, seen), ms, keep);
    }

    fn sight(&self, rule: &IdleRule) -> GpuSight {
        let usage = self.usage();
        GpuSight {
            idle: self.streak.verdict(rule),
            empty: self.is_empty,
            idle_ms: self.streak.length_ms(),
            lost_ms: usage.idle_ms.unwrap_or(0).max(usage.empty_ms.unwrap_or(0)),
        }
    }

    /// Takes a sample that speaks for the last `ms`.
    fn take(&mut self, sample: &v1::GpuSample, ms: u64, now: Timestamp) {
        self.last = now;
        if let Some(percent) = sample.utilization {
            let percent = u8::try_from(percent.min(100)).unwrap_or(100);
            match self.times.binary_search_by_key(&percent, |(percent, _)| *percent) {
                Ok(at) => self.times[at].1 = self.times[at].1.saturating_add(ms),
                Err(at) => self.times.insert(at, (percent, ms)),
            }
            self.seen_ms = self.seen_ms.saturating_add(ms);
            self.idle_now_ms = if percent == 0 { self.idle_now_ms.saturating_add(ms) } else { 0 };
        }
        if let Some(processes) = sample.processes {
            self.processes_ms = self.processes_ms.saturating_add(ms);
            if processes == 0 {
                self.empty_ms = self.empty_ms.saturating_add(ms);
            }
        }
        self.peak_memory = self.peak_memory.max(sample.memory_used_mib);
        // Milliwatts times milliseconds are microjoules.
        let by_power = sample.power_mw.map(|power| u64::from(power).saturating_mul(ms) / 1_000);
        if let Some(energy) = sample.energy_mj.or(by_power) {
            self.energy_mj = Some(self.energy_mj.unwrap_or(0).saturating_add(energy));
        }
    }

    fn usage(&self) -> GpuUsage {
        let known = self.seen_ms > 0;
        let weighted =
            |sum: u128, (percent, ms): &(u8, u64)| sum + u128::from(*percent) * u128::from(*ms);
        let sum = self.times.iter().fold(0u128, weighted);
        let mean = (sum + u128::from(self.seen_ms / 2)) / u128::from(self.seen_ms.max(1));
        let idle = self.times.first().filter(|(percent, _)| *percent == 0).map_or(0, |(_, ms)| *ms);
        GpuUsage {
            node: self.node.clone(),
            gpu: self.gpu,
            start: self.start,
            kind: self.kind.clone(),
            memory: self.memory,
            mean: known.then(|| u32::try_from(mean).unwrap_or(100)),
            p50: self.quantile(50),
            p95: self.quantile(95),
            peak_memory: self.peak_memory.map(Mib),
            energy_mj: self.energy_mj,
            idle_ms: known.then_some(idle),
            empty_ms: (self.processes_ms > 0).then_some(self.empty_ms),
            seen_ms: self.seen_ms,
            idle_now_ms: self.idle_now_ms,
            last: self.last,
        }
    }

    /// The utilisation below or at which it was for so much of the time, of a hundred.
    fn quantile(&self, percent: u64) -> Option<u32> {
        let wanted = u128::from(self.seen_ms) * u128::from(percent);
        let mut sum = 0u128;
        let found = self.times.iter().find(|(_, ms)| {
            sum += u128::from(*ms) * 100;
            sum >= wanted
        });
        found.filter(|_| self.seen_ms > 0).map(|(percent, _)| u32::from(*percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        let node = Node::named(NodeName::new("n1").unwrap());
        Meter::new(&node, &v1::GpuSample::default())
    }

    fn sample(utilization: Option<u32>) -> v1::GpuSample {
        v1::GpuSample { utilization, ..v1::GpuSample::default() }
    }

    #[test]
    fn time_is_summed_by_utilisation() {
        let mut meter = meter();
        for (percent, ms) in [(0, 10_000), (100, 60_000), (50, 20_000), (0, 10_000)] {
            meter.take(&sample(Some(percent)), ms, Timestamp(1));
        }
        let usage = meter.usage();
        assert_eq!((usage.mean, usage.p50, usage.p95), (Some(70), Some(100), Some(100)));
        assert_eq!(
            (usage.idle_ms, usage.idle_now_ms, usage.seen_ms),
            (Some(20_000), 10_000, 100_000)
        );
    }

    #[test]
    fn what_was_not_seen_is_unknown_and_not_nothing() {
        let mut meter = meter();
        meter.take(&sample(None), 10_000, Timestamp(1));
        let usage = meter.usage();
        assert_eq!((usage.mean, usage.p50, usage.idle_ms), (None, None, None));
        assert_eq!((usage.empty_ms, usage.peak_memory, usage.energy_mj), (None, None, None));
        assert_eq!(usage.seen_ms, 0);
        // Power gives energy where energy itself is not told.
        let told = v1::GpuSample {
            power_mw: Some(700_000),
            processes: Some(0),
            memory_used_mib: Some(12),
            ..v1::GpuSample::default()
        };
        meter.take(&told, 2_000, Timestamp(2));
        let usage = meter.usage();
        assert_eq!((usage.energy_mj, usage.empty_ms), (Some(1_400_000), Some(2_000)));
        assert_eq!((usage.peak_memory, usage.mean), (Some(Mib(12)), None));
    }
}
