//! What does one pass over the waiting units come to?
//!
//! One sweep in order. A unit that fits now, for as long as it may run and beside every place reserved
//! ahead of it, starts. One that does not gets a place reserved in time, as long as fewer than the
//! depth have one in its partitions. A class that did not fit is not tried again: within a pass, what
//! is free only shrinks.

use std::sync::Arc;

use penstock_vocab::{PendingReason, UserId};

use super::access::Access;
use super::classes::Class;
use super::demand::Demand;
use super::fit::place;
use super::free::Free;
use super::gates::{Gates, partition_obstacle};
use super::licences::Licences;
use super::memory::Memory;
use super::needs::{Need, Sum, needs};
use super::open::Open;
use super::placing::{Exactly, Window};
use super::plan::{Limits, Plan};
use super::pool::Pool;
use super::preempt::Victims;
use super::profile::{Amount, Lines, end_of, held_until};
use super::queue::{Entry, Queue, Turn};
use super::reasons::{Obstacle, Why, behind, resources, unavailable};
use super::reserve::Searches;
use crate::cluster::{Cluster, Waiting};
use crate::command::{StartLine, Unit};
use crate::model::{Backfill, NodeIndex, NodeShare, Partition};

/// What is known of a class in this pass.
#[derive(Debug, Clone, Default)]
enum Verdict {
    /// It was not tried.
    #[default]
    Open,
    /// It does not fit now; a place reserved in time may help. The sentence for units after the
    /// first.
    Closed(u32),
    /// It can't run as things are.
    Own(u32),
}

/// What was worked out for a class.
pub(super) struct Prepared {
    pub(super) access: Access,
    /// For each of its partitions what it needs there, by kind of node.
    pub(super) needs: Vec<Vec<Option<Need>>>,
    obstacles: Vec<Option<Waiting>>,
}

impl Prepared {
    /// Whether the partition itself has nothing against the class.
    pub(super) fn may_run(&self, at: usize) -> bool {
        self.obstacles[at].is_none()
    }
}

/// A pass.
pub(super) struct Pass<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) now: i64,
    pub(super) backfill: &'a Backfill,
    limits: Limits,
    pub(super) pool: &'a Pool,
    pub(super) classes: &'a [Arc<Class>],
    pub(super) queue: &'a Queue,
    pub(super) lines: &'a mut Lines,
    pub(super) licences: Licences,
    pub(super) open: Open,
    free: Free<'a>,
    pub(super) gates: Gates<'a>,
    pub(super) victims: Victims,
    prepared: Vec<Option<Arc<Prepared>>>,
    verdicts: Vec<Verdict>,
    pub(super) searches: Searches<'a>,
    /// Units that wait for resources, by partition.
    waits_in: Vec<bool>,
    /// Starts ahead of one that waits, by partition and by user.
    filled_in: Vec<u32>,
    filled_by: std::collections::BTreeMap<UserId, u32>,
    pub(super) plan: Plan,
}

