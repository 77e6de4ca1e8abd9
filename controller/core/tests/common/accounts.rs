//! Changes of accounts in few words.

use penstock_core::accounts::{
    AccountChange, AccountEffect, AssocSettings, EditMode, Limit, LimitEdit, ListEdit, Place,
    QosSettings,
};
use penstock_core::command::Caller;
use penstock_core::model::{AdminLevel, AssocId};
use penstock_core::{Command, Refusal, Reply};
use penstock_vocab::UserId;

use super::{World, admin};

/// An account below another.
pub(crate) fn account(name: &str, parent: &str) -> AccountChange {
    AccountChange::AddAccount {
        name: name.into(),
        parent: parent.into(),
        description: "".into(),
        organization: "".into(),
        settings: AssocSettings::default(),
    }
}

/// Settings of an account.
pub(crate) fn set_account(name: &str, settings: AssocSettings) -> AccountChange {
    AccountChange::ModifyAccount {
        name: name.into(),
        parent: None,
        description: None,
        organization: None,
        settings,
    }
}

/// Moves an account.
pub(crate) fn set_parent(name: &str, parent: &str) -> AccountChange {
    AccountChange::ModifyAccount {
        name: name.into(),
        parent: Some(parent.into()),
        description: None,
        organization: None,
        settings: AssocSettings::default(),
    }
}

/// A user with a number.
pub(crate) fn add_user(name: &str, uid: u32) -> AccountChange {
    AccountChange::AddUser {
        name: name.into(),
        uid: Some(UserId(uid)),
        default_account: "".into(),
        admin_level: AdminLevel::None,
    }
}

pub(crate) fn place(account: &str, user: &str) -> Place {
    Place { account: account.into(), user: user.into(), partition: None }
}

/// Puts a user into an account.
pub(crate) fn member(account: &str, user: &str) -> AccountChange {
    AccountChange::AddAssoc(place(account, user), AssocSettings::default())
}

/// Settings with these limits.
pub(crate) fn limits<const N: usize>(limits: [(Limit, i64); N]) -> AssocSettings {
    AssocSettings { limits: edits(limits), ..AssocSettings::default() }
}

/// A QOS with these limits.
pub(crate) fn qos<const N: usize>(name: &str, limits: [(Limit, i64); N]) -> AccountChange {
    let settings = QosSettings { limits: edits(limits), ..QosSettings::default() };
    AccountChange::AddQos(name.into(), Box::new(settings))
}

/// Changes limits of a QOS.
pub(crate) fn set_qos<const N: usize>(name: &str, limits: [(Limit, i64); N]) -> AccountChange {
    let settings = QosSettings { limits: edits(limits), ..QosSettings::default() };
    AccountChange::ModifyQos(name.into(), Box::new(settings))
}

/// -1 clears a limit.
fn edits<const N: usize>(limits: [(Limit, i64); N]) -> Vec<LimitEdit> {
    let edit = |(limit, value)| LimitEdit { limit, value: u64::try_from(value).ok() };
    limits.into_iter().map(edit).collect()
}

pub(crate) fn list(mode: EditMode, names: &[&str]) -> ListEdit {
    ListEdit { mode, names: names.iter().map(|name| (*name).into()).collect() }
}

impl World {
    /// Makes the user of [`super::job`] known, as its first job does: later ones change fewer
    /// records.
    pub(crate) fn know_the_user(&mut self) {
        let changes = vec![account("users", ""), add_user("1000", 1000), member("users", "1000")];
        self.change(changes).unwrap();
    }

    /// Changes accounts as the admin.
    pub(crate) fn change(
        &mut self,
        changes: Vec<AccountChange>,
    ) -> Result<Vec<AccountEffect>, Refusal> {
        self.change_as(admin(), changes)
    }

    pub(crate) fn change_as(
        &mut self,
        caller: Caller,
        changes: Vec<AccountChange>,
    ) -> Result<Vec<AccountEffect>, Refusal> {
        match self.execute(Command::Accounts(caller, changes))?.reply {
            Reply::AccountsChanged(effects) => Ok(effects),
            other => panic!("{other:?}"),
        }
    }

    /// Number of an association.
    pub(crate) fn assoc(&self, account: &str, user: Option<&str>) -> AssocId {
        self.cluster.accounts().assoc_at(account, user, None).unwrap()
    }
}
