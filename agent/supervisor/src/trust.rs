//! May this controller end what runs here?
//!
//! A store that was restored from a backup, or made anew, does not know of the jobs launched
//! since, and would have them killed as strangers. So an agent remembers which store it obeyed
//! and how far that was; where a controller has another or an older one, what ran here before is
//! protected until an admin confirms. What that controller itself launches, it may also end.

use std::collections::BTreeSet;

use crate::io::Output;
use crate::words::{AttemptKey, Distrust, StorePosition};

#[derive(Debug)]
struct Doubt {
    why: Distrust,
    found: StorePosition,
    protected: BTreeSet<AttemptKey>,
}

/// The store obeyed, and whether the present controller's is another.
#[derive(Debug)]
pub(crate) struct Trust {
    store: Option<StorePosition>,
    doubt: Option<Doubt>,
}

impl Trust {
    pub(crate) const fn new() -> Self {
        Self { store: None, doubt: None }
    }

    pub(crate) fn restore(&mut self, store: Option<StorePosition>) {
        self.store = store;
    }

    pub(crate) const fn store(&self) -> Option<&StorePosition> {
        self.store.as_ref()
    }

    pub(crate) const fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Why orders that could end `key` are withheld; `None`: they are not.
    pub(crate) fn withholds(&self, key: AttemptKey) -> Option<&Distrust> {
        self.doubt.as_ref().filter(|doubt| doubt.protected.contains(&key)).map(|doubt| &doubt.why)
    }

    /// Whether `key` was launched by another store, to which this controller's job of that
    /// number is a stranger.
    pub(crate) fn is_foreign(&self, key: AttemptKey) -> bool {
        matches!(self.withholds(key), Some(Distrust::OtherStore { .. }))
    }

    /// A session began with a controller whose store is `found`; `at_stake` are the attempts
    /// that it could harm. Without any, the store is taken as it is.
    pub(crate) fn meet<L>(
        &mut self,
        found: StorePosition,
        at_stake: impl Iterator<Item = AttemptKey>,
        out: &mut Vec<Output<L>>,
    ) {
        let why = self.store.as_ref().and_then(|known| distrust(known, &found));
        let Some(why) = why else {
            self.doubt = None;
            self.adopt(found, out);
            return;
        };
        let same = self.doubt.as_ref().is_some_and(|doubt| {
            doubt.found.id == found.id && doubt.found.sequence <= found.sequence
        });
        let protected = match self.doubt.take() {
            Some(doubt) if same => doubt.protected,
            _ => at_stake.collect(),
        };
        if protected.is_empty() {
            self.adopt(found, out);
            return;
        }
        out.push(Output::Withheld { key: None, why: why.clone() });
        self.doubt = Some(Doubt { why, found, protected });
    }

    /// The store went on to `sequence`.
    pub(crate) fn advance<L>(&mut self, sequence: u64, out: &mut Vec<Output<L>>) {
        if let Some(doubt) = &mut self.doubt {
            doubt.found.sequence = doubt.found.sequence.max(sequence);
        } else if let Some(store) = self.store.as_mut().filter(|store| store.sequence < sequence) {
            store.sequence = sequence;
            out.push(Output::PersistStore(store.clone()));
        }
    }

    /// An admin confirmed the present controller's store.
    pub(crate) fn confirm<L>(&mut self, out: &mut Vec<Output<L>>) {
        if let Some(doubt) = self.doubt.take() {
            self.adopt(doubt.found, out);
        }
    }

    /// `key` is gone: when nothing protected is left, neither is the doubt.
    pub(crate) fn forget<L>(&mut self, key: AttemptKey, out: &mut Vec<Output<L>>) {
        if let Some(doubt) = &mut self.doubt
            && doubt.protected.remove(&key)
            && doubt.protected.is_empty()
        {
            self.confirm(out);
        }
    }

    fn adopt<L>(&mut self, found: StorePosition, out: &mut Vec<Output<L>>) {
        if self.store.as_ref() != Some(&found) {
            self.store = Some(found.clone());
            out.push(Output::PersistStore(found));
        }
    }
}

fn distrust(known: &StorePosition, found: &StorePosition) -> Option<Distrust> {
    if known.id != found.id {
        let (expected, found) = (known.id.clone(), found.id.clone());
        return Some(Distrust::OtherStore { expected, found });
    }
    (found.sequence < known.sequence)
        .then_some(Distrust::OlderStore { seen: known.sequence, found: found.sequence })
}
