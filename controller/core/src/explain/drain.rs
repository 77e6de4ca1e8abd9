//! When will a node, or one of its GPUs, be empty if it is drained, and what is in the way?
//!
//! The jobs there with their ends, and for those that may be requeued when they would run again if they
//! were now: the drain and the requeues are made to a copy of the cluster by the commands that would
//! make them, and planned as the real one is. Who waits already and starts at another time because of
//! the drain is what [`what_if`](super::what_if()) says.

use penstock_vocab::{JobId, NodeName, Timestamp, UserId};

use super::forecast::forecast;
use super::suggest::ADMIN;
use crate::cluster::Cluster;
use crate::command::{Command, MAX_TARGETS, NodeAction, NodeUpdate, Target, Unit};
use crate::model::NodeIndex;
use crate::refusal::Refusal;
use crate::scheduler::Limits;

/// A job that runs where it is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTheWay {
    /// Which.
    pub job: JobId,
    /// Whose.
    pub uid: UserId,
    /// When it ends at the latest; `None`: it has no limit.
    pub ends: Option<Timestamp>,
    /// It may be requeued.
    pub requeue: bool,
    /// When it would start again if it were requeued now; `None`: it may not be, or nobody knows.
    pub again: Option<Timestamp>,
    /// It would not have ended by the deadline; false without one.
    pub too_long: bool,
}

/// What the drain of a node, or of one of its GPUs, comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainPlan {
    /// The node.
    pub node: NodeName,
    /// The GPU alone; `None`: the node.
    pub gpu: Option<u32>,
    /// When it is empty at the latest: by the ends of its jobs, or at the deadline. `None`: nobody knows.
    pub empty: Option<Timestamp>,
    /// What is in the way, the latest end first.
    pub jobs: Vec<InTheWay>,
}

/// What is to be drained: a node, or one of its GPUs.
pub type DrainTarget = (NodeName, Option<u32>);

/// Tells what draining these at `now` would come to; the cluster stays as it is.
///
/// Cost: a forecast of all that waits.
///
/// # Errors
/// With the refusal that the drain itself would meet.
pub fn drain_plan(
    cluster: &Cluster,
    now: Timestamp,
    targets: &[DrainTarget],
    deadline: Option<Timestamp>,
) -> Result<Vec<DrainPlan>, Refusal> {
    let view = cluster.seen_at(now);
    let now = view.now();
    let mut changed = view.clone();
    let mut places = Vec::with_capacity(targets.len());
    for (name, gpu) in targets {
        let (index, _) = view.node_by_name(name)?;
        drain(&mut changed, now, name, *gpu)?;
        places.push(index);
    }
    let mut asked: Vec<JobId> = Vec::new();
    for (index, (_, gpu)) in places.iter().zip(targets) {
        let jobs = view.in_the_way(*index, *gpu);
        asked.extend(jobs.iter().filter(|job| job.may_requeue()).map(|job| job.id));
    }
    asked.sort_unstable();
    asked.dedup();
    for some in asked.chunks(MAX_TARGETS) {
        let targets = some.iter().map(|id| Target::Job(*id)).collect();
        changed.execute(now, Command::Requeue { caller: ADMIN, targets, hold: false })?;
    }
    changed.end_at_once(&asked);
    let after = forecast(&changed, now, u32::MAX, Limits::default());
    let again = |id: JobId| after.place(Unit::Job(id)).map(|place| place.start);
    let plan = |(index, (node, gpu)): (&NodeIndex, &DrainTarget)| {
        plan_of(&view, now, (*index, node, *gpu), deadline, &again)
    };
    Ok(places.iter().zip(targets).map(plan).collect())
}

fn plan_of(
    view: &Cluster,
    now: Timestamp,
    (index, node, gpu): (NodeIndex, &NodeName, Option<u32>),
    deadline: Option<Timestamp>,
    again: &impl Fn(JobId) -> Option<Timestamp>,
) -> DrainPlan {
    let mut jobs: Vec<InTheWay> = view
        .in_the_way(index, gpu)
        .iter()
        .map(|job| {
            let ends = job.ends_by(now);
            InTheWay {
                job: job.id,
                uid: job.uid,
                ends,
                requeue: job.may_requeue(),
                again: job.may_requeue().then(|| again(job.id)).flatten(),
                too_long: deadline.is_some_and(|at| ends.is_none_or(|end| end > at)),
            }
        })
        .collect();
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.ends.unwrap_or(Timestamp::MAX)), job.job));
    let last = jobs.iter().map(|job| job.ends.unwrap_or(Timestamp::MAX)).max();
    let empty = last.map_or(now, |last| deadline.map_or(last, |at| last.min(at)));
    DrainPlan { node: node.clone(), gpu, empty: (empty < Timestamp::MAX).then_some(empty), jobs }
}

fn drain(
    cluster: &mut Cluster,
    now: Timestamp,
    node: &NodeName,
    gpu: Option<u32>,
) -> Result<(), Refusal> {
    let update = NodeUpdate {
        action: Some(NodeAction::Drain),
        gpus: gpu.into_iter().collect(),
        reason: "plan".into(),
        ..NodeUpdate::default()
    };
    let nodes = vec![node.clone()];
    cluster.execute(now, Command::UpdateNode(ADMIN, nodes, Box::new(update)))?;
    Ok(())
}
