//! Limits: which one keeps a job back, in Slurm's order and words; budgets; guarantees; cost.

use penstock_core::accounts::{
    AccountChange, AssocSettings, EditMode, FlagEdit, Limit, QosSettings,
};
use penstock_core::command::{JobUpdate, OrderKind, Target, Unit};
use penstock_core::explain::suggest;
use penstock_core::model::{EndCause, Enforcement, QosFlag};
use penstock_core::{Command, Refusal, Reply};
use penstock_vocab::{JobId, JobState, PendingReason, Tres, TresKind};

use crate::common::accounts::{account, add_user, limits, list, member, qos, set_account, set_qos};
use crate::common::{JobBuilder, World, admin, job, partition_name, user, world};

fn gpu() -> TresKind {
    "gres/gpu".parse().unwrap()
}

/// Four nodes of 4 CPUs, 4,000 MiB and 2 GPUs; root > top > lab; alice (1000) and bob (1001) in lab;
/// the QOS `extra` may be used by name, the partition `other` has the QOS `part`.
fn lab(enforce: Enforcement) -> World {
    let mut w = world()
        .nodes(4)
        .gpus(2)
        .partition("other", |p| p.qos = Some("part".into()))
        .scheduling(|s| {
            s.enforce = enforce;
            s.fairshare.half_life_secs = 0;
        })
        .build();
    w.change(vec![
        account("top", ""),
        account("lab", "top"),
        add_user("alice", 1000),
        add_user("bob", 1001),
        member("lab", "alice"),
        member("lab", "bob"),
        qos("extra", []),
        qos("part", []),
    ])
    .unwrap();
    w
}

fn flag(name: &str, flag: QosFlag) -> AccountChange {
    let flags = Some(FlagEdit { mode: EditMode::Add, flags: vec![flag] });
    AccountChange::ModifyQos(name.into(), Box::new(QosSettings { flags, ..Default::default() }))
}

fn of_lab(limit: Limit, value: i64) -> AccountChange {
    set_account("lab", limits([(limit, value)]))
}

/// A job of 30 minutes.
fn half_hour() -> JobBuilder {
    job().minutes(30)
}

/// Why a job waits, by the newest plan.
fn why(w: &World, id: JobId) -> (PendingReason, String) {
    let plan = w.plan();
    let waiting = w.cluster.waiting(Unit::Job(id), &plan).unwrap();
    (waiting.reason, waiting.detail)
}

