//! Which of two waiting jobs comes first?
//!
//! Slurm's multifactor formula on Slurm's scale, an unsigned 32-bit number, at least 1, higher first:
//!
//! ```text
//! base + site + age + assoc + fair share + job size + partition + QOS + TRES
//!     + expansion + small area - nice
//! ```
//!
//! Each factor is between 0 and 1 and has a weight. The sum is made in millionths of a point and its
//! fraction dropped, as Slurm does. Two factors are ours. Expansion, `min((wait + limit) / limit, cap) /
//! cap`: short jobs rise sooner, which keeps their slowdown bounded. Small area, `1 - log2(CPUs * limit
//! in seconds) / 40`: of two that came together the smaller goes first, while the expansion sees to it
//! that the larger is not passed for ever. A priority that an admin fixed
//! takes the place of the formula, and a held job has 0.
//!
//! What does not change while a job waits is reckoned once ([`Scale::prepare`]); then a priority at
//! any instant is a few multiplications ([`Scale::priority`]). Inputs stay good for every later scale
//! that [`Scale::same_basis`] calls alike.

use std::collections::BTreeMap;

use penstock_vocab::{PartitionName, Timestamp, Tres, TresKind};

use super::FairShare;
use super::billing::{billing, least_tres};
use crate::cluster::{Cluster, Waits};
use crate::command::Unit;
use crate::model::{
    AssocId, Config, Hold, JobSpec, NORMAL_QOS, ONE_MILLIONTHS, Partition, Weights,
};

/// Priority of a job of which nothing special is known.
pub const BASE_PRIORITY: u32 = 1_000_000;

/// Waits and limits beyond this, some 139 years, count as this; so no sum overflows.
const LONGEST_MS: u64 = 1 << 42;
/// Numbers of associations below this are found by index.
const DENSE: u32 = 1 << 20;

/// Priority of a job as far as its request tells: what an admin fixed, else the base and what its
/// partition adds, less its nice value.
#[must_use]
pub fn priority(config: &Config, spec: &JobSpec, fixed: Option<u32>) -> u32 {
    if let Some(fixed) = fixed {
        return fixed;
    }
    let factor = partitions(config, spec).map(|partition| partition.priority_job_factor).max();
    // The usual factor, 1, adds nothing.
    let added = i64::from(factor.unwrap_or(1).saturating_sub(1));
    capped(i64::from(BASE_PRIORITY) + added - i64::from(spec.nice))
}

/// Partitions that a request names.
fn partitions<'a>(config: &'a Config, spec: &'a JobSpec) -> impl Iterator<Item = &'a Partition> {
    config.partitions.iter().filter(|partition| {
        if spec.partitions.is_empty() {
            partition.is_default
        } else {
            spec.partitions.contains(&partition.name)
        }
    })
}

fn capped(points: i64) -> u32 {
    u32::try_from(points.clamp(1, i64::from(u32::MAX))).unwrap_or(u32::MAX)
}

/// What the priorities of all jobs are measured by, at one instant.
#[derive(Debug, Clone)]
pub struct Scale {
    now: Timestamp,
    basis: Basis,
    age: Slope,
    /// Millionths of a point that fair share gives, by number of association.
    fair: Vec<u64>,
    other_fair: BTreeMap<AssocId, u64>,
}

/// What factors other than age, fair share and expansion depend on, beside the job itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    weights: Weights,
    nodes: u64,
    cpus: u64,
    partitions: BTreeMap<PartitionName, PartitionBasis>,
    top_partition: u32,
    qos: BTreeMap<Box<str>, u32>,
    top_qos: u32,
    /// Empty where they have no weight.
    assocs: BTreeMap<AssocId, u32>,
    top_assoc: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PartitionBasis {
    factor: u32,
    is_default: bool,
    /// What it has; nothing, where TRES have no weight.
    total: Tres,
}

