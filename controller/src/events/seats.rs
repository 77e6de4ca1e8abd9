//! How many may follow at once?

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Streams that follow at once: each takes part in every change.
const SEATS: usize = 512;
/// Of one user.
const SEATS_OF_ONE: usize = 64;

/// Who follows, by uid.
#[derive(Debug, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<u32, usize>>>);

/// A place among those who follow; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    taken: Arc<Mutex<HashMap<u32, usize>>>,
    uid: u32,
}

impl Seats {
    pub(super) fn take(&self, uid: u32) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        if all >= SEATS || own >= SEATS_OF_ONE {
            return None;
        }
        taken.insert(uid, own + 1);
        Some(Seat { taken: Arc::clone(&self.0), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(taken.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_come_back() {
        let seats = Seats::default();
        let own: Vec<_> = (0..SEATS_OF_ONE).map(|_| seats.take(7).unwrap()).collect();
        assert!(seats.take(7).is_none());
        assert!(seats.take(8).is_some());
        drop(own);
        assert!(seats.take(7).is_some());
        let all: Vec<_> = (0..u32::MAX).map_while(|uid| seats.take(uid)).collect();
        assert_eq!(all.len(), SEATS);
    }
}
