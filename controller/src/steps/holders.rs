//! Who holds a job without a script?
//!
//! Whoever made it keeps a stream open. When that is gone for long, nobody is left who could use the
//! job, and it is cancelled; after a restart of the controller holders get longer to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::Cluster;
use penstock_vocab::{JobId, Timestamp};

/// How long a job lasts that nobody holds, seconds.
const GRACE_SECS: u64 = 30;
/// The same for one that nobody has held since the controller started.
const GRACE_AFTER_START_SECS: u64 = 60;

/// Holders of all jobs.
#[derive(Debug, Default)]
pub struct Holders {
    jobs: Arc<Mutex<HashMap<JobId, Held>>>,
}

#[derive(Debug, Default)]
struct Held {
    streams: u32,
    /// When the last of them ended.
    left: Option<Timestamp>,
}

/// One stream, until it is dropped. The job counts as held up to when the stream was last seen.
#[derive(Debug)]
pub struct Holding {
    jobs: Arc<Mutex<HashMap<JobId, Held>>>,
    job: JobId,
    seen: Timestamp,
}

impl Holders {
    /// Somebody holds a job from now on.
    pub fn hold(&self, job: JobId, now: Timestamp) -> Holding {
        lock(&self.jobs).entry(job).or_default().streams += 1;
        Holding { jobs: Arc::clone(&self.jobs), job, seen: now }
    }

    /// Jobs without a script that nobody has held for too long. Forgets what is over. `started`: when
    /// this process did.
    pub fn abandoned(&self, cluster: &Cluster, now: Timestamp, started: Timestamp) -> Vec<JobId> {
        let mut jobs = lock(&self.jobs);
        jobs.retain(|id, held| {
            held.streams > 0 || cluster.job(*id).is_some_and(|job| !job.is_over())
        });
        let unheld = |id: JobId, submitted: Timestamp| match jobs.get(&id) {
            Some(held) if held.streams > 0 => false,
            Some(held) => {
                let left = held.left.unwrap_or(started);
                now.since(left).as_secs() >= GRACE_SECS
            }
            None if submitted >= started => now.since(submitted).as_secs() >= GRACE_SECS,
            None => now.since(started).as_secs() >= GRACE_AFTER_START_SECS,
        };
        let waits = cluster
            .allocations()
            .filter(|job| !job.spec.details.unheld)
            .filter(|job| !job.active_run().is_some_and(|run| run.is_ending()));
        waits.filter(|job| unheld(job.id, job.submit_time)).map(|job| job.id).collect()
    }
}

impl Holding {
    /// The stream was still there at this time.
    pub fn seen(&mut self, now: Timestamp) {
        self.seen = self.seen.max(now);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(held) = lock(&self.jobs).get_mut(&self.job) {
            held.streams = held.streams.saturating_sub(1);
            held.left = Some(self.seen);
        }
    }
}

fn lock(jobs: &Mutex<HashMap<JobId, Held>>) -> MutexGuard<'_, HashMap<JobId, Held>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use penstock_core::Command;
    use penstock_proto::v1;

    use super::*;
    use crate::listing::world::{job, world};

    #[test]
    fn a_job_is_abandoned_when_nobody_held_it_for_long_and_later_after_a_restart() {
        let mut world = world();
        let id = world.submit(v1::JobSpec { allocation: true, ..job("held", "alice") });
        world.submit(job("scripted", "alice"));
        // salloc --no-shell: it needs no holder.
        world.submit(v1::JobSpec { allocation: true, unheld: true, ..job("alone", "alice") });
        let begin = world.now;
        let at = |secs| begin.plus_secs(secs);
        let holders = Holders::default();
        let before = begin.minus_secs(1);
        let gone = |secs| holders.abandoned(&world.cluster, at(secs), before);
        assert_eq!(gone(29), []);
        assert_eq!(gone(30), [id]);
        let mut holding = holders.hold(id, at(5));
        assert_eq!(gone(1_000), []);
        holding.seen(at(1_000));
        drop(holding);
        assert_eq!(gone(1_029), []);
        assert_eq!(gone(1_030), [id]);
        // Another process, which has seen no holder yet.
        let restarted = Holders::default();
        assert_eq!(restarted.abandoned(&world.cluster, at(2_059), at(2_000)), []);
        assert_eq!(restarted.abandoned(&world.cluster, at(2_060), at(2_000)), [id]);
        let left = restarted.hold(id, at(2_010));
        drop(left);
        assert_eq!(restarted.abandoned(&world.cluster, at(2_040), at(2_000)), [id]);
        world.run(Command::Abandoned(vec![id]));
        assert_eq!(holders.abandoned(&world.cluster, at(9_000), before), []);
    }
}
