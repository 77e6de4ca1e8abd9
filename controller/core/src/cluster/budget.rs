//! When is a budget used up, and what ends then?
//!
//! `GrpTRESMins` and `GrpWall` limit use over time. When one is reached, running jobs that use it end,
//! as in Slurm. The instant is foreseen from what is used and what is charged at the moment, so that
//! nothing is looked at in between; where usage decays the foreseen instant is too early, never too
//! late, and is foreseen anew when it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use penstock_vocab::{JobId, PendingReason, Timestamp, TresKind};

use super::{Cluster, Used};
use crate::model::{EndCause, GroupLimits, Job, Run, RunStage, UsageOwner};
use crate::policy::limits::{Held, Owner, budget_reason};

/// Jobs that one `Tick` ends because a budget is used up; the rest end by the ticks that follow.
const ENDED_PER_TICK: usize = 20;
/// Budgets that one `Tick` looks at.
const LOOKED_AT_PER_TICK: usize = 64;
/// Where usage decays, a budget is looked at again after at least so many milliseconds.
const LEAST_WAIT_MS: i64 = 1_000;
/// From the numbers of `policy::decay` to millionths of a unit times milliseconds.
const METER_SHIFT: u32 = 32;
/// A minute of one unit in the numbers of a meter.
const METER_MINUTE: u128 = 60_000 * 1_000_000;

/// When to look at which budget; derived from the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Budgets {
    meters: OrdMap<UsageOwner, Arc<Meter>>,
    wakes: OrdSet<(Timestamp, UsageOwner)>,
}

/// At least what was used up to an instant, in millionths of a unit times milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meter {
    as_of: Timestamp,
    tres: BTreeMap<TresKind, u128>,
    wall: u128,
    wake: Option<Timestamp>,
}

/// What is limited over time: a kind, or wall-clock time.
type Metered<'a> = (Option<&'a TresKind>, u64);

fn metered(group: &GroupLimits) -> impl Iterator<Item = Metered<'_>> {
    let tres = group.tres_mins.iter().map(|(kind, mins)| (Some(kind), *mins));
    tres.chain(group.wall_mins.map(|mins| (None, u64::from(mins))))
}

impl Meter {
    fn new(used: &Used, as_of: Timestamp) -> Self {
        let tres = used.tres.iter().map(|(kind, used)| (kind.clone(), used >> METER_SHIFT));
        Self { as_of, tres: tres.collect(), wall: used.wall >> METER_SHIFT, wake: None }
    }

    fn used(&self, kind: Option<&TresKind>) -> u128 {
        match kind {
            Some(kind) => self.tres.get(kind).copied().unwrap_or(0),
            None => self.wall,
        }
    }

    /// Counts on to `now`, by what was charged since.
    fn advance(&mut self, now: Timestamp, held: Option<&Held>, group: &GroupLimits) {
        let length = u128::from(now.since(self.as_of).0);
        self.as_of = self.as_of.max(now);
        let Some(held) = held else { return };
        for (kind, _) in metered(group) {
            let more = rate(held, kind).saturating_mul(length);
            match kind {
                Some(kind) => {
                    let used = self.tres.entry(kind.clone()).or_insert(0);
                    *used = used.saturating_add(more);
                }
                None => self.wall = self.wall.saturating_add(more),
            }
        }
    }
}

fn rate(held: &Held, kind: Option<&TresKind>) -> u128 {
    kind.map_or_else(|| held.wall_rate(), |kind| held.rate(kind))
}

fn limit_of(mins: u64) -> u128 {
    u128::from(mins).saturating_mul(METER_MINUTE)
}

fn usage_owner(owner: &Owner) -> Option<UsageOwner> {
    match owner {
        Owner::Assoc(id) => Some(UsageOwner::Assoc(*id)),
        Owner::Qos(name) => Some(UsageOwner::Qos((**name).into())),
        Owner::QosUser(..) | Owner::QosAccount(..) => None,
    }
}

fn limit_owner(owner: &UsageOwner) -> Owner {
    match owner {
        UsageOwner::Assoc(id) => Owner::Assoc(*id),
        UsageOwner::Qos(name) => Owner::qos(name),
    }
}

