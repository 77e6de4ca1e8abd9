//! Calls about order, plans and reservations.

use penstock_proto::v1;
use penstock_proto::v1::planning_server::Planning;
use tonic::{Request, Response, Status};

use super::service::Service;
use super::shared::Shared;
use crate::convert::reservation::reservation_to_wire;
use crate::identity::{Action, caller_of};

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
    let mut pending: u64 = cluster.arrays().map(|array| u64::from(array.pending.len())).sum();
    let mut running = 0u32;
    for job in cluster.jobs() {
        pending += u64::from(job.is_pending());
        running += u32::from(job.active_run().is_some());
    }
    reply.jobs_pending = u32::try_from(pending).unwrap_or(u32::MAX);
    reply.jobs_running = running;
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
    }))
}
