//! Is what is said of a job's start true, and does asking change nothing?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_core::command::{
    NodeAction, NodeChoice, ReservationChange, ReservationRequest, Target, Unit,
};
use penstock_core::explain::{
    Change, Explanation, GateKind, WhatIf, explain, forecast, gate_of, suggest, what_if,
};
use penstock_core::model::{Config, Hold, PartitionState};
use penstock_core::scheduler::{Limits, Memory, Plan, plan_with};
use penstock_core::{Command, Refusal};
use penstock_vocab::{JobId, JobState, PendingReason as Reason, Timestamp, UserId, Walltime};
use proptest::prelude::*;

use crate::common::audit::dump;
use crate::common::{JobBuilder, World, admin, asking, job, node_name, user, world};

fn explained(w: &World, plan: &Plan, unit: Unit) -> Explanation {
    explain(&w.cluster, plan, w.now, unit).unwrap()
}

/// Starts what can start, and asks about the newest job with the plan after that.
type Asked = (World, Plan, Unit);

fn newest(mut w: World) -> Asked {
    w.run_plan();
    let unit = Unit::Job(JobId(w.cluster.next_job_id() - 1));
    let plan = w.plan();
    (w, plan, unit)
}

fn change_partition(w: &mut World, change: impl FnOnce(&mut penstock_core::model::Partition)) {
    let mut config = Config::clone(w.cluster.config());
    change(&mut config.partitions[0]);
    w.execute(Command::Configure(Arc::new(config))).unwrap();
}

fn reserve(w: &mut World, from: u64, until: u64) {
    let request = ReservationRequest {
        name: "r".into(),
        start: Some(w.now.plus_secs(from)),
        end: Some(w.now.plus_secs(until)),
        nodes: Some(NodeChoice::Named(vec![node_name(1)])),
        users: Some(vec![("anna".into(), UserId(1000))]),
        ..ReservationRequest::default()
    };
    let change = ReservationChange::Create(Box::new(request));
    w.execute(Command::Reservation(admin(), change)).unwrap();
}

/// A full cluster of two nodes, for an hour.
fn full() -> World {
    let mut w = world().build();
    w.submit(&job().tasks(8).nodes(2).minutes(60));
    w.run_plan();
    w
}

fn held_by_records(reason: Reason) -> Asked {
    let mut w = full();
    match reason {
        Reason::JobHeldUser => drop(w.submit(&job().spec(|spec| spec.hold = true))),
        Reason::JobHeldAdmin => {
            let id = w.submit(&job());
            let hold = Command::SetHold(admin(), vec![Target::Id(id)], Hold::Admin);
            w.execute(hold).unwrap();
        }
        Reason::JobHoldMaxRequeue => {
            w = world().policy(|policy| policy.max_requeues = 0).build();
            let id = w.submit(&job());
            w.run_plan();
            w.requeue(admin(), Target::Id(id), false);
            w.exit(id, 0);
        }
        Reason::Dependency => drop(w.submit(&job().after("afterany:1"))),
        Reason::DependencyNeverSatisfied => {
            w.submit(&job().after("afterok:1"));
            w.exit(JobId(1), 1);
        }
        Reason::BeginTime => {
            let begin = w.now.plus_secs(600);
            w.submit(&job().spec(|spec| spec.begin_time = begin));
        }
        other => panic!("{other}"),
    }
    newest(w)
}

fn held_by_partition(reason: Reason) -> Asked {
    let mut w = world().build();
    w.submit(&job().nodes(2).minutes(60));
    change_partition(&mut w, |main| match reason {
        Reason::PartitionDown => main.state = PartitionState::Down,
        Reason::PartitionInactive => main.state = PartitionState::Inactive,
        Reason::PartitionNodeLimit => main.max_nodes = 1,
        Reason::PartitionTimeLimit => main.max_time = Walltime::from_minutes(30),
        other => panic!("{other}"),
    });
    newest(w)
}

