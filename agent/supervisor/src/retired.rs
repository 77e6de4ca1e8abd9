//! Which attempts are over for the controller too, but may still be named by a late message?
//!
//! The end of an attempt is acknowledged, so the spool forgets it. A launch of it that was sent
//! before may still arrive within the same session, repeated or overtaken; it must not start
//! the attempt again. With the next session nothing of the old one counts any more.

use std::collections::{BTreeMap, VecDeque};

use penstock_vocab::{Attempt, JobId};

use crate::held::SpoolEntry;
use crate::words::AttemptKey;

/// Most attempts remembered this way. A stream delivers in order, so a late message is one of
/// the last few; sessions last for weeks at hundreds of jobs a second, so there must be a bound.
pub const MAX_RETIRED: usize = 16_384;

/// Attempts whose end the controller acknowledged in this session, oldest first.
#[derive(Debug)]
pub(crate) struct Retired {
    by_key: BTreeMap<AttemptKey, SpoolEntry>,
    in_order: VecDeque<AttemptKey>,
}

impl Retired {
    pub(crate) const fn new() -> Self {
        Self { by_key: BTreeMap::new(), in_order: VecDeque::new() }
    }

    pub(crate) fn get(&self, key: AttemptKey) -> Option<SpoolEntry> {
        self.by_key.get(&key).copied()
    }

    /// Remembers `key`. Returns an attempt whose tombstone must go because it was pushed out.
    #[must_use]
    pub(crate) fn insert(&mut self, key: AttemptKey, spool: SpoolEntry) -> Option<AttemptKey> {
        if self.by_key.insert(key, spool).is_some() {
            return None;
        }
        self.in_order.push_back(key);
        if self.in_order.len() <= MAX_RETIRED {
            return None;
        }
        let oldest = self.in_order.pop_front()?;
        let spool = self.by_key.remove(&oldest)?;
        (spool == SpoolEntry::Tombstone).then_some(oldest)
    }

    pub(crate) fn newest_attempt(&self, job: JobId) -> Option<Attempt> {
        self.by_key.range(AttemptKey::all_of(job)).next_back().map(|(key, _)| key.attempt)
    }

    /// Forgets everything; returns the attempts whose tombstones must go.
    #[must_use]
    pub(crate) fn clear(&mut self) -> Vec<AttemptKey> {
        self.in_order.clear();
        std::mem::take(&mut self.by_key)
            .into_iter()
            .filter(|(_, spool)| *spool == SpoolEntry::Tombstone)
            .map(|(key, _)| key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(job: u32, attempt: u32) -> AttemptKey {
        AttemptKey::new(JobId(job), Attempt(attempt))
    }

    #[test]
    fn the_oldest_goes_when_full_and_takes_its_tombstone_along() {
        let mut retired = Retired::new();
        assert_eq!(retired.insert(key(0, 0), SpoolEntry::Tombstone), None);
        for job in 1..u32::try_from(MAX_RETIRED).expect("fits") {
            assert_eq!(retired.insert(key(job, 0), SpoolEntry::None), None);
        }
        assert_eq!(retired.insert(key(1, 0), SpoolEntry::None), None, "known already");
        assert_eq!(retired.insert(key(999_999, 0), SpoolEntry::None), Some(key(0, 0)));
        assert_eq!(retired.get(key(0, 0)), None);
        assert_eq!(retired.get(key(1, 0)), Some(SpoolEntry::None));
    }

    #[test]
    fn clearing_names_the_tombstones_only() {
        let mut retired = Retired::new();
        assert_eq!(retired.insert(key(1, 0), SpoolEntry::Intent), None);
        assert_eq!(retired.insert(key(2, 3), SpoolEntry::Tombstone), None);
        assert_eq!(retired.newest_attempt(JobId(2)), Some(Attempt(3)));
        assert_eq!(retired.clear(), [key(2, 3)]);
        assert_eq!(retired.newest_attempt(JobId(2)), None);
    }
}