#[test]
fn each_limit_has_slurms_reason_and_a_sentence_with_numbers() {
    use Limit as L;
    use PendingReason as R;
    let (cpu, mem, node) = (TresKind::Cpu, TresKind::Mem, TresKind::Node);
    let on = |limit: Limit, value| of_lab(limit, value);
    let q = |limit: Limit, value| set_qos("normal", [(limit, value)]);
    let cases: Vec<(AccountChange, PendingReason, &str)> = vec![
        (on(L::GrpJobs, 1), R::AssocGrpJobsLimit, "account lab runs 1 of 1 jobs (GrpJobs); job 1"),
        (on(L::MaxJobs, 1), R::AssocMaxJobsLimit, "user alice in account lab runs 1 of 1 jobs"),
        (on(L::MaxWall, 29), R::AssocMaxWallDurationPerJobLimit, "its time limit is 30:00"),
        (on(L::GrpTres(cpu.clone()), 3), R::AssocGrpCpuLimit, "uses 2 of 3 of cpu (GrpTRES)"),
        (on(L::GrpTres(mem), 2_500), R::AssocGrpMemLimit, "of mem (GrpTRES)"),
        (on(L::GrpTres(node.clone()), 1), R::AssocGrpNodeLimit, "ends in 20:00 at the latest"),
        (on(L::GrpTres(gpu()), 1), R::AssocGrpGres, "uses 1 of 1 of gres/gpu"),
        (
            on(L::GrpTresRunMins(cpu.clone()), 99),
            R::AssocGrpCpuRunMinutesLimit,
            "may still use 40 of 99 minutes of cpu (GrpTRESRunMins) and the job may use 60 more",
        ),
        (on(L::MaxTres(cpu.clone()), 1), R::AssocMaxCpuPerJobLimit, "needs 2 of cpu, account lab"),
        (on(L::MaxTresPerNode(cpu.clone()), 1), R::AssocMaxCpuPerNode, "on a node"),
        (on(L::MaxTresMins(gpu()), 29), R::AssocMaxGresMinutesPerJob, "may use 30 minutes of gres"),
        (q(L::GrpJobs, 1), R::QosGrpJobsLimit, "QOS normal runs 1 of 1 jobs"),
        (q(L::MaxJobsPerAccount, 1), R::MaxJobsPerAccount, "account lab in QOS normal runs 1"),
        (q(L::MaxJobsPerUser, 1), R::QosMaxJobsPerUserLimit, "user alice in QOS normal runs 1"),
        (q(L::MaxWall, 1), R::QosMaxWallDurationPerJobLimit, "QOS normal allows 1:00 (MaxWall)"),
        (q(L::GrpTres(cpu.clone()), 2), R::QosGrpCpuLimit, "uses 2 of 2 of cpu"),
        (q(L::GrpTresRunMins(gpu()), 49), R::QosGrpGresRunMinutes, "may still use 20 of 49"),
        (q(L::MaxTres(gpu()), 0), R::QosMaxGresPerJob, "needs 1 of gres/gpu, QOS normal allows 0"),
        (q(L::MaxTresMins(cpu.clone()), 59), R::QosMaxCpuMinutesPerJobLimit, "may use 60 minutes"),
        (q(L::MinTres(cpu.clone()), 3), R::QosMinCpuNotSatisfied, "QOS normal asks for 3"),
        (q(L::MaxTresPerUser(node), 1), R::QosMaxNodePerUserLimit, "user alice in QOS normal uses"),
        (q(L::MaxTresPerAccount(cpu), 3), R::MaxCpuPerAccount, "account lab in QOS normal uses 2"),
    ];
    for (change, reason, text) in cases {
        let shown = format!("{change:?}");
        let mut w = lab(Enforcement::Strict);
        let request = half_hour().tasks(2).memory(2_000).gres("gpu:1");
        w.submit(&request);
        assert_eq!(w.run_plan(), [JobId(1)]);
        w.advance(600);
        w.change(vec![change]).unwrap();
        let id = w.submit(&request);
        let (found, detail) = why(&w, id);
        assert_eq!(found, reason, "{shown}: {detail}");
        assert!(detail.contains(text), "{shown}: {detail}");
        assert_eq!(w.run_plan(), [], "{shown}");
    }
}

#[test]
fn a_job_that_a_limit_keeps_back_closes_nothing() {
    let mut w = lab(Enforcement::Strict);
    w.change(vec![AccountChange::ModifyAssoc(
        crate::common::accounts::place("lab", "alice"),
        limits([(Limit::MaxJobs, 0)]),
    )])
    .unwrap();
    w.submit(&half_hour());
    let other = w.submit(&half_hour().by(user(1001)));
    assert_eq!(w.run_plan(), [other]);
}

#[test]
fn a_plan_counts_its_own_starts_and_a_start_is_checked_again() {
    let mut w = lab(Enforcement::None);
    w.change(vec![of_lab(Limit::GrpTres(TresKind::Cpu), 5)]).unwrap();
    w.submit(&half_hour().tasks(2).array(0, 9, 0));
    let plan = w.plan();
    assert_eq!(plan.starts.len(), 2);
    w.change(vec![of_lab(Limit::GrpTres(TresKind::Cpu), 3)]).unwrap();
    let reply = w.execute(Command::Start(plan.starts)).unwrap().reply;
    assert_eq!(reply, Reply::Started { started: 1, refused: 1 });
}

