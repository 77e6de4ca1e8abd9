//! Who may use nodes that are kept for somebody, and when?

use std::collections::BTreeSet;

use penstock_core::command::{
    JobUpdate, NodeAction, NodeChoice, OrderKind, ReservationChange, ReservationRequest, StartLine,
    Target, Unit,
};
use penstock_core::model::{EndCause, Hold, NodeShare, Reservation, ReservationFlag};
use penstock_core::{Command, Refusal, Reply};
use penstock_vocab::{JobId, JobState, UserId, Walltime};

use crate::common::{World, admin, job, node_name, partition_name, user, world};

use ReservationFlag as Flag;

/// From `start` to `end` seconds from now, for user 1000.
fn ask(w: &World, start: u64, end: u64, nodes: NodeChoice) -> ReservationRequest {
    ReservationRequest {
        start: Some(w.now.plus_secs(start)),
        end: Some(w.now.plus_secs(end)),
        nodes: Some(nodes),
        users: Some(vec![("anna".into(), UserId(1000))]),
        ..ReservationRequest::default()
    }
}

fn with(request: ReservationRequest, flags: &[Flag]) -> ReservationRequest {
    ReservationRequest { flags: Some(flags.iter().copied().collect()), ..request }
}

fn named(numbers: &[u32]) -> NodeChoice {
    NodeChoice::Named(numbers.iter().map(|number| node_name(*number)).collect())
}

fn change(w: &mut World, change: ReservationChange) -> Result<Reply, Refusal> {
    w.execute(Command::Reservation(admin(), change)).map(|outcome| outcome.reply)
}

fn create(request: ReservationRequest, w: &mut World) -> Result<String, String> {
    match change(w, ReservationChange::Create(Box::new(request))) {
        Ok(Reply::Reserved(name)) => Ok(name.to_string()),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.slurm_text().to_owned()),
    }
}

fn update(name: &str, request: ReservationRequest, w: &mut World) -> Result<(), String> {
    let change = change(w, ReservationChange::Update(name.into(), Box::new(request)));
    change.map(drop).map_err(|refusal| refusal.slurm_text().to_owned())
}

fn nodes_of(w: &World, name: &str) -> Vec<String> {
    let nodes = &w.cluster.reservation(name).unwrap().nodes;
    nodes.iter().map(|name| name.to_string()).collect()
}

/// Starts a job on this node, whatever a plan would say.
fn start_on(w: &mut World, id: JobId, number: u32) -> bool {
    let job = w.job(id);
    let mut cpus = fixedbitset::FixedBitSet::with_capacity(4);
    let node = w.index(number);
    let taken = w.cluster.node(node).unwrap().1.cpus.clone();
    cpus.insert((0..4).find(|cpu| !taken.contains(*cpu)).unwrap());
    let memory = penstock_vocab::Mib(1_000);
    let share = NodeShare { node, cpus, sharing: 1, memory, tasks: 1, gres: Box::default() };
    let partition = job.spec.partitions.first().cloned();
    let line = StartLine {
        unit: Unit::Job(id),
        task: None,
        partition: partition.unwrap_or_else(|| partition_name("main")),
        shares: [share].into(),
        backfill: false,
        limit: None,
    };
    let reply = w.execute(Command::Start(vec![line])).unwrap().reply;
    reply == Reply::Started { started: 1, refused: 0 }
}

fn inside(name: &str) -> crate::common::JobBuilder {
    let name = name.into();
    job().spec(|spec| spec.reservation = name)
}

