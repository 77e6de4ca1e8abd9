//! Which columns do listings of accounts, users, associations and clusters have?

use penstock_proto::v1;
use penstock_vocab::elapsed_long;

use crate::listing::{Cell, ReportField, amounts};

/// One line: what is known of it depends on what is listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// Name of the cluster.
    pub(super) cluster: String,
    /// Where its controller runs.
    pub(super) control_host: String,
    /// The account.
    pub(super) account: Option<v1::Account>,
    /// The user.
    pub(super) user: Option<v1::User>,
    /// The association; its limits as they are to be shown.
    pub(super) assoc: Option<v1::Association>,
    /// The account above.
    pub(super) parent: String,
    /// Who coordinates the account, or the accounts that the user coordinates.
    pub(super) coordinators: String,
    /// Blanks before the account (`tree`).
    pub(super) indent: usize,
}

type Value = fn(&Row) -> Cell;

const fn field(
    names: &'static [&'static str],
    header: &'static str,
    width: i16,
    value: Value,
) -> ReportField<Row> {
    ReportField { names, header, width, value }
}

/// Every field.
#[rustfmt::skip] // One line a field, so that the table can be read as one.
pub(super) const FIELDS: &[ReportField<Row>] = &[
    field(&["Account", "Acct"], "Account", 10, account),
    field(&["AdminLevel"], "Admin", 9, |row| Cell::text(row.user.as_ref().map_or("", admin_level))),
    field(&["Cluster"], "Cluster", 10, |row| Cell::text(&row.cluster)),
    field(&["Coordinators"], "Coord Accounts", 20, |row| Cell::text(&row.coordinators)),
    field(&["ControlHost"], "ControlHost", 15, |row| Cell::text(&row.control_host)),
    field(&["ControlPort"], "ControlPort", 12, |_| Cell::number(Some(0))),
    field(&["DefaultAccount"], "Def Acct", 10, |row| Cell::text(row.user.as_ref().map_or("", |user| &user.default_account))),
    field(&["DefaultQOS", "DefQOS"], "Def QOS", 9, |row| Cell::text(row.assoc.as_ref().map_or("", |assoc| &assoc.default_qos))),
    field(&["DefaultWCKey"], "Def WCKey", 10, |_| Cell::text("")),
    field(&["Description"], "Descr", 20, |row| Cell::text(row.account.as_ref().map_or("", |account| &account.description))),
    field(&["Fairshare", "Share"], "Share", 9, share),
    field(&["GrpCPUMins"], "GrpCPUMins", 11, |row| one(group(row).tres_mins, "cpu")),
    field(&["GrpCPUs"], "GrpCPUs", 8, |row| one(group(row).tres, "cpu")),
    field(&["GrpJobs"], "GrpJobs", 7, |row| Cell::number(group(row).jobs)),
    field(&["GrpJobsAccrue"], "GrpJobsAccrue", 13, |row| Cell::number(group(row).jobs_accrue)),
    field(&["GrpMem"], "GrpMem", 7, |row| one(group(row).tres, "mem")),
    field(&["GrpNodes"], "GrpNodes", 8, |row| one(group(row).tres, "node")),
    field(&["GrpSubmitJobs"], "GrpSubmit", 9, |row| Cell::number(group(row).submit_jobs)),
    field(&["GrpTRES"], "GrpTRES", 13, |row| Cell::Text(amounts(&group(row).tres))),
    field(&["GrpTRESMins"], "GrpTRESMins", 13, |row| Cell::Text(amounts(&group(row).tres_mins))),
    field(&["GrpTRESRunMins"], "GrpTRESRunMins", 13, |row| Cell::Text(amounts(&group(row).tres_run_mins))),
    field(&["GrpWall"], "GrpWall", 11, |row| wall(group(row).wall_mins)),
    field(&["Guaranteed"], "Guaranteed", 13, |row| Cell::Text(amounts(row.assoc.as_ref().map_or(&[], |assoc| &assoc.guaranteed)))),
    field(&["ID"], "ID", 6, |row| Cell::number(row.assoc.as_ref().map(|assoc| assoc.id))),
    field(&["MaxCPUMins"], "MaxCPUMins", 11, |row| one(job(row).tres_mins, "cpu")),
    field(&["MaxCPUs"], "MaxCPUs", 8, |row| one(job(row).tres, "cpu")),
    field(&["MaxJobs"], "MaxJobs", 7, |row| Cell::number(each(row).jobs)),
    field(&["MaxJobsAccrue"], "MaxJobsAccrue", 13, |row| Cell::number(each(row).jobs_accrue)),
    field(&["MaxNodes"], "MaxNodes", 8, |row| one(job(row).tres, "node")),
    field(&["MaxSubmitJobs"], "MaxSubmit", 9, |row| Cell::number(each(row).submit_jobs)),
    field(&["MaxTRES", "MaxTRESPerJob"], "MaxTRES", 13, |row| Cell::Text(amounts(&job(row).tres))),
    field(&["MaxTRESMins", "MaxTRESMinsPerJob"], "MaxTRESMins", 13, |row| Cell::Text(amounts(&job(row).tres_mins))),
    field(&["MaxTRESPerNode"], "MaxTRESPerNode", 14, |row| Cell::Text(amounts(&job(row).tres_per_node))),
    field(&["MaxWallDurationPerJob", "MaxWall"], "MaxWall", 11, |row| wall(job(row).wall_mins)),
    field(&["Organization", "Org"], "Org", 20, |row| Cell::text(row.account.as_ref().map_or("", |account| &account.organization))),
    field(&["ParentID"], "ParentID", 8, |row| Cell::number(row.assoc.as_ref().map(|assoc| assoc.parent).filter(|id| *id != 0))),
    field(&["ParentName"], "ParentName", 10, |row| Cell::text(&row.parent)),
    field(&["Partition"], "Partition", 10, |row| Cell::text(row.assoc.as_ref().map_or("", |assoc| &assoc.partition))),
    field(&["Priority"], "Priority", 10, |row| Cell::number(row.assoc.as_ref().map(|assoc| assoc.priority).filter(|priority| *priority != 0))),
    field(&["QOS", "QOSLevel"], "QOS", 20, |row| Cell::text(row.assoc.as_ref().and_then(|assoc| assoc.qos.as_ref()).map(|qos| qos.names.join(",")).unwrap_or_default())),
    field(&["RPC"], "RPC", 5, |_| Cell::number(Some(PROTOCOL))),
    field(&["User", "Name"], "User", 10, |row| Cell::text(user_name(row))),
];

