//! How are bytes carried between shepherds and whoever made a step?
//!
//! Each step that wants it has one queue towards its maker, within the window that shepherds keep to
//! ([`penstock_proto::relay`]); one who does not keep to it loses its connection. A pace holds both
//! directions to so many bytes a second, each for itself: signals are not stuck behind output. Nothing
//! is read here of what the two say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use penstock_core::model::StepKey;
use penstock_proto::relay::{RELAY_BYTES_PER_SEC, RELAY_WINDOW_BYTES};
use penstock_proto::v1::RelayFrame;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Messages that may wait for a step's maker: those without data count too.
const MAX_FRAMES: usize = 4_096;
/// What a message costs beside its data.
const FRAME_COST: usize = 64;
/// How much of a second's bytes may go at once.
const BURST: Duration = Duration::from_millis(250);
/// How long a node's first words wait for the maker of its step.
pub const OPEN_TIME: Duration = Duration::from_secs(15);

/// What becomes of a message of a node.
#[derive(Debug, PartialEq, Eq)]
pub enum Given {
    /// It is the first of its step: its maker is to be told.
    First,
    /// It waits, or goes on.
    Queued,
    /// Too much waits: that connection is to be ended.
    Refused,
}

/// All steps with relayed connections.
#[derive(Debug, Default)]
pub struct Relays {
    steps: Mutex<BTreeMap<StepKey, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    waiting: VecDeque<RelayFrame>,
    bytes: usize,
    /// The newest connection of each node.
    channels: BTreeMap<String, u64>,
    wake: Arc<Notify>,
    /// Which reader is the newest; 0: none came yet.
    reader: u64,
}

/// Who takes what is for a step's maker.
#[derive(Debug)]
pub struct Reader<'a> {
    relays: &'a Relays,
    key: StepKey,
    number: u64,
    wake: Arc<Notify>,
}

impl Relays {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StepKey, Entry>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message of a node for the maker of `key`, which has `nodes` nodes.
    pub fn give(&self, key: StepKey, nodes: usize, frame: RelayFrame) -> Given {
        let mut steps = self.lock();
        let is_first = !steps.contains_key(&key);
        let entry = steps.entry(key).or_default();
        // With many nodes, each has a smallest share of its own.
        let most = RELAY_WINDOW_BYTES.max(nodes.saturating_mul(1 << 10));
        let bytes = entry.bytes.saturating_add(frame.data.len());
        let newest = entry.channels.insert(frame.node.clone(), frame.channel);
        if newest.is_some_and(|older| older != frame.channel) {
            entry.forget(&frame.node, frame.channel);
        }
        if bytes > most || entry.waiting.len() >= MAX_FRAMES {
            entry.forget(&frame.node, 0);
            return Given::Refused;
        }
        entry.bytes = entry.bytes.saturating_add(frame.data.len());
        entry.waiting.push_back(frame);
        entry.wake.notify_one();
        if is_first { Given::First } else { Given::Queued }
    }

    /// Whether somebody is wanted who takes what is for the maker of a step.
    pub fn is_wanted(&self, key: StepKey) -> bool {
        self.lock().get(&key).is_some_and(|entry| entry.reader == 0)
    }

    /// The one who takes what is for the maker of `key` from now on; an earlier one gets no more.
    pub fn open(&self, key: StepKey) -> Reader<'_> {
        let mut steps = self.lock();
        let entry = steps.entry(key).or_default();
        entry.reader += 1;
        // The earlier one sees that it is not the newest.
        entry.wake.notify_waiters();
        Reader { relays: self, key, number: entry.reader, wake: Arc::clone(&entry.wake) }
    }

    /// Forgets a step: the connections that are over by that, as node and number.
    pub fn close(&self, key: StepKey) -> Vec<(String, u64)> {
        let entry = self.lock().remove(&key);
        entry
            .map(|entry| {
                entry.wake.notify_waiters();
                entry.channels.into_iter().collect()
            })
            .unwrap_or_default()
    }
}

impl Entry {
    /// Drops what waits of a node's connections but `channel`.
    fn forget(&mut self, node: &str, channel: u64) {
        self.waiting.retain(|frame| frame.node != node || frame.channel == channel);
        self.bytes = self.waiting.iter().map(|frame| frame.data.len()).sum();
    }
}

