//! What is in use, by whom?
//!
//! For every association, QOS, user in a QOS and account in a QOS: how many jobs wait or run, how many
//! run, what they hold, and how long they may still hold it. An association counts what all below it
//! use, so that a limit is looked up and not summed. What jobs may still use needs no bringing up to
//! date: with `c` the amount that a job holds and `e` the instant at which it must have ended, it is
//! Σ c·(e - t) = Σ c·e - t·Σ c at any time `t`; jobs that are past their end are taken out again.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use penstock_vocab::{JobId, Timestamp, Tres, TresKind, UserId};

use crate::cluster::Accounts;
use crate::model::AssocId;

/// Whose use is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// An association with all below it.
    Assoc(AssocId),
    /// A QOS, of jobs or of their partition.
    Qos(Arc<str>),
    /// A user in a QOS.
    QosUser(Arc<str>, UserId),
    /// An account in a QOS.
    QosAccount(Arc<str>, Arc<str>),
}

impl Owner {
    /// A QOS by its name.
    #[must_use]
    pub fn qos(name: &str) -> Self {
        Self::Qos(name.into())
    }
}

/// What one job holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which job.
    pub job: JobId,
    /// What.
    pub tres: Arc<Tres>,
    /// When it must have ended; [`Timestamp::MAX`] where it stands still.
    pub end: Timestamp,
    /// How much time it has left where it stands still, milliseconds.
    pub still_ms: u64,
    /// It is charged times this, in millionths.
    pub factor: u64,
}

/// What all jobs of an owner hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    jobs: u32,
    tres: Tres,
    /// Of jobs whose time runs: amounts, and amounts times the end.
    moving: Tres,
    until: Sums,
    /// Amounts times the factor by which they are charged, in millionths; wall-clock time likewise.
    rate: Sums,
    wall_rate: u128,
    /// Of jobs that stand still: amounts times the time left.
    still: Sums,
    /// By end, then by number.
    by_end: OrdMap<(Timestamp, JobId), Taken>,
}

/// Amount times milliseconds, by kind; no entry is zero.
type Sums = BTreeMap<TresKind, i128>;

impl Held {
    /// Running jobs.
    #[must_use]
    pub fn jobs(&self) -> u32 {
        self.jobs
    }

    /// What they hold.
    #[must_use]
    pub fn tres(&self) -> &Tres {
        &self.tres
    }

    /// The running jobs by the instant at which they must have ended; those that stand still come
    /// last, at [`Timestamp::MAX`].
    pub fn by_end(&self) -> impl Iterator<Item = &Taken> {
        self.by_end.values()
    }

    /// How much of a kind is charged at this moment, in millionths of a unit.
    #[must_use]
    pub fn rate(&self, kind: &TresKind) -> u128 {
        self.rate.get(kind).copied().unwrap_or(0).unsigned_abs()
    }

    /// How much wall-clock time is charged at this moment, in millionths.
    #[must_use]
    pub fn wall_rate(&self) -> u128 {
        self.wall_rate
    }

    /// Amount times milliseconds that running jobs may still use of a kind.
    #[must_use]
    pub fn run_ms(&self, kind: &TresKind, now: Timestamp) -> u128 {
        let at = i128::from(now.0);
        let until = self.until.get(kind).copied().unwrap_or(0);
        let still = self.still.get(kind).copied().unwrap_or(0);
        let moving = i128::from(self.moving.get(kind));
        // A job that is past its end would count less than nothing.
        let overdue = self.by_end.range(..(now, JobId(0))).map(|((end, _), taken)| {
            i128::from(taken.tres.get(kind)).saturating_mul(at - i128::from(end.0))
        });
        let sum = until - moving.saturating_mul(at) + still + overdue.sum::<i128>();
        u128::try_from(sum).unwrap_or(0)
    }

    fn add(&mut self, taken: &Taken) {
        self.jobs = self.jobs.saturating_add(1);
        self.tres = self.tres.saturating_add(&taken.tres);
        if taken.moves() {
            self.moving = self.moving.saturating_add(&taken.tres);
            self.wall_rate = self.wall_rate.saturating_add(taken.factor.into());
        }
        self.sum_up(taken, 1);
        self.by_end.insert((taken.end, taken.job), taken.clone());
    }

    /// Undoes `add` of this very share.
    fn remove(&mut self, taken: &Taken) {
        self.jobs = self.jobs.saturating_sub(1);
        self.tres = self.tres.saturating_sub(&taken.tres);
        if taken.moves() {
            self.moving = self.moving.saturating_sub(&taken.tres);
            self.wall_rate = self.wall_rate.saturating_sub(taken.factor.into());
        }
        self.sum_up(taken, -1);
        self.by_end.remove(&(taken.end, taken.job));
    }

    fn sum_up(&mut self, taken: &Taken, sign: i128) {
        for (kind, amount) in taken.tres.entries() {
            let amount = sign * i128::from(amount);
            if taken.moves() {
                change(&mut self.until, &kind, amount * i128::from(taken.end.0));
                change(&mut self.rate, &kind, amount * i128::from(taken.factor));
            } else {
                change(&mut self.still, &kind, amount * i128::from(taken.still_ms));
            }
        }
    }
}

