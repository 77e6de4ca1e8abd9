//! What do suggestions and what-ifs tell, case by case? That it comes true is proven beside `explain`.

use penstock_core::Refusal;
use penstock_core::accounts::Limit;
use penstock_core::command::Unit;
use penstock_core::explain::{Change, GateKind, explain, suggest, what_if};
use penstock_core::model::Inventory;
use penstock_vocab::{GresName, GresRequest, PendingReason, Timestamp, TresKind};

use crate::common::accounts::{account, add_user, limits, member, set_account, set_qos};
use crate::common::{admin, job, node_name, user, world};

#[test]
fn suggestions_are_of_every_kind_and_the_soonest_is_first() {
    let typed =
        |kind: &str, count| GresRequest { name: GresName::new("gpu", Some(kind)).unwrap(), count };
    let mut w = world()
        .nodes(0)
        .partition("idle", |idle| {
            idle.nodes = Some(vec![node_name(3)]);
            // As at submission: in any case, and who is allowed is not denied.
            idle.allow_qos = ["NORMAL".into()].into();
            idle.deny_qos = ["normal".into()].into();
        })
        .main(|main| main.nodes = Some(vec![node_name(1), node_name(2)]))
        .scheduling(|s| s.weights.fcfs = true)
        .build();
    for (number, kind) in [(1, "a100"), (2, "h100"), (3, "a100")] {
        let inventory = Inventory { gres: [typed(kind, 2)].into(), ..w.inventory.clone() };
        w.register_with(number, inventory, Vec::new());
    }
    w.submit(&job().gres("gpu:a100:2").minutes(60));
    w.run_plan();
    let waits = w.submit(&job().gres("gpu:a100:1").minutes(10));
    let found = suggest(&w.cluster, w.now, Unit::Job(waits));
    let told: Vec<_> = found.iter().map(|one| (&*one.change, one.start, &*one.nodes)).collect();
    let at_once = [
        ("--partition=idle", w.now, "n3"),
        ("--gres=gpu:1", w.now, "n2"),
        ("--gres=gpu:h100:1", w.now, "n2"),
    ];
    assert_eq!(told, at_once);
    // What is of no use is not told.
    w.submit(&job().partition(&["idle"]).gres("gpu:a100:2").minutes(60));
    w.submit(&job().gres("gpu:h100:2").minutes(60));
    w.run_plan();
    assert_eq!(suggest(&w.cluster, w.now, Unit::Job(waits)), []);
}

#[test]
fn a_shorter_limit_or_fewer_nodes_fit_before_what_is_kept_for_others() {
    let mut w = world().nodes(3).scheduling(|s| s.weights.fcfs = true).build();
    w.submit(&job().tasks(8).nodes(2).minutes(10));
    w.run_plan();
    w.submit(&job().tasks(12).nodes(3).minutes(60));
    let long = w.submit(&job().tasks(2).minutes(16));
    let found = suggest(&w.cluster, w.now, Unit::Job(long));
    let told: Vec<_> = found.iter().map(|one| (&*one.change, one.loss, one.start)).collect();
    assert_eq!(told, [("--time=00:08:00", 500, w.now)]);
    let wide = w.submit(&job().tasks(4).nodes(2).minutes(8));
    let found = suggest(&w.cluster, w.now, Unit::Job(wide));
    let told: Vec<_> = found.iter().map(|one| (&*one.change, one.loss, one.start)).collect();
    assert_eq!(told, [("--nodes=1-2", 0, w.now)]);
}

#[test]
fn a_drain_tells_when_the_last_job_on_each_node_ends() {
    let mut w = world().nodes(3).build();
    w.submit(&job().on(&[1]).minutes(90));
    w.submit(&job().on(&[2]).spec(|spec| spec.time_limit = None));
    w.run_plan();
    let change = Change::Drain([1, 2, 3].map(node_name).to_vec());
    let told = what_if(&w.cluster, w.now, change).unwrap();
    assert_eq!(
        told.notes,
        [
            "the last job on n1, 1, ends within 01:30:00 at the latest",
            "job 2 on n2 has no time limit: nobody knows when it ends",
            "nothing runs on n3: it is drained at once",
        ]
    );
}

#[test]
fn a_job_that_only_drained_nodes_could_take_is_named() {
    let mut w = world().nodes(3).build();
    w.submit(&job().on(&[1]).minutes(90).tasks(4));
    w.run_plan();
    w.submit(&job().nodes(3).minutes(5).tasks(3).shape(|s| s.cpus_per_task = Some(4)));
    let told = what_if(&w.cluster, w.now, Change::Drain(vec![node_name(3)])).unwrap();
    let text = "job 2 can't run any more: no nodes in service could take it";
    assert!(told.notes.iter().any(|note| note == text), "{:?}", told.notes);
    assert_eq!((told.rows.len(), told.unchanged), (1, 0));
    assert_eq!(told.rows[0].before, Some(w.now.plus_secs(5_400)));
    assert_eq!(told.rows[0].after, None);
    assert!(told.rows[0].reason_after.is_some());
}

#[test]
fn what_would_be_refused_is_refused() {
    let w = world().build();
    let ask = |change| what_if(&w.cluster, w.now, change).map(drop);
    let too_wide = Change::Submit(user(1), Box::new(job().nodes(9).submission()));
    assert!(matches!(ask(too_wide), Err(Refusal::NeverFits(_))));
    let nowhere = Change::Drain(vec![node_name(9)]);
    assert_eq!(ask(nowhere), Err(Refusal::InvalidNode("n9".into())));
    assert_eq!(ask(Change::Drain(Vec::new())), Err(Refusal::NoChange));
}

