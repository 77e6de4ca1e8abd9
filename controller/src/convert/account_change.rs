//! What does a message ask to change about accounts, in the core's terms?

use penstock_core::accounts::{
    AccountChange, AssocSettings, EditMode, FlagEdit, Limit, LimitEdit, ListEdit, Place,
    QosSettings,
};
use penstock_core::cluster::Accounts;
use penstock_core::model::{PreemptMode, QosFlag, Shares};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::account_change as wire;
use penstock_vocab::{PartitionName, TresKind, UserId};

use super::accounts::{admin_level_from, boxed};
use super::bounds::malformed;

fn wrong(detail: impl ToString) -> Refusal {
    malformed(Malformed::Other, detail.to_string())
}

/// Reads one change against the accounts as they are; usage that is to be reset comes as a change of
/// its own after it.
///
/// # Errors
/// If a name, a limit or a word can't be one.
pub fn account_change(
    change: v1::AccountChange,
    accounts: &Accounts,
) -> Result<Vec<AccountChange>, Refusal> {
    let change = change.change.ok_or_else(|| wrong("a change of accounts says nothing"))?;
    Ok(match change {
        wire::Change::PutAccount(put) => put_account(put)?,
        wire::Change::DeleteAccount(name) => vec![AccountChange::DeleteAccount(name.into())],
        wire::Change::PutUser(put) => vec![put_user(put, accounts)?],
        wire::Change::DeleteUser(name) => vec![AccountChange::DeleteUser(name.into())],
        wire::Change::PutAssociation(put) => put_association(put)?,
        wire::Change::DeleteAssociation(at) => vec![match at.user.is_empty() {
            true => AccountChange::DeleteAccount(at.account.into()),
            false => AccountChange::DeleteAssoc(place(at.account, at.user, &at.partition)?),
        }],
        wire::Change::PutQos(put) => put_qos(put)?,
        wire::Change::DeleteQos(name) => vec![AccountChange::DeleteQos(name.into())],
        wire::Change::Coordinator(change) => {
            let (account, users) = (change.account.into(), vec![change.user.into()]);
            vec![match change.remove {
                true => AccountChange::RemoveCoordinators(account, users),
                false => AccountChange::AddCoordinators(account, users),
            }]
        }
    })
}

fn put_account(put: wire::PutAccount) -> Result<Vec<AccountChange>, Refusal> {
    let edit = put.edit.unwrap_or_default();
    let reset = edit.reset_usage;
    let settings = assoc_settings(edit)?;
    let name: Box<str> = put.name.into();
    let mut changes = vec![match put.create {
        true => AccountChange::AddAccount {
            name: name.clone(),
            parent: put.parent.unwrap_or_default().into(),
            description: put.description.unwrap_or_default().into(),
            organization: put.organization.unwrap_or_default().into(),
            settings,
        },
        false => AccountChange::ModifyAccount {
            name: name.clone(),
            parent: put.parent.map(Into::into),
            description: put.description.map(Into::into),
            organization: put.organization.map(Into::into),
            settings,
        },
    }];
    changes.extend(reset.then_some(AccountChange::ResetAccountUsage(name)));
    Ok(changes)
}

/// Users are made where they do not exist: sacctmgr names them together with their first account.
fn put_user(put: wire::PutUser, accounts: &Accounts) -> Result<AccountChange, Refusal> {
    let uid = put.uid.map(UserId);
    let admin_level = put.admin_level.map(admin_level_from).transpose().map_err(wrong)?;
    let default_account = put.default_account.map(Into::into);
    let recorded = accounts.user(&put.name.to_lowercase()).is_some();
    let name = put.name.into();
    Ok(if recorded {
        AccountChange::ModifyUser { name, uid, default_account, admin_level }
    } else {
        AccountChange::AddUser {
            name,
            uid,
            default_account: default_account.unwrap_or_default(),
            admin_level: admin_level.unwrap_or_default(),
        }
    })
}

