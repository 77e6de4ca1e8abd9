//! How is the tree of accounts written to a file?
//!
//! In the form of Slurm's `sacctmgr dump`: a line for the cluster, then under a `Parent` line its
//! users and accounts, every one with what is set on it. Besides Slurm's lines there are
//! `QOS - 'name'` lines, for every QOS but an untouched `normal`, so that a file holds all that a
//! cluster needs; and the keys `Guaranteed` and `Partition`.

use std::collections::HashMap;

use penstock_proto::v1;

use crate::listing::amounts;

use super::fields::admin_level;
use super::qos_fields::{decimal, preempt_mode};
use super::world::{ROOT, World};

/// What the file begins with.
const HEAD: &str = "\
# To edit this file start with a cluster line for the new cluster
# Cluster - 'cluster_name':MaxTRESPerJob=node=50
# Followed by Accounts you want in this fashion (root is created by default)...
# Parent - 'root'
# Account - 'cs':MaxTRESPerJob=node=5:MaxJobs=4:MaxTRESMinsPerJob=cpu=20:FairShare=399:MaxWallDurationPerJob=40:Description='Computer Science':Organization='LC'
# Any of the options after a ':' can be left out and they can be in any order.
# If you want to add any sub accounts just list the Parent THAT HAS ALREADY
# BEEN CREATED before the account line in this fashion...
# Parent - 'cs'
# Account - 'test':MaxTRESPerJob=node=1:MaxJobs=1:MaxTRESMinsPerJob=cpu=1:FairShare=1:MaxWallDurationPerJob=1:Description='Test Account':Organization='Test'
# To add users to a account add a line like this after a Parent - 'line'
# User - 'lipari':MaxTRESPerJob=node=2:MaxJobs=3:MaxTRESMinsPerJob=cpu=4:FairShare=1:MaxWallDurationPerJob=1
";

