//! Calls about order, plans and reservations.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use penstock_core::command::{ReservationChange, Target, Unit};
use penstock_core::explain::Change;
use penstock_core::{Cluster, Command, Refusal, Reply};
use penstock_proto::v1;
use penstock_proto::v1::planning_server::Planning;
use penstock_vocab::{ArrayTaskId, JobId, NodeName, Timestamp};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::forecasts::aside;
use super::service::Service;
use super::shared::Shared;
use super::status::{failed, refused};
use super::{accounting, drain, explained, jobs};
use crate::config::policy_over;
use crate::convert::reservation::reservation_to_wire;
use crate::convert::reservation_change::{ReservationContext, reservation_change};
use crate::convert::wire;
use crate::identity::{Action, Authority, Caller, caller_of};
use crate::listing;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Planning for Service {
    async fn list_priorities(
        &self,
        r: Request<v1::ListPrioritiesRequest>,
    ) -> Answer<v1::ListPrioritiesReply> {
        list_priorities(&self.0, r).await
    }

    async fn diagnose(&self, r: Request<v1::DiagnoseRequest>) -> Answer<v1::DiagnoseReply> {
        diagnose(&self.0, &r)
    }

    async fn explain(&self, r: Request<v1::ExplainRequest>) -> Answer<v1::ExplainReply> {
        explain(&self.0, r).await
    }

    async fn what_if(&self, r: Request<v1::WhatIfRequest>) -> Answer<v1::WhatIfReply> {
        what_if(&self.0, r).await
    }

    async fn plan_drain(&self, r: Request<v1::PlanDrainRequest>) -> Answer<v1::PlanDrainReply> {
        drain::plan(&self.0, r).await
    }

    async fn list_reservations(
        &self,
        r: Request<v1::ListReservationsRequest>,
    ) -> Answer<v1::ListReservationsReply> {
        list_reservations(&self.0, &r)
    }

    async fn change_reservation(
        &self,
        r: Request<v1::ChangeReservationRequest>,
    ) -> Answer<v1::ChangeReservationReply> {
        change_reservation(&self.0, r).await
    }

    async fn checkpoint_done(
        &self,
        r: Request<v1::CheckpointDoneRequest>,
    ) -> Answer<v1::CheckpointDoneReply> {
        checkpoint_done(&self.0, r).await
    }
}

fn diagnose(shared: &Shared, request: &Request<v1::DiagnoseRequest>) -> Answer<v1::DiagnoseReply> {
    let caller = caller_of(request)?;
    if request.get_ref().reset {
        shared.allow(caller, Action::AdminAct { what: "reset the statistics" })?;
        shared.statistics.reset(shared.clock.now());
    } else {
        shared.allow(caller, Action::ReadListing)?;
    }
    let snapshot = shared.snapshot();
    let cluster = &snapshot.cluster;
    let mut reply = shared.statistics.report();
    reply.now_ms = shared.clock.now().0;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    reply.nodes = count(cluster.node_count());
    reply.agents_connected =
        count(cluster.nodes().filter(|(_, node, _)| node.session.is_some()).count());
    reply.queued_commands = count(shared.writer.waiting());
    let mut pending: u64 = cluster.arrays().map(|array| array.pending.len()).sum();
    let mut running = 0u32;
    for job in cluster.jobs() {
        pending += u64::from(job.is_pending());
        running += u32::from(job.active_run().is_some());
    }
    reply.jobs_pending = u32::try_from(pending).unwrap_or(u32::MAX);
    reply.jobs_running = running;
    let plan = shared.plan();
    let stats = &plan.stats;
    reply.last_queue_length = stats.waiting;
    reply.last_classes = stats.classes;
    reply.last_depth = stats.tried;
    reply.last_reservations = stats.reservations;
    reply.last_work = u64::from(stats.tests) + u64::from(stats.searches) + stats.nodes;
    reply.backfilled_last = u64::from(stats.backfilled);
    reply.last_plan_ms = plan.made_at.0;
    Ok(Response::new(reply))
}

fn list_reservations(
    shared: &Shared,
    request: &Request<v1::ListReservationsRequest>,
) -> Answer<v1::ListReservationsReply> {
    shared.allow(caller_of(request)?, Action::ReadListing)?;
    let snapshot = shared.snapshot();
    let reservations = snapshot.cluster.reservations();
    Ok(Response::new(v1::ListReservationsReply {
        reservations: reservations.map(|found| reservation_to_wire(found)).collect(),
        now_ms: shared.clock.now().0,
        licenses: licenses(&snapshot.cluster, shared.clock.now()),
    }))
}

