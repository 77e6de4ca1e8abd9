//! What is told of accounts, shares and QOS?

use std::collections::BTreeMap;

use penstock_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

/// Amounts by kind of resource: `cpu`, `mem`, `gres/gpu`.
pub(in crate::http) type Amounts = BTreeMap<String, u64>;

/// Amounts by their kinds.
pub(in crate::http) fn amounts(list: &[v1::TresAmount]) -> Amounts {
    list.iter().map(|amount| (amount.kind.clone(), amount.count)).collect()
}

/// The tree of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Tree {
    /// Accounts.
    pub accounts: Vec<AccountView>,
    /// Users.
    pub users: Vec<UserView>,
    /// Places of accounts and users in the tree, parents before children.
    pub associations: Vec<AssociationView>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AccountView {
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Organization.
    pub organization: String,
    /// Login names of its coordinators.
    pub coordinators: Vec<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UserView {
    /// Login name.
    pub name: String,
    /// Number; null: not known yet.
    pub uid: Option<u32>,
    /// Account of jobs that name none.
    pub default_account: String,
    /// `none`, `operator` or `administrator`.
    pub admin_level: &'static str,
}

/// A place in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AssociationView {
    /// Number.
    pub id: u32,
    /// Account.
    pub account: String,
    /// Login name; empty: the account itself.
    pub user: String,
    /// Partition; empty: every one.
    pub partition: String,
    /// The place above; null: the root.
    pub parent: Option<u32>,
    /// Shares; null: those of the place above.
    pub shares: Option<u32>,
    /// QOS that may be used; null: as above in the tree.
    pub qos: Option<Vec<String>>,
    /// QOS of jobs that name none; empty: as above in the tree.
    pub default_qos: String,
    /// Most of each resource of all its jobs together.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub grp_tres: Amounts,
    /// Most jobs that run at once.
    pub max_jobs: Option<u32>,
    /// Most jobs that wait or run.
    pub max_submit_jobs: Option<u32>,
    /// It was made by itself.
    pub implicit: bool,
}

/// A QOS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct QosView {
    /// Name.
    pub name: String,
    /// Number.
    pub id: u32,
    /// Description.
    pub description: String,
    /// Priority.
    pub priority: u32,
    /// Slurm's flags.
    pub flags: Vec<String>,
    /// QOS whose jobs it may preempt.
    pub preempt: Vec<String>,
    /// How long preempted jobs have, seconds.
    pub grace_secs: u32,
    /// Its use is charged times this, in millionths.
    pub usage_factor_millionths: u64,
    /// Most of each resource of all its jobs together.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub grp_tres: Amounts,
    /// Most of each resource of one user's jobs.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub max_tres_per_user: Amounts,
    /// Longest time limit, minutes.
    pub max_wall_mins: Option<u32>,
}

/// A line of the fair-share tree.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ShareView {
    /// Place in the tree.
    pub association: u32,
    /// The place above; null: the root.
    pub parent: Option<u32>,
    /// How deep, 0: the root.
    pub depth: u32,
    /// Account.
    pub account: String,
    /// Login name; empty: an account.
    pub user: String,
    /// Shares; null: those of the place above.
    pub raw_shares: Option<u32>,
    /// Of all shares beside it, between 0 and 1.
    pub norm_shares: f64,
    /// Billing-seconds, decayed.
    pub raw_usage: u64,
    /// Of all use, between 0 and 1.
    pub norm_usage: f64,
    /// Of the use of the place above, between 0 and 1.
    pub effective_usage: f64,
    /// Shares over use; null: nothing was used.
    pub level_fs: Option<f64>,
    /// Of users, between 0 and 1.
    pub fair_share: Option<f64>,
}

impl Tree {
    pub(in crate::http) fn of(reply: &v1::ListAccountsReply) -> Self {
        Self {
            accounts: reply.accounts.iter().map(AccountView::of).collect(),
            users: reply.users.iter().map(UserView::of).collect(),
            associations: reply.associations.iter().map(AssociationView::of).collect(),
        }
    }
}

impl AccountView {
    fn of(account: &v1::Account) -> Self {
        Self {
            name: account.name.clone(),
            description: account.description.clone(),
            organization: account.organization.clone(),
            coordinators: account.coordinators.clone(),
        }
    }
}

impl UserView {
    fn of(user: &v1::User) -> Self {
        Self {
            name: user.name.clone(),
            uid: user.uid,
            default_account: user.default_account.clone(),
            admin_level: match user.admin_level() {
                v1::AdminLevel::None => "none",
                v1::AdminLevel::Operator => "operator",
                v1::AdminLevel::Administrator => "administrator",
            },
        }
    }
}

impl AssociationView {
    fn of(assoc: &v1::Association) -> Self {
        let group = assoc.group.as_ref();
        Self {
            id: assoc.id,
            account: assoc.account.clone(),
            user: assoc.user.clone(),
            partition: assoc.partition.clone(),
            parent: (assoc.parent != 0).then_some(assoc.parent),
            shares: assoc.shares,
            qos: assoc.qos.as_ref().map(|list| list.names.clone()),
            default_qos: assoc.default_qos.clone(),
            grp_tres: group.map(|group| amounts(&group.tres)).unwrap_or_default(),
            max_jobs: assoc.each.as_ref().and_then(|each| each.jobs),
            max_submit_jobs: assoc.each.as_ref().and_then(|each| each.submit_jobs),
            implicit: assoc.implicit,
        }
    }
}

impl QosView {
    pub(in crate::http) fn of(qos: &v1::Qos) -> Self {
        let group = qos.group.as_ref();
        let each = qos.per_user.as_ref();
        Self {
            name: qos.name.clone(),
            id: qos.id,
            description: qos.description.clone(),
            priority: qos.priority,
            flags: qos.flags.clone(),
            preempt: qos.preempt.clone(),
            grace_secs: qos.grace_secs,
            usage_factor_millionths: qos.usage_factor,
            grp_tres: group.map(|group| amounts(&group.tres)).unwrap_or_default(),
            max_tres_per_user: each.map(|each| amounts(&each.tres)).unwrap_or_default(),
            max_wall_mins: qos.job.as_ref().and_then(|job| job.wall_mins),
        }
    }
}

impl ShareView {
    pub(in crate::http) fn of(row: &v1::ShareRow) -> Self {
        Self {
            association: row.association,
            parent: (row.depth > 0).then_some(row.parent),
            depth: row.depth,
            account: row.account.clone(),
            user: row.user.clone(),
            raw_shares: row.raw_shares,
            norm_shares: row.norm_shares,
            raw_usage: row.raw_usage,
            norm_usage: row.norm_usage,
            effective_usage: row.effective_usage,
            level_fs: Some(row.level_fs).filter(|level| level.is_finite()),
            fair_share: row.fair_share,
        }
    }
}
