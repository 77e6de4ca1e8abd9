//! Which columns do listings of QOS and of countable resources have?

use penstock_proto::v1;
use penstock_vocab::elapsed_long;

use crate::listing::{Cell, ReportField, amounts};

use super::fields::wall;

const fn field(
    names: &'static [&'static str],
    header: &'static str,
    width: i16,
    value: fn(&v1::Qos) -> Cell,
) -> ReportField<v1::Qos> {
    ReportField { names, header, width, value }
}

/// Every field of a QOS.
#[rustfmt::skip] // One line a field, so that the table can be read as one.
pub(super) const FIELDS: &[ReportField<v1::Qos>] = &[
    field(&["Name"], "Name", 10, |qos| Cell::text(&qos.name)),
    field(&["Description"], "Descr", 20, |qos| Cell::text(&qos.description)),
    field(&["Flags"], "Flags", 40, |qos| Cell::text(qos.flags.join(","))),
    field(&["GraceTime"], "GraceTime", 10, |qos| Cell::Exact(elapsed_long(qos.grace_secs.into()))),
    field(&["GrpJobs"], "GrpJobs", 7, |qos| Cell::number(group(qos).jobs)),
    field(&["GrpJobsAccrue"], "GrpJobsAccrue", 13, |qos| Cell::number(group(qos).jobs_accrue)),
    field(&["GrpSubmitJobs"], "GrpSubmit", 9, |qos| Cell::number(group(qos).submit_jobs)),
    field(&["GrpTRES"], "GrpTRES", 13, |qos| Cell::Text(amounts(&group(qos).tres))),
    field(&["GrpTRESMins"], "GrpTRESMins", 13, |qos| Cell::Text(amounts(&group(qos).tres_mins))),
    field(&["GrpTRESRunMins"], "GrpTRESRunMins", 13, |qos| Cell::Text(amounts(&group(qos).tres_run_mins))),
    field(&["GrpWall"], "GrpWall", 11, |qos| wall(group(qos).wall_mins)),
    field(&["ID"], "ID", 6, |qos| Cell::number(Some(qos.id))),
    field(&["LimitFactor"], "LimitFactor", 11, |qos| factor(qos.limit_factor)),
    field(&["MaxJobsAccruePA", "MaxJobsAccruePerAccount"], "MaxJobsAccruePA", 15, |qos| Cell::number(account(qos).jobs_accrue)),
    field(&["MaxJobsAccruePU", "MaxJobsAccruePerUser"], "MaxJobsAccruePU", 15, |qos| Cell::number(user(qos).jobs_accrue)),
    field(&["MaxJobsPU", "MaxJobsPerUser"], "MaxJobsPU", 9, |qos| Cell::number(user(qos).jobs)),
    field(&["MaxJobsPA", "MaxJobsPerAccount"], "MaxJobsPA", 9, |qos| Cell::number(account(qos).jobs)),
    field(&["MaxSubmitPU", "MaxSubmitJobsPerUser"], "MaxSubmitPU", 11, |qos| Cell::number(user(qos).submit_jobs)),
    field(&["MaxSubmitPA", "MaxSubmitJobsPerAccount"], "MaxSubmitPA", 11, |qos| Cell::number(account(qos).submit_jobs)),
    field(&["MaxTRES", "MaxTRESPerJob"], "MaxTRES", 13, |qos| Cell::Text(amounts(&job(qos).tres))),
    field(&["MaxTRESMins", "MaxTRESMinsPerJob"], "MaxTRESMins", 13, |qos| Cell::Text(amounts(&job(qos).tres_mins))),
    field(&["MaxTRESPA", "MaxTRESPerAccount"], "MaxTRESPA", 13, |qos| Cell::Text(amounts(&account(qos).tres))),
    field(&["MaxTRESPerNode"], "MaxTRESPerNode", 14, |qos| Cell::Text(amounts(&job(qos).tres_per_node))),
    field(&["MaxTRESPU", "MaxTRESPerUser"], "MaxTRESPU", 13, |qos| Cell::Text(amounts(&user(qos).tres))),
    field(&["MaxWall", "MaxWallDurationPerJob"], "MaxWall", 11, |qos| wall(job(qos).wall_mins)),
    field(&["MinPrioThreshold"], "MinPrioThres", 12, |_| Cell::text("")),
    field(&["MinTRES", "MinTRESPerJob"], "MinTRES", 13, |qos| Cell::Text(amounts(&job(qos).min_tres))),
    field(&["Preempt"], "Preempt", 10, |qos| Cell::text(qos.preempt.join(","))),
    field(&["PreemptExemptTime"], "PreemptExemptTime", 19, |qos| {
        Cell::Exact(qos.preempt_exempt_secs.map(|secs| elapsed_long(secs.into())).unwrap_or_default())
    }),
    field(&["PreemptMode"], "PreemptMode", 11, |qos| Cell::text(preempt_mode(qos))),
    field(&["Priority"], "Priority", 10, |qos| Cell::number(Some(qos.priority))),
    field(&["UsageFactor"], "UsageFactor", 11, |qos| factor(Some(qos.usage_factor))),
    field(&["UsageThreshold"], "UsageThres", 10, |qos| factor(qos.usage_threshold)),
];

