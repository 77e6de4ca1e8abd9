//! Who may pass whom, and what is promised to those who wait?

use penstock_core::command::{Target, Unit};
use penstock_core::model::{PreemptBy, PreemptMode, Scheduling};
use penstock_core::scheduler::{Limits, Memory, Plan, plan_with};
use penstock_vocab::{JobId, Timestamp, Walltime};

use crate::common::{JobBuilder, World, job, world};

fn depth(depth: u32) -> impl FnOnce(&mut Scheduling) {
    move |scheduling: &mut Scheduling| {
        scheduling.backfill.depth = depth;
        scheduling.backfill.reserve_expansion = 0;
        scheduling.weights.fcfs = true;
    }
}

fn expected(w: &World, id: JobId) -> Option<(i64, Vec<u32>)> {
    let plan = w.plan();
    let expected = plan.expected(Unit::Job(id))?;
    let nodes = expected.nodes.iter().map(|node| node.0 + 1).collect();
    Some((expected.start.0 - w.now.0, nodes))
}

fn detail(w: &World, id: JobId) -> (String, String) {
    let waiting = w.cluster.waiting(Unit::Job(id), &w.plan()).unwrap();
    (waiting.reason.to_string(), waiting.detail)
}

#[test]
fn a_short_job_passes_a_wide_one_and_a_long_one_does_not() {
    let mut w = world().nodes(2).cpus(4).scheduling(depth(64)).build();
    let running = w.submit(&job().tasks(2).minutes(60));
    let wide = w.submit(&job().tasks(8).nodes(2).minutes(60));
    let long = w.submit(&job().minutes(61));
    let short = w.submit(&job().minutes(60));
    assert_eq!(w.run_plan(), [running, short]);
    assert_eq!(expected(&w, wide), Some((3_600_000, vec![1, 2])));
    let (reason, text) = detail(&w, wide);
    assert_eq!(reason, "Resources");
    assert!(text.ends_with("; expected to start within 01:00:00"), "{text}");
    let (reason, text) = detail(&w, long);
    assert_eq!(reason, "Priority");
    assert!(text.contains("kept for jobs of higher priority"), "{text}");
    let started = w.job(short);
    assert_eq!(started.active_run().unwrap().start_time, w.now);
}

#[test]
fn without_any_known_end_a_wide_job_still_keeps_its_nodes() {
    let mut w = world().nodes(3).cpus(4).scheduling(depth(1)).build();
    let running = w.submit(&job().tasks(1));
    let wide = w.submit(&job().tasks(12).nodes(3));
    let forever = w.submit(&job());
    let limited = w.submit(&job().minutes(5));
    assert_eq!(w.run_plan(), [running, limited]);
    assert_eq!(expected(&w, wide), None);
    assert_eq!(detail(&w, forever).0, "Priority");
}

#[test]
fn a_stream_of_small_jobs_starves_no_large_one() {
    let mut w = world().nodes(4).cpus(4).scheduling(depth(1)).build();
    let mut memory = Memory::new();
    let mut ends: Vec<(Timestamp, JobId)> = Vec::new();
    let (mut large, mut promise) = (None, None);
    for step in 0..120u64 {
        // Always more small jobs than fit, each of another length.
        for more in 0..4 {
            w.submit(&job().minutes(5 + (step * 7 + more * 3) % 20));
        }
        if step == 10 {
            large = Some(w.submit(&job().tasks(16).nodes(4).minutes(10)));
        }
        let now = w.now;
        for (_, id) in ends.extract_if(.., |(end, _)| *end <= now).collect::<Vec<_>>() {
            w.exit(id, 0);
        }
        let plan = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
        for lines in plan.starts.chunks(penstock_core::command::MAX_STARTS) {
            w.execute(penstock_core::Command::Start(lines.to_vec())).unwrap();
        }
        for line in &plan.starts {
            let Walltime::Limited(secs) = w.job(line.unit.id()).time_limit else { panic!() };
            ends.push((w.now.plus_secs(secs), line.unit.id()));
        }
        let started = plan.starts.iter().any(|line| Some(line.unit.id()) == large);
        if started {
            let promise: Timestamp = promise.expect("it was first in line before it started");
            assert!(w.now <= promise, "it started in minute {step}");
            return;
        }
        if let Some(unit) = large.map(Unit::Job)
            && promise.is_none()
            && plan.order().find(|unit| plan.starts.iter().all(|line| line.unit != *unit))
                == Some(unit)
        {
            let expected = plan.expected(unit).expect("the first in line has a place");
            // Nothing lasts longer than 24 minutes.
            assert!(expected.start <= w.now.plus_secs(24 * 60));
            promise = Some(expected.start);
        }
        w.wait(60);
    }
    panic!("the large job never started");
}