impl Cluster {
    /// What a group used, as it counts at `now`: an association with all below it, or a QOS. Cost:
    /// all associations below.
    #[must_use]
    pub fn group_usage(&self, owner: &UsageOwner, now: Timestamp) -> Used {
        match owner {
            UsageOwner::Assoc(id) => self.subtree_usage(*id, now),
            UsageOwner::Qos(_) => self.usage(owner, now),
        }
    }

    fn group_of(&self, owner: &UsageOwner) -> Option<GroupLimits> {
        match owner {
            UsageOwner::Assoc(id) => self.accounts.assoc(*id).map(|assoc| assoc.group.clone()),
            UsageOwner::Qos(name) => self.accounts.qos(name).map(|qos| qos.group.clone()),
        }
    }

    fn with_budget(&self, owners: &[Owner]) -> Vec<UsageOwner> {
        if self.accounts.budgets().next().is_none() {
            return Vec::new();
        }
        let owners = owners.iter().filter_map(usage_owner);
        owners.filter(|owner| self.accounts.has_budget(owner)).collect()
    }

    /// Before what is charged changes: counts on to now.
    pub(super) fn read_meters(&mut self, owners: &[Owner]) {
        for owner in self.with_budget(owners) {
            let Some(group) = self.group_of(&owner) else { continue };
            let Some(meter) = self.index.budgets.meters.get(&owner) else { continue };
            let mut meter = (**meter).clone();
            let held = self.index.limits.held(&limit_owner(&owner));
            meter.advance(self.now, held, &group);
            self.index.budgets.meters.insert(owner, Arc::new(meter));
        }
    }

    /// After what is charged changed: foresees anew when budgets are used up.
    pub(super) fn set_wakes(&mut self, owners: &[Owner]) {
        for owner in self.with_budget(owners) {
            self.set_wake(&owner);
        }
    }

    fn set_wake(&mut self, owner: &UsageOwner) {
        let Some(group) = self.group_of(owner) else { return };
        let mut meter = match self.index.budgets.meters.get(owner) {
            Some(meter) => (**meter).clone(),
            None => Meter::new(&self.group_usage(owner, self.now), self.now),
        };
        if let Some(old) = meter.wake.take() {
            self.index.budgets.wakes.remove(&(old, owner.clone()));
        }
        let times = metered(&group).filter_map(|limit| self.spent_at(owner, &meter, limit));
        meter.wake = times.min();
        if let Some(wake) = meter.wake {
            self.index.budgets.wakes.insert((wake, owner.clone()));
        }
        self.index.budgets.meters.insert(owner.clone(), Arc::new(meter));
    }

    /// When a budget is used up at the earliest, if something that uses it can be ended then.
    fn spent_at(
        &self,
        owner: &UsageOwner,
        meter: &Meter,
        (kind, mins): Metered<'_>,
    ) -> Option<Timestamp> {
        let held = self.index.limits.held(&limit_owner(owner))?;
        let (used, limit) = (meter.used(kind), limit_of(mins));
        if used >= limit {
            return self.spenders(owner, held, kind).next().map(|_| self.now);
        }
        let rate = rate(held, kind);
        if rate == 0 {
            return None;
        }
        let left = i64::try_from((limit - used).div_ceil(rate)).unwrap_or(i64::MAX);
        let decays = self.config.scheduling.fairshare.half_life_secs > 0;
        let left = if decays { left.max(LEAST_WAIT_MS) } else { left };
        Some(Timestamp(self.now.0.saturating_add(left)))
    }

