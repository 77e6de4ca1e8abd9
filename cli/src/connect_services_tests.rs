//! The services for accounts and plans, behind the same socket.

use std::sync::{Arc, Mutex};

use penstock_proto::v1::accounting_server::{Accounting, AccountingServer};
use penstock_proto::v1::planning_server::{Planning, PlanningServer};
use tonic::Request;

use super::*;

/// Is busy at the first change, and keeps the ids of all.
#[derive(Debug, Clone, Default)]
struct Standin {
    ids: Arc<Mutex<Vec<Bytes>>>,
}

fn answer<T: Default>() -> Result<Response<T>, Status> {
    Ok(Response::new(T::default()))
}

#[tonic::async_trait]
impl Accounting for Standin {
    async fn list_accounts(
        &self,
        _request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsReply>, Status> {
        let cluster = "bench".to_owned();
        Ok(Response::new(v1::ListAccountsReply { cluster, ..v1::ListAccountsReply::default() }))
    }

    async fn change_accounts(
        &self,
        request: Request<v1::ChangeAccountsRequest>,
    ) -> Result<Response<v1::ChangeAccountsReply>, Status> {
        let mut ids = self.ids.lock().expect("not poisoned");
        ids.push(request.into_inner().request_id);
        if ids.len() == 1 { Err(Status::unavailable("starting")) } else { answer() }
    }

    async fn list_shares(
        &self,
        _request: Request<v1::ListSharesRequest>,
    ) -> Result<Response<v1::ListSharesReply>, Status> {
        answer()
    }

    async fn report_usage(
        &self,
        _request: Request<v1::ReportUsageRequest>,
    ) -> Result<Response<v1::ReportUsageReply>, Status> {
        answer()
    }
}

macro_rules! planning {
    ($($name:ident($request:ident) -> $reply:ident;)+) => {
        #[tonic::async_trait]
        impl Planning for Standin {
            async fn explain(
                &self,
                request: Request<v1::ExplainRequest>,
            ) -> Result<Response<v1::ExplainReply>, Status> {
                let job = request.into_inner().selector;
                Ok(Response::new(v1::ExplainReply { job, ..v1::ExplainReply::default() }))
            }

            $(async fn $name(
                &self,
                _request: Request<v1::$request>,
            ) -> Result<Response<v1::$reply>, Status> {
                answer()
            })+
        }
    };
}

planning! {
    list_priorities(ListPrioritiesRequest) -> ListPrioritiesReply;
    diagnose(DiagnoseRequest) -> DiagnoseReply;
    what_if(WhatIfRequest) -> WhatIfReply;
    plan_drain(PlanDrainRequest) -> PlanDrainReply;
    list_reservations(ListReservationsRequest) -> ListReservationsReply;
    change_reservation(ChangeReservationRequest) -> ChangeReservationReply;
    checkpoint_done(CheckpointDoneRequest) -> CheckpointDoneReply;
}

#[test]
fn accounts_and_plans_are_asked_through_the_same_socket() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let socket = dir.path().join("socket");
    let standin = Standin::default();
    let served = standin.clone();
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    listener.set_nonblocking(true).expect("set");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("listener");
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(AccountingServer::new(served.clone()))
                .add_service(PlanningServer::new(served))
                .serve_with_incoming(incoming)
                .await
                .expect("served");
        });
    });
    let client = Client::at(socket).expect("runtime");
    let tree = client.accounting(Patience::READ, |mut rpc| async move {
        rpc.list_accounts(v1::ListAccountsRequest {}).await
    });
    assert_eq!(tree.map(|tree| tree.cluster), Ok("bench".to_owned()));
    let request = v1::ExplainRequest { selector: "12_3".into(), suggest: true };
    let told = client.planning(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.explain(request).await }
    });
    assert_eq!(told.map(|told| told.job), Ok("12_3".to_owned()));
    let request = v1::ChangeAccountsRequest { request_id: request_id(), changes: Vec::new() };
    let changed = client.accounting(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.change_accounts(request).await }
    });
    assert!(changed.is_ok());
    let ids = standin.ids.lock().expect("not poisoned");
    assert_eq!(*ids, [request.request_id.clone(), request.request_id]);
}
