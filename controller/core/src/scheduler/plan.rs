//! In which order do jobs start?
//!
//! The queue is taken in order: partition tier, priority, submission. A job that waits for resources
//! closes its partition to all behind it. A job that could not run even if all nodes in service were
//! idle (it waits for nodes that are down or drained), or that a limit keeps back, closes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_vocab::{JobId, PartitionName, PendingReason, Timestamp, Walltime, compress};

use super::demand::Demand;
use super::fit::{Room, describe_free, partition_nodes, place};
use super::free::Free;
use crate::cluster::{Cluster, Waiting};
use crate::command::{StartLine, Unit};
use crate::model::{
    Array, JobSpec, NodeIndex, NodeShare, Partition, PartitionState, Qos, QosFlag, Shape,
};
use crate::policy::FairShare;
use crate::policy::limits::{Check, UsageCache, bounds};

/// Shapes whose nodes are remembered while a plan is made: a cluster of 10,000 nodes needs a MiB each.
const MAX_ROOMS: usize = 64;

/// Bounds of one plan, in work and not in time, so that a plan can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most units that are tried.
    pub tried: usize,
    /// Most starts.
    pub starts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tried: 20_000, starts: 2_000 }
    }
}

/// What should start now, and why what was tried does not.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// When it was made.
    pub made_at: Timestamp,
    /// Starts, in order.
    pub starts: Vec<StartLine>,
    /// Whether a bound cut it short.
    pub cut: bool,
    reasons: BTreeMap<Unit, Waiting>,
}

impl Plan {
    /// What the plan found about a unit; `None`: it was not tried.
    #[must_use]
    pub fn reason(&self, unit: Unit) -> Option<&Waiting> {
        self.reasons.get(&unit)
    }
}

/// Makes a plan from a snapshot. Cost: the units up to the point where every partition is closed,
/// times the nodes of their partitions.
#[must_use]
pub fn plan(cluster: &Cluster, now: Timestamp, limits: Limits) -> Plan {
    let used = UsageCache::default();
    let enforced = |qos: &Arc<Qos>| qos.has(QosFlag::EnforceUsageThreshold);
    let shares = cluster.accounts().all_qos().any(enforced).then(|| FairShare::new(cluster, now));
    let check = Check::new(cluster, now, &used);
    let mut planner = Planner {
        cluster,
        check: match &shares {
            Some(shares) => check.with_shares(shares),
            None => check,
        },
        free: Free::now(cluster),
        nodes: BTreeMap::new(),
        closed: BTreeSet::new(),
        failed: BTreeMap::new(),
        rooms: BTreeMap::new(),
        given_away: Vec::new(),
        started_tasks: BTreeMap::new(),
        open: cluster.config().partitions.iter().filter(|p| p.state.starts_jobs()).count(),
        plan: Plan { made_at: now, ..Plan::default() },
        limits,
    };
    for (tried, key) in cluster.queue().enumerate() {
        if planner.open > 0 && planner.closed.len() >= planner.open {
            break;
        }
        if tried >= limits.tried || planner.plan.starts.len() >= limits.starts {
            planner.plan.cut = true;
            break;
        }
        planner.consider(key.unit);
    }
    planner.plan
}

