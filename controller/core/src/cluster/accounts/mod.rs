//! Who is charged, by which rules, and what was used: the tree of accounts, the QOS, the usage.
//!
//! The root account and the QOS `normal` always exist. What is derived (who stands below whom, which
//! association a user has where) is kept beside the records.

mod usage;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use penstock_vocab::PartitionName;

use crate::command::RecordKey;
use crate::model::{
    Account, AssocId, Association, DecayedUsage, NORMAL_QOS, Qos, ROOT_ACCOUNT, UsageOwner, User,
};

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
        accounts.qos.insert(normal.name.clone(), Arc::new(normal));
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
        for account in records.accounts {
            self.accounts.insert(account.name.clone(), Arc::new(account));
        }
        for user in records.users {
            self.users.insert(user.name.clone(), Arc::new(user));
        }
        for assoc in records.assocs {
            self.put_assoc(assoc);
        }
        for qos in records.qos {
            self.next_qos = self.next_qos.max(qos.id.saturating_add(1));
            self.qos.insert(qos.name.clone(), Arc::new(qos));
        }
        for (owner, usage) in records.usage {
            self.usage.insert(owner, Arc::new(usage));
        }
    }

    /// Stores an association and keeps what is derived true.
    pub(super) fn put_assoc(&mut self, assoc: Association) {
        self.remove_assoc(assoc.id);
        self.next_assoc = self.next_assoc.max(assoc.id.0.saturating_add(1));
        self.by_place.insert(place(&assoc), assoc.id);
        if let Some(parent) = assoc.parent {
            self.children.entry(parent).or_default().insert(assoc.id);
        }
        self.assocs.insert(assoc.id, Arc::new(assoc));
    }

    /// Takes an association out; what stands below it must be gone, or come back under another.
    pub(super) fn remove_assoc(&mut self, id: AssocId) {
        let Some(old) = self.assocs.remove(&id) else { return };
        self.by_place.remove(&place(&old));
        if let Some(siblings) = old.parent.and_then(|parent| self.children.get_mut(&parent)) {
            siblings.remove(&id);
        }
    }
}

fn place(assoc: &Association) -> Place {
    (assoc.account.clone(), assoc.user.clone(), assoc.partition.clone())
}