/// What the priority of a unit is made of: small, and good as long as the unit's request, hold and
/// times, and the scale's basis, stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityInputs {
    kind: Kind,
    assoc: AssocId,
    /// When it could first have started.
    pub eligible: Timestamp,
    /// Milliseconds; 0: no limit.
    limit_ms: u64,
    expansion: Slope,
    /// Of everything that does not change, in millionths of a point.
    lasting: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Held,
    Fixed(u32),
    Reckoned,
}

/// One factor of a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Factor {
    /// Between 0 and 1, in millionths, rounded down.
    pub millionths: u64,
    /// What it adds in millionths of a point.
    pub micro_points: u64,
}

/// Points that grow with time up to a weight, without a division when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slope {
    /// Milliseconds at which the whole weight is reached.
    full: u64,
    /// Millionths of a point for a millisecond in 2^-44, rounded up, so that what comes out even
    /// does so here: times up to 2^43 ms are off by less than a millionth of a point.
    per_ms: u128,
}

const SLOPE_BITS: u32 = 44;

impl Slope {
    fn new(weight: u32, full: u64) -> Self {
        let full = full.max(1);
        let micro = u128::from(weight) * u128::from(ONE_MILLIONTHS);
        Self { full, per_ms: (micro << SLOPE_BITS).div_ceil(u128::from(full)) }
    }

    /// In millionths of a point.
    fn at(self, ms: u64) -> u64 {
        let micro = (u128::from(ms.min(self.full)) * self.per_ms) >> SLOPE_BITS;
        u64::try_from(micro).unwrap_or(u64::MAX)
    }

    fn factor(self, ms: u64) -> Factor {
        let whole = Factor::of(ms.min(self.full).into(), self.full.into(), 0);
        Factor { micro_points: self.at(ms), ..whole }
    }
}

impl PriorityInputs {
    /// Wait and limit together, as the expansion counts them.
    fn expanded(&self, wait: u64) -> u64 {
        if self.limit_ms == 0 { 1 } else { wait + self.limit_ms }
    }
}

impl Factor {
    /// Part of a whole, at most 1; 0 of nothing. The whole is below 2^75.
    fn of(part: u128, whole: u128, weight: u32) -> Self {
        let part = part.min(whole);
        let times = |scale: u64| {
            let scaled = part.saturating_mul(u128::from(scale)).checked_div(whole).unwrap_or(0);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        Self {
            millionths: times(ONE_MILLIONTHS),
            micro_points: times(u64::from(weight) * ONE_MILLIONTHS),
        }
    }

    /// Whole points that it adds.
    #[must_use]
    pub fn points(self) -> u64 {
        self.micro_points / ONE_MILLIONTHS
    }
}

/// All factors of a priority, for `sprio`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factors {
    /// The result.
    pub priority: u32,
    /// What an admin fixed, in whose stead the factors do not count.
    pub fixed: Option<u32>,
    /// Somebody holds it.
    pub held: bool,
    /// Since when its age counts.
    pub eligible: Timestamp,
    /// Points of every job.
    pub base: u32,
    /// Points of the site, for this job; nothing sets any yet.
    pub site: i64,
    /// How long it waits.
    pub age: Factor,
    /// The association's priority.
    pub assoc: Factor,
    /// Rank in the fair tree.
    pub fairshare: Factor,
    /// Nodes and CPUs.
    pub job_size: Factor,
    /// The partition's factor.
    pub partition: Factor,
    /// The priority of the QOS.
    pub qos: Factor,
    /// Resources that have a weight, by kind.
    pub tres: Vec<(TresKind, Factor)>,
    /// How the wait compares to the limit; ours.
    pub expansion: Factor,
    /// How few CPU-seconds it asks for; ours.
    pub small_area: Factor,
    /// Points that are taken off.
    pub nice: i32,
}

