//! What does one pass over the waiting units come to?
//!
//! One sweep in order. A unit that fits now, for as long as it may run and beside every place reserved
//! ahead of it, starts. One that does not gets a place reserved in time, as long as fewer than the
//! depth have one in its partitions. A class that did not fit is not tried again: within a pass, what
//! is free only shrinks.

use std::cell::OnceCell;
use std::sync::Arc;

use penstock_vocab::{PendingReason, Timestamp, UserId};

use super::access::Access;
use super::classes::Class;
use super::demand::{Asker, Demand};
use super::free::Free;
use super::gates::{Charge, Gates, partition_obstacle};
use super::licences::Licences;
use super::memory::Memory;
use super::mig::Wanted;
use super::mig::slots::Slots;
use super::needs::{Need, needs};
use super::open::Open;
use super::packing::Packer;
use super::placing::STRANGER;
use super::plan::{Limits, Plan};
use super::pool::Pool;
use super::preempt::Victims;
use super::profile::{Lines, held_until};
use super::queue::{Entry, Queue, Turn};
use super::reasons::{Obstacle, Why};
use super::reserve::Searches;
use super::sharing::Sharers;
use super::slices::Sliced;
use crate::cluster::{Cluster, Waiting};
use crate::command::{StartLine, Unit};
use crate::model::{Backfill, Holder, NodeShare, Partition};

/// What is known of a class in this pass.
#[derive(Debug, Clone, Copy, Default)]
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
    /// The same for what can be cut for it.
    pub(super) sliced: Vec<Option<Sliced>>,
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
    pub(super) slots: &'a mut Slots,
    pub(super) licences: Licences,
    pub(super) open: Open,
    pub(super) free: Free<'a>,
    pub(super) gates: Gates<'a>,
    pub(super) victims: Victims,
    /// What is typical; worked out when the first unit finds room.
    packer: &'a OnceCell<Option<Packer>>,
    prepared: Vec<Option<Arc<Prepared>>>,
    verdicts: Vec<Verdict>,
    pub(super) searches: Searches<'a>,
    /// Which CPUs that others may join this plan gave away.
    pub(super) sharers: Sharers,
    /// Units that wait for resources, by partition.
    waits_in: Vec<bool>,
    /// Starts ahead of one that waits, by partition and by user.
    filled_in: Vec<u32>,
    filled_by: std::collections::BTreeMap<UserId, u32>,
    /// GPUs that have to be cut now.
    pub(super) cuts: Vec<Wanted>,
    pub(super) plan: Plan,
}

