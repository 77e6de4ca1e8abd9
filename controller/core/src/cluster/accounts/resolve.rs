//! Which association is charged for a job, and which QOS does it run in?
//!
//! The account is what the job names, else the user's default. The association is the user's in that
//! account for the job's first partition, else the one for all partitions. The QOS is what the job
//! names, if it may be used, else the default of the association, which may come from above, else
//! `normal`.
//!
//! Where unknown users are not refused ([`Enforcement::None`]), what is missing is made: the user, the
//! association, and the account, below the account `users`. A user who names no account is a member
//! of `users` itself. So fair share works among users before anybody has entered one.

use std::sync::Arc;

use penstock_vocab::{PartitionName, UserId};

use super::super::Cluster;
use super::change::{new_account, new_user};
use super::edit::clean_name;
use crate::model::{AssocId, Association, Enforcement, JobSpec, NORMAL_QOS};
use crate::refusal::Refusal;

/// Account of users whom nobody has entered.
pub(super) const USERS_ACCOUNT: &str = "users";
/// Most accounts that are made by themselves, so that typing errors don't fill the tree.
const MAX_IMPLICIT_ACCOUNTS: usize = 1_000;
/// Most users that are made by themselves.
const MAX_USERS: usize = 100_000;
/// Answers that are remembered.
const MAX_RESOLVED: usize = 4_096;

/// What a job's place is found by: owner, privileged or not, account, partitions, QOS as asked for.
pub(in super::super) type ResolvedKey = (UserId, bool, Box<str>, Box<[PartitionName]>, Box<str>);

/// Where a job belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Resolved {
    /// The login name that was given.
    login: Box<str>,
    /// Who is charged.
    assoc: AssocId,
    /// Account of that.
    account: Box<str>,
    /// QOS.
    qos: Box<str>,
}

/// Whose job it is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Owner<'a> {
    /// Number.
    pub(in super::super) uid: UserId,
    /// Login name; empty: unknown.
    pub(in super::super) login: &'a str,
    /// May use any QOS.
    pub(in super::super) admin: bool,
}

impl Cluster {
    /// Finds who is charged for a request, and writes the account and the QOS into it. What is missing
    /// is made, where that is wanted.
    pub(in super::super) fn resolve(
        &mut self,
        owner: Owner<'_>,
        spec: &mut Arc<JobSpec>,
    ) -> Result<AssocId, Refusal> {
        let key = (
            owner.uid,
            owner.admin,
            spec.account.clone(),
            spec.partitions.clone(),
            spec.qos.clone(),
        );
        let known = self.resolved.get(&key).filter(|known| *known.login == *owner.login);
        if let Some(known) = known.cloned() {
            write(spec, &known);
            return Ok(known.assoc);
        }
        self.make_missing(owner, spec)?;
        let found = Arc::new(self.find_place(owner, spec)?);
        write(spec, &found);
        if self.resolved.len() >= MAX_RESOLVED {
            self.resolved.clear();
        }
        let assoc = found.assoc;
        self.resolved.insert(key, found);
        Ok(assoc)
    }

    /// Where a request belongs. Nothing is made.
    pub(in super::super) fn find_place(
        &self,
        owner: Owner<'_>,
        spec: &JobSpec,
    ) -> Result<Resolved, Refusal> {
        let user = self.login_name(owner)?;
        let account = self.account_of(&user, spec);
        let partition = self.partitions_of(spec).next().map(|partition| &partition.name);
        let at = |partition| self.accounts.assoc_at(&account, Some(&user), partition);
        let id = at(partition).or_else(|| at(None));
        let Some(assoc) = id.and_then(|id| self.accounts.assoc(id)) else {
            return Err(Refusal::InvalidAccount(self.no_place(&user, &account).into()));
        };
        let qos = self.qos_of(owner, spec, assoc)?;
        Ok(Resolved { login: owner.login.into(), assoc: assoc.id, account, qos })
    }

    fn no_place(&self, user: &str, account: &str) -> String {
        let mut has: Vec<_> =
            self.accounts.assocs_of(user).map(|assoc| &*assoc.account).take(8).collect();
        has.dedup();
        match (account.is_empty(), has.is_empty()) {
            (true, _) => format!("user {user} has no default account; name one by --account"),
            (false, true) => format!(
                "user {user} is in no account; an admin can add it by `sacctmgr add user {user} \
                 account={account}`"
            ),
            (false, false) => {
                format!("user {user} is not in account {account}, only in {}", has.join(", "))
            }
        }
    }

    /// The name under which a user is known here.
    fn login_name(&self, owner: Owner<'_>) -> Result<Box<str>, Refusal> {
        if let Some(user) = self.accounts.user_by_uid(owner.uid) {
            return Ok(user.name.clone());
        }
        let number = || owner.uid.to_string().into();
        let name = clean_name("user", owner.login).unwrap_or_else(|_| number());
        match self.accounts.user(&name).and_then(|user| user.uid) {
            Some(uid) if uid != owner.uid => {
                let text = format!(
                    "user {name} is uid {uid} among the accounts and uid {} here; an admin can \
                     change the one that is wrong",
                    owner.uid
                );
                Err(Refusal::InvalidAccount(text.into()))
            }
            Some(_) | None => Ok(name),
        }
    }

