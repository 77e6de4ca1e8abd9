//! Who is charged, by which rules, and what was used: the tree of accounts, the QOS, the usage.
//!
//! The root account and the QOS `normal` always exist. What is derived (who stands below whom, which
//! association a user has where) is kept beside the records.

mod change;
mod change_assoc;
mod change_qos;
mod dump;
mod edit;
mod permit;
mod resolve;
mod usage;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use penstock_vocab::{PartitionName, UserId};

use crate::command::RecordKey;
use crate::model::{
    Account, AssocId, Association, DecayedUsage, NORMAL_QOS, Qos, ROOT_ACCOUNT, UsageOwner, User,
};

pub use permit::Standing;
pub(super) use resolve::{Owner, Resolved, ResolvedKey};
pub(super) use usage::Rates;
pub use usage::Used;

/// Place of an association: account, user, partition.
pub(super) type Place = (Box<str>, Option<Box<str>>, Option<PartitionName>);

/// The stored records of this part.
#[derive(Debug, Default)]
pub struct AccountRecords {
    /// Accounts.
    pub accounts: Vec<Account>,
    /// Users.
    pub users: Vec<User>,
    /// Associations.
    pub assocs: Vec<Association>,
    /// QOS.
    pub qos: Vec<Qos>,
    /// Usage.
    pub usage: Vec<(UsageOwner, DecayedUsage)>,
    /// The number that the next association gets at least; 0: none was stored.
    pub next_assoc: u32,
    /// The number that the next QOS gets at least; 0: none was stored.
    pub next_qos: u32,
}

/// The tree of accounts, the QOS and the usage; cloning it is O(1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    pub(super) accounts: OrdMap<Box<str>, Arc<Account>>,
    pub(super) users: OrdMap<Box<str>, Arc<User>>,
    pub(super) assocs: OrdMap<AssocId, Arc<Association>>,
    pub(super) qos: OrdMap<Box<str>, Arc<Qos>>,
    pub(super) usage: OrdMap<UsageOwner, Arc<DecayedUsage>>,
    /// The number that the next association gets.
    pub(super) next_assoc: u32,
    /// The number that the next QOS gets.
    pub(super) next_qos: u32,
    by_place: OrdMap<Place, AssocId>,
    children: OrdMap<AssocId, OrdSet<AssocId>>,
    by_uid: OrdMap<UserId, Box<str>>,
    /// Associations that set a limit.
    limited: OrdSet<AssocId>,
    /// Whose use over time is limited: `GrpTRESMins`, `GrpWall`.
    budgets: OrdSet<UsageOwner>,
    /// Accounts that were made by themselves.
    implicit_accounts: OrdSet<AssocId>,
}

impl Default for Accounts {
    fn default() -> Self {
        let mut accounts = Self {
            accounts: OrdMap::new(),
            users: OrdMap::new(),
            assocs: OrdMap::new(),
            qos: OrdMap::new(),
            usage: OrdMap::new(),
            next_assoc: AssocId::ROOT.0 + 1,
            next_qos: 2,
            by_place: OrdMap::new(),
            children: OrdMap::new(),
            by_uid: OrdMap::new(),
            limited: OrdSet::new(),
            budgets: OrdSet::new(),
            implicit_accounts: OrdSet::new(),
        };
        let root = Account {
            name: ROOT_ACCOUNT.into(),
            description: "default root account".into(),
            organization: "root".into(),
            coordinators: Box::default(),
        };
        accounts.accounts.insert(root.name.clone(), Arc::new(root));
        accounts.put_assoc(Association::new(AssocId::ROOT, ROOT_ACCOUNT, None, None));
        let mut normal = Qos::new(NORMAL_QOS, 1);
        normal.description = "Normal QOS default".into();
        accounts.put_qos(normal);
        accounts
    }
}