    /// Running jobs that use up a budget and do not end yet, the next to end first. As at the start, a
    /// QOS that sets the same limit lets its jobs off those of associations.
    fn spenders<'a>(
        &'a self,
        owner: &'a UsageOwner,
        held: &'a Held,
        kind: Option<&'a TresKind>,
    ) -> impl Iterator<Item = (&'a Arc<Job>, &'a Arc<Run>)> {
        let uses = move |tres: &penstock_vocab::Tres| kind.is_none_or(|kind| tres.get(kind) > 0);
        held.by_end()
            .filter(move |taken| uses(&taken.tres))
            .filter_map(|taken| self.jobs.get(&taken.job))
            .filter_map(|job| job.active_run().map(|run| (job, run)))
            .filter(|(_, run)| !matches!(run.stage, RunStage::Ending(_)))
            .filter(move |(job, run)| self.is_bound(owner, job, run, kind))
    }

    fn is_bound(&self, owner: &UsageOwner, job: &Job, run: &Run, kind: Option<&TresKind>) -> bool {
        let claim =
            self.claim_of(&job.spec, job.assoc, job.uid, job.time_limit, Some(&run.partition));
        claim.bound_over_time(owner, kind)
    }

    /// All budgets are read anew, as after a change of limits.
    pub(super) fn rewake_budgets(&mut self) {
        self.index.budgets = Budgets::default();
        let owners: Vec<_> = self.accounts.budgets().cloned().collect();
        for owner in owners {
            // What nobody uses is read when somebody does.
            if self.index.limits.held(&limit_owner(&owner)).is_some() {
                self.set_wake(&owner);
            }
        }
    }

    /// When a budget must be looked at next.
    pub(super) fn next_budget(&self) -> Option<Timestamp> {
        self.index.budgets.wakes.get_min().map(|(at, _)| *at)
    }

    /// Ends jobs whose budget is used up.
    pub(super) fn end_over_budget(&mut self) {
        let mut ended = 0;
        for _ in 0..LOOKED_AT_PER_TICK {
            let Some((at, owner)) = self.index.budgets.wakes.get_min().cloned() else { return };
            if at > self.now || ended >= ENDED_PER_TICK {
                return;
            }
            let meter = Meter::new(&self.group_usage(&owner, self.now), self.now);
            let doomed = self.doomed_by(&owner, &meter, ENDED_PER_TICK - ended);
            ended += doomed.len();
            // In force from here on; what ends changes nothing of what is charged until it has.
            let wake = self.index.budgets.meters.get(&owner).and_then(|meter| meter.wake);
            let meter = Arc::new(Meter { wake, ..meter });
            self.index.budgets.meters.insert(owner.clone(), meter);
            for (id, reason, text) in doomed {
                self.end_for_budget(id, reason, text);
            }
            self.set_wake(&owner);
        }
    }

    fn doomed_by(
        &self,
        owner: &UsageOwner,
        meter: &Meter,
        most: usize,
    ) -> Vec<(JobId, PendingReason, Box<str>)> {
        let Some(group) = self.group_of(owner) else { return Vec::new() };
        let Some(held) = self.index.limits.held(&limit_owner(owner)) else { return Vec::new() };
        let mut doomed: Vec<(JobId, PendingReason, Box<str>)> = Vec::new();
        for (kind, mins) in metered(&group) {
            if meter.used(kind) < limit_of(mins) {
                continue;
            }
            let of_assoc = matches!(owner, UsageOwner::Assoc(_));
            let (reason, name) = budget_reason(of_assoc, kind);
            let who = match owner {
                UsageOwner::Assoc(id) => match self.accounts.assoc(*id) {
                    Some(assoc) => match &assoc.user {
                        Some(user) => format!("user {user} in account {}", assoc.account),
                        None => format!("account {}", assoc.account),
                    },
                    None => String::new(),
                },
                UsageOwner::Qos(qos) => format!("QOS {qos}"),
            };
            let of = kind.map(|kind| format!(" of {kind}")).unwrap_or_default();
            let text = format!("{who} has used all of its {mins} minutes{of} ({name})");
            for (job, _) in self.spenders(owner, held, kind) {
                if doomed.len() >= most {
                    break;
                }
                if !doomed.iter().any(|(id, _, _)| *id == job.id) {
                    doomed.push((job.id, reason, text.clone().into()));
                }
            }
        }
        doomed
    }

    fn end_for_budget(&mut self, id: JobId, reason: PendingReason, text: Box<str>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut job = (**job).clone();
        let Some(run) = job.active_run() else { return };
        let mut run = (**run).clone();
        run.end_reason = text;
        job.reason = Some(reason);
        self.end_run_soon(&mut job, &Arc::new(run), EndCause::TimeLimit);
        self.put_job(job);
    }
}
