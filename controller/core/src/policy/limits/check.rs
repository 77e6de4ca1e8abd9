//! May this job start now, as far as limits go?

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_vocab::{JobId, PendingReason, Timestamp, Tres, TresKind};

use super::claim::Claim;
use super::reason::Rule;
use super::state::{LimitState, Owner, Taken};
use super::text::{MINUTE_MS, Teller};
use crate::cluster::{Cluster, Used, Waiting};
use crate::command::Unit;
use crate::model::{
    Association, Enforcement, JobSpec, ONE_MILLIONTHS, Partition, Qos, QosFlag, TresLimits,
    UsageOwner,
};
use crate::policy::decay::UNIT_MS;
use crate::policy::{FairShare, least_tres};

/// What was read of use over time at one instant, so that it is read once.
pub type UsageCache = RefCell<BTreeMap<UsageOwner, Arc<Used>>>;

/// Limits as they stand at one instant, with what has been taken since.
pub struct Check<'a> {
    cluster: &'a Cluster,
    now: Timestamp,
    state: LimitState,
    /// A job must be able to end within the minutes that are left.
    safe: bool,
    /// Whether use over time is looked at.
    over_time: bool,
    /// How many starts were counted.
    taken: u32,
    shares: Option<&'a FairShare>,
    used: &'a UsageCache,
}

/// A limit of a QOS; `None` where the QOS that goes first sets it.
fn own<T>(qos: &Qos, earlier: Option<&Qos>, get: impl Fn(&Qos) -> Option<T>) -> Option<T> {
    get(qos).filter(|_| earlier.and_then(&get).is_none())
}

/// Limits of a QOS on kinds of which an earlier QOS says nothing.
fn own_kinds<'a>(
    qos: &'a Qos,
    earlier: Option<&'a Qos>,
    get: impl Fn(&Qos) -> &TresLimits,
) -> Vec<(&'a TresKind, u64)> {
    let limits: &'a TresLimits = pick(qos, &get);
    let before = earlier.map(|earlier| pick(earlier, &get));
    limits
        .iter()
        .filter(|(kind, _)| before.is_none_or(|before| !before.contains_key(*kind)))
        .map(|(kind, limit)| (kind, *limit))
        .collect()
}

fn pick<'a>(qos: &'a Qos, get: &impl Fn(&Qos) -> &TresLimits) -> &'a TresLimits {
    get(qos)
}

impl<'a> Check<'a> {
    /// Limits as they stand in the cluster at `now`. O(1).
    #[must_use]
    pub fn new(cluster: &'a Cluster, now: Timestamp, used: &'a UsageCache) -> Self {
        Self {
            cluster,
            now,
            state: cluster.limits().clone(),
            safe: cluster.config().scheduling.enforce == Enforcement::Safe,
            over_time: true,
            taken: 0,
            shares: None,
            used,
        }
    }

    /// Limits as if nothing were in use: what is in the way then is always in the way.
    pub(super) fn alone(cluster: &'a Cluster, now: Timestamp, used: &'a UsageCache) -> Self {
        let state = LimitState::default();
        Self { state, over_time: false, safe: false, ..Self::new(cluster, now, used) }
    }

    /// Looks at `UsageThreshold` of QOS too.
    #[must_use]
    pub fn with_shares(mut self, shares: &'a FairShare) -> Self {
        self.shares = Some(shares);
        self
    }

    /// What is in use, with what was taken as far as somebody may ask about it.
    #[must_use]
    pub fn state(&self) -> &LimitState {
        &self.state
    }

    /// Counts a start, of whichever job. From now on it is in use.
    pub fn take(&mut self, claim: &Claim<'_>, tres: &Tres) {
        // A task of an array has no number yet, so all get numbers of their own here.
        self.taken = self.taken.saturating_add(1);
        let job = JobId(u32::MAX - self.taken);
        let end = self.now.plus_secs(claim.limit_secs);
        let factor = claim.qos.map_or(ONE_MILLIONTHS, |qos| qos.usage_factor);
        let tres = Arc::new(tres.clone());
        self.state.take(&self.asked_about(claim), &Taken { job, tres, end, still_ms: 0, factor });
    }

    /// Whether [`Check::take`] of this claim may matter to whoever comes after.
    #[must_use]
    pub fn counts(&self, claim: &Claim<'_>) -> bool {
        claim.is_limited() || self.reclaims()
    }

    /// Guarantees are looked at, whoever is limited.
    fn reclaims(&self) -> bool {
        self.cluster.config().scheduling.preemption.reclaim
    }

