//! How is a limit that is in the way told to people?

use penstock_vocab::{JobId, Mib, PendingReason, Timestamp, TresKind, elapsed_short};

use super::reason::Rule;
use super::state::{LimitState, Owner};
use crate::cluster::{Accounts, Waiting};

/// A job that ends later than in so many seconds is no help worth naming.
const SOON_SECS: u64 = 300 * 24 * 3_600;
/// Numbers above stand for starts of a plan, see [`super::Check::take`].
const PLANNED: JobId = JobId(u32::MAX / 2);
/// Milliseconds of a minute.
pub(super) const MINUTE_MS: u128 = 60_000;

/// What is known where a sentence is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teller<'a> {
    pub(super) accounts: &'a Accounts,
    pub(super) state: &'a LimitState,
    pub(super) now: Timestamp,
}

impl Teller<'_> {
    /// Who it is whose use is limited.
    pub(super) fn who(&self, owner: &Owner) -> String {
        match owner {
            Owner::Assoc(id) => match self.accounts.assoc(*id) {
                Some(assoc) => match &assoc.user {
                    Some(user) => format!("user {user} in account {}", assoc.account),
                    None => format!("account {}", assoc.account),
                },
                None => "its account".to_owned(),
            },
            Owner::Qos(name) => format!("QOS {name}"),
            Owner::QosUser(name, uid) => match self.accounts.user_by_uid(*uid) {
                Some(user) => format!("user {} in QOS {name}", user.name),
                None => format!("uid {uid} in QOS {name}"),
            },
            Owner::QosAccount(name, account) => format!("account {account} in QOS {name}"),
        }
    }

    /// When something of the owner's ends at the latest; `uses`: something of this kind.
    fn relief(&self, owner: &Owner, uses: Option<&TresKind>) -> String {
        let Some(held) = self.state.held(owner) else { return String::new() };
        let helps = |tres: &penstock_vocab::Tres| uses.is_none_or(|kind| tres.get(kind) > 0);
        let Some(next) = held.by_end().find(|taken| helps(&taken.tres)) else {
            return String::new();
        };
        let left = next.end.since(self.now).as_secs_rounded_up();
        match left {
            _ if next.job > PLANNED => String::new(),
            0 => format!("; job {} is about to end", next.job),
            left if left < SOON_SECS => {
                format!("; job {} ends in {} at the latest", next.job, elapsed_short(left))
            }
            _ => String::new(),
        }
    }

    /// A limit on the number of jobs that run.
    pub(super) fn jobs(
        &self,
        reason: PendingReason,
        name: &str,
        owner: &Owner,
        limit: u32,
    ) -> Waiting {
        let (who, runs) = (self.who(owner), self.state.jobs(owner));
        let relief = self.relief(owner, None);
        Waiting::new(reason, format!("{who} runs {runs} of {limit} jobs ({name}){relief}"))
    }

    /// A limit on the time of one job.
    pub(super) fn wall(reason: PendingReason, whose: &str, limit: u32, secs: u64) -> Waiting {
        let (asked, most) = (elapsed_short(secs), elapsed_short(u64::from(limit) * 60));
        let detail = format!("its time limit is {asked}, {whose} allows {most} (MaxWall)");
        Waiting::new(reason, detail)
    }

    /// A limit on wall-clock time used.
    pub(super) fn group_wall(
        &self,
        reason: PendingReason,
        owner: &Owner,
        used: u64,
        limit: u32,
    ) -> Waiting {
        let who = self.who(owner);
        let detail = format!("{who} has used {used} of {limit} minutes (GrpWall)");
        Waiting::new(reason, detail)
    }

    /// A limit on what is in use at once.
    pub(super) fn in_use(
        &self,
        rule: Rule,
        kind: &TresKind,
        owner: &Owner,
        (used, limit, need): (u64, u64, u64),
    ) -> Waiting {
        let who = self.who(owner);
        let (used, most, need_text) = (amount(kind, used), amount(kind, limit), amount(kind, need));
        let detail = if need > limit {
            format!(
                "it needs {need_text} of {kind}, {who} may use {most} at once ({}); ask for less",
                rule.name()
            )
        } else {
            let relief = self.relief(owner, Some(kind));
            format!(
                "{who} uses {used} of {most} of {kind} ({}) and the job needs {need_text}{relief}",
                rule.name()
            )
        };
        Waiting::new(rule.reason(kind), detail)
    }

    /// A limit on time times amount, used or still to be used.
    pub(super) fn minutes(
        &self,
        rule: Rule,
        kind: &TresKind,
        owner: &Owner,
        (used_mins, limit_mins, need_mins): (u128, u128, u128),
    ) -> Waiting {
        let who = self.who(owner);
        let name = rule.name();
        let have = match rule {
            Rule::AssocGroupRunMins | Rule::QosGroupRunMins => "may still use",
            _ => "has used",
        };
        let need = if need_mins == 0 {
            String::new()
        } else {
            format!(" and the job may use {need_mins} more")
        };
        let detail =
            format!("{who} {have} {used_mins} of {limit_mins} minutes of {kind} ({name}){need}");
        Waiting::new(rule.reason(kind), detail)
    }

    /// A limit on one job; `least`: it asks for too little.
    pub(super) fn one_job(
        rule: Rule,
        kind: &TresKind,
        whose: &str,
        (limit, need): (u64, u64),
    ) -> Waiting {
        let (most, asked, name) = (amount(kind, limit), amount(kind, need), rule.name());
        let detail = match rule {
            Rule::QosMin => format!("it needs {asked} of {kind}, {whose} asks for {most} ({name})"),
            Rule::AssocNode | Rule::QosNode => {
                format!("it needs {asked} of {kind} on a node, {whose} allows {most} ({name})")
            }
            _ => format!("it needs {asked} of {kind}, {whose} allows {most} ({name})"),
        };
        Waiting::new(rule.reason(kind), detail)
    }

    /// A limit on the amount times time of one job.
    pub(super) fn one_job_minutes(
        rule: Rule,
        kind: &TresKind,
        whose: &str,
        (limit, need): (u64, u128),
    ) -> Waiting {
        let name = rule.name();
        let detail =
            format!("it may use {need} minutes of {kind}, {whose} allows {limit} ({name})");
        Waiting::new(rule.reason(kind), detail)
    }
}

fn amount(kind: &TresKind, amount: u64) -> String {
    match kind {
        TresKind::Mem => Mib(amount).to_string(),
        TresKind::Cpu
        | TresKind::Node
        | TresKind::Billing
        | TresKind::Gres(_)
        | TresKind::License(_) => amount.to_string(),
    }
}
