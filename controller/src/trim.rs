//! When does memory that is free again go back to the system?
//!
//! glibc keeps what threads have freed in arenas of their own. After a burst of submissions that is as
//! much as the jobs themselves take, and it stays. It is given back when nothing was written for a
//! moment, and now and then where that never comes.

use std::time::Duration;

/// How often is looked whether it is time.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Looks between two times without rest.
const LOOKS_WITHOUT_REST: u32 = 60;
/// Commits that are worth the trouble.
const WORTH: u64 = 50;

/// Sees when it is time.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    /// The newest commit at the last look, and when memory was last given back.
    seen: u64,
    done: u64,
    looks: u32,
}

impl Trim {
    /// Whether memory is to be given back now, where `sequence` is the newest commit.
    pub(crate) fn is_due(&mut self, sequence: u64) -> bool {
        let rests = sequence == self.seen;
        self.seen = sequence;
        self.looks += 1;
        let worth = sequence.saturating_sub(self.done) >= WORTH;
        let due = worth && (rests || self.looks >= LOOKS_WITHOUT_REST);
        if due {
            self.done = sequence;
            self.looks = 0;
        }
        due
    }
}

/// Gives back what is free in all arenas. Takes some milliseconds for a large heap.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim may be called at any time from any thread; it takes the arenas' locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators keep no such arenas.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_after_a_burst_and_now_and_then_without_rest() {
        let mut trim = Trim::default();
        assert!(!trim.is_due(10), "too little");
        assert!(!trim.is_due(1_000), "the burst goes on");
        assert!(trim.is_due(1_000));
        assert!(!trim.is_due(1_000), "nothing new");
        assert!(!trim.is_due(1_010));
        assert!(!trim.is_due(1_010), "not worth it");
        let busy = (0..LOOKS_WITHOUT_REST).filter(|at| trim.is_due(2_000 + u64::from(*at)));
        assert_eq!(busy.count(), 1);
    }
}