fn held_by_others(reason: Reason) -> Asked {
    let mut w = full();
    match reason {
        Reason::None => {
            let plan = w.plan();
            w.advance(1);
            let id = w.submit(&job());
            return (w, plan, Unit::Job(id));
        }
        Reason::Resources => drop(w.submit(&job().minutes(5))),
        Reason::Priority => {
            w.submit(&job().minutes(5));
            w.submit(&job().minutes(5));
        }
        Reason::JobArrayTaskLimit => {
            w = world().build();
            let id = w.submit(&job().minutes(5).array(1, 9, 2));
            let (w, plan, _) = newest(w);
            return (w, plan, Unit::Array(id));
        }
        Reason::Licenses => {
            w = world().scheduling(|s| s.licenses = BTreeMap::from([("x".into(), 1)])).build();
            for _ in 0..2 {
                let licensed = job().minutes(5);
                w.submit(&licensed.shape(|shape| shape.licenses = [("x".into(), 1)].into()));
            }
        }
        Reason::Reservation => {
            w = world().build();
            reserve(&mut w, 600, 1_200);
            w.submit(&job().minutes(5).spec(|spec| spec.reservation = "r".into()));
        }
        Reason::ReservationDeleted => {
            w = world().build();
            reserve(&mut w, 600, 1_200);
            w.submit(&job().minutes(5).spec(|spec| spec.reservation = "r".into()));
            let delete = ReservationChange::Delete("r".into());
            w.execute(Command::Reservation(admin(), delete)).unwrap();
            w.wait(1);
        }
        Reason::ReqNodeNotAvail => {
            w = world().build();
            w.submit(&job().on(&[1]));
            w.node_action(1, NodeAction::Drain);
        }
        other => panic!("{other}"),
    }
    newest(w)
}

#[test]
fn every_reason_to_wait_has_a_shut_gate_which_is_the_first() {
    type Make = fn(Reason) -> Asked;
    let worlds: &[(Make, &[Reason])] = &[
        (
            held_by_records,
            &[
                Reason::JobHeldUser,
                Reason::JobHeldAdmin,
                Reason::JobHoldMaxRequeue,
                Reason::Dependency,
                Reason::DependencyNeverSatisfied,
                Reason::BeginTime,
            ],
        ),
        (
            held_by_partition,
            &[
                Reason::PartitionDown,
                Reason::PartitionInactive,
                Reason::PartitionNodeLimit,
                Reason::PartitionTimeLimit,
            ],
        ),
        (
            held_by_others,
            &[
                Reason::None,
                Reason::Resources,
                Reason::Priority,
                Reason::JobArrayTaskLimit,
                Reason::Licenses,
                Reason::Reservation,
                Reason::ReservationDeleted,
                Reason::ReqNodeNotAvail,
            ],
        ),
    ];
    for (make, reasons) in worlds {
        for reason in *reasons {
            let (w, plan, unit) = make(*reason);
            let shown = w.cluster.waiting(unit, &plan).unwrap();
            assert_eq!(shown.reason, *reason, "the world is not the one that was meant");
            let found = explained(&w, &plan, unit);
            assert_eq!(found.state, JobState::Pending);
            let kinds: Vec<_> = found.gates.iter().map(|gate| gate.kind).collect();
            assert_eq!(kinds, GateKind::ALL);
            let first = found.gates.iter().find(|gate| !gate.open);
            let first = first.unwrap_or_else(|| panic!("{reason}: every gate is open"));
            assert_eq!(first.reason, *reason, "{found:#?}");
            assert_eq!(first.kind, gate_of(*reason));
            assert_eq!(found.summary, format!("{reason}: {}", first.detail));
            assert!(!first.detail.is_empty(), "{reason}");
        }
    }
}