impl Accounts {
    /// An account by its name.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&Arc<Account>> {
        self.accounts.get(name)
    }

    /// All accounts, by name.
    pub fn all_accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }

    /// A user by login name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// All users, by name.
    pub fn all_users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// A QOS by its name.
    #[must_use]
    pub fn qos(&self, name: &str) -> Option<&Arc<Qos>> {
        self.qos.get(name)
    }

    /// All QOS, by name.
    pub fn all_qos(&self) -> impl Iterator<Item = &Arc<Qos>> {
        self.qos.values()
    }

    /// An association by its number.
    #[must_use]
    pub fn assoc(&self, id: AssocId) -> Option<&Arc<Association>> {
        self.assocs.get(&id)
    }

    /// All associations, by number.
    pub fn all_assocs(&self) -> impl Iterator<Item = &Arc<Association>> {
        self.assocs.values()
    }

    /// The association at a place, exactly.
    #[must_use]
    pub fn assoc_at(
        &self,
        account: &str,
        user: Option<&str>,
        partition: Option<&PartitionName>,
    ) -> Option<AssocId> {
        let place = (account.into(), user.map(Into::into), partition.cloned());
        self.by_place.get(&place).copied()
    }

    /// Associations directly below one, by number.
    pub fn children(&self, id: AssocId) -> impl Iterator<Item = &Arc<Association>> {
        let below = self.children.get(&id).into_iter().flat_map(OrdSet::iter);
        below.filter_map(|child| self.assocs.get(child))
    }

    /// An association and those above it, up to the root.
    pub fn chain(&self, id: AssocId) -> impl Iterator<Item = &Arc<Association>> {
        let above = |assoc: &&Arc<Association>| assoc.parent.and_then(|id| self.assocs.get(&id));
        std::iter::successors(self.assocs.get(&id), above)
    }

    /// What an owner used, as it was stored; nothing, if nothing was.
    #[must_use]
    pub fn stored_usage(&self, owner: &UsageOwner) -> Option<&Arc<DecayedUsage>> {
        self.usage.get(owner)
    }

    /// Everybody of whom use was recorded, associations first.
    pub fn all_usage(&self) -> impl Iterator<Item = (&UsageOwner, &Arc<DecayedUsage>)> {
        self.usage.iter()
    }

    /// The number that the next association gets.
    #[must_use]
    pub fn next_assoc_number(&self) -> u32 {
        self.next_assoc
    }

    /// The number that the next QOS gets.
    #[must_use]
    pub fn next_qos_number(&self) -> u32 {
        self.next_qos
    }

    /// Every record of this part.
    pub(super) fn record_keys(&self) -> impl Iterator<Item = RecordKey> {
        let accounts = self.accounts.keys().cloned().map(RecordKey::Account);
        accounts
            .chain(self.users.keys().cloned().map(RecordKey::User))
            .chain(self.assocs.keys().copied().map(RecordKey::Assoc))
            .chain(self.qos.keys().cloned().map(RecordKey::Qos))
            .chain(self.usage.keys().cloned().map(RecordKey::Usage))
    }

    /// Puts stored records in the place of what exists by itself.
    pub(super) fn restore(&mut self, records: AccountRecords) {
        self.next_assoc = self.next_assoc.max(records.next_assoc);
        self.next_qos = self.next_qos.max(records.next_qos);
        for account in records.accounts {
            self.accounts.insert(account.name.clone(), Arc::new(account));
        }
        for user in records.users {
            self.put_user(user);
        }
        for assoc in records.assocs {
            self.put_assoc(assoc);
        }
        for qos in records.qos {
            self.put_qos(qos);
        }
        for (owner, usage) in records.usage {
            self.usage.insert(owner, Arc::new(usage));
        }
    }

    /// A user by number.
    #[must_use]
    pub fn user_by_uid(&self, uid: UserId) -> Option<&Arc<User>> {
        self.by_uid.get(&uid).and_then(|name| self.users.get(name))
    }

    /// The association of an account.
    #[must_use]
    pub fn account_assoc(&self, account: &str) -> Option<&Arc<Association>> {
        self.assoc_at(account, None, None).and_then(|id| self.assocs.get(&id))
    }

    /// Associations of a user, by number. Cost: all associations.
    pub fn assocs_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Arc<Association>> {
        self.assocs.values().filter(move |assoc| assoc.user.as_deref() == Some(user))
    }

    /// Whether an association sets a limit.
    #[must_use]
    pub fn is_limited(&self, id: AssocId) -> bool {
        self.limited.contains(&id)
    }

    /// Whose use over time is limited, associations first.
    pub fn budgets(&self) -> impl Iterator<Item = &UsageOwner> {
        self.budgets.iter()
    }

    /// Whether somebody's use over time is limited.
    #[must_use]
    pub fn has_budget(&self, owner: &UsageOwner) -> bool {
        self.budgets.contains(owner)
    }

    /// QOS that may be used in an association; `None`: all.
    #[must_use]
    pub fn qos_allowed(&self, id: AssocId) -> Option<&[Box<str>]> {
        self.chain(id).find_map(|assoc| assoc.qos.as_deref())
    }

    /// QOS of jobs in an association that name none.
    #[must_use]
    pub fn default_qos(&self, id: AssocId) -> &str {
        self.chain(id).find_map(|assoc| assoc.default_qos.as_deref()).unwrap_or(NORMAL_QOS)
    }

    /// How many accounts were made by themselves.
    pub(super) fn implicit_account_count(&self) -> usize {
        self.implicit_accounts.len()
    }

    /// Stores an association and keeps what is derived true.
    pub(super) fn put_assoc(&mut self, assoc: Association) {
        self.remove_assoc(assoc.id);
        self.next_assoc = self.next_assoc.max(assoc.id.0.saturating_add(1));
        self.by_place.insert(place(&assoc), assoc.id);
        if let Some(parent) = assoc.parent {
            self.children.entry(parent).or_default().insert(assoc.id);
        }
        if assoc.has_limits() {
            self.limited.insert(assoc.id);
        }
        if assoc.group.is_budget() {
            self.budgets.insert(UsageOwner::Assoc(assoc.id));
        }
        if assoc.implicit && assoc.user.is_none() {
            self.implicit_accounts.insert(assoc.id);
        }
        self.assocs.insert(assoc.id, Arc::new(assoc));
    }

    /// Takes an association out; what stands below it must be gone, or come back under another.
    pub(super) fn remove_assoc(&mut self, id: AssocId) {
        let Some(old) = self.assocs.remove(&id) else { return };
        self.by_place.remove(&place(&old));
        self.limited.remove(&id);
        self.implicit_accounts.remove(&id);
        self.budgets.remove(&UsageOwner::Assoc(id));
        let Some(parent) = old.parent else { return };
        if let Some(siblings) = self.children.get_mut(&parent) {
            siblings.remove(&id);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    /// Stores a user and keeps what is derived true.
    pub(super) fn put_user(&mut self, user: User) {
        self.remove_user(&user.name);
        if let Some(uid) = user.uid {
            self.by_uid.insert(uid, user.name.clone());
        }
        self.users.insert(user.name.clone(), Arc::new(user));
    }

    /// Takes a user out.
    pub(super) fn remove_user(&mut self, name: &str) {
        if let Some(uid) = self.users.remove(name).and_then(|old| old.uid) {
            self.by_uid.remove(&uid);
        }
    }

    /// Stores a QOS and keeps what is derived true.
    pub(super) fn put_qos(&mut self, qos: Qos) {
        self.next_qos = self.next_qos.max(qos.id.saturating_add(1));
        let owner = UsageOwner::Qos(qos.name.clone());
        if qos.group.is_budget() {
            self.budgets.insert(owner);
        } else {
            self.budgets.remove(&owner);
        }
        self.qos.insert(qos.name.clone(), Arc::new(qos));
    }

    /// Takes a QOS out.
    pub(super) fn remove_qos(&mut self, name: &str) {
        self.qos.remove(name);
        self.budgets.remove(&UsageOwner::Qos(name.into()));
    }

    /// What of the derived is not what the records say, or breaks the tree; `None`: all is well.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let mut fresh = Self::default();
        fresh.restore(AccountRecords {
            accounts: self.accounts.values().map(|account| (**account).clone()).collect(),
            users: self.users.values().map(|user| (**user).clone()).collect(),
            assocs: self.assocs.values().map(|assoc| (**assoc).clone()).collect(),
            qos: self.qos.values().map(|qos| (**qos).clone()).collect(),
            ..AccountRecords::default()
        });
        let pairs = [
            (self.by_place == fresh.by_place, "associations by place"),
            (self.children == fresh.children, "children"),
            (self.by_uid == fresh.by_uid, "users by number"),
            (self.limited == fresh.limited, "limited associations"),
            (self.budgets == fresh.budgets, "budgets"),
            (self.implicit_accounts == fresh.implicit_accounts, "implicit accounts"),
            (self.assocs.values().all(|assoc| self.is_rooted(assoc)), "tree of accounts"),
            (self.users.values().all(|user| self.has_default(user)), "default accounts"),
        ];
        pairs.iter().find(|(holds, _)| !holds).map(|(_, what)| *what)
    }

    /// Whether the way up from an association leads over accounts to the root.
    fn is_rooted(&self, assoc: &Association) -> bool {
        // A way of more steps than there are associations goes in a circle.
        let steps = || self.chain(assoc.id).take(self.assocs.len() + 1);
        let above_are_accounts = steps().skip(1).all(|above| above.user.is_none());
        let last = steps().last().map(|last| (last.id, last.parent));
        let in_own_account = assoc.user.is_none()
            || self.account_assoc(&assoc.account).map(|account| account.id) == assoc.parent;
        last == Some((AssocId::ROOT, None)) && above_are_accounts && in_own_account
    }

    /// Whether a user is in the account that its jobs go to by default.
    fn has_default(&self, user: &User) -> bool {
        user.default_account.is_empty() || self.is_in(&user.name, &user.default_account)
    }

    /// Whether a user has an association in an account, for whichever partition.
    pub(super) fn is_in(&self, user: &str, account: &str) -> bool {
        let first = (account.into(), Some(user.into()), None);
        let next = self.by_place.range(first..).next();
        next.is_some_and(|((a, u, _), _)| **a == *account && u.as_deref() == Some(user))
    }
}

fn place(assoc: &Association) -> Place {
    (assoc.account.clone(), assoc.user.clone(), assoc.partition.clone())
}
