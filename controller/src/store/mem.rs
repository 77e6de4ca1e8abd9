//! What does the daemon see when its store fails and tears?
//!
//! [`MemStore`] keeps everything in memory and misbehaves by a seed: the same seed and the same
//! calls give the same run. A [`crash`](MemStore::crash) keeps exactly a prefix of the batches:
//! all that were answered `Ok`, and perhaps some behind that were not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::api::{BlobSource, BlobSweep, Store, check_limits};
use super::error::StoreError;
use super::key::{Batch, BatchLimits, BlobHash, Change, Key, MAX_BLOB_BYTES, Revision, Term};

/// How often a commit goes wrong, in commits of a thousand each. Their sum is at most 1000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemFaults {
    /// Answered [`StoreError::Unavailable`], not applied.
    pub unavailable: u32,
    /// Answered [`StoreError::Unknown`], applied.
    pub unknown_applied: u32,
    /// Answered [`StoreError::Unknown`], not applied.
    pub unknown_lost: u32,
    /// Answered [`StoreError::Failed`], not applied; dead until [`MemStore::crash`].
    pub failed_before: u32,
    /// Answered [`StoreError::Failed`], applied or not after a crash; dead until then.
    pub failed_after: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Well,
    Unavailable,
    Unknown { applied: bool },
    Failed { written: bool },
}

impl MemFaults {
    fn fate(&self, roll: u32) -> Fate {
        let fates = [
            (self.unavailable, Fate::Unavailable),
            (self.unknown_applied, Fate::Unknown { applied: true }),
            (self.unknown_lost, Fate::Unknown { applied: false }),
            (self.failed_before, Fate::Failed { written: false }),
            (self.failed_after, Fate::Failed { written: true }),
        ];
        let mut below = 0;
        for (share, fate) in fates {
            below += share;
            if roll < below {
                return fate;
            }
        }
        Fate::Well
    }
}

type Records = BTreeMap<Key, Bytes>;
type BlobMap = Arc<Mutex<HashMap<BlobHash, Bytes>>>;

/// A store in memory that fails by a seed.
#[derive(Debug)]
pub struct MemStore {
    faults: MemFaults,
    random: SplitMix,
    term: Term,
    /// Everything up to the last `Ok`.
    durable: Records,
    durable_revision: u64,
    /// Batches behind it that were applied and not answered `Ok`.
    pending: Vec<Batch>,
    blobs: BlobMap,
    dead: bool,
}

impl Default for MemStore {
    fn default() -> MemStore {
        MemStore::new()
    }
}

impl MemStore {
    /// An empty store that never fails.
    pub fn new() -> MemStore {
        MemStore::faulty(0, MemFaults::default())
    }

    /// An empty store that fails as `seed` says.
    pub fn faulty(seed: u64, faults: MemFaults) -> MemStore {
        MemStore {
            faults,
            random: SplitMix(seed),
            term: Term(0),
            durable: Records::new(),
            durable_revision: 0,
            pending: Vec::new(),
            blobs: BlobMap::default(),
            dead: false,
        }
    }

    /// Changes how often commits go wrong, from the next one on.
    pub fn set_faults(&mut self, faults: MemFaults) {
        self.faults = faults;
    }

    /// Power is cut and comes back: what was answered `Ok` is there; of what was applied and not
    /// answered, a prefix that the seed chooses. Terms of before are over.
    pub fn crash(&mut self) {
        let most = self.pending.len() as u64 + 1;
        let kept = usize::try_from(self.random.next() % most).expect("at most the batches pending");
        self.pending.truncate(kept);
        self.settle();
        self.dead = false;
        self.term = Term(self.term.0 + 1);
    }

    /// The newest applied batch.
    pub fn revision(&self) -> Revision {
        Revision(self.durable_revision + self.pending.len() as u64)
    }

    /// Makes all that is pending durable.
    fn settle(&mut self) {
        for batch in std::mem::take(&mut self.pending) {
            self.durable_revision += 1;
            apply(&mut self.durable, &batch.changes);
            self.keep_blobs(&batch);
        }
    }

    fn keep_blobs(&self, batch: &Batch) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        for (hash, bytes) in &batch.blobs {
            blobs.entry(*hash).or_insert_with(|| bytes.clone());
        }
    }

    fn check(&self, term: Term) -> Result<(), StoreError> {
        if term != self.term {
            return Err(StoreError::Deposed { term });
        }
        if self.dead {
            return Err(StoreError::Failed("an earlier commit failed".into()));
        }
        Ok(())
    }
}

