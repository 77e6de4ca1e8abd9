//! When and where will a job start whose slices are not there, or somebody's?
//!
//! For jobs on one node that ask for profiles which some GPU can be cut into. What is beside the slices
//! is looked for in the counts of the profile as for everybody, the slices as a legal placement on the
//! node's GPUs. A place that could begin now but for a cut is held like one in the future, so that
//! nobody behind takes its slots, and makes the cut part of the plan.

use penstock_vocab::{GresName, Timestamp, gres_matches};

use super::classes::Class;
use super::demand::Demand;
use super::fit::allows;
use super::memory::Kept;
use super::mig::Wanted;
use super::mig::slots::{Cost, Place};
use super::needs::{Ahead, Need};
use super::pass::{Pass, Prepared};
use super::profile::{Amount, end_of};
use super::queue::{Entry, Turn};
use super::reserve::Found;
use crate::command::Unit;
use crate::model::{GPU, Node, NodeIndex, NodeUse};

/// Searches for a place for slices in one plan; each may look at every node.
pub(super) const MAX_SEARCHES: u32 = 256;
/// Instants that are tried on one node.
const MAX_INSTANTS: u32 = 64;
/// Nodes that could begin at once after which the best of them is taken.
const ENOUGH: u32 = 64;

/// What a class asks for that can be cut for it.
pub(super) struct Sliced {
    /// Profiles, one for each slice.
    wanted: Box<[Box<str>]>,
    /// What it needs beside them, by kind of node.
    needs: Vec<Option<Need>>,
}

/// Where it could be on one node.
type Spot = (i64, Cost, NodeIndex);

impl<'a> Pass<'a> {
    /// What of a class's request can be cut for it; `None`: nothing, or not in a way that is planned for:
    /// on several nodes, or by sockets.
    pub(super) fn sliced(&self, class: &'a Class, at: usize) -> Option<Sliced> {
        let demand = self.demand(class, at);
        let (wanted, demand) = self.wanted(demand)?;
        let is_slice = |name: &GresName| self.is_slice(name);
        let needs = self.pool.kinds().iter().map(|kind| {
            let here = kind.partitions.contains(&class.partitions[at]);
            here.then(|| Need::beside(&demand, kind, &is_slice)).flatten()
        });
        Some(Sliced { wanted, needs: needs.collect() })
    }

    fn is_slice(&self, name: &GresName) -> bool {
        name.name() == GPU && name.kind().is_some_and(|kind| self.slots.knows(kind))
    }

    fn wanted(&self, demand: Demand<'a>) -> Option<(Box<[Box<str>]>, Demand<'a>)> {
        let by_sockets = demand.shape.gpus.per_socket.is_some();
        if demand.nodes_min > 1 || by_sockets || demand.shape.required.len() > 1 {
            return None;
        }
        let all = demand.gres_with(demand.tasks, demand.gpu_count());
        let slices = all.iter().filter(|gres| gres.count > 0 && self.is_slice(&gres.name));
        let mut wanted: Vec<Box<str>> = Vec::new();
        for gres in slices {
            // More than any node has slots for is never met.
            let count = usize::try_from(gres.count.min(512)).unwrap_or(512);
            wanted.extend(std::iter::repeat_n(Box::from(gres.name.kind()?), count));
        }
        (!wanted.is_empty()).then(|| (wanted.into(), Demand { nodes_max: 1, ..demand }))
    }

    /// Whether some of its nodes in service could be cut for a class if nobody was there.
    pub(super) fn could_be_cut(&self, class: &'a Class, prepared: &Prepared, at: usize) -> bool {
        let Some(sliced) = &prepared.sliced[at] else { return false };
        let demand = self.demand(class, at);
        let idle = NodeUse::default();
        self.pool.partition(class.partitions[at]).iter().any(|index| {
            let Some((node, _)) = self.cluster.node(*index) else { return false };
            let Some(kind) = self.pool.kind_of(*index) else { return false };
            sliced.needs[kind as usize].is_some()
                && is_meant(node, &demand)
                && allows(node, &idle, &demand).is_some()
                && self
                    .slots
                    .of(*index)
                    .is_some_and(|slots| slots.could_place(node, &sliced.wanted))
        })
    }

    /// The earliest place of a class in one of its partitions that begins at `latest` at the latest, with
    /// the least change to GPUs.
    pub(super) fn earliest_sliced(
        &mut self,
        class: &'a Class,
        prepared: &Prepared,
        at: usize,
        latest: i64,
    ) -> Option<Found> {
        let sliced = prepared.sliced[at].as_ref()?;
        let demand = self.demand(class, at);
        let idle = NodeUse::default();
        let mut best: Option<(Spot, Vec<Place>)> = None;
        let mut at_once = 0;
        for index in self.pool.partition(class.partitions[at]) {
            let Some((node, _)) = self.cluster.node(*index) else { continue };
            if !is_meant(node, &demand) || allows(node, &idle, &demand).is_none() {
                continue;
            }
            let before = best.as_ref().map_or(latest, |((start, ..), _)| *start);
            let found = self.earliest_on((*index, node), class, (prepared, sliced), before);
            let Some((start, places, cost)) = found else { continue };
            let spot = (start, cost, *index);
            if best.as_ref().is_none_or(|(known, _)| spot < *known) {
                best = Some((spot, places));
            }
            at_once += u32::from(start <= self.now);
            if at_once >= ENOUGH {
                break;
            }
        }
        let ((start, _, index), slots) = best?;
        let (node, _) = self.cluster.node(index)?;
        let amount = self.amount_beside(node, &demand);
        Some(Found { start, partition: class.partitions[at], parts: vec![(index, amount)], slots })
    }