impl Scale {
    /// What priorities are measured by at `now`. Cost: all nodes, QOS and associations.
    #[must_use]
    pub fn new(cluster: &Cluster, fair: &FairShare, now: Timestamp) -> Self {
        let weights = &cluster.config().scheduling.weights;
        let mut scale = Self {
            now,
            basis: Basis::new(cluster),
            age: Slope::new(weights.age, u64::from(weights.max_age_secs) * 1_000),
            fair: Vec::new(),
            other_fair: BTreeMap::new(),
        };
        // Who only has an association that was made by itself has no share that anybody gave.
        let mut users = cluster.accounts().all_assocs().filter(|assoc| assoc.user.is_some());
        let entered = users.any(|assoc| !assoc.implicit);
        let weight = if entered { u64::from(weights.fairshare) } else { 0 };
        let weight = weight.saturating_mul(ONE_MILLIONTHS);
        for (id, rank, users) in fair.ranks() {
            // weight * 10^6 is below 2^52, so the product fits.
            let points = u128::from(weight) * u128::from(rank) / u128::from(users);
            let points = u64::try_from(points).unwrap_or(u64::MAX);
            scale.put_fair(id, points);
        }
        scale
    }

    fn put_fair(&mut self, id: AssocId, points: u64) {
        if id.0 >= DENSE {
            self.other_fair.insert(id, points);
            return;
        }
        let at = id.0 as usize;
        if self.fair.len() <= at {
            self.fair.resize(at + 1, 0);
        }
        self.fair[at] = points;
    }

    fn fair_points(&self, id: AssocId) -> u64 {
        match self.fair.get(id.0 as usize) {
            Some(points) => *points,
            None => self.other_fair.get(&id).copied().unwrap_or(0),
        }
    }

    /// The instant that ages are counted to.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether inputs that were prepared with the other scale are good for this one: weights,
    /// totals, QOS and partitions are the same. Time and fair share may differ.
    #[must_use]
    pub fn same_basis(&self, other: &Self) -> bool {
        self.basis == other.basis
    }

    /// What the priority of a unit is made of; `None` if it does not wait.
    #[must_use]
    pub fn prepare(&self, cluster: &Cluster, unit: Unit) -> Option<PriorityInputs> {
        let waits = cluster.waits(unit)?;
        let lasting = self.lasting(cluster.config(), &waits);
        let Lasting { assoc, job_size, partition, qos, small_area, .. } = &lasting;
        let added = [assoc, job_size, partition, qos, small_area];
        let tres = lasting.tres.iter().map(|(_, factor)| factor.micro_points);
        let sum = added.iter().map(|factor| factor.micro_points).chain(tres);
        let sum = i64::try_from(sum.fold(0, u64::saturating_add)).unwrap_or(i64::MAX);
        let weights = &self.basis.weights;
        let kept = i64::from(weights.base) - i64::from(waits.spec.nice);
        // A job without a limit expands by nothing: it stays at one part of the cap.
        let limit_ms = limit_ms(&waits);
        let full = limit_ms.max(1).saturating_mul(u64::from(weights.expansion_cap.max(1)));
        Some(PriorityInputs {
            kind: kind(&waits),
            assoc: waits.assoc,
            eligible: cluster.eligible_time(unit).unwrap_or(waits.submit_time),
            limit_ms,
            expansion: Slope::new(weights.expansion, full),
            lasting: sum.saturating_add(kept.saturating_mul(MILLIONTHS)),
        })
    }

    /// The priority of a unit at the scale's instant.
    #[must_use]
    pub fn priority(&self, inputs: &PriorityInputs) -> u32 {
        match inputs.kind {
            Kind::Held => return 0,
            Kind::Fixed(fixed) => return fixed,
            Kind::Reckoned => {}
        }
        let weights = &self.basis.weights;
        if weights.fcfs {
            return weights.base.max(1);
        }
        let wait = self.wait(inputs.eligible);
        let micro = self.age.at(wait).saturating_add(inputs.expansion.at(inputs.expanded(wait)));
        let micro = micro.saturating_add(self.fair_points(inputs.assoc));
        let micro = i64::try_from(micro).unwrap_or(i64::MAX).saturating_add(inputs.lasting);
        capped(micro.div_euclid(MILLIONTHS))
    }

