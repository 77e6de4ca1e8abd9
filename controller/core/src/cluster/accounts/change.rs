//! What do changes of accounts, users and QOS make of the cluster?
//!
//! A command is carried out as a whole: changes follow each other, each seeing what those before it
//! did, and one refusal refuses all. What could only be judged at the end (is a user in the account
//! that its jobs go to by default?) is looked at there.

use std::collections::BTreeSet;

use super::super::Cluster;
use super::edit::clean_name;
use crate::accounts::{
    AccountChange, AccountDone, AccountEffect, MAX_ACCOUNT_CHANGES, MAX_ACCOUNT_RECORDS, Subject,
};
use crate::command::{Caller, Effect, RecordKey, Reply};
use crate::model::{Account, AdminLevel, Association, Qos, ROOT_ACCOUNT, UsageOwner, User};
use crate::refusal::Refusal;

/// What was done so far.
pub(super) type Effects = Vec<AccountEffect>;

pub(super) fn note(effects: &mut Effects, done: AccountDone, subject: Subject) {
    effects.push(AccountEffect { done, subject });
}

impl Cluster {
    pub(in super::super) fn change_accounts(
        &mut self,
        caller: &Caller,
        changes: Vec<AccountChange>,
    ) -> Result<Reply, Refusal> {
        let (got, limit) = (changes.len(), MAX_ACCOUNT_CHANGES);
        if got > limit {
            return Err(Refusal::TooManyItems { got, limit });
        }
        let standing = self.standing(caller);
        let mut effects = Vec::new();
        for change in changes {
            self.permit(&standing, &change)?;
            self.change_account(&mut effects, change)?;
        }
        let touched: BTreeSet<_> = self.changed.iter().collect();
        if touched.len() > MAX_ACCOUNT_RECORDS {
            let (got, limit) = (touched.len(), MAX_ACCOUNT_RECORDS);
            return Err(Refusal::TooManyItems { got, limit });
        }
        let users = touched.iter().filter_map(|key| match key {
            RecordKey::User(name) => Some(name),
            _ => None,
        });
        for name in users {
            self.check_default_account(name)?;
        }
        self.accounts_changed();
        Ok(Reply::AccountsChanged(effects))
    }

    /// What depends on accounts and QOS is derived anew.
    pub(in super::super) fn accounts_changed(&mut self) {
        self.resolved.clear();
        self.rewake_budgets();
        self.effects.push(Effect::Schedule);
    }

    fn change_account(
        &mut self,
        effects: &mut Effects,
        change: AccountChange,
    ) -> Result<(), Refusal> {
        match change {
            AccountChange::AddAccount { name, parent, description, organization, settings } => {
                self.add_account(effects, &name, &parent, (&description, &organization), &settings)
            }
            AccountChange::ModifyAccount { name, parent, description, organization, settings } => {
                let texts = (description.as_deref(), organization.as_deref());
                self.modify_account(effects, &name, parent.as_deref(), texts, &settings)
            }
            AccountChange::DeleteAccount(name) => self.delete_account(effects, &name),
            AccountChange::AddUser { name, uid, default_account, admin_level } => {
                let name = clean_name("user", &name)?;
                let default_account = default_account.to_lowercase().into();
                self.add_user(effects, User { name, uid, default_account, admin_level })
            }
            AccountChange::ModifyUser { name, uid, default_account, admin_level } => {
                let mut user = self.user_record(&name)?;
                user.uid = uid.or(user.uid);
                user.admin_level = admin_level.unwrap_or(user.admin_level);
                if let Some(account) = default_account {
                    user.default_account = account.to_lowercase().into();
                }
                let subject = Subject::User(user.name.clone());
                self.check_uid(&user)?;
                self.store_user(user);
                note(effects, AccountDone::Modified, subject);
                Ok(())
            }
            AccountChange::DeleteUser(name) => self.delete_user(effects, &name),
            AccountChange::AddAssoc(place, settings) => self.add_assoc(effects, &place, &settings),
            AccountChange::ModifyAssoc(place, settings) => {
                self.modify_assoc(effects, &place, &settings)
            }
            AccountChange::DeleteAssoc(place) => self.delete_assoc(effects, &place),
            AccountChange::AddQos(name, settings) => self.add_qos(effects, &name, &settings),
            AccountChange::ModifyQos(name, settings) => self.modify_qos(effects, &name, &settings),
            AccountChange::DeleteQos(name) => self.delete_qos(effects, &name),
            AccountChange::AddCoordinators(account, users) => {
                self.coordinators(effects, &account, &users, true)
            }
            AccountChange::RemoveCoordinators(account, users) => {
                self.coordinators(effects, &account, &users, false)
            }
            AccountChange::ResetAccountUsage(_)
            | AccountChange::ResetAssocUsage(_)
            | AccountChange::ResetQosUsage(_) => self.change_usage(effects, &change),
        }
    }

