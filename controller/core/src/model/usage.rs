//! What was used so far, as it counts now?

use std::collections::BTreeMap;

use penstock_vocab::{Timestamp, TresKind};

use super::account::AssocId;

/// Whose usage it is. An account's is the sum of those below it and of what it was left by deleted
/// ones, so only users' associations and QOS are charged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageOwner {
    /// An association.
    Assoc(AssocId),
    /// A QOS.
    Qos(Box<str>),
}

/// Usage up to an instant, in fixed point; see `policy::decay` for what the numbers mean. What runs
/// since is added when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecayedUsage {
    /// Up to when it is counted.
    pub as_of: Timestamp,
    /// Half-life by which the numbers are to be read, seconds; 0: they do not decay.
    pub half_life_secs: u32,
    /// Amount times time of each kind that is charged, billing among them.
    pub tres: BTreeMap<TresKind, u128>,
    /// Wall-clock time of the jobs.
    pub wall: u128,
}