#[test]
fn the_first_place_that_sets_a_limit_counts() {
    let jobs = |w: &mut World, request: &JobBuilder| {
        for _ in 0..6 {
            w.submit(request);
        }
        w.run_plan().len()
    };
    let in_other = half_hour().partition(&["other"]);
    // The partition's QOS goes before the job's, and both before associations.
    let mut w = lab(Enforcement::Strict);
    w.change(vec![
        set_qos("part", [(Limit::GrpJobs, 4)]),
        set_qos("normal", [(Limit::GrpJobs, 2)]),
        of_lab(Limit::GrpJobs, 1),
    ])
    .unwrap();
    assert_eq!(jobs(&mut w, &in_other), 4);
    let mut w = lab(Enforcement::Strict);
    w.change(vec![
        set_qos("part", [(Limit::GrpJobs, 4)]),
        set_qos("normal", [(Limit::GrpJobs, 2)]),
        flag("normal", QosFlag::OverPartQos),
    ])
    .unwrap();
    assert_eq!(jobs(&mut w, &in_other), 2);
    // Without a QOS's word the associations' group limits hold at every level.
    let mut w = lab(Enforcement::Strict);
    w.change(vec![set_account("top", limits([(Limit::GrpJobs, 3)])), of_lab(Limit::GrpJobs, 5)])
        .unwrap();
    assert_eq!(jobs(&mut w, &half_hour()), 3);
    // The nearest association's limit on each job counts.
    let mut w = lab(Enforcement::Strict);
    w.change(vec![set_account("top", limits([(Limit::MaxWall, 10)])), of_lab(Limit::MaxWall, 40)])
        .unwrap();
    assert_eq!(jobs(&mut w, &half_hour()), 6);
}

#[test]
fn a_limit_factor_widens_the_associations_limits() {
    let mut w = lab(Enforcement::Strict);
    let factor = QosSettings { limit_factor: Some(Some(2_000_000)), ..QosSettings::default() };
    w.change(vec![
        of_lab(Limit::GrpTres(TresKind::Cpu), 2),
        AccountChange::ModifyQos("extra".into(), Box::new(factor)),
    ])
    .unwrap();
    w.submit(&half_hour().array(0, 9, 0));
    assert_eq!(w.run_plan().len(), 2);
    w.submit(&half_hour().array(0, 9, 0).spec(|s| s.qos = "extra".into()));
    assert_eq!(w.run_plan().len(), 2);
}