    fn change_usage(
        &mut self,
        effects: &mut Effects,
        change: &AccountChange,
    ) -> Result<(), Refusal> {
        let (owner, subject) = match change {
            AccountChange::ResetAccountUsage(name) => {
                let id = self.account_record(name)?.1.id;
                (UsageOwner::Assoc(id), Subject::AccountUsage(name.to_lowercase().into()))
            }
            AccountChange::ResetAssocUsage(place) => {
                let (place, assoc) = self.assoc_record(place)?;
                (UsageOwner::Assoc(assoc.id), Subject::AssocUsage(place))
            }
            AccountChange::ResetQosUsage(name) => {
                let name = self.qos_record(name)?.name;
                (UsageOwner::Qos(name.clone()), Subject::QosUsage(name))
            }
            _ => return Ok(()),
        };
        let owners = match &owner {
            UsageOwner::Assoc(id) => self.usage_owners_below(*id),
            UsageOwner::Qos(_) => vec![owner],
        };
        for owner in owners {
            self.reset_usage(owner);
        }
        note(effects, AccountDone::Modified, subject);
        Ok(())
    }

    fn add_user(&mut self, effects: &mut Effects, user: User) -> Result<(), Refusal> {
        if let Some(known) = self.accounts.user(&user.name) {
            if user.uid.is_some() && known.uid.is_some() && known.uid != user.uid {
                let text = format!(
                    "user {} is known with another number, uid {}",
                    user.name,
                    known.uid.map_or(0, |uid| uid.0)
                );
                return Err(Refusal::InvalidChange(text.into()));
            }
            return Ok(());
        }
        self.check_uid(&user)?;
        note(effects, AccountDone::Added, Subject::User(user.name.clone()));
        self.store_user(user);
        Ok(())
    }

    /// No two users have one number.
    pub(super) fn check_uid(&self, user: &User) -> Result<(), Refusal> {
        let other = user.uid.and_then(|uid| self.accounts.user_by_uid(uid));
        match other.filter(|other| other.name != user.name) {
            Some(other) => {
                let uid = user.uid.map_or(0, |uid| uid.0);
                let text = format!("uid {uid} is user {}, not {}", other.name, user.name);
                Err(Refusal::InvalidChange(text.into()))
            }
            None => Ok(()),
        }
    }

    fn check_default_account(&self, name: &str) -> Result<(), Refusal> {
        let Some(user) = self.accounts.user(name) else { return Ok(()) };
        let account = &user.default_account;
        if account.is_empty() || self.accounts.is_in(&user.name, account) {
            return Ok(());
        }
        if self.accounts.account(account).is_none() {
            let text = format!("there is no account {account}, the default of user {name}");
            return Err(Refusal::UnknownRecord(text.into()));
        }
        let text = format!(
            "account {account} is the default of user {name}, who would not be in it; change the \
             default first"
        );
        Err(Refusal::DefaultAccount(text.into()))
    }

