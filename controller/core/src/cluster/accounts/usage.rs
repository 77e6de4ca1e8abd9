//! What did everybody use up to now, and who is charged for what runs?
//!
//! A run is charged to its job's association, to the job's QOS and, where it is another, to its
//! partition's QOS; of accounts nothing is charged, they are the sum of what stands below them, and of
//! what deleted associations left to them. What runs is a rate for each of them, derived from the
//! records of the runs. Only when a rate changes is the stored pair (usage, as of) brought up to date
//! by the old rate; to read it nothing is written. A suspended run is not charged.
//!
//! How much of everything a run is charged does not change while it goes on: billing and the factor
//! of the QOS are what they were at its start, so that a change of weights rewrites no records.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use penstock_vocab::{Mib, Timestamp, Tres, TresKind};

use crate::cluster::Cluster;
use crate::command::{RecordKey, Reply};
use crate::model::{
    AssocId, Config, DecayedUsage, Job, JobSpec, NodeShare, ONE_MILLIONTHS, QosFlag, Run,
    UsageOwner,
};
use crate::policy::decay::{Decay, Reading, whole_mins, whole_secs};
use crate::policy::{add_gres, add_licenses};

/// Amounts and factors beyond these are charged as these, so that sums of rates never overflow.
const MOST_UNITS: u64 = 1 << 48;
const MOST_FACTOR: u64 = 1_000 * ONE_MILLIONTHS;

/// What is used at a moment, in millionths of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cluster) struct Rate {
    tres: BTreeMap<TresKind, u128>,
    /// Runs, each times its factor.
    wall: u128,
    /// Runs.
    runs: u32,
}

/// Rates of all who are charged for something that runs.
pub(in crate::cluster) type Rates = OrdMap<UsageOwner, Arc<Rate>>;

/// Usage as it counts at one instant, in parts of `policy::decay::UNIT_MS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// Amount times time of each kind; memory in MiB.
    pub tres: BTreeMap<TresKind, u128>,
    /// Wall-clock time of the jobs.
    pub wall: u128,
}

impl Used {
    /// Whole unit-seconds of one kind, rounded down.
    #[must_use]
    pub fn secs(&self, kind: &TresKind) -> u64 {
        whole_secs(self.tres.get(kind).copied().unwrap_or(0))
    }

    /// Whole unit-minutes of one kind, rounded down.
    #[must_use]
    pub fn mins(&self, kind: &TresKind) -> u64 {
        whole_mins(self.tres.get(kind).copied().unwrap_or(0))
    }

    /// Kinds that were used at all.
    pub fn kinds(&self) -> impl Iterator<Item = &TresKind> {
        self.tres.keys()
    }

    /// Whole minutes of wall-clock time, rounded down.
    #[must_use]
    pub fn wall_mins(&self) -> u64 {
        whole_mins(self.wall)
    }

    fn add(&mut self, other: &Self) {
        for (kind, used) in &other.tres {
            let sum = self.tres.entry(kind.clone()).or_insert(0);
            *sum = sum.saturating_add(*used);
        }
        self.wall = self.wall.saturating_add(other.wall);
    }
}

impl Rate {
    /// `tres`: what the run holds.
    fn add(&mut self, run: &Run, tres: &Tres) {
        let factor = u128::from(run.usage_factor.min(MOST_FACTOR));
        for (kind, amount) in tres.entries() {
            *self.tres.entry(kind).or_insert(0) += u128::from(amount.min(MOST_UNITS)) * factor;
        }
        self.tres.retain(|_, rate| *rate > 0);
        self.wall += factor;
        self.runs = self.runs.saturating_add(1);
    }