    fn wait(&self, eligible: Timestamp) -> u64 {
        self.now.since(eligible).0.min(LONGEST_MS)
    }

    /// Everything that goes into the priority of a unit; `None` if it does not wait. `fair` is what
    /// the scale was made with.
    #[must_use]
    pub fn factors(&self, cluster: &Cluster, fair: &FairShare, unit: Unit) -> Option<Factors> {
        let waits = cluster.waits(unit)?;
        let inputs = self.prepare(cluster, unit)?;
        let weights = &self.basis.weights;
        let lasting = self.lasting(cluster.config(), &waits);
        let wait = self.wait(inputs.eligible);
        let expanded = inputs.expanded(wait);
        Some(Factors {
            priority: self.priority(&inputs),
            fixed: waits.fixed_priority,
            held: waits.hold != Hold::None,
            eligible: inputs.eligible,
            base: weights.base,
            site: 0,
            age: self.age.factor(wait),
            assoc: lasting.assoc,
            fairshare: Factor {
                millionths: fair.factor(waits.assoc),
                micro_points: self.fair_points(waits.assoc),
            },
            job_size: lasting.job_size,
            partition: lasting.partition,
            qos: lasting.qos,
            tres: lasting.tres,
            expansion: inputs.expansion.factor(expanded),
            small_area: lasting.small_area,
            nice: waits.spec.nice,
        })
    }

    fn lasting(&self, config: &Config, waits: &Waits<'_>) -> Lasting {
        let (basis, weights) = (&self.basis, &self.basis.weights);
        let spec = waits.spec;
        let named = || partitions(config, spec);
        let partition = named().map(|partition| partition.priority_job_factor).max();
        let qos = if spec.qos.is_empty() { NORMAL_QOS } else { &spec.qos };
        let qos = basis.qos.get(qos).copied().unwrap_or(0);
        let assoc = basis.assocs.get(&waits.assoc).copied().unwrap_or(0);
        let weighed = named().filter(|_| !weights.tres.is_empty());
        let amounts: Vec<_> =
            weighed.map(|partition| basis.amounts(config, partition, spec)).collect();
        let tres = weights.tres.iter().map(|(kind, weight)| {
            let factors = amounts.iter().map(|(asked, total)| {
                let total = total.map_or(0, |total| total.get(kind));
                Factor::of(asked.get(kind).into(), total.into(), *weight)
            });
            (kind.clone(), factors.max_by_key(|f| f.micro_points).unwrap_or_default())
        });
        let of = |part: u32, whole: u32, weight| Factor::of(part.into(), whole.into(), weight);
        Lasting {
            assoc: of(assoc, basis.top_assoc, weights.assoc),
            job_size: basis.job_size(spec),
            partition: of(partition.unwrap_or(0), basis.top_partition, weights.partition),
            qos: of(qos, basis.top_qos, weights.qos),
            tres: tres.collect(),
            small_area: small_area(waits, weights.small_area),
        }
    }
}

const MILLIONTHS: i64 = 1_000_000;

/// Factors that do not change while a unit waits.
struct Lasting {
    assoc: Factor,
    job_size: Factor,
    partition: Factor,
    qos: Factor,
    tres: Vec<(TresKind, Factor)>,
    small_area: Factor,
}

/// Doublings of a CPU-second from the whole factor to nothing of it.
const AREA_DOUBLINGS: u64 = 40;

fn small_area(waits: &Waits<'_>, weight: u32) -> Factor {
    if weight == 0 {
        return Factor::default();
    }
    let whole = AREA_DOUBLINGS << LOG_BITS;
    let secs = waits.time_limit.as_secs().map(|secs| secs.max(1));
    let cpus = least_tres(waits.spec, None).cpu.max(1);
    let spent = secs.map_or(whole, |secs| doublings(secs.saturating_mul(cpus)));
    Factor::of(whole.saturating_sub(spent).into(), whole.into(), weight)
}