#[test]
fn a_flag_that_is_not_built_is_refused_by_name_and_may_stay_where_it_was_stored() {
    let mut w = world().nodes(2).build();
    let request = with(ask(&w, 60, 600, named(&[1])), &[Flag::AnyNodes]);
    let create_it = ReservationChange::Create(Box::new(request));
    let refusal = change(&mut w, create_it).unwrap_err().to_string();
    assert!(refusal.contains("ANY_NODES is not built"), "{refusal}");
    let name = create(ask(&w, 60, 600, named(&[1])), &mut w).unwrap();
    let flags = |flags: &[Flag]| with(ReservationRequest::default(), flags);
    assert!(update(&name, flags(&[Flag::AnyNodes]), &mut w).is_err());
    w.reload(2, |records| {
        records.reservations[0].flags.insert(Flag::AnyNodes);
    });
    update(&name, flags(&[Flag::AnyNodes, Flag::Flex]), &mut w).unwrap();
    update(&name, flags(&[]), &mut w).unwrap();
    assert!(w.cluster.reservation(&name).unwrap().flags.is_empty());
}

#[test]
fn what_can_not_be_reserved() {
    let mut w = world().nodes(3).partition("part", |p| p.nodes = Some(vec![node_name(1)])).build();
    let id = w.submit(&job().minutes(60).on(&[1]));
    w.run_plan();
    w.running(id);
    assert_eq!(create(ask(&w, 7_200, 9_000, named(&[1, 2])), &mut w).unwrap(), "anna_1");
    let past = "Invalid time specified";
    let busy = "Requested nodes are busy";
    let invalid = "Requested reservation is invalid";
    let none = "Requested node configuration is not available";
    let base = ask(&w, 60, 600, named(&[3]));
    let over = "Requested reservation overlaps with another reservation";
    let licence = ReservationRequest { licenses: Some(vec![("x".into(), 1)]), ..base.clone() };
    let cases = [
        (ReservationRequest { start: None, ..base.clone() }, past),
        (ReservationRequest { start: Some(w.now.minus_secs(100)), ..base.clone() }, past),
        (ReservationRequest { end: base.start, ..base.clone() }, past),
        (ask(&w, 0, 60, named(&[9])), "Invalid node name specified"),
        (ask(&w, 0, 60, named(&[1])), busy),
        (ask(&w, 0, 60, NodeChoice::Count(3)), busy),
        (ask(&w, 0, 60, NodeChoice::All), busy),
        (ask(&w, 0, 60, NodeChoice::Count(4)), none),
        (ask(&w, 0, 60, NodeChoice::Count(0)), none),
        (ask(&w, 8_000, 9_500, named(&[2])), over),
        (ask(&w, 8_000, 9_500, NodeChoice::Count(3)), busy),
        (ReservationRequest { nodes: None, ..base.clone() }, none),
        (
            ReservationRequest { users: None, ..base.clone() },
            "Reservation request lacks users, groups or accounts",
        ),
        (
            ReservationRequest { name: "anna_1".into(), ..base.clone() },
            "Duplicate reservation name",
        ),
        (ReservationRequest { name: "a b".into(), ..base.clone() }, invalid),
        (with(base.clone(), &[Flag::Daily, Flag::Weekly]), invalid),
        (with(base.clone(), &[Flag::PartNodes]), invalid),
        (with(base.clone(), &[Flag::AnyNodes]), invalid),
        (licence, "Invalid license specification"),
        (
            ReservationRequest { partition: Some(partition_name("no")), ..base.clone() },
            "Invalid partition name specified",
        ),
        (ReservationRequest { partition: Some(partition_name("part")), ..base.clone() }, none),
    ];
    for (request, text) in cases {
        let got = create(request.clone(), &mut w);
        assert_eq!(got.as_ref().map_err(|text| &**text), Err(text), "{request:?}");
    }
    let change = ReservationChange::Create(Box::new(base));
    let denied = w.execute(Command::Reservation(user(1000), change)).unwrap_err();
    assert_eq!(denied.kind(), "AccessDenied");
    // What flags allow.
    assert_eq!(
        create(with(ask(&w, 0, 60, named(&[1])), &[Flag::IgnoreJobs]), &mut w).unwrap(),
        "anna_2"
    );
    assert_eq!(
        create(with(ask(&w, 8_000, 9_500, NodeChoice::All), &[Flag::Maint]), &mut w).unwrap(),
        "anna_3"
    );
    assert_eq!(
        create(with(ask(&w, 8_000, 9_500, named(&[2])), &[Flag::Overlap]), &mut w).unwrap(),
        "anna_4"
    );
    let part = ReservationRequest {
        partition: Some(partition_name("part")),
        nodes: None,
        ..with(ask(&w, 90_000, 90_060, named(&[1])), &[Flag::PartNodes])
    };
    let name = create(part, &mut w).unwrap();
    assert_eq!(nodes_of(&w, &name), ["n1"]);
}