#[test]
fn only_so_many_as_the_depth_have_a_place() {
    let mut w = world().nodes(1).cpus(4).scheduling(depth(2)).build();
    w.submit(&job().tasks(4).minutes(10));
    let waiting: Vec<_> = (0..4).map(|_| w.submit(&job().tasks(4).minutes(10))).collect();
    w.run_plan();
    let starts: Vec<_> = waiting.iter().map(|id| expected(&w, *id).map(|at| at.0)).collect();
    assert_eq!(starts, [Some(600_000), Some(1_200_000), None, None]);
    assert_eq!(detail(&w, waiting[3]).0, "Priority");
}

#[test]
fn behind_the_first_in_line_a_place_is_given_to_who_waited_long() {
    let mut w = world()
        .nodes(1)
        .cpus(4)
        .scheduling(|s| {
            s.weights.fcfs = true;
            (s.backfill.reserve_expansion, s.backfill.reserve_after_secs) = (3, 3_600);
        })
        .build();
    w.submit(&job().tasks(4).minutes(300));
    let first = w.submit(&job().tasks(4).minutes(60));
    let short = w.submit(&job().tasks(4).minutes(10));
    let long = w.submit(&job().tasks(4).minutes(100));
    let endless = w.submit(&job().tasks(4));
    w.run_plan();
    let have = |w: &World| [first, short, long, endless].map(|id| expected(w, id).is_some());
    assert_eq!(have(&w), [true, false, false, false]);
    w.wait(20 * 60 - 1);
    assert_eq!(have(&w), [true, false, false, false]);
    // Wait and limit are three times the limit.
    w.wait(1);
    assert_eq!(have(&w), [true, true, false, false]);
    w.wait(40 * 60 - 1);
    assert_eq!(have(&w), [true, true, false, false]);
    // An hour is enough for any; behind who has no end nothing has a start.
    w.wait(1);
    assert_eq!(have(&w), [true, true, true, true]);
}

#[test]
fn licences_are_part_of_what_is_planned() {
    let licence = |job: JobBuilder| job.shape(|s| s.licenses = Box::new([("matlab".into(), 2)]));
    let mut w = world()
        .nodes(2)
        .cpus(4)
        .scheduling(|s| {
            s.weights.fcfs = true;
            s.licenses.insert("matlab".into(), 3);
        })
        .build();
    let first = w.submit(&licence(job().minutes(30)));
    let second = w.submit(&licence(job().minutes(30)));
    let other = w.submit(&job().minutes(90));
    assert_eq!(w.run_plan(), [first, other]);
    assert_eq!(expected(&w, second).map(|at| at.0), Some(1_800_000));
    let (reason, text) = detail(&w, second);
    assert_eq!(reason, "Licenses");
    assert!(text.starts_with("needs 2 of licence matlab; 1 of 3 are free"), "{text}");
}

#[test]
fn a_limit_is_cut_down_to_fill_a_gap_where_the_job_lets() {
    let mut w = world().nodes(1).cpus(4).scheduling(depth(64)).build();
    w.submit(&job().tasks(2).minutes(60));
    w.submit(&job().tasks(4).minutes(60));
    let least = |minutes| Some(Walltime::from_minutes(minutes));
    let bends = w.submit(&job().minutes(600).spec(|s| s.min_time = least(20)));
    let stiff = w.submit(&job().minutes(600).spec(|s| s.min_time = least(90)));
    assert!(w.run_plan().contains(&bends));
    assert_eq!(w.job(bends).time_limit, Walltime::from_minutes(60));
    assert!(w.job(stiff).is_pending());
}

#[test]
fn small_bounds_on_filling_hold() {
    let mut w = world()
        .nodes(1)
        .cpus(8)
        .scheduling(|s| {
            s.weights.fcfs = true;
            s.backfill.max_per_user = 2;
        })
        .build();
    w.submit(&job().tasks(2).minutes(60));
    w.submit(&job().tasks(8).minutes(60));
    for _ in 0..4 {
        w.submit(&job().minutes(10));
    }
    let plan = w.plan();
    assert_eq!(plan.starts.iter().filter(|line| line.backfill).count(), 2);
    assert_eq!(plan.stats.backfilled, 2);
}

#[test]
fn an_array_reserves_for_several_of_its_tasks() {
    let mut w = world().nodes(1).cpus(4).scheduling(|s| s.backfill.max_array_reserve = 3).build();
    w.submit(&job().tasks(4).minutes(10));
    w.run_plan();
    let array = w.submit(&job().tasks(4).minutes(10).array(0, 99, 0));
    let plan = w.plan();
    assert_eq!(plan.stats.reservations, 3);
    let start = plan.expected(Unit::Array(array)).unwrap().start;
    assert_eq!(start, w.now.plus_secs(600));
}

