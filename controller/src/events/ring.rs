//! The newest events, and who waits for more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use penstock_core::Cluster;
use penstock_core::command::RecordKey;
use penstock_core::model::{Array, Job};
use penstock_vocab::{JobId, Timestamp};
use tokio::sync::watch;

use super::seats::{Seat, Seats};

/// Events that are kept: some seconds of a busy cluster. Each holds a record that the snapshot of its time
/// held too.
const KEPT: usize = 8_192;
/// Bits of a number that count within one commit, which changes fewer records.
const WITHIN: u32 = 20;

/// A change of one record.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number; later ones are higher.
    pub sequence: u64,
    /// When it was made durable.
    pub at: Timestamp,
    /// What changed.
    pub subject: Subject,
}

/// What changed, as it was then.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A job.
    Job(Arc<Job>),
    /// The record of an array.
    Array(Arc<Array>),
    /// A job went to the history.
    JobGone(JobId),
    /// An array did.
    ArrayGone(JobId),
}

/// More happened than is kept: look at the whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

/// The newest events, and who follows them.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    seats: Seats,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    /// Of events up to this number not all are kept.
    floor: u64,
}

impl Events {
    /// Begins after this revision of the store.
    #[must_use]
    pub fn after(revision: u64) -> Self {
        let floor = revision.wrapping_shl(WITHIN);
        let ring = Ring { events: VecDeque::new(), floor };
        Self { ring: Mutex::new(ring), newest: watch::Sender::new(floor), seats: Seats::default() }
    }

    /// Takes in what one commit changed; `cluster` is as it made it, `revision` its number. Costs what
    /// changed, and wakes whoever follows.
    pub fn record(&self, revision: u64, cluster: &Cluster, changed: &[RecordKey]) {
        let mut number = revision.wrapping_shl(WITHIN);
        let subjects = changed.iter().filter_map(|key| subject(cluster, key));
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = number;
        for subject in subjects {
            number += 1;
            if ring.events.len() >= KEPT
                && let Some(oldest) = ring.events.pop_front()
            {
                ring.floor = oldest.sequence;
            }
            ring.events.push_back(Event { sequence: number, at: cluster.now(), subject });
        }
        drop(ring);
        if number > before {
            self.newest.send_replace(number);
        }
    }

    /// The events after a number, the oldest first, at most `most`.
    ///
    /// # Errors
    /// If not all of them are kept, or the number was never given.
    pub fn since(&self, after: u64, most: usize) -> Result<Vec<Event>, Lagged> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if after < ring.floor || after > *self.newest.borrow() {
            return Err(Lagged);
        }
        let first = ring.events.partition_point(|event| event.sequence <= after);
        Ok(ring.events.range(first..).take(most).cloned().collect())
    }

    /// Number of the newest event. What it tells of is in every snapshot that is taken after this.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Tells of each newer number.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// A place among those who follow; `None`: too many do, or too many of this user.
    #[must_use]
    pub fn admit(&self, uid: u32) -> Option<Seat> {
        self.seats.take(uid)
    }
}

fn subject(cluster: &Cluster, key: &RecordKey) -> Option<Subject> {
    Some(match key {
        RecordKey::Job(id) => match cluster.job(*id) {
            Some(job) => Subject::Job(Arc::clone(job)),
            None => Subject::JobGone(*id),
        },
        RecordKey::Array(id) => match cluster.array(*id) {
            Some(array) => Subject::Array(Arc::clone(array)),
            None => Subject::ArrayGone(*id),
        },
        RecordKey::Step(_)
        | RecordKey::Node(_)
        | RecordKey::Host(_)
        | RecordKey::Token(_)
        | RecordKey::Answer(..)
        | RecordKey::Account(_)
        | RecordKey::User(_)
        | RecordKey::Assoc(_)
        | RecordKey::Qos(_)
        | RecordKey::Usage(_)
        | RecordKey::Reservation(_)
        | RecordKey::Crontab(_)
        | RecordKey::Counters => return None,
    })
}

#[cfg(test)]
mod tests {
    use penstock_core::model::Config;

    use super::*;

    fn empty() -> Cluster {
        Cluster::new(Arc::new(Config::default()), Timestamp(5))
    }

    fn gone(ids: std::ops::Range<u32>) -> Vec<RecordKey> {
        ids.map(|id| RecordKey::Job(JobId(id))).collect()
    }

    fn ids(events: &[Event]) -> Vec<u32> {
        let id = |event: &Event| match &event.subject {
            Subject::JobGone(id) | Subject::ArrayGone(id) => id.0,
            Subject::Job(job) => job.id.0,
            Subject::Array(array) => array.id.0,
        };
        events.iter().map(id).collect()
    }

    #[test]
    fn events_come_in_order_and_once() {
        let events = Events::after(7);
        let start = events.newest();
        let woken = events.watch();
        events.record(8, &empty(), &gone(1..4));
        events.record(9, &empty(), &[RecordKey::Counters]);
        events.record(10, &empty(), &gone(4..6));
        assert!(woken.has_changed().unwrap());
        let first = events.since(start, 2).unwrap();
        assert_eq!(ids(&first), [1, 2]);
        let rest = events.since(first[1].sequence, 100).unwrap();
        assert_eq!(ids(&rest), [3, 4, 5]);
        assert_eq!(events.since(events.newest(), 100).map(|found| found.len()), Ok(0));
    }

    #[test]
    fn who_falls_behind_is_told_so() {
        let events = Events::after(7);
        let start = events.newest();
        let many = u32::try_from(KEPT).unwrap();
        events.record(8, &empty(), &gone(0..many));
        assert_eq!(events.since(start, 1).map(|found| ids(&found)), Ok(vec![0]));
        events.record(9, &empty(), &gone(0..1));
        assert_eq!(events.since(start, 1).unwrap_err(), Lagged);
        assert_eq!(events.since(events.newest() + 1, 1).unwrap_err(), Lagged);
    }

    #[test]
    fn a_number_of_before_a_restart_is_no_later_one() {
        let before = Events::after(7);
        before.record(8, &empty(), &gone(1..3));
        let kept = before.newest();
        let after = Events::after(9);
        after.record(10, &empty(), &gone(3..4));
        assert_eq!(after.since(kept, 10).unwrap_err(), Lagged);
        assert!(after.newest() > kept);
    }
}