#[test]
fn nobody_else_starts_what_would_run_into_it() {
    let mut w = world().nodes(3).build();
    let name = create(ask(&w, 3_600, 7_200, named(&[1])), &mut w).unwrap();
    let long = w.submit(&job().minutes(61).by(user(7)));
    let short = w.submit(&job().minutes(60).by(user(7)));
    let mine = w.submit(&inside(&name).minutes(90));
    let endless = w.submit(&job());
    assert!(!start_on(&mut w, long, 1) && !start_on(&mut w, endless, 1));
    assert!(start_on(&mut w, short, 1), "it is over by then");
    assert!(start_on(&mut w, long, 2), "elsewhere");
    assert!(!start_on(&mut w, mine, 1), "not before it begins");
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(3_600)));
    w.wait(3_600);
    w.exit(short, 0);
    assert!(!start_on(&mut w, endless, 1));
    assert!(!start_on(&mut w, mine, 3), "not on other nodes");
    assert!(start_on(&mut w, mine, 1));
    let (node, used) = w.cluster.node(w.index(1)).unwrap();
    let status = penstock_core::cluster::node_status(&w.cluster, node, used);
    assert_eq!(status.to_string(), "MIXED+RESERVED");
}

#[test]
fn who_may_use_it() {
    let mut w = world().build();
    let deny = ReservationRequest { deny: Some(true), ..ask(&w, 0, 600, named(&[1])) };
    let only = create(ask(&w, 0, 600, named(&[2])), &mut w).unwrap();
    let not = create(deny, &mut w).unwrap();
    let accounts = ReservationRequest {
        users: None,
        accounts: Some(vec!["physics".into()]),
        ..with(ask(&w, 700, 900, named(&[2])), &[])
    };
    let group = create(accounts, &mut w).unwrap();
    assert_eq!(group, "physics_1");
    let physics = |name: &str| inside(name).spec(|spec| spec.account = "physics".into());
    let access = Err("Access denied to requested reservation");
    for (job, expected) in [
        (inside(&only), Ok(())),
        (inside(&only).by(user(7)), access),
        (inside(&not), access),
        (inside(&not).by(user(7)), Ok(())),
        (physics(&group).by(user(7)), Ok(())),
        (inside(&group), access),
        (inside("nope"), Err("Requested reservation is invalid")),
    ] {
        let got = w.try_submit(&job).map(drop);
        let got = got.as_ref().map_err(|why| why.slurm_text());
        assert_eq!(got.copied(), expected, "{:?} by {:?}", job.spec.reservation, job.caller.uid);
    }
    let id = w.submit(&job());
    let into = |name: &str| JobUpdate { reservation: Some(name.into()), ..JobUpdate::default() };
    assert_eq!(w.update(admin(), Target::Id(id), into(&not)).unwrap().kind(), "ReservationDenied");
    assert_eq!(w.update(user(1000), Target::Id(id), into(&only)), None);
    assert!(!start_on(&mut w, id, 1));
    assert!(start_on(&mut w, id, 2));
}

#[test]
fn a_partition_may_be_for_reservations_only() {
    let mut w = world().partition("kept", |p| p.require_reservation = true).build();
    let name = create(ask(&w, 0, 600, named(&[1])), &mut w).unwrap();
    assert_eq!(w.try_submit(&job().partition(&["kept"])).unwrap_err().kind(), "AccessDenied");
    let id = w.submit(&inside(&name).partition(&["kept"]));
    assert!(start_on(&mut w, id, 1));
}

