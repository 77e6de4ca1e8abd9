//! Under whose limits does a job stand?

use std::sync::Arc;

use penstock_vocab::{PartitionName, TresKind, UserId, Walltime};

use super::state::Owner;
use crate::cluster::Cluster;
use crate::command::Unit;
use crate::model::{
    AssocId, Association, Enforcement, JobLimits, JobSpec, Qos, QosFlag, UsageOwner,
};

/// What a job without a time limit counts as, in seconds: a year, as in Slurm.
pub const UNLIMITED_SECS: u64 = 365 * 24 * 3_600;

/// What a job brings along when it asks for a start in one partition. Jobs of one user, account, QOS
/// and limit have the same.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Who is charged.
    pub assoc: AssocId,
    /// Whose job it is.
    pub uid: UserId,
    /// Its account.
    pub account: &'a str,
    /// Its limit in seconds.
    pub limit_secs: u64,
    /// Those of its association and of those above that set a limit, from below.
    pub(super) levels: Vec<&'a Association>,
    /// The QOS that goes first, and the other.
    pub(super) first: Option<&'a Qos>,
    pub(super) second: Option<&'a Qos>,
    /// The job's own QOS.
    pub(super) qos: Option<&'a Qos>,
    /// Its association is gone.
    pub(super) homeless: bool,
}

impl<'a> Claim<'a> {
    /// The QOS whose limits hold, the one that goes first before the other.
    pub(super) fn both(&self) -> impl Iterator<Item = (&'a Qos, Option<&'a Qos>)> {
        let second = self.second.map(|second| (second, self.first));
        self.first.map(|first| (first, None)).into_iter().chain(second)
    }

    /// The QOS whose limits hold.
    pub fn all_qos(&self) -> impl Iterator<Item = &'a Qos> {
        self.first.into_iter().chain(self.second)
    }

    /// Whether some limit may keep the job back.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.homeless || !self.levels.is_empty() || self.all_qos().any(Qos::has_limits)
    }

    /// Whether one of the QOS refuses jobs at submission that no waiting would help.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.both().any(|(qos, _)| qos.has(QosFlag::DenyOnLimit))
    }

    /// Whether a limit of this owner on use over time binds the job: the first QOS that has one for
    /// the kind does, else every association.
    pub(crate) fn bound_over_time(&self, owner: &UsageOwner, kind: Option<&TresKind>) -> bool {
        let sets = |qos: &Qos| match kind {
            Some(kind) => qos.group.tres_mins.contains_key(kind),
            None => qos.group.wall_mins.is_some(),
        };
        let by_qos = self.both().map(|(qos, _)| qos).find(|qos| sets(qos));
        match (owner, by_qos) {
            (UsageOwner::Qos(name), Some(qos)) => qos.name == *name,
            (UsageOwner::Qos(_), None) | (UsageOwner::Assoc(_), Some(_)) => false,
            (UsageOwner::Assoc(_), None) => true,
        }
    }

    /// A limit on each job, from the nearest association that sets it.
    pub(super) fn per_job<T>(&self, get: impl Fn(&JobLimits) -> Option<T>) -> Option<T> {
        self.levels.iter().find_map(|level| get(&level.job))
    }

    /// Kinds for which some association sets a limit on each job.
    pub(super) fn per_job_kinds(
        &self,
        get: impl Fn(&'a JobLimits) -> &'a crate::model::TresLimits,
    ) -> Vec<&'a TresKind> {
        let mut kinds: Vec<_> =
            self.levels.iter().flat_map(|level| get(&level.job).keys()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

impl Cluster {
    /// What a waiting unit brings along for a start in a partition; `None`: it does not wait.
    #[must_use]
    pub fn claim<'a>(&'a self, unit: Unit, partition: &PartitionName) -> Option<Claim<'a>> {
        match unit {
            Unit::Job(id) => {
                let job = self.job(id)?;
                Some(self.claim_of(&job.spec, job.assoc, job.uid, job.time_limit, Some(partition)))
            }
            Unit::Array(id) => {
                let array = self.array(id)?;
                let (assoc, uid, limit) = (array.assoc, array.uid, array.time_limit);
                Some(self.claim_of(&array.spec, assoc, uid, limit, Some(partition)))
            }
        }
    }

    /// What a request brings along.
    pub(crate) fn claim_of<'a>(
        &'a self,
        spec: &'a JobSpec,
        assoc: AssocId,
        uid: UserId,
        limit: Walltime,
        partition: Option<&PartitionName>,
    ) -> Claim<'a> {
        let accounts = self.accounts();
        let chain = accounts.chain(assoc);
        let levels = chain.filter(|level| accounts.is_limited(level.id)).map(|level| &**level);
        let find = |name: &str| accounts.qos(name).map(|qos| &**qos);
        let qos = find(&spec.qos);
        let of_partition = partition.and_then(|name| self.qos_of_partition(name, &spec.qos));
        let of_partition = of_partition.and_then(find);
        let (first, second) = match (of_partition, qos) {
            (None, qos) => (qos, None),
            (Some(partition), Some(qos)) if qos.has(QosFlag::OverPartQos) => {
                (Some(qos), Some(partition))
            }
            (Some(partition), qos) => (Some(partition), qos),
        };
        let enforced = self.config().scheduling.enforce != Enforcement::None;
        Claim {
            assoc,
            uid,
            account: &spec.account,
            limit_secs: limit.as_secs().unwrap_or(UNLIMITED_SECS),
            levels: levels.collect(),
            first,
            second,
            qos,
            homeless: enforced && accounts.assoc(assoc).is_none(),
        }
    }

    /// Whose use a job counts towards.
    pub(crate) fn owners(
        &self,
        spec: &JobSpec,
        assoc: AssocId,
        uid: UserId,
        partition: Option<&PartitionName>,
    ) -> Vec<Owner> {
        let mut owners: Vec<_> =
            self.accounts().chain(assoc).map(|level| Owner::Assoc(level.id)).collect();
        let account: Arc<str> = (*spec.account).into();
        let other = partition.and_then(|name| self.qos_of_partition(name, &spec.qos));
        for name in std::iter::once(&*spec.qos).chain(other) {
            let name: Arc<str> = name.into();
            owners.push(Owner::Qos(Arc::clone(&name)));
            owners.push(Owner::QosUser(Arc::clone(&name), uid));
            owners.push(Owner::QosAccount(name, Arc::clone(&account)));
        }
        owners
    }

    /// The QOS of a partition, unless the job has the same.
    fn qos_of_partition(&self, partition: &PartitionName, own: &str) -> Option<&str> {
        let partition = self.partition(partition)?;
        partition.qos.as_deref().filter(|name| *name != own)
    }
}