fn licenses(cluster: &Cluster, now: Timestamp) -> Vec<v1::LicenseInfo> {
    let names = cluster.config().scheduling.licenses.keys();
    let info = |name: &str| {
        let (total, used) = (cluster.licenses_total(name), cluster.licenses_in_use(name));
        // What is kept by reservations is what is neither used nor to be had.
        let left = cluster.licenses_left(name, now, now.plus_secs(1), None);
        let reserved = total.saturating_sub(used).saturating_sub(left);
        v1::LicenseInfo { name: name.to_owned(), total, used, reserved }
    };
    names.map(|name| info(name)).collect()
}

/// The waiting units that selectors mean; all, if there are none.
fn units_of(cluster: &Cluster, selectors: &[String]) -> Result<Vec<Unit>, Status> {
    let arrays = cluster.arrays().map(|array| Unit::Array(array.id));
    let jobs = cluster.jobs().filter(|job| job.is_pending()).map(|job| Unit::Job(job.id));
    if selectors.is_empty() {
        return Ok(jobs.chain(arrays).collect());
    }
    let targets = wire::selectors(selectors).map_err(|refusal| refused(&refusal))?;
    Ok(targets.iter().flat_map(|target| units_meant(cluster, target)).collect())
}

fn units_meant(cluster: &Cluster, target: &Target) -> Vec<Unit> {
    match target {
        Target::Job(id) | Target::Step(id, _) => vec![Unit::Job(*id)],
        Target::Waiting(id) => vec![Unit::Array(*id)],
        Target::Id(id) => {
            let rest = cluster.array(*id).filter(|array| !array.pending.is_empty());
            let rest = rest.map(|_| Unit::Array(*id));
            let job = cluster.job(*id).map(|_| Unit::Job(*id));
            let tasks = cluster.tasks_of(*id).map(|task| Unit::Job(task.id));
            rest.into_iter().chain(job).chain(tasks).collect()
        }
        Target::Tasks(base, tasks) => {
            let records = tasks.iter().filter_map(|index| cluster.task(*base, ArrayTaskId(index)));
            let records = records.map(|task| Unit::Job(task.id));
            let waits = cluster
                .array(*base)
                .is_some_and(|array| !array.pending.intersection(tasks).is_empty());
            records.chain(waits.then_some(Unit::Array(*base))).collect()
        }
    }
}

async fn list_priorities(
    shared: &Arc<Shared>,
    request: Request<v1::ListPrioritiesRequest>,
) -> Answer<v1::ListPrioritiesReply> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let (snapshot, now) = (shared.snapshot(), shared.clock.now());
    aside(move || {
        let units = units_of(&snapshot.cluster, &message.selectors)?;
        Ok(listing::list_priorities(&snapshot.cluster, units.into_iter(), now))
    })
    .await
}

async fn explain(
    shared: &Arc<Shared>,
    request: Request<v1::ExplainRequest>,
) -> Answer<v1::ExplainReply> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let (snapshot, plan, now) = (shared.snapshot(), shared.plan(), shared.clock.now());
    let make = move || {
        let cluster = &snapshot.cluster;
        let target = wire::selector(&message.selector).map_err(|refusal| refused(&refusal))?;
        let unit = units_meant(cluster, &target).into_iter().next();
        let unit = unit.ok_or_else(|| refused(&Refusal::InvalidJobId(target.id())))?;
        let found = penstock_core::explain::explain(cluster, &plan, now, unit)
            .map_err(|refusal| refused(&refusal))?;
        let mut reply = explained::explanation_to_wire(cluster, &found);
        reply.priority = listing::priority_row(cluster, unit, now);
        if message.suggest && !found.gates.is_empty() {
            let suggestions = penstock_core::explain::suggest(cluster, now, unit);
            reply.suggestions = suggestions.iter().map(explained::suggestion_to_wire).collect();
        }
        Ok(reply)
    };
    shared.forecasts.run(make).await
}