    /// Undoes `add` of this very run.
    fn remove(&mut self, run: &Run, tres: &Tres) {
        let factor = u128::from(run.usage_factor.min(MOST_FACTOR));
        for (kind, amount) in tres.entries() {
            if let Some(rate) = self.tres.get_mut(&kind) {
                *rate = rate.saturating_sub(u128::from(amount.min(MOST_UNITS)) * factor);
            }
        }
        self.tres.retain(|_, rate| *rate > 0);
        self.wall = self.wall.saturating_sub(factor);
        self.runs = self.runs.saturating_sub(1);
    }
}

/// A stored pair under the rules of today.
struct Base<'a> {
    as_of: Timestamp,
    half_life_secs: u32,
    /// Nothing counts, where there is none.
    stored: Option<&'a DecayedUsage>,
    /// How its numbers are read, where they were stored under another half-life.
    worth: Option<Reading>,
}

impl Base<'_> {
    /// A stored number, as it would be stored today.
    fn number(&self, stored: u128) -> u128 {
        match self.worth {
            None => stored,
            Some(reading) => Decay::new(self.half_life_secs).stored(reading.of(stored), self.as_of),
        }
    }
}

/// The run that a job is charged for.
fn charged(job: &Job) -> Option<&Arc<Run>> {
    job.active_run().filter(|run| run.suspended_since.is_none())
}

/// Whether two records of a job are charged alike.
fn same_charge(a: Option<&Arc<Job>>, b: Option<&Arc<Job>>) -> bool {
    let run = |job: Option<&Arc<Job>>| job.and_then(|job| charged(job)).cloned();
    match (a, b, run(a), run(b)) {
        (_, _, None, None) => true,
        (Some(a), Some(b), Some(one), Some(other)) => {
            let same_spec = Arc::ptr_eq(&a.spec, &b.spec)
                || (a.spec.qos == b.spec.qos && a.spec.shape.licenses == b.spec.shape.licenses);
            let same_run = Arc::ptr_eq(&one, &other)
                || (one.shares == other.shares
                    && one.partition == other.partition
                    && (one.billing, one.usage_factor) == (other.billing, other.usage_factor));
            a.assoc == b.assoc && same_spec && same_run
        }
        _ => false,
    }
}

/// Who is charged for a run of this job.
fn owners(config: &Config, job: &Job, run: &Run) -> Vec<UsageOwner> {
    let qos = job.spec.qos_name();
    let mut owners = vec![UsageOwner::Assoc(job.assoc), UsageOwner::Qos(qos.into())];
    let partition = config.partitions.iter().find(|known| known.name == run.partition);
    let other = partition.and_then(|known| known.qos.as_deref()).filter(|other| *other != qos);
    owners.extend(other.map(|other| UsageOwner::Qos(other.into())));
    owners
}

impl Cluster {
    /// What a run holds, by kind; generic resources of a type under their type and under the bare
    /// name, licences of the request, billing as at its start.
    #[must_use]
    pub fn run_tres(run: &Run, spec: &JobSpec) -> Tres {
        let mut tres = Self::shares_tres(&run.shares, spec);
        tres.billing = run.billing;
        tres
    }

    /// The same of what nodes give, without billing.
    pub(in crate::cluster) fn shares_tres(shares: &[NodeShare], spec: &JobSpec) -> Tres {
        let mut tres = Self::step_tres(shares);
        add_licenses(&mut tres, spec);
        tres
    }

    /// What shares of nodes come to, without billing.
    #[must_use]
    pub fn step_tres(shares: &[NodeShare]) -> Tres {
        let cpus = shares.iter().map(|share| u64::from(share.cpu_count())).sum();
        let mut tres = Tres { cpu: cpus, node: shares.len() as u64, ..Tres::default() };
        for share in shares {
            tres.mem = Mib(tres.mem.0.saturating_add(share.memory.0));
            for gres in &share.gres {
                add_gres(&mut tres, &gres.name, gres.ids.len() as u64);
            }
        }
        tres
    }

    /// What a job of this request is charged times, in millionths: its QOS's factor now.
    pub(in crate::cluster) fn usage_factor(&self, spec: &JobSpec) -> u64 {
        self.accounts.qos(spec.qos_name()).map_or(ONE_MILLIONTHS, |qos| qos.usage_factor)
    }

