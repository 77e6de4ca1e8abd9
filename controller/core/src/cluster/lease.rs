//! Which runs on a silent node have ended, since their leases are over?
//!
//! In a partition that fences by lease, the node ends a run by itself when it has not been answered
//! for long. A run's lease counts from the sending of a heartbeat that was answered; the silence
//! counts from when the controller heard that heartbeat, or something later. So when the silence
//! exceeds lease, wait and margin, nothing of the run is left, whatever the network did meanwhile.

use penstock_vocab::{NodeName, PartitionName};

use super::Cluster;
use crate::command::Reply;
use crate::model::{Job, NodeIndex, Run, RunLease, RunResult};
use crate::refusal::Refusal;

impl Cluster {
    /// The lease of a run that starts in a partition now.
    pub(super) fn lease_in(&self, partition: &PartitionName) -> Option<RunLease> {
        let policy = &self.config.policy;
        self.partition(partition).is_some_and(|place| place.fence_self).then_some(RunLease {
            secs: policy.fence_lease_secs.max(1),
            kill_wait_secs: policy.kill_wait_secs,
        })
    }

    /// Whether [`crate::Command::LeasesOver`] would end a run of this node. Cost: its jobs.
    #[must_use]
    pub fn has_lease_over(&self, node: NodeIndex, silent_secs: u64) -> bool {
        let Some((place, used)) = self.node(node) else { return false };
        let over = |job: &Job| job.active_run().is_some_and(|run| self.is_over(run, silent_secs));
        place.session.is_none()
            && used.jobs.iter().any(|id| self.jobs.get(id).is_some_and(|job| over(job)))
    }

    fn is_over(&self, run: &Run, silent_secs: u64) -> bool {
        let timeout = u64::from(self.config.policy.node_timeout_secs);
        run.lease.is_some_and(|lease| silent_secs >= lease.over_after_secs().max(timeout))
    }

    /// Ends the runs of a silent node whose leases are over. A node that is back speaks for itself.
    pub(super) fn leases_over(
        &mut self,
        name: &NodeName,
        silent_secs: u64,
    ) -> Result<Reply, Refusal> {
        let (index, node) = self.node_by_name(name)?;
        if node.session.is_some() {
            return Ok(Reply::Done);
        }
        for job in self.jobs_on(index) {
            let Some(run) = job.active_run().cloned() else { continue };
            if !self.is_over(&run, silent_secs) {
                continue;
            }
            let result = RunResult { fenced: true, ..RunResult::default() };
            self.lose_on_node(job.id, index, &result);
        }
        Ok(Reply::Done)
    }
}
