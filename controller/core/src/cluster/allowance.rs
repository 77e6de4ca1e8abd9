//! Do limits let a request in, and what may it cost?

use penstock_vocab::{Mib, Tres, TresKind, UserId};

use super::Cluster;
use crate::command::Unit;
use crate::model::{AssocId, JobSpec, MemoryRequest, Partition, QosFlag, UsageOwner};
use crate::policy::decay::UNIT_MS;
use crate::policy::limits::{Claim, LimitState, check_submit};
use crate::policy::{add_gres, billing, cost, least_tres, money};
use crate::refusal::Refusal;

/// A request whose names are resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks<'a> {
    pub(super) spec: &'a JobSpec,
    /// Who is charged.
    pub(super) assoc: AssocId,
    /// Whose it is.
    pub(super) uid: UserId,
    /// Jobs that it stands for.
    pub(super) tasks: u64,
}

impl Cluster {
    /// Refuses what limits on submission refuse. `without`: a unit that counts already and is to be
    /// changed into this.
    pub(super) fn check_limits(
        &self,
        asks: &Asks<'_>,
        without: Option<Unit>,
    ) -> Result<(), Refusal> {
        let spec = asks.spec;
        if spec.reservation.is_empty()
            && let Some(qos) = self.accounts.qos(&spec.qos)
            && qos.has(QosFlag::RequiresReservation)
        {
            let text = format!("QOS {} is for jobs in a reservation; name one", qos.name);
            return Err(Refusal::InvalidQos(text.into()));
        }
        let partition = self.partitions_of(spec).next();
        let claim = self.claim_for(asks, partition);
        let state = without.map(|unit| self.limits_without(unit));
        let state = state.as_ref().unwrap_or_else(|| self.limits());
        if !claim.denies() {
            return check_submit(self, state, &claim, asks.tasks, (&NOTHING, &NOTHING));
        }
        let tres = self.least(spec, partition);
        check_submit(self, state, &claim, asks.tasks, (&tres, &least_on_a_node(spec, partition)))
    }

    fn claim_for<'a>(&'a self, asks: &Asks<'a>, partition: Option<&Partition>) -> Claim<'a> {
        let limit = self.limit_for(asks.spec);
        let name = partition.map(|partition| &partition.name);
        self.claim_of(asks.spec, asks.assoc, asks.uid, limit, name)
    }

    /// The least that a request comes to, billing included.
    fn least(&self, spec: &JobSpec, partition: Option<&Partition>) -> Tres {
        let mut tres = least_tres(spec, partition);
        if let Some(partition) = partition {
            tres.billing = billing(&self.config, &partition.name, &tres);
        }
        tres
    }

    /// What is in use and waits but for one waiting unit.
    fn limits_without(&self, unit: Unit) -> LimitState {
        let mut state = self.limits().clone();
        match unit {
            Unit::Job(id) => {
                if let Some(job) = self.jobs.get(&id).filter(|job| job.is_pending()) {
                    state.queue(&self.job_owners(job), -1);
                }
            }
            Unit::Array(id) => {
                if let Some(array) = self.arrays.get(&id) {
                    let tasks = i64::try_from(array.pending.len()).unwrap_or(i64::MAX);
                    state.queue(&self.array_owners(array), -tasks);
                }
            }
        }
        state
    }

    /// What a request costs at most, for the submitter; `None`: nobody set rates.
    pub(super) fn cost_line(&self, asks: &Asks<'_>) -> Option<Box<str>> {
        let rates = &self.config.scheduling.cost;
        if rates.per_hour.is_empty() {
            return None;
        }
        let partition = self.partitions_of(asks.spec).next();
        let tres = self.least(asks.spec, partition);
        let Some(secs) = self.limit_for(asks.spec).as_secs() else {
            let hour = cost(rates, &tres, 3_600).saturating_mul(asks.tasks);
            let text = format!("{} an hour, it has no time limit", money(rates, hour));
            return Some(text.into());
        };
        let most = cost(rates, &tres, secs).saturating_mul(asks.tasks);
        let claim = self.claim_for(asks, partition);
        let left = self.share_of_budget(asks, &claim, &tres, secs);
        let left = left.map(|percent| format!("; {percent} % of what is left"));
        Some(format!("at most {}{}", money(rates, most), left.unwrap_or_default()).into())
    }

    /// How much of what is left of the tightest budget the request may use, in percent.
    fn share_of_budget(
        &self,
        asks: &Asks<'_>,
        claim: &Claim<'_>,
        tres: &Tres,
        secs: u64,
    ) -> Option<u128> {
        let factor = u128::from(self.usage_factor(asks.spec));
        let of = |owner: UsageOwner, kind: &TresKind, mins: u64| {
            if tres.get(kind) == 0 || !claim.bound_over_time(&owner, Some(kind)) {
                return None;
            }
            let amount = u128::from(tres.get(kind)) * u128::from(secs) * 1_000;
            // In millionths, as usage is counted.
            let need = amount.saturating_mul(u128::from(asks.tasks)).saturating_mul(factor);
            let used = self.group_usage(&owner, self.now).tres.get(kind).copied().unwrap_or(0);
            let limit = u128::from(mins) * 60_000 * 1_000_000;
            let left = limit.saturating_sub(used / (UNIT_MS / 1_000_000));
            Some(need.saturating_mul(100).div_ceil(left.max(1)).min(99_999))
        };
        let assocs = self.accounts.chain(asks.assoc).flat_map(|level| {
            let owner = UsageOwner::Assoc(level.id);
            level.group.tres_mins.iter().map(move |(kind, mins)| (owner.clone(), kind, *mins))
        });
        let qos = claim.all_qos().flat_map(|qos| {
            let owner = UsageOwner::Qos(qos.name.clone());
            qos.group.tres_mins.iter().map(move |(kind, mins)| (owner.clone(), kind, *mins))
        });
        assocs.chain(qos).filter_map(|(owner, kind, mins)| of(owner, kind, mins)).max()
    }
}

const NOTHING: Tres = Tres {
    cpu: 0,
    mem: Mib(0),
    node: 0,
    billing: 0,
    gres: std::collections::BTreeMap::new(),
    licenses: std::collections::BTreeMap::new(),
};

/// The least that a request comes to on some node of it.
fn least_on_a_node(spec: &JobSpec, partition: Option<&Partition>) -> Tres {
    let shape = &spec.shape;
    let default = partition.and_then(|partition| partition.def_mem_per_node);
    let mem = match shape.memory {
        MemoryRequest::PerNode(memory) => memory,
        MemoryRequest::PerCpu(memory) => Mib(memory.0.saturating_mul(u64::from(shape.task_cpus()))),
        MemoryRequest::PerGpu(memory) => {
            Mib(memory.0.saturating_mul(shape.least_gpus().div_ceil(shape.most_nodes().into())))
        }
        MemoryRequest::Default => default.unwrap_or(Mib(0)),
        MemoryRequest::WholeNode => Mib(0),
    };
    let nodes = u64::from(shape.most_nodes());
    let cpu = u64::from(shape.least_cpus()).div_ceil(nodes.max(1));
    let mut tres = Tres { cpu: cpu.max(shape.task_cpus().into()), mem, node: 1, ..Tres::default() };
    for gres in &shape.node_gres() {
        add_gres(&mut tres, &gres.name, gres.count);
    }
    tres
}