#[test]
fn limits_on_submission_refuse() {
    use Limit as L;
    use PendingReason as R;
    let cases: Vec<(AccountChange, PendingReason)> = vec![
        (of_lab(L::GrpSubmitJobs, 3), R::AssocGrpSubmitJobsLimit),
        (of_lab(L::MaxSubmitJobs, 3), R::AssocMaxSubmitJobLimit),
        (set_qos("normal", [(L::GrpSubmitJobs, 3)]), R::QosGrpSubmitJobsLimit),
        (set_qos("normal", [(L::MaxSubmitJobsPerUser, 3)]), R::QosMaxSubmitJobPerUserLimit),
        (set_qos("normal", [(L::MaxSubmitJobsPerAccount, 3)]), R::MaxSubmitJobsPerAccount),
    ];
    for (change, expect) in cases {
        let mut w = lab(Enforcement::Strict);
        w.change(vec![change]).unwrap();
        let first = w.submit(&half_hour());
        assert_eq!(w.run_plan(), [first]);
        // Tasks of an array count one by one, whatever runs of them.
        let refusal = w.try_submit(&half_hour().array(0, 2, 0)).unwrap_err();
        let Refusal::PolicyLimit { reason, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!(*reason, expect);
        assert!(refusal.to_string().starts_with(expect.name()), "{refusal}");
        w.submit(&half_hour().array(0, 1, 0));
        assert!(w.try_submit(&half_hour()).is_err());
        // What ends makes room.
        w.exit(first, 0);
        w.submit(&half_hour());
    }
}

#[test]
fn deny_on_limit_refuses_what_waiting_would_not_help() {
    let mut w = lab(Enforcement::Strict);
    let (cpu, mem) = (TresKind::Cpu, TresKind::Mem);
    w.change(vec![
        set_qos(
            "extra",
            [
                (Limit::MaxTres(cpu), 2),
                (Limit::MaxWall, 60),
                (Limit::MinTres(mem), 10),
                (Limit::GrpTres(gpu()), 1),
            ],
        ),
        of_lab(Limit::MaxTres(TresKind::Node), 1),
    ])
    .unwrap();
    let extra = |job: JobBuilder| job.spec(|s| s.qos = "extra".into());
    // Without the switch it waits.
    w.submit(&extra(half_hour().tasks(3)));
    w.change(vec![flag("extra", QosFlag::DenyOnLimit)]).unwrap();
    for (request, reason) in [
        (half_hour().tasks(3), Some("QOSMaxCpuPerJobLimit")),
        (job().minutes(61), Some("QOSMaxWallDurationPerJobLimit")),
        (half_hour().memory(5), Some("QOSMinMemory")),
        (half_hour().gres("gpu:2"), Some("QOSGrpGRES")),
        (half_hour().nodes(2).tasks(2), Some("AssocMaxNodePerJobLimit")),
        (half_hour().tasks(2), None),
    ] {
        let refusal = w.try_submit(&extra(request)).err().map(|why| why.to_string());
        let name = refusal.as_deref().map(|text| text.split(':').next().unwrap());
        assert_eq!(name, reason, "{refusal:?}");
    }
    // What only others stand in the way of waits.
    w.submit(&extra(half_hour().gres("gpu:1")));
    w.submit(&extra(half_hour().gres("gpu:1")));
}

#[test]
fn a_changed_job_is_checked_like_a_new_one() {
    let mut w = lab(Enforcement::Strict);
    w.change(vec![set_qos("extra", [(Limit::GrpSubmitJobs, 2)])]).unwrap();
    let array = w.submit(&half_hour().array(0, 2, 0));
    let id = w.submit(&half_hour());
    let to = |qos: &str| JobUpdate { qos: Some(qos.into()), ..JobUpdate::default() };
    let refusal = w.update(user(1000), Target::Id(array), to("extra")).unwrap();
    assert_eq!(refusal.kind(), "PolicyLimit");
    assert_eq!(w.update(user(1000), Target::Id(id), to("extra")), None);
    // It does not stand in its own way.
    w.submit(&half_hour().spec(|s| s.qos = "extra".into()));
    let part = JobUpdate { partitions: Some(vec![partition_name("other")]), ..Default::default() };
    assert_eq!(w.update(user(1000), Target::Id(id), part), None);
}

/// Lets time pass up to each instant at which the cluster wants to be woken.
fn run_until(w: &mut World, secs: u64) {
    let end = w.now.plus_secs(secs);
    while let Some(wake) = w.cluster.next_wake().filter(|wake| *wake <= end) {
        w.now = w.now.max(wake);
        let before = w.cluster.next_wake();
        w.execute(Command::Tick).unwrap();
        assert!(w.cluster.next_wake() != before || before.is_none(), "woken for nothing");
    }
    w.now = end;
}

#[test]
fn a_budget_stops_at_its_end() {
    for (decay, safe) in [(0, false), (3_600, false), (0, true)] {
        let mut w = lab(if safe { Enforcement::Safe } else { Enforcement::Strict });
        let mut config = (**w.cluster.config()).clone();
        config.scheduling.fairshare.half_life_secs = decay;
        w.execute(Command::Configure(config.into())).unwrap();
        w.change(vec![set_account("top", limits([(Limit::GrpTresMins(gpu()), 100)]))]).unwrap();
        let two = w.submit(&job().minutes(60).gres("gpu:2"));
        let plain = w.submit(&job().minutes(60).by(user(1001)));
        if safe {
            // 120 minutes would not fit.
            assert_eq!(w.run_plan(), [plain]);
            let (reason, text) = why(&w, two);
            assert_eq!(reason, PendingReason::AssocGrpGresMinutes);
            let told = "account top has used 0 of 100 minutes of gres/gpu (GrpTRESMins) and the job \
                        may use 120 more";
            assert_eq!(text, told);
            let fits = w.submit(&job().minutes(50).gres("gpu:2"));
            assert_eq!(w.run_plan(), [fits]);
            continue;
        }
        assert_eq!(w.run_plan().len(), 2);
        w.take_orders(two);
        run_until(&mut w, 50 * 60 - 1);
        assert_eq!(w.take_orders(two), [], "its 100 minutes end after 50");
        run_until(&mut w, if decay == 0 { 1 } else { 40 * 60 });
        let ended = w.take_orders(two);
        assert_eq!(ended, [OrderKind::Terminate(EndCause::TimeLimit)], "half-life {decay}");
        assert_eq!(w.state(plain), JobState::Running, "it uses none of the budget");
        w.exit(two, 1);
        let job = w.job(two);
        assert_eq!(
            (job.state, job.reason),
            (JobState::Timeout, Some(PendingReason::AssocGrpGresMinutes))
        );
        let told = "account top has used all of its 100 minutes of gres/gpu (GrpTRESMins)";
        assert_eq!(*job.run.as_ref().unwrap().end_reason, *told);
        if decay == 0 {
            let next = w.submit(&half_hour_gpu());
            assert_eq!(w.run_plan(), []);
            let (reason, text) = why(&w, next);
            assert_eq!(reason, PendingReason::AssocGrpGresMinutes);
            assert!(text.contains("has used 100 of 100 minutes of gres/gpu"), "{text}");
            // More lets it go.
            w.change(vec![set_account("top", limits([(Limit::GrpTresMins(gpu()), 200)]))]).unwrap();
            assert_eq!(w.run_plan(), [next]);
            // Less ends it at the next tick.
            w.change(vec![set_account("top", limits([(Limit::GrpTresMins(gpu()), 90)]))]).unwrap();
            assert_eq!(w.cluster.next_wake(), Some(w.now));
            w.wait(0);
            assert!(w.take_orders(next).contains(&OrderKind::Terminate(EndCause::TimeLimit)));
        }
    }
}

fn half_hour_gpu() -> JobBuilder {
    half_hour().gres("gpu:1")
}

#[test]
fn a_budgets_end_is_foreseen_anew_when_jobs_come_and_go() {
    let mut w = lab(Enforcement::Strict);
    w.change(vec![of_lab(Limit::GrpTresMins(TresKind::Cpu), 60)]).unwrap();
    let begin = w.now;
    let end_after = |w: &World| w.cluster.next_wake().map(|at| at.since(begin).as_secs() / 60);
    w.submit(&job());
    assert_eq!(w.run_plan().len(), 1);
    assert_eq!(end_after(&w), Some(60));
    w.advance(600);
    let second = w.submit(&job());
    assert_eq!(w.run_plan(), [second]);
    // 10 minutes are used, two a minute from here on.
    assert_eq!(end_after(&w), Some(35));
    w.advance(600);
    w.exit(second, 0);
    assert_eq!(end_after(&w), Some(50));
    // A restart foresees the same.
    assert_eq!(w.restored().next_wake(), w.cluster.next_wake());
}

#[test]
fn a_qos_with_a_budget_of_its_own_lets_its_jobs_off_the_associations() {
    let mut w = lab(Enforcement::Strict);
    let cpu = || Limit::GrpTresMins(TresKind::Cpu);
    w.change(vec![set_qos("extra", [(cpu(), 20)]), of_lab(cpu(), 5), of_lab(Limit::GrpWall, 60)])
        .unwrap();
    let extra = w.submit(&half_hour().spec(|s| s.qos = "extra".into()));
    let normal = w.submit(&half_hour());
    assert_eq!(w.run_plan(), [extra, normal]);
    // Both are charged to the lab: 5 minutes after two and a half.
    run_until(&mut w, 149);
    assert!(matches!(w.take_orders(normal)[..], [OrderKind::Launch]));
    run_until(&mut w, 1);
    assert!(w.job(normal).reason.is_some() && w.job(extra).reason.is_none());
    run_until(&mut w, 17 * 60 + 30);
    assert_eq!(w.job(extra).reason, Some(PendingReason::QosGrpCpuMinutesLimit));
}

#[test]
fn a_qos_may_set_the_partitions_bounds_aside() {
    let mut w = world()
        .nodes(4)
        .main(|p| {
            p.max_time = penstock_vocab::Walltime::from_minutes(10);
            p.max_nodes = 1;
        })
        .build();
    w.change(vec![qos("free", [])]).unwrap();
    let wide = half_hour().nodes(2).tasks(2).spec(|s| s.qos = "free".into());
    let id = w.submit(&wide);
    assert_eq!(why(&w, id).0, PendingReason::PartitionTimeLimit);
    w.change(vec![flag("free", QosFlag::PartitionTimeLimit)]).unwrap();
    assert_eq!(why(&w, id).0, PendingReason::PartitionNodeLimit);
    w.change(vec![flag("free", QosFlag::PartitionMaxNodes)]).unwrap();
    assert_eq!(w.run_plan(), [id]);
}

#[test]
fn partitions_let_qos_in_by_their_lists() {
    let mut w = world()
        .partition("only", |p| p.allow_qos = vec!["Normal".into()])
        .partition("never", |p| {
            p.deny_qos = vec!["normal".into()];
            p.deny_accounts = vec!["users".into()];
        })
        .build();
    w.submit(&job().partition(&["only"]));
    let refusal = w.try_submit(&job().partition(&["never"])).unwrap_err();
    assert_eq!(refusal.kind(), "AccountNotAllowed");
    let named = job().partition(&["never"]).spec(|s| s.account = "x".into());
    assert_eq!(w.try_submit(&named).unwrap_err().kind(), "InvalidQos");
}

#[test]
fn who_borrowed_and_who_may_ask_back() {
    let mut w = lab(Enforcement::Strict);
    let node = TresKind::Node;
    w.change(vec![
        account("owner", ""),
        add_user("carol", 1002),
        member("owner", "carol"),
        set_account("owner", limits([(Limit::Guaranteed(node.clone()), 2)])),
        set_account("top", limits([(Limit::Guaranteed(node), 1)])),
    ])
    .unwrap();
    w.submit(&half_hour().nodes(3).tasks(3));
    assert_eq!(w.run_plan().len(), 1);
    let (alice, carol) = (w.assoc("lab", Some("alice")), w.assoc("owner", Some("carol")));
    let state = w.cluster.limits();
    let accounts = w.cluster.accounts();
    let nodes = |n: u64| Tres { node: n, cpu: n, ..Tres::default() };
    assert_eq!(
        state.over_guarantee(accounts, alice, &nodes(1)),
        Tres { node: 2, cpu: 3, ..Tres::default() }
    );
    assert!(state.over_guarantee(accounts, carol, &nodes(1)).is_zero());
    assert!(state.under_guarantee(accounts, carol, &nodes(2)));
    assert!(!state.under_guarantee(accounts, carol, &nodes(3)));
    assert!(!state.under_guarantee(accounts, alice, &nodes(1)));
    assert!(!state.under_guarantee(accounts, carol, &Tres { cpu: 1, ..Tres::default() }));
}

#[test]
fn a_submission_says_what_it_may_cost() {
    let said = |w: &mut World, request: &JobBuilder| {
        let command = Command::Submit(request.caller, Box::new(request.submission()));
        match w.execute(command).unwrap().reply {
            Reply::Submitted { warnings, .. } => warnings,
            other => panic!("{other:?}"),
        }
    };
    let mut w = lab(Enforcement::Strict);
    assert!(said(&mut w, &half_hour()).is_empty(), "nobody set rates");
    let mut config = (**w.cluster.config()).clone();
    config.scheduling.cost.currency = "EUR".into();
    config.scheduling.cost.per_hour = [(TresKind::Cpu, 20_000), (gpu(), 1_500_000)].into();
    w.execute(Command::Configure(config.into())).unwrap();
    let told = |w: &mut World, request| said(w, &request).join("|");
    assert_eq!(told(&mut w, half_hour().tasks(2).gres("gpu:2")), "at most 1.52 EUR");
    assert_eq!(told(&mut w, half_hour().array(0, 9, 0)), "at most 0.10 EUR");
    assert_eq!(told(&mut w, job()), "0.02 EUR an hour, it has no time limit");
    w.change(vec![
        of_lab(Limit::GrpTresMins(gpu()), 100),
        of_lab(Limit::GrpTresMins(TresKind::Cpu), 1_000),
    ])
    .unwrap();
    assert_eq!(told(&mut w, half_hour().gres("gpu:1")), "at most 0.76 EUR; 30 % of what is left");
    assert_eq!(told(&mut w, half_hour()), "at most 0.01 EUR; 3 % of what is left");
}

#[test]
fn a_usage_threshold_keeps_back_who_used_much() {
    let mut w = lab(Enforcement::Strict);
    let settings = QosSettings {
        usage_threshold: Some(Some(600_000)),
        flags: Some(FlagEdit { mode: EditMode::Set, flags: vec![QosFlag::EnforceUsageThreshold] }),
        ..QosSettings::default()
    };
    w.change(vec![AccountChange::ModifyQos("extra".into(), Box::new(settings))]).unwrap();
    let spent = w.submit(&half_hour());
    assert_eq!(w.run_plan(), [spent]);
    w.advance(600);
    let id = w.submit(&half_hour().spec(|s| s.qos = "extra".into()));
    let (reason, text) = why(&w, id);
    assert_eq!(reason, PendingReason::QosUsageThreshold, "{text}");
    let bob = w.submit(&half_hour().by(user(1001)).spec(|s| s.qos = "extra".into()));
    assert_eq!(w.run_plan(), [bob]);
}

#[test]
fn limits_are_lifted_by_minus_one() {
    let mut w = lab(Enforcement::Strict);
    w.change(vec![of_lab(Limit::GrpJobs, 0)]).unwrap();
    let id = w.submit(&half_hour());
    assert_eq!(w.run_plan(), []);
    w.change_as(admin(), vec![of_lab(Limit::GrpJobs, -1)]).unwrap();
    assert_eq!(w.run_plan(), [id]);
    let settings = AssocSettings::default();
    assert!(settings.is_empty());
}

#[test]
fn whom_a_limit_alone_keeps_back_is_told_what_would_help() {
    let mut w = lab(Enforcement::Safe);
    w.change(vec![account("other", "top"), member("other", "alice")]).unwrap();
    w.change(vec![of_lab(Limit::GrpTres(TresKind::Cpu), 2)]).unwrap();
    let id = w.submit(&half_hour().tasks(4));
    assert!(w.run_plan().is_empty());
    assert_eq!(why(&w, id).0, PendingReason::AssocGrpCpuLimit);
    let told = suggest(&w.cluster, w.now, Unit::Job(id));
    let told: Vec<_> = told.iter().map(|one| (&*one.change, one.loss)).collect();
    assert_eq!(told, [("--account=other", 0), ("--ntasks=2", 500)]);
    // Of the account of which it is told it is let in.
    let to = |name: &str| JobUpdate { account: Some(name.into()), ..JobUpdate::default() };
    assert_eq!(w.update(user(1000), Target::Job(id), to("other")), None);
    assert_eq!(w.run_plan(), [id]);
}

#[test]
fn a_qos_is_told_only_where_it_may_be_used() {
    let mut w = lab(Enforcement::Safe);
    w.change(vec![set_qos("normal", [(Limit::MaxTres(gpu()), 1)])]).unwrap();
    let id = w.submit(&half_hour().gres("gpu:2"));
    assert!(w.run_plan().is_empty());
    let told = |w: &World| {
        let told = suggest(&w.cluster, w.now, Unit::Job(id));
        told.into_iter().map(|one| one.change).collect::<Vec<_>>()
    };
    assert_eq!(told(&w), ["--gres=gpu:1"]);
    let qos = Some(list(EditMode::Set, &["normal", "extra"]));
    w.change(vec![set_account("lab", AssocSettings { qos, ..AssocSettings::default() })]).unwrap();
    assert_eq!(told(&w), ["--qos=extra", "--gres=gpu:1"]);
}
