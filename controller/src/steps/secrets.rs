//! Where does srun listen, and what must a shepherd know to be heard?
//!
//! Neither is in a record: a secret stands in no store, listing or log. Each stands here under the
//! number that its step carries, from before the step is made until it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What is kept of one step.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Where srun listens, the best address first.
    pub addresses: Vec<String>,
    /// Its port.
    pub port: u32,
    /// What who connects must know.
    pub secret: Bytes,
}

/// Without the secret, so that no log can hold it.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("addresses", &self.addresses)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// What is kept of all steps.
#[derive(Debug, Default)]
pub struct Secrets {
    last: AtomicU64,
    kept: Arc<Mutex<BTreeMap<u64, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    /// Somebody still asks for the step.
    asked: bool,
}

/// Keeps a secret while its step is asked for; from then on the step does.
#[derive(Debug)]
pub struct Keeping {
    kept: Arc<Mutex<BTreeMap<u64, Entry>>>,
    /// Never 0.
    pub number: u64,
}

impl Secrets {
    /// Keeps it under a new number.
    pub fn keep(&self, kept: Kept) -> Keeping {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.kept).insert(number, Entry { kept, asked: true });
        Keeping { kept: Arc::clone(&self.kept), number }
    }

    /// What stands under a number.
    pub fn find(&self, number: u64) -> Option<Kept> {
        lock(&self.kept).get(&number).map(|entry| entry.kept.clone())
    }

    /// Forgets what no step carries and nobody asks a step for.
    pub fn sweep(&self, carried: &BTreeSet<u64>) {
        lock(&self.kept).retain(|number, entry| entry.asked || carried.contains(number));
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(entry) = lock(&self.kept).get_mut(&self.number) {
            entry.asked = false;
        }
    }
}

fn lock(kept: &Mutex<BTreeMap<u64, Entry>>) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_and_goes_with_its_step() {
        let secrets = Secrets::default();
        let secret = Bytes::from_static(b"do not show me");
        let kept = Kept { addresses: vec!["10.0.0.1".into()], port: 7, secret };
        assert!(!format!("{kept:?}").contains("show me"));
        let keeping = secrets.keep(kept.clone());
        let number = keeping.number;
        secrets.sweep(&BTreeSet::new());
        assert_eq!(secrets.find(number), Some(kept), "its step may be about to be made");
        drop(keeping);
        secrets.sweep(&BTreeSet::from([number]));
        assert!(secrets.find(number).is_some());
        secrets.sweep(&BTreeSet::new());
        assert_eq!(secrets.find(number), None);
    }
}
