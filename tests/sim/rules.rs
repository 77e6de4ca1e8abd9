//! What must hold of limits, reservations, preemption and usage? Counted from the records, without the
//! help of the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::command::Unit;
use penstock_core::model::{EndCause, Job, Reservation, Run, RunStage, UsageOwner};
use penstock_supervisor::AttemptKey;
use penstock_vocab::{NodeName, Timestamp, TresKind, UserId};

use crate::shared::CAPPED;
use crate::world::{Scenario, World};

/// What of the capped QOS is in use: CPUs by all, or jobs of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum InUse {
    Cpus,
    JobsOf(UserId),
}

/// What the checks remember of earlier states.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The cluster at the last check.
    cluster: Option<Cluster>,
    /// What was in use then, and what might be.
    in_use: BTreeMap<InUse, (u64, u64)>,
    /// Runs that were to end so that others get their place, and whose end is not yet recorded.
    preempted: BTreeSet<AttemptKey>,
    /// A restarted controller's clock stood behind what was recorded: what is used while it catches
    /// up is not charged.
    clock_went_back: bool,
    /// CPU-milliseconds of runs that were taken back before they began, of which no record is left;
    /// `None`: one was taken back while nobody looked.
    taken_back: Option<u128>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            cluster: None,
            in_use: BTreeMap::new(),
            preempted: BTreeSet::new(),
            clock_went_back: false,
            taken_back: Some(0),
        }
    }
}

impl World {
    /// Everything that is checked of a durable cluster that is shared.
    pub(crate) fn check_shared(&mut self, cluster: &Cluster) {
        if self.scenario != Scenario::Shared {
            return;
        }
        self.check_limits(cluster);
        let before = self.seen.cluster.replace(cluster.clone());
        if let Some(before) = &before {
            self.seen.clock_went_back |= cluster.now() < before.now();
            self.check_starts(before, cluster);
            self.note_taken_back(before, cluster);
        }
        self.check_preempted(before.as_ref(), cluster);
    }

    /// No more is in use than the limits let, but where one was lowered below what was.
    fn check_limits(&mut self, cluster: &Cluster) {
        let Some(qos) = cluster.accounts().qos(CAPPED) else { return };
        let limit = |what: InUse| match what {
            InUse::Cpus => qos.group.tres.get(&TresKind::Cpu).copied(),
            InUse::JobsOf(_) => qos.per_user.jobs.map(u64::from),
        };
        let mut found = BTreeMap::new();
        for job in cluster.jobs().filter(|job| *job.spec.qos == *CAPPED) {
            if let Some(run) = job.active_run() {
                *found.entry(InUse::Cpus).or_insert(0) += u64::from(run.cpu_count());
                *found.entry(InUse::JobsOf(job.uid)).or_insert(0) += 1;
            }
        }
        for (what, now) in &found {
            let most = limit(*what).unwrap_or(u64::MAX);
            let (had, could) = self.seen.in_use.get(what).copied().unwrap_or_default();
            self.stats.at_limit += u64::from(*now == most && had < most);
            if *now > most.max(had).max(could) {
                self.fail(format!("{now} of {what:?} are in use, {most} may"));
            }
        }
        let users = cluster.jobs().map(|job| InUse::JobsOf(job.uid));
        let all: BTreeSet<_> = users.chain([InUse::Cpus]).collect();
        let known = |what: InUse| {
            let now = found.get(&what).copied().unwrap_or(0);
            (what, (now, limit(what).unwrap_or(u64::MAX)))
        };
        self.seen.in_use = all.into_iter().map(known).collect();
    }

    /// No job starts on nodes that are kept for others while it may run, and in its own reservation
    /// only when that is on, and for whom it is.
    fn check_starts(&mut self, before: &Cluster, after: &Cluster) {
        for job in after.jobs() {
            let Some(run) = job.active_run() else { continue };
            let known = before.job(job.id);
            if known.is_some_and(|old| old.last_attempt == job.last_attempt) {
                continue;
            }
            // A limit that was changed since says nothing of the start.
            let same = known.is_some_and(|old| old.limit_serial == job.limit_serial);
            let limit =
                job.time_limit.as_secs().map_or(i64::MAX, |s| run.start_time.plus_secs(s).0);
            let until = if same { Timestamp(limit) } else { Timestamp(run.start_time.0 + 1) };
            // One that was changed in this very step is not looked at.
            let steady = before.reservations().filter_map(|old| {
                let new = after.reservation(&old.name)?;
                let same = (old.start, old.end, &old.nodes) == (new.start, new.end, &new.nodes);
                same.then_some(old)
            });
            for reservation in steady {
                if *job.spec.reservation == *reservation.name {
                    self.stats.reserved += 1;
                    if let Some(wrong) = stranger(reservation, job, run) {
                        self.fail(format!("job {} in {}: {wrong}", job.id, reservation.name));
                    }
                } else if let Some(node) = trespass(after, reservation, run, until) {
                    self.fail(format!(
                        "job {} started at {:?} on {node}, which {} keeps from {:?} to {:?}",
                        job.id,
                        run.start_time,
                        reservation.name,
                        reservation.start,
                        reservation.end
                    ));
                }
            }
        }
    }