#[test]
fn its_end_ends_what_runs_in_it_and_holds_what_waits_for_it() {
    for flags in [&[][..], &[Flag::Flex], &[Flag::NoHoldJobsAfter]] {
        let mut w = world().nodes(2).build();
        let name = create(with(ask(&w, 0, 600, named(&[1])), flags), &mut w).unwrap();
        let runs = w.submit(&inside(&name));
        assert!(start_on(&mut w, runs, 1));
        w.running(runs);
        let waits = w.submit(&inside(&name).tasks(8));
        let array = w.submit(&inside(&name).tasks(8).array(0, 9, 0));
        w.take_orders(runs);
        w.wait(600);
        w.wait(0);
        assert!(w.cluster.reservation(&name).is_none());
        let ended = !flags.contains(&Flag::Flex);
        let orders = w.take_orders(runs);
        assert_eq!(orders == [OrderKind::Terminate(EndCause::TimeLimit)], ended, "{orders:?}");
        w.exit(runs, 0);
        assert_eq!(w.state(runs) == JobState::Timeout, ended);
        let held = if flags == [Flag::NoHoldJobsAfter] { Hold::None } else { Hold::Admin };
        assert_eq!((w.job(waits).hold, w.cluster.array(array).unwrap().hold), (held, held));
        assert_eq!(&*w.job(waits).spec.reservation, "");
        if held == Hold::Admin {
            let reason = |unit| w.cluster.waiting(unit, &w.plan()).unwrap().reason.to_string();
            assert_eq!(reason(Unit::Job(waits)), "ReservationDeleted");
            assert_eq!(reason(Unit::Array(array)), "ReservationDeleted");
            let release = vec![Target::Id(waits), Target::Id(array)];
            w.execute(Command::SetHold(admin(), release, Hold::None)).unwrap();
        }
        assert_eq!(w.cluster.array(array).unwrap().reason, None);
        assert_eq!(w.cluster.next_wake(), None);
    }
}

#[test]
fn many_that_wait_for_one_that_is_deleted_are_held_by_and_by() {
    let mut w = world().build();
    let name = create(ask(&w, 0, 600, named(&[1])), &mut w).unwrap();
    let ids: Vec<_> = (0..70).map(|_| w.submit(&inside(&name))).collect();
    assert!(start_on(&mut w, ids[0], 1));
    let delete = ReservationChange::Delete(name.as_str().into());
    let in_use = change(&mut w, delete.clone()).unwrap_err();
    assert_eq!(in_use.slurm_text(), "Requested reservation is in use");
    w.exit(ids[0], 0);
    change(&mut w, delete.clone()).unwrap();
    assert_eq!(change(&mut w, delete).unwrap_err().kind(), "ReservationInvalid");
    assert!(!start_on(&mut w, ids[1], 2), "its reservation is gone");
    let mut ticks = 0;
    while w.cluster.next_wake() == Some(w.now) {
        let outcome = w.execute(Command::Tick).unwrap();
        assert!(outcome.changed.len() <= 100);
        ticks += 1;
    }
    assert_eq!(ticks, 4);
    assert!(ids[1..].iter().all(|id| w.job(*id).hold == Hold::Admin));
}

