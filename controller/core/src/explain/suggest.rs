//! What is the smallest change of a job that starts it sooner?
//!
//! Each change is made to a copy of the cluster by the command that would make it, and the copy is
//! planned as the real one is. What does not start it sooner, or would be refused, is not told.

use std::collections::BTreeSet;

use penstock_vocab::{
    GresName, GresRequest, GroupId, Mib, PartitionName, Timestamp, UserId, Walltime,
};

use super::forecast::forecast;
use super::within_limits;
use super::words::hostlist;
use crate::cluster::{Cluster, passes};
use crate::command::{Caller, Command, JobUpdate, Reply, Target, Unit};
use crate::model::{JobSpec, MemoryRequest, Partition};
use crate::scheduler::{Limits, partition_obstacle};

/// Most changes that are tried for one job; each costs a plan.
pub const MAX_TRIES: usize = 16;
/// Most other partitions that are tried.
const MAX_PARTITIONS: usize = 3;
/// Most other types of a generic resource that are tried.
const MAX_TYPES: usize = 3;
/// No limit is cut below this, in seconds: a minute, the least that Slurm knows.
const LEAST_LIMIT_SECS: u64 = 60;

/// What starts it sooner by less is not worth a change, and would be shown as no gain; milliseconds.
const LEAST_GAIN_MS: i64 = 1_000;

/// A change of a job that starts it sooner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// The change as an option of sbatch: `--time=02:00:00`.
    pub change: String,
    /// The same as `scontrol update` would make it.
    pub update: JobUpdate,
    /// How much of the request is given up, in thousandths of it; 0: it is only another place.
    pub loss: u32,
    /// When the job would start.
    pub start: Timestamp,
    /// Where, as a host list.
    pub nodes: String,
    /// In which partition.
    pub partition: PartitionName,
}

/// A change to be tried.
pub(super) struct Try {
    /// As an option of sbatch.
    pub(super) change: String,
    /// As a command.
    pub(super) update: JobUpdate,
    /// In thousandths of the request.
    pub(super) loss: u32,
}

/// Changes of a waiting unit that start it sooner than it is expected to now, or at all: the soonest
/// first, of those the one that gives up least. Empty for what starts now or does not wait for
/// resources. A partition for some groups only is left out: who is in them is not known here.
///
/// Cost: at most [`MAX_TRIES`] and one forecasts of all that waits.
#[must_use]
pub fn suggest(cluster: &Cluster, now: Timestamp, unit: Unit) -> Vec<Suggestion> {
    let view = cluster.seen_at(now);
    let Some(queued) = view.waiting_units().get(&unit).cloned() else { return Vec::new() };
    let before = forecast(&view, now, u32::MAX, Limits::default());
    let before = before.place(unit).map(|place| place.start);
    if before.is_some_and(|start| start <= now) {
        return Vec::new();
    }
    let mut tries = shorter(&queued.spec, queued.time_limit);
    tries.extend(fewer_nodes(&queued.spec));
    tries.extend(other_partitions(&view, &queued.spec, queued.time_limit));
    tries.extend(other_types(&view, &queued.spec));
    tries.extend(less_memory(&queued.spec));
    tries.extend(within_limits::tries(&view, &queued));
    let better = |attempt: Try| {
        let found = start_with(&view, now, unit, attempt)?;
        before.is_none_or(|start| start.0 - found.start.0 >= LEAST_GAIN_MS).then_some(found)
    };
    let mut found: Vec<_> = tries.into_iter().take(MAX_TRIES).filter_map(better).collect();
    // Stable: of equals the one that was thought of first.
    found.sort_by_key(|suggestion| (suggestion.start, suggestion.loss));
    found
}

/// When a unit would start after a change; `None`: it is refused, or nobody knows.
fn start_with(cluster: &Cluster, now: Timestamp, unit: Unit, attempt: Try) -> Option<Suggestion> {
    let Try { change, update, loss } = attempt;
    let mut changed = cluster.clone();
    let target = match unit {
        Unit::Job(id) => Target::Job(id),
        Unit::Array(id) => Target::Waiting(id),
    };
    let command = Command::UpdateJob(ADMIN, vec![target], Box::new(update.clone()));
    let outcome = changed.execute(now, command).ok()?;
    match outcome.reply {
        Reply::Targets(results) if results.iter().all(|result| result.refusal.is_none()) => {}
        _ => return None,
    }
    let forecast = forecast(&changed, now, u32::MAX, Limits::default());
    let place = forecast.place(unit)?;
    Some(Suggestion {
        change,
        update,
        loss,
        start: place.start,
        nodes: hostlist(&changed, place.nodes.iter().copied()),
        partition: place.partition.clone(),
    })
}

/// Who changes copies: whoever asks may not be allowed to, and need not be to be told.
pub(super) const ADMIN: Caller =
    Caller { uid: UserId(0), gid: GroupId(0), admin: true, request: None };

/// Three quarters and half of the time limit, in whole minutes.
fn shorter(spec: &JobSpec, limit: Walltime) -> Vec<Try> {
    let Walltime::Limited(secs) = limit else { return Vec::new() };
    let least = spec.min_time.and_then(Walltime::as_secs).unwrap_or(0).max(LEAST_LIMIT_SECS);
    let cut = |quarters: u64| {
        let new = secs / 4 * quarters / 60 * 60;
        (new >= least && new < secs).then(|| Try {
            change: format!("--time={}", Walltime::Limited(new)),
            update: JobUpdate { time_limit: Some(Walltime::Limited(new)), ..JobUpdate::default() },
            loss: thousandths(secs - new, secs),
        })
    };
    [3, 2].into_iter().filter_map(cut).collect()
}