/// Where a unit can start now.
struct Spot {
    partition: u32,
    shares: Vec<NodeShare>,
    length: i64,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        memory: &'a mut Memory,
        cluster: &'a Cluster,
        plan: Plan,
        limits: Limits,
    ) -> Self {
        let now = plan.made_at.0;
        let Memory { pool, classes, queue, lines, kept } = memory;
        let partitions = cluster.config().partitions.len();
        Self {
            cluster,
            now,
            backfill: &cluster.config().scheduling.backfill,
            limits,
            licences: Licences::new(cluster, pool, plan.made_at),
            open: Open::new(pool, lines, cluster.node_count(), now),
            free: Free::now(cluster),
            gates: Gates::new(cluster),
            victims: Victims::default(),
            prepared: vec![None; classes.all().len()],
            verdicts: vec![Verdict::Open; classes.all().len()],
            searches: Searches::new(kept, partitions),
            waits_in: vec![false; partitions],
            filled_in: vec![0; partitions],
            filled_by: std::collections::BTreeMap::new(),
            pool,
            classes: classes.all(),
            queue,
            lines,
            plan,
        }
    }

    /// Looks at the units in order.
    pub(super) fn run(&mut self, order: &[Turn]) {
        for turn in order {
            let stats = &self.plan.stats;
            let tests = self.backfill.max_tests.max(1);
            if stats.tried as usize >= self.limits.tried
                || self.plan.starts.len() >= self.limits.starts
                || stats.tests + stats.searches >= tests
            {
                self.plan.cut = true;
                return;
            }
            self.consider(*turn);
        }
    }

    fn consider(&mut self, turn: Turn) {
        let class = turn.class as usize;
        match self.verdicts[class] {
            Verdict::Open => {}
            Verdict::Own(why) => return self.note(turn, why),
            Verdict::Closed(why) if !self.searches.wanted(self.backfill.depth) => {
                return self.note(turn, why);
            }
            Verdict::Closed(why) => {
                let entry = &self.queue.entries()[turn.place as usize];
                self.note(turn, why);
                self.plan.stats.tried += 1;
                if !self.preempt_for(turn, entry) {
                    self.reserve_for(turn, entry, 0);
                }
                return;
            }
        }
        let entry = &self.queue.entries()[turn.place as usize];
        self.plan.stats.tried += 1;
        let mut started = 0;
        let tasks = match entry.unit {
            Unit::Job(_) => None,
            Unit::Array(id) => self.cluster.array(id).map(|array| array.pending.clone()),
        };
        let mut tasks = tasks.as_ref().map(|tasks| tasks.iter());
        loop {
            let task = match &mut tasks {
                None if started > 0 => break self.all_start(turn),
                None => None,
                Some(tasks) => match tasks.next() {
                    None => break self.all_start(turn),
                    task => task,
                },
            };
            if self.plan.starts.len() >= self.limits.starts {
                self.plan.cut = true;
                break;
            }
            match self.try_start(turn, entry) {
                Ok(spot) => self.start(turn, entry, task, spot),
                Err(Some(why)) => {
                    self.note(turn, why);
                    break;
                }
                Err(None) => {
                    if !self.preempt_for(turn, entry) {
                        self.reserve_for(turn, entry, started);
                    }
                    break;
                }
            }
            started += 1;
        }
    }

    fn all_start(&mut self, turn: Turn) {
        self.plan.why[turn.place as usize] = Why::Starts;
    }

    fn note(&mut self, turn: Turn, why: u32) {
        self.plan.why[turn.place as usize] = Why::Waits(why);
    }

    /// Where a unit starts now; else the sentence, where a place in time is of no use, or nothing
    /// where it may be.
    fn try_start(&mut self, turn: Turn, entry: &Entry) -> Result<Spot, Option<u32>> {
        if let Err(waiting) = self.gates.before(entry) {
            return Err(Some(self.plan.say(waiting)));
        }
        let class = turn.class;
        let prepared = self.prepare(class, entry);
        let mut first: Option<Obstacle> = None;
        for (at, partition) in self.classes[class as usize].partitions.iter().enumerate() {
            match self.try_partition(class, &prepared, at, entry) {
                Ok((shares, length)) => {
                    let spot = Spot { partition: *partition, shares, length };
                    let of = self.partition(*partition);
                    return match self.gates.after(entry, of, &spot.shares) {
                        Ok(()) => Ok(spot),
                        Err(waiting) => Err(Some(self.plan.say(waiting))),
                    };
                }
                Err(obstacle) => {
                    let resources = matches!(obstacle, Obstacle::Resources(_));
                    let better = first.as_ref().is_none_or(|first| {
                        resources && !matches!(first, Obstacle::Resources(_))
                            || obstacle.passes() && !first.passes()
                    });
                    if better {
                        first = Some(obstacle);
                    }
                }
            }
        }
        let Some(obstacle) = first else {
            return Err(Some(self.plan.say(Waiting::new(
                PendingReason::PartitionDown,
                "it names no partition that exists",
            ))));
        };
        let passes = obstacle.passes();
        let why = self.plan.say(obstacle.waiting().clone());
        if !passes {
            self.verdicts[class as usize] = Verdict::Own(why);
            return Err(Some(why));
        }
        let detail = match &obstacle {
            Obstacle::Resources(waiting) if self.backfill.depth > 0 => {
                format!("waits behind a job that asks for the same: {}", waiting.detail)
            }
            Obstacle::Resources(_) => self.behind_in(class),
            Obstacle::Behind(waiting) | Obstacle::Own(waiting) => waiting.detail.clone(),
        };
        let later = self.plan.say(Waiting::new(PendingReason::Priority, detail));
        self.verdicts[class as usize] = Verdict::Closed(later);
        self.note(turn, why);
        for partition in &self.classes[class as usize].partitions {
            self.waits_in[*partition as usize] = true;
        }
        Err(None)
    }

    fn behind_in(&self, class: u32) -> String {
        let first = self.classes[class as usize].partitions.first();
        let name = first.map_or("", |at| self.partition(*at).name.as_str());
        format!("a job of higher priority waits in partition {name}")
    }

    pub(super) fn partition(&self, place: u32) -> &'a Partition {
        let cluster: &'a Cluster = self.cluster;
        &cluster.config().partitions[place as usize]
    }

    /// What a class needs, worked out at its first unit.
    pub(super) fn prepare(&mut self, number: u32, entry: &Entry) -> Arc<Prepared> {
        if let Some(prepared) = &self.prepared[number as usize] {
            return Arc::clone(prepared);
        }
        self.plan.stats.classes += 1;
        let class = &self.classes[number as usize];
        let (spec, limit) = (&entry.queued.spec, entry.queued.time_limit);
        let partitions = class.partitions.iter();
        let prepared = Arc::new(Prepared {
            access: Access::of(class, self.pool),
            needs: partitions
                .clone()
                .map(|at| needs(&Demand::new(&class.shape, self.partition(*at)), self.pool, *at))
                .collect(),
            obstacles: partitions
                .map(|at| partition_obstacle(self.partition(*at), spec, limit))
                .collect(),
        });
        self.prepared[number as usize] = Some(Arc::clone(&prepared));
        prepared
    }

    /// Tries one partition; the limit may be cut down as far as the unit lets.
    fn try_partition(
        &mut self,
        number: u32,
        prepared: &Prepared,
        at: usize,
        entry: &Entry,
    ) -> Result<(Vec<NodeShare>, i64), Obstacle> {
        let class = &self.classes[number as usize];
        let place = class.partitions[at];
        if let Some(own) = &prepared.obstacles[at] {
            return Err(Obstacle::Own(own.clone()));
        }
        if self.backfill.depth == 0 && self.waits_in[place as usize] {
            let detail = self.behind_in(number);
            return Err(Obstacle::Behind(Waiting::new(PendingReason::Priority, detail)));
        }
        if self.waits_in[place as usize]
            && let Some(waiting) = self.filled_enough(place, entry)
        {
            return Err(Obstacle::Behind(waiting));
        }
        let found = self.fit_now(class, prepared, at, class.length);
        match found {
            Ok(shares) => Ok((shares, class.length)),
            Err(Obstacle::Behind(_)) if class.least_length < class.length => {
                let shares = self.fit_now(class, prepared, at, class.least_length)?;
                let length = self.longest(class, prepared, place, &shares);
                Ok((shares, length))
            }
            Err(obstacle) => Err(obstacle),
        }
    }

    /// Whether enough was started ahead of those that wait, by the configured bounds.
    fn filled_enough(&self, partition: u32, entry: &Entry) -> Option<Waiting> {
        let reached = |most: u32, count: u32| most > 0 && count >= most;
        let by = self.filled_by.get(&entry.queued.uid).copied().unwrap_or(0);
        let here = self.filled_in[partition as usize];
        let text = if reached(self.backfill.max_starts, self.plan.stats.backfilled) {
            format!(
                "one plan starts at most {} jobs ahead of waiting ones",
                self.backfill.max_starts
            )
        } else if reached(self.backfill.max_per_user, by) {
            let most = self.backfill.max_per_user;
            format!("one plan starts at most {most} jobs of a user ahead of waiting ones")
        } else if reached(self.backfill.max_per_partition, here) {
            let most = self.backfill.max_per_partition;
            format!("one plan starts at most {most} jobs of a partition ahead of waiting ones")
        } else {
            return None;
        };
        Some(Waiting::new(PendingReason::Priority, text))
    }

    /// Looks for nodes on which a class fits from now on for `length`.
    fn fit_now(
        &mut self,
        class: &Class,
        prepared: &Prepared,
        at: usize,
        length: i64,
    ) -> Result<Vec<NodeShare>, Obstacle> {
        self.plan.stats.tests += 1;
        let partition = class.partitions[at];
        let demand = Demand::new(&class.shape, self.partition(partition));
        self.check_reservation(class, prepared)?;
        if let Some((name, asked, free, all)) =
            self.licences.missing(&class.shape, prepared.access, self.pool, self.now, length)
        {
            let detail = format!("needs {asked} of licence {name}; {free} of {all} are free");
            return Err(Obstacle::Resources(Waiting::new(PendingReason::Licenses, detail)));
        }
        let (found, kept_back) = {
            let mut window = Window::now(&self.free, self.cluster);
            let needs = &prepared.needs[at];
            let (nodes, sum, kept_back) =
                self.candidates(prepared.access, needs, &demand, length, &mut window);
            let found = if sum.serves(&demand) {
                place(&window, &nodes, &demand, |node| node.accepts_work())
                    .and_then(|shares| window.make_real(shares))
            } else {
                None
            };
            (found, kept_back)
        };
        if let Some(shares) = found {
            return Ok(shares);
        }
        if !self.could_run(&demand, &prepared.needs[at], partition) {
            let nodes = self.pool.partition(partition);
            return Err(Obstacle::Own(unavailable(self.cluster, nodes, &demand)));
        }
        if kept_back && self.fits_but_for_others(prepared, at, &demand) {
            return Err(Obstacle::Behind(behind(&demand)));
        }
        Err(Obstacle::Resources(resources(&demand, &self.open, self.pool, partition)))
    }

    /// Whether the reservation that a class names is there and has begun.
    fn check_reservation(&self, class: &Class, prepared: &Prepared) -> Result<(), Obstacle> {
        let name = &class.reservation;
        match prepared.access {
            Access::Outside | Access::Inside { flex: true, .. } => Ok(()),
            Access::Missing => {
                let detail = format!("reservation {name} does not exist any more");
                Err(Obstacle::Own(Waiting::new(PendingReason::ReservationDeleted, detail)))
            }
            Access::Inside { reservation, flex: false } => {
                let times = self.pool.calendar(reservation);
                let runs = |from: i64, until: i64| from <= self.now && self.now < until;
                match times.iter().find(|held| held.until > self.now) {
                    Some(held) if runs(held.from, held.until) => Ok(()),
                    Some(held) => {
                        let secs = held.from.saturating_sub(self.now).unsigned_abs() / 1_000;
                        let begins = penstock_vocab::elapsed_long(secs);
                        let detail = format!("reservation {name} begins in {begins}");
                        Err(Obstacle::Own(Waiting::new(PendingReason::Reservation, detail)))
                    }
                    None => {
                        let detail = format!("reservation {name} is over");
                        Err(Obstacle::Own(Waiting::new(PendingReason::Reservation, detail)))
                    }
                }
            }
        }
    }

    /// Nodes that could take part from now on for `length`, what they could take together, and
    /// whether others were kept back by what begins later.
    fn candidates(
        &self,
        access: Access,
        needs: &[Option<Need>],
        demand: &Demand<'_>,
        length: i64,
        window: &mut Window<'_>,
    ) -> (Vec<NodeIndex>, Sum, bool) {
        let (mut nodes, mut sum, mut kept_back) = (Vec::new(), Sum::default(), false);
        let most = self.enough_of_a_kind(demand);
        let kinds = self.pool.kinds();
        for (kind, peak, group) in self.open.groups() {
            let Some(need) = &needs[kind as usize] else { continue };
            if !fits(need, &peak) || access_is_inside(access) {
                continue;
            }
            for node in group.iter().take(most) {
                nodes.push(*node);
                need.add_to(&mut sum, demand, &kinds[kind as usize], &peak);
            }
        }
        let until = end_of(self.now, length);
        for node in self.open.alone() {
            let Some(kind) = self.pool.kind_of(node) else { continue };
            let Some(need) = &needs[kind as usize] else { continue };
            let kind = &kinds[kind as usize];
            let line = self.lines.line(node);
            if !line.fits(need, self.now, self.now.saturating_add(1)) {
                continue;
            }
            if !line.fits(need, self.now, until)
                || !access.allows(self.pool, kind, self.now, length)
            {
                kept_back = true;
                continue;
            }
            let peak = line.peak(self.now, until);
            if line.grows() {
                window.set(node, &peak);
            }
            nodes.push(node);
            need.add_to(&mut sum, demand, kind, &peak);
        }
        (nodes, sum, kept_back)
    }

    /// How many nodes of one group have to be looked at.
    fn enough_of_a_kind(&self, demand: &Demand<'_>) -> usize {
        let shape = demand.shape;
        let topology = &self.cluster.config().scheduling.topology;
        let by_name = !shape.required.is_empty()
            || !shape.excluded.is_empty()
            || !topology.switches.is_empty()
            || !topology.blocks.is_empty();
        if by_name { usize::MAX } else { demand.nodes_max.min(demand.tasks) as usize }
    }

    /// Whether all nodes in service would do if they were idle.
    fn could_run(&self, demand: &Demand<'_>, needs: &[Option<Need>], partition: u32) -> bool {
        let most = self.enough_of_a_kind(demand);
        let mut seen = vec![0usize; self.pool.kinds().len()];
        let mut nodes = Vec::new();
        for node in self.pool.partition(partition) {
            let Some(kind) = self.pool.kind_of(*node) else { continue };
            if needs[kind as usize].is_some() && seen[kind as usize] < most {
                seen[kind as usize] += 1;
                nodes.push(*node);
            }
        }
        let idle = Free::idle(self.cluster);
        place(&idle, &nodes, demand, |node| node.accepts_work()).is_some()
    }

    /// Whether it would fit now if nothing were kept for later.
    fn fits_but_for_others(&self, prepared: &Prepared, at: usize, demand: &Demand<'_>) -> bool {
        let needs = &prepared.needs[at];
        let most = self.enough_of_a_kind(demand);
        let mut nodes = Vec::new();
        for (kind, peak, group) in self.open.groups() {
            if needs[kind as usize].as_ref().is_some_and(|need| fits(need, &peak)) {
                nodes.extend(group.iter().take(most));
            }
        }
        for node in self.open.alone() {
            let Some(kind) = self.pool.kind_of(node) else { continue };
            let need = needs[kind as usize].as_ref();
            let until = self.now.saturating_add(1);
            if need.is_some_and(|need| self.lines.line(node).fits(need, self.now, until)) {
                nodes.push(node);
            }
        }
        place(&self.free, &nodes, demand, |node| node.accepts_work()).is_some()
    }

    /// The longest limit with which shares that fit for the least one fit, milliseconds.
    fn longest(
        &self,
        class: &Class,
        prepared: &Prepared,
        partition: u32,
        shares: &[NodeShare],
    ) -> i64 {
        let demand = Demand::new(&class.shape, self.partition(partition));
        let fits = |length: i64| {
            let (access, until) = (prepared.access, end_of(self.now, length));
            let free = self.licences.next(&class.shape, access, self.pool, self.now, length);
            free == Some(self.now)
                && shares.iter().all(|share| {
                    let Some((node, _)) = self.cluster.node(share.node) else { return false };
                    let Some(kind) = self.pool.kind_of(share.node) else { return false };
                    let kind = &self.pool.kinds()[kind as usize];
                    let amount = Amount::of(node, share);
                    let need = Exactly::new(node, &amount, demand.exclusive);
                    self.lines.line(share.node).fits(&need, self.now, until)
                        && access.allows(self.pool, kind, self.now, length)
                })
        };
        // The least fits and the whole does not; whole seconds between.
        let (mut least, mut most) = (class.least_length / 1_000, class.length / 1_000);
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            if fits(middle.saturating_mul(1_000)) {
                least = middle;
            } else {
                most = middle;
            }
        }
        least.saturating_mul(1_000)
    }

    fn start(&mut self, turn: Turn, entry: &Entry, task: Option<u32>, spot: Spot) {
        let Spot { partition, shares, length } = spot;
        let class = &self.classes[turn.class as usize];
        let of = self.partition(partition);
        self.gates.take(entry, of, &shares);
        let until = held_until(self.now, length);
        self.licences.take(&class.shape, i64::MIN, until);
        for share in &shares {
            self.free.take(share);
            if let Some((node, _)) = self.cluster.node(share.node) {
                self.lines.add(share.node, i64::MIN, until, &Amount::of(node, share));
            }
            self.open.update(share.node, self.pool, self.lines, self.now);
        }
        let backfill = self.waits_in[partition as usize];
        if backfill {
            self.plan.stats.backfilled += 1;
            self.filled_in[partition as usize] += 1;
            *self.filled_by.entry(entry.queued.uid).or_insert(0) += 1;
        }
        self.plan.stats.started += 1;
        self.plan.starts.push(StartLine {
            unit: entry.unit,
            task,
            partition: of.name.clone(),
            shares: shares.into_boxed_slice(),
            backfill,
            limit: (length < class.length).then_some(length.unsigned_abs() / 1_000),
        });
    }
}

fn access_is_inside(access: Access) -> bool {
    // Nodes in groups are held by no reservation.
    matches!(access, Access::Inside { flex: false, .. } | Access::Missing)
}

fn fits(need: &Need, peak: &super::profile::Peak) -> bool {
    use super::profile::Fits as _;
    need.fits(peak.cpus, peak.memory, peak.holders, &peak.gres)
}