#[test]
fn gates_tell_numbers_and_when_they_open() {
    let gate = |asked: Asked, kind: GateKind| {
        let (w, plan, unit) = asked;
        let found = explained(&w, &plan, unit);
        let gate = found.gates.into_iter().find(|gate| gate.kind == kind).unwrap();
        (gate.open, gate.detail, gate.opens.map(|at| at.since(w.now).as_secs()))
    };
    let begin = gate(held_by_records(Reason::BeginTime), GateKind::Begin);
    let text = "it asks not to start before its begin time, in 00:10:00";
    assert_eq!(begin, (false, text.to_owned(), Some(600)));
    let dependency = gate(held_by_records(Reason::Dependency), GateKind::Dependency);
    assert_eq!(dependency, (false, "waits for afterany:1(unfulfilled)".to_owned(), Some(3_600)));
    let array = gate(held_by_others(Reason::JobArrayTaskLimit), GateKind::Limits);
    let text = "2 tasks of its array run, 2 may at once (its throttle)";
    assert_eq!(array, (false, text.to_owned(), Some(300)));
    let licence = gate(held_by_others(Reason::Licenses), GateKind::Licenses);
    let text = "needs 1 of licence x; 0 of 1 are free";
    assert_eq!((licence.0, &*licence.1, licence.2), (false, text, Some(300)));
    let reserved = gate(held_by_others(Reason::Reservation), GateKind::Reservation);
    assert_eq!(reserved, (false, "reservation r begins in 00:10:00".to_owned(), Some(600)));
    let resources = gate(held_by_others(Reason::Resources), GateKind::Resources);
    assert_eq!((resources.0, resources.2), (false, Some(3_600)));
    // A held job is told whether there would be room for it.
    let mut w = world().build();
    w.submit(&job().spec(|spec| spec.hold = true));
    assert!(gate(newest(w), GateKind::Resources).0);
    assert!(!gate(held_by_records(Reason::JobHeldUser), GateKind::Resources).0);
}

#[test]
fn what_the_plan_gives_to_others_is_not_called_free() {
    let mut w = world().scheduling(|s| s.licenses = BTreeMap::from([("x".into(), 1)])).build();
    let licensed = job().minutes(5).shape(|shape| shape.licenses = [("x".into(), 1)].into());
    w.submit(&licensed);
    let second = w.submit(&licensed);
    // The plan starts the first; nothing is carried out yet.
    let plan = w.plan();
    let found = explained(&w, &plan, Unit::Job(second));
    let shut: Vec<_> = found.gates.iter().filter(|gate| !gate.open).map(|gate| gate.kind).collect();
    assert_eq!(shut, [GateKind::Licenses]);
    assert_eq!(found.start, Some(w.now.plus_secs(300)));
    let first = explained(&w, &plan, Unit::Job(JobId(1)));
    assert!(first.gates.iter().all(|gate| gate.open));
    assert_eq!((first.start, &*first.nodes), (Some(w.now), "n1"));
}

#[test]
fn those_ahead_are_those_of_its_partitions_and_the_rest_is_counted() {
    let mut w = world().partition("other", |other| other.nodes = Some(Vec::new())).build();
    w.submit(&job().tasks(8).nodes(2).minutes(60));
    w.run_plan();
    for minutes in 0..14 {
        w.submit(&job().by(user(7)).minutes(5 + minutes));
    }
    let last = w.submit(&job().minutes(20));
    let plan = w.plan();
    let found = explained(&w, &plan, Unit::Job(last));
    assert_eq!((found.ahead.len(), found.ahead_count), (10, 14));
    let first = &found.ahead[0];
    assert_eq!((first.unit, first.uid), (Unit::Job(JobId(2)), UserId(7)));
    assert_eq!(first.start, Some(w.now.plus_secs(3_600)));
    assert!(first.why.starts_with("Resources: needs 1 CPU"), "{}", first.why);
    assert_eq!(found.start, plan.expected(Unit::Job(last)).map(|expected| expected.start));
    assert!(!found.nodes.is_empty());
    let third = explained(&w, &plan, Unit::Job(JobId(4)));
    let ahead: Vec<_> = third.ahead.iter().map(|one| one.unit.id().0).collect();
    assert_eq!((ahead, third.ahead_count), (vec![2, 3], 2));
}

#[test]
fn a_job_that_does_not_wait_is_told_of_in_a_sentence() {
    let mut w = full();
    let plan = w.plan();
    let id = Unit::Job(JobId(1));
    w.advance(600);
    let running = explained(&w, &plan, id);
    assert_eq!(running.state, JobState::Running);
    let text = "runs on n[1-2] for 00:10:00; it ends within 00:50:00 at the latest";
    assert_eq!(running.summary, text);
    assert!(running.gates.is_empty());
    w.exit(JobId(1), 3);
    w.advance(60);
    let ended = explained(&w, &plan, id);
    assert_eq!(ended.summary, "ended 00:01:00 ago as FAILED: NonZeroExitCode");
    let unknown = explain(&w.cluster, &plan, w.now, Unit::Job(JobId(9)));
    assert_eq!(unknown, Err(Refusal::InvalidJobId(JobId(9))));
}