/// One node less, and half of them. With a number of tasks the tasks stay and stand closer, and more
/// nodes may still be taken; without one the job becomes smaller.
fn fewer_nodes(spec: &JobSpec) -> Vec<Try> {
    let shape = &spec.shape;
    let now = shape.nodes_min;
    let required = u32::try_from(shape.required.len()).unwrap_or(u32::MAX);
    let least = required.max(shape.constraint.least_nodes()).max(1);
    let tries: BTreeSet<u32> = [now.saturating_sub(1), now / 2].into_iter().collect();
    let fewer = |nodes: u32| {
        let most = shape.nodes_max.max(now);
        let ranged = shape.ntasks.is_some() || shape.nodes_max > now;
        Try {
            change: if ranged {
                format!("--nodes={nodes}-{most}")
            } else {
                format!("--nodes={nodes}")
            },
            update: JobUpdate {
                nodes: Some((nodes, if ranged { most } else { 0 })),
                ..JobUpdate::default()
            },
            loss: match shape.ntasks {
                Some(_) => 0,
                None => thousandths(u64::from(now - nodes), u64::from(now)),
            },
        }
    };
    // The smaller change first.
    tries.into_iter().rev().filter(|n| *n >= least && *n < now).map(fewer).collect()
}

/// Partitions that it does not name and that its owner may use.
fn other_partitions(cluster: &Cluster, spec: &JobSpec, limit: Walltime) -> Vec<Try> {
    let named: Vec<_> = cluster.partitions_of(spec).map(|partition| &partition.name).collect();
    let qos = cluster.accounts().qos(&spec.qos).map(|qos| &**qos);
    let open = |partition: &&Partition| {
        !named.contains(&&partition.name)
            && may_use(partition, spec)
            && partition_obstacle(partition, qos, spec, limit).is_none()
    };
    let partitions = cluster.config().partitions.iter().filter(open).take(MAX_PARTITIONS);
    let to = |partition: &Partition| Try {
        change: format!("--partition={}", partition.name),
        update: JobUpdate {
            partitions: Some(vec![partition.name.clone()]),
            ..JobUpdate::default()
        },
        loss: 0,
    };
    partitions.map(to).collect()
}

/// Whether a job's owner may submit to a partition, as far as its request tells.
fn may_use(partition: &Partition, spec: &JobSpec) -> bool {
    partition.state.accepts_jobs()
        && !partition.root_only
        && !partition.hidden
        && partition.allow_groups.is_empty()
        && passes(&partition.allow_accounts, &partition.deny_accounts, &spec.account)
        && passes(&partition.allow_qos, &partition.deny_qos, &spec.qos)
}

/// Any type of a generic resource in the place of the one that is asked for on each node, and each
/// other that nodes offer.
fn other_types(cluster: &Cluster, spec: &JobSpec) -> Vec<Try> {
    let asked = &spec.shape.gres_per_node;
    let Some(at) = asked.iter().position(|request| request.name.kind().is_some()) else {
        return Vec::new();
    };
    let old = &asked[at].name;
    let offered = cluster.nodes().flat_map(|(_, node, _)| node.inventory.gres.iter());
    let others = offered
        .map(|gres| &gres.name)
        .filter(|name| name.name() == old.name() && name.kind().is_some() && *name != old);
    let others: BTreeSet<GresName> = others.cloned().collect();
    if others.is_empty() {
        return Vec::new();
    }
    let names = std::iter::once(old.untyped()).chain(others).take(MAX_TYPES);
    let with = |name: GresName| {
        let mut gres: Vec<GresRequest> = asked.to_vec();
        gres[at].name = name;
        let text: Vec<_> = gres.iter().map(ToString::to_string).collect();
        Try {
            change: format!("--gres={}", text.join(",")),
            update: JobUpdate { gres: Some(gres), ..JobUpdate::default() },
            loss: 0,
        }
    };
    names.map(with).collect()
}

/// Three quarters and half of the memory that is asked for.
fn less_memory(spec: &JobSpec) -> Vec<Try> {
    let (now, per_cpu) = match spec.shape.memory {
        MemoryRequest::PerNode(memory) => (memory, false),
        MemoryRequest::PerCpu(memory) => (memory, true),
        MemoryRequest::Default | MemoryRequest::WholeNode | MemoryRequest::PerGpu(_) => {
            return Vec::new();
        }
    };
    let cut = |quarters: u64| {
        let new = Mib(now.0 / 4 * quarters);
        // No memory at all would ask for the whole node's.
        (new.0 > 0).then(|| {
            let (option, update) = if per_cpu {
                ("mem-per-cpu", JobUpdate { mem_per_cpu: Some(new), ..JobUpdate::default() })
            } else {
                ("mem", JobUpdate { mem_per_node: Some(new), ..JobUpdate::default() })
            };
            let loss = thousandths(now.0 - new.0, now.0);
            Try { change: format!("--{option}={}M", new.0), update, loss }
        })
    };
    [3, 2].into_iter().filter_map(cut).collect()
}

pub(super) fn thousandths(part: u64, whole: u64) -> u32 {
    u32::try_from(part.saturating_mul(1_000) / whole.max(1)).unwrap_or(1_000)
}
