//! Does what is planned ahead agree with slow and obvious reckoning?
//!
//! The references here know of counts alone: they reckon the use of each node for each second.

use std::collections::BTreeMap;

use penstock_core::Command;
use penstock_core::command::Unit;
use penstock_core::model::Inventory;
use penstock_core::scheduler::{Limits, Memory, Plan, plan, plan_with};
use penstock_vocab::{JobId, Mib, Timestamp};
use proptest::prelude::*;

use crate::common::{JobBuilder, World, job, world};

/// What a job takes on each of its nodes, for how long.
#[derive(Debug, Clone, Copy)]
struct Ask {
    nodes: u32,
    cpus: u32,
    memory: u64,
    gpus: u64,
    exclusive: bool,
    secs: u64,
}

fn ask() -> impl Strategy<Value = Ask> {
    (1u32..4, 1u32..5, 1u64..9, 0u64..3, prop::bool::weighted(0.1), 1u64..8).prop_map(
        |(nodes, cpus, memory, gpus, exclusive, minutes)| Ask {
            nodes,
            cpus,
            memory: memory * 100,
            gpus,
            exclusive,
            secs: minutes * 60,
        },
    )
}

impl Ask {
    fn job(self) -> JobBuilder {
        let mut job =
            job().nodes(self.nodes).memory(self.memory).minutes(self.secs / 60).shape(|s| {
                s.cpus_per_task = Some(self.cpus);
                s.ntasks_per_node = Some(1);
                s.exclusive = self.exclusive;
            });
        if self.gpus > 0 {
            job = job.gres(&format!("gpu:{}", self.gpus));
        }
        job
    }
}

/// Nodes of two kinds: 4 CPUs without and 8 CPUs with GPUs.
fn mixed(small: u32, large: u32, depth: u32) -> World {
    let mut w = world()
        .nodes(0)
        .scheduling(|s| {
            s.backfill.depth = depth;
            s.backfill.reserve_expansion = 0;
            s.weights.fcfs = true;
        })
        .build();
    for number in 1..=small {
        w.register(number, Vec::new());
    }
    for number in small + 1..=small + large {
        let gpus = world().cpus(8).gpus(2).memory(2_000).build().inventory;
        w.register_with(number, Inventory { boot_id: "b".into(), ..gpus }, Vec::new());
    }
    w
}

/// Use of each node for each second from now on: CPUs, memory, GPUs, jobs.
struct Reference {
    has: Vec<(u32, u64, u64)>,
    used: Vec<Vec<(u32, u64, u64, u32)>>,
}

impl Reference {
    fn new(w: &World, asks: &BTreeMap<JobId, Ask>, horizon: usize) -> Self {
        let has: Vec<_> = w
            .cluster
            .nodes()
            .map(|(_, node, _)| {
                let inventory = &node.inventory;
                let gpus = inventory.gres.iter().map(|gres| gres.count).sum();
                (inventory.cpus, inventory.memory.0, gpus)
            })
            .collect();
        let used = vec![vec![(0, 0, 0, 0); horizon]; has.len()];
        let mut reference = Self { has, used };
        for job in w.cluster.jobs() {
            let Some(run) = job.active_run() else { continue };
            let ask = asks[&job.id];
            let end = run.start_time.plus_secs(ask.secs).since(w.now).0 / 1_000;
            for share in &run.shares {
                reference.take(share.node.0, 0, usize::try_from(end).unwrap(), ask);
            }
        }
        reference
    }

    fn take(&mut self, node: u32, from: usize, until: usize, ask: Ask) {
        let cpus = if ask.exclusive { self.has[node as usize].0 } else { ask.cpus };
        for second in &mut self.used[node as usize][from..until] {
            second.0 += cpus;
            second.1 += ask.memory;
            second.2 += ask.gpus;
            second.3 += 1;
        }
    }

    fn has_room(&self, node: usize, from: usize, ask: Ask) -> bool {
        let has = self.has[node];
        let window = from..from + usize::try_from(ask.secs).unwrap();
        let cpus = if ask.exclusive { has.0 } else { ask.cpus };
        self.used[node][window].iter().all(|used| {
            used.0 + cpus <= has.0
                && used.1 + ask.memory <= has.1
                && used.2 + ask.gpus <= has.2
                && (!ask.exclusive || used.3 == 0)
        })
    }

    /// The first second from which enough nodes have room for the whole limit.
    fn earliest(&self, ask: Ask, horizon: usize) -> Option<usize> {
        (0..horizon).find(|from| {
            let nodes = 0..self.has.len();
            nodes.filter(|node| self.has_room(*node, *from, ask)).count() >= ask.nodes as usize
        })
    }
}

