//! Is there room for one more, for this user?

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what is held, in all and for each uid. Clones share the counts.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    all: usize,
    of_one: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_uid: HashMap<u32, usize>,
}

/// One that is held; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    uid: u32,
    held: Arc<Mutex<Held>>,
}

impl Quota {
    pub(super) fn new(all: usize, of_one: usize) -> Self {
        Self { all, of_one, held: Arc::default() }
    }

    pub(super) fn take(&self, uid: u32) -> Option<Slot> {
        let mut held = lock(&self.held);
        let of_one = held.by_uid.get(&uid).copied().unwrap_or_default();
        if held.all >= self.all || of_one >= self.of_one {
            return None;
        }
        held.all += 1;
        held.by_uid.insert(uid, of_one + 1);
        Some(Slot { uid, held: Arc::clone(&self.held) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.all -= 1;
        if let Entry::Occupied(mut of_one) = held.by_uid.entry(self.uid) {
            *of_one.get_mut() -= 1;
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_it_all_and_what_is_dropped_is_free_again() {
        let quota = Quota::new(3, 2);
        let first = quota.take(1).unwrap();
        let second = quota.take(1).unwrap();
        assert!(quota.take(1).is_none());
        let third = quota.take(2).unwrap();
        assert!(quota.take(3).is_none());
        drop(first);
        let fourth = quota.take(3).unwrap();
        drop((second, third, fourth));
        let held = lock(&quota.held);
        assert_eq!(held.all, 0);
        assert!(held.by_uid.is_empty());
    }
}