/// What a job takes: nodes, CPUs on each, minutes.
type Ask = (u32, u32, u64);

fn ask() -> impl Strategy<Value = Ask> {
    (1u32..4, 1u32..5, 1u64..8)
}

fn asks(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Ask>> {
    prop::collection::vec(ask(), count)
}

fn of((nodes, cpus, minutes): Ask) -> JobBuilder {
    job().nodes(nodes).minutes(minutes).shape(|shape| {
        shape.cpus_per_task = Some(cpus);
        shape.ntasks_per_node = Some(1);
    })
}

/// Four nodes of which some are in use, and jobs that wait.
fn busy(running: &[Ask], waiting: &[Ask]) -> World {
    let mut w = world().nodes(4).scheduling(|s| s.weights.fcfs = true).build();
    for ask in running {
        w.submit(&of(*ask));
    }
    w.run_plan();
    w.wait(30);
    for ask in waiting {
        w.submit(&of(*ask));
    }
    w.run_plan();
    w
}

/// Every start to come if each job takes its whole limit and the daemon plans at every end.
fn play(w: &mut World) -> BTreeMap<JobId, Timestamp> {
    let (mut starts, mut memory) = (BTreeMap::new(), Memory::new());
    for _ in 0..2_000 {
        let due = |id: &JobId| w.job(*id).ends_by(w.now).is_some_and(|end| end <= w.now);
        let due: Vec<_> = w.active().into_iter().filter(due).collect();
        for id in due {
            w.exit(id, 0);
        }
        let plan = plan_with(&mut memory, &w.cluster, w.now, Limits::default());
        for lines in plan.starts.chunks(penstock_core::command::MAX_STARTS) {
            w.execute(Command::Start(lines.to_vec())).unwrap();
        }
        starts.extend(plan.starts.iter().map(|line| (line.unit.id(), w.now)));
        if w.active().is_empty() {
            return starts;
        }
        w.wait(30);
    }
    panic!("jobs still run");
}

/// What a what-if says of every unit: its own rows, and else what is expected anyway.
fn promised(w: &World, told: &WhatIf) -> BTreeMap<JobId, Timestamp> {
    let before = forecast(&w.cluster, w.now, u32::MAX, Limits::default());
    let mut starts: BTreeMap<_, _> =
        before.places().map(|(unit, place)| (unit.id(), place.start)).collect();
    for row in &told.rows {
        assert_eq!(row.before, starts.get(&row.unit.id()).copied());
        match row.after {
            Some(start) => drop(starts.insert(row.unit.id(), start)),
            None => drop(starts.remove(&row.unit.id())),
        }
    }
    starts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_told_first_is_what_squeue_shows(
        running in asks(0..5), waiting in asks(1..10), drained in 1u32..5, extra in 0u8..4,
    ) {
        let mut w = busy(&running, &waiting);
        w.submit(&of((2, 1, 3)).array(1, 5, 2));
        w.submit(&of((1, 1, 3)).after("afterany:1").spec(|spec| spec.hold = extra == 1));
        match extra {
            2 => w.node_action(drained, NodeAction::Drain),
            3 => change_partition(&mut w, |main| main.max_nodes = 2),
            _ => {}
        }
        let plan = w.plan();
        let arrays = w.cluster.arrays().map(|array| Unit::Array(array.id));
        let units: Vec<_> = w.cluster.jobs().map(|job| Unit::Job(job.id)).chain(arrays).collect();
        for unit in units {
            let found = explained(&w, &plan, unit);
            let Some(shown) = w.cluster.waiting(unit, &plan) else {
                prop_assert!(found.gates.is_empty());
                continue;
            };
            let starts = plan.starts.iter().any(|line| line.unit == unit);
            match found.gates.iter().find(|gate| !gate.open) {
                Some(gate) => prop_assert_eq!(gate.reason, shown.reason, "{:#?}", found),
                None => prop_assert!(starts, "{:#?}", found),
            }
        }
    }

    #[test]
    fn what_a_drain_is_said_to_do_is_what_it_does(
        running in asks(0..6),
        waiting in asks(1..10),
        drained in prop::collection::btree_set(1u32..5, 1..4),
    ) {
        let mut w = busy(&running, &waiting);
        let names = drained.iter().map(|number| node_name(*number)).collect();
        let told = what_if(&w.cluster, w.now, Change::Drain(names)).unwrap();
        let promised = promised(&w, &told);
        for number in &drained {
            w.node_action(*number, NodeAction::Drain);
        }
        prop_assert_eq!(play(&mut w), promised);
        // Whoever was said to run no more waits still.
        let left: BTreeSet<_> = w.cluster.queue().map(|(unit, _)| unit).collect();
        let never = told.rows.iter().filter(|row| row.after.is_none()).map(|row| row.unit);
        prop_assert_eq!(never.collect::<BTreeSet<_>>(), left);
    }

    #[test]
    fn a_submission_gets_the_start_that_it_was_told(
        running in asks(0..6), waiting in asks(0..8), new in ask(),
    ) {
        let mut w = busy(&running, &waiting);
        let job = of(new);
        // An earlier answer to the same request is none to a question.
        let caller = asking(job.caller, 5);
        let change = Change::Submit(caller, Box::new(job.submission()));
        let told = what_if(&w.cluster, w.now, change);
        let command = Command::Submit(caller, Box::new(job.submission()));
        prop_assert_eq!(told.is_ok(), w.cluster.clone().execute(w.now, command).is_ok());
        let Ok(told) = told else { return Ok(()) };
        let promised = promised(&w, &told);
        let id = w.submit(&job);
        prop_assert_eq!(told.rows[0].unit, Unit::Job(id));
        prop_assert_eq!(told.cpus, new.0 * new.1);
        prop_assert_eq!(told.rows.len(), 1, "who comes last delays nobody");
        prop_assert_eq!(play(&mut w), promised);
    }

    #[test]
    fn a_change_that_is_suggested_starts_the_job_as_said_and_sooner(
        running in asks(1..6), waiting in asks(1..8),
    ) {
        let w = busy(&running, &waiting);
        let units: Vec<_> = w.cluster.queue().map(|(unit, _)| unit).collect();
        for unit in units {
            let before = forecast(&w.cluster, w.now, u32::MAX, Limits::default());
            let before = before.place(unit).map(|place| place.start);
            let suggestions = suggest(&w.cluster, w.now, unit);
            prop_assert!(suggestions.is_sorted_by_key(|one| (one.start, one.loss)));
            for one in suggestions.into_iter().take(2) {
                prop_assert!(before.is_none_or(|before| one.start < before), "{:?}", one);
                let mut w = busy(&running, &waiting);
                let refusal = w.update(admin(), Target::Job(unit.id()), one.update.clone());
                prop_assert_eq!(refusal, None);
                let starts = play(&mut w);
                prop_assert_eq!(starts.get(&unit.id()), Some(&one.start), "{}", one.change);
            }
        }
    }

    #[test]
    fn asking_changes_nothing_and_the_answer_is_the_same_twice(
        running in asks(0..6), waiting in asks(1..8), new in ask(), drained in 1u32..5,
    ) {
        let w = busy(&running, &waiting);
        let (records, all) = (dump(&w.cluster), format!("{:?}", w.cluster));
        let plan = w.plan();
        let answers = || {
            let changes = [
                Change::Drain(vec![node_name(drained)]),
                Change::Submit(user(1), Box::new(of(new).submission())),
                Change::Scheduling(Box::default()),
            ];
            let told = changes.map(|change| what_if(&w.cluster, w.now, change));
            let units: Vec<_> = w.cluster.jobs().map(|job| Unit::Job(job.id)).collect();
            let of_unit =
                |unit: &Unit| (explained(&w, &plan, *unit), suggest(&w.cluster, w.now, *unit));
            (told, units.iter().map(of_unit).collect::<Vec<_>>())
        };
        prop_assert_eq!(answers(), answers());
        prop_assert_eq!(dump(&w.cluster), records);
        prop_assert_eq!(format!("{:?}", w.cluster), all);
    }
}
