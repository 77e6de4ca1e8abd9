//! What would draining nodes, or some of their GPUs, come to?

use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::command::Unit;
use penstock_core::explain::{Change, DrainPlan, DrainTarget, InTheWay, drain_plan, what_if};
use penstock_proto::v1;
use penstock_vocab::{NodeName, Timestamp};
use tonic::{Request, Response, Status};

use super::explained::{user_of, what_if_to_wire};
use super::shared::Shared;
use super::status::refused;
use crate::convert::update::gpu_list;
use crate::identity::{Action, caller_of};
use crate::listing::shown_id;

/// Most nodes times GPUs that one question is about.
const MAX_PLACES: usize = 1_024;

pub(super) async fn plan(
    shared: &Arc<Shared>,
    request: Request<v1::PlanDrainRequest>,
) -> Result<Response<v1::PlanDrainReply>, Status> {
    let caller = caller_of(&request)?.clone();
    shared.allow(&caller, Action::ReadListing)?;
    let message = request.into_inner();
    let nodes = nodes_of(&message.nodes)?;
    let gpus = gpu_list(&message.gres).map_err(|refusal| refused(&refusal))?;
    let whole = gpus.is_empty();
    let targets: Vec<DrainTarget> = if whole {
        nodes.iter().map(|node| (node.clone(), None)).collect()
    } else {
        let each = |node: &NodeName| {
            let node = node.clone();
            gpus.iter().map(move |gpu| (node.clone(), Some(*gpu)))
        };
        nodes.iter().flat_map(each).collect()
    };
    if targets.len() > MAX_PLACES {
        let text = format!("{} places at once, at most {MAX_PLACES}", targets.len());
        return Err(Status::invalid_argument(text));
    }
    let deadline = (message.deadline_ms != 0).then_some(Timestamp(message.deadline_ms));
    let asker = Arc::clone(shared);
    let make = move || {
        let (snapshot, now) = (asker.snapshot(), asker.clock.now());
        let cluster = &snapshot.cluster;
        let plans = drain_plan(cluster, now, &targets, deadline).map_err(|it| refused(&it))?;
        let waiting = if whole {
            let found = what_if(cluster, now, Change::Drain(nodes)).map_err(|it| refused(&it))?;
            Some(what_if_to_wire(cluster, &found, (caller.uid, "")))
        } else {
            None
        };
        let places = plans.iter().map(|plan| place_to_wire(cluster, plan)).collect();
        Ok(v1::PlanDrainReply { places, waiting, now_ms: now.0 })
    };
    shared.forecasts.run(make).await
}

fn nodes_of(text: &str) -> Result<Vec<NodeName>, Status> {
    let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
    let names = penstock_vocab::expand_unique(text).map_err(|error| invalid(&error))?;
    if names.is_empty() {
        return Err(Status::invalid_argument("no node is named"));
    }
    names.iter().map(|name| NodeName::new(name).map_err(|error| invalid(&error))).collect()
}

fn place_to_wire(cluster: &Cluster, plan: &DrainPlan) -> v1::DrainPlace {
    v1::DrainPlace {
        node: plan.node.to_string(),
        gpu: plan.gpu,
        empty_ms: plan.empty.map_or(0, |at| at.0),
        jobs: plan.jobs.iter().map(|job| job_to_wire(cluster, job)).collect(),
    }
}

fn job_to_wire(cluster: &Cluster, job: &InTheWay) -> v1::DrainJob {
    let unit = Unit::Job(job.job);
    let run = cluster.job(job.job).and_then(|job| job.active_run());
    v1::DrainJob {
        job: shown_id(cluster, unit),
        user: user_of(cluster, unit, job.uid.0),
        end_ms: job.ends.map_or(0, |at| at.0),
        may_requeue: job.requeue,
        again_ms: job.again.map_or(0, |at| at.0),
        too_long: job.too_long,
        partition: run.map_or_else(String::new, |run| run.partition.to_string()),
    }
}
