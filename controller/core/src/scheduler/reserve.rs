//! When and where will a unit start that can't start now?
//!
//! At the earliest instant at which a placement succeeds with the highest use of each node within the
//! window that begins then. Only instants count at which something ends. The k-th smallest of the
//! nodes' own earliest instants, k being the fewest nodes, is a lower bound and mostly the answer;
//! else the ends are taken in order, and a placement is tried where what the nodes could take
//! together is enough.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use penstock_vocab::Timestamp;

use super::classes::Class;
use super::demand::Demand;
use super::fit::place;
use super::free::Free;
use super::memory::Kept;
use super::mig::slots::Place;
use super::needs::{Ahead, Sum};
use super::pass::{Pass, Prepared};
use super::placing::{Exactly, Window};
use super::plan::Expected;
use super::profile::{Amount, FAR, NEVER, end_of, held_until};
use super::queue::{Entry, Turn};
use super::releases::Releases;
use crate::command::Unit;
use crate::model::{NodeIndex, NodeShare, QosFlag};

/// Most classes whose nodes' own earliest instants are remembered within a pass.
const MAX_REMEMBERED: usize = 64;
/// Most instants at which one search tries a placement.
const MAX_INSTANTS: u32 = 64;
/// Nodes beyond the fewest that a placement ahead of time may choose from, before it gets all.
const CHOICE: usize = 32;

/// What a pass knows of places in time.
pub(super) struct Searches<'a> {
    /// What the plan before reserved.
    before: &'a BTreeMap<(Unit, u32), Kept>,
    /// When what runs leaves room.
    releases: &'a mut Releases,
    /// How many units have a place reserved, by partition.
    reserved_in: Vec<u32>,
    /// By class and place in its list of partitions: each node's own earliest instant, and how many of the touched nodes
    /// were taken into account.
    earliest: BTreeMap<(u32, u32), (Vec<i64>, usize)>,
    /// Searches for slices so far, and classes for which no cut helps now.
    pub(super) sliced: u32,
    pub(super) no_cut: BTreeSet<u32>,
    /// What this pass reserves.
    pub(super) kept: BTreeMap<(Unit, u32), Kept>,
}

/// A place in time.
pub(super) struct Found {
    pub(super) start: i64,
    pub(super) partition: u32,
    pub(super) parts: Vec<(NodeIndex, Amount)>,
    /// Slots of GPUs on the first of these.
    pub(super) slots: Vec<Place>,
}