#[test]
fn one_that_comes_again_moves_to_its_next_time() {
    let mut w = world().build();
    let day = 24 * 3_600;
    let at = |w: &World, n: u64| (w.now.plus_secs(n * day), w.now.plus_secs(n * day + 600));
    let request = with(ask(&w, 0, 600, named(&[1])), &[Flag::Daily]);
    let overlapping = vec![(w.now.plus_secs(300), w.now.plus_secs(900))];
    let bad = ReservationRequest { upcoming: Some(overlapping), ..request.clone() };
    assert_eq!(create(bad, &mut w).unwrap_err(), "Requested reservation is invalid");
    let times = vec![at(&w, 1), at(&w, 2)];
    let name = create(ReservationRequest { upcoming: Some(times), ..request }, &mut w).unwrap();
    // Others see all of its times.
    let clash = ask(&w, day + 100, day + 200, named(&[1]));
    assert!(create(clash, &mut w).is_err());
    let long = w.submit(&job().minutes(24 * 60).by(user(7)));
    let third = at(&w, 3);
    w.wait(700);
    let one = |w: &World| -> Reservation { (**w.cluster.reservation(&name).unwrap()).clone() };
    assert_eq!((one(&w).start, one(&w).upcoming.len()), (w.now.plus_secs(day - 700), 1));
    assert!(!start_on(&mut w, long, 1), "it would run into the next day's");
    let few: Vec<_> = w.cluster.reservations_to_extend(3).map(|one| one.name.clone()).collect();
    assert_eq!(few, [name.as_str().into()]);
    let stale = (w.now, w.now.plus_secs(1));
    let extend = ReservationChange::Extend(name.as_str().into(), vec![stale, third]);
    change(&mut w, extend).unwrap();
    assert_eq!(one(&w).upcoming.len(), 2);
    // It runs out of times: it stays, waits for more, and wakes nobody.
    w.wait(4 * day);
    w.wait(0);
    w.wait(0);
    assert!(one(&w).upcoming.is_empty() && one(&w).end <= w.now);
    assert_eq!(w.cluster.next_wake(), None);
    let more = vec![(w.now.plus_secs(50), w.now.plus_secs(60))];
    change(&mut w, ReservationChange::Extend(name.as_str().into(), more)).unwrap();
    assert!(w.cluster.next_wake().is_some_and(|at| at <= w.now));
    w.wait(0);
    assert_eq!(one(&w).start, w.now.plus_secs(50));
}

#[test]
fn a_node_that_fails_is_replaced() {
    for (flags, replaced) in [(&[][..], true), (&[Flag::StaticAlloc], false)] {
        let mut w = world().nodes(3).build();
        let name = create(with(ask(&w, 60, 600, NodeChoice::Count(2)), flags), &mut w).unwrap();
        assert_eq!(nodes_of(&w, &name), ["n1", "n2"]);
        w.wait(0);
        w.node_action(1, NodeAction::Drain);
        assert_eq!(w.cluster.next_wake(), Some(w.now));
        w.wait(0);
        let expected = if replaced { ["n3", "n2"] } else { ["n1", "n2"] };
        assert_eq!(nodes_of(&w, &name), expected);
        // Nothing is left to take the place of the next.
        w.node_action(2, NodeAction::Down);
        w.wait(0);
        assert_eq!(nodes_of(&w, &name), expected);
        assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(60)));
    }
    let mut w = world().nodes(1).build();
    let part = ReservationRequest {
        partition: Some(partition_name("main")),
        ..with(ask(&w, 60, 600, NodeChoice::All), &[Flag::PartNodes])
    };
    let name = create(part, &mut w).unwrap();
    w.register(2, Vec::new());
    w.wait(0);
    assert_eq!(nodes_of(&w, &name), ["n1", "n2"]);
}

#[test]
fn one_that_nobody_uses_is_purged() {
    let mut w = world().build();
    let after = |secs| Some(Walltime::Limited(secs));
    let request = with(ask(&w, 100, 9_000, named(&[1])), &[Flag::PurgeComp]);
    let request = ReservationRequest { purge_after: after(120), ..request };
    let name = create(request, &mut w).unwrap();
    let id = w.submit(&inside(&name));
    w.wait(100);
    assert!(start_on(&mut w, id, 1));
    w.wait(1_000);
    w.exit(id, 0);
    assert_eq!(w.cluster.next_wake(), Some(w.now));
    w.wait(0);
    assert_eq!(w.cluster.next_wake(), Some(w.now.plus_secs(120)));
    w.wait(100);
    let again = w.submit(&inside(&name));
    w.wait(30);
    assert!(w.cluster.reservation(&name).is_some(), "somebody came");
    w.cancel(user(1000), Target::Id(again));
    w.wait(0);
    w.wait(119);
    assert!(w.cluster.reservation(&name).is_some());
    w.wait(1);
    assert!(w.cluster.reservation(&name).is_none());
}