    /// Of those whose use a job counts towards, whom somebody may ask about: a limit binds all who
    /// count towards its owner, so where none binds this job, nobody reads what it adds.
    fn asked_about(&self, claim: &Claim<'_>) -> Vec<Owner> {
        let mut owners = Vec::new();
        if !claim.levels.is_empty() || self.reclaims() {
            let chain = self.cluster.accounts().chain(claim.assoc);
            owners.extend(chain.map(|level| Owner::Assoc(level.id)));
        }
        for qos in claim.all_qos().filter(|qos| qos.has_limits()) {
            owners.extend(qos_owners(qos, claim));
        }
        owners
    }

    /// The limit that keeps a waiting unit from every one of these partitions, as far as that is known
    /// before nodes are chosen.
    ///
    /// # Errors
    /// With Slurm's reason and a sentence, of the first of the partitions.
    pub fn in_all<'p>(
        &self,
        unit: Unit,
        spec: &JobSpec,
        partitions: impl Iterator<Item = &'p Partition>,
    ) -> Result<(), Waiting> {
        let mut first = None;
        for partition in partitions {
            let Some(claim) = self.cluster.claim(unit, &partition.name) else { return Ok(()) };
            match self.in_one(&claim, spec, partition) {
                Ok(()) => return Ok(()),
                Err(waiting) => first = first.or(Some(waiting)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// The limit that keeps a request from a partition, as far as that is known before nodes are
    /// chosen: what it would take is known to the least only.
    ///
    /// # Errors
    /// With Slurm's reason and a sentence.
    pub fn in_one(
        &self,
        claim: &Claim<'_>,
        spec: &JobSpec,
        partition: &Partition,
    ) -> Result<(), Waiting> {
        self.before(claim)?;
        // Whole nodes are more than was asked for, and may be enough where that is too little.
        if !claim.is_limited() || spec.shape.exclusive || partition.exclusive {
            return Ok(());
        }
        self.after(claim, &least_tres(spec, Some(partition)), &Tres::default())
    }

    /// What is in the way before any node is chosen: numbers of jobs, time.
    ///
    /// # Errors
    /// With Slurm's reason and a sentence.
    pub fn before(&self, claim: &Claim<'_>) -> Result<(), Waiting> {
        if claim.homeless {
            let detail = format!("user {} is no longer in account {}", claim.uid, claim.account);
            return Err(Waiting::new(PendingReason::InvalidAccount, detail));
        }
        if !claim.is_limited() {
            return Ok(());
        }
        self.threshold(claim)?;
        for (qos, earlier) in claim.both().filter(|(qos, _)| qos.has_limits()) {
            self.qos_before(claim, qos, earlier)?;
        }
        self.assocs_before(claim)
    }

    fn teller(&self) -> Teller<'_> {
        Teller { accounts: self.cluster.accounts(), state: &self.state, now: self.now }
    }

    fn threshold(&self, claim: &Claim<'_>) -> Result<(), Waiting> {
        let Some(shares) = self.shares else { return Ok(()) };
        let Some(qos) = claim.qos.filter(|qos| qos.has(QosFlag::EnforceUsageThreshold)) else {
            return Ok(());
        };
        let factor = shares.factor(claim.assoc);
        match qos.usage_threshold {
            Some(threshold) if factor < threshold => {
                let detail = format!(
                    "its fair-share factor is {}, QOS {} asks for {} (UsageThreshold)",
                    millionths(factor),
                    qos.name,
                    millionths(threshold)
                );
                Err(Waiting::new(PendingReason::QosUsageThreshold, detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn qos_before(
        &self,
        claim: &Claim<'_>,
        qos: &Qos,
        earlier: Option<&Qos>,
    ) -> Result<(), Waiting> {
        let [group, account, user] = qos_owners(qos, claim);
        let limit = own(qos, earlier, |qos| qos.group.jobs);
        self.jobs(PendingReason::QosGrpJobsLimit, "GrpJobs", &group, limit)?;
        let limit = own(qos, earlier, |qos| qos.group.wall_mins);
        self.group_wall(PendingReason::QosGrpWallLimit, &group, limit)?;
        let limit = own(qos, earlier, |qos| qos.per_account.jobs);
        self.jobs(PendingReason::MaxJobsPerAccount, "MaxJobsPerAccount", &account, limit)?;
        let limit = own(qos, earlier, |qos| qos.per_user.jobs);
        self.jobs(PendingReason::QosMaxJobsPerUserLimit, "MaxJobsPerUser", &user, limit)?;
        match own(qos, earlier, |qos| qos.job.wall_mins) {
            Some(limit) if claim.limit_secs > u64::from(limit) * 60 => {
                let reason = PendingReason::QosMaxWallDurationPerJobLimit;
                let whose = format!("QOS {}", qos.name);
                Err(Teller::wall(reason, &whose, limit, claim.limit_secs))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn assocs_before(&self, claim: &Claim<'_>) -> Result<(), Waiting> {
        let group_jobs = !qos_sets(claim, |qos| qos.group.jobs.is_some());
        let group_wall = !qos_sets(claim, |qos| qos.group.wall_mins.is_some());
        let of_level = |level: &Association| {
            let owner = Owner::Assoc(level.id);
            let limit = level.group.jobs.filter(|_| group_jobs);
            self.jobs(PendingReason::AssocGrpJobsLimit, "GrpJobs", &owner, limit)?;
            let limit = level.group.wall_mins.filter(|_| group_wall);
            self.group_wall(PendingReason::AssocGrpWallLimit, &owner, limit)
        };
        let mut levels = claim.levels.iter().peekable();
        if let Some(leaf) = levels.next_if(|level| level.id == claim.assoc) {
            of_level(leaf)?;
        }
        if !qos_sets(claim, |qos| qos.per_user.jobs.is_some()) {
            let limit = claim.levels.iter().find_map(|level| level.each.jobs);
            let owner = Owner::Assoc(claim.assoc);
            self.jobs(PendingReason::AssocMaxJobsLimit, "MaxJobs", &owner, limit)?;
        }
        if !qos_sets(claim, |qos| qos.job.wall_mins.is_some())
            && let Some(limit) = claim.per_job(|job| job.wall_mins)
            && claim.limit_secs > u64::from(limit) * 60
        {
            let reason = PendingReason::AssocMaxWallDurationPerJobLimit;
            let whose = format!("account {}", claim.account);
            return Err(Teller::wall(reason, &whose, limit, claim.limit_secs));
        }
        levels.try_for_each(|level| of_level(level))
    }

    fn jobs(
        &self,
        reason: PendingReason,
        name: &str,
        owner: &Owner,
        limit: Option<u32>,
    ) -> Result<(), Waiting> {
        match limit {
            Some(limit) if self.state.jobs(owner) >= limit => {
                Err(self.teller().jobs(reason, name, owner, limit))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn group_wall(
        &self,
        reason: PendingReason,
        owner: &Owner,
        limit: Option<u32>,
    ) -> Result<(), Waiting> {
        let Some(limit) = limit.filter(|_| self.over_time) else { return Ok(()) };
        let used = self.used(owner).map_or(0, |used| used.wall_mins());
        if used < u64::from(limit) {
            return Ok(());
        }
        Err(self.teller().group_wall(reason, owner, used, limit))
    }

    /// What was used up to now, by an association with all below it or by a QOS.
    fn used(&self, owner: &Owner) -> Option<Arc<Used>> {
        let owner = match owner {
            Owner::Assoc(id) => UsageOwner::Assoc(*id),
            Owner::Qos(name) => UsageOwner::Qos((**name).into()),
            Owner::QosUser(..) | Owner::QosAccount(..) => return None,
        };
        if let Some(used) = self.used.borrow().get(&owner) {
            return Some(Arc::clone(used));
        }
        let used = Arc::new(self.cluster.group_usage(&owner, self.now));
        self.used.borrow_mut().insert(owner, Arc::clone(&used));
        Some(used)
    }

    /// What is in the way now that amounts are known; `node` is the most that one node gives.
    ///
    /// # Errors
    /// With Slurm's reason and a sentence.
    pub fn after(&self, claim: &Claim<'_>, tres: &Tres, node: &Tres) -> Result<(), Waiting> {
        for (qos, earlier) in claim.both().filter(|(qos, _)| qos.has_limits()) {
            self.qos_after(claim, qos, earlier, tres, node)?;
        }
        if claim.levels.is_empty() {
            return Ok(());
        }
        self.assocs_after(claim, tres, node)
    }

    fn qos_after(
        &self,
        claim: &Claim<'_>,
        qos: &Qos,
        earlier: Option<&Qos>,
        tres: &Tres,
        node: &Tres,
    ) -> Result<(), Waiting> {
        let [group, account, user] = qos_owners(qos, claim);
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.group.tres_mins) {
            self.minutes_used(Rule::QosGroupMins, claim, &group, (kind, limit), tres)?;
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.group.tres) {
            self.in_use(Rule::QosGroup, &group, (kind, limit), tres)?;
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.group.tres_run_mins) {
            self.minutes_running(Rule::QosGroupRunMins, claim, &group, (kind, limit), tres)?;
        }
        let whose = || format!("QOS {}", qos.name);
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.job.tres_mins) {
            one_job_minutes(Rule::QosJobMins, claim, whose, (kind, limit), tres)?;
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.job.tres) {
            one_job(Rule::QosJob, whose, (kind, limit), tres)?;
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.job.tres_per_node) {
            one_job(Rule::QosNode, whose, (kind, limit), node)?;
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.job.min_tres) {
            // Memory that follows from the node is not known without one.
            let unknown = !self.over_time && *kind == TresKind::Mem && tres.mem.0 == 0;
            if tres.get(kind) < limit && !unknown {
                return Err(Teller::one_job(Rule::QosMin, kind, &whose(), (limit, tres.get(kind))));
            }
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.per_account.tres) {
            self.in_use(Rule::QosAccount, &account, (kind, limit), tres)?;
        }
        for (kind, limit) in own_kinds(qos, earlier, |qos| &qos.per_user.tres) {
            self.in_use(Rule::QosUser, &user, (kind, limit), tres)?;
        }
        Ok(())
    }

    fn assocs_after(&self, claim: &Claim<'_>, tres: &Tres, node: &Tres) -> Result<(), Waiting> {
        let mut levels = claim.levels.iter().peekable();
        if let Some(leaf) = levels.next_if(|level| level.id == claim.assoc) {
            self.level_after(claim, leaf, tres)?;
        }
        self.assoc_job_after(claim, tres, node)?;
        levels.try_for_each(|level| self.level_after(claim, level, tres))
    }

    fn level_after(
        &self,
        claim: &Claim<'_>,
        level: &Association,
        tres: &Tres,
    ) -> Result<(), Waiting> {
        let owner = Owner::Assoc(level.id);
        let group = &level.group;
        for (kind, limit) in &group.tres_mins {
            if !qos_sets(claim, |qos| qos.group.tres_mins.contains_key(kind)) {
                self.minutes_used(Rule::AssocGroupMins, claim, &owner, (kind, *limit), tres)?;
            }
        }
        for (kind, limit) in &group.tres {
            if !qos_sets(claim, |qos| qos.group.tres.contains_key(kind)) {
                let limit = factored(claim, *limit);
                self.in_use(Rule::AssocGroup, &owner, (kind, limit), tres)?;
            }
        }
        for (kind, limit) in &group.tres_run_mins {
            if !qos_sets(claim, |qos| qos.group.tres_run_mins.contains_key(kind)) {
                self.minutes_running(Rule::AssocGroupRunMins, claim, &owner, (kind, *limit), tres)?;
            }
        }
        Ok(())
    }

    /// Limits on each job, of which the nearest association counts.
    fn assoc_job_after(&self, claim: &Claim<'_>, tres: &Tres, node: &Tres) -> Result<(), Waiting> {
        let whose = || format!("account {}", claim.account);
        for kind in claim.per_job_kinds(|job| &job.tres_mins) {
            if !qos_sets(claim, |qos| qos.job.tres_mins.contains_key(kind))
                && let Some(limit) = claim.per_job(|job| job.tres_mins.get(kind).copied())
            {
                one_job_minutes(Rule::AssocJobMins, claim, whose, (kind, limit), tres)?;
            }
        }
        for kind in claim.per_job_kinds(|job| &job.tres) {
            if !qos_sets(claim, |qos| qos.job.tres.contains_key(kind))
                && let Some(limit) = claim.per_job(|job| job.tres.get(kind).copied())
            {
                one_job(Rule::AssocJob, whose, (kind, factored(claim, limit)), tres)?;
            }
        }
        for kind in claim.per_job_kinds(|job| &job.tres_per_node) {
            if !qos_sets(claim, |qos| qos.job.tres_per_node.contains_key(kind))
                && let Some(limit) = claim.per_job(|job| job.tres_per_node.get(kind).copied())
            {
                one_job(Rule::AssocNode, whose, (kind, factored(claim, limit)), node)?;
            }
        }
        Ok(())
    }

    fn in_use(
        &self,
        rule: Rule,
        owner: &Owner,
        (kind, limit): (&TresKind, u64),
        tres: &Tres,
    ) -> Result<(), Waiting> {
        let need = tres.get(kind);
        let used = self.state.held(owner).map_or(0, |held| held.tres().get(kind));
        if need == 0 || used.saturating_add(need) <= limit {
            return Ok(());
        }
        Err(self.teller().in_use(rule, kind, owner, (used, limit, need)))
    }

    /// `GrpTRESMins`: what was used; to be safe also what may yet be used.
    fn minutes_used(
        &self,
        rule: Rule,
        claim: &Claim<'_>,
        owner: &Owner,
        (kind, limit): (&TresKind, u64),
        tres: &Tres,
    ) -> Result<(), Waiting> {
        if tres.get(kind) == 0 || !self.over_time {
            return Ok(());
        }
        let used = self.used(owner).and_then(|used| used.tres.get(kind).copied()).unwrap_or(0);
        let limit_ms = u128::from(limit).saturating_mul(MINUTE_MS);
        let used_ms = used / UNIT_MS;
        let (mut total, mut need) = (used_ms, 0);
        if self.safe {
            let running = self.state.held(owner).map_or(0, |held| held.run_ms(kind, self.now));
            let factor = claim.qos.filter(|qos| qos.has(QosFlag::UsageFactorSafe));
            let factor = factor.map_or(ONE_MILLIONTHS, |qos| qos.usage_factor);
            need = need_ms(claim, kind, tres).saturating_mul(u128::from(factor))
                / u128::from(ONE_MILLIONTHS);
            total = used_ms.saturating_add(running);
        }
        let over = total.saturating_add(need) > limit_ms;
        if used_ms < limit_ms && !(self.safe && over) {
            return Ok(());
        }
        let numbers = (total / MINUTE_MS, u128::from(limit), need.div_ceil(MINUTE_MS));
        Err(self.teller().minutes(rule, kind, owner, numbers))
    }

    /// `GrpTRESRunMins`: what running jobs may still use.
    fn minutes_running(
        &self,
        rule: Rule,
        claim: &Claim<'_>,
        owner: &Owner,
        (kind, limit): (&TresKind, u64),
        tres: &Tres,
    ) -> Result<(), Waiting> {
        let need = need_ms(claim, kind, tres);
        let running = self.state.held(owner).map_or(0, |held| held.run_ms(kind, self.now));
        let limit_ms = u128::from(limit).saturating_mul(MINUTE_MS);
        if need == 0 || running.saturating_add(need) <= limit_ms {
            return Ok(());
        }
        let numbers = (running / MINUTE_MS, u128::from(limit), need.div_ceil(MINUTE_MS));
        Err(self.teller().minutes(rule, kind, owner, numbers))
    }
}

/// A QOS, the account in it, the user in it.
pub(super) fn qos_owners(qos: &Qos, claim: &Claim<'_>) -> [Owner; 3] {
    let name: Arc<str> = (*qos.name).into();
    [
        Owner::Qos(Arc::clone(&name)),
        Owner::QosAccount(Arc::clone(&name), claim.account.into()),
        Owner::QosUser(name, claim.uid),
    ]
}

/// Whether a QOS says it, so that no association does.
pub(super) fn qos_sets(claim: &Claim<'_>, sets: impl Fn(&Qos) -> bool) -> bool {
    claim.both().any(|(qos, _)| sets(qos))
}

/// Amount times milliseconds that a job may use.
fn need_ms(claim: &Claim<'_>, kind: &TresKind, tres: &Tres) -> u128 {
    u128::from(tres.get(kind)) * u128::from(claim.limit_secs) * 1_000
}

/// A limit of an association times the QOS's `LimitFactor`.
fn factored(claim: &Claim<'_>, limit: u64) -> u64 {
    match claim.qos.and_then(|qos| qos.limit_factor) {
        Some(factor) if factor > 0 => {
            let more = u128::from(limit) * u128::from(factor) / u128::from(ONE_MILLIONTHS);
            u64::try_from(more).unwrap_or(u64::MAX)
        }
        Some(_) | None => limit,
    }
}

fn one_job(
    rule: Rule,
    whose: impl Fn() -> String,
    (kind, limit): (&TresKind, u64),
    tres: &Tres,
) -> Result<(), Waiting> {
    let need = tres.get(kind);
    if need <= limit {
        return Ok(());
    }
    Err(Teller::one_job(rule, kind, &whose(), (limit, need)))
}

fn one_job_minutes(
    rule: Rule,
    claim: &Claim<'_>,
    whose: impl Fn() -> String,
    (kind, limit): (&TresKind, u64),
    tres: &Tres,
) -> Result<(), Waiting> {
    let need = need_ms(claim, kind, tres);
    if need <= u128::from(limit).saturating_mul(MINUTE_MS) {
        return Ok(());
    }
    Err(Teller::one_job_minutes(rule, kind, &whose(), (limit, need.div_ceil(MINUTE_MS))))
}

/// A number in millionths as people write it, to three places.
fn millionths(value: u64) -> String {
    format!("{}.{:03}", value / ONE_MILLIONTHS, value % ONE_MILLIONTHS / 1_000)
}