    /// Half-life of somebody's usage, seconds; 0: it does not decay.
    fn half_life_of(&self, owner: &UsageOwner) -> u32 {
        if self.keeps_usage(owner) { 0 } else { self.config.scheduling.fairshare.half_life_secs }
    }

    /// Whether it is a QOS whose usage neither decays nor is reset with all other.
    fn keeps_usage(&self, owner: &UsageOwner) -> bool {
        match owner {
            UsageOwner::Assoc(_) => false,
            UsageOwner::Qos(name) => {
                self.accounts.qos(name).is_some_and(|qos| qos.has(QosFlag::NoDecay))
            }
        }
    }

    /// The stored pair of an owner as the rules are now: by today's half-life, and empty where all
    /// usage was reset since. What has no record was never charged up to `now`.
    fn base_usage(&self, owner: &UsageOwner, now: Timestamp) -> Base<'_> {
        let half_life_secs = self.half_life_of(owner);
        let empty = |as_of| Base { as_of, half_life_secs, stored: None, worth: None };
        let Some(stored) = self.accounts.usage.get(owner) else { return empty(now) };
        let reset = self.usage_reset_at;
        if reset > Timestamp::EPOCH && stored.as_of <= reset && !self.keeps_usage(owner) {
            return empty(reset);
        }
        let as_of = stored.as_of;
        // Worth the same at that instant, and falling by today's half-life from then on.
        let other = stored.half_life_secs != half_life_secs;
        let worth = other.then(|| Decay::new(stored.half_life_secs).reading(as_of));
        Base { as_of, half_life_secs, stored: Some(&**stored), worth }
    }

    /// The pair of an owner, brought up to `now` by what runs of it.
    fn usage_as_of(&self, owner: &UsageOwner, now: Timestamp, rates: &Rates) -> DecayedUsage {
        let base = self.base_usage(owner, now);
        let as_of = now.max(base.as_of);
        let span = Decay::new(base.half_life_secs).span(base.as_of, as_of);
        let none = Rate::default();
        let rate = rates.get(owner).map_or(&none, |rate| &**rate);
        let stored = base.stored.into_iter().flat_map(|stored| stored.tres.iter());
        let mut tres: BTreeMap<_, _> =
            stored.map(|(kind, stored)| (kind.clone(), base.number(*stored))).collect();
        for kind in rate.tres.keys() {
            tres.entry(kind.clone()).or_insert(0);
        }
        for (kind, stored) in &mut tres {
            *stored = span.apply(*stored, rate.tres.get(kind).copied().unwrap_or(0));
        }
        tres.retain(|_, stored| *stored > 0);
        let wall = base.stored.map_or(0, |stored| base.number(stored.wall));
        let wall = span.apply(wall, rate.wall);
        DecayedUsage { as_of, half_life_secs: base.half_life_secs, tres, wall }
    }

    /// What an owner used, as it counts at `now`, which is not before the newest command; of an
    /// account's association what was left to it, without those below. Cost: its kinds of TRES.
    #[must_use]
    pub fn usage(&self, owner: &UsageOwner, now: Timestamp) -> Used {
        let usage = self.usage_as_of(owner, now, &self.index.rates);
        let reading = Decay::new(usage.half_life_secs).reading(usage.as_of);
        let tres = usage.tres.into_iter().map(|(kind, stored)| (kind, reading.of(stored)));
        Used { tres: tres.collect(), wall: reading.of(usage.wall) }
    }

    /// What an owner used in billing units, as in [`Cluster::usage`].
    #[must_use]
    pub fn billing_usage(&self, owner: &UsageOwner, now: Timestamp) -> u128 {
        self.billing_at(now)(owner)
    }

    /// The same of one owner after the other, which costs less: of those who run nothing there is
    /// nothing to integrate.
    pub(crate) fn billing_at(&self, now: Timestamp) -> impl Fn(&UsageOwner) -> u128 {
        let usual = self.config.scheduling.fairshare.half_life_secs;
        let at_now = Decay::new(usual).reading(now);
        move |owner| {
            let rate = self.index.rates.get(owner);
            let rate = rate.and_then(|rate| rate.tres.get(&TresKind::Billing).copied());
            let (rate, base) = (rate.unwrap_or(0), self.base_usage(owner, now));
            let stored = base.stored.and_then(|stored| stored.tres.get(&TresKind::Billing));
            let stored = stored.map_or(0, |stored| base.number(*stored));
            if (stored, rate) == (0, 0) {
                return 0;
            }
            let decay = Decay::new(base.half_life_secs);
            let as_of = now.max(base.as_of);
            let stored = if rate == 0 {
                decay.idle(stored, base.as_of, as_of)
            } else {
                decay.span(base.as_of, as_of).apply(stored, rate)
            };
            if (as_of, base.half_life_secs) == (now, usual) {
                at_now.of(stored)
            } else {
                decay.reading(as_of).of(stored)
            }
        }
    }

    /// What an association and all below it used, as it counts at `now`. Cost: all associations
    /// below.
    #[must_use]
    pub fn subtree_usage(&self, id: AssocId, now: Timestamp) -> Used {
        let mut sum = Used::default();
        for owner in self.usage_owners_below(id) {
            sum.add(&self.usage(&owner, now));
        }
        sum
    }

    /// An association and all below it of which usage was recorded.
    #[must_use]
    pub fn usage_owners_below(&self, id: AssocId) -> Vec<UsageOwner> {
        let (mut owners, mut open) = (Vec::new(), vec![id]);
        while let Some(id) = open.pop() {
            let owner = UsageOwner::Assoc(id);
            if self.accounts.usage.contains_key(&owner) {
                owners.push(owner);
            }
            open.extend(self.accounts.children(id).map(|child| child.id));
        }
        owners
    }

    /// When all usage was last reset; the epoch: never.
    #[must_use]
    pub fn usage_reset_at(&self) -> Timestamp {
        self.usage_reset_at
    }

    /// Before a job's record changes: brings those up to date who are charged for it, if that
    /// changes with it.
    pub(in crate::cluster) fn charge_for_change(
        &mut self,
        old: Option<&Arc<Job>>,
        new: Option<&Arc<Job>>,
    ) {
        if same_charge(old, new) {
            return;
        }
        let config = Arc::clone(&self.config);
        let mut who = Vec::new();
        for job in old.into_iter().chain(new) {
            who.extend(charged(job).into_iter().flat_map(|run| owners(&config, job, run)));
        }
        who.sort_unstable();
        who.dedup();
        let rates = self.index.rates.clone();
        for owner in who {
            self.settle_usage(owner, &rates);
        }
    }

    /// Writes the pair of an owner as of now, by these rates.
    fn settle_usage(&mut self, owner: UsageOwner, rates: &Rates) {
        let usage = self.usage_as_of(&owner, self.now, rates);
        self.put_usage(owner, usage);
    }

    fn put_usage(&mut self, owner: UsageOwner, usage: DecayedUsage) {
        if self.accounts.usage.get(&owner).is_none_or(|old| **old != usage) {
            self.accounts.usage.insert(owner.clone(), Arc::new(usage));
            self.changed.push(RecordKey::Usage(owner));
        }
    }

    /// A run was indexed: its owners use more.
    pub(in crate::cluster) fn add_rates(&mut self, job: &Job) {
        let Some(run) = charged(job) else { return };
        let tres = Self::run_tres(run, &job.spec);
        for owner in owners(&self.config, job, run) {
            let mut rate =
                self.index.rates.get(&owner).map_or_else(Rate::default, |r| (**r).clone());
            rate.add(run, &tres);
            self.index.rates.insert(owner, Arc::new(rate));
        }
    }

    /// Undoes `add_rates` of this very record.
    pub(in crate::cluster) fn remove_rates(&mut self, job: &Job) {
        let Some(run) = charged(job) else { return };
        let tres = Self::run_tres(run, &job.spec);
        for owner in owners(&self.config, job, run) {
            let Some(rate) = self.index.rates.get(&owner) else { continue };
            let mut rate = (**rate).clone();
            rate.remove(run, &tres);
            if rate.runs == 0 {
                self.index.rates.remove(&owner);
            } else {
                self.index.rates.insert(owner, Arc::new(rate));
            }
        }
    }

    /// Before a QOS begins or ceases to decay, or is deleted: brings its usage up to date by the
    /// rules so far.
    pub(in crate::cluster) fn settle_qos(&mut self, name: &str) {
        let rates = self.index.rates.clone();
        self.settle_usage(UsageOwner::Qos(name.into()), &rates);
    }

    /// Takes a new configuration. Where it charges runs to other QOS, what they used before is
    /// charged as it was.
    pub(in crate::cluster) fn reconfigure(&mut self, config: Arc<Config>) -> Reply {
        let before = self.clone();
        let reply = self.configure(config);
        let (old, new) = (&before.index.rates, self.index.rates.clone());
        let changed = |owner: &&UsageOwner| old.get(*owner) != new.get(*owner);
        let mut who: Vec<_> = old.keys().chain(new.keys()).filter(changed).cloned().collect();
        who.sort_unstable();
        who.dedup();
        for owner in who {
            self.settle_usage(owner, &before.index.rates);
        }
        reply
    }

    /// Sets what an owner used to zero, as of now: `sacctmgr modify ... set RawUsage=0`. Of an
    /// account each of [`Cluster::usage_owners_below`] is to be reset.
    pub(in crate::cluster) fn reset_usage(&mut self, owner: UsageOwner) {
        let as_of = self.base_usage(&owner, self.now).as_of.max(self.now);
        let half_life_secs = self.half_life_of(&owner);
        if self.index.rates.contains_key(&owner) {
            self.put_usage(owner, DecayedUsage { as_of, half_life_secs, ..Default::default() });
        } else if self.accounts.usage.remove(&owner).is_some() {
            self.changed.push(RecordKey::Usage(owner));
        }
    }

    /// What an association used is from now on its account's: it is about to be deleted. Nothing of
    /// it may run.
    pub(in crate::cluster) fn leave_usage(&mut self, from: AssocId, to: AssocId) {
        let (from, to) = (UsageOwner::Assoc(from), UsageOwner::Assoc(to));
        if !self.accounts.usage.contains_key(&from) {
            return;
        }
        let rates = self.index.rates.clone();
        let at = [&from, &to].map(|owner| self.base_usage(owner, self.now).as_of);
        // A clock that stands behind what was counted is waited for.
        let now = at[0].max(at[1]).max(self.now);
        let left = self.usage_as_of(&from, now, &rates);
        let mut sum = self.usage_as_of(&to, now, &rates);
        for (kind, stored) in left.tres {
            let total = sum.tres.entry(kind).or_insert(0);
            *total = total.saturating_add(stored);
        }
        sum.wall = sum.wall.saturating_add(left.wall);
        self.accounts.usage.remove(&from);
        self.changed.push(RecordKey::Usage(from));
        self.put_usage(to, sum);
    }

    /// Lets nothing count that was used up to now. One record changes: older pairs are read as
    /// empty.
    pub(in crate::cluster) fn reset_all_usage(&mut self) -> Reply {
        let newest = self.accounts.usage.values().map(|usage| usage.as_of).max();
        self.usage_reset_at = newest.unwrap_or(self.now).max(self.now);
        self.changed.push(RecordKey::Counters);
        Reply::Done
    }
}

#[cfg(test)]
mod tests;