#[test]
fn what_moved_a_promise_is_named() {
    let mut w = world().nodes(2).cpus(4).scheduling(depth(64)).build();
    let mut memory = Memory::new();
    w.submit(&job().tasks(4).on(&[1]).minutes(10));
    w.submit(&job().tasks(4).on(&[2]).minutes(30));
    w.run_plan();
    let waits = w.submit(&job().tasks(4).minutes(10));
    let first = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
    let promise = first.expected(Unit::Job(waits)).unwrap();
    assert_eq!((promise.start, &promise.moved_by), (w.now.plus_secs(600), &None));
    w.node_action(1, penstock_core::command::NodeAction::Drain);
    let second = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
    let promise = second.expected(Unit::Job(waits)).unwrap();
    assert_eq!(promise.start, w.now.plus_secs(1_800));
    let moved = promise.moved_by.as_deref().unwrap();
    assert_eq!(moved, "node n1, which was kept for it, accepts no work");
}

fn preempting(change: impl FnOnce(&mut Scheduling)) -> World {
    world()
        .nodes(3)
        .cpus(4)
        .partition("urgent", |p| p.priority_tier = 9)
        .scheduling(|s| {
            s.preemption.by = PreemptBy::PartitionPriority;
            s.preemption.mode = PreemptMode::Requeue;
            change(s);
        })
        .build()
}

fn victims(plan: &Plan) -> Vec<JobId> {
    plan.preempt.iter().map(|line| line.victim).collect()
}

#[test]
fn only_as_many_as_needed_make_room_and_those_who_lose_least() {
    let mut w = preempting(|_| ());
    let old = w.submit(&job().tasks(4).minutes(600));
    w.run_plan();
    w.advance(600);
    let halves: Vec<_> = (0..2).map(|_| w.submit(&job().tasks(2).minutes(600))).collect();
    let whole = w.submit(&job().tasks(4).minutes(600));
    w.run_plan();
    w.advance(60);
    let urgent = job().partition(&["urgent"]);
    let wide = w.submit(&urgent.clone().tasks(12).nodes(3).minutes(600));
    let all: std::collections::BTreeSet<_> = victims(&w.plan()).into_iter().collect();
    assert_eq!(all, [old, whole, halves[0], halves[1]].into());
    w.cancel(crate::common::user(1000), Target::Id(wide));
    let small = w.submit(&urgent.tasks(2).minutes(600));
    let plan = w.plan();
    assert_eq!(victims(&plan), [halves[0]]);
    assert_eq!(plan.preempt[0].for_unit, Unit::Job(small));
    assert_eq!(plan.preempt[0].mode, PreemptMode::Requeue);
    // Nobody else gets the place meanwhile, and who waits for it asks for no more.
    w.execute(penstock_core::Command::Preempt(plan.preempt)).unwrap();
    let next = w.submit(&job().tasks(2).minutes(10));
    let plan = w.plan();
    assert!(plan.starts.is_empty());
    assert!(!plan.preempt.iter().any(|line| line.for_unit == Unit::Job(small)));
    assert!(w.job(next).is_pending());
}

#[test]
fn who_is_exempt_or_of_the_same_rank_makes_no_room() {
    let mut w = preempting(|s| s.preemption.exempt_secs = 300);
    let runs = w.submit(&job().tasks(12).nodes(3).minutes(600));
    w.run_plan();
    w.submit(&job().tasks(4).minutes(600));
    assert_eq!(victims(&w.plan()), []);
    w.submit(&job().partition(&["urgent"]).tasks(4).minutes(600));
    assert_eq!(victims(&w.plan()), []);
    w.advance(300);
    assert_eq!(victims(&w.plan()), [runs]);
}

#[test]
fn saved_state_makes_a_job_the_cheaper_victim() {
    let mut w = preempting(|_| ());
    let (first, second) =
        (w.submit(&job().tasks(4).minutes(600)), w.submit(&job().tasks(8).nodes(2).minutes(600)));
    w.run_plan();
    w.running(first);
    w.running(second);
    w.advance(1_000);
    w.submit(&job().partition(&["urgent"]).tasks(4).minutes(600));
    assert_eq!(victims(&w.plan()), [first]);
    w.execute(penstock_core::Command::CheckpointDone(crate::common::user(1000), second)).unwrap();
    assert_eq!(victims(&w.plan()), [second]);
}