fn put_association(put: wire::PutAssociation) -> Result<Vec<AccountChange>, Refusal> {
    let edit = put.edit.unwrap_or_default();
    let reset = edit.reset_usage;
    let settings = assoc_settings(edit)?;
    if put.user.is_empty() {
        let name: Box<str> = put.account.into();
        let mut changes = vec![AccountChange::ModifyAccount {
            name: name.clone(),
            parent: None,
            description: None,
            organization: None,
            settings,
        }];
        changes.extend(reset.then_some(AccountChange::ResetAccountUsage(name)));
        return Ok(changes);
    }
    let place = place(put.account, put.user, &put.partition)?;
    let mut changes = vec![match put.create {
        true => AccountChange::AddAssoc(place.clone(), settings),
        false => AccountChange::ModifyAssoc(place.clone(), settings),
    }];
    changes.extend(reset.then_some(AccountChange::ResetAssocUsage(place)));
    Ok(changes)
}

fn place(account: String, user: String, partition: &str) -> Result<Place, Refusal> {
    let partition = match partition {
        "" => None,
        name => Some(PartitionName::new(name).map_err(|_| Refusal::InvalidPartition(name.into()))?),
    };
    Ok(Place { account: account.into(), user: user.into(), partition })
}

fn assoc_settings(edit: v1::AssociationEdit) -> Result<AssocSettings, Refusal> {
    Ok(AssocSettings {
        shares: match (edit.parent_shares, edit.shares) {
            (true, _) => Some(Shares::Parent),
            (false, shares) => shares.map(Shares::Raw),
        },
        priority: edit.priority,
        limits: limits(edit.limits)?,
        qos: edit.qos.map(list_edit).transpose()?.flatten(),
        default_qos: edit.default_qos.map(Into::into),
    })
}

/// A list is set, or added to, or taken from; one message does one of the three.
fn list_edit(edit: v1::NameListEdit) -> Result<Option<ListEdit>, Refusal> {
    let some = |mode, names: Vec<String>| Some(ListEdit { mode, names: boxed(names).into_vec() });
    Ok(match (edit.inherit, edit.set, edit.add.is_empty(), edit.remove.is_empty()) {
        (true, None, true, true) => some(EditMode::Set, Vec::new()),
        (false, Some(list), true, true) => some(EditMode::Set, list.names),
        (false, None, false, true) => some(EditMode::Add, edit.add),
        (false, None, true, false) => some(EditMode::Remove, edit.remove),
        (false, None, true, true) => None,
        _ => return Err(wrong("a list is either set, or added to, or taken from")),
    })
}

fn put_qos(put: wire::PutQos) -> Result<Vec<AccountChange>, Refusal> {
    let flags = match put.flags.map(list_edit).transpose()?.flatten() {
        None => None,
        Some(ListEdit { mode, names }) => {
            let flag = |name: &str| {
                QosFlag::parse(name).ok_or_else(|| wrong(format!("{name:?} is no flag of a QOS")))
            };
            Some(FlagEdit {
                mode,
                flags: names.iter().map(|name| flag(name)).collect::<Result<_, _>>()?,
            })
        }
    };
    let preempt_mode = match put.preempt_mode.as_deref() {
        None => None,
        Some(word) if word.eq_ignore_ascii_case("cluster") => Some(None),
        Some(word) => Some(Some(
            PreemptMode::parse(word)
                .ok_or_else(|| wrong(format!("{word:?} is no mode of preemption")))?,
        )),
    };
    let exempt = |secs: i64| u32::try_from(secs).ok();
    let factor = |value: i64| u64::try_from(value).ok();
    let settings = QosSettings {
        description: put.description.map(Into::into),
        priority: put.priority,
        flags,
        grace_secs: put.grace_secs,
        preempt: put.preempt.map(list_edit).transpose()?.flatten(),
        preempt_mode,
        preempt_exempt_secs: put.preempt_exempt_secs.map(exempt),
        usage_factor: put
            .usage_factor
            .map(|value| factor(value).unwrap_or(penstock_core::model::ONE_MILLIONTHS)),
        usage_threshold: put.usage_threshold.map(factor),
        limit_factor: put.limit_factor.map(factor),
        limits: limits(put.limits)?,
    };
    let name: Box<str> = put.name.into();
    let mut changes = vec![match put.create {
        true => AccountChange::AddQos(name.clone(), Box::new(settings)),
        false => AccountChange::ModifyQos(name.clone(), Box::new(settings)),
    }];
    changes.extend(put.reset_usage.then_some(AccountChange::ResetQosUsage(name)));
    Ok(changes)
}