impl Taken {
    /// Whether its time runs.
    fn moves(&self) -> bool {
        self.end != Timestamp::MAX
    }
}

fn change(sums: &mut Sums, kind: &TresKind, by: i128) {
    let sum = sums.get(kind).copied().unwrap_or(0).saturating_add(by);
    if sum == 0 {
        sums.remove(kind);
    } else {
        sums.insert(kind.clone(), sum);
    }
}

/// What is in use, by owner. Cloning it is O(1), so that a plan can add what it starts to a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitState {
    queued: OrdMap<Owner, u64>,
    held: OrdMap<Owner, Arc<Held>>,
}

impl LimitState {
    /// Jobs that wait or run; each task of an array is one.
    #[must_use]
    pub fn queued(&self, owner: &Owner) -> u64 {
        self.queued.get(owner).copied().unwrap_or(0)
    }

    /// What running jobs hold; `None`: none runs.
    #[must_use]
    pub fn held(&self, owner: &Owner) -> Option<&Held> {
        self.held.get(owner).map(|held| &**held)
    }

    /// Running jobs.
    #[must_use]
    pub fn jobs(&self, owner: &Owner) -> u32 {
        self.held(owner).map_or(0, Held::jobs)
    }

    /// Counts so many more (fewer) jobs that wait or run.
    pub(crate) fn queue(&mut self, owners: &[Owner], more: i64) {
        if more == 0 {
            return;
        }
        for owner in owners {
            let count = self.queued(owner).saturating_add_signed(more);
            if count == 0 {
                self.queued.remove(owner);
            } else {
                self.queued.insert(owner.clone(), count);
            }
        }
    }

    /// A job starts to hold something.
    pub(crate) fn take(&mut self, owners: &[Owner], taken: &Taken) {
        for owner in owners {
            match self.held.get_mut(owner) {
                Some(held) => Arc::make_mut(held).add(taken),
                None => {
                    let mut held = Held::default();
                    held.add(taken);
                    self.held.insert(owner.clone(), Arc::new(held));
                }
            }
        }
    }

    /// A job holds it no longer.
    pub(crate) fn give_back(&mut self, owners: &[Owner], taken: &Taken) {
        for owner in owners {
            let Some(held) = self.held.get_mut(owner) else { continue };
            let held = Arc::make_mut(held);
            held.remove(taken);
            if held.jobs == 0 {
                self.held.remove(owner);
            }
        }
    }

    /// An association, with all below it, no longer stands below `old` but below `new`.
    pub(crate) fn shift(&mut self, moved: AssocId, old: &[AssocId], new: &[AssocId]) {
        let moved = Owner::Assoc(moved);
        let jobs = i64::try_from(self.queued(&moved)).unwrap_or(i64::MAX);
        let held = self.held.get(&moved).cloned();
        for (ids, sign) in [(old, -1), (new, 1)] {
            let owners: Vec<_> = ids.iter().copied().map(Owner::Assoc).collect();
            self.queue(&owners, sign * jobs);
            let taken = held.iter().flat_map(|held| held.by_end());
            for taken in taken {
                if sign > 0 { self.take(&owners, taken) } else { self.give_back(&owners, taken) }
            }
        }
    }

    /// The level, from an association upward, that is guaranteed something.
    #[must_use]
    pub fn guaranteed_level(accounts: &Accounts, assoc: AssocId) -> Option<AssocId> {
        accounts.chain(assoc).find(|level| !level.guaranteed.is_empty()).map(|level| level.id)
    }

    /// What the group of an association holds beyond what it is guaranteed, of the kinds for which
    /// `kinds` asks: what it would have to give back to those who are guaranteed it. A group that is
    /// guaranteed nothing has borrowed all it holds.
    #[must_use]
    pub fn over_guarantee(&self, accounts: &Accounts, assoc: AssocId, kinds: &Tres) -> Tres {
        let level = Self::guaranteed_level(accounts, assoc);
        let group = level.unwrap_or(assoc);
        let guaranteed = level.and_then(|level| accounts.assoc(level));
        let mut over = Tres::default();
        let Some(held) = self.held(&Owner::Assoc(group)) else { return over };
        for (kind, _) in kinds.entries() {
            let own = guaranteed.and_then(|level| level.guaranteed.get(&kind)).copied();
            over.set(kind.clone(), held.tres.get(&kind).saturating_sub(own.unwrap_or(0)));
        }
        over
    }

    /// Whether the group of an association would, with so much more, still hold no more than it is
    /// guaranteed, so that it may have it back from whoever borrowed it. A job that needs nothing of
    /// what is guaranteed has no such right.
    #[must_use]
    pub fn under_guarantee(&self, accounts: &Accounts, assoc: AssocId, more: &Tres) -> bool {
        let level = Self::guaranteed_level(accounts, assoc).and_then(|id| accounts.assoc(id));
        let Some(level) = level else { return false };
        let held = self.held(&Owner::Assoc(level.id));
        let holds = |kind: &TresKind| held.map_or(0, |held| held.tres.get(kind));
        let fits =
            |(kind, most): (&TresKind, &u64)| holds(kind).saturating_add(more.get(kind)) <= *most;
        let needs = level.guaranteed.keys().any(|kind| more.get(kind) > 0);
        needs && level.guaranteed.iter().all(fits)
    }
}