#[test]
fn another_order_is_compared_with_the_one_in_force() {
    let mut w = world().nodes(1).scheduling(|s| s.weights.fcfs = true).build();
    w.submit(&job().tasks(4).minutes(60));
    w.run_plan();
    let first = w.submit(&job().tasks(4).minutes(30).spec(|spec| spec.nice = 100));
    let second = w.submit(&job().tasks(4).minutes(10));
    let mut scheduling = w.cluster.config().scheduling.clone();
    scheduling.weights.fcfs = false;
    let told = what_if(&w.cluster, w.now, Change::Scheduling(Box::new(scheduling))).unwrap();
    let row = |at: usize| {
        let secs = |time: Option<Timestamp>| time.map(|time| time.since(w.now).as_secs());
        (told.rows[at].unit.id(), secs(told.rows[at].before), secs(told.rows[at].after))
    };
    assert_eq!(row(0), (first, Some(3_600), Some(4_200)));
    assert_eq!(row(1), (second, Some(5_400), Some(3_600)));
    assert_eq!(told.unchanged, 0);
}

#[test]
fn who_waits_for_a_job_without_a_limit_is_not_said_to_run_no_more() {
    let mut w = world().build();
    w.submit(&job().on(&[1]).tasks(4).minutes(90));
    w.submit(&job().on(&[2]).tasks(4));
    w.run_plan();
    w.submit(&job().tasks(4).minutes(5));
    let told = what_if(&w.cluster, w.now, Change::Drain(vec![node_name(1)])).unwrap();
    assert_eq!(told.rows[0].after, None);
    assert_eq!(told.notes, ["the last job on n1, 1, ends within 01:30:00 at the latest"]);
}

#[test]
fn a_limit_keeps_back_whom_it_is_said_to_and_explain_names_it() {
    let mut w = world().nodes(2).build();
    w.change(vec![account("lab", ""), add_user("alice", 1000), member("lab", "alice")]).unwrap();
    w.submit(&job().tasks(4).minutes(60));
    w.run_plan();
    let next = w.submit(&job().tasks(4).minutes(60));
    let change = || vec![set_account("lab", limits([(Limit::GrpJobs, 1)]))];
    let told = what_if(&w.cluster, w.now, Change::Accounts(admin(), change())).unwrap();
    assert_eq!((told.rows.len(), told.unchanged, &*told.notes), (1, 0, &[][..]));
    let row = &told.rows[0];
    assert_eq!((row.unit, row.before, row.after), (Unit::Job(next), Some(w.now), None));
    let reason = row.reason_after.clone().unwrap();
    assert_eq!(reason.reason, PendingReason::AssocGrpJobsLimit);
    w.change(change()).unwrap();
    assert!(w.run_plan().is_empty());
    let found = explain(&w.cluster, &w.plan(), w.now, Unit::Job(next)).unwrap();
    let gate = found.gates.iter().find(|gate| !gate.open).unwrap();
    assert_eq!((gate.kind, gate.reason), (GateKind::Limits, reason.reason));
    assert!(gate.detail.contains("runs 1 of 1 jobs (GrpJobs)"), "{}", gate.detail);
    let unknown = vec![set_account("nobody", limits([(Limit::GrpJobs, 1)]))];
    assert!(what_if(&w.cluster, w.now, Change::Accounts(admin(), unknown)).is_err());
}

#[test]
fn limits_of_every_kind_are_told_at_their_gate_with_the_words_of_the_plan() {
    use PendingReason as R;
    let lab = |limit, value| set_account("lab", limits([(limit, value)]));
    let normal = |limit, value| set_qos("normal", [(limit, value)]);
    let cpu = || TresKind::Cpu;
    let cases = [
        (lab(Limit::GrpJobs, 1), R::AssocGrpJobsLimit),
        (lab(Limit::MaxJobs, 1), R::AssocMaxJobsLimit),
        (lab(Limit::MaxWall, 29), R::AssocMaxWallDurationPerJobLimit),
        (lab(Limit::GrpTres(cpu()), 3), R::AssocGrpCpuLimit),
        (lab(Limit::GrpTres(TresKind::Node), 1), R::AssocGrpNodeLimit),
        (lab(Limit::GrpTresRunMins(cpu()), 99), R::AssocGrpCpuRunMinutesLimit),
        (lab(Limit::MaxTres(cpu()), 1), R::AssocMaxCpuPerJobLimit),
        (lab(Limit::MaxTresPerNode(cpu()), 1), R::AssocMaxCpuPerNode),
        (normal(Limit::GrpJobs, 1), R::QosGrpJobsLimit),
        (normal(Limit::MaxJobsPerAccount, 1), R::MaxJobsPerAccount),
        (normal(Limit::MaxJobsPerUser, 1), R::QosMaxJobsPerUserLimit),
    ];
    for (change, reason) in cases {
        let mut w = world().build();
        w.change(vec![account("lab", ""), add_user("alice", 1000), member("lab", "alice")])
            .unwrap();
        let two = job().tasks(2).nodes(1).minutes(30);
        w.submit(&two.clone().on(&[1]));
        w.run_plan();
        let next = w.submit(&two.on(&[2]));
        w.change(vec![change]).unwrap();
        let plan = w.plan();
        let shown = w.cluster.waiting(Unit::Job(next), &plan).unwrap();
        assert_eq!(shown.reason, reason);
        let found = explain(&w.cluster, &plan, w.now, Unit::Job(next)).unwrap();
        let gate = found.gates.iter().find(|gate| !gate.open).unwrap();
        assert_eq!((gate.kind, gate.reason), (GateKind::Limits, reason));
        assert_eq!(gate.detail, shown.detail);
    }
}
