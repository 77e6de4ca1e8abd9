//! Calls about accounts, shares and reports.

use std::sync::Arc;

use penstock_core::model::{Enforcement, UsageOwner};
use penstock_proto::v1;
use penstock_proto::v1::accounting_server::Accounting;
use tonic::{Request, Response, Status};

use super::service::Service;
use super::shared::Shared;
use super::status::refused;
use crate::convert::accounts::{
    account_to_wire, association_to_wire, qos_to_wire, user_to_wire,
};
use crate::identity::{Action, caller_of};
use crate::listing::{self, ListError, View};
use crate::store::HistoryQuery;
use crate::writer::chain;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Accounting for Service {
    async fn list_accounts(
        &self,
        r: Request<v1::ListAccountsRequest>,
    ) -> Answer<v1::ListAccountsReply> {
        list_accounts(&self.0, &r)
    }

    async fn change_accounts(
        &self,
        r: Request<v1::ChangeAccountsRequest>,
    ) -> Answer<v1::ChangeAccountsReply> {
        change_accounts(&self.0, r).await
    }

    async fn list_shares(&self, r: Request<v1::ListSharesRequest>) -> Answer<v1::ListSharesReply> {
        list_shares(&self.0, &r)
    }

    async fn report_usage(
        &self,
        r: Request<v1::ReportUsageRequest>,
    ) -> Answer<v1::ReportUsageReply> {
        report_usage(&self.0, r).await
    }
}

fn list_accounts(
    shared: &Shared,
    request: &Request<v1::ListAccountsRequest>,
) -> Answer<v1::ListAccountsReply> {
    shared.allow(caller_of(request)?, Action::ReadListing)?;
    let snapshot = shared.snapshot();
    let accounts = snapshot.cluster.accounts();
    let config = snapshot.cluster.config();
    Ok(Response::new(v1::ListAccountsReply {
        cluster: config.cluster.to_string(),
        accounts: accounts.all_accounts().map(|account| account_to_wire(account)).collect(),
        users: accounts.all_users().map(|user| user_to_wire(user)).collect(),
        associations: listing::in_tree_order(accounts)
            .into_iter()
            .map(|assoc| association_to_wire(assoc))
            .collect(),
        qos: accounts.all_qos().map(|qos| qos_to_wire(qos)).collect(),
        tres: listing::tres_kinds(&snapshot.cluster),
        enforce: match config.scheduling.enforce {
            Enforcement::None => "none",
            Enforcement::Safe => "safe",
            Enforcement::Strict => "strict",
        }
        .to_owned(),
    }))
}

async fn report_usage(
    shared: &Arc<Shared>,
    request: Request<v1::ReportUsageRequest>,
) -> Answer<v1::ReportUsageReply> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let (snapshot, plan) = (shared.snapshot(), shared.plan());
    let shared = Arc::clone(shared);
    let made = tokio::task::spawn_blocking(move || {
        let view = View { cluster: &snapshot.cluster, plan: &plan };
        let mut past = |query: &HistoryQuery, each: &mut dyn FnMut(bytes::Bytes)| {
            shared.history.query(query, each)
        };
        listing::report_usage(&view, &message, &mut past)
    });
    match made.await {
        Ok(Ok(reply)) => Ok(Response::new(reply)),
        Ok(Err(ListError::Refused(refusal))) => Err(refused(&refusal)),
        Ok(Err(other)) => Err(Status::internal(chain(&other))),
        Err(_) => Err(Status::internal("the report broke off; this is a bug")),
    }
}