impl Reader<'_> {
    /// The next message; `None` once another reader came, or the step is forgotten. May be dropped
    /// while it waits, without a loss.
    pub async fn next(&self) -> Option<RelayFrame> {
        loop {
            let woken = self.wake.notified();
            match self.look() {
                Looked::Frame(frame) => return Some(*frame),
                Looked::Over => return None,
                Looked::Nothing => woken.await,
            }
        }
    }

    fn look(&self) -> Looked {
        let mut steps = self.relays.lock();
        let Some(entry) = steps.get_mut(&self.key).filter(|entry| entry.reader == self.number)
        else {
            return Looked::Over;
        };
        match entry.waiting.pop_front() {
            Some(frame) => {
                entry.bytes = entry.bytes.saturating_sub(frame.data.len());
                Looked::Frame(Box::new(frame))
            }
            None => Looked::Nothing,
        }
    }

    /// Forgets the step, if this is the newest reader: connections that are over by that.
    pub fn close(&self) -> Vec<(String, u64)> {
        let newest = |entry: &Entry| entry.reader == self.number;
        let is_newest = self.relays.lock().get(&self.key).is_some_and(newest);
        if is_newest { self.relays.close(self.key) } else { Vec::new() }
    }
}

enum Looked {
    Frame(Box<RelayFrame>),
    Nothing,
    Over,
}

/// So many bytes a second, and not much more at once.
#[derive(Debug)]
pub struct Pace {
    /// When all that went would have gone at this pace.
    next: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: Instant::now() }
    }
}

impl Pace {
    /// Waits until a message with so much data may go.
    pub async fn wait(&mut self, bytes: usize) {
        let now = Instant::now();
        let cost = u64::try_from(bytes.saturating_add(FRAME_COST)).unwrap_or(u64::MAX);
        let micros = cost.saturating_mul(1_000_000) / RELAY_BYTES_PER_SEC as u64;
        self.next = self.next.max(now) + Duration::from_micros(micros);
        tokio::time::sleep_until(self.next.checked_sub(BURST).unwrap_or(now)).await;
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::model::StepNumber;
    use penstock_vocab::{Attempt, JobId};

    use super::*;

    fn key() -> StepKey {
        StepKey { job: JobId(1), attempt: Attempt(0), number: StepNumber(0) }
    }

    fn frame(channel: u64, bytes: usize) -> RelayFrame {
        RelayFrame {
            node: "n1".to_owned(),
            channel,
            data: vec![0; bytes].into(),
            ..RelayFrame::default()
        }
    }

    #[tokio::test]
    async fn a_step_has_so_much_under_way_and_no_more() {
        let relays = Relays::default();
        assert_eq!(relays.give(key(), 1, frame(1, 60_000)), Given::First);
        assert!(relays.is_wanted(key()));
        assert_eq!(relays.give(key(), 1, frame(1, 5_000)), Given::Queued);
        assert_eq!(relays.give(key(), 1, frame(1, 1_000)), Given::Refused);
        assert_eq!(relays.give(key(), 1, frame(3, 9)), Given::Queued, "it calls anew");
        let reader = relays.open(key());
        assert!(!relays.is_wanted(key()));
        assert_eq!(reader.next().await.unwrap().channel, 3, "what waited of the old one is gone");
        for _ in 0..MAX_FRAMES {
            assert_eq!(relays.give(key(), 1, frame(3, 0)), Given::Queued);
        }
        assert_eq!(relays.give(key(), 1, frame(3, 0)), Given::Refused);
    }

    #[tokio::test]
    async fn the_newest_reader_takes_over() {
        let relays = Relays::default();
        relays.give(key(), 1, frame(1, 1));
        let first = relays.open(key());
        assert!(first.next().await.is_some());
        let second = relays.open(key());
        assert!(first.next().await.is_none());
        assert_eq!(first.close(), []);
        assert_eq!(second.close(), [("n1".to_owned(), 1)]);
        assert!(second.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_so_many_bytes() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..128 {
            pace.wait(8 << 10).await;
        }
        let secs = begun.elapsed().as_secs_f64();
        assert!((3.7..4.2).contains(&secs), "1 MiB took {secs} s");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let after = Instant::now();
        pace.wait(32 << 10).await;
        assert!(
            after.elapsed() < Duration::from_millis(1),
            "a pause is not saved up, nor held against"
        );
    }
}