/// The protocol of Slurm 22.05, which listings of clusters show.
const PROTOCOL: u32 = 9728;

/// Columns of associations.
pub(super) const ASSOCIATION: &str = "cluster,account,user,partition,share,priority,grpjobs,\
    grptres,grpsubmitjobs,grpwall,grptresmins,maxjobs,maxtres,maxtrespernode,maxsubmitjobs,maxwall,\
    maxtresmins,qos,defaultqos,grptresrunmins";

/// Columns of associations without limits.
pub(super) const ASSOCIATION_PLAIN: &str = "cluster,account,user,partition";

/// Columns of accounts.
pub(super) const ACCOUNT: &str = "account,description,organization";

/// Columns of accounts that their associations add.
pub(super) const ACCOUNT_ASSOCIATION: &str = "cluster,parentname,user,share,priority,grpjobs,\
    grpnodes,grpcpus,grpmem,grpsubmitjobs,grpwall,grpcpumins,maxjobs,maxnodes,maxcpus,\
    maxsubmitjobs,maxwall,maxcpumins,qos,defaultqos";

/// Columns of users.
pub(super) const USER: &str = "user,defaultaccount,adminlevel";

/// Columns of users that their associations add.
pub(super) const USER_ASSOCIATION: &str = "cluster,account,partition,share,priority,maxjobs,\
    maxnodes,maxcpus,maxsubmitjobs,maxwall,maxcpumins,qos,defaultqos";

/// Columns of clusters.
pub(super) const CLUSTER: &str = "cluster,controlhost,controlport,rpc,share,grpjobs,grptres,\
    grpsubmitjobs,maxjobs,maxtres,maxsubmitjobs,maxwall,qos,defaultqos";

fn account(row: &Row) -> Cell {
    let name = match (&row.assoc, &row.account) {
        (Some(assoc), _) => assoc.account.as_str(),
        (None, Some(account)) => &account.name,
        (None, None) => "",
    };
    Cell::Text(format!("{:indent$}{name}", "", indent = row.indent))
}

fn user_name(row: &Row) -> &str {
    match (&row.assoc, &row.user) {
        (_, Some(user)) => &user.name,
        (Some(assoc), None) => &assoc.user,
        (None, None) => "",
    }
}

/// Slurm's word for a level.
pub(super) fn admin_level(user: &v1::User) -> &'static str {
    match user.admin_level() {
        v1::AdminLevel::None => "None",
        v1::AdminLevel::Operator => "Operator",
        v1::AdminLevel::Administrator => "Administrator",
    }
}

fn share(row: &Row) -> Cell {
    match &row.assoc {
        None => Cell::text(""),
        Some(assoc) => {
            Cell::Exact(assoc.shares.map_or_else(|| "parent".to_owned(), |n| n.to_string()))
        }
    }
}

fn group(row: &Row) -> v1::GroupLimits {
    row.assoc.as_ref().and_then(|assoc| assoc.group.clone()).unwrap_or_default()
}

fn each(row: &Row) -> v1::EachLimits {
    row.assoc.as_ref().and_then(|assoc| assoc.each.clone()).unwrap_or_default()
}

fn job(row: &Row) -> v1::JobLimits {
    row.assoc.as_ref().and_then(|assoc| assoc.job.clone()).unwrap_or_default()
}

/// The amount of one kind.
fn one(list: Vec<v1::TresAmount>, kind: &str) -> Cell {
    Cell::number(list.into_iter().find(|amount| amount.kind == kind).map(|amount| amount.count))
}

/// Minutes as a time.
pub(super) fn wall(minutes: Option<u32>) -> Cell {
    Cell::Exact(minutes.map(|minutes| elapsed_long(u64::from(minutes) * 60)).unwrap_or_default())
}
