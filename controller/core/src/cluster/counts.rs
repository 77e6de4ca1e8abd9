//! What does each record count for, where limits look at counts?

use std::sync::Arc;

use penstock_vocab::{PartitionName, Timestamp, Tres};

use super::Cluster;
use crate::model::{Array, Job, JobSpec, NodeShare, Run};
use crate::policy::add_gres;
use crate::policy::limits::{LimitState, Owner, Taken, UNLIMITED_SECS};

/// What a job counts for, until it is over.
struct Counted {
    owners: Vec<Owner>,
    taken: Option<Taken>,
}

impl Cluster {
    /// What is in use, by whom.
    #[must_use]
    pub fn limits(&self) -> &LimitState {
        &self.index.limits
    }

    /// A job's record changed: it counts for what it now says.
    pub(super) fn recount_job(&mut self, old: Option<&Arc<Job>>, new: Option<&Arc<Job>>) {
        if let (Some(old), Some(new)) = (old, new)
            && same_counts(old, new)
        {
            return;
        }
        let before = old.and_then(|job| self.counted(job));
        let after = new.and_then(|job| self.counted(job));
        let owners = |counted: &Option<Counted>| -> Vec<Owner> {
            counted.as_ref().map(|counted| counted.owners.clone()).unwrap_or_default()
        };
        let (gone, come) = (owners(&before), owners(&after));
        if gone != come {
            self.index.limits.queue(&gone, -1);
            self.index.limits.queue(&come, 1);
        }
        let taken = |counted: Option<Counted>| counted.and_then(|counted| counted.taken);
        let (freed, taken) = (taken(before), taken(after));
        if freed == taken && (gone == come || freed.is_none()) {
            return;
        }
        self.read_meters(&gone);
        self.read_meters(&come);
        if let Some(freed) = freed {
            self.index.limits.give_back(&gone, &freed);
        }
        if let Some(taken) = taken {
            self.index.limits.take(&come, &taken);
        }
        self.set_wakes(&gone);
        self.set_wakes(&come);
    }

    /// An array's record changed: its waiting tasks count as so many jobs.
    pub(super) fn recount_array(&mut self, old: Option<&Arc<Array>>, new: Option<&Arc<Array>>) {
        let waiting = |array: Option<&Arc<Array>>| {
            array.map_or(0, |array| i64::try_from(array.pending.len()).unwrap_or(i64::MAX))
        };
        let (before, after) = (waiting(old), waiting(new));
        if let (Some(old), Some(new)) = (old, new)
            && same_place(&old.spec, &new.spec)
            && old.assoc == new.assoc
        {
            if before != after {
                let owners = self.array_owners(new);
                self.index.limits.queue(&owners, after.saturating_sub(before));
            }
            return;
        }
        for (array, more) in [(old, -before), (new, after)] {
            if let Some(array) = array {
                let owners = self.array_owners(array);
                self.index.limits.queue(&owners, more);
            }
        }
    }

    pub(super) fn array_owners(&self, array: &Array) -> Vec<Owner> {
        let partition = self.first_partition(&array.spec);
        self.owners(&array.spec, array.assoc, array.uid, partition)
    }

    pub(super) fn job_owners(&self, job: &Job) -> Vec<Owner> {
        let partition = match job.active_run() {
            Some(run) => Some(&run.partition),
            None => self.first_partition(&job.spec),
        };
        self.owners(&job.spec, job.assoc, job.uid, partition)
    }

    /// Where a job that waits counts: in the partition that it likes best.
    fn first_partition<'a>(&'a self, spec: &'a JobSpec) -> Option<&'a PartitionName> {
        self.partitions_of(spec).next().map(|partition| &partition.name)
    }

    fn counted(&self, job: &Job) -> Option<Counted> {
        if job.is_over() {
            return None;
        }
        let taken = job.active_run().map(|run| {
            let (end, still_ms) = end_of(job, run);
            Taken {
                job: job.id,
                tres: Arc::new(Self::run_tres(run, &job.spec)),
                end,
                still_ms,
                factor: run.usage_factor,
            }
        });
        Some(Counted { owners: self.job_owners(job), taken })
    }

    /// What so many shares come to in a partition, billing included, and the most on one node.
    #[must_use]
    pub fn amounts(
        &self,
        partition: &PartitionName,
        shares: &[NodeShare],
        spec: &JobSpec,
    ) -> (Tres, Tres) {
        let mut tres = Self::shares_tres(shares, spec);
        tres.billing = self.billing_of(partition, shares, &tres);
        (tres, most_on_a_node(shares))
    }
}

/// The most of each kind that one of the nodes gives.
fn most_on_a_node(shares: &[NodeShare]) -> Tres {
    let mut most = Tres { node: u64::from(!shares.is_empty()), ..Tres::default() };
    for share in shares {
        most.cpu = most.cpu.max(share.cpu_count().into());
        most.mem = most.mem.max(share.memory);
        let mut gres = Tres::default();
        for have in &share.gres {
            add_gres(&mut gres, &have.name, have.ids.len() as u64);
        }
        for (name, count) in gres.gres {
            let place = most.gres.entry(name).or_insert(0);
            *place = (*place).max(count);
        }
    }
    most
}

/// When a run must have ended, and where it stands still what it has left, in milliseconds.
fn end_of(job: &Job, run: &Run) -> (Timestamp, u64) {
    let limit_ms = job.time_limit.as_secs().unwrap_or(UNLIMITED_SECS).saturating_mul(1_000);
    match run.suspended_since {
        Some(since) => {
            let elapsed = since.since(run.start_time).0.saturating_sub(run.suspended_ms);
            (Timestamp::MAX, limit_ms.saturating_sub(elapsed))
        }
        None => {
            let length = penstock_vocab::Millis(limit_ms.saturating_add(run.suspended_ms));
            (run.start_time.plus(length), 0)
        }
    }
}

/// Whether two records of a job plainly count for the same; where not, it is looked at.
fn same_counts(old: &Job, new: &Job) -> bool {
    let same_run = match (old.active_run(), new.active_run()) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            Arc::ptr_eq(a, b)
                || (a.attempt == b.attempt
                    && a.suspended_since == b.suspended_since
                    && a.suspended_ms == b.suspended_ms
                    && a.shares == b.shares
                    && a.billing == b.billing
                    && a.usage_factor == b.usage_factor
                    && a.partition == b.partition
                    && a.start_time == b.start_time)
        }
        (Some(_), None) | (None, Some(_)) => false,
    };
    same_run
        && old.is_over() == new.is_over()
        && old.assoc == new.assoc
        && old.uid == new.uid
        && old.time_limit == new.time_limit
        && same_place(&old.spec, &new.spec)
        && (Arc::ptr_eq(&old.spec, &new.spec) || old.spec.shape.licenses == new.spec.shape.licenses)
}

fn same_place(old: &Arc<JobSpec>, new: &Arc<JobSpec>) -> bool {
    Arc::ptr_eq(old, new)
        || (old.account == new.account && old.qos == new.qos && old.partitions == new.partitions)
}