struct Planner<'a> {
    cluster: &'a Cluster,
    /// Limits, with what this plan starts.
    check: Check<'a>,
    free: Free<'a>,
    nodes: BTreeMap<PartitionName, Vec<NodeIndex>>,
    /// Partitions in which a job waits for resources.
    closed: BTreeSet<PartitionName>,
    /// What shapes came to that did not fit. What is free only shrinks while a plan is made, so
    /// they need not be tried again.
    failed: BTreeMap<(PartitionName, &'a Shape), Obstacle>,
    /// Where jobs of a shape could go.
    rooms: BTreeMap<(PartitionName, &'a Shape), Room>,
    /// Nodes that this plan took something from, in order.
    given_away: Vec<NodeIndex>,
    /// Array tasks that this plan starts.
    started_tasks: BTreeMap<JobId, u32>,
    /// How many partitions start jobs at all.
    open: usize,
    plan: Plan,
    limits: Limits,
}

/// Why a job does not start in a partition now.
#[derive(Clone)]
enum Obstacle {
    /// Not enough is free; nobody may pass.
    Resources(String),
    /// A job ahead waits for the same partition.
    Behind,
    /// Something that only concerns this job.
    Own(Waiting),
}

impl<'a> Planner<'a> {
    fn consider(&mut self, unit: Unit) {
        match unit {
            Unit::Job(id) => {
                let cluster = self.cluster;
                let Some(job) = cluster.job(id) else { return };
                let base = job.array.map(|task| task.base);
                if let Some(array) = base.and_then(|base| cluster.array(base))
                    && self.room(array) == 0
                {
                    self.note(unit, throttled(array));
                    return;
                }
                let limit = job.time_limit;
                if let Some((partition, shares)) = self.try_all(unit, &job.spec, limit) {
                    self.start(unit, None, partition, shares);
                    if let Some(base) = base {
                        *self.started_tasks.entry(base).or_insert(0) += 1;
                    }
                }
            }
            Unit::Array(id) => self.consider_array(id),
        }
    }

    /// How many more tasks of an array may start.
    fn room(&self, array: &Array) -> u32 {
        let started = self.started_tasks.get(&array.id).copied().unwrap_or(0);
        let running = self.cluster.running_tasks(array.id).saturating_add(started);
        array.throttle().saturating_sub(running)
    }

    /// Starts tasks of an array until one does not fit or the throttle is reached.
    fn consider_array(&mut self, id: JobId) {
        let cluster = self.cluster;
        let unit = Unit::Array(id);
        let Some(array) = cluster.array(id) else { return };
        let room = self.room(array);
        let mut started = 0;
        for task in array.pending.iter() {
            if self.plan.starts.len() >= self.limits.starts {
                self.plan.cut = true;
                break;
            }
            if started >= room {
                self.note(unit, throttled(array));
                break;
            }
            let Some((partition, shares)) = self.try_all(unit, &array.spec, array.time_limit)
            else {
                break;
            };
            self.start(unit, Some(task), partition, shares);
            started += 1;
        }
        *self.started_tasks.entry(id).or_insert(0) += started;
    }

    /// Tries the partitions in the job's order of preference.
    fn try_all(
        &mut self,
        unit: Unit,
        spec: &'a JobSpec,
        limit: Walltime,
    ) -> Option<(PartitionName, Vec<NodeShare>)> {
        let cluster = self.cluster;
        let mut waiting: Option<Waiting> = None;
        let mut closes = Vec::new();
        for partition in cluster.partitions_of(spec) {
            match self.try_one(unit, partition, spec, limit) {
                Ok(shares) => return Some((partition.name.clone(), shares)),
                Err(Obstacle::Resources(detail)) => {
                    closes.push(partition.name.clone());
                    waiting = Some(Waiting::new(PendingReason::Resources, detail));
                }
                Err(Obstacle::Behind) => {
                    let behind = || {
                        let name = &partition.name;
                        let detail = format!("a job of higher priority waits in partition {name}");
                        Waiting::new(PendingReason::Priority, detail)
                    };
                    waiting = Some(waiting.unwrap_or_else(behind));
                }
                Err(Obstacle::Own(own)) => waiting = Some(waiting.unwrap_or(own)),
            }
        }
        self.closed.extend(closes);
        if let Some(waiting) = waiting {
            self.note(unit, waiting);
        }
        None
    }

    fn try_one(
        &mut self,
        unit: Unit,
        partition: &Partition,
        spec: &'a JobSpec,
        limit: Walltime,
    ) -> Result<Vec<NodeShare>, Obstacle> {
        let qos = self.cluster.accounts().qos(&spec.qos).map(|qos| &**qos);
        if let Some(own) = partition_obstacle(partition, qos, spec, limit) {
            return Err(Obstacle::Own(own));
        }
        let claim = self.cluster.claim(unit, &partition.name);
        if let Some(claim) = &claim {
            self.check.before(claim).map_err(Obstacle::Own)?;
        }
        if self.closed.contains(&partition.name) {
            return Err(Obstacle::Behind);
        }
        let class = (partition.name.clone(), &*spec.shape);
        if let Some(obstacle) = self.failed.get(&class) {
            return Err(obstacle.clone());
        }
        let found = self.try_nodes(partition, spec);
        if let Err(obstacle) = &found {
            self.failed.insert(class, obstacle.clone());
        }
        let shares = found?;
        if let Some(claim) = &claim {
            let (tres, node) = self.cluster.amounts(&partition.name, &shares, spec);
            self.check.after(claim, &tres, &node).map_err(Obstacle::Own)?;
        }
        Ok(shares)
    }

    fn try_nodes(
        &mut self,
        partition: &Partition,
        spec: &'a JobSpec,
    ) -> Result<Vec<NodeShare>, Obstacle> {
        let cluster = self.cluster;
        let nodes = self
            .nodes
            .entry(partition.name.clone())
            .or_insert_with(|| partition_nodes(cluster, partition));
        let demand = Demand::new(&spec.shape, partition);
        let (free, given_away) = (&self.free, &self.given_away);
        let class = (partition.name.clone(), &*spec.shape);
        let found = if self.rooms.len() < MAX_ROOMS || self.rooms.contains_key(&class) {
            let new = || Room::new(free, nodes, &demand, given_away.len());
            let room = self.rooms.entry(class).or_insert_with(new);
            room.catch_up(free, given_away, &demand);
            room.place(free, &demand)
        } else {
            place(free, nodes, &demand, |node| node.accepts_work())
        };
        if let Some(shares) = found {
            return Ok(shares);
        }
        let idle = Free::idle(cluster);
        if place(&idle, nodes, &demand, |node| node.accepts_work()).is_some() {
            let has = describe_free(&self.free, nodes);
            return Err(Obstacle::Resources(format!("needs {}; {has}", demand.describe())));
        }
        Err(Obstacle::Own(unavailable(self.free.cluster(), nodes, &demand)))
    }

    fn start(
        &mut self,
        unit: Unit,
        task: Option<u32>,
        partition: PartitionName,
        shares: Vec<NodeShare>,
    ) {
        for share in &shares {
            self.free.take(share);
            self.given_away.push(share.node);
        }
        let spec = match unit {
            Unit::Job(id) => self.cluster.job(id).map(|job| &job.spec),
            Unit::Array(id) => self.cluster.array(id).map(|array| &array.spec),
        };
        if let (Some(spec), Some(claim)) = (spec, self.cluster.claim(unit, &partition)) {
            let (tres, _) = self.cluster.amounts(&partition, &shares, spec);
            self.check.take(&claim, &tres);
        }
        let shares = shares.into_boxed_slice();
        self.plan.starts.push(StartLine { unit, task, partition, shares, backfill: false });
    }

    fn note(&mut self, unit: Unit, waiting: Waiting) {
        self.plan.reasons.insert(unit, waiting);
    }
}

fn throttled(array: &Array) -> Waiting {
    let detail = format!("{} of its tasks run, its throttle", array.throttle());
    Waiting::new(PendingReason::JobArrayTaskLimit, detail)
}

/// What the partition itself has against the job.
fn partition_obstacle(
    partition: &Partition,
    qos: Option<&Qos>,
    spec: &JobSpec,
    limit: Walltime,
) -> Option<Waiting> {
    let name = &partition.name;
    if !partition.state.starts_jobs() {
        let reason = match partition.state {
            PartitionState::Inactive => PendingReason::PartitionInactive,
            PartitionState::Up | PartitionState::Down | PartitionState::Drain => {
                PendingReason::PartitionDown
            }
        };
        return Some(Waiting::new(
            reason,
            format!("partition {name} is {}", partition.state.name()),
        ));
    }
    let bounds = bounds(partition, qos);
    let over = match (limit, bounds.max_time) {
        (_, Walltime::Unlimited) => false,
        (Walltime::Unlimited, Walltime::Limited(_)) => true,
        (Walltime::Limited(limit), Walltime::Limited(max)) => limit > max,
    };
    if over {
        let detail =
            format!("its limit is {limit}, partition {name} allows {}", partition.max_time);
        return Some(Waiting::new(PendingReason::PartitionTimeLimit, detail));
    }
    let (least, most) = (spec.shape.least_nodes(), spec.shape.most_nodes());
    let too_many = bounds.max_nodes > 0 && least > bounds.max_nodes;
    if too_many || most < bounds.min_nodes {
        let detail = format!(
            "it asks for {least} node(s), partition {name} gives {} to {}",
            partition.min_nodes, partition.max_nodes
        );
        return Some(Waiting::new(PendingReason::PartitionNodeLimit, detail));
    }
    None
}

/// The job would fit if nodes that are out of service were not.
fn unavailable(cluster: &Cluster, nodes: &[NodeIndex], demand: &Demand<'_>) -> Waiting {
    let away: Vec<_> = nodes
        .iter()
        .filter_map(|index| cluster.node(*index))
        .filter(|(node, _)| !node.accepts_work())
        .map(|(node, _)| node.name.as_str())
        .collect();
    let named = !demand.shape.required.is_empty();
    let reason = if named { PendingReason::ReqNodeNotAvail } else { PendingReason::Resources };
    let detail = format!("needs {}; out of service: {}", demand.describe(), compress(away));
    Waiting::new(reason, detail)
}
