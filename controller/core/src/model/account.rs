//! Whose jobs are charged to whom, with which shares?
//!
//! Accounts make a tree; a user takes part in it by an association with an account, which may be
//! bound to one partition. The root account has no parent.

use penstock_vocab::{PartitionName, UserId};

use super::limits::{EachLimits, GroupLimits, JobLimits};

/// Number of an association; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AssocId(pub u32);

impl AssocId {
    /// The association of the account `root`, which always exists.
    pub const ROOT: Self = Self(1);
}

/// Name of the account at the top of the tree.
pub const ROOT_ACCOUNT: &str = "root";

/// An account: what people know of it. Its place in the tree is its [`Association`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name, lower case.
    pub name: Box<str>,
    /// Free text.
    pub description: Box<str>,
    /// Free text.
    pub organization: Box<str>,
    /// Users who manage this account and those below it.
    pub coordinators: Box<[Box<str>]>,
}

/// A user of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: Box<str>,
    /// Number; `None`: not known when the record was made. It is filled in at the first job.
    pub uid: Option<UserId>,
    /// Account of jobs that name none.
    pub default_account: Box<str>,
    /// What the user may administer.
    pub admin_level: AdminLevel,
}

/// What a user may administer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum AdminLevel {
    /// Nothing but own jobs.
    #[default]
    None,
    /// Accounts, QOS and everybody's jobs.
    Operator,
    /// Everything.
    Administrator,
}

/// A place in the tree: of an account (no user) or of a user in an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Number.
    pub id: AssocId,
    /// The account; for a user's association the one it belongs to.
    pub account: Box<str>,
    /// The user; `None`: the account itself.
    pub user: Option<Box<str>>,
    /// Holds for jobs in this partition only; of users alone.
    pub partition: Option<PartitionName>,
    /// The association above; `None` for the root alone. A user's is the account's.
    pub parent: Option<AssocId>,
    /// Fair share.
    pub shares: Shares,
    /// Weight in the priority, by `PriorityWeightAssoc`.
    pub priority: u32,
    /// Limits on the whole subtree.
    pub group: GroupLimits,
    /// Limits on each association; those below inherit them where they set none.
    pub each: EachLimits,
    /// Limits on each job; those below inherit them where they set none.
    pub job: JobLimits,
    /// QOS that may be used; `None`: as above; at the root: all.
    pub qos: Option<Box<[Box<str>]>>,
    /// QOS of jobs that name none; `None`: as above; at the root: `normal`.
    pub default_qos: Option<Box<str>>,
    /// What of the subtree may be used although others have a right to it: nodes, CPUs, GPUs that
    /// the account is guaranteed. Others may borrow them and give them back on demand.
    pub guaranteed: super::limits::TresLimits,
    /// It was made by itself, for a job of a user that nobody had entered.
    pub implicit: bool,
}

/// Fair share of an association among its siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// So many.
    Raw(u32),
    /// `parent`: a user has no share of its own; the children of an account count as children of
    /// the account above.
    Parent,
}

impl Default for Shares {
    fn default() -> Self {
        Self::Raw(1)
    }
}

impl Association {
    /// An account's or user's association under `parent`, without limits.
    #[must_use]
    pub fn new(id: AssocId, account: &str, user: Option<&str>, parent: Option<AssocId>) -> Self {
        Self {
            id,
            account: account.into(),
            user: user.map(Into::into),
            partition: None,
            parent,
            shares: Shares::default(),
            priority: 0,
            group: GroupLimits::default(),
            each: EachLimits::default(),
            job: JobLimits::default(),
            qos: None,
            default_qos: None,
            guaranteed: super::limits::TresLimits::new(),
            implicit: false,
        }
    }

    /// Whether it sets a limit itself.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.group != GroupLimits::default()
            || self.each != EachLimits::default()
            || self.job != JobLimits::default()
    }
}