/// Columns of QOS.
pub(super) const DEFAULT: &str = "name,priority,gracetime,preempt,preemptexempttime,preemptmode,\
    flags%40,usagethreshold,usagefactor,grptres,grptresmins,grptresrunmins,grpjobs,grpsubmitjobs,\
    grpwall,maxtres,maxtrespernode,maxtresmins,maxwall,maxtrespu,maxjobspu,maxsubmitpu,maxtrespa,\
    maxjobspa,maxsubmitpa,mintres";

fn group(qos: &v1::Qos) -> v1::GroupLimits {
    qos.group.clone().unwrap_or_default()
}

fn job(qos: &v1::Qos) -> v1::JobLimits {
    qos.job.clone().unwrap_or_default()
}

fn user(qos: &v1::Qos) -> v1::EachLimits {
    qos.per_user.clone().unwrap_or_default()
}

fn account(qos: &v1::Qos) -> v1::EachLimits {
    qos.per_account.clone().unwrap_or_default()
}

/// Slurm's word for how jobs of a QOS are preempted.
pub(super) fn preempt_mode(qos: &v1::Qos) -> &'static str {
    match qos.preempt_mode.map(|_| qos.preempt_mode()) {
        None => "cluster",
        Some(v1::PreemptMode::Off) => "off",
        Some(v1::PreemptMode::Cancel) => "cancel",
        Some(v1::PreemptMode::Requeue) => "requeue",
        Some(v1::PreemptMode::Suspend) => "suspend",
    }
}

fn factor(millionths: Option<u64>) -> Cell {
    Cell::Exact(millionths.map(decimal).unwrap_or_default())
}

/// Millionths as a number with six decimals.
pub(super) fn decimal(millionths: u64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// A countable resource.
#[derive(Debug, Clone)]
pub(super) struct Countable {
    kind: String,
    name: String,
    id: u32,
}

/// Fields of countable resources.
pub(super) const TRES_FIELDS: &[ReportField<Countable>] = &[
    ReportField { names: &["Type"], header: "Type", width: 8, value: |row| Cell::text(&row.kind) },
    ReportField { names: &["Name"], header: "Name", width: 15, value: |row| Cell::text(&row.name) },
    ReportField { names: &["ID"], header: "ID", width: 6, value: |row| Cell::number(Some(row.id)) },
];

/// Number of the first resource that a cluster adds to Slurm's own.
const FIRST_OWN: u32 = 1001;

/// Slurm's resources with their fixed numbers, then those of the cluster.
pub(super) fn countables(own: &[String]) -> Vec<Countable> {
    let fixed = ["cpu", "mem", "energy", "node", "billing", "fs/disk", "vmem", "pages"];
    let split = |text: &str, id| {
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        Countable { kind: kind.to_owned(), name: name.to_owned(), id }
    };
    let named = own.iter().filter(|text| !fixed.contains(&text.as_str()));
    let fixed = (1..).zip(fixed).map(|(id, text)| split(text, id));
    fixed.chain((FIRST_OWN..).zip(named).map(|(id, text)| split(text, id))).collect()
}

impl Countable {
    /// Whether `type=`, `name=` and `id=` conditions hold; empty: any.
    pub(super) fn is_one_of(&self, kinds: &[String], names: &[String], ids: &[String]) -> bool {
        let fits =
            |wanted: &[String], own: &str| wanted.is_empty() || wanted.iter().any(|w| w == own);
        fits(kinds, &self.kind) && fits(names, &self.name) && fits(ids, &self.id.to_string())
    }
}