/// Where a unit can start now.
struct Spot<'a> {
    /// Place in the class's list of partitions.
    at: usize,
    shares: Vec<NodeShare>,
    length: i64,
    charge: Option<Charge<'a>>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        memory: &'a mut Memory,
        gates: Gates<'a>,
        plan: Plan,
        limits: Limits,
        packer: &'a OnceCell<Option<Packer>>,
    ) -> Self {
        let now = plan.made_at.0;
        let cluster = gates.cluster();
        let Memory { pool, classes, queue, lines, slots, releases, kept, .. } = memory;
        let partitions = cluster.config().partitions.len();
        Self {
            cluster,
            now,
            backfill: &cluster.config().scheduling.backfill,
            limits,
            licences: Licences::new(cluster, pool, plan.made_at),
            open: Open::new(pool, lines, cluster.site(), now),
            free: Free::now(cluster),
            gates,
            victims: Victims::default(),
            packer,
            prepared: vec![None; classes.all().len()],
            verdicts: vec![Verdict::Open; classes.all().len()],
            searches: Searches::new(kept, releases, partitions),
            sharers: Sharers::default(),
            waits_in: vec![false; partitions],
            filled_in: vec![0; partitions],
            filled_by: std::collections::BTreeMap::new(),
            pool,
            classes: classes.all(),
            queue,
            lines,
            slots,
            cuts: Vec::new(),
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
        let verdict = self.verdicts[class];
        match verdict {
            Verdict::Open => {}
            Verdict::Own(why) => return self.note(turn, why),
            Verdict::Closed(why) if !self.is_looked_at(turn) => {
                return self.note(turn, why);
            }
            Verdict::Closed(why) => {
                let entry = &self.queue.entries()[turn.place as usize];
                if let Some(limit) = self.gates.known_limit(turn.class, entry) {
                    return self.note(turn, limit);
                }
                self.plan.stats.tried += 1;
                if let Err(waiting) = self.gates.limits_of(entry, self.partitions_of(turn.class)) {
                    return self.note_limit(turn, entry, waiting);
                }
                self.note(turn, why);
                if !self.preempt_for(turn, entry) {
                    self.reserve_for(turn, entry, 0);
                }
                return;
            }
        }
        let entry = &self.queue.entries()[turn.place as usize];
        if let Some(limit) = self.gates.known_limit(turn.class, entry) {
            return self.note(turn, limit);
        }
        self.plan.stats.tried += 1;
        let mut started = 0;
        let cluster: &'a Cluster = self.cluster;
        let mut tasks = match entry.unit {
            Unit::Job(_) => None,
            Unit::Array(id) => cluster.array(id).map(|array| cluster.startable_tasks(array)),
        };
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

    /// Whether a place may be found for another unit of a class that does not fit now.
    fn is_looked_at(&mut self, turn: Turn) -> bool {
        let entry = &self.queue.entries()[turn.place as usize];
        self.searches.wanted(self.backfill.depth) || self.may_cut_for(turn, entry)
    }

    fn all_start(&mut self, turn: Turn) {
        self.plan.why[turn.place as usize] = Why::Starts;
    }

    /// Nobody of the class who is charged alike is looked at again in this pass.
    fn note_limit(&mut self, turn: Turn, entry: &Entry, waiting: Waiting) {
        let why = self.plan.say(waiting);
        self.gates.close(turn.class, entry, why);
        self.note(turn, why);
    }

    fn partitions_of(&self, class: u32) -> impl Iterator<Item = &'a Partition> {
        let classes: &'a [Arc<Class>] = self.classes;
        classes[class as usize].partitions.iter().map(|at| self.partition(*at))
    }

    fn note(&mut self, turn: Turn, why: u32) {
        self.plan.why[turn.place as usize] = Why::Waits(why);
    }

    /// Where a unit starts now; else the sentence, where a place in time is of no use, or nothing
    /// where it may be.
    fn try_start(&mut self, turn: Turn, entry: &Entry) -> Result<Spot<'a>, Option<u32>> {
        if let Err(waiting) = self.gates.before(entry) {
            return Err(Some(self.plan.say(waiting)));
        }
        let class = turn.class;
        let prepared = self.prepare(class, entry);
        let mut first: Option<Obstacle> = None;
        let mut limited: Option<Waiting> = None;
        for (at, partition) in self.classes[class as usize].partitions.iter().enumerate() {
            let of = self.partition(*partition);
            let claim = self.gates.claim(entry, of);
            if let Err(waiting) = self.gates.limits_in(entry, claim.as_ref(), of) {
                limited = Some(limited.unwrap_or(waiting));
                continue;
            }
            match self.try_partition(class, &prepared, at, entry) {
                Ok((shares, length)) => {
                    return match self.gates.after(entry, claim, of, &shares) {
                        Ok(charge) => Ok(Spot { at, shares, length, charge }),
                        Err(waiting) => {
                            let why = self.plan.say(waiting);
                            self.gates.close(class, entry, why);
                            Err(Some(why))
                        }
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
            if let Some(waiting) = limited {
                let why = self.plan.say(waiting);
                self.gates.close(class, entry, why);
                return Err(Some(why));
            }
            return Err(Some(self.plan.say(Waiting::new(
                PendingReason::PartitionDown,
                "it names no partition that exists",
            ))));
        };
        Err(self.shut(turn, &obstacle, limited.is_some()))
    }

    /// Notes what keeps a unit back, and closes its class to those behind it; the sentence, where a place in
    /// time is of no use. `limited`: a limit shut one of its partitions, which may be open to others of
    /// the class.
    fn shut(&mut self, turn: Turn, obstacle: &Obstacle, limited: bool) -> Option<u32> {
        let class = turn.class;
        let passes = obstacle.passes();
        let why = self.plan.say(obstacle.waiting().clone());
        if !passes {
            if !limited {
                self.verdicts[class as usize] = Verdict::Own(why);
            }
            return Some(why);
        }
        if limited {
            self.note(turn, why);
            return None;
        }
        let detail = match obstacle {
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
        None
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

    /// What a class comes to in the partition at this place of its list.
    pub(super) fn demand(&self, class: &'a Class, at: usize) -> Demand<'a> {
        let cluster: &'a Cluster = self.cluster;
        let now = Timestamp(self.now);
        let submitted = class.alone.map_or(now, |(_, submitted)| submitted);
        let asker = Asker::new(class.user.unwrap_or(STRANGER), submitted, now);
        let partition = self.partition(class.partitions[at]);
        Demand::new(cluster, class.shape_at(at), partition, asker)
    }

    /// What is typical of the jobs that wait; `None`: it does not matter.
    pub(super) fn packer(&self) -> Option<&'a Packer> {
        let cell: &'a OnceCell<Option<Packer>> = self.packer;
        let typical = || {
            let mut counts = vec![0u64; self.classes.len()];
            for entry in self.queue.entries() {
                counts[entry.class as usize] += match entry.unit {
                    Unit::Job(_) => 1,
                    Unit::Array(id) => {
                        self.cluster.array(id).map_or(0, |array| array.pending.len())
                    }
                };
            }
            let waiting = self.classes.iter().zip(counts).filter(|(_, count)| *count > 0);
            let popular = waiting.filter_map(|(class, count)| {
                let partition = class.partitions.first()?;
                Some((&**class.shape_at(0), self.partition(*partition), count))
            });
            Packer::of_plan(self.cluster, popular)
        };
        cell.get_or_init(typical).as_ref()
    }

    /// What a class needs, worked out at its first unit.
    pub(super) fn prepare(&mut self, number: u32, entry: &Entry) -> Arc<Prepared> {
        if let Some(prepared) = &self.prepared[number as usize] {
            return Arc::clone(prepared);
        }
        self.plan.stats.classes += 1;
        let class: &'a Class = &self.classes[number as usize];
        let (spec, limit) = (&entry.queued.spec, entry.queued.time_limit);
        let qos = self.cluster.accounts().qos(&spec.qos).map(|qos| &**qos);
        let partitions = class.partitions.iter();
        let prepared = Arc::new(Prepared {
            access: Access::of(class, self.pool),
            needs: partitions
                .clone()
                .enumerate()
                .map(|(at, place)| needs(&self.demand(class, at), self.pool, *place))
                .collect(),
            sliced: (0..class.partitions.len()).map(|at| self.sliced(class, at)).collect(),
            obstacles: partitions
                .map(|at| partition_obstacle(self.partition(*at), qos, spec, limit))
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
        let class: &'a Class = &self.classes[number as usize];
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
        let found = self.fit_now(class, prepared, at, (class.length, entry.unit));
        match found {
            Ok(shares) => Ok((shares, class.length)),
            Err(Obstacle::Behind(_)) if class.least_length < class.length => {
                let shares = self.fit_now(class, prepared, at, (class.least_length, entry.unit))?;
                let length = self.longest(class, prepared, at, &shares);
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

    fn start(&mut self, turn: Turn, entry: &Entry, task: Option<u32>, spot: Spot<'a>) {
        let Spot { at, shares, length, charge } = spot;
        let class = &self.classes[turn.class as usize];
        let partition = class.partitions[at];
        let of = self.partition(partition);
        self.gates.take(entry, charge.as_ref());
        let until = held_until(self.now, length);
        self.licences.take(&class.shape, i64::MIN, until);
        let alone = self.demand(class, at).holder.alone;
        let holder = Holder { uid: entry.queued.uid, alone };
        for share in &shares {
            self.free.take(share, holder);
            if let Some((node, _)) = self.cluster.node(share.node) {
                for (from, amount) in self.pieces(node, share, (until, holder.alone)) {
                    self.lines.add(share.node, from, until, &amount);
                }
                self.sharers.note(share, until);
            }
            self.slots.start(self.cluster, share, until);
            self.open.update(share.node, self.pool, self.lines, self.cluster.site(), self.now);
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
