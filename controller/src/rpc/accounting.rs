//! Calls about accounts, shares and reports.

use std::sync::Arc;

use penstock_core::accounts::AccountChange;
use penstock_core::command::Caller as CoreCaller;
use penstock_core::model::Enforcement;
use penstock_core::{Command, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::accounting_server::Accounting;
use tonic::{Request, Response, Status};

use super::service::Service;
use super::shared::Shared;
use super::status::{failed, refused};
use crate::convert::account_change::{KnownUsers, account_change};
use crate::convert::accounts::{account_to_wire, association_to_wire, qos_to_wire, user_to_wire};
use crate::identity::{Action, caller_of};
use crate::listing::{self, ListError, View};
use crate::store::HistoryQuery;
use crate::writer::chain;

/// Changes of one command.
const MAX_CHANGES: usize = 90;

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

async fn change_accounts(
    shared: &Shared,
    request: Request<v1::ChangeAccountsRequest>,
) -> Answer<v1::ChangeAccountsReply> {
    let caller = caller_of(&request)?.clone();
    // The cluster knows who may: admins, operators, and coordinators of the accounts concerned.
    let authority = shared.allow(&caller, Action::WriteAccounts)?;
    let message = request.into_inner();
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    let changes = read_changes(shared, message.changes).map_err(|refusal| refused(&refusal))?;
    for (part, some) in (0u32..).zip(changes.chunks(MAX_CHANGES)) {
        let core = CoreCaller { request: core.request.map(|id| id.part(part)), ..core };
        let command = Command::Accounts(core, some.to_vec());
        shared.writer.execute(command).await.map_err(|error| failed(&error))?;
    }
    Ok(Response::new(v1::ChangeAccountsReply {}))
}

fn list_shares(
    shared: &Shared,
    request: &Request<v1::ListSharesRequest>,
) -> Answer<v1::ListSharesReply> {
    shared.allow(caller_of(request)?, Action::ReadListing)?;
    let snapshot = shared.snapshot();
    Ok(Response::new(listing::list_shares(&snapshot.cluster, shared.clock.now())))
}

/// Changes as the core takes them, read against the accounts as they are.
pub(super) fn read_changes(
    shared: &Shared,
    asked: Vec<v1::AccountChange>,
) -> Result<Vec<AccountChange>, Refusal> {
    let snapshot = shared.snapshot();
    let recorded = |name: &str| snapshot.cluster.accounts().user(name).is_some();
    let uid = |name: &str| shared.users.uid(name);
    let users = KnownUsers { recorded: &recorded, uid: &uid };
    let mut changes = Vec::new();
    for change in asked {
        changes.extend(account_change(change, &users)?);
    }
    Ok(changes)
}