#[test]
fn what_may_be_changed() {
    let mut w = world().nodes(3).scheduling(|s| s.licenses = [("x".into(), 4)].into()).build();
    let name = create(ask(&w, 100, 200, NodeChoice::Count(1)), &mut w).unwrap();
    let other = create(ask(&w, 300, 400, named(&[1])), &mut w).unwrap();
    let empty = ReservationRequest::default();
    let at = |w: &World, start, end| ReservationRequest {
        start: Some(w.now.plus_secs(start)),
        end: Some(w.now.plus_secs(end)),
        ..ReservationRequest::default()
    };
    assert_eq!(update(&name, empty.clone(), &mut w).unwrap_err(), "No changes specified");
    assert_eq!(
        update("nope", empty.clone(), &mut w).unwrap_err(),
        "Requested reservation is invalid"
    );
    // By count: other nodes are chosen where its own are taken then.
    assert_eq!(update(&name, at(&w, 300, 400), &mut w), Ok(()));
    assert_eq!(nodes_of(&w, &name), ["n2"]);
    assert_eq!(update(&other, at(&w, 500, 450), &mut w).unwrap_err(), "Invalid time specified");
    let longer = ReservationRequest { duration_secs: Some(1_000), ..empty.clone() };
    assert_eq!(update(&other, longer, &mut w), Ok(()));
    let end = w.cluster.reservation(&other).unwrap().end;
    assert_eq!(end, w.now.plus_secs(1_300));
    let grow = ReservationRequest { nodes: Some(NodeChoice::Count(2)), ..empty.clone() };
    assert_eq!(update(&name, grow, &mut w), Ok(()));
    assert_eq!(nodes_of(&w, &name), ["n2", "n3"]);
    let licences =
        |count| ReservationRequest { licenses: Some(vec![("x".into(), count)]), ..empty.clone() };
    assert_eq!(update(&name, licences(3), &mut w), Ok(()));
    assert!(update(&other, licences(2), &mut w).unwrap_err().contains("overlaps"));
    // The licences that are set aside are not others' to take then.
    let ask_two = || job().minutes(6).shape(|shape| shape.licenses = [("x".into(), 2)].into());
    let two = w.submit(&ask_two().by(user(7)));
    let waiting = w.plan().reason(Unit::Job(two)).unwrap();
    let said = "needs 2 of licence x; 1 of 4 are free;";
    assert!(waiting.detail.starts_with(said), "{}", waiting.detail);
    let before = w.submit(&ask_two().minutes(5).by(user(7)));
    assert!(!start_on(&mut w, two, 1));
    let far = ReservationRequest { nodes: Some(named(&[3])), ..at(&w, 9_000, 9_900) };
    assert_eq!(update(&other, far, &mut w), Ok(()));
    assert!(!start_on(&mut w, two, 1), "it would hold them when they are wanted");
    assert!(start_on(&mut w, before, 1));
    let flags: BTreeSet<_> = [Flag::Maint].into();
    let maint = ReservationRequest { flags: Some(flags), ..empty };
    assert_eq!(update(&name, maint, &mut w), Ok(()));
    w.wait(301);
    let (node, used) = w.cluster.node(w.index(2)).unwrap();
    let status = penstock_core::cluster::node_status(&w.cluster, node, used);
    assert_eq!(status.to_string(), "IDLE+MAINTENANCE");
}