fn limits(edit: Option<v1::LimitEdit>) -> Result<Vec<LimitEdit>, Refusal> {
    let edit = edit.unwrap_or_default();
    let mut limits = Vec::new();
    for amounts in edit.amounts {
        for amount in amounts.set {
            let limit = tres_limit(&amounts.limit, kind(&amount.kind)?)?;
            limits.push(LimitEdit { limit, value: Some(amount.count) });
        }
        for name in amounts.clear {
            let limit = tres_limit(&amounts.limit, kind(&name)?)?;
            limits.push(LimitEdit { limit, value: None });
        }
    }
    for number in edit.numbers {
        let limit = number_limit(&number.limit)?;
        limits.push(LimitEdit { limit, value: number.value.map(u64::from) });
    }
    Ok(limits)
}

fn kind(text: &str) -> Result<TresKind, Refusal> {
    text.parse().map_err(wrong)
}

fn tres_limit(name: &str, kind: TresKind) -> Result<Limit, Refusal> {
    Ok(match name {
        "GrpTRES" => Limit::GrpTres(kind),
        "GrpTRESMins" => Limit::GrpTresMins(kind),
        "GrpTRESRunMins" => Limit::GrpTresRunMins(kind),
        "MaxTRESPerJob" => Limit::MaxTres(kind),
        "MaxTRESPerNode" => Limit::MaxTresPerNode(kind),
        "MaxTRESMinsPerJob" => Limit::MaxTresMins(kind),
        "MaxTRESPerUser" => Limit::MaxTresPerUser(kind),
        "MaxTRESPerAccount" => Limit::MaxTresPerAccount(kind),
        "MinTRESPerJob" => Limit::MinTres(kind),
        "Guaranteed" => Limit::Guaranteed(kind),
        _ => return Err(wrong(format!("{name:?} is no limit on TRES"))),
    })
}

fn number_limit(name: &str) -> Result<Limit, Refusal> {
    Ok(match name {
        "GrpJobs" => Limit::GrpJobs,
        "GrpJobsAccrue" => Limit::GrpJobsAccrue,
        "GrpSubmitJobs" => Limit::GrpSubmitJobs,
        "GrpWall" => Limit::GrpWall,
        "MaxJobs" => Limit::MaxJobs,
        "MaxJobsAccrue" => Limit::MaxJobsAccrue,
        "MaxSubmitJobs" => Limit::MaxSubmitJobs,
        "MaxWallDurationPerJob" => Limit::MaxWall,
        "MaxJobsPerUser" => Limit::MaxJobsPerUser,
        "MaxJobsPerAccount" => Limit::MaxJobsPerAccount,
        "MaxSubmitJobsPerUser" => Limit::MaxSubmitJobsPerUser,
        "MaxSubmitJobsPerAccount" => Limit::MaxSubmitJobsPerAccount,
        "MaxJobsAccruePerUser" => Limit::MaxJobsAccruePerUser,
        "MaxJobsAccruePerAccount" => Limit::MaxJobsAccruePerAccount,
        _ => return Err(wrong(format!("{name:?} is no limit"))),
    })
}