    /// The account that is asked for, else the user's default; empty: none.
    fn account_of(&self, user: &str, spec: &JobSpec) -> Box<str> {
        if !spec.account.is_empty() {
            return spec.account.to_lowercase().into();
        }
        let default = self.accounts.user(user).map(|user| user.default_account.clone());
        default.unwrap_or_default()
    }

    fn qos_of(
        &self,
        owner: Owner<'_>,
        spec: &JobSpec,
        assoc: &Association,
    ) -> Result<Box<str>, Refusal> {
        let allowed = self.accounts.qos_allowed(assoc.id);
        let may = |name: &str| allowed.is_none_or(|list| list.iter().any(|qos| **qos == *name));
        let refuse = |name: &str| {
            let list = allowed.map(|list| list.join(", ")).unwrap_or_default();
            let text = format!("account {} may not use QOS {name}, only {list}", assoc.account);
            Err(Refusal::InvalidQos(text.into()))
        };
        if spec.qos.is_empty() {
            let name = match (self.accounts.default_qos(assoc.id), allowed) {
                // Nobody named a default, and there is no choice.
                (NORMAL_QOS, Some([only])) => only,
                (name, _) => name,
            };
            return if may(name) { Ok(name.into()) } else { refuse(name) };
        }
        let name: Box<str> = spec.qos.to_lowercase().into();
        if self.accounts.qos(&name).is_none() {
            return Err(Refusal::InvalidQos(format!("there is no QOS {name}").into()));
        }
        if may(&name) || owner.admin { Ok(name) } else { refuse(&name) }
    }

    /// Makes the user, the account and the association that a request lacks, if nobody wants such
    /// requests refused, and notes the number of a user that had none.
    pub(in super::super) fn make_missing(
        &mut self,
        owner: Owner<'_>,
        spec: &JobSpec,
    ) -> Result<(), Refusal> {
        let name = self.login_name(owner)?;
        let mut account = self.account_of(&name, spec);
        let implicit = self.config.scheduling.enforce == Enforcement::None;
        if implicit {
            if account.is_empty() {
                account = USERS_ACCOUNT.into();
            }
            if self.accounts.user(&name).is_none() {
                self.within(self.accounts.users.len(), MAX_USERS, "users")?;
                self.store_user(new_user(&name, owner.uid, ""));
            }
            if !self.accounts.is_in(&name, &account) {
                self.make_assoc(&name, &account)?;
            }
        }
        let Some(user) = self.accounts.user(&name).filter(|user| user.uid.is_none()) else {
            return Ok(());
        };
        let mut user = (**user).clone();
        user.uid = Some(owner.uid);
        self.store_user(user);
        Ok(())
    }

    /// Puts a user into an account that may not exist yet.
    fn make_assoc(&mut self, name: &str, account: &str) -> Result<(), Refusal> {
        let parent = self.make_account(account)?;
        let mut assoc = Association::new(self.next_assoc(), account, Some(name), Some(parent));
        assoc.implicit = true;
        self.store_assoc(assoc);
        if let Some(user) = self.accounts.user(name).filter(|user| user.default_account.is_empty())
        {
            let mut user = (**user).clone();
            user.default_account = account.into();
            self.store_user(user);
        }
        Ok(())
    }

    fn make_account(&mut self, name: &str) -> Result<AssocId, Refusal> {
        if let Some(assoc) = self.accounts.account_assoc(name) {
            return Ok(assoc.id);
        }
        let name = clean_name("account", name)
            .map_err(|refusal| Refusal::InvalidAccount(refusal.to_string().into()))?;
        self.within(self.accounts.implicit_account_count(), MAX_IMPLICIT_ACCOUNTS, "accounts")?;
        // One that somebody thought up takes nothing from those that were entered.
        let parent =
            if *name == *USERS_ACCOUNT { AssocId::ROOT } else { self.make_account(USERS_ACCOUNT)? };
        let above = self.accounts.assoc(parent).map(|assoc| assoc.account.clone());
        let mut assoc = Association::new(self.next_assoc(), &name, None, Some(parent));
        assoc.implicit = true;
        let id = assoc.id;
        self.store_account(new_account(&name, &above.unwrap_or_default()));
        self.store_assoc(assoc);
        Ok(id)
    }

    fn within(&self, have: usize, limit: usize, what: &str) -> Result<(), Refusal> {
        if have < limit {
            return Ok(());
        }
        let text = format!("{have} {what} are known, no more are made by themselves; name another");
        Err(Refusal::InvalidAccount(text.into()))
    }
}

impl Resolved {
    /// Writes the names into a request.
    pub(in super::super) fn apply(&self, spec: &mut JobSpec) -> AssocId {
        spec.account.clone_from(&self.account);
        spec.qos.clone_from(&self.qos);
        self.assoc
    }
}

fn write(spec: &mut Arc<JobSpec>, place: &Resolved) {
    if spec.account != place.account || spec.qos != place.qos {
        place.apply(Arc::make_mut(spec));
    }
}
