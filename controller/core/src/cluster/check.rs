//! Is everything true that must always be true?
//!
//! The simulation asks after every step, the daemon after a start. What is derived is derived anew
//! and compared; then each node's shares are laid side by side.

use std::fmt;

use fixedbitset::FixedBitSet;
use penstock_vocab::{JobId, JobState, NodeName};

use super::Cluster;
use super::steps::check_steps;
use crate::model::{Hold, Job, NodeUse};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A derived index is not what the records say.
    Index(&'static str),
    /// Two runs hold the same CPU, or more memory or units are given out than a node has.
    Taken {
        /// Where.
        node: NodeName,
        /// What.
        what: &'static str,
    },
    /// A job's fields contradict each other.
    Job {
        /// Which.
        job: JobId,
        /// How.
        what: &'static str,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(what) => write!(f, "the index {what} is not what the records say"),
            Self::Taken { node, what } => write!(f, "on node {node} {what}"),
            Self::Job { job, what } => write!(f, "job {job} {what}"),
        }
    }
}

impl Cluster {
    /// Everything that does not hold; empty if all is well. Cost: all records.
    #[must_use]
    pub fn check(&self) -> Vec<Broken> {
        let mut broken = Vec::new();
        self.check_index(&mut broken);
        self.check_nodes(&mut broken);
        if let Some(what) = self.accounts.contradiction() {
            broken.push(Broken::Index(what));
        }
        check_steps(self, &mut broken);
        for job in self.jobs.values() {
            if let Some(what) = contradiction(job) {
                broken.push(Broken::Job { job: job.id, what });
            }
        }
        broken
    }

    fn check_index(&self, broken: &mut Vec<Broken>) {
        // Units whose time has come stand aside until the next tick.
        let mut settled = self.clone();
        while settled.release_deferred() {}
        let mut fresh = settled.clone();
        fresh.reindex();
        let (have, want) = (&settled.index, &fresh.index);
        let pairs = [
            (have.queue == want.queue, "queue"),
            (have.dependents == want.dependents, "dependents"),
            (have.tasks == want.tasks, "array tasks"),
            (have.doomed == want.doomed, "doomed"),
            (self.uses.iter().zip(&fresh.uses).all(|(a, b)| same_use(a, b)), "node use"),
            (have.deferred == want.deferred, "deferred"),
            (have.deferred_until == want.deferred_until, "deferred by unit"),
            (have.over == want.over, "over"),
            (have.task_counts == want.task_counts, "task counts"),
            (have.starts == want.starts, "starts"),
            (have.running_shapes == want.running_shapes, "shapes that run"),
            (self.site == self.derived_site(), "places of nodes"),
            (have.due == want.due, "due"),
            (have.yielding == want.yielding, "yielding"),
            (have.licenses == want.licenses, "licences"),
            (have.reserved == want.reserved, "reserved"),
            (have.timed == want.timed, "timed dependencies"),
            (have.names == want.names, "names"),
            (have.rates == want.rates, "rates of use"),
            (have.limits == want.limits, "limits"),
            (have.live_steps == want.live_steps, "live steps"),
            (have.allocations == want.allocations, "jobs without a script"),
            (have.crons == want.crons, "jobs of crontabs"),
            (self.answers.len() == self.answers_by_age.len(), "answers by age"),
        ];
        for (_, what) in pairs.iter().filter(|(same, _)| !same) {
            broken.push(Broken::Index(what));
        }
    }

    fn check_nodes(&self, broken: &mut Vec<Broken>) {
        for (index, node, used) in self.nodes() {
            let (mut cpus, mut sharers) = (0, NodeUse::default());
            let mut memory = 0u64;
            let mut units = 0;
            for job in used.jobs.iter().filter_map(|id| self.jobs.get(id)) {
                let Some(run) = job.active_run() else { continue };
                let still = run.suspended_since.is_some();
                for share in run.shares.iter().filter(|share| share.node == index) {
                    if share.sharing > 1 && !still {
                        cpus += usize::from(!sharers.admits_cpus(share));
                        sharers.add_cpus(share);
                    } else if !still {
                        cpus += share.cpus.count_ones(..);
                    }
                    memory = memory.saturating_add(share.memory.0);
                    units += share.gres.iter().map(|gres| gres.ids.len()).sum::<usize>();
                }
            }
            cpus += sharers.cpus.count_ones(..);
            let taken: usize = used.gres.iter().map(|units| units.count_ones(..)).sum();
            let name = || node.name.clone();
            if cpus != used.cpus.count_ones(..) {
                broken.push(Broken::Taken { node: name(), what: "two runs hold the same CPU" });
            }
            if memory != used.memory.0 {
                broken.push(Broken::Taken { node: name(), what: "the memory does not add up" });
            }
            if units != taken {
                broken.push(Broken::Taken { node: name(), what: "two runs hold the same device" });
            }
        }
    }
}

/// Whether the same is taken, however much room the sets have.
fn same_use(a: &NodeUse, b: &NodeUse) -> bool {
    let same = |a: &FixedBitSet, b: &FixedBitSet| a.is_subset(b) && b.is_subset(a);
    let none = FixedBitSet::new();
    let kinds = a.gres.len().max(b.gres.len());
    let units = |used: &NodeUse, at: usize| used.gres.get(at).unwrap_or(&none).clone();
    same(&a.cpus, &b.cpus)
        && a.memory == b.memory
        && a.jobs == b.jobs
        && a.holders == b.holders
        && a.shared == b.shared
        && (0..kinds).all(|at| same(&units(a, at), &units(b, at)))
}

fn contradiction(job: &Job) -> Option<&'static str> {
    let active = job.active_run().is_some();
    if job.is_pending() && active {
        return Some("is pending and holds resources");
    }
    if job.is_over() && job.cron.is_some() {
        return Some("is over and comes again");
    }
    if job.is_over() && job.end_time.is_none() {
        return Some("is over and has no end");
    }
    if job.state == JobState::Running && !active {
        return Some("runs and holds nothing");
    }
    let still = job.active_run().is_some_and(|run| run.suspended_since.is_some());
    if job.state == JobState::Suspended && !still {
        return Some("is suspended and its run is not");
    }
    if still && job.state == JobState::Running && job.active_run().is_some_and(|r| !r.is_ending()) {
        return Some("runs and its run is suspended");
    }
    if job.run.as_ref().is_some_and(|run| run.attempt > job.last_attempt) {
        return Some("has a run newer than its newest attempt");
    }
    if !job.is_pending() && job.hold != Hold::None && job.run.is_none() && !job.is_over() {
        return Some("is held and not pending");
    }
    None
}
