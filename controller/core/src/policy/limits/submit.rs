//! May this job be submitted, as far as limits go?
//!
//! How many jobs may wait and run is a limit that refuses. Other limits keep a job waiting, unless
//! its QOS has `DenyOnLimit` and the job would be beyond them even if nothing else ran.

use penstock_vocab::{PendingReason, Tres};

use super::check::{Check, UsageCache, qos_owners, qos_sets};
use super::claim::Claim;
use super::state::{LimitState, Owner};
use super::text::Teller;
use crate::cluster::Cluster;
use crate::refusal::Refusal;

/// Refuses a submission of so many jobs beyond a limit. `state`: what waits and runs without them;
/// `tres`, `node`: the least that one of them comes to, and on one node.
pub(crate) fn check_submit(
    cluster: &Cluster,
    state: &LimitState,
    claim: &Claim<'_>,
    jobs: u64,
    (tres, node): (&Tres, &Tres),
) -> Result<(), Refusal> {
    let teller = Teller { accounts: cluster.accounts(), state, now: cluster.now() };
    let within = |reason: PendingReason, name: &str, owner: &Owner, limit: Option<u32>| {
        let Some(limit) = limit.map(u64::from) else { return Ok(()) };
        let have = state.queued(owner);
        if have.saturating_add(jobs) <= limit {
            return Ok(());
        }
        let who = teller.who(owner);
        let detail = if jobs == 1 {
            format!("{who} has {have} of {limit} jobs that wait or run ({name})")
        } else {
            format!(
                "{who} has {have} of {limit} jobs that wait or run ({name}), {jobs} more asked for"
            )
        };
        Err(Refusal::PolicyLimit { reason, detail: detail.into() })
    };
    for (qos, earlier) in claim.both() {
        let own = |get: fn(&crate::model::Qos) -> Option<u32>| {
            get(qos).filter(|_| earlier.and_then(get).is_none())
        };
        let [group, account, user] = qos_owners(qos, claim);
        let limit = own(|qos| qos.group.submit_jobs);
        within(PendingReason::QosGrpSubmitJobsLimit, "GrpSubmitJobs", &group, limit)?;
        let limit = own(|qos| qos.per_account.submit_jobs);
        let name = "MaxSubmitJobsPerAccount";
        within(PendingReason::MaxSubmitJobsPerAccount, name, &account, limit)?;
        let limit = own(|qos| qos.per_user.submit_jobs);
        let name = "MaxSubmitJobsPerUser";
        within(PendingReason::QosMaxSubmitJobPerUserLimit, name, &user, limit)?;
    }
    if !qos_sets(claim, |qos| qos.group.submit_jobs.is_some()) {
        for level in &claim.levels {
            let (owner, limit) = (Owner::Assoc(level.id), level.group.submit_jobs);
            within(PendingReason::AssocGrpSubmitJobsLimit, "GrpSubmitJobs", &owner, limit)?;
        }
    }
    if !qos_sets(claim, |qos| qos.per_user.submit_jobs.is_some()) {
        let limit = claim.levels.iter().find_map(|level| level.each.submit_jobs);
        let owner = Owner::Assoc(claim.assoc);
        within(PendingReason::AssocMaxSubmitJobLimit, "MaxSubmitJobs", &owner, limit)?;
    }
    if claim.denies() {
        let used = UsageCache::default();
        let alone = Check::alone(cluster, cluster.now(), &used);
        let over = alone.before(claim).and_then(|()| alone.after(claim, tres, node));
        return over.map_err(|waiting| Refusal::PolicyLimit {
            reason: waiting.reason,
            detail: waiting.detail.into(),
        });
    }
    Ok(())
}
