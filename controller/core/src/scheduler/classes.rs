//! Which waiting units are decided together?
//!
//! Units of one class ask for the same, in the same partitions, for the same time. What does not fit
//! for one does not fit for the others either, as long as what is free only shrinks.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_vocab::{Timestamp, UserId, Walltime};

use super::profile::NEVER;
use crate::cluster::{Cluster, Queued};
use crate::command::Unit;
use crate::model::Shape;

/// Everything that a placement depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    /// Limit, milliseconds; [`NEVER`]: none.
    pub(super) length: i64,
    /// The limit may be cut down to this; as `length` if it may not.
    pub(super) least_length: i64,
    /// Partitions in order of preference, by their places in the configuration; one several times
    /// where the request leaves a choice.
    pub(super) partitions: Box<[u32]>,
    /// Resources.
    pub(super) shape: Arc<Shape>,
    /// What is asked for in each of `partitions`; empty: `shape` in all.
    pub(super) ways: Box<[Arc<Shape>]>,
    /// Reservation to run in; empty: none.
    pub(super) reservation: Box<str>,
    /// Quality of service, which may lift limits of the partition.
    pub(super) qos: Box<str>,
    /// Whose jobs these are, where that matters.
    pub(super) user: Option<UserId>,
    /// The unit and its submission, where the placement depends on how long it has waited.
    pub(super) alone: Option<(Unit, Timestamp)>,
}

/// Numbers of classes.
#[derive(Debug, Clone, Default)]
pub(super) struct ClassTable {
    classes: Vec<Arc<Class>>,
    /// Units of different users are of different classes.
    by_user: bool,
    numbers: BTreeMap<Arc<Class>, u32>,
}

impl ClassTable {
    /// No class yet. `by_user`: somebody has a node to himself, so that it matters who asks.
    pub(super) fn new(by_user: bool) -> Self {
        Self { by_user, ..Self::default() }
    }

    /// Whether units of different users are of different classes.
    pub(super) fn by_user(&self) -> bool {
        self.by_user
    }

    /// The class of a unit.
    pub(super) fn class_of(&mut self, cluster: &Cluster, unit: Unit, queued: &Queued) -> u32 {
        let class = Class::new(cluster, unit, queued, self.by_user);
        if let Some(number) = self.numbers.get(&class) {
            return *number;
        }
        let number = u32::try_from(self.classes.len()).unwrap_or(u32::MAX);
        let class = Arc::new(class);
        self.classes.push(Arc::clone(&class));
        self.numbers.insert(class, number);
        number
    }

    /// All classes, by number; also such as no unit is of any more.
    pub(super) fn all(&self) -> &[Arc<Class>] {
        &self.classes
    }
}

impl Class {
    fn new(cluster: &Cluster, unit: Unit, queued: &Queued, by_user: bool) -> Self {
        let spec = &queued.spec;
        let config = cluster.config();
        let place = |name: &penstock_vocab::PartitionName| {
            (0u32..).zip(&config.partitions).find(|(_, at)| at.name == *name).map(|(at, _)| at)
        };
        let partitions: Box<[u32]> =
            cluster.partitions_of(spec).filter_map(|partition| place(&partition.name)).collect();
        let one_user = by_user
            || spec.shape.exclusive_user
            || partitions.iter().any(|at| config.partitions[*at as usize].exclusive_user);
        let length = length(queued.time_limit);
        let (partitions, ways) = with_choices(partitions, &spec.shape);
        Self {
            length,
            least_length: spec.min_time.map_or(length, |min| self::length(min).min(length)),
            partitions,
            shape: Arc::clone(&spec.shape),
            ways,
            reservation: spec.reservation.clone(),
            qos: spec.qos.clone(),
            user: one_user.then_some(queued.uid),
            alone: spec.shape.switches.is_some().then_some((unit, queued.submit_time)),
        }
    }
}

impl Class {
    /// What is asked for in the partition at this place.
    pub(super) fn shape_at(&self, at: usize) -> &Arc<Shape> {
        self.ways.get(at).unwrap_or(&self.shape)
    }

    /// The partitions, each once.
    pub(super) fn each_partition(&self) -> impl Iterator<Item = u32> {
        let seen = |at: usize| self.partitions[..at].contains(&self.partitions[at]);
        let places = (0..self.partitions.len()).filter(move |at| !seen(*at));
        places.map(|at| self.partitions[at])
    }
}

/// Each partition as often as there is a choice, and what is asked for in each.
fn with_choices(partitions: Box<[u32]>, shape: &Arc<Shape>) -> (Box<[u32]>, Box<[Arc<Shape>]>) {
    if shape.gpus.choices.is_empty() {
        return (partitions, Box::default());
    }
    let ways = Shape::ways(shape);
    let both = ways.iter().flat_map(|way| partitions.iter().map(move |at| (*at, Arc::clone(way))));
    let (places, shapes): (Vec<_>, Vec<_>) = both.unzip();
    (places.into(), shapes.into())
}

/// A limit in milliseconds.
fn length(limit: Walltime) -> i64 {
    match limit {
        Walltime::Unlimited => NEVER,
        Walltime::Limited(secs) => i64::try_from(secs.saturating_mul(1_000)).unwrap_or(NEVER),
    }
}