    fn earliest_on(
        &self,
        (index, node): (NodeIndex, &Node),
        class: &Class,
        (prepared, sliced): (&Prepared, &Sliced),
        latest: i64,
    ) -> Option<(i64, Vec<Place>, Cost)> {
        let kind = self.pool.kind_of(index)?;
        let need = sliced.needs[kind as usize].as_ref()?;
        let kind = &self.pool.kinds()[kind as usize];
        let slots = self.slots.of(index)?;
        let (line, access, settle) = (self.lines.line(index), prepared.access, self.slots.settle());
        let mut start = self.now;
        for _ in 0..MAX_INSTANTS {
            let fits = line.first_fit(&Ahead(need), start, class.length)?;
            let allowed = access.next(self.pool, kind, fits, class.length)?;
            let shape = &class.shape;
            let free = self.licences.next(shape, access, self.pool, allowed, class.length)?;
            if free > latest {
                return None;
            }
            if free > fits {
                start = free;
                continue;
            }
            let window = (fits, end_of(fits, class.length));
            if let Some((places, cost)) = slots.place(node, &sliced.wanted, window, settle) {
                return Some((fits, places, cost));
            }
            start = slots.next(fits, settle)?;
        }
        None
    }

    /// What a job takes of a node beside its slices.
    fn amount_beside(&self, node: &Node, demand: &Demand<'_>) -> Amount {
        let (inventory, gpus) = (&node.inventory, demand.gpu_count());
        let mut gres = vec![0u32; inventory.gres.len()];
        for asked in demand.gres_with(demand.tasks, gpus) {
            let mut have = inventory.gres.iter();
            let at = have.position(|have| gres_matches(&asked.name, &have.name));
            if let Some(count) = at.filter(|_| !self.is_slice(&asked.name)).map(|at| &mut gres[at])
            {
                *count = count.saturating_add(u32::try_from(asked.count).unwrap_or(u32::MAX));
            }
        }
        let all = demand.exclusive;
        let cpus = demand.cpus_for(demand.tasks, gpus, inventory);
        Amount {
            cpus: if all { inventory.cpus } else { cpus },
            memory: demand.memory_for(demand.tasks, gpus, inventory).0,
            gres,
            alone: demand.holder.alone,
        }
    }

    /// The place that the plan before kept, if it is still there: on that node, from that time on.
    pub(super) fn sliced_place_kept(
        &self,
        class: &'a Class,
        prepared: &Prepared,
        old: &Kept,
        at: usize,
    ) -> Option<Found> {
        let sliced = prepared.sliced[at].as_ref()?;
        let (index, amount) = old.parts.first()?;
        let (node, _) = self.cluster.node(*index)?;
        let kind = self.pool.kind_of(*index)?;
        let need = sliced.needs[kind as usize].as_ref()?;
        let kind = &self.pool.kinds()[kind as usize];
        let until = end_of(old.start, class.length);
        let fits = self.lines.line(*index).fits(&Ahead(need), old.start, until)
            && prepared.access.allows(self.pool, kind, old.start, class.length)
            && amount.gres.len() == node.inventory.gres.len();
        let slots = self.slots.of(*index).filter(|_| fits)?;
        let window = (old.start, until);
        let (places, _) = slots.place(node, &sliced.wanted, window, self.slots.settle())?;
        let (partition, parts) = (class.partitions[at], old.parts.clone());
        Some(Found { start: old.start, partition, parts, slots: places })
    }

    /// Keeps slots of a node; what has to be cut for it now becomes part of the plan.
    pub(super) fn hold_slots(
        &mut self,
        unit: Unit,
        node: NodeIndex,
        slots: &[Place],
        (start, until): (i64, i64),
    ) {
        self.slots.hold(self.cluster, node, slots, (start, until));
        if start <= self.now && slots.iter().any(|place| place.cut) {
            self.cuts.push(Wanted { unit, node, places: slots.to_vec() });
        }
    }

    /// When a unit with a place in time has started: a cut takes a while, and must be done by its deadline.
    pub(super) fn expected_start(&self, start: i64, slots: &[Place]) -> Timestamp {
        let cut = slots.iter().any(|place| place.cut) || (start <= self.now && !slots.is_empty());
        let deadline = self.cluster.config().mig.deadline_secs;
        Timestamp(start).plus_secs(if cut { deadline.into() } else { 0 })
    }

    /// Whether a cut could let a unit start at once although no place in time is reserved for it any more.
    pub(super) fn may_cut_for(&mut self, turn: Turn, entry: &Entry) -> bool {
        let known = self.searches.no_cut.contains(&turn.class);
        if known || self.searches.sliced >= MAX_SEARCHES || self.backfill.depth == 0 {
            return false;
        }
        let prepared = self.prepare(turn.class, entry);
        prepared.sliced.iter().any(Option::is_some)
    }
}

/// Whether a job that names nodes names this one.
fn is_meant(node: &Node, demand: &Demand<'_>) -> bool {
    let required = &demand.shape.required;
    required.is_empty() || required.contains(&node.name)
}