impl<'a> Searches<'a> {
    pub(super) fn new(
        before: &'a BTreeMap<(Unit, u32), Kept>,
        releases: &'a mut Releases,
        partitions: usize,
    ) -> Self {
        Self {
            before,
            releases,
            reserved_in: vec![0; partitions],
            earliest: BTreeMap::new(),
            sliced: 0,
            no_cut: BTreeSet::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The place that the plan before reserved for a unit, if its time has come.
    pub(super) fn promised(&self, unit: Unit, now: i64) -> Option<&Kept> {
        self.before.get(&(unit, 0)).filter(|kept| kept.start <= now)
    }

    /// Whether any partition still has places to give.
    pub(super) fn wanted(&self, depth: u32) -> bool {
        self.reserved_in.iter().any(|count| *count < depth)
    }
}

impl<'a> Pass<'a> {
    /// Reserves places in time for a unit, if it is near enough to the front; for several tasks of
    /// an array. `started` of them start now.
    pub(super) fn reserve_for(&mut self, turn: Turn, entry: &Entry, started: u32) {
        let most = match entry.unit {
            Unit::Job(_) => 1,
            Unit::Array(id) => {
                let most = self.backfill.max_array_reserve.max(1);
                let tasks = self.cluster.array(id).map_or(0, |array| {
                    let enough = started.saturating_add(most) as usize;
                    self.cluster.startable_tasks(array).take(enough).count()
                });
                u32::try_from(tasks).unwrap_or(u32::MAX).saturating_sub(started).min(most)
            }
        };
        for nth in 0..most {
            let latest = match self.may_reserve(turn, entry) {
                true => NEVER,
                // Without a place in time, a cut may still let it start at once.
                false if self.may_cut_for(turn, entry) => self.now,
                false => return,
            };
            if !self.reserve(turn, entry, nth, latest) {
                return;
            }
        }
    }

    fn may_reserve(&self, turn: Turn, entry: &Entry) -> bool {
        let depth = self.backfill.depth;
        let class = &self.classes[turn.class as usize];
        let mut partitions = class.partitions.iter();
        let waited = Timestamp(self.now).since(entry.queued.submit_time).0 / 1_000;
        let waited_long = || {
            let first =
                class.partitions.iter().any(|at| self.searches.reserved_in[*at as usize] == 0);
            let limit = u64::try_from(class.length).unwrap_or(0) / 1_000;
            let more = u64::from(self.backfill.reserve_expansion.saturating_sub(1));
            let enough = limit.saturating_mul(more).min(self.backfill.reserve_after_secs.into());
            first || waited >= enough
        };
        let qos = self.cluster.accounts().qos(&entry.queued.spec.qos);
        partitions.any(|at| self.searches.reserved_in[*at as usize] < depth)
            && self.plan.priorities[turn.place as usize] >= self.backfill.min_priority_reserve
            && waited >= u64::from(self.backfill.min_age_reserve_secs)
            && !qos.is_some_and(|qos| qos.has(QosFlag::NoReserve))
            && waited_long()
    }

    /// False if no place was found that begins at `latest` at the latest.
    fn reserve(&mut self, turn: Turn, entry: &Entry, nth: u32, latest: i64) -> bool {
        self.plan.stats.searches += 1;
        let prepared = self.prepare(turn.class, entry);
        let class = &self.classes[turn.class as usize];
        let mut found: Option<Found> = None;
        for (at, partition) in class.partitions.iter().enumerate() {
            if !prepared.may_run(at) {
                continue;
            }
            let before = found.as_ref().map_or(NEVER, |found| found.start);
            if prepared.sliced[at].is_some() {
                self.searches.sliced += 1;
                let place = self.earliest_sliced(class, &prepared, at, latest);
                found = place.filter(|place| place.start < before).or(found);
            } else if latest == NEVER
                && let Some((start, shares)) = self.earliest(turn.class, &prepared, at)
                && start < before
            {
                let alone = self.demand(class, at).holder.alone;
                let parts = self.amounts(&shares, alone);
                found = Some(Found { start, partition: *partition, parts, slots: Vec::new() });
            }
        }
        if latest < NEVER && found.is_none() {
            self.searches.no_cut.insert(turn.class);
            return false;
        }
        let old = self.searches.before.get(&(entry.unit, nth));
        let (mut since, mut moved_by) = (self.plan.made_at, None);
        if let Some(old) = old.filter(|old| old.length == class.length) {
            let later = found.as_ref().is_none_or(|found| found.start >= old.start);
            if later && let Some(place) = self.place_kept(class, &prepared, old) {
                let moved = found.as_ref().is_none_or(|found| found.start > old.start);
                self.plan.stats.kept += u32::from(moved);
                found = Some(place);
                (since, moved_by) = (old.since, old.moved_by.clone());
            } else if found.as_ref().is_some_and(|found| found.start == old.start) {
                (since, moved_by) = (old.since, old.moved_by.clone());
            } else if later && old.start < FAR {
                moved_by = Some(self.what_moved(old).into());
            }
        }
        let Some(found) = found else { return false };
        self.hold(turn, entry, nth, found, since, moved_by);
        true
    }

    /// Puts a place found into the profile and into the plan.
    pub(super) fn hold(
        &mut self,
        turn: Turn,
        entry: &Entry,
        nth: u32,
        found: Found,
        since: Timestamp,
        moved_by: Option<Box<str>>,
    ) {
        let Found { start, partition, parts, slots } = found;
        let class = &self.classes[turn.class as usize];
        let until = held_until(start, class.length);
        if let Some((node, _)) = parts.first().filter(|_| !slots.is_empty()) {
            self.hold_slots(entry.unit, *node, &slots, (start, until));
        }
        for (node, amount) in &parts {
            self.lines.add(*node, start, until, amount);
            self.open.update(*node, self.pool, self.lines, self.cluster.site(), self.now);
        }
        self.licences.take(&class.shape, start, until);
        for at in class.each_partition() {
            self.searches.reserved_in[at as usize] += 1;
        }
        self.plan.stats.reservations += 1;
        let partition = self.partition(partition).name.clone();
        let horizon = Timestamp(self.now).plus_secs(u64::from(self.backfill.window_secs));
        if nth == 0 && start <= horizon.0 {
            let expected = Expected {
                start: self.expected_start(start, &slots),
                partition: partition.clone(),
                nodes: parts.iter().map(|(node, _)| *node).collect(),
                since,
                moved_by: moved_by.clone(),
            };
            self.plan.expected.insert(entry.unit, expected);
        }
        let length = class.length;
        let kept = Kept { start, length, partition, parts, slots, since, moved_by };
        self.searches.kept.insert((entry.unit, nth), kept);
    }

    pub(super) fn amounts(&self, shares: &[NodeShare], alone: bool) -> Vec<(NodeIndex, Amount)> {
        let of = |share: &NodeShare| {
            let (node, _) = self.cluster.node(share.node)?;
            Some((share.node, Amount::of(node, share, alone)))
        };
        shares.iter().filter_map(of).collect()
    }

    /// The place that the plan before reserved, if it is still there.
    fn place_kept(&self, class: &'a Class, prepared: &Prepared, old: &Kept) -> Option<Found> {
        let mut places = 0..class.partitions.len();
        places.find_map(|at| self.place_kept_at(class, prepared, old, at))
    }

    fn place_kept_at(
        &self,
        class: &'a Class,
        prepared: &Prepared,
        old: &Kept,
        at: usize,
    ) -> Option<Found> {
        if self.partition(class.partitions[at]).name != old.partition {
            return None;
        }
        let demand = self.demand(class, at);
        let length = class.length;
        if old.start < self.now || !prepared.may_run(at) {
            return None;
        }
        if !old.slots.is_empty() {
            return self.sliced_place_kept(class, prepared, old, at);
        }
        let next = self.licences.next(&class.shape, prepared.access, self.pool, old.start, length);
        if next != Some(old.start) {
            return None;
        }
        let until = end_of(old.start, length);
        for (index, amount) in &old.parts {
            let kind = self.pool.kind_of(*index)?;
            let (node, _) = self.cluster.node(*index)?;
            prepared.needs[at][kind as usize].as_ref()?;
            let kind = &self.pool.kinds()[kind as usize];
            let need = Exactly::new(node, amount, demand.exclusive);
            if !self.lines.line(*index).fits(&need, old.start, until)
                || !prepared.access.allows(self.pool, kind, old.start, length)
            {
                return None;
            }
        }
        let partition = class.partitions[at];
        let parts = old.parts.clone();
        Some(Found { start: old.start, partition, parts, slots: Vec::new() })
    }

    /// The earliest start of a class in one of its partitions, with the place.
    pub(super) fn earliest(
        &mut self,
        number: u32,
        prepared: &Prepared,
        at: usize,
    ) -> Option<(i64, Vec<NodeShare>)> {
        let class = &self.classes[number as usize];
        let demand = self.demand(class, at);
        let way = u32::try_from(at).unwrap_or(u32::MAX);
        let times = self.own_times(number, prepared, at);
        let fewest = (demand.nodes_min as usize).max(demand.shape.required.len()).max(1);
        let mut sorted: Vec<i64> = times.iter().copied().filter(|time| *time < NEVER).collect();
        if sorted.len() < fewest {
            self.remember(number, way, times);
            return None;
        }
        let lower = *sorted.select_nth_unstable(fewest - 1).1;
        let found = self.search(number, prepared, at, &demand, &times, lower);
        self.remember(number, way, times);
        found
    }

    fn remember(&mut self, number: u32, way: u32, times: Vec<i64>) {
        let seen = self.lines.touched().len();
        let known = &mut self.searches.earliest;
        if known.len() < MAX_REMEMBERED || known.contains_key(&(number, way)) {
            known.insert((number, way), (times, seen));
        }
    }

    /// The earliest instant at which each node of a partition could take a share; [`NEVER`]: at none.
    fn own_times(&mut self, number: u32, prepared: &Prepared, at: usize) -> Vec<i64> {
        let class = &self.classes[number as usize];
        let partition = class.partitions[at];
        let way = u32::try_from(at).unwrap_or(u32::MAX);
        let time = |node: NodeIndex| {
            let kind = self.pool.kind_of(node)? as usize;
            let need = prepared.needs[at][kind].as_ref()?;
            let kind = &self.pool.kinds()[kind];
            let line = self.lines.line(node);
            let mut start = self.now;
            loop {
                let fits = line.first_fit(&Ahead(need), start, class.length)?;
                let allowed = prepared.access.next(self.pool, kind, fits, class.length)?;
                if allowed == fits {
                    return Some(fits);
                }
                start = allowed;
            }
        };
        let nodes = self.pool.partition(partition);
        let (mut times, seen) = match self.searches.earliest.remove(&(number, way)) {
            Some(known) => known,
            None if self.pool.reservations().is_empty() && prepared.access.is_outside() => {
                let needs = &prepared.needs[at];
                let length = class.length;
                let key = (number, way);
                let releases =
                    self.searches.releases.of(key, partition, needs, length, self.pool, self.lines);
                (releases.iter().map(|time| self.now.max(*time)).collect(), 0)
            }
            None => {
                let times = nodes.iter().map(|node| time(*node).unwrap_or(NEVER)).collect();
                (times, self.lines.touched().len())
            }
        };
        self.plan.stats.nodes += (nodes.len() + self.lines.touched().len() - seen) as u64;
        for node in &self.lines.touched()[seen..] {
            if let Ok(place) = nodes.binary_search(node) {
                times[place] = time(*node).unwrap_or(NEVER);
            }
        }
        times
    }

    fn search(
        &mut self,
        number: u32,
        prepared: &Prepared,
        at: usize,
        demand: &Demand<'_>,
        times: &[i64],
        lower: i64,
    ) -> Option<(i64, Vec<NodeShare>)> {
        let class = &self.classes[number as usize];
        let licence = |start: i64, pass: &Self| {
            pass.licences.next(&class.shape, prepared.access, pass.pool, start, class.length)
        };
        let first = licence(lower, self)?;
        if let Some(shares) = self.try_at(number, prepared, at, demand, times, first) {
            return Some((first, shares));
        }
        let events = self.ends_after(number, at, times, first);
        let mut tries = 1;
        let mut last = first;
        for instant in events {
            let Some(instant) = licence(instant, self) else { continue };
            if instant <= last {
                continue;
            }
            last = instant;
            if self.sum_at(number, prepared, at, demand, times, instant).serves(demand) {
                if let Some(shares) = self.try_at(number, prepared, at, demand, times, instant) {
                    return Some((instant, shares));
                }
                tries += 1;
                if tries > MAX_INSTANTS {
                    self.plan.cut = true;
                    return None;
                }
            }
        }
        None
    }

    /// Instants after `from` at which something ends on a node that could take a share, in order.
    fn ends_after(&self, number: u32, at: usize, times: &[i64], from: i64) -> Vec<i64> {
        let partition = self.classes[number as usize].partitions[at];
        let mut ends = Vec::new();
        for (node, time) in self.pool.partition(partition).iter().zip(times) {
            if *time == NEVER {
                continue;
            }
            ends.extend(self.lines.line(*node).changes(from));
            let Some(kind) = self.pool.kind_of(*node) else { continue };
            for reservation in &self.pool.kinds()[kind as usize].reservations {
                let times = self.pool.calendar(*reservation).iter();
                ends.extend(times.flat_map(|held| [held.from, held.until]).filter(|t| *t > from));
            }
        }
        let shape = &self.classes[number as usize].shape;
        ends.extend(self.licences.changes(shape, from));
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Calls `each` with the nodes that could take a share from `start` on.
    fn at_instant(
        &self,
        number: u32,
        prepared: &Prepared,
        at: usize,
        times: &[i64],
        start: i64,
        mut each: impl FnMut(NodeIndex, i64),
    ) {
        let class = &self.classes[number as usize];
        let until = end_of(start, class.length);
        let nodes = self.pool.partition(class.partitions[at]);
        for (node, time) in nodes.iter().zip(times).filter(|(_, time)| **time <= start) {
            let Some(kind) = self.pool.kind_of(*node) else { continue };
            let Some(need) = &prepared.needs[at][kind as usize] else { continue };
            let kind = &self.pool.kinds()[kind as usize];
            let line = self.lines.line(*node);
            let held = !kind.reservations.is_empty() || !prepared.access.is_outside();
            let fits = *time == start
                || ((!line.grows() || line.fits(&Ahead(need), start, until))
                    && (!held || prepared.access.allows(self.pool, kind, start, class.length)));
            if fits {
                each(*node, *time);
            }
        }
    }

    fn sum_at(
        &self,
        number: u32,
        prepared: &Prepared,
        at: usize,
        demand: &Demand<'_>,
        times: &[i64],
        start: i64,
    ) -> Sum {
        let until = end_of(start, self.classes[number as usize].length);
        let mut sum = Sum::default();
        self.at_instant(number, prepared, at, times, start, |node, _| {
            if let Some(kind) = self.pool.kind_of(node)
                && let Some(need) = &prepared.needs[at][kind as usize]
            {
                let peak = self.lines.line(node).peak(start, until);
                need.add_to(&mut sum, demand, &self.pool.kinds()[kind as usize], &peak);
            }
        });
        sum
    }

    /// Tries a placement that begins at `start`.
    fn try_at(
        &mut self,
        number: u32,
        prepared: &Prepared,
        at: usize,
        demand: &Demand<'_>,
        times: &[i64],
        start: i64,
    ) -> Option<Vec<NodeShare>> {
        self.plan.stats.instants += 1;
        let mut nodes: Vec<(Reverse<i64>, NodeIndex)> = Vec::new();
        self.at_instant(number, prepared, at, times, start, |node, time| {
            nodes.push((Reverse(time), node));
        });
        // Those that get free last, so that the others stay free for who starts before.
        let most = demand.nodes_max.min(demand.tasks) as usize;
        let choice = most.saturating_mul(2).saturating_add(CHOICE);
        let by_name = !demand.shape.required.is_empty();
        if nodes.len() > choice && !by_name {
            nodes.select_nth_unstable(choice - 1);
            let some: Vec<_> = nodes[..choice].iter().map(|(_, node)| *node).collect();
            if let Some(shares) = self.place_at(number, demand, some, start) {
                return Some(shares);
            }
        }
        let all = nodes.into_iter().map(|(_, node)| node).collect();
        self.place_at(number, demand, all, start)
    }

    fn place_at(
        &self,
        number: u32,
        demand: &Demand<'_>,
        mut nodes: Vec<NodeIndex>,
        start: i64,
    ) -> Option<Vec<NodeShare>> {
        nodes.sort_unstable();
        let until = end_of(start, self.classes[number as usize].length);
        let idle = Free::idle(self.cluster);
        let mut window = Window::now(&idle, self.cluster);
        for node in &nodes {
            window.set(*node, &self.lines.line(*node).peak(start, until));
        }
        place(&window, &nodes, demand, |node| node.accepts_work())
    }

    /// What stands in the way of a place that was promised, for people.
    fn what_moved(&self, old: &Kept) -> String {
        let until = end_of(old.start, old.length);
        for (index, _) in &old.parts {
            let Some((node, used)) = self.cluster.node(*index) else { continue };
            let name = &node.name;
            if self.pool.kind_of(*index).is_none() {
                return format!("node {name}, which was kept for it, accepts no work");
            }
            let ahead = self.searches.kept.iter().find(|(_, kept)| {
                kept.start < until
                    && old.start < end_of(kept.start, kept.length)
                    && kept.parts.iter().any(|(node, _)| node == index)
            });
            if let Some(((unit, _), _)) = ahead {
                return format!("job {} of higher priority needs node {name} then", unit.id());
            }
            let starts = self
                .plan
                .starts
                .iter()
                .find(|line| line.shares.iter().any(|share| share.node == *index));
            if let Some(line) = starts {
                return format!("job {} of higher priority starts on node {name}", line.unit.id());
            }
            let kill_wait = self.cluster.config().policy.kill_wait_secs;
            let runs = used.jobs.iter().filter_map(|id| self.cluster.job(*id)).find(|job| {
                job.active_run().is_some_and(|run| {
                    let now = Timestamp(self.now);
                    super::profile::run_end(job, run, now, kill_wait).0 > old.start
                })
            });
            if let Some(job) = runs {
                let id = job.id;
                return format!("job {id} runs longer on node {name} than its limit let expect");
            }
        }
        "what it asks for, or what was kept for it, changed".to_owned()
    }
}
