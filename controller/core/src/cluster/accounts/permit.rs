//! Who may change which part of the tree?

use super::super::Cluster;
use crate::accounts::{AccountChange, AssocSettings, Limit, Place};
use crate::command::Caller;
use crate::model::{AdminLevel, AssocId, Association, User};
use crate::refusal::Refusal;

/// What somebody may change of accounts, users and QOS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Administrator,
    /// Everything but what others may administer.
    Operator,
    /// Users in the accounts that this user coordinates, and in those below.
    Coordinator(Box<str>),
    /// Nothing.
    Nobody,
}

impl Cluster {
    /// What a caller may change of accounts, users and QOS.
    #[must_use]
    pub fn standing(&self, caller: &Caller) -> Standing {
        if caller.admin {
            return Standing::Administrator;
        }
        let Some(user) = self.accounts.user_by_uid(caller.uid) else { return Standing::Nobody };
        match user.admin_level {
            AdminLevel::Administrator => Standing::Administrator,
            AdminLevel::Operator => Standing::Operator,
            AdminLevel::None if self.coordinates_any(user) => {
                Standing::Coordinator(user.name.clone())
            }
            AdminLevel::None => Standing::Nobody,
        }
    }

    fn coordinates_any(&self, user: &User) -> bool {
        self.accounts.all_accounts().any(|account| account.coordinators.contains(&user.name))
    }

    /// Whether a user coordinates an account, or one above it.
    #[must_use]
    pub fn coordinates(&self, user: &str, account: &str) -> bool {
        let Some(assoc) = self.accounts.account_assoc(account) else { return false };
        self.accounts.chain(assoc.id).any(|above| {
            let account = self.accounts.account(&above.account);
            account.is_some_and(|account| account.coordinators.iter().any(|name| **name == *user))
        })
    }

    /// Refuses a change that the caller may not make.
    pub(super) fn permit(
        &self,
        standing: &Standing,
        change: &AccountChange,
    ) -> Result<(), Refusal> {
        match standing {
            Standing::Administrator => Ok(()),
            Standing::Operator if raises(change) => {
                denied("only an administrator may say what a user may administer")
            }
            Standing::Operator => Ok(()),
            Standing::Coordinator(user) => self.permit_coordinator(user, change),
            Standing::Nobody => denied(
                "only administrators, operators and coordinators of an account may change accounts",
            ),
        }
    }

    fn permit_coordinator(&self, user: &str, change: &AccountChange) -> Result<(), Refusal> {
        match change {
            AccountChange::AddUser { .. } if raises(change) => {
                denied("only an administrator may say what a user may administer")
            }
            AccountChange::AddUser { default_account, .. } if default_account.is_empty() => Ok(()),
            AccountChange::AddUser { default_account, .. } => {
                self.permit_account(user, &default_account.to_lowercase())
            }
            AccountChange::AddAssoc(place, settings)
            | AccountChange::ModifyAssoc(place, settings) => {
                self.permit_account(user, &place.account.to_lowercase())?;
                self.permit_settings(place, settings)
            }
            AccountChange::DeleteAssoc(place) => {
                self.permit_account(user, &place.account.to_lowercase())
            }
            AccountChange::AddAccount { .. }
            | AccountChange::ModifyAccount { .. }
            | AccountChange::DeleteAccount(_)
            | AccountChange::ModifyUser { .. }
            | AccountChange::DeleteUser(_)
            | AccountChange::AddQos(..)
            | AccountChange::ModifyQos(..)
            | AccountChange::DeleteQos(_)
            | AccountChange::AddCoordinators(..)
            | AccountChange::RemoveCoordinators(..)
            | AccountChange::ResetAccountUsage(_)
            | AccountChange::ResetAssocUsage(_)
            | AccountChange::ResetQosUsage(_) => {
                denied("a coordinator may add, change and remove the users of an account, no more")
            }
        }
    }

    fn permit_account(&self, user: &str, account: &str) -> Result<(), Refusal> {
        if self.coordinates(user, account) {
            return Ok(());
        }
        denied(&format!("you do not coordinate account {account}"))
    }

    /// A coordinator gives nobody more than the account itself has.
    fn permit_settings(&self, place: &Place, settings: &AssocSettings) -> Result<(), Refusal> {
        if settings.priority.is_some() {
            return denied("a coordinator may not set priorities");
        }
        let Some(account) = self.accounts.account_assoc(&place.account.to_lowercase()) else {
            return Ok(());
        };
        for edit in &settings.limits {
            let above = self.above(account.id, &edit.limit);
            if let (Some(value), Some(most)) = (edit.value, above)
                && value > most
            {
                let name = edit.limit.name();
                return denied(&format!(
                    "{name}={value} is more than the {most} of account {}",
                    account.account
                ));
            }
        }
        let allowed = self.accounts.qos_allowed(account.id);
        let named = settings.qos.iter().flat_map(|edit| &edit.names).chain(&settings.default_qos);
        for name in named.filter(|name| !name.is_empty()) {
            if allowed.is_some_and(|allowed| !allowed.contains(&name.to_lowercase().into())) {
                return denied(&format!(
                    "account {} may not use QOS {name} itself",
                    account.account
                ));
            }
        }
        Ok(())
    }

    /// A limit that those below an association inherit where they set none.
    fn above(&self, id: AssocId, limit: &Limit) -> Option<u64> {
        let set = |assoc: &Association| match limit {
            Limit::MaxTres(kind) => assoc.job.tres.get(kind).copied(),
            Limit::MaxTresPerNode(kind) => assoc.job.tres_per_node.get(kind).copied(),
            Limit::MaxTresMins(kind) => assoc.job.tres_mins.get(kind).copied(),
            Limit::MaxWall => assoc.job.wall_mins.map(u64::from),
            Limit::MaxJobs => assoc.each.jobs.map(u64::from),
            Limit::MaxJobsAccrue => assoc.each.jobs_accrue.map(u64::from),
            Limit::MaxSubmitJobs => assoc.each.submit_jobs.map(u64::from),
            // Those of a group hold for it whatever its members set.
            Limit::GrpTres(_)
            | Limit::GrpTresMins(_)
            | Limit::GrpTresRunMins(_)
            | Limit::GrpJobs
            | Limit::GrpJobsAccrue
            | Limit::GrpSubmitJobs
            | Limit::GrpWall
            | Limit::MinTres(_)
            | Limit::MaxTresPerUser(_)
            | Limit::MaxJobsPerUser
            | Limit::MaxJobsAccruePerUser
            | Limit::MaxSubmitJobsPerUser
            | Limit::MaxTresPerAccount(_)
            | Limit::MaxJobsPerAccount
            | Limit::MaxJobsAccruePerAccount
            | Limit::MaxSubmitJobsPerAccount
            | Limit::Guaranteed(_) => None,
        };
        self.accounts.chain(id).find_map(|assoc| set(assoc))
    }
}

/// Whether a change says what somebody may administer.
fn raises(change: &AccountChange) -> bool {
    match change {
        AccountChange::AddUser { admin_level, .. } => *admin_level != AdminLevel::None,
        AccountChange::ModifyUser { admin_level, .. } => admin_level.is_some(),
        _ => false,
    }
}

fn denied(why: &str) -> Result<(), Refusal> {
    Err(Refusal::AccessDenied(why.into()))
}
