//! Who is told when something becomes of a job?

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_vocab::JobId;
use tokio::sync::watch;

/// One channel for each job that somebody watches. It carries a count: who wakes looks at the newest
/// snapshot.
#[derive(Debug, Default)]
pub struct Watches {
    jobs: Mutex<HashMap<JobId, watch::Sender<u64>>>,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<u64>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change of a job's steps from now on, and of the job itself where it has steps that
    /// run or has no script.
    pub fn watch(&self, job: JobId) -> watch::Receiver<u64> {
        self.lock().entry(job).or_default().subscribe()
    }

    /// Something became of a job.
    pub fn tell(&self, job: JobId) {
        let mut jobs = self.lock();
        let Some(sender) = jobs.get(&job) else { return };
        if sender.receiver_count() == 0 {
            jobs.remove(&job);
        } else {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Forgets jobs that nobody watches any more.
    pub fn sweep(&self) {
        self.lock().retain(|_, sender| sender.receiver_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_watches_a_job_is_woken_for_it_alone() {
        let watches = Watches::default();
        let mut one = watches.watch(JobId(1));
        let two = watches.watch(JobId(2));
        watches.tell(JobId(1));
        watches.tell(JobId(3));
        one.changed().await.unwrap();
        assert!(!two.has_changed().unwrap());
        drop(one);
        watches.tell(JobId(1));
        watches.sweep();
        assert_eq!(watches.lock().keys().copied().collect::<Vec<_>>(), [JobId(2)]);
    }
}