    /// A job that made room ends, or waits again; it does not get lost, and none runs again that may
    /// not.
    fn check_preempted(&mut self, before: Option<&Cluster>, cluster: &Cluster) {
        for job in cluster.jobs() {
            let Some(run) = job.active_run() else { continue };
            let key = AttemptKey::new(job.id, run.attempt);
            let cause = match run.stage {
                RunStage::Ending(cause) => Some(cause),
                _ => run.ends_at.map(|(_, cause)| cause),
            };
            let makes_room = [Some(EndCause::Preempted), Some(EndCause::PreemptedRequeue)];
            if makes_room.contains(&cause) && self.seen.preempted.insert(key) {
                self.stats.preempted += 1;
            }
            let still = |cluster: &Cluster| {
                let run = cluster.job(job.id).and_then(|job| job.active_run());
                run.is_some_and(|run| run.suspended_since.is_some())
            };
            if run.suspended_since.is_some() && !before.is_some_and(still) {
                self.stats.suspended += 1;
            }
        }
        let mut lost = None;
        self.seen.preempted.retain(|key| match cluster.job(key.job) {
            Some(job) => job.active_run().is_some_and(|run| run.attempt == key.attempt),
            None => {
                if !self.history.contains_key(&Unit::Job(key.job)) {
                    lost = Some(*key);
                }
                false
            }
        });
        if let Some(key) = lost {
            self.fail(format!("{key} was preempted and its job is lost"));
        }
    }

    /// A launch that never came to anything leaves no run, and was charged while it held its nodes.
    fn note_taken_back(&mut self, before: &Cluster, after: &Cluster) {
        for job in before.jobs() {
            let (Some(run), Some(new)) = (job.active_run(), after.job(job.id)) else { continue };
            let mut known = new.earlier_runs.iter().chain(&new.run);
            if known.any(|known| known.attempt == run.attempt) {
                continue;
            }
            let until = run.suspended_since.unwrap_or_else(|| after.now());
            // When exactly a controller that was killed did it, its records do not tell.
            let sum = self.seen.taken_back.filter(|_| self.controller.is_up());
            self.seen.taken_back = sum.map(|sum| sum + cpu_millis(run, until));
        }
    }

    /// At the end what was charged is what the runs held while they did not stand still.
    pub(crate) fn check_usage(&mut self, cluster: &Cluster) {
        if !self.seen.preempted.is_empty() {
            self.fail(format!("{:?} were preempted and never ended", self.seen.preempted));
        }
        let Some(taken_back) = self.seen.taken_back else { return };
        if self.scenario != Scenario::Shared || self.seen.clock_went_back {
            return;
        }
        // Where a job was run again after it had gone to the history, the live record is newer.
        let history = self.history.values().flatten().map(|job| (job.id, Arc::clone(job)));
        let live = cluster.jobs().map(|job| (job.id, Arc::clone(job)));
        let jobs: BTreeMap<_, _> = history.chain(live).collect();
        let runs = jobs.values().flat_map(|job| job.earlier_runs.iter().chain(&job.run));
        let ended = |run: &Run| run.end_time.unwrap_or(run.start_time);
        let expected: u128 = runs.map(|run| cpu_millis(run, ended(run))).sum();
        let expected = expected + taken_back;
        let owners: Vec<_> = cluster.accounts().all_usage().map(|(owner, _)| owner).collect();
        let owners = owners.into_iter().filter(|owner| matches!(owner, UsageOwner::Assoc(_)));
        let mut charged = 0;
        let mut rounding = 0;
        for owner in owners {
            let used = cluster.usage(owner, cluster.now());
            charged += u128::from(used.secs(&TresKind::Cpu)) * 1_000;
            rounding += 1_000;
        }
        self.stats.added_up += 1;
        if charged > expected || expected - charged > rounding {
            self.fail(format!("{charged} CPU-ms were charged, and runs held {expected}"));
        }
    }
}

/// CPUs times the time that a run held them and did not stand still, as its QOS counts it.
fn cpu_millis(run: &Run, until: Timestamp) -> u128 {
    let held = until.0 - run.start_time.0 - i64::try_from(run.suspended_ms).expect("short");
    let held = u128::try_from(held).unwrap_or(0);
    held * u128::from(run.cpu_count()) * u128::from(run.usage_factor) / 1_000_000
}

/// Why a job that names a reservation may not run in it as it does.
fn stranger(reservation: &Reservation, job: &Job, run: &Run) -> Option<String> {
    if !reservation.uids.contains(&job.uid) {
        return Some(format!("user {} may not use it", job.uid));
    }
    let on = reservation.start <= run.start_time && run.start_time < reservation.end;
    (!on).then(|| format!("started at {:?}", run.start_time))
}

/// A node that a run has and that is kept for others at some time before `until`.
fn trespass(
    cluster: &Cluster,
    reservation: &Reservation,
    run: &Run,
    until: Timestamp,
) -> Option<NodeName> {
    if reservation.end <= run.start_time || until <= reservation.start {
        return None;
    }
    let names = run.shares.iter().filter_map(|share| cluster.node(share.node));
    names.map(|(node, _)| node.name.clone()).find(|name| reservation.nodes.contains(name))
}
