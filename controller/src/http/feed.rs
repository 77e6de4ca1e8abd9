//! What happened to jobs and nodes since somebody last looked?
//!
//! Events are derived from consecutive snapshots, so that they cost the writer nothing: what came and went
//! between two looks is told once, as it is in the end. The newest are kept; whoever was away for longer is
//! told so, and reads the listings again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use penstock_core::Cluster;
use penstock_core::cluster::node_status;
use penstock_core::model::{Array, Job};
use penstock_vocab::{JobState, Timestamp, display_state};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::writer::Snapshot;

/// Events that are kept.
const KEPT: usize = 8_192;
/// Least time between two looks: what happens within is told as one.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number, one more than that of the event before.
    pub number: u64,
    /// When it was noticed.
    pub at: Timestamp,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A job came, or its state changed.
    Job(JobEvent),
    /// An array came, or other tasks of it wait now.
    Array {
        /// Its number.
        id: u32,
        /// Its owner.
        uid: u32,
        /// Login name of its owner.
        user: Box<str>,
        /// Its name.
        name: Box<str>,
        /// How many tasks wait.
        waiting: u64,
    },
    /// The state of a node changed.
    Node {
        /// Its name.
        name: Box<str>,
        /// As scontrol prints it.
        state: String,
        /// As it was; none: it is new.
        was: Option<String>,
    },
}

/// A job that came or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Its number.
    pub id: u32,
    /// The array that it is of, and its index there.
    pub array: Option<(u32, u32)>,
    /// Its owner.
    pub uid: u32,
    /// Login name of its owner.
    pub user: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Slurm's word for its state.
    pub state: &'static str,
    /// The state that it had; none: it is new.
    pub was: Option<&'static str>,
    /// It is over.
    pub over: bool,
}

/// The newest events.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    last: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the newest event; changes with it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The events after number `last`; `None` where some of them are no longer kept, or none such was.
    #[must_use]
    pub fn since(&self, last: u64) -> Option<Vec<Arc<Event>>> {
        let ring = self.lock();
        let missed = ring.last.checked_sub(last)?;
        let missed = usize::try_from(missed).unwrap_or(usize::MAX);
        let skip = ring.events.len().checked_sub(missed)?;
        Some(ring.events.iter().skip(skip).cloned().collect())
    }

    /// Adds what differs between two snapshots.
    pub fn add(&self, before: &Cluster, after: &Cluster, now: Timestamp) {
        let happened = between(before, after);
        if happened.is_empty() {
            return;
        }
        let mut ring = self.lock();
        for what in happened {
            ring.last += 1;
            let event = Arc::new(Event { number: ring.last, at: now, what });
            if ring.events.len() == KEPT {
                ring.events.pop_front();
            }
            ring.events.push_back(event);
        }
        let last = ring.last;
        drop(ring);
        self.newest.send_replace(last);
    }

    /// Follows the snapshots until `stop`.
    pub async fn follow(
        &self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        clock: &Clock,
        stop: &CancellationToken,
    ) {
        let mut seen = Arc::clone(&snapshots.borrow_and_update());
        loop {
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            let next = Arc::clone(&snapshots.borrow_and_update());
            self.add(&seen.cluster, &next.cluster, clock.now());
            seen = next;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// What happened between two snapshots, jobs first.
fn between(before: &Cluster, after: &Cluster) -> Vec<What> {
    let jobs = after.jobs_since(before).filter_map(|(old, new)| job_event(old, new?));
    let arrays = after.arrays_since(before).filter_map(|(old, new)| array_event(old, new?));
    let mut happened: Vec<What> = jobs.map(What::Job).chain(arrays).collect();
    for (index, node, used) in after.nodes() {
        let old = before.node(index).filter(|(old, _)| old.name == node.name);
        if old.is_some_and(|(old, taken)| Arc::ptr_eq(old, node) && Arc::ptr_eq(taken, used)) {
            continue;
        }
        let state = node_status(after, node, used).to_string();
        let was = old.map(|(node, used)| node_status(before, node, used).to_string());
        if was.as_ref() != Some(&state) {
            happened.push(What::Node { name: node.name.as_str().into(), state, was });
        }
    }
    happened
}

fn word(job: &Job) -> &'static str {
    display_state(job.state, job.flags())
}

fn job_event(old: Option<&Arc<Job>>, new: &Arc<Job>) -> Option<JobEvent> {
    let was = old.map(|old| word(old));
    let state = word(new);
    let again = old.is_some_and(|old| old.last_attempt != new.last_attempt);
    if was == Some(state) && !again {
        return None;
    }
    Some(JobEvent {
        id: new.id.0,
        array: new.array.map(|task| (task.base.0, task.index.0)),
        uid: new.uid.0,
        user: new.spec.details.user_name.clone(),
        name: new.spec.name.clone(),
        state,
        was,
        over: new.state != JobState::Pending && new.is_over(),
    })
}

fn array_event(old: Option<&Arc<Array>>, new: &Arc<Array>) -> Option<What> {
    let waiting = new.pending.len();
    if old.is_some_and(|old| old.pending.len() == waiting) {
        return None;
    }
    Some(What::Array {
        id: new.id.0,
        uid: new.uid.0,
        user: new.spec.details.user_name.clone(),
        name: new.spec.name.clone(),
        waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Arc<Event> {
        let what = What::Node { name: "n".into(), state: "IDLE".into(), was: None };
        Arc::new(Event { number, at: Timestamp(0), what })
    }

    #[test]
    fn who_was_away_too_long_is_told_so() {
        let events = Events::default();
        {
            let mut ring = events.lock();
            ring.last = 10;
            ring.events = (8..=10).map(event).collect();
        }
        let numbers =
            |last| events.since(last).map(|list| list.iter().map(|e| e.number).collect::<Vec<_>>());
        assert_eq!(numbers(10), Some(vec![]));
        assert_eq!(numbers(8), Some(vec![9, 10]));
        assert_eq!(numbers(7), Some(vec![8, 9, 10]));
        assert_eq!(numbers(6), None);
        // Of another life of the controller.
        assert_eq!(numbers(11), None);
    }
}