const LOG_BITS: u32 = 16;

/// The logarithm to base 2 of a number above 0, in 2^-16; between powers of two it is a straight line,
/// off by 0.09 at most.
fn doublings(number: u64) -> u64 {
    let whole = number.max(1).ilog2();
    let rest = number.max(1) << (u64::BITS - 1 - whole);
    let rest = (rest >> (u64::BITS - 1 - LOG_BITS)) & ((1 << LOG_BITS) - 1);
    (u64::from(whole) << LOG_BITS) + rest
}

fn kind(waits: &Waits<'_>) -> Kind {
    match (waits.hold, waits.fixed_priority) {
        (Hold::User | Hold::Admin, _) => Kind::Held,
        (Hold::None, Some(fixed)) => Kind::Fixed(fixed),
        (Hold::None, None) => Kind::Reckoned,
    }
}

fn limit_ms(waits: &Waits<'_>) -> u64 {
    let secs = waits.time_limit.as_secs();
    secs.map_or(0, |secs| secs.max(1).saturating_mul(1_000).min(LONGEST_MS))
}

impl Basis {
    fn new(cluster: &Cluster) -> Self {
        let config = cluster.config();
        let weights = config.scheduling.weights.clone();
        let accounts = cluster.accounts();
        let (mut nodes, mut cpus) = (0, 0);
        for (_, node, _) in cluster.nodes() {
            nodes += 1;
            cpus += u64::from(node.inventory.cpus);
        }
        let basis = |partition: &Partition| PartitionBasis {
            factor: partition.priority_job_factor,
            is_default: partition.is_default,
            total: if weights.tres.is_empty() {
                Tres::default()
            } else {
                cluster.partition_tres(partition)
            },
        };
        let partitions =
            config.partitions.iter().map(|partition| (partition.name.clone(), basis(partition)));
        let qos = accounts.all_qos().map(|qos| (qos.name.clone(), qos.priority));
        let weighed = accounts.all_assocs().filter(|_| weights.assoc > 0);
        let assocs: BTreeMap<_, _> = weighed.map(|assoc| (assoc.id, assoc.priority)).collect();
        let (partitions, qos): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (partitions.collect(), qos.collect());
        Self {
            nodes,
            cpus,
            top_partition: partitions.values().map(|basis| basis.factor).max().unwrap_or(0),
            partitions,
            top_qos: qos.values().copied().max().unwrap_or(0),
            qos,
            top_assoc: assocs.values().copied().max().unwrap_or(0),
            assocs,
            weights,
        }
    }

    /// Half of the part of the nodes and half of the part of the CPUs; the rest of the whole where
    /// small jobs are favoured.
    fn job_size(&self, spec: &JobSpec) -> Factor {
        let (nodes, cpus) = (u128::from(self.nodes), u128::from(self.cpus.min(1 << 40)));
        let asked = spec.shape.least_nodes();
        let asked = (u128::from(asked), u128::from(spec.shape.least_cpus()));
        let whole = 2 * nodes * cpus;
        // Capped after the sum, as Slurm does: a job of more CPUs than there are has the whole.
        let size = whole.min(cpus * asked.0 + nodes * asked.1);
        let part = if self.weights.favor_small { whole - size } else { size };
        Factor::of(part, whole, self.weights.job_size)
    }

    /// What a request takes, and what its partition has.
    fn amounts(
        &self,
        config: &Config,
        partition: &Partition,
        spec: &JobSpec,
    ) -> (Tres, Option<&Tres>) {
        let mut asked = least_tres(spec, Some(partition));
        asked.billing = billing(config, &partition.name, &asked);
        (asked, self.partitions.get(&partition.name).map(|basis| &basis.total))
    }
}
