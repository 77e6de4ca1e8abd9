//! Do the numbers of the file let nodes end their own jobs in time?

use penstock_core::model::RunLease;

use super::file::{HEARTBEATS_PER_TIMEOUT, PolicySection};
use super::partitions::PartitionSection;
use super::problem::Problems;
use super::section::Placed;

/// `"self"` or `"none"`: whether runs hold a lease.
pub(super) fn parse_fence(text: &str) -> Result<bool, String> {
    match text {
        "self" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("{text:?} is no way to fence; give \"self\" or \"none\"")),
    }
}

/// Every partition that fences by lease needs a lease that is over, with all that runs by it, before
/// its node counts as down, and that no lost heartbeat ends.
pub(super) fn check(
    policy: &PolicySection,
    partitions: &[(Placed<PartitionSection>, bool)],
    problems: &mut Problems<'_>,
) {
    let (lease, wait) = (policy.fence_lease_secs, policy.kill_wait_secs);
    let margin = RunLease::MARGIN_SECS;
    let sum = RunLease { secs: lease, kill_wait_secs: wait }.over_after_secs();
    let timeout = policy.node_timeout_secs;
    let least = policy.heartbeat_secs.saturating_mul(HEARTBEATS_PER_TIMEOUT);
    let Some((first, _)) = partitions.iter().find(|(partition, _)| partition.value.fence_self)
    else {
        return;
    };
    let name = first.value.name.as_str();
    if sum >= u64::from(timeout) {
        let most = u64::from(timeout).saturating_sub(u64::from(wait) + margin + 1);
        let lower = if most >= u64::from(least.max(1)) {
            format!(", or lower fence_lease_secs to {most}")
        } else {
            String::new()
        };
        let message = format!(
            "[[partition]] {name:?} has fence = \"self\", and [policy] fence_lease_secs {lease} + \
             kill_wait_secs {wait} + {margin} s of margin are {sum} s, not below node_timeout_secs \
             {timeout}: a job could run on elsewhere; raise node_timeout_secs to {} or more{lower}",
            sum + 1
        );
        problems.error(&first.at, message);
    }
    if lease < least {
        let message = format!(
            "[[partition]] {name:?} has fence = \"self\", and [policy] fence_lease_secs is {lease} \
             with heartbeat_secs {}: jobs would end after {} lost heartbeats or fewer; raise it to \
             {least} or more",
            policy.heartbeat_secs,
            HEARTBEATS_PER_TIMEOUT - 1,
        );
        problems.error(&first.at, message);
    }
}