fn apply(records: &mut Records, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => records.insert(key.clone(), value.clone()),
            Change::Delete(key) => records.remove(key),
        };
    }
}

impl Store for MemStore {
    fn limits(&self) -> BatchLimits {
        BatchLimits { records: 20_000, bytes: 16 << 20, blob_bytes: MAX_BLOB_BYTES }
    }

    fn acquire(&mut self, _holder: &str) -> Result<Term, StoreError> {
        self.check(self.term)?;
        self.term = Term(self.term.0 + 1);
        Ok(self.term)
    }

    fn commit(&mut self, term: Term, batch: &Batch) -> Result<Revision, StoreError> {
        self.check(term)?;
        check_limits(batch, self.limits())?;
        let roll = u32::try_from(self.random.next() % 1000).expect("below 1000");
        let next = Revision(self.revision().0 + 1);
        match self.faults.fate(roll) {
            Fate::Well => {
                self.pending.push(batch.clone());
                self.settle();
                Ok(next)
            }
            Fate::Unavailable => Err(StoreError::Unavailable("the disk is full (seeded)".into())),
            Fate::Unknown { applied } => {
                if applied {
                    self.pending.push(batch.clone());
                    self.keep_blobs(batch);
                }
                Err(StoreError::Unknown { revision_hint: Some(next) })
            }
            Fate::Failed { written } => {
                if written {
                    self.pending.push(batch.clone());
                }
                self.dead = true;
                Err(StoreError::Failed("fsync failed (seeded)".into()))
            }
        }
    }

    fn load(
        &mut self,
        each: &mut dyn FnMut(Key, Bytes) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        let mut records = self.durable.clone();
        for batch in &self.pending {
            apply(&mut records, &batch.changes);
        }
        for (key, value) in records {
            each(key, value)?;
        }
        Ok(self.revision())
    }

    fn blobs(&self) -> Arc<dyn BlobSource> {
        Arc::new(MemBlobs(self.blobs.clone()))
    }

    fn retain_blobs(
        &mut self,
        term: Term,
        live: &dyn Fn(&BlobHash) -> bool,
    ) -> Result<BlobSweep, StoreError> {
        self.check(term)?;
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sweep = BlobSweep::default();
        blobs.retain(|hash, bytes| {
            let keep = live(hash);
            sweep.freed_bytes += if keep { 0 } else { bytes.len() as u64 };
            keep
        });
        Ok(sweep)
    }
}

struct MemBlobs(BlobMap);

impl BlobSource for MemBlobs {
    fn blob(&self, hash: &BlobHash) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned())
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014,
/// fig. 15): small, and its stream never changes under us.
#[derive(Debug, Clone)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULTS: MemFaults = MemFaults {
        unavailable: 100,
        unknown_applied: 100,
        unknown_lost: 50,
        failed_before: 50,
        failed_after: 100,
    };

    /// Runs 300 commits with crashes; checks the promise; returns a trace.
    fn run(seed: u64) -> Vec<String> {
        let mut store = MemStore::faulty(seed, FAULTS);
        let mut term = store.acquire("test").unwrap();
        let mut answered = 0;
        let mut trace = Vec::new();
        for n in 1..=300_u32 {
            let mut batch = Batch::default();
            batch.put(Key::of(1, &[n]), Bytes::from_static(b"x"));
            batch.put(Key::of(2, &[n]), Bytes::from_static(b"y"));
            let result = store.commit(term, &batch);
            trace.push(format!("{result:?}"));
            match result {
                Ok(_) => answered = n,
                Err(StoreError::Failed(_)) => {
                    store.crash();
                    assert!(matches!(store.commit(term, &batch), Err(StoreError::Deposed { .. })));
                    term = store.acquire("test").unwrap();
                }
                Err(_) => {}
            }
            let mut keys = Vec::new();
            store
                .load(&mut |key, _| {
                    keys.push(key);
                    Ok(())
                })
                .unwrap();
            assert!(answered == 0 || keys.contains(&Key::of(1, &[answered])));
            let of = |table| keys.iter().filter(|key| key.table() == table).count();
            assert_eq!(of(1), of(2), "batches are whole");
        }
        trace
    }

    #[test]
    fn answered_batches_survive_and_a_seed_repeats_its_run() {
        for seed in 0..20 {
            assert_eq!(run(seed), run(seed));
        }
        assert_ne!(run(1), run(2));
    }
}