async fn what_if(
    shared: &Arc<Shared>,
    request: Request<v1::WhatIfRequest>,
) -> Answer<v1::WhatIfReply> {
    let caller = caller_of(&request)?.clone();
    shared.allow(&caller, Action::ReadListing)?;
    let message = request.into_inner();
    let change = message.change.ok_or_else(|| Status::invalid_argument("what if what?"))?;
    let asker = Arc::clone(shared);
    let make = move || {
        let (snapshot, now) = (asker.snapshot(), asker.clock.now());
        let cluster = &snapshot.cluster;
        let change = read_change(&asker, cluster, &caller, change)?;
        let found = penstock_core::explain::what_if(cluster, now, change)
            .map_err(|refusal| refused(&refusal))?;
        let name = asker.users.user_or(caller.uid, "");
        Ok(explained::what_if_to_wire(cluster, &found, (caller.uid, &name)))
    };
    shared.forecasts.run(make).await
}

fn read_change(
    shared: &Shared,
    cluster: &Cluster,
    caller: &Caller,
    change: v1::what_if_request::Change,
) -> Result<Change, Status> {
    let invalid = |error: &dyn Display| Status::invalid_argument(error.to_string());
    // Nothing happens, so who asks may suppose whatever an admin could do, and jobs as its own.
    let mut core = shared.core_caller(caller, Authority::Admin, &[])?;
    Ok(match change {
        v1::what_if_request::Change::Submit(spec) => {
            core.admin = false;
            let submission = jobs::submission_to_try(shared, caller, spec)
                .map_err(|refusal| refused(&refusal))?;
            Change::Submit(core, Box::new(submission))
        }
        v1::what_if_request::Change::Drain(drain) => {
            let names =
                penstock_vocab::expand_unique(&drain.nodes).map_err(|error| invalid(&error))?;
            let names: Result<_, _> = names.iter().map(|name| NodeName::new(name)).collect();
            Change::Drain(names.map_err(|error| invalid(&error))?)
        }
        v1::what_if_request::Change::Limit(limit) => {
            let asked = v1::ChangeAccountsRequest::decode(limit.account_change)
                .map_err(|error| invalid(&error))?;
            let changes = accounting::read_changes(shared, asked.changes)
                .map_err(|refusal| refused(&refusal))?;
            Change::Accounts(core, changes)
        }
        v1::what_if_request::Change::Weights(weights) => {
            let now = cluster.config().scheduling.clone();
            let policy = policy_over(now, Path::new("policy"), &weights.toml);
            Change::Scheduling(Box::new(policy.map_err(|problems| {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                invalid(&lines.join("\n"))
            })?))
        }
    })
}

async fn change_reservation(
    shared: &Shared,
    request: Request<v1::ChangeReservationRequest>,
) -> Answer<v1::ChangeReservationReply> {
    let caller = caller_of(&request)?.clone();
    let authority = shared.allow(&caller, Action::AdminAct { what: "change reservations" })?;
    let message = request.into_inner();
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    let change = message.change.unwrap_or_default();
    let name = change.name.clone();
    let change = read_reservation(shared, change).map_err(|refusal| refused(&refusal))?;
    let reply = shared.writer.execute(Command::Reservation(core, change)).await;
    match reply.map_err(|error| failed(&error))? {
        Reply::Reserved(name) => {
            Ok(Response::new(v1::ChangeReservationReply { name: name.to_string() }))
        }
        _ => Ok(Response::new(v1::ChangeReservationReply { name })),
    }
}

fn read_reservation(
    shared: &Shared,
    change: v1::ReservationChange,
) -> Result<ReservationChange, Refusal> {
    let snapshot = shared.snapshot();
    let known = ReservationContext {
        cluster: &snapshot.cluster,
        uid: &|name| shared.users.uid(name),
        zone: &jiff::tz::TimeZone::system(),
    };
    reservation_change(change, &known)
}

async fn checkpoint_done(
    shared: &Shared,
    request: Request<v1::CheckpointDoneRequest>,
) -> Answer<v1::CheckpointDoneReply> {
    let caller = caller_of(&request)?.clone();
    let authority = shared.allow(&caller, Action::WriteJob { owner_uid: caller.uid })?;
    let message = request.into_inner();
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    let command = Command::CheckpointDone(core, JobId(message.job_id));
    shared.writer.execute(command).await.map_err(|error| failed(&error))?;
    Ok(Response::new(v1::CheckpointDoneReply {}))
}