    fn delete_user(&mut self, effects: &mut Effects, name: &str) -> Result<(), Refusal> {
        let user = self.user_record(name)?;
        let assocs: Vec<_> = self.accounts.assocs_of(&user.name).cloned().collect();
        for assoc in &assocs {
            self.refuse_active(assoc, &format!("user {}", user.name))?;
        }
        for assoc in &assocs {
            self.drop_assoc(assoc);
        }
        let coordinated: Vec<_> = self
            .accounts
            .all_accounts()
            .filter(|account| account.coordinators.contains(&user.name))
            .map(|account| account.name.clone())
            .collect();
        for account in coordinated {
            self.coordinators(effects, &account, std::slice::from_ref(&user.name), false)?;
        }
        self.accounts.remove_user(&user.name);
        self.changed.push(RecordKey::User(user.name.clone()));
        note(effects, AccountDone::Deleted, Subject::User(user.name));
        Ok(())
    }

    fn coordinators(
        &mut self,
        effects: &mut Effects,
        account: &str,
        users: &[Box<str>],
        add: bool,
    ) -> Result<(), Refusal> {
        let (mut account, _) = self.account_record(account)?;
        let mut now: BTreeSet<Box<str>> = account.coordinators.iter().cloned().collect();
        for user in users {
            let name = if add { self.user_record(user)?.name } else { user.to_lowercase().into() };
            let changed = if add { now.insert(name.clone()) } else { now.remove(&name) };
            if changed {
                let done = if add { AccountDone::Added } else { AccountDone::Deleted };
                let subject = Subject::Coordinator { account: account.name.clone(), user: name };
                note(effects, done, subject);
            }
        }
        account.coordinators = now.into_iter().collect();
        self.store_account(account);
        Ok(())
    }

    /// An account and its place in the tree.
    pub(super) fn account_record(&self, name: &str) -> Result<(Account, Association), Refusal> {
        let name = name.to_lowercase();
        let account = self.accounts.account(&name);
        match (account, self.accounts.account_assoc(&name)) {
            (Some(account), Some(assoc)) => Ok(((**account).clone(), (**assoc).clone())),
            _ => Err(Refusal::UnknownRecord(format!("there is no account {name}").into())),
        }
    }

    pub(super) fn user_record(&self, name: &str) -> Result<User, Refusal> {
        let name = name.to_lowercase();
        self.accounts.user(&name).map(|user| (**user).clone()).ok_or_else(|| {
            Refusal::UnknownRecord(format!("there is no user {name} among the accounts").into())
        })
    }

    pub(super) fn qos_record(&self, name: &str) -> Result<Qos, Refusal> {
        let name = name.to_lowercase();
        self.accounts
            .qos(&name)
            .map(|qos| (**qos).clone())
            .ok_or_else(|| Refusal::UnknownRecord(format!("there is no QOS {name}").into()))
    }

    /// Stores an account if it changed.
    pub(super) fn store_account(&mut self, account: Account) {
        if self.accounts.account(&account.name).is_none_or(|old| **old != account) {
            self.changed.push(RecordKey::Account(account.name.clone()));
            self.accounts.accounts.insert(account.name.clone(), std::sync::Arc::new(account));
        }
    }

    /// Stores a user if it changed.
    pub(super) fn store_user(&mut self, user: User) {
        if self.accounts.user(&user.name).is_none_or(|old| **old != user) {
            self.changed.push(RecordKey::User(user.name.clone()));
            self.accounts.put_user(user);
        }
    }

    /// Stores an association if it changed.
    pub(super) fn store_assoc(&mut self, assoc: Association) {
        if self.accounts.assoc(assoc.id).is_none_or(|old| **old != assoc) {
            self.changed.push(RecordKey::Assoc(assoc.id));
            self.accounts.put_assoc(assoc);
        }
    }
}

/// A new account, its texts filled in as `sacctmgr` does.
pub(super) fn new_account(name: &str, parent: &str) -> Account {
    Account {
        name: name.into(),
        description: name.into(),
        organization: if parent == ROOT_ACCOUNT { name.into() } else { parent.into() },
        coordinators: Box::default(),
    }
}

/// A user of whom only the name is known.
pub(super) fn new_user(name: &str, uid: penstock_vocab::UserId, account: &str) -> User {
    User {
        name: name.into(),
        uid: Some(uid),
        default_account: account.into(),
        admin_level: AdminLevel::None,
    }
}