/// Options of a line, in their order.
pub(super) type Pairs = Vec<(&'static str, String)>;

/// The whole file.
pub(super) fn text(world: &World) -> String {
    let mut out = HEAD.to_owned();
    for line in lines(world) {
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// The lines that say something.
pub(super) fn lines(world: &World) -> Vec<String> {
    let mut lines = Vec::new();
    let root = world.place(ROOT);
    lines.push(line("Cluster", world.cluster(), &root.map(limits_of).unwrap_or_default()));
    let mut qos: Vec<&v1::Qos> = world.tree().qos.iter().collect();
    qos.sort_by_key(|qos| qos.id);
    for qos in qos {
        let pairs = qos_pairs(qos);
        if qos.name != "normal" || !pairs.is_empty() {
            lines.push(line("QOS", &qos.name, &pairs));
        }
    }
    let mut children: HashMap<u32, Vec<&v1::Association>> = HashMap::new();
    for assoc in world.tree().associations.iter().filter(|assoc| assoc.id != assoc.parent) {
        children.entry(assoc.parent).or_default().push(assoc);
    }
    for parent in world.tree().associations.iter().filter(|assoc| assoc.user.is_empty()) {
        let below = children.remove(&parent.id).unwrap_or_default();
        if below.is_empty() {
            continue;
        }
        lines.push(format!("Parent - {}", quoted(&parent.account)));
        for assoc in below {
            lines.push(if assoc.user.is_empty() {
                line("Account", &assoc.account, &account_pairs(world, assoc))
            } else {
                line("User", &assoc.user, &user_pairs(world, assoc))
            });
        }
    }
    lines
}

fn line(what: &str, name: &str, pairs: &Pairs) -> String {
    let mut text = format!("{what} - {}", quoted(name));
    for (key, value) in pairs {
        let free = !value.bytes().all(|b| b.is_ascii_alphanumeric() || b",=/_.-+".contains(&b));
        let worded = TEXTS.contains(key);
        text.push_str(&format!(
            ":{key}={}",
            if free || worded { quoted(value) } else { value.clone() }
        ));
    }
    text
}

/// Keys whose value Slurm puts into quotes.
const TEXTS: [&str; 9] = [
    "AdminLevel",
    "Coordinator",
    "DefaultAccount",
    "DefaultQOS",
    "Description",
    "Organization",
    "Partition",
    "Preempt",
    "QOS",
];

/// In quotes that do not occur in it; there is no escape in the form, so that one kind is given up
/// where a text has both.
fn quoted(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.contains('\'') {
        format!("\"{}\"", text.replace('"', "'"))
    } else {
        format!("'{text}'")
    }
}

/// What is set on an account.
pub(super) fn account_pairs(world: &World, assoc: &v1::Association) -> Pairs {
    let mut pairs = Pairs::new();
    if let Some(account) = world.account(&assoc.account) {
        pairs.push(("Description", account.description.clone()));
        pairs.push(("Organization", account.organization.clone()));
    }
    pairs.extend(limits_of(assoc));
    pairs
}

/// What is set on a user in an account.
pub(super) fn user_pairs(world: &World, assoc: &v1::Association) -> Pairs {
    let mut pairs = Pairs::new();
    if !assoc.partition.is_empty() {
        pairs.push(("Partition", assoc.partition.clone()));
    }
    if let Some(user) = world.user(&assoc.user) {
        pairs.push(("DefaultAccount", user.default_account.clone()));
        if user.admin_level() != v1::AdminLevel::None {
            pairs.push(("AdminLevel", admin_level(user).to_owned()));
        }
        let accounts = world.coordinated(&assoc.user);
        if !accounts.is_empty() {
            pairs.push(("Coordinator", accounts.join(",")));
        }
    }
    pairs.extend(limits_of(assoc));
    pairs
}

fn push_amounts(pairs: &mut Pairs, key: &'static str, list: &[v1::TresAmount]) {
    if !list.is_empty() {
        pairs.push((key, amounts(list)));
    }
}

fn push_number(pairs: &mut Pairs, key: &'static str, number: Option<u32>) {
    pairs.extend(number.map(|number| (key, number.to_string())));
}

/// Shares and limits of an association.
pub(super) fn limits_of(assoc: &v1::Association) -> Pairs {
    let mut pairs = Pairs::new();
    let shares = assoc.shares.map_or_else(|| "parent".to_owned(), |shares| shares.to_string());
    pairs.push(("Fairshare", shares));
    push_group(&mut pairs, &assoc.group.clone().unwrap_or_default());
    push_job(&mut pairs, &assoc.job.clone().unwrap_or_default());
    let each = assoc.each.clone().unwrap_or_default();
    push_number(&mut pairs, "MaxJobs", each.jobs);
    push_number(&mut pairs, "MaxJobsAccrue", each.jobs_accrue);
    push_number(&mut pairs, "MaxSubmitJobs", each.submit_jobs);
    push_number(&mut pairs, "MaxWallDurationPerJob", assoc.job.as_ref().and_then(|j| j.wall_mins));
    push_number(&mut pairs, "Priority", Some(assoc.priority).filter(|n| *n != 0));
    push_amounts(&mut pairs, "Guaranteed", &assoc.guaranteed);
    if !assoc.default_qos.is_empty() {
        pairs.push(("DefaultQOS", assoc.default_qos.clone()));
    }
    if let Some(qos) = &assoc.qos {
        pairs.push(("QOS", qos.names.join(",")));
    }
    pairs
}

fn push_group(pairs: &mut Pairs, group: &v1::GroupLimits) {
    push_amounts(pairs, "GrpTRESMins", &group.tres_mins);
    push_amounts(pairs, "GrpTRESRunMins", &group.tres_run_mins);
    push_amounts(pairs, "GrpTRES", &group.tres);
    push_number(pairs, "GrpJobs", group.jobs);
    push_number(pairs, "GrpJobsAccrue", group.jobs_accrue);
    push_number(pairs, "GrpSubmitJobs", group.submit_jobs);
    push_number(pairs, "GrpWall", group.wall_mins);
}

fn push_job(pairs: &mut Pairs, job: &v1::JobLimits) {
    push_amounts(pairs, "MaxTRESMinsPerJob", &job.tres_mins);
    push_amounts(pairs, "MaxTRESPerJob", &job.tres);
    push_amounts(pairs, "MaxTRESPerNode", &job.tres_per_node);
    push_amounts(pairs, "MinTRESPerJob", &job.min_tres);
}

/// What is set on a QOS.
pub(super) fn qos_pairs(qos: &v1::Qos) -> Pairs {
    let mut pairs = Pairs::new();
    if !qos.description.is_empty() && qos.description != qos.name {
        pairs.push(("Description", qos.description.clone()));
    }
    push_number(&mut pairs, "Priority", Some(qos.priority).filter(|n| *n != 0));
    if !qos.flags.is_empty() {
        pairs.push(("Flags", qos.flags.join(",")));
    }
    push_number(&mut pairs, "GraceTime", Some(qos.grace_secs).filter(|n| *n != 0));
    if !qos.preempt.is_empty() {
        pairs.push(("Preempt", qos.preempt.join(",")));
    }
    if qos.preempt_mode.is_some() {
        pairs.push(("PreemptMode", preempt_mode(qos).to_owned()));
    }
    push_number(&mut pairs, "PreemptExemptTime", qos.preempt_exempt_secs.map(|secs| secs / 60));
    if qos.usage_factor != 1_000_000 {
        pairs.push(("UsageFactor", decimal(qos.usage_factor)));
    }
    pairs.extend(qos.usage_threshold.map(|n| ("UsageThreshold", decimal(n))));
    pairs.extend(qos.limit_factor.map(|n| ("LimitFactor", decimal(n))));
    push_group(&mut pairs, &qos.group.clone().unwrap_or_default());
    push_job(&mut pairs, &qos.job.clone().unwrap_or_default());
    push_number(&mut pairs, "MaxWallDurationPerJob", qos.job.as_ref().and_then(|j| j.wall_mins));
    let user = qos.per_user.clone().unwrap_or_default();
    push_amounts(&mut pairs, "MaxTRESPerUser", &user.tres);
    push_number(&mut pairs, "MaxJobsPerUser", user.jobs);
    push_number(&mut pairs, "MaxJobsAccruePerUser", user.jobs_accrue);
    push_number(&mut pairs, "MaxSubmitJobsPerUser", user.submit_jobs);
    let account = qos.per_account.clone().unwrap_or_default();
    push_amounts(&mut pairs, "MaxTRESPerAccount", &account.tres);
    push_number(&mut pairs, "MaxJobsPerAccount", account.jobs);
    push_number(&mut pairs, "MaxJobsAccruePerAccount", account.jobs_accrue);
    push_number(&mut pairs, "MaxSubmitJobsPerAccount", account.submit_jobs);
    pairs
}