/// Compares a plan with the reference, unit by unit in order of submission. The reference takes the
/// nodes that the plan chose, after it found room there.
fn agrees(w: &World, plan: &Plan, asks: &BTreeMap<JobId, Ask>, depth: u32) {
    const HORIZON: usize = 40 * 480;
    let mut reference = Reference::new(w, asks, HORIZON + 480);
    let mut reserved = 0;
    let waiting: Vec<_> = w.cluster.jobs().filter(|job| job.is_pending()).map(|j| j.id).collect();
    for id in waiting {
        let ask = asks[&id];
        let start = plan.starts.iter().find(|line| line.unit == Unit::Job(id));
        let expected = plan.expected(Unit::Job(id));
        let nodes: Vec<u32> = match (start, expected) {
            (Some(line), _) => line.shares.iter().map(|share| share.node.0).collect(),
            (None, Some(expected)) => expected.nodes.iter().map(|node| node.0).collect(),
            (None, None) => Vec::new(),
        };
        let earliest = reference.earliest(ask, HORIZON);
        let at = match earliest {
            Some(0) => {
                assert!(start.is_some(), "job {id} fits now and does not start");
                0
            }
            Some(at) => {
                assert!(start.is_none(), "job {id} starts and runs into a place of another");
                if reserved == depth {
                    assert!(expected.is_none());
                    continue;
                }
                reserved += 1;
                let expected = expected.unwrap_or_else(|| panic!("job {id} fits in {at} s"));
                let promised = expected.start.since(w.now).0 / 1_000;
                assert_eq!(promised, at as u64, "job {id}");
                at
            }
            None => {
                assert!(start.is_none() && expected.is_none(), "job {id} fits nowhere");
                continue;
            }
        };
        assert_eq!(nodes.len(), ask.nodes as usize);
        for node in nodes {
            assert!(reference.has_room(node as usize, at, ask), "job {id} on node {node}");
            reference.take(node, at, at + usize::try_from(ask.secs).unwrap(), ask);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_place_in_time_is_the_earliest(
        first in prop::collection::vec((ask(), 0u64..4), 0..6),
        then in prop::collection::vec(ask(), 1..14),
        (small, large) in (0u32..3, 1u32..3),
        depth in prop::sample::select(vec![1u32, 3, u32::MAX]),
    ) {
        let mut w = mixed(small, large, depth);
        let mut asks = BTreeMap::new();
        for (ask, minutes) in first {
            if let Ok(id) = w.try_submit(&ask.job()) {
                asks.insert(id, ask);
                w.run_plan();
            }
            w.wait(minutes * 60);
            end_due(&mut w, &asks);
        }
        for ask in then {
            if let Ok(id) = w.try_submit(&ask.job()) {
                asks.insert(id, ask);
            }
        }
        let plan = w.plan();
        agrees(&w, &plan, &asks, depth);
        prop_assert_eq!(plan, w.plan());
    }

    #[test]
    fn what_is_promised_is_held_whoever_comes_later(
        asks_at in prop::collection::vec((ask(), 0u64..3), 2..16),
        depth in prop::sample::select(vec![1u32, 4, u32::MAX]),
    ) {
        let mut w = mixed(2, 2, depth);
        let (mut memory, mut asks) = (Memory::new(), BTreeMap::new());
        let mut promised: BTreeMap<JobId, Timestamp> = BTreeMap::new();
        let mut arrivals = asks_at.into_iter().peekable();
        for _minute in 0..400 {
            end_due(&mut w, &asks);
            while let Some((ask, gap)) = arrivals.peek().copied() {
                if let Ok(id) = w.try_submit(&ask.job()) {
                    asks.insert(id, ask);
                }
                arrivals.next();
                if gap > 0 {
                    break;
                }
            }
            let plan = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
            for lines in plan.starts.chunks(penstock_core::command::MAX_STARTS) {
                w.execute(Command::Start(lines.to_vec())).unwrap();
            }
            for line in &plan.starts {
                let id = line.unit.id();
                if let Some(promise) = promised.get(&id) {
                    prop_assert!(w.now <= *promise, "job {} was promised {:?}", id, promise);
                }
            }
            for (unit, expected) in plan.all_expected() {
                let promise = promised.entry(unit.id()).or_insert(expected.start);
                prop_assert!(expected.start <= *promise, "job {}: {:?}", unit.id(), expected);
                *promise = expected.start;
            }
            let idle = w.cluster.queue_is_empty() && arrivals.peek().is_none();
            if idle {
                return Ok(());
            }
            w.wait(60);
        }
        prop_assert!(false, "some job never started");
    }

    #[test]
    fn memory_changes_nothing_but_the_work(
        steps in prop::collection::vec((0u8..6, ask(), 0u32..8), 1..40),
    ) {
        let mut w = mixed(2, 2, 8);
        let mut memory = Memory::new();
        for (what, ask, number) in steps {
            match what {
                0..=2 => drop(w.try_submit(&ask.job())),
                3 => {
                    let running = w.active();
                    if let Some(id) = running.get(number as usize % running.len().max(1)) {
                        w.exit(*id, 0);
                    }
                }
                4 => w.wait(u64::from(number) * 40),
                _ => {
                    let action = if number % 2 == 0 {
                        penstock_core::command::NodeAction::Drain
                    } else {
                        penstock_core::command::NodeAction::Resume
                    };
                    w.node_action(number / 2 % 4 + 1, action);
                }
            }
            memory.forget_places();
            let with = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
            let without = plan(&w.cluster, w.now, Limits::default());
            prop_assert_eq!(&with, &without);
            for lines in with.starts.chunks(penstock_core::command::MAX_STARTS) {
                w.execute(Command::Start(lines.to_vec())).unwrap();
            }
        }
    }

    #[test]
    fn depth_one_is_easy_backfill(
        jobs in prop::collection::vec((0u64..30, 1u32..9, 1u64..20), 1..40),
    ) {
        let mut w = world()
            .nodes(1)
            .cpus(8)
            .scheduling(|s| {
                s.backfill.depth = 1;
                s.weights.fcfs = true;
            })
            .build();
        let mut arrivals = Vec::new();
        let mut at = 0;
        for (gap, units, minutes) in jobs {
            at += gap;
            arrivals.push((at, units, minutes));
        }
        let start = w.now;
        let minute = |w: &World| w.now.since(start).0 / 60_000;
        let mut ids = Vec::new();
        let mut ends: Vec<(u64, JobId)> = Vec::new();
        let mut starts = BTreeMap::new();
        let mut memory = Memory::new();
        while starts.len() < arrivals.len() {
            let now = minute(&w);
            for (_, id) in ends.extract_if(.., |(end, _)| *end <= now).collect::<Vec<_>>() {
                w.exit(id, 0);
            }
            while ids.len() < arrivals.len() && arrivals[ids.len()].0 <= now {
                let (_, units, minutes) = arrivals[ids.len()];
                ids.push(w.submit(&job().tasks(units).minutes(minutes)));
            }
            let plan = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
            for lines in plan.starts.chunks(penstock_core::command::MAX_STARTS) {
                w.execute(Command::Start(lines.to_vec())).unwrap();
            }
            for line in &plan.starts {
                let place = ids.iter().position(|id| *id == line.unit.id()).unwrap();
                starts.insert(place, now);
                ends.push((now + arrivals[place].2, line.unit.id()));
            }
            w.wait(60);
        }
        prop_assert_eq!(starts.into_values().collect::<Vec<_>>(), easy(&arrivals, 8));
    }
}

/// Textbook EASY on identical units: when each job starts. Jobs are (arrival, units, length).
fn easy(jobs: &[(u64, u32, u64)], units: u32) -> Vec<u64> {
    let mut starts: Vec<Option<u64>> = vec![None; jobs.len()];
    let mut running: Vec<(u64, u32)> = Vec::new();
    let mut now = 0;
    while starts.iter().any(Option::is_none) {
        running.retain(|(end, _)| *end > now);
        let mut free = units - running.iter().map(|(_, units)| units).sum::<u32>();
        // The head's shadow time, and the units that are free then beyond it.
        let mut shadow: Option<(u64, u32)> = None;
        for (place, (arrival, wanted, length)) in jobs.iter().enumerate() {
            if *arrival > now || starts[place].is_some() {
                continue;
            }
            let fits = *wanted <= free
                && shadow.is_none_or(|(time, extra)| now + length <= time || *wanted <= extra);
            if fits {
                starts[place] = Some(now);
                free -= wanted;
                running.push((now + length, *wanted));
                if let Some((time, extra)) = &mut shadow
                    && now + length > *time
                {
                    *extra -= wanted;
                }
            } else if shadow.is_none() {
                running.sort_unstable();
                let mut then = free;
                let mut ends = running.iter().peekable();
                while let Some((end, units)) = ends.next() {
                    then += units;
                    if then >= *wanted && ends.peek().is_none_or(|(next, _)| next > end) {
                        shadow = Some((*end, then - wanted));
                        break;
                    }
                }
            }
        }
        now += 1;
    }
    starts.into_iter().flatten().collect()
}

/// Ends what has run for its limit.
fn end_due(w: &mut World, asks: &BTreeMap<JobId, Ask>) {
    for id in w.active() {
        let start = w.job(id).active_run().unwrap().start_time;
        if start.plus_secs(asks[&id].secs) <= w.now {
            w.exit(id, 0);
        }
    }
}

#[test]
fn memory_is_counted_as_well_as_cpus() {
    let mut w = world().nodes(1).cpus(8).memory(1_000).build();
    w.submit(&job().memory(600).minutes(10));
    w.run_plan();
    let waits = w.submit(&job().memory(600).minutes(10));
    let expected = w.plan().expected(Unit::Job(waits)).map(|expected| expected.start);
    assert_eq!(expected, Some(w.now.plus_secs(600)));
    assert_eq!(w.inventory.memory, Mib(1_000));
}
