//! Calls about accounts, shares and reports.

use std::sync::Arc;

use penstock_core::accounts::{AccountChange, MAX_ACCOUNT_CHANGES};
use penstock_core::command::Caller as CoreCaller;
use penstock_core::model::Enforcement;
use penstock_core::{Cluster, Command, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::accounting_server::Accounting;
use penstock_vocab::Timestamp;
use tonic::{Request, Response, Status};

use super::forecasts::aside;
use super::jobs::part_of;
use super::service::Service;
use super::shared::Shared;
use super::status::{failed, refused};
use crate::convert::account_change::account_change;
use crate::convert::accounts::{account_to_wire, association_to_wire, qos_to_wire, user_to_wire};
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
    aside(move || {
        let view = View { cluster: &snapshot.cluster, plan: &plan };
        let mut past = |query: &HistoryQuery, each: &mut dyn FnMut(bytes::Bytes)| {
            shared.history.query(query, each)
        };
        listing::report_usage(&view, &message, &mut past).map_err(|error| match error {
            ListError::Refused(refusal) => refused(&refusal),
            other => Status::internal(chain(&other)),
        })
    })
    .await
}

async fn change_accounts(
    shared: &Arc<Shared>,
    request: Request<v1::ChangeAccountsRequest>,
) -> Answer<v1::ChangeAccountsReply> {
    let caller = caller_of(&request)?.clone();
    // The cluster knows who may: admins, operators, and coordinators of the accounts concerned.
    let authority = shared.allow(&caller, Action::WriteAccounts)?;
    let message = request.into_inner();
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    // Names may have to be looked up, and a whole tree may come.
    let reader = Arc::clone(shared);
    let commands = aside(move || {
        let changes =
            read_changes(&reader, message.changes).map_err(|refusal| refused(&refusal))?;
        let commands = commands(&core, &changes);
        let mut cluster = reader.snapshot().cluster.clone();
        try_all(&mut cluster, reader.clock.now(), &commands)
            .map_err(|refusal| refused(&refusal))?;
        Ok(commands)
    });
    for command in commands.await?.into_inner() {
        shared.writer.execute(command).await.map_err(|error| failed(&error))?;
    }
    Ok(Response::new(v1::ChangeAccountsReply {}))
}

/// As many commands as are needed for these changes.
fn commands(core: &CoreCaller, changes: &[AccountChange]) -> Vec<Command> {
    let parts = (0u32..).zip(changes.chunks(MAX_ACCOUNT_CHANGES));
    let command = |(part, some): (u32, &[AccountChange])| {
        Command::Accounts(part_of(core, part), some.to_vec())
    };
    parts.map(command).collect()
}

/// Tries commands on a copy of the cluster, so that none is carried out where one is refused. A single
/// one is all or nothing by itself.
fn try_all(cluster: &mut Cluster, now: Timestamp, commands: &[Command]) -> Result<(), Refusal> {
    if commands.len() > 1 {
        for command in commands {
            cluster.execute(now, command.clone())?;
        }
    }
    Ok(())
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
    let mut changes = Vec::new();
    for mut change in asked {
        if let Some(v1::account_change::Change::PutUser(put)) = &mut change.change {
            put.uid = shared.users.uid_or(&put.name, put.uid);
        }
        changes.extend(account_change(change, snapshot.cluster.accounts())?);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use penstock_core::accounts::AssocSettings;
    use penstock_core::model::{Config, RequestId};
    use penstock_vocab::{GroupId, UserId};

    use super::*;

    fn add_account(name: &str, parent: &str) -> AccountChange {
        AccountChange::AddAccount {
            name: name.into(),
            parent: parent.into(),
            description: "".into(),
            organization: "".into(),
            settings: AssocSettings::default(),
        }
    }

    #[test]
    fn a_refusal_late_in_a_long_list_is_found_before_anything_changes() {
        let now = Timestamp(1);
        let core = CoreCaller { uid: UserId(0), gid: GroupId(0), admin: true, request: None };
        let mut list: Vec<_> = (0..200).map(|n| add_account(&format!("a{n}"), "")).collect();
        // One builds upon an account of an earlier part.
        list.push(add_account("below", "a0"));
        let good = commands(&core, &list);
        assert_eq!(good.len(), 3);
        let mut cluster = Cluster::new(Arc::new(Config::default()), now);
        assert_eq!(try_all(&mut cluster.clone(), now, &good), Ok(()));
        list.push(add_account("lost", "nowhere"));
        let refused = try_all(&mut cluster, now, &commands(&core, &list));
        assert!(refused.unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn parts_of_a_call_are_remembered_apart() {
        let request = Some(RequestId(7));
        let core = CoreCaller { uid: UserId(0), gid: GroupId(0), admin: true, request };
        let list: Vec<_> = (0..91).map(|n| add_account(&format!("a{n}"), "")).collect();
        let ids: Vec<_> =
            commands(&core, &list).iter().map(|part| part.caller().unwrap().request).collect();
        assert_eq!(ids, [Some(RequestId(7)), Some(RequestId(8))]);
    }
}
